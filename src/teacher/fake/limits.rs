//! The two allowances of a fake teacher, requests and tokens a minute, and how headers say them.
//! Time is a parameter.

use std::time::{Duration, Instant};

/// Rounding of floating point must not refuse a caller who waited exactly as long as told.
const SLACK: f64 = 1e-6;

/// A strict token bucket: over any `t` seconds it gives at most `capacity + rate * t`.
#[derive(Clone, Debug)]
pub struct Bucket {
    per_minute: u64,
    burst_s: f64,
    capacity: f64,
    per_s: f64,
    /// Below zero after a cost that was larger than the bucket, or larger than was reserved.
    level: f64,
    at: Instant,
}

/// What the headers say about a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    pub limit: u64,
    pub remaining: u64,
    /// Until the bucket is full again.
    pub reset: Duration,
}

impl Bucket {
    /// A full bucket that holds `burst_s` seconds of its rate, at least 1.
    pub fn new(per_minute: u64, burst_s: f64, now: Instant) -> Bucket {
        let per_s = per_minute as f64 / 60.0;
        let capacity = (per_s * burst_s).max(1.0);
        Bucket { per_minute, burst_s, capacity, per_s, level: capacity, at: now }
    }

    /// Another rate from now on; what is in the bucket stays, as far as it fits.
    pub fn set_rate(&mut self, per_minute: u64, now: Instant) {
        if per_minute != self.per_minute {
            self.refill(now);
            let fresh = Bucket::new(per_minute, self.burst_s, self.at);
            *self = Bucket { level: self.level.min(fresh.capacity), ..fresh };
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed_s = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.level = (self.level + passed_s * self.per_s).min(self.capacity);
    }

    /// How long until `cost` may be taken; zero when it may be taken now. A cost larger than the bucket
    /// may be taken when the bucket is full, and leaves a debt: the rate over time still holds.
    pub fn wait(&mut self, cost: u64, now: Instant) -> Duration {
        self.refill(now);
        let missing = (cost as f64).min(self.capacity) - self.level;
        if missing <= SLACK { Duration::ZERO } else { Duration::from_secs_f64(missing / self.per_s) }
    }

    pub fn take(&mut self, cost: u64, now: Instant) {
        self.refill(now);
        self.level -= cost as f64;
    }

    /// Replaces a cost that was reserved by the one that it turned out to be.
    pub fn settle(&mut self, reserved: u64, actual: u64, now: Instant) {
        self.refill(now);
        self.level = (self.level + reserved as f64 - actual as f64).min(self.capacity);
    }

    pub fn note(&mut self, now: Instant) -> Note {
        self.refill(now);
        Note {
            limit: self.per_minute,
            remaining: (self.level + SLACK).max(0.0).floor() as u64,
            reset: Duration::from_secs_f64(((self.capacity - self.level) / self.per_s).max(0.0)),
        }
    }
}

/// The whole milliseconds after which a wait is over.
pub fn whole_ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A duration as in OpenAI's `x-ratelimit-reset-*` headers: `0s`, `20ms`, `1.5s`, `6m0s`, `1h0m2s`
/// (the examples of platform.openai.com/docs/guides/rate-limits; it is Go's notation).
pub fn header_duration(duration: Duration) -> String {
    let ms = whole_ms(duration);
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (hours, minutes, seconds, rest_ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let seconds = match rest_ms {
        0 => format!("{seconds}s"),
        rest => format!("{seconds}.{}s", format!("{rest:03}").trim_end_matches('0')),
    };
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// Asks for `cost` every millisecond for `for_ms`; what was given must be the bound, to one cost.
    fn check(per_minute: u64, burst_s: f64, cost: u64, for_ms: u64) {
        let start = clock::now();
        let mut bucket = Bucket::new(per_minute, burst_s, start);
        let mut given = 0;
        for ms in 0..for_ms {
            let now = start + Duration::from_millis(ms);
            while bucket.wait(cost, now).is_zero() {
                bucket.take(cost, now);
                given += cost;
            }
        }
        let rate = per_minute as f64 / 60.0;
        let bound = (rate * burst_s).max(cost as f64) + rate * (for_ms - 1) as f64 / 1000.0;
        assert!(given as f64 <= bound + 0.01, "{given} given, {bound} allowed");
        assert!(given as f64 > bound - 2.0 * cost as f64 - 0.01, "only {given} given of {bound}");
    }

    #[test]
    fn a_bucket_gives_its_rate_and_its_burst_and_no_more() {
        check(600, 1.0, 1, 5000);
        check(60, 0.1, 1, 5000);
        check(60_000, 1.0, 100, 3000);
        check(60_000, 1.0, 2500, 20_000);
    }

    #[test]
    fn a_wait_is_as_long_as_said() {
        let start = clock::now();
        let mut bucket = Bucket::new(60, 2.0, start);
        bucket.take(2, start);
        let wait = bucket.wait(1, start);
        assert_eq!(whole_ms(wait), 1000);
        assert!(!bucket.wait(1, start + wait - Duration::from_millis(1)).is_zero());
        assert!(bucket.wait(1, start + wait).is_zero());
    }

    #[test]
    fn settling_gives_back_and_never_overfills() {
        let start = clock::now();
        let mut bucket = Bucket::new(6000, 1.0, start);
        bucket.take(80, start);
        bucket.settle(80, 30, start);
        let note = bucket.note(start);
        assert_eq!((note.limit, note.remaining, whole_ms(note.reset)), (6000, 70, 300));
        bucket.settle(500, 0, start);
        assert_eq!(bucket.note(start).remaining, 100);
    }

    #[test]
    fn a_rate_can_change() {
        let start = clock::now();
        let mut bucket = Bucket::new(6000, 1.0, start);
        bucket.set_rate(1200, start);
        assert_eq!((bucket.note(start).limit, bucket.note(start).remaining), (1200, 20));
        bucket.take(20, start);
        bucket.set_rate(6000, start);
        assert_eq!(bucket.note(start + Duration::from_millis(500)).remaining, 50);
    }

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        let check = |ms, expected| assert_eq!(header_duration(Duration::from_millis(ms)), expected);
        check(0, "0s");
        check(20, "20ms");
        check(1000, "1s");
        check(8640, "8.64s");
        check(360_000, "6m0s");
        check(90_500, "1m30.5s");
        check(7_202_000, "2h0m2s");
    }
}
