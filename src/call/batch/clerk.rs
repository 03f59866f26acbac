//! The one who sends batches and asks about them; one for each teacher of a run.
//!
//! A batch is written into the store before it is sent, and its provider's name for it after. In between nobody
//! knows whether the provider has it: then it is looked for in the provider's list, by the token that it was
//! given or by the ids of its items, and it is not sent again while a batch of that list may be it.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Tray, Waits};
use crate::call::budget::InBatch;
use crate::call::{Desk, StopReason};
use crate::clock;
use crate::row::RowId;
use crate::store::{Amount, Batch, BatchesOf, Closed, Key, NewBatch, StoreError};
use crate::teacher::Fault;
use crate::teacher::batch::{BatchClient, Listed, NotSent, Status, Upload, UploadWriter};
use crate::teacher::wire::Teacher;

/// The first time between two questions about a batch; each is half as long again, up to `poll`.
const POLL_FIRST: Duration = Duration::from_secs(5);
/// How far a provider's clock may be off.
const CLOCKS_APART_MS: i64 = 10 * 60 * 1000;
/// How soon a batch is looked for that may or may not have been sent, and how soon room in the budget is.
const SOON: Duration = Duration::from_secs(1);

/// The clerks of a run.
pub struct Clerks {
    done: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Gives every tray of a desk its clerk; `folder` takes what is on its way to a provider.
pub fn start(
    desk: &Arc<Desk>,
    teachers: &IndexMap<String, Arc<Teacher>>,
    folder: &std::path::Path,
) -> Clerks {
    let done = CancellationToken::new();
    let served = teachers.values().filter_map(|teacher| Some((teacher, desk.trays.get(&teacher.name)?)));
    let task = |(teacher, tray): (&Arc<Teacher>, &Arc<Tray>)| {
        let clerk = Clerk {
            desk: Arc::clone(desk),
            teacher: Arc::clone(teacher),
            tray: Arc::clone(tray),
            folder: folder.to_owned(),
            watched: BTreeMap::new(),
            closes_from: clock::now(),
        };
        tokio::spawn(clerk.serve(done.clone()))
    };
    Clerks { tasks: served.map(task).collect(), done }
}

impl Clerks {
    /// Sends them home; what they are at is finished before.
    pub async fn end(self) {
        self.done.cancel();
        for task in self.tasks {
            // One that panicked has told so.
            let _ = task.await;
        }
    }
}

pub(super) struct Clerk {
    pub desk: Arc<Desk>,
    pub teacher: Arc<Teacher>,
    pub tray: Arc<Tray>,
    folder: PathBuf,
    watched: BTreeMap<i64, Watched>,
    /// No batch is closed before.
    closes_from: Instant,
}

/// A batch that has not ended.
struct Watched {
    batch: Batch,
    stage: Stage,
    next: Instant,
    wait: Duration,
    /// Since when every question about it failed.
    failing: Option<Instant>,
}

enum Stage {
    /// The provider does not have it.
    Unsent(Box<Upload>),
    /// Nobody knows whether the provider has it.
    Doubtful,
    Sent(String),
}

/// What a teacher's batches are known by.
pub fn batches_of(teacher: &Teacher) -> BatchesOf {
    let [teacher, wire, model] =
        [teacher.identity.as_str(), teacher.wire_name(), teacher.model()].map(str::to_owned);
    BatchesOf { teacher, wire, model }
}

/// Why a clerk stops the run.
pub(super) enum Halt {
    Store(StoreError),
    Stop(StopReason),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Halt {
        Halt::Store(error)
    }
}

/// What a batch takes that is closed now.
struct Closing {
    items: Vec<((RowId, Key), Waits)>,
    unwanted: Vec<(RowId, Key)>,
    /// Too few to be worth the wait: they go live.
    urgent: bool,
}

impl Clerk {
    async fn serve(mut self, done: CancellationToken) {
        let (stopping, aborting) = (self.desk.control.stopping(), self.desk.control.aborting());
        let mut stillness = self.desk.control.parking().stillness();
        loop {
            let turn = tokio::select! {
                turn = self.turn(&stillness) => turn,
                () = aborting.cancelled() => return,
            };
            if let Err(halt) = turn {
                let reason = match halt {
                    Halt::Store(error) => StopReason::Fatal(error.to_string()),
                    Halt::Stop(reason) => reason,
                };
                self.desk.control.stop(reason);
            }
            if done.is_cancelled() || stopping.is_cancelled() {
                break;
            }
            let until = self.next_turn();
            tokio::select! {
                () = done.cancelled() => {}
                () = stopping.cancelled() => {}
                () = self.tray.changed.notified() => {}
                Ok(()) = stillness.changed() => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
        // What the provider certainly does not have is no batch.
        let unsent = self.watched.values().filter(|watched| matches!(watched.stage, Stage::Unsent(_)));
        for id in unsent.map(|watched| watched.batch.id).collect::<Vec<_>>() {
            let _ = self.unsent(id).await;
        }
    }

    fn client(&self) -> Result<&BatchClient, Halt> {
        let none =
            || Halt::Stop(StopReason::Fatal(format!("teacher `{}` has no batches", self.teacher.name)));
        self.teacher.batches.as_ref().ok_or_else(none)
    }

    async fn turn(&mut self, stillness: &watch::Receiver<bool>) -> Result<(), Halt> {
        self.follow().await?;
        let now = clock::now();
        let due = self.watched.iter().filter(|(_, watched)| watched.next <= now).map(|(id, _)| *id);
        let mut woken = Vec::new();
        for id in due.collect::<Vec<i64>>() {
            woken.extend(self.look_at(id).await?);
        }
        // All at once: what they ask next may go in one batch.
        self.desk.control.parking().wake(woken);
        loop {
            let still = *stillness.borrow();
            let Some(closing) = self.closing(still) else { return Ok(()) };
            if !self.close(closing).await? {
                return Ok(());
            }
        }
    }

    /// When there is something to do, whatever happens.
    fn next_turn(&self) -> Instant {
        let state = self.tray.lock();
        let oldest = state.waiting.values().map(|waits| waits.since).min();
        let late =
            self.tray.settings.urgent.and_then(|urgent| urgent.after).map(|after| self.tray.started + after);
        let age = oldest.map(|oldest| {
            let due = oldest + self.tray.settings.age;
            late.map_or(due, |late| late.min(due)).max(self.closes_from)
        });
        let looks = self.watched.values().map(|watched| watched.next);
        let wanting =
            (!state.waiting.is_empty() && self.closes_from > clock::now()).then_some(self.closes_from);
        let soonest = looks.chain(age).chain(wanting).min();
        soonest.unwrap_or_else(|| clock::now() + self.tray.settings.poll)
    }

    /// Takes up the batches that runs which are over left, and lets go of those that were given up.
    async fn follow(&mut self) -> Result<(), Halt> {
        let of = batches_of(&self.teacher);
        self.desk.store.adopt_batches(&of, &self.tray.run).await?;
        let living = self.desk.store.living_batches(&of, &self.tray.run)?;
        let ids: HashSet<i64> = living.iter().map(|batch| batch.id).collect();
        self.watched.retain(|id, _| ids.contains(id));
        self.look_elsewhere()?;
        for batch in living {
            let stage = batch.provider_id.clone().map_or(Stage::Doubtful, Stage::Sent);
            self.watched.entry(batch.id).or_insert_with(|| Watched {
                batch,
                stage,
                next: clock::now(),
                wait: POLL_FIRST.min(self.tray.settings.poll),
                failing: None,
            });
        }
        let sent = self.watched.values().filter(|watched| !matches!(watched.stage, Stage::Unsent(_)));
        let under_way: u64 = sent.map(|watched| watched.batch.items).sum();
        self.desk.monitor.batches.under_way(&self.teacher.name, self.watched.len() as u64, under_way);
        Ok(())
    }

    /// Wakes rows whose calls another run has in its batches, when these have come to an end.
    fn look_elsewhere(&mut self) -> Result<(), Halt> {
        let elsewhere: Vec<Key> = self.tray.lock().elsewhere.iter().copied().collect();
        if elsewhere.is_empty() {
            return Ok(());
        }
        let left = self.desk.store.left_by_others(&elsewhere, &self.tray.run)?;
        let over: HashSet<Key> =
            elsewhere.into_iter().zip(left).filter_map(|(key, left)| left.then_some(key)).collect();
        self.tray.lock().elsewhere.retain(|key| !over.contains(key));
        self.desk.control.parking().wake(self.tray.discharge(over));
        Ok(())
    }

    /// The batch that is due, if one is.
    fn closing(&self, still: bool) -> Option<Closing> {
        let now = clock::now();
        let Tray { settings, .. } = &*self.tray;
        let state = self.tray.lock();
        let first = state.waiting.values().map(|waits| waits.since).min()?;
        let late = settings.urgent.is_some_and(|urgent| self.tray.is_late(urgent.after));
        let due = still || late || self.tray.is_full(&state) || now >= first + settings.age;
        if !due || now < self.closes_from {
            return None;
        }
        let few = settings.urgent.is_some_and(|urgent| state.waiting.len() < urgent.below);
        let mut closing = Closing { items: Vec::new(), unwanted: Vec::new(), urgent: late || (few && still) };
        let mut bytes = 0;
        for (item, waits) in &state.waiting {
            if !self.desk.control.wants(&item.0) {
                closing.unwanted.push(item.clone());
                continue;
            }
            bytes += waits.bytes;
            let full = bytes > settings.bytes_max || closing.items.len() >= settings.items_max;
            if full && !closing.items.is_empty() && !closing.urgent {
                break;
            }
            closing.items.push((item.clone(), waits.clone()));
        }
        Some(closing)
    }

    /// Closes a batch and sends it; whether another one may be due.
    async fn close(&mut self, closing: Closing) -> Result<bool, Halt> {
        let Closing { mut items, unwanted, urgent } = closing;
        self.drop_items(&unwanted).await?;
        if items.is_empty() {
            return Ok(false);
        }
        if urgent {
            let keys: Vec<(RowId, Key)> = items.into_iter().map(|(item, _)| item).collect();
            self.tray.lock().live.extend(keys.iter().map(|(_, key)| *key));
            self.desk.control.parking().wake(self.drop_items(&keys).await?);
            return Ok(true);
        }
        let calls = items.iter().map(|(_, waits)| (&*waits.step, waits.worst));
        let room = self.desk.budget.reserve_all(calls);
        let (room, day) = room.map_err(|reached| Halt::Stop(StopReason::Budget(reached)))?;
        if room == 0 {
            // What is under way may come to less than was feared.
            self.closes_from = clock::now() + SOON;
            return Ok(false);
        }
        items.truncate(room);
        let keys: Vec<Key> = items.iter().map(|((_, key), _)| *key).collect();
        let sent_unix_ms = clock::unix_ms();
        let new = NewBatch {
            run: self.tray.run.to_string(),
            token: format!("{}-{sent_unix_ms:x}-{}", self.tray.run, &keys[0].to_string()[..16]),
            of: batches_of(&self.teacher),
            sent_unix_ms,
            day,
        };
        let worst = items.iter().fold(Amount::default(), |sum, (_, waits)| sum.plus(waits.worst));
        // From here on the provider may have it, whatever becomes of us.
        let per_day = self.desk.budget.per_day();
        let batch = match self.desk.store.close_batch(new, keys.clone(), worst, per_day).await? {
            Closed::Batch(batch) => batch,
            Closed::Full(spent) => {
                self.give_back(&items, day);
                self.desk.budget.seen(day, None, spent);
                self.closes_from = clock::now() + SOON;
                return Ok(false);
            }
        };
        self.tray.take(items.iter().map(|(item, _)| item));
        let upload = Box::new(self.written(&batch, keys).await?);
        let wait = POLL_FIRST.min(self.tray.settings.poll);
        let watched = Watched {
            batch: batch.clone(),
            stage: Stage::Unsent(upload),
            next: clock::now(),
            wait,
            failing: None,
        };
        self.watched.insert(batch.id, watched);
        self.send(batch.id).await?;
        Ok(true)
    }

    /// Gives the budget back what was set aside for a batch that was not closed.
    fn give_back(&self, items: &[((RowId, Key), Waits)], day: i64) {
        for (_, Waits { step, worst, .. }) in items {
            let call = InBatch { ours: true, own: true, step, worst: *worst, day };
            self.desk.budget.settle_batched(&call, Amount::default());
        }
    }

    /// Takes items back that wait for a batch; the rows that waited for them.
    async fn drop_items(&self, items: &[(RowId, Key)]) -> Result<Vec<RowId>, Halt> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<Key> = items.iter().map(|(_, key)| *key).collect();
        self.desk.store.take_back(keys.clone()).await?;
        self.tray.take(items);
        Ok(self.tray.discharge(keys))
    }

    /// Writes a batch to disk, as it is sent.
    async fn written(&self, batch: &Batch, keys: Vec<Key>) -> Result<Upload, Halt> {
        let (store, api, folder) = (self.desk.store.clone(), self.client()?.api, self.folder.clone());
        let token = batch.token.clone();
        let writing = move || -> Result<Upload, Halt> {
            let halt = |error: std::io::Error| {
                Halt::Stop(StopReason::Fatal(format!("a batch cannot be written to disk: {error}")))
            };
            let mut writer = UploadWriter::create(api, &folder, &token).map_err(halt)?;
            for key in keys {
                if let Some(item) = store.batch_item(key)? {
                    writer.add(&key.to_string(), &item.request).map_err(halt)?;
                }
            }
            writer.finish().map_err(halt)
        };
        let written = tokio::task::spawn_blocking(writing).await;
        written.unwrap_or_else(|error| {
            Err(Halt::Stop(StopReason::Fatal(format!("a batch was not written: {error}"))))
        })
    }

    async fn send(&mut self, id: i64) -> Result<(), Halt> {
        let Some(mut watched) = self.watched.remove(&id) else { return Ok(()) };
        let Stage::Unsent(mut upload) = std::mem::replace(&mut watched.stage, Stage::Doubtful) else {
            return Ok(());
        };
        self.desk.store.batch_sent(id, clock::unix_ms()).await?;
        watched.batch.sent_unix_ms = clock::unix_ms();
        let sent = self.client()?.submit(&mut upload).await;
        let (stage, fault) = match sent {
            Ok(name) => {
                self.desk.store.batch_accepted(id, &name).await?;
                self.desk.monitor.batches.sent(watched.batch.items);
                watched.failing = None;
                (Stage::Sent(name), None)
            }
            Err(NotSent::Doubt(_)) => (Stage::Doubtful, None),
            Err(NotSent::Fault(fault)) => (Stage::Unsent(upload), Some(fault)),
        };
        watched.next = clock::now() + watched.wait;
        self.watched.insert(id, Watched { stage, ..watched });
        match fault {
            Some(fault) => self.failed(id, &fault, "was not taken").await,
            None => Ok(()),
        }
    }

    /// Asks about a batch, or sends it, whatever it needs; rows that can go on.
    async fn look_at(&mut self, id: i64) -> Result<Vec<RowId>, Halt> {
        let Some(watched) = self.watched.get_mut(&id) else { return Ok(Vec::new()) };
        watched.wait = watched.wait.mul_f64(1.5).min(self.tray.settings.poll);
        watched.next = clock::now() + watched.wait;
        let batch = watched.batch.clone();
        let name = match &watched.stage {
            Stage::Unsent(_) => return self.send(id).await.map(|()| Vec::new()),
            Stage::Doubtful => return self.find(&batch).await.map(|()| Vec::new()),
            Stage::Sent(name) => name.clone(),
        };
        match self.client()?.status(&name).await {
            Ok(Status::Working { done, .. }) => {
                self.desk.monitor.batches.working(&name, done);
                self.watched.entry(id).and_modify(|watched| watched.failing = None);
                Ok(Vec::new())
            }
            Ok(Status::Ended { results }) => match self.collect(&batch, &results).await? {
                Ok(rows) => {
                    self.watched.remove(&id);
                    self.desk.monitor.batches.ended(&name);
                    Ok(rows)
                }
                Err(fault) => self.failed(id, &fault, "cannot be read").await.map(|()| Vec::new()),
            },
            Ok(Status::Failed(fault)) => {
                self.desk.monitor.batches.ended(&name);
                self.unsent(id).await?;
                match fault {
                    // Too much is in the account's queue.
                    Fault::Busy { .. } => {
                        self.closes_from = clock::now() + self.tray.settings.poll;
                        Ok(Vec::new())
                    }
                    fault => Err(self.halted(&name, "was not taken", &fault)),
                }
            }
            Err(fault) => self.failed(id, &fault, "is not known").await.map(|()| Vec::new()),
        }
    }

    /// Looks for a batch in the provider's list. It is sent again only when it cannot be there.
    async fn find(&mut self, batch: &Batch) -> Result<(), Halt> {
        let listed = match self.client()?.made_since(batch.sent_unix_ms - CLOCKS_APART_MS).await {
            Ok(listed) => listed,
            Err(fault) => return self.failed(batch.id, &fault, "cannot be looked for").await,
        };
        let others = self.desk.store.batches(u32::MAX)?.into_iter().filter_map(|batch| batch.provider_id);
        let others: HashSet<String> = others.collect();
        let mut undecided = false;
        for candidate in listed.into_iter().filter(|candidate| !others.contains(&candidate.id)) {
            match self.is_it(batch, &candidate).await? {
                Some(true) => {
                    self.desk.store.batch_accepted(batch.id, &candidate.id).await?;
                    self.desk.monitor.batches.sent(batch.items);
                    self.watched.entry(batch.id).and_modify(|watched| {
                        watched.stage = Stage::Sent(candidate.id);
                        watched.next = clock::now();
                    });
                    return Ok(());
                }
                Some(false) => {}
                None => undecided = true,
            }
        }
        let passed_ms = clock::unix_ms().saturating_sub(batch.sent_unix_ms);
        let in_doubt = self.tray.settings.doubt.as_millis() > u128::try_from(passed_ms).unwrap_or(0);
        match undecided || in_doubt {
            true => {
                self.watched.entry(batch.id).and_modify(|watched| {
                    watched.next = clock::now() + watched.wait.min(SOON.max(POLL_FIRST));
                });
                Ok(())
            }
            false => self.unsent(batch.id).await,
        }
    }

    /// Whether a batch in the provider's list is ours; nothing while that cannot be told.
    async fn is_it(&self, batch: &Batch, candidate: &Listed) -> Result<Option<bool>, Halt> {
        if candidate.token.is_some() || self.client()?.api == crate::teacher::batch::BatchApi::OpenAi {
            return Ok(Some(candidate.token.as_deref() == Some(&*batch.token)));
        }
        if candidate.items.is_some_and(|items| items != batch.items) {
            return Ok(Some(false));
        }
        let Status::Ended { results } = &candidate.status else { return Ok(None) };
        let Some(path) = results.first() else { return Ok(Some(false)) };
        let (sink, mut results) = tokio::sync::mpsc::channel(1);
        let reading = self.client()?.results(path, sink);
        // The first is enough; with nobody to take more, the reading ends.
        let looking = async move { results.recv().await };
        let (_, first) = tokio::join!(reading, looking);
        let key = first.and_then(|first| first.custom_id.parse::<Key>().ok());
        let Some(key) = key else { return Ok(Some(false)) };
        let item = self.desk.store.batch_item(key)?;
        Ok(Some(item.is_some_and(|item| item.batch == Some(batch.id))))
    }

    /// A batch that its provider does not have: what rows wait for goes with another one.
    async fn unsent(&mut self, id: i64) -> Result<(), Halt> {
        let keys = self.desk.store.keys_of_batch(id)?;
        let mut kept = Vec::new();
        for key in keys {
            let Some(item) = self.desk.store.batch_item(key)? else { continue };
            self.settle(&item, Amount::default());
            if self.tray.wants(&key) {
                kept.push((key, item.request.len(), item.worst, item.step));
            }
        }
        let keep = kept.iter().map(|(key, ..)| *key).collect();
        self.desk.store.batch_unsent(id, keep, &self.tray.run).await?;
        self.watched.remove(&id);
        for (key, bytes, worst, step) in kept {
            self.tray.wait(key, bytes, worst, &step);
        }
        Ok(())
    }

    /// Something about a batch failed: it is tried again, for as long as there is hope.
    async fn failed(&mut self, id: i64, fault: &Fault, what: &str) -> Result<(), Halt> {
        let Some(watched) = self.watched.get_mut(&id) else { return Ok(()) };
        let name = watched.batch.provider_id.clone().unwrap_or_else(|| watched.batch.token.clone());
        let name = match &watched.stage {
            Stage::Sent(name) => name.clone(),
            _ => name,
        };
        let since = *watched.failing.get_or_insert_with(clock::now);
        match fault {
            Fault::Busy { retry_after, .. } => {
                watched.next = clock::now() + retry_after.unwrap_or(watched.wait);
            }
            Fault::Transient { .. } => {}
            fault => {
                if matches!(watched.stage, Stage::Unsent(_)) {
                    self.unsent(id).await?;
                }
                return Err(self.halted(&name, what, fault));
            }
        }
        if since.elapsed() < self.teacher.patience {
            return Ok(());
        }
        Err(Halt::Stop(StopReason::Stalled(format!(
            "teacher `{}`: batch `{name}` {what} for {}: {}",
            self.teacher.name,
            humantime::format_duration(self.teacher.patience),
            fault.message()
        ))))
    }

    fn halted(&self, name: &str, what: &str, fault: &Fault) -> Halt {
        let hint = match fault {
            Fault::BadRequest { .. } if what != "was not taken" => {
                format!("; if it is gone for good, `textmill store batches --forget {name}` gives it up")
            }
            _ => String::new(),
        };
        let (teacher, why) = (&self.teacher.name, fault.message());
        Halt::Stop(StopReason::Fatal(format!("teacher `{teacher}`: batch `{name}` {what}: {why}{hint}")))
    }
}
