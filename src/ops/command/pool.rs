//! The processes of a step: started when rows need them, ended when they do not answer.
//!
//! Knows limits of time and numbers; decides about no row and stops no run.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::answer::Answer;
use super::child::{Child, LINE_BYTES_MAX, NoLine, Program};
use super::watch::Watch;
use crate::clock;
use crate::row::RowId;
use crate::teacher::Usage;
use crate::teacher::gate::{Gate, Limits, PATIENCE_DEFAULT, Permit, Shut, Ticket};

/// What is shown of a line that is no answer.
const SHOWN_CHARS: usize = 1000;

/// The processes of a step.
pub struct Pool {
    pub program: Program,
    /// Started with the first process.
    watch: Mutex<Option<Arc<Watch>>>,
    timeout: Duration,
    /// A place for each process; the lowest row goes first.
    places: Gate,
    /// Processes that wait for a row.
    idle: Mutex<Vec<Child>>,
    /// Times in a row that there was no answer.
    unanswered: AtomicU32,
}

/// A line that a process answered, and what it says.
pub struct Heard {
    pub line: Vec<u8>,
    pub answer: Answer,
    pub latency_ms: u64,
}

/// Why a row has no answer.
pub struct Silence {
    pub code: &'static str,
    pub message: String,
    pub evidence: Value,
    /// How often in a row there was no answer.
    pub in_a_row: u32,
}

impl Pool {
    pub fn new(program: Program, processes: usize, timeout: Duration) -> Pool {
        let limits = Limits { in_flight: Some(processes), ..Limits::default() };
        let (places, unanswered) = (Gate::new(limits, PATIENCE_DEFAULT), AtomicU32::new(0));
        Pool { program, watch: Mutex::default(), timeout, places, idle: Mutex::default(), unanswered }
    }

    /// Waits for a place; it is free again when the permit is dropped.
    pub async fn enter(&self, row: &RowId, step: usize) -> Result<Permit, Shut> {
        self.places.enter(Ticket { row: row.clone(), step, tokens: Usage::default() }).await
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Child>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watch over the processes; none where nobody can be started to keep it.
    fn watch(&self) -> io::Result<Option<Arc<Watch>>> {
        let argv = &self.program.commands.watch;
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.is_none() && !argv.is_empty() {
            *watch = Some(Arc::new(Watch::start(argv)?));
        }
        Ok(watch.clone())
    }

    /// A process that waits, else a new one.
    pub fn child(&self) -> io::Result<Child> {
        loop {
            let Some(mut child) = self.idle().pop() else {
                return self.program.start(self.watch()?.as_ref());
            };
            if !child.has_ended() {
                return Ok(child);
            }
        }
    }

    /// Asks a child, which waits for the next row then, if it answered.
    pub async fn ask(&self, mut child: Child, line: &[u8]) -> Result<Heard, Silence> {
        let started = clock::now();
        let answered = tokio::time::timeout(self.timeout, child.ask(line)).await;
        let by_itself = matches!(answered, Ok(Err(NoLine::Ended)));
        let (code, why, shown) = match answered {
            Ok(Ok(line)) => match Answer::read(&line) {
                Ok(answer) => {
                    self.unanswered.store(0, Ordering::Relaxed);
                    self.idle().push(child);
                    let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    return Ok(Heard { line, answer, latency_ms });
                }
                Err(why) => {
                    let shown: String = String::from_utf8_lossy(&line).chars().take(SHOWN_CHARS).collect();
                    ("command_failed", why, Some(shown))
                }
            },
            Ok(Err(NoLine::Ended)) => ("command_failed", "it ended before it answered".to_owned(), None),
            Ok(Err(NoLine::TooEarly)) => (
                "command_failed",
                "it wrote a line before it was asked: one line for each row".to_owned(),
                None,
            ),
            Ok(Err(NoLine::TooLong)) => {
                ("command_failed", format!("its answer is longer than {} MiB", LINE_BYTES_MAX >> 20), None)
            }
            Err(_) => {
                ("timeout", format!("no answer within {}", humantime::format_duration(self.timeout)), None)
            }
        };
        let (status, stderr) = child.end(by_itself).await;
        let message = match status {
            Some(status) => format!("{why} ({status})"),
            None => why,
        };
        let mut evidence = json!({"stderr": stderr});
        if let Some(shown) = shown {
            evidence["answer"] = shown.into();
        }
        let in_a_row = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        Err(Silence { code, message, evidence, in_a_row })
    }
}
