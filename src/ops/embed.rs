//! `embed`: have a teacher turn a text into a vector.
//!
//! # What it does
//! Sends the text of a field, or of a template, to a teacher with an `embeddings:` API and puts the vector into a
//! new field, a list of numbers.
//!
//! # When to use it
//! To save vectors beside texts: for search, for clustering, for picking diverse rows later.
//!
//! # Example
//! ```yaml
//! - embed:
//!     teacher: embedder            # embeddings: { url: "https://api.openai.com/v1", model: text-embedding-3-small, … }
//!     text: "{{ title }}\n\n{{ body }}"
//!     into: vector
//!     dimensions: 256
//! ```
//!
//! # Limits
//! The same text gets the same vector: rows with it share one call. One call has one text. An empty text is
//! rejected `empty`, one that the model does not take `too_long`. A vector with another length than `dimensions`,
//! or than those before it in the run, fails its row: a column of vectors has one length.

use std::sync::OnceLock;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::call::{Asked, Caller, Draw, Pause};
use crate::kit::{Check, Kit};
use crate::ops::ask::{Unanswered, check_extra};
use crate::ops::text_field::TextField;
use crate::ops::{Asks, CallRow, Operator, Runner};
use crate::row::{Failure, Fields, Outcome, Reason, Row, Type};
use crate::teacher::{Message, Request, Role};
use crate::template::Template;

/// Have a teacher turn a text into a vector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "embed", deny_unknown_fields)]
pub struct Embed {
    /// The teacher to ask: one with an `embeddings:` API.
    pub teacher: String,
    /// The field that holds the text.
    pub field: Option<String>,
    /// The text as a template, instead of `field`.
    pub text: Option<String>,
    /// The field that takes the vector.
    pub into: String,
    /// How many numbers the vector has, for models that can shorten it.
    pub dimensions: Option<u32>,
    /// Any other key of the request body, as the server knows it.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl Operator for Embed {
    fn check(&self, check: &mut Check<'_>) {
        check.embedder("teacher", &self.teacher);
        match (&self.field, &self.text) {
            (Some(_), Some(_)) => {
                check.problem("text", "`field` and `text` exclude each other");
            }
            (Some(field), None) => TextField::check(check, "field", field),
            (None, Some(text)) => drop(check.template("text", text)),
            (None, None) => {
                check.problem("", "the text is missing").hint =
                    Some("give `field:` or a template as `text:`".to_owned());
            }
        }
        if self.dimensions == Some(0) {
            check.problem("dimensions", "`dimensions` must be at least 1");
        }
        check_extra(check, &self.extra);
        check.makes("into", &self.into, Type::List(Box::new(Type::Number)));
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let text = match (&self.field, &self.text) {
            (Some(field), _) => Text::Field(TextField::new(field)),
            (None, Some(text)) => Text::Template(kit.template(text)?),
            (None, None) => anyhow::bail!("the text is missing"),
        };
        let length = OnceLock::new();
        if let Some(dimensions) = self.dimensions {
            let _ = length.set(dimensions as usize);
        }
        Ok(vec![Runner::Call(Box::new(Vectors {
            caller: kit.caller(&self.teacher)?,
            text,
            into: self.into.clone(),
            dimensions: self.dimensions,
            extra: self.extra.clone(),
            length,
        }))])
    }

    fn default_name(&self) -> Option<&str> {
        Some(&self.into)
    }

    fn asks(&self) -> Vec<Asks<'_>> {
        // Nothing is written.
        vec![Asks::once(&self.teacher, Some(0), false)]
    }
}

enum Text {
    Field(TextField),
    Template(Template),
}

impl Text {
    fn of(&self, fields: &Fields) -> Result<String, Reason> {
        let text = match self {
            Text::Field(field) => field.of(fields)?.to_owned(),
            Text::Template(template) => template
                .render(fields)
                .map_err(|error| Reason::new("bad_template", json!({"error": error.message})))?,
        };
        if text.trim().is_empty() {
            return Err(Reason::new("empty", json!({"text": text})));
        }
        Ok(text)
    }
}

struct Vectors {
    caller: Caller,
    text: Text,
    into: String,
    dimensions: Option<u32>,
    extra: Map<String, Value>,
    /// Of all vectors: what was asked for, or the first one's.
    length: OnceLock<usize>,
}

impl Vectors {
    async fn vector(&self, row: &mut Row) -> Result<Value, Unanswered> {
        let text = self.text.of(&row.fields).map_err(Unanswered::Rejected)?;
        let request = Request {
            messages: vec![Message { role: Role::User, content: text }],
            dimensions: self.dimensions,
            max_tokens: Some(0),
            extra: self.extra.clone(),
            ..Request::default()
        };
        let Asked { answer, mark } = self.caller.ask(row, Draw::Request, 0, &request).await?;
        row.calls.push(mark);
        let vector: Vec<Value> = serde_json::from_str(&answer.text).unwrap_or_default();
        let wanted = *self.length.get_or_init(|| vector.len());
        if vector.len() != wanted {
            let message = format!("the vector has {} numbers, not {wanted}", vector.len());
            return Err(Unanswered::Failed(Failure::new("vector_length", message)));
        }
        Ok(Value::Array(vector))
    }
}

impl CallRow for Vectors {
    fn call(&self, mut row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        async move {
            match self.vector(&mut row).await {
                Ok(vector) => {
                    row.fields.insert(self.into.clone(), vector);
                    Ok(Outcome::Keep(row))
                }
                Err(unanswered) => unanswered.outcome(row),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::checked;

    #[test]
    fn a_step_has_one_text() {
        let check = |config: Value, expected: &str| {
            let found = checked(json!({"embed": config}), &json!({"body": "string", "n": "integer"}));
            let found = found.unwrap_err();
            let found = found.strip_prefix("embed.teacher: there is no teacher `t`").unwrap();
            assert_eq!(found.trim_start_matches("; "), expected);
        };
        let with = |more: Value| crate::ops::fixture::with(json!({"teacher": "t", "into": "v"}), more);
        check(with(json!({"field": "body"})), "");
        check(with(json!({"text": "{{ body }}", "dimensions": 8})), "");
        check(with(json!({})), "embed: the text is missing");
        check(with(json!({"field": "n"})), "embed.field: `n` is integer, not text");
        check(
            with(json!({"field": "body", "text": "x"})),
            "embed.text: `field` and `text` exclude each other",
        );
        check(
            with(json!({"field": "body", "dimensions": 0})),
            "embed.dimensions: `dimensions` must be at least 1",
        );
    }
}
