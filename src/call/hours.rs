//! Ten hours of a run's calls on a clock that only tests move: storms of refusals, outages, a daily budget and
//! its midnight. Nobody is stuck, and everything that was set aside comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::*;
use crate::call::budget::{Limit, Of};
use crate::call::caps::AtCap;
use crate::clock::{DAY_MS, Wall};
use crate::row::Fields;
use crate::store::{Access, Caps, Store};
use crate::teacher::api::Api;
use crate::teacher::format::ApiFormat;
use crate::teacher::gate::{Gate, Limits};
use crate::teacher::http::RawReply;
use crate::teacher::retry::Jitter;
use crate::teacher::scripted::spoken;
use crate::teacher::site::{SiteParts, Wire};
use crate::teacher::wire::{Price, TeacherParts};
use crate::teacher::{LimitNotes, Message, Role};

const HOUR: Duration = Duration::from_secs(3600);
/// Five hours before a midnight.
const BEGAN: i64 = 20_783 * DAY_MS + DAY_MS - 5 * 3_600_000;
const PER_DAY: u64 = 2_000;
const AT_ONCE: usize = 48;

/// What the teacher has answered, by the day it was asked.
#[derive(Default)]
struct Books {
    answered: Mutex<BTreeMap<i64, u64>>,
    asked: AtomicU64,
}

/// How the teacher answers at a time since the start: after how long, and what.
fn weather(since: Duration, draw: f64) -> (Duration, Result<RawReply, Fault>) {
    let busy = |retry_after| Fault::Busy {
        retry_after,
        message: "too many".to_owned(),
        notes: Box::new(LimitNotes::default()),
    };
    let down = |billed| Fault::Transient { code: "server_error", message: "out of order".to_owned(), billed };
    let answer = || spoken(&json!("some words of an answer"), ApiFormat::Openai, "m");
    let minutes = since.as_secs() / 60;
    let reply = match minutes {
        // Storms of refusals; an outage; a wait that is told; a server that dies while it answers.
        10..20 | 320..330 if draw < 0.8 => Err(busy(None)),
        40..55 => Err(busy(Some(Duration::from_secs(120)))),
        70..80 | 400..410 => Err(down(false)),
        90..95 => Err(down(true)),
        _ if draw < 0.01 => Err(busy(None)),
        _ if draw < 0.02 => Err(down(draw < 0.015)),
        _ => answer(),
    };
    (Duration::from_millis(300 + (draw * 2_000.0) as u64), reply)
}

fn teacher(start: Instant, wall: Wall, books: Arc<Books>) -> Arc<Teacher> {
    let random = Mutex::new(Jitter::new(11));
    let wire = Wire::Weather(Box::new(move || {
        let draw = random.lock().unwrap().draw();
        let (after, reply) = weather(start.elapsed(), draw);
        books.asked.fetch_add(1, Ordering::Relaxed);
        if reply.is_ok() {
            *books.answered.lock().unwrap().entry(wall.day()).or_default() += 1;
        }
        (after, reply)
    }));
    let limits = Limits { requests_per_minute: Some(20), tokens_per_minute: None, in_flight: Some(8) };
    Arc::new(Teacher::new(TeacherParts {
        name: "writer".into(),
        identity: "w".into(),
        price: Some(Price::of(1.0, 2.0)),
        attempts_max: 4,
        patience: 12 * HOUR,
        format: ApiFormat::Openai,
        api: Api::named("m"),
        sites: vec![SiteParts {
            name: "writer".into(),
            gate: Gate::new(limits, 12 * HOUR),
            weight: 1.0,
            api: Api::named("m"),
            wire,
            serving: None,
        }],
    }))
}

/// The rows that are open; the lowest of them is what the budget goes by.
struct Open(BTreeSet<RowId>);

impl Open {
    fn enter(&mut self, control: &Control, row: u64) -> Row {
        let row = Row::new(RowId::root(row), Fields::from_iter([("n".to_owned(), row.into())]));
        self.0.insert(row.id.clone());
        control.lowest_is(self.0.first());
        row
    }

    fn leave(&mut self, control: &Control, row: &RowId) {
        self.0.remove(row);
        control.lowest_is(self.0.first());
    }
}

#[tokio::test(start_paused = true)]
async fn ten_hours_leave_nobody_waiting_and_nothing_set_aside() {
    let start = Instant::now();
    let wall = Wall::of(move || BEGAN + i64::try_from(start.elapsed().as_millis()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Write).unwrap();
    let caps = Caps { calls: Some(PER_DAY), ..Caps::default() };
    let limits = vec![Limit { of: Of::Day, caps, spent: Amount::default(), batched: Amount::default() }];
    let budget = Budget::new(limits, AtCap::Wait, wall.clone());
    let desk = Arc::new(Desk::new(store.clone(), budget, Control::default(), "hours", "0"));
    let books = Arc::new(Books::default());
    let teacher = teacher(start, wall.clone(), Arc::clone(&books));
    let caller = &Caller::new(&desk, &teacher, &"draft".into(), 0);
    let ask = |row: Row| async move {
        let messages = vec![Message { role: Role::User, content: format!("Write about {}.", row.id) }];
        let request = Request { messages, max_tokens: Some(20), ..Request::default() };
        let asked = caller.ask(&row, Draw::Row, 0, &request).await;
        assert!(!matches!(asked, Err(NoAnswer::Stopped)), "{:?}", caller.desk.control.reason());
        (row.id.clone(), asked.is_ok())
    };
    let (mut open, mut calls) = (Open(BTreeSet::new()), FuturesUnordered::new());
    let (mut rows, mut answered, mut failed, mut rested) = (0, 0_u64, 0_u64, Duration::ZERO);
    let mut last = Duration::ZERO;
    let follow = desk.follow_day();
    tokio::pin!(follow);
    while start.elapsed() < 10 * HOUR || !calls.is_empty() {
        while calls.len() < AT_ONCE && start.elapsed() < 10 * HOUR {
            calls.push(ask(open.enter(&desk.control, rows)));
            rows += 1;
        }
        let next = tokio::select! {
            next = calls.next() => next,
            () = &mut follow => unreachable!("a store that can be read"),
        };
        let Some((row, is_answered)) = next else { break };
        open.leave(&desk.control, &row);
        *if is_answered { &mut answered } else { &mut failed } += 1;
        rested = rested.max(start.elapsed() - last);
        last = start.elapsed();
    }
    assert_eq!(answered + failed, rows);
    let seen = teacher.pool.sites()[0].gate.snapshot();
    assert_eq!((seen.waiting, seen.in_flight), (0, 0));
    assert_eq!(desk.monitor.total().in_flight, 0);
    let by_day = books.answered.lock().unwrap().clone();
    assert_eq!(by_day.values().sum::<u64>(), answered);
    for (day, answered) in &by_day {
        let spent = store.spent(&Charge::day(*day)).unwrap();
        assert_eq!(spent.reserved, Amount::default());
        assert!(*answered <= PER_DAY && spent.settled.calls <= PER_DAY, "{answered} on {day}, {spent:?}");
    }
    // The budgets of two days were used up; what still waited went on a third.
    assert_eq!(by_day.len(), 3, "{by_day:?}");
    assert!(by_day[&20_783] > PER_DAY / 2 && by_day[&20_784] > PER_DAY / 2, "{by_day:?}");
    assert!(rested > 15 * HOUR && rested < 24 * HOUR, "{rested:?}, {by_day:?}");
    assert_eq!(desk.budget.resting(), None);
}
