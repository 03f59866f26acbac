//! `against:`: rows compared with data that is there already, earlier releases and other datasets.
//!
//! Not an operator. What rows are known by, and when one is the same as another, is the operator's to say; which
//! data counts, how it gets into a saved index and what the evidence names is decided here, once.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use crate::call::key::canonical;
use crate::call::{Desk, StopReason};
use crate::data::manifest::read_manifest;
use crate::data::read::{FileSource, ReadError, ReadOptions, find_files};
use crate::kit::{Check, Kit};
use crate::problem::shown_path;
use crate::row::Fields;
use crate::store::{Entry, Found, KeyIndex, Lookup, StoreError};
use crate::text::lsh::CANDIDATES_MAX;

/// Names everything that an index's content depends on beside the operator's settings.
const VERSION: u32 = 1;

/// The column of a dataset that says which row each of its rows is.
const ROW: &str = "textmill_row";

/// Data that is there already.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "against", deny_unknown_fields)]
pub struct Against {
    /// The folder of a dataset. Of the one that this pipeline saves, the epochs before the run's own count.
    pub dataset: Option<String>,
    /// Other files, by a path or a pattern: `other/*.parquet`.
    pub files: Option<String>,
    /// The field that holds the text there, if it is called something else than here.
    pub field: Option<String>,
}

impl Against {
    fn shown(&self) -> &str {
        self.dataset.as_deref().or(self.files.as_deref()).unwrap_or_default()
    }
}

/// Reports data that is not there, or has not the fields that are compared. `fields` are those of the step.
pub fn check(check: &mut Check<'_>, against: &[Against], fields: &[&str]) {
    for (index, one) in against.iter().enumerate() {
        let key = format!("against.{index}");
        if one.field.is_some() && fields.len() > 1 {
            check
                .problem(&format!("{key}.field"), "several fields are compared, by the names they have here");
        }
        match (&one.dataset, &one.files) {
            (Some(dataset), None) => check_dataset(check, &format!("{key}.dataset"), dataset, one, fields),
            (None, Some(pattern)) => {
                if let Err(error) = find_files(check.base, pattern) {
                    let message = error.to_string();
                    check.problem(&format!("{key}.files"), message).hint = error.hint;
                }
            }
            _ => {
                check.problem(&key, "name what to compare with: either `dataset` or `files`");
            }
        }
    }
}

fn check_dataset(check: &mut Check<'_>, key: &str, dataset: &str, against: &Against, fields: &[&str]) {
    let folder = check.base.join(dataset);
    match read_manifest(&folder) {
        Ok(Some(manifest)) => {
            let wanted = against.field.as_deref().map_or(fields.to_vec(), |field| vec![field]);
            let has = |field: &str| manifest.columns.iter().any(|(name, _)| name == field);
            if let Some(lack) = wanted.into_iter().map(root).find(|field| !has(field)) {
                let message = format!("the dataset `{dataset}` has no column `{lack}`");
                let names: Vec<&str> = manifest.columns.iter().map(|(name, _)| name.as_str()).collect();
                check.problem(key, message).hint =
                    Some(format!("name the column with `field:`; it has `{}`", names.join("`, `")));
            }
        }
        // Before the first release there is nothing to compare with.
        Ok(None) if same_folder(&folder, &check.target) => {}
        Ok(None) => {
            check.problem(key, format!("there is no dataset `{dataset}`")).hint = Some(format!(
                "looked for {} with a manifest; other data is named with `files:`, such as `{dataset}/*.parquet`",
                shown_path(&folder)
            ));
        }
        Err(error) => {
            let message = error.to_string();
            check.problem(key, message).hint = error.hint;
        }
    }
}

/// The field that a path starts at.
fn root(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

fn same_folder(one: &Path, other: &Path) -> bool {
    let full = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
    // `a/./b` and `a/b` are one path, but for the text of it.
    full(one).map(|path| path.components().collect::<PathBuf>())
        == full(other).map(|path| path.components().collect::<PathBuf>())
}

/// Whether an epoch comes before another: numbers by their size, others as texts, so that instants go by time.
fn is_before(epoch: &str, other: &str) -> bool {
    match (epoch.parse::<u64>(), other.parse::<u64>()) {
        (Ok(epoch), Ok(other)) => epoch < other,
        _ => epoch < other,
    }
}

/// A file to compare with.
struct PartFile {
    path: PathBuf,
    /// As evidence names it.
    shown: String,
    /// Tells its content.
    stamp: String,
    /// Whether it counts in this run.
    counts: bool,
}

/// What a row of other data is known by: nothing where it has no text.
pub type EntryOf<'a> = &'a dyn Fn(&Against, &Fields) -> Option<Entry>;

/// Saved indexes of the data to compare with, up to date.
pub struct Saved {
    indexes: Vec<SavedIndex>,
    desk: Arc<Desk>,
}

struct SavedIndex {
    /// `dataset` or `file`, and the name.
    of: (&'static str, String),
    lookup: Lookup,
    /// The files that count, by the number of their first row; with how many rows each has.
    parts: BTreeMap<u64, (String, u64)>,
}

impl Saved {
    /// Opens the indexes and adds what is new; nothing where there is nothing to compare with. `settings` is all
    /// that entries depend on, `fields` what they are made of.
    pub fn open(
        against: &[Against],
        kit: &Kit,
        kind: &str,
        settings: &Value,
        fields: &[&str],
        entry_of: EntryOf<'_>,
    ) -> anyhow::Result<Option<Arc<Saved>>> {
        let Some(folder) = kit.indexes.as_ref().filter(|_| !against.is_empty()) else { return Ok(None) };
        let mut indexes = Vec::new();
        for one in against {
            let files =
                files(one, kit).with_context(|| format!("`{}` cannot be compared with", one.shown()))?;
            let source = std::path::absolute(kit.base.join(one.shown()))?;
            let identity = json!([VERSION, kind, settings, source, one.field, fields]);
            let mut bytes = Vec::new();
            canonical(&identity, &mut bytes);
            let name = format!("{kind}-{:032x}", xxh3_128(&bytes));
            let columns = one.field.as_deref().map_or(fields.to_vec(), |field| vec![field]);
            let columns = columns.into_iter().map(|path| root(path).to_owned()).collect();
            let entry = |fields: &Fields| entry_of(one, fields);
            let index = SavedIndex::bring_up(one, folder, &name, &files, columns, &entry)?;
            indexes.push(index);
        }
        Ok(Some(Arc::new(Saved { indexes, desk: Arc::clone(&kit.desk) })))
    }

    /// The first row with one of the keys whose content is accepted, as evidence, with what it was accepted with.
    pub fn find<T>(&self, keys: &[u64], accept: impl Fn(&[u8]) -> Option<T>) -> Option<(Value, T)> {
        self.indexes.iter().find_map(|index| match index.find(keys, &accept) {
            Ok(found) => found,
            Err(error) => {
                // What is not known must not count as new.
                self.desk.control.stop(StopReason::Fatal(format!(
                    "earlier data cannot be looked up: {error}; the saved index may be removed, it is made anew"
                )));
                None
            }
        })
    }

    /// What rows were compared with.
    pub fn report(&self) -> Value {
        let one = |index: &SavedIndex| {
            let rows: u64 = index.parts.values().map(|(_, rows)| rows).sum();
            json!({"data": index.of.1, "parts": index.parts.len(), "rows": rows})
        };
        self.indexes.iter().map(one).collect()
    }
}

impl SavedIndex {
    fn bring_up(
        against: &Against,
        folder: &Path,
        name: &str,
        files: &[PartFile],
        columns: Vec<String>,
        entry: &dyn Fn(&Fields) -> Option<Entry>,
    ) -> anyhow::Result<SavedIndex> {
        let attempt = |columns: Vec<String>| -> anyhow::Result<KeyIndex> {
            let mut index = KeyIndex::open(folder, name)?;
            forget_what_is_gone(&mut index, files)?;
            add_what_is_new(&mut index, files, &columns, entry)?;
            Ok(index)
        };
        let index = match attempt(columns.clone()) {
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::Corrupt { .. })) => {
                KeyIndex::remove(folder, name)?;
                attempt(columns)?
            }
            other => other?,
        };
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let counts = |path: &str, stamp: &str| {
            files.iter().find(|file| file.counts && file.shown == path && file.stamp == stamp)
        };
        let parts = index.parts()?.into_iter().filter(|part| counts(&part.path, &part.stamp).is_some());
        let parts = parts.map(|part| (part.first, (part.path, part.rows))).collect();
        let of = if against.dataset.is_some() { "dataset" } else { "file" };
        Ok(SavedIndex { of: (of, against.shown().to_owned()), lookup: index.lookup(threads)?, parts })
    }

    /// The file that a row is of, and which of its rows it is, from 1.
    fn place(&self, number: u64) -> Option<(&str, u64)> {
        let (first, (path, rows)) = self.parts.range(..=number).next_back()?;
        (number - first < *rows).then_some((path, number - first + 1))
    }

    fn find<T>(
        &self,
        keys: &[u64],
        accept: &impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<(Value, T)>, StoreError> {
        let is_wanted = |number| self.place(number).is_some();
        let found = self.lookup.find(keys, CANDIDATES_MAX, is_wanted, accept)?;
        Ok(found.map(|Found { number, name, value }| {
            let (path, row) = self.place(number).unwrap_or_default();
            let (kind, source) = &self.of;
            let mut evidence = match *kind {
                "dataset" => json!({"dataset": source, "part": path, "row": row}),
                _ => json!({"file": path, "row": row}),
            };
            if let Some(name) = name {
                evidence["duplicate_of"] = Value::from(name);
            }
            (evidence, value)
        }))
    }
}

/// Makes an index anew of which more is of files that are gone or changed than of those that are there.
fn forget_what_is_gone(index: &mut KeyIndex, files: &[PartFile]) -> Result<(), StoreError> {
    let (mut here, mut gone) = (0, 0);
    for part in index.parts()? {
        let is_here = files.iter().any(|file| file.shown == part.path && file.stamp == part.stamp);
        if is_here { here += part.rows } else { gone += part.rows }
    }
    if gone > here { index.clear() } else { Ok(()) }
}

fn add_what_is_new(
    index: &mut KeyIndex,
    files: &[PartFile],
    columns: &[String],
    entry: &dyn Fn(&Fields) -> Option<Entry>,
) -> anyhow::Result<()> {
    let known: Vec<(String, String)> =
        index.parts()?.into_iter().map(|part| (part.path, part.stamp)).collect();
    for file in files.iter().filter(|file| file.counts) {
        if known.iter().any(|(path, stamp)| *path == file.shown && *stamp == file.stamp) {
            continue;
        }
        let Some(mut adding) = index.add(&file.shown, &file.stamp)? else { continue };
        let columns = columns.iter().cloned().chain([ROW.to_owned()]).collect();
        let options = ReadOptions { columns: Some(columns), ..ReadOptions::default() };
        let source = FileSource::open(std::slice::from_ref(&file.path), None, options)?.with_reserved();
        let (mut rows, mut with_entry) = (0, 0);
        for fields in source.rows() {
            let fields = fields?;
            let entry = entry(&fields);
            rows += 1;
            with_entry += u64::from(entry.is_some());
            adding.push(fields.get(ROW).and_then(Value::as_str), entry.as_ref())?;
        }
        if rows > 0 && with_entry == 0 {
            bail!(
                "no row of `{}` has a text where it is looked for; name its field with `field:`",
                file.shown
            );
        }
        adding.commit()?;
    }
    Ok(())
}

fn files(against: &Against, kit: &Kit) -> anyhow::Result<Vec<PartFile>> {
    let Some(dataset) = &against.dataset else {
        return files_of_pattern(&kit.base, against.files.as_deref().unwrap_or_default());
    };
    let folder = kit.base.join(dataset);
    let own = same_folder(&folder, &kit.target);
    let parts = match read_manifest(&folder)? {
        Some(manifest) => manifest.parts,
        None if own => Vec::new(),
        None => bail!("there is no dataset `{dataset}`"),
    };
    let part = |part: crate::data::manifest::PartRecord| PartFile {
        path: folder.join(&part.path),
        counts: !own || is_before(&part.epoch, &kit.epoch),
        shown: part.path,
        stamp: part.sha256,
    };
    Ok(parts.into_iter().map(part).collect())
}

/// Files without a manifest are told by their size and when they were changed.
fn files_of_pattern(base: &Path, pattern: &str) -> anyhow::Result<Vec<PartFile>> {
    let file = |path: PathBuf| -> anyhow::Result<PartFile> {
        let metadata = path.metadata().map_err(|error| ReadError::io(&path, &error))?;
        let changed = metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let stamp = format!("{} {}", metadata.len(), changed.unwrap_or_default().as_nanos());
        let shown = path.strip_prefix(base).unwrap_or(&path).display().to_string();
        Ok(PartFile { path, shown, stamp, counts: true })
    };
    find_files(base, pattern)?.into_iter().map(file).collect()
}
