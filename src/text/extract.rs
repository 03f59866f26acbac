//! What a model's reply holds: code blocks, tagged parts, list items, JSON. Finds and cuts out;
//! never repairs (see `json_repair`) and never guesses at what is not there.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;

use super::lines::{self, Fence, Line, Marker};

/// A fenced code block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeBlock<'a> {
    /// The first word after the opening fence, as written; empty when there is none.
    pub language: &'a str,
    /// The code without its fences, without the line end before the closing fence, and without the
    /// indentation that the opening fence has.
    pub code: Cow<'a, str>,
    /// Bytes of the whole block in the reply, fences included.
    pub range: Range<usize>,
    /// Bytes between the fences, line ends included, nothing stripped.
    pub inner: Range<usize>,
    /// Whether a closing fence was found; if not, the block runs to the reply's end and was
    /// probably cut off.
    pub closed: bool,
}

/// All fenced blocks of a reply, in order, unclosed ones included: see [`CodeBlock::closed`].
///
/// Fences are three or more backticks or tildes, at any indentation; a longer fence may hold
/// shorter ones.
pub fn all_code_blocks(text: &str) -> Vec<CodeBlock<'_>> {
    let mut blocks = Vec::new();
    let mut lines = lines::lines(text);
    while let Some(opening) = lines.next() {
        let Some((fence, info)) = Fence::open(opening.text) else { continue };
        let closing = lines.by_ref().find(|line| fence.closed_by(line.text));
        let inner = opening.end..closing.map_or(text.len(), |line| line.start);
        blocks.push(CodeBlock {
            language: info.split(|c: char| c.is_whitespace() || c == '{').next().unwrap_or_default(),
            code: dedent(&text[inner.clone()], fence.indent),
            range: opening.start..closing.map_or(text.len(), |line| line.end),
            inner,
            closed: closing.is_some(),
        });
    }
    blocks
}

/// The block that a caller who asked for code means: the first closed one in the wanted language,
/// else the first one without a language, else the first.
///
/// `None` when there is no closed block; a reply that is bare code is offered by [`bare_code`].
/// Languages compare without case and by their usual aliases (`py`, `python3`).
pub fn code_block<'a>(text: &'a str, language: Option<&str>) -> Option<CodeBlock<'a>> {
    let mut blocks = all_code_blocks(text);
    blocks.retain(|block| block.closed);
    let wanted = language.and_then(|wanted| blocks.iter().position(|block| speaks(block.language, wanted)));
    let plain = || language.and_then(|_| blocks.iter().position(|block| block.language.is_empty()));
    let chosen = wanted.or_else(plain).unwrap_or(0);
    (chosen < blocks.len()).then(|| blocks.swap_remove(chosen))
}

/// The whole reply as code, when it has no fence at all and is not blank. Whether to believe that a
/// reply without fences is code is the caller's decision.
pub fn bare_code(text: &str) -> Option<&str> {
    let code = &text[lines::trim(text, 0..text.len())];
    let fenced = lines::lines(text).any(|line| Fence::open(line.text).is_some());
    (!fenced && !code.is_empty()).then_some(code)
}

/// Names that mean one language, as seen in replies.
const ALIASES: [&[&str]; 11] = [
    &["python", "py", "python3"],
    &["javascript", "js", "node"],
    &["typescript", "ts"],
    &["rust", "rs"],
    &["shell", "sh", "bash", "zsh", "console"],
    &["cpp", "c++", "cxx"],
    &["csharp", "c#", "cs"],
    &["go", "golang"],
    &["json", "jsonc", "json5"],
    &["yaml", "yml"],
    &["markdown", "md"],
];

/// Whether a block's label names a language.
pub fn speaks(label: &str, language: &str) -> bool {
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let known = |names: &&[&str]| {
        names.iter().any(|name| same(name, label)) && names.iter().any(|name| same(name, language))
    };
    same(label, language) || ALIASES.iter().any(known)
}

/// Takes up to `indent` bytes of blanks off every line, and the last line end off.
fn dedent(code: &str, indent: usize) -> Cow<'_, str> {
    let code = code.strip_suffix('\n').map_or(code, |code| code.strip_suffix('\r').unwrap_or(code));
    if indent == 0 {
        return Cow::Borrowed(code);
    }
    let shift = |line: &str| {
        let blanks = line.bytes().take(indent).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        line[blanks..].to_owned()
    };
    Cow::Owned(code.split('\n').map(shift).collect::<Vec<_>>().join("\n"))
}

/// The text between `<tag>` and `</tag>`: of the last such pair, since a model that changes its
/// mind answers twice, and the last answer is the one it stands by.
///
/// `None` without a pair, and when the tag is opened once more after the last pair: then the answer
/// was cut off. Case-sensitive; the opening tag may have attributes. Surrounding white space goes,
/// but not the indentation of a first line of its own.
pub fn tagged<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (pairs, cut_off) = tag_pairs(text, tag);
    if cut_off { None } else { pairs.last().map(|range| &text[range.clone()]) }
}

/// The texts of all outermost pairs of a tag, in order; tags without their counterpart are skipped.
pub fn all_tagged<'a>(text: &'a str, tag: &str) -> Vec<&'a str> {
    tag_pairs(text, tag).0.into_iter().map(|range| &text[range]).collect()
}

/// The trimmed inner ranges of the outermost pairs, and whether a tag opens after the last pair.
fn tag_pairs(text: &str, tag: &str) -> (Vec<Range<usize>>, bool) {
    let closing = format!("</{tag}>");
    let mut open: Vec<usize> = Vec::new();
    let mut pairs: Vec<Range<usize>> = Vec::new();
    let mut cut_off = false;
    let mut at = 0;
    while let Some(found) = text[at..].find('<') {
        let start = at + found;
        at = start + 1;
        if text[start..].starts_with(&closing) {
            at = start + closing.len();
            let Some(inner) = open.pop() else { continue };
            while pairs.pop_if(|pair| pair.start >= inner).is_some() {}
            pairs.push(inner..start);
            cut_off = false;
        } else if let Some(end) = opening_tag_end(&text[start..], tag) {
            at = start + end;
            open.push(at);
            cut_off = true;
        }
    }
    let pairs = pairs.into_iter().map(|pair| lines::trim(text, pair)).collect();
    (pairs, cut_off)
}

/// Where `<tag>` or `<tag attribute="...">` ends, if `text` starts with it.
fn opening_tag_end(text: &str, tag: &str) -> Option<usize> {
    let rest = text.strip_prefix('<')?.strip_prefix(tag)?;
    if !rest.starts_with(|c: char| c == '>' || c.is_whitespace()) {
        return None;
    }
    let end = rest.find(['<', '>'])?;
    rest[end..].starts_with('>').then(|| text.len() - rest.len() + end + 1)
}

/// The items of the list in a reply: numbered (`1.`, `1)`), bulleted (`-`, `*`, `+`, `•`), or a
/// JSON array of strings. Empty when there is no list.
///
/// The reply's first item fixes the kind and the depth of the list's markers; deeper items, items
/// of another kind and fenced code stay part of their item on lines of their own. A wrapped line is
/// joined with a space. Prose before, between and after is dropped: a line that follows a blank
/// line and is not indented is prose. Markers are dropped, other Markdown stays.
pub fn list_items(text: &str) -> Vec<String> {
    let candidate = json_candidate(text);
    let strings = |place: fn(Place) -> bool| {
        let candidate = candidate.as_ref().filter(|candidate| place(candidate.place))?;
        serde_json::from_str::<Vec<String>>(candidate.json).ok()
    };
    if let Some(items) = strings(|place| place != Place::Prose) {
        return items;
    }
    let items = marked_items(text);
    if items.is_empty() { strings(|place| place == Place::Prose).unwrap_or_default() } else { items }
}

/// What reading a marked list has seen so far.
#[derive(Default)]
struct List {
    items: Vec<String>,
    /// Kind and indentation of the list's markers, once seen.
    form: Option<(Marker, usize)>,
    /// Whether the last item can still grow.
    open: bool,
    after_blank: bool,
    fence: Option<Fence>,
}

fn marked_items(text: &str) -> Vec<String> {
    let mut list = List::default();
    for line in lines::lines(text) {
        list.read(&line);
    }
    list.items.retain(|item| !item.is_empty());
    list.items
}

impl List {
    fn read(&mut self, line: &Line<'_>) {
        if let Some(fence) = self.fence {
            self.grow("\n", line.text);
            if fence.closed_by(line.text) {
                self.fence = None;
            }
            return;
        }
        if line.is_blank() {
            self.after_blank = true;
            return;
        }
        if let Some((fence, _)) = Fence::open(line.text) {
            self.fence = Some(fence);
            self.grow("\n", line.text);
        } else if let Some((marker, indent, body)) = lines::list_marker(line.text) {
            let (kind, depth) = *self.form.get_or_insert((marker, indent));
            if marker == kind && indent <= depth + 1 {
                self.items.push(body.to_owned());
                self.open = true;
            } else {
                self.grow("\n", line.text.trim());
            }
        } else {
            let indented = line.text.starts_with([' ', '\t']);
            let ends = lines::heading_level(line.text).is_some() || lines::is_rule(line.text);
            self.open &= !ends && (indented || !self.after_blank);
            self.grow(" ", line.text.trim());
        }
        self.after_blank = false;
    }

    fn grow(&mut self, joint: &str, part: &str) {
        let Some(item) = self.items.last_mut().filter(|_| self.open) else { return };
        if !item.is_empty() {
            item.push_str(joint);
        }
        item.push_str(part);
    }
}

/// Where in a reply a piece of JSON was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The reply is nothing else.
    Whole,
    /// In a fenced block.
    Fenced,
    /// Among other words.
    Prose,
}

/// A part of a reply that is an object or an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub json: &'a str,
    /// Byte offset of `json` in the reply.
    pub start: usize,
    pub place: Place,
}

/// The first strictly valid JSON object or array of a reply: all of it, else a fenced block labelled
/// `json` or not labelled, else the first balanced `{...}` or `[...]` among the words.
///
/// It may not be the only one; use `json_repair::parse_json` where taking one of two would lose data.
pub fn json_candidate(text: &str) -> Option<Candidate<'_>> {
    let candidate = |json: &'_ str, place| {
        let json = json.trim();
        let value = serde_json::from_str::<Value>(json).ok()?;
        (value.is_object() || value.is_array()).then_some((json.len(), place))
    };
    let at = |range: Range<usize>, place| {
        let part = &text[range.clone()];
        let (length, place) = candidate(part, place)?;
        let start = range.start + part.len() - part.trim_start().len();
        Some(Candidate { json: &text[start..start + length], start, place })
    };
    let fenced = |block: CodeBlock<'_>| {
        let labelled = block.language.is_empty() || speaks(block.language, "json");
        if labelled && block.closed { at(block.inner, Place::Fenced) } else { None }
    };
    at(0..text.len(), Place::Whole)
        .or_else(|| all_code_blocks(text).into_iter().find_map(fenced))
        .or_else(|| balanced_regions(text).find_map(|range| at(range, Place::Prose)))
}

/// The outermost regions from a `{` or `[` to its counterpart, minding double-quoted strings. Ends
/// at a bracket that nothing closes.
pub fn balanced_regions(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(['{', '['])?;
        at = balanced_end(text, start)?;
        Some(start..at)
    })
}

/// The offset past the counterpart of the bracket at `start`; `None` when nothing closes it.
pub fn balanced_end(text: &str, start: usize) -> Option<usize> {
    let mut expected = Vec::new();
    let mut in_string = false;
    let mut escaped = false;
    for (offset, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' => expected.push(b'}'),
            b'[' => expected.push(b']'),
            b'}' | b']' if expected.pop() != Some(byte) => return None,
            b'}' | b']' if expected.is_empty() => return Some(offset + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_code(text: &str, language: Option<&str>, expected: Option<&str>) {
        let code = code_block(text, language).map(|block| block.code.into_owned());
        assert_eq!(code.as_deref(), expected, "{text:?} as {language:?}");
    }

    #[test]
    fn code_blocks() {
        check_code("Sure:\n```python\nx = 1\ny = 2\n```\nDone.", Some("python"), Some("x = 1\ny = 2"));
        check_code("~~~\na\n~~~", None, Some("a"));
        check_code("```sh\npip\n```\n```Py\nx\n```", Some("python"), Some("x"));
        check_code("```sh\npip\n```\n```\nx\n```", Some("python"), Some("x"));
        check_code("```sh\npip\n```\n```\nx\n```", None, Some("pip"));
        check_code("```sh\npip\n```", Some("python"), Some("pip"));
        check_code("````md\n```py\nx\n```\n````", Some("markdown"), Some("```py\nx\n```"));
        check_code("1. Do\n   ```py\n   if a:\n       b\n\n   ```", None, Some("if a:\n    b\n"));
        check_code("```py\r\nx\r\n```\r\n", None, Some("x"));
        check_code("```py\nx = 1", Some("py"), None);
        check_code("use ```x``` here", None, None);
        check_code("```\n```", None, Some(""));
    }

    #[test]
    fn unclosed_blocks_are_flagged_and_bare_code_is_separate() {
        let blocks = all_code_blocks("```a\n1\n```\n```b\n2");
        let seen: Vec<_> = blocks.iter().map(|block| (block.language, &*block.code, block.closed)).collect();
        assert_eq!(seen, [("a", "1", true), ("b", "2", false)]);
        assert_eq!(bare_code("\n  x = 1\n"), Some("  x = 1"));
        assert_eq!(bare_code("```py\nx"), None);
        assert_eq!(bare_code(" \n"), None);
    }

    fn check_tag(text: &str, expected: Option<&str>) {
        assert_eq!(tagged(text, "answer"), expected, "{text:?}");
    }

    #[test]
    fn tags() {
        check_tag("<answer> 42 </answer>", Some("42"));
        check_tag("I write <answer> tags. <answer>42</answer>", Some("42"));
        check_tag("<answer>1</answer> no, <answer>2</answer>", Some("2"));
        check_tag("<answer>1</answer> no, <answer>2", None);
        check_tag("<answer lang=\"en\">\n    x\n</answer>", Some("    x"));
        check_tag("<Answer>1</Answer> <answers>2</answers>", None);
        check_tag("<answer>a <answer>b</answer> c</answer>", Some("a <answer>b</answer> c"));
        check_tag("<answer></answer>", Some(""));
        check_tag("</answer> <answer", None);
        assert_eq!(all_tagged("<q>1</q><q>2</q><q>", "q"), ["1", "2"]);
    }

    fn check_list(text: &str, expected: &[&str]) {
        assert_eq!(list_items(text), expected, "{text:?}");
    }

    #[test]
    fn lists() {
        check_list("Here:\n1. one\n2. two\n\nHope it helps!", &["one", "two"]);
        check_list("1) one\n   goes on\n2) two", &["one goes on", "two"]);
        check_list("- a\n\n* b\n\n• c\nlazy", &["a", "b", "c lazy"]);
        check_list("1. Top\n   - sub\n2. Next\n- flat sub", &["Top\n- sub", "Next\n- flat sub"]);
        check_list("1. a\n\n   indented paragraph\n\nprose\n2. b", &["a indented paragraph", "b"]);
        check_list("- a\n```\n- not an item\n```\n- b", &["a\n```\n- not an item\n```", "b"]);
        check_list("## Easy\n- a\n## Hard\ntext\n- b\n---\ntext", &["a", "b"]);
        check_list("1.\n   Title\n2.", &["Title"]);
        check_list("[\"a\", \"- b\"]", &["a", "- b"]);
        check_list("```json\n[\"a\"]\n```", &["a"]);
        check_list("Topics: [\"a\", \"b\"] as asked", &["a", "b"]);
        check_list("- see [\"x\"]", &["see [\"x\"]"]);
        check_list("[1, 2]", &[]);
        check_list("No list - really.", &[]);
    }

    fn check_json(text: &str, expected: Option<(&str, usize, Place)>) {
        let found = json_candidate(text).map(|found| (found.json, found.start, found.place));
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn json_candidates() {
        check_json(" {\"a\": 1}\n", Some(("{\"a\": 1}", 1, Place::Whole)));
        check_json("ok\n```json\n[1]\n```", Some(("[1]", 11, Place::Fenced)));
        check_json("see [note], {\"a\": \"}\"} ok", Some(("{\"a\": \"}\"}", 12, Place::Prose)));
        check_json("```python\n{}\n```", Some(("{}", 10, Place::Prose)));
        check_json("{\"a\": {\"b\": 1}", None);
        check_json("\"text\"", None);
        check_json("", None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_reply_makes_it_panic(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    "```", "~~~", "python", "\n", "\r\n", "<a>", "</a>", "<a", "- ", "1. ", "2) ", "{", "}", "[",
                    "]", "\"", "\\", "é", "x = 1", " ", "    ", "\t", "\u{feff}", "# ",
                ]),
                0..25,
            ),
            any in ".{0,20}",
        ) {
            let text = pieces.concat() + &any;
            for block in all_code_blocks(&text) {
                speaks(block.language, "python");
            }
            code_block(&text, Some("python"));
            bare_code(&text);
            all_tagged(&text, "a");
            list_items(&text);
            json_candidate(&text);
            for region in balanced_regions(&text) {
                prop_assert!(text.get(region).is_some());
            }
        }
    }
}
