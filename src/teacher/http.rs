//! The HTTP client of one teacher: where requests go, with which headers, and what can go wrong on
//! the way.
//!
//! Knows no provider's JSON: it takes bytes and gives a [`RawReply`]. Never follows a redirect,
//! never sends a secret over plain http except to loopback, never retries.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, ClientBuilder, Response, Url};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::sync::mpsc;

use super::Fault;
use super::endpoint::{Endpoint, at, is_loopback};
use super::format::ApiFormat;
use super::secret::Secrets;
use super::setting::Setting;
use super::stream::{Assemble, DONE, Events};
use crate::problem::{KeyPath, Place, Problem, Severity, shown_path};

/// A longer reply is a fault. A model that writes 128k tokens fills less than 1 MiB.
pub const REPLY_BYTES_MAX: usize = 32 << 20;
/// How much of an error's body is read; the words that matter stand at its start.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// How many bytes of a server's words are kept.
const WORDS_BYTES_MAX: usize = 2048;
/// Certificate bundles of whole operating systems have a quarter of this.
const CA_FILE_BYTES_MAX: u64 = 4 << 20;
/// Streams that an HTTP/2 server can be trusted to serve at once on one connection (RFC 9113
/// section 6.5.2 advises no less); a client opens one connection, so more calls need more clients.
const STREAMS_PER_CLIENT: usize = 100;
const CLIENTS_MAX: usize = 16;
/// The most time that a file may take on its way: 200 MB at 60 KB a second.
const TRANSFER_MAX: Duration = Duration::from_secs(60 * 60);
/// Below the 60 s after which common gateways drop an idle connection (nginx: 75 s, AWS ALB: 60 s).
const IDLE_MAX: Duration = Duration::from_secs(50);

/// A server's words fit for a message: at most 2 KB, control characters escaped.
pub fn words(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(WORDS_BYTES_MAX));
    for c in text.trim().chars() {
        if shown.len() >= WORDS_BYTES_MAX {
            shown.push('…');
            break;
        }
        // Also what reorders text on a terminal: the bidirectional controls of Unicode.
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A reply as it came, whatever its status; secrets are scrubbed from the body.
#[derive(Clone, Debug)]
pub struct RawReply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

/// What goes along with a request.
pub(super) enum Sent {
    Json(String),
    File { file: std::fs::File, bytes: u64, content_type: String },
}

/// A builder with what every client of ours has in common. Installs the crypto provider, which
/// must have happened before the first client is built.
fn builder() -> ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // An error says that one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::builder()
        .user_agent(concat!("textmill/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
}

/// A client that asks whether a server on its way up is ready; `timeout` bounds one question.
pub(super) fn probe_client(timeout: Duration) -> Result<Client, reqwest::Error> {
    builder().timeout(timeout).no_proxy().pool_max_idle_per_host(0).build()
}

/// The connections to one teacher. Cheap to share behind an `Arc`, meant for thousands of calls at once.
#[derive(Debug)]
pub struct HttpClient {
    clients: Vec<Client>,
    next: AtomicUsize,
    url: Url,
    timeout: Duration,
    stream: Option<(ApiFormat, Duration)>,
    reply_bytes_max: usize,
    secrets: Arc<Secrets>,
}

impl HttpClient {
    /// Reads `ca_file` and the named variables' values; opens no connection.
    ///
    /// `in_flight_max` is the most calls that will be open at once.
    ///
    /// # Errors
    /// All problems of the endpoint, variables that are not set, an unreadable `ca_file`.
    pub fn new(
        endpoint: &Endpoint<'_>,
        secrets: Arc<Secrets>,
        in_flight_max: usize,
    ) -> Result<HttpClient, Vec<Problem>> {
        let mut problems: Vec<Problem> =
            endpoint.problems().into_iter().filter(|problem| problem.severity == Severity::Error).collect();
        let headers = request_headers(endpoint, &secrets, &mut problems);
        let url = Url::parse(endpoint.url).ok();
        let (Some(url), true) = (url, problems.is_empty()) else { return Err(problems) };
        let encrypted = url.scheme() == "https";
        let clients =
            if encrypted { in_flight_max.div_ceil(STREAMS_PER_CLIENT).clamp(1, CLIENTS_MAX) } else { 1 };
        let clients = (0..clients).map(|_| client(endpoint, &url, headers.clone()));
        Ok(HttpClient {
            clients: clients.collect::<Result<Vec<Client>, Vec<Problem>>>()?,
            next: AtomicUsize::new(0),
            url,
            timeout: endpoint.timeout,
            stream: endpoint.stream,
            reply_bytes_max: REPLY_BYTES_MAX,
            secrets,
        })
    }

    /// Posts a JSON body and reads the whole reply.
    ///
    /// # Errors
    /// What kept a reply from coming whole. Any status but a redirect is a reply: the wire format
    /// says what it means.
    pub async fn post(&self, body: Bytes) -> Result<RawReply, Fault> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let client = &self.clients[turn % self.clients.len()];
        let request = client.post(self.url.clone()).body(body);
        let mut response = request.send().await.map_err(|error| self.fault(&error, "connection"))?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        if status.is_redirection() {
            return Err(self.redirect(status.as_u16(), &headers));
        }
        let body = match self.stream.filter(|_| is_event_stream(&headers)) {
            _ if !status.is_success() => self.read_error(response).await,
            Some((format, _)) => self.read_stream(response, format).await?,
            None => self.read(response).await?,
        };
        Ok(RawReply { status: status.as_u16(), headers, body: self.secrets.scrub_owned(body) })
    }

    /// Asks something else of the same server, and reads the whole reply.
    ///
    /// # Errors
    /// As [`HttpClient::post`].
    pub(super) async fn exchange(&self, url: Url, sent: Option<Sent>) -> Result<RawReply, Fault> {
        let client = &self.clients[0];
        let request = match sent {
            None => client.get(url),
            Some(Sent::Json(json)) => client.post(url).body(json),
            Some(Sent::File { file, bytes, content_type }) => client
                .post(url)
                .timeout(TRANSFER_MAX)
                .header(CONTENT_TYPE, content_type)
                .header(CONTENT_LENGTH, bytes)
                .body(reqwest::Body::from(tokio::fs::File::from_std(file))),
        };
        let mut response = request.send().await.map_err(|error| self.fault(&error, "connection"))?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        if status.is_redirection() {
            return Err(self.redirect(status.as_u16(), &headers));
        }
        let body =
            if status.is_success() { self.read(response).await? } else { self.read_error(response).await };
        Ok(RawReply { status: status.as_u16(), headers, body: self.secrets.scrub_owned(body) })
    }

    /// Reads a reply of any length line by line; one that is an error is given back instead. Stops early when
    /// `lines` is closed.
    ///
    /// # Errors
    /// As [`HttpClient::post`].
    pub(super) async fn lines(
        &self,
        url: Url,
        lines: mpsc::Sender<String>,
    ) -> Result<Option<RawReply>, Fault> {
        let request = self.clients[0].get(url).timeout(TRANSFER_MAX);
        let mut response = request.send().await.map_err(|error| self.fault(&error, "connection"))?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        if status.is_redirection() {
            return Err(self.redirect(status.as_u16(), &headers));
        }
        if !status.is_success() {
            let body = self.secrets.scrub_owned(self.read_error(response).await);
            return Ok(Some(RawReply { status: status.as_u16(), headers, body }));
        }
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.fault(&error, "cut_reply"))? {
            let mut pieces = chunk.split_inclusive(|byte| *byte == b'\n').peekable();
            while let Some(piece) = pieces.next() {
                rest.extend_from_slice(piece);
                if rest.len() > self.reply_bytes_max {
                    return Err(self.too_large());
                }
                if (piece.ends_with(b"\n") || pieces.peek().is_some())
                    && !self.hand_on(&mut rest, &lines).await
                {
                    return Ok(None);
                }
            }
        }
        self.hand_on(&mut rest, &lines).await;
        Ok(None)
    }

    /// Hands a line on; whether anybody wants more.
    async fn hand_on(&self, line: &mut Vec<u8>, lines: &mpsc::Sender<String>) -> bool {
        let line = String::from_utf8_lossy(&std::mem::take(line)).trim().to_owned();
        line.is_empty() || lines.send(self.secrets.scrub_owned(line)).await.is_ok()
    }

    async fn read(&self, mut response: Response) -> Result<String, Fault> {
        let announced = usize::try_from(response.content_length().unwrap_or(0)).unwrap_or(usize::MAX);
        // Trusted only so far: a header costs a server nothing.
        let mut body = Vec::with_capacity(announced.min(1 << 20));
        if announced > self.reply_bytes_max {
            return Err(self.too_large());
        }
        while let Some(chunk) = response.chunk().await.map_err(|error| self.fault(&error, "cut_reply"))? {
            if body.len() + chunk.len() > self.reply_bytes_max {
                return Err(self.too_large());
            }
            body.extend_from_slice(&chunk);
        }
        String::from_utf8(body).map_err(|error| Fault::Transient {
            code: "invalid_utf8",
            message: format!("the reply of `{}` is no text: {}", self.host(), error.utf8_error()),
            billed: true,
        })
    }

    /// Reads a streamed reply and puts it together. A stream without its end mark was cut off.
    async fn read_stream(&self, mut response: Response, format: ApiFormat) -> Result<String, Fault> {
        let (mut events, mut assembler) = (Events::default(), format.wire().assembler());
        let (mut bytes, mut done) = (0, false);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.fault(&error, "cut_reply"))? {
            bytes += chunk.len();
            if bytes > self.reply_bytes_max {
                return Err(self.too_large());
            }
            for data in events.feed(&chunk) {
                done |= self.take_event(&data, &mut *assembler)?;
            }
            // Some servers keep the connection open behind the mark.
            if done {
                break;
            }
        }
        if let Some(data) = events.end() {
            self.take_event(&data, &mut *assembler)?;
        }
        assembler.body().map(|body| body.to_string()).ok_or_else(|| Fault::Transient {
            code: "cut_reply",
            message: format!("the stream of `{}` ended before the answer did", self.host()),
            billed: true,
        })
    }

    /// Hands an event on; whether it is the mark behind the last one.
    fn take_event(&self, data: &[u8], assembler: &mut dyn Assemble) -> Result<bool, Fault> {
        if data == DONE {
            assembler.event(Value::Null);
            return Ok(true);
        }
        let event = serde_json::from_slice(data).map_err(|error| Fault::Transient {
            code: "invalid_reply",
            message: format!("an event in the stream of `{}` is no JSON: {error}", self.host()),
            billed: true,
        })?;
        assembler.event(event);
        Ok(false)
    }

    /// As much of an error's body as comes: its status counts even when its words do not arrive.
    async fn read_error(&self, mut response: Response) -> String {
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(ERROR_BYTES_MAX - body.len())]);
            if body.len() >= ERROR_BYTES_MAX {
                break;
            }
        }
        String::from_utf8_lossy(&body).into_owned()
    }

    fn too_large(&self) -> Fault {
        Fault::Transient {
            code: "reply_too_large",
            message: format!("the reply of `{}` is longer than {} bytes", self.host(), self.reply_bytes_max),
            billed: true,
        }
    }

    fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    fn redirect(&self, status: u16, headers: &HeaderMap) -> Fault {
        let target = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("elsewhere");
        let target = words(&self.secrets.scrub(target));
        let message = format!(
            "`{}` sends us on to `{target}` (status {status}); keys never travel along a redirect: write the final URL",
            self.host()
        );
        // No other request would fare better.
        Fault::Fatal { message }
    }

    /// What an error on the way means. `code` says how far the call was; `billed` is false only
    /// when the request cannot have arrived.
    fn fault(&self, error: &reqwest::Error, code: &'static str) -> Fault {
        let why = words(&self.secrets.scrub(&causes(error)));
        let host = self.host();
        if error.is_connect() {
            if why.contains("invalid peer certificate") {
                let message = format!(
                    "the certificate of `{host}` is not trusted: {why}; name its authority with `ca_file`"
                );
                return Fault::Fatal { message };
            }
            let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let message = format!("no connection to `{host}{port}`: {why}");
            return Fault::Transient { code: "connection", message, billed: false };
        }
        if error.is_timeout() {
            let message = match self.stream {
                None => format!(
                    "`{host}` did not finish its reply within {}",
                    humantime::format_duration(self.timeout)
                ),
                Some((_, idle)) => format!("`{host}` was silent for {}", humantime::format_duration(idle)),
            };
            return Fault::Transient { code: "timeout", message, billed: true };
        }
        let message = match code {
            "cut_reply" => format!("the reply of `{host}` was cut off: {why}"),
            _ => format!("`{host}` broke the connection off: {why}"),
        };
        Fault::Transient { code, message, billed: true }
    }
}

/// The innermost cause of an error and what is round it, without the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        // "client error (Connect)" is a library's word for what the next cause says.
        let says_nothing = text.starts_with("client error (");
        if !says_nothing && texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        source = cause.source();
    }
    if texts.is_empty() { "no cause was given".to_owned() } else { texts.join(": ") }
}

/// The headers that every request of a teacher has; a missing variable is a problem.
fn request_headers(endpoint: &Endpoint<'_>, secrets: &Secrets, problems: &mut Vec<Problem>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut secret = |place: Place, variable: &str, prefix: &str| {
        let Some(value) = secrets.get(variable) else {
            let message = format!("the environment variable `{variable}` is not set");
            problems.push(Problem::error(place, message).hint("set it in the environment of this command"));
            return None;
        };
        let Ok(mut value) = HeaderValue::from_str(&format!("{prefix}{}", value.expose_secret())) else {
            let message = format!("the value of `{variable}` has a character that headers cannot hold");
            problems.push(Problem::error(place, message));
            return None;
        };
        value.set_sensitive(true);
        Some(value)
    };
    let (key_header, prefix) = endpoint.key_header;
    if let Some(value) = endpoint.key_env.and_then(|variable| secret(at("key_env"), variable, prefix)) {
        headers.insert(HeaderName::from_static(key_header), value);
    }
    for (name, value) in endpoint.fixed_headers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    for (name, setting) in endpoint.headers {
        let place = Place::Value(KeyPath::root().join("headers").join(name.as_str()));
        let value = match setting {
            Setting::Env(variable) => secret(place, variable, ""),
            Setting::Text(text) => HeaderValue::from_str(text).ok(),
        };
        if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            headers.insert(name, value);
        }
    }
    headers
}

fn client(endpoint: &Endpoint<'_>, url: &Url, headers: HeaderMap) -> Result<Client, Vec<Problem>> {
    let mut builder = builder()
        .default_headers(headers)
        .connect_timeout(endpoint.connect_timeout)
        .pool_idle_timeout(IDLE_MAX)
        .tcp_keepalive(Duration::from_secs(30))
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(Duration::from_secs(20));
    builder = match endpoint.stream {
        Some((_, idle)) => builder.read_timeout(idle),
        None => builder.timeout(endpoint.timeout),
    };
    if let Some(proxy) = endpoint.proxy {
        let proxy = reqwest::Proxy::all(proxy).map_err(|error| {
            vec![Problem::error(at("proxy"), "the proxy cannot be used").cause(causes(&error))]
        })?;
        builder = builder.proxy(proxy);
    } else if is_loopback(url) {
        // A proxy from the environment would see what is meant for this machine alone.
        builder = builder.no_proxy();
    }
    if let Some(path) = endpoint.ca_file {
        builder = builder.tls_certs_merge(certificates(path)?);
    } else if url.scheme() == "http" && endpoint.proxy.is_none() {
        // Plain http needs no certificates, and a slim container may have none to load.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| {
        let hint = "https needs the system's certificates (package `ca-certificates`) or `ca_file`";
        vec![Problem::error(at("url"), "the connection cannot be set up").cause(causes(&error)).hint(hint)]
    })
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream")
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, Vec<Problem>> {
    let wrong = |why: String| {
        let message = format!("`{}` gives no certificates", shown_path(path));
        let hint = "the file must hold certificates in PEM form";
        vec![Problem::error(at("ca_file"), message).cause(why).hint(hint)]
    };
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    file.take(CA_FILE_BYTES_MAX).read_to_end(&mut pem).map_err(|error| wrong(error.to_string()))?;
    let certificates =
        reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() { Err(wrong("it holds none".to_owned())) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::net::TcpListener;

    use super::super::endpoint::tests::{endpoint, messages};
    use super::*;

    const LIMIT_BYTES: usize = 1000;

    /// A server that answers its only connection with `reply` and closes it; with a `~` at the end it
    /// waits until the client is gone. An `@` becomes the request's `authorization` header.
    fn serve(reply: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut block = [0; 4096];
            while !request.ends_with(b"{}") {
                let size = stream.read(&mut block).unwrap();
                request.extend_from_slice(&block[..size]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let key =
                request.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or("no key");
            let said = reply.strip_suffix(b"~").unwrap_or(reply);
            let parts: Vec<&[u8]> = said.split(|byte| *byte == b'@').collect();
            stream.write_all(&parts.join(key.as_bytes())).unwrap();
            if said != reply {
                let _ = stream.read(&mut block);
            }
        });
        url
    }

    fn secrets() -> Arc<Secrets> {
        Arc::new(Secrets::load(["KEY"], |_| Some("very-secret".to_owned())))
    }

    async fn post(url: &str) -> Result<RawReply, Fault> {
        let headers = BTreeMap::new();
        let mut client = HttpClient::new(&endpoint(url, &headers), secrets(), 1000).unwrap();
        client.reply_bytes_max = LIMIT_BYTES;
        client.post(Bytes::from_static(b"{}")).await
    }

    /// What posting to a server that answers with `reply` brings: the status and body, or the fault.
    #[track_caller]
    fn check(reply: &'static [u8], expected: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let url = serve(reply);
        let shown = match runtime.block_on(post(&url)) {
            Ok(reply) => format!("{} {}", reply.status, reply.body),
            Err(Fault::Transient { code, billed, .. }) => {
                format!("{code}{}", if billed { " billed" } else { "" })
            }
            Err(Fault::Fatal { message }) => message,
            Err(other) => format!("{other:?}"),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn whole_replies_arrive_without_the_key() {
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "200 ok");
        check(b"HTTP/1.1 200 OK\r\n\r\nyou are @.", "200 you are Bearer [secret KEY].");
        check(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
            "200 ab",
        );
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zipped.write_all(b"zipped").unwrap();
        let head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n".to_vec();
        let whole = [head, zipped.finish().unwrap()].concat();
        check(whole[..whole.len() - 9].to_vec().leak(), "cut_reply billed");
        check(whole.leak(), "200 zipped");
    }

    #[test]
    fn broken_replies_are_faults() {
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut", "cut_reply billed");
        check(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", "cut_reply billed");
        check(b"", "connection billed");
        check(b"~", "timeout billed");
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nslow~", "timeout billed");
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\xff", "invalid_utf8 billed");
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n", "reply_too_large billed");
        let mut long = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        long.resize(2000, b'a');
        check(long.leak(), "reply_too_large billed");
    }

    #[test]
    fn errors_count_even_when_their_bodies_are_broken() {
        check(b"HTTP/1.1 401 No\r\ncontent-length: 9\r\n\r\nno\xff", "401 no\u{fffd}");
    }

    #[test]
    fn redirects_are_told_not_followed() {
        check(
            b"HTTP/1.1 307 Go\r\nlocation: http://evil/@\r\ncontent-length: 0\r\n\r\n",
            "`127.0.0.1` sends us on to `http://evil/Bearer [secret KEY]` (status 307); keys never travel along a redirect: write the final URL",
        );
    }

    #[tokio::test]
    async fn a_refused_connection_is_not_billed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let Err(Fault::Transient { code, message, billed }) = post(&url).await else {
            panic!("nobody listens")
        };
        assert_eq!((code, billed), ("connection", false));
        assert!(
            message.starts_with("no connection to `127.0.0.1:") && message.contains("refused"),
            "{message}"
        );
    }

    #[test]
    fn a_client_is_not_built_over_a_problem() {
        let none = BTreeMap::new();
        let build = |url: &str, key: &'static str| {
            let endpoint = Endpoint { key_env: Some(key), ..endpoint(url, &none) };
            messages(HttpClient::new(&endpoint, secrets(), 1).err().unwrap_or_default())
        };
        assert_eq!(build("http://h/", "KEY"), ["the value of `KEY` would travel unencrypted to `h`"]);
        assert_eq!(build("http://localhost/", "OTHER"), ["the environment variable `OTHER` is not set"]);
        let shown =
            format!("{:?}", HttpClient::new(&endpoint("http://[::1]/", &none), secrets(), 1).unwrap());
        assert!(!shown.contains("very-secret"), "{shown}");
    }
}
