//! What a batch brought: each item's end into the store, under its key.
//!
//! May be done twice, by us or by another process: an item that has left its batch is not touched again.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::mpsc;

use super::clerk::{Clerk, Halt};
use crate::call::budget::InBatch;
use crate::call::{SENT, StopReason, declined};
use crate::clock;
use crate::row::RowId;
use crate::store::{Amount, Batch, BatchEnd, BatchItem, Came as Recorded, ItemEnd, Key, NewReply, Origin};
use crate::teacher::batch::{BatchClient, Came, ItemResult};
use crate::teacher::{Answer, Fault, Usage};

/// Results whose ends are on their way to the store at once: as many as fill a few of its transactions.
const AT_ONCE: usize = 512;

/// Items that were declined, and nothing else, before that is an error of the run and not of each row.
const DECLINED_MIN: u64 = 20;

/// What came of one item.
enum Ended {
    Answered(Key),
    Declined(Key, String),
    /// It waits for another batch.
    Again(Key, Again),
    /// It brought nothing for the last time.
    GivenUp(Key),
    /// It has left the batch before.
    Before(Key),
    /// It is none of ours.
    Strange,
}

struct Again {
    bytes: usize,
    worst: Amount,
    step: String,
    /// What no other item would fare better with.
    fatal: Option<String>,
}

#[derive(Default)]
struct Sum {
    end: BatchEnd,
    /// Calls that have come to an end.
    done: Vec<Key>,
    again: Vec<(Key, Again)>,
    declined: Option<String>,
}

impl Sum {
    fn add(&mut self, ended: Ended) {
        match ended {
            Ended::Answered(key) => {
                self.end.answered += 1;
                self.done.push(key);
            }
            Ended::Declined(key, message) => {
                self.end.declined += 1;
                self.done.push(key);
                self.declined = Some(message);
            }
            Ended::Again(key, again) => {
                self.end.again += 1;
                self.again.push((key, again));
            }
            Ended::GivenUp(key) => {
                self.end.again += 1;
                self.done.push(key);
            }
            Ended::Before(key) => self.done.push(key),
            Ended::Strange => {}
        }
    }
}

impl Clerk {
    /// Takes a batch's results into the store; the rows that can go on. A fault leaves the rest for another time.
    pub(super) async fn collect(
        &self,
        batch: &Batch,
        paths: &[String],
    ) -> Result<Result<Vec<RowId>, Fault>, Halt> {
        let Some(client) = &self.teacher.batches else { return Ok(Ok(Vec::new())) };
        let (sink, inbox) = mpsc::channel(AT_ONCE);
        let reading = async move {
            for path in paths {
                client.results(path, sink.clone()).await?;
            }
            Ok(())
        };
        let results = stream::unfold(inbox, |mut inbox| async move { Some((inbox.recv().await?, inbox)) });
        let (read, sum) = tokio::join!(reading, self.end_all(batch, results));
        let mut sum = sum?;
        if let Err(fault) = read {
            return Ok(Err(fault));
        }
        // What the provider says nothing about was not worked on.
        let silent =
            self.desk.store.keys_of_batch(batch.id)?.into_iter().map(|key| ItemResult {
                custom_id: key.to_string(),
                came: Came::NotRun("no result".to_owned()),
            });
        let rest = self.end_all(batch, stream::iter(silent)).await?;
        sum.end.again += rest.end.again;
        sum.done.extend(rest.done);
        sum.again.extend(rest.again);
        self.desk.store.end_batch(batch.id, sum.end, clock::unix_ms()).await?;
        self.desk.monitor.batches.brought(sum.end);
        self.finish(sum).map(Ok)
    }

    async fn end_all(
        &self,
        batch: &Batch,
        results: impl stream::Stream<Item = ItemResult>,
    ) -> Result<Sum, Halt> {
        let ends = results.map(|result| self.end_item(batch, result)).buffer_unordered(AT_ONCE);
        let mut ends = std::pin::pin!(ends);
        let mut sum = Sum::default();
        while let Some(ended) = ends.next().await {
            sum.add(ended?);
        }
        Ok(sum)
    }

    /// Hands the items on that wait again, and tells which rows need not wait any more.
    fn finish(&self, sum: Sum) -> Result<Vec<RowId>, Halt> {
        let fatal = sum.again.iter().find_map(|(_, again)| again.fatal.clone());
        for (key, again) in sum.again {
            self.tray.wait(key, again.bytes, again.worst, &again.step);
        }
        let (awaited, rows) = self.tray.arrive(sum.done);
        self.desk.counted.add(awaited);
        let teacher = &self.teacher.name;
        if let Some(message) = fatal {
            return Err(Halt::Stop(StopReason::Fatal(format!("teacher `{teacher}`: {message}"))));
        }
        let BatchEnd { answered, declined, again } = sum.end;
        if let (Some(message), true) = (sum.declined, declined >= DECLINED_MIN && answered + again == 0) {
            return Err(Halt::Stop(StopReason::Fatal(format!(
                "teacher `{teacher}` declined all {declined} requests of a batch; one of them with: {message}"
            ))));
        }
        Ok(rows)
    }

    async fn end_item(&self, batch: &Batch, result: ItemResult) -> Result<Ended, Halt> {
        let Ok(key) = result.custom_id.parse::<Key>() else { return Ok(Ended::Strange) };
        let item = self.desk.store.batch_item(key)?.filter(|item| item.batch == Some(batch.id));
        let Some(item) = item else { return Ok(Ended::Before(key)) };
        let (status, body) = match result.came {
            Came::Reply { status, body } => (status, body),
            Came::NotRun(why) => {
                let message = format!("its batch ended before it was worked on ({why})");
                let fault = Fault::Transient { code: "expired", message, billed: false };
                return self.again(&item, batch.id, fault, Amount::default()).await;
            }
        };
        match self.teacher.read(status, &body) {
            Ok(answer) => self.answered(&item, batch, &answer, status, &body).await,
            Err(fault) => match declined::record(&fault) {
                Some((status, body)) => self.declined(&item, batch, &fault, status, &body).await,
                None => {
                    let billed = matches!(fault, Fault::Transient { billed: true, .. });
                    let actual = if billed { item.worst } else { SENT };
                    self.again(&item, batch.id, fault, actual).await
                }
            },
        }
    }

    async fn answered(
        &self,
        item: &BatchItem,
        batch: &Batch,
        answer: &Answer,
        status: u16,
        body: &str,
    ) -> Result<Ended, Halt> {
        let price = self.teacher.price.map(|price| price.in_batches());
        let usd_nano =
            price.map(|price| answer.usage.map_or(item.worst.usd_nano, |usage| price.usd_nano(usage)));
        let actual = Amount {
            usd_nano: usd_nano.unwrap_or(0),
            tokens: answer.usage.map_or(item.worst.tokens, Usage::total),
            calls: 1,
        };
        let reply = NewReply {
            tokens_in: answer.usage.map(|usage| usage.input),
            tokens_out: answer.usage.map(|usage| usage.output),
            usd_nano,
            ..self.reply(item, batch, &answer.model, status, body)
        };
        let came = self.desk.store.end_item(item.key, batch.id, ItemEnd::Reply(reply), actual).await?;
        if came == Recorded::Late {
            return Ok(Ended::Before(item.key));
        }
        self.settle(item, actual);
        if let Some(counts) = self.tray.counts(&item.step) {
            counts.reply(answer.usage, usd_nano);
        }
        Ok(Ended::Answered(item.key))
    }

    async fn declined(
        &self,
        item: &BatchItem,
        batch: &Batch,
        fault: &Fault,
        status: u16,
        body: &str,
    ) -> Result<Ended, Halt> {
        let reply = self.reply(item, batch, "", status, body);
        let came = self.desk.store.end_item(item.key, batch.id, ItemEnd::Reply(reply), SENT).await?;
        if came == Recorded::Late {
            return Ok(Ended::Before(item.key));
        }
        self.settle(item, SENT);
        if let Some(counts) = self.tray.counts(&item.step) {
            counts.fault(fault);
        }
        Ok(Ended::Declined(item.key, fault.message().to_owned()))
    }

    /// Has an item that brought nothing go with another batch, if somebody wants it and it was not in too many.
    async fn again(&self, item: &BatchItem, batch: i64, fault: Fault, actual: Amount) -> Result<Ended, Halt> {
        let attempts = item.attempts + 1;
        let wanted = self.tray.wants(&item.key);
        let last = attempts >= self.teacher.attempts_max;
        let end = match wanted && !last {
            true => ItemEnd::Again { run: self.tray.run.to_string() },
            false => ItemEnd::Dropped,
        };
        if self.desk.store.end_item(item.key, batch, end, actual).await? == Recorded::Late {
            return Ok(Ended::Before(item.key));
        }
        self.settle(item, actual);
        if let Some(counts) = self.tray.counts(&item.step) {
            counts.fault(&fault);
        }
        if wanted && !last {
            let fatal = match &fault {
                Fault::Fatal { message } => Some(message.clone()),
                _ => None,
            };
            let again =
                Again { bytes: item.request.len(), worst: item.worst, step: item.step.clone(), fatal };
            return Ok(Ended::Again(item.key, again));
        }
        if wanted {
            self.tray.lock().given_up.insert(item.key, (fault, attempts));
        }
        Ok(Ended::GivenUp(item.key))
    }

    /// Replaces an item's worst case by what it came to.
    pub(super) fn settle(&self, item: &BatchItem, actual: Amount) {
        let call = InBatch {
            ours: *item.pipeline == *self.desk.pipeline && *item.epoch == *self.desk.epoch,
            own: *item.run == *self.tray.run,
            step: &item.step,
            worst: item.worst,
            day: item.day.unwrap_or_default(),
        };
        self.desk.budget.settle_batched(&call, actual);
    }

    fn reply<'a>(
        &self,
        item: &'a BatchItem,
        batch: &Batch,
        model: &str,
        status: u16,
        body: &'a str,
    ) -> NewReply<'a> {
        let now = clock::unix_ms();
        NewReply {
            key: item.key,
            origin: Arc::new(Origin {
                epoch: item.epoch.clone(),
                pipeline: Some(item.pipeline.clone()),
                step: item.step.clone(),
                teacher: self.teacher.identity.clone(),
                endpoint: self.teacher.batches.as_ref().map(BatchClient::endpoint).unwrap_or_default(),
                wire: self.teacher.wire_name().to_owned(),
                model: model.to_owned(),
            }),
            request: &item.request,
            reply: body.as_bytes(),
            status,
            tokens_in: None,
            tokens_out: None,
            usd_nano: None,
            attempts: item.attempts + 1,
            latency_ms: u64::try_from(now - batch.sent_unix_ms).unwrap_or(0),
            created_unix_ms: now,
        }
    }
}
