//! Batches: many requests that a provider answers within a day, for less.
//!
//! How they are sent, asked about and read, for the two providers that have them. What is in a batch, when it is
//! sent and what becomes of its items is decided in `call/batch`.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use reqwest::Url;
use serde_json::Value;
use tokio::sync::mpsc;

use super::Fault;
use super::fault;
use super::format::ApiFormat;
use super::http::{HttpClient, RawReply, Sent};
use crate::clock;

mod anthropic;
mod openai;
pub mod settings;

pub use settings::{BatchFile, BatchSettings, Mode};

/// The APIs that have batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchApi {
    OpenAi,
    Anthropic,
}

impl BatchApi {
    pub fn of(format: ApiFormat) -> Option<BatchApi> {
        match format {
            ApiFormat::Openai => Some(BatchApi::OpenAi),
            ApiFormat::Anthropic => Some(BatchApi::Anthropic),
            ApiFormat::Responses | ApiFormat::Gemini | ApiFormat::Embeddings => None,
        }
    }

    /// Most items and most bytes of one batch.
    pub fn limits(self) -> (usize, u64) {
        match self {
            BatchApi::OpenAi => openai::LIMITS,
            BatchApi::Anthropic => anthropic::LIMITS,
        }
    }

    fn path(self) -> &'static str {
        match self {
            BatchApi::OpenAi => "/batches",
            BatchApi::Anthropic => "/messages/batches",
        }
    }

    fn status(self, batch: &Value) -> Status {
        match self {
            BatchApi::OpenAi => openai::status(batch),
            BatchApi::Anthropic => anthropic::status(batch),
        }
    }

    fn item(self, key: &str) -> (String, &'static str) {
        match self {
            BatchApi::OpenAi => openai::item(key),
            BatchApi::Anthropic => anthropic::item(key),
        }
    }

    /// Behind which id of a list to go on.
    fn after(self) -> &'static str {
        match self {
            BatchApi::OpenAi => "after",
            BatchApi::Anthropic => "after_id",
        }
    }

    /// A page of a list, newest first, and the id to go on behind.
    fn page(self, page: &Value) -> (Vec<Listed>, Option<String>) {
        let listed = match self {
            BatchApi::OpenAi => openai::listed,
            BatchApi::Anthropic => anthropic::listed,
        };
        let batches = page["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let last = batches.last().and_then(|batch| batch["id"].as_str()).map(str::to_owned);
        (batches.iter().filter_map(listed).collect(), last.filter(|_| page["has_more"] == true))
    }
}

/// What is round the items of a batch.
struct Frame {
    content_type: String,
    head: String,
    between: &'static str,
    tail: String,
}

/// How far a batch is.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    Working {
        done: u64,
        total: u64,
    },
    /// Paths that its results are read from.
    Ended {
        results: Vec<String>,
    },
    /// None of it was done.
    Failed(Fault),
}

/// A batch in a provider's list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub id: String,
    /// The token that we gave it, where the provider keeps one.
    pub token: Option<String>,
    /// How many items it has, where that is known.
    pub items: Option<u64>,
    pub created_unix_ms: i64,
    pub status: Status,
}

/// What came of one item.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemResult {
    pub custom_id: String,
    pub came: Came,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Came {
    /// What a live call would have brought.
    Reply { status: u16, body: String },
    /// It was not worked on: the batch expired or was cancelled.
    NotRun(String),
}

/// Why a batch has no name yet.
#[derive(Debug)]
pub enum NotSent {
    /// The provider did not take it.
    Fault(Fault),
    /// It may have taken it: its answer did not come.
    Doubt(Fault),
}

/// A batch written to disk, as it is sent.
pub struct Upload {
    file: File,
    bytes: u64,
    content_type: String,
    token: String,
    /// The provider's name for the file, when it has that.
    stored_as: Option<String>,
}

/// Writes a batch item by item; blocks.
pub struct UploadWriter {
    api: BatchApi,
    out: BufWriter<File>,
    frame: Frame,
    token: String,
    is_first: bool,
}

impl UploadWriter {
    pub fn create(api: BatchApi, folder: &Path, token: &str) -> io::Result<UploadWriter> {
        let frame = match api {
            BatchApi::OpenAi => openai::frame(token),
            BatchApi::Anthropic => anthropic::frame(),
        };
        let mut out = BufWriter::new(tempfile::tempfile_in(folder)?);
        out.write_all(frame.head.as_bytes())?;
        Ok(UploadWriter { api, out, frame, token: token.to_owned(), is_first: true })
    }

    /// Adds an item; `body` is JSON on one line.
    pub fn add(&mut self, key: &str, body: &[u8]) -> io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.out.write_all(self.frame.between.as_bytes())?;
        }
        let (before, behind) = self.api.item(key);
        self.out.write_all(before.as_bytes())?;
        self.out.write_all(body)?;
        self.out.write_all(behind.as_bytes())
    }

    pub fn finish(mut self) -> io::Result<Upload> {
        self.out.write_all(self.frame.tail.as_bytes())?;
        let mut file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let bytes = file.stream_position()?;
        Ok(Upload { file, bytes, content_type: self.frame.content_type, token: self.token, stored_as: None })
    }
}

impl Upload {
    fn sent(&self) -> Result<Sent, Fault> {
        let again = || {
            let mut file = self.file.try_clone()?;
            file.rewind()?;
            Ok(file)
        };
        let file = again().map_err(|error: io::Error| Fault::Fatal {
            message: format!("a batch that was written to disk cannot be read again: {error}"),
        })?;
        Ok(Sent::File { file, bytes: self.bytes, content_type: self.content_type.clone() })
    }
}

/// The line to a provider's batches.
#[derive(Debug)]
pub struct BatchClient {
    pub api: BatchApi,
    pub settings: BatchSettings,
    client: HttpClient,
    /// The teacher's URL up to and with its version.
    base: Url,
}

/// Batches of one page of a list.
const PAGE: &str = "limit=100";

impl BatchClient {
    pub fn new(api: BatchApi, settings: BatchSettings, client: HttpClient, base: Url) -> BatchClient {
        BatchClient { api, settings, client, base }
    }

    /// The URL that serves the batches.
    pub fn endpoint(&self) -> String {
        self.url(self.api.path(), "").to_string()
    }

    /// Bytes that an item takes in a batch.
    pub fn item_bytes(&self, body_bytes: usize) -> u64 {
        // A key has 64 digits; the rest is the same for all.
        let (before, behind) = self.api.item("");
        (before.len() + 64 + body_bytes + behind.len() + 1) as u64
    }

    /// Sends a batch; the provider's name for it.
    ///
    /// # Errors
    /// Whether the provider certainly does not have it.
    pub async fn submit(&self, upload: &mut Upload) -> Result<String, NotSent> {
        let create = match self.api {
            BatchApi::OpenAi => {
                let file = match &upload.stored_as {
                    Some(file) => file.clone(),
                    None => {
                        let sent = upload.sent().map_err(NotSent::Fault)?;
                        let file = self.ask("/files", "", Some(sent)).await.map_err(NotSent::Fault)?;
                        named(&file).map_err(NotSent::Fault)?
                    }
                };
                let create = openai::create(&file, &upload.token);
                upload.stored_as = Some(file);
                Sent::Json(create.to_string())
            }
            BatchApi::Anthropic => upload.sent().map_err(NotSent::Fault)?,
        };
        let created = self.ask(self.api.path(), "", Some(create)).await.and_then(|batch| named(&batch));
        created.map_err(|fault| match &fault {
            Fault::Transient { code: "connection", billed: false, .. } => NotSent::Fault(fault),
            Fault::Transient { .. } => NotSent::Doubt(fault),
            _ => NotSent::Fault(fault),
        })
    }

    /// How far a batch is.
    pub async fn status(&self, id: &str) -> Result<Status, Fault> {
        let batch = self.ask(&format!("{}/{id}", self.api.path()), "", None).await?;
        Ok(self.api.status(&batch))
    }

    /// The account's batches that were made since a time, newest first.
    pub async fn made_since(&self, unix_ms: i64) -> Result<Vec<Listed>, Fault> {
        let mut found = Vec::new();
        let mut query = PAGE.to_owned();
        loop {
            let page = self.ask(self.api.path(), &query, None).await?;
            let (batches, more) = self.api.page(&page);
            let before = found.len() + batches.len();
            found.extend(batches.into_iter().filter(|batch| batch.created_unix_ms >= unix_ms));
            // Behind an older one there are none but older ones.
            let Some(last) = more.filter(|_| found.len() == before) else { return Ok(found) };
            query = format!("{PAGE}&{}={last}", self.api.after());
        }
    }

    /// Reads the results at a path, in the provider's order, into `sink`; stops early when that is closed.
    pub async fn results(&self, path: &str, sink: mpsc::Sender<ItemResult>) -> Result<(), Fault> {
        let read = |line: String| {
            let result = match self.api {
                BatchApi::OpenAi => openai::result(&line),
                BatchApi::Anthropic => anthropic::result(&line),
            };
            result.map_err(|error| Fault::Transient {
                code: "invalid_reply",
                message: format!("a line of a batch's results cannot be read: {error}"),
                billed: true,
            })
        };
        let (lines, mut inbox) = mpsc::channel(64);
        let reading = self.client.lines(self.url(path, ""), lines);
        // Its end is that of the reading: nobody is left to take more.
        let handing_on = async move {
            while let Some(line) = inbox.recv().await {
                if sink.send(read(line)?).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let (reply, handed_on) = tokio::join!(reading, handing_on);
        handed_on?;
        match reply? {
            Some(reply) => Err(meant(&reply)),
            None => Ok(()),
        }
    }

    fn url(&self, path: &str, query: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            let whole = url.query().map_or_else(|| query.to_owned(), |own| format!("{own}&{query}"));
            url.set_query(Some(&whole));
        }
        url
    }

    /// One exchange of JSON.
    async fn ask(&self, path: &str, query: &str, sent: Option<Sent>) -> Result<Value, Fault> {
        let reply = self.client.exchange(self.url(path, query), sent).await?;
        if !(200..300).contains(&reply.status) {
            return Err(meant(&reply));
        }
        serde_json::from_str(&reply.body).map_err(|error| Fault::Transient {
            code: "invalid_reply",
            message: format!("the reply about a batch is no JSON: {error}"),
            billed: true,
        })
    }
}

fn meant(reply: &RawReply) -> Fault {
    fault::meaning(reply.status, &reply.headers, &reply.body, clock::unix_ms()).fault()
}

fn named(made: &Value) -> Result<String, Fault> {
    made["id"].as_str().map(str::to_owned).ok_or_else(|| Fault::Transient {
        code: "invalid_reply",
        message: "the provider gave no `id`".to_owned(),
        billed: true,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;
    use crate::teacher::api::Api;
    use crate::teacher::fake::{self, FakeConfig};
    use crate::teacher::secret::Secrets;

    /// More batches than two pages of a provider's list hold, and who of them is found.
    async fn check(format: ApiFormat) {
        let running = fake::start(FakeConfig::default()).await.unwrap();
        let api = Api { url: running.url(), ..Api::named("m") };
        let batches = BatchApi::of(format).unwrap();
        let settings = BatchFile::default().settings(Mode::Batch, format).unwrap();
        let secrets = Arc::new(Secrets::load([""; 0], |_| None));
        let folder = tempfile::tempdir().unwrap();
        let client = api.connect_batches((format, batches), settings, folder.path(), secrets).unwrap();
        let mut made = HashSet::new();
        for number in 0..210 {
            let mut writer = UploadWriter::create(client.api, folder.path(), &format!("t{number}")).unwrap();
            writer.add("k", br#"{"model":"m","max_tokens":9,"messages":[]}"#).unwrap();
            made.insert(client.submit(&mut writer.finish().unwrap()).await.unwrap());
        }
        let found = client.made_since(0).await.unwrap();
        let ids: HashSet<String> = found.iter().map(|batch| batch.id.clone()).collect();
        assert_eq!((found.len(), ids), (210, made));
        let tokens = found.iter().filter(|batch| batch.token.is_some()).count();
        assert_eq!(tokens, if client.api == BatchApi::OpenAi { 210 } else { 0 });
        let newest = found.iter().map(|batch| batch.created_unix_ms).max().unwrap();
        assert_eq!(client.made_since(newest + 1).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_list_is_read_page_by_page() {
        check(ApiFormat::Openai).await;
        check(ApiFormat::Anthropic).await;
    }
}
