//! Teachers: the only place that knows HTTP and the providers' JSON.
//!
//! This file has the words that all wire formats share: what is asked, what came back, what went
//! wrong. One file per wire format; none of them decides about retries, limits or money.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use cache::Shared;

pub mod anthropic;
pub mod api;
pub mod batch;
pub mod breaker;
pub mod bucket;
pub mod cache;
pub mod cassette;
pub mod embeddings;
pub mod endpoint;
pub mod exchange;
pub mod fake;
pub mod fault;
pub mod format;
pub mod gate;
pub mod gemini;
pub mod headers;
pub mod http;
pub mod image;
pub mod openai;
pub mod pool;
pub mod prefix;
pub mod process;
pub mod responses;
pub mod retry;
pub mod scripted;
pub mod secret;
pub mod setting;
pub mod site;
pub mod stream;
pub mod wire;

pub use image::{Image, ImageLimits};

/// Who speaks in a chat message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

/// What is asked of a teacher, before a wire format gives it its shape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub messages: Vec<Message>,
    pub temperature: Option<f64>,
    pub max_tokens: Option<u32>,
    pub stop: Vec<String>,
    pub seed: Option<i64>,
    /// The shape the answer must have, for servers that can hold a model to one.
    pub schema: Option<Arc<Value>>,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// Whether it must; the server's default when absent.
    pub tool_choice: Option<ToolChoice>,
    /// What the first message of the user shows before its text.
    pub images: Vec<Image>,
    /// Answers wanted in one reply; one when absent.
    pub answers: Option<u32>,
    /// Wants the log probability of each token, and those of this many of the likeliest in its place.
    pub logprobs: Option<u32>,
    /// Numbers of the vector that is wanted.
    pub dimensions: Option<u32>,
    /// Any other key of the request body, as the user wrote it.
    pub extra: Map<String, Value>,
    /// What of the messages other requests begin with, too. Not part of what is asked: it only tells a provider's
    /// cache what to keep.
    pub shared: Shared,
}

/// A function that a model is told it may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub name: String,
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    pub parameters: Value,
}

/// Which tools a model calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    /// As it sees fit.
    Auto,
    /// One at least.
    Required,
    /// None, though it knows of them.
    None,
    Named(String),
}

/// A tool that a model called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    pub name: String,
    /// The text of a JSON object, if the model wrote one.
    pub arguments: String,
}

/// A token of an answer with its natural logarithm of a probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprob {
    pub token: String,
    pub logprob: f64,
    /// The likeliest tokens in its place, as many as were asked for.
    pub top: Vec<Logprob>,
}

/// Tokens that a server says it counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// All of the prompt, however it was paid.
    pub input: u64,
    /// All that was written, reasoning included.
    pub output: u64,
    /// Those of `input` that came from the provider's cache.
    pub cached_input: u64,
    /// Those of `input` that were written to it.
    pub cache_write: u64,
    /// Those of `output` that nobody sees.
    pub reasoning: u64,
}

impl Usage {
    /// Plain tokens: nothing cached, no reasoning.
    pub fn of(input: u64, output: u64) -> Usage {
        Usage { input, output, ..Usage::default() }
    }

    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model was done.
    Stop,
    /// `max_tokens` or the context cut it.
    Length,
    /// The model or a content filter declined.
    Refusal,
}

/// An answer, read from a reply body.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub text: String,
    pub finish: Finish,
    /// `None` when the server does not say.
    pub usage: Option<Usage>,
    /// The model that the server says it used; the asked one when it does not say.
    pub model: String,
    /// What the model wrote before its answer, where the server shows it.
    pub reasoning: Option<String>,
    /// The tools that it called.
    pub calls: Vec<ToolCall>,
    /// Its tokens, where they were asked for and the server gives them.
    pub logprobs: Option<Vec<Logprob>>,
    /// The other answers of a reply to a request for several. They have no usage of their own.
    pub others: Vec<Answer>,
}

impl Answer {
    pub fn new(text: String, finish: Finish, model: &str) -> Answer {
        Answer {
            text,
            finish,
            usage: None,
            model: model.to_owned(),
            reasoning: None,
            calls: Vec::new(),
            logprobs: None,
            others: Vec::new(),
        }
    }

    /// All answers of the reply, in their order.
    pub fn all(&self) -> impl Iterator<Item = &Answer> {
        std::iter::once(self).chain(&self.others)
    }

    /// The text and the calls of all answers, for people.
    pub fn shown(&self) -> String {
        let one = |answer: &Answer| {
            let calls = answer.calls.iter().map(|call| format!("{}({})", call.name, call.arguments));
            let text = Some(answer.text.clone()).filter(|text| !text.is_empty() || answer.calls.is_empty());
            text.into_iter().chain(calls).collect::<Vec<_>>().join("\n")
        };
        self.all().map(one).collect::<Vec<_>>().join("\n\n")
    }
}

/// What a reply's headers say about one allowance, as far as they say it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LimitNote {
    /// The whole allowance, per minute.
    pub limit: Option<u64>,
    pub remaining: Option<u64>,
    /// How long until all of it is back.
    pub reset: Option<Duration>,
}

/// What a reply's headers say about the limits, for the gate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitNotes {
    pub requests: LimitNote,
    /// Input and output together.
    pub tokens: LimitNote,
    pub input_tokens: LimitNote,
    pub output_tokens: LimitNote,
}

/// A reply worth keeping: its raw body and what was read from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub status: u16,
    /// The body as received (secrets scrubbed); [`Answer`] can be read from it again.
    pub body: String,
    pub answer: Answer,
    pub notes: LimitNotes,
}

/// Why a request brought no reply; classified by the body's error code before the status.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// 429, 529, 503 with Retry-After: the endpoint pauses as a whole.
    Busy { retry_after: Option<Duration>, message: String, notes: Box<LimitNotes> },
    /// Quota or billing exhausted, 401, 402, 403: the endpoint is left out, or the run stops.
    Fatal { message: String },
    /// 408, 409, other 5xx, reset, timeout, cut-off or unreadable body: the same call again.
    /// `billed` is true when the server may have charged for it (a timeout, a cut-off body).
    Transient { code: &'static str, message: String, billed: bool },
    /// Context too long, 413: the row is rejected.
    TooLong { message: String },
    /// Other 400, 404, 422: the row fails with the server's words.
    BadRequest { message: String },
}

impl Fault {
    /// What accounts count it as.
    pub fn code(&self) -> &'static str {
        match self {
            Fault::Busy { .. } => "busy",
            Fault::Fatal { .. } => "fatal",
            Fault::Transient { code, .. } => code,
            Fault::TooLong { .. } => "too_long",
            Fault::BadRequest { .. } => "declined",
        }
    }

    pub fn message(&self) -> &str {
        match self {
            Fault::Busy { message, .. }
            | Fault::Fatal { message }
            | Fault::Transient { message, .. }
            | Fault::TooLong { message }
            | Fault::BadRequest { message } => message,
        }
    }
}
