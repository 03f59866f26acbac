//! The `textmill` binary. Everything is in the library; this file only hands over.

use std::process::ExitCode;

fn main() -> ExitCode {
    textmill::cli::main()
}
