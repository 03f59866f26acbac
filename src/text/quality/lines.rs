//! Lines as the published filters cut them, and how much of a text repeats itself in lines.
//!
//! Never looks at words.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use xxhash_rust::xxh3::xxh3_64;

use super::words::Mixed;

/// Lines as Python's `splitlines` has them, without their ends.
pub(super) fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text).filter(|text| !text.is_empty());
    std::iter::from_fn(move || {
        let text = rest?;
        let (end, length) = line_end(text).unwrap_or((text.len(), 0));
        rest = Some(&text[end + length..]).filter(|rest| !rest.is_empty());
        Some(&text[..end])
    })
}

/// Where the first line ends, and how many bytes its end takes.
fn line_end(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().find_map(|(at, byte)| match byte {
        b'\r' if bytes.get(at + 1) == Some(&b'\n') => Some((at, 2)),
        b'\n'..=b'\r' | 0x1c..=0x1e => Some((at, 1)),
        0xc2 if bytes.get(at + 1) == Some(&0x85) => Some((at, 2)),
        0xe2 if bytes.get(at + 1) == Some(&0x80) && matches!(bytes.get(at + 2), Some(0xa8 | 0xa9)) => {
            Some((at, 3))
        }
        _ => None,
    })
}

/// The parts between line feeds, with where they start; as `str::split`, only faster.
pub(super) fn split_feeds(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let ends = memchr::memchr_iter(b'\n', text.as_bytes()).chain([text.len()]);
    let mut start = 0;
    ends.map(move |end| {
        let part = (start, &text[start..end]);
        start = end + 1;
        part
    })
}

/// How often a text holds another, overlaps not counted.
pub(super) fn occurrences(text: &str, part: &str) -> usize {
    memchr::memmem::find_iter(text.as_bytes(), part).count()
}

/// How many of some parts came before, and how many characters those are.
#[derive(Debug, PartialEq)]
pub(super) struct Repeats {
    pub(super) of: usize,
    pub(super) count: usize,
    pub(super) chars: usize,
}

/// Parts are told apart by 64-bit hashes.
pub(super) fn repeats<'a>(parts: impl Iterator<Item = &'a str>) -> Repeats {
    let mut seen: HashSet<u64, BuildHasherDefault<Mixed>> = HashSet::default();
    let mut repeats = Repeats { of: 0, count: 0, chars: 0 };
    for part in parts {
        repeats.of += 1;
        if !seen.insert(xxh3_64(part.as_bytes())) {
            repeats.count += 1;
            repeats.chars += part.chars().count();
        }
    }
    repeats
}

/// A text cut at runs of line ends; what is before the first and behind the last is a part even if it is empty.
pub(super) fn split_at_line_ends(text: &str) -> impl Iterator<Item = &str> {
    let inner = text.trim_matches('\n');
    let first = text.starts_with('\n').then_some("");
    let last = text.ends_with('\n').then_some("");
    let parts = split_feeds(inner).map(|(_, line)| line).filter(|line| !line.is_empty());
    first.into_iter().chain(parts).chain(last)
}

/// A text cut at blank lines.
pub(super) fn split_paragraphs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text.trim_matches(super::words::is_space));
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = memchr::memmem::find(text.as_bytes(), b"\n\n") else {
            rest = None;
            return Some(text);
        };
        rest = Some(text[end..].trim_start_matches('\n'));
        Some(&text[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<'a>(parts: impl Iterator<Item = &'a str>, expected: &[&str]) {
        assert_eq!(parts.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn lines_end_as_in_python() {
        check(split_lines("a\nb\r\nc\rd\u{85}e\u{2028}f\u{b}\n"), &["a", "b", "c", "d", "e", "f", ""]);
        check(split_lines(""), &[]);
        check(split_lines("\n"), &[""]);
        check(split_at_line_ends("\n\na\n\nb\n"), &["", "a", "b", ""]);
        check(split_at_line_ends("a"), &["a"]);
        check(split_feeds("a\n\né").map(|(_, line)| line), &["a", "", "é"]);
        assert!(split_feeds("a\n\né\n").map(|(start, _)| start).eq([0, 2, 3, 6]));
        assert_eq!(occurrences("....... …", "..."), 2);
        check(split_paragraphs("\na\nb\n\n\nc\n\nd \n"), &["a\nb", "c", "d"]);
        check(split_paragraphs("  "), &[""]);
    }

    #[test]
    fn repeats_are_counted_from_the_second_on() {
        assert_eq!(repeats(["é", "b", "é", "é"].into_iter()), Repeats { of: 4, count: 2, chars: 2 });
    }
}
