//! What a run reads: the files that rows, draws and prompts come from, by their contents.
//!
//! Kept in the run's folder from its start, so that a run that resumes another, even a killed one, can say
//! what changed in between. Decides nothing: replies that no longer fit are asked anew by themselves.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::data::hash::file_hash;
use crate::data::manifest::SourceRecord;
use crate::data::read::ReadError;
use crate::pipeline::check::Pipeline;
use crate::pipeline::source::open_files;
use crate::problem::{Place, Problem};
use crate::run::{RunError, run_folder, unfinished_run};
use crate::store::Store;

const FILE: &str = "sources.json";

/// The files that a pipeline reads, with their hashes.
pub fn read(pipeline: &Pipeline) -> Result<Vec<SourceRecord>, ReadError> {
    let base = &pipeline.base;
    let source = &pipeline.file.source;
    let mut paths: Vec<PathBuf> = Vec::new();
    if let Some(files) = &source.files {
        paths.extend(open_files(files, base)?.paths().map(Path::to_owned));
    }
    let axes = source.sample.iter().flat_map(|sample| sample.draw.0.values());
    paths.extend(axes.flat_map(|axis| axis.files()).map(|path| base.join(path)));
    paths.extend(pipeline.files.iter().cloned());
    let mut seen = HashSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    let record = |path: &PathBuf| {
        let name = path.strip_prefix(base).unwrap_or(path).display().to_string();
        Ok(SourceRecord { path: name, sha256: file_hash(path)?.sha256 })
    };
    paths.iter().map(record).collect()
}

/// Keeps the records in a run's folder.
pub fn keep(records: &[SourceRecord], folder: &Path) -> Result<(), RunError> {
    let path = folder.join(FILE);
    let text = serde_json::to_string_pretty(records).map_err(|error| RunError::Io(error.to_string()))?;
    std::fs::write(&path, text)
        .map_err(|error| RunError::Io(format!("`{}` cannot be written: {error}", path.display())))
}

/// What is not as it was when the epoch's last run began, if that was not finished.
pub fn changes(
    records: &[SourceRecord],
    store: &Store,
    workspace: &Path,
    pipeline: &str,
    epoch: &str,
) -> Result<Vec<Problem>, RunError> {
    let Some(last) = unfinished_run(store, pipeline, epoch)? else { return Ok(Vec::new()) };
    // A run whose folder was removed is not compared with.
    let kept = std::fs::read_to_string(run_folder(workspace, &last.id).join(FILE)).unwrap_or_default();
    let Ok(earlier) = serde_json::from_str::<Vec<SourceRecord>>(&kept) else { return Ok(Vec::new()) };
    Ok(differences(&earlier, records))
}

fn differences(earlier: &[SourceRecord], now: &[SourceRecord]) -> Vec<Problem> {
    let of = |records: &[SourceRecord], path: &str| {
        records.iter().find(|record| record.path == path).map(|record| record.sha256.clone())
    };
    let changed = now.iter().filter_map(|record| match of(earlier, &record.path) {
        None => Some(warning(&record.path, "is new")),
        Some(sha256) if sha256 != record.sha256 => Some(warning(&record.path, "changed")),
        Some(_) => None,
    });
    let gone = earlier.iter().filter(|record| of(now, &record.path).is_none());
    changed.chain(gone.map(|record| warning(&record.path, "is not read any more"))).collect()
}

fn warning(path: &str, what: &str) -> Problem {
    let message = format!("`{path}` {what} since the last run, which was not finished");
    let hint = "this run starts from the files as they are now; calls that they change are paid for anew";
    Problem::warning(Place::Nowhere, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files as `name=content`, before and now.
    fn check(earlier: &[&str], now: &[&str], expected: &[&str]) {
        let records = |files: &[&str]| -> Vec<SourceRecord> {
            let pairs = files.iter().filter_map(|file| file.split_once('='));
            pairs.map(|(path, sha256)| SourceRecord { path: path.into(), sha256: sha256.into() }).collect()
        };
        let found = differences(&records(earlier), &records(now));
        let shown: Vec<&str> =
            found.iter().filter_map(|problem| problem.message.split(" since").next()).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_changed_is_named() {
        check(&["a=1", "b=2"], &["a=1", "b=2"], &[]);
        check(
            &["a=1", "b=2", "c=3"],
            &["b=4", "a=1", "d=3"],
            &["`b` changed", "`d` is new", "`c` is not read any more"],
        );
        check(&[], &[], &[]);
    }
}
