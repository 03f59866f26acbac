//! Who is next at the gate: waiters in order of row and step, with a bound on being passed over.
//!
//! Knows nothing of limits. Time is a parameter.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Ticket;
use crate::row::RowId;
use crate::teacher::Usage;

/// How long a waiter that was passed over waits before it gets turns out of order.
pub const PASSED_PATIENCE: Duration = Duration::from_secs(5);

/// One place in this many goes to the waiter that came first, when it was passed over for too long.
///
/// If every place did, a queue longer than [`PASSED_PATIENCE`] can serve would turn into first come
/// first served, and a row's later steps would queue behind rows that have not begun.
pub const TURN_EVERY: u32 = 4;

/// Lowest row first, then later step, then first come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    row: RowId,
    step: Reverse<usize>,
    id: u64,
}

#[derive(Debug)]
struct Waiter {
    tokens: Usage,
    since: Duration,
}

/// The waiters of one gate. All operations take logarithmic time.
///
/// A waiter is passed over when one that came later was let in before it. Once that has happened and
/// it has waited [`PASSED_PATIENCE`], it waits for at most [`TURN_EVERY`] admissions for itself and for each
/// waiter that came before it; nobody who comes later can add to that.
#[derive(Debug, Default)]
pub struct Queue {
    ranked: BTreeMap<Rank, Waiter>,
    /// The same waiters in the order they came: ids only grow.
    by_age: BTreeMap<u64, Rank>,
    last_id: u64,
    /// The largest id that was let in: all smaller ones that still wait were passed over.
    newest_let_in: u64,
    /// Places given since the one that came first had its turn.
    since_turn: u32,
}

/// Who is next, and what it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub id: u64,
    pub tokens: Usage,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.ranked.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ranked.is_empty()
    }

    /// Adds a waiter; the id is for [`Queue::let_in`] and [`Queue::remove`].
    pub fn push(&mut self, now: Duration, ticket: Ticket) -> u64 {
        self.last_id += 1;
        let rank = Rank { row: ticket.row, step: Reverse(ticket.step), id: self.last_id };
        self.by_age.insert(self.last_id, rank.clone());
        self.ranked.insert(rank, Waiter { tokens: ticket.tokens, since: now });
        self.last_id
    }

    /// The waiter that gets the next place; it keeps the claim until it is let in, leaves, or one of
    /// higher rank comes (the one that had to wait too long gives way to nobody).
    pub fn head(&self, now: Duration) -> Option<Head> {
        let (id, rank) = self.by_age.first_key_value()?;
        let passed = *id < self.newest_let_in && self.since_turn + 1 >= TURN_EVERY;
        if passed
            && let Some(oldest) = self.ranked.get(rank)
            && now.saturating_sub(oldest.since) >= PASSED_PATIENCE
        {
            return Some(Head { id: *id, tokens: oldest.tokens });
        }
        let (rank, waiter) = self.ranked.first_key_value()?;
        Some(Head { id: rank.id, tokens: waiter.tokens })
    }

    /// Takes a waiter out because it got a place.
    pub fn let_in(&mut self, id: u64) {
        let oldest = self.by_age.first_key_value().is_some_and(|(oldest, _)| *oldest == id);
        self.since_turn = if oldest { 0 } else { self.since_turn.saturating_add(1) };
        self.newest_let_in = self.newest_let_in.max(id);
        self.remove(id);
    }

    /// Takes a waiter out because it no longer waits; `false` if it was not there.
    pub fn remove(&mut self, id: u64) -> bool {
        self.by_age.remove(&id).is_some_and(|rank| self.ranked.remove(&rank).is_some())
    }

    pub fn clear(&mut self) {
        self.ranked.clear();
        self.by_age.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(row: &str, step: usize) -> Ticket {
        Ticket { row: row.parse().unwrap(), step, tokens: Usage::default() }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// All waiters come at once; they are let in in the expected order.
    fn check(waiters: &[(&str, usize)], expected: &[(&str, usize)]) {
        let mut queue = Queue::default();
        let mut ids: Vec<u64> =
            waiters.iter().map(|(row, step)| queue.push(at(0), ticket(row, *step))).collect();
        for wanted in expected {
            // An hour later: nobody was passed over by a later one, so age changes nothing.
            let head = queue.head(at(3_600)).unwrap();
            let position = ids.iter().position(|id| *id == head.id).unwrap();
            assert_eq!(waiters[position], *wanted);
            queue.let_in(head.id);
            ids[position] = 0;
        }
        assert!(queue.is_empty() && queue.by_age.is_empty());
    }

    #[test]
    fn lowest_row_then_later_step_then_first_come() {
        check(&[("1", 0), ("2", 5), ("10", 0)], &[("1", 0), ("2", 5), ("10", 0)]);
        check(&[("1", 0), ("1", 2), ("1", 1)], &[("1", 2), ("1", 1), ("1", 0)]);
        check(&[("3", 1), ("3.2", 1), ("3.2", 2)], &[("3", 1), ("3.2", 2), ("3.2", 1)]);
        check(&[("1", 0), ("1", 0)], &[("1", 0), ("1", 0)]);
    }

    #[test]
    fn lowest_row_is_first_whenever_it_came() {
        let mut queue = Queue::default();
        for row in ["9", "4", "7"] {
            queue.push(at(0), ticket(row, 0));
        }
        let first = queue.push(at(1), ticket("0", 0));
        assert_eq!(queue.head(at(1)).unwrap().id, first);
    }

    #[test]
    fn a_waiter_that_was_passed_over_gets_its_turn() {
        let mut queue = Queue::default();
        let passed = queue.push(at(0), ticket("1000", 0));
        let mut let_in = Vec::new();
        for row in 0..80 {
            let now = Duration::from_millis(100 * row);
            queue.push(now, ticket(&row.to_string(), 0));
            let head = queue.head(now).unwrap();
            queue.let_in(head.id);
            let_in.push((now, head.id));
        }
        let (when, _) = let_in.iter().find(|(_, id)| *id == passed).expect("it starved");
        assert_eq!(*when, PASSED_PATIENCE);
    }

    #[test]
    fn a_long_queue_does_not_become_first_come_first_served() {
        let mut queue = Queue::default();
        for row in 0..1_000 {
            queue.push(at(0), ticket(&(1_000 + row).to_string(), 0));
        }
        // A later step of a low row comes with every place: it gets three of four, the others one.
        let (mut low, mut high) = (0, Vec::new());
        for row in 0..400 {
            queue.push(at(10), ticket(&row.to_string(), 1));
            let head = queue.head(at(10)).unwrap();
            if head.id > 1_000 {
                low += 1;
            } else {
                high.push(head.id);
            }
            queue.let_in(head.id);
        }
        assert!((295..=305).contains(&low), "{low}");
        assert!(high.is_sorted());
    }

    #[test]
    fn one_that_leaves_is_forgotten() {
        let mut queue = Queue::default();
        let id = queue.push(at(0), ticket("1", 0));
        assert!(queue.remove(id));
        assert!(!queue.remove(id));
        assert_eq!((queue.head(at(9)), queue.len()), (None, 0));
    }
}
