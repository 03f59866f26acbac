//! What a program's line says about a row.
//!
//! Reads it strictly; knows no process and no column.

use serde_json::Value;

use crate::row::{Failure, Fields, Reason};
use crate::teacher::http::words;

/// Longest reason code; a code is counted, not read.
const CODE_BYTES_MAX: usize = 64;

/// What the program says about a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Made(Fields),
    Reject(Reason),
    Fail(Failure),
}

impl Answer {
    /// Reads a line, or says what is wrong with it.
    pub fn read(line: &[u8]) -> Result<Answer, String> {
        let value =
            serde_json::from_slice(line).map_err(|error| format!("its answer is no JSON: {error}"))?;
        let Value::Object(mut fields) = value else { return Err("its answer is no JSON object".to_owned()) };
        let evidence = |fields: &Fields| fields.get("evidence").cloned().unwrap_or(Value::Null);
        let answer = if let Some(code) = fields.shift_remove("$reject") {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let sound = |code: &&str| (1..=CODE_BYTES_MAX).contains(&code.len()) && code.chars().all(plain);
            let Some(code) = code.as_str().filter(sound) else {
                return Err(format!(
                    "`$reject` is no reason code: up to {CODE_BYTES_MAX} letters, digits and `_`"
                ));
            };
            Answer::Reject(Reason::new(code.to_owned(), evidence(&fields)))
        } else if let Some(message) = fields.shift_remove("$fail") {
            let Some(message) = message.as_str() else { return Err("`$fail` is no text".to_owned()) };
            Answer::Fail(Failure::new("command_failed", message).with_evidence(evidence(&fields)))
        } else {
            return Ok(Answer::Made(fields));
        };
        match fields.keys().find(|name| *name != "evidence") {
            Some(name) => {
                Err(format!("beside `$reject` or `$fail` there is only `evidence`, not `{}`", words(name)))
            }
            None => Ok(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_strictly() {
        let check = |line: &str, expected: &str| {
            let found = Answer::read(line.as_bytes()).unwrap_err();
            assert!(found.contains(expected), "{line}: {found}");
        };
        check("[1]", "no JSON object");
        check(r#"{"$reject": "two words"}"#, "no reason code");
        check(r#"{"$reject": ""}"#, "no reason code");
        check(r#"{"$reject": 1}"#, "no reason code");
        check(r#"{"$fail": 1}"#, "`$fail` is no text");
        check(r#"{"$reject": "a", "$fail": "b"}"#, "only `evidence`, not `$fail`");
        check(r#"{"$fail": "a", "score": 1}"#, "only `evidence`, not `score`");
    }
}
