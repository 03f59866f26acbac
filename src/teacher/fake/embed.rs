//! The vectors of a fake teacher: a function of the text and the seed. Limits and most faults are not its.

use serde::Deserialize;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

use super::answer::{Reply, replaced, spoil};
use super::chat::tokens;
use super::config::{FakeConfig, Fault};
use super::dice::Dice;

/// Numbers of a vector where the request does not say.
const DIMENSIONS: u32 = 16;
const DIMENSIONS_MAX: u32 = 8192;
/// Longest text, as OpenAI's models have it (API reference of embeddings, `input`).
const TOKENS_MAX: u64 = 8192;
const VECTOR_SALT: u64 = 1 << 43;

#[derive(Deserialize)]
struct Wire {
    model: String,
    input: String,
    dimensions: Option<u32>,
}

/// What a request asks for.
pub struct Embed {
    model: String,
    input: String,
    dimensions: u32,
    pub tokens: u64,
}

impl Embed {
    /// Reads a request body.
    ///
    /// # Errors
    /// The reply that says what is wrong with it.
    pub fn read(body: &[u8], key: Option<&str>) -> Result<Embed, Reply> {
        let bad = |message: &str, code| Reply::error(400, message, "invalid_request_error", code, key);
        let Wire { model, input, dimensions } = serde_json::from_slice(body)
            .map_err(|error| bad(&format!("the request body asks for no vector of a text: {error}"), None))?;
        let tokens = tokens(input.chars().count() as u64);
        if tokens > TOKENS_MAX {
            let message = format!("This model's maximum context length is {TOKENS_MAX} tokens");
            return Err(bad(&message, Some("context_length_exceeded")));
        }
        let dimensions = dimensions.unwrap_or(DIMENSIONS);
        if input.is_empty() || !(1..=DIMENSIONS_MAX).contains(&dimensions) {
            return Err(bad("`input` is empty, or `dimensions` are too few or too many", None));
        }
        Ok(Embed { model, input, dimensions, tokens })
    }

    /// The reply, as a fault leaves it.
    pub fn reply(&self, config: &FakeConfig, fault: Option<Fault>, key: Option<&str>) -> Reply {
        if let Some(reply) = replaced(fault, key) {
            return reply;
        }
        let mut dice = Dice::new(config.seed, xxh3_128(self.input.as_bytes()), VECTOR_SALT);
        let numbers: Vec<f64> = (0..self.dimensions).map(|_| dice.unit() - 0.5).collect();
        let length = numbers.iter().map(|number| number * number).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        let vector: Vec<f64> = numbers.iter().map(|number| number / length).collect();
        let mut data = vec![json!({ "object": "embedding", "index": 0, "embedding": vector })];
        if fault == Some(Fault::EmptyChoices) {
            data.clear();
        }
        let mut body = json!({ "object": "list", "model": self.model, "data": data });
        if fault != Some(Fault::NoUsage) {
            body["usage"] = json!({ "prompt_tokens": self.tokens, "total_tokens": self.tokens });
        }
        let reply = spoil(config, body.to_string().into_bytes(), fault);
        Reply { input_tokens: self.tokens, ..reply }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn check(body: Value, status: u16) -> Value {
        let config = FakeConfig { seed: 1, ..FakeConfig::default() };
        let reply = match Embed::read(body.to_string().as_bytes(), None) {
            Ok(embed) => embed.reply(&config, None, None),
            Err(reply) => reply,
        };
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
        check(json!({ "model": "m", "input": "" }), 400);
        check(json!({ "model": "m", "input": "a", "dimensions": 0 }), 400);
        check(json!({ "model": "m", "messages": [] }), 400);
        let long = check(json!({ "model": "m", "input": "x".repeat(40_000) }), 400);
        assert_eq!(long["error"]["code"], "context_length_exceeded");
    }
}
