//! What can go wrong with a store, worded so that the reader knows what happened, where, and what
//! to do. No other file words these; nothing here touches a database.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the store did not do what was asked. After any of these nothing is half-written: a write
/// happened as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the store `{path}` is in use by {holder}; wait until it ends or stop it, then try again \
         (commands that only read work meanwhile)"
    )]
    Locked { path: PathBuf, holder: String },
    #[error(
        "epoch `{epoch}` of `{pipeline}` is being run by {holder}; wait until it ends or stop it, or draw another \
         one with `--epoch`"
    )]
    EpochRuns { pipeline: String, epoch: String, holder: String },
    #[error(
        "the store `{path}` has format {found}, and this textmill knows formats up to {known}; use the \
         newer textmill that wrote it, or move the file aside to start with an empty store"
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error(
        "the store `{path}` still has format {found}, and this textmill reads format {known}; start any \
         `textmill run` in this workspace once, it brings the store up to date"
    )]
    Older { path: PathBuf, found: i64, known: i64 },
    #[error("`{path}` is a database that textmill did not make; move it aside and try again")]
    NotAStore { path: PathBuf },
    #[error(
        "the store `{path}` is damaged: {detail}; copy its folder first, then mend the copy with \
         `sqlite3 store.sqlite3 .recover`, or move it aside to start empty (replies are then paid for again)"
    )]
    Corrupt { path: PathBuf, detail: String },
    #[error(
        "no space left for the store `{path}` ({detail}); nothing was half-written and everything saved \
         before is safe: free some space and run again"
    )]
    Full { path: PathBuf, detail: String },
    #[error("cannot write to `{path}`: {detail}; make the folder writable or use another workspace")]
    NotWritable { path: PathBuf, detail: String },
    #[error(
        "the store `{path}` cannot be read where nothing can be written beside it ({detail}), since what was \
         saved last is still in its log; copy its folder to where you can write, or make it writable"
    )]
    LogNotRead { path: PathBuf, detail: String },
    #[error("the store `{path}` could not be read or written: {detail}; check the disk it is on")]
    Io { path: PathBuf, detail: String },
    #[error("a {what} of {bytes} bytes is too big for the store, which takes up to {bytes_max}")]
    TooBig { what: &'static str, bytes: usize, bytes_max: usize },
    #[error("the store `{path}` was opened for reading only; this is a bug in textmill, please report it")]
    OpenedForReading { path: PathBuf },
    #[error(
        "the thread that writes the store `{path}` has ended early; nothing unsaved can be saved, run again"
    )]
    WriterGone { path: PathBuf },
    #[error("no reservation {id} is open; this is a bug in textmill, please report it")]
    UnknownReservation { id: i64 },
    #[error("there is already a run `{id}` in the store; a run's id must be new")]
    RunExists { id: String },
    #[error("there is no running run `{id}` in the store; list the runs to see its state")]
    NotRunning { id: String },
    #[error("the store `{path}` refused a statement: {detail}; this is a bug in textmill, please report it")]
    Refused { path: PathBuf, detail: String },
}

impl StoreError {
    /// Puts a database error into our words. `path` is the store's file.
    pub(super) fn from_sqlite(path: &Path, error: &rusqlite::Error) -> StoreError {
        let path = path.to_owned();
        let detail = error.to_string();
        let Some(code) = error.sqlite_error_code() else {
            return match error {
                // A column of a type or with a value that our statements never write.
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..) => StoreError::Corrupt { path, detail },
                _ => StoreError::Refused { path, detail },
            };
        };
        // SQLite has no code of its own for a header that it does not know.
        let unknown_format = detail.contains("unsupported file format")
            || error.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_FORMAT);
        match code {
            _ if unknown_format => StoreError::Corrupt { path, detail },
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt { path, detail },
            ErrorCode::DiskFull => StoreError::Full { path, detail },
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
                StoreError::NotWritable { path, detail }
            }
            ErrorCode::SystemIoFailure | ErrorCode::FileLockingProtocolFailed | ErrorCode::OutOfMemory => {
                StoreError::Io { path, detail }
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                StoreError::Locked { path, holder: "another program".to_owned() }
            }
            _ => StoreError::Refused { path, detail },
        }
    }

    /// Puts a file system error into our words. `path` is what could not be made or written.
    pub(super) fn from_io(path: &Path, error: &io::Error) -> StoreError {
        let path = path.to_owned();
        let detail = error.to_string();
        match error.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotFound
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory => StoreError::NotWritable { path, detail },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path, detail },
            _ => StoreError::Io { path, detail },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: std::ffi::c_int, expected: &str) {
        let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        let message = StoreError::from_sqlite(Path::new("w/store.sqlite3"), &error).to_string();
        assert!(message.contains(expected) && message.contains("`w/store.sqlite3`"), "{message}");
    }

    #[test]
    fn database_errors_become_sentences() {
        check(rusqlite::ffi::SQLITE_FULL, "no space left");
        check(rusqlite::ffi::SQLITE_CORRUPT, "is damaged");
        check(rusqlite::ffi::SQLITE_NOTADB, "is damaged");
        check(rusqlite::ffi::SQLITE_FORMAT, "is damaged");
        check(rusqlite::ffi::SQLITE_READONLY, "make the folder writable");
        check(rusqlite::ffi::SQLITE_CANTOPEN, "make the folder writable");
        check(rusqlite::ffi::SQLITE_IOERR_FSYNC, "check the disk");
        check(rusqlite::ffi::SQLITE_BUSY, "in use by another program");
        check(rusqlite::ffi::SQLITE_MISUSE, "please report it");
    }

    #[test]
    fn file_errors_become_sentences() {
        let word = |kind| StoreError::from_io(Path::new("w"), &io::Error::from(kind)).to_string();
        assert!(word(io::ErrorKind::ReadOnlyFilesystem).contains("cannot write to `w`"));
        assert!(word(io::ErrorKind::StorageFull).contains("no space left"));
        assert!(word(io::ErrorKind::TimedOut).contains("check the disk"));
    }
}
