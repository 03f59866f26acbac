//! The values that tell rows apart: a few fields of a row brought to one key.
//!
//! Not an operator. What `group:` means, and when two rows say the same, is decided here, once.

use xxhash_rust::xxh3::xxh3_128;

use crate::call::key::canonical;
use crate::kit::Check;
use crate::row::{FieldPath, Fields, Value};

/// Some fields of a row, or keys inside them.
pub struct Values(Vec<FieldPath>);

impl Values {
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a str>) -> Values {
        Values(paths.into_iter().map(FieldPath::parse).collect())
    }

    /// Reports paths that lead nowhere and those that are listed twice. Each comes with its place.
    pub fn check<'a>(check: &mut Check<'_>, paths: impl IntoIterator<Item = (String, &'a str)>) {
        let mut seen = Vec::new();
        for (key, path) in paths {
            if seen.contains(&path) {
                check.problem(&key, format!("`{path}` is listed twice"));
            } else {
                check.reads(&key, path);
            }
            seen.push(path);
        }
    }

    /// The same for a config's list `group`.
    pub fn check_group(check: &mut Check<'_>, group: &[String]) {
        let places = group.iter().enumerate().map(|(index, path)| (format!("group.{index}"), path.as_str()));
        Values::check(check, places);
    }

    /// The two halves of the digest of all values as one JSON list, which no other values can make. A field
    /// that is absent counts as null. `plain` says what a value counts as.
    pub fn digest(&self, fields: &Fields, plain: impl Fn(&Value) -> Value) -> [u64; 2] {
        let value = |path: &FieldPath| path.value(fields).map_or(Value::Null, &plain);
        let mut bytes = Vec::new();
        canonical(&self.0.iter().map(value).collect(), &mut bytes);
        let digest = xxh3_128(&bytes);
        [(digest >> 64) as u64, digest as u64]
    }
}
