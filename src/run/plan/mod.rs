//! What a run would take, before it is paid: calls, tokens and money of every step, as intervals.
//!
//! A sample of the real source rows is walked through the real steps with the replies that the store
//! has; a call that it does not have ends its row's way and is counted. Of a run that may end before its
//! source does, the first rows are walked in order ([`early`]). The arithmetic from there is in
//! [`estimate`]. Asks nobody, starts nothing, runs no program, writes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use indexmap::IndexMap;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::call::budget::Limit;
use crate::call::dry::{self, NOT_IN_STORE};
use crate::call::{Budget, Control, Desk, DryRun, Line, Pause, StopReason, Totals};
use crate::clock::Wall;
use crate::engine::stages::{Stages, StepRunners};
use crate::engine::tally::Tally;
use crate::engine::{Engine, Progress, Settings};
use crate::ops::{CallRow, Op, Runner};
use crate::pipeline::check::{Pipeline, Step};
use crate::problem::Problem;
use crate::row::{Outcome, Row};
use crate::run::{
    Options, RunError, build_steps, limits, source, sources, teachers, until, waiting_rows, workspace,
};
use crate::store::{Charge, Spent, StepStats, Store};
use crate::teacher::wire::Teacher;

mod early;
pub mod estimate;
mod prompts;
mod sums;

use early::Way;
use estimate::{Asking, Basis, Estimate, Facts, Interval, Range, Seen, SeenCalls, estimate};

/// Source rows that are walked, evenly spread: shares are then known to about 3 points in 100
/// (two standard errors of a share, `2 * sqrt(0.25 / 1000)`).
pub const ROWS_WALKED_MAX: u64 = 1000;

/// Source rows that are walked in order where the store has the answers of the first: about ten seconds.
const ROWS_FOLLOWED_MAX: u64 = 100_000;

/// Source rows that are read to count them and to spread the sample: some seconds for JSONL.
pub const ROWS_READ_MAX: u64 = 1_000_000;

/// Bytes of the rows that are walked, all held at once; where they are longer, fewer are walked.
const WALKED_BYTES_MAX: usize = 256 << 20;

/// Runs that are looked through for the last one of the same epoch.
const RUNS_MAX: u32 = 100;

type Teachers = IndexMap<String, Arc<Teacher>>;

/// What a run would take.
#[derive(Clone, Debug)]
pub struct Plan {
    pub pipeline: String,
    pub epoch: String,
    /// Source rows of the run.
    pub rows: Interval,
    pub rows_walked: u64,
    /// The steps that ask teachers, in order, once for each teacher.
    pub steps: Vec<StepPlan>,
    /// Replies of the last run that this one would not use.
    pub edits: Vec<Edit>,
    /// Files that are not as they were when the epoch's last run began.
    pub changes: Vec<Problem>,
    /// The caps that hold a run of it, with what is spent of each.
    pub limits: Vec<Limit>,
    /// What all runs of the epoch have spent.
    pub spent: Spent,
    /// Steps that are not taken in a plan, since they start programs.
    pub not_taken: Vec<String>,
}

/// What one step would take of one teacher.
#[derive(Clone, Debug)]
pub struct StepPlan {
    pub step: String,
    pub teacher: String,
    pub model: String,
    pub estimate: Estimate,
    /// Whether any prompt of the calls to be made could be rendered: not before the answers it needs are there.
    pub rendered: bool,
    /// Replies so far that its numbers rest on.
    pub replies_seen: u64,
}

/// A step whose replies of the last run do not answer what it asks now, or will not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edit {
    pub step: String,
    /// The run that they were used in.
    pub run: String,
    /// Replies that the step used then; one reply may serve several rows.
    pub replies_then: u64,
    /// About how many calls are made again for that.
    pub calls_again: u64,
    /// Whether it asks anew only because an earlier step's answers will be new.
    pub follows: bool,
}

/// Plans a run with these options; `store` may be opened for reading.
pub async fn plan(pipeline: &Pipeline, store: &Store, options: &Options) -> Result<Plan, RunError> {
    let stats = store.step_stats(&pipeline.file.name)?;
    let teachers = teachers::offline(pipeline, &IndexMap::new()).by_name;
    let facts = facts(pipeline, &teachers, &stats, &prompts::bytes(pipeline, store, options).await?);
    let Surveyed { rows, rows_walked, scale, walk, estimates } =
        survey(pipeline, store, options, &facts).await?;
    let steps = step_plans(pipeline, &teachers, &walk, &facts, &estimates);
    let edits = edits(store, &pipeline.file.name, &options.epoch, &steps, scale)?;
    Ok(Plan {
        pipeline: pipeline.file.name.clone(),
        epoch: options.epoch.clone(),
        rows,
        rows_walked,
        steps,
        edits,
        changes: changes(pipeline, store, &options.epoch)?,
        limits: limits(pipeline, store, &options.epoch, Wall::default().day())?,
        spent: store.spent(&Charge::epoch(&pipeline.file.name, &options.epoch))?,
        not_taken: walk.not_taken,
    })
}

/// One for each step and each teacher that it asks.
fn step_plans(
    pipeline: &Pipeline,
    teachers: &Teachers,
    walk: &Walk,
    facts: &[StepFacts],
    estimates: &[Vec<Estimate>],
) -> Vec<StepPlan> {
    let mut plans = Vec::new();
    for (index, step) in pipeline.steps.iter().enumerate() {
        let begun = facts[index].asking.keys().any(|line| walk.calls(line).misses > 0);
        for ((line, asking), estimate) in facts[index].asking.iter().zip(&estimates[index]) {
            let teacher = line.teacher.as_deref().and_then(|name| teachers.get(name));
            let Some(teacher) = teacher else { continue };
            plans.push(StepPlan {
                step: step.name.clone(),
                teacher: teacher.name.to_string(),
                model: teacher.model().to_owned(),
                estimate: *estimate,
                rendered: walk.calls(line).misses > 0 || (begun && !asking.chained),
                replies_seen: asking.tokens_out.count,
            });
        }
    }
    plans
}

fn changes(pipeline: &Pipeline, store: &Store, epoch: &str) -> Result<Vec<Problem>, RunError> {
    let now = sources::read(pipeline).map_err(|error| RunError::Problems(vec![error.into()]))?;
    sources::changes(&now, store, &workspace(&pipeline.base), pipeline, epoch)
}

/// What walking some rows came to.
struct Surveyed {
    /// Source rows of the run.
    rows: Interval,
    rows_walked: u64,
    /// Source rows of the run per row walked, at the most.
    scale: Range,
    walk: Walk,
    estimates: Vec<Vec<Estimate>>,
}

async fn survey(
    pipeline: &Pipeline,
    store: &Store,
    options: &Options,
    facts: &[StepFacts],
) -> Result<Surveyed, RunError> {
    let count = Count::take(pipeline, options)?;
    let ends = early::places(pipeline);
    if ends.is_empty() {
        let picked = sample(pipeline, options, &count)?;
        let rows_walked = picked.len() as u64;
        let rows: source::Rows = Box::new(picked.into_iter().map(Ok));
        let walk = walk(pipeline, store, options, rows, Settings::default()).await?;
        let rows = count.rows();
        let share = |rows: u64| rows as f64 / rows_walked.max(1) as f64;
        let scale = Range { low: share(rows.low), high: rows.high.map(share) };
        let estimates = walk.estimates(facts, scale);
        return Ok(Surveyed { rows, rows_walked, scale, walk, estimates });
    }
    let followed = |rows: u64| follow(pipeline, store, options, rows);
    let mut rows_walked = count.most.min(ROWS_WALKED_MAX);
    let mut walk = followed(rows_walked).await?;
    let mut rows = early::rows_of_run(&ends, &walk.ways, rows_walked, count.rows());
    if rows.high.is_none_or(|high| high > rows_walked) && walk.knows_all() {
        rows_walked = count.most.min(ROWS_FOLLOWED_MAX);
        walk = followed(rows_walked).await?;
        rows = early::rows_of_run(&ends, &walk.ways, rows_walked, count.rows());
    }
    let within = |rows: u64| (rows.min(rows_walked), rows as f64 / rows.min(rows_walked).max(1) as f64);
    let (least_rows, least_scale) = within(rows.low);
    let least = followed(least_rows).await?.estimates(facts, Range::exact(least_scale));
    let (most_rows, most_scale) = within(rows.high.unwrap_or(u64::MAX));
    let scale = Range { low: most_scale, high: rows.high.map(|_| most_scale) };
    let walk = followed(most_rows).await?;
    let estimates = estimate::between(&least, &walk.estimates(facts, scale));
    Ok(Surveyed { rows, rows_walked: most_rows, scale, walk, estimates })
}

/// Walks the source's first rows one after the other, so that a run's early end is where it will be.
async fn follow(pipeline: &Pipeline, store: &Store, options: &Options, rows: u64) -> Result<Walk, RunError> {
    let first = source::open(pipeline, options).map_err(RunError::Problems)?;
    let first = Box::new(first.take(usize::try_from(rows).unwrap_or(usize::MAX)));
    let one_by_one = Settings { window_rows: 1, active_max: 1, ..Settings::default() };
    walk(pipeline, store, options, first, one_by_one).await
}

/// How many rows the source has.
struct Count {
    /// Rows that it has, as far as they were counted; at least so many when `total` is `None`.
    most: u64,
    total: Option<u64>,
}

impl Count {
    fn take(pipeline: &Pipeline, options: &Options) -> Result<Count, RunError> {
        let until = pipeline.file.source.sample.as_ref().and_then(|sample| sample.until);
        let tried = until.and_then(|until| until.tried).unwrap_or(u64::MAX);
        let wanted = options.rows.unwrap_or(u64::MAX).min(tried);
        let rows = source::open(pipeline, options).map_err(RunError::Problems)?;
        let known = match rows.size_hint() {
            (low, Some(high)) if low == high => Some(high as u64),
            _ => count(rows, wanted)?,
        };
        let total = known.map(|known| known.min(wanted));
        Ok(Count { most: total.unwrap_or(ROWS_READ_MAX), total })
    }

    fn rows(&self) -> Interval {
        Interval { low: self.most, high: self.total }
    }
}

/// Rows of the source, evenly spread.
fn sample(pipeline: &Pipeline, options: &Options, count: &Count) -> Result<Vec<Row>, RunError> {
    let span = count.most.min(ROWS_READ_MAX);
    let stride = span.div_ceil(ROWS_WALKED_MAX).max(1);
    let (span, stride) = (usize::try_from(span).unwrap_or(usize::MAX), usize::try_from(stride).unwrap_or(1));
    let mut picked = Vec::new();
    let mut bytes = 0;
    let rows = source::open(pipeline, options).map_err(RunError::Problems)?;
    for row in rows.take(span).step_by(stride) {
        let row = row.map_err(RunError::Io)?;
        bytes += row.bytes();
        picked.push(row);
        if bytes > WALKED_BYTES_MAX {
            break;
        }
    }
    Ok(picked)
}

/// Counts rows, `wanted` at most; `None` when there are more than are read for that.
fn count(rows: source::Rows, wanted: u64) -> Result<Option<u64>, RunError> {
    let read_max = usize::try_from(wanted.min(ROWS_READ_MAX + 1)).unwrap_or(usize::MAX);
    let mut counted = 0;
    for row in rows.take(read_max) {
        row.map_err(RunError::Io)?;
        counted += 1;
    }
    Ok((counted <= ROWS_READ_MAX).then_some(counted))
}

/// How a walk went.
struct Walk {
    tally: Tally,
    /// In row order.
    ways: Vec<Way>,
    calls: BTreeMap<Line, Totals>,
    not_taken: Vec<String>,
}

/// All steps of a pipeline, built so that nothing is asked and nothing started.
struct DrySteps {
    control: Control,
    desk: Arc<Desk>,
    steps: Vec<StepRunners>,
    not_taken: Vec<String>,
}

fn dry_steps(
    pipeline: &Pipeline,
    store: &Store,
    options: &Options,
    dry: DryRun,
) -> Result<DrySteps, RunError> {
    let control = Control::default();
    let budget = Budget::default();
    let mut desk = Desk::new(store.clone(), budget, control.clone(), &pipeline.file.name, &options.epoch);
    desk.dry = Some(dry);
    let desk = Arc::new(desk);
    let teachers = teachers::offline(pipeline, &IndexMap::new());
    let mut steps = build_steps(pipeline, &teachers, &desk, &Arc::default(), None)?;
    let not_taken = leave_out_programs(pipeline, &mut steps);
    Ok(DrySteps { control, desk, steps, not_taken })
}

/// Takes rows through all steps with the replies that the store has.
async fn walk(
    pipeline: &Pipeline,
    store: &Store,
    options: &Options,
    rows: source::Rows,
    settings: Settings,
) -> Result<Walk, RunError> {
    let DrySteps { control, desk, steps, not_taken } =
        dry_steps(pipeline, store, options, DryRun::default())?;
    let engine = Engine {
        stages: Arc::new(Stages::new(steps, pipeline.columns.clone())),
        settings,
        until: until(pipeline),
        control: control.clone(),
        progress: Arc::new(Progress::new(pipeline.steps.len())),
    };
    let source = source::feed(rows, None);
    let (sink, mut inbox) = mpsc::channel(1024);
    let looking_on = async move {
        let mut ways = Vec::new();
        while let Some(ended) = inbox.recv().await {
            ways.extend(Way::of(&ended));
        }
        ways
    };
    let (finish, ways) = tokio::join!(engine.run(source, sink), looking_on);
    let finish = finish.map_err(|error| RunError::Io(waiting_rows(&error)))?;
    if let Some(reason) = control.reason() {
        return Err(RunError::Io(StopReason::sentence(&reason)));
    }
    Ok(Walk { tally: finish.tally, ways, calls: desk.monitor.lines(), not_taken })
}

impl Walk {
    fn knows_all(&self) -> bool {
        self.tally.steps.iter().all(|step| !step.failed.contains_key(NOT_IN_STORE))
    }

    fn estimates(&self, facts: &[StepFacts], scale: Range) -> Vec<Vec<Estimate>> {
        let steps = self.tally.steps.iter().zip(facts).map(|(step, known)| Basis {
            seen: Seen {
                rows_in: step.rows_in,
                split_off: step.split_off,
                rows_out: step.rows_out,
                unknown: step.failed.get(NOT_IN_STORE).copied().unwrap_or(0),
            },
            facts: known.facts,
            lines: known.asking.iter().map(|(line, asking)| (self.calls(line), *asking)).collect(),
        });
        estimate(&steps.collect::<Vec<_>>(), scale)
    }

    fn calls(&self, line: &Line) -> SeenCalls {
        self.calls.get(line).map_or_else(SeenCalls::default, |totals| SeenCalls {
            hits: totals.hits,
            misses: totals.misses,
            miss_bytes: totals.miss_bytes,
        })
    }
}

/// Only a run starts programs: a step that waits for one and not for a teacher ends its rows' way.
fn leave_out_programs(pipeline: &Pipeline, steps: &mut [StepRunners]) -> Vec<String> {
    let mut not_taken = Vec::new();
    for (step, built) in pipeline.steps.iter().zip(steps) {
        if !step.op.operator().asks().is_empty() {
            continue;
        }
        for runner in built.runners.iter_mut().filter(|runner| matches!(runner, Runner::Call(_))) {
            *runner = Runner::Call(Box::new(NotTaken));
            not_taken.push(step.name.clone());
        }
    }
    not_taken.dedup();
    not_taken
}

struct NotTaken;

impl CallRow for NotTaken {
    fn call(&self, row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        std::future::ready(Ok(Outcome::Fail(row, dry::unknown()))).boxed()
    }
}

/// What is known of a step without walking, and of its way of asking each of its teachers.
struct StepFacts {
    facts: Facts,
    asking: IndexMap<Line, Asking>,
}

/// `prompt_bytes` has the length of each step's prompts without the answers in them.
fn facts(
    pipeline: &Pipeline,
    teachers: &Teachers,
    stats: &[StepStats],
    prompt_bytes: &BTreeMap<Line, f64>,
) -> Vec<StepFacts> {
    let mut facts = Vec::new();
    let mut answers_max = Some(0_u64);
    for (index, step) in pipeline.steps.iter().enumerate() {
        let operator = step.op.operator();
        let rows_max = match &step.op {
            Op::Limit(limit) => Some(limit.0),
            _ => None,
        };
        let asking = asking((index, step), teachers, stats, prompt_bytes);
        let own_answers_max = asking.values().try_fold(0, |sum, asking| {
            Some(sum + u64::from(asking.calls[1]) * u64::from(asking.max_tokens?))
        });
        let through = Facts {
            rows_per_row: operator.rows_per_row(),
            rows_max,
            copies: operator.copies(),
            answers_max,
            own_answers_max,
        };
        // A row keeps one answer of each, or all that were said on the way.
        let kept = asking.values().try_fold(0, |most, asking| Some(u64::from(asking.max_tokens?).max(most)));
        let kept = if asking.values().any(|asking| asking.chained) { own_answers_max } else { kept };
        answers_max = answers_max.zip(kept).map(|(sum, most)| sum + most);
        facts.push(StepFacts { facts: through, asking });
    }
    facts
}

/// How a step asks each of its teachers; what it asks of one in several places is one sum.
fn asking(
    (index, step): (usize, &Step),
    teachers: &Teachers,
    stats: &[StepStats],
    prompt_bytes: &BTreeMap<Line, f64>,
) -> IndexMap<Line, Asking> {
    let mut lines = IndexMap::<Line, Asking>::new();
    let mut first_prompt = None;
    for asks in step.op.operator().asks() {
        let Some(teacher) = teachers.get(asks.teacher) else { continue };
        let line = Line { step: index, teacher: Some(asks.teacher.into()) };
        let measured = prompt_bytes.get(&line).copied();
        first_prompt = first_prompt.or(measured);
        let prompt_bytes = if asks.chained { measured } else { measured.or(first_prompt) };
        let stats = stats.iter().find(|stats| stats.step == step.name && stats.teacher == teacher.identity);
        let known = lines.entry(line).or_insert_with(|| Asking {
            max_tokens: Some(0),
            price: teacher.price,
            prompt_bytes,
            tokens_in: stats.map(|stats| stats.tokens_in).unwrap_or_default(),
            tokens_out: stats.map(|stats| stats.tokens_out).unwrap_or_default(),
            ..Asking::default()
        });
        known.calls = [known.calls[0] + asks.calls[0], known.calls[1] + asks.calls[1]];
        known.max_tokens = known.max_tokens.zip(asks.tokens_out_max()).map(|(a, b)| a.max(b));
        known.chained |= asks.chained;
    }
    lines
}

/// Compares with the last run of the epoch: a step that used more replies then than the store has
/// answers for now was edited, or follows one that was.
fn edits(
    store: &Store,
    pipeline: &str,
    epoch: &str,
    steps: &[StepPlan],
    scale: Range,
) -> Result<Vec<Edit>, RunError> {
    let runs = store.runs(Some(pipeline), RUNS_MAX)?;
    let last = runs.into_iter().filter(|run| run.epoch == epoch).find_map(|run| {
        let calls = run.summary.as_ref()?.get("calls")?.as_object()?.clone();
        Some((run.id, calls))
    });
    let Some((run, calls)) = last else { return Ok(Vec::new()) };
    // A sample misses up to a stride's worth of rows at each end of what was answered.
    let blur = if scale.low > 1.0 { (2.0 * scale.low).ceil() as u64 } else { 0 };
    let mut edits = Vec::new();
    for lines in steps.chunk_by(|a, b| a.step == b.step) {
        let name = &lines[0].step;
        let sum = |of: fn(&Estimate) -> Interval| {
            lines.iter().map(|line| of(&line.estimate)).fold(Interval::exact(0), Interval::plus)
        };
        let count = |key: &str| calls.get(name).and_then(|calls| calls[key].as_u64()).unwrap_or(0);
        let replies_then = count("from_store") + count("calls");
        let Some(found) = sum(|estimate| estimate.from_store).high else { continue };
        let gone = replies_then.saturating_sub(found);
        let calls_again = sum(|estimate| estimate.calls).high.map_or(gone, |calls| gone.min(calls));
        if calls_again > blur {
            edits.push(Edit {
                step: name.clone(),
                run: run.clone(),
                replies_then,
                calls_again,
                follows: !lines.iter().any(|line| line.rendered),
            });
        }
    }
    Ok(edits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture::pipeline;
    use crate::store::{Access, IfPresent, NewReply, NewRun, Origin, RunStatus};
    use serde_json::{Value, json};

    const STEPS: &str = "
source: { rows: [{ n: 1 }, { n: 2 }, { n: 3 }] }
steps:
  - generate: { teacher: writer, prompt: \"Tell {{ n }}\", into: text, max_tokens: 100 }
  - judge: { teacher: writer, prompt: \"Grade {{ text }}\", into: grade, max_tokens: 50 }
";

    async fn planned(text: &str, store: &Store, options: &Options) -> Plan {
        plan(&pipeline(text), store, options).await.unwrap()
    }

    fn word(plan: &Plan) -> Vec<String> {
        let step = |step: &StepPlan| {
            let (stored, calls) = (step.estimate.from_store, step.estimate.calls);
            format!("{} {:?} {:?}", step.step, (stored.low, stored.high), (calls.low, calls.high))
        };
        plan.steps.iter().map(step).collect()
    }

    fn options() -> Options {
        Options { epoch: "0".to_owned(), ..Options::default() }
    }

    /// Saves the replies to the calls that a pipeline's first step makes for its first rows.
    async fn answer_first(store: &Store, text: &str, rows: usize) {
        let pipeline = pipeline(text);
        let teachers = teachers::offline(&pipeline, &IndexMap::new());
        let teacher = &teachers.by_name["writer"];
        for row in 0..rows {
            let content = format!("Tell {}", row + 1);
            let message = crate::teacher::Message { role: crate::teacher::Role::User, content };
            let request = crate::teacher::Request {
                messages: vec![message],
                max_tokens: Some(100),
                ..Default::default()
            };
            let key = crate::call::key::key(&crate::call::key::Parts {
                wire: "openai",
                identity: &teacher.identity,
                body: &Value::Object(teacher.body(&request)),
                headers: &[],
                epoch: "0",
                sample: 0,
                draw: &row.to_string(),
            });
            let choice = json!({"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"});
            let reply = json!({"model": "m", "choices": [choice]}).to_string();
            let origin = Origin {
                epoch: "0".into(),
                pipeline: Some("stories".into()),
                step: "text".into(),
                teacher: teacher.identity.clone(),
                endpoint: String::new(),
                wire: "openai".into(),
                model: "m".into(),
            };
            let new = NewReply {
                key,
                origin: origin.into(),
                request: b"{}",
                reply: reply.as_bytes(),
                status: 200,
                tokens_in: Some(10),
                tokens_out: Some(20),
                usd_nano: None,
                attempts: 1,
                latency_ms: 1,
                created_unix_ms: 1,
            };
            store.save_reply(&new, None, IfPresent::KeepFirst).await.unwrap();
        }
    }

    async fn record_run(store: &Store, calls: Value) {
        let run = NewRun {
            id: "r1".into(),
            pipeline: "stories".into(),
            epoch: "0".into(),
            started_unix_ms: 1,
            pid: 1,
            file_hash: String::new(),
            file: String::new(),
            options: "{}".into(),
        };
        store.begin_run(run).await.unwrap();
        store.end_run("r1", RunStatus::Finished, 2, &json!({"calls": calls})).await.unwrap();
    }

    #[tokio::test]
    async fn a_plan_counts_what_the_store_has_and_what_it_has_not() {
        let folder = tempfile::tempdir().unwrap();
        let empty = Store::open(folder.path(), Access::Read).unwrap();
        let fresh = planned(STEPS, &empty, &options()).await;
        assert_eq!(word(&fresh), ["text (0, Some(0)) (3, Some(3))", "grade (0, Some(0)) (3, Some(3))"]);
        assert_eq!((fresh.rows, fresh.rows_walked), (Interval::exact(3), 3));
        // Every step has `max_tokens`, so that even the prompts that need answers have an upper end: that
        // of 100 tokens is 500 bytes at the most, and 500 bytes are 167 tokens at the most.
        let grade = fresh.steps[1].estimate;
        assert!(grade.tokens_in.low > 0 && grade.tokens_in.high.is_some_and(|high| high > 3 * 166));
        assert!(fresh.usd_nano().unwrap().high.is_some());
        let open = planned(&STEPS.replace(", max_tokens: 100", ""), &empty, &options()).await;
        assert_eq!(open.steps[1].estimate.tokens_in.high, None);
        let two = planned(STEPS, &empty, &Options { rows: Some(2), ..options() }).await;
        assert_eq!(two.rows, Interval::exact(2));

        let store = Store::open(folder.path(), Access::Write).unwrap();
        answer_first(&store, STEPS, 2).await;
        // Both answers are "x": one grade serves both, so a row takes half a call; the third is like them.
        let half = planned(STEPS, &store, &options()).await;
        assert_eq!(word(&half), ["text (2, Some(2)) (1, Some(1))", "grade (0, Some(0)) (2, Some(2))"]);
        let other = planned(STEPS, &store, &Options { epoch: "1".to_owned(), ..options() }).await;
        assert_eq!(word(&other)[0], "text (0, Some(0)) (3, Some(3))");
    }

    #[tokio::test]
    async fn an_edited_step_is_named_and_what_follows_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Write).unwrap();
        answer_first(&store, STEPS, 3).await;
        record_run(&store, json!({"text": {"calls": 2, "from_store": 1}, "grade": {"calls": 1}})).await;
        let edited = STEPS.replace("Tell", "Say");
        let plan = planned(&edited, &store, &options()).await;
        let edits: Vec<_> =
            plan.edits.iter().map(|edit| (edit.step.as_str(), edit.calls_again, edit.follows)).collect();
        assert_eq!(edits, [("text", 3, false), ("grade", 1, true)]);
        let same = planned(STEPS, &store, &options()).await;
        let edits: Vec<_> = same.edits.iter().map(|edit| (edit.step.as_str(), edit.follows)).collect();
        // The grade's reply is not in the store, so it counts as edited; the step before it does not.
        assert_eq!(edits, [("grade", false)]);
    }

    #[tokio::test]
    async fn a_run_that_ends_early_takes_from_as_few_rows_as_do_to_all() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Access::Write).unwrap();
        let rows: Vec<Value> = (1..=30).map(|n| json!({ "n": n })).collect();
        let text = STEPS.replace("[{ n: 1 }, { n: 2 }, { n: 3 }]", &json!(rows).to_string());
        let limited = text.replace("  - judge", "  - limit: 4\n  - judge");
        let fresh = planned(&limited, &store, &options()).await;
        assert_eq!(word(&fresh), ["text (0, Some(0)) (4, Some(30))", "grade (0, Some(0)) (4, Some(4))"]);
        assert_eq!(fresh.rows, Interval { low: 4, high: Some(30) });
        answer_first(&store, &limited, 6).await;
        let done = planned(&limited, &store, &options()).await;
        assert_eq!(word(&done), ["text (4, Some(4)) (0, Some(0))", "grade (0, Some(0)) (1, Some(1))"]);
        assert_eq!(done.rows, Interval::exact(4));
        // What the run started beyond its end is no edit.
        record_run(&store, json!({"text": {"calls": 6}})).await;
        assert_eq!(planned(&limited, &store, &options()).await.edits, []);
    }

    #[tokio::test]
    async fn a_large_source_is_sampled_evenly_and_scaled() {
        let folder = tempfile::tempdir().unwrap();
        let lines: String = (0..2500).map(|n| format!("{{\"n\": {n}}}\n")).collect();
        let path = folder.path().join("rows.jsonl");
        std::fs::write(&path, lines).unwrap();
        let text = STEPS.replace(
            "rows: [{ n: 1 }, { n: 2 }, { n: 3 }]",
            &format!("files: {{ path: {} }}", path.display()),
        );
        let store = Store::open(folder.path(), Access::Read).unwrap();
        let plan = planned(&text, &store, &options()).await;
        // Every third of 2,500 rows.
        assert_eq!((plan.rows, plan.rows_walked), (Interval::exact(2500), 834));
        assert_eq!(word(&plan)[0], "text (0, Some(0)) (2500, Some(2500))");
    }
}
