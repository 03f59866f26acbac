//! The budget under caps of all kinds, on a wall clock that tests move.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::clock::DAY_MS;

fn call(tokens: u64) -> Amount {
    Amount { usd_nano: 0, tokens, calls: 1 }
}

fn limit(of: Of, tokens: u64, spent: u64) -> Limit {
    let caps = Caps { tokens: Some(tokens), ..Caps::default() };
    let spent = Amount { tokens: spent, ..Amount::default() };
    Limit { of, caps, spent, batched: Amount::default() }
}

fn step(index: usize) -> Of {
    Of::Step { index, name: format!("s{index}").into() }
}

fn of_epoch(tokens: u64, spent: u64) -> Budget {
    Budget::new(vec![limit(Of::Epoch, tokens, spent)], AtCap::Stop, Wall::default())
}

#[test]
fn calls_that_go_together_take_the_room_there_is_in_every_sum() {
    let limits = vec![
        Limit { batched: call(20), ..limit(Of::Epoch, 100, 30) },
        limit(step(0), 60, 0),
        limit(Of::Run, 1000, 0),
    ];
    let budget = Budget::new(limits, AtCap::Stop, Wall::default());
    let reserve = |calls: &[(&'static str, u64)]| {
        let calls = calls.iter().map(|(step, tokens)| (*step, call(*tokens)));
        budget.reserve_all(calls).map(|(count, _)| count).map_err(|reached| reached.sentence)
    };
    let day = budget.today();
    let batched = |own, step, worst| InBatch { ours: true, own, step, worst: call(worst), day };
    assert_eq!(reserve(&[("s0", 30), ("s0", 10), ("s0", 20), ("s1", 1)]), Ok(2));
    assert_eq!(reserve(&[("s0", 20)]), Ok(0));
    assert_eq!(reserve(&[("s1", 9)]), Ok(1));
    // A batch of an earlier run adds nothing to what this one may cost.
    budget.settle_batched(&batched(false, "s1", 20), call(5));
    budget.settle_batched(&batched(true, "s0", 30), call(30));
    budget.settle_batched(&batched(true, "s0", 10), call(10));
    budget.settle_batched(&batched(true, "s1", 9), call(9));
    let spent: Vec<u64> = budget.limits().iter().map(|limit| limit.spent.tokens).collect();
    assert_eq!(spent, [84, 40, 49]);
    let refused = reserve(&[("s0", 17)]).unwrap_err();
    assert!(refused.starts_with("the budget of 100 tokens is reached: 84 are spent"), "{refused}");
    assert_eq!(reserve(&[("s0", 16)]), Ok(1));
}

#[tokio::test]
async fn the_wall_holds_and_settling_gives_back() {
    let budget = of_epoch(100, 30);
    let (lowest, _) = watch::channel(Some(RowId::root(0)));
    let ask = |row, tokens| budget.reserve(RowId::root(row), 0, call(tokens), lowest.subscribe());
    let first = ask(0, 60).await.unwrap();
    let waiting = ask(0, 20);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    first.settle(call(10));
    waiting.await.unwrap().settle(call(20));
    let refused = ask(0, 41).await.err().unwrap();
    let expected = "the budget of 100 tokens is reached: 60 are spent, and the next call may take 41";
    assert_eq!(refused.sentence, expected);
    assert_eq!(refused.remedy, "raise `budget.tokens` and run again");
    // A row that is not the first waits: what is below it may settle for less.
    let behind = ask(1, 41);
    tokio::pin!(behind);
    assert!(futures_util::poll!(behind.as_mut()).is_pending());
    lowest.send_replace(Some(RowId::root(1)));
    assert_eq!(behind.await.err().unwrap().sentence, expected);
}

#[tokio::test]
async fn room_goes_to_the_lowest_row_then_to_its_later_step() {
    let budget = of_epoch(10, 0);
    let (lowest, _) = watch::channel(Some(RowId::root(0)));
    let ask = |row, step| Box::pin(budget.reserve(RowId::root(row), step, call(10), lowest.subscribe()));
    let mut held = Some(ask(0, 0).await.unwrap());
    let mut waiting = [ask(2, 0), ask(1, 0), ask(1, 1)];
    for waiter in &mut waiting {
        assert!(futures_util::poll!(waiter).is_pending());
    }
    let mut served = Vec::new();
    for _ in 0..3 {
        held.take().unwrap().settle(Amount::default());
        lowest.send_replace(None);
        for (index, waiter) in waiting.iter_mut().enumerate() {
            if !served.contains(&index)
                && let std::task::Poll::Ready(hold) = futures_util::poll!(waiter)
            {
                held = hold.ok();
                served.push(index);
            }
        }
    }
    assert_eq!(served, [2, 1, 0]);
}

#[tokio::test]
async fn a_row_leaves_room_for_the_open_rows_below_it() {
    let budget = of_epoch(100, 0);
    let (lowest, _) = watch::channel(Some(RowId::root(0)));
    let ask = |row| Box::pin(budget.reserve(RowId::root(row), 0, call(10), lowest.subscribe()));
    let nine = ask(9).await.unwrap();
    let mut far = ask(10);
    assert!(futures_util::poll!(&mut far).is_pending());
    let eight = ask(8).await.unwrap();
    // A call came to 1 token instead of 10: the rows below need less than was feared.
    nine.settle(call(1));
    assert!(far.await.is_ok());
    drop(eight);
    // What was dropped counts at its worst.
    assert_eq!(budget.limits()[0].spent.tokens, 1 + 10 + 10);
}

/// Looks at a ledger in which there is nobody else, again and again.
async fn look(budget: &Budget) {
    loop {
        let (day, changes) = budget.about_to_look();
        let of_day = budget.limits().into_iter().find(|limit| limit.of == Of::Day);
        let settled = of_day.map_or(Amount::default(), |limit| limit.spent);
        budget.seen(day, Some(changes), Spent { settled, ..Spent::default() });
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Calls of 10 tokens by a step until one is refused; how many went, and what was said.
async fn check(budget: &Budget, step: usize, expected: usize, said: &str, remedy: &str) {
    let (lowest, _) = watch::channel(None);
    let mut went = 0;
    let reached = loop {
        let asked = budget.reserve(RowId::root(0), step, call(10), lowest.subscribe());
        let answer = tokio::select! {
            answer = asked => answer,
            () = look(budget) => unreachable!(),
        };
        match answer {
            Ok(hold) => hold.settle(call(10)),
            Err(reached) => break reached,
        }
        went += 1;
    };
    assert_eq!(went, expected);
    assert!(reached.sentence.starts_with(said), "{reached:?}");
    assert_eq!(reached.remedy, remedy);
}

#[tokio::test(start_paused = true)]
async fn every_limit_that_a_call_adds_to_must_have_room() {
    let limits = vec![
        limit(Of::Epoch, 100, 0),
        limit(step(1), 30, 10),
        limit(step(2), 5, 0),
        limit(Of::Run, 70, 0),
        limit(Of::Day, 200, 140),
    ];
    let budget = Budget::new(limits, AtCap::Stop, Wall::default());
    let raise = "raise `tokens` in the `budget` of step `s1` and run again";
    check(&budget, 1, 2, "the budget of 30 tokens for step `s1` is reached: 30 are spent,", raise).await;
    let raise = "raise `tokens` in the `budget` of step `s2` and run again";
    check(&budget, 2, 0, "the budget of 5 tokens for step `s2` is reached: 0 are spent,", raise).await;
    let day = "the budget of 200 tokens per day is reached: 200 are spent today (UTC), and";
    let tomorrow = "run again after 00:00 UTC (or raise `budget.per_day.tokens` and run again)";
    check(&budget, 0, 4, day, tomorrow).await;
    let spent: Vec<u64> = budget.limits().iter().map(|limit| limit.spent.tokens).collect();
    assert_eq!(spent, [60, 30, 0, 60, 200]);
    let run = Budget::new(vec![limit(Of::Run, 25, 0)], AtCap::Stop, Wall::default());
    check(&run, 0, 2, "the budget of 25 tokens per run is reached: 20 are spent", "run again").await;
    assert!(run.caps(7) && !Budget::default().caps(0));
}

#[tokio::test(start_paused = true)]
async fn a_run_waits_for_the_next_day_if_it_is_told_to() {
    let now = Arc::new(AtomicI64::new(20_783 * DAY_MS + DAY_MS - 90_000));
    let wall = Wall::of({
        let now = Arc::clone(&now);
        move || now.load(Ordering::Relaxed)
    });
    let budget = Budget::new(vec![limit(Of::Day, 25, 0)], AtCap::Wait, wall);
    let (lowest, _) = watch::channel(None);
    let ask = |tokens| Box::pin(budget.reserve(RowId::root(0), 0, call(tokens), lowest.subscribe()));
    ask(10).await.unwrap().settle(call(10));
    let late = ask(10).await.unwrap();
    late.settle(call(10));
    let over_midnight = ask(5).await.unwrap();
    let mut waiting = ask(10);
    assert!(futures_util::poll!(&mut waiting).is_pending() && budget.resting().is_none());
    // With nothing under way it is the day that it waits for.
    over_midnight.settle(call(4));
    assert!(futures_util::poll!(&mut waiting).is_pending() && budget.resting().is_none());
    let looked = tokio::time::timeout(Duration::from_millis(1), look(&budget)).await;
    assert!(looked.is_err() && futures_util::poll!(&mut waiting).is_pending());
    assert!(budget.resting().unwrap().contains("24 are spent today"));
    let begun_today = {
        now.fetch_add(90_000, Ordering::Relaxed);
        waiting.await.unwrap()
    };
    assert!(budget.resting().is_none());
    // It counts on the day that it was reserved on.
    assert_eq!((begun_today.day, budget.limits()[0].spent.tokens), (20_784, 10));
    now.fetch_add(DAY_MS, Ordering::Relaxed);
    begun_today.settle(call(9));
    assert_eq!(budget.limits()[0].spent.tokens, 0);
    // No day has room for this one.
    let too_much = tokio::select! {
        too_much = ask(26) => too_much,
        () = look(&budget) => unreachable!(),
    };
    assert_eq!(too_much.err().unwrap().remedy, "raise `budget.per_day.tokens` and run again");
}

#[tokio::test(start_paused = true)]
async fn what_others_have_reserved_is_waited_for() {
    let budget = Budget::new(vec![limit(Of::Day, 100, 0)], AtCap::Stop, Wall::default());
    let (lowest, _) = watch::channel(None);
    let ask = |tokens| Box::pin(budget.reserve(RowId::root(0), 0, call(tokens), lowest.subscribe()));
    let see = |settled, elsewhere| {
        let (day, changes) = budget.about_to_look();
        let (settled, elsewhere) = (call(settled), call(elsewhere));
        budget.seen(
            day,
            Some(changes),
            Spent { settled, reserved: elsewhere, elsewhere, ..Spent::default() },
        );
    };
    see(20, 75);
    let mut waiting = ask(10);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    see(30, 60);
    waiting.await.unwrap().settle(call(10));
    let mut waiting = ask(10);
    see(92, 5);
    assert_eq!(
        waiting.as_mut().await.err().unwrap().sentence.split(',').next(),
        Some("the budget of 100 tokens per day is reached: 97 are spent today (UTC)")
    );
}

#[test]
fn money_is_shown_without_needless_zeros() {
    assert_eq!([usd(4_200_000), usd(25_000_000_000), usd(0)], ["0.0042", "25", "0"]);
}
