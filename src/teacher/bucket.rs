//! A token bucket: how much of a per-minute allowance may be spent now.
//!
//! Pure arithmetic. Time is a parameter (a monotonic `Duration` since any fixed start); nothing here
//! waits, queues or knows what is being counted. The same bucket serves requests and tokens.

use std::time::Duration;

/// How much of the allowance may be spent at once: a quarter of a second's worth.
///
/// A bucket that may spend a whole minute at once admits twice the allowance in its first minute
/// (119,000 of 60,000 measured on `governor`'s default quota, its issue #219), and providers answer
/// that with 429s. A server that allows bursts of one second sees none over its limit as long as the
/// network delays two requests by amounts less than `1 s - BURST` apart. Pauses of our own process
/// shorter than `BURST` lose nothing.
pub const BURST: Duration = Duration::from_millis(250);

/// The share of the allowance that is spent. With [`BURST`], no 60 seconds see more than the
/// allowance: `0.995 + 0.25 / 60 < 1`; what is left is for clocks that differ.
pub const SHARE: f64 = 0.995;

/// Rounding of sums of many fractions must not delay what is due; far below one unit.
const ROUNDING: f64 = 1e-6;

/// An allowance per minute, spent evenly.
///
/// An amount above the capacity is taken when the bucket is full and leaves a debt, so large requests
/// never starve and the rate holds in the long run. One amount counts as a minute's worth at most
/// (a larger one is refused when the pipeline is checked), so no number from outside stops it for good.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    per_second: f64,
    capacity: f64,
    /// What may be spent at `at`; negative after a large amount or a reservation that was too small.
    level: f64,
    at: Duration,
}

impl Bucket {
    /// A full bucket for an allowance per minute (at least 1), with [`BURST`] and [`SHARE`].
    pub fn per_minute(now: Duration, allowance: f64) -> Bucket {
        Bucket::new(now, allowance.max(1.0) * SHARE, BURST)
    }

    /// A full bucket with an exact rate and burst; the capacity is one unit at least.
    fn new(now: Duration, per_minute: f64, burst: Duration) -> Bucket {
        let per_second = per_minute / 60.0;
        let capacity = (per_second * burst.as_secs_f64()).max(1.0);
        Bucket { per_second, capacity, level: capacity, at: now }
    }

    /// Spends `amount` if that is possible now.
    pub fn try_take(&mut self, now: Duration, amount: u64) -> bool {
        if self.ready_at(now, amount) > now {
            return false;
        }
        self.refill(now);
        self.level -= self.bounded(amount);
        true
    }

    /// The earliest time at which `amount` can be taken, if nothing else is taken before; `now` if at once.
    pub fn ready_at(&self, now: Duration, amount: u64) -> Duration {
        let missing = self.bounded(amount).min(self.capacity) - self.level_at(now);
        if missing <= ROUNDING {
            return now;
        }
        // A nanosecond more, because the conversion may round down.
        let wait = Duration::try_from_secs_f64(missing / self.per_second).unwrap_or(Duration::MAX);
        now.saturating_add(wait).saturating_add(Duration::from_nanos(1))
    }

    /// Returns an amount that was taken and not used.
    pub fn give_back(&mut self, now: Duration, amount: u64) {
        self.refill(now);
        self.level = (self.level + self.bounded(amount)).min(self.capacity);
    }

    /// Replaces a reservation by what was used; the bucket may go into debt.
    pub fn settle(&mut self, now: Duration, reserved: u64, actual: u64) {
        self.refill(now);
        let change = self.bounded(reserved) - self.bounded(actual);
        self.level = (self.level + change).min(self.capacity);
    }

    /// Takes over what a server said: at `said_at`, `remaining` were left.
    ///
    /// Only ever slows: the bucket holds no more than the server could have by now. When nothing remained,
    /// it goes on with what flows in: a reset is the time until all is back (of OpenAI and Anthropic alike),
    /// and waiting for that would lose all that overflows meanwhile. Limiters count a request when it
    /// arrives, so a reply's words are as old as its request: pass the time it was sent.
    pub fn correct(&mut self, now: Duration, said_at: Duration, remaining: u64) {
        self.refill(now);
        let refilled = self.per_second * now.saturating_sub(said_at).as_secs_f64();
        self.level = self.level.min(remaining as f64 + refilled);
    }

    /// Leaves nothing to spend now: what a server's 429 tells. A debt stays.
    pub fn drain(&mut self, now: Duration) {
        self.correct(now, now, 0);
    }

    /// Changes the allowance (before [`SHARE`]); what is in the bucket stays, up to the new capacity.
    pub fn set_rate(&mut self, now: Duration, per_minute: f64) {
        self.refill(now);
        let fresh = Bucket::per_minute(now, per_minute);
        *self = Bucket { level: self.level.min(fresh.capacity), ..fresh };
    }

    fn bounded(&self, amount: u64) -> f64 {
        (amount as f64).min((self.per_second * 60.0).max(self.capacity))
    }

    fn level_at(&self, now: Duration) -> f64 {
        let refilled = self.per_second * now.saturating_sub(self.at).as_secs_f64();
        (self.level + refilled).min(self.capacity)
    }

    fn refill(&mut self, now: Duration) {
        self.level = self.level_at(now);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teacher::retry::Jitter;

    const MINUTE: Duration = Duration::from_secs(60);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Takes amounts as soon as possible, in turn, until `end`; returns when and how much.
    fn spend(bucket: &mut Bucket, amounts: &[u64], end: Duration) -> Vec<(Duration, u64)> {
        let mut taken = Vec::new();
        let mut now = Duration::ZERO;
        for amount in amounts.iter().cycle() {
            now = bucket.ready_at(now, *amount);
            if now >= end {
                break;
            }
            assert!(bucket.try_take(now, *amount), "ready at {now:?}, but not taken");
            taken.push((now, *amount));
        }
        taken
    }

    /// The most that was taken in any `window`.
    fn peak(taken: &[(Duration, u64)], window: Duration) -> u64 {
        let mut first = 0;
        let (mut sum, mut most) = (0, 0);
        for (at, amount) in taken {
            sum += amount;
            while *at - taken[first].0 >= window {
                sum -= taken[first].1;
                first += 1;
            }
            most = most.max(sum);
        }
        most
    }

    /// Requests of one unit against an allowance: never more in any minute, nearly as much.
    fn check_requests(per_minute: u64) {
        let taken = spend(&mut Bucket::per_minute(Duration::ZERO, per_minute as f64), &[1], 10 * MINUTE);
        let most = peak(&taken, MINUTE);
        assert!(most <= per_minute, "{most} of {per_minute} in one minute");
        let least = per_minute * 10 * 99 / 100;
        assert!(taken.len() as u64 >= least, "{} of {per_minute} x 10 in ten minutes", taken.len());
    }

    #[test]
    fn no_minute_sees_more_than_the_allowance() {
        for per_minute in [1, 3, 60, 199, 240, 600, 3_000, 60_000] {
            check_requests(per_minute);
        }
    }

    #[test]
    fn large_amounts_are_taken_and_the_rate_holds() {
        // 1,000 tokens a second, capacity 250: most of these are larger than the capacity.
        let amounts = [30, 4_000, 100, 250, 20_000, 5];
        let taken = spend(&mut Bucket::per_minute(Duration::ZERO, 60_000.0), &amounts, 10 * MINUTE);
        let sum: u64 = taken.iter().map(|(_, amount)| amount).sum();
        assert!((582_000..=620_000).contains(&sum), "{sum} of 600,000");
        assert!(taken.iter().filter(|(_, amount)| *amount == 20_000).count() >= 20);
    }

    /// Requests at the limit reach a strict server with a burst of one second after random delays.
    fn check_strict_server(per_minute: u64, delay_max_ms: f64) {
        let taken = spend(&mut Bucket::per_minute(Duration::ZERO, per_minute as f64), &[1], 10 * MINUTE);
        let mut random = Jitter::new(per_minute);
        let mut arrivals: Vec<Duration> = taken
            .iter()
            .map(|(at, _)| *at + ms(20) + Duration::from_secs_f64(random.draw() * delay_max_ms / 1e3))
            .collect();
        arrivals.sort();
        let mut server = Bucket::new(Duration::ZERO, per_minute as f64, Duration::from_secs(1));
        let refused = arrivals.iter().filter(|at| !server.try_take(**at, 1)).count();
        let sent = arrivals.len();
        assert!(refused * 200 <= sent, "{refused} of {sent} refused at {per_minute} a minute");
        let accepted = (sent - refused) as u64;
        assert!(accepted * 100 >= per_minute * 10 * 97, "{accepted} accepted at {per_minute} a minute");
    }

    #[test]
    fn a_strict_server_refuses_next_to_none() {
        check_strict_server(3_000, 700.0);
        check_strict_server(600, 700.0);
        check_strict_server(60_000, 500.0);
        check_strict_server(120, 200.0);
    }

    #[test]
    fn settling_moves_the_level_both_ways() {
        let mut bucket = Bucket::per_minute(Duration::ZERO, 60_000.0);
        assert!(bucket.try_take(Duration::ZERO, 200));
        bucket.settle(Duration::ZERO, 200, 1_200);
        let ready = bucket.ready_at(Duration::ZERO, 50);
        assert!((1_000..1_010).contains(&ready.as_millis()), "{ready:?}");
        bucket.settle(Duration::ZERO, 1_200, 200);
        assert!(bucket.try_take(Duration::ZERO, 48));
        bucket.give_back(Duration::ZERO, 1_000_000);
        assert_eq!(bucket.level, bucket.capacity);
    }

    #[test]
    fn absurd_amounts_stop_it_for_a_minute_at_most() {
        let mut bucket = Bucket::per_minute(Duration::ZERO, 60.0);
        assert!(bucket.try_take(Duration::ZERO, u64::MAX));
        assert!(bucket.ready_at(Duration::ZERO, 1) <= MINUTE + ms(500));
    }

    /// What a server says, and when the next request may go: 50 a second, full bucket, at 10 s.
    fn check_correction(said_ms_ago: u64, remaining: u64, ready_ms: std::ops::Range<u128>) {
        let now = Duration::from_secs(10);
        let mut bucket = Bucket::per_minute(now, 3_000.0);
        let before = bucket.ready_at(now, 1);
        bucket.correct(now, now.saturating_sub(ms(said_ms_ago)), remaining);
        let after = bucket.ready_at(now, 1);
        assert!(after >= before, "a correction made it faster");
        let wait = (after - now).as_millis();
        assert!(ready_ms.contains(&wait), "{wait} ms, expected {ready_ms:?}");
    }

    #[test]
    fn corrections_only_slow() {
        check_correction(0, 2_000, 0..1);
        check_correction(0, 1, 0..1);
        check_correction(0, 0, 20..22);
        check_correction(10, 0, 10..12);
        check_correction(2_000, 0, 0..1);
    }

    #[test]
    fn a_server_with_room_for_one_request_is_still_used() {
        // 60 a minute, bursts of one: every reply says that nothing remains.
        let mut bucket = Bucket::per_minute(Duration::ZERO, 60.0);
        let (mut now, mut sent) = (Duration::ZERO, 0);
        while now < 10 * MINUTE {
            assert!(bucket.try_take(now, 1));
            sent += 1;
            bucket.correct(now + ms(300), now, 0);
            now = bucket.ready_at(now + ms(300), 1);
        }
        assert!(sent >= 582, "{sent} of 600");
    }

    #[test]
    fn a_new_rate_holds_from_now_on() {
        let mut bucket = Bucket::per_minute(Duration::ZERO, 60_000.0);
        bucket.set_rate(Duration::ZERO, 600.0);
        let taken = spend(&mut bucket, &[1], MINUTE);
        assert!((582..=600).contains(&taken.len()), "{}", taken.len());
    }
}
