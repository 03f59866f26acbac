//! A stored call read again: what was asked and what was answered, for people.
//!
//! Knows the providers' JSON so that what shows a call need not. Reads bytes, sends nothing.

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::teacher::api::Api;
use crate::teacher::format::{self, ApiFormat};
use crate::teacher::{Answer, Message};

/// What was asked and answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// Empty when the request cannot be read.
    pub messages: Vec<Message>,
    /// Nothing when the server declined or the reply cannot be read; the reply's body says more.
    pub answer: Option<Answer>,
}

impl Exchange {
    /// Reads a request's and a reply's body, as the store keeps them; `wire` is the name of their format.
    pub fn read(wire: &str, request: &[u8], status: u16, reply: &str) -> Exchange {
        let Some(format) = ApiFormat::named(wire) else {
            return Exchange { messages: Vec::new(), answer: None };
        };
        let asked = serde_json::from_slice::<Value>(request).unwrap_or_default();
        // The model's name stands in for one that a reply does not give, and that is asked for above.
        let answer = format::answer(format, &Api::named(""), status, &HeaderMap::new(), reply, 0);
        Exchange { messages: format.wire().messages(&asked), answer: answer.ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(request: &str, status: u16, reply: &str, expected: (usize, Option<&str>)) {
        let exchange = Exchange::read("openai", request.as_bytes(), status, reply);
        let text = exchange.answer.as_ref().map(|answer| answer.text.as_str());
        assert_eq!((exchange.messages.len(), text), expected, "{request} {reply}");
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let request = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).to_string();
        let choice =
            json!({"index": 0, "message": {"role": "assistant", "content": "Ho"}, "finish_reason": "stop"});
        let reply = json!({"model": "m", "choices": [choice]}).to_string();
        check(&request, 200, &reply, (1, Some("Ho")));
        check(&request, 400, "{\"error\": {\"message\": \"no\"}}", (1, None));
        check("no json", 200, "no json", (0, None));
    }
}
