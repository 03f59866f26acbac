//! From checked axes to what can be drawn from: files are read here, through the caller's loader.
//!
//! Opens nothing itself.

use std::path::Path;

use indexmap::IndexMap;

use crate::axes::check::{few_cells, few_values, order};
use crate::axes::file::{AxisFile, DrawFile, SampleFile};
use crate::axes::kind::{Columns, Kind, Pick, kind, made, too_few};
use crate::axes::pool::{Pool, deduplicated, text_of};
use crate::axes::{Axes, Axis, Spec, no_case};
use crate::problem::{KeyPath, Place, Problem};
use crate::row::{Fields, Value};

/// Reads values of a file, given its path as the pipeline file has it and the columns wanted. Returns one
/// list a line of the file, with a value for each column (null where there is none); without columns, the
/// lines of a text file, each in a list of one. The error is a sentence that says where.
pub type Load<'a> = dyn FnMut(&Path, &[String]) -> Result<Vec<Vec<Value>>, String> + 'a;

impl Axes {
    /// Builds axes that were checked. Problems are placed relative to the map of axes.
    ///
    /// Values of files become texts; lines whose wanted columns are all blank or null are left out.
    pub fn build(draw: &DrawFile, load: &mut Load<'_>) -> Result<Axes, Vec<Problem>> {
        let root = KeyPath::root();
        let order = order(draw, &root).map_err(|problem| vec![*problem])?;
        let mut building = Building { load, problems: Vec::new() };
        let mut axes: Vec<Option<Axis>> = Vec::new();
        let mut fields = Vec::new();
        for (name, axis) in &draw.0 {
            let made = made(axis, name);
            fields.extend(made.fields.iter().cloned());
            let spec = building.spec(axis, &root.join(name.as_str()));
            axes.push(spec.map(|spec| Axis { name: name.clone(), made, spec }));
        }
        if !building.problems.is_empty() {
            return Err(building.problems);
        }
        let axes = order.into_iter().filter_map(|index| axes.get_mut(index).and_then(Option::take)).collect();
        Ok(Axes { axes, fields })
    }

    /// What a `sample:` source asks of these axes and they do not have, now that files were read: rows
    /// for a grid, values for draws without replacement. Placed relative to the `sample:` map.
    pub fn check_rows(&self, sample: &SampleFile) -> Vec<Problem> {
        if sample.grid {
            return match self.cells() {
                Some(cells) if u64::try_from(cells).is_ok() => few_cells(sample, cells).into_iter().collect(),
                _ => {
                    let place = Place::Value(KeyPath::parse("grid"));
                    let message = "the grid cannot be gone through, or has more than 2^64 combinations";
                    vec![Problem::error(place, message).hint("draw `rows` at random instead")]
                }
            };
        }
        let few = |axis: &Axis| few_values(sample, &axis.name, axis.spec.once()?);
        let few = self.axes.iter().filter_map(few);
        few.chain(self.axes.iter().filter_map(|axis| self.missing_case(axis))).collect()
    }

    /// A value of another axis for which this one has nothing to draw. Seen only where that axis draws
    /// from a list or a file whatever else is drawn; for the rest a row has to be drawn.
    fn missing_case(&self, axis: &Axis) -> Option<Problem> {
        let Spec::Given { fields, cases, other: None } = &axis.spec else { return None };
        let makes = |maker: &&Axis| fields.iter().all(|field| maker.made.fields.contains(field));
        let maker = self.axes.iter().find(makes)?;
        let Spec::Pool { pool, count: None, not } = &maker.spec else { return None };
        if !not.is_empty() {
            return None;
        }
        let key = |value: &Value| -> Vec<String> {
            let mut drawn = Fields::new();
            maker.put(value.clone(), &mut drawn);
            fields
                .iter()
                .filter_map(|field| drawn.get(field))
                .map(|value| text_of(value).into_owned())
                .collect()
        };
        let missing = pool.possible().map(key).find(|key| !cases.contains_key(key))?;
        let error = no_case(&axis.name, fields, &missing);
        let place = KeyPath::parse("draw").join(axis.name.as_str());
        Some(Problem::error(Place::Value(place), error.to_string()))
    }

    /// Whether a row may be one that an axis has nothing to draw for.
    pub fn may_miss(&self) -> bool {
        self.axes.iter().any(|axis| axis.spec.may_miss())
    }

    /// How many rows a `sample:` source draws at most: its own cap, and where a grid or the values
    /// without replacement end. `None` when nothing says.
    pub fn rows_to_try(&self, sample: &SampleFile) -> Option<u64> {
        let end = match sample.grid {
            true => self.cells().map(|cells| u64::try_from(cells).unwrap_or(u64::MAX)),
            false => self.rows_max(),
        };
        [sample.cap(), end].into_iter().flatten().min()
    }
}

struct Building<'a, 'b> {
    load: &'a mut Load<'b>,
    problems: Vec<Problem>,
}

impl Building<'_, '_> {
    fn spec(&mut self, axis: &AxisFile, at: &KeyPath) -> Option<Spec> {
        let kind = match kind(axis, at) {
            Ok(kind) => kind,
            Err(found) => {
                self.problems.extend(found);
                return None;
            }
        };
        Some(match kind {
            Kind::Values { values, pick } => self.picked(values.to_vec(), pick, at)?,
            Kind::Weights { weights, pick } => {
                let values = weights.keys().map(|value| Value::from(value.as_str())).collect();
                let pool = Pool::weighted(values, weights.values().copied().collect());
                picking(pool, pick)
            }
            Kind::Tree { leaves, once, .. } => {
                let leaves = leaves.into_iter().map(Value::Array).collect();
                if once {
                    Spec::Once(Pool::even(leaves))
                } else {
                    picking(Pool::even(leaves), Pick::default())
                }
            }
            Kind::Between(range) => Spec::Between(range),
            Kind::Some { values, chance } => Spec::Some { values: values.to_vec(), chance },
            Kind::Chance(chance) => Spec::Chance(chance),
            Kind::Given { field, of, other } => {
                let mut cases = IndexMap::new();
                for (value, inner) in of {
                    cases.insert(vec![value.clone()], self.spec(inner, &at.join("of").join(value.as_str()))?);
                }
                Spec::Given { fields: vec![field.to_owned()], cases, other: self.fallback(other, at) }
            }
            Kind::File { path, columns, matching, pick, .. } if matching.is_empty() => {
                let lines = self.lines(path, columns, &matching, at)?;
                self.picked(lines.into_iter().map(|(_, value)| value).collect(), pick, at)?
            }
            Kind::File { path, columns, matching, other, pick } => {
                let mut groups: IndexMap<Vec<String>, Vec<Value>> = IndexMap::new();
                for (key, value) in self.lines(path, columns, &matching, at)? {
                    groups.entry(key).or_default().push(value);
                }
                let mut cases = IndexMap::new();
                for (key, values) in groups {
                    cases.insert(key, self.picked(values, pick, at)?);
                }
                // Lines without a value for `where` columns have the key `null`, as a row's null does.
                let fields = matching.iter().map(|(_, field)| (*field).to_owned()).collect();
                Spec::Given { fields, cases, other: self.fallback(other, at) }
            }
        })
    }

    fn fallback(&mut self, other: Option<&AxisFile>, at: &KeyPath) -> Option<Box<Spec>> {
        self.spec(other?, &at.join("else")).map(Box::new)
    }

    /// A list of values, taken as `pick` says.
    fn picked(&mut self, values: Vec<Value>, pick: Pick<'_>, at: &KeyPath) -> Option<Spec> {
        let values = if pick.once || pick.count.is_some() { deduplicated(values) } else { values };
        if let Some(message) = too_few(pick, values.len()) {
            let problem = Problem::error(Place::Value(at.join("count")), message);
            self.problems.push(problem.hint("lower `count`, or add values"));
            return None;
        }
        let pool = Pool::even(values);
        Some(if pick.once { Spec::Once(pool) } else { picking(pool, pick) })
    }

    /// The lines of a file, as what they are chosen by and their value.
    fn lines(
        &mut self,
        path: &str,
        columns: Columns<'_>,
        matching: &[(&str, &str)],
        at: &KeyPath,
    ) -> Option<Vec<(Vec<String>, Value)>> {
        let mut wanted: Vec<String> = match columns {
            Columns::Line => Vec::new(),
            Columns::One(column) => vec![column.to_owned()],
            Columns::Several(columns) => columns.to_vec(),
        };
        let drawn = wanted.len().max(1);
        wanted.extend(matching.iter().map(|(column, _)| (*column).to_owned()));
        let place = || Place::Value(at.join("from"));
        let lines = match (self.load)(Path::new(path), &wanted) {
            Ok(lines) => lines,
            Err(message) => {
                self.problems.push(Problem::error(place(), message));
                return None;
            }
        };
        let is_several = matches!(columns, Columns::Several(_));
        let lines: Vec<(Vec<String>, Value)> =
            lines.into_iter().filter_map(|line| line_of(line, drawn, is_several)).collect();
        if lines.is_empty() {
            let problem = Problem::error(place(), format!("`{path}` has no values"));
            self.problems.push(problem.hint("blank lines and empty cells are left out"));
            return None;
        }
        Some(lines)
    }
}

/// A line's key and value; `None` if it has nothing to draw.
fn line_of(mut line: Vec<Value>, drawn: usize, is_several: bool) -> Option<(Vec<String>, Value)> {
    let key = line.split_off(drawn.min(line.len()));
    let key = key.iter().map(|value| text_of(value).into_owned()).collect();
    let as_text = |value: Value| match value {
        text @ (Value::String(_) | Value::Null) => text,
        other => Value::String(other.to_string()),
    };
    let is_blank = |value: &Value| value.as_str().is_none_or(|text| text.trim().is_empty());
    let mut cells: Vec<Value> = line.into_iter().map(as_text).collect();
    if cells.iter().all(is_blank) {
        return None;
    }
    let value = if is_several { Value::Array(cells) } else { cells.swap_remove(0) };
    Some((key, value))
}

fn picking(pool: Pool, pick: Pick<'_>) -> Spec {
    let pool = if pick.not.is_empty() { pool } else { pool.indexed() };
    Spec::Pool { pool, count: pick.count, not: pick.not.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    fn build(draw: &Value, lines: &Value) -> Result<Axes, Vec<Problem>> {
        let file = DrawFile::deserialize(draw).expect("it reads");
        let mut load = |path: &Path, columns: &[String]| match path.to_str() {
            Some("x.csv" | "x.txt") => {
                Ok(lines.as_array().unwrap().iter().map(|line| line.as_array().unwrap().clone()).collect())
            }
            _ => Err(format!("`{}` has no column `{}`", path.display(), columns.join("`, `"))),
        };
        Axes::build(&file, &mut load)
    }

    #[track_caller]
    fn check(draw: &Value, lines: &Value, expected: Result<&str, &str>) {
        let found = match build(draw, lines) {
            Ok(axes) => Ok(axes
                .describe()
                .iter()
                .map(|(name, words)| format!("{name}: {words}"))
                .collect::<Vec<_>>()
                .join("; ")),
            Err(problems) => {
                Err(problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; "))
            }
        };
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{draw}");
    }

    #[test]
    fn files_are_read_when_axes_are_built() {
        let lines = || json!([["a"], [" "], [null], ["b"], ["b"], [3]]);
        check(&json!({"t": {"from": "x.txt"}}), &lines(), Ok("t: 4 values"));
        check(&json!({"t": {"from": "x.txt", "replace": false}}), &lines(), Ok("t: 3 values, each once"));
        check(&json!({"t": {"from": "x.txt", "count": [1, 2]}}), &lines(), Ok("t: 1 to 2 of 3 values"));
        check(
            &json!({"t": {"from": "x.txt", "count": 4}}),
            &lines(),
            Err("4 different values are asked for, there are 3"),
        );
        check(&json!({"t": {"from": "x.txt"}}), &json!([[""]]), Err("`x.txt` has no values"));
        check(&json!({"t": {"from": "y.csv", "column": "c"}}), &lines(), Err("`y.csv` has no column `c`"));
        let pairs = json!([["a", "p"], ["b", "p"], ["c", "q"]]);
        let axis = json!({"from": "x.csv", "column": "c", "where": {"t": "u"}});
        check(&json!({"s": axis}), &pairs, Ok("s: 2 cases, by `u`"));
    }

    #[test]
    fn rows_that_axes_do_not_have() {
        let axes = build(&json!({"t": {"from": "x.txt", "replace": false}}), &json!([["a"], ["b"]])).unwrap();
        let sample = |rows| SampleFile { rows: Some(rows), ..SampleFile::default() };
        assert_eq!(axes.rows_max(), Some(2));
        assert_eq!(axes.check_rows(&sample(2)), []);
        let message = "3 rows are asked for, but `t` has 2 values, each drawn once";
        assert_eq!(axes.check_rows(&sample(3))[0].message, message);
        let axes = build(&json!({"t": {"from": "x.txt"}, "l": [1, 2]}), &json!([["a"], ["b"]])).unwrap();
        let grid = |rows| SampleFile { rows, grid: true, ..SampleFile::default() };
        assert_eq!(axes.cells(), Some(4));
        assert_eq!(axes.rows_to_try(&grid(None)), Some(4));
        assert_eq!(axes.rows_to_try(&grid(Some(3))), Some(3));
        assert_eq!(axes.check_rows(&grid(Some(4))), []);
        assert_eq!(
            axes.check_rows(&grid(Some(5)))[0].message,
            "5 rows are asked for, the grid has 4 combinations"
        );
    }
}
