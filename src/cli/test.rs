//! `textmill test`: a pipeline's own tests, against scripted replies.

use serde_json::{Value, json};

use crate::cli::load::{Loaded, load};
use crate::cli::rows::escaped;
use crate::cli::{Exit, PipelineArgs, print, say};
use crate::engine::{End, Ended};
use crate::run::trial::{self, Miss, Verdict};

/// Characters of a value that are shown; of what differs, a few before the difference.
const VALUE_CHARS_MAX: usize = 200;
const BEFORE_CHARS: usize = 30;
/// Characters of the evidence for a decision, which often quotes a whole expression before what is wrong.
const EVIDENCE_CHARS_MAX: usize = 600;
/// Up to here a value stands on the line that names it.
const SHORT_CHARS_MAX: usize = 50;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Print the results as JSON to stdout.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> Exit {
    let Some(Loaded { pipeline, source }) = load(&args.pipeline, false) else { return Exit::Failed };
    let verdicts = match trial::run(&pipeline) {
        Ok(verdicts) => verdicts,
        Err(error) => return source.failed(&error),
    };
    let steps: Vec<&str> = pipeline.steps.iter().map(|step| step.name.as_str()).collect();
    if args.json {
        let listed: Value = verdicts.iter().map(|verdict| to_json(verdict, &steps)).collect();
        print(&format!("{listed:#}\n"));
    } else {
        for verdict in &verdicts {
            print(&lines(verdict, &steps));
        }
    }
    let failed = verdicts.iter().filter(|verdict| !verdict.passed()).count();
    match (verdicts.len(), failed) {
        (0, _) => say("the pipeline has no tests; give some under `tests:`"),
        (1, 0) => say("1 test passed"),
        (all, 0) => say(format_args!("{all} tests passed")),
        (all, failed) => say(format_args!("{failed} of {all} tests failed")),
    }
    if failed == 0 { Exit::Done } else { Exit::Incomplete }
}

/// A line for a test that passed; what differs, and how its rows ended, for one that did not.
fn lines(verdict: &Verdict, steps: &[&str]) -> String {
    let name = escaped(&verdict.test);
    if verdict.passed() {
        return format!("ok      {name}\n");
    }
    let mut text = format!("FAILED  {name}\n");
    for miss in &verdict.misses {
        text.push_str(&difference(miss));
    }
    text.push_str("  how its rows ended:\n");
    for ended in &verdict.ends {
        text.push_str(&format!("    {}\n", end_line(ended, steps)));
    }
    if verdict.ends.is_empty() {
        text.push_str("    none came to an end\n");
    }
    text
}

fn difference(miss: &Miss) -> String {
    let word = |value: &Option<Value>| value.as_ref().map_or("nothing".to_owned(), Value::to_string);
    let (expected, came) = (word(&miss.expected), word(&miss.came));
    let at = &miss.at;
    if expected.chars().count().max(came.chars().count()) <= SHORT_CHARS_MAX {
        return format!("  {at}: expected {}, came {}\n", escaped(&expected), escaped(&came));
    }
    let same = expected.chars().zip(came.chars()).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(BEFORE_CHARS);
    format!(
        "  {at}:\n    expected {}\n    came     {}\n",
        excerpt(&expected, from, VALUE_CHARS_MAX),
        excerpt(&came, from, VALUE_CHARS_MAX)
    )
}

/// A part of a text, from one character on.
fn excerpt(text: &str, from: usize, chars_max: usize) -> String {
    let part: String = text.chars().skip(from).take(chars_max).collect();
    let before = if from > 0 { "…" } else { "" };
    let after = if text.chars().count() > from + chars_max { "…" } else { "" };
    format!("{before}{}{after}", escaped(&part))
}

fn end_line(ended: &Ended, steps: &[&str]) -> String {
    let id = &ended.row.id;
    let name = |step: usize| steps.get(step).copied().unwrap_or("");
    match &ended.end {
        End::Kept => format!("row {id}: kept"),
        End::Rejected { step, reason } => {
            let evidence = excerpt(&reason.evidence.to_string(), 0, EVIDENCE_CHARS_MAX);
            format!("row {id}: rejected `{}` by step `{}`: {evidence}", reason.code, name(*step))
        }
        End::Failed { step, failure } => {
            let message = excerpt(&failure.message, 0, EVIDENCE_CHARS_MAX);
            format!("row {id}: failed `{}` at step `{}`: {message}", failure.code, name(*step))
        }
        End::Split { children, .. } => format!("row {id}: split into {children}"),
    }
}

fn to_json(verdict: &Verdict, steps: &[&str]) -> Value {
    let miss = |miss: &Miss| json!({"at": miss.at, "expected": miss.expected, "came": miss.came});
    let end = |ended: &Ended| {
        let (end, step, code, evidence) = match &ended.end {
            End::Kept => ("kept", None, None, Value::Null),
            End::Rejected { step, reason } => {
                ("rejected", Some(step), Some(&reason.code), reason.evidence.clone())
            }
            End::Failed { step, failure } => {
                ("failed", Some(step), Some(&failure.code), Value::from(failure.message.as_str()))
            }
            End::Split { step, children } => ("split", Some(step), None, Value::from(*children)),
        };
        let step = step.and_then(|step| steps.get(*step));
        json!({"row": ended.row.id.to_string(), "end": end, "step": step, "reason": code, "evidence": evidence,
               "fields": ended.row.fields})
    };
    json!({
        "test": verdict.test,
        "passed": verdict.passed(),
        "misses": verdict.misses.iter().map(miss).collect::<Vec<Value>>(),
        "ends": verdict.ends.iter().map(end).collect::<Vec<Value>>(),
    })
}
