//! `textmill show`: rows of a dataset, rejects or failures, as people read them, and the way back from
//! one row to every prompt and reply it is made of.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::load::{Loaded, load};
use crate::cli::rows::{block, escaped, one};
use crate::cli::{Exit, PipelineArgs, fail, print, say};
use crate::data::read::{ReadError, read_dataset};
use crate::row::{Fields, RowId, Value};
use crate::run::trace::{self, Found, TraceError, TracedCall};
use crate::run::workspace;
use crate::store::{Access, Store};
use crate::teacher::{Answer, Role};

#[derive(clap::Args)]
pub struct Args {
    /// A pipeline file, a dataset's folder, or a data file.
    path: PathBuf,
    /// Of a pipeline: the rows that it published. That is the default.
    #[arg(long, group = "which")]
    kept: bool,
    /// Of a pipeline: the rows that its latest run rejected.
    #[arg(long, group = "which")]
    rejected: bool,
    /// Of a pipeline: the rows that failed in its latest run.
    #[arg(long, group = "which")]
    failed: bool,
    /// Trace one row back through every prompt and reply: its `textmill_row`, such as `17` or `17.3`.
    #[arg(long, value_name = "ID")]
    row: Option<String>,
    /// Rows to show.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Print rows as JSON, one a line.
    #[arg(long)]
    json: bool,
}

/// Rows to look at, and what they are.
struct Place {
    heading: &'static str,
    path: PathBuf,
}

pub fn main(args: &Args) -> Exit {
    let (places, workspace) = match places(args) {
        Ok(places) => places,
        Err(exit) => return exit,
    };
    match (&args.row, places.first()) {
        (Some(row), _) => show_row(args, row, &places, &workspace),
        (None, Some(place)) => show_rows(args, place, &workspace),
        (None, None) => Exit::Done,
    }
}

/// Where to look, the likeliest place first, and the workspace that the rows belong to.
fn places(args: &Args) -> Result<(Vec<Place>, PathBuf), Exit> {
    let is_pipeline =
        args.path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    if !is_pipeline {
        if args.rejected || args.failed {
            return Err(fail(
                "`--rejected` and `--failed` need a pipeline file: rejects and failures lie with its runs",
            ));
        }
        let folder = args.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let place = Place { heading: "row", path: args.path.clone() };
        return Ok((vec![place], workspace(folder.unwrap_or(Path::new(".")))));
    }
    let pipeline = PipelineArgs { pipeline: args.path.clone(), sets: Vec::new() };
    let Some(Loaded { pipeline, .. }) = load(&pipeline, false) else { return Err(Exit::Failed) };
    let workspace = workspace(&pipeline.base);
    let all = !(args.kept || args.rejected || args.failed) && args.row.is_some();
    let mut places = Vec::new();
    if all || !(args.rejected || args.failed) {
        places.push(Place { heading: "kept", path: pipeline.base.join(&pipeline.file.save.parquet) });
    }
    if all || args.rejected || args.failed {
        let store = Store::open(&workspace, Access::Read).map_err(fail)?;
        let run = trace::latest_run_folder(&store, &workspace, &pipeline.file.name).map_err(fail)?;
        if run.is_none() && !all {
            return Err(fail(format_args!("`{}` has not run here yet", pipeline.file.name)));
        }
        for (heading, folder, asked) in
            [("rejected", "rejects", args.rejected), ("failed", "failures", args.failed)]
        {
            if let Some(run) = run.as_ref().filter(|_| all || asked) {
                places.push(Place { heading, path: run.join(folder) });
            }
        }
    }
    // Of several places, those are looked at that are there.
    if places.iter().any(|place| place.path.exists()) {
        places.retain(|place| place.path.exists());
    }
    match places.first() {
        Some(place) if place.path.exists() => Ok((places, workspace)),
        Some(place) if place.heading == "kept" => {
            let name = args.path.display();
            Err(fail(format_args!(
                "nothing is published yet: there is no `{}`\nhint: textmill run {name}",
                place.path.display()
            )))
        }
        _ => Err(fail("the latest run has not written its rejects and failures (yet)")),
    }
}

fn show_rows(args: &Args, place: &Place, workspace: &Path) -> Exit {
    // Rows can be looked at without the store.
    let store = Store::open(workspace, Access::Read).ok();
    let rows = match read_dataset(&place.path) {
        Ok(rows) => rows,
        Err(error) => return unreadable(&error),
    };
    let mut shown = 0;
    for row in rows.take(args.limit) {
        match row {
            Ok(fields) if args.json => print(&format!("{}\n", Value::Object(fields))),
            Ok(fields) => print(&one(&fields, place.heading, store.as_ref())),
            Err(error) => return unreadable(&error),
        }
        shown += 1;
    }
    if shown == 0 && args.limit > 0 {
        say(format_args!("no rows in {}", place.path.display()));
    }
    Exit::Done
}

/// Shows a row and all its calls.
fn show_row(args: &Args, id: &str, places: &[Place], workspace: &Path) -> Exit {
    let id: RowId = match id.parse() {
        Ok(id) => id,
        Err(message) => return fail(message),
    };
    let store = match Store::open(workspace, Access::Read) {
        Ok(store) => store,
        Err(error) => return fail(error),
    };
    let mut untraced = None;
    let mut children = Vec::new();
    for place in places {
        match trace::find(&place.path, &id, &store, workspace) {
            Ok(Found::Row(fields)) => return show_traced(args, place, &fields, &store),
            Ok(Found::NoProvenance) => untraced = Some(place),
            Ok(Found::Split(found)) => children.extend(found),
            Ok(Found::Nothing) => {}
            Err(TraceError::Read(error)) => return unreadable(&error),
            Err(TraceError::Store(error)) => return fail(error),
        }
    }
    if !children.is_empty() {
        children.sort_unstable();
        let listed: Vec<String> = children.iter().map(|child| format!("`{child}`")).collect();
        let of = if untraced.is_some() { " (and, it may be, kept ones that do not say so)" } else { "" };
        return fail(format_args!("row `{id}` was split; of its rows there are {}{of}", listed.join(", ")));
    }
    if let Some(place) = untraced {
        return fail(format_args!(
            "the rows of `{}` do not say where they come from, and not all the runs that wrote them are there any more\n\
             hint: set `provenance: true` under `save:` and run again; its replies are in the store, so that costs nothing",
            place.path.display()
        ));
    }
    let looked: Vec<String> = places.iter().map(|place| format!("`{}`", place.path.display())).collect();
    fail(format_args!("there is no row `{id}` in {}", looked.join(", ")))
}

fn show_traced(args: &Args, place: &Place, fields: &Fields, store: &Store) -> Exit {
    let calls = match trace::calls(fields, store) {
        Ok(calls) => calls,
        Err(error) => return fail(error),
    };
    if args.json {
        let calls: Vec<Value> = calls.iter().map(call_json).collect();
        print(&format!("{}\n", json!({"end": place.heading, "row": fields, "calls": calls})));
        return Exit::Done;
    }
    print(&one(fields, place.heading, Some(store)));
    if calls.is_empty() {
        say("no call of this row was answered");
    }
    for (index, call) in calls.iter().enumerate() {
        print(&call_text(index + 1, call));
    }
    Exit::Done
}

fn call_json(call: &TracedCall) -> Value {
    let parsed = |text: &[u8]| {
        serde_json::from_slice(text)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(text).into_owned()))
    };
    json!({
        "step": call.step,
        "teacher": call.teacher,
        "model": call.model,
        "key": call.key,
        "endpoint": call.stored.as_ref().map(|stored| &stored.endpoint),
        "attempts": call.stored.as_ref().map(|stored| stored.attempts),
        "request": call.stored.as_ref().map(|stored| parsed(&stored.request)),
        "reply": call.stored.as_ref().map(|stored| parsed(stored.reply.as_bytes())),
    })
}

fn call_text(number: usize, call: &TracedCall) -> String {
    let mut head = format!("call {number}: step `{}` asked `{}` ({})", call.step, call.teacher, call.model);
    if let Some(stored) = &call.stored {
        head.push_str(&format!(" at {}", stored.endpoint));
    }
    let again = match call.stored.as_ref().map_or(1, |stored| stored.attempts) {
        0 | 1 => String::new(),
        attempts => format!(", answered at attempt {attempts}"),
    };
    let mut text = format!("── {}{again} ──\n", escaped(&head));
    let Some(stored) = &call.stored else {
        text.push_str(&format!("the store has no reply `{}` any more\n\n", escaped(&call.key)));
        return text;
    };
    for message in &stored.exchange.messages {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        text.push_str(&block(role, &message.content));
    }
    if stored.exchange.messages.is_empty() {
        text.push_str(&block("request", &String::from_utf8_lossy(&stored.request)));
    }
    let reply = stored.exchange.answer.as_ref().map_or_else(|| stored.reply.clone(), Answer::shown);
    text.push_str(&block("reply", &reply));
    text.push('\n');
    text
}

fn unreadable(error: &ReadError) -> Exit {
    match &error.hint {
        Some(hint) => fail(format_args!("{error}\nhint: {hint}")),
        None => fail(error),
    }
}
