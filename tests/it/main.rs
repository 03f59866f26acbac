//! The integration tests: the real binary on temporary folders, against real processes on loopback.
//!
//! One binary, so that it links once.

mod asking;
mod batched_steps;
mod batches;
mod budgets;
mod cassettes;
mod cli;
mod crash;
mod decontaminate;
mod determinism;
mod faults;
mod keys;
mod local;
mod pools;
mod problems;
mod processes;
mod readme;
mod releases;
mod secrets;
mod several_teachers;
mod stops;
mod tidy;
mod workspace;
