//! Saved indexes: which rows of published data have which keys. Each is a database of its own below
//! `.textmill/indexes/`, made from other files and made anew when it is lost.
//!
//! Knows keys and contents as numbers and bytes, not what they mean; decides about no row. What belongs to one
//! part is added in one transaction, so a part is there as a whole or not at all. Lookups see what was there when
//! they were opened, whatever is added meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::Store;
use super::error::StoreError;

/// The folder of saved indexes, beside the store.
const FOLDER: &str = "indexes";

/// Rows have numbers: those of a part follow each other from `first` on, so that a number tells the part.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS parts (
    first INTEGER PRIMARY KEY,
    rows INTEGER NOT NULL,
    path TEXT NOT NULL,
    stamp TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS keys (
    key INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (key, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY,
    name TEXT,
    content BLOB NOT NULL
) STRICT;
";

/// How long adding waits for another process that adds.
const TURN_WAIT: Duration = Duration::from_secs(600);

/// Keys that are sorted and written together: 32 MB of them.
const KEYS_AT_ONCE: usize = 2_000_000;

/// Rows with one key that a lookup looks at, the first ones: a key that very many rows share says little.
const ROWS_OF_A_KEY_MAX: i64 = 1_000;

/// Bytes of an index that readers map into memory at most; more is read page by page.
const MAPPED_BYTES_MAX: u64 = 1 << 30;

/// An index that may be added to.
pub struct KeyIndex {
    path: PathBuf,
    connection: Connection,
}

/// Data that an index holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedPart {
    pub path: String,
    /// Tells what the file held when it was read.
    pub stamp: String,
    /// The number of its first row.
    pub first: u64,
    pub rows: u64,
}

/// What is kept of one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub keys: Vec<u64>,
    pub content: Vec<u8>,
}

impl Store {
    /// The folder of this workspace's saved indexes, which may not be there yet.
    pub fn indexes(&self) -> PathBuf {
        self.file().with_file_name(FOLDER)
    }
}

impl KeyIndex {
    /// Opens or makes the index of this name. One that is damaged is removed: it is made anew from the data.
    pub fn open(folder: &Path, name: &str) -> Result<KeyIndex, StoreError> {
        fs::create_dir_all(folder).map_err(|error| StoreError::from_io(folder, &error))?;
        let path = folder.join(format!("{name}.sqlite3"));
        match open(&path).and_then(|connection| make_tables(&connection).map(|()| connection)) {
            Ok(connection) => Ok(KeyIndex { path, connection }),
            Err(error) => match StoreError::from_sqlite(&path, &error) {
                StoreError::Corrupt { .. } => {
                    KeyIndex::remove(folder, name)?;
                    let wrong = |error| StoreError::from_sqlite(&path, &error);
                    let connection = open(&path).map_err(wrong)?;
                    make_tables(&connection).map_err(wrong)?;
                    Ok(KeyIndex { path, connection })
                }
                other => Err(other),
            },
        }
    }

    /// Removes what there is of an index.
    pub fn remove(folder: &Path, name: &str) -> Result<(), StoreError> {
        for end in ["", "-wal", "-shm"] {
            let path = folder.join(format!("{name}.sqlite3{end}"));
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::from_io(&path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn words(&self, error: &rusqlite::Error) -> StoreError {
        StoreError::from_sqlite(&self.path, error)
    }

    /// The data that is in the index.
    pub fn parts(&self) -> Result<Vec<IndexedPart>, StoreError> {
        let number = |value: i64| u64::try_from(value).unwrap_or_default();
        let read = || -> rusqlite::Result<Vec<IndexedPart>> {
            let mut statement =
                self.connection.prepare("SELECT path, stamp, first, rows FROM parts ORDER BY first")?;
            let part = |row: &rusqlite::Row<'_>| {
                let (first, rows) = (number(row.get(2)?), number(row.get(3)?));
                Ok(IndexedPart { path: row.get(0)?, stamp: row.get(1)?, first, rows })
            };
            statement.query_map([], part)?.collect()
        };
        read().map_err(|error| self.words(&error))
    }

    /// Forgets all.
    pub fn clear(&mut self) -> Result<(), StoreError> {
        let clear = "BEGIN IMMEDIATE; DELETE FROM parts; DELETE FROM keys; DELETE FROM entries; COMMIT";
        self.connection.execute_batch(clear).map_err(|error| self.words(&error))
    }

    /// Begins to add a part; nothing if it is there already, since another process added it.
    pub fn add<'a>(&'a mut self, path: &str, stamp: &str) -> Result<Option<Adding<'a>>, StoreError> {
        let KeyIndex { path: file, connection } = self;
        let connection: &'a Connection = connection;
        let begin = || -> rusqlite::Result<Option<(Transaction<'a>, i64)>> {
            let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            let known = transaction
                .query_row("SELECT 1 FROM parts WHERE path = ?1 AND stamp = ?2", [path, stamp], |_| Ok(()))
                .optional()?;
            let first =
                transaction
                    .query_row("SELECT COALESCE(MAX(first + rows), 0) FROM parts", [], |row| row.get(0))?;
            Ok(known.is_none().then_some((transaction, first)))
        };
        let begun = begin().map_err(|error| StoreError::from_sqlite(file, &error))?;
        let (path, stamp) = (path.to_owned(), stamp.to_owned());
        Ok(begun.map(|(transaction, first)| Adding {
            file,
            transaction,
            path,
            stamp,
            first,
            rows: 0,
            keys: Vec::new(),
        }))
    }

    /// A view of the index as it is now, for so many threads.
    pub fn lookup(&self, threads: usize) -> Result<Lookup, StoreError> {
        let view = || -> rusqlite::Result<Mutex<Connection>> {
            let connection = open(&self.path)?;
            connection.execute_batch(&format!("PRAGMA mmap_size={MAPPED_BYTES_MAX}; BEGIN"))?;
            // The view is that of the first look.
            connection.query_row("SELECT count(*) FROM parts", [], |_| Ok(()))?;
            Ok(Mutex::new(connection))
        };
        let views: rusqlite::Result<Vec<_>> = (0..threads.max(1)).map(|_| view()).collect();
        let views = views.map_err(|error| self.words(&error))?;
        Ok(Lookup { path: self.path.clone(), views, turn: AtomicUsize::new(0) })
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(TURN_WAIT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
    // What a power cut loses is added again; nothing is ever half there.
    connection.execute_batch("PRAGMA synchronous=NORMAL; PRAGMA cache_size=-16384")?;
    Ok(connection)
}

fn make_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)
}

/// A part that is being added; dropped, none of it is.
pub struct Adding<'a> {
    file: &'a Path,
    transaction: Transaction<'a>,
    path: String,
    stamp: String,
    first: i64,
    rows: i64,
    keys: Vec<(i64, i64)>,
}

impl Adding<'_> {
    /// Adds the next row, and `name` if it has one; a row without an entry only has its number.
    pub fn push(&mut self, name: Option<&str>, entry: Option<&Entry>) -> Result<(), StoreError> {
        let number = self.first + self.rows;
        self.rows += 1;
        let Some(entry) = entry else { return Ok(()) };
        let insert = "INSERT INTO entries (number, name, content) VALUES (?1, ?2, ?3)";
        let added = self
            .transaction
            .prepare_cached(insert)
            .and_then(|mut insert| insert.execute(params![number, name, entry.content]));
        added.map_err(|error| StoreError::from_sqlite(self.file, &error))?;
        self.keys.extend(entry.keys.iter().map(|key| (key.cast_signed(), number)));
        if self.keys.len() >= KEYS_AT_ONCE { self.write_keys() } else { Ok(()) }
    }

    /// Makes the part durable.
    pub fn commit(mut self) -> Result<(), StoreError> {
        self.write_keys()?;
        let insert = "INSERT INTO parts (first, rows, path, stamp) VALUES (?1, ?2, ?3, ?4)";
        // A part without rows takes a number, so that no two have the same first one.
        let rows = self.rows.max(1);
        self.transaction
            .execute(insert, params![self.first, rows, self.path, self.stamp])
            .and_then(|_| self.transaction.commit())
            .map_err(|error| StoreError::from_sqlite(self.file, &error))
    }

    /// In order, so that each page of the tree is changed once.
    fn write_keys(&mut self) -> Result<(), StoreError> {
        self.keys.sort_unstable();
        self.keys.dedup();
        let insert = "INSERT INTO keys (key, number) VALUES (?1, ?2)";
        let keys = &mut self.keys;
        let written = self.transaction.prepare_cached(insert).and_then(|mut insert| {
            keys.drain(..).try_for_each(|(key, number)| insert.execute([key, number]).map(drop))
        });
        written.map_err(|error| StoreError::from_sqlite(self.file, &error))
    }
}

/// An index as it was at one moment; shared by threads.
pub struct Lookup {
    path: PathBuf,
    views: Vec<Mutex<Connection>>,
    turn: AtomicUsize,
}

/// A row of an index.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<T> {
    pub number: u64,
    pub name: Option<String>,
    /// What it was accepted with.
    pub value: T,
}

impl Lookup {
    /// The first row that shares a key, is wanted and whose content is accepted. Of those that share less than
    /// half of the keys only the first `candidates_max` are tried.
    pub fn find<T>(
        &self,
        keys: &[u64],
        candidates_max: usize,
        is_wanted: impl Fn(u64) -> bool,
        accept: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<Found<T>>, StoreError> {
        let view = self.view();
        let find = || -> rusqlite::Result<Option<Found<T>>> {
            let numbers = numbers(&view, keys)?;
            let wanted = counted(&numbers).filter(|(number, _)| is_wanted(number.cast_unsigned()));
            let sql = "SELECT name, content FROM entries WHERE number = ?1";
            let mut entry = None;
            for (place, (number, shared)) in wanted.enumerate() {
                if place >= candidates_max && 2 * shared < keys.len() {
                    continue;
                }
                let entry = match &mut entry {
                    Some(entry) => entry,
                    none => none.insert(view.prepare_cached(sql)?),
                };
                let mut rows = entry.query([number])?;
                let Some(row) = rows.next()? else { continue };
                let Some(value) = accept(row.get_ref(1)?.as_blob()?) else { continue };
                return Ok(Some(Found { number: number.cast_unsigned(), name: row.get(0)?, value }));
            }
            Ok(None)
        };
        find().map_err(|error| StoreError::from_sqlite(&self.path, &error))
    }

    /// A connection that is free, or the next one that will be.
    fn view(&self) -> MutexGuard<'_, Connection> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.views.len() {
            match self.views[(turn + step) % self.views.len()].try_lock() {
                Ok(view) => return view,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.views[turn % self.views.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows that have the keys, ascending, each as often as it has one of them.
fn numbers(view: &Connection, keys: &[u64]) -> rusqlite::Result<Vec<i64>> {
    let sql = format!("SELECT number FROM keys WHERE key = ?1 LIMIT {ROWS_OF_A_KEY_MAX}");
    let mut with_key = view.prepare_cached(&sql)?;
    let mut numbers = Vec::new();
    for key in keys {
        let mut rows = with_key.query([key.cast_signed()])?;
        while let Some(row) = rows.next()? {
            numbers.push(row.get(0)?);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Each number of an ascending list once, and how often it is there.
fn counted(numbers: &[i64]) -> impl Iterator<Item = (i64, usize)> {
    numbers.chunk_by(|a, b| a == b).filter_map(|same| Some((*same.first()?, same.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(keys: &[u64], content: &str) -> Entry {
        Entry { keys: keys.to_vec(), content: content.as_bytes().to_vec() }
    }

    fn add(index: &mut KeyIndex, path: &str, rows: &[Option<Entry>]) {
        let mut adding = index.add(path, "s").unwrap().unwrap();
        for (row, entry) in rows.iter().enumerate() {
            adding.push(Some(&format!("{path}{row}")), entry.as_ref()).unwrap();
        }
        adding.commit().unwrap();
    }

    /// The number and name of what is found with these keys, of rows from `from` on and with this content.
    fn check(lookup: &Lookup, keys: &[u64], from: u64, content: &str, expected: Option<(u64, &str)>) {
        let accept = |bytes: &[u8]| (content.is_empty() || bytes == content.as_bytes()).then_some(());
        let found = lookup.find(keys, 1_000, |number| number >= from, accept).unwrap();
        let found = found.map(|found| (found.number, found.name.unwrap()));
        assert_eq!(found, expected.map(|(number, name)| (number, name.to_owned())));
    }

    #[test]
    fn rows_are_found_by_their_keys() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = KeyIndex::open(folder.path(), "near").unwrap();
        add(&mut index, "a", &[Some(entry(&[1, u64::MAX], "x")), None, Some(entry(&[1, 2], "y"))]);
        let before = index.lookup(2).unwrap();
        add(&mut index, "b", &[]);
        add(&mut index, "c", &[Some(entry(&[2, 3, 3], "z"))]);
        let after = index.lookup(2).unwrap();
        check(&after, &[1], 0, "", Some((0, "a0")));
        check(&after, &[u64::MAX, 9], 0, "", Some((0, "a0")));
        check(&after, &[1], 1, "", Some((2, "a2")));
        check(&after, &[1, 2], 0, "z", Some((4, "c0")));
        check(&after, &[9], 0, "", None);
        check(&before, &[3], 0, "", None);
        check(&after, &[3], 0, "", Some((4, "c0")));
        let parts: Vec<(String, u64, u64)> =
            index.parts().unwrap().into_iter().map(|part| (part.path, part.first, part.rows)).collect();
        assert_eq!(parts, [("a".into(), 0, 3), ("b".into(), 3, 1), ("c".into(), 4, 1)]);
        assert!(index.add("a", "s").unwrap().is_none(), "it is there");
        index.clear().unwrap();
        assert!(index.parts().unwrap().is_empty());
    }

    #[test]
    fn a_part_is_there_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = KeyIndex::open(folder.path(), "near").unwrap();
        let mut adding = index.add("a", "s").unwrap().unwrap();
        adding.push(None, Some(&entry(&[1], "x"))).unwrap();
        adding.write_keys().unwrap();
        drop(adding);
        assert!(index.parts().unwrap().is_empty());
        check(&index.lookup(1).unwrap(), &[1], 0, "", None);
    }

    #[test]
    fn what_is_damaged_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        for noise in ["no database at all ".repeat(500), String::new()] {
            add(&mut KeyIndex::open(folder.path(), "near").unwrap(), "a", &[]);
            fs::write(folder.path().join("near.sqlite3"), noise).unwrap();
            for end in ["-wal", "-shm"] {
                let _ = fs::remove_file(folder.path().join(format!("near.sqlite3{end}")));
            }
            assert!(KeyIndex::open(folder.path(), "near").unwrap().parts().unwrap().is_empty());
            KeyIndex::remove(folder.path(), "near").unwrap();
        }
    }

    #[test]
    fn a_key_that_all_rows_share_costs_a_bounded_lookup() {
        let folder = tempfile::tempdir().unwrap();
        let mut index = KeyIndex::open(folder.path(), "near").unwrap();
        let rows: Vec<Option<Entry>> = (0..5_000).map(|own| Some(entry(&[7, 100 + own], "x"))).collect();
        add(&mut index, "a", &rows);
        let lookup = index.lookup(1).unwrap();
        let tried = std::cell::Cell::new(0);
        let accept = |_: &[u8]| {
            tried.set(tried.get() + 1);
            None::<()>
        };
        assert_eq!(lookup.find(&[7, 8, 9], 1_000, |_| true, accept).unwrap(), None);
        assert_eq!(tried.get(), 1_000);
        check(&lookup, &[7, 100 + 4_999], 2_000, "", Some((4_999, "a4999")));
    }
}
