//! Row order out of chaos: which rows are open, what waits for its turn, and what may go now.
//!
//! Calls finish in any order; folds and the writer want row order. A row may pass a fold when no
//! lower row is still upstream of it, and an end may be written when no lower row is open at all.
//! Rows that wait spill to disk past a memory bound. Plain synchronous code with one owner.

use std::collections::BTreeMap;

use crate::engine::spill::{Held, Spill};
use crate::engine::{Arrived, Ended};
use crate::row::RowId;

/// An open row: at work somewhere, or waiting in front of the fold that ends its segment.
enum Slot {
    Working,
    Waiting(Held<Arrived>),
}

/// Where a row stands that the accounts do not have yet.
pub enum Standing {
    /// At work in a segment, or stopped there.
    Working(usize),
    /// In front of a fold.
    Waiting(usize),
    /// At an end that a step came to, with an open row below.
    Ended(usize),
}

pub struct Order {
    /// Open rows by segment: segment `s` lies between fold `s - 1` and fold `s`, the last one behind
    /// all folds. Rows pass folds in row order, so every id in a segment is lower than every id in an
    /// earlier one: the lowest row of a segment has nothing upstream to wait for.
    open: Vec<BTreeMap<RowId, Slot>>,
    /// Ends that wait for lower rows, with the steps that came to them.
    ends: BTreeMap<RowId, (usize, Held<Ended>)>,
    /// The source's next ordinal, or nothing when the source is at its end.
    next_source: Option<u64>,
    /// Rows above this id are not needed.
    cut: Option<RowId>,
    /// Where everything waits that is not its turn yet.
    pub spill: Spill,
}

impl Order {
    pub fn new(folds: usize, spill: Spill) -> Order {
        Order {
            open: (0..=folds).map(|_| BTreeMap::new()).collect(),
            ends: BTreeMap::new(),
            next_source: Some(0),
            cut: None,
            spill,
        }
    }

    /// Opens a source row; ordinals come in ascending order.
    pub fn open_source(&mut self, id: &RowId) {
        self.next_source = Some(id.ordinal + 1);
        self.open[0].insert(id.clone(), Slot::Working);
    }

    pub fn end_source(&mut self) {
        self.next_source = None;
    }

    /// Opens a row that was split off in a segment.
    pub fn open_child(&mut self, segment: usize, id: RowId) {
        self.open[segment].insert(id, Slot::Working);
    }

    /// Whether the row still matters: rows above a cut do not.
    pub fn needed(&self, id: &RowId) -> bool {
        self.cut.as_ref().is_none_or(|cut| id.is_within(cut))
    }

    /// A row waits in front of a fold.
    pub fn arrive(&mut self, fold: usize, arrived: Arrived) -> std::io::Result<()> {
        let id = arrived.row.id.clone();
        let first = self.open[fold].first_key_value().is_some_and(|(first, _)| *first == id);
        let held = if first { self.spill.keep(arrived) } else { self.spill.hold(arrived)? };
        self.open[fold].insert(id, Slot::Waiting(held));
        Ok(())
    }

    /// Whether the row that would pass a fold next is the lowest open one.
    pub fn next_is_lowest(&self, fold: usize) -> bool {
        self.open[fold + 1..].iter().all(BTreeMap::is_empty)
    }

    /// The next row that may pass a fold; it moves to the segment behind it.
    pub fn pass(&mut self, fold: usize) -> std::io::Result<Option<Arrived>> {
        let Some(first) = self.open[fold].first_entry() else { return Ok(None) };
        if matches!(first.get(), Slot::Working) {
            return Ok(None);
        }
        let (id, slot) = first.remove_entry();
        let Slot::Waiting(held) = slot else { return Ok(None) };
        self.open[fold + 1].insert(id, Slot::Working);
        self.spill.take(held).map(Some)
    }

    /// A row came to an end at a step, in a segment.
    pub fn end(&mut self, segment: usize, step: usize, ended: Ended) -> std::io::Result<()> {
        self.open[segment].remove(&ended.row.id);
        let id = ended.row.id.clone();
        let next = self.lowest_open().is_none_or(|lowest| id < lowest);
        let held = if next { self.spill.keep(ended) } else { self.spill.hold(ended)? };
        self.ends.insert(id, (step, held));
        Ok(())
    }

    /// The next end that no open row is below of.
    pub fn release(&mut self) -> std::io::Result<Option<Ended>> {
        let Some(first) = self.ends.first_entry() else { return Ok(None) };
        let lowest = lowest_of(&self.open, self.next_source);
        if lowest.is_some_and(|lowest| *first.key() > lowest) {
            return Ok(None);
        }
        let (_, held) = first.remove();
        self.spill.take(held).map(Some)
    }

    /// The lowest row that is open or not yet read; nothing when all is decided.
    pub fn lowest_open(&self) -> Option<RowId> {
        lowest_of(&self.open, self.next_source)
    }

    pub fn open_count(&self) -> u64 {
        self.open.iter().map(|segment| segment.len() as u64).sum()
    }

    /// Open rows that have not passed a fold.
    pub fn open_before(&self, fold: usize) -> u64 {
        self.open[..=fold].iter().map(|segment| segment.len() as u64).sum()
    }

    /// Source rows from the lowest open one to the last one read.
    pub fn rows_ahead(&self) -> u64 {
        let lowest = self.open.iter().rev().find_map(|segment| segment.first_key_value());
        match (lowest, self.next_source) {
            (Some((id, _)), Some(next)) => next - id.ordinal,
            _ => 0,
        }
    }

    /// No row above `id` is needed any more: they are forgotten, and the source is at its end. Returns
    /// the rows that were forgotten.
    pub fn cut(&mut self, id: &RowId) -> Vec<RowId> {
        let mut away = Vec::new();
        for segment in &mut self.open {
            for (row, slot) in split_above(segment, id) {
                if let Slot::Waiting(held) = slot {
                    self.spill.forget(&held);
                }
                away.push(row);
            }
        }
        for (row, (_, held)) in split_above(&mut self.ends, id) {
            self.spill.forget(&held);
            away.push(row);
        }
        self.cut = Some(id.clone());
        self.next_source = None;
        away
    }

    /// Rows that the accounts do not have: open ones, and ends that wait for an open row below. The
    /// children of a split that waits are not counted beside it.
    pub fn unaccounted(&self) -> impl Iterator<Item = (&RowId, Standing)> {
        let waits = move |id: &RowId| {
            let mut ancestor = id.parent();
            while let Some(row) = ancestor {
                if self.ends.contains_key(&row) {
                    return true;
                }
                ancestor = row.parent();
            }
            false
        };
        let open = self.open.iter().enumerate().flat_map(|(segment, rows)| {
            rows.iter().map(move |(id, slot)| match slot {
                Slot::Working => (id, Standing::Working(segment)),
                Slot::Waiting(_) => (id, Standing::Waiting(segment)),
            })
        });
        let ends = self.ends.iter().map(|(id, (step, _))| (id, Standing::Ended(*step)));
        open.chain(ends).filter(move |(id, _)| !waits(id))
    }
}

fn split_above<T>(map: &mut BTreeMap<RowId, T>, id: &RowId) -> BTreeMap<RowId, T> {
    let (within, above) = map.split_off(id).into_iter().partition(|(row, _)| row.is_within(id));
    let mut within: BTreeMap<RowId, T> = within;
    map.append(&mut within);
    above
}

fn lowest_of(open: &[BTreeMap<RowId, Slot>], next_source: Option<u64>) -> Option<RowId> {
    let lowest = open.iter().rev().find_map(|segment| segment.first_key_value());
    lowest.map(|(id, _)| id.clone()).or_else(|| next_source.map(RowId::root))
}
