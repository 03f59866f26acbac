//! The store: the only place that knows the database. It keeps every reply for good, the ledger of
//! what was spent, and the list of runs, in `<workspace>/.textmill/store.sqlite3`.
//!
//! It never sends a call, never decides whether a budget allows one, and never looks inside a
//! request, a reply or a run's summary. Map: `replies` (save, find), `ledger` (reserve, settle),
//! `batches` (what providers answer within a day), `runs`, `upkeep` (statistics, export, pruning), `index` (saved
//! indexes, databases of their own); below them
//! `writer` (group commit), `readers`,
//! `schema` (tables and formats), `processes` (who writes at once), `lock`, `error` (all the words).
//!
//! Writes are `async` and resolve when they are on disk; reads block, for microseconds by key.

mod batches;
mod error;
#[cfg(test)]
mod fixture;
mod index;
mod ledger;
mod lock;
mod processes;
mod readers;
mod replies;
mod runs;
mod schema;
mod upkeep;
mod writer;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

pub use batches::{Batch, BatchEnd, BatchItem, BatchesOf, Came, Closed, ItemEnd, NewBatch, NewItem, Put};
pub use error::StoreError;
pub use index::{Entry, Found, IndexedPart, KeyIndex, Lookup};
pub use ledger::{Amount, Caps, Charge, Reservation, ReservationId, Spending, Spent, Unit};
pub use processes::EpochLock;
pub use replies::{BODY_BYTES_MAX, IfPresent, NewReply, Origin, Saved, StoredReply};
pub use runs::{NewRun, Run, RunStatus};
pub use upkeep::{Filter, Share, Spread, StepStats, StoreStats};

use crate::clock;
use lock::Lock;
use processes::Process;
use readers::Readers;
use writer::{Desk, Writer};

/// The folder, below the workspace, of everything that textmill keeps for itself.
pub const FOLDER: &str = ".textmill";
/// The folder, below that one, of what runs leave behind.
pub const RUNS: &str = "runs";
const FILE: &str = "store.sqlite3";
const LOCK_FILE: &str = "lock";
/// The folder, beside the store, of what lives only as long as a process.
const LIVE: &str = "live";

/// How long opening waits for a process that has the store alone: bringing it up to date takes moments.
const ALONE_WAIT: Duration = Duration::from_secs(5);
const ALONE_LOOK: Duration = Duration::from_millis(20);

/// A call's key: the SHA-256 of its canonical request. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let text: String = digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect();
        f.write_str(&text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Key, String> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
            _ => None,
        });
        pairs
            .collect::<Option<Vec<u8>>>()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .map(Key)
            .ok_or_else(|| format!("`{text}` is no key; keys are 64 hexadecimal digits"))
    }
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To write and read, beside other processes that do so.
    Write,
    /// To write and read while nobody else writes: for what others would be surprised by.
    Alone,
    /// To read only, also while other processes write. Creates nothing: a store that is not there
    /// (yet) is empty.
    Read,
}

/// What dead processes left behind, put right when the store was opened for writing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Calls that were under way; they now count as spent at their worst case.
    pub open_reservations_found: u64,
    pub worst_case: Amount,
    /// Ids of the runs that are now `crashed`.
    pub crashed_runs: Vec<String>,
}

/// A handle on a workspace's store; clones share it. When the last one of a writing process goes,
/// what is queued is written and its locks are let go of (this blocks for some milliseconds).
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    file: Arc<PathBuf>,
    readers: Readers,
    writer: Option<Writer>,
    /// This process' number; 0 where it only reads.
    process: i64,
    /// The name of its lock file, if it writes.
    name: Option<String>,
    recovered: Recovered,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.readers.close();
        self.writer = None;
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.inner.file.display())
    }
}

impl Store {
    /// Opens the store of a workspace folder, which must exist.
    ///
    /// For writing it makes what is missing, brings an older store to the newest format, and puts right what
    /// dead processes left ([`Store::recovered`]). Fails with [`StoreError::Locked`] while another process
    /// has the store alone, or when it is wanted alone and others write, and with `Newer`, `NotAStore`, `Corrupt`,
    /// `NotWritable`, `Full` or `Io` as they say. Blocks for some milliseconds.
    pub fn open(workspace: &Path, access: Access) -> Result<Store, StoreError> {
        let folder = workspace.join(FOLDER);
        let file = Arc::new(folder.join(FILE));
        was_not_emptied(&folder, &file)?;
        let readers = Readers::new(&file);
        let (writer, process, name, recovered) = match access {
            Access::Write | Access::Alone => {
                let opened = open_to_write(workspace, &folder, &file, access)?;
                (Some(opened.writer), opened.process, Some(opened.name), opened.recovered)
            }
            Access::Read => {
                // So that a store which cannot be read is reported now and not in the middle.
                readers.with(|_| Ok(()))?;
                (None, 0, None, Recovered::default())
            }
        };
        Ok(Store { inner: Arc::new(Inner { file, readers, writer, process, name, recovered }) })
    }

    /// What was put right at opening; nothing for a store opened to read.
    pub fn recovered(&self) -> &Recovered {
        &self.inner.recovered
    }

    /// The database's path.
    fn file(&self) -> Arc<PathBuf> {
        Arc::clone(&self.inner.file)
    }

    fn read<T: Default>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.inner.readers.with(work)
    }

    /// Runs `work` in the next group commit. It must not fail for reasons of its own: any error
    /// undoes the whole group.
    async fn write<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Desk) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer()?.grouped(work).await
    }

    /// Runs `work` on the writer thread outside any transaction.
    async fn write_alone<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Desk) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer()?.alone(work).await
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        let refused = || StoreError::OpenedForReading { path: self.inner.file.to_path_buf() };
        self.inner.writer.as_ref().ok_or_else(refused)
    }
}

/// A file that is there and empty is a new store only where nothing has run: else everything in it was lost,
/// and would be paid for again without a word.
fn was_not_emptied(folder: &Path, file: &Path) -> Result<(), StoreError> {
    let is_empty = fs::metadata(file).is_ok_and(|file| file.len() == 0);
    let has_run = fs::read_dir(folder.join(RUNS)).is_ok_and(|mut runs| runs.next().is_some());
    if is_empty && has_run {
        let detail = "the file is empty, and runs were made here".to_owned();
        return Err(StoreError::Corrupt { path: file.to_owned(), detail });
    }
    Ok(())
}

/// A store that is open for writing.
struct Opened {
    writer: Writer,
    process: i64,
    name: String,
    recovered: Recovered,
}

/// What a writing process holds until all is written.
#[derive(Debug)]
struct Held {
    _process: Process,
    _store: Lock,
}

fn open_to_write(workspace: &Path, folder: &Path, file: &Path, access: Access) -> Result<Opened, StoreError> {
    make_folder(folder).map_err(|error| StoreError::from_io(folder, &error))?;
    let live = folder.join(LIVE);
    fs::create_dir_all(&live).map_err(|error| StoreError::from_io(&live, &error))?;
    let (lock, mut connection) = match access {
        Access::Alone => alone(folder, file)?,
        Access::Write | Access::Read => beside_others(folder, file)?,
    };
    // A synced file is of no use while its folder's entry may still be lost.
    for folder in [folder, workspace] {
        sync_folder(folder).map_err(|error| StoreError::from_io(folder, &error))?;
    }
    let process = Process::enter(&connection, &live, file)?;
    let (number, name) = (process.number, process.name.clone());
    let recovered = processes::recover(&mut connection, &live);
    let recovered = recovered.map_err(|error| StoreError::from_sqlite(file, &error))?;
    let held = Held { _process: process, _store: lock };
    let writer = Writer::start(file, Desk::new(connection, number), held)?;
    Ok(Opened { writer, process: number, name, recovered })
}

/// The store while nobody else writes, up to date.
fn alone(folder: &Path, file: &Path) -> Result<(Lock, Connection), StoreError> {
    let lock = Lock::alone(&folder.join(LOCK_FILE)).map_err(|error| match error {
        StoreError::Locked { path, holder } => {
            let living = processes::living(&folder.join(LIVE));
            let holder = if living.is_empty() { holder } else { living.join(" and ") };
            StoreError::Locked { path, holder }
        }
        other => other,
    })?;
    let mut connection = schema::open_writer(file)?;
    schema::bring_up_to_date(&mut connection, file)?;
    Ok((lock, connection))
}

/// The store beside others that write it; whoever finds it out of date brings it up to date alone.
fn beside_others(folder: &Path, file: &Path) -> Result<(Lock, Connection), StoreError> {
    let began = clock::now();
    loop {
        let entered = enter(folder, file);
        match entered {
            Ok(Some(opened)) => return Ok(opened),
            Ok(None) => {}
            Err(StoreError::Locked { .. }) if began.elapsed() < ALONE_WAIT => std::thread::sleep(ALONE_LOOK),
            Err(error) => return Err(error),
        }
    }
}

/// Nothing when the store was out of date, and is so no more.
fn enter(folder: &Path, file: &Path) -> Result<Option<(Lock, Connection)>, StoreError> {
    let lock = Lock::shared(&folder.join(LOCK_FILE))?;
    let connection = schema::open_writer(file)?;
    if schema::is_newest(&connection, file)? {
        return Ok(Some((lock, connection)));
    }
    drop((connection, lock));
    alone(folder, file).map(|_| None)
}

fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    match OpenOptions::new().write(true).create_new(true).open(folder.join(".gitignore")) {
        Ok(mut ignore) => ignore.write_all(b"*\n"),
        // The user's own one stays.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    // The workspace `.` may be given as an empty path.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

/// SQLite's integers are signed: what does not fit is stored as the largest.
fn to_db(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn from_db(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::fixture::Fixture;
    use super::*;

    fn check_key(text: &str, expected: bool) {
        match text.parse::<Key>() {
            Ok(key) => assert!(expected && key.to_string() == text.to_lowercase(), "{text}"),
            Err(message) => assert!(!expected && message.contains("64 hexadecimal digits"), "{message}"),
        }
    }

    #[test]
    fn keys_are_64_hexadecimal_digits() {
        check_key(&"0af9".repeat(16), true);
        check_key(&"0AF9".repeat(16), true);
        check_key(&"0af9".repeat(15), false);
        check_key(&"0af".repeat(21), false);
        check_key(&"0afg".repeat(16), false);
        check_key(&"é".repeat(32), false);
        check_key("", false);
    }

    /// Opens a workspace that `prepare` has been at; the error must hold these words.
    fn check_refused(access: Access, prepare: impl FnOnce(&Path), expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let error = Store::open(folder.path(), access).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(FOLDER), "{error}");
    }

    fn store_file(workspace: &Path) -> PathBuf {
        workspace.join(FOLDER).join(FILE)
    }

    #[test]
    fn unusable_stores_are_refused_with_a_sentence() {
        let noise = |workspace: &Path| {
            fs::create_dir(workspace.join(FOLDER)).unwrap();
            fs::write(store_file(workspace), "this is no database ".repeat(500)).unwrap();
        };
        let newer = |workspace: &Path| {
            drop(Store::open(workspace, Access::Write).unwrap());
            Connection::open(store_file(workspace)).unwrap().pragma_update(None, "user_version", 99).unwrap();
        };
        let header = |workspace: &Path| {
            drop(Store::open(workspace, Access::Write).unwrap());
            let mut bytes = fs::read(store_file(workspace)).unwrap();
            // The format of the schema.
            bytes[47] = 77;
            fs::write(store_file(workspace), bytes).unwrap();
        };
        let emptied = |workspace: &Path| {
            drop(Store::open(workspace, Access::Write).unwrap());
            fs::create_dir_all(workspace.join(FOLDER).join(RUNS).join("r1")).unwrap();
            fs::write(store_file(workspace), "").unwrap();
        };
        let a_file = |workspace: &Path| fs::write(workspace.join(FOLDER), "").unwrap();
        for access in [Access::Write, Access::Read] {
            check_refused(access, noise, "is damaged");
            check_refused(access, newer, "has format 99");
            check_refused(access, header, "is damaged");
            check_refused(access, emptied, "is damaged: the file is empty");
        }
        check_refused(Access::Write, a_file, "cannot write to");
        check_refused(Access::Write, |workspace| fs::remove_dir(workspace).unwrap(), "cannot write to");
    }

    #[test]
    fn opening_makes_a_folder_that_git_ignores() {
        let fixture = fixture::open();
        let ignore = fixture.folder.path().join(FOLDER).join(".gitignore");
        assert_eq!(fs::read_to_string(&ignore).unwrap(), "*\n");
        fs::write(&ignore, "mine").unwrap();
        let fixture = fixture.reopen();
        assert_eq!(fs::read_to_string(&ignore).unwrap(), "mine");
        assert_eq!(fixture.store.recovered(), &Recovered::default());
    }

    #[test]
    fn several_write_and_one_may_have_it_alone() {
        let Fixture { folder, store } = fixture::open();
        let beside = Store::open(folder.path(), Access::Write).unwrap();
        let clone = store.clone();
        drop(store);
        let in_use = |access| Store::open(folder.path(), access).unwrap_err().to_string();
        let process = format!("process {}, started", std::process::id());
        let error = in_use(Access::Alone);
        assert_eq!(error.matches(&process).count(), 2, "{error}");
        drop((clone, beside));
        let alone = Store::open(folder.path(), Access::Alone).unwrap();
        let error = in_use(Access::Alone);
        assert!(error.contains(&process), "{error}");
        drop(alone);
        Store::open(folder.path(), Access::Write).unwrap();
    }

    #[test]
    fn one_process_runs_an_epoch() {
        let Fixture { folder, store } = fixture::open();
        let other = Store::open(folder.path(), Access::Write).unwrap();
        let lock = store.lock_epoch("p", "0").unwrap();
        let error = other.lock_epoch("p", "0").unwrap_err().to_string();
        let expected = format!("epoch `0` of `p` is being run by process {}, started", std::process::id());
        assert!(error.starts_with(&expected), "{error}");
        other.lock_epoch("p", "1").unwrap();
        drop(lock);
        other.lock_epoch("p", "0").unwrap();
    }

    #[test]
    fn processes_that_start_together_share_a_new_store() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let opening = || Store::open(folder.path(), Access::Write).unwrap();
            let openings: Vec<_> = (0..8).map(|_| scope.spawn(opening)).collect();
            let stores: Vec<Store> = openings.into_iter().map(|store| store.join().unwrap()).collect();
            let mut numbers: Vec<i64> = stores.iter().map(|store| store.inner.process).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), 8);
        });
    }

    #[tokio::test]
    async fn the_dead_are_put_right_and_the_living_left_alone() {
        let Fixture { folder, store } = fixture::open();
        let dying = Store::open(folder.path(), Access::Write).unwrap();
        let charge = Arc::new(Charge::new("p", "0", "draft", 0));
        let worst = Amount { usd_nano: 9, tokens: 5, calls: 1 };
        for (store, run) in [(&store, "lives"), (&dying, "dies")] {
            let reserved = store.reserve(&charge, worst, Caps::default()).await.unwrap();
            assert!(matches!(reserved, Reservation::Open(_)));
            store.begin_run(runs::tests::new_run(run, "p", 5)).await.unwrap();
        }
        let spent = |store: &Store| store.spent("p@0").unwrap();
        let both = worst.plus(worst);
        assert_eq!(spent(&store), Spent { reserved: both, elsewhere: worst, ..Spent::default() });
        store.bury_the_dead().await.unwrap();
        assert_eq!(spent(&store).reserved, both);
        drop(dying);
        store.bury_the_dead().await.unwrap();
        assert_eq!(spent(&store), Spent { settled: worst, reserved: worst, ..Spent::default() });
        let status = |id| store.run(id).unwrap().map(|run| run.status);
        assert_eq!((status("lives"), status("dies")), (Some(RunStatus::Running), Some(RunStatus::Crashed)));
        let next = Store::open(folder.path(), Access::Write).unwrap();
        assert_eq!(next.recovered(), &Recovered::default());
        assert_eq!(spent(&next).elsewhere, worst);
    }

    #[tokio::test]
    async fn readers_need_no_store_and_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let reader = Store::open(folder.path(), Access::Read).unwrap();
        assert_eq!(fixture::body(&reader, 1), None);
        assert_eq!(reader.has(&[fixture::key(1)]).unwrap(), [false]);
        assert_eq!(reader.stats(0).unwrap(), StoreStats::default());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        let writer = Store::open(folder.path(), Access::Write).unwrap();
        fixture::save(&writer, 1, "a").await;
        assert_eq!(fixture::body(&reader, 1).as_deref(), Some("a"));
        assert_eq!(reader.has(&[fixture::key(2), fixture::key(1)]).unwrap(), [false, true]);
        let refused = reader.delete_reply(fixture::key(1)).await.unwrap_err();
        assert!(matches!(refused, StoreError::OpenedForReading { .. }), "{refused}");
    }

    #[tokio::test]
    async fn closing_leaves_one_file_that_holds_everything() {
        let fixture = fixture::open();
        fixture::save(&fixture.store, 1, "a").await;
        let Fixture { folder, store } = fixture;
        drop(store);
        let mut names: Vec<_> = fs::read_dir(folder.path().join(FOLDER))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [".gitignore", LIVE, LOCK_FILE, FILE]);
        assert_eq!(fs::read_dir(folder.path().join(FOLDER).join(LIVE)).unwrap().count(), 0);
        let reader = Store::open(folder.path(), Access::Read).unwrap();
        assert_eq!(fixture::body(&reader, 1).as_deref(), Some("a"));
    }
}
