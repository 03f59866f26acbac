//! The sequence of a call: key, store, single flight, budget, gate, send, classify, store, settle.
//!
//! Design section 4, "A call". A reply is on disk before anything uses it. Operators ask through a
//! [`Caller`]; wire formats, limits and the database are behind it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::call::batch::Way;
use crate::clock;
use crate::problem::counted;
use crate::row::{CallMark, Failure, Reason, Row, RowId};
use crate::store::{
    Amount, Charge, IfPresent, Key, NewReply, Origin, Reservation, ReservationId, Saved, Spending, StoreError,
};
use crate::teacher::cache::CachePoint;
use crate::teacher::gate::{Shut, Ticket};
use crate::teacher::prefix::Ahead;
use crate::teacher::retry::{Decision, Tries};
use crate::teacher::wire::{AskedBy, Teacher};
use crate::teacher::{Answer, Fault, Finish, Reply, Request, Usage};

pub mod batch;
pub mod budget;
pub mod caps;
mod charges;
mod control;
mod declined;
mod desk;
pub mod dry;
mod flight;
#[cfg(test)]
mod hours;
pub mod key;
pub mod monitor;
mod parking;

pub use batch::Tray;
use flight::{Flight, LowestRow};

pub use budget::Budget;
use budget::{Hold, Reached};
use charges::Charges;
pub use control::{Control, StopReason};
pub use desk::Desk;
pub use dry::DryRun;
pub use monitor::{CallCounts, Line, Monitor, Totals};
pub use parking::Parking;

/// Calls in a row that a server declined, or that did not reach it, before the run stops: whatever is wrong is
/// wrong for all.
const IN_A_ROW_MAX: u32 = 20;

/// Why a row stays open where it is.
#[derive(Debug)]
pub enum Pause {
    /// The run ended, or the row was not needed, before the call was answered.
    Stopped,
    /// The answer takes hours. The row, as it came, is taken up again when [`Parking`] says so.
    Parked(Box<Row>),
}

/// Which draw a call belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Every row gets an answer of its own, also for the same prompt.
    Row,
    /// The rows that were split off one row share the answers of one reply.
    Siblings,
    /// The same request gets the same answer.
    Request,
}

/// An answer and what the row remembers of the call.
pub struct Asked {
    pub answer: Answer,
    pub mark: CallMark,
}

/// Why a call has no answer.
pub enum NoAnswer {
    Rejected(Reason),
    Failed(Failure),
    Stopped,
    /// It goes with a batch; the row is woken when there is more to say.
    Parked,
}

/// One step's line to one teacher; cheap to clone.
#[derive(Clone)]
pub struct Caller {
    desk: Arc<Desk>,
    teacher: Arc<Teacher>,
    step: Arc<str>,
    step_index: usize,
    charges: Arc<Charges>,
    counts: Arc<CallCounts>,
    /// Where the teacher is asked in batches.
    tray: Option<Arc<Tray>>,
}

/// What is set aside for a call until it is settled: in the ledger, and in the budget.
struct Reserved<'a> {
    id: ReservationId,
    charge: Arc<Charge>,
    hold: Hold<'a>,
}

/// One call on its way.
struct Call<'a> {
    row: &'a Row,
    key: Key,
    /// The canonical body, as the store keeps it.
    body: Bytes,
    asked_by: AskedBy,
    /// Input tokens as far as they can be known before, at most one a byte.
    worst: Amount,
    /// Tokens that the gate reserves; it learns how many of them are used.
    expected_tokens: Usage,
    /// Up to where its prompt begins as others do.
    cache: Option<CachePoint>,
    /// For a call that several rows may wait for.
    lowest: Option<LowestRow>,
}

impl Call<'_> {
    fn rank(&self) -> RowId {
        self.lowest.as_ref().map_or_else(|| self.row.id.clone(), |lowest| lowest.borrow().clone())
    }

    /// Resolves when a row below this one has come to wait for the call.
    async fn outranked(&self, rank: &RowId) {
        let Some(lowest) = &self.lowest else { return std::future::pending().await };
        // The sender lives as long as `self`.
        let _ = lowest.subscribe().wait_for(|row| row != rank).await;
    }
}

impl Caller {
    pub fn new(desk: &Arc<Desk>, teacher: &Arc<Teacher>, step: &Arc<str>, step_index: usize) -> Caller {
        let line = Line { step: step_index, teacher: Some(Arc::clone(&teacher.name)) };
        let counts = desk.monitor.counts(line);
        Caller {
            desk: Arc::clone(desk),
            teacher: Arc::clone(teacher),
            step: Arc::clone(step),
            step_index,
            charges: Charges::new(&desk.pipeline, &desk.epoch, step).into(),
            counts,
            tray: desk.trays.get(&teacher.name).cloned(),
        }
    }

    pub fn teacher(&self) -> &Teacher {
        &self.teacher
    }

    /// A row goes on to another teacher, since this one's answer did not do.
    pub fn escalated(&self) {
        self.counts.escalated();
    }

    /// Asks the teacher, or the store when it was asked before.
    pub async fn ask(
        &self,
        row: &Row,
        draw: Draw,
        sample: u32,
        request: &Request,
    ) -> Result<Asked, NoAnswer> {
        let body = self.teacher.body(request);
        let body = Value::Object(body);
        let draw_key = match draw {
            Draw::Row => row.draw_key(),
            Draw::Siblings => row.parent_draw_key(),
            Draw::Request => String::new(),
        };
        let key = key::key(&key::Parts {
            wire: self.teacher.wire_name(),
            identity: &self.teacher.identity,
            body: &body,
            headers: self.teacher.answer_headers(),
            epoch: &self.desk.epoch,
            sample,
            draw: &draw_key,
        });
        let asked_by = AskedBy { step: Arc::clone(&self.step), row: row.id.clone() };
        let body = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
        let tokens_in_max = self.teacher.tokens_in_max(request, body.len());
        let tokens_each_max = u64::from(request.max_tokens.unwrap_or(self.teacher.max_tokens_default));
        let tokens_out_max = tokens_each_max * u64::from(request.answers.unwrap_or(1));
        let worst = Amount {
            usd_nano: self.teacher.price.map_or(0, |price| price.usd_nano_max(tokens_in_max, tokens_out_max)),
            tokens: tokens_in_max + tokens_out_max,
            calls: 1,
        };
        let expected_tokens = Usage::of(tokens_in_max / BYTES_PER_TOKEN, tokens_out_max);
        let cache = self.teacher.cache_point(request);
        let mut call = Call { row, key, body, asked_by, worst, expected_tokens, cache, lowest: None };
        // Only calls that several rows may share can be under way twice.
        let shared = draw != Draw::Row;
        loop {
            if let Some(asked) = self.stored(&call)? {
                return Ok(asked);
            }
            if let Some(dry) = &self.desk.dry {
                if dry.is_new(key) {
                    self.counts.miss(usize::try_from(tokens_in_max).unwrap_or(usize::MAX));
                }
                let Some(text) = dry.stand_in(&self.step, request) else {
                    return Err(NoAnswer::Failed(dry::unknown()));
                };
                let answer = Answer::new(text, Finish::Stop, "");
                let mark = self.mark(&call, &answer, 0, None);
                return Ok(Asked { answer, mark });
            }
            if let Some(tray) = &self.tray
                && matches!(self.by_batch(tray, &call).await?, Way::Answered)
            {
                continue;
            }
            if !shared {
                return self.send(&call).await;
            }
            match self.desk.flights.take_off(call.key, &row.id) {
                Flight::Ours(landing) => {
                    call.lowest = Some(landing.lowest());
                    // Saved between our look and our turn?
                    if let Some(asked) = self.stored(&call)? {
                        return Ok(asked);
                    }
                    let asked = self.send(&call).await;
                    drop(landing);
                    return asked;
                }
                Flight::Anothers(mut landed) => {
                    // Ends when the other call has landed, whether or not it brought a reply.
                    let _ = landed.changed().await;
                }
            }
        }
    }

    /// The reply that the store has for a call.
    fn stored(&self, call: &Call<'_>) -> Result<Option<Asked>, NoAnswer> {
        let found = self.desk.store.reply(call.key).map_err(|error| self.stopped_by(&error))?;
        let Some(found) = found else { return Ok(None) };
        if self.desk.fresh.get(&*self.step).is_some_and(|since| found.created_unix_ms < *since) {
            return Ok(None);
        }
        let body = found.reply().map_err(|error| self.stopped_by(&error))?;
        let body = String::from_utf8_lossy(&body);
        let read = match declined::read(&body) {
            Some(fault) => Err(fault),
            None => self.teacher.read(found.status, &body),
        };
        let retried = self.desk.retry_failed.is_some_and(|since| found.created_unix_ms < since);
        if retried && matches!(read, Err(Fault::BadRequest { .. })) {
            return Ok(None);
        }
        if !self.desk.counted.takes(call.key) {
            self.counts.hit();
        }
        match read {
            Ok(answer) => {
                let mark = self.mark(call, &answer, found.attempts, found.usd_nano);
                Ok(Some(Asked { answer, mark }))
            }
            Err(fault) => Err(ended_by(&fault, found.attempts)),
        }
    }

    /// Sends a call until it is answered, given up or not wanted any more.
    async fn send(&self, call: &Call<'_>) -> Result<Asked, NoAnswer> {
        let pool = &self.teacher.pool;
        let mut tries = Tries::default();
        loop {
            let reserved = self.reserve(call).await?;
            tries.sent += 1;
            let Failed { fault, endpoint, latency_ms } = match self.try_once(call, &tries.met).await {
                Ok(answered) => return self.save(call, answered, tries.sent, reserved).await,
                Err(Missed::Stopped) => {
                    self.settle(reserved, Amount::default()).await?;
                    return Err(NoAnswer::Stopped);
                }
                Err(Missed::Aborted) => {
                    self.settle(reserved, call.worst).await?;
                    return Err(NoAnswer::Stopped);
                }
                Err(Missed::Failed(failed)) => failed,
            };
            self.counts.fault(&fault);
            match &fault {
                Fault::Busy { .. } => {
                    tries.sent -= 1;
                    self.settle(reserved, SENT).await?;
                }
                Fault::Fatal { message } => {
                    self.settle(reserved, SENT).await?;
                    if pool.is_left_out(endpoint) {
                        continue;
                    }
                    // What goes wrong for a row that nobody needs does not spoil a run that is done.
                    if self.desk.control.wants(&call.row.id) {
                        let sentence = format!("teacher `{}`: {message}", self.teacher.name);
                        self.desk.control.stop(StopReason::Fatal(sentence));
                    }
                    return Err(NoAnswer::Stopped);
                }
                Fault::Transient { billed: true, .. } => self.settle(reserved, call.worst).await?,
                Fault::Transient { code: "connection", .. } => {
                    self.settle(reserved, Amount::default()).await?;
                }
                Fault::Transient { .. } => self.settle(reserved, SENT).await?,
                Fault::TooLong { .. } | Fault::BadRequest { .. } => {
                    self.stop_if_all_end_so(call, &fault);
                    let failed = Failed { fault, endpoint, latency_ms };
                    self.declined(call, &failed, tries.sent, reserved).await?;
                    return Err(ended_by(&failed.fault, tries.sent));
                }
            }
            let elsewhere = |met: &[usize]| pool.is_well_beside(met);
            let (attempts_max, random) = (self.teacher.attempts_max, self.counts.jitter());
            match tries.after(&fault, endpoint, elsewhere, attempts_max, random) {
                Decision::GiveUp => {
                    self.stop_if_all_end_so(call, &fault);
                    return Err(ended_by(&fault, tries.sent));
                }
                Decision::Again { after } if after.is_zero() => {}
                Decision::Again { after } => tokio::select! {
                    () = tokio::time::sleep(after) => {}
                    () = self.desk.control.unwanted(&call.row.id) => return Err(NoAnswer::Stopped),
                },
            }
        }
    }

    /// Waits for a place at an endpoint, best at none of those it has met, and sends once.
    async fn try_once(&self, call: &Call<'_>, met: &[usize]) -> Result<Answered, Missed> {
        let control = &self.desk.control;
        let ahead = match call.cache {
            Some(point) => tokio::select! {
                biased;
                () = control.unwanted(&call.row.id) => return Err(Missed::Stopped),
                ahead = self.teacher.prefixes.enter(point.prefix) => ahead,
            },
            None => None,
        };
        let ticket = Ticket { row: call.rank(), step: self.step_index, tokens: call.expected_tokens };
        let place = tokio::select! {
            biased;
            () = control.unwanted(&call.row.id) => return Err(Missed::Stopped),
            place = self.teacher.pool.enter(&ticket, met) => place,
        };
        let place = match place {
            Ok(place) => place,
            Err(Shut::Stalled { .. }) => {
                control.stop(StopReason::Stalled(format!(
                    "teacher `{}` made no progress for {}",
                    self.teacher.name,
                    humantime::format_duration(self.teacher.patience)
                )));
                return Err(Missed::Stopped);
            }
            Err(_) => return Err(Missed::Stopped),
        };
        let (endpoint, site) = (place.at(), place.site());
        let _flying = self.counts.fly();
        let started = clock::now();
        let aborting = control.aborting();
        let sent = tokio::select! {
            biased;
            sent = place.send(&call.asked_by, &call.body, call.cache) => sent,
            () = aborting.cancelled() => return Err(Missed::Aborted),
            // A stopping run does not wait for a server to come back.
            () = async { control.unwanted(&call.row.id).await; site.down().await } => {
                return Err(Missed::Stopped);
            }
        };
        let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match sent {
            Ok(reply) => {
                ahead.into_iter().for_each(Ahead::answered);
                Ok(Answered { reply, endpoint, latency_ms })
            }
            Err(fault) => Err(Missed::Failed(Failed { fault, endpoint, latency_ms })),
        }
    }

    /// Makes a reply durable, then answers with what the store has: the first reply wins.
    async fn save(
        &self,
        call: &Call<'_>,
        answered: Answered,
        attempts: u32,
        reserved: Option<Reserved<'_>>,
    ) -> Result<Asked, NoAnswer> {
        let Answered { reply, endpoint, latency_ms } = answered;
        let usage = reply.answer.usage;
        let usd_nano = match (self.teacher.price, usage) {
            (Some(price), Some(usage)) => Some(price.usd_nano(usage)),
            // A server that does not count is taken at the worst case.
            (Some(_), None) => Some(call.worst.usd_nano),
            (None, _) => None,
        };
        let actual = Amount {
            usd_nano: usd_nano.unwrap_or(0),
            tokens: usage.map_or(call.worst.tokens, Usage::total),
            calls: 1,
        };
        let new = NewReply {
            key: call.key,
            origin: Arc::new(self.origin(endpoint, &reply.answer.model)),
            request: &call.body,
            reply: reply.body.as_bytes(),
            status: reply.status,
            tokens_in: usage.map(|usage| usage.input),
            tokens_out: usage.map(|usage| usage.output),
            usd_nano,
            attempts,
            latency_ms,
            created_unix_ms: clock::unix_ms(),
        };
        let saved = self.keep(&new, self.if_present(), reserved, actual).await?;
        self.counts.reply(usage, usd_nano);
        if saved == Saved::KeptFirst
            && let Some(first) = self.stored(call)?
        {
            return Ok(first);
        }
        self.counts.answered();
        let mark = self.mark(call, &reply.answer, attempts, usd_nano);
        Ok(Asked { answer: reply.answer, mark })
    }

    /// Remembers what a server declined, so that the same request is not sent again.
    async fn declined(
        &self,
        call: &Call<'_>,
        failed: &Failed,
        attempts: u32,
        reserved: Option<Reserved<'_>>,
    ) -> Result<(), NoAnswer> {
        let Some((status, body)) = declined::record(&failed.fault) else { return Ok(()) };
        if !self.teacher.is_live() {
            // A cassette may be completed: what it lacks is looked for again.
            return self.settle(reserved, Amount::default()).await;
        }
        // An answer that was paid for stays, also when it was asked for anew.
        let known = self.desk.store.reply(call.key).map_err(|error| self.stopped_by(&error))?;
        if known.is_some_and(|known| known.status < 400) {
            return self.settle(reserved, SENT).await;
        }
        let new = NewReply {
            key: call.key,
            origin: Arc::new(self.origin(failed.endpoint, "")),
            request: &call.body,
            reply: body.as_bytes(),
            status,
            tokens_in: None,
            tokens_out: None,
            usd_nano: None,
            attempts,
            latency_ms: failed.latency_ms,
            created_unix_ms: clock::unix_ms(),
        };
        self.keep(&new, IfPresent::Replace, reserved, SENT).await.map(drop)
    }

    /// Saves a reply and settles its call, in one transaction.
    async fn keep(
        &self,
        new: &NewReply<'_>,
        present: IfPresent,
        reserved: Option<Reserved<'_>>,
        actual: Amount,
    ) -> Result<Saved, NoAnswer> {
        let (reservation, charge, hold) = match reserved {
            Some(Reserved { id, charge, hold }) => (Some(id), charge, Some(hold)),
            None => (None, self.charges.on(self.desk.budget.today()), None),
        };
        let spending = Spending { charge, reservation, actual };
        let saved = self.desk.store.save_reply(new, Some(spending), present).await;
        let saved = saved.map_err(|error| self.stopped_by(&error))?;
        if let Some(hold) = hold {
            hold.settle(actual);
        }
        Ok(saved)
    }

    /// Many calls in a row that were declined, or that reached nobody, are one error of the run, not one of each
    /// row.
    fn stop_if_all_end_so(&self, call: &Call<'_>, fault: &Fault) {
        let in_a_row = self.counts.given_up(fault);
        if in_a_row < IN_A_ROW_MAX || !self.desk.control.wants(&call.row.id) {
            return;
        }
        let (teacher, step) = (&self.teacher.name, &self.step);
        let reason = match fault {
            Fault::BadRequest { message } => StopReason::Fatal(format!(
                "teacher `{teacher}` declined {IN_A_ROW_MAX} requests of step `{step}` in a row; the last one \
                 with: {message}"
            )),
            Fault::Transient { code: "connection", message, .. } => StopReason::Stalled(format!(
                "teacher `{teacher}` was not reached by {IN_A_ROW_MAX} calls of step `{step}` in a row; the last \
                 one: {message}"
            )),
            _ => return,
        };
        self.desk.control.stop(reason);
    }

    async fn reserve(&self, call: &Call<'_>) -> Result<Option<Reserved<'_>>, NoAnswer> {
        if !self.desk.budget.caps(self.step_index) {
            return Ok(None);
        }
        let Desk { budget, store, control, .. } = &*self.desk;
        loop {
            let hold = match self.room(call).await? {
                Ok(hold) => hold,
                Err(reached) => {
                    control.stop(StopReason::Budget(reached));
                    return Err(NoAnswer::Stopped);
                }
            };
            let charge = self.charges.on(hold.day);
            let reserved = store.reserve(&charge, call.worst, budget.per_day()).await;
            match reserved.map_err(|error| self.stopped_by(&error))? {
                Reservation::Open(id) => return Ok(Some(Reserved { id, charge, hold })),
                Reservation::Full(spent) => {
                    let day = hold.day;
                    hold.settle(Amount::default());
                    budget.seen(day, None, spent);
                }
            }
        }
    }

    /// Waits for room in the budget with the rank that the call has, or until it has a lower one.
    async fn room(&self, call: &Call<'_>) -> Result<Result<Hold<'_>, Reached>, NoAnswer> {
        let Desk { control, budget, .. } = &*self.desk;
        loop {
            let rank = call.rank();
            tokio::select! {
                biased;
                () = control.unwanted(&call.row.id) => return Err(NoAnswer::Stopped),
                room = budget.reserve(rank.clone(), self.step_index, call.worst, control.lowest_open()) => {
                    return Ok(room);
                }
                () = call.outranked(&rank) => {}
            }
        }
    }

    /// Settles a call that brought no reply.
    async fn settle(&self, reserved: Option<Reserved<'_>>, actual: Amount) -> Result<(), NoAnswer> {
        self.counts.unanswered(actual);
        let store = &self.desk.store;
        let settled = match reserved {
            Some(Reserved { id, charge, hold }) => {
                let settled = store.settle(id, &charge, actual).await;
                hold.settle(actual);
                settled
            }
            None if actual == Amount::default() => Ok(()),
            None => store.add_spending(&self.charges.on(self.desk.budget.today()), actual).await,
        };
        settled.map_err(|error| self.stopped_by(&error))
    }

    /// A store that cannot be read or written ends the run: nothing paid may be lost.
    fn stopped_by(&self, error: &StoreError) -> NoAnswer {
        self.desk.control.stop(StopReason::Fatal(error.to_string()));
        NoAnswer::Stopped
    }

    fn if_present(&self) -> IfPresent {
        if self.desk.retry_failed.is_some() || self.desk.fresh.contains_key(&*self.step) {
            IfPresent::Replace
        } else {
            IfPresent::KeepFirst
        }
    }

    fn origin(&self, endpoint: usize, model: &str) -> Origin {
        Origin {
            epoch: self.desk.epoch.to_string(),
            pipeline: Some(self.desk.pipeline.to_string()),
            step: self.step.to_string(),
            teacher: self.teacher.identity.clone(),
            endpoint: self.teacher.pool.sites()[endpoint].url.clone(),
            wire: self.teacher.wire_name().to_owned(),
            model: model.to_owned(),
        }
    }

    fn mark(&self, call: &Call<'_>, answer: &Answer, attempts: u32, usd_nano: Option<u64>) -> CallMark {
        let usage = answer.usage.unwrap_or_default();
        CallMark {
            step: Arc::clone(&self.step),
            teacher: Arc::clone(&self.teacher.name),
            model: answer.model.as_str().into(),
            key: call.key.to_string(),
            attempts,
            tokens_in: usage.input,
            tokens_out: usage.output,
            usd: usd_nano.map(|nano| nano as f64 / 1e9),
        }
    }
}

/// Bytes of a request per token, for what the gate reserves; settled to the server's count after.
/// English prose in JSON is near 4 with the vocabularies of today.
const BYTES_PER_TOKEN: u64 = 4;

/// What a request costs that was sent and not answered, as far as is known: one call.
const SENT: Amount = Amount { usd_nano: 0, tokens: 0, calls: 1 };

/// A reply, and which endpoint it is of.
struct Answered {
    reply: Reply,
    endpoint: usize,
    latency_ms: u64,
}

/// A fault, and at which endpoint.
struct Failed {
    fault: Fault,
    endpoint: usize,
    latency_ms: u64,
}

enum Missed {
    /// It was not sent, or the server of ours that had it ended.
    Stopped,
    /// It was sent, and nobody waits for its answer.
    Aborted,
    Failed(Failed),
}

/// How a row ends whose call brought no answer.
fn ended_by(fault: &Fault, attempts: u32) -> NoAnswer {
    let evidence = |message: &str| -> Value { json!({"server": message, "attempts": attempts}) };
    match fault {
        Fault::TooLong { message } => NoAnswer::Rejected(Reason::new("too_long", json!({"server": message}))),
        Fault::BadRequest { message } => NoAnswer::Failed(
            Failure::new("declined", format!("the server declined the request: {message}"))
                .with_evidence(json!({"server": message})),
        ),
        Fault::Transient { code, message, .. } => NoAnswer::Failed(
            Failure::new(
                *code,
                format!("no answer after {}: {message}", counted(u64::from(attempts), "attempt")),
            )
            .with_evidence(evidence(message)),
        ),
        Fault::Busy { message, .. } | Fault::Fatal { message } => {
            NoAnswer::Failed(Failure::new("busy", message.clone()).with_evidence(evidence(message)))
        }
    }
}
