//! Recorded traffic: every wire format writes the requests that it wrote when the traffic was recorded, to the
//! letter of their JSON, and reads the same answers.
//!
//! The cassettes in `tests/cassettes/` are of llmock 0.2.2; `pipeline.yaml` beside them with a teacher's `record:`
//! makes them anew. What llmock has not (`tools-*`, `several-*`, `images-*`,
//! `vectors-*`) is written after the providers' API references.

use std::path::Path;

use serde_json::{Value, json};
use textmill::data::read::read_dataset;

use crate::workspace::Workspace;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cassettes"))
}

/// A workspace with a cassette of a format, and the pipeline that it belongs to.
fn recorded(cassette: &str, pipeline: &str, format: &str) -> (Workspace, String) {
    let workspace = Workspace::new();
    std::fs::copy(folder().join(cassette), workspace.path().join("cassette.jsonl")).unwrap();
    let teacher = format!("{{ recorded: {{ cassette: cassette.jsonl, model: some-model, api: {format} }} }}");
    let pipeline = std::fs::read_to_string(folder().join(pipeline)).unwrap();
    let pipeline = pipeline.replace("writer: TEACHER", &format!("writer: {teacher}"));
    workspace.write("p.yaml", &pipeline);
    (workspace, pipeline)
}

/// The rows of the dataset in `out`.
fn dataset(workspace: &Workspace) -> Vec<Value> {
    read_dataset(&workspace.path().join("out")).unwrap().map(|row| Value::Object(row.unwrap())).collect()
}

fn check(format: &str) {
    let file = format!("{format}.jsonl");
    let (workspace, pipeline) = recorded(&file, "pipeline.yaml", format);
    let cassette = std::fs::read_to_string(folder().join(file)).unwrap();
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
fn tools_go_in_and_calls_come_out() {
    for format in ["openai", "responses", "anthropic", "gemini"] {
        let (workspace, _) = recorded(&format!("tools-{format}.jsonl"), "tools.yaml", format);
        let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
        assert_eq!((&accounts["tally"]["kept"], &accounts["calls"]["said"]["calls"]), (&json!(3), &json!(4)));
        let call = |arguments: Value| json!([{ "name": "weather", "arguments": arguments }]);
        let expected = [
            json!({ "city": "Rome", "said": "", "calls": call(json!({ "city": "Rome", "unit": "celsius" })) }),
            json!({ "city": "Oslo", "said": "", "calls": call(json!({ "city": "Oslo" })) }),
            json!({ "city": "Bern", "said": "I cannot tell.", "calls": [] }),
        ];
        assert_eq!(dataset(&workspace), expected, "{format}");
        let shown = "weather({\"city\":\"Oslo\"})";
        workspace.run(&["show", "p.yaml", "--row", "1"]).ended(0).prints(&[shown, "a required property"]);
    }
}

#[test]
fn the_answers_of_one_call_are_taken_each_on_its_own() {
    let token = |token: &str, logprob: f64| json!({ "token": token, "logprob": logprob });
    let with_top = |mut first: Value, second: Value| {
        first["top"] = json!([first, second]);
        first
    };
    let tokens = json!([
        with_top(token("Old", -0.5), token("Big", -1.25)),
        with_top(token(".", -0.25), token("!", -2.5)),
    ]);
    for format in ["openai", "gemini"] {
        let (workspace, _) = recorded(&format!("several-{format}.jsonl"), "several.yaml", format);
        let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
        let tally = &accounts["tally"];
        assert_eq!((&tally["kept"], &tally["rejected"]), (&json!(1), &json!(2)), "{format}: {accounts}");
        assert_eq!(accounts["calls"]["text"]["calls"], 1, "the prompt is paid once");
        assert_eq!(dataset(&workspace), [json!({ "city": "Rome", "text": "Old.", "tokens": tokens })]);
        let rejected = ["truncated", "missing_answer"];
        workspace.run(&["show", "p.yaml", "--rejected", "--json"]).ended(0).prints(&rejected);
    }
    let (workspace, pipeline) = recorded("several-responses.jsonl", "several.yaml", "responses");
    let message = "speaks `responses`, which gives one answer to a call";
    workspace.run(&["check", "p.yaml"]).ended(2).says(&[message]);
    let single = "      samples: 3\n      samples_per_call: 3\n";
    workspace.write("p.yaml", &pipeline.replace(single, ""));
    workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(dataset(&workspace)[0]["tokens"], tokens);
}

/// A GIF of one pixel.
const DOT: &[u8] =
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01L\x00;";

#[test]
fn images_go_before_the_text() {
    for format in ["openai", "responses", "anthropic", "gemini"] {
        let (workspace, pipeline) = recorded(&format!("images-{format}.jsonl"), "images.yaml", format);
        std::fs::create_dir(workspace.path().join("pictures")).unwrap();
        std::fs::write(workspace.path().join("pictures/dot.gif"), DOT).unwrap();
        let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
        assert_eq!(accounts["tally"]["kept"], 1, "{format}: {accounts}");
        workspace.write("p.yaml", &pipeline.replace("parquet: out", "parquet: out, provenance: true"));
        workspace.json(&["run", "p.yaml", "--json"], 0);
        let link = "[image at https://images.example.com/cats.png]";
        let shown = workspace.run(&["show", "p.yaml", "--row", "0"]).ended(0);
        assert!(!shown.stdout.contains("R0lGOD"), "{}", shown.stdout);
        shown.prints(&["[image/gif, 34 bytes]", link, "Which cats?"]);
        // The bytes are part of the request: other bytes, another call.
        std::fs::write(workspace.path().join("pictures/dot.gif"), [DOT, b"!"].concat()).unwrap();
        let other = workspace.json(&["run", "p.yaml", "--json"], 1);
        assert_eq!(other["tally"]["failed"], 1, "{format}: {other}");
    }
}

#[test]
fn vectors_are_lists_of_numbers_of_one_length() {
    let (workspace, _) = recorded("vectors-embeddings.jsonl", "vectors.yaml", "embeddings");
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 1);
    let step = &accounts["tally"]["steps"][0];
    assert_eq!(step["rejected"], json!({ "empty": 1, "too_long": 1 }));
    assert_eq!(step["failed"], json!({ "vector_length": 1 }));
    assert_eq!(accounts["calls"]["vector"]["calls"], 2, "rows with the same text share a call: {accounts}");
    let row = json!({ "word": "cats", "vector": [0.5, -0.25, 1.0] });
    assert_eq!(dataset(&workspace), [row.clone(), row]);
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
