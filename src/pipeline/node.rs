//! The tree that a pipeline file is read into: plain values that know where they were written.
//!
//! What the values should be is `decode`'s business; how they are written is `yaml`'s.

use std::borrow::Cow;
use std::ops::Range;

use crate::problem::{Key, KeyPath, Place};

/// What the user wrote a value in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    File,
    /// The `--set` argument with this index, counted from 0.
    Override(usize),
}

/// Where a value or a key was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub origin: Origin,
    /// Bytes in the file's text, or in the whole `path=value` text of the `--set` argument.
    pub bytes: Range<usize>,
}

/// How a text was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    /// In single or double quotes.
    Quoted,
    /// A block after `|`.
    Literal,
    /// A block after `>`.
    Folded,
}

#[derive(Clone, Debug, PartialEq)]
pub enum NodeValue {
    Null,
    Bool(bool),
    Integer(i128),
    /// Always finite.
    Float(f64),
    Text {
        text: String,
        style: Style,
    },
    List(Vec<Node>),
    /// In the order of the file, without duplicates.
    Map(Vec<(KeyNode, Node)>),
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyNode {
    pub name: String,
    pub span: Span,
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub value: NodeValue,
    /// From the value's first byte to its last one that is not white space or a comment. The span
    /// of a value that is not there (`key:` and no more) is its key's.
    pub span: Span,
}

impl Node {
    /// The child under one key. An index finds the map key made of the same digits, too.
    pub fn child(&self, key: &Key) -> Option<&Node> {
        match (&self.value, key) {
            (NodeValue::Map(_), key) => self.entry(&name_of(key)).map(|(_, node)| node),
            (NodeValue::List(items), Key::Index(index)) => items.get(*index),
            _ => None,
        }
    }

    /// A map's entry of this name.
    pub fn entry(&self, name: &str) -> Option<&(KeyNode, Node)> {
        match &self.value {
            NodeValue::Map(entries) => entries.iter().find(|(key, _)| key.name == name),
            _ => None,
        }
    }

    /// The names of a map's keys, in order; none for anything else.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        let entries: &[(KeyNode, Node)] = match &self.value {
            NodeValue::Map(entries) => entries,
            _ => &[],
        };
        entries.iter().map(|(key, _)| key.name.as_str())
    }

    pub fn get(&self, path: &KeyPath) -> Option<&Node> {
        path.0.iter().try_fold(self, Node::child)
    }

    fn get_mut(&mut self, keys: &[Key]) -> Option<&mut Node> {
        keys.iter().try_fold(self, |node, key| match (&mut node.value, key) {
            (NodeValue::Map(entries), key) => {
                let name = name_of(key);
                entries.iter_mut().find(|(key, _)| key.name == *name).map(|(_, node)| node)
            }
            (NodeValue::List(items), Key::Index(index)) => items.get_mut(*index),
            _ => None,
        })
    }

    /// Puts `value` at `path`, over what is there or as a new last key of a map. Gives `value` back
    /// if the path's parent is neither a map nor a list that has the index.
    pub fn set(&mut self, path: &KeyPath, value: Node) -> Result<(), Node> {
        if let Some(there) = self.get_mut(&path.0) {
            *there = value;
            return Ok(());
        }
        let Some((last, parents)) = path.0.split_last() else { return Err(value) };
        let Some(Node { value: NodeValue::Map(entries), .. }) = self.get_mut(parents) else {
            return Err(value);
        };
        let key = KeyNode { name: name_of(last).into_owned(), span: value.span.clone() };
        entries.push((key, value));
        Ok(())
    }

    /// Takes the value at `path` out of its map or list; the root stays where it is.
    pub fn remove(&mut self, path: &KeyPath) -> Option<Node> {
        let (last, parents) = path.0.split_last()?;
        match (&mut self.get_mut(parents)?.value, last) {
            (NodeValue::List(items), Key::Index(index)) if *index < items.len() => Some(items.remove(*index)),
            (NodeValue::Map(entries), key) => {
                let name = name_of(key);
                let position = entries.iter().position(|(key, _)| key.name == *name)?;
                Some(entries.remove(position).1)
            }
            _ => None,
        }
    }

    /// Where a place is in what the user wrote. A path that leads nowhere gives its nearest existing
    /// ancestor; `None` is for places that are not in this tree (`Nowhere`, another file). The span
    /// of `Inside` is that of the whole value: only `render` has the text to look closer.
    pub fn span_of(&self, place: &Place) -> Option<Span> {
        match place {
            Place::Nowhere | Place::File { .. } => None,
            Place::Bytes(bytes) => Some(Span { origin: Origin::File, bytes: bytes.clone() }),
            Place::Value(path) | Place::Inside(path, _) => Some(self.nearest(path, false)),
            Place::Key(path) => Some(self.nearest(path, true)),
        }
    }

    /// The span at a path. If it does not exist, its nearest ancestor is shown by its key, since an
    /// ancestor is a map or a list and may be long. For the key of what has none (the root, an item)
    /// it is where that begins.
    fn nearest(&self, path: &KeyPath, want_key: bool) -> Span {
        let mut node = self;
        let mut key_span = None;
        let mut found = 0;
        for key in &path.0 {
            let Some(child) = node.child(key) else { break };
            key_span = node.entry(&name_of(key)).map(|(key, _)| key.span.clone());
            node = child;
            found += 1;
        }
        match key_span {
            Some(span) if want_key || found < path.0.len() => span,
            None if want_key => {
                let Span { origin, bytes } = node.span.clone();
                Span { origin, bytes: bytes.start..bytes.start }
            }
            _ => node.span.clone(),
        }
    }
}

/// The name that a key has in a map: an index is the key made of its digits.
fn name_of(key: &Key) -> Cow<'_, str> {
    match key {
        Key::Name(name) => Cow::Borrowed(name),
        Key::Index(index) => Cow::Owned(index.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::yaml;

    const FILE: &str = "steps:\n  - generate: { into: x }\n  - keep_if: x\n";

    fn root() -> Node {
        yaml::parse(FILE).0.expect("it parses")
    }

    #[track_caller]
    fn check_span(place: &Place, expected: &str) {
        let span = root().span_of(place).expect("it is in the file");
        assert_eq!(&FILE[span.bytes], expected);
    }

    #[test]
    fn places_are_found_or_their_nearest_ancestor() {
        let path = KeyPath::parse;
        check_span(&Place::Value(path("steps.0.generate.into")), "x");
        check_span(&Place::Key(path("steps.0.generate.into")), "into");
        check_span(&Place::Value(path("steps.0.generate.prompt")), "generate");
        check_span(&Place::Key(path("steps.1")), "");
        check_span(&Place::Value(path("steps.1")), "keep_if: x");
        check_span(&Place::Value(path("steps.7.x")), "steps");
        check_span(&Place::Bytes(0..3), "ste");
        assert_eq!(root().span_of(&Place::Nowhere), None);
    }

    #[test]
    fn values_are_set_and_removed_by_path() {
        let mut root = root();
        let value =
            Node { value: NodeValue::Integer(3), span: Span { origin: Origin::Override(0), bytes: 0..0 } };
        let new = KeyPath::parse("steps.0.generate.draws");
        assert_eq!(root.set(&new, value.clone()), Ok(()));
        assert_eq!(root.get(&new), Some(&value));
        assert_eq!(root.set(&KeyPath::parse("steps.1"), value.clone()), Ok(()));
        assert_eq!(root.set(&KeyPath::parse("steps.2"), value.clone()), Err(value.clone()));
        assert_eq!(root.set(&KeyPath::parse("a.b"), value.clone()), Err(value.clone()));
        assert_eq!(root.remove(&new), Some(value.clone()));
        assert_eq!(root.get(&new), None);
        assert_eq!(root.remove(&KeyPath::parse("steps.1")), Some(value));
        assert_eq!(root.remove(&KeyPath::parse("steps.1")), None);
        assert_eq!(root.remove(&KeyPath::root()), None);
    }
}
