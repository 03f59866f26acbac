//! How a row ends whose call brought no answer: the words and the evidence, and nothing of how it came to that.

use serde_json::{Value, json};

use crate::call::NoAnswer;
use crate::problem::counted;
use crate::row::{Failure, Reason};
use crate::teacher::Fault;

/// How a row ends whose call brought no answer.
pub fn of(fault: &Fault, attempts: u32) -> NoAnswer {
    let evidence = |message: &str| -> Value { json!({"server": message, "attempts": attempts}) };
    match fault {
        Fault::TooLong { message } => NoAnswer::Rejected(Reason::new("too_long", json!({"server": message}))),
        Fault::BadRequest { message } => NoAnswer::Failed(
            Failure::new("declined", format!("the server declined the request: {message}"))
                .with_evidence(json!({"server": message})),
        ),
        Fault::Transient { code, message, .. } => NoAnswer::Failed(
            Failure::new(
                *code,
                format!("no answer after {}: {message}", counted(u64::from(attempts), "attempt")),
            )
            .with_evidence(evidence(message)),
        ),
        Fault::Busy { message, .. } | Fault::Fatal { message } => {
            NoAnswer::Failed(Failure::new("busy", message.clone()).with_evidence(evidence(message)))
        }
    }
}
