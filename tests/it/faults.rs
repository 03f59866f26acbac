//! Every fault of the table: each row comes to one of three ends, with the right reason.

use std::time::Duration;

use crate::workspace::{FakeTeacher, Workspace, rows};

const FAULTS: [&str; 9] =
    ["500", "503", "reset", "truncated-json", "invalid-utf8", "empty-choices", "length", "refusal", "hang"];

#[test]
fn every_row_ends_with_the_right_reason() {
    let mut args = vec!["--latency-ms", "1", "--reply-bytes", "200"];
    let faults: Vec<String> = FAULTS.iter().map(|kind| format!("{kind}=0.05")).collect();
    for fault in &faults {
        args.extend(["--fault", fault]);
    }
    let teacher = FakeTeacher::start(&args);
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(2000));
    workspace.write(
        "p.yaml",
        &format!(
            r#"
textmill: 1
name: faults
teachers:
  writer:
    openai: {{ url: "{}", model: fake, timeout: 2s }}
    limits: {{ in_flight: 256 }}
    attempts: 8
source: {{ files: {{ path: rows.jsonl }} }}
steps:
  - generate: {{ teacher: writer, prompt: "Write about {{{{ topic }}}}.", into: text, max_tokens: 400 }}
save: {{ parquet: out }}
"#,
            teacher.url
        ),
    );
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    let tally = &accounts["tally"];
    assert_eq!(accounts["balances"], true);
    assert_eq!(
        (tally["rows_in"].as_u64(), tally["open"].as_u64(), tally["failed"].as_u64()),
        (Some(2000), Some(0), Some(0))
    );
    // Cut answers and refusals are decisions; all other faults are asked again until they are answered.
    let reasons = tally["steps"][0]["rejected"].as_object().unwrap();
    let codes: Vec<&String> = reasons.keys().collect();
    assert_eq!(codes, ["refused", "truncated"]);
    for (code, count) in reasons {
        let count = count.as_u64().unwrap();
        // 5 % of the last attempts of 2,000 rows, of which 35 % were tried before: 154 +- 6 sigma.
        assert!((80..=230).contains(&count), "{code}: {count}");
    }
    let kept = tally["kept"].as_u64().unwrap();
    assert_eq!(kept + tally["rejected"].as_u64().unwrap(), 2000);
    let faults = &accounts["calls"]["text"]["faults"];
    for code in ["server_error", "timeout", "invalid_utf8", "empty_choices"] {
        assert!(faults[code].as_u64().unwrap_or(0) > 50, "{code}: {faults}");
    }
    // Again: nothing is asked, nothing changes.
    let asked = teacher.stats()["requests"].clone();
    let again = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(again["tally"], *tally);
    assert_eq!(teacher.stats()["requests"], asked);
}

/// A row that is not the lowest asks first what a lower row asks, too, and the budget has no room for it: the
/// lower row waits for that call, and the run comes to its end all the same.
#[test]
fn a_shared_call_over_the_budget_ends_the_run() {
    let teacher = FakeTeacher::start(&["--hang-once", "topic 0:1"]);
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(2));
    workspace.write(
        "p.yaml",
        &format!(
            r#"
textmill: 1
name: shared
teachers:
  writer: {{ openai: {{ url: "{}", model: fake }} }}
budget: {{ calls: 1 }}
source: {{ files: {{ path: rows.jsonl }} }}
steps:
  - generate: {{ teacher: writer, prompt: "Write about {{{{ topic }}}}.", into: text, max_tokens: 400 }}
    when: n == 0
  - judge: {{ teacher: writer, prompt: "The same for all.", into: grade, scale: [1, 5], max_tokens: 400 }}
save: {{ parquet: out }}
"#,
            teacher.url
        ),
    );
    let mut child =
        workspace.command(&["run", "p.yaml"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let ended = (0..3000).find_map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        child.try_wait().unwrap()
    });
    let Some(status) = ended else {
        child.kill().unwrap();
        panic!("the run does not end");
    };
    assert_eq!(status.code(), Some(1));
    assert_eq!(teacher.stats()["requests"], 1);
}

#[test]
fn every_vector_comes_through_faults_and_limits() {
    let faults = ["500", "503", "reset", "truncated-json", "cut-body", "error-200", "html"];
    let faults: Vec<String> = faults.iter().map(|kind| format!("{kind}=0.015")).collect();
    let mut args = vec!["--latency-ms", "2", "--requests-per-minute", "30000", "--burst-s", "1"];
    for fault in &faults {
        args.extend(["--fault", fault]);
    }
    let teacher = FakeTeacher::start(&args);
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(1000));
    workspace.write(
        "p.yaml",
        &format!(
            r#"
textmill: 1
name: vectors
teachers:
  embedder:
    embeddings: {{ url: "{}", model: fake }}
    limits: {{ in_flight: 64, requests_per_minute: 30000 }}
    attempts: 12
source: {{ files: {{ path: rows.jsonl }} }}
steps:
  - embed: {{ teacher: embedder, field: topic, into: vector, dimensions: 8 }}
save: {{ parquet: out }}
"#,
            teacher.url
        ),
    );
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(accounts["tally"]["kept"], 1000, "{accounts:#}");
    let faults = &accounts["calls"]["vector"]["faults"];
    for code in ["server_error", "cut_reply", "invalid_reply"] {
        assert!(faults[code].as_u64().unwrap_or(0) > 5, "{code}: {faults}");
    }
}
