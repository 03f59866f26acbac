//! What exact deduplication overlooks: a text brought to a plain form, and that form's digest.
//!
//! Says which differences between two texts do not count; decides about no row, keeps no index.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use xxhash_rust::xxh3::xxh3_128;

/// Which differences between two texts do not count.
///
/// The default overlooks what a reader cannot see: how a character is encoded, and how much white
/// space stands between words. What is switched on is done in this order: `unicode`, `lowercase`,
/// `strip_accents`, `numbers_to_zero`, `strip_punctuation`, `collapse_whitespace`. With all of them on
/// a text is simplified about as far as datatrove's `TextNormConfig` does before its deduplication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Normalization {
    /// Unicode's NFKC (UAX #15): `ﬁ` is `fi`, full-width letters are plain ones. On by default.
    pub unicode: bool,
    /// Capital and small letters are the same. Off by default.
    pub lowercase: bool,
    /// `é` is `e`: the combining marks of Latin, Greek and Cyrillic are dropped. Off by default.
    pub strip_accents: bool,
    /// Every number is `0`: a run of digits, with points and commas between digits. Off by default.
    pub numbers_to_zero: bool,
    /// Whatever is no letter, digit, mark or white space is dropped; symbols too. Off by default.
    pub strip_punctuation: bool,
    /// A run of white space is one space, and none at both ends. On by default.
    pub collapse_whitespace: bool,
}

impl Default for Normalization {
    fn default() -> Normalization {
        Normalization {
            unicode: true,
            lowercase: false,
            strip_accents: false,
            numbers_to_zero: false,
            strip_punctuation: false,
            collapse_whitespace: true,
        }
    }
}

impl Normalization {
    /// The text without the differences that do not count; borrowed when nothing had to change.
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        let steps: [(bool, Step); 6] = [
            (self.unicode, composed),
            (self.lowercase, if self.unicode { lower_composed } else { lower }),
            (self.strip_accents, without_accents),
            (self.numbers_to_zero, with_zeros),
            (self.strip_punctuation, without_punctuation),
            (self.collapse_whitespace, collapsed),
        ];
        for (wanted, step) in steps {
            if wanted
                && let Some(changed) = step(&text)
                && changed != *text
            {
                text = Cow::Owned(changed);
            }
        }
        text
    }

    /// The XXH3 128-bit digest of the normalised text's UTF-8 bytes: the same on every platform.
    ///
    /// Among 10^9 different texts two share a digest with a chance of about 10^-21. Not a cryptographic
    /// hash: whoever writes the texts could make two of them meet.
    pub fn digest(&self, text: &str) -> u128 {
        xxh3_128(self.apply(text).as_bytes())
    }
}

/// One change of a text; `None` when a cheap look says that it would change nothing.
type Step = fn(&str) -> Option<String>;

fn composed(text: &str) -> Option<String> {
    if text.is_ascii() || unicode_normalization::is_nfkc(text) { None } else { Some(text.nfkc().collect()) }
}

fn lower(text: &str) -> Option<String> {
    if text.chars().any(|c| c.is_uppercase() || !c.is_ascii()) { Some(text.to_lowercase()) } else { None }
}

/// Lower case may need composing again: a small letter can have a form that its capital has not.
fn lower_composed(text: &str) -> Option<String> {
    let small = lower(text)?;
    Some(composed(&small).unwrap_or(small))
}

fn without_accents(text: &str) -> Option<String> {
    // Unicode's blocks Combining Diacritical Marks, ... Extended and ... Supplement. The marks of
    // other scripts are vowels there, so dropping them would drop letters.
    let is_accent =
        |c: &char| matches!(c, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}');
    if text.is_ascii() { None } else { Some(text.nfd().filter(|c| !is_accent(c)).nfc().collect()) }
}

fn with_zeros(text: &str) -> Option<String> {
    if !text.chars().any(char::is_numeric) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !c.is_numeric() {
            out.push(c);
            continue;
        }
        out.push('0');
        loop {
            let mut ahead = chars.clone();
            match ahead.next() {
                Some(next) if next.is_numeric() => {}
                Some('.' | ',') if ahead.next().is_some_and(char::is_numeric) => {}
                _ => break,
            }
            chars.next();
        }
    }
    Some(out)
}

fn without_punctuation(text: &str) -> Option<String> {
    let stays = |c: char| c.is_alphanumeric() || c.is_whitespace() || is_combining_mark(c);
    if text.chars().all(stays) { None } else { Some(text.chars().filter(|c| stays(*c)).collect()) }
}

fn collapsed(text: &str) -> Option<String> {
    // True before the first character, so that a leading space is seen as one too many.
    let mut after_space = true;
    let plain = text.chars().all(|c| {
        let fine = !c.is_whitespace() || (c == ' ' && !after_space);
        after_space = c.is_whitespace();
        fine
    });
    if plain && (text.is_empty() || !after_space) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, text: &str, expected: &str) {
        let normalization: Normalization = serde_json::from_str(json).unwrap();
        let applied = normalization.apply(text);
        assert_eq!(applied, expected, "{json} on {text:?}");
        assert_eq!(matches!(applied, Cow::Borrowed(_)), text == expected, "{json} on {text:?}: borrowed");
        assert_eq!(normalization.digest(text), xxh3_128(expected.as_bytes()));
    }

    const NONE: &str = r#"{"unicode": false, "collapse_whitespace": false}"#;
    const ALL: &str = r#"{"lowercase": true, "strip_accents": true, "numbers_to_zero": true,
                          "strip_punctuation": true}"#;

    #[test]
    fn the_default_overlooks_what_cannot_be_seen() {
        check("{}", "plain text, kept", "plain text, kept");
        check("{}", "", "");
        check("{}", " two\u{a0}\n words ", "two words");
        check("{}", "trailing ", "trailing");
        check("{}", " ", "");
        check("{}", "ﬁne ｗｉｄｅ e\u{301}", "fine wide é");
        check("{}", "Case and 1,000 stay.", "Case and 1,000 stay.");
    }

    #[test]
    fn each_switch_does_one_thing() {
        check(NONE, " ﬁne  E\u{301} ", " ﬁne  E\u{301} ");
        let only = |name: &str| NONE.replace('}', &format!(r#", "{name}": true}}"#));
        check(&only("lowercase"), "ÀB c", "àb c");
        check(&only("strip_accents"), "crème Ångström й हिन्दी", "creme Angstrom и हिन्दी");
        check(&only("numbers_to_zero"), "1,234.5 and 7. a1b22 ٣٤ v1..2", "0 and 0. a0b0 0 v0..0");
        check(&only("strip_punctuation"), "don't (a+b) हिन्दी — x_y", "dont ab हिन्दी  xy");
    }

    #[test]
    fn together_they_simplify() {
        check(ALL, "  The CAFÉ, No. 12: \u{1f600} “5.5 €”\t", "the cafe no 0 0");
        check(ALL, "the cafe no 0 0", "the cafe no 0 0");
        // `㎒` is `MHz` only after NFKC, and must still become small.
        check(ALL, "㎒", "mhz");
    }

    #[test]
    fn unknown_keys_are_refused_and_digests_never_change() {
        assert!(serde_json::from_str::<Normalization>(r#"{"lower_case": true}"#).is_err());
        let digest = Normalization::default().digest("First wins.");
        assert_eq!(format!("{digest:032x}"), "e0f77bf255fbbbd73e8831f6b4894d94");
    }
}
