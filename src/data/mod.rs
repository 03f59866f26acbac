//! Data at the edge: the only place that knows Arrow, Parquet, CSV and JSONL.
//!
//! Inside textmill a row is a set of named JSON values. [`read`] makes such rows from files, [`reference`]
//! items of benchmarks, [`columns`] and [`mod@write`] make Parquet parts of rows, [`publish`] puts finished
//! parts in place with one atomic step, [`manifest`] and [`card`] say how they were made. Nothing here decides
//! about rows, calls a teacher or knows a pipeline file.

pub mod card;
pub mod columns;
pub mod hash;
pub mod manifest;
pub mod publish;
pub mod read;
pub mod reference;
mod values;
pub mod write;

/// Version of the dataset folder's layout, in `manifest.json` and in the metadata of every part.
pub const FORMAT: u32 = 1;

/// Field names that begin so are textmill's own: sources may not have them.
pub const RESERVED_PREFIX: &str = "textmill_";

/// Whether a field name is kept for textmill's own columns.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
}
