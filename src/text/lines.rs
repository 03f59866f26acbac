//! Lines of a text with their byte offsets, and the Markdown line forms that several algorithms
//! share: fences, headings, list markers. Never decides what to do with them.

use std::ops::Range;

/// One line: `text` is without its line end, `end` is past it, so that lines tile the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub start: usize,
    pub end: usize,
    pub text: &'a str,
}

impl Line<'_> {
    pub fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// The lines of a text, split at `\n`; a `\r` before it belongs to the line end.
pub fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let mut start = 0;
    text.split_inclusive('\n').map(move |whole| {
        let line = Line { start, end: start + whole.len(), text: whole.trim_end_matches(['\n', '\r']) };
        start = line.end;
        line
    })
}

/// An open Markdown code fence (CommonMark 0.31, section 4.5), with one liberty: it may be indented
/// by any depth, because models indent the fences inside their lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    mark: char,
    length: usize,
    /// Bytes of white space before the opening marks.
    pub indent: usize,
}

impl Fence {
    /// Reads an opening line: the fence and its info string (`python title="x"`).
    pub fn open(line: &str) -> Option<(Fence, &str)> {
        let body = line.trim_start_matches([' ', '\t']);
        let mark = body.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
        let info = body.trim_start_matches(mark);
        let length = body.len() - info.len();
        // A line such as ```x``` is code inside a sentence.
        let inline = mark == '`' && info.contains('`');
        if length < 3 || inline {
            return None;
        }
        Some((Fence { mark, length, indent: line.len() - body.len() }, info.trim()))
    }

    /// Whether a line closes this fence: the same mark, at least as often, and nothing else.
    pub fn closed_by(&self, line: &str) -> bool {
        let body = line.trim();
        body.len() >= self.length && body.chars().all(|mark| mark == self.mark)
    }
}

/// The level, 1 to 6, of a Markdown heading line (`## Title`).
pub fn heading_level(line: &str) -> Option<usize> {
    let body = line.trim_start_matches(' ');
    let title = body.trim_start_matches('#');
    let level = body.len() - title.len();
    let spaced = title.is_empty() || title.starts_with([' ', '\t']);
    ((1..=6).contains(&level) && spaced && line.len() - body.len() <= 3).then_some(level)
}

/// The marker that starts a list item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// `1.` or `1)`
    Number,
    /// `-`, `*`, `+` or `•`
    Bullet,
}

/// Longest number read as a list marker; longer ones are years and amounts at a line's start.
const MARKER_DIGITS_MAX: usize = 3;

/// Reads a list item's first line: its marker, its indentation in bytes, and its text.
pub fn list_marker(line: &str) -> Option<(Marker, usize, &str)> {
    let body = line.trim_start();
    let indent = line.len() - body.len();
    if is_rule(body) {
        return None;
    }
    let digits = body.len() - body.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (marker, rest) = if (1..=MARKER_DIGITS_MAX).contains(&digits) {
        (Marker::Number, body[digits..].strip_prefix(['.', ')'])?)
    } else {
        (Marker::Bullet, body.strip_prefix(['-', '*', '+', '•'])?)
    };
    let spaced = rest.is_empty() || rest.starts_with(char::is_whitespace);
    spaced.then(|| (marker, indent, rest.trim()))
}

/// Whether a line is a Markdown thematic break: `---`, `* * *`.
pub fn is_rule(line: &str) -> bool {
    let mut marks = line.chars().filter(|c| !c.is_whitespace());
    let Some(mark) = marks.next().filter(|mark| matches!(mark, '-' | '*' | '_')) else { return false };
    let mut count = 1;
    for next in marks {
        if next != mark {
            return false;
        }
        count += 1;
    }
    count >= 3
}

/// Narrows a range to what a reader sees of it: no white space at its end, no blank lines at its
/// start. The indentation of a first line that begins inside the range stays: it may be code.
pub fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let body = part.trim_start();
    if body.is_empty() {
        return range.end..range.end;
    }
    let gap = &text[range.start..range.end - body.len()];
    let starts_line = range.start == 0 || text.as_bytes()[range.start - 1] == b'\n';
    let start = match gap.rfind('\n') {
        Some(newline) => range.start + newline + 1,
        None if starts_line => range.start,
        None => range.end - body.len(),
    };
    start..range.start + part.trim_end().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tile_the_text() {
        let text = "a\r\n\nbé";
        let seen: Vec<_> = lines(text).map(|line| (line.start, line.end, line.text)).collect();
        assert_eq!(seen, [(0, 3, "a"), (3, 4, ""), (4, 7, "bé")]);
    }

    #[test]
    fn fences_open_and_close() {
        let (fence, info) = Fence::open("  ````python title").unwrap();
        assert_eq!((fence.indent, info), (2, "python title"));
        assert!(fence.closed_by("````` "));
        assert!(!fence.closed_by("```"));
        assert!(!fence.closed_by("~~~~"));
        assert_eq!(Fence::open("```x```"), None);
        assert_eq!(Fence::open("``"), None);
    }

    #[test]
    fn headings_and_markers() {
        assert_eq!(heading_level("### Three"), Some(3));
        assert_eq!(heading_level("#hashtag"), None);
        assert_eq!(list_marker("  10) ten "), Some((Marker::Number, 2, "ten")));
        assert_eq!(list_marker("• dot"), Some((Marker::Bullet, 0, "dot")));
        assert_eq!(list_marker("1985. A year"), None);
        assert_eq!(list_marker("1.5 litres"), None);
        assert_eq!(list_marker("* * *"), None);
        assert_eq!(list_marker("**bold**"), None);
    }

    #[test]
    fn trimming_keeps_the_first_indentation() {
        let check = |text: &str, from: usize, expected: &str| {
            assert_eq!(&text[trim(text, from..text.len())], expected, "{text:?}");
        };
        check("x\n\n    code\n", 1, "    code");
        check("    code\n  more  ", 0, "    code\n  more");
        check("a  b ", 1, "b");
        check("a \n ", 1, "");
    }
}
