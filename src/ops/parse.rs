//! `parse`: read code, JSON, a tagged part or a list out of a text.
//!
//! # What it does
//! Finds one thing in a text and puts it into a new field: with `code: python` the fenced code block, with
//! `json:` (or `json_schema:`) an object or list that fits, with `tag: answer` what stands between
//! `<answer>` and `</answer>`, with `list: true` the items of a list.
//!
//! # When to use it
//! When one reply holds several things to take apart (a solution in a tag and code beside it), or when
//! texts come from a file. An answer that has just one form is read by `generate` itself, which can also
//! show the model what was wrong.
//!
//! # Example
//! ```yaml
//! - parse: { field: reply, tag: reasoning, into: reasoning }
//! - parse: { field: reply, code: python, into: solution }
//! ```
//!
//! # Limits
//! Repairs only what can be repaired without loss (a trailing comma, single quotes). A text without the
//! thing looked for, or with one that is cut off or empty, is rejected `unparsable` with the text as
//! evidence; a value that is no text is rejected `not_a_text`. Of several code blocks the first in the
//! language counts, of several tags the last. A text without any fence is taken for code as a whole.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kit::{Check, Kit};
use crate::ops::ask::{Form, FormFile};
use crate::ops::{MapRow, Operator, Runner};
use crate::row::{FieldPath, Outcome, Reason, Row, Type};

/// Read code, JSON, a tagged part or a list out of a text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "parse", deny_unknown_fields)]
pub struct Parse {
    /// The text to read: a field, or a path such as `exercise.solution`.
    pub field: String,
    /// The field that takes what was found.
    pub into: String,
    /// Find a fenced code block in this language.
    pub code: Option<String>,
    /// Find JSON of this shape, in short-hand: `{ title: string, tags: [string], note?: string }`.
    pub json: Option<Value>,
    /// Find JSON that fits this JSON Schema.
    pub json_schema: Option<Value>,
    /// Find what stands between `<tag>` and `</tag>`.
    pub tag: Option<String>,
    /// Find a list; the field holds its items.
    #[serde(default)]
    pub list: bool,
}

impl Parse {
    fn form_file(&self) -> FormFile<'_> {
        FormFile {
            json: self.json.as_ref(),
            json_schema: self.json_schema.as_ref(),
            list: self.list,
            code: self.code.as_deref(),
            tag: self.tag.as_deref(),
        }
    }
}

impl Operator for Parse {
    fn check(&self, check: &mut Check<'_>) {
        if let Some(kind) = check.reads("field", &self.field)
            && !matches!(kind, Type::Text | Type::Json)
        {
            check.problem("field", format!("`{}` is {kind}; only a text can be parsed", self.field));
        }
        let form = self.form_file();
        if form.is_text() {
            check.problem("", "what to find in the text is not said").hint =
                Some("give one of `code`, `json`, `json_schema`, `tag`, `list`".to_owned());
        }
        let kind = form.check(check);
        check.makes("into", &self.into, kind);
    }

    fn build(&self, _kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let form = self.form_file().build()?;
        let field = FieldPath::parse(&self.field);
        Ok(vec![Runner::Map(Box::new(Parsed { field, form, into: self.into.clone() }))])
    }

    fn default_name(&self) -> Option<&str> {
        Some(&self.into)
    }
}

struct Parsed {
    field: FieldPath,
    form: Form,
    into: String,
}

impl MapRow for Parsed {
    fn map(&self, mut row: Row) -> Outcome {
        let Some(text) = self.field.text(&row.fields) else {
            let evidence = json!({"field": self.field.to_string(), "value": self.field.value(&row.fields)});
            return Outcome::Reject(row, Reason::new("not_a_text", evidence));
        };
        match self.form.read(text) {
            Ok(value) => {
                row.fields.insert(self.into.clone(), value);
                Outcome::Keep(row)
            }
            Err(error) => {
                let evidence = json!({"error": error, "text": text});
                Outcome::Reject(row, Reason::new("unparsable", evidence))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::{checked, map, open};

    fn step(form: &Value) -> Value {
        let mut step = json!({"field": "reply.text", "into": "x"});
        step.as_object_mut().unwrap().extend(form.as_object().unwrap().clone());
        json!({"parse": step})
    }

    fn check(form: &Value, text: &Value, expected: Result<Value, &str>) {
        let found = map(&open().kit, step(form), json!({"reply": {"text": text}}));
        let found = found.map(|mut row| row["x"].take());
        match (found, expected) {
            (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}"),
            (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{form}"),
        }
    }

    #[test]
    fn parts_are_found_or_the_row_is_rejected() {
        check(&json!({"code": "python"}), &json!("So:\n```py\nx = 1\n```"), Ok(json!("x = 1")));
        check(&json!({"json": {"a": "integer"}}), &json!("So: {\"a\": 1,}"), Ok(json!({"a": 1})));
        check(&json!({"tag": "answer"}), &json!("<answer> 42 </answer>"), Ok(json!("42")));
        check(&json!({"list": true}), &json!("1. a\n2. b"), Ok(json!(["a", "b"])));
        let missing =
            r#"unparsable {"error":"the answer holds no complete ```python block","text":"```py\nx"}"#;
        check(&json!({"code": "python"}), &json!("```py\nx"), Err(missing));
        check(&json!({"json": {"a": "integer"}}), &json!("{\"a\": \"x\"}"), Err("unparsable"));
        let missing =
            r#"unparsable {"error":"the answer holds no complete `<answer>` … `</answer>`","text":"42"}"#;
        check(&json!({"tag": "answer"}), &json!("42"), Err(missing));
        let empty = r#"unparsable {"error":"nothing stands in `<answer>`""#;
        check(&json!({"tag": "answer"}), &json!("<answer> </answer>"), Err(empty));
        check(&json!({"list": true}), &json!("none"), Err("unparsable"));
        check(&json!({"list": true}), &json!(3), Err(r#"not_a_text {"field":"reply.text","value":3}"#));
    }

    #[test]
    fn the_form_says_the_type() {
        let check = |form: &Value, expected: Result<&str, &str>| {
            let found = checked(step(form), &json!({"reply": {"text": "text", "n": "integer"}}));
            let found = found.map(|columns| columns.split("x: ").last().unwrap_or_default().to_owned());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{form}");
        };
        check(&json!({"code": "python"}), Ok("text"));
        check(&json!({"tag": "answer"}), Ok("text"));
        check(&json!({"list": true}), Ok("list of text"));
        check(&json!({"json": {"a": "integer"}}), Ok("object {a: integer}"));
        check(&json!({}), Err("parse: what to find in the text is not said"));
        let message = "parse.tag: `code` and `tag` exclude each other: an answer has one form";
        check(&json!({"code": "c", "tag": "a"}), Err(message));
        check(&json!({"tag": "<a>"}), Err("parse.tag: `<a>` cannot name a tag"));
        let message = "parse.field: `reply.n` is integer; only a text can be parsed";
        check(&json!({"list": true, "field": "reply.n"}), Err(message));
        check(&json!({"list": true, "into": "reply"}), Err("parse.into: the field `reply` exists already"));
    }
}
