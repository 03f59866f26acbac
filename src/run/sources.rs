//! What a run reads: the files that rows, draws and prompts come from, by their contents.
//!
//! Kept in the run's folder from its start, so that a run that comes after another of its epoch, even a
//! killed one, can say what changed in between. Decides nothing: replies that no longer fit are asked anew by themselves.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::data::hash::file_hash;
use crate::data::manifest::SourceRecord;
use crate::data::read::ReadError;
use crate::pipeline::check::Pipeline;
use crate::pipeline::source::open_files;
use crate::problem::{Place, Problem};
use crate::run::{RunError, last_run, run_folder};
use crate::store::{RunStatus, Store};

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

/// What is not as it was when the epoch's last run began.
pub fn changes(
    records: &[SourceRecord],
    store: &Store,
    workspace: &Path,
    pipeline: &Pipeline,
    epoch: &str,
) -> Result<Vec<Problem>, RunError> {
    let Some(last) = last_run(store, &pipeline.file.name, epoch)? else { return Ok(Vec::new()) };
    // A run whose folder was removed is not compared with.
    let kept = std::fs::read_to_string(run_folder(workspace, &last.id).join(FILE)).unwrap_or_default();
    let Ok(earlier) = serde_json::from_str::<Vec<SourceRecord>>(&kept) else { return Ok(Vec::new()) };
    let unfinished = if last.status == RunStatus::Finished { "" } else { ", which was not finished" };
    let by_place = pipeline.file.source.files.as_ref().is_some_and(|files| files.id.is_none());
    let id = if by_place {
        "; with `id:` the rows of a file source keep their replies when lines move"
    } else {
        ""
    };
    let hint = format!(
        "this run starts from the files as they are now; calls that they change are paid for anew{id}"
    );
    let warning = |difference: String| {
        let message = format!("{difference} since the last run{unfinished}");
        Problem::warning(Place::Nowhere, message).hint(hint.clone())
    };
    Ok(differences(&earlier, records).into_iter().map(warning).collect())
}

fn differences(earlier: &[SourceRecord], now: &[SourceRecord]) -> Vec<String> {
    let word = |path: &str, what: &str| format!("`{path}` {what}");
    let of = |records: &[SourceRecord], path: &str| {
        records.iter().find(|record| record.path == path).map(|record| record.sha256.clone())
    };
    let changed = now.iter().filter_map(|record| match of(earlier, &record.path) {
        None => Some(word(&record.path, "is new")),
        Some(sha256) if sha256 != record.sha256 => Some(word(&record.path, "changed")),
        Some(_) => None,
    });
    let gone = earlier.iter().filter(|record| of(now, &record.path).is_none());
    changed.chain(gone.map(|record| word(&record.path, "is not read any more"))).collect()
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
        assert_eq!(differences(&records(earlier), &records(now)), expected);
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
