//! `manifest.json`: how a dataset was made, for programs. Filled by the engine, kept beside the data.
//!
//! Times, the run's id and money live in [`RunRecord`] and nowhere else in a dataset folder; all
//! other records are the same for the same pipeline, replies and failed rows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::FORMAT;
use crate::data::columns::Columns;
use crate::data::read::ReadError;
use crate::data::write::Part;
use crate::text::diversity::Numbers;

/// The manifest's name in a dataset folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Largest manifest that is read: 64 MiB, hundreds of thousands of parts.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// How a dataset was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of textmill that wrote it; this key marks a folder as textmill's.
    pub textmill: String,
    /// The layout's version, [`FORMAT`].
    pub format: u32,
    pub pipeline: PipelineRecord,
    pub seed: u64,
    /// The epoch published last: all that is told of how rows were made, and all counts, are of it alone. Only
    /// `columns`, `partial` and `parts` are of the whole folder.
    pub epoch: String,
    /// Whether a part of the dataset is the prefix of a run that stopped early.
    pub partial: bool,
    pub teachers: Vec<TeacherRecord>,
    pub columns: Columns,
    /// In the pipeline's order.
    pub steps: Vec<StepRecord>,
    pub balance: Balance,
    #[serde(default)]
    pub diversity: DiversityRecord,
    pub sources: Vec<SourceRecord>,
    /// All parts of the folder, those of earlier releases too, in the order of their paths.
    pub parts: Vec<PartRecord>,
    pub run: RunRecord,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineRecord {
    pub name: String,
    pub about: Option<String>,
    /// SHA-256 of the pipeline file's text, in hex.
    pub sha256: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeacherRecord {
    pub name: String,
    /// The models that its servers said they used, sorted.
    pub models: Vec<String>,
}

/// What happened to rows in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    pub name: String,
    pub operator: String,
    pub rows_in: u64,
    pub rows_out: u64,
    /// Rows that ended here, by reason code.
    pub rejected: BTreeMap<String, u64>,
    pub failed: BTreeMap<String, u64>,
    /// Rows of a partial dataset's run that did not come further.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub open: u64,
    /// What the step has to tell beside: an object of numbers, texts and lists of such objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Where all rows are: `rows_in + split_off = kept + rejected + failed + open`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    pub rows_in: u64,
    pub split_off: u64,
    pub kept: u64,
    pub rejected: u64,
    pub failed: u64,
    pub open: u64,
}

impl Balance {
    /// Whether no row vanished.
    pub fn holds(&self) -> bool {
        self.rows_in + self.split_off == self.kept + self.rejected + self.failed + self.open
    }
}

/// How varied the kept rows are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiversityRecord {
    /// The fields that hold texts of some length.
    pub fields: Vec<FieldDiversity>,
    /// What the source drew from.
    pub axes: Vec<AxisRecord>,
    /// Different combinations of the axes' values, 100,000 at most.
    pub combinations: u64,
    /// How many there could be, where that is known.
    pub combinations_of: Option<f64>,
    /// Duplicates by stretches of the source, none where no row was one.
    pub duplicates: Vec<DuplicatesRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldDiversity {
    pub field: String,
    #[serde(flatten)]
    pub numbers: Numbers,
}

/// How much of an axis came through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AxisRecord {
    pub field: String,
    /// Different values, 100,000 at most.
    pub seen: u64,
    /// How many there could be, where that is known.
    pub of: Option<u64>,
}

/// Of the rows from this source row on to the next stretch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuplicatesRecord {
    pub from_row: u64,
    /// Rows that were kept or rejected.
    pub rows: u64,
    /// Rows that were rejected for what an earlier one says.
    pub duplicates: u64,
}

/// A file that rows, draws or prompts came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// As the pipeline file names it.
    pub path: String,
    pub sha256: String,
}

/// A Parquet part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// `data/<epoch>/part-00000.parquet`.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
    /// The epoch that it is of.
    pub epoch: String,
    /// Whether it is of a run that stopped early.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

impl PartRecord {
    /// A part of this epoch, as the writer gave it.
    pub fn new(epoch: &str, partial: bool, part: &Part) -> PartRecord {
        PartRecord {
            path: format!("data/{}/{}", epoch_folder(epoch), part.file_name),
            rows: part.rows,
            bytes: part.bytes,
            sha256: part.sha256.clone(),
            epoch: epoch.to_owned(),
            partial,
        }
    }
}

/// What only this run knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub id: String,
    /// RFC 3339, UTC.
    pub started: String,
    pub ended: String,
    /// By this run, for each teacher that it asked.
    pub spending: Vec<SpendingRecord>,
    /// By all runs of the epoch up to this one's end, as the budget counts it.
    #[serde(default)]
    pub epoch_spent: SpentRecord,
}

/// Calls sent, tokens and money; what may have been billed counts at its worst case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpentRecord {
    pub calls: u64,
    pub tokens: u64,
    /// Calls to teachers without prices count as nothing.
    pub usd: f64,
}

/// What the calls of a run to one teacher took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpendingRecord {
    pub teacher: String,
    pub calls: u64,
    pub tokens_in: u64,
    pub tokens_out: u64,
    /// Calls that brought no answer and may have been billed, and their tokens at the worst.
    #[serde(default)]
    pub unanswered_calls: u64,
    #[serde(default)]
    pub unanswered_tokens: u64,
    /// For all of these; `None` for a teacher without prices.
    pub usd: Option<f64>,
}

/// The folder name of an epoch: what is no letter, digit, `.`, `_` or `-` becomes `-`.
pub fn epoch_folder(epoch: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let folder: String = epoch.chars().map(plain).collect();
    // A name of dots only would lead out of the folder; an empty one nowhere.
    if folder.trim_matches('.').is_empty() { format!("epoch-{}", folder.len()) } else { folder }
}

/// The manifest of a dataset folder; `None` when there is none or it is another program's.
pub fn read_manifest(folder: &Path) -> Result<Option<Manifest>, ReadError> {
    let path = folder.join(MANIFEST_FILE);
    let mut text = String::new();
    match File::open(&path).and_then(|file| file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Ok(None),
        Err(error) => return Err(ReadError::io(&path, &error)),
    }
    let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
    if value.get("textmill").is_none() {
        return Ok(None);
    }
    let format = value.get("format").and_then(Value::as_u64).unwrap_or(0);
    if format > u64::from(FORMAT) {
        let message = format!("written by a newer textmill (format {format}, this one knows {FORMAT})");
        return Err(ReadError::new(&path, message));
    }
    let damaged =
        |error: serde_json::Error| ReadError::new(&path, format!("the manifest is damaged: {error}"));
    serde_json::from_value(value).map(Some).map_err(damaged)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::row::Type;

    /// A manifest that says something in every place.
    pub(crate) fn sample() -> Manifest {
        let counts = |code: &str, count| BTreeMap::from([(code.to_owned(), count)]);
        Manifest {
            textmill: "0.1.0".into(),
            format: FORMAT,
            pipeline: PipelineRecord { name: "exercises".into(), about: None, sha256: "ab".into() },
            seed: 7,
            epoch: "0".into(),
            partial: false,
            teachers: vec![TeacherRecord { name: "writer".into(), models: vec!["m-1".into()] }],
            columns: vec![("text".into(), Type::Text)],
            steps: vec![StepRecord {
                name: "grade".into(),
                operator: "judge".into(),
                rows_in: 10,
                rows_out: 7,
                rejected: counts("refused", 2),
                failed: counts("server_error", 1),
                open: 0,
                report: None,
            }],
            balance: Balance { rows_in: 10, kept: 7, rejected: 2, failed: 1, ..Balance::default() },
            diversity: DiversityRecord::default(),
            sources: vec![SourceRecord { path: "seeds.jsonl".into(), sha256: "cd".into() }],
            parts: vec![],
            run: RunRecord {
                id: "r1".into(),
                started: "2026-11-23T00:00:00Z".into(),
                ..RunRecord::default()
            },
        }
    }

    fn check(content: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(MANIFEST_FILE), content).unwrap();
        let shown = match read_manifest(folder.path()) {
            Ok(None) => "none".to_owned(),
            Ok(Some(manifest)) => manifest.pipeline.name,
            Err(error) => error.message,
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn only_our_manifests_are_read() {
        check(&serde_json::to_string(&sample()).unwrap(), "exercises");
        check("{\"version\": 3}", "none");
        check("no json", "none");
        check(
            "{\"textmill\": \"9\", \"format\": 2}",
            "written by a newer textmill (format 2, this one knows 1)",
        );
        check("{\"textmill\": \"0\", \"format\": 1}", "the manifest is damaged: missing field `pipeline`");
    }

    #[test]
    fn epochs_make_safe_folder_names() {
        let check = |epoch: &str, expected: &str| assert_eq!(epoch_folder(epoch), expected);
        check("0", "0");
        check("2026-11-23T02:00:00Z", "2026-11-23T02-00-00Z");
        check("../x", "..-x");
        check("..", "epoch-2");
        check("", "epoch-0");
    }

    #[test]
    fn the_balance_notices_a_lost_row() {
        let balance = sample().balance;
        assert!(balance.holds());
        assert!(!Balance { kept: 6, ..balance }.holds());
        assert!(Balance { split_off: 3, kept: 10, ..balance }.holds());
    }
}
