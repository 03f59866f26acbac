//! The wire format of OpenAI's responses.
//!
//! Request and reply bodies, nothing else. The API: platform.openai.com/docs/api-reference/responses. Nothing is
//! kept at the server (`store: false`): every request has its whole conversation.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::api::Api;
use super::format::{
    ApiFormat, OPENAI_IMAGES, Structured, WireFormat, add_extra, arguments, counted, fits_strict, logprobs,
    messages_in, misread, partless, told_error, told_messages, unreadable,
};
use super::image::illustrate;
use super::stream::Assemble;
use super::{
    Answer, Fault, Finish, Image, ImageLimits, Logprob, Message, Request, Role, Tool, ToolCall, ToolChoice,
    Usage,
};

/// OpenAI's responses.
pub struct Responses;

impl WireFormat for Responses {
    fn name(&self) -> &'static str {
        "responses"
    }

    fn path(&self, _: &str) -> String {
        "/responses".to_owned()
    }

    fn key_header(&self) -> (&'static str, &'static str) {
        ("authorization", "Bearer ")
    }

    fn structured(&self) -> &'static [Structured] {
        &[Structured::JsonSchema, Structured::JsonObject, Structured::Prompt]
    }

    fn body(&self, api: &Api, request: &Request) -> Map<String, Value> {
        let structured = api.structured(ApiFormat::Responses);
        let mut body = Map::new();
        body.insert("model".to_owned(), Value::from(api.model.as_str()));
        let messages = told_messages(request, structured);
        let mut messages: Value = messages.iter().map(input).collect();
        let text = |text| json!({ "type": "input_text", "text": text });
        let image = |image: &Image| json!({ "type": "input_image", "image_url": image.data_url() });
        illustrate(Some(&mut messages), "content", &request.images, image, text);
        body.insert("input".to_owned(), messages);
        body.insert("store".to_owned(), Value::from(false));
        if let Some(temperature) = request.temperature {
            body.insert("temperature".to_owned(), Value::from(temperature));
        }
        if let Some(max_tokens) = request.max_tokens {
            body.insert("max_output_tokens".to_owned(), Value::from(max_tokens));
        }
        // This API knows neither; a server that does not say so itself would ignore what the step asks for.
        if !request.stop.is_empty() {
            body.insert("stop".to_owned(), Value::from(request.stop.clone()));
        }
        if let Some(seed) = request.seed {
            body.insert("seed".to_owned(), Value::from(seed));
        }
        match (&request.schema, structured) {
            (Some(schema), Structured::JsonSchema) => {
                let strict = fits_strict(schema);
                let shape =
                    json!({ "type": "json_schema", "name": "answer", "schema": **schema, "strict": strict });
                body.insert("text".to_owned(), json!({ "format": shape }));
            }
            (Some(_), Structured::JsonObject) => {
                body.insert("text".to_owned(), json!({ "format": { "type": "json_object" } }));
            }
            _ => {}
        }
        add_wishes(&mut body, request);
        add_extra(&mut body, &request.extra);
        body
    }

    fn image_limits(&self) -> ImageLimits {
        OPENAI_IMAGES
    }

    fn has_logprobs(&self) -> bool {
        true
    }

    fn dress(&self, api: &Api, body: &mut Map<String, Value>) {
        if api.stream {
            body.insert("stream".to_owned(), Value::from(true));
        }
    }

    fn assembler(&self) -> Box<dyn Assemble> {
        Box::<Last>::default()
    }

    fn read(&self, api: &Api, body: &str) -> Result<Answer, Fault> {
        let envelope: Envelope = match serde_json::from_str(body) {
            Ok(envelope) => envelope,
            Err(error) => return misread(api, body, "a response", &error),
        };
        if envelope.error.as_ref().is_some_and(|error| !error.is_null()) {
            return told_error(api, body);
        }
        let Some(output) = envelope.output else { return partless(api, body, "output") };
        let mut said = Spoken::default();
        output.into_iter().for_each(|item| said.add(item));
        let why = envelope.incomplete_details.and_then(|details| details.reason).unwrap_or_default();
        let finish = match (envelope.status.as_deref(), why.as_str()) {
            _ if !said.refusal.is_empty() => Finish::Refusal,
            (Some("incomplete"), "content_filter") => Finish::Refusal,
            (Some("incomplete"), _) => Finish::Length,
            (Some("failed" | "cancelled"), _) => {
                return Err(unreadable("error_in_reply", "the server broke the answer off"));
            }
            _ if said.spoke => Finish::Stop,
            _ => return Err(unreadable("empty_content", "the response has no message in `output`")),
        };
        let text = if said.text.is_empty() { said.refusal } else { said.text };
        Ok(Answer {
            usage: counted(envelope.usage, WireUsage::read),
            reasoning: Some(said.reasoning).filter(|text| !text.is_empty()),
            calls: said.calls,
            logprobs: said.logprobs,
            ..Answer::new(text, finish, envelope.model.as_deref().unwrap_or(&api.model))
        })
    }

    fn messages(&self, body: &Value) -> Vec<Message> {
        messages_in(&body["input"])
    }

    fn reply(&self, answer: &Answer) -> Value {
        let part = match answer.finish {
            Finish::Refusal => json!({ "type": "refusal", "refusal": answer.text }),
            _ => json!({ "type": "output_text", "text": answer.text }),
        };
        let message = json!({ "type": "message", "role": Role::Assistant, "content": [part] });
        let call = |call: &ToolCall| json!({ "type": "function_call", "name": call.name, "arguments": call.arguments });
        let cut = answer.finish == Finish::Length;
        json!({
            "object": "response", "model": answer.model,
            "status": if cut { "incomplete" } else { "completed" },
            "incomplete_details": cut.then(|| json!({ "reason": "max_output_tokens" })),
            "output": std::iter::once(message).chain(answer.calls.iter().map(call)).collect::<Vec<_>>(),
            "usage": { "input_tokens": 0, "output_tokens": 0 },
        })
    }
}

/// The keys of what else may be wanted: tools, log probabilities.
fn add_wishes(body: &mut Map<String, Value>, request: &Request) {
    if !request.tools.is_empty() {
        body.insert("tools".to_owned(), request.tools.iter().map(tool).collect());
    }
    if let Some(choice) = &request.tool_choice {
        let choice = match choice {
            ToolChoice::Auto => Value::from("auto"),
            ToolChoice::Required => Value::from("required"),
            ToolChoice::None => Value::from("none"),
            ToolChoice::Named(name) => json!({ "type": "function", "name": name }),
        };
        body.insert("tool_choice".to_owned(), choice);
    }
    if let Some(top) = request.logprobs {
        body.insert("include".to_owned(), json!(["message.output_text.logprobs"]));
        if top > 0 {
            body.insert("top_logprobs".to_owned(), Value::from(top));
        }
    }
}

/// Without `strict` this API takes it to be true, and refuses schemas outside of that subset.
fn tool(tool: &Tool) -> Value {
    json!({
        "type": "function", "name": tool.name, "description": tool.description.as_deref().unwrap_or_default(),
        "parameters": tool.parameters, "strict": fits_strict(&tool.parameters),
    })
}

/// A message as an item of the input. What the model said before has the form of its own output: OpenAI takes a
/// plain text there, too, llama.cpp does not.
fn input(message: &Message) -> Value {
    if message.role != Role::Assistant {
        return json!(message);
    }
    let part = json!({ "type": "output_text", "text": message.content });
    json!({ "type": "message", "role": message.role, "content": [part] })
}

/// The end of a streamed response: its last event holds all of it.
#[derive(Default)]
struct Last(Option<Value>);

impl Assemble for Last {
    fn event(&mut self, mut data: Value) {
        match data["type"].as_str() {
            Some("response.completed" | "response.incomplete" | "response.failed") => {
                self.0 = Some(data["response"].take());
            }
            Some("error") => self.0 = Some(json!({ "error": data })),
            _ => {}
        }
    }

    fn body(&mut self) -> Option<Value> {
        self.0.take()
    }
}

/// A response, as far as it is read.
#[derive(Deserialize)]
struct Envelope {
    error: Option<Value>,
    status: Option<String>,
    incomplete_details: Option<Incomplete>,
    output: Option<Vec<Item>>,
    usage: Option<Box<RawValue>>,
    model: Option<String>,
}

#[derive(Deserialize)]
struct Incomplete {
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    r#type: Option<String>,
    #[serde(default)]
    content: Option<Vec<Part>>,
    #[serde(default)]
    summary: Option<Vec<Part>>,
    /// Of a call.
    name: Option<String>,
    arguments: Option<Value>,
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
    refusal: Option<String>,
    logprobs: Option<Value>,
}

/// What the items of an output say together.
#[derive(Default)]
struct Spoken {
    spoke: bool,
    text: String,
    refusal: String,
    reasoning: String,
    calls: Vec<ToolCall>,
    logprobs: Option<Vec<Logprob>>,
}

impl Spoken {
    fn add(&mut self, item: Item) {
        let parts = item.content.into_iter().flatten();
        match item.r#type.as_deref() {
            Some("message") => {
                self.spoke = true;
                for part in parts {
                    self.text.push_str(&part.text.unwrap_or_default());
                    self.refusal.push_str(&part.refusal.unwrap_or_default());
                    // An empty list is what comes when they were not asked for.
                    if let Some(tokens) = logprobs(part.logprobs).filter(|tokens| !tokens.is_empty()) {
                        self.logprobs.get_or_insert_default().extend(tokens);
                    }
                }
            }
            Some("function_call") => {
                self.spoke = true;
                let (name, arguments) = (item.name.unwrap_or_default(), arguments(item.arguments));
                self.calls.push(ToolCall { name, arguments });
            }
            Some("reasoning") => {
                let parts = item.summary.into_iter().flatten().chain(parts);
                self.reasoning.extend(parts.filter_map(|part| part.text));
            }
            _ => {}
        }
    }
}

#[derive(Deserialize)]
struct WireUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// The token counts; `None` when they are not what they should be.
    fn read(self) -> Option<Usage> {
        let (input, output) = (self.input_tokens?, self.output_tokens?);
        let cached = self.input_tokens_details.and_then(|details| details.cached_tokens);
        let reasoning = self.output_tokens_details.and_then(|details| details.reasoning_tokens);
        Some(Usage {
            input,
            output,
            cached_input: cached.unwrap_or(0).min(input),
            reasoning: reasoning.unwrap_or(0).min(output),
            ..Usage::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_a_fixed_order() {
        let request = Request {
            messages: vec![
                Message { role: Role::System, content: "s".to_owned() },
                Message { role: Role::User, content: "u".to_owned() },
            ],
            temperature: Some(0.5),
            max_tokens: Some(9),
            schema: Some(json!({ "type": "integer" }).into()),
            extra: Map::from_iter([("reasoning".to_owned(), json!({ "effort": "low" }))]),
            ..Request::default()
        };
        assert_eq!(
            Value::Object(Responses.body(&Api::named("m"), &request)).to_string(),
            r#"{"model":"m","input":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"store":false,"temperature":0.5,"max_output_tokens":9,"text":{"format":{"type":"json_schema","name":"answer","schema":{"type":"integer"},"strict":true}},"reasoning":{"effort":"low"}}"#
        );
    }

    #[test]
    fn what_was_asked_is_read_again() {
        let message = |role, content: &str| Message { role, content: content.to_owned() };
        let messages =
            vec![message(Role::User, "u"), message(Role::Assistant, "a"), message(Role::User, "v")];
        let request = Request { messages: messages.clone(), ..Request::default() };
        assert_eq!(Responses.messages(&Value::Object(Responses.body(&Api::named("m"), &request))), messages);
    }

    #[test]
    fn answers_are_read() {
        let read = |body: &Value| Responses.read(&Api::named("m"), &body.to_string());
        let answer = read(&json!({
            "status": "completed", "model": "m-2",
            "output": [
                { "type": "reasoning", "summary": [{ "type": "summary_text", "text": "hm" }] },
                { "type": "message", "content": [{ "type": "output_text", "text": "a" }, { "type": "output_text", "text": "b" }] },
            ],
            "usage": {
                "input_tokens": 7, "input_tokens_details": { "cached_tokens": 4 },
                "output_tokens": 5, "output_tokens_details": { "reasoning_tokens": 3 },
            },
        }));
        let answer = answer.unwrap();
        assert_eq!((answer.text.as_str(), answer.reasoning.as_deref()), ("ab", Some("hm")));
        let usage = Usage { input: 7, output: 5, cached_input: 4, reasoning: 3, ..Usage::default() };
        assert_eq!(answer.usage, Some(usage));
        let code = |body: &Value| match read(body) {
            Err(Fault::Transient { code, .. }) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(&json!({ "output": [] })), "empty_content");
        assert_eq!(code(&json!({ "status": "failed", "output": [] })), "error_in_reply");
        assert_eq!(code(&json!({ "id": 1 })), "invalid_reply");
        let failed = json!({ "status": "failed", "error": { "code": "rate_limit_exceeded", "message": "m" }, "output": [] });
        assert!(matches!(read(&failed), Err(Fault::Busy { .. })));
    }
}
