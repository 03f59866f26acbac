//! What kind of character stands where: the classes that the splitting of words goes by.
//!
//! Tables, and questions to them. Never looks at more than one character.

use std::sync::LazyLock;

use regex::Regex;

/// A bit for each character of the first three planes.
pub(super) struct Bits(Vec<u64>);

const PLANES: u32 = 0x3_0000;

impl Bits {
    /// The characters that a class of a regular expression holds.
    fn of_class(class: &str) -> Bits {
        let all: String = (0..PLANES).filter_map(char::from_u32).collect();
        let mut bits = Bits(vec![0; PLANES as usize / 64]);
        if let Ok(class) = Regex::new(class) {
            class.find_iter(&all).flat_map(|found| found.as_str().chars()).for_each(|char| bits.put(char));
        }
        bits
    }

    fn of_chars(chars: &str) -> Bits {
        let mut bits = Bits(vec![0; PLANES as usize / 64]);
        chars.chars().for_each(|char| bits.put(char));
        bits
    }

    fn put(&mut self, char: char) {
        if let Some(word) = self.0.get_mut(char as usize / 64) {
            *word |= 1 << (char as usize % 64);
        }
    }

    fn has(&self, char: char) -> bool {
        self.0.get(char as usize / 64).is_some_and(|word| word >> (char as usize % 64) & 1 == 1)
    }
}

/// White space as Python has it: Unicode's, and four control characters.
pub(in crate::text::quality) fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&char)
}

const PUNCTUATION: &str = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪";
const QUOTES: &str = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧";

/// One character that is a word of its own at the start of a string.
pub(super) fn is_prefix(char: char) -> bool {
    static BITS: LazyLock<Bits> = LazyLock::new(|| {
        Bits::of_chars(&format!("§%=—–$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿{PUNCTUATION}{QUOTES}"))
    });
    BITS.has(char) || is_icon(char)
}

/// One character that is a word of its own at the end of a string.
pub(super) fn is_suffix(char: char) -> bool {
    static BITS: LazyLock<Bits> = LazyLock::new(|| Bits::of_chars(&format!("—–{PUNCTUATION}{QUOTES}")));
    BITS.has(char) || is_icon(char)
}

pub(super) fn is_currency(char: char) -> bool {
    static BITS: LazyLock<Bits> = LazyLock::new(|| Bits::of_chars("$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"));
    BITS.has(char)
}

/// What a full stop may follow and still be a word of its own, beside digits and small letters.
pub(super) fn is_before_stop(char: char) -> bool {
    static BITS: LazyLock<Bits> = LazyLock::new(|| Bits::of_chars(&format!("%²-+|{PUNCTUATION}{QUOTES}")));
    BITS.has(char)
}

pub(super) fn is_quote(char: char) -> bool {
    static BITS: LazyLock<Bits> = LazyLock::new(|| Bits::of_chars(QUOTES));
    BITS.has(char)
}

/// Dingbats, arrows, emoji: Unicode's "other symbols".
pub(super) fn is_icon(char: char) -> bool {
    static BITS: LazyLock<Bits> = LazyLock::new(|| Bits::of_class(r"\p{So}+"));
    !char.is_ascii() && BITS.has(char)
}

/// Of Unicode's category of punctuation.
pub(super) fn is_punctuation(char: char) -> bool {
    static BITS: LazyLock<Bits> = LazyLock::new(|| Bits::of_class(r"\p{P}+"));
    BITS.has(char)
}

/// What ends a sentence, in any script.
pub(in crate::text::quality) fn is_terminal(char: char) -> bool {
    static BITS: LazyLock<Bits> = LazyLock::new(|| Bits::of_class(r"\p{Sentence_Terminal}+"));
    if char.is_ascii() { matches!(char, '.' | '!' | '?') } else { BITS.has(char) }
}

/// Letters of scripts without case count as small and as capital.
pub(super) fn is_lower(char: char) -> bool {
    if char.is_ascii() {
        return char.is_ascii_lowercase();
    }
    char.is_lowercase() || is_uncased(char)
}

pub(super) fn is_upper(char: char) -> bool {
    if char.is_ascii() {
        return char.is_ascii_uppercase();
    }
    char.is_uppercase() || is_uncased(char)
}

pub(super) fn is_letter(char: char) -> bool {
    if char.is_ascii() { char.is_ascii_alphabetic() } else { char.is_alphabetic() || is_uncased(char) }
}

/// Blocks of scripts without case, marks and punctuation in them included, as spaCy 3.8 lists them.
fn is_uncased(char: char) -> bool {
    matches!(char as u32,
        0x1200..=0x137F | 0x0980..=0x09FF | 0x0591..=0x05F4 | 0xFB1D..=0xFB4F | 0x0900..=0x097F | 0x0C80..=0x0CFF
        | 0x0B80..=0x0BFF | 0x0C00..=0x0C7F | 0x0D80..=0x0DFF | 0xAC00..=0xD7AF | 0x1100..=0x11FF
        | 0x3040..=0x30FF | 0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x2_0000..=0x2_EBEF | 0x2E80..=0x2FDF
        | 0x2FF0..=0x303F | 0x31C0..=0x31EF | 0x3200..=0x33FF | 0xF900..=0xFAFF | 0xFE30..=0xFE4F
        | 0x1_F200..=0x1_F2FF | 0x2_F800..=0x2_FA1F
        | 0x0620..=0x064A | 0x066E..=0x06D5 | 0x06E5..=0x06FF | 0x0750..=0x077F | 0x08A0..=0x08BD
        | 0xFB50..=0xFBB1 | 0xFBD3..=0xFD3D | 0xFD50..=0xFDC7 | 0xFDF0..=0xFDFB | 0xFE70..=0xFEFC)
}

/// Whether datatrove counts a character as a symbol, of which alone no word is made.
pub(in crate::text::quality) fn is_symbol(char: char) -> bool {
    static BITS: LazyLock<Bits> = LazyLock::new(|| {
        Bits::of_chars(
            "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»",
        )
    });
    let control = matches!(char as u32, 0..=8 | 11..=12 | 13..=31 | 127..=159);
    control || BITS.has(char) || is_terminal(char)
}
