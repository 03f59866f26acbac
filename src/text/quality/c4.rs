//! C4's rules: which lines it keeps, and what of a page is left.
//!
//! Raffel et al. 2020, section 2.2, with what its reference code adds (`c4_utils.py` of TensorFlow Datasets).
//! Never judges a page.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::lines::{occurrences, split_feeds, split_lines};
use super::words::{Sentences, is_space, split};

/// Words that a line needs to be kept (section 2.2).
const LINE_WORDS_MIN: usize = 3;
/// Longest word in a line that is kept (reference code).
const WORD_CHARS_MAX: usize = 1000;
/// What a line that is kept ends in.
const LINE_ENDS: [char; 5] = ['.', '?', '!', '"', '\''];
/// Lines with these are boilerplate (section 2.2, reference code); `lorem ipsum` is a rule of its own.
const PHRASES: &str = "lorem ipsum|javascript|terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies";

/// What the rules of C4 count on a page.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Page {
    /// Sentences in lines that are kept.
    pub(super) sentences: usize,
    /// In lines that would be kept, which are the only ones that C4 looks into.
    pub(super) lorem_ipsum: usize,
    pub(super) curly_brackets: usize,
    /// Lines of at least [`PARAGRAPH_CHARS_MIN`] characters, kept or not.
    pub(super) paragraphs: usize,
}

/// What a paragraph has at least (mC4's reference code).
const PARAGRAPH_CHARS_MIN: usize = 200;

impl Page {
    pub(super) fn measure(text: &str) -> Page {
        let mut page = Page::default();
        each_line(text, |line, found| {
            page.lorem_ipsum += found.lorem_ipsum;
            page.curly_brackets += found.curly_brackets;
            if !found.kept {
                return;
            }
            let mut sentences = Sentences::default();
            split(line, &mut |piece| sentences.take(piece));
            page.sentences += sentences.count;
        });
        let is_long =
            |line: &str| line.len() >= PARAGRAPH_CHARS_MIN && line.chars().count() >= PARAGRAPH_CHARS_MIN;
        page.paragraphs = split_feeds(text).filter(|(_, line)| is_long(line)).count();
        page
    }
}

/// What of a text C4 keeps: its lines that end like a sentence, without marks of citations.
pub fn c4_lines(text: &str) -> String {
    let mut kept = String::new();
    each_line(text, |line, found| {
        if found.kept {
            kept.push_str(line);
            kept.push('\n');
        }
    });
    kept.trim_matches(is_space).to_owned()
}

/// What there is in a line that ends like a sentence and has enough words.
struct Found {
    lorem_ipsum: usize,
    curly_brackets: usize,
    /// Whether it is no boilerplate either.
    kept: bool,
}

/// Calls `take` with each line that ends like a sentence and has enough words. The reference code looks for lorem
/// ipsum first, then drops what mentions JavaScript, then looks for brackets, then drops what mentions policies.
fn each_line(text: &str, mut take: impl FnMut(&str, &Found)) {
    let phrases = phrases().filter(|phrases| phrases.is_match(text));
    for line in split_lines(text) {
        let line = line.trim_matches(is_space);
        let plain = without_citations(line);
        if !plain.ends_with(LINE_ENDS) || plain.ends_with("...") || !words_fit(line) {
            continue;
        }
        let mut found = Found { lorem_ipsum: 0, curly_brackets: occurrences(&plain, "{"), kept: true };
        for phrase in phrases.into_iter().flat_map(|phrases| phrases.find_iter(&plain)) {
            match phrase.as_str().as_bytes().first() {
                Some(b'l' | b'L') => found.lorem_ipsum += 1,
                Some(b'j' | b'J') => (found.kept, found.curly_brackets) = (false, 0),
                _ => found.kept = false,
            }
        }
        take(&plain, &found);
    }
}

fn phrases() -> Option<&'static Regex> {
    static PHRASE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&format!("(?i-u:{PHRASES})")).ok());
    PHRASE.as_ref()
}

fn words_fit(line: &str) -> bool {
    let mut count = 0;
    let fit = line.split(is_space).filter(|word| !word.is_empty()).all(|word| {
        count += 1;
        word.len() <= WORD_CHARS_MAX || word.chars().count() <= WORD_CHARS_MAX
    });
    fit && count >= LINE_WORDS_MIN
}

/// A line without `[1]`, `[edit]` and `[citation needed]`.
fn without_citations(line: &str) -> Cow<'_, str> {
    static CITATION: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\[\d*\]|\[edit\]|\[citation needed\]").ok());
    match CITATION.as_ref().filter(|_| memchr::memchr(b'[', line.as_bytes()).is_some()) {
        Some(citation) => citation.replace_all(line, ""),
        None => Cow::Borrowed(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_as_said() {
        let text = "  One two three. Four five six.\nToo short.\nno full stop here\nWait for it...\n\
            We use cookies on this site.\nIs this \"kept?\"\nAlso with a mark.[12]\n[citation needed] So it is.[edit]";
        let kept = "One two three. Four five six.\nIs this \"kept?\"\nAlso with a mark.\n So it is.";
        assert_eq!(c4_lines(text), kept);
        assert_eq!(c4_lines(&format!("It is {}.", "x".repeat(1000))), "");
        assert_eq!(c4_lines(&format!("It is {}.", "é".repeat(999))).len(), 6 + 2 * 999 + 1);
    }

    #[test]
    fn pages_are_measured_as_said() {
        let check = |text: &str, sentences, lorem_ipsum, curly_brackets| {
            let paragraphs = 0;
            assert_eq!(
                Page::measure(text),
                Page { sentences, lorem_ipsum, curly_brackets, paragraphs },
                "{text}"
            );
        };
        check("One is here. Two is (really?) there! Or not.", 4, 0, 0);
        check("Mr. Poe said so, e.g. today.", 1, 0, 0);
        check("Lorem ipsum dolor sit amet.\nlorem ipsum no more", 1, 1, 0);
        check("Set {a} is {b}.\nif x { y }", 1, 0, 2);
        check("Our JavaScript {is} here.", 0, 0, 0);
        assert_eq!(Page::measure(&format!("{}\n{}", "a".repeat(200), "b".repeat(199))).paragraphs, 1);
    }
}
