//! Live counts of a run's batches, for the progress display and the accounts; and what keeps those of calls right
//! though a row that is woken reads again what it has read.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::{BatchEnd, Key};

/// Batches so far: what this run sent, and what came back.
#[derive(Default)]
pub struct Batches(Mutex<BatchCounts>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchCounts {
    pub sent: u64,
    pub items_sent: u64,
    pub ended: u64,
    pub brought: BatchEnd,
    /// Batches and items under way, by teacher.
    under_way: BTreeMap<Arc<str>, (u64, u64)>,
    /// Items done of those under way, by batch.
    done: BTreeMap<String, u64>,
}

impl BatchCounts {
    /// Batches under way, their items, and how many of these are said to be done.
    pub fn under_way(&self) -> (u64, u64, u64) {
        let (batches, items) =
            self.under_way.values().fold((0, 0), |sum, (batches, items)| (sum.0 + batches, sum.1 + items));
        (batches, items, self.done.values().sum())
    }
}

impl Batches {
    pub fn sent(&self, items: u64) {
        let mut counts = self.lock();
        counts.sent += 1;
        counts.items_sent += items;
    }

    pub fn under_way(&self, teacher: &Arc<str>, batches: u64, items: u64) {
        self.lock().under_way.insert(Arc::clone(teacher), (batches, items));
    }

    pub fn working(&self, batch: &str, done: u64) {
        self.lock().done.insert(batch.to_owned(), done);
    }

    pub fn ended(&self, batch: &str) {
        self.lock().done.remove(batch);
    }

    pub fn brought(&self, end: BatchEnd) {
        let mut counts = self.lock();
        counts.ended += 1;
        counts.brought.answered += end.answered;
        counts.brought.declined += end.declined;
        counts.brought.again += end.again;
    }

    pub fn counts(&self) -> BatchCounts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BatchCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls that are counted and will be read from the store once more: those answered in a batch, and those that a
/// row had made before it was parked, which asks them again from the start.
#[derive(Default)]
pub struct Counted {
    keys: Mutex<HashSet<Key>>,
    /// Runs without batches do not look for the keys.
    any: AtomicBool,
}

impl Counted {
    pub fn add(&self, keys: impl IntoIterator<Item = Key>) {
        self.any.store(true, Ordering::Relaxed);
        self.lock().extend(keys);
    }

    /// Whether a call was counted that is read now.
    pub fn takes(&self, key: Key) -> bool {
        self.any.load(Ordering::Relaxed) && self.lock().remove(&key)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
