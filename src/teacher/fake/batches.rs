//! The batches of a fake teacher, in OpenAI's and in Anthropic's shape, and the account of what was paid for
//! which item. An item is answered as a live call with the same body would be. No HTTP here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use super::answer::{self, Reply};
use super::anthropic;
use super::chat::Ask;
use super::config::FakeConfig;
use super::dice::Dice;

/// What the dice are used for, beside what `answer.rs` uses them for.
const EXPIRED_SALT: u64 = 1 << 42;
const ORDER_SALT: u64 = 1 << 43;
/// Batches of one page of a list.
const PAGE: usize = 100;

/// What `GET /stats` says of batches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchStats {
    pub batches: u64,
    pub items: u64,
    /// Items that had a usable answer, which is what a provider bills.
    pub paid: u64,
    /// Those of them whose `custom_id` had been paid before.
    pub paid_again: u64,
    pub expired: u64,
    pub errored: u64,
    pub items_max: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    OpenAi,
    Anthropic,
}

/// An item, read.
pub struct Item {
    custom_id: String,
    body: Bytes,
}

struct Batch {
    id: String,
    shape: Shape,
    metadata: Value,
    items: u64,
    created_unix_ms: i64,
    ready: Instant,
    /// Results, and for OpenAI the errors apart.
    output: Bytes,
    errors: Bytes,
    counts: [u64; 3],
}

#[derive(Default)]
pub struct Batches {
    files: HashMap<String, Bytes>,
    made: Vec<Batch>,
    paid: HashMap<String, u32>,
    /// How often each body was in a batch.
    seen: HashMap<u128, u32>,
    stats: BatchStats,
}

#[derive(Deserialize)]
struct Line<'a> {
    custom_id: String,
    #[serde(borrow, alias = "params")]
    body: &'a RawValue,
}

#[derive(Deserialize)]
struct Requests<'a> {
    #[serde(borrow)]
    requests: Vec<Line<'a>>,
}

impl From<Line<'_>> for Item {
    fn from(line: Line<'_>) -> Item {
        Item { custom_id: line.custom_id, body: Bytes::copy_from_slice(line.body.get().as_bytes()) }
    }
}

impl Batches {
    pub fn stats(&self) -> BatchStats {
        self.stats.clone()
    }

    /// Keeps the file of a form (RFC 7578): what stands behind the last part's headers.
    pub fn put_file(&mut self, form: &Bytes) -> Option<Value> {
        let find = |from: usize, what: &[u8]| {
            form[from..].windows(what.len()).position(|window| window == what).map(|at| from + at)
        };
        let boundary = [b"\r\n", &form[..find(0, b"\r\n")?]].concat();
        let file = find(0, b"filename=")?;
        let start = find(file, b"\r\n\r\n")? + 4;
        let end = form.len()
            - form[start..].windows(boundary.len()).rev().position(|window| window == boundary)?
            - boundary.len();
        let id = format!("file-{}", self.files.len() + 1);
        self.files.insert(id.clone(), form.slice(start..end));
        Some(json!({ "id": id, "object": "file", "bytes": end - start, "purpose": "batch" }))
    }

    /// The items of a file that was put here.
    pub fn items_of(&self, file: &str) -> Result<Vec<Item>, String> {
        let file = self.files.get(file).ok_or_else(|| format!("No such File object: {file}"))?;
        let lines = file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let item = |line: &[u8]| serde_json::from_slice::<Line<'_>>(line).map(Item::from);
        lines.map(item).collect::<Result<_, _>>().map_err(|error| format!("invalid JSONL: {error}"))
    }

    /// How often each item's body was in a batch before; they are in one now.
    pub fn see(&mut self, items: &[Item]) -> Vec<u32> {
        let see = |item: &Item| {
            let times = self.seen.entry(xxh3_128(&item.body)).or_default();
            *times += 1;
            *times - 1
        };
        items.iter().map(see).collect()
    }

    /// Takes a batch and bills it.
    pub fn make(
        &mut self,
        shape: Shape,
        metadata: Value,
        items: u64,
        results: Results,
        (now, unix_ms, takes): (Instant, i64, Duration),
    ) -> Value {
        let id =
            format!("{}_{}", if shape == Shape::OpenAi { "batch" } else { "msgbatch" }, self.made.len() + 1);
        for custom_id in &results.paid {
            let times = self.paid.entry(custom_id.clone()).or_default();
            *times += 1;
            self.stats.paid_again += u64::from(*times > 1);
        }
        let [paid, errored, expired] = results.counts;
        self.stats.batches += 1;
        self.stats.items += items;
        self.stats.items_max = self.stats.items_max.max(items);
        self.stats.paid += paid;
        self.stats.errored += errored;
        self.stats.expired += expired;
        let Results { output, errors, counts, .. } = results;
        self.made.push(Batch {
            id,
            shape,
            metadata,
            items,
            created_unix_ms: unix_ms,
            ready: now + takes,
            output,
            errors,
            counts,
        });
        self.made.last().map_or(Value::Null, |batch| batch.shown(now))
    }

    pub fn batch(&self, id: &str, now: Instant) -> Option<Value> {
        self.made.iter().find(|batch| batch.id == id).map(|batch| batch.shown(now))
    }

    /// A page of the batches, newest first, behind `after`.
    pub fn list(&self, shape: Shape, after: Option<&str>, now: Instant) -> Value {
        let all = self.made.iter().rev().filter(|batch| batch.shape == shape);
        let mut behind: Vec<&Batch> = match after {
            Some(after) => all.skip_while(|batch| batch.id != after).skip(1).collect(),
            None => all.collect(),
        };
        let more = behind.len() > PAGE;
        behind.truncate(PAGE);
        let data: Vec<Value> = behind.iter().map(|batch| batch.shown(now)).collect();
        json!({ "object": "list", "data": data, "has_more": more, "last_id": behind.last().map(|batch| &batch.id) })
    }

    /// What a results file holds, or a batch's results.
    pub fn content(&self, name: &str, now: Instant) -> Option<Bytes> {
        let (id, kind) = name.split_once('.').unwrap_or((name, "output"));
        let batch = self.made.iter().find(|batch| batch.id == id && batch.ready <= now)?;
        Some(if kind == "errors" { batch.errors.clone() } else { batch.output.clone() })
    }
}

impl Batch {
    fn shown(&self, now: Instant) -> Value {
        let [paid, errored, expired] = self.counts;
        let ended = self.ready <= now;
        let id = &self.id;
        let created = self.created_unix_ms / 1000;
        match self.shape {
            Shape::OpenAi => {
                let status = match ended {
                    false => "in_progress",
                    true if expired > 0 => "expired",
                    true => "completed",
                };
                let file =
                    |bytes: &Bytes, kind: &str| (ended && !bytes.is_empty()).then(|| format!("{id}.{kind}"));
                let (done, failed) = if ended { (paid, errored) } else { (0, 0) };
                json!({
                    "id": id, "object": "batch", "status": status, "endpoint": "/v1/chat/completions",
                    "created_at": created, "metadata": self.metadata,
                    "output_file_id": file(&self.output, "output"), "error_file_id": file(&self.errors, "errors"),
                    "request_counts": { "total": self.items, "completed": done, "failed": failed },
                })
            }
            Shape::Anthropic => {
                let (status, counts) = match ended {
                    false => ("in_progress", [self.items, 0, 0, 0]),
                    true => ("ended", [0, paid, errored, expired]),
                };
                let [processing, succeeded, errored, expired] = counts;
                let counts = json!({
                    "processing": processing, "succeeded": succeeded, "errored": errored, "canceled": 0,
                    "expired": expired,
                });
                json!({
                    "id": id, "type": "message_batch", "processing_status": status, "request_counts": counts,
                    "created_at": crate::clock::rfc3339(self.created_unix_ms),
                })
            }
        }
    }
}

/// What comes of a batch.
#[derive(Default)]
pub struct Results {
    output: Bytes,
    errors: Bytes,
    /// The `custom_id`s of what is billed.
    paid: Vec<String>,
    /// Paid, errored, expired.
    counts: [u64; 3],
}

/// Answers every item, in another order. Takes a while.
pub fn worked(config: &FakeConfig, shape: Shape, items: &[Item], seen: &[u32]) -> Results {
    let mut order: Vec<usize> = (0..items.len()).collect();
    let mut dice = Dice::new(config.seed, items.len() as u128, ORDER_SALT);
    for last in (1..order.len()).rev() {
        order.swap(last, dice.below(last as u64 + 1) as usize);
    }
    let mut results = Results::default();
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    for place in order {
        let (item, seen) = (&items[place], seen[place]);
        let hash = xxh3_128(&item.body);
        let expired =
            Dice::new(config.fault_seed, hash, EXPIRED_SALT + u64::from(seen)).unit() < config.batch_expired;
        let reply = (!expired).then(|| answered(config, shape, item, hash, seen));
        let paid = reply.as_ref().is_some_and(|reply| reply.good);
        let usable = reply.filter(|reply| serde_json::from_slice::<&RawValue>(&reply.first).is_ok());
        let end = if paid { 0 } else { 1 + usize::from(usable.is_none()) };
        results.counts[end] += 1;
        results.paid.extend(paid.then(|| item.custom_id.clone()));
        let line = line(shape, &item.custom_id, usable.as_ref());
        let file = if shape == Shape::OpenAi && !paid { &mut errors } else { &mut output };
        file.extend_from_slice(line.as_bytes());
        file.push(b'\n');
    }
    Results { output: output.into(), errors: errors.into(), ..results }
}

fn answered(config: &FakeConfig, shape: Shape, item: &Item, hash: u128, seen: u32) -> Reply {
    let fault = config.draw_fault(hash, seen);
    if let Some(reply) = fault.and_then(|fault| answer::declined(fault, config, None)) {
        return if shape == Shape::Anthropic { anthropic::to_message(reply, &item.body) } else { reply };
    }
    let bad = |message: String| Reply::error(400, &message, "invalid_request_error", None, None);
    match shape {
        Shape::OpenAi => match Ask::read(&item.body) {
            Ok(ask) => answer::reply(config, &ask, hash, fault, None),
            Err(message) => bad(message),
        },
        Shape::Anthropic => {
            let chat = anthropic::to_chat(&item.body);
            let reply = match chat.as_ref().map_err(Clone::clone).and_then(|chat| Ask::read(chat)) {
                Ok(ask) => answer::reply(config, &ask, hash, fault, None),
                Err(message) => bad(message),
            };
            anthropic::to_message(reply, &item.body)
        }
    }
}

fn line(shape: Shape, custom_id: &str, reply: Option<&Reply>) -> String {
    let body = reply.map(|reply| String::from_utf8_lossy(&reply.first));
    match (shape, reply.map(|reply| reply.status), body) {
        (Shape::OpenAi, Some(status), Some(body)) => format!(
            r#"{{"id":"batch_req","custom_id":"{custom_id}","response":{{"status_code":{status},"body":{body}}},"error":null}}"#
        ),
        (Shape::OpenAi, ..) => format!(
            r#"{{"id":"batch_req","custom_id":"{custom_id}","response":null,"error":{{"code":"batch_expired","message":"This request could not be executed before the completion window expired."}}}}"#
        ),
        (Shape::Anthropic, Some(200), Some(body)) => {
            format!(r#"{{"custom_id":"{custom_id}","result":{{"type":"succeeded","message":{body}}}}}"#)
        }
        (Shape::Anthropic, Some(_), Some(body)) => {
            format!(r#"{{"custom_id":"{custom_id}","result":{{"type":"errored","error":{body}}}}}"#)
        }
        (Shape::Anthropic, ..) => format!(r#"{{"custom_id":"{custom_id}","result":{{"type":"expired"}}}}"#),
    }
}

/// The items of a message batch.
pub fn items_in(body: &[u8]) -> Result<Vec<Item>, String> {
    let requests: Requests<'_> =
        serde_json::from_slice(body).map_err(|error| format!("requests: {error}"))?;
    Ok(requests.requests.into_iter().map(Item::from).collect())
}
