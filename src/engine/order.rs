//! Row order out of chaos: which rows are open, what waits for its turn, and what may go now.
//!
//! Calls finish in any order; folds and the writer want row order. A row may pass a fold when no
//! lower row is still upstream of it, and an end may be written when no lower row is open at all.
//! A group is decided when no row that belongs to it is still upstream. Rows that wait spill to disk
//! past a memory bound. Plain synchronous code with one owner.

use std::collections::BTreeMap;

use crate::engine::spill::{Held, Spill};
use crate::engine::{Arrived, Ended};
use crate::ops::{Belong, Decision, FoldKey};
use crate::row::RowId;

/// An open row: at work somewhere, or waiting in front of the fold that ends its segment.
enum Slot {
    Working,
    Waiting(Held<Arrived>),
}

/// A row that waits for the others of its group.
struct Gathered {
    held: Held<Arrived>,
    verdict: Verdict,
}

enum Verdict {
    /// Not yet; the key stays in memory, whatever spills.
    Open(FoldKey),
    /// Nothing for a row that the step does not hold for.
    Decided(Option<Decision>),
}

/// The open rows that lie between two folds or groups.
#[derive(Default)]
struct Segment {
    rows: BTreeMap<RowId, Slot>,
    /// Those that wait in front of the group that ends the segment. Apart, since the source may run ahead
    /// of them as far as it likes: they are at no work.
    gathered: BTreeMap<RowId, Gathered>,
}

impl Segment {
    fn lowest(&self) -> Option<&RowId> {
        let rows = self.rows.first_key_value().map(|(id, _)| id);
        let gathered = self.gathered.first_key_value().map(|(id, _)| id);
        rows.into_iter().chain(gathered).min()
    }

    fn len(&self) -> u64 {
        (self.rows.len() + self.gathered.len()) as u64
    }

    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.gathered.is_empty()
    }

    /// Whether a row that `ancestor` was split into, at any depth, is still at work here.
    fn works_within(&self, ancestor: &RowId) -> bool {
        self.rows.range(ancestor..).next().is_some_and(|(id, _)| id.descends_from(ancestor))
    }
}

/// A row that passes a fold or a group.
pub struct Passing {
    pub arrived: Arrived,
    /// What its group decided, if it is one's.
    pub decision: Option<Decision>,
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
    /// all folds; a group stands where a fold could. Rows pass them in row order, so every id in a segment
    /// is lower than every id in an earlier one: the lowest row of a segment has nothing upstream to wait for.
    open: Vec<Segment>,
    /// Which rows belong together at each fold; nothing where it is one.
    groups: Vec<Option<Belong>>,
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
    pub fn new(groups: Vec<Option<Belong>>, spill: Spill) -> Order {
        Order {
            open: (0..=groups.len()).map(|_| Segment::default()).collect(),
            groups,
            ends: BTreeMap::new(),
            next_source: Some(0),
            cut: None,
            spill,
        }
    }

    /// Opens a source row; ordinals come in ascending order.
    pub fn open_source(&mut self, id: &RowId) {
        self.next_source = Some(id.ordinal + 1);
        self.open[0].rows.insert(id.clone(), Slot::Working);
    }

    /// No further row is opened by the source; says whether that is news.
    pub fn end_source(&mut self) -> bool {
        self.next_source.take().is_some()
    }

    /// Opens a row that was split off in a segment.
    pub fn open_child(&mut self, segment: usize, id: RowId) {
        self.open[segment].rows.insert(id, Slot::Working);
    }

    /// Whether the row still matters: rows above a cut do not.
    pub fn needed(&self, id: &RowId) -> bool {
        self.cut.as_ref().is_none_or(|cut| id.is_within(cut))
    }

    /// A row waits in front of a fold, or of a group.
    pub fn arrive(&mut self, fold: usize, mut arrived: Arrived) -> std::io::Result<()> {
        let id = arrived.row.id.clone();
        let segment = &mut self.open[fold];
        if self.groups[fold].is_some() {
            let verdict = arrived.key.take().map_or(Verdict::Decided(None), Verdict::Open);
            segment.rows.remove(&id);
            segment.gathered.insert(id, Gathered { held: self.spill.hold(arrived)?, verdict });
            return Ok(());
        }
        let first = segment.rows.first_key_value().is_some_and(|(first, _)| *first == id);
        let held = if first { self.spill.keep(arrived) } else { self.spill.hold(arrived)? };
        segment.rows.insert(id, Slot::Waiting(held));
        Ok(())
    }

    /// Whether the row that would pass a fold next is the lowest open one.
    pub fn next_is_lowest(&self, fold: usize) -> bool {
        self.open[fold + 1..].iter().all(Segment::is_empty)
    }

    /// The lowest group in front of a fold, if none of its rows is upstream any more and nothing was decided
    /// about it: its rows in row order, with their keys.
    pub fn complete_group(&mut self, fold: usize) -> Option<Vec<(RowId, FoldKey)>> {
        let belong = self.groups[fold]?;
        let (first, Gathered { verdict: Verdict::Open(_), .. }) =
            self.open[fold].gathered.first_key_value()?
        else {
            return None;
        };
        let parent = if belong == Belong::Siblings { first.parent() } else { None };
        let complete = match (belong, &parent) {
            // A row that was never split off has no siblings.
            (Belong::Siblings, None) => true,
            (Belong::Siblings, Some(parent)) => {
                !self.open[..=fold].iter().any(|segment| segment.works_within(parent))
            }
            (Belong::All, _) => self.next_source.is_none() && self.is_done_upstream(fold),
        };
        if !complete {
            return None;
        }
        let first = first.clone();
        let belongs = |id: &RowId| match (belong, &parent) {
            (Belong::All, _) => true,
            (Belong::Siblings, Some(parent)) => id.descends_from(parent),
            (Belong::Siblings, None) => *id == first,
        };
        let rows = self.open[fold].gathered.range_mut(first.clone()..).take_while(|(id, _)| belongs(id));
        let keys = rows.filter_map(|(id, gathered)| match &mut gathered.verdict {
            Verdict::Open(key) => Some((id.clone(), std::mem::take(key))),
            Verdict::Decided(_) => None,
        });
        Some(keys.collect())
    }

    /// Whether every row that could still come to a group has come.
    fn is_done_upstream(&self, fold: usize) -> bool {
        self.open[..fold].iter().all(Segment::is_empty) && self.open[fold].rows.is_empty()
    }

    /// What was decided about rows of a group.
    pub fn decide(&mut self, fold: usize, decisions: impl Iterator<Item = (RowId, Decision)>) {
        for (id, decision) in decisions {
            if let Some(gathered) = self.open[fold].gathered.get_mut(&id) {
                gathered.verdict = Verdict::Decided(Some(decision));
            }
        }
    }

    /// The next row that may pass a fold; it moves to the segment behind it.
    pub fn pass(&mut self, fold: usize) -> std::io::Result<Option<Passing>> {
        let taken =
            if self.groups[fold].is_some() { self.next_decided(fold) } else { self.next_waiting(fold) };
        let Some((id, held, decision)) = taken else { return Ok(None) };
        self.open[fold + 1].rows.insert(id, Slot::Working);
        Ok(Some(Passing { arrived: self.spill.take(held)?, decision }))
    }

    fn next_waiting(&mut self, fold: usize) -> Option<(RowId, Held<Arrived>, Option<Decision>)> {
        let first = self.open[fold].rows.first_entry()?;
        if matches!(first.get(), Slot::Working) {
            return None;
        }
        let (id, Slot::Waiting(held)) = first.remove_entry() else { return None };
        Some((id, held, None))
    }

    fn next_decided(&mut self, fold: usize) -> Option<(RowId, Held<Arrived>, Option<Decision>)> {
        let Segment { rows, gathered } = &mut self.open[fold];
        let first = gathered.first_entry()?;
        let upstream = rows.first_key_value().is_some_and(|(working, _)| working < first.key());
        if upstream || matches!(first.get().verdict, Verdict::Open(_)) {
            return None;
        }
        let (id, Gathered { held, verdict: Verdict::Decided(decision) }) = first.remove_entry() else {
            return None;
        };
        Some((id, held, decision))
    }

    /// A row came to an end at a step, in a segment.
    pub fn end(&mut self, segment: usize, step: usize, ended: Ended) -> std::io::Result<()> {
        self.open[segment].rows.remove(&ended.row.id);
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
        self.open.iter().map(Segment::len).sum()
    }

    /// Open rows that have not passed a fold.
    pub fn open_before(&self, fold: usize) -> u64 {
        self.open[..=fold].iter().map(Segment::len).sum()
    }

    /// The first group that needs every row before it decides about one.
    fn barrier(&self) -> Option<usize> {
        self.groups.iter().position(|group| *group == Some(Belong::All))
    }

    /// Whether rows wait behind the first barrier for the source's end, whatever they will yield.
    pub fn is_behind_barrier(&self, fold: usize) -> bool {
        self.barrier().is_some_and(|barrier| barrier < fold)
    }

    /// Source rows from the lowest open one to the last one read. Rows that wait at a barrier do not count:
    /// they wait for the source's end.
    pub fn rows_ahead(&self) -> u64 {
        let lowest = match self.barrier() {
            Some(barrier) => {
                let here = self.open[barrier].rows.first_key_value().map(|(id, _)| id);
                here.or_else(|| lowest_row(&self.open[..barrier]))
            }
            None => lowest_row(&self.open),
        };
        match (lowest, self.next_source) {
            (Some(id), Some(next)) => next - id.ordinal,
            _ => 0,
        }
    }

    /// No row above `id` is needed any more: they are forgotten, and the source is at its end. Returns
    /// the rows that were forgotten.
    pub fn cut(&mut self, id: &RowId) -> Vec<RowId> {
        let mut away = Vec::new();
        for segment in &mut self.open {
            for (row, slot) in split_above(&mut segment.rows, id) {
                if let Slot::Waiting(held) = slot {
                    self.spill.forget(&held);
                }
                away.push(row);
            }
            for (row, gathered) in split_above(&mut segment.gathered, id) {
                self.spill.forget(&gathered.held);
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
        let open = self.open.iter().enumerate().flat_map(|(segment, Segment { rows, gathered })| {
            let rows = rows.iter().map(move |(id, slot)| match slot {
                Slot::Working => (id, Standing::Working(segment)),
                Slot::Waiting(_) => (id, Standing::Waiting(segment)),
            });
            rows.chain(gathered.keys().map(move |id| (id, Standing::Waiting(segment))))
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

fn lowest_row(open: &[Segment]) -> Option<&RowId> {
    open.iter().rev().find_map(Segment::lowest)
}

fn lowest_of(open: &[Segment], next_source: Option<u64>) -> Option<RowId> {
    lowest_row(open).cloned().or_else(|| next_source.map(RowId::root))
}
