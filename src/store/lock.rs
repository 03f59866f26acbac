//! Lock files: who may do what to a workspace at once. Nothing here touches the database.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use crate::clock;

/// Longest text read back from a lock file; ours are below 60 bytes.
const TEXT_BYTES_MAX: u64 = 200;

/// Held for as long as it lives; the system lets go of it when the process ends, however it ends.
///
/// The text in the file of one that is held alone is for people:
/// `process 4711, started 2026-11-23T21:18:05Z`.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shared,
    Alone,
    /// Alone, and the file goes with it.
    Passing,
}

impl Lock {
    /// Takes the lock file at `path` beside others that do so, or says who holds it alone.
    pub fn shared(path: &Path) -> Result<Lock, StoreError> {
        let (file, path) = (open(path)?, path.to_owned());
        match file.try_lock_shared() {
            Ok(()) => Ok(Lock { file, path, kind: Kind::Shared }),
            Err(error) => Err(refused(file, &path, error)),
        }
    }

    /// Takes the lock file at `path` when nobody else holds it, or says who does.
    pub fn alone(path: &Path) -> Result<Lock, StoreError> {
        let (file, path) = (open(path)?, path.to_owned());
        match file.try_lock() {
            Ok(()) => Lock { file, path, kind: Kind::Alone }.signed(),
            Err(error) => Err(refused(file, &path, error)),
        }
    }

    /// Takes a lock file of its own, which is removed when it is let go of.
    pub fn passing(path: &Path) -> Result<Lock, StoreError> {
        loop {
            let mut lock = Lock::alone(path)?;
            lock.kind = Kind::Passing;
            // Its last holder may have removed the file between our opening and our locking it.
            if lock.is_at(path) {
                return Ok(lock);
            }
        }
    }

    fn signed(mut self) -> Result<Lock, StoreError> {
        let started = clock::rfc3339(clock::unix_ms());
        let text = format!("process {}, started {started}\n", std::process::id());
        let written = self.file.set_len(0).and_then(|()| self.file.write_all(text.as_bytes()));
        written.map_err(|error| StoreError::from_io(&self.path, &error))?;
        Ok(self)
    }

    fn is_at(&self, path: &Path) -> bool {
        let place = |about: std::fs::Metadata| (about.dev(), about.ino());
        let ours = self.file.metadata().map(place).ok();
        ours.is_some() && ours == std::fs::metadata(path).map(place).ok()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A failure is harmless: the lock itself ends with the file.
        match self.kind {
            Kind::Shared => {}
            // An empty file misleads nobody.
            Kind::Alone => {
                let _ = self.file.rewind().and_then(|()| self.file.set_len(0));
            }
            Kind::Passing => {
                // One that was replaced is another's.
                if self.is_at(&self.path) {
                    let _ = std::fs::remove_file(&self.path);
                }
            }
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    file.map_err(|error| StoreError::from_io(path, &error))
}

fn refused(file: File, path: &Path, error: TryLockError) -> StoreError {
    match error {
        TryLockError::WouldBlock => {
            let holder = text(file).unwrap_or_else(|| "another process".to_owned());
            StoreError::Locked { path: path.to_owned(), holder }
        }
        TryLockError::Error(error) => StoreError::from_io(path, &error),
    }
}

/// Who holds a lock file alone, if somebody does.
pub(super) fn holder(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(text(file).unwrap_or_else(|| "another process".to_owned())),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn text(file: File) -> Option<String> {
    let mut text = String::new();
    file.take(TEXT_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.starts_with("process ").then(|| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn the_second_taker_learns_who_was_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::alone(&path).unwrap();
        let expected = format!("process {}, started 20", std::process::id());
        for taken in [Lock::alone(&path), Lock::shared(&path), Lock::passing(&path)] {
            let error = taken.unwrap_err().to_string();
            assert!(error.contains(&expected), "{error}");
        }
        assert!(holder(&path).unwrap().starts_with(&expected));
        drop(first);
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), holder(&path)), ("", None));
        let shared = [Lock::shared(&path).unwrap(), Lock::shared(&path).unwrap()];
        assert!(matches!(Lock::alone(&path), Err(StoreError::Locked { .. })));
        drop(shared);
        Lock::alone(&path).unwrap();
    }

    #[test]
    fn a_passing_file_goes_with_its_lock_and_is_never_held_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own");
        let held = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let Ok(lock) = Lock::passing(&path) else { continue };
                        assert_eq!(held.fetch_add(1, Ordering::SeqCst), 0);
                        held.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        drop(Lock::passing(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_missing_folder_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let error = Lock::alone(&folder.path().join("no/lock")).unwrap_err();
        assert!(matches!(error, StoreError::NotWritable { .. }), "{error}");
    }
}
