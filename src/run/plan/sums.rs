//! Sums over the steps of a plan.

use crate::call::budget::Of;
use crate::run::plan::estimate::{Estimate, Interval};
use crate::run::plan::{Plan, StepPlan};
use crate::store::Unit;

impl Plan {
    /// The sum over all steps.
    pub fn total(&self, of: impl Fn(&Estimate) -> Interval) -> Interval {
        self.steps.iter().map(|step| of(&step.estimate)).fold(Interval::exact(0), Interval::plus)
    }

    /// What the calls that add to a limit would take, of one unit; `None` when that is not known.
    pub fn planned(&self, of: &Of, unit: Unit) -> Option<Interval> {
        let held = self.steps.iter().filter(|step| match of {
            Of::Step { name, .. } => **name == *step.step,
            Of::Epoch | Of::Run | Of::Day => true,
        });
        let taken = held.map(|StepPlan { estimate, .. }| match unit {
            Unit::Usd if estimate.calls == Interval::exact(0) => Some(Interval::exact(0)),
            Unit::Usd => estimate.usd_nano,
            Unit::Tokens => Some(estimate.tokens_in.plus(estimate.tokens_out)),
            Unit::Calls => Some(estimate.calls),
        });
        taken.into_iter().try_fold(Interval::exact(0), |sum, taken| Some(sum.plus(taken?)))
    }

    /// Nano-dollars over all steps; `None` when a step that has calls to make has no price.
    pub fn usd_nano(&self) -> Option<Interval> {
        self.planned(&Of::Epoch, Unit::Usd)
    }
}
