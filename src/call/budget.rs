//! The budget: a wall, also across crashes.
//!
//! Every call is reserved at its worst case before it is sent and settled after it. The sums live in
//! the store's ledger, which never forgets; what is admitted is decided here, lowest row first: what is left
//! near a cap belongs to the rows that a partial dataset begins with. Several sums may have caps (the epoch's,
//! a step's, the run's, the day's): a call is reserved against all that it adds to, or against none. The day's is
//! other processes', too: the ledger has the last word on it, and is looked at again and again.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::call::caps::AtCap;
use crate::clock::Wall;
use crate::row::RowId;
use crate::store::{Amount, Caps, Spent, Unit};

/// The longest sleep until midnight: a machine that was suspended looks at its clock again soon.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Whose sum has caps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// All runs of a pipeline's epoch.
    Epoch,
    /// One step in all runs of the epoch.
    Step { index: usize, name: Arc<str> },
    /// This run.
    Run,
    /// All runs of the workspace on one day in UTC.
    Day,
}

impl Of {
    /// Behind a budget's number: `a budget of 5 USD per day`.
    pub fn words(&self) -> String {
        match self {
            Of::Epoch => String::new(),
            Of::Step { name, .. } => format!(" for step `{name}`"),
            Of::Run => " per run".to_owned(),
            Of::Day => " per day".to_owned(),
        }
    }
}

/// A sum with caps, and what it had come to when the run began.
#[derive(Clone, Debug)]
pub struct Limit {
    pub of: Of,
    pub caps: Caps,
    pub spent: Amount,
    /// What batches that earlier runs sent may come to on top.
    pub batched: Amount,
}

/// A call in a batch, for the sums that it adds to.
#[derive(Clone, Copy, Debug)]
pub struct InBatch<'a> {
    /// Whether the run's pipeline and epoch asked it, and whether the run itself did.
    pub ours: bool,
    pub own: bool,
    pub step: &'a str,
    pub worst: Amount,
    pub day: i64,
}

/// A cap that stops a run: which, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub sentence: String,
    /// `raise … and run again`.
    pub remedy: String,
}

/// Settled and reserved amounts of every limit, and the calls that wait for room.
#[derive(Debug, Default)]
struct State {
    sums: Vec<Sum>,
    day: i64,
    /// What everything waits for until the day is over.
    resting: Option<String>,
    waiting: BTreeSet<Rank>,
    last_id: u64,
    /// Reservations and settlements so far.
    changes: u64,
    /// With as many of them, and nothing reserved, the ledger was last read: then the day is known exactly.
    known_at: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    settled: Amount,
    reserved: Amount,
    /// What other processes have reserved of the day.
    elsewhere: Amount,
}

impl Sum {
    fn worst(self) -> Amount {
        self.settled.plus(self.reserved).plus(self.elsewhere)
    }
}

/// Lowest row first, then later step, then first come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    row: RowId,
    step: Reverse<usize>,
    id: u64,
}

/// The caps of a run. The default one has none.
#[derive(Default)]
pub struct Budget {
    limits: Vec<Limit>,
    at_day_cap: AtCap,
    wall: Wall,
    state: Mutex<State>,
    /// There may be room, or another is next.
    moved: Notify,
}

/// What a waiter finds when it looks.
enum Look {
    /// Reserved, on this day.
    Reserved(i64),
    NotYet,
    /// Nothing that is still under way can make room for it.
    Never(Reached),
}

/// A place among the waiters, given up when it is dropped.
struct Place<'a> {
    budget: &'a Budget,
    rank: Rank,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.budget.lock().waiting.remove(&self.rank);
        self.budget.moved.notify_waiters();
    }
}

/// A call's worst case, reserved. Dropped without [`Hold::settle`] (a panic, a cancelled call), it counts as
/// spent.
#[must_use = "a reservation is settled with what the call came to"]
pub struct Hold<'a> {
    budget: &'a Budget,
    step: usize,
    worst: Amount,
    /// The day that it counts on, whenever it is settled.
    pub day: i64,
    actual: Amount,
}

impl Hold<'_> {
    /// Replaces the worst case by what the call came to.
    pub fn settle(mut self, actual: Amount) {
        self.actual = actual;
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.budget.settle(self);
    }
}

impl Budget {
    /// What the limits have spent is what the ledger says, dead processes' reservations included.
    pub fn new(limits: Vec<Limit>, at_day_cap: AtCap, wall: Wall) -> Budget {
        let sums = limits
            .iter()
            .map(|limit| Sum { settled: limit.spent, reserved: limit.batched, ..Sum::default() })
            .collect();
        let state = State { sums, day: wall.day(), ..State::default() };
        Budget { limits, at_day_cap, wall, state: Mutex::new(state), moved: Notify::new() }
    }

    /// Whether calls of a step must be reserved in the ledger before they are sent.
    pub fn caps(&self, step: usize) -> bool {
        self.limits.iter().any(|limit| concerns(limit, step))
    }

    /// Whether anything has a cap.
    pub fn is_capped(&self) -> bool {
        !self.limits.is_empty()
    }

    /// The day it is, counted from 1970-01-01 in UTC.
    pub fn today(&self) -> i64 {
        self.wall.day()
    }

    /// Reserves a call's worst case when it is the lowest that waits and there is room for it beside what the
    /// open rows below it may still need; or says which cap the call would pass even when nothing else is
    /// under way. That is final only for the row that everything else waits for: a lower one may still settle
    /// for less. `lowest_open` tells which row that is.
    pub async fn reserve(
        &self,
        row: RowId,
        step: usize,
        worst: Amount,
        mut lowest_open: watch::Receiver<Option<RowId>>,
    ) -> Result<Hold<'_>, Reached> {
        let place = self.wait(row, step);
        let by_day = self.limits.iter().any(|limit| limit.of == Of::Day);
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Listening starts before the look, so that nothing in between is missed.
            moved.as_mut().enable();
            let lowest = lowest_open.borrow_and_update().clone();
            match self.look(&place.rank, worst, lowest.as_ref()) {
                Look::Reserved(day) => return Ok(Hold { budget: self, step, worst, day, actual: worst }),
                Look::Never(reached) => return Err(reached),
                Look::NotYet => tokio::select! {
                    () = moved => {}
                    Ok(()) = lowest_open.changed() => {}
                    () = tokio::time::sleep(self.wall.until_midnight().min(LOOK_EVERY)), if by_day => {}
                },
            }
        }
    }

    /// Reserves the worst cases of calls of this run that go together, by their steps and in their order, as far as
    /// there is room; how many that are, and the day that they count on. Says which cap the first one would pass
    /// when nothing that is under way can make room for it.
    pub fn reserve_all<'a>(
        &self,
        calls: impl IntoIterator<Item = (&'a str, Amount)>,
    ) -> Result<(usize, i64), Reached> {
        let mut state = self.lock();
        self.roll(&mut state);
        let mut count = 0;
        for (step, worst) in calls {
            let call = InBatch { ours: true, own: true, step, worst, day: state.day };
            if !self.has_room(&mut state, &call, count == 0)? {
                break;
            }
            for (limit, sum) in self.limits.iter().zip(&mut state.sums) {
                if call.concerns(limit) {
                    sum.reserved = sum.reserved.plus(worst);
                }
            }
            count += 1;
        }
        if count > 0 {
            state.resting = None;
            state.changes += 1;
        }
        Ok((count, state.day))
    }

    fn has_room(&self, state: &mut State, call: &InBatch<'_>, first: bool) -> Result<bool, Reached> {
        for (limit, sum) in self.limits.iter().zip(&state.sums).filter(|(limit, _)| call.concerns(limit)) {
            let before = sum.worst();
            let Some(unit) = limit.caps.passed_by(before.plus(call.worst)) else { continue };
            // What others have reserved may still be settled for less.
            let for_good = limit.caps.passed_by(sum.settled.plus(call.worst)).is_some();
            let is_known = limit.of != Of::Day || state.known_at == Some(state.changes);
            if first && sum.reserved.calls == 0 && for_good && is_known {
                let reached = limit.reached(unit, before, call.worst);
                if !self.waits_for_next_day(limit, call.worst) {
                    return Err(reached);
                }
                state.resting = Some(reached.sentence);
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// Replaces the worst case of a call in a batch by what it came to.
    pub fn settle_batched(&self, call: &InBatch<'_>, actual: Amount) {
        let mut state = self.lock();
        self.roll(&mut state);
        let today = state.day;
        for (limit, sum) in self.limits.iter().zip(&mut state.sums) {
            if call.concerns(limit) && (limit.of != Of::Day || call.day == today) {
                sum.reserved = sum.reserved.minus(call.worst);
                sum.settled = sum.settled.plus(actual);
            }
        }
        state.changes += 1;
        drop(state);
        self.moved.notify_waiters();
    }

    fn wait(&self, row: RowId, step: usize) -> Place<'_> {
        let mut state = self.lock();
        state.last_id += 1;
        let rank = Rank { row, step: Reverse(step), id: state.last_id };
        state.waiting.insert(rank.clone());
        Place { budget: self, rank }
    }

    fn look(&self, rank: &Rank, worst: Amount, lowest: Option<&RowId>) -> Look {
        let mut state = self.lock();
        self.roll(&mut state);
        if state.waiting.first() != Some(rank) {
            return Look::NotYet;
        }
        let step = rank.step.0;
        let first = lowest.is_none_or(|lowest| rank.row <= *lowest);
        let rows_below = lowest.map_or(0, |lowest| rank.row.ordinal.saturating_sub(lowest.ordinal));
        let mut room = true;
        for index in self.concerned(step) {
            let (limit, sum) = (&self.limits[index], state.sums[index]);
            let before = sum.worst();
            if let Some(unit) = limit.caps.passed_by(before.plus(worst)) {
                room = false;
                // What others have reserved may still be settled for less.
                let for_good = limit.caps.passed_by(sum.settled.plus(worst)).is_some();
                let is_known = limit.of != Of::Day || state.known_at == Some(state.changes);
                if first && sum.reserved.calls == 0 && for_good && is_known {
                    let reached = limit.reached(unit, before, worst);
                    if !self.waits_for_next_day(limit, worst) {
                        return Look::Never(reached);
                    }
                    state.resting = Some(reached.sentence);
                }
            } else {
                // Each row below may need a call more, of the size that calls had so far.
                let below = sum.settled.mean().unwrap_or(worst).times(rows_below);
                room &= limit.caps.passed_by(before.plus(below).plus(worst)).is_none();
            }
        }
        if !room {
            return Look::NotYet;
        }
        for index in self.concerned(step) {
            let sum = &mut state.sums[index];
            sum.reserved = sum.reserved.plus(worst);
        }
        state.resting = None;
        state.changes += 1;
        Look::Reserved(state.day)
    }

    /// Whether a cap that is reached is one that the next day lifts.
    fn waits_for_next_day(&self, limit: &Limit, worst: Amount) -> bool {
        limit.of == Of::Day && self.at_day_cap == AtCap::Wait && limit.caps.passed_by(worst).is_none()
    }

    /// A new day begins with nothing spent. A clock that is set back begins no day anew.
    fn roll(&self, state: &mut State) {
        let today = self.wall.day();
        if today <= state.day {
            return;
        }
        (state.day, state.resting) = (today, None);
        for (limit, sum) in self.limits.iter().zip(&mut state.sums) {
            if limit.of == Of::Day {
                *sum = Sum::default();
            }
        }
    }

    /// The indexes of the limits that a call of a step adds to.
    fn concerned(&self, step: usize) -> impl Iterator<Item = usize> {
        self.limits.iter().enumerate().filter(move |(_, limit)| concerns(limit, step)).map(|(index, _)| index)
    }

    fn settle(&self, hold: &Hold<'_>) {
        let mut state = self.lock();
        for index in self.concerned(hold.step) {
            if self.limits[index].of == Of::Day && hold.day != state.day {
                continue;
            }
            let sum = &mut state.sums[index];
            sum.reserved = sum.reserved.minus(hold.worst);
            sum.settled = sum.settled.plus(hold.actual);
        }
        state.changes += 1;
        drop(state);
        self.moved.notify_waiters();
    }

    /// The caps of the day, which all processes of the workspace spend from.
    pub fn per_day(&self) -> Caps {
        let day = self.limits.iter().find(|limit| limit.of == Of::Day);
        day.map_or(Caps::default(), |limit| limit.caps)
    }

    /// The day, and how much has changed so far: asked before the ledger is read for [`Budget::seen`].
    pub fn about_to_look(&self) -> (i64, u64) {
        let mut state = self.lock();
        self.roll(&mut state);
        (state.day, state.changes)
    }

    /// Takes over what the ledger says of a day: what all processes have settled, what others have reserved.
    /// Calls that are being settled now may count twice until the next time; the ledger is the wall.
    pub fn seen(&self, day: i64, changes: Option<u64>, spent: Spent) {
        let mut state = self.lock();
        self.roll(&mut state);
        let Some(index) = self.limits.iter().position(|limit| limit.of == Of::Day) else { return };
        if day != state.day {
            return;
        }
        let before = (state.sums[index], state.known_at);
        let sum = &mut state.sums[index];
        (sum.settled, sum.elsewhere) = (spent.settled, spent.elsewhere);
        let exact = sum.reserved.calls == 0 && changes == Some(state.changes);
        state.known_at = exact.then_some(state.changes);
        let moved = before != (state.sums[index], state.known_at);
        drop(state);
        if moved {
            self.moved.notify_waiters();
        }
    }

    /// Why the run waits for the next day, if it does.
    pub fn resting(&self) -> Option<String> {
        self.lock().resting.clone()
    }

    /// The limits with what they have come to by now, calls under way at their worst case.
    pub fn limits(&self) -> Vec<Limit> {
        let mut state = self.lock();
        self.roll(&mut state);
        let spent = |sum: &Sum| sum.worst();
        let limits = self.limits.iter().zip(&state.sums);
        let now = |(limit, sum): (&Limit, &Sum)| Limit {
            spent: spent(sum),
            batched: Amount::default(),
            ..limit.clone()
        };
        limits.map(now).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InBatch<'_> {
    fn concerns(&self, limit: &Limit) -> bool {
        match &limit.of {
            Of::Epoch => self.ours,
            Of::Step { name, .. } => self.ours && **name == *self.step,
            Of::Run => self.own,
            Of::Day => true,
        }
    }
}

fn concerns(limit: &Limit, step: usize) -> bool {
    match &limit.of {
        Of::Step { index, .. } => *index == step,
        Of::Epoch | Of::Run | Of::Day => true,
    }
}

impl Limit {
    fn reached(&self, unit: Unit, before: Amount, worst: Amount) -> Reached {
        let of = self.of.words();
        let amount = |amount: Amount| shown(unit, amount.of(unit));
        let (cap, spent, next) =
            (shown(unit, self.caps.of(unit).unwrap_or(0)), amount(before), amount(worst));
        let (name, money) = (unit.word(), unit == Unit::Usd);
        let unit_word = if money { " USD" } else { "" };
        let (may, today) =
            (if money { "cost" } else { "take" }, if self.of == Of::Day { " today (UTC)" } else { "" });
        let sentence = format!(
            "the budget of {cap} {name}{of} is reached: {spent}{unit_word} are spent{today}, and the next call \
             may {may} {next}{unit_word}"
        );
        Reached { sentence, remedy: self.remedy(unit, worst) }
    }

    /// A new run or a new day helps only a call that fits in the whole of it.
    fn remedy(&self, unit: Unit, worst: Amount) -> String {
        let fits = self.caps.passed_by(worst).is_none();
        let key = unit.key();
        match &self.of {
            Of::Run if fits => "run again".to_owned(),
            Of::Day if fits => {
                format!("run again after 00:00 UTC (or raise `budget.per_day.{key}` and run again)")
            }
            Of::Epoch => format!("raise `budget.{key}` and run again"),
            Of::Run => format!("raise `budget.per_run.{key}` and run again"),
            Of::Day => format!("raise `budget.per_day.{key}` and run again"),
            Of::Step { name, .. } => format!("raise `{key}` in the `budget` of step `{name}` and run again"),
        }
    }
}

/// A number of a unit, without the unit: money in dollars.
pub fn shown(unit: Unit, amount: u64) -> String {
    if unit == Unit::Usd { usd(amount) } else { amount.to_string() }
}

/// Nano-dollars as dollars, without needless zeros: `0.0042`.
pub fn usd(nano: u64) -> String {
    let text = format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000);
    let short = text.trim_end_matches('0').trim_end_matches('.');
    short.to_owned()
}

#[cfg(test)]
mod tests;
