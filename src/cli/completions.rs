//! `textmill completions SHELL`: a completion script, to stdout.

use clap_complete::Shell;

use crate::cli::{Exit, print};

#[derive(clap::Args)]
pub struct Args {
    /// The shell to write the script for.
    shell: Shell,
}

pub fn main(args: &Args, mut command: clap::Command) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "textmill", &mut script);
    print(&String::from_utf8_lossy(&script));
    Exit::Done
}
