//! Live counts of a run's calls, for the progress display and the manifest.
//!
//! Counts that depend on timing (faults, retries) are here and never in a dataset.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::store::Amount;
use crate::teacher::retry::Jitter;
use crate::teacher::{Fault, Usage};

/// The counts of one step's calls.
pub struct CallCounts {
    pub hits: AtomicU64,
    /// Calls that a dry run did not find in the store, and the bytes of their requests.
    pub misses: AtomicU64,
    pub miss_bytes: AtomicU64,
    pub calls: AtomicU64,
    pub in_flight: AtomicU64,
    pub tokens_in: AtomicU64,
    pub tokens_out: AtomicU64,
    /// Those of the tokens in that came from the provider's cache.
    pub tokens_cached: AtomicU64,
    /// Those of the tokens out that were reasoning.
    pub tokens_reasoning: AtomicU64,
    pub usd_nano: AtomicU64,
    /// Replies of teachers without a price.
    pub unpriced: AtomicU64,
    /// Calls that brought no answer and may have been billed, at what the ledger has for them.
    unanswered: Mutex<Amount>,
    /// Replies whose servers did not say how many tokens they have.
    pub uncounted: AtomicU64,
    /// How the last calls without an answer ended, and how many of them in a row did so.
    given_up: Mutex<(&'static str, u32)>,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    jitter: Mutex<Jitter>,
}

impl CallCounts {
    fn new(step: usize) -> CallCounts {
        CallCounts {
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            miss_bytes: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            tokens_in: AtomicU64::new(0),
            tokens_out: AtomicU64::new(0),
            tokens_cached: AtomicU64::new(0),
            tokens_reasoning: AtomicU64::new(0),
            usd_nano: AtomicU64::new(0),
            unpriced: AtomicU64::new(0),
            unanswered: Mutex::default(),
            uncounted: AtomicU64::new(0),
            given_up: Mutex::default(),
            faults: Mutex::default(),
            jitter: Mutex::new(Jitter::new(step as u64 ^ u64::from(std::process::id()))),
        }
    }

    /// A call was answered from the store.
    pub fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// A dry run met a call that is not in the store.
    pub fn miss(&self, request_bytes: usize) {
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.miss_bytes.fetch_add(request_bytes as u64, Ordering::Relaxed);
    }

    /// A call is in flight for as long as the guard lives.
    pub fn fly(&self) -> Flying<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Flying(&self.in_flight)
    }

    /// A call was answered by its teacher.
    pub fn reply(&self, usage: Option<Usage>, usd_nano: Option<u64>) {
        self.uncounted.fetch_add(u64::from(usage.is_none()), Ordering::Relaxed);
        let usage = usage.unwrap_or_default();
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.tokens_in.fetch_add(usage.input, Ordering::Relaxed);
        self.tokens_out.fetch_add(usage.output, Ordering::Relaxed);
        self.tokens_cached.fetch_add(usage.cached_input, Ordering::Relaxed);
        self.tokens_reasoning.fetch_add(usage.reasoning, Ordering::Relaxed);
        self.usd_nano.fetch_add(usd_nano.unwrap_or(0), Ordering::Relaxed);
        self.unpriced.fetch_add(u64::from(usd_nano.is_none()), Ordering::Relaxed);
    }

    /// A call brought no answer and may have been billed so much.
    pub fn unanswered(&self, spent: Amount) {
        if spent.tokens > 0 {
            let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
            *unanswered = unanswered.plus(spent);
        }
    }

    /// What calls without an answer may have been billed so far.
    pub fn spent_unanswered(&self) -> Amount {
        *self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call was given up for a fault; how many of this step in a row were for the same.
    pub fn given_up(&self, fault: &Fault) -> u32 {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        let (code, count) = &mut *given_up;
        *count = if *code == code_of(fault) { *count + 1 } else { 1 };
        *code = code_of(fault);
        *count
    }

    pub fn answered(&self) {
        *self.given_up.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }

    pub fn fault(&self, fault: &Fault) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        *faults.entry(code_of(fault)).or_default() += 1;
    }

    /// The counts as the store keeps them with a run.
    pub fn to_json(&self) -> Value {
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let Amount { usd_nano, tokens, calls } = self.spent_unanswered();
        json!({
            "from_store": count(&self.hits),
            "calls": count(&self.calls),
            "tokens_in": count(&self.tokens_in),
            "tokens_out": count(&self.tokens_out),
            "tokens_cached": count(&self.tokens_cached),
            "tokens_reasoning": count(&self.tokens_reasoning),
            "usd": count(&self.usd_nano) as f64 / 1e9,
            "unpriced": count(&self.unpriced),
            "uncounted": count(&self.uncounted),
            "unanswered": {"calls": calls, "tokens": tokens, "usd": usd_nano as f64 / 1e9},
            "faults": self.faults(),
        })
    }

    /// Faults by code so far.
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A random number for a wait; never for anything that ends up in data.
    pub fn jitter(&self) -> f64 {
        self.jitter.lock().unwrap_or_else(PoisonError::into_inner).draw()
    }
}

fn code_of(fault: &Fault) -> &'static str {
    match fault {
        Fault::Busy { .. } => "busy",
        Fault::Fatal { .. } => "fatal",
        Fault::Transient { code, .. } => code,
        Fault::TooLong { .. } => "too_long",
        Fault::BadRequest { .. } => "declined",
    }
}

pub struct Flying<'a>(&'a AtomicU64);

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counts of all steps' calls.
#[derive(Default)]
pub struct Monitor {
    steps: Mutex<BTreeMap<usize, Arc<CallCounts>>>,
}

impl Monitor {
    /// The counts of a step; made when first asked for.
    pub fn counts(&self, step: usize) -> Arc<CallCounts> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(steps.entry(step).or_insert_with(|| Arc::new(CallCounts::new(step))))
    }

    /// Calls in flight, of all steps.
    pub fn in_flight(&self) -> u64 {
        self.steps().values().map(|counts| counts.in_flight.load(Ordering::Relaxed)).sum()
    }

    /// The counts of every step that calls.
    pub fn steps(&self) -> BTreeMap<usize, Arc<CallCounts>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
