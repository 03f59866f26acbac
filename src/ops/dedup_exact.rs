//! `dedup_exact`: keep the first of rows that say the same.
//!
//! # What it does
//! Compares one field or several, and rejects a row `duplicate` if an earlier row has the same values
//! there; the evidence names that row: `{"duplicate_of": "17"}`. Texts are compared without the differences
//! that `normalize` says do not count: by default how characters are encoded (NFKC) and white space.
//!
//! With `unit: paragraphs` or `unit: lines` the pieces of a text are compared: those that an earlier row had, or
//! an earlier place of the same row, are cut out of it. Pieces of fewer than `min_words` words (5 by default) or
//! `min_characters` stay. `into` names a column for how many were cut out. A row of which nothing is left is
//! rejected `duplicate`: `{"unit": "lines", "cut": 7, "duplicate_of": "17"}` names the row that had the first of
//! them.
//!
//! `keep: longest` keeps the longest of rows that are the same instead of the first, `keep: best` the one with the
//! highest number that the expression `by` gives; of equals the earlier one.
//!
//! `against` compares with data that is there already, too: `dataset: datasets/exercises` with all rows of a
//! dataset, `files: other/*.parquet` with any files, `field` says where the text is if it has another name there.
//! Of the dataset that the pipeline itself saves the epochs before the run's own count; it need not be there yet.
//! The evidence names the place: `{"dataset": "datasets/exercises", "part": "data/0/part-00000.parquet", "row": 12,
//! "duplicate_of": "17"}`. What is there already always wins.
//!
//! # When to use it
//! Early, since it is nearly free: before teachers are asked about the same prompt twice, and after steps
//! that tend to repeat themselves. For texts that are only alike, follow with `dedup_near`. `unit: lines` takes
//! boilerplate out of web pages: menus, notices, signatures.
//!
//! # Example
//! ```yaml
//! - dedup_exact:
//!     fields: [topic, question]
//!     normalize: { lowercase: true, strip_punctuation: true }
//! ```
//!
//! # Limits
//! Values that are no texts are compared as JSON: `1` and `1.0` differ, and texts inside lists and objects
//! are not normalised. A missing value is the same as null, and null equals null; a `when:` lets such rows
//! pass untouched. Memory: 29 to 57 bytes for each kept row (for each piece that counts), and 16 to 32 more where
//! rows were split off (`generate` with `samples`, `chunk`). With `keep` other than `first` nothing goes on before
//! the source is at its end, so `until: { kept }` is not possible; rows wait on disk, and each takes about 150 bytes
//! of memory. Rows are told apart by 128-bit digests, of which two among 10^9
//! meet by chance once in 10^21 runs; someone who writes the texts could make two of them meet.
//!
//! What is compared with is kept in an index under `.textmill/indexes/`, about 60 bytes a row on disk, which grows
//! by what is new and is made anew when it is lost; it may be removed at any time. A pipeline's own tests compare
//! with no data but their own rows.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kit::{Check, Kit};
use crate::ops::against::{self, Against, Saved};
use crate::ops::keep::{Keep, Score};
use crate::ops::row_ids::RowIds;
use crate::ops::values::Values;
use crate::ops::{Belong, Decision, FoldKey, FoldRow, FoldState, GroupRow, Operator, Runner};
use crate::row::{FieldPath, Fields, Reason, Row, RowId, Type};
use crate::store::Entry;
use crate::text::normalize::Normalization;
use crate::text::pieces;

mod cut;

/// Keep the first of rows that say the same.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "dedup_exact", deny_unknown_fields)]
pub struct DedupExact {
    /// The field to compare, or a key inside one: `exercise.solution`.
    pub field: Option<String>,
    /// Several fields, which must all be the same.
    pub fields: Option<Vec<String>>,
    /// Which differences between texts do not count.
    #[serde(default)]
    pub normalize: Normalization,
    /// What is compared: rows by default, or the paragraphs or lines inside them.
    #[serde(default)]
    pub unit: Unit,
    /// Pieces of fewer words stay: 5 by default.
    pub min_words: Option<u32>,
    /// Pieces of fewer characters stay.
    pub min_characters: Option<u32>,
    /// A field that takes how many pieces were cut out.
    pub into: Option<String>,
    /// Which of the same rows is kept: the first by default.
    #[serde(default)]
    pub keep: Keep,
    /// What `keep: best` ranks by: an expression that gives a number, the highest first.
    pub by: Option<String>,
    /// Data that is there already, which always wins.
    #[serde(default)]
    pub against: Vec<Against>,
}

/// What `dedup_exact` compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    #[default]
    Row,
    /// What stands between blank lines.
    Paragraphs,
    Lines,
}

impl Unit {
    fn of_pieces(self) -> Option<pieces::Unit> {
        match self {
            Unit::Row => None,
            Unit::Paragraphs => Some(pieces::Unit::Paragraphs),
            Unit::Lines => Some(pieces::Unit::Lines),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Unit::Row => "row",
            Unit::Paragraphs => "paragraphs",
            Unit::Lines => "lines",
        }
    }
}

impl DedupExact {
    /// The paths to compare, each with its place in the config.
    fn paths(&self) -> Vec<(String, &str)> {
        let one = self.field.iter().map(|path| ("field".to_owned(), path.as_str()));
        let more = self.fields.iter().flatten().enumerate();
        one.chain(more.map(|(index, path)| (format!("fields.{index}"), path.as_str()))).collect()
    }

    fn check_pieces(&self, check: &mut Check<'_>) {
        if self.unit == Unit::Row {
            let given = [
                ("min_words", self.min_words.is_some()),
                ("min_characters", self.min_characters.is_some()),
                ("into", self.into.is_some()),
            ];
            for (key, _) in given.iter().filter(|(_, given)| *given) {
                check.problem(key, format!("`{key}` needs `unit: paragraphs` or `unit: lines`"));
            }
            return;
        }
        if self.fields.is_some() {
            check.problem("fields", "the pieces of one text are compared: give `field:`");
        }
        if self.keep != Keep::First {
            check.problem("keep", "of pieces always the first is kept");
        }
        if let Some(field) = &self.field
            && let Some(kind) = check.type_at(field)
            && !matches!(kind, Type::Text | Type::Json)
        {
            check.problem("field", format!("`{field}` is {kind}, not text"));
        }
        if let Some(into) = &self.into {
            check.makes("into", into, Type::Integer);
        }
    }

    /// All that the entries of a saved index depend on.
    fn settings(&self) -> Value {
        json!([format!("{:?}", self.normalize), format!("{:?}", self.unit), self.least()])
    }

    /// Words and characters of a piece that counts.
    fn least(&self) -> [usize; 2] {
        let number = |number: Option<u32>, default: u32| number.unwrap_or(default) as usize;
        [number(self.min_words, 5), number(self.min_characters, 0)]
    }
}

impl Operator for DedupExact {
    fn check(&self, check: &mut Check<'_>) {
        match (&self.field, &self.fields) {
            (Some(_), Some(_)) => {
                check.problem("fields", "`field` and `fields` exclude each other");
            }
            (None, None) => {
                check.problem("", "nothing says what to compare").hint =
                    Some("give `field:`, or `fields:` as a list".to_owned());
            }
            (None, Some(fields)) if fields.is_empty() => {
                check.problem("fields", "the list of fields is empty");
            }
            _ => {}
        }
        Values::check(check, self.paths());
        self.keep.check(check, self.by.as_deref());
        self.check_pieces(check);
        let paths: Vec<&str> = self.paths().into_iter().map(|(_, path)| path).collect();
        against::check(check, &self.against, &paths);
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let paths: Vec<&str> = self.paths().into_iter().map(|(_, path)| path).collect();
        if let (Some(unit), Some(path)) = (self.unit.of_pieces(), paths.first()) {
            return cut::build(self, kit, unit, path);
        }
        let normalize = self.normalize;
        let values = Values::new(paths.iter().copied());
        let entry = |one: &Against, fields: &Fields| {
            let there = one.field.as_deref().map(|field| Values::new([field]));
            let [key, content] = digest(there.as_ref().unwrap_or(&values), &normalize, fields);
            Some(Entry { keys: vec![key], content: content.to_le_bytes().to_vec() })
        };
        let saved = Saved::open(&self.against, kit, "exact", &self.settings(), &paths, &entry)?;
        let texts = paths.iter().map(|path| FieldPath::parse(path)).collect();
        let score = Score::build(self.keep, self.by.as_deref(), texts, kit)?;
        let exact = Exact { values, normalize, saved, score };
        Ok(vec![match self.keep {
            Keep::First => Runner::Fold(Box::new(exact)),
            Keep::Longest | Keep::Best => Runner::Group(Box::new(exact)),
        }])
    }

    fn needs_all_rows(&self) -> bool {
        self.keep != Keep::First
    }
}

fn digest(values: &Values, normalize: &Normalization, fields: &Fields) -> [u64; 2] {
    values.digest(fields, |value| match value {
        Value::String(text) => Value::from(normalize.apply(text)),
        other => other.clone(),
    })
}

/// Which digest a row of a saved index has beside its key.
fn is_same(content: &[u8], other: u64) -> Option<()> {
    (content == other.to_le_bytes()).then_some(())
}

struct Exact {
    values: Values,
    normalize: Normalization,
    saved: Option<Arc<Saved>>,
    score: Score,
}

impl Exact {
    fn digest(&self, row: &Row) -> Result<[u64; 2], Reason> {
        let digest = digest(&self.values, &self.normalize, &row.fields);
        let [key, other] = digest;
        let found =
            self.saved.as_ref().and_then(|saved| saved.find(&[key], |content| is_same(content, other)));
        match found {
            Some((evidence, ())) => Err(Reason::new("duplicate", evidence)),
            None => Ok(digest),
        }
    }
}

impl FoldRow for Exact {
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        Ok(self.digest(row)?.to_vec())
    }

    fn start(&self) -> Box<dyn FoldState> {
        Box::new(Seen { saved: self.saved.clone(), ..Seen::default() })
    }
}

/// The first row of every digest. An entry takes 24 bytes and one of the table's own; the table has a
/// power of two of places, of which at most 7 in 8 are taken: 25 * 8/7 to 25 * 16/7 bytes a row.
#[derive(Default)]
struct Seen {
    first: HashMap<[u64; 2], u64>,
    ids: RowIds,
    saved: Option<Arc<Saved>>,
}

impl Seen {
    /// The row that had the digest before; it is the first one's otherwise.
    fn earlier(&mut self, digest: [u64; 2], row: &RowId) -> Option<String> {
        match self.first.entry(digest) {
            Place::Vacant(place) => {
                place.insert(self.ids.put(row));
                None
            }
            Place::Occupied(earlier) => Some(self.ids.get(*earlier.get()).to_string()),
        }
    }
}

impl FoldState for Seen {
    fn decide(&mut self, row: &RowId, key: FoldKey) -> Decision {
        let Ok(digest) = <[u64; 2]>::try_from(key) else { return Decision::Keep };
        match self.earlier(digest, row) {
            None => Decision::Keep,
            Some(earlier) => Decision::Reject(Reason::new("duplicate", json!({"duplicate_of": earlier}))),
        }
    }

    fn report(&self) -> Option<Value> {
        self.saved.as_ref().map(|saved| json!({"compared_with": saved.report()}))
    }
}

impl GroupRow for Exact {
    fn belong(&self) -> Belong {
        Belong::All
    }

    /// What the row is ranked by, then its digest.
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        let [high, low] = self.digest(row)?;
        Ok(vec![self.score.of(row)?, high, low])
    }

    fn decide(&self, rows: &[(RowId, FoldKey)]) -> Vec<Decision> {
        let mut best: HashMap<&[u64], usize> = HashMap::new();
        for (place, (_, key)) in rows.iter().enumerate() {
            let holder = best.entry(&key[1..]).or_insert(place);
            if key[0] > rows[*holder].1[0] {
                *holder = place;
            }
        }
        let decide = |(place, (_, key)): (usize, &(RowId, FoldKey))| match best.get(&key[1..]) {
            Some(holder) if *holder != place => {
                let kept = rows[*holder].0.to_string();
                Decision::Reject(Reason::new("duplicate", json!({"duplicate_of": kept})))
            }
            _ => Decision::Keep,
        };
        rows.iter().enumerate().map(decide).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture;
    use crate::row::Type;

    /// Passes values of the fields `a` and `b` through; for each row, which one it repeats.
    fn check(config: Value, rows: &[(&str, Value)], expected: &[Option<&str>]) {
        let folder = tempfile::tempdir().unwrap();
        let Runner::Fold(fold) = fixture::built::<DedupExact>(config, &fixture::kit(folder.path())) else {
            panic!("it is a fold");
        };
        let rows: Vec<Row> = rows.iter().map(|(id, fields)| fixture::row(id, fields)).collect();
        let repeats = |earlier: &str| json!({"code": "duplicate", "evidence": {"duplicate_of": earlier}});
        let expected: Vec<Option<Value>> = expected.iter().map(|earlier| earlier.map(repeats)).collect();
        assert_eq!(fixture::folded(&*fold, &rows), expected);
    }

    #[test]
    fn the_first_wins() {
        check(
            json!({"field": "a"}),
            &[
                ("3", json!({"a": "one  two"})),
                ("4.1", json!({"a": "x"})),
                ("4.2", json!({"a": " one two"})),
                ("5", json!({"a": "One two"})),
                ("6", json!({"a": "x", "b": 1})),
                ("7", json!({"a": "one\ntwo"})),
            ],
            &[None, None, Some("3"), None, Some("4.1"), Some("3")],
        );
        let normalize = json!({"field": "a", "normalize": {"lowercase": true}});
        check(normalize, &[("0", json!({"a": "A"})), ("1", json!({"a": "a"}))], &[None, Some("0")]);
    }

    #[test]
    fn all_fields_must_be_the_same() {
        check(
            json!({"fields": ["a", "b.c"]}),
            &[
                ("0", json!({"a": "x", "b": {"c": [1, {"p": 1, "q": 2}]}})),
                ("1", json!({"a": "x", "b": {"c": [1, {"q": 2, "p": 1}]}})),
                ("2", json!({"a": "x", "b": {"c": 1}})),
                ("3", json!({"a": "x"})),
                ("4", json!({"a": "x", "b": {"c": null}})),
                ("5", json!({"a": "x\",1", "b": {}})),
                ("6", json!({"a": "1"})),
                ("7", json!({"a": 1})),
            ],
            &[None, Some("0"), None, None, Some("3"), None, None, None],
        );
    }

    fn check_config(config: Value, problems: &[&str]) {
        let (found, _) =
            fixture::checked_config::<DedupExact>(config, &[("a", Type::Text), ("b", Type::Integer)]);
        assert_eq!(found, problems);
    }

    #[test]
    fn configs_are_checked() {
        check_config(json!({"fields": ["a", "b"]}), &[]);
        check_config(json!({}), &[": nothing says what to compare"]);
        check_config(json!({"fields": []}), &["fields: the list of fields is empty"]);
        check_config(
            json!({"field": "c", "fields": ["a", "b.c", "a"]}),
            &[
                "fields: `field` and `fields` exclude each other",
                "fields[1]: `b` is integer; it has no key `c`",
                "fields[2]: `a` is listed twice",
                "field: no field `c`",
            ],
        );
        check_config(json!({"field": "a", "unit": "lines", "into": "cut", "min_words": 0}), &[]);
        check_config(
            json!({"fields": ["a"], "unit": "lines", "keep": "longest"}),
            &[
                "fields: the pieces of one text are compared: give `field:`",
                "keep: of pieces always the first is kept",
            ],
        );
        check_config(json!({"field": "b", "unit": "lines"}), &["field: `b` is integer, not text"]);
        check_config(
            json!({"field": "a", "min_words": 3, "keep": "best"}),
            &[
                "by: `keep: best` needs `by:`, an expression that gives a number",
                "min_words: `min_words` needs `unit: paragraphs` or `unit: lines`",
            ],
        );
        check_config(
            json!({"field": "a", "against": [{"dataset": "out"}, {"dataset": "other"}, {"files": "x/*.jsonl"}, {}]}),
            &[
                "against[1].dataset: there is no dataset `other`",
                "against[2].files: nowhere/x/*.jsonl: no file fits this pattern",
                "against[3]: name what to compare with: either `dataset` or `files`",
            ],
        );
    }

    #[test]
    fn the_longest_or_the_best_wins_where_it_is_asked_for() {
        let rows = [
            ("0", json!({"a": "x y", "n": 1})),
            ("1", json!({"a": "x  y", "n": 3})),
            ("2", json!({"a": "z", "n": 1})),
            ("3", json!({"a": "x y", "n": 3})),
        ];
        let check = |more: Value, expected: [Option<&str>; 4]| {
            let folder = tempfile::tempdir().unwrap();
            let config = fixture::with(json!({"field": "a"}), more);
            let Runner::Group(group) = fixture::built::<DedupExact>(config, &fixture::kit(folder.path()))
            else {
                panic!("it is a group");
            };
            let repeats = |of: &str| json!({"code": "duplicate", "evidence": {"duplicate_of": of}});
            assert_eq!(fixture::grouped(&*group, &rows), expected.map(|of| of.map(repeats)));
        };
        check(json!({"keep": "longest"}), [Some("1"), None, None, Some("1")]);
        check(json!({"keep": "best", "by": "n"}), [Some("1"), None, None, Some("1")]);
        check(json!({"keep": "best", "by": "-n"}), [None, Some("0"), None, Some("0")]);
    }

    #[test]
    fn a_row_takes_what_the_documentation_says() {
        let mut seen = Seen::default();
        for ordinal in 0..100_000 {
            let decision = seen.decide(&RowId::root(ordinal), vec![ordinal, !ordinal]);
            assert_eq!(decision, Decision::Keep);
            let places = (seen.first.capacity() * 8).div_ceil(7);
            let row = places * (size_of::<([u64; 2], u64)>() + 1) / (ordinal as usize + 1);
            assert!(ordinal < 1_000 || (28..=57).contains(&row), "{row} bytes a row after {ordinal}");
        }
    }
}
