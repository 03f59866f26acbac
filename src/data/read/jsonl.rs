//! JSONL: one JSON object a line, blank lines passed over, duplicate keys refused at any depth.
//!
//! Numbers are 64-bit: a whole number that fits neither `i64` nor `u64` is refused, since as a float it
//! would lose digits; one that is written with a fraction or an exponent is the nearest float.

use std::cell::Cell;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::data::read::bytes::{Lines, without_end};
use crate::data::read::infer::Merge;
use crate::data::read::{ReadError, ReadOptions, RowReader};
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
                break parse(without_end(line)).map(|value| (value, line.len())).map_err(|error| {
                    let rest = rest(line, error.column);
                    (error, rest)
                });
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
            Err((Wrong { column, message, hint, is_syntax }, rest)) => {
                let message = match is_syntax && !rest.is_empty() {
                    true => format!("{message} at `{rest}`"),
                    false => message,
                };
                let wrong = ReadError::new(self.lines.path(), message).at(number).column(column);
                Err(ReadError { hint: hint.map(str::to_owned), ..wrong })
            }
        }
    }
}

impl RowReader for JsonlRows {
    fn line(&self) -> Option<usize> {
        Some(self.lines.number())
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
        let Some((mut fields, bytes)) = rows.row()? else { break };
        bytes_seen += bytes;
        fields.retain(|name, _| options.reads(name));
        merged.row(&fields).map_err(|message| {
            rows.lines.error(message).hint("put names that vary into an object of their own")
        })?;
    }
    Ok(())
}

/// Why a line is no row.
struct Wrong {
    /// In bytes, from 1.
    column: usize,
    message: String,
    hint: Option<&'static str>,
    /// Whether it is no JSON from the column on.
    is_syntax: bool,
}

impl From<serde_json::Error> for Wrong {
    fn from(error: serde_json::Error) -> Wrong {
        let message = error.to_string();
        let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
        let message = match message {
            "expected value" => "a JSON value was expected".to_owned(),
            other => other.replace("EOF while parsing", "the line ends inside"),
        };
        let hint = error.is_eof().then_some("an object must stand on one line; `jq -c .` puts it there");
        Wrong { column: error.column().max(1), message, hint, is_syntax: error.is_syntax() }
    }
}

/// The start of what a line has from a column on.
fn rest(line: &str, column: usize) -> String {
    const SHOWN_CHARS_MAX: usize = 40;
    let line = without_end(line);
    let rest = &line[line.floor_char_boundary(column - 1)..];
    let shown: String = rest.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < rest.len() { format!("{shown}…") } else { shown }
}

fn parse(line: &str) -> Result<Value, Wrong> {
    let is_wide = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_str(line);
    let value = Strict { is_wide: &is_wide }.deserialize(&mut reader)?;
    reader.end()?;
    match is_wide.get().then(|| wide_number(line)).flatten() {
        Some(start) => Err(Wrong {
            column: start + 1,
            message: "a whole number of more than 64 bits would lose digits".to_owned(),
            hint: Some("write it as a text, in quotes"),
            is_syntax: false,
        }),
        None => Ok(value),
    }
}

/// Where a line of JSON has a whole number that fits no 64 bits.
fn wide_number(line: &str) -> Option<usize> {
    let bytes = line.as_bytes();
    let mut start = 0;
    while let Some(byte) = bytes.get(start) {
        let length = match byte {
            b'"' => text_bytes(&bytes[start..]),
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                let number = &line[start..][..bytes[start..].iter().take_while(|byte| is_part(byte)).count()];
                let is_whole = !number.contains(['.', 'e', 'E']);
                if is_whole && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    return Some(start);
                }
                number.len()
            }
            _ => 1,
        };
        start += length;
    }
    None
}

/// How long the text is that `bytes` begin with, its quotes included.
fn text_bytes(bytes: &[u8]) -> usize {
    let mut length = 1;
    while let Some(byte) = bytes.get(length) {
        length += if *byte == b'\\' { 2 } else { 1 };
        if *byte == b'"' {
            break;
        }
    }
    length
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
struct Strict<'a> {
    /// Set when a number may be a whole one that was too wide for an integer.
    is_wide: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
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
        /// 2^63, the end of `i64` on both sides.
        const WIDE: f64 = 9_223_372_036_854_775_808.0;
        if value.abs() >= WIDE {
            self.is_wide.set(true);
        }
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
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
            let value = entries.next_value_seed(self)?;
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
        check("{\"a\":1} x", "f:1:9: trailing characters at `x`");
        check("{\"a\":NaN}", "f:1:6: a JSON value was expected at `NaN}`");
        check("hello world", "f:1:1: a JSON value was expected at `hello world`");
        check("{\"\":1}", "f:1: a field with an empty name");
        check(
            &format!("{{\"a\":{}}}", "[".repeat(200)),
            &format!("f:1:132: recursion limit exceeded at `{}…`", "[".repeat(40)),
        );
    }

    #[test]
    fn whole_numbers_keep_their_digits() {
        let wide = "a whole number of more than 64 bits would lose digits";
        check("{\"a\":123456789012345678901234567890}", &format!("f:1:6: {wide}"));
        check("{\"a\\\"\":[1,-9223372036854775809]}", &format!("f:1:11: {wide}"));
        check("{\"a\":1e30,\"b\":\"18446744073709551616\"}", r#"{"a":1e+30,"b":"18446744073709551616"}"#);
        check("{\"a\":-9223372036854775808}", r#"{"a":-9223372036854775808}"#);
    }
}
