//! The budget: a wall, also across crashes.
//!
//! Every call is reserved at its worst case before it is sent and settled after it. The sums live in
//! the store's ledger, which never forgets; what is admitted is decided here, lowest row first: what is left
//! near the cap belongs to the rows that a partial dataset begins with.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::row::RowId;
use crate::store::Amount;

/// What a pipeline's epoch may cost; `None` is no cap.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Caps {
    pub usd_nano: Option<u64>,
    pub tokens: Option<u64>,
    pub calls: Option<u64>,
}

impl Caps {
    pub fn is_none(&self) -> bool {
        *self == Caps::default()
    }
}

/// Settled and reserved amounts, over all runs of the epoch, and the calls that wait for room.
#[derive(Debug, Default)]
struct State {
    settled: Amount,
    reserved: Amount,
    waiting: BTreeSet<Rank>,
    last_id: u64,
}

/// Lowest row first, then later step, then first come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    row: RowId,
    step: Reverse<usize>,
    id: u64,
}

pub struct Budget {
    caps: Caps,
    state: Mutex<State>,
    /// There may be room, or another is next.
    moved: Notify,
}

/// What a waiter finds when it looks.
enum Look {
    Reserved,
    NotYet,
    /// Nothing that is still under way can make room for it.
    Never(String),
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

impl Budget {
    /// `spent` is what the ledger says was spent, dead processes' reservations included.
    pub fn new(caps: Caps, spent: Amount) -> Budget {
        let state = State { settled: spent, ..State::default() };
        Budget { caps, state: Mutex::new(state), moved: Notify::new() }
    }

    /// Whether calls must be reserved in the ledger before they are sent.
    pub fn is_capped(&self) -> bool {
        !self.caps.is_none()
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
    ) -> Result<(), String> {
        let place = self.wait(row, step);
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Listening starts before the look, so that nothing in between is missed.
            moved.as_mut().enable();
            let lowest = lowest_open.borrow_and_update().clone();
            match self.look(&place.rank, worst, lowest.as_ref()) {
                Look::Reserved => return Ok(()),
                Look::Never(sentence) => return Err(sentence),
                Look::NotYet => tokio::select! {
                    () = moved => {}
                    Ok(()) = lowest_open.changed() => {}
                },
            }
        }
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
        if state.waiting.first() != Some(rank) {
            return Look::NotYet;
        }
        let before = state.settled.plus(state.reserved);
        if let Some(sentence) = self.passed(before, worst) {
            let first = lowest.is_none_or(|lowest| rank.row <= *lowest);
            return if first && state.reserved.calls == 0 { Look::Never(sentence) } else { Look::NotYet };
        }
        let rows_below = lowest.map_or(0, |lowest| rank.row.ordinal.saturating_sub(lowest.ordinal));
        // Each row below may need a call more, of the size that calls had so far.
        let call = state.settled.mean().unwrap_or(worst);
        if self.passed(before.plus(call.times(rows_below)), worst).is_some() {
            return Look::NotYet;
        }
        state.reserved = state.reserved.plus(worst);
        Look::Reserved
    }

    fn passed(&self, before: Amount, worst: Amount) -> Option<String> {
        let after = before.plus(worst);
        let over = |cap: Option<u64>, sum: u64| cap.filter(|cap| sum > *cap);
        if let Some(cap) = over(self.caps.usd_nano, after.usd_nano) {
            let (spent, next) = (usd(before.usd_nano), usd(worst.usd_nano));
            return Some(format!(
                "the budget of {} USD is reached: {spent} USD are spent, and the next call may cost {next} USD",
                usd(cap)
            ));
        }
        let sentence = |what: &str, cap: u64, spent: u64, next: u64| {
            format!(
                "the budget of {cap} {what} is reached: {spent} are spent, and the next call may take {next}"
            )
        };
        if let Some(cap) = over(self.caps.tokens, after.tokens) {
            return Some(sentence("tokens", cap, before.tokens, worst.tokens));
        }
        over(self.caps.calls, after.calls).map(|cap| sentence("calls", cap, before.calls, worst.calls))
    }

    /// Replaces a call's worst case by what it came to.
    pub fn settle(&self, worst: Amount, actual: Amount) {
        let mut state = self.lock();
        let reserved = &mut state.reserved;
        reserved.usd_nano = reserved.usd_nano.saturating_sub(worst.usd_nano);
        reserved.tokens = reserved.tokens.saturating_sub(worst.tokens);
        reserved.calls = reserved.calls.saturating_sub(worst.calls);
        state.settled = state.settled.plus(actual);
        drop(state);
        self.moved.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nano-dollars as dollars, without needless zeros: `0.0042`.
pub fn usd(nano: u64) -> String {
    let text = format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000);
    let short = text.trim_end_matches('0').trim_end_matches('.');
    short.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(tokens: u64) -> Amount {
        Amount { usd_nano: 0, tokens, calls: 1 }
    }

    fn caps(tokens: u64) -> Caps {
        Caps { tokens: Some(tokens), ..Caps::default() }
    }

    #[tokio::test]
    async fn the_wall_holds_and_settling_gives_back() {
        let budget = Budget::new(caps(100), Amount { tokens: 30, ..Amount::default() });
        let (lowest, _) = watch::channel(Some(RowId::root(0)));
        let ask = |row, tokens| budget.reserve(RowId::root(row), 0, call(tokens), lowest.subscribe());
        assert_eq!(ask(0, 60).await, Ok(()));
        let waiting = ask(0, 20);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        budget.settle(call(60), call(10));
        assert_eq!(waiting.await, Ok(()));
        budget.settle(call(20), call(20));
        let refused = ask(0, 41).await.unwrap_err();
        let expected = "the budget of 100 tokens is reached: 60 are spent, and the next call may take 41";
        assert_eq!(refused, expected);
        // A row that is not the first waits: what is below it may settle for less.
        let behind = ask(1, 41);
        tokio::pin!(behind);
        assert!(futures_util::poll!(behind.as_mut()).is_pending());
        lowest.send_replace(Some(RowId::root(1)));
        assert_eq!(behind.await.unwrap_err(), expected);
    }

    #[tokio::test]
    async fn room_goes_to_the_lowest_row_then_to_its_later_step() {
        let budget = Budget::new(caps(10), Amount::default());
        let (lowest, _) = watch::channel(Some(RowId::root(0)));
        let ask = |row, step| Box::pin(budget.reserve(RowId::root(row), step, call(10), lowest.subscribe()));
        assert_eq!(ask(0, 0).await, Ok(()));
        let mut waiting = [ask(2, 0), ask(1, 0), ask(1, 1)];
        for waiter in &mut waiting {
            assert!(futures_util::poll!(waiter).is_pending());
        }
        lowest.send_replace(Some(RowId::root(1)));
        let mut served = Vec::new();
        let mut open: Vec<usize> = vec![0, 1, 2];
        for _ in 0..3 {
            budget.settle(call(10), Amount::default());
            lowest.send_replace(None);
            let mut polled = Vec::new();
            for waiter in &open {
                polled.push(futures_util::poll!(&mut waiting[*waiter]).is_ready());
            }
            served.extend(open.iter().zip(&polled).filter(|(_, ready)| **ready).map(|(waiter, _)| *waiter));
            open.retain(|waiter| !served.contains(waiter));
        }
        assert_eq!(served, [2, 1, 0]);
    }

    #[tokio::test]
    async fn a_row_leaves_room_for_the_open_rows_below_it() {
        let budget = Budget::new(caps(100), Amount::default());
        let (lowest, _) = watch::channel(Some(RowId::root(0)));
        let ask = |row| Box::pin(budget.reserve(RowId::root(row), 0, call(10), lowest.subscribe()));
        assert_eq!(ask(9).await, Ok(()));
        let mut far = ask(10);
        assert!(futures_util::poll!(&mut far).is_pending());
        assert_eq!(ask(8).await, Ok(()));
        // A call came to 1 token instead of 10: the rows below need less than was feared.
        budget.settle(call(10), call(1));
        assert_eq!(far.await, Ok(()));
    }

    #[test]
    fn money_is_shown_without_needless_zeros() {
        assert_eq!([usd(4_200_000), usd(25_000_000_000), usd(0)], ["0.0042", "25", "0"]);
    }
}
