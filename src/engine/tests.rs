//! The engine on rows in memory: order, cuts, windows, splits, spills. No teacher, no file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::mpsc;

use super::stages::{Stages, StepRunners};
use super::{End, Ended, Engine, Finish, Progress, Settings, Until};
use crate::call::{Control, Pause};
use crate::kit::Columns;
use crate::ops::{CallRow, Decision, FoldKey, FoldRow, FoldState, Limit, MapRow, Runner};
use crate::row::{Fields, Outcome, Reason, Row, RowId};

mod groups;

/// A step from a function.
struct Map<F>(F);

impl<F: Fn(Row) -> Outcome + Send + Sync> MapRow for Map<F> {
    fn map(&self, row: Row) -> Outcome {
        (self.0)(row)
    }
}

/// A call that takes a while that hangs on the row, the lower the longer.
struct Slow {
    calls: Arc<AtomicU64>,
    hang: Option<RowId>,
    control: Control,
}

impl CallRow for Slow {
    fn call(&self, row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        async move {
            let millis =
                if self.hang.as_ref() == Some(&row.id) { 60_000 } else { 1 + 97 * (row.id.ordinal % 7) };
            if !self.control.wants(&row.id) {
                return Err(Pause::Stopped);
            }
            self.calls.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok(Outcome::Keep(row))
        }
        .boxed()
    }
}

/// Rejects every row whose number was seen before; keeps at most `limit`.
struct Distinct {
    limit: Option<usize>,
}

struct Seen {
    keys: Vec<FoldKey>,
    order: Vec<RowId>,
    kept: usize,
    limit: Option<usize>,
}

impl FoldRow for Distinct {
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        Ok(vec![row.fields["n"].as_u64().unwrap()])
    }

    fn start(&self) -> Box<dyn FoldState> {
        Box::new(Seen { keys: Vec::new(), order: Vec::new(), kept: 0, limit: self.limit })
    }
}

impl FoldState for Seen {
    fn decide(&mut self, row: &RowId, key: FoldKey) -> Decision {
        assert!(self.order.last().is_none_or(|last| last < row), "{row} came after {:?}", self.order.last());
        self.order.push(row.clone());
        if self.keys.contains(&key) {
            return Decision::Reject(Reason::new("duplicate", json!(null)));
        }
        self.keys.push(key);
        self.kept += 1;
        if Some(self.kept) == self.limit { Decision::KeepAsLast } else { Decision::Keep }
    }
}

struct Case {
    rows: u64,
    steps: Vec<Runner>,
    settings: Settings,
    until: Until,
    control: Control,
}

impl Case {
    fn new(rows: u64, steps: Vec<Runner>) -> Case {
        Case {
            rows,
            steps,
            settings: Settings::default(),
            until: Until::default(),
            control: Control::default(),
        }
    }

    /// Runs the case; the ends in the order that they were handed on.
    async fn run(self) -> (Finish, Vec<(String, String)>) {
        let step = |(index, runner): (usize, Runner)| StepRunners {
            name: format!("s{index}"),
            when: None,
            runners: vec![runner],
        };
        let stages = Stages::new(self.steps.into_iter().enumerate().map(step).collect(), Columns::new());
        let progress = Arc::new(Progress::new(stages.steps.len()));
        let (sender, source) = mpsc::channel(8);
        tokio::spawn(async move {
            for n in 0..self.rows {
                let fields: Fields = [("n".to_owned(), json!(n % 10))].into_iter().collect();
                if sender.send(Ok(Row::new(RowId::root(n), fields))).await.is_err() {
                    return;
                }
            }
        });
        let (sink, mut ends) = mpsc::channel::<Ended>(4);
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            while let Some(ended) = ends.recv().await {
                read.push((ended.row.id.to_string(), name_of(&ended.end)));
            }
            read
        });
        let engine = Engine {
            stages: Arc::new(stages),
            settings: self.settings,
            until: self.until,
            control: self.control,
            progress: Arc::clone(&progress),
        };
        let finish = engine.run(source, sink).await.unwrap();
        if finish.complete && finish.not_needed == 0 {
            agree(&progress, &finish);
        }
        (finish, reading.await.unwrap())
    }
}

/// What the display counted while it went is what the accounts say in the end.
fn agree(progress: &Progress, finish: &Finish) {
    for (index, counted) in finish.tally.steps.iter().enumerate() {
        let seen = progress.step(index);
        let seen =
            [&seen.entered, &seen.passed, &seen.rejected, &seen.failed].map(|n| n.load(Ordering::Relaxed));
        let [rejected, failed] = [&counted.rejected, &counted.failed].map(|codes| codes.values().sum());
        assert_eq!(seen, [counted.rows_in, counted.rows_out, rejected, failed], "step {index}");
    }
}

fn name_of(end: &End) -> String {
    match end {
        End::Kept => "kept".to_owned(),
        End::Rejected { reason, .. } => reason.code.to_string(),
        End::Failed { failure, .. } => failure.code.to_string(),
        End::Split { children, .. } => format!("split {children}"),
    }
}

fn slow(control: &Control, calls: &Arc<AtomicU64>, hang: Option<RowId>) -> Runner {
    Runner::Call(Box::new(Slow { calls: Arc::clone(calls), hang, control: control.clone() }))
}

fn split_in(children: usize) -> Runner {
    Runner::Map(Box::new(Map(move |row: Row| {
        let fields = (0..children).map(|index| {
            let mut fields = row.fields.clone();
            fields.insert("n".to_owned(), json!(row.id.ordinal * 1000 + index as u64));
            fields
        });
        let fields = fields.collect();
        Outcome::split(row, fields)
    })))
}

/// Keeps every third row.
fn third() -> Runner {
    Runner::Map(Box::new(Map(|row: Row| {
        if row.id.ordinal.is_multiple_of(3) {
            Outcome::Keep(row)
        } else {
            Outcome::Reject(row, Reason::new("no", json!(null)))
        }
    })))
}

fn ids(ends: &[(String, String)], end: &str) -> Vec<String> {
    ends.iter().filter(|(_, name)| name == end).map(|(id, _)| id.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn folds_see_row_order_and_ends_come_in_row_order() {
    let (control, calls) = (Control::default(), Arc::default());
    let steps = vec![
        slow(&control, &calls, None),
        Runner::Fold(Box::new(Distinct { limit: None })),
        slow(&control, &calls, None),
        Runner::Fold(Box::new(Distinct { limit: None })),
    ];
    let (finish, ends) = Case::new(300, steps).run().await;
    assert_eq!(ids(&ends, "kept"), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(ids(&ends, "duplicate").len(), 290);
    let order: Vec<u64> = ends.iter().map(|(id, _)| id.parse().unwrap()).collect();
    assert!(order.is_sorted());
    assert!(finish.tally.balances());
    assert_eq!((finish.tally.steps[1].rows_in, finish.tally.steps[1].rows_out), (300, 10));
}

#[tokio::test(start_paused = true)]
async fn window_one_with_a_hundred_children_a_row_ends() {
    let (control, calls) = (Control::default(), Arc::default());
    let steps = vec![
        split_in(100),
        slow(&control, &calls, None),
        Runner::Fold(Box::new(Distinct { limit: None })),
        split_in(2),
    ];
    let mut case = Case::new(5, steps);
    case.settings.window_rows = 1;
    case.settings.active_max = 1;
    let (finish, ends) = case.run().await;
    assert_eq!(ids(&ends, "kept").len(), 1000);
    assert_eq!((finish.tally.split_off, finish.tally.kept), (5 * 99 + 500, 1000));
    assert!(finish.tally.balances());
}

#[tokio::test(start_paused = true)]
async fn the_last_row_may_be_decided_by_a_fold() {
    let mut case = Case::new(25, vec![Runner::Fold(Box::new(Distinct { limit: None }))]);
    case.settings.active_max = 1;
    let (finish, ends) = case.run().await;
    assert_eq!((ends.len(), ids(&ends, "kept").len(), finish.complete), (25, 10, true));
    assert!(finish.tally.balances());
}

#[tokio::test(start_paused = true)]
async fn rows_that_wait_spill_and_come_back() {
    let (control, calls) = (Control::default(), Arc::default());
    let steps =
        vec![slow(&control, &calls, Some(RowId::root(0))), Runner::Fold(Box::new(Distinct { limit: None }))];
    let mut case = Case::new(2000, steps);
    case.settings.held_bytes_max = 10_000;
    let started = tokio::time::Instant::now();
    let (finish, ends) = case.run().await;
    assert_eq!(ends.len(), 2000);
    assert!(finish.tally.balances());
    // Everything else was done while row 0 hung.
    assert!(started.elapsed() < Duration::from_secs(62), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_limit_cuts_what_is_upstream_and_counts_nothing_above_it() {
    let (control, calls): (Control, Arc<AtomicU64>) = (Control::default(), Arc::default());
    let odd = Map(|row: Row| {
        if row.id.ordinal % 2 == 1 {
            Outcome::Reject(row, Reason::new("odd", json!(null)))
        } else {
            Outcome::Keep(row)
        }
    });
    let steps = vec![
        Runner::Map(Box::new(odd)),
        slow(&control, &calls, None),
        Runner::Fold(Box::new(Distinct { limit: Some(4) })),
    ];
    let mut case = Case::new(100_000, steps);
    case.control = control;
    case.settings.active_max = 50;
    let (finish, ends) = case.run().await;
    assert_eq!(ids(&ends, "kept"), ["0", "2", "4", "6"]);
    assert_eq!(ids(&ends, "odd"), ["1", "3", "5"]);
    assert_eq!(finish.tally.rows_in, 7);
    assert!(finish.tally.balances());
    assert!(finish.not_needed > 0 && calls.load(Ordering::Relaxed) < 200);
}

#[tokio::test(start_paused = true)]
async fn a_limit_asks_for_no_more_rows_than_the_yield_says() {
    let (control, calls): (Control, Arc<AtomicU64>) = (Control::default(), Arc::default());
    let mut case = Case::new(300, vec![slow(&control, &calls, None), Runner::Fold(Box::new(Limit(10)))]);
    case.control = control;
    let (finish, ends) = case.run().await;
    assert_eq!((ends.len(), calls.load(Ordering::Relaxed), finish.not_needed), (10, 10, 0));

    let (control, calls): (Control, Arc<AtomicU64>) = (Control::default(), Arc::default());
    let steps = vec![slow(&control, &calls, None), third(), Runner::Fold(Box::new(Limit(20)))];
    let mut case = Case::new(100_000, steps);
    case.control = control;
    let (finish, ends) = case.run().await;
    assert_eq!((ids(&ends, "kept").len(), finish.tally.rows_in), (20, 58));
    assert!(calls.load(Ordering::Relaxed) < 100, "{} calls", calls.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn until_kept_gives_the_first_in_row_order_exactly() {
    let (control, calls): (Control, Arc<AtomicU64>) = (Control::default(), Arc::default());
    let steps = vec![slow(&control, &calls, None), third()];
    let mut case = Case::new(100_000, steps);
    case.control = control;
    case.until = Until { kept: Some(20), tried: None };
    let (finish, ends) = case.run().await;
    let expected: Vec<String> = (0..20).map(|n| (n * 3).to_string()).collect();
    assert_eq!(ids(&ends, "kept"), expected);
    assert_eq!((finish.tally.rows_in, finish.reached), (58, true));
    assert!(finish.tally.balances());
    // The yield is a third: about 58 rows are needed, and admission looks ahead by no more than it says.
    assert!(calls.load(Ordering::Relaxed) < 100, "{} calls", calls.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn until_tried_is_a_hard_cap_and_says_that_it_fell_short() {
    let none = Map(|row: Row| Outcome::Reject(row, Reason::new("no", json!(null))));
    let mut case = Case::new(1000, vec![Runner::Map(Box::new(none))]);
    case.until = Until { kept: Some(5), tried: Some(37) };
    let (finish, ends) = case.run().await;
    assert_eq!((ends.len(), finish.reached, finish.tally.rows_in), (37, false, 37));
}

#[tokio::test(start_paused = true)]
async fn a_cut_through_children_keeps_the_balance() {
    let mut case = Case::new(50, vec![split_in(10), Runner::Fold(Box::new(Distinct { limit: Some(25) }))]);
    case.settings.active_max = 400;
    let (finish, ends) = case.run().await;
    assert_eq!(ids(&ends, "kept").len(), 25);
    assert_eq!(ids(&ends, "kept").last().unwrap(), "2.4");
    assert_eq!((finish.tally.rows_in, finish.tally.split_off), (3, 22));
    assert_eq!((finish.tally.steps[0].split_off, finish.tally.steps[1].rows_out), (22, 25));
    assert!(finish.tally.balances());
}

#[tokio::test(start_paused = true)]
async fn what_the_last_row_of_a_limit_splits_into_is_needed() {
    let (control, calls) = (Control::default(), Arc::default());
    let steps =
        vec![Runner::Fold(Box::new(Distinct { limit: Some(2) })), split_in(3), slow(&control, &calls, None)];
    let mut case = Case::new(50, steps);
    case.control = control;
    let (finish, ends) = case.run().await;
    assert_eq!(ids(&ends, "kept"), ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]);
    assert!(finish.tally.balances() && finish.complete);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_run_leaves_rows_open_and_hands_on_the_prefix() {
    let (control, calls) = (Control::default(), Arc::default());
    let steps = vec![slow(&control, &calls, Some(RowId::root(3)))];
    let mut case = Case::new(500, steps);
    case.control = control.clone();
    case.settings.active_max = 10;
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        control.stop(crate::call::StopReason::Interrupted);
    });
    let (finish, ends) = case.run().await;
    // Calls in flight were finished, row 3's too; the source was not read to its end.
    assert!(finish.tally.balances() && !finish.complete);
    let step = &finish.tally.steps[0];
    assert_eq!((step.rows_out, step.open), (finish.tally.kept, finish.tally.open));
    assert!(ends.len() < 500);
    let order: Vec<u64> = ends.iter().map(|(id, _)| id.parse().unwrap()).collect();
    assert_eq!(order, (0..ends.len() as u64).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn open_rows_are_counted_at_the_steps_that_have_them() {
    let (control, calls): (Control, Arc<AtomicU64>) = (Control::default(), Arc::default());
    let stopping = control.clone();
    let stop = Map(move |row: Row| {
        if row.id.ordinal == 2 {
            stopping.stop(crate::call::StopReason::Interrupted);
        }
        Outcome::Keep(row)
    });
    let steps = vec![
        slow(&control, &calls, None),
        split_in(2),
        Runner::Map(Box::new(stop)),
        slow(&control, &calls, None),
        third(),
    ];
    let mut case = Case::new(6, steps);
    case.control = control;
    let (finish, _) = case.run().await;
    let tally = &finish.tally;
    assert!(tally.balances() && tally.open > 0);
    let mut rows = tally.rows_in;
    for step in &tally.steps {
        let ended: u64 = step.rejected.values().chain(step.failed.values()).sum();
        assert_eq!((step.rows_in, step.rows_in + step.split_off), (rows, step.rows_out + ended + step.open));
        rows = step.rows_out;
    }
    assert_eq!((rows, tally.steps.iter().map(|step| step.open).sum::<u64>()), (tally.kept, tally.open));
    assert!(tally.steps[3].open > 0, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_step_stops_the_run_and_loses_no_row() {
    let control = Control::default();
    let bad = Map(|row: Row| {
        assert!(row.id.ordinal != 5, "boom");
        Outcome::Keep(row)
    });
    let mut case = Case::new(20, vec![Runner::Map(Box::new(bad))]);
    case.control = control.clone();
    let (finish, _) = case.run().await;
    assert!(finish.tally.balances());
    assert!(finish.tally.open >= 1);
    assert!(control.reason().unwrap().sentence().contains("panicked on row 5"));
}

/// A call whose answer is there the third time that a row asks.
#[derive(Clone, Default)]
struct Parks {
    asked: Arc<std::sync::Mutex<std::collections::BTreeMap<RowId, u64>>>,
}

impl CallRow for Parks {
    fn call(&self, row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        let mut asked = self.asked.lock().unwrap();
        let times = asked.entry(row.id.clone()).or_default();
        *times += 1;
        let parked = *times < 3;
        std::future::ready(if parked { Err(Pause::Parked(Box::new(row))) } else { Ok(Outcome::Keep(row)) })
            .boxed()
    }
}

impl Parks {
    /// Wakes all rows whenever nothing moves; how many had asked each time.
    async fn wake(self, control: Control) -> Vec<usize> {
        let mut stillness = control.parking().stillness();
        let mut seen = Vec::new();
        while stillness.wait_for(|still| *still).await.is_ok() {
            let rows: Vec<RowId> = self.asked.lock().unwrap().keys().cloned().collect();
            seen.push(rows.len());
            control.parking().wake(rows);
            if seen.len() == 2 {
                break;
            }
        }
        seen
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_parked_are_held_by_nobody_and_go_on_when_they_are_woken() {
    let parks = Parks::default();
    let steps = vec![
        Runner::Call(Box::new(parks.clone())),
        Runner::Fold(Box::new(Distinct { limit: None })),
        third(),
    ];
    let mut case = Case::new(500, steps);
    case.settings = Settings { active_max: 4, held_bytes_max: 0, ..Settings::default() };
    let waking = tokio::spawn(parks.wake(case.control.clone()));
    let (finish, ends) = case.run().await;
    // Far more than may be at work parked before anything was woken.
    assert_eq!(waking.await.unwrap(), [500, 500]);
    assert!(finish.complete);
    assert_eq!((ends.len(), ids(&ends, "kept").len()), (500, 4));
}

#[tokio::test(start_paused = true)]
async fn parked_rows_stay_open_at_their_step_when_the_run_stops() {
    let parks = Parks::default();
    let case = Case::new(20, vec![third(), Runner::Call(Box::new(parks))]);
    let control = case.control.clone();
    tokio::spawn(async move {
        let _ = control.parking().stillness().wait_for(|still| *still).await;
        control.stop(crate::call::StopReason::Interrupted);
    });
    let (finish, _) = case.run().await;
    assert!(!finish.complete && finish.tally.balances());
    // Of 7 parked rows and the 12 that ended behind the first of them; row 0 parks, so nothing is handed on.
    let open: Vec<u64> = finish.tally.steps.iter().map(|step| step.open).collect();
    assert_eq!(open, [13, 7]);
}

#[tokio::test(start_paused = true)]
async fn parked_rows_above_a_cut_are_not_waited_for() {
    let parks = Parks::default();
    // Rows 0 to 4 are woken twice, and end the run.
    let asked = Arc::clone(&parks.asked);
    let case = Case::new(
        50,
        vec![Runner::Call(Box::new(parks)), Runner::Fold(Box::new(Distinct { limit: Some(5) }))],
    );
    let control = case.control.clone();
    tokio::spawn(async move {
        let mut stillness = control.parking().stillness();
        while stillness.wait_for(|still| *still).await.is_ok() && asked.lock().unwrap()[&RowId::root(0)] < 3 {
            control.parking().wake((0..5).map(RowId::root).collect());
        }
    });
    let (finish, ends) = case.run().await;
    assert!(finish.complete, "{:?}", finish.tally);
    assert_eq!(ids(&ends, "kept"), ["0", "1", "2", "3", "4"]);
}
