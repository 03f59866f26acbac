//! The fake teacher as its clients see it: over loopback, by HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::config::LimitAfter;
use super::*;
use crate::clock;

fn with(change: impl FnOnce(&mut FakeConfig)) -> FakeConfig {
    let mut config = FakeConfig { reply_bytes: 300, ..FakeConfig::default() };
    change(&mut config);
    config
}

fn always(fault: &str) -> FakeConfig {
    with(|config| config.fault = vec![format!("{fault}=1").parse().expect("a fault")])
}

fn client() -> reqwest::Client {
    // Fails when it is already installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

fn asking(prompt: &str) -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": prompt }] })
}

struct Got {
    status: u16,
    headers: reqwest::header::HeaderMap,
    /// `None` when the body broke off.
    body: Option<Vec<u8>>,
}

impl Got {
    fn json(&self) -> Value {
        self.body.as_deref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default()
    }

    fn text(&self) -> String {
        self.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

async fn send(client: &reqwest::Client, running: &Running, body: String) -> Got {
    send_to("chat/completions", client, running, body).await
}

async fn send_to(path: &str, client: &reqwest::Client, running: &Running, body: String) -> Got {
    let url = format!("{}/{path}", running.url());
    let request = client.post(url).header("authorization", "Bearer sk-secret").body(body);
    let response = request.send().await.expect("a reply");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Got { status, headers, body: response.bytes().await.ok().map(|bytes| bytes.to_vec()) }
}

async fn ask(running: &Running, body: &Value) -> Got {
    send(&client(), running, body.to_string()).await
}

/// Waits for the statistics to become what they must: a server enters an end after the client saw it.
async fn settled(running: &Running, right: impl Fn(&Stats) -> bool) -> Stats {
    for _ in 0..500 {
        if right(&running.stats()) {
            break;
        }
        sleep(Duration::from_millis(2)).await;
    }
    let stats = running.stats();
    assert!(right(&stats), "{stats:#?}");
    assert_eq!(
        stats.requests,
        stats.by_status.values().sum::<u64>() + stats.client_gone + stats.in_flight_now + stats.queued_now
    );
    stats
}

/// One request to a teacher with this fault: its status, a value in its body, and whether it is `ok`.
async fn check(fault: &str, status: u16, pointer: &str, expected: &Value, ok: u64) {
    check_at("chat/completions", &asking("x"), fault, (status, pointer, expected), ok).await;
}

async fn check_at(path: &str, body: &Value, fault: &str, shown: (u16, &str, &Value), ok: u64) {
    let (status, pointer, expected) = shown;
    let running = start(always(fault)).await.expect("a teacher");
    let got = send_to(path, &client(), &running, body.to_string()).await;
    assert_eq!(got.status, status, "{fault}");
    assert_eq!(got.json().pointer(pointer).unwrap_or(&json!("absent")), expected, "{fault}");
    let stats = settled(&running, |stats| stats.in_flight_now == 0).await;
    assert_eq!((stats.ok, stats.faults.get(fault), stats.by_status.get(&status)), (ok, Some(&1), Some(&1)));
}

#[tokio::test]
async fn faults_are_what_they_say() {
    check("500", 500, "/error/type", &json!("server_error"), 0).await;
    check("503", 503, "/error/type", &json!("server_error"), 0).await;
    check("503-retry-after", 503, "/error/type", &json!("server_error"), 0).await;
    check("429", 429, "/error/code", &json!("rate_limit_exceeded"), 0).await;
    check("529", 529, "/error/type", &json!("overloaded_error"), 0).await;
    check("400", 400, "/error/type", &json!("invalid_request_error"), 0).await;
    check("401", 401, "/error/code", &json!("invalid_api_key"), 0).await;
    check("402-quota", 429, "/error/code", &json!("insufficient_quota"), 0).await;
    check("context-length", 400, "/error/code", &json!("context_length_exceeded"), 0).await;
    check("error-200", 200, "/error/type", &json!("server_error"), 0).await;
    check("empty-choices", 200, "/choices", &json!([]), 0).await;
    check("length", 200, "/choices/0/finish_reason", &json!("length"), 1).await;
    check("refusal", 200, "/choices/0/message/content", &Value::Null, 1).await;
    check("no-usage", 200, "/usage", &json!("absent"), 1).await;
    check("truncated-json", 200, "/choices", &json!("absent"), 0).await;
    check("invalid-utf8", 200, "/choices", &json!("absent"), 0).await;
    check("html", 200, "/choices", &json!("absent"), 0).await;
    check("cut-body", 200, "/choices", &json!("absent"), 0).await;
    check("reset", 200, "/choices", &json!("absent"), 0).await;
}

#[tokio::test]
async fn vectors_have_the_same_faults() {
    let check = async |fault: &str, status: u16, pointer: &str, expected: Value, ok: u64| {
        let body = json!({ "model": "m", "input": "x" });
        check_at("embeddings", &body, fault, (status, pointer, &expected), ok).await;
    };
    check("500", 500, "/error/type", json!("server_error"), 0).await;
    check("429", 429, "/error/code", json!("rate_limit_exceeded"), 0).await;
    check("401", 401, "/error/code", json!("invalid_api_key"), 0).await;
    check("error-200", 200, "/error/type", json!("server_error"), 0).await;
    check("empty-choices", 200, "/data", json!([]), 0).await;
    check("no-usage", 200, "/usage", json!("absent"), 1).await;
    check("slow-body", 200, "/object", json!("list"), 1).await;
    for fault in ["truncated-json", "invalid-utf8", "html", "cut-body", "reset"] {
        check(fault, 200, "/data", json!("absent"), 0).await;
    }
    // There is nothing that could be cut short or refused.
    for fault in ["length", "refusal"] {
        let running = start(always(fault)).await.expect("a teacher");
        let body = json!({ "model": "m", "input": "x" }).to_string();
        assert_eq!(send_to("embeddings", &client(), &running, body).await.json()["object"], "list");
        let stats = settled(&running, |stats| stats.ok == 1).await;
        assert!(stats.faults.is_empty() && stats.tokens_in == 1, "{stats:#?}");
    }
}

#[tokio::test]
async fn vectors_have_the_same_limits() {
    let limited = async |change: fn(&mut FakeConfig), kind: &str| {
        let running = start(with(change)).await.expect("a teacher");
        let client = client();
        let body = json!({ "model": "m", "input": ["x".repeat(400), "y".repeat(400)] }).to_string();
        let first = send_to("embeddings", &client, &running, body.clone()).await;
        let second = send_to("embeddings", &client, &running, body).await;
        assert_eq!((first.status, second.status), (200, 429), "{kind}");
        let limit = first.header(&format!("x-ratelimit-limit-{kind}")).to_owned();
        assert_eq!((limit.as_str(), &second.json()["error"]["type"]), ("60", &json!(kind)));
        assert!(!second.header("retry-after").is_empty());
        assert_eq!(settled(&running, |stats| stats.ok == 1).await.rate_limited, 1);
    };
    limited(|config| (config.requests_per_minute, config.burst_s) = (Some(60), 1.0), "requests").await;
    limited(|config| (config.tokens_per_minute, config.burst_s) = (Some(60), 1.0), "tokens").await;
}

#[tokio::test]
async fn waits_are_told_with_faults_that_have_one() {
    let running = start(with(|config| {
        config.fault = vec!["429=1".parse().expect("a fault")];
        config.fault_retry_after_ms = 1200;
    }));
    let got = ask(&running.await.expect("a teacher"), &asking("x")).await;
    assert_eq!((got.header("retry-after"), got.header("retry-after-ms")), ("2", "1200"));
    let got = ask(&start(always("503")).await.expect("a teacher"), &asking("x")).await;
    assert_eq!(got.header("retry-after"), "");
    let got = ask(&start(always("html")).await.expect("a teacher"), &asking("x")).await;
    assert_eq!(got.header("content-type"), "text/html");
}

/// Everything that comes down a raw connection, and how it ended.
async fn raw(running: &Running, request: &str) -> (Vec<u8>, io::Result<()>) {
    let mut stream = TcpStream::connect(running.addr()).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).await;
    (bytes, end.map(drop))
}

#[tokio::test]
async fn bodies_break_by_reset_or_by_close() {
    let body = asking("x").to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for (fault, reset) in [("reset", true), ("cut-body", false)] {
        let (bytes, end) = raw(&start(always(fault)).await.expect("a teacher"), &request).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let promised = head.split_once("content-length: ").expect("a length").1;
        let promised: usize = promised.lines().next().unwrap_or_default().parse().expect("a number");
        assert!(body.len() >= promised / 2 && body.len() < promised, "{fault}: {} of {promised}", body.len());
        assert_eq!(end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset), reset, "{fault}");
    }
}

#[tokio::test]
async fn a_body_too_large_is_not_read() {
    let running = start(FakeConfig::default()).await.expect("a teacher");
    let request = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 33554433\r\n\r\n{";
    let (bytes, _) = raw(&running, request).await;
    assert!(bytes.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&bytes));
}

#[tokio::test]
async fn a_slow_body_dribbles_and_a_hang_holds_until_the_client_leaves() {
    let slow = FakeConfig { slow_body_ms: 100, ..always("slow-body") };
    let running = start(slow).await.expect("a teacher");
    let start_at = clock::now();
    assert!(!ask(&running, &asking("x")).await.text().is_empty());
    assert!(clock::now().duration_since(start_at).as_millis() >= 95);
    settled(&running, |stats| stats.ok == 1).await;

    let running = start(always("hang")).await.expect("a teacher");
    assert!(timeout(Duration::from_secs(1), ask(&running, &asking("x"))).await.is_err());
    let stats = settled(&running, |stats| stats.client_gone == 1 && stats.in_flight_now == 0).await;
    assert_eq!((stats.faults.get("hang"), stats.by_status.len()), (Some(&1), 0));
}

#[tokio::test]
async fn a_fault_may_be_gone_at_the_next_try_unless_it_sticks() {
    for sticky in [false, true] {
        let running = start(with(|config| {
            config.fault = vec!["500=0.5".parse().expect("a fault")];
            config.fault_sticky = sticky;
        }));
        let running = running.await.expect("a teacher");
        let client = client();
        let mut changed = false;
        for body in 0..10 {
            let body = asking(&body.to_string()).to_string();
            let first = send(&client, &running, body.clone()).await.status;
            for _ in 0..4 {
                changed |= send(&client, &running, body.clone()).await.status != first;
            }
        }
        assert_eq!(changed, !sticky);
    }
}

#[tokio::test]
async fn a_reply_is_a_function_of_the_body_and_the_seed() {
    let running = start(with(|_| {})).await.expect("a teacher");
    let other = start(with(|config| config.seed = 1)).await.expect("a teacher");
    let first = ask(&running, &asking("x")).await;
    assert_eq!(first.body, ask(&running, &asking("x")).await.body);
    assert_ne!(first.text(), ask(&running, &asking("y")).await.text());
    assert_ne!(first.text(), ask(&other, &asking("x")).await.text());
    assert!(!first.header("x-request-id").is_empty());
    assert_eq!(ask(&running, &asking("<<reply>>so<</reply>>")).await.text(), "so");
    let mut many = asking("x");
    many["n"] = json!(3);
    assert_eq!(ask(&running, &many).await.json()["choices"].as_array().map(Vec::len), Some(3));
    let mut streaming = asking("x");
    streaming["stream"] = json!(true);
    let refused = ask(&running, &streaming).await;
    assert_eq!(
        (refused.status, refused.json()["error"]["type"].as_str()),
        (400, Some("invalid_request_error"))
    );
    let stats = settled(&running, |stats| stats.ok == 5).await;
    assert_eq!((stats.requests, stats.repeats, stats.distinct_bodies), (6, 1, 5));
}

#[tokio::test]
async fn json_fits_the_schema_that_was_asked_for() {
    let running = start(with(|_| {})).await.expect("a teacher");
    let schema = json!({ "type": "object", "required": ["a", "b"], "additionalProperties": false,
        "properties": { "a": { "type": "array", "items": { "type": "integer", "minimum": 3, "maximum": 4 } },
                        "b": { "enum": ["x"] } } });
    let mut body = asking("x");
    body["response_format"] =
        json!({ "type": "json_schema", "json_schema": { "name": "n", "strict": true, "schema": schema } });
    let value: Value = serde_json::from_str(&ask(&running, &body).await.text()).expect("JSON");
    assert!(jsonschema::is_valid(&schema, &value), "{value}");
}

#[tokio::test]
async fn request_limits_are_exact_and_told() {
    let running = start(with(|config| {
        config.requests_per_minute = Some(60);
        config.burst_s = 3.0;
    }));
    let running = running.await.expect("a teacher");
    let client = client();
    let mut last = None;
    for number in 0..6 {
        let got = send(&client, &running, asking(&number.to_string()).to_string()).await;
        assert_eq!(got.status, if number < 3 { 200 } else { 429 }, "request {number}");
        assert_eq!(got.header("x-ratelimit-limit-requests"), "60");
        assert_eq!(got.header("x-ratelimit-remaining-requests"), 2_u64.saturating_sub(number).to_string());
        last = Some(got);
    }
    let last = last.expect("a reply");
    let wait_ms: u64 = last.header("retry-after-ms").parse().expect("a number");
    assert!((1..=1000).contains(&wait_ms) && last.header("retry-after") == "1", "{wait_ms}");
    assert!(last.header("x-ratelimit-reset-requests").ends_with('s'), "{:?}", last.headers);
    assert_eq!(last.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(last.header("x-ratelimit-limit-tokens"), "");
    sleep(Duration::from_millis(wait_ms)).await;
    assert_eq!(send(&client, &running, asking("z").to_string()).await.status, 200);
    let stats = settled(&running, |stats| stats.ok == 4).await;
    assert_eq!((stats.rate_limited, stats.by_status[&429], stats.requests), (3, 3, 7));
    assert_eq!(stats.rate_limited_by_second.iter().sum::<u64>(), 3);
}

/// The limit that headers give, and whether the second request gets a `retry-after`.
async fn check_limit_headers(change: impl FnOnce(&mut FakeConfig), limit: &str, retry_after: bool) {
    let running = start(with(|config| {
        (config.requests_per_minute, config.burst_s) = (Some(60), 0.0);
        change(config);
    }))
    .await
    .expect("a teacher");
    let client = client();
    let first = send(&client, &running, asking("a").to_string()).await;
    assert_eq!((first.status, first.header("x-ratelimit-limit-requests")), (200, limit));
    let second = send(&client, &running, asking("b").to_string()).await;
    assert_eq!((second.status, !second.header("retry-after").is_empty()), (429, retry_after));
}

#[tokio::test]
async fn headers_can_be_missing_or_lie() {
    check_limit_headers(|_| {}, "60", true).await;
    check_limit_headers(|config| config.no_limit_headers = true, "", false).await;
    check_limit_headers(|config| config.limit_headers_factor = 2.0, "120", true).await;
    let after = LimitAfter { after_s: 0.0, per_minute: 30 };
    check_limit_headers(|config| config.requests_per_minute_after = vec![after], "30", true).await;
}

#[tokio::test]
async fn token_limits_charge_the_worst_and_settle_to_the_truth() {
    let running = start(with(|config| {
        config.tokens_per_minute = Some(6000);
        config.burst_s = 10.0;
        config.latency_ms = 200;
    }));
    let running = running.await.expect("a teacher");
    let mut body = asking("<<reply>>four<</reply>>"); // 6 tokens in, 1 out
    body["max_tokens"] = json!(994);
    let (first, second) = tokio::join!(ask(&running, &body), async {
        sleep(Duration::from_millis(60)).await;
        ask(&running, &asking("x")).await
    });
    assert_eq!((first.status, second.status), (200, 429));
    assert!(
        second.json()["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("tokens per minute"))
    );
    let remaining: u64 = first.header("x-ratelimit-remaining-tokens").parse().expect("a number");
    assert!((993..=1000).contains(&remaining), "{remaining}");
    let stats = settled(&running, |stats| stats.ok == 1).await;
    assert_eq!((stats.tokens_in, stats.tokens_out), (6, 1));
}

#[tokio::test]
async fn places_are_refused_or_waited_for() {
    for queue in [false, true] {
        let running = start(with(|config| {
            (config.in_flight, config.queue, config.latency_ms) = (Some(2), queue, 60);
        }));
        let running = running.await.expect("a teacher");
        let client = client();
        let calls = (0..6).map(|n| send(&client, &running, asking(&n.to_string()).to_string()));
        let statuses: Vec<u16> =
            futures_util::future::join_all(calls).await.iter().map(|got| got.status).collect();
        let ok = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(ok, if queue { 6 } else { 2 }, "{statuses:?}");
        let stats = settled(&running, |stats| stats.ok == ok as u64).await;
        assert_eq!(stats.in_flight_peak, 2);
        assert_eq!((stats.queued_peak > 1, stats.rate_limited), (queue, 6 - ok as u64));
        // All places were taken all the time, but for what the machine takes between calls.
        assert!(stats.in_flight_mean > 1.2 && stats.in_flight_mean <= 2.0, "{}", stats.in_flight_mean);
    }
}

#[tokio::test]
async fn secrets_are_echoed_where_they_must_be_scrubbed() {
    let running = start(with(|config| (config.echo_key, config.fail_after) = (true, Some(1))));
    let running = running.await.expect("a teacher");
    let good = ask(&running, &asking("x")).await;
    assert!(good.text().contains("sk-secret"), "{}", good.text());
    assert_eq!((good.header("x-echoed-key"), &good.json()["echoed_key"]), ("sk-secret", &json!("sk-secret")));
    let down = ask(&running, &asking("y")).await;
    assert_eq!(down.status, 503);
    assert!(down.json()["error"]["message"].as_str().is_some_and(|message| message.contains("sk-secret")));
}

#[tokio::test]
async fn one_body_hangs_once() {
    let running = start(with(|config| config.hang_once = vec!["row 7:0.15".parse().expect("a hang")]));
    let running = running.await.expect("a teacher");
    let mut took_ms = Vec::new();
    for prompt in ["row 8", "row 7", "row 7"] {
        let start_at = clock::now();
        ask(&running, &asking(prompt)).await;
        took_ms.push(clock::now().duration_since(start_at).as_millis());
    }
    assert!(took_ms[1] >= 150 && took_ms[0] < 150 && took_ms[2] < 150, "{took_ms:?}");
}

#[tokio::test]
async fn statistics_are_served_and_reset() {
    let running = start(with(|_| {})).await.expect("a teacher");
    let client = client();
    let root = format!("http://{}", running.addr());
    let get = async |path: &str| {
        let response = client.get(format!("{root}{path}")).send().await.expect("a reply");
        (response.status().as_u16(), response.text().await.expect("a text"))
    };
    for _ in 0..3 {
        send(&client, &running, asking("x").to_string()).await;
    }
    assert_eq!(get("/health").await, (200, r#"{"status":"ok"}"#.to_owned()));
    assert_eq!(get("/nowhere").await.0, 404);
    assert!(get("/v1/models").await.1.contains("\"fake\""));
    let stats: Stats = serde_json::from_str(&get("/stats").await.1).expect("statistics");
    assert_eq!((stats.requests, stats.ok, stats.repeats, stats.connections), (3, 3, 2, 1));
    assert_eq!(stats.ok_by_second.iter().sum::<u64>(), 3);
    let reset = client.post(format!("{root}/stats/reset")).send().await.expect("a reply");
    let before: Stats = serde_json::from_str(&reset.text().await.expect("a text")).expect("statistics");
    assert_eq!((before.requests, running.stats().requests), (3, 0));
    send(&client, &running, asking("x").to_string()).await;
    assert_eq!(settled(&running, |stats| stats.ok == 1).await.repeats, 0);
}

#[tokio::test]
async fn a_dropped_teacher_is_gone_and_a_bad_one_never_starts() {
    let running = start(FakeConfig::default()).await.expect("a teacher");
    let addr = running.addr();
    let taken = start(with(|config| config.port = addr.port())).await;
    assert!(taken.is_err_and(|error| error.to_string().contains("`--port 0`")));
    drop(running);
    for _ in 0..500 {
        if TcpStream::connect(addr).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(2)).await;
    }
    assert!(TcpStream::connect(addr).await.is_err());
    let wrong = with(|config| {
        config.fault = vec!["500=0.9".parse().expect("a fault"), "503=0.9".parse().expect("a fault")];
    });
    assert!(start(wrong).await.is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput));
    let shutdown = async { sleep(Duration::from_millis(1)).await };
    assert!(serve(FakeConfig::default(), shutdown).await.is_ok());
}
