//! A teacher, ready to be asked: its wire format, its gate, its price.
//!
//! The closed list of wire formats is here; each has a file of its own. No retries, no money, no store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::clock;
use crate::row::RowId;
use crate::teacher::cassette::Carrier;
use crate::teacher::gate::Gate;
use crate::teacher::openai::OpenAi;
use crate::teacher::scripted::Script;
use crate::teacher::{Answer, Fault, Reply, Request};
use reqwest::header::HeaderMap;

/// Who asks; only the scripted teacher looks at it.
#[derive(Clone, Debug)]
pub struct AskedBy {
    pub step: Arc<str>,
    pub row: RowId,
}

/// Prices in US dollars per million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    pub input: f64,
    pub output: f64,
}

impl Price {
    /// What tokens cost, in nano-dollars, rounded up: one dollar per million tokens is 1,000 per token.
    pub fn usd_nano(&self, tokens_in: u64, tokens_out: u64) -> u64 {
        let nano = tokens_in as f64 * self.input * 1000.0 + tokens_out as f64 * self.output * 1000.0;
        nano.ceil() as u64
    }
}

/// How a teacher is reached.
pub enum Wire {
    /// Over HTTP, or from a cassette.
    Carried(Carrier),
    /// From the replies of a pipeline's test.
    Scripted(Script),
}

/// A teacher, ready to be asked.
pub struct Teacher {
    pub name: Arc<str>,
    /// What call keys know it by.
    pub identity: String,
    pub gate: Gate,
    pub price: Option<Price>,
    /// Times that a call is sent before its row fails.
    pub attempts_max: u32,
    /// How long it may answer nothing but "busy".
    pub patience: Duration,
    /// What an answer is taken to have at most where the step sets no `max_tokens`.
    pub max_tokens_default: u32,
    format: OpenAi,
    headers: Vec<(String, String)>,
    endpoint: String,
    wire: Wire,
}

/// What a teacher is made of.
pub struct TeacherParts {
    pub name: String,
    pub identity: String,
    pub gate: Gate,
    pub price: Option<Price>,
    pub attempts_max: u32,
    pub patience: Duration,
    /// The wire format; all kinds of today speak OpenAI's chat completions.
    pub format: OpenAi,
    pub wire: Wire,
}

/// Tokens of an answer where nothing bounds it: OpenAI's models of 2024 and later stop by themselves
/// well below it. Only the gate and budgets-to-come reckon with it; with a budget `max_tokens` is asked for.
const MAX_TOKENS_DEFAULT: u32 = 4096;

impl Teacher {
    pub fn new(parts: TeacherParts) -> Teacher {
        let TeacherParts { name, identity, gate, price, attempts_max, patience, format, wire } = parts;
        let headers = format.answer_headers();
        let endpoint = format.endpoint_url();
        Teacher {
            name: name.into(),
            identity,
            gate,
            price,
            attempts_max,
            patience,
            max_tokens_default: MAX_TOKENS_DEFAULT,
            format,
            headers,
            endpoint,
            wire,
        }
    }

    /// The wire format's name in call keys. The recorded and the scripted teacher speak it too, so that
    /// a cassette answers the very requests that were recorded.
    pub fn wire_name(&self) -> &'static str {
        "openai"
    }

    pub fn model(&self) -> &str {
        &self.format.model
    }

    /// Headers of the file that may change an answer.
    pub fn answer_headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The URL that serves the calls.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether a server answers, and not a file.
    pub fn is_live(&self) -> bool {
        matches!(self.wire, Wire::Carried(Carrier::Http(_) | Carrier::Recorded(..)))
    }

    /// The body of a request, as it is sent.
    pub fn body(&self, request: &Request) -> Value {
        self.format.body(request)
    }

    /// The answer in a stored reply.
    pub fn read(&self, status: u16, body: &str) -> Result<Answer, Fault> {
        self.format.answer(status, &HeaderMap::new(), body, 0)
    }

    /// Sends a request once.
    pub async fn send(&self, asked_by: &AskedBy, body: Bytes) -> Result<Reply, Fault> {
        let raw = match &self.wire {
            Wire::Carried(carrier) => carrier.post(body).await?,
            Wire::Scripted(script) => script.reply_to(asked_by, self.model())?,
        };
        self.format.reply(raw, clock::unix_ms())
    }
}
