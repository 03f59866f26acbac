//! Where rows wait for answers that take hours: who wakes them, and when there is no use in waiting for more.
//!
//! Calls that go with a batch wake rows here; the engine, which holds the rows, takes them up again. Neither
//! knows the other.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, watch};

use crate::row::RowId;

#[derive(Debug, Default)]
pub struct Parking {
    woken: Mutex<Vec<RowId>>,
    bell: Notify,
    still: watch::Sender<bool>,
}

impl Parking {
    /// Wakes rows, all at once: what they ask next may go together again.
    pub fn wake(&self, rows: Vec<RowId>) {
        if rows.is_empty() {
            return;
        }
        // Nothing stands still that was just woken, whether or not the engine has seen it.
        self.still.send_replace(false);
        self.lock().extend(rows);
        self.bell.notify_one();
    }

    /// The rows woken since the last time.
    pub fn woken(&self) -> Vec<RowId> {
        std::mem::take(&mut *self.lock())
    }

    /// Resolves when rows were woken.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Tells whether no row moves and none can come: all that is left to do is what rows are parked for.
    pub fn stands_still(&self, still: bool) {
        let woken = self.lock();
        let still = still && woken.is_empty();
        self.still.send_if_modified(|known| std::mem::replace(known, still) != still);
    }

    /// Follows whether everything stands still.
    pub fn stillness(&self) -> watch::Receiver<bool> {
        self.still.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<RowId>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
