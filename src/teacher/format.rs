//! The wire formats: how a request is written and an answer read, in a closed list.
//!
//! One file each; what they share in reading replies is here. Pure: nothing here opens a connection, and none
//! of them decides about retries, limits or money.

use std::borrow::Cow;

use reqwest::header::HeaderMap;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::anthropic::Anthropic;
use super::api::Api;
use super::cache::CachePoint;
use super::embeddings::Embeddings;
use super::fault::{self, Meaning};
use super::gemini::Gemini;
use super::headers::limit_notes;
use super::http::RawReply;
use super::image;
use super::openai::OpenAi;
use super::responses::Responses;
use super::stream::Assemble;
use super::{Answer, Fault, Finish, ImageLimits, Logprob, Message, Reply, Request, Usage};
use crate::problem::{KeyPath, Place, Problem};

/// Which API a server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename = "api_format", rename_all = "snake_case")]
pub enum ApiFormat {
    /// OpenAI's chat completions, which most servers speak.
    #[default]
    Openai,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Anthropic,
    /// Google's generateContent.
    Gemini,
    /// OpenAI's embeddings, which most servers of embeddings speak.
    Embeddings,
}

impl ApiFormat {
    pub const ALL: [ApiFormat; 5] = [
        ApiFormat::Openai,
        ApiFormat::Responses,
        ApiFormat::Anthropic,
        ApiFormat::Gemini,
        ApiFormat::Embeddings,
    ];

    pub fn wire(self) -> &'static dyn WireFormat {
        match self {
            ApiFormat::Openai => &OpenAi,
            ApiFormat::Responses => &Responses,
            ApiFormat::Anthropic => &Anthropic,
            ApiFormat::Gemini => &Gemini,
            ApiFormat::Embeddings => &Embeddings,
        }
    }

    /// The format of a stored call, by the name in its origin.
    pub fn named(name: &str) -> Option<ApiFormat> {
        ApiFormat::ALL.into_iter().find(|format| format.wire().name() == name)
    }
}

/// How a model is told the shape of a JSON answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename = "structured", rename_all = "snake_case")]
pub enum Structured {
    /// The server is told the schema and holds the model to it.
    JsonSchema,
    /// The model answers by calling a tool whose arguments have the schema.
    Tool,
    /// The server holds the model to some JSON; the schema is told in the prompt.
    JsonObject,
    /// The schema is told in the prompt, nothing more.
    Prompt,
}

impl Structured {
    /// The means in words: the server's part, then ours.
    pub fn words(self) -> &'static str {
        match self {
            Structured::JsonSchema => "a schema that the server holds the model to",
            Structured::Tool => "the arguments of a tool",
            Structured::JsonObject => "the server's JSON mode, and the schema in the prompt",
            Structured::Prompt => "the schema in the prompt",
        }
    }
}

/// What a wire format can do. Bodies are canonical: the same request gives the same bytes, and what only
/// changes how a reply travels is added by [`WireFormat::dress`].
pub trait WireFormat: Sync {
    /// The key of the pipeline file, and the name in call keys.
    fn name(&self) -> &'static str;

    /// What follows the `url` of the file.
    fn path(&self, model: &str) -> String;

    /// The header that the key travels in, and what stands before it there.
    fn key_header(&self) -> (&'static str, &'static str);

    /// Headers that every request has.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The ways in which models of this API can be held to a schema, the strongest first.
    fn structured(&self) -> &'static [Structured];

    fn body(&self, api: &Api, request: &Request) -> Map<String, Value>;

    /// What follows the `url` for a streamed reply, and the query that asks for one.
    fn stream_path(&self, model: &str) -> (String, Option<&'static str>) {
        (self.path(model), None)
    }

    /// Whether the body that is sent is another than the canonical one.
    fn dresses(&self, api: &Api) -> bool {
        api.stream
    }

    /// Makes a canonical body the one that is sent: asks for a stream where the teacher wants one.
    fn dress(&self, api: &Api, body: &mut Map<String, Value>);

    /// Whether the provider's cache wants to be told what to keep.
    fn marks_cache(&self) -> bool {
        false
    }

    /// Marks a body for the provider's cache.
    fn mark_cache(&self, _body: &mut Map<String, Value>, _point: CachePoint) {}

    /// Puts a streamed reply together.
    fn assembler(&self) -> Box<dyn Assemble>;

    /// Reads the body of a reply with a good status; the same body always reads the same.
    ///
    /// # Errors
    /// The error that a body tells of, or what keeps it from being an answer.
    fn read(&self, api: &Api, body: &str) -> Result<Answer, Fault>;

    /// What was asked in a body, for people.
    fn messages(&self, body: &Value) -> Vec<Message>;

    /// A reply as a server would send it.
    fn reply(&self, answer: &Answer) -> Value;

    /// Whether its models write; the others give vectors.
    fn writes(&self) -> bool {
        true
    }

    /// What the API takes as images in a request.
    fn image_limits(&self) -> ImageLimits;

    /// Most answers that one request may ask for.
    fn answers_max(&self) -> u32 {
        1
    }

    /// Whether tokens come with their log probabilities, if they are asked for.
    fn has_logprobs(&self) -> bool {
        false
    }
}

/// Keys of a request body that steps or textmill itself set in one format or another, with what to use
/// instead. Budgets, draws and the reading of replies rest on them; the list is one for all formats, so that a
/// step can change its teacher.
const RESERVED: [(&str, &str); 24] = [
    ("model", "say `model` in the teacher; one model is one teacher"),
    ("messages", MADE),
    ("input", MADE),
    ("instructions", MADE),
    ("contents", MADE),
    ("system", MADE),
    ("systemInstruction", MADE),
    ("system_instruction", MADE),
    ("temperature", "the step has a key `temperature`"),
    ("max_tokens", MAX_TOKENS),
    ("max_completion_tokens", MAX_TOKENS),
    ("max_output_tokens", MAX_TOKENS),
    ("stop", "the step has a key `stop`"),
    ("stop_sequences", "the step has a key `stop`"),
    ("seed", "the step has a key `seed`"),
    ("response_format", SHAPE),
    ("output_format", SHAPE),
    ("text", SHAPE),
    ("stream", "say `stream` in the teacher"),
    ("stream_options", "say `stream` in the teacher"),
    ("n", "the step has the keys `samples` and `samples_per_call`"),
    ("tool_choice", "the step has a key `tool_choice`"),
    ("logprobs", LOGPROBS),
    ("top_logprobs", LOGPROBS),
];
const LOGPROBS: &str = "the step has the keys `logprobs_into` and `top_logprobs`";
const MADE: &str = "they are made from `prompt`";
const MAX_TOKENS: &str =
    "the step has a key `max_tokens`; a teacher's `max_tokens_key` gives it another name";
const SHAPE: &str = "use `json`, and the teacher's `structured`";

fn is_reserved(key: &str) -> bool {
    RESERVED.iter().any(|(reserved, _)| *reserved == key)
}

/// Everything wrong with a step's `extra` keys of the request body, at paths below `extra`. Pure.
pub fn extra_problems(extra: &Map<String, Value>) -> Vec<Problem> {
    let problem = |(name, instead): &(&str, &str)| {
        let place = Place::Key(KeyPath::root().join(*name));
        Problem::error(place, format!("`{name}` cannot be set here")).hint(*instead)
    };
    RESERVED.iter().filter(|(name, _)| extra.contains_key(*name)).map(problem).collect()
}

/// Adds a step's `extra` keys to a body, last and in the user's order. Keys inside an object that is there
/// already are added to it, as Gemini's `generationConfig` needs.
pub(super) fn add_extra(body: &mut Map<String, Value>, extra: &Map<String, Value>) {
    for (name, value) in extra.iter().filter(|(name, _)| !is_reserved(name)) {
        match (body.get_mut(name), value) {
            (Some(Value::Object(there)), Value::Object(more)) => {
                for (key, value) in more {
                    there.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
            (Some(_), _) => {}
            (None, _) => {
                body.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The words that tell a model the schema of its answer.
pub(super) fn told(schema: &Value) -> String {
    format!("Answer with one JSON value that fits this JSON Schema, and with nothing else:\n{schema}")
}

/// The texts of a request's messages, with the schema told at the end of the last one of the user where the
/// server is not told it.
pub(super) fn told_messages(request: &Request, structured: Structured) -> Cow<'_, [Message]> {
    let by_server = matches!(structured, Structured::JsonSchema | Structured::Tool);
    let Some(schema) = request.schema.as_ref().filter(|_| !by_server) else {
        return Cow::Borrowed(&request.messages);
    };
    let mut messages = request.messages.clone();
    match messages.iter_mut().rev().find(|message| message.role == super::Role::User) {
        Some(message) => {
            message.content.push_str("\n\n");
            message.content.push_str(&told(schema));
        }
        None => messages.push(Message { role: super::Role::User, content: told(schema) }),
    }
    Cow::Owned(messages)
}

/// A fault of a reply that came and is no answer; it may have been paid for.
pub(super) fn unreadable(code: &'static str, message: impl Into<String>) -> Fault {
    Fault::Transient { code, message: message.into(), billed: true }
}

/// What a body is that could not be read as `what`: an error, a web page, or broken.
pub(super) fn misread(api: &Api, body: &str, what: &str, error: &serde_json::Error) -> Result<Answer, Fault> {
    if fault::is_error(body) {
        return told_error(api, body);
    }
    let message = match body.trim_start().starts_with('<') {
        true => format!("the reply is a web page, not {what}; is the teacher's `url` right?"),
        false => format!("the reply is not {what}: {error}"),
    };
    Err(unreadable("invalid_reply", message))
}

/// What a body is that has no `part`, which every answer has: an error, or nothing known.
pub(super) fn partless(api: &Api, body: &str, part: &str) -> Result<Answer, Fault> {
    if fault::is_error(body) {
        return told_error(api, body);
    }
    Err(unreadable("invalid_reply", format!("the reply has neither `{part}` nor `error`")))
}

/// The error that a body with a good status tells of.
pub(super) fn told_error(api: &Api, body: &str) -> Result<Answer, Fault> {
    classify(api, 200, &HeaderMap::new(), body, 0)
}

/// The token counts of a reply. Read apart, so that an odd count does not cost the answer.
pub(super) fn counted<W: DeserializeOwned>(
    usage: Option<Box<RawValue>>,
    read: impl FnOnce(W) -> Option<Usage>,
) -> Option<Usage> {
    read(serde_json::from_str(usage?.get()).ok()?)
}

/// The answers of one reply as one, with the others behind it. Where none is an answer, the reply is what the
/// first one is; beside good ones, one that is none is an empty answer, so that only it is lost.
pub(super) fn together(
    api: &Api,
    answers: Vec<Result<Answer, Fault>>,
    usage: Option<Usage>,
) -> Result<Answer, Fault> {
    let none_is_good = answers.iter().all(Result::is_err);
    let mut answers = answers.into_iter().map(|answer| match answer {
        Err(_) if !none_is_good => Ok(Answer::new(String::new(), Finish::Stop, &api.model)),
        answer => answer,
    });
    let first = answers.next().unwrap_or_else(|| {
        Err(unreadable("empty_choices", "the reply has no answer in its list of answers"))
    })?;
    Ok(Answer { usage, others: answers.collect::<Result<_, _>>()?, ..first })
}

/// Tokens with their log probabilities, as both of OpenAI's APIs give them.
pub(super) fn logprobs(tokens: Option<Value>) -> Option<Vec<Logprob>> {
    #[derive(serde::Deserialize)]
    struct WireLogprob {
        token: String,
        logprob: f64,
        top_logprobs: Option<Vec<WireLogprob>>,
    }
    fn read(wire: WireLogprob) -> Logprob {
        let top = wire.top_logprobs.into_iter().flatten().map(read).collect();
        Logprob { token: wire.token, logprob: wire.logprob, top }
    }
    let tokens: Vec<WireLogprob> = serde_json::from_value(tokens?).ok()?;
    Some(tokens.into_iter().map(read).collect())
}

/// The arguments of a tool as their text, whether a server gives a text or a value.
pub(super) fn arguments(value: Option<Value>) -> String {
    match value {
        Some(Value::String(text)) => text,
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

/// What an error means, wherever it stands. A prompt that a filter declined is an answer.
pub(super) fn classify(
    api: &Api,
    status: u16,
    headers: &HeaderMap,
    body: &str,
    now_unix_ms: i64,
) -> Result<Answer, Fault> {
    match fault::meaning(status, headers, body, now_unix_ms) {
        Meaning::Fault(fault) => Err(fault),
        Meaning::Refused(text) => Ok(Answer::new(text, Finish::Refusal, &api.model)),
    }
}

/// The answer that a body with its status holds, as it comes or from the store.
///
/// # Errors
/// The fault, for everything that is no answer.
pub fn answer(
    format: ApiFormat,
    api: &Api,
    status: u16,
    headers: &HeaderMap,
    body: &str,
    now_unix_ms: i64,
) -> Result<Answer, Fault> {
    match status {
        200..300 => format.wire().read(api, body),
        status => classify(api, status, headers, body, now_unix_ms),
    }
}

/// Makes a reply of what came.
///
/// # Errors
/// See [`answer`].
pub fn reply(format: ApiFormat, api: &Api, raw: RawReply, now_unix_ms: i64) -> Result<Reply, Fault> {
    let answer = answer(format, api, raw.status, &raw.headers, &raw.body, now_unix_ms)?;
    let notes = limit_notes(&raw.headers, now_unix_ms);
    Ok(Reply { status: raw.status, body: raw.body, answer, notes })
}

/// Whether a schema is in the subset that OpenAI's `strict` accepts: every object closed and every
/// property required (platform.openai.com/docs/guides/structured-outputs). Others are sent without
/// `strict`, which OpenAI takes as a wish and local servers enforce all the same.
pub(super) fn fits_strict(schema: &Value) -> bool {
    let Some(map) = schema.as_object() else { return !schema.is_boolean() };
    let properties = map.get("properties").and_then(Value::as_object);
    if map.get("type").is_some_and(|kind| kind == "object") || properties.is_some() {
        let required: Vec<&str> = map
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let all_required = properties
            .is_some_and(|properties| properties.keys().all(|name| required.contains(&name.as_str())));
        if map.get("additionalProperties") != Some(&Value::Bool(false)) || !all_required {
            return false;
        }
    }
    let under = |name: &str| map.get(name).and_then(Value::as_object).into_iter().flat_map(Map::values);
    let listed = map.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    under("properties").chain(under("$defs")).chain(listed).chain(map.get("items")).all(fits_strict)
}

/// What OpenAI's APIs take: 50 MB a request (platform.openai.com/docs/guides/images-vision). The dearest of its
/// models for an image is gpt-4o-mini: 2,833 tokens and 5,667 for each of at most 8 tiles of 512 px, since images
/// are scaled to 2,048 and 768 px.
pub(super) const OPENAI_IMAGES: ImageLimits =
    ImageLimits { base64_max: 50_000_000, tokens_max: 2_833 + 8 * 5_667 };

/// The name of the tool by whose arguments a model answers, under [`Structured::Tool`].
pub const ANSWER_TOOL: &str = "answer";

/// What the answer's tool is for, in the model's words.
pub(super) const ANSWER_TOOL_ABOUT: &str = "Gives the answer.";

/// The messages of a request's list of them, for people.
pub(super) fn messages_in(list: &Value) -> Vec<Message> {
    let message = |item: &Value| {
        let role = serde_json::from_value(item["role"].clone()).ok()?;
        Some(Message { role, content: image::content_shown(&item["content"]) })
    };
    list.as_array().into_iter().flatten().filter_map(message).collect()
}

/// The values of a list of objects under a key, for readers of bodies.
pub(super) fn texts_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::teacher::{Image, Role, ToolCall};

    #[test]
    fn formats_that_give_several_answers_read_each_on_its_own() {
        let several = |format: &ApiFormat| format.wire().answers_max() > 1;
        for format in ApiFormat::ALL.into_iter().filter(several) {
            let (wire, api) = (format.wire(), Api::named("m"));
            let other = |text: &str, finish| Answer::new(text.to_owned(), finish, "m");
            let others =
                vec![other("b", Finish::Length), other("c", Finish::Refusal), other("d", Finish::Stop)];
            let said = Answer { others, ..other("a", Finish::Stop) };
            let read = wire.read(&api, &wire.reply(&said).to_string()).unwrap();
            assert_eq!((read.others, read.text), (said.others, said.text), "{}", wire.name());
        }
    }

    #[test]
    fn an_answer_that_is_none_costs_only_itself() {
        let (api, broken) = (Api::named("m"), || Err(unreadable("empty_content", "m")));
        let good = Answer::new("a".to_owned(), Finish::Stop, "m");
        let read = together(&api, vec![broken(), Ok(good.clone())], None).unwrap();
        assert_eq!((read.text.as_str(), read.others), ("", vec![good]));
        for answers in [vec![broken(), broken()], Vec::new()] {
            assert!(matches!(together(&api, answers, None), Err(Fault::Transient { .. })));
        }
    }

    #[test]
    fn every_format_reads_what_it_writes() {
        for format in ApiFormat::ALL.into_iter().filter(|format| format.wire().writes()) {
            let (wire, api) = (format.wire(), Api::named("m"));
            assert_eq!(ApiFormat::named(wire.name()), Some(format));
            for finish in [Finish::Stop, Finish::Length, Finish::Refusal] {
                let said = Answer::new("a \"b\"\n".to_owned(), finish, "m-2");
                let body = wire.reply(&said).to_string();
                let usage = Some(Usage::default());
                assert_eq!(wire.read(&api, &body), Ok(Answer { usage, ..said }), "{body}");
            }
            let call = ToolCall { name: "f".to_owned(), arguments: r#"{"a":1}"#.to_owned() };
            let calls = vec![call.clone(), ToolCall { name: "g".to_owned(), ..call }];
            let said = Answer { calls, ..Answer::new(String::new(), Finish::Stop, "m") };
            let read = wire.read(&api, &wire.reply(&said).to_string()).unwrap();
            assert_eq!((read.calls, read.text), (said.calls, said.text), "{}", wire.name());
            assert!(matches!(wire.read(&api, "<html>"), Err(Fault::Transient { code: "invalid_reply", .. })));
            // A stream of nothing is a cut reply.
            assert_eq!(wire.assembler().body(), None);
            let image = Image::Inline { media_type: "image/gif", base64: "R0lGODlh".to_owned() };
            let message = |role, content: &str| Message { role, content: content.to_owned() };
            let request = Request {
                messages: vec![
                    message(Role::System, "s"),
                    message(Role::User, "u"),
                    message(Role::User, "v"),
                ],
                images: vec![image, Image::Url("https://a.org/x".to_owned())],
                ..Request::default()
            };
            let shown = wire.messages(&Value::Object(wire.body(&api, &request)));
            let spoken = "[image/gif, 6 bytes]\n[image at https://a.org/x]\nu";
            let expected =
                [message(Role::System, "s"), message(Role::User, spoken), message(Role::User, "v")];
            assert_eq!(shown, expected, "{}", wire.name());
            let busy = r#"{"error":{"code":429,"message":"m"}}"#;
            assert!(matches!(wire.read(&api, busy), Err(Fault::Busy { .. })), "{}", wire.name());
        }
    }

    #[test]
    fn strict_is_asked_only_where_openai_takes_it() {
        let object = |more: Value| json!({ "type": "object", "properties": { "a": more }, "required": ["a"], "additionalProperties": false });
        assert!(fits_strict(&object(json!({ "type": "array", "items": object(json!({})) }))));
        assert!(!fits_strict(&object(json!({ "type": "object" }))));
        assert!(!fits_strict(
            &json!({ "type": "object", "properties": { "a": {} }, "additionalProperties": false })
        ));
    }

    #[test]
    fn what_steps_set_is_not_set_by_hand() {
        let extra = json!({ "model": "other", "top_p": 1, "generationConfig": { "topK": 2, "seed": 3 } });
        let Value::Object(extra) = extra else { unreachable!() };
        let problems = extra_problems(&extra);
        assert_eq!(
            problems.iter().map(|found| found.message.as_str()).collect::<Vec<_>>(),
            ["`model` cannot be set here"]
        );
        let Value::Object(mut body) = json!({ "generationConfig": { "seed": 1 } }) else { unreachable!() };
        add_extra(&mut body, &extra);
        assert_eq!(Value::Object(body), json!({ "generationConfig": { "seed": 1, "topK": 2 }, "top_p": 1 }));
    }
}
