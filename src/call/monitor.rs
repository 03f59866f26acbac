//! Live counts of a run's calls, for the progress display and the manifest.
//!
//! Counts that depend on timing (faults, retries) are here and never in a dataset.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::call::batch::Batches;
use crate::store::Amount;
use crate::teacher::retry::Jitter;
use crate::teacher::{Fault, Usage};

/// Who a step asks: a step may ask several.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Line {
    /// The step's position.
    pub step: usize,
    /// The teacher's name; `None` for a program of the user's.
    pub teacher: Option<Arc<str>>,
}

/// What was counted, of one line or of several.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Calls that the store answered.
    pub hits: u64,
    /// Calls that a dry run did not find in the store, and the bytes of their requests.
    pub misses: u64,
    pub miss_bytes: u64,
    pub calls: u64,
    pub in_flight: u64,
    pub tokens_in: u64,
    pub tokens_out: u64,
    /// Those of the tokens in that came from the provider's cache.
    pub tokens_cached: u64,
    /// Those of the tokens out that were reasoning.
    pub tokens_reasoning: u64,
    pub usd_nano: u64,
    /// Replies of teachers without a price.
    pub unpriced: u64,
    /// Replies whose servers did not say how many tokens they have.
    pub uncounted: u64,
    /// Rows that went on to the next teacher of an `escalate:`.
    pub escalated: u64,
    /// Calls that brought no answer and may have been billed, at what the ledger has for them.
    pub unanswered: Amount,
    /// Faults by code.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Totals {
    #[must_use]
    pub fn plus(mut self, more: &Totals) -> Totals {
        self.hits += more.hits;
        self.misses += more.misses;
        self.miss_bytes += more.miss_bytes;
        self.calls += more.calls;
        self.in_flight += more.in_flight;
        self.tokens_in += more.tokens_in;
        self.tokens_out += more.tokens_out;
        self.tokens_cached += more.tokens_cached;
        self.tokens_reasoning += more.tokens_reasoning;
        self.usd_nano += more.usd_nano;
        self.unpriced += more.unpriced;
        self.uncounted += more.uncounted;
        self.escalated += more.escalated;
        self.unanswered = self.unanswered.plus(more.unanswered);
        for (code, count) in &more.faults {
            *self.faults.entry(code).or_default() += count;
        }
        self
    }

    fn to_json(&self) -> Value {
        let Amount { usd_nano, tokens, calls } = self.unanswered;
        json!({
            "from_store": self.hits,
            "calls": self.calls,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "tokens_cached": self.tokens_cached,
            "tokens_reasoning": self.tokens_reasoning,
            "usd": self.usd_nano as f64 / 1e9,
            "unpriced": self.unpriced,
            "uncounted": self.uncounted,
            "escalated": self.escalated,
            "unanswered": {"calls": calls, "tokens": tokens, "usd": usd_nano as f64 / 1e9},
            "faults": self.faults,
        })
    }
}

/// The counts of one line's calls.
pub struct CallCounts {
    totals: Mutex<Totals>,
    /// How the last calls without an answer ended, and how many of them in a row did so.
    given_up: Mutex<(&'static str, u32)>,
    jitter: Mutex<Jitter>,
}

impl CallCounts {
    fn new(step: usize) -> CallCounts {
        CallCounts {
            totals: Mutex::default(),
            given_up: Mutex::default(),
            jitter: Mutex::new(Jitter::new(step as u64 ^ u64::from(std::process::id()))),
        }
    }

    /// What was counted so far.
    pub fn totals(&self) -> Totals {
        self.counting().clone()
    }

    fn counting(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call was answered from the store.
    pub fn hit(&self) {
        self.counting().hits += 1;
    }

    /// A dry run met a call that is not in the store.
    pub fn miss(&self, request_bytes: usize) {
        let mut totals = self.counting();
        totals.misses += 1;
        totals.miss_bytes += request_bytes as u64;
    }

    /// A row goes on to the next teacher.
    pub fn escalated(&self) {
        self.counting().escalated += 1;
    }

    /// A call is in flight for as long as the guard lives.
    pub fn fly(&self) -> Flying<'_> {
        self.counting().in_flight += 1;
        Flying(self)
    }

    /// A call was answered by its teacher.
    pub fn reply(&self, usage: Option<Usage>, usd_nano: Option<u64>) {
        let mut totals = self.counting();
        totals.uncounted += u64::from(usage.is_none());
        let usage = usage.unwrap_or_default();
        totals.calls += 1;
        totals.tokens_in += usage.input;
        totals.tokens_out += usage.output;
        totals.tokens_cached += usage.cached_input;
        totals.tokens_reasoning += usage.reasoning;
        totals.usd_nano += usd_nano.unwrap_or(0);
        totals.unpriced += u64::from(usd_nano.is_none());
    }

    /// A call brought no answer and may have been billed so much.
    pub fn unanswered(&self, spent: Amount) {
        if spent.tokens > 0 {
            let mut totals = self.counting();
            totals.unanswered = totals.unanswered.plus(spent);
        }
    }

    /// A call was given up for a fault; how many of this line in a row were for the same.
    pub fn given_up(&self, fault: &Fault) -> u32 {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        let (code, count) = &mut *given_up;
        *count = if *code == fault.code() { *count + 1 } else { 1 };
        *code = fault.code();
        *count
    }

    pub fn answered(&self) {
        *self.given_up.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }

    pub fn fault(&self, fault: &Fault) {
        *self.counting().faults.entry(fault.code()).or_default() += 1;
    }

    /// A random number for a wait; never for anything that ends up in data.
    pub fn jitter(&self) -> f64 {
        self.jitter.lock().unwrap_or_else(PoisonError::into_inner).draw()
    }
}

pub struct Flying<'a>(&'a CallCounts);

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        self.0.counting().in_flight -= 1;
    }
}

/// The counts of all calls of a run.
#[derive(Default)]
pub struct Monitor {
    pub batches: Batches,
    lines: Mutex<BTreeMap<Line, Arc<CallCounts>>>,
}

impl Monitor {
    /// The counts of a line; made when first asked for.
    pub fn counts(&self, line: Line) -> Arc<CallCounts> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let step = line.step;
        Arc::clone(lines.entry(line).or_insert_with(|| Arc::new(CallCounts::new(step))))
    }

    /// What was counted so far, line by line.
    pub fn lines(&self) -> BTreeMap<Line, Totals> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|(line, counts)| (line.clone(), counts.totals())).collect()
    }

    /// The sums of every step that calls.
    pub fn steps(&self) -> BTreeMap<usize, Totals> {
        let mut steps = BTreeMap::<usize, Totals>::new();
        for (line, totals) in self.lines() {
            let sum = steps.remove(&line.step).unwrap_or_default();
            steps.insert(line.step, sum.plus(&totals));
        }
        steps
    }

    /// The sum of all.
    pub fn total(&self) -> Totals {
        self.lines().values().fold(Totals::default(), Totals::plus)
    }

    /// The counts of a run by the steps' names, as the store and programs get them; of a step that asks
    /// several teachers also those of each.
    pub fn to_json(&self, name_of: impl Fn(usize) -> Option<String>) -> Value {
        let lines = self.lines();
        let steps = self.steps().into_iter().filter_map(|(step, sum)| {
            let mut counts = sum.to_json();
            let by_teacher: serde_json::Map<String, Value> = lines
                .iter()
                .filter(|(line, _)| line.step == step)
                .filter_map(|(line, totals)| Some((line.teacher.as_ref()?.to_string(), totals.to_json())))
                .collect();
            if by_teacher.len() > 1 {
                counts["teachers"] = Value::Object(by_teacher);
            }
            Some((name_of(step)?, counts))
        });
        Value::Object(steps.collect())
    }
}
