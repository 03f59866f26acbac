//! Batches: requests that wait for company, batches that a provider has, what became of them.
//!
//! An item waits without a batch, is given one before that is sent, and goes when its reply is saved, all in
//! one transaction each: whatever moment a process dies at, an item is either still in a batch that can be asked
//! about, or was never sent. An item in a batch is its own reservation. What a batch means to its provider is
//! not known here.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, params};

use super::error::StoreError;
use super::ledger::{self, Amount, Caps, Charge, Spent};
use super::replies::{self, IfPresent, NewReply, Packed};
use super::{Key, Store, from_db, to_db};

/// `batches.provider_id` is null from before a batch is sent until its provider has named it.
pub(super) const TABLES: &str = "
CREATE TABLE batches (
    id INTEGER PRIMARY KEY,
    token TEXT NOT NULL UNIQUE,
    provider_id TEXT,
    run TEXT NOT NULL,
    process INTEGER NOT NULL,
    teacher TEXT NOT NULL,
    wire TEXT NOT NULL,
    items INTEGER NOT NULL,
    sent_unix_ms INTEGER NOT NULL,
    ended_unix_ms INTEGER,
    answered INTEGER NOT NULL DEFAULT 0,
    declined INTEGER NOT NULL DEFAULT 0,
    again INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE batch_items (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    batch INTEGER,
    run TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    epoch TEXT NOT NULL,
    step TEXT NOT NULL,
    scope TEXT NOT NULL,
    step_sum TEXT NOT NULL,
    day_sum TEXT,
    day INTEGER,
    usd_nano INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    replaces INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    request BLOB NOT NULL
) STRICT;

CREATE INDEX batch_items_reserved ON batch_items (batch, scope, step_sum, day_sum, usd_nano, tokens)
WHERE batch IS NOT NULL;
";

/// All calls of a batch ask one model: teachers of one server tell their batches apart by it. What was sent before
/// this was known may be of any.
pub(super) const MODELS: &str = "
ALTER TABLE batches ADD COLUMN model TEXT NOT NULL DEFAULT '';
";

/// Whose batches: what the calls of a batch have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchesOf {
    /// The teacher's identity, its wire format, and the model.
    pub teacher: String,
    pub wire: String,
    pub model: String,
}

/// A request that is to go with a batch.
#[derive(Clone, Debug)]
pub struct NewItem<'a> {
    pub key: Key,
    /// The run that asks.
    pub run: &'a str,
    pub pipeline: &'a str,
    pub epoch: &'a str,
    pub step: &'a str,
    /// The most that it may cost.
    pub worst: Amount,
    /// Whether its reply takes the place of one that is there.
    pub replaces: bool,
    pub request: &'a [u8],
    /// A reply saved since this time answers it: it came while nobody looked.
    pub answered_since_unix_ms: i64,
}

/// What became of a [`NewItem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It waits for a batch.
    Waits,
    /// The same request waits or is in a batch already; whether it is a run of its own that asked it.
    UnderWay { ours: bool },
    /// Its reply is in the store.
    Answered,
}

/// An item as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchItem {
    pub key: Key,
    pub batch: Option<i64>,
    /// The run that asks, or that has put it into its batch.
    pub run: String,
    pub pipeline: String,
    pub epoch: String,
    pub step: String,
    pub worst: Amount,
    /// The day that it counts on, from 1970-01-01 in UTC: that of its batch.
    pub day: Option<i64>,
    /// Batches that it was in and came back from without an answer.
    pub attempts: u32,
    pub replaces: bool,
    pub request: Vec<u8>,
}

/// A batch that is about to be sent.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Made up by us, so that the batch can be found at its provider though its answer was never read.
    pub token: String,
    /// The run that sends it.
    pub run: String,
    pub of: BatchesOf,
    pub sent_unix_ms: i64,
    /// The day that its items count on, from 1970-01-01 in UTC.
    pub day: i64,
}

/// A batch as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub id: i64,
    pub token: String,
    /// Nothing while it is not known whether the provider has it.
    pub provider_id: Option<String>,
    pub of: BatchesOf,
    pub items: u64,
    pub sent_unix_ms: i64,
    pub ended_unix_ms: Option<i64>,
    pub end: BatchEnd,
}

/// What became of a batch's items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchEnd {
    pub answered: u64,
    pub declined: u64,
    /// Expired and failed ones, to be asked again.
    pub again: u64,
}

/// What an item's batch brought for it.
pub enum ItemEnd<'a> {
    /// A reply, also one that declines for good.
    Reply(NewReply<'a>),
    /// Nothing: it waits for another batch of this run.
    Again { run: String },
    /// Nothing, and it is not wanted any more.
    Dropped,
}

/// Whether an item was still in its batch when its end was recorded: another process may have been first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    First,
    Late,
}

/// The run that follows an item: that of its batch, else the one that asks.
const HOLDER: &str = "
SELECT coalesce(b.run, i.run) FROM batch_items i LEFT JOIN batches b ON b.id = i.batch WHERE i.key = ?1";

/// What came of wanting to close a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    Batch(Batch),
    /// The day has no room for it beside what it has come to.
    Full(Spent),
}

/// The condition of a teacher's batches that no run follows.
macro_rules! ownerless {
    () => {
        "ended_unix_ms IS NULL AND teacher = ?1 AND wire = ?2 AND model IN (?3, '')
         AND run NOT IN (SELECT id FROM runs WHERE status = 'running')"
    };
}

impl Store {
    /// Has a request wait for a batch; resolves when that is on disk.
    pub async fn put_item(&self, item: &NewItem<'_>) -> Result<Put, StoreError> {
        let packed =
            replies::compress(item.request).map_err(|error| StoreError::from_io(&self.file(), &error))?;
        let NewItem { key, worst, replaces, answered_since_unix_ms: since, .. } = *item;
        let [run, pipeline, epoch, step] =
            [item.run, item.pipeline, item.epoch, item.step].map(str::to_owned);
        let scope = Charge::epoch(item.pipeline, item.epoch);
        let step_sum = Charge::step(item.pipeline, item.epoch, item.step);
        let bytes = to_db(item.request.len() as u64);
        self.write(move |desk| {
            let answered = desk
                .connection
                .prepare_cached("SELECT 1 FROM replies WHERE key = ?1 AND created_unix_ms >= ?2")?
                .exists(params![key.0, since])?;
            if answered {
                return Ok(Put::Answered);
            }
            // What waits for a batch of a run that is over waits for nothing.
            desk.connection
                .prepare_cached(
                    "DELETE FROM batch_items WHERE key = ?1 AND batch IS NULL AND run <> ?2
                     AND run NOT IN (SELECT id FROM runs WHERE status = 'running')",
                )?
                .execute(params![key.0, run])?;
            let inserted = desk
                .connection
                .prepare_cached(
                    "INSERT INTO batch_items (key, run, pipeline, epoch, step, scope, step_sum, usd_nano, tokens, attempts,
                                              replaces, request_bytes, request)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10, ?11, ?12) ON CONFLICT (key) DO NOTHING",
                )?
                .execute(params![
                    key.0,
                    run,
                    pipeline,
                    epoch,
                    step,
                    scope,
                    step_sum,
                    to_db(worst.usd_nano),
                    to_db(worst.tokens),
                    replaces,
                    bytes,
                    packed
                ])?;
            if inserted > 0 {
                return Ok(Put::Waits);
            }
            let holder: String = desk.connection.prepare_cached(HOLDER)?.query_row([key.0], |row| row.get(0))?;
            Ok(Put::UnderWay { ours: holder == run })
        })
        .await
    }

    /// Forgets the items of a pipeline's epoch that wait for a batch of another run: those runs are over, and this one asks
    /// for what it needs.
    pub async fn drop_waiting(&self, pipeline: &str, epoch: &str, run: &str) -> Result<(), StoreError> {
        let (scope, run) = (Charge::epoch(pipeline, epoch), run.to_owned());
        self.write(move |desk| {
            desk.connection
                .prepare_cached("DELETE FROM batch_items WHERE batch IS NULL AND scope = ?1 AND run <> ?2")?
                .execute([scope, run])
                .map(drop)
        })
        .await
    }

    /// Takes waiting items back that are not to be sent.
    pub async fn take_back(&self, keys: Vec<Key>) -> Result<(), StoreError> {
        self.write(move |desk| {
            let mut delete =
                desk.connection.prepare_cached("DELETE FROM batch_items WHERE key = ?1 AND batch IS NULL")?;
            keys.iter().try_for_each(|key| delete.execute([key.0]).map(drop))
        })
        .await
    }

    /// Puts waiting items into a new batch, which counts as sent from now on; from here on they are reserved, at
    /// `worst` in all. That the day of all processes stays within its caps can only be seen to here.
    pub async fn close_batch(
        &self,
        new: NewBatch,
        keys: Vec<Key>,
        worst: Amount,
        per_day: Caps,
    ) -> Result<Closed, StoreError> {
        self.write(move |desk| {
            let day_sum: Arc<str> = Charge::day(new.day).into();
            if let Some(spent) = ledger::full_day(desk, &day_sum, worst, per_day)? {
                return Ok(Closed::Full(spent));
            }
            let connection = &desk.connection;
            let items = keys.len() as u64;
            connection
                .prepare_cached(
                    "INSERT INTO batches (token, run, process, teacher, wire, model, items, sent_unix_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    new.token,
                    new.run,
                    desk.process,
                    new.of.teacher,
                    new.of.wire,
                    new.of.model,
                    to_db(items),
                    new.sent_unix_ms
                ])?;
            let id = connection.last_insert_rowid();
            let mut update = connection.prepare_cached(
                "UPDATE batch_items SET batch = ?2, day = ?3, day_sum = ?4 WHERE key = ?1 AND batch IS NULL",
            )?;
            keys.iter().try_for_each(|key| update.execute(params![key.0, id, new.day, day_sum]).map(drop))?;
            Ok(Closed::Batch(Batch {
                id,
                token: new.token,
                provider_id: None,
                of: new.of,
                items,
                sent_unix_ms: new.sent_unix_ms,
                ended_unix_ms: None,
                end: BatchEnd::default(),
            }))
        })
        .await
    }

    /// Takes over, for a run, the batches of a teacher whose runs are over.
    pub async fn adopt_batches(&self, of: &BatchesOf, run: &str) -> Result<(), StoreError> {
        let BatchesOf { teacher, wire, model } = of;
        let ownerless = self.read(|connection| {
            connection
                .prepare_cached(concat!("SELECT 1 FROM batches WHERE ", ownerless!()))?
                .exists([teacher, wire, model])
        })?;
        if !ownerless {
            return Ok(());
        }
        let (BatchesOf { teacher, wire, model }, run) = (of.clone(), run.to_owned());
        self.write(move |desk| {
            desk.day = None;
            desk.connection
                .prepare_cached(concat!(
                    "UPDATE batches SET model = ?3, run = ?4, process = ?5 WHERE ",
                    ownerless!()
                ))?
                .execute(params![teacher, wire, model, run, desk.process])
                .map(drop)
        })
        .await
    }

    /// Records that a batch is sent (again) now.
    pub async fn batch_sent(&self, id: i64, sent_unix_ms: i64) -> Result<(), StoreError> {
        let set = "UPDATE batches SET sent_unix_ms = ?2 WHERE id = ?1";
        self.write(move |desk| desk.connection.prepare_cached(set)?.execute([id, sent_unix_ms]).map(drop))
            .await
    }

    /// Records what the provider calls a batch.
    pub async fn batch_accepted(&self, id: i64, provider_id: &str) -> Result<(), StoreError> {
        let provider_id = provider_id.to_owned();
        let set = "UPDATE batches SET provider_id = ?2 WHERE id = ?1";
        self.write(move |desk| {
            desk.connection.prepare_cached(set)?.execute(params![id, provider_id]).map(drop)
        })
        .await
    }

    /// Forgets a batch that its provider never had. Its items go with it but for those of `keep`, which wait again.
    pub async fn batch_unsent(&self, id: i64, keep: Vec<Key>, run: &str) -> Result<(), StoreError> {
        let run = run.to_owned();
        self.write(move |desk| {
            let connection = &desk.connection;
            let mut update = connection.prepare_cached(
                "UPDATE batch_items SET batch = NULL, run = ?3 WHERE key = ?1 AND batch = ?2",
            )?;
            keep.iter().try_for_each(|key| update.execute(params![key.0, id, run]).map(drop))?;
            connection.prepare_cached("DELETE FROM batch_items WHERE batch = ?1")?.execute([id])?;
            connection.prepare_cached("DELETE FROM batches WHERE id = ?1")?.execute([id]).map(drop)
        })
        .await
    }

    /// Gives up a batch that its provider may have worked on: its items count as spent at their worst case.
    /// Whether there was such a batch.
    pub async fn forget_batch(&self, provider_id: &str, ended_unix_ms: i64) -> Result<bool, StoreError> {
        let name = provider_id.to_owned();
        self.write(move |desk| {
            let find =
                "SELECT id FROM batches WHERE (provider_id = ?1 OR token = ?1) AND ended_unix_ms IS NULL";
            let id: Option<i64> =
                desk.connection.prepare_cached(find)?.query_row([name], |row| row.get(0)).optional()?;
            let Some(id) = id else { return Ok(false) };
            let sums: Vec<(Charge, Amount)> = desk
                .connection
                .prepare_cached(
                    "SELECT scope, step_sum, day_sum, sum(usd_nano), sum(tokens), count(*) FROM batch_items
                     WHERE batch = ?1 GROUP BY scope, step_sum, day_sum",
                )?
                .query_map([id], |row| {
                    let (usd_nano, tokens) = (from_db(row.get(3)?), from_db(row.get(4)?));
                    Ok((charge(row, 0)?, Amount { usd_nano, tokens, calls: from_db(row.get(5)?) }))
                })?
                .collect::<rusqlite::Result<_>>()?;
            for (charge, worst) in sums {
                ledger::add_spending(desk, &charge.into(), worst);
            }
            desk.connection.prepare_cached("DELETE FROM batch_items WHERE batch = ?1")?.execute([id])?;
            let end = "UPDATE batches SET ended_unix_ms = ?2 WHERE id = ?1";
            desk.connection.prepare_cached(end)?.execute([id, ended_unix_ms])?;
            Ok(true)
        })
        .await
    }

    /// Records what an item's batch brought for it, and what that cost.
    pub async fn end_item(
        &self,
        key: Key,
        batch: i64,
        end: ItemEnd<'_>,
        actual: Amount,
    ) -> Result<Came, StoreError> {
        enum Work {
            Save(Packed),
            Again(String),
            Drop,
        }
        let work = match end {
            ItemEnd::Reply(reply) => Work::Save(Packed::of(self, &reply)?),
            ItemEnd::Again { run } => Work::Again(run),
            ItemEnd::Dropped => Work::Drop,
        };
        self.write(move |desk| {
            let is_there =
                "SELECT scope, step_sum, day_sum, replaces FROM batch_items WHERE key = ?1 AND batch = ?2";
            let item: Option<(Charge, bool)> = desk
                .connection
                .prepare_cached(is_there)?
                .query_row(params![key.0, batch], |row| Ok((charge(row, 0)?, row.get(3)?)))
                .optional()?;
            let Some((charge, replaces)) = item else { return Ok(Came::Late) };
            ledger::add_spending(desk, &charge.into(), actual);
            if let Work::Again(run) = work {
                desk.connection
                    .prepare_cached(
                        "UPDATE batch_items SET batch = NULL, run = ?2, attempts = attempts + 1 WHERE key = ?1",
                    )?
                    .execute(params![key.0, run])?;
                return Ok(Came::First);
            }
            desk.connection.prepare_cached("DELETE FROM batch_items WHERE key = ?1")?.execute([key.0])?;
            if let Work::Save(packed) = work {
                packed.insert(desk, if replaces { IfPresent::Replace } else { IfPresent::KeepFirst })?;
            }
            Ok(Came::First)
        })
        .await
    }

    /// Records that nothing more comes of a batch.
    pub async fn end_batch(&self, id: i64, end: BatchEnd, ended_unix_ms: i64) -> Result<(), StoreError> {
        self.write(move |desk| {
            desk.connection
                .prepare_cached(
                    "UPDATE batches SET ended_unix_ms = ?2, answered = ?3, declined = ?4, again = ?5
                     WHERE id = ?1 AND ended_unix_ms IS NULL",
                )?
                .execute([id, ended_unix_ms, to_db(end.answered), to_db(end.declined), to_db(end.again)])
                .map(drop)
        })
        .await
    }

    /// The batches of a run that have not ended, oldest first.
    pub fn living_batches(&self, of: &BatchesOf, run: &str) -> Result<Vec<Batch>, StoreError> {
        let BatchesOf { teacher, wire, model } = of;
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT * FROM batches WHERE ended_unix_ms IS NULL AND teacher = ?1 AND wire = ?2 AND model = ?3
                     AND run = ?4 ORDER BY id",
                )?
                .query_map([teacher, wire, model, run], batch_from_row)?
                .collect()
        })
    }

    /// All batches, the newest first, `batches_max` at most.
    pub fn batches(&self, batches_max: u32) -> Result<Vec<Batch>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT * FROM batches ORDER BY id DESC LIMIT ?1")?
                .query_map([batches_max], batch_from_row)?
                .collect()
        })
    }

    /// The item of a key.
    pub fn batch_item(&self, key: Key) -> Result<Option<BatchItem>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT * FROM batch_items WHERE key = ?1")?
                .query_row([key.0], item_from_row)
                .optional()
        })
    }

    /// Which of the keys no other run that goes on has put down any more.
    pub fn left_by_others(&self, keys: &[Key], run: &str) -> Result<Vec<bool>, StoreError> {
        self.read(|connection| {
            let mut holder = connection.prepare_cached(HOLDER)?;
            let mut goes_on =
                connection.prepare_cached("SELECT 1 FROM runs WHERE id = ?1 AND status = 'running'")?;
            let left = keys.iter().map(|key| -> rusqlite::Result<bool> {
                let holder: Option<String> = holder.query_row([key.0], |row| row.get(0)).optional()?;
                match holder {
                    Some(holder) if holder != run => Ok(!goes_on.exists([holder])?),
                    _ => Ok(true),
                }
            });
            left.collect()
        })
    }

    /// The keys of a batch's items that have not ended, by the order in which they came.
    pub fn keys_of_batch(&self, batch: i64) -> Result<Vec<Key>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached("SELECT key FROM batch_items WHERE batch = ?1 ORDER BY id")?
                .query_map([batch], |row| row.get(0).map(Key))?
                .collect()
        })
    }
}

/// The sums that an item in a batch adds to, from three columns.
fn charge(row: &Row<'_>, first_column: usize) -> rusqlite::Result<Charge> {
    let name = |column| row.get::<_, String>(first_column + column).map(Into::into);
    Ok(Charge { epoch: name(0)?, step: name(1)?, day: name(2)? })
}

fn batch_from_row(row: &Row<'_>) -> rusqlite::Result<Batch> {
    Ok(Batch {
        id: row.get("id")?,
        token: row.get("token")?,
        provider_id: row.get("provider_id")?,
        of: BatchesOf { teacher: row.get("teacher")?, wire: row.get("wire")?, model: row.get("model")? },
        items: from_db(row.get("items")?),
        sent_unix_ms: row.get("sent_unix_ms")?,
        ended_unix_ms: row.get("ended_unix_ms")?,
        end: BatchEnd {
            answered: from_db(row.get("answered")?),
            declined: from_db(row.get("declined")?),
            again: from_db(row.get("again")?),
        },
    })
}

fn item_from_row(row: &Row<'_>) -> rusqlite::Result<BatchItem> {
    let packed: Vec<u8> = row.get("request")?;
    let bytes = from_db(row.get("request_bytes")?);
    let damaged =
        || rusqlite::Error::InvalidColumnType(16, "request".to_owned(), rusqlite::types::Type::Blob);
    Ok(BatchItem {
        key: Key(row.get("key")?),
        batch: row.get("batch")?,
        run: row.get("run")?,
        pipeline: row.get("pipeline")?,
        epoch: row.get("epoch")?,
        step: row.get("step")?,
        worst: Amount {
            usd_nano: from_db(row.get("usd_nano")?),
            tokens: from_db(row.get("tokens")?),
            calls: 1,
        },
        day: row.get("day")?,
        attempts: row.get("attempts")?,
        replaces: row.get("replaces")?,
        request: replies::decompress(&packed, bytes).ok_or_else(damaged)?,
    })
}

#[cfg(test)]
mod tests;
