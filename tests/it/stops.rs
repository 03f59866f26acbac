//! Runs that stop early or come to nothing: what they say, what they leave.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::workspace::{FakeTeacher, Workspace, rows};

/// A workspace with a pipeline that writes about the topics of `rows.jsonl`; `more` are lines of its own.
fn pipeline(teacher: &str, row_count: usize, more: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(row_count));
    workspace.write(
        "p.yaml",
        &format!(
            r#"
textmill: 1
name: stops
teachers:
  writer: {{ openai: {{ url: "{teacher}", model: fake }}, attempts: 1 }}
source: {{ files: {{ path: rows.jsonl }} }}
{more}
save: {{ parquet: out }}
"#
        ),
    );
    workspace
}

const WRITE: &str =
    r#"  - generate: { teacher: writer, prompt: "Write about {{ topic }}.", into: text, max_tokens: 400 }"#;

#[test]
fn a_dataset_is_not_replaced_by_nothing_when_the_rows_failed() {
    let teacher = FakeTeacher::start(&[]);
    let workspace = pipeline(&teacher.url, 4, &format!("steps:\n{WRITE}"));
    workspace.run(&["run", "p.yaml"]).ended(0).says(&["4 rows in ./out"]);
    let before = workspace.files(&workspace.path().join("out"));
    drop(teacher);
    let edited = workspace.read("p.yaml").replace("Write about", "Write more about");
    workspace.write("p.yaml", &edited);
    workspace.run(&["run", "p.yaml"]).ended(1).says(&[
        "nothing was published",
        "this run kept no row and 4 failed, so the 4 published rows of its epoch stay as they are",
    ]);
    assert_eq!(workspace.files(&workspace.path().join("out")), before);
}

#[test]
fn near_its_cap_a_budget_goes_to_the_lowest_rows() {
    let teacher = FakeTeacher::start(&["--latency-ms", "5"]);
    let check = |steps: &str, kept_min: u64| {
        let more = format!("budget: {{ calls: 30 }}\nsteps:\n{steps}");
        let workspace = pipeline(&teacher.url, 500, &more);
        let accounts = workspace.json(&["run", "p.yaml", "--json", "--partial"], 1);
        assert!(accounts["tally"]["kept"].as_u64().unwrap() >= kept_min, "{accounts:#}");
        assert_eq!(accounts["partial"], true);
    };
    check(WRITE, 30);
    let again = WRITE.replace("Write", "Write again").replace("into: text", "into: more");
    check(&format!("{WRITE}\n{again}"), 14);
}

#[test]
fn a_fatal_error_is_told_while_calls_are_in_flight() {
    let teacher = FakeTeacher::start(&["--latency-ms", "300", "--hang-once", "topic 0:8"]);
    let closed = FakeTeacher::start(&["--fault", "401=1"]);
    let judge = r#"  - judge: { teacher: critic, prompt: "Grade {{ text }}", into: grade, scale: [1, 5], max_tokens: 9 }"#;
    let workspace = pipeline(&teacher.url, 2, &format!("steps:\n{WRITE}\n{judge}"));
    let critic = format!("teachers:\n  critic: {{ openai: {{ url: \"{}\", model: fake }} }}", closed.url);
    workspace.write("p.yaml", &workspace.read("p.yaml").replace("teachers:", &critic));
    let mut child = workspace.command(&["run", "p.yaml"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(
        first.starts_with("teacher `critic`: ") && first.ends_with("; finishing 1 call in flight"),
        "{first}"
    );
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_says_that_it_kept_nothing_or_too_little() {
    let workspace = pipeline("http://127.0.0.1:1/v1", 3, "steps:\n  - keep_if: n > 9");
    workspace.run(&["run", "p.yaml"]).ended(0).says(&["no row was kept: 3 rejected, 0 failed"]);
    let until = r#"
textmill: 1
name: until
source: { sample: { until: { kept: 5, tried: 8 }, draw: { n: [1] } } }
steps: [{ keep_if: n > 1 }]
save: { parquet: until }
"#;
    workspace.write("until.yaml", until);
    workspace
        .run(&["run", "until.yaml"])
        .ended(1)
        .says(&["`until.tried: 8` ended the run with 0 of the 5 rows that `until.kept` asks for"]);
}

#[test]
fn money_covers_calls_without_an_answer_and_all_runs_of_the_epoch() {
    let faulty = FakeTeacher::start(&["--fault", "empty-choices=1"]);
    let workspace = pipeline(&faulty.url, 1, &format!("steps:\n{WRITE}"));
    let priced =
        workspace.read("p.yaml").replace("attempts: 1", "attempts: 2, price: { input: 1, output: 2 }");
    workspace.write("p.yaml", &priced);
    let said = workspace
        .run(&["run", "p.yaml"])
        .ended(1)
        .says(&["empty_choices 2\n2 of them may have been billed, and count at their worst case: "]);
    assert!(!said.stderr.contains("nothing was paid"), "{said:#?}");

    let sound = FakeTeacher::start(&[]);
    let to = format!("teachers.writer.openai.url={}", sound.url);
    workspace
        .run(&["run", "p.yaml", "--set", &to])
        .ended(0)
        .says(&["USD over all runs of the epoch, ", "USD per kept row"]);
    let manifest: serde_json::Value = serde_json::from_str(&workspace.read("out/manifest.json")).unwrap();
    assert_eq!(manifest["run"]["epoch_spent"]["calls"], 3);
    assert_eq!(manifest["run"]["spending"][0]["calls"], 1);
    workspace
        .run(&["run", "p.yaml", "--set", &to])
        .ended(0)
        .says(&["nothing was paid, ", "USD over all runs of the epoch"]);
}

#[test]
fn epochs_of_one_folder_are_told_apart_and_share_their_columns() {
    let teacher = FakeTeacher::start(&[]);
    let workspace = pipeline(&teacher.url, 4, &format!("steps:\n{WRITE}"));
    workspace.run(&["run", "p.yaml"]).ended(0).says(&["4 rows in ./out"]);
    workspace
        .run(&["run", "p.yaml", "--epoch", "1"])
        .ended(0)
        .says(&["4 rows of epoch `1` in ./out, which has 8 rows of all epochs"]);
    let asked = teacher.stats()["requests"].clone();
    workspace.write("p.yaml", &workspace.read("p.yaml").replace("into: text", "into: story"));
    workspace.run(&["run", "p.yaml", "--epoch", "2"]).ended(2).says(&[
        "column `story` (text) is not in earlier epochs, and one dataset has the same columns in all epochs",
        "hint: save to another folder",
    ]);
    assert_eq!(teacher.stats()["requests"], asked);
}

#[test]
fn a_key_that_is_refused_is_named_by_its_variable() {
    let closed = FakeTeacher::start(&["--fault", "401=1"]);
    let workspace = pipeline(&closed.url, 1, &format!("steps:\n{WRITE}"));
    let keyed = workspace.read("p.yaml").replace("model: fake", "model: fake, key_env: WRITER_KEY");
    workspace.write("p.yaml", &keyed);
    let said = workspace.command(&["run", "p.yaml"]).env("WRITER_KEY", "not-the-right-one").output().unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("; the key is in `WRITER_KEY`"), "{said}");
}
