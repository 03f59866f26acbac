//! The tables, their versions, and how a connection is set up. No query about replies, money or
//! runs lives here.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::StoreError;

/// "TMIL": marks a SQLite file as ours (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x544D_494C;

/// The store's history: entry `n` takes a store from format `n` to format `n + 1`. Only ever append.
pub(super) const MIGRATIONS: &[&str] =
    &[FORMAT_1, CHARGES, PROCESSES, super::batches::TABLES, super::batches::MODELS];

/// What is looked up and counted often is kept apart from the bulky bodies, so that statistics and
/// `plan` read about 100 bytes a reply and not its text. Money is in whole nano-dollars.
const FORMAT_1: &str = "
CREATE TABLE origins (
    id INTEGER PRIMARY KEY,
    epoch TEXT NOT NULL,
    pipeline TEXT,
    step TEXT NOT NULL,
    teacher TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    wire TEXT NOT NULL,
    model TEXT NOT NULL
) STRICT;

CREATE TABLE replies (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    origin INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    reply_bytes INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    tokens_in INTEGER,
    tokens_out INTEGER,
    usd_nano INTEGER,
    attempts INTEGER NOT NULL,
    latency_ms INTEGER NOT NULL,
    created_unix_ms INTEGER NOT NULL,
    status INTEGER NOT NULL
) STRICT;

CREATE TABLE bodies (
    id INTEGER PRIMARY KEY,
    request BLOB NOT NULL,
    reply BLOB NOT NULL
) STRICT;

CREATE TRIGGER body_goes_with_reply AFTER DELETE ON replies
BEGIN DELETE FROM bodies WHERE id = OLD.id; END;

CREATE TABLE scopes (
    scope TEXT PRIMARY KEY,
    usd_nano INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    calls INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE reservations (
    id INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    usd_nano INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    calls INTEGER NOT NULL
) STRICT;

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    pipeline TEXT NOT NULL,
    epoch TEXT NOT NULL,
    started_unix_ms INTEGER NOT NULL,
    ended_unix_ms INTEGER,
    status TEXT NOT NULL,
    pid INTEGER NOT NULL,
    summary TEXT,
    file_hash TEXT NOT NULL,
    file TEXT NOT NULL,
    options TEXT NOT NULL
) STRICT;

CREATE INDEX runs_by_pipeline ON runs (pipeline, started_unix_ms);
";

/// A call adds to the sums of its step and its day, too. What a run of format 1 left open has neither.
const CHARGES: &str = "
ALTER TABLE reservations ADD COLUMN step TEXT;
ALTER TABLE reservations ADD COLUMN day TEXT;
";

/// Several processes write at once: what each has open carries its number. Number 0 is of before, and dead.
const PROCESSES: &str = "
CREATE TABLE processes (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL) STRICT;
ALTER TABLE reservations ADD COLUMN process INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN process INTEGER NOT NULL DEFAULT 0;
";

/// How long a writer waits for another process' transaction, and how often it looks: a turn takes some
/// milliseconds, and one that takes this long hangs.
const TURN_WAIT: Duration = Duration::from_secs(60);
const TURN_LOOK: Duration = Duration::from_millis(2);

/// Pages of the write-ahead log before it is copied back into the store: 16 MiB. Larger than
/// SQLite's 1,000, since the index of random keys dirties the same pages again and again.
const WAL_PAGES: u32 = 4096;

/// The writer's page cache in KiB. It holds the upper part of the key index; pages that fall out of it are
/// still in the system's file cache. Small enough to be full after some 10,000 replies, so that memory does
/// not grow with the run after that.
const WRITER_CACHE_KIB: u32 = 8 * 1024;

/// Statements kept prepared per connection; there are about 30 in all.
const STATEMENTS_MAX: usize = 64;

/// Opens (or makes) the store's file for a writer; see [`is_newest`] for its format.
///
/// A commit is durable when it returns: WAL with `synchronous=FULL` syncs the log at each commit.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let in_words = |error| StoreError::from_sqlite(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let mut connection = open(path, flags, path)?;
    // Before the journal mode is touched: a file that is not ours stays as it was.
    version(&connection, path)?;
    let journal: String =
        connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).map_err(in_words)?;
    if journal != "wal" {
        let detail = "its file system cannot share memory between processes (a network folder?)".to_owned();
        return Err(StoreError::Io { path: path.to_owned(), detail });
    }
    let settings = format!(
        "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint={WAL_PAGES}; \
         PRAGMA cache_size=-{WRITER_CACHE_KIB}; PRAGMA journal_size_limit=67108864;"
    );
    connection.execute_batch(&settings).map_err(in_words)?;
    connection.busy_handler(Some(wait_for_turn)).map_err(in_words)?;
    Ok(connection)
}

/// Waits for another process' transaction; whether to look again.
fn wait_for_turn(looks: i32) -> bool {
    std::thread::sleep(TURN_LOOK);
    TURN_LOOK.saturating_mul(looks.unsigned_abs()) < TURN_WAIT
}

/// Whether a store has the newest format. Fails for one that is newer.
pub(super) fn is_newest(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let (found, known) = (version(connection, path)?, format(MIGRATIONS));
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    Ok(found == known)
}

/// Brings a store to the newest format. Nobody else may have it open to write.
pub(super) fn bring_up_to_date(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    migrate(connection, path, MIGRATIONS)
}

/// Opens an existing store for reading; `None` when it holds no tables yet.
///
/// Readers share memory with the writer through a file beside the store. Where none can be made (a folder
/// that is read-only), a store whose log is empty is read as a file that nobody changes.
pub(super) fn open_reader(path: &Path) -> Result<Option<Connection>, StoreError> {
    match open_to_read(path, path) {
        Err(StoreError::NotWritable { path, detail }) => {
            if log_bytes(&path) > 0 {
                return Err(StoreError::LogNotRead { path, detail });
            }
            let Some(alone) = unchanging(&path) else { return Err(StoreError::NotWritable { path, detail }) };
            open_to_read(&path, Path::new(&alone))
        }
        opened => opened,
    }
}

fn open_to_read(path: &Path, name: &Path) -> Result<Option<Connection>, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = open(name, flags, path)?;
    let found = version(&connection, path)?;
    let known = format(MIGRATIONS);
    if found == 0 {
        Ok(None)
    } else if found < known {
        Err(StoreError::Older { path: path.to_owned(), found, known })
    } else if found > known {
        Err(StoreError::Newer { path: path.to_owned(), found, known })
    } else {
        Ok(Some(connection))
    }
}

/// Bytes of the log beside a store: what was saved and is not in the store's own file yet.
fn log_bytes(path: &Path) -> u64 {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).map_or(0, |log| log.len())
}

/// The name under which SQLite takes a file for one that nobody changes.
fn unchanging(path: &Path) -> Option<String> {
    let name = path.to_str()?.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Some(format!("file:{name}?immutable=1"))
}

/// `name` is what SQLite calls the store's file at `path`.
fn open(name: &Path, flags: OpenFlags, path: &Path) -> Result<Connection, StoreError> {
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(name, flags)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // One plan per statement. Otherwise this build of SQLite (STAT4) plans anew whenever a value is
        // bound, which took ten times as long as reading a reply (measured).
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(connection)
    };
    open().map_err(|error| StoreError::from_sqlite(path, &error))
}

/// Takes a store through the migrations it has not seen, in one transaction.
fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), StoreError> {
    let found = version(connection, path)?;
    let known = format(migrations);
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    if found == known {
        return Ok(());
    }
    let seen = usize::try_from(found).unwrap_or(0);
    apply(connection, &migrations[seen..], known).map_err(|error| StoreError::from_sqlite(path, &error))
}

fn apply(connection: &mut Connection, migrations: &[&str], target: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in migrations {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", target)?;
    transaction.commit()
}

fn format(migrations: &[&str]) -> i64 {
    i64::try_from(migrations.len()).unwrap_or(i64::MAX)
}

/// The format of a store's file; 0 for an empty one.
fn version(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let read = || -> rusqlite::Result<(i64, i64, i64)> {
        // One statement, so that a store that is being made is seen either before or after.
        connection.query_row(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
             FROM pragma_application_id, pragma_user_version",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
    };
    match read().map_err(|error| StoreError::from_sqlite(path, &error))? {
        (APPLICATION_ID, version, _) if version >= 0 => Ok(version),
        (0, 0, 0) => Ok(0),
        _ => Err(StoreError::NotAStore { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1);";
    const SECOND: &str = "ALTER TABLE a ADD COLUMN y INTEGER; UPDATE a SET y = x + 1;";

    /// Migrates an in-memory store through each list in turn; what the last one says.
    fn check(lists: &[&[&str]], expected: Result<i64, &str>) {
        let path = Path::new("store.sqlite3");
        let mut connection = Connection::open_in_memory().unwrap();
        let mut last = Ok(());
        for list in lists {
            last = migrate(&mut connection, path, list);
        }
        match (last, expected) {
            (Ok(()), Ok(format)) => assert_eq!(version(&connection, path).unwrap(), format),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
            (last, _) => panic!("{last:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn migrations_run_once_and_in_order() {
        check(&[&[FIRST]], Ok(1));
        check(&[&[FIRST], &[FIRST]], Ok(1));
        check(&[&[FIRST], &[FIRST, SECOND]], Ok(2));
        check(&[&[FIRST, SECOND], &[FIRST]], Err("has format 2, and this textmill knows formats up to 1"));
        check(&[&["CREATE NONSENSE"]], Err("refused a statement"));
    }

    #[test]
    fn rows_survive_a_migration_and_a_broken_one_changes_nothing() {
        let path = Path::new("store.sqlite3");
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, path, &[FIRST]).unwrap();
        migrate(&mut connection, path, &[FIRST, SECOND, "CREATE NONSENSE"]).unwrap_err();
        assert_eq!(version(&connection, path).unwrap(), 1);
        connection.prepare("SELECT y FROM a").unwrap_err();
        migrate(&mut connection, path, &[FIRST, SECOND]).unwrap();
        let y: i64 = connection.query_row("SELECT y FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!(y, 2);
    }

    #[test]
    fn a_foreign_database_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite3");
        Connection::open(&path).unwrap().execute_batch(FIRST).unwrap();
        let error = open_writer(&path).unwrap_err();
        assert_eq!(error, StoreError::NotAStore { path: path.clone() });
        let journal: String =
            Connection::open(&path).unwrap().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(journal, "delete");
    }

    #[test]
    fn a_store_that_nothing_can_be_written_beside_is_read_if_its_log_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a#b store.sqlite3");
        bring_up_to_date(&mut open_writer(&path).unwrap(), &path).unwrap();
        // As in a folder that is read-only, to root as well: the shared memory cannot be made.
        let beside = |end: &str| folder.path().join(format!("a#b store.sqlite3{end}"));
        std::os::unix::fs::symlink(folder.path().join("no/such"), beside("-shm")).unwrap();
        let plain = open_to_read(&path, &path).map(|_| ());
        assert!(matches!(plain, Err(StoreError::NotWritable { .. })), "{plain:?}");
        let connection = open_reader(&path).unwrap().unwrap();
        assert_eq!(version(&connection, &path).unwrap(), format(MIGRATIONS));
        std::fs::write(beside("-wal"), "saved, and not in the store yet").unwrap();
        let error = open_reader(&path).unwrap_err();
        assert!(matches!(error, StoreError::LogNotRead { .. }), "{error}");
    }

    #[test]
    fn every_commit_is_synced_to_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open_writer(&folder.path().join("store.sqlite3")).unwrap();
        let setting = |name: &str| -> String {
            connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                .map_or_else(|error| error.to_string(), |value| format!("{value:?}"))
        };
        // 2 is FULL.
        assert_eq!(
            (setting("journal_mode").as_str(), setting("synchronous").as_str()),
            ("Text(\"wal\")", "Integer(2)")
        );
    }
}
