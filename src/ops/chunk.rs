//! `chunk`: cut a long text into passages, one row each.
//!
//! # What it does
//! Splits each row into one row per passage of its text. Every passage has at most `max_tokens` tokens and
//! is a part of the text as it stands, white space at its ends cut off; together they cover all of it. By
//! structure (the default), cuts fall at Markdown headings, else between paragraphs, else between
//! sentences, and code blocks stay whole where they can; by tokens, every `max_tokens` tokens, wherever
//! that is. The other fields are copied to every passage; the long text itself is dropped unless `keep:
//! true`.
//!
//! # When to use it
//! Before asking a teacher about documents that are longer than its context or its attention: questions
//! from book chapters, rewrites of web pages, summaries of manuals.
//!
//! # Example
//! ```yaml
//! - chunk:
//!     field: text
//!     into: passage
//!     max_tokens: 800
//!     overlap_tokens: 80
//!     position: part
//! ```
//!
//! # Limits
//! A text without anything but white space is rejected `empty`, one of more than 64 MiB `too_long`, and
//! anything that is no text `type_mismatch`. Tokens are those of OpenAI's vocabularies (`encoding`);
//! another model may count some more or less. By structure, `overlap_tokens` is an upper bound: whole
//! sentences are repeated, none if that does not fit; it is at most half of `max_tokens`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kit::{Check, Columns, Kit};
use crate::ops::text_field::TextField;
use crate::ops::{MapRow, Operator, Runner};
use crate::row::{FieldPath, Fields, Outcome, Reason, Row, Type};
use crate::text::chunk::{CutBy, Settings, TEXT_BYTES_MAX, TOKENS_MIN, chunk};
use crate::text::tokens::Encoding;

/// Cut a long text into passages, one row each.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "chunk", deny_unknown_fields)]
pub struct Chunk {
    /// The field that holds the text, or a key inside one: `page.text`.
    pub field: String,
    /// The field that takes the passage; the name of the dropped field is free for it.
    pub into: String,
    /// Most tokens of a passage, at least 8.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    /// Tokens at the end of a passage that the next one repeats; at most half of `max_tokens`.
    #[serde(default)]
    pub overlap_tokens: usize,
    /// Where to cut.
    #[serde(default)]
    pub by: CutBy,
    /// The vocabulary that tokens are counted with.
    #[serde(default)]
    pub encoding: Encoding,
    /// A field that takes the passage's number within its text, from 0.
    pub position: Option<String>,
    /// Keep the long text beside every passage.
    #[serde(default)]
    pub keep: bool,
}

/// What fits next to a prompt and an answer in any model of today.
fn max_tokens() -> usize {
    512
}

impl Chunk {
    fn settings(&self) -> Settings {
        Settings {
            by: self.by,
            encoding: self.encoding,
            tokens_max: self.max_tokens,
            tokens_overlap: self.overlap_tokens,
        }
    }
}

impl Operator for Chunk {
    fn check(&self, check: &mut Check<'_>) {
        TextField::check(check, "field", &self.field);
        if let Err(message) = self.settings().check() {
            let key = if self.max_tokens < TOKENS_MIN { "max_tokens" } else { "overlap_tokens" };
            check.problem(key, message);
        }
        if !self.keep {
            forget(&mut check.columns, &FieldPath::parse(&self.field));
        }
        check.makes("into", &self.into, Type::Text);
        if let Some(position) = &self.position {
            check.makes("position", position, Type::Integer);
        }
    }

    fn build(&self, _: &Kit) -> anyhow::Result<Vec<Runner>> {
        let cut = Cut {
            field: TextField::new(&self.field),
            into: self.into.clone(),
            settings: self.settings(),
            position: self.position.clone(),
            keep: self.keep,
        };
        Ok(vec![Runner::Map(Box::new(cut))])
    }

    fn rows_per_row(&self) -> Option<u32> {
        None
    }
}

/// Takes a path out of the columns, and objects that are empty without it.
fn forget(columns: &mut Columns, path: &FieldPath) {
    let is_gone = match (path.keys(), columns.get_mut(path.field())) {
        (_, None) => false,
        ([], Some(_)) => true,
        (keys, Some(kind)) => take_out(kind, keys),
    };
    if is_gone {
        columns.shift_remove(path.field());
    }
}

/// Takes a path out of an object's type; whether nothing is left of it.
fn take_out(kind: &mut Type, keys: &[String]) -> bool {
    let (Type::Object(fields), Some((first, rest))) = (kind, keys.split_first()) else { return false };
    fields.retain_mut(|(name, inner)| name != first || !(rest.is_empty() || take_out(inner, rest)));
    fields.is_empty()
}

/// Takes the value at a path out of a row.
fn remove(fields: &mut Fields, path: &FieldPath) {
    let Some((last, between)) = path.keys().split_last() else {
        fields.shift_remove(path.field());
        return;
    };
    let start = fields.get_mut(path.field());
    let parent = between.iter().fold(start, |value, key| value?.get_mut(key.as_str()));
    if let Some(Value::Object(parent)) = parent {
        parent.shift_remove(last);
    }
}

struct Cut {
    field: TextField,
    into: String,
    settings: Settings,
    position: Option<String>,
    keep: bool,
}

impl Cut {
    fn children(&self, fields: &Fields) -> Result<Vec<Fields>, Reason> {
        let text = self.field.of(fields)?;
        let passages = chunk(text, &self.settings).map_err(|_| {
            // The settings are sound, so it is the length.
            Reason::new("too_long", json!({"bytes": text.len(), "bytes_max": TEXT_BYTES_MAX}))
        })?;
        let mut common = fields.clone();
        if !self.keep {
            remove(&mut common, self.field.path());
        }
        let child = |(index, passage): (usize, &str)| {
            let mut child = common.clone();
            child.insert(self.into.clone(), passage.into());
            if let Some(position) = &self.position {
                child.insert(position.clone(), index.into());
            }
            child
        };
        Ok(passages.iter().map(|passage| passage.text).enumerate().map(child).collect())
    }
}

impl MapRow for Cut {
    fn map(&self, row: Row) -> Outcome {
        match self.children(&row.fields) {
            Ok(children) => Outcome::split(row, children),
            Err(reason) => Outcome::Reject(row, reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture;

    fn check(more: Value, fields: &Value, expected: &Value) {
        let config = fixture::with(json!({"field": "text", "into": "passage", "max_tokens": 8}), more);
        let folder = tempfile::tempdir().unwrap();
        let Runner::Map(cut) = fixture::built::<Chunk>(config, &fixture::kit(folder.path())) else {
            panic!("it is a map");
        };
        assert_eq!(&fixture::shown(cut.map(fixture::row("0", fields))), expected, "{fields}");
    }

    const TWO: &str = "# A\n\nOne is here.\n\n# B\n\nTwo is there.\n";

    #[test]
    fn texts_become_passages() {
        let (one, two) = ("# A\n\nOne is here.", "# B\n\nTwo is there.");
        check(
            json!({"max_tokens": 9}),
            &json!({"text": TWO, "n": 1}),
            &json!([{"n": 1, "passage": one}, {"n": 1, "passage": two}]),
        );
        check(
            json!({"max_tokens": 9, "keep": true, "position": "part"}),
            &json!({"text": TWO}),
            &json!([{"text": TWO, "passage": one, "part": 0}, {"text": TWO, "passage": two, "part": 1}]),
        );
        check(
            json!({"field": "page.text", "into": "text"}),
            &json!({"page": {"text": "Short.", "url": "u"}}),
            &json!([{"page": {"url": "u"}, "text": "Short."}]),
        );
        check(
            json!({"by": "tokens", "overlap_tokens": 2, "encoding": "cl100k_base"}),
            &json!({"text": "one two three four five six seven eight nine ten"}),
            &json!([{"passage": "one two three four five six seven eight"}, {"passage": "seven eight nine ten"}]),
        );
    }

    #[test]
    fn what_cannot_be_cut_is_rejected() {
        check(json!({}), &json!({"text": " \n"}), &json!({"rejected": "empty", "evidence": null}));
        let evidence = json!({"field": "text", "type": "text", "value": [1]});
        check(json!({}), &json!({"text": [1]}), &json!({"rejected": "type_mismatch", "evidence": evidence}));
    }

    fn check_config(config: Value, problems: &[&str], columns: &[(&str, Type)]) {
        let page = Type::Object(vec![("text".into(), Type::Text), ("url".into(), Type::Text)]);
        let lone = Type::Object(vec![("text".into(), Type::Text)]);
        let before = [("n", Type::Integer), ("page", page), ("lone", lone)];
        let (found, after) = fixture::checked_config::<Chunk>(config, &before);
        assert_eq!(found, problems);
        for (name, kind) in columns {
            assert_eq!(after.get(*name), Some(kind), "{name}");
        }
    }

    #[test]
    fn configs_are_checked() {
        check_config(
            json!({"field": "n", "into": "a", "max_tokens": 10, "overlap_tokens": 6, "keep": true}),
            &[
                "field: `n` is integer, not text",
                "overlap_tokens: an overlap of 6 tokens is more than half a passage, 5",
            ],
            &[("n", Type::Integer), ("a", Type::Text)],
        );
        check_config(
            json!({"field": "txet", "into": "n", "max_tokens": 0, "position": "p"}),
            &[
                "max_tokens: passages of 0 tokens are too short; the least is 8",
                "into: the field `n` exists already",
                "field: no field `txet`",
            ],
            &[("p", Type::Integer)],
        );
    }

    #[test]
    fn dropped_texts_leave_the_columns() {
        let page = Type::Object(vec![("url".into(), Type::Text)]);
        check_config(json!({"field": "page.text", "into": "text"}), &[], &[("page", page)]);
        // The name of an object that is empty without its text is free again.
        check_config(json!({"field": "lone.text", "into": "lone"}), &[], &[("lone", Type::Text)]);
    }
}
