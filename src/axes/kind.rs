//! From an axis as it was written to what it means: its kind, with everything that goes with it sound.
//!
//! Sees one axis at a time and opens no file; what axes have to do with each other is `check`'s business.

use indexmap::IndexMap;

use crate::axes::file::{AxisFile, AxisMap, CountFile, TreeFile};
use crate::axes::pool::text_of;
use crate::axes::range::{Range, range};
use crate::problem::{KeyPath, Place, Problem};
use crate::row::Value;

/// What an axis draws from.
#[derive(Clone, Debug)]
pub(super) enum Kind<'a> {
    Values {
        values: &'a [Value],
        pick: Pick<'a>,
    },
    File {
        path: &'a str,
        columns: Columns<'a>,
        matching: Vec<(&'a str, &'a str)>,
        other: Option<&'a AxisFile>,
        pick: Pick<'a>,
    },
    Weights {
        weights: &'a IndexMap<String, f64>,
        pick: Pick<'a>,
    },
    /// The leaves, each with the names on the way to it.
    Tree {
        leaves: Vec<Vec<Value>>,
        levels: Option<&'a [String]>,
        once: bool,
    },
    Between(Range),
    Some {
        values: &'a [Value],
        chance: f64,
    },
    Chance(f64),
    Given {
        field: &'a str,
        of: &'a IndexMap<String, AxisFile>,
        other: Option<&'a AxisFile>,
    },
}

/// What of a file's lines is a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Columns<'a> {
    Line,
    One(&'a str),
    Several(&'a [String]),
}

/// How values are taken from a list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pick<'a> {
    pub(super) count: Option<CountFile>,
    pub(super) not: &'a [String],
    /// Without replacement: each value once in a run.
    pub(super) once: bool,
}

/// The fields that an axis makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) fields: Vec<String>,
    /// Whether the value is a list with one item for each field.
    pub(super) spread: bool,
}

/// The keys that say an axis' kind, each with the keys that may refine it.
const KINDS: &[(&str, &[&str])] = &[
    ("values", &["count", "not", "replace"]),
    ("from", &["column", "columns", "where", "else", "count", "not", "replace"]),
    ("weights", &["count", "not"]),
    ("between", &["step"]),
    ("tree", &["levels", "replace"]),
    ("given", &["of", "else"]),
    ("some", &["chance"]),
    ("chance", &[]),
];

/// The fields that the axis of this name makes, as far as that shows in what may have problems.
pub(super) fn made(axis: &AxisFile, name: &str) -> Made {
    let itself = || Made { fields: vec![name.to_owned()], spread: false };
    let AxisFile::Map(map) = axis else { return itself() };
    if let Some(fields) = map.levels.as_ref().or(map.columns.as_ref()) {
        return Made { fields: fields.clone(), spread: true };
    }
    let inner = map.of.iter().flat_map(IndexMap::values).chain(map.other.as_ref());
    match (&map.given, inner.into_iter().next()) {
        (Some(_), Some(inner)) => made(inner, name),
        _ => itself(),
    }
}

/// The fields that an axis depends on, and where it says so. Nested axes count.
pub(super) fn needs(axis: &AxisFile, at: &KeyPath) -> Vec<(KeyPath, String)> {
    let AxisFile::Map(map) = axis else { return Vec::new() };
    let mut needs: Vec<(KeyPath, String)> = Vec::new();
    needs.extend(map.given.iter().map(|field| (at.join("given"), field.clone())));
    for (column, field) in map.matching.iter().flatten() {
        needs.push((at.join("where").join(column.as_str()), field.clone()));
    }
    needs.extend(map.not.iter().flat_map(|names| &names.0).map(|field| (at.join("not"), field.clone())));
    for (path, inner) in nested(map, at) {
        needs.extend(self::needs(inner, &path));
    }
    needs
}

/// The axes inside an axis, with their places.
pub(super) fn nested<'a>(map: &'a AxisMap, at: &KeyPath) -> Vec<(KeyPath, &'a AxisFile)> {
    let of = at.join("of");
    let inner = map.of.iter().flatten().map(|(value, axis)| (of.join(value.as_str()), axis));
    inner.chain(map.other.iter().map(|axis| (at.join("else"), axis))).collect()
}

/// What the axis at `at` means. Nested axes are not looked at.
pub(super) fn kind<'a>(axis: &'a AxisFile, at: &KeyPath) -> Result<Kind<'a>, Vec<Problem>> {
    let mut reading = Reading { at, problems: Vec::new() };
    let kind = match axis {
        AxisFile::List(values) => {
            reading.some_of(values.len(), "");
            Some(Kind::Values { values, pick: Pick::default() })
        }
        AxisFile::Map(map) => reading.map(map),
    };
    match kind {
        Some(kind) if reading.problems.is_empty() => Ok(kind),
        _ => Err(reading.problems),
    }
}

struct Reading<'p> {
    at: &'p KeyPath,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn wrong(&mut self, key: &str, message: impl Into<String>, hint: &str) {
        let path = if key.is_empty() { self.at.clone() } else { self.at.join(key) };
        let mut problem = Problem::error(Place::Value(path), message);
        problem.hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
        self.problems.push(problem);
    }

    fn some_of(&mut self, len: usize, key: &str) {
        if len == 0 {
            self.wrong(key, "there is nothing to draw from", "an axis needs at least one value");
        }
    }

    fn map<'a>(&mut self, map: &'a AxisMap) -> Option<Kind<'a>> {
        match self.kind_key(map)? {
            "values" => {
                let values = map.values.as_deref()?;
                self.some_of(values.len(), "values");
                let pick = self.pick(map);
                self.enough(pick, distinct(values));
                Some(Kind::Values { values, pick })
            }
            "from" => self.file(map),
            "weights" => {
                let weights = map.weights.as_ref()?;
                self.weights(weights);
                let pick = self.pick(map);
                self.enough(pick, weights.values().filter(|weight| **weight > 0.0).count());
                Some(Kind::Weights { weights, pick })
            }
            "between" => self.between(map).map(Kind::Between),
            "tree" => self.tree(map),
            "given" => {
                let Some(of) = &map.of else {
                    self.wrong("given", "`given` needs `of`", "give `of: { value: [...], ... }`");
                    return None;
                };
                self.some_of(of.len(), "of");
                Some(Kind::Given { field: map.given.as_deref()?, of, other: map.other.as_ref() })
            }
            "some" => {
                let values = map.some.as_deref()?;
                self.some_of(values.len(), "some");
                if map.chance.is_none() {
                    self.wrong(
                        "some",
                        "`some` needs `chance`",
                        "give each value's probability, such as `chance: 0.5`",
                    );
                }
                Some(Kind::Some { values, chance: self.chance(map) })
            }
            _ => Some(Kind::Chance(self.chance(map))),
        }
    }

    /// The one key that says the kind; all others must go with it.
    fn kind_key(&mut self, map: &AxisMap) -> Option<&'static str> {
        let keys = keys(map);
        let is_kind = |key: &&str| *key != "chance" || !keys.contains(&"some");
        let kinds = KINDS.iter().filter(|(key, _)| keys.contains(key) && is_kind(key));
        let kinds: Vec<&(&str, &[&str])> = kinds.collect();
        let known: Vec<String> = KINDS.iter().map(|(key, _)| format!("`{key}`")).collect();
        let hint = format!("give one of {}", known.join(", "));
        let [(kind, options)] = kinds.as_slice() else {
            let names: Vec<String> = kinds.iter().map(|(key, _)| format!("`{key}`")).collect();
            let message = match names.as_slice() {
                [] => "the axis does not say what it draws from".to_owned(),
                names => format!("an axis draws from one thing; this one has {}", names.join(" and ")),
            };
            self.wrong("", message, &hint);
            return None;
        };
        for key in keys.iter().filter(|key| *key != kind && !options.contains(*key)) {
            let hint = match options {
                [] => format!("`{kind}` stands alone"),
                options => format!("`{kind}` takes `{}`", options.join("`, `")),
            };
            self.wrong(key, format!("`{key}` does not go with `{kind}`"), &hint);
        }
        Some(kind)
    }

    fn pick<'a>(&mut self, map: &'a AxisMap) -> Pick<'a> {
        let not = map.not.as_ref().map(|names| names.0.as_slice()).unwrap_or_default();
        let pick = Pick { count: map.count, not, once: map.replace == Some(false) };
        if let Some(CountFile { min, max }) = pick.count {
            if max == 0 {
                self.wrong("count", "a count of 0 draws nothing", "");
            } else if min > max {
                self.wrong("count", format!("{min} is more than {max}"), "write the smaller number first");
            }
        }
        let others =
            [("count", pick.count.is_some()), ("not", !not.is_empty()), ("where", map.matching.is_some())];
        for (key, _) in others.iter().filter(|(_, given)| *given && pick.once) {
            let hint = "draw with replacement, or without the other key";
            self.wrong("replace", format!("`replace: false` does not go with `{key}`"), hint);
        }
        pick
    }

    /// Whether there are as many values as `count` asks for.
    fn enough(&mut self, pick: Pick<'_>, values: usize) {
        if let Some(message) = too_few(pick, values) {
            self.wrong("count", message, "lower `count`, or add values");
        }
    }

    fn weights(&mut self, weights: &IndexMap<String, f64>) {
        self.some_of(weights.len(), "weights");
        let mut sound = true;
        for (value, weight) in weights.iter().filter(|(_, weight)| !weight.is_finite() || **weight < 0.0) {
            let path = self.at.join("weights").join(value.as_str());
            let message = format!("{weight} is no weight");
            self.problems
                .push(Problem::error(Place::Value(path), message).hint("a weight is a number of at least 0"));
            sound = false;
        }
        let total: f64 = weights.values().sum();
        if sound && !weights.is_empty() && !(total > 0.0 && total.is_finite()) {
            self.wrong("weights", format!("the weights sum up to {total}"), "at least one must be above 0");
        }
    }

    fn chance(&mut self, map: &AxisMap) -> f64 {
        let chance = map.chance.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&chance) {
            self.wrong("chance", format!("{chance} is no probability"), "a probability is between 0 and 1");
        }
        chance
    }

    fn file<'a>(&mut self, map: &'a AxisMap) -> Option<Kind<'a>> {
        let path = map.from.as_deref()?;
        let columns = match (&map.column, &map.columns) {
            (Some(_), Some(_)) => {
                self.wrong("columns", "`column` and `columns` exclude each other", "");
                return None;
            }
            (Some(column), None) => Columns::One(column),
            (None, Some(columns)) => {
                self.some_of(columns.len(), "columns");
                Columns::Several(columns)
            }
            (None, None) => Columns::Line,
        };
        let matching = map.matching.iter().flatten().map(|(column, field)| (column.as_str(), field.as_str()));
        let matching: Vec<(&str, &str)> = matching.collect();
        let is_lines = matches!(columns, Columns::Line);
        match layout(path) {
            Layout::Table if is_lines => {
                self.wrong(
                    "from",
                    format!("which column of `{path}` to take is not said"),
                    "name it with `column:`",
                );
            }
            Layout::Lines if !is_lines || !matching.is_empty() => {
                let message = format!("`{path}` is a text file; it has lines, not columns");
                self.wrong("from", message, "leave the columns out, or use a CSV, JSONL or Parquet file");
            }
            Layout::Unknown => {
                let hint = "name it `.txt` (a value a line), `.csv`, `.tsv`, `.jsonl` or `.parquet`";
                self.wrong("from", format!("the name of `{path}` does not tell its format"), hint);
            }
            Layout::Table | Layout::Lines => {}
        }
        if map.matching.as_ref().is_some_and(IndexMap::is_empty) {
            self.wrong("where", "`where` names no column", "write `where: { column: field }`");
        }
        if map.other.is_some() && map.matching.is_none() {
            self.wrong("else", "`else` goes with `where` or `given`", "");
        }
        let pick = self.pick(map);
        for (key, given) in [("count", pick.count.is_some()), ("not", !pick.not.is_empty())] {
            if given && matches!(columns, Columns::Several(_)) {
                self.wrong(key, format!("`{key}` does not go with `columns`"), "take one `column`");
            }
        }
        Some(Kind::File { path, columns, matching, other: map.other.as_ref(), pick })
    }

    fn between(&mut self, map: &AxisMap) -> Option<Range> {
        let (first, last) = map.between.as_ref()?;
        let range = range(first, last, map.step.as_ref());
        range.map_err(|(key, message, hint)| self.wrong(key, message, hint)).ok()
    }

    fn tree<'a>(&mut self, map: &'a AxisMap) -> Option<Kind<'a>> {
        let mut leaves = Vec::new();
        self.leaves(map.tree.as_ref()?, &mut Vec::new(), &self.at.join("tree"), &mut leaves);
        let levels = map.levels.as_deref();
        if let Some(levels) = levels {
            self.some_of(levels.len(), "levels");
            if let Some(leaf) = leaves.iter().find(|leaf| leaf.len() != levels.len() && !levels.is_empty()) {
                let way: Vec<_> = leaf.iter().map(text_of).collect();
                let message = format!(
                    "there are {} levels, but `{}` has {}",
                    levels.len(),
                    way.join(" > "),
                    leaf.len()
                );
                self.wrong("levels", message, "make all leaves equally deep, or leave `levels` out");
            }
        }
        Some(Kind::Tree { leaves, levels, once: map.replace == Some(false) })
    }

    fn leaves(&mut self, tree: &TreeFile, way: &mut Vec<Value>, at: &KeyPath, leaves: &mut Vec<Vec<Value>>) {
        let empty = match tree {
            TreeFile::Branches(branches) => branches.is_empty(),
            TreeFile::Leaves(values) => values.is_empty(),
        };
        if empty {
            let problem = Problem::error(Place::Value(at.clone()), "the branch has no leaves");
            self.problems.push(problem.hint("a list needs at least one value"));
        }
        match tree {
            TreeFile::Branches(branches) => {
                for (name, branch) in branches {
                    way.push(Value::from(name.as_str()));
                    self.leaves(branch, way, &at.join(name.as_str()), leaves);
                    way.pop();
                }
            }
            TreeFile::Leaves(values) => {
                for (index, value) in values.iter().enumerate() {
                    if value.is_array() || value.is_object() {
                        let problem = Problem::error(Place::Value(at.join(index)), "a leaf is a plain value");
                        self.problems
                            .push(problem.hint("make branches the keys of a map, not items of a list"));
                    }
                    leaves.push(way.iter().chain([value]).cloned().collect());
                }
            }
        }
    }
}

/// The keys that an axis has.
fn keys(map: &AxisMap) -> Vec<&'static str> {
    let AxisMap { values, from, column, columns, matching, weights, between, step, tree, .. } = map;
    let AxisMap { levels, given, of, other, some, chance, count, not, replace, .. } = map;
    let all = [
        ("values", values.is_some()),
        ("from", from.is_some()),
        ("column", column.is_some()),
        ("columns", columns.is_some()),
        ("where", matching.is_some()),
        ("weights", weights.is_some()),
        ("between", between.is_some()),
        ("step", step.is_some()),
        ("tree", tree.is_some()),
        ("levels", levels.is_some()),
        ("given", given.is_some()),
        ("of", of.is_some()),
        ("else", other.is_some()),
        ("some", some.is_some()),
        ("chance", chance.is_some()),
        ("count", count.is_some()),
        ("not", not.is_some()),
        ("replace", replace.is_some()),
    ];
    all.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect()
}

/// What is wrong with a `count` where there are so many different values.
pub(super) fn too_few(pick: Pick<'_>, values: usize) -> Option<String> {
    let max = pick.count?.max;
    (values > 0 && max > values as u64)
        .then(|| format!("{max} different values are asked for, there are {values}"))
}

/// How many different values a list has.
pub(super) fn distinct(values: &[Value]) -> usize {
    values.iter().map(text_of).collect::<std::collections::HashSet<_>>().len()
}

enum Layout {
    Lines,
    Table,
    Unknown,
}

/// How the values of a file are laid out, by its name, looking under `.gz` and `.zst`.
fn layout(path: &str) -> Layout {
    let name = path.to_lowercase();
    let name = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("txt" | "text" | "md") => Layout::Lines,
        Some("csv" | "tsv" | "jsonl" | "ndjson" | "parquet") => Layout::Table,
        _ => Layout::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    /// Checks the problems of an axis: `place: message` each.
    #[track_caller]
    fn check(axis: &Value, expected: &[&str]) {
        let file = AxisFile::deserialize(axis).expect("it reads");
        let problems = kind(&file, &KeyPath::parse("a")).err().unwrap_or_default();
        let shown = |problem: &Problem| match &problem.place {
            Place::Value(path) => format!("{path}: {}", problem.message),
            other => format!("{other:?}: {}", problem.message),
        };
        assert_eq!(problems.iter().map(shown).collect::<Vec<String>>(), expected, "{axis}");
    }

    #[test]
    fn sound_axes() {
        let sound = [
            json!(["easy", 1, {"a": 2}]),
            json!({"values": ["a", "b"], "count": 2}),
            json!({"from": "t.csv.gz", "column": "topic", "replace": false}),
            json!({"from": "t.txt", "count": [0, 3]}),
            json!({"from": "t.jsonl", "columns": ["a", "b"], "where": {"t": "topic"}, "else": [["x", "y"]]}),
            json!({"weights": {"a": 0, "b": 2.5}}),
            json!({"between": [1, 1]}),
            json!({"tree": {"a": ["b"], "c": {"d": [1]}}}),
            json!({"given": "topic", "of": {"a": [1]}}),
            json!({"some": ["a"], "chance": 0}),
            json!({"chance": 1}),
        ];
        for axis in sound {
            check(&axis, &[]);
        }
    }

    #[test]
    fn kinds_and_what_goes_with_them() {
        check(&json!({}), &["a: the axis does not say what it draws from"]);
        check(&json!({"column": "x"}), &["a: the axis does not say what it draws from"]);
        check(
            &json!({"weights": {"a": 1}, "from": "x.txt"}),
            &["a: an axis draws from one thing; this one has `from` and `weights`"],
        );
        check(&json!({"chance": 0.5, "count": 2}), &["a.count: `count` does not go with `chance`"]);
        check(
            &json!({"weights": {"a": 1}, "replace": false}),
            &["a.replace: `replace` does not go with `weights`"],
        );
        check(
            &json!({"given": "t", "of": {"a": [1]}, "replace": false}),
            &["a.replace: `replace` does not go with `given`"],
        );
        check(&json!({"given": "t"}), &["a.given: `given` needs `of`"]);
        check(&json!({"some": [1]}), &["a.some: `some` needs `chance`"]);
        check(
            &json!({"from": "x.csv", "column": "c", "where": {"t": "u"}, "replace": false}),
            &["a.replace: `replace: false` does not go with `where`"],
        );
        check(
            &json!({"values": [1, 2], "not": "b", "count": 1, "replace": false}),
            &[
                "a.replace: `replace: false` does not go with `count`",
                "a.replace: `replace: false` does not go with `not`",
            ],
        );
    }

    #[test]
    fn values_that_cannot_be() {
        check(&json!([]), &["a: there is nothing to draw from"]);
        check(&json!({"values": []}), &["a.values: there is nothing to draw from"]);
        check(&json!({"weights": {}}), &["a.weights: there is nothing to draw from"]);
        check(&json!({"weights": {"x": -1, "y": 2}}), &["a.weights.x: -1 is no weight"]);
        check(&json!({"weights": {"x": 0}}), &["a.weights: the weights sum up to 0"]);
        check(&json!({"chance": 1.5}), &["a.chance: 1.5 is no probability"]);
        check(
            &json!({"values": [1, 1, 2], "count": 3}),
            &["a.count: 3 different values are asked for, there are 2"],
        );
        check(
            &json!({"weights": {"x": 1, "y": 0}, "count": 2}),
            &["a.count: 2 different values are asked for, there are 1"],
        );
        check(&json!({"values": [1, 2], "count": [2, 1]}), &["a.count: 2 is more than 1"]);
        check(&json!({"values": [1], "count": 0}), &["a.count: a count of 0 draws nothing"]);
        let nan = AxisMap { weights: Some([("x".to_owned(), f64::NAN)].into()), ..AxisMap::default() };
        let problems = kind(&AxisFile::Map(Box::new(nan)), &KeyPath::root()).err().unwrap_or_default();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].message, "NaN is no weight");
    }

    #[test]
    fn files_are_known_by_their_names() {
        check(&json!({"from": "x.csv"}), &["a.from: which column of `x.csv` to take is not said"]);
        check(
            &json!({"from": "x.txt", "column": "c"}),
            &["a.from: `x.txt` is a text file; it has lines, not columns"],
        );
        check(
            &json!({"from": "x.json", "column": "c"}),
            &["a.from: the name of `x.json` does not tell its format"],
        );
        check(
            &json!({"from": "x.csv", "column": "c", "columns": ["d"]}),
            &["a.columns: `column` and `columns` exclude each other"],
        );
        check(
            &json!({"from": "x.csv", "columns": ["d"], "count": 1}),
            &["a.count: `count` does not go with `columns`"],
        );
        check(
            &json!({"from": "x.csv", "column": "d", "else": [1]}),
            &["a.else: `else` goes with `where` or `given`"],
        );
        check(&json!({"from": "x.csv", "column": "d", "where": {}}), &["a.where: `where` names no column"]);
    }

    #[test]
    fn ranges() {
        check(&json!({"between": [5, 1]}), &["a.between: 5 is more than 1"]);
        check(
            &json!({"between": [0.5, 0.5]}),
            &["a.between: there is no number to draw from 0.5 to below 0.5"],
        );
        check(&json!({"between": [1, 5], "step": 0}), &["a.step: 0 is no step"]);
        check(&json!({"between": [0, 1.5], "step": -0.5}), &["a.step: -0.5 is no step"]);
        check(&json!({"between": [i64::MIN, i64::MAX]}), &["a.between: the range is too wide"]);
    }

    #[test]
    fn trees() {
        check(&json!({"tree": {"a": []}}), &["a.tree.a: the branch has no leaves"]);
        check(&json!({"tree": {"a": [{"b": ["c"]}]}}), &["a.tree.a[0]: a leaf is a plain value"]);
        check(
            &json!({"tree": {"a": ["b"], "c": {"d": ["e"]}}, "levels": ["x", "y"]}),
            &["a.levels: there are 2 levels, but `c > d > e` has 3"],
        );
    }
}
