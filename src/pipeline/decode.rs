//! A tree of nodes to any serde type, with every problem at once and each at its own place.
//!
//! serde stops at the first error. So this reads in passes: a pass that fails says where; the value
//! there is replaced by a stand-in (or left out, if that fails too) and the next pass goes on behind
//! it. Keys that a struct does not know are noted and skipped. What follows only from an earlier
//! problem is not reported. The value of the last pass is handed out with the paths of what is not in it
//! as it was written, so that a check can go on; it is good for nothing else. A type that refuses any
//! stand-in, and is required, may hide other missing keys beside it for once.
//!
//! For whoever derives `Deserialize`: avoid `flatten`, `untagged` and `tag`, since serde buffers
//! these and places are lost (only that of the whole value remains); `deny_unknown_fields` is
//! implied; the text of an `Error::custom` becomes the problem at that value, and what follows
//! `\nhint: ` in it becomes the hint.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, DeserializeSeed};

use super::PROBLEMS_MAX;
use super::fault::{Error, Fault, Kind, Part, listed, name_at, shown, worded};
use super::node::{Node, NodeValue};
use super::reader::{Reader, Spot};
use super::stand_in::StandIn;
use crate::problem::{KeyPath, Place, Problem, did_you_mean, name_hint};

/// A problem takes up to three passes, and its parents may take two each.
const PASSES_MAX: usize = 4 * PROBLEMS_MAX;

/// What was read of a node.
#[derive(Debug, PartialEq)]
pub struct Decoded<T> {
    /// The value; with stand-ins in it where there are `doubts`. Nothing where none would do.
    pub value: Option<T>,
    pub problems: Vec<Problem>,
    /// The paths of what was not read as it was written: one at least for every problem.
    pub doubts: Vec<KeyPath>,
}

/// Reads `node`, which is at `at` in its file, as a `T`.
pub fn decode<T: DeserializeOwned>(node: &Node, at: &KeyPath) -> Decoded<T> {
    let notes = Notes::default();
    let spot = Spot::root(at);
    for _ in 0..PASSES_MAX {
        match notes.read(PhantomData::<T>, node, spot) {
            Ok(value) => {
                let Notes { problems, doubts, .. } = notes;
                let (problems, doubts) = (problems.into_inner(), doubts.into_inner());
                return Decoded { value: Some(value), problems, doubts };
            }
            Err(error) => {
                let goes_on = notes.learn(node, at, error);
                if !goes_on || notes.problems.borrow().len() >= PROBLEMS_MAX {
                    break;
                }
            }
        }
    }
    let mut problems = notes.problems.into_inner();
    if problems.is_empty() {
        problems.push(Problem::error(Place::Value(at.clone()), format!("{} cannot be read", name_at(at))));
    }
    Decoded { value: None, problems, doubts: vec![at.clone()] }
}

/// What is remembered from pass to pass. Nodes are known by their address: the tree stands still.
#[derive(Default)]
pub(super) struct Notes {
    problems: RefCell<Vec<Problem>>,
    doubts: RefCell<Vec<KeyPath>>,
    /// What became of the nodes that had a problem.
    replaced: RefCell<HashMap<usize, Replaced>>,
    /// Keys that were missing: their maps get a stand-in for them.
    pub(super) filled: RefCell<HashSet<(usize, String)>>,
    /// Values of unknown keys that are reported already.
    unknown: RefCell<HashSet<usize>>,
    /// Keys that an unknown key of the same map was taken for.
    meant: RefCell<HashSet<(usize, String)>>,
    /// The keys that the struct read from a map takes.
    pub(super) known: RefCell<HashMap<usize, &'static [&'static str]>>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Replaced {
    ByStandIn,
    ByNothing,
}

pub(super) fn address(node: &Node) -> usize {
    std::ptr::from_ref(node).addr()
}

impl Notes {
    pub(super) fn replaced(&self, node: &Node) -> Option<Replaced> {
        self.replaced.borrow().get(&address(node)).copied()
    }

    /// Reads one node, or its stand-in; errors that have no place yet get this node's.
    pub(super) fn read<'de, S: DeserializeSeed<'de>>(
        &self,
        seed: S,
        node: &Node,
        spot: Spot<'_>,
    ) -> Result<S::Value, Error> {
        let result = match self.replaced(node) {
            Some(_) => seed.deserialize(StandIn::new()),
            None => seed.deserialize(Reader { node, spot, notes: self }),
        };
        result.map_err(|error| error.at(spot, Part::Value))
    }

    fn doubt(&self, path: KeyPath) {
        self.doubts.borrow_mut().push(path);
    }

    fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Notes the problem that ended a pass and decides what the next pass does without. False if
    /// there is nothing left to go on with.
    fn learn(&self, root: &Node, at: &KeyPath, error: Error) -> bool {
        let Fault { kind, place } = *error.0;
        let (path, part) = place.unwrap_or_else(|| (at.clone(), Part::Value));
        let inner = KeyPath(path.0.iter().skip(at.0.len()).cloned().collect());
        let Some(node) = root.get(&inner) else { return false };
        if part == Part::Key {
            let mut above = path.clone();
            above.0.pop();
            let problem = match kind {
                Kind::UnknownChoice { choice: key, known } | Kind::UnknownKey { key, known } => {
                    worded(&Kind::UnknownKey { key, known }, node, &above)
                }
                kind => worded(&kind, node, &path),
            };
            self.doubt(path.clone());
            self.report(Problem { place: Place::Key(path), ..problem });
            return self.leave_out(node);
        }
        match kind {
            Kind::Missing(key) => self.learn_missing(root, at, &inner, key),
            Kind::UnknownKey { key, known } if node.entry(&key).is_some() => {
                self.unknown_key(node, &path, &key, known);
                node.entry(&key).is_some_and(|(_, child)| self.leave_out(child))
            }
            kind => {
                if !self.is_altered(node) {
                    self.report(worded(&kind, node, &path));
                }
                self.replace(root, at, &inner)
            }
        }
    }

    fn learn_missing(&self, root: &Node, at: &KeyPath, inner: &KeyPath, key: &str) -> bool {
        let Some(node) = root.get(inner) else { return false };
        let path = &at.extend(inner);
        let slot = (address(node), key.to_owned());
        let is_meant = self.meant.borrow().contains(&slot);
        if node.entry(key).is_some() || !self.filled.borrow_mut().insert(slot) {
            return self.replace(root, at, inner);
        }
        self.doubt(path.join(key));
        if !is_meant {
            let known = self.known.borrow().get(&address(node)).copied().unwrap_or_default();
            let mut problem = Problem::error(Place::Key(path.clone()), format!("missing key `{key}`"));
            let hint = format!("{} takes {}", name_at(path), listed(known, "and"));
            problem.hint = Some(hint).filter(|_| known.len() > 1);
            self.report(problem);
        }
        true
    }

    fn leave_out(&self, node: &Node) -> bool {
        self.replaced.borrow_mut().insert(address(node), Replaced::ByNothing) != Some(Replaced::ByNothing)
    }

    /// Puts a stand-in where a node is; where one is already, nothing; where that has not helped
    /// either, the same for the node above it.
    fn replace(&self, root: &Node, at: &KeyPath, inner: &KeyPath) -> bool {
        for depth in (0..=inner.0.len()).rev() {
            let here = KeyPath(inner.0[..depth].to_vec());
            let Some(node) = root.get(&here) else { continue };
            let next = match self.replaced(node) {
                None => Replaced::ByStandIn,
                Some(Replaced::ByStandIn) if depth > 0 => Replaced::ByNothing,
                Some(_) => continue,
            };
            self.replaced.borrow_mut().insert(address(node), next);
            // What is left out moves those behind it up: then all of the list is in doubt.
            let in_doubt =
                if next == Replaced::ByNothing { KeyPath(inner.0[..depth - 1].to_vec()) } else { here };
            self.doubt(at.extend(&in_doubt));
            return true;
        }
        false
    }

    /// Whether an error at this node may follow from what was replaced in it.
    fn is_altered(&self, node: &Node) -> bool {
        self.replaced(node).is_some()
            || self.filled.borrow().iter().any(|(map, _)| *map == address(node))
            || match &node.value {
                NodeValue::List(items) => items.iter().any(|item| self.is_altered(item)),
                NodeValue::Map(entries) => entries.iter().any(|(_, child)| self.is_altered(child)),
                _ => false,
            }
    }

    pub(super) fn unknown_key(&self, map: &Node, path: &KeyPath, key: &str, known: &[&str]) {
        let Some((_, child)) = map.entry(key) else { return };
        if !self.unknown.borrow_mut().insert(address(child)) {
            return;
        }
        self.doubt(path.join(key));
        if let Some(meant) = did_you_mean(key, known.iter().copied()) {
            self.doubt(path.join(meant));
            self.meant.borrow_mut().insert((address(map), meant.to_owned()));
        }
        let message = format!("`{}` is not a key of {}", shown(key), name_at(path));
        let mut problem = Problem::error(Place::Key(path.join(key)), message);
        problem.hint = name_hint(key, known.iter().copied());
        self.report(problem);
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;
    use serde::{Deserialize, Deserializer, de};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    /// Checks the problems of a file read as a `T`: `path: message`, without their hints.
    #[track_caller]
    fn check<T: DeserializeOwned>(file: &str, expected: &[&str]) {
        let root = yaml::parse(file).0.expect("it parses");
        let Decoded { problems, doubts, .. } = decode::<T>(&root, &KeyPath::parse("at"));
        let shown = |problem: &Problem| match &problem.place {
            Place::Value(path) => format!("{path}: {}", problem.message),
            Place::Key(path) => format!("key {path}: {}", problem.message),
            place => panic!("decoding knows no {place:?}"),
        };
        assert_eq!(problems.iter().map(shown).collect::<Vec<_>>(), expected);
        for problem in &problems {
            let (Place::Value(path) | Place::Key(path)) = &problem.place else { continue };
            let near = |doubt: &KeyPath| doubt.0.starts_with(&path.0) || path.0.starts_with(&doubt.0);
            assert!(doubts.iter().any(near), "no doubt about {path}");
        }
        assert_eq!(doubts.is_empty(), expected.is_empty());
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct Pair {
        left: NoSmall,
        right: u8,
    }

    /// A type that takes no stand-in: only a map with the key `big`.
    struct NoSmall;

    impl<'de> Deserialize<'de> for NoSmall {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NoSmall, D::Error> {
            let map = BTreeMap::<String, u8>::deserialize(deserializer)?;
            match map.keys().next().map(String::as_str) {
                Some("big") => Ok(NoSmall),
                Some(other) => Err(de::Error::unknown_field(other, &["big"])),
                None => Err(de::Error::custom("it is empty\nhint: write `big: 1`")),
            }
        }
    }

    #[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
    #[serde(rename_all = "lowercase")]
    enum Color {
        Red,
        Blue,
    }

    #[test]
    fn what_follows_from_a_problem_is_not_reported() {
        check::<Pair>("{ left: { big: 1 }, right: 2 }", &[]);
        check::<Pair>(
            "{ left: 1, right: x }",
            &[
                "at.left: `left` must be a map, not the number `1`",
                "at.right: `right` must be a whole number, not the text `x`",
            ],
        );
        check::<Pair>(
            "{ left: { small: 1 }, rihgt: 2 }",
            &[
                "key at.left.small: `small` is not a key of `left`",
                "key at.rihgt: `rihgt` is not a key of `at`",
            ],
        );
        check::<Vec<Pair>>(
            "[{ left: {} }, { right: 300 }]",
            &[
                "at[0].left: `left`: it is empty",
                "at[1].right: `right` must be at most 255, not the number `300`",
                "key at[1]: missing key `left`",
            ],
        );
    }

    #[test]
    fn keys_of_maps_may_have_types_too() {
        check::<BTreeMap<Color, u8>>("{ red: 1, blue: 2 }", &[]);
        check::<BTreeMap<Color, u8>>(
            "{ rd: 1, blue: -2 }",
            &[
                "key at.rd: `rd` is not a key of `at`",
                "at.blue: `blue` must be at least 0, not the number `-2`",
            ],
        );
    }

    #[test]
    fn there_is_an_end_to_problems() {
        let file = "- x\n".repeat(3 * PROBLEMS_MAX);
        let root = yaml::parse(&file).0.expect("it parses");
        assert_eq!(decode::<Vec<u8>>(&root, &KeyPath::root()).problems.len(), PROBLEMS_MAX);
    }

    #[test]
    fn any_json_is_read_as_it_is_written() {
        let file = "{ a: [1, -2, 1.5, true, ~, 'x', 2M, 012], b: { c: 18446744073709551615 } }";
        let root = yaml::parse(file).0.expect("it parses");
        let expected = json!({ "a": [1, -2, 1.5, true, null, "x", "2M", "012"], "b": { "c": u64::MAX } });
        let expected = Decoded { value: Some(expected), problems: Vec::new(), doubts: Vec::new() };
        assert_eq!(decode::<Value>(&root, &KeyPath::root()), expected);
        check::<Value>(
            "a: 18446744073709551616",
            &["at.a: `a` must be a number of at most 64 bits, not the number `18446744073709551616`"],
        );
    }
}
