//! Texts as sets of shingles: what near-duplicate search means by "similar".
//!
//! Makes well-mixed hashes of n-grams of words, characters or code tokens, and nothing else: it keeps no set, compares
//! nothing. The hashes may be stored, so their definition must not change (the tests pin it).

use std::num::NonZeroU8;

use schemars::JsonSchema;
use serde::Deserialize;
use unicode_normalization::char::is_combining_mark;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::code::{Token, tokens};

/// What a shingle is: an n-gram of words, of characters or of code tokens.
///
/// **Words** are the maximal runs of letters, digits (`char::is_alphanumeric`) and combining marks,
/// lower-cased character by character; everything between them, `_` too, is dropped. In scripts
/// written without spaces (Chinese, Japanese kana, Thai, Lao, Khmer, Burmese) every letter is a word.
///
/// **Characters** are those of the lower-cased text, punctuation included, where a run of white space
/// counts as one space and white space at both ends as nothing.
///
/// **Code tokens** are names, numbers, strings and single signs of a program in any language, case kept;
/// comments, white space and the kind of quotes do not count, see [`super::code::tokens`].
///
/// A text of fewer than n words (characters, tokens) has one shingle: all of it. A text without any has none.
/// Composed and decomposed characters differ, as do forms that only NFKC makes equal: bring texts to
/// one form first if they come from many places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Shingles {
    Words(NonZeroU8),
    Characters(NonZeroU8),
    CodeTokens(NonZeroU8),
}

impl Shingles {
    /// N-grams of `n` words; 0 counts as 1.
    pub fn words(n: u8) -> Shingles {
        Shingles::Words(NonZeroU8::new(n).unwrap_or(NonZeroU8::MIN))
    }

    /// N-grams of `n` characters; 0 counts as 1.
    pub fn characters(n: u8) -> Shingles {
        Shingles::Characters(NonZeroU8::new(n).unwrap_or(NonZeroU8::MIN))
    }

    /// N-grams of `n` code tokens; 0 counts as 1.
    pub fn code_tokens(n: u8) -> Shingles {
        Shingles::CodeTokens(NonZeroU8::new(n).unwrap_or(NonZeroU8::MIN))
    }
}

/// Word 5-grams, as in FineWeb (datatrove's `MinhashConfig`).
impl Default for Shingles {
    fn default() -> Shingles {
        Shingles::words(5)
    }
}

/// Shingles texts one after another; keeps its buffers between them.
#[derive(Clone, Debug, Default)]
pub struct Shingler {
    /// The hash of every word or character of the text.
    units: Vec<u64>,
    /// The lower-cased word being read.
    word: Vec<u8>,
}

impl Shingler {
    /// Replaces what is in `out` by the hash of every shingle of the text, in text order, repeats
    /// included. All 64 bits are well mixed: any 32 of them make a good shorter hash.
    pub fn fill(&mut self, shingles: Shingles, text: &str, out: &mut Vec<u64>) {
        self.units.clear();
        let n = match shingles {
            Shingles::Words(n) => {
                self.read_words(text);
                n
            }
            Shingles::Characters(n) => {
                self.read_characters(text);
                n
            }
            Shingles::CodeTokens(n) => {
                tokens(text, |token| self.units.push(hash_token(token)));
                n
            }
        };
        hash_windows(&self.units, usize::from(n.get()), out);
    }

    fn read_words(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut at = 0;
        // Whether the open word is a letter of a script without spaces, which no letter may join.
        let mut alone = false;
        while let Some(&byte) = bytes.get(at) {
            if byte.is_ascii() {
                at += 1;
                let lower = ASCII_WORD[usize::from(byte)];
                if lower == 0 || alone {
                    self.end_word();
                    alone = false;
                }
                if lower != 0 {
                    self.word.push(lower);
                }
                continue;
            }
            let Some(c) = text[at..].chars().next() else { break };
            at += c.len_utf8();
            if is_combining_mark(c) {
                if !self.word.is_empty() {
                    self.push_lower(c);
                }
                continue;
            }
            let is_letter = c.is_alphanumeric();
            let stands_alone = is_letter && stands_alone(c);
            if !is_letter || alone || stands_alone {
                self.end_word();
            }
            if is_letter {
                self.push_lower(c);
            }
            alone = stands_alone;
        }
        self.end_word();
    }

    fn push_lower(&mut self, c: char) {
        for lower in c.to_lowercase() {
            self.word.extend_from_slice(lower.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.units.push(xxh3_64(&self.word));
            self.word.clear();
        }
    }

    fn read_characters(&mut self, text: &str) {
        let mut space_due = false;
        for c in text.chars() {
            if c.is_whitespace() {
                space_due = !self.units.is_empty();
                continue;
            }
            if space_due {
                self.units.push(hash_character(' '));
                space_due = false;
            }
            if c.is_ascii() {
                self.units.push(hash_character(c.to_ascii_lowercase()));
            } else {
                self.units.extend(c.to_lowercase().map(hash_character));
            }
        }
    }
}

/// The lower-case form of every ASCII byte that belongs to a word, 0 for the others.
const ASCII_WORD: [u8; 128] = {
    let mut table = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() {
            table[byte] = b.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// Whether a letter belongs to a script that is written without spaces between words.
/// Source: the block ranges of Unicode 16, `Blocks.txt`.
fn stands_alone(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}'       // Thai, Lao
        | '\u{1000}'..='\u{109f}'     // Myanmar
        | '\u{1780}'..='\u{17ff}'     // Khmer
        | '\u{3040}'..='\u{30ff}'     // Hiragana, Katakana
        | '\u{31f0}'..='\u{31ff}'     // Katakana Phonetic Extensions
        | '\u{3400}'..='\u{4dbf}'     // CJK Unified Ideographs Extension A
        | '\u{4e00}'..='\u{9fff}'     // CJK Unified Ideographs
        | '\u{f900}'..='\u{faff}'     // CJK Compatibility Ideographs
        | '\u{ff66}'..='\u{ff9f}'     // Halfwidth Katakana
        | '\u{20000}'..='\u{3ffff}') // the ideographic planes
}

fn hash_character(c: char) -> u64 {
    mix(u64::from(u32::from(c)).wrapping_add(GOLDEN))
}

/// A string is another token than the name in it, so the kind is in the hash.
fn hash_token(token: Token<'_>) -> u64 {
    let (text, kind) = match token {
        Token::Name(text) => (text, 0),
        Token::Number(text) => (text, 1),
        Token::String(text) => (text, 2),
        Token::Sign(text) => (text, 3),
    };
    xxh3_64_with_seed(text.as_bytes(), kind)
}

/// The odd number nearest to 2^64 divided by the golden ratio (Knuth, TAOCP 3, section 6.4).
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes each window of `n` unit hashes, or all of them if they are fewer: a polynomial in `GOLDEN`
/// modulo 2^64, rolled along (Karp and Rabin 1987), so that the cost does not depend on `n`.
fn hash_windows(units: &[u64], n: usize, out: &mut Vec<u64>) {
    out.clear();
    if units.is_empty() {
        return;
    }
    let (first, rest) = units.split_at(n.min(units.len()));
    let mut sum: u64 = 0;
    let mut leaving: u64 = 1;
    for unit in first {
        sum = sum.wrapping_mul(GOLDEN).wrapping_add(*unit);
        leaving = leaving.wrapping_mul(GOLDEN);
    }
    out.reserve(rest.len() + 1);
    out.push(mix(sum));
    out.extend(rest.iter().zip(units).map(|(new, old)| {
        sum = sum.wrapping_mul(GOLDEN).wrapping_add(new.wrapping_sub(old.wrapping_mul(leaving)));
        mix(sum)
    }));
}

/// A bijection of 64 bits that spreads every bit over all of them: the finaliser of SplitMix64
/// (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014, figure 16;
/// constants of Stafford's variant 13).
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hashes(shingles: Shingles, text: &str) -> Vec<u64> {
        let mut out = vec![7];
        Shingler::default().fill(shingles, text, &mut out);
        out
    }

    /// The same from the definition: units as strings, windows summed one by one.
    fn expected(units: &[&str], n: usize, unit_hash: fn(&str) -> u64) -> Vec<u64> {
        let sum = |window: &[&str]| {
            let add = |sum: u64, unit: &&str| sum.wrapping_mul(GOLDEN).wrapping_add(unit_hash(unit));
            mix(window.iter().fold(0, add))
        };
        if units.is_empty() { Vec::new() } else { units.windows(n.min(units.len())).map(sum).collect() }
    }

    fn check_words(n: u8, text: &str, words: &[&str]) {
        let wanted = expected(words, usize::from(n), |word| xxh3_64(word.as_bytes()));
        assert_eq!(hashes(Shingles::words(n), text), wanted, "{n} words of {text:?}");
    }

    fn check_characters(n: u8, text: &str, characters: &str) {
        let units: Vec<String> = characters.chars().map(String::from).collect();
        let units: Vec<&str> = units.iter().map(String::as_str).collect();
        let wanted = expected(&units, usize::from(n), |c| hash_character(c.chars().next().unwrap()));
        assert_eq!(hashes(Shingles::characters(n), text), wanted, "{n} characters of {text:?}");
    }

    #[test]
    fn words_are_runs_of_letters_digits_and_marks() {
        check_words(1, "", &[]);
        check_words(1, " ... !", &[]);
        check_words(1, "Don't stop_it, 3rd time", &["don", "t", "stop", "it", "3rd", "time"]);
        check_words(1, "ÀÉ naïve e\u{301}te\u{301}—x", &["àé", "naïve", "e\u{301}te\u{301}", "x"]);
        check_words(1, "हिन्दी में", &["हिन्दी", "में"]);
        check_words(1, "\u{301}a", &["a"]);
        check_words(1, "AI研究です。x", &["ai", "研", "究", "で", "す", "x"]);
        check_words(1, "ก\u{e34}นx", &["ก\u{e34}", "น", "x"]);
    }

    #[test]
    fn shingles_are_windows_or_the_whole() {
        check_words(2, "One two THREE", &["one", "two", "three"]);
        check_words(3, "One two THREE", &["one", "two", "three"]);
        check_words(5, "One two THREE", &["one", "two", "three"]);
        check_words(5, "a b c d e f g h", &["a", "b", "c", "d", "e", "f", "g", "h"]);
        check_characters(4, " Ab\t\n c.É ", "ab c.é");
        check_characters(24, "İx", "i\u{307}x");
        check_characters(3, "  ", "");
        assert_eq!(hashes(Shingles::words(2), "a b").len(), 1);
        assert_ne!(hashes(Shingles::words(2), "a b"), hashes(Shingles::words(2), "b a"));
        assert_ne!(hashes(Shingles::words(1), "ab"), hashes(Shingles::words(1), "a b"));
    }

    #[test]
    fn code_is_compared_by_what_it_does() {
        let code = |text| hashes(Shingles::code_tokens(3), text);
        let plain = code("def f(x):\n    return g(x, \"a\")\n");
        assert_eq!(plain.len(), 11);
        assert_eq!(code("# why\ndef f( x ):\n\treturn g(x,'a')  # so"), plain);
        assert_ne!(code("def f(x):\n    return g(x, a)\n"), plain);
        assert_ne!(code("def f(X):\n    return g(x, \"a\")\n"), plain);
        assert!(code("# nothing\n").is_empty());
    }

    #[test]
    fn configurations_read_as_written() {
        let read = |json: &str| serde_json::from_str::<Shingles>(json).ok();
        assert_eq!(read(r#"{"words": 5}"#), Some(Shingles::default()));
        assert_eq!(read(r#"{"characters": 24}"#), Some(Shingles::characters(24)));
        assert_eq!(read(r#"{"code_tokens": 7}"#), Some(Shingles::code_tokens(7)));
        assert_eq!(read(r#"{"words": 0}"#), None);
        assert_eq!(Shingles::words(0), Shingles::words(1));
    }

    #[test]
    fn hashes_never_change() {
        let word = hashes(Shingles::default(), "Once upon a time there was");
        let character = hashes(Shingles::characters(3), "Été");
        let code = hashes(Shingles::code_tokens(2), "f(1)");
        assert_eq!(format!("{code:x?}"), "[2f81432d83169cee, 6f1907db03bd787, 70dd7a201a9bb2d]");
        assert_eq!(
            format!("{word:x?} {character:x?}"),
            "[3a5292faf78e3750, 6a5543f21549b81a] [e237d6ce0d1258d9]"
        );
    }

    proptest! {
        /// The byte-wise reader against words found character by character.
        #[test]
        fn any_text_reads_as_defined(text in "([a-zA-Z0-9 _.,]|[À-ÿΑ-ω\u{301}\u{e34}ก漢かㄱ한।हि\u{200d}]){0,40}", n in 1u8..7) {
            let mut words: Vec<String> = Vec::new();
            let mut open = false;
            let mut alone = false;
            for c in text.chars() {
                let (mark, letter) = (is_combining_mark(c), c.is_alphanumeric());
                if mark && !open || !mark && !letter {
                    open = open && mark;
                    continue;
                }
                if !mark && (!open || alone || stands_alone(c)) {
                    words.push(String::new());
                    alone = stands_alone(c);
                }
                open = true;
                words.last_mut().unwrap().extend(c.to_lowercase());
            }
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            check_words(n, &text, &words);
        }
    }
}
