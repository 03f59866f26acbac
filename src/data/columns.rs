//! Columns: from textmill's types to an Arrow schema, and from rows to Arrow arrays.
//!
//! | type | Arrow, always nullable |
//! |---|---|
//! | text | Utf8 |
//! | integer, number, boolean | Int64, Float64, Boolean |
//! | list | List |
//! | object | Struct; a missing name is saved as null |
//! | json, object without names | Utf8, holding JSON text |
//!
//! An integer in a number column comes back as a float. The way back, from Arrow arrays to rows, is `values.rs`.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, ListArray, RecordBatch, StructArray};
use arrow_buffer::{NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema, SchemaRef};

use crate::row::{Fields, Type, Value};

/// The columns of a dataset, in order.
pub type Columns = Vec<(String, Type)>;

/// Most bytes of one row's values: 256 MiB. JSON text may grow sixfold by escapes, and a batch of
/// Arrow text holds 2 GiB.
pub const ROW_BYTES_MAX: usize = 256 << 20;

/// Why columns or a row cannot be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnError {
    /// There are none.
    NoColumns,
    /// The name is there twice, in the row or in one of its objects.
    Duplicate { name: String },
    /// [`Type::fits`] would have said no.
    Misfit { column: String, expected: Type },
    /// The row's values take more than [`ROW_BYTES_MAX`].
    TooLarge { column: String },
    /// Arrow refused what was built; not to be expected.
    Arrow(String),
}

impl fmt::Display for ColumnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnError::NoColumns => f.write_str("there is no column to save"),
            ColumnError::Duplicate { name } => write!(f, "two columns are named `{name}`"),
            ColumnError::Misfit { column, expected } => {
                write!(f, "a value of column `{column}` does not fit its type, {expected}")
            }
            ColumnError::TooLarge { column } => {
                write!(f, "with column `{column}` the row has over {} MiB of values", ROW_BYTES_MAX >> 20)
            }
            ColumnError::Arrow(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for ColumnError {}

impl From<ArrowError> for ColumnError {
    fn from(error: ArrowError) -> ColumnError {
        ColumnError::Arrow(error.to_string())
    }
}

/// The Arrow schema that columns are saved with.
pub(crate) fn arrow_schema(columns: &[(String, Type)]) -> Result<SchemaRef, ColumnError> {
    if columns.is_empty() {
        return Err(ColumnError::NoColumns);
    }
    check_names(columns)?;
    Ok(Arc::new(Schema::new(arrow_fields(columns))))
}

fn check_names(columns: &[(String, Type)]) -> Result<(), ColumnError> {
    let mut seen = HashSet::new();
    for (name, kind) in columns {
        if !seen.insert(name) {
            return Err(ColumnError::Duplicate { name: name.clone() });
        }
        let mut inner = kind;
        while let Type::List(item) = inner {
            inner = item;
        }
        if let Type::Object(fields) = inner {
            check_names(fields)?;
        }
    }
    Ok(())
}

fn arrow_fields(columns: &[(String, Type)]) -> arrow_schema::Fields {
    columns.iter().map(|(name, kind)| Field::new(name, arrow_type(kind), true)).collect()
}

/// The element of a list has the name that the Parquet format prescribes.
fn list_field(item: &Type) -> FieldRef {
    Arc::new(Field::new("element", arrow_type(item), true))
}

fn arrow_type(kind: &Type) -> DataType {
    match kind {
        Type::Text | Type::Json => DataType::Utf8,
        Type::Integer => DataType::Int64,
        Type::Number => DataType::Float64,
        Type::Boolean => DataType::Boolean,
        Type::List(item) => DataType::List(list_field(item)),
        Type::Object(fields) if fields.is_empty() => DataType::Utf8,
        Type::Object(fields) => DataType::Struct(arrow_fields(fields)),
    }
}

/// Gathers rows into one batch of Arrow arrays.
pub(crate) struct BatchBuilder {
    columns: Columns,
    schema: SchemaRef,
    builders: Vec<Builder>,
    rows: usize,
    bytes: usize,
}

impl BatchBuilder {
    pub(crate) fn new(columns: Columns) -> Result<BatchBuilder, ColumnError> {
        let schema = arrow_schema(&columns)?;
        let builders = columns.iter().map(|(_, kind)| Builder::new(kind)).collect();
        Ok(BatchBuilder { columns, schema, builders, rows: 0, bytes: 0 })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Roughly, what the rows in it take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row: the fields that are columns; a missing one is null. A row that is refused leaves
    /// no trace, because all its values are looked at before the first one is added.
    pub(crate) fn push(&mut self, fields: &Fields) -> Result<(), ColumnError> {
        let mut row_bytes = 0;
        for (name, kind) in &self.columns {
            let Some(value) = fields.get(name) else { continue };
            if !kind.fits(value) {
                return Err(ColumnError::Misfit { column: name.clone(), expected: kind.clone() });
            }
            row_bytes += weigh(value);
            if row_bytes > ROW_BYTES_MAX {
                return Err(ColumnError::TooLarge { column: name.clone() });
            }
        }
        for ((name, kind), builder) in self.columns.iter().zip(&mut self.builders) {
            let misfit = || ColumnError::Misfit { column: name.clone(), expected: kind.clone() };
            builder.append(fields.get(name).unwrap_or(&Value::Null)).ok_or_else(misfit)?;
        }
        self.rows += 1;
        self.bytes += row_bytes;
        Ok(())
    }

    /// The rows so far as one batch; the builder starts anew.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch, ColumnError> {
        self.rows = 0;
        self.bytes = 0;
        let arrays = self.builders.iter_mut().map(Builder::finish).collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new(self.schema.clone(), arrays)?)
    }
}

fn weigh(value: &Value) -> usize {
    8 + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weigh).sum(),
        Value::Object(map) => map.iter().map(|(name, value)| name.len() + weigh(value)).sum(),
    }
}

/// Gathers the values of one column, or of one level of a nested one.
enum Builder {
    Text(StringBuilder),
    Json(StringBuilder),
    Integer(Int64Builder),
    Number(Float64Builder),
    Boolean(BooleanBuilder),
    List { field: FieldRef, item: Box<Builder>, ends: Vec<i32>, count: i32, nulls: NullBufferBuilder },
    Object { fields: arrow_schema::Fields, inner: Vec<Builder>, nulls: NullBufferBuilder },
}

impl Builder {
    fn new(kind: &Type) -> Builder {
        match kind {
            Type::Text => Builder::Text(StringBuilder::new()),
            Type::Json => Builder::Json(StringBuilder::new()),
            Type::Integer => Builder::Integer(Int64Builder::new()),
            Type::Number => Builder::Number(Float64Builder::new()),
            Type::Boolean => Builder::Boolean(BooleanBuilder::new()),
            Type::List(item) => Builder::List {
                field: list_field(item),
                item: Box::new(Builder::new(item)),
                ends: vec![0],
                count: 0,
                nulls: NullBufferBuilder::new(0),
            },
            Type::Object(fields) if fields.is_empty() => Builder::Json(StringBuilder::new()),
            Type::Object(fields) => Builder::Object {
                fields: arrow_fields(fields),
                inner: fields.iter().map(|(_, kind)| Builder::new(kind)).collect(),
                nulls: NullBufferBuilder::new(0),
            },
        }
    }

    /// Adds a value; `None` if it is of another type.
    fn append(&mut self, value: &Value) -> Option<()> {
        match self {
            Builder::Text(builder) => builder.append_option(or_null(value, Value::as_str)?),
            Builder::Json(builder) if value.is_null() => builder.append_null(),
            Builder::Json(builder) => builder.append_value(value.to_string()),
            Builder::Integer(builder) => builder.append_option(or_null(value, Value::as_i64)?),
            Builder::Number(builder) => builder.append_option(or_null(value, Value::as_f64)?),
            Builder::Boolean(builder) => builder.append_option(or_null(value, Value::as_bool)?),
            Builder::List { item, ends, count, nulls, .. } => {
                let items = or_null(value, Value::as_array)?;
                for value in items.into_iter().flatten() {
                    item.append(value)?;
                    *count += 1;
                }
                ends.push(*count);
                nulls.append(items.is_some());
            }
            Builder::Object { fields, inner, nulls } => {
                let map = or_null(value, Value::as_object)?;
                for (field, builder) in fields.iter().zip(inner) {
                    let value = map.and_then(|map| map.get(field.name()));
                    builder.append(value.unwrap_or(&Value::Null))?;
                }
                nulls.append(map.is_some());
            }
        }
        Some(())
    }

    fn finish(&mut self) -> Result<ArrayRef, ColumnError> {
        Ok(match self {
            Builder::Text(builder) | Builder::Json(builder) => Arc::new(builder.finish()),
            Builder::Integer(builder) => Arc::new(builder.finish()),
            Builder::Number(builder) => Arc::new(builder.finish()),
            Builder::Boolean(builder) => Arc::new(builder.finish()),
            Builder::List { field, item, ends, count, nulls } => {
                *count = 0;
                let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(ends, vec![0])));
                Arc::new(ListArray::try_new(field.clone(), offsets, item.finish()?, nulls.finish())?)
            }
            Builder::Object { fields, inner, nulls } => {
                let arrays = inner.iter_mut().map(Builder::finish).collect::<Result<_, _>>()?;
                Arc::new(StructArray::try_new(fields.clone(), arrays, nulls.finish())?)
            }
        })
    }
}

/// `Some(None)` for null, `None` for a value of another type.
fn or_null<'a, T>(value: &'a Value, read: impl Fn(&'a Value) -> Option<T>) -> Option<Option<T>> {
    if value.is_null() { Some(None) } else { read(value).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        let Value::Object(fields) = value else { panic!("{value} is no object") };
        fields
    }

    #[test]
    fn a_row_that_is_refused_leaves_no_trace() {
        let columns = vec![("a".to_owned(), Type::Text), ("n".to_owned(), Type::Integer)];
        let mut builder = BatchBuilder::new(columns).unwrap();
        builder.push(&fields(json!({"a": "x", "n": 1}))).unwrap();
        let error = builder.push(&fields(json!({"a": "y", "n": 1.5}))).unwrap_err();
        assert_eq!(error.to_string(), "a value of column `n` does not fit its type, integer");
        builder.push(&fields(json!({"other": "passed over"}))).unwrap();
        let batch = builder.finish().unwrap();
        assert_eq!((batch.num_rows(), batch.column(0).null_count()), (2, 1));
        assert_eq!((builder.rows(), builder.finish().unwrap().num_rows()), (0, 0));
    }

    #[test]
    fn names_are_checked_at_every_level() {
        let check = |columns: Columns, expected: &str| {
            assert_eq!(arrow_schema(&columns).unwrap_err().to_string(), expected);
        };
        let twice = vec![("x".to_owned(), Type::Text), ("x".to_owned(), Type::Text)];
        check(vec![], "there is no column to save");
        check(twice.clone(), "two columns are named `x`");
        let nested = Type::List(Box::new(Type::Object(twice)));
        check(vec![("a".to_owned(), nested)], "two columns are named `x`");
    }

    #[test]
    fn a_row_is_bounded() {
        let mut builder = BatchBuilder::new(vec![("a".to_owned(), Type::Text)]).unwrap();
        let error = builder.push(&fields(json!({"a": "x".repeat(ROW_BYTES_MAX)}))).unwrap_err();
        assert_eq!(error, ColumnError::TooLarge { column: "a".into() });
    }
}
