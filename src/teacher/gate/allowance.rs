//! One allowance per minute of a teacher: what the file says at the start, what headers say of it, what
//! refusals show of it, and how much of a reservation turns out to be used.
//!
//! Plain arithmetic on one [`Bucket`]. Time is a parameter; whether an allowance is what a refusal was
//! about is decided in `state.rs`.

use std::time::Duration;

use crate::teacher::LimitNote;
use crate::teacher::bucket::Bucket;

/// A server's burst as long as nobody knows it: what a full bucket gives beside its rate, in seconds of it.
const BURST_GUESS_S: f64 = 1.0;

/// When an allowance held nobody back for this long, the server's bucket may be full again.
const REST: Duration = Duration::from_secs(1);

/// How far apart the marks of lately are.
const RECENT: Duration = Duration::from_secs(5);

/// A refusal leaves this share of what the server granted since the one before: its bucket gets ahead a
/// little, so that the next refusals are a while off.
const BELOW_GRANTED: f64 = 0.985;

/// What a refusal leaves of the rate, at the least and at the most.
const DECREASE: std::ops::RangeInclusive<f64> = 0.5..=0.97;

/// The same when nothing is known of what was granted.
const DECREASE_BLIND: f64 = 0.7;

/// How fast the rate grows after a refusal: by this share a second, twice that every ten seconds. So it stays
/// about the truth for a quarter of a minute. As it ends with a refusal at the least, it goes slower where calls
/// are few: fast from so many calls a second on, so that one in some hundreds is refused.
const GROWTH_PER_S: std::ops::RangeInclusive<f64> = 0.001..=0.003;
const GROWTH_CALLS_PER_S: f64 = 30.0;
const GROWTH_DOUBLES_S: f64 = 10.0;
const GROWTH_PER_S_MAX: f64 = 0.2;

/// A server that grants more than it did before the last refusal allows more by now. For each second's worth of
/// that the rate grows faster by this share of it a second: one that has tripled is found in a quarter of a
/// minute.
const GROWTH_PER_SURPLUS_S: f64 = 0.2;

/// How often the rate is set anew while it grows.
const GROWTH_EVERY: Duration = Duration::from_millis(100);

/// A limit whose remainder is back later than this is not one per minute (Groq's requests are per day).
const MINUTE: Duration = Duration::from_secs(61);

/// Refusals that follow each other this soon, in time or in calls, show that the last rate was still too high,
/// or that they have nothing to do with the rate.
const SOON: Duration = Duration::from_secs(15);
const SOON_CALLS: u32 = 30;

/// Where a row of such refusals has left less than this share of the rate that it began with, they are strays:
/// nobody's limit is that far off. What was learned from them is forgotten, and for a while nothing is learned.
const STRAYS_LEAVE: f64 = 0.15;
const DEAF: Duration = Duration::from_secs(600);

/// Weight of one reply in what is learned about how much of a reservation is used.
const LEARN: f64 = 1.0 / 16.0;

/// An allowance per minute, or what is learned about one that nobody named.
#[derive(Debug)]
pub struct Allowance {
    /// `None` is no limit.
    bucket: Option<Bucket>,
    /// Per minute; what the bucket spends the share of that is ours.
    rate: f64,
    share: f64,
    configured: Option<u64>,
    told: Option<u64>,
    /// When the request was sent whose reply told it.
    told_at: Duration,
    /// Calls sent before this went at another rate than the server's own words.
    restarted_at: Duration,
    /// How much of a reservation a call turns out to use.
    ///
    /// Reservations are worst cases (`max_tokens`), and an allowance that is reserved but not used within the
    /// second is lost. So what is taken is the reservation times this share of recent replies; settling
    /// makes it exact. Where a server counts what is *asked* for, as OpenAI does
    /// (<https://platform.openai.com/docs/guides/rate-limits>), refusals show that it grants less.
    used_share: f64,
    /// All that was granted; calls in flight as expected.
    granted: f64,
    mark: Option<Mark>,
    /// Marks of the last ten seconds or less, the older first, with a full bucket assumed.
    recent: [Option<Mark>; 2],
    /// Until when it last held somebody back.
    held_until: Option<Duration>,
    /// What the server granted per minute until the last refusal.
    measured: Option<f64>,
    /// How long it has been growing.
    growing: Duration,
    grown_at: Duration,
    /// When it was slowed down last, and the calls let in since.
    slowed_at: Option<Duration>,
    calls: u32,
    /// The rate at the first of the refusals that came soon after one another.
    fell_from: f64,
    /// Until when refusals are taken for strays.
    deaf_until: Duration,
}

/// A moment at which the server's bucket had nothing left, or `burst_s` seconds of its rate.
///
/// From one refusal to the next, a bucket goes from empty to empty: what it granted is what flowed in.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Duration,
    granted: f64,
    burst_s: f64,
}

impl Allowance {
    pub fn new(now: Duration, configured: Option<u64>) -> Allowance {
        let rate = configured.map_or(f64::INFINITY, |limit| limit as f64);
        Allowance {
            bucket: configured.map(|_| Bucket::per_minute(now, rate)),
            rate,
            share: 1.0,
            configured,
            told: None,
            told_at: Duration::ZERO,
            restarted_at: Duration::ZERO,
            used_share: 1.0,
            granted: 0.0,
            mark: None,
            recent: [None; 2],
            held_until: None,
            measured: None,
            growing: Duration::ZERO,
            grown_at: now,
            slowed_at: None,
            calls: 0,
            fell_from: rate,
            deaf_until: Duration::ZERO,
        }
    }

    /// What is spent per minute at most; `None` is no limit.
    pub fn per_minute(&self) -> Option<u64> {
        self.bucket.as_ref().map(|_| self.rate.round() as u64)
    }

    /// Spends a share of the rate from now on. What was granted at another share tells nothing of this one.
    pub fn set_share(&mut self, now: Duration, share: f64) {
        self.share = share;
        self.forget();
        if self.bucket.is_some() {
            self.set_rate(now, self.rate);
        }
    }

    /// What to take for a reservation: what it is expected to use.
    pub fn expected(&self, reserved: u64) -> u64 {
        (reserved as f64 * self.used_share).ceil() as u64
    }

    pub fn ready_at(&self, now: Duration, amount: u64) -> Duration {
        self.bucket.as_ref().map_or(now, |bucket| bucket.ready_at(now, amount))
    }

    /// Takes an amount that is ready.
    pub fn take(&mut self, now: Duration, amount: u64) {
        if let Some(bucket) = &mut self.bucket {
            bucket.try_take(now, amount);
        }
        self.granted += amount as f64;
        self.calls = self.calls.saturating_add(1);
    }

    /// Replaces what was taken by what was used.
    pub fn settle(&mut self, now: Duration, taken: u64, used: u64) {
        if let Some(bucket) = &mut self.bucket {
            bucket.settle(now, taken, used);
        }
        self.granted += used as f64 - taken as f64;
    }

    /// Learns how much of a reservation was used.
    pub fn learn_used(&mut self, reserved: u64, used: u64) {
        if reserved > 0 {
            // A count far off is a bad estimate or a bad server; neither may dominate.
            let share = (used as f64 / reserved as f64).clamp(0.01, 2.0);
            self.used_share += (share - self.used_share) * LEARN;
        }
    }

    /// It is what the next in line waits for, until that time: time in which it shows whether it is too small.
    /// Of a rate of a few a minute nobody asks more often than that.
    pub fn hold(&mut self, now: Duration, until: Duration) {
        let rested = self.held_until.is_none_or(|held| now.saturating_sub(held) > REST);
        self.held_until = Some(until);
        let full = Some(Mark { at: now, granted: self.granted, burst_s: BURST_GUESS_S });
        if rested {
            (self.mark, self.recent) = (full, [full; 2]);
            self.grown_at = now;
        }
        if self.recent[1].is_none_or(|mark| now.saturating_sub(mark.at) >= RECENT) {
            self.recent = [self.recent[1], full];
        }
        let passed = now.saturating_sub(self.grown_at);
        let most = self.told.or(self.configured).map_or(f64::INFINITY, |limit| limit as f64);
        if passed < GROWTH_EVERY || self.rate >= most {
            return;
        }
        self.growing += passed;
        self.grown_at = now;
        let growth = self.growth_per_s(now) * (self.growing.as_secs_f64() / GROWTH_DOUBLES_S).exp2();
        let growth = growth + GROWTH_PER_SURPLUS_S * self.surplus_s(now);
        let growth = growth.min(GROWTH_PER_S_MAX) * passed.as_secs_f64();
        self.set_rate(now, (self.rate * (1.0 + growth)).min(most));
    }

    /// Takes over what a reply to a request of `said_at` says. A limit sets the rate when it is a new one:
    /// one that was told before and then refused was a promise not kept. A limit in the file is never passed,
    /// whatever the server allows: it may be there to leave something to others.
    pub fn heard(&mut self, now: Duration, said_at: Duration, note: &LimitNote) {
        let per_minute = note.reset.is_none_or(|reset| reset <= MINUTE);
        let told = note.limit.filter(|limit| *limit > 0 && per_minute);
        let told = told.map(|limit| limit.min(self.configured.unwrap_or(u64::MAX)));
        if note.limit.is_some() && told != self.told && said_at >= self.told_at {
            (self.told, self.told_at) = (told, said_at);
            self.restart(now);
        }
        if let (Some(bucket), Some(remaining)) = (&mut self.bucket, note.remaining) {
            bucket.correct(now, said_at, remaining);
        }
    }

    /// There is no such limit, whatever the file says.
    pub fn lift(&mut self) {
        self.configured = None;
        if self.told.is_none() {
            (self.bucket, self.rate) = (None, f64::INFINITY);
        }
    }

    /// What was granted lately says nothing of the rate.
    pub fn forget(&mut self) {
        (self.mark, self.held_until) = (None, None);
    }

    /// Back to what the server told last, or else the file.
    fn restart(&mut self, now: Duration) {
        self.forget();
        (self.measured, self.growing, self.restarted_at) = (None, Duration::ZERO, now);
        match self.told.or(self.configured) {
            Some(limit) => self.set_rate(now, limit as f64),
            None => (self.bucket, self.rate) = (None, f64::INFINITY),
        }
    }

    /// A call was refused: it was not granted after all. `late` if it was sent before the last mark.
    pub fn refuse(&mut self, taken: u64, late: bool) {
        self.granted -= taken as f64;
        if let Some(mark) = self.mark.as_mut().filter(|_| late) {
            mark.granted -= taken as f64;
        }
    }

    /// Leaves nothing to spend at that time: what the server's bucket gains until then is a reserve, or the
    /// first calls after a pause would take it to nothing again.
    pub fn drain(&mut self, at: Duration) {
        if let Some(bucket) = &mut self.bucket {
            bucket.drain(at);
        }
    }

    /// A burst of refusals that was about this allowance: the rate falls to what was really granted. It
    /// began with a call of `sent_at` that `asked` so much. A rate that nobody names is not made up: refusals
    /// may be an overloaded server's, and then pauses and fewer calls in flight are what they ask for.
    pub fn slow_down(&mut self, now: Duration, sent_at: Duration, asked: u64) {
        if sent_at < self.restarted_at || now < self.deaf_until || self.are_strays(now) {
            return;
        }
        self.measured = self.granted_per_minute(now, asked);
        let granted = self.measured.map(|granted| granted * BELOW_GRANTED);
        let measured = self.mark.is_some_and(|mark| mark.burst_s == 0.0);
        self.mark = Some(Mark { at: now, granted: self.granted, burst_s: 0.0 });
        (self.growing, self.grown_at) = (Duration::ZERO, now);
        if self.bucket.is_some() {
            let rate = granted.unwrap_or(self.rate * DECREASE_BLIND);
            // What a server says stands against one stray refusal, not against two.
            let trusted = !measured && self.told.is_some();
            let least = if trusted { DECREASE.end() } else { DECREASE.start() };
            self.set_rate(now, rate.clamp(self.rate * least, self.rate * DECREASE.end()));
        }
    }

    /// Whether refusals go on whatever the rate: an overloaded server's, a gateway's, somebody else's.
    fn are_strays(&mut self, now: Duration) -> bool {
        let calls = std::mem::take(&mut self.calls);
        let last = self.slowed_at.replace(now);
        let soon = last.is_some_and(|last| now.saturating_sub(last) < SOON || calls < SOON_CALLS);
        if !soon || self.fell_from.is_infinite() {
            self.fell_from = self.rate;
        }
        if self.rate >= self.fell_from * STRAYS_LEAVE || self.rate.is_infinite() {
            return false;
        }
        self.fell_from = f64::INFINITY;
        self.deaf_until = now.saturating_add(DEAF);
        self.restart(now);
        true
    }

    /// What the server grants at least, by what it granted since its bucket had less than `asked` left, and
    /// lately: the first is too little when the bucket was full in between, and its inflow lost.
    fn granted_per_minute(&self, now: Duration, asked: u64) -> Option<f64> {
        let since = |mark: Mark| {
            let seconds = now.saturating_sub(mark.at).as_secs_f64() + mark.burst_s;
            let granted = (self.granted - mark.granted + asked as f64).max(0.0);
            // The others get theirs beside it.
            (seconds > 0.0).then(|| granted * 60.0 / seconds / self.share)
        };
        let old = self.mark.is_some_and(|mark| now.saturating_sub(mark.at) > RECENT);
        let lately = self.recent[0].and_then(since).filter(|_| old);
        [self.mark.and_then(since), lately].into_iter().flatten().reduce(f64::max)
    }

    fn growth_per_s(&self, now: Duration) -> f64 {
        let seconds = self.slowed_at.map_or(0.0, |at| now.saturating_sub(at).as_secs_f64());
        let calls_per_s = f64::from(self.calls) / seconds.max(1.0);
        let fast = GROWTH_PER_S.end() * calls_per_s / GROWTH_CALLS_PER_S;
        fast.clamp(*GROWTH_PER_S.start(), *GROWTH_PER_S.end())
    }

    /// By how much more was granted since the last mark than what was measured before it, in seconds of that.
    /// A server whose limit is still the same has no more to give.
    fn surplus_s(&self, now: Duration) -> f64 {
        let Some((measured, mark)) = self.measured.zip(self.mark) else { return 0.0 };
        let worth_s = (self.granted - mark.granted) * 60.0 / (measured * self.share).max(1e-6);
        (worth_s - now.saturating_sub(mark.at).as_secs_f64() - mark.burst_s).max(0.0)
    }

    fn set_rate(&mut self, now: Duration, per_minute: f64) {
        self.rate = per_minute.max(1.0);
        let rate = self.rate * self.share;
        self.bucket.get_or_insert_with(|| Bucket::per_minute(now, rate)).set_rate(now, rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An allowance of so many a minute that stray refusals have taken low, when all that it gives is used: the
    /// rate it has come back to after so long.
    fn check(per_minute: u64, minutes: u64) {
        let mut now = Duration::ZERO;
        let mut allowance = Allowance::new(now, Some(per_minute));
        allowance.set_rate(now, per_minute as f64 / 10.0);
        let end = now + Duration::from_secs(60 * minutes);
        while now < end {
            let ready = allowance.ready_at(now, 1);
            if ready > now {
                allowance.hold(now, ready);
            } else {
                allowance.take(now, 1);
            }
            now = ready;
        }
        assert_eq!(allowance.per_minute(), Some(per_minute));
    }

    #[test]
    fn a_rate_that_fell_comes_back_however_slow_it_is() {
        check(4, 10);
        check(20, 6);
        check(3_000, 4);
    }
}
