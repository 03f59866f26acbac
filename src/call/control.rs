//! How a run is told to stop, and which rows turned out not to be needed.
//!
//! One state, watched by everybody who waits: after a stop no new call is sent, those in flight are
//! finished and kept; after an abort nothing is waited for.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::call::budget::Reached;
use crate::call::parking::Parking;
use crate::row::RowId;

/// Why a run stops before its rows are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The user asked for it.
    Interrupted,
    /// The budget's cap was reached.
    Budget(Reached),
    /// A teacher made no progress for its patience.
    Stalled(String),
    /// The source cannot be read on.
    Source(String),
    /// Nothing that this run sends can succeed: no quota, a wrong key, a full disk.
    Fatal(String),
}

impl StopReason {
    /// One sentence for a person.
    pub fn sentence(&self) -> String {
        match self {
            StopReason::Interrupted => "on request".to_owned(),
            StopReason::Budget(reached) => reached.sentence.clone(),
            StopReason::Stalled(text) | StopReason::Source(text) | StopReason::Fatal(text) => text.clone(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    stopping: bool,
    /// Rows above this id are not needed.
    cut: Option<RowId>,
}

struct Inner {
    state: watch::Sender<State>,
    /// The lowest row that is open: the one that everything else waits for. Apart from the state, since it
    /// changes with every row and only calls that wait for the budget look at it.
    lowest: watch::Sender<Option<RowId>>,
    reason: Mutex<Option<StopReason>>,
    stopping: CancellationToken,
    aborting: CancellationToken,
    parking: Parking,
}

/// A handle to a run's stop state; cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

impl Default for Control {
    fn default() -> Control {
        Control(Arc::new(Inner {
            state: watch::Sender::new(State::default()),
            // Rows are at work before the first of them is known to be open.
            lowest: watch::Sender::new(Some(RowId::root(0))),
            reason: Mutex::new(None),
            stopping: CancellationToken::new(),
            aborting: CancellationToken::new(),
            parking: Parking::default(),
        }))
    }
}

impl Control {
    /// Stops the run; the first reason given is the one that is told.
    pub fn stop(&self, reason: StopReason) {
        let mut told = self.0.reason.lock().unwrap_or_else(PoisonError::into_inner);
        told.get_or_insert(reason);
        drop(told);
        self.0.state.send_modify(|state| state.stopping = true);
        self.0.stopping.cancel();
    }

    /// Stops the run without waiting for calls in flight.
    pub fn abort(&self) {
        self.stop(StopReason::Interrupted);
        self.0.aborting.cancel();
    }

    /// Rows above `id` are not needed: calls for them that are not sent yet are not sent.
    pub fn cut(&self, id: RowId) {
        self.0.state.send_modify(|state| {
            let closer = state.cut.as_ref().is_none_or(|cut| id.is_within(cut));
            if closer {
                state.cut = Some(id);
            }
        });
    }

    /// Tells which row is the lowest open one.
    pub fn lowest_is(&self, id: Option<&RowId>) {
        self.0.lowest.send_if_modified(|lowest| {
            let changed = lowest.as_ref() != id;
            if changed {
                *lowest = id.cloned();
            }
            changed
        });
    }

    /// Follows which row is the lowest open one.
    pub fn lowest_open(&self) -> watch::Receiver<Option<RowId>> {
        self.0.lowest.subscribe()
    }

    /// Where rows wait for answers that take hours.
    pub fn parking(&self) -> &Parking {
        &self.0.parking
    }

    pub fn reason(&self) -> Option<StopReason> {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn is_stopping(&self) -> bool {
        self.0.stopping.is_cancelled()
    }

    pub fn stopping(&self) -> CancellationToken {
        self.0.stopping.clone()
    }

    pub fn aborting(&self) -> CancellationToken {
        self.0.aborting.clone()
    }

    /// Whether a call for this row may still be sent.
    pub fn wants(&self, row: &RowId) -> bool {
        wanted(&self.0.state.borrow(), row)
    }

    /// Resolves when a call for this row must not be sent any more.
    pub async fn unwanted(&self, row: &RowId) {
        let mut watching = self.0.state.subscribe();
        // The sender lives as long as `self`, so this ends only when the row is not wanted.
        let _ = watching.wait_for(|state| !wanted(state, row)).await;
    }
}

fn wanted(state: &State, row: &RowId) -> bool {
    !state.stopping && state.cut.as_ref().is_none_or(|cut| row.is_within(cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cut_wakes_only_rows_above_it() {
        let control = Control::default();
        let waiting = tokio::spawn({
            let control = control.clone();
            async move { control.unwanted(&RowId::root(7)).await }
        });
        control.cut(RowId::root(9));
        assert!(control.wants(&RowId::root(7)) && !control.wants(&RowId::root(10)));
        control.cut(RowId::root(5));
        waiting.await.unwrap();
        control.stop(StopReason::Interrupted);
        control.stop(StopReason::Fatal("late".into()));
        assert!(!control.wants(&RowId::root(1)));
        assert_eq!(control.reason(), Some(StopReason::Interrupted));
    }
}
