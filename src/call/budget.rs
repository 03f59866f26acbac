//! The budget: a wall, also across crashes.
//!
//! Every call is reserved at its worst case before it is sent and settled after it. The sums live in
//! the store's ledger, which never forgets; what is admitted is decided here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

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

/// Settled and reserved amounts, over all runs of the epoch.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    settled: Amount,
    reserved: Amount,
}

pub struct Budget {
    caps: Caps,
    used: Mutex<Used>,
    settled: Notify,
}

impl Budget {
    /// `spent` is what the ledger says was spent, dead processes' reservations included.
    pub fn new(caps: Caps, spent: Amount) -> Budget {
        let used = Used { settled: spent, reserved: Amount::default() };
        Budget { caps, used: Mutex::new(used), settled: Notify::new() }
    }

    /// Whether calls must be reserved in the ledger before they are sent.
    pub fn is_capped(&self) -> bool {
        !self.caps.is_none()
    }

    /// Reserves a call's worst case, waiting for calls under way to settle below theirs; or says which
    /// cap the call would pass even when nothing else is under way. That is final only for the row that
    /// everything else waits for: until `first` resolves, a lower row may still fit and settle.
    pub async fn reserve(&self, worst: Amount, first: impl Future<Output = ()>) -> Result<(), String> {
        tokio::pin!(first);
        let mut is_first = false;
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // Listening starts before the look, so that no settlement in between is missed.
            settled.as_mut().enable();
            match self.try_reserve(worst) {
                Ok(()) => return Ok(()),
                Err((sentence, others)) if others == 0 && is_first => return Err(sentence),
                Err(_) if is_first => settled.await,
                Err(_) => tokio::select! {
                    () = settled => {}
                    () = &mut first => is_first = true,
                },
            }
        }
    }

    /// The cap that a call would pass, and how many other calls are under way.
    fn try_reserve(&self, worst: Amount) -> Result<(), (String, u64)> {
        let mut used = self.lock();
        let before = used.settled.plus(used.reserved);
        if let Some(sentence) = self.passed(before, worst) {
            return Err((sentence, used.reserved.calls));
        }
        used.reserved = used.reserved.plus(worst);
        Ok(())
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
        let mut used = self.lock();
        let reserved = &mut used.reserved;
        reserved.usd_nano = reserved.usd_nano.saturating_sub(worst.usd_nano);
        reserved.tokens = reserved.tokens.saturating_sub(worst.tokens);
        reserved.calls = reserved.calls.saturating_sub(worst.calls);
        used.settled = used.settled.plus(actual);
        drop(used);
        self.settled.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
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
    use std::future::ready;

    #[tokio::test]
    async fn the_wall_holds_and_settling_gives_back() {
        let caps = Caps { tokens: Some(100), ..Caps::default() };
        let budget = Budget::new(caps, Amount { tokens: 30, ..Amount::default() });
        let call = |tokens| Amount { usd_nano: 0, tokens, calls: 1 };
        assert_eq!(budget.reserve(call(60), ready(())).await, Ok(()));
        let waiting = budget.reserve(call(20), ready(()));
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        budget.settle(call(60), call(10));
        assert_eq!(waiting.await, Ok(()));
        budget.settle(call(20), call(20));
        let refused = budget.reserve(call(41), ready(())).await.unwrap_err();
        let expected = "the budget of 100 tokens is reached: 60 are spent, and the next call may take 41";
        assert_eq!(refused, expected);
        // A row that is not the first waits: what is below it may settle for less.
        let behind = budget.reserve(call(41), std::future::pending());
        tokio::pin!(behind);
        assert!(futures_util::poll!(behind.as_mut()).is_pending());
    }

    #[test]
    fn money_is_shown_without_needless_zeros() {
        assert_eq!([usd(4_200_000), usd(25_000_000_000), usd(0)], ["0.0042", "25", "0"]);
    }
}
