//! Who has spent how much: reservations at their worst case before a call, settled after it.
//! Whether a budget allows a call is decided elsewhere, but for the sum that several processes add to: what fits
//! in a day is seen in the transaction that reserves it. This file never forgets.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::StoreError;
use super::writer::Desk;
use super::{Store, from_db, to_db};
use crate::clock;

/// Money, tokens and calls. Sums stop at the largest number instead of wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Thousand-millionths of a US dollar: whole numbers, so that sums are exact in any order.
    pub usd_nano: u64,
    /// Input and output tokens together.
    pub tokens: u64,
    pub calls: u64,
}

impl Amount {
    #[must_use]
    pub fn plus(self, other: Amount) -> Amount {
        Amount {
            usd_nano: self.usd_nano.saturating_add(other.usd_nano),
            tokens: self.tokens.saturating_add(other.tokens),
            calls: self.calls.saturating_add(other.calls),
        }
    }

    #[must_use]
    pub fn times(self, count: u64) -> Amount {
        Amount {
            usd_nano: self.usd_nano.saturating_mul(count),
            tokens: self.tokens.saturating_mul(count),
            calls: self.calls.saturating_mul(count),
        }
    }

    pub fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Usd => self.usd_nano,
            Unit::Tokens => self.tokens,
            Unit::Calls => self.calls,
        }
    }

    #[must_use]
    pub fn minus(self, other: Amount) -> Amount {
        Amount {
            usd_nano: self.usd_nano.saturating_sub(other.usd_nano),
            tokens: self.tokens.saturating_sub(other.tokens),
            calls: self.calls.saturating_sub(other.calls),
        }
    }

    /// What one call of these took on average; nothing without calls.
    pub fn mean(self) -> Option<Amount> {
        Some(Amount {
            usd_nano: self.usd_nano.checked_div(self.calls)?,
            tokens: self.tokens.checked_div(self.calls)?,
            calls: 1,
        })
    }
}

/// What an amount is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Usd,
    Tokens,
    Calls,
}

impl Unit {
    pub const ALL: [Unit; 3] = [Unit::Usd, Unit::Tokens, Unit::Calls];

    /// Its key in a budget.
    pub fn key(self) -> &'static str {
        match self {
            Unit::Usd => "usd",
            Unit::Tokens => "tokens",
            Unit::Calls => "calls",
        }
    }

    /// What stands behind a number of it.
    pub fn word(self) -> &'static str {
        match self {
            Unit::Usd => "USD",
            Unit::Tokens => "tokens",
            Unit::Calls => "calls",
        }
    }
}

/// What a sum may come to; `None` is no cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    pub usd_nano: Option<u64>,
    pub tokens: Option<u64>,
    pub calls: Option<u64>,
}

impl Caps {
    pub fn is_none(&self) -> bool {
        *self == Caps::default()
    }

    /// The first cap that a sum is above.
    pub fn passed_by(&self, sum: Amount) -> Option<Unit> {
        let over = |cap: Option<u64>, sum: u64| cap.is_some_and(|cap| sum > cap);
        let caps = [
            (Unit::Usd, over(self.usd_nano, sum.usd_nano)),
            (Unit::Tokens, over(self.tokens, sum.tokens)),
            (Unit::Calls, over(self.calls, sum.calls)),
        ];
        caps.into_iter().find_map(|(unit, over)| over.then_some(unit))
    }

    /// The cap on one of these.
    pub fn of(&self, unit: Unit) -> Option<u64> {
        match unit {
            Unit::Usd => self.usd_nano,
            Unit::Tokens => self.tokens,
            Unit::Calls => self.calls,
        }
    }
}

/// The sums that a call adds to, by their names: the epoch's, the step's, the day's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Charge {
    pub epoch: Arc<str>,
    pub step: Arc<str>,
    pub day: Arc<str>,
}

impl Charge {
    /// A call of a step on a day, which counts from 1970-01-01 in UTC.
    pub fn new(pipeline: &str, epoch: &str, step: &str, day: i64) -> Charge {
        Charge {
            epoch: Charge::epoch(pipeline, epoch).into(),
            step: Charge::step(pipeline, epoch, step).into(),
            day: Charge::day(day).into(),
        }
    }

    /// The sum of all runs of a pipeline's epoch.
    pub fn epoch(pipeline: &str, epoch: &str) -> String {
        format!("{pipeline}@{epoch}")
    }

    /// The sum of a step over all runs of the epoch. A pipeline's name has no colon, so no epoch is called so;
    /// the length keeps a step apart from an epoch that looks like one.
    pub fn step(pipeline: &str, epoch: &str, step: &str) -> String {
        format!("step:{}:{step}:{}", step.len(), Charge::epoch(pipeline, epoch))
    }

    /// The sum of all runs of the workspace on one day in UTC.
    pub fn day(day: i64) -> String {
        format!("day:{}", clock::date(day.saturating_mul(clock::DAY_MS)))
    }
}

/// An open reservation of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId(pub(super) i64);

/// What a sum has come to so far, over all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Calls that ended, and calls of dead processes at their worst case; of all processes.
    pub settled: Amount,
    /// Calls under way, at their worst case.
    pub reserved: Amount,
    /// Those of `reserved` that are other processes'.
    pub elsewhere: Amount,
    /// Calls in batches of this process or of dead ones that have not come back, likewise.
    pub batched: Amount,
}

impl Spent {
    /// What a budget must be compared with.
    pub fn worst(self) -> Amount {
        self.settled.plus(self.reserved).plus(self.batched)
    }
}

/// What came of wanting to reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    Open(ReservationId),
    /// The day has no room for it beside what it has come to.
    Full(Spent),
}

/// What saving a reply does to the ledger.
#[derive(Clone, Debug)]
pub struct Spending {
    /// The sums that grow.
    pub charge: Arc<Charge>,
    /// The call's reservation, made for the same sums; closed together with the reply.
    pub reservation: Option<ReservationId>,
    pub actual: Amount,
}

impl Store {
    /// Records that a call may cost up to `worst`; resolves when that is on disk, so that it still
    /// counts should this process die during the call. Of the sums only the day's is other processes', too:
    /// that it stays within its caps can only be seen to here.
    pub async fn reserve(
        &self,
        charge: &Arc<Charge>,
        worst: Amount,
        per_day: Caps,
    ) -> Result<Reservation, StoreError> {
        let charge = Arc::clone(charge);
        self.write(move |desk| {
            if let Some(full) = full_day(desk, &charge.day, worst, per_day)? {
                return Ok(Reservation::Full(full));
            }
            desk.last_reservation += 1;
            let id = desk.last_reservation;
            desk.connection
                .prepare_cached(
                    "INSERT INTO reservations (id, scope, step, day, usd_nano, tokens, calls, process)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    id,
                    &*charge.epoch,
                    &*charge.step,
                    &*charge.day,
                    to_db(worst.usd_nano),
                    to_db(worst.tokens),
                    to_db(worst.calls),
                    desk.process
                ])?;
            Ok(Reservation::Open(ReservationId(id)))
        })
        .await
    }

    /// Closes the reservation of a call that brought no reply, made for the same sums: with zero when it
    /// cannot have been billed, with its worst case when it may have been. Fails with
    /// [`StoreError::UnknownReservation`] when it was closed before.
    pub async fn settle(
        &self,
        id: ReservationId,
        charge: &Arc<Charge>,
        actual: Amount,
    ) -> Result<(), StoreError> {
        let charge = Arc::clone(charge);
        let was_open = self
            .write(move |desk| {
                let was_open = close_reservation(&desk.connection, id)?;
                if was_open {
                    add_spending(desk, &charge, actual);
                }
                Ok(was_open)
            })
            .await?;
        if was_open { Ok(()) } else { Err(StoreError::UnknownReservation { id: id.0 }) }
    }

    /// Records what a call without a reservation may have cost, though it brought no reply.
    pub async fn add_spending(&self, charge: &Arc<Charge>, actual: Amount) -> Result<(), StoreError> {
        let charge = Arc::clone(charge);
        self.write(move |desk| {
            add_spending(desk, &charge, actual);
            Ok(())
        })
        .await
    }

    /// What a sum has come to, in one consistent look; zero for one never heard of.
    pub fn spent(&self, sum: &str) -> Result<Spent, StoreError> {
        let process = self.inner.process;
        self.read(|connection| read_spent(connection, sum, process))
    }
}

pub(super) fn read_spent(connection: &Connection, sum: &str, process: i64) -> rusqlite::Result<Spent> {
    let mut statement = connection.prepare_cached(
        "SELECT usd_nano, tokens, calls, NULL, 0 FROM scopes WHERE scope = ?1
         UNION ALL
         SELECT usd_nano, tokens, calls, process, 0 FROM reservations WHERE ?1 IN (scope, step, day)
         UNION ALL
         SELECT sum(i.usd_nano), sum(i.tokens), count(*),
                coalesce((SELECT id FROM processes WHERE id = b.process), ?2), 1
         FROM batch_items i JOIN batches b ON b.id = i.batch
         WHERE i.batch IS NOT NULL AND ?1 IN (i.scope, i.step_sum, i.day_sum) GROUP BY i.batch",
    )?;
    let mut rows = statement.query(params![sum, process])?;
    let mut spent = Spent::default();
    while let Some(row) = rows.next()? {
        let part = amount(row, 0)?;
        let holder: Option<i64> = row.get(3)?;
        if row.get(4)? && holder == Some(process) {
            spent.batched = spent.batched.plus(part);
            continue;
        }
        match holder {
            None => spent.settled = spent.settled.plus(part),
            Some(holder) => {
                spent.reserved = spent.reserved.plus(part);
                if holder != process {
                    spent.elsewhere = spent.elsewhere.plus(part);
                }
            }
        }
    }
    Ok(spent)
}

/// What a day has come to, when it has no room for calls; else they are reckoned to it. What this transaction knows
/// of it is never too little, and may be too much: calls were settled since.
pub(super) fn full_day(
    desk: &mut Desk,
    day: &Arc<str>,
    worst: Amount,
    caps: Caps,
) -> rusqlite::Result<Option<Spent>> {
    if caps.is_none() {
        // What is known of it does not have these.
        desk.day = None;
        return Ok(None);
    }
    let has_room = |spent: &Spent| caps.passed_by(spent.worst().plus(worst)).is_none();
    let known = desk.day.take().filter(|(known, spent)| known == day && has_room(spent));
    let mut spent = match known {
        Some((_, spent)) => spent,
        None => {
            let mut spent = read_spent(&desk.connection, day, desk.process)?;
            for (_, amount) in desk.spending.iter().filter(|(charge, _)| charge.day == *day) {
                spent.settled = spent.settled.plus(*amount);
            }
            spent
        }
    };
    let full = (!has_room(&spent)).then_some(spent);
    if full.is_none() {
        spent.reserved = spent.reserved.plus(worst);
    }
    desk.day = Some((Arc::clone(day), spent));
    Ok(full)
}

/// Closes a reservation; whether it was open.
pub(super) fn close_reservation(connection: &Connection, id: ReservationId) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached("DELETE FROM reservations WHERE id = ?1")?.execute([id.0])? > 0)
}

/// Adds to the sums of a charge with the running transaction.
pub(super) fn add_spending(desk: &mut Desk, charge: &Arc<Charge>, actual: Amount) {
    let sum = desk.spending.entry(Arc::clone(charge)).or_default();
    *sum = sum.plus(actual);
    if let Some((_, spent)) = desk.day.as_mut().filter(|(day, _)| *day == charge.day) {
        spent.settled = spent.settled.plus(actual);
    }
}

/// Writes what the batch has spent: one row per sum instead of some per reply.
pub(super) fn write_spending(desk: &mut Desk) -> rusqlite::Result<()> {
    let mut by_sum: HashMap<Arc<str>, Amount> = HashMap::new();
    for (charge, actual) in desk.spending.drain() {
        for name in [&charge.epoch, &charge.step, &charge.day] {
            let sum = by_sum.entry(Arc::clone(name)).or_default();
            *sum = sum.plus(actual);
        }
    }
    for (name, actual) in by_sum {
        add_to_sum(&desk.connection, &name, actual)?;
    }
    Ok(())
}

/// Counts every reservation that dead processes left open at its worst case, and closes it.
/// Returns how many there were and their sum. The dead must have been taken out of the processes before.
pub(super) fn fold_open_reservations(connection: &Connection) -> rusqlite::Result<(u64, Amount)> {
    let mut count = 0;
    let mut total = Amount::default();
    let mut by_sum: HashMap<String, Amount> = HashMap::new();
    let mut statement = connection.prepare(
        "SELECT usd_nano, tokens, calls, scope, step, day FROM reservations
         WHERE process NOT IN (SELECT id FROM processes)",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let worst = amount(row, 0)?;
        for column in 3..6 {
            let Some(name) = row.get::<_, Option<String>>(column)? else { continue };
            let sum = by_sum.entry(name).or_default();
            *sum = sum.plus(worst);
        }
        total = total.plus(worst);
        count += 1;
    }
    for (name, worst) in by_sum {
        add_to_sum(connection, &name, worst)?;
    }
    let left_open = "DELETE FROM reservations WHERE process NOT IN (SELECT id FROM processes)";
    connection.execute(left_open, [])?;
    Ok((count, total))
}

fn add_to_sum(connection: &Connection, name: &str, actual: Amount) -> rusqlite::Result<()> {
    let before = connection
        .prepare_cached("SELECT usd_nano, tokens, calls FROM scopes WHERE scope = ?1")?
        .query_row([name], |row| amount(row, 0))
        .optional()?
        .unwrap_or_default();
    let sum = before.plus(actual);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO scopes (scope, usd_nano, tokens, calls) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![name, to_db(sum.usd_nano), to_db(sum.tokens), to_db(sum.calls)])?;
    Ok(())
}

fn amount(row: &Row<'_>, first_column: usize) -> rusqlite::Result<Amount> {
    Ok(Amount {
        usd_nano: from_db(row.get(first_column)?),
        tokens: from_db(row.get(first_column + 1)?),
        calls: from_db(row.get(first_column + 2)?),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, Fixture, body, reply};
    use super::super::{IfPresent, Saved};
    use super::*;

    const WORST: Amount = Amount { usd_nano: 1_000, tokens: 100, calls: 1 };
    const ACTUAL: Amount = Amount { usd_nano: 300, tokens: 40, calls: 1 };
    const NOTHING: Amount = Amount { usd_nano: 0, tokens: 0, calls: 0 };

    const DAY: i64 = 20_783;

    fn charge() -> Arc<Charge> {
        Arc::new(Charge::new("exercises", "0", "draft", DAY))
    }

    fn check(fixture: &Fixture, settled: Amount, reserved: Amount) {
        let Charge { epoch, step, day } = &*charge();
        for sum in [epoch, step, day] {
            assert_eq!(
                fixture.store.spent(sum).unwrap(),
                Spent { settled, reserved, ..Spent::default() },
                "{sum}"
            );
        }
        for other in ["other@0", "exercises", &Charge::day(DAY + 1)] {
            assert_eq!(fixture.store.spent(other).unwrap(), Spent::default());
        }
    }

    fn spending(reservation: Option<ReservationId>) -> Option<Spending> {
        Some(Spending { charge: charge(), reservation, actual: ACTUAL })
    }

    #[test]
    fn sums_have_names_of_their_own() {
        let Charge { epoch, step, day } = Charge::new("p", "0", "draft", DAY);
        assert_eq!((&*epoch, &*step, &*day), ("p@0", "step:5:draft:p@0", "day:2026-11-26"));
        assert_ne!(Charge::step("p", "0", "a:p@0:b"), Charge::step("p", "0:b:p@0", "a"));
    }

    #[tokio::test]
    async fn sums_grow_apart_where_calls_differ() {
        let fixture = fixture::open();
        let judged = Arc::new(Charge::new("exercises", "0", "judge", DAY));
        let later = Arc::new(Charge::new("exercises", "0", "draft", DAY + 1));
        for charge in [charge(), judged, Arc::clone(&later)] {
            let id = fixture::reserved(&fixture.store, &charge, WORST).await;
            fixture.store.settle(id, &charge, ACTUAL).await.unwrap();
        }
        let calls = |sum: &str| fixture.store.spent(sum).unwrap().settled.calls;
        let charge = charge();
        assert_eq!([calls(&charge.epoch), calls(&charge.step), calls(&charge.day)], [3, 2, 2]);
        assert_eq!(calls(&later.day), 1);
    }

    #[tokio::test]
    async fn a_reply_settles_its_reservation() {
        let fixture = fixture::open();
        let id = fixture::reserved(&fixture.store, &charge(), WORST).await;
        check(&fixture, NOTHING, WORST);
        fixture.store.save_reply(&reply(1, "a"), spending(Some(id)), IfPresent::KeepFirst).await.unwrap();
        check(&fixture, ACTUAL, NOTHING);
    }

    #[tokio::test]
    async fn a_call_without_reply_is_settled_once() {
        let fixture = fixture::open();
        let free = fixture::reserved(&fixture.store, &charge(), WORST).await;
        let billed = fixture::reserved(&fixture.store, &charge(), WORST).await;
        fixture.store.settle(free, &charge(), NOTHING).await.unwrap();
        fixture.store.settle(billed, &charge(), WORST).await.unwrap();
        let error = fixture.store.settle(billed, &charge(), WORST).await.unwrap_err();
        assert_eq!(error, StoreError::UnknownReservation { id: billed.0 });
        check(&fixture, WORST, NOTHING);
    }

    #[tokio::test]
    async fn spending_counts_without_reservation_and_for_a_reply_that_came_second() {
        let fixture = fixture::open();
        for expected in [Saved::Stored, Saved::KeptFirst] {
            let saved = fixture.store.save_reply(&reply(1, "a"), spending(None), IfPresent::KeepFirst).await;
            assert_eq!(saved, Ok(expected));
        }
        check(&fixture, ACTUAL.plus(ACTUAL), NOTHING);
    }

    #[tokio::test]
    async fn what_a_dead_process_left_open_counts_at_its_worst() {
        let fixture = fixture::open();
        for _ in 0..3 {
            fixture::reserved(&fixture.store, &charge(), WORST).await;
        }
        fixture.store.save_reply(&reply(1, "a"), spending(None), IfPresent::KeepFirst).await.unwrap();
        let fixture = fixture.reopen();
        let three = WORST.plus(WORST).plus(WORST);
        assert_eq!(fixture.store.recovered().open_reservations_found, 3);
        assert_eq!(fixture.store.recovered().worst_case, three);
        check(&fixture, ACTUAL.plus(three), NOTHING);
        let fixture = fixture.reopen();
        assert_eq!(fixture.store.recovered().open_reservations_found, 0);
        check(&fixture, ACTUAL.plus(three), NOTHING);
        assert_eq!(body(&fixture.store, 1).as_deref(), Some("a"));
    }

    #[tokio::test]
    async fn sums_stop_at_the_largest_number() {
        let fixture = fixture::open();
        let huge = Amount { usd_nano: u64::MAX, tokens: 1, calls: 1 };
        for _ in 0..2 {
            let id = fixture::reserved(&fixture.store, &charge(), huge).await;
            fixture.store.settle(id, &charge(), huge).await.unwrap();
        }
        let spent = fixture.store.spent(&charge().epoch).unwrap();
        let largest = i64::MAX.unsigned_abs();
        assert_eq!(spent.worst(), Amount { usd_nano: largest, tokens: 2, calls: 2 });
    }

    #[tokio::test]
    async fn a_day_holds_all_processes_together() {
        let fixture = fixture::open();
        let other = super::super::Store::open(fixture.folder.path(), super::super::Access::Write).unwrap();
        let caps = Caps { tokens: Some(1_000), ..Caps::default() };
        // Twenty at once from each of two, of which ten fit.
        let stores = [&fixture.store, &other];
        let charge = charge();
        let asked = (0..40).map(|index| stores[index % 2].reserve(&charge, WORST, caps));
        let (mut open, mut full) = (Vec::new(), Vec::new());
        for (index, asked) in futures_util::future::join_all(asked).await.into_iter().enumerate() {
            match asked.unwrap() {
                Reservation::Open(id) => open.push((stores[index % 2], id)),
                Reservation::Full(spent) => full.push(spent),
            }
        }
        assert_eq!((open.len(), full.len()), (10, 30));
        assert!(full.iter().any(|spent| spent.reserved.tokens == 1_000));
        // What is settled for less makes room for others, in the same batch.
        let (store, id) = open.pop().unwrap();
        let (settled, again) =
            tokio::join!(store.settle(id, &charge, NOTHING), fixture.store.reserve(&charge, WORST, caps),);
        settled.unwrap();
        if let Reservation::Full(_) = again.unwrap() {
            fixture::reserved(&fixture.store, &charge, WORST).await;
        }
        let again = other.reserve(&charge, WORST, caps).await.unwrap();
        assert!(matches!(again, Reservation::Full(_)));
        // Another day is another sum.
        let later = Arc::new(Charge::new("exercises", "0", "draft", DAY + 1));
        assert!(matches!(other.reserve(&later, WORST, caps).await, Ok(Reservation::Open(_))));
    }
}
