//! Calls in batches: the same dataset, nothing paid twice, whatever comes between.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::workspace::{FakeTeacher, Moments, Workspace, rows, until};

/// The two providers that have batches.
const APIS: [&str; 2] = ["openai", "anthropic"];

/// A pipeline of two steps that ask; `teacher` are settings of the teacher beside its API.
fn pipeline(api: &str, url: &str, teacher: &str, more: &str) -> String {
    format!(
        r#"
textmill: 1
name: batches
teachers:
  writer:
    {api}: {{ url: "{url}", model: fake }}
    identity: the-fake
    price: {{ input: 1, output: 2, batch: 0.5 }}
{teacher}
{more}
source: {{ files: {{ path: rows.jsonl }} }}
steps:
  - generate: {{ teacher: writer, prompt: "Write about {{{{ topic }}}}.", into: text, max_tokens: 400 }}
  - generate: {{ teacher: writer, prompt: "Grade: {{{{ text }}}}", into: grade, json: {{ score: integer }}, max_tokens: 400 }}
  - keep_if: grade.score % 3 != 0
save: {{ parquet: out }}
"#
    )
}

const BATCH: &str = "    mode: batch\n    batch: { poll: 50ms, doubt: 1s, items_max: 700 }";

fn prepare(api: &str, url: &str, count: usize, teacher: &str, more: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(count));
    workspace.write("p.yaml", &pipeline(api, url, teacher, more));
    workspace
}

fn parts(workspace: &Workspace) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let parts = workspace.files(&workspace.path().join("out/data"));
    assert!(!parts.is_empty());
    parts
}

fn batches(teacher: &FakeTeacher) -> Value {
    teacher.stats()["batches"].clone()
}

const SMALL: [&str; 2] = ["--reply-bytes", "200"];

#[test]
fn a_run_in_batches_makes_the_dataset_of_a_live_run() {
    for api in APIS {
        let teacher = FakeTeacher::start(&SMALL);
        let live = prepare(api, &teacher.url, 2000, "", "");
        let calm = live.json(&["run", "p.yaml", "--json"], 0);
        assert_eq!(teacher.stats()["requests"], 4000);
        let batched = prepare(api, &teacher.url, 2000, BATCH, "");
        let accounts = batched.json(&["run", "p.yaml", "--json"], 0);
        assert_eq!(accounts["balances"], true);
        assert_eq!(accounts["tally"], calm["tally"]);
        assert!(parts(&batched) == parts(&live), "{api}: the datasets differ");
        assert_eq!(teacher.stats()["requests"], 4000, "no call went live");
        let stats = batches(&teacher);
        assert_eq!((&stats["paid"], &stats["paid_again"]), (&Value::from(4000), &Value::from(0)));
        // Each step's 2,000 calls: 700, 700 and what was left.
        assert_eq!((&stats["batches"], &stats["items_max"]), (&Value::from(6), &Value::from(700)));
        let half = calm["epoch_spent"]["usd"].as_f64().unwrap() / 2.0;
        let paid = accounts["epoch_spent"]["usd"].as_f64().unwrap();
        assert!((paid / half - 1.0).abs() < 0.001, "{paid} USD are not half of the live run's {half}");
        for step in ["text", "grade"] {
            let calls = &accounts["calls"][step];
            assert_eq!((&calls["calls"], &calls["from_store"]), (&Value::from(2000), &Value::from(0)));
        }
        // Either finds what the other has asked.
        batched.write("p.yaml", &pipeline(api, &teacher.url, "", ""));
        let again = batched.json(&["run", "p.yaml", "--json"], 0);
        assert_eq!(again["calls"]["text"]["from_store"], 2000);
        assert_eq!(teacher.stats()["requests"], 4000);
    }
}

#[test]
fn a_dozen_kills_pay_nothing_twice() {
    // A batch is there long before its maker is told.
    let slow = ["--reply-bytes", "200", "--batch-ms", "400", "--batch-create-ms", "150"];
    for api in APIS {
        let calm_teacher = FakeTeacher::start(&SMALL);
        let calm = prepare(api, &calm_teacher.url, 600, "", "");
        let accounts = calm.json(&["run", "p.yaml", "--json"], 0);
        let teacher = FakeTeacher::start(&slow);
        let settings = "    mode: batch\n    batch: { poll: 50ms, doubt: 600ms, items_max: 150 }";
        let workspace = prepare(api, &teacher.url, 600, settings, "");
        let mut moments = Moments::new();
        let mut kills = 0;
        while kills < 12 {
            if !workspace.killed(Duration::from_millis(60 + moments.next(700))) {
                break;
            }
            kills += 1;
        }
        let said = workspace.json(&["run", "p.yaml", "--json"], 0);
        let stats = batches(&teacher);
        assert_eq!(
            (&stats["paid"], &stats["paid_again"]),
            (&Value::from(1200), &Value::from(0)),
            "{api} {kills}"
        );
        assert_eq!(said["balances"], true);
        assert_eq!(said["tally"], accounts["tally"]);
        assert!(parts(&workspace) == parts(&calm), "{api}: the datasets differ");
        // The money is exactly that of the items, whatever was in doubt.
        let (spent, live) = (&said["epoch_spent"], &accounts["epoch_spent"]);
        assert_eq!((&spent["calls"], &spent["tokens"]), (&live["calls"], &live["tokens"]));
        assert!(kills >= 4, "{api}: the run ended after {kills} kills; make it longer");
    }
}

#[test]
fn expired_items_are_asked_again_and_declined_ones_are_not() {
    for api in APIS {
        let teacher = FakeTeacher::start(&["--reply-bytes", "200", "--batch-expired", "0.2"]);
        let workspace = prepare(api, &teacher.url, 300, &format!("{BATCH}\n    attempts: 12"), "");
        let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
        let stats = batches(&teacher);
        assert_eq!((&stats["paid"], &stats["paid_again"]), (&Value::from(600), &Value::from(0)));
        assert!(stats["expired"].as_u64().unwrap() > 60, "{stats}");
        assert_eq!(accounts["batches"]["again"], stats["expired"]);
        assert_eq!(accounts["tally"]["failed"], 0);

        let teacher = FakeTeacher::start(&["--reply-bytes", "200", "--fault", "400=0.1", "--fault-sticky"]);
        let workspace = prepare(api, &teacher.url, 300, BATCH, "");
        let accounts = workspace.json(&["run", "p.yaml", "--json"], 1);
        let declined = batches(&teacher)["errored"].as_u64().unwrap();
        assert!(declined > 20, "{accounts:#}");
        assert_eq!(accounts["tally"]["failed"], declined);
        let items = batches(&teacher)["items"].clone();
        workspace.json(&["run", "p.yaml", "--json"], 1);
        assert_eq!(batches(&teacher)["items"], items, "what was declined is not asked again");
    }
}

#[test]
fn a_call_that_brings_nothing_is_given_up() {
    let teacher = FakeTeacher::start(&["--batch-expired", "1", "--batch-ms", "20"]);
    let workspace = prepare("openai", &teacher.url, 10, &format!("{BATCH}\n    attempts: 3"), "");
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 1);
    assert_eq!(accounts["tally"]["failed"], 10);
    assert_eq!(accounts["tally"]["steps"][0]["failed"]["expired"], 10);
    assert_eq!(batches(&teacher)["batches"], 3);
    assert_eq!(accounts["epoch_spent"]["calls"], 0);
}

#[test]
fn a_stopped_run_leaves_its_batches_and_the_next_one_collects_them() {
    let teacher = FakeTeacher::start(&["--reply-bytes", "200", "--batch-ms", "4000"]);
    let workspace = prepare("openai", &teacher.url, 200, BATCH, "");
    let mut child = workspace.command(&["run", "p.yaml"]).stderr(Stdio::piped()).spawn().unwrap();
    until("no batch was sent", &|| batches(&teacher)["batches"] == 1);
    std::thread::sleep(Duration::from_millis(300));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let words = "1 batch with 200 calls goes on at the provider (`batch_1`); run again to collect it";
    assert!(said.contains(words), "{said}");
    workspace.run(&["store", "batches"]).ended(0).prints(&["batch_1", "under way", "200"]);
    workspace.run(&["run", "p.yaml"]).ended(0).says(&["400 answered"]);
    let stats = batches(&teacher);
    assert_eq!(
        (&stats["batches"], &stats["paid"], &stats["paid_again"]),
        (&2.into(), &400.into(), &0.into())
    );
    let listed = workspace.json(&["store", "batches", "--json"], 0);
    assert_eq!(
        (&listed[1]["batch"], &listed[1]["state"], &listed[1]["answered"]),
        (&"batch_1".into(), &"ended".into(), &200.into())
    );
}

#[test]
fn a_budget_holds_over_batches_and_kills() {
    let teacher = FakeTeacher::start(&["--reply-bytes", "200", "--batch-ms", "300"]);
    let settings = "    mode: batch\n    batch: { poll: 50ms, doubt: 500ms, items_max: 100 }";
    let workspace = prepare("openai", &teacher.url, 400, settings, "budget: { calls: 550 }");
    for after in [250, 400, 600] {
        workspace.killed(Duration::from_millis(after));
    }
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 1);
    assert!(accounts["stopped"].as_str().unwrap().starts_with("the budget of 550 calls is reached"));
    assert_eq!(accounts["balances"], true);
    let stats = batches(&teacher);
    assert_eq!((&stats["paid"], &stats["paid_again"]), (&550.into(), &0.into()));
    let accounts = workspace.json(&["run", "p.yaml", "--json", "--set", "budget.calls=800"], 0);
    assert_eq!((&accounts["tally"]["open"], &accounts["epoch_spent"]["calls"]), (&0.into(), &800.into()));
}

#[test]
fn what_is_urgent_goes_live() {
    let teacher = FakeTeacher::start(&["--reply-bytes", "200", "--batch-ms", "50"]);
    let auto = "    mode: auto\n    batch: { poll: 50ms, live_below: 100 }";
    // Too few for a batch.
    let few = prepare("openai", &teacher.url, 99, auto, "");
    few.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!((&teacher.stats()["requests"], &batches(&teacher)["batches"]), (&198.into(), &0.into()));
    // Enough, but for those that expire: these are then too few to wait for.
    let teacher = FakeTeacher::start(&["--reply-bytes", "200", "--batch-ms", "50", "--batch-expired", "0.1"]);
    let many = prepare("openai", &teacher.url, 300, auto, "");
    let accounts = many.json(&["run", "p.yaml", "--json"], 0);
    let (live, stats) = (teacher.stats()["requests"].as_u64().unwrap(), batches(&teacher));
    assert_eq!(live, stats["expired"].as_u64().unwrap());
    assert!(live > 20);
    assert_eq!((stats["paid"].as_u64().unwrap() + live, &stats["paid_again"]), (600, &0.into()));
    assert_eq!(accounts["tally"]["failed"], 0);
    // After its time nothing waits for a batch.
    let late = "    mode: auto\n    batch: { poll: 50ms, live_below: 0, live_after: 1ms }";
    let teacher = FakeTeacher::start(&SMALL);
    prepare("openai", &teacher.url, 150, late, "").json(&["run", "p.yaml", "--json"], 0);
    assert_eq!((&teacher.stats()["requests"], &batches(&teacher)["batches"]), (&300.into(), &0.into()));
}

#[test]
fn a_wrong_key_stops_a_run_in_batches_and_leaves_nothing_reserved() {
    let teacher = FakeTeacher::start(&["--fault", "401=1"]);
    let workspace = prepare("openai", &teacher.url, 30, BATCH, "budget: { calls: 1000 }");
    workspace.run(&["run", "p.yaml"]).ended(2).says(&["teacher `writer`: Incorrect API key provided"]);
    let plan = workspace.json(&["plan", "p.yaml", "--json"], 0);
    assert_eq!(plan["spent"]["calls"], 30);
}

#[test]
fn a_plan_says_what_batches_cost() {
    let workspace = prepare("anthropic", "http://127.0.0.1:9/v1", 20, BATCH, "");
    let half = workspace.json(&["plan", "p.yaml", "--json"], 0)["usd"]["high"].as_f64().unwrap();
    workspace.run(&["plan", "p.yaml"]).ended(0).prints(&[
        "calls of `text`, `grade` go in batches: each takes up to 24 hours; reckoned at 0.5 of the price",
    ]);
    workspace.write("p.yaml", &pipeline("anthropic", "http://127.0.0.1:9/v1", "", ""));
    let whole = workspace.json(&["plan", "p.yaml", "--json"], 0)["usd"]["high"].as_f64().unwrap();
    assert!((whole / half - 2.0).abs() < 1e-6, "{half} is not half of {whole}");
}
