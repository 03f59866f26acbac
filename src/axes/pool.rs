//! A list of values that is drawn from: evenly or by weight, one or several, with some left out.
//!
//! Knows nothing of axes or files.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::axes::random::Draws;
use crate::row::Value;

/// How values are compared and shown: a text as it is, anything else as JSON writes it. So the `3` of a
/// CSV file and the number 3 are the same.
pub(super) fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// Values to draw from.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    values: Vec<Value>,
    /// Each value's weight; empty: all the same.
    weights: Vec<f64>,
    /// The sum of the weights up to and with each value.
    sums: Vec<f64>,
    /// The places of each value, ascending; only made where values are left out.
    places: HashMap<String, Vec<usize>>,
}

impl Pool {
    pub(super) fn even(values: Vec<Value>) -> Pool {
        Pool { values, weights: Vec::new(), sums: Vec::new(), places: HashMap::new() }
    }

    pub(super) fn weighted(values: Vec<Value>, weights: Vec<f64>) -> Pool {
        let mut sum = 0.0;
        let add = |weight: &f64| {
            sum += weight;
            sum
        };
        let sums = weights.iter().map(add).collect();
        Pool { values, weights, sums, places: HashMap::new() }
    }

    /// Makes ready for leaving values out.
    pub(super) fn indexed(mut self) -> Pool {
        for (place, value) in self.values.iter().enumerate() {
            self.places.entry(text_of(value).into_owned()).or_default().push(place);
        }
        self
    }

    pub(super) fn values(&self) -> &[Value] {
        &self.values
    }

    /// The values that can come.
    pub(super) fn possible(&self) -> impl Iterator<Item = &Value> {
        let weights = self.weights.iter().copied().chain(std::iter::repeat(1.0));
        self.values.iter().zip(weights).filter(|(_, weight)| *weight > 0.0).map(|(value, _)| value)
    }

    pub(super) fn is_even(&self) -> bool {
        self.weights.is_empty()
    }

    pub(super) fn value(&self, place: u64) -> Value {
        usize::try_from(place).ok().and_then(|place| self.values.get(place)).cloned().unwrap_or_default()
    }

    /// How many values can still come when these are left out.
    pub(super) fn left(&self, without: &[Cow<'_, str>]) -> u64 {
        let out = self.out(without);
        let can_come =
            |place: &usize| !out.contains(place) && self.weights.get(*place).is_none_or(|w| *w > 0.0);
        match (self.is_even(), out.len()) {
            (true, out) => (self.values.len() - out) as u64,
            (false, _) => (0..self.values.len()).filter(can_come).count() as u64,
        }
    }

    /// Up to `count` values from different places, none of them in `without`.
    pub(super) fn draw(&self, draws: &mut Draws, count: u64, without: &[Cow<'_, str>]) -> Vec<Value> {
        let out = self.out(without);
        let places: Vec<usize> = match (self.is_even(), count) {
            (true, _) => {
                let left = (self.values.len() - out.len()) as u64;
                draws.distinct(left, count).into_iter().map(|nth| nth_left(nth as usize, &out)).collect()
            }
            (false, 1) if out.is_empty() => self.by_weight(draws).into_iter().collect(),
            (false, _) => self.several_by_weight(draws, count, out),
        };
        places.into_iter().filter_map(|place| self.values.get(place).cloned()).collect()
    }

    fn out(&self, without: &[Cow<'_, str>]) -> BTreeSet<usize> {
        without.iter().filter_map(|value| self.places.get(value.as_ref())).flatten().copied().collect()
    }

    fn by_weight(&self, draws: &mut Draws) -> Option<usize> {
        let target = draws.unit() * self.sums.last()?;
        let place = self.sums.partition_point(|sum| *sum <= target);
        // Rounding up to the very end must not give a last value of weight 0.
        let last = self.weights.iter().rposition(|weight| *weight > 0.0)?;
        Some(place.min(last))
    }

    /// One after the other, each by weight among those that are left.
    fn several_by_weight(&self, draws: &mut Draws, count: u64, mut out: BTreeSet<usize>) -> Vec<usize> {
        let mut chosen = Vec::new();
        for _ in 0..count {
            let left =
                || self.weights.iter().enumerate().filter(|(place, w)| **w > 0.0 && !out.contains(place));
            let total: f64 = left().map(|(_, weight)| weight).sum();
            let target = draws.unit() * total;
            let mut sum = 0.0;
            let mut found = None;
            for (place, weight) in left() {
                found = Some(place);
                sum += weight;
                if sum > target {
                    break;
                }
            }
            let Some(place) = found else { break };
            out.insert(place);
            chosen.push(place);
        }
        chosen
    }
}

/// The place of the nth value of those that are not out.
fn nth_left(nth: usize, out: &BTreeSet<usize>) -> usize {
    out.iter().fold(nth, |place, out| if *out <= place { place + 1 } else { place })
}

/// The values without those that came before.
pub(super) fn deduplicated(values: Vec<Value>) -> Vec<Value> {
    let mut seen = HashSet::new();
    values.into_iter().filter(|value| seen.insert(text_of(value).into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(texts: &str) -> Vec<Value> {
        texts.split(' ').map(Value::from).collect()
    }

    /// How often each value came in 2,000 draws of `count`, as `a: 1000`.
    #[track_caller]
    fn check(pool: &Pool, count: u64, without: &[&str], expected: &[(&str, f64)]) {
        let without: Vec<Cow<'_, str>> = without.iter().map(|text| Cow::Borrowed(*text)).collect();
        let mut counts: HashMap<String, f64> = HashMap::new();
        for row in 0..2000 {
            let mut draws = Draws::new(1, "0", "s", &row.to_string(), "a");
            let drawn = pool.draw(&mut draws, count, &without);
            assert_eq!(deduplicated(drawn.clone()), drawn);
            drawn
                .iter()
                .for_each(|value| *counts.entry(text_of(value).into_owned()).or_default() += 1.0 / 2000.0);
        }
        assert_eq!(counts.len(), expected.len(), "{counts:?}");
        for (value, share) in expected {
            assert!((counts[*value] - share).abs() < 0.05, "{value}: {counts:?}");
        }
    }

    #[test]
    fn draws_are_even_or_by_weight() {
        let even = Pool::even(values("a b c d")).indexed();
        check(&even, 1, &[], &[("a", 0.25), ("b", 0.25), ("c", 0.25), ("d", 0.25)]);
        check(&even, 1, &["b", "x"], &[("a", 0.33), ("c", 0.33), ("d", 0.33)]);
        check(&even, 2, &["a", "d"], &[("b", 1.0), ("c", 1.0)]);
        let weighted = Pool::weighted(values("z a b c y"), vec![0.0, 1.0, 2.0, 1.0, 0.0]).indexed();
        check(&weighted, 1, &[], &[("a", 0.25), ("b", 0.5), ("c", 0.25)]);
        check(&weighted, 1, &["a"], &[("b", 0.667), ("c", 0.333)]);
        check(&weighted, 9, &[], &[("a", 1.0), ("b", 1.0), ("c", 1.0)]);
        assert_eq!(weighted.left(&[Cow::Borrowed("a")]), 2);
        assert_eq!(even.left(&[Cow::Borrowed("a")]), 3);
    }

    #[test]
    fn values_are_compared_by_their_text() {
        assert_eq!(deduplicated(vec![json!("3"), json!(3), json!(true), json!("true")]).len(), 2);
    }
}
