//! `dedup_near`: keep the first of texts that are nearly the same.
//!
//! # What it does
//! Rejects a row `near_duplicate` if the text of an *earlier* row is similar to its own: if the two share
//! at least `similar_above` of their shingles (runs of 5 words by default; Jaccard similarity), compared
//! with all of both. The evidence names the earlier row and how similar it is: `{"duplicate_of": "17",
//! "similarity": 0.93}`. An earlier row counts also if it was itself rejected here.
//!
//! `unit` says what texts are compared by: `{ words: 5 }`, `{ characters: 24 }`, or `{ code_tokens: 7 }` for
//! programs: names, numbers, strings and signs, whatever the language; comments and white space do not count.
//!
//! Similar texts are found by MinHash keys in bands, so that not every pair is compared. `recall` says what
//! share of the pairs at `similar_above` must be found, and picks the bands: 17 of 7 hashes for 0.8 and
//! 0.98. `bands` and `rows` set them by hand instead. What the keys find is then compared for real, unless
//! `verify: false`.
//!
//! `keep: longest` keeps the longest of similar texts instead of the first, `keep: best` the one with the highest
//! number that the expression `by` gives; of equals the earlier one. The best row comes first, then the next best
//! that is not similar to it, and so on; `kept` in the evidence names the row that is kept, where that is another
//! than the similar one.
//!
//! `against` compares with data that is there already, too: `dataset: datasets/exercises` with all rows of a
//! dataset, `files: other/*.parquet` with any files, `field` says where the text is if it has another name there.
//! Of the dataset that the pipeline itself saves the epochs before the run's own count, numbers by their size,
//! instants by time; it need not be there yet. The evidence names the place: `{"dataset": "datasets/exercises",
//! "part": "data/0/part-00000.parquet", "row": 12, "duplicate_of": "17", "similarity": 0.93}`. What is there
//! already always wins.
//!
//! `self_test: 200` measures the recall on the run's own texts: of so many of them, spread over the run, copies are
//! made with words dropped, doubled and swapped until they are as similar as `similar_above` and more, and looked
//! for when all rows are through. They are no rows. How many were found at which similarity is in the manifest and
//! the dataset's card.
//!
//! # When to use it
//! On what models wrote, which is often alike without being the same, and on web text. Late enough that
//! what other steps reject does not take its memory; after `dedup_exact`, which is cheaper. For texts that say the
//! same in another order, shorter shingles find more: on 2 x 11,000 texts with shuffled sentences and words
//! (`schelling_point` of PyPI `evals`) `unit: { words: 3 }, similar_above: 0.6` finds 99.4 and 91.8 % of the pairs
//! and nothing else, the defaults 53.7 and 19.9 % (`benches/dedup/evals.sh`).
//!
//! # Example
//! ```yaml
//! - dedup_near:
//!     field: exercise.solution
//!     similar_above: 0.7
//!     unit: { code_tokens: 7 }
//!     against: [{ dataset: datasets/exercises }, { files: other/*.parquet, field: code }]
//!     self_test: 200
//! ```
//!
//! # Limits
//! Memory grows with the rows: with the default bands about 1,350 bytes for a text of 250 words (12 to 19
//! for each band, 4 for each band and each shingle), 300 with `verify: false`, for every row that is no
//! copy of an earlier one; 16 to 32 more where rows were split off. At the peak, while tables are copied to
//! grow, it is up to half as much again: 180,000 kept texts of 235 words took 1,850 bytes each, and 480 without
//! verification (peak memory of a run with the step less that of one without, `benches/dedup`). With `keep` other
//! than `first` it is about twice that, nothing goes on before the source is at its end, rows wait on disk, and
//! `until: { kept }` is not possible. Without verification a row is rejected
//! when it shares any key with an earlier one: at the default bands so do 12 % of the pairs at similarity
//! 0.5, and the evidence has no similarity. Of earlier rows that share one key only the first 1,000 are looked at
//! by that key, and of those that share less than half of a row's keys the first 1,000 in all; the report says for
//! how many rows that left some out. A text without words (without
//! characters, without code) is like no other; one shorter than a shingle is one shingle. What is no text is rejected
//! `type_mismatch`. `self_test` passes over texts of more than 64 KiB.
//!
//! What is compared with is kept in an index under `.textmill/indexes/`, 1,345 bytes on disk for a row of 235 words.
//! It grows by what is new when a run starts, and is made anew when it is lost; it may be removed at any time. A row
//! costs 13 us of CPU to look up beside 10,000 earlier rows and 38 beside 300,000, and 26 and 57 to add
//! (`benches/dedup/nights.sh`). Pages of the index that were read, up to 1 GiB of them, count as memory of the run,
//! but the system takes them back when it needs them. A row that is rejected for what is there already does not
//! count for later rows. A pipeline's own tests compare with no data but their own rows.

use std::cell::RefCell;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::kit::{Check, Kit};
use crate::ops::against::{self, Against, Saved};
use crate::ops::keep::{Keep, Score};
use crate::ops::row_ids::RowIds;
use crate::ops::text_field::TextField;
use crate::ops::{Belong, Decision, FoldKey, FoldRow, FoldState, GroupRow, Operator, Runner};
use crate::row::{FieldPath, Fields, Reason, Row, RowId};
use crate::store::Entry;
use crate::text::lsh::{DocKeys, KeyMaker, Match, NearIndex, Scratch, jaccard_from};
use crate::text::minhash::{self, Bands};
use crate::text::shingles::Shingles;

mod self_test;

use self_test::{Planted, SelfTest};

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
    /// What texts are made of: runs of words, `{ words: 5 }` (the default), of characters, such as
    /// `{ characters: 24 }`, or of the tokens of code, `{ code_tokens: 7 }`.
    #[serde(default)]
    pub unit: Shingles,
    /// Compare what the keys find for real. Without, less memory is taken and more is rejected.
    #[serde(default = "verify")]
    pub verify: bool,
    /// Which of similar texts is kept: the first by default.
    #[serde(default)]
    pub keep: Keep,
    /// What `keep: best` ranks by: an expression that gives a number, the highest first.
    pub by: Option<String>,
    /// Data that is there already, which always wins.
    #[serde(default)]
    pub against: Vec<Against>,
    /// Measure the recall on changed copies of so many rows, 10,000 at most.
    pub self_test: Option<u32>,
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
        self.keep.check(check, self.by.as_deref());
        against::check(check, &self.against, &[&self.field]);
        if self.self_test.is_some() && self.keep != Keep::First {
            check.problem("self_test", "`self_test` needs `keep: first`").hint =
                Some("which row is kept does not change what is found".to_owned());
        }
        if self.self_test.is_some_and(|rows| rows == 0 || rows > SELF_TEST_ROWS_MAX) {
            let message = format!("`self_test` must be 1 to {SELF_TEST_ROWS_MAX}");
            check.problem("self_test", message);
        }
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let bands = self.cut().map_err(|(_, message)| anyhow::anyhow!(message))?;
        let maker = KeyMaker::new(self.unit, bands, self.verify);
        let threshold = self.verify.then_some(self.similar_above);
        let entry = |one: &Against, fields: &Fields| {
            let there = FieldPath::parse(one.field.as_deref().unwrap_or(&self.field));
            let keys = SCRATCH.with_borrow_mut(|scratch| Some(maker.keys(there.text(fields)?, scratch)))?;
            let content = keys.shingles.iter().flat_map(|shingle| shingle.to_le_bytes()).collect();
            Some(Entry { keys: keys.bands, content })
        };
        let version = minhash::VERSION;
        let settings = json!([version, format!("{:?}", self.unit), bands.bands(), bands.rows(), self.verify]);
        let saved = Saved::open(&self.against, kit, "near", &settings, &[&self.field], &entry)?;
        let score = Score::build(self.keep, self.by.as_deref(), vec![FieldPath::parse(&self.field)], kit)?;
        let self_test = self.self_test.map(|rows| SelfTest::new(rows, self.similar_above, kit.seed));
        let near = Near { field: TextField::new(&self.field), maker, threshold, saved, score, self_test };
        Ok(vec![match self.keep {
            Keep::First => Runner::Fold(Box::new(near)),
            Keep::Longest | Keep::Best => Runner::Group(Box::new(near)),
        }])
    }

    fn needs_all_rows(&self) -> bool {
        self.keep != Keep::First
    }
}

/// Their copies take 20 MB or so.
const SELF_TEST_ROWS_MAX: u32 = 10_000;

struct Near {
    field: TextField,
    maker: KeyMaker,
    /// The least similarity, if it is verified.
    threshold: Option<f64>,
    saved: Option<Arc<Saved>>,
    score: Score,
    self_test: Option<SelfTest>,
}

thread_local! {
    /// Buffers for making keys; some KB a thread, kept for the next row.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Near {
    /// The keys of a row that is like nothing that is there already.
    fn keys(&self, row: &Row) -> Result<DocKeys, Reason> {
        let text = self.field.of(&row.fields)?;
        let keys = SCRATCH.with_borrow_mut(|scratch| self.maker.keys(text, scratch));
        match self.saved.as_ref().and_then(|saved| self.find(saved, &keys)) {
            Some(evidence) => Err(Reason::new("near_duplicate", evidence)),
            None => Ok(keys),
        }
    }

    fn find(&self, saved: &Saved, keys: &DocKeys) -> Option<Value> {
        let accept = |content: &[u8]| match self.threshold {
            None => Some(None),
            Some(threshold) => {
                let words = content.chunks_exact(4).filter_map(|word| <[u8; 4]>::try_from(word).ok());
                let there: Vec<u32> = words.map(u32::from_le_bytes).collect();
                jaccard_from(&keys.shingles, &there, threshold).map(Some)
            }
        };
        let (mut evidence, similarity) = saved.find(&keys.bands, accept)?;
        if let Some(similarity) = similarity {
            evidence["similarity"] = json!(similarity);
        }
        Some(evidence)
    }

    fn index(&self) -> NearIndex {
        NearIndex::new(self.maker.bands(), self.threshold)
    }
}

impl FoldRow for Near {
    /// The row's keys, then those of the copies that are looked for.
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        let keys = self.keys(row)?;
        let mut packed = pack(&keys);
        if let Some(self_test) = &self.self_test {
            let text = self.field.of(&row.fields)?;
            let copies =
                SCRATCH.with_borrow_mut(|scratch| self_test.copies(&row.id, text, &self.maker, scratch));
            for Planted { similarity, keys } in copies {
                packed.push(similarity.to_bits());
                packed.extend(pack(&keys));
            }
        }
        Ok(packed)
    }

    fn start(&self) -> Box<dyn FoldState> {
        let (index, ids) = (self.index(), RowIds::default());
        let (saved, self_test) = (self.saved.clone(), self.self_test.clone());
        Box::new(Seen { index, ids, saved, self_test })
    }
}

impl GroupRow for Near {
    fn belong(&self) -> Belong {
        Belong::All
    }

    /// What the row is ranked by, then its keys.
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        let mut key = vec![self.score.of(row)?];
        key.extend(pack(&self.keys(row)?));
        Ok(key)
    }

    fn decide(&self, rows: &[(RowId, FoldKey)]) -> Vec<Decision> {
        let mut places: Vec<usize> = (0..rows.len()).collect();
        // Stable: of equals the earlier row comes first.
        places.sort_by_key(|place| std::cmp::Reverse(rows[*place].1[0]));
        let mut index = self.index();
        let mut winners: Vec<usize> = (0..rows.len()).collect();
        let mut decisions = vec![Decision::Keep; rows.len()];
        for place in places {
            let Some((keys, _)) = unpack(&rows[place].1[1..]) else { continue };
            let Some(Match { earlier, similarity }) = index.insert(keys, place as u64) else { continue };
            let similar = usize::try_from(earlier).unwrap_or_default();
            winners[place] = winners[similar];
            let mut evidence = evidence(&rows[similar].0, similarity);
            if winners[place] != similar {
                evidence["kept"] = json!(rows[winners[place]].0.to_string());
            }
            decisions[place] = Decision::Reject(Reason::new("near_duplicate", evidence));
        }
        decisions
    }
}

fn evidence(similar: &RowId, similarity: Option<f64>) -> Value {
    let mut evidence = json!({"duplicate_of": similar.to_string()});
    if let Some(similarity) = similarity {
        evidence["similarity"] = json!(similarity);
    }
    evidence
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

/// The opposite of [`pack`], and what comes behind it; what is missing in a key that is too short is left out.
fn unpack(packed: &[u64]) -> Option<(DocKeys, &[u64])> {
    let (counts, rest) = packed.split_first()?;
    let (bands, rest) = rest.split_at(rest.len().min((counts >> 32) as usize));
    let count = *counts as u32 as usize;
    let (shingles, rest) = rest.split_at(rest.len().min(count.div_ceil(2)));
    // Without an iterator of iterators: this is the serial part.
    let mut halves = Vec::with_capacity(2 * shingles.len());
    for pair in shingles {
        halves.extend_from_slice(&[*pair as u32, (pair >> 32) as u32]);
    }
    halves.truncate(count);
    Some((DocKeys { bands: bands.to_vec(), shingles: halves.into() }, rest))
}

/// Every text so far. The index names rows by what [`RowIds`] calls them.
struct Seen {
    index: NearIndex,
    ids: RowIds,
    saved: Option<Arc<Saved>>,
    self_test: Option<SelfTest>,
}

impl FoldState for Seen {
    fn decide(&mut self, row: &RowId, key: FoldKey) -> Decision {
        let Some((keys, mut copies)) = unpack(&key) else { return Decision::Keep };
        let found = self.index.insert(keys, self.ids.put(row));
        if let Some(self_test) = &mut self.self_test {
            let mut planted = Vec::new();
            while let Some((similarity, rest)) = copies.split_first()
                && let Some((keys, rest)) = unpack(rest)
            {
                planted.push(Planted { similarity: f64::from_bits(*similarity), keys });
                copies = rest;
            }
            self_test.plant(row, planted);
        }
        match found {
            None => Decision::Keep,
            Some(Match { earlier, similarity }) => {
                let evidence = evidence(&self.ids.get(earlier), similarity);
                Decision::Reject(Reason::new("near_duplicate", evidence))
            }
        }
    }

    fn report(&self) -> Option<Value> {
        let mut report = Map::new();
        if let Some(self_test) = &self.self_test {
            report.insert("self_test".to_owned(), self_test.report(&self.index));
        }
        if let Some(saved) = &self.saved {
            report.insert("compared_with".to_owned(), saved.report());
        }
        if self.index.cut_short() > 0 {
            report.insert("rows_compared_with_a_part".to_owned(), json!(self.index.cut_short()));
        }
        (!report.is_empty()).then_some(Value::Object(report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture;
    use crate::row::Type;

    #[test]
    fn keys_survive_packing() {
        let check = |bands: &[u64], shingles: &[u32], length: usize| {
            let keys = DocKeys { bands: bands.to_vec(), shingles: shingles.into() };
            let mut packed = pack(&keys);
            assert_eq!(packed.len(), length);
            assert_eq!(unpack(&packed), Some((keys.clone(), &[][..])));
            packed.push(9);
            assert_eq!(unpack(&packed), Some((keys, &[9][..])));
        };
        check(&[], &[], 1);
        check(&[u64::MAX, 0], &[], 3);
        check(&[7], &[1, 2], 3);
        check(&[7, 8], &[1, u32::MAX, 0], 5);
        assert_eq!(unpack(&[]), None);
        let short = DocKeys { bands: vec![5], shingles: Box::default() };
        assert_eq!(unpack(&[(9 << 32) | 9, 5]), Some((short, &[][..])));
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
    fn the_best_of_each_neighbourhood_wins_where_it_is_asked_for() {
        // 1 is similar to 0 and 2, which are not similar to each other.
        let rows = [
            ("0", json!({"text": "a b c d e f g h", "n": 2, "m": 3})),
            ("1", json!({"text": "a b c d e f g h i j", "n": 1, "m": 2})),
            ("2", json!({"text": "c d e f g h i j k", "n": 3, "m": 1})),
            ("3", json!({"text": "v w x y z", "n": 0, "m": 0})),
        ];
        let check = |more: Value, expected: [Option<Value>; 4]| {
            let folder = tempfile::tempdir().unwrap();
            let config =
                json!({"field": "text", "unit": {"words": 1}, "bands": 64, "rows": 1, "similar_above": 0.7});
            let built =
                fixture::built::<DedupNear>(fixture::with(config, more), &fixture::kit(folder.path()));
            let Runner::Group(group) = built else { panic!("it is a group") };
            let reject = |evidence: Value| json!({"code": "near_duplicate", "evidence": evidence});
            assert_eq!(fixture::grouped(&*group, &rows), expected.map(|end| end.map(reject)));
        };
        let of = |of: &str, similarity: f64| Some(json!({"duplicate_of": of, "similarity": similarity}));
        check(json!({"keep": "longest"}), [of("1", 0.8), None, of("1", 8.0 / 11.0), None]);
        check(json!({"keep": "best", "by": "n"}), [None, of("2", 8.0 / 11.0), None, None]);
        let chained = Some(json!({"duplicate_of": "1", "similarity": 8.0 / 11.0, "kept": "0"}));
        check(json!({"keep": "best", "by": "m"}), [None, of("0", 0.8), chained, None]);
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
        check_config(
            json!({"field": "text", "keep": "best", "by": "n", "against": [{"dataset": "out"}]}),
            &[],
        );
        check_config(
            json!({"field": "text", "keep": "longest", "by": "n", "self_test": 0}),
            &[
                "by: `by` needs `keep: best`",
                "self_test: `self_test` needs `keep: first`",
                "self_test: `self_test` must be 1 to 10000",
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
