//! Which of several similar rows is kept: the first, the longest or the best.
//!
//! Not an operator. What rows are ranked by is decided here, once; which rows are similar is not.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kit::{Check, Kit};
use crate::ops::number::{number, ordered};
use crate::row::{FieldPath, Reason, Row};
use crate::template::Expression;

/// Which of several similar rows is kept. Against data that is there already, that always wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The first in row order; the only one that lets rows go on as they come.
    #[default]
    First,
    /// The one with the longest text; of equals the first.
    Longest,
    /// The one with the highest number that `by` gives; of equals the first.
    Best,
}

impl Keep {
    /// Checks that `by` is there where it is needed and only there.
    pub fn check(self, check: &mut Check<'_>, by: Option<&str>) {
        match (self, by) {
            (Keep::Best, Some(by)) => {
                check.expression("by", by);
            }
            (Keep::Best, None) => {
                check.problem("by", "`keep: best` needs `by:`, an expression that gives a number");
            }
            (_, Some(_)) => {
                check.problem("by", "`by` needs `keep: best`");
            }
            (_, None) => {}
        }
    }
}

/// What rows are ranked by.
pub enum Score {
    /// All are the same.
    None,
    /// The characters of these texts.
    Length(Vec<FieldPath>),
    By(Expression),
}

impl Score {
    pub fn build(keep: Keep, by: Option<&str>, texts: Vec<FieldPath>, kit: &Kit) -> anyhow::Result<Score> {
        Ok(match (keep, by) {
            (Keep::Longest, _) => Score::Length(texts),
            (Keep::Best, Some(by)) => Score::By(kit.expression(by)?),
            (Keep::First | Keep::Best, _) => Score::None,
        })
    }

    /// A number that is higher the better the row is.
    pub fn of(&self, row: &Row) -> Result<u64, Reason> {
        match self {
            Score::None => Ok(0),
            Score::Length(texts) => {
                let lengths = texts.iter().filter_map(|path| path.text(&row.fields));
                Ok(lengths.map(|text| text.chars().count() as u64).sum())
            }
            Score::By(by) => Ok(ordered(number(by, &row.fields)?)),
        }
    }
}
