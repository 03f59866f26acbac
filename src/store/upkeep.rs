//! Looking over the whole store: statistics, exports, pruning, compacting, checking. One reply by
//! its key is in `replies.rs`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rusqlite::{Connection, Row, ToSql, named_params};

use super::error::StoreError;
use super::replies::{StoredReply, select_replies};
use super::{Store, from_db};

/// Replies read at a time by an export, so that it never holds one long view that would keep the
/// log of a running writer from being cleared.
const PAGE_REPLIES: i64 = 256;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Which replies are meant: those for which all that is given holds. The default means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub older_than_unix_ms: Option<i64>,
    pub teacher: Option<String>,
    pub model: Option<String>,
    pub pipeline: Option<String>,
    pub step: Option<String>,
}

impl Filter {
    fn parameters(&self) -> [(&str, &dyn ToSql); 5] {
        [
            (":before", &self.older_than_unix_ms),
            (":teacher", &self.teacher),
            (":model", &self.model),
            (":pipeline", &self.pipeline),
            (":step", &self.step),
        ]
    }
}

/// The condition of a [`Filter`], over `replies r` and `origins o`.
macro_rules! matching {
    () => {
        "(:before IS NULL OR r.created_unix_ms < :before) AND (:teacher IS NULL OR o.teacher = :teacher)
         AND (:model IS NULL OR o.model = :model) AND (:pipeline IS NULL OR o.pipeline = :pipeline)
         AND (:step IS NULL OR o.step = :step)"
    };
}

/// A number of replies and the bytes that they take in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub replies: u64,
    pub stored_bytes: u64,
}

impl Share {
    fn add(&mut self, other: Share) {
        self.replies += other.replies;
        self.stored_bytes += other.stored_bytes;
    }
}

/// What is in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    pub total: Share,
    /// Requests and replies before compression.
    pub body_bytes: u64,
    pub oldest_unix_ms: Option<i64>,
    pub newest_unix_ms: Option<i64>,
    pub by_teacher: BTreeMap<String, Share>,
    pub by_model: BTreeMap<String, Share>,
    /// By age: up to a day, 7 days, 30 days, older. Each reply is in one of them.
    pub by_age: [Share; 4],
    /// The store's file and its log.
    pub file_bytes: u64,
}

/// How a number is spread over the replies that have it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    pub count: u64,
    pub mean: f64,
    /// Standard deviation, of the whole and not of a sample.
    pub deviation: f64,
    pub max: u64,
}

/// What a step's calls have cost so far, for estimates.
#[derive(Clone, Debug, PartialEq)]
pub struct StepStats {
    pub step: String,
    /// The teacher's identity.
    pub teacher: String,
    pub replies: u64,
    pub tokens_in: Spread,
    pub tokens_out: Spread,
}

impl Store {
    /// Statistics of what every step of a pipeline was answered by each teacher, over all epochs, by the step's
    /// name.
    pub fn step_stats(&self, pipeline: &str) -> Result<Vec<StepStats>, StoreError> {
        self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT o.step, o.teacher, count(*),
                            count(tokens_in), avg(tokens_in), avg(1.0 * tokens_in * tokens_in), max(tokens_in),
                            count(tokens_out), avg(tokens_out), avg(1.0 * tokens_out * tokens_out),
                            max(tokens_out)
                     FROM replies r JOIN origins o ON o.id = r.origin
                     WHERE o.pipeline = ?1 GROUP BY o.step, o.teacher ORDER BY o.step, o.teacher",
                )?
                .query_map([pipeline], |row| {
                    Ok(StepStats {
                        step: row.get(0)?,
                        teacher: row.get(1)?,
                        replies: from_db(row.get(2)?),
                        tokens_in: spread(row, 3)?,
                        tokens_out: spread(row, 7)?,
                    })
                })?
                .collect()
        })
    }

    /// What is in the store, as of now.
    pub fn stats(&self, now_unix_ms: i64) -> Result<StoreStats, StoreError> {
        let mut stats = self.read(|connection| read_stats(connection, now_unix_ms))?;
        stats.file_bytes = self.file_bytes();
        Ok(stats)
    }

    /// How much a filter matches: what [`Store::prune`] would delete.
    pub fn matching(&self, filter: &Filter) -> Result<Share, StoreError> {
        self.read(|connection| share_of(connection, filter))
    }

    /// Deletes the replies that match, and says how much that was; the default filter deletes all of
    /// them. What they cost stays in the ledger. The file shrinks with [`Store::compact`].
    pub async fn prune(&self, filter: Filter) -> Result<Share, StoreError> {
        self.write(move |desk| {
            let share = share_of(&desk.connection, &filter)?;
            desk.connection.execute(
                concat!(
                    "DELETE FROM replies WHERE id IN
                     (SELECT r.id FROM replies r JOIN origins o ON o.id = r.origin WHERE ",
                    matching!(),
                    ")"
                ),
                &filter.parameters()[..],
            )?;
            desk.connection
                .execute("DELETE FROM origins WHERE id NOT IN (SELECT origin FROM replies)", [])?;
            desk.origins.clear();
            Ok(share)
        })
        .await
    }

    /// Gives the space of deleted replies back to the system; the bytes given back. It writes the
    /// whole store anew: slow, and it needs that much free space for the time.
    pub async fn compact(&self) -> Result<u64, StoreError> {
        let before = self.file_bytes();
        self.write_alone(|desk| desk.connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)"))
            .await?;
        Ok(before.saturating_sub(self.file_bytes()))
    }

    /// Reads the whole file and fails with [`StoreError::Corrupt`] when it is damaged. Slow on a
    /// large store; damage that a read or write meets is reported without it.
    pub fn check(&self) -> Result<(), StoreError> {
        let found = self.read(|connection| {
            connection
                .prepare("PRAGMA quick_check(3)")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()
        })?;
        match found.first() {
            Some(first) if first != "ok" => {
                Err(StoreError::Corrupt { path: self.file().to_path_buf(), detail: found.join("; ") })
            }
            _ => Ok(()),
        }
    }

    /// Hands every matching reply to `each`, oldest save first, until it breaks. One reply is in
    /// memory at a time; those saved meanwhile may or may not be among them.
    pub fn export(
        &self,
        filter: &Filter,
        each: &mut dyn FnMut(StoredReply) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut after_id = i64::MIN;
        loop {
            let page = self.page(filter, after_id, each)?;
            match page.last_id {
                Some(last_id) if !page.stopped => after_id = last_id,
                _ => return Ok(()),
            }
        }
    }

    fn page(
        &self,
        filter: &Filter,
        after_id: i64,
        each: &mut dyn FnMut(StoredReply) -> ControlFlow<()>,
    ) -> Result<Page, StoreError> {
        let store = self.file();
        self.read(|connection| {
            let mut parameters = filter.parameters().to_vec();
            parameters.extend([(":after", &after_id as &dyn ToSql), (":limit", &PAGE_REPLIES)]);
            let mut statement = connection.prepare_cached(PAGE)?;
            let mut rows = statement.query(&parameters[..])?;
            let mut page = Page::default();
            while let Some(row) = rows.next()? {
                let reply = StoredReply::from_row(row, &store)?;
                page.last_id = Some(reply.id);
                page.stopped = each(reply).is_break();
                if page.stopped {
                    break;
                }
            }
            Ok(page)
        })
    }

    fn file_bytes(&self) -> u64 {
        let file = self.file();
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let bytes = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |about| about.len());
        bytes(&file) + bytes(log.as_ref())
    }
}

/// How far an export has come.
#[derive(Default)]
struct Page {
    /// `None` when nothing was left.
    last_id: Option<i64>,
    stopped: bool,
}

const PAGE: &str = select_replies!("WHERE r.id > :after AND ", matching!(), " ORDER BY r.id LIMIT :limit");

fn share_of(connection: &Connection, filter: &Filter) -> rusqlite::Result<Share> {
    connection.query_row(
        concat!(
            "SELECT count(*), coalesce(sum(r.stored_bytes), 0)
             FROM replies r JOIN origins o ON o.id = r.origin WHERE ",
            matching!()
        ),
        &filter.parameters()[..],
        |row| Ok(Share { replies: from_db(row.get(0)?), stored_bytes: from_db(row.get(1)?) }),
    )
}

fn read_stats(connection: &Connection, now_unix_ms: i64) -> rusqlite::Result<StoreStats> {
    let mut statement = connection.prepare_cached(
        "SELECT o.teacher, o.model,
                CASE WHEN r.created_unix_ms >= :day THEN 0 WHEN r.created_unix_ms >= :week THEN 1
                     WHEN r.created_unix_ms >= :month THEN 2 ELSE 3 END AS age,
                count(*), sum(r.stored_bytes), sum(r.request_bytes + r.reply_bytes),
                min(r.created_unix_ms), max(r.created_unix_ms)
         FROM replies r JOIN origins o ON o.id = r.origin GROUP BY o.teacher, o.model, age",
    )?;
    let days_ago = |days: i64| now_unix_ms.saturating_sub(days * DAY_MS);
    let mut rows = statement.query(named_params! {
        ":day": days_ago(1), ":week": days_ago(7), ":month": days_ago(30)
    })?;
    let mut stats = StoreStats::default();
    while let Some(row) = rows.next()? {
        let share = Share { replies: from_db(row.get(3)?), stored_bytes: from_db(row.get(4)?) };
        stats.total.add(share);
        stats.by_teacher.entry(row.get(0)?).or_default().add(share);
        stats.by_model.entry(row.get(1)?).or_default().add(share);
        if let Some(age) = stats.by_age.get_mut(usize::from(row.get::<_, u8>(2)?)) {
            age.add(share);
        }
        stats.body_bytes += from_db(row.get(5)?);
        let (oldest, newest): (i64, i64) = (row.get(6)?, row.get(7)?);
        stats.oldest_unix_ms = Some(stats.oldest_unix_ms.map_or(oldest, |before| before.min(oldest)));
        stats.newest_unix_ms = stats.newest_unix_ms.max(Some(newest));
    }
    Ok(stats)
}

/// Reads count, mean, mean of squares and maximum from four columns.
fn spread(row: &Row<'_>, first_column: usize) -> rusqlite::Result<Spread> {
    let mean = row.get::<_, Option<f64>>(first_column + 1)?.unwrap_or(0.0);
    let mean_of_squares = row.get::<_, Option<f64>>(first_column + 2)?.unwrap_or(0.0);
    Ok(Spread {
        count: from_db(row.get(first_column)?),
        mean,
        // Rounding can take the difference a little below zero.
        deviation: (mean_of_squares - mean * mean).max(0.0).sqrt(),
        max: row.get::<_, Option<i64>>(first_column + 3)?.map_or(0, from_db),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fixture::{self, Fixture, key, origin, reply};
    use super::super::{IfPresent, Key, NewReply, Origin};
    use super::*;

    /// Ten replies, one a day: even ones by step `draft`, odd ones by step `judge` of another model.
    async fn ten() -> Fixture {
        let fixture = fixture::open();
        let judge = Arc::new(Origin { model: "judge-1".into(), ..(*origin("judge")).clone() });
        for number in 0..10 {
            let origin = if number % 2 == 0 { origin("draft") } else { Arc::clone(&judge) };
            let created_unix_ms = i64::try_from(number).unwrap() * DAY_MS;
            let tokens_out = (number < 8).then_some(number);
            let new = NewReply { origin, created_unix_ms, tokens_out, ..reply(number, "some text") };
            fixture.store.save_reply(&new, None, IfPresent::KeepFirst).await.unwrap();
        }
        fixture
    }

    fn exported(fixture: &Fixture, filter: &Filter, replies_max: usize) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut each = |reply: StoredReply| {
            assert_eq!(reply.reply().unwrap(), b"some text");
            keys.push(reply.key);
            if keys.len() < replies_max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        fixture.store.export(filter, &mut each).unwrap();
        keys
    }

    /// What a filter exports; then prunes it and looks at what is left.
    async fn check(filter: Filter, expected: &[u64]) {
        let fixture = ten().await;
        let keys: Vec<Key> = expected.iter().map(|number| key(*number)).collect();
        assert_eq!(exported(&fixture, &filter, 99), keys);
        let before = fixture.store.matching(&filter).unwrap();
        assert_eq!(before.replies, expected.len() as u64);
        assert_eq!(fixture.store.prune(filter.clone()).await.unwrap(), before);
        assert_eq!(fixture.store.matching(&filter).unwrap(), Share::default());
        let left = exported(&fixture, &Filter::default(), 99);
        assert_eq!(left.len() + keys.len(), 10);
        assert!(keys.iter().all(|key| !left.contains(key)));
        // Origins that went are made anew.
        fixture::save(&fixture.store, 77, "some text").await;
        assert_eq!(fixture.store.reply(key(77)).unwrap().unwrap().origin, *origin("draft"));
    }

    #[tokio::test]
    async fn filters_choose_what_is_exported_and_pruned() {
        let odd = [1, 3, 5, 7, 9];
        let text = |text: &str| Some(text.to_owned());
        check(Filter::default(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).await;
        check(Filter { older_than_unix_ms: Some(3 * DAY_MS), ..Filter::default() }, &[0, 1, 2]).await;
        check(Filter { step: text("judge"), ..Filter::default() }, &odd).await;
        check(Filter { model: text("judge-1"), pipeline: text("exercises"), ..Filter::default() }, &odd)
            .await;
        check(Filter { teacher: text("nobody"), ..Filter::default() }, &[]).await;
        let both = Filter { older_than_unix_ms: Some(4 * DAY_MS), step: text("judge"), ..Filter::default() };
        check(both, &[1, 3]).await;
    }

    #[tokio::test]
    async fn an_export_stops_when_told_and_goes_past_a_page() {
        let fixture = ten().await;
        assert_eq!(exported(&fixture, &Filter::default(), 3), [key(0), key(1), key(2)]);
        let more: Vec<_> = (10..PAGE_REPLIES.unsigned_abs() + 20).map(|n| reply(n, "some text")).collect();
        let saves = more.iter().map(|new| fixture.store.save_reply(new, None, IfPresent::KeepFirst));
        futures_util::future::join_all(saves).await;
        assert_eq!(exported(&fixture, &Filter::default(), 9_999).len(), more.len() + 10);
    }

    #[tokio::test]
    async fn statistics_count_every_reply_once() {
        let fixture = ten().await;
        let stats = fixture.store.stats(9 * DAY_MS).unwrap();
        assert_eq!(stats.total.replies, 10);
        assert_eq!(stats.by_age.map(|share| share.replies), [2, 6, 2, 0]);
        assert_eq!(stats.by_model["judge-1"].replies, 5);
        assert_eq!(stats.by_teacher["https://api.example.com/v1"], stats.total);
        assert_eq!((stats.oldest_unix_ms, stats.newest_unix_ms), (Some(0), Some(9 * DAY_MS)));
        assert_eq!(stats.body_bytes, 10 * (9 + 9));
        assert!(stats.file_bytes > stats.total.stored_bytes);
    }

    #[tokio::test]
    async fn step_statistics_leave_out_what_is_not_known() {
        let fixture = ten().await;
        let steps = fixture.store.step_stats("exercises").unwrap();
        let names: Vec<_> = steps.iter().map(|step| (step.step.as_str(), step.replies)).collect();
        assert_eq!(names, [("draft", 5), ("judge", 5)]);
        // 0, 2, 4, 6 and one unknown.
        let Spread { count, mean, deviation, max } = steps[0].tokens_out;
        assert_eq!((count, max), (4, 6));
        assert!((mean - 3.0).abs() < 1e-9 && (deviation - 5.0_f64.sqrt()).abs() < 1e-9);
        assert_eq!(steps[0].tokens_in, Spread { count: 5, mean: 10.0, deviation: 0.0, max: 10 });
        assert_eq!(fixture.store.step_stats("other").unwrap(), []);
    }

    #[tokio::test]
    async fn compacting_gives_space_back() {
        let fixture = fixture::open();
        let body = fixture::noise(200_000);
        let new = NewReply { reply: &body, ..reply(1, "") };
        fixture.store.save_reply(&new, None, IfPresent::KeepFirst).await.unwrap();
        fixture.store.prune(Filter::default()).await.unwrap();
        assert!(fixture.store.compact().await.unwrap() > 200_000);
        fixture.store.check().unwrap();
        fixture::save(&fixture.store, 2, "a").await;
    }

    #[tokio::test]
    async fn damage_is_found_by_checking() {
        let fixture = ten().await;
        let file = fixture.store.file();
        let Fixture { folder, store } = fixture;
        drop(store);
        let mut bytes = std::fs::read(&*file).unwrap();
        let middle = bytes.len() / 4;
        bytes[middle..].fill(0xA5);
        std::fs::write(&*file, bytes).unwrap();
        let store = Store::open(folder.path(), super::super::Access::Read).unwrap();
        let error = store.check().unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        let error = store.reply(key(3)).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }
}
