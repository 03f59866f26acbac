//! From a row back to where it was written and to the calls it was made by.
//!
//! Reads datasets, runs' folders and the store; changes and prints nothing.

use std::path::{Path, PathBuf};

use crate::data::manifest::{Manifest, PartRecord, read_manifest};
use crate::data::read::{ReadError, read_dataset};
use crate::row::{Fields, RowId, Value};
use crate::run::output::{CALLS, INDEX, PARENT, ROW};
use crate::run::run_folder;
use crate::store::{Key, Run, Store, StoreError};
use crate::teacher::exchange::Exchange;

/// A row that was looked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Row(Fields),
    /// No row has the id, but these were split off the one that had.
    Split(Vec<RowId>),
    /// No row has the id.
    Nothing,
    /// The rows do not say which they are, and the run that does is gone: saved without `provenance`.
    NoProvenance,
}

/// Why a row cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One call that a row was made by.
#[derive(Clone, Debug)]
pub struct TracedCall {
    pub step: String,
    pub teacher: String,
    pub model: String,
    /// In hex, as the row has it.
    pub key: String,
    /// `None` when the store has no such reply (any more).
    pub stored: Option<StoredCall>,
}

/// A call as the store keeps it.
#[derive(Clone, Debug)]
pub struct StoredCall {
    pub request: Vec<u8>,
    /// The reply's body as received.
    pub reply: String,
    /// Times that it was sent until it was answered.
    pub attempts: u32,
    /// The URL that served it.
    pub endpoint: String,
    pub exchange: Exchange,
}

/// A row as a run's rejects and failures have it.
#[derive(Clone, Debug)]
pub struct EndedRow {
    /// Which row it is, where and why it ended; what says nothing is left out.
    pub end: Fields,
    pub evidence: Value,
    pub usd_nano: Option<u64>,
    /// What the row had when it ended.
    pub fields: Fields,
    /// What was answered last; as received, when the store has no such reply (any more).
    pub reply: Option<String>,
}

/// Reads a row of a run's rejects or failures; `None` when it is none.
pub fn ended(row: &Fields, store: Option<&Store>) -> Option<EndedRow> {
    let json = |name: &str| serde_json::from_str(row.get(name)?.as_str()?).ok();
    let (Some(Value::Object(fields)), Some(evidence)) = (json("fields"), json("evidence")) else {
        return None;
    };
    let end = |name: &&str| {
        let text = row.get(*name)?.as_str().filter(|text| !text.is_empty())?;
        Some(((*name).to_owned(), Value::from(text)))
    };
    let end: Fields = [ROW, PARENT, "step", "reason", "message"].iter().filter_map(end).collect();
    let raw = || Some(row.get("reply")?.as_str()?.to_owned());
    Some(EndedRow {
        end,
        evidence,
        usd_nano: row.get("usd").and_then(Value::as_f64).map(|usd| (usd * 1e9).round() as u64),
        fields,
        reply: store.and_then(|store| last_answer(row, store)).or_else(raw),
    })
}

/// The text that a row's last call was answered with.
fn last_answer(row: &Fields, store: &Store) -> Option<String> {
    let key = row.get(CALLS)?.as_array()?.last()?["key"].as_str()?.parse().ok()?;
    Some(stored(store, key).ok()??.exchange.answer?.shown())
}

/// The folder of a pipeline's newest run, where its rejects and failures are; `None` when it never ran.
pub fn latest_run_folder(
    store: &Store,
    workspace: &Path,
    pipeline: &str,
) -> Result<Option<PathBuf>, StoreError> {
    let run = store.latest_run(pipeline)?;
    Ok(run.map(|run| run_folder(workspace, &run.id)))
}

/// The row with an id in a dataset or in a run's rejects or failures.
pub fn find(folder: &Path, row: &RowId, store: &Store, workspace: &Path) -> Result<Found, TraceError> {
    let manifest = if folder.is_dir() { read_manifest(folder)? } else { None };
    match manifest {
        Some(manifest) if manifest.columns.iter().all(|(name, _)| name != ROW) => {
            let runs = store.runs(Some(&manifest.pipeline.name), u32::MAX)?;
            let index =
                |epoch: &str| Some(run_folder(workspace, publisher(epoch, &manifest, &runs)?).join(INDEX));
            Ok(find_indexed(folder, &manifest.parts, row, index)?)
        }
        _ => Ok(find_marked(folder, row)?),
    }
}

/// The run that published an epoch of a dataset.
fn publisher<'a>(epoch: &str, manifest: &'a Manifest, runs: &'a [Run]) -> Option<&'a str> {
    if manifest.epoch == epoch {
        return Some(&manifest.run.id);
    }
    let published = |run: &&Run| run.summary.as_ref().is_some_and(|summary| summary["dataset"].is_string());
    runs.iter().filter(|run| run.epoch == epoch).find(published).map(|run| run.id.as_str())
}

/// Looks in the indexes of the runs that published a dataset's epochs: the same rows in the same order.
fn find_indexed(
    dataset: &Path,
    parts: &[PartRecord],
    row: &RowId,
    index: impl Fn(&str) -> Option<PathBuf>,
) -> Result<Found, ReadError> {
    let mut children = Vec::new();
    let mut all_told = true;
    for parts in parts.chunk_by(|a, b| a.epoch == b.epoch) {
        let index = parts.first().and_then(|part| index(&part.epoch)).filter(|index| index.is_dir());
        let mut rows: u64 = 0;
        let mut found = None;
        let mut split = Vec::new();
        for entry in index.map(|index| read_dataset(&index)).transpose()?.into_iter().flatten() {
            let entry = entry?;
            match id_of(&entry) {
                Some(id) if id == *row => found = Some((rows, entry)),
                Some(id) if id.parent().as_ref() == Some(row) => split.push(id),
                _ => {}
            }
            rows += 1;
        }
        // An index that is gone, or another's, tells nothing.
        if rows != parts.iter().map(|part| part.rows).sum::<u64>() {
            all_told = false;
            continue;
        }
        children.append(&mut split);
        if let Some((position, provenance)) = found {
            let mut fields = row_at(dataset, parts, position)?;
            fields.extend(provenance);
            return Ok(Found::Row(fields));
        }
    }
    Ok(match (children.is_empty(), all_told) {
        (false, _) => Found::Split(children),
        (true, true) => Found::Nothing,
        (true, false) => Found::NoProvenance,
    })
}

fn row_at(dataset: &Path, parts: &[PartRecord], mut position: u64) -> Result<Fields, ReadError> {
    for part in parts {
        if position < part.rows {
            let mut rows = read_dataset(&dataset.join(&part.path))?;
            return rows.nth(usize::try_from(position).unwrap_or(usize::MAX)).unwrap_or(Ok(Fields::new()));
        }
        position -= part.rows;
    }
    Ok(Fields::new())
}

fn id_of(fields: &Fields) -> Option<RowId> {
    fields.get(ROW)?.as_str()?.parse().ok()
}

/// Looks through rows that say themselves which they are.
fn find_marked(folder: &Path, row: &RowId) -> Result<Found, ReadError> {
    let mut children = Vec::new();
    for fields in read_dataset(folder)? {
        let fields = fields?;
        let Some(id) = id_of(&fields) else {
            return Ok(Found::NoProvenance);
        };
        if id == *row {
            return Ok(Found::Row(fields));
        }
        if id.parent().as_ref() == Some(row) {
            children.push(id);
        }
    }
    Ok(if children.is_empty() { Found::Nothing } else { Found::Split(children) })
}

/// The calls of a row, in order, with what the store has of them.
pub fn calls(row: &Fields, store: &Store) -> Result<Vec<TracedCall>, StoreError> {
    let Some(Value::Array(records)) = row.get(CALLS) else { return Ok(Vec::new()) };
    let text = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
    let mut calls = Vec::new();
    for record in records {
        let key = text(record, "key");
        let stored = match key.parse::<Key>() {
            Ok(key) => stored(store, key)?,
            Err(_) => None,
        };
        calls.push(TracedCall {
            step: text(record, "step"),
            teacher: text(record, "teacher"),
            model: text(record, "model"),
            key,
            stored,
        });
    }
    Ok(calls)
}

fn stored(store: &Store, key: Key) -> Result<Option<StoredCall>, StoreError> {
    let Some(found) = store.reply(key)? else { return Ok(None) };
    let request = found.request()?;
    let reply = String::from_utf8_lossy(&found.reply()?).into_owned();
    let exchange = Exchange::read(&found.origin.wire, &request, found.status, &reply);
    let (attempts, endpoint) = (found.attempts, found.origin.endpoint);
    Ok(Some(StoredCall { request, reply, attempts, endpoint, exchange }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::write::{PartOptions, PartWriter};
    use crate::row::Type;
    use crate::store::Access;
    use serde_json::json;

    /// Looks for row 17.1 in a folder with one part of one row.
    fn check(row: &Value, expected: &Found) {
        let folder = tempfile::tempdir().unwrap();
        let row = row.as_object().unwrap();
        let columns = row.keys().map(|name| (name.clone(), Type::Text)).collect();
        let mut part = PartWriter::create(folder.path(), columns, PartOptions::default()).unwrap();
        part.push(row).unwrap();
        part.finish().unwrap();
        assert_eq!(&find_marked(folder.path(), &"17.1".parse().unwrap()).unwrap(), expected);
    }

    /// Looks for row 3 in a dataset of two epochs, two rows each; the indexes have these ids.
    fn check_indexed(first: &[&str], second: &[&str], expected: &Result<&str, Found>) {
        let folder = tempfile::tempdir().unwrap();
        let write = |place: &str, name: &str, values: &[&str]| {
            let columns = vec![(name.to_owned(), Type::Text)];
            let mut part =
                PartWriter::create(&folder.path().join(place), columns, PartOptions::default()).unwrap();
            for value in values {
                part.push(&Fields::from_iter([(name.to_owned(), Value::from(*value))])).unwrap();
            }
            part.finish().unwrap()
        };
        let part = |epoch: &str, values: &[&str]| {
            PartRecord::new(epoch, false, &write(&format!("data/{epoch}"), "text", values)[0])
        };
        let parts = [part("0", &["a", "b"]), part("1", &["c", "d"])];
        write("index-0", ROW, first);
        write("index-1", ROW, second);
        let index = |epoch: &str| Some(folder.path().join(format!("index-{epoch}")));
        let found = match find_indexed(folder.path(), &parts, &"3".parse().unwrap(), index).unwrap() {
            Found::Row(fields) => Ok(Value::Object(fields)),
            other => Err(other),
        };
        let expected = expected.as_ref().map(|text| json!({"text": text, ROW: "3"}));
        assert_eq!(found.as_ref(), expected.as_ref().map_err(|found| *found), "{first:?} {second:?}");
    }

    #[test]
    fn rows_that_do_not_say_which_they_are_are_found_by_their_place() {
        check_indexed(&["2", "3"], &["0", "1"], &Ok("b"));
        check_indexed(&["0", "1"], &["3", "4"], &Ok("c"));
        check_indexed(&["0", "1"], &["3.0", "4"], &Err(Found::Split(vec!["3.0".parse().unwrap()])));
        check_indexed(&["0", "1"], &["2", "4"], &Err(Found::Nothing));
        check_indexed(&["0", "1"], &["3"], &Err(Found::NoProvenance));
        check_indexed(&[], &["2", "3"], &Ok("d"));
    }

    #[test]
    fn rows_are_found_by_their_id() {
        let row = json!({ROW: "17.1", "text": "x"});
        check(&row, &Found::Row(row.as_object().unwrap().clone()));
        check(&json!({ROW: "17.10"}), &Found::Nothing);
        check(&json!({ROW: "17.1.2"}), &Found::Split(vec!["17.1.2".parse().unwrap()]));
        check(&json!({"text": "x"}), &Found::NoProvenance);
    }

    #[test]
    fn calls_that_the_store_lost_are_still_listed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Read).unwrap();
        let record = json!({"step": "s", "teacher": "t", "model": "m", "key": "00".repeat(32)});
        let row = json!({CALLS: [record, {"key": "broken"}]});
        let calls = calls(row.as_object().unwrap(), &store).unwrap();
        let seen: Vec<_> = calls.iter().map(|call| (call.step.as_str(), call.stored.is_some())).collect();
        assert_eq!(seen, [("s", false), ("", false)]);
    }
}
