//! `sample`: keep a random part of the rows.
//!
//! # What it does
//! `share` alone decides for each row by itself, at random: it is the probability that the row is kept.
//! `rows` keeps so many rows exactly, or all if there are fewer. `group` stratifies: each group of rows with
//! the same values in these fields is left with its part of the whole, to the row. `weight` makes some rows
//! likelier than others: in a draw of one row, twice the weight is twice the chance.
//!
//! The others are rejected `not_sampled`.
//!
//! # When to use it
//! To try a costly step on a part of the rows that is not just the first ones, or to thin out a source.
//! With `when`, to thin out one kind of rows: `when: level == "easy"`. For the same number of every kind
//! use `balance`.
//!
//! # Example
//! ```yaml
//! - sample: { share: 0.1 }
//! - sample: { rows: 5000, group: [topic, level], weight: grade * grade }
//!   name: final_draw
//! ```
//!
//! # Limits
//! `share` alone is met on average: of 1,000 rows at 0.1 usually 80 to 120 are kept. All else is exact, and
//! waits for the end of the source, so `until: { kept }` is not possible with it; rows wait on disk, and each
//! takes about 120 bytes of memory. Rows of a group that cannot be divided evenly go to the groups with the
//! largest remainders.
//!
//! Rows are drawn with weights as by Efraimidis and Spirakis (2006, Information Processing Letters 97): those
//! with the highest `u^(1/weight)` are kept, `u` being a draw of the row's own. A weight of 0 is never kept
//! before another; a negative one or anything that is no number rejects the row `bad_expression`.
//!
//! The same seed, epoch and step name keep the same rows; another epoch keeps others. A larger share or
//! number keeps all rows that a smaller one keeps, unless `group` is given.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::axes::random::Draws;
use crate::kit::{Check, Kit};
use crate::ops::best_of::groups;
use crate::ops::number::{number, ordered};
use crate::ops::values::Values;
use crate::ops::{Belong, Decision, FoldKey, GroupRow, MapRow, Operator, Runner};
use crate::row::{Outcome, Reason, Row, RowId};
use crate::template::Expression;

/// Keep a random part of the rows.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "sample_step", deny_unknown_fields)]
pub struct Sample {
    /// The part that is kept: above 0, at most 1. On its own it is the probability of each row.
    pub share: Option<f64>,
    /// How many rows are kept.
    pub rows: Option<u64>,
    /// Keep the same part of the rows with the same values in these fields.
    pub group: Option<Vec<String>>,
    /// How likely a row is drawn: an expression that gives a number of at least 0; 1 by default.
    pub weight: Option<String>,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
enum Part {
    Share(f64),
    Rows(u64),
}

impl Sample {
    /// Whether each row is decided by itself.
    fn is_by_row(&self) -> bool {
        self.rows.is_none() && self.group.is_none() && self.weight.is_none()
    }
}

impl Operator for Sample {
    fn check(&self, check: &mut Check<'_>) {
        match (self.share, self.rows) {
            (Some(share), None) if !(share > 0.0 && share <= 1.0) => {
                check.problem("share", "`share` must be above 0 and at most 1").hint =
                    Some("0.1 keeps about one row in ten".to_owned());
            }
            (Some(_), Some(_)) => {
                check.problem("rows", "`share` and `rows` exclude each other");
            }
            (None, None) => {
                check.problem("", "nothing says how much is kept").hint =
                    Some("give `share`, such as 0.1, or `rows`".to_owned());
            }
            _ => {}
        }
        match &self.group {
            Some(group) if group.is_empty() => {
                check.problem("group", "the list of fields is empty");
            }
            Some(group) => Values::check_group(check, group),
            None => {}
        }
        if let Some(weight) = &self.weight {
            check.expression("weight", weight);
        }
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let lot = Lot { seed: kit.seed, epoch: Arc::clone(&kit.epoch), step: Arc::clone(&kit.step) };
        let part = match (self.rows, self.share) {
            (Some(rows), _) => Part::Rows(rows),
            (None, Some(share)) if self.is_by_row() => {
                return Ok(vec![Runner::Map(Box::new(Sampled { share, lot }))]);
            }
            (None, share) => Part::Share(share.unwrap_or(1.0)),
        };
        let group = Values::new(self.group.iter().flatten().map(String::as_str));
        let weight = self.weight.as_ref().map(|weight| kit.expression(weight)).transpose()?;
        Ok(vec![Runner::Group(Box::new(Drawn { part, group, weight, lot }))])
    }

    fn needs_all_rows(&self) -> bool {
        !self.is_by_row()
    }
}

/// The draw of each row.
struct Lot {
    seed: u64,
    epoch: Arc<str>,
    step: Arc<str>,
}

impl Lot {
    fn of(&self, row: &Row) -> f64 {
        Draws::new(self.seed, &self.epoch, &self.step, &row.draw_key(), "sample").unit()
    }
}

struct Sampled {
    share: f64,
    lot: Lot,
}

impl MapRow for Sampled {
    fn map(&self, row: Row) -> Outcome {
        let drawn = self.lot.of(&row);
        if drawn < self.share {
            return Outcome::Keep(row);
        }
        let evidence = json!({"share": self.share, "drawn": drawn});
        Outcome::Reject(row, Reason::new("not_sampled", evidence))
    }
}

struct Drawn {
    part: Part,
    group: Values,
    weight: Option<Expression>,
    lot: Lot,
}

impl Drawn {
    fn wanted(&self, rows: usize) -> usize {
        let wanted = match self.part {
            Part::Share(share) => (share * rows as f64).round() as usize,
            Part::Rows(rows) => usize::try_from(rows).unwrap_or(usize::MAX),
        };
        wanted.min(rows)
    }
}

impl GroupRow for Drawn {
    fn belong(&self) -> Belong {
        Belong::All
    }

    /// How early the row is drawn, the lowest first; then what tells its group.
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        let weight = match &self.weight {
            None => 1.0,
            Some(weight) => {
                let found = number(weight, &row.fields)?;
                if found < 0.0 {
                    let error = format!("`{}` is {found}, which is below 0", weight.source());
                    let evidence = json!({"expression": weight.source(), "error": error});
                    return Err(Reason::new("bad_expression", evidence));
                }
                found
            }
        };
        // The logarithm of u^(1/weight), turned round: an exponential wait at the rate `weight`. Of the two
        // ends of the interval only 0 can be drawn, and 1 - u is above it.
        let wait = -(1.0 - self.lot.of(row)).ln() / weight;
        let wait = if wait.is_nan() { f64::INFINITY } else { wait };
        let mut key = vec![ordered(wait)];
        key.extend(self.group.digest(&row.fields, Clone::clone));
        Ok(key)
    }

    fn decide(&self, rows: &[(RowId, FoldKey)]) -> Vec<Decision> {
        let wanted = self.wanted(rows.len());
        let groups = groups(rows, 1);
        let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
        let mut decisions = vec![Decision::Keep; rows.len()];
        for (mut places, kept) in groups.into_iter().zip(parts(&sizes, wanted)) {
            let of = places.len();
            places.sort_by_key(|place| rows[*place].1[0]);
            for place in places.drain(kept..) {
                let evidence = json!({"kept": kept, "of": of});
                decisions[place] = Decision::Reject(Reason::new("not_sampled", evidence));
            }
        }
        decisions
    }
}

/// Divides a number among groups by their sizes; what is left goes to the largest remainders, of equal ones
/// to the first (Hare's quota).
fn parts(sizes: &[usize], wanted: usize) -> Vec<usize> {
    let all: usize = sizes.iter().sum();
    if all == 0 {
        return vec![0; sizes.len()];
    }
    let exact = |size: &usize| (*size as u128) * (wanted as u128);
    let mut parts: Vec<usize> = sizes.iter().map(|size| (exact(size) / all as u128) as usize).collect();
    let left = wanted - parts.iter().sum::<usize>();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|group| std::cmp::Reverse(exact(&sizes[*group]) % all as u128));
    for group in order.into_iter().take(left) {
        parts[group] += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::{self, checked};
    use crate::row::{Fields, Value};

    fn lot(step: &str) -> Lot {
        Lot { seed: 7, epoch: "0".into(), step: step.into() }
    }

    /// The ordinals below 4000 that are kept.
    fn kept(share: f64, step: &str) -> Vec<u64> {
        let sampled = Sampled { share, lot: lot(step) };
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
        let sampled = Sampled { share: 1e-9, lot: lot("a") };
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

    /// The ordinals of the rows that are kept.
    fn drawn(config: Value, rows: &[Value]) -> Vec<usize> {
        let folder = tempfile::tempdir().unwrap();
        let Runner::Group(group) = fixture::built::<Sample>(config, &fixture::kit(folder.path())) else {
            panic!("it is a group");
        };
        let ids: Vec<String> = (0..rows.len()).map(|id| id.to_string()).collect();
        let rows: Vec<(&str, Value)> = ids.iter().map(String::as_str).zip(rows.iter().cloned()).collect();
        let ends = fixture::grouped(&*group, &rows);
        ends.iter().enumerate().filter(|(_, end)| end.is_none()).map(|(row, _)| row).collect()
    }

    #[test]
    fn numbers_are_met_and_larger_ones_keep_what_smaller_ones_keep() {
        let rows = vec![json!({}); 500];
        let (some, more) = (drawn(json!({"rows": 40}), &rows), drawn(json!({"rows": 400}), &rows));
        assert_eq!((some.len(), more.len()), (40, 400));
        assert!(some.iter().all(|row| more.contains(row)));
        assert_eq!(drawn(json!({"rows": 501}), &rows).len(), 500);
        assert_eq!(drawn(json!({"rows": 3}), &[]), [0; 0]);
    }

    #[test]
    fn groups_keep_their_part_to_the_row() {
        let kind = |row: u64| json!({"kind": if row < 700 { "a" } else if row < 990 { "b" } else { "c" }});
        let rows: Vec<Value> = (0..1000).map(kind).collect();
        let share = |config| {
            let kept = drawn(config, &rows);
            let of = |kind: &str| kept.iter().filter(|row| rows[**row]["kind"] == kind).count();
            [of("a"), of("b"), of("c")]
        };
        assert_eq!(share(json!({"share": 0.1, "group": ["kind"]})), [70, 29, 1]);
        assert_eq!(share(json!({"rows": 10, "group": ["kind"]})), [7, 3, 0]);
        assert_eq!(parts(&[1, 1, 1], 2), [1, 1, 0]);
        assert_eq!(parts(&[0, 0], 0), [0, 0]);
    }

    #[test]
    fn weights_are_chances() {
        let rows: Vec<Value> = (0..4000).map(|row| json!({"weight": ([0, 1, 3][row % 3])})).collect();
        let kept = drawn(json!({"rows": 200, "weight": "weight"}), &rows);
        let of = |weight: usize| kept.iter().filter(|row| *row % 3 == weight).count();
        assert_eq!(of(0), 0);
        // Three of four, within five standard deviations.
        assert!((119..181).contains(&of(2)), "{} of 200", of(2));
        let error = fixture::checked_config::<Sample>(json!({"rows": 1, "weight": "x"}), &[]).0;
        assert_eq!(error, ["weight: no field `x`"]);
        assert_eq!(drawn(json!({"rows": 1, "weight": "w"}), &[json!({"w": -1}), json!({"w": 1})]), [1]);
    }

    #[test]
    fn configs_are_checked() {
        let check = |config: Value, problems: &[&str]| {
            assert_eq!(fixture::checked_config::<Sample>(config, &[]).0, problems);
        };
        check(json!({}), &[": nothing says how much is kept"]);
        check(
            json!({"share": 0.1, "rows": 3, "group": []}),
            &["rows: `share` and `rows` exclude each other", "group: the list of fields is empty"],
        );
    }
}
