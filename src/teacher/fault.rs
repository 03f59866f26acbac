//! What a server's error means: its own code first, then the status.
//!
//! The codes are those of OpenAI and of the servers that speak its format (Azure, Anthropic,
//! Gemini, Groq, OpenRouter, DeepSeek, vLLM, llama.cpp, Ollama). Pure: the time is a parameter.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::Fault;
use super::headers::{limit_notes, retry_after, wait};
use super::http::words;

/// The prompt or the answer was declined. OpenAI: `content_policy_violation`, `invalid_prompt`,
/// `moderation_blocked`; Azure: `content_filter`, `ResponsibleAIPolicyViolation`; Alibaba:
/// `data_inspection_failed`.
const REFUSED: [&str; 7] = [
    "content_filter",
    "content_policy_violation",
    "invalid_prompt",
    "moderation_blocked",
    "responsibleaipolicyviolation",
    "data_inspection_failed",
    "content_policy",
];

/// Sending anything again is of no use until a person acts. OpenAI's error codes, and Moonshot's
/// `exceeded_current_quota_error`, Groq's `organization_restricted`, Gemini's `UNAUTHENTICATED`.
const FATAL: [&str; 16] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "access_terminated",
    "account_deactivated",
    "organization_restricted",
    "insufficient_balance",
    "insufficient_credits",
    "insufficient_user_quota",
    "exceeded_current_quota_error",
    "invalid_api_key",
    "incorrect_api_key_provided",
    "authentication_error",
    "unauthenticated",
    "unsupported_country_region_territory",
];

/// OpenAI: the first three; llama.cpp: `exceed_context_size_error`; Anthropic: `request_too_large`.
const TOO_LONG: [&str; 5] = [
    "context_length_exceeded",
    "string_above_max_length",
    "max_tokens_exceeded",
    "exceed_context_size_error",
    "request_too_large",
];

/// The words of servers that give no code. vLLM, OpenAI: "maximum context length"; Anthropic:
/// "prompt is too long"; llama.cpp: "available context size"; SGLang: "model's context length";
/// Groq: "reduce the length of the messages"; Gemini: "input token count".
const TOO_LONG_PHRASES: [&str; 6] = [
    "maximum context length",
    "prompt is too long",
    "available context size",
    "model's context length",
    "reduce the length of the messages",
    "input token count",
];

/// A request that alone exceeds the tokens per minute: OpenAI says so with a 429 that no waiting
/// cures, Groq with a 413.
const NEVER_FITS: &str = "request too large for";

const BUSY: [&str; 9] = [
    "rate_limit_exceeded",
    "rate_limit_error",
    "rate_limited",
    "too_many_requests",
    "toomanyrequests",
    "resource_exhausted",
    "overloaded_error",
    "engine_overloaded_error",
    "slow_down",
];

const BAD_REQUEST: [&str; 7] = [
    "invalid_request_error",
    "badrequesterror",
    "bad_request",
    "invalid_argument",
    "model_not_found",
    "not_found_error",
    "unprocessable_entity",
];

/// What an error means.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// The server declined to answer this; it is an answer. With the server's words.
    Refused(String),
    Fault(Fault),
}

impl Meaning {
    /// What it is where nobody awaits an answer.
    pub fn fault(self) -> Fault {
        match self {
            Meaning::Fault(fault) => fault,
            Meaning::Refused(message) => Fault::BadRequest { message },
        }
    }
}

/// An error as a server tells it.
#[derive(Debug, Default)]
struct Told {
    /// Codes and types, in lower case.
    codes: Vec<String>,
    message: String,
    /// A status inside the body, as gateways give it for the server behind them.
    status: Option<u16>,
    /// A wait inside the body (Gemini's `RetryInfo`).
    retry_after: Option<Duration>,
    /// OpenRouter's moderation names what it flagged; its status is 403, which else means a wrong key.
    flagged: bool,
}

/// What an error reply means. `status` may be 200: gateways put errors there too.
pub fn meaning(status: u16, headers: &HeaderMap, body: &str, now_unix_ms: i64) -> Meaning {
    let told = read(body, now_unix_ms);
    let status = if (200..300).contains(&status) { told.status.unwrap_or(0) } else { status };
    let has = |codes: &[&str]| told.codes.iter().any(|code| codes.contains(&code.as_str()));
    let message = sentence(status, &told);
    let lower = told.message.to_lowercase();
    let speaks_of_length = TOO_LONG_PHRASES.iter().any(|phrase| lower.contains(phrase));

    if told.flagged || has(&REFUSED) {
        return Meaning::Refused(message);
    }
    let told_wait = retry_after(headers, now_unix_ms).or(told.retry_after);
    let busy = |message| Fault::Busy {
        retry_after: told_wait,
        message,
        notes: Box::new(limit_notes(headers, now_unix_ms)),
    };
    Meaning::Fault(if has(&FATAL) {
        Fault::Fatal { message }
    } else if has(&TOO_LONG)
        || status == 413
        || matches!(status, 0 | 400 | 422) && speaks_of_length
        || lower.starts_with(NEVER_FITS)
    {
        Fault::TooLong { message }
    } else if has(&BUSY) {
        busy(message)
    } else {
        match status {
            429 | 529 => busy(message),
            503 if told_wait.is_some() => busy(message),
            401..=403 => Fault::Fatal { message },
            409 => Fault::Transient { code: "conflict", message, billed: false },
            // A gateway (524: Cloudflare's) gave up waiting for a server that may have answered.
            408 | 504 | 524 => Fault::Transient { code: "timeout", message, billed: true },
            // Not implemented: the same request will never be.
            501 => Fault::BadRequest { message },
            500.. => Fault::Transient { code: "server_error", message, billed: false },
            0 if !has(&BAD_REQUEST) => Fault::Transient { code: "error_in_reply", message, billed: true },
            _ => Fault::BadRequest { message },
        }
    })
}

/// Whether a body is an error, whatever its status. Beside `error`, vLLM's older form is
/// `{"object": "error", "message": ...}`, FastAPI's `{"detail": ...}`; Gemini wraps it in a list.
pub fn is_error(body: &str) -> bool {
    let Ok(root) = serde_json::from_str::<Value>(body) else { return false };
    let root = root.get(0).unwrap_or(&root);
    let is = |key: &str, word: &str| root.get(key).is_some_and(|value| value == word);
    root.get("error").is_some_and(|error| !error.is_null())
        || is("object", "error")
        || is("type", "error")
        || root.get("detail").is_some()
}

fn sentence(status: u16, told: &Told) -> String {
    let mut marks: Vec<String> = Vec::new();
    if status != 0 {
        marks.push(format!("status {status}"));
    }
    marks.extend(told.codes.iter().map(|code| format!("`{}`", words(code))));
    let message =
        if told.message.is_empty() { "the server gave no words".to_owned() } else { words(&told.message) };
    if marks.is_empty() { message } else { format!("{message} ({})", marks.join(", ")) }
}

fn read(body: &str, now_unix_ms: i64) -> Told {
    let Ok(root) = serde_json::from_str::<Value>(body) else {
        return Told { message: body.to_owned(), ..Told::default() };
    };
    // Gemini wraps its error in a list.
    let root = root.get(0).unwrap_or(&root);
    // OpenRouter tells the error of a provider inside the choice.
    let error = [root.get("error"), root.pointer("/choices/0/error")]
        .into_iter()
        .flatten()
        .find(|error| !error.is_null());
    let error = error.unwrap_or(root);
    let mut told = Told { flagged: error.pointer("/metadata/flagged_input").is_some(), ..Told::default() };
    let code_places = ["/code", "/type", "/status", "/innererror/code"].map(|place| error.pointer(place));
    for code in code_places.into_iter().chain([root.get("error_type"), root.get("code")]).flatten() {
        let number = code.as_u64().or_else(|| code.as_str().and_then(|text| text.parse().ok()));
        match (number.and_then(|number| u16::try_from(number).ok()), code.as_str()) {
            (Some(status), _) => told.status = told.status.or((400..600).contains(&status).then_some(status)),
            (None, Some(text)) if text.len() <= 100 && !told.codes.contains(&text.to_lowercase()) => {
                told.codes.push(text.to_lowercase());
            }
            _ => {}
        }
    }
    let message = error.as_str().map(|_| error);
    let message = message
        .or_else(|| error.get("message"))
        .or_else(|| root.get("message"))
        .or_else(|| root.get("detail"));
    told.message = message.map_or_else(|| body.to_owned(), plain);
    if let Some(raw) = error.pointer("/metadata/raw") {
        told.message.push_str(": ");
        told.message.push_str(&plain(raw));
    }
    let details = error.get("details").and_then(Value::as_array);
    let delay = details.into_iter().flatten().find_map(|detail| detail.get("retryDelay")?.as_str());
    told.retry_after = delay.and_then(|delay| wait(delay, now_unix_ms));
    told
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    /// `expected` is the kind of meaning, then what else matters.
    #[track_caller]
    fn check(status: u16, header: &'static str, body: &str, expected: &str) {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header.split_once(": ") {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let shown = match meaning(status, &headers, body, 0) {
            Meaning::Refused(_) => "refused".to_owned(),
            Meaning::Fault(Fault::Busy { retry_after: None, .. }) => "busy".to_owned(),
            Meaning::Fault(Fault::Busy { retry_after: Some(wait), .. }) => {
                format!("busy {}", wait.as_millis())
            }
            Meaning::Fault(Fault::Fatal { .. }) => "fatal".to_owned(),
            Meaning::Fault(Fault::Transient { code, billed, .. }) => {
                format!("again {code}{}", if billed { " billed" } else { "" })
            }
            Meaning::Fault(Fault::TooLong { .. }) => "too long".to_owned(),
            Meaning::Fault(Fault::BadRequest { .. }) => "bad".to_owned(),
        };
        assert_eq!(shown, expected, "{status} {header} {body}");
    }

    #[test]
    fn the_status_decides_when_there_is_no_code() {
        check(429, "", "", "busy");
        check(429, "retry-after: 2", "slow", "busy 2000");
        check(429, "retry-after-ms: 40", "{}", "busy 40");
        check(529, "", "", "busy");
        check(503, "retry-after: 1", "", "busy 1000");
        check(503, "", r#"{"error":"Model is loading","estimated_time":20.0}"#, "again server_error");
        for status in [401, 402, 403] {
            check(status, "", "", "fatal");
        }
        check(408, "", "", "again timeout billed");
        check(409, "", "", "again conflict");
        check(500, "", "<html>", "again server_error");
        check(501, "", "", "bad");
        check(502, "", "", "again server_error");
        check(504, "", "", "again timeout billed");
        check(524, "", "", "again timeout billed");
        check(413, "", "<html>", "too long");
        for status in [400, 404, 405, 422] {
            check(status, "", r#"{"detail":[{"msg":"field required"}]}"#, "bad");
        }
    }

    #[test]
    fn the_code_beats_the_status() {
        let error = |code: &str| format!(r#"{{"error":{{"message":"m","type":null,"code":"{code}"}}}}"#);
        check(429, "retry-after: 2", &error("insufficient_quota"), "fatal");
        check(429, "", &error("billing_hard_limit_reached"), "fatal");
        check(400, "", &error("invalid_api_key"), "fatal");
        check(400, "", &error("context_length_exceeded"), "too long");
        check(400, "", &error("string_above_max_length"), "too long");
        check(400, "", &error("content_policy_violation"), "refused");
        check(400, "", &error("content_filter"), "refused");
        check(503, "", &error("slow_down"), "busy");
        check(500, "", &error("rate_limit_exceeded"), "busy");
        check(413, "", &error("rate_limit_exceeded"), "too long");
        check(
            400,
            "",
            r#"{"error":{"code":400,"message":"m","type":"exceed_context_size_error"}}"#,
            "too long",
        );
        check(529, "", r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, "busy");
        check(
            400,
            "",
            r#"{"error":{"code":"x","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            "refused",
        );
        check(
            403,
            "",
            r#"{"error":{"code":403,"message":"m","metadata":{"flagged_input":"..."}}}"#,
            "refused",
        );
    }

    #[test]
    fn words_and_bodies_speak_where_codes_are_missing() {
        let vllm = r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","code":400}"#;
        check(400, "", vllm, "too long");
        check(200, "", vllm, "too long");
        check(500, "", r#"{"error":{"message":"maximum context length"}}"#, "again server_error");
        check(
            429,
            "",
            r#"{"error":{"code":"rate_limit_exceeded","message":"Request too large for gpt-4"}}"#,
            "too long",
        );
        let gemini =
            r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{},{"retryDelay":"34s"}]}}]"#;
        check(429, "", gemini, "busy 34000");
        check(200, "", r#"{"error":{"code":"429","message":"m"}}"#, "busy");
        check(200, "", r#"{"error":{"code":502,"message":"m"}}"#, "again server_error");
        check(200, "", r#"{"choices":[{"error":{"code":401,"message":"m"}}]}"#, "fatal");
        check(200, "", r#"{"error":{"message":"m","type":"invalid_request_error"}}"#, "bad");
        check(200, "", r#"{"error":"m"}"#, "again error_in_reply billed");
    }

    #[test]
    fn the_servers_words_are_kept_within_bounds() {
        let body = format!(r#"{{"error":{{"message":"a\u001b[31m{}","code":"x"}}}}"#, "b".repeat(5000));
        let Meaning::Fault(Fault::BadRequest { message }) = meaning(400, &HeaderMap::new(), &body, 0) else {
            panic!("a 400 is a bad request")
        };
        assert!(
            message.starts_with("a\\u{1b}[31mbbb") && message.ends_with("… (status 400, `x`)"),
            "{message}"
        );
        assert!(message.len() < 2100);
    }
}
