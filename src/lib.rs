//! textmill: a synthetic training-data factory. This page is the map of the code.
//!
//! A pipeline file says what to write and how to judge it; teacher models write it; what survives
//! becomes a Parquet dataset. A run goes like this: [`cli`] reads the command line and has [`pipeline`]
//! load and check the file; [`run`] opens the store, starts the teachers, builds the steps' operators
//! ([`ops`]) and feeds the source's rows to the [`engine`]; operators that ask go through [`call`], which
//! looks in the [`store`] first and keeps every reply there before anybody sees it; [`data`] writes the
//! rows that come out, and the dataset is published in one step.
//!
//! Where things are, each using only what stands below it (`tests/it/tidy.rs` holds that):
//!
//! - [`cli`]: one file per command. The only place that prints and reads the environment.
//! - [`run`]: one run, put together. The command line starts runs here and nowhere else.
//! - [`engine`]: rows through steps, order where it matters, the balance. Knows no file, teacher, database.
//! - [`pipeline`]: the file: positions, structs, the check, problems as they are shown. Opens no connection.
//! - [`ops`]: one file per operator: config, doc, code, tests. `ops/mod.rs` is the closed list.
//! - [`kit`]: what operators are given.
//! - [`axes`]: rows drawn from lists, files, trees; every choice a function of seed, epoch, row and name.
//! - [`shape`]: the shape of structured answers.
//! - [`call`]: the sequence of a call: key, store, single flight, budget, gate, send, store, settle.
//! - [`teacher`]: the only place that knows HTTP and the providers' JSON; limits; the fake teacher.
//! - [`store`]: the only place that knows the database.
//! - [`data`]: the only place that knows Arrow, Parquet, CSV, JSONL.
//! - [`model`]: the only place that runs a neural network: vectors of texts from an ONNX file.
//! - [`template`], [`text`]: Jinja, and pure algorithms on texts.
//! - [`problem`], [`row`], [`clock`]: the words that all of the above share.
//!
//! No plugin registry, no trait for a second database, no query planner: rows inside, Arrow at the edge.

// Tests hand over `json!(…)` values as they are written.
#![cfg_attr(test, allow(clippy::needless_pass_by_value))]

pub mod axes;
pub mod call;
pub mod cli;
pub mod clock;
pub mod data;
pub mod engine;
pub mod kit;
pub mod model;
pub mod ops;
pub mod pipeline;
pub mod problem;
pub mod row;
pub mod run;
pub mod shape;
pub mod store;
pub mod teacher;
pub mod template;
pub mod text;
