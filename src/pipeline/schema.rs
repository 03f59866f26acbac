//! The JSON Schema of pipeline files, made from the structs that read them: what editors complete from.
//!
//! `textmill.schema.json` at the root of the repository is this text; the test below holds it fresh.

use serde_json::Value;

use crate::pipeline::file::PipelineFile;
use crate::problem::{Key, KeyPath};

/// The schema, pretty-printed, with a line feed at its end.
pub fn text() -> String {
    let schema = schemars::schema_for!(PipelineFile);
    format!("{:#}\n", schema.as_value())
}

/// Whether a path leads to a map of named keys, whatever a file has there. Its own last name must be one that
/// the schema has: what users name themselves may be misspelt.
pub fn is_known_map(path: &KeyPath) -> bool {
    let schema = schemars::schema_for!(PipelineFile);
    let root = schema.as_value();
    let Some((Key::Name(last), parents)) = path.0.split_last() else { return false };
    let parent = parents.iter().try_fold(root, |at, key| child(root, at, key));
    let found = parent.and_then(|parent| plain(root, parent)["properties"].get(last));
    found.is_some_and(|at| plain(root, at)["properties"].is_object())
}

fn child<'s>(root: &'s Value, at: &'s Value, key: &Key) -> Option<&'s Value> {
    let at = plain(root, at);
    match key {
        Key::Name(name) => at["properties"].get(name).or_else(|| at.get("additionalProperties")),
        Key::Index(_) => at.get("items"),
    }
}

/// What a schema says once references are followed and the choice of null is left out.
fn plain<'s>(root: &'s Value, at: &'s Value) -> &'s Value {
    if let Some(name) = at["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
        return plain(root, &root["$defs"][name]);
    }
    match at["anyOf"].as_array() {
        Some(choices) => {
            choices.iter().find(|choice| choice["type"] != "null").map_or(at, |choice| plain(root, choice))
        }
        None => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_known_by_their_paths() {
        let check =
            |path: &str, expected| assert_eq!(is_known_map(&KeyPath::parse(path)), expected, "{path}");
        check("", false);
        check("budget", true);
        check("budget.usd", false);
        check("teachers.writer", false);
        check("teachers.writer.limits", true);
        check("source.sample.until", true);
        check("steps.0.generate", true);
        check("steps.0.generate.extra", false);
        check("bugdet", false);
    }

    /// `UPDATE=1 cargo nextest run schema` writes the committed file anew.
    #[test]
    fn the_committed_schema_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/textmill.schema.json");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, text()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == text(), "`{path}` is stale; run this test with UPDATE=1");
    }

    #[test]
    fn the_schema_knows_every_operator_and_no_other_key() {
        let schema: serde_json::Value = serde_json::from_str(&text()).unwrap();
        let step = &schema["$defs"]["step"];
        for (name, _) in crate::ops::OPERATORS {
            assert!(step["properties"].get(name).is_some(), "{name}");
        }
        assert_eq!([&schema["additionalProperties"], &step["additionalProperties"]], [false, false]);
    }
}
