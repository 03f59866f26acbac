//! What ends a pass of `decode`: serde's errors with their places, and the sentences they become.

use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use super::node::{Node, NodeValue, Style};
use super::reader::{Spot, written_number};
use crate::problem::{Key, KeyPath, Place, Problem, name_hint};

/// What ended a pass.
#[derive(Debug)]
pub(super) struct Error(pub(super) Box<Fault>);

#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) place: Option<(KeyPath, Part)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    Value,
    Key,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// The value is not what was wanted. What it is instead can be seen, unless `given` says it.
    Wrong {
        wanted: String,
        given: Option<String>,
        hint: Option<String>,
    },
    Missing(&'static str),
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    UnknownChoice {
        choice: String,
        known: &'static [&'static str],
    },
    Custom(String),
}

impl Error {
    pub(super) fn new(kind: Kind) -> Error {
        Error(Box::new(Fault { kind, place: None }))
    }

    pub(super) fn wrong(wanted: impl Into<String>, hint: Option<&str>) -> Error {
        Error::new(Kind::Wrong { wanted: wanted.into(), given: None, hint: hint.map(str::to_owned) })
    }

    pub(super) fn at(mut self, spot: Spot<'_>, part: Part) -> Error {
        self.0.place.get_or_insert_with(|| (spot.path(), part));
        self
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.kind)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: Display>(message: T) -> Error {
        Error::new(Kind::Custom(message.to_string()))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Error {
        Error::wrong(wanted(&expected.to_string()), None)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Error {
        Error::wrong(wanted(&expected.to_string()), None)
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Error {
        Error::wrong(wanted(&expected.to_string()), None)
    }

    fn unknown_variant(choice: &str, known: &'static [&'static str]) -> Error {
        Error::new(Kind::UnknownChoice { choice: choice.to_owned(), known })
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Error {
        Error::new(Kind::UnknownKey { key: key.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Error {
        Error::new(Kind::Missing(key))
    }
}

/// Our words for what serde's own visitors expect; a visitor of ours says it in these already.
fn wanted(expected: &str) -> String {
    match expected {
        "a string" | "a borrowed string" | "a character" => "text".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a sequence" => "a list".to_owned(),
        "unit" => "empty".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => {
            "a whole number".to_owned()
        }
        other if other.starts_with("a nonzero u") => "a whole number of at least 1".to_owned(),
        other if other.starts_with("struct ") => "a map".to_owned(),
        other => other.to_owned(),
    }
}

/// The problem that a fault at `node` is.
pub(super) fn worded(kind: &Kind, node: &Node, path: &KeyPath) -> Problem {
    let name = name_at(path);
    let value = Place::Value(path.clone());
    match kind {
        Kind::Wrong { wanted, given, hint } => {
            let given = given.clone().unwrap_or_else(|| described(node));
            let mut problem = Problem::error(value, format!("{name} must be {wanted}, not {given}"));
            problem.hint.clone_from(hint);
            problem
        }
        Kind::UnknownChoice { choice, known } => {
            let place =
                if node.entry(choice).is_some() { Place::Key(path.join(choice.as_str())) } else { value };
            let mut problem =
                Problem::error(place, format!("`{}` is not a choice for {name}", shown(choice)));
            problem.hint = name_hint(choice, known.iter().copied());
            problem
        }
        Kind::Custom(text) => {
            let (text, hint) = text
                .split_once(
                    "
hint: ",
                )
                .map_or((text.as_str(), None), |(t, h)| (t, Some(h)));
            let mut problem = Problem::error(value, format!("{name}: {text}"));
            problem.hint = hint.map(str::to_owned);
            problem
        }
        Kind::Missing(key) => Problem::error(Place::Key(path.clone()), format!("missing key `{key}`")),
        Kind::UnknownKey { key, known } => {
            let mut problem = Problem::error(value, format!("`{}` is not a key of {name}", shown(key)));
            problem.hint = name_hint(key, known.iter().copied());
            problem
        }
    }
}

/// How messages name the value at a path: its last name and what follows it.
pub(super) fn name_at(path: &KeyPath) -> String {
    let last_name = path.0.iter().rposition(|key| matches!(key, Key::Name(_))).unwrap_or(0);
    match KeyPath(path.0[last_name..].to_vec()) {
        whole if whole.0.is_empty() => "the file".to_owned(),
        tail => format!("`{}`", shown(&tail.to_string())),
    }
}

fn described(node: &Node) -> String {
    match &node.value {
        NodeValue::Null => "empty".to_owned(),
        NodeValue::Bool(value) => format!("the boolean `{value}`"),
        NodeValue::Integer(value) => format!("the number `{value}`"),
        NodeValue::Float(value) => format!("the number `{value}`"),
        NodeValue::Text { text, .. } if text.is_empty() => "an empty text".to_owned(),
        NodeValue::Text { text, style: Style::Plain } if written_number(text).is_some() => {
            format!("the number `{}`", shown(text))
        }
        NodeValue::Text { text, .. } => format!("the text `{}`", shown(text)),
        NodeValue::List(_) => "a list".to_owned(),
        NodeValue::Map(_) => "a map".to_owned(),
    }
}

/// As much of a user's text as fits into a sentence.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_CHARACTERS_MAX: usize = 60;
    let line = text.trim_end().lines().next().unwrap_or_default();
    let short: String = line.chars().take(SHOWN_CHARACTERS_MAX).collect();
    if short.len() < text.trim_end().len() { format!("{short}…") } else { short }
}

/// `a`, `b` and `c`.
pub(super) fn listed(names: &[&str], and: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} {and} {last}", others.join(", ")),
        None => String::new(),
    }
}
