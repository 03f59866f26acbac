//! Requests that a server declined for good, as the store remembers them.
//!
//! Kept in our own words and read back verbatim: what a reject says does not hang on whether the server
//! was asked in this run or in an earlier one.

use serde_json::{Value, json};

use crate::teacher::Fault;

/// The record of a declined request, with the status it is stored under; nothing for other faults.
pub fn record(fault: &Fault) -> Option<(u16, String)> {
    let (status, kind, message) = match fault {
        Fault::TooLong { message } => (413, "too_long", message),
        Fault::BadRequest { message } => (400, "declined", message),
        Fault::Busy { .. } | Fault::Fatal { .. } | Fault::Transient { .. } => return None,
    };
    Some((status, json!({"textmill": kind, "message": message}).to_string()))
}

/// The fault in a stored record; nothing for a server's own body.
pub fn read(body: &str) -> Option<Fault> {
    // A server's body is not parsed for nothing.
    if !body.starts_with(r#"{"textmill":"#) {
        return None;
    }
    let record: Value = serde_json::from_str(body).ok()?;
    let message = record.get("message")?.as_str()?.to_owned();
    match record.get("textmill")?.as_str()? {
        "too_long" => Some(Fault::TooLong { message }),
        "declined" => Some(Fault::BadRequest { message }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_verbatim() {
        for fault in [Fault::TooLong { message: "a \"b\"".into() }, Fault::BadRequest { message: "é".into() }]
        {
            let (status, body) = record(&fault).unwrap();
            assert!(status >= 400);
            assert_eq!(read(&body), Some(fault));
        }
        assert_eq!(read(r#"{"error": {"message": "x"}}"#), None);
    }
}
