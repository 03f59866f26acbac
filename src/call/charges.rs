//! The sums that one step's calls add to: the same ones all day, so they are named once a day.

use std::sync::{Arc, Mutex, PoisonError};

use crate::store::Charge;

pub struct Charges {
    pipeline: Arc<str>,
    epoch: Arc<str>,
    step: Arc<str>,
    /// The day asked for last, counted from 1970-01-01 in UTC.
    last: Mutex<Option<(i64, Arc<Charge>)>>,
}

impl Charges {
    pub fn new(pipeline: &Arc<str>, epoch: &Arc<str>, step: &Arc<str>) -> Charges {
        let (pipeline, epoch, step) = (Arc::clone(pipeline), Arc::clone(epoch), Arc::clone(step));
        Charges { pipeline, epoch, step, last: Mutex::default() }
    }

    pub fn on(&self, day: i64) -> Arc<Charge> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((of, charge)) if *of == day => Arc::clone(charge),
            _ => {
                let charge = Arc::new(Charge::new(&self.pipeline, &self.epoch, &self.step, day));
                *last = Some((day, Arc::clone(&charge)));
                charge
            }
        }
    }
}
