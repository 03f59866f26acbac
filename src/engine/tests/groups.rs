//! Groups: siblings that go on together, and barriers that wait for every row.

use super::*;
use crate::ops::{Belong, GroupRow};

/// Keeps the row with the highest number of each group; of equals the first.
struct Highest {
    belong: Belong,
    /// How many rows each group had, in the order they were decided.
    sizes: Arc<std::sync::Mutex<Vec<usize>>>,
}

impl GroupRow for Highest {
    fn belong(&self) -> Belong {
        self.belong
    }

    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        row.fields["n"].as_u64().map(|n| vec![n]).ok_or_else(|| Reason::new("no_number", json!(null)))
    }

    fn decide(&self, rows: &[(RowId, FoldKey)]) -> Vec<Decision> {
        assert!(rows.is_sorted_by_key(|(id, _)| id), "a group comes in row order");
        self.sizes.lock().unwrap().push(rows.len());
        let highest = rows.iter().map(|(_, key)| key[0]).max();
        let first = rows.iter().position(|(_, key)| Some(key[0]) == highest);
        let decide = |place| {
            if Some(place) == first {
                Decision::Keep
            } else {
                Decision::Reject(Reason::new("lower", json!(null)))
            }
        };
        (0..rows.len()).map(decide).collect()
    }
}

fn highest(belong: Belong) -> (Runner, Arc<std::sync::Mutex<Vec<usize>>>) {
    let sizes: Arc<std::sync::Mutex<Vec<usize>>> = Arc::default();
    (Runner::Group(Box::new(Highest { belong, sizes: Arc::clone(&sizes) })), sizes)
}

/// Rejects children with an even index.
fn odd_children() -> Runner {
    Runner::Map(Box::new(Map(|row: Row| {
        if row.id.path.last().is_some_and(|index| index % 2 == 0) {
            Outcome::Reject(row, Reason::new("even", json!(null)))
        } else {
            Outcome::Keep(row)
        }
    })))
}

#[tokio::test(start_paused = true)]
async fn siblings_are_decided_together_whatever_comes_first() {
    let (control, calls) = (Control::default(), Arc::default());
    let (group, sizes) = highest(Belong::Siblings);
    let steps = vec![
        split_in(7),
        slow(&control, &calls, None),
        odd_children(),
        Runner::Fold(Box::new(Distinct { limit: None })),
        group,
        slow(&control, &calls, None),
    ];
    let mut case = Case::new(40, steps);
    case.settings.window_rows = 2;
    case.settings.active_max = 3;
    case.settings.held_bytes_max = 1000;
    let (finish, ends) = case.run().await;
    let expected: Vec<String> = (0..40).map(|row| format!("{row}.5")).collect();
    assert_eq!(ids(&ends, "kept"), expected);
    assert_eq!((ids(&ends, "lower").len(), ids(&ends, "even").len()), (80, 160));
    assert_eq!(*sizes.lock().unwrap(), vec![3; 40]);
    assert!(finish.complete && finish.tally.balances());
}

#[tokio::test(start_paused = true)]
async fn a_group_goes_on_while_later_ones_are_still_at_work() {
    let (control, calls) = (Control::default(), Arc::default());
    let steps =
        vec![split_in(3), slow(&control, &calls, Some("9.1".parse().unwrap())), highest(Belong::Siblings).0];
    let mut case = Case::new(10, steps);
    case.until = Until { kept: Some(9), tried: None };
    let started = tokio::time::Instant::now();
    let (finish, ends) = case.run().await;
    assert_eq!(ids(&ends, "kept").len(), 9);
    assert!(finish.reached && started.elapsed() < Duration::from_secs(61));
}

#[tokio::test(start_paused = true)]
async fn rows_without_siblings_are_groups_of_one() {
    let (group, sizes) = highest(Belong::Siblings);
    let (finish, ends) = Case::new(30, vec![group]).run().await;
    assert_eq!((ids(&ends, "kept").len(), sizes.lock().unwrap().len()), (30, 30));
    assert!(finish.complete && finish.tally.balances());
}

/// The source may be longer than the window: what waits at a barrier holds nothing up.
#[tokio::test(start_paused = true)]
async fn a_barrier_waits_for_every_row_in_a_window_of_one() {
    let (control, calls) = (Control::default(), Arc::default());
    let (group, sizes) = highest(Belong::All);
    let steps = vec![slow(&control, &calls, None), split_in(2), group, slow(&control, &calls, None)];
    let mut case = Case::new(200, steps);
    case.settings.window_rows = 1;
    case.settings.active_max = 1;
    case.settings.held_bytes_max = 1000;
    let (finish, ends) = case.run().await;
    assert_eq!((ids(&ends, "kept"), ids(&ends, "lower").len()), (vec!["199.1".to_owned()], 399));
    assert_eq!(*sizes.lock().unwrap(), [400]);
    assert!(finish.complete && finish.tally.balances());
}

#[tokio::test(start_paused = true)]
async fn barriers_follow_folds_and_each_other() {
    let (control, calls) = (Control::default(), Arc::default());
    let steps = vec![
        slow(&control, &calls, None),
        Runner::Fold(Box::new(Distinct { limit: None })),
        split_in(3),
        highest(Belong::Siblings).0,
        highest(Belong::All).0,
        Runner::Fold(Box::new(Limit(1))),
        highest(Belong::All).0,
    ];
    let (finish, ends) = Case::new(100, steps).run().await;
    assert_eq!(ids(&ends, "kept"), ["9.2"]);
    assert_eq!((ids(&ends, "duplicate").len(), ids(&ends, "lower").len()), (90, 29));
    assert!(finish.complete && finish.tally.balances());
}

/// A limit before the barrier ends the source, one behind it may not keep the source from its end.
#[tokio::test(start_paused = true)]
async fn limits_stand_on_both_sides_of_a_barrier() {
    for (before, after, kept, rows_in) in [(50, 5, 1, 50), (1000, 1, 1, 300)] {
        let steps = vec![
            Runner::Fold(Box::new(Limit(before))),
            highest(Belong::All).0,
            Runner::Map(Box::new(Map(Outcome::Keep))),
            Runner::Fold(Box::new(Limit(after))),
        ];
        let (finish, ends) = Case::new(300, steps).run().await;
        assert_eq!((ids(&ends, "kept").len(), finish.tally.rows_in), (kept, rows_in));
        assert!(finish.complete && finish.tally.balances());
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_stops_leaves_the_rows_at_a_barrier_open() {
    let (control, calls): (Control, Arc<AtomicU64>) = (Control::default(), Arc::default());
    let stopping = control.clone();
    let steps = vec![
        slow(&control, &calls, None),
        Runner::Map(Box::new(Map(move |row: Row| {
            if row.id.ordinal == 20 {
                stopping.stop(crate::call::StopReason::Fatal("enough".to_owned()));
            }
            Outcome::Keep(row)
        }))),
        highest(Belong::All).0,
    ];
    let mut case = Case::new(100, steps);
    case.control = control;
    case.settings.active_max = 4;
    let (finish, ends) = case.run().await;
    assert_eq!((ends.len(), finish.complete), (0, false));
    assert!(finish.tally.open >= 21 && finish.tally.balances());
}
