//! What users are told: each `tests/problems/<name>.yaml` is a broken pipeline or one whose rows end badly.
//!
//! Beside it stand the golden texts: `<name>.stderr`, all that is said; for a run that comes to an end,
//! `<name>.ends`, the row counts and each row that was not kept with its reason. `<name>/` holds files that
//! lie beside the pipeline. `UPDATE_PROBLEMS=1` writes the golden texts anew.
//!
//! The comments at a file's top say how it is run; all are optional:
//! - `# run: check` (the default) or `# run: run`, which has `--json` so that no time is printed;
//! - `# args: ...` more arguments; `# exit: 2` the exit code that must come (2 by default);
//! - `# teacher: ...` arguments of the fake teacher whose URL replaces `$TEACHER`; `$REDIRECT` becomes the
//!   URL of a server that sends everybody on;
//! - `# file: other.yaml` another name for the pipeline on the command line;
//! - `# files: 64` the most files that the process may open;
//! - `# before: run ...` a command to run first, with the files of `<name>.before/`; those that also lie in
//!   `<name>/` are replaced after it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use textmill::data::read::read_dataset;

use crate::workspace::{BINARY, FakeTeacher, Said, Workspace};

const CASES_MIN: usize = 60;
/// The pipeline's name in its workspace.
const PIPELINE: &str = "p.yaml";
/// Rows of one kind that a golden text shows.
const ROWS_SHOWN_MAX: usize = 5;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/problems")
}

/// A case as its file describes it.
struct Case {
    name: String,
    bytes: Vec<u8>,
    run: String,
    args: Vec<String>,
    exit: i32,
    teacher: Vec<String>,
    file: String,
    files_max: Option<u32>,
    before: Option<Vec<String>>,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

impl Case {
    fn read(path: &Path) -> Case {
        let bytes = std::fs::read(path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (run, args, teacher) = ("check".to_owned(), Vec::new(), Vec::new());
        let file = PIPELINE.to_owned();
        let mut case = Case { name, run, args, exit: 2, teacher, file, files_max: None, before: None, bytes };
        let text = String::from_utf8_lossy(&case.bytes).into_owned();
        for line in text.lines().map_while(|line| line.strip_prefix("# ")) {
            match line.split_once(": ") {
                Some(("run", run)) => case.run = run.to_owned(),
                Some(("args", args)) => case.args = words(args),
                Some(("exit", code)) => case.exit = code.parse().unwrap(),
                Some(("teacher", args)) => case.teacher = words(args),
                Some(("file", file)) => case.file = file.to_owned(),
                Some(("files", files)) => case.files_max = Some(files.parse().unwrap()),
                Some(("before", command)) => case.before = Some(words(command)),
                _ => {}
            }
        }
        case
    }

    /// The pipeline with the URLs of its servers in it.
    fn pipeline(&self, servers: &mut Servers) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(&self.bytes) else { return self.bytes.clone() };
        let mut text = text.to_owned();
        if text.contains("$TEACHER") {
            text = text.replace("$TEACHER", servers.teacher(&self.teacher));
        }
        if text.contains("$REDIRECT") {
            text = text.replace("$REDIRECT", servers.redirect());
        }
        text.into_bytes()
    }

    /// Runs the case; what it said, and how its rows ended if it came so far.
    fn play(&self, servers: &mut Servers) -> (Said, Option<String>) {
        let workspace = Workspace::new();
        let pipeline = self.pipeline(servers);
        std::fs::write(workspace.path().join(PIPELINE), &pipeline).unwrap();
        if let Some(before) = &self.before {
            copy(&folder().join(format!("{}.before", self.name)), workspace.path());
            let args: Vec<&str> = before.iter().map(String::as_str).collect();
            let (command, more) = args.split_first().unwrap();
            let mut args = vec![*command, PIPELINE];
            args.extend(more);
            let said = workspace.run(&args);
            assert!(said.code != Some(2), "{}, before: {}", self.name, said.stderr);
        }
        std::fs::write(workspace.path().join(PIPELINE), &pipeline).unwrap();
        copy(&folder().join(&self.name), workspace.path());
        let said = self.command(&workspace);
        let ends = (self.run == "run").then(|| ends(&said.stdout)).flatten();
        let stderr = self.tidied(&said.stderr, &workspace, servers);
        (Said { stderr, ..said }, ends)
    }

    fn command(&self, workspace: &Workspace) -> Said {
        let mut args = vec![self.run.as_str(), &self.file];
        if self.run == "run" {
            args.push("--json");
        }
        args.extend(self.args.iter().map(String::as_str));
        let Some(files_max) = self.files_max else { return workspace.run(&args) };
        let limited = format!("ulimit -n {files_max} && exec \"$0\" \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &limited, BINARY])
            .args(&args)
            .current_dir(workspace.path())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// What was said without what differs from run to run: folders, ports, the ids of runs.
    fn tidied(&self, text: &str, workspace: &Workspace, servers: &mut Servers) -> String {
        let mut text =
            text.replace(&workspace.path().canonicalize().unwrap().display().to_string(), "$WORKSPACE");
        text = text.replace(&workspace.path().display().to_string(), "$WORKSPACE");
        if self.bytes.windows(8).any(|window| window == b"$TEACHER") {
            text = text.replace(servers.teacher(&self.teacher), "$TEACHER");
        }
        let mut parts = text.split("/runs/");
        let mut tidied = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let rest = part.split_once('/').map_or("", |(_, rest)| rest);
            write!(tidied, "/runs/$RUN/{rest}").unwrap();
        }
        tidied
    }
}

/// Copies what lies in a folder, if it is there.
fn copy(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    std::fs::create_dir_all(to).unwrap();
    for entry in entries {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// How the rows of a run ended: the counts, and those that were not kept with their reasons. How far a
/// run that was stopped came hangs on the moment.
fn ends(stdout: &str) -> Option<String> {
    let accounts: Value = serde_json::from_str(stdout).ok()?;
    if !accounts["stopped"].is_null() {
        return None;
    }
    let tally = &accounts["tally"];
    assert_eq!(accounts["balances"], true, "{accounts}");
    let mut text = format!(
        "{} rows in: {} kept, {} rejected, {} failed, {} open\n",
        tally["rows_in"], tally["kept"], tally["rejected"], tally["failed"], tally["open"]
    );
    let folder = PathBuf::from(accounts["folder"].as_str().unwrap());
    for (kind, verb) in [("rejects", "rejected"), ("failures", "failed")] {
        let part = folder.join(kind).join("part-00000.parquet");
        let Ok(rows) = read_dataset(&part) else { continue };
        for row in rows.take(ROWS_SHOWN_MAX) {
            let row = row.unwrap();
            let field = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
            let (id, step, code) = (field("textmill_row"), field("step"), field("reason"));
            let step = if step.is_empty() { "the end".to_owned() } else { format!("`{step}`") };
            write!(text, "row {id} {verb} at {step}: {code}").unwrap();
            for detail in [field("message"), field("evidence")].iter().filter(|detail| !detail.is_empty()) {
                write!(text, "\n  {detail}").unwrap();
            }
            text.push('\n');
        }
    }
    Some(text)
}

/// The servers that cases ask, each started when first asked for.
#[derive(Default)]
struct Servers {
    teachers: BTreeMap<Vec<String>, FakeTeacher>,
    redirect: Option<String>,
}

impl Servers {
    fn teacher(&mut self, args: &[String]) -> &str {
        let start = || FakeTeacher::start(&args.iter().map(String::as_str).collect::<Vec<_>>());
        &self.teachers.entry(args.to_vec()).or_insert_with(start).url
    }

    /// A server that answers everything with a redirect; it ends with the tests.
    fn redirect(&mut self) -> &str {
        self.redirect.get_or_insert_with(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/v1", listener.local_addr().unwrap());
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let mut request = [0; 1 << 16];
                    let _ = stream.read(&mut request);
                    let head = "HTTP/1.1 308 Permanent Redirect\r\nlocation: https://example.com/v1\r\n";
                    let _ = write!(stream, "{head}content-length: 0\r\nconnection: close\r\n\r\n");
                }
            });
            url
        })
    }
}

/// Compares a golden text with what came, or writes it anew.
fn compare(path: &Path, found: Option<&str>, differences: &mut Vec<String>) {
    if std::env::var_os("UPDATE_PROBLEMS").is_some() {
        match found {
            Some(found) => std::fs::write(path, found).unwrap(),
            None => drop(std::fs::remove_file(path)),
        }
        return;
    }
    let expected = std::fs::read_to_string(path).ok();
    if expected.as_deref() != found {
        let shown = |text: Option<&str>| text.unwrap_or("(no file)\n").to_owned();
        differences.push(format!(
            "── {}, expected:\n{}── found:\n{}",
            path.file_name().unwrap().display(),
            shown(expected.as_deref()),
            shown(found)
        ));
    }
}

fn cases() -> Vec<Case> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect();
    paths.sort();
    paths.iter().map(|path| Case::read(path)).collect()
}

#[test]
fn users_are_told_what_is_wrong() {
    let cases = cases();
    assert!(cases.len() >= CASES_MIN, "there are only {} cases", cases.len());
    let mut servers = Servers::default();
    let mut differences = Vec::new();
    for case in &cases {
        let (said, ends) = case.play(&mut servers);
        if said.code != Some(case.exit) {
            let (name, exit, code) = (&case.name, case.exit, said.code);
            differences.push(format!("── {name}: exit {code:?}, not {exit}\n{}", said.stderr));
        }
        let golden = |ending: &str| folder().join(format!("{}.{ending}", case.name));
        compare(&golden("stderr"), Some(&said.stderr), &mut differences);
        compare(&golden("ends"), ends.as_deref(), &mut differences);
    }
    assert!(
        differences.is_empty(),
        "{}\n{} differences; if they are meant, run again with UPDATE_PROBLEMS=1 and read what changed",
        differences.join("\n"),
        differences.len()
    );
}

#[test]
fn every_file_belongs_to_a_case() {
    let names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let stem = file.split('.').next().unwrap();
        assert!(names.iter().any(|name| name == stem), "`{file}` belongs to no case");
    }
}
