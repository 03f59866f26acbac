//! What a pipeline's source reads: its files found and opened, the columns of its rows, and what is wrong
//! with them as far as the heads of files and the axes tell.
//!
//! Opens files for reading, nothing else.

use std::path::Path;

use serde_json::Map;

use crate::axes::{self, SampleFile};
use crate::data::read::{FileSource, Format, ReadError, ReadOptions, find_files};
use crate::kit::{Columns, RESERVED_PREFIX};
use crate::ops::load_axes;
use crate::pipeline::doubt::Doubts;
use crate::pipeline::file::{FilesFile, SourceFile};
use crate::problem::{KeyPath, Place, Problem, Severity, name_hint};
use crate::row::{Type, Value};

/// Checks a source. Returns the columns of its rows, `None` when a problem hides them.
pub fn check_source(
    source: &SourceFile,
    doubts: &Doubts<'_>,
    base: &Path,
    problems: &mut Vec<Problem>,
) -> Option<Columns> {
    let given = [
        ("rows", source.rows.is_some()),
        ("files", source.files.is_some()),
        ("sample", source.sample.is_some()),
    ];
    let given: Vec<&str> = given.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
    // How to read files and axes is not known where something about it could not be read.
    let is_clear = !doubts.touch(&KeyPath::parse("source"));
    let columns = match (given.as_slice(), &source.rows, &source.files, &source.sample) {
        ([_], Some(rows), ..) => {
            if rows.is_empty() {
                problems.push(Problem::error(at("source.rows"), "the source has no rows"));
            }
            Some(types_of(rows)).filter(|_| !rows.is_empty())
        }
        ([_], _, Some(files), _) if is_clear => files_columns(files, base, problems),
        ([_], _, Some(_), _) => None,
        ([_], _, _, Some(sample)) => Some(sample_columns(sample, is_clear, base, problems)),
        (given, ..) => {
            let message = match given {
                [] => "the source gives no rows".to_owned(),
                more => format!("`{}` exclude each other", more.join("` and `")),
            };
            problems
                .push(Problem::error(at("source"), message).hint("give one of `rows`, `files`, `sample`"));
            None
        }
    };
    let columns = columns.map(|mut columns: Columns| {
        columns.values_mut().filter(|_| !is_clear).for_each(|kind| *kind = Type::Json);
        columns
    });
    for name in columns.iter().flat_map(Columns::keys).filter(|name| name.starts_with(RESERVED_PREFIX)) {
        let message = format!("the source has a field `{name}`, and such names are reserved");
        let hint = format!("names in `{RESERVED_PREFIX}…` are textmill's own columns; rename the field");
        problems.push(Problem::error(place_of_field(source, name), message).hint(hint));
    }
    columns
}

fn at(path: &str) -> Place {
    Place::Value(KeyPath::parse(path))
}

/// Where the source names a field.
fn place_of_field(source: &SourceFile, name: &str) -> Place {
    let row = source.rows.iter().flatten().position(|row| row.contains_key(name));
    match row {
        Some(row) => Place::Key(KeyPath::parse("source.rows").join(row).join(name)),
        None => Place::Key(KeyPath::parse("source.sample.draw").join(name)),
    }
}

fn files_columns(files: &FilesFile, base: &Path, problems: &mut Vec<Problem>) -> Option<Columns> {
    let looked = open_files(files, base).and_then(|source| {
        let columns = source.columns()?;
        let first = source.rows().next().transpose()?;
        Ok((columns, first.is_none()))
    });
    let (columns, is_empty) = match looked {
        Ok(looked) => looked,
        Err(error) => {
            problems.push(read_problem(error));
            return None;
        }
    };
    if is_empty {
        problems.push(Problem::error(at("source.files.path"), "the source has no rows"));
    }
    let columns: Columns = columns.into_iter().collect();
    if let Some(id) = files.id.as_ref().filter(|id| !columns.contains_key(*id)) {
        let mut problem = Problem::error(at("source.files.id"), format!("the files have no column `{id}`"));
        problem.hint = name_hint(id, columns.keys().map(String::as_str));
        problems.push(problem);
    }
    problems.extend(unknown_columns(files, &columns, base));
    let misread = one_column(files, &columns);
    let is_known = misread.is_none() && !is_empty;
    problems.extend(misread);
    is_known.then_some(columns)
}

/// Columns to read that no file has.
fn unknown_columns(files: &FilesFile, found: &Columns, base: &Path) -> Vec<Problem> {
    let wanted = files.columns.iter().flatten().enumerate();
    let unknown: Vec<(usize, &String)> = wanted.filter(|(_, name)| !found.contains_key(*name)).collect();
    if unknown.is_empty() {
        return Vec::new();
    }
    // What else there is, for the hint; where that cannot be read either, there is none.
    let all = FilesFile { columns: None, ..files.clone() };
    let all = open_files(&all, base).and_then(|source| source.columns()).unwrap_or_default();
    let problem = |(index, name): (usize, &String)| {
        let place = Place::Value(KeyPath::parse("source.files.columns").join(index));
        let mut problem = Problem::error(place, format!("the files have no column `{name}`"));
        problem.hint = name_hint(name, all.iter().map(|(name, _)| name.as_str()));
        problem
    };
    unknown.into_iter().map(problem).collect()
}

/// A CSV file that is read with the wrong separator has one column with all names in it.
fn one_column(files: &FilesFile, columns: &Columns) -> Option<Problem> {
    let format = files.format.or_else(|| Format::of(Path::new(&files.path)));
    let in_doubt = columns.len() == 1 && files.delimiter.is_none() && format == Some(Format::Csv);
    let (name, _) = columns.first().filter(|_| in_doubt)?;
    let separator = name.chars().find(|c| [';', '\t', '|'].contains(c))?;
    let message = format!("the only column is `{}`", name.escape_debug());
    let separator = separator.escape_debug();
    let hint = format!(
        "if `{separator}` separates the columns, write `delimiter: \"{separator}\"`, else `delimiter: \",\"`"
    );
    Some(Problem::error(at("source.files.path"), message).hint(hint))
}

/// A file's problem: at its line, if it has one, else where the pipeline file names it.
fn read_problem(error: ReadError) -> Problem {
    if error.line.is_some() {
        return Problem::from(error);
    }
    let problem = Problem::error(at("source.files.path"), error.to_string());
    Problem { hint: error.hint, ..problem }
}

fn sample_columns(sample: &SampleFile, is_clear: bool, base: &Path, problems: &mut Vec<Problem>) -> Columns {
    let (columns, mut found) = axes::check_sample(sample, base);
    // What is in the files of axes is looked at once the axes themselves are sound.
    if is_clear && found.iter().all(|problem| problem.severity != Severity::Error) {
        match load_axes(&sample.draw, base) {
            Ok(axes) => found.extend(axes.check_rows(sample)),
            Err(more) => {
                let draw = KeyPath::parse("draw");
                found.extend(more.into_iter().map(|problem| problem.below(&draw)));
            }
        }
    }
    let under = KeyPath::parse("source.sample");
    problems.extend(found.into_iter().map(|problem| problem.below(&under)));
    columns.into_iter().collect()
}

/// Finds the files of a `files:` source.
pub fn open_files(files: &FilesFile, base: &Path) -> Result<FileSource, ReadError> {
    let paths = find_files(base, &files.path)?;
    let defaults = ReadOptions::default();
    let options = ReadOptions {
        columns: files.columns.clone(),
        delimiter: files.delimiter,
        text_unit: files.text.unwrap_or_default(),
        text_field: files.into.clone().unwrap_or(defaults.text_field.clone()),
        ..defaults
    };
    FileSource::open(&paths, files.format, options)
}

/// The columns of inline rows: what all values of a field have in common.
pub fn types_of(rows: &[Map<String, Value>]) -> Columns {
    let mut columns = Columns::new();
    for (name, value) in rows.iter().flatten() {
        let Some(kind) = type_of(value) else {
            columns.entry(name.clone()).or_insert(Type::Json);
            continue;
        };
        match columns.get_mut(name) {
            None => {
                columns.insert(name.clone(), kind);
            }
            Some(known) => *known = common(known, kind),
        }
    }
    columns
}

/// The type of one value; nothing for null.
fn type_of(value: &Value) -> Option<Type> {
    match value {
        Value::Null => None,
        Value::Bool(_) => Some(Type::Boolean),
        Value::Number(number) if number.is_i64() => Some(Type::Integer),
        Value::Number(_) => Some(Type::Number),
        Value::String(_) => Some(Type::Text),
        Value::Array(items) => {
            let mut kinds = items.iter().filter_map(type_of);
            let first = kinds.next()?;
            Some(Type::List(Box::new(kinds.fold(first, |known, kind| common(&known, kind)))))
        }
        Value::Object(_) => Some(Type::Json),
    }
}

fn common(known: &Type, kind: Type) -> Type {
    match (known, kind) {
        (known, kind) if *known == kind => kind,
        (Type::Integer, Type::Number) | (Type::Number, Type::Integer) => Type::Number,
        _ => Type::Json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn inline_rows_have_the_types_that_all_values_share() {
        let rows = json!([{"a": 1, "b": "x", "c": null}, {"a": 1.5, "b": 2, "d": ["x"]}]);
        let rows: Vec<Map<String, Value>> = serde_json::from_value(rows).unwrap();
        let found: Vec<(String, String)> =
            types_of(&rows).into_iter().map(|(name, kind)| (name, kind.to_string())).collect();
        let expected = [("a", "number"), ("b", "json"), ("c", "json"), ("d", "list of text")];
        assert_eq!(found, expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    }
}
