//! Steps that ask several teachers: conversations, rewrites, escalations, by the real binary.

use serde_json::{Value, json};

use crate::workspace::{FakeTeacher, Workspace, rows};

/// A step of each kind, with two teachers that differ in their model.
fn pipeline(url: &str) -> String {
    format!(
        r#"
textmill: 1
name: several
teachers:
  cheap: {{ openai: {{ url: "{url}", model: small }}, identity: the-cheap, price: {{ input: 1, output: 1 }} }}
  dear: {{ openai: {{ url: "{url}", model: large }}, identity: the-dear, price: {{ input: 10, output: 10 }} }}
source: {{ files: {{ path: rows.jsonl }} }}
steps:
  - generate:
      {{ teacher: cheap, prompt: "Ask about {{{{ topic }}}}.", into: question, max_tokens: 400,
        escalate: {{ to: dear, unless: (question | length) % 2 == 0 }} }}
  - converse:
      into: messages
      user: {{ teacher: cheap, system: "You ask.", prompt: "Begin.", max_tokens: 400 }}
      assistant: {{ teacher: dear, system: "You answer.", max_tokens: 400 }}
      opening: "{{{{ question }}}}"
      turns: 3
      until: (last.assistant | length) % 3 == 0
  - refine:
      field: question
      into: better
      critique: {{ teacher: dear, prompt: "Grade {{{{ draft }}}}", json: {{ score: integer }}, max_tokens: 400 }}
      rewrite: {{ teacher: cheap, prompt: "Mend {{{{ draft }}}}", max_tokens: 400 }}
      until: critique.score % 2 == 1
      rounds: 2
      held_into: held
      critiques_into: rounds
save: {{ parquet: out, provenance: true }}
"#
    )
}

#[test]
fn the_data_hang_on_no_timing_and_a_second_run_asks_nobody() {
    let teacher =
        FakeTeacher::start(&["--latency-ms", "3", "--latency-sigma", "1.5", "--reply-bytes", "120"]);
    let text = pipeline(&teacher.url);
    let run = |in_flight: u32| {
        let workspace = Workspace::new();
        workspace.write("rows.jsonl", &rows(60));
        workspace.write("p.yaml", &text);
        let set = ["cheap", "dear"].map(|name| format!("teachers.{name}.limits.in_flight={in_flight}"));
        let args = ["run", "p.yaml", "--json", "--set", &set[0], "--set", &set[1]];
        let first = workspace.json(&args, 0);
        let dataset = workspace.files(&workspace.path().join("out"));
        let again = workspace.json(&args, 0);
        assert!(
            dataset == workspace.files(&workspace.path().join("out")),
            "the second run's dataset differs"
        );
        (first, again, dataset)
    };
    let (first, again, dataset) = run(1);
    assert!(dataset == run(64).2, "the datasets differ");
    assert_eq!((&first["balances"], &first["tally"]["kept"]), (&json!(true), &json!(60)));
    let count = |accounts: &Value, step: &str, of: &str| accounts["calls"][step][of].as_u64().unwrap();
    for step in ["question", "messages", "better"] {
        assert_eq!(count(&again, step, "calls"), 0);
        assert_eq!(count(&again, step, "from_store"), count(&first, step, "calls"));
        let sum: u64 = ["cheap", "dear"]
            .map(|name| first["calls"][step]["teachers"][name]["calls"].as_u64().unwrap())
            .iter()
            .sum();
        assert_eq!(sum, count(&first, step, "calls"));
    }
    let escalated = count(&first, "question", "escalated");
    assert!((1..60).contains(&escalated), "{escalated}");
    assert_eq!(first["calls"]["question"]["teachers"]["dear"]["calls"], escalated);
    assert_eq!(count(&again, "question", "escalated"), escalated);
    assert_eq!(count(&first, "messages", "escalated"), 0);
}

#[test]
fn the_report_and_the_manifest_tell_the_teachers_apart() {
    let teacher = FakeTeacher::start(&["--reply-bytes", "120"]);
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(20));
    workspace.write("p.yaml", &pipeline(&teacher.url));
    let said = workspace.run(&["run", "p.yaml"]).ended(0);
    said.says(&["rows that went on to the next teacher: `question` "]);
    let manifest: Value = serde_json::from_str(&workspace.read("out/manifest.json")).unwrap();
    let teachers: Vec<(&str, &str)> = manifest["teachers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|teacher| (teacher["name"].as_str().unwrap(), teacher["models"][0].as_str().unwrap()))
        .collect();
    assert_eq!(teachers, [("cheap", "small"), ("dear", "large")]);
    let spending =
        manifest["runs"][0]["spending"].as_array().or(manifest["run"]["spending"].as_array()).unwrap();
    let spent = |index: usize| {
        let of = |key: &str| spending[index][key].as_f64().unwrap();
        (of("usd") * 1e6 / (of("tokens_in") + of("tokens_out"))).round()
    };
    assert_eq!((spent(0), spent(1)), (1.0, 10.0));
}

#[test]
fn a_plan_bounds_what_depends_on_answers() {
    let teacher = FakeTeacher::start(&["--reply-bytes", "120"]);
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(10));
    workspace.write("p.yaml", &pipeline(&teacher.url));
    let planned = || {
        let plan = workspace.json(&["plan", "p.yaml", "--json"], 0);
        let line = |step: &Value| {
            let calls = &step["calls"];
            format!("{} {} {}-{}", step["step"], step["teacher"], calls["low"], calls["high"])
                .replace('"', "")
        };
        (plan["steps"].as_array().unwrap().iter().map(line).collect::<Vec<_>>(), plan)
    };
    let (lines, plan) = planned();
    assert_eq!(
        lines,
        [
            "question cheap 10-10",
            "question dear 0-10",
            "messages cheap 0-20",
            "messages dear 10-30",
            "better dear 10-30",
            "better cheap 0-20",
        ]
    );
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    // What it came to lies within, in tokens and money as well.
    for step in plan["steps"].as_array().unwrap() {
        let came =
            &accounts["calls"][step["step"].as_str().unwrap()]["teachers"][step["teacher"].as_str().unwrap()];
        for key in ["calls", "tokens_in", "tokens_out", "usd"] {
            let came = came[key].as_f64().unwrap();
            // The fake teacher counts words as tokens, which are fewer than a plan's least.
            let low = if key == "calls" { step[key]["low"].as_f64().unwrap() } else { 0.0 };
            assert!(
                (low..=step[key]["high"].as_f64().unwrap()).contains(&came),
                "{step}: {key} came to {came}"
            );
        }
    }
    let (lines, plan) = planned();
    assert!(lines.iter().all(|line| line.ends_with(" 0-0")), "{lines:?}");
    assert_eq!(plan["edits"], json!([]));
}
