//! One run of a pipeline: everything put together, from the store to the published dataset.
//!
//! Builds what the check approved, starts what must be started, feeds the engine, writes what comes out
//! and publishes it in one step. The command line and the scheduler start runs here and nowhere else.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::call::budget::{Limit, Of};
use crate::call::{Budget, Control, Desk, StopReason, Tray, batch};
use crate::clock::{self, Wall};
use crate::data::hash::text_hash;
use crate::data::manifest::SourceRecord;
use crate::engine::stages::{Stages, StepRunners};
use crate::engine::tally::Tally;
use crate::engine::{Engine, Finish, Progress, Settings, Until};
use crate::kit::{Commands, Kit};
use crate::pipeline::budget::budgets;
use crate::pipeline::check::Pipeline;
use crate::problem::{Place, Problem};
use crate::store::{Batch, Charge, EpochLock, NewRun, Run as StoredRun, RunStatus, Spent, Store, StoreError};
use crate::teacher::pool::Account;
use crate::teacher::process::MINIMAL_ENV;
use crate::teacher::wire::Teacher;

mod diversity;
#[cfg(test)]
mod fixture;
pub mod output;
pub mod plan;
mod sharing;
pub mod source;
mod sources;
pub mod teachers;
pub mod trace;
pub mod trial;

use sharing::Sharing;

pub use output::Published;

/// What a user may ask of a run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only the source's first rows.
    pub rows: Option<u64>,
    /// Steps whose calls are made anew.
    pub fresh: Vec<String>,
    /// Ask again what a server declined.
    pub retry_failed: bool,
    pub epoch: String,
    /// Publish the longest finished prefix of a run that stops early, marked partial.
    pub partial: bool,
    /// How far the engine may run ahead; for tests and tuning.
    pub settings: Settings,
}

/// What the command line knows of the machine.
pub struct Machine {
    /// Looks up an environment variable.
    pub env: fn(&str) -> Option<String>,
    /// What to put before a `start:` command so that it does not outlive us.
    pub guard: Vec<OsString>,
    /// What starts the watch over the commands of steps.
    pub watch: Vec<OsString>,
}

impl Machine {
    /// How the commands of steps are started.
    pub fn commands(&self) -> Commands {
        Commands { environment: self.minimal_environment(), watch: self.watch.clone() }
    }

    /// The environment variables that the commands of a pipeline get.
    pub fn minimal_environment(&self) -> Vec<(String, String)> {
        MINIMAL_ENV.iter().filter_map(|name| Some(((*name).to_owned(), (self.env)(name)?))).collect()
    }
}

/// A run that is ready to go.
pub struct Run {
    pub id: String,
    pub control: Control,
    pub desk: Arc<Desk>,
    pub progress: Arc<Progress>,
    /// What the user should know before anything is asked.
    pub warnings: Vec<Problem>,
    pipeline: Arc<Pipeline>,
    sources: Vec<SourceRecord>,
    file_text: String,
    file_hash: String,
    options: Options,
    store: Store,
    teachers: teachers::Started,
    commands: Arc<Commands>,
    folder: PathBuf,
    sharing: tokio::sync::Mutex<Sharing>,
    _epoch_lock: EpochLock,
}

/// How a run went.
pub struct Report {
    pub id: String,
    pub tally: Tally,
    pub stopped: Option<StopReason>,
    pub not_needed: u64,
    /// Whether `until.kept` was reached, when it was asked for.
    pub reached: bool,
    pub until: Until,
    /// Batches that go on at their providers.
    pub batches: Vec<Batch>,
    pub published: Option<Published>,
    /// Rows of the epoch that stay published, because this run kept none and failed some.
    pub spared: Option<u64>,
    /// Where the kept rows of a preview are.
    pub preview: Option<PathBuf>,
    /// Where rejects and failures are.
    pub folder: PathBuf,
    /// How the endpoints of each teacher fared.
    pub endpoints: IndexMap<String, Vec<Account>>,
    pub started_unix_ms: i64,
    pub ended_unix_ms: i64,
}

/// What came of the engine and the writer.
struct Driven {
    finish: Finish,
    published: Option<Published>,
    spared: Option<u64>,
}

/// Why a run could not start or could not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the run cannot start")]
    Problems(Vec<Problem>),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Write(#[from] crate::data::write::WriteError),
    #[error("{0}")]
    Io(String),
}

/// The nearest folder above a pipeline file that has a `.textmill/`, else the file's own folder.
pub fn workspace(base: &Path) -> PathBuf {
    let full = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
    let found = full.ancestors().find(|folder| folder.join(".textmill").is_dir()).map(Path::to_owned);
    found.unwrap_or(full)
}

impl Run {
    /// Opens the store, checks the target, starts the teachers. Nothing is asked yet.
    pub async fn prepare(
        pipeline: Pipeline,
        file_text: String,
        store: Store,
        workspace: &Path,
        options: Options,
        machine: &Machine,
    ) -> Result<Run, RunError> {
        let started = clock::unix_ms();
        let epoch_lock = store.lock_epoch(&pipeline.file.name, &options.epoch)?;
        let (id, folder) = make_run_folder(workspace, &pipeline.file.name, started)?;
        let control = Control::default();
        let wall = Wall::default();
        let limits = limits(&pipeline, &store, &options.epoch, wall.day())?;
        let per_day = pipeline.file.budget.and_then(|budget| budget.per_day);
        let budget = Budget::new(limits, per_day.unwrap_or_default().at_cap, wall);
        let mut desk = Desk::new(store.clone(), budget, control.clone(), &pipeline.file.name, &options.epoch);
        desk.fresh = fresh_since(&options, &store, &pipeline.file.name, started)?;
        desk.retry_failed = options.retry_failed.then_some(started);
        let file_hash = text_hash(&file_text);
        let sources = sources::read(&pipeline).map_err(|error| RunError::Problems(vec![error.into()]))?;
        let mut warnings = sources::changes(&sources, &store, workspace, &pipeline, &options.epoch)?;
        warnings.extend(goes_on_fresh(&options, &desk.fresh));
        sources::keep(&sources, &folder)?;
        let mut ended =
            store.runs(None, RUNS_MAX)?.into_iter().filter(|run| run.status != RunStatus::Running);
        let after_crash = ended.next().is_some_and(|run| run.status == RunStatus::Crashed);
        let teachers = teachers::start(&pipeline, &folder, machine, after_crash).await;
        let teachers = teachers.map_err(RunError::Problems)?;
        desk.trays = Tray::of(teachers.by_name.values(), &id, started);
        store.drop_waiting(&pipeline.file.name, &options.epoch, &id).await?;
        let sharing = Sharing::begin(&store, teachers.shared())?;
        store
            .begin_run(NewRun {
                id: id.clone(),
                pipeline: pipeline.file.name.clone(),
                epoch: options.epoch.clone(),
                started_unix_ms: started,
                pid: std::process::id(),
                file_hash: file_hash.clone(),
                file: file_text.clone(),
                options: json!({"fresh": &desk.fresh, "rows": options.rows}).to_string(),
            })
            .await?;
        let progress = Arc::new(Progress::new(pipeline.steps.len()));
        Ok(Run {
            id,
            control,
            desk: Arc::new(desk),
            progress,
            warnings,
            pipeline: Arc::new(pipeline),
            sources,
            file_text,
            file_hash,
            options,
            store,
            teachers,
            commands: Arc::new(machine.commands()),
            folder,
            sharing: sharing.into(),
            _epoch_lock: epoch_lock,
        })
    }

    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    pub fn teachers(&self) -> &IndexMap<String, Arc<Teacher>> {
        &self.teachers.by_name
    }

    /// Runs to the end, or until it is stopped; what was started is stopped in either case.
    pub async fn go(self) -> Result<Report, RunError> {
        let started_unix_ms = clock::unix_ms();
        let ended = tokio::select! {
            ended = self.drive(started_unix_ms) => ended,
            never = self.live_with_others() => match never {},
        };
        let ended_unix_ms = clock::unix_ms();
        let (status, summary) = match &ended {
            Ok(Driven { finish, published, .. }) => {
                let status = if finish.complete { RunStatus::Finished } else { RunStatus::Stopped };
                (status, self.summary(finish, published.as_ref()))
            }
            Err(error) => (RunStatus::Failed, json!({"error": error.to_string()})),
        };
        self.teachers.stop().await;
        let recorded = self.store.end_run(&self.id, status, ended_unix_ms, &summary).await;
        let Driven { finish, published, spared } = ended?;
        recorded?;
        let until = self.until();
        let batches = self.batches_left()?;
        Ok(Report {
            id: self.id,
            tally: finish.tally,
            stopped: self.control.reason().filter(|_| !finish.complete),
            preview: self.options.rows.map(|_| self.folder.join(PREVIEW)),
            not_needed: finish.not_needed,
            // A preview is not asked for its number of rows.
            reached: finish.reached || self.options.rows.is_some(),
            until,
            batches,
            published,
            spared,
            endpoints: endpoints(&self.teachers),
            folder: self.folder,
            started_unix_ms,
            ended_unix_ms,
        })
    }

    /// What goes on beside the calls: what other processes spend is followed, what dead ones left put right.
    async fn live_with_others(&self) -> Infallible {
        tokio::join!(self.follow_day(), self.bury_the_dead(), self.share()).0
    }

    async fn follow_day(&self) -> Infallible {
        if !self.desk.budget.per_day().is_none() {
            self.desk.follow_day().await;
        }
        std::future::pending().await
    }

    async fn share(&self) -> Infallible {
        self.sharing.lock().await.go_on().await;
        std::future::pending().await
    }

    async fn bury_the_dead(&self) -> Infallible {
        loop {
            tokio::time::sleep(BURY_EVERY).await;
            // An error is met by the calls, too, and told there.
            let _ = self.store.bury_the_dead().await;
        }
    }

    async fn drive(&self, started_unix_ms: i64) -> Result<Driven, RunError> {
        let stages = Arc::new(self.stages()?);
        let rows = source::open(&self.pipeline, &self.options).map_err(RunError::Problems)?;
        let rows = source::scrubbed(rows, Arc::clone(&self.teachers.secrets));
        let source = source::feed(rows, self.options.rows);
        self.count_rows();
        let output = output::Output::create(&self.pipeline, &self.options, &self.folder, &self.store)?;
        let (sink, ends) = tokio::sync::mpsc::channel(1024);
        let writing = tokio::task::spawn_blocking(move || output.write(ends));
        let engine = Engine {
            stages,
            settings: self.settings(),
            until: self.until(),
            control: self.control.clone(),
            progress: Arc::clone(&self.progress),
        };
        let clerks = batch::start(&self.desk, &self.teachers.by_name, &self.folder);
        // A task, and not a part of this one: the runtime's threads need no waking of another thread for each row.
        let engine = AbortOnDropHandle::new(tokio::spawn(engine.run(source, sink)));
        let finish = engine.await.unwrap_or_else(|ended| match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(ended) => Err(std::io::Error::other(ended)),
        });
        clerks.end().await;
        let finish = finish.map_err(|error| RunError::Io(waiting_rows(&error)))?;
        let written =
            writing.await.map_err(|error| RunError::Io(format!("the writer ended early: {error}")))?;
        let written = written?;
        let epoch = &self.options.epoch;
        // Rows that failed are not decided: they take nothing from the place of those that were kept.
        let spared = (finish.tally.failed > 0).then(|| written.would_be_emptied(epoch)).flatten();
        let worth = finish.complete || (self.options.partial && written.betters_what_is_there(epoch));
        if !worth || spared.is_some() {
            written.keep_aside()?;
            return Ok(Driven { finish, published: None, spared });
        }
        let published = written.publish(self, &finish, started_unix_ms)?;
        // A preview is there to be looked at, in the run's own folder.
        let published = self.options.rows.is_none().then_some(published);
        Ok(Driven { finish, published, spared })
    }

    /// The batches of this run that have not ended.
    fn batches_left(&self) -> Result<Vec<Batch>, RunError> {
        let asked = self.teachers.by_name.values().filter(|teacher| teacher.batches.is_some());
        let left = asked.map(|teacher| self.store.living_batches(&batch::batches_of(teacher), &self.id));
        Ok(left.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Counts the source's rows beside the run, for the display.
    fn count_rows(&self) {
        let (pipeline, options) = (Arc::clone(&self.pipeline), self.options.clone());
        let progress = Arc::clone(&self.progress);
        tokio::task::spawn_blocking(move || {
            let rows = source::expected(&pipeline, &options).unwrap_or(0);
            progress.rows_expected.store(rows, Ordering::Relaxed);
        });
    }

    fn stages(&self) -> Result<Stages, RunError> {
        let indexes = Some(self.store.indexes());
        let steps =
            build_steps(&self.pipeline, &self.teachers, &self.desk, &self.commands, indexes.as_ref())?;
        Ok(Stages::new(steps, self.pipeline.columns.clone()))
    }

    /// The engine's bounds: enough rows at work to keep every teacher's places filled.
    fn settings(&self) -> Settings {
        let places: usize = self.teachers.by_name.values().map(|teacher| teacher.places()).sum();
        let mut settings = self.options.settings.clone();
        settings.active_max = settings.active_max.max(places + places.min(ROWS_READY_MAX));
        // While one batch is away, the next one may fill.
        let items = self.desk.trays.values().map(|tray| tray.items_max() as u64).max().unwrap_or(0);
        settings.window_rows = settings.window_rows.max(items * 2);
        settings.spill_folder = Some(self.folder.clone());
        settings
    }

    /// When the run has enough.
    pub fn until(&self) -> Until {
        until(&self.pipeline)
    }

    /// What the store keeps of the run: the balance, the calls, the money.
    fn summary(&self, finish: &Finish, published: Option<&Published>) -> serde_json::Value {
        let name_of = |step: usize| self.pipeline.steps.get(step).map(|step| step.name.clone());
        json!({
            "tally": finish.tally,
            "not_needed": finish.not_needed,
            "reports": reports_json(finish, name_of),
            "calls": self.desk.monitor.to_json(name_of),
            "endpoints": accounts_json(&endpoints(&self.teachers)),
            "stopped": self.control.reason().map(|reason| reason.sentence()),
            "dataset": published.map(|published| published.folder.display().to_string()),
        })
    }

    pub(crate) fn file_text(&self) -> &str {
        &self.file_text
    }

    pub(crate) fn file_hash(&self) -> &str {
        &self.file_hash
    }

    pub(crate) fn sources(&self) -> &[SourceRecord] {
        &self.sources
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }
}

/// What steps have to tell, by their names.
fn reports_json(finish: &Finish, name_of: impl Fn(usize) -> Option<String>) -> serde_json::Value {
    let named = finish.reports.iter().filter_map(|(step, report)| Some((name_of(*step)?, report.clone())));
    serde_json::Value::Object(named.collect())
}

fn endpoints(teachers: &teachers::Started) -> IndexMap<String, Vec<Account>> {
    teachers.by_name.iter().map(|(name, teacher)| (name.clone(), teacher.pool.accounts())).collect()
}

/// The accounts of endpoints by teacher, as programs read them.
pub fn accounts_json(endpoints: &IndexMap<String, Vec<Account>>) -> serde_json::Value {
    let listed = |accounts: &Vec<Account>| accounts.iter().map(Account::to_json).collect();
    let by_teacher = endpoints.iter().map(|(name, accounts)| (name.clone(), listed(accounts)));
    serde_json::Value::Object(by_teacher.collect())
}

fn until(pipeline: &Pipeline) -> Until {
    let until = pipeline.file.source.sample.as_ref().and_then(|sample| sample.until.as_ref());
    until.map_or(Until::default(), |until| Until { kept: until.kept, tried: until.tried })
}

/// Builds every step of a pipeline for the epoch of a desk. May read files and save indexes of published data in
/// the folder that is given; starts nothing.
fn build_steps(
    pipeline: &Pipeline,
    teachers: &teachers::Started,
    desk: &Arc<Desk>,
    commands: &Arc<Commands>,
    indexes: Option<&PathBuf>,
) -> Result<Vec<StepRunners>, RunError> {
    let templates = pipeline.templates();
    let mut steps = Vec::new();
    for (step_index, step) in pipeline.steps.iter().enumerate() {
        let kit = Kit {
            templates: templates.clone(),
            base: pipeline.base.clone(),
            seed: pipeline.file.seed,
            epoch: Arc::clone(&desk.epoch),
            step: step.name.as_str().into(),
            step_index,
            teachers: Arc::clone(&teachers.by_name),
            desk: Arc::clone(desk),
            commands: Arc::clone(commands),
            target: pipeline.base.join(&pipeline.file.save.parquet),
            indexes: indexes.cloned(),
        };
        let wrong = |error: anyhow::Error| RunError::Io(format!("step `{}`: {error}", step.name));
        let when = step.when.as_deref().map(|when| kit.expression(when)).transpose().map_err(wrong)?;
        let runners = step.op.operator().build(&kit).map_err(wrong)?;
        steps.push(StepRunners { name: step.name.clone(), when, runners });
    }
    Ok(steps)
}

/// Most rows that are held ready beside those whose calls are in flight: enough to fill every place that falls
/// free in an instant, and about 14 MiB.
const ROWS_READY_MAX: usize = 2048;
/// How often it is seen to what processes have left that died.
const BURY_EVERY: Duration = Duration::from_secs(2);

/// How far back the last run of an epoch is looked for.
const RUNS_MAX: u32 = 100;

/// The epoch's last run. Previews neither finish nor begin anything.
fn last_run(store: &Store, pipeline: &str, epoch: &str) -> Result<Option<StoredRun>, StoreError> {
    let is_preview = |run: &StoredRun| {
        serde_json::from_str::<serde_json::Value>(&run.options).is_ok_and(|options| options["rows"].is_u64())
    };
    let mut runs = store.runs(Some(pipeline), RUNS_MAX)?.into_iter();
    Ok(runs.find(|run| run.epoch == epoch && !is_preview(run)))
}

/// Since when the replies of fresh steps count: since this run began, or since an unfinished run of the
/// epoch began that asked for the same. A run that resumes it goes on with that, told again or not: a dataset
/// of old and new replies is nobody's wish.
fn fresh_since(
    options: &Options,
    store: &Store,
    pipeline: &str,
    started_unix_ms: i64,
) -> Result<HashMap<String, i64>, StoreError> {
    let asked: HashMap<String, i64> = last_run(store, pipeline, &options.epoch)?
        // That one is resumed by a run of the epoch.
        .filter(|run| run.status != RunStatus::Finished)
        .and_then(|run| serde_json::from_str::<serde_json::Value>(&run.options).ok())
        .and_then(|options| serde_json::from_value(options["fresh"].clone()).ok())
        .unwrap_or_default();
    let since = |step: &String| (step.clone(), asked.get(step).copied().unwrap_or(started_unix_ms));
    let told: HashMap<String, i64> = options.fresh.iter().map(since).collect();
    // A preview resumes nothing.
    Ok(if options.rows.is_none() { asked.into_iter().chain(told).collect() } else { told })
}

/// Says which steps are asked anew though this run was not told so.
fn goes_on_fresh(options: &Options, fresh: &HashMap<String, i64>) -> Option<Problem> {
    let mut steps: Vec<&str> =
        fresh.keys().filter(|step| !options.fresh.contains(step)).map(String::as_str).collect();
    steps.sort_unstable();
    let steps = steps.join("`, `");
    let message =
        format!("the last run was not finished and asked `{steps}` afresh; this one goes on with that");
    (!steps.is_empty()).then(|| Problem::warning(Place::Nowhere, message))
}

fn waiting_rows(error: &std::io::Error) -> String {
    format!("rows that wait for their turn cannot be kept on disk: {error}; free some space and run again")
}

/// The limits of a run in an epoch, with what the ledger has for each.
fn limits(pipeline: &Pipeline, store: &Store, epoch: &str, today: i64) -> Result<Vec<Limit>, StoreError> {
    let name = &pipeline.file.name;
    let limits = budgets(&pipeline.file, &pipeline.steps).into_iter().map(|budget| {
        let sum = match &budget.of {
            Of::Epoch => Some(Charge::epoch(name, epoch)),
            Of::Step { name: step, .. } => Some(Charge::step(name, epoch, step)),
            Of::Day => Some(Charge::day(today)),
            Of::Run => None,
        };
        let Spent { settled, reserved, batched, .. } =
            sum.map(|sum| store.spent(&sum)).transpose()?.unwrap_or_default();
        Ok(Limit { of: budget.of, caps: budget.caps.caps(), spent: settled.plus(reserved), batched })
    });
    limits.collect()
}

/// Where a run keeps its rejects, failures and logs.
fn run_folder(workspace: &Path, id: &str) -> PathBuf {
    workspace.join(".textmill/runs").join(id)
}

/// The folder of a preview's kept rows, in the run's folder.
const PREVIEW: &str = "preview";

/// Names a run and makes its folder. Two runs of a pipeline (of two epochs) may start in one instant.
fn make_run_folder(workspace: &Path, pipeline: &str, started: i64) -> Result<(String, PathBuf), RunError> {
    let wrong = |folder: &Path, error| RunError::Io(format!("cannot make `{}`: {error}", folder.display()));
    for unix_ms in started.. {
        let id = run_id(pipeline, unix_ms);
        let folder = run_folder(workspace, &id);
        let runs = folder.parent().unwrap_or(workspace);
        std::fs::create_dir_all(runs).map_err(|error| wrong(runs, error))?;
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| (id, folder.clone())).map_err(|error| wrong(&folder, error)),
        }
    }
    Err(RunError::Io("no run can be named any more".to_owned()))
}

/// Sorts by time and tells pipelines apart: `20261123T211805.123Z-stories`.
fn run_id(pipeline: &str, unix_ms: i64) -> String {
    let stamp = clock::rfc3339(unix_ms).replace(['-', ':'], "");
    format!("{}.{:03}Z-{pipeline}", stamp.trim_end_matches('Z'), unix_ms.rem_euclid(1000))
}
