//! `textmill run`: run a pipeline, show how it goes, publish the dataset.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::call::{Control, Desk, StopReason};
use crate::cli::load::{Loaded, load};
use crate::cli::progress::Display;
use crate::cli::{Exit, PipelineArgs, ends, fail, machine, print, runtime, say};
use crate::problem::counted;
use crate::run::{Options, Report, Run, workspace};
use crate::store::{Access, Store};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Run only the source's first rows. Their calls are kept: the full run does not pay them again.
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
    /// Show the rows that this run kept, rejected and failed.
    #[arg(long)]
    show: bool,
    /// Ask a step's calls anew instead of taking their replies from the store.
    #[arg(long, value_name = "STEP")]
    fresh: Vec<String>,
    /// Ask again what a server declined in an earlier run.
    #[arg(long)]
    retry_failed: bool,
    /// Which drawing of the dataset this is.
    #[arg(long, default_value = "0")]
    epoch: String,
    /// If the run stops early, publish its longest finished prefix, marked partial.
    #[arg(long)]
    partial: bool,
    /// Print the final accounts as JSON to stdout.
    #[arg(long)]
    json: bool,
    /// Source rows that may be ahead of the oldest open one.
    #[arg(long, value_name = "ROWS", hide = true)]
    window: Option<u64>,
}

pub fn main(args: &Args) -> Exit {
    let Some(loaded) = load(&args.pipeline, false) else { return Exit::Failed };
    if let Some(unknown) = unknown_fresh(args, &loaded) {
        return fail(unknown);
    }
    if args.epoch.is_empty() || args.epoch.len() > 64 {
        return fail("an epoch has 1 to 64 characters");
    }
    match runtime() {
        Ok(runtime) => {
            let exit = runtime.block_on(run(args, loaded));
            // Calls that nobody needs any more do not keep the process.
            runtime.shutdown_timeout(Duration::from_millis(200));
            exit
        }
        Err(error) => fail(error),
    }
}

fn unknown_fresh(args: &Args, loaded: &Loaded) -> Option<String> {
    let names = || loaded.pipeline.steps.iter().map(|step| step.name.as_str());
    let unknown = args.fresh.iter().find(|step| !names().any(|name| name == *step))?;
    let hint = crate::problem::name_hint(unknown, names()).unwrap_or_default();
    Some(format!("--fresh names no step of the pipeline: `{unknown}`\nhint: {hint}"))
}

async fn run(args: &Args, loaded: Loaded) -> Exit {
    let Loaded { pipeline, source } = loaded;
    let workspace = workspace(&pipeline.base);
    let store = match Store::open(&workspace, Access::Write) {
        Ok(store) => store,
        Err(error) => return fail(error),
    };
    let mut options = Options {
        rows: args.rows,
        fresh: args.fresh.clone(),
        retry_failed: args.retry_failed,
        epoch: args.epoch.clone(),
        partial: args.partial,
        ..Options::default()
    };
    if let Some(window) = args.window {
        options.settings.window_rows = window.max(1);
    }
    let prepared =
        Run::prepare(pipeline, source.text.clone(), store.clone(), &workspace, options, &machine()).await;
    let run = match prepared {
        Ok(run) => run,
        Err(error) => return source.failed(&error),
    };
    source.show(&run.warnings, false);
    let desk = Arc::clone(&run.desk);
    listen(run.control.clone());
    tokio::spawn(announce(Arc::clone(&desk)));
    let display = Display::start(&run);
    let news = News::start(&run);
    let ended = run.go().await;
    display.stop().await;
    news.stop().await;
    match ended {
        Ok(report) => finish(args, &report, &desk),
        Err(error) => source.failed(&error),
    }
}

/// Ctrl-C once: finish what is in flight. Twice: stop now. Three times: whatever hangs then is left.
fn listen(control: Control) {
    tokio::spawn(async move {
        let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        else {
            return;
        };
        let mut times = 0;
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            times += 1;
            match times {
                1 => {
                    say("finishing the calls in flight, then stopping; once more to stop now");
                    control.stop(StopReason::Interrupted);
                }
                2 => {
                    say("stopping now; run again to resume");
                    control.abort();
                }
                _ => std::process::exit(i32::from(Exit::Failed as u8)),
            }
        }
    });
}

/// Says what becomes of endpoints while a run goes.
struct News {
    done: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl News {
    fn start(run: &Run) -> News {
        let done = CancellationToken::new();
        let tasks =
            run.teachers().values().map(|teacher| tokio::spawn(pass_on(teacher.pool.news(), done.clone())));
        News { tasks: tasks.collect(), done }
    }

    /// Ends when all is said.
    async fn stop(self) {
        self.done.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

async fn pass_on(mut news: watch::Receiver<Vec<String>>, done: CancellationToken) {
    let mut said = 0;
    let mut ended = false;
    while !ended {
        ended = tokio::select! {
            more = news.changed() => more.is_err(),
            () = done.cancelled() => true,
        };
        let fresh = news.borrow_and_update()[said..].to_vec();
        said += fresh.len();
        fresh.into_iter().for_each(|sentence| say(format_args!("warning: {sentence}")));
    }
}

/// How long calls in flight may take to end before it is said why the run stops.
const ANNOUNCE_AFTER: Duration = Duration::from_secs(1);

/// Says why a run stops on its own while its calls in flight end, which may take minutes.
async fn announce(desk: Arc<Desk>) {
    desk.control.stopping().cancelled().await;
    tokio::time::sleep(ANNOUNCE_AFTER).await;
    let in_flight = desk.monitor.total().in_flight;
    if let Some(reason) = desk.control.reason().filter(|reason| *reason != StopReason::Interrupted)
        && in_flight > 0
    {
        say(format_args!("{}; finishing {} in flight", reason.sentence(), counted(in_flight, "call")));
    }
}

fn finish(args: &Args, report: &Report, desk: &Desk) -> Exit {
    if args.show {
        print(&ends::rows(report, &desk.store));
    }
    if args.json {
        print(&format!("{:#}\n", ends::json(report, desk)));
    } else {
        say(ends::table(report, desk));
    }
    for remark in ends::remarks(report) {
        say(remark);
    }
    for warning in ends::warnings(report, desk) {
        say(format_args!("warning: {warning}"));
    }
    match &report.stopped {
        Some(StopReason::Fatal(_) | StopReason::Source(_)) => {
            fail(report.stopped.as_ref().map(StopReason::sentence).unwrap_or_default())
        }
        Some(reason) => {
            let how = match reason {
                StopReason::Budget(reached) => reached.remedy.as_str(),
                _ => "run again",
            };
            say(format_args!("stopped: {}; {how} to resume", reason.sentence()));
            Exit::Incomplete
        }
        None if report.tally.failed > 0 || report.tally.open > 0 || !report.reached => Exit::Incomplete,
        None => Exit::Done,
    }
}
