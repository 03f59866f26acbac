//! `fields`: keep, drop and rename fields.
//!
//! # What it does
//! `keep` leaves the fields listed, in that order; `drop` takes the fields listed away; `rename` gives
//! fields other names and leaves them where they are. `rename` goes by the old names and comes last, all
//! at once, so that two fields can swap names.
//!
//! # When to use it
//! To take raw replies and helpers out before saving, to bring columns into the names and the order that a
//! training run expects, to make room for a name.
//!
//! # Example
//! ```yaml
//! - fields:
//!     drop: [raw_reply, draft]
//!     rename: { statement: prompt, solution: completion }
//! ```
//!
//! # Limits
//! `keep` and `drop` exclude each other. Whole fields only: to lift `exercise.title` out of its object use
//! `set`. To choose columns for the dataset alone, `save.columns` is enough. With `when`, the rows it does
//! not hold for keep their old fields; what is no column any more is not saved.

use std::collections::HashSet;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::kit::{Check, Columns, Kit, Missing};
use crate::ops::{MapRow, Operator, Runner};
use crate::row::{Fields, Outcome, Row};

/// Keep, drop and rename fields.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "fields", deny_unknown_fields)]
pub struct ChooseFields {
    /// The only fields to keep, in this order.
    pub keep: Option<Vec<String>>,
    /// Fields to take away.
    pub drop: Option<Vec<String>>,
    /// New names by old names.
    #[serde(default)]
    pub rename: IndexMap<String, String>,
}

impl Operator for ChooseFields {
    fn check(&self, check: &mut Check<'_>) {
        if self.keep.is_none() && self.drop.is_none() && self.rename.is_empty() {
            check.problem("", "`fields` changes nothing").hint =
                Some("give `keep` or `drop`, `rename`, or both".to_owned());
        }
        if self.keep.is_some() && self.drop.is_some() {
            check.problem("drop", "`keep` and `drop` exclude each other");
        }
        check_list(check, "keep", self.keep.as_deref().unwrap_or_default());
        check_list(check, "drop", self.drop.as_deref().unwrap_or_default());
        for old in self.rename.keys() {
            exists(check, &format!("rename.{old}"), old);
        }
        let left = self.left(&check.columns);
        if left.is_empty() {
            // Where `keep` only names fields that are not there, that is the problem.
            if !check.columns.is_empty() && self.keep.as_ref().is_none_or(Vec::is_empty) {
                let key = if self.keep.is_some() { "keep" } else { "drop" };
                check.problem(key, "no field is left");
            }
            return;
        }
        for old in self.rename.keys() {
            if check.columns.contains_key(old) && !left.contains_key(old) {
                let key = format!("rename.{old}");
                check.problem(&key, format!("`{old}` is not kept, so it cannot be renamed"));
            }
        }
        self.rename_columns(check, &left);
    }

    fn build(&self, _kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        Ok(vec![Runner::Map(Box::new(Chosen {
            keep: self.keep.clone(),
            drop: self.drop.iter().flatten().cloned().collect(),
            rename: self.rename.clone(),
        }))])
    }
}

impl ChooseFields {
    /// The columns that are left, under their old names.
    fn left(&self, columns: &Columns) -> Columns {
        let names: Vec<&String> = match (&self.keep, &self.drop) {
            (Some(keep), _) => keep.iter().collect(),
            (None, Some(drop)) => columns.keys().filter(|name| !drop.contains(*name)).collect(),
            (None, None) => columns.keys().collect(),
        };
        names.into_iter().filter_map(|name| Some((name.clone(), columns.get(name)?.clone()))).collect()
    }

    /// Makes the new names columns, those that stay first, so that clashes are reported at the new ones.
    fn rename_columns(&self, check: &mut Check<'_>, left: &Columns) {
        check.columns =
            left.iter().filter(|(name, _)| !self.rename.contains_key(*name)).map(cloned).collect();
        for (old, kind) in left {
            if let Some(new) = self.rename.get(old) {
                check.makes(&format!("rename.{old}"), new, kind.clone());
            }
        }
        let order = left.keys().map(|old| self.rename.get(old).unwrap_or(old));
        check.columns = order.filter_map(|name| check.columns.get_key_value(name).map(cloned)).collect();
    }
}

fn cloned<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

/// Every name listed exists, and is listed once.
fn check_list(check: &mut Check<'_>, key: &str, names: &[String]) {
    let mut seen = HashSet::new();
    for (index, name) in names.iter().enumerate() {
        let key = format!("{key}.{index}");
        exists(check, &key, name);
        if !seen.insert(name) {
            check.problem(&key, format!("`{name}` is listed twice"));
        }
    }
}

/// A field of this very name exists. Names with dots come from files; elsewhere they would be paths.
fn exists(check: &mut Check<'_>, key: &str, name: &str) {
    if check.columns.contains_key(name) {
        return;
    }
    match name.split_once('.') {
        Some((field, _)) if check.columns.contains_key(field) => {
            check.problem(key, format!("`{name}` is a part of the field `{field}`")).hint =
                Some("this step takes whole fields; `set` can lift a part out".to_owned());
        }
        _ => {
            let known = check.columns.keys().cloned().collect();
            let (place, step) = (check.place(key), check.step.clone());
            check.missing.push(Missing { place, step, field: name.to_owned(), known });
        }
    }
}

struct Chosen {
    keep: Option<Vec<String>>,
    drop: HashSet<String>,
    rename: IndexMap<String, String>,
}

impl MapRow for Chosen {
    fn map(&self, mut row: Row) -> Outcome {
        let old = std::mem::take(&mut row.fields);
        let left = match &self.keep {
            Some(keep) => in_order(old, keep),
            None => old,
        };
        let left = left.into_iter().filter(|(name, _)| !self.drop.contains(name));
        let renamed = |name: String| self.rename.get(&name).cloned().unwrap_or(name);
        row.fields = left.map(|(name, value)| (renamed(name), value)).collect();
        Outcome::Keep(row)
    }
}

/// The fields named, in the order of the names; one that the row lacks stays away.
fn in_order(mut fields: Fields, names: &[String]) -> Fields {
    names.iter().filter_map(|name| fields.remove_entry(name)).collect()
}

#[cfg(test)]
mod tests {
    use crate::ops::fixture::{checked, map, open};
    use serde_json::{Value, json};

    /// Columns and fields must agree, in their order too.
    fn check(fields: &Value, expected: Result<&str, &str>) {
        let step = json!({"fields": fields});
        let columns = json!({"a": "text", "b": "integer", "c": {"d": "text"}});
        let found = checked(step.clone(), &columns);
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{fields}");
        let Ok(columns) = found else { return };
        let row = map(&open().kit, step, json!({"a": "text", "b": 1, "c": {"d": "text"}})).unwrap();
        let names: Vec<&String> = row.as_object().unwrap().keys().collect();
        let columns: Vec<&str> = columns.split(", ").filter_map(|column| column.split(':').next()).collect();
        assert_eq!(names, columns, "{fields}");
    }

    #[test]
    fn fields_are_chosen() {
        check(&json!({"keep": ["b", "a"]}), Ok("b: integer, a: text"));
        check(&json!({"drop": ["a", "c"]}), Ok("b: integer"));
        check(&json!({"rename": {"a": "b", "b": "a"}, "drop": ["c"]}), Ok("b: text, a: integer"));
        check(&json!({"keep": ["b", "a"], "rename": {"b": "c"}}), Ok("c: integer, a: text"));
    }

    #[test]
    fn what_cannot_be_chosen_is_a_problem() {
        check(&json!({}), Err("fields: `fields` changes nothing"));
        check(
            &json!({"keep": ["a"], "drop": ["b"]}),
            Err("fields.drop: `keep` and `drop` exclude each other"),
        );
        check(
            &json!({"keep": ["x", "a", "a"]}),
            Err("fields.keep[2]: `a` is listed twice; fields.keep[0]: no field `x`"),
        );
        check(&json!({"keep": []}), Err("fields.keep: no field is left"));
        check(&json!({"keep": ["x"]}), Err("fields.keep[0]: no field `x`"));
        check(&json!({"drop": ["c.d"]}), Err("fields.drop[0]: `c.d` is a part of the field `c`"));
        check(&json!({"drop": ["a", "b", "c"]}), Err("fields.drop: no field is left"));
        check(&json!({"rename": {"x": "y"}}), Err("fields.rename.x: no field `x`"));
        check(&json!({"rename": {"a": "b"}}), Err("fields.rename.a: the field `b` exists already"));
        let message = "fields.rename.b: `b` is not kept, so it cannot be renamed";
        check(&json!({"keep": ["a"], "rename": {"b": "x"}}), Err(message));
    }
}
