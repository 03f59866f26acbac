//! The `textmill` binary. Everything is in the library; this file only hands over.

use std::process::ExitCode;

/// Rows and replies are made on one thread and freed on another all the time, where glibc's allocator
/// waits for locks and mimalloc keeps half as much again as is used; measured with
/// `cargo bench --bench client -- cpu memory crowd`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    textmill::cli::main()
}
