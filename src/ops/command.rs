//! `command`: the way out: a program of your own decides about rows and adds fields.
//!
//! # What it does
//! Starts the program once (or `processes` times) and talks with it line by line: each row goes to its
//! standard input as one line, a JSON object of the row's fields; for each it writes one line to its
//! standard output, in order and at once (flush it):
//! - `{"score": 0.7}`: the row goes on, with these fields; they are declared in `makes`, in the short-hand
//!   of `json:` (`label?: string` may be left out and is null then); `{}` if there are none;
//! - `{"$reject": "too_simple", "evidence": {"score": 0.1}}`: the row is rejected with this reason;
//! - `{"$fail": "no connection"}`: the row fails, and the next run tries it again; `evidence` may follow.
//!
//! With `version` the answers are kept in the store like those of teachers: a row that is sent again, in
//! this run or a later one, gets its earlier answer. Change the version whenever the program changes.
//! Without, the program is asked again for every row of every run, also of one that resumes.
//!
//! # When to use it
//! For what no other operator does: a classifier of your own, a unit conversion, a look-up in a table. For
//! code that a model wrote there is `execute`: a command runs with all your rights.
//!
//! # Example
//! ```yaml
//! - command:
//!     argv: [python3, tools/score.py]
//!     makes: { score: number, label?: easy | hard }
//!     version: "1"
//!     processes: 2
//! ```
//! ```python
//! import json, sys
//! for line in sys.stdin:
//!     row = json.loads(line)
//!     print(json.dumps({"score": len(row["text"]) / 100}), flush=True)
//! ```
//!
//! # Limits
//! No shell reads `argv`; the program runs in the pipeline file's folder, which paths are relative to, and
//! has the environment variables PATH, HOME and LANG only (`[env, NAME=value, python3, ...]` adds more). It
//! must answer each row by itself: which of several processes gets a row, and after which others, is up to
//! chance. If it takes longer than `timeout` (for the first row its own start included) it is killed and
//! the row fails `timeout`; if it ends, or its line is no such answer, the row fails `command_failed` with
//! what it last wrote to stderr. Then it is started again; 5 times without an answer in between stop the
//! run. An answer that does not fit `makes` is rejected `type_mismatch`; a row of more than 16 MiB
//! `too_long`. The key of a stored answer is made of `argv`, `version` and all fields of the row.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::call::{CallCounts, Desk, Line, Pause, StopReason, key};
use crate::clock;
use crate::kit::{Check, Kit};
use crate::ops::ask::Unanswered;
use crate::ops::{CallRow, Operator, Runner};
use crate::row::{Failure, Fields, Outcome, Reason, Row, Type};
use crate::shape::{self, Shape};
use crate::store::{IfPresent, Key, NewReply, Origin, Saved, StoreError};
use crate::teacher::Usage;
use crate::teacher::http::words;
use crate::teacher::secret::looks_like_credential;
use crate::teacher::setting::duration;

mod answer;
mod child;
mod pool;
mod watch;

use answer::Answer;
use child::{LINE_BYTES_MAX, Program};
use pool::{Heard, Pool, Silence};
pub use watch::serve as serve_watch;

/// Have a program of your own decide about rows and add fields.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "command", deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments, one list item each; no shell reads them. A program with a `/` in it
    /// is relative to the pipeline file.
    pub argv: Vec<String>,
    /// The fields that its answers add, with their shapes, in the short-hand of `json:`.
    #[serde(default)]
    pub makes: Map<String, Value>,
    /// Names what the program does: while it stays the same, answers are kept and used again.
    pub version: Option<String>,
    /// The time that an answer may take: 60 seconds by default.
    #[serde(default = "timeout", deserialize_with = "duration")]
    #[schemars(with = "String", default = "timeout_text")]
    pub timeout: Duration,
    /// How many of it run at once: 1 by default.
    #[serde(default = "one")]
    pub processes: usize,
}

fn timeout() -> Duration {
    Duration::from_secs(60)
}

fn timeout_text() -> String {
    "60s".to_owned()
}

fn one() -> usize {
    1
}

/// More than any machine has cores for.
const PROCESSES_MAX: usize = 256;
/// Starts without an answer in between before the run stops: whatever is wrong is wrong for all rows.
const UNANSWERED_MAX: u32 = 5;

impl Command {
    /// The JSON Schema that answers must fit.
    fn schema(&self) -> Result<Value, (Vec<String>, String)> {
        if self.makes.is_empty() {
            return Ok(json!({"type": "object", "additionalProperties": false}));
        }
        shape::from_short_hand(&Value::Object(self.makes.clone()))
    }

    /// The fields that answers add.
    fn made(&self) -> impl Iterator<Item = &str> {
        self.makes.keys().map(|name| name.strip_suffix('?').unwrap_or(name))
    }

    fn check_argv(&self, check: &mut Check<'_>) {
        match self.argv.first() {
            Some(program) if program.contains('/') => {
                check.file("argv.0", program);
            }
            Some(program) if !program.is_empty() => {}
            _ => {
                check.problem("argv", "`argv` names no program").hint =
                    Some("write the program and its arguments: `[python3, tools/score.py]`".to_owned());
            }
        }
        for (index, word) in self.argv.iter().enumerate() {
            let key = format!("argv.{index}");
            if looks_like_credential(word) {
                check.problem(&key, "`argv` has a credential written in it").hint =
                    Some("have the program read it from a file".to_owned());
            } else if word.contains('\0') {
                check.problem(&key, "`argv` has a NUL character in it");
            }
        }
    }

    fn check_makes(&self, check: &mut Check<'_>) {
        let schema = self.schema();
        if let Err((path, message)) = &schema {
            check.problem(&format!("makes.{}", path.join(".")), message.clone());
        }
        let kinds = match schema.map(|schema| shape::type_of(&schema)) {
            Ok(Type::Object(kinds)) => kinds,
            _ => self.made().map(|name| (name.to_owned(), Type::Json)).collect(),
        };
        for (written, (name, kind)) in self.makes.keys().zip(kinds) {
            let key = format!("makes.{written}");
            if name.starts_with('$') {
                check.problem(&key, "names that start with `$` say how a row ends");
            }
            check.makes(&key, &name, kind);
        }
    }
}

impl Operator for Command {
    fn check(&self, check: &mut Check<'_>) {
        self.check_argv(check);
        self.check_makes(check);
        if self.version.as_ref().is_some_and(String::is_empty) {
            check.problem("version", "`version` is empty").hint = Some("such as \"1\"".to_owned());
        }
        if self.timeout.is_zero() {
            check.problem("timeout", "`timeout` must be longer than nothing");
        }
        if self.processes == 0 || self.processes > PROCESSES_MAX {
            check.problem("processes", format!("`processes` must be between 1 and {PROCESSES_MAX}"));
        }
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let schema = self.schema().map_err(|(_, message)| anyhow::anyhow!(message))?;
        let shape = Shape::new(&schema).map_err(|message| anyhow::anyhow!(message))?;
        let folder = std::path::absolute(&kit.base)?;
        let program = Program { argv: self.argv.clone(), folder, commands: Arc::clone(&kit.commands) };
        let asking = Asking {
            identity: Value::from(self.argv.clone()).to_string(),
            pool: Pool::new(program, self.processes, self.timeout),
            makes: self.made().map(str::to_owned).collect(),
            shape,
            headers: self.version.iter().map(|version| ("version".to_owned(), version.clone())).collect(),
            step: Arc::clone(&kit.step),
            step_index: kit.step_index,
            counts: kit.desk.monitor.counts(Line { step: kit.step_index, teacher: None }),
            desk: Arc::clone(&kit.desk),
        };
        Ok(vec![Runner::Call(Box::new(asking))])
    }
}

struct Asking {
    pool: Pool,
    /// The fields that answers add.
    makes: Vec<String>,
    shape: Shape,
    /// The program in the keys of stored answers.
    identity: String,
    /// The version, likewise; without one nothing is stored.
    headers: Vec<(String, String)>,
    step: Arc<str>,
    step_index: usize,
    counts: Arc<CallCounts>,
    desk: Arc<Desk>,
}

impl Asking {
    /// What the store or a process says about a row.
    async fn answer(&self, row: &Row) -> Result<Answer, Unanswered> {
        let line = serde_json::to_vec(&row.fields).unwrap_or_default();
        if line.len() > LINE_BYTES_MAX {
            let evidence = json!({"bytes": line.len(), "bytes_max": LINE_BYTES_MAX});
            return Err(Unanswered::Rejected(Reason::new("too_long", evidence)));
        }
        if self.headers.is_empty() {
            return Ok(self.ask(row, &line).await?.answer);
        }
        let key = key::key(&key::Parts {
            wire: "command",
            identity: &self.identity,
            body: &Value::Object(row.fields.clone()),
            headers: &self.headers,
            epoch: "",
            sample: 0,
            draw: "",
        });
        if let Some(stored) = self.stored(key)? {
            self.counts.hit();
            return Ok(stored);
        }
        let heard = self.ask(row, &line).await?;
        // Another row with the same fields may have been faster, and every run must see the same.
        if !matches!(heard.answer, Answer::Fail(_))
            && self.save(key, &line, &heard).await? == Saved::KeptFirst
        {
            return Ok(self.stored(key)?.unwrap_or(heard.answer));
        }
        Ok(heard.answer)
    }

    /// Asks a process, as soon as there is a place.
    async fn ask(&self, row: &Row, line: &[u8]) -> Result<Heard, Unanswered> {
        let control = &self.desk.control;
        let place = tokio::select! {
            biased;
            () = control.unwanted(&row.id) => return Err(Unanswered::Stopped),
            place = self.pool.enter(&row.id, self.step_index) => place,
        };
        let Ok(_place) = place else { return Err(Unanswered::Stopped) };
        let child = self.pool.child().map_err(|error| {
            let program = words(self.pool.program.argv.first().map_or("", String::as_str));
            self.stop(format!("step `{}`: `{program}` cannot be started: {error}", self.step))
        })?;
        let _flying = self.counts.fly();
        let aborting = control.aborting();
        let asked = tokio::select! {
            asked = self.pool.ask(child, line) => asked,
            () = aborting.cancelled() => return Err(Unanswered::Stopped),
        };
        match asked {
            Ok(heard) => {
                self.counts.reply(Some(Usage::default()), Some(0));
                Ok(heard)
            }
            Err(silence) => Err(self.failed(silence)),
        }
    }

    fn failed(&self, silence: Silence) -> Unanswered {
        let Silence { code, message, evidence, in_a_row } = silence;
        if in_a_row >= UNANSWERED_MAX {
            let last = evidence["stderr"].as_str().and_then(|stderr| stderr.lines().last()).map(words);
            let last = last.map(|line| format!("; it wrote: {line}")).unwrap_or_default();
            let step = &self.step;
            // The row has failed all the same.
            let _ = self.stop(format!(
                "step `{step}`: the command gave no answer {UNANSWERED_MAX} times in a row, at last: \
                 {message}{last}"
            ));
        }
        Unanswered::Failed(Failure::new(code, message).with_evidence(evidence))
    }

    fn stored(&self, key: Key) -> Result<Option<Answer>, Unanswered> {
        let found = self.desk.store.reply(key).map_err(|error| self.stopped_by(&error))?;
        let is_fresh = |created: i64| self.desk.fresh.get(&*self.step).is_none_or(|since| created >= *since);
        let Some(found) = found.filter(|found| is_fresh(found.created_unix_ms)) else { return Ok(None) };
        let line = found.reply().map_err(|error| self.stopped_by(&error))?;
        // Only lines that could be read were stored; should that change, they are asked for anew.
        Ok(Answer::read(&line).ok())
    }

    async fn save(&self, key: Key, request: &[u8], heard: &Heard) -> Result<Saved, Unanswered> {
        let version = self.headers.first().map(|(_, version)| version.clone());
        let origin = Origin {
            epoch: self.desk.epoch.to_string(),
            pipeline: Some(self.desk.pipeline.to_string()),
            step: self.step.to_string(),
            teacher: format!("command {}", self.identity),
            endpoint: String::new(),
            wire: "command".to_owned(),
            model: version.unwrap_or_default(),
        };
        let new = NewReply {
            key,
            origin: Arc::new(origin),
            request,
            reply: &heard.line,
            status: 200,
            tokens_in: None,
            tokens_out: None,
            usd_nano: Some(0),
            attempts: 1,
            latency_ms: heard.latency_ms,
            created_unix_ms: clock::unix_ms(),
        };
        let is_fresh = self.desk.fresh.contains_key(&*self.step);
        let present = if is_fresh { IfPresent::Replace } else { IfPresent::KeepFirst };
        let saved = self.desk.store.save_reply(&new, None, present).await;
        saved.map_err(|error| self.stopped_by(&error))
    }

    fn stopped_by(&self, error: &StoreError) -> Unanswered {
        self.stop(error.to_string())
    }

    fn stop(&self, sentence: String) -> Unanswered {
        self.desk.control.stop(StopReason::Fatal(sentence));
        Unanswered::Stopped
    }

    /// Adds what was made to a row, if it is what was declared.
    fn merge(&self, mut row: Row, mut made: Fields) -> Outcome {
        // A null is what most languages write for what is left out.
        made.retain(|_, value| !value.is_null());
        let made = Value::Object(made);
        if let Some(error) = self.shape.misfit(&made) {
            return Outcome::Reject(
                row,
                Reason::new("type_mismatch", json!({"error": error, "answer": made})),
            );
        }
        for name in &self.makes {
            row.fields.insert(name.clone(), made.get(name).cloned().unwrap_or(Value::Null));
        }
        Outcome::Keep(row)
    }
}

impl CallRow for Asking {
    fn call(&self, row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        async move {
            match self.answer(&row).await {
                Ok(Answer::Made(made)) => Ok(self.merge(row, made)),
                Ok(Answer::Reject(reason)) => Ok(Outcome::Reject(row, reason)),
                Ok(Answer::Fail(failure)) => Ok(Outcome::Fail(row, failure)),
                Err(unanswered) => unanswered.outcome(row),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture;

    fn asking(config: Value, kit: &Kit) -> Box<dyn CallRow> {
        let Runner::Call(asking) = fixture::built::<Command>(config, kit) else { panic!("it is a call") };
        asking
    }

    /// What becomes of a row with the field `say`; nothing if it stays open.
    async fn end(asking: &dyn CallRow, say: &str) -> Option<Value> {
        let row = fixture::row("0", &json!({"say": say}));
        asking.call(row).await.ok().map(fixture::shown)
    }

    /// Answers with the row's own words, or with how many rows it has seen; notes what it was asked.
    const SCRIPT: &str = r#"
import json, sys
for count, line in enumerate(sys.stdin, 1):
    say = json.loads(line)["say"]
    with open("log", "a") as log:
        log.write(say + ";")
    if say == "die":
        sys.exit("my last words")
    print(json.dumps({"n": count}) if say == "count" else say, flush=True)
"#;

    fn with_script() -> (tempfile::TempDir, Kit, Value) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("echo.py"), SCRIPT).unwrap();
        let kit = fixture::kit(folder.path());
        let makes = json!({"n": "number", "label?": "string"});
        (folder, kit, json!({"argv": ["python3", "echo.py"], "makes": makes}))
    }

    #[tokio::test]
    async fn a_program_decides() {
        let (_folder, kit, config) = with_script();
        let asking = asking(config, &kit);
        let check = async |say: &str, expected: Value| {
            assert_eq!(end(&*asking, say).await, Some(expected), "{say}");
        };
        let made = |say: &str, n: u32, label: Value| json!({"say": say, "n": n, "label": label});
        check(r#"{"n": 1}"#, made(r#"{"n": 1}"#, 1, Value::Null)).await;
        check(r#"{"label":"a","n":2}"#, made(r#"{"label":"a","n":2}"#, 2, json!("a"))).await;
        check(r#"{"n":3,"label":null}"#, made(r#"{"n":3,"label":null}"#, 3, Value::Null)).await;
        check("count", made("count", 4, Value::Null)).await;
        let misfit = |error: &str, answer: Value| json!({"rejected": "type_mismatch", "evidence": {"error": error, "answer": answer}});
        check(r#"{"n":"x"}"#, misfit("at /n: \"x\" is not of type \"number\"", json!({"n": "x"}))).await;
        check("{}", misfit("\"n\" is a required property", json!({}))).await;
        check(r#"{"$reject":"dull","evidence":[1]}"#, json!({"rejected": "dull", "evidence": [1]})).await;
        let failed = |message: &str, evidence: Value| json!({"failed": "command_failed", "message": message, "evidence": evidence});
        check(r#"{"$fail":"later"}"#, failed("later", Value::Null)).await;
        let message = "its answer is no JSON: expected value at line 1 column 1";
        check("what", failed(message, json!({"stderr": "", "answer": "what"}))).await;
        let message = "it ended before it answered (exit status: 1)";
        check("die", failed(message, json!({"stderr": "my last words"}))).await;
        check("count", made("count", 1, Value::Null)).await;
    }

    #[tokio::test]
    async fn only_versions_are_remembered() {
        let (folder, mut kit, config) = with_script();
        let log = folder.path().join("log");
        let check = async |kit: &Kit, version: Option<&str>, says: &[&str], expected: &str| {
            let mut config = config.clone();
            config["version"] = json!(version);
            let asking = asking(config, kit);
            std::fs::write(&log, "").unwrap();
            for say in says {
                end(&*asking, say).await.unwrap();
            }
            assert_eq!(std::fs::read_to_string(&log).unwrap(), expected, "{version:?}");
        };
        let (reject, fail) = (r#"{"$reject":"a"}"#, r#"{"$fail":"b"}"#);
        let all = format!("count;{reject};{fail};");
        let again = format!("count;count;{reject};{fail};");
        check(&kit, None, &["count", "count", reject, fail], &again).await;
        check(&kit, Some("1"), &["count", "count", reject, fail], &all).await;
        check(&kit, Some("1"), &["count", reject, fail], &format!("{fail};")).await;
        check(&kit, Some("2"), &["count", reject, fail], &all).await;
        let desk = Arc::get_mut(&mut kit.desk).unwrap();
        desk.fresh.insert("step".to_owned(), i64::MAX);
        check(&kit, Some("2"), &["count"], "count;").await;
    }

    fn script(script: &str) -> Value {
        json!({"argv": ["sh", "-c", script], "makes": {"pid?": "integer"}})
    }

    #[tokio::test]
    async fn a_slow_program_is_killed_and_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let kit = fixture::kit(folder.path());
        let mut config = script("while read x; do case $x in *hang*) sleep 60;; esac; echo '{}'; done");
        config["timeout"] = json!("500ms");
        let asking = asking(config, &kit);
        let late =
            json!({"failed": "timeout", "message": "no answer within 500ms", "evidence": {"stderr": ""}});
        assert_eq!(end(&*asking, "hang").await, Some(late));
        assert_eq!(end(&*asking, "go").await, Some(json!({"say": "go", "pid": null})));
    }

    #[tokio::test]
    async fn processes_work_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let kit = fixture::kit(folder.path());
        for (processes, distinct) in [(1, 1), (2, 2)] {
            let mut config = script("while read x; do sleep 0.1; echo \"{\\\"pid\\\": $$}\"; done");
            config["processes"] = json!(processes);
            let asking = asking(config, &kit);
            let (a, b, c) = tokio::join!(end(&*asking, "a"), end(&*asking, "b"), end(&*asking, "c"));
            let pids: std::collections::HashSet<String> =
                [a, b, c].map(|end| end.unwrap()["pid"].to_string()).into();
            assert_eq!(pids.len(), distinct, "{pids:?}");
        }
    }

    #[tokio::test]
    async fn a_program_that_cannot_answer_stops_the_run() {
        let stopped = async |config: Value, failed: usize| {
            let folder = tempfile::tempdir().unwrap();
            let kit = fixture::kit(folder.path());
            let asking = asking(config, &kit);
            for _ in 0..failed {
                assert_eq!(end(&*asking, "a").await.unwrap()["failed"], "command_failed");
            }
            assert_eq!(end(&*asking, "a").await, None);
            kit.desk.control.reason().unwrap().sentence()
        };
        let sentence = stopped(script("read x; echo bad luck >&2; exit 7"), 5).await;
        let expected = "step `step`: the command gave no answer 5 times in a row, at last: \
            it ended before it answered (exit status: 7); it wrote: bad luck";
        assert_eq!(sentence, expected);
        let sentence = stopped(json!({"argv": ["no-such-program"]}), 0).await;
        assert!(sentence.starts_with("step `step`: `no-such-program` cannot be started: "), "{sentence}");
    }

    #[tokio::test]
    async fn rows_have_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let asking = asking(script("exec cat"), &fixture::kit(folder.path()));
        let ended = end(&*asking, &"x".repeat(LINE_BYTES_MAX)).await.unwrap();
        assert_eq!(ended["rejected"], "too_long");
    }

    fn check_config(config: Value, problems: &[&str], made: &[(&str, Type)]) {
        let (found, columns) = fixture::checked_config::<Command>(config, &[("text", Type::Text)]);
        assert_eq!(found, problems);
        for (name, kind) in made {
            assert_eq!(columns.get(*name), Some(kind), "{name}");
        }
    }

    #[test]
    fn configs_are_checked() {
        let makes = json!({"n": "number", "label?": "a | b"});
        let made = [("n", Type::Number), ("label", Type::Text)];
        check_config(json!({"argv": ["x"], "makes": makes}), &[], &made);
        check_config(json!({"argv": ["x"]}), &[], &[]);
        check_config(
            json!({"argv": ["./x", "sk-abcdefghijkl"], "makes": {"text": "nubmer", "$x": "string"},
                "version": "", "timeout": "0s", "processes": 0}),
            &[
                "argv[0]: there is no file `./x`",
                "argv[1]: `argv` has a credential written in it",
                "makes.text: `nubmer` is no shape; shapes are `string`, `integer`, `number`, `boolean`, `a | b` \
                 for a choice, `[shape]` for a list, and maps",
                "makes.text: the field `text` exists already",
                "makes.$x: names that start with `$` say how a row ends",
                "version: `version` is empty",
                "timeout: `timeout` must be longer than nothing",
                "processes: `processes` must be between 1 and 256",
            ],
            &[],
        );
        check_config(json!({"argv": []}), &["argv: `argv` names no program"], &[]);
    }
}
