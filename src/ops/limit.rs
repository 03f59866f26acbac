//! `limit`: keep the first rows that come so far.
//!
//! # What it does
//! Keeps the first N rows in row order, whichever is done first. With the N-th of them the run has what it
//! needs: later rows are not begun, and those under way are dropped as not needed. Until then no more rows are
//! under way than the missing ones need, by the share of rows that came so far.
//!
//! # When to use it
//! To try a pipeline on a few rows that pass all checks, or to make a dataset of a given size. For the
//! source's first rows, wherever they end, `run --rows` is cheaper.
//!
//! # Example
//! ```yaml
//! - limit: 100
//! ```
//!
//! # Limits
//! Counts the rows that come to this step; later steps may still reject some of them. Failed rows do not
//! count, so when one succeeds in a later run, the last row kept may no longer be needed.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::kit::{Check, Kit};
use crate::ops::{Decision, FoldKey, FoldRow, FoldState, Operator, Runner};
use crate::row::{Reason, Row, RowId};

/// How many rows to keep.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Limit(pub u64);

impl Operator for Limit {
    fn check(&self, check: &mut Check<'_>) {
        if self.0 == 0 {
            check.problem("", "a limit of 0 keeps nothing").hint = Some("give at least 1".to_owned());
        }
    }

    fn build(&self, _kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        Ok(vec![Runner::Fold(Box::new(*self))])
    }
}

impl FoldRow for Limit {
    fn key(&self, _row: &Row) -> Result<FoldKey, Reason> {
        Ok(FoldKey::new())
    }

    fn start(&self) -> Box<dyn FoldState> {
        Box::new(Count { rows: 0, rows_max: self.0 })
    }
}

struct Count {
    rows: u64,
    rows_max: u64,
}

impl FoldState for Count {
    fn decide(&mut self, _row: &RowId, _key: FoldKey) -> Decision {
        if self.rows >= self.rows_max {
            return Decision::Reject(Reason::new("over_limit", json!({"limit": self.rows_max})));
        }
        self.rows += 1;
        if self.rows == self.rows_max { Decision::KeepAsLast } else { Decision::Keep }
    }

    fn takes(&self) -> Option<u64> {
        Some(self.rows_max - self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::checked;

    fn check(limit: u64, expected: &[Decision]) {
        let mut count = Limit(limit).start();
        for (ordinal, expected) in (0..).zip(expected) {
            assert_eq!(count.decide(&RowId::root(ordinal), FoldKey::new()), *expected, "{limit}: {ordinal}");
            assert_eq!(count.takes(), Some(limit.saturating_sub(ordinal + 1)), "{limit}: {ordinal}");
        }
    }

    #[test]
    fn the_last_row_ends_it() {
        let over = |limit: u64| Decision::Reject(Reason::new("over_limit", json!({"limit": limit})));
        check(1, &[Decision::KeepAsLast, over(1)]);
        check(3, &[Decision::Keep, Decision::Keep, Decision::KeepAsLast, over(3), over(3)]);
        let found = checked(json!({"limit": 0}), &json!({"a": "text"}));
        assert_eq!(found, Err("limit: a limit of 0 keeps nothing".to_owned()));
    }
}
