//! The one thread of a process that writes, and group commit: everything that is queued goes into one
//! transaction, one sync, and then every caller is answered. What a command does to the tables is
//! not known here; the other files bring it as a closure.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::StoreError;
use super::ledger::{self, Amount, Charge, Spent};
use super::replies::Origin;

/// Commands in one transaction at most, so that the first of them does not wait for ever.
const BATCH_MAX: usize = 512;

/// Commands that may wait for the writer; further callers wait to queue.
const QUEUE_MAX: usize = 4096;

/// How long a group waits for more company, when the last one had some: less than a model's answer takes. Of 20,000
/// replies at 8,000 a second, 194 syncs and 2.2 write calls a reply, where 2 ms had 900 to 1,200 and 3.1 to 3.6; of
/// 30,000 at 1,100 a second, 1,900 syncs, where 5 ms had 3,300.
const GROUP_WAIT: Duration = Duration::from_millis(10);

/// Reservations that a process can make: 2 to this power.
const RESERVATION_BITS: u32 = 32;

/// How long closing waits for readers of other processes before it leaves the log for later.
const CLOSE_WAIT: Duration = Duration::from_millis(200);

/// What a command works on: the write connection, and what is known about it in memory.
pub(super) struct Desk {
    pub connection: Connection,
    /// Row ids of the origins seen so far.
    pub origins: HashMap<Arc<Origin>, i64>,
    /// What this batch adds to sums; written once, just before the commit.
    pub spending: HashMap<Arc<Charge>, Amount>,
    /// What this batch found a day to have come to at most, for reservations that must fit in it.
    pub day: Option<(Arc<str>, Spent)>,
    /// This process' number.
    pub process: i64,
    /// The last reservation's id; they begin with the process' number, so that none is given twice.
    pub last_reservation: i64,
}

impl Desk {
    pub fn new(connection: Connection, process: i64) -> Desk {
        let (origins, spending) = (HashMap::new(), HashMap::new());
        let last_reservation = process << RESERVATION_BITS;
        Desk { connection, origins, spending, day: None, process, last_reservation }
    }

    /// All jobs in one durable transaction, or none of them.
    fn transaction(&mut self, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        let done = self.attempt(jobs);
        if done.is_err() {
            self.roll_back();
        }
        done
    }

    fn attempt(&mut self, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        self.execute("BEGIN IMMEDIATE")?;
        self.day = None;
        for job in jobs {
            job.run(self)?;
        }
        ledger::write_spending(self)?;
        self.execute("COMMIT")
    }

    fn roll_back(&mut self) {
        // Some errors (a full disk) have rolled back already. Should this one fail, the next BEGIN
        // fails too, and its callers are told.
        if !self.connection.is_autocommit() {
            let _ = self.execute("ROLLBACK");
        }
        // Both spoke of rows that are gone now.
        self.origins.clear();
        self.spending.clear();
    }

    fn execute(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.execute([]).map(drop)
    }

    fn close(self) {
        // All is durable already; this only folds the log into the store's file, and may be skipped.
        let _ = self.connection.busy_timeout(CLOSE_WAIT);
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }
}

/// A command in the queue: its work, then its answer once the commit is known.
trait Job: Send {
    fn run(&mut self, desk: &mut Desk) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Task<T, W> {
    work: Option<W>,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W> Job for Task<T, W>
where
    T: Send,
    W: FnOnce(&mut Desk) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, desk: &mut Desk) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.result = Some(work(desk)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Task { result, answer, .. } = *self;
        let outcome = match (outcome, result) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(result)) => Ok(result),
            // A job that was never run: dropping the sender tells its caller.
            (Ok(()), None) => return,
        };
        // A caller that went away does not want to know.
        let _ = answer.send(outcome);
    }
}

enum Command {
    /// Together with what else is queued, in one transaction.
    Grouped(Box<dyn Job>),
    /// On its own and outside any transaction, as VACUUM demands.
    Alone(Box<dyn Job>),
}

/// The way to the writer thread. Dropping it finishes what is queued and joins the thread.
pub(super) struct Writer {
    path: PathBuf,
    queue: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(path: &Path, desk: Desk, held: impl Send + 'static) -> Result<Writer, StoreError> {
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        let file = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                serve(&file, desk, commands);
                // Only now is this process gone for the others.
                drop(held);
            })
            .map_err(|error| StoreError::from_io(path, &error))?;
        Ok(Writer { path: path.to_owned(), queue: Some(queue), thread: Some(thread) })
    }

    /// Queues `work` for the next transaction; resolves once that is on disk, or with its error.
    pub async fn grouped<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Desk) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let task = Task { work: Some(work), result: None, answer };
        self.send(Command::Grouped(Box::new(task)), answered).await
    }

    /// Queues `work` to be run outside any transaction, after what is queued already.
    pub async fn alone<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Desk) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let task = Task { work: Some(work), result: None, answer };
        self.send(Command::Alone(Box::new(task)), answered).await
    }

    async fn send<T>(
        &self,
        command: Command,
        answered: oneshot::Receiver<Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::WriterGone { path: self.path.clone() };
        #[cfg(test)]
        let _still = tests::no_time_passes();
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(command).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there was told to its callers as `WriterGone`.
            let _ = thread.join();
        }
    }
}

fn serve(path: &Path, mut desk: Desk, mut commands: mpsc::Receiver<Command>) {
    let mut queued = Vec::with_capacity(BATCH_MAX);
    let mut group = Vec::with_capacity(BATCH_MAX);
    let mut had_company = false;
    while commands.blocking_recv_many(&mut queued, BATCH_MAX) > 0 {
        if had_company && queued.len() < BATCH_MAX {
            std::thread::sleep(GROUP_WAIT);
            while queued.len() < BATCH_MAX {
                let Ok(command) = commands.try_recv() else { break };
                queued.push(command);
            }
        }
        had_company = queued.len() > 1;
        for command in queued.drain(..) {
            match command {
                Command::Grouped(job) => group.push(job),
                Command::Alone(mut job) => {
                    commit(path, &mut desk, &mut group);
                    let outcome = job.run(&mut desk);
                    job.answer(outcome.map_err(|error| StoreError::from_sqlite(path, &error)));
                }
            }
        }
        commit(path, &mut desk, &mut group);
    }
    desk.close();
}

fn commit(path: &Path, desk: &mut Desk, group: &mut Vec<Box<dyn Job>>) {
    if group.is_empty() {
        return;
    }
    let outcome = desk.transaction(group).map_err(|error| StoreError::from_sqlite(path, &error));
    for job in group.drain(..) {
        job.answer(outcome.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command as Program, Stdio};

    use futures_util::FutureExt;

    use super::super::fixture::{self, Fixture, key, reply};
    use super::super::{Access, Filter, IfPresent, Key, NewReply, NewRun, ReservationId, Spending, Store};
    use super::*;

    const WORST: Amount = Amount { usd_nano: 1_000, tokens: 100, calls: 1 };

    /// A clock that a test has paused stands still for as long as this is held: tokio moves none on while a
    /// blocking task runs.
    pub fn no_time_passes() -> Option<std::sync::mpsc::Sender<()>> {
        let (held, gone) = std::sync::mpsc::channel();
        tokio::runtime::Handle::try_current().ok()?.spawn_blocking(move || gone.recv());
        Some(held)
    }

    async fn open(store: &Store, charge: &Arc<Charge>) -> ReservationId {
        fixture::reserved(store, charge, WORST).await
    }

    /// Sets the largest number of pages the store may have; never below what it has.
    async fn limit_pages(store: &Store, pages: u32) {
        let limit = format!("PRAGMA max_page_count={pages}");
        store.write_alone(move |desk| desk.connection.execute_batch(&limit)).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_answers_everybody_and_leaves_nothing_half_written() {
        let Fixture { folder: _folder, store } = fixture::open();
        let charge = Arc::new(Charge::new("exercises", "0", "draft", 0));
        let reservation = open(&store, &charge).await;
        limit_pages(&store, 1).await;
        // Each needs pages of its own, so none fits in what is left of the last ones.
        let body = fixture::noise(20_000);
        let news: Vec<_> = (0..40).map(|number| NewReply { reply: &body, ..reply(number, "") }).collect();
        let saves = news.iter().map(|new| {
            let spending =
                Spending { charge: Arc::clone(&charge), reservation: Some(reservation), actual: WORST };
            store.save_reply(new, Some(spending), IfPresent::KeepFirst)
        });
        for saved in futures_util::future::join_all(saves).await {
            assert!(matches!(saved, Err(StoreError::Full { .. })), "{saved:?}");
        }
        assert_eq!(store.matching(&Filter::default()).unwrap().replies, 0);
        assert_eq!(store.spent(&charge.epoch).unwrap(), Spent { reserved: WORST, ..Spent::default() });

        limit_pages(&store, 10_000).await;
        fixture::save(&store, 1, "a").await;
        assert_eq!(fixture::body(&store, 1).as_deref(), Some("a"));
        store.check().unwrap();
    }

    #[tokio::test]
    async fn a_dead_writer_is_said_and_never_waited_for() {
        let Fixture { folder: _folder, store } = fixture::open();
        let panicking = store.write(|_| -> rusqlite::Result<()> { std::panic::resume_unwind(Box::new("")) });
        let others = (0..3).map(|_| store.delete_reply(key(1)));
        let (first, others) = tokio::join!(panicking, futures_util::future::join_all(others));
        let later = store.delete_reply(key(1)).await;
        for outcome in others.into_iter().map(|other| other.map(drop)).chain([first, later.map(drop)]) {
            assert!(matches!(outcome, Err(StoreError::WriterGone { .. })), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn dropping_the_last_handle_finishes_what_is_queued() {
        let fixture = fixture::open();
        let store = fixture.store.clone();
        // Polled once, so that it is queued, and then abandoned.
        let unfinished = async move { fixture::save(&store, 1, "a").await }.now_or_never();
        assert!(unfinished.is_none());
        assert_eq!(fixture::body(&fixture.reopen().store, 1).as_deref(), Some("a"));
    }

    const CHILD: &str = "TEXTMILL_TEST_STORE_CHILD";
    const REPLIES_MIN: usize = 300;

    /// The child's part: saves until it is killed, and names each reply once it is durable.
    async fn save_for_ever(workspace: &Path) {
        let store = Store::open(workspace, Access::Write).unwrap();
        let run = NewRun {
            id: "r".into(),
            pipeline: "exercises".into(),
            epoch: "0".into(),
            started_unix_ms: 0,
            pid: 1,
            file_hash: String::new(),
            file: String::new(),
            options: "{}".into(),
        };
        store.begin_run(run).await.unwrap();
        let charge = Arc::new(Charge::new("exercises", "0", "draft", 0));
        for batch in 0.. {
            let saves = (0..20).map(|number| {
                let (store, charge) = (&store, &charge);
                async move {
                    let reservation = Some(open(store, charge).await);
                    let spending = Spending { charge: Arc::clone(charge), reservation, actual: WORST };
                    let new = reply(batch * 20 + number, "durable");
                    store.save_reply(&new, Some(spending), IfPresent::KeepFirst).await.unwrap();
                    // Written at once, so that no line is torn.
                    std::io::stderr().write_all(format!("{}\n", new.key).as_bytes()).unwrap();
                }
            });
            futures_util::future::join_all(saves).await;
        }
    }

    #[tokio::test]
    async fn a_killed_process_loses_nothing_that_was_durable() {
        if let Some(workspace) = std::env::var_os(CHILD) {
            return save_for_ever(Path::new(&workspace)).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut child = Program::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::writer::tests::a_killed_process_loses_nothing_that_was_durable"])
            .arg("--nocapture")
            .env(CHILD, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut next = || Some(lines.next()?.unwrap().parse::<Key>().unwrap());
        let mut durable: Vec<Key> = (0..REPLIES_MIN).map_while(|_| next()).collect();
        let locked = Store::open(folder.path(), Access::Alone).unwrap_err().to_string();
        child.kill().unwrap();
        child.wait().unwrap();
        durable.extend(std::iter::from_fn(next));

        assert!(locked.contains(&format!("process {}", child.id())), "{locked}");
        assert!(durable.len() >= REPLIES_MIN);
        let store = Store::open(folder.path(), Access::Write).unwrap();
        assert!(store.has(&durable).unwrap().into_iter().all(|present| present));
        store.check().unwrap();
        assert_eq!(store.recovered().crashed_runs, ["r"]);
        // Each reply cost one call, and so did each reservation that was left open: none is lost.
        let replies = store.matching(&Filter::default()).unwrap().replies;
        let calls = store.spent("exercises@0").unwrap().settled.calls;
        assert_eq!(calls, replies + store.recovered().open_reservations_found);
    }
}
