//! `textmill plan`: what a run would take, before it is paid.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::call::budget::{Of, shown as amount, usd};
use crate::cli::ends::limit_json;
use crate::cli::load::{Loaded, destinations, load};
use crate::cli::{Exit, PipelineArgs, fail, print, runtime};
use crate::ops::Asks;
use crate::pipeline::check::{Pipeline, Step};
use crate::pipeline::file::TeacherFile;
use crate::run::plan::estimate::{Estimate, Interval};
use crate::run::plan::{Plan, StepPlan, plan};
use crate::run::{Options, workspace};
use crate::store::{Access, Store, Unit};
use crate::teacher::batch::Mode;

/// Rows of a preview that a plan recommends.
const PREVIEW_ROWS: u64 = 20;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Plan a run of only the source's first rows.
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
    /// Which drawing of the dataset to plan.
    #[arg(long, default_value = "0")]
    epoch: String,
    /// Print the plan as JSON.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> Exit {
    let Some(Loaded { pipeline, source }) = load(&args.pipeline, false) else { return Exit::Failed };
    let store = match Store::open(&workspace(&pipeline.base), Access::Read) {
        Ok(store) => store,
        Err(error) => return fail(error),
    };
    let options = Options { rows: args.rows, epoch: args.epoch.clone(), ..Options::default() };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(plan(&pipeline, &store, &options)) {
        Ok(plan) if args.json => print(&format!("{:#}\n", to_json(&plan, &pipeline))),
        Ok(plan) => print(&shown(&plan, &pipeline)),
        Err(error) => return source.failed(&error),
    }
    Exit::Done
}

fn shown(plan: &Plan, pipeline: &Pipeline) -> String {
    let mut lines = vec![head(plan)];
    if plan.steps.is_empty() {
        lines.push("no step asks a teacher: the run costs nothing".to_owned());
    } else {
        lines.push(table(plan));
        lines.push(total(plan));
    }
    lines.extend(notes(plan));
    lines.extend(edits(plan));
    lines.extend(plan.changes.iter().map(|change| change.message.clone()));
    lines.extend(budget(plan));
    lines.extend(shapes(pipeline));
    lines.extend(batches(pipeline));
    lines.extend(destinations(pipeline));
    lines.push(String::new());
    lines.join("\n")
}

/// Which steps wait for batches, and what that changes.
fn batches(pipeline: &Pipeline) -> Vec<String> {
    let line = |(name, teacher): (&String, &TeacherFile)| {
        teacher.batches()?;
        let asks = |step: &&Step| step.op.operator().teachers().contains(&name.as_str());
        let steps: Vec<String> =
            pipeline.steps.iter().filter(asks).map(|step| format!("`{}`", step.name)).collect();
        let share = teacher.price.and_then(|price| price.batch);
        let price = match (teacher.mode, share) {
            (Mode::Auto, _) => "reckoned at the full price, which what is urgent takes".to_owned(),
            (_, Some(share)) => format!("reckoned at {share} of the price"),
            (_, None) => "reckoned at the full price, since `price.batch` is not given".to_owned(),
        };
        let what = if teacher.mode == Mode::Auto { " unless they are urgent" } else { "" };
        let steps = steps.join(", ");
        (!steps.is_empty())
            .then(|| format!("calls of {steps} go in batches{what}: each takes up to 24 hours; {price}"))
    };
    pipeline.file.teachers.iter().filter_map(line).collect()
}

/// By which means each step's answers are held to their shape.
fn shapes(pipeline: &Pipeline) -> Option<String> {
    let means = |step: &Step, asks: &Asks<'_>, several: bool| {
        let (format, api) = pipeline.file.teachers.get(asks.teacher)?.api()?;
        let asked = if several { format!(" of `{}`", asks.teacher) } else { String::new() };
        Some(format!("`{}`{asked} by {}", step.name, api.structured(format).words()))
    };
    let of_step = |step: &Step| -> Vec<String> {
        let (asks, several) = (step.op.operator().asks(), step.op.operator().teachers().len() > 1);
        asks.iter().filter(|asks| asks.json).filter_map(|asks| means(step, asks, several)).collect()
    };
    let mut means: Vec<String> = pipeline.steps.iter().flat_map(of_step).collect();
    means.dedup();
    (!means.is_empty()).then(|| format!("shape of the answers: {}", means.join(", ")))
}

fn head(plan: &Plan) -> String {
    let (rows, word) = (counted(plan.rows), word(plan.rows, "row"));
    let mut head = format!("{}, epoch {}: {rows} source {word}", plan.pipeline, plan.epoch);
    if plan.rows.high != Some(plan.rows_walked) {
        head.push_str(&format!("; numbers are scaled from {} of them", plan.rows_walked));
    }
    head
}

fn table(plan: &Plan) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["step", "asks", "in store", "calls", "tokens in", "tokens out", "USD"]);
    for step in &plan.steps {
        let estimate = &step.estimate;
        table.add_row([
            step.step.clone(),
            format!("{} ({})", step.teacher, step.model),
            counted(estimate.from_store),
            counted(estimate.calls),
            counted(estimate.tokens_in),
            counted(estimate.tokens_out),
            match estimate.usd_nano {
                _ if estimate.calls == Interval::exact(0) => "0".to_owned(),
                Some(nano) => dollars(nano),
                None => "unknown".to_owned(),
            },
        ]);
    }
    table.to_string()
}

fn total(plan: &Plan) -> String {
    format!(
        "in all: {} {}, {} tokens in, {} tokens out, {}",
        counted(plan.total(|step| step.calls)),
        word(plan.total(|step| step.calls), "call"),
        counted(plan.total(|step| step.tokens_in)),
        counted(plan.total(|step| step.tokens_out)),
        match plan.usd_nano() {
            Some(nano) => format!("{} USD", dollars(nano)),
            None => "cost unknown: a teacher has no `price`".to_owned(),
        },
    )
}

/// What the numbers rest on, where that is little.
fn notes(plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    let calls = plan.steps.iter().filter(|step| step.estimate.calls != Interval::exact(0));
    let unseen: Vec<&StepPlan> = calls.filter(|step| !step.rendered && step.replies_seen == 0).collect();
    let listed = |which: &dyn Fn(&Estimate) -> bool| {
        let steps = unseen.iter().filter(|step| which(&step.estimate));
        let mut names: Vec<String> = steps.map(|step| format!("`{}`", step.step)).collect();
        names.dedup();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(steps) = listed(&|estimate| estimate.tokens_in.high.is_some()) {
        notes.push(format!(
            "the prompts of {steps} need answers that are not there yet: each earlier answer counts as in the \
             prompt once, at the most as long as its `max_tokens` lets it be"
        ));
    }
    if let Some(steps) =
        listed(&|estimate| estimate.calls.high.is_some() && estimate.tokens_in.high.is_none())
    {
        notes.push(format!(
            "the prompts of {steps} need answers that are not there yet, and nothing bounds these: give the \
             steps before `max_tokens`"
        ));
    }
    let few = plan.rows.high.map_or(PREVIEW_ROWS, |rows| rows.min(PREVIEW_ROWS));
    if !unseen.is_empty() && few > 0 {
        notes.push(format!(
            "`textmill run … --rows {few}` makes some answers to tell by, and what they cost is not paid again"
        ));
    }
    if !plan.not_taken.is_empty() {
        notes.push(format!(
            "a plan starts no programs: behind {} all rows count as passing",
            plan.not_taken.iter().map(|step| format!("`{step}`")).collect::<Vec<_>>().join(", ")
        ));
    }
    if plan.total(|step| step.calls) != Interval::exact(0) {
        notes.push("answers that cannot be used and calls that fail are asked again on top".to_owned());
    }
    notes
}

fn edits(plan: &Plan) -> Vec<String> {
    let line = |edit: &crate::run::plan::Edit| {
        let (step, run, calls) = (&edit.step, &edit.run, edit.calls_again);
        if edit.follows {
            format!(
                "step `{step}` follows one that asks anew: up to {calls} calls of run {run} are made again"
            )
        } else {
            format!("step `{step}` asks something new: {calls} calls of run {run} are made again")
        }
    };
    plan.edits.iter().map(line).collect()
}

/// A line for every cap, and which of them the plan may not fit in.
fn budget(plan: &Plan) -> Vec<String> {
    let caps = plan.limits.iter().flat_map(|limit| Unit::ALL.map(|unit| (limit, unit)));
    let lines = caps.filter_map(|(limit, unit)| {
        let cap = limit.caps.of(unit)?;
        let spent = limit.spent.plus(limit.batched).of(unit);
        let left = cap.saturating_sub(spent);
        let goes_on = match limit.of {
            Of::Run => "the next run goes on",
            Of::Day => "it goes on the next day",
            Of::Epoch | Of::Step { .. } => "can go on with a higher one",
        };
        let verdict = match plan.planned(&limit.of, unit) {
            None => "whether this plan fits cannot be told".to_owned(),
            Some(Interval { high: Some(high), .. }) if high <= left => "this plan fits".to_owned(),
            Some(Interval { low, .. }) if low > left => {
                format!("this plan does not fit: the run will stop at the cap and {goes_on}")
            }
            Some(_) => format!("this plan may not fit: the run stops at the cap and {goes_on}"),
        };
        let today = if limit.of == Of::Day { " today" } else { "" };
        Some(format!(
            "budget{}: {} {}, of which {} are spent{today}; {verdict}",
            limit.of.words(),
            amount(unit, cap),
            unit.word(),
            amount(unit, spent)
        ))
    });
    lines.collect()
}

fn counted(interval: Interval) -> String {
    match interval {
        Interval { low, high: Some(high) } if low == high => low.to_string(),
        Interval { low, high: Some(high) } => format!("{low}–{high}"),
        Interval { low: 0, high: None } => "unknown".to_owned(),
        Interval { low, high: None } => format!("{low} or more"),
    }
}

/// The noun behind a number.
fn word(interval: Interval, noun: &str) -> String {
    if interval == Interval::exact(1) { noun.to_owned() } else { format!("{noun}s") }
}

/// Nano-dollars as dollars, rounded outward: to cents from one dollar on, to hundredths of a cent below.
fn dollars(nano: Interval) -> String {
    let Interval { low, high } = nano;
    let unit = |nano: u64| if nano >= 1_000_000_000 { 10_000_000 } else { 100_000 };
    let low = low / unit(low) * unit(low);
    match high.map(|high| high.div_ceil(unit(high)).saturating_mul(unit(high))) {
        Some(high) if high == low => usd(low),
        Some(high) => format!("{}–{}", usd(low), usd(high)),
        None => format!("{} or more", usd(low)),
    }
}

fn to_json(plan: &Plan, pipeline: &Pipeline) -> Value {
    let money = |nano: Option<Interval>| {
        nano.map(
            |nano| json!({"low": nano.low as f64 / 1e9, "high": nano.high.map(|high| high as f64 / 1e9)}),
        )
    };
    let steps = plan.steps.iter().map(|step| {
        json!({
            "step": step.step,
            "teacher": step.teacher,
            "model": step.model,
            "from_store": step.estimate.from_store,
            "calls": step.estimate.calls,
            "tokens_in": step.estimate.tokens_in,
            "tokens_out": step.estimate.tokens_out,
            "usd": money(step.estimate.usd_nano),
            "replies_seen": step.replies_seen,
        })
    });
    let spent = plan.spent.worst();
    let secrets = pipeline.secrets().into_iter().map(
        |secret| json!({"teacher": secret.teacher, "variable": secret.variable, "goes_to": secret.goes_to}),
    );
    let endpoints = pipeline.file.teachers.iter().flat_map(|(name, teacher)| {
        teacher.endpoints().into_iter().map(move |endpoint| {
            let url = endpoint.api.endpoint_url(endpoint.format);
            json!({"teacher": name, "endpoint": endpoint.name, "url": url, "weight": endpoint.weight})
        })
    });
    json!({
        "pipeline": plan.pipeline,
        "epoch": plan.epoch,
        "rows": plan.rows,
        "rows_walked": plan.rows_walked,
        "steps": steps.collect::<Vec<Value>>(),
        "calls": plan.total(|step| step.calls),
        "usd": money(plan.usd_nano()),
        "edits": plan.edits,
        "changes": plan.changes.iter().map(|change| change.message.as_str()).collect::<Vec<&str>>(),
        "not_taken": plan.not_taken,
        "budgets": plan.limits.iter().map(limit_json).collect::<Vec<Value>>(),
        "spent": {"usd": spent.usd_nano as f64 / 1e9, "tokens": spent.tokens, "calls": spent.calls},
        "endpoints": endpoints.collect::<Vec<Value>>(),
        "secrets": secrets.collect::<Vec<Value>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_words() {
        let check = |low, high, expected: &str| assert_eq!(counted(Interval { low, high }), expected);
        check(3, Some(3), "3");
        check(3, Some(4), "3–4");
        check(0, None, "unknown");
        check(3, None, "3 or more");
    }

    #[test]
    fn money_is_rounded_outward() {
        let check = |low, high, expected: &str| assert_eq!(dollars(Interval { low, high }), expected);
        check(1_234_567, Some(1_994_999_999), "0.0012–2");
        check(0, Some(0), "0");
        check(2_009_999_999, None, "2 or more");
    }
}
