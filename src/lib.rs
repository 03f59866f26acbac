//! textmill: a synthetic training-data factory.

// Tests hand over `json!(…)` values as they are written.
#![cfg_attr(test, allow(clippy::needless_pass_by_value))]

pub mod axes;
pub mod call;
pub mod clock;
pub mod data;
pub mod engine;
pub mod kit;
pub mod ops;
pub mod pipeline;
pub mod problem;
pub mod row;
pub mod shape;
pub mod store;
pub mod teacher;
pub mod template;
pub mod text;
