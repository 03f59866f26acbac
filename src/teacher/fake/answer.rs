//! The reply to one request: the completion, or what a fault makes of it. Pure: bytes, pauses and
//! breaks to be played by the server, which this file knows nothing of.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::chat::{Ask, Choice, tokens};
use super::config::{FakeConfig, Fault};
use super::dice::Dice;

/// What the dice are used for, beside the texts of the choices (which use 0 to 127).
const ID_SALT: u64 = 1 << 40;
const LATENCY_SALT: u64 = 1 << 41;
const LOGPROB_SALT: u64 = 1 << 42;
/// Long enough for what was sent before to leave for the client.
const BEFORE_BREAK: Duration = Duration::from_millis(20);
/// Pieces of a slow body.
const SLOW_PIECES: u32 = 20;
const LATENCY_MAX_S: f64 = 3600.0;
const REFUSAL: &str = "I'm sorry, but I can't help with that request.";
const HTML: &str = "<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>\
                    <body><h1>502 Bad Gateway</h1><p>cloud-gateway</p></body></html>\n";

/// What happens to a body after its first bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Send(Bytes),
    Pause(Duration),
    /// The connection is reset (RST).
    Reset,
}

/// A reply, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    /// The `content-length` that is promised.
    pub length: u64,
    pub first: Bytes,
    pub rest: Vec<Step>,
    pub retry_after_ms: Option<u64>,
    /// A usable answer (also a refusal or a cut one): asking again would be paying twice.
    pub good: bool,
    /// What a provider would bill; also for replies that break on their way.
    pub input_tokens: u64,
    pub output_tokens: u64,
}

impl Reply {
    fn new(status: u16, body: impl Into<Bytes>) -> Reply {
        let first = body.into();
        Reply {
            status,
            content_type: "application/json",
            length: first.len() as u64,
            first,
            rest: Vec::new(),
            retry_after_ms: None,
            good: false,
            input_tokens: 0,
            output_tokens: 0,
        }
    }

    /// A reply that nobody would bill.
    pub fn json(value: &impl Serialize) -> Reply {
        Reply::new(200, serde_json::to_vec(value).unwrap_or_default())
    }

    /// Lines of JSON.
    pub fn lines(lines: Bytes) -> Reply {
        Reply { content_type: "application/jsonl", ..Reply::new(200, lines) }
    }

    /// An error in OpenAI's shape (API reference, "Errors").
    pub fn error(status: u16, message: &str, kind: &str, code: Option<&str>, key: Option<&str>) -> Reply {
        let message = match key {
            Some(key) => format!("{message} (key: {key})"),
            None => message.to_owned(),
        };
        let error = json!({ "message": message, "type": kind, "param": null, "code": code });
        Reply::new(status, json!({ "error": error }).to_string())
    }

    pub fn retry_after(mut self, ms: u64) -> Reply {
        self.retry_after_ms = Some(ms);
        self
    }

    /// Splits the body at `end` and goes on with `rest`.
    fn broken(mut self, end: usize, rest: Vec<Step>) -> Reply {
        self.first = self.first.slice(..end);
        self.rest = rest;
        self
    }
}

/// Time until a reply starts: the same for the same body, seen as often.
pub fn latency(config: &FakeConfig, body_hash: u128, seen: u32) -> Duration {
    let median_s = config.latency_ms as f64 / 1000.0;
    if config.latency_ms == 0 || config.latency_sigma == 0.0 {
        return Duration::from_secs_f64(median_s);
    }
    let mut dice = Dice::new(config.seed, body_hash, LATENCY_SALT + u64::from(seen));
    let latency_s = median_s * (config.latency_sigma * dice.normal()).exp();
    Duration::from_secs_f64(latency_s.min(LATENCY_MAX_S))
}

/// The reply of a fault by which a request is declined at once, before any work: no latency.
pub fn declined(fault: Fault, config: &FakeConfig, key: Option<&str>) -> Option<Reply> {
    let error = |status, message, kind, code| Reply::error(status, message, kind, code, key);
    let reply = match fault {
        Fault::Unavailable => error(503, "The engine is currently overloaded", "server_error", None),
        Fault::UnavailableRetryAfter => {
            error(503, "The engine is currently overloaded", "server_error", None)
                .retry_after(config.fault_retry_after_ms)
        }
        Fault::RateLimit => {
            let code = Some("rate_limit_exceeded");
            error(429, "Rate limit reached (shown on purpose)", "requests", code)
                .retry_after(config.fault_retry_after_ms)
        }
        // Anthropic's shape and status (API docs, "Errors").
        Fault::Overloaded => Reply::new(
            529,
            json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } })
                .to_string(),
        ),
        Fault::BadRequest => {
            error(400, "Invalid value for `temperature`", "invalid_request_error", Some("invalid_value"))
        }
        Fault::Unauthorized => {
            error(401, "Incorrect API key provided", "invalid_request_error", Some("invalid_api_key"))
        }
        Fault::Quota => {
            let message = "You exceeded your current quota, please check your plan and billing details";
            error(429, message, "insufficient_quota", Some("insufficient_quota"))
        }
        Fault::ContextLength => {
            let message = "This model's maximum context length is 8192 tokens; your messages are longer";
            error(400, message, "invalid_request_error", Some("context_length_exceeded"))
        }
        _ => return None,
    };
    Some(reply)
}

/// What a fault sends in the place of an answer, when its time has come.
pub fn instead(fault: Option<Fault>, key: Option<&str>) -> Option<Reply> {
    match fault? {
        Fault::ServerError => Some(server_error(500, key)),
        Fault::Error200 => Some(server_error(200, key)),
        Fault::Html => Some(Reply { content_type: "text/html", ..Reply::new(200, HTML) }),
        _ => None,
    }
}

/// The reply to `ask`, as a fault leaves it. (`Fault::Hang` has no reply; the server never gets here.)
pub fn reply(
    config: &FakeConfig,
    ask: &Ask<'_>,
    body_hash: u128,
    fault: Option<Fault>,
    key: Option<&str>,
) -> Reply {
    if let Some(reply) = instead(fault, key) {
        return reply;
    }
    let mut choices = ask.think(config.seed, body_hash, config.reply_bytes, key);
    match fault {
        Some(Fault::EmptyChoices) => choices.clear(),
        Some(Fault::Length) => choices.iter_mut().for_each(cut_in_half),
        _ => {}
    }
    let refused = fault == Some(Fault::Refusal);
    let output_tokens = match refused {
        true => tokens(REFUSAL.len() as u64) * choices.len() as u64,
        false => choices.iter().map(Choice::tokens).sum(),
    };
    let usage = Usage {
        prompt_tokens: ask.input_tokens,
        completion_tokens: output_tokens,
        total_tokens: ask.input_tokens + output_tokens,
    };
    let id = Dice::new(config.seed, body_hash, ID_SALT).roll();
    let completion = Completion {
        id: format!("chatcmpl-{id:016x}"),
        object: "chat.completion",
        created: CREATED_FROM + id % CREATED_SPAN,
        model: &ask.model,
        choices: choices.iter().enumerate().map(|(i, choice)| wire(i, choice, refused, id, ask)).collect(),
        usage: (fault != Some(Fault::NoUsage)).then_some(usage),
        system_fingerprint: format!("fp_{:010x}", config.seed),
        echoed_key: key,
    };
    let body = serde_json::to_vec(&completion).unwrap_or_default();
    let reply = spoil(config, body, fault);
    Reply { input_tokens: ask.input_tokens, output_tokens, ..reply }
}

/// `created` is a function of the request, so that the same request has the same bytes for a reply:
/// some second of the 115 days from 2023-11-14.
const CREATED_FROM: u64 = 1_700_000_000;
const CREATED_SPAN: u64 = 10_000_000;

#[derive(Serialize)]
struct Completion<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<WireChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    system_fingerprint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    echoed_key: Option<&'a str>,
}

#[derive(Serialize)]
struct WireChoice<'a> {
    index: usize,
    message: WireMessage<'a>,
    logprobs: Option<Value>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: Option<&'a str>,
    refusal: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Vec<Value>>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

fn wire<'a>(index: usize, choice: &'a Choice, refused: bool, id: u64, ask: &Ask<'_>) -> WireChoice<'a> {
    let calls = (!choice.calls.is_empty() && !refused).then(|| tool_calls(choice, index, id));
    let finish_reason = match (refused, choice.cut) {
        // Providers differ here: both are seen.
        (true, _) if id & 1 == 0 => "content_filter",
        (false, _) if calls.is_some() => "tool_calls",
        (true, _) | (false, false) => "stop",
        (false, true) => "length",
    };
    let content = (!refused && calls.is_none()).then_some(choice.text.as_str());
    let logprobs = content.and(ask.logprobs).map(|top| logprobs(choice, index, top, id));
    let refusal = refused.then_some(REFUSAL);
    let message = WireMessage { role: "assistant", content, refusal, tool_calls: calls };
    WireChoice { index, message, logprobs, finish_reason }
}

fn tool_calls(choice: &Choice, index: usize, id: u64) -> Vec<Value> {
    let one = |(place, (name, arguments)): (usize, &(String, String))| {
        let function = json!({ "name": name, "arguments": arguments });
        json!({ "id": format!("call_{id:016x}_{index}_{place}"), "type": "function", "function": function })
    };
    choice.calls.iter().enumerate().map(one).collect()
}

/// Log probabilities that fall with each place among the likeliest; the token itself is the first of them.
fn logprobs(choice: &Choice, index: usize, top: u64, id: u64) -> Value {
    let mut dice = Dice::new(id, index as u128, LOGPROB_SALT);
    let tokens = choice.pieces().into_iter().map(|token| {
        let first = -dice.unit();
        let one = |place: u64| {
            let token = if place == 0 { token.clone() } else { format!("{token}{place}") };
            json!({ "token": token, "logprob": first - place as f64, "bytes": token.as_bytes() })
        };
        let mut value = one(0);
        value["top_logprobs"] = (0..top).map(one).collect();
        value
    });
    json!({ "content": tokens.collect::<Vec<_>>(), "refusal": null })
}

fn server_error(status: u16, key: Option<&str>) -> Reply {
    let message = "The server had an error while processing your request";
    Reply::error(status, message, "server_error", Some("server_error"), key)
}

fn cut_in_half(choice: &mut Choice) {
    let half = choice.text.chars().count() / 2;
    choice.text = choice.text.chars().take(half).collect();
    choice.cut = true;
}

/// An answer's bytes, damaged on their way as the fault says.
pub fn spoil(config: &FakeConfig, mut body: Vec<u8>, fault: Option<Fault>) -> Reply {
    let half = body.len() / 2;
    match fault {
        Some(Fault::TruncatedJson) => {
            body.truncate(half);
            Reply::new(200, body)
        }
        Some(Fault::InvalidUtf8) => {
            // In a text, so that it is JSON but for this. Vectors have none but the model's name.
            let behind = |key: &[u8]| {
                body.windows(key.len()).position(|window| window == key).map(|place| place + key.len())
            };
            let place = behind(b"\"content\":\"").or_else(|| behind(b"\"model\":\""));
            body.insert(place.unwrap_or(half), 0xff);
            Reply::new(200, body)
        }
        Some(Fault::CutBody) => Reply::new(200, body).broken(half, vec![Step::Pause(BEFORE_BREAK)]),
        Some(Fault::Reset) => {
            Reply::new(200, body).broken(half, vec![Step::Pause(BEFORE_BREAK), Step::Reset])
        }
        Some(Fault::SlowBody) => slow(config, body),
        Some(Fault::EmptyChoices) => Reply::new(200, body),
        _ => Reply { good: true, ..Reply::new(200, body) },
    }
}

fn slow(config: &FakeConfig, body: Vec<u8>) -> Reply {
    let reply = Reply { good: true, ..Reply::new(200, body) };
    let piece = reply.first.len().div_ceil(SLOW_PIECES as usize);
    let pause = Duration::from_millis(config.slow_body_ms) / SLOW_PIECES;
    let mut rest = Vec::new();
    let mut left = reply.first.slice(piece..);
    while !left.is_empty() {
        rest.push(Step::Pause(pause));
        rest.push(Step::Send(left.split_to(piece.min(left.len()))));
    }
    reply.broken(piece, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"12345"}]}"#;

    fn replied(fault: Option<Fault>, config: &FakeConfig) -> Reply {
        reply(config, &Ask::read(ASK).expect("a request"), 9, fault, None)
    }

    /// The fault's reply, its body read as JSON and the value there.
    #[track_caller]
    fn check(fault: Option<Fault>, pointer: &str, expected: &Value) {
        let reply = replied(fault, &FakeConfig::default());
        let body: Value = serde_json::from_slice(&reply.first).expect("JSON");
        assert_eq!(body.pointer(pointer).unwrap_or(&json!("absent")), expected, "{body}");
    }

    #[test]
    fn completions_have_openais_shape() {
        check(None, "/model", &json!("m"));
        check(None, "/object", &json!("chat.completion"));
        check(None, "/usage/prompt_tokens", &json!(2));
        check(None, "/choices/0/finish_reason", &json!("stop"));
        check(None, "/choices/0/message/refusal", &Value::Null);
        check(Some(Fault::Length), "/choices/0/finish_reason", &json!("length"));
        check(Some(Fault::Refusal), "/choices/0/message/refusal", &json!(REFUSAL));
        check(Some(Fault::Refusal), "/choices/0/message/content", &Value::Null);
        check(Some(Fault::EmptyChoices), "/choices", &json!([]));
        check(Some(Fault::NoUsage), "/usage", &json!("absent"));
        check(Some(Fault::Error200), "/error/type", &json!("server_error"));
        check(Some(Fault::Error200), "/choices", &json!("absent"));
    }

    #[test]
    fn usage_is_what_the_text_is() {
        let reply = replied(None, &FakeConfig::default());
        let body: Value = serde_json::from_slice(&reply.first).expect("JSON");
        let text = body["choices"][0]["message"]["content"].as_str().expect("a text");
        assert_eq!(body["usage"]["completion_tokens"], text.len().div_ceil(4));
        assert_eq!(reply.output_tokens, text.len().div_ceil(4) as u64);
        assert!((900..1700).contains(&text.len()), "{}", text.len());
    }

    #[test]
    fn broken_replies_are_broken_where_they_say() {
        let whole = replied(None, &FakeConfig::default());
        let cut = replied(Some(Fault::CutBody), &FakeConfig::default());
        assert_eq!(cut.length, whole.length);
        assert_eq!((cut.first.len(), cut.good), (whole.first.len() / 2, false));
        let short = replied(Some(Fault::TruncatedJson), &FakeConfig::default());
        assert_eq!(short.length, short.first.len() as u64);
        assert!(serde_json::from_slice::<Value>(&short.first).is_err_and(|error| error.is_eof()));
        let spoilt = replied(Some(Fault::InvalidUtf8), &FakeConfig::default());
        let lossy = String::from_utf8_lossy(&spoilt.first).into_owned();
        assert!(std::str::from_utf8(&spoilt.first).is_err());
        assert!(serde_json::from_str::<Value>(&lossy).is_ok());
        let slow = replied(Some(Fault::SlowBody), &FakeConfig::default());
        let mut bytes = slow.first.to_vec();
        let mut pause = Duration::ZERO;
        for step in slow.rest {
            match step {
                Step::Send(piece) => bytes.extend(piece),
                Step::Pause(more) => pause += more,
                Step::Reset => panic!("a reset"),
            }
        }
        assert_eq!((bytes, pause.as_millis()), (whole.first.to_vec(), 1900));
    }

    #[test]
    fn latencies_have_their_median_and_repeat() {
        let config = FakeConfig { latency_ms: 200, latency_sigma: 0.6, ..FakeConfig::default() };
        let mut all: Vec<Duration> = (0..2001).map(|hash| latency(&config, hash, 0)).collect();
        all.sort();
        assert!((180..220).contains(&all[1000].as_millis()), "{:?}", all[1000]);
        assert!(all[1683].as_secs_f64() / all[1000].as_secs_f64() > 1.6, "a sigma up is 1.8 times");
        assert_eq!(latency(&config, 7, 0), latency(&config, 7, 0));
        assert_ne!(latency(&config, 7, 0), latency(&config, 7, 1));
        let constant = FakeConfig { latency_sigma: 0.0, ..config };
        assert_eq!(latency(&constant, 7, 0).as_millis(), 200);
    }
}
