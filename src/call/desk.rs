//! What all calls of a run share: the store, the budget, the counts, and the calls that several rows wait for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::call::batch::{Counted, Tray};
use crate::call::flight::Flights;
use crate::call::{Budget, Control, DryRun, Monitor, StopReason};
use crate::store::{Amount, Charge, Spent, Store, StoreError};

/// How often a run looks at what others have spent of the day, and while it waits for the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_RESTING: Duration = Duration::from_secs(20);

/// What all calls of a run share.
pub struct Desk {
    pub store: Store,
    pub budget: Budget,
    pub control: Control,
    pub monitor: Monitor,
    pub pipeline: Arc<str>,
    pub epoch: Arc<str>,
    /// Replies of these steps saved before this time are not used: `--fresh STEP`.
    pub fresh: HashMap<String, i64>,
    /// Ask again what a server declined before this time: `--retry-failed`.
    pub retry_failed: Option<i64>,
    /// In a dry run nothing is sent: what the store cannot answer is counted here.
    pub dry: Option<DryRun>,
    /// What waits for teachers that are asked in batches, by the teachers' names.
    pub trays: HashMap<Arc<str>, Arc<Tray>>,
    pub(super) counted: Counted,
    pub(super) flights: Flights,
}

impl Desk {
    pub fn new(store: Store, budget: Budget, control: Control, pipeline: &str, epoch: &str) -> Desk {
        Desk {
            store,
            budget,
            control,
            monitor: Monitor::default(),
            pipeline: pipeline.into(),
            epoch: epoch.into(),
            fresh: HashMap::new(),
            retry_failed: None,
            dry: None,
            trays: HashMap::new(),
            counted: Counted::default(),
            flights: Flights::default(),
        }
    }

    /// What the ledger has for all runs of the epoch.
    pub fn epoch_spent(&self) -> Result<Amount, StoreError> {
        let sum = Charge::epoch(&self.pipeline, &self.epoch);
        self.store.spent(&sum).map(Spent::worst)
    }

    /// Looks, for as long as it is polled, at what the day has come to by all processes. Without it nobody
    /// learns that others have settled, or that a day's cap is reached for good.
    pub async fn follow_day(&self) {
        loop {
            let (day, changes) = self.budget.about_to_look();
            match self.store.spent(&Charge::day(day)) {
                Ok(spent) => self.budget.seen(day, Some(changes), spent),
                Err(error) => return self.control.stop(StopReason::Fatal(error.to_string())),
            }
            let pause = if self.budget.resting().is_some() { LOOK_RESTING } else { LOOK_EVERY };
            tokio::time::sleep(pause).await;
        }
    }
}
