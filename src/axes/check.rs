//! The check of axes: what each means, what they have to do with each other, how many rows they can give.
//!
//! Pure but for asking whether files exist; what is in them is seen when the axes are built.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::axes::file::{AxisFile, DrawFile, SampleFile, UntilFile};
use crate::axes::kind::{Columns, Kind, Made, Pick, distinct, kind, made, needs, nested};
use crate::axes::pool::text_of;
use crate::axes::range::Range;
use crate::axes::types::{merged, type_of};
use crate::problem::{Key, KeyPath, Place, Problem, name_hint, shown_path};
use crate::row::Type;

/// Checks a `sample:` source. Returns the columns of its rows, and problems placed relative to the
/// `sample:` map. That no field has a reserved name is left to the caller.
pub fn check_sample(file: &SampleFile, base: &Path) -> (Vec<(String, Type)>, Vec<Problem>) {
    let mut problems = Vec::new();
    rows(file, &mut problems);
    let under = KeyPath::parse("draw");
    let columns = check_axes(&file.draw, &[], base, &under, &mut problems);
    for name in columns.iter().map(|(name, _)| name).filter(|name| name.is_empty() || name.contains('.')) {
        let message = format!("`{name}` cannot name a field");
        let hint = "a field has a name without dots: a dot reaches into objects";
        problems.push(Problem::error(Place::Value(under.clone()), message).hint(hint));
    }
    if file.grid {
        grid(file, &under, &mut problems);
    }
    once(file, &under, &mut problems);
    (columns, problems)
}

/// Checks the axes of the `draw` operator, which sees the fields in `known`. Returns the columns that it
/// adds, and problems placed relative to the map of axes. That the new fields have free and proper names
/// is left to the caller.
pub fn check_draw(
    draw: &DrawFile,
    known: &[(String, Type)],
    base: &Path,
) -> (Vec<(String, Type)>, Vec<Problem>) {
    let mut problems = Vec::new();
    let columns = check_axes(draw, known, base, &KeyPath::root(), &mut problems);
    for (name, axis) in &draw.0 {
        let AxisFile::Map(map) = axis else { continue };
        if map.replace == Some(false) {
            let place = Place::Value(KeyPath::root().join(name.as_str()).join("replace"));
            let message = "only a source can draw without replacement";
            let hint = "it needs the rows' numbers in the source; draw this axis under `source.sample`";
            problems.push(Problem::error(place, message).hint(hint));
        }
    }
    (columns, problems)
}

fn at(path: &str) -> Place {
    Place::Value(KeyPath::parse(path))
}

/// How many rows are asked for.
fn rows(file: &SampleFile, problems: &mut Vec<Problem>) {
    let UntilFile { kept, tried } = file.until.unwrap_or_default();
    let counts = [("rows", file.rows), ("until.kept", kept), ("until.tried", tried)];
    for (key, _) in counts.iter().filter(|(_, count)| *count == Some(0)) {
        problems.push(Problem::error(at(key), "0 rows are none").hint("give at least 1"));
    }
    if file.until.is_some() && kept.is_none() && tried.is_none() {
        problems
            .push(Problem::error(at("until"), "`until` says nothing").hint("give `kept`, `tried` or both"));
    }
    let most = file.cap();
    match (kept, most) {
        (Some(kept), Some(most)) if kept > most => {
            let message = format!("{kept} rows cannot be kept of {most} drawn");
            problems.push(Problem::error(at("until.kept"), message).hint("raise `tried`, or lower `kept`"));
        }
        (Some(_), None) if !file.grid => {
            let message = "`until.kept` alone may never come to an end";
            problems.push(Problem::error(at("until"), message).hint("give `tried`, the most rows to draw"));
        }
        (None, None) if !file.grid => {
            let hint = "give `rows: 1000`, `until: { kept: 1000, tried: 5000 }`, or `grid: true` for every combination";
            problems.push(Problem::error(at(""), "how many rows to draw is not said").hint(hint));
        }
        _ => {}
    }
}

impl SampleFile {
    /// The most rows that the file asks for, if it says.
    pub fn cap(&self) -> Option<u64> {
        let tried = self.until.and_then(|until| until.tried);
        [self.rows, tried].into_iter().flatten().min()
    }
}

/// A grid needs axes that can be enumerated, and as many combinations as rows are asked for.
fn grid(file: &SampleFile, under: &KeyPath, problems: &mut Vec<Problem>) {
    let mut cells: Option<u128> = Some(1);
    let mut is_known = true;
    for (name, axis) in &file.draw.0 {
        let path = under.join(name.as_str());
        let Ok(kind) = kind(axis, &path) else { return };
        if let Some(why) = not_enumerable(&kind) {
            let message = format!("a grid cannot go through `{name}`: {why}");
            let hint = "take it out of the grid (the `draw` step can add it), or list the values; \
                        dependent values go in a `tree` or the `columns` of a file";
            problems.push(Problem::error(Place::Value(path), message).hint(hint));
            return;
        }
        let size = size_of(&kind);
        is_known &= size.is_some();
        cells = cells.and_then(|cells| cells.checked_mul(size.unwrap_or(1).into()));
    }
    match cells.and_then(|cells| u64::try_from(cells).ok()) {
        None => {
            let message = "the grid has more than 2^64 combinations";
            problems.push(Problem::error(at("grid"), message).hint("draw `rows` at random instead"));
        }
        Some(cells) if is_known => problems.extend(few_cells(file, cells.into())),
        Some(_) => {}
    }
}

/// The problem with asking for more rows than a grid has combinations.
pub(super) fn few_cells(file: &SampleFile, cells: u128) -> Option<Problem> {
    let rows = file.rows.filter(|rows| u128::from(*rows) > cells)?;
    let message = format!("{rows} rows are asked for, the grid has {cells} combinations");
    Some(Problem::error(at("rows"), message).hint("leave `rows` out to get every combination once"))
}

/// The problem with drawing more rows than an axis without replacement has values.
pub(super) fn few_values(file: &SampleFile, name: &str, values: u64) -> Option<Problem> {
    let rows = file.cap().filter(|rows| *rows > values)?;
    let message = format!("{rows} rows are asked for, but `{name}` has {values} values, each drawn once");
    let place = KeyPath::parse("draw").join(name).join("replace");
    Some(
        Problem::error(Place::Value(place), message)
            .hint("add values, lower the rows, or draw with replacement"),
    )
}

fn not_enumerable(kind: &Kind<'_>) -> Option<&'static str> {
    match kind {
        Kind::Weights { .. } => Some("it has weights"),
        Kind::Chance(_) | Kind::Some { .. } => Some("it is left to chance"),
        Kind::Between(Range::Numbers { .. }) => Some("it has numbers without steps"),
        Kind::Given { .. } => Some("it depends on another field"),
        Kind::Values { pick, .. } | Kind::File { pick, .. } if pick.once => {
            Some("it is drawn without replacement")
        }
        Kind::Tree { once: true, .. } => Some("it is drawn without replacement"),
        Kind::File { matching, .. } if !matching.is_empty() => Some("it depends on another field"),
        Kind::Values { pick, .. } | Kind::File { pick, .. } if !pick.not.is_empty() => {
            Some("it depends on another field")
        }
        Kind::Values { pick, .. } | Kind::File { pick, .. } if pick.count.is_some() => {
            Some("it draws several values")
        }
        Kind::Values { .. } | Kind::File { .. } | Kind::Tree { .. } | Kind::Between(_) => None,
    }
}

/// How many values an enumerable axis has; `None` for a file's.
fn size_of(kind: &Kind<'_>) -> Option<u64> {
    match kind {
        Kind::Values { values, .. } => Some(values.len() as u64),
        Kind::Tree { leaves, .. } => Some(leaves.len() as u64),
        Kind::Between(Range::Integers { count, .. } | Range::Steps { count, .. }) => Some(*count),
        _ => None,
    }
}

/// Without replacement there must be a value for every row. Files are looked at when they are read.
fn once(file: &SampleFile, under: &KeyPath, problems: &mut Vec<Problem>) {
    if file.grid {
        return;
    }
    for (name, axis) in &file.draw.0 {
        let values = match kind(axis, &under.join(name.as_str())) {
            Ok(Kind::Values { values, pick: Pick { once: true, .. } }) => distinct(values),
            Ok(Kind::Tree { leaves, once: true, .. }) => leaves.len(),
            _ => continue,
        };
        problems.extend(few_values(file, name, values as u64));
    }
}

/// The columns that axes make; problems are placed below `under`.
fn check_axes(
    draw: &DrawFile,
    known: &[(String, Type)],
    base: &Path,
    under: &KeyPath,
    problems: &mut Vec<Problem>,
) -> Vec<(String, Type)> {
    if draw.0.is_empty() {
        let problem = Problem::error(Place::Value(under.clone()), "`draw` names no axis");
        problems.push(problem.hint("give at least one, such as `level: [easy, hard]`"));
    }
    let mut columns: Vec<(String, Type)> = Vec::new();
    let mut makers: HashMap<String, String> = HashMap::new();
    for (name, axis) in &draw.0 {
        let path = under.join(name.as_str());
        let mut found = Checked { base, problems };
        let (made, types) = found.axis(axis, name, &path);
        let types = types.into_iter().map(Some).chain(std::iter::repeat(None));
        for (field, kind) in made.fields.into_iter().zip(types) {
            if let Some(first) = makers.insert(field.clone(), name.clone()) {
                let message = format!("`{first}` and `{name}` both make the field `{field}`");
                let hint = "give the fields different names";
                problems.push(Problem::error(Place::Key(path.clone()), message).hint(hint));
                continue;
            }
            columns.push((field, kind.unwrap_or(Type::Json)));
        }
    }
    references(draw, known, &columns, under, problems);
    if let Err(problem) = order(draw, under) {
        problems.push(*problem);
    }
    givens(draw, under, problems);
    columns
}

/// The check of one axis and those nested in it.
struct Checked<'a> {
    base: &'a Path,
    problems: &'a mut Vec<Problem>,
}

impl Checked<'_> {
    /// The fields that an axis makes, and their types.
    fn axis(&mut self, axis: &AxisFile, name: &str, at: &KeyPath) -> (Made, Vec<Type>) {
        let made = made(axis, name);
        let mut types = match kind(axis, at) {
            Ok(kind) => self.types(&kind, at),
            Err(found) => {
                self.problems.extend(found);
                None
            }
        };
        let AxisFile::Map(map) = axis else { return (made, types.unwrap_or_default()) };
        for (path, inner) in nested(map, at) {
            if matches!(inner, AxisFile::Map(map) if map.replace == Some(false)) {
                let message = "`replace: false` does not go with `given` or `where`";
                let hint = "draw with replacement, or make it an axis of its own";
                self.problems.push(Problem::error(Place::Value(path.join("replace")), message).hint(hint));
            }
            let (inner_made, inner_types) = self.axis(inner, name, &path);
            if inner_made != made {
                let fields = |made: &Made| format!("`{}`", made.fields.join("`, `"));
                let message =
                    format!("this makes {}, elsewhere `{name}` makes {}", fields(&inner_made), fields(&made));
                let hint = "whatever an axis depends on, it makes the same fields";
                self.problems.push(Problem::error(Place::Value(path), message).hint(hint));
                continue;
            }
            types = Some(match types {
                Some(types) => {
                    types.into_iter().zip(inner_types).map(|(one, other)| merged(one, other)).collect()
                }
                None => inner_types,
            });
        }
        (made, types.unwrap_or_default())
    }

    /// The types of an axis' fields; `None` where those nested in it say.
    fn types(&mut self, kind: &Kind<'_>, at: &KeyPath) -> Option<Vec<Type>> {
        let listed = |kind: Type, pick: &Pick<'_>| match pick.count {
            Some(_) => vec![Type::List(Box::new(kind))],
            None => vec![kind],
        };
        Some(match kind {
            Kind::Values { values, pick } => listed(type_of(*values), pick),
            Kind::File { path, columns, pick, .. } => {
                self.file(path, at);
                match columns {
                    Columns::Line | Columns::One(_) => listed(Type::Text, pick),
                    Columns::Several(columns) => vec![Type::Text; columns.len()],
                }
            }
            Kind::Weights { pick, .. } => listed(Type::Text, pick),
            Kind::Tree { leaves, levels: Some(levels), .. } => (0..levels.len())
                .map(|level| type_of(leaves.iter().filter_map(|leaf| leaf.get(level))))
                .collect(),
            Kind::Tree { leaves, levels: None, .. } => {
                vec![Type::List(Box::new(type_of(leaves.iter().flatten())))]
            }
            Kind::Between(Range::Integers { .. }) => vec![Type::Integer],
            Kind::Between(_) => vec![Type::Number],
            Kind::Some { values, .. } => vec![Type::List(Box::new(type_of(*values)))],
            Kind::Chance(_) => vec![Type::Boolean],
            Kind::Given { .. } => return None,
        })
    }

    fn file(&mut self, path: &str, at: &KeyPath) {
        let full = self.base.join(path);
        if !full.is_file() {
            let problem = Problem::error(Place::Value(at.join("from")), format!("there is no file `{path}`"));
            let hint = format!("looked for {}; paths are relative to the pipeline file", shown_path(&full));
            self.problems.push(problem.hint(hint));
        }
    }
}

/// Every field that an axis depends on must exist.
fn references(
    draw: &DrawFile,
    known: &[(String, Type)],
    columns: &[(String, Type)],
    under: &KeyPath,
    problems: &mut Vec<Problem>,
) {
    for (name, axis) in &draw.0 {
        for (place, field) in needs(axis, &under.join(name.as_str())) {
            let names = known.iter().chain(columns).map(|(name, _)| name.as_str());
            if names.clone().any(|known| known == field) {
                continue;
            }
            let mut problem =
                Problem::error(Place::Value(place), format!("no axis and no field is called `{field}`"));
            problem.hint = name_hint(&field, names.filter(|known| known != name));
            problems.push(problem);
        }
    }
}

/// The order in which axes can be drawn: that of the file, but each after those it depends on. The error
/// names a cycle.
pub(super) fn order(draw: &DrawFile, under: &KeyPath) -> Result<Vec<usize>, Box<Problem>> {
    let mut makers: HashMap<String, usize> = HashMap::new();
    for (index, (name, axis)) in draw.0.iter().enumerate() {
        for field in made(axis, name).fields {
            makers.entry(field).or_insert(index);
        }
    }
    let needs_of = |(name, axis): (&String, &AxisFile)| -> BTreeSet<usize> {
        let needs = needs(axis, &under.join(name.as_str()));
        needs.iter().filter_map(|(_, field)| makers.get(field)).copied().collect()
    };
    let mut waits: Vec<BTreeSet<usize>> = draw.0.iter().map(needs_of).collect();
    let mut wanted_by: Vec<Vec<usize>> = vec![Vec::new(); waits.len()];
    for (index, needs) in waits.iter().enumerate() {
        needs.iter().for_each(|need| wanted_by[*need].push(index));
    }
    let mut ready: BTreeSet<usize> = (0..waits.len()).filter(|index| waits[*index].is_empty()).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for waiting in &wanted_by[next] {
            waits[*waiting].remove(&next);
            if waits[*waiting].is_empty() {
                ready.insert(*waiting);
            }
        }
    }
    if order.len() == waits.len() { Ok(order) } else { Err(Box::new(cycle(draw, &waits, under))) }
}

/// The problem of axes that wait for each other; `waits` has what each still waits for.
fn cycle(draw: &DrawFile, waits: &[BTreeSet<usize>], under: &KeyPath) -> Problem {
    let mut way: Vec<usize> = Vec::new();
    let mut next = waits.iter().position(|waits| !waits.is_empty());
    while let Some(index) = next.filter(|index| !way.contains(index)) {
        way.push(index);
        next = waits.get(index).and_then(BTreeSet::first).copied();
    }
    let start = way.iter().position(|index| Some(*index) == next).unwrap_or(0);
    let circle = way.iter().skip(start).chain(&next);
    let names: Vec<&str> =
        circle.filter_map(|index| draw.0.get_index(*index)).map(|(name, _)| name.as_str()).collect();
    let place = under.join(names.first().copied().unwrap_or_default());
    let message = match names.as_slice() {
        [one, _] => format!("the axis `{one}` depends on itself"),
        names => format!("axes depend on each other in a circle: `{}`", names.join("` -> `")),
    };
    Problem::error(Place::Key(place), message).hint("draw one of them without `given`, `where` and `not`")
}

/// `of` must have what the field it depends on can be, where that is known.
fn givens(draw: &DrawFile, under: &KeyPath, problems: &mut Vec<Problem>) {
    let mut possible: HashMap<String, Vec<String>> = HashMap::new();
    for (name, axis) in &draw.0 {
        if let Ok(kind) = kind(axis, &under.join(name.as_str())) {
            possible.extend(possible_values(&kind, name));
        }
    }
    for (name, axis) in &draw.0 {
        given(axis, &under.join(name.as_str()), &possible, problems);
    }
}

fn given(
    axis: &AxisFile,
    at: &KeyPath,
    possible: &HashMap<String, Vec<String>>,
    problems: &mut Vec<Problem>,
) {
    let AxisFile::Map(map) = axis else { return };
    for (path, inner) in nested(map, at) {
        given(inner, &path, possible, problems);
    }
    let (Some(field), Some(of)) = (&map.given, &map.of) else { return };
    let Some(values) = possible.get(field) else { return };
    for value in of.keys().filter(|value| !values.contains(value)) {
        let path = KeyPath(at.0.iter().cloned().chain(["of".into(), Key::from(value.as_str())]).collect());
        let mut problem = Problem::warning(Place::Key(path), format!("`{field}` is never `{value}`"));
        problem.hint = name_hint(value, values.iter().map(String::as_str));
        problems.push(problem);
    }
    let missing: Vec<String> =
        values.iter().filter(|value| !of.contains_key(*value)).map(|value| format!("`{value}`")).collect();
    if !missing.is_empty() && map.other.is_none() {
        let message = format!("`of` does not say what to draw when `{field}` is {}", missing.join(" or "));
        let problem = Problem::error(Place::Value(at.join("of")), message);
        problems.push(problem.hint("add it, or give `else` for all other values"));
    }
}

/// The values that an axis' fields can have, as far as the file tells.
fn possible_values(kind: &Kind<'_>, name: &str) -> Vec<(String, Vec<String>)> {
    let one = |values: Vec<String>| vec![(name.to_owned(), values)];
    match kind {
        Kind::Values { values, pick: Pick { count: None, .. } } => {
            one(values.iter().map(|value| text_of(value).into_owned()).collect())
        }
        Kind::Weights { weights, pick: Pick { count: None, .. } } => {
            one(weights.iter().filter(|(_, weight)| **weight > 0.0).map(|(value, _)| value.clone()).collect())
        }
        Kind::Chance(_) => one(vec!["true".to_owned(), "false".to_owned()]),
        Kind::Tree { leaves, levels: Some(levels), .. } => {
            let at_level = |level: usize| {
                let values: BTreeSet<String> = leaves
                    .iter()
                    .filter_map(|leaf| leaf.get(level))
                    .map(|value| text_of(value).into_owned())
                    .collect();
                values.into_iter().collect()
            };
            levels.iter().enumerate().map(|(level, field)| (field.clone(), at_level(level))).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    fn shown(problems: &[Problem]) -> Vec<String> {
        let one = |problem: &Problem| {
            let place = match &problem.place {
                Place::Value(path) => path.to_string(),
                Place::Key(path) => format!("key {path}"),
                other => format!("{other:?}"),
            };
            match &problem.hint {
                Some(hint) if hint.starts_with("did you mean") => {
                    format!("{place}: {}; {hint}", problem.message)
                }
                _ => format!("{place}: {}", problem.message),
            }
        };
        problems.iter().map(one).collect()
    }

    /// Checks the problems of a `sample:` source.
    #[track_caller]
    fn check(sample: &Value, expected: &[&str]) {
        let file = SampleFile::deserialize(sample).expect("it reads");
        let (_, problems) = check_sample(&file, Path::new("/nowhere"));
        assert_eq!(shown(&problems), expected, "{sample}");
    }

    /// Checks the columns that a `draw` step makes of `known`, or its problems.
    #[track_caller]
    fn check_step(draw: &Value, known: &[&str], expected: &[&str]) {
        let file = DrawFile::deserialize(draw).expect("it reads");
        let known: Vec<(String, Type)> = known.iter().map(|name| ((*name).to_owned(), Type::Text)).collect();
        let (columns, problems) = check_draw(&file, &known, Path::new("/nowhere"));
        let columns: Vec<String> = columns.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
        assert_eq!(if problems.is_empty() { columns } else { shown(&problems) }, expected, "{draw}");
    }

    #[test]
    fn how_many_rows() {
        let draw = || json!({"a": [1]});
        check(&json!({"rows": 5, "draw": draw()}), &[]);
        check(&json!({"grid": true, "draw": draw()}), &[]);
        check(&json!({"until": {"kept": 5, "tried": 9}, "draw": draw()}), &[]);
        check(&json!({"draw": draw()}), &[": how many rows to draw is not said"]);
        check(
            &json!({"until": {"kept": 5}, "draw": draw()}),
            &["until: `until.kept` alone may never come to an end"],
        );
        check(
            &json!({"rows": 4, "until": {"kept": 5}, "draw": draw()}),
            &["until.kept: 5 rows cannot be kept of 4 drawn"],
        );
        check(&json!({"rows": 4, "until": {}, "draw": draw()}), &["until: `until` says nothing"]);
        check(&json!({"rows": 0, "draw": draw()}), &["rows: 0 rows are none"]);
        check(&json!({"rows": 1, "draw": {}}), &["draw: `draw` names no axis"]);
        check(&json!({"rows": 1, "draw": {"a.b": [1]}}), &["draw: `a.b` cannot name a field"]);
    }

    #[test]
    fn grids() {
        let grid = |axis: Value| json!({"grid": true, "draw": {"a": axis, "b": [1]}});
        check(&grid(json!({"between": [1, 9]})), &[]);
        for (axis, why) in [
            (json!({"weights": {"x": 1}}), "it has weights"),
            (json!({"chance": 0.5}), "it is left to chance"),
            (json!({"between": [0.5, 1]}), "it has numbers without steps"),
            (json!({"values": [1], "replace": false}), "it is drawn without replacement"),
            (json!({"values": [1, 2], "not": "b"}), "it depends on another field"),
            (json!({"values": [1, 2], "count": 1}), "it draws several values"),
        ] {
            check(&grid(axis), &[&format!("draw.a: a grid cannot go through `a`: {why}")]);
        }
        let cells = json!({"grid": true, "rows": 7, "draw": {"a": [1, 2], "b": [1, 2, 3]}});
        check(&cells, &["rows: 7 rows are asked for, the grid has 6 combinations"]);
        let wide = || json!({"between": [1, 5_000_000_000_i64]});
        let wide = json!({"grid": true, "draw": {"a": wide(), "b": wide()}});
        check(&wide, &["grid: the grid has more than 2^64 combinations"]);
    }

    #[test]
    fn without_replacement() {
        let once = json!({"values": ["x", "y", "y"], "replace": false});
        check(&json!({"rows": 2, "draw": {"a": once}}), &[]);
        check(
            &json!({"rows": 3, "draw": {"a": once}}),
            &["draw.a.replace: 3 rows are asked for, but `a` has 2 values, each drawn once"],
        );
        check_step(&json!({"a": once}), &[], &["a.replace: only a source can draw without replacement"]);
    }

    #[test]
    fn nested_axes_draw_with_replacement() {
        check_step(
            &json!({"a": {"given": "t", "of": {"x": {"values": [1], "replace": false}}}}),
            &["t"],
            &["a.of.x.replace: `replace: false` does not go with `given` or `where`"],
        );
    }

    #[test]
    fn columns_and_their_types() {
        check_step(
            &json!({
                "level": [1, 2], "words": {"values": ["x", "y"], "count": 2}, "kind": {"weights": {"x": 1}},
                "subject": {"tree": {"Physics": ["Optics"]}, "levels": ["area", "topic"]}, "way": {"tree": {"a": ["b"]}},
                "length": {"between": [1, 2]}, "share": {"between": [0, 0.5]}, "coin": {"chance": 0.5},
                "some": {"some": ["x"], "chance": 0.5}, "size": {"given": "coin", "of": {"true": [1]}, "else": [1.5]},
            }),
            &[],
            &[
                "level: integer",
                "words: list of text",
                "kind: text",
                "area: text",
                "topic: text",
                "way: list of text",
                "length: integer",
                "share: number",
                "coin: boolean",
                "some: list of text",
                "size: number",
            ],
        );
    }

    #[test]
    fn axes_that_depend_on_each_other() {
        let given = |field: &str| json!({"given": field, "of": {"x": [1]}, "else": [2]});
        check_step(&json!({"a": given("topic")}), &["topic"], &["a: integer"]);
        check_step(
            &json!({"a": given("topik")}),
            &["topic"],
            &["a.given: no axis and no field is called `topik`; did you mean `topic`?"],
        );
        check_step(&json!({"a": given("a")}), &[], &["key a: the axis `a` depends on itself"]);
        check_step(
            &json!({"z": given("b"), "a": given("b"), "b": given("c"), "c": {"values": ["x"], "not": "a"}}),
            &[],
            &["key b: axes depend on each other in a circle: `b` -> `c` -> `a` -> `b`"],
        );
        let deep = json!({"given": "t", "of": {"x": given("a")}, "else": [2]});
        check_step(&json!({"a": deep}), &["t"], &["key a: the axis `a` depends on itself"]);
        check_step(
            &json!({"a": [1], "b": {"tree": {"x": [1]}, "levels": ["a", "c"]}}),
            &[],
            &["key b: `a` and `b` both make the field `a`"],
        );
        check_step(
            &json!({"a": {"given": "t", "of": {"x": [1], "y": {"tree": {"p": [2]}, "levels": ["q", "r"]}}}}),
            &["t"],
            &["a.of.y: this makes `q`, `r`, elsewhere `a` makes `a`"],
        );
    }

    #[test]
    fn of_has_what_can_come() {
        let of = json!({"given": "t", "of": {"sorting": [1], "recursoin": [2]}});
        let expected = [
            "key s.of.recursoin: `t` is never `recursoin`; did you mean `recursion`?",
            "s.of: `of` does not say what to draw when `t` is `recursion`",
        ];
        check_step(&json!({"t": ["recursion", "sorting"], "s": of}), &[], &expected);
        check_step(
            &json!({"t": {"weights": {"recursion": 1, "sorting": 1, "x": 0}}, "s": of}),
            &[],
            &expected,
        );
        let tree = json!({"tree": {"recursion": [1], "sorting": [2]}, "levels": ["t", "u"]});
        check_step(&json!({"tree": tree, "s": of}), &[], &expected);
    }

    #[test]
    fn files_exist() {
        let hint = "looked for /nowhere/x.txt; paths are relative to the pipeline file";
        let file = DrawFile::deserialize(&json!({"a": {"from": "x.txt"}})).expect("it reads");
        let (columns, problems) = check_draw(&file, &[], Path::new("/nowhere"));
        assert_eq!(columns, [("a".to_owned(), Type::Text)]);
        assert_eq!(shown(&problems), ["a.from: there is no file `x.txt`"]);
        assert_eq!(problems[0].hint.as_deref(), Some(hint));
    }
}
