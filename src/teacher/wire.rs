//! A teacher, ready to be asked: its wire format, its gate, its price.
//!
//! The closed list of wire formats is here; each has a file of its own. No retries, no money, no store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::clock;
use crate::row::RowId;
use crate::teacher::api::Api;
use crate::teacher::cassette::Carrier;
use crate::teacher::format::{self, ApiFormat};
use crate::teacher::gate::Gate;
use crate::teacher::http::RawReply;
use crate::teacher::process::Serving;
use crate::teacher::scripted::Script;
use crate::teacher::{Answer, Fault, Image, ImageLimits, Reply, Request, Usage};
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
    /// Of input that comes from the provider's cache.
    pub cached_input: f64,
    /// Of input that is written to it.
    pub cache_write: f64,
    /// Of output that is reasoning.
    pub reasoning: f64,
}

impl Price {
    /// One price for all input, one for all output.
    pub fn of(input: f64, output: f64) -> Price {
        Price { input, output, cached_input: input, cache_write: input, reasoning: output }
    }

    /// What tokens cost, in nano-dollars, rounded up: one dollar per million tokens is 1,000 per token.
    pub fn usd_nano(&self, usage: Usage) -> u64 {
        let Usage { input, output, cached_input, cache_write, reasoning } = usage;
        let plain_input = input.saturating_sub(cached_input).saturating_sub(cache_write);
        let parts = [
            (plain_input, self.input),
            (cached_input, self.cached_input),
            (cache_write, self.cache_write),
            (output.saturating_sub(reasoning), self.output),
            (reasoning, self.reasoning),
        ];
        let micro: f64 = parts.iter().map(|(tokens, price)| *tokens as f64 * price).sum();
        (micro * 1000.0).ceil() as u64
    }

    /// The most that so many tokens can cost, in nano-dollars.
    pub fn usd_nano_max(&self, input: u64, output: u64) -> u64 {
        let dearest_input = self.input.max(self.cached_input).max(self.cache_write);
        let micro = input as f64 * dearest_input + output as f64 * self.output.max(self.reasoning);
        (micro * 1000.0).ceil() as u64
    }
}

/// How a teacher is reached.
pub enum Wire {
    /// Over HTTP, or from a cassette.
    Carried(Carrier),
    /// From the replies of a pipeline's test.
    Scripted(Arc<Script>),
    /// From a test's own hands: what comes, and after how long.
    #[cfg(test)]
    Weather(Weather),
}

#[cfg(test)]
pub type Weather = Box<dyn Fn() -> (Duration, Result<RawReply, Fault>) + Send + Sync>;

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
    format: ApiFormat,
    api: Api,
    headers: Vec<(String, String)>,
    endpoint: String,
    wire: Wire,
    serving: Option<Serving>,
}

/// What a teacher is made of.
pub struct TeacherParts {
    pub name: String,
    pub identity: String,
    pub gate: Gate,
    pub price: Option<Price>,
    pub attempts_max: u32,
    pub patience: Duration,
    pub format: ApiFormat,
    pub api: Api,
    pub wire: Wire,
    /// The server that a run started for it.
    pub serving: Option<Serving>,
}

/// Tokens of an answer where nothing bounds it: OpenAI's models of 2024 and later stop by themselves
/// well below it. Only the gate and budgets-to-come reckon with it; with a budget `max_tokens` is asked for.
pub(super) const MAX_TOKENS_DEFAULT: u32 = 4096;

impl Teacher {
    pub fn new(parts: TeacherParts) -> Teacher {
        let TeacherParts { name, identity, gate, price, attempts_max, patience, format, api, wire, serving } =
            parts;
        let headers = api.answer_headers();
        let endpoint = api.endpoint_url(format);
        Teacher {
            name: name.into(),
            identity,
            gate,
            price,
            attempts_max,
            patience,
            max_tokens_default: MAX_TOKENS_DEFAULT,
            format,
            api,
            headers,
            endpoint,
            wire,
            serving,
        }
    }

    /// The wire format's name in call keys. The recorded and the scripted teacher speak it too, so that
    /// a cassette answers the very requests that were recorded.
    pub fn wire_name(&self) -> &'static str {
        self.format.wire().name()
    }

    pub fn model(&self) -> &str {
        &self.api.model
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

    /// The canonical body of a request: what its key and the store know.
    pub fn body(&self, request: &Request) -> Map<String, Value> {
        self.format.wire().body(&self.api, request)
    }

    /// What the API takes as images.
    pub fn image_limits(&self) -> ImageLimits {
        self.format.wire().image_limits()
    }

    /// The most tokens that a request of so many bytes comes to: a token a byte, but for images.
    pub fn tokens_in_max(&self, request: &Request, body_bytes: usize) -> u64 {
        let inline: u64 = request.images.iter().map(Image::inline_bytes).sum();
        let images = request.images.len() as u64 * self.image_limits().tokens_max;
        (body_bytes as u64).saturating_sub(inline) + images
    }

    /// The body as it is sent; nothing where that is the canonical one.
    pub fn dressed(&self, body: &Map<String, Value>) -> Option<Bytes> {
        let wire = self.format.wire();
        if !wire.dresses(&self.api) {
            return None;
        }
        let mut sent = body.clone();
        wire.dress(&self.api, &mut sent);
        Some(Bytes::from(Value::Object(sent).to_string()))
    }

    /// The answer in a stored reply.
    pub fn read(&self, status: u16, body: &str) -> Result<Answer, Fault> {
        format::answer(self.format, &self.api, status, &HeaderMap::new(), body, 0)
    }

    /// Sends a request once.
    pub async fn send(&self, asked_by: &AskedBy, body: Bytes) -> Result<Reply, Fault> {
        let raw = match &self.wire {
            Wire::Carried(carrier) => self.carry(carrier, body).await?,
            Wire::Scripted(script) => script.reply_to(asked_by, self.format, self.model())?,
            #[cfg(test)]
            Wire::Weather(weather) => {
                let (after, reply) = weather();
                tokio::time::sleep(after).await;
                reply?
            }
        };
        let status = raw.status;
        format::reply(self.format, &self.api, raw, clock::unix_ms()).map_err(|fault| match fault {
            Fault::Fatal { message } if self.is_live() => {
                Fault::Fatal { message: message + &self.key_named(status) }
            }
            other => other,
        })
    }

    /// Where to look when a server wants another key, or nothing more of this one.
    fn key_named(&self, status: u16) -> String {
        match (&self.api.key_env, status) {
            (Some(name), _) => format!("; the key is in `{name}`"),
            (None, 401) if self.api.env_names().is_empty() => {
                "; no key was sent: the teacher has no `key_env`".to_owned()
            }
            (None, _) => String::new(),
        }
    }

    /// Resolves when a server of ours does not serve: what is in flight waits for its next life.
    pub async fn down(&self) {
        match &self.serving {
            Some(serving) => serving.down().await,
            None => std::future::pending().await,
        }
    }

    /// Posts a request. One that the end of a server of ours left without a reply goes to its next life: that
    /// is no attempt of the call, and nobody bills it.
    async fn carry(&self, carrier: &Carrier, body: Bytes) -> Result<RawReply, Fault> {
        let Some(serving) = &self.serving else { return carrier.post(body).await };
        loop {
            let life = serving.up().await.map_err(|message| Fault::Fatal { message })?;
            match carrier.post(body.clone()).await {
                Err(Fault::Transient { code: "connection" | "cut_reply", .. })
                    if serving.ended(life).await => {}
                sent => return sent,
            }
        }
    }
}
