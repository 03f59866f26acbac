//! `textmill store batches`: what was sent in batches and what came of it; giving one up.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::cli::{Exit, fail, print, runtime, say};
use crate::clock;
use crate::store::{Batch, Store, StoreError};

/// Batches that are listed.
const BATCHES_MAX: u32 = 1000;

pub fn list(store: &Store, as_json: bool) -> Result<Exit, StoreError> {
    let batches = store.batches(BATCHES_MAX)?;
    if as_json {
        print(&format!("{:#}\n", Value::from(batches.iter().map(to_json).collect::<Vec<Value>>())));
    } else if batches.is_empty() {
        say("no batch was sent from here");
    } else {
        print(&format!("{}\n", table(&batches)));
    }
    Ok(Exit::Done)
}

pub fn forget(store: &Store, batch: &str) -> Result<Exit, StoreError> {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Ok(fail(error)),
    };
    if !runtime.block_on(store.forget_batch(batch, clock::unix_ms()))? {
        return Ok(fail(format_args!(
            "no batch `{batch}` is under way\nhint: `textmill store batches` lists them"
        )));
    }
    say(format_args!(
        "batch `{batch}` is given up; its calls count as paid, and are made again when they are needed"
    ));
    Ok(Exit::Done)
}

fn state(batch: &Batch) -> &'static str {
    match (&batch.ended_unix_ms, &batch.provider_id) {
        (Some(_), _) => "ended",
        (None, Some(_)) => "under way",
        (None, None) => "in doubt",
    }
}

fn table(batches: &[Batch]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["batch", "teacher", "calls", "sent", "state", "answered", "declined", "again"]);
    for batch in batches {
        table.add_row([
            batch.provider_id.as_ref().unwrap_or(&batch.token).clone(),
            batch.of.teacher.clone(),
            batch.items.to_string(),
            clock::rfc3339(batch.sent_unix_ms),
            state(batch).to_owned(),
            batch.end.answered.to_string(),
            batch.end.declined.to_string(),
            batch.end.again.to_string(),
        ]);
    }
    table.to_string()
}

fn to_json(batch: &Batch) -> Value {
    json!({
        "batch": batch.provider_id,
        "token": batch.token,
        "teacher": batch.of.teacher,
        "wire": batch.of.wire,
        "model": batch.of.model,
        "calls": batch.items,
        "sent": clock::rfc3339(batch.sent_unix_ms),
        "ended": batch.ended_unix_ms.map(clock::rfc3339),
        "state": state(batch),
        "answered": batch.end.answered,
        "declined": batch.end.declined,
        "again": batch.end.again,
    })
}
