//! Calls that go in batches: what waits for one, who waits for what, and what is too urgent for it.
//!
//! A call that the store cannot answer is put into the store as an item, and its row is parked: nobody holds it.
//! [`clerk`] closes batches, sends them, asks about them, and puts what they bring into the store, under the same
//! keys as any call's; then the rows are woken, ask again, and find it there. About a parked row only its id and
//! its call's key stay in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Call, CallCounts, Caller, Desk, NoAnswer, ended_by};
use crate::clock;
use crate::row::RowId;
use crate::store::{Amount, Key, NewItem, Put};
use crate::teacher::Fault;
use crate::teacher::batch::BatchSettings;
use crate::teacher::wire::Teacher;

mod clerk;
mod collect;
mod counts;

pub use clerk::{Clerks, batches_of, start};
pub(super) use counts::Counted;
pub use counts::{BatchCounts, Batches};

/// What the calls of a run to one teacher have in common that go in batches.
pub struct Tray {
    settings: BatchSettings,
    /// The run that asks, and since when.
    run: Arc<str>,
    started: Instant,
    started_unix_ms: i64,
    item_bytes_round: u64,
    state: Mutex<State>,
    /// A batch may be due.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Items that are in no batch yet, the lowest rows first.
    waiting: BTreeMap<(RowId, Key), Waits>,
    waiting_bytes: u64,
    /// The rows that wait for a call, from when it is put down until its end is in the store.
    rows: HashMap<Key, Vec<RowId>>,
    /// Calls that brought nothing in as many batches as a call is sent, and how the last one ended.
    given_up: HashMap<Key, (Fault, u32)>,
    /// Awaited calls that another run has put down.
    elsewhere: HashSet<Key>,
    /// Calls that are to be made one by one.
    live: HashSet<Key>,
    /// The counts of the steps that asked.
    counts: HashMap<Arc<str>, Arc<CallCounts>>,
}

/// An item that waits for a batch.
#[derive(Clone, Debug)]
struct Waits {
    bytes: u64,
    worst: Amount,
    step: Arc<str>,
    since: Instant,
}

/// How a call goes on that the store does not answer.
pub(super) enum Way {
    Live,
    /// Its reply came while nobody looked.
    Answered,
}

impl Tray {
    /// The trays of those of a run's teachers that are asked in batches, by their names.
    pub fn of<'a>(
        teachers: impl IntoIterator<Item = &'a Arc<Teacher>>,
        run: &str,
        started_unix_ms: i64,
    ) -> HashMap<Arc<str>, Arc<Tray>> {
        let with_batches =
            teachers.into_iter().filter_map(|teacher| Some((teacher, teacher.batches.as_ref()?)));
        let tray = |(teacher, client): (&Arc<Teacher>, &crate::teacher::batch::BatchClient)| {
            let tray = Tray {
                settings: client.settings.clone(),
                run: run.into(),
                started: clock::now(),
                started_unix_ms,
                item_bytes_round: client.item_bytes(0),
                state: Mutex::default(),
                changed: Notify::new(),
            };
            (Arc::clone(&teacher.name), Arc::new(tray))
        };
        with_batches.map(tray).collect()
    }

    /// Most calls of one batch.
    pub fn items_max(&self) -> usize {
        self.settings.items_max
    }

    /// Whether a call is too urgent for a batch: one that follows an answer of the same step for the same row, one
    /// that was given back to be made live, and any late one.
    fn is_urgent(&self, step: &str, call: &Call<'_>) -> bool {
        let Some(urgent) = self.settings.urgent else { return false };
        let follows = || call.row.calls.iter().any(|mark| *mark.step == *step);
        self.lock().live.contains(&call.key) || self.is_late(urgent.after) || follows()
    }

    fn is_late(&self, after: Option<Duration>) -> bool {
        after.is_some_and(|after| self.started.elapsed() >= after)
    }

    /// Notes that a row waits for a call.
    fn enlist(&self, key: Key, row: &RowId) {
        self.lock().rows.entry(key).or_default().push(row.clone());
    }

    /// The rows that wait for calls; none of them does so any more.
    fn discharge(&self, keys: impl IntoIterator<Item = Key>) -> Vec<RowId> {
        let mut state = self.lock();
        keys.into_iter().filter_map(|key| state.rows.remove(&key)).flatten().collect()
    }

    /// Notes that calls have come to an end in the store; those of them that rows waited for, and the rows.
    fn arrive(&self, keys: Vec<Key>) -> (Vec<Key>, Vec<RowId>) {
        let mut state = self.lock();
        let awaited: Vec<Key> = keys.into_iter().filter(|key| state.rows.contains_key(key)).collect();
        let rows = awaited.iter().filter_map(|key| state.rows.remove(key)).flatten().collect();
        (awaited, rows)
    }

    /// Notes that an item waits for a batch; nothing for one that no row waits for.
    fn wait(&self, key: Key, body_bytes: usize, worst: Amount, step: &str) {
        let mut state = self.lock();
        let Some(row) = state.rows.get(&key).and_then(|rows| rows.iter().min()).cloned() else { return };
        let step = state.counts.get_key_value(step).map_or_else(|| step.into(), |(step, _)| Arc::clone(step));
        let bytes = body_bytes as u64 + self.item_bytes_round;
        let waits = Waits { bytes, worst, step, since: clock::now() };
        state.waiting_bytes += bytes;
        state.waiting.insert((row, key), waits);
        let full = self.is_full(&state);
        if full || state.waiting.len() == 1 {
            self.changed.notify_one();
        }
    }

    /// Takes items out of those that wait for a batch.
    fn take<'a>(&self, items: impl IntoIterator<Item = &'a (RowId, Key)>) {
        let mut state = self.lock();
        for item in items {
            if let Some(waits) = state.waiting.remove(item) {
                state.waiting_bytes -= waits.bytes;
            }
        }
    }

    fn is_full(&self, state: &State) -> bool {
        state.waiting.len() >= self.settings.items_max || state.waiting_bytes >= self.settings.bytes_max
    }

    /// Whether a row of this run waits for the call.
    fn wants(&self, key: &Key) -> bool {
        self.lock().rows.contains_key(key)
    }

    fn counts(&self, step: &str) -> Option<Arc<CallCounts>> {
        self.lock().counts.get(step).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    /// Has a call go with a batch, unless it is urgent. A row that is parked is woken when the call has come to
    /// an end.
    pub(super) async fn by_batch(&self, tray: &Tray, call: &Call<'_>) -> Result<Way, NoAnswer> {
        let Desk { store, control, .. } = &*self.desk;
        let given_up = tray.lock().given_up.get(&call.key).cloned();
        if let Some((fault, attempts)) = given_up {
            return Err(ended_by(&fault, attempts));
        }
        if tray.is_urgent(&self.step, call) {
            let under_way = store.batch_item(call.key).map_err(|error| self.stopped_by(&error))?;
            if under_way.is_none() {
                return Ok(Way::Live);
            }
        }
        if !control.wants(&call.row.id) {
            return Err(NoAnswer::Stopped);
        }
        let batched = self.teacher.price.map_or(1.0, |price| price.batch);
        let worst = Amount { usd_nano: (call.worst.usd_nano as f64 * batched).ceil() as u64, ..call.worst };
        tray.lock().counts.entry(Arc::clone(&self.step)).or_insert_with(|| Arc::clone(&self.counts));
        // Before the item is there: its end must find the row.
        tray.enlist(call.key, &call.row.id);
        let item = NewItem {
            key: call.key,
            run: &tray.run,
            pipeline: &self.desk.pipeline,
            epoch: &self.desk.epoch,
            step: &self.step,
            worst,
            replaces: self.if_present() == crate::store::IfPresent::Replace,
            request: &call.body,
            answered_since_unix_ms: tray.started_unix_ms,
        };
        match store.put_item(&item).await.map_err(|error| self.stopped_by(&error))? {
            Put::Waits => tray.wait(call.key, call.body.len(), worst, &self.step),
            Put::UnderWay { ours: true } => {}
            Put::UnderWay { ours: false } => {
                tray.lock().elsewhere.insert(call.key);
            }
            Put::Answered => {
                let rows = tray.discharge([call.key]);
                control.parking().wake(rows.into_iter().filter(|row| *row != call.row.id).collect());
                return Ok(Way::Answered);
            }
        }
        // The row makes the calls anew that it has made so far.
        let made = call.row.calls.iter().filter(|mark| *mark.step == *self.step);
        self.desk.counted.add(made.filter_map(|mark| mark.key.parse().ok()));
        Err(NoAnswer::Parked)
    }
}
