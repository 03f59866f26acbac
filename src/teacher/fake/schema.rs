//! JSON that fits a JSON Schema, with made-up content. Never checks a value against a schema.

use serde_json::{Map, Value, json};

use super::dice::Dice;
use super::words;

/// From this depth on, or once a value has this many nodes, only what the schema demands is written,
/// so that recursive schemas end.
const LEAN_DEPTH: usize = 6;
const LEAN_NODES: usize = 2_000;
/// A value beyond these is cut off with `null`: its schema asks for more than a reply should hold.
const DEPTH_MAX: usize = 64;
const NODES_MAX: usize = 50_000;

/// A value that fits `schema`, whose texts take about `bytes` bytes together.
///
/// Understood: `type` (also a list), `properties`, `required`, `items`, `prefixItems`, `minItems`,
/// `maxItems`, `minLength`, `maxLength`, `enum`, `const`, `minimum`, `maximum`, their exclusive
/// forms, `multipleOf` of integers, `$ref` inside the schema, `anyOf` and `oneOf` (the first), `allOf`
/// (merged). Not understood, and so perhaps not fitted: `pattern`, `format`, `not`, `if`, `contains`,
/// `uniqueItems`, `minProperties`.
pub fn fitting(schema: &Value, bytes: usize, dice: &mut Dice) -> Value {
    Maker { root: schema, dice, nodes: 0 }.make(schema, bytes, 0)
}

/// What a model writes when it is told to answer in JSON, but not in which shape.
pub fn any_object(bytes: usize, dice: &mut Dice) -> Value {
    let title = words::phrase(24, dice);
    json!({ "title": title, "text": words::prose(bytes.saturating_sub(80), dice), "score": 1 + dice.below(5) })
}

struct Maker<'a> {
    root: &'a Value,
    dice: &'a mut Dice,
    nodes: usize,
}

impl Maker<'_> {
    fn make(&mut self, schema: &Value, bytes: usize, depth: usize) -> Value {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Value::Null;
        }
        if let Some(target) = self.target(schema, self.lean(depth)) {
            return self.make(&target, bytes, depth + 1);
        }
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array).filter(|values| !values.is_empty())
        {
            return self.dice.pick(values).clone();
        }
        match kind(schema) {
            "object" => self.object(schema, bytes, depth),
            "array" => self.array(schema, bytes, depth),
            "integer" => self.integer(schema),
            "number" => self.number(schema),
            "boolean" => Value::Bool(self.dice.below(2) == 1),
            "null" => Value::Null,
            _ => self.string(schema, bytes),
        }
    }

    fn lean(&self, depth: usize) -> bool {
        depth >= LEAN_DEPTH || self.nodes > LEAN_NODES
    }

    /// The schema that this one stands for, when it only points to others.
    fn target(&self, schema: &Value, lean: bool) -> Option<Value> {
        if let Some(pointer) = schema.get("$ref").and_then(Value::as_str) {
            return self.root.pointer(pointer.strip_prefix('#')?).cloned();
        }
        for word in ["anyOf", "oneOf"] {
            let Some(choices) = schema.get(word).and_then(Value::as_array) else { continue };
            // A nullable recursive schema ends by its `null`.
            let ending = choices.iter().find(|choice| lean && kind(choice) == "null");
            if let Some(choice) = ending.or(choices.first()) {
                return Some(choice.clone());
            }
        }
        let parts = schema.get("allOf")?.as_array()?;
        let mut merged = schema.as_object()?.clone();
        merged.remove("allOf");
        for part in parts {
            let part = self.target(part, lean).unwrap_or_else(|| part.clone());
            merge(&mut merged, part.as_object()?);
        }
        Some(Value::Object(merged))
    }

    fn object(&mut self, schema: &Value, bytes: usize, depth: usize) -> Value {
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let lean = self.lean(depth);
        let share = bytes / properties.len().max(required.len()).max(1);
        let mut object = Map::new();
        for (name, property) in properties {
            if !lean || required.contains(&name.as_str()) {
                object.insert(name.clone(), self.make(property, share, depth + 1));
            }
        }
        for name in required.into_iter().filter(|name| !properties.contains_key(*name)) {
            object.insert(name.to_owned(), Value::String(words::phrase(share.min(80), self.dice)));
        }
        Value::Object(object)
    }

    fn array(&mut self, schema: &Value, bytes: usize, depth: usize) -> Value {
        let bound = |word| schema.get(word).and_then(Value::as_u64);
        let lean = self.lean(depth);
        let least = bound("minItems").unwrap_or(u64::from(!lean));
        let most = bound("maxItems").unwrap_or(if lean { least } else { least.max(3) });
        let prefix = schema.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let least = least.min(most).max((prefix.len() as u64).min(most));
        let extra = if lean { 0 } else { self.dice.below((most - least + 1).min(8)) };
        let count = usize::try_from(least + extra).unwrap_or(NODES_MAX).min(NODES_MAX);
        let rest = schema.get("items").cloned().unwrap_or(Value::Bool(true));
        let share = bytes / count.max(1);
        let items = (0..count).map(|place| self.make(prefix.get(place).unwrap_or(&rest), share, depth + 1));
        Value::Array(items.collect())
    }

    fn string(&mut self, schema: &Value, bytes: usize) -> Value {
        let bound = |word| schema.get(word).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let least = bound("minLength").unwrap_or(0).min(NODES_MAX);
        let most = bound("maxLength").unwrap_or(usize::MAX);
        let bytes = bytes.max(least).min(most);
        let mut text =
            if bytes < 60 { words::phrase(bytes, self.dice) } else { words::prose(bytes, self.dice) };
        while text.len() < least {
            text.push('.');
        }
        text.truncate(most); // the words are ASCII
        Value::String(text)
    }

    fn integer(&mut self, schema: &Value) -> Value {
        let number = |word| schema.get(word).and_then(Value::as_f64);
        let least = number("minimum").map(f64::ceil);
        let least = least.or(number("exclusiveMinimum").map(|n| n.floor() + 1.0)).map(|n| n as i64);
        let most = number("maximum").map(f64::floor);
        let most = most.or(number("exclusiveMaximum").map(|n| n.ceil() - 1.0)).map(|n| n as i64);
        let (least, most) = match (least, most) {
            (Some(least), Some(most)) => (least, most.max(least)),
            (Some(least), None) => (least, least.saturating_add(100)),
            (None, Some(most)) => (most.saturating_sub(100), most),
            (None, None) => (0, 100),
        };
        let span = most.abs_diff(least).saturating_add(1);
        let mut value = least.saturating_add_unsigned(self.dice.below(span));
        if let Some(step) = number("multipleOf").map(|n| n as i64).filter(|step| *step > 1) {
            value -= value.rem_euclid(step);
            if value < least {
                value = value.saturating_add(step);
            }
        }
        Value::from(value)
    }

    fn number(&mut self, schema: &Value) -> Value {
        let number = |word| schema.get(word).and_then(Value::as_f64);
        let least = number("minimum").or(number("exclusiveMinimum"));
        let most = number("maximum").or(number("exclusiveMaximum"));
        let least = least.unwrap_or(most.map_or(0.0, |most| most.min(0.0) - 1.0));
        let most = most.unwrap_or(least + 1.0);
        // Away from the ends, which may be excluded.
        let value = least + (most - least) * (0.05 + 0.9 * self.dice.unit());
        let rounded = (value * 100.0).round() / 100.0;
        Value::from(if least < rounded && rounded < most { rounded } else { value })
    }
}

/// The type that a schema asks for, read from its other words where `type` is missing.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => kinds.iter().find_map(Value::as_str).unwrap_or("string"),
        _ if schema.get("properties").is_some() || schema.get("required").is_some() => "object",
        _ if schema.get("items").is_some() || schema.get("prefixItems").is_some() => "array",
        _ => "string",
    }
}

/// Adds the words of `part` to `merged`; properties and required names come together.
fn merge(merged: &mut Map<String, Value>, part: &Map<String, Value>) {
    for (word, value) in part {
        match (merged.get_mut(word), value) {
            (Some(Value::Object(known)), Value::Object(more)) => known.extend(more.clone()),
            (Some(Value::Array(known)), Value::Array(more)) if word == "required" => {
                known.extend(more.clone());
            }
            _ => {
                merged.insert(word.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schema: &Value) {
        let validator = jsonschema::validator_for(schema).expect("a schema");
        for seed in 0..40 {
            let value = fitting(schema, 300, &mut Dice::new(seed, 7, 7));
            let problems: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
            assert!(problems.is_empty(), "{value}: {problems:?}");
            assert!(value.to_string().len() < 200_000, "{} bytes", value.to_string().len());
        }
    }

    #[test]
    fn plain_types_fit() {
        for kind in ["string", "integer", "number", "boolean", "null", "array", "object"] {
            check(&json!({ "type": kind }));
        }
        check(&json!({ "type": ["integer", "null"], "minimum": 3.5, "exclusiveMaximum": 6 }));
        check(&json!({ "type": "integer", "minimum": 7, "maximum": 30, "multipleOf": 7 }));
        check(&json!({ "type": "integer", "maximum": -5 }));
        check(&json!({ "type": "integer", "minimum": i64::MIN, "maximum": i64::MAX }));
        check(&json!({ "type": "number", "exclusiveMinimum": 0.001, "maximum": 0.002 }));
        check(&json!({ "type": "number", "minimum": 1, "maximum": 1 }));
        check(&json!({ "type": "string", "minLength": 400, "maxLength": 401 }));
        check(&json!({ "type": "string", "maxLength": 3 }));
        check(&json!({ "enum": ["a", 3, null] }));
        check(&json!({ "const": { "a": 1 } }));
        check(&json!(true));
    }

    #[test]
    fn nested_types_fit() {
        check(&json!({
            "type": "object",
            "properties": {
                "statement": { "type": "string" },
                "grade": { "$ref": "#/$defs/Grade" },
                "tags": { "type": "array", "items": { "enum": ["x", "y"] }, "minItems": 2, "maxItems": 5 },
                "pair": { "prefixItems": [{ "type": "integer" }, { "type": "boolean" }], "items": false,
                          "minItems": 2, "maxItems": 2, "type": "array" },
                "maybe": { "anyOf": [{ "type": "number", "minimum": 2 }, { "type": "null" }] },
                "both": { "allOf": [{ "$ref": "#/$defs/Grade" }],
                          "properties": { "more": { "type": "null" } }, "required": ["more"] }
            },
            "required": ["statement", "grade", "tags", "pair", "maybe", "both", "unlisted"],
            "$defs": { "Grade": { "type": "object", "additionalProperties": true, "required": ["score"],
                "properties": { "score": { "type": "integer", "minimum": 1, "maximum": 5 } } } }
        }));
    }

    #[test]
    fn recursive_schemas_end() {
        let node = json!({ "type": "object", "required": ["name", "children"], "properties": {
            "name": { "type": "string", "maxLength": 20 },
            "children": { "type": "array", "items": { "$ref": "#/$defs/Node" } } } });
        check(&json!({ "$ref": "#/$defs/Node", "$defs": { "Node": node } }));
        let chain = json!({ "type": "object", "required": ["next"], "properties": {
            "next": { "anyOf": [{ "$ref": "#/$defs/Chain" }, { "type": "null" }] } } });
        check(&json!({ "$ref": "#/$defs/Chain", "$defs": { "Chain": chain } }));
        // Cannot be satisfied: must still end.
        let endless = json!({ "$ref": "#/$defs/E", "$defs": { "E": { "type": "object", "required": ["e"],
            "properties": { "e": { "$ref": "#/$defs/E" } } } } });
        assert!(fitting(&endless, 10, &mut Dice::new(1, 1, 1)).is_object());
    }
}
