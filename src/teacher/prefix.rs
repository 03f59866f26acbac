//! Prompts that begin alike: the first call goes ahead, so that the others find its beginning in the provider's cache.
//!
//! Knows hashes of beginnings and when each was last served; nothing of prompts, and no provider.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long a provider keeps a beginning after its last use: 5 minutes with Anthropic, 5 to 10 with OpenAI
/// (docs.claude.com and platform.openai.com, "Prompt caching").
const KEPT_FOR: Duration = Duration::from_secs(5 * 60);
/// How long others wait for the first one. A provider has the beginning as soon as it begins to answer.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Beginnings known at once; past it those are forgotten that providers have forgotten.
const KNOWN_MAX: usize = 10_000;

/// The beginnings that calls to a teacher share.
#[derive(Default)]
pub struct Prefixes {
    known: Mutex<HashMap<u64, State>>,
}

enum State {
    /// A call with it is under way; the receiver hears of its end.
    Ahead(watch::Receiver<()>),
    /// Served at this time.
    Kept(Instant),
}

/// The call that goes ahead. Dropped unanswered, another does.
pub struct Ahead<'a> {
    prefixes: &'a Prefixes,
    prefix: u64,
    answered: bool,
    _sender: watch::Sender<()>,
}

impl Ahead<'_> {
    /// The provider has the beginning now.
    pub fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        let mut known = self.prefixes.lock();
        if self.answered {
            known.insert(self.prefix, State::Kept(now()));
        } else {
            known.remove(&self.prefix);
        }
    }
}

impl Prefixes {
    /// Waits until a call with this beginning was answered, for half a minute at the most; the call that need not
    /// wait, since there is none, is the one that goes ahead.
    pub async fn enter(&self, prefix: u64) -> Option<Ahead<'_>> {
        let give_up = now() + WAIT_MAX;
        loop {
            let mut ended = match self.look(prefix) {
                Look::Kept => return None,
                Look::First(ahead) => return Some(ahead),
                Look::Wait(ended) => ended,
            };
            // It ends in an error when the sender is gone, which is what is waited for.
            if tokio::time::timeout_at(give_up, ended.changed()).await.is_err() {
                return None;
            }
        }
    }

    fn look(&self, prefix: u64) -> Look<'_> {
        let mut known = self.lock();
        match known.get_mut(&prefix) {
            Some(State::Ahead(ended)) => return Look::Wait(ended.clone()),
            Some(State::Kept(at)) if at.elapsed() < KEPT_FOR => {
                *at = now();
                return Look::Kept;
            }
            _ => {}
        }
        if known.len() >= KNOWN_MAX {
            known.retain(|_, state| !matches!(state, State::Kept(at) if at.elapsed() >= KEPT_FOR));
        }
        if known.len() >= KNOWN_MAX {
            return Look::Kept;
        }
        let (sender, ended) = watch::channel(());
        known.insert(prefix, State::Ahead(ended));
        Look::First(Ahead { prefixes: self, prefix, answered: false, _sender: sender })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, State>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Look<'a> {
    Kept,
    First(Ahead<'a>),
    Wait(watch::Receiver<()>),
}

/// The clock of tokio's timers, which tests can hold still.
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;

    #[tokio::test(start_paused = true)]
    async fn the_first_goes_ahead_and_the_others_follow() {
        let prefixes = Prefixes::default();
        let first = prefixes.enter(1).await.unwrap();
        assert!(prefixes.enter(2).await.is_some(), "another beginning");
        let mut second = Box::pin(prefixes.enter(1));
        assert!(poll!(second.as_mut()).is_pending());
        first.answered();
        assert!(second.await.is_none());
        assert!(prefixes.enter(1).await.is_none());
        tokio::time::advance(KEPT_FOR).await;
        assert!(prefixes.enter(1).await.is_some(), "the provider has forgotten it");
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_first_fails_another_goes_ahead() {
        let prefixes = Prefixes::default();
        let first = prefixes.enter(1).await;
        let mut second = Box::pin(prefixes.enter(1));
        assert!(poll!(second.as_mut()).is_pending());
        drop(first);
        assert!(second.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let prefixes = Prefixes::default();
        let _first = prefixes.enter(1).await;
        let started = now();
        assert!(prefixes.enter(1).await.is_none());
        assert_eq!(started.elapsed(), WAIT_MAX);
    }
}
