//! The command line: one file per command. The only place that prints and reads the environment.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done; 1 done, but some rows failed or a
//! cap stopped it; 2 could not run.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::run::Machine;

mod check;
mod completions;
mod contamination;
mod ends;
mod explain;
mod guard;
mod load;
mod new;
mod plan;
mod progress;
mod rows;
mod run;
mod schema;
mod show;
mod store;
mod teacher;
mod test;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// Done, but some rows failed or a cap stopped it.
    Incomplete,
    /// Could not run.
    Failed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Incomplete => 1,
            Exit::Failed => 2,
        })
    }
}

/// A synthetic training-data factory: pipeline files, teacher models, checks, Parquet datasets.
#[derive(Parser)]
#[command(name = "textmill", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a starter pipeline to begin with.
    New(new::Args),
    /// Check a pipeline file; asks nobody, costs nothing.
    Check(check::Args),
    /// Run a pipeline's own tests against scripted replies; asks nobody, costs nothing.
    Test(test::Args),
    /// Say what a run would take before it is paid: calls, tokens, money.
    Plan(plan::Args),
    /// Run a pipeline and publish its dataset.
    Run(run::Args),
    /// Show rows that were kept, rejected or failed, or trace one back to its prompts and replies.
    Show(show::Args),
    /// Say which items of benchmarks the latest run found, with both passages side by side.
    Contamination(contamination::Args),
    /// Explain an operator, or list them all.
    Explain(explain::Args),
    /// Look into the store of replies, thin it out, or export it.
    Store(store::Args),
    /// Print the JSON Schema of pipeline files, for editors.
    Schema,
    /// Serve a fake teacher on loopback, for trying pipelines and limits without paying.
    Teacher(teacher::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Run a command until it or its parent ends.
    #[command(hide = true)]
    Guard(guard::Args),
}

/// What every command that reads a pipeline takes.
#[derive(clap::Args)]
pub struct PipelineArgs {
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// Override a value of the file, such as `teachers.writer.openai.model=gpt-4.1`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = match cli.command {
        Command::New(args) => new::main(&args),
        Command::Check(args) => check::main(&args),
        Command::Test(args) => test::main(&args),
        Command::Plan(args) => plan::main(&args),
        Command::Run(args) => run::main(&args),
        Command::Show(args) => show::main(&args),
        Command::Contamination(args) => contamination::main(&args),
        Command::Explain(args) => explain::main(&args),
        Command::Store(args) => store::main(&args),
        Command::Schema => schema::main(),
        Command::Teacher(args) => teacher::main(args),
        Command::Completions(args) => completions::main(&args, Cli::command()),
        Command::Guard(args) => return guard::main(&args),
    };
    exit.into()
}

/// Says what could not be done, in house style, and gives the exit code for it.
pub fn fail(message: impl std::fmt::Display) -> Exit {
    say(format_args!("error: {message}"));
    Exit::Failed
}

/// One line to stderr.
#[expect(clippy::print_stderr, reason = "the command line's voice")]
pub fn say(line: impl std::fmt::Display) {
    eprintln!("{line}");
}

/// Data to stdout; a closed pipe ends quietly.
pub fn print(text: &str) {
    use std::io::Write;
    // `textmill show … | head` closes the pipe; that is no error of ours.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Whether to colour what goes to stderr.
pub fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// The machine as runs see it.
pub fn machine() -> Machine {
    // Without its own binary at hand a run goes on; only kill -9 then leaves its children behind.
    let ours = |words: &[&str]| -> Vec<OsString> {
        let exe = std::env::current_exe().map(std::path::PathBuf::into_os_string);
        exe.map(|exe| std::iter::once(exe).chain(words.iter().map(OsString::from)).collect())
            .unwrap_or_default()
    };
    Machine {
        env: |name| std::env::var(name).ok(),
        guard: ours(&["guard", "--"]),
        watch: ours(&["guard", "--watch"]),
    }
}

/// The runtime that commands run on.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
