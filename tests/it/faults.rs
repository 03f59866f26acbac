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

#[test]
fn vectors_come_through_faults_and_limits() {
    const KINDS: [&str; 14] = [
        "500",
        "503",
        "503-retry-after",
        "429",
        "529",
        "reset",
        "hang",
        "truncated-json",
        "cut-body",
        "invalid-utf8",
        "empty-choices",
        "error-200",
        "html",
        "slow-body",
    ];
    let faults: Vec<String> = KINDS.iter().map(|kind| format!("{kind}=0.02")).collect();
    let mut args = vec!["--latency-ms", "10", "--latency-sigma", "0.5", "--fault-retry-after-ms", "50"];
    args.extend(["--slow-body-ms", "200", "--requests-per-minute", "12000", "--tokens-per-minute", "120000"]);
    args.extend(faults.iter().flat_map(|fault| ["--fault", fault.as_str()]));
    let calm_teacher = FakeTeacher::start(&[]);
    let teacher = FakeTeacher::start(&args);
    let prepare = |url: &str| {
        let workspace = Workspace::new();
        workspace.write("rows.jsonl", &rows(600));
        workspace.write(
            "p.yaml",
            &format!(
                r#"
textmill: 1
name: vectors
teachers:
  embedder:
    embeddings: {{ url: "{url}", model: fake, timeout: 2s }}
    limits: {{ in_flight: 64 }}
    attempts: 12
source: {{ files: {{ path: rows.jsonl }} }}
steps:
  - embed: {{ teacher: embedder, text: "All there is to know about {{{{ topic }}}}", into: vector }}
save: {{ parquet: out }}
"#
            ),
        );
        workspace
    };
    let calm = prepare(&calm_teacher.url);
    calm.json(&["run", "p.yaml", "--json"], 0);
    let workspace = prepare(&teacher.url);
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!((&accounts["tally"]["kept"], &accounts["balances"]), (&600.into(), &true.into()));
    let parts = |workspace: &Workspace| workspace.files(&workspace.path().join("out/data"));
    assert!(parts(&workspace) == parts(&calm), "the vectors differ");
    // Every fault was met, and no vector was paid twice.
    let stats = teacher.stats();
    let shown = |kind: &&str| stats["faults"][*kind].as_u64().unwrap_or(0) >= 5;
    assert!(KINDS.iter().all(shown), "{stats:#}");
    assert_eq!((&stats["ok"], &stats["repeats"]), (&600.into(), &0.into()));
    let faults = &accounts["calls"]["vector"]["faults"];
    for code in ["busy", "server_error", "timeout", "invalid_utf8", "empty_choices"] {
        assert!(faults[code].as_u64().unwrap_or(0) > 0, "{code}: {faults}");
    }
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
