//! The final accounts of a run, as people and programs read them.

use std::path::Path;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::call::batch::BatchCounts;
use crate::call::budget::{Limit, Of, shown, usd};
use crate::call::{Desk, Totals};
use crate::cli::rows::first;
use crate::engine::tally::StepTally;
use crate::problem::counted;
use crate::run::{Published, Report, accounts_json};
use crate::store::{Amount, BatchEnd, Store, Unit};
use crate::teacher::pool::Account;

/// The table of ends, the balance, the calls and what a kept row cost.
pub fn table(report: &Report, desk: &Desk) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    // A terminal of no columns does not know its width.
    if table.width() != Some(0) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    let some_open = report.tally.open > 0;
    let columns = ["step", "in", "out", "split off", "rejected", "failed", "open"];
    table.set_header(&columns[..columns.len() - usize::from(!some_open)]);
    for step in &report.tally.steps {
        let mut cells = vec![
            step.step.clone(),
            step.rows_in.to_string(),
            step.rows_out.to_string(),
            step.split_off.to_string(),
            reasons(&step.rejected),
            reasons(&step.failed),
        ];
        cells.extend(some_open.then(|| step.open.to_string()));
        table.add_row(cells);
    }
    let tally = &report.tally;
    let mut lines = vec![table.to_string()];
    lines.push(format!(
        "{} rows in + {} split off = {} kept + {} rejected + {} failed + {} open{}",
        tally.rows_in,
        tally.split_off,
        tally.kept,
        tally.rejected,
        tally.failed,
        tally.open,
        if tally.balances() { "" } else { "  (THIS DOES NOT BALANCE; this is a bug in textmill)" }
    ));
    if report.not_needed > 0 {
        lines.push(format!("{} started and turned out not to be needed", counted(report.not_needed, "row")));
    }
    lines.extend(calls(report, desk));
    lines.extend(endpoints(report));
    lines.push(match &report.published {
        Some(published) => published_in(published),
        None if report.preview.is_some() => {
            "a preview: nothing was published; `--show` shows its rows".to_owned()
        }
        None => format!("nothing was published; what this run decided is in {}", report.folder.display()),
    });
    lines.join("\n")
}

/// `19 rows in datasets/lessons`; of a folder with other epochs, which of its rows they are.
fn published_in(published: &Published) -> String {
    let Published { folder, partial, epoch, rows, rows_of_all } = published;
    let (folder, partial) = (folder.display(), if *partial { " (partial)" } else { "" });
    if rows == rows_of_all {
        return format!("{} in {folder}{partial}", counted(*rows, "row"));
    }
    format!(
        "{} of epoch `{epoch}`{partial} in {folder}, which has {rows_of_all} rows of all epochs",
        counted(*rows, "row")
    )
}

fn reasons(counts: &std::collections::BTreeMap<String, u64>) -> String {
    let total: u64 = counts.values().sum();
    if total == 0 {
        return "0".to_owned();
    }
    let listed: Vec<String> = counts.iter().map(|(code, count)| format!("{code} {count}")).collect();
    format!("{total}: {}", listed.join(", "))
}

/// One line for the calls and one for the money.
fn calls(report: &Report, desk: &Desk) -> Vec<String> {
    let Totals {
        calls: made,
        hits: stored,
        tokens_in,
        tokens_out,
        tokens_cached: cached,
        tokens_reasoning: reasoning,
        usd_nano: nano,
        unpriced,
        unanswered,
        faults,
        ..
    } = desk.monitor.total();
    if made + stored == 0 && faults.is_empty() {
        return Vec::new();
    }
    let seconds = (report.ended_unix_ms - report.started_unix_ms) as f64 / 1000.0;
    let mut lines = vec![format!(
        "{} ({tokens_in} tokens in, {tokens_out} out), {} from the store, in {seconds:.1} s",
        counted(made, "call"),
        counted(stored, "reply"),
    )];
    let share = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
    if cached > 0 {
        let share = share(cached, tokens_in);
        lines.push(format!("{share:.0} % of the tokens in came from the provider's cache"));
    }
    if reasoning > 0 {
        lines.push(format!("{:.0} % of the tokens out were reasoning", share(reasoning, tokens_out)));
    }
    lines.extend(escalated(report, desk));
    if !faults.is_empty() {
        let listed: Vec<String> = faults.iter().map(|(code, count)| format!("{code} {count}")).collect();
        lines.push(format!("calls that were sent again or given up: {}", listed.join(", ")));
    }
    if unanswered.calls > 0 {
        lines.push(format!(
            "{} of them may have been billed, and count at their worst case: {} tokens, {} USD",
            unanswered.calls,
            unanswered.tokens,
            usd(unanswered.usd_nano)
        ));
    }
    lines.extend(batches(desk));
    let paid = nano + unanswered.usd_nano;
    let cost = match (made + unanswered.calls, unpriced) {
        (0, _) => "nothing was paid".to_owned(),
        (_, 0) if paid > 0 || unanswered.calls == 0 => format!("{} USD", usd(paid)),
        (made, unpriced) if paid == 0 && unpriced + unanswered.calls == made => {
            "cost unknown: the teachers have no `price`".to_owned()
        }
        (_, unpriced) => format!("{} USD and {unpriced} calls of unknown price", usd(paid)),
    };
    lines.push(cost + &over_all_runs(report, desk, paid));
    lines.extend(left(desk));
    lines
}

/// What is left of every cap: `0.41 of 2 USD, 12 of 50 calls for step `draft``.
fn left(desk: &Desk) -> Option<String> {
    let limits = desk.budget.limits();
    let caps = limits.iter().flat_map(|limit| Unit::ALL.map(|unit| (limit, unit)));
    let left = caps.filter_map(|(limit, unit)| {
        let cap = limit.caps.of(unit)?;
        let left = cap.saturating_sub(limit.spent.of(unit));
        Some(format!("{} of {} {}{}", shown(unit, left), shown(unit, cap), unit.word(), limit.of.words()))
    });
    let left: Vec<String> = left.collect();
    (!left.is_empty()).then(|| format!("left of the budget: {}", left.join(", ")))
}

/// A limit for programs: whose it is, and each of its caps with what is spent and left of it.
pub fn limit_json(limit: &Limit) -> Value {
    let (of, step) = match &limit.of {
        Of::Epoch => ("epoch", None),
        Of::Step { name, .. } => ("step", Some(&**name)),
        Of::Run => ("run", None),
        Of::Day => ("day", None),
    };
    let mut fields = serde_json::Map::from_iter([("of".to_owned(), of.into())]);
    fields.extend(step.map(|step| ("step".to_owned(), step.into())));
    for unit in Unit::ALL {
        let number = |amount: u64| if unit == Unit::Usd { json!(amount as f64 / 1e9) } else { json!(amount) };
        let Some(cap) = limit.caps.of(unit) else { continue };
        let spent = limit.spent.of(unit);
        let left = number(cap.saturating_sub(spent));
        let told = json!({"cap": number(cap), "spent": number(spent), "left": left});
        fields.insert(unit.key().to_owned(), told);
    }
    Value::Object(fields)
}

/// How many rows went on to a better teacher, by step.
fn escalated(report: &Report, desk: &Desk) -> Option<String> {
    let steps = desk.monitor.steps().into_iter().filter(|(_, totals)| totals.escalated > 0);
    let listed: Vec<String> = steps
        .filter_map(|(step, totals)| {
            Some(format!("`{}` {}", report.tally.steps.get(step)?.step, totals.escalated))
        })
        .collect();
    (!listed.is_empty()).then(|| format!("rows that went on to the next teacher: {}", listed.join(", ")))
}

/// How the endpoints of pools fared, and what was learned of limits.
fn endpoints(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for (teacher, accounts) in &report.endpoints {
        for account in accounts.iter().filter(|account| account.replies > 0 || !account.faults.is_empty()) {
            let learned = account.limits_learned.as_ref().map(|words| format!("limits by now: {words}"));
            lines.extend(match accounts.len() {
                1 => learned.map(|learned| format!("teacher `{teacher}`: {learned}")),
                _ => Some(endpoint(teacher, account, learned)),
            });
        }
    }
    lines
}

fn endpoint(teacher: &str, account: &Account, learned: Option<String>) -> String {
    let faults: u64 = account.faults.values().sum();
    let mut parts = vec![counted(account.replies, "call")];
    parts.extend((faults > 0).then(|| counted(faults, "fault")));
    parts.extend(account.out.as_ref().map(|why| format!("not asked by now: {why}")));
    parts.extend(learned);
    format!("teacher `{teacher}` at `{}`: {}", account.name, parts.join("; "))
}

/// What came of the batches of this run and of those that it found under way.
fn batches(desk: &Desk) -> Option<String> {
    let BatchCounts { items_sent, ended, brought: BatchEnd { answered, declined, again }, sent, .. } =
        desk.monitor.batches.counts();
    let again = if again > 0 { format!(", {again} expired or failed") } else { String::new() };
    let declined = if declined > 0 { format!(", {declined} declined") } else { String::new() };
    (sent + ended > 0).then(|| {
        let (sent, ended) = (counted(sent, "batch"), counted(ended, "batch"));
        format!("{sent} of {items_sent} calls sent; {ended} came back: {answered} answered{declined}{again}")
    })
}

/// What the epoch's kept rows cost, with the money of the runs before.
fn over_all_runs(report: &Report, desk: &Desk, paid: u64) -> String {
    let all = if report.preview.is_some() { paid } else { spent(desk).usd_nano.max(paid) };
    let runs = match all > paid {
        true => format!(", {} USD over all runs of the epoch", usd(all)),
        false => String::new(),
    };
    match all.checked_div(report.tally.kept) {
        Some(each) if each > 0 => format!("{runs}, {} USD per kept row", usd(each)),
        _ => runs,
    }
}

/// What the ledger has for the epoch; nothing from a store that cannot be read, which the run has told of.
fn spent(desk: &Desk) -> Amount {
    desk.epoch_spent().unwrap_or_default()
}

/// What a person may wonder about at the end of a run, as sentences.
pub fn remarks(report: &Report) -> Vec<String> {
    let tally = &report.tally;
    let mut remarks = Vec::new();
    if !report.batches.is_empty() {
        let names = report.batches.iter().map(|batch| batch.provider_id.as_ref().unwrap_or(&batch.token));
        let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
        let calls: u64 = report.batches.iter().map(|batch| batch.items).sum();
        let (goes, it) = if names.len() == 1 { ("goes", "it") } else { ("go", "them") };
        remarks.push(format!(
            "{} with {} {goes} on at the provider ({}); run again to collect {it}",
            counted(names.len() as u64, "batch"),
            counted(calls, "call"),
            names.join(", ")
        ));
    }
    match report.spared {
        Some(rows) => remarks.push(format!(
            "this run kept no row and {} failed, so the {rows} published rows of its epoch stay as they are; \
             run again when their failures are dealt with",
            tally.failed
        )),
        None if tally.kept == 0 && report.stopped.is_none() => {
            remarks.push(format!("no row was kept: {} rejected, {} failed", tally.rejected, tally.failed));
        }
        None => {}
    }
    if let (Some(wanted), None, false) = (report.until.kept, &report.stopped, report.reached) {
        let why = match report.until.tried {
            Some(tried) if tally.rows_in >= tried => format!("`until.tried: {tried}` ended the run"),
            _ => "the source came to its end".to_owned(),
        };
        remarks.push(format!("{why} with {} of the {wanted} rows that `until.kept` asks for", tally.kept));
    }
    remarks
}

/// What the accounts could not be sure of.
pub fn warnings(report: &Report, desk: &Desk) -> Vec<String> {
    let mut warnings = Vec::new();
    for (step, Totals { calls, uncounted, unpriced, .. }) in desk.monitor.steps() {
        let matters = desk.budget.is_capped() || unpriced < calls;
        let Some(name) = report.tally.steps.get(step).map(|step: &StepTally| &step.step) else { continue };
        if uncounted > 0 && matters {
            warnings.push(format!(
                "step `{name}`: the server did not say how many tokens {uncounted} of {} took; \
                 these are counted at their worst case",
                counted(calls, "call")
            ));
        }
    }
    warnings
}

/// The accounts for programs.
pub fn json(report: &Report, desk: &Desk) -> Value {
    let name_of = |step: usize| report.tally.steps.get(step).map(|step| step.step.clone());
    let spent = spent(desk);
    json!({
        "run": report.id,
        "tally": report.tally,
        "balances": report.tally.balances(),
        "not_needed": report.not_needed,
        "calls": desk.monitor.to_json(name_of),
        "endpoints": accounts_json(&report.endpoints),
        "batches": batches_json(report, desk),
        "epoch_spent": {"calls": spent.calls, "tokens": spent.tokens, "usd": spent.usd_nano as f64 / 1e9},
        "budgets": desk.budget.limits().iter().map(limit_json).collect::<Vec<Value>>(),
        "stopped": report.stopped.as_ref().map(crate::call::StopReason::sentence),
        "dataset": report.published.as_ref().map(|published| published.folder.display().to_string()),
        "partial": report.published.as_ref().is_some_and(|published| published.partial),
        "folder": report.folder.display().to_string(),
        "seconds": (report.ended_unix_ms - report.started_unix_ms) as f64 / 1000.0,
    })
}

fn batches_json(report: &Report, desk: &Desk) -> Value {
    let BatchCounts { items_sent, ended, brought, sent, .. } = desk.monitor.batches.counts();
    json!({
        "sent": sent,
        "calls_sent": items_sent,
        "ended": ended,
        "answered": brought.answered,
        "declined": brought.declined,
        "again": brought.again,
        "left": report.batches.iter().map(|batch| &batch.provider_id).collect::<Vec<_>>(),
    })
}

/// How many rows of each end `--show` shows.
const ROWS_SHOWN_MAX: usize = 20;

/// The rows that a run kept, rejected and failed, for `--show`.
pub fn rows(report: &Report, store: &Store) -> String {
    let kept = report.published.as_ref().map(|published| published.folder.clone());
    let kept = kept.or_else(|| report.preview.clone());
    let rows = |folder: &Path, heading: &str| first(folder, heading, ROWS_SHOWN_MAX, Some(store));
    let mut text = kept.map(|kept| rows(&kept, "kept")).unwrap_or_default();
    text.push_str(&rows(&report.folder.join("rejects"), "rejected"));
    text.push_str(&rows(&report.folder.join("failures"), "failed"));
    text
}
