//! Runs that end early: how many source rows it takes until a `limit` or `until.kept` has its rows.
//!
//! Pure: from the ends of the source's first rows, in row order, to an interval. A row whose answer is not
//! in the store may pass or not: at the low end every such row passes, at the high end none does.

use crate::call::dry::NOT_IN_STORE;
use crate::engine::{End, Ended};
use crate::ops::Op;
use crate::pipeline::check::Pipeline;
use crate::run::plan::estimate::{DEVIATIONS, Interval};

/// A place among the steps that ends the run when so many rows have come past it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enough {
    /// The last step that the rows have to pass.
    step: usize,
    rows: u64,
    /// Most rows that one becomes from each step on, the step itself left out, up to this place; `None`
    /// where nothing bounds it. The first is for rows of the source.
    rows_per_row: Vec<Option<u64>>,
}

/// How a row of the walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    ordinal: u64,
    /// The step that it ended at; `None` for a row that was kept.
    step: Option<usize>,
    unknown: bool,
}

impl Way {
    /// `None` for a parent that ended by a split: its children come on their own.
    pub fn of(ended: &Ended) -> Option<Way> {
        let way = |step, unknown| Some(Way { ordinal: ended.row.id.ordinal, step, unknown });
        match &ended.end {
            End::Kept => way(None, false),
            End::Rejected { step, .. } => way(Some(*step), false),
            End::Failed { step, failure } => way(Some(*step), failure.code == NOT_IN_STORE),
            End::Split { .. } => None,
        }
    }
}

/// The places at which a pipeline's run may end early.
pub fn places(pipeline: &Pipeline) -> Vec<Enough> {
    let limits = pipeline.steps.iter().enumerate().filter_map(|(step, built)| match &built.op {
        Op::Limit(limit) => Some((step, limit.0)),
        _ => None,
    });
    let until = pipeline.file.source.sample.as_ref().and_then(|sample| sample.until);
    let kept = until.and_then(|until| until.kept);
    let kept = kept.map(|kept| (pipeline.steps.len().saturating_sub(1), kept));
    limits.chain(kept).map(|(step, rows)| enough(pipeline, step, rows)).collect()
}

fn enough(pipeline: &Pipeline, step: usize, rows: u64) -> Enough {
    let mut rows_per_row = vec![Some(1)];
    for step in pipeline.steps.iter().take(step + 1).rev() {
        let each = step.op.operator().rows_per_row().map(u64::from);
        let after = rows_per_row[rows_per_row.len() - 1];
        rows_per_row.push(each.zip(after).map(|(each, after)| each.saturating_mul(after)));
    }
    rows_per_row.reverse();
    Enough { step, rows, rows_per_row }
}

/// How many source rows the run takes, from the ends of the first `walked` rows of all.
pub fn rows_of_run(places: &[Enough], ways: &[Way], walked: u64, all: Interval) -> Interval {
    // Whichever place has its rows first ends the run.
    places.iter().fold(all, |rows, place| {
        let found = place.rows_needed(ways, walked, all);
        Interval { low: rows.low.min(found.low), high: least(rows.high, found.high) }
    })
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

impl Enough {
    fn rows_needed(&self, ways: &[Way], walked: u64, all: Interval) -> Interval {
        let within = |rows: u64| all.high.map_or(rows, |all| rows.min(all));
        // Rows that came past for certain, and with them those that may have.
        let (mut certain, mut possible) = (0_u64, 0_u64);
        let (mut decided, mut undecided) = (Yield::default(), 0);
        let mut low = None;
        for row in ways.chunk_by(|a, b| a.ordinal == b.ordinal) {
            let passed = row.iter().filter(|way| self.is_past(way)).count() as u64;
            let open: Vec<&Way> = row.iter().filter(|way| way.unknown && !self.is_past(way)).collect();
            let mut may_pass = open.iter().map(|way| self.rows_per_row[way.step.map_or(0, |step| step + 1)]);
            let may_pass = may_pass.try_fold(0_u64, |sum, each| Some(sum.saturating_add(each?)));
            certain += passed;
            possible = possible.saturating_add(passed).saturating_add(may_pass.unwrap_or(u64::MAX));
            match open.is_empty() {
                true => decided.add(passed),
                false => undecided += 1,
            }
            let rows = row[0].ordinal + 1;
            if possible >= self.rows {
                low = low.or(Some(rows));
            }
            if certain >= self.rows {
                return Interval { low: low.unwrap_or(rows), high: Some(rows) };
            }
        }
        let missing = self.rows.saturating_sub(possible);
        let low = low.unwrap_or_else(|| match self.rows_per_row[0] {
            Some(each) => walked + missing.div_ceil(each.max(1)),
            None => walked + missing.min(1),
        });
        let seen = decided.rows_for(self.rows).filter(|_| undecided > 0 || Some(walked) != all.high);
        let low = within(low);
        Interval { low, high: least(all.high, seen).map(|high| high.max(low)) }
    }

    /// A row that ended at a later step came past this one.
    fn is_past(&self, way: &Way) -> bool {
        way.step.is_none_or(|step| step > self.step)
    }
}

/// How many rows came past of those that were decided.
#[derive(Clone, Copy, Default)]
struct Yield {
    decided: u64,
    passed: u64,
}

impl Yield {
    fn add(&mut self, passed: u64) {
        self.decided += 1;
        self.passed += passed;
    }

    /// The most source rows that it takes for so many to pass, if the later ones are like these: both what
    /// was counted and what is to come vary by the root of their number.
    fn rows_for(self, rows: u64) -> Option<u64> {
        let (passed, rows) = (self.passed as f64, rows as f64);
        let needed = rows * (self.decided as f64 + 1.0) / (passed + 1.0);
        let spread = DEVIATIONS * (1.0 / passed + 1.0 / rows).sqrt();
        (self.passed > 0).then(|| (needed * (1.0 + spread)).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture::pipeline;

    const STEPS: &str = "
source: { sample: { rows: 100, draw: { n: [1, 2, 3] } } }
steps:
  - generate: { teacher: writer, prompt: \"Tell {{ n }}\", into: text, samples: 2 }
  - keep_if: n > 1
  - limit: 10
";

    /// Rows as letters, in row order: `k`ept, `r`ejected by the filter, `?` not in the store.
    #[track_caller]
    fn check(steps: &str, rows: &str, all: u64, expected: (u64, u64)) {
        let pipeline = pipeline(steps);
        let way = |(ordinal, letter)| match letter {
            'k' => Way { ordinal, step: None, unknown: false },
            'r' => Way { ordinal, step: Some(1), unknown: false },
            _ => Way { ordinal, step: Some(0), unknown: true },
        };
        let ways: Vec<Way> = (0..).zip(rows.chars()).map(way).collect();
        let found = rows_of_run(&places(&pipeline), &ways, ways.len() as u64, Interval::exact(all));
        assert_eq!((found.low, found.high), (expected.0, Some(expected.1)), "{rows}");
    }

    #[test]
    fn a_limit_has_its_rows_where_enough_passed() {
        check(STEPS, &"k".repeat(10), 100, (10, 10));
        check(STEPS, "krkrkrkrkrkrkrkrkrkrkk", 100, (19, 19));
        // An answer that is missing may be one row more, and was split before it was asked for.
        check(STEPS, "kkkkk?kkkkk", 100, (10, 11));
        check(STEPS, &"?".repeat(100), 100, (10, 100));
        // What is left of the source does not give enough.
        check(STEPS, "rrr", 3, (3, 3));
    }

    #[test]
    fn rows_that_were_not_walked_pass_at_best_and_follow_the_yield_at_worst() {
        // Three more rows of two samples each; 10 x 6/5 rows at the yield, give or take.
        check(STEPS, "kkkkr", 1000, (8, 27));
        check(STEPS, "rrrrr", 1000, (10, 1000));
        let bounded = STEPS.replace("samples: 2", "samples: 1");
        check(&bounded, "kkkkr", 1000, (11, 27));
    }

    #[test]
    fn until_counts_what_is_kept() {
        let steps = "
source: { sample: { until: { kept: 3, tried: 50 }, draw: { n: [1, 2, 3] } } }
steps: [{ set: { a: 1 } }, { keep_if: n > 1 }]";
        check(steps, "krrkk", 50, (5, 5));
        check(steps, "kr?k?", 50, (4, 12));
        check(STEPS.replace("  - limit: 10\n", "").as_str(), "kk", 50, (50, 50));
    }
}
