//! The only place that reads the time. Everything else takes it as a parameter.

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
