//! The fake teacher's HTTP side: connections, routes, and the way of a request from its bytes to
//! its reply. What is replied is decided in `answer.rs` and `embed.rs`, what is counted in `book.rs`.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_128;

use super::answer::{self, Reply};
use super::anthropic;
use super::batch_routes::{self, Route, SharedBatches};
use super::batches::Shape;
use super::book::{Book, Busy, Call, Notes, SharedBook, Stats, open};
use super::chat::Ask;
use super::config::{FakeConfig, Fault};
use super::embed;
use super::limits::{header_duration, whole_ms};
use super::wire::{ReplyBody, ResetSwitch, Socket};
use crate::clock;

/// A larger request body gets a 413.
const BODY_MAX_BYTES: usize = 32 << 20;
/// The same for batches: a little above what OpenAI and Anthropic take.
const BATCH_MAX_BYTES: usize = 300 << 20;
/// How long a hanging request is held.
const HANG: Duration = Duration::from_secs(3600);
/// Before connections are accepted again when the system has no file handles left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ECHOED_KEY: HeaderName = HeaderName::from_static("x-echoed-key");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// What all connections share.
pub struct Server {
    config: FakeConfig,
    book: SharedBook,
    pub(super) batches: SharedBatches,
    /// The places of `--in-flight` when requests over it wait.
    places: Option<Arc<Semaphore>>,
}

impl Server {
    pub fn new(config: FakeConfig) -> Server {
        let places = config.in_flight.filter(|_| config.queue);
        let places = places.map(|places| Arc::new(Semaphore::new(places as usize)));
        let book = Book::new(&config, clock::now()).shared();
        Server { config, book, batches: SharedBatches::default(), places }
    }

    pub fn config(&self) -> &FakeConfig {
        &self.config
    }

    pub fn stats(&self) -> Stats {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner).stats();
        Stats { batches, ..open(&self.book).stats(clock::now()) }
    }

    /// Serves until dropped, which ends all connections.
    pub async fn run(self: Arc<Server>, listener: TcpListener) -> Infallible {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(connection(self.clone(), stream))),
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// Counts a connection as open until dropped.
struct Connection(SharedBook);

impl Connection {
    fn count(book: &SharedBook) -> Connection {
        open(book).connection(true);
        Connection(book.clone())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        open(&self.0).connection(false);
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream) {
    let _counted = Connection::count(&server.book);
    // Without it small replies may wait for an acknowledgement; a socket that refuses is just slower.
    let _ = stream.set_nodelay(true);
    let reset = ResetSwitch::new(AtomicBool::new(false));
    let socket = TokioIo::new(Socket::new(stream, reset.clone()));
    let service = service_fn(move |request| exchange(server.clone(), request, reset.clone()));
    // Connections that break are the client's business, or ours on purpose.
    let _ = hyper::server::conn::http1::Builder::new()
        .auto_date_header(false)
        .serve_connection(socket, service)
        .await;
}

/// One request and its reply; an error breaks the connection.
async fn exchange(
    server: Arc<Server>,
    request: Request<Incoming>,
    reset: ResetSwitch,
) -> io::Result<Response<ReplyBody>> {
    let (parts, body) = request.into_parts();
    let route = parts.uri.path().trim_end_matches('/');
    if let Some(about) = Route::of(&parts.method, route) {
        let Some(body) = read(body, BATCH_MAX_BYTES).await? else {
            let reply = Reply::error(413, "the batch is too large", "invalid_request_error", None, None);
            return Ok(response(reply, HeaderMap::new(), None, reset));
        };
        let reply = batch_routes::reply(&server, about, parts.uri.query().unwrap_or_default(), body).await?;
        return Ok(response(reply, HeaderMap::new(), None, reset));
    }
    let other = match (&parts.method, route) {
        (&Method::POST, "/v1/chat/completions" | "/chat/completions") => {
            return call(&server, &parts, body, Kind::Chat(Shape::OpenAi), reset).await;
        }
        (&Method::POST, "/v1/messages" | "/messages") => {
            return call(&server, &parts, body, Kind::Chat(Shape::Anthropic), reset).await;
        }
        (&Method::POST, "/v1/embeddings" | "/embeddings") => {
            return call(&server, &parts, body, Kind::Vectors, reset).await;
        }
        (&Method::GET, "/v1/models" | "/models") => {
            let model = json!({ "id": "fake", "object": "model", "created": 0, "owned_by": "textmill" });
            Reply::json(&json!({ "object": "list", "data": [model] }))
        }
        (&Method::GET, "/stats") => Reply::json(&server.stats()),
        (&Method::POST, "/stats/reset") => {
            Reply::json(&open(&server.book).reset(clock::now(), clock::unix_ms()))
        }
        (&Method::GET, "/health") => Reply::json(&json!({ "status": "ok" })),
        (method, _) => {
            let message = format!("Unknown request URL: {method} {}", parts.uri.path());
            Reply::error(404, &message, "invalid_request_error", Some("unknown_url"), None)
        }
    };
    Ok(response(other, HeaderMap::new(), None, reset))
}

/// What a call asks for.
#[derive(Clone, Copy)]
enum Kind {
    Chat(Shape),
    Vectors,
}

/// A call, read.
enum Asked<'a> {
    Chat(Ask<'a>),
    Vectors(embed::Ask),
}

impl<'a> Asked<'a> {
    fn chat(body: &'a [u8], key: Option<&str>) -> Result<Asked<'a>, Reply> {
        let bad = |message: String| Reply::error(400, &message, "invalid_request_error", None, key);
        Ask::read(body).map(Asked::Chat).map_err(bad)
    }

    /// Most tokens that it may take.
    fn worst_tokens(&self, reply_bytes: u64) -> u64 {
        match self {
            Asked::Chat(ask) => ask.worst_tokens(reply_bytes),
            Asked::Vectors(ask) => ask.tokens(),
        }
    }

    fn shows(&self, fault: Fault) -> bool {
        matches!(self, Asked::Chat(_)) || embed::shows(fault)
    }

    fn reply(&self, config: &FakeConfig, hash: u128, fault: Option<Fault>, key: Option<&str>) -> Reply {
        match self {
            Asked::Chat(ask) => answer::reply(config, ask, hash, fault, key),
            Asked::Vectors(ask) => embed::reply(config, ask, fault, key),
        }
    }
}

async fn call(
    server: &Server,
    parts: &Parts,
    body: Incoming,
    kind: Kind,
    reset: ResetSwitch,
) -> io::Result<Response<ReplyBody>> {
    let key = parts.headers.get(AUTHORIZATION).filter(|_| server.config.echo_key);
    let key = key.and_then(|key| key.to_str().ok()).map(|key| key.strip_prefix("Bearer ").unwrap_or(key));
    let mut headers = HeaderMap::with_capacity(16);
    if let Some(key) = key.and_then(|key| HeaderValue::from_str(key).ok()) {
        headers.insert(ECHOED_KEY, key);
    }
    let Some(body) = read(body, BODY_MAX_BYTES).await? else {
        let message = format!("The request body is larger than {BODY_MAX_BYTES} bytes");
        let code = Some("request_too_large");
        let reply = Reply::error(413, &message, "invalid_request_error", code, key);
        return Ok(response(reply, headers, None, reset));
    };
    let body_hash = xxh3_128(&body);
    let request_id = parts.headers.get(&REQUEST_ID).cloned();
    let request_id =
        request_id.or_else(|| HeaderValue::from_str(&format!("req_{:016x}", body_hash as u64)).ok());
    headers.extend(request_id.map(|id| (REQUEST_ID, id)));
    let mut call = Call::arrive(&server.book, body_hash);
    let (reply, fault) = match kind {
        Kind::Chat(Shape::OpenAi) => {
            answered(server, &mut call, &body, body_hash, Asked::chat(&body, key), key).await?
        }
        Kind::Chat(Shape::Anthropic) => {
            let chat = anthropic::to_chat(&body).unwrap_or_else(String::into_bytes);
            let asked = Asked::chat(&chat, key);
            let (reply, fault) = answered(server, &mut call, &chat, body_hash, asked, key).await?;
            (anthropic::to_message(reply, &body), fault)
        }
        Kind::Vectors => {
            let asked = embed::Ask::read(&body, key).map(Asked::Vectors);
            answered(server, &mut call, &body, body_hash, asked, key).await?
        }
    };
    let notes = call.reply(&reply, fault);
    limit_headers(&mut headers, &notes);
    Ok(response(reply, headers, Some(call), reset))
}

/// The whole body; `None` when it is too large. An error when the client left.
async fn read(body: Incoming, bytes_max: usize) -> io::Result<Option<Bytes>> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Ok(None);
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(Some(collected.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The reply to a request, when its time has come, and the fault that it shows.
async fn answered(
    server: &Server,
    call: &mut Call,
    body: &[u8],
    body_hash: u128,
    asked: Result<Asked<'_>, Reply>,
    key: Option<&str>,
) -> io::Result<(Reply, Option<Fault>)> {
    let config = &server.config;
    let asked = match asked {
        Ok(asked) => asked,
        Err(reply) => return Ok((reply, None)),
    };
    if let Some(places) = &server.places {
        call.queue();
        // The places are never closed.
        call.leave_queue(places.clone().acquire_owned().await.map_err(io::Error::other)?);
    }
    let admitted = match call.admit(asked.worst_tokens(config.reply_bytes)) {
        Ok(admitted) => admitted,
        Err(busy) => return Ok((too_many(&busy, config, key), None)),
    };
    if config.fail_after.is_some_and(|most| admitted.before >= most) {
        return Ok((Reply::error(503, "The service is down", "server_error", None, key), None));
    }
    let fault = config.draw_fault(body_hash, admitted.seen).filter(|fault| asked.shows(*fault));
    if let Some(reply) = fault.and_then(|fault| answer::declined(fault, config, key)) {
        return Ok((reply, fault));
    }
    if fault == Some(Fault::Hang) {
        call.hang();
        sleep(HANG).await;
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut wait = answer::latency(config, body_hash, admitted.seen);
    if admitted.seen == 0 {
        wait += hang_once(config, body);
    }
    if !wait.is_zero() {
        sleep(wait).await;
    }
    Ok((asked.reply(config, body_hash, fault, key), fault))
}

/// How long a body that was not seen before hangs.
fn hang_once(config: &FakeConfig, body: &[u8]) -> Duration {
    let holds = |part: &[u8]| body.windows(part.len()).any(|window| window == part);
    let hangs = config.hang_once.iter().filter(|hang| holds(hang.substring.as_bytes()));
    hangs.map(|hang| Duration::from_secs_f64(hang.hang_s)).sum()
}

fn too_many(busy: &Busy, config: &FakeConfig, key: Option<&str>) -> Reply {
    let reply = Reply::error(429, &busy.message, busy.kind, Some("rate_limit_exceeded"), key);
    if config.no_limit_headers { reply } else { reply.retry_after(whole_ms(busy.wait).max(1)) }
}

/// `x-ratelimit-limit-requests` and its kin (platform.openai.com/docs/guides/rate-limits), for the
/// allowances that are limited.
fn limit_headers(headers: &mut HeaderMap, notes: &Notes) {
    const NAMES: [[HeaderName; 3]; 2] = [
        [
            HeaderName::from_static("x-ratelimit-limit-requests"),
            HeaderName::from_static("x-ratelimit-remaining-requests"),
            HeaderName::from_static("x-ratelimit-reset-requests"),
        ],
        [
            HeaderName::from_static("x-ratelimit-limit-tokens"),
            HeaderName::from_static("x-ratelimit-remaining-tokens"),
            HeaderName::from_static("x-ratelimit-reset-tokens"),
        ],
    ];
    for ([limit, remaining, reset], note) in NAMES.into_iter().zip(notes) {
        let Some(note) = note else { continue };
        headers.insert(limit, HeaderValue::from(note.limit));
        headers.insert(remaining, HeaderValue::from(note.remaining));
        headers.extend(HeaderValue::try_from(header_duration(note.reset)).ok().map(|value| (reset, value)));
    }
}

fn response(
    reply: Reply,
    mut headers: HeaderMap,
    call: Option<Call>,
    reset: ResetSwitch,
) -> Response<ReplyBody> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    if let Some(ms) = reply.retry_after_ms {
        headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(ms));
    }
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(ReplyBody::new(reply, call, reset));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
