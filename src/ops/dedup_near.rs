//! `dedup_near`: keep the first of texts that are nearly the same.
//!
//! # What it does
//! Rejects a row `near_duplicate` if the text of an *earlier* row is similar to its own: if the two share
//! at least `similar_above` of their shingles (runs of 5 words by default; Jaccard similarity), compared
//! with all of both. The evidence names the earlier row and how similar it is: `{"duplicate_of": "17",
//! "similarity": 0.93}`. An earlier row counts also if it was itself rejected here.
//!
//! Similar texts are found by MinHash keys in bands, so that not every pair is compared. `recall` says what
//! share of the pairs at `similar_above` must be found, and picks the bands: 17 of 7 hashes for 0.8 and
//! 0.98. `bands` and `rows` set them by hand instead. What the keys find is then compared for real, unless
//! `verify: false`.
//!
//! # When to use it
//! On what models wrote, which is often alike without being the same, and on web text. Late enough that
//! what other steps reject does not take its memory; after `dedup_exact`, which is cheaper.
//!
//! # Example
//! ```yaml
//! - dedup_near:
//!     field: exercise.solution
//!     similar_above: 0.7
//!     unit: { characters: 24 }
//! ```
//!
//! # Limits
//! Memory grows with the rows: with the default bands about 1,350 bytes for a text of 250 words (12 to 19
//! for each band, 4 for each band and each shingle), 300 with `verify: false`, for every row that is no
//! copy of an earlier one; 16 to 32 more where rows were split off. At the peak, while tables are copied to
//! grow, it is up to half as much again: 180,000 kept texts of 235 words took 1,850 bytes each, and 480 without
//! verification (peak memory of a run with the step less that of one without, `benches/dedup`). Without verification a row is rejected
//! when it shares any key with an earlier one: at the default bands so do 12 % of the pairs at similarity
//! 0.5, and the evidence has no similarity. Where more than 1,000 earlier rows share a key with a row, only
//! the first 1,000 and those that share half of its keys are compared. A text without words (without
//! characters) is like no other; one shorter than a shingle is one shingle. What is no text is rejected
//! `type_mismatch`.

use std::cell::RefCell;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::kit::{Check, Kit};
use crate::ops::row_ids::RowIds;
use crate::ops::text_field::TextField;
use crate::ops::{Decision, FoldKey, FoldRow, FoldState, Operator, Runner};
use crate::row::{Reason, Row, RowId};
use crate::text::lsh::{DocKeys, KeyMaker, Match, NearIndex, Scratch};
use crate::text::minhash::Bands;
use crate::text::shingles::Shingles;

/// Keep the first of texts that are nearly the same.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "dedup_near", deny_unknown_fields)]
pub struct DedupNear {
    /// The field that holds the text, or a key inside one: `exercise.solution`.
    pub field: String,
    /// The least Jaccard similarity of near duplicates, above 0 and at most 1: 0.8 by default.
    #[serde(default = "similar_above")]
    pub similar_above: f64,
    /// The share of the pairs at `similar_above` that is found, below 1: 0.98 by default. More takes more
    /// memory and time.
    pub recall: Option<f64>,
    /// Bands of hashes, instead of `recall`: each more finds more pairs.
    pub bands: Option<u32>,
    /// Hashes of a band, with `bands`: each more finds fewer unlike pairs.
    pub rows: Option<u32>,
    /// What texts are made of: runs of words, `{ words: 5 }` (the default), or of characters, such as
    /// `{ characters: 24 }`.
    #[serde(default)]
    pub unit: Shingles,
    /// Compare what the keys find for real. Without, less memory is taken and more is rejected.
    #[serde(default = "verify")]
    pub verify: bool,
}

fn similar_above() -> f64 {
    0.8
}

fn verify() -> bool {
    true
}

const RECALL: f64 = 0.98;

impl DedupNear {
    /// The bands, or the key of the config that is wrong and what is wrong with it.
    fn cut(&self) -> Result<Bands, (&'static str, String)> {
        if !(self.similar_above > 0.0 && self.similar_above <= 1.0) {
            return Err(("similar_above", "`similar_above` must be above 0 and at most 1".to_owned()));
        }
        match (self.bands, self.rows) {
            (Some(bands), Some(rows)) if self.recall.is_none() => {
                Bands::new(bands, rows).map_err(|message| ("bands", message))
            }
            (None, None) => Bands::for_target(self.similar_above, self.recall.unwrap_or(RECALL))
                .map_err(|message| ("recall", message)),
            _ if self.recall.is_some() => {
                Err(("recall", "`recall` and `bands` with `rows` exclude each other".to_owned()))
            }
            (Some(_), _) => Err(("bands", "`bands` needs `rows`".to_owned())),
            (None, _) => Err(("rows", "`rows` needs `bands`".to_owned())),
        }
    }
}

impl Operator for DedupNear {
    fn check(&self, check: &mut Check<'_>) {
        TextField::check(check, "field", &self.field);
        if let Err((key, message)) = self.cut() {
            check.problem(key, message);
        }
    }

    fn build(&self, _: &Kit) -> anyhow::Result<Vec<Runner>> {
        let bands = self.cut().map_err(|(_, message)| anyhow::anyhow!(message))?;
        let near = Near {
            field: TextField::new(&self.field),
            maker: KeyMaker::new(self.unit, bands, self.verify),
            bands,
            threshold: self.verify.then_some(self.similar_above),
        };
        Ok(vec![Runner::Fold(Box::new(near))])
    }
}

struct Near {
    field: TextField,
    maker: KeyMaker,
    bands: Bands,
    /// The least similarity, if it is verified.
    threshold: Option<f64>,
}

thread_local! {
    /// Buffers for making keys; some KB a thread, kept for the next row.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl FoldRow for Near {
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        let text = self.field.of(&row.fields)?;
        Ok(SCRATCH.with_borrow_mut(|scratch| pack(&self.maker.keys(text, scratch))))
    }

    fn start(&self) -> Box<dyn FoldState> {
        Box::new(Seen { index: NearIndex::new(self.bands, self.threshold), ids: RowIds::default() })
    }
}

/// Keys as a fold passes them on: how many band keys (upper half) and shingles (lower half) there are, the
/// band keys, the shingles two by two, the first of them in the lower half.
fn pack(keys: &DocKeys) -> FoldKey {
    let mut packed = Vec::with_capacity(1 + keys.bands.len() + keys.shingles.len().div_ceil(2));
    packed.push(((keys.bands.len() as u64) << 32) | keys.shingles.len() as u64);
    packed.extend(&keys.bands);
    let pair = |pair: &[u32]| {
        let half = |index| u64::from(pair.get(index).copied().unwrap_or(0));
        half(0) | (half(1) << 32)
    };
    packed.extend(keys.shingles.chunks(2).map(pair));
    packed
}

/// The opposite of [`pack`]; what is missing in a key that is too short is left out.
fn unpack(packed: &[u64]) -> DocKeys {
    let Some((counts, rest)) = packed.split_first() else { return DocKeys::default() };
    let (bands, shingles) = rest.split_at(rest.len().min((counts >> 32) as usize));
    let halves = shingles.iter().flat_map(|pair| [*pair as u32, (pair >> 32) as u32]);
    DocKeys { bands: bands.to_vec(), shingles: halves.take(*counts as u32 as usize).collect() }
}

/// Every text so far. The index names rows by what [`RowIds`] calls them.
struct Seen {
    index: NearIndex,
    ids: RowIds,
}

impl FoldState for Seen {
    fn decide(&mut self, row: &RowId, key: FoldKey) -> Decision {
        match self.index.insert(unpack(&key), self.ids.put(row)) {
            None => Decision::Keep,
            Some(Match { earlier, similarity }) => {
                let mut evidence = json!({"duplicate_of": self.ids.get(earlier).to_string()});
                if let Some(similarity) = similarity {
                    evidence["similarity"] = json!(similarity);
                }
                Decision::Reject(Reason::new("near_duplicate", evidence))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture;
    use crate::row::{Type, Value};

    #[test]
    fn keys_survive_packing() {
        let check = |bands: &[u64], shingles: &[u32], length: usize| {
            let keys = DocKeys { bands: bands.to_vec(), shingles: shingles.into() };
            let packed = pack(&keys);
            assert_eq!((packed.len(), unpack(&packed)), (length, keys));
        };
        check(&[], &[], 1);
        check(&[u64::MAX, 0], &[], 3);
        check(&[7], &[1, 2], 3);
        check(&[7, 8], &[1, u32::MAX, 0], 5);
        assert_eq!(unpack(&[]), DocKeys::default());
        assert_eq!(unpack(&[(9 << 32) | 9, 5]), DocKeys { bands: vec![5], shingles: Box::default() });
    }

    #[track_caller]
    fn check(more: Value, rows: &[(&str, &str)], expected: &[Option<Value>]) {
        let config = fixture::with(json!({"field": "text", "unit": {"words": 1}}), more);
        let folder = tempfile::tempdir().unwrap();
        let Runner::Fold(fold) = fixture::built::<DedupNear>(config, &fixture::kit(folder.path())) else {
            panic!("it is a fold");
        };
        let rows: Vec<Row> = rows.iter().map(|(id, text)| fixture::row(id, &json!({"text": text}))).collect();
        let reject = |evidence: &Value| json!({"code": "near_duplicate", "evidence": evidence});
        let expected: Vec<Option<Value>> = expected.iter().map(|end| end.as_ref().map(reject)).collect();
        assert_eq!(fixture::folded(&*fold, &rows), expected);
    }

    #[test]
    fn the_first_of_similar_texts_wins() {
        let rows = [
            ("3", "a b c d e f g h i j"),
            ("4.1", "k l m n o p q r s t"),
            ("4.2", "A, b c d e f g h i; x!"),
            ("5", "K L M N O P Q R S T"),
            ("6", "..."),
            ("7", "..."),
            ("8", "a b c d e u v w x y"),
        ];
        let similar = json!({"duplicate_of": "3", "similarity": 9.0 / 11.0});
        let same = json!({"duplicate_of": "4.1", "similarity": 1.0});
        let expected = [None, None, Some(similar), Some(same), None, None, None];
        check(json!({}), &rows, &expected);
        check(json!({"similar_above": 1, "bands": 2, "rows": 40}), &rows[..3], &[None, None, None]);
        let unverified = json!({"duplicate_of": "3"});
        check(json!({"verify": false, "bands": 64, "rows": 1}), &rows[..3], &[None, None, Some(unverified)]);
        check(json!({"unit": {"characters": 24}}), &rows[..2], &[None, None]);
    }

    #[test]
    fn what_is_no_text_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({"field": "text"});
        let Runner::Fold(fold) = fixture::built::<DedupNear>(config, &fixture::kit(folder.path())) else {
            panic!("it is a fold");
        };
        let reason = fold.key(&fixture::row("0", &json!({"text": 3}))).unwrap_err();
        assert_eq!(reason.code, "type_mismatch");
    }

    fn check_config(config: Value, problems: &[&str]) {
        let (found, _) =
            fixture::checked_config::<DedupNear>(config, &[("text", Type::Text), ("n", Type::Integer)]);
        assert_eq!(found, problems);
    }

    #[test]
    fn configs_are_checked() {
        check_config(json!({"field": "text"}), &[]);
        check_config(json!({"field": "text", "bands": 17, "rows": 7, "similar_above": 1}), &[]);
        check_config(
            json!({"field": "n", "similar_above": 0}),
            &[
                "field: `n` is integer, not text",
                "similar_above: `similar_above` must be above 0 and at most 1",
            ],
        );
        check_config(json!({"field": "text", "bands": 17}), &["bands: `bands` needs `rows`"]);
        check_config(json!({"field": "text", "rows": 7}), &["rows: `rows` needs `bands`"]);
        check_config(
            json!({"field": "text", "bands": 1000, "rows": 20}),
            &["bands: 1000 bands of 20 rows make 20000 hashes; there must be 1 to 10000"],
        );
        check_config(
            json!({"field": "text", "bands": 17, "rows": 7, "recall": 0.9}),
            &["recall: `recall` and `bands` with `rows` exclude each other"],
        );
        check_config(
            json!({"field": "text", "recall": 1}),
            &["recall: the recall is 1; it must be above 0 and below 1, such as 0.98"],
        );
    }
}
