//! `normalize`: rewrite a text into a plain form without changing what it says.
//!
//! # What it does
//! Rewrites a text in its field, or into a new one with `into`:
//!
//! - `whitespace: true` (the default): every line end is `\n`; blanks of other widths, such as the
//!   non-breaking one, are spaces; no line ends with blanks, the text neither begins nor ends with blank
//!   lines, and of more than two blank lines in a row two stay. Indentation and tabs stay.
//! - `control: drop` (the default): control codes and what else cannot be seen goes: NUL, zero-width spaces,
//!   soft hyphens, byte order marks, signs that turn the direction of writing, tags. Zero-width joiners stay
//!   between letters of Persian, Hindi and the like, and in emoji.
//! - `unicode: nfc` (the default): each letter is encoded in one way (UAX #15). `nfkc` also makes `ﬁ` `fi`,
//!   `²` `2` and full-width letters plain. `none` leaves all as it is.
//! - `fences: unwrap` takes off a Markdown code fence around the whole text, if it says `markdown`, `md`,
//!   `text`, `txt` or `plaintext`: models like to wrap an answer so. `balance` closes a fence that nothing
//!   closes, `strip` drops all fences and keeps what they hold; `keep` is the default.
//! - `quotes: straight` makes `“a” ‘b’` into `"a" 'b'`; `keep` is the default.
//!
//! # When to use it
//! Early, before texts are compared, judged and counted: on texts from files, and on what a model wrote. To
//! overlook such differences only while comparing, `dedup_exact` and `dedup_near` have a `normalize` of
//! their own; to take the code out of an answer there is `parse`.
//!
//! # Example
//! ```yaml
//! - normalize: { field: answer, fences: unwrap, quotes: straight }
//! ```
//!
//! # Limits
//! A text of which nothing is left is rejected `empty`; what is no text is rejected `type_mismatch`. Two
//! blanks at a line's end, which are a line break in Markdown, go. Marks of direction in Arabic and Hebrew
//! go, too: the letters stay in order, but brackets beside them may be shown elsewhere. Text hidden in tags
//! or zero-width characters is gone, not reported.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::kit::{Check, Kit};
use crate::ops::text_field::TextField;
use crate::ops::{MapRow, Operator, Runner};
use crate::row::{Fields, Outcome, Reason, Row, Type};
use crate::text::tidy::{Control, Fences, Quotes, Tidy, Unicode};

/// Rewrite a text into a plain form without changing what it says.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "normalize", deny_unknown_fields)]
pub struct Normalize {
    /// The field that holds the text, or a key inside one: `page.text`.
    pub field: String,
    /// A new field for the rewritten text; by default it replaces the old one.
    pub into: Option<String>,
    /// How letters are encoded: `nfc` by default.
    #[serde(default)]
    pub unicode: Unicode,
    /// Plain blanks and line ends, none too many. On by default.
    #[serde(default = "on")]
    pub whitespace: bool,
    /// What happens to Markdown's code fences: `keep` by default.
    #[serde(default)]
    pub fences: Fences,
    /// What happens to curly quotation marks: `keep` by default.
    #[serde(default)]
    pub quotes: Quotes,
    /// What happens to characters that cannot be seen: `drop` by default.
    #[serde(default)]
    pub control: Control,
}

fn on() -> bool {
    true
}

impl Normalize {
    fn tidy(&self) -> Tidy {
        Tidy {
            unicode: self.unicode,
            whitespace: self.whitespace,
            fences: self.fences,
            quotes: self.quotes,
            control: self.control,
        }
    }
}

impl Operator for Normalize {
    fn check(&self, check: &mut Check<'_>) {
        TextField::check(check, "field", &self.field);
        if self.tidy().is_idle() {
            check.problem("", "everything is switched off: the step does nothing");
        }
        if let Some(field) = &self.into {
            check.makes("into", field, Type::Text);
        }
    }

    fn build(&self, _: &Kit) -> anyhow::Result<Vec<Runner>> {
        let field = TextField::new(&self.field);
        Ok(vec![Runner::Map(Box::new(Normalizing { field, into: self.into.clone(), tidy: self.tidy() }))])
    }

    fn default_name(&self) -> Option<&str> {
        self.into.as_deref()
    }
}

struct Normalizing {
    field: TextField,
    into: Option<String>,
    tidy: Tidy,
}

impl Normalizing {
    /// The rewritten text, of which something must be left.
    fn rewritten(&self, fields: &Fields) -> Result<String, Reason> {
        let text = self.field.of(fields)?;
        let tidied = self.tidy.apply(text);
        if tidied.trim().is_empty() {
            let evidence =
                json!({"field": self.field.path().to_string(), "characters": text.chars().count()});
            return Err(Reason::new("empty", evidence));
        }
        Ok(tidied.into_owned())
    }
}

impl MapRow for Normalizing {
    fn map(&self, mut row: Row) -> Outcome {
        match self.rewritten(&row.fields) {
            Ok(text) => {
                self.field.put(&mut row.fields, self.into.as_deref(), text);
                Outcome::Keep(row)
            }
            Err(reason) => Outcome::Reject(row, reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::{self, checked, map, open};
    use serde_json::Value;

    fn check(more: Value, fields: Value, expected: Result<Value, &str>) {
        let step = json!({"normalize": fixture::with(json!({"field": "reply.text"}), more)});
        let found = map(&open().kit, step, fields);
        assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|error| *error));
    }

    #[test]
    fn texts_are_rewritten_in_place_or_into_a_field() {
        let wrapped = "```markdown\r\n# “Caf\u{65}\u{301}” \r\n```\u{200b}";
        let reply = json!({"reply": {"text": wrapped, "n": 1}});
        let tidied = json!({"reply": {"text": "# \"Café\"", "n": 1}});
        check(json!({"fences": "unwrap", "quotes": "straight"}), reply.clone(), Ok(tidied));
        let into = json!({"reply": {"text": wrapped, "n": 1}, "plain": "```markdown\n# “Café”\n```"});
        check(json!({"into": "plain"}), reply, Ok(into));
    }

    #[test]
    fn nothing_left_is_rejected() {
        let empty = r#"empty {"field":"reply.text","characters":3}"#;
        check(json!({}), json!({"reply": {"text": "\u{feff}\u{0}\n"}}), Err(empty));
        let empty = r#"empty {"field":"reply.text","characters":0}"#;
        check(json!({}), json!({"reply": {"text": ""}}), Err(empty));
        let misfit = r#"type_mismatch {"field":"reply.text","type":"text","value":3}"#;
        check(json!({}), json!({"reply": {"text": 3}}), Err(misfit));
    }

    #[test]
    fn configs_are_checked() {
        let check = |config: Value, expected: Result<&str, &str>| {
            let found = checked(json!({"normalize": config}), &json!({"t": "text", "n": "integer"}));
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        check(json!({"field": "t"}), Ok("t: text, n: integer"));
        check(json!({"field": "t", "into": "u"}), Ok("t: text, n: integer, u: text"));
        check(json!({"field": "t", "into": "n"}), Err("normalize.into: the field `n` exists already"));
        check(json!({"field": "n"}), Err("normalize.field: `n` is integer, not text"));
        let off = json!({"field": "t", "unicode": "none", "whitespace": false, "control": "keep"});
        check(off, Err("normalize: everything is switched off: the step does nothing"));
    }
}
