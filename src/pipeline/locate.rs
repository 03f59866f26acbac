//! From a problem's place to lines and columns of what the user wrote.

use std::ops::Range;
use std::path::Path;

use super::node::{Node, NodeValue, Origin, Style};
use super::set;
use crate::problem::{Place, shown_path};

/// The texts that places count in.
#[derive(Clone, Copy)]
pub struct SourceMap<'a> {
    /// The pipeline file's name, as it is shown.
    pub name: &'a str,
    /// The pipeline file's text, as `yaml::load` gives it.
    pub text: &'a str,
    /// The `--set` arguments in order.
    pub overrides: &'a [String],
    /// Gives a line of another file (counted from 1), if it can be shown.
    pub line_of: &'a dyn Fn(&Path, usize) -> Option<String>,
}

/// Where a place is.
pub(super) struct Location {
    pub file: String,
    /// Line and column of the first character, and of the one after the last. Both count from 1,
    /// columns in characters. Only the line may be known.
    pub start: Option<(usize, Option<usize>)>,
    pub end: Option<(usize, usize)>,
    /// The first line that the place is in, and the bytes of the place in it.
    pub line: Option<(String, Range<usize>)>,
    /// Problems are shown in this order: the pipeline file from its top, `--set`, other files.
    pub order: (u8, String, usize),
}

/// Finds a place; `None` if it is nowhere in particular.
pub(super) fn locate(place: &Place, root: Option<&Node>, sources: &SourceMap<'_>) -> Option<Location> {
    let span = match place {
        Place::Nowhere => return None,
        Place::File { path, line, column } => return Some(in_other_file(path, *line, *column, sources)),
        Place::Bytes(bytes) => return Some(in_own_file(bytes, sources)),
        place => root.and_then(|root| root.span_of(place)),
    };
    match span {
        Some(span) => match span.origin {
            Origin::Override(index) => Some(in_override(index, sources)),
            Origin::File => {
                let exact = inside(place, root, sources.text);
                Some(in_own_file(&exact.unwrap_or(span.bytes), sources))
            }
        },
        None => Some(in_own_file(&(0..0), sources)),
    }
}

fn in_override(index: usize, sources: &SourceMap<'_>) -> Location {
    let argument = sources.overrides.get(index).map_or("", String::as_str);
    Location {
        file: set::place_name(argument),
        start: None,
        end: None,
        line: None,
        order: (1, String::new(), index),
    }
}

fn in_other_file(
    path: &Path,
    line: Option<usize>,
    column: Option<usize>,
    sources: &SourceMap<'_>,
) -> Location {
    let text = line.and_then(|line| (sources.line_of)(path, line));
    let snippet = text.and_then(|text| {
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        let Some(column) = column else { return Some((text.clone(), 0..text.len())) };
        let character = text.char_indices().nth(column.checked_sub(1)?);
        let start = character.map_or(text.len(), |(byte, _)| byte);
        let end = start + character.map_or(0, |(_, character)| character.len_utf8());
        Some((text, start..end))
    });
    let file = shown_path(path).to_string();
    let order = (2, file.clone(), line.unwrap_or(0));
    Location { file, start: line.map(|line| (line, column)), end: None, line: snippet, order }
}

fn in_own_file(bytes: &Range<usize>, sources: &SourceMap<'_>) -> Location {
    let text = sources.text;
    let mut start = text.floor_char_boundary(bytes.start.min(text.len()));
    let mut end = text.ceil_char_boundary(bytes.end.min(text.len())).max(start);
    if text[start..].trim().is_empty() {
        // What is missing at the end of a file is missing after its last word.
        start = start.min(text.trim_end().len());
        end = start;
    }
    let line_at = line_start(text, start);
    let line = text[line_at..].lines().next().unwrap_or_default();
    // A place may be at the line's end, which a carriage return can be part of.
    let in_line = |byte: usize| (byte - line_at).min(line.len());
    let line_bytes = in_line(start)..in_line(end);
    let number = |byte: usize| 1 + text[..byte].matches('\n').count();
    let column = |byte: usize| 1 + text[line_start(text, byte)..byte].chars().count();
    Location {
        file: sources.name.to_owned(),
        start: Some((number(start), Some(column(start)))),
        end: Some((number(end), column(end))),
        line: Some((line.to_owned(), line_bytes)).filter(|(line, _)| !line.is_empty()),
        order: (0, String::new(), start),
    }
}

fn line_start(text: &str, byte: usize) -> usize {
    text[..byte].rfind('\n').map_or(0, |newline| newline + 1)
}

/// The bytes of the file that a range inside one of its texts was written in, if that is certain.
fn inside(place: &Place, root: Option<&Node>, file: &str) -> Option<Range<usize>> {
    let Place::Inside(path, range) = place else { return None };
    let node = root?.get(path)?;
    let NodeValue::Text { text, style } = &node.value else { return None };
    let written = file.get(node.span.bytes.clone())?;
    let found = match style {
        Style::Plain if written == text => Some(range.start.min(text.len())..range.end.min(text.len())),
        Style::Plain => None,
        Style::Quoted => {
            let quote = written.chars().next()?;
            let body = written.get(1..written.len().checked_sub(1)?)?;
            let at = |target| quoted_offset(body, quote, target).map(|offset| offset + 1);
            at(range.start).map(|start| start..at(range.end).unwrap_or(start))
        }
        Style::Literal | Style::Folded => return block_range(file, &node.span.bytes, text, range),
    }?;
    let start = node.span.bytes.start;
    Some(start + found.start..start + found.end.max(found.start))
}

/// The byte between the quotes that byte `target` of the text was written at. Not known where the
/// text runs over several lines, since these are folded.
fn quoted_offset(body: &str, quote: char, target: usize) -> Option<usize> {
    let (mut offset, mut decoded) = (0, 0);
    while decoded < target {
        let rest = &body[offset..];
        let character = rest.chars().next()?;
        let (written_bytes, text_bytes) = match character {
            '\n' => return None,
            '\'' if quote == '\'' => (2, 1),
            '\\' if quote == '"' => escape_bytes(&rest[1..])?,
            other => (other.len_utf8(), other.len_utf8()),
        };
        offset += written_bytes;
        decoded += text_bytes;
    }
    Some(offset)
}

/// How many bytes an escape is written in, and how many it stands for; `rest` follows its `\`.
fn escape_bytes(rest: &str) -> Option<(usize, usize)> {
    let digits = match rest.chars().next()? {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        'N' | '_' => return Some((2, 2)),
        'L' | 'P' => return Some((2, 3)),
        '\n' | '\r' => return None,
        other => return Some((1 + other.len_utf8(), 1)),
    };
    let code = u32::from_str_radix(rest.get(1..=digits)?, 16).ok()?;
    Some((2 + digits, char::from_u32(code)?.len_utf8()))
}

/// The bytes of the file that a range of a block's text is in, up to the end of a line. `block` begins
/// behind the indentation of its first line with text. Found by looking for each written line in the
/// text, so folding does not matter.
fn block_range(file: &str, block: &Range<usize>, text: &str, range: &Range<usize>) -> Option<Range<usize>> {
    let mut line_at = line_start(file, block.start);
    let indent = block.start - line_at;
    let body = file.get(line_at..block.end)?;
    let mut cursor = 0;
    for line in body.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']).get(indent..).unwrap_or_default();
        let content_at = line_at + indent;
        line_at += line.len();
        if content.is_empty() {
            continue;
        }
        while !text.get(cursor..)?.starts_with(content) {
            text[cursor..].starts_with(['\n', ' ']).then_some(())?;
            cursor += 1;
        }
        if range.start <= cursor + content.len() {
            let start = range.start.saturating_sub(cursor);
            let end = range.end.saturating_sub(cursor).clamp(start, content.len());
            return Some(content_at + start..content_at + end);
        }
        cursor += content.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::yaml;
    use crate::problem::KeyPath;

    /// Checks where the word `HERE` of the text at `x` was written: at the first `HERE` of the file.
    #[track_caller]
    fn check(file: &str) {
        let root = yaml::parse(file).0.expect("it parses");
        let path = KeyPath::parse("x");
        let NodeValue::Text { text, .. } = &root.get(&path).expect("it is there").value else {
            panic!("it is text")
        };
        let at = text.find("HERE").expect("the word is in the text");
        let range = inside(&Place::Inside(path, at..at + 4), Some(&root), file);
        let expected = file.find("HERE").expect("the word is in the file");
        assert_eq!(range, Some(expected..expected + 4), "{file}");
    }

    #[test]
    fn words_inside_texts_are_found_in_the_file() {
        check("x: HERE");
        check("a: é\nx:   so HERE it is # comment\n");
        check("x: 'it''s HERE'");
        check(r#"x: "\ttab é \"q\" \x41\u00e9\U0001F600\_ HERE""#);
        check("x: |\n  one\n\n    two HERE\n  three\n");
        check("x: |-\r\n\r\n  one\r\n  HERE\r\n");
        check("x: >\n  one\n  two\n\n  three\n  HERE and\n  on\n");
        check("x: |2\n    one\n   HERE\n");
        check("y:\n  - 1\nx: >-  # why\n\n  one\n    more HERE\n");
    }

    #[test]
    fn a_place_at_the_end_of_a_line_stays_in_the_line() {
        let sources = SourceMap { name: "", text: "a: 1\r\nb: 2\n", overrides: &[], line_of: &|_, _| None };
        let shown = |bytes| in_own_file(&bytes, &sources).line;
        assert_eq!(shown(5..6), Some(("a: 1".to_owned(), 4..4)));
        assert_eq!(shown(3..9), Some(("a: 1".to_owned(), 3..4)));
        assert_eq!(shown(11..12), Some(("b: 2".to_owned(), 4..4)));
        assert_eq!(shown(99..100), Some(("b: 2".to_owned(), 4..4)));
    }

    #[test]
    fn where_it_is_not_certain_the_whole_value_is_meant() {
        let uncertain = |file: &str| {
            let root = yaml::parse(file).0.expect("it parses");
            inside(&Place::Inside(KeyPath::parse("x"), 6..8), Some(&root), file)
        };
        assert_eq!(uncertain("x: 'one\n  two three'"), None);
        assert_eq!(uncertain("x: one\n  two three"), None);
        assert_eq!(uncertain("x: |\n  one"), None);
    }
}
