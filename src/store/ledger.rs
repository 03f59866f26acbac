//! Who has spent how much: reservations at their worst case before a call, settled after it.
//! Whether a budget allows a call is decided elsewhere; this file only never forgets.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::StoreError;
use super::writer::Desk;
use super::{Store, from_db, to_db};

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

    /// What one call of these took on average; nothing without calls.
    pub fn mean(self) -> Option<Amount> {
        Some(Amount {
            usd_nano: self.usd_nano.checked_div(self.calls)?,
            tokens: self.tokens.checked_div(self.calls)?,
            calls: 1,
        })
    }
}

/// An open reservation of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId(pub(super) i64);

/// What a scope has cost so far, over all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Calls that ended, and calls of dead processes at their worst case.
    pub settled: Amount,
    /// Calls under way, at their worst case.
    pub reserved: Amount,
}

impl Spent {
    /// What a budget must be compared with.
    pub fn worst(self) -> Amount {
        self.settled.plus(self.reserved)
    }
}

/// What saving a reply does to the ledger.
#[derive(Clone, Debug)]
pub struct Spending {
    /// Whose total grows: `pipeline-name@epoch`.
    pub scope: Arc<str>,
    /// The call's reservation, made for the same scope; closed together with the reply.
    pub reservation: Option<ReservationId>,
    pub actual: Amount,
}

impl Store {
    /// Records that a call may cost up to `worst`; resolves when that is on disk, so that it still
    /// counts should this process die during the call. It compares with no cap.
    pub async fn reserve(&self, scope: &Arc<str>, worst: Amount) -> Result<ReservationId, StoreError> {
        let scope = Arc::clone(scope);
        self.write(move |desk| {
            desk.last_reservation += 1;
            let id = desk.last_reservation;
            desk.connection
                .prepare_cached(
                    "INSERT INTO reservations (id, scope, usd_nano, tokens, calls) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![
                    id,
                    &*scope,
                    to_db(worst.usd_nano),
                    to_db(worst.tokens),
                    to_db(worst.calls)
                ])?;
            Ok(ReservationId(id))
        })
        .await
    }

    /// Closes the reservation of a call that brought no reply: with zero when it cannot have been
    /// billed, with its worst case when it may have been. Fails with
    /// [`StoreError::UnknownReservation`] when it was closed before.
    pub async fn settle(&self, id: ReservationId, actual: Amount) -> Result<(), StoreError> {
        let scope = self
            .write(move |desk| {
                let scope = close_reservation(&desk.connection, id)?;
                if let Some(scope) = &scope {
                    add_spending(desk, scope, actual);
                }
                Ok(scope)
            })
            .await?;
        scope.map(drop).ok_or(StoreError::UnknownReservation { id: id.0 })
    }

    /// Records what a call without a reservation may have cost, though it brought no reply.
    pub async fn add_spending(&self, scope: &Arc<str>, actual: Amount) -> Result<(), StoreError> {
        let scope = Arc::clone(scope);
        self.write(move |desk| {
            add_spending(desk, &scope, actual);
            Ok(())
        })
        .await
    }

    /// What `scope` has cost, in one consistent look; zero for a scope never heard of.
    pub fn spent(&self, scope: &str) -> Result<Spent, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT usd_nano, tokens, calls, 1 FROM scopes WHERE scope = ?1
                 UNION ALL
                 SELECT usd_nano, tokens, calls, 0 FROM reservations WHERE scope = ?1",
            )?;
            let mut rows = statement.query([scope])?;
            let mut spent = Spent::default();
            while let Some(row) = rows.next()? {
                let part = if row.get(3)? { &mut spent.settled } else { &mut spent.reserved };
                *part = part.plus(amount(row, 0)?);
            }
            Ok(spent)
        })
    }
}

/// Closes a reservation; its scope, or `None` when it is not open.
pub(super) fn close_reservation(
    connection: &Connection,
    id: ReservationId,
) -> rusqlite::Result<Option<Arc<str>>> {
    connection
        .prepare_cached("DELETE FROM reservations WHERE id = ?1 RETURNING scope")?
        .query_row([id.0], |row| row.get(0))
        .optional()
}

/// Adds to a scope's total with the running transaction.
pub(super) fn add_spending(desk: &mut Desk, scope: &Arc<str>, actual: Amount) {
    let sum = desk.spending.entry(Arc::clone(scope)).or_default();
    *sum = sum.plus(actual);
}

/// Writes what the batch has spent: one row per scope instead of one per reply.
pub(super) fn write_spending(desk: &mut Desk) -> rusqlite::Result<()> {
    for (scope, actual) in desk.spending.drain() {
        add_to_scope(&desk.connection, &scope, actual)?;
    }
    Ok(())
}

/// Counts every reservation that a dead process left open at its worst case, and closes it.
/// Returns how many there were and their sum. Needs the lock and a running transaction.
pub(super) fn fold_open_reservations(connection: &Connection) -> rusqlite::Result<(u64, Amount)> {
    let mut count = 0;
    let mut total = Amount::default();
    let mut by_scope: HashMap<String, Amount> = HashMap::new();
    let mut statement = connection.prepare("SELECT usd_nano, tokens, calls, scope FROM reservations")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let worst = amount(row, 0)?;
        let sum = by_scope.entry(row.get(3)?).or_default();
        *sum = sum.plus(worst);
        total = total.plus(worst);
        count += 1;
    }
    for (scope, worst) in by_scope {
        add_to_scope(connection, &scope, worst)?;
    }
    connection.execute("DELETE FROM reservations", [])?;
    Ok((count, total))
}

fn add_to_scope(connection: &Connection, scope: &str, actual: Amount) -> rusqlite::Result<()> {
    let before = connection
        .prepare_cached("SELECT usd_nano, tokens, calls FROM scopes WHERE scope = ?1")?
        .query_row([scope], |row| amount(row, 0))
        .optional()?
        .unwrap_or_default();
    let sum = before.plus(actual);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO scopes (scope, usd_nano, tokens, calls) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![scope, to_db(sum.usd_nano), to_db(sum.tokens), to_db(sum.calls)])?;
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

    fn scope() -> Arc<str> {
        "exercises@0".into()
    }

    fn check(fixture: &Fixture, settled: Amount, reserved: Amount) {
        assert_eq!(fixture.store.spent(&scope()).unwrap(), Spent { settled, reserved });
        assert_eq!(fixture.store.spent("other@0").unwrap(), Spent::default());
    }

    fn spending(reservation: Option<ReservationId>) -> Option<Spending> {
        Some(Spending { scope: scope(), reservation, actual: ACTUAL })
    }

    #[tokio::test]
    async fn a_reply_settles_its_reservation() {
        let fixture = fixture::open();
        let id = fixture.store.reserve(&scope(), WORST).await.unwrap();
        check(&fixture, NOTHING, WORST);
        fixture.store.save_reply(&reply(1, "a"), spending(Some(id)), IfPresent::KeepFirst).await.unwrap();
        check(&fixture, ACTUAL, NOTHING);
    }

    #[tokio::test]
    async fn a_call_without_reply_is_settled_once() {
        let fixture = fixture::open();
        let free = fixture.store.reserve(&scope(), WORST).await.unwrap();
        let billed = fixture.store.reserve(&scope(), WORST).await.unwrap();
        fixture.store.settle(free, NOTHING).await.unwrap();
        fixture.store.settle(billed, WORST).await.unwrap();
        let error = fixture.store.settle(billed, WORST).await.unwrap_err();
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
            fixture.store.reserve(&scope(), WORST).await.unwrap();
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
            let id = fixture.store.reserve(&scope(), huge).await.unwrap();
            fixture.store.settle(id, huge).await.unwrap();
        }
        let spent = fixture.store.spent(&scope()).unwrap();
        let largest = i64::MAX.unsigned_abs();
        assert_eq!(spent.worst(), Amount { usd_nano: largest, tokens: 2, calls: 2 });
    }
}
