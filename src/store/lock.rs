//! The lock file: one process at a time may write a store. Nothing here touches the database.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::error::StoreError;
use crate::clock;

/// Longest text read back from a lock file; ours are below 60 bytes.
const TEXT_BYTES_MAX: u64 = 200;

/// Held for as long as it lives; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock file at `path`, or says who holds it. The text in the file is for people:
    /// `process 4711, started 2026-11-23T21:18:05Z`.
    pub fn take(path: &Path) -> Result<Lock, StoreError> {
        let in_words = |error| StoreError::from_io(path, &error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(in_words)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: path.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(in_words(error)),
        }
        let text = format!("process {}, started {}\n", std::process::id(), clock::rfc3339(clock::unix_ms()));
        file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(in_words)?;
        Ok(Lock { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // An empty file misleads nobody. A failure is harmless: the lock itself ends with the file.
        let _ = self.file.rewind().and_then(|()| self.file.set_len(0));
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(TEXT_BYTES_MAX).read_to_string(&mut text);
    match read {
        Ok(_) if text.starts_with("process ") => text.trim_end().to_owned(),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_learns_who_was_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::take(&path).unwrap();
        let error = Lock::take(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}, started 20", std::process::id())), "{error}");
        drop(first);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        Lock::take(&path).unwrap();
    }

    #[test]
    fn a_missing_folder_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let error = Lock::take(&folder.path().join("no/lock")).unwrap_err();
        assert!(matches!(error, StoreError::NotWritable { .. }), "{error}");
    }
}
