//! What a step may ask for beside a text, against the fake teacher: tools, several answers, log
//! probabilities, images, vectors.

use serde_json::{Value, json};
use textmill::data::read::read_dataset;

use crate::workspace::{FakeTeacher, Workspace, rows};

/// A pipeline of one `generate` over ten rows `n`.
fn pipeline(teacher: &FakeTeacher, step: &str) -> String {
    format!(
        "textmill: 1\nname: asking\nteachers:\n  writer: {{ openai: {{ url: \"{}\", model: fake }} }}\n\
         source: {{ files: {{ path: rows.jsonl }} }}\nsteps:\n  \
         - generate: {{ teacher: writer, prompt: \"Say {{{{ n }}}}\", into: text, {step} }}\nsave: {{ parquet: out }}\n",
        teacher.url
    )
}

/// Runs such a pipeline; its accounts, and the rows of the dataset.
fn run(workspace: &Workspace, teacher: &FakeTeacher, step: &str) -> (Value, Vec<Value>) {
    workspace.write("rows.jsonl", &rows(10));
    workspace.write("p.yaml", &pipeline(teacher, step));
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    let out = read_dataset(&workspace.path().join("out")).unwrap();
    (accounts, out.map(|row| Value::Object(row.unwrap())).collect())
}

#[test]
fn samples_that_share_a_call_are_paid_once() {
    let (workspace, teacher) = (Workspace::new(), FakeTeacher::start(&[]));
    let step = "samples: 5, samples_per_call: 2, max_tokens: 20, continue_attempts: 1";
    let (accounts, dataset) = run(&workspace, &teacher, "samples: 5, samples_per_call: 2");
    assert_eq!(accounts["tally"]["kept"], 50, "{accounts}");
    // Of two answers, of two, and of one for each row.
    assert_eq!(teacher.stats()["requests"], 30);
    let mut texts: Vec<&str> = dataset.iter().map(|row| row["text"].as_str().unwrap()).collect();
    texts.sort_unstable();
    texts.dedup();
    // The fake teacher answers the same to the same request: each row's calls of two are alike.
    assert_eq!(texts.len(), 30);
    let (again, same) = run(&workspace, &teacher, "samples: 5, samples_per_call: 2");
    assert_eq!((again["tally"]["kept"].as_u64(), same), (Some(50), dataset));
    assert_eq!(teacher.stats()["requests"], 30);
    let plan = workspace.json(&["plan", "p.yaml", "--json"], 0);
    assert_eq!(plan["steps"][0]["calls"]["high"], 0, "{plan}");
    // What is cut goes on alone.
    let (cut, _) = run(&workspace, &teacher, step);
    assert_eq!(cut["tally"]["steps"][0]["rejected"], json!({ "truncated": 50 }));
    assert_eq!(cut["calls"]["text"]["calls"], 30 + 50, "{cut}");
}

#[test]
fn calls_of_tools_and_tokens_are_columns() {
    let (workspace, teacher) = (Workspace::new(), FakeTeacher::start(&["--reply-bytes", "100"]));
    let tools = "tools: [{ name: weather, parameters: { city: string, day?: today | tomorrow } }, { name: now }], \
                 tool_choice: required, tool_calls_into: calls";
    let (_, dataset) = run(&workspace, &teacher, tools);
    let calls: Vec<&Value> = dataset.iter().flat_map(|row| row["calls"].as_array().unwrap()).collect();
    assert!(calls.len() >= 10 && dataset.len() == 10);
    for call in calls {
        match call["name"].as_str().unwrap() {
            "now" => assert_eq!(call["arguments"], json!({})),
            name => assert!(name == "weather" && call["arguments"]["city"].is_string(), "{call}"),
        }
    }
    let workspace = Workspace::new();
    let (_, dataset) = run(&workspace, &teacher, "logprobs_into: tokens, top_logprobs: 2");
    for row in dataset {
        let tokens = row["tokens"].as_array().unwrap();
        let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
        assert_eq!(row["text"], text.as_str());
        assert!(tokens.iter().all(|token| token["top"].as_array().is_some_and(|top| top.len() == 2)));
    }
}

#[test]
fn tests_say_which_tools_are_called() {
    let workspace = Workspace::new();
    let step = "tools: [{ name: weather, parameters: { city: string } }], tool_calls_into: calls";
    let tests = "tests:\n  \
        - name: a call that does not fit is asked for again\n    rows: [{ n: 1 }]\n    \
          replies: { text: [{ $tools: [{ name: weather, arguments: { town: Rome } }] }, { $tools: [{ name: weather, arguments: { city: Rome } }], $text: Well. }] }\n    \
          kept: [{ text: Well., calls: [{ name: weather, arguments: { city: Rome } }] }]\n  \
        - name: another tool is none\n    rows: [{ n: 1 }]\n    \
          replies: { text: { $tools: [{ name: wether }] } }\n    rejected: [{ reason: unparsable }]\n";
    let teacher = FakeTeacher::start(&[]);
    workspace.write("rows.jsonl", &rows(1));
    workspace.write("p.yaml", &format!("{}{tests}", pipeline(&teacher, step)));
    workspace.run(&["test", "p.yaml"]).ended(0);
    let answers = "tests:\n  - name: each on its own\n    rows: [{ n: 1 }]\n    \
        replies: { text: { $answers: [a, { $refuse: no }, { $cut: b }] } }\n    \
        kept: [{ text: a }]\n    rejected: [{ reason: refused }, { reason: truncated }, { reason: missing_answer }]\n";
    let several = pipeline(&teacher, "samples: 4, samples_per_call: 4");
    workspace.write("p.yaml", &format!("{several}{answers}"));
    workspace.run(&["test", "p.yaml"]).ended(0);
}

#[test]
fn images_of_rows_are_bounded_and_are_not_a_token_a_byte() {
    let (workspace, teacher) = (Workspace::new(), FakeTeacher::start(&["--reply-bytes", "100"]));
    let png = [&b"\x89PNG\r\n\x1a\n"[..], &[0; 150_000]].concat();
    for path in ["in/a.png", "outside.png"] {
        std::fs::create_dir_all(workspace.path().join("in")).unwrap();
        std::fs::write(workspace.path().join(path), &png).unwrap();
    }
    std::os::unix::fs::symlink("../outside.png", workspace.path().join("in/link.png")).unwrap();
    let paths = ["a.png", "link.png", "../outside.png", "none.png"];
    let lines: String = paths.iter().map(|path| format!("{{\"n\": \"{path}\"}}\n")).collect();
    workspace.write("rows.jsonl", &lines);
    let step = "images: [{ file: \"{{ n }}\", root: in }], max_tokens: 100";
    // Its base64 has 200,000 bytes: as tokens they would not fit in the budget.
    let pipeline = pipeline(&teacher, step).replace("source:", "budget: { tokens: 60000 }\nsource:");
    workspace.write("p.yaml", &pipeline);
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(accounts["tally"]["kept"], 1, "{accounts}");
    assert_eq!(accounts["tally"]["steps"][0]["rejected"], json!({ "bad_image": 3 }));
    let plan = workspace.run(&["plan", "p.yaml", "--json"]).ended(0).json();
    assert_eq!(plan["steps"][0]["calls"]["high"], 0, "{plan}");
}

#[test]
fn vectors_are_paid_once_for_a_text() {
    let (workspace, teacher) = (Workspace::new(), FakeTeacher::start(&[]));
    workspace.write("rows.jsonl", "{\"n\": \"a\"}\n{\"n\": \"b\"}\n{\"n\": \"a\"}\n");
    let pipeline = format!(
        "textmill: 1\nname: vectors\nteachers:\n  embedder: {{ embeddings: {{ url: \"{}\", model: fake }}, price: {{ input: 1, output: 0 }} }}\n\
         budget: {{ usd: 1 }}\nsource: {{ files: {{ path: rows.jsonl }} }}\nsteps:\n  \
         - embed: {{ teacher: embedder, text: \"Say {{{{ n }}}}\", into: vector, dimensions: 4 }}\nsave: {{ parquet: out }}\n\
         tests:\n  - {{ name: t, rows: [{{ n: x }}], replies: {{ vector: [[1, 0, 0, 0.5]] }}, kept: [{{ vector: [1, 0, 0, 0.5] }}] }}\n",
        teacher.url
    );
    workspace.write("p.yaml", &pipeline);
    workspace.run(&["test", "p.yaml"]).ended(0);
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(accounts["calls"]["vector"]["calls"], 2, "{accounts}");
    let rows = read_dataset(&workspace.path().join("out")).unwrap();
    let vectors: Vec<Value> = rows.map(|row| row.unwrap()["vector"].clone()).collect();
    assert!(vectors[0] == vectors[2] && vectors[0] != vectors[1]);
    assert!(vectors.iter().all(|vector| vector.as_array().unwrap().len() == 4));
}
