//! `--set path=value`: single values laid over a pipeline file's tree.
//!
//! A path is names and list indexes with dots between them, `steps.2.generate.temperature=0.5`; a
//! list item that is a map with a `name` (or whose only value has an `into`) may be meant by that.

use std::path::PathBuf;

use super::node::{KeyNode, Node, NodeValue, Origin, Span};
use super::{schema, yaml};
use crate::problem::{Key, KeyPath, Place, Problem, did_you_mean, name_hint};

/// Lays one `--set` argument over `root`; `index` counts the arguments from 0 and becomes the
/// origin of the new value, so that later problems with it are shown at the argument.
///
/// The value is read as YAML: a list in brackets, a map in braces, a quoted text, else a plain value.
/// The path must exist, or lead to a map in which its last name becomes a new key; a map that the file does
/// not have is made where one belongs.
pub fn apply_set(root: &mut Node, argument: &str, index: usize) -> Result<(), Box<Problem>> {
    let problem = |message: String| Box::new(Problem::error(place(argument), message));
    let Some((written_path, written)) = argument.split_once('=') else {
        let problem = Problem::error(place(argument), format!("`{argument}` has no `=`"));
        return Err(Box::new(problem.hint("write `--set path.to.key=value`")));
    };
    let (path, below) = resolve(root, &KeyPath::parse(written_path.trim()), argument)?;
    if path.0.is_empty() {
        return Err(problem("there is no path before the `=`".to_owned()));
    }
    let value_at = argument.len() - written.trim_start().len();
    let value = value(written.trim(), argument, value_at, index)?;
    let value = below.into_iter().rev().fold(value, |value, name| {
        let span = value.span.clone();
        let key = KeyNode { name, span: span.clone() };
        Node { value: NodeValue::Map(vec![(key, value)]), span }
    });
    root.set(&path, value).map_err(|_| problem(format!("`{path}` cannot be set")))
}

/// The place that problems with a `--set` argument are at.
pub fn place(argument: &str) -> Place {
    Place::File { path: PathBuf::from(place_name(argument)), line: None, column: None }
}

pub(super) fn place_name(argument: &str) -> String {
    format!("--set {}", argument.replace('\n', "\u{240a}"))
}

/// Turns names of list items into indexes, and says what is wrong with a path that leads nowhere. Where the
/// file ends before the path does, the names of the rest come apart, for the maps to be made.
fn resolve(root: &Node, path: &KeyPath, argument: &str) -> Result<(KeyPath, Vec<String>), Box<Problem>> {
    let mut node = root;
    let mut resolved = KeyPath::root();
    for (depth, key) in path.0.iter().enumerate() {
        let is_last = depth + 1 == path.0.len();
        let problem = |message: String| Box::new(Problem::error(place(argument), message));
        let whole = if depth == 0 { "the file".to_owned() } else { format!("`{resolved}`") };
        let key = match (&node.value, key) {
            (NodeValue::List(items), Key::Name(name)) => {
                Key::Index(item_named(items, name).map_err(problem)?)
            }
            (NodeValue::List(items), Key::Index(index)) if *index >= items.len() => {
                let message =
                    format!("{whole} has {} items, counted from 0: there is no {index}", items.len());
                return Err(problem(message));
            }
            (NodeValue::List(_) | NodeValue::Map(_), key) => key.clone(),
            (_, _) => return Err(problem(format!("{whole} is neither a map nor a list"))),
        };
        match node.child(&key) {
            Some(child) => node = child,
            None if is_last => {}
            None if are_maps(&resolved, &key, &path.0[depth + 1..]) => {
                let below = path.0[depth + 1..].iter().map(|key| KeyPath(vec![key.clone()]).to_string());
                return Ok((resolved.join(key), below.collect()));
            }
            None => {
                let name = KeyPath(vec![key]).to_string();
                let mut problem = problem(format!("{whole} has no key `{name}`"));
                problem.hint = name_hint(&name, node.names());
                return Err(problem);
            }
        }
        resolved = resolved.join(key);
    }
    Ok((resolved, Vec::new()))
}

/// Whether a key that the file does not have, and all below it but the last, are maps by the schema.
fn are_maps(parent: &KeyPath, key: &Key, below: &[Key]) -> bool {
    let first = parent.join(key.clone());
    let parents = below.iter().take(below.len().saturating_sub(1));
    let rest = parents.scan(first.clone(), |path, key| {
        *path = path.join(key.clone());
        Some(path.clone())
    });
    std::iter::once(first).chain(rest).all(|path| schema::is_known_map(&path))
}

/// The index of the item that calls itself `name`.
fn item_named(items: &[Node], name: &str) -> Result<usize, String> {
    let names: Vec<Option<&str>> = items.iter().map(own_name).collect();
    let mut found = names.iter().enumerate().filter(|(_, own)| **own == Some(name)).map(|(index, _)| index);
    match (found.next(), found.next()) {
        (Some(index), None) => Ok(index),
        (Some(_), Some(_)) => Err(format!("more than one item is named `{name}`: use its index")),
        (None, _) => {
            let near = did_you_mean(name, names.iter().flatten().copied());
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            Err(format!("no item is named `{name}`: use its index, counted from 0{near}"))
        }
    }
}

fn own_name(item: &Node) -> Option<&str> {
    text_at(item, "name").or_else(|| match &item.value {
        NodeValue::Map(entries) => entries.iter().find_map(|(_, value)| text_at(value, "into")),
        _ => None,
    })
}

fn text_at<'n>(map: &'n Node, key: &str) -> Option<&'n str> {
    match &map.entry(key)?.1.value {
        NodeValue::Text { text, .. } => Some(text),
        _ => None,
    }
}

/// Reads the value of an argument that begins at its byte `at`.
fn value(written: &str, argument: &str, at: usize, index: usize) -> Result<Node, Box<Problem>> {
    let mut node = if written.starts_with(['[', '{', '"', '\'']) {
        let (node, problems) = yaml::parse(written);
        if let Some(problem) = problems.into_iter().next() {
            return Err(Box::new(Problem { place: place(argument), ..problem }));
        }
        node.ok_or_else(|| Box::new(Problem::error(place(argument), "the value cannot be read")))?
    } else {
        let span = Span { origin: Origin::Override(index), bytes: 0..written.len() };
        Node { value: yaml::plain_value(written), span }
    };
    relocate(&mut node, at, index);
    Ok(node)
}

fn relocate(node: &mut Node, by: usize, index: usize) {
    let moved = |span: &Span| Span {
        origin: Origin::Override(index),
        bytes: span.bytes.start + by..span.bytes.end + by,
    };
    node.span = moved(&node.span);
    match &mut node.value {
        NodeValue::List(items) => items.iter_mut().for_each(|item| relocate(item, by, index)),
        NodeValue::Map(entries) => {
            for (key, value) in entries {
                key.span = moved(&key.span);
                relocate(value, by, index);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::node::Style;

    const FILE: &str = "
rows: 3
steps:
  - generate: { into: draft, temperature: 1 }
  - judge: { into: grade }
    name: strict
";

    fn apply(argument: &str) -> (Node, Result<(), Box<Problem>>) {
        let mut root = yaml::parse(FILE).0.expect("it parses");
        let result = apply_set(&mut root, argument, 1);
        (root, result)
    }

    #[track_caller]
    fn check(argument: &str, path: &str, expected: &NodeValue) {
        let (root, result) = apply(argument);
        assert_eq!(result, Ok(()));
        let node = root.get(&KeyPath::parse(path)).expect("it was set");
        assert_eq!(&node.value, expected);
        assert_eq!(node.span.origin, Origin::Override(1));
        let written = argument.split_once('=').expect("it has a value").1.trim();
        assert_eq!(&argument[node.span.bytes.clone()], written);
    }

    #[track_caller]
    fn check_problem(argument: &str, message: &str, hint: Option<&str>) {
        let problem = apply(argument).1.expect_err("it has a problem");
        assert_eq!((problem.message.as_str(), problem.hint.as_deref()), (message, hint));
        assert_eq!(problem.place, place(argument));
    }

    #[test]
    fn values_are_set_over_old_ones_and_as_new_keys() {
        let text = |text: &str, style| NodeValue::Text { text: text.to_owned(), style };
        check("rows=5", "rows", &NodeValue::Integer(5));
        check("about= a: b ", "about", &text("a: b", Style::Plain));
        check("rows='5'", "rows", &text("5", Style::Quoted));
        check("steps.0.generate.temperature=0.5", "steps.0.generate.temperature", &NodeValue::Float(0.5));
        check("steps.draft.generate.into=x", "steps.0.generate.into", &text("x", Style::Plain));
        check("steps.strict.judge.draws=null", "steps.1.judge.draws", &NodeValue::Null);
        check("budget.calls=3", "budget.calls", &NodeValue::Integer(3));
        check("source.sample.until.kept=3", "source.sample.until.kept", &NodeValue::Integer(3));
        let (root, result) = apply("limits={ a: [1, 2] }");
        assert_eq!(result, Ok(()));
        assert_eq!(root.get(&KeyPath::parse("limits.a.1")).map(|node| node.span.bytes.clone()), Some(16..17));
    }

    #[test]
    fn what_is_wrong_with_an_argument_is_said_at_the_argument() {
        check_problem("rows", "`rows` has no `=`", Some("write `--set path.to.key=value`"));
        check_problem("=1", "there is no path before the `=`", None);
        check_problem("step.0.x=1", "the file has no key `step`", Some("did you mean `steps`?"));
        check_problem("steps.7=1", "`steps` has 2 items, counted from 0: there is no 7", None);
        check_problem("rows.x=1", "`rows` is neither a map nor a list", None);
        let named = "no item is named `drafd`: use its index, counted from 0; did you mean `draft`?";
        check_problem("steps.drafd.x=1", named, None);
        let open = "the list in brackets is not closed, or a comma is missing before this";
        let hint = "check the brackets, braces and commas on this line and above it";
        check_problem("rows=[1", open, Some(hint));
    }
}
