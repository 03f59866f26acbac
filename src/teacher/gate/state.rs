//! The gate's decisions: who may send now, what a reply changes, when to look again.
//!
//! A pure state machine. Time is a parameter (a monotonic `Duration` since any fixed start) and random
//! numbers come from a seed; nothing here waits, locks or wakes anyone.

use std::time::Duration;

use super::allowance::Allowance;
use super::climb::Climb;
use super::learn::{Flight, IN_FLIGHT_DEFAULT, PAUSE_MAX, Pauses};
use super::queue::Queue;
use super::{Limits, Outcome, Shut, Snapshot, Ticket};
use crate::teacher::{LimitNote, LimitNotes, Usage};

/// The longest pause that a server can ask for; far above any patience, far below overflow.
const TOLD_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A place in flight that was given to a waiter. Hand it back with [`GateState::settle`] or
/// [`GateState::unused`], once.
#[derive(Debug, PartialEq)]
pub struct Grant {
    /// What the ticket named, as each allowance counts it.
    reserved: Costs,
    /// What was taken for it.
    taken: Costs,
    sent_at: Duration,
    /// Which burst of busy replies it was sent after.
    round: u64,
}

/// What the gate does next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The waiter with this id may send; ask again.
    Admit(u64, Grant),
    /// Nothing before this time, unless something else happens.
    At(Duration),
    /// Nothing until something else happens.
    Wait,
    /// Nothing ever again; the waiters have been forgotten and must be told.
    Shut(Shut),
}

/// What a call costs: a request, its tokens, its input tokens, its output tokens.
type Costs = [u64; 4];

const REQUESTS: usize = 0;
const TOKENS: usize = 1;
const INPUT: usize = 2;
const OUTPUT: usize = 3;

fn costs(tokens: Usage) -> Costs {
    [1, tokens.total(), tokens.input, tokens.output]
}

/// Limits, waiters and calls in flight of one teacher.
#[derive(Debug)]
pub struct GateState {
    allowances: [Allowance; 4],
    /// What the next in line last waited for; `None` is a place in flight.
    bound_by: Option<usize>,
    flight: Flight,
    climb: Climb,
    queue: Queue,
    paused_until: Duration,
    pauses: Pauses,
    /// Bursts of busy replies so far. A busy reply begins a new one if its request was sent after the last.
    round: u64,
    /// Whether anything was answered since the last burst: a server that refuses everything is down or
    /// overloaded, which says nothing of a rate.
    answered: bool,
    /// The first busy reply since the last success.
    busy_since: Option<Duration>,
    patience: Duration,
    shut: Option<Shut>,
    used_requests: u64,
    used_tokens: u64,
    /// The configured calls in flight, and the share of that and of all else which is ours.
    places: usize,
    share: f64,
}

impl GateState {
    /// `patience` is how long a teacher may be busy without one success; `seed` is for jitter only.
    pub fn new(now: Duration, limits: Limits, patience: Duration, seed: u64) -> GateState {
        let in_flight = limits.in_flight.unwrap_or(IN_FLIGHT_DEFAULT);
        GateState {
            allowances: [limits.requests_per_minute, limits.tokens_per_minute, None, None]
                .map(|configured| Allowance::new(now, configured)),
            bound_by: None,
            flight: Flight::new(in_flight),
            climb: Climb::new(in_flight),
            queue: Queue::default(),
            paused_until: Duration::ZERO,
            pauses: Pauses::new(seed),
            round: 0,
            answered: true,
            busy_since: None,
            patience,
            shut: None,
            used_requests: 0,
            used_tokens: 0,
            places: in_flight.max(1),
            share: 1.0,
        }
    }

    /// Keeps to a share of every limit from now on. What was learned of the whole is kept: a rate and the calls
    /// at once are the server's, whoever uses them.
    pub fn set_share(&mut self, now: Duration, share: f64) {
        let share = share.clamp(0.0, 1.0);
        if share == self.share {
            return;
        }
        self.share = share;
        if share > 0.0 {
            self.allowances.iter_mut().for_each(|allowance| allowance.set_share(now, share));
            self.flight.resize(self.places_of_ours());
            self.climb.resize(self.places_of_ours());
        }
    }

    /// Adds a waiter and returns its id.
    pub fn enqueue(&mut self, now: Duration, ticket: Ticket) -> u64 {
        let idle = self.queue.is_empty() && self.flight.now == 0;
        if idle && now > self.paused_until.saturating_add(PAUSE_MAX) {
            // Nobody asked for longer than any pause: that was rest, not a teacher that stays busy.
            self.busy_since = None;
        }
        self.queue.push(now, ticket)
    }

    /// Forgets a waiter that no longer waits.
    pub fn cancel(&mut self, id: u64) {
        self.queue.remove(id);
    }

    /// Lets the next waiter in, or tells when to ask again. Call it until it does not admit.
    ///
    /// The head of the queue is waited for: nobody behind it takes what it waits for, so a large request is
    /// not overtaken for ever by small ones.
    pub fn next(&mut self, now: Duration) -> Next {
        let gives_up_at = self.busy_since.map(|since| since.saturating_add(self.patience));
        let paused = self.paused_until > now;
        if paused && !self.queue.is_empty() && gives_up_at.is_some_and(|at| at <= now) {
            self.shut.get_or_insert(Shut::Stalled { patience: self.patience });
        }
        if let Some(shut) = self.shut {
            self.queue.clear();
            return Next::Shut(shut);
        }
        let Some(head) = self.queue.head(now) else { return Next::Wait };
        if self.flight.now >= self.in_flight_limit() {
            self.bound_by = None;
            return Next::Wait;
        }
        if paused {
            return Next::At(gives_up_at.map_or(self.paused_until, |at| at.min(self.paused_until)));
        }
        let reserved = costs(head.tokens);
        let taken: Costs = std::array::from_fn(|which| self.allowances[which].expected(reserved[which]));
        let ready_at = |which: usize| self.allowances[which].ready_at(now, taken[which]);
        if let Some(last) = (0..taken.len()).max_by_key(|which| ready_at(*which))
            && ready_at(last) > now
        {
            let ready = ready_at(last);
            self.bound_by = Some(last);
            self.allowances[last].hold(now, ready);
            return Next::At(ready);
        }
        self.queue.let_in(head.id);
        Next::Admit(head.id, self.spend(now, reserved, taken))
    }

    /// Takes what a call needs out of the allowances; all are known to have it.
    fn spend(&mut self, now: Duration, reserved: Costs, taken: Costs) -> Grant {
        for (allowance, taken) in self.allowances.iter_mut().zip(taken) {
            allowance.take(now, taken);
        }
        self.flight.now += 1;
        self.used_requests += 1;
        self.used_tokens = self.used_tokens.saturating_add(taken[TOKENS]);
        Grant { reserved, taken, sent_at: now, round: self.round }
    }

    /// Takes back a place that was never used: nothing was sent.
    #[expect(clippy::needless_pass_by_value, reason = "a grant is handed back once")]
    pub fn unused(&mut self, now: Duration, grant: Grant) {
        self.flight.now = self.flight.now.saturating_sub(1);
        self.used_requests = self.used_requests.saturating_sub(1);
        self.settle_costs(now, &grant, [0; 4]);
    }

    /// Frees a place in flight and learns from how the call ended.
    #[expect(clippy::needless_pass_by_value, reason = "a grant is handed back once")]
    pub fn settle(&mut self, now: Duration, grant: Grant, outcome: Outcome) {
        self.flight.now = self.flight.now.saturating_sub(1);
        match outcome {
            Outcome::Ok { tokens, notes } => {
                self.settle_costs(now, &grant, tokens.map_or(grant.taken, costs));
                if let Some(used) = tokens.map(costs) {
                    for ((allowance, reserved), used) in
                        self.allowances.iter_mut().zip(grant.reserved).zip(used)
                    {
                        allowance.learn_used(reserved, used);
                    }
                }
                self.heard(now, grant.sent_at, &notes);
                self.busy_since = None;
                self.answered = true;
                self.flight.grow();
                let bound = self.bound_by.is_none() && !self.queue.is_empty() && self.paused_until <= now;
                self.climb.answer(now, now.saturating_sub(grant.sent_at), bound);
            }
            Outcome::Busy { retry_after, notes } => self.busy(now, &grant, retry_after, &notes),
            Outcome::Failed { tokens } => {
                // Nobody knows what it used, so all of what it could have.
                let worst = std::array::from_fn(|which| grant.reserved[which].max(grant.taken[which]));
                self.settle_costs(now, &grant, tokens.map_or(worst, costs));
            }
        }
    }

    /// Lets nobody in any more; calls in flight may still be settled.
    pub fn close(&mut self) {
        self.shut.get_or_insert(Shut::Closed);
    }

    /// Whether the gate is shut, and why.
    pub fn shut(&self) -> Option<Shut> {
        self.shut
    }

    pub fn snapshot(&self, now: Duration) -> Snapshot {
        Snapshot {
            waiting: self.queue.len(),
            in_flight: self.flight.now,
            in_flight_limit: self.in_flight_of_all(),
            places: self.places,
            paused_for: self.paused_until.saturating_sub(now),
            used_requests: self.used_requests,
            used_tokens: self.used_tokens,
            requests_per_minute: self.allowances[REQUESTS].per_minute(),
            tokens_per_minute: self.allowances[TOKENS].per_minute(),
            input_tokens_per_minute: self.allowances[INPUT].per_minute(),
            output_tokens_per_minute: self.allowances[OUTPUT].per_minute(),
        }
    }

    /// The configured calls in flight that are ours.
    fn places_of_ours(&self) -> usize {
        ((self.places as f64 * self.share) as usize).max(1)
    }

    /// What our limit makes of all processes together, who learn the same.
    fn in_flight_of_all(&self) -> usize {
        let (ours, most) = (self.in_flight_limit(), self.places_of_ours());
        if self.share == 0.0 { self.places } else { (ours * self.places).div_ceil(most) }
    }

    fn in_flight_limit(&self) -> usize {
        if self.share > 0.0 { self.flight.limit.min(self.climb.limit()) } else { 0 }
    }

    fn settle_costs(&mut self, now: Duration, grant: &Grant, used: Costs) {
        for (which, allowance) in self.allowances.iter_mut().enumerate() {
            allowance.settle(now, grant.taken[which], used[which]);
        }
        self.count_tokens(grant, used[TOKENS]);
    }

    fn count_tokens(&mut self, grant: &Grant, used: u64) {
        self.used_tokens = self.used_tokens.saturating_sub(grant.taken[TOKENS]).saturating_add(used);
    }

    /// Takes over what a reply's headers say.
    fn heard(&mut self, now: Duration, said_at: Duration, notes: &LimitNotes) {
        if notes.input_tokens.limit.or(notes.output_tokens.limit).is_some() {
            // A server that counts them apart has no limit for the sum.
            self.allowances[TOKENS].lift();
        }
        for (allowance, note) in self.allowances.iter_mut().zip(each(notes)) {
            allowance.heard(now, said_at, note);
        }
    }

    /// The teacher pauses as a whole. Busy replies to calls that were in flight together count once.
    fn busy(&mut self, now: Duration, grant: &Grant, retry_after: Option<Duration>, notes: &LimitNotes) {
        let since = *self.busy_since.get_or_insert(now);
        let new_burst = grant.round == self.round;
        for (allowance, taken) in self.allowances.iter_mut().zip(grant.taken) {
            allowance.refuse(taken, !new_burst);
        }
        self.count_tokens(grant, 0);
        if new_burst {
            self.round += 1;
            self.climb.give_up();
            self.burst(now, grant, notes);
        }
        self.heard(now, grant.sent_at, notes);
        // A told wait of zero tells nothing: obeying it would be a hot loop.
        let told = retry_after.or_else(|| exhausted_until(notes)).filter(|told| !told.is_zero());
        let pause = match told {
            Some(told) => told.min(TOLD_MAX),
            None if new_burst => self.pauses.next(),
            None => Duration::ZERO,
        };
        self.paused_until = self.paused_until.max(now.saturating_add(pause));
        for allowance in &mut self.allowances {
            allowance.drain(self.paused_until);
        }
        if now.saturating_sub(since) >= self.patience {
            self.shut.get_or_insert(Shut::Stalled { patience: self.patience });
        }
    }

    /// A new burst of busy replies: less of what it was about.
    ///
    /// That is the allowance of which the server says too little was left, or else what the next in line
    /// waited for. Where that is a place in flight, the server may mean the calls at once or their rate, so
    /// both give way.
    fn burst(&mut self, now: Duration, grant: &Grant, notes: &LimitNotes) {
        let named = each(notes)
            .into_iter()
            .zip(grant.reserved)
            .position(|(note, reserved)| note.remaining.is_some_and(|remaining| remaining < reserved));
        let about = named.or(self.bound_by);
        if about.is_none() {
            self.flight.shrink();
        }
        if std::mem::take(&mut self.answered) {
            self.pauses.reset();
            let which = about.unwrap_or(REQUESTS);
            self.allowances[which].slow_down(now, grant.sent_at, grant.reserved[which]);
        } else {
            self.allowances.iter_mut().for_each(Allowance::forget);
        }
    }
}

fn each(notes: &LimitNotes) -> [&LimitNote; 4] {
    [&notes.requests, &notes.tokens, &notes.input_tokens, &notes.output_tokens]
}

/// When what a busy reply's headers say is used up comes back. The same bound as for pauses whose
/// length nobody told, because such headers may speak of a daily quota.
fn exhausted_until(notes: &LimitNotes) -> Option<Duration> {
    let exhausted = each(notes).into_iter().filter(|note| note.remaining == Some(0));
    exhausted.filter_map(|note| note.reset).max().map(|reset| reset.min(PAUSE_MAX))
}

#[cfg(test)]
mod hours;
#[cfg(test)]
mod tests;
