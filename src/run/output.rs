//! What a run writes: kept rows as dataset parts, rejects and failures beside them, all in row order.
//!
//! Kept rows that carry no provenance have an index in the run's folder: the same rows in the same order, by
//! their ids and calls. Runs on a thread of its own. The dataset is staged beside its target and published in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;

use crate::clock;
use crate::data::manifest::{
    Balance, DiversityRecord, Manifest, PartRecord, PipelineRecord, RunRecord, SpendingRecord, SpentRecord,
    StepRecord, TeacherRecord,
};
use crate::data::publish::Publication;
use crate::data::write::{Part, PartOptions, PartWriter, WriteError};
use crate::engine::{End, Ended, Finish};
use crate::pipeline::check::Pipeline;
use crate::row::{CallMark, Fields, Row, Type, Value};
use crate::run::diversity::Varied;
use crate::run::{Options, Run, RunError};
use crate::store::{Amount, Key, Store, StoreError};

/// Names of the provenance columns.
pub(crate) const ROW: &str = "textmill_row";
pub(crate) const PARENT: &str = "textmill_parent";
pub(crate) const CALLS: &str = "textmill_calls";

/// The folder of the index of kept rows, in the run's folder: which row each of them is, in their order.
pub(crate) const INDEX: &str = "kept";

/// How long the writer lets ends gather, and how many it takes at once: to be woken for each costs more than to
/// write it.
const GATHER_FOR: Duration = Duration::from_millis(2);
const GATHERED_MAX: usize = 256;

/// A dataset that was published.
#[derive(Clone, Debug)]
pub struct Published {
    pub folder: PathBuf,
    /// Whether this epoch's rows are a prefix.
    pub partial: bool,
    pub epoch: String,
    /// Rows of this epoch.
    pub rows: u64,
    /// Rows of all epochs in the folder.
    pub rows_of_all: u64,
}

/// The models that each teacher's servers said they used.
type Models = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

/// The writers of a run.
pub struct Output {
    pipeline: PipelineShape,
    store: Store,
    publication: Publication,
    kept: PartWriter,
    /// Where the kept rows do not say themselves which they are.
    index: Option<PartWriter>,
    rejects: PartWriter,
    failures: PartWriter,
    models: Models,
    varied: Varied,
}

/// What the writer needs of the pipeline.
struct PipelineShape {
    columns: Vec<String>,
    steps: Vec<String>,
}

/// What was written, ready to be published.
pub struct Written {
    publication: Publication,
    kept: Vec<Part>,
    models: Models,
    diversity: DiversityRecord,
}

impl Output {
    /// Checks the target and opens the writers.
    pub fn create(
        pipeline: &Pipeline,
        options: &Options,
        folder: &Path,
        store: &Store,
    ) -> Result<Output, RunError> {
        // A preview is shown, not published; it is written beside the run's other files.
        let target = match options.rows {
            Some(_) => folder.join("preview"),
            None => pipeline.base.join(&pipeline.file.save.parquet),
        };
        let publication = Publication::prepare(&target)?;
        publication.check_epoch(&options.epoch)?;
        publication.check_columns(&options.epoch, &dataset_columns(pipeline))?;
        let save = &pipeline.file.save;
        let columns = pipeline.columns.keys().cloned().collect();
        let parts = PartOptions {
            rows_max: save.part_rows.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(100_000),
            ..PartOptions::default()
        };
        let kept_folder = publication.parts_folder(&options.epoch);
        let kept = PartWriter::create(&kept_folder, dataset_columns(pipeline), parts.clone())?;
        let index = (!save.provenance)
            .then(|| PartWriter::create(&folder.join(INDEX), provenance_columns(), PartOptions::default()))
            .transpose()?;
        let rejects = PartWriter::create(&folder.join("rejects"), end_columns(), parts.clone())?;
        let failures = PartWriter::create(&folder.join("failures"), end_columns(), parts)?;
        let steps = pipeline.steps.iter().map(|step| step.name.clone()).collect();
        let varied = Varied::new(pipeline);
        let pipeline = PipelineShape { columns, steps };
        let models = Models::new();
        let store = store.clone();
        Ok(Output { pipeline, store, publication, kept, index, rejects, failures, models, varied })
    }

    /// Writes every end, until the engine hangs up.
    pub fn write(mut self, mut ends: mpsc::Receiver<Ended>) -> Result<Written, RunError> {
        let mut gathered = Vec::with_capacity(GATHERED_MAX);
        while ends.blocking_recv_many(&mut gathered, GATHERED_MAX) > 0 {
            let may_gather = gathered.len() < GATHERED_MAX;
            gathered.drain(..).try_for_each(|ended| self.end(ended))?;
            if may_gather {
                std::thread::sleep(GATHER_FOR);
            }
        }
        if let Some(index) = self.index {
            index.finish()?;
        }
        self.rejects.finish()?;
        self.failures.finish()?;
        let diversity = self.varied.finish().map_err(|error| {
            RunError::Io(format!("the diversity of the texts cannot be measured: {error}"))
        })?;
        let kept = self.kept.finish()?;
        Ok(Written { publication: self.publication, kept, models: self.models, diversity })
    }

    fn end(&mut self, Ended { row, end }: Ended) -> Result<(), WriteError> {
        for call in &row.calls {
            self.models.entry(Arc::clone(&call.teacher)).or_default().insert(Arc::clone(&call.model));
        }
        self.varied.see(&row, &end);
        match end {
            End::Split { .. } => Ok(()),
            End::Kept => self.keep(row),
            End::Rejected { step, reason } => {
                let fields = self.end_row(row, step, &reason.code, "", &reason.evidence);
                self.rejects.push(&fields)
            }
            End::Failed { step, failure } => {
                let fields = self.end_row(row, step, &failure.code, &failure.message, &failure.evidence);
                self.failures.push(&fields)
            }
        }
    }

    fn keep(&mut self, mut row: Row) -> Result<(), WriteError> {
        let mut fields = Fields::new();
        for name in &self.pipeline.columns {
            let value = row.fields.remove(name).unwrap_or(Value::Null);
            fields.insert(name.clone(), value);
        }
        let provenance = provenance(&row);
        match &mut self.index {
            Some(index) => index.push(&provenance)?,
            None => fields.extend(provenance),
        }
        self.kept.push(&fields)
    }

    fn end_row(&self, row: Row, step: usize, code: &str, message: &str, evidence: &Value) -> Fields {
        let usd = row.calls.iter().filter_map(|call| call.usd).reduce(|a, b| a + b);
        // Sums of binary fractions stray from the nano-dollar that money is counted in.
        let usd = usd.map(|usd| (usd * 1e9).round() / 1e9);
        let reply = row.calls.last().and_then(|call| self.raw_reply(call));
        let record = json!({
            ROW: row.id.to_string(),
            PARENT: row.id.parent().map(|id| id.to_string()),
            "step": self.pipeline.steps.get(step),
            "reason": code,
            "message": message,
            "evidence": evidence.to_string(),
            "usd": usd,
            "reply": reply,
            "fields": Value::Object(row.fields).to_string(),
            CALLS: row.calls.iter().map(call_record).collect::<Vec<Value>>(),
        });
        match record {
            Value::Object(fields) => fields,
            _ => Fields::new(),
        }
    }

    /// The body of the last reply that a row got.
    fn raw_reply(&self, call: &CallMark) -> Option<String> {
        let key: Key = call.key.parse().ok()?;
        let body = self.store.reply(key).ok()??.reply().ok()?;
        Some(String::from_utf8_lossy(&body).into_owned())
    }
}

/// Which row it is and what it is made of.
fn provenance(row: &Row) -> Fields {
    let mut fields = Fields::new();
    fields.insert(ROW.to_owned(), Value::from(row.id.to_string()));
    fields.insert(PARENT.to_owned(), row.id.parent().map(|id| id.to_string()).into());
    fields.insert(CALLS.to_owned(), row.calls.iter().map(call_record).collect());
    fields
}

fn call_record(call: &CallMark) -> Value {
    json!({
        "step": &*call.step,
        "teacher": &*call.teacher,
        "model": &*call.model,
        "key": call.key,
    })
}

fn provenance_columns() -> Vec<(String, Type)> {
    let call = ["step", "teacher", "model", "key"].map(|name| (name.to_owned(), Type::Text)).to_vec();
    vec![
        (ROW.to_owned(), Type::Text),
        (PARENT.to_owned(), Type::Text),
        (CALLS.to_owned(), Type::List(Box::new(Type::Object(call)))),
    ]
}

/// The columns of rejects and failures: the same for every pipeline.
fn end_columns() -> Vec<(String, Type)> {
    let mut columns = vec![(ROW.to_owned(), Type::Text), (PARENT.to_owned(), Type::Text)];
    columns.extend(["step", "reason", "message", "evidence"].map(|name| (name.to_owned(), Type::Text)));
    columns.push(("usd".to_owned(), Type::Number));
    columns.extend(["reply", "fields"].map(|name| (name.to_owned(), Type::Text)));
    columns.extend(provenance_columns().into_iter().filter(|(name, _)| name == CALLS));
    columns
}

impl Written {
    /// Leaves the target as it is.
    pub fn keep_aside(self) -> Result<(), WriteError> {
        self.publication.discard()
    }

    /// Whether a partial dataset would take nothing away: it has rows, and what is published of its epoch now
    /// is nothing, or partial with no more rows.
    pub fn betters_what_is_there(&self, epoch: &str) -> bool {
        let rows = self.rows();
        let partial = self.published_parts(epoch).all(|part| part.partial);
        rows > 0 && partial && self.published_rows(epoch) <= rows
    }

    /// The published rows of an epoch that a dataset without rows would replace; nothing when there are none or
    /// rows were kept.
    pub fn would_be_emptied(&self, epoch: &str) -> Option<u64> {
        let published = self.published_rows(epoch);
        (self.rows() == 0 && published > 0).then_some(published)
    }

    fn rows(&self) -> u64 {
        self.kept.iter().map(|part| part.rows).sum()
    }

    fn published_rows(&self, epoch: &str) -> u64 {
        self.published_parts(epoch).map(|part| part.rows).sum()
    }

    fn published_parts(&self, epoch: &str) -> impl Iterator<Item = &PartRecord> {
        let published = self.publication.published().into_iter().flat_map(|manifest| &manifest.parts);
        published.filter(move |part| part.epoch == epoch)
    }

    /// Puts the dataset in its place; other epochs' parts stay in it.
    pub fn publish(self, run: &Run, finish: &Finish, started_unix_ms: i64) -> Result<Published, RunError> {
        let rows = self.rows();
        let epoch_spent = epoch_spent(run)?;
        let mut manifest = self.manifest(run, finish, started_unix_ms, epoch_spent);
        manifest.parts.extend(self.publication.carry_earlier(&manifest.epoch)?);
        manifest.partial = manifest.parts.iter().any(|part| part.partial);
        manifest.parts.sort_by(|a, b| a.path.cmp(&b.path));
        let folder = run.pipeline().base.join(&run.pipeline().file.save.parquet);
        self.publication.commit(&manifest, run.file_text())?;
        let rows_of_all = manifest.parts.iter().map(|part| part.rows).sum();
        let partial = !finish.complete;
        Ok(Published { folder, partial, epoch: manifest.epoch, rows, rows_of_all })
    }

    fn manifest(
        &self,
        run: &Run,
        finish: &Finish,
        started_unix_ms: i64,
        epoch_spent: SpentRecord,
    ) -> Manifest {
        let pipeline = run.pipeline();
        let epoch = &run.options().epoch;
        let tally = &finish.tally;
        let steps = tally.steps.iter().zip(&pipeline.steps).enumerate();
        let steps = steps.map(|(position, (counts, step))| StepRecord {
            name: step.name.clone(),
            operator: step.op.name().to_owned(),
            rows_in: counts.rows_in,
            rows_out: counts.rows_out,
            rejected: counts.rejected.clone(),
            failed: counts.failed.clone(),
            open: counts.open,
            report: finish.reports.get(&position).cloned(),
        });
        Manifest {
            textmill: env!("CARGO_PKG_VERSION").to_owned(),
            format: crate::data::FORMAT,
            pipeline: PipelineRecord {
                name: pipeline.file.name.clone(),
                about: pipeline.file.about.clone(),
                sha256: run.file_hash().to_owned(),
            },
            seed: pipeline.file.seed,
            epoch: epoch.clone(),
            partial: !finish.complete,
            teachers: self.teachers(run),
            columns: dataset_columns(pipeline),
            steps: steps.collect(),
            balance: Balance {
                rows_in: tally.rows_in,
                split_off: tally.split_off,
                kept: tally.kept,
                rejected: tally.rejected,
                failed: tally.failed,
                open: tally.open,
            },
            diversity: self.diversity.clone(),
            sources: run.sources().to_vec(),
            parts: self.kept.iter().map(|part| PartRecord::new(epoch, !finish.complete, part)).collect(),
            run: RunRecord {
                id: run.id.clone(),
                started: clock::rfc3339(started_unix_ms),
                ended: clock::rfc3339(clock::unix_ms()),
                spending: spending(run),
                epoch_spent,
            },
        }
    }

    /// The teachers that were asked, with the models that answered.
    fn teachers(&self, run: &Run) -> Vec<TeacherRecord> {
        let models = |name: &str| self.models.get(name).into_iter().flatten().map(ToString::to_string);
        let record = |name: &String| TeacherRecord { name: name.clone(), models: models(name).collect() };
        run.teachers().keys().map(record).collect()
    }
}

fn dataset_columns(pipeline: &Pipeline) -> Vec<(String, Type)> {
    let mut columns: Vec<(String, Type)> =
        pipeline.columns.iter().map(|(name, kind)| (name.clone(), kind.clone())).collect();
    if pipeline.file.save.provenance {
        columns.extend(provenance_columns());
    }
    columns
}

/// What this run's calls took, per teacher.
fn spending(run: &Run) -> Vec<SpendingRecord> {
    let mut by_teacher: BTreeMap<String, SpendingRecord> = BTreeMap::new();
    for (line, totals) in run.desk.monitor.lines() {
        let Some(teacher) = line.teacher.as_deref() else { continue };
        let priced = run.teachers().get(teacher).is_some_and(|teacher| teacher.price.is_some());
        let record = by_teacher.entry(teacher.to_owned()).or_insert_with(|| SpendingRecord {
            teacher: teacher.to_owned(),
            calls: 0,
            tokens_in: 0,
            tokens_out: 0,
            unanswered_calls: 0,
            unanswered_tokens: 0,
            usd: priced.then_some(0.0),
        });
        record.unanswered_calls += totals.unanswered.calls;
        record.unanswered_tokens += totals.unanswered.tokens;
        record.calls += totals.calls;
        record.tokens_in += totals.tokens_in;
        record.tokens_out += totals.tokens_out;
        let nano = totals.usd_nano + totals.unanswered.usd_nano;
        record.usd = record.usd.map(|usd| usd + nano as f64 / 1e9);
    }
    by_teacher.into_values().collect()
}

/// What the ledger has for the epoch.
fn epoch_spent(run: &Run) -> Result<SpentRecord, StoreError> {
    let Amount { usd_nano, tokens, calls } = run.desk.epoch_spent()?;
    Ok(SpentRecord { calls, tokens, usd: usd_nano as f64 / 1e9 })
}
