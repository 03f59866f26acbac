//! Budgets as a pipeline file writes them. What they hold is in `budget.rs`, their check in the pipeline's.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::store::Caps;

/// What calls may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename = "caps", deny_unknown_fields)]
pub struct CapsFile {
    /// US dollars.
    pub usd: Option<f64>,
    /// Input and output tokens together.
    pub tokens: Option<u64>,
    pub calls: Option<u64>,
}

impl CapsFile {
    pub fn is_none(&self) -> bool {
        *self == CapsFile::default()
    }

    pub fn caps(&self) -> Caps {
        let usd_nano = self.usd.map(|usd| (usd * 1e9).round() as u64);
        Caps { usd_nano, tokens: self.tokens, calls: self.calls }
    }
}

/// What runs may cost: all of one epoch together, each of them, and all of the workspace on one day.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "budget", deny_unknown_fields)]
pub struct BudgetFile {
    /// US dollars, over all runs of one epoch.
    pub usd: Option<f64>,
    /// Input and output tokens together, over all runs of one epoch.
    pub tokens: Option<u64>,
    /// Calls, over all runs of one epoch.
    pub calls: Option<u64>,
    /// What one run may cost; the next one has as much again.
    pub per_run: Option<CapsFile>,
    /// What all runs of all pipelines of the workspace may cost on one day in UTC. Everybody's spending counts;
    /// the cap holds the pipelines that name it.
    pub per_day: Option<DayCapsFile>,
}

impl BudgetFile {
    /// The caps over all runs of one epoch.
    pub fn per_epoch(&self) -> CapsFile {
        CapsFile { usd: self.usd, tokens: self.tokens, calls: self.calls }
    }
}

/// What a day may cost.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "per_day", deny_unknown_fields)]
pub struct DayCapsFile {
    /// US dollars.
    pub usd: Option<f64>,
    /// Input and output tokens together.
    pub tokens: Option<u64>,
    pub calls: Option<u64>,
    /// Whether a run stops at the cap, as by default, or waits until the next day.
    #[serde(default)]
    pub at_cap: AtCap,
}

impl DayCapsFile {
    pub fn caps(&self) -> CapsFile {
        CapsFile { usd: self.usd, tokens: self.tokens, calls: self.calls }
    }
}

/// What a run does when the cap of its day is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtCap {
    /// Stop; the next run goes on.
    #[default]
    Stop,
    /// Wait until the next day in UTC, and go on.
    Wait,
}
