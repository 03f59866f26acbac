//! Takes the numbers that the quality rules bound. Lengths are in characters, not bytes. Never
//! compares with a threshold.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use regex::Regex;
use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::xxh3_64;

use super::rules::{Rule, RuleSet};

/// Gopher, section A1.1.
const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];

/// Words that a line needs to be kept by C4 (C4, section 2.2).
const C4_LINE_WORDS_MIN: usize = 3;
/// Longest word in a line that C4 keeps (its reference code in TensorFlow Datasets).
const C4_WORD_CHARS_MAX: usize = 1000;
/// What a line that C4 keeps ends in.
const C4_LINE_ENDS: [char; 5] = ['.', '?', '!', '"', '\''];
/// Lines with these are boilerplate (its reference code).
const C4_BOILERPLATE: [&str; 7] = [
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
];

/// Longest line that FineWeb calls short (FineWeb, section 3.6).
const FINEWEB_SHORT_LINE_CHARS: usize = 30;

/// What the rules saw in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    pub chars: usize,
    /// Unicode words and punctuation marks.
    pub words: usize,
    values: [Option<f64>; Rule::COUNT],
}

/// All numbers of a text, with the default stop words.
pub fn measure(text: &str) -> Stats {
    let sample = Sample::new(text);
    let mut stats = Stats::new(&sample);
    for set in RuleSet::ALL {
        stats.add(&sample, set, None);
    }
    stats
}

/// A text with what all sets need to know of it.
pub(super) struct Sample<'a> {
    text: &'a str,
    chars: usize,
    /// Words and punctuation marks, as datatrove's tokenizers give them.
    words: Vec<&'a str>,
}

impl<'a> Sample<'a> {
    pub(super) fn new(text: &'a str) -> Sample<'a> {
        let words = text.split_word_bounds().filter(|word| !word.starts_with(char::is_whitespace)).collect();
        Sample { text, chars: text.chars().count(), words }
    }
}

impl Stats {
    pub(super) fn new(sample: &Sample<'_>) -> Stats {
        Stats { chars: sample.chars, words: sample.words.len(), values: [None; Rule::COUNT] }
    }

    /// What a rule measured; `None` if its set was not measured or there is nothing to measure.
    pub fn value(&self, rule: Rule) -> Option<f64> {
        self.values[rule as usize]
    }

    /// Every number there is.
    pub fn iter(&self) -> impl Iterator<Item = (Rule, f64)> + '_ {
        Rule::ALL.into_iter().filter_map(|rule| Some((rule, self.value(rule)?)))
    }

    fn set(&mut self, rule: Rule, value: f64) {
        self.values[rule as usize] = Some(value);
    }

    /// Notes `part / whole`, unless there is no whole.
    fn ratio(&mut self, rule: Rule, part: usize, whole: usize) {
        if whole > 0 {
            self.set(rule, part as f64 / whole as f64);
        }
    }

    /// Takes the numbers of one set.
    pub(super) fn add(&mut self, sample: &Sample<'_>, set: RuleSet, stop_words: Option<&[String]>) {
        match set {
            RuleSet::GopherQuality => self.add_gopher_quality(sample, stop_words),
            RuleSet::C4 => self.add_c4(sample.text),
            RuleSet::Fineweb => self.add_fineweb(sample),
            RuleSet::GopherRepetition => self.add_gopher_repetition(sample),
        }
    }

    fn add_gopher_quality(&mut self, sample: &Sample<'_>, stop_words: Option<&[String]>) {
        let Sample { text, words, .. } = sample;
        let (mut plain, mut plain_chars, mut alphabetic) = (0, 0, 0);
        for word in words {
            if word.contains(char::is_alphanumeric) {
                plain += 1;
                plain_chars += word.chars().count();
                alphabetic += usize::from(word.contains(char::is_alphabetic));
            }
        }
        self.set(Rule::GopherShort, plain as f64);
        self.set(Rule::GopherLong, plain as f64);
        self.ratio(Rule::GopherWordsTooShort, plain_chars, plain);
        self.ratio(Rule::GopherWordsTooLong, plain_chars, plain);
        self.ratio(Rule::GopherAlphabetic, alphabetic, words.len());
        self.ratio(Rule::GopherHashes, text.matches('#').count(), words.len());
        let ellipses = text.matches("...").count() + text.matches('…').count();
        self.ratio(Rule::GopherEllipses, ellipses, words.len());

        let (mut lines, mut bullets, mut trailing) = (0, 0, 0);
        for line in text.lines() {
            lines += 1;
            bullets += usize::from(line.trim_start().starts_with(['-', '•']));
            let end = line.trim_end();
            trailing += usize::from(end.ends_with("...") || end.ends_with('…'));
        }
        self.ratio(Rule::GopherBullets, bullets, lines);
        self.ratio(Rule::GopherEllipsisLines, trailing, lines);

        let wanted: HashSet<&str> = match stop_words {
            Some(words) => words.iter().map(String::as_str).collect(),
            None => HashSet::from(STOP_WORDS),
        };
        let seen: HashSet<&str> = words.iter().copied().filter(|word| wanted.contains(word)).collect();
        self.set(Rule::GopherStopWords, seen.len() as f64);
    }

    fn add_c4(&mut self, text: &str) {
        let kept = text.lines().map(str::trim).filter(|line| c4_keeps(line));
        let sentences: usize = kept.map(|line| line.unicode_sentences().count()).sum();
        self.set(Rule::C4Sentences, sentences as f64);
        self.set(Rule::C4LoremIpsum, text.to_lowercase().matches("lorem ipsum").count() as f64);
        self.set(Rule::C4CurlyBracket, text.matches('{').count() as f64);
    }

    fn add_fineweb(&mut self, sample: &Sample<'_>) {
        let lines: Vec<&str> = sample.text.lines().filter(|line| !line.trim().is_empty()).collect();
        let ended = lines.iter().filter(|line| ends_sentence(line)).count();
        self.ratio(Rule::FinewebLinePunctuation, ended, lines.len());
        let short = lines.iter().filter(|line| line.chars().count() <= FINEWEB_SHORT_LINE_CHARS).count();
        self.ratio(Rule::FinewebShortLines, short, lines.len());
        let newlines = sample.text.matches('\n').count();
        if !lines.is_empty() {
            let repeated = repeats(lines.into_iter());
            self.ratio(Rule::FinewebDupLineChars, repeated.chars, sample.chars - newlines);
        }
        self.ratio(Rule::FinewebNewlines, newlines, sample.words.len());
    }

    fn add_gopher_repetition(&mut self, sample: &Sample<'_>) {
        let Sample { text, chars, words } = sample;
        let paragraphs = text.trim().split("\n\n").map(|part| part.trim_matches('\n'));
        let paragraphs = repeats(paragraphs.filter(|part| !part.is_empty()));
        self.ratio(Rule::GopherDupParagraphs, paragraphs.count, paragraphs.of);
        self.ratio(Rule::GopherDupParagraphChars, paragraphs.chars, *chars);
        let lines = repeats(text.split('\n').filter(|line| !line.is_empty()));
        self.ratio(Rule::GopherDupLines, lines.count, lines.of);
        self.ratio(Rule::GopherDupLineChars, lines.chars, *chars);

        let runs = Runs::new(words);
        let top = [Rule::GopherTop2Grams, Rule::GopherTop3Grams, Rule::GopherTop4Grams];
        for (length, rule) in (2..).zip(top) {
            if words.len() >= length {
                self.ratio(rule, runs.top_chars(length), *chars);
            }
        }
        let repeated = [
            Rule::GopherDup5Grams,
            Rule::GopherDup6Grams,
            Rule::GopherDup7Grams,
            Rule::GopherDup8Grams,
            Rule::GopherDup9Grams,
            Rule::GopherDup10Grams,
        ];
        for (length, rule) in (5..).zip(repeated) {
            self.ratio(rule, runs.repeated_chars(length), *chars);
        }
    }
}

fn c4_keeps(line: &str) -> bool {
    let ended = line.ends_with(C4_LINE_ENDS) && !line.ends_with("...");
    let words_fit = || {
        let mut words = line.split_whitespace();
        words.clone().count() >= C4_LINE_WORDS_MIN
            && words.all(|word| word.chars().count() <= C4_WORD_CHARS_MAX)
    };
    let boilerplate = || {
        let lower = line.to_lowercase();
        C4_BOILERPLATE.iter().any(|phrase| lower.contains(phrase))
    };
    ended && words_fit() && !boilerplate()
}

/// Whether a line ends in a character that Unicode says ends sentences, in any script.
fn ends_sentence(line: &str) -> bool {
    static TERMINAL: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\A\p{Sentence_Terminal}").ok());
    let line = line.trim_end();
    match line.chars().next_back() {
        None => false,
        Some(last) if last.is_ascii() => matches!(last, '.' | '!' | '?'),
        Some(last) => {
            TERMINAL.as_ref().is_some_and(|terminal| terminal.is_match(&line[line.len() - last.len_utf8()..]))
        }
    }
}

/// How many of some parts came before, and how many characters those are.
struct Repeats {
    of: usize,
    count: usize,
    chars: usize,
}

fn repeats<'a>(parts: impl Iterator<Item = &'a str>) -> Repeats {
    let mut seen = HashSet::new();
    let mut repeats = Repeats { of: 0, count: 0, chars: 0 };
    for part in parts {
        repeats.of += 1;
        if !seen.insert(part) {
            repeats.count += 1;
            repeats.chars += part.chars().count();
        }
    }
    repeats
}

/// The words of a text, ready to look at runs of them. Runs are told apart by 64-bit hashes: among
/// 100,000 runs, two are taken for one with a chance of about 3 in 10^10.
struct Runs {
    words: Vec<u64>,
    /// Characters before each word, counting words only, and after the last.
    chars_before: Vec<usize>,
}

impl Runs {
    fn new(words: &[&str]) -> Runs {
        let mut total = 0;
        let mut chars_before = vec![0];
        for word in words {
            total += word.chars().count();
            chars_before.push(total);
        }
        Runs { words: words.iter().map(|word| xxh3_64(word.as_bytes())).collect(), chars_before }
    }

    fn key(&self, start: usize, length: usize) -> u64 {
        let mix = |hash: u64, word: &u64| (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        self.words[start..start + length].iter().fold(length as u64, mix)
    }

    fn chars(&self, start: usize, length: usize) -> usize {
        self.chars_before[start + length] - self.chars_before[start]
    }

    /// Characters of the most frequent run of `length` words, spaces between its words included,
    /// times how often it comes; of equally frequent ones the first counts.
    fn top_chars(&self, length: usize) -> usize {
        let starts = 0..(self.words.len() + 1).saturating_sub(length);
        let counts = count(starts.clone().map(|start| self.key(start, length)));
        let mut top = (0, 0);
        for start in starts {
            let times = counts.get(&self.key(start, length)).copied().unwrap_or(0);
            if times > top.0 {
                top = (times, start);
            }
        }
        if top.0 == 0 { 0 } else { top.0 * (self.chars(top.1, length) + length - 1) }
    }

    /// Characters in runs of `length` words that came before; counted runs do not overlap.
    fn repeated_chars(&self, length: usize) -> usize {
        let mut seen = HashSet::new();
        let mut chars = 0;
        let mut start = 0;
        while start + length <= self.words.len() {
            if seen.insert(self.key(start, length)) {
                start += 1;
            } else {
                chars += self.chars(start, length);
                start += length;
            }
        }
        chars
    }
}

fn count(keys: impl Iterator<Item = u64>) -> HashMap<u64, usize> {
    let mut counts = HashMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, rule: Rule, expected: impl Into<Option<f64>>) {
        let (measured, expected) = (measure(text).value(rule), expected.into());
        match (measured, expected) {
            (Some(measured), Some(expected)) => assert!((measured - expected).abs() < 1e-9, "{measured}"),
            _ => assert_eq!(measured, expected, "{text:?}"),
        }
    }

    #[test]
    fn words_and_lines_are_counted_as_said() {
        check("Don't stop, 3.5 times!", Rule::GopherShort, 4.0);
        check("Don't stop, 3.5 times!", Rule::GopherAlphabetic, 3.0 / 6.0);
        check("ab cdef", Rule::GopherWordsTooShort, 3.0);
        check("# a b", Rule::GopherHashes, 1.0 / 3.0);
        check("The the of", Rule::GopherStopWords, 2.0);
        check("- a\nb\n  • c\n* d", Rule::GopherBullets, 0.5);
        check("", Rule::GopherBullets, None);
        check("...", Rule::GopherWordsTooShort, None);
    }

    #[test]
    fn repetition_is_counted_as_said() {
        check("ab\n\nab\ncd", Rule::GopherDupLines, 1.0 / 3.0);
        check("ab\n\nab\ncd", Rule::GopherDupLineChars, 2.0 / 9.0);
        check("ab\n\nab\n\n\ncd", Rule::GopherDupParagraphs, 1.0 / 3.0);
        check("ab\n\nab\n\n\ncd", Rule::GopherDupParagraphChars, 2.0 / 11.0);
        check("a b a b c", Rule::GopherTop2Grams, 6.0 / 9.0);
        check("a", Rule::GopherTop2Grams, None);
        check("a b c d e a b c d e", Rule::GopherDup5Grams, 5.0 / 19.0);
        check("a b c d e a b c d f", Rule::GopherDup5Grams, 0.0);
    }

    #[test]
    fn lines_of_c4_and_fineweb_are_counted_as_said() {
        let kept = "One two three. Four five six.\nToo short.\nno full stop here\nWait for it...\n\
            We use cookies on this site.\nIs this \"kept?\"";
        check(kept, Rule::C4Sentences, 3.0);
        check(&format!("It is {}.", "x".repeat(1000)), Rule::C4Sentences, 0.0);
        check("Lorem Ipsum, lorem ipsum", Rule::C4LoremIpsum, 2.0);
        check("End.\n\n句。\nno  \n“Said.”", Rule::FinewebLinePunctuation, 0.5);
        check(&format!("short\n{}", "x".repeat(31)), Rule::FinewebShortLines, 0.5);
        check("ab\nab", Rule::FinewebDupLineChars, 0.5);
        check("ab\ncd\n", Rule::FinewebNewlines, 1.0);
    }
}
