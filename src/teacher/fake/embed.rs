//! The vectors of a fake teacher: a function of the text and the seed. Knows no faults and no limits.

use serde::Deserialize;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

use super::answer::Reply;
use super::chat::tokens;
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

/// The reply to a request body.
pub fn reply(seed: u64, body: &[u8]) -> Reply {
    let bad = |message: &str, code| Reply::error(400, message, "invalid_request_error", code, None);
    let wire: Wire = match serde_json::from_slice(body) {
        Ok(wire) => wire,
        Err(error) => return bad(&format!("the request body asks for no vector of a text: {error}"), None),
    };
    let tokens = tokens(wire.input.chars().count() as u64);
    if tokens > TOKENS_MAX {
        let message = format!("This model's maximum context length is {TOKENS_MAX} tokens");
        return bad(&message, Some("context_length_exceeded"));
    }
    let dimensions = wire.dimensions.unwrap_or(DIMENSIONS);
    if wire.input.is_empty() || !(1..=DIMENSIONS_MAX).contains(&dimensions) {
        return bad("`input` is empty, or `dimensions` are too few or too many", None);
    }
    let mut dice = Dice::new(seed, xxh3_128(wire.input.as_bytes()), VECTOR_SALT);
    let numbers: Vec<f64> = (0..dimensions).map(|_| dice.unit() - 0.5).collect();
    let length = numbers.iter().map(|number| number * number).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    let vector: Vec<f64> = numbers.iter().map(|number| number / length).collect();
    Reply::json(&json!({
        "object": "list", "model": wire.model,
        "data": [{ "object": "embedding", "index": 0, "embedding": vector }],
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn check(body: Value, status: u16) -> Value {
        let reply = reply(1, body.to_string().as_bytes());
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
