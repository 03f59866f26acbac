//! Parquet: row groups streamed in small batches, every value as JSON.
//!
//! Parts that textmill wrote carry their column types in the metadata key [`METADATA_KEY`], so that
//! a JSON column comes back as the values it was made of.

use std::collections::HashSet;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::ParquetMetaData;

use crate::data::columns::{Columns, arrow_schema};
use crate::data::read::{ReadError, RowReader};
use crate::data::values::{restore, type_of, values};
use crate::data::write::{METADATA_KEY, PartMetadata};
use crate::row::Fields;

/// Uncompressed bytes to decode at once, and rows at most.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_ROWS_MAX: usize = 1024;

type Builder = ParquetRecordBatchReaderBuilder<File>;

pub struct ParquetRows {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    columns: Columns,
    /// Rows decoded so far.
    rows_read: usize,
    batch: std::vec::IntoIter<Fields>,
}

impl ParquetRows {
    /// All columns of a file, or only those named that it has, in the order of the file.
    pub fn open(path: &Path, only: Option<&[String]>) -> Result<ParquetRows, ReadError> {
        let mut builder = open_builder(path)?;
        let columns = file_columns(path, &builder, only)?;
        if let Some(only) = only {
            let fields = builder.schema().fields().iter().enumerate();
            let roots = fields.filter(|(_, field)| only.contains(field.name())).map(|(index, _)| index);
            let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
            builder = builder.with_projection(mask);
        }
        let batch_rows = batch_rows(builder.metadata());
        let reader = guarded(path, || builder.with_batch_size(batch_rows).build())?;
        Ok(ParquetRows {
            path: path.to_owned(),
            reader,
            columns,
            rows_read: 0,
            batch: Vec::new().into_iter(),
        })
    }

    fn next_batch(&mut self) -> Result<Option<Vec<Fields>>, ReadError> {
        let batch = guarded(&self.path, || self.reader.next().transpose())?;
        batch.map(|batch| self.decode(&batch)).transpose()
    }

    fn decode(&mut self, batch: &RecordBatch) -> Result<Vec<Fields>, ReadError> {
        let mut rows = vec![Fields::with_capacity(self.columns.len()); batch.num_rows()];
        for ((name, kind), array) in self.columns.iter().zip(batch.columns()) {
            let column = values(array).map_err(|message| {
                let one_by_one = |row: &usize| values(&array.slice(*row, 1)).is_err();
                let row = self.rows_read + (0..array.len()).find(one_by_one).unwrap_or(0) + 1;
                unreadable(&self.path, format!("row {row}: column `{name}` {message}"))
            })?;
            for (fields, value) in rows.iter_mut().zip(column) {
                fields.insert(name.clone(), restore(value, kind));
            }
        }
        self.rows_read += rows.len();
        Ok(rows)
    }
}

impl RowReader for ParquetRows {}

impl Iterator for ParquetRows {
    type Item = Result<Fields, ReadError>;

    fn next(&mut self) -> Option<Result<Fields, ReadError>> {
        loop {
            if let Some(fields) = self.batch.next() {
                return Some(Ok(fields));
            }
            match self.next_batch() {
                Ok(Some(rows)) => self.batch = rows.into_iter(),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The rows of a file, as its footer says.
pub fn count(path: &Path) -> Result<u64, ReadError> {
    let rows = open_builder(path)?.metadata().file_metadata().num_rows();
    Ok(u64::try_from(rows).unwrap_or_default())
}

/// The columns of a file, or only those named that it has, from its schema.
pub fn columns(path: &Path, only: Option<&[String]>) -> Result<Columns, ReadError> {
    file_columns(path, &open_builder(path)?, only)
}

fn open_builder(path: &Path) -> Result<Builder, ReadError> {
    let file = File::open(path).map_err(|error| ReadError::io(path, &error))?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    guarded(path, || Builder::try_new_with_options(file, options))
}

/// The names of all columns of a file, whether they can be read or not.
pub fn names(path: &Path) -> Result<Vec<String>, ReadError> {
    Ok(open_builder(path)?.schema().fields().iter().map(|field| field.name().clone()).collect())
}

fn file_columns(path: &Path, builder: &Builder, only: Option<&[String]>) -> Result<Columns, ReadError> {
    let ours = our_columns(builder.metadata());
    let mut seen = HashSet::new();
    let mut columns = Columns::new();
    for field in builder.schema().fields() {
        let name = field.name();
        if only.is_some_and(|only| !only.contains(name)) {
            continue;
        }
        if name.is_empty() || !seen.insert(name) {
            return Err(ReadError::new(path, format!("a column's name, `{name}`, is empty or there twice")));
        }
        let known = ours.iter().find(|(known, _)| known == name).filter(|column| {
            let schema = arrow_schema(std::slice::from_ref(*column));
            schema.is_ok_and(|schema| schema.field(0).data_type() == field.data_type())
        });
        let kind = match known {
            Some((_, kind)) => kind.clone(),
            None => type_of(field.data_type())
                .map_err(|message| unreadable(path, format!("column `{name}` {message}")))?,
        };
        columns.push((name.clone(), kind));
    }
    Ok(columns)
}

/// The error of a column that a pipeline may not need at all.
fn unreadable(path: &Path, message: String) -> ReadError {
    ReadError::new(path, message).hint("if no step uses it, name the others in `columns:` and it is not read")
}

/// The columns as they were when textmill wrote the file, none for other files.
fn our_columns(metadata: &ParquetMetaData) -> Columns {
    let pairs = metadata.file_metadata().key_value_metadata().into_iter().flatten();
    let ours = pairs.filter(|pair| pair.key == METADATA_KEY).find_map(|pair| pair.value.as_deref());
    let parsed = ours.and_then(|text| serde_json::from_str::<PartMetadata>(text).ok());
    parsed.map(|metadata| metadata.columns).unwrap_or_default()
}

/// Rows per batch, so that a batch of the file's widest row group takes about [`BATCH_BYTES`].
fn batch_rows(metadata: &ParquetMetaData) -> usize {
    let row_bytes =
        metadata.row_groups().iter().map(|group| group.total_byte_size() / group.num_rows().max(1));
    let widest = row_bytes.max().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
    (BATCH_BYTES / widest.max(1)).clamp(1, BATCH_ROWS_MAX)
}

/// Calls the Parquet crate. On some damaged files version 60 panics where it should give an error
/// (lengths in the footer or in a page that contradict each other); that becomes an error here, and
/// the reader is not used again.
fn guarded<T, E: std::error::Error>(
    path: &Path,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, ReadError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ReadError::new(path, format!("cannot be read as Parquet: {error}"))),
        Err(_) => Err(ReadError::new(path, "cannot be read as Parquet: the file is damaged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Value;
    use std::sync::Arc;

    use arrow_array::builder::{Int64Builder, MapBuilder, StringBuilder};
    use arrow_array::types::Int32Type;
    use arrow_array::{
        ArrayRef, BinaryArray, Date32Array, Decimal128Array, DictionaryArray, FixedSizeBinaryArray,
        Float32Array, Float64Array, Int8Array, LargeStringArray, NullArray, StringArray, StringViewArray,
        Time32MillisecondArray, Time64MicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
        UInt64Array,
    };
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
    use parquet::file::properties::WriterProperties;

    fn write(path: &Path, columns: Vec<(&str, ArrayRef)>, compression: Compression) {
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, array)| (name, array, true)),
        )
        .unwrap();
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer =
            ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn read(path: &Path) -> Result<Vec<String>, ReadError> {
        let rows = ParquetRows::open(path, None)?;
        rows.map(|row| Ok(row?["a"].to_string())).collect()
    }

    /// One column `a`: its type, then its values as JSON, or the error without its path.
    fn check(array: ArrayRef, expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.parquet");
        write(&path, vec![("a", array)], Compression::UNCOMPRESSED);
        let read = || -> Result<Vec<String>, ReadError> {
            let mut shown = vec![columns(&path, None)?[0].1.to_string()];
            shown.extend(read(&path)?);
            Ok(shown)
        };
        let shown = read().unwrap_or_else(|error| vec![error.message]);
        assert_eq!(shown, expected);
    }

    #[test]
    fn common_types_become_json() {
        check(Arc::new(Int8Array::from(vec![Some(-3), None])), &["integer", "-3", "null"]);
        check(Arc::new(UInt64Array::from(vec![u64::MAX])), &["integer", "18446744073709551615"]);
        check(Arc::new(Float32Array::from(vec![0.5, f32::NAN])), &["number", "0.5", "null"]);
        check(Arc::new(NullArray::new(1)), &["json", "null"]);
        check(Arc::new(LargeStringArray::from(vec!["é"])), &["text", "\"é\""]);
        check(Arc::new(StringViewArray::from(vec!["a"])), &["text", "\"a\""]);
        check(Arc::new(BinaryArray::from(vec!["é".as_bytes()])), &["text", "\"é\""]);
        let dictionary: DictionaryArray<Int32Type> = vec!["x", "y", "x"].into_iter().collect();
        check(Arc::new(dictionary), &["text", "\"x\"", "\"y\"", "\"x\""]);
        let decimal = Decimal128Array::from(vec![1234, -5]).with_precision_and_scale(10, 2).unwrap();
        check(Arc::new(decimal), &["text", "\"12.34\"", "\"-0.05\""]);
        let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
        map.keys().append_value("k");
        map.values().append_value(7);
        map.append(true).unwrap();
        check(Arc::new(map.finish()), &["json", "{\"k\":7}"]);
    }

    #[test]
    fn dates_and_times_become_text() {
        check(Arc::new(Date32Array::from(vec![19_782, -1])), &["text", "\"2024-02-29\"", "\"1969-12-31\""]);
        check(Arc::new(Time32MillisecondArray::from(vec![3_723_500])), &["text", "\"01:02:03.5\""]);
        check(Arc::new(Time64MicrosecondArray::from(vec![1])), &["text", "\"00:00:00.000001\""]);
        let naive = TimestampMillisecondArray::from(vec![1_709_210_096_789]);
        check(Arc::new(naive), &["text", "\"2024-02-29T12:34:56.789\""]);
        let zoned = TimestampNanosecondArray::from(vec![1_000_000_000]).with_timezone("+02:00");
        check(Arc::new(zoned), &["text", "\"1970-01-01T00:00:01Z\""]);
        check(
            Arc::new(TimestampMillisecondArray::from(vec![i64::MAX])),
            &["row 1: column `a` has a date or time out of range"],
        );
    }

    #[test]
    fn what_json_cannot_hold_is_an_error_with_its_row() {
        let infinite = Float64Array::from(vec![1.0, f64::INFINITY]);
        check(Arc::new(infinite), &["row 2: column `a` has an infinite number, which JSON does not have"]);
        let bytes = BinaryArray::from(vec![&b"ok"[..], &[0xff]]);
        check(Arc::new(bytes), &["text", "\"ok\"", "\"data:application/octet-stream;base64,/w==\""]);
        let fixed = FixedSizeBinaryArray::try_from_iter([[0xc3_u8, 0x28]].into_iter()).unwrap();
        check(Arc::new(fixed), &["text", "\"data:application/octet-stream;base64,wyg=\""]);
    }

    #[test]
    fn every_compression_is_read_over_many_batches() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.parquet");
        let texts: Vec<String> = (0..3000).map(|n| format!("text {n}")).collect();
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::BROTLI(BrotliLevel::default()),
            Compression::LZ4_RAW,
            Compression::ZSTD(ZstdLevel::default()),
        ] {
            write(&path, vec![("a", Arc::new(StringArray::from(texts.clone())) as ArrayRef)], compression);
            let expected: Vec<String> =
                texts.iter().map(|text| Value::from(text.as_str()).to_string()).collect();
            assert_eq!(read(&path).unwrap(), expected, "{compression}");
        }
    }

    #[test]
    fn one_column_alone_and_files_that_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.parquet");
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        write(&path, vec![("left", text.clone()), ("right", text)], Compression::UNCOMPRESSED);
        let only = ["right".to_owned(), "rigth".to_owned()];
        let row = ParquetRows::open(&path, Some(&only)).unwrap().next().unwrap().unwrap();
        assert_eq!(Value::Object(row).to_string(), r#"{"right":"x"}"#);
        // What is in the others is not looked at.
        let infinite: ArrayRef = Arc::new(Float64Array::from(vec![f64::INFINITY]));
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&[0xff_u8][..]]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
        write(&path, vec![("left", infinite), ("right", text), ("end", bytes)], Compression::UNCOMPRESSED);
        assert_eq!(ParquetRows::open(&path, Some(&only)).unwrap().map(Result::unwrap).count(), 1);
        let error = ParquetRows::open(&path, None).unwrap().next().unwrap().unwrap_err();
        assert_eq!(error.message, "row 1: column `left` has an infinite number, which JSON does not have");
        assert!(error.hint.unwrap().contains("`columns:`"));
        std::fs::write(&path, "PAR1 no").unwrap();
        let error = ParquetRows::open(&path, None).err().unwrap();
        assert!(error.message.starts_with("cannot be read as Parquet: "), "{error}");
    }

    #[test]
    fn a_damaged_file_is_an_error_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.parquet");
        let texts: ArrayRef = Arc::new(StringArray::from_iter((0..50).map(|n| Some(format!("row {n}")))));
        let numbers: ArrayRef = Arc::new(Float64Array::from_iter((0..50).map(|n| Some(f64::from(n)))));
        write(&path, vec![("a", texts), ("n", numbers)], Compression::SNAPPY);
        let whole = std::fs::read(&path).unwrap();
        let mut state = 1_u64;
        let mut errors = 0;
        for _ in 0..1500 {
            // A linear congruential generator, Knuth's MMIX constants.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut damaged = whole.clone();
            let place = usize::try_from(state >> 33).unwrap() % whole.len();
            damaged[place] ^= 1 << (state >> 20 & 7);
            std::fs::write(&path, &damaged).unwrap();
            let rows = || ParquetRows::open(&path, None)?.collect::<Result<Vec<_>, _>>();
            errors += usize::from(rows().is_err());
        }
        assert!(errors > 500, "{errors}");
    }
}
