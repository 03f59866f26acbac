//! Where a teacher's requests go and with which headers, as the pipeline file says it, and what is wrong with it.
//!
//! Pure: opens no connection and reads no secret. `http.rs` makes a client of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use super::format::ApiFormat;
use super::http::words;
use super::secret::{is_variable_name, looks_like_credential};
use super::setting::Setting;
use crate::problem::{KeyPath, Place, Problem};

/// Where a teacher is and how to reach it, as the pipeline file says it. The names of the fields
/// are the names of the keys.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// The full URL that requests are posted to.
    pub url: &'a str,
    pub key_env: Option<&'a str>,
    /// The header that the key travels in, in lower case, and what stands before it there.
    pub key_header: (&'static str, &'static str),
    /// Headers that the wire format wants.
    pub fixed_headers: &'static [(&'static str, &'static str)],
    pub headers: &'a BTreeMap<String, Setting>,
    pub timeout: Duration,
    /// For replies that are streamed: in which format, and how long a silence may be.
    pub stream: Option<(ApiFormat, Duration)>,
    pub connect_timeout: Duration,
    pub proxy: Option<&'a str>,
    /// Resolved against the pipeline file's folder.
    pub ca_file: Option<&'a Path>,
}

impl Endpoint<'_> {
    /// Everything wrong with the endpoint, at paths below the teacher's wire format. Pure. Messages
    /// never repeat a text that may be a secret.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = url_problems("url", self.url);
        if let Some(name) = self.key_env
            && !is_variable_name(name)
        {
            problems.push(
                Problem::error(at("key_env"), "`key_env` is not the name of an environment variable")
                    .hint("write the name of the variable that holds the key, not the key"),
            );
        }
        for (name, value) in self.headers {
            problems.extend(self.header_problem(name, value));
        }
        let idle = self.stream.map(|(_, idle)| ("idle_timeout", idle));
        let durations = [("timeout", self.timeout), ("connect_timeout", self.connect_timeout)];
        for (name, duration) in durations.into_iter().chain(idle) {
            if duration.is_zero() {
                problems.push(Problem::error(at(name), format!("`{name}` must be longer than nothing")));
            }
        }
        if let Some(proxy) = self.proxy {
            problems.extend(url_problems("proxy", proxy));
        }
        if let Ok(url) = Url::parse(self.url)
            && url.scheme() == "http"
        {
            problems.extend(self.plain_problem(&url));
        }
        problems
    }

    /// The environment variables whose values are sent to this endpoint.
    pub fn env_names(&self) -> Vec<&str> {
        let headers = self.headers.values().filter_map(Setting::env_name);
        self.key_env.into_iter().chain(headers).collect()
    }

    fn plain_problem(&self, url: &Url) -> Option<Problem> {
        let name = self.env_names().first().copied()?;
        let host = url.host_str().unwrap_or_default();
        if !is_loopback(url) {
            let message = format!("the value of `{name}` would travel unencrypted to `{host}`");
            return Some(Problem::error(at("url"), message).hint("use an https URL"));
        }
        self.proxy?;
        let message = format!("the value of `{name}` would travel unencrypted through the proxy");
        Some(Problem::error(at("proxy"), message).hint("a loopback URL needs no proxy"))
    }

    fn header_problem(&self, name: &str, value: &Setting) -> Option<Problem> {
        let place = || Place::Value(KeyPath::root().join("headers").join(name));
        let lower = name.to_ascii_lowercase();
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Some(Problem::error(place(), format!("`{}` is not a header name", words(name))));
        }
        if ["content-type", "content-length", "host", "connection", "transfer-encoding", "accept-encoding"]
            .contains(&lower.as_str())
        {
            return Some(Problem::error(place(), format!("the header `{lower}` is set by textmill")));
        }
        if lower == self.key_header.0 && self.key_env.is_some() {
            let message = format!("`key_env` and the header `{lower}` say the same thing");
            return Some(Problem::error(place(), message).hint("keep one of them"));
        }
        match value {
            Setting::Env(variable) if !is_variable_name(variable) => {
                let message =
                    format!("`env` of the header `{lower}` is not the name of an environment variable");
                Some(Problem::error(place(), message))
            }
            Setting::Text(text) if names_credential(&lower) || looks_like_credential(text) => {
                let message = format!("the header `{lower}` has a credential written in the file");
                let hint =
                    format!("put it into an environment variable and write `{lower}: {{ env: NAME }}`");
                Some(Problem::error(place(), message).hint(hint))
            }
            Setting::Text(text) if HeaderValue::from_str(text).is_err() => Some(Problem::error(
                place(),
                format!("the header `{lower}` has a character that headers cannot hold"),
            )),
            _ => None,
        }
    }
}

pub(super) fn at(key: &str) -> Place {
    Place::Value(KeyPath::root().join(key))
}

/// Whether the name of a header or of a query parameter says that its value is a secret.
fn names_credential(lower: &str) -> bool {
    const NAMES: [&str; 14] = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "key",
        "api-key",
        "apikey",
        "api_key",
        "x-api-key",
        "x-goog-api-key",
        "token",
        "access_token",
        "x-auth-token",
        "sig",
        "signature",
    ];
    NAMES.contains(&lower)
}

/// What is wrong with a URL that is the value of `key`.
fn url_problems(key: &str, text: &str) -> Vec<Problem> {
    let url = match Url::parse(text) {
        Ok(url) => url,
        // The text is not repeated: it may hold a password.
        Err(error) => {
            let message = match text.contains("://") {
                true => format!("`{key}` is not a URL: {error}"),
                false => format!("`{key}` is not a URL: it does not begin with `https://`"),
            };
            return vec![Problem::error(at(key), message).hint("URLs look like `https://api.openai.com/v1`")];
        }
    };
    let mut problems = Vec::new();
    if !matches!(url.scheme(), "http" | "https") {
        let message = format!("`{key}` starts with `{}:`; only http and https are spoken", url.scheme());
        problems.push(Problem::error(at(key), message));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let hint = match key {
            "proxy" => "leave `proxy` out and set HTTPS_PROXY in the environment",
            _ => "put the key into an environment variable and name it with `key_env`",
        };
        problems
            .push(Problem::error(at(key), format!("`{key}` has a user name or password in it")).hint(hint));
    }
    for (name, value) in url.query_pairs() {
        if names_credential(&name.to_ascii_lowercase()) || looks_like_credential(&value) {
            let message = format!("`{key}` has a credential in its query, at `{}`", words(&name));
            problems.push(
                Problem::error(at(key), message).hint("name it with `key_env` or a header `{ env: NAME }`"),
            );
        }
    }
    problems
}

/// Whether a URL stays on this machine.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn endpoint<'a>(url: &'a str, headers: &'a BTreeMap<String, Setting>) -> Endpoint<'a> {
        Endpoint {
            url,
            key_env: Some("KEY"),
            key_header: ("authorization", "Bearer "),
            fixed_headers: &[],
            headers,
            timeout: Duration::from_millis(300),
            stream: None,
            connect_timeout: Duration::from_millis(300),
            proxy: None,
            ca_file: None,
        }
    }

    pub fn messages(problems: Vec<Problem>) -> Vec<String> {
        problems.into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn unsafe_settings_are_problems() {
        let url_problems = |url: &str| messages(endpoint(url, &BTreeMap::new()).problems());
        for url in ["https://h/v1", "http://localhost:1", "http://127.0.0.9/", "http://[::1]:80/"] {
            assert_eq!(url_problems(url), Vec::<String>::new());
        }
        assert_eq!(url_problems("http://h/"), ["the value of `KEY` would travel unencrypted to `h`"]);
        assert_eq!(url_problems("http://localhost.evil/").len(), 1);
        assert_eq!(url_problems("ftp://h/"), ["`url` starts with `ftp:`; only http and https are spoken"]);
        assert_eq!(url_problems("https://a:pass@h/"), ["`url` has a user name or password in it"]);
        assert_eq!(url_problems("https://h/?key=abc"), ["`url` has a credential in its query, at `key`"]);
        assert!(url_problems("h/v1")[0].starts_with("`url` is not a URL"));
        let text = |text: &str| Setting::Text(text.to_owned());
        let headers = BTreeMap::from([
            ("Api-Key".to_owned(), text("abc")),
            ("Authorization".to_owned(), text("x")),
            ("a b".to_owned(), text("x")),
            ("host".to_owned(), text("x")),
            ("x-env".to_owned(), Setting::Env("sk-abcdefghijkl".to_owned())),
            ("x-ok".to_owned(), text("fine")),
            ("x-text".to_owned(), text("Bearer abcdefghijkl")),
        ]);
        let mut endpoint = endpoint("https://h/", &headers);
        assert_eq!(
            messages(endpoint.problems()),
            [
                "the header `api-key` has a credential written in the file",
                "`key_env` and the header `authorization` say the same thing",
                "`a b` is not a header name",
                "the header `host` is set by textmill",
                "`env` of the header `x-env` is not the name of an environment variable",
                "the header `x-text` has a credential written in the file",
            ]
        );
        let none = BTreeMap::new();
        (endpoint.headers, endpoint.key_env) = (&none, Some("sk-abcdefghijkl"));
        assert_eq!(messages(endpoint.problems()), ["`key_env` is not the name of an environment variable"]);
    }
}
