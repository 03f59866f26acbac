//! The watch over a step's processes: a process of its own that ends them when we are killed.
//!
//! A program that hangs does not see its input close, so somebody who outlives us must end it. The watch is
//! told the process groups that live, over a pipe that only we hold the other end of. Starts no program of the
//! user's and never decides that one takes too long.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

/// The way to the watch; dropping it ends the watch with all that it still knows.
pub struct Watch {
    process: Child,
    input: Mutex<Option<ChildStdin>>,
}

impl Watch {
    /// Starts the watch: `argv` is our own binary and its hidden command.
    pub fn start(argv: &[OsString]) -> io::Result<Watch> {
        let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        // In a group of its own, so that Ctrl-C in a terminal does not end it before us.
        let mut process = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let input = Mutex::new(process.stdin.take());
        Ok(Watch { process, input })
    }

    /// A group is alive.
    pub fn begins(&self, group: Pid) {
        self.tell('+', group);
    }

    /// A group was ended; its number may be another's from now on.
    pub fn ends(&self, group: Pid) {
        self.tell('-', group);
    }

    fn tell(&self, sign: char, group: Pid) {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(input) = &mut *input {
            // Without a watch the run goes on as before: it only matters when we are killed.
            let _ = input.write_all(format!("{sign}{}\n", group.as_raw_pid()).as_bytes());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.input.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.process.wait();
    }
}

/// What the watch does: reads groups until its input ends, then kills those that were not ended.
pub fn serve(input: impl Read) {
    let mut alive = BTreeSet::new();
    for line in BufReader::new(input).lines() {
        // An unreadable pipe is as good as a closed one.
        let Ok(line) = line else { break };
        let Some((sign, number)) = line.split_at_checked(1) else { continue };
        match (sign, number.parse()) {
            ("+", Ok(number)) => drop(alive.insert(number)),
            ("-", Ok(number)) => drop(alive.remove(&number)),
            _ => {}
        }
    }
    for group in alive.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").process_group(0).spawn().unwrap()
    }

    #[test]
    fn what_was_not_ended_is_killed_and_nothing_else() {
        let (mut left, mut ended) = (sleeper(), sleeper());
        serve(format!("+{}\n+{}\nnonsense\n-{}\n", left.id(), ended.id(), ended.id()).as_bytes());
        assert!(left.wait().unwrap().code().is_none());
        assert!(ended.try_wait().unwrap().is_none());
        ended.kill().unwrap();
        ended.wait().unwrap();
    }
}
