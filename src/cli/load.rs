//! From a pipeline file's path to a checked pipeline, with every problem shown on the way.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::cli::{Exit, PipelineArgs, colours, fail, print, say};
use crate::pipeline::check::{self, Pipeline, SecretUse};
use crate::pipeline::decode::{Decoded, decode};
use crate::pipeline::doubt::Doubts;
use crate::pipeline::file::PipelineFile;
use crate::pipeline::node::Node;
use crate::pipeline::render::{self, SourceMap};
use crate::pipeline::{set, yaml};
use crate::problem::{KeyPath, Place, Problem, Severity};
use crate::run::RunError;

/// A pipeline file that was read and checked.
pub struct Loaded {
    pub pipeline: Pipeline,
    pub source: Source,
}

/// The file's text and tree, for showing problems that come up later.
pub struct Source {
    pub path: PathBuf,
    pub text: String,
    pub root: Option<Node>,
    overrides: Vec<String>,
}

/// Reads and checks a pipeline file; shows all its problems. Nothing when there are errors.
pub fn load(args: &PipelineArgs, json: bool) -> Option<Loaded> {
    let bytes = match std::fs::read(&args.pipeline) {
        Ok(bytes) => bytes,
        Err(error) => {
            let path = args.pipeline.display();
            match error.kind() {
                ErrorKind::NotFound => fail(format_args!("there is no pipeline file `{path}`")),
                ErrorKind::IsADirectory => fail(format_args!("`{path}` is a folder, not a pipeline file")),
                _ => fail(format_args!("cannot read `{path}`: {error}")),
            };
            return None;
        }
    };
    let yaml::Loaded { text, root, mut problems } = yaml::load(&bytes);
    let overrides = args.sets.clone();
    let mut source = Source { path: args.pipeline.clone(), text, root, overrides };
    if let Some(root) = &mut source.root {
        for (index, argument) in args.sets.iter().enumerate() {
            problems.extend(set::apply_set(root, argument, index).err().map(|problem| *problem));
        }
    }
    let pipeline =
        source.root.as_ref().and_then(|root| checked(root, &base_of(&args.pipeline), &mut problems));
    source.show(&problems, json);
    let sound = problems.iter().all(|problem| problem.severity != Severity::Error);
    pipeline.filter(|_| sound).map(|pipeline| Loaded { pipeline, source })
}

/// Reads a file's tree and checks as much of it as could be read.
fn checked(root: &Node, base: &Path, problems: &mut Vec<Problem>) -> Option<Pipeline> {
    if let Some(problem) = check::version(root) {
        problems.push(problem);
        return None;
    }
    let Decoded { value, problems: found, doubts } = decode::<PipelineFile>(root, &KeyPath::root());
    let found: Vec<Problem> = found.into_iter().filter(|found| !follows(found, root, problems)).collect();
    problems.extend(found);
    let (pipeline, found) = check::check(value?, &Doubts::new(root, doubts), base);
    problems.extend(found);
    pipeline
}

/// The folder that a pipeline file's paths are relative to.
fn base_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

impl Source {
    /// Says why a command could not run, problems of the file at their places.
    pub fn failed(&self, error: &RunError) -> Exit {
        match error {
            RunError::Problems(problems) => {
                self.show(problems, false);
                Exit::Failed
            }
            RunError::Write(error) => {
                self.show(&[error.clone().into()], false);
                Exit::Failed
            }
            other => fail(other),
        }
    }

    /// Shows problems at their places: to stderr for people, to stdout as JSON.
    pub fn show(&self, problems: &[Problem], json: bool) {
        let name = self.path.display().to_string();
        let line_of = |path: &Path, line: usize| line_of(path, line);
        let map = SourceMap { name: &name, text: &self.text, overrides: &self.overrides, line_of: &line_of };
        if json {
            let listed = render::to_json(problems, self.root.as_ref(), &map);
            print(&format!("{listed:#}\n"));
        } else if !problems.is_empty() {
            say(render::render(problems, self.root.as_ref(), &map, colours()).trim_end());
        }
    }
}

/// Where teachers are asked, and which environment variable goes where, a line each.
pub fn destinations(pipeline: &Pipeline) -> Vec<String> {
    let pools = pipeline.file.teachers.iter().filter(|(_, teacher)| teacher.pool.is_some());
    let pools = pools.map(|(name, teacher)| {
        let endpoints = teacher.endpoints();
        let listed: Vec<String> = endpoints.iter().map(|endpoint| format!("`{}`", endpoint.name)).collect();
        let hosts: BTreeSet<String> = endpoints.iter().map(|endpoint| endpoint.api.host()).collect();
        let hosts: Vec<String> = hosts.into_iter().collect();
        format!("teacher `{name}` has the endpoints {} on {}", listed.join(", "), hosts.join(", "))
    });
    pools.chain(secrets(pipeline)).collect()
}

fn secrets(pipeline: &Pipeline) -> Vec<String> {
    let line = |secret: SecretUse| {
        format!("teacher `{}`: `{}` goes to {}", secret.teacher, secret.variable, secret.goes_to)
    };
    pipeline.secrets().into_iter().map(line).collect()
}

/// Whether a value was only read wrongly because something in it is no YAML that is read.
fn follows(problem: &Problem, root: &Node, earlier: &[Problem]) -> bool {
    let Place::Value(_) = problem.place else { return false };
    let Some(value) = root.span_of(&problem.place) else { return false };
    earlier.iter().any(|earlier| match &earlier.place {
        Place::Bytes(bytes) => value.bytes.start <= bytes.start && bytes.end <= value.bytes.end,
        _ => false,
    })
}

/// How much of another file is looked through for a line to show.
const LOOKED_BYTES_MAX: u64 = 64 << 20;

/// A line of another file, counted from 1; nothing when the file is no text up to there.
fn line_of(path: &Path, line: usize) -> Option<String> {
    let file = BufReader::new(File::open(path).ok()?.take(LOOKED_BYTES_MAX));
    let mut lines = file.lines();
    let mut found = None;
    for _ in 0..line {
        found = Some(lines.next()?.ok()?);
    }
    found
}
