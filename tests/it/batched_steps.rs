//! Steps that ask several times about a row, and processes side by side, with calls in batches.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::workspace::{FakeTeacher, Moments, Workspace, rows, until};

const ROWS: usize = 60;

/// Steps that ask two teachers, `cheap` and `dear`, each row as often as its answers want it.
const STEPS: [(&str, &str); 4] = [
    (
        "converse",
        r#"
  - converse:
      into: talk
      user: { teacher: cheap, system: "You learn about {{ topic }}.", prompt: "Ask.", max_tokens: 400 }
      assistant: { teacher: dear, system: "You teach.", max_tokens: 400 }
      turns: 3
      until: (last.assistant | length) % 3 == 0"#,
    ),
    (
        "refine",
        r#"
  - refine:
      field: topic
      into: text
      critique: { teacher: cheap, prompt: "Criticise: {{ draft }}", json: { advice: string, score: integer }, max_tokens: 400 }
      rewrite: { teacher: dear, prompt: "{{ critique.advice }}: {{ draft }}", max_tokens: 400 }
      until: critique.score % 3 == 0
      rounds: 3
      held_into: held"#,
    ),
    (
        "generate",
        r#"
  - generate:
      teacher: cheap
      prompt: "Grade {{ topic }}."
      into: grade
      json: { score: integer }
      max_tokens: 400
      escalate: { to: dear, unless: grade.score % 3 == 0 }"#,
    ),
    (
        "judge",
        r#"
  - judge:
      teacher: cheap
      prompt: "Grade {{ topic }}."
      into: grade
      max_tokens: 400
      escalate: { to: dear, unless: grade >= 3 }"#,
    ),
];

/// A pipeline of one step; `teacher` are settings of both its teachers beside their API.
fn prepare(api: &str, url: &str, steps: &str, teacher: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(ROWS));
    let one = |name: &str| {
        format!(
            "  {name}:\n    {api}: {{ url: \"{url}\", model: {name} }}\n    identity: the-fake\n{teacher}\n"
        )
    };
    let teachers = ["cheap", "dear"].map(one).concat();
    let source = "source: { files: { path: rows.jsonl } }";
    workspace.write(
        "p.yaml",
        &format!(
            "textmill: 1\nname: p\nteachers:\n{teachers}{source}\nsteps:{steps}\nsave: {{ parquet: out }}\n"
        ),
    );
    workspace
}

fn parts(workspace: &Workspace) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let parts = workspace.files(&workspace.path().join("out/data"));
    assert!(!parts.is_empty());
    parts
}

fn count(stats: &Value, of: &str) -> u64 {
    stats.pointer(of).and_then(Value::as_u64).unwrap()
}

const SMALL: [&str; 4] = ["--reply-bytes", "150", "--batch-ms", "30"];

#[test]
fn steps_that_ask_again_make_the_dataset_of_a_live_run() {
    let batch = "    mode: batch\n    batch: { poll: 20ms }";
    let auto = "    mode: auto\n    batch: { poll: 20ms, live_below: 20 }";
    for (name, steps) in STEPS {
        for api in ["openai", "anthropic"] {
            let teacher = FakeTeacher::start(&SMALL);
            let live = prepare(api, &teacher.url, steps, "");
            let calm = live.json(&["run", "p.yaml", "--json"], 0);
            let calls = count(&teacher.stats(), "/requests");
            assert!(calls > ROWS as u64 && calm["tally"]["failed"] == 0, "{name}: {calm:#}");
            for mode in [batch, auto] {
                let teacher = FakeTeacher::start(&SMALL);
                let workspace = prepare(api, &teacher.url, steps, mode);
                let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
                let stats = teacher.stats();
                let [paid, again, live_calls, repeats] =
                    ["/batches/paid", "/batches/paid_again", "/requests", "/repeats"]
                        .map(|of| count(&stats, of));
                assert_eq!(
                    (paid + live_calls, again + repeats),
                    (calls, 0),
                    "{name} {api}: {mode}: {stats:#}"
                );
                // What follows an answer is urgent; what begins is not.
                assert_eq!((live_calls > 0, paid > 0), (mode == auto, true), "{name} {api}: {stats:#}");
                assert!(parts(&workspace) == parts(&live), "{name} {api}: {mode}: the datasets differ");
                assert_eq!((&accounts["tally"], &accounts["balances"]), (&calm["tally"], &true.into()));
                let of = |accounts: &Value| {
                    let step = accounts["calls"].as_object().unwrap().values().next().unwrap().clone();
                    ["calls", "from_store", "escalated"].map(|count| step[count].clone())
                };
                assert_eq!(of(&accounts), of(&calm), "{name} {api}: {mode}: {accounts:#}");
            }
        }
    }
}

#[test]
fn kills_amid_a_row_pay_nothing_twice() {
    // Two batches after each other take a second, whoever lives; the kills come within a third of one.
    let slow = ["--reply-bytes", "150", "--batch-ms", "400", "--batch-create-ms", "100"];
    for (name, steps) in STEPS {
        let calm_teacher = FakeTeacher::start(&SMALL);
        let calm = prepare("openai", &calm_teacher.url, steps, "");
        let tally = calm.json(&["run", "p.yaml", "--json"], 0)["tally"].clone();
        let teacher = FakeTeacher::start(&slow);
        let settings = "    mode: batch\n    batch: { poll: 30ms, doubt: 300ms, items_max: 25 }";
        let workspace = prepare("openai", &teacher.url, steps, settings);
        let mut moments = Moments::new();
        let mut kills = 0;
        while kills < 6 && workspace.killed(Duration::from_millis(60 + moments.next(250))) {
            kills += 1;
        }
        let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
        let stats = teacher.stats();
        assert_eq!(
            count(&stats, "/batches/paid"),
            count(&calm_teacher.stats(), "/requests"),
            "{name}: {kills}"
        );
        assert_eq!(count(&stats, "/batches/paid_again") + count(&stats, "/requests"), 0, "{name}: {kills}");
        assert_eq!((&accounts["tally"], &accounts["balances"]), (&tally, &true.into()));
        assert!(parts(&workspace) == parts(&calm), "{name}: the datasets differ after {kills} kills");
        assert!(kills >= 2, "{name}: the run ended after {kills} kills; make it longer");
    }
}

/// Two pipelines, `a` and `b`, that ask one teacher in batches: each about its own topics, then both the same.
fn side_by_side(url: &str, counts: [usize; 2]) -> Workspace {
    let workspace = Workspace::new();
    for (name, count) in ["a", "b"].into_iter().zip(counts) {
        workspace.write(&format!("{name}.jsonl"), &rows(count));
        let pipeline = format!(
            r#"
textmill: 1
name: {name}
teachers:
  writer:
    openai: {{ url: "{url}", model: fake }}
    mode: batch
    batch: {{ poll: 50ms, doubt: 500ms, items_max: 60 }}
source: {{ files: {{ path: {name}.jsonl }} }}
steps:
  - generate: {{ teacher: writer, prompt: "Write {name} about {{{{ topic }}}}.", into: text, max_tokens: 250 }}
  - judge: {{ teacher: writer, prompt: "Grade the topic {{{{ n % 40 }}}}.", into: grade, max_tokens: 250 }}
save: {{ parquet: out-{name} }}
"#
        );
        workspace.write(&format!("{name}.yaml"), &pipeline);
    }
    workspace
}

fn start(workspace: &Workspace, pipeline: &str) -> Child {
    let mut command = workspace.command(&["run", pipeline, "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The accounts of a process that must end well and keep as many rows.
#[track_caller]
fn kept(child: Child, rows: usize) -> Value {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let accounts: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&accounts["tally"]["kept"], &accounts["balances"]), (&rows.into(), &true.into()));
    accounts
}

/// Two topics' worth of calls, and the grades that both want, each paid once; all of them counted once.
#[track_caller]
fn paid_once(teacher: &FakeTeacher, counts: [usize; 2], accounts: [&Value; 2]) {
    let stats = teacher.stats();
    let all = (counts[0] + counts[1] + 40) as u64;
    assert_eq!((count(&stats, "/batches/paid"), count(&stats, "/batches/paid_again")), (all, 0), "{stats:#}");
    assert_eq!(count(&stats, "/requests"), 0);
    let spent: u64 = accounts.iter().map(|accounts| count(accounts, "/epoch_spent/calls")).sum();
    assert_eq!(spent, all, "{accounts:#?}");
}

#[test]
fn two_processes_collect_what_is_theirs() {
    let counts = [200, 150];
    let teacher = FakeTeacher::start(&["--reply-bytes", "200", "--batch-ms", "400"]);
    let workspace = side_by_side(&teacher.url, counts);
    let both = ["a.yaml", "b.yaml"].map(|pipeline| start(&workspace, pipeline));
    let [a, b] = both;
    let (a, b) = (kept(a, counts[0]), kept(b, counts[1]));
    for (accounts, count) in [(&a, counts[0]), (&b, counts[1])] {
        assert_eq!(accounts["calls"]["text"]["calls"], count, "{accounts:#}");
        let brought = &accounts["batches"];
        let least = count as u64;
        assert!((least..=least + 40).contains(&brought["answered"].as_u64().unwrap()), "{accounts:#}");
    }
    paid_once(&teacher, counts, [&a, &b]);
    let listed = workspace.json(&["store", "batches", "--json"], 0);
    assert!(listed.as_array().unwrap().iter().all(|batch| batch["state"] == "ended"), "{listed:#}");
}

#[test]
fn what_a_killed_process_had_in_batches_comes_to_its_next_run() {
    let counts = [100, 150];
    let teacher = FakeTeacher::start(&["--reply-bytes", "200", "--batch-ms", "1500"]);
    let workspace = side_by_side(&teacher.url, counts);
    let lives = start(&workspace, "a.yaml");
    let mut dies = start(&workspace, "b.yaml");
    // All of the first step's: two batches of `a`, three of `b`.
    until("no batches were sent", &|| count(&teacher.stats(), "/batches/batches") >= 5);
    std::thread::sleep(Duration::from_millis(100));
    dies.kill().unwrap();
    dies.wait().unwrap();
    let again = start(&workspace, "b.yaml");
    let (a, b) = (kept(lives, counts[0]), kept(again, counts[1]));
    paid_once(&teacher, counts, [&a, &b]);
}
