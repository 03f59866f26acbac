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
        let sums = limits.iter().map(|limit| Sum { settled: limit.spent, reserved: limit.batched, ..Sum::default() }).collect();
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
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::clock::DAY_MS;

    fn call(tokens: u64) -> Amount {
        Amount { usd_nano: 0, tokens, calls: 1 }
    }

    fn limit(of: Of, tokens: u64, spent: u64) -> Limit {
        let caps = Caps { tokens: Some(tokens), ..Caps::default() };
        let spent = Amount { tokens: spent, ..Amount::default() };
        Limit { of, caps, spent, batched: Amount::default() }
    }

    fn step(index: usize) -> Of {
        Of::Step { index, name: format!("s{index}").into() }
    }

    fn of_epoch(tokens: u64, spent: u64) -> Budget {
        Budget::new(vec![limit(Of::Epoch, tokens, spent)], AtCap::Stop, Wall::default())
    }

    #[test]
    fn calls_that_go_together_take_the_room_there_is_in_every_sum() {
        let limits = vec![
            Limit { batched: call(20), ..limit(Of::Epoch, 100, 30) },
            limit(step(0), 60, 0),
            limit(Of::Run, 1000, 0),
        ];
        let budget = Budget::new(limits, AtCap::Stop, Wall::default());
        let reserve = |calls: &[(&'static str, u64)]| {
            let calls = calls.iter().map(|(step, tokens)| (*step, call(*tokens)));
            budget.reserve_all(calls).map(|(count, _)| count).map_err(|reached| reached.sentence)
        };
        let day = budget.today();
        let batched = |own, step, worst| InBatch { ours: true, own, step, worst: call(worst), day };
        assert_eq!(reserve(&[("s0", 30), ("s0", 10), ("s0", 20), ("s1", 1)]), Ok(2));
        assert_eq!(reserve(&[("s0", 20)]), Ok(0));
        assert_eq!(reserve(&[("s1", 9)]), Ok(1));
        // A batch of an earlier run adds nothing to what this one may cost.
        budget.settle_batched(&batched(false, "s1", 20), call(5));
        budget.settle_batched(&batched(true, "s0", 30), call(30));
        budget.settle_batched(&batched(true, "s0", 10), call(10));
        budget.settle_batched(&batched(true, "s1", 9), call(9));
        let spent: Vec<u64> = budget.limits().iter().map(|limit| limit.spent.tokens).collect();
        assert_eq!(spent, [84, 40, 49]);
        let refused = reserve(&[("s0", 17)]).unwrap_err();
        assert!(refused.starts_with("the budget of 100 tokens is reached: 84 are spent"), "{refused}");
        assert_eq!(reserve(&[("s0", 16)]), Ok(1));
    }

    #[tokio::test]
    async fn the_wall_holds_and_settling_gives_back() {
        let budget = of_epoch(100, 30);
        let (lowest, _) = watch::channel(Some(RowId::root(0)));
        let ask = |row, tokens| budget.reserve(RowId::root(row), 0, call(tokens), lowest.subscribe());
        let first = ask(0, 60).await.unwrap();
        let waiting = ask(0, 20);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        first.settle(call(10));
        waiting.await.unwrap().settle(call(20));
        let refused = ask(0, 41).await.err().unwrap();
        let expected = "the budget of 100 tokens is reached: 60 are spent, and the next call may take 41";
        assert_eq!(refused.sentence, expected);
        assert_eq!(refused.remedy, "raise `budget.tokens` and run again");
        // A row that is not the first waits: what is below it may settle for less.
        let behind = ask(1, 41);
        tokio::pin!(behind);
        assert!(futures_util::poll!(behind.as_mut()).is_pending());
        lowest.send_replace(Some(RowId::root(1)));
        assert_eq!(behind.await.err().unwrap().sentence, expected);
    }

    #[tokio::test]
    async fn room_goes_to_the_lowest_row_then_to_its_later_step() {
        let budget = of_epoch(10, 0);
        let (lowest, _) = watch::channel(Some(RowId::root(0)));
        let ask = |row, step| Box::pin(budget.reserve(RowId::root(row), step, call(10), lowest.subscribe()));
        let mut held = Some(ask(0, 0).await.unwrap());
        let mut waiting = [ask(2, 0), ask(1, 0), ask(1, 1)];
        for waiter in &mut waiting {
            assert!(futures_util::poll!(waiter).is_pending());
        }
        let mut served = Vec::new();
        for _ in 0..3 {
            held.take().unwrap().settle(Amount::default());
            lowest.send_replace(None);
            for (index, waiter) in waiting.iter_mut().enumerate() {
                if !served.contains(&index)
                    && let std::task::Poll::Ready(hold) = futures_util::poll!(waiter)
                {
                    held = hold.ok();
                    served.push(index);
                }
            }
        }
        assert_eq!(served, [2, 1, 0]);
    }

    #[tokio::test]
    async fn a_row_leaves_room_for_the_open_rows_below_it() {
        let budget = of_epoch(100, 0);
        let (lowest, _) = watch::channel(Some(RowId::root(0)));
        let ask = |row| Box::pin(budget.reserve(RowId::root(row), 0, call(10), lowest.subscribe()));
        let nine = ask(9).await.unwrap();
        let mut far = ask(10);
        assert!(futures_util::poll!(&mut far).is_pending());
        let eight = ask(8).await.unwrap();
        // A call came to 1 token instead of 10: the rows below need less than was feared.
        nine.settle(call(1));
        assert!(far.await.is_ok());
        drop(eight);
        // What was dropped counts at its worst.
        assert_eq!(budget.limits()[0].spent.tokens, 1 + 10 + 10);
    }

    /// Looks at a ledger in which there is nobody else, again and again.
    async fn look(budget: &Budget) {
        loop {
            let (day, changes) = budget.about_to_look();
            let of_day = budget.limits().into_iter().find(|limit| limit.of == Of::Day);
            let settled = of_day.map_or(Amount::default(), |limit| limit.spent);
            budget.seen(day, Some(changes), Spent { settled, ..Spent::default() });
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Calls of 10 tokens by a step until one is refused; how many went, and what was said.
    async fn check(budget: &Budget, step: usize, expected: usize, said: &str, remedy: &str) {
        let (lowest, _) = watch::channel(None);
        let mut went = 0;
        let reached = loop {
            let asked = budget.reserve(RowId::root(0), step, call(10), lowest.subscribe());
            let answer = tokio::select! {
                answer = asked => answer,
                () = look(budget) => unreachable!(),
            };
            match answer {
                Ok(hold) => hold.settle(call(10)),
                Err(reached) => break reached,
            }
            went += 1;
        };
        assert_eq!(went, expected);
        assert!(reached.sentence.starts_with(said), "{reached:?}");
        assert_eq!(reached.remedy, remedy);
    }

    #[tokio::test(start_paused = true)]
    async fn every_limit_that_a_call_adds_to_must_have_room() {
        let limits = vec![
            limit(Of::Epoch, 100, 0),
            limit(step(1), 30, 10),
            limit(step(2), 5, 0),
            limit(Of::Run, 70, 0),
            limit(Of::Day, 200, 140),
        ];
        let budget = Budget::new(limits, AtCap::Stop, Wall::default());
        let raise = "raise `tokens` in the `budget` of step `s1` and run again";
        check(&budget, 1, 2, "the budget of 30 tokens for step `s1` is reached: 30 are spent,", raise).await;
        let raise = "raise `tokens` in the `budget` of step `s2` and run again";
        check(&budget, 2, 0, "the budget of 5 tokens for step `s2` is reached: 0 are spent,", raise).await;
        let day = "the budget of 200 tokens per day is reached: 200 are spent today (UTC), and";
        let tomorrow = "run again after 00:00 UTC (or raise `budget.per_day.tokens` and run again)";
        check(&budget, 0, 4, day, tomorrow).await;
        let spent: Vec<u64> = budget.limits().iter().map(|limit| limit.spent.tokens).collect();
        assert_eq!(spent, [60, 30, 0, 60, 200]);
        let run = Budget::new(vec![limit(Of::Run, 25, 0)], AtCap::Stop, Wall::default());
        check(&run, 0, 2, "the budget of 25 tokens per run is reached: 20 are spent", "run again").await;
        assert!(run.caps(7) && !Budget::default().caps(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_waits_for_the_next_day_if_it_is_told_to() {
        let now = Arc::new(AtomicI64::new(20_783 * DAY_MS + DAY_MS - 90_000));
        let wall = Wall::of({
            let now = Arc::clone(&now);
            move || now.load(Ordering::Relaxed)
        });
        let budget = Budget::new(vec![limit(Of::Day, 25, 0)], AtCap::Wait, wall);
        let (lowest, _) = watch::channel(None);
        let ask = |tokens| Box::pin(budget.reserve(RowId::root(0), 0, call(tokens), lowest.subscribe()));
        ask(10).await.unwrap().settle(call(10));
        let late = ask(10).await.unwrap();
        late.settle(call(10));
        let over_midnight = ask(5).await.unwrap();
        let mut waiting = ask(10);
        assert!(futures_util::poll!(&mut waiting).is_pending() && budget.resting().is_none());
        // With nothing under way it is the day that it waits for.
        over_midnight.settle(call(4));
        assert!(futures_util::poll!(&mut waiting).is_pending() && budget.resting().is_none());
        let looked = tokio::time::timeout(Duration::from_millis(1), look(&budget)).await;
        assert!(looked.is_err() && futures_util::poll!(&mut waiting).is_pending());
        assert!(budget.resting().unwrap().contains("24 are spent today"));
        let begun_today = {
            now.fetch_add(90_000, Ordering::Relaxed);
            waiting.await.unwrap()
        };
        assert!(budget.resting().is_none());
        // It counts on the day that it was reserved on.
        assert_eq!((begun_today.day, budget.limits()[0].spent.tokens), (20_784, 10));
        now.fetch_add(DAY_MS, Ordering::Relaxed);
        begun_today.settle(call(9));
        assert_eq!(budget.limits()[0].spent.tokens, 0);
        // No day has room for this one.
        let too_much = tokio::select! {
            too_much = ask(26) => too_much,
            () = look(&budget) => unreachable!(),
        };
        assert_eq!(too_much.err().unwrap().remedy, "raise `budget.per_day.tokens` and run again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_have_reserved_is_waited_for() {
        let budget = Budget::new(vec![limit(Of::Day, 100, 0)], AtCap::Stop, Wall::default());
        let (lowest, _) = watch::channel(None);
        let ask = |tokens| Box::pin(budget.reserve(RowId::root(0), 0, call(tokens), lowest.subscribe()));
        let see = |settled, elsewhere| {
            let (day, changes) = budget.about_to_look();
            let (settled, elsewhere) = (call(settled), call(elsewhere));
            budget.seen(day, Some(changes), Spent { settled, reserved: elsewhere, elsewhere, ..Spent::default() });
        };
        see(20, 75);
        let mut waiting = ask(10);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        see(30, 60);
        waiting.await.unwrap().settle(call(10));
        let mut waiting = ask(10);
        see(92, 5);
        assert_eq!(
            waiting.as_mut().await.err().unwrap().sentence.split(',').next(),
            Some("the budget of 100 tokens per day is reached: 97 are spent today (UTC)")
        );
    }

    #[test]
    fn money_is_shown_without_needless_zeros() {
        assert_eq!([usd(4_200_000), usd(25_000_000_000), usd(0)], ["0.0042", "25", "0"]);
    }
}
