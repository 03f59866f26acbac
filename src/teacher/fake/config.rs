//! What a fake teacher can be told: its settings, as command-line flags, and the names of its faults.
//! What the faults do is in `answer.rs`.

use std::str::FromStr;

use super::dice::Dice;
use crate::problem::name_hint;

/// A fault that a fake teacher shows on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    ServerError,
    Unavailable,
    UnavailableRetryAfter,
    RateLimit,
    Overloaded,
    Reset,
    Hang,
    TruncatedJson,
    CutBody,
    InvalidUtf8,
    EmptyChoices,
    Length,
    Refusal,
    Error200,
    BadRequest,
    Unauthorized,
    Quota,
    ContextLength,
    NoUsage,
    Html,
    SlowBody,
}

/// All faults and the names that `--fault` and the statistics know them by.
pub const FAULTS: &[(&str, Fault)] = &[
    ("500", Fault::ServerError),
    ("503", Fault::Unavailable),
    ("503-retry-after", Fault::UnavailableRetryAfter),
    ("429", Fault::RateLimit),
    ("529", Fault::Overloaded),
    ("reset", Fault::Reset),
    ("hang", Fault::Hang),
    ("truncated-json", Fault::TruncatedJson),
    ("cut-body", Fault::CutBody),
    ("invalid-utf8", Fault::InvalidUtf8),
    ("empty-choices", Fault::EmptyChoices),
    ("length", Fault::Length),
    ("refusal", Fault::Refusal),
    ("error-200", Fault::Error200),
    ("400", Fault::BadRequest),
    ("401", Fault::Unauthorized),
    ("402-quota", Fault::Quota),
    ("context-length", Fault::ContextLength),
    ("no-usage", Fault::NoUsage),
    ("html", Fault::Html),
    ("slow-body", Fault::SlowBody),
];

impl Fault {
    pub fn name(self) -> &'static str {
        FAULTS.iter().find(|(_, fault)| *fault == self).map_or("", |(name, _)| name)
    }
}

/// How often a fault is shown: `500=0.05`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultRate {
    pub fault: Fault,
    /// 0 (never) to 1 (always).
    pub rate: f64,
}

impl FromStr for FaultRate {
    type Err = String;

    fn from_str(text: &str) -> Result<FaultRate, String> {
        let (name, rate) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not of the form KIND=RATE, such as `500=0.05`"))?;
        let Some((_, fault)) = FAULTS.iter().find(|(known, _)| *known == name) else {
            let hint = name_hint(name, FAULTS.iter().map(|(known, _)| *known)).unwrap_or_default();
            return Err(format!("there is no fault `{name}`; {hint}"));
        };
        match rate.parse() {
            Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(FaultRate { fault: *fault, rate }),
            _ => Err(format!("the rate `{rate}` of `{name}` is not a number from 0 to 1")),
        }
    }
}

/// A request that hangs the first time it is seen: `SUBSTRING:SECONDS`.
#[derive(Clone, Debug, PartialEq)]
pub struct HangOnce {
    /// Looked for in the raw bytes of the request body, so as JSON writes it.
    pub substring: String,
    pub hang_s: f64,
}

impl FromStr for HangOnce {
    type Err = String;

    fn from_str(text: &str) -> Result<HangOnce, String> {
        let (substring, seconds) = text
            .rsplit_once(':')
            .filter(|(substring, _)| !substring.is_empty())
            .ok_or_else(|| format!("`{text}` is not of the form SUBSTRING:SECONDS, such as `row 17:60`"))?;
        match seconds.parse() {
            Ok(hang_s) if (0.0..=3600.0).contains(&hang_s) => {
                Ok(HangOnce { substring: substring.to_owned(), hang_s })
            }
            _ => Err(format!("`{seconds}` is not a number of seconds from 0 to 3600")),
        }
    }
}

/// An allowance that changes: `SECONDS:COUNT`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitAfter {
    /// Counted from the first request.
    pub after_s: f64,
    pub per_minute: u64,
}

impl FromStr for LimitAfter {
    type Err = String;

    fn from_str(text: &str) -> Result<LimitAfter, String> {
        let wrong = || format!("`{text}` is not of the form SECONDS:COUNT, such as `30:1000`");
        let (seconds, count) = text.split_once(':').ok_or_else(wrong)?;
        match (seconds.parse(), count.parse()) {
            (Ok(after_s), Ok(per_minute)) if (0.0..=86_400.0).contains(&after_s) && per_minute > 0 => {
                Ok(LimitAfter { after_s, per_minute })
            }
            _ => Err(wrong()),
        }
    }
}

/// The settings of a fake teacher.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct FakeConfig {
    /// Port to listen on, at 127.0.0.1; 0 picks a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,

    /// Seed of the replies and latencies: same seed, same request body, same reply
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,

    /// Median time before a reply starts, in milliseconds; 0 replies at once
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub latency_ms: u64,

    /// Spread of the latency: sigma of a lognormal distribution; 0 makes every reply take the median
    #[arg(long, value_name = "SIGMA", default_value_t = 0.0, value_parser = number_between::<0, 5>)]
    pub latency_sigma: f64,

    /// Size of a reply's text in bytes, give or take a quarter; `max_tokens` of a request cuts it
    #[arg(long, value_name = "BYTES", default_value_t = 1200, value_parser = clap::value_parser!(u64).range(1..=4_000_000))]
    pub reply_bytes: u64,

    /// Requests allowed per minute; more get a 429
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests_per_minute: Option<u64>,

    /// Tokens allowed per minute, a token being 4 characters: a request reserves its messages and its
    /// `max_tokens` (if it has none: `--reply-bytes` / 4), and gives back what the reply did not use
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub tokens_per_minute: Option<u64>,

    /// The requests allowed per minute change after so many seconds from the first request; repeatable
    #[arg(long, value_name = "SECONDS:COUNT", requires = "requests_per_minute")]
    pub requests_per_minute_after: Vec<LimitAfter>,

    /// The tokens allowed per minute change after so many seconds from the first request; repeatable
    #[arg(long, value_name = "SECONDS:COUNT", requires = "tokens_per_minute")]
    pub tokens_per_minute_after: Vec<LimitAfter>,

    /// Say nothing of the limits in headers: no `x-ratelimit-*`, and no `retry-after` on their 429s
    #[arg(long)]
    pub no_limit_headers: bool,

    /// Lie in the headers: limits and what remains of them, times this number from 0 to 100
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = number_between::<0, 100>, conflicts_with = "no_limit_headers")]
    pub limit_headers_factor: f64,

    /// How many seconds of an allowance may be used at once
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = number_between::<0, 3600>)]
    pub burst_s: f64,

    /// Requests worked on at a time; more get a 429, or wait with `--queue`
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub in_flight: Option<u32>,

    /// Let requests over `--in-flight` wait their turn, as vLLM does
    #[arg(long, requires = "in_flight")]
    pub queue: bool,

    /// Show a fault: KIND=RATE with a rate from 0 to 1, repeatable; kinds: 500, 503, 503-retry-after,
    /// 429, 529, reset, hang, truncated-json, cut-body, invalid-utf8, empty-choices, length, refusal,
    /// error-200, 400, 401, 402-quota, context-length, no-usage, html, slow-body
    #[arg(long, value_name = "KIND=RATE")]
    pub fault: Vec<FaultRate>,

    /// Seed of the choice of faults, which hangs on it, the request body and how often that was seen
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub fault_seed: u64,

    /// Show the same fault each time a request body is seen again
    #[arg(long)]
    pub fault_sticky: bool,

    /// What the faults `429` and `503-retry-after` ask a caller to wait, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub fault_retry_after_ms: u64,

    /// How long the fault `slow-body` takes to deliver its body, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub slow_body_ms: u64,

    /// A request body with this text in it waits that long the first time it is seen; repeatable
    #[arg(long, value_name = "SUBSTRING:SECONDS")]
    pub hang_once: Vec<HangOnce>,

    /// After this many requests that passed the limits, every further one gets a 503
    #[arg(long, value_name = "COUNT")]
    pub fail_after: Option<u64>,

    /// How long a batch takes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(..=86_400_000))]
    pub batch_ms: u64,

    /// How long the reply to a new batch takes that is there already, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub batch_create_ms: u64,

    /// Share of a batch's items that expire, from 0 to 1; other faults of items are those of `--fault`
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = number_between::<0, 1>)]
    pub batch_expired: f64,

    /// Repeat the caller's key in replies, headers and errors, to test that secrets are scrubbed
    #[arg(long)]
    pub echo_key: bool,
}

impl Default for FakeConfig {
    fn default() -> FakeConfig {
        FakeConfig {
            port: 0,
            seed: 0,
            latency_ms: 0,
            latency_sigma: 0.0,
            reply_bytes: 1200,
            requests_per_minute: None,
            tokens_per_minute: None,
            requests_per_minute_after: Vec::new(),
            tokens_per_minute_after: Vec::new(),
            no_limit_headers: false,
            limit_headers_factor: 1.0,
            burst_s: 1.0,
            in_flight: None,
            queue: false,
            fault: Vec::new(),
            fault_seed: 0,
            fault_sticky: false,
            fault_retry_after_ms: 1000,
            slow_body_ms: 2000,
            hang_once: Vec::new(),
            fail_after: None,
            batch_ms: 200,
            batch_create_ms: 0,
            batch_expired: 0.0,
            echo_key: false,
        }
    }
}

impl FakeConfig {
    /// What is wrong with the settings together, in one sentence.
    pub fn problem(&self) -> Option<String> {
        let sum: f64 = self.fault.iter().map(|fault| fault.rate).sum();
        if sum > 1.0 + 1e-9 {
            return Some(format!("the rates of all `--fault` add up to {sum}; they must not exceed 1"));
        }
        None
    }

    /// The fault that a request shows, given its body's hash and how often that body was seen before.
    pub fn draw_fault(&self, body_hash: u128, seen: u32) -> Option<Fault> {
        if self.fault.is_empty() {
            return None;
        }
        let seen = if self.fault_sticky { 0 } else { u64::from(seen) };
        let mut height = Dice::new(self.fault_seed, body_hash, seen).unit();
        for FaultRate { fault, rate } in &self.fault {
            if height < *rate {
                return Some(*fault);
            }
            height -= rate;
        }
        None
    }
}

/// Reads a number from `LEAST` to `MOST`.
fn number_between<const LEAST: u32, const MOST: u32>(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (f64::from(LEAST)..=f64::from(MOST)).contains(&number) => Ok(number),
        _ => Err(format!("`{text}` is not a number from {LEAST} to {MOST}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: FakeConfig,
    }

    fn read(arguments: &str) -> Result<FakeConfig, String> {
        Line::try_parse_from(["fake"].into_iter().chain(arguments.split_whitespace()))
            .map(|line| line.config)
            .map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(arguments: &str, expected: Result<FakeConfig, &str>) {
        match (read(arguments), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => panic!("`{arguments}`: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn flags_are_read() {
        check("", Ok(FakeConfig::default()));
        let fault = vec![FaultRate { fault: Fault::ServerError, rate: 0.25 }];
        check("--fault 500=0.25", Ok(FakeConfig { fault, ..FakeConfig::default() }));
        let hang_once = vec![HangOnce { substring: "a:b".into(), hang_s: 1.5 }];
        check("--hang-once a:b:1.5", Ok(FakeConfig { hang_once, ..FakeConfig::default() }));
        check(
            "--in-flight 3 --queue",
            Ok(FakeConfig { in_flight: Some(3), queue: true, ..FakeConfig::default() }),
        );
        check("--queue", Err("--in-flight"));
        let after = vec![LimitAfter { after_s: 2.5, per_minute: 20 }];
        let changes = FakeConfig {
            requests_per_minute: Some(60),
            requests_per_minute_after: after,
            ..FakeConfig::default()
        };
        check("--requests-per-minute 60 --requests-per-minute-after 2.5:20", Ok(changes));
        check("--requests-per-minute-after 2:20", Err("--requests-per-minute"));
        check("--tokens-per-minute 9 --tokens-per-minute-after 2:0", Err("SECONDS:COUNT"));
        check("--no-limit-headers --limit-headers-factor 2", Err("cannot be used with"));
        check("--fault resett=1", Err("did you mean `reset`?"));
        check("--fault 500", Err("KIND=RATE"));
        check("--fault 500=2", Err("from 0 to 1"));
        check("--hang-once x", Err("SUBSTRING:SECONDS"));
        check("--latency-sigma nan", Err("from 0 to 5"));
        check("--requests-per-minute 0", Err("0"));
    }

    #[test]
    fn the_help_names_every_fault() {
        let help = <Line as clap::CommandFactory>::command().render_long_help().to_string();
        for (name, fault) in FAULTS {
            assert!(help.contains(name), "`{name}` is missing in the help");
            assert_eq!(fault.name(), *name);
        }
    }

    #[test]
    fn rates_above_one_are_refused() {
        let config = read("--fault 500=0.7 --fault 503=0.4").expect("flags");
        assert!(config.problem().is_some_and(|problem| problem.contains("must not exceed 1")));
        assert_eq!(read("--fault 500=0.6 --fault 503=0.4").expect("flags").problem(), None);
    }

    #[test]
    fn faults_come_at_their_rates_and_hang_on_body_and_retry() {
        let config = read("--fault 500=0.2 --fault hang=0.1").expect("flags");
        let share =
            |fault| (0..4000).filter(|hash| config.draw_fault(*hash, 0) == fault).count() as f64 / 4000.0;
        assert!((share(Some(Fault::ServerError)) - 0.2).abs() < 0.03);
        assert!((share(Some(Fault::Hang)) - 0.1).abs() < 0.03);
        let faulty = (0..100).find(|hash| config.draw_fault(*hash, 0).is_some()).expect("one of 100");
        assert!((1..100).any(|seen| config.draw_fault(faulty, seen).is_none()));
        let sticky = FakeConfig { fault_sticky: true, ..config };
        assert!((1..100).all(|seen| sticky.draw_fault(faulty, seen) == sticky.draw_fault(faulty, 0)));
    }
}
