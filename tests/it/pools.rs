//! One teacher, several endpoints: who is asked, what becomes of calls when one of them falls away.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::workspace::{FakeTeacher, Workspace, rows, until};

/// A workspace whose pipeline asks a pool of these endpoints, in the order of the list.
fn pipeline(row_count: usize, pool: &[String]) -> Workspace {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", &rows(row_count));
    let pool: String = pool.iter().map(|endpoint| format!("      - {{ {endpoint} }}\n")).collect();
    workspace.write(
        "p.yaml",
        &format!(
            r#"
textmill: 1
name: pools
teachers:
  writer:
    openai: {{ model: fake, timeout: 5s }}
    identity: the-writers
    pool:
{pool}
source: {{ files: {{ path: rows.jsonl }} }}
steps:
  - generate: {{ teacher: writer, prompt: "Write about {{{{ topic }}}}.", into: text, max_tokens: 400 }}
save: {{ parquet: out, provenance: true }}
"#
        ),
    );
    workspace
}

fn endpoint(name: &str, teacher: &FakeTeacher, more: &str) -> String {
    format!("name: {name}, url: \"{}\"{more}", teacher.url)
}

/// What the accounts of a run say of an endpoint.
fn account<'a>(accounts: &'a Value, name: &str) -> &'a Value {
    let listed = accounts["endpoints"]["writer"].as_array().unwrap();
    listed.iter().find(|account| account["endpoint"] == name).unwrap()
}

fn start(workspace: &Workspace) -> Child {
    let mut command = workspace.command(&["run", "p.yaml", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn requests(teacher: &FakeTeacher) -> u64 {
    teacher.stats()["requests"].as_u64().unwrap()
}

#[test]
fn calls_are_shared_by_weight_while_there_is_room() {
    let [a, b] = [(); 2].map(|()| FakeTeacher::start(&["--latency-ms", "300"]));
    let room = ", limits: { in_flight: 256 }";
    let workspace = pipeline(
        120,
        &[endpoint("a", &a, &format!("{room}, weight: 3")), endpoint("b", &b, &format!("{room}, weight: 1"))],
    );
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(accounts["tally"]["kept"], 120);
    let asked = [requests(&a), requests(&b)];
    assert!((86..=94).contains(&asked[0]) && asked[0] + asked[1] == 120, "{asked:?}");
    assert_eq!(account(&accounts, "a")["calls"], asked[0]);
    assert_eq!(account(&accounts, "b")["limits"]["in_flight"], 256);
    // Each call knows who served it.
    let shown = workspace.json(&["show", "p.yaml", "--row", "0", "--json"], 0);
    let served = shown["calls"][0]["endpoint"].as_str().unwrap();
    assert!(served.starts_with(&a.url) || served.starts_with(&b.url), "{served}");
    workspace.run(&["show", "p.yaml", "--row", "0"]).ended(0).prints(&[&format!("(fake) at {served} ──")]);
}

/// Replies in each whole second of a server's life.
fn by_second(teacher: &FakeTeacher) -> Vec<u64> {
    teacher.stats()["ok_by_second"].as_array().unwrap().iter().filter_map(Value::as_u64).collect()
}

#[test]
fn an_endpoint_killed_in_mid_run_costs_no_row_and_no_time() {
    const PLACES: u64 = 16;
    const LATENCY_MS: u64 = 100;
    let latency = LATENCY_MS.to_string();
    let [a, b, killed] =
        [(); 3].map(|()| FakeTeacher::start(&["--latency-ms", &latency, "--reply-bytes", "200"]));
    let limits = format!(", limits: {{ in_flight: {PLACES} }}");
    let pool =
        [("a", &a), ("killed", &killed), ("b", &b)].map(|(name, teacher)| endpoint(name, teacher, &limits));
    let workspace = pipeline(3200, &pool);
    let running = start(&workspace);
    // Two seconds of it.
    until("it does not begin", &|| requests(&killed) > 20 * PLACES);
    drop(killed);
    let killed_at = by_second(&a).len();
    let output = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let accounts: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&accounts["tally"]["kept"], &accounts["tally"]["failed"]), (&3200.into(), &0.into()));
    assert!(
        said.contains("warning: endpoint `killed` of teacher `writer` is left alone while its calls fail")
    );
    assert!(account(&accounts, "killed")["out"].as_str().unwrap().contains("no connection"), "{accounts:#}");
    // Calls that it had are sent again, and a few that tried it; nobody else failed.
    let faults = |name: &str| account(&accounts, name)["faults"].as_object().unwrap().clone();
    let lost: u64 = faults("killed").values().filter_map(Value::as_u64).sum();
    assert!((1..=2 * PLACES + 10).contains(&lost), "{lost}");
    assert!(faults("a").is_empty() && faults("b").is_empty(), "{accounts:#}");
    // What the others give, they give in each of the seconds after.
    let full = PLACES * 1000 / LATENCY_MS;
    for teacher in [&a, &b] {
        let seconds = by_second(teacher);
        let after = &seconds[killed_at..seconds.len() - 1];
        assert!(after.len() >= 3, "{seconds:?}");
        let slow = after.iter().filter(|replies| **replies * 10 < full * 7).count();
        assert!(slow <= 1, "second {killed_at}: {seconds:?}, of {full}");
    }
}

#[test]
fn an_endpoint_that_wants_another_key_is_left_out() {
    let good = FakeTeacher::start(&["--latency-ms", "5"]);
    let closed = FakeTeacher::start(&["--fault", "401=1"]);
    let workspace = pipeline(200, &[endpoint("closed", &closed, ""), endpoint("good", &good, "")]);
    let said = workspace.run(&["run", "p.yaml", "--json"]).ended(0);
    let accounts = said.json();
    assert_eq!(accounts["tally"]["kept"], 200);
    assert!(account(&accounts, "closed")["out"].as_str().unwrap().contains("status 401"), "{accounts:#}");
    said.says(&["warning: endpoint `closed` of teacher `writer` is left out of this run: "]);
    // Those that were on their way to it before it was known.
    assert!(requests(&closed) <= 64, "{}", requests(&closed));
    // The last one that is left stops the run.
    let workspace = pipeline(200, &[endpoint("one", &closed, ""), endpoint("two", &closed, "")]);
    workspace.run(&["run", "p.yaml"]).ended(2).says(&[
        "is left out of this run: ",
        "error: teacher `writer`: ",
        "no key was sent",
    ]);
}

#[test]
fn an_endpoint_that_comes_back_is_asked_again() {
    let args = ["--latency-ms", "50", "--reply-bytes", "200"];
    let (steady, gone) = (FakeTeacher::start(&args), FakeTeacher::start(&args));
    let port = gone.url.rsplit(':').next().unwrap().trim_end_matches("/v1").to_owned();
    let places = ", limits: { in_flight: 8 }";
    let workspace = pipeline(1600, &[endpoint("steady", &steady, places), endpoint("gone", &gone, places)]);
    let running = start(&workspace);
    until("it does not begin", &|| requests(&gone) > 40);
    drop(gone);
    std::thread::sleep(Duration::from_millis(1700));
    let back = FakeTeacher::start(&[&args[..], &["--port", &port]].concat());
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let accounts: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&accounts["tally"]["kept"], &accounts["tally"]["failed"]), (&1600.into(), &0.into()));
    assert!(requests(&back) > 100, "it was asked {} times", requests(&back));
    assert_eq!(account(&accounts, "gone")["out"], Value::Null);
}

#[test]
fn a_key_travels_to_its_own_endpoint_only() {
    let [a, b] = [(); 2].map(|()| FakeTeacher::start(&["--echo-key", "--latency-ms", "50"]));
    let workspace =
        pipeline(40, &[endpoint("a", &a, ", key_env: KEY_A"), endpoint("b", &b, ", key_env: KEY_B")]);
    let with_keys = |args: &[&str]| {
        let mut command = workspace.command(args);
        command
            .env("KEY_A", "sk-proj-aaaaaaaaaaaaaaaaaaaaaaaa")
            .env("KEY_B", "sk-proj-bbbbbbbbbbbbbbbbbbbbbbb");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    with_keys(&["run", "p.yaml", "--json"]);
    let mut seen = [0, 0];
    for row in 0..40 {
        let shown = workspace.json(&["show", "p.yaml", "--row", &row.to_string(), "--json"], 0);
        let call = &shown["calls"][0];
        let at_a = call["endpoint"].as_str().unwrap().starts_with(&a.url);
        let reply = call["reply"].to_string();
        assert_eq!(
            (reply.contains("[secret KEY_A]"), reply.contains("[secret KEY_B]")),
            (at_a, !at_a),
            "{call}"
        );
        seen[usize::from(!at_a)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    let told = with_keys(&["check", "p.yaml"]);
    for line in ["has the endpoints `a`, `b` on 127.0.0.1", "`KEY_A` goes to 127.0.0.1", "`KEY_B` goes to"] {
        assert!(told.contains(line), "{told}");
    }
}

#[test]
fn answers_are_found_whatever_becomes_of_the_pool() {
    let [a, b] = [(); 2].map(|()| FakeTeacher::start(&[]));
    let workspace = pipeline(30, &[endpoint("a", &a, ""), endpoint("b", &b, ", model: acme/fake")]);
    let before = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(before["calls"]["text"]["calls"], 30);
    let parts = workspace.files(&workspace.path().join("out/data"));
    let text = workspace.read("p.yaml");
    let (head, rest) = text.split_once("    pool:").unwrap();
    let (_, rest) = rest.split_once("source:").unwrap();
    workspace
        .write("p.yaml", &format!("{head}    pool: [{{ url: \"http://127.0.0.1:1/v1\" }}]\nsource:{rest}"));
    let after = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(after["calls"]["text"]["from_store"], 30);
    let model = "openai: { url: \"http://127.0.0.1:1/v1\", model: fake, timeout: 5s }";
    let alone = workspace.read("p.yaml").replace("openai: { model: fake, timeout: 5s }", model);
    workspace.write("p.yaml", &alone.replace("    pool: [{ url: \"http://127.0.0.1:1/v1\" }]\n", ""));
    let alone = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(alone["calls"]["text"]["from_store"], 30);
    assert!(workspace.files(&workspace.path().join("out/data")) == parts, "the datasets differ");
}
