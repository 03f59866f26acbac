//! From a row back to where it was written and to the calls it was made by.
//!
//! Reads datasets, runs' folders and the store; changes and prints nothing.

use std::path::{Path, PathBuf};

use crate::data::read::{ReadError, read_dataset};
use crate::row::{Fields, RowId, Value};
use crate::run::output::{CALLS, ROW};
use crate::store::{Key, Store, StoreError};
use crate::teacher::exchange::Exchange;

/// A row that was looked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Row(Fields),
    /// No row has the id, but these were split off the one that had.
    Split(Vec<RowId>),
    /// No row has the id.
    Nothing,
    /// The rows do not say which they are: saved without `provenance`.
    NoProvenance,
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
    pub exchange: Exchange,
}

/// The folder of a pipeline's newest run, where its rejects and failures are; `None` when it never ran.
pub fn latest_run_folder(
    store: &Store,
    workspace: &Path,
    pipeline: &str,
) -> Result<Option<PathBuf>, StoreError> {
    let run = store.latest_run(pipeline)?;
    Ok(run.map(|run| workspace.join(crate::store::FOLDER).join(crate::store::RUNS).join(run.id)))
}

/// The row with an id in a dataset or in a run's rejects or failures.
pub fn find(dataset: &Path, row: &RowId) -> Result<Found, ReadError> {
    let mut children = Vec::new();
    for fields in read_dataset(dataset)? {
        let fields = fields?;
        let Some(id) = fields.get(ROW).and_then(Value::as_str).and_then(|id| id.parse::<RowId>().ok()) else {
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
    Ok(Some(StoredCall { request, reply, attempts: found.attempts, exchange }))
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
        assert_eq!(&find(folder.path(), &"17.1".parse().unwrap()).unwrap(), expected);
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
