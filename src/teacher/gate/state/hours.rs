//! Ten hours of a gate, and a day's pause, on a clock that only moves by hand: storms of refusals, outages,
//! long waits, limits that change. Nobody is stuck, nobody is lost, every place comes back.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::row::RowId;
use crate::teacher::retry::Jitter;

const HOUR_S: f64 = 3_600.0;

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// How the teacher answers at a time.
fn outcome(seconds: f64, random: &mut Jitter) -> Outcome {
    let busy = |retry_after: Option<f64>| Outcome::Busy {
        retry_after: retry_after.map(at),
        notes: LimitNotes::default(),
    };
    let told = |limit| LimitNote { limit: Some(limit), ..LimitNote::default() };
    let ok = |requests| Outcome::Ok {
        tokens: Some(Usage::of(50, 50)),
        notes: LimitNotes { requests, ..LimitNotes::default() },
    };
    match ((seconds / 600.0) as u64, random.draw()) {
        // A storm, an outage, half an hour to wait, a day to wait.
        (6..=7, draw) if draw < 0.9 => busy(None),
        (12, _) => busy(None),
        (18, _) => Outcome::Failed { tokens: None },
        (24, _) => busy(Some(0.5 * HOUR_S)),
        (59, _) => busy(Some(24.0 * HOUR_S)),
        // Limits that are told, and a tenth of them.
        (30..=35, _) => ok(told(6_000)),
        (36..=41, _) => ok(told(600)),
        (_, draw) if draw < 0.01 => busy(None),
        _ => ok(LimitNote::default()),
    }
}

struct World {
    state: GateState,
    random: Jitter,
    now: Duration,
    waiting: BTreeSet<u64>,
    flying: BTreeMap<(Duration, u64), Grant>,
    served: u64,
    let_in_at: Duration,
    longest_s: f64,
}

impl World {
    fn enter(&mut self) {
        let tokens = Usage::of(50, (self.random.draw() * 500.0) as u64);
        let row = RowId::root((self.random.draw() * 1e6) as u64);
        if self.waiting.is_empty() {
            self.let_in_at = self.now;
        }
        self.waiting.insert(self.state.enqueue(self.now, Ticket { row, step: 0, tokens }));
    }

    /// Lets in who may go, and returns when to look again.
    fn admit(&mut self) -> Option<Duration> {
        loop {
            match self.state.next(self.now) {
                Next::Admit(id, grant) => {
                    assert!(self.waiting.remove(&id), "let in twice");
                    self.longest_s = self.longest_s.max((self.now - self.let_in_at).as_secs_f64());
                    self.let_in_at = self.now;
                    if self.random.draw() < 0.01 {
                        self.state.unused(self.now, grant);
                        self.served += 1;
                    } else {
                        let lands = self.now + at(0.2 + self.random.draw() * 2.0);
                        self.flying.insert((lands, id), grant);
                    }
                }
                Next::At(time) => {
                    assert!(time > self.now, "it waits for the past");
                    return Some(time);
                }
                Next::Wait => return None,
                Next::Shut(shut) => panic!("{shut} at {:?}", self.now),
            }
        }
    }

    fn land(&mut self) {
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let grant = entry.remove();
            let outcome = outcome(self.now.as_secs_f64(), &mut self.random);
            let again = !matches!(outcome, Outcome::Ok { .. });
            self.state.settle(self.now, grant, outcome);
            if again { self.enter() } else { self.served += 1 }
        }
    }
}

#[test]
fn ten_hours_leave_nobody_waiting() {
    let limits =
        Limits { requests_per_minute: Some(600), tokens_per_minute: Some(100_000), in_flight: Some(32) };
    let mut world = World {
        state: GateState::new(Duration::ZERO, limits, at(48.0 * HOUR_S), 3),
        random: Jitter::new(9),
        now: Duration::ZERO,
        waiting: BTreeSet::new(),
        flying: BTreeMap::new(),
        served: 0,
        let_in_at: Duration::ZERO,
        longest_s: 0.0,
    };
    let (mut came, mut left, mut next_comer) = (0, 0, Duration::ZERO);
    loop {
        world.land();
        while world.now >= next_comer && world.now < at(10.0 * HOUR_S) {
            world.enter();
            came += 1;
            next_comer += at(world.random.draw() * 0.5);
            if world.random.draw() < 0.02
                && let Some(id) = world.waiting.pop_last()
            {
                world.state.cancel(id);
                left += 1;
            }
        }
        let wake = world.admit();
        let seen = world.state.snapshot(world.now);
        assert_eq!((seen.in_flight, seen.waiting), (world.flying.len(), world.waiting.len()));
        let comer = (world.now < at(10.0 * HOUR_S)).then_some(next_comer);
        let landing = world.flying.keys().next().map(|(time, _)| *time);
        match [wake, comer, landing].into_iter().flatten().min() {
            Some(time) => world.now = time.max(world.now),
            None => break,
        }
    }
    assert!(world.waiting.is_empty() && world.flying.is_empty(), "{} still wait", world.waiting.len());
    assert_eq!(world.served + left, came);
    assert!(world.now > at(33.8 * HOUR_S) && world.longest_s <= 24.1 * HOUR_S, "{:?}", world.now);
}
