//! Steps that ask several times about a row, in batches: dialogues, rewrites, escalations.

use std::time::Duration;

use serde_json::Value;

use crate::workspace::{FakeTeacher, Moments, Workspace, killed, rows};

/// Every way to ask more than once; `way` are settings of both teachers.
fn pipeline(url: &str, way: &str) -> String {
    format!(
        r#"
textmill: 1
name: talks
teachers:
  small:
    openai: {{ url: "{url}", model: small }}
    identity: the-small
{way}
  large:
    openai: {{ url: "{url}", model: large }}
    identity: the-large
{way}
source: {{ files: {{ path: rows.jsonl }} }}
steps:
  - generate:
      teacher: small
      prompt: "Ask about {{{{ topic }}}}."
      into: question
      max_tokens: 200
      escalate: {{ to: large, unless: "(question | length) % 3 != 0" }}
  - converse:
      into: messages
      user: {{ teacher: small, prompt: "Ask on.", max_tokens: 200 }}
      assistant: {{ teacher: large, system: "You teach.", max_tokens: 200 }}
      opening: "{{{{ question }}}}"
      turns: 3
  - refine:
      field: question
      into: better
      critique: {{ teacher: large, prompt: "Check: {{{{ draft }}}}", json: {{ faithful: boolean }}, max_tokens: 200 }}
      rewrite: {{ teacher: small, prompt: "Rewrite: {{{{ draft }}}}", max_tokens: 200 }}
      until: critique.faithful
      rounds: 2
      critiques_into: checks
  - judge:
      teacher: small
      prompt: "Grade: {{{{ better }}}}"
      into: grade
      scale: [1, 5]
      max_tokens: 200
      escalate: {{ to: large, unless: "grade < 3" }}
save: {{ parquet: out, columns: [n, question, messages, better, checks, grade] }}
"#
    )
}

const BATCH: &str = "    mode: batch\n    batch: { poll: 20ms, doubt: 600ms, items_max: 40 }";
const AUTO: &str = "    mode: auto\n    batch: { poll: 20ms, doubt: 600ms, live_below: 10 }";

fn prepare(url: &str, count: usize, way: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(count));
    workspace.write("p.yaml", &pipeline(url, way));
    workspace
}

/// What a live run makes of so many rows, and how many answers it paid.
fn live(count: usize) -> (Workspace, Value, u64) {
    let teacher = FakeTeacher::start(&["--reply-bytes", "120"]);
    let workspace = prepare(&teacher.url, count, "");
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    let paid = teacher.stats()["requests"].as_u64().unwrap();
    let rewritten = accounts["calls"]["better"]["calls"].as_u64().unwrap();
    assert!(rewritten > count as u64, "no text was rewritten: {accounts:#}");
    (workspace, accounts, paid)
}

fn parts(workspace: &Workspace) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let parts = workspace.files(&workspace.path().join("out/data"));
    assert!(!parts.is_empty());
    parts
}

/// Answers that were paid, live and in batches; none of them twice.
#[track_caller]
fn paid(teacher: &FakeTeacher) -> [u64; 2] {
    let stats = teacher.stats();
    assert_eq!(stats["batches"]["paid_again"], 0);
    [&stats["requests"], &stats["batches"]["paid"]].map(|count| count.as_u64().unwrap())
}

#[test]
fn talks_in_batches_are_those_of_a_live_run() {
    let (calm, accounts, all) = live(60);
    for way in [BATCH, AUTO] {
        let teacher = FakeTeacher::start(&["--reply-bytes", "120", "--batch-ms", "20"]);
        let workspace = prepare(&teacher.url, 60, way);
        let said = workspace.json(&["run", "p.yaml", "--json"], 0);
        assert_eq!((&said["balances"], &said["tally"]), (&true.into(), &accounts["tally"]), "{way}");
        assert!(parts(&workspace) == parts(&calm), "{way}: the datasets differ");
        let [live, batched] = paid(&teacher);
        assert_eq!(live + batched, all, "{way}");
        assert!(batched > 60 && (live == 0) == (way == BATCH), "{way}: {live} live, {batched} in batches");
    }
}

#[test]
fn kills_in_a_talk_pay_nothing_twice() {
    let (calm, accounts, all) = live(40);
    let teacher =
        FakeTeacher::start(&["--reply-bytes", "120", "--batch-ms", "150", "--batch-create-ms", "60"]);
    let workspace = prepare(&teacher.url, 40, BATCH);
    let (mut moments, mut kills) = (Moments::new(), 0);
    while kills < 8 && killed(&workspace, Duration::from_millis(100 + moments.next(900))) {
        kills += 1;
    }
    assert!(kills >= 3, "the run ended after {kills} kills; make it longer");
    let said = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(said["tally"], accounts["tally"]);
    assert!(parts(&workspace) == parts(&calm), "the datasets differ");
    assert_eq!(paid(&teacher), [0, all]);
}
