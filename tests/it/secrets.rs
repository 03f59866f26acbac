//! A server that echoes the key in body, header and error: the key is nowhere in what was written or printed.

use std::path::Path;

use crate::workspace::{FakeTeacher, Workspace, rows};

const KEY: &str = "sk-proj-0123456789abcdefSECRETKEY";

/// `rows` are the source's; their file is the user's own.
fn run(fault: &[&str], name: &str, rows: &str) -> String {
    let mut args = vec!["--echo-key", "--reply-bytes", "200"];
    args.extend(fault);
    let teacher = FakeTeacher::start(&args);
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", rows);
    workspace.write(
        "p.yaml",
        &format!(
            r#"
textmill: 1
name: {name}
teachers:
  writer:
    openai: {{ url: "{}", model: fake, key_env: TEXTMILL_TEST_KEY }}
    attempts: 2
    record: cassette.jsonl
source: {{ files: {{ path: rows.jsonl }} }}
steps:
  - generate: {{ teacher: writer, prompt: "Write about {{{{ topic }}}}.", into: text, max_tokens: 300 }}
save: {{ parquet: out, provenance: true }}
"#,
            teacher.url
        ),
    );
    let with_key = |args: &[&str]| {
        let output = workspace.command(args).env("TEXTMILL_TEST_KEY", KEY).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains(KEY), "{args:?} printed the key");
        said
    };
    let mut said = with_key(&["run", "p.yaml", "--show"]);
    said.push_str(&with_key(&["store", "export"]));
    said.push_str(&with_key(&["show", "p.yaml", "--rejected", "--json"]));
    said.push_str(&with_key(&["show", "p.yaml", "--failed", "--json"]));
    let files = workspace.files(workspace.path());
    assert!(files.contains_key(Path::new("cassette.jsonl")));
    for (path, bytes) in files.iter().filter(|(path, _)| !path.ends_with("rows.jsonl")) {
        let found = bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
        assert!(!found, "the key is in {}", path.display());
    }
    said
}

#[test]
fn the_key_is_nowhere() {
    let said = run(&[], "good", &rows(30));
    assert!(said.contains("[secret TEXTMILL_TEST_KEY]"), "the server's echo is there, scrubbed: {said}");
}

#[test]
fn the_key_is_nowhere_when_calls_fail() {
    run(
        &["--fault", "400=0.3", "--fault", "500=0.3", "--fault", "refusal=0.1", "--fault", "html=0.1"],
        "bad",
        &rows(30),
    );
}

#[test]
fn a_key_in_a_row_goes_nowhere() {
    let said = run(
        &[],
        "leaked",
        &format!("{{\"topic\": \"loops\", \"notes\": [\"key={KEY}!\"]}}\n{{\"topic\": \"{KEY}\"}}\n"),
    );
    assert!(said.contains("key=[secret TEXTMILL_TEST_KEY]!"), "the row is there, scrubbed: {said}");
}
