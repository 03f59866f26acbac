//! `start:`: the server of a teacher as a process that lives as long as a run.
//!
//! Spawned from an argv list, never through a shell; in a process group of its own, with a minimal
//! environment. Nothing here outlives us: [`Process`] ends its group when it is stopped or dropped,
//! and [`guard`], run between us and the server, ends it when we are killed.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, Url};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::http::{probe_client, words};
use super::secret::{Secrets, is_variable_name, looks_like_credential};
use super::setting::{Setting, duration};
use crate::problem::{KeyPath, Place, Problem};

/// The variables of our own environment that a started server gets; whatever else it needs is
/// written under `env`.
pub const MINIMAL_ENV: [&str; 3] = ["PATH", "HOME", "LANG"];
/// What a group has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// How often a starting server is asked, and how long it may think about it.
const READY_POLL: Duration = Duration::from_millis(100);
const READY_ANSWER: Duration = Duration::from_secs(2);
/// What is kept of a server's words: a longer line is broken, a longer log ends.
const LINE_BYTES_MAX: u64 = 16 << 10;
const LOG_BYTES_MAX: u64 = 64 << 20;
const TAIL_LINES: usize = 20;

/// A command that serves a teacher while a run needs it.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(rename = "start", deny_unknown_fields)]
pub struct StartFile {
    /// The program and its arguments, one list item each; no shell reads them. A program with a `/`
    /// in it is relative to the pipeline file.
    pub command: Vec<String>,
    /// A URL that answers with a 2xx status once the server is ready.
    pub ready: String,
    /// The time that may take.
    #[serde(default = "ready_timeout_default", deserialize_with = "duration")]
    #[schemars(with = "String", default = "ready_timeout_text")]
    pub ready_timeout: Duration,
    /// Environment variables for the server, beside PATH, HOME and LANG: name to text, or to
    /// `{ env: NAME }`.
    #[serde(default)]
    pub env: BTreeMap<String, Setting>,
    /// Use a server that already answers at `ready` instead of refusing to start a second one. It is
    /// not stopped at the end.
    #[serde(default)]
    pub reuse: bool,
}

/// Long enough to load a model of a few gigabytes from a disk.
fn ready_timeout_default() -> Duration {
    Duration::from_secs(120)
}

fn ready_timeout_text() -> String {
    "2m".to_owned()
}

fn at(key: &str) -> Place {
    Place::Value(KeyPath::root().join(key))
}

fn one(place: Place, message: impl Into<String>, cause: String) -> Vec<Problem> {
    vec![Problem::error(place, message).cause(cause)]
}

impl StartFile {
    /// Everything wrong with the settings, at paths below `start`. Pure.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.command.first().is_none_or(String::is_empty) {
            problems.push(
                Problem::error(at("command"), "`command` names no program")
                    .hint("write the program and its arguments: `[llama-server, --port, \"8080\"]`"),
            );
        }
        for (index, word) in self.command.iter().enumerate() {
            let place = Place::Value(KeyPath::root().join("command").join(index));
            if looks_like_credential(word) {
                problems.push(
                    Problem::error(place, "`command` has a credential written in it")
                        .hint("hand it over under `env` as `{ env: NAME }`"),
                );
            } else if word.contains('\0') {
                problems.push(Problem::error(place, "`command` has a NUL character in it"));
            }
        }
        match Url::parse(&self.ready) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                problems.push(Problem::error(at("ready"), "`ready` is neither an http nor an https URL"));
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                problems.push(Problem::error(at("ready"), "`ready` has a user name or password in it"));
            }
            Ok(_) => {}
            Err(error) => problems.push(
                Problem::error(at("ready"), format!("`ready` is not a URL: {error}"))
                    .hint("such as `http://127.0.0.1:8080/health`"),
            ),
        }
        for (name, value) in &self.env {
            let place = Place::Value(KeyPath::root().join("env").join(name.as_str()));
            match value {
                _ if !is_variable_name(name) => {
                    problems.push(Problem::error(place, "this is not the name of an environment variable"));
                }
                Setting::Env(variable) if !is_variable_name(variable) => {
                    problems.push(Problem::error(place, "`env` is not the name of an environment variable"));
                }
                Setting::Text(text) if looks_like_credential(text) => problems.push(
                    Problem::error(place, format!("`{name}` has a credential written in the file"))
                        .hint(format!("write `{name}: {{ env: NAME }}`")),
                ),
                _ => {}
            }
        }
        problems
    }

    /// The environment variables whose values the server gets.
    pub fn env_names(&self) -> Vec<&str> {
        self.env.values().filter_map(Setting::env_name).collect()
    }
}

/// What starting a server takes beside its settings.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The pipeline file's folder: where the server runs.
    pub folder: &'a Path,
    /// Where its output is appended, secrets scrubbed.
    pub log: &'a Path,
    /// What to put before the command so that [`guard`] runs it: our own binary and its hidden
    /// command. Empty for none: then kill -9 of us leaves the server behind.
    pub guard: &'a [OsString],
    /// The variables of [`MINIMAL_ENV`] that are set, with their values.
    pub environment: &'a [(String, String)],
    pub secrets: Arc<Secrets>,
}

/// A server that we started, or one that was there already. Dropping it ends it at once.
#[derive(Debug)]
pub struct Process {
    /// `None` for a server that was there already.
    child: Option<Child>,
    /// Closing its input is what ends it.
    guarded: bool,
    log: Arc<Log>,
    drains: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts the server and waits until it is ready.
    ///
    /// # Errors
    /// Something else answers at `ready`; the program cannot be started; it ends, or is not ready in
    /// time, with the last lines it wrote. Whatever was started is stopped.
    pub async fn start(start: &StartFile, launch: &Launch<'_>) -> Result<Process, Vec<Problem>> {
        let log = Arc::new(Log::open(launch)?);
        let client = probe_client(READY_ANSWER)
            .map_err(|error| one(at("ready"), "no connection can be set up", error.to_string()))?;
        let drains = Vec::new();
        match probe(&client, &start.ready).await {
            Some(200..300) if start.reuse => {
                return Ok(Process { child: None, guarded: false, log, drains });
            }
            Some(status) => {
                let message =
                    format!("something already answers at `{}` (status {status})", words(&start.ready));
                let hint = "stop it, use another port, or set `reuse: true` to use it once it is ready";
                return Err(vec![Problem::error(at("ready"), message).hint(hint)]);
            }
            None => {}
        }
        let child = command(start, launch)?.spawn().map_err(|error| {
            let program = words(start.command.first().map_or("", String::as_str));
            one(at("command"), format!("`{program}` cannot be started"), error.to_string())
        })?;
        let mut process = Process { child: Some(child), guarded: !launch.guard.is_empty(), log, drains };
        process.drain();
        let waited =
            tokio::time::timeout(start.ready_timeout, process.until_ready(&client, &start.ready)).await;
        let message = match waited {
            Ok(Ok(())) => return Ok(process),
            Ok(Err(message)) => message,
            Err(_) => {
                let limit = humantime::format_duration(start.ready_timeout);
                format!("the server did not answer at `{}` within {limit}", words(&start.ready))
            }
        };
        let log = Arc::clone(&process.log);
        process.stop().await;
        Err(vec![log.explain(Problem::error(at("command"), message), launch.log)])
    }

    /// Why the server is not running any more; `None` while it is.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait();
        match status {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("the server ended by itself: {status}")),
            Err(error) => Some(format!("the server cannot be watched: {error}")),
        }
    }

    /// Ends the server: SIGTERM to its group, SIGKILL after 5 seconds. A server that was there
    /// already stays.
    pub async fn stop(mut self) {
        let drains = std::mem::take(&mut self.drains);
        let Some(mut child) = self.child.take() else { return };
        if self.guarded {
            drop(child.stdin.take());
            // The guard takes the grace for itself; it is killed only if it is stuck.
            if tokio::time::timeout(GRACE + Duration::from_secs(2), child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        } else if let Some(group) = group_of(&child) {
            let ended = tokio::task::spawn_blocking(move || end_group(group, GRACE));
            let _ = tokio::join!(child.wait(), ended);
        }
        // The last words; a stray heir of the pipe must not hold us.
        for drain in drains {
            let _ = tokio::time::timeout(Duration::from_millis(200), drain).await;
        }
    }

    fn drain(&mut self) {
        let Some(child) = &mut self.child else { return };
        let (out, err) = (child.stdout.take(), child.stderr.take());
        self.drains.extend(out.map(|pipe| tokio::spawn(drain(pipe, Arc::clone(&self.log)))));
        self.drains.extend(err.map(|pipe| tokio::spawn(drain(pipe, Arc::clone(&self.log)))));
    }

    async fn until_ready(&mut self, client: &Client, url: &str) -> Result<(), String> {
        loop {
            let answer = probe(client, url).await;
            // Asked after the answer: it may be a stranger's, who took the port from our server.
            if let Some(ended) = self.ended() {
                return Err(ended);
            }
            if matches!(answer, Some(200..300)) {
                return Ok(());
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A guard sees its input closed, and needs no more.
        if let (Some(child), false) = (&self.child, self.guarded)
            && let Some(group) = group_of(child)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The status with which a URL answers; `None` for no answer.
async fn probe(client: &Client, url: &str) -> Option<u16> {
    Some(client.get(url).send().await.ok()?.status().as_u16())
}

fn command(start: &StartFile, launch: &Launch<'_>) -> Result<Command, Vec<Problem>> {
    let folder = std::path::absolute(launch.folder)
        .map_err(|error| one(at("command"), "the folder to start in is unknown", error.to_string()))?;
    let Some((program, arguments)) = start.command.split_first() else {
        return Err(vec![Problem::error(at("command"), "`command` names no program")]);
    };
    let program = match program.contains('/') {
        true => {
            let full = folder.join(program.strip_prefix("./").unwrap_or(program));
            if !full.is_file() {
                let place = Place::Value(KeyPath::root().join("command").join(0));
                let hint = format!("looked for {}; paths are relative to the pipeline file", full.display());
                return Err(vec![
                    Problem::error(place, format!("there is no program `{program}`")).hint(hint),
                ]);
            }
            full.into_os_string()
        }
        false => OsString::from(program),
    };
    let mut words = launch.guard.iter().cloned().chain([program]).chain(arguments.iter().map(OsString::from));
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir(folder).env_clear();
    command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
    for (name, value) in &start.env {
        match value {
            Setting::Text(text) => command.env(name, text),
            Setting::Env(variable) => {
                let Some(value) = launch.secrets.get(variable) else {
                    let place = Place::Value(KeyPath::root().join("env").join(name.as_str()));
                    let message = format!("the environment variable `{variable}` is not set");
                    return Err(vec![Problem::error(place, message)]);
                };
                command.env(name, value.expose_secret())
            }
        };
    }
    command.stdin(if launch.guard.is_empty() { Stdio::null() } else { Stdio::piped() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    Ok(command)
}

/// The process group that a child leads; `None` once it was waited for, when its number may be
/// somebody else's.
fn group_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

/// SIGTERM to a group, and SIGKILL to what is left of it after `grace`. Blocks; somebody else must
/// wait for the group's leader, which counts as long as it was not waited for.
fn end_group(group: Pid, grace: Duration) {
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

/// The words of a server: a bounded file, and its last lines for error messages.
#[derive(Debug)]
struct Log {
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
    fn open(launch: &Launch<'_>) -> Result<Log, Vec<Problem>> {
        let wrong = |error: &io::Error| {
            let message = format!("the log `{}` cannot be written", launch.log.display());
            one(at("command"), message, error.to_string())
        };
        if let Some(folder) = launch.log.parent() {
            std::fs::create_dir_all(folder).map_err(|error| wrong(&error))?;
        }
        let file =
            OpenOptions::new().append(true).create(true).open(launch.log).map_err(|error| wrong(&error))?;
        let length = file.metadata().map_err(|error| wrong(&error))?.len();
        let bytes_left = LOG_BYTES_MAX.saturating_sub(length);
        let pages = Mutex::new(Pages { file, bytes_left, tail: VecDeque::new() });
        Ok(Log { pages, secrets: Arc::clone(&launch.secrets) })
    }

    fn line(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let text = self.secrets.scrub(&text);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.tail.len() == TAIL_LINES {
            pages.tail.pop_front();
        }
        pages.tail.push_back(words(&text));
        let Some(bytes_left) = pages.bytes_left.checked_sub(text.len() as u64) else {
            pages.bytes_left = 0;
            return;
        };
        pages.bytes_left = bytes_left;
        // A full disk must not end the server; its last lines are still in memory.
        let _ = pages.file.write_all(text.as_bytes());
    }

    /// Adds the last lines to a problem.
    fn explain(&self, mut problem: Problem, path: &Path) -> Problem {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        problem.causes.extend(pages.tail.iter().map(|line| format!("it wrote: {line}")));
        problem.hint(format!("all it wrote is in `{}`", path.display()))
    }
}

async fn drain(pipe: impl AsyncRead + Unpin, log: Arc<Log>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut pipe).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
        log.line(&line);
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;

    /// A URL that drops the first `deaf` connections and answers all later ones with 200.
    fn answers_after(deaf: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().skip(deaf) {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        });
        url
    }

    const NEVER: usize = usize::MAX;
    /// What `textmill guard` does, for tests that have no binary.
    const GUARD: [&str; 4] = ["sh", "-c", "\"$@\" & cat; kill $!; wait", "sh"];

    /// Starts a shell script; what it wrote is in the returned log.
    async fn start(
        script: &str,
        deaf: usize,
        more: serde_json::Value,
        guarded: bool,
    ) -> (Result<Process, Vec<Problem>>, String) {
        let mut config =
            json!({ "command": ["sh", "-c", script], "ready": answers_after(deaf), "ready_timeout": "2s" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let config: StartFile = serde_json::from_value(config).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("logs/server.log");
        let guard: Vec<OsString> = GUARD.iter().filter(|_| guarded).map(OsString::from).collect();
        let launch = Launch {
            folder: folder.path(),
            log: &log,
            guard: &guard,
            environment: &[("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            secrets: Arc::new(Secrets::load(["KEY"], |_| Some("very-secret".to_owned()))),
        };
        let process = Process::start(&config, &launch).await;
        (process, std::fs::read_to_string(&log).unwrap_or_default())
    }

    /// The problem that starting ends in.
    async fn check(script: &str, deaf: usize, more: serde_json::Value, expected: &str) -> Problem {
        let problem = start(script, deaf, more, false).await.0.unwrap_err().remove(0);
        assert!(problem.message.contains(expected), "{problem:?}");
        problem
    }

    /// Whether a process is no more; a corpse that nobody waited for counts as gone.
    fn gone(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with('Z'))
    }

    async fn wait_until_gone(pid: &str) {
        for _ in 0..100 {
            if gone(pid) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        panic!("process {pid} is still there");
    }

    #[tokio::test]
    async fn a_server_lives_until_it_is_stopped() {
        // Four deaf connections: some time for the script to write.
        let script = "env; sleep 60 & echo pid=$!; wait";
        let more = json!({ "env": { "A": "b", "TOKEN": { "env": "KEY" } } });
        let live = async |guarded: bool, stopped: bool| {
            let (process, log) = start(script, 4, more.clone(), guarded).await;
            let mut process = process.unwrap();
            assert_eq!(process.ended(), None);
            assert!(
                log.contains("A=b\n") && log.contains("TOKEN=[secret KEY]\n") && !log.contains("HOME="),
                "{log}"
            );
            let pid = log.split("pid=").nth(1).unwrap().trim().to_owned();
            assert!(!gone(&pid));
            if stopped {
                process.stop().await;
            } else {
                drop(process);
            }
            if guarded {
                // The stand-in for the guard ends its child only; the grandchild is the test's to end.
                let grandchild = Pid::from_raw(pid.parse().unwrap()).unwrap();
                let _ = rustix::process::kill_process(grandchild, Signal::KILL);
            }
            wait_until_gone(&pid).await;
        };
        tokio::join!(live(false, true), live(false, false), live(true, true), live(true, false));
    }

    #[tokio::test]
    async fn what_keeps_a_server_from_starting_is_told() {
        let ended = check("echo oops >&2; exit 3", NEVER, json!({}), "ended by itself: exit status: 3").await;
        assert_eq!(ended.causes, ["it wrote: oops"]);
        check("exec sleep 60", NEVER, json!({ "ready_timeout": "200ms" }), "within 200ms").await;
        check("sleep 60", 0, json!({}), "something already answers").await;
        check("", NEVER, json!({ "command": ["no-such-program"] }), "`no-such-program` cannot be started")
            .await;
        check("", NEVER, json!({ "env": { "A": { "env": "UNSET_HERE" } } }), "`UNSET_HERE` is not set").await;
    }

    #[tokio::test]
    async fn a_server_that_is_there_can_be_used() {
        let process = start("exit 1", 0, json!({ "reuse": true }), false).await.0.unwrap();
        assert!(process.child.is_none());
        process.stop().await;
    }

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

    #[test]
    fn settings_are_checked() {
        let start: StartFile = serde_json::from_value(json!({
            "command": ["serve", "sk-abcdefghijkl"], "ready": "localhost:80", "env": { "a-b": "", "A": { "env": "" } },
        }))
        .unwrap();
        let problems: Vec<String> = start.problems().into_iter().map(|problem| problem.message).collect();
        let expected = [
            "`command` has a credential written in it",
            "`ready` is neither an http nor an https URL",
            "`env` is not the name of an environment variable",
            "this is not the name of an environment variable",
        ];
        assert_eq!(problems, expected);
    }
}
