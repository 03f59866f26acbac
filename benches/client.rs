//! The client against the fake teacher, beside a bare reqwest loop: CPU per row, calls in flight, chained
//! calls, use of the limits, memory, an endpoint that ends.
//!
//! `cargo bench --bench client -- [cpu] [flight] [chain] [requests] [tokens] [learn] [drop] [queue]
//! [hang] [memory] [crowd] [pool] [share] [night]`; all without arguments. Everything runs as processes of their own, and
//! figures to compare come from one run. CPU time is
//! user and system time of the client's process, from the kernel's accounts (10 ms grain).

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_textmill");

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if args.first().is_some_and(|arg| arg == "bare-loop") {
        return bare_loop(&args[1], args[2].parse().unwrap(), args[3].parse().unwrap());
    }
    let all: [(&str, fn()); 14] = [
        ("cpu", cpu),
        ("flight", flight),
        ("chain", chain),
        ("requests", requests),
        ("tokens", tokens),
        ("learn", learn),
        ("drop", falling),
        ("queue", queue),
        ("hang", hang),
        ("memory", memory),
        ("crowd", crowd),
        ("pool", pool),
        ("share", share),
        ("night", night),
    ];
    for (name, bench) in all {
        if args.is_empty() || args.iter().any(|arg| arg == name) {
            println!("## {name}");
            bench();
        }
    }
}

struct Teacher {
    child: Child,
    url: String,
}

impl Teacher {
    fn start(args: &[&str]) -> Teacher {
        let mut child = Command::new(BINARY)
            .arg("teacher")
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        Teacher { child, url: url.trim().to_owned() }
    }

    fn stats(&self) -> Value {
        let host = self.url.trim_start_matches("http://").trim_end_matches("/v1");
        let mut stream = TcpStream::connect(host).unwrap();
        write!(stream, "GET /stats HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

impl Drop for Teacher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a finished process took.
struct Took {
    wall: Duration,
    cpu: Duration,
    rss_mib: u64,
}

/// CPU time of all children that were waited for, from `/proc/self/stat` (fields 16 and 17, in ticks).
fn children_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Peak resident memory of a live process, in MiB.
fn peak_rss_mib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

fn run(command: &mut Command) -> Took {
    let (before, started) = (children_cpu(), Instant::now());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut rss_mib = 0;
    let status = loop {
        rss_mib = rss_mib.max(peak_rss_mib(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let wall = started.elapsed();
    assert!(status.success(), "{command:?} ended with {status}");
    Took { wall, cpu: children_cpu() - before, rss_mib }
}

struct Job {
    folder: tempfile::TempDir,
}

impl Job {
    /// A pipeline over `rows` numbered rows.
    fn new(rows: usize, teachers: &str, steps: &str) -> Job {
        let folder = tempfile::tempdir().unwrap();
        let lines: String = (0..rows).map(|n| format!("{{\"n\": {n}}}\n")).collect();
        std::fs::write(folder.path().join("rows.jsonl"), lines).unwrap();
        let pipeline = format!(
            "textmill: 1\nname: bench\nteachers:\n{teachers}\nsource: {{ files: {{ path: rows.jsonl }} }}\n\
             steps:\n{steps}\nsave: {{ parquet: out }}\n"
        );
        std::fs::write(folder.path().join("p.yaml"), pipeline).unwrap();
        Job { folder }
    }

    fn run(&self) -> Took {
        run(Command::new(BINARY).args(["run", "p.yaml"]).current_dir(self.path()))
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn teacher(name: &str, url: &str, limits: &str) -> String {
    format!("  {name}: {{ openai: {{ url: \"{url}\", model: fake }}, limits: {{ {limits} }} }}\n")
}

const PROMPT: &str = "Write a short lesson on item {{ n }} for a student who has never seen it before, with one \
                      example and one question at the end, please.";

fn step(teacher: &str, prompt: &str, into: &str) -> String {
    format!("  - generate: {{ teacher: {teacher}, prompt: \"{prompt}\", into: {into}, max_tokens: 600 }}\n")
}

/// CPU per row of the whole client, 20,000 rows, latency 0, beside the bare loop.
fn cpu() {
    const ROWS: usize = 20_000;
    let micros = |took: &Took| took.cpu.as_secs_f64() * 1e6 / ROWS as f64;
    for _ in 0..3 {
        let fake = Teacher::start(&[]);
        let bare = run(&mut bare(&fake.url, ROWS, 64));
        let job = Job::new(ROWS, &teacher("w", &fake.url, "in_flight: 64"), &step("w", PROMPT, "text"));
        let ours = job.run();
        let again = job.run();
        println!(
            "textmill {:.0} µs/row ({:.0} rows/s), bare loop {:.0} µs/row, resume from the store {:.0} µs/row",
            micros(&ours),
            ROWS as f64 / ours.wall.as_secs_f64(),
            micros(&bare),
            micros(&again)
        );
    }
}

/// Lognormal latency (median 200 ms, sigma 0.6), 256 allowed in flight.
fn flight() {
    let fake = Teacher::start(&["--latency-ms", "200", "--latency-sigma", "0.6"]);
    let job = Job::new(20_000, &teacher("w", &fake.url, "in_flight: 256"), &step("w", PROMPT, "text"));
    let took = job.run();
    let seconds: Vec<f64> =
        fake.stats()["in_flight_by_second"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    let middle = &seconds[2..seconds.len().saturating_sub(3)];
    let mean = middle.iter().sum::<f64>() / middle.len() as f64;
    println!(
        "{:.1} s; mean in flight at the server between ramp-up (2 s) and tail (3 s): {mean:.1} of 256 = {:.1} %",
        took.wall.as_secs_f64(),
        mean / 2.56
    );
}

/// Two chained calls of 200 ms: to two teachers against one call, and to one shared teacher.
fn chain() {
    const ROWS: usize = 4000;
    let latency = ["--latency-ms", "200"];
    let (a, b) = (Teacher::start(&latency), Teacher::start(&latency));
    let limits = "in_flight: 64";
    let one = Job::new(ROWS, &teacher("a", &a.url, limits), &step("a", PROMPT, "x")).run();
    let both = teacher("a", &a.url, limits) + &teacher("b", &b.url, limits);
    let steps = step("a", PROMPT, "x") + &step("b", "Grade: {{ x }}", "y");
    let two = Job::new(ROWS, &both, &steps).run();
    let shared = step("a", PROMPT, "x") + &step("a", "Grade: {{ x }}", "y");
    let shared = Job::new(ROWS, &teacher("a", &a.url, limits), &shared).run();
    let ideal = 2.0 * ROWS as f64 / 64.0 * 0.2;
    println!(
        "one call {:.2} s; two teachers {:.2} s ({:.3} x); one shared teacher {:.2} s ({:.3} x its work / limit)",
        one.wall.as_secs_f64(),
        two.wall.as_secs_f64(),
        two.wall.as_secs_f64() / one.wall.as_secs_f64(),
        shared.wall.as_secs_f64(),
        shared.wall.as_secs_f64() / ideal
    );
}

/// Share of an allowance used between seconds 10 and 70, and the share of 429s.
fn used(fake: &Teacher, per_minute: f64, counted: &str) {
    let stats = fake.stats();
    let seconds: Vec<f64> = stats[counted].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
    let window: f64 = seconds.iter().skip(10).take(60).sum();
    let refused = stats["rate_limited"].as_f64().unwrap();
    println!(
        "{:.1} % of the allowance used between seconds 10 and 70; {} of {} replies were 429 ({:.2} %)",
        window / per_minute * 100.0,
        refused,
        stats["requests"],
        refused / stats["requests"].as_f64().unwrap() * 100.0
    );
}

/// 3,000 requests a minute, a strict bucket with a burst of one second.
fn requests() {
    let fake =
        Teacher::start(&["--requests-per-minute", "3000", "--latency-ms", "300", "--latency-sigma", "0.5"]);
    let limits = "requests_per_minute: 3000, in_flight: 256";
    Job::new(3800, &teacher("w", &fake.url, limits), &step("w", PROMPT, "text")).run();
    used(&fake, 3000.0, "ok_by_second");
}

/// Two processes with one allowance of 3,000 requests a minute: one begins alone, another joins it after 15
/// seconds and is killed after 45.
fn share() {
    const PER_S: f64 = 50.0;
    let fake =
        Teacher::start(&["--requests-per-minute", "3000", "--latency-ms", "300", "--latency-sigma", "0.5"]);
    let limits = "requests_per_minute: 3000, in_flight: 256";
    let job = Job::new(2_600, &teacher("w", &fake.url, limits), &step("w", PROMPT, "text"));
    let second = std::fs::read_to_string(job.path().join("p.yaml")).unwrap();
    let second = second.replace("name: bench", "name: second").replace("parquet: out", "parquet: out-second");
    std::fs::write(job.path().join("second.yaml"), second.replace("Write a", "Draw up a")).unwrap();
    let path = job.path().to_owned();
    let long = std::thread::spawn(move || job.run());
    std::thread::sleep(Duration::from_secs(15));
    let mut joins = Command::new(BINARY);
    let joins = joins.args(["run", "second.yaml"]).current_dir(path).stderr(Stdio::null());
    let mut joins = joins.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(30));
    joins.kill().unwrap();
    joins.wait().unwrap();
    let left_alone = by_second(&fake.stats(), "ok_by_second").len();
    long.join().unwrap();
    let stats = fake.stats();
    let seconds = by_second(&stats, "ok_by_second");
    let used = |from: usize, to: usize| {
        let part = &seconds[from..to];
        part.iter().sum::<f64>() / part.len() as f64 / PER_S * 100.0
    };
    let refused = stats["rate_limited"].as_f64().unwrap() / stats["requests"].as_f64().unwrap() * 100.0;
    println!(
        "of the allowance used: {:.1} % by one alone, {:.1} % by two (seconds 18 to {left_alone}), {:.1} % by the one \
         that is left (from its third second); {refused:.2} % of {} replies were 429",
        used(3, 14),
        used(18, left_alone - 1),
        used(left_alone + 2, seconds.len() - 1),
        stats["requests"]
    );
}

/// 600,000 tokens a minute with small and large requests mixed.
fn tokens() {
    const LIMIT: &str = "600000";
    let fake =
        Teacher::start(&["--tokens-per-minute", LIMIT, "--latency-ms", "300", "--latency-sigma", "0.5"]);
    let limits = format!("tokens_per_minute: {LIMIT}, in_flight: 256");
    let large = "{% if n % 20 == 0 %}{% for i in range(400) %}Consider this case with care, number {{ i }}. {% endfor %}{% endif %}";
    let prompt = format!("{large}{PROMPT}");
    let job = Job::new(1700, &teacher("w", &fake.url, &limits), &step("w", &prompt, "text"));
    let took = job.run();
    let stats = fake.stats();
    let tokens = stats["tokens_in"].as_f64().unwrap() + stats["tokens_out"].as_f64().unwrap();
    println!(
        "{tokens} tokens in {:.1} s: {:.1} % of the allowance",
        took.wall.as_secs_f64(),
        tokens / (600_000.0 * took.wall.as_secs_f64() / 60.0) * 100.0
    );
    used(&fake, f64::INFINITY, "ok_by_second");
}

/// A row of the server's statistics by second.
fn by_second(stats: &Value, name: &str) -> Vec<f64> {
    stats[name].as_array().unwrap().iter().filter_map(Value::as_f64).collect()
}

/// Limits of the file that are twice the truth, with headers that tell it, that lie, and without: the share
/// of the allowance that is used after half a minute, and the 429s before and after. A minute each, at once.
fn learn() {
    const HEADERS: [&[&str]; 3] = [&[], &["--no-limit-headers"], &["--limit-headers-factor", "2"]];
    let cases = ["requests", "tokens"].into_iter().flat_map(|unit| HEADERS.map(|headers| (unit, headers)));
    let threads: Vec<_> = cases
        .map(|(unit, headers)| {
            std::thread::spawn(move || {
                let truth = if unit == "requests" { 3000 } else { 600_000 };
                let limit = format!("--{unit}-per-minute");
                let truth_text = truth.to_string();
                let mut args = vec![&*limit, &*truth_text, "--latency-ms", "300", "--latency-sigma", "0.5"];
                args.extend(headers);
                let fake = Teacher::start(&args);
                let limits = format!("{unit}_per_minute: {}, in_flight: 256", truth * 2);
                let rows = if unit == "requests" { 3700 } else { 2200 };
                let took = Job::new(rows, &teacher("w", &fake.url, &limits), &step("w", PROMPT, "text")).run();
                let stats = fake.stats();
                let per_reply = match unit {
                    "requests" => 1.0,
                    _ => (stats["tokens_in"].as_f64().unwrap() + stats["tokens_out"].as_f64().unwrap()) / rows as f64,
                };
                let end = (took.wall.as_secs_f64() as usize).saturating_sub(3);
                let sum = |name, from: usize, to: usize| by_second(&stats, name)[from..to].iter().sum::<f64>();
                let used = sum("ok_by_second", 30, end) * per_reply * 60.0 / (end - 30) as f64 / f64::from(truth);
                let refused =
                    |from, to| sum("rate_limited_by_second", from, to) / sum("requests_by_second", from, to) * 100.0;
                format!(
                    "{unit} {headers:?}: {:.1} % used in seconds 30 to {end}; 429s {:.2} % before, {:.2} % then",
                    used * 100.0,
                    refused(0, 30),
                    refused(30, end)
                )
            })
        })
        .collect();
    for thread in threads {
        println!("{}", thread.join().unwrap());
    }
}

/// 6,000 requests a minute, from second 20 to 50 a third of it, no headers: when the 429s stop, and what is
/// used before, meanwhile and after.
fn falling() {
    let fake = Teacher::start(&[
        "--requests-per-minute",
        "6000",
        "--requests-per-minute-after",
        "20:2000",
        "--requests-per-minute-after",
        "50:6000",
        "--no-limit-headers",
        "--latency-ms",
        "300",
    ]);
    let limits = "requests_per_minute: 6000, in_flight: 256";
    Job::new(5700, &teacher("w", &fake.url, limits), &step("w", PROMPT, "text")).run();
    let stats = fake.stats();
    let (refused, ok) = (by_second(&stats, "rate_limited_by_second"), by_second(&stats, "ok_by_second"));
    let mean = |from: usize, to: usize| ok[from..to].iter().sum::<f64>() / (to - from) as f64;
    let last = (20..30).rev().find(|second| refused[*second] > 1.0).map_or(0, |second| second - 19);
    println!(
        "more than one 429 a second for {last} s after the fall; {} 429s in seconds 20 to 25, {} in 25 to 50; replies a \
         second: {:.1} of 100 before, {:.1} of 33.3 in seconds 25 to 50, {:.1} of 100 in the last ten",
        refused[20..25].iter().sum::<f64>(),
        refused[25..50].iter().sum::<f64>(),
        mean(2, 20),
        mean(25, 50),
        mean(ok.len() - 12, ok.len() - 2)
    );
}

/// A server that works on 8 at a time and lets the others wait: 256 in flight allowed, and 8.
fn queue() {
    let run = |places: u32| {
        let fake =
            Teacher::start(&["--in-flight", "8", "--queue", "--latency-ms", "100", "--latency-sigma", "0.3"]);
        let limits = format!("in_flight: {places}");
        let job = Job::new(3000, &teacher("w", &fake.url, &limits), &step("w", PROMPT, "text"));
        let running = std::thread::spawn(move || job.run());
        let (mut waiting, started) = (Vec::new(), Instant::now());
        while !running.is_finished() {
            std::thread::sleep(Duration::from_millis(100));
            waiting.push((started.elapsed(), fake.stats()["queued_now"].as_f64().unwrap()));
        }
        let wall = running.join().unwrap().wall;
        let late = waiting.iter().filter(|(at, _)| (wall / 2..wall - Duration::from_secs(2)).contains(at));
        let late: Vec<f64> = late.map(|(_, waiting)| *waiting).collect();
        (3000.0 / wall.as_secs_f64(), late.iter().sum::<f64>() / late.len() as f64)
    };
    let ((free, waiting), (fixed, _)) = (run(256), run(8));
    println!(
        "256 in flight allowed: {free:.1} replies/s, {waiting:.1} wait at the server in the second half beside the 8 \
         at work; 8 allowed: {fixed:.1} replies/s ({:.3} x)",
        free / fixed
    );
}

/// Row 0 hangs for 60 s at about 1,000 rows a second: no throughput is lost.
fn hang() {
    const ROWS: usize = 40_000;
    for hang in [false, true] {
        let mut args = vec!["--latency-ms", "100"];
        if hang {
            args.extend(["--hang-once", "item 0 for:30"]);
        }
        let fake = Teacher::start(&args);
        let job = Job::new(ROWS, &teacher("w", &fake.url, "in_flight: 128"), &step("w", PROMPT, "text"));
        let took = job.run();
        let stats = fake.stats();
        let by_second: Vec<f64> =
            stats["ok_by_second"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
        let best: f64 = by_second.iter().skip(2).take(15).sum::<f64>() / 15.0;
        println!(
            "row 0 hangs: {hang}; {:.1} s; {best:.0} rows/s in seconds 2 to 17; peak {} MiB",
            took.wall.as_secs_f64(),
            took.rss_mib
        );
    }
}

/// Peak memory of 20,000 and of 200,000 rows.
fn memory() {
    let fake = Teacher::start(&["--reply-bytes", "400"]);
    let mut peaks = Vec::new();
    for rows in [20_000, 200_000] {
        let job = Job::new(rows, &teacher("w", &fake.url, "in_flight: 64"), &step("w", PROMPT, "text"));
        let took = job.run();
        println!("{rows} rows: peak {} MiB, {:.1} s", took.rss_mib, took.wall.as_secs_f64());
        peaks.push(took.rss_mib as f64);
    }
    println!("ratio {:.2}", peaks[1] / peaks[0]);
}

/// 5,000 calls in flight, 3 s each: peak memory and CPU time, beside the bare loop. Needs 11,000 open files.
fn crowd() {
    const ROWS: usize = 30_000;
    const PLACES: usize = 5000;
    let micros = |took: &Took| took.cpu.as_secs_f64() * 1e6 / ROWS as f64;
    let say = |what: &str, took: &Took, fake: &Teacher| {
        let busiest = by_second(&fake.stats(), "in_flight_by_second").into_iter().fold(0.0, f64::max);
        println!(
            "{what}: {busiest:.0} in flight at most, peak {} MiB, {:.0} µs/row, {:.1} s",
            took.rss_mib,
            micros(took),
            took.wall.as_secs_f64()
        );
    };
    let latency = ["--latency-ms", "3000", "--latency-sigma", "0.3"];
    let fake = Teacher::start(&latency);
    say("bare loop", &run(&mut bare(&fake.url, ROWS, PLACES)), &fake);
    let fake = Teacher::start(&latency);
    let limits = format!("in_flight: {PLACES}");
    let job = Job::new(ROWS, &teacher("w", &fake.url, &limits), &step("w", PROMPT, "text"));
    say("textmill", &job.run(), &fake);
}

/// Three endpoints, one of which is killed (-9) in mid-run: rows that are lost, calls that fail, and what the other
/// two answer a second before it and after.
fn pool() {
    const ROWS: usize = 14_000;
    let fakes = [(); 3].map(|()| Teacher::start(&["--latency-ms", "100", "--reply-bytes", "400"]));
    let entries: Vec<String> = fakes.iter().map(|fake| format!("{{ url: \"{}\" }}", fake.url)).collect();
    let writer = format!(
        "  w: {{ openai: {{ model: fake }}, identity: w, limits: {{ in_flight: 32 }}, pool: [{}] }}\n",
        entries.join(", ")
    );
    let job = Job::new(ROWS, &writer, &step("w", PROMPT, "text"));
    let mut run = Command::new(BINARY);
    run.args(["run", "p.yaml", "--json"]).current_dir(job.path());
    let running = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let [killed, others @ ..] = fakes;
    while killed.stats()["ok"].as_u64().unwrap() < 5 * 320 {
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(killed);
    let both = || {
        let seconds = others.each_ref().map(|fake| by_second(&fake.stats(), "ok_by_second"));
        seconds[0].iter().zip(&seconds[1]).map(|(a, b)| a + b).collect::<Vec<f64>>()
    };
    let at = both().len() - 1;
    let accounts: Value = serde_json::from_slice(&running.wait_with_output().unwrap().stdout).unwrap();
    let seconds = both();
    let before = seconds[1..at].iter().sum::<f64>() / (at - 1) as f64;
    println!(
        "{} of {ROWS} rows kept, {} failed; calls that failed: {}",
        accounts["tally"]["kept"], accounts["tally"]["failed"], accounts["calls"]["text"]["faults"]
    );
    println!(
        "the other two: {before:.0} replies/s before the kill; in the seconds from it on: {:?}",
        &seconds[at..seconds.len() - 1]
    );
}

/// A night's job: rows that all wait for batches. What a waiting row leaves in memory is the peak's growth.
fn night() {
    let mut peaks = Vec::new();
    for rows in [5_000, 50_000] {
        let fake = Teacher::start(&["--reply-bytes", "400", "--batch-ms", "2000"]);
        let batched = ", mode: batch, batch: { poll: 1s } }\n";
        let batched = teacher("w", &fake.url, "in_flight: 64").replace(" }\n", batched);
        let took = Job::new(rows, &batched, &step("w", PROMPT, "text")).run();
        println!(
            "{rows} rows: peak {} MiB, {:.1} s, {}",
            took.rss_mib,
            took.wall.as_secs_f64(),
            fake.stats()["batches"]
        );
        peaks.push(took.rss_mib as f64);
    }
    println!("{:.0} bytes a waiting row", (peaks[1] - peaks[0]) * 1048576.0 / 45_000.0);
}

/// The bare loop in a process of its own.
fn bare(url: &str, rows: usize, places: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["bare-loop", url, &rows.to_string(), &places.to_string()]);
    command
}

/// The least that a client must do: render a prompt, send, read the answer's text, so many at a time.
fn bare_loop(url: &str, rows: usize, places: usize) {
    use futures_util::StreamExt;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("{url}/chat/completions");
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let calls = futures_util::stream::iter(0..rows).map(|n| {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let prompt = PROMPT.replace("{{ n }}", &n.to_string());
                let body = serde_json::json!({
                    "model": "fake", "max_tokens": 600, "messages": [{"role": "user", "content": prompt}],
                });
                let reply = client
                    .post(url)
                    .header("content-type", "application/json")
                    .body(body.to_string())
                    .send()
                    .await
                    .unwrap()
                    .bytes()
                    .await
                    .unwrap();
                let reply: Value = serde_json::from_slice(&reply).unwrap();
                reply["choices"][0]["message"]["content"].as_str().unwrap().len()
            }
        });
        let total: usize =
            calls.buffer_unordered(places).fold(0, |sum, length| async move { sum + length }).await;
        assert!(total > 0);
    });
}
