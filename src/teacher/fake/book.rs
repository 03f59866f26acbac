//! The books of a fake teacher: every call from its arrival to its end, what it was charged, what was
//! seen before, what is in flight, second by second. Nothing of HTTP; sees no clock but through
//! [`Call`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::answer::Reply;
use super::batches::BatchStats;
use super::config::{FakeConfig, Fault, LimitAfter};
use super::limits::{Bucket, Note};
use crate::clock;

/// Seconds for which counts are kept one by one.
const SECONDS_MAX: usize = 600;
/// Request bodies remembered, at about 50 bytes each; bodies past these are taken for new ones.
const BODIES_MAX: usize = 20_000_000;
/// What a caller over `--in-flight` is told to wait: nobody knows when a place gets free.
const PLACE_WAIT: Duration = Duration::from_millis(100);

/// What `GET /stats` says. Only requests for texts and vectors are counted, from the moment their body is read.
/// At any time `requests` = sum of `by_status` + `client_gone` + `in_flight_now` + `queued_now`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub requests: u64,
    /// Usable answers, sent to their last byte.
    pub ok: u64,
    /// Replies by the status they began with, also those that broke later.
    pub by_status: BTreeMap<u16, u64>,
    /// Requests whose client left before a reply began; also those that a `hang` held for its hour.
    pub client_gone: u64,
    /// Requests whose body had had a usable answer when they arrived: paid twice.
    pub repeats: u64,
    pub distinct_bodies: u64,
    /// Bodies that were too many to be remembered; `repeats` and `distinct_bodies` miss them.
    pub bodies_untracked: u64,
    /// 429s of the limits; those shown as faults are under `faults`.
    pub rate_limited: u64,
    pub faults: BTreeMap<String, u64>,
    pub in_flight_now: u64,
    pub in_flight_peak: u64,
    /// Time-weighted, from the first request to the last end of a call (to now if any is in flight).
    pub in_flight_mean: f64,
    /// Waiting for a place (`--queue`); not in flight.
    pub queued_now: u64,
    pub queued_peak: u64,
    pub first_request_unix_ms: Option<i64>,
    pub last_request_unix_ms: Option<i64>,
    /// Tokens that a provider would bill, also for replies that broke on their way.
    pub tokens_in: u64,
    pub tokens_out: u64,
    pub connections: u64,
    pub connections_now: u64,
    #[serde(default)]
    pub batches: BatchStats,
    /// Where the first of the `..._by_second` begins: the first request, or 600 seconds ago.
    pub seconds_start_unix_ms: Option<i64>,
    pub requests_by_second: Vec<u64>,
    pub ok_by_second: Vec<u64>,
    pub rate_limited_by_second: Vec<u64>,
    /// Time-weighted mean of every second; the last one's so far.
    pub in_flight_by_second: Vec<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    requests: u64,
    ok: u64,
    rate_limited: u64,
    in_flight_ns: u128,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    times: u32,
    answered: bool,
}

/// Why a call was not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    pub message: String,
    /// `requests` or `tokens`, as OpenAI's errors name it.
    pub kind: &'static str,
    pub wait: Duration,
}

/// A call's place in the order of admitted calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// How many calls were admitted before this one.
    pub before: u64,
    /// How often this one's body had been admitted before.
    pub seen: u32,
}

/// What the headers say about the allowances: requests, tokens.
pub type Notes = [Option<Note>; 2];

#[derive(Debug)]
pub struct Book {
    stats: Stats,
    bodies: HashMap<u128, Seen>,
    admitted: u64,
    places: Option<u64>,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    /// When the rates of the two change.
    changes: [Vec<LimitAfter>; 2],
    /// What headers say is this many times the truth; `None` says nothing.
    header_factor: Option<f64>,
    /// The first request since the start or the last reset; times below count from it.
    origin: Option<Instant>,
    counted_to: Duration,
    last_end: Duration,
    in_flight_ns: u128,
    seconds: VecDeque<Second>,
    /// The number of the first of `seconds`.
    seconds_from: u64,
}

impl Book {
    pub fn new(config: &FakeConfig, now: Instant) -> Book {
        let bucket = |limit: Option<u64>| limit.map(|limit| Bucket::new(limit, config.burst_s, now));
        Book {
            stats: Stats::default(),
            bodies: HashMap::new(),
            admitted: 0,
            places: if config.queue { None } else { config.in_flight.map(u64::from) },
            requests: bucket(config.requests_per_minute),
            tokens: bucket(config.tokens_per_minute),
            changes: [config.requests_per_minute_after.clone(), config.tokens_per_minute_after.clone()],
            header_factor: (!config.no_limit_headers).then_some(config.limit_headers_factor),
            origin: None,
            counted_to: Duration::ZERO,
            last_end: Duration::ZERO,
            in_flight_ns: 0,
            seconds: VecDeque::new(),
            seconds_from: 0,
        }
    }

    pub fn shared(self) -> SharedBook {
        Arc::new(Mutex::new(self))
    }

    /// Adds what was in flight since the last event to the seconds it was in.
    fn count_to(&mut self, now: Instant) {
        let Some(origin) = self.origin else { return };
        let now = now.saturating_duration_since(origin);
        let in_flight = u128::from(self.stats.in_flight_now);
        self.in_flight_ns += in_flight * now.saturating_sub(self.counted_to).as_nanos();
        let kept = Duration::from_secs(now.as_secs().saturating_sub(SECONDS_MAX as u64));
        let mut at = self.counted_to.max(kept);
        while at < now {
            let end = now.min(Duration::from_secs(at.as_secs() + 1));
            self.second(at.as_secs()).in_flight_ns += in_flight * (end - at).as_nanos();
            at = end;
        }
        self.counted_to = self.counted_to.max(now);
    }

    fn second(&mut self, number: u64) -> &mut Second {
        while self.seconds_from + self.seconds.len() as u64 <= number {
            if self.seconds.len() == SECONDS_MAX {
                self.seconds.pop_front();
                self.seconds_from += 1;
            }
            self.seconds.push_back(Second::default());
        }
        let place = number.saturating_sub(self.seconds_from) as usize;
        &mut self.seconds[place]
    }

    /// The second that the last counted moment is in.
    fn this_second(&mut self) -> &mut Second {
        self.second(self.counted_to.as_secs())
    }

    fn arrive(&mut self, body_hash: u128, now: Instant, unix_ms: i64) {
        if self.origin.is_none() {
            self.origin = Some(now);
            self.stats.first_request_unix_ms = Some(unix_ms);
        }
        self.count_to(now);
        self.stats.last_request_unix_ms = Some(unix_ms);
        self.stats.requests += 1;
        self.this_second().requests += 1;
        if let Some(seen) = self.bodies.get(&body_hash) {
            self.stats.repeats += u64::from(seen.answered);
        } else if self.bodies.len() < BODIES_MAX {
            self.bodies.insert(body_hash, Seen::default());
        } else {
            self.stats.bodies_untracked += 1;
        }
    }

    /// Takes a place and both allowances, or none of them.
    fn admit(&mut self, body_hash: u128, tokens: u64, now: Instant) -> Result<Admitted, Busy> {
        self.count_to(now);
        self.change_rates(now);
        if let Some(busy) = self.busy(tokens, now) {
            self.stats.rate_limited += 1;
            self.this_second().rate_limited += 1;
            return Err(busy);
        }
        if let Some(bucket) = &mut self.requests {
            bucket.take(1, now);
        }
        if let Some(bucket) = &mut self.tokens {
            bucket.take(tokens, now);
        }
        self.stats.in_flight_now += 1;
        self.stats.in_flight_peak = self.stats.in_flight_peak.max(self.stats.in_flight_now);
        self.admitted += 1;
        let seen = self.bodies.get_mut(&body_hash).map_or(0, |seen| {
            seen.times = seen.times.saturating_add(1);
            seen.times - 1
        });
        Ok(Admitted { before: self.admitted - 1, seen })
    }

    fn busy(&mut self, tokens: u64, now: Instant) -> Option<Busy> {
        if let Some(places) = self.places.filter(|places| self.stats.in_flight_now >= *places) {
            let message = format!("Too many concurrent requests: {places} are in flight, the most allowed");
            return Some(Busy { message, kind: "requests", wait: PLACE_WAIT });
        }
        let mut longest: Option<Busy> = None;
        for (bucket, cost, kind) in
            [(&mut self.requests, 1, "requests"), (&mut self.tokens, tokens, "tokens")]
        {
            let Some(bucket) = bucket else { continue };
            let wait = bucket.wait(cost, now);
            if wait > longest.as_ref().map_or(Duration::ZERO, |busy| busy.wait) {
                let Note { limit, remaining, .. } = bucket.note(now);
                let message = format!(
                    "Rate limit reached for {kind} per minute: limit {limit}, remaining {remaining}, \
                     asked for {cost}. Please try again in {:.3}s",
                    wait.as_secs_f64()
                );
                longest = Some(Busy { message, kind, wait });
            }
        }
        longest
    }

    /// Changes the rates whose time has come.
    fn change_rates(&mut self, now: Instant) {
        let Some(origin) = self.origin else { return };
        let passed_s = now.saturating_duration_since(origin).as_secs_f64();
        for (bucket, changes) in [&mut self.requests, &mut self.tokens].into_iter().zip(&self.changes) {
            let due = changes.iter().filter(|change| change.after_s <= passed_s);
            let last = due.max_by(|a, b| a.after_s.total_cmp(&b.after_s));
            if let (Some(bucket), Some(change)) = (bucket, last) {
                bucket.set_rate(change.per_minute, now);
            }
        }
    }

    fn notes(&mut self, now: Instant) -> Notes {
        let Some(factor) = self.header_factor else { return [None, None] };
        let times = |count: u64| (count as f64 * factor) as u64;
        let note = |bucket: &mut Option<Bucket>| {
            let note = bucket.as_mut()?.note(now);
            Some(Note { limit: times(note.limit), remaining: times(note.remaining), reset: note.reset })
        };
        [note(&mut self.requests), note(&mut self.tokens)]
    }

    pub fn connection(&mut self, opened: bool) {
        if opened {
            self.stats.connections += 1;
            self.stats.connections_now += 1;
        } else {
            self.stats.connections_now = self.stats.connections_now.saturating_sub(1);
        }
    }

    pub fn stats(&mut self, now: Instant) -> Stats {
        self.count_to(now);
        let mut stats = self.stats.clone();
        stats.distinct_bodies = self.bodies.len() as u64;
        let until = if stats.in_flight_now > 0 { self.counted_to } else { self.last_end };
        if !until.is_zero() {
            stats.in_flight_mean = self.in_flight_ns as f64 / until.as_nanos() as f64;
        }
        let start_ms = i64::try_from(self.seconds_from * 1000).unwrap_or(i64::MAX);
        stats.seconds_start_unix_ms = stats.first_request_unix_ms.map(|first| first.saturating_add(start_ms));
        for (number, second) in (self.seconds_from..).zip(&self.seconds) {
            stats.requests_by_second.push(second.requests);
            stats.ok_by_second.push(second.ok);
            stats.rate_limited_by_second.push(second.rate_limited);
            let length = self.counted_to.saturating_sub(Duration::from_secs(number)).as_nanos();
            let length = length.clamp(1, 1_000_000_000);
            stats.in_flight_by_second.push(second.in_flight_ns as f64 / length as f64);
        }
        stats
    }

    /// Starts the counts anew and forgets all bodies; gives back what was counted until now. Calls that
    /// are under way, connections and the allowances are kept.
    pub fn reset(&mut self, now: Instant, unix_ms: i64) -> Stats {
        let before = self.stats(now);
        let open = before.in_flight_now + before.queued_now;
        self.stats = Stats {
            requests: open,
            in_flight_now: before.in_flight_now,
            in_flight_peak: before.in_flight_now,
            queued_now: before.queued_now,
            queued_peak: before.queued_now,
            connections: before.connections_now,
            connections_now: before.connections_now,
            first_request_unix_ms: (open > 0).then_some(unix_ms),
            ..Stats::default()
        };
        self.bodies = HashMap::new();
        self.origin = (open > 0).then_some(now);
        (self.counted_to, self.last_end, self.in_flight_ns) = (Duration::ZERO, Duration::ZERO, 0);
        (self.admitted, self.seconds_from) = (0, 0);
        self.seconds.clear();
        before
    }

    /// Ends a call that is dropped.
    fn end(&mut self, call: &Call, now: Instant) {
        self.count_to(now);
        match call.stage {
            Stage::Arrived => {}
            Stage::Queued => self.stats.queued_now -= 1,
            Stage::Flying => {
                self.stats.in_flight_now -= 1;
                self.last_end = self.counted_to;
            }
        }
        let Some(status) = call.status else {
            self.stats.client_gone += 1;
            return;
        };
        *self.stats.by_status.entry(status).or_default() += 1;
        if call.good && call.complete {
            self.stats.ok += 1;
            self.this_second().ok += 1;
            if let Some(seen) = self.bodies.get_mut(&call.body_hash) {
                seen.answered = true;
            }
        }
    }
}

/// A book that several hands write in.
pub type SharedBook = Arc<Mutex<Book>>;

/// Opens a book; one whose writer died is still right, since each entry is made whole.
pub fn open(book: &SharedBook) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Arrived,
    Queued,
    Flying,
}

/// One call, from the arrival of its body to the last byte of its reply. Dropping it, at whatever
/// point, enters how it ended.
#[derive(Debug)]
pub struct Call {
    book: SharedBook,
    body_hash: u128,
    stage: Stage,
    reserved_tokens: u64,
    status: Option<u16>,
    good: bool,
    complete: bool,
    /// Dropped after the call has been entered as ended, so that the next one finds it gone.
    place: Option<OwnedSemaphorePermit>,
}

impl Call {
    pub fn arrive(book: &SharedBook, body_hash: u128) -> Call {
        let mut open = open(book);
        open.arrive(body_hash, clock::now(), clock::unix_ms());
        drop(open);
        Call {
            book: book.clone(),
            body_hash,
            stage: Stage::Arrived,
            reserved_tokens: 0,
            status: None,
            good: false,
            complete: false,
            place: None,
        }
    }

    /// Waits for a place.
    pub fn queue(&mut self) {
        let mut book = open(&self.book);
        book.stats.queued_now += 1;
        book.stats.queued_peak = book.stats.queued_peak.max(book.stats.queued_now);
        self.stage = Stage::Queued;
    }

    /// Has a place, until this call is dropped.
    pub fn leave_queue(&mut self, place: OwnedSemaphorePermit) {
        open(&self.book).stats.queued_now -= 1;
        self.stage = Stage::Arrived;
        self.place = Some(place);
    }

    pub fn admit(&mut self, tokens: u64) -> Result<Admitted, Busy> {
        let admitted = open(&self.book).admit(self.body_hash, tokens, clock::now())?;
        self.stage = Stage::Flying;
        self.reserved_tokens = tokens;
        Ok(admitted)
    }

    /// Enters the reply that begins now, settles its tokens, and gives what its headers say. A call that
    /// is dropped before this keeps its whole charge, as with a provider that goes on working.
    pub fn reply(&mut self, reply: &Reply, fault: Option<Fault>) -> Notes {
        self.status = Some(reply.status);
        self.good = reply.good;
        let mut book = open(&self.book);
        let now = clock::now();
        book.stats.tokens_in += reply.input_tokens;
        book.stats.tokens_out += reply.output_tokens;
        if let Some(fault) = fault {
            *book.stats.faults.entry(fault.name().to_owned()).or_default() += 1;
        }
        if let (Stage::Flying, Some(bucket)) = (self.stage, &mut book.tokens) {
            bucket.settle(self.reserved_tokens, reply.input_tokens + reply.output_tokens, now);
        }
        book.notes(now)
    }

    /// Enters a fault that has no reply.
    pub fn hang(&mut self) {
        *open(&self.book).stats.faults.entry(Fault::Hang.name().to_owned()).or_default() += 1;
    }

    /// The last byte is on its way.
    pub fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        open(&self.book).end(self, clock::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// Plays (time in ms, change of calls in flight) and gives the statistics at `end_ms`.
    fn played(events: &[(u64, i64)], end_ms: u64) -> Stats {
        let start = clock::now();
        let mut book = Book::new(&FakeConfig::default(), start);
        for (ms, change) in events {
            if *change > 0 {
                book.arrive(u128::from(*ms), at(start, *ms), 5000);
                book.admit(u128::from(*ms), 1, at(start, *ms)).expect("no limits");
            } else {
                book.count_to(at(start, *ms));
                book.stats.in_flight_now -= 1;
                book.last_end = book.counted_to;
            }
        }
        book.stats(at(start, end_ms))
    }

    #[track_caller]
    fn check(events: &[(u64, i64)], end_ms: u64, mean: f64, by_second: &[f64]) {
        let stats = played(events, end_ms);
        assert!((stats.in_flight_mean - mean).abs() < 1e-9, "{}", stats.in_flight_mean);
        assert_eq!(stats.in_flight_by_second.len(), by_second.len(), "{:?}", stats.in_flight_by_second);
        for (found, expected) in stats.in_flight_by_second.iter().zip(by_second) {
            assert!((found - expected).abs() < 1e-9, "{:?}", stats.in_flight_by_second);
        }
    }

    #[test]
    fn in_flight_is_weighted_by_time() {
        check(&[], 500, 0.0, &[]);
        // One call from 0 to 500 ms; read at 2 s: the mean ends with the call, the seconds go on.
        check(&[(0, 1), (500, -1)], 2000, 1.0, &[0.5, 0.0]);
        check(&[(0, 1), (500, 1)], 1000, 1.5, &[1.5]);
        check(&[(0, 1), (1500, 1), (2000, -1)], 2250, (1.5 + 1.0 + 0.25) / 2.25, &[1.0, 1.5, 1.0]);
        // Times count from the first request.
        check(&[(700, 1), (1700, -1)], 1700, 1.0, &[1.0]);
    }

    #[test]
    fn only_the_last_ten_minutes_are_kept_by_second() {
        let stats = played(&[(0, 1), (500, -1), (5_000_000, 1)], 5_000_500);
        assert_eq!(stats.in_flight_by_second.len(), SECONDS_MAX);
        assert_eq!(stats.seconds_start_unix_ms, Some(5000 + 4_401_000));
        assert!((stats.in_flight_by_second[SECONDS_MAX - 1] - 1.0).abs() < 1e-9);
        assert!((stats.in_flight_mean - 1.0 / 5000.5).abs() < 1e-9, "{}", stats.in_flight_mean);
        assert_eq!(stats.requests_by_second.iter().sum::<u64>(), 1);
        let gap = played(&[(0, 1), (50, -1), (100_000_000, 1), (100_000_050, -1)], 100_000_100);
        assert_eq!(gap.in_flight_by_second.len(), SECONDS_MAX);
    }

    #[test]
    fn a_reset_carries_over_what_is_open() {
        let book = Book::new(&FakeConfig::default(), clock::now()).shared();
        let mut call = Call::arrive(&book, 1);
        call.admit(10).expect("no limits");
        drop(Call::arrive(&book, 1));
        let before = open(&book).reset(clock::now(), 1);
        assert_eq!((before.requests, before.client_gone, before.distinct_bodies), (2, 1, 1));
        let after = open(&book).stats(clock::now());
        assert_eq!((after.requests, after.in_flight_now, after.distinct_bodies), (1, 1, 0));
        drop(call);
        let end = open(&book).stats(clock::now());
        assert_eq!((end.requests, end.client_gone, end.in_flight_now), (1, 1, 0));
    }
}
