//! Problems as people and programs read them: with the line they are in, or as JSON.
//!
//! This decides how problems look and nothing else; whoever calls it prints.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};
use serde_json::{Value, json};

use super::locate::{Location, locate};
use super::node::Node;
use crate::problem::{Place, Problem, Severity};

pub use super::locate::SourceMap;

/// A longer line is not shown, only named.
const LINE_BYTES_MAX: usize = 4_000;

/// Shows problems in the order of the file, each with its line, its causes and its hint, and counts
/// them at the end; empty if there are none. `root` is `None` where the file has no tree.
pub fn render(problems: &[Problem], root: Option<&Node>, sources: &SourceMap<'_>, color: bool) -> String {
    if problems.is_empty() {
        return String::new();
    }
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut text = String::new();
    for (problem, location) in in_order(problems, root, sources) {
        text.push_str(&renderer.render(&[group(problem, location)]));
        text.push_str("\n\n");
    }
    let plural = if problems.len() == 1 { "" } else { "s" };
    text.push_str(&format!("{} problem{plural} in {}\n", problems.len(), clean(sources.name)));
    text
}

/// The same problems in the same order as a JSON list of
/// `{severity, file, line, column, end_line, end_column, path, message, causes, hint}`. Lines and
/// columns count from 1, columns in characters; what is not known is null.
pub fn to_json(problems: &[Problem], root: Option<&Node>, sources: &SourceMap<'_>) -> Value {
    let objects = in_order(problems, root, sources).into_iter().map(|(problem, location)| {
        let start = location.as_ref().and_then(|location| location.start);
        let end = location.as_ref().and_then(|location| location.end);
        let path = match &problem.place {
            Place::Value(path) | Place::Key(path) | Place::Inside(path, _) => Some(path.to_string()),
            Place::Nowhere | Place::Bytes(_) | Place::File { .. } => None,
        };
        json!({
            "severity": match problem.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "file": location.map(|location| location.file),
            "line": start.map(|(line, _)| line),
            "column": start.and_then(|(_, column)| column),
            "end_line": end.map(|(line, _)| line),
            "end_column": end.map(|(_, column)| column),
            "path": path,
            "message": problem.message,
            "causes": problem.causes,
            "hint": problem.hint,
        })
    });
    objects.collect()
}

fn in_order<'p>(
    problems: &'p [Problem],
    root: Option<&Node>,
    sources: &SourceMap<'_>,
) -> Vec<(&'p Problem, Option<Location>)> {
    let located = problems.iter().map(|problem| (problem, locate(&problem.place, root, sources)));
    let mut located: Vec<_> = located.collect();
    // What is nowhere comes last.
    located.sort_by_cached_key(|(_, location)| {
        (location.is_none(), location.as_ref().map(|location| location.order.clone()))
    });
    located
}

fn group(problem: &Problem, location: Option<Location>) -> Group<'static> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(clean(&problem.message)));
    if let Some(location) = location {
        let short_line = location.line.filter(|(line, _)| line.len() <= LINE_BYTES_MAX);
        group = match (location.start, short_line) {
            (Some((number, _)), Some((line, bytes))) => {
                // Cleaning changes lengths, so the place moves with what is before it.
                let start = without_c1(&line[..bytes.start]).len();
                let end = without_c1(&line[..bytes.end]).len();
                let snippet =
                    Snippet::source(without_c1(&line)).path(clean(&location.file)).line_start(number);
                group.element(snippet.annotation(AnnotationKind::Primary.span(start..end)))
            }
            (Some((number, column)), None) => {
                let origin = Origin::path(clean(&location.file)).line(number);
                group.element(match column {
                    Some(column) => origin.char_column(column),
                    None => origin,
                })
            }
            (None, _) => group.element(Origin::path(clean(&location.file))),
        };
    }
    for cause in &problem.causes {
        group = group.element(Level::NOTE.with_name("cause").message(clean(cause)));
    }
    match &problem.hint {
        Some(hint) => group.element(Level::HELP.with_name("hint").message(clean(hint))),
        None => group,
    }
}

/// Text from users and models without anything that a terminal would obey.
fn clean(text: &str) -> String {
    normalize_untrusted_str(&without_c1(text))
}

/// The renderer itself leaves the C1 control characters, of which U+009B begins commands like `ESC [`.
fn without_c1(text: &str) -> String {
    text.replace(|character: char| ('\u{80}'..='\u{9f}').contains(&character), "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::yaml;
    use crate::problem::KeyPath;

    fn sources(text: &str) -> SourceMap<'_> {
        SourceMap { name: "x.yaml", text, overrides: &[], line_of: &|_, _| None }
    }

    #[track_caller]
    fn check_json(place: Place, expected: &Value) {
        let text = "é: [1, 2]\nx: |\n  one\n  two\n";
        let root = yaml::parse(text).0;
        let problem = Problem::error(place, "no").cause("why").hint("do");
        let mut shown = to_json(&[problem], root.as_ref(), &sources(text));
        let object = shown[0].as_object_mut().expect("it is an object");
        for (key, value) in [("severity", "error"), ("message", "no"), ("hint", "do")] {
            assert_eq!(object.remove(key), Some(Value::from(value)));
        }
        assert_eq!(object.remove("causes"), Some(json!(["why"])));
        assert_eq!(&shown[0], expected);
    }

    #[test]
    fn programs_get_lines_and_columns_of_both_ends() {
        let own = |line: u8, column: u8, end_line: u8, end_column: u8, path: Option<&str>| {
            json!({ "file": "x.yaml", "line": line, "column": column, "end_line": end_line,
                "end_column": end_column, "path": path })
        };
        check_json(Place::Value(KeyPath::parse("é.1")), &own(1, 8, 1, 9, Some("é[1]")));
        check_json(Place::Value(KeyPath::parse("x")), &own(3, 3, 4, 6, Some("x")));
        check_json(Place::Key(KeyPath::parse("x")), &own(2, 1, 2, 2, Some("x")));
        check_json(Place::Bytes(0..2), &own(1, 1, 1, 2, None));
        let nowhere = json!({ "file": null, "line": null, "column": null, "end_line": null,
            "end_column": null, "path": null });
        check_json(Place::Nowhere, &nowhere);
    }

    #[test]
    fn colors_are_only_shown_where_they_are_wanted() {
        let problems = [Problem::error(Place::Bytes(0..2), "no \u{1b}[35m")];
        let plain = render(&problems, None, &sources("é: 1\n"), false);
        let colored = render(&problems, None, &sources("é: 1\n"), true);
        assert!(!plain.contains('\u{1b}'));
        assert!(colored.contains('\u{1b}') && !colored.contains("\u{1b}[35m"), "{colored}");
    }

    #[test]
    fn long_lines_are_named_and_not_shown() {
        let text = "x".repeat(LINE_BYTES_MAX + 1);
        let shown = render(&[Problem::error(Place::Bytes(9..10), "no")], None, &sources(&text), false);
        assert_eq!(shown, "error: no\n--> x.yaml:1:10\n\n1 problem in x.yaml\n");
        assert_eq!(render(&[], None, &sources(&text), false), "");
    }
}
