//! The endpoints of a teacher: who is asked next, and who is left alone.
//!
//! A teacher without `pool:` has one endpoint, and all that is said here holds for it: the last endpoint that is
//! left is asked however sick it is, so what becomes of a call is decided by its attempts. Who may go and when is
//! each endpoint's gate's business; whether a call goes again is decided in `call`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::breaker::{Breaker, Health};
use super::cache::CachePoint;
use super::gate::{Outcome, Permit, Shut, Snapshot, Ticket, tokio_now};
use super::site::Site;
use super::wire::AskedBy;
use super::{Fault, Reply, Usage};

/// The opening of a breaker from which on people are told: it has been sick for some seconds.
const TOLD_FROM: u32 = 3;

/// The endpoints of a teacher.
pub struct Pool {
    teacher: Arc<str>,
    sites: Vec<Site>,
    states: Mutex<Vec<State>>,
    /// The health of an endpoint changed: who waits looks again.
    changed: watch::Sender<()>,
    news: watch::Sender<Vec<String>>,
    start: Instant,
}

/// What is known of one endpoint.
#[derive(Default)]
struct State {
    breaker: Breaker,
    in_flight: usize,
    sent: u64,
    replies: u64,
    faults: BTreeMap<&'static str, u64>,
    /// The words of its last fault.
    why: String,
    told: bool,
}

/// How an endpoint fared in a run.
#[derive(Clone, Debug)]
pub struct Account {
    pub name: String,
    pub url: String,
    pub replies: u64,
    /// By code.
    pub faults: BTreeMap<&'static str, u64>,
    /// Why it is not asked by now; `None` when it is.
    pub out: Option<String>,
    pub limits: Snapshot,
    /// The limits in words, where they are others than the file's.
    pub limits_learned: Option<String>,
}

impl Account {
    /// As the store keeps it with a run.
    pub fn to_json(&self) -> Value {
        let Snapshot { requests_per_minute, tokens_per_minute, in_flight_limit, .. } = self.limits;
        json!({
            "endpoint": self.name,
            "url": self.url,
            "calls": self.replies,
            "faults": self.faults,
            "out": self.out,
            "limits": {
                "requests_per_minute": requests_per_minute,
                "tokens_per_minute": tokens_per_minute,
                "input_tokens_per_minute": self.limits.input_tokens_per_minute,
                "output_tokens_per_minute": self.limits.output_tokens_per_minute,
                "in_flight": in_flight_limit,
            },
        })
    }
}

impl Pool {
    pub fn new(teacher: Arc<str>, sites: Vec<Site>) -> Pool {
        let states = sites.iter().map(|_| State::default()).collect();
        Pool {
            teacher,
            sites,
            states: Mutex::new(states),
            changed: watch::Sender::new(()),
            news: watch::Sender::new(Vec::new()),
            start: tokio_now(),
        }
    }

    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Waits until an endpoint has a place for the request: of those that are well the one with the fewest calls
    /// for its weight, and when none has room the first that has. Dropping the future gives up the place in every
    /// queue. `met` are endpoints that failed the call just now; others are better.
    ///
    /// # Errors
    /// [`Shut`] when the last endpoint that is left lets nobody in any more.
    pub async fn enter(&self, ticket: &Ticket, met: &[usize]) -> Result<Place<'_>, Shut> {
        let mut changed = self.changed.subscribe();
        let mut waits: Vec<Wait<'_>> = Vec::new();
        loop {
            changed.mark_unchanged();
            let look_again = self.line_up(&mut waits, ticket, met);
            let look_again = async {
                match look_again {
                    Some(at) => tokio::time::sleep_until(self.start + at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // A place that was freed by an endpoint's end is no place.
                biased;
                // The sender lives as long as `self`.
                _ = changed.changed() => {}
                (wait, permit) = first(&mut waits) => match permit {
                    Ok(permit) => return Ok(self.place(wait, permit)),
                    Err(shut) if self.leave_out(wait.at, &shut.to_string()) => {}
                    Err(shut) => return Err(shut),
                },
                () = look_again => {}
            }
        }
    }

    /// Has the request wait at the endpoints that it should wait at now; when to look again.
    fn line_up<'a>(&'a self, waits: &mut Vec<Wait<'a>>, ticket: &Ticket, met: &[usize]) -> Option<Duration> {
        let mut states = self.open();
        let loads: Vec<Load> =
            states.iter().enumerate().map(|(at, state)| self.load(at, state, met)).collect();
        let Choice { sites, look_again } = choose(self.now(), &loads);
        waits.retain(|wait| wait.claim.is_some() || sites.iter().any(|pick| pick.at == wait.at));
        for Pick { at, probe } in sites {
            if waits.iter().any(|wait| wait.at == at) {
                continue;
            }
            if probe {
                states[at].breaker.probe(true);
            }
            let claim = probe.then(|| Claim { pool: self, at });
            waits.push(Wait { at, claim, permit: self.sites[at].gate.enter(ticket.clone()).boxed() });
        }
        look_again
    }

    fn load(&self, at: usize, state: &State, met: &[usize]) -> Load {
        Load {
            health: state.breaker.health(),
            in_flight: state.in_flight as f64 / self.sites[at].weight,
            sent: state.sent as f64 / self.sites[at].weight,
            met: met.contains(&at),
        }
    }

    fn place<'a>(&'a self, wait: Wait<'a>, permit: Permit) -> Place<'a> {
        let state = &mut self.open()[wait.at];
        state.in_flight += 1;
        state.sent += 1;
        let flying = Flying { pool: self, at: wait.at };
        Place { sent_at: self.now(), permit, flying, _claim: wait.claim }
    }

    /// Whether an endpoint is well that is none of these.
    pub fn is_well_beside(&self, met: &[usize]) -> bool {
        let well =
            |(at, state): (usize, &State)| state.breaker.health() == Health::Well && !met.contains(&at);
        self.open().iter().enumerate().any(well)
    }

    /// Whether an endpoint is not asked any more, so that a call that it has no answer for goes to another.
    pub fn is_left_out(&self, at: usize) -> bool {
        self.open()[at].breaker.health() == Health::Out
    }

    /// Asks an endpoint no more, unless it is the last one; whether it is left out by now.
    fn leave_out(&self, at: usize, why: &str) -> bool {
        let mut states = self.open();
        let is_left = |state: &State| state.breaker.health() != Health::Out;
        let others = states.iter().enumerate().any(|(other, state)| other != at && is_left(state));
        if !others || !is_left(&states[at]) {
            return others;
        }
        states[at].breaker.leave_out();
        why.clone_into(&mut states[at].why);
        drop(states);
        self.changed.send_replace(());
        self.tell(format!("{} is left out of this run: {why}", self.named(at)));
        true
    }

    /// Sentences about endpoints that fell away or came back, the newest last.
    pub fn news(&self) -> watch::Receiver<Vec<String>> {
        self.news.subscribe()
    }

    /// How each endpoint fared.
    pub fn accounts(&self) -> Vec<Account> {
        let states = self.open();
        let account = |(site, state): (&Site, &State)| Account {
            name: site.name.clone(),
            url: site.url.clone(),
            replies: state.replies,
            faults: state.faults.clone(),
            out: (state.breaker.health() != Health::Well).then(|| state.why.clone()),
            limits: site.gate.snapshot(),
            limits_learned: site.limits_learned(),
        };
        self.sites.iter().zip(&*states).map(account).collect()
    }

    fn named(&self, at: usize) -> String {
        format!("endpoint `{}` of teacher `{}`", self.sites[at].name, self.teacher)
    }

    fn tell(&self, sentence: String) {
        self.news.send_modify(|news| news.push(sentence));
    }

    /// Notes how a call ended.
    fn ended(&self, at: usize, sent_at: Duration, sent: &Result<Reply, Fault>) {
        if let Err(Fault::Fatal { message }) = sent {
            self.leave_out(at, message);
        }
        let now = self.now();
        let mut states = self.open();
        let state = &mut states[at];
        let changed = match sent {
            Ok(_) => {
                state.replies += 1;
                state.breaker.answered(sent_at)
            }
            Err(fault) => {
                *state.faults.entry(fault.code()).or_default() += 1;
                if matches!(fault, Fault::Transient { .. }) {
                    fault.message().clone_into(&mut state.why);
                    state.breaker.failed(now, sent_at)
                } else {
                    state.breaker.answered(sent_at)
                }
            }
        };
        if !changed {
            return;
        }
        // Of the only endpoint the calls themselves tell.
        let is_pool = self.sites.len() > 1;
        let well = state.breaker.health() == Health::Well;
        let news = match (well, state.told) {
            (true, true) => Some(format!("{} answers again", self.named(at))),
            (false, false) if is_pool && state.breaker.openings() >= TOLD_FROM => {
                Some(format!("{} is left alone while its calls fail: {}", self.named(at), state.why))
            }
            _ => None,
        };
        state.told = !well && (state.told || news.is_some());
        drop(states);
        self.changed.send_replace(());
        news.into_iter().for_each(|sentence| self.tell(sentence));
    }

    fn now(&self) -> Duration {
        tokio_now().saturating_duration_since(self.start)
    }

    fn open(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the choice looks at in one endpoint.
#[derive(Clone, Copy, Debug)]
struct Load {
    health: Health,
    /// Calls in flight, for its weight.
    in_flight: f64,
    /// Calls so far, for its weight.
    sent: f64,
    met: bool,
}

/// An endpoint to wait at, and whether to see if it is well again.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pick {
    at: usize,
    probe: bool,
}

/// Where to wait, the best place first, and when there may be another.
#[derive(Debug, PartialEq)]
struct Choice {
    sites: Vec<Pick>,
    look_again: Option<Duration>,
}

fn choose(now: Duration, loads: &[Load]) -> Choice {
    let all = || loads.iter().enumerate();
    let well = || all().filter(|(_, load)| load.health == Health::Well);
    let mut best: Vec<(usize, &Load)> = well().filter(|(_, load)| !load.met).collect();
    if best.is_empty() {
        best = well().collect();
    }
    let sick = all().filter_map(|(at, load)| match load.health {
        Health::Sick { until, probed } => Some((at, until, probed)),
        Health::Well | Health::Out => None,
    });
    if best.is_empty() {
        // The one that will first be thought well is asked as if it were.
        let soonest = sick.min_by_key(|(_, until, _)| *until);
        let sites = soonest.map(|(at, _, _)| Pick { at, probe: false }).into_iter().collect();
        return Choice { sites, look_again: None };
    }
    best.sort_by(|(_, a), (_, b)| by_load(a, b));
    let (due, later): (Vec<_>, Vec<_>) =
        sick.filter(|(_, _, probed)| !probed).partition(|(_, until, _)| *until <= now);
    let due = due.into_iter().filter(|(at, _, _)| !loads[*at].met).map(|(at, _, _)| Pick { at, probe: true });
    let well = best.into_iter().map(|(at, _)| Pick { at, probe: false });
    let look_again = later.into_iter().map(|(_, until, _)| until).min();
    Choice { sites: due.chain(well).collect(), look_again }
}

fn by_load(a: &Load, b: &Load) -> Ordering {
    a.in_flight.total_cmp(&b.in_flight).then(a.sent.total_cmp(&b.sent))
}

/// A request that waits at an endpoint's gate.
struct Wait<'a> {
    at: usize,
    claim: Option<Claim<'a>>,
    permit: BoxFuture<'a, Result<Permit, Shut>>,
}

/// The first of the waits that ends.
async fn first<'a>(waits: &mut Vec<Wait<'a>>) -> (Wait<'a>, Result<Permit, Shut>) {
    poll_fn(|context| {
        for index in 0..waits.len() {
            if let Poll::Ready(permit) = waits[index].permit.poll_unpin(context) {
                return Poll::Ready((waits.swap_remove(index), permit));
            }
        }
        Poll::Pending
    })
    .await
}

/// The call that sees whether a sick endpoint is well again. Dropped before it has seen, another may.
struct Claim<'a> {
    pool: &'a Pool,
    at: usize,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.pool.open()[self.at].breaker.probe(false);
        self.pool.changed.send_replace(());
    }
}

/// Counts a call as in flight at its endpoint until dropped.
struct Flying<'a> {
    pool: &'a Pool,
    at: usize,
}

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        let state = &mut self.pool.open()[self.at];
        state.in_flight = state.in_flight.saturating_sub(1);
    }
}

/// The right to send one request to one endpoint.
#[must_use = "dropping a place gives it up"]
pub struct Place<'a> {
    sent_at: Duration,
    permit: Permit,
    /// Held until the call has ended.
    _claim: Option<Claim<'a>>,
    flying: Flying<'a>,
}

impl<'a> Place<'a> {
    /// The endpoint's position in the pool.
    pub fn at(&self) -> usize {
        self.flying.at
    }

    pub fn site(&self) -> &'a Site {
        &self.flying.pool.sites[self.at()]
    }

    /// Sends a request once, and lets everybody learn from how it ended. `body` is the canonical one.
    pub async fn send(
        self,
        asked_by: &AskedBy,
        body: &Bytes,
        cache: Option<CachePoint>,
    ) -> Result<Reply, Fault> {
        let sent = self.site().send(asked_by, body, cache).await;
        self.flying.pool.ended(self.at(), self.sent_at, &sent);
        self.permit.settle(match &sent {
            Ok(reply) => Outcome::Ok { tokens: reply.answer.usage, notes: reply.notes.clone() },
            Err(Fault::Busy { retry_after, notes, .. }) => {
                Outcome::Busy { retry_after: *retry_after, notes: (**notes).clone() }
            }
            // Nothing was written for it.
            Err(
                Fault::TooLong { .. } | Fault::BadRequest { .. } | Fault::Transient { billed: false, .. },
            ) => Outcome::Failed { tokens: Some(Usage::default()) },
            Err(Fault::Fatal { .. } | Fault::Transient { .. }) => Outcome::Failed { tokens: None },
        });
        sent
    }
}

#[cfg(test)]
mod tests;
