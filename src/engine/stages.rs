//! A row's way through the steps: the stages, and `advance`, which takes one row as far as it gets.
//!
//! One row is one task; it runs maps and awaits calls until it reaches a fold, is split or ends. No
//! state is shared between rows here.

use serde_json::json;

use crate::call::Pause;
use crate::engine::{Arrived, End, Ended, Event, Progress};
use crate::kit::Columns;
use crate::ops::{Belong, Decision, FoldKey, FoldState, GroupRow, Runner};
use crate::row::{Fields, Outcome, Reason, Row};
use crate::template::Expression;

/// One runner of one step.
pub struct Stage {
    pub step: usize,
    /// The step's `when`, on its first stage.
    pub when: Option<Expression>,
    /// The stage after the step's last one: where rows go that the step does not hold for.
    pub step_end: usize,
    pub runner: Runner,
}

impl Stage {
    /// What is decided on about a row, where the stage waits for others.
    fn key(&self, row: &Row) -> Result<Option<FoldKey>, Reason> {
        match &self.runner {
            Runner::Fold(fold) => fold.key(row).map(Some),
            Runner::Group(group) => group.key(row).map(Some),
            Runner::Map(_) | Runner::Call(_) => Ok(None),
        }
    }
}

/// All stages of a pipeline, in order.
pub struct Stages {
    stages: Vec<Stage>,
    /// The stage of each fold and each group: where rows wait for others.
    folds: Vec<usize>,
    pub steps: Vec<String>,
    /// What kept rows are made of, in order.
    columns: Columns,
}

/// The runners of one step, ready to be chained.
pub struct StepRunners {
    pub name: String,
    pub when: Option<Expression>,
    pub runners: Vec<Runner>,
}

impl Stages {
    pub fn new(steps: Vec<StepRunners>, columns: Columns) -> Stages {
        let mut stages: Vec<Stage> = Vec::new();
        let mut names = Vec::new();
        for (step, StepRunners { name, mut when, runners }) in steps.into_iter().enumerate() {
            let step_end = stages.len() + runners.len();
            for runner in runners {
                stages.push(Stage { step, when: when.take(), step_end, runner });
            }
            names.push(name);
        }
        let is_fold =
            |(_, stage): &(usize, &Stage)| matches!(stage.runner, Runner::Fold(_) | Runner::Group(_));
        let folds = stages.iter().enumerate().filter(is_fold).map(|(index, _)| index).collect();
        Stages { stages, folds, steps: names, columns }
    }

    /// The segment a stage lies in: the number of folds before it.
    pub fn segment(&self, stage: usize) -> usize {
        self.folds.partition_point(|fold| *fold < stage)
    }

    /// A fresh state for each fold; a group has none.
    pub fn fold_states(&self) -> Vec<Option<Box<dyn FoldState>>> {
        let start = |stage: &usize| match &self.stages[*stage].runner {
            Runner::Fold(fold) => Some(fold.start()),
            _ => None,
        };
        self.folds.iter().map(start).collect()
    }

    pub fn group(&self, fold: usize) -> Option<&dyn GroupRow> {
        match &self.stages[self.folds[fold]].runner {
            Runner::Group(group) => Some(&**group),
            _ => None,
        }
    }

    /// Which rows belong together at each fold; nothing where it is one.
    pub fn groups(&self) -> Vec<Option<Belong>> {
        (0..self.folds.len()).map(|fold| self.group(fold).map(GroupRow::belong)).collect()
    }

    pub fn step_of_fold(&self, fold: usize) -> usize {
        self.stages[self.folds[fold]].step
    }

    pub fn stage_of_fold(&self, fold: usize) -> usize {
        self.folds[fold]
    }

    /// The stage where a row goes on that the step of a fold does not hold for.
    pub fn past_step(&self, fold: usize) -> usize {
        let end = self.stages[self.folds[fold]].step_end;
        self.folds.get(fold + 1).map_or(end, |next| end.min(*next))
    }

    /// The step that a stage belongs to.
    pub fn step_of(&self, stage: usize) -> usize {
        self.stages[stage].step
    }

    fn is_first(&self, stage: usize) -> bool {
        stage == 0 || self.stages[stage - 1].step != self.stages[stage].step
    }

    /// Whether a row that comes past the stage has passed its step.
    pub fn is_last(&self, stage: usize) -> bool {
        stage + 1 == self.stages[stage].step_end
    }

    /// Takes a row from a stage as far as it gets on its own.
    pub async fn advance(&self, mut row: Row, mut at: usize, progress: &Progress) -> Event {
        while let Some(stage) = self.stages.get(at) {
            let held = match &stage.when {
                Some(when) => when.holds(&row.fields),
                None => Ok(true),
            };
            let untouched = match held {
                Ok(held) => !held,
                Err(error) => {
                    let reason = Reason::new("bad_expression", json!({"when": error.message}));
                    return self.ended(at, row, End::Rejected { step: stage.step, reason });
                }
            };
            if !untouched && self.is_first(at) {
                progress.enter(stage.step);
            }
            if matches!(stage.runner, Runner::Fold(_) | Runner::Group(_)) {
                let key = if untouched { Ok(None) } else { stage.key(&row) };
                return match key {
                    Ok(key) => Event::Arrived { fold: self.segment(at), arrived: Arrived { row, key } },
                    Err(reason) => self.ended(at, row, End::Rejected { step: stage.step, reason }),
                };
            }
            if untouched {
                at = stage.step_end;
                continue;
            }
            let (id, calls) = (row.id.clone(), row.calls.len());
            let outcome = match &stage.runner {
                Runner::Map(map) => Ok(map.map(row)),
                Runner::Call(call) => call.call(row).await,
                Runner::Fold(_) | Runner::Group(_) => {
                    return Event::Bug(format!("row {id} reached a fold twice"));
                }
            };
            if self.is_last(at) {
                progress.pass(stage.step, outcome.as_ref().map_or(0, Outcome::rows));
            }
            match outcome {
                Ok(Outcome::Keep(kept)) => row = kept,
                Ok(Outcome::Split(row, children)) => return self.split(at, row, children),
                Ok(Outcome::Reject(row, reason)) => {
                    return self.ended(at, row, End::Rejected { step: stage.step, reason });
                }
                Ok(Outcome::Fail(row, failure)) => {
                    return self.ended(at, row, End::Failed { step: stage.step, failure });
                }
                Err(Pause::Stopped) => return Event::Stopped { id, step: stage.step, asked: calls > 0 },
                Err(Pause::Parked(mut row)) => {
                    // It asks for them again, and finds them in the store.
                    row.calls.truncate(calls);
                    if self.is_first(at) {
                        progress.take_back(stage.step);
                    }
                    return Event::Parked { row: *row, stage: at };
                }
            }
            at += 1;
        }
        let end = self.fit(&mut row);
        self.ended(self.stages.len(), row, end)
    }

    fn split(&self, at: usize, row: Row, children: Vec<Fields>) -> Event {
        let step = self.stages[at].step;
        Event::Split { row, step, segment: self.segment(at), next: at + 1, children }
    }

    fn ended(&self, at: usize, row: Row, end: End) -> Event {
        Event::Ended { segment: self.segment(at), ended: Ended { row, end } }
    }

    /// A kept row holds exactly the columns that were fixed before the first call.
    fn fit(&self, row: &mut Row) -> End {
        for (name, kind) in &self.columns {
            let value = row.fields.get(name).unwrap_or(&serde_json::Value::Null);
            if !kind.fits(value) {
                let evidence = json!({"column": name, "type": kind.to_string(), "value": value});
                let step = self.steps.len().saturating_sub(1);
                return End::Rejected { step, reason: Reason::new("type_mismatch", evidence) };
            }
        }
        End::Kept
    }
}

/// What a fold decided for a row, as the end it comes to, if it does.
pub fn end_of(decision: Decision, step: usize) -> Option<End> {
    match decision {
        Decision::Keep | Decision::KeepWith(_) | Decision::KeepAsLast => None,
        Decision::Reject(reason) => Some(End::Rejected { step, reason }),
    }
}
