//! Dry runs: calls that the store cannot answer are counted and not sent.
//!
//! A plan walks rows through a pipeline this way. Nothing here sends, reserves or saves.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::row::Failure;
use crate::store::Key;
use crate::teacher::Request;

/// The code of rows whose way a dry run does not know: an answer that they need is not in the store.
pub const NOT_IN_STORE: &str = "not_in_store";

/// The calls that a dry run would have sent. Holds 32 bytes each, so walk a bounded number of rows.
#[derive(Default)]
pub struct DryRun {
    missed: Mutex<HashSet<Key>>,
    stand_in: Option<StandIn>,
}

/// What stands in for the answer to a step's request; `None` ends the row's way there.
type StandIn = Box<dyn Fn(&str, &Request) -> Option<String> + Send + Sync>;

impl DryRun {
    /// A dry run whose steps get stand-ins for answers, so that what they ask next is counted, too.
    pub fn with(stand_in: impl Fn(&str, &Request) -> Option<String> + Send + Sync + 'static) -> DryRun {
        DryRun { missed: Mutex::default(), stand_in: Some(Box::new(stand_in)) }
    }

    pub fn stand_in(&self, step: &str, request: &Request) -> Option<String> {
        self.stand_in.as_ref().and_then(|stand_in| stand_in(step, request))
    }

    /// Whether a missing call is met for the first time: rows that share a request pay it once.
    pub fn is_new(&self, key: Key) -> bool {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).insert(key)
    }
}

/// How a row fails whose way is not known.
pub fn unknown() -> Failure {
    Failure::new(NOT_IN_STORE, "a dry run asks nobody, and the store has no answer")
}
