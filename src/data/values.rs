//! From Arrow arrays, as Parquet files give them, to JSON values and textmill's types.
//!
//! The Arrow schema that writers hide in a file's metadata is left aside, so only types that Parquet
//! itself has arrive here. What JSON has no word for becomes text: decimals as digits, dates and
//! times as RFC 3339 has them (UTC with a `Z`; without an offset when the file gives no zone).
//! A NaN is null, as it is how data frames write a missing number.

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Decimal256Type, Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_cast::cast;
use arrow_schema::{DataType, TimeUnit};
use base64::prelude::{BASE64_STANDARD, Engine};
use jiff::civil::Time;
use jiff::{SignedDuration, Timestamp};

use crate::row::{Fields, Type, Value};

/// The type of a Parquet column; the error is a sentence without the column's name.
pub(crate) fn type_of(kind: &DataType) -> Result<Type, String> {
    use DataType::{
        Binary, Boolean, Date32, Decimal128, Decimal256, FixedSizeBinary, Float16, Float32, Float64, Int8,
        Int16, Int32, Int64, List, Map, Null, Struct, Time32, Time64, UInt8, UInt16, UInt32, UInt64, Utf8,
    };
    Ok(match kind {
        Boolean => Type::Boolean,
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => Type::Integer,
        Float16 | Float32 | Float64 => Type::Number,
        Utf8 | Binary | FixedSizeBinary(_) | Decimal128(..) | Decimal256(..) | Date32 => Type::Text,
        Time32(_) | Time64(_) | DataType::Timestamp(..) => Type::Text,
        Null => Type::Json,
        List(item) => Type::List(Box::new(type_of(item.data_type())?)),
        Struct(fields) => {
            let field =
                |field: &arrow_schema::FieldRef| Ok((field.name().clone(), type_of(field.data_type())?));
            Type::Object(fields.iter().map(field).collect::<Result<_, String>>()?)
        }
        Map(entries, _) => match entries.data_type() {
            Struct(pair) if pair.len() == 2 && *pair[0].data_type() == Utf8 => {
                type_of(pair[1].data_type())?;
                Type::Json
            }
            _ => return Err("is a map whose keys are not text".to_owned()),
        },
        other => return Err(format!("has the type {other}, which cannot be read")),
    })
}

/// All values of an array; the error is a sentence without the column's name.
pub(crate) fn values(array: &ArrayRef) -> Result<Vec<Value>, String> {
    match array.data_type() {
        DataType::Null => Ok(vec![Value::Null; array.len()]),
        DataType::Boolean => Ok(array.as_boolean().iter().map(Value::from).collect()),
        DataType::UInt64 => Ok(array.as_primitive::<UInt64Type>().iter().map(Value::from).collect()),
        kind if kind.is_integer() => Ok(widened(array, &DataType::Int64)?
            .as_primitive::<Int64Type>()
            .iter()
            .map(Value::from)
            .collect()),
        kind if kind.is_floating() => {
            widened(array, &DataType::Float64)?.as_primitive::<Float64Type>().iter().map(number).collect()
        }
        DataType::Utf8 => Ok(array.as_string::<i32>().iter().map(Value::from).collect()),
        DataType::Binary => Ok(array.as_binary::<i32>().iter().map(bytes).collect()),
        DataType::FixedSizeBinary(_) => Ok(array.as_fixed_size_binary().iter().map(bytes).collect()),
        DataType::Decimal128(..) => {
            let decimals = array.as_primitive::<Decimal128Type>();
            Ok(by_row(array, |row| decimals.value_as_string(row)))
        }
        DataType::Decimal256(..) => {
            let decimals = array.as_primitive::<Decimal256Type>();
            Ok(by_row(array, |row| decimals.value_as_string(row)))
        }
        DataType::Date32 => {
            array.as_primitive::<Date32Type>().iter().map(|days| or_null(days, date)).collect()
        }
        DataType::Time32(unit) | DataType::Time64(unit) => {
            let time = |count| time_of_day(count, *unit);
            whole_numbers(array)?
                .as_primitive::<Int64Type>()
                .iter()
                .map(|count| or_null(count, time))
                .collect()
        }
        DataType::Timestamp(unit, zone) => {
            let stamp = |count| timestamp(count, *unit, zone.is_some());
            whole_numbers(array)?
                .as_primitive::<Int64Type>()
                .iter()
                .map(|count| or_null(count, stamp))
                .collect()
        }
        DataType::List(_) => lists(array),
        DataType::Struct(_) => objects(array),
        DataType::Map(..) => maps(array),
        other => Err(format!("has the type {other}, which cannot be read")),
    }
}

fn widened(array: &ArrayRef, kind: &DataType) -> Result<ArrayRef, String> {
    cast(array, kind).map_err(|error| error.to_string())
}

/// Times and timestamps as the counts that they are stored as.
fn whole_numbers(array: &ArrayRef) -> Result<ArrayRef, String> {
    match array.data_type() {
        DataType::Time32(_) => widened(&widened(array, &DataType::Int32)?, &DataType::Int64),
        _ => widened(array, &DataType::Int64),
    }
}

fn by_row(array: &ArrayRef, text: impl Fn(usize) -> String) -> Vec<Value> {
    (0..array.len()).map(|row| if array.is_null(row) { Value::Null } else { text(row).into() }).collect()
}

fn or_null<T>(value: Option<T>, text: impl Fn(T) -> Result<String, String>) -> Result<Value, String> {
    value.map_or(Ok(Value::Null), |value| text(value).map(Value::from))
}

fn number(value: Option<f64>) -> Result<Value, String> {
    match value {
        Some(value) if value.is_infinite() => {
            Err("has an infinite number, which JSON does not have".to_owned())
        }
        value => Ok(value.filter(|value| !value.is_nan()).map_or(Value::Null, Value::from)),
    }
}

/// Bytes that are no text come as a data URL (RFC 2397): JSON has texts only, and this one says what it is.
fn bytes(value: Option<&[u8]>) -> Value {
    let text = |bytes| match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("data:application/octet-stream;base64,{}", BASE64_STANDARD.encode(bytes)),
    };
    value.map_or(Value::Null, |bytes| Value::from(text(bytes)))
}

fn date(days: i32) -> Result<String, String> {
    let timestamp = Timestamp::from_second(i64::from(days) * 86_400).map_err(|_| out_of_range())?;
    Ok(timestamp.strftime("%Y-%m-%d").to_string())
}

fn timestamp(count: i64, unit: TimeUnit, utc: bool) -> Result<String, String> {
    let time = match unit {
        TimeUnit::Second => Timestamp::from_second(count),
        TimeUnit::Millisecond => Timestamp::from_millisecond(count),
        TimeUnit::Microsecond => Timestamp::from_microsecond(count),
        TimeUnit::Nanosecond => Timestamp::from_nanosecond(i128::from(count)),
    };
    let text = time.map_err(|_| out_of_range())?.to_string();
    Ok(if utc { text } else { text.trim_end_matches('Z').to_owned() })
}

fn time_of_day(count: i64, unit: TimeUnit) -> Result<String, String> {
    let since_midnight = match unit {
        TimeUnit::Second => SignedDuration::from_secs(count),
        TimeUnit::Millisecond => SignedDuration::from_millis(count),
        TimeUnit::Microsecond => SignedDuration::from_micros(count),
        TimeUnit::Nanosecond => SignedDuration::from_nanos(count),
    };
    let time = Time::midnight().checked_add(since_midnight).map_err(|_| out_of_range())?;
    Ok(time.to_string())
}

fn out_of_range() -> String {
    "has a date or time out of range".to_owned()
}

fn lists(array: &ArrayRef) -> Result<Vec<Value>, String> {
    let lists = array.as_list::<i32>();
    let item = |row| values(&lists.value(row)).map(Value::Array);
    (0..lists.len()).map(|row| if lists.is_null(row) { Ok(Value::Null) } else { item(row) }).collect()
}

fn objects(array: &ArrayRef) -> Result<Vec<Value>, String> {
    let objects = array.as_struct();
    let mut rows: Vec<Fields> = vec![Fields::new(); objects.len()];
    for (name, column) in objects.column_names().into_iter().zip(objects.columns()) {
        for (row, value) in rows.iter_mut().zip(values(column)?) {
            row.insert(name.to_owned(), value);
        }
    }
    let value = |(row, fields)| if objects.is_null(row) { Value::Null } else { Value::Object(fields) };
    Ok(rows.into_iter().enumerate().map(value).collect())
}

fn maps(array: &ArrayRef) -> Result<Vec<Value>, String> {
    let maps = array.as_map();
    let object = |row| {
        let entries = maps.value(row);
        let mut fields = Fields::new();
        for (key, value) in values(entries.column(0))?.into_iter().zip(values(entries.column(1))?) {
            let Value::String(key) = key else { return Err("has a map key that is not text".to_owned()) };
            if let Some((key, _)) = fields.get_key_value(&key) {
                return Err(format!("has a map with the key `{key}` twice"));
            }
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    };
    (0..maps.len()).map(|row| if maps.is_null(row) { Ok(Value::Null) } else { object(row) }).collect()
}

/// Undoes what saving did: JSON text becomes the value that it was made of.
///
/// A text that is no JSON is left as it is, for files that another tool changed since.
pub(crate) fn restore(value: Value, kind: &Type) -> Value {
    match (kind, value) {
        (Type::Json, Value::String(text)) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        (Type::Object(fields), Value::String(text)) if fields.is_empty() => {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        }
        (Type::List(item), Value::Array(values)) => {
            Value::Array(values.into_iter().map(|value| restore(value, item)).collect())
        }
        (Type::Object(fields), Value::Object(map)) => {
            let known = |name: &str| fields.iter().find(|(known, _)| known == name);
            let entry = |(name, value): (String, Value)| match known(&name) {
                Some((_, kind)) => (name, restore(value, kind)),
                None => (name, value),
            };
            Value::Object(map.into_iter().map(entry).collect())
        }
        (_, value) => value,
    }
}
