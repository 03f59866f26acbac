//! The gate's decisions against simulated teachers, on a clock that only moves by hand.

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
    Ticket { row: RowId::root(row), step: 0, tokens: output(tokens) }
}

fn output(tokens: u64) -> Usage {
    Usage::of(0, tokens)
}

fn ok(tokens: u64) -> Outcome {
    Outcome::Ok { tokens: Some(output(tokens)), notes: LimitNotes::default() }
}

fn busy(retry_after: Option<f64>) -> Outcome {
    Outcome::Busy { retry_after: retry_after.map(at), notes: LimitNotes::default() }
}

/// Headers that say that no request is left for so many seconds.
fn nothing_left(reset: f64) -> LimitNotes {
    let requests = LimitNote { limit: None, remaining: Some(0), reset: Some(at(reset)) };
    LimitNotes { requests, ..LimitNotes::default() }
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
                sent.push((now, grant.reserved[TOKENS]));
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
            let outcome = outcome(grant.sent_at, grant.reserved[TOKENS]);
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
    let sent = simulate(&mut state, (80.0, 200, 0.5), |row| ticket(row, size(row)), |_, tokens| ok(tokens));
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
            let notes = LimitNotes {
                tokens: LimitNote { remaining: Some(left), ..LimitNote::default() },
                ..LimitNotes::default()
            };
            Outcome::Busy { retry_after: Some(at(0.2)), notes }
        },
    );
    let used = sent.iter().filter(|(time, _)| *time >= at(100.0)).count() as f64 / 100.0;
    let possible = if server_counts_asked { 10.0 } else { 50.0 };
    assert!(used >= 0.97 * possible, "{used} of {possible} calls a second");
    assert!(refused.len() * 100 <= sent.len() * 3, "{} of {} refused", refused.len(), sent.len());
    let late = refused.iter().filter(|time| **time >= at(20.0)).count();
    assert!(late * 100 <= sent.len(), "still refused: {refused:?}");
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

    fn give_back(&mut self, now: Duration, amount: u64) {
        let _ = self.take(now, 0);
        self.level = (self.level + amount as f64).min(self.per_second);
    }
}

/// What a server that refuses over its limit saw: calls sent, and those that it refused, by second.
struct Seen {
    sent: Vec<Duration>,
    refused: Vec<Duration>,
}

impl Seen {
    /// The calls that were answered in some seconds, as a share of a rate per minute.
    fn used(&self, seconds: std::ops::Range<f64>, per_minute: f64) -> f64 {
        let among =
            |times: &[Duration]| times.iter().filter(|time| seconds.contains(&time.as_secs_f64())).count();
        let answered = among(&self.sent) - among(&self.refused);
        answered as f64 * 60.0 / per_minute / (seconds.end - seconds.start)
    }

    /// The share of the calls of some seconds that was refused.
    fn refused(&self, seconds: std::ops::Range<f64>) -> f64 {
        let among =
            |times: &[Duration]| times.iter().filter(|time| seconds.contains(&time.as_secs_f64())).count();
        among(&self.refused) as f64 / among(&self.sent).max(1) as f64
    }
}

/// Calls of `tokens` each against a strict server whose limit per minute is `limit(second)`, in requests or
/// in tokens; `headers(second)` is the limit that its headers give.
fn learn(
    (requests, tokens): (Option<u64>, Option<u64>),
    seconds: f64,
    limit: impl Fn(f64) -> u64,
    headers: impl Fn(f64) -> Option<u64>,
) -> (GateState, Seen) {
    let by_tokens = tokens.is_some();
    let mut server = StrictServer::new(limit(0.0));
    let mut state = gate(requests, tokens, 256);
    let mut refused = Vec::new();
    // What a call does not use of what it asks for comes back with its answer.
    let mut unused = VecDeque::new();
    let sent = simulate(
        &mut state,
        (seconds, 300, 0.3),
        |row| ticket(row, 100 + row % 7 * 100),
        |time, tokens| {
            server.per_second = limit(time.as_secs_f64()) as f64 / 60.0;
            let note = LimitNote { limit: headers(time.as_secs_f64()), ..LimitNote::default() };
            let mut notes = LimitNotes::default();
            *(if by_tokens { &mut notes.tokens } else { &mut notes.requests }) = note;
            while let Some((when, amount)) = unused.pop_front_if(|(when, _)| *when <= time) {
                server.give_back(when, amount);
            }
            match server.take(time, if by_tokens { tokens } else { 1 }) {
                Ok(()) => {
                    if by_tokens {
                        unused.push_back((time + at(0.3), tokens / 2));
                    }
                    Outcome::Ok { tokens: Some(output(tokens - tokens / 2)), notes }
                }
                Err(_) => {
                    refused.push(time);
                    Outcome::Busy { retry_after: None, notes }
                }
            }
        },
    );
    (state, Seen { sent: sent.into_iter().map(|(time, _)| time).collect(), refused })
}

/// The limit of the file and of the headers, times the truth: half a minute to learn it, with few refusals
/// if the file is right to a factor of two; then nearly all of it is used and next to nothing refused.
#[track_caller]
fn check_learning(configured: Option<f64>, headers: Option<f64>) {
    const TRUTH: f64 = 3_000.0;
    // 200 tokens each.
    for (unit, by_tokens) in [(1.0, false), (200.0, true)] {
        let start = configured.map(|factor| (TRUTH * unit * factor) as u64);
        let limits = if by_tokens { (None, start) } else { (start, None) };
        if by_tokens && start.is_none() {
            continue;
        }
        let (state, seen) = learn(
            limits,
            330.0,
            |_| (TRUTH * unit) as u64,
            |_| headers.map(|factor| (TRUTH * unit * factor) as u64),
        );
        // What the file says is never passed.
        let allowed = TRUTH * configured.unwrap_or(1.0).min(1.0);
        let figures = (seen.used(30.0..330.0, allowed), seen.refused(30.0..330.0), seen.refused(0.0..30.0));
        let (used, late, early) = figures;
        let early_max = if configured.is_some_and(|factor| factor <= 2.0) { 0.03 } else { 0.3 };
        assert!(
            used >= 0.97 && late <= 0.005 && early <= early_max,
            "{figures:?}, by tokens: {by_tokens}, {}",
            state.snapshot(at(330.0)).words()
        );
    }
}

#[test]
fn a_limit_that_nobody_names_right_is_learned_from_refusals() {
    check_learning(Some(2.0), None);
    check_learning(Some(1.2), None);
    check_learning(Some(5.0), None);
    check_learning(Some(2.0), Some(2.0));
    check_learning(Some(1.0), Some(2.0));
}

#[test]
fn a_limit_that_headers_name_is_followed_down_from_the_files() {
    check_learning(Some(2.0), Some(1.0));
    check_learning(Some(0.5), Some(1.0));
    check_learning(None, Some(1.0));
}

/// A third of the limit from second 60 to 120, then all of it again.
#[track_caller]
fn check_drop(headers: bool) {
    let limit = |second: f64| if (60.0..120.0).contains(&second) { 2_000 } else { 6_000 };
    let (_, seen) = learn((Some(6_000), None), 240.0, limit, |second| headers.then(|| limit(second)));
    let figures =
        (seen.refused(65.0..120.0), seen.used(65.0..120.0, 2_000.0), seen.used(200.0..240.0, 6_000.0));
    let (refused, low, high) = figures;
    assert!(refused <= 0.005 && low >= 0.95 && high >= 0.95, "{figures:?}");
}

#[test]
fn a_limit_that_falls_and_rises_is_found() {
    check_drop(false);
    check_drop(true);
}

#[test]
fn a_limit_that_rises_is_found_in_a_quarter_of_a_minute() {
    // Whenever it rises after it fell: the last refusal is a moment ago or a while.
    let mut missed_s = Vec::new();
    for rise in (40..80).step_by(3).map(f64::from) {
        let limit = |second: f64| if (20.0..rise).contains(&second) { 2_000 } else { 6_000 };
        let (_, seen) = learn((Some(6_000), None), rise + 40.0, limit, |_| None);
        let used = seen.used(rise + 25.0..rise + 40.0, 6_000.0);
        assert!(used >= 0.97, "{used} from 25 s after it rose at {rise}");
        let refused = seen.refused(30.0..rise);
        assert!(refused <= 0.005, "{refused} refused before it rose at {rise}");
        missed_s.push(40.0 * (1.0 - seen.used(rise..rise + 40.0, 6_000.0)));
    }
    // As if it went on at the third that it was for so long.
    let low_s = missed_s.iter().sum::<f64>() / missed_s.len() as f64 * 1.5;
    assert!(low_s <= 16.0, "{low_s} s at a third");
}

#[test]
fn worst_case_reservations_waste_nothing() {
    check_worst_cases(false);
}

#[test]
fn a_server_that_counts_what_is_asked_refuses_next_to_none() {
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
    let seven = vec![busy(None); 9];
    check_pauses(&seven, &[0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]);
    check_pauses(&[busy(None), busy(None), ok(0), busy(None)], &[0.25, 0.5, 0.0, 0.25]);
    check_pauses(&[busy(Some(7.0)), busy(Some(0.0)), busy(Some(1e9))], &[7.0, 0.25, 86_400.0]);
    let notes = nothing_left(3.0);
    check_pauses(&[Outcome::Busy { retry_after: None, notes }], &[3.0]);
}

#[test]
fn nothing_remaining_on_a_good_reply_slows_and_nothing_else() {
    let mut state = gate(Some(6_000), None, 8);
    fill(&mut state, Duration::ZERO, 100);
    let Next::Admit(_, grant) = state.next(Duration::ZERO) else { panic!("not let in") };
    let notes = nothing_left(2.0);
    state.settle(at(0.015), grant, Outcome::Ok { tokens: None, notes });
    // 100 a second flow in, and the words are 15 ms old.
    assert_eq!(admit(&mut state, at(0.015)).len(), 1);
    assert_eq!(admit(&mut state, at(0.5)).len(), 7);
    let seen = state.snapshot(at(0.5));
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

#[expect(clippy::large_enum_variant, reason = "a handful of events in a test")]
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
    let note = (some(0..50_000), some(0..3), some(0..3_000)).prop_map(|(limit, remaining, reset_ms)| {
        LimitNote { limit, remaining, reset: reset_ms.map(Duration::from_millis) }
    });
    let notes = (note.clone(), note.clone(), note).prop_map(|(requests, tokens, output_tokens)| LimitNotes {
        requests,
        tokens,
        output_tokens,
        ..LimitNotes::default()
    });
    let outcome = (0..3, some(0..5_000), notes).prop_map(|(kind, number, notes)| match kind {
        0 => Outcome::Ok { tokens: number.map(output), notes },
        1 => Outcome::Busy { retry_after: number.map(Duration::from_millis), notes },
        _ => Outcome::Failed { tokens: number.map(output) },
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
        let limits = Limits {
                requests_per_minute: Some(6_000),
                tokens_per_minute: Some(60_000),
                in_flight: Some(5),
            };
            // Limits of a few a minute are told here: that takes its time.
            let mut state = GateState::new(Duration::ZERO, limits, Duration::MAX, 1);
        let (mut now, mut inside) = (Duration::ZERO, Vec::new());
        let mut waiting = std::collections::BTreeSet::new();
        let finish = std::iter::repeat_n(Event::Settle(0, ok(10)), 400);
        for event in events.into_iter().chain(finish) {
            match event {
                Event::Enter(row, step, tokens) => {
                    let row = RowId::root(row);
                    waiting.insert(state.enqueue(now, Ticket { row, step, tokens: output(tokens) }));
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
                prop_assert!(inside.len() < state.in_flight_limit(), "too many in flight");
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

/// Every tenth call or so is refused, whatever the rate, as by a server that is overloaded at times.
#[track_caller]
fn check_strays(configured: Option<u64>) {
    let mut state = gate(configured, None, 64);
    let mut random = 7_u64;
    let sent = simulate(
        &mut state,
        (300.0, 300, 0.3),
        |row| ticket(row, 100),
        |_, _| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if (random >> 33).is_multiple_of(10) { busy(None) } else { ok(100) }
        },
    );
    // Each refusal is a pause of a quarter of a second or more, and about ten calls come in between.
    let calls = sent.iter().filter(|(time, _)| *time >= at(60.0)).count() as f64;
    assert!(
        calls / 240.0 >= 8.0,
        "{configured:?}: {} calls a second, {}",
        calls / 240.0,
        state.snapshot(at(300.0)).words()
    );
}

#[test]
fn refusals_that_have_nothing_to_do_with_the_rate_do_not_lower_it_for_good() {
    check_strays(Some(3_000));
    check_strays(None);
}
