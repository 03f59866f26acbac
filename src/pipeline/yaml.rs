//! YAML text to a tree of nodes: YAML 1.2 with everything left out that surprises people.
//!
//! Left out, each refused with a sentence: anchors and aliases (so there are no alias bombs), merge
//! keys, tags, several documents, duplicate keys, keys that are not text. Only `true` and `false`
//! are booleans; only decimal numbers without leading zeros are numbers. `2_000_000` and `2M` stay
//! text here and become numbers in `decode`, where a number is wanted.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use super::node::{KeyNode, Node, NodeValue, Origin, Span, Style};
use super::{DEPTH_MAX, FILE_BYTES_MAX, NODES_MAX, PROBLEMS_MAX};
use crate::problem::{Place, Problem};

/// What became of a file's bytes.
pub struct Loaded {
    /// The text that every span and every `Place::Bytes` counts in: without a byte order mark, and
    /// with replacement characters if the file is not UTF-8. Empty if it could not be read as text.
    pub text: String,
    /// The tree; `None` if the problems leave nothing worth decoding.
    pub root: Option<Node>,
    pub problems: Vec<Problem>,
}

/// Reads a file's bytes. Callers need not read more than `FILE_BYTES_MAX + 1` bytes of a file.
pub fn load(bytes: &[u8]) -> Loaded {
    let refused = |text: String, problem| Loaded { text, root: None, problems: vec![problem] };
    let start = Place::Bytes(0..0);
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("the file is larger than {} MiB", FILE_BYTES_MAX >> 20);
        let hint = "keep rows and long texts in files of their own and name these";
        return refused(String::new(), Problem::error(start, message).hint(hint));
    }
    if is_utf16(bytes) {
        let problem = Problem::error(start, "the file is UTF-16, not UTF-8").hint("save it as UTF-8");
        return refused(String::new(), problem);
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let (root, problems) = parse(text);
            Loaded { text: text.to_owned(), root, problems }
        }
        Err(error) => {
            let at = error.valid_up_to();
            let message = format!("byte 0x{:02X} is not UTF-8", bytes[at]);
            let problem = Problem::error(Place::Bytes(at..at + 1), message).hint("save the file as UTF-8");
            refused(String::from_utf8_lossy(bytes).into_owned(), problem)
        }
    }
}

/// A byte order mark of UTF-16, or a zero beside the first character, which must be ASCII.
fn is_utf16(bytes: &[u8]) -> bool {
    match bytes {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => true,
        [first, second, ..] => (*first == 0) != (*second == 0),
        _ => false,
    }
}

/// Reads YAML text (no byte order mark). All problems are found that can be told apart; after the
/// first place where the text is not YAML at all the rest is not read.
pub fn parse(text: &str) -> (Option<Node>, Vec<Problem>) {
    let problems = control_characters(text);
    if !problems.is_empty() {
        return (None, problems);
    }
    let mut tree = Tree::new(text);
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => {
                let bytes = tree.lines.byte(span.start)..tree.lines.byte(span.end);
                tree.event(event, bytes.start..bytes.end.max(bytes.start));
            }
            Err(error) => tree.syntax_error(&error),
        }
        if tree.stopped || tree.problems.len() >= PROBLEMS_MAX {
            break;
        }
    }
    let is_empty = tree.root.as_ref().is_none_or(|root| root.value == NodeValue::Null);
    if is_empty && tree.problems.is_empty() {
        tree.problem(0..0, "the file is empty");
    }
    let root = tree.root.filter(|_| !tree.stopped && !tree.has_alias && !is_empty);
    (root, tree.problems)
}

/// YAML allows no control characters but these (1.2.2, section 5.1), and its parser takes a NUL for
/// the end of the file.
fn control_characters(text: &str) -> Vec<Problem> {
    let is_refused = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    let found = text.match_indices(is_refused).take(PROBLEMS_MAX);
    let problem = |(at, character): (usize, &str)| {
        let code = character.chars().next().map_or(0, u32::from);
        let message = format!("the control character U+{code:04X} cannot be in the file");
        let hint = format!("if it is meant, write `\\u{code:04x}` in a text in double quotes");
        Problem::error(Place::Bytes(at..at + character.len()), message).hint(hint)
    };
    found.map(problem).collect()
}

/// The value of a text without quotes, by the YAML 1.2 core schema minus hexadecimal, octal,
/// infinity and the capitalised words: these, and numbers too large for `i128`, are text.
pub fn plain_value(text: &str) -> NodeValue {
    match text {
        "" | "~" | "null" => return NodeValue::Null,
        "true" => return NodeValue::Bool(true),
        "false" => return NodeValue::Bool(false),
        _ => {}
    }
    if let Some(is_whole) = decimal_shape(text) {
        if is_whole && let Ok(integer) = text.parse() {
            return NodeValue::Integer(integer);
        }
        if !is_whole && let Some(float) = text.parse().ok().filter(|float: &f64| float.is_finite()) {
            return NodeValue::Float(float);
        }
    }
    NodeValue::Text { text: text.to_owned(), style: Style::Plain }
}

/// Whether a text is a decimal number, and if so, whether it is written as a whole one.
fn decimal_shape(text: &str) -> Option<bool> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let has_digit = !whole.is_empty() || fraction.is_some_and(|part| !part.is_empty());
    let leads_with_zero = whole.len() > 1 && whole.starts_with('0');
    let exponent_fits = exponent.is_none_or(|part| !part.is_empty() && are_digits(part));
    let fits = has_digit && !leads_with_zero && are_digits(whole) && are_digits(fraction.unwrap_or(""));
    (fits && exponent_fits).then_some(fraction.is_none() && exponent.is_none())
}

/// Turns the parser's lines and columns, which count characters, into bytes.
struct Lines<'t> {
    text: &'t str,
    /// The character that each line begins at.
    starts: Vec<usize>,
    /// The byte of every `STRIDE`th character, so that a file of one long line is not slow.
    marks: Vec<usize>,
}

const STRIDE: usize = 256;

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Lines<'t> {
        let (mut starts, mut marks) = (vec![0], Vec::new());
        let mut characters = text.char_indices().peekable();
        let mut count = 0;
        while let Some((byte, character)) = characters.next() {
            if count % STRIDE == 0 {
                marks.push(byte);
            }
            count += 1;
            let next = characters.peek().map(|(_, next)| *next);
            if character == '\n' || (character == '\r' && next != Some('\n')) {
                starts.push(count);
            }
        }
        Lines { text, starts, marks }
    }

    fn byte(&self, marker: Marker) -> usize {
        let Some(start) = self.starts.get(marker.line().saturating_sub(1)) else { return self.text.len() };
        let character = start + marker.col();
        let Some(mark) = self.marks.get(character / STRIDE) else { return self.text.len() };
        let mut rest = self.text[*mark..].char_indices();
        rest.nth(character % STRIDE).map_or(self.text.len(), |(byte, _)| mark + byte)
    }
}

/// A list or a map whose end has not come yet.
enum Open {
    List(Vec<Node>),
    Map { entries: Vec<(KeyNode, Node)>, places: HashMap<String, usize>, key: PendingKey },
}

/// What a map is waiting for.
enum PendingKey {
    /// A key.
    None,
    /// The value of this key.
    Some(KeyNode),
    /// A value that is dropped, since its key was a problem.
    Refused,
}

/// The tree as far as it has been read.
struct Tree<'t> {
    lines: Lines<'t>,
    open: Vec<(Range<usize>, Open)>,
    root: Option<Node>,
    problems: Vec<Problem>,
    nodes: usize,
    documents: usize,
    has_alias: bool,
    stopped: bool,
}

impl<'t> Tree<'t> {
    fn new(text: &'t str) -> Tree<'t> {
        let lines = Lines::new(text);
        Tree {
            lines,
            open: Vec::new(),
            root: None,
            problems: Vec::new(),
            nodes: 0,
            documents: 0,
            has_alias: false,
            stopped: false,
        }
    }

    fn problem(&mut self, bytes: Range<usize>, message: impl Into<String>) -> &mut Problem {
        let at = self.problems.len();
        self.problems.push(Problem::error(Place::Bytes(bytes), message));
        &mut self.problems[at]
    }

    fn stop(&mut self, bytes: Range<usize>, message: impl Into<String>) -> &mut Problem {
        self.stopped = true;
        self.problem(bytes, message)
    }

    fn event(&mut self, event: Event<'_>, bytes: Range<usize>) {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_properties(&bytes, anchor, tag.is_some());
                self.scalar(text, style, bytes);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_properties(&bytes, anchor, tag.is_some());
                self.begin(bytes, Open::List(Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_properties(&bytes, anchor, tag.is_some());
                let (entries, places) = (Vec::new(), HashMap::new());
                self.begin(bytes, Open::Map { entries, places, key: PendingKey::None });
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(&bytes),
            Event::Alias(_) => {
                self.has_alias = true;
                self.refuse_word(&bytes, "an alias", "write the value out where it is used");
                self.place(Node { value: NodeValue::Null, span: in_file(bytes) });
            }
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let problem = self.stop(bytes, "a second document begins here");
                    problem.hint = Some("a pipeline file is one document: remove this `---`".to_owned());
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }

    /// Anchors and tags are written before the value and count as its beginning.
    fn refuse_properties(&mut self, bytes: &Range<usize>, anchor: usize, has_tag: bool) {
        if anchor > 0 {
            self.refuse_word(bytes, "an anchor", "write the value out where it is used");
        }
        if has_tag {
            self.refuse_word(bytes, "a tag", "remove it; put text that begins with `!` in quotes");
        }
    }

    fn refuse_word(&mut self, bytes: &Range<usize>, what: &str, hint: &str) {
        let rest = &self.lines.text[bytes.start..];
        let word_bytes = rest.find(|c: char| c.is_whitespace() || "[]{},".contains(c)).unwrap_or(rest.len());
        let message = format!("`{}` is {what}, and these are not read", &rest[..word_bytes]);
        // An alias is told of once, however often it is used.
        if what == "an alias" && self.problems.iter().any(|problem| problem.message == message) {
            return;
        }
        self.problem(bytes.start..bytes.start + word_bytes, message).hint = Some(hint.to_owned());
    }

    fn scalar(&mut self, text: Cow<'_, str>, style: ScalarStyle, bytes: Range<usize>) {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
            ScalarStyle::Literal => Style::Literal,
            ScalarStyle::Folded => Style::Folded,
        };
        let value = match style {
            Style::Plain => plain_value(&text),
            _ => NodeValue::Text { text: text.into_owned(), style },
        };
        let end = bytes.start + self.lines.text[bytes.clone()].trim_end().len();
        self.place(Node { value, span: in_file(bytes.start..end) });
    }

    fn begin(&mut self, mut bytes: Range<usize>, open: Open) {
        if self.open.len() >= DEPTH_MAX {
            self.stop(bytes, format!("values are nested deeper than {DEPTH_MAX} levels here"));
            return;
        }
        // The parser has a list that is not indented more than its key begin behind its first `- `.
        if let (Open::List(_), Some((_, Open::Map { .. }))) = (&open, self.open.last()) {
            let text = self.lines.text;
            let line_at = text[..bytes.start].rfind('\n').map_or(0, |newline| newline + 1);
            let indent = text[line_at..].len() - text[line_at..].trim_start_matches(' ').len();
            let before = text[line_at..bytes.start].trim_start_matches(' ').strip_prefix('-');
            if before.is_some_and(|gap| gap.trim_start().is_empty() || gap.trim_start().starts_with('#')) {
                bytes.start = line_at + indent;
            }
        }
        self.open.push((bytes, open));
    }

    fn end(&mut self, bytes: &Range<usize>) {
        let Some((begin, open)) = self.open.pop() else { return };
        let (value, last_end) = match open {
            Open::List(items) => {
                let end = items.last().map(|item| item.span.bytes.end);
                (NodeValue::List(items), end)
            }
            Open::Map { entries, .. } => {
                let end = entries.last().map(|(_, node)| node.span.bytes.end);
                (NodeValue::Map(entries), end)
            }
        };
        // Where a block ends the parser only learns from what comes after it, and to a closing
        // bracket it adds the comment behind it.
        let is_flow = self.lines.text[begin.start..].starts_with(['[', '{']);
        let end = if is_flow { bytes.start + 1 } else { last_end.unwrap_or(begin.end) };
        self.place(Node { value, span: in_file(begin.start..end.max(begin.start)) });
    }

    /// Puts a finished node where it belongs: into the open list, the open map (as a key or as a
    /// value), or at the root.
    fn place(&mut self, mut node: Node) {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            self.stop(node.span.bytes, format!("the file has more than {NODES_MAX} values"));
            return;
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((_, Open::List(items))) => items.push(node),
            Some((_, Open::Map { entries, key, .. })) => match std::mem::replace(key, PendingKey::None) {
                PendingKey::None => self.key(node),
                PendingKey::Refused => {}
                PendingKey::Some(key) => {
                    let written = &self.lines.text[node.span.bytes.clone()];
                    if node.value == NodeValue::Null && !["~", "null"].contains(&written) {
                        node.span = key.span.clone();
                    }
                    entries.push((key, node));
                }
            },
        }
    }

    fn key(&mut self, node: Node) {
        let (bytes, text) = (node.span.bytes, self.lines.text);
        let shown = &text[bytes.clone()];
        let pending = match node.value {
            NodeValue::Text { text: name, style: Style::Plain } if name == "<<" => {
                let problem =
                    self.problem(bytes, "`<<` would merge another map, and merge keys are not read");
                problem.hint = Some("write the keys out".to_owned());
                PendingKey::Refused
            }
            NodeValue::Text { text: name, .. } => self.text_key(name, bytes),
            NodeValue::List(_) | NodeValue::Map(_) => {
                let message = "a list or a map cannot be a key";
                let hint = "put text that begins with `[` or `{` in quotes: `\"{{ field }}\"`";
                self.problem(bytes, message).hint = Some(hint.to_owned());
                PendingKey::Refused
            }
            NodeValue::Null if shown.trim().is_empty() || shown == ":" => {
                self.problem(bytes, "there is no key before this `:`");
                PendingKey::Refused
            }
            NodeValue::Null | NodeValue::Bool(_) | NodeValue::Integer(_) | NodeValue::Float(_) => {
                let problem = self.problem(bytes, format!("the key `{shown}` is not text"));
                problem.hint = Some(format!("put it in quotes: `\"{shown}\":`"));
                PendingKey::Refused
            }
        };
        if let Some((_, Open::Map { key, .. })) = self.open.last_mut() {
            *key = pending;
        }
    }

    /// Refuses a key that its map already has.
    fn text_key(&mut self, name: String, bytes: Range<usize>) -> PendingKey {
        let Some((_, Open::Map { places, .. })) = self.open.last_mut() else { return PendingKey::Refused };
        if let Some(first) = places.get(&name) {
            let line = 1 + self.lines.text[..*first].matches('\n').count();
            let problem = self.problem(bytes, format!("duplicate key `{name}`"));
            problem.causes = vec![format!("it is given on line {line} already")];
            return PendingKey::Refused;
        }
        places.insert(name.clone(), bytes.start);
        PendingKey::Some(KeyNode { name, span: in_file(bytes) })
    }

    fn syntax_error(&mut self, error: &ScanError) {
        let text = self.lines.text;
        let at = self.lines.byte(*error.marker());
        let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let indent = &text[line_start..];
        let indent = &indent[..indent.len() - indent.trim_start_matches([' ', '\t']).len()];
        if let Some(tab) = indent.find('\t') {
            let tab = line_start + tab;
            let problem = self.stop(tab..tab + 1, "a tab cannot indent a line of YAML");
            problem.hint = Some("indent with spaces".to_owned());
            return;
        }
        let character = text[at..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
        let (message, hint) = sentence(error.info());
        self.stop(at..at + character, message).hint = hint.map(str::to_owned);
    }
}

fn in_file(bytes: Range<usize>) -> Span {
    Span { origin: Origin::File, bytes }
}

const QUOTE_IT: &str = "put text that begins with a mark like `@`, `%`, `*` or `&` in quotes";
const COLON: &str = "put text that holds `: ` in quotes; begin the keys of one map in the same column";
const CLOSE_IT: &str = "check the brackets, braces and commas on this line and above it";
const INDENT_IT: &str = "a key is followed by `:` and a space; keys of one map begin in the same column";

/// The parser's words, by a part that tells them apart, and ours.
const SENTENCES: &[(&str, &str, &str)] = &[
    ("mapping values are not allowed", "a `:` cannot be here: a value has begun already", COLON),
    ("illegal placement of ':'", "a `:` cannot be here: a value has begun already", COLON),
    ("mapping keys are not allowed", "a key cannot be here", INDENT_IT),
    ("simple key", "this is not a `key: value` pair", INDENT_IT),
    ("did not find expected key", "this line does not fit the map it is in", INDENT_IT),
    ("expected <document start>", "this line does not belong to what is above it", INDENT_IT),
    (
        "indentation in quoted",
        "this quoted text is not closed, or goes on without indentation",
        "close it with the quote it began with",
    ),
    ("flow construct", "this line is inside brackets or braces that are not closed", CLOSE_IT),
    ("invalid indentation", "the indentation of this line fits nothing above it", INDENT_IT),
    ("expected '-' indicator", "this line does not fit the list it is in", "each item begins with `- `"),
    ("entries are not allowed in this context", "a list item cannot be here", "begin the list on a new line"),
    ("expected ',' or '}'", "the map in braces is not closed, or a comma is missing before this", CLOSE_IT),
    (
        "expected ',' or ']'",
        "the list in brackets is not closed, or a comma is missing before this",
        CLOSE_IT,
    ),
    ("misplaced bracket", "this bracket closes nothing", CLOSE_IT),
    ("expected node content", "a value is missing here", CLOSE_IT),
    ("unexpected end of stream", "this quoted text is never closed", "close it with the quote it began with"),
    ("unknown escape", "this `\\` escape is not known", "in single quotes a `\\` is only a `\\`"),
    ("hexadecimal number", "a `\\x`, `\\u` or `\\U` escape needs 2, 4 or 8 hexadecimal digits", ""),
    (
        "trailing content after double-quoted",
        "text follows the closing quote",
        "write `\\\"` for a quote inside",
    ),
    ("unexpected character", "a text without quotes cannot begin with this character", QUOTE_IT),
    ("alphabetic or numeric character", "a text without quotes cannot begin with `*` or `&`", QUOTE_IT),
    ("unknown anchor", "this is an alias, and these are not read", QUOTE_IT),
    (
        "block scalar",
        "this block of text is not indented as it began",
        "indent all its lines with the same spaces",
    ),
    ("recursion limit", "brackets are nested too deep here", ""),
    ("tab", "a tab cannot be here", "use spaces"),
];

fn sentence(info: &str) -> (String, Option<&'static str>) {
    match SENTENCES.iter().find(|(part, _, _)| info.contains(part)) {
        Some((_, message, hint)) => ((*message).to_owned(), Some(*hint).filter(|hint| !hint.is_empty())),
        None => (format!("this is not YAML: {info}"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_plain(text: &str, expected: &NodeValue) {
        assert_eq!(&plain_value(text), expected, "{text}");
    }

    #[test]
    fn plain_values_have_the_types_they_seem_to_have() {
        for text in ["", "~", "null"] {
            check_plain(text, &NodeValue::Null);
        }
        check_plain("true", &NodeValue::Bool(true));
        check_plain("-17", &NodeValue::Integer(-17));
        check_plain("+0", &NodeValue::Integer(0));
        check_plain("0.50", &NodeValue::Float(0.5));
        check_plain("-.5e+1", &NodeValue::Float(-5.0));
        check_plain("1.", &NodeValue::Float(1.0));
        let texts = [
            "yes",
            "No",
            "on",
            "True",
            "NULL",
            "012",
            "0o14",
            "0x1F",
            ".inf",
            ".nan",
            "-",
            ".",
            "e5",
            "1e",
            "1.2.3",
            "1_000",
            "2M",
            "1e999",
            "12:30",
            "2024-01-01",
            "-01",
            "--1",
            "340282366920938463463374607431768211456",
        ];
        for text in texts {
            check_plain(text, &NodeValue::Text { text: text.to_owned(), style: Style::Plain });
        }
    }

    /// Checks the text that the span of the value at `x` covers.
    #[track_caller]
    fn check_span(file: &str, expected: &str) {
        let root = parse(file).0.expect("it parses");
        let (_, node) = root.entry("x").expect("it is there");
        assert_eq!(&file[node.span.bytes.clone()], expected);
    }

    #[test]
    fn spans_cover_values_and_nothing_else() {
        check_span("x: a b  # c\n", "a b");
        check_span("é: é # é\nx: 'é'\ny: 1", "'é'");
        check_span("y: 1\r\nx: \"a\r\n  b\"\r\nz: 2\r\n", "\"a\r\n  b\"");
        check_span("x: [1, { a: b }]   # c\ny: 2\n", "[1, { a: b }]");
        check_span("x:\n  - 1\n  - a: b # c\n\n\ny: 2\n", "- 1\n  - a: b");
        check_span("x:\n- 1\ny: 2\n", "- 1");
        check_span("x:\n- - 1\n  - 2\n-  # c\n  3\n", "- - 1\n  - 2\n-  # c\n  3");
        check_span("x: |\n  a\n  b\n\ny: 2\n", "a\n  b");
        check_span("{ x: { a: { b: 1 } }, y: 2 }", "{ a: { b: 1 } }");
        check_span("x: ~\n", "~");
        check_span("x:\ny: 1\n", "x");
        let long = format!("{{ y: '{}', x: here }}", "é".repeat(3 * STRIDE));
        check_span(&long, "here");
    }

    #[track_caller]
    fn check_refused(bytes: &[u8], message: &str) {
        let loaded = load(bytes);
        assert!(loaded.root.is_none());
        assert_eq!(
            loaded.problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>(),
            [message]
        );
    }

    #[test]
    fn sizes_are_bounded() {
        check_refused(&vec![b'#'; FILE_BYTES_MAX + 1], "the file is larger than 4 MiB");
        let deep = format!("x: {}", "[".repeat(DEPTH_MAX));
        check_refused(deep.as_bytes(), "values are nested deeper than 64 levels here");
        let wide = format!("x: [{}]", "1,".repeat(NODES_MAX));
        check_refused(wide.as_bytes(), "the file has more than 100000 values");
        let many = "- !x a\n".repeat(2 * PROBLEMS_MAX);
        assert_eq!(parse(&many).1.len(), PROBLEMS_MAX);
    }
}
