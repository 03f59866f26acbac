//! Rows, their ids, the types of their fields, and the three ends a row can come to.
//!
//! Pure data: nothing here reads files, calls teachers or knows about operators.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
pub use serde_json::Value;

/// A row's named values, in the order they were made.
pub type Fields = serde_json::Map<String, Value>;

/// Where a row stands in the run: its source ordinal, then its child index at each split.
///
/// Ids never depend on timing. They compare as numbers, a parent before its children:
/// `17 < 17.0 < 17.3 < 18`. The epoch is the run's and not repeated here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowId {
    pub ordinal: u64,
    pub path: Vec<u32>,
}

impl RowId {
    pub fn root(ordinal: u64) -> RowId {
        RowId { ordinal, path: Vec::new() }
    }

    pub fn child(&self, index: u32) -> RowId {
        let mut path = Vec::with_capacity(self.path.len() + 1);
        path.extend_from_slice(&self.path);
        path.push(index);
        RowId { ordinal: self.ordinal, path }
    }

    /// Whether this row was split off from `ancestor`, directly or not.
    pub fn descends_from(&self, ancestor: &RowId) -> bool {
        self.ordinal == ancestor.ordinal
            && self.path.len() > ancestor.path.len()
            && self.path.starts_with(&ancestor.path)
    }

    /// Whether the row is needed when nothing above `cut` is: what the last row splits into still is.
    pub fn is_within(&self, cut: &RowId) -> bool {
        self <= cut || self.descends_from(cut)
    }

    /// The id of the row this one was split off from.
    pub fn parent(&self) -> Option<RowId> {
        let (_, path) = self.path.split_last()?;
        Some(RowId { ordinal: self.ordinal, path: path.to_vec() })
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ordinal)?;
        for index in &self.path {
            write!(f, ".{index}")?;
        }
        Ok(())
    }
}

impl FromStr for RowId {
    type Err = String;

    fn from_str(text: &str) -> Result<RowId, String> {
        let wrong = || format!("`{text}` is no row id; ids look like `17` or `17.3`");
        let mut parts = text.split('.');
        let ordinal = parts.next().and_then(|part| part.parse().ok()).ok_or_else(wrong)?;
        let path = parts.map(|part| part.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
        Ok(RowId { ordinal, path })
    }
}

/// An ordered set of named JSON values with an id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub id: RowId,
    /// What the source's `id:` column named this row's root; random draws and call keys hang on it
    /// instead of the ordinal, so that a line inserted in the file shifts nothing.
    pub origin: Option<Arc<str>>,
    pub fields: Fields,
    /// The calls whose replies this row is made of, in order; a split copies them to the children.
    pub calls: Vec<CallMark>,
}

impl Row {
    pub fn new(id: RowId, fields: Fields) -> Row {
        Row { id, origin: None, fields, calls: Vec::new() }
    }

    /// The name that random draws and call keys of this row hang on.
    pub fn draw_key(&self) -> String {
        let Some(origin) = &self.origin else { return self.id.to_string() };
        // The path first: it has digits and dots only, so no name can be taken for part of it.
        let mut key = String::new();
        for index in &self.id.path {
            key.push_str(&format!(".{index}"));
        }
        key.push('=');
        key.push_str(origin);
        key
    }

    /// The same name of the row that this one was split off from.
    pub fn parent_draw_key(&self) -> String {
        let id = self.id.parent().unwrap_or_else(|| self.id.clone());
        Row { id, origin: self.origin.clone(), fields: Fields::new(), calls: Vec::new() }.draw_key()
    }

    /// About how many bytes the row takes in memory; for bounds, not for accounts.
    pub fn bytes(&self) -> usize {
        std::mem::size_of::<Row>() + self.calls.len() * 200 + fields_bytes(&self.fields)
    }

    /// The `index`-th row split off from this one.
    pub fn child(&self, index: u32, fields: Fields) -> Row {
        Row { id: self.id.child(index), origin: self.origin.clone(), fields, calls: self.calls.clone() }
    }
}

fn fields_bytes(fields: &Fields) -> usize {
    fields.iter().map(|(name, value)| 64 + name.len() + value_bytes(value)).sum()
}

fn value_bytes(value: &Value) -> usize {
    let inner = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(value_bytes).sum(),
        Value::Object(map) => fields_bytes(map),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    std::mem::size_of::<Value>() + inner
}

/// The way to a value inside a row: a field, then keys of nested objects: `exercise.solution`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    pub fn parse(text: &str) -> FieldPath {
        FieldPath(text.split('.').map(str::to_owned).collect())
    }

    /// The field of the row that the path starts at.
    pub fn field(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// The keys below the field.
    pub fn keys(&self) -> &[String] {
        self.0.get(1..).unwrap_or_default()
    }

    pub fn value<'a>(&self, fields: &'a Fields) -> Option<&'a Value> {
        let start = fields.get(self.field())?;
        self.keys().iter().try_fold(start, |value, key| value.get(key))
    }

    /// The value at the path, to be changed.
    pub fn value_mut<'a>(&self, fields: &'a mut Fields) -> Option<&'a mut Value> {
        let start = fields.get_mut(self.field())?;
        self.keys().iter().try_fold(start, |value, key| value.get_mut(key))
    }

    /// The text at the path; `None` when it is absent or no text.
    pub fn text<'a>(&self, fields: &'a Fields) -> Option<&'a str> {
        self.value(fields)?.as_str()
    }

    /// The same text, to be rewritten in its place.
    pub fn text_mut<'a>(&self, fields: &'a mut Fields) -> Option<&'a mut String> {
        let start = fields.get_mut(self.field())?;
        match self.keys().iter().try_fold(start, |value, key| value.get_mut(key))? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// What a row remembers of one call that it was made by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallMark {
    pub step: Arc<str>,
    pub teacher: Arc<str>,
    /// The model that the server said it used.
    pub model: Arc<str>,
    /// The call's key in the store, in hex.
    pub key: String,
    /// Times the request was sent until this reply came.
    pub attempts: u32,
    pub tokens_in: u64,
    pub tokens_out: u64,
    /// Price of the reply, `None` when the teacher has no price.
    pub usd: Option<f64>,
}

/// Why a row was decided against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// An identifier that is counted, such as `too_long`.
    pub code: Cow<'static, str>,
    /// What the decision rests on: the measured value, the matched row, the raw text.
    pub evidence: Value,
}

impl Reason {
    pub fn new(code: impl Into<Cow<'static, str>>, evidence: impl Into<Value>) -> Reason {
        Reason { code: code.into(), evidence: evidence.into() }
    }
}

/// Why a row could not be decided; the next run of the same epoch tries it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// An identifier that is counted, such as `server_error`.
    pub code: Cow<'static, str>,
    /// One sentence for a person.
    pub message: String,
    /// What came back, if anything did.
    pub evidence: Value,
}

impl Failure {
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Failure {
        Failure { code: code.into(), message: message.into(), evidence: Value::Null }
    }

    pub fn with_evidence(mut self, evidence: impl Into<Value>) -> Failure {
        self.evidence = evidence.into();
        self
    }
}

/// What an operator did with a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Goes to the next step.
    Keep(Row),
    /// Ends here and opens one child per element; an empty list is a rejection, see [`Outcome::split`].
    Split(Row, Vec<Fields>),
    Reject(Row, Reason),
    Fail(Row, Failure),
}

impl Outcome {
    /// Splits a row, or rejects it `empty` when there is nothing to split into.
    pub fn split(row: Row, children: Vec<Fields>) -> Outcome {
        if children.is_empty() {
            return Outcome::Reject(row, Reason::new("empty", Value::Null));
        }
        Outcome::Split(row, children)
    }

    /// Rows that go on.
    pub fn rows(&self) -> u64 {
        match self {
            Outcome::Keep(_) => 1,
            Outcome::Split(_, children) => children.len() as u64,
            Outcome::Reject(..) | Outcome::Fail(..) => 0,
        }
    }
}

/// The type of a column, fixed before the first call. Every column may also hold null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    Text,
    /// A 64-bit signed integer.
    Integer,
    /// A 64-bit float; integers fit too.
    Number,
    Boolean,
    List(Box<Type>),
    Object(Vec<(String, Type)>),
    /// Anything; saved as a JSON string.
    Json,
}

impl Type {
    /// Whether a value can be saved in a column of this type without loss.
    pub fn fits(&self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) | (Type::Json, _) => true,
            (Type::Text, Value::String(_)) | (Type::Boolean, Value::Bool(_)) => true,
            (Type::Integer, Value::Number(number)) => number.is_i64(),
            (Type::Number, Value::Number(number)) => {
                number.is_f64() || number.as_i64().is_some_and(|n| n.unsigned_abs() <= 1 << 53)
            }
            (Type::List(item), Value::Array(values)) => values.iter().all(|value| item.fits(value)),
            (Type::Object(types), Value::Object(map)) => map
                .iter()
                .all(|(name, value)| types.iter().any(|(known, item)| known == name && item.fits(value))),
            _ => false,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Text => f.write_str("text"),
            Type::Integer => f.write_str("integer"),
            Type::Number => f.write_str("number"),
            Type::Boolean => f.write_str("boolean"),
            Type::List(item) => write!(f, "list of {item}"),
            Type::Object(fields) => {
                f.write_str("object {")?;
                for (index, (name, item)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {item}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
            Type::Json => f.write_str("json"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_compare_as_numbers() {
        let mut ids: Vec<RowId> =
            ["17.10", "2", "17.3", "17", "18", "17.3.1"].iter().map(|id| id.parse().unwrap()).collect();
        ids.sort();
        let shown: Vec<String> = ids.iter().map(RowId::to_string).collect();
        assert_eq!(shown, ["2", "17", "17.3", "17.3.1", "17.10", "18"]);
        assert_eq!("17.3".parse::<RowId>().unwrap().parent(), Some(RowId::root(17)));
        assert!("17.x".parse::<RowId>().is_err());
    }

    #[test]
    fn named_rows_and_children_have_keys_of_their_own() {
        let named = |name: &str, id: &str| {
            Row { origin: Some(name.into()), ..Row::new(id.parse().unwrap(), Fields::new()) }.draw_key()
        };
        assert_eq!([named("a", "3"), named("a", "3.1"), named("a.1", "4")], ["=a", ".1=a", "=a.1"]);
        assert_eq!(Row::new("3.1.2".parse().unwrap(), Fields::new()).parent_draw_key(), "3.1");
    }

    #[test]
    fn types_tell_what_fits() {
        let object = Type::Object(vec![("n".into(), Type::Integer)]);
        assert!(object.fits(&serde_json::json!({"n": 1})));
        assert!(!object.fits(&serde_json::json!({"n": 1.5})));
        assert!(!object.fits(&serde_json::json!({"m": 1})));
        assert!(Type::Number.fits(&serde_json::json!(1)));
        assert!(!Type::Number.fits(&serde_json::json!(9_007_199_254_740_993_i64)));
        assert!(Type::Text.fits(&Value::Null));
    }
}
