//! A pipeline's own tests: each runs its rows through all steps against scripted replies.
//!
//! Offline and in memory: a store of its own in a temporary folder, no connection, no server, no limits.
//! Nothing is worded here; verdicts are data.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::{Mutex, mpsc};

use crate::call::{Budget, Control, Desk, Pause, StopReason};
use crate::engine::stages::{Stages, StepRunners};
use crate::engine::{End, Ended, Engine, Progress, Settings, Until};
use crate::ops::{CallRow, Runner};
use crate::pipeline::check::Pipeline;
use crate::pipeline::file::{ExpectedReject, TestFile};
use crate::row::{Failure, Fields, Outcome, Reason, Row, Value};
use crate::run::{RunError, build_steps, source, teachers};
use crate::store::{Access, Store};

/// The epoch that tests draw in: the one that a run has by default.
const EPOCH: &str = "0";

/// What a test came to.
pub struct Verdict {
    pub test: String,
    /// What came differently; a test without any passed.
    pub misses: Vec<Miss>,
    /// How every row ended, in row order, as far as the test got.
    pub ends: Vec<Ended>,
}

impl Verdict {
    pub fn passed(&self) -> bool {
        self.misses.is_empty()
    }
}

/// One thing that came differently.
#[derive(Clone, Debug, PartialEq)]
pub struct Miss {
    /// Where in the test: `kept[0].grade`.
    pub at: String,
    /// `None` where the test expects nothing.
    pub expected: Option<Value>,
    pub came: Option<Value>,
}

/// Runs all tests of a pipeline, one after the other. Blocks; call it outside any async runtime.
pub fn run(pipeline: &Pipeline) -> Result<Vec<Verdict>, RunError> {
    let io = |error: std::io::Error| RunError::Io(format!("a test cannot be set up: {error}"));
    // One thread starts tasks in the order they are made, so that calls come in row order.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
    let folder = tempfile::tempdir().map_err(io)?;
    let mut verdicts = Vec::new();
    for (index, test) in pipeline.file.tests.iter().enumerate() {
        // Two tests may ask the same of one row: each has a store of its own.
        let workspace = folder.path().join(index.to_string());
        std::fs::create_dir(&workspace).map_err(io)?;
        verdicts.push(runtime.block_on(one(pipeline, test, &workspace))?);
    }
    Ok(verdicts)
}

async fn one(pipeline: &Pipeline, test: &TestFile, workspace: &Path) -> Result<Verdict, RunError> {
    let store = Store::open(workspace, Access::Write)?;
    let control = Control::default();
    let budget = Budget::default();
    let desk = Arc::new(Desk::new(store, budget, control.clone(), &pipeline.file.name, EPOCH));
    let teachers = teachers::offline(pipeline, &test.replies);
    let mut steps = build_steps(pipeline, &teachers, &desk, &Arc::default(), None)?;
    stand_in(pipeline, &mut steps, test);
    take_turns(&mut steps);
    let engine = Engine {
        stages: Arc::new(Stages::new(steps, pipeline.columns.clone())),
        settings: Settings { window_rows: 1, active_max: 1, ..Settings::default() },
        until: Until::default(),
        control: control.clone(),
        progress: Arc::new(Progress::new(pipeline.steps.len())),
    };
    let rows = source::feed(source::numbered(test.rows.clone()), None);
    let (sink, mut inbox) = mpsc::channel(64);
    let collecting = async move {
        let mut ends = Vec::new();
        while let Some(ended) = inbox.recv().await {
            ends.push(ended);
        }
        ends
    };
    let (finish, mut ends) = tokio::join!(engine.run(rows, sink), collecting);
    finish.map_err(|error| RunError::Io(super::waiting_rows(&error)))?;
    ends.retain(|ended| !matches!(ended.end, End::Split { .. }));
    let names: Vec<&str> = pipeline.steps.iter().map(|step| step.name.as_str()).collect();
    let misses = compare(test, &ends, &names, control.reason().as_ref());
    Ok(Verdict { test: test.name.clone(), misses, ends })
}

/// Programs of the user's do not run in a test: its replies answer for them, in call order.
fn stand_in(pipeline: &Pipeline, steps: &mut [StepRunners], test: &TestFile) {
    for (step, built) in pipeline.steps.iter().zip(steps) {
        if !step.op.operator().asks().is_empty() {
            continue;
        }
        let replies = test.replies.get(&step.name).cloned();
        for runner in built.runners.iter_mut().filter(|runner| matches!(runner, Runner::Call(_))) {
            let given = AtomicUsize::new(0);
            *runner = Runner::Call(Box::new(StandIn { replies: replies.clone(), given }));
        }
    }
}

struct StandIn {
    /// One answer for every row, or a list of them.
    replies: Option<Value>,
    given: AtomicUsize,
}

impl CallRow for StandIn {
    fn call(&self, row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        let turn = self.given.fetch_add(1, Ordering::Relaxed);
        let answer = match &self.replies {
            Some(Value::Array(list)) => list.get(turn),
            one => one.as_ref(),
        };
        std::future::ready(Ok(answered(row, answer))).boxed()
    }
}

/// A program's answer as `command` reads it: fields, `$reject` with evidence, or `$fail`.
fn answered(mut row: Row, answer: Option<&Value>) -> Outcome {
    let Some(Value::Object(answer)) = answer else {
        return Outcome::Fail(
            row,
            Failure::new("no_reply", "the test has no reply (an object) for this step"),
        );
    };
    let evidence = answer.get("evidence").cloned().unwrap_or_default();
    if let Some(code) = answer.get("$reject").and_then(Value::as_str) {
        return Outcome::Reject(row, Reason::new(code.to_owned(), evidence));
    }
    if let Some(message) = answer.get("$fail").and_then(Value::as_str) {
        return Outcome::Fail(row, Failure::new("command_failed", message));
    }
    row.fields.extend(answer.clone());
    Outcome::Keep(row)
}

/// Lets one row call at a time: rows that were split would race for the next reply otherwise.
fn take_turns(steps: &mut [StepRunners]) {
    let turn = Arc::new(Mutex::new(()));
    for runner in steps.iter_mut().flat_map(|step| &mut step.runners) {
        if let Runner::Call(call) = runner {
            let call = std::mem::replace(call, Box::new(Nothing));
            *runner = Runner::Call(Box::new(InTurn { call, turn: Arc::clone(&turn) }));
        }
    }
}

/// A call that waits until no other row calls; waiting rows go in the order they came.
struct InTurn {
    call: Box<dyn CallRow>,
    turn: Arc<Mutex<()>>,
}

impl CallRow for InTurn {
    fn call(&self, row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        async move {
            let _turn = self.turn.lock().await;
            self.call.call(row).await
        }
        .boxed()
    }
}

/// Stands where a call was taken out.
struct Nothing;

impl CallRow for Nothing {
    fn call(&self, row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        std::future::ready(Ok(Outcome::Keep(row))).boxed()
    }
}

/// Everything that came differently from what a test expects.
fn compare(test: &TestFile, ends: &[Ended], steps: &[&str], stopped: Option<&StopReason>) -> Vec<Miss> {
    let mut misses = Vec::new();
    if let Some(reason) = stopped {
        let came = Some(Value::from(reason.sentence()));
        misses.push(Miss { at: "the run".to_owned(), expected: None, came });
    }
    if let Some(expected) = &test.kept {
        compare_kept(expected, ends, &mut misses);
    }
    if let Some(expected) = &test.rejected {
        compare_rejected(expected, ends, steps, &mut misses);
    }
    let failed = ends.iter().filter(|ended| matches!(ended.end, End::Failed { .. })).count() as u64;
    if failed != test.failed {
        let (expected, came) = (Some(Value::from(test.failed)), Some(Value::from(failed)));
        misses.push(Miss { at: "failed".to_owned(), expected, came });
    }
    misses
}

fn compare_kept(expected: &[Fields], ends: &[Ended], misses: &mut Vec<Miss>) {
    let kept: Vec<&Fields> =
        ends.iter().filter(|ended| ended.end == End::Kept).map(|ended| &ended.row.fields).collect();
    for index in 0..expected.len().max(kept.len()) {
        match (expected.get(index), kept.get(index)) {
            (Some(expected), Some(came)) => {
                for (field, value) in expected {
                    // A saved row has null where it has no value.
                    let found = came.get(field).unwrap_or(&Value::Null);
                    if !same(value, found) {
                        let (expected, came) = (Some(value.clone()), Some(found.clone()));
                        misses.push(Miss { at: format!("kept[{index}].{field}"), expected, came });
                    }
                }
            }
            (expected, came) => {
                let expected = expected.cloned().map(Value::Object);
                let came = came.map(|fields| Value::Object((*fields).clone()));
                misses.push(Miss { at: format!("kept[{index}]"), expected, came });
            }
        }
    }
}

fn compare_rejected(expected: &[ExpectedReject], ends: &[Ended], steps: &[&str], misses: &mut Vec<Miss>) {
    let rejected: Vec<(&str, &str)> = ends
        .iter()
        .filter_map(|ended| match &ended.end {
            End::Rejected { step, reason } => Some((&*reason.code, steps.get(*step).copied().unwrap_or(""))),
            _ => None,
        })
        .collect();
    for index in 0..expected.len().max(rejected.len()) {
        let (wanted, came) = (expected.get(index), rejected.get(index));
        let fits = wanted.zip(came).is_some_and(|(wanted, (reason, step))| {
            wanted.reason == *reason && wanted.step.as_ref().is_none_or(|wanted| wanted == step)
        });
        if !fits {
            let expected = wanted.map(|wanted| match &wanted.step {
                Some(step) => json!({"reason": wanted.reason, "step": step}),
                None => json!({"reason": wanted.reason}),
            });
            let came = came.map(|(reason, step)| json!({"reason": reason, "step": step}));
            misses.push(Miss { at: format!("rejected[{index}]"), expected, came });
        }
    }
}

/// Whether two values are the same; `5` and `5.0` are.
fn same(expected: &Value, came: &Value) -> bool {
    match (expected, came) {
        (Value::Number(expected), Value::Number(came)) => {
            expected == came || (expected.is_f64() || came.is_f64()) && expected.as_f64() == came.as_f64()
        }
        (Value::Array(expected), Value::Array(came)) => {
            expected.len() == came.len()
                && expected.iter().zip(came).all(|(expected, came)| same(expected, came))
        }
        (Value::Object(expected), Value::Object(came)) => {
            expected.len() == came.len()
                && expected.iter().all(|(key, value)| came.get(key).is_some_and(|came| same(value, came)))
        }
        (expected, came) => expected == came,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture::pipeline;

    const STEPS: &str = "
source: { rows: [{ topic: sun }] }
steps:
  - generate: { teacher: writer, prompt: \"About {{ topic }}\", into: text, samples: 2 }
  - judge: { teacher: writer, prompt: \"Grade {{ text }}\", into: grade }
  - keep_if: grade >= 4
";

    /// Runs one test over the steps above; the misses as `at: expected / came`.
    #[track_caller]
    fn check(test: &str, expected: &[&str]) {
        let pipeline = pipeline(&format!("{STEPS}tests:\n  - {{ name: t, {test} }}\n"));
        let verdict = run(&pipeline).unwrap().remove(0);
        let word = |value: &Option<Value>| value.as_ref().map_or("nothing".to_owned(), Value::to_string);
        let misses: Vec<String> = verdict
            .misses
            .iter()
            .map(|miss| format!("{}: {} / {}", miss.at, word(&miss.expected), word(&miss.came)))
            .collect();
        assert_eq!(misses, expected);
    }

    const REPLIES: &str = "rows: [{ topic: sun }, { topic: moon }], replies: { text: [a, b, c, d], \
        grade: [{ reason: r, grade: 5 }, { reason: r, grade: 3 }, { reason: r, grade: 4.0 }, { $refuse: no }] }";

    #[test]
    fn ends_are_compared_in_row_order() {
        let kept = "kept: [{ topic: sun, text: a, grade: 5.0 }, { text: c, grade: 4, missing: null }]";
        let rejected = "rejected: [{ reason: keep_if }, { reason: refused, step: grade }]";
        check(&format!("{REPLIES}, {kept}, {rejected}"), &[]);
        check(
            &format!("{REPLIES}, kept: [{{ text: b }}]"),
            &[
                "kept[0].text: \"b\" / \"a\"",
                "kept[1]: nothing / {\"topic\":\"moon\",\"text\":\"c\",\"grade\":4.0,\"grade_reason\":\"r\"}",
            ],
        );
        check(
            &format!("{REPLIES}, rejected: [{{ reason: refused, step: text }}], failed: 1"),
            &[
                "rejected[0]: {\"reason\":\"refused\",\"step\":\"text\"} / {\"reason\":\"keep_if\",\"step\":\"keep_if\"}",
                "rejected[1]: nothing / {\"reason\":\"refused\",\"step\":\"grade\"}",
                "failed: 1 / 0",
            ],
        );
    }

    #[test]
    fn what_fails_and_what_stops_is_told() {
        let rows = "rows: [{ topic: sun }]";
        check(&format!("{rows}, replies: {{ text: {{ $fail: down }} }}, failed: 2"), &[]);
        check(
            &format!("{rows}, replies: {{ text: x }}"),
            &["the run: nothing / \"teacher `writer`: the test has no reply for step `grade` (row 0.0)\""],
        );
        check(
            &format!("{rows}, replies: {{ text: [x] }}, kept: [{{ text: x }}]"),
            &[
                "the run: nothing / \"teacher `writer`: the test has no reply for step `grade` (row 0.0)\"",
                "kept[0]: {\"text\":\"x\"} / nothing",
            ],
        );
    }

    #[test]
    fn numbers_are_the_same_by_value() {
        let check = |a: Value, b: Value, expected| assert_eq!(same(&a, &b), expected, "{a} {b}");
        check(json!([1, {"a": 2.0}]), json!([1.0, {"a": 2}]), true);
        check(json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64), false);
        check(json!({"a": 1}), json!({"a": 1, "b": 2}), false);
        check(json!("1"), json!(1), false);
    }
}
