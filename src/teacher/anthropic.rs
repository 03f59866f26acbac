//! The wire format of Anthropic's messages.
//!
//! Request and reply bodies, nothing else. The API: docs.claude.com, "Messages". It wants `max_tokens` in every
//! request; where the step has none, it is [`MAX_TOKENS_DEFAULT`].

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::api::Api;
use super::cache::CachePoint;
use super::format::{
    ANSWER_TOOL, ANSWER_TOOL_ABOUT, ApiFormat, Structured, WireFormat, add_extra, arguments, counted,
    messages_in, misread, partless, told_messages, unreadable,
};
use super::image::illustrate;
use super::stream::{Assemble, append};
use super::wire::MAX_TOKENS_DEFAULT;
use super::{
    Answer, Fault, Finish, Image, ImageLimits, Message, Request, Role, Tool, ToolCall, ToolChoice, Usage,
};

/// Anthropic's messages.
pub struct Anthropic;

impl WireFormat for Anthropic {
    fn name(&self) -> &'static str {
        "anthropic"
    }

    fn path(&self, _: &str) -> String {
        "/messages".to_owned()
    }

    fn key_header(&self) -> (&'static str, &'static str) {
        ("x-api-key", "")
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        // The one version there is: docs.claude.com, "Versions".
        &[("anthropic-version", "2023-06-01")]
    }

    fn structured(&self) -> &'static [Structured] {
        &[Structured::Tool, Structured::Prompt]
    }

    fn body(&self, api: &Api, request: &Request) -> Map<String, Value> {
        // The arguments of a tool are an object; any other shape is told in the prompt.
        let is_object = |schema: &Value| schema.get("type").is_some_and(|kind| kind == "object");
        let by_tool = api.structured(ApiFormat::Anthropic) == Structured::Tool;
        let schema = request.schema.as_ref().filter(|schema| by_tool && is_object(schema));
        let structured = if schema.is_some() { Structured::Tool } else { Structured::Prompt };
        let told = told_messages(request, structured);
        let (system, spoken): (Vec<&Message>, Vec<&Message>) =
            told.iter().partition(|message| message.role == Role::System);
        let mut body = Map::new();
        body.insert("model".to_owned(), Value::from(api.model.as_str()));
        body.insert("max_tokens".to_owned(), request.max_tokens.unwrap_or(MAX_TOKENS_DEFAULT).into());
        if !system.is_empty() {
            let texts: Vec<&str> = system.iter().map(|message| message.content.as_str()).collect();
            body.insert("system".to_owned(), Value::from(texts.join("\n\n")));
        }
        let mut messages = json!(spoken);
        let text = |text| json!({ "type": "text", "text": text });
        illustrate(Some(&mut messages), "content", &request.images, image, text);
        body.insert("messages".to_owned(), messages);
        if let Some(temperature) = request.temperature {
            body.insert("temperature".to_owned(), Value::from(temperature));
        }
        if !request.stop.is_empty() {
            body.insert("stop_sequences".to_owned(), Value::from(request.stop.clone()));
        }
        // This API has no seed, and says so; left out, the step would seem to have one.
        if let Some(seed) = request.seed {
            body.insert("seed".to_owned(), Value::from(seed));
        }
        if let Some(schema) = schema {
            let tool =
                json!({ "name": ANSWER_TOOL, "description": ANSWER_TOOL_ABOUT, "input_schema": **schema });
            body.insert("tools".to_owned(), json!([tool]));
            body.insert("tool_choice".to_owned(), json!({ "type": "tool", "name": ANSWER_TOOL }));
        }
        if !request.tools.is_empty() {
            body.insert("tools".to_owned(), request.tools.iter().map(tool).collect());
        }
        if let Some(choice) = &request.tool_choice {
            let choice = match choice {
                ToolChoice::Auto => json!({ "type": "auto" }),
                ToolChoice::Required => json!({ "type": "any" }),
                ToolChoice::None => json!({ "type": "none" }),
                ToolChoice::Named(name) => json!({ "type": "tool", "name": name }),
            };
            body.insert("tool_choice".to_owned(), choice);
        }
        add_extra(&mut body, &request.extra);
        body
    }

    fn image_limits(&self) -> ImageLimits {
        // docs.claude.com, "Vision": 5 MB an image, as base64; the newest models scale images to 4,784 tokens, the
        // others to about 1,600.
        ImageLimits { base64_max: 5 << 20, tokens_max: 4_784 }
    }

    fn dress(&self, api: &Api, body: &mut Map<String, Value>) {
        if api.stream {
            body.insert("stream".to_owned(), Value::from(true));
        }
    }

    fn marks_cache(&self) -> bool {
        true
    }

    fn mark_cache(&self, body: &mut Map<String, Value>, point: CachePoint) {
        let marked =
            |text: &str| json!({ "type": "text", "text": text, "cache_control": { "type": "ephemeral" } });
        let content = match point.spoken {
            None => body.get_mut("system"),
            Some(at) => body["messages"].get_mut(at).and_then(|message| message.get_mut("content")),
        };
        let Some((content, text)) = content.and_then(|content| Some((content.as_str()?.to_owned(), content)))
        else {
            return;
        };
        let bytes = if point.spoken.is_none() { content.len() } else { point.bytes };
        let Some((shared, rest)) = content.split_at_checked(bytes) else { return };
        let rest =
            Some(rest).filter(|rest| !rest.is_empty()).map(|rest| json!({ "type": "text", "text": rest }));
        *text = std::iter::once(marked(shared)).chain(rest).collect();
    }

    fn assembler(&self) -> Box<dyn Assemble> {
        Box::<Blocks>::default()
    }

    fn read(&self, api: &Api, body: &str) -> Result<Answer, Fault> {
        let envelope: Envelope = match serde_json::from_str(body) {
            Ok(envelope) => envelope,
            Err(error) => return misread(api, body, "a message", &error),
        };
        let Some(content) = envelope.content else { return partless(api, body, "content") };
        let (mut text, mut reasoning, mut calls, mut spoke) =
            (String::new(), String::new(), Vec::new(), false);
        for block in content {
            spoke |= matches!(block.r#type.as_deref(), Some("text" | "tool_use"));
            text.push_str(&block.text.unwrap_or_default());
            reasoning.push_str(&block.thinking.unwrap_or_default());
            match (block.r#type.as_deref(), block.name) {
                (Some("tool_use"), Some(name)) if name == ANSWER_TOOL => {
                    text.push_str(&arguments(block.input));
                }
                (Some("tool_use"), Some(name)) => {
                    calls.push(ToolCall { name, arguments: arguments(block.input) });
                }
                _ => {}
            }
        }
        let finish = match envelope.stop_reason.as_deref() {
            Some("refusal") => Finish::Refusal,
            Some("max_tokens" | "model_context_window_exceeded" | "pause_turn") => Finish::Length,
            _ if spoke => Finish::Stop,
            _ => return Err(unreadable("empty_content", "the message has no text in `content`")),
        };
        Ok(Answer {
            usage: counted(envelope.usage, WireUsage::read),
            reasoning: Some(reasoning).filter(|text| !text.is_empty()),
            calls,
            ..Answer::new(text, finish, envelope.model.as_deref().unwrap_or(&api.model))
        })
    }

    fn messages(&self, body: &Value) -> Vec<Message> {
        let system = body.get("system").and_then(Value::as_str);
        let system = system.map(|text| Message { role: Role::System, content: text.to_owned() });
        system.into_iter().chain(messages_in(&body["messages"])).collect()
    }

    fn reply(&self, answer: &Answer) -> Value {
        let reason = match answer.finish {
            Finish::Stop => "end_turn",
            Finish::Length => "max_tokens",
            Finish::Refusal => "refusal",
        };
        let text = json!({ "type": "text", "text": answer.text });
        let call = |call: &ToolCall| {
            let input =
                serde_json::from_str(&call.arguments).unwrap_or_else(|_| Value::from(&*call.arguments));
            json!({ "type": "tool_use", "name": call.name, "input": input })
        };
        json!({
            "type": "message", "role": Role::Assistant, "model": answer.model,
            "content": std::iter::once(text).chain(answer.calls.iter().map(call)).collect::<Vec<_>>(),
            "stop_reason": reason, "usage": { "input_tokens": 0, "output_tokens": 0 },
        })
    }
}

fn image(image: &Image) -> Value {
    let source = match image {
        Image::Inline { media_type, base64 } => {
            json!({ "type": "base64", "media_type": media_type, "data": base64 })
        }
        Image::Url(url) => json!({ "type": "url", "url": url }),
    };
    json!({ "type": "image", "source": source })
}

fn tool(tool: &Tool) -> Value {
    json!({
        "name": tool.name, "description": tool.description.as_deref().unwrap_or_default(),
        "input_schema": tool.parameters,
    })
}

/// The events of a streamed message: its start, its blocks in pieces, its end.
#[derive(Default)]
struct Blocks {
    message: Value,
    blocks: Vec<Value>,
    done: bool,
}

impl Assemble for Blocks {
    fn event(&mut self, mut data: Value) {
        match data["type"].as_str() {
            Some("message_start") => self.message = data["message"].take(),
            Some("content_block_start") => self.blocks.push(data["content_block"].take()),
            Some("content_block_delta") => self.delta(&data["delta"]),
            Some("message_delta") => {
                self.message["stop_reason"] = data["delta"]["stop_reason"].take();
                let counts = data["usage"].as_object_mut().map(std::mem::take).into_iter().flatten();
                for (key, count) in counts.filter(|(_, count)| !count.is_null()) {
                    self.message["usage"][key] = count;
                }
            }
            Some("message_stop") => self.done = true,
            Some("error") => {
                self.message = data;
                self.done = true;
            }
            _ => {}
        }
    }

    fn body(&mut self) -> Option<Value> {
        if !self.done {
            return None;
        }
        if self.message["type"] != "error" {
            self.message["content"] = std::mem::take(&mut self.blocks).into_iter().map(whole).collect();
        }
        Some(self.message.take())
    }
}

impl Blocks {
    /// Blocks come one after the other, so a piece is always the last one's.
    fn delta(&mut self, delta: &Value) {
        let Some(block) = self.blocks.last_mut() else { return };
        append(block, "text", &delta["text"]);
        append(block, "thinking", &delta["thinking"]);
        append(block, "input_json", &delta["partial_json"]);
    }
}

/// A tool's arguments come as pieces of JSON text.
fn whole(mut block: Value) -> Value {
    let input = block.as_object_mut().and_then(|block| block.shift_remove("input_json"));
    if let Some(input) = input.as_ref().and_then(Value::as_str) {
        block["input"] = serde_json::from_str(input).unwrap_or_else(|_| Value::from(input));
    }
    block
}

/// A message, as far as it is read.
#[derive(Deserialize)]
struct Envelope {
    content: Option<Vec<Block>>,
    stop_reason: Option<String>,
    usage: Option<Box<RawValue>>,
    model: Option<String>,
}

#[derive(Deserialize)]
struct Block {
    r#type: Option<String>,
    text: Option<String>,
    thinking: Option<String>,
    name: Option<String>,
    input: Option<Value>,
}

/// What was read from and written to a cache is not part of `input_tokens`.
#[derive(Deserialize)]
struct WireUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

impl WireUsage {
    /// The token counts; `None` when they are not what they should be.
    fn read(self) -> Option<Usage> {
        let cached_input = self.cache_read_input_tokens.unwrap_or(0);
        let cache_write = self.cache_creation_input_tokens.unwrap_or(0);
        Some(Usage {
            input: self.input_tokens?.saturating_add(cached_input).saturating_add(cache_write),
            output: self.output_tokens?,
            cached_input,
            cache_write,
            reasoning: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(schema: Option<Value>) -> Request {
        let message = |role, content: &str| Message { role, content: content.to_owned() };
        Request {
            messages: vec![message(Role::System, "s"), message(Role::User, "u")],
            schema: schema.map(Into::into),
            ..Request::default()
        }
    }

    #[track_caller]
    fn check_body(request: &Request, expected: &str) {
        assert_eq!(Value::Object(Anthropic.body(&Api::named("m"), request)).to_string(), expected);
    }

    #[test]
    fn bodies_have_a_fixed_order() {
        check_body(
            &Request {
                max_tokens: Some(9),
                stop: vec!["x".to_owned()],
                temperature: Some(0.5),
                ..request(None)
            },
            r#"{"model":"m","max_tokens":9,"system":"s","messages":[{"role":"user","content":"u"}],"temperature":0.5,"stop_sequences":["x"]}"#,
        );
        check_body(
            &request(Some(json!({ "type": "object" }))),
            r#"{"model":"m","max_tokens":4096,"system":"s","messages":[{"role":"user","content":"u"}],"tools":[{"name":"answer","description":"Gives the answer.","input_schema":{"type":"object"}}],"tool_choice":{"type":"tool","name":"answer"}}"#,
        );
        let list = Anthropic.body(&Api::named("m"), &request(Some(json!({ "type": "array" }))));
        assert!(!list.contains_key("tools"));
        assert!(list["messages"][0]["content"].as_str().unwrap().ends_with(r#"{"type":"array"}"#));
    }

    #[test]
    fn the_cache_is_told_where_what_is_shared_ends() {
        let marked = |spoken, bytes| {
            let mut body = Anthropic.body(&Api::named("m"), &request(None));
            body["messages"][0]["content"] = Value::from("one two");
            Anthropic.mark_cache(&mut body, CachePoint { spoken, bytes, prefix: 0 });
            json!([body["system"], body["messages"][0]["content"]])
        };
        let part =
            |text: &str| json!({ "type": "text", "text": text, "cache_control": { "type": "ephemeral" } });
        assert_eq!(marked(None, 0), json!([[part("s")], "one two"]));
        assert_eq!(marked(Some(0), 4), json!(["s", [part("one "), { "type": "text", "text": "two" }]]));
        assert_eq!(marked(Some(0), 7), json!(["s", [part("one two")]]));
        assert_eq!(marked(Some(5), 7), json!(["s", "one two"]));
    }

    #[test]
    fn answers_are_read() {
        let read = |body: &Value| Anthropic.read(&Api::named("m"), &body.to_string());
        let answer = read(&json!({
            "type": "message", "model": "m-2", "stop_reason": "end_turn",
            "content": [{ "type": "thinking", "thinking": "hm" }, { "type": "text", "text": "a" }],
            "usage": { "input_tokens": 3, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 10, "output_tokens": 4 },
        }));
        let answer = answer.unwrap();
        assert_eq!((answer.text.as_str(), answer.reasoning.as_deref()), ("a", Some("hm")));
        let usage = Usage { input: 33, output: 4, cached_input: 20, cache_write: 10, reasoning: 0 };
        assert_eq!(answer.usage, Some(usage));
        let tool = json!({ "content": [{ "type": "tool_use", "name": "answer", "input": { "n": 1 } }], "stop_reason": "tool_use" });
        assert_eq!(read(&tool).unwrap().text, r#"{"n":1}"#);
        let refused = json!({ "content": [], "stop_reason": "refusal" });
        assert_eq!(read(&refused).unwrap().finish, Finish::Refusal);
        let empty = json!({ "content": [], "stop_reason": "end_turn" });
        assert!(matches!(read(&empty), Err(Fault::Transient { code: "empty_content", .. })));
        let busy = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "m" } });
        assert!(matches!(read(&busy), Err(Fault::Busy { .. })));
    }

    #[test]
    fn what_was_asked_is_read_again() {
        let body = Value::Object(Anthropic.body(&Api::named("m"), &request(None)));
        assert_eq!(Anthropic.messages(&body), request(None).messages);
    }
}
