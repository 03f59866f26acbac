//! What the gate learns from busy replies: how many calls a teacher takes at once, and how long to pause
//! when nobody says.
//!
//! Plain numbers; who is told what is decided in `state.rs`.

use std::time::Duration;

use crate::teacher::retry::Jitter;

/// Calls in flight when a pipeline does not say: enough for 3,000 requests per minute at a latency of
/// one second, few enough for a local server's queue.
pub const IN_FLIGHT_DEFAULT: usize = 64;

/// The first pause after a busy reply that does not say how long; it doubles while busy replies go on.
/// Short, because a stray refusal of a bucket is over at once, and a second of rest is lost for good.
const PAUSE_FIRST: Duration = Duration::from_millis(250);

/// The longest such pause, before jitter.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A pause is lengthened by up to this share, so that several users of one key come back apart.
const PAUSE_JITTER: f64 = 0.25;

/// What is left of the calls in flight after a burst of busy replies.
const SHRINK: f64 = 0.7;

/// Successes per additional call in flight while below nine tenths of where the last burst was met;
/// above that it takes as many successes as there are calls in flight. Growing by one per round trip all the
/// way would cost 256 calls in flight at a latency of 5 s six minutes for one stray 429.
const REGAIN_EVERY: usize = 4;

/// The calls that may be in flight: fewer after a burst of busy replies, then more again.
#[derive(Debug)]
pub struct Flight {
    pub now: usize,
    pub limit: usize,
    max: usize,
    /// Up to here it grows fast.
    regain: usize,
    /// Successes since the limit last changed.
    successes: usize,
}

impl Flight {
    pub fn new(max: usize) -> Flight {
        let max = max.max(1);
        Flight { now: 0, limit: max, max, regain: 0, successes: 0 }
    }

    /// After a burst of busy replies.
    pub fn shrink(&mut self) {
        self.regain = self.limit - self.limit / 10;
        self.limit = ((self.limit as f64 * SHRINK) as usize).max(1);
        self.successes = 0;
    }

    /// The most is another now; what was learned keeps its proportion.
    pub fn resize(&mut self, max: usize) {
        let scaled = |number: usize| (number * max).div_ceil(self.max);
        (self.limit, self.regain) = (scaled(self.limit).clamp(1, max), scaled(self.regain));
        (self.max, self.successes) = (max, 0);
    }

    /// After a success.
    pub fn grow(&mut self) {
        self.successes += 1;
        let needed = if self.limit < self.regain { REGAIN_EVERY.min(self.limit) } else { self.limit };
        if self.limit < self.max && self.successes >= needed {
            self.limit += 1;
            self.successes = 0;
        }
    }
}

/// Pauses after busy replies that do not say how long.
#[derive(Debug)]
pub struct Pauses {
    in_a_row: u32,
    jitter: Jitter,
}

impl Pauses {
    pub fn new(seed: u64) -> Pauses {
        Pauses { in_a_row: 0, jitter: Jitter::new(seed) }
    }

    /// The next pause, twice the last.
    pub fn next(&mut self) -> Duration {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.in_a_row.min(16)).min(PAUSE_MAX);
        self.in_a_row = self.in_a_row.saturating_add(1);
        pause.mul_f64(1.0 + PAUSE_JITTER * self.jitter.draw())
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit in flight after some bursts of busy replies and then some successes.
    fn check_flight(max: usize, bursts: usize, successes: usize, expected: usize) {
        let mut flight = Flight::new(max);
        (0..bursts).for_each(|_| flight.shrink());
        (0..successes).for_each(|_| flight.grow());
        assert_eq!(flight.limit, expected, "max {max}, {bursts} bursts, {successes} successes");
    }

    #[test]
    fn the_limit_shrinks_by_bursts_and_grows_by_successes() {
        check_flight(64, 0, 1_000, 64);
        check_flight(64, 1, 0, 44);
        check_flight(64, 2, 0, 30);
        check_flight(64, 100, 0, 1);
        // Fast up to 58 = 64 - 6, then one per round trip.
        check_flight(64, 1, 14 * 4, 58);
        check_flight(64, 1, 14 * 4 + 57, 58);
        check_flight(64, 1, 14 * 4 + 58, 59);
        check_flight(64, 1, 1_000, 64);
        check_flight(1, 3, 10, 1);
        check_flight(0, 0, 0, 1);
    }

    #[test]
    fn a_new_most_keeps_what_was_learned() {
        let mut flight = Flight::new(64);
        flight.shrink();
        assert_eq!(flight.limit, 44);
        flight.resize(32);
        assert_eq!(flight.limit, 22);
        flight.resize(1);
        assert_eq!(flight.limit, 1);
        flight.resize(64);
        assert_eq!(flight.limit, 64);
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let mut pauses = Pauses::new(3);
        for expected in [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            let pause = pauses.next().as_secs_f64();
            assert!((expected..=expected * 1.25).contains(&pause), "{pause}");
        }
        pauses.reset();
        assert!(pauses.next() < Duration::from_millis(500));
    }
}
