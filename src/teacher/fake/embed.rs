//! The vectors of a fake teacher: a function of the text and the seed. Faults spoil them as they spoil texts; knows
//! no limits and no HTTP.

use serde::Deserialize;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

use super::answer::{self, Reply};
use super::chat::tokens;
use super::config::{FakeConfig, Fault};
use super::dice::Dice;

/// Numbers of a vector where the request does not say.
const DIMENSIONS: u32 = 16;
const DIMENSIONS_MAX: u32 = 8192;
/// Longest text, as OpenAI's models have it (API reference of embeddings, `input`).
const TOKENS_MAX: u64 = 8192;
/// Most texts of one request (ibid.).
const TEXTS_MAX: usize = 2048;
const VECTOR_SALT: u64 = 1 << 43;

#[derive(Deserialize)]
struct Wire {
    model: String,
    input: OneOrMany,
    dimensions: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A request for vectors, read.
#[derive(Debug)]
pub struct Ask {
    model: String,
    texts: Vec<String>,
    dimensions: u32,
}

fn tokens_of(text: &str) -> u64 {
    tokens(text.chars().count() as u64)
}

impl Ask {
    /// Reads a request body; the error is the reply to it.
    pub fn read(body: &[u8], key: Option<&str>) -> Result<Ask, Reply> {
        let bad = |message: &str, code| Reply::error(400, message, "invalid_request_error", code, key);
        let wire: Wire = serde_json::from_slice(body)
            .map_err(|error| bad(&format!("the request body asks for no vector of a text: {error}"), None))?;
        let texts = match wire.input {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        };
        if texts.is_empty() || texts.len() > TEXTS_MAX {
            return Err(bad(&format!("`input` must have 1 to {TEXTS_MAX} texts"), None));
        }
        if texts.iter().any(|text| tokens_of(text) > TOKENS_MAX) {
            let message = format!("This model's maximum context length is {TOKENS_MAX} tokens");
            return Err(bad(&message, Some("context_length_exceeded")));
        }
        let dimensions = wire.dimensions.unwrap_or(DIMENSIONS);
        if texts.iter().any(String::is_empty) || !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            return Err(bad("`input` is empty, or `dimensions` are too few or too many", None));
        }
        Ok(Ask { model: wire.model, texts, dimensions })
    }

    /// Tokens of all texts.
    pub fn tokens(&self) -> u64 {
        self.texts.iter().map(|text| tokens_of(text)).sum()
    }

    /// A vector of length 1.
    fn vector(&self, seed: u64, text: &str) -> Vec<f64> {
        let mut dice = Dice::new(seed, xxh3_128(text.as_bytes()), VECTOR_SALT);
        let numbers: Vec<f64> = (0..self.dimensions).map(|_| dice.unit() - 0.5).collect();
        let length = numbers.iter().map(|number| number * number).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        numbers.iter().map(|number| number / length).collect()
    }
}

/// Whether a fault can be seen in a reply that holds no text of a model.
pub fn shows(fault: Fault) -> bool {
    !matches!(fault, Fault::Length | Fault::Refusal)
}

/// The reply to `ask`, as a fault leaves it.
pub fn reply(config: &FakeConfig, ask: &Ask, fault: Option<Fault>, key: Option<&str>) -> Reply {
    if let Some(reply) = answer::instead(fault, key) {
        return reply;
    }
    let texts = ask.texts.iter().filter(|_| fault != Some(Fault::EmptyChoices)).enumerate();
    let data = texts.map(|(index, text)| {
        json!({ "object": "embedding", "index": index, "embedding": ask.vector(config.seed, text) })
    });
    let tokens = ask.tokens();
    let mut body = json!({ "object": "list", "model": ask.model, "data": data.collect::<Vec<_>>() });
    if fault != Some(Fault::NoUsage) {
        body["usage"] = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    }
    if let Some(key) = key {
        body["echoed_key"] = json!(key);
    }
    Reply { input_tokens: tokens, ..answer::spoil(config, body.to_string().into_bytes(), fault) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn check(body: Value, status: u16) -> Value {
        let config = FakeConfig { seed: 1, ..FakeConfig::default() };
        let ask = Ask::read(body.to_string().as_bytes(), None);
        let reply = ask.map_or_else(|bad| bad, |ask| reply(&config, &ask, None, None));
        assert_eq!(reply.status, status, "{body}");
        serde_json::from_slice(&reply.first).unwrap()
    }

    #[test]
    fn vectors_are_a_function_of_the_text() {
        let vector =
            |text: &str| check(json!({ "model": "m", "input": text }), 200)["data"][0]["embedding"].clone();
        assert_eq!(vector("a"), vector("a"));
        assert_ne!(vector("a"), vector("b"));
        let numbers: Vec<f64> = serde_json::from_value(vector("a")).unwrap();
        let length: f64 = numbers.iter().map(|number| number * number).sum();
        assert!(numbers.len() == 16 && (length - 1.0).abs() < 1e-9);
        let short = check(json!({ "model": "m", "input": "a", "dimensions": 3 }), 200);
        assert_eq!(short["data"][0]["embedding"].as_array().unwrap().len(), 3);
        assert_eq!(short["usage"]["prompt_tokens"], 1);
        let two = check(json!({ "model": "m", "input": ["b", "a"] }), 200);
        assert_eq!(
            (&two["data"][0]["embedding"], &two["data"][1]["embedding"]),
            (&vector("b"), &vector("a"))
        );
        assert_eq!((&two["data"][1]["index"], &two["usage"]["prompt_tokens"]), (&json!(1), &json!(2)));
        check(json!({ "model": "m", "input": "" }), 400);
        check(json!({ "model": "m", "input": ["a", ""] }), 400);
        check(json!({ "model": "m", "input": [] }), 400);
        check(json!({ "model": "m", "input": "a", "dimensions": 0 }), 400);
        check(json!({ "model": "m", "messages": [] }), 400);
        let long = check(json!({ "model": "m", "input": "x".repeat(40_000) }), 400);
        assert_eq!(long["error"]["code"], "context_length_exceeded");
    }
}
