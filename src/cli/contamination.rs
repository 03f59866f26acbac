//! `textmill contamination`: what `decontaminate` found in the latest run, by benchmark, both passages side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::load::{Loaded, load};
use crate::cli::rows::escaped;
use crate::cli::{Exit, PipelineArgs, fail, print};
use crate::data::read::read_dataset;
use crate::row::{Fields, Value};
use crate::run::{trace, workspace};
use crate::store::{Access, Store};

#[derive(clap::Args)]
pub struct Args {
    /// The pipeline file.
    path: PathBuf,
    /// Pairs to show of each benchmark, the highest scores first.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pairs: usize,
    /// Print every match as JSON, one a line.
    #[arg(long)]
    json: bool,
}

/// Characters of one side of a pair, and lines of a pair.
const SIDE_CHARS: usize = 52;
const PAIR_LINES_MAX: usize = 16;

/// A match as its evidence tells it.
struct Found {
    row: String,
    evidence: Fields,
}

impl Found {
    fn text(&self, key: &str) -> &str {
        self.evidence.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn score(&self) -> f64 {
        self.evidence.get("score").and_then(Value::as_f64).unwrap_or_default()
    }
}

pub fn main(args: &Args) -> Exit {
    let rejects = match rejects(args) {
        Ok(rejects) => rejects,
        Err(exit) => return exit,
    };
    let found = match found(&rejects) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    if args.json {
        for one in &found {
            let mut line = one.evidence.clone();
            line.insert("row".to_owned(), json!(one.row));
            print(&format!("{}\n", Value::Object(line)));
        }
    } else {
        print(&report(&found, args.pairs));
    }
    Exit::Done
}

/// Where the rejects of the latest run are.
fn rejects(args: &Args) -> Result<PathBuf, Exit> {
    let pipeline = PipelineArgs { pipeline: args.path.clone(), sets: Vec::new() };
    let Some(Loaded { pipeline, .. }) = load(&pipeline, false) else { return Err(Exit::Failed) };
    let workspace = workspace(&pipeline.base);
    let store = Store::open(&workspace, Access::Read).map_err(fail)?;
    let run = trace::latest_run_folder(&store, &workspace, &pipeline.file.name).map_err(fail)?;
    match run {
        Some(run) if run.join("rejects").exists() => Ok(run.join("rejects")),
        Some(_) => Err(fail("the latest run has not written its rejects (yet)")),
        None => Err(fail(format_args!("`{}` has not run here yet", pipeline.file.name))),
    }
}

/// The matches of all rejected rows, the best of each row first.
fn found(rejects: &Path) -> Result<Vec<Found>, Exit> {
    let mut found = Vec::new();
    for row in read_dataset(rejects).map_err(fail)? {
        let row = row.map_err(fail)?;
        if row.get("reason").and_then(Value::as_str) != Some("contaminated") {
            continue;
        }
        let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default();
        let Ok(Value::Object(mut evidence)) = serde_json::from_str(text("evidence")) else { continue };
        let also = evidence.remove("also");
        let also = also.and_then(|also| also.as_array().cloned()).unwrap_or_default();
        let all = std::iter::once(Value::Object(evidence)).chain(also);
        found.extend(all.filter_map(|evidence| match evidence {
            Value::Object(evidence) => Some(Found { row: text("textmill_row").to_owned(), evidence }),
            _ => None,
        }));
    }
    Ok(found)
}

fn report(found: &[Found], pairs_max: usize) -> String {
    if found.is_empty() {
        return "no row of the latest run was rejected `contaminated`\n".to_owned();
    }
    let mut benchmarks: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for one in found {
        benchmarks.entry(one.text("benchmark")).or_default().push(one);
    }
    let mut text = String::new();
    for (benchmark, mut found) in benchmarks {
        let rows: BTreeSet<&str> = found.iter().map(|one| one.row.as_str()).collect();
        let items: BTreeSet<&str> = found.iter().map(|one| one.text("item")).collect();
        let mut stages: BTreeMap<&str, usize> = BTreeMap::new();
        found.iter().for_each(|one| *stages.entry(one.text("stage")).or_default() += 1);
        let stages: Vec<String> = stages.iter().map(|(stage, count)| format!("{count} {stage}")).collect();
        text.push_str(&format!(
            "{}: {} rows contain {} items ({})\n",
            escaped(benchmark),
            rows.len(),
            items.len(),
            stages.join(", ")
        ));
        if let Some(measured) = found.iter().find_map(|one| one.evidence.get("calibration")) {
            text.push_str(&calibration(measured));
        }
        found.sort_by(|a, b| b.score().total_cmp(&a.score()));
        found.iter().take(pairs_max).for_each(|one| text.push_str(&pair(one)));
        text.push('\n');
    }
    text
}

/// What the threshold of the embeddings was measured to do.
fn calibration(measured: &Value) -> String {
    let share = |key: &str| measured[key].as_f64().unwrap_or_default() * 100.0;
    format!(
        "  embeddings, as measured with this model: {:.1} % of {} rephrased pairs found, {:.1} % of {} unrelated texts\n",
        share("recall"),
        measured["pairs"],
        share("false_positives"),
        measured["negatives"],
    )
}

/// Both passages, line by line beside each other.
fn pair(found: &Found) -> String {
    let needed = found.evidence.get("needed").and_then(Value::as_f64).unwrap_or_default();
    let mut text = format!(
        "  row {} and {}: {} {} (needed {needed})\n",
        escaped(&found.row),
        escaped(found.text("item")),
        escaped(found.text("stage")),
        found.score(),
    );
    let (left, right) = (side(found.text("text")), side(found.text("reference")));
    let lines = left.len().max(right.len());
    for line in 0..lines.min(PAIR_LINES_MAX) {
        let of = |side: &[String]| side.get(line).cloned().unwrap_or_default();
        let (left, right) = (of(&left), of(&right));
        let pad = SIDE_CHARS.saturating_sub(left.chars().count());
        text.push_str(format!("    {left}{} | {right}", " ".repeat(pad)).trim_end());
        text.push('\n');
    }
    if lines > PAIR_LINES_MAX {
        text.push_str("    […]\n");
    }
    text
}

/// A passage in lines of a bounded length that a terminal would not obey.
fn side(passage: &str) -> Vec<String> {
    let lines = passage.lines().filter(|line| !line.trim().is_empty());
    let mut side = Vec::new();
    for line in lines {
        let line: Vec<char> = escaped(&line.replace('\t', "    ")).chars().collect();
        side.extend(line.chunks(SIDE_CHARS).map(|chunk| chunk.iter().collect::<String>()));
    }
    side
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(row: &str, evidence: Value) -> Found {
        let Value::Object(evidence) = evidence else { panic!("{evidence}") };
        Found { row: row.to_owned(), evidence }
    }

    #[test]
    fn benchmarks_are_summed_up_and_pairs_stand_side_by_side() {
        let evidence = |item: &str, stage: &str, score: f64| {
            json!({"benchmark": "B", "item": item, "stage": stage, "score": score, "needed": 0.5,
                   "text": "one\n\u{1b}two", "reference": "uno\n\ndos\ntres",
                   "calibration": {"pairs": 22, "recall": 0.75, "negatives": 56, "false_positives": 0.0}})
        };
        let found = [one("3", evidence("i", "ngrams", 0.6)), one("4.1", evidence("i", "embeddings", 0.9))];
        let pad = |text: &str| format!("{text:<52}");
        let pair = [
            format!("    {} | uno\n", pad("one")),
            format!("    {} | dos\n", pad("\\u{1b}two")),
            format!("    {} | tres\n", pad("")),
        ]
        .concat();
        let head = "B: 2 rows contain 1 items (1 embeddings, 1 ngrams)\n  embeddings, as measured with this model: 75.0 % of \
                    22 rephrased pairs found, 0.0 % of 56 unrelated texts\n  row 4.1 and i: embeddings 0.9 (needed 0.5)\n";
        assert_eq!(report(&found, 1), format!("{head}{pair}\n"));
        assert_eq!(report(&[], 1), "no row of the latest run was rejected `contaminated`\n");
    }
}
