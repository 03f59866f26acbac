//! How a run goes, while it goes: a live block on a terminal, plain lines otherwise.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::call::budget::usd;
use crate::call::{Desk, Totals};
use crate::cli::say;
use crate::clock;
use crate::engine::Progress;
use crate::problem::counted;
use crate::run::Run;

/// Time between two plain lines: rare enough for a night's log, often enough to see life.
const LINE_EVERY: Duration = Duration::from_secs(10);
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// How often the pace is noted, and over how long it is taken: long enough for calls of a minute.
const PACE_EVERY: Duration = Duration::from_secs(1);
const PACE_SPAN: Duration = Duration::from_secs(180);

const NAME_CHARS_MAX: usize = 14;

/// A running display; stopped before the final table.
pub struct Display {
    done: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

struct View {
    desk: Arc<Desk>,
    progress: Arc<Progress>,
    steps: Vec<String>,
    kept_wanted: Option<u64>,
    started: Instant,
    pace: Mutex<Pace>,
}

/// The share of the work that was done at each of the last looks, oldest first: what is still to come goes at
/// the pace of the last minutes, not at that of replies that a resumed run found in its store.
#[derive(Default)]
struct Pace(VecDeque<(Duration, f64)>);

impl Pace {
    /// The time that the rest will take, once there is a pace to tell it by.
    fn left(&mut self, at: Duration, share: f64) -> Option<Duration> {
        let looked_lately = self.0.back().is_some_and(|(last, _)| at.saturating_sub(*last) < PACE_EVERY);
        if !looked_lately {
            self.0.push_back((at, share));
        }
        while self.0.len() > 2 && at.saturating_sub(self.0[1].0) >= PACE_SPAN {
            self.0.pop_front();
        }
        let (since, before) = *self.0.front()?;
        let (seconds, done) = (at.saturating_sub(since).as_secs_f64(), share - before);
        let left = (1.0 - share) * seconds / done;
        (done > 0.0 && seconds >= 1.0).then(|| Duration::from_secs_f64(left.min(1e9).round()))
    }
}

impl Display {
    pub fn start(run: &Run) -> Display {
        let view = View {
            desk: Arc::clone(&run.desk),
            progress: Arc::clone(&run.progress),
            steps: run.pipeline().steps.iter().map(|step| step.name.clone()).collect(),
            kept_wanted: run.until().kept,
            started: clock::now(),
            pace: Mutex::default(),
        };
        let done = CancellationToken::new();
        let stop = done.clone();
        let task = tokio::spawn(async move {
            if std::io::stderr().is_terminal() {
                view.draw(&stop).await;
            } else {
                view.write(&stop).await;
            }
        });
        Display { done, task }
    }

    pub async fn stop(self) {
        self.done.cancel();
        let _ = self.task.await;
    }
}

impl View {
    /// A block of lines that is redrawn.
    async fn draw(&self, stop: &CancellationToken) {
        let block = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let line = || block.add(ProgressBar::new_spinner().with_style(style.clone()));
        let (head, total) = (line(), self.steps.len());
        let lines: Vec<ProgressBar> = (0..=total).map(|_| line()).collect();
        while !stopped(stop, DRAW_EVERY).await {
            head.set_message(HEAD);
            for (step, line) in lines.iter().take(total).enumerate() {
                line.set_message(self.step_line(step));
            }
            lines[total].set_message(self.total_line());
        }
        let _ = block.clear();
    }

    /// Why nothing goes on until the day is over, if that is so.
    fn resting(&self) -> String {
        self.desk.budget.resting().map_or_else(String::new, |why| format!("; waits for 00:00 UTC: {why}"))
    }

    async fn write(&self, stop: &CancellationToken) {
        while !stopped(stop, LINE_EVERY).await {
            say(self.total_line());
        }
    }

    fn step_line(&self, step: usize) -> String {
        let rows = self.progress.step(step);
        let rows = [&rows.entered, &rows.passed, &rows.rejected, &rows.failed].map(count);
        let calls = self.desk.monitor.steps().get(&step).map(|totals| StepCalls {
            from_store: totals.hits,
            in_flight: totals.in_flight,
            calls: totals.calls,
            tokens: totals.tokens_in + totals.tokens_out,
            usd_nano: (totals.unpriced == 0).then_some(totals.usd_nano),
        });
        step_line(&self.steps[step], rows, calls.as_ref(), self.started.elapsed())
    }

    fn total_line(&self) -> String {
        let progress = &self.progress;
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let Totals { calls, in_flight, tokens_in, tokens_out, usd_nano, unpriced, .. } =
            self.desk.monitor.total();
        let cost = match usd_nano {
            0 if unpriced > 0 => "cost unknown".to_owned(),
            nano => format!("{} USD", usd(nano)),
        };
        format!(
            "{:.0} s: {} rows in, {} kept, {} rejected, {} failed; {calls} calls ({:.1}/s, {:.0} tokens/s), \
             {in_flight} in flight, {cost}{}{}{}",
            seconds,
            count(&progress.rows_in),
            count(&progress.kept),
            count(&progress.rejected),
            count(&progress.failed),
            calls as f64 / seconds,
            (tokens_in + tokens_out) as f64 / seconds,
            self.batches(),
            self.left(),
            self.resting(),
        )
    }

    /// The batches under way.
    fn batches(&self) -> String {
        match self.desk.monitor.batches.counts().under_way() {
            (0, ..) => String::new(),
            (batches, calls, done) => {
                format!("; {} of {calls} calls under way, {done} done", counted(batches, "batch"))
            }
        }
    }

    fn left(&self) -> String {
        let left = self.progress.share(self.kept_wanted).and_then(|share| {
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.left(self.started.elapsed(), share).map(|left| (share, left))
        });
        left.map_or_else(String::new, |(share, left)| {
            format!("; {:.0} % done, about {} left", share * 100.0, humantime::format_duration(left))
        })
    }
}

/// What the numbers of a step's line are. Each column is as wide in every line.
const HEAD: &str =
    "  step                in     out rejected  failed  stored in flight  calls/s  tokens/s       USD";

/// The calls of one step so far.
struct StepCalls {
    from_store: u64,
    in_flight: u64,
    calls: u64,
    tokens: u64,
    /// `None` where a price is missing.
    usd_nano: Option<u64>,
}

/// A step's line: its rows in, out, rejected and failed, and its calls if it makes any.
fn step_line(name: &str, rows: [u64; 4], calls: Option<&StepCalls>, elapsed: Duration) -> String {
    let [entered, passed, rejected, failed] = rows.map(short);
    let name = match name.chars().count() > NAME_CHARS_MAX {
        true => name.chars().take(NAME_CHARS_MAX - 1).chain(['…']).collect(),
        false => name.to_owned(),
    };
    let line = format!("  {name:<NAME_CHARS_MAX$} {entered:>7} {passed:>7} {rejected:>8} {failed:>7}");
    let Some(calls) = calls else { return line };
    let a_second = |number: u64| number as f64 / elapsed.as_secs_f64().max(0.001);
    let usd = calls.usd_nano.map_or("unknown".to_owned(), |nano| format!("{:.4}", nano as f64 / 1e9));
    format!(
        "{line} {:>7} {:>9} {:>8.1} {:>9} {usd:>9}",
        short(calls.from_store),
        short(calls.in_flight),
        a_second(calls.calls),
        short(a_second(calls.tokens) as u64),
    )
}

/// A number in six characters at the most.
fn short(number: u64) -> String {
    match number {
        0..=999_999 => number.to_string(),
        1_000_000..=999_999_999 => format!("{:.2}M", number as f64 / 1e6),
        _ => format!("{:.2}G", number as f64 / 1e9),
    }
}

fn count(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

/// Waits; whether the display is to end.
async fn stopped(stop: &CancellationToken, pause: Duration) -> bool {
    tokio::time::timeout(pause, stop.cancelled()).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_a_line_of_a_hundred_columns_at_most() {
        let check = |name: &str, rows, calls: Option<StepCalls>, expected: &str| {
            let line = step_line(name, rows, calls.as_ref(), Duration::from_secs(10));
            assert_eq!(line, expected);
            assert!(line.chars().count() <= 100 && HEAD.len() <= 100, "{line}");
        };
        check(
            "story",
            [1200, 1100, 90, 2],
            Some(StepCalls {
                from_store: 7,
                in_flight: 64,
                calls: 425,
                tokens: 91_234,
                usd_nano: Some(12_345_678),
            }),
            "  story             1200    1100       90       2       7        64     42.5      9123    0.0123",
        );
        let most = StepCalls {
            from_store: 12_345_678,
            in_flight: 4096,
            calls: 9_999_990,
            tokens: 123_456_789_000,
            usd_nano: Some(9_999_000_000_000),
        };
        check(
            "a-name-that-is-long",
            [123_456_789; 4],
            Some(most),
            "  a-name-that-i… 123.46M 123.46M  123.46M 123.46M  12.35M      4096 999999.0    12.35G 9999.0000",
        );
        check("keep_if", [9, 8, 1, 0], None, "  keep_if              9       8        1       0");
        assert_eq!(HEAD.len(), 96);
    }

    #[test]
    fn the_rest_goes_at_the_pace_of_late() {
        let mut pace = Pace::default();
        let mut left =
            |at: u64, share: f64| pace.left(Duration::from_secs(at), share).map(|left| left.as_secs());
        assert_eq!(left(0, 0.0), None);
        // Half of it came from the store within ten seconds.
        assert_eq!(left(10, 0.5), Some(10));
        for second in 11..=400 {
            left(second, 0.5 + (second - 10) as f64 * 0.001);
        }
        // From then on a thousandth a second.
        assert_eq!(left(400, 0.89), Some(110));
        assert_eq!(left(401, 1.0), Some(0));
    }
}
