//! The choice between endpoints, and calls that go by it.

use serde_json::json;

use super::super::api::Api;
use super::super::breaker::{BACK_OFF_FIRST, FAULTS_MAX};
use super::super::format::ApiFormat;
use super::super::gate::{Gate, Limits, PATIENCE_DEFAULT};
use super::super::scripted::Script;
use super::super::site::{SiteParts, Wire};
use super::*;
use crate::row::RowId;

const WELL: Load = Load { health: Health::Well, in_flight: 0.0, sent: 0.0, met: false };

fn sick(until_s: u64, probed: bool) -> Load {
    Load { health: Health::Sick { until: Duration::from_secs(until_s), probed }, ..WELL }
}

/// The endpoints to wait at at second 10, `?` behind one that is probed, and when to look again.
#[track_caller]
fn check(loads: &[Load], expected: &str) {
    let Choice { sites, look_again } = choose(Duration::from_secs(10), loads);
    let shown = sites.iter().map(|pick| format!("{}{}", pick.at, if pick.probe { "?" } else { "" }));
    let shown: Vec<String> = shown.chain(look_again.map(|at| format!("at {}", at.as_secs()))).collect();
    assert_eq!(shown.join(" "), expected, "{loads:?}");
}

#[test]
fn the_least_loaded_is_first() {
    check(&[WELL], "0");
    check(&[WELL, WELL], "0 1");
    let busy = |in_flight: f64| Load { in_flight, ..WELL };
    check(&[busy(2.0), busy(1.0), busy(0.5)], "2 1 0");
    check(&[Load { sent: 9.0, ..WELL }, Load { sent: 3.0, ..WELL }], "1 0");
}

#[test]
fn a_call_goes_elsewhere_than_where_it_failed() {
    let met = Load { met: true, ..WELL };
    check(&[met, WELL], "1");
    check(&[met, met], "0 1");
    check(&[met, sick(20, false)], "0 at 20");
}

#[test]
fn a_sick_endpoint_is_left_alone_and_then_probed_by_one() {
    check(&[WELL, sick(20, false), sick(15, false)], "0 at 15");
    check(&[WELL, sick(10, false), sick(15, true)], "1? 0");
    check(&[WELL, sick(5, true)], "0");
    check(&[WELL, Load { health: Health::Out, ..WELL }], "0");
}

#[test]
fn where_all_are_sick_the_first_to_be_well_is_asked() {
    check(&[sick(20, false)], "0");
    check(&[sick(5, true)], "0");
    check(&[sick(20, false), sick(15, true), Load { health: Health::Out, ..WELL }], "1");
}

/// A pool of endpoints with these weights and places, each known by its letter; all that they answer is in the
/// script, by step.
fn pool(of: &[(f64, usize)]) -> Pool {
    let sites = of.iter().enumerate().map(|(index, (weight, places))| {
        let limits = Limits { in_flight: Some(*places), ..Limits::default() };
        let replies = [("good".to_owned(), json!("Yes.")), ("bad".to_owned(), json!({"$fail": "it broke"}))];
        let parts = SiteParts {
            name: char::from(b'a' + index as u8).to_string(),
            gate: Gate::new(limits, PATIENCE_DEFAULT),
            weight: *weight,
            api: Api::named("m"),
            wire: Wire::Scripted(Arc::new(Script::new(replies.iter().map(|(step, reply)| (step, reply))))),
            serving: None,
        };
        Site::new(parts, ApiFormat::Openai, "m")
    });
    Pool::new("w".into(), sites.collect())
}

fn ticket(row: u64) -> Ticket {
    Ticket { row: RowId::root(row), step: 0, tokens: Usage::of(60, 40) }
}

/// Sends a call whose end is named by the step; where it went.
async fn send(place: Place<'_>, step: &str) -> usize {
    let at = place.at();
    let asked_by = AskedBy { step: step.into(), row: RowId::root(0) };
    let sent = place.send(&asked_by, &Bytes::from_static(b"{}"), None).await;
    assert_eq!(sent.is_ok(), step == "good");
    at
}

/// Has the first endpoint fail until it is sick.
async fn sicken(pool: &Pool) {
    for _ in 0..FAULTS_MAX {
        assert_eq!(send(pool.enter(&ticket(0), &[1]).await.unwrap(), "bad").await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_are_shared_by_weight() {
    let pool = pool(&[(3.0, 64), (1.0, 64)]);
    let mut places = Vec::new();
    for row in 0..40 {
        places.push(pool.enter(&ticket(row), &[]).await.unwrap());
    }
    assert_eq!(places.iter().filter(|place| place.at() == 0).count(), 30);
    drop(places);
    // One at a time: in the long run, too.
    let mut first = 0;
    for row in 0..40 {
        first += usize::from(send(pool.enter(&ticket(row), &[]).await.unwrap(), "good").await == 0);
    }
    assert_eq!(first, 30);
}

#[tokio::test(start_paused = true)]
async fn a_free_place_of_any_endpoint_goes_to_the_lowest_row() {
    let pool = Arc::new(pool(&[(1.0, 1), (1.0, 1)]));
    let held = [pool.enter(&ticket(0), &[]).await.unwrap(), pool.enter(&ticket(1), &[]).await.unwrap()];
    assert_eq!(held.each_ref().map(Place::at), [0, 1]);
    let order = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = [7, 3, 9, 5]
        .map(|row| {
            let (pool, order) = (Arc::clone(&pool), Arc::clone(&order));
            tokio::spawn(async move {
                let place = pool.enter(&ticket(row), &[]).await.unwrap();
                order.lock().unwrap().push((row, place.at()));
                send(place, "good").await;
            })
        })
        .into();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let [_first, second] = held;
    send(second, "good").await;
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [(3, 1), (5, 1), (7, 1), (9, 1)]);
    let waiting: usize = pool.sites().iter().map(|site| site.gate.snapshot().waiting).sum();
    assert_eq!(waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_at_a_full_endpoint_goes_to_one_that_comes_back() {
    let pool = Arc::new(pool(&[(1.0, 1), (1.0, 1)]));
    sicken(&pool).await;
    let _held = pool.enter(&ticket(0), &[]).await.unwrap();
    let started = tokio_now();
    // Nobody else has room: it waits until the sick one may be probed, and makes it well.
    assert_eq!(send(pool.enter(&ticket(1), &[]).await.unwrap(), "good").await, 0);
    let waited = started.elapsed();
    assert!((BACK_OFF_FIRST..BACK_OFF_FIRST + Duration::from_millis(5)).contains(&waited), "{waited:?}");
    assert_eq!(pool.accounts()[0].out, None);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_leaves_the_turn_to_another() {
    let pool = pool(&[(1.0, 8), (1.0, 8)]);
    sicken(&pool).await;
    assert_eq!(pool.enter(&ticket(0), &[]).await.unwrap().at(), 1);
    tokio::time::sleep(BACK_OFF_FIRST).await;
    let probe = pool.enter(&ticket(0), &[]).await.unwrap();
    assert_eq!((probe.at(), pool.enter(&ticket(1), &[]).await.unwrap().at()), (0, 1));
    drop(probe);
    assert_eq!(send(pool.enter(&ticket(0), &[]).await.unwrap(), "bad").await, 0);
    assert_eq!(pool.enter(&ticket(0), &[]).await.unwrap().at(), 1);
    assert!(pool.accounts()[0].out.as_ref().is_some_and(|why| why.contains("it broke")));
}

#[tokio::test(start_paused = true)]
async fn the_only_endpoint_is_asked_however_sick_it_is() {
    let pool = pool(&[(1.0, 8)]);
    for _ in 0..FAULTS_MAX * 20 {
        let started = tokio_now();
        send(pool.enter(&ticket(0), &[]).await.unwrap(), "bad").await;
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
    assert!(!pool.leave_out(0, "no key"));
    assert_eq!(send(pool.enter(&ticket(0), &[]).await.unwrap(), "good").await, 0);
    assert!(pool.news().borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn all_but_the_last_may_be_left_out() {
    let pool = pool(&[(1.0, 8), (1.0, 8)]);
    assert!(pool.leave_out(0, "no key") && pool.leave_out(0, "no key"));
    assert!(!pool.leave_out(1, "no quota"));
    assert_eq!(*pool.news().borrow(), ["endpoint `a` of teacher `w` is left out of this run: no key"]);
    assert_eq!(pool.enter(&ticket(0), &[1]).await.unwrap().at(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_was_busy_for_too_long_is_left_out_while_another_answers() {
    let pool = pool(&[(1.0, 8), (1.0, 1)]);
    let busy = Outcome::Busy { retry_after: Some(Duration::MAX), notes: Default::default() };
    pool.enter(&ticket(0), &[]).await.unwrap().permit.settle(busy.clone());
    let held = pool.enter(&ticket(1), &[]).await.unwrap();
    assert_eq!(held.at(), 1);
    let third = ticket(2);
    let wait = tokio::time::timeout(PATIENCE_DEFAULT * 2, pool.enter(&third, &[]));
    assert!(wait.await.is_err(), "the other one still has a call in flight");
    assert!(pool.news().borrow()[0].starts_with("endpoint `a` of teacher `w` is left out of this run"));
    held.permit.settle(busy);
    assert!(pool.enter(&ticket(3), &[]).await.is_err_and(|shut| matches!(shut, Shut::Stalled { .. })));
}
