//! The words of a server: a bounded file, secrets scrubbed, and its last lines for error messages.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::{Launch, at, one};
use crate::problem::Problem;
use crate::teacher::http::words;
use crate::teacher::secret::Secrets;

/// What is kept of a server's words: a longer line is broken, a longer log ends.
const LINE_BYTES_MAX: u64 = 16 << 10;
const LOG_BYTES_MAX: u64 = 64 << 20;
const TAIL_LINES: usize = 20;
const SENTENCE_LINES: usize = 5;

/// The words of a server: a bounded file, and its last lines for error messages.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    pages: Mutex<Pages>,
    secrets: Arc<Secrets>,
}

#[derive(Debug)]
struct Pages {
    file: File,
    bytes_left: u64,
    tail: VecDeque<String>,
}

impl Log {
    pub fn open(launch: &Launch) -> Result<Log, Vec<Problem>> {
        let wrong = |error: &io::Error| {
            let message = format!("the log `{}` cannot be written", launch.log.display());
            one(at("command"), message, error.to_string())
        };
        if let Some(folder) = launch.log.parent() {
            std::fs::create_dir_all(folder).map_err(|error| wrong(&error))?;
        }
        let file =
            OpenOptions::new().append(true).create(true).open(&launch.log).map_err(|error| wrong(&error))?;
        let length = file.metadata().map_err(|error| wrong(&error))?.len();
        let bytes_left = LOG_BYTES_MAX.saturating_sub(length);
        let pages = Mutex::new(Pages { file, bytes_left, tail: VecDeque::new() });
        Ok(Log { path: launch.log.clone(), pages, secrets: Arc::clone(&launch.secrets) })
    }

    pub fn line(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let text = self.secrets.scrub(&text);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.tail.len() == TAIL_LINES {
            pages.tail.pop_front();
        }
        pages.tail.push_back(words(&text));
        pages.write(&text);
    }

    /// Writes a line of our own, which is none of the server's words.
    pub fn note(&self, text: &str) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.write(&format!("textmill: {text}\n"));
    }

    /// Adds the last lines to a problem.
    pub fn explain(&self, mut problem: Problem) -> Problem {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        problem.causes.extend(pages.tail.iter().map(|line| format!("it wrote: {line}")));
        problem.hint(format!("all it wrote is in `{}`", self.path.display()))
    }

    /// The very last lines, for a sentence.
    pub fn last_words(&self) -> String {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = pages.tail.len().saturating_sub(SENTENCE_LINES);
        let lines: Vec<&str> = pages.tail.iter().skip(skipped).map(String::as_str).collect();
        let last = if lines.is_empty() { "nothing".to_owned() } else { lines.join(" | ") };
        format!("it wrote last: {last}; all it wrote is in `{}`", self.path.display())
    }
}

impl Pages {
    fn write(&mut self, text: &str) {
        let Some(bytes_left) = self.bytes_left.checked_sub(text.len() as u64) else {
            self.bytes_left = 0;
            return;
        };
        self.bytes_left = bytes_left;
        // A full disk must not end the server; its last lines are still in memory.
        let _ = self.file.write_all(text.as_bytes());
    }
}

pub(super) async fn drain(pipe: impl AsyncRead + Unpin, log: Arc<Log>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut pipe).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
        log.line(&line);
        line.clear();
    }
}
