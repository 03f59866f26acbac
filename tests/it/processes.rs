//! Several processes in one workspace: what they share is shared, what one is about the others leave alone.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::workspace::{FakeTeacher, Workspace, rows, until};

/// A workspace with two pipelines, `a.yaml` and `b.yaml`, that ask one teacher. `more` are lines of its own.
fn workspace(url: &str, counts: [usize; 2], limits: &str, more: &str) -> Workspace {
    let workspace = Workspace::new();
    for (name, count) in ["a", "b"].into_iter().zip(counts) {
        workspace.write(&format!("{name}.jsonl"), &rows(count));
        let pipeline = format!(
            r#"
textmill: 1
name: {name}
teachers:
  writer: {{ openai: {{ url: "{url}", model: fake }}, limits: {{ {limits} }} }}
{more}
source: {{ files: {{ path: {name}.jsonl }} }}
steps:
  - generate: {{ teacher: writer, prompt: "Write {name} about {{{{ topic }}}}.", into: text, max_tokens: 250 }}
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

/// The accounts of a process that must end with this code.
#[track_caller]
fn ended(child: Child, code: i32) -> Value {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn asked(teacher: &FakeTeacher) -> u64 {
    teacher.stats()["requests"].as_u64().unwrap()
}

#[test]
fn two_processes_spend_one_daily_budget() {
    let check = |cap: u64, budget: &str, books: &dyn Fn(&Value) -> u64, worst: u64| {
        let teacher =
            FakeTeacher::start(&["--latency-ms", "20", "--latency-sigma", "0.8", "--reply-bytes", "400"]);
        let budget = format!("budget: {{ per_day: {budget} }}");
        let workspace = workspace(&teacher.url, [300, 300], "in_flight: 64", &budget);
        let both = [start(&workspace, "a.yaml"), start(&workspace, "b.yaml")];
        let [a, b] = both.map(|child| ended(child, 1));
        for accounts in [&a, &b] {
            let stopped = accounts["stopped"].as_str().unwrap();
            assert!(stopped.contains("per day is reached") && accounts["balances"] == true, "{accounts:#}");
        }
        let spent = books(&teacher.stats());
        assert!(spent <= cap && spent + worst > cap, "{spent} of {cap}: {a:#} {b:#}");
        for name in ["a.yaml", "b.yaml"] {
            workspace
                .run(&[
                    "run",
                    name,
                    "--set",
                    "budget.per_day.calls=9999999",
                    "--set",
                    "budget.per_day.tokens=9999999",
                ])
                .ended(0);
        }
        let rows = |pipeline: &str| {
            workspace.json(
                &[
                    "run",
                    pipeline,
                    "--json",
                    "--set",
                    "budget.per_day.tokens=9999999",
                    "--set",
                    "budget.per_day.calls=9999999",
                ],
                0,
            )["tally"]["kept"]
                .clone()
        };
        assert_eq!([rows("a.yaml"), rows("b.yaml")], [300, 300]);
    };
    check(200, "{ calls: 200 }", &|stats| stats["requests"].as_u64().unwrap(), 1);
    let tokens = |stats: &Value| stats["tokens_in"].as_u64().unwrap() + stats["tokens_out"].as_u64().unwrap();
    check(30_000, "{ tokens: 30_000 }", &tokens, 500);
}

#[test]
fn an_epoch_is_run_once_at_a_time_and_the_store_kept_from_upkeep() {
    let teacher = FakeTeacher::start(&["--latency-ms", "150", "--reply-bytes", "300"]);
    let workspace = workspace(&teacher.url, [60, 4], "in_flight: 4", "");
    let first = start(&workspace, "a.yaml");
    until("nothing was asked", &|| asked(&teacher) > 0);
    let who = format!("process {}, started 20", first.id());
    workspace.run(&["run", "a.yaml"]).ended(2).says(&["epoch `0` of `a` is being run by ", &who]);
    workspace.run(&["store", "prune", "--all", "--yes"]).ended(2).says(&["is in use by ", &who]);
    workspace
        .run(&["run", "a.yaml", "--epoch", "1"])
        .ended(2)
        .says(&["another run is saving to the same dataset"]);
    workspace.run(&["run", "b.yaml"]).ended(0).says(&["4 rows in ./out-b"]);
    assert_eq!(ended(first, 0)["tally"]["kept"], 60);
    assert_eq!(asked(&teacher), 64);
    workspace.run(&["store", "prune", "--all", "--yes"]).ended(0);
}

#[test]
fn a_killed_process_takes_nothing_from_one_that_lives() {
    let teacher = FakeTeacher::start(&["--latency-ms", "400", "--reply-bytes", "300"]);
    let budget = "budget: { calls: 1000, per_day: { calls: 1000 } }";
    let workspace = workspace(&teacher.url, [40, 40], "in_flight: 8", budget);
    // The one that dies has calls in flight: it had all places before the other came.
    let mut dies = start(&workspace, "a.yaml");
    until("nothing was asked", &|| asked(&teacher) > 0);
    let lives = start(&workspace, "b.yaml");
    until("nothing was asked", &|| asked(&teacher) > 12);
    dies.kill().unwrap();
    dies.wait().unwrap();
    // Another opens the store while the other's calls are under way.
    let again = ended(start(&workspace, "a.yaml"), 0);
    let lives = ended(lives, 0);
    assert_eq!((&lives["tally"]["kept"], &again["tally"]["kept"]), (&40.into(), &40.into()));
    let calls = |accounts: &Value| accounts["epoch_spent"]["calls"].as_u64().unwrap();
    assert_eq!(calls(&lives), 40);
    // What was in flight at the kill is asked again, or had just landed and was not on disk; it counts, and so
    // does what was reserved and waited.
    let repeated = asked(&teacher) - 80;
    let spent = calls(&again);
    assert!((1..=16).contains(&repeated) && (40 + repeated..=80).contains(&spent), "{repeated}, {again:#}");
    let all = format!("of which {} are spent today", 40 + spent);
    workspace.run(&["plan", "b.yaml"]).ended(0).prints(&[&all]);
}

#[test]
fn two_processes_share_one_allowance() {
    const PER_S: f64 = 50.0;
    let teacher =
        FakeTeacher::start(&["--requests-per-minute", "3000", "--latency-ms", "100", "--reply-bytes", "300"]);
    let limits = "requests_per_minute: 3000, in_flight: 64";
    let workspace = workspace(&teacher.url, [900, 900], limits, "");
    let stays = start(&workspace, "a.yaml");
    std::thread::sleep(Duration::from_secs(3));
    let mut goes = start(&workspace, "b.yaml");
    std::thread::sleep(Duration::from_secs(10));
    goes.kill().unwrap();
    goes.wait().unwrap();
    let by_second = |stats: &Value| -> Vec<f64> {
        stats["ok_by_second"].as_array().unwrap().iter().filter_map(Value::as_f64).collect()
    };
    let alone_from = by_second(&teacher.stats()).len();
    assert_eq!(ended(stays, 0)["tally"]["kept"], 900);
    let stats = teacher.stats();
    let (refused, asked) = (stats["rate_limited"].as_f64().unwrap(), stats["requests"].as_f64().unwrap());
    assert!(refused <= 0.005 * asked, "{refused} of {asked} were refused: {stats:#}");
    let by_second = by_second(&stats);
    let used = |seconds: std::ops::Range<usize>| {
        let count = seconds.len() as f64;
        by_second[seconds].iter().sum::<f64>() / count / PER_S
    };
    // Both at work, once they have found each other; and one that is left alone.
    let together = used(6..alone_from - 1);
    assert!(together >= 0.95, "{together} of the allowance was used: {by_second:?}");
    let alone = used(alone_from + 2..by_second.len() - 1);
    assert!(alone >= 0.95, "{alone} of the allowance was used by one alone: {by_second:?}");
}
