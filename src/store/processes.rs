//! The processes that write a store at once, and the runs among them.
//!
//! Each has a number in the database and a lock file of its own in `live/`, which the system lets go of when
//! it ends, however it ends. What a process has open carries its number: who opens the store next, or lives
//! on, puts right what the dead ones left and touches nothing of the living.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_128;

use super::error::StoreError;
use super::lock::{self, Lock};
use super::{Charge, LIVE, Recovered, Store, ledger, runs};
use crate::clock;

/// What the files of claims are called, before the name of their process.
const CLAIMS: &str = "claims-";

/// The lock of whoever reads and writes claims.
const TURN: &str = "turn";
const TURN_WAIT: Duration = Duration::from_millis(100);
const TURN_LOOK: Duration = Duration::from_millis(2);

fn turn(path: &Path) -> Result<Option<Lock>, StoreError> {
    let began = clock::now();
    loop {
        match Lock::alone(path) {
            Ok(lock) => return Ok(Some(lock)),
            Err(StoreError::Locked { .. }) if began.elapsed() < TURN_WAIT => std::thread::sleep(TURN_LOOK),
            Err(StoreError::Locked { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// A process of ours, for as long as it lives.
#[derive(Debug)]
pub(super) struct Process {
    /// Its number in the database, which no other ever had.
    pub number: i64,
    /// The name of its lock file.
    pub name: String,
    live: PathBuf,
    _lock: Lock,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Those of one that cannot be removed are not looked at: its lock is gone.
        let _ = std::fs::remove_file(self.live.join(format!("{CLAIMS}{}", self.name)));
    }
}

impl Process {
    /// Enters this process among those that live. `live` is the folder of their lock files.
    pub fn enter(connection: &Connection, live: &Path, file: &Path) -> Result<Process, StoreError> {
        let (name, lock) = loop {
            // Processes of two containers may have one id, and start in one instant: the name is taken once.
            let name = format!("process-{}-{}", std::process::id(), clock::since_epoch().as_nanos());
            match Lock::passing(&live.join(&name)) {
                Ok(lock) => break (name, lock),
                Err(StoreError::Locked { .. }) => {}
                Err(error) => return Err(error),
            }
        };
        // Only now, when its lock is held: nobody takes it for dead.
        connection
            .execute("INSERT INTO processes (name) VALUES (?1)", params![name])
            .map_err(|error| StoreError::from_sqlite(file, &error))?;
        Ok(Process { number: connection.last_insert_rowid(), name, live: live.to_owned(), _lock: lock })
    }
}

/// The numbers and names of the processes in the database of which nobody holds the lock.
fn dead(connection: &Connection, live: &Path) -> rusqlite::Result<Vec<(i64, String)>> {
    let mut statement = connection.prepare_cached("SELECT id, name FROM processes")?;
    let entered = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut entered: Vec<(i64, String)> = entered.collect::<rusqlite::Result<_>>()?;
    entered.retain(|(_, name)| lock::holder(&live.join(name)).is_none());
    Ok(entered)
}

/// Puts right what dead processes left: calls that were under way count as spent at their worst case, runs
/// have crashed.
pub(super) fn recover(connection: &mut Connection, live: &Path) -> rusqlite::Result<Recovered> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let recovered = recover_in(&transaction, live)?;
    transaction.commit()?;
    Ok(recovered)
}

fn recover_in(connection: &Connection, live: &Path) -> rusqlite::Result<Recovered> {
    for (number, name) in dead(connection, live)? {
        connection.prepare_cached("DELETE FROM processes WHERE id = ?1")?.execute([number])?;
        // A file that stays is harmless: its name is not used again.
        let _ = std::fs::remove_file(live.join(format!("{CLAIMS}{name}")));
        let _ = std::fs::remove_file(live.join(name));
    }
    let (open_reservations_found, worst_case) = ledger::fold_open_reservations(connection)?;
    let crashed_runs = runs::mark_crashed(connection)?;
    Ok(Recovered { open_reservations_found, worst_case, crashed_runs })
}

/// Who holds the store while somebody wants it alone: every process that lives.
pub(super) fn living(live: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(live).into_iter().flatten().flatten();
    let processes = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("process-"));
    let mut living: Vec<String> = processes.filter_map(|entry| lock::holder(&entry.path())).collect();
    living.sort();
    living
}

/// The right to run a pipeline's epoch; no other process has it meanwhile.
#[derive(Debug)]
pub struct EpochLock {
    _lock: Lock,
}

impl Store {
    /// Takes the right to run a pipeline's epoch: two runs of one would take each other's rows for new and
    /// pay them twice. Fails with [`StoreError::EpochRuns`] while another process has it.
    pub fn lock_epoch(&self, pipeline: &str, epoch: &str) -> Result<EpochLock, StoreError> {
        let name = format!("epoch-{:032x}", xxh3_128(Charge::epoch(pipeline, epoch).as_bytes()));
        match Lock::passing(&self.live().join(name)) {
            Ok(lock) => Ok(EpochLock { _lock: lock }),
            Err(StoreError::Locked { holder, .. }) => {
                let (pipeline, epoch) = (pipeline.to_owned(), epoch.to_owned());
                Err(StoreError::EpochRuns { pipeline, epoch, holder })
            }
            Err(error) => Err(error),
        }
    }

    /// Puts right what processes left that died since this one opened the store. Cheap when none did.
    pub async fn bury_the_dead(&self) -> Result<(), StoreError> {
        let live = self.live();
        if self.read(|connection| dead(connection, &live))?.is_empty() {
            return Ok(());
        }
        self.write(move |desk| recover_in(&desk.connection, &live).map(drop)).await
    }

    /// Reads what the other living processes claim and writes what this one does, in a step that none of
    /// them takes meanwhile. `say` gets their claims; whether it was asked: not when others were at it for long.
    pub fn exchange_claims<T: Serialize + DeserializeOwned>(
        &self,
        say: impl FnOnce(Vec<T>) -> T,
    ) -> Result<bool, StoreError> {
        let Some(name) = &self.inner.name else { return Ok(false) };
        let live = self.live();
        let in_words = |error| StoreError::from_io(&live, &error);
        let Some(_turn) = turn(&live.join(TURN))? else { return Ok(false) };
        let others = std::fs::read_dir(&live).map_err(in_words)?.flatten().filter_map(|entry| {
            let other = entry.file_name().to_str()?.strip_prefix(CLAIMS)?.to_owned();
            let lives = other != *name && lock::holder(&live.join(other)).is_some();
            lives.then(|| serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()).flatten()
        });
        let ours = serde_json::to_vec(&say(others.collect())).unwrap_or_default();
        // Nobody looks meanwhile; and what a dead process has half written is not looked at.
        std::fs::write(live.join(format!("{CLAIMS}{name}")), ours).map_err(in_words)?;
        Ok(true)
    }

    /// The folder of what only lives as long as a process.
    pub(super) fn live(&self) -> PathBuf {
        self.file().with_file_name(LIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, Fixture};
    use super::super::{Access, Store};

    #[test]
    fn claims_are_seen_by_all_that_live() {
        let Fixture { folder, store } = fixture::open();
        let open = || Store::open(folder.path(), Access::Write).unwrap();
        let [second, third] = [open(), open()];
        let exchange = |store: &Store, ours: u32| {
            let mut seen = Vec::new();
            let say = |mut others: Vec<u32>| {
                others.sort_unstable();
                seen = others;
                ours
            };
            assert!(store.exchange_claims(say).unwrap());
            seen
        };
        assert_eq!(exchange(&store, 1), Vec::<u32>::new());
        assert_eq!(exchange(&second, 2), [1]);
        assert_eq!(exchange(&third, 3), [1, 2]);
        assert_eq!(exchange(&second, 4), [1, 3]);
        assert_eq!(exchange(&store, 1), [3, 4]);
        drop(second);
        assert_eq!(exchange(&store, 1), [3]);
        let reader = Store::open(folder.path(), Access::Read).unwrap();
        assert!(!reader.exchange_claims(|_: Vec<u32>| 5).unwrap());
    }
}
