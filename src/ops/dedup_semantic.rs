//! `dedup_semantic`: keep the first of rows that mean nearly the same.
//!
//! # What it does
//! Compares vectors, such as `embed` makes of texts, and rejects a row `semantic_duplicate` if that of an
//! *earlier* row points the same way: if the cosine of the two is at least `similar_above`. The evidence names the
//! earlier row and the cosine: `{"duplicate_of": "17", "similarity": 0.93}`. An earlier row counts also if it was
//! itself rejected here.
//!
//! Not every pair is compared: vectors are looked up by the cells that random planes cut (Charikar 2002).
//! `recall` says what share of the pairs at `similar_above` must be found, and picks the planes. What the cells
//! find is always compared for real.
//!
//! # When to use it
//! After `dedup_near`, on what says the same in other words: paraphrased questions, stories with one plot. Which
//! cosine that is hangs on the model and on the texts: look at some pairs at several thresholds before you trust
//! one. Another threshold needs no new vectors: they are in the store, and in the column if it is saved.
//!
//! # Example
//! ```yaml
//! - embed: { teacher: embedder, field: question, into: vector }
//! - dedup_semantic: { field: vector, similar_above: 0.9 }
//! - fields: { drop: [vector] }
//! ```
//!
//! # Limits
//! Memory grows with the rows: 4 bytes for each number of a vector, about 20 for each band; with 384 numbers
//! and the 44 bands of 0.9 about 2.5 KB a row. Where more than 10,000 earlier rows share a cell with a row,
//! only the first 10,000 are compared. What is no list of numbers is rejected `type_mismatch`, a vector of
//! another length than that of the first row `other_length`. A vector of zeros is like no other. 0.9 is
//! what semhash takes for static embeddings; no number is right for all models.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::kit::{Check, Kit};
use crate::ops::row_ids::RowIds;
use crate::ops::{Decision, FoldKey, FoldRow, FoldState, Operator, Runner};
use crate::row::{FieldPath, Reason, Row, RowId, Type, Value};
use crate::text::cosine::{Alike, Cells, CosineIndex, Cut, direction};

/// Keep the first of rows that mean nearly the same.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "dedup_semantic", deny_unknown_fields)]
pub struct DedupSemantic {
    /// The field that holds the vector, a list of numbers, or a key inside one.
    pub field: String,
    /// The least cosine of duplicates, above 0 and at most 1: 0.9 by default.
    #[serde(default = "similar_above")]
    pub similar_above: f64,
    /// The share of the pairs at `similar_above` that is found, below 1: 0.98 by default. More takes more
    /// memory and time.
    #[serde(default = "recall")]
    pub recall: f64,
}

fn similar_above() -> f64 {
    0.9
}

fn recall() -> f64 {
    0.98
}

impl Operator for DedupSemantic {
    fn check(&self, check: &mut Check<'_>) {
        match check.reads("field", &self.field) {
            None | Some(Type::Json) => {}
            Some(Type::List(item)) if matches!(*item, Type::Number | Type::Integer | Type::Json) => {}
            Some(other) => {
                check.problem("field", format!("`{}` is {other}, not a list of numbers", self.field)).hint =
                    Some("`embed` makes a vector of a text".to_owned());
            }
        }
        if let Err(message) = Cut::for_target(self.similar_above, self.recall) {
            check.problem("similar_above", message);
        }
    }

    fn build(&self, _: &Kit) -> anyhow::Result<Vec<Runner>> {
        let cut = Cut::for_target(self.similar_above, self.recall).map_err(anyhow::Error::msg)?;
        let field = FieldPath::parse(&self.field);
        let cells = Mutex::default();
        Ok(vec![Runner::Fold(Box::new(Semantic { field, cut, least: self.similar_above, cells }))])
    }
}

struct Semantic {
    field: FieldPath,
    cut: Cut,
    least: f64,
    /// By the length of the vectors; a sound run has one.
    cells: Mutex<HashMap<usize, Arc<Cells>>>,
}

impl Semantic {
    fn vector(&self, row: &Row) -> Result<Vec<f64>, Reason> {
        let value = self.field.value(&row.fields).unwrap_or(&Value::Null);
        let numbers = value.as_array().map(|items| items.iter().map(Value::as_f64).collect());
        numbers.flatten().ok_or_else(|| {
            let evidence = json!({"field": self.field.to_string(), "type": "list of number", "value": value});
            Reason::new("type_mismatch", evidence)
        })
    }

    fn cells(&self, length: usize) -> Arc<Cells> {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cells.entry(length).or_insert_with(|| Arc::new(Cells::new(self.cut, length))))
    }
}

impl FoldRow for Semantic {
    /// The vector's length, then its keys and its numbers, two by two; of one without direction only the length.
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        let vector = self.vector(row)?;
        let mut key = vec![vector.len() as u64];
        if let Some(vector) = direction(&vector) {
            let keys = self.cells(vector.len()).keys(&vector);
            let halves: Vec<u32> = keys.into_iter().chain(vector.into_iter().map(f32::to_bits)).collect();
            let half = |pair: &[u32], at: usize| u64::from(pair.get(at).copied().unwrap_or(0));
            key.extend(halves.chunks(2).map(|pair| half(pair, 0) | (half(pair, 1) << 32)));
        }
        Ok(key)
    }

    fn start(&self) -> Box<dyn FoldState> {
        Box::new(Seen {
            index: CosineIndex::new(self.cut, self.least),
            bands: self.cut.bands as usize,
            ids: RowIds::default(),
            length: None,
        })
    }
}

/// Every vector so far.
struct Seen {
    index: CosineIndex,
    bands: usize,
    ids: RowIds,
    /// Of the first row's vector.
    length: Option<u64>,
}

impl FoldState for Seen {
    fn decide(&mut self, row: &RowId, key: FoldKey) -> Decision {
        let Some((length, packed)) = key.split_first() else { return Decision::Keep };
        let first = *self.length.get_or_insert(*length);
        if *length != first {
            let evidence = json!({"length": length, "first": first});
            return Decision::Reject(Reason::new("other_length", evidence));
        }
        if packed.is_empty() {
            return Decision::Keep;
        }
        let halves: Vec<u32> = packed.iter().flat_map(|pair| [*pair as u32, (pair >> 32) as u32]).collect();
        let (keys, numbers) = halves.split_at(self.bands);
        let vector: Vec<f32> =
            numbers.iter().take(*length as usize).map(|bits| f32::from_bits(*bits)).collect();
        match self.index.insert(keys, &vector, self.ids.put(row)) {
            None => Decision::Keep,
            Some(Alike { earlier, cosine }) => {
                let similarity = (cosine * 1e6).round() / 1e6;
                let evidence =
                    json!({"duplicate_of": self.ids.get(earlier).to_string(), "similarity": similarity});
                Decision::Reject(Reason::new("semantic_duplicate", evidence))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture;

    #[track_caller]
    fn check(more: Value, vectors: &[Value], expected: &[Option<Value>]) {
        let config = fixture::with(json!({"field": "v"}), more);
        let folder = tempfile::tempdir().unwrap();
        let Runner::Fold(fold) = fixture::built::<DedupSemantic>(config, &fixture::kit(folder.path())) else {
            panic!("it is a fold");
        };
        let row = |(id, vector): (usize, &Value)| fixture::row(&id.to_string(), &json!({"v": vector}));
        let rows: Vec<Row> = vectors.iter().enumerate().map(row).collect();
        assert_eq!(fixture::folded(&*fold, &rows), expected);
    }

    fn like(earlier: &str, similarity: f64) -> Option<Value> {
        let evidence = json!({"duplicate_of": earlier, "similarity": similarity});
        Some(json!({"code": "semantic_duplicate", "evidence": evidence}))
    }

    #[test]
    fn the_first_that_points_the_same_way_wins() {
        let vectors = [
            json!([1, 0, 0]),
            json!([0, 2.5, 0]),
            json!([3, 0, 0]),
            json!([0, 1, 0.2]),
            json!([0, 0, 0]),
            json!([0, 0, 0]),
        ];
        let expected = [None, None, like("0", 1.0), like("1", 0.980581), None, None];
        check(json!({}), &vectors, &expected);
        check(json!({"similar_above": 0.99}), &vectors[..4], &[None, None, like("0", 1.0), None]);
    }

    #[test]
    fn what_is_no_vector_of_the_same_length_is_rejected() {
        let length = json!({"code": "other_length", "evidence": {"length": 2, "first": 3}});
        let evidence = json!({"field": "v", "type": "list of number", "value": ["a"]});
        let mismatch = json!({"code": "type_mismatch", "evidence": evidence});
        let vectors = [json!([1, 0, 0]), json!([1, 0]), json!(["a"])];
        check(json!({}), &vectors, &[None, Some(length), Some(mismatch)]);
    }

    fn check_config(config: Value, problems: &[&str]) {
        let columns = [("v", Type::List(Box::new(Type::Number))), ("text", Type::Text)];
        assert_eq!(fixture::checked_config::<DedupSemantic>(config, &columns).0, problems);
    }

    #[test]
    fn configs_are_checked() {
        check_config(json!({"field": "v", "similar_above": 0.8, "recall": 0.9}), &[]);
        check_config(
            json!({"field": "text", "similar_above": 0}),
            &[
                "field: `text` is text, not a list of numbers",
                "similar_above: the similarity is 0; it must be above 0 and at most 1",
            ],
        );
    }
}
