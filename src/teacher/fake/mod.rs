//! A fake teacher: a server on loopback that speaks OpenAI's chat API and Anthropic's messages, live and in
//! batches, and makes its replies up.
//!
//! It is what crash, load and fault tests run against: cheap per request, exact in its accounts, and
//! as faulty as it is told to be. Replies are a pure function of the request body and the seed. It
//! listens on 127.0.0.1 only, checks no keys, does not stream, and never touches a file.
//!
//! | route | reply |
//! |---|---|
//! | `POST /v1/chat/completions`, `/chat/completions` | a completion, an error or a fault |
//! | `POST /v1/embeddings`, `/embeddings` | a vector of length 1 for each text, a function of it; an error or a fault |
//! | `POST /v1/messages` | the same in Anthropic's shape |
//! | `/v1/files`, `/v1/batches` | OpenAI's batches |
//! | `/v1/messages/batches` | Anthropic's batches |
//! | `GET /v1/models`, `/models` | one model |
//! | `GET /stats` | [`Stats`] as JSON |
//! | `POST /stats/reset` | the [`Stats`] until now, which then start anew |
//! | `GET /health` | `{"status":"ok"}` |
//!
//! What a reply says: about `--reply-bytes` of made-up prose; JSON that fits the `response_format` if
//! there is one; a Python function if the last user message opens a fenced `python` block; exactly what stands
//! between `<<reply>>` and `<</reply>>` in the last user message. `stop`, `max_tokens` and `n` hold for
//! all of them. A token is 4 characters. With `tools`, some replies are calls of them with arguments that
//! fit, all where `tool_choice` says so; `logprobs` come with `top_logprobs`. Faults of what a model writes
//! (`length`, `refusal`) are none of vectors.
//!
//! The way of a request: read (400, 413), a place (`--in-flight`: 429 or wait), the allowances (429),
//! `--fail-after`, faults that decline, latency, the reply or a fault that spoils it. A request refused
//! by a limit costs nothing; an admitted one costs a request and, until its reply begins, its messages
//! and `max_tokens`; then what it really used (nothing for an error). If its client leaves before, the
//! whole charge stays.

mod answer;
mod anthropic;
mod batch_routes;
mod batches;
mod book;
mod chat;
mod config;
mod dice;
mod embed;
mod limits;
mod schema;
mod server;
#[cfg(test)]
mod tests;
mod wire;
mod words;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use batches::BatchStats;
pub use book::Stats;
pub use config::{FAULTS, FakeConfig, Fault, FaultRate, HangOnce};
use server::Server;

/// A fake teacher that serves until it is dropped.
pub struct Running {
    addr: SocketAddr,
    server: Arc<Server>,
    task: JoinHandle<()>,
}

impl Running {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL to give to a client: `http://127.0.0.1:PORT/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    pub fn stats(&self) -> Stats {
        self.server.stats()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a fake teacher on the current tokio runtime (which needs its clock and its network).
///
/// # Errors
/// `InvalidInput` when the settings contradict each other; else what the system says to the port.
pub async fn start(config: FakeConfig) -> io::Result<Running> {
    if let Some(problem) = config.problem() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let port = config.port;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
        let hint = "is another program using it? `--port 0` picks a free one";
        io::Error::new(error.kind(), format!("cannot listen on 127.0.0.1:{port}: {error}; {hint}"))
    })?;
    let addr = listener.local_addr()?;
    let server = Arc::new(Server::new(config));
    let serving = server.clone();
    let task = tokio::spawn(async move {
        serving.run(listener).await;
    });
    Ok(Running { addr, server, task })
}

/// Runs a fake teacher until `shutdown` is done. A caller that must know the port uses [`start`].
///
/// # Errors
/// As [`start`].
pub async fn serve(config: FakeConfig, shutdown: impl Future) -> io::Result<()> {
    let _running = start(config).await?;
    shutdown.await;
    Ok(())
}
