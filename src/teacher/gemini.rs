//! The wire format of Google's generateContent.
//!
//! Request and reply bodies, nothing else. The API: ai.google.dev/api/generate-content. The model stands in the
//! URL; in the canonical body it stands, too, so that a call's key knows it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::api::Api;
use super::format::{
    ApiFormat, OPENAI_IMAGES, Structured, WireFormat, add_extra, arguments, counted, misread, partless,
    texts_at, together, told_messages, unreadable,
};
use super::image::{content_shown, illustrate};
use super::stream::Assemble;
use super::{
    Answer, Fault, Finish, Image, ImageLimits, Logprob, Message, Request, Role, Tool, ToolCall, ToolChoice,
    Usage,
};

/// Google's generateContent.
pub struct Gemini;

impl WireFormat for Gemini {
    fn name(&self) -> &'static str {
        "gemini"
    }

    fn path(&self, model: &str) -> String {
        format!("/models/{}:generateContent", model.trim_start_matches("models/"))
    }

    fn key_header(&self) -> (&'static str, &'static str) {
        ("x-goog-api-key", "")
    }

    fn structured(&self) -> &'static [Structured] {
        &[Structured::JsonSchema, Structured::JsonObject, Structured::Prompt]
    }

    fn body(&self, api: &Api, request: &Request) -> Map<String, Value> {
        let structured = api.structured(ApiFormat::Gemini);
        let told = told_messages(request, structured);
        let (system, spoken): (Vec<&Message>, Vec<&Message>) =
            told.iter().partition(|message| message.role == Role::System);
        let part = |message: &Message| json!({ "text": message.content });
        let turn = |message: &Message| json!({ "role": role(message.role), "parts": [part(message)] });
        let mut body = Map::new();
        body.insert("model".to_owned(), Value::from(api.model.as_str()));
        if !system.is_empty() {
            let parts: Vec<Value> = system.into_iter().map(part).collect();
            body.insert("systemInstruction".to_owned(), json!({ "parts": parts }));
        }
        let mut turns: Value = spoken.into_iter().map(turn).collect();
        illustrate(Some(&mut turns), "parts", &request.images, image, |text| json!({ "text": text }));
        body.insert("contents".to_owned(), turns);
        let config = generation_config(request, structured);
        if !config.is_empty() {
            body.insert("generationConfig".to_owned(), Value::Object(config));
        }
        if !request.tools.is_empty() {
            let declarations: Vec<Value> = request.tools.iter().map(tool).collect();
            body.insert("tools".to_owned(), json!([{ "functionDeclarations": declarations }]));
        }
        if let Some(choice) = &request.tool_choice {
            body.insert("toolConfig".to_owned(), json!({ "functionCallingConfig": calling(choice) }));
        }
        add_extra(&mut body, &request.extra);
        body
    }

    fn image_limits(&self) -> ImageLimits {
        // ai.google.dev/gemini-api/docs/image-understanding: 20 MB a request. Gemini 3 takes an image for at most
        // 2,240 tokens, earlier models for 258 a tile of 768 px: OpenAI's bound is 186 of those, 110 megapixels.
        ImageLimits { base64_max: 19_000_000, ..OPENAI_IMAGES }
    }

    fn answers_max(&self) -> u32 {
        // ai.google.dev/api/generate-content, `candidateCount`: models give at most 8.
        8
    }

    fn has_logprobs(&self) -> bool {
        true
    }

    fn stream_path(&self, model: &str) -> (String, Option<&'static str>) {
        (self.path(model).replace(":generateContent", ":streamGenerateContent"), Some("alt=sse"))
    }

    fn dresses(&self, _: &Api) -> bool {
        true
    }

    fn dress(&self, _: &Api, body: &mut Map<String, Value>) {
        body.shift_remove("model");
    }

    fn assembler(&self) -> Box<dyn Assemble> {
        Box::<Pieces>::default()
    }

    fn read(&self, api: &Api, body: &str) -> Result<Answer, Fault> {
        let envelope: Envelope = match serde_json::from_str(body) {
            Ok(envelope) => envelope,
            Err(error) => return misread(api, body, "a generateContent reply", &error),
        };
        let model = envelope.model.as_deref().unwrap_or(&api.model);
        let usage = counted(envelope.usage, WireUsage::read);
        if let Some(why) = envelope.feedback.and_then(|feedback| feedback.block_reason) {
            let refused = format!("the prompt was blocked: {why}");
            return Ok(Answer { usage, ..Answer::new(refused, Finish::Refusal, model) });
        }
        let Some(candidates) = envelope.candidates else { return partless(api, body, "candidates") };
        together(api, candidates.into_iter().map(|candidate| candidate.read(model)).collect(), usage)
    }

    fn messages(&self, body: &Value) -> Vec<Message> {
        let turns = body.get("contents").and_then(Value::as_array).into_iter().flatten();
        let spoken = turns.map(|turn| {
            let role = if texts_at(turn, "/role") == "model" { Role::Assistant } else { Role::User };
            Message { role, content: texts_of(turn) }
        });
        let system = body.get("systemInstruction").map(texts_of);
        let system = system.map(|content| Message { role: Role::System, content });
        system.into_iter().chain(spoken).collect()
    }

    fn reply(&self, answer: &Answer) -> Value {
        let candidates: Vec<Value> = answer.all().map(candidate).collect();
        json!({
            "candidates": candidates, "modelVersion": answer.model,
            "usageMetadata": { "promptTokenCount": 0, "candidatesTokenCount": 0 },
        })
    }
}

fn image(image: &Image) -> Value {
    match image {
        Image::Inline { media_type, base64 } => {
            json!({ "inlineData": { "mimeType": media_type, "data": base64 } })
        }
        Image::Url(url) => json!({ "fileData": { "fileUri": url } }),
    }
}

fn tool(tool: &Tool) -> Value {
    json!({
        "name": tool.name, "description": tool.description.as_deref().unwrap_or_default(),
        "parametersJsonSchema": tool.parameters,
    })
}

fn calling(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!({ "mode": "AUTO" }),
        ToolChoice::Required => json!({ "mode": "ANY" }),
        ToolChoice::None => json!({ "mode": "NONE" }),
        ToolChoice::Named(name) => json!({ "mode": "ANY", "allowedFunctionNames": [name] }),
    }
}

/// An answer as a candidate of a reply.
fn candidate(answer: &Answer) -> Value {
    let reason = match answer.finish {
        Finish::Stop => "STOP",
        Finish::Length => "MAX_TOKENS",
        Finish::Refusal => "SAFETY",
    };
    let call = |call: &ToolCall| {
        let args = serde_json::from_str(&call.arguments).unwrap_or_else(|_| Value::from(&*call.arguments));
        json!({ "functionCall": { "name": call.name, "args": args } })
    };
    let text = json!({ "text": answer.text });
    let parts: Vec<Value> = std::iter::once(text).chain(answer.calls.iter().map(call)).collect();
    json!({ "content": { "role": "model", "parts": parts }, "finishReason": reason })
}

/// The pieces of a streamed reply, each a reply of its own; the last one of a candidate has its finish reason.
#[derive(Default)]
struct Pieces {
    body: Map<String, Value>,
    /// By index.
    candidates: BTreeMap<u64, Value>,
}

impl Assemble for Pieces {
    fn event(&mut self, data: Value) {
        let Value::Object(piece) = data else { return };
        for (key, value) in piece {
            match value {
                Value::Array(pieces) if key == "candidates" => {
                    pieces.into_iter().for_each(|piece| self.candidate(piece));
                }
                value => {
                    self.body.insert(key, value);
                }
            }
        }
    }

    fn body(&mut self) -> Option<Value> {
        let ended = |candidate: &Value| !candidate["finishReason"].is_null();
        let is_whole = !self.candidates.is_empty() && self.candidates.values().all(ended);
        let no_candidate = ["error", "promptFeedback"].iter().any(|key| self.body.contains_key(*key));
        if !is_whole && !no_candidate {
            return None;
        }
        let mut body = std::mem::take(&mut self.body);
        if is_whole {
            let candidates = std::mem::take(&mut self.candidates).into_values().collect();
            body.insert("candidates".to_owned(), candidates);
        }
        Some(Value::Object(body))
    }
}

impl Pieces {
    /// Adds a piece of a candidate: lists grow, anything else is the newest.
    fn candidate(&mut self, mut piece: Value) {
        let whole = self
            .candidates
            .entry(piece["index"].as_u64().unwrap_or(0))
            .or_insert_with(|| json!({ "content": { "role": "model", "parts": [] } }));
        move_list(&mut piece, whole, &["content", "parts"]);
        for list in ["chosenCandidates", "topCandidates"] {
            move_list(&mut piece, whole, &["logprobsResult", list]);
        }
        if !piece["finishReason"].is_null() {
            whole["finishReason"] = piece["finishReason"].take();
        }
    }
}

/// Moves the items of a list in one object to the end of the same list in another.
fn move_list(from: &mut Value, to: &mut Value, path: &[&str; 2]) {
    let [outer, inner] = path;
    let Some(items) = from.get_mut(outer).and_then(|value| value.get_mut(inner)) else { return };
    let items = items.as_array_mut().map(std::mem::take).unwrap_or_default();
    match &mut to[outer][inner] {
        Value::Array(list) => list.extend(items),
        slot => *slot = Value::Array(items),
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Assistant => "model",
        Role::User | Role::System => "user",
    }
}

fn generation_config(request: &Request, structured: Structured) -> Map<String, Value> {
    let mut config = Map::new();
    if let Some(temperature) = request.temperature {
        config.insert("temperature".to_owned(), Value::from(temperature));
    }
    if let Some(max_tokens) = request.max_tokens {
        config.insert("maxOutputTokens".to_owned(), Value::from(max_tokens));
    }
    if !request.stop.is_empty() {
        config.insert("stopSequences".to_owned(), Value::from(request.stop.clone()));
    }
    if let Some(seed) = request.seed {
        config.insert("seed".to_owned(), Value::from(seed));
    }
    if let Some(answers) = request.answers {
        config.insert("candidateCount".to_owned(), Value::from(answers));
    }
    if let Some(top) = request.logprobs {
        config.insert("responseLogprobs".to_owned(), Value::from(true));
        if top > 0 {
            config.insert("logprobs".to_owned(), Value::from(top));
        }
    }
    if let (Some(schema), Structured::JsonSchema | Structured::JsonObject) = (&request.schema, structured) {
        config.insert("responseMimeType".to_owned(), Value::from("application/json"));
        if structured == Structured::JsonSchema {
            config.insert("responseJsonSchema".to_owned(), Value::clone(schema));
        }
    }
    config
}

fn texts_of(turn: &Value) -> String {
    content_shown(&turn["parts"])
}

/// A reply, as far as it is read.
#[derive(Deserialize)]
struct Envelope {
    candidates: Option<Vec<Candidate>>,
    #[serde(rename = "promptFeedback")]
    feedback: Option<Feedback>,
    #[serde(rename = "usageMetadata")]
    usage: Option<Box<RawValue>>,
    #[serde(rename = "modelVersion")]
    model: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
    logprobs_result: Option<Value>,
}

impl Candidate {
    fn read(self, model: &str) -> Result<Answer, Fault> {
        let parts = self.content.and_then(|content| content.parts).unwrap_or_default();
        let of = |thought: bool| -> String {
            let texts = parts.iter().filter(|part| part.thought == thought);
            texts.filter_map(|part| part.text.as_deref()).collect()
        };
        let (mut text, reasoning) = (of(false), of(true));
        let finish = match self.finish_reason.as_deref().unwrap_or("STOP") {
            "MAX_TOKENS" => Finish::Length,
            why @ ("SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE") => {
                if text.is_empty() {
                    text = format!("the answer was blocked: {why}");
                }
                Finish::Refusal
            }
            _ if !parts.is_empty() => Finish::Stop,
            _ => return Err(unreadable("empty_content", "the candidate has no text in `parts`")),
        };
        let call = |call: FunctionCall| ToolCall { name: call.name, arguments: arguments(call.args) };
        Ok(Answer {
            reasoning: Some(reasoning).filter(|text| !text.is_empty()),
            calls: parts.into_iter().filter_map(|part| part.function_call).map(call).collect(),
            logprobs: self.logprobs_result.and_then(logprobs),
            ..Answer::new(text, finish, model)
        })
    }
}

/// The chosen tokens with the likeliest in the place of each.
fn logprobs(result: Value) -> Option<Vec<Logprob>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct LogprobsResult {
        chosen_candidates: Vec<Token>,
        #[serde(default)]
        top_candidates: Vec<Top>,
    }
    #[derive(Deserialize)]
    struct Top {
        #[serde(default)]
        candidates: Vec<Token>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Token {
        #[serde(default)]
        token: String,
        #[serde(default)]
        log_probability: f64,
    }
    let read = |token: Token, top| Logprob { token: token.token, logprob: token.log_probability, top };
    let result: LogprobsResult = serde_json::from_value(result).ok()?;
    let mut tops = result.top_candidates.into_iter();
    let tokens = result.chosen_candidates.into_iter().map(|token| {
        let top = tops.next().into_iter().flat_map(|top| top.candidates);
        read(token, top.map(|token| read(token, Vec::new())).collect())
    });
    Some(tokens.collect())
}

#[derive(Deserialize)]
struct Content {
    parts: Option<Vec<Part>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    text: Option<String>,
    #[serde(default)]
    thought: bool,
    function_call: Option<FunctionCall>,
}

#[derive(Deserialize)]
struct FunctionCall {
    name: String,
    args: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

/// What a model thought is not part of `candidatesTokenCount`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    prompt_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
}

impl WireUsage {
    /// The token counts; `None` when they are not what they should be.
    fn read(self) -> Option<Usage> {
        let (input, reasoning) = (self.prompt_token_count?, self.thoughts_token_count.unwrap_or(0));
        Some(Usage {
            input,
            output: self.candidates_token_count.unwrap_or(0).saturating_add(reasoning),
            cached_input: self.cached_content_token_count.unwrap_or(0).min(input),
            reasoning,
            ..Usage::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let message = |role, content: &str| Message { role, content: content.to_owned() };
        Request {
            messages: vec![
                message(Role::System, "s"),
                message(Role::User, "u"),
                message(Role::Assistant, "a"),
            ],
            temperature: Some(0.5),
            max_tokens: Some(9),
            schema: Some(json!({ "type": "integer" }).into()),
            extra: Map::from_iter([("generationConfig".to_owned(), json!({ "topK": 4 }))]),
            ..Request::default()
        }
    }

    #[test]
    fn bodies_have_a_fixed_order_and_travel_without_the_model() {
        let api = Api::named("m");
        let mut body = Gemini.body(&api, &request());
        assert_eq!(Gemini.messages(&Value::Object(body.clone())), request().messages);
        assert_eq!(body["model"], "m");
        Gemini.dress(&api, &mut body);
        assert_eq!(
            Value::Object(body).to_string(),
            r#"{"systemInstruction":{"parts":[{"text":"s"}]},"contents":[{"role":"user","parts":[{"text":"u"}]},{"role":"model","parts":[{"text":"a"}]}],"generationConfig":{"temperature":0.5,"maxOutputTokens":9,"responseMimeType":"application/json","responseJsonSchema":{"type":"integer"},"topK":4}}"#
        );
    }

    #[test]
    fn answers_are_read() {
        let read = |body: &Value| Gemini.read(&Api::named("m"), &body.to_string());
        let answer = read(&json!({
            "candidates": [{
                "content": { "parts": [{ "text": "hm", "thought": true }, { "text": "a" }, { "text": "b" }] },
                "finishReason": "STOP",
            }],
            "usageMetadata": {
                "promptTokenCount": 7, "cachedContentTokenCount": 4, "candidatesTokenCount": 2, "thoughtsTokenCount": 3,
            },
        }));
        let answer = answer.unwrap();
        assert_eq!((answer.text.as_str(), answer.reasoning.as_deref()), ("ab", Some("hm")));
        let usage = Usage { input: 7, output: 5, cached_input: 4, reasoning: 3, ..Usage::default() };
        assert_eq!(answer.usage, Some(usage));
        let blocked = json!({ "promptFeedback": { "blockReason": "SAFETY" } });
        assert_eq!(read(&blocked).unwrap().finish, Finish::Refusal);
        let stopped = json!({ "candidates": [{ "finishReason": "RECITATION" }] });
        assert_eq!(read(&stopped).unwrap().finish, Finish::Refusal);
        let code = |body: &Value| match read(body) {
            Err(Fault::Transient { code, .. }) => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(&json!({ "candidates": [] })), "empty_choices");
        assert_eq!(code(&json!({ "candidates": [{ "finishReason": "STOP" }] })), "empty_content");
        assert_eq!(code(&json!({})), "invalid_reply");
    }
}
