//! `textmill guard -- ARGV`: runs a teacher's server and ends it when textmill ends, kill -9 included.
//!
//! Hidden: `start:` puts it before its command.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::fail;
use crate::teacher::process;

#[derive(clap::Args)]
pub struct Args {
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    argv: Vec<OsString>,
}

pub fn main(args: &Args) -> ExitCode {
    match process::guard(&args.argv, std::io::stdin()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(error).into(),
    }
}
