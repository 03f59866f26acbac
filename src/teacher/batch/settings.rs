//! Whether and how a teacher's calls go in batches, as the pipeline file says it.
//!
//! Settings and their checks; what they do is in `call/batch`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::BatchApi;
use crate::problem::{KeyPath, Place, Problem};
use crate::teacher::format::ApiFormat;
use crate::teacher::setting::duration;

/// How calls travel. It changes no answer: a run finds the replies of runs in another mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "mode", rename_all = "snake_case")]
pub enum Mode {
    /// One by one, answered at once.
    #[default]
    Live,
    /// In batches, which the provider answers within a day for less.
    Batch,
    /// In batches, but for what is urgent: see `live_below` and `live_after`.
    Auto,
}

/// How calls are put into batches.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "batch", deny_unknown_fields, default)]
pub struct BatchFile {
    /// Most calls of one batch: what the provider allows by default (OpenAI 50,000, Anthropic 100,000).
    pub items_max: Option<u64>,
    /// Most bytes of one batch: a little below what the provider allows by default (OpenAI 200 MB, Anthropic
    /// 256 MB).
    pub bytes_max: Option<u64>,
    /// A batch that is not full is sent when its first call has waited so long. It is sent sooner when no other
    /// call can come before it has been answered.
    #[serde(deserialize_with = "duration")]
    #[schemars(with = "String", default = "age_text")]
    pub age: Duration,
    /// The longest time between two questions whether a batch is answered.
    #[serde(deserialize_with = "duration")]
    #[schemars(with = "String", default = "poll_text")]
    pub poll: Duration,
    /// When a batch was cut off while it was sent, it is looked for in the provider's list for so long before it
    /// is sent again.
    #[serde(deserialize_with = "duration")]
    #[schemars(with = "String", default = "doubt_text")]
    pub doubt: Duration,
    /// With `mode: auto`: a batch of fewer calls is not worth its wait, and they are made one by one: 100 by
    /// default.
    pub live_below: Option<u64>,
    /// With `mode: auto`: from this time after the run began on, calls are made one by one.
    #[serde(deserialize_with = "some_duration")]
    #[schemars(with = "Option<String>")]
    pub live_after: Option<Duration>,
}

impl Default for BatchFile {
    fn default() -> BatchFile {
        BatchFile {
            items_max: None,
            bytes_max: None,
            age: Duration::from_secs(60 * 60),
            poll: Duration::from_secs(60),
            doubt: Duration::from_secs(60),
            live_below: None,
            live_after: None,
        }
    }
}

fn age_text() -> String {
    "1h".to_owned()
}

fn poll_text() -> String {
    "1m".to_owned()
}

fn doubt_text() -> String {
    "1m".to_owned()
}

fn some_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// Calls below which a batch is not worth its wait, unless the file says otherwise.
const LIVE_BELOW: u64 = 100;

/// Bytes that a batch may miss to its provider's bound: what is round the calls.
const MARGIN_BYTES: u64 = 1 << 20;

/// What is urgent under `mode: auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Urgent {
    pub below: usize,
    pub after: Option<Duration>,
}

/// The settings, ready to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    pub items_max: usize,
    pub bytes_max: u64,
    pub age: Duration,
    pub poll: Duration,
    pub doubt: Duration,
    /// Nothing for a teacher all whose calls go in batches.
    pub urgent: Option<Urgent>,
}

impl BatchFile {
    /// The settings of a teacher in this mode; nothing where its calls do not go in batches.
    pub fn settings(&self, mode: Mode, format: ApiFormat) -> Option<BatchSettings> {
        let api = BatchApi::of(format).filter(|_| mode != Mode::Live)?;
        let (items_max, bytes_max) = api.limits();
        let below = self.live_below.unwrap_or(LIVE_BELOW);
        let urgent = Urgent { below: usize::try_from(below).unwrap_or(usize::MAX), after: self.live_after };
        Some(BatchSettings {
            items_max: self.items_max.and_then(|most| usize::try_from(most).ok()).unwrap_or(items_max),
            bytes_max: self.bytes_max.unwrap_or(bytes_max - MARGIN_BYTES),
            age: self.age,
            poll: self.poll,
            doubt: self.doubt,
            urgent: (mode == Mode::Auto).then_some(urgent),
        })
    }

    /// Everything wrong with the settings, at paths below `batch`. Pure.
    pub fn problems(&self, mode: Mode, format: ApiFormat) -> Vec<Problem> {
        let Some(api) = BatchApi::of(format) else { return Vec::new() };
        let mut problems = Vec::new();
        let mut error = |key: &str, message: String| {
            problems.push(Problem::error(Place::Value(KeyPath::root().join(key)), message));
        };
        let (items_max, bytes_max) = api.limits();
        let bounds =
            [("items_max", self.items_max, items_max as u64), ("bytes_max", self.bytes_max, bytes_max)];
        for (key, value, most) in bounds {
            if value.is_some_and(|value| value == 0 || value > most) {
                error(
                    key,
                    format!("`{key}` must be between 1 and {most}, which is what the provider allows"),
                );
            }
        }
        if self.poll.is_zero() {
            error("poll", "`poll` must be longer than nothing".to_owned());
        }
        let urgent = [("live_below", self.live_below.is_some()), ("live_after", self.live_after.is_some())];
        for (key, _) in urgent.iter().filter(|(_, given)| *given && mode != Mode::Auto) {
            error(key, format!("`{key}` is for `mode: auto`"));
        }
        problems
    }
}
