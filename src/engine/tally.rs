//! The accounts of a run: how many rows came, were split, and how each ended.
//!
//! Counted when an end is released in row order, so the counts depend on rows and replies alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::{End, Ended};
use crate::row::RowId;

/// Where the rows of one step went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTally {
    pub step: String,
    pub rows_in: u64,
    pub rows_out: u64,
    /// Rows that ended here by decision, by reason code.
    pub rejected: BTreeMap<String, u64>,
    /// Rows that ended here undecided, by code.
    pub failed: BTreeMap<String, u64>,
    /// Children opened minus parents ended by splits here.
    pub split_off: u64,
    /// Rows that are still here, or ended here with an open row below.
    pub open: u64,
}

/// The balance: `rows_in + split_off = kept + rejected + failed + open`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub rows_in: u64,
    pub split_off: u64,
    pub kept: u64,
    pub rejected: u64,
    pub failed: u64,
    pub open: u64,
    pub steps: Vec<StepTally>,
    /// The step of the last split counted at each depth of ids. Ends come in row order, so these are the
    /// splits that the ancestors of the last row went through.
    #[serde(skip)]
    pub(crate) last_splits: BTreeMap<usize, usize>,
}

impl Tally {
    pub fn new(steps: &[String]) -> Tally {
        let step = |name: &String| StepTally { step: name.clone(), ..StepTally::default() };
        Tally { steps: steps.iter().map(step).collect(), ..Tally::default() }
    }

    pub fn count(&mut self, ended: &Ended) {
        match &ended.end {
            End::Kept => self.kept += 1,
            End::Rejected { step, reason } => {
                self.rejected += 1;
                // A pipeline without steps can still save a value that does not fit its column.
                if let Some(step) = self.steps.get_mut(*step) {
                    *step.rejected.entry(reason.code.to_string()).or_default() += 1;
                }
            }
            End::Failed { step, failure } => {
                self.failed += 1;
                *self.steps[*step].failed.entry(failure.code.to_string()).or_default() += 1;
            }
            End::Split { step, children } => {
                self.split_off += u64::from(*children) - 1;
                self.steps[*step].split_off += u64::from(*children) - 1;
                self.last_splits.insert(ended.row.id.path.len(), *step);
            }
        }
    }

    /// Takes back children of a counted split that turned out not to be needed.
    pub fn uncount_children(&mut self, parent: &RowId, children: u64) {
        let Some(step) = self.last_splits.get(&parent.path.len()) else { return };
        self.split_off = self.split_off.saturating_sub(children);
        self.steps[*step].split_off = self.steps[*step].split_off.saturating_sub(children);
    }

    /// Counts a row that a step still has.
    pub fn count_open(&mut self, step: usize) {
        self.open += 1;
        if let Some(step) = self.steps.get_mut(step) {
            step.open += 1;
        }
    }

    /// Fills in what follows from the counts: each step's rows in and out.
    pub fn close(&mut self, rows_in: u64) {
        self.rows_in = rows_in;
        let mut rows = rows_in;
        for step in &mut self.steps {
            step.rows_in = rows;
            let ended: u64 = step.rejected.values().chain(step.failed.values()).sum();
            rows = (rows + step.split_off).saturating_sub(ended + step.open);
            step.rows_out = rows;
        }
    }

    /// Whether nothing vanished and nothing was doubled.
    pub fn balances(&self) -> bool {
        self.rows_in + self.split_off == self.kept + self.rejected + self.failed + self.open
    }
}
