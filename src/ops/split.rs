//! `split`: say which part of the dataset a row belongs to: training, validation, test.
//!
//! # What it does
//! Makes a field `into` (`split` by default) that holds the name of one of the `parts`. Which one is drawn
//! at random with the shares as probabilities, by what the row is about and not by its place: all rows with
//! the same values in the fields of `group` get the same part, in this run and in every other one with the
//! same seed and step name, so that relatives never stand on both sides.
//!
//! Without `group` rows that come from one row of the source stay together.
//!
//! # When to use it
//! As one of the last steps, so that a model is not tested on what it was trained on: rows of one book, one
//! topic, one seed text.
//!
//! # Example
//! ```yaml
//! - split: { parts: { train: 0.9, validation: 0.05, test: 0.05 }, group: [book] }
//! ```
//!
//! # Limits
//! The shares are met on average over the groups: with few or very unequal groups the parts have other sizes.
//! Near duplicates under different values of `group` can still be on both sides: `dedup_near` before. Another
//! seed or another name of the step draws anew. Without `group` another epoch draws anew too, as its rows
//! are others; with it an old value keeps its part night after night.

use std::sync::Arc;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::axes::random::Draws;
use crate::kit::{Check, Kit};
use crate::ops::values::Values;
use crate::ops::{MapRow, Operator, Runner};
use crate::row::{Fields, Outcome, Row, RowId, Type};

/// Say which part of the dataset a row belongs to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "split", deny_unknown_fields)]
pub struct Split {
    /// The parts and their shares of the whole, which add up to 1.
    pub parts: IndexMap<String, f64>,
    /// Rows with the same values in these fields get the same part.
    pub group: Option<Vec<String>>,
    /// The field that takes the part's name: `split` by default.
    #[serde(default = "into")]
    pub into: String,
}

fn into() -> String {
    "split".to_owned()
}

impl Operator for Split {
    fn check(&self, check: &mut Check<'_>) {
        let sum = self.parts.values().fold(0.0, |sum, share| sum + share);
        let wrong = self.parts.iter().find(|(_, share)| !(**share > 0.0 && **share <= 1.0));
        if let Some((name, _)) = wrong {
            check.problem(&format!("parts.{name}"), "a share must be above 0 and at most 1");
        } else if (sum - 1.0).abs() > 1e-9 {
            check.problem("parts", format!("the shares add up to {sum}, not to 1"));
        }
        match &self.group {
            Some(group) if group.is_empty() => {
                check.problem("group", "the list of fields is empty").hint =
                    Some("leave `group` out to draw for each row of the source".to_owned());
            }
            Some(group) => Values::check_group(check, group),
            None => {}
        }
        check.makes("into", &self.into, Type::Text);
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        Ok(vec![Runner::Map(Box::new(Parts {
            parts: self.parts.clone(),
            group: self.group.as_ref().map(|group| Values::new(group.iter().map(String::as_str))),
            into: self.into.clone(),
            seed: kit.seed,
            epoch: Arc::clone(&kit.epoch),
            step: Arc::clone(&kit.step),
        }))])
    }
}

struct Parts {
    parts: IndexMap<String, f64>,
    group: Option<Values>,
    into: String,
    seed: u64,
    epoch: Arc<str>,
    step: Arc<str>,
}

impl Parts {
    fn part(&self, row: &Row) -> &str {
        let mut drawn = match &self.group {
            Some(group) => {
                let [high, low] = group.digest(&row.fields, Clone::clone);
                // The same in every epoch.
                Draws::new(self.seed, "", &self.step, &format!("{high:016x}{low:016x}"), "split")
            }
            None => Draws::new(self.seed, &self.epoch, &self.step, &root(row).draw_key(), "split"),
        }
        .unit();
        for (name, share) in &self.parts {
            drawn -= share;
            if drawn < 0.0 {
                return name;
            }
        }
        // The shares add up to a hair less than 1.
        self.parts.keys().next_back().map_or("", String::as_str)
    }
}

/// The row of the source that a row comes from.
fn root(row: &Row) -> Row {
    let id = RowId::root(row.id.ordinal);
    Row { origin: row.origin.clone(), ..Row::new(id, Fields::new()) }
}

impl MapRow for Parts {
    fn map(&self, mut row: Row) -> Outcome {
        let part = self.part(&row).to_owned();
        row.fields.insert(self.into.clone(), part.into());
        Outcome::Keep(row)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::ops::fixture;

    fn part(more: Value, id: &str, fields: &Value) -> String {
        let config = json!({"parts": {"train": 0.8, "test": 0.2}});
        let folder = tempfile::tempdir().unwrap();
        let Runner::Map(parts) =
            fixture::built::<Split>(fixture::with(config, more), &fixture::kit(folder.path()))
        else {
            panic!("it is a map");
        };
        let kept = fixture::shown(parts.map(fixture::row(id, fields)));
        kept["split"].as_str().unwrap().to_owned()
    }

    #[test]
    fn relatives_stay_together_and_shares_are_met() {
        let parts = Parts {
            parts: [("train".to_owned(), 0.8), ("test".to_owned(), 0.2)].into_iter().collect(),
            group: None,
            into: "split".to_owned(),
            seed: 7,
            epoch: "0".into(),
            step: "split".into(),
        };
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for ordinal in 0..4000 {
            let row = Row::new(RowId::root(ordinal), Fields::new());
            let part = parts.part(&row);
            assert_eq!(part, parts.part(&row.child(3, Fields::new()).child(1, Fields::new())));
            *counts.entry(part.to_owned()).or_default() += 1;
        }
        // Within five standard deviations of 800.
        assert!((675..925).contains(&counts["test"]), "{counts:?}");
    }

    #[test]
    fn a_value_of_the_group_keeps_its_part() {
        let of_book = |id: &str, book: u64| part(json!({"group": ["book"]}), id, &json!({"book": book}));
        let parts: Vec<String> = (0..40).map(|book| of_book("1", book)).collect();
        assert_eq!(parts, (0..40).map(|book| of_book("77.2", book)).collect::<Vec<_>>());
        assert!(parts.iter().any(|part| part == "train") && parts.iter().any(|part| part == "test"));
    }

    fn check_config(config: Value, problems: &[&str]) {
        assert_eq!(fixture::checked_config::<Split>(config, &[("book", Type::Text)]).0, problems);
    }

    #[test]
    fn configs_are_checked() {
        check_config(json!({"parts": {"train": 0.9, "validation": 0.05, "test": 0.05}}), &[]);
        check_config(
            json!({"parts": {"train": 0.9, "test": 0.2}, "group": [], "into": "book"}),
            &[
                "parts: the shares add up to 1.1, not to 1",
                "group: the list of fields is empty",
                "into: the field `book` exists already",
            ],
        );
        check_config(
            json!({"parts": {"train": 1.5, "test": -0.5}, "group": ["x"]}),
            &["parts.train: a share must be above 0 and at most 1", "group[0]: no field `x`"],
        );
        check_config(json!({"parts": {}}), &["parts: the shares add up to 0, not to 1"]);
    }
}
