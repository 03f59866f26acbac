//! Writing rows to Parquet parts. The same rows give the same bytes: no time, no run, no version.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use crate::data::FORMAT;
use crate::data::columns::{BatchBuilder, ColumnError, Columns};
use crate::data::hash::{FileHash, HashingWriter};
use crate::problem::{Place, Problem, shown_path};
use crate::row::Fields;

/// The key of [`PartMetadata`] in a part's metadata.
pub(crate) const METADATA_KEY: &str = "textmill";

/// Rows and bytes to hold as Arrow arrays before they are encoded.
const BATCH_ROWS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// What a part says about itself, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PartMetadata {
    pub format: u32,
    pub columns: Columns,
}

/// How parts are cut and packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartOptions {
    /// Files are `<prefix>-00000.parquet` and so on.
    pub prefix: String,
    pub rows_max: usize,
    /// A part ends at the first batch past this size; 512 MiB by default, about where
    /// `datasets.Dataset.push_to_hub` cuts its shards (500 MB).
    pub bytes_max: usize,
    /// Readers decode a row group at a time, so this is what they need memory for.
    pub row_group_rows: usize,
    /// Encoded bytes of a row group; also what the writer holds in memory.
    pub row_group_bytes_max: usize,
    /// 1 to 22.
    pub zstd_level: i32,
}

impl Default for PartOptions {
    fn default() -> PartOptions {
        PartOptions {
            prefix: "part".to_owned(),
            rows_max: 1_000_000,
            bytes_max: 512 << 20,
            row_group_rows: 10_000,
            row_group_bytes_max: 64 << 20,
            zstd_level: 3,
        }
    }
}

/// A finished part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub file_name: String,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
}

/// Why something cannot be written: which file or folder, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteError {
    pub path: PathBuf,
    pub message: String,
    pub hint: Option<String>,
}

impl WriteError {
    pub(crate) fn new(path: &Path, message: impl Into<String>) -> WriteError {
        WriteError { path: path.to_owned(), message: message.into(), hint: None }
    }

    pub(crate) fn io(path: &Path, error: &io::Error) -> WriteError {
        WriteError::new(path, format!("cannot be written: {error}"))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> WriteError {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", shown_path(&self.path), self.message)
    }
}

impl std::error::Error for WriteError {}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Problem {
        let place = Place::File { path: error.path, line: None, column: None };
        Problem { hint: error.hint, ..Problem::error(place, error.message) }
    }
}

/// Makes what a folder lists durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), WriteError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(|error| WriteError::io(folder, &error))
}

/// Writes rows to the parts of one folder, in order.
///
/// Memory: one batch of rows and one encoded row group. Dropped without [`PartWriter::finish`] it
/// leaves what it wrote; the folder is the caller's to remove.
pub struct PartWriter {
    folder: PathBuf,
    options: PartOptions,
    metadata: PartMetadata,
    batch: BatchBuilder,
    open: Option<OpenPart>,
    done: Vec<Part>,
}

struct OpenPart {
    path: PathBuf,
    file_name: String,
    rows: usize,
    writer: ArrowWriter<HashingWriter<BufWriter<File>>>,
}

impl PartWriter {
    /// Makes the folder if need be. A folder that already has such parts is refused: they would be
    /// taken for part of the dataset.
    pub fn create(folder: &Path, columns: Columns, options: PartOptions) -> Result<PartWriter, WriteError> {
        fs::create_dir_all(folder).map_err(|error| WriteError::io(folder, &error))?;
        let entries = fs::read_dir(folder).map_err(|error| WriteError::io(folder, &error))?;
        for entry in entries {
            let name = entry.map_err(|error| WriteError::io(folder, &error))?.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&format!("{}-", options.prefix)) && name.ends_with(".parquet") {
                return Err(WriteError::new(&folder.join(&*name), "another part is there already"));
            }
        }
        let metadata = PartMetadata { format: FORMAT, columns: columns.clone() };
        let batch = BatchBuilder::new(columns).map_err(|error| WriteError::new(folder, error.to_string()))?;
        let folder = folder.to_owned();
        Ok(PartWriter { folder, options, metadata, batch, open: None, done: Vec::new() })
    }

    /// Adds a row: those of its fields that are columns, null for columns that it lacks.
    ///
    /// A value that does not fit its column is an error that leaves no trace; check with
    /// [`crate::row::Type::fits`] first.
    pub fn push(&mut self, fields: &Fields) -> Result<(), WriteError> {
        self.batch.push(fields).map_err(|error| self.refused(&error))?;
        let rows = self.batch.rows() + self.open.as_ref().map_or(0, |part| part.rows);
        let part_full = rows >= self.options.rows_max;
        if part_full || self.batch.rows() >= BATCH_ROWS_MAX || self.batch.bytes() >= BATCH_BYTES_MAX {
            self.flush()?;
        }
        let bytes = self.open.as_ref().map_or(0, |part| part.writer.bytes_written());
        if part_full || bytes >= self.options.bytes_max {
            self.close_part()?;
        }
        Ok(())
    }

    /// Ends the last part. With no rows at all there is one empty part, so that a loader sees the
    /// columns. When this returns, the parts and the folder's list of them are durable.
    pub fn finish(mut self) -> Result<Vec<Part>, WriteError> {
        if self.batch.rows() > 0 || self.done.is_empty() {
            self.flush()?;
        }
        self.close_part()?;
        sync_folder(&self.folder)?;
        Ok(self.done)
    }

    fn refused(&self, error: &ColumnError) -> WriteError {
        WriteError::new(&self.folder, error.to_string())
    }

    /// Encodes the batch, into a new part if none is open.
    fn flush(&mut self) -> Result<(), WriteError> {
        let batch = self.batch.finish().map_err(|error| self.refused(&error))?;
        if self.open.is_none() {
            self.open = Some(self.open_part()?);
        }
        let Some(part) = &mut self.open else { return Ok(()) };
        part.rows += batch.num_rows();
        let written = part.writer.write(&batch);
        written.map_err(|error| WriteError::new(&part.path, format!("cannot be written: {error}")))
    }

    fn open_part(&self) -> Result<OpenPart, WriteError> {
        let file_name = format!("{}-{:05}.parquet", self.options.prefix, self.done.len());
        let path = self.folder.join(&file_name);
        let wrong = |error: parquet::errors::ParquetError| WriteError::new(&path, error.to_string());
        let file = File::create_new(&path).map_err(|error| WriteError::io(&path, &error))?;
        let metadata = serde_json::to_string(&self.metadata)
            .map_err(|error| WriteError::new(&path, error.to_string()))?;
        let level = ZstdLevel::try_new(self.options.zstd_level).map_err(wrong)?;
        let properties = WriterProperties::builder()
            .set_created_by(format!("textmill version {FORMAT}.0.0"))
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(self.options.row_group_rows.max(1)))
            .set_max_row_group_bytes(Some(self.options.row_group_bytes_max.max(1)))
            .set_key_value_metadata(Some(vec![KeyValue::new(METADATA_KEY.to_owned(), metadata)]))
            .build();
        // The Parquet schema says all there is; an Arrow one beside it would only be a second truth.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let sink = HashingWriter::new(BufWriter::new(file));
        let schema = self.batch.schema().clone();
        let writer = ArrowWriter::try_new_with_options(sink, schema, options).map_err(wrong)?;
        Ok(OpenPart { path, file_name, rows: 0, writer })
    }

    fn close_part(&mut self) -> Result<(), WriteError> {
        let Some(OpenPart { path, file_name, rows, writer }) = self.open.take() else { return Ok(()) };
        let sink = writer.into_inner().map_err(|error| WriteError::new(&path, error.to_string()))?;
        let (mut buffered, FileHash { bytes, sha256 }) = sink.finish();
        let synced = buffered.flush().and_then(|()| buffered.get_ref().sync_all());
        synced.map_err(|error| WriteError::io(&path, &error))?;
        self.done.push(Part { file_name, rows: rows as u64, bytes, sha256 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::hash::file_hash;
    use crate::data::read::{FileSource, ReadOptions};
    use crate::row::{Type, Value};
    use proptest::prelude::*;
    use serde_json::json;

    fn write(folder: &Path, columns: &Columns, rows: &[Fields], options: PartOptions) -> Vec<Part> {
        let mut writer = PartWriter::create(folder, columns.clone(), options).unwrap();
        for row in rows {
            writer.push(row).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(folder: &Path, parts: &[Part]) -> (Columns, Vec<Fields>) {
        let paths: Vec<PathBuf> = parts.iter().map(|part| folder.join(&part.file_name)).collect();
        let source = FileSource::open(&paths, None, ReadOptions::default()).unwrap();
        (source.columns().unwrap(), source.rows().collect::<Result<_, _>>().unwrap())
    }

    fn fields(value: Value) -> Fields {
        let Value::Object(fields) = value else { panic!("{value} is no object") };
        fields
    }

    fn many(count: usize) -> (Columns, Vec<Fields>) {
        let columns = vec![("text".to_owned(), Type::Text), ("n".to_owned(), Type::Integer)];
        let row = |n: usize| fields(json!({"text": format!("row {n}"), "n": n}));
        (columns, (0..count).map(row).collect())
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let object = Type::Object(vec![("x".into(), Type::Integer), ("y".into(), Type::Json)]);
        let columns = vec![
            ("t".to_owned(), Type::Text),
            ("j".to_owned(), Type::Json),
            ("l".to_owned(), Type::List(Box::new(Type::List(Box::new(Type::Number))))),
            ("o".to_owned(), Type::List(Box::new(object))),
            ("e".to_owned(), Type::Object(vec![])),
        ];
        let rows = [
            json!({"t": "é😀\u{0}\n", "j": {"k": [1, null]}, "l": [[], [1.5], null], "o": [{"x": 1, "y": "a"}], "e": {}}),
            json!({"t": null, "j": null, "l": null, "o": null, "e": null}),
            json!({"t": "", "j": "5", "l": [], "o": [null, {"x": null, "y": [{}]}], "e": {}}),
        ]
        .map(fields);
        let folder = tempfile::tempdir().unwrap();
        let parts = write(folder.path(), &columns, &rows, PartOptions::default());
        let (columns_back, rows_back) = read(folder.path(), &parts);
        assert_eq!(rows_back, rows);
        assert_eq!(columns_back[..4], columns[..4]);
        // An object without names has become JSON.
        assert_eq!(columns_back[4].1, Type::Json);
    }

    #[test]
    fn parts_roll_and_their_hashes_are_right() {
        let (columns, rows) = many(2500);
        let folder = tempfile::tempdir().unwrap();
        let options = PartOptions { rows_max: 1200, row_group_rows: 500, ..PartOptions::default() };
        let parts = write(folder.path(), &columns, &rows, options);
        let counts: Vec<(&str, u64)> =
            parts.iter().map(|part| (part.file_name.as_str(), part.rows)).collect();
        let expected =
            [("part-00000.parquet", 1200), ("part-00001.parquet", 1200), ("part-00002.parquet", 100)];
        assert_eq!(counts, expected);
        for part in &parts {
            let hash = file_hash(&folder.path().join(&part.file_name)).unwrap();
            assert_eq!((hash.bytes, &hash.sha256), (part.bytes, &part.sha256));
        }
        assert_eq!(read(folder.path(), &parts).1, rows);
    }

    #[test]
    fn parts_roll_by_bytes_too() {
        let (columns, rows) = many(5000);
        let folder = tempfile::tempdir().unwrap();
        let options = PartOptions { bytes_max: 1, ..PartOptions::default() };
        let parts = write(folder.path(), &columns, &rows, options);
        assert_eq!(parts.iter().map(|part| part.rows).collect::<Vec<_>>(), [1024, 1024, 1024, 1024, 904]);
        assert_eq!(read(folder.path(), &parts).1, rows);
    }

    #[test]
    fn the_same_rows_give_the_same_bytes() {
        let (columns, rows) = many(3000);
        let written = || {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), &columns, &rows, PartOptions::default())
        };
        assert_eq!(written(), written());
    }

    #[test]
    fn no_rows_give_one_part_with_columns() {
        let folder = tempfile::tempdir().unwrap();
        let (columns, _) = many(0);
        let parts = write(folder.path(), &columns, &[], PartOptions::default());
        assert_eq!((parts.len(), parts[0].rows), (1, 0));
        assert_eq!(read(folder.path(), &parts), (columns.clone(), vec![]));
        let again = PartWriter::create(folder.path(), columns, PartOptions::default()).err().unwrap();
        assert_eq!(again.message, "another part is there already");
    }

    #[test]
    fn a_misfit_names_its_column() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::create(folder.path(), many(0).0, PartOptions::default()).unwrap();
        let error = writer.push(&fields(json!({"n": "five"}))).unwrap_err();
        assert_eq!(error.message, "a value of column `n` does not fit its type, integer");
    }

    fn any_type() -> impl Strategy<Value = Type> {
        let leaf = prop_oneof![
            Just(Type::Text),
            Just(Type::Integer),
            Just(Type::Number),
            Just(Type::Boolean),
            Just(Type::Json)
        ];
        leaf.prop_recursive(3, 8, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|item| Type::List(Box::new(item))),
                prop::collection::vec(inner, 0..3).prop_map(|kinds| {
                    Type::Object(
                        kinds.into_iter().enumerate().map(|(n, kind)| (format!("f{n}"), kind)).collect(),
                    )
                }),
            ]
        })
    }

    /// A value that fits a type, in the form that it comes back in (no missing names).
    fn fitting(kind: &Type) -> BoxedStrategy<Value> {
        let value = match kind {
            Type::Text => "\\PC{0,5}".prop_map(Value::from).boxed(),
            Type::Integer => any::<i64>().prop_map(Value::from).boxed(),
            Type::Number => (-1e300..1e300_f64).prop_map(Value::from).boxed(),
            Type::Boolean => any::<bool>().prop_map(Value::from).boxed(),
            Type::Json => {
                prop_oneof![Just(json!({"a": [1, "x", {}]})), Just(json!([])), Just(json!("5"))].boxed()
            }
            Type::List(item) => prop::collection::vec(fitting(item), 0..3).prop_map(Value::from).boxed(),
            Type::Object(fields) => {
                let values: Vec<BoxedStrategy<Value>> =
                    fields.iter().map(|(_, kind)| fitting(kind)).collect();
                let names: Vec<String> = fields.iter().map(|(name, _)| name.clone()).collect();
                let object =
                    move |values: Vec<Value>| Value::Object(names.clone().into_iter().zip(values).collect());
                values.prop_map(object).boxed()
            }
        };
        prop_oneof![4 => value, 1 => Just(Value::Null)].boxed()
    }

    fn any_rows() -> impl Strategy<Value = (Type, Vec<Value>)> {
        any_type().prop_flat_map(|kind| {
            let values = prop::collection::vec(fitting(&kind), 1..6);
            (Just(kind), values)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn fitting_values_always_come_back((kind, values) in any_rows()) {
            prop_assert!(values.iter().all(|value| kind.fits(value)));
            let rows: Vec<Fields> = values.into_iter().map(|value| fields(json!({"a": value}))).collect();
            let folder = tempfile::tempdir().unwrap();
            let parts = write(folder.path(), &vec![("a".to_owned(), kind)], &rows, PartOptions::default());
            prop_assert_eq!(read(folder.path(), &parts).1, rows);
        }
    }
}
