//! `set`: give fields a value: a constant, a computed value, a text put together.
//!
//! # What it does
//! Sets each field named. A text that is one `{{ expression }}` and nothing else becomes the expression's
//! value, be it a number, a list or an object. A text with other template parts in it becomes the rendered
//! text. Anything else is a constant; lists and objects may hold such texts at any depth. A field that
//! exists is replaced. Fields are set in the order written, and later ones see earlier ones.
//!
//! # When to use it
//! To label rows, to compute a length or a ratio, to put a text together from several fields, to lift a
//! value out of an object.
//!
//! # Example
//! ```yaml
//! - set:
//!     level: easy
//!     title: "{{ exercise.title }}"
//!     full_text: "{{ exercise.statement }}\n\n{{ exercise.solution }}"
//!     characters: { value: "{{ full_text | length }}", type: integer }
//! ```
//!
//! # Limits
//! The type of a computed value is not known before it is there: its column is saved as JSON, unless the
//! expression only names a field or `{ value: …, type: … }` says the type, in the short-hand of `json:`. A
//! value that does not fit that type rejects the row `type_mismatch`. What cannot be computed, or is not
//! there, rejects it `bad_expression`; a text that cannot be rendered `bad_template`. An object with just
//! the keys `value` and `type` is always read as that form.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, json};

use crate::kit::{Check, Kit};
use crate::ops::{MapRow, Operator, Runner};
use crate::row::{Fields, Outcome, Reason, Row, Type, Value};
use crate::shape::{self, Shape};
use crate::template::{Expression, Template, TemplateError, Templates};

/// Fields and what to set them to: constants, or texts such as `"{{ text | length }}"`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Set(pub Map<String, Value>);

impl Operator for Set {
    fn check(&self, check: &mut Check<'_>) {
        if self.0.is_empty() {
            check.problem("", "`set` names no field").hint = Some("such as `level: easy`".to_owned());
        }
        for (field, given) in &self.0 {
            let kind = match typed(given) {
                Some((value, short)) => check_typed(check, field, value, short),
                None => check_value(check, field, given),
            };
            if check.columns.contains_key(field) {
                check.columns.insert(field.clone(), kind);
            } else {
                check.makes(field, field, kind);
            }
        }
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let setting = |(field, given): (&String, &Value)| Setting::new(field, given, &kit.templates);
        let settings = self.0.iter().map(setting).collect::<anyhow::Result<Vec<Setting>>>()?;
        Ok(vec![Runner::Map(Box::new(Settings(settings)))])
    }
}

/// The parts of `{ value: …, type: … }`.
fn typed(given: &Value) -> Option<(&Value, &Value)> {
    let map = given.as_object().filter(|map| map.len() == 2)?;
    Some((map.get("value")?, map.get("type")?))
}

/// Whether nothing in a value is a template.
fn is_constant(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains("{{") && !text.contains("{%"),
        Value::Array(items) => items.iter().all(is_constant),
        Value::Object(map) => map.values().all(is_constant),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

/// The expression in a text that is one `{{ expression }}` and nothing else.
fn only_expression(text: &str, templates: &Templates) -> Option<Expression> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    // Jinja's signs for white space, which has no meaning in a value.
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    // With two expressions in the text, what is between the outer braces does not compile.
    templates.expression(inner.trim()).ok()
}

/// Checks a value; returns the type that it has for every row, as far as that is known.
fn check_value(check: &mut Check<'_>, key: &str, value: &Value) -> Type {
    match value {
        Value::Null => Type::Json,
        Value::Bool(_) => Type::Boolean,
        Value::Number(number) if number.is_i64() => Type::Integer,
        Value::Number(number) if number.is_f64() => Type::Number,
        Value::Number(_) => Type::Json,
        Value::String(_) if is_constant(value) => Type::Text,
        Value::String(text) => match only_expression(text, check.templates) {
            Some(expression) => {
                check.expression(key, expression.source());
                referred(check, expression.source())
            }
            None => {
                check.template(key, text);
                Type::Text
            }
        },
        Value::Array(items) => {
            let item = |(index, item)| check_value(check, &format!("{key}.{index}"), item);
            let kinds: Vec<Type> = items.iter().enumerate().map(item).collect();
            match kinds.split_first() {
                Some((first, rest)) if rest.iter().all(|kind| kind == first) => {
                    Type::List(Box::new(first.clone()))
                }
                _ => Type::Json,
            }
        }
        Value::Object(map) if map.is_empty() => Type::Json,
        Value::Object(map) => {
            let entry = |(name, value): (&String, &Value)| {
                (name.clone(), check_value(check, &format!("{key}.{name}"), value))
            };
            Type::Object(map.iter().map(entry).collect())
        }
    }
}

/// The type of an expression that only names a field, such as `exercise.level`.
fn referred(check: &Check<'_>, source: &str) -> Type {
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    let named = source.split('.').all(is_name);
    named.then(|| check.type_at(source)).flatten().unwrap_or(Type::Json)
}

/// Checks `{ value: …, type: … }`; returns the type declared.
fn check_typed(check: &mut Check<'_>, field: &str, value: &Value, short: &Value) -> Type {
    let key = format!("{field}.value");
    let found = check_value(check, &key, value);
    let held = match Held::new(short) {
        Ok(held) => held,
        Err((path, message)) => {
            check.problem(&format!("{field}.type.{}", path.join(".")), message);
            return found;
        }
    };
    if is_constant(value) {
        if let Some(misfit) = held.misfit(value) {
            check.problem(&key, format!("the value does not fit its type: {misfit}"));
        }
    } else if found == Type::Text && held.kind != Type::Text {
        check.problem(&key, format!("this is always a text, never {}", held.kind)).hint =
            Some("only a text that is one `{{ expression }}` keeps the expression's type".to_owned());
    }
    held.kind
}

/// A declared type that values are held to.
struct Held {
    shape: Shape,
    kind: Type,
}

impl Held {
    /// The error says where in the short-hand it is.
    fn new(short: &Value) -> Result<Held, (Vec<String>, String)> {
        let schema = shape::from_short_hand(short)?;
        let shape = Shape::new(&schema).map_err(|message| (Vec::new(), message))?;
        Ok(Held { shape, kind: shape::type_of(&schema) })
    }

    fn misfit(&self, value: &Value) -> Option<String> {
        // A schema takes `3.0` for an integer, a column does not.
        let lossy = || (!self.kind.fits(value)).then(|| format!("{value} cannot be saved as {}", self.kind));
        self.shape.misfit(value).or_else(lossy)
    }
}

/// How a value is made.
enum Recipe {
    Constant(Value),
    Expression(Expression),
    Template(Template),
    List(Vec<Recipe>),
    Object(Vec<(String, Recipe)>),
}

impl Recipe {
    fn new(value: &Value, templates: &Templates) -> Result<Recipe, TemplateError> {
        Ok(match value {
            constant if is_constant(constant) => Recipe::Constant(constant.clone()),
            Value::String(text) => match only_expression(text, templates) {
                Some(expression) => Recipe::Expression(expression),
                None => Recipe::Template(templates.template(text)?),
            },
            Value::Array(items) => {
                Recipe::List(items.iter().map(|item| Recipe::new(item, templates)).collect::<Result<_, _>>()?)
            }
            Value::Object(map) => {
                let entry = |(name, value): (&String, &Value)| {
                    Recipe::new(value, templates).map(|recipe| (name.clone(), recipe))
                };
                Recipe::Object(map.iter().map(entry).collect::<Result<_, _>>()?)
            }
            other => Recipe::Constant(other.clone()),
        })
    }

    fn value(&self, field: &str, row: &Fields) -> Result<Value, Reason> {
        match self {
            Recipe::Constant(value) => Ok(value.clone()),
            Recipe::Expression(expression) => expression.value(row).map_err(|error| {
                let evidence =
                    json!({"field": field, "expression": expression.source(), "error": error.message});
                Reason::new("bad_expression", evidence)
            }),
            Recipe::Template(template) => template.render(row).map(Value::from).map_err(|error| {
                Reason::new("bad_template", json!({"field": field, "error": error.message}))
            }),
            Recipe::List(items) => items.iter().map(|item| item.value(field, row)).collect(),
            Recipe::Object(entries) => {
                let entry = |(name, recipe): &(String, Recipe)| Ok((name.clone(), recipe.value(field, row)?));
                Ok(Value::Object(entries.iter().map(entry).collect::<Result<_, Reason>>()?))
            }
        }
    }
}

/// One field to set.
struct Setting {
    field: String,
    recipe: Recipe,
    held: Option<Held>,
}

impl Setting {
    fn new(field: &str, given: &Value, templates: &Templates) -> anyhow::Result<Setting> {
        let (value, short) = match typed(given) {
            Some((value, short)) => (value, Some(short)),
            None => (given, None),
        };
        let held = short.map(Held::new).transpose();
        Ok(Setting {
            field: field.to_owned(),
            recipe: Recipe::new(value, templates).map_err(|error| anyhow::anyhow!(error.message))?,
            held: held.map_err(|(_, message)| anyhow::anyhow!(message))?,
        })
    }

    fn value(&self, row: &Fields) -> Result<Value, Reason> {
        let value = self.recipe.value(&self.field, row)?;
        let Some(held) = &self.held else { return Ok(value) };
        let Some(misfit) = held.misfit(&value) else { return Ok(value) };
        let kind = held.kind.to_string();
        let evidence = json!({"column": self.field, "type": kind, "value": value, "error": misfit});
        Err(Reason::new("type_mismatch", evidence))
    }
}

struct Settings(Vec<Setting>);

impl MapRow for Settings {
    fn map(&self, mut row: Row) -> Outcome {
        for setting in &self.0 {
            match setting.value(&row.fields) {
                Ok(value) => row.fields.insert(setting.field.clone(), value),
                Err(reason) => return Outcome::Reject(row, reason),
            };
        }
        Outcome::Keep(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::{checked, map, open};

    fn check(set: &Value, row: Value, expected: Result<Value, &str>) {
        let fixture = open();
        assert_eq!(map(&fixture.kit, json!({"set": set}), row), expected.map_err(str::to_owned), "{set}");
    }

    #[test]
    fn fields_are_set() {
        check(&json!({"a": "easy", "b": null}), json!({"a": 1}), Ok(json!({"a": "easy", "b": null})));
        check(&json!({"n": " {{- t | length -}} "}), json!({"t": "abc"}), Ok(json!({"t": "abc", "n": 3})));
        check(
            &json!({"n": "{{ {'a': {'b': t}} }}"}),
            json!({"t": 1}),
            Ok(json!({"t": 1, "n": {"a": {"b": 1}}})),
        );
        check(&json!({"n": "{{ t }}{{ t }}"}), json!({"t": 1}), Ok(json!({"t": 1, "n": "11"})));
        check(&json!({"n": "{{ t }}!"}), json!({"t": 1}), Ok(json!({"t": 1, "n": "1!"})));
        check(
            &json!({"a": "{{ t }}", "b": "{{ a + 1 }}"}),
            json!({"t": 1}),
            Ok(json!({"t": 1, "a": 1, "b": 2})),
        );
        check(
            &json!({"a": [1, {"b": "{{ t }}"}]}),
            json!({"t": true}),
            Ok(json!({"t": true, "a": [1, {"b": true}]})),
        );
        let typed = json!({"value": "{{ t }}", "type": "integer"});
        check(&json!({"n": typed}), json!({"t": 1}), Ok(json!({"t": 1, "n": 1})));
    }

    #[test]
    fn what_cannot_be_set_rejects() {
        let missing = r#"bad_expression {"field":"n","expression":"t.x","error":"`t.x` is not defined"}"#;
        check(&json!({"n": "{{ t.x }}"}), json!({"t": {}}), Err(missing));
        let missing = r#"bad_template {"field":"n","error":"the row has no field `t`; if a step makes it, its `when` did not hold"}"#;
        check(&json!({"n": "{{ t }}!"}), json!({}), Err(missing));
        let typed = json!({"n": {"value": "{{ t }}", "type": "integer"}});
        let misfit = r#"type_mismatch {"column":"n","type":"integer","value":3.0,"error":"3.0 cannot be saved as integer"}"#;
        check(&typed, json!({"t": 3.0}), Err(misfit));
    }

    #[test]
    fn types_are_known_before() {
        let columns = json!({"t": "text", "o": {"n": "integer"}});
        let check = |set: &Value, expected: Result<&str, &str>| {
            let found = checked(json!({"set": set}), &columns);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{set}");
        };
        check(
            &json!({"a": 1, "b": [1.5], "t": true}),
            Ok("t: boolean, o: object {n: integer}, a: integer, b: list of number"),
        );
        check(&json!({"o": "{{ o.n }}", "a": "{{ t | length }}"}), Ok("t: text, o: integer, a: json"));
        check(&json!({"o": {"value": "{{ o.n + 1 }}", "type": "number"}}), Ok("t: text, o: number"));
        check(&json!({"a": "{{ t }}!", "o": {"b": "{{ t }}"}}), Ok("t: text, o: object {b: text}, a: text"));
        check(&json!({}), Err("set: `set` names no field"));
        check(&json!({"a": "{{ tt }}"}), Err("set.a: no field `tt`"));
        check(&json!({"a": "{{ o.m }}"}), Err("set.a: `o` has no key `m`"));
        check(&json!({"a.b": 1}), Err("set.a.b: `a.b` cannot name a field: a dot reaches into objects"));
        let typed = |value: &str, kind: &str| json!({"a": {"value": value, "type": kind}});
        check(&typed("{{ t }}!", "integer"), Err("set.a.value: this is always a text, never integer"));
        let found = checked(json!({"set": typed("x", "a | b")}), &columns).unwrap_err();
        assert!(found.starts_with("set.a.value: the value does not fit its type: "), "{found}");
        let found = checked(json!({"set": typed("x", "int")}), &columns).unwrap_err();
        assert!(found.starts_with("set.a.type: `int` is no shape"), "{found}");
    }
}
