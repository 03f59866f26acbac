//! `draw`: give each row values drawn at random from axes.
//!
//! # What it does
//! Draws a value from each axis, as a `sample:` source does, and puts it into a new field of the axis's
//! name. Axes may depend on each other and on fields that the row has.
//!
//! # When to use it
//! To vary what is asked about rows that come from a file: an audience, a style, a length, a name. Also
//! after `explode` or `generate` with `samples`, so that each child has draws of its own.
//!
//! # Example
//! ```yaml
//! - draw:
//!     level: [easy, hard]
//!     audience: { weights: { "first-year student": 3, "working analyst": 1 } }
//!     length: { given: level, of: { easy: [short], hard: [medium, long] } }
//! ```
//!
//! # Limits
//! With replacement only: `replace: false` is for sources. The same seed, epoch, step name and row give
//! the same values; another epoch gives others. A row for which an axis has nothing to draw is rejected:
//! `no_case` where `given` or `where` knows nothing for it, `too_few_values` where `not` leaves too little,
//! `missing_field` where it lacks a field that the axis depends on. Files are held in memory.

use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::axes::{self, Axes, DrawAt, DrawFile};
use crate::data::read::read_columns;
use crate::kit::{Check, Kit};
use crate::ops::{MapRow, Operator, Runner};
use crate::problem::Problem;
use crate::row::{Outcome, Reason, Row, Type};

/// Axes by name; each gives the rows a field of its name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Draw(pub DrawFile);

impl Operator for Draw {
    fn check(&self, check: &mut Check<'_>) {
        let known: Vec<(String, Type)> =
            check.columns.iter().map(|(name, kind)| (name.clone(), kind.clone())).collect();
        let (columns, problems) = axes::check_draw(&self.0, &known, check.base);
        let at = check.at.clone();
        check.problems.extend(problems.into_iter().map(|problem| problem.below(&at)));
        for (field, kind) in columns {
            // An axis with several columns or levels makes fields that are no keys here.
            let key = if self.0.0.contains_key(&field) { field.as_str() } else { "" };
            check.makes(key, &field, kind);
        }
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let axes = load_axes(&self.0, &kit.base).map_err(|problems| {
            let messages: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            anyhow::anyhow!(messages.join("; "))
        })?;
        let (seed, epoch, step) = (kit.seed, Arc::clone(&kit.epoch), Arc::clone(&kit.step));
        Ok(vec![Runner::Map(Box::new(Drawn { axes, seed, epoch, step }))])
    }
}

/// Reads the files that axes draw from. Problems are placed relative to the map of axes.
pub fn load_axes(draw: &DrawFile, base: &Path) -> Result<Axes, Vec<Problem>> {
    let mut load = |path: &Path, columns: &[String]| {
        read_columns(&base.join(path), columns).map_err(|error| error.sentence())
    };
    Axes::build(draw, &mut load)
}

struct Drawn {
    axes: Axes,
    seed: u64,
    epoch: Arc<str>,
    step: Arc<str>,
}

impl MapRow for Drawn {
    fn map(&self, mut row: Row) -> Outcome {
        let key = row.draw_key();
        let at = DrawAt {
            seed: self.seed,
            epoch: &self.epoch,
            step: &self.step,
            ordinal: row.id.ordinal,
            row: &key,
        };
        match self.axes.draw(&at, &row.fields) {
            Ok(drawn) => {
                row.fields.extend(drawn);
                Outcome::Keep(row)
            }
            Err(error) => {
                let reason = Reason::new(error.code(), json!({"error": error.to_string()}));
                Outcome::Reject(row, reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::Columns;
    use crate::ops::fixture::{Fixture, checked_in, map, map_row, open};
    use crate::row::{RowId, Value};

    fn fixture() -> Fixture {
        let fixture = open();
        std::fs::write(fixture.folder.path().join("names.txt"), "ada\n\nalan\n").unwrap();
        let lines = "topic,sub\nmaths,algebra\nmaths,\nphysics,optics\n";
        std::fs::write(fixture.folder.path().join("topics.csv"), lines).unwrap();
        fixture
    }

    /// The columns behind the step, and the row behind it, must have the same names.
    fn check(draw: &Value, expected: Result<&str, &str>) {
        let fixture = fixture();
        let step = json!({"draw": draw});
        let columns = Columns::from([("topic".to_owned(), Type::Text)]);
        let found = checked_in(fixture.folder.path(), step.clone(), columns);
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{draw}");
        let Ok(columns) = found else { return };
        let row = map(&fixture.kit, step, json!({"topic": "maths"})).unwrap();
        let names: Vec<&String> = row.as_object().unwrap().keys().collect();
        let columns: Vec<&str> = columns.split(", ").filter_map(|column| column.split(':').next()).collect();
        assert_eq!(names, columns, "{draw}");
    }

    #[test]
    fn columns_follow() {
        check(
            &json!({"level": [1, 2], "name": {"from": "names.txt"}}),
            Ok("topic: text, level: integer, name: text"),
        );
        let several = json!({"x": {"from": "topics.csv", "columns": ["topic2", "sub"]}});
        let renamed = json!({"x": {"from": "topics.csv", "column": "sub", "where": {"topic": "topic"}}});
        check(&renamed, Ok("topic: text, x: text"));
        check(&json!({"topic": ["a"]}), Err("draw.topic: the field `topic` exists already"));
        check(&json!({}), Err("draw: `draw` names no axis"));
        let message = "draw.x.replace: only a source can draw without replacement";
        check(&json!({"x": {"values": ["a"], "replace": false}}), Err(message));
        check(&json!({"x": {"from": "no.txt"}}), Err("draw.x.from: there is no file `no.txt`"));
        check(
            &json!({"x": {"given": "topc", "of": {"a": ["b"]}}}),
            Err("draw.x.given: no axis and no field is called `topc`"),
        );
        // What is in files is seen when they are read.
        let draw: Draw = serde_json::from_value(several).unwrap();
        let error = draw.build(&fixture().kit).err().unwrap().to_string();
        assert!(error.contains("no column `topic2`"), "{error}");
    }

    #[test]
    fn draws_hang_on_the_row_and_its_fields() {
        let fixture = fixture();
        let draw = |draw: Value, row: Row| map_row(&fixture.kit, json!({"draw": draw}), row);
        let row = |topic: &str, id: &str| {
            let fields = json!({"topic": topic}).as_object().unwrap().clone();
            Row::new(id.parse::<RowId>().unwrap(), fields)
        };
        let numbers = json!({"n": {"between": [0, 1_000_000_000]}});
        let one = draw(numbers.clone(), row("a", "1.0")).unwrap();
        assert_eq!(draw(numbers.clone(), row("b", "1.0")).unwrap()["n"], one["n"]);
        assert_ne!(draw(numbers, row("a", "1.1")).unwrap()["n"], one["n"]);
        let sub = json!({"sub": {"from": "topics.csv", "column": "sub", "where": {"topic": "topic"}}});
        // The line without a `sub` has nothing to draw.
        assert_eq!(draw(sub.clone(), row("maths", "1")), Ok(json!({"topic": "maths", "sub": "algebra"})));
        let error = draw(sub, row("music", "1")).unwrap_err();
        assert!(error.starts_with("no_case {\"error\":\"the axis `sub` has nothing to draw when"), "{error}");
    }
}
