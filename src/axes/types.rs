//! The types of listed values, so that the columns of drawn rows are known before anything is drawn.
//!
//! Pure; knows nothing of axes.

use crate::row::{Type, Value};

/// The type that all values fit; [`Type::Json`] where there is none.
pub(super) fn type_of<'a>(values: impl IntoIterator<Item = &'a Value>) -> Type {
    let types = values.into_iter().filter_map(type_of_one);
    types.reduce(merged).unwrap_or(Type::Json)
}

fn type_of_one(value: &Value) -> Option<Type> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) => Type::Boolean,
        Value::Number(number) if number.is_i64() => Type::Integer,
        Value::Number(number) if number.is_u64() => Type::Json,
        Value::Number(_) => Type::Number,
        Value::String(_) => Type::Text,
        Value::Array(items) => Type::List(Box::new(type_of(items))),
        Value::Object(map) if map.is_empty() => Type::Json,
        Value::Object(map) => {
            Type::Object(map.iter().map(|(name, value)| (name.clone(), type_of([value]))).collect())
        }
    })
}

/// The type that fits what either type fits.
pub(super) fn merged(one: Type, other: Type) -> Type {
    match (one, other) {
        (one, other) if one == other => one,
        (Type::Integer | Type::Number, Type::Integer | Type::Number) => Type::Number,
        (Type::List(one), Type::List(other)) => Type::List(Box::new(merged(*one, *other))),
        (Type::Object(mut fields), Type::Object(others)) => {
            for (name, kind) in others {
                match fields.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => *known = merged(known.clone(), kind),
                    None => fields.push((name, kind)),
                }
            }
            Type::Object(fields)
        }
        _ => Type::Json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_are_the_narrowest_that_fit() {
        let check = |values: Value, expected: &str| {
            assert_eq!(type_of(values.as_array().unwrap()).to_string(), expected, "{values}");
        };
        check(json!(["a", null]), "text");
        check(json!([1, 2]), "integer");
        check(json!([1, 2.5]), "number");
        check(json!([1, "a"]), "json");
        check(json!([null]), "json");
        check(json!([[1], [2.5]]), "list of number");
        check(json!([{"a": 1}, {"b": "x"}]), "object {a: integer, b: text}");
    }
}
