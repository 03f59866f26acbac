//! OpenAI's batches: a file of requests, a batch over it, files of results.
//!
//! What goes over the wire and what it means, nothing else. The API: platform.openai.com/docs/guides/batch and
//! `/docs/api-reference/batch`.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Came, Frame, ItemResult, Listed, Status};
use crate::teacher::Fault;
use crate::teacher::fault;

/// Requests of one file, and its bytes (guide, "Rate limits").
pub const LIMITS: (usize, u64) = (50_000, 200_000_000);
/// What a batch asks, whatever stands before it in the teacher's URL.
const ENDPOINT: &str = "/v1/chat/completions";
/// The key of a batch's metadata that holds our token.
const TOKEN: &str = "textmill";

/// The file as a form, as `POST /files` wants it.
pub fn frame(token: &str) -> Frame {
    // No line of JSON has a line break in it, so that nothing in the file can look like the boundary.
    let boundary = format!("textmill-{token}");
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{token}.jsonl\"\r\n\
         Content-Type: application/jsonl\r\n\r\n"
    );
    Frame {
        content_type: format!("multipart/form-data; boundary={boundary}"),
        head,
        between: "\n",
        tail: format!("\r\n--{boundary}--\r\n"),
    }
}

/// What stands before and behind the body of an item.
pub fn item(key: &str) -> (String, &'static str) {
    (format!(r#"{{"custom_id":"{key}","method":"POST","url":"{ENDPOINT}","body":"#), "}")
}

/// The body of `POST /batches`.
pub fn create(file: &str, token: &str) -> Value {
    json!({
        "input_file_id": file, "endpoint": ENDPOINT, "completion_window": "24h", "metadata": { TOKEN: token },
    })
}

pub fn status(batch: &Value) -> Status {
    let count = |name: &str| batch.pointer(&format!("/request_counts/{name}")).and_then(Value::as_u64);
    match batch["status"].as_str().unwrap_or_default() {
        // A batch that was cut short has results for what was done.
        "completed" | "expired" | "cancelled" => {
            let files = ["output_file_id", "error_file_id"].into_iter().filter_map(|key| batch[key].as_str());
            Status::Ended { results: files.map(|file| format!("/files/{file}/content")).collect() }
        }
        "failed" => Status::Failed(failure(batch)),
        _ => Status::Working {
            done: count("completed").unwrap_or(0) + count("failed").unwrap_or(0),
            total: count("total").unwrap_or(0),
        },
    }
}

/// Why a batch was not taken. Tokens in the queue over the account's bound are a matter of waiting.
fn failure(batch: &Value) -> Fault {
    let errors =
        batch.pointer("/errors/data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let error =
        errors.first().cloned().unwrap_or_else(|| json!({ "message": "the provider gave no reason" }));
    let code = error["code"].as_str().unwrap_or_default();
    let message = error["message"].as_str().unwrap_or_default().to_owned();
    if code == "token_limit_exceeded" || code == "request_limit_exceeded" {
        return Fault::Busy { retry_after: None, message, notes: Box::default() };
    }
    fault::meaning(400, &Default::default(), &json!({ "error": error }).to_string(), 0).fault()
}

/// A batch of `GET /batches`.
pub fn listed(batch: &Value) -> Option<Listed> {
    Some(Listed {
        id: batch["id"].as_str()?.to_owned(),
        token: batch["metadata"][TOKEN].as_str().map(str::to_owned),
        items: batch.pointer("/request_counts/total").and_then(Value::as_u64),
        created_unix_ms: batch["created_at"].as_i64()?.saturating_mul(1000),
        status: status(batch),
    })
}

#[derive(Deserialize)]
struct Line<'a> {
    custom_id: String,
    #[serde(borrow)]
    response: Option<Response<'a>>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Response<'a> {
    status_code: u16,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// A line of a results file.
pub fn result(line: &str) -> serde_json::Result<ItemResult> {
    let Line { custom_id, response, error } = serde_json::from_str(line)?;
    let came = match (response, error) {
        (Some(Response { status_code, body }), _) => {
            Came::Reply { status: status_code, body: body.get().to_owned() }
        }
        (None, Some(error)) => match error["code"].as_str() {
            Some(code @ ("batch_expired" | "batch_cancelled")) => Came::NotRun(code.to_owned()),
            _ => Came::Reply { status: 500, body: json!({ "error": error }).to_string() },
        },
        (None, None) => Came::NotRun("no result".to_owned()),
    };
    Ok(ItemResult { custom_id, came })
}

#[cfg(test)]
mod tests {
    use super::super::BatchApi;
    use super::*;

    #[test]
    fn statuses_are_read() {
        let check = |batch: Value, expected: Status| assert_eq!(status(&batch), expected, "{batch}");
        let counts = json!({ "total": 9, "completed": 2, "failed": 1 });
        check(
            json!({ "status": "in_progress", "request_counts": counts }),
            Status::Working { done: 3, total: 9 },
        );
        check(json!({ "status": "validating" }), Status::Working { done: 0, total: 0 });
        check(
            json!({ "status": "expired", "output_file_id": "a", "error_file_id": "b" }),
            Status::Ended { results: vec!["/files/a/content".into(), "/files/b/content".into()] },
        );
        check(
            json!({ "status": "completed", "output_file_id": "a", "error_file_id": null }),
            Status::Ended { results: vec!["/files/a/content".into()] },
        );
        let failed = |code: &str| {
            let error = json!({ "code": code, "message": "m", "line": 1 });
            status(&json!({ "status": "failed", "errors": { "object": "list", "data": [error] } }))
        };
        assert!(matches!(failed("token_limit_exceeded"), Status::Failed(Fault::Busy { .. })));
        assert!(matches!(failed("billing_hard_limit_reached"), Status::Failed(Fault::Fatal { .. })));
        let Status::Failed(Fault::BadRequest { message }) = failed("invalid_json_line") else { panic!() };
        assert_eq!(message, "m (status 400, `invalid_json_line`)");
    }

    #[test]
    fn results_are_read() {
        let check = |line: &str, expected: Came| assert_eq!(result(line).unwrap().came, expected);
        check(
            r#"{"custom_id":"k","response":{"status_code":200,"body":{"a": 1}},"error":null}"#,
            Came::Reply { status: 200, body: r#"{"a": 1}"#.into() },
        );
        check(
            r#"{"custom_id":"k","response":null,"error":{"code":"batch_expired","message":"m"}}"#,
            Came::NotRun("batch_expired".into()),
        );
        check(
            r#"{"custom_id":"k","response":null,"error":{"code":"x"}}"#,
            Came::Reply { status: 500, body: r#"{"error":{"code":"x"}}"#.into() },
        );
        assert!(result("{").is_err());
    }

    #[test]
    fn batches_are_listed_with_our_tokens() {
        let page = json!({ "has_more": true, "data": [
            { "id": "b2", "created_at": 20, "status": "in_progress", "metadata": { "textmill": "t" } },
            { "id": "b1", "created_at": 10, "status": "in_progress", "metadata": null },
        ] });
        let (batches, more) = BatchApi::OpenAi.page(&page);
        let found: Vec<_> =
            batches.iter().map(|batch| (batch.token.as_deref(), batch.created_unix_ms)).collect();
        assert_eq!(found, [(Some("t"), 20_000), (None, 10_000)]);
        assert_eq!(more.as_deref(), Some("b1"));
    }
}
