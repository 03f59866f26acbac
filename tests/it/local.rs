//! Teachers whose server a run starts: one that ends is started again, and none is left behind.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::workspace::{BINARY, Workspace, lives, rows, until};

/// A workspace whose teacher is the fake one, started by the run, which tells its process number.
fn prepare(count: usize, start: &str) -> Workspace {
    let workspace = Workspace::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let serve =
        format!("echo $$ > pid.new && mv pid.new pid; exec {BINARY} teacher --port {port} --latency-ms 20");
    workspace.write("serve.sh", &serve);
    workspace.write("rows.jsonl", &rows(count));
    let mut file = "textmill: 1\nname: local\nteachers:\n  writer:\n".to_owned();
    let url = format!("http://127.0.0.1:{port}");
    writeln!(file, "    openai: {{ url: \"{url}/v1\", model: fake }}").unwrap();
    writeln!(file, "    identity: the-fake\n    limits: {{ in_flight: 8 }}\n    attempts: 1").unwrap();
    writeln!(file, "    start: {{ command: [sh, serve.sh], ready: \"{url}/health\", {start} }}").unwrap();
    file.push_str(
        r#"source: { files: { path: rows.jsonl } }
steps:
  - generate: { teacher: writer, prompt: "Write about {{ topic }}.", into: text, max_tokens: 400 }
save: { parquet: out }
"#,
    );
    workspace.write("p.yaml", &file);
    workspace
}

fn started(workspace: &Workspace) -> Child {
    let mut command = workspace.command(&["run", "p.yaml", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The process number of the server, once there is one other than `old`.
fn server(workspace: &Workspace, old: &str) -> String {
    let pid = || std::fs::read_to_string(workspace.path().join("pid")).unwrap_or_default();
    until("the server did not start", &|| pid() != old);
    pid()
}

fn kill(pid: &str) {
    let killed = std::process::Command::new("kill").args(["-9", pid.trim()]).status().unwrap();
    assert!(killed.success());
}

#[test]
fn a_server_that_dies_in_mid_run_is_started_again() {
    let workspace = prepare(800, "restarts: 1");
    let run = started(&workspace);
    let first = server(&workspace, "");
    std::thread::sleep(Duration::from_millis(600));
    kill(&first);
    let second = server(&workspace, &first);
    let ended = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    let accounts: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(
        (&accounts["tally"]["kept"], &accounts["tally"]["failed"]),
        (&800.into(), &0.into()),
        "{said}"
    );
    assert!(!lives(&first) && !lives(&second));
}

#[test]
fn a_server_that_dies_too_often_stops_the_run_with_how_it_ended() {
    let workspace = prepare(800, "restarts: 0");
    let run = started(&workspace);
    let pid = server(&workspace, "");
    std::thread::sleep(Duration::from_millis(600));
    kill(&pid);
    let ended = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    for expected in [
        "teacher `writer`: the server ended by itself: exit status: 137; `restarts: 0` allows no further start; \
         it wrote last: ",
        "serving a fake teacher; Ctrl-C stops it",
        "writer.log`",
    ] {
        assert!(said.contains(expected), "no `{expected}` in {said}");
    }
    let accounts: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(accounts["tally"]["failed"], 0, "{said}");
}

#[test]
fn a_run_that_is_stopped_does_not_wait_for_a_server_to_come_back() {
    let workspace = prepare(800, "restarts: 1");
    let slow = workspace.read("serve.sh").replace("exec ", "[ -e again ] && exec sleep 60; : > again; exec ");
    workspace.write("serve.sh", &slow);
    let mut run = started(&workspace);
    let first = server(&workspace, "");
    std::thread::sleep(Duration::from_millis(600));
    kill(&first);
    let second = server(&workspace, &first);
    let interrupted = std::process::Command::new("kill").args(["-INT", &run.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    for _ in 0..500 {
        if run.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(run.try_wait().unwrap().and_then(|status| status.code()), Some(1));
    assert!(!lives(&second));
}

#[test]
fn a_run_after_a_kill_does_not_trust_the_server_that_was_left() {
    let workspace = prepare(100, "reuse: true");
    // Takes two of its five seconds to end, and serves until then.
    let serve =
        workspace.read("serve.sh").replace("exec ", "trap 'sleep 2; kill $server; exit' TERM; setsid ")
            + " & server=$!\nwait\n";
    workspace.write("serve.sh", &serve);
    let mut run = started(&workspace);
    let first = server(&workspace, "");
    std::thread::sleep(Duration::from_millis(600));
    run.kill().unwrap();
    run.wait().unwrap();
    let accounts = workspace.json(&["run", "p.yaml", "--json"], 0);
    assert_eq!(accounts["tally"]["kept"], 100);
    let second = server(&workspace, &first);
    until("a server is still there", &|| !lives(&first) && !lives(&second));
}
