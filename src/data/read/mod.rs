//! Reading rows from files: JSONL, CSV, Parquet and plain text, one after the other, streamed.
//!
//! Which files, in which format, with which options; the formats are one file each. A file is never
//! held in memory as a whole (except as one text when that is asked for); a line or record is
//! bounded by [`RECORD_BYTES_MAX`], a decompressed stream by [`EXPANDED_BYTES_MAX`]. Compression
//! (gzip, Zstandard) is recognised by a file's first bytes, not by its name.

mod bytes;
mod csv;
mod infer;
mod jsonl;
mod parquet;
mod text;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::columns::Columns;
use crate::data::is_reserved;
use crate::problem::{Place, Problem, name_hint, shown_path};
use crate::row::{Fields, Type, Value};

/// Longest line, CSV record, paragraph or whole-file text: 64 MiB, far above any document that a
/// teacher could be shown, and small beside a machine's memory.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// Most bytes that one compressed file may unpack to: 256 GiB. It is read as a stream, so this
/// bounds time, not memory.
pub const EXPANDED_BYTES_MAX: u64 = 256 << 30;

/// Most bytes that [`read_column`] holds: 256 MiB.
pub const COLUMN_BYTES_MAX: usize = 256 << 20;

/// How rows are laid out in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values under a header line; every value is text.
    Csv,
    Parquet,
    /// Plain text: the whole file, its paragraphs or its lines.
    Text,
}

impl Format {
    /// The format that a file's name tells, looking under `.gz` and `.zst`.
    pub fn of(path: &Path) -> Option<Format> {
        match extension(path)?.as_str() {
            "jsonl" | "ndjson" => Some(Format::Jsonl),
            "csv" | "tsv" => Some(Format::Csv),
            "parquet" => Some(Format::Parquet),
            "txt" | "text" | "md" => Some(Format::Text),
            _ => None,
        }
    }
}

/// A file's extension in lower case, looking under `.gz` and `.zst`.
fn extension(path: &Path) -> Option<String> {
    let lower = |path: &Path| path.extension().map(|ext| ext.to_string_lossy().to_lowercase());
    match lower(path)?.as_str() {
        "gz" | "zst" => lower(Path::new(path.file_stem()?)),
        ext => Some(ext.to_owned()),
    }
}

/// What one row of a plain-text file is. Blank lines and blank files are not rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TextUnit {
    /// The whole file, as it is.
    #[default]
    File,
    /// What stands between blank lines; its lines are joined with `\n`.
    Paragraphs,
    Lines,
}

/// How to read files whose format leaves a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// The columns to read; all by default.
    pub columns: Option<Vec<String>>,
    /// What separates CSV values; by default a tab in `.tsv` files and a comma in all others.
    pub delimiter: Option<char>,
    /// Column names for CSV files that have no header line; by default the first line is the header.
    pub header: Option<Vec<String>>,
    pub text_unit: TextUnit,
    /// The field that plain text is read into.
    pub text_field: String,
    pub record_bytes_max: usize,
    pub expanded_bytes_max: u64,
}

impl ReadOptions {
    fn reads(&self, column: &str) -> bool {
        self.columns.as_ref().is_none_or(|columns| columns.iter().any(|name| name == column))
    }
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions {
            columns: None,
            delimiter: None,
            header: None,
            text_unit: TextUnit::default(),
            text_field: "text".to_owned(),
            record_bytes_max: RECORD_BYTES_MAX,
            expanded_bytes_max: EXPANDED_BYTES_MAX,
        }
    }
}

/// Why a file cannot be read, and where. Lines and columns (in characters) count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    pub path: PathBuf,
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub message: String,
    pub hint: Option<String>,
}

impl ReadError {
    pub(crate) fn new(path: &Path, message: impl Into<String>) -> ReadError {
        ReadError { path: path.to_owned(), line: None, column: None, message: message.into(), hint: None }
    }

    pub(crate) fn io(path: &Path, error: &io::Error) -> ReadError {
        ReadError::new(path, format!("cannot be read: {error}"))
    }

    /// The error and its hint in one sentence.
    pub fn sentence(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{self}; {hint}"),
            None => self.to_string(),
        }
    }

    fn at(mut self, line: usize) -> ReadError {
        self.line = Some(line);
        self
    }

    fn column(mut self, column: usize) -> ReadError {
        self.column = Some(column);
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> ReadError {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ReadError {
    /// `data/seeds.jsonl:17:4: a duplicate key`, without the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", shown_path(&self.path))?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ReadError {}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Problem {
        let place = Place::File { path: error.path, line: error.line, column: error.column };
        Problem { hint: error.hint, ..Problem::error(place, error.message) }
    }
}

/// The files that a path or glob names, sorted by path. `pattern` is relative to `base` unless it is
/// absolute; folders and hidden files are passed over; a dataset folder stands for its parts. No match is an error.
pub fn find_files(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, ReadError> {
    let plain = base.join(pattern);
    if plain.is_file() {
        return Ok(vec![plain]);
    }
    if plain.is_dir() {
        return dataset_parts(&plain);
    }
    let full = match Path::new(pattern).is_absolute() {
        true => pattern.to_owned(),
        false => format!("{}/{pattern}", glob::Pattern::escape(&base.to_string_lossy())),
    };
    let found = glob_files(&plain, &full)?;
    if found.is_empty() {
        let is_pattern = pattern.contains(['*', '?', '[']);
        let (message, hint) = match is_pattern {
            true => ("no file fits this pattern", "`*` matches within one folder, `**` across folders; "),
            false => ("no such file", ""),
        };
        let hint = format!("{hint}paths are relative to the pipeline file");
        return Err(ReadError::new(&plain, message).hint(hint));
    }
    Ok(found)
}

/// Wildcards pass over names that begin with a dot, so that `**` finds neither the rejects under
/// `.textmill/` nor a dataset that is being staged.
const VISIBLE: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: false,
    require_literal_leading_dot: true,
};

fn glob_files(shown: &Path, pattern: &str) -> Result<Vec<PathBuf>, ReadError> {
    let wrong =
        |error: glob::PatternError| ReadError::new(shown, format!("not a valid pattern: {}", error.msg));
    let mut found = Vec::new();
    for path in glob::glob_with(pattern, VISIBLE).map_err(wrong)? {
        let path = path.map_err(|error| ReadError::io(error.path(), error.error()))?;
        if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The Parquet parts of a dataset folder, sorted by path.
fn dataset_parts(folder: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let pattern = format!("{}/data/*/*.parquet", glob::Pattern::escape(&folder.to_string_lossy()));
    let parts = glob_files(folder, &pattern)?;
    if parts.is_empty() {
        let error = ReadError::new(folder, "a folder, but no dataset: it has no `data/*/*.parquet`");
        return Err(error.hint("name its files with a pattern, such as `folder/*.jsonl`"));
    }
    Ok(parts)
}

/// Files to read rows from.
#[derive(Clone, Debug)]
pub struct FileSource {
    files: Vec<(PathBuf, Format)>,
    options: ReadOptions,
    /// Whether reserved field names are let through, as in a dataset that is only shown.
    reserved_allowed: bool,
}

impl FileSource {
    /// Checks that the files are there and that each one's format is known. Reads nothing yet.
    pub fn open(
        paths: &[PathBuf],
        format: Option<Format>,
        options: ReadOptions,
    ) -> Result<FileSource, ReadError> {
        let files = paths
            .iter()
            .map(|path| Ok((path.clone(), resolve_format(path, format)?)))
            .collect::<Result<Vec<_>, ReadError>>()?;
        Ok(FileSource { files, options, reserved_allowed: false })
    }

    /// Lets textmill's own columns through, as in a dataset that is looked at.
    pub fn with_reserved(mut self) -> FileSource {
        self.reserved_allowed = true;
        self
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// The rows of all files, in order. Ends after the first error.
    pub fn rows(&self) -> Rows {
        Rows { source: self.clone(), file_next: 0, open: None }
    }

    /// How many rows there are, as cheaply as each format allows: for progress displays, not for accounts.
    pub fn count(&self) -> Result<u64, ReadError> {
        self.files.iter().try_fold(0, |total, (path, format)| {
            let rows = match format {
                Format::Jsonl => jsonl::count(path, &self.options)?,
                Format::Parquet => parquet::count(path)?,
                Format::Csv | Format::Text => self.open_file(path, *format)?.count() as u64,
            };
            Ok(total + rows)
        })
    }

    /// The columns of the rows and their types, in order of first appearance over all files.
    ///
    /// CSV and plain text are text, Parquet says itself what it is; the types of JSONL come from the
    /// first 64 MiB (spread over the files): a number column that also
    /// has integers is a number, a column that was only null or that mixes kinds is
    /// [`Type::Json`]. A later value may not fit its column's type; whoever saves it must check.
    pub fn columns(&self) -> Result<Columns, ReadError> {
        let mut merged = infer::Merge::default();
        let scan_bytes_max = infer::scan_bytes_max(self.files.len());
        for (path, format) in &self.files {
            match format {
                Format::Jsonl => jsonl::scan(path, &self.options, scan_bytes_max, &mut merged)?,
                Format::Csv => {
                    let rows = csv::CsvRows::open(path, &self.options)?;
                    let header = rows.header().iter().filter(|name| self.options.reads(name));
                    header.for_each(|name| merged.declare(name, &Type::Text));
                }
                Format::Parquet => {
                    for (name, kind) in parquet::columns(path, self.options.columns.as_deref())? {
                        merged.declare(&name, &kind);
                    }
                }
                Format::Text if !self.options.reads(&self.options.text_field) => {}
                Format::Text => merged.declare(&self.options.text_field, &Type::Text),
            }
            let columns = merged.names();
            self.check_names(path, columns)?;
        }
        Ok(merged.finish())
    }

    fn open_file(&self, path: &Path, format: Format) -> Result<FileRows, ReadError> {
        Ok(match format {
            Format::Jsonl => Box::new(jsonl::JsonlRows::open(path, &self.options)?),
            Format::Csv => Box::new(csv::CsvRows::open(path, &self.options)?),
            Format::Parquet => Box::new(parquet::ParquetRows::open(path, self.options.columns.as_deref())?),
            Format::Text => Box::new(text::TextRows::open(path, &self.options)?),
        })
    }

    fn check_names<'a>(
        &self,
        path: &Path,
        mut names: impl Iterator<Item = &'a String>,
    ) -> Result<(), ReadError> {
        match names.find(|name| is_reserved(name) && !self.reserved_allowed) {
            None => Ok(()),
            Some(name) => {
                let message = format!("the field name `{name}` is kept for textmill's own columns");
                Err(ReadError::new(path, message).hint("rename the field"))
            }
        }
    }
}

fn resolve_format(path: &Path, format: Option<Format>) -> Result<Format, ReadError> {
    let metadata = path.metadata().map_err(|error| ReadError::io(path, &error))?;
    if !metadata.is_file() {
        return Err(ReadError::new(path, "not a regular file").hint("name files, not folders or pipes"));
    }
    let Some(format) = format.or_else(|| Format::of(path)) else {
        let error = ReadError::new(path, "the name does not tell the file's format");
        return Err(error.hint(match extension(path).as_deref() {
            Some("json") => "write one JSON object a line and name it `.jsonl`; `jq -c '.[]'` does it",
            _ => "name the format: `jsonl`, `csv`, `parquet` or `text`",
        }));
    };
    let compressed = path.extension().is_some_and(|ext| ext == "gz" || ext == "zst");
    if format == Format::Parquet && compressed {
        let error = ReadError::new(path, "a compressed Parquet file cannot be read");
        return Err(error.hint("unpack it; Parquet compresses its own pages"));
    }
    Ok(format)
}

/// The rows of one file.
trait RowReader: Iterator<Item = Result<Fields, ReadError>> + Send {
    /// The line that the last row begins on, in formats that have lines.
    fn line(&self) -> Option<usize> {
        None
    }
}

type FileRows = Box<dyn RowReader>;

/// The rows of a [`FileSource`].
pub struct Rows {
    source: FileSource,
    file_next: usize,
    open: Option<FileRows>,
}

impl Rows {
    /// An error with the row that was given last.
    pub fn error(&self, message: impl Into<String>) -> ReadError {
        let path = self.file_next.checked_sub(1).and_then(|file| self.source.files.get(file));
        let error = ReadError::new(path.map_or(Path::new(""), |(path, _)| path), message);
        ReadError { line: self.open.as_ref().and_then(|rows| rows.line()), ..error }
    }

    fn advance(&mut self) -> Result<Option<Fields>, ReadError> {
        loop {
            if let Some(rows) = &mut self.open {
                if let Some(mut fields) = rows.next().transpose()? {
                    let path = &self.source.files[self.file_next - 1].0;
                    if self.source.options.columns.is_some() {
                        fields.retain(|name, _| self.source.options.reads(name));
                    }
                    self.source.check_names(path, fields.keys())?;
                    return Ok(Some(fields));
                }
                self.open = None;
            }
            let Some((path, format)) = self.source.files.get(self.file_next) else { return Ok(None) };
            self.open = Some(self.source.open_file(path, *format)?);
            self.file_next += 1;
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Fields, ReadError>;

    fn next(&mut self) -> Option<Result<Fields, ReadError>> {
        let row = self.advance().transpose();
        if matches!(row, Some(Err(_))) {
            self.open = None;
            self.file_next = self.source.files.len();
        }
        row
    }
}

/// The parts of a dataset folder, or those that lie in the folder itself, as a run's rejects do.
fn parts_within(folder: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let pattern = format!("{}/*.parquet", glob::Pattern::escape(&folder.to_string_lossy()));
    let parts = glob_files(folder, &pattern)?;
    if parts.is_empty() { dataset_parts(folder) } else { Ok(parts) }
}

/// The rows of a dataset folder, of a folder of parts, or of any single file that a source could read.
pub fn read_dataset(path: &Path) -> Result<Rows, ReadError> {
    let parts = match path.is_dir() {
        true => parts_within(path)?,
        false => vec![path.to_owned()],
    };
    let options = ReadOptions { text_unit: TextUnit::Lines, ..ReadOptions::default() };
    Ok(FileSource::open(&parts, None, options)?.with_reserved().rows())
}

/// One column of a file as texts, for samplers: numbers and booleans as JSON writes them, blank and
/// null values passed over. A plain-text file needs no column: its lines are the values.
pub fn read_column(
    path: &Path,
    column: Option<&str>,
    format: Option<Format>,
    options: &ReadOptions,
) -> Result<Vec<String>, ReadError> {
    let options = ReadOptions { text_unit: TextUnit::Lines, ..options.clone() };
    let format = resolve_format(path, format)?;
    let column = match (column, format) {
        (None, Format::Text) => options.text_field.clone(),
        (Some(column), _) => column.to_owned(),
        (None, _) => {
            let error = ReadError::new(path, "which column of the file to take is not said");
            return Err(error.hint("name it with `column:`"));
        }
    };
    if format == Format::Parquet {
        let names = parquet::names(path)?;
        if !names.contains(&column) {
            let error = ReadError::new(path, format!("no column `{column}`"));
            return Err(ReadError { hint: name_hint(&column, names.iter().map(String::as_str)), ..error });
        }
    }
    // Only Parquet has the others to leave aside; in the rest they are looked at to name the nearest.
    let columns = (format == Format::Parquet).then(|| vec![column.clone()]);
    let source = FileSource::open(&[path.to_owned()], Some(format), ReadOptions { columns, ..options })?;
    collect_column(path, &column, source.rows())
}

/// Several columns of a file, one list per line in the order asked for, for values that belong
/// together; no columns are the lines of a plain-text file. Values are texts, null where there is none.
pub fn read_columns(path: &Path, columns: &[String]) -> Result<Vec<Vec<Value>>, ReadError> {
    let options = ReadOptions { text_unit: TextUnit::Lines, ..ReadOptions::default() };
    if columns.len() <= 1 {
        let values = read_column(path, columns.first().map(String::as_str), None, &options)?;
        return Ok(values.into_iter().map(|value| vec![Value::from(value)]).collect());
    }
    let mut lines = Vec::new();
    for row in FileSource::open(&[path.to_owned()], None, options)?.rows() {
        let row = row?;
        let cell = |column: &String| match row.get(column) {
            Some(Value::Null) => Ok(Value::Null),
            Some(Value::String(text)) => Ok(Value::from(text.as_str())),
            Some(other) => Ok(Value::from(other.to_string())),
            None => {
                let error = ReadError::new(path, format!("no column `{column}`"));
                Err(ReadError { hint: name_hint(column, row.keys().map(String::as_str)), ..error })
            }
        };
        lines.push(columns.iter().map(cell).collect::<Result<Vec<Value>, ReadError>>()?);
    }
    Ok(lines)
}

fn collect_column(path: &Path, column: &str, rows: Rows) -> Result<Vec<String>, ReadError> {
    let mut values = Vec::new();
    let mut bytes = 0;
    let mut others = HashSet::new();
    let mut found = false;
    for row in rows {
        let row = row?;
        let Some(value) = row.get(column) else {
            others.extend(row.into_iter().map(|(name, _)| name).take(100_usize.saturating_sub(others.len())));
            continue;
        };
        found = true;
        let text = match value {
            Value::Null => continue,
            Value::String(text) if text.trim().is_empty() => continue,
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => {
                let message = format!("the column `{column}` has a list or an object, a text is needed");
                return Err(ReadError::new(path, message));
            }
        };
        bytes += text.len() + size_of::<String>();
        if bytes > COLUMN_BYTES_MAX {
            let message = format!("the column `{column}` has over {} MiB of values", COLUMN_BYTES_MAX >> 20);
            return Err(ReadError::new(path, message).hint("use the file as a source instead of an axis"));
        }
        values.push(text);
    }
    if !found && !others.is_empty() {
        let mut others: Vec<&str> = others.iter().map(String::as_str).collect();
        others.sort_unstable();
        let error = ReadError::new(path, format!("no column `{column}`"));
        return Err(ReadError { hint: name_hint(column, others), ..error });
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(files: &[(&str, &str)]) -> Files {
            let folder = tempfile::tempdir().unwrap();
            for (name, content) in files {
                let path = folder.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            Files(folder)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// An error as it is shown, with the folder's path left out.
        fn shown(&self, error: &ReadError) -> String {
            error.to_string().replace(&format!("{}/", self.0.path().display()), "")
        }

        fn source(&self, pattern: &str) -> Result<FileSource, ReadError> {
            FileSource::open(&find_files(self.0.path(), pattern)?, None, ReadOptions::default())
        }

        /// The rows that a pattern gives, one JSON line each; an error ends them.
        fn rows(&self, pattern: &str) -> Vec<String> {
            match self.source(pattern) {
                Ok(source) => source
                    .rows()
                    .map(|row| match row {
                        Ok(fields) => Value::Object(fields).to_string(),
                        Err(error) => self.shown(&error),
                    })
                    .collect(),
                Err(error) => vec![self.shown(&error)],
            }
        }
    }

    #[test]
    fn globs_are_sorted_and_formats_told_by_name() {
        let files = Files::new(&[
            ("b.csv", "x\n2\n"),
            ("a.jsonl", "{\"x\": 1}\n"),
            ("sub/c.txt", "three"),
            ("sub/[odd].md", "four"),
            (".textmill/runs/1/rejects.jsonl", "{}"),
            ("sub/.hidden.txt", "no"),
        ]);
        assert_eq!(files.rows("*.*"), [r#"{"x":1}"#, r#"{"x":"2"}"#]);
        assert_eq!(files.rows("**/*.txt"), [r#"{"text":"three"}"#]);
        assert_eq!(files.rows("**/*.jsonl"), [r#"{"x":1}"#]);
        assert_eq!(files.rows("sub/../sub/*.txt"), [r#"{"text":"three"}"#]);
        assert_eq!(files.rows(".textmill/runs/*/*.jsonl"), ["{}"]);
        assert_eq!(files.rows("sub/[odd].md"), [r#"{"text":"four"}"#]);
        assert_eq!(files.rows("*.parquet"), ["*.parquet: no file fits this pattern"]);
        assert_eq!(files.rows("sub"), ["sub: a folder, but no dataset: it has no `data/*/*.parquet`"]);
        assert_eq!(
            files.rows("***"),
            ["***: not a valid pattern: wildcards are either regular `*` or recursive `**`"]
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_ends_the_rows_with_its_place() {
        let files = Files::new(&[
            ("a.jsonl", "{\"x\": 1}\n{\"textmill_id\": 1}\n{\"x\": 2}\n"),
            ("b.json", "[]"),
            ("c.parquet.gz", ""),
            ("d.jsonl", "{\"x\": 1}\n{]\n{\"x\": 1}\n"),
        ]);
        let reserved = "a.jsonl: the field name `textmill_id` is kept for textmill's own columns";
        assert_eq!(files.rows("a.jsonl"), [r#"{"x":1}"#, reserved]);
        assert_eq!(files.rows("b.json"), ["b.json: the name does not tell the file's format"]);
        assert_eq!(files.rows("c.parquet.gz"), ["c.parquet.gz: a compressed Parquet file cannot be read"]);
        assert_eq!(files.rows("d.jsonl"), [r#"{"x":1}"#, "d.jsonl:2:2: key must be a string at `]`"]);
        let error = files.source("d.jsonl").unwrap().columns().unwrap_err();
        let problem = Problem::from(error);
        assert_eq!(
            problem.place,
            Place::File { path: files.path("d.jsonl"), line: Some(2), column: Some(2) }
        );
    }

    #[test]
    fn columns_are_those_of_all_files() {
        let files = Files::new(&[
            ("a.jsonl", "{\"n\": 1, \"t\": null}\n{\"n\": 2.5}\n"),
            ("b.csv", "t,u\n"),
            ("c.txt", ""),
        ]);
        let columns = files.source("*").unwrap().columns().unwrap();
        let shown: Vec<String> = columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
        assert_eq!(shown, ["n number", "t text", "u text", "text text"]);
    }

    #[test]
    fn only_the_columns_asked_for_are_read() {
        let files =
            Files::new(&[("a.jsonl", "{\"n\": 1, \"x\": 2}\n"), ("b.csv", "x,n\n3,4\n"), ("c.txt", "t")]);
        let paths = find_files(files.0.path(), "*").unwrap();
        let options = ReadOptions { columns: Some(vec!["n".to_owned()]), ..ReadOptions::default() };
        let source = FileSource::open(&paths, None, options).unwrap();
        let rows: Vec<String> = source.rows().map(|row| Value::Object(row.unwrap()).to_string()).collect();
        assert_eq!(rows, [r#"{"n":1}"#, r#"{"n":"4"}"#, "{}"]);
        assert_eq!(source.columns().unwrap(), [("n".to_owned(), Type::Json)]);
    }

    #[test]
    fn one_column_for_a_sampler() {
        let files = Files::new(&[
            ("a.csv", "topic,n\nloops,1\n ,2\n\"a, b\",3\n"),
            ("b.txt", "one\n\n two\n"),
            ("c.jsonl", "{\"n\": 1}\n{\"n\": null}\n{\"n\": [1]}\n"),
        ]);
        let check = |name: &str, column: Option<&str>, expected: &[&str]| {
            let values = read_column(&files.path(name), column, None, &ReadOptions::default());
            assert_eq!(values.unwrap_or_else(|error| vec![files.shown(&error)]), expected);
        };
        check("a.csv", Some("topic"), &["loops", "a, b"]);
        check("b.txt", None, &["one", " two"]);
        check("a.csv", None, &["a.csv: which column of the file to take is not said"]);
        check("a.csv", Some("topics"), &["a.csv: no column `topics`"]);
        check("c.jsonl", Some("n"), &["c.jsonl: the column `n` has a list or an object, a text is needed"]);
        let error = read_column(&files.path("a.csv"), Some("topics"), None, &ReadOptions::default());
        assert_eq!(error.unwrap_err().hint.as_deref(), Some("did you mean `topic`?"));
    }
}
