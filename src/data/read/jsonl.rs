//! JSONL: one JSON object a line, blank lines passed over, duplicate keys refused at any depth.
//!
//! Numbers are 64-bit: an integer that fits neither `i64` nor `u64` is read as the nearest float,
//! as most JSON readers do.

use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::data::read::bytes::{Lines, without_end};
use crate::data::read::infer::Merge;
use crate::data::read::{ReadError, ReadOptions};
use crate::row::{Fields, Value};

pub struct JsonlRows {
    lines: Lines,
}

/// The rows of a file, without a look into them.
pub fn count(path: &Path, options: &ReadOptions) -> Result<u64, ReadError> {
    let mut lines = Lines::open(path, options)?;
    let mut rows = 0;
    while let Some(line) = lines.next()? {
        rows += u64::from(!line.trim().is_empty());
    }
    Ok(rows)
}

impl JsonlRows {
    pub fn open(path: &Path, options: &ReadOptions) -> Result<JsonlRows, ReadError> {
        Ok(JsonlRows { lines: Lines::open(path, options)? })
    }

    /// The next row and the bytes of its line.
    fn row(&mut self) -> Result<Option<(Fields, usize)>, ReadError> {
        let parsed = loop {
            let Some(line) = self.lines.next()? else { return Ok(None) };
            if !line.trim().is_empty() {
                break parse(without_end(line)).map(|value| (value, line.len()));
            }
        };
        let number = self.lines.number();
        match parsed {
            Ok((Value::Object(fields), _)) if fields.contains_key("") => {
                Err(self.lines.error("a field with an empty name").hint("give the field a name"))
            }
            Ok((Value::Object(fields), bytes)) => Ok(Some((fields, bytes))),
            Ok((other, _)) => {
                let message = format!("{}, not a JSON object", kind(&other));
                Err(self
                    .lines
                    .error(message)
                    .hint("each line must be one object, as in `{\"topic\": \"loops\"}`"))
            }
            Err(error) => {
                let message = error.to_string();
                let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
                let message = message.replace("EOF while parsing", "the line ends inside");
                let path = self.lines.path();
                let wrong = ReadError::new(path, message).at(number).column(error.column().max(1));
                Err(match error.is_eof() {
                    true => wrong.hint("an object must stand on one line; `jq -c .` puts it there"),
                    false => wrong,
                })
            }
        }
    }
}

impl Iterator for JsonlRows {
    type Item = Result<Fields, ReadError>;

    fn next(&mut self) -> Option<Result<Fields, ReadError>> {
        self.row().map(|row| row.map(|(fields, _)| fields)).transpose()
    }
}

/// Merges the types of the rows in about the first `bytes_max` bytes.
pub fn scan(
    path: &Path,
    options: &ReadOptions,
    bytes_max: usize,
    merged: &mut Merge,
) -> Result<(), ReadError> {
    let mut rows = JsonlRows::open(path, options)?;
    let mut bytes_seen = 0;
    while bytes_seen < bytes_max {
        let Some((fields, bytes)) = rows.row()? else { break };
        bytes_seen += bytes;
        merged.row(&fields).map_err(|message| {
            rows.lines.error(message).hint("put names that vary into an object of their own")
        })?;
    }
    Ok(())
}

fn parse(line: &str) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(line);
    let value = Strict.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Reads any JSON value as serde_json does, except that a duplicate key is an error: the first or
/// the last of the two values would vanish.
#[derive(Clone, Copy)]
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(Strict)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Fields::new();
        while let Some(key) = entries.next_key::<String>()? {
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key `{key}` is there twice")));
            }
            let value = entries.next_value_seed(Strict)?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows as JSON joined with `|`, or the error without its path.
    fn check(content: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.jsonl");
        std::fs::write(&path, content).unwrap();
        let rows: Result<Vec<String>, ReadError> = JsonlRows::open(&path, &ReadOptions::default())
            .unwrap()
            .map(|row| row.map(|fields| Value::Object(fields).to_string()))
            .collect();
        let shown = match rows {
            Ok(rows) => rows.join("|"),
            Err(error) => error.to_string().replace(path.to_str().unwrap(), "f"),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn objects_are_read_in_their_order() {
        check(
            "{\"b\":1,\"a\":null}\n\n{\"b\":[{}, 1.5, -3, true]}",
            r#"{"b":1,"a":null}|{"b":[{},1.5,-3,true]}"#,
        );
        check(
            "{\"a\":18446744073709551615,\"b\":\"é\\u0000😀\"}\r\n",
            "{\"a\":18446744073709551615,\"b\":\"é\\u0000😀\"}",
        );
        check("", "");
    }

    #[test]
    fn anything_else_has_a_place() {
        check("{\"a\":1}\n{\"a\":1,\"a\":2}\n", "f:2:10: the key `a` is there twice");
        check("{\"a\":[{\"b\":1,\"b\":1}]}", "f:1:16: the key `b` is there twice");
        check("[1]", "f:1: an array, not a JSON object");
        check("{\n\"a\": 1}", "f:1:1: the line ends inside an object");
        check("{\"a\":1} x", "f:1:9: trailing characters");
        check("{\"a\":NaN}", "f:1:6: expected value");
        check("{\"\":1}", "f:1: a field with an empty name");
        check(&format!("{{\"a\":{}}}", "[".repeat(200)), "f:1:132: recursion limit exceeded");
    }
}
