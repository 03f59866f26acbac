//! The gate of a teacher: every request waits here until the limits allow it and its row is next.
//!
//! Here are the words and the asynchronous shell. Who is next is decided in `gate/queue.rs`, whether it
//! may go and what a reply changes in `gate/state.rs`. What is learned: of each allowance per minute in
//! `gate/allowance.rs`, of the calls at once in `gate/learn.rs` (a server that refuses) and
//! `gate/climb.rs` (one that queues). How processes share what there is: `gate/share.rs`. Nothing here sends, retries or counts
//! money.

mod allowance;
mod climb;
mod learn;
mod queue;
pub mod share;
mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub use learn::IN_FLIGHT_DEFAULT;
pub use queue::{PASSED_PATIENCE, TURN_EVERY};
pub use state::{GateState, Grant, Next};

use super::{LimitNotes, Usage};
use crate::row::RowId;

/// How long a teacher may be busy without one success before the gate gives up on it, when nobody says.
pub const PATIENCE_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// What a teacher allows, as the pipeline says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// At least 1; `None` is no limit.
    pub requests_per_minute: Option<u64>,
    /// Input and output together; at least 1; `None` is no limit.
    pub tokens_per_minute: Option<u64>,
    /// At least 1; `None` is [`IN_FLIGHT_DEFAULT`].
    pub in_flight: Option<usize>,
}

impl Limits {
    /// Why a call that reserves `tokens` can never be sent, as a sentence; for the check of a pipeline.
    pub fn refuse(&self, tokens: u64) -> Option<String> {
        let allowance = self.tokens_per_minute.filter(|allowance| tokens > *allowance)?;
        Some(format!(
            "one call may use {tokens} tokens, more than `tokens_per_minute: {allowance}` allows in a minute"
        ))
    }
}

/// A request that wants to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub row: RowId,
    /// The position of the step in the pipeline.
    pub step: usize,
    /// Tokens at the worst; the gate learns how much of it is used.
    pub tokens: Usage,
}

/// How a request ended, for the gate.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A reply. `tokens` is what it used, `None` when the server does not say.
    Ok { tokens: Option<Usage>, notes: LimitNotes },
    /// The teacher as a whole is asked to wait: 429, 529, 503 with Retry-After.
    Busy { retry_after: Option<Duration>, notes: LimitNotes },
    /// Any other fault. `tokens` is what it may have used, `None` when nobody knows.
    Failed { tokens: Option<Usage> },
}

/// Why the gate lets nobody in any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shut {
    #[error(
        "the teacher was busy for {} without one reply; run again later, or lower its `limits`",
        humantime::format_duration(*.patience)
    )]
    Stalled { patience: Duration },
    #[error("the run is stopping")]
    Closed,
}

/// What a person may want to see of a gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub waiting: usize,
    pub in_flight: usize,
    /// What busy replies and a server's queue have left of the configured limit, all processes together.
    pub in_flight_limit: usize,
    /// The configured limit, all processes together.
    pub places: usize,
    pub paused_for: Duration,
    /// Requests let in so far.
    pub used_requests: u64,
    /// Tokens used so far; those of calls in flight as expected.
    pub used_tokens: u64,
    /// What is spent per minute at most, as the file, the server and its refusals have it by now; `None`
    /// is no limit.
    pub requests_per_minute: Option<u64>,
    /// Input and output together.
    pub tokens_per_minute: Option<u64>,
    pub input_tokens_per_minute: Option<u64>,
    pub output_tokens_per_minute: Option<u64>,
}

impl Snapshot {
    /// The limits in effect, in one line: `2955 requests and 600000 tokens a minute, 64 in flight`.
    pub fn words(&self) -> String {
        let allowances = [
            (self.requests_per_minute, "requests"),
            (self.tokens_per_minute, "tokens"),
            (self.input_tokens_per_minute, "input tokens"),
            (self.output_tokens_per_minute, "output tokens"),
        ];
        let limited = allowances.into_iter().filter_map(|(limit, name)| Some(format!("{} {name}", limit?)));
        let limited: Vec<String> = limited.collect();
        let flight = format!("{} in flight", self.in_flight_limit);
        match limited.split_last() {
            None => flight,
            Some((last, [])) => format!("{last} a minute, {flight}"),
            Some((last, others)) => format!("{} and {last} a minute, {flight}", others.join(", ")),
        }
    }
}

/// A cheap handle to the gate of one teacher. All handles share one queue and one set of limits, and
/// belong to one tokio runtime: the first `enter` starts a timer task there, which the last handle ends.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    timer: OnceLock<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.get() {
            timer.abort();
        }
    }
}

struct Shared {
    start: Instant,
    /// The timer must look again: there is something to do before the time it waits for.
    sooner: Notify,
    waits: Mutex<Waits>,
}

struct Waits {
    state: GateState,
    waiting: HashMap<u64, oneshot::Sender<Result<Permit, Shut>>>,
    /// When the timer looks next.
    timer_at: Option<Duration>,
}

impl Gate {
    /// A gate with all of its burst at hand; see [`PATIENCE_DEFAULT`] for `patience`.
    pub fn new(limits: Limits, patience: Duration) -> Gate {
        // The seed only spreads pauses of processes that share a key.
        let seed = crate::clock::unix_ms().unsigned_abs() ^ (u64::from(std::process::id()) << 44);
        let state = GateState::new(Duration::ZERO, limits, patience, seed);
        let waits = Mutex::new(Waits { state, waiting: HashMap::new(), timer_at: None });
        let shared = Arc::new(Shared { start: tokio_now(), sooner: Notify::new(), waits });
        Gate { inner: Arc::new(Inner { shared, timer: OnceLock::new() }) }
    }

    /// Waits until the request may be sent. Dropping the future gives up the place in the queue.
    ///
    /// # Errors
    /// [`Shut`] when the teacher stayed busy for too long or [`Gate::close`] was called, before or during
    /// the wait.
    pub async fn enter(&self, ticket: Ticket) -> Result<Permit, Shut> {
        let shared = &self.inner.shared;
        self.inner.timer.get_or_init(|| tokio::spawn(keep_time(Arc::clone(shared))).abort_handle());
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut waits = shared.lock();
            let id = waits.state.enqueue(shared.now(), ticket);
            waits.waiting.insert(id, sender);
            id
        };
        let mut place = Place { shared, id: Some(id) };
        shared.advance(false);
        let answer = receiver.await;
        place.id = None;
        // A waiter's sender is only dropped unused when the timer's runtime is gone.
        let mut permit = answer.unwrap_or(Err(Shut::Closed))?;
        permit.delivered = true;
        Ok(permit)
    }

    /// Lets nobody in any more and tells those who wait; calls in flight settle as usual.
    pub fn close(&self) {
        self.inner.shared.lock().state.close();
        self.inner.shared.advance(false);
    }

    /// Keeps to a share of every limit, from 0 (nobody is let in) to 1: the rest is other processes'.
    pub fn set_share(&self, share: f64) {
        let shared = &self.inner.shared;
        shared.lock().state.set_share(shared.now(), share);
        shared.advance(false);
    }

    /// Whether the gate is shut, and why.
    pub fn shut(&self) -> Option<Shut> {
        self.inner.shared.lock().state.shut()
    }

    pub fn snapshot(&self) -> Snapshot {
        let shared = &self.inner.shared;
        shared.lock().state.snapshot(shared.now())
    }
}

/// The clock that tokio's timers go by, which tests can hold still; nothing is recorded from it.
pub(super) fn tokio_now() -> Instant {
    Instant::now()
}

impl Shared {
    fn now(&self) -> Duration {
        tokio_now().saturating_duration_since(self.start)
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        // The state machine does not panic half way; if it did, going on is better than a second panic.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets in whoever may go now, and returns when the timer should look again.
    fn advance(self: &Arc<Shared>, by_timer: bool) -> Option<Duration> {
        let mut answers = Vec::new();
        let wake = {
            let mut waits = self.lock();
            let wake = self.collect(&mut waits, &mut answers);
            let sooner = wake.is_some_and(|wake| waits.timer_at.is_none_or(|at| wake < at));
            if by_timer || sooner {
                waits.timer_at = wake;
            }
            if sooner && !by_timer {
                self.sooner.notify_one();
            }
            wake
        };
        // Outside the lock: a permit whose waiter has just left hands itself back, which needs the lock.
        for (sender, answer) in answers {
            drop(sender.send(answer));
        }
        wake
    }

    fn collect(self: &Arc<Shared>, waits: &mut Waits, answers: &mut Vec<Answer>) -> Option<Duration> {
        let now = self.now();
        loop {
            match waits.state.next(now) {
                Next::Admit(id, grant) => match waits.waiting.remove(&id) {
                    Some(sender) => answers.push((sender, Ok(Permit::new(self, grant)))),
                    None => waits.state.unused(now, grant),
                },
                Next::At(wake) => return Some(wake),
                Next::Wait => return None,
                Next::Shut(shut) => {
                    answers.extend(waits.waiting.drain().map(|(_, sender)| (sender, Err(shut))));
                    return None;
                }
            }
        }
    }
}

type Answer = (oneshot::Sender<Result<Permit, Shut>>, Result<Permit, Shut>);

/// Sleeps until the next time at which somebody may go, again and again.
async fn keep_time(shared: Arc<Shared>) {
    loop {
        match shared.advance(true) {
            Some(wake) => tokio::select! {
                () = tokio::time::sleep_until(shared.start + wake) => {}
                () = shared.sooner.notified() => {}
            },
            None => shared.sooner.notified().await,
        }
    }
}

/// A place in the queue, given up when the waiting future is dropped.
struct Place<'a> {
    shared: &'a Arc<Shared>,
    id: Option<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            {
                let mut waits = self.shared.lock();
                waits.state.cancel(id);
                waits.waiting.remove(&id);
            }
            // Whoever stood behind may need less.
            self.shared.advance(false);
        }
    }
}

/// The right to send one request, and its place in flight.
///
/// Dropped without [`Permit::settle`] (a panic, a cancelled call), it frees the place and counts its
/// tokens as used.
#[must_use = "dropping a permit gives up the place in flight"]
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    grant: Option<Grant>,
    /// Whether a waiter got it; one that nobody got was not used.
    delivered: bool,
}

impl Permit {
    fn new(shared: &Arc<Shared>, grant: Grant) -> Permit {
        Permit { shared: Arc::clone(shared), grant: Some(grant), delivered: false }
    }

    /// Tells the gate how the request ended, and frees the place.
    pub fn settle(mut self, outcome: Outcome) {
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: Outcome) {
        let Some(grant) = self.grant.take() else { return };
        {
            let mut waits = self.shared.lock();
            let now = self.shared.now();
            if self.delivered {
                waits.state.settle(now, grant, outcome);
            } else {
                waits.state.unused(now, grant);
            }
        }
        self.shared.advance(false);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.finish(Outcome::Failed { tokens: None });
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn gate(requests_per_minute: Option<u64>, in_flight: usize) -> Gate {
        let limits = Limits { requests_per_minute, tokens_per_minute: None, in_flight: Some(in_flight) };
        Gate::new(limits, PATIENCE_DEFAULT)
    }

    fn ticket(row: u64, step: usize) -> Ticket {
        Ticket { row: RowId::root(row), step, tokens: Usage::of(60, 40) }
    }

    fn ok() -> Outcome {
        Outcome::Ok { tokens: Some(Usage::of(60, 40)), notes: LimitNotes::default() }
    }

    /// Waits until all other tasks wait for something.
    async fn settle_down() {
        tokio::time::sleep(Duration::from_nanos(1)).await;
    }

    /// A crowd at the start; how many were let in from second 10 to 70.
    async fn check_minute(gate: Gate, latency: Duration, expected: std::ops::RangeInclusive<usize>) {
        let start = Instant::now();
        let tasks: Vec<_> = (0..4_500)
            .map(|row| {
                let gate = gate.clone();
                tokio::spawn(async move {
                    let permit = gate.enter(ticket(row, 0)).await.unwrap();
                    let sent = start.elapsed();
                    tokio::time::sleep(latency).await;
                    permit.settle(ok());
                    sent
                })
            })
            .collect();
        let mut let_in = 0;
        for task in tasks {
            let sent = task.await.unwrap();
            let_in += usize::from((10..70).contains(&sent.as_secs()));
        }
        assert!(expected.contains(&let_in), "{let_in}, expected {expected:?}");
        let seen = gate.snapshot();
        assert_eq!((seen.waiting, seen.in_flight, seen.used_requests), (0, 0, 4_500));
        assert_eq!(seen.used_tokens, 450_000);
    }

    #[tokio::test(start_paused = true)]
    async fn nearly_all_of_the_allowance_is_used_and_no_more() {
        check_minute(gate(Some(3_000), 256), Duration::from_millis(290), 2_910..=3_000).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_is_kept_to_and_more_is_taken_at_once() {
        let gate = gate(Some(3_000), 256);
        gate.set_share(0.0);
        for row in 0..6_000 {
            let gate = gate.clone();
            tokio::spawn(async move {
                let permit = gate.enter(ticket(row, 0)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(290)).await;
                permit.settle(ok());
            });
        }
        let used = async |seconds: u64| {
            let before = gate.snapshot().used_requests;
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            gate.snapshot().used_requests - before
        };
        assert_eq!(used(60).await, 0);
        gate.set_share(0.25);
        assert_eq!((gate.snapshot().in_flight_limit, gate.snapshot().places), (256, 256));
        let quarter = used(60).await;
        assert!((720..=760).contains(&quarter), "{quarter}");
        gate.set_share(1.0);
        let whole = used(60).await;
        assert!((2_910..=3_000).contains(&whole), "{whole}");
        gate.set_share(0.0);
        assert_eq!(used(60).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_in_flight_bound_the_rate() {
        check_minute(gate(None, 10), Duration::from_millis(250), 2_400..=2_400).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_place_goes_to_the_lowest_row_then_its_later_step() {
        let gate = gate(None, 1);
        let held = gate.enter(ticket(0, 0)).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = [(5, 0), (3, 0), (9, 7), (3, 2), (4, 1)]
            .map(|(row, step)| {
                let (gate, order) = (gate.clone(), Arc::clone(&order));
                tokio::spawn(async move {
                    let permit = gate.enter(ticket(row, step)).await.unwrap();
                    order.lock().unwrap().push((row, step));
                    permit.settle(ok());
                })
            })
            .into();
        settle_down().await;
        assert_eq!((gate.snapshot().waiting, gate.snapshot().in_flight), (5, 1));
        held.settle(ok());
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [(3, 2), (3, 0), (4, 1), (5, 0), (9, 7)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_holds_up_nobody() {
        let gate = gate(None, 1);
        let held = gate.enter(ticket(0, 0)).await.unwrap();
        let leaving: Vec<_> = (1..100)
            .map(|row| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.enter(ticket(row, 0)).await.map(drop) })
            })
            .collect();
        let staying = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(ticket(100, 0)).await.map(|permit| permit.settle(ok())) }
        });
        settle_down().await;
        for task in &leaving {
            task.abort();
        }
        settle_down().await;
        assert_eq!(gate.snapshot().waiting, 1);
        held.settle(ok());
        assert_eq!(staying.await.unwrap(), Ok(()));
        assert_eq!(gate.snapshot().used_requests, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_that_nobody_got_was_not_used() {
        let gate = gate(Some(60), 1);
        let held = gate.enter(ticket(0, 0)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        {
            let mut waiter = pin!(gate.enter(ticket(1, 0)));
            assert!(waiter.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            held.settle(ok());
            assert_eq!(gate.snapshot().in_flight, 1);
        }
        let seen = gate.snapshot();
        assert_eq!((seen.in_flight, seen.used_requests, seen.used_tokens), (0, 1, 100));
        let start = Instant::now();
        gate.enter(ticket(2, 0)).await.unwrap().settle(ok());
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_permit_frees_its_place() {
        let gate = gate(None, 1);
        let enter = |row| {
            let gate = gate.clone();
            async move { gate.enter(ticket(row, 0)).await.unwrap() }
        };
        let panicked = tokio::spawn({
            let permit = enter(0);
            async move {
                let _permit = permit.await;
                std::panic::resume_unwind(Box::new("the call broke"));
            }
        });
        assert!(panicked.await.is_err());
        let cancelled = tokio::spawn({
            let permit = enter(1);
            async move {
                let _permit = permit.await;
                std::future::pending::<()>().await;
            }
        });
        settle_down().await;
        assert_eq!(gate.snapshot().in_flight, 1);
        cancelled.abort();
        enter(2).await.settle(ok());
        let seen = gate.snapshot();
        assert_eq!((seen.in_flight, seen.used_requests, seen.used_tokens), (0, 3, 300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_teacher_pauses_as_a_whole() {
        let gate = gate(None, 8);
        let first = gate.enter(ticket(0, 0)).await.unwrap();
        let start = Instant::now();
        first.settle(Outcome::Busy {
            retry_after: Some(Duration::from_secs(3)),
            notes: LimitNotes::default(),
        });
        assert_eq!(gate.snapshot().paused_for, Duration::from_secs(3));
        gate.enter(ticket(1, 0)).await.unwrap().settle(ok());
        let waited = start.elapsed();
        assert!((3_000..3_010).contains(&waited.as_millis()), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_hear_that_the_gate_is_shut() {
        let stalled = gate(None, 8);
        let first = stalled.enter(ticket(0, 0)).await.unwrap();
        first.settle(Outcome::Busy { retry_after: Some(Duration::MAX), notes: LimitNotes::default() });
        let shut = Shut::Stalled { patience: PATIENCE_DEFAULT };
        assert_eq!(stalled.enter(ticket(1, 0)).await.map(drop), Err(shut));
        assert_eq!(stalled.enter(ticket(1, 0)).await.map(drop), Err(shut));
        assert!(shut.to_string().contains("30m"), "{shut}");

        let closed = gate(None, 1);
        let held = closed.enter(ticket(0, 0)).await.unwrap();
        let waiter = tokio::spawn({
            let gate = closed.clone();
            async move { gate.enter(ticket(1, 0)).await.map(drop) }
        });
        settle_down().await;
        closed.close();
        assert_eq!(waiter.await.unwrap(), Err(Shut::Closed));
        held.settle(ok());
        assert_eq!((closed.snapshot().in_flight, closed.shut()), (0, Some(Shut::Closed)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_handle_ends_the_timer() {
        let gate = gate(Some(60), 8);
        gate.enter(ticket(0, 0)).await.unwrap().settle(ok());
        let shared = Arc::downgrade(&gate.inner.shared);
        drop(gate);
        settle_down().await;
        assert!(shared.upgrade().is_none());
    }

    #[test]
    fn a_snapshot_says_what_is_in_effect() {
        let words = |requests_per_minute, tokens_per_minute, output_tokens_per_minute| {
            let seen = Snapshot {
                requests_per_minute,
                tokens_per_minute,
                output_tokens_per_minute,
                ..Snapshot::default()
            };
            Snapshot { in_flight_limit: 8, ..seen }.words()
        };
        assert_eq!(words(None, None, None), "8 in flight");
        assert_eq!(words(Some(60), None, None), "60 requests a minute, 8 in flight");
        let all = "60 requests, 900 tokens and 300 output tokens a minute, 8 in flight";
        assert_eq!(words(Some(60), Some(900), Some(300)), all);
    }

    #[test]
    fn a_call_larger_than_the_allowance_is_refused_with_a_sentence() {
        let limits = Limits { tokens_per_minute: Some(1_000), ..Limits::default() };
        assert_eq!(limits.refuse(1_000), None);
        let sentence = limits.refuse(1_001).unwrap();
        assert!(sentence.contains("1001") && sentence.contains("`tokens_per_minute: 1000`"), "{sentence}");
        assert_eq!(Limits::default().refuse(u64::MAX), None);
    }
}
