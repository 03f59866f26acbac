//! `start:`: the server of a teacher as a process that lives as long as a run.
//!
//! Spawned from an argv list, never through a shell; in a process group of its own, with a minimal
//! environment. One that ends by itself is started again. Nothing here outlives us: [`Process`] ends its
//! group when it is stopped or dropped, and [`guard`], run between us and the server, ends it when we are
//! killed.

mod guard;
mod log;
mod serving;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Url};
use rustix::process::{Pid, Signal, kill_process_group};
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use guard::guard;
use guard::{GRACE, end_group};
use log::{Log, drain};
use serving::Health;
pub use serving::Serving;

use super::http::{probe_client, words};
use super::secret::{Secrets, is_variable_name, looks_like_credential};
use super::setting::{Setting, duration};
use crate::problem::{KeyPath, Place, Problem};

/// The variables of our own environment that a started server gets; whatever else it needs is
/// written under `env`.
pub const MINIMAL_ENV: [&str; 3] = ["PATH", "HOME", "LANG"];
/// How often a starting server is asked, and how long it may think about it.
const READY_POLL: Duration = Duration::from_millis(100);
const READY_ANSWER: Duration = Duration::from_secs(2);
/// The wait before the first restart, which doubles with each, and the longest: a port or the memory of
/// a graphics card may be held for a moment after its owner ended.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a server that answers after a crash of ours is watched: what the guard of our last server
/// leaves it, and a moment.
const LEFTOVER_WATCH: Duration = GRACE.saturating_add(Duration::from_secs(1));

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
    /// How often in a run a server that ended by itself is started again. One that meets a passing
    /// shortage comes back; one that ends again and again has a fault that no start cures.
    #[serde(default = "restarts_default")]
    pub restarts: u32,
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

fn restarts_default() -> u32 {
    3
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
#[derive(Clone, Debug)]
pub struct Launch {
    /// The pipeline file's folder: where the server runs.
    pub folder: PathBuf,
    /// Where its output is appended, secrets scrubbed.
    pub log: PathBuf,
    /// What to put before the command so that [`guard`] runs it: our own binary and its hidden
    /// command. Empty for none: then kill -9 of us leaves the server behind.
    pub guard: Vec<OsString>,
    /// The variables of [`MINIMAL_ENV`] that are set, with their values.
    pub environment: Vec<(String, String)>,
    pub secrets: Arc<Secrets>,
    /// The last run was killed: what answers at `ready` may be its server, which is about to end.
    pub after_crash: bool,
}

/// A server that we started and keep up, or one that was there already. Dropping it ends it at once.
#[derive(Debug)]
pub struct Process {
    /// `None` for a server that was there already: not ours to watch or to stop.
    keeper: Option<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    task: AbortOnDropHandle<()>,
    stopping: CancellationToken,
    serving: Serving,
}

impl Process {
    /// Starts the server and waits until it is ready.
    ///
    /// # Errors
    /// Something else answers at `ready`; the program cannot be started; it ends, or is not ready in
    /// time, with the last lines it wrote. Whatever was started is stopped.
    pub async fn start(start: &StartFile, launch: Launch) -> Result<Process, Vec<Problem>> {
        let log = Arc::new(Log::open(&launch)?);
        let client = probe_client(READY_ANSWER)
            .map_err(|error| one(at("ready"), "no connection can be set up", error.to_string()))?;
        let launcher = Launcher { start: start.clone(), launch, log, client };
        if launcher.finds_one().await? {
            return Ok(Process { keeper: None });
        }
        let mut server = launcher.spawn()?;
        if let Err(message) = launcher.ready(&mut server).await {
            server.stop().await;
            return Err(vec![launcher.log.explain(Problem::error(at("command"), message))]);
        }
        let (health, serving) = watch::channel(Health::Up(0));
        let stopping = CancellationToken::new();
        let task = tokio::spawn(launcher.keep_up(server, health, stopping.clone()));
        let task = AbortOnDropHandle::new(task);
        Ok(Process { keeper: Some(Keeper { task, stopping, serving: Serving(serving) }) })
    }

    /// What its callers wait for; `None` for a server that was there already.
    pub fn serving(&self) -> Option<Serving> {
        self.keeper.as_ref().map(|keeper| keeper.serving.clone())
    }

    /// Ends the server: SIGTERM to its group, SIGKILL after 5 seconds. A server that was there
    /// already stays.
    pub async fn stop(self) {
        let Some(Keeper { task, stopping, .. }) = self.keeper else { return };
        stopping.cancel();
        // A panic in there has ended the server, too.
        let _ = task.await;
    }
}

/// What it takes to start a server, and to start it again.
struct Launcher {
    start: StartFile,
    launch: Launch,
    log: Arc<Log>,
    client: Client,
}

impl Launcher {
    /// Whether a server is there already that is to be used. After a crash the last run's server is
    /// given the time to end.
    async fn finds_one(&self) -> Result<bool, Vec<Problem>> {
        let ready = &self.start.ready;
        let watched =
            tokio::time::sleep(if self.launch.after_crash { LEFTOVER_WATCH } else { Duration::ZERO });
        tokio::pin!(watched);
        let status = loop {
            let Some(status) = probe(&self.client, ready).await else { return Ok(false) };
            tokio::select! {
                biased;
                () = &mut watched => break status,
                () = tokio::time::sleep(READY_POLL) => {}
            }
        };
        if self.start.reuse && (200..300).contains(&status) {
            return Ok(true);
        }
        let message = format!("something already answers at `{}` (status {status})", words(ready));
        let hint = "stop it, use another port, or set `reuse: true` to use it once it is ready";
        Err(vec![Problem::error(at("ready"), message).hint(hint)])
    }

    fn spawn(&self) -> Result<Server, Vec<Problem>> {
        let mut child = command(&self.start, &self.launch)?.spawn().map_err(|error| {
            let program = words(self.start.command.first().map_or("", String::as_str));
            one(at("command"), format!("`{program}` cannot be started"), error.to_string())
        })?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let out = out.map(|pipe| tokio::spawn(drain(pipe, Arc::clone(&self.log))));
        let err = err.map(|pipe| tokio::spawn(drain(pipe, Arc::clone(&self.log))));
        // Waiting for a child closes the input that it still has.
        let parent = child.stdin.take();
        Ok(Server { child, parent, drains: out.into_iter().chain(err).collect() })
    }

    /// Waits until a server is ready; tells why it will not be.
    async fn ready(&self, server: &mut Server) -> Result<(), String> {
        let StartFile { ready, ready_timeout, .. } = &self.start;
        let waiting = server.until_ready(&self.client, ready);
        tokio::time::timeout(*ready_timeout, waiting).await.unwrap_or_else(|_| {
            let limit = humantime::format_duration(*ready_timeout);
            Err(format!("the server did not answer at `{}` within {limit}", words(ready)))
        })
    }

    /// Starts a server again when it ends by itself, until that was done as often as it may be.
    async fn keep_up(self, first: Server, health: watch::Sender<Health>, stopping: CancellationToken) {
        let restarts = self.start.restarts;
        let mut server = Ok(first);
        for restart in 1.. {
            let ended = match server {
                Ok(server) => match self.live(server, restart - 1, &health, &stopping).await {
                    Some(ended) => ended,
                    None => return,
                },
                Err(ended) => ended,
            };
            if restart > restarts {
                self.log.note(&ended);
                let last_words = self.log.last_words();
                let told = format!("{ended}; `restarts: {restarts}` allows no further start; {last_words}");
                health.send_replace(Health::Gone(told));
                return;
            }
            health.send_replace(Health::Down);
            self.log.note(&format!("{ended}; restart {restart} of {restarts}"));
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause(restart)) => {}
            }
            server = self.spawn().map_err(|mut problems| problems.remove(0).message);
        }
    }

    /// Sees a server through one of its lives, and tells how that ended; `None` when it was stopped.
    async fn live(
        &self,
        mut server: Server,
        life: u32,
        health: &watch::Sender<Health>,
        stopping: &CancellationToken,
    ) -> Option<String> {
        let living = async {
            // The first life begins ready.
            if life > 0
                && let Err(why) = self.ready(&mut server).await
            {
                return why;
            }
            health.send_replace(Health::Up(life));
            server.end().await
        };
        let ended = tokio::select! {
            biased;
            () = stopping.cancelled() => None,
            ended = living => Some(ended),
        };
        server.stop().await;
        ended
    }
}

/// The wait before a restart, counted from 1.
fn pause(restart: u32) -> Duration {
    RESTART_PAUSE.saturating_mul(1 << (restart - 1).min(16)).min(RESTART_PAUSE_MAX)
}

/// One life of a server of ours. Dropping it ends it at once.
#[derive(Debug)]
struct Server {
    child: Child,
    /// What its guard reads, if it has one: closing it ends the server.
    parent: Option<ChildStdin>,
    drains: Vec<JoinHandle<()>>,
}

impl Server {
    /// Why the server is not running any more; `None` while it is.
    fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("the server ended by itself: {status}")),
            Err(error) => Some(format!("the server cannot be watched: {error}")),
        }
    }

    /// Waits for the server to end by itself, and tells how it did.
    async fn end(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => format!("the server ended by itself: {status}"),
            Err(error) => format!("the server cannot be watched: {error}"),
        }
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

    /// Ends what is left of the server, and waits for its last words.
    async fn stop(mut self) {
        if self.parent.take().is_some() {
            // The guard takes the grace for itself; it is killed only if it is stuck.
            if tokio::time::timeout(GRACE + Duration::from_secs(2), self.child.wait()).await.is_err() {
                let _ = self.child.kill().await;
            }
        } else if let Some(group) = group_of(&self.child) {
            let ended = tokio::task::spawn_blocking(move || end_group(group, GRACE));
            let _ = tokio::join!(self.child.wait(), ended);
        }
        // A stray heir of the pipe must not hold us.
        for drain in std::mem::take(&mut self.drains) {
            let _ = tokio::time::timeout(Duration::from_millis(200), drain).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A guard sees its input closed, and needs no more.
        if self.parent.is_none()
            && let Some(group) = group_of(&self.child)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The status with which a URL answers; `None` for no answer.
async fn probe(client: &Client, url: &str) -> Option<u16> {
    Some(client.get(url).send().await.ok()?.status().as_u16())
}

fn command(start: &StartFile, launch: &Launch) -> Result<Command, Vec<Problem>> {
    let folder = std::path::absolute(&launch.folder)
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::path::Path;

    use serde_json::json;

    use super::guard::POLL;
    use super::*;

    /// A URL that drops the first `deaf` connections and answers all later ones with 200.
    fn answers_after(deaf: usize) -> String {
        answers(deaf, usize::MAX)
    }

    /// The same, of which nothing is left after so many answers.
    fn answers(deaf: usize, answers: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().skip(deaf).take(answers) {
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

    fn launch(folder: &Path, guarded: bool) -> Launch {
        Launch {
            folder: folder.to_owned(),
            log: folder.join("logs/server.log"),
            guard: GUARD.iter().filter(|_| guarded).map(OsString::from).collect(),
            environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            secrets: Arc::new(Secrets::load(["KEY"], |_| Some("very-secret".to_owned()))),
            after_crash: false,
        }
    }

    fn script(script: &str, ready: &str, more: serde_json::Value) -> StartFile {
        let mut config = json!({ "command": ["sh", "-c", script], "ready": ready, "ready_timeout": "2s" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(config).unwrap()
    }

    fn log(folder: &Path) -> String {
        std::fs::read_to_string(folder.join("logs/server.log")).unwrap_or_default()
    }

    /// Starts a shell script; what it wrote is in the returned log.
    async fn start(
        text: &str,
        deaf: usize,
        more: serde_json::Value,
        guarded: bool,
    ) -> (Result<Process, Vec<Problem>>, String) {
        let folder = tempfile::tempdir().unwrap();
        let config = script(text, &answers_after(deaf), more);
        let process = Process::start(&config, launch(folder.path(), guarded)).await;
        (process, log(folder.path()))
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
            let process = process.unwrap();
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
        assert!(process.serving().is_none());
        process.stop().await;
    }

    #[tokio::test]
    async fn a_server_that_ends_is_started_again_as_often_as_it_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let config = script("echo pid=$$; exec sleep 60", &answers_after(1), json!({ "restarts": 1 }));
        let process = Process::start(&config, launch(folder.path(), false)).await.unwrap();
        let serving = process.serving().unwrap();
        let killed = async |life: u32| {
            assert_eq!(serving.up().await, Ok(life));
            let pid = loop {
                let log = log(folder.path());
                match log.split("pid=").nth(life as usize + 1).and_then(|rest| rest.split_once('\n')) {
                    Some((pid, _)) => break pid.to_owned(),
                    None => tokio::time::sleep(POLL).await,
                }
            };
            rustix::process::kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL)
                .unwrap();
            assert!(serving.ended(life).await);
        };
        killed(0).await;
        killed(1).await;
        let told = serving.up().await.unwrap_err();
        for expected in ["signal: 9", "; `restarts: 1` allows no further start; it wrote last: pid="] {
            assert!(told.contains(expected), "{told}");
        }
        let log = log(folder.path());
        assert!(
            log.contains("\ntextmill: the server ended by itself: signal: 9 (SIGKILL); restart 1 of 1\n"),
            "{log}"
        );
        process.stop().await;
    }

    #[tokio::test]
    async fn a_server_that_does_not_come_back_is_given_up() {
        let once = "[ -e again ] && { echo oops; exit 3; }; : > again; sleep 0.2";
        let ended = async |stopped: bool| {
            let folder = tempfile::tempdir().unwrap();
            let config = script(once, &answers(1, 1), json!({ "restarts": 2 }));
            let process = Process::start(&config, launch(folder.path(), false)).await.unwrap();
            let serving = process.serving().unwrap();
            assert!(serving.ended(0).await);
            if stopped {
                process.stop().await;
            }
            (serving.up().await.unwrap_err(), log(folder.path()))
        };
        let (told, _) = ended(false).await;
        assert!(told.starts_with("the server ended by itself: exit status: 3; `restarts: 2`"), "{told}");
        assert!(told.contains("it wrote last: oops | oops; all it wrote is in `"), "{told}");
        let (told, log) = ended(true).await;
        assert!(told == "the server was stopped" && log.ends_with("restart 1 of 2\n"), "{told}: {log}");
    }

    #[tokio::test]
    async fn a_server_that_a_killed_run_left_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let config = script("exit 3", &answers(0, 3), json!({ "reuse": true }));
        let launch = Launch { after_crash: true, ..launch(folder.path(), false) };
        let problem = Process::start(&config, launch).await.unwrap_err().remove(0);
        assert!(problem.message.contains("ended by itself: exit status: 3"), "{problem:?}");
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
