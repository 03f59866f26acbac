//! The wire format of OpenAI's embeddings, which most servers of embeddings speak.
//!
//! Request and reply bodies, nothing else. The API: platform.openai.com/docs/api-reference/embeddings. The answer's
//! text is the vector as a JSON list, so that it is stored, recorded and shown as any other.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::api::Api;
use super::format::{
    OPENAI_IMAGES, Structured, WireFormat, add_extra, counted, misread, partless, unreadable,
};
use super::stream::Assemble;
use super::{Answer, Fault, Finish, ImageLimits, Message, Request, Role, Usage};

/// OpenAI's embeddings.
pub struct Embeddings;

impl WireFormat for Embeddings {
    fn name(&self) -> &'static str {
        "embeddings"
    }

    fn path(&self, _: &str) -> String {
        "/embeddings".to_owned()
    }

    fn key_header(&self) -> (&'static str, &'static str) {
        ("authorization", "Bearer ")
    }

    fn structured(&self) -> &'static [Structured] {
        &[]
    }

    fn writes(&self) -> bool {
        false
    }

    /// The text is the request's one message.
    fn body(&self, api: &Api, request: &Request) -> Map<String, Value> {
        let text = request.messages.first().map_or("", |message| message.content.as_str());
        let mut body = Map::new();
        body.insert("model".to_owned(), Value::from(api.model.as_str()));
        body.insert("input".to_owned(), Value::from(text));
        if let Some(dimensions) = request.dimensions {
            body.insert("dimensions".to_owned(), Value::from(dimensions));
        }
        add_extra(&mut body, &request.extra);
        body
    }

    fn image_limits(&self) -> ImageLimits {
        OPENAI_IMAGES
    }

    fn dress(&self, _: &Api, _: &mut Map<String, Value>) {}

    fn assembler(&self) -> Box<dyn Assemble> {
        Box::new(NoStream)
    }

    fn read(&self, api: &Api, body: &str) -> Result<Answer, Fault> {
        let envelope: Envelope = match serde_json::from_str(body) {
            Ok(envelope) => envelope,
            Err(error) => return misread(api, body, "embeddings", &error),
        };
        let Some(data) = envelope.data else { return partless(api, body, "data") };
        let Some(first) = data.into_iter().next() else {
            return Err(unreadable("empty_choices", "the reply has no embedding in `data`"));
        };
        let numbers = first.embedding.as_array().filter(|list| !list.is_empty());
        if !numbers.is_some_and(|list| list.iter().all(Value::is_number)) {
            return Err(unreadable("invalid_reply", "the embedding is no list of numbers"));
        }
        let model = envelope.model.as_deref().unwrap_or(&api.model);
        Ok(Answer {
            usage: counted(envelope.usage, WireUsage::read),
            ..Answer::new(first.embedding.to_string(), Finish::Stop, model)
        })
    }

    fn messages(&self, body: &Value) -> Vec<Message> {
        let text = body["input"].as_str();
        text.map(|text| Message { role: Role::User, content: text.to_owned() }).into_iter().collect()
    }

    fn reply(&self, answer: &Answer) -> Value {
        let vector: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        json!({
            "object": "list", "model": answer.model,
            "data": [{ "object": "embedding", "index": 0, "embedding": vector }],
            "usage": { "prompt_tokens": 0, "total_tokens": 0 },
        })
    }
}

/// Embeddings do not stream.
struct NoStream;

impl Assemble for NoStream {
    fn event(&mut self, _: Value) {}

    fn body(&mut self) -> Option<Value> {
        None
    }
}

/// A reply, as far as it is read.
#[derive(Deserialize)]
struct Envelope {
    data: Option<Vec<Item>>,
    usage: Option<Box<RawValue>>,
    model: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    embedding: Value,
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
}

impl WireUsage {
    fn read(self) -> Option<Usage> {
        Some(Usage::of(self.prompt_tokens?, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(dimensions: Option<u32>) -> Request {
        let messages = vec![Message { role: Role::User, content: "a \"b\"".to_owned() }];
        Request { messages, dimensions, ..Request::default() }
    }

    #[test]
    fn bodies_have_a_fixed_order() {
        let body = |dimensions| Value::Object(Embeddings.body(&Api::named("m"), &request(dimensions)));
        assert_eq!(body(None).to_string(), r#"{"model":"m","input":"a \"b\""}"#);
        assert_eq!(body(Some(8)).to_string(), r#"{"model":"m","input":"a \"b\"","dimensions":8}"#);
        assert_eq!(Embeddings.messages(&body(None)), request(None).messages);
    }

    #[test]
    fn vectors_are_read() {
        let read = |body: Value| Embeddings.read(&Api::named("m"), &body.to_string());
        let reply = |embedding: Value| json!({ "model": "m-2", "data": [{ "index": 0, "embedding": embedding }], "usage": { "prompt_tokens": 3, "total_tokens": 3 } });
        let answer = read(reply(json!([0.25, -1]))).unwrap();
        assert_eq!((answer.text.as_str(), answer.model.as_str()), ("[0.25,-1]", "m-2"));
        assert_eq!(answer.usage, Some(Usage::of(3, 0)));
        assert_eq!(read(Embeddings.reply(&answer)).unwrap().text, answer.text);
        let code = |body: Value| match read(body) {
            Err(Fault::Transient { code, .. }) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(reply(json!([]))), "invalid_reply");
        assert_eq!(code(reply(json!("AAAA"))), "invalid_reply");
        assert_eq!(code(reply(json!([null]))), "invalid_reply");
        assert_eq!(code(json!({ "data": [] })), "empty_choices");
        assert_eq!(code(json!({ "id": 1 })), "invalid_reply");
        let busy = json!({ "error": { "code": 429, "message": "m" } });
        assert!(matches!(read(busy), Err(Fault::Busy { .. })));
    }
}
