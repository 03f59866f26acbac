//! What problems of form leave uncertain: the check goes on around it, and what may only follow from it
//! is not reported.

use crate::ops::REASON_SUFFIX;
use crate::pipeline::node::{Node, NodeValue};
use crate::problem::{KeyPath, Place};

/// The places of a file that were not read as they are written, and its tree, to see what is written there.
#[derive(Default)]
pub struct Doubts<'a> {
    root: Option<&'a Node>,
    paths: Vec<KeyPath>,
}

impl<'a> Doubts<'a> {
    pub fn new(root: &'a Node, paths: Vec<KeyPath>) -> Doubts<'a> {
        Doubts { root: Some(root), paths }
    }

    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Whether something at a path, above or below it is in doubt.
    pub fn touch(&self, path: &KeyPath) -> bool {
        self.cover(path) || self.paths.iter().any(|doubt| doubt.0.starts_with(&path.0))
    }

    /// Whether a path is in doubt as a whole.
    pub fn cover(&self, path: &KeyPath) -> bool {
        self.paths.iter().any(|doubt| path.0.starts_with(&doubt.0))
    }

    /// Whether a problem there may follow from what is in doubt.
    pub fn excuse(&self, place: &Place) -> bool {
        match place {
            Place::Value(path) | Place::Key(path) | Place::Inside(path, _) => self.touch(path),
            Place::Nowhere | Place::Bytes(_) | Place::File { .. } => false,
        }
    }

    /// Whether a part of the file names this: as a key or a value, or by the field that `judge` makes of
    /// it. Of a part that is not where it should be, nobody knows.
    pub fn mention(&self, part: &KeyPath, name: &str) -> bool {
        self.root.and_then(|root| root.get(part)).is_none_or(|node| mentions(node, name))
    }
}

fn mentions(node: &Node, name: &str) -> bool {
    let is_named = |text: &str| text == name || name.strip_suffix(REASON_SUFFIX) == Some(text);
    match &node.value {
        NodeValue::Text { text, .. } => is_named(text),
        NodeValue::List(items) => items.iter().any(|item| mentions(item, name)),
        NodeValue::Map(entries) => {
            entries.iter().any(|(key, value)| is_named(&key.name) || mentions(value, name))
        }
        NodeValue::Null | NodeValue::Bool(_) | NodeValue::Integer(_) | NodeValue::Float(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::yaml;

    /// Checks whether a problem at `path` is excused by a doubt about `a.b`.
    #[track_caller]
    fn check(path: &str, expected: bool) {
        let root = yaml::parse("{ a: { b: [x, { y: z }] } }").0.expect("it parses");
        let doubts = Doubts::new(&root, vec![KeyPath::parse("a.b")]);
        assert_eq!(doubts.excuse(&Place::Value(KeyPath::parse(path))), expected, "{path}");
    }

    #[test]
    fn a_doubt_excuses_what_is_above_and_below_it() {
        check("a", true);
        check("a.b", true);
        check("a.b.0", true);
        check("a.c", false);
        check("c", false);
    }

    #[test]
    fn names_are_looked_for_in_keys_and_values() {
        let root = yaml::parse("{ a: { b: [x, { y: z }] } }").0.expect("it parses");
        let doubts = Doubts::new(&root, Vec::new());
        let mentioned = |name: &str| doubts.mention(&KeyPath::parse("a"), name);
        assert_eq!(["b", "x", "y", "z", "a"].map(mentioned), [true, true, true, true, false]);
        assert!(mentioned("x_reason"));
        assert!(doubts.mention(&KeyPath::parse("c"), "x"));
    }
}
