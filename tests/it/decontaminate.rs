//! `decontaminate` in whole runs: its report, and vectors from a teacher.

use serde_json::json;

use crate::workspace::{FakeTeacher, Workspace};

const QUESTION: &str =
    "Each row of a theatre has a number of seats. Which tickets are still to be had for each row?";

const ANSWER: &str = "Those that nobody has bought.";

fn prepare(teachers: &str, step: &str) -> Workspace {
    let workspace = Workspace::new();
    let line = |value: serde_json::Value| format!("{value}\n");
    workspace.write("bench.jsonl", &line(json!({"question": QUESTION, "answer": ANSWER})));
    let rows = [
        QUESTION.replace("theatre", "cinema"),
        "Quite another text.".to_owned(),
        format!("{QUESTION}\n{ANSWER}"),
    ];
    let rows: String = rows.iter().map(|text| line(json!({"text": text}))).collect();
    workspace.write("rows.jsonl", &rows);
    workspace.write(
        "p.yaml",
        &format!(
            "textmill: 1\nname: clean\n{teachers}source: {{ files: {{ path: rows.jsonl }} }}\nsteps:\n  \
             - decontaminate: {{ fields: [text], against: [bench.jsonl]{step} }}\nsave: {{ parquet: out }}\n"
        ),
    );
    workspace
}

#[test]
fn the_report_has_both_passages() {
    let workspace = prepare("", "");
    workspace.run(&["contamination", "p.yaml"]).ended(2).says(&["has not run here yet"]);
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(accounts["tally"]["steps"][0]["rejected"], json!({ "contaminated": 2 }), "{accounts}");
    workspace.run(&["contamination", "p.yaml"]).ended(0).prints(&[
        "bench: 2 rows contain 1 items (2 ngrams)",
        "Each row of a cinema has",
        "| Each row of a theatre has",
    ]);
    workspace
        .run(&["contamination", "p.yaml", "--json"])
        .ended(0)
        .prints(&["\"row\":\"0\"", "\"row\":\"2\""]);
}

#[test]
fn vectors_of_a_teacher_are_asked_for_once() {
    let teacher = FakeTeacher::start(&[]);
    let teachers =
        format!("teachers:\n  embedder: {{ embeddings: {{ url: \"{}\", model: fake }} }}\n", teacher.url);
    let step = ", stages: [embeddings], embeddings: { teacher: embedder, threshold: 0.8 }";
    let workspace = prepare(&teachers, step);
    workspace.run(&["plan", "p.yaml"]).ended(0);
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    // The fake teacher's vectors say nothing of the meaning: only the item's own words are near it.
    assert_eq!(accounts["tally"]["steps"][0]["rejected"], json!({ "contaminated": 1 }), "{accounts}");
    assert_eq!(accounts["tally"]["kept"], 2, "{accounts}");
    // 100 shipped texts, one item, three rows, two vectors each but for those that are alike.
    let calls = |accounts: &serde_json::Value, kind: &str| accounts["calls"]["decontaminate"][kind].as_u64();
    let asked = calls(&accounts, "calls").unwrap();
    assert!((100..=208).contains(&asked), "{accounts}");
    // All of it is in the store from then on.
    let again = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!((again["tally"]["kept"].as_u64(), calls(&again, "calls")), (Some(2), Some(0)), "{again}");
    assert!(calls(&again, "from_store") >= Some(asked), "{again}");
    workspace
        .run(&["contamination", "p.yaml"])
        .ended(0)
        .prints(&["bench: 1 rows contain 1 items (1 embeddings)"]);
}
