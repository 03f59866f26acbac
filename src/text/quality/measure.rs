//! Takes the numbers that the quality rules bound. Lengths are in characters, not bytes. Never
//! compares with a threshold.

use std::cell::OnceCell;

use xxhash_rust::xxh3::xxh3_64;

use super::Judge;
use super::c4::Page;
use super::code::Code;
use super::lines::{occurrences, repeats, split_at_line_ends, split_feeds, split_lines, split_paragraphs};
use super::phrases::{PhraseRule, Phrases};
use super::rules::{Rule, RuleSet};
use super::runs::Runs;
use super::teacher::{Scripts, Span, echo, no_end, open_fence, stub_bodies};
use super::words::{Piece, is_space, is_symbol, is_terminal, split};

/// Gopher, section A1.1.
const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];

/// Longest line that FineWeb calls short (FineWeb, section 3.6).
const FINEWEB_SHORT_LINE_CHARS: usize = 30;

/// What the rules saw in a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    values: [Option<f64>; Rule::COUNT],
    /// Where it is that decided a number, for the rules that look for something.
    found: Vec<(Rule, Span)>,
    sets: Vec<RuleSet>,
}

/// A text with what all sets need to know of it.
pub(super) struct Sample<'a> {
    text: &'a str,
    /// What the text was asked for with.
    prompt: Option<&'a str>,
    chars: OnceCell<usize>,
    words: OnceCell<Words>,
}

impl<'a> Sample<'a> {
    pub(super) fn new(text: &'a str, prompt: Option<&'a str>) -> Sample<'a> {
        Sample { text, prompt, chars: OnceCell::new(), words: OnceCell::new() }
    }

    fn chars(&self) -> usize {
        *self.chars.get_or_init(|| self.text.chars().count())
    }

    fn words(&self) -> &Words {
        self.words.get_or_init(|| Words::of(self.text))
    }
}

/// What a step adds to the rules.
pub(super) struct Lists<'a> {
    pub(super) stop_words: Option<&'a [String]>,
    pub(super) phrases: &'a Judge,
}

/// Words and punctuation marks, as datatrove's tokenizer gives them.
#[derive(Default)]
struct Words {
    hashes: Vec<u64>,
    /// Characters before each word, counting words only, and after the last; of texts up to 4 billion characters.
    chars_before: Vec<u32>,
    /// Those that are more than symbols.
    plain: usize,
    plain_chars: usize,
    alphabetic: usize,
}

impl Words {
    fn of(text: &str) -> Words {
        let guess = text.len() / 5;
        let mut words = Words {
            hashes: Vec::with_capacity(guess),
            chars_before: Vec::with_capacity(guess + 1),
            ..Words::default()
        };
        words.chars_before.push(0);
        let mut total = 0;
        split(text, &mut |piece| {
            if let Piece::Word(word) = piece {
                let chars = words.add(word);
                total += chars as u32;
                words.chars_before.push(total);
            }
        });
        words
    }

    fn add(&mut self, word: &str) -> usize {
        self.hashes.push(xxh3_64(word.as_bytes()));
        let bytes = word.as_bytes();
        let chars = if bytes.is_ascii() { bytes.len() } else { word.chars().count() };
        let starts = |char: fn(&u8) -> bool| bytes.first().is_some_and(char);
        if starts(u8::is_ascii_alphanumeric) || word.chars().any(|char| !is_symbol(char)) {
            self.plain += 1;
            self.plain_chars += chars;
        }
        let alphabetic = starts(u8::is_ascii_alphabetic) || word.chars().any(char::is_alphabetic);
        self.alphabetic += usize::from(alphabetic);
        chars
    }

    fn len(&self) -> usize {
        self.hashes.len()
    }
}

impl Stats {
    pub(super) fn new() -> Stats {
        Stats { values: [None; Rule::COUNT], found: Vec::new(), sets: Vec::new() }
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

    /// Where in the text it is, in bytes, that a rule's number comes from.
    pub(super) fn place(&self, rule: Rule) -> Option<Span> {
        self.found.iter().find(|(of, _)| *of == rule).map(|(_, place)| *place)
    }

    fn count(&mut self, rule: Rule, count: usize, place: Option<Span>) {
        self.set(rule, count as f64);
        self.found.extend(place.map(|place| (rule, place)));
    }

    /// Takes the numbers of one set, once.
    pub(super) fn add(&mut self, sample: &Sample<'_>, set: RuleSet, lists: &Lists<'_>) {
        if self.sets.contains(&set) {
            return;
        }
        self.sets.push(set);
        match set {
            RuleSet::GopherQuality => self.add_gopher_quality(sample, lists.stop_words),
            RuleSet::C4 => self.add_c4(sample.text),
            RuleSet::Fineweb => self.add_fineweb(sample),
            RuleSet::Code => self.add_code(sample),
            RuleSet::Teacher => self.add_teacher(sample, lists.phrases.phrases()),
            RuleSet::GopherRepetition => self.add_gopher_repetition(sample),
        }
    }

    fn add_gopher_quality(&mut self, sample: &Sample<'_>, stop_words: Option<&[String]>) {
        let (text, words) = (sample.text, sample.words());
        self.set(Rule::GopherShort, words.plain as f64);
        self.set(Rule::GopherLong, words.plain as f64);
        self.ratio(Rule::GopherWordsTooShort, words.plain_chars, words.plain);
        self.ratio(Rule::GopherWordsTooLong, words.plain_chars, words.plain);
        self.ratio(Rule::GopherAlphabetic, words.alphabetic, words.len());
        self.ratio(Rule::GopherHashes, text.bytes().filter(|byte| *byte == b'#').count(), words.len());
        let ellipses = occurrences(text, "...") + occurrences(text, "…");
        self.ratio(Rule::GopherEllipses, ellipses, words.len());

        let (mut lines, mut bullets, mut trailing) = (0, 0, 0);
        for line in split_lines(text) {
            lines += 1;
            bullets += usize::from(line.trim_start_matches(is_space).starts_with(['-', '•']));
            let end = line.trim_end_matches(is_space);
            trailing += usize::from(end.ends_with("...") || end.ends_with('…'));
        }
        self.ratio(Rule::GopherBullets, bullets, lines);
        self.ratio(Rule::GopherEllipsisLines, trailing, lines);

        let mut wanted: Vec<u64> = match stop_words {
            Some(words) => words.iter().map(|word| xxh3_64(word.as_bytes())).collect(),
            None => STOP_WORDS.iter().map(|word| xxh3_64(word.as_bytes())).collect(),
        };
        wanted.sort_unstable();
        wanted.dedup();
        let all = wanted.len();
        for word in &words.hashes {
            if wanted.contains(word) {
                wanted.retain(|wanted| wanted != word);
            }
        }
        self.set(Rule::GopherStopWords, (all - wanted.len()) as f64);
    }

    fn add_c4(&mut self, text: &str) {
        let page = Page::measure(text);
        self.set(Rule::C4Sentences, page.sentences as f64);
        self.set(Rule::C4LoremIpsum, page.lorem_ipsum as f64);
        self.set(Rule::C4CurlyBracket, page.curly_brackets as f64);
        self.set(Rule::C4Paragraphs, page.paragraphs as f64);
    }

    fn add_fineweb(&mut self, sample: &Sample<'_>) {
        let line = |line: &&str| !line.chars().all(is_space);
        let lines: Vec<&str> = split_feeds(sample.text).map(|(_, line)| line).filter(line).collect();
        let (of, mut ended, mut short) = (lines.len(), 0, 0);
        for line in &lines {
            ended += usize::from(line.ends_with(is_terminal));
            short += usize::from(is_short(line));
        }
        self.ratio(Rule::FinewebLinePunctuation, ended, of);
        self.ratio(Rule::FinewebShortLines, short, of);
        let newlines = sample.text.bytes().filter(|byte| *byte == b'\n').count();
        if of > 0 {
            self.ratio(
                Rule::FinewebDupLineChars,
                repeats(lines.iter().copied()).chars,
                sample.chars() - newlines,
            );
        }
        self.ratio(Rule::FinewebNewlines, newlines, sample.words().len());
    }

    fn add_gopher_repetition(&mut self, sample: &Sample<'_>) {
        let (text, chars, words) = (sample.text, sample.chars(), sample.words());
        let paragraphs = repeats(split_paragraphs(text));
        self.ratio(Rule::GopherDupParagraphs, paragraphs.count, paragraphs.of);
        self.ratio(Rule::GopherDupParagraphChars, paragraphs.chars, chars);
        let lines = repeats(split_at_line_ends(text));
        self.ratio(Rule::GopherDupLines, lines.count, lines.of);
        self.ratio(Rule::GopherDupLineChars, lines.chars, chars);

        let runs = Runs::new(&words.hashes, &words.chars_before).measure();
        let top = [Rule::GopherTop2Grams, Rule::GopherTop3Grams, Rule::GopherTop4Grams];
        for (length, rule) in (2..).zip(top) {
            if words.len() >= length {
                self.ratio(rule, runs[length].top_chars, chars);
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
            self.ratio(rule, runs[length].repeated_chars, chars);
        }
    }
}

impl Stats {
    fn add_code(&mut self, sample: &Sample<'_>) {
        let (code, chars) = (Code::measure(sample.text), sample.chars());
        let span = |place: Option<(usize, usize)>| place.map(|(start, length)| (start, start + length));
        self.count(Rule::CodeLineMax, code.line_chars_max, span(code.longest_at));
        self.ratio(Rule::CodeLineMean, code.line_chars, code.lines);
        self.set(Rule::CodeLines, code.lines as f64);
        self.ratio(Rule::CodeAlphabetic, code.letters, chars);
        self.ratio(Rule::CodeAlphanumeric, code.alphanumerics, chars);
        self.ratio(Rule::CodeTokenChars, code.inked, code.tokens);
        self.ratio(Rule::CodeEncoded, code.encoded, chars);
        self.count(Rule::CodeEncodedRun, code.encoded_max, span(code.encoded_at));
        self.count(Rule::CodeGenerated, code.generated_at.into_iter().count(), span(code.generated_at));
        self.count(Rule::CodeXml, code.xml_at.into_iter().count(), span(code.xml_at));
        self.ratio(Rule::CodeCommentsFew, code.comment_chars, chars);
        self.ratio(Rule::CodeCommentsMany, code.comment_chars, chars);
    }

    fn add_teacher(&mut self, sample: &Sample<'_>, phrases: &Phrases) {
        let text = sample.text;
        let mut counts = PhraseRule::ALL.map(|rule| (rule, 0, None));
        phrases.find(text, |hit| {
            if let Some((_, count, place)) = counts.iter_mut().find(|(rule, ..)| *rule == hit.rule) {
                *count += 1;
                *place = place.or(Some((hit.start, hit.end)));
            }
        });
        let (bodies, body_at) = stub_bodies(text);
        for (rule, count, place) in counts {
            let more = if rule == PhraseRule::TeacherStub { bodies } else { 0 };
            let place = if more > 0 { place.or(body_at) } else { place };
            self.count(rule.rule(), count + more, place);
        }
        if let Some(prompt) = sample.prompt {
            let (words, place) = echo(text, prompt);
            self.count(Rule::TeacherEcho, words, place);
        }
        for (rule, place) in [(Rule::TeacherOpenFence, open_fence(text)), (Rule::TeacherNoEnd, no_end(text))]
        {
            self.count(rule, place.into_iter().count(), place);
        }
        let scripts = Scripts::measure(text);
        self.ratio(Rule::TeacherScripts, scripts.foreign, scripts.letters);
        self.found.extend(scripts.foreign_at.map(|place| (Rule::TeacherScripts, place)));
        self.count(Rule::TeacherMixedWords, scripts.mixed, scripts.mixed_at);
    }
}

/// Whether a line is one of those that FineWeb calls short.
fn is_short(line: &str) -> bool {
    line.len() <= FINEWEB_SHORT_LINE_CHARS
        || (line.len() <= 4 * FINEWEB_SHORT_LINE_CHARS && line.chars().count() <= FINEWEB_SHORT_LINE_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(text: &str) -> Stats {
        Judge::default().measure(text, None)
    }

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
        check("Don't stop, 3.5 times!", Rule::GopherShort, 5.0);
        check("Don't stop, 3.5 times!", Rule::GopherAlphabetic, 4.0 / 7.0);
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
        check("A Lorem Ipsum, lorem ipsum.\nlorem ipsum", Rule::C4LoremIpsum, 2.0);
        check("End.\n\n句。\nno  \n“Said.”", Rule::FinewebLinePunctuation, 0.5);
        check(&format!("short\n{}", "x".repeat(31)), Rule::FinewebShortLines, 0.5);
        check("ab\nab", Rule::FinewebDupLineChars, 0.5);
        check("ab\ncd\n", Rule::FinewebNewlines, 1.0);
    }
}
