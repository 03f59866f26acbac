//! The wire format of OpenAI's chat completions, which most servers speak.
//!
//! Request and reply bodies, nothing else. The API: platform.openai.com/docs/api-reference/chat.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::api::{Api, MaxTokensKey};
use super::format::{self, Structured, WireFormat, fits_strict, misread, partless, told_error, unreadable};
use super::image::illustrate;
use super::stream::{Assemble, append};
use super::{Answer, Fault, Finish, Image, ImageLimits, Message, Request, Tool, ToolCall, ToolChoice, Usage};

/// OpenAI's chat completions.
pub struct OpenAi;

impl WireFormat for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn path(&self, _: &str) -> String {
        "/chat/completions".to_owned()
    }

    fn key_header(&self) -> (&'static str, &'static str) {
        ("authorization", "Bearer ")
    }

    fn structured(&self) -> &'static [Structured] {
        &[Structured::JsonSchema, Structured::JsonObject, Structured::Prompt]
    }

    fn body(&self, api: &Api, request: &Request) -> Map<String, Value> {
        let structured = api.structured(super::format::ApiFormat::Openai);
        let mut body = Map::new();
        body.insert("model".to_owned(), Value::from(api.model.as_str()));
        let mut messages = json!(format::told_messages(request, structured));
        let text = |text| json!({ "type": "text", "text": text });
        let image = |image: &Image| json!({ "type": "image_url", "image_url": { "url": image.data_url() } });
        illustrate(Some(&mut messages), "content", &request.images, image, text);
        body.insert("messages".to_owned(), messages);
        if let Some(temperature) = request.temperature {
            body.insert("temperature".to_owned(), Value::from(temperature));
        }
        if let Some(max_tokens) = request.max_tokens {
            let key = match api.max_tokens_key {
                None | Some(MaxTokensKey::MaxTokens) => "max_tokens",
                Some(MaxTokensKey::MaxCompletionTokens) => "max_completion_tokens",
            };
            body.insert(key.to_owned(), Value::from(max_tokens));
        }
        if !request.stop.is_empty() {
            body.insert("stop".to_owned(), Value::from(request.stop.clone()));
        }
        if let Some(seed) = request.seed {
            body.insert("seed".to_owned(), Value::from(seed));
        }
        match (&request.schema, structured) {
            (Some(schema), Structured::JsonSchema) => {
                let shape = json!({ "name": "answer", "schema": **schema, "strict": fits_strict(schema) });
                let shape = json!({ "type": "json_schema", "json_schema": shape });
                body.insert("response_format".to_owned(), shape);
            }
            (Some(_), Structured::JsonObject) => {
                body.insert("response_format".to_owned(), json!({ "type": "json_object" }));
            }
            _ => {}
        }
        add_wishes(&mut body, request);
        format::add_extra(&mut body, &request.extra);
        body
    }

    fn image_limits(&self) -> ImageLimits {
        format::OPENAI_IMAGES
    }

    fn answers_max(&self) -> u32 {
        // platform.openai.com/docs/api-reference/chat/create, `n`.
        128
    }

    fn has_logprobs(&self) -> bool {
        true
    }

    fn dress(&self, api: &Api, body: &mut Map<String, Value>) {
        if api.stream {
            body.insert("stream".to_owned(), Value::from(true));
            body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        }
    }

    fn assembler(&self) -> Box<dyn Assemble> {
        Box::<Chunks>::default()
    }

    fn read(&self, api: &Api, body: &str) -> Result<Answer, Fault> {
        let envelope: Envelope<'_> = match serde_json::from_str(body) {
            Ok(envelope) => envelope,
            Err(error) => return misread(api, body, "a chat completion", &error),
        };
        let Some(choices) = envelope.choices else { return partless(api, body, "choices") };
        if envelope.error.is_some() {
            return told_error(api, body);
        }
        let model = envelope.model.as_deref().unwrap_or(&api.model);
        let answers = choices.into_iter().map(|choice| match choice.error {
            Some(_) => told_error(api, body),
            None => choice.read(model),
        });
        format::together(api, answers.collect(), format::counted(envelope.usage, WireUsage::read))
    }

    fn messages(&self, body: &Value) -> Vec<Message> {
        format::messages_in(&body["messages"])
    }

    fn reply(&self, answer: &Answer) -> Value {
        let choices: Vec<Value> = answer.all().enumerate().map(choice).collect();
        json!({
            "object": "chat.completion", "model": answer.model, "choices": choices,
            "usage": { "prompt_tokens": 0, "completion_tokens": 0 },
        })
    }
}

/// The keys of what else may be wanted: tools, several answers, log probabilities.
fn add_wishes(body: &mut Map<String, Value>, request: &Request) {
    if !request.tools.is_empty() {
        body.insert("tools".to_owned(), request.tools.iter().map(tool).collect());
    }
    if let Some(choice) = &request.tool_choice {
        body.insert("tool_choice".to_owned(), tool_choice(choice));
    }
    if let Some(answers) = request.answers {
        body.insert("n".to_owned(), Value::from(answers));
    }
    if let Some(top) = request.logprobs {
        body.insert("logprobs".to_owned(), Value::from(true));
        if top > 0 {
            body.insert("top_logprobs".to_owned(), Value::from(top));
        }
    }
}

fn tool(tool: &Tool) -> Value {
    let strict = fits_strict(&tool.parameters);
    let function = json!({
        "name": tool.name, "description": tool.description.as_deref().unwrap_or_default(),
        "parameters": tool.parameters, "strict": strict,
    });
    json!({ "type": "function", "function": function })
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => Value::from("auto"),
        ToolChoice::Required => Value::from("required"),
        ToolChoice::None => Value::from("none"),
        ToolChoice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
    }
}

/// An answer as a choice of a reply.
fn choice((index, answer): (usize, &Answer)) -> Value {
    let mut message = match answer.finish {
        Finish::Stop | Finish::Length => json!({ "role": "assistant", "content": answer.text }),
        Finish::Refusal => json!({ "role": "assistant", "content": null, "refusal": answer.text }),
    };
    if !answer.calls.is_empty() {
        let call = |call: &ToolCall| json!({ "type": "function", "function": { "name": call.name, "arguments": call.arguments } });
        message["tool_calls"] = answer.calls.iter().map(call).collect();
    }
    let finish = if answer.finish == Finish::Length { "length" } else { "stop" };
    json!({ "index": index, "message": message, "finish_reason": finish })
}

/// The chunks of a streamed completion. Only `[DONE]` ends it: the usage comes behind the finish reason.
#[derive(Default)]
struct Chunks {
    body: Map<String, Value>,
    /// By index.
    choices: BTreeMap<u64, Value>,
    done: bool,
}

impl Assemble for Chunks {
    fn event(&mut self, data: Value) {
        let Value::Object(chunk) = data else {
            self.done = true;
            return;
        };
        for (key, value) in chunk {
            match key.as_str() {
                "choices" => value.as_array().into_iter().flatten().for_each(|choice| self.choice(choice)),
                // Null in every chunk but the last.
                _ if value.is_null() => {}
                "error" => {
                    self.done = true;
                    self.body.insert(key, value);
                }
                _ => {
                    self.body.insert(key, value);
                }
            }
        }
    }

    fn body(&mut self) -> Option<Value> {
        if !self.done {
            return None;
        }
        let mut body = std::mem::take(&mut self.body);
        body.insert("object".to_owned(), Value::from("chat.completion"));
        body.insert("choices".to_owned(), std::mem::take(&mut self.choices).into_values().collect());
        Some(Value::Object(body))
    }
}

impl Chunks {
    /// Adds a piece of a choice.
    fn choice(&mut self, piece: &Value) {
        let choice = self.choices.entry(piece["index"].as_u64().unwrap_or(0)).or_default();
        for (key, value) in piece["delta"].as_object().into_iter().flatten() {
            match (key.as_str(), value) {
                ("tool_calls", Value::Array(calls)) => {
                    calls.iter().for_each(|call| add_call(&mut choice["message"]["tool_calls"], call));
                }
                (_, Value::String(_)) => append(&mut choice["message"], key, value),
                _ => {}
            }
        }
        if let Some(tokens) = piece["logprobs"]["content"].as_array() {
            extend(&mut choice["logprobs"]["content"], tokens);
        }
        for key in ["finish_reason", "error"] {
            if !piece[key].is_null() {
                choice[key] = piece[key].clone();
            }
        }
    }
}

fn extend(list: &mut Value, more: &[Value]) {
    match list {
        Value::Array(list) => list.extend_from_slice(more),
        slot => *slot = Value::from(more),
    }
}

/// Adds a piece of a call: to the one with its index, or, where a server gives none, to the last one unless it
/// begins another.
fn add_call(calls: &mut Value, piece: &Value) {
    if calls.is_null() {
        *calls = json!([]);
    }
    let Some(calls) = calls.as_array_mut() else { return };
    let place = match &piece["index"] {
        Value::Null if piece["id"].is_string() => None,
        Value::Null => calls.len().checked_sub(1),
        index => calls.iter().position(|call| call["index"] == *index),
    };
    let Some(place) = place else { return calls.push(piece.clone()) };
    for key in ["name", "arguments"] {
        append(&mut calls[place]["function"], key, &piece["function"][key]);
    }
}

/// A chat completion, as far as it is read.
#[derive(serde::Deserialize)]
struct Envelope<'a> {
    error: Option<IgnoredAny>,
    choices: Option<Vec<Choice<'a>>>,
    usage: Option<Box<RawValue>>,
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
}

#[derive(serde::Deserialize)]
struct Choice<'a> {
    error: Option<IgnoredAny>,
    message: Option<WireMessage>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
    logprobs: Option<WireLogprobs>,
}

#[derive(serde::Deserialize)]
struct WireLogprobs {
    content: Option<Value>,
}

impl Choice<'_> {
    fn read(self, model: &str) -> Result<Answer, Fault> {
        let message = self.message.unwrap_or_default();
        let said = message.content.map(|content| content.0);
        let calls: Vec<ToolCall> =
            message.tool_calls.into_iter().flatten().filter_map(WireCall::read).collect();
        let refusal = message.refusal.filter(|refusal| !refusal.is_empty());
        let finish = match self.finish_reason.as_deref() {
            _ if refusal.is_some() => Finish::Refusal,
            Some("content_filter" | "refusal" | "safety") => Finish::Refusal,
            Some("length" | "max_tokens") => Finish::Length,
            Some("error") => return Err(unreadable("error_in_reply", "the server broke the answer off")),
            _ if said.is_some() || !calls.is_empty() => Finish::Stop,
            _ => return Err(unreadable("empty_content", "the answer has no `content`")),
        };
        let text = said.filter(|said| !said.is_empty()).or(refusal).unwrap_or_default();
        Ok(Answer {
            reasoning: message.reasoning_content.or(message.reasoning).filter(|text| !text.is_empty()),
            calls,
            logprobs: format::logprobs(self.logprobs.and_then(|logprobs| logprobs.content)),
            ..Answer::new(text, finish, model)
        })
    }
}

#[derive(Default, serde::Deserialize)]
struct WireMessage {
    content: Option<Content>,
    refusal: Option<String>,
    tool_calls: Option<Vec<WireCall>>,
    /// DeepSeek, vLLM, llama.cpp.
    reasoning_content: Option<String>,
    /// OpenRouter, and vLLM since 0.12.
    reasoning: Option<String>,
}

#[derive(serde::Deserialize)]
struct WireCall {
    function: Option<WireFunction>,
}

#[derive(serde::Deserialize)]
struct WireFunction {
    name: String,
    /// A text; an object from some servers.
    arguments: Option<Value>,
}

impl WireCall {
    /// Nothing for what is no function: tools of the server's own.
    fn read(self) -> Option<ToolCall> {
        let WireFunction { name, arguments } = self.function?;
        Some(ToolCall { name, arguments: format::arguments(arguments) })
    }
}

/// The text of an answer: one string, or a list of parts whose texts are joined.
struct Content(String);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
        #[derive(serde::Deserialize)]
        struct Part {
            text: Option<String>,
        }
        struct TextOrParts;
        impl<'de> Visitor<'de> for TextOrParts {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of parts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Content, E> {
                Ok(Content(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
                let mut joined = String::new();
                while let Some(part) = parts.next_element::<Part>()? {
                    joined.push_str(&part.text.unwrap_or_default());
                }
                Ok(Content(joined))
            }
        }
        deserializer.deserialize_any(TextOrParts)
    }
}

#[derive(serde::Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    /// DeepSeek.
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// The token counts; `None` when they are not what they should be.
    fn read(self) -> Option<Usage> {
        let input = self.prompt_tokens?;
        let output = self.completion_tokens.or(self.total_tokens.map(|total| total.saturating_sub(input)))?;
        let cached = self.prompt_tokens_details.and_then(|details| details.cached_tokens);
        let reasoning = self.completion_tokens_details.and_then(|details| details.reasoning_tokens);
        Some(Usage {
            input,
            output,
            cached_input: cached.or(self.prompt_cache_hit_tokens).unwrap_or(0).min(input),
            reasoning: reasoning.unwrap_or(0).min(output),
            ..Usage::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;
    use crate::teacher::format::{ApiFormat, answer, extra_problems, reply};
    use crate::teacher::http::RawReply;
    use crate::teacher::{Message, Role};

    fn config(more: Value) -> Api {
        let mut config = json!({ "url": "https://API.openai.com:443/v1/", "model": "m" });
        if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
            config.extend(more);
        }
        serde_json::from_value(config).unwrap()
    }

    /// A reply's text, finish and model, or its fault's code.
    #[track_caller]
    fn check(body: &Value, expected: Result<(&str, Finish), &str>) {
        let read = OpenAi.read(&config(json!({})), &body.to_string());
        let read =
            read.as_ref().map(|answer| (answer.text.as_str(), answer.finish)).map_err(|fault| match fault {
                Fault::Transient { code, billed: true, .. } => *code,
                Fault::Busy { .. } => "busy",
                _ => "other",
            });
        assert_eq!(read, expected, "{body}");
    }

    fn choice(message: &Value, finish: &Value) -> Value {
        json!({ "choices": [{ "index": 0, "message": message, "finish_reason": finish }] })
    }

    #[test]
    fn answers_are_read() {
        let text = |content: &str, finish: &str| choice(&json!({ "content": content }), &json!(finish));
        check(&text("a \"b\"\n", "stop"), Ok(("a \"b\"\n", Finish::Stop)));
        check(&text("a", "length"), Ok(("a", Finish::Length)));
        check(&text("a", "content_filter"), Ok(("a", Finish::Refusal)));
        check(&text("a", "novel_reason"), Ok(("a", Finish::Stop)));
        check(&text("", "stop"), Ok(("", Finish::Stop)));
        check(&text("a", "error"), Err("error_in_reply"));
        let parts = json!([{ "type": "thinking", "thinking": [] }, { "text": "a" }, { "text": "b" }]);
        check(
            &choice(&json!({ "content": parts, "tool_calls": [{ "type": "custom" }] }), &Value::Null),
            Ok(("ab", Finish::Stop)),
        );
        check(
            &choice(&json!({ "content": null, "refusal": "no" }), &json!("stop")),
            Ok(("no", Finish::Refusal)),
        );
        check(&choice(&json!({ "content": null }), &json!("length")), Ok(("", Finish::Length)));
        check(&choice(&json!({ "content": null }), &json!("stop")), Err("empty_content"));
    }

    #[test]
    fn replies_without_an_answer_are_faults() {
        check(&json!({ "choices": [] }), Err("empty_choices"));
        check(&json!({ "id": 1 }), Err("invalid_reply"));
        check(&json!({ "choices": 3 }), Err("invalid_reply"));
        check(&json!("text"), Err("invalid_reply"));
        check(&json!({ "error": { "code": 429, "message": "m" }, "choices": null }), Err("busy"));
        check(
            &json!({ "choices": [{ "error": { "code": 429 }, "message": { "content": "" } }] }),
            Err("busy"),
        );
        check(&json!([{ "error": { "code": 429, "message": "m" } }]), Err("busy"));
        check(&json!({ "object": "error", "message": "m", "code": 429 }), Err("busy"));
        let refused = json!({ "error": { "code": "content_filter", "message": "m" } });
        check(&refused, Ok(("m (`content_filter`)", Finish::Refusal)));
        // Twice: as it came, and as it is read from the store.
        let raw = RawReply { status: 400, headers: HeaderMap::new(), body: refused.to_string() };
        let api = config(json!({}));
        let reply = reply(ApiFormat::Openai, &api, raw, 0).unwrap();
        let again = answer(ApiFormat::Openai, &api, 400, &HeaderMap::new(), &reply.body, 0).unwrap();
        assert_eq!(again.finish, reply.answer.finish);
    }

    #[test]
    fn usage_and_model_are_what_the_server_says() {
        let read = |more: Value| {
            let mut body = choice(&json!({ "content": "a" }), &json!("stop"));
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let answer = OpenAi.read(&config(json!({})), &body.to_string()).unwrap();
            (answer.model, answer.usage)
        };
        let usage = Some(Usage { input: 3, output: 4, ..Usage::default() });
        let said =
            json!({ "model": "m-2", "usage": { "prompt_tokens": 3, "completion_tokens": 4, "details": {} } });
        assert_eq!(read(said), ("m-2".to_owned(), usage));
        assert_eq!(
            read(json!({ "usage": { "prompt_tokens": 3, "total_tokens": 7 } })),
            ("m".to_owned(), usage)
        );
        assert_eq!(read(json!({ "usage": { "prompt_tokens": "3" } })), ("m".to_owned(), None));
        let details = json!({ "usage": {
            "prompt_tokens": 3, "completion_tokens": 4,
            "prompt_tokens_details": { "cached_tokens": 2 }, "completion_tokens_details": { "reasoning_tokens": 1 },
        } });
        let usage = Usage { input: 3, output: 4, cached_input: 2, reasoning: 1, ..Usage::default() };
        assert_eq!(read(details), ("m".to_owned(), Some(usage)));
    }

    #[test]
    fn bodies_have_a_fixed_order() {
        let message = |role, content: &str| Message { role, content: content.to_owned() };
        let body = |api: &Api, request: &Request| Value::Object(OpenAi.body(api, request));
        let request = Request {
            messages: vec![message(Role::System, "s"), message(Role::User, "u")],
            temperature: Some(0.5),
            max_tokens: Some(9),
            stop: vec!["x".to_owned()],
            seed: Some(7),
            schema: Some(json!({ "type": "integer" }).into()),
            extra: Map::from_iter([("top_p".to_owned(), json!(1)), ("model".to_owned(), json!("other"))]),
            ..Request::default()
        };
        let written = body(&config(json!({})), &request).to_string();
        assert_eq!(
            written,
            r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"temperature":0.5,"max_tokens":9,"stop":["x"],"seed":7,"response_format":{"type":"json_schema","json_schema":{"name":"answer","schema":{"type":"integer"},"strict":true}},"top_p":1}"#
        );
        let other = config(json!({ "structured": "json_object", "max_tokens_key": "max_completion_tokens" }));
        let told = body(&other, &request);
        assert_eq!(told["response_format"], json!({ "type": "json_object" }));
        assert_eq!(told["max_completion_tokens"], 9);
        assert!(told["messages"][1]["content"].as_str().unwrap().ends_with("else:\n{\"type\":\"integer\"}"));
        let prompt = body(&config(json!({ "structured": "prompt" })), &request);
        assert_eq!((prompt.get("response_format"), &prompt["messages"]), (None, &told["messages"]));
        let problems = extra_problems(&request.extra);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].message, "`model` cannot be set here");
    }
}
