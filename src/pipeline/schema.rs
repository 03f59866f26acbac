//! The JSON Schema of pipeline files, made from the structs that read them: what editors complete from.
//!
//! `textmill.schema.json` at the root of the repository is this text; the test below holds it fresh.

use crate::pipeline::file::PipelineFile;

/// The schema, pretty-printed, with a line feed at its end.
pub fn text() -> String {
    let schema = schemars::schema_for!(PipelineFile);
    format!("{:#}\n", schema.as_value())
}

#[cfg(test)]
mod tests {
    use super::*;

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
