//! Kill -9 at any moment: nothing that was paid is lost, and the dataset is the same in the end.

use std::time::Duration;

use crate::workspace::{FakeTeacher, Moments, Workspace, lives, rows, until};

const IN_FLIGHT: u64 = 32;

fn pipeline(url: &str, budget: &str) -> String {
    format!(
        r#"
textmill: 1
name: crash
teachers:
  writer:
    openai: {{ url: "{url}", model: fake }}
    limits: {{ in_flight: {IN_FLIGHT} }}
    identity: the-fake
    price: {{ input: 1, output: 2 }}
{budget}
source: {{ files: {{ path: rows.jsonl }} }}
steps:
  - generate: {{ teacher: writer, prompt: "Write about {{{{ topic }}}}.", into: text, max_tokens: 400 }}
  - generate: {{ teacher: writer, prompt: "Grade: {{{{ text }}}}", into: grade, json: {{ score: integer }}, max_tokens: 400 }}
  - keep_if: grade.score % 3 != 0
save: {{ parquet: out, provenance: true }}
"#
    )
}

fn prepare(url: &str, count: usize, budget: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(count));
    workspace.write("p.yaml", &pipeline(url, budget));
    workspace
}

#[test]
fn twenty_kills_cost_only_what_was_in_flight() {
    let teacher =
        FakeTeacher::start(&["--latency-ms", "20", "--latency-sigma", "0.5", "--reply-bytes", "400"]);
    let undisturbed = prepare(&teacher.url, 2000, "");
    let calm = undisturbed.json(&["run", "p.yaml", "--json"], 0);
    let calm_calls = teacher.stats()["requests"].as_u64().unwrap();
    drop(teacher);

    let teacher =
        FakeTeacher::start(&["--latency-ms", "20", "--latency-sigma", "0.5", "--reply-bytes", "400"]);
    let disturbed = prepare(&teacher.url, 2000, "");
    let mut moments = Moments::new();
    let mut kills = 0;
    while kills < 20 {
        if !disturbed.killed(Duration::from_millis(30 + moments.next(220))) {
            break;
        }
        kills += 1;
    }
    let accounts = disturbed.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(accounts["balances"], true);
    assert_eq!(accounts["tally"], calm["tally"]);
    let calls = teacher.stats()["requests"].as_u64().unwrap();
    let repeated = calls - calm_calls;
    assert!(kills >= 10, "the run ended after {kills} kills; make it longer");
    assert!(repeated <= kills * IN_FLIGHT, "{repeated} calls were repeated over {kills} kills");
    let parts = |workspace: &Workspace| workspace.files(&workspace.path().join("out/data"));
    assert!(!parts(&undisturbed).is_empty());
    assert!(parts(&disturbed) == parts(&undisturbed), "the datasets differ");
}

#[test]
fn the_budget_holds_through_kills() {
    let teacher = FakeTeacher::start(&["--latency-ms", "20", "--reply-bytes", "400"]);
    let cap = 600;
    let workspace = prepare(&teacher.url, 1000, &format!("budget: {{ calls: {cap} }}"));
    let mut moments = Moments::new();
    for _ in 0..20 {
        workspace.killed(Duration::from_millis(30 + moments.next(150)));
    }
    let last = workspace.run(&["run", "p.yaml", "--json"]);
    assert_eq!(last.code, Some(1), "{}", last.stderr);
    let accounts: serde_json::Value = serde_json::from_str(&last.stdout).unwrap();
    assert_eq!(accounts["balances"], true);
    assert!(accounts["stopped"].as_str().unwrap().starts_with("the budget of 600 calls is reached"));
    assert!(!workspace.path().join("out").exists(), "a run that stops early publishes nothing");
    let sent = teacher.stats()["requests"].as_u64().unwrap();
    assert!(sent <= cap, "{sent} calls were sent under a budget of {cap}");
    // A higher cap resumes it.
    let accounts = workspace.json(&["run", "p.yaml", "--json", "--set", "budget.calls=100000"], 0);
    assert_eq!(accounts["tally"]["open"], 0);
}

#[test]
fn a_hung_command_does_not_outlive_a_kill() {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(1));
    // It closes nothing and reads nothing more: only a signal ends it.
    let script = "#!/bin/sh\nread line\necho $$ > pid.new && mv pid.new pid\nsleep 600\n";
    workspace.write("hang.sh", script);
    workspace.write(
        "p.yaml",
        "textmill: 1\nname: hung\nsource: { files: { path: rows.jsonl } }\nsteps:\n  \
         - command: { argv: [sh, hang.sh], makes: { x: string }, timeout: 10m }\nsave: { parquet: out }\n",
    );
    let mut child =
        workspace.command(&["run", "p.yaml"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let pid = workspace.path().join("pid");
    until("the command did not start", &|| pid.exists());
    let pid = workspace.read("pid");
    assert!(lives(&pid));
    child.kill().unwrap();
    child.wait().unwrap();
    until("the command is still there", &|| !lives(&pid));
}
