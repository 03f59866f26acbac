//! The fake teacher's HTTP side: connections, routes, and the way of a chat request from its bytes to
//! its reply. What is replied is decided in `answer.rs`, what is counted in `book.rs`.

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
use super::book::{Book, Busy, Call, Notes, SharedBook, Stats, open};
use super::chat::Ask;
use super::config::{FakeConfig, Fault};
use super::embed::Embed;
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
            return ask(&server, &parts, body, Shape::Chat, reset).await;
        }
        (&Method::POST, "/v1/messages" | "/messages") => {
            return ask(&server, &parts, body, Shape::Messages, reset).await;
        }
        (&Method::POST, "/v1/embeddings" | "/embeddings") => {
            return ask(&server, &parts, body, Shape::Embeddings, reset).await;
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

/// What a route is asked for.
#[derive(Clone, Copy)]
enum Shape {
    Chat,
    Messages,
    Embeddings,
}

/// What a request asks for, read.
enum Wanted<'a> {
    Text(Box<Ask<'a>>),
    Vector(Embed),
}

impl Wanted<'_> {
    fn read<'a>(shape: Shape, body: &'a [u8], key: Option<&str>) -> Result<Wanted<'a>, Reply> {
        match shape {
            Shape::Embeddings => Embed::read(body, key).map(Wanted::Vector),
            Shape::Chat | Shape::Messages => Ask::read(body)
                .map(|ask| Wanted::Text(Box::new(ask)))
                .map_err(|message| Reply::error(400, &message, "invalid_request_error", None, key)),
        }
    }

    fn worst_tokens(&self, config: &FakeConfig) -> u64 {
        match self {
            Wanted::Text(ask) => ask.worst_tokens(config.reply_bytes),
            Wanted::Vector(embed) => embed.tokens,
        }
    }

    fn reply(&self, config: &FakeConfig, hash: u128, fault: Option<Fault>, key: Option<&str>) -> Reply {
        match self {
            Wanted::Text(ask) => answer::reply(config, ask, hash, fault, key),
            Wanted::Vector(embed) => embed.reply(config, fault, key),
        }
    }
}

async fn ask(
    server: &Server,
    parts: &Parts,
    body: Incoming,
    shape: Shape,
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
    let (reply, fault) = match shape {
        Shape::Chat | Shape::Embeddings => answered(server, &mut call, shape, &body, body_hash, key).await?,
        Shape::Messages => {
            let chat = anthropic::to_chat(&body).unwrap_or_else(String::into_bytes);
            let (reply, fault) = answered(server, &mut call, shape, &chat, body_hash, key).await?;
            (anthropic::to_message(reply, &body), fault)
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
    shape: Shape,
    body: &[u8],
    body_hash: u128,
    key: Option<&str>,
) -> io::Result<(Reply, Option<Fault>)> {
    let config = &server.config;
    let wanted = match Wanted::read(shape, body, key) {
        Ok(wanted) => wanted,
        Err(reply) => return Ok((reply, None)),
    };
    if let Some(places) = &server.places {
        call.queue();
        // The places are never closed.
        call.leave_queue(places.clone().acquire_owned().await.map_err(io::Error::other)?);
    }
    let admitted = match call.admit(wanted.worst_tokens(config)) {
        Ok(admitted) => admitted,
        Err(busy) => return Ok((too_many(&busy, config, key), None)),
    };
    if config.fail_after.is_some_and(|most| admitted.before >= most) {
        return Ok((Reply::error(503, "The service is down", "server_error", None, key), None));
    }
    let fault = config.draw_fault(body_hash, admitted.seen);
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
    Ok((wanted.reply(config, body_hash, fault, key), fault))
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
