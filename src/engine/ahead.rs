//! How far admission looks ahead: no further than the yield seen so far says is needed.
//!
//! Rows that turn out not to be needed may have been paid for. Pure arithmetic; the coordinator counts.

/// How many of the rows that were decided came as far as a place: the dataset, or a fold that takes only so
/// many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Yield {
    came: u64,
    decided: u64,
}

impl Yield {
    pub fn count(&mut self, came: bool) {
        self.decided += 1;
        self.came += u64::from(came);
    }

    pub fn came(&self) -> u64 {
        self.came
    }

    /// Whether the rows on their way are too few to bring what is missing; before anything is seen, every row
    /// is taken to come.
    pub fn wants_more(&self, on_the_way: u64, missing: u64) -> bool {
        let seen = (self.came as f64 + 1.0) / (self.decided as f64 + 1.0);
        (on_the_way as f64) * seen < missing as f64
    }
}

/// The way to one fold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    pub seen: Yield,
    /// Rows that came and wait for lower ones.
    pub waiting: u64,
}

impl Way {
    /// Whether a fold that still takes so many rows needs more than are open in front of it.
    pub fn wants_more(&self, open: u64, takes: u64) -> bool {
        self.seen.wants_more(open.saturating_sub(self.waiting), takes.saturating_sub(self.waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(came: u64, lost: u64, waiting: u64, open: u64, takes: u64, expected: bool) {
        let mut way = Way { waiting, ..Way::default() };
        (0..came).for_each(|_| way.seen.count(true));
        (0..lost).for_each(|_| way.seen.count(false));
        assert_eq!(way.wants_more(open, takes), expected, "{came} came, {lost} lost, {open} open");
    }

    #[test]
    fn rows_on_their_way_count_at_the_yield_and_waiting_ones_in_full() {
        check(0, 0, 0, 9, 10, true);
        check(0, 0, 0, 10, 10, false);
        // One of two comes.
        check(9, 10, 0, 10, 10, true);
        check(9, 10, 0, 20, 10, false);
        // Four wait, so six are missing, and twelve are needed for them.
        check(9, 10, 4, 15, 10, true);
        check(9, 10, 4, 16, 10, false);
        check(9, 10, 12, 12, 10, false);
    }
}
