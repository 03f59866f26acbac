//! `pii`: find personal data and secrets in a text: redact, tag or reject.
//!
//! # What it does
//! Looks in a text for `kinds` of things that name or reach a person, or open a door; all of them by default:
//!
//! - `email`: e-mail addresses.
//! - `phone`: phone numbers with `+` and country code; North American and French ones as they are usually
//!   written; others only behind a word such as `Tel.` or `call`.
//! - `iban`: bank accounts of the 85 countries with an IBAN, check digits right (ISO 7064, mod 97).
//! - `card`: numbers of payment cards: an issuer's range and length, check digit right (Luhn).
//! - `ip`: IPv4 and IPv6 addresses.
//! - `secret`: keys and tokens of AWS, GitHub, GitLab, OpenAI, Anthropic, Slack, Google, Stripe, Hugging
//!   Face, npm, PyPI and SendGrid by their shapes; JSON Web Tokens; blocks of private keys; a password in a
//!   URL; what looks random and is assigned to something like `api_key` or `PASSWORD`.
//!
//! What is kept for private networks and for examples (10.0.0.1, jane@example.com, 555-0134) is no one's and
//! is left alone, unless `reserved: true`.
//!
//! `action: redact` (the default) puts `<EMAIL>`, `<PHONE>`, `<IBAN>`, `<CARD>`, `<IP>`, `<SECRET>` in the
//! place of each, in the field itself or in a copy of the text (`into`). With `numbered: true` it is
//! `<EMAIL_1>`, `<EMAIL_2>`: the same value in one text has the same number, so that it can still be told
//! who writes to whom. `action: tag` changes nothing and lists in `into` the kind of each and its place:
//! `start` and `end` in characters, counted from 0, `end` behind the last. `action: reject` rejects the row
//! `pii` with how many there are of each kind; the evidence never holds what was found.
//!
//! # When to use it
//! Before texts from people go to a teacher at all, and again on what models wrote: they repeat addresses
//! and keys that they were trained on, and invent real ones.
//!
//! # Example
//! ```yaml
//! - pii: { field: text, numbered: true }
//! - pii: { field: solution, kinds: [secret], action: reject }
//! ```
//!
//! # Limits
//! Finds shapes, not persons: names, postal addresses, birth dates and numbers of identity cards are not
//! found, nor what is spelled out (`jane at acme dot com`). What is found is nearly always what it is called:
//! of 60 phone numbers looked at among those in 21 MB of e-mails (SpamAssassin's) all were some, one of them
//! made up; in 246 MB of source code and its documentation 11 whole numbers passed for cards, and about a
//! third of the IP addresses were versions or object identifiers. Phone numbers without a country code are
//! found in the forms above only. An IPv4 address that begins with two numbers below 20 is taken for a
//! version. Reads 70 to 120 MB of text in a CPU second, and tables of small numbers at 7. A rejected row keeps
//! its fields in the run's folder, like every reject.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kit::{Check, Kit};
use crate::ops::text_field::TextField;
use crate::ops::{MapRow, Operator, Runner};
use crate::row::{Outcome, Reason, Row, Type};
use crate::text::pii::{Found, Kind, canonical, find};

/// Find personal data and secrets in a text: redact, tag or reject.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "pii", deny_unknown_fields)]
pub struct Pii {
    /// The field that holds the text, or a key inside one: `page.text`.
    pub field: String,
    /// What to look for: all kinds by default.
    #[serde(default = "kinds")]
    pub kinds: Vec<Kind>,
    /// What to do about it: `redact` by default.
    #[serde(default)]
    pub action: Action,
    /// A new field: for the text without what was found, or for the list of `tag`.
    pub into: Option<String>,
    /// Number the placeholders: the same value in one text has the same number.
    #[serde(default)]
    pub numbered: bool,
    /// Look for what is kept for private networks and examples as well.
    #[serde(default)]
    pub reserved: bool,
}

/// What to do about what is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Put a placeholder in its place.
    #[default]
    Redact,
    /// List where it is.
    Tag,
    /// Reject the row.
    Reject,
}

fn kinds() -> Vec<Kind> {
    Kind::ALL.to_vec()
}

impl Operator for Pii {
    fn check(&self, check: &mut Check<'_>) {
        TextField::check(check, "field", &self.field);
        if self.kinds.is_empty() {
            check.problem("kinds", "the list of kinds is empty: nothing is looked for");
        }
        if self.numbered && self.action != Action::Redact {
            check.problem("numbered", "only placeholders have numbers, and only `redact` makes any");
        }
        match (self.action, &self.into) {
            (Action::Redact, Some(field)) => check.makes("into", field, Type::Text),
            (Action::Tag, Some(field)) => check.makes("into", field, tags_type()),
            (Action::Tag, None) => {
                check.problem("", "`tag` needs a field for its list").hint =
                    Some("name it with `into`".to_owned());
            }
            (Action::Reject, Some(_)) => {
                check.problem("into", "`reject` makes no field");
            }
            (Action::Redact | Action::Reject, None) => {}
        }
    }

    fn build(&self, _: &Kit) -> anyhow::Result<Vec<Runner>> {
        let field = TextField::new(&self.field);
        Ok(vec![Runner::Map(Box::new(Searching { field, config: self.clone() }))])
    }

    fn default_name(&self) -> Option<&str> {
        self.into.as_deref()
    }
}

fn tags_type() -> Type {
    let keys = [("kind", Type::Text), ("start", Type::Integer), ("end", Type::Integer)];
    Type::List(Box::new(Type::Object(keys.map(|(key, kind)| (key.to_owned(), kind)).into())))
}

struct Searching {
    field: TextField,
    config: Pii,
}

impl MapRow for Searching {
    fn map(&self, mut row: Row) -> Outcome {
        let Pii { kinds, action, into, numbered, reserved, .. } = &self.config;
        let text = match self.field.of(&row.fields) {
            Ok(text) => text,
            Err(reason) => return Outcome::Reject(row, reason),
        };
        let found = find(text, kinds, *reserved);
        match action {
            Action::Redact if found.is_empty() && into.is_none() => {}
            Action::Redact => {
                let redacted = redacted(text, &found, *numbered);
                self.field.put(&mut row.fields, into.as_deref(), redacted);
            }
            Action::Tag => {
                let tags = tags(text, &found);
                row.fields.extend(into.clone().map(|field| (field, tags)));
            }
            Action::Reject if found.is_empty() => {}
            Action::Reject => {
                let reason = Reason::new("pii", self.evidence(&found));
                return Outcome::Reject(row, reason);
            }
        }
        Outcome::Keep(row)
    }
}

impl Searching {
    /// How many there are of each kind; never what.
    fn evidence(&self, found: &[Found]) -> Value {
        let mut counts = BTreeMap::new();
        for one in found {
            *counts.entry(one.kind.name()).or_insert(0) += 1;
        }
        json!({"field": self.field.path().to_string(), "kinds": counts})
    }
}

fn redacted(text: &str, found: &[Found], numbered: bool) -> String {
    let mut numbers: HashMap<(Kind, String), usize> = HashMap::new();
    let mut counts: HashMap<Kind, usize> = HashMap::new();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for Found { kind, range } in found {
        out.push_str(&text[at..range.start]);
        at = range.end;
        let name = kind.name().to_uppercase();
        if numbered {
            let value = canonical(*kind, &text[range.clone()]);
            let number = *numbers.entry((*kind, value)).or_insert_with(|| {
                let count = counts.entry(*kind).or_default();
                *count += 1;
                *count
            });
            out.push_str(&format!("<{name}_{number}>"));
        } else {
            out.push_str(&format!("<{name}>"));
        }
    }
    out.push_str(&text[at..]);
    out
}

fn tags(text: &str, found: &[Found]) -> Value {
    // Characters are counted once, from finding to finding.
    let (mut at, mut characters) = (0, 0);
    let mut place = |byte: usize| {
        characters += text[at..byte].chars().count();
        at = byte;
        characters
    };
    let tag = |one: &Found| {
        let (start, end) = (place(one.range.start), place(one.range.end));
        json!({"kind": one.kind.name(), "start": start, "end": end})
    };
    found.iter().map(tag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::{self, checked, map, open};

    const TEXT: &str = "Grüße an a@b.io und A@b.io, c@d.io; +49 30 901820";

    fn check(more: Value, text: &str, expected: Result<Value, &str>) {
        let step = json!({"pii": fixture::with(json!({"field": "mail.text"}), more)});
        let found = map(&open().kit, step, json!({"mail": {"text": text}}));
        assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|error| *error));
    }

    #[test]
    fn values_are_redacted_in_place_or_in_a_copy() {
        let redacted = "Grüße an <EMAIL> und <EMAIL>, <EMAIL>; <PHONE>";
        check(json!({}), TEXT, Ok(json!({"mail": {"text": redacted}})));
        let numbered = "Grüße an <EMAIL_1> und <EMAIL_1>, <EMAIL_2>; <PHONE_1>";
        let copy = json!({"mail": {"text": TEXT}, "safe": numbered});
        check(json!({"numbered": true, "into": "safe"}), TEXT, Ok(copy));
        let phones = TEXT.replace("+49 30 901820", "<PHONE>");
        check(json!({"kinds": ["phone"]}), TEXT, Ok(json!({"mail": {"text": phones}})));
        check(json!({"into": "safe"}), "none", Ok(json!({"mail": {"text": "none"}, "safe": "none"})));
        check(json!({"reserved": true}), "10.0.0.1", Ok(json!({"mail": {"text": "<IP>"}})));
    }

    #[test]
    fn tags_are_places_in_characters() {
        let tags = json!([
            {"kind": "email", "start": 9, "end": 15},
            {"kind": "email", "start": 20, "end": 26},
            {"kind": "email", "start": 28, "end": 34},
            {"kind": "phone", "start": 36, "end": 49},
        ]);
        assert!(tags_type().fits(&tags));
        check(json!({"action": "tag", "into": "at"}), TEXT, Ok(json!({"mail": {"text": TEXT}, "at": tags})));
        check(json!({"action": "tag", "into": "at"}), "", Ok(json!({"mail": {"text": ""}, "at": []})));
    }

    #[test]
    fn rejects_say_how_many_and_never_what() {
        let evidence = r#"pii {"field":"mail.text","kinds":{"email":3,"phone":1}}"#;
        check(json!({"action": "reject"}), TEXT, Err(evidence));
        check(json!({"action": "reject", "kinds": ["card"]}), TEXT, Ok(json!({"mail": {"text": TEXT}})));
    }

    #[test]
    fn configs_are_checked() {
        let check = |config: Value, expected: Result<&str, &str>| {
            let config = fixture::with(json!({"field": "t"}), config);
            let found = checked(json!({"pii": config}), &json!({"t": "text", "n": "integer"}));
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        check(json!({}), Ok("t: text, n: integer"));
        check(json!({"into": "u"}), Ok("t: text, n: integer, u: text"));
        let tags = "t: text, n: integer, u: list of object {kind: text, start: integer, end: integer}";
        check(json!({"action": "tag", "into": "u"}), Ok(tags));
        check(json!({"action": "tag"}), Err("pii: `tag` needs a field for its list"));
        check(json!({"action": "reject", "into": "u"}), Err("pii.into: `reject` makes no field"));
        check(json!({"field": "n"}), Err("pii.field: `n` is integer, not text"));
        check(json!({"kinds": []}), Err("pii.kinds: the list of kinds is empty: nothing is looked for"));
        let numbered = "pii.numbered: only placeholders have numbers, and only `redact` makes any";
        check(json!({"numbered": true, "action": "tag", "into": "u"}), Err(numbered));
    }
}
