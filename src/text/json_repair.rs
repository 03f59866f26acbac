//! Reads the JSON object or array in a model's reply, repairing what can be repaired without loss.
//!
//! Never here: closing a value that was cut off, taking a bare string or prose for JSON, dropping
//! or choosing data. Where two readings are possible the answer is an error, and the caller asks
//! the model again. The parser itself is in [`parser`]; this file finds what to parse.

mod parser;

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::extract::{self, CodeBlock};
use parser::{Parsed, Stop};

/// Longest reply read.
pub const TEXT_BYTES_MAX: usize = 8 << 20;

/// Deepest nesting read, as `serde_json`'s own limit.
pub const DEPTH_MAX: usize = 127;

/// What had to be mended to read a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// The value stood in a Markdown code fence.
    Fenced,
    /// Words stood before or after the value.
    ProseAround,
    /// `[1, 2,]`
    TrailingComma,
    /// A comma was missing between two values on different lines, or after a `}` or `]`.
    MissingComma,
    /// `'text'` instead of `"text"`.
    SingleQuotes,
    /// `{name: 1}`
    UnquotedKey,
    /// Python's `True`, `False`, `None`.
    PythonLiterals,
    /// `// ...`, `/* ... */`, `# ...`; the comments are dropped.
    Comments,
    /// A line end, tab or other control character stood in a string as itself.
    RawControlInString,
    /// `"\d"`, which JSON does not know: read as a backslash and a `d`.
    BadEscape,
    /// `"He said "yes" twice"`: pairs of quotes that cannot be the end of their string.
    UnescapedInnerQuotes,
}

impl Repair {
    /// The name written to rows and reports.
    pub fn code(self) -> &'static str {
        match self {
            Repair::Fenced => "fenced",
            Repair::ProseAround => "prose_around",
            Repair::TrailingComma => "trailing_comma",
            Repair::MissingComma => "missing_comma",
            Repair::SingleQuotes => "single_quotes",
            Repair::UnquotedKey => "unquoted_key",
            Repair::PythonLiterals => "python_literals",
            Repair::Comments => "comments",
            Repair::RawControlInString => "raw_control_in_string",
            Repair::BadEscape => "bad_escape",
            Repair::UnescapedInnerQuotes => "unescaped_inner_quotes",
        }
    }
}

/// The kinds of replies that are not readable as one JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No object or array at all: a refusal, prose, a bare string or number.
    NoJson,
    /// The reply ends inside a value.
    CutOff,
    /// More than one value, or more than one way to read it.
    Ambiguous,
    /// Something that no lossless repair mends.
    Broken,
    /// Longer than [`TEXT_BYTES_MAX`] or deeper than [`DEPTH_MAX`].
    TooLarge,
}

/// Why a reply could not be read, and where. Its text is fit to be shown to the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotJson {
    pub kind: Kind,
    /// What is wrong, one clause without a full stop.
    pub message: String,
    /// Byte offset in the reply.
    pub byte: usize,
    /// Line in the reply, from 1.
    pub line: usize,
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {}, byte {})", self.message, self.line, self.byte)
    }
}

impl std::error::Error for NotJson {}

impl NotJson {
    fn new(text: &str, kind: Kind, byte: usize, message: impl Into<String>) -> NotJson {
        let before = &text.as_bytes()[..byte.min(text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        NotJson { kind, message: message.into(), byte, line }
    }

    fn stopped(text: &str, stop: Stop) -> NotJson {
        NotJson::new(text, stop.kind, stop.byte, stop.message)
    }
}

/// A value and where it stood.
struct Found {
    range: Range<usize>,
    parsed: Parsed,
    fenced: bool,
}

/// Reads the one object or array in a reply, and says what had to be repaired for it: each repair
/// once, in the order of its first use; none for strict JSON with nothing around it.
///
/// The value is looked for as the whole reply, then in the fenced blocks labelled `json`, then in
/// unlabelled blocks and among the words. Blocks in other languages are not looked at. Numbers are
/// read as `serde_json` reads them. A key that comes twice in one object is an error, as is a second
/// value. Cut-off replies should not be given here at all: a value may be whole by accident.
pub fn parse_json(text: &str) -> Result<(Value, Vec<Repair>), NotJson> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the reply is longer than {TEXT_BYTES_MAX} bytes");
        return Err(NotJson::new(text, Kind::TooLarge, TEXT_BYTES_MAX, message));
    }
    let body = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let start = text.len() - body.len();
    if body.starts_with(['{', '[']) {
        match parser::parse(text, start) {
            Ok(parsed) if text[parsed.end..].trim().is_empty() => return Ok((parsed.value, parsed.repairs)),
            // More follows: words, or a second value.
            Ok(_) => {}
            Err(stop) if stop.committed => return Err(NotJson::stopped(text, stop)),
            Err(_) => {}
        }
    }
    let blocks = extract::all_code_blocks(text);
    let mut found = labelled_values(text, &blocks)?;
    if found.is_empty() {
        found = loose_values(text, &blocks)?;
    } else {
        add_rivals(text, &blocks, &mut found);
    }
    found.sort_by_key(|found| found.range.start);
    let mut found = found.into_iter();
    let Some(only) = found.next() else {
        let message = "the reply holds no JSON object or array";
        return Err(NotJson::new(text, Kind::NoJson, start, message));
    };
    if let Some(second) = found.next() {
        let message = "the reply holds a second JSON value; write exactly one";
        return Err(NotJson::new(text, Kind::Ambiguous, second.range.start, message));
    }
    let repairs = surroundings(text, &blocks, &only).into_iter().chain(only.parsed.repairs).collect();
    Ok((only.parsed.value, repairs))
}

/// The values in blocks labelled `json`; such a block that cannot be read is an error.
fn labelled_values(text: &str, blocks: &[CodeBlock<'_>]) -> Result<Vec<Found>, NotJson> {
    let mut found: Vec<Found> = Vec::new();
    for block in blocks.iter().filter(|block| extract::speaks(block.language, "json")) {
        // What looks like a fence may stand inside a string of the value before.
        if found.last().is_some_and(|last| block.range.start < last.range.end) {
            continue;
        }
        let Some(start) = bracket_first(text, block) else {
            if text[block.inner.clone()].trim().is_empty() {
                continue;
            }
            let message = "the block labelled `json` does not start with `{` or `[`";
            return Err(NotJson::new(text, Kind::Broken, block.inner.start, message));
        };
        let parsed = parser::parse(text, start).map_err(|stop| NotJson::stopped(text, stop))?;
        let rest = parsed.end..block.inner.end.max(parsed.end);
        found.push(Found { range: start..parsed.end, parsed, fenced: true });
        // Several values in one block (JSON lines).
        if let Some(more) = text[rest.clone()].find(|c: char| !c.is_whitespace() && !matches!(c, '`' | '~')) {
            let message = "something follows the JSON value in its block; write exactly one value";
            return Err(NotJson::new(text, Kind::Ambiguous, rest.start + more, message));
        }
    }
    Ok(found)
}

/// The offset of the bracket that a block's content starts with.
fn bracket_first(text: &str, block: &CodeBlock<'_>) -> Option<usize> {
    let inner = &text[block.inner.clone()];
    let body = inner.trim_start();
    body.starts_with(['{', '[']).then(|| block.inner.end - body.len())
}

/// The values among the words and in blocks without a language.
///
/// A bracket that starts like JSON and then breaks is an error rather than skipped: the values
/// inside it are parts of something larger.
fn loose_values(text: &str, blocks: &[CodeBlock<'_>]) -> Result<Vec<Found>, NotJson> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = next_bracket(text, blocks, at, |block| !block.language.is_empty()) {
        at = match parser::parse(text, start) {
            Ok(parsed) => {
                let fenced = blocks.iter().any(|block| bracket_first(text, block) == Some(start));
                let end = parsed.end;
                found.push(Found { range: start..end, parsed, fenced });
                end
            }
            Err(stop) if stop.committed => return Err(NotJson::stopped(text, stop)),
            Err(_) => extract::balanced_end(text, start).ok_or_else(|| {
                NotJson::new(text, Kind::CutOff, start, "this bracket is never closed".to_owned())
            })?,
        };
    }
    Ok(found)
}

/// Adds a non-empty object found outside the blocks: next to a labelled value it is a second one.
fn add_rivals(text: &str, blocks: &[CodeBlock<'_>], found: &mut Vec<Found>) {
    let taken: Vec<Range<usize>> = found.iter().map(|found| found.range.clone()).collect();
    let mut at = 0;
    while let Some(start) = next_bracket(text, blocks, at, |_| true) {
        if let Some(value) = taken.iter().find(|range| range.contains(&start)) {
            at = value.end;
            continue;
        }
        let Some(end) = extract::balanced_end(text, start) else { return };
        at = end;
        if let Ok(parsed) = parser::parse(&text[..end], start)
            && parsed.value.as_object().is_some_and(|object| !object.is_empty())
        {
            found.push(Found { range: start..parsed.end, parsed, fenced: false });
            return;
        }
    }
}

/// The next `{` or `[` at or after `at` that is in no block for which `skip` holds.
fn next_bracket(
    text: &str,
    blocks: &[CodeBlock<'_>],
    mut at: usize,
    skip: impl Fn(&CodeBlock<'_>) -> bool,
) -> Option<usize> {
    loop {
        let start = at + text[at..].find(['{', '['])?;
        // Blocks are in order and do not overlap.
        let index = blocks.partition_point(|block| block.range.end <= start);
        match blocks.get(index).filter(|block| block.range.start <= start && skip(block)) {
            Some(block) if block.range.start < at => return Some(start),
            Some(block) => at = block.range.end,
            None => return Some(start),
        }
    }
}

/// Whether the value stood in a fence, and whether words stood around it.
fn surroundings(text: &str, blocks: &[CodeBlock<'_>], found: &Found) -> Vec<Repair> {
    let mut before = &text[..found.range.start];
    let mut after = text[found.range.end..].trim();
    let mut repairs = Vec::new();
    if found.fenced {
        repairs.push(Repair::Fenced);
        let holds = |block: &&CodeBlock<'_>| block.range.start <= found.range.start;
        before = blocks.iter().rfind(holds).map_or(before, |block| &text[..block.range.start]);
        after = after.trim_start_matches(['`', '~']);
    }
    let before = before.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if !before.is_empty() || !after.is_empty() {
        repairs.push(Repair::ProseAround);
    }
    repairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use Repair::{Fenced, MissingComma, ProseAround};
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, value: Value, repairs: &[Repair]) {
        assert_eq!(parse_json(text), Ok((value, repairs.to_vec())), "{text:?}");
    }

    #[track_caller]
    fn check_not(text: &str, kind: Kind, line: usize) {
        let error = parse_json(text).expect_err(text);
        assert_eq!((error.kind, error.line), (kind, line), "{text:?}: {error}");
    }

    #[test]
    fn finds_the_value() {
        check("\u{feff} {\"a\": 1}\n", json!({"a": 1}), &[]);
        check("```json\n{\"a\": 1}\n```", json!({"a": 1}), &[Fenced]);
        check("Sure!\n\n```\n[1]\n```\nBye.", json!([1]), &[Fenced, ProseAround]);
        check("{\"a\": 1}\n\nHope this helps!", json!({"a": 1}), &[ProseAround]);
        check("As [noted](x), {\"a\": 1}.", json!({"a": 1}), &[ProseAround]);
        check("Run:\n```python\nd = {\"x\": 1}\n```\n{\"a\": 1}", json!({"a": 1}), &[ProseAround]);
        check("see [1]\n```json\n{\"a\": 1}\n```", json!({"a": 1}), &[Fenced, ProseAround]);
        check("```json\n{\"a\": 1}", json!({"a": 1}), &[Fenced]);
    }

    #[test]
    fn fences_inside_strings_do_not_end_the_value() {
        let value = json!({"code": "```python\nx\n```\n"});
        check(&value.to_string(), value.clone(), &[]);
        let raw = "{\"code\": \"```python\nx\n```\n\"}";
        check(raw, value.clone(), &[Repair::RawControlInString]);
        check(&format!("```json\n{raw}\n```"), value.clone(), &[Fenced, Repair::RawControlInString]);
        check(&format!("Here: {raw}"), value, &[ProseAround, Repair::RawControlInString]);
    }

    #[test]
    fn never_chooses() {
        check_not("{\"a\": 1}\n{\"b\": 2}", Kind::Ambiguous, 2);
        check_not("```json\n{\"a\": 1}\n{\"b\": 2}\n```", Kind::Ambiguous, 3);
        check_not("```json\n{\"a\": 1}\n```\n```json\n{\"b\": 2}\n```", Kind::Ambiguous, 5);
        check_not("{\"a\": 1}\n```json\n{\"b\": 2}\n```", Kind::Ambiguous, 3);
        check_not("{\"a\": 1, \"a\": 2}", Kind::Ambiguous, 1);
        check_not("{\"a\": 1,\n\"\\u0061\": 2}", Kind::Ambiguous, 2);
        check("[{\"a\": 1}\n{\"b\": 2}]", json!([{"a": 1}, {"b": 2}]), &[MissingComma]);
    }

    #[test]
    fn never_takes_prose_or_scalars() {
        for text in ["", "  ", "I cannot help with that.", "\"text\"", "42", "true", "[note] and {x}"] {
            check_not(text, Kind::NoJson, 1);
        }
    }

    #[test]
    fn never_closes_what_was_cut_off() {
        let whole = "{\"a\": [1, {\"b\": \"c\", \"d\": true}], \"e\": {\"f\": null}}";
        for end in 1..whole.len() {
            for text in [whole[..end].to_owned(), format!("Here: {}", &whole[..end])] {
                assert!(parse_json(&text).is_err(), "{text:?}");
            }
        }
        check_not("{\"a\": 1", Kind::CutOff, 1);
        check_not("Here:\n{\"a\": {\"b\": 1}", Kind::CutOff, 2);
        check_not("```json\n{\"a\": \"x\n```", Kind::CutOff, 3);
        check_not("Here {weird {\"a\": 1}", Kind::CutOff, 1);
    }

    #[test]
    fn broken_values_do_not_give_up_their_parts() {
        check_not("Here: {\"a\": oops, \"b\": {\"c\": 1}}", Kind::Broken, 1);
        check_not("Here: {weird stuff {\"c\": 1}}", Kind::NoJson, 1);
        check_not("```json\nnothing\n```", Kind::Broken, 2);
    }

    #[test]
    fn sizes_are_bounded() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse_json(&deep(DEPTH_MAX)).is_ok());
        check_not(&deep(DEPTH_MAX + 1), Kind::TooLarge, 1);
        check_not(&"[".repeat(100_000), Kind::TooLarge, 1);
        check_not(&" ".repeat(TEXT_BYTES_MAX + 1), Kind::TooLarge, 1);
    }

    #[test]
    fn codes_are_the_serialised_names() {
        for repair in [Fenced, Repair::RawControlInString, Repair::UnescapedInnerQuotes] {
            assert_eq!(serde_json::to_value(repair).unwrap(), json!(repair.code()));
        }
    }
}

#[cfg(test)]
mod properties {
    use super::*;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e300..1e300).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[\"'\\\\,:{}\\[\\]/#\n` a-c]{0,12}".prop_map(Value::from),
        ];
        let nested = scalar.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map("[\"':,}a-z ]{0,6}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        nested.prop_filter("an object or array", |value| value.is_object() || value.is_array())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn strict_json_reads_as_itself(value in values()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                let expected: Value = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(parse_json(&text), Ok((expected, Vec::new())));
            }
        }

        #[test]
        fn a_fence_changes_nothing(value in values()) {
            let text = serde_json::to_string_pretty(&value).unwrap();
            let expected: Value = serde_json::from_str(&text).unwrap();
            let reply = format!("Sure.\n```json\n{text}\n```\n");
            prop_assert_eq!(parse_json(&reply), Ok((expected, vec![Repair::Fenced, Repair::ProseAround])));
        }

        #[test]
        fn a_cut_reply_is_never_read(value in values(), cut in any::<prop::sample::Index>()) {
            let text = value.to_string();
            let end = text.floor_char_boundary(cut.index(text.len()));
            prop_assert!(parse_json(&text[..end]).is_err());
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = parse_json(&text);
        }

        #[test]
        fn json_like_text_never_panics(text in "[\\[\\]{}\"'\\\\,:/#*`\n 1aTN-]{0,60}") {
            let _ = parse_json(&text);
        }
    }
}
