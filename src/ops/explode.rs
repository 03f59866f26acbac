//! `explode`: make a row of each item of a list.
//!
//! # What it does
//! Splits a row into one row for each item of a list. Each has all other fields of the row and its item in
//! `into`; the list itself is left out, unless `keep: true`. `position` numbers the items from 0.
//!
//! # When to use it
//! After a step that writes a list: an outline's sections, ten questions in one answer, the passages of a
//! document. It is cheaper to ask for many short things at once and split than to ask for each.
//!
//! # Example
//! ```yaml
//! - generate: { teacher: writer, prompt: outline.md.j2, into: outline, json: { sections: [{ title: string }] } }
//! - explode: { field: outline.sections, into: section, position: section_number }
//! ```
//!
//! # Limits
//! Items that are objects stay objects; their parts are at `section.title`. `into` may have the name of the
//! list's own field. An empty list rejects the row `empty`, a value that is no list `not_a_list`. Rows that
//! would together take more than 256 MiB reject it `too_large`: take big fields out before, with `fields`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::kit::{Check, Kit};
use crate::ops::{MapRow, Operator, Runner};
use crate::row::{FieldPath, Fields, Outcome, Reason, Row, Type, Value};

/// Most bytes of all the rows that one row is split into, about. Its other fields are copied to each of
/// them, so that a long list beside a long text could fill the memory.
const CHILDREN_BYTES_MAX: usize = 256 << 20;

/// Make a row of each item of a list.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "explode", deny_unknown_fields)]
pub struct Explode {
    /// The list: a field, or a path such as `outline.sections`.
    pub field: String,
    /// The field that takes the item.
    pub into: String,
    /// A field that takes the item's place in the list, from 0.
    pub position: Option<String>,
    /// Leaves the list in each row.
    #[serde(default)]
    pub keep: bool,
}

impl Operator for Explode {
    fn check(&self, check: &mut Check<'_>) {
        let item = match check.reads("field", &self.field) {
            Some(Type::List(item)) => *item,
            Some(Type::Json) | None => Type::Json,
            Some(other) => {
                check.problem("field", format!("`{}` is {other}, not a list", self.field));
                Type::Json
            }
        };
        if !self.keep {
            remove_column(check, &self.field);
        }
        check.makes("into", &self.into, item);
        if let Some(position) = &self.position {
            check.makes("position", position, Type::Integer);
        }
    }

    fn build(&self, _kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        Ok(vec![Runner::Map(Box::new(Exploded {
            config: self.clone(),
            field: FieldPath::parse(&self.field),
        }))])
    }

    /// Not where it would be the name of the step that made the list.
    fn default_name(&self) -> Option<&str> {
        (self.into != self.field).then_some(&self.into)
    }

    fn rows_per_row(&self) -> Option<u32> {
        None
    }
}

fn remove_column(check: &mut Check<'_>, path: &str) {
    match path.split_once('.') {
        None => {
            check.columns.shift_remove(path);
        }
        Some((field, rest)) => {
            if let Some(kind) = check.columns.get_mut(field) {
                remove_type(kind, rest);
            }
        }
    }
}

fn remove_type(kind: &mut Type, path: &str) {
    let Type::Object(fields) = kind else { return };
    match path.split_once('.') {
        None => fields.retain(|(name, _)| name != path),
        Some((key, rest)) => {
            if let Some((_, kind)) = fields.iter_mut().find(|(name, _)| name == key) {
                remove_type(kind, rest);
            }
        }
    }
}

fn remove_value(fields: &mut Fields, path: &str) {
    match path.split_once('.') {
        None => {
            fields.shift_remove(path);
        }
        Some((key, rest)) => {
            if let Some(inner) = fields.get_mut(key).and_then(Value::as_object_mut) {
                remove_value(inner, rest);
            }
        }
    }
}

struct Exploded {
    config: Explode,
    field: FieldPath,
}

impl Exploded {
    /// The fields that all children share.
    fn shared(&self, row: &Row) -> Row {
        let mut shared = row.clone();
        if !self.config.keep {
            remove_value(&mut shared.fields, &self.config.field);
        }
        shared
    }

    fn child(&self, shared: &Fields, index: usize, item: &Value) -> Fields {
        let mut fields = shared.clone();
        fields.insert(self.config.into.clone(), item.clone());
        if let Some(position) = &self.config.position {
            fields.insert(position.clone(), Value::from(index));
        }
        fields
    }
}

impl MapRow for Exploded {
    fn map(&self, row: Row) -> Outcome {
        let value = self.field.value(&row.fields);
        let Some(items) = value.and_then(Value::as_array) else {
            let evidence = json!({"field": self.config.field, "value": value});
            return Outcome::Reject(row, Reason::new("not_a_list", evidence));
        };
        let shared = self.shared(&row);
        let bytes = shared.bytes().saturating_mul(items.len()).saturating_add(row.bytes());
        if bytes > CHILDREN_BYTES_MAX {
            let evidence = json!({"items": items.len(), "bytes": bytes, "bytes_max": CHILDREN_BYTES_MAX});
            return Outcome::Reject(row, Reason::new("too_large", evidence));
        }
        let child = |(index, item)| self.child(&shared.fields, index, item);
        let children = items.iter().enumerate().map(child).collect();
        Outcome::split(row, children)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::{checked, map, open};

    fn check(explode: &Value, row: Value, expected: Result<Value, &str>) {
        let found = map(&open().kit, json!({"explode": explode}), row);
        assert_eq!(found, expected.map_err(str::to_owned), "{explode}");
    }

    #[test]
    fn lists_become_rows() {
        let explode = json!({"field": "l", "into": "i"});
        let children = json!([{"a": 1, "i": "x"}, {"a": 1, "i": {"y": 2}}]);
        check(&explode, json!({"l": ["x", {"y": 2}], "a": 1}), Ok(children));
        check(&explode, json!({"l": []}), Err("empty null"));
        check(&explode, json!({"l": "x"}), Err(r#"not_a_list {"field":"l","value":"x"}"#));
        check(&explode, json!({}), Err(r#"not_a_list {"field":"l","value":null}"#));
        let explode = json!({"field": "o.l", "into": "l", "position": "n"});
        let children = json!([{"o": {"a": 1}, "l": "x", "n": 0}, {"o": {"a": 1}, "l": "y", "n": 1}]);
        check(&explode, json!({"o": {"l": ["x", "y"], "a": 1}}), Ok(children));
        let explode = json!({"field": "l", "into": "i", "keep": true});
        check(&explode, json!({"l": ["x"]}), Ok(json!([{"l": ["x"], "i": "x"}])));
        check(&json!({"field": "l", "into": "l"}), json!({"l": ["x"]}), Ok(json!([{"l": "x"}])));
    }

    #[test]
    fn what_would_not_fit_in_memory_is_rejected() {
        let row = json!({"l": vec![0; 1 << 10], "a": "x".repeat(1 << 18)});
        let reason = map(&open().kit, json!({"explode": {"field": "l", "into": "i"}}), row).unwrap_err();
        assert!(reason.starts_with(r#"too_large {"items":1024,"bytes":26"#), "{reason}");
    }

    #[test]
    fn columns_follow() {
        let check = |explode: &Value, expected: Result<&str, &str>| {
            let columns = json!({"l": ["integer"], "o": {"l": ["text"], "a": "text"}});
            let found = checked(json!({"explode": explode}), &columns);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{explode}");
        };
        let object = "o: object {l: list of text, a: text}";
        check(
            &json!({"field": "l", "into": "l", "position": "n"}),
            Ok(&format!("{object}, l: integer, n: integer")),
        );
        check(&json!({"field": "o.l", "into": "i"}), Ok("l: list of integer, o: object {a: text}, i: text"));
        check(
            &json!({"field": "l", "into": "i", "keep": true}),
            Ok(&format!("l: list of integer, {object}, i: integer")),
        );
        check(&json!({"field": "o.a", "into": "i"}), Err("explode.field: `o.a` is text, not a list"));
        check(
            &json!({"field": "x", "into": "o"}),
            Err("explode.into: the field `o` exists already; explode.field: no field `x`"),
        );
        let message = "explode.into: the field `l` exists already";
        check(&json!({"field": "l", "into": "l", "keep": true}), Err(message));
    }
}
