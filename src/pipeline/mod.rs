//! The pipeline file: from its bytes to typed structs, with every problem found on the way.
//!
//! `yaml` turns text into a tree of `node`s that know where they were written, `set` lays `--set`
//! values over it, `decode` turns it into any serde type, `check` looks at what it says (`doubt` has what
//! could not be read), and `render` shows problems in the file's
//! own lines. Nothing here opens files, reads the environment, prints or starts anything.

pub mod budget;
pub mod check;
pub mod decode;
pub mod doubt;
mod fault;
pub mod file;
#[cfg(test)]
mod fuzz;
mod locate;
pub mod node;
pub mod pool;
mod reader;
pub mod render;
pub mod schema;
pub mod set;
pub mod source;
mod stand_in;
#[cfg(test)]
mod tests;
pub mod yaml;

/// A pipeline file is written by hand; anything larger is data and belongs in a data file.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// How deep lists and maps may be nested.
pub const DEPTH_MAX: usize = 64;
/// How many values and keys a file may have.
pub const NODES_MAX: usize = 100_000;
/// After so many problems of one kind of check the rest is not looked for.
pub const PROBLEMS_MAX: usize = 100;
