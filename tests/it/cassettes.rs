//! Recorded traffic: every wire format writes the requests that it wrote when the traffic was recorded, to the
//! letter of their JSON, and reads the same answers.
//!
//! The cassettes in `tests/cassettes/` are of llmock 0.2.2; `pipeline.yaml` beside them with a teacher's `record:`
//! makes them anew.

use std::path::Path;

use serde_json::json;

use crate::workspace::Workspace;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cassettes"))
}

fn check(format: &str) {
    let workspace = Workspace::new();
    let cassette = std::fs::read_to_string(folder().join(format!("{format}.jsonl"))).unwrap();
    workspace.write("cassette.jsonl", &cassette);
    let teacher = format!("{{ recorded: {{ cassette: cassette.jsonl, model: some-model, api: {format} }} }}");
    let pipeline = std::fs::read_to_string(folder().join("pipeline.yaml")).unwrap();
    let pipeline = pipeline.replace("writer: TEACHER", &format!("writer: {teacher}"));
    workspace.write("p.yaml", &pipeline);
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(accounts["tally"]["kept"], 2, "{format}: {accounts}");
    // Every recorded exchange was asked for.
    let asked = |step: &str| accounts["calls"][step]["calls"].as_u64().unwrap();
    assert_eq!(asked("text") + asked("rating"), cassette.lines().count() as u64, "{format}");
    // What was asked and answered is read again, whatever the format.
    workspace.write("p.yaml", &pipeline.replace("parquet: out", "parquet: out, provenance: true"));
    workspace.json(&["run", "p.yaml", "--json"], 0);
    workspace.run(&["show", "p.yaml", "--row", "0"]).ended(0).prints(&[
        "Be brief.",
        "Which one?",
        "reply:\n  {\"score\"",
    ]);
}

#[test]
fn each_format_asks_and_reads_as_it_was_recorded() {
    ["openai", "responses", "anthropic", "gemini"].into_iter().for_each(check);
}

#[test]
fn reasoning_goes_into_a_field_of_its_own() {
    let workspace = Workspace::new();
    let request = json!({"model": "m", "messages": [{"role": "user", "content": "Think."}]});
    let message = json!({"role": "assistant", "content": "Done.", "reasoning_content": "Hm."});
    let reply = json!({"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]});
    let exchange = json!({"request": request, "status": 200, "reply": reply.to_string()});
    workspace.write("cassette.jsonl", &format!("{exchange}\n"));
    workspace.write(
        "p.yaml",
        "textmill: 1\nname: thoughts\nteachers:\n  \
         writer: { recorded: { cassette: cassette.jsonl, model: m } }\nsource: { rows: [{ n: 1 }] }\nsteps:\n  \
         - generate: { teacher: writer, prompt: Think., into: text, reasoning_into: thoughts }\n\
         save: { parquet: out }\n",
    );
    workspace.json(&["run", "p.yaml", "--json"], 0);
    workspace.run(&["show", "out"]).ended(0).prints(&["Done.", "Hm."]);
}
