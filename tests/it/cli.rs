//! The commands as a user meets them: what they print, what they say, how they end.

use serde_json::json;

use crate::workspace::{FakeTeacher, Workspace};

/// A starter, written into a new workspace.
fn hello() -> Workspace {
    let workspace = Workspace::new();
    workspace.run(&["new", "hello", "."]).ended(0).prints(&["hello.yaml", "templates/greeting.md.j2"]);
    workspace
}

/// The flag that sends the starter's calls to a teacher.
fn to(teacher: &FakeTeacher) -> String {
    format!("teachers.writer.openai.url={}", teacher.url)
}

#[test]
fn new_writes_a_starter_once() {
    let workspace = Workspace::new();
    workspace.run(&["new"]).ended(0).prints(&["hello", "three rows"]);
    workspace.run(&["new", "helo"]).ended(2).says(&["no starter `helo`", "did you mean `hello`?"]);
    workspace.run(&["new", "hello"]).ended(0).says(&["next: textmill test hello/hello.yaml"]);
    workspace.write("hello/hello.yaml", "mine");
    workspace
        .run(&["new", "hello"])
        .ended(2)
        .says(&["already there: `hello/hello.yaml`", "nothing was written"]);
    assert_eq!(workspace.read("hello/hello.yaml"), "mine");
}

#[test]
fn a_starter_passes_its_check_and_its_tests() {
    let workspace = hello();
    workspace.run(&["check", "hello.yaml"]).ended(0);
    let ran = workspace.run(&["test", "hello.yaml"]).ended(0).says(&["2 tests passed"]);
    assert_eq!(ran.stdout, "ok      a greeting is kept\nok      a refusal is rejected\n");
    // Nothing is left behind: tests have a store of their own.
    assert!(!workspace.path().join(".textmill").exists());
}

#[test]
fn a_test_that_fails_shows_what_came() {
    let workspace = hello();
    let text =
        workspace.read("hello.yaml").replace("greeting: \"Good morning, harbour!\" }]", "greeting: Bye }]");
    workspace.write("hello.yaml", &text);
    workspace.run(&["test", "hello.yaml"]).ended(1).says(&["1 of 2 tests failed"]).prints(&[
        "FAILED  a greeting is kept\n  kept[0].greeting: expected \"Bye\", came \"Good morning, harbour!\"\n",
        "  how its rows ended:\n    row 0: kept\n",
        "ok      a refusal is rejected\n",
    ]);
    let results = workspace.run(&["test", "hello.yaml", "--json"]).ended(1).json();
    assert_eq!([&results[0]["passed"], &results[1]["passed"]], [false, true]);
    assert_eq!(results[0]["misses"][0]["at"], "kept[0].greeting");

    let untested = text.split("\ntests:").next().unwrap();
    workspace.write("hello.yaml", untested);
    workspace.run(&["test", "hello.yaml"]).ended(0).says(&["no tests"]);
    workspace.write("hello.yaml", &untested.replace("steps:", "stepz:"));
    workspace.run(&["test", "hello.yaml"]).ended(2).says(&["stepz"]);
}

#[test]
fn plan_tells_the_calls_before_and_after_a_run() {
    let (workspace, teacher) = (hello(), FakeTeacher::start(&["--reply-bytes", "100"]));
    let to = to(&teacher);
    let plan =
        |more: &[&str]| workspace.run(&[&["plan", "hello.yaml", "--set", &to], more].concat()).ended(0);
    plan(&[]).prints(&[
        "hello, epoch 0: 3 source rows\n",
        "in all: 3 calls",
        "cost unknown: a teacher has no `price`",
    ]);
    assert!(!workspace.path().join(".textmill").exists(), "a plan writes nothing");
    let free = workspace.read("hello.yaml");
    let priced = free.replace("    limits:", "    price: { input: 1, output: 2 }\n    limits:");
    workspace.write("hello.yaml", &priced.replace("\nsource:", "\nbudget: { usd: 1 }\nsource:"));
    plan(&[]).prints(&["budget: 1 USD, of which 0 are spent; this plan fits"]);
    plan(&["--set", "budget.usd=0.002"]).prints(&["this plan may not fit"]);

    workspace.run(&["run", "hello.yaml", "--set", &to]).ended(0);
    let done = plan(&["--json"]).json();
    assert_eq!(done["calls"], json!({"low": 0, "high": 0}));
    assert_eq!(done["steps"][0]["from_store"], json!({"low": 3, "high": 3}));
    plan(&["--rows", "1"]).prints(&["hello, epoch 0: 1 source row\n", "in all: 0 calls"]);

    workspace.write("templates/greeting.md.j2", "Greet {{ place }} in the {{ mood }} way.");
    plan(&[]).prints(&["in all: 3 calls", "step `greeting` asks something new: 3 calls of run"]);
    plan(&[]).prints(&["`templates/greeting.md.j2` changed since the last run\n"]);
}

#[test]
fn show_says_of_a_row_how_often_it_was_asked_and_what_it_was_split_into() {
    let (workspace, teacher) = (hello(), FakeTeacher::start(&["--reply-bytes", "100", "--fault", "500=0.5"]));
    let text = workspace.read("hello.yaml").replace("max_tokens: 400", "max_tokens: 400, samples: 8");
    workspace.write("hello.yaml", &text);
    workspace.run(&["run", "hello.yaml", "--set", &to(&teacher)]);
    workspace
        .run(&["show", "hello.yaml", "--row", "0"])
        .ended(2)
        .says(&["row `0` was split; of its rows there are `0.0`, `0.1`"]);
    let attempts = (0..24).map(|index| {
        let id = format!("{}.{}", index / 8, index % 8);
        let traced = workspace.json(&["show", "hello.yaml", "--row", &id, "--json"], 0);
        traced["calls"][0]["attempts"].as_u64().unwrap_or(0)
    });
    assert!(attempts.collect::<Vec<u64>>().iter().any(|attempts| *attempts > 1));
}

#[test]
fn show_lists_rows_and_traces_one() {
    let (workspace, teacher) = (hello(), FakeTeacher::start(&["--reply-bytes", "100"]));
    workspace
        .run(&["show", "hello.yaml"])
        .ended(2)
        .says(&["nothing is published yet", "hint: textmill run hello.yaml"]);
    workspace.run(&["show", "hello.yaml", "--rejected"]).ended(2).says(&["`hello` has not run here yet"]);
    workspace.run(&["run", "hello.yaml", "--set", &to(&teacher)]).ended(0);

    let rows = workspace.run(&["show", "hello.yaml", "--json", "--limit", "2"]).ended(0);
    assert_eq!(rows.stdout.lines().count(), 2);
    assert!(rows.stdout.starts_with("{\"place\":\"the harbour\""), "{rows:#?}");
    workspace.run(&["show", "datasets/hello"]).ended(0).prints(&["── row ──\nplace: the harbour\n"]);
    workspace.run(&["show", "hello.yaml", "--rejected"]).ended(0).says(&["no rows in"]);

    let traced = workspace.run(&["show", "hello.yaml", "--row", "1"]).ended(0).prints(&[
        "── kept ──\nplace: a night train\n",
        "── call 1: step `greeting` asked `writer` (fake",
        "user:\n  Write a greeting of two or three sentences",
        "reply:\n  ",
    ]);
    assert!(!traced.stdout.contains("textmill_calls"), "{traced:#?}");
    let traced = workspace.run(&["show", "hello.yaml", "--row", "1", "--json"]).ended(0).json();
    assert_eq!(traced["calls"][0]["request"]["messages"][0]["role"], "user");
    workspace.run(&["show", "hello.yaml", "--row", "9"]).ended(2).says(&["there is no row `9`"]);
    workspace.run(&["show", "hello.yaml", "--row", "x"]).ended(2).says(&["`x` is no row id"]);
}

#[test]
fn show_traces_rejects_and_rows_saved_without_provenance() {
    let (workspace, teacher) = (hello(), FakeTeacher::start(&["--fault", "refusal=1"]));
    let text = workspace.read("hello.yaml").replace(", provenance: true", "");
    workspace.write("hello.yaml", &text);
    workspace.run(&["run", "hello.yaml", "--set", &to(&teacher)]).ended(0);
    let rejected = workspace.run(&["show", "hello.yaml", "--rejected"]).ended(0);
    let rejected = rejected.prints(&["reason: refused\n", "fields:\n  place: the harbour\n", "\nreply:\n  "]);
    assert!(!rejected.stdout.contains("\"choices\""), "the envelope is shown: {rejected:#?}");
    workspace
        .run(&["show", "hello.yaml", "--row", "0"])
        .ended(0)
        .prints(&["── rejected ──", "── call 1: step `greeting`"]);
    let kept = FakeTeacher::start(&[]);
    workspace.run(&["run", "hello.yaml", "--set", &to(&kept)]).ended(0);
    let traced = || workspace.run(&["show", "hello.yaml", "--row", "0"]);
    traced().ended(0).prints(&["── kept ──\nplace: the harbour\n", "── call 1: step `greeting`"]);
    let next = ["run", "hello.yaml", "--epoch", "1", "--set", &to(&kept)];
    workspace.run(&next).ended(0);
    traced().ended(0).prints(&["── kept ──", "── call 1: step `greeting`"]);
    std::fs::remove_dir_all(workspace.path().join(".textmill/runs")).unwrap();
    traced().ended(2).says(&["hint: set `provenance: true`"]);
}

#[test]
fn explain_prints_an_operators_doc() {
    let workspace = Workspace::new();
    workspace
        .run(&["explain"])
        .ended(0)
        .prints(&["generate", "ask a teacher to write something for each row"]);
    workspace.run(&["explain", "keep_if"]).ended(0).prints(&["# What it does", "# Example", "- keep_if:"]);
    workspace.run(&["explain", "keepif"]).ended(2).says(&["no operator `keepif`", "did you mean `keep_if`?"]);
}

#[test]
fn schema_and_completions_are_printed() {
    let workspace = Workspace::new();
    let schema = workspace.run(&["schema"]).ended(0).json();
    assert_eq!(schema["required"], json!(["textmill", "name", "source", "steps", "save"]));
    for shell in ["bash", "zsh", "fish"] {
        workspace.run(&["completions", shell]).ended(0).prints(&["explain"]);
    }
}

#[test]
fn store_counts_exports_and_prunes() {
    let (workspace, teacher) = (hello(), FakeTeacher::start(&[]));
    workspace.run(&["store", "stats"]).ended(2).says(&["there is no store", "--workspace"]);
    workspace.run(&["run", "hello.yaml", "--set", &to(&teacher)]).ended(0);
    workspace.run(&["store", "stats"]).ended(0).prints(&["3 replies", "model fake"]).says(&["personal data"]);

    let exported = workspace.run(&["store", "export", "--step", "greeting"]).ended(0);
    let first: serde_json::Value = serde_json::from_str(exported.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(exported.stdout.lines().count(), 3);
    assert_eq!((&first["origin"]["pipeline"], &first["status"]), (&json!("hello"), &json!(200)));
    assert!(first["request"]["messages"].is_array() && first["reply"]["choices"].is_array(), "{first}");
    assert_eq!(workspace.run(&["store", "export", "--older-than", "1d"]).ended(0).stdout, "");

    workspace.run(&["store", "prune"]).ended(2).says(&["no filter is given"]);
    workspace.run(&["store", "prune", "--step", "greeting"]).ended(0).says(&["3 replies", "--yes"]);
    let stats = workspace.run(&["store", "stats", "--json"]).ended(0).json();
    assert_eq!(stats["replies"], 3);
    workspace
        .run(&["store", "prune", "--step", "greeting", "--yes", "--compact"])
        .ended(0)
        .says(&["deleted: "]);
    let stats = workspace.run(&["store", "stats", "--json"]).ended(0).json();
    assert_eq!(stats["replies"], 0);
}

#[test]
fn a_plan_knows_where_a_run_ends_early() {
    let (workspace, teacher) = (hello(), FakeTeacher::start(&["--reply-bytes", "100"]));
    let to = to(&teacher);
    let text = workspace.read("hello.yaml");
    let lines: String =
        (0..300).map(|n| format!("{{\"place\": \"place {n}\", \"mood\": \"odd\"}}\n")).collect();
    workspace.write("rows.jsonl", &lines);
    let (head, rest) = text.split_once("\nsource:").unwrap();
    let steps = rest.split_once("\nsteps:").unwrap().1.split_once("\nsave:").unwrap();
    let tail = steps.1.split("\ntests:").next().unwrap();
    let limited = format!(
        "{head}\nsource: {{ files: {{ path: rows.jsonl }} }}\nsteps:{}\n  - limit: 10\nsave:{tail}",
        steps.0
    );
    workspace.write("hello.yaml", &limited);
    let plan = || workspace.json(&["plan", "hello.yaml", "--set", &to, "--json"], 0);
    assert_eq!(plan()["calls"], json!({"low": 10, "high": 300}));
    workspace.run(&["run", "hello.yaml", "--set", &to]).ended(0);
    let done = plan();
    assert_eq!((&done["calls"], &done["edits"]), (&json!({"low": 0, "high": 0}), &json!([])));
    assert_eq!(done["rows"], json!({"low": 10, "high": 10}));
}

#[test]
fn a_plan_bounds_the_prompts_that_need_answers() {
    let workspace = Workspace::new();
    let text = "textmill: 1\nname: p\nteachers:\n  w:\n    openai: { url: \"http://127.0.0.1:9/v1\", model: m }\n\
                \x20   price: { input: 1, output: 2 }\nsource: { rows: [{ n: 1 }, { n: 2 }] }\nsteps:\n\
                \x20 - generate: { teacher: w, prompt: \"Tell {{ n }}\", into: text, max_tokens: 100 }\n\
                \x20 - judge: { teacher: w, prompt: \"Grade {{ text }}\", into: grade, max_tokens: 50 }\n\
                save: { parquet: out }\n";
    workspace.write("p.yaml", text);
    let planned = workspace.run(&["plan", "p.yaml"]).ended(0).prints(&[
        "the prompts of `grade` need answers that are not there yet: each earlier answer counts as in the prompt once",
        "--rows 2` makes some answers",
    ]);
    assert!(!planned.stdout.contains("unknown") && !planned.stdout.contains("or more"), "{planned:#?}");
    workspace.write("p.yaml", &text.replace(", max_tokens: 100", ""));
    workspace
        .run(&["plan", "p.yaml"])
        .ended(0)
        .prints(&["nothing bounds these: give the steps before `max_tokens`"]);
}

#[test]
fn run_shows_failed_rows_too() {
    let (workspace, teacher) = (hello(), FakeTeacher::start(&["--fault", "400=1"]));
    workspace.run(&["run", "hello.yaml", "--show", "--set", &to(&teacher)]).ended(1).prints(&[
        "── failed ──\ntextmill_row: 0\nstep: greeting\nreason: declined\nmessage: ",
        "fields:\n  place: the harbour\n",
    ]);
}

#[test]
fn plan_says_once_how_answers_are_held_to_their_shape() {
    let workspace = Workspace::new();
    workspace.write(
        "p.yaml",
        "textmill: 1\nname: shaped\nteachers: { w: { openai: { url: \"http://127.0.0.1:9/v1\", model: m } } }\n\
         source: { rows: [{ n: 1 }] }\nsteps:\n  \
         - judge: { teacher: w, prompt: \"Grade {{ n }}.\", into: grade, scale: [1, 5] }\nsave: { parquet: out }\n",
    );
    let check = |args: &[&str], means: &str| {
        let said = workspace.run(&[&["plan", "p.yaml"], args].concat()).ended(0);
        assert_eq!(said.stdout.matches("shape of the answers").count(), 1, "{said:#?}");
        said.prints(&[&format!("shape of the answers: `grade` by {means}\n")]);
    };
    check(&[], "a schema that the server holds the model to");
    check(&["--set", "teachers.w.openai.structured=prompt"], "the schema in the prompt");
}
