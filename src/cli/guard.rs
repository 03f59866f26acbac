//! `textmill guard`: ends what a run started when textmill itself ends, kill -9 included.
//!
//! Hidden. `guard -- ARGV` runs a teacher's server (`start:` puts it before its command); `guard --watch` is
//! told the process groups of `command:` steps on its standard input.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::fail;
use crate::ops::serve_watch;
use crate::teacher::process;

#[derive(clap::Args)]
pub struct Args {
    /// Kill the process groups named on standard input when that ends.
    #[arg(long)]
    watch: bool,
    /// The command and its arguments.
    #[arg(last = true, required_unless_present = "watch")]
    argv: Vec<OsString>,
}

pub fn main(args: &Args) -> ExitCode {
    if args.watch {
        serve_watch(std::io::stdin());
        return ExitCode::SUCCESS;
    }
    match process::guard(&args.argv, std::io::stdin()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(error).into(),
    }
}
