//! Axes as the pipeline file has them: plain structs, read with positions, the source of the schema.
//!
//! Nothing is checked here beyond types; what goes together is `kind`'s business.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Rows drawn from axes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "sample", deny_unknown_fields)]
pub struct SampleFile {
    /// How many rows to draw; with `grid`, how many of its first combinations.
    pub rows: Option<u64>,
    /// Every combination of the axes once, in a fixed order (the last axis changes fastest), instead of
    /// random draws.
    #[serde(default)]
    pub grid: bool,
    /// When to stop drawing.
    pub until: Option<UntilFile>,
    /// The axes, by name. Each makes a field of its name.
    pub draw: DrawFile,
}

/// When to stop drawing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "until", deny_unknown_fields)]
pub struct UntilFile {
    /// Stop when so many rows are kept.
    pub kept: Option<u64>,
    /// Never draw more rows than this.
    pub tried: Option<u64>,
}

/// Axes by name; each makes a field of its name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DrawFile(pub IndexMap<String, AxisFile>);

/// One axis: a list of values, each as likely as any other, or a map that says more.
#[derive(Clone, Debug, PartialEq)]
pub enum AxisFile {
    List(Vec<Value>),
    Map(Box<AxisMap>),
}

/// What an axis draws. Exactly one of `values`, `from`, `weights`, `between`, `tree`, `given`, `some` and
/// `chance` says the kind; the other keys refine it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename = "axis", deny_unknown_fields)]
pub struct AxisMap {
    /// A list of values, each as likely as any other.
    pub values: Option<Vec<Value>>,
    /// A file of values: the lines of a text file, or a column of a CSV, JSONL or Parquet file. They are
    /// drawn as texts; blank ones are left out.
    pub from: Option<String>,
    /// With `from`: the column to take.
    pub column: Option<String>,
    /// With `from`: several columns to take from one line; each makes a field of its name.
    pub columns: Option<Vec<String>>,
    /// With `from`: only lines whose column (the key) equals a field of the row (the value).
    #[serde(rename = "where")]
    pub matching: Option<IndexMap<String, String>>,
    /// Values with their weights: a weight of 3 is drawn three times as often as one of 1.
    pub weights: Option<IndexMap<String, f64>>,
    /// A number from the first to the last: whole (both ends may come) if both are, else any number
    /// below the last.
    #[schemars(with = "Option<(f64, f64)>")]
    pub between: Option<(NumberFile, NumberFile)>,
    /// With `between`: the distance of the numbers that may come.
    #[schemars(with = "Option<f64>")]
    pub step: Option<NumberFile>,
    /// A tree of topics: maps, and lists of leaves at their ends. Draws a leaf, each as likely as any
    /// other, as the list of names on the way to it.
    pub tree: Option<TreeFile>,
    /// With `tree`: the fields to make, one for each level, instead of one list.
    pub levels: Option<Vec<String>>,
    /// The field that the draw depends on: another axis', or one that the row has.
    pub given: Option<String>,
    /// With `given`: what to draw from, by the field's value.
    pub of: Option<IndexMap<String, AxisFile>>,
    /// With `given` or `where`: what to draw from for all other values.
    #[serde(rename = "else")]
    pub other: Option<AxisFile>,
    /// A list of values of which each is taken or not, by `chance`; makes a list.
    pub some: Option<Vec<Value>>,
    /// The probability of `true`, or of each value of `some`.
    pub chance: Option<f64>,
    /// Draws so many different values (or from so many to so many) and makes a list.
    pub count: Option<CountFile>,
    /// Draws nothing that the field (or one of the fields) named here has.
    pub not: Option<NamesFile>,
    /// `false` draws each value once in a run: without replacement.
    pub replace: Option<bool>,
}

impl AxisFile {
    /// The files that the axis and those nested in it draw from, as the pipeline file names them.
    pub fn files(&self) -> Vec<&str> {
        let AxisFile::Map(map) = self else { return Vec::new() };
        let nested = map.of.iter().flat_map(IndexMap::values).chain(&map.other);
        map.from.as_deref().into_iter().chain(nested.flat_map(AxisFile::files)).collect()
    }
}

/// A number, with or without a fraction as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberFile(pub serde_json::Number);

/// A tree of names with lists of leaves at its ends.
#[derive(Clone, Debug, PartialEq)]
pub enum TreeFile {
    Branches(IndexMap<String, TreeFile>),
    Leaves(Vec<Value>),
}

/// How many: the least and the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountFile {
    pub min: u64,
    pub max: u64,
}

/// One name or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamesFile(pub Vec<String>);

const AXIS: &str = "a list of values, or a map such as `{ from: topics.csv, column: topic }`";
const TREE: &str = "a map of branches, or a list of leaves";
const COUNT: &str = "a whole number, or two such as `[1, 3]`";
const NAMES: &str = "the name of a field, or a list of names";

struct AxisVisitor;

impl<'de> Visitor<'de> for AxisVisitor {
    type Value = AxisFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(AXIS)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<AxisFile, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(AxisFile::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<AxisFile, A::Error> {
        AxisMap::deserialize(MapAccessDeserializer::new(entries)).map(|map| AxisFile::Map(Box::new(map)))
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = TreeFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TREE)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<TreeFile, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(TreeFile::Leaves)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<TreeFile, A::Error> {
        IndexMap::deserialize(MapAccessDeserializer::new(entries)).map(TreeFile::Branches)
    }
}

struct CountVisitor;

impl<'de> Visitor<'de> for CountVisitor {
    type Value = CountFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(COUNT)
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<CountFile, E> {
        Ok(CountFile { min: count, max: count })
    }

    fn visit_i64<E: Error>(self, count: i64) -> Result<CountFile, E> {
        let count = u64::try_from(count).map_err(|_| E::custom("a count cannot be negative"))?;
        self.visit_u64(count)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<CountFile, A::Error> {
        let ends: Vec<u64> = Vec::deserialize(SeqAccessDeserializer::new(items))?;
        let [min, max] = ends.as_slice() else { return Err(A::Error::invalid_length(ends.len(), &self)) };
        Ok(CountFile { min: *min, max: *max })
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = NamesFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<NamesFile, E> {
        Ok(NamesFile(vec![name.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<NamesFile, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(NamesFile)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = NumberFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number in plain digits")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<NumberFile, E> {
        Ok(NumberFile(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<NumberFile, E> {
        Ok(NumberFile(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<NumberFile, E> {
        let number = serde_json::Number::from_f64(number);
        number.map(NumberFile).ok_or_else(|| E::custom("a number must be finite"))
    }
}

/// Reads a union by what stands there: serde's own `untagged` would lose the places of problems.
macro_rules! read_by_visitor {
    ($($file:ident by $visitor:ident,)*) => {$(
        impl<'de> Deserialize<'de> for $file {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$file, D::Error> {
                deserializer.deserialize_any($visitor)
            }
        }
    )*};
}

read_by_visitor! {
    AxisFile by AxisVisitor,
    TreeFile by TreeVisitor,
    CountFile by CountVisitor,
    NamesFile by NamesVisitor,
    NumberFile by NumberVisitor,
}

/// A union's schema: any of its forms.
macro_rules! schema_of_forms {
    ($($file:ident, $name:literal, $words:expr, [$($form:ty),*];)*) => {$(
        impl JsonSchema for $file {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let forms = [$(generator.subschema_for::<$form>()),*];
                json_schema!({ "description": $words, "anyOf": forms })
            }
        }
    )*};
}

schema_of_forms! {
    AxisFile, "axis_or_list", AXIS, [Vec<Value>, AxisMap];
    TreeFile, "tree", TREE, [IndexMap<String, TreeFile>, Vec<Value>];
    CountFile, "count", COUNT, [u64, (u64, u64)];
    NamesFile, "names", NAMES, [String, Vec<String>];
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(axis: &Value, expected: Result<AxisFile, &str>) {
        let found = AxisFile::deserialize(axis).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{axis}");
    }

    #[test]
    fn forms_are_told_apart_by_what_stands_there() {
        check(&json!([1, "a"]), Ok(AxisFile::List(vec![json!(1), json!("a")])));
        let map = AxisMap { count: Some(CountFile { min: 1, max: 3 }), ..AxisMap::default() };
        check(&json!({"count": [1, 3]}), Ok(AxisFile::Map(Box::new(map))));
        let map = AxisMap { not: Some(NamesFile(vec!["a".to_owned()])), ..AxisMap::default() };
        check(&json!({"not": "a"}), Ok(AxisFile::Map(Box::new(map))));
        check(&json!("easy"), Err(&format!("invalid type: string \"easy\", expected {AXIS}")));
        check(&json!({"count": [1]}), Err(&format!("invalid length 1, expected {COUNT}")));
        check(&json!({"count": -1}), Err("a count cannot be negative"));
        let found = AxisFile::deserialize(&json!({"form": "x"})).unwrap_err().to_string();
        assert!(found.starts_with("unknown field `form`, expected one of `values`, `from`"), "{found}");
    }

    #[test]
    fn the_schema_names_every_form() {
        let schema = schemars::schema_for!(DrawFile);
        let text = schema.as_value().to_string();
        for word in ["axis_or_list", "\"where\"", "\"else\"", "\"tree\"", "\"between\""] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
