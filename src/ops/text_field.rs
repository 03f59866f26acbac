//! The text that an operator works on: a field, or a key inside one, that must hold text.
//!
//! Not an operator. What happens to rows that have no text there is decided here, once.

use serde_json::json;

use crate::kit::Check;
use crate::row::{FieldPath, Fields, Reason, Type, Value};

/// The way to a text inside a row: `text`, or `exercise.solution`.
pub struct TextField(FieldPath);

impl TextField {
    pub fn new(path: &str) -> TextField {
        TextField(FieldPath::parse(path))
    }

    /// Reports a path that leads to no field, or to one that cannot be text.
    pub fn check(check: &mut Check<'_>, key: &str, path: &str) {
        match check.reads(key, path) {
            None | Some(Type::Text | Type::Json) => {}
            Some(other) => {
                check.problem(key, format!("`{path}` is {other}, not text"));
            }
        }
    }

    pub fn path(&self) -> &FieldPath {
        &self.0
    }

    /// The row's text; anything else, null and nothing included, rejects the row `type_mismatch`.
    pub fn of<'a>(&self, fields: &'a Fields) -> Result<&'a str, Reason> {
        self.0.text(fields).ok_or_else(|| {
            let value = self.0.value(fields).unwrap_or(&Value::Null);
            Reason::new("type_mismatch", json!({"field": self.0.to_string(), "type": "text", "value": value}))
        })
    }

    /// Puts a rewritten text into a new field, or in the old one's place.
    pub fn put(&self, fields: &mut Fields, into: Option<&str>, text: String) {
        if let Some(field) = into {
            fields.insert(field.to_owned(), text.into());
        } else if let Some(place) = self.0.text_mut(fields) {
            *place = text;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, fields: &Value, expected: Result<&str, &Value>) {
        let fields = fields.as_object().unwrap();
        let found = TextField::new(path).of(fields);
        let wrong =
            |value| Reason::new("type_mismatch", json!({"field": path, "type": "text", "value": value}));
        assert_eq!(found, expected.map_err(wrong), "{path}");
    }

    #[test]
    fn only_texts_are_texts() {
        check("a", &json!({"a": "x"}), Ok("x"));
        check("a.b", &json!({"a": {"b": ""}}), Ok(""));
        check("a", &json!({"a": 3}), Err(&json!(3)));
        check("a", &json!({"a": null}), Err(&Value::Null));
        check("a.b", &json!({"a": "x"}), Err(&Value::Null));
    }

    #[test]
    fn texts_are_put_in_place_or_into_a_field() {
        let put = |path: &str, into: Option<&str>| {
            let mut fields = json!({"a": {"b": "x"}}).as_object().cloned().unwrap();
            TextField::new(path).put(&mut fields, into, "y".to_owned());
            Value::from(fields)
        };
        assert_eq!(put("a.b", None), json!({"a": {"b": "y"}}));
        assert_eq!(put("a.b", Some("c")), json!({"a": {"b": "x"}, "c": "y"}));
    }
}
