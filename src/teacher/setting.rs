//! How a teacher's settings are written in a pipeline file: durations, and texts that may be secret.
//!
//! Only reading; what a setting means is known where it is used.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// Reads a duration such as `90s` or `2m 30s`; for `#[serde(deserialize_with)]`.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Written;
    impl Visitor<'_> for Written {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration with a unit, such as `90s` or `2m 30s`")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_any(Written)
}

/// A text in a pipeline file that may be a secret: `text`, or `{ env: NAME }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    Text(String),
    /// The value of an environment variable; a secret.
    Env(String),
}

impl Setting {
    /// The name of the environment variable that holds the value, if one does.
    pub fn env_name(&self) -> Option<&str> {
        match self {
            Setting::Env(name) => Some(name),
            Setting::Text(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Setting, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Setting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or `{ env: NAME }`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Setting, E> {
                Ok(Setting::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Setting, A::Error> {
                let mut name = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "env" {
                        return Err(de::Error::unknown_field(&key, &["env"]));
                    }
                    if name.replace(map.next_value()?).is_some() {
                        return Err(de::Error::duplicate_field("env"));
                    }
                }
                name.map(Setting::Env).ok_or_else(|| de::Error::missing_field("env"))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Setting {
    fn schema_name() -> Cow<'static, str> {
        "Setting".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text, or the name of the environment variable that holds it.",
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "env": { "type": "string" } },
                    "required": ["env"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Wait(#[serde(deserialize_with = "duration")] Duration);

    #[test]
    fn settings_are_texts_or_names() {
        let read = |json: &str| serde_json::from_str::<Setting>(json).map_err(|error| error.to_string());
        assert_eq!(read("\"a\""), Ok(Setting::Text("a".into())));
        assert_eq!(read(r#"{"env":"A"}"#), Ok(Setting::Env("A".into())));
        assert!(read(r#"{"evn":"A"}"#).unwrap_err().contains("expected `env`"));
        assert!(read("{}").unwrap_err().contains("missing field `env`"));
        assert!(read("3").unwrap_err().contains("a text or `{ env: NAME }`"));
    }

    #[test]
    fn durations_need_a_unit() {
        let read = |json: &str| {
            serde_json::from_str::<Wait>(json).map(|wait| wait.0).map_err(|error| error.to_string())
        };
        assert_eq!(read("\"2m 30s\""), Ok(Duration::from_secs(150)));
        for wrong in ["120", "\"soon\""] {
            assert!(read(wrong).unwrap_err().contains("expected a duration with a unit"), "{wrong}");
        }
    }
}
