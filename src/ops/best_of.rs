//! `best_of`: keep the best rows of each group.
//!
//! # What it does
//! Ranks the rows of a group by a number, the highest first, and keeps the first `keep` of them: one by
//! default. Of rows with the same number the earlier one is better. The others are rejected `not_best`; the
//! evidence has the row's number and rank, how many rows the group had and which one was the best:
//! `{"value": 3, "rank": 2, "of": 5, "best": "17.3"}`.
//!
//! Without `group` the rows of a group are what one row was split into: the `samples` of one prompt, the
//! items of one list. With `group` they are all rows with the same values in these fields.
//!
//! # When to use it
//! To ask for several answers and train on the best one; to keep the ten best rows of each topic.
//!
//! # Example
//! ```yaml
//! - generate: { teacher: writer, prompt: exercise.md.j2, into: exercise, samples: 5 }
//! - judge: { teacher: writer, prompt: grade.md.j2, into: grade, scale: [1, 5] }
//! - best_of: { by: grade }
//! ```
//!
//! # Limits
//! `by` is an expression that must give a number: `-attempts` puts the lowest first. Anything else rejects
//! the row `bad_expression`. A row that was never split off is the best of its own group. What one row was
//! split into goes on as soon as all of it was decided. With `group` nothing goes on before the source is
//! at its end, so `until: { kept }` is not possible; rows wait on disk, and each takes about 120 bytes of
//! memory.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::kit::{Check, Kit};
use crate::ops::number::{disordered, number, ordered};
use crate::ops::values::Values;
use crate::ops::{Belong, Decision, FoldKey, GroupRow, Operator, Runner};
use crate::row::{Reason, Row, RowId};
use crate::template::Expression;

/// Keep the best rows of each group.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "best_of", deny_unknown_fields)]
pub struct BestOf {
    /// What rows are ranked by: an expression that gives a number, the highest first.
    pub by: String,
    /// How many rows of each group are kept: 1 by default.
    #[serde(default = "keep")]
    pub keep: u64,
    /// The fields that are the same in all rows of a group; without, a group is what one row was split into.
    pub group: Option<Vec<String>>,
}

fn keep() -> u64 {
    1
}

impl Operator for BestOf {
    fn check(&self, check: &mut Check<'_>) {
        check.expression("by", &self.by);
        if self.keep == 0 {
            check.problem("keep", "`keep` must be at least 1");
        }
        match &self.group {
            Some(group) if group.is_empty() => {
                check.problem("group", "the list of fields is empty").hint =
                    Some("leave `group` out to rank what one row was split into".to_owned());
            }
            Some(group) => Values::check_group(check, group),
            None => {}
        }
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let group = self.group.as_ref().map(|group| Values::new(group.iter().map(String::as_str)));
        Ok(vec![Runner::Group(Box::new(Ranked { by: kit.expression(&self.by)?, keep: self.keep, group }))])
    }

    fn needs_all_rows(&self) -> bool {
        self.group.is_some()
    }
}

struct Ranked {
    by: Expression,
    keep: u64,
    group: Option<Values>,
}

impl GroupRow for Ranked {
    fn belong(&self) -> Belong {
        if self.group.is_some() { Belong::All } else { Belong::Siblings }
    }

    /// The number, then what tells the row's group.
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        let mut key = vec![ordered(number(&self.by, &row.fields)?)];
        key.extend(self.group.iter().flat_map(|group| group.digest(&row.fields, Clone::clone)));
        Ok(key)
    }

    fn decide(&self, rows: &[(RowId, FoldKey)]) -> Vec<Decision> {
        let mut decisions = vec![Decision::Keep; rows.len()];
        for mut places in groups(rows, 1) {
            // Stable: of equals the earlier row comes first.
            places.sort_by_key(|place| std::cmp::Reverse(rows[*place].1[0]));
            let best = rows[places[0]].0.to_string();
            for (place, rank) in
                places.iter().zip(1_u64..).skip(usize::try_from(self.keep).unwrap_or(usize::MAX))
            {
                let value = disordered(rows[*place].1[0]);
                let evidence = json!({"value": value, "rank": rank, "of": places.len(), "best": best});
                decisions[*place] = Decision::Reject(Reason::new("not_best", evidence));
            }
        }
        decisions
    }
}

/// The places of the rows whose keys are the same from the word `from` on, group by group, by first row.
pub fn groups(rows: &[(RowId, FoldKey)], from: usize) -> Vec<Vec<usize>> {
    let mut numbers: HashMap<&[u64], usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (place, (_, key)) in rows.iter().enumerate() {
        let number = *numbers.entry(&key[from..]).or_insert(groups.len());
        if number == groups.len() {
            groups.push(Vec::new());
        }
        groups[number].push(place);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture;
    use crate::row::{Type, Value};

    fn check(config: Value, rows: &[(&str, Value)], expected: &[Option<Value>]) {
        let folder = tempfile::tempdir().unwrap();
        let Runner::Group(group) = fixture::built::<BestOf>(config, &fixture::kit(folder.path())) else {
            panic!("it is a group");
        };
        assert_eq!(fixture::grouped(&*group, rows), expected);
    }

    fn lower(value: f64, rank: u64, of: u64, best: &str) -> Option<Value> {
        let evidence = json!({"value": value, "rank": rank, "of": of, "best": best});
        Some(json!({"code": "not_best", "evidence": evidence}))
    }

    #[test]
    fn the_highest_is_kept_and_of_equals_the_first() {
        let rows = [
            ("17.0", json!({"grade": 3})),
            ("17.1", json!({"grade": 5})),
            ("17.2", json!({"grade": 5})),
            ("17.4", json!({"grade": 1})),
        ];
        let by_grade = [lower(3.0, 3, 4, "17.1"), None, lower(5.0, 2, 4, "17.1"), lower(1.0, 4, 4, "17.1")];
        check(json!({"by": "grade"}), &rows, &by_grade);
        check(json!({"by": "-grade"}), &rows[..2], &[None, lower(-5.0, 2, 2, "17.0")]);
        check(json!({"by": "grade", "keep": 3}), &rows, &[None, None, None, lower(1.0, 4, 4, "17.1")]);
        check(json!({"by": "grade"}), &[("4", json!({"grade": -2.5}))], &[None]);
    }

    #[test]
    fn groups_are_made_by_fields() {
        let rows = [
            ("0", json!({"n": 1, "topic": "a"})),
            ("1", json!({"n": 2, "topic": "b"})),
            ("2", json!({"n": 3, "topic": "a"})),
            ("3", json!({"n": 0.5, "topic": "b"})),
        ];
        let expected = [lower(1.0, 2, 2, "2"), None, None, lower(0.5, 2, 2, "1")];
        check(json!({"by": "n", "group": ["topic"]}), &rows, &expected);
    }

    #[test]
    fn a_row_without_a_number_is_rejected() {
        let error = "`grade` is \"high\", not a number";
        let evidence = json!({"expression": "grade", "error": error});
        let wrong = Some(json!({"code": "bad_expression", "evidence": evidence}));
        let rows = [("1.0", json!({"grade": "high"})), ("1.1", json!({"grade": 0}))];
        check(json!({"by": "grade"}), &rows, &[wrong, None]);
    }

    fn check_config(config: Value, problems: &[&str]) {
        let columns = [("grade", Type::Integer), ("topic", Type::Text)];
        assert_eq!(fixture::checked_config::<BestOf>(config, &columns).0, problems);
    }

    #[test]
    fn configs_are_checked() {
        check_config(json!({"by": "grade", "group": ["topic"]}), &[]);
        check_config(
            json!({"by": "grade", "keep": 0, "group": []}),
            &["keep: `keep` must be at least 1", "group: the list of fields is empty"],
        );
        check_config(
            json!({"by": "rank", "group": ["topic", "topic"]}),
            &["group[1]: `topic` is listed twice", "by: no field `rank`"],
        );
    }
}
