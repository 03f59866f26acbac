//! A temporary folder to run the real binary in, and a fake teacher to run it against.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

pub const BINARY: &str = env!("CARGO_BIN_EXE_textmill");

/// A folder of its own, removed at the end.
pub struct Workspace(tempfile::TempDir);

/// What a finished command said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Workspace {
    pub fn new() -> Workspace {
        Workspace(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }

    /// A command in the folder, with nothing of our environment that could change what it does.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).current_dir(self.path()).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// The JSON that a command prints; it must end with this code.
    pub fn json(&self, args: &[&str], code: i32) -> Value {
        let said = self.run(args);
        assert_eq!(said.code, Some(code), "{}\n{}", said.stdout, said.stderr);
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {}", said.stdout))
    }

    /// Starts a run of `p.yaml` and kills it after a while; whether it was still running.
    pub fn killed(&self, after: Duration) -> bool {
        let mut run = self.command(&["run", "p.yaml", "--json"]);
        let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(after);
        let running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        running
    }

    /// All files below a folder but manifests, by path: what must be the same for the same replies.
    pub fn files(&self, folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(folder, folder, &mut files);
        files.remove(Path::new("manifest.json"));
        files
    }
}

impl Said {
    /// Fails the test unless the command ended so; hands itself on.
    #[track_caller]
    pub fn ended(self, code: i32) -> Said {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Fails the test unless stderr has all of these.
    #[track_caller]
    pub fn says(self, expected: &[&str]) -> Said {
        for words in expected {
            assert!(self.stderr.contains(words), "no `{words}` in {self:#?}");
        }
        self
    }

    /// Fails the test unless stdout has all of these.
    #[track_caller]
    pub fn prints(self, expected: &[&str]) -> Said {
        for words in expected {
            assert!(self.stdout.contains(words), "no `{words}` in {self:#?}");
        }
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            files.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
        }
    }
}

/// A fake teacher in a process of its own, ended with the guard.
pub struct FakeTeacher {
    child: Child,
    pub url: String,
}

impl FakeTeacher {
    pub fn start(args: &[&str]) -> FakeTeacher {
        let mut child = Command::new(BINARY)
            .arg("teacher")
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        FakeTeacher { child, url: url.trim().to_owned() }
    }

    pub fn stats(&self) -> Value {
        let host = self.url.trim_start_matches("http://").trim_end_matches("/v1");
        let mut stream = TcpStream::connect(host).unwrap();
        write!(stream, "GET /stats HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let body = reply.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap()
    }
}

impl Drop for FakeTeacher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rows for a `files:` source, each with a number and a topic.
pub fn rows(count: usize) -> String {
    (0..count).map(|n| format!("{{\"n\": {n}, \"topic\": \"topic {n}\"}}\n")).collect()
}

/// Small pseudo-random numbers, other ones in each process: moments at which something is killed.
pub struct Moments(u64);

impl Moments {
    pub fn new() -> Moments {
        Moments(0x9E37_79B9_7F4A_7C15 ^ u64::from(std::process::id()))
    }

    pub fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Whether a process is there and no corpse.
pub fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Waits until something holds, at most ten seconds.
#[track_caller]
pub fn until(otherwise: &str, holds: &dyn Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{otherwise}");
}
