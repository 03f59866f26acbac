//! `balance`: keep at most so many rows of each kind.
//!
//! # What it does
//! Counts the rows that have the same value in a field and keeps the first ones, in row order, up to a
//! quota. The others are rejected `over_quota`, with the quota as evidence.
//!
//! - `each: 100` is the quota of every value.
//! - `quotas: { easy: 100, hard: 300 }` names values; `others` is the quota of those that are not named,
//!   none of which is kept by default.
//! - `to_rarest: true` cuts every value to as many rows as the rarest one has.
//!
//! # When to use it
//! When a dataset shall not be mostly about what teachers like to write about: difficulties, topics,
//! languages, a classifier's buckets. After the filters, so that the quotas are those of the dataset.
//!
//! # Example
//! ```yaml
//! - balance: { group: [difficulty], quotas: { easy: 100, medium: 300, hard: 600 } }
//! ```
//!
//! # Limits
//! Numbers and booleans are named as JSON has them: `"3"`, `"true"`; a missing field and null are `"null"`.
//! `quotas` needs a single field in `group`. With `each` and `quotas` rows go on at once, and every value
//! takes about 30 bytes of memory. `to_rarest` waits for the end of the source, so `until: { kept }` is not
//! possible with it; rows wait on disk, and each takes about 120 bytes of memory. A value that no row has
//! does not count as the rarest.

use std::collections::HashMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::kit::{Check, Kit};
use crate::ops::best_of::groups;
use crate::ops::values::Values;
use crate::ops::{Belong, Decision, FoldKey, FoldRow, FoldState, GroupRow, Operator, Runner};
use crate::row::{FieldPath, Reason, Row, RowId, Value};

/// Keep at most so many rows of each kind.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "balance", deny_unknown_fields)]
pub struct Balance {
    /// The fields whose values tell the kinds apart.
    pub group: Vec<String>,
    /// Most rows of every kind.
    pub each: Option<u64>,
    /// Most rows of the kinds that are named.
    pub quotas: Option<IndexMap<String, u64>>,
    /// Most rows of each kind that `quotas` does not name: 0 by default.
    pub others: Option<u64>,
    /// Keep as many rows of each kind as the rarest has.
    #[serde(default)]
    pub to_rarest: bool,
}

impl Operator for Balance {
    fn check(&self, check: &mut Check<'_>) {
        Values::check_group(check, &self.group);
        if self.group.is_empty() {
            check.problem("group", "the list of fields is empty");
        }
        let ways = [self.each.is_some(), self.quotas.is_some(), self.to_rarest];
        match ways.iter().filter(|way| **way).count() {
            0 => {
                check.problem("", "nothing says how many rows are kept").hint =
                    Some("give `each`, `quotas` or `to_rarest: true`".to_owned());
            }
            1 => {}
            _ => {
                check.problem("", "`each`, `quotas` and `to_rarest` exclude each other");
            }
        }
        if self.quotas.is_some() && self.group.len() > 1 {
            check.problem("quotas", "`quotas` needs a single field in `group`");
        }
        if self.others.is_some() && self.quotas.is_none() {
            check.problem("others", "`others` needs `quotas`");
        }
    }

    fn build(&self, _: &Kit) -> anyhow::Result<Vec<Runner>> {
        let values = Values::new(self.group.iter().map(String::as_str));
        if self.to_rarest {
            return Ok(vec![Runner::Group(Box::new(ToRarest(values)))]);
        }
        let field = self.group.first().map(|path| FieldPath::parse(path));
        let named = self.quotas.clone().unwrap_or_default();
        let others = self.each.or(self.others).unwrap_or(0);
        Ok(vec![Runner::Fold(Box::new(Quotas { values, field, named, others }))])
    }

    fn needs_all_rows(&self) -> bool {
        self.to_rarest
    }
}

struct Quotas {
    values: Values,
    field: Option<FieldPath>,
    named: IndexMap<String, u64>,
    others: u64,
}

impl Quotas {
    fn quota(&self, row: &Row) -> u64 {
        if self.named.is_empty() {
            return self.others;
        }
        let value = self.field.as_ref().and_then(|field| field.value(&row.fields)).unwrap_or(&Value::Null);
        let quota = match value {
            Value::String(name) => self.named.get(name),
            other => self.named.get(&other.to_string()),
        };
        quota.copied().unwrap_or(self.others)
    }
}

impl FoldRow for Quotas {
    /// The kind's digest and its quota.
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        let [high, low] = self.values.digest(&row.fields, Clone::clone);
        Ok(vec![high, low, self.quota(row)])
    }

    fn start(&self) -> Box<dyn FoldState> {
        Box::new(Counts::default())
    }
}

/// How many rows of each kind were kept.
#[derive(Default)]
struct Counts(HashMap<[u64; 2], u64>);

impl FoldState for Counts {
    fn decide(&mut self, _: &RowId, key: FoldKey) -> Decision {
        let Ok([high, low, quota]) = <[u64; 3]>::try_from(key) else { return Decision::Keep };
        let kept = self.0.entry([high, low]).or_default();
        if *kept >= quota {
            return over(quota);
        }
        *kept += 1;
        Decision::Keep
    }
}

fn over(quota: u64) -> Decision {
    Decision::Reject(Reason::new("over_quota", json!({"quota": quota})))
}

struct ToRarest(Values);

impl GroupRow for ToRarest {
    fn belong(&self) -> Belong {
        Belong::All
    }

    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        Ok(self.0.digest(&row.fields, Clone::clone).to_vec())
    }

    fn decide(&self, rows: &[(RowId, FoldKey)]) -> Vec<Decision> {
        let kinds = groups(rows, 0);
        let rarest = kinds.iter().map(Vec::len).min().unwrap_or(0);
        let mut decisions = vec![Decision::Keep; rows.len()];
        for place in kinds.iter().flat_map(|places| &places[rarest..]) {
            decisions[*place] = over(rarest as u64);
        }
        decisions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture;
    use crate::row::Type;

    /// The quota that each row of the levels is over, if it is.
    fn check(more: Value, levels: &[Value], expected: &[Option<u64>]) {
        let config = fixture::with(json!({"group": ["level"]}), more);
        let folder = tempfile::tempdir().unwrap();
        let kit = fixture::kit(folder.path());
        let ids: Vec<String> = (0..levels.len()).map(|id| id.to_string()).collect();
        let rows: Vec<(&str, Value)> =
            ids.iter().zip(levels).map(|(id, level)| (id.as_str(), json!({"level": level}))).collect();
        let ends = match fixture::built::<Balance>(config, &kit) {
            Runner::Fold(fold) => {
                let rows: Vec<Row> = rows.iter().map(|(id, fields)| fixture::row(id, fields)).collect();
                fixture::folded(&*fold, &rows)
            }
            Runner::Group(group) => fixture::grouped(&*group, &rows),
            _ => panic!("it is a fold or a group"),
        };
        let over = |quota: u64| json!({"code": "over_quota", "evidence": {"quota": quota}});
        let expected: Vec<Option<Value>> = expected.iter().map(|quota| quota.map(over)).collect();
        assert_eq!(ends, expected);
    }

    #[test]
    fn the_first_rows_of_each_kind_are_kept() {
        let levels = [json!("a"), json!("b"), json!("a"), json!("a"), json!(null), json!(3), json!(3)];
        let none = [None; 7];
        check(json!({"each": 3}), &levels, &none);
        check(json!({"each": 1}), &levels, &[None, None, Some(1), Some(1), None, None, Some(1)]);
        let quotas = json!({"quotas": {"a": 2, "3": 1}});
        check(quotas, &levels, &[None, Some(0), None, Some(2), Some(0), None, Some(1)]);
        let others = json!({"quotas": {"a": 2, "null": 0}, "others": 1});
        check(others, &levels, &[None, None, None, Some(2), Some(0), None, Some(1)]);
        check(json!({"to_rarest": true}), &levels[..4], &[None, None, Some(1), Some(1)]);
        check(json!({"to_rarest": true}), &[], &[]);
    }

    fn check_config(config: Value, problems: &[&str]) {
        let columns = [("level", Type::Text), ("topic", Type::Text)];
        assert_eq!(fixture::checked_config::<Balance>(config, &columns).0, problems);
    }

    #[test]
    fn configs_are_checked() {
        check_config(json!({"group": ["level", "topic"], "each": 5}), &[]);
        check_config(
            json!({"group": []}),
            &["group: the list of fields is empty", ": nothing says how many rows are kept"],
        );
        check_config(
            json!({"group": ["level", "topic"], "quotas": {"a": 1}, "to_rarest": true}),
            &[
                ": `each`, `quotas` and `to_rarest` exclude each other",
                "quotas: `quotas` needs a single field in `group`",
            ],
        );
        check_config(
            json!({"group": ["x"], "each": 5, "others": 1}),
            &["others: `others` needs `quotas`", "group[0]: no field `x`"],
        );
    }
}
