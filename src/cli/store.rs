//! `textmill store`: what is in the store of replies; thinning it out; exporting it.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use crate::cli::{Exit, fail, print, runtime, say};
use crate::clock;
use crate::problem::counted;
use crate::run::workspace;
use crate::store::{Access, FOLDER, Filter, Share, Store, StoreError, StoreStats, StoredReply};

mod batches;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// A folder of the workspace whose store is meant.
    #[arg(long, global = true, value_name = "FOLDER", default_value = ".")]
    workspace: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Say what is in the store.
    Stats {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Delete replies for good. What they cost stays counted; asking again is paid again.
    Prune(Prune),
    /// List the batches that were sent, the newest first.
    Batches {
        /// Give up a batch that its provider does not know any more: its calls count as paid, and are made again.
        #[arg(long, value_name = "BATCH")]
        forget: Option<String>,
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print replies as JSONL: request, reply, origin, tokens, money, time.
    Export {
        #[command(flatten)]
        filter: FilterArgs,
    },
}

#[derive(clap::Args)]
struct Prune {
    #[command(flatten)]
    filter: FilterArgs,
    /// Delete all replies, when no filter is given.
    #[arg(long)]
    all: bool,
    /// Really delete; without it the replies are only counted.
    #[arg(long)]
    yes: bool,
    /// Give the freed space back to the system: writes the whole store anew.
    #[arg(long)]
    compact: bool,
}

/// Which replies are meant: those for which all that is given holds.
#[derive(clap::Args)]
struct FilterArgs {
    /// Replies older than this, such as `90d`.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
    /// Replies of a teacher: its identity, as `store stats` shows it.
    #[arg(long, value_name = "IDENTITY")]
    teacher: Option<String>,
    /// Replies of a model, as the server called it.
    #[arg(long)]
    model: Option<String>,
    /// Replies to the calls of a pipeline.
    #[arg(long)]
    pipeline: Option<String>,
    /// Replies to the calls of steps with this name.
    #[arg(long)]
    step: Option<String>,
}

impl FilterArgs {
    fn filter(&self) -> Filter {
        let before = |age: Duration| {
            clock::unix_ms().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
        };
        Filter {
            older_than_unix_ms: self.older_than.map(before),
            teacher: self.teacher.clone(),
            model: self.model.clone(),
            pipeline: self.pipeline.clone(),
            step: self.step.clone(),
        }
    }
}

pub fn main(args: &Args) -> Exit {
    let workspace = workspace(&args.workspace);
    if !workspace.join(FOLDER).is_dir() {
        let hint =
            "name a folder of the workspace with `--workspace`; a pipeline's first run makes its store";
        return fail(format_args!("there is no store in {}\nhint: {hint}", workspace.display()));
    }
    let access = match &args.command {
        Command::Prune(prune) if prune.yes => Access::Alone,
        Command::Batches { forget: Some(_), .. } => Access::Write,
        _ => Access::Read,
    };
    let done = Store::open(&workspace, access).and_then(|store| match &args.command {
        Command::Stats { json } => stats(&store, *json),
        Command::Prune(args) => prune(&store, args),
        Command::Batches { forget: Some(batch), .. } => batches::forget(&store, batch),
        Command::Batches { json, .. } => batches::list(&store, *json),
        Command::Export { filter } => export(&store, &filter.filter()),
    });
    done.unwrap_or_else(fail)
}

fn stats(store: &Store, as_json: bool) -> Result<Exit, StoreError> {
    let stats = store.stats(clock::unix_ms())?;
    if as_json {
        print(&format!("{:#}\n", stats_json(&stats)));
    } else {
        print(&stats_text(&stats));
        say("the store holds everything that was ever asked and answered here, personal data included");
    }
    Ok(Exit::Done)
}

fn stats_text(stats: &StoreStats) -> String {
    let mut text = format!(
        "{}; {} on disk, {} of requests and replies unpacked\n",
        counted(stats.total.replies, "reply"),
        HumanBytes(stats.file_bytes),
        HumanBytes(stats.body_bytes)
    );
    if let (Some(oldest), Some(newest)) = (stats.oldest_unix_ms, stats.newest_unix_ms) {
        text.push_str(&format!("from {} to {}\n", clock::rfc3339(oldest), clock::rfc3339(newest)));
    }
    if stats.total.replies == 0 {
        return text;
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["", "replies", "bytes"]);
    let teachers = stats.by_teacher.iter().map(|(name, share)| (format!("teacher {name}"), share));
    let models = stats.by_model.iter().map(|(name, share)| (format!("model {name}"), share));
    let ages = ages(stats).into_iter().map(|(age, share)| (age.to_owned(), share));
    for (name, share) in teachers.chain(models).chain(ages) {
        table.add_row([name, share.replies.to_string(), HumanBytes(share.stored_bytes).to_string()]);
    }
    text.push_str(&format!("{table}\n"));
    text
}

fn ages(stats: &StoreStats) -> [(&'static str, &Share); 4] {
    let [day, week, month, older] = &stats.by_age;
    [("up to a day old", day), ("up to 7 days old", week), ("up to 30 days old", month), ("older", older)]
}

fn stats_json(stats: &StoreStats) -> Value {
    let share = |share: &Share| json!({"replies": share.replies, "stored_bytes": share.stored_bytes});
    let shares = |shares: &std::collections::BTreeMap<String, Share>| -> Value {
        Value::Object(shares.iter().map(|(name, of)| (name.clone(), share(of))).collect())
    };
    let ages: serde_json::Map<String, Value> =
        ages(stats).into_iter().map(|(age, of)| (age.to_owned(), share(of))).collect();
    json!({
        "replies": stats.total.replies,
        "stored_bytes": stats.total.stored_bytes,
        "body_bytes": stats.body_bytes,
        "file_bytes": stats.file_bytes,
        "oldest": stats.oldest_unix_ms.map(clock::rfc3339),
        "newest": stats.newest_unix_ms.map(clock::rfc3339),
        "by_teacher": shares(&stats.by_teacher),
        "by_model": shares(&stats.by_model),
        "by_age": ages,
    })
}

fn prune(store: &Store, args: &Prune) -> Result<Exit, StoreError> {
    let filter = args.filter.filter();
    if filter == Filter::default() && !args.all {
        let hint = "say which replies: `--older-than 90d`, `--teacher`, `--model`, `--pipeline`, `--step`, or `--all`";
        return Ok(fail(format_args!("no filter is given\nhint: {hint}")));
    }
    let found = store.matching(&filter)?;
    let what = format!("{} ({})", counted(found.replies, "reply"), HumanBytes(found.stored_bytes));
    if !args.yes {
        say(format_args!("{what} would be deleted for good; `--yes` deletes them"));
        return Ok(Exit::Done);
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Ok(fail(error)),
    };
    let deleted = runtime.block_on(store.prune(filter))?;
    say(format_args!(
        "deleted: {} ({})",
        counted(deleted.replies, "reply"),
        HumanBytes(deleted.stored_bytes)
    ));
    if args.compact {
        let freed = runtime.block_on(store.compact())?;
        say(format_args!("{} were given back", HumanBytes(freed)));
    }
    Ok(Exit::Done)
}

fn export(store: &Store, filter: &Filter) -> Result<Exit, StoreError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut unwritten, mut unread) = (None, None);
    store.export(filter, &mut |reply| {
        let line = match reply_json(&reply) {
            Ok(line) => line,
            Err(error) => {
                unread = Some(error);
                return ControlFlow::Break(());
            }
        };
        match writeln!(out, "{line}") {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                unwritten = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = unread {
        return Err(error);
    }
    let flushed = unwritten.map_or_else(|| out.flush(), Err);
    Ok(match flushed {
        // `textmill store export | head` has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(format_args!("cannot write: {error}"))
        }
        _ => Exit::Done,
    })
}

fn reply_json(reply: &StoredReply) -> Result<Value, StoreError> {
    let parsed = |bytes: Vec<u8>| -> Value {
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()))
    };
    let origin = &reply.origin;
    Ok(json!({
        "key": reply.key.to_string(),
        "request": parsed(reply.request()?),
        "reply": parsed(reply.reply()?),
        "status": reply.status,
        "origin": {
            "epoch": origin.epoch,
            "pipeline": origin.pipeline,
            "step": origin.step,
            "teacher": origin.teacher,
            "endpoint": origin.endpoint,
            "wire": origin.wire,
            "model": origin.model,
        },
        "tokens_in": reply.tokens_in,
        "tokens_out": reply.tokens_out,
        "usd": reply.usd_nano.map(|nano| nano as f64 / 1e9),
        "attempts": reply.attempts,
        "latency_ms": reply.latency_ms,
        "created": clock::rfc3339(reply.created_unix_ms),
    }))
}
