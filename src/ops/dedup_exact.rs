//! `dedup_exact`: keep the first of rows that say the same.
//!
//! # What it does
//! Compares one field or several, and rejects a row `duplicate` if an earlier row has the same values
//! there; the evidence names that row: `{"duplicate_of": "17"}`. Texts are compared without the differences
//! that `normalize` says do not count: by default how characters are encoded (NFKC) and white space.
//!
//! # When to use it
//! Early, since it is nearly free: before teachers are asked about the same prompt twice, and after steps
//! that tend to repeat themselves. For texts that are only alike, follow with `dedup_near`.
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
//! pass untouched. Memory: 29 to 57 bytes for each kept row, and 16 to 32 more where rows were split off
//! (`generate` with `samples`, `chunk`). Rows are told apart by 128-bit digests, of which two among 10^9
//! meet by chance once in 10^21 runs; someone who writes the texts could make two of them meet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kit::{Check, Kit};
use crate::ops::row_ids::RowIds;
use crate::ops::values::Values;
use crate::ops::{Decision, FoldKey, FoldRow, FoldState, Operator, Runner};
use crate::row::{Reason, Row, RowId};
use crate::text::normalize::Normalization;

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
}

impl DedupExact {
    /// The paths to compare, each with its place in the config.
    fn paths(&self) -> Vec<(String, &str)> {
        let one = self.field.iter().map(|path| ("field".to_owned(), path.as_str()));
        let more = self.fields.iter().flatten().enumerate();
        one.chain(more.map(|(index, path)| (format!("fields.{index}"), path.as_str()))).collect()
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
    }

    fn build(&self, _: &Kit) -> anyhow::Result<Vec<Runner>> {
        let values = Values::new(self.paths().into_iter().map(|(_, path)| path));
        Ok(vec![Runner::Fold(Box::new(Exact { values, normalize: self.normalize }))])
    }
}

struct Exact {
    values: Values,
    normalize: Normalization,
}

impl FoldRow for Exact {
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        let plain = |value: &Value| match value {
            Value::String(text) => Value::from(self.normalize.apply(text)),
            other => other.clone(),
        };
        Ok(self.values.digest(&row.fields, plain).to_vec())
    }

    fn start(&self) -> Box<dyn FoldState> {
        Box::new(Seen::default())
    }
}

/// The first row of every digest. An entry takes 24 bytes and one of the table's own; the table has a
/// power of two of places, of which at most 7 in 8 are taken: 25 * 8/7 to 25 * 16/7 bytes a row.
#[derive(Default)]
struct Seen {
    first: HashMap<[u64; 2], u64>,
    ids: RowIds,
}

impl FoldState for Seen {
    fn decide(&mut self, row: &RowId, key: FoldKey) -> Decision {
        let Ok(digest) = <[u64; 2]>::try_from(key) else { return Decision::Keep };
        match self.first.entry(digest) {
            Entry::Vacant(place) => {
                place.insert(self.ids.put(row));
                Decision::Keep
            }
            Entry::Occupied(earlier) => {
                let earlier = self.ids.get(*earlier.get()).to_string();
                Decision::Reject(Reason::new("duplicate", json!({"duplicate_of": earlier})))
            }
        }
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
