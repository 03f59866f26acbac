//! Single flight: of several rows that ask the same, one sends and the others wait for its reply.
//!
//! Knows keys and rows; what is sent and what comes is not its business.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::row::RowId;
use crate::store::Key;

/// The calls of a run that several rows may wait for.
#[derive(Default)]
pub struct Flights {
    under_way: Mutex<HashMap<Key, Flying>>,
}

struct Flying {
    landed: watch::Receiver<()>,
    lowest: LowestRow,
}

/// The lowest row that waits for a call: the call has its rank, whoever asked first.
pub type LowestRow = Arc<watch::Sender<RowId>>;

/// Whose turn it is to send.
pub enum Flight<'a> {
    Ours(Landing<'a>),
    /// Another row sends; the receiver hears when that has ended.
    Anothers(watch::Receiver<()>),
}

/// Lets the followers of a flight go on, however it ends.
pub struct Landing<'a> {
    flights: &'a Flights,
    key: Key,
    lowest: LowestRow,
    _sender: watch::Sender<()>,
}

impl Landing<'_> {
    pub fn lowest(&self) -> LowestRow {
        Arc::clone(&self.lowest)
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
    }
}

impl Flights {
    /// Joins the flight of a call, or begins it.
    pub fn take_off(&self, key: Key, row: &RowId) -> Flight<'_> {
        let mut under_way = self.lock();
        if let Some(Flying { landed, lowest }) = under_way.get(&key) {
            lowest.send_if_modified(|lowest| {
                let lower = row < lowest;
                if lower {
                    *lowest = row.clone();
                }
                lower
            });
            return Flight::Anothers(landed.clone());
        }
        let (sender, landed) = watch::channel(());
        let lowest = Arc::new(watch::Sender::new(row.clone()));
        under_way.insert(key, Flying { landed, lowest: Arc::clone(&lowest) });
        Flight::Ours(Landing { flights: self, key, lowest, _sender: sender })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Flying>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
