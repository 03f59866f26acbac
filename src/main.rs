//! The `textmill` binary. Everything is in the library; this file only hands over.

use std::process::ExitCode;

/// Rows and replies are made on one thread and freed on another all the time, where glibc's allocator
/// waits for locks; measured with `cargo bench --bench client -- cpu memory`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    textmill::cli::main()
}
