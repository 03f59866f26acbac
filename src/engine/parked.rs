//! Rows that wait for answers that take hours: held as they came, memory or disk, until they are woken.
//!
//! A row may be woken before its task has said that it parks; then it goes on at once.

use std::collections::{BTreeMap, HashSet};

use crate::engine::spill::Held;
use crate::row::{Row, RowId};

/// Where a row is kept, and the stage that it goes on at.
pub type Waiting = (Held<Row>, usize);

#[derive(Default)]
pub struct Parked {
    rows: BTreeMap<RowId, Waiting>,
    awake: BTreeMap<RowId, Waiting>,
    /// Rows that were woken and had not parked yet.
    early: HashSet<RowId>,
}

impl Parked {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.awake.is_empty()
    }

    pub fn park(&mut self, id: RowId, held: Held<Row>, stage: usize) {
        let rows = if self.early.remove(&id) { &mut self.awake } else { &mut self.rows };
        rows.insert(id, (held, stage));
    }

    pub fn wake(&mut self, ids: Vec<RowId>) {
        for id in ids {
            match self.rows.remove_entry(&id) {
                Some((id, waiting)) => drop(self.awake.insert(id, waiting)),
                None => drop(self.early.insert(id)),
            }
        }
    }

    /// The rows that go on now.
    pub fn take_awake(&mut self) -> BTreeMap<RowId, Waiting> {
        std::mem::take(&mut self.awake)
    }

    /// Takes away the rows that are not needed any more.
    pub fn cut(&mut self, id: &RowId) -> impl Iterator<Item = (RowId, Waiting)> {
        self.early.retain(|row| row.is_within(id));
        let above = |row: &RowId, _: &mut Waiting| !row.is_within(id);
        let mut away: Vec<(RowId, Waiting)> = self.rows.extract_if(.., above).collect();
        away.extend(self.awake.extract_if(.., above));
        away.into_iter()
    }

    pub fn stage_of(&self, id: &RowId) -> Option<usize> {
        self.rows.get(id).or_else(|| self.awake.get(id)).map(|(_, stage)| *stage)
    }
}
