//! The budgets of a pipeline file: what they cap, and whether calls can be sent under them at all.
//!
//! Pure. What was spent, and whether a call fits in what is left, is not known here.

use crate::call::budget::Of;
use crate::call::caps::CapsFile;
use crate::ops::Asks;
use crate::pipeline::check::Step;
use crate::pipeline::file::{PipelineFile, TeacherFile};
use crate::problem::{KeyPath, Place, Problem};

/// One budget of a file.
pub struct Budgeted {
    pub of: Of,
    pub caps: CapsFile,
    /// Where the file has it.
    pub at: KeyPath,
}

impl Budgeted {
    /// Whether calls of a step add to it.
    fn holds(&self, step: &Step) -> bool {
        match &self.of {
            Of::Step { name, .. } => **name == *step.name,
            Of::Epoch | Of::Run | Of::Day => true,
        }
    }
}

/// All budgets of a file: the epoch's, the run's, the day's, the steps'.
pub fn budgets(file: &PipelineFile, steps: &[Step]) -> Vec<Budgeted> {
    let at = KeyPath::parse("budget");
    let of_file = file.budget.iter().flat_map(|budget| {
        let per_epoch = Some(budget.per_epoch()).filter(|caps| !caps.is_none());
        let parts = [
            (Of::Epoch, per_epoch, at.clone()),
            (Of::Run, budget.per_run, at.join("per_run")),
            (Of::Day, budget.per_day.map(|day| day.caps()), at.join("per_day")),
        ];
        parts.into_iter().filter_map(|(of, caps, at)| Some(Budgeted { of, caps: caps?, at }))
    });
    let of_steps = steps.iter().enumerate().filter_map(|(index, step)| {
        let of = Of::Step { index, name: step.name.as_str().into() };
        Some(Budgeted { of, caps: step.budget?, at: step.at.join("budget") })
    });
    of_file.chain(of_steps).collect()
}

/// What is wrong with the budgets themselves.
pub fn check(file: &PipelineFile, steps: &[Step], problems: &mut Vec<Problem>) {
    let found = budgets(file, steps);
    if file.budget.is_some() && !found.iter().any(|budget| !matches!(budget.of, Of::Step { .. })) {
        problems.push(caps_nothing(KeyPath::parse("budget")));
    }
    for Budgeted { of, caps, at } in &found {
        if caps.is_none() {
            problems.push(caps_nothing(at.clone()));
        }
        if caps.usd.is_some_and(|usd| !(usd > 0.0 && usd.is_finite() && usd < 1e9)) {
            let place = Place::Value(at.join("usd"));
            problems.push(Problem::error(place, "a budget must be above 0 USD"));
        }
        for (key, cap) in [("tokens", caps.tokens), ("calls", caps.calls)] {
            if cap == Some(0) {
                let place = Place::Value(at.join(key));
                problems.push(Problem::error(place, format!("a budget of 0 {key} lets nothing through")));
            }
        }
        if let Of::Step { index, .. } = of
            && steps[*index].op.operator().asks().is_empty()
        {
            let message =
                format!("`{}` asks no teacher: a budget holds nothing here", steps[*index].op.name());
            let hint = "move it to a step that asks one, or to `budget:` of the pipeline";
            problems.push(Problem::error(Place::Key(at.clone()), message).hint(hint));
        }
    }
}

fn caps_nothing(at: KeyPath) -> Problem {
    Problem::error(Place::Value(at), "the budget caps nothing").hint("give `usd`, `tokens` or `calls`")
}

/// Under a budget in money, a teacher needs prices.
pub fn prices(file: &PipelineFile, name: &str, teacher: &TeacherFile, steps: &[Step]) -> Option<Problem> {
    if teacher.price.is_some() || teacher.recorded.is_some() {
        return None;
    }
    let in_usd: Vec<Budgeted> =
        budgets(file, steps).into_iter().filter(|budget| budget.caps.usd.is_some()).collect();
    let asking = steps.iter().filter(|step| step.asks(name));
    let held = asking.filter(|step| in_usd.iter().any(|budget| budget.holds(step))).count();
    let hint = "give `price: { input: …, output: … }` in USD per million tokens; for a server of your own, 0";
    let place = Place::Value(KeyPath::root());
    (held > 0).then(|| Problem::error(place, "a budget in USD needs this teacher's price").hint(hint))
}

/// What a step asks of a teacher against the budgets that hold it.
pub fn step(
    file: &PipelineFile,
    steps: &[Step],
    step: &Step,
    asks: &Asks<'_>,
    teacher: &TeacherFile,
    under: &KeyPath,
) -> Option<Problem> {
    let holding: Vec<Budgeted> =
        budgets(file, steps).into_iter().filter(|budget| budget.holds(step)).collect();
    let Some(max_tokens) = asks.tokens_out_max().map(u64::from) else {
        let message = match holding.iter().any(|budget| !matches!(budget.of, Of::Step { .. })) {
            true => "a budget needs `max_tokens` in every step that asks a teacher",
            false => "a budget of a step needs its `max_tokens`",
        };
        let hint = "what a call may cost at worst is known only with a limit on its answer";
        let lacks = !holding.is_empty() && teacher.recorded.is_none();
        return lacks.then(|| Problem::error(Place::Value(under.clone()), message).hint(hint));
    };
    let usd = teacher.price.map(|price| price.output * max_tokens as f64 / 1e6);
    let too_small = |caps: &CapsFile| {
        let over_tokens = caps.tokens.is_some_and(|tokens| tokens > 0 && max_tokens > tokens);
        let over_usd = caps.usd.zip(usd).is_some_and(|(cap, usd)| cap > 0.0 && usd > cap);
        over_tokens || over_usd
    };
    let tight = holding.iter().find(|budget| too_small(&budget.caps))?;
    let message = format!(
        "one call's worst case is over the whole budget{}: no call could ever be sent",
        tight.of.words()
    );
    Some(
        Problem::error(Place::Value(under.join("max_tokens")), message)
            .hint("raise the budget or lower `max_tokens`"),
    )
}
