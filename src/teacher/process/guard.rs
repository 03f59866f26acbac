//! Ends a process group: the server's when it is stopped, and under [`guard`] when we are killed.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// What a group has between SIGTERM and SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(5);
pub(super) const POLL: Duration = Duration::from_millis(20);

/// SIGTERM to a group, and SIGKILL to what is left of it after `grace`. Blocks; somebody else must
/// wait for the group's leader, which counts as long as it was not waited for.
pub(super) fn end_group(group: Pid, grace: Duration) {
    let _ = kill_process_group(group, Signal::TERM);
    let mut left = grace;
    while test_kill_process_group(group).is_ok() {
        if left.is_zero() {
            let _ = kill_process_group(group, Signal::KILL);
            return;
        }
        std::thread::sleep(POLL);
        left = left.saturating_sub(POLL);
    }
}

/// Runs a command until it ends or `parent` does: reads `parent` (its standard input, a pipe that
/// only we hold the other end of) and ends the command's group at its end. The last line of
/// defence against kill -9, without unsafe code.
///
/// Returns the exit code: the command's, or 128 and its signal's number.
///
/// # Errors
/// The command cannot be started.
pub fn guard(argv: &[OsString], mut parent: impl Read + Send + 'static) -> io::Result<u8> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no command to guard"));
    };
    let mut command = std::process::Command::new(program);
    let spawned = command.args(arguments).stdin(Stdio::null()).process_group(0).spawn();
    let mut child = spawned.map_err(|error| {
        io::Error::new(error.kind(), format!("`{}` cannot be started: {error}", program.display()))
    })?;
    let group = Pid::from_child(&child);
    std::thread::spawn(move || {
        // An unreadable pipe is as good as a closed one.
        let _ = io::copy(&mut parent, &mut io::sink());
        end_group(group, GRACE);
    });
    let status = child.wait()?;
    // What it left behind in its group.
    end_group(group, GRACE);
    Ok(exit_code(status))
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_ignores_sigterm_is_killed() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "trap '' TERM; echo up; sleep 60"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
        end_group(Pid::from_child(&child), Duration::from_millis(60));
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_guard_ends_its_command_when_its_parent_does() {
        let argv = |script: &str| ["sh", "-c", script].map(OsString::from);
        let (reader, writer) = io::pipe().unwrap();
        let guarding = std::thread::spawn(move || guard(&argv("sleep 60 & sleep 60"), reader));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!guarding.is_finished());
        drop(writer);
        assert_eq!(guarding.join().unwrap().unwrap(), 128 + 15);
        let (reader, _writer) = io::pipe().unwrap();
        assert_eq!(guard(&argv("exit 7"), reader).unwrap(), 7);
        assert!(guard(&[], io::empty()).is_err());
    }
}
