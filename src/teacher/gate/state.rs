//! The gate's decisions: who may send now, what a reply changes, when to look again.
//!
//! A pure state machine. Time is a parameter (a monotonic `Duration` since any fixed start) and random
//! numbers come from a seed; nothing here waits, locks or wakes anyone.

use std::time::Duration;

use super::learn::{Flight, IN_FLIGHT_DEFAULT, PAUSE_MAX, Pauses, UsedShare};
use super::queue::Queue;
use super::{Limits, Outcome, Shut, Snapshot, Ticket};
use crate::teacher::LimitNotes;
use crate::teacher::bucket::Bucket;

/// The longest pause that a server can ask for; far above any patience, far below overflow.
const TOLD_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A place in flight that was given to a waiter. Hand it back with [`GateState::settle`] or
/// [`GateState::unused`], once.
#[derive(Debug, PartialEq)]
pub struct Grant {
    /// Tokens the ticket named.
    reserved: u64,
    /// Tokens taken from the allowance for it.
    taken: u64,
    sent_at: Duration,
    /// Which burst of busy replies it was sent after.
    round: u64,
}

/// What the gate does next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The waiter with this id may send; ask again.
    Admit(u64, Grant),
    /// Nothing before this time, unless something else happens.
    At(Duration),
    /// Nothing until something else happens.
    Wait,
    /// Nothing ever again; the waiters have been forgotten and must be told.
    Shut(Shut),
}

/// Limits, waiters and calls in flight of one teacher.
#[derive(Debug)]
pub struct GateState {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    used_share: UsedShare,
    flight: Flight,
    queue: Queue,
    paused_until: Duration,
    pauses: Pauses,
    /// Bursts of busy replies so far. A busy reply begins a new one if its request was sent after the last.
    round: u64,
    /// The first busy reply since the last success.
    busy_since: Option<Duration>,
    patience: Duration,
    shut: Option<Shut>,
    used_requests: u64,
    used_tokens: u64,
}

impl GateState {
    /// `patience` is how long a teacher may be busy without one success; `seed` is for jitter only.
    pub fn new(now: Duration, limits: Limits, patience: Duration, seed: u64) -> GateState {
        GateState {
            requests: limits.requests_per_minute.map(|allowance| Bucket::per_minute(now, allowance)),
            tokens: limits.tokens_per_minute.map(|allowance| Bucket::per_minute(now, allowance)),
            used_share: UsedShare::default(),
            flight: Flight::new(limits.in_flight.unwrap_or(IN_FLIGHT_DEFAULT)),
            queue: Queue::default(),
            paused_until: Duration::ZERO,
            pauses: Pauses::new(seed),
            round: 0,
            busy_since: None,
            patience,
            shut: None,
            used_requests: 0,
            used_tokens: 0,
        }
    }

    /// Adds a waiter and returns its id.
    pub fn enqueue(&mut self, now: Duration, ticket: Ticket) -> u64 {
        let idle = self.queue.is_empty() && self.flight.now == 0;
        if idle && now > self.paused_until.saturating_add(PAUSE_MAX) {
            // Nobody asked for longer than any pause: that was rest, not a teacher that stays busy.
            self.busy_since = None;
        }
        self.queue.push(now, ticket)
    }

    /// Forgets a waiter that no longer waits.
    pub fn cancel(&mut self, id: u64) {
        self.queue.remove(id);
    }

    /// Lets the next waiter in, or tells when to ask again. Call it until it does not admit.
    ///
    /// The head of the queue is waited for: nobody behind it takes what it waits for, so a large request is
    /// not overtaken for ever by small ones.
    pub fn next(&mut self, now: Duration) -> Next {
        let gives_up_at = self.busy_since.map(|since| since.saturating_add(self.patience));
        let paused = self.paused_until > now;
        if paused && !self.queue.is_empty() && gives_up_at.is_some_and(|at| at <= now) {
            self.shut.get_or_insert(Shut::Stalled { patience: self.patience });
        }
        if let Some(shut) = self.shut {
            self.queue.clear();
            return Next::Shut(shut);
        }
        let Some(head) = self.queue.head(now) else { return Next::Wait };
        if self.flight.now >= self.flight.limit {
            return Next::Wait;
        }
        if paused {
            return Next::At(gives_up_at.map_or(self.paused_until, |at| at.min(self.paused_until)));
        }
        let taken = self.used_share.take(head.tokens);
        let for_requests = self.requests.as_ref().map_or(now, |bucket| bucket.ready_at(now, 1));
        let for_tokens = self.tokens.as_ref().map_or(now, |bucket| bucket.ready_at(now, taken));
        let ready = for_requests.max(for_tokens);
        if ready > now {
            return Next::At(ready);
        }
        self.queue.let_in(head.id);
        Next::Admit(head.id, self.spend(now, head.tokens, taken))
    }

    /// Takes what a call needs out of the allowances; both are known to have it.
    fn spend(&mut self, now: Duration, reserved: u64, taken: u64) -> Grant {
        if let Some(requests) = &mut self.requests {
            requests.try_take(now, 1);
        }
        if let Some(tokens) = &mut self.tokens {
            tokens.try_take(now, taken);
        }
        self.flight.now += 1;
        self.used_requests += 1;
        self.used_tokens = self.used_tokens.saturating_add(taken);
        Grant { reserved, taken, sent_at: now, round: self.round }
    }

    /// Takes back a place that was never used: nothing was sent.
    #[expect(clippy::needless_pass_by_value, reason = "a grant is handed back once")]
    pub fn unused(&mut self, now: Duration, grant: Grant) {
        self.flight.now = self.flight.now.saturating_sub(1);
        self.used_requests = self.used_requests.saturating_sub(1);
        if let Some(requests) = &mut self.requests {
            requests.give_back(now, 1);
        }
        self.settle_tokens(now, &grant, 0);
    }

    /// Frees a place in flight and learns from how the call ended.
    #[expect(clippy::needless_pass_by_value, reason = "a grant is handed back once")]
    pub fn settle(&mut self, now: Duration, grant: Grant, outcome: Outcome) {
        self.flight.now = self.flight.now.saturating_sub(1);
        match outcome {
            Outcome::Ok { tokens, notes } => {
                if let Some(used) = tokens {
                    self.used_share.learn(grant.reserved, used);
                }
                self.settle_tokens(now, &grant, tokens.unwrap_or(grant.taken));
                self.correct(now, grant.sent_at, &notes);
                self.busy_since = None;
                if grant.round == self.round {
                    self.pauses.reset();
                }
                self.flight.grow();
            }
            Outcome::Busy { retry_after, notes } => {
                self.settle_tokens(now, &grant, 0);
                self.busy(now, &grant, retry_after, &notes);
            }
            Outcome::Failed { tokens } => {
                // Nobody knows what it used, so all of what it could have.
                self.settle_tokens(now, &grant, tokens.unwrap_or(grant.reserved.max(grant.taken)));
            }
        }
    }

    /// Lets nobody in any more; calls in flight may still be settled.
    pub fn close(&mut self) {
        self.shut.get_or_insert(Shut::Closed);
    }

    /// Whether the gate is shut, and why.
    pub fn shut(&self) -> Option<Shut> {
        self.shut
    }

    pub fn snapshot(&self, now: Duration) -> Snapshot {
        Snapshot {
            waiting: self.queue.len(),
            in_flight: self.flight.now,
            in_flight_limit: self.flight.limit,
            paused_for: self.paused_until.saturating_sub(now),
            used_requests: self.used_requests,
            used_tokens: self.used_tokens,
        }
    }

    fn settle_tokens(&mut self, now: Duration, grant: &Grant, used: u64) {
        // A call that was not served (0) is not counted by a server that counts what is asked, either.
        let counted =
            if self.used_share.server_counts_asked && used > 0 { used.max(grant.reserved) } else { used };
        if let Some(tokens) = &mut self.tokens {
            tokens.settle(now, grant.taken, counted);
        }
        self.used_tokens = self.used_tokens.saturating_sub(grant.taken).saturating_add(used);
    }

    fn correct(&mut self, now: Duration, said_at: Duration, notes: &LimitNotes) {
        if let (Some(bucket), Some(remaining)) = (&mut self.requests, notes.remaining_requests) {
            bucket.correct(now, said_at, remaining, notes.reset_requests);
        }
        if let (Some(bucket), Some(remaining)) = (&mut self.tokens, notes.remaining_tokens) {
            bucket.correct(now, said_at, remaining, notes.reset_tokens);
        }
    }

    /// The teacher pauses as a whole. Busy replies to calls that were in flight together count once.
    fn busy(&mut self, now: Duration, grant: &Grant, retry_after: Option<Duration>, notes: &LimitNotes) {
        let since = *self.busy_since.get_or_insert(now);
        for bucket in [&mut self.requests, &mut self.tokens].into_iter().flatten() {
            bucket.drain(now);
        }
        if notes.remaining_tokens.is_some_and(|remaining| remaining < grant.reserved) {
            self.used_share.server_counts_asked = true;
        }
        let new_burst = grant.round == self.round;
        if new_burst {
            self.round += 1;
            self.flight.shrink();
        }
        // A told wait of zero tells nothing: obeying it would be a hot loop.
        let told = retry_after.or_else(|| exhausted_until(notes)).filter(|told| !told.is_zero());
        let pause = match told {
            Some(told) => told.min(TOLD_MAX),
            None if new_burst => self.pauses.next(),
            None => Duration::ZERO,
        };
        self.paused_until = self.paused_until.max(now.saturating_add(pause));
        if now.saturating_sub(since) >= self.patience {
            self.shut.get_or_insert(Shut::Stalled { patience: self.patience });
        }
    }
}

/// When what a busy reply's headers say is used up comes back. The same bound as for pauses whose
/// length nobody told, because such headers may speak of a daily quota.
fn exhausted_until(notes: &LimitNotes) -> Option<Duration> {
    let requests = notes.reset_requests.filter(|_| notes.remaining_requests == Some(0));
    let tokens = notes.reset_tokens.filter(|_| notes.remaining_tokens == Some(0));
    requests.max(tokens).map(|reset| reset.min(PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::row::RowId;

    const PATIENCE: Duration = Duration::from_secs(1_800);

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn gate(requests: Option<u64>, tokens: Option<u64>, in_flight: usize) -> GateState {
        let limits =
            Limits { requests_per_minute: requests, tokens_per_minute: tokens, in_flight: Some(in_flight) };
        GateState::new(Duration::ZERO, limits, PATIENCE, 1)
    }

    fn ticket(row: u64, tokens: u64) -> Ticket {
        Ticket { row: RowId::root(row), step: 0, tokens }
    }

    fn ok(tokens: u64) -> Outcome {
        Outcome::Ok { tokens: Some(tokens), notes: LimitNotes::default() }
    }

    fn busy(retry_after: Option<f64>) -> Outcome {
        Outcome::Busy { retry_after: retry_after.map(at), notes: LimitNotes::default() }
    }

    fn fill(state: &mut GateState, now: Duration, waiters: u64) {
        for row in 0..waiters {
            state.enqueue(now, ticket(row, 10));
        }
    }

    /// Lets in all that may go now.
    fn admit(state: &mut GateState, now: Duration) -> Vec<Grant> {
        std::iter::from_fn(|| match state.next(now) {
            Next::Admit(_, grant) => Some(grant),
            _ => None,
        })
        .collect()
    }

    /// Keeps `waiting` tickets in the queue for `seconds`, ends each call after `latency`, and returns when
    /// each was sent. `outcome` is told the time of sending and the tokens asked for.
    fn simulate(
        state: &mut GateState,
        (seconds, waiting, latency): (f64, usize, f64),
        mut tickets: impl FnMut(u64) -> Ticket,
        mut outcome: impl FnMut(Duration, u64) -> Outcome,
    ) -> Vec<(Duration, u64)> {
        let (mut now, mut made, mut sent) = (Duration::ZERO, 0, Vec::new());
        let mut flying = VecDeque::new();
        while now < at(seconds) {
            while state.snapshot(now).waiting < waiting {
                made += 1;
                state.enqueue(now, tickets(made));
            }
            let next = match state.next(now) {
                Next::Admit(_, grant) => {
                    sent.push((now, grant.reserved));
                    flying.push_back((now + at(latency), grant));
                    continue;
                }
                Next::At(time) => time,
                Next::Wait => Duration::MAX,
                Next::Shut(shut) => panic!("{shut}"),
            };
            let landing = flying.front().map_or(Duration::MAX, |(time, _)| *time);
            now = next.min(landing);
            while let Some((_, grant)) = flying.pop_front_if(|(time, _)| *time <= now) {
                let outcome = outcome(grant.sent_at, grant.reserved);
                state.settle(now, grant, outcome);
            }
        }
        sent
    }

    /// What was sent from second 10 to 70: the share of an allowance per minute.
    fn share(sent: &[(Duration, u64)], per_minute: u64, weight: impl Fn(u64) -> u64) -> f64 {
        let minute = sent.iter().filter(|(time, _)| (at(10.0)..at(70.0)).contains(time));
        minute.map(|(_, tokens)| weight(*tokens)).sum::<u64>() as f64 / per_minute as f64
    }

    #[test]
    fn a_crowd_at_the_start_is_let_in_at_the_rate() {
        let mut state = gate(Some(60), None, 1_000);
        let sent = simulate(&mut state, (120.0, 500, 0.1), |row| ticket(row, 0), |_, _| ok(0));
        for (first, (start, _)) in sent.iter().enumerate() {
            for (last, (end, _)) in sent.iter().enumerate().skip(first) {
                let allowed = 1.0 + (*end - *start).as_secs_f64();
                assert!((last - first + 1) as f64 <= allowed + 1e-6, "from {start:?} to {end:?}");
            }
        }
        assert!(sent.len() >= 118, "{}", sent.len());
    }

    #[test]
    fn mixed_sizes_use_the_tokens_and_none_starves() {
        let size = |row: u64| if row.is_multiple_of(20) { 9_000 } else { 50 + row % 200 };
        let mut state = gate(Some(30_000), Some(600_000), 1_000);
        let sent =
            simulate(&mut state, (80.0, 200, 0.5), |row| ticket(row, size(row)), |_, tokens| ok(tokens));
        let used = share(&sent, 600_000, |tokens| tokens);
        assert!((0.97..=1.0 + 9_000.0 / 600_000.0).contains(&used), "{used}");
        // Row order, whatever the size: the rows came in that order.
        let expected: Vec<u64> = (1..=sent.len() as u64).map(size).collect();
        assert_eq!(sent.iter().map(|(_, tokens)| *tokens).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_large_request_of_a_late_row_is_let_in_within_bounds() {
        let mut state = gate(None, Some(60_000), 1_000);
        state.enqueue(Duration::ZERO, ticket(1_000_000, 10_000));
        let sent = simulate(&mut state, (10.0, 50, 0.1), |row| ticket(row, 50), |_, tokens| ok(tokens));
        let (when, _) = sent.iter().find(|(_, tokens)| *tokens == 10_000).expect("it starved");
        assert!(*when <= at(6.0), "{when:?}");
    }

    /// Reservations are five times what is used; the server counts one or the other, with bursts of 1 s.
    fn check_worst_cases(server_counts_asked: bool) {
        let mut server = StrictServer::new(600_000);
        let mut state = gate(None, Some(600_000), 1_000);
        let mut refused = Vec::new();
        let sent = simulate(
            &mut state,
            (200.0, 300, 0.4),
            |row| ticket(row, 1_000),
            |time, tokens| {
                let counted = if server_counts_asked { tokens } else { tokens / 5 };
                let Err(left) = server.take(time, counted) else { return ok(tokens / 5) };
                refused.push(time);
                let notes = LimitNotes { remaining_tokens: Some(left), ..LimitNotes::default() };
                Outcome::Busy { retry_after: Some(at(0.2)), notes }
            },
        );
        let used = sent.iter().filter(|(time, _)| *time >= at(100.0)).count() as f64 / 100.0;
        let possible = if server_counts_asked { 10.0 } else { 50.0 };
        assert!(used >= 0.97 * possible, "{used} of {possible} calls a second");
        // It may have to learn how the server counts, but only once.
        assert!(refused.len() * 100 <= sent.len(), "{} of {} refused", refused.len(), sent.len());
        assert!(refused.iter().all(|time| *time < at(20.0)), "still refused: {refused:?}");
    }

    /// A strict server: a bucket of one second that tells what is left when it refuses.
    struct StrictServer {
        per_second: f64,
        level: f64,
        at: Duration,
    }

    impl StrictServer {
        fn new(per_minute: u64) -> StrictServer {
            let per_second = per_minute as f64 / 60.0;
            StrictServer { per_second, level: per_second, at: Duration::ZERO }
        }

        fn take(&mut self, now: Duration, amount: u64) -> Result<(), u64> {
            let refilled = self.per_second * (now - self.at).as_secs_f64();
            (self.level, self.at) = ((self.level + refilled).min(self.per_second), now);
            if self.level < amount as f64 {
                return Err(self.level as u64);
            }
            self.level -= amount as f64;
            Ok(())
        }
    }

    #[test]
    fn worst_case_reservations_waste_nothing() {
        check_worst_cases(false);
    }

    #[test]
    fn a_server_that_counts_what_is_asked_refuses_once() {
        check_worst_cases(true);
    }

    #[test]
    fn a_burst_of_busy_replies_counts_once() {
        let mut state = gate(None, None, 10);
        fill(&mut state, Duration::ZERO, 100);
        let grants = admit(&mut state, Duration::ZERO);
        assert_eq!(grants.len(), 10);
        for grant in grants {
            state.settle(Duration::ZERO, grant, busy(Some(2.0)));
        }
        assert_eq!(state.snapshot(Duration::ZERO).in_flight_limit, 7);
        assert_eq!(state.next(at(1.0)), Next::At(at(2.0)));
        let grants = admit(&mut state, at(2.0));
        assert_eq!(grants.len(), 7);
        for grant in grants {
            state.settle(at(2.5), grant, busy(Some(2.0)));
        }
        assert_eq!(state.snapshot(at(2.5)).in_flight_limit, 4);
    }

    #[test]
    fn it_recovers_from_a_burst() {
        let mut state = gate(None, None, 100);
        let mut calls = 0;
        let mut lowest = usize::MAX;
        let sent = simulate(
            &mut state,
            (30.0, 200, 1.0),
            |row| ticket(row, 0),
            |_, _| {
                calls += 1;
                if (101..=103).contains(&calls) { busy(Some(0.5)) } else { ok(0) }
            },
        );
        for second in 2..30 {
            let range = at(f64::from(second))..at(f64::from(second) + 1.0);
            lowest = lowest.min(sent.iter().filter(|(time, _)| range.contains(time)).count());
        }
        assert!(lowest >= 60, "{lowest}");
        assert_eq!(state.snapshot(at(30.0)).in_flight_limit, 100);
    }

    #[test]
    fn a_limit_on_concurrency_is_found() {
        // The server takes 20 at a time; the user said 64.
        let mut state = gate(None, None, 64);
        let (mut refused, mut lands) = (0, VecDeque::new());
        let sent = simulate(
            &mut state,
            (120.0, 100, 0.5),
            |row| ticket(row, 0),
            |time, _| {
                while lands.front().is_some_and(|land| *land <= time) {
                    lands.pop_front();
                }
                if lands.len() < 20 {
                    lands.push_back(time + at(0.5));
                    return ok(0);
                }
                refused += 1;
                busy(Some(0.1))
            },
        );
        let answered = sent.len() - refused;
        assert!(answered >= 120 * 40 * 7 / 10, "{answered} of 4,800");
        assert!(refused * 20 <= sent.len(), "{refused} of {}", sent.len());
    }

    /// Busy replies one after the other without a time; the pause after each, in seconds.
    fn check_pauses(ends: &[Outcome], expected: &[f64]) {
        let mut state = gate(None, None, 8);
        let mut now = Duration::ZERO;
        fill(&mut state, now, 100);
        for (end, expected) in ends.iter().zip(expected) {
            now += state.snapshot(now).paused_for;
            let Next::Admit(_, grant) = state.next(now) else { panic!("not let in at {now:?}") };
            state.settle(now, grant, end.clone());
            let pause = state.snapshot(now).paused_for.as_secs_f64();
            assert!((*expected..=expected * 1.25).contains(&pause), "{pause}, expected {expected}");
        }
    }

    #[test]
    fn pauses_double_until_a_success() {
        let seven = vec![busy(None); 8];
        check_pauses(&seven, &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        check_pauses(&[busy(None), busy(None), ok(0), busy(None)], &[1.0, 2.0, 0.0, 1.0]);
        check_pauses(&[busy(Some(7.0)), busy(Some(0.0)), busy(Some(1e9))], &[7.0, 1.0, 86_400.0]);
        let notes = LimitNotes {
            remaining_requests: Some(0),
            reset_requests: Some(at(3.0)),
            ..LimitNotes::default()
        };
        check_pauses(&[Outcome::Busy { retry_after: None, notes }], &[3.0]);
    }

    #[test]
    fn nothing_remaining_on_a_good_reply_slows_and_nothing_else() {
        let mut state = gate(Some(6_000), None, 8);
        fill(&mut state, Duration::ZERO, 100);
        let Next::Admit(_, grant) = state.next(Duration::ZERO) else { panic!("not let in") };
        let notes = LimitNotes {
            remaining_requests: Some(0),
            reset_requests: Some(at(2.0)),
            ..LimitNotes::default()
        };
        state.settle(at(0.1), grant, Outcome::Ok { tokens: None, notes });
        assert_eq!(state.next(at(0.1)), Next::At(at(2.0)));
        assert_eq!(admit(&mut state, at(2.0)).len(), 8);
        let seen = state.snapshot(at(2.0));
        assert_eq!((seen.in_flight_limit, seen.paused_for), (8, Duration::ZERO));
    }

    #[test]
    fn busy_without_success_stalls_after_patience() {
        let mut state = gate(None, None, 4);
        fill(&mut state, Duration::ZERO, 200);
        let mut now = Duration::ZERO;
        let shut = loop {
            match state.next(now) {
                Next::Admit(_, grant) => state.settle(now, grant, busy(Some(20.0))),
                Next::At(time) => now = time,
                Next::Wait => panic!("it waits for nothing"),
                Next::Shut(shut) => break shut,
            }
        };
        assert_eq!((shut, now), (Shut::Stalled { patience: PATIENCE }, PATIENCE));
        assert_eq!(state.snapshot(now).waiting, 0);
    }

    #[test]
    fn a_pause_longer_than_patience_ends_with_patience() {
        let mut state = gate(None, None, 4);
        fill(&mut state, Duration::ZERO, 10);
        let Next::Admit(_, grant) = state.next(Duration::ZERO) else { panic!("not let in") };
        state.settle(at(1.0), grant, busy(Some(7_200.0)));
        assert_eq!(state.next(at(1.0)), Next::At(at(1.0) + PATIENCE));
        assert_eq!(state.next(at(1.0) + PATIENCE), Next::Shut(Shut::Stalled { patience: PATIENCE }));
    }

    #[test]
    fn rest_is_not_a_stall() {
        let mut state = gate(None, None, 4);
        for hour in 0..5 {
            let now = at(3_600.0 * f64::from(hour));
            state.enqueue(now, ticket(1, 0));
            let Next::Admit(_, grant) = state.next(now) else { panic!("not let in") };
            state.settle(now, grant, busy(None));
            assert_eq!(state.shut(), None);
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Enter(u64, usize, u64),
        Leave(u64),
        Settle(usize, Outcome),
        Unused(usize),
        Later(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        let some = |range: std::ops::Range<u64>| proptest::option::of(range);
        let notes = (some(0..3), some(0..3_000)).prop_map(|(remaining_tokens, reset_ms)| LimitNotes {
            remaining_requests: remaining_tokens,
            reset_requests: reset_ms.map(Duration::from_millis),
            remaining_tokens,
            reset_tokens: reset_ms.map(Duration::from_millis),
        });
        let outcome = (0..3, some(0..5_000), notes).prop_map(|(kind, number, notes)| match kind {
            0 => Outcome::Ok { tokens: number, notes },
            1 => Outcome::Busy { retry_after: number.map(Duration::from_millis), notes },
            _ => Outcome::Failed { tokens: number },
        });
        prop_oneof![
            4 => (0..50_u64, 0..4_usize, 0..2_000_u64).prop_map(|(row, step, tokens)| Event::Enter(row, step, tokens)),
            1 => (0..60_u64).prop_map(Event::Leave),
            3 => (0..8_usize, outcome).prop_map(|(index, outcome)| Event::Settle(index, outcome)),
            1 => (0..8_usize).prop_map(Event::Unused),
            2 => (0..2_000_u64).prop_map(Event::Later),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever happens: the limit in flight holds, counts agree, whoever waits has something to wait
        /// for, and in the end everybody who did not leave is let in, once.
        #[test]
        fn counts_hold_and_everybody_gets_in(events in proptest::collection::vec(event(), 1..120)) {
            let mut state = gate(Some(6_000), Some(60_000), 5);
            let (mut now, mut inside) = (Duration::ZERO, Vec::new());
            let mut waiting = std::collections::BTreeSet::new();
            let finish = std::iter::repeat_n(Event::Settle(0, ok(10)), 400);
            for event in events.into_iter().chain(finish) {
                match event {
                    Event::Enter(row, step, tokens) => {
                        let row = RowId::root(row);
                        waiting.insert(state.enqueue(now, Ticket { row, step, tokens }));
                    }
                    Event::Leave(id) => {
                        waiting.remove(&id);
                        state.cancel(id);
                    }
                    Event::Settle(index, outcome) if index < inside.len() => {
                        state.settle(now, inside.swap_remove(index), outcome);
                    }
                    Event::Unused(index) if index < inside.len() => {
                        state.unused(now, inside.swap_remove(index));
                    }
                    Event::Settle(..) | Event::Unused(_) => {
                        if let Next::At(time) = state.next(now) {
                            prop_assert!(time > now, "it waits for the past");
                            now = time;
                        }
                    }
                    Event::Later(ms) => now += Duration::from_millis(ms),
                }
                while let Next::Admit(id, grant) = state.next(now) {
                    prop_assert!(inside.len() < state.flight.limit, "too many in flight");
                    prop_assert!(waiting.remove(&id), "let in twice, or after leaving");
                    inside.push(grant);
                }
                let seen = state.snapshot(now);
                prop_assert_eq!((seen.in_flight, seen.waiting), (inside.len(), waiting.len()));
                prop_assert!((1..=5).contains(&seen.in_flight_limit));
                prop_assert!(waiting.is_empty() || !inside.is_empty() || matches!(state.next(now), Next::At(_)));
            }
            prop_assert!(waiting.is_empty() && inside.is_empty(), "{} still wait", waiting.len());
        }
    }
}
