//! `sample`: keep a random share of the rows.
//!
//! # What it does
//! Decides for each row by itself, at random, whether to keep it: `share` is the probability. The others
//! are rejected `not_sampled`.
//!
//! # When to use it
//! To try a costly step on a part of the rows that is not just the first ones, or to thin out a source.
//! With `when`, to thin out one kind of rows: `when: level == "easy"`.
//!
//! # Example
//! ```yaml
//! - sample: { share: 0.1 }
//! ```
//!
//! # Limits
//! The share is met on average: of 1,000 rows at 0.1 usually 80 to 120 are kept. For an exact number use
//! `limit`. The same seed, epoch and step name keep the same rows; another epoch keeps others. A larger
//! share keeps all rows that a smaller one keeps.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::axes::random::Draws;
use crate::kit::{Check, Kit};
use crate::ops::{MapRow, Operator, Runner};
use crate::row::{Outcome, Reason, Row};

/// Keep a random share of the rows.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "sample_step", deny_unknown_fields)]
pub struct Sample {
    /// The probability that a row is kept: above 0, at most 1.
    pub share: f64,
}

impl Operator for Sample {
    fn check(&self, check: &mut Check<'_>) {
        if !(self.share > 0.0 && self.share <= 1.0) {
            check.problem("share", "`share` must be above 0 and at most 1").hint =
                Some("0.1 keeps about one row in ten".to_owned());
        }
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let (seed, epoch, step) = (kit.seed, Arc::clone(&kit.epoch), Arc::clone(&kit.step));
        Ok(vec![Runner::Map(Box::new(Sampled { share: self.share, seed, epoch, step }))])
    }
}

struct Sampled {
    share: f64,
    seed: u64,
    epoch: Arc<str>,
    step: Arc<str>,
}

impl MapRow for Sampled {
    fn map(&self, row: Row) -> Outcome {
        let drawn = Draws::new(self.seed, &self.epoch, &self.step, &row.draw_key(), "sample").unit();
        if drawn < self.share {
            return Outcome::Keep(row);
        }
        let evidence = json!({"share": self.share, "drawn": drawn});
        Outcome::Reject(row, Reason::new("not_sampled", evidence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::checked;
    use crate::row::{Fields, RowId};

    /// The ordinals below 4000 that are kept.
    fn kept(share: f64, step: &str) -> Vec<u64> {
        let sampled = Sampled { share, seed: 7, epoch: "0".into(), step: step.into() };
        let row = |ordinal: &u64| Row::new(RowId::root(*ordinal), Fields::new());
        (0..4000).filter(|ordinal| matches!(sampled.map(row(ordinal)), Outcome::Keep(_))).collect()
    }

    #[test]
    fn a_share_is_kept_by_row_and_step() {
        let tenth = kept(0.1, "a");
        // Within five standard deviations of 400.
        assert!((305..495).contains(&tenth.len()), "{}", tenth.len());
        assert_eq!(tenth, kept(0.1, "a"));
        assert_ne!(tenth, kept(0.1, "b"));
        let half = kept(0.5, "a");
        assert!(tenth.iter().all(|ordinal| half.contains(ordinal)));
        assert_eq!(kept(1.0, "a").len(), 4000);
    }

    #[test]
    fn the_draw_is_the_evidence() {
        let sampled = Sampled { share: 1e-9, seed: 7, epoch: "0".into(), step: "a".into() };
        let Outcome::Reject(_, reason) = sampled.map(Row::new(RowId::root(0), Fields::new())) else {
            panic!("kept at 1e-9")
        };
        assert_eq!(reason.code, "not_sampled");
        assert!(reason.evidence["drawn"].as_f64().is_some_and(|drawn| drawn > 1e-9));
    }

    #[test]
    fn a_share_is_a_probability() {
        for (share, sound) in [(0.0, false), (1e-6, true), (1.0, true), (10.0, false), (-1.0, false)] {
            let found = checked(json!({"sample": {"share": share}}), &json!({"a": "text"}));
            let message = "sample.share: `share` must be above 0 and at most 1".to_owned();
            assert_eq!(found, if sound { Ok("a: text".to_owned()) } else { Err(message) }, "{share}");
        }
    }
}
