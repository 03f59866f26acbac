//! What can be told from a template's text before it is rendered: where names stand, which filters and
//! tests it uses, which values an expression compares.
//!
//! A light reading of what stands in tags, not a parser: minijinja has parsed the text before, and what
//! this does not understand it passes over.

use std::ops::Range;

use minijinja::{Environment, ErrorKind};

use crate::problem::did_you_mean;
use crate::row::FieldPath;

/// Filters of minijinja that users look for, for hints.
const FILTERS: &[&str] = &[
    "abs",
    "capitalize",
    "default",
    "first",
    "float",
    "format",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "replace",
    "reverse",
    "round",
    "select",
    "sort",
    "split",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "urlencode",
];
/// Tests of minijinja, likewise.
const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "even",
    "float",
    "in",
    "integer",
    "iterable",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
];

/// A word of a tag.
#[derive(Clone, Debug, PartialEq)]
enum Word<'t> {
    /// A name with what is reached into by dots: `exercise.solution`.
    Name(&'t str),
    Number,
    Text,
    /// One or two characters that are none of these.
    Mark(&'t str),
}

/// The words of a tag's inside, which begins at byte `at`, each with its place.
fn words(inside: &str, at: usize) -> Vec<(Word<'_>, Range<usize>)> {
    let mut words = Vec::new();
    let mut rest = 0;
    while let Some(first) = inside[rest..].chars().next() {
        let tail = &inside[rest..];
        let (word, bytes) = match first {
            '"' | '\'' => (Some(Word::Text), text_bytes(tail, first)),
            c if c.is_ascii_digit() => (
                Some(Word::Number),
                tail.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(tail.len()),
            ),
            c if is_name(c) => {
                let bytes = name_bytes(tail);
                (Some(Word::Name(&tail[..bytes])), bytes)
            }
            c if c.is_whitespace() => (None, c.len_utf8()),
            c => {
                let double = tail.get(..2).filter(|mark| ["==", "!=", ">=", "<=", "//", "**"].contains(mark));
                let mark = double.unwrap_or(&tail[..c.len_utf8()]);
                (Some(Word::Mark(mark)), mark.len())
            }
        };
        words.extend(word.map(|word| (word, at + rest..at + rest + bytes)));
        rest += bytes;
    }
    words
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The bytes of a name and the names behind its dots.
fn name_bytes(text: &str) -> usize {
    let mut end = 0;
    loop {
        end += text[end..].find(|c: char| !is_name(c)).unwrap_or(text.len() - end);
        match text[end..].strip_prefix('.') {
            Some(more) if more.starts_with(|c: char| is_name(c)) => end += 1,
            _ => return end,
        }
    }
}

/// The bytes of a quoted text, quotes included.
fn text_bytes(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The words of all tags of a template; comments and raw text are left out.
fn template_words(text: &str) -> Vec<(Word<'_>, Range<usize>)> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(open) = text[at..].find('{').map(|open| at + open) {
        let close = match text.as_bytes().get(open + 1) {
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            Some(b'#') => "#}",
            _ => {
                at = open + 1;
                continue;
            }
        };
        let inside = open + 2;
        let end = text[inside..].find(close).map_or(text.len(), |end| inside + end);
        let tag = &text[inside..end];
        at = (end + close.len()).min(text.len());
        let statement = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        if close == "%}" && statement == "raw" {
            at = text[at..].find("endraw").map_or(text.len(), |end| at + end);
        } else if close != "#}" {
            all.extend(words(tag, inside));
        }
    }
    all
}

/// Where a template or (`is_expression`) an expression names a field, or a key of one: `exercise.solution`.
pub(super) fn place_of(text: &str, name: &str, is_expression: bool) -> Option<Range<usize>> {
    let words = if is_expression { words(text, 0) } else { template_words(text) };
    let mut before = None;
    for (word, place) in words {
        let reaches_in = matches!(before, Some(Word::Mark("." | "|")));
        if let (Word::Name(found), false) = (&word, reaches_in) {
            let rest = found.strip_prefix(name);
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
                return Some(place.start..place.start + name.len());
            }
        }
        before = Some(word);
    }
    None
}

/// A filter or a test that is not known: where it stands, what is wrong, and a hint.
pub(super) fn unknown_word(
    env: &Environment<'_>,
    text: &str,
    is_expression: bool,
) -> Option<(Range<usize>, String, Option<String>)> {
    let words = if is_expression { words(text, 0) } else { template_words(text) };
    for (index, (word, place)) in words.iter().enumerate() {
        let Word::Name(name) = word else { continue };
        let before =
            |back: usize| index.checked_sub(back).and_then(|index| words.get(index)).map(|(word, _)| word);
        let negated = before(1) == Some(&Word::Name("not"));
        let is_test = before(if negated { 2 } else { 1 }) == Some(&Word::Name("is")) && *name != "not";
        let mut state = env.empty_state();
        let (known, kind, names) = if before(1) == Some(&Word::Mark("|")) {
            let known = is_known(state.apply_filter(name, &[]).err(), ErrorKind::UnknownFilter);
            (known, "filter", FILTERS)
        } else if is_test {
            let known = is_known(state.perform_test(name, &[]).err(), ErrorKind::UnknownTest);
            (known, "test", TESTS)
        } else {
            continue;
        };
        if !known {
            let hint =
                did_you_mean(name, names.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            let listed = || Some(format!("there are `{}` and others", names.join("`, `")));
            return Some((place.clone(), format!("there is no {kind} `{name}`"), hint.or_else(listed)));
        }
    }
    None
}

/// Called without a value, what is known complains of something else.
fn is_known(error: Option<minijinja::Error>, unknown: ErrorKind) -> bool {
    error.is_none_or(|error| error.kind() != unknown)
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Side {
    Field(FieldPath),
    Number,
    Text,
}

/// What an expression compares by size, where both sides are plain: a field, a number or a text. None of
/// an expression that tests kinds itself (`grade is number and ...`).
///
/// Jinja orders all values, a text above every number, so `grade >= 4` holds for the grade `good`.
pub(super) fn comparisons(expression: &str) -> Vec<(Side, Side)> {
    let words: Vec<Word<'_>> = words(expression, 0).into_iter().map(|(word, _)| word).collect();
    if words.contains(&Word::Name("is")) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if !matches!(word, Word::Mark(">" | "<" | ">=" | "<=")) {
            continue;
        }
        let at = |index: Option<usize>| index.and_then(|index| words.get(index));
        let alone = |word: Option<&Word<'_>>| match word {
            None | Some(Word::Mark("(" | ")")) => true,
            Some(Word::Name(name)) => ["and", "or", "not", "if", "else"].contains(name),
            Some(_) => false,
        };
        if !(alone(at(index.checked_sub(2))) && alone(at(index.checked_add(2)))) {
            continue;
        }
        let sides = (at(index.checked_sub(1)).and_then(side), at(index.checked_add(1)).and_then(side));
        if let (Some(left), Some(right)) = sides {
            found.push((left, right));
        }
    }
    found
}

fn side(word: &Word<'_>) -> Option<Side> {
    match word {
        Word::Name("true" | "false" | "none" | "True" | "False" | "None") | Word::Mark(_) => None,
        Word::Name(name) => Some(Side::Field(FieldPath::parse(name))),
        Word::Number => Some(Side::Number),
        Word::Text => Some(Side::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the text from where a name is found on.
    #[track_caller]
    fn check_place(text: &str, name: &str, is_expression: bool, expected: Option<&str>) {
        let found = place_of(text, name, is_expression);
        assert_eq!(found.map(|place| &text[place.start..]), expected, "{text}");
    }

    #[test]
    fn names_are_found_in_tags_only() {
        check_place("x {{ x }}", "x", false, Some("x }}"));
        check_place("{# x #}{{ 'x' ~ y.x ~ a|x ~ f(x) }}", "x", false, Some("x) }}"));
        check_place("{% for w in ws.all %}{{ w }}", "ws", false, Some("ws.all %}{{ w }}"));
        check_place("{{ a.b.c }}", "a.b", false, Some("a.b.c }}"));
        check_place("{{ a.bc }}", "a.b", false, None);
        check_place("{% raw %}{{ x }}{% endraw %}{{ x", "x", false, Some("x"));
        check_place("é == \"x\" and x > 1", "x", true, Some("x > 1"));
    }

    #[track_caller]
    fn check_unknown(text: &str, is_expression: bool, expected: Option<&str>) {
        let found = unknown_word(&Environment::new(), text, is_expression);
        let shown = found.map(|(place, message, hint)| {
            let hint = hint.filter(|hint| hint.starts_with("did")).unwrap_or_default();
            format!("{}: {message} {hint}", &text[place])
        });
        assert_eq!(shown.as_deref(), expected, "{text}");
    }

    #[test]
    fn unknown_filters_and_tests_are_found() {
        check_unknown("{{ a | upper | replace('| b', '') }} | c", false, None);
        check_unknown("{{ a | uper }}", false, Some("uper: there is no filter `uper` did you mean `upper`?"));
        check_unknown(
            "a is not defind",
            true,
            Some("defind: there is no test `defind` did you mean `defined`?"),
        );
        check_unknown("a is not none and (b | length) > 1", true, None);
        check_unknown("a | xyzzy", true, Some("xyzzy: there is no filter `xyzzy` "));
    }

    #[track_caller]
    fn check_comparisons(expression: &str, expected: usize) {
        assert_eq!(comparisons(expression).len(), expected, "{expression}");
    }

    #[test]
    fn only_plain_comparisons_are_looked_at() {
        check_comparisons("grade >= 4 and (a.b < c or 3 > x)", 3);
        check_comparisons("(text | length) > 4", 0);
        check_comparisons("text | length > 4", 0);
        check_comparisons("a + 1 > 4 or a > 1 + b or a[0] > 3 or f(x) > 3", 0);
        check_comparisons("a is number and a > 4", 0);
        check_comparisons("a == 4", 0);
        check_comparisons("not a > 'x'", 1);
        assert_eq!(comparisons("a.b > 4"), [(Side::Field(FieldPath::parse("a.b")), Side::Number)]);
    }
}
