//! The budget is a wall: never above a cap by the teacher's own books, whatever is capped and however long
//! replies turn out to be.

use serde_json::Value;

use crate::workspace::{FakeTeacher, Workspace, rows};

const INPUT_USD_PER_M: u64 = 2;
const OUTPUT_USD_PER_M: u64 = 10;
const ROWS: usize = 80;

fn pipeline(url: &str, name: &str, budget: &str, budget_of_step: &str) -> String {
    format!(
        r#"
textmill: 1
name: {name}
teachers:
  writer:
    openai: {{ url: "{url}", model: fake }}
    limits: {{ in_flight: 256 }}
    price: {{ input: {INPUT_USD_PER_M}, output: {OUTPUT_USD_PER_M} }}
{budget}
source: {{ files: {{ path: rows.jsonl }} }}
steps:
  - generate: {{ teacher: writer, prompt: "Write {name} about {{{{ topic }}}}.", into: text, max_tokens: 250 }}
  - generate: {{ teacher: writer, prompt: "Retell: {{{{ text }}}}", into: tale, max_tokens: 250 }}
    {budget_of_step}
save: {{ parquet: out-{name} }}
"#
    )
}

/// What a teacher has answered, and what that costs in nano-dollars.
#[derive(Clone, Copy, Debug, Default)]
struct Books {
    calls: u64,
    tokens: u64,
    usd_nano: u64,
}

impl Books {
    fn of(teacher: &FakeTeacher) -> Books {
        let stats = teacher.stats();
        let number = |key: &str| stats[key].as_u64().unwrap();
        let (input, output) = (number("tokens_in"), number("tokens_out"));
        Books {
            calls: number("requests"),
            tokens: input + output,
            usd_nano: (input * INPUT_USD_PER_M + output * OUTPUT_USD_PER_M) * 1000,
        }
    }

    fn unit(self, unit: &str) -> u64 {
        match unit {
            "usd" => self.usd_nano,
            "tokens" => self.tokens,
            _ => self.calls,
        }
    }
}

/// Numbers that look random; the same ones each time.
struct Draws(u64);

impl Draws {
    fn next(&mut self, from: u64, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        from + (self.0 >> 33) % (below - from)
    }
}

/// What the sentence of a cap says that the next call may take, in the smallest parts of the unit.
fn next_call(sentence: &str, unit: &str) -> u64 {
    let said = sentence.rsplit_once(if unit == "usd" { "cost " } else { "take " }).unwrap().1;
    if unit == "usd" {
        (said.trim_end_matches(" USD").parse::<f64>().unwrap() * 1e9).round() as u64
    } else {
        said.parse().unwrap()
    }
}

/// Runs under a random cap, looks at the teacher's books, and runs on without it.
fn check(teacher: &FakeTeacher, run: u64, draws: &mut Draws) {
    let of = ["epoch", "step", "per_run", "per_day"][(run % 4) as usize];
    let unit = ["usd", "tokens", "calls"][(run / 4 % 3) as usize];
    // Of about 160 calls of 190 tokens each, half of them the second step's.
    let calls = draws.next(15, if of == "step" { 70 } else { 140 });
    let (cap, shown) = match unit {
        "usd" => (calls * 1_300_000, format!("{}", calls as f64 * 0.0013)),
        "tokens" => (calls * 190, (calls * 190).to_string()),
        _ => (calls, calls.to_string()),
    };
    let caps = format!("{{ {unit}: {shown} }}");
    let (budget, budget_of_step) = match of {
        "epoch" => (format!("budget: {caps}"), String::new()),
        "step" => (String::new(), format!("budget: {caps}")),
        per => (format!("budget: {{ {per}: {caps} }}"), String::new()),
    };
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(ROWS));
    // Another run of the same day counts for the day's cap.
    let name = format!("run-{run}");
    workspace.write("p.yaml", &pipeline(&teacher.url, &name, &budget, &budget_of_step));
    let before = Books::of(teacher).unit(unit);
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 1);
    let case = format!("run {run}: {of} {unit} {cap}: {accounts:#}");
    let left = (accounts["budgets"][0][unit]["left"].as_f64().unwrap()
        * if unit == "usd" { 1e9 } else { 1.0 })
    .round() as u64;
    let next = next_call(accounts["stopped"].as_str().unwrap(), unit);
    assert!(left < next, "{next} more would have fitted: {case}");
    if of != "step" {
        let spent = Books::of(teacher).unit(unit) - before;
        assert!(spent <= cap, "{spent} of {cap}: {case}");
        assert_eq!(left, cap - spent, "{case}");
    }
    assert_eq!(accounts["balances"], true, "{case}");
    workspace.write("p.yaml", &pipeline(&teacher.url, &name, "", ""));
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(accounts["tally"]["kept"], ROWS, "{accounts:#}");
}

#[test]
fn fifty_runs_with_random_caps_never_pass_them() {
    let teacher =
        FakeTeacher::start(&["--latency-ms", "4", "--latency-sigma", "0.5", "--reply-bytes", "450"]);
    let mut draws = Draws(7);
    for run in 0..50 {
        check(&teacher, run, &mut draws);
    }
}

#[test]
fn everybody_counts_for_the_day_and_only_those_are_held_that_name_it() {
    let teacher = FakeTeacher::start(&["--latency-ms", "2", "--reply-bytes", "300"]);
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(ROWS));
    workspace.write("free.yaml", &pipeline(&teacher.url, "free", "", ""));
    let per_day = "budget: { per_day: { calls: 200 } }";
    workspace.write("held.yaml", &pipeline(&teacher.url, "held", per_day, ""));
    workspace
        .run(&["plan", "held.yaml"])
        .ended(0)
        .prints(&["budget per day: 200 calls, of which 0 are spent today; this plan fits"]);
    workspace.run(&["run", "free.yaml"]).ended(0);
    workspace.run(&["plan", "held.yaml"]).ended(0).prints(&[
        "budget per day: 200 calls, of which 160 are spent today; this plan does not fit: the run will stop at \
         the cap and it goes on the next day",
    ]);
    workspace.run(&["run", "held.yaml"]).ended(1).says(&[
        "left of the budget: 0 of 200 calls per day",
        "stopped: the budget of 200 calls per day is reached: 200 are spent today (UTC), and the next call may \
         take 1; run again after 00:00 UTC (or raise `budget.per_day.calls` and run again) to resume",
    ]);
    assert_eq!(teacher.stats()["requests"], 200);
    // Those that do not name it go on.
    workspace.run(&["run", "free.yaml", "--epoch", "1"]).ended(0);
}

#[test]
fn a_run_that_waits_for_the_next_day_says_so_and_can_be_stopped() {
    let teacher = FakeTeacher::start(&["--reply-bytes", "300"]);
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(ROWS));
    let per_day = "budget: { per_day: { calls: 10, at_cap: wait } }";
    workspace.write("p.yaml", &pipeline(&teacher.url, "waits", per_day, ""));
    let child = workspace.command(&["run", "p.yaml"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // A line of progress comes every ten seconds.
    std::thread::sleep(std::time::Duration::from_millis(10_700));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let waits = "; waits for 00:00 UTC: the budget of 10 calls per day is reached: 10 are spent today (UTC)";
    assert!(said.contains(waits) && said.contains("stopped: on request; run again to resume"), "{said}");
    assert_eq!(teacher.stats()["requests"], 10);
}

#[test]
fn what_was_spent_before_a_step_had_a_budget_counts() {
    let teacher = FakeTeacher::start(&["--reply-bytes", "300"]);
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(4));
    workspace.write("p.yaml", &pipeline(&teacher.url, "late", "", ""));
    workspace.run(&["run", "p.yaml"]).ended(0);
    workspace.write("rows.jsonl", &rows(8));
    workspace.write("p.yaml", &pipeline(&teacher.url, "late", "", "budget: { calls: 6 }"));
    let accounts: Value = workspace.json(&["run", "p.yaml", "--json"], 1);
    let calls = &accounts["budgets"][0];
    assert_eq!((&calls["step"], &calls["calls"]["spent"]), (&"tale".into(), &6.into()), "{accounts:#}");
    workspace.run(&["run", "p.yaml"]).ended(1).says(&[
        "stopped: the budget of 6 calls for step `tale` is reached: 6 are spent, and the next call may take 1; \
         raise `calls` in the `budget` of step `tale` and run again to resume",
    ]);
}
