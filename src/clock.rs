//! The only place that reads the time. Everything else takes it as a parameter.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A monotonic instant, for measuring.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Time since 1970-01-01T00:00:00Z, for records.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since 1970-01-01T00:00:00Z.
pub fn unix_ms() -> i64 {
    i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX)
}

/// `2026-11-23T21:18:05Z`.
pub fn rfc3339(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_else(|_| unix_ms.to_string())
}

/// Milliseconds of a day; UTC has no others.
pub const DAY_MS: i64 = 86_400_000;

/// `2026-11-23`, in UTC.
pub fn date(unix_ms: i64) -> String {
    rfc3339(unix_ms).chars().take_while(|letter| *letter != 'T').collect()
}

/// The time of day that a run goes by: the system's, or one that a test moves.
#[derive(Clone)]
pub struct Wall(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Default for Wall {
    fn default() -> Wall {
        Wall::of(unix_ms)
    }
}

impl Wall {
    /// Tells the time by a function that gives milliseconds since 1970-01-01T00:00:00Z.
    pub fn of(unix_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Wall {
        Wall(Arc::new(unix_ms))
    }

    pub fn unix_ms(&self) -> i64 {
        (self.0)()
    }

    /// The day it is, counted from 1970-01-01, in UTC.
    pub fn day(&self) -> i64 {
        self.unix_ms().div_euclid(DAY_MS)
    }

    /// How long it is until the next day.
    pub fn until_midnight(&self) -> Duration {
        Duration::from_millis((DAY_MS - self.unix_ms().rem_euclid(DAY_MS)).unsigned_abs())
    }
}
