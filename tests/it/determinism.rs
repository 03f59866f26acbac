//! The same file gives the same data, at any concurrency and in any order of replies.

use std::path::{Path, PathBuf};

use crate::workspace::{FakeTeacher, Workspace, rows};

fn pipeline(url: &str, in_flight: u32) -> String {
    format!(
        r#"
textmill: 1
name: same
teachers:
  writer:
    openai: {{ url: "{url}", model: fake }}
    limits: {{ in_flight: {in_flight} }}
    identity: the-fake
source: {{ files: {{ path: rows.jsonl }} }}
steps:
  - generate: {{ teacher: writer, prompt: "Write about {{{{ topic }}}}.", into: text, samples: 2, max_tokens: 400 }}
  - generate: {{ teacher: writer, prompt: "Grade: {{{{ text }}}}", into: grade, json: {{ score: integer }}, max_tokens: 400 }}
  - keep_if: grade.score % 3 != 0
save: {{ parquet: out, provenance: true, part_rows: 100 }}
"#
    )
}

/// The run's only folder of ends.
fn run_folder(workspace: &Workspace) -> PathBuf {
    let runs = workspace.path().join(".textmill/runs");
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(runs).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1);
    folders.remove(0)
}

#[test]
fn concurrency_and_reply_order_change_no_byte() {
    let teacher =
        FakeTeacher::start(&["--latency-ms", "5", "--latency-sigma", "1.5", "--reply-bytes", "300"]);
    // The URL with a port of its own is in the card's pipeline file, so all three read the same file but
    // for the limit, which is overridden on the command line.
    let text = pipeline(&teacher.url, 8);
    let results: Vec<_> = [1, 8, 256]
        .map(|in_flight| {
            let workspace = Workspace::new();
            workspace.write("rows.jsonl", &rows(150));
            workspace.write("p.yaml", &text);
            let set = format!("teachers.writer.limits.in_flight={in_flight}");
            let accounts = workspace.json(&["run", "p.yaml", "--json", "--set", &set], 0);
            assert_eq!(accounts["balances"], true);
            let dataset = workspace.files(&workspace.path().join("out"));
            assert!(dataset.contains_key(Path::new("data/0/part-00000.parquet")));
            let folder = run_folder(&workspace);
            let ends = (workspace.files(&folder.join("rejects")), workspace.files(&folder.join("failures")));
            (dataset, ends, accounts["tally"].clone())
        })
        .into();
    assert_eq!(results[0].2["split_off"], 150);
    assert!(results[0].2["rejected"].as_u64().unwrap() > 50);
    for other in &results[1..] {
        assert_eq!(other.2, results[0].2);
        assert_eq!(other.0.keys().collect::<Vec<_>>(), results[0].0.keys().collect::<Vec<_>>());
        assert!(other.0 == results[0].0, "the datasets differ");
        assert!(other.1 == results[0].1, "the rejects or failures differ");
    }
}
