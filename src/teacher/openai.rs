//! The wire format of OpenAI's chat completions, which most servers speak.
//!
//! Request bodies, reply bodies and the settings of such a teacher. Knows nothing of sockets
//! (`http.rs`) and nothing of retries; what errors mean is in `fault.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;
use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::fault::{self, Meaning};
use super::headers::limit_notes;
use super::http::{Endpoint, HttpClient, RawReply};
use super::secret::Secrets;
use super::setting::{Setting, duration};
use super::{Answer, Fault, Finish, Reply, Request, Role, Usage};
use crate::problem::{KeyPath, Place, Problem};

/// Keys of a request body that steps or textmill itself set, with what to use instead. Budgets,
/// draws and the reading of replies rest on them.
const RESERVED: [(&str, &str); 11] = [
    ("model", "say `model` in the teacher; one model is one teacher"),
    ("messages", "they are made from `prompt`"),
    ("temperature", "the step has a key `temperature`"),
    ("max_tokens", "the step has a key `max_tokens`"),
    (
        "max_completion_tokens",
        "the step has a key `max_tokens`; the teacher's `max_tokens_key` gives it this name",
    ),
    ("stop", "the step has a key `stop`"),
    ("seed", "the step has a key `seed`"),
    ("response_format", "use `json`, and the teacher's `structured`"),
    ("stream", "replies are read whole"),
    ("stream_options", "replies are read whole"),
    ("n", "only one answer is read from a reply; use `samples`"),
];

/// Headers that change who pays or who is shown, not what is answered.
const ANSWER_NEUTRAL: [&str; 6] =
    ["openai-organization", "openai-project", "user-agent", "http-referer", "x-title", "x-client-request-id"];

/// A model behind an endpoint that speaks OpenAI's chat completions.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(rename = "openai", deny_unknown_fields)]
pub struct OpenAi {
    /// The address of the server up to and with its version, such as `https://api.openai.com/v1`;
    /// `/chat/completions` is added if it is missing.
    pub url: String,
    /// The model's name, as the server knows it.
    pub model: String,
    /// The name of the environment variable that holds the key. It is sent as a bearer token, only
    /// to this URL and only over https or to this machine.
    #[serde(default)]
    pub key_env: Option<String>,
    /// More headers: name to text, or to `{ env: NAME }` for a value that is secret.
    #[serde(default)]
    pub headers: BTreeMap<String, Setting>,
    /// The time that a call may take, from the connection to the last byte of the reply.
    #[serde(default = "timeout_default", deserialize_with = "duration")]
    #[schemars(with = "String", default = "timeout_text")]
    pub timeout: Duration,
    /// The time that opening a connection may take.
    #[serde(default = "connect_timeout_default", deserialize_with = "duration")]
    #[schemars(with = "String", default = "connect_timeout_text")]
    pub connect_timeout: Duration,
    /// The URL of an HTTP proxy. Without it the variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY count,
    /// except for this machine.
    #[serde(default)]
    pub proxy: Option<String>,
    /// A PEM file of certificate authorities to trust beside the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// What the server calls the bound of an answer's tokens. OpenAI's reasoning models want
    /// `max_completion_tokens`.
    #[serde(default)]
    pub max_tokens_key: MaxTokensKey,
    /// How the model is told the shape of a JSON answer.
    #[serde(default)]
    pub structured: Structured,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaxTokensKey {
    #[default]
    MaxTokens,
    MaxCompletionTokens,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Structured {
    /// The schema goes into `response_format`, and the server holds the model to it.
    #[default]
    JsonSchema,
    /// The server holds the model to some JSON; the schema is told in the prompt.
    JsonObject,
    /// The schema is told in the prompt, nothing more.
    Prompt,
}

/// The total that OpenAI's own client libraries use (openai-python `DEFAULT_TIMEOUT`: 600 s).
fn timeout_default() -> Duration {
    Duration::from_secs(600)
}

fn timeout_text() -> String {
    "10m".to_owned()
}

/// Twice theirs (5 s): hundreds of connections may be opened at once.
fn connect_timeout_default() -> Duration {
    Duration::from_secs(10)
}

fn connect_timeout_text() -> String {
    "10s".to_owned()
}

impl OpenAi {
    /// Settings for traffic that never leaves this process: a cassette's, a test's.
    pub fn named(model: &str) -> OpenAi {
        OpenAi {
            url: "local:".to_owned(),
            model: model.to_owned(),
            key_env: None,
            headers: BTreeMap::new(),
            timeout: timeout_default(),
            connect_timeout: connect_timeout_default(),
            proxy: None,
            ca_file: None,
            max_tokens_key: MaxTokensKey::default(),
            structured: Structured::default(),
        }
    }

    /// The full URL of the endpoint; the text as it is when that is no URL.
    pub fn endpoint_url(&self) -> String {
        let Ok(mut url) = Url::parse(&self.url) else { return self.url.clone() };
        let path = url.path().trim_end_matches('/');
        let path = match path.ends_with("/chat/completions") {
            true => path.to_owned(),
            false => format!("{path}/chat/completions"),
        };
        url.set_path(&path);
        url.set_fragment(None);
        url.to_string()
    }

    fn endpoint<'a>(&'a self, url: &'a str, ca_file: Option<&'a Path>) -> Endpoint<'a> {
        Endpoint {
            url,
            key_env: self.key_env.as_deref(),
            headers: &self.headers,
            timeout: self.timeout,
            connect_timeout: self.connect_timeout,
            proxy: self.proxy.as_deref(),
            ca_file,
        }
    }

    /// The teacher's identity in call keys: the endpoint's URL with scheme and host in lower case
    /// and without a default port. The query stays, since Azure's `api-version` changes answers.
    pub fn identity(&self) -> String {
        self.endpoint_url()
    }

    /// The headers that call keys take in: those written in the file, in lower case and sorted,
    /// without those that cannot change an answer and without secrets.
    pub fn answer_headers(&self) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            let name = name.to_ascii_lowercase();
            if let (Setting::Text(text), false) = (value, ANSWER_NEUTRAL.contains(&name.as_str())) {
                headers.push((name, text.clone()));
            }
        }
        headers.sort();
        headers
    }

    /// The environment variables that are read, each to be sent to [`OpenAi::host`] only.
    pub fn env_names(&self) -> Vec<&str> {
        let headers = self.headers.values().filter_map(Setting::env_name);
        self.key_env.as_deref().into_iter().chain(headers).collect()
    }

    /// The host that requests go to.
    pub fn host(&self) -> String {
        Url::parse(&self.url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Everything wrong with the settings, at paths below this wire format's key. Pure.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.endpoint(&self.endpoint_url(), None).problems();
        let at = |key: &str| Place::Value(KeyPath::root().join(key));
        if self.model.trim().is_empty() {
            problems.push(Problem::error(at("model"), "`model` is empty"));
        }
        if Url::parse(&self.url).is_ok_and(|url| url.path() == "/" && url.scheme().starts_with("http")) {
            problems.push(
                Problem::warning(at("url"), "`url` has no path").hint("most servers want `/v1` at its end"),
            );
        }
        problems
    }

    /// Everything wrong with a step's `extra` keys of the request body, at paths below `extra`. Pure.
    pub fn extra_problems(extra: &Map<String, Value>) -> Vec<Problem> {
        let problem = |(name, instead): &(&str, &str)| {
            let place = Place::Key(KeyPath::root().join(*name));
            Problem::error(place, format!("`{name}` cannot be set here")).hint(*instead)
        };
        RESERVED.iter().filter(|(name, _)| extra.contains_key(*name)).map(problem).collect()
    }

    /// The request body. Keys stand in a fixed order, `extra` last in the user's; keys of `extra`
    /// that [`OpenAi::extra_problems`] names are left out.
    pub fn body(&self, request: &Request) -> Value {
        let mut body = Map::new();
        body.insert("model".to_owned(), Value::from(self.model.as_str()));
        body.insert("messages".to_owned(), self.messages(request));
        if let Some(temperature) = request.temperature {
            body.insert("temperature".to_owned(), Value::from(temperature));
        }
        if let Some(max_tokens) = request.max_tokens {
            let key = match self.max_tokens_key {
                MaxTokensKey::MaxTokens => "max_tokens",
                MaxTokensKey::MaxCompletionTokens => "max_completion_tokens",
            };
            body.insert(key.to_owned(), Value::from(max_tokens));
        }
        if !request.stop.is_empty() {
            body.insert("stop".to_owned(), Value::from(request.stop.clone()));
        }
        if let Some(seed) = request.seed {
            body.insert("seed".to_owned(), Value::from(seed));
        }
        match (&request.schema, self.structured) {
            (Some(schema), Structured::JsonSchema) => {
                let format = json!({ "name": "answer", "schema": schema, "strict": fits_strict(schema) });
                body.insert(
                    "response_format".to_owned(),
                    json!({ "type": "json_schema", "json_schema": format }),
                );
            }
            (Some(_), Structured::JsonObject) => {
                body.insert("response_format".to_owned(), json!({ "type": "json_object" }));
            }
            _ => {}
        }
        for (name, value) in &request.extra {
            if !RESERVED.iter().any(|(reserved, _)| reserved == name) {
                body.insert(name.clone(), value.clone());
            }
        }
        Value::Object(body)
    }

    /// The messages, with the schema told in the last user message if the server is not told it.
    fn messages(&self, request: &Request) -> Value {
        let told = request.schema.as_ref().filter(|_| self.structured != Structured::JsonSchema);
        let told = told.map(|schema| {
            format!("Answer with one JSON value that fits this JSON Schema, and with nothing else:\n{schema}")
        });
        let told_at = request.messages.iter().rposition(|message| message.role == Role::User);
        let mut messages: Vec<Value> = Vec::with_capacity(request.messages.len() + 1);
        for (index, message) in request.messages.iter().enumerate() {
            let content = match &told {
                Some(told) if told_at == Some(index) => Value::from(format!("{}\n\n{told}", message.content)),
                _ => Value::from(message.content.as_str()),
            };
            messages.push(json!({ "role": message.role, "content": content }));
        }
        if let (Some(told), None) = (told, told_at) {
            messages.push(json!({ "role": Role::User, "content": told }));
        }
        Value::Array(messages)
    }

    /// Reads the body of a reply with a good status. The same body always reads the same.
    ///
    /// # Errors
    /// The error that a body tells of; `invalid_reply`, `empty_choices` or `empty_content` when
    /// there is no answer in it.
    pub fn read(&self, body: &str) -> Result<Answer, Fault> {
        let unreadable = |code, message| Fault::Transient { code, message, billed: true };
        let envelope: Envelope<'_> = match serde_json::from_str(body) {
            Ok(envelope) => envelope,
            Err(_) if fault::is_error(body) => return self.classify(200, &HeaderMap::new(), body, 0),
            Err(error) => {
                let message = match body.trim_start().starts_with('<') {
                    true => "the reply is a web page, not a chat completion; is the teacher's `url` right?"
                        .to_owned(),
                    false => format!("the reply is not a chat completion: {error}"),
                };
                return Err(unreadable("invalid_reply", message));
            }
        };
        let Some(choices) = envelope.choices else {
            if fault::is_error(body) {
                return self.classify(200, &HeaderMap::new(), body, 0);
            }
            return Err(unreadable(
                "invalid_reply",
                "the reply has neither `choices` nor `error`".to_owned(),
            ));
        };
        let choice = choices.into_iter().next();
        if envelope.error.is_some() || choice.as_ref().is_some_and(|choice| choice.error.is_some()) {
            return self.classify(200, &HeaderMap::new(), body, 0);
        }
        let Some(choice) = choice else {
            return Err(unreadable("empty_choices", "the reply has no choice in `choices`".to_owned()));
        };
        let message = choice.message.unwrap_or_default();
        let said = message.content.map(|content| content.0);
        let refusal = message.refusal.filter(|refusal| !refusal.is_empty());
        let finish = match choice.finish_reason.as_deref() {
            _ if refusal.is_some() => Finish::Refusal,
            Some("content_filter" | "refusal" | "safety") => Finish::Refusal,
            Some("length" | "max_tokens") => Finish::Length,
            Some("error") => {
                return Err(unreadable("error_in_reply", "the server broke the answer off".to_owned()));
            }
            _ if said.is_some() => Finish::Stop,
            _ => return Err(unreadable("empty_content", "the answer has no `content`".to_owned())),
        };
        Ok(Answer {
            text: said.filter(|said| !said.is_empty()).or(refusal).unwrap_or_default(),
            finish,
            usage: envelope.usage.and_then(|usage| read_usage(usage.get())),
            model: envelope.model.map_or_else(|| self.model.clone(), Cow::into_owned),
        })
    }

    /// What a reply with a bad status means. A prompt that a filter declined is an answer.
    ///
    /// # Errors
    /// The fault, for everything that is no answer.
    pub fn classify(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &str,
        now_unix_ms: i64,
    ) -> Result<Answer, Fault> {
        match fault::meaning(status, headers, body, now_unix_ms) {
            Meaning::Fault(fault) => Err(fault),
            Meaning::Refused(text) => {
                Ok(Answer { text, finish: Finish::Refusal, usage: None, model: self.model.clone() })
            }
        }
    }

    /// The answer that a body with its status holds, as it comes or from the store.
    ///
    /// # Errors
    /// See [`OpenAi::read`] and [`OpenAi::classify`].
    pub fn answer(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &str,
        now_unix_ms: i64,
    ) -> Result<Answer, Fault> {
        match status {
            200..300 => self.read(body),
            status => self.classify(status, headers, body, now_unix_ms),
        }
    }

    /// Makes a reply of what came.
    ///
    /// # Errors
    /// See [`OpenAi::answer`].
    pub fn reply(&self, raw: RawReply, now_unix_ms: i64) -> Result<Reply, Fault> {
        let answer = self.answer(raw.status, &raw.headers, &raw.body, now_unix_ms)?;
        let notes = limit_notes(&raw.headers, now_unix_ms);
        Ok(Reply { status: raw.status, body: raw.body, answer, notes })
    }

    /// The client of this teacher. `folder` is what `ca_file` is relative to.
    ///
    /// # Errors
    /// See [`HttpClient::new`].
    pub fn connect(
        &self,
        folder: &Path,
        secrets: Arc<Secrets>,
        in_flight_max: usize,
    ) -> Result<HttpClient, Vec<Problem>> {
        let (url, ca_file) = (self.endpoint_url(), self.ca_file.as_ref().map(|path| folder.join(path)));
        HttpClient::new(&self.endpoint(&url, ca_file.as_deref()), secrets, in_flight_max)
    }
}

/// Whether a schema is in the subset that OpenAI's `strict` accepts: every object closed and every
/// property required (platform.openai.com/docs/guides/structured-outputs). Others are sent without
/// `strict`, which OpenAI takes as a wish and local servers enforce all the same.
fn fits_strict(schema: &Value) -> bool {
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

/// A chat completion, as far as it is read.
#[derive(serde::Deserialize)]
struct Envelope<'a> {
    error: Option<IgnoredAny>,
    choices: Option<Vec<Choice<'a>>>,
    /// Read apart, so that an odd count does not cost the answer.
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
}

#[derive(serde::Deserialize)]
struct Choice<'a> {
    error: Option<IgnoredAny>,
    message: Option<WireMessage>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Default, serde::Deserialize)]
struct WireMessage {
    content: Option<Content>,
    refusal: Option<String>,
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

/// The token counts; `None` when they are not what they should be.
fn read_usage(text: &str) -> Option<Usage> {
    #[derive(serde::Deserialize)]
    struct WireUsage {
        prompt_tokens: Option<u64>,
        completion_tokens: Option<u64>,
        total_tokens: Option<u64>,
    }
    let usage: WireUsage = serde_json::from_str(text).ok()?;
    let input = usage.prompt_tokens?;
    let output = usage.completion_tokens.or(usage.total_tokens.map(|total| total.saturating_sub(input)))?;
    Some(Usage { input, output })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teacher::Message;

    fn config(more: Value) -> OpenAi {
        let mut config = json!({ "url": "https://API.openai.com:443/v1/", "model": "m" });
        if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
            config.extend(more);
        }
        serde_json::from_value(config).unwrap()
    }

    /// A reply's text, finish and model, or its fault's code.
    #[track_caller]
    fn check(body: &Value, expected: Result<(&str, Finish), &str>) {
        let read = config(json!({})).read(&body.to_string());
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
            &choice(&json!({ "content": parts, "tool_calls": [1] }), &Value::Null),
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
        let reply = config(json!({})).reply(raw, 0).unwrap();
        assert_eq!(config(json!({})).read(&reply.body).unwrap().finish, reply.answer.finish);
    }

    #[test]
    fn usage_and_model_are_what_the_server_says() {
        let read = |more: Value| {
            let mut body = choice(&json!({ "content": "a" }), &json!("stop"));
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let answer = config(json!({})).read(&body.to_string()).unwrap();
            (answer.model, answer.usage)
        };
        let usage = Some(Usage { input: 3, output: 4 });
        let said =
            json!({ "model": "m-2", "usage": { "prompt_tokens": 3, "completion_tokens": 4, "details": {} } });
        assert_eq!(read(said), ("m-2".to_owned(), usage));
        assert_eq!(
            read(json!({ "usage": { "prompt_tokens": 3, "total_tokens": 7 } })),
            ("m".to_owned(), usage)
        );
        assert_eq!(read(json!({ "usage": { "prompt_tokens": "3" } })), ("m".to_owned(), None));
    }

    #[test]
    fn bodies_have_a_fixed_order() {
        let message = |role, content: &str| Message { role, content: content.to_owned() };
        let request = Request {
            messages: vec![message(Role::System, "s"), message(Role::User, "u")],
            temperature: Some(0.5),
            max_tokens: Some(9),
            stop: vec!["x".to_owned()],
            seed: Some(7),
            schema: Some(json!({ "type": "integer" })),
            extra: Map::from_iter([("top_p".to_owned(), json!(1)), ("model".to_owned(), json!("other"))]),
        };
        let written = config(json!({})).body(&request).to_string();
        assert_eq!(
            written,
            r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],"temperature":0.5,"max_tokens":9,"stop":["x"],"seed":7,"response_format":{"type":"json_schema","json_schema":{"name":"answer","schema":{"type":"integer"},"strict":true}},"top_p":1}"#
        );
        let other = config(json!({ "structured": "json_object", "max_tokens_key": "max_completion_tokens" }));
        let body = other.body(&request);
        assert_eq!(body["response_format"], json!({ "type": "json_object" }));
        assert_eq!(body["max_completion_tokens"], 9);
        assert!(body["messages"][1]["content"].as_str().unwrap().ends_with("else:\n{\"type\":\"integer\"}"));
        let prompt = config(json!({ "structured": "prompt" })).body(&request);
        assert_eq!((prompt.get("response_format"), &prompt["messages"]), (None, &body["messages"]));
        let problems = OpenAi::extra_problems(&request.extra);
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].message, "`model` cannot be set here");
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
    fn identity_is_the_normalised_url() {
        let identity = |url: &str| config(json!({ "url": url })).identity();
        assert_eq!(config(json!({})).identity(), "https://api.openai.com/v1/chat/completions");
        assert_eq!(identity("https://api.openai.com/v1/chat/completions#x"), config(json!({})).identity());
        assert_eq!(identity("http://h:80/d?api-version=1"), "http://h/d/chat/completions?api-version=1");
        let headers = json!({ "headers": { "X-Mode": "a", "X-Title": "b", "api-key": { "env": "K" } }, "key_env": "J" });
        assert_eq!(config(headers.clone()).answer_headers(), [("x-mode".to_owned(), "a".to_owned())]);
        assert_eq!(config(headers).env_names(), ["J", "K"]);
    }

    #[test]
    fn settings_are_checked() {
        let problems = config(json!({ "url": "http://h", "model": " ", "key_env": "K" })).problems();
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        let plain = "the value of `K` would travel unencrypted to `h`";
        assert_eq!(messages, [plain, "`model` is empty", "`url` has no path"]);
        assert_eq!(config(json!({ "key_env": "K", "timeout": "2m" })).problems(), []);
        let unknown = serde_json::from_value::<OpenAi>(json!({ "url": "u", "model": "m", "modle": "m" }));
        assert!(unknown.unwrap_err().to_string().contains("unknown field `modle`"));
    }
}
