//! Column types from values: what one type holds everything that was seen. Pure; reads no file.

use std::collections::HashMap;

use crate::data::columns::Columns;
use crate::row::{Fields, Type, Value};

/// Bytes of JSONL that are looked at to fix column types: 64 MiB, under a second of parsing.
pub const SCAN_BYTES_MAX: usize = 64 << 20;

/// An object with more names than this is taken for a dictionary and saved as JSON.
const OBJECT_FIELDS_MAX: usize = 256;

/// Rows with more different field names than this are taken for dictionaries and refused.
const COLUMNS_MAX: usize = 2000;

/// What each of `files` may use of [`SCAN_BYTES_MAX`]; at least 64 KiB, so that no file goes unseen.
pub fn scan_bytes_max(files: usize) -> usize {
    (SCAN_BYTES_MAX / files.max(1)).max(64 << 10)
}

/// The columns of many rows, in order of first appearance.
#[derive(Default)]
pub struct Merge {
    columns: Vec<(String, Guess)>,
    places: HashMap<String, usize>,
}

impl Merge {
    /// Adds what the fields of a row say. The error is a sentence for a person.
    pub fn row(&mut self, fields: &Fields) -> Result<(), String> {
        for (name, value) in fields {
            self.add(name, Guess::of(value));
        }
        match self.columns.len() > COLUMNS_MAX {
            true => Err(format!("the rows have over {COLUMNS_MAX} different field names")),
            false => Ok(()),
        }
    }

    /// Adds what is known of a column's type.
    pub fn declare(&mut self, name: &str, kind: &Type) {
        self.add(name, Guess::from_type(kind));
    }

    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.columns.iter().map(|(name, _)| name)
    }

    pub fn finish(self) -> Columns {
        self.columns.into_iter().map(|(name, guess)| (name, guess.finish())).collect()
    }

    fn add(&mut self, name: &str, guess: Guess) {
        match self.places.get(name) {
            Some(place) => self.columns[*place].1.unify(guess),
            None => {
                self.places.insert(name.to_owned(), self.columns.len());
                self.columns.push((name.to_owned(), guess));
            }
        }
    }
}

/// What is known of a type so far.
enum Guess {
    /// Only null was seen.
    Unknown,
    Text,
    /// `exact` while every integer seen is also a float without loss.
    Integer {
        exact: bool,
    },
    Number,
    Boolean,
    List(Box<Guess>),
    Object(Vec<(String, Guess)>),
    Json,
}

impl Guess {
    fn of(value: &Value) -> Guess {
        match value {
            Value::Null => Guess::Unknown,
            Value::Bool(_) => Guess::Boolean,
            Value::String(_) => Guess::Text,
            Value::Number(number) if number.is_i64() => Guess::Integer { exact: Type::Number.fits(value) },
            Value::Number(number) if number.is_f64() => Guess::Number,
            Value::Number(_) => Guess::Json,
            Value::Array(items) => {
                let mut item = Guess::Unknown;
                for value in items {
                    item.unify(Guess::of(value));
                }
                Guess::List(Box::new(item))
            }
            Value::Object(map) if map.len() > OBJECT_FIELDS_MAX => Guess::Json,
            Value::Object(map) => {
                Guess::Object(map.iter().map(|(name, value)| (name.clone(), Guess::of(value))).collect())
            }
        }
    }

    fn from_type(kind: &Type) -> Guess {
        match kind {
            Type::Text => Guess::Text,
            Type::Integer => Guess::Integer { exact: true },
            Type::Number => Guess::Number,
            Type::Boolean => Guess::Boolean,
            Type::List(item) => Guess::List(Box::new(Guess::from_type(item))),
            Type::Object(fields) => {
                let field = |(name, kind): &(String, Type)| (name.clone(), Guess::from_type(kind));
                Guess::Object(fields.iter().map(field).collect())
            }
            Type::Json => Guess::Json,
        }
    }

    fn unify(&mut self, other: Guess) {
        match (&mut *self, other) {
            (_, Guess::Unknown)
            | (Guess::Json, _)
            | (Guess::Text, Guess::Text)
            | (Guess::Boolean, Guess::Boolean)
            | (Guess::Number, Guess::Number | Guess::Integer { exact: true }) => {}
            (Guess::Unknown, other) => *self = other,
            (Guess::Integer { exact }, Guess::Integer { exact: too }) => *exact &= too,
            (Guess::Integer { exact: true }, Guess::Number) => *self = Guess::Number,
            (Guess::List(item), Guess::List(other)) => item.unify(*other),
            (Guess::Object(fields), Guess::Object(others)) => {
                for (name, guess) in others {
                    match fields.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, known)) => known.unify(guess),
                        None => fields.push((name, guess)),
                    }
                }
                if fields.len() > OBJECT_FIELDS_MAX {
                    *self = Guess::Json;
                }
            }
            _ => *self = Guess::Json,
        }
    }

    fn finish(self) -> Type {
        match self {
            Guess::Unknown | Guess::Json => Type::Json,
            Guess::Text => Type::Text,
            Guess::Integer { .. } => Type::Integer,
            Guess::Number => Type::Number,
            Guess::Boolean => Type::Boolean,
            Guess::List(item) => Type::List(Box::new(item.finish())),
            // Parquet has no struct without fields.
            Guess::Object(fields) if fields.is_empty() => Type::Json,
            Guess::Object(fields) => {
                Type::Object(fields.into_iter().map(|(name, guess)| (name, guess.finish())).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The type of a column `a` that had these values, given as a JSON array.
    fn check(values: &str, expected: &str) {
        let values: Vec<Value> = serde_json::from_str(values).unwrap();
        let mut merge = Merge::default();
        for value in &values {
            merge.row(&Fields::from_iter([("a".to_owned(), value.clone())])).unwrap();
        }
        let columns = merge.finish();
        assert_eq!(columns[0].1.to_string(), expected, "{values:?}");
        assert!(values.iter().all(|value| columns[0].1.fits(value)), "{values:?}");
    }

    #[test]
    fn one_type_holds_all_values() {
        check("[1, null, 2]", "integer");
        check("[1, 2.5]", "number");
        check("[2.5, 1]", "number");
        check("[9007199254740993]", "integer");
        check("[9007199254740993, 2.5]", "json");
        check("[2.5, 9007199254740993]", "json");
        check("[18446744073709551615]", "json");
        check("[null]", "json");
        check("[\"a\", 1]", "json");
        check("[[], [1], [null, 2.5]]", "list of number");
        check("[[]]", "list of json");
        check("[{}]", "json");
        check(
            "[{\"x\": 1}, {}, {\"y\": [{\"z\": true}]}]",
            "object {x: integer, y: list of object {z: boolean}}",
        );
        check("[{\"x\": 1}, {\"x\": \"a\"}]", "object {x: json}");
        check("[{\"x\": 1}, [1]]", "json");
    }

    #[test]
    fn dictionaries_are_noticed() {
        let wide = |count: usize| Fields::from_iter((0..count).map(|n| (format!("k{n}"), Value::from(n))));
        let mut merge = Merge::default();
        merge.row(&Fields::from_iter([("a".to_owned(), Value::Object(wide(300)))])).unwrap();
        assert!(merge.row(&wide(2001)).is_err());
        assert_eq!(merge.finish()[0].1, Type::Json);
    }
}
