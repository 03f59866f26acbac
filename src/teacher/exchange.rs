//! A stored call read again: what was asked and what was answered, for people.
//!
//! Knows the providers' JSON so that what shows a call need not. Reads bytes, sends nothing.

use reqwest::header::HeaderMap;
use serde::Deserialize;

use crate::teacher::openai::OpenAi;
use crate::teacher::{Answer, Message};

/// What was asked and answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// Empty when the request cannot be read.
    pub messages: Vec<Message>,
    /// Nothing when the server declined or the reply cannot be read; the reply's body says more.
    pub answer: Option<Answer>,
}

#[derive(Deserialize)]
struct Asked {
    messages: Vec<Message>,
}

impl Exchange {
    /// Reads a request's and a reply's body, as the store keeps them.
    pub fn read(request: &[u8], status: u16, reply: &str) -> Exchange {
        let asked = serde_json::from_slice::<Asked>(request);
        // The model's name stands in for one that a reply does not give, and that is asked for above.
        let answer = OpenAi::named("").answer(status, &HeaderMap::new(), reply, 0);
        Exchange { messages: asked.map(|asked| asked.messages).unwrap_or_default(), answer: answer.ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(request: &str, status: u16, reply: &str, expected: (usize, Option<&str>)) {
        let exchange = Exchange::read(request.as_bytes(), status, reply);
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
