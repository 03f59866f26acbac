//! Replies: saving them for good, finding them again by key. Bodies are kept compressed; callers
//! compress and decompress, the writer thread only moves bytes.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};
use zstd::bulk::{Compressor, Decompressor};

use super::error::StoreError;
use super::ledger::{self, Spending};
use super::writer::Desk;
use super::{Key, Store, from_db, to_db};

/// Largest request or reply body, uncompressed. Far above any model's context.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Fastest ordinary zstd level: bodies are a few KB, where higher levels gain next to nothing.
const ZSTD_LEVEL: i32 = 1;

/// Bodies below this are kept as they are: their frame and tables cost what they save.
const PACKED_BYTES_MIN: usize = 512;

/// RFC 8878 section 3.1.1.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// Largest count or price in a reply's row, so that sums over all replies stay exact.
const COUNT_MAX: u64 = 1 << 52;

/// Origins remembered by the writer; more are looked up again.
const ORIGINS_MAX: usize = 10_000;

/// Who asked and who answered: what many replies share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub epoch: String,
    /// `None` for calls made outside a pipeline.
    pub pipeline: Option<String>,
    pub step: String,
    /// The teacher's identity, as it is in the key.
    pub teacher: String,
    /// The URL that served the call.
    pub endpoint: String,
    /// The wire format's name.
    pub wire: String,
    /// The model that the server says it used.
    pub model: String,
}

/// A reply to be saved.
#[derive(Clone, Debug)]
pub struct NewReply<'a> {
    pub key: Key,
    pub origin: Arc<Origin>,
    /// The canonical request, for people and exports; the key already says which it was.
    pub request: &'a [u8],
    /// The body as received, secrets scrubbed.
    pub reply: &'a [u8],
    /// The HTTP status; one of 400 or more is a request that the server declined for good.
    pub status: u16,
    /// Tokens as counted by the server; `None` when it does not say.
    pub tokens_in: Option<u64>,
    pub tokens_out: Option<u64>,
    /// Thousand-millionths of a US dollar; `None` for a teacher without prices.
    pub usd_nano: Option<u64>,
    /// Times that the request was sent for this reply.
    pub attempts: u32,
    pub latency_ms: u64,
    pub created_unix_ms: i64,
}

/// What to do when there is a reply for the key already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfPresent {
    /// Two finished calls for one key: the first one counts, so that every run sees the same.
    KeepFirst,
    /// A fresh answer was asked for: it takes the place of the old one.
    Replace,
}

/// What became of a saved reply. Its spending is recorded in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// It is the key's reply now.
    Stored,
    /// There was one before, and that is the key's reply; read it with [`Store::reply`].
    KeptFirst,
}

/// A reply from the store. The bodies are decompressed when asked for.
#[derive(Clone, Debug)]
pub struct StoredReply {
    pub key: Key,
    pub origin: Origin,
    /// The HTTP status that the reply came with.
    pub status: u16,
    pub tokens_in: Option<u64>,
    pub tokens_out: Option<u64>,
    pub usd_nano: Option<u64>,
    pub attempts: u32,
    pub latency_ms: u64,
    pub created_unix_ms: i64,
    /// Sizes before compression.
    pub request_bytes: u64,
    pub reply_bytes: u64,
    /// Its place in the store, for paging.
    pub(super) id: i64,
    request_packed: Vec<u8>,
    reply_packed: Vec<u8>,
    store: Arc<PathBuf>,
}

impl StoredReply {
    /// The request, as it was saved. Fails with [`StoreError::Corrupt`] when it cannot be unpacked.
    pub fn request(&self) -> Result<Vec<u8>, StoreError> {
        self.unpack(&self.request_packed, self.request_bytes)
    }

    /// The reply's body, as it was saved. Fails with [`StoreError::Corrupt`] when it cannot be
    /// unpacked.
    pub fn reply(&self) -> Result<Vec<u8>, StoreError> {
        self.unpack(&self.reply_packed, self.reply_bytes)
    }

    fn unpack(&self, packed: &[u8], bytes: u64) -> Result<Vec<u8>, StoreError> {
        decompress(packed, bytes).ok_or_else(|| StoreError::Corrupt {
            path: self.store.to_path_buf(),
            detail: format!("the reply `{}` does not decompress", self.key),
        })
    }
}

impl Store {
    /// Saves a reply and what it cost; resolves when both are on disk, in one transaction. Do not
    /// drop the future before: a command that waits for room in the queue is not sent yet.
    ///
    /// A reservation that is not open any more does not stop the reply; the cost is added anyway.
    pub async fn save_reply(
        &self,
        reply: &NewReply<'_>,
        spending: Option<Spending>,
        if_present: IfPresent,
    ) -> Result<Saved, StoreError> {
        let packed = Packed::of(self, reply)?;
        self.write(move |desk| {
            if let Some(spending) = spending {
                if let Some(id) = spending.reservation {
                    ledger::close_reservation(&desk.connection, id)?;
                }
                ledger::add_spending(desk, &spending.charge, spending.actual);
            }
            packed.insert(desk, if_present)
        })
        .await
    }

    /// The reply for a key. Sees every reply whose `save_reply` has resolved. Blocks for some tens
    /// of microseconds.
    pub fn reply(&self, key: Key) -> Result<Option<StoredReply>, StoreError> {
        let store = self.file();
        self.read(|connection| {
            connection
                .prepare_cached(BY_KEY)?
                .query_row([key.0], |row| StoredReply::from_row(row, &store))
                .optional()
        })
    }

    /// Which of the keys have a reply, in their order.
    pub fn has(&self, keys: &[Key]) -> Result<Vec<bool>, StoreError> {
        let known = self.read(|connection| {
            // One transaction: one consistent look, and locks taken once.
            let look = connection.unchecked_transaction()?;
            let mut statement = look.prepare_cached("SELECT 1 FROM replies WHERE key = ?1")?;
            let known: rusqlite::Result<Vec<bool>> =
                keys.iter().map(|key| statement.exists([key.0])).collect();
            known
        })?;
        // A store that does not exist yet reads as an empty list.
        Ok(if known.is_empty() { vec![false; keys.len()] } else { known })
    }

    /// Forgets a key's reply; whether there was one. What it cost stays in the ledger.
    pub async fn delete_reply(&self, key: Key) -> Result<bool, StoreError> {
        self.write(move |desk| delete(&desk.connection, key)).await
    }
}

/// A reply on its way to the writer.
pub(super) struct Packed {
    key: Key,
    origin: Arc<Origin>,
    request: Vec<u8>,
    reply: Vec<u8>,
    request_bytes: usize,
    reply_bytes: usize,
    status: u16,
    tokens_in: Option<i64>,
    tokens_out: Option<i64>,
    usd_nano: Option<i64>,
    attempts: u32,
    latency_ms: i64,
    created_unix_ms: i64,
}

impl Packed {
    pub fn of(store: &Store, reply: &NewReply<'_>) -> Result<Packed, StoreError> {
        let pack = |what, body: &[u8]| {
            if body.len() > BODY_BYTES_MAX {
                return Err(StoreError::TooBig { what, bytes: body.len(), bytes_max: BODY_BYTES_MAX });
            }
            compress(body).map_err(|error| StoreError::from_io(&store.file(), &error))
        };
        let count = |number: u64| to_db(number.min(COUNT_MAX));
        Ok(Packed {
            key: reply.key,
            origin: Arc::clone(&reply.origin),
            request: pack("request", reply.request)?,
            reply: pack("reply", reply.reply)?,
            request_bytes: reply.request.len(),
            reply_bytes: reply.reply.len(),
            status: reply.status,
            tokens_in: reply.tokens_in.map(count),
            tokens_out: reply.tokens_out.map(count),
            usd_nano: reply.usd_nano.map(count),
            attempts: reply.attempts,
            latency_ms: count(reply.latency_ms),
            created_unix_ms: reply.created_unix_ms,
        })
    }

    pub fn insert(&self, desk: &mut Desk, if_present: IfPresent) -> rusqlite::Result<Saved> {
        if if_present == IfPresent::Replace {
            delete(&desk.connection, self.key)?;
        }
        let origin = origin_id(desk, &self.origin)?;
        let inserted = desk.connection.prepare_cached(INSERT_REPLY)?.execute(params![
            self.key.0,
            origin,
            size(self.request_bytes),
            size(self.reply_bytes),
            size(self.request.len() + self.reply.len()),
            self.tokens_in,
            self.tokens_out,
            self.usd_nano,
            self.attempts,
            self.latency_ms,
            self.created_unix_ms,
            self.status,
        ])?;
        if inserted == 0 {
            return Ok(Saved::KeptFirst);
        }
        desk.connection
            .prepare_cached("INSERT INTO bodies (id, request, reply) VALUES (?1, ?2, ?3)")?
            .execute(params![desk.connection.last_insert_rowid(), self.request, self.reply])?;
        Ok(Saved::Stored)
    }
}

const INSERT_REPLY: &str = "
INSERT INTO replies (key, origin, request_bytes, reply_bytes, stored_bytes, tokens_in, tokens_out,
                     usd_nano, attempts, latency_ms, created_unix_ms, status)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
ON CONFLICT (key) DO NOTHING";

/// All of a reply, in the order that [`StoredReply::from_row`] reads. A macro and not a constant,
/// so that statements can be put together at compile time.
macro_rules! select_replies {
    ($($rest:tt)*) => {
        concat!(
            "SELECT r.key, r.request_bytes, r.reply_bytes, r.tokens_in, r.tokens_out, r.usd_nano, r.attempts,
                    r.latency_ms, r.created_unix_ms, o.epoch, o.pipeline, o.step, o.teacher, o.endpoint,
                    o.wire, o.model, b.request, b.reply, r.id, r.status
             FROM replies r JOIN origins o ON o.id = r.origin JOIN bodies b ON b.id = r.id ",
            $($rest)*
        )
    };
}
pub(super) use select_replies;

const BY_KEY: &str = select_replies!("WHERE r.key = ?1");

impl StoredReply {
    pub(super) fn from_row(row: &Row<'_>, store: &Arc<PathBuf>) -> rusqlite::Result<StoredReply> {
        Ok(StoredReply {
            key: Key(row.get(0)?),
            request_bytes: from_db(row.get(1)?),
            reply_bytes: from_db(row.get(2)?),
            tokens_in: row.get::<_, Option<i64>>(3)?.map(from_db),
            tokens_out: row.get::<_, Option<i64>>(4)?.map(from_db),
            usd_nano: row.get::<_, Option<i64>>(5)?.map(from_db),
            attempts: row.get(6)?,
            latency_ms: from_db(row.get(7)?),
            created_unix_ms: row.get(8)?,
            origin: Origin {
                epoch: row.get(9)?,
                pipeline: row.get(10)?,
                step: row.get(11)?,
                teacher: row.get(12)?,
                endpoint: row.get(13)?,
                wire: row.get(14)?,
                model: row.get(15)?,
            },
            request_packed: row.get(16)?,
            reply_packed: row.get(17)?,
            id: row.get(18)?,
            status: row.get(19)?,
            store: Arc::clone(store),
        })
    }
}

fn delete(connection: &Connection, key: Key) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached("DELETE FROM replies WHERE key = ?1")?.execute([key.0])? > 0)
}

/// The row of an origin, made if need be. There are few of them, and each is looked up once.
fn origin_id(desk: &mut Desk, origin: &Arc<Origin>) -> rusqlite::Result<i64> {
    if let Some(id) = desk.origins.get(origin) {
        return Ok(*id);
    }
    let Origin { epoch, pipeline, step, teacher, endpoint, wire, model } = &**origin;
    let values = params![epoch, pipeline, step, teacher, endpoint, wire, model];
    let known = desk
        .connection
        .prepare_cached(
            "SELECT id FROM origins WHERE epoch = ?1 AND pipeline IS ?2 AND step = ?3 AND teacher = ?4
             AND endpoint = ?5 AND wire = ?6 AND model = ?7",
        )?
        .query_row(values, |row| row.get(0))
        .optional()?;
    let id = match known {
        Some(id) => id,
        None => {
            desk.connection
                .prepare_cached(
                    "INSERT INTO origins (epoch, pipeline, step, teacher, endpoint, wire, model)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(values)?;
            desk.connection.last_insert_rowid()
        }
    };
    if desk.origins.len() >= ORIGINS_MAX {
        desk.origins.clear();
    }
    desk.origins.insert(Arc::clone(origin), id);
    Ok(id)
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

thread_local! {
    // Contexts are dear to make (hundreds of KB) and cheap to use again.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The body as it is stored: packed where that makes it shorter, else as it is. [`decompress`] tells them
/// apart by their length.
pub(super) fn compress(body: &[u8]) -> io::Result<Vec<u8>> {
    if body.len() < PACKED_BYTES_MIN && !body.starts_with(&ZSTD_MAGIC) {
        return Ok(body.to_vec());
    }
    let packed = pack(body)?;
    let shorter = packed.len() < body.len() || body.starts_with(&ZSTD_MAGIC);
    Ok(if shorter { packed } else { body.to_vec() })
}

fn pack(body: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let mut context = match slot.take() {
            Some(context) => context,
            None => Compressor::new(ZSTD_LEVEL)?,
        };
        let mut packed = context.compress(body)?;
        // The buffer was made for the worst case, and may wait in the queue for a while.
        packed.shrink_to_fit();
        *slot = Some(context);
        Ok(packed)
    })
}

/// `None` when it is not `bytes` of something that [`compress`] made.
pub(super) fn decompress(packed: &[u8], bytes: u64) -> Option<Vec<u8>> {
    let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= BODY_BYTES_MAX)?;
    // A body is JSON or a line of text, which no frame's magic number can begin.
    if packed.len() == bytes && !packed.starts_with(&ZSTD_MAGIC) {
        return Some(packed.to_vec());
    }
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let mut context = match slot.take() {
            Some(context) => context,
            None => Decompressor::new().ok()?,
        };
        let body = context.decompress(packed, bytes).ok()?;
        *slot = Some(context);
        (body.len() == bytes).then_some(body)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::{self, body, key, reply, save};
    use super::super::{Amount, Filter};
    use super::*;

    #[tokio::test]
    async fn a_reply_comes_back_as_it_was_saved() {
        let fixture = fixture::open();
        let Origin { epoch, step, .. } = (*fixture::origin("draft")).clone();
        let origin = Origin { pipeline: None, ..(*fixture::origin("draft")).clone() };
        let new =
            NewReply { tokens_in: None, usd_nano: None, origin: Arc::new(origin.clone()), ..reply(1, "é") };
        fixture.store.save_reply(&new, None, IfPresent::KeepFirst).await.unwrap();
        let stored = fixture.reopen().store.reply(key(1)).unwrap().unwrap();
        assert_eq!((stored.key, &stored.origin), (key(1), &origin));
        assert_eq!((stored.origin.epoch.as_str(), stored.origin.step.as_str()), (&*epoch, &*step));
        assert_eq!((stored.tokens_in, stored.tokens_out, stored.usd_nano), (None, Some(20), None));
        assert_eq!((stored.attempts, stored.latency_ms, stored.created_unix_ms), (1, 812, 1_000));
        assert_eq!((stored.request_bytes, stored.reply_bytes), (9, 2));
        assert_eq!(stored.request().unwrap(), new.request);
        assert_eq!(stored.reply().unwrap(), new.reply);
    }

    /// Saves `texts` for one key in turn; what is kept, and what the last save says.
    async fn check_second(texts: &[&str], if_present: IfPresent, kept: &str, saved: Saved) {
        let fixture = fixture::open();
        let mut last = Saved::Stored;
        for text in texts {
            last = fixture.store.save_reply(&reply(1, text), None, if_present).await.unwrap();
        }
        assert_eq!((body(&fixture.store, 1).as_deref(), last), (Some(kept), saved));
        let all = fixture.store.matching(&Filter::default()).unwrap();
        assert_eq!(all.replies, 1);
        let bodies = fixture
            .store
            .read(|connection| connection.query_row("SELECT count(*) FROM bodies", [], |row| row.get(0)));
        assert_eq!(bodies, Ok(1));
    }

    #[tokio::test]
    async fn the_first_reply_stays_unless_replaced() {
        check_second(&["a"], IfPresent::KeepFirst, "a", Saved::Stored).await;
        check_second(&["a", "b"], IfPresent::KeepFirst, "a", Saved::KeptFirst).await;
        check_second(&["a", "b"], IfPresent::Replace, "b", Saved::Stored).await;
    }

    #[tokio::test]
    async fn a_deleted_reply_is_gone_and_can_be_saved_again() {
        let fixture = fixture::open();
        save(&fixture.store, 1, "a").await;
        assert!(fixture.store.delete_reply(key(1)).await.unwrap());
        assert!(!fixture.store.delete_reply(key(1)).await.unwrap());
        assert_eq!(body(&fixture.store, 1), None);
        save(&fixture.store, 1, "b").await;
        assert_eq!(body(&fixture.store, 1).as_deref(), Some("b"));
    }

    #[tokio::test]
    async fn a_body_over_the_bound_is_refused() {
        let fixture = fixture::open();
        let big = vec![0; BODY_BYTES_MAX + 1];
        let new = NewReply { reply: &big, ..reply(1, "") };
        let error = fixture.store.save_reply(&new, None, IfPresent::KeepFirst).await.unwrap_err();
        assert!(error.to_string().contains("a reply of 67108865 bytes is too big"), "{error}");
    }

    #[tokio::test]
    async fn a_damaged_body_is_an_error_and_no_text() {
        let fixture = fixture::open();
        save(&fixture.store, 1, "a").await;
        let damage = |desk: &mut Desk| desk.connection.execute("UPDATE bodies SET reply = x'0000'", []);
        fixture.store.write(damage).await.unwrap();
        let error = fixture.store.reply(key(1)).unwrap().unwrap().reply().unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_callers_at_once_each_find_their_own() {
        let fixture = fixture::open();
        let charge = Arc::new(ledger::Charge::new("exercises", "0", "draft", 0));
        let tasks: Vec<_> = (0..256)
            .map(|number| {
                let (store, charge) = (fixture.store.clone(), Arc::clone(&charge));
                tokio::spawn(async move {
                    let actual = Amount { usd_nano: number, tokens: 2, calls: 1 };
                    let spending = Spending { charge, reservation: None, actual };
                    let text = format!("body {number}");
                    let new = reply(number, &text);
                    store.save_reply(&new, Some(spending), IfPresent::KeepFirst).await.unwrap();
                    assert_eq!(body(&store, number), Some(text));
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let spent = fixture.store.spent(&charge.epoch).unwrap();
        assert_eq!(spent.settled, Amount { usd_nano: 255 * 128, tokens: 512, calls: 256 });
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]
        #[test]
        fn any_bytes_survive_compression(body in proptest::collection::vec(any::<u8>(), 0..4000), times in 1_usize..4) {
            let body = body.repeat(times);
            let packed = compress(&body).unwrap();
            prop_assert_eq!(decompress(&packed, body.len() as u64), Some(body.clone()));
            prop_assert_eq!(decompress(&packed, body.len() as u64 + 1), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..Default::default() })]
        #[test]
        fn any_bytes_survive_the_store(
            bodies in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 1..8),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let fixture = fixture::open();
            for (number, (request, answer)) in (0..).zip(&bodies) {
                let new = NewReply { request, reply: answer, ..reply(number, "") };
                runtime.block_on(fixture.store.save_reply(&new, None, IfPresent::KeepFirst)).unwrap();
                let stored = fixture.store.reply(key(number)).unwrap().unwrap();
                prop_assert_eq!((&stored.request().unwrap(), &stored.reply().unwrap()), (request, answer));
            }
        }
    }
}
