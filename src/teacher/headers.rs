//! What a reply's headers say about limits and waiting, in all the shapes that providers use.
//!
//! Pure: the time is a parameter, and a value that cannot be read is as good as none.

use std::time::Duration;

use reqwest::header::HeaderMap;

use super::{LimitNote, LimitNotes};

/// Longer waits are cut to this: a header with a slip in its unit must not park a run for years.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Plain numbers from here on are instants, in seconds since 1970 (2001-09-09), not waits.
const INSTANT_S_MIN: f64 = 1e9;
/// And from here on in milliseconds.
const INSTANT_MS_MIN: f64 = 1e12;

/// How long to wait before the next request.
///
/// `retry-after-ms` (OpenAI; Azure writes `x-ms-retry-after-ms`), else `retry-after` in seconds or
/// as an HTTP date (RFC 9110 section 10.2.3).
pub fn retry_after(headers: &HeaderMap, now_unix_ms: i64) -> Option<Duration> {
    let ms = text(headers, "retry-after-ms").or_else(|| text(headers, "x-ms-retry-after-ms"));
    if let Some(ms) = ms.and_then(|text| text.parse::<f64>().ok()) {
        return seconds(ms / 1000.0);
    }
    wait(text(headers, "retry-after")?, now_unix_ms)
}

/// What is said of the allowances.
///
/// Names: `x-ratelimit-*` (OpenAI and its kin: platform.openai.com/docs/guides/rate-limits),
/// `anthropic-ratelimit-*` (docs.claude.com, "Rate limits"), and the unsuffixed
/// `x-ratelimit-remaining` and `-reset` (OpenRouter, Together), which count requests; their `-limit` is
/// per second or per day as well, so it is not read.
pub fn limit_notes(headers: &HeaderMap, now_unix_ms: i64) -> LimitNotes {
    // Most servers say nothing: one look at the names instead of one for each that is known.
    if !headers.keys().any(|name| name.as_str().contains("ratelimit")) {
        return LimitNotes::default();
    }
    let note = |limit: &[&str], remaining: &[&str], reset: &[&str]| LimitNote {
        limit: count(first(headers, limit)),
        remaining: count(first(headers, remaining)),
        reset: first(headers, reset).and_then(|text| wait(text, now_unix_ms)),
    };
    let requests = note(
        &["x-ratelimit-limit-requests", "anthropic-ratelimit-requests-limit"],
        &[
            "x-ratelimit-remaining-requests",
            "anthropic-ratelimit-requests-remaining",
            "x-ratelimit-remaining",
        ],
        &["x-ratelimit-reset-requests", "anthropic-ratelimit-requests-reset", "x-ratelimit-reset"],
    );
    let tokens = note(
        &["x-ratelimit-limit-tokens", "anthropic-ratelimit-tokens-limit"],
        &["x-ratelimit-remaining-tokens", "anthropic-ratelimit-tokens-remaining"],
        &["x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset"],
    );
    let input_tokens = note(
        &["anthropic-ratelimit-input-tokens-limit"],
        &["anthropic-ratelimit-input-tokens-remaining"],
        &["anthropic-ratelimit-input-tokens-reset"],
    );
    let output_tokens = note(
        &["anthropic-ratelimit-output-tokens-limit"],
        &["anthropic-ratelimit-output-tokens-remaining"],
        &["anthropic-ratelimit-output-tokens-reset"],
    );
    // Beside these, Anthropic's `tokens` repeats whichever is nearest to its end: no sum of both.
    let apart = input_tokens.limit.is_some() || output_tokens.limit.is_some();
    let tokens = if apart { LimitNote::default() } else { tokens };
    LimitNotes { requests, tokens, input_tokens, output_tokens }
}

fn first<'a>(headers: &'a HeaderMap, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| text(headers, name))
}

fn count(text: Option<&str>) -> Option<u64> {
    let number = text?.parse::<f64>().ok().filter(|number| number.is_finite())?;
    Some(number.max(0.0) as u64)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// A wait written as seconds (`20`, `0.5`), as a duration (`6m0s`, `20ms`), or as the instant it
/// ends at: seconds or milliseconds since 1970, RFC 3339, or an HTTP date.
pub fn wait(text: &str, now_unix_ms: i64) -> Option<Duration> {
    let until = |end_unix_ms: f64| seconds(((end_unix_ms - now_unix_ms as f64) / 1000.0).max(0.0));
    if let Ok(number) = text.parse::<f64>() {
        return match number {
            number if number >= INSTANT_MS_MIN => until(number),
            number if number >= INSTANT_S_MIN => until(number * 1000.0),
            number => seconds(number),
        };
    }
    if let Some(duration) = go_duration(text) {
        return Some(duration);
    }
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return until(instant.as_millisecond() as f64);
    }
    let instant = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    until(instant.as_millisecond() as f64)
}

/// A duration as Go's `time.Duration` prints it: `1h2m3.5s`, `20ms`, `500µs`.
fn go_duration(mut text: &str) -> Option<Duration> {
    let mut total_s = 0.0;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = text[..digits].parse().ok()?;
        text = &text[digits..];
        let letters = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
        let unit_s = match &text[..letters] {
            "d" => 86_400.0,
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total_s += number * unit_s;
        text = &text[letters..];
    }
    seconds(total_s)
}

fn seconds(seconds: f64) -> Option<Duration> {
    // NaN and negative numbers are no waits.
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    /// 1994-11-06T08:49:37Z, the instant of RFC 9110's example.
    const NOW_UNIX_MS: i64 = 784_111_777_000;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[track_caller]
    fn check(text: &str, expected_ms: Option<u64>) {
        assert_eq!(wait(text, NOW_UNIX_MS), expected_ms.map(Duration::from_millis), "{text}");
    }

    #[test]
    fn waits_come_in_many_shapes() {
        check("20", Some(20_000));
        check("0.25", Some(250));
        check("6m0s", Some(360_000));
        check("20ms", Some(20));
        check("1h1m1.5s", Some(3_661_500));
        check("Sun, 06 Nov 1994 08:50:07 GMT", Some(30_000));
        check("Sun, 06 Nov 1994 08:49:07 GMT", Some(0));
        check("1994-11-06T08:49:39Z", Some(2000));
        check("1735689600000", Some(86_400_000));
        check("99999999", Some(86_400_000));
        for nonsense in ["", "-1", "NaN", "soon", "5 parsecs", "m", "3", "1.2.3s"] {
            check(nonsense, (nonsense == "3").then_some(3000));
        }
        assert_eq!(wait("1735689600", 1_735_689_590_000), Some(Duration::from_secs(10)));
        assert_eq!(wait("1735689600000", 1_735_689_590_000), Some(Duration::from_secs(10)));
    }

    #[test]
    fn the_finer_retry_header_wins() {
        let after = |headers: &[(&'static str, &'static str)]| retry_after(&map(headers), NOW_UNIX_MS);
        assert_eq!(
            after(&[("retry-after", "2"), ("retry-after-ms", "1500")]),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(after(&[("retry-after", "2"), ("retry-after-ms", "x")]), Some(Duration::from_secs(2)));
        assert_eq!(after(&[]), None);
    }

    fn note(limit: Option<u64>, remaining: Option<u64>, reset_ms: Option<u64>) -> LimitNote {
        LimitNote { limit, remaining, reset: reset_ms.map(Duration::from_millis) }
    }

    #[track_caller]
    fn check_notes(headers: &[(&'static str, &'static str)], expected: &LimitNotes) {
        assert_eq!(limit_notes(&map(headers), NOW_UNIX_MS), *expected);
    }

    #[test]
    fn allowances_are_read_under_each_name() {
        check_notes(
            &[
                ("x-ratelimit-limit-requests", "3000"),
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-requests", "20ms"),
                ("x-ratelimit-limit-tokens", "600000"),
                ("anthropic-ratelimit-tokens-remaining", "1200"),
                ("anthropic-ratelimit-tokens-reset", "1994-11-06T08:49:38Z"),
            ],
            &LimitNotes {
                requests: note(Some(3000), Some(0), Some(20)),
                tokens: note(Some(600_000), Some(1200), Some(1000)),
                ..LimitNotes::default()
            },
        );
        check_notes(
            &[("x-ratelimit-limit", "9"), ("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", "x")],
            &LimitNotes { requests: note(None, Some(7), None), ..LimitNotes::default() },
        );
    }

    #[test]
    fn input_and_output_tokens_are_kept_apart() {
        check_notes(
            &[
                ("anthropic-ratelimit-requests-limit", "50"),
                ("anthropic-ratelimit-tokens-limit", "30000"),
                ("anthropic-ratelimit-tokens-remaining", "100"),
                ("anthropic-ratelimit-input-tokens-limit", "30000"),
                ("anthropic-ratelimit-input-tokens-remaining", "100"),
                ("anthropic-ratelimit-input-tokens-reset", "1994-11-06T08:50:37Z"),
                ("anthropic-ratelimit-output-tokens-limit", "8000"),
            ],
            &LimitNotes {
                requests: note(Some(50), None, None),
                tokens: LimitNote::default(),
                input_tokens: note(Some(30_000), Some(100), Some(60_000)),
                output_tokens: note(Some(8_000), None, None),
            },
        );
    }
}
