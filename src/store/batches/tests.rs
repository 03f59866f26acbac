//! Batches and their items in a store of their own.

use super::super::fixture::{self, Fixture, key, reply};
use super::*;

const WORST: Amount = Amount { usd_nano: 1_000, tokens: 100, calls: 1 };
const ACTUAL: Amount = Amount { usd_nano: 300, tokens: 40, calls: 1 };

async fn put(store: &Store, number: u64) -> Put {
    let item = NewItem {
        key: key(number),
        run: "r",
        pipeline: "p",
        epoch: "0",
        step: "s",
        worst: WORST,
        replaces: false,
        request: b"{\"ask\":1}",
        answered_since_unix_ms: i64::MIN,
    };
    store.put_item(&item).await.unwrap()
}

fn of(model: &str) -> BatchesOf {
    BatchesOf { teacher: "t".into(), wire: "openai".into(), model: model.into() }
}

fn new(token: &str) -> NewBatch {
    NewBatch { token: token.into(), run: "r".into(), of: of("m"), sent_unix_ms: 5, day: 0 }
}

async fn close(store: &Store, keys: Vec<Key>) -> Batch {
    let worst = WORST.times(keys.len() as u64);
    match store.close_batch(new("a"), keys, worst, Caps::default()).await.unwrap() {
        Closed::Batch(batch) => batch,
        Closed::Full(spent) => panic!("{spent:?}"),
    }
}

#[track_caller]
fn check(fixture: &Fixture, settled: Amount, batched: u64) {
    for sum in [Charge::epoch("p", "0"), Charge::step("p", "0", "s"), Charge::day(0)] {
        let spent = fixture.store.spent(&sum).unwrap();
        assert_eq!((spent.settled, spent.batched), (settled, WORST.times(batched)), "{sum}");
    }
}

#[tokio::test]
async fn an_item_is_its_own_reservation_also_across_processes() {
    let fixture = fixture::open();
    for number in 0..3 {
        assert_eq!(put(&fixture.store, number).await, Put::Waits);
    }
    assert_eq!(put(&fixture.store, 1).await, Put::UnderWay { ours: true });
    check(&fixture, Amount::default(), 0);
    let batch = close(&fixture.store, vec![key(0), key(1)]).await;
    check(&fixture, Amount::default(), 2);
    let fixture = fixture.reopen();
    check(&fixture, Amount::default(), 2);
    assert_eq!(fixture.store.living_batches(&of("m"), "r").unwrap(), std::slice::from_ref(&batch));
    fixture.store.batch_accepted(batch.id, "batch_1").await.unwrap();
    let living = fixture.store.living_batches(&of("m"), "r").unwrap();
    assert_eq!(living[0].provider_id.as_deref(), Some("batch_1"));
    // What waited for another run is not wanted.
    fixture.store.drop_waiting("p", "0", "r2").await.unwrap();
    assert_eq!(fixture.store.batch_item(key(2)).unwrap(), None);
    assert_eq!(fixture.store.batch_item(key(0)).unwrap().unwrap().request, b"{\"ask\":1}");

    let end = |number, text| {
        fixture.store.end_item(key(number), batch.id, ItemEnd::Reply(reply(number, text)), ACTUAL)
    };
    assert_eq!(end(0, "a").await, Ok(Came::First));
    assert_eq!(end(0, "b").await, Ok(Came::Late));
    assert_eq!(fixture::body(&fixture.store, 0).as_deref(), Some("a"));
    assert_eq!(put(&fixture.store, 0).await, Put::Answered);
    check(&fixture, ACTUAL, 1);
    assert_eq!(fixture.store.keys_of_batch(batch.id), Ok(vec![key(1)]));
    let again = ItemEnd::Again { run: "r2".into() };
    assert_eq!(fixture.store.end_item(key(1), batch.id, again, Amount::default()).await, Ok(Came::First));
    check(&fixture, ACTUAL, 0);
    assert_eq!(fixture.store.batch_item(key(1)).unwrap().unwrap().attempts, 1);
    fixture.store.end_batch(batch.id, BatchEnd { answered: 1, declined: 0, again: 1 }, 9).await.unwrap();
    assert_eq!(fixture.store.living_batches(&of("m"), "r").unwrap(), []);
    assert_eq!(fixture.store.batches(9).unwrap()[0].end.again, 1);
}

#[tokio::test]
async fn a_batch_does_not_pass_the_cap_of_the_day() {
    let fixture = fixture::open();
    put(&fixture.store, 0).await;
    put(&fixture.store, 1).await;
    let caps = Caps { tokens: Some(150), ..Caps::default() };
    let close = |number, token| fixture.store.close_batch(new(token), vec![key(number)], WORST, caps);
    assert!(matches!(close(0, "a").await, Ok(Closed::Batch(_))));
    let Ok(Closed::Full(spent)) = close(1, "b").await else { panic!() };
    assert_eq!(spent.batched, WORST);
}

#[tokio::test]
async fn batches_of_runs_that_are_over_are_taken_over_once() {
    let fixture = fixture::open();
    let run = |id: &str| crate::store::NewRun {
        id: id.into(),
        pipeline: "p".into(),
        epoch: "0".into(),
        started_unix_ms: 0,
        pid: 1,
        file_hash: String::new(),
        file: String::new(),
        options: "{}".into(),
    };
    fixture.store.begin_run(run("r")).await.unwrap();
    put(&fixture.store, 0).await;
    close(&fixture.store, vec![key(0)]).await;
    let adopted = async |by: &str| {
        // Whoever asks another model of the same server has nothing to do with it.
        fixture.store.adopt_batches(&of("m2"), by).await.unwrap();
        assert_eq!(fixture.store.living_batches(&of("m2"), by).unwrap(), []);
        fixture.store.adopt_batches(&of("m"), by).await.unwrap();
        fixture.store.living_batches(&of("m"), by).unwrap().len()
    };
    fixture.store.begin_run(run("r2")).await.unwrap();
    assert_eq!(adopted("r2").await, 0);
    let ended = crate::store::RunStatus::Stopped;
    fixture.store.end_run("r", ended, 9, &serde_json::json!({})).await.unwrap();
    assert_eq!((adopted("r2").await, adopted("r3").await), (1, 0));
}

#[tokio::test]
async fn a_batch_that_was_never_sent_gives_its_items_back() {
    let fixture = fixture::open();
    for number in 0..2 {
        put(&fixture.store, number).await;
    }
    let batch = close(&fixture.store, vec![key(0), key(1)]).await;
    fixture.store.batch_unsent(batch.id, vec![key(1)], "r2").await.unwrap();
    check(&fixture, Amount::default(), 0);
    assert_eq!(fixture.store.batch_item(key(0)).unwrap(), None);
    assert_eq!(fixture.store.batch_item(key(1)).unwrap().unwrap().batch, None);
    assert_eq!(fixture.store.batches(9).unwrap(), []);
}

#[tokio::test]
async fn a_batch_that_is_given_up_counts_at_its_worst() {
    let fixture = fixture::open();
    put(&fixture.store, 0).await;
    let batch = close(&fixture.store, vec![key(0)]).await;
    fixture.store.batch_accepted(batch.id, "batch_1").await.unwrap();
    assert_eq!(fixture.store.forget_batch("batch_2", 9).await, Ok(false));
    assert_eq!(fixture.store.forget_batch("batch_1", 9).await, Ok(true));
    check(&fixture, WORST, 0);
    assert_eq!(put(&fixture.store, 0).await, Put::Waits);
}
