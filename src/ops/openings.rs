//! `openings`: reject texts that begin like too many before them.
//!
//! # What it does
//! Looks at the first `words` words of a text (4 by default), without case, marks and white space, and counts
//! in row order how many of the rows kept so far begin so. When `after` rows were kept (200 by default), a row is
//! rejected `collapsed_opening` if with it more than `share_max` of the kept rows (0.02 by default) would begin
//! alike. The evidence is the opening, its share with this row, how many rows kept before begin so, and how
//! many were kept: `{"opening": "once upon a time", "share": 0.0216, "count": 5, "kept": 230}`.
//!
//! Rejected rows are not counted: what an opening takes of the dataset stays at `share_max`, and goes on as
//! rows with other openings come. Failed rows count as if they did not exist, and anew when they succeed.
//!
//! # When to use it
//! On what teachers write from prompts that are alike: of a million stories more than half may begin "Once upon
//! a time". While the run is live the table of rejects shows what collapses, early enough to stop it and vary the
//! prompts. After `dedup_near`, which does not see it: texts that begin alike need not be alike.
//!
//! # Example
//! ```yaml
//! - openings:
//!     field: story
//!     words: 4
//!     share_max: 0.02
//!     after: 200
//! ```
//!
//! # Limits
//! The first `after` rows that come are all kept, whatever they begin with, so that shares mean something; a run of
//! fewer rows rejects none. Words are Unicode words (UAX 29), of which only the first 200 bytes count; a text
//! with fewer words than `words` is an opening as a whole, one without words is never rejected. Chapters that are
//! meant to begin alike need their own step with `when:`, or none. Memory: 19 to 39 bytes for each different
//! opening. Openings are told apart by 64-bit hashes: among 10^6, two are taken for one with a chance of 3 in 10^8.
//! What is no text is rejected `type_mismatch`.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::xxh3_64;

use crate::kit::{Check, Kit};
use crate::ops::text_field::TextField;
use crate::ops::{Decision, FoldKey, FoldRow, FoldState, Operator, Runner};
use crate::row::{Reason, Row, RowId};

/// Bytes of an opening that count.
const OPENING_BYTES_MAX: usize = 200;
/// Most words that an opening may have.
const WORDS_MAX: u32 = 50;

/// Reject texts that begin like too many before them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "openings", deny_unknown_fields)]
pub struct Openings {
    /// The field that holds the text, or a key inside one: `chapter.text`.
    pub field: String,
    /// How many words are an opening: 4 by default.
    #[serde(default = "words")]
    pub words: u32,
    /// The most that rows with the same opening may be of all kept rows: 0.02 by default.
    #[serde(default = "share_max")]
    pub share_max: f64,
    /// Rows that are kept before any is rejected: 200 by default.
    #[serde(default = "after")]
    pub after: u64,
}

fn words() -> u32 {
    4
}

/// Recipes aim at less for any opening of 4 words; of TinyStories, 59 % share one.
fn share_max() -> f64 {
    0.02
}

fn after() -> u64 {
    200
}

impl Operator for Openings {
    fn check(&self, check: &mut Check<'_>) {
        TextField::check(check, "field", &self.field);
        if !(1..=WORDS_MAX).contains(&self.words) {
            check.problem("words", format!("an opening has 1 to {WORDS_MAX} words"));
        }
        if !(self.share_max > 0.0 && self.share_max < 1.0) {
            check.problem("share_max", "the share lies between 0 and 1").hint =
                Some("0.02 lets one row in fifty begin alike".to_owned());
        } else if (self.after as f64) * self.share_max < 1.0 {
            check.problem("after", "after so few rows a single row is more than the share allows").hint =
                Some(format!("give at least {}", (1.0 / self.share_max).ceil()));
        }
    }

    fn build(&self, _: &Kit) -> anyhow::Result<Vec<Runner>> {
        let begin = Beginnings {
            field: TextField::new(&self.field),
            words: self.words as usize,
            share_max: self.share_max,
            after: self.after,
        };
        Ok(vec![Runner::Fold(Box::new(begin))])
    }
}

struct Beginnings {
    field: TextField,
    words: usize,
    share_max: f64,
    after: u64,
}

/// The first words in small letters, one space between them.
fn opening(text: &str, words: usize) -> String {
    let mut opening = String::new();
    for word in text.unicode_words().take(words) {
        if !opening.is_empty() {
            opening.push(' ');
        }
        // No word that fits is left out for what is behind it: a word may be as long as the text.
        let start = word.char_indices().take_while(|(at, _)| *at < OPENING_BYTES_MAX).map(|(_, char)| char);
        opening.extend(start.flat_map(char::to_lowercase));
        if opening.len() >= OPENING_BYTES_MAX {
            break;
        }
    }
    opening.truncate(opening.floor_char_boundary(OPENING_BYTES_MAX));
    opening
}

impl FoldRow for Beginnings {
    /// The opening's length in bytes and the bytes, eight by eight.
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        let opening = opening(self.field.of(&row.fields)?, self.words);
        let eight = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        };
        let length = std::iter::once(opening.len() as u64);
        Ok(length.chain(opening.as_bytes().chunks(8).map(eight)).collect())
    }

    fn start(&self) -> Box<dyn FoldState> {
        Box::new(Seen { kept: 0, counts: HashMap::new(), share_max: self.share_max, after: self.after })
    }
}

/// How many kept rows begin with each opening. An entry takes 16 bytes and one of the table's own; the
/// table has a power of two of places, of which at most 7 in 8 are taken.
struct Seen {
    kept: u64,
    counts: HashMap<u64, u64>,
    share_max: f64,
    after: u64,
}

impl FoldState for Seen {
    fn decide(&mut self, _: &RowId, key: FoldKey) -> Decision {
        let bytes: Vec<u8> = key.iter().skip(1).flat_map(|word| word.to_le_bytes()).collect();
        let length = key.first().map_or(0, |length| *length as usize).min(bytes.len());
        if length > 0 {
            let count = self.counts.entry(xxh3_64(&bytes[..length])).or_default();
            let share = (*count + 1) as f64 / (self.kept + 1) as f64;
            if self.kept >= self.after && share > self.share_max {
                let opening = String::from_utf8_lossy(&bytes[..length]);
                let evidence =
                    json!({"opening": opening, "share": share, "count": *count, "kept": self.kept});
                return Decision::Reject(Reason::new("collapsed_opening", evidence));
            }
            *count += 1;
        }
        self.kept += 1;
        Decision::Keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture;
    use crate::row::{Type, Value};

    /// Passes texts through; for each, the evidence if it is rejected.
    fn folded(config: Value, texts: &[&str]) -> Vec<Option<Value>> {
        let folder = tempfile::tempdir().unwrap();
        let config = fixture::with(json!({"field": "t"}), config);
        let Runner::Fold(fold) = fixture::built::<Openings>(config, &fixture::kit(folder.path())) else {
            panic!("it is a fold");
        };
        let row = |(id, text): (usize, &&str)| fixture::row(&id.to_string(), &json!({"t": text}));
        let rows: Vec<Row> = texts.iter().enumerate().map(row).collect();
        fixture::folded(&*fold, &rows)
    }

    #[test]
    fn what_begins_like_too_many_is_rejected() {
        let texts = [
            "Once upon a time, there was a fox.",
            "One day a fox went out.",
            "Once — upon a TIME there",
            "In the wood it was dark.",
            "Once upon a time in the wood",
            "Late in May the fox came.",
            "Once upon a time",
            "Once upon another time",
        ];
        let config = json!({"share_max": 0.4, "after": 4});
        let reject = |share: f64, count, kept| {
            let evidence =
                json!({"opening": "once upon a time", "share": share, "count": count, "kept": kept});
            Some(json!({"code": "collapsed_opening", "evidence": evidence}))
        };
        let expected = [None, None, None, None, reject(0.6, 2, 4), None, reject(0.5, 2, 5), None];
        assert_eq!(folded(config.clone(), &texts), expected);
        // With one word, the last begins alike, too.
        let one = fixture::with(config, json!({"words": 1}));
        assert_eq!(folded(one, &texts).iter().filter(|end| end.is_some()).count(), 3);
    }

    #[test]
    fn the_kept_rows_stay_below_the_share() {
        let texts: Vec<String> =
            (0..2000).map(|n| if n % 3 > 0 { "so it is".into() } else { format!("row {n}") }).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let ends = folded(json!({"share_max": 0.1, "after": 20, "words": 2}), &texts);
        let kept = |wanted: &str| {
            ends.iter().zip(&texts).filter(|(end, text)| end.is_none() && text.starts_with(wanted)).count()
        };
        assert_eq!(kept("row"), 667);
        let share = kept("so it") as f64 / (kept("row") + kept("so it")) as f64;
        assert!((0.09..=0.1).contains(&share), "{share}");
    }

    #[test]
    fn openings_are_bounded_and_normalised() {
        let check = |text: &str, words, expected: &str| assert_eq!(opening(text, words), expected);
        check("  “Once”, upon\u{200b} A\ttime!", 4, "once upon a time");
        check("\u{202e}\0 …", 4, "");
        check("Élan vital", 1, "élan");
        assert_eq!(opening(&"x".repeat(1_000_000), 4).len(), OPENING_BYTES_MAX);
        assert!(opening(&"İ".repeat(1_000), 4).len() <= OPENING_BYTES_MAX);
        assert_eq!(
            folded(json!({"share_max": 0.5, "after": 2}), &["", "", "", ""]),
            [None, None, None, None]
        );
    }

    #[test]
    fn configs_are_checked() {
        let check = |config: Value, problems: &[&str]| {
            let config = fixture::with(json!({"field": "t"}), config);
            let (found, _) = fixture::checked_config::<Openings>(config, &[("t", Type::Text)]);
            assert_eq!(found, problems);
        };
        check(json!({}), &[]);
        check(json!({"words": 0}), &["words: an opening has 1 to 50 words"]);
        check(json!({"share_max": 1.5}), &["share_max: the share lies between 0 and 1"]);
        let few = "after: after so few rows a single row is more than the share allows";
        check(json!({"share_max": 0.01, "after": 50}), &[few]);
    }

    #[test]
    fn an_opening_takes_what_the_documentation_says() {
        let mut seen = Seen { kept: 0, counts: HashMap::new(), share_max: 0.5, after: 0 };
        for number in 1..100_000u64 {
            seen.counts.insert(number, 1);
            let places = (seen.counts.capacity() * 8).div_ceil(7);
            let bytes = places * (size_of::<(u64, u64)>() + 1) / number as usize;
            assert!(number < 1_000 || (19..=39).contains(&bytes), "{bytes} bytes an opening after {number}");
        }
        seen.kept = 1;
    }
}
