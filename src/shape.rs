//! The shape of structured answers: the `json:` short-hand, JSON Schemas, and the column types of both.
//!
//! Pure. The only place that names the JSON Schema validator, whose API moves.

use std::sync::Arc;

use serde_json::{Map, json};

use crate::row::{Type, Value};

/// Turns the short-hand into a JSON Schema, or says what is wrong with it and where (keys from the top).
///
/// - a word is a type: `string`, `integer`, `number`, `boolean`;
/// - words with bars are a choice: `easy | medium | hard`;
/// - a list of one shape is a list of it: `[string]`;
/// - a map is an object; a key ending in `?` is optional: `{ hint?: string }`.
pub fn from_short_hand(shape: &Value) -> Result<Value, (Vec<String>, String)> {
    match shape {
        Value::String(word) => from_word(word).map_err(|message| (Vec::new(), message)),
        Value::Array(items) => match items.as_slice() {
            [item] => Ok(json!({"type": "array", "items": from_short_hand(item)?})),
            _ => Err((Vec::new(), "a list shape has exactly one element, the shape of its items".into())),
        },
        Value::Object(keys) => from_map(keys),
        other => Err((Vec::new(), format!("`{other}` is no shape"))),
    }
}

fn from_word(word: &str) -> Result<Value, String> {
    if word.contains('|') {
        let choices: Vec<&str> = word.split('|').map(str::trim).collect();
        if choices.iter().any(|choice| choice.is_empty()) {
            return Err(format!("`{word}` has an empty choice"));
        }
        return Ok(json!({"type": "string", "enum": choices}));
    }
    match word.trim() {
        "string" | "text" => Ok(json!({"type": "string"})),
        kind @ ("integer" | "number" | "boolean") => Ok(json!({"type": kind})),
        other => Err(format!(
            "`{other}` is no shape; shapes are `string`, `integer`, `number`, `boolean`, `a | b` for a choice, \
             `[shape]` for a list, and maps"
        )),
    }
}

fn from_map(keys: &Map<String, Value>) -> Result<Value, (Vec<String>, String)> {
    if keys.is_empty() {
        return Err((Vec::new(), "an object shape needs at least one key".into()));
    }
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (key, shape) in keys {
        let name = key.strip_suffix('?').unwrap_or(key);
        if !key.ends_with('?') {
            required.push(Value::from(name));
        }
        let inner = from_short_hand(shape).map_err(|(mut path, message)| {
            path.insert(0, key.clone());
            (path, message)
        })?;
        properties.insert(name.to_owned(), inner);
    }
    Ok(json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false
    }))
}

/// The column type of values that fit a schema; [`Type::Json`] where the schema leaves it open.
pub fn type_of(schema: &Value) -> Type {
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Type::Text,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        Some("array") => match schema.get("items") {
            Some(items) => Type::List(Box::new(type_of(items))),
            None => Type::Json,
        },
        Some("object") => object_type(schema),
        _ => Type::Json,
    }
}

fn object_type(schema: &Value) -> Type {
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    match schema.get("properties").and_then(Value::as_object) {
        Some(properties) if closed && !properties.is_empty() => {
            Type::Object(properties.iter().map(|(name, inner)| (name.clone(), type_of(inner))).collect())
        }
        _ => Type::Json,
    }
}

/// A compiled JSON Schema.
pub struct Shape {
    schema: Arc<Value>,
    validator: jsonschema::Validator,
}

impl Shape {
    pub fn new(schema: &Value) -> Result<Shape, String> {
        let validator = jsonschema::validator_for(schema).map_err(|error| {
            let place = error.instance_path().to_string();
            // "Not valid under any of the schemas" speaks of the schema of schemas, which nobody sees.
            match error.to_string().contains("under any of the schemas") {
                true => format!("at {place}: `{}` cannot stand here", error.instance()),
                false if place.is_empty() => error.to_string(),
                false => format!("at {place}: {error}"),
            }
        })?;
        Ok(Shape { schema: Arc::new(schema.clone()), validator })
    }

    pub fn schema(&self) -> &Arc<Value> {
        &self.schema
    }

    /// What is wrong with a value, in words that a model can act on; at most three complaints.
    pub fn misfit(&self, value: &Value) -> Option<String> {
        let complaint = |error: jsonschema::ValidationError<'_>| {
            let place = error.instance_path().to_string();
            if place.is_empty() { error.to_string() } else { format!("at {place}: {error}") }
        };
        let complaints: Vec<String> = self.validator.iter_errors(value).take(3).map(complaint).collect();
        if complaints.is_empty() { None } else { Some(complaints.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(short: Value, expected: Result<Type, &str>) {
        let found = from_short_hand(&short).map(|schema| type_of(&schema));
        let found = found.map_err(|(path, message)| format!("{}: {message}", path.join(".")));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn short_hands() {
        check(json!("string"), Ok(Type::Text));
        check(json!("easy | hard"), Ok(Type::Text));
        check(json!(["integer"]), Ok(Type::List(Box::new(Type::Integer))));
        let object = Type::Object(vec![("a".into(), Type::Number), ("b".into(), Type::Boolean)]);
        check(json!({"a": "number", "b?": "boolean"}), Ok(object));
        check(json!({"a": {"b": "strnig"}}), Err("a.b: `strnig` is no shape"));
        check(json!([]), Err(": a list shape"));
    }

    #[test]
    fn misfits_are_told_in_words() {
        let shape = Shape::new(&from_short_hand(&json!({"a": "integer", "b?": "x | y"})).unwrap()).unwrap();
        assert_eq!(shape.misfit(&json!({"a": 1})), None);
        assert!(shape.misfit(&json!({"a": "1"})).unwrap().contains("at /a"));
        assert!(shape.misfit(&json!({"a": 1, "b": "z"})).is_some());
        assert!(shape.misfit(&json!({"a": 1, "c": 1})).is_some());
    }
}
