//! `textmill schema`: the JSON Schema of pipeline files, to stdout.

use crate::cli::{Exit, print};
use crate::pipeline::schema;

pub fn main() -> Exit {
    print(&schema::text());
    Exit::Done
}
