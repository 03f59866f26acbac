//! Cassettes: recorded traffic of a teacher, served again without a connection.
//!
//! A file of JSON lines, `{"request": <body>, "status": 200, "headers": {...}, "reply": "<body>"}`,
//! secrets scrubbed. A request matches when its JSON is equal, whatever the order of its keys.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Fault;
use super::http::{HttpClient, RawReply, words};
use super::secret::Secrets;
use crate::problem::{Place, Problem, shown_path};

/// Cassettes are test data and are held in memory; a larger file is refused.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// How much of a request takes part in the search for the nearest one.
const COMPARED_BYTES_MAX: usize = 16 << 10;
/// How many recordings take part in it.
const COMPARED_MAX: usize = 2000;
/// How many lines of each side a miss shows, and how much of a line.
const SHOWN_LINES_MAX: usize = 6;
const SHOWN_CHARS_MAX: usize = 120;

/// One request and what came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    request: Value,
    status: u16,
    /// The headers that mean something to us: waits and limits.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    reply: String,
}

/// How a teacher's requests travel.
#[derive(Debug)]
pub enum Carrier {
    Http(HttpClient),
    /// Over HTTP, and every exchange is kept in a cassette.
    Recorded(HttpClient, Arc<Recorder>),
    Cassette(Cassette),
}

impl Carrier {
    /// Sends a JSON body and gives what came back.
    ///
    /// # Errors
    /// See [`HttpClient::post`] and [`Cassette::reply_to`]. When a cassette could not be written,
    /// every later call is `Fatal`; the reply at hand is paid for and passed on.
    pub async fn post(&self, body: Bytes) -> Result<RawReply, Fault> {
        match self {
            Carrier::Http(http) => http.post(body).await,
            Carrier::Cassette(cassette) => cassette.reply_to(&body),
            Carrier::Recorded(http, recorder) => {
                if let Some(why) = recorder.failure() {
                    return Err(Fault::Fatal { message: why.to_owned() });
                }
                let reply = http.post(body.clone()).await?;
                let (writer, kept) = (Arc::clone(recorder), reply.clone());
                let written = tokio::task::spawn_blocking(move || writer.record(&body, &kept)).await;
                let why = match written {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(error) => Some(error.to_string()),
                };
                if let Some(why) = why {
                    recorder.failure.get_or_init(|| format!("the cassette cannot be written: {why}"));
                }
                Ok(reply)
            }
        }
    }
}

/// A teacher's recorded traffic.
#[derive(Debug)]
pub struct Cassette {
    path: PathBuf,
    exchanges: Vec<Exchange>,
    /// Where the exchanges of each request stand, in recorded order, by its canonical text.
    places: HashMap<String, Vec<usize>>,
    /// How often each request was served, by the place of its first exchange.
    served: Mutex<HashMap<usize, usize>>,
}

impl Cassette {
    /// Reads a cassette file whole.
    ///
    /// # Errors
    /// A file that cannot be read, and every line that is no exchange.
    pub fn load(path: &Path) -> Result<Cassette, Vec<Problem>> {
        let unreadable = |why: String| {
            vec![
                Problem::error(Place::Nowhere, format!("the cassette `{}` cannot be read", shown_path(path)))
                    .cause(why),
            ]
        };
        let mut text = String::new();
        let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
        file.take(FILE_BYTES_MAX + 1)
            .read_to_string(&mut text)
            .map_err(|error| unreadable(error.to_string()))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(unreadable(format!("it is longer than {FILE_BYTES_MAX} bytes")));
        }
        let (mut exchanges, mut problems) = (Vec::new(), Vec::new());
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match serde_json::from_str::<Exchange>(line) {
                Ok(exchange) => exchanges.push(exchange),
                Err(error) => {
                    let place = Place::File {
                        path: path.to_owned(),
                        line: Some(index + 1),
                        column: Some(error.column()),
                    };
                    problems.push(
                        Problem::error(place, "this line is no recorded exchange").cause(error.to_string()),
                    );
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, exchange) in exchanges.iter().enumerate() {
            places.entry(canonical(&exchange.request).to_string()).or_default().push(place);
        }
        Ok(Cassette { path: path.to_owned(), exchanges, places, served: Mutex::default() })
    }

    /// The reply that was recorded for a request body. Equal requests are served in recorded order;
    /// when all were served, the last one again.
    ///
    /// # Errors
    /// `BadRequest` when nothing equal was recorded, with the difference to the nearest request.
    pub fn reply_to(&self, body: &[u8]) -> Result<RawReply, Fault> {
        let request: Value = serde_json::from_slice(body).map_err(|error| Fault::BadRequest {
            message: format!("the request body is no JSON: {error}"),
        })?;
        let request = canonical(&request);
        let Some(places) = self.places.get(&request.to_string()) else {
            return Err(Fault::BadRequest { message: self.miss(&request) });
        };
        let turn = {
            let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = served.entry(places[0]).or_default();
            *turn += 1;
            *turn - 1
        };
        let exchange = &self.exchanges[places[turn.min(places.len() - 1)]];
        let mut headers = HeaderMap::new();
        for (name, value) in &exchange.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
            {
                headers.insert(name, value);
            }
        }
        Ok(RawReply { status: exchange.status, headers, body: exchange.reply.clone() })
    }

    fn miss(&self, request: &Value) -> String {
        let asked = lines(request);
        let compared = head(&asked);
        let likeness = |exchange: &Exchange| {
            strsim::sorensen_dice(compared, head(&lines(&canonical(&exchange.request))))
        };
        let nearest = self
            .exchanges
            .iter()
            .take(COMPARED_MAX)
            .map(|exchange| (likeness(exchange), exchange))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let path = self.path.display();
        let Some((_, nearest)) = nearest else {
            return format!("the cassette `{path}` is empty; record it with `record:`");
        };
        let difference = difference(&lines(&canonical(&nearest.request)), &asked);
        format!(
            "the cassette `{path}` has no such request; the nearest one (-) differs from it (+):\n{difference}"
        )
    }
}

/// A value with its keys sorted and whole floats written as integers: equal JSON, equal text.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            Value::Object(
                sorted.into_iter().map(|(key, value)| (key.clone(), canonical(value))).collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        Value::Number(number) => match number.as_f64() {
            // Up to 2^53 floats and integers are the same numbers.
            Some(float)
                if number.is_f64() && float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 =>
            {
                Value::from(float as i64)
            }
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

/// A request in lines, its texts broken where they have line breaks, so that a prompt is compared
/// line by line.
fn lines(request: &Value) -> String {
    format!("{request:#}").replace("\\n", "\n")
}

fn head(text: &str) -> &str {
    &text[..text.floor_char_boundary(COMPARED_BYTES_MAX)]
}

/// What stands between the lines that both texts begin and end with, at most a few of each.
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[start..], &new[start..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    let mut shown = Vec::new();
    for (mark, side, other) in [('-', old, new), ('+', new, old)] {
        for (index, line) in side.iter().take(SHOWN_LINES_MAX).enumerate() {
            shown.push(format!("{mark} {}", clip(line, other.get(index).copied().unwrap_or_default())));
        }
        if side.len() > SHOWN_LINES_MAX {
            shown.push(format!("{mark} ... and {} lines more", side.len() - SHOWN_LINES_MAX));
        }
    }
    shown.join("\n")
}

/// The part of a long line round where it first differs from its counterpart.
fn clip(line: &str, other: &str) -> String {
    let same = line.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let skipped =
        if line.chars().count() > SHOWN_CHARS_MAX { same.saturating_sub(SHOWN_CHARS_MAX / 3) } else { 0 };
    let part: String = line.chars().skip(skipped).take(SHOWN_CHARS_MAX).collect();
    let before = if skipped > 0 { "..." } else { "" };
    let after = if skipped + SHOWN_CHARS_MAX < line.chars().count() { "..." } else { "" };
    // Leading blanks show how deep a line stands in the request.
    let indent = part.len() - part.trim_start().len();
    format!("{before}{}{}{after}", &part[..indent], words(&part))
}

/// Writes exchanges to a cassette file, one synced line at a time.
#[derive(Debug)]
pub struct Recorder {
    file: Mutex<File>,
    secrets: Arc<Secrets>,
    /// The first failure to write.
    failure: OnceLock<String>,
}

impl Recorder {
    /// Opens a cassette to append to; makes the file if there is none, drops a last line that a crash
    /// cut off, and keeps other processes from writing to it.
    ///
    /// # Errors
    /// The file cannot be opened, or somebody else records to it.
    pub fn open(path: &Path, secrets: Arc<Secrets>) -> Result<Recorder, Vec<Problem>> {
        let wrong = |why: String| {
            let message = format!("the cassette `{}` cannot be recorded to", path.display());
            vec![Problem::error(Place::Nowhere, message).cause(why)]
        };
        let open = || -> io::Result<File> {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            file.try_lock()?;
            drop_cut_line(&mut file)?;
            Ok(file)
        };
        let file = open().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => wrong("another run records to it".to_owned()),
            _ => wrong(error.to_string()),
        })?;
        Ok(Recorder { file: Mutex::new(file), secrets, failure: OnceLock::new() })
    }

    /// Appends one exchange and waits until it is on disk. Blocks.
    ///
    /// # Errors
    /// What the file system says; a body that is no JSON.
    pub fn record(&self, body: &[u8], reply: &RawReply) -> io::Result<()> {
        let kept = |name: &str| {
            ["retry-after", "x-ms-retry-after", "x-ratelimit-", "anthropic-ratelimit-"]
                .iter()
                .any(|start| name.starts_with(start))
        };
        let headers = reply.headers.iter().filter(|(name, _)| kept(name.as_str()));
        let exchange = Exchange {
            request: serde_json::from_slice(body)?,
            status: reply.status,
            headers: headers
                .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
                .collect(),
            reply: reply.body.clone(),
        };
        let mut line = self.secrets.scrub_owned(serde_json::to_string(&exchange)?);
        line.push('\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes())?;
        file.sync_data()
    }

    /// Why the cassette lacks an exchange, in a sentence; `None` while it has all.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

/// Cuts the file after its last line break.
fn drop_cut_line(file: &mut File) -> io::Result<()> {
    let mut end = file.metadata()?.len();
    let mut block = [0; 4096];
    while end > 0 {
        let size = end.min(block.len() as u64);
        file.seek(SeekFrom::Start(end - size))?;
        let block = &mut block[..usize::try_from(size).unwrap_or(0)];
        file.read_exact(block)?;
        if let Some(position) = block.iter().rposition(|byte| *byte == b'\n') {
            return file.set_len(end - size + position as u64 + 1);
        }
        end -= size;
    }
    file.set_len(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(status: u16, body: &str) -> RawReply {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static("2"));
        headers.insert("set-cookie", HeaderValue::from_static("a"));
        RawReply { status, headers, body: body.to_owned() }
    }

    /// A cassette of two replies to one request and one to another, recorded under a secret.
    fn recorded() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.jsonl");
        let secrets = Arc::new(Secrets::load(["KEY"], |_| Some("very-secret".to_owned())));
        let recorder = Recorder::open(&path, Arc::clone(&secrets)).unwrap();
        assert!(Recorder::open(&path, secrets).unwrap_err()[0].causes[0].contains("another run"));
        recorder.record(br#"{"a":1.0,"b":[2]}"#, &raw(429, "slow very-secret")).unwrap();
        recorder.record(br#"{"a":1,"b":[2]}"#, &raw(200, "done")).unwrap();
        recorder.record(br#"{"m":"one\ntwo\nthree"}"#, &raw(200, "else")).unwrap();
        (folder, path)
    }

    #[track_caller]
    fn check(cassette: &Cassette, body: &Value, expected: (u16, &str)) {
        let reply = cassette.reply_to(body.to_string().as_bytes()).unwrap();
        assert_eq!((reply.status, reply.body.as_str()), expected);
    }

    #[test]
    fn equal_requests_are_served_in_recorded_order() {
        let (_folder, path) = recorded();
        let cassette = Cassette::load(&path).unwrap();
        check(&cassette, &json!({ "b": [2], "a": 1 }), (429, "slow [secret KEY]"));
        check(&cassette, &json!({ "m": "one\ntwo\nthree" }), (200, "else"));
        check(&cassette, &json!({ "b": [2.0], "a": 1 }), (200, "done"));
        check(&cassette, &json!({ "b": [2], "a": 1 }), (200, "done"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("\"retry-after\":\"2\"")
                && !text.contains("set-cookie")
                && !text.contains("very-secret")
        );
    }

    #[test]
    fn a_miss_shows_the_nearest_request() {
        let (_folder, path) = recorded();
        let cassette = Cassette::load(&path).unwrap();
        let miss = cassette.reply_to(json!({ "m": "one\ntoo\nthree" }).to_string().as_bytes()).unwrap_err();
        let Fault::BadRequest { message } = miss else { panic!("a miss is a bad request") };
        assert!(message.ends_with("(+):\n- two\n+ too"), "{message}");
    }

    #[test]
    fn differences_are_short() {
        let (old, new) =
            (format!("{}A{}", "x".repeat(500), "y".repeat(500)), format!("{}B", "x".repeat(500)));
        let shown = difference(&old, &new);
        assert!(shown.contains("xxA") && shown.contains("xxB") && shown.len() < 300, "{shown}");
        assert!(difference("", &"a\n".repeat(99)).ends_with("+ ... and 93 lines more"));
    }

    #[test]
    fn cut_and_broken_lines() {
        let (_folder, path) = recorded();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        write!(file, "{{\"request\":").unwrap();
        let problems = Cassette::load(&path).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(matches!(problems[0].place, Place::File { line: Some(4), .. }));
        drop(Recorder::open(&path, Arc::default()).unwrap());
        assert_eq!(Cassette::load(&path).unwrap().exchanges.len(), 3);
        assert!(Cassette::load(Path::new("/nowhere")).unwrap_err()[0].message.contains("cannot be read"));
    }

    #[tokio::test]
    async fn traffic_over_http_is_recorded() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for reply in ["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone", "HTTP/1.1 500 No\r\n\r\nno"] {
                let _ = stream.read(&mut [0; 4096]);
                stream.write_all(reply.as_bytes()).unwrap();
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.jsonl");
        let config: super::super::api::Api =
            serde_json::from_value(json!({ "url": url, "model": "m" })).unwrap();
        let http = config.connect(Default::default(), folder.path(), Arc::default(), 1).unwrap();
        let carrier = Carrier::Recorded(http, Arc::new(Recorder::open(&path, Arc::default()).unwrap()));
        for (body, expected) in [("{\"a\":1}", "done"), ("{\"a\":2}", "no")] {
            assert_eq!(carrier.post(Bytes::from_static(body.as_bytes())).await.unwrap().body, expected);
        }
        let cassette = Cassette::load(&path).unwrap();
        check(&cassette, &json!({ "a": 2 }), (500, "no"));
        check(&cassette, &json!({ "a": 1 }), (200, "done"));
        // After a failure nothing more is sent.
        let Carrier::Recorded(http, recorder) = carrier else { unreachable!() };
        recorder.failure.get_or_init(|| "disk full".to_owned());
        let refused = Carrier::Recorded(http, recorder).post(Bytes::from_static(b"{}")).await.unwrap_err();
        assert_eq!(refused, Fault::Fatal { message: "disk full".to_owned() });
    }
}
