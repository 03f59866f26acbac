//! Pipelines from text, for this module's tests only.

use std::path::Path;

use crate::pipeline::check::{self, Pipeline};
use crate::pipeline::doubt::Doubts;
use crate::pipeline::file::PipelineFile;
use crate::pipeline::{decode, yaml};
use crate::problem::KeyPath;

/// A pipeline that asks nobody real: `rest` is its source, steps and tests.
pub fn pipeline(rest: &str) -> Pipeline {
    let text = format!(
        "textmill: 1\nname: stories\nteachers:\n  writer:\n    openai: {{ url: \"http://127.0.0.1:9/v1\", model: m }}\n\
         \x20   price: {{ input: 1, output: 2 }}\nsave: {{ parquet: out }}\n{rest}"
    );
    let root = yaml::load(text.as_bytes()).root.expect("it parses");
    let read = decode::decode::<PipelineFile>(&root, &KeyPath::root());
    assert!(read.problems.is_empty(), "{:?}", read.problems);
    let (pipeline, more) = check::check(read.value.unwrap(), &Doubts::default(), Path::new("."));
    pipeline.unwrap_or_else(|| panic!("{more:?}"))
}
