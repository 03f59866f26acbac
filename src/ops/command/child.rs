//! A child process that answers rows: one line in, one line out.
//!
//! Starts it without a shell and with a minimal environment, keeps its last words, ends it with all that it
//! started. Never reads what a line says; knows no rows and no limits of time.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use super::watch::Watch;
use crate::kit::Commands;

/// Longest line in either direction.
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// What is kept of a child's words on stderr: enough for a stack trace.
const TAIL_BYTES: usize = 4 << 10;
/// What a child that closed its output has to end by itself, and its last words to arrive.
const GRACE: Duration = Duration::from_millis(300);

/// What is started, and where.
pub struct Program {
    /// The program and its arguments; a program with a `/` in it is relative to the folder.
    pub argv: Vec<String>,
    /// An absolute path.
    pub folder: PathBuf,
    pub commands: Arc<Commands>,
}

impl Program {
    /// Starts it; the watch, if there is one, is told of it.
    pub fn start(&self, watch: Option<&Arc<Watch>>) -> io::Result<Child> {
        let (program, arguments) = self.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let program = if program.contains('/') { self.folder.join(program) } else { program.into() };
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .current_dir(&self.folder)
            .env_clear()
            .envs(self.commands.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = pipes else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let tail = Arc::new(Mutex::default());
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let (Some(watch), Some(group)) = (watch, group) {
            watch.begins(group);
        }
        Ok(Child {
            group,
            watch: watch.cloned(),
            process: child,
            input,
            output: BufReader::new(output),
            listening: tokio::spawn(listen(errors, Arc::clone(&tail))),
            tail,
        })
    }
}

/// A running child; dropping it kills it and its process group.
pub struct Child {
    process: tokio::process::Child,
    /// The group that it leads.
    group: Option<Pid>,
    watch: Option<Arc<Watch>>,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Its last words on stderr.
    tail: Arc<Mutex<VecDeque<u8>>>,
    listening: JoinHandle<()>,
}

/// Why a child gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLine {
    Ended,
    /// It wrote something before it was asked.
    TooEarly,
    TooLong,
}

impl Child {
    /// Whether the child ended while nobody asked it.
    pub fn has_ended(&mut self) -> bool {
        // At the end of its output there is nothing, but at once.
        self.output.fill_buf().now_or_never().is_some_and(|bytes| bytes.map_or(true, <[u8]>::is_empty))
    }

    /// Sends a line and waits for one: both without their ends.
    pub async fn ask(&mut self, line: &[u8]) -> Result<Vec<u8>, NoLine> {
        // A line too many would be taken for the answer to the next row, and so on for ever.
        if let Some(Ok([_, ..])) = self.output.fill_buf().now_or_never() {
            return Err(NoLine::TooEarly);
        }
        self.send(line).await.map_err(|_| NoLine::Ended)?;
        let mut answer = Vec::new();
        let mut output = (&mut self.output).take(LINE_BYTES_MAX as u64 + 1);
        output.read_until(b'\n', &mut answer).await.map_err(|_| NoLine::Ended)?;
        match answer.pop() {
            Some(b'\n') => Ok(answer),
            Some(_) if answer.len() == LINE_BYTES_MAX => Err(NoLine::TooLong),
            _ => Err(NoLine::Ended),
        }
    }

    async fn send(&mut self, line: &[u8]) -> io::Result<()> {
        self.input.write_all(line).await?;
        self.input.write_all(b"\n").await?;
        self.input.flush().await
    }

    /// Ends the child: its status, if it is about to end by itself, and its last words.
    pub async fn end(mut self, by_itself: bool) -> (Option<String>, String) {
        let status = if by_itself {
            let ended = tokio::time::timeout(GRACE, self.process.wait()).await;
            ended.ok().and_then(Result::ok).map(|status| status.to_string())
        } else {
            None
        };
        // What it left behind in its group holds its stderr open.
        self.kill();
        let _ = tokio::time::timeout(GRACE, &mut self.listening).await;
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let tail: Vec<u8> = tail.iter().copied().collect();
        (status, String::from_utf8_lossy(&tail).trim().to_owned())
    }

    fn kill(&mut self) {
        // Once only: later the number may be another group's.
        if let Some(group) = self.group.take() {
            let _ = kill_process_group(group, Signal::KILL);
            if let Some(watch) = &self.watch {
                watch.ends(group);
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn listen(mut errors: ChildStderr, tail: Arc<Mutex<VecDeque<u8>>>) {
    let mut buffer = [0; 1 << 10];
    while let Ok(read @ 1..) = errors.read(&mut buffer).await {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(&buffer[..read]);
        let excess = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> Child {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let environment = vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let commands = Arc::new(Commands { environment, watch: Vec::new() });
        Program { argv, folder: std::env::temp_dir(), commands }.start(None).unwrap()
    }

    /// Asks twice and ends the child.
    async fn check(
        script: &str,
        first: Result<&str, NoLine>,
        second: Result<&str, NoLine>,
        end: (Option<&str>, &str),
    ) {
        let mut child = start(script);
        for expected in [first, second] {
            let answer = child.ask(b"hi").await.map(|line| String::from_utf8(line).unwrap());
            assert_eq!(answer.as_deref(), expected.as_ref().copied(), "{script}");
            // What a child writes too early is seen when it is there.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let (status, words) = child.end(second == Err(NoLine::Ended)).await;
        assert_eq!((status.as_deref(), words.as_str()), end, "{script}");
    }

    #[tokio::test]
    async fn lines_are_answered_by_lines() {
        check("exec cat", Ok("hi"), Ok("hi"), (None, "")).await;
        check("read x; echo ${HOME-none}; cat", Ok("none"), Ok("hi"), (None, "")).await;
        let (ended, three) = (Err(NoLine::Ended), Some("exit status: 3"));
        check("read x; echo oops >&2; exit 3", ended, ended, (three, "oops")).await;
        check("read x; echo $x; exit 3", Ok("hi"), ended, (three, "")).await;
        let early = Err(NoLine::TooEarly);
        check("read x; echo 1; echo 2; read x", Ok("1"), early, (None, "")).await;
        let endless = "read x; tr '\\0' x </dev/zero";
        check(endless, Err(NoLine::TooLong), early, (None, "")).await;
    }

    #[tokio::test]
    async fn last_words_are_bounded() {
        let mut child =
            start("read x; i=0; while [ $i -lt 3000 ]; do echo $i >&2; i=$((i+1)); done; echo done");
        assert_eq!(child.ask(b"").await.as_deref(), Ok(&b"done"[..]));
        let (_, words) = child.end(true).await;
        assert!(words.ends_with("2998\n2999") && words.len() <= TAIL_BYTES, "{words}");
    }

    #[tokio::test]
    async fn a_dropped_child_takes_its_group_with_it() {
        let mut child = start("read x; sleep 60 & echo $!; wait");
        let pid = String::from_utf8(child.ask(b"").await.unwrap()).unwrap();
        drop(child);
        for _ in 0..100 {
            // A corpse that nobody waited for counts as gone.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat
                .rsplit(')')
                .next()
                .is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with('Z'))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("process {pid} is still there");
    }
}
