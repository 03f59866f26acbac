//! A few read connections, kept open between reads. Readers never wait for the writer and always
//! see everything committed before they began.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::error::StoreError;
use super::schema;

/// Connections kept for the next read; more are opened when more threads read at once.
const IDLE_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub fn new(path: &Path) -> Readers {
        Readers { path: path.to_owned(), idle: Mutex::new(Vec::new()) }
    }

    /// Runs `work` on a read connection. A store that does not exist yet reads as empty:
    /// `T::default()`, and nothing is created.
    pub fn with<T: Default>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let pooled = self.idle().pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => match self.open()? {
                Some(connection) => connection,
                None => return Ok(T::default()),
            },
        };
        // After an error the connection is dropped: it may hold a broken view.
        let result = work(&connection).map_err(|error| StoreError::from_sqlite(&self.path, &error))?;
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        Ok(result)
    }

    /// Closes what is idle, so that the writer is the last to close and can clear the log away.
    pub fn close(&self) {
        self.idle().clear();
    }

    fn open(&self) -> Result<Option<Connection>, StoreError> {
        match self.path.try_exists() {
            Ok(true) => schema::open_reader(&self.path),
            Ok(false) => Ok(None),
            Err(error) => Err(StoreError::from_io(&self.path, &error)),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        // A list of connections cannot be left half-changed, so a poisoned lock is as good.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
