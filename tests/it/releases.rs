//! Rows beside earlier releases and other data: `against`, its saved index, and what a run tells of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::workspace::Workspace;

/// A pipeline that compares what `rows.jsonl` has with all that it published before and with other files.
fn pipeline(step: &str) -> String {
    format!(
        "textmill: 1\nname: nightly\nsource: {{ files: {{ path: rows.jsonl }} }}\nsteps:\n  - {step}\n\
         save: {{ parquet: out, provenance: true }}\n"
    )
}

const NEAR: &str = "dedup_near: { field: text, similar_above: 0.5, against: [{ dataset: out }, { files: \"other/*.jsonl\", field: body }] }";

/// A text of 40 words that only this number has.
fn text(number: u32) -> String {
    (0..40).map(|word| format!("word{}", number * 100 + word)).collect::<Vec<_>>().join(" ")
}

/// The same with one word changed.
fn near(number: u32) -> String {
    text(number).replacen(&format!("word{}", number * 100 + 20), "changed", 1)
}

fn lines(field: &str, texts: &[String]) -> String {
    texts.iter().map(|text| format!("{}\n", json!({ (field): text }))).collect()
}

/// What the latest run rejected: reason and evidence.
fn rejected(workspace: &Workspace) -> Vec<(String, Value)> {
    let said = workspace.run(&["show", "p.yaml", "--rejected", "--json", "--limit", "100"]).ended(0);
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let evidence = match &row["evidence"] {
            Value::String(text) => serde_json::from_str(text).unwrap(),
            other => other.clone(),
        };
        (row["reason"].as_str().unwrap().to_owned(), evidence)
    };
    said.stdout.lines().map(row).collect()
}

fn indexes(workspace: &Workspace) -> Vec<PathBuf> {
    let folder = workspace.path().join(".textmill/indexes");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "sqlite3")).collect()
}

fn run(workspace: &Workspace, epoch: &str) {
    workspace.run(&["run", "p.yaml", "--epoch", epoch]).ended(0);
}

/// Two nights of a pipeline: the first finds nothing but other files.
fn two_nights() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("p.yaml", &pipeline(NEAR));
    workspace.write("other/a.jsonl", &lines("body", &[text(90), text(91)]));
    workspace.write("rows.jsonl", &lines("text", &[text(1), near(91), text(2), near(2), text(3)]));
    run(&workspace, "0");
    workspace
}

#[test]
fn rows_like_those_of_earlier_releases_and_other_files_are_rejected() {
    let workspace = two_nights();
    let found = rejected(&workspace);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        (&*found[0].0, &found[0].1["file"], &found[0].1["row"]),
        ("near_duplicate", &json!("other/a.jsonl"), &json!(2))
    );
    assert_eq!(found[1].1["duplicate_of"], "2");
    workspace.write("rows.jsonl", &lines("text", &[near(3), text(4), text(2), near(90)]));
    run(&workspace, "1");
    let found = rejected(&workspace);
    assert_eq!(found.len(), 3, "{found:?}");
    let evidence =
        json!({"dataset": "out", "part": "data/0/part-00000.parquet", "row": 3, "duplicate_of": "4"});
    let mut first = found[0].1.clone();
    let similarity = first.as_object_mut().unwrap().remove("similarity").unwrap();
    assert_eq!(first, evidence);
    assert!(similarity.as_f64().unwrap() > 0.7);
    assert_eq!((&found[1].1["duplicate_of"], &found[1].1["similarity"]), (&json!("2"), &json!(1.0)));
    let manifest: Value = serde_json::from_str(&workspace.read("out/manifest.json")).unwrap();
    let compared =
        json!([{"data": "out", "parts": 1, "rows": 3}, {"data": "other/*.jsonl", "parts": 1, "rows": 2}]);
    assert_eq!(manifest["steps"][0]["report"]["compared_with"], compared);
    assert!(workspace.read("out/README.md").contains("| out | 1 | 3 |"));
}

#[test]
fn an_epoch_run_again_is_compared_with_those_before_it_alone() {
    let workspace = two_nights();
    workspace.write("rows.jsonl", &lines("text", &[text(3), text(4)]));
    run(&workspace, "10");
    run(&workspace, "2");
    assert_eq!(rejected(&workspace).len(), 1, "10 comes after 2, as a number");
    let before = workspace.files(&workspace.path().join("out/data/2"));
    run(&workspace, "2");
    assert!(workspace.files(&workspace.path().join("out/data/2")) == before, "its own rows do not count");
    run(&workspace, "3");
    assert_eq!(rejected(&workspace).len(), 2, "2 comes before 3");
}

#[test]
fn an_index_that_is_lost_damaged_or_stale_changes_nothing() {
    let workspace = two_nights();
    workspace.write("rows.jsonl", &lines("text", &[near(3), text(4), near(90)]));
    run(&workspace, "1");
    let expected = (rejected(&workspace), workspace.files(&workspace.path().join("out/data/1")));
    let all = indexes(&workspace);
    assert_eq!(all.len(), 2);
    let damage: [&dyn Fn(&Path); 4] = [
        &|path| fs::remove_file(path).unwrap(),
        &|path| fs::write(path, "no database".repeat(1_000)).unwrap(),
        &|path| fs::write(path, "").unwrap(),
        &|path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        },
    ];
    for damage in damage {
        all.iter().for_each(|path| damage(path));
        run(&workspace, "1");
        assert_eq!(rejected(&workspace), expected.0);
        assert!(workspace.files(&workspace.path().join("out/data/1")) == expected.1);
    }
    // Other data in the same file, and more of it than before.
    workspace.write("other/a.jsonl", &lines("body", &[text(70), text(71), text(72)]));
    run(&workspace, "1");
    assert_eq!(rejected(&workspace).len(), 1, "90 is not there any more");
}

#[test]
fn exact_rows_and_lines_are_compared_with_earlier_releases_too() {
    let workspace = Workspace::new();
    workspace.write("p.yaml", &pipeline("dedup_exact: { field: text, against: [{ dataset: out }] }"));
    workspace.write("rows.jsonl", &lines("text", &[text(1), text(2)]));
    run(&workspace, "0");
    workspace.write("rows.jsonl", &lines("text", &[text(3), format!(" {} ", text(2)), text(3)]));
    run(&workspace, "1");
    let found = rejected(&workspace);
    let evidence =
        json!({"dataset": "out", "part": "data/0/part-00000.parquet", "row": 2, "duplicate_of": "1"});
    assert_eq!(found[0], ("duplicate".to_owned(), evidence));
    assert_eq!(found[1], ("duplicate".to_owned(), json!({"duplicate_of": "0"})));

    let step = "dedup_exact: { field: text, unit: lines, into: cut, against: [{ dataset: out }] }";
    let workspace = Workspace::new();
    workspace.write("p.yaml", &pipeline(step));
    workspace.write("rows.jsonl", &lines("text", &[format!("{}\nshort\n{}", text(1), text(2))]));
    run(&workspace, "0");
    workspace.write("rows.jsonl", &lines("text", &[format!("{}\n{}\nshort", text(2), text(3)), text(1)]));
    run(&workspace, "1");
    let found = rejected(&workspace);
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].1["cut"], &found[0].1["dataset"]), (&json!(1), &json!("out")), "{found:?}");
    let kept = workspace.run(&["show", "out", "--json", "--limit", "9"]).ended(0).stdout;
    assert!(kept.contains(&format!("{}\\nshort", text(3))) && kept.contains("\"cut\":1"), "{kept}");
}

#[test]
fn the_measured_recall_is_told_and_plants_no_row() {
    let workspace = Workspace::new();
    let texts: Vec<String> = (0..60).map(text).collect();
    workspace.write("rows.jsonl", &lines("text", &texts));
    workspace.write("p.yaml", &pipeline("dedup_near: { field: text, self_test: 20 }"));
    run(&workspace, "0");
    assert!(rejected(&workspace).is_empty());
    let manifest: Value = serde_json::from_str(&workspace.read("out/manifest.json")).unwrap();
    assert_eq!(manifest["balance"]["kept"], 60);
    let levels = manifest["steps"][0]["report"]["self_test"].as_array().unwrap().clone();
    let planted: u64 = levels.iter().map(|level| level["planted"].as_u64().unwrap()).sum();
    let found: u64 = levels.iter().map(|level| level["found"].as_u64().unwrap()).sum();
    assert!(planted >= 20 && found * 100 >= planted * 95, "{levels:?}");
    assert!(workspace.read("out/README.md").contains("| similarity | planted | found | recall |"));
    let report = |text: &str| serde_json::from_str::<Value>(text).unwrap()["steps"][0]["report"].clone();
    let before = report(&workspace.read("out/manifest.json"));
    run(&workspace, "0");
    assert_eq!(report(&workspace.read("out/manifest.json")), before, "the same rows are told the same of");
}
