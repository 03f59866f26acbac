//! Anthropic's message batches: one list of requests, one list of results.
//!
//! What goes over the wire and what it means, nothing else. The API: platform.claude.com/docs/en/api, "Message
//! Batches". A batch has no room for a name of ours: it is known by the ids of its items.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Came, Frame, ItemResult, Listed, Status};

/// Requests of one batch, and its bytes (guide "Batch processing", "Batch limitations").
pub const LIMITS: (usize, u64) = (100_000, 256_000_000);

/// The body of `POST /messages/batches`.
pub fn frame() -> Frame {
    Frame {
        content_type: "application/json".to_owned(),
        head: r#"{"requests":["#.to_owned(),
        between: ",",
        tail: "]}".to_owned(),
    }
}

/// What stands before and behind the body of an item.
pub fn item(key: &str) -> (String, &'static str) {
    (format!(r#"{{"custom_id":"{key}","params":"#), "}")
}

pub fn status(batch: &Value) -> Status {
    if batch["processing_status"] == "ended" {
        // Not its `results_url`: the key goes nowhere but to the teacher's own URL.
        let id = batch["id"].as_str().unwrap_or_default();
        return Status::Ended { results: vec![format!("/messages/batches/{id}/results")] };
    }
    let total = items(batch).unwrap_or(0);
    let left = batch.pointer("/request_counts/processing").and_then(Value::as_u64).unwrap_or(total);
    Status::Working { done: total.saturating_sub(left), total }
}

fn items(batch: &Value) -> Option<u64> {
    let counts = batch["request_counts"].as_object()?;
    Some(counts.values().filter_map(Value::as_u64).sum())
}

/// A batch of `GET /messages/batches`.
pub fn listed(batch: &Value) -> Option<Listed> {
    let created: jiff::Timestamp = batch["created_at"].as_str()?.parse().ok()?;
    Some(Listed {
        id: batch["id"].as_str()?.to_owned(),
        token: None,
        items: items(batch),
        created_unix_ms: created.as_millisecond(),
        status: status(batch),
    })
}

#[derive(Deserialize)]
struct Line<'a> {
    custom_id: String,
    #[serde(borrow)]
    result: Outcome<'a>,
}

#[derive(Deserialize)]
struct Outcome<'a> {
    r#type: String,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// A line of the results.
pub fn result(line: &str) -> serde_json::Result<ItemResult> {
    let Line { custom_id, result } = serde_json::from_str(line)?;
    let came = match (result.r#type.as_str(), result.message, result.error) {
        ("succeeded", Some(message), _) => Came::Reply { status: 200, body: message.get().to_owned() },
        ("errored", _, Some(error)) => {
            // The error's own code says what it means; where it has none we know, it may come right.
            let declined = error.get().contains("invalid_request_error");
            Came::Reply { status: if declined { 400 } else { 500 }, body: error.get().to_owned() }
        }
        (other, ..) => Came::NotRun(other.to_owned()),
    };
    Ok(ItemResult { custom_id, came })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn statuses_are_read_and_batches_listed() {
        let counts = json!({ "processing": 5, "succeeded": 2, "errored": 0, "canceled": 0, "expired": 0 });
        let working = json!({
            "id": "b1", "processing_status": "in_progress", "request_counts": counts,
            "created_at": "2024-08-20T18:37:24.100435Z",
        });
        assert_eq!(status(&working), Status::Working { done: 2, total: 7 });
        let ended = json!({ "id": "b1", "processing_status": "ended", "results_url": "https://elsewhere/" });
        assert_eq!(status(&ended), Status::Ended { results: vec!["/messages/batches/b1/results".into()] });
        let listed = listed(&working).unwrap();
        assert_eq!((listed.items, listed.created_unix_ms), (Some(7), 1_724_179_044_100));
    }

    #[test]
    fn results_are_read() {
        let check = |result: Value, expected: Came| {
            let line = json!({ "custom_id": "k", "result": result }).to_string();
            assert_eq!(super::result(&line).unwrap().came, expected);
        };
        check(
            json!({ "type": "succeeded", "message": { "a": 1 } }),
            Came::Reply { status: 200, body: r#"{"a":1}"#.into() },
        );
        let error = |kind: &str| json!({ "type": "error", "error": { "type": kind, "message": "m" } });
        let errored = |kind: &str| json!({ "type": "errored", "error": error(kind) });
        let reply = |status, kind: &str| Came::Reply { status, body: error(kind).to_string() };
        check(errored("invalid_request_error"), reply(400, "invalid_request_error"));
        check(errored("api_error"), reply(500, "api_error"));
        check(json!({ "type": "expired" }), Came::NotRun("expired".into()));
        check(json!({ "type": "canceled" }), Came::NotRun("canceled".into()));
    }
}
