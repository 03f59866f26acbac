//! How a run goes, while it goes: a live block on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::call::Desk;
use crate::call::budget::usd;
use crate::cli::say;
use crate::clock;
use crate::engine::Progress;
use crate::run::Run;

/// Time between two plain lines: rare enough for a night's log, often enough to see life.
const LINE_EVERY: Duration = Duration::from_secs(10);
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// A running display; stopped before the final table.
pub struct Display {
    done: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

struct View {
    desk: Arc<Desk>,
    progress: Arc<Progress>,
    steps: Vec<String>,
    started: Instant,
}

impl Display {
    pub fn start(run: &Run) -> Display {
        let view = View {
            desk: Arc::clone(&run.desk),
            progress: Arc::clone(&run.progress),
            steps: run.pipeline().steps.iter().map(|step| step.name.clone()).collect(),
            started: clock::now(),
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
        let lines: Vec<ProgressBar> = (0..=self.steps.len())
            .map(|_| block.add(ProgressBar::new_spinner().with_style(style.clone())))
            .collect();
        while !stopped(stop, DRAW_EVERY).await {
            for (step, line) in lines.iter().take(self.steps.len()).enumerate() {
                line.set_message(self.step_line(step));
            }
            lines[self.steps.len()].set_message(self.total_line());
        }
        let _ = block.clear();
    }

    async fn write(&self, stop: &CancellationToken) {
        while !stopped(stop, LINE_EVERY).await {
            say(self.total_line());
        }
    }

    fn step_line(&self, step: usize) -> String {
        let (entered, left) = self.progress.step(step);
        let name = &self.steps[step];
        let mut line = format!("  {name:<20} in {entered:>8}  done {left:>8}");
        if let Some(counts) = self.desk.monitor.steps().get(&step) {
            line.push_str(&format!(
                "  in flight {:>4}  calls {:>8}  from store {:>8}",
                count(&counts.in_flight),
                count(&counts.calls),
                count(&counts.hits)
            ));
        }
        line
    }

    fn total_line(&self) -> String {
        let progress = &self.progress;
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let (mut calls, mut tokens, mut nano, mut unpriced, mut in_flight) = (0, 0, 0, 0, 0);
        for counts in self.desk.monitor.steps().values() {
            calls += count(&counts.calls);
            tokens += count(&counts.tokens_in) + count(&counts.tokens_out);
            nano += count(&counts.usd_nano);
            unpriced += count(&counts.unpriced);
            in_flight += count(&counts.in_flight);
        }
        let cost =
            if unpriced > 0 && nano == 0 { "cost unknown".to_owned() } else { format!("{} USD", usd(nano)) };
        format!(
            "{:.0} s: {} rows in, {} kept, {} rejected, {} failed; {calls} calls ({:.1}/s, {:.0} tokens/s), \
             {in_flight} in flight, {cost}",
            seconds,
            count(&progress.rows_in),
            count(&progress.kept),
            count(&progress.rejected),
            count(&progress.failed),
            calls as f64 / seconds,
            tokens as f64 / seconds,
        )
    }
}

fn count(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

/// Waits; whether the display is to end.
async fn stopped(stop: &CancellationToken, pause: Duration) -> bool {
    tokio::time::timeout(pause, stop.cancelled()).await.is_ok()
}
