//! A teacher, ready to be asked: its wire format, its endpoints, its price.
//!
//! How an endpoint is reached is in `site.rs`, which one is asked in `pool.rs`. No retries, no money, no store.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::{Map, Value};

use crate::row::RowId;
use crate::teacher::api::Api;
use crate::teacher::batch::BatchClient;
use crate::teacher::cache::CachePoint;
use crate::teacher::format::{self, ApiFormat};
use crate::teacher::pool::Pool;
use crate::teacher::prefix::Prefixes;
use crate::teacher::site::{Site, SiteParts};
use crate::teacher::{Answer, Fault, Image, ImageLimits, Request, Usage};

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
    /// What is left of all these in a batch, from 0 to 1.
    pub batch: f64,
}

impl Price {
    /// One price for all input, one for all output.
    pub fn of(input: f64, output: f64) -> Price {
        Price { input, output, cached_input: input, cache_write: input, reasoning: output, batch: 1.0 }
    }

    /// The prices of calls that go in batches.
    #[must_use]
    pub fn in_batches(&self) -> Price {
        let Price { input, output, cached_input, cache_write, reasoning, batch } = *self;
        let [input, output, cached_input, cache_write, reasoning] =
            [input, output, cached_input, cache_write, reasoning].map(|price| price * batch);
        Price { input, output, cached_input, cache_write, reasoning, batch }
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

/// A teacher, ready to be asked.
pub struct Teacher {
    pub name: Arc<str>,
    /// What call keys know it by.
    pub identity: String,
    /// Its endpoints: one, where the file has no pool.
    pub pool: Pool,
    /// What prompts began with lately.
    pub prefixes: Prefixes,
    pub price: Option<Price>,
    /// Times that a call is sent before its row fails.
    pub attempts_max: u32,
    /// How long it may answer nothing but "busy".
    pub patience: Duration,
    /// What an answer is taken to have at most where the step sets no `max_tokens`.
    pub max_tokens_default: u32,
    /// The line to its provider's batches, where its calls go with them.
    pub batches: Option<BatchClient>,
    format: ApiFormat,
    api: Api,
    headers: Vec<(String, String)>,
}

/// What a teacher is made of.
pub struct TeacherParts {
    pub name: String,
    pub identity: String,
    pub price: Option<Price>,
    pub attempts_max: u32,
    pub patience: Duration,
    pub format: ApiFormat,
    /// What all endpoints share; call keys know of nothing else.
    pub api: Api,
    /// At least one.
    pub sites: Vec<SiteParts>,
}

/// Tokens of an answer where nothing bounds it: OpenAI's models of 2024 and later stop by themselves
/// well below it. Only the gate and budgets-to-come reckon with it; with a budget `max_tokens` is asked for.
pub(super) const MAX_TOKENS_DEFAULT: u32 = 4096;

impl Teacher {
    pub fn new(parts: TeacherParts) -> Teacher {
        let TeacherParts { name, identity, price, attempts_max, patience, format, api, sites } = parts;
        let name: Arc<str> = name.into();
        let sites = sites.into_iter().map(|site| Site::new(site, format, &api.model)).collect();
        let headers = api.answer_headers();
        Teacher {
            pool: Pool::new(Arc::clone(&name), sites),
            prefixes: Prefixes::default(),
            name,
            identity,
            price,
            attempts_max,
            patience,
            max_tokens_default: MAX_TOKENS_DEFAULT,
            batches: None,
            format,
            api,
            headers,
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

    /// Whether servers answer, and not a file.
    pub fn is_live(&self) -> bool {
        self.pool.sites().iter().all(Site::is_live)
    }

    /// Calls that may be under way at once.
    pub fn places(&self) -> usize {
        self.pool.sites().iter().map(|site| site.gate.snapshot().places).sum()
    }

    /// The canonical body of a request: what its key and the store know.
    pub fn body(&self, request: &Request) -> Map<String, Value> {
        self.format.wire().body(&self.api, request)
    }

    /// Up to where others begin as a request does, if that is worth a place in the provider's cache.
    pub fn cache_point(&self, request: &Request) -> Option<CachePoint> {
        CachePoint::of(request).filter(|_| self.api.prompt_cache)
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

    /// The answer in a stored reply.
    pub fn read(&self, status: u16, body: &str) -> Result<Answer, Fault> {
        format::answer(self.format, &self.api, status, &HeaderMap::new(), body, 0)
    }
}
