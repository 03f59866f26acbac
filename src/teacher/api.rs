//! A model's API: where it is, how it is reached, and what is special about it. The same settings for every
//! wire format.
//!
//! Settings and their checks; knows nothing of sockets (`http.rs`), of bodies (one file per wire format) or of
//! retries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use schemars::JsonSchema;

use super::batch::{BatchApi, BatchClient, BatchSettings};
use super::endpoint::Endpoint;
use super::format::{ApiFormat, Structured};
use super::http::HttpClient;
use super::secret::Secrets;
use super::setting::{Setting, duration};
use crate::problem::{KeyPath, Place, Problem};

/// Headers that change who pays or who is shown, not what is answered.
const ANSWER_NEUTRAL: [&str; 6] =
    ["openai-organization", "openai-project", "user-agent", "http-referer", "x-title", "x-client-request-id"];

/// A model behind an endpoint.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(rename = "api", deny_unknown_fields)]
pub struct Api {
    /// The address of the server up to and with its version, such as `https://api.openai.com/v1`,
    /// `https://api.anthropic.com/v1` or `https://generativelanguage.googleapis.com/v1beta`; the path of the
    /// call is added if it is missing. A teacher whose endpoints all have a `url` of their own (`pool`) needs none.
    #[serde(default)]
    pub url: String,
    /// The model's name, as the server knows it.
    pub model: String,
    /// The name of the environment variable that holds the key. It is sent in a header, only to this URL (without
    /// one: to the endpoints of the pool that name no other) and only over https or to this machine.
    #[serde(default)]
    pub key_env: Option<String>,
    /// More headers: name to text, or to `{ env: NAME }` for a value that is secret.
    #[serde(default)]
    pub headers: BTreeMap<String, Setting>,
    /// The time that a call may take, from the connection to the last byte of the reply.
    #[serde(default = "timeout_default", deserialize_with = "duration")]
    #[schemars(with = "String", default = "timeout_text")]
    pub timeout: Duration,
    /// Has replies come in pieces while they are written, for servers and gateways that break off long silences.
    /// Then not the whole call is bounded by `timeout` but each silence by `idle_timeout`.
    #[serde(default)]
    pub stream: bool,
    /// The time that a streamed reply may be silent.
    #[serde(default = "idle_timeout_default", deserialize_with = "duration")]
    #[schemars(with = "String", default = "idle_timeout_text")]
    pub idle_timeout: Duration,
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
    /// What a server with OpenAI's chat API calls the bound of an answer's tokens: `max_tokens` by default.
    /// OpenAI's reasoning models want `max_completion_tokens`.
    pub max_tokens_key: Option<MaxTokensKey>,
    /// How the model is told the shape of a JSON answer: by the strongest means of the API by default.
    pub structured: Option<Structured>,
    /// Whether calls whose prompts begin alike, with 4 KB or more, are sent so that the provider's cache serves
    /// the beginning: the first goes ahead of the others, and for Anthropic the place is marked. Anthropic takes
    /// 1.25 times the price of input for what it writes to its cache, and a tenth for what it reads.
    #[serde(default = "yes")]
    pub prompt_cache: bool,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaxTokensKey {
    MaxTokens,
    MaxCompletionTokens,
}

/// The total that OpenAI's own client libraries use (openai-python `DEFAULT_TIMEOUT`: 600 s).
fn timeout_default() -> Duration {
    Duration::from_secs(600)
}

fn timeout_text() -> String {
    "10m".to_owned()
}

/// Reasoning models are silent while they think; gateways break off after 60 to 100 s (nginx
/// `proxy_read_timeout`: 60 s, Cloudflare: 100 s), so a longer silence is nobody's.
fn idle_timeout_default() -> Duration {
    Duration::from_secs(120)
}

fn idle_timeout_text() -> String {
    "2m".to_owned()
}

/// Twice theirs (5 s): hundreds of connections may be opened at once.
fn connect_timeout_default() -> Duration {
    Duration::from_secs(10)
}

fn connect_timeout_text() -> String {
    "10s".to_owned()
}

impl Api {
    /// Settings for traffic that never leaves this process: a cassette's, a test's.
    pub fn named(model: &str) -> Api {
        Api {
            url: "local:".to_owned(),
            model: model.to_owned(),
            key_env: None,
            headers: BTreeMap::new(),
            timeout: timeout_default(),
            stream: false,
            idle_timeout: idle_timeout_default(),
            connect_timeout: connect_timeout_default(),
            proxy: None,
            ca_file: None,
            max_tokens_key: None,
            structured: None,
            prompt_cache: true,
        }
    }

    /// The full URL of the endpoint; the text as it is when that is no URL.
    pub fn endpoint_url(&self, format: ApiFormat) -> String {
        self.url_with(&format.wire().path(&self.model), None)
    }

    /// The URL that requests go to: the endpoint's, or the one that streams.
    fn sending_url(&self, format: ApiFormat) -> String {
        if !self.stream {
            return self.endpoint_url(format);
        }
        let (call, query) = format.wire().stream_path(&self.model);
        self.url_with(&call, query)
    }

    fn url_with(&self, call: &str, query: Option<&str>) -> String {
        let Ok(mut url) = Url::parse(&self.url) else { return self.url.clone() };
        let path = url.path().trim_end_matches('/');
        let path = if path.ends_with(call) { path.to_owned() } else { format!("{path}{call}") };
        url.set_path(&path);
        url.set_fragment(None);
        if let Some((name, value)) = query.and_then(|query| query.split_once('=')) {
            url.query_pairs_mut().append_pair(name, value);
        }
        url.to_string()
    }

    fn endpoint<'a>(&'a self, format: ApiFormat, url: &'a str, ca_file: Option<&'a Path>) -> Endpoint<'a> {
        let wire = format.wire();
        Endpoint {
            url,
            key_env: self.key_env.as_deref(),
            key_header: wire.key_header(),
            fixed_headers: wire.headers(),
            headers: &self.headers,
            timeout: self.timeout,
            stream: self.stream.then_some((format, self.idle_timeout)),
            connect_timeout: self.connect_timeout,
            proxy: self.proxy.as_deref(),
            ca_file,
        }
    }

    /// How models are held to a schema here.
    pub fn structured(&self, format: ApiFormat) -> Structured {
        let strongest = format.wire().structured().first().copied();
        self.structured.or(strongest).unwrap_or(Structured::Prompt)
    }

    /// The teacher's identity in call keys: the endpoint's URL with scheme and host in lower case
    /// and without a default port. The query stays, since Azure's `api-version` changes answers.
    pub fn identity(&self, format: ApiFormat) -> String {
        self.endpoint_url(format)
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

    /// The environment variables that are read, each to be sent to [`Api::host`] only.
    pub fn env_names(&self) -> Vec<&str> {
        let headers = self.headers.values().filter_map(Setting::env_name);
        self.key_env.as_deref().into_iter().chain(headers).collect()
    }

    /// The host that requests go to.
    pub fn host(&self) -> String {
        Url::parse(&self.url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    /// The host, with its port where that is not the scheme's own.
    pub fn host_and_port(&self) -> String {
        let Ok(url) = Url::parse(&self.url) else { return String::new() };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", url.host_str().unwrap_or_default())
    }

    /// Everything wrong with the settings, at paths below this wire format's key. Pure.
    pub fn problems(&self, format: ApiFormat) -> Vec<Problem> {
        if self.url.is_empty() {
            return vec![Problem::error(Place::Value(KeyPath::root()), "missing key `url`")];
        }
        let mut problems = self.endpoint(format, &self.endpoint_url(format), None).problems();
        let at = |key: &str| Place::Value(KeyPath::root().join(key));
        if self.model.trim().is_empty() {
            problems.push(Problem::error(at("model"), "`model` is empty"));
        }
        if Url::parse(&self.url).is_ok_and(|url| url.path() == "/" && url.scheme().starts_with("http")) {
            problems.push(
                Problem::warning(at("url"), "`url` has no path").hint("most servers want `/v1` at its end"),
            );
        }
        let known = format.wire().structured();
        if !format.wire().writes() {
            for (key, given) in [("stream", self.stream), ("structured", self.structured.is_some())] {
                if given {
                    let message = format!("`{key}` is for models that write; vectors come whole");
                    problems.push(Problem::error(at(key), message).hint(format!("leave `{key}` out")));
                }
            }
        } else if let Some(other) = self.structured.filter(|structured| !known.contains(structured)) {
            let message =
                format!("this API has no way called `{}` to hold a model to a schema", word(&other));
            let known: Vec<String> = known.iter().map(|known| format!("`{}`", word(known))).collect();
            problems
                .push(Problem::error(at("structured"), message).hint(format!("it has {}", known.join(", "))));
        }
        if self.max_tokens_key.is_some() && format != ApiFormat::Openai {
            let message = "only OpenAI's chat API has more than one name for `max_tokens`";
            problems.push(Problem::error(at("max_tokens_key"), message).hint("leave `max_tokens_key` out"));
        }
        problems
    }

    /// The client of this API. `folder` is what `ca_file` is relative to.
    ///
    /// # Errors
    /// See [`HttpClient::new`].
    pub fn connect(
        &self,
        format: ApiFormat,
        folder: &Path,
        secrets: Arc<Secrets>,
        in_flight_max: usize,
    ) -> Result<HttpClient, Vec<Problem>> {
        let url = self.sending_url(format);
        let ca_file = self.ca_file.as_ref().map(|path| folder.join(path));
        HttpClient::new(&self.endpoint(format, &url, ca_file.as_deref()), secrets, in_flight_max)
    }
}

impl Api {
    /// The line to the provider's batches.
    ///
    /// # Errors
    /// See [`HttpClient::new`].
    pub fn connect_batches(
        &self,
        (format, api): (ApiFormat, BatchApi),
        settings: BatchSettings,
        folder: &Path,
        secrets: Arc<Secrets>,
    ) -> Result<BatchClient, Vec<Problem>> {
        let call = format.wire().path(&self.model);
        let base = Url::parse(&self.url).map(|mut base| {
            let path = base.path().trim_end_matches('/');
            let path = path.strip_suffix(call.as_str()).unwrap_or(path).to_owned();
            base.set_path(&path);
            base.set_fragment(None);
            base
        });
        let base = base.map_err(|error| {
            vec![Problem::error(
                Place::Value(KeyPath::root().join("url")),
                format!("`url` is not a URL: {error}"),
            )]
        })?;
        let ca_file = self.ca_file.as_ref().map(|path| folder.join(path));
        // What is asked about batches is answered at once and in one piece.
        let endpoint = Endpoint { stream: None, ..self.endpoint(format, base.as_str(), ca_file.as_deref()) };
        let client = HttpClient::new(&endpoint, secrets, 1)?;
        Ok(BatchClient::new(api, settings, client, base))
    }
}

/// A setting's value as the file writes it.
fn word(structured: &Structured) -> &'static str {
    match structured {
        Structured::JsonSchema => "json_schema",
        Structured::Tool => "tool",
        Structured::JsonObject => "json_object",
        Structured::Prompt => "prompt",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(more: Value) -> Api {
        let mut config = json!({ "url": "https://API.openai.com:443/v1/", "model": "m" });
        if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
            config.extend(more);
        }
        serde_json::from_value(config).unwrap()
    }

    #[test]
    fn identity_is_the_normalised_url() {
        let identity = |url: &str| config(json!({ "url": url })).identity(ApiFormat::Openai);
        assert_eq!(identity("https://api.openai.com/v1/"), "https://api.openai.com/v1/chat/completions");
        let whole = "https://api.openai.com/v1/chat/completions";
        assert_eq!(identity(&format!("{whole}#x")), whole);
        assert_eq!(identity("http://h:80/d?api-version=1"), "http://h/d/chat/completions?api-version=1");
        let of =
            |format: ApiFormat| config(json!({})).identity(format).split_off("https://api.openai.com".len());
        assert_eq!(
            ApiFormat::ALL.map(of),
            [
                "/v1/chat/completions",
                "/v1/responses",
                "/v1/messages",
                "/v1/models/m:generateContent",
                "/v1/embeddings"
            ]
        );
        let headers = json!({ "headers": { "X-Mode": "a", "X-Title": "b", "api-key": { "env": "K" } }, "key_env": "J" });
        assert_eq!(config(headers.clone()).answer_headers(), [("x-mode".to_owned(), "a".to_owned())]);
        assert_eq!(config(headers).env_names(), ["J", "K"]);
    }

    #[test]
    fn settings_are_checked() {
        let check = |more: Value, format: ApiFormat, expected: &[&str]| {
            let problems = config(more).problems(format);
            let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            assert_eq!(messages, expected);
        };
        let plain = "the value of `K` would travel unencrypted to `h`";
        let bare = json!({ "url": "http://h", "model": " ", "key_env": "K" });
        check(bare, ApiFormat::Openai, &[plain, "`model` is empty", "`url` has no path"]);
        check(json!({ "key_env": "K", "timeout": "2m" }), ApiFormat::Openai, &[]);
        check(
            json!({ "structured": "json_object", "max_tokens_key": "max_tokens" }),
            ApiFormat::Anthropic,
            &[
                "this API has no way called `json_object` to hold a model to a schema",
                "only OpenAI's chat API has more than one name for `max_tokens`",
            ],
        );
        let unknown = serde_json::from_value::<Api>(json!({ "url": "u", "model": "m", "modle": "m" }));
        assert!(unknown.unwrap_err().to_string().contains("unknown field `modle`"));
    }
}
