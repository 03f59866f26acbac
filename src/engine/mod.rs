//! The engine: a streaming executor for chains of decisions about rows around slow, paid, failing calls.
//!
//! All steps run at once. One row is one task ([`stages`]); one coordinator, here, owns the order of
//! rows ([`order`]), the folds' states, the accounts ([`tally`]) and the only back-pressure there is: a
//! window at the source. Queues between steps never block, and the oldest row may always pass, so
//! there is nothing to deadlock. The engine knows no teacher, no file and no database.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::call::{Control, StopReason};
use crate::engine::ahead::{Way, Yield};
use crate::engine::order::{Order, Passing, Standing};
use crate::engine::parked::Parked;
use crate::engine::spill::{Held, Spill, Weight};
use crate::engine::stages::{Stages, end_of};
use crate::engine::tally::Tally;
use crate::ops::{Decision, FoldKey, FoldState};
use crate::row::{Failure, Fields, Reason, Row, RowId, Value};

mod ahead;
pub mod order;
mod parked;
pub mod spill;
pub mod stages;
pub mod tally;
#[cfg(test)]
mod tests;

/// How far the engine may run ahead.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Source rows from the oldest open one to the newest. Generous, because waiting rows spill: one
    /// call that hangs a minute at 1,000 rows/s is 60,000 rows.
    pub window_rows: u64,
    /// Rows at work at once, over all steps.
    pub active_max: usize,
    /// Bytes of rows at work at once.
    pub active_bytes_max: usize,
    /// Bytes of rows that wait for order in memory; past it they wait on disk.
    pub held_bytes_max: usize,
    /// Where they wait; the system's folder for temporary files by default.
    pub spill_folder: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            window_rows: 100_000,
            active_max: 1024,
            active_bytes_max: 256 << 20,
            held_bytes_max: 64 << 20,
            spill_folder: None,
        }
    }
}

/// `until:`: stop when this many rows are kept, or this many were tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Until {
    pub kept: Option<u64>,
    pub tried: Option<u64>,
}

/// How a row ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum End {
    Kept,
    Rejected { step: usize, reason: Reason },
    Failed { step: usize, failure: Failure },
    Split { step: usize, children: u32 },
}

impl End {
    /// The step that came to it; the end of all steps has none.
    fn step(&self) -> Option<usize> {
        match self {
            End::Kept => None,
            End::Rejected { step, .. } | End::Failed { step, .. } | End::Split { step, .. } => Some(*step),
        }
    }
}

/// A row and its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub row: Row,
    pub end: End,
}

/// A row in front of a fold or a group; no key when the step's `when` does not hold for it.
#[derive(Serialize, Deserialize)]
pub struct Arrived {
    pub row: Row,
    pub key: Option<FoldKey>,
}

impl Weight for Row {
    fn bytes(&self) -> usize {
        Row::bytes(self)
    }
}

impl Weight for Ended {
    fn bytes(&self) -> usize {
        self.row.bytes()
    }
}

impl Weight for Arrived {
    fn bytes(&self) -> usize {
        self.row.bytes() + self.key.as_ref().map_or(0, |key| key.len() * 8)
    }
}

/// What a row's task reports.
pub enum Event {
    Arrived {
        fold: usize,
        arrived: Arrived,
    },
    Split {
        row: Row,
        step: usize,
        segment: usize,
        next: usize,
        children: Vec<Fields>,
    },
    Ended {
        segment: usize,
        ended: Ended,
    },
    /// The run is stopping or the row is not needed; it stays open.
    Stopped {
        id: RowId,
        step: usize,
        /// Whether a teacher had answered for it before.
        asked: bool,
    },
    /// The row waits, as it came to the stage, for an answer that takes hours.
    Parked {
        row: Row,
        stage: usize,
    },
    Bug(String),
}

/// Where the rows are right now; for the progress display.
#[derive(Default)]
pub struct Progress {
    steps: Vec<StepProgress>,
    pub rows_in: AtomicU64,
    /// Children opened minus parents ended by splits.
    pub split_off: AtomicU64,
    /// How many rows the source has; 0 while that is not known.
    pub rows_expected: AtomicU64,
    pub kept: AtomicU64,
    pub rejected: AtomicU64,
    pub failed: AtomicU64,
}

/// The rows of one step so far.
#[derive(Default)]
pub struct StepProgress {
    pub entered: AtomicU64,
    /// Rows that went on to the next step.
    pub passed: AtomicU64,
    pub rejected: AtomicU64,
    pub failed: AtomicU64,
}

impl Progress {
    pub fn new(steps: usize) -> Progress {
        Progress { steps: (0..steps).map(|_| Default::default()).collect(), ..Progress::default() }
    }

    /// The share of the work that is done, as far as it can be told: by the rows kept where a number is
    /// wanted, else by the source's rows and what they split into so far.
    pub fn share(&self, kept_wanted: Option<u64>) -> Option<f64> {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed) as f64;
        let (rows_in, expected) = (count(&self.rows_in), count(&self.rows_expected));
        let ended = count(&self.kept) + count(&self.rejected) + count(&self.failed);
        let whole = expected * (rows_in + count(&self.split_off)) / rows_in;
        let tried = (rows_in > 0.0 && expected > 0.0).then(|| ended / whole);
        let kept = kept_wanted.map(|wanted| count(&self.kept) / wanted.max(1) as f64);
        // Whichever is nearer to its end comes to it first.
        [tried, kept].into_iter().flatten().reduce(f64::max).map(|share| share.clamp(0.0, 1.0))
    }

    fn enter(&self, step: usize) {
        self.steps[step].entered.fetch_add(1, Ordering::Relaxed);
    }

    /// The row will enter once more.
    fn take_back(&self, step: usize) {
        self.steps[step].entered.fetch_sub(1, Ordering::Relaxed);
    }

    fn pass(&self, step: usize, rows: u64) {
        self.steps[step].passed.fetch_add(rows, Ordering::Relaxed);
    }

    fn end(&self, end: &End) {
        // A pipeline without steps can still save a value that does not fit its column.
        let of = |step: &usize| self.steps.get(*step);
        let (all, of_step) = match end {
            End::Kept => (&self.kept, None),
            End::Rejected { step, .. } => (&self.rejected, of(step).map(|step| &step.rejected)),
            End::Failed { step, .. } => (&self.failed, of(step).map(|step| &step.failed)),
            End::Split { children, .. } => {
                self.split_off.fetch_add(u64::from(*children).saturating_sub(1), Ordering::Relaxed);
                return;
            }
        };
        for count in [Some(all), of_step].into_iter().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn step(&self, step: usize) -> &StepProgress {
        &self.steps[step]
    }
}

/// What the engine reads: rows in ascending ordinals, or why the source cannot go on.
pub type SourceItem = Result<Row, String>;

/// A run of a pipeline's rows.
pub struct Engine {
    pub stages: Arc<Stages>,
    pub settings: Settings,
    pub until: Until,
    pub control: Control,
    pub progress: Arc<Progress>,
}

/// How a run of the engine went.
pub struct Finish {
    pub tally: Tally,
    /// Rows worked on that turned out not to be needed.
    pub not_needed: u64,
    /// Whether `until.kept` was reached, when it was asked for.
    pub reached: bool,
    /// Whether every row that was needed came to an end.
    pub complete: bool,
    /// What steps have to tell, by their positions.
    pub reports: BTreeMap<usize, Value>,
}

impl Engine {
    /// Runs all rows; every end goes to `sink` in row order. A closed sink stops the run.
    pub async fn run(
        self,
        source: mpsc::Receiver<SourceItem>,
        sink: mpsc::Sender<Ended>,
    ) -> std::io::Result<Finish> {
        let (events, inbox) = mpsc::unbounded_channel();
        let groups = self.stages.groups();
        let ways = vec![Way::default(); groups.len()];
        let coordinator = Coordinator {
            order: Order::new(
                groups,
                Spill::new(self.settings.held_bytes_max, self.settings.spill_folder.clone()),
            ),
            states: self.stages.fold_states(),
            tally: Tally::new(&self.stages.steps),
            engine: self,
            source: Some(source),
            sink,
            events,
            active: 0,
            active_bytes: 0,
            rows_in: 0,
            cut: None,
            not_needed: 0,
            stopped_at: BTreeMap::new(),
            children_not_needed: BTreeMap::new(),
            ready: BTreeMap::new(),
            parked: Parked::default(),
            source_ended: false,
            released_kept: 0,
            kept: Yield::default(),
            ways,
        };
        coordinator.run(inbox).await
    }
}

/// The one owner of a run's state.
struct Coordinator {
    engine: Engine,
    order: Order,
    /// The folds' states; a group has none.
    states: Vec<Option<Box<dyn FoldState>>>,
    tally: Tally,
    source: Option<mpsc::Receiver<SourceItem>>,
    sink: mpsc::Sender<Ended>,
    events: mpsc::UnboundedSender<(Event, usize)>,
    /// Row tasks that have not reported yet.
    active: usize,
    active_bytes: usize,
    rows_in: u64,
    /// The row after which nothing is needed.
    cut: Option<RowId>,
    not_needed: u64,
    /// The steps at which rows were when the run stopped.
    stopped_at: BTreeMap<RowId, usize>,
    /// Children that a cut took away, by their parents, whose splits are in the accounts.
    children_not_needed: BTreeMap<RowId, u64>,
    /// Rows that were split off or woken and wait for room; the lowest goes first.
    ready: BTreeMap<RowId, (Held<Row>, usize)>,
    /// Rows that wait for answers that take hours.
    parked: Parked,
    /// Whether the source gave all rows that were asked of it.
    source_ended: bool,
    /// Kept rows released in order.
    released_kept: u64,
    /// How many rows were kept of those that came to an end so far, in any order.
    kept: Yield,
    /// How many rows came to each fold.
    ways: Vec<Way>,
}

impl Coordinator {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<(Event, usize)>) -> std::io::Result<Finish> {
        if let Err(error) = self.drive(&mut inbox).await {
            // Calls under way are finished and kept, whatever went wrong here.
            self.engine.control.stop(StopReason::Fatal(format!("rows cannot wait on disk: {error}")));
            while self.active > 0 && inbox.recv().await.is_some() {
                self.active -= 1;
            }
            return Err(error);
        }
        Ok(self.finish())
    }

    async fn drive(&mut self, inbox: &mut mpsc::UnboundedReceiver<(Event, usize)>) -> std::io::Result<()> {
        let stopping = self.engine.control.stopping();
        loop {
            self.wake();
            self.start_ready()?;
            self.pass_folds()?;
            self.release().await?;
            self.engine.control.lowest_is(self.order.lowest_open().as_ref());
            self.fill();
            if self.source_ended && self.order.end_source() {
                // Now what waits for all rows may go on.
                continue;
            }
            let admits = self.admits();
            let still = self.active == 0 && !admits;
            if still && (self.parked.is_empty() || self.engine.control.is_stopping()) {
                return Ok(());
            }
            self.engine.control.parking().stands_still(still);
            tokio::select! {
                biased;
                Some((event, bytes)) = inbox.recv(), if self.active > 0 => {
                    self.handle(event, bytes)?;
                    // A burst of events is handled before the next look at the source.
                    for _ in 0..256 {
                        let Ok((event, bytes)) = inbox.try_recv() else { break };
                        self.handle(event, bytes)?;
                    }
                }
                item = next(&mut self.source), if admits => self.admit(item),
                () = self.engine.control.parking().rung(), if !self.parked.is_empty() => {}
                () = stopping.cancelled(), if self.source.is_some() || still => self.source = None,
            }
        }
    }

    /// Starts every source row that is there and may start: one a turn would starve the calls.
    fn fill(&mut self) {
        while self.admits() {
            let Some(source) = &mut self.source else { return };
            match source.try_recv() {
                Ok(item) => self.admit(Some(item)),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => self.admit(None),
            }
        }
    }

    /// Whether another source row may start.
    fn admits(&self) -> bool {
        let settings = &self.engine.settings;
        if self.source.is_none() || self.cut.is_some() || self.engine.control.is_stopping() {
            return false;
        }
        if self.engine.until.tried.is_some_and(|tried| self.rows_in >= tried) {
            return false;
        }
        if self.active == 0 && self.order.open_count() == 0 {
            return true;
        }
        self.order.rows_ahead() < settings.window_rows
            && self.ready.is_empty()
            && self.has_room()
            && self.yield_wants_more()
    }

    /// Whether another row may be at work.
    fn has_room(&self) -> bool {
        let settings = &self.engine.settings;
        self.active < settings.active_max && self.active_bytes < settings.active_bytes_max
    }

    /// Whether the open rows are too few for all that the run still takes: under `until.kept` for the dataset,
    /// and for every fold that ends after a number of rows. What lies behind a barrier wants every row.
    fn yield_wants_more(&self) -> bool {
        let kept_wanted = self.engine.until.kept.is_none_or(|wanted| {
            self.kept.wants_more(self.order.open_count(), wanted.saturating_sub(self.kept.came()))
        });
        let folds_want = self.states.iter().zip(&self.ways).enumerate().all(|(fold, (state, way))| {
            let takes = state.as_ref().and_then(|state| state.takes());
            takes.is_none_or(|takes| {
                self.order.is_behind_barrier(fold) || way.wants_more(self.order.open_before(fold), takes)
            })
        });
        kept_wanted && folds_want
    }

    fn admit(&mut self, item: Option<SourceItem>) {
        match item {
            Some(Ok(row)) => {
                self.rows_in += 1;
                self.engine.progress.rows_in.fetch_add(1, Ordering::Relaxed);
                self.order.open_source(&row.id);
                self.start(row, 0);
                if self.engine.until.tried.is_some_and(|tried| self.rows_in >= tried) {
                    self.source = None;
                    self.source_ended = true;
                }
            }
            Some(Err(problem)) => {
                self.engine.control.stop(StopReason::Source(problem));
                self.source = None;
            }
            None => {
                self.source = None;
                self.source_ended = true;
            }
        }
    }

    /// Makes rows ready whose answers are there.
    fn wake(&mut self) {
        self.parked.wake(self.engine.control.parking().woken());
        self.ready.append(&mut self.parked.take_awake());
    }

    /// Starts rows that were split off or woken, while there is room; the oldest row may always pass.
    fn start_ready(&mut self) -> std::io::Result<()> {
        while let Some((id, _)) = self.ready.first_key_value() {
            if !self.has_room() && self.order.lowest_open().as_ref() != Some(id) {
                break;
            }
            if let Some((_, (held, stage))) = self.ready.pop_first() {
                let row = self.order.spill.take(held)?;
                self.start(row, stage);
            }
        }
        Ok(())
    }

    fn start(&mut self, row: Row, stage: usize) {
        self.active += 1;
        let bytes = row.bytes();
        self.active_bytes += bytes;
        let stages = Arc::clone(&self.engine.stages);
        let progress = Arc::clone(&self.engine.progress);
        let events = self.events.clone();
        tokio::spawn(async move {
            let id = row.id.clone();
            let way = std::panic::AssertUnwindSafe(stages.advance(row, stage, &progress));
            let event = way.catch_unwind().await;
            let event = event.unwrap_or_else(|_| Event::Bug(format!("a step panicked on row {id}")));
            // Only a coordinator that returned early is gone; nobody waits for the event then.
            let _ = events.send((event, bytes));
        });
    }

    fn handle(&mut self, event: Event, bytes: usize) -> std::io::Result<()> {
        self.active -= 1;
        self.active_bytes -= bytes;
        match event {
            Event::Arrived { fold, arrived } if self.order.needed(&arrived.row.id) => {
                let comes = arrived.key.is_some();
                self.ways[fold].seen.count(comes);
                self.ways[fold].waiting += u64::from(comes);
                self.order.arrive(fold, arrived)
            }
            Event::Split { row, step, segment, next, children } if self.order.needed(&row.id) => {
                self.split(row, step, segment, next, children)
            }
            Event::Ended { segment, ended } if self.order.needed(&ended.row.id) => self.end(segment, ended),
            Event::Parked { row, stage } if self.order.needed(&row.id) => {
                let id = row.id.clone();
                let held = self.order.spill.hold(row)?;
                self.parked.park(id, held, stage);
                Ok(())
            }
            Event::Stopped { id, step, .. } if self.order.needed(&id) => {
                self.stopped_at.insert(id, step);
                Ok(())
            }
            Event::Stopped { asked, .. } => {
                // Nothing was done for it if it only waited for its turn.
                self.not_needed -= u64::from(!asked);
                Ok(())
            }
            Event::Bug(what) => {
                self.engine.control.stop(StopReason::Fatal(format!("{what}; this is a bug in textmill")));
                Ok(())
            }
            Event::Arrived { .. } | Event::Split { .. } | Event::Ended { .. } | Event::Parked { .. } => {
                Ok(())
            }
        }
    }

    fn split(
        &mut self,
        row: Row,
        step: usize,
        segment: usize,
        next: usize,
        children: Vec<Fields>,
    ) -> std::io::Result<()> {
        let next_segment = self.engine.stages.segment(next);
        let count = u32::try_from(children.len()).unwrap_or(u32::MAX);
        for (fields, index) in children.into_iter().zip(0..count) {
            let child = row.child(index, fields);
            self.order.open_child(next_segment, child.id.clone());
            let id = child.id.clone();
            let held = self.order.spill.hold(child)?;
            self.ready.insert(id, (held, next));
        }
        // The parent ends after its children are open, so that no fold runs ahead of them.
        let empty = Row { fields: Fields::new(), ..row };
        self.end(segment, Ended { row: empty, end: End::Split { step, children: count } })
    }

    fn end(&mut self, segment: usize, ended: Ended) -> std::io::Result<()> {
        self.engine.progress.end(&ended.end);
        if !matches!(ended.end, End::Split { .. }) {
            self.kept.count(ended.end == End::Kept);
            self.ways.iter_mut().skip(segment).for_each(|way| way.seen.count(false));
        }
        let step = ended.end.step().unwrap_or_else(|| self.engine.stages.steps.len().saturating_sub(1));
        self.order.end(segment, step, ended)
    }

    /// Lets rows pass the folds that they wait at, the last fold first: it frees room.
    fn pass_folds(&mut self) -> std::io::Result<()> {
        for fold in (0..self.states.len()).rev() {
            self.pass(fold)?;
        }
        Ok(())
    }

    /// Lets every row pass a fold that may and has room behind it.
    fn pass(&mut self, fold: usize) -> std::io::Result<()> {
        let step = self.engine.stages.step_of_fold(fold);
        let stage = self.engine.stages.stage_of_fold(fold);
        while self.has_room() || self.order.next_is_lowest(fold) {
            self.decide_group(fold);
            let Some(Passing { arrived: Arrived { mut row, key }, decision }) = self.order.pass(fold)? else {
                return Ok(());
            };
            let of_fold = |key| self.states[fold].as_mut().map(|state| state.decide(&row.id, key));
            let decision = decision.or(key.and_then(of_fold));
            if let Some(decision) = &decision {
                self.ways[fold].waiting -= 1;
                if self.engine.stages.is_last(stage) && !matches!(decision, Decision::Reject(_)) {
                    self.engine.progress.pass(step, 1);
                }
            }
            let next = if decision.is_some() { stage + 1 } else { self.engine.stages.past_step(fold) };
            let mut decision = decision.unwrap_or(Decision::Keep);
            if let Decision::KeepWith(fields) = &mut decision {
                row.fields.append(fields);
            }
            // Behind a barrier every row was needed; the fold rejects the others itself.
            if decision == Decision::KeepAsLast && !self.order.is_behind_barrier(fold) {
                self.cut_after(&row.id.clone());
            }
            match end_of(decision, step) {
                None => self.start(row, next),
                Some(end) => self.end(fold + 1, Ended { row, end })?,
            }
        }
        Ok(())
    }

    /// Decides about the lowest group in front of it if that is complete.
    fn decide_group(&mut self, fold: usize) {
        let Some(group) = self.engine.stages.group(fold) else { return };
        let Some(rows) = self.order.complete_group(fold) else { return };
        let decisions = group.decide(&rows);
        let ids = rows.into_iter().map(|(id, _)| id);
        self.order.decide(fold, ids.zip(decisions));
    }

    /// Nothing above this row is needed any more.
    fn cut_after(&mut self, id: &RowId) {
        let away = self.order.cut(id);
        self.not_needed += away.len() as u64;
        self.children_not_needed.retain(|parent, _| parent.is_within(id));
        for parent in away.iter().filter_map(RowId::parent).filter(|parent| parent.is_within(id)) {
            *self.children_not_needed.entry(parent).or_default() += 1;
        }
        let ready = self.ready.extract_if(.., |row, _| !row.is_within(id));
        for (_, (held, _)) in ready.chain(self.parked.cut(id)) {
            self.order.spill.forget(&held);
        }
        self.cut = Some(id.clone());
        self.source = None;
        self.engine.control.cut(id.clone());
    }

    /// Hands on every end that no open row is below of.
    async fn release(&mut self) -> std::io::Result<()> {
        while let Some(ended) = self.order.release()? {
            let kept = ended.end == End::Kept;
            let id = ended.row.id.clone();
            self.tally.count(&ended);
            if self.sink.send(ended).await.is_err() {
                self.engine.control.stop(StopReason::Fatal("the writer stopped".to_owned()));
                return Ok(());
            }
            self.released_kept += u64::from(kept);
            if kept && self.engine.until.kept == Some(self.released_kept) {
                self.cut_after(&id);
            }
        }
        Ok(())
    }

    /// The step at which a row is that did not come to its end.
    fn step_of(&self, id: &RowId, standing: &Standing) -> usize {
        let stages = &self.engine.stages;
        match standing {
            Standing::Ended(step) => *step,
            Standing::Waiting(fold) => stages.step_of_fold(*fold),
            Standing::Working(segment) => {
                let first = || segment.checked_sub(1).map_or(0, |fold| stages.step_of_fold(fold));
                let parked = self.parked.stage_of(id).map(|stage| stages.step_of(stage));
                self.stopped_at.get(id).copied().or(parked).unwrap_or_else(first)
            }
        }
    }

    fn finish(mut self) -> Finish {
        let rows_in = match &self.cut {
            Some(cut) => self.rows_in.min(cut.ordinal + 1),
            None => self.rows_in,
        };
        for (parent, children) in &self.children_not_needed {
            self.tally.uncount_children(parent, *children);
        }
        for (id, standing) in self.order.unaccounted() {
            self.tally.count_open(self.step_of(id, &standing));
        }
        self.tally.close(rows_in);
        // A run whose accounts do not balance is not one to publish.
        let ended = self.source_ended || self.cut.is_some();
        let complete = ended && self.tally.open == 0 && self.tally.balances();
        let reached = self.engine.until.kept.is_none_or(|wanted| self.released_kept >= wanted);
        let report = |(fold, state): (usize, &Option<Box<dyn FoldState>>)| {
            Some((self.engine.stages.step_of_fold(fold), state.as_ref()?.report()?))
        };
        let reports = self.states.iter().enumerate().filter_map(report).collect();
        Finish { tally: self.tally, not_needed: self.not_needed, reached, complete, reports }
    }
}

async fn next(source: &mut Option<mpsc::Receiver<SourceItem>>) -> Option<SourceItem> {
    match source {
        Some(source) => source.recv().await,
        None => None,
    }
}
