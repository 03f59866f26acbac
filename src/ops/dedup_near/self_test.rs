//! `self_test`: changed copies of the run's own texts, looked for in the index when all rows are through.
//!
//! Which rows get copies is a function of their ids alone, so copies are made where keys are, on all cores; the
//! serial part only keeps a sample of them. They are never rows, and never in the index.

use serde_json::{Value, json};

use crate::row::RowId;
use crate::text::lsh::{DocKeys, KeyMaker, NearIndex, Scratch, jaccard_from};
use crate::text::perturb::perturbed;
use crate::text::shingles::mix;

/// Longer texts have no copies: a sample of them would take too much memory.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Into how many levels the similarities from the wished one to 1 are divided.
const LEVELS: u32 = 4;

/// Copies that are tried to come near a similarity, each with a share of changed words that the last one corrects.
/// In short texts a single word is a leap.
const ATTEMPTS: u64 = 6;

/// A changed copy of a text.
#[derive(Clone, Debug)]
pub struct Planted {
    /// How similar it is to the text that it was made of.
    pub similarity: f64,
    pub keys: DocKeys,
}

/// Copies of a sample of rows.
#[derive(Clone, Debug)]
pub struct SelfTest {
    rows_max: u32,
    similar_above: f64,
    seed: u64,
    /// Of each row of the sample its copies.
    sample: Vec<Vec<Planted>>,
}

impl SelfTest {
    pub fn new(rows_max: u32, similar_above: f64, seed: u64) -> SelfTest {
        SelfTest { rows_max, similar_above, seed, sample: Vec::new() }
    }

    /// A number that looks random and is the row's own.
    fn draw(&self, row: &RowId) -> u64 {
        row.path.iter().fold(mix(self.seed ^ mix(row.ordinal)), |draw, index| mix(draw ^ u64::from(*index)))
    }

    /// Copies of a text, if its row is drawn: the first rows always, later ones ever more seldom, so that a sample
    /// of all rows can be kept without knowing how many there are (Vitter 1985, Random sampling with a reservoir,
    /// algorithm R, with source rows for rows).
    pub fn copies(&self, row: &RowId, text: &str, maker: &KeyMaker, scratch: &mut Scratch) -> Vec<Planted> {
        let chance = f64::from(self.rows_max) / (row.ordinal as f64 + 1.0);
        let draw = self.draw(row);
        if (draw >> 11) as f64 / (1_u64 << 53) as f64 >= chance || text.len() > TEXT_BYTES_MAX {
            return Vec::new();
        }
        let set = maker.set(text, scratch);
        let level = |level: u32| {
            let wanted = self.level(f64::from(level) + 0.5);
            self.copy(&set, text, wanted, mix(draw ^ u64::from(level)), maker, scratch)
        };
        if set.is_empty() { Vec::new() } else { (0..LEVELS).filter_map(level).collect() }
    }

    /// The similarity at so many levels above the wished one.
    fn level(&self, levels: f64) -> f64 {
        self.similar_above + (1.0 - self.similar_above) * levels / f64::from(LEVELS)
    }

    /// A copy about as similar as wanted: how many shingles a changed word takes along depends on the text.
    fn copy(
        &self,
        set: &[u32],
        text: &str,
        wanted: f64,
        seed: u64,
        maker: &KeyMaker,
        scratch: &mut Scratch,
    ) -> Option<Planted> {
        let mut share = (1.0 - wanted) / (1.0 + wanted) / 5.0;
        let mut best: Option<(f64, String)> = None;
        for attempt in 0..ATTEMPTS {
            let copy = perturbed(text, share, mix(seed ^ attempt));
            let similarity = jaccard_from(set, &maker.set(&copy, scratch), 0.0).unwrap_or(0.0);
            let is_nearer = |other: f64| (similarity - wanted).abs() < (other - wanted).abs();
            if similarity < 1.0 && best.as_ref().is_none_or(|(other, _)| is_nearer(*other)) {
                best = Some((similarity, copy));
            }
            // Changed shingles grow with the share of changed words as long as those are few.
            let changed = |similarity: f64| (1.0 - similarity) / (1.0 + similarity);
            let correction = (changed(wanted) / changed(similarity)).clamp(0.5, 2.0);
            share = (share * correction).min(0.9);
        }
        let (similarity, copy) = best.filter(|(similarity, _)| *similarity >= self.similar_above)?;
        Some(Planted { similarity, keys: maker.keys(&copy, scratch) })
    }

    /// Takes the copies of a row into the sample, or leaves them.
    pub fn plant(&mut self, row: &RowId, copies: Vec<Planted>) {
        if copies.is_empty() {
            return;
        }
        if self.sample.len() < self.rows_max as usize {
            self.sample.push(copies);
            return;
        }
        let place = mix(self.draw(row)) % self.sample.len().max(1) as u64;
        if let Some(place) = self.sample.get_mut(place as usize) {
            *place = copies;
        }
    }

    /// How many copies of each level are found.
    pub fn report(&self, index: &NearIndex) -> Value {
        let level = |level: u32| {
            let (from, to) = (self.level(f64::from(level)), self.level(f64::from(level + 1)));
            let is_here = |copy: &&Planted| copy.similarity >= from && copy.similarity < to;
            let copies: Vec<&Planted> = self.sample.iter().flatten().filter(is_here).collect();
            let found = copies.iter().filter(|copy| index.find(&copy.keys).is_some()).count();
            let recall = (!copies.is_empty())
                .then(|| (found as f64 / copies.len() as f64 * 10_000.0).round() / 10_000.0);
            let similarity = format!("{from:.2} to {to:.2}");
            json!({"similarity": similarity, "planted": copies.len(), "found": found, "recall": recall})
        };
        (0..LEVELS).map(level).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::minhash::Bands;
    use crate::text::shingles::Shingles;

    /// The report over texts of random words, with an index of these bands.
    fn report(bands: Bands, texts: u64) -> Value {
        let maker = KeyMaker::new(Shingles::default(), bands, true);
        let mut index = NearIndex::new(bands, Some(0.8));
        let mut self_test = SelfTest::new(50, 0.8, 1);
        let mut scratch = Scratch::default();
        for ordinal in 0..texts {
            let word = |place: u64| format!("w{} ", mix(ordinal * 1_000 + place) % 10_000);
            let text: String = (0..200).map(word).collect();
            index.insert(maker.keys(&text, &mut scratch), ordinal);
            let row = RowId::root(ordinal);
            self_test.plant(&row, self_test.copies(&row, &text, &maker, &mut scratch));
        }
        assert_eq!(self_test.sample.len(), 50, "no more are kept");
        self_test.report(&index)
    }

    #[test]
    fn the_measured_recall_is_that_of_the_curve() {
        let found = report(Bands::for_target(0.8, 0.98).unwrap(), 400);
        let weak = report(Bands::new(2, 20).unwrap(), 400);
        let recall = |report: &Value, level: usize| report[level]["recall"].as_f64().unwrap();
        let planted = |level: usize| found[level]["planted"].as_u64().unwrap();
        assert!((0..4).all(|level| planted(level) >= 20), "{found}");
        assert!((0..4).all(|level| recall(&found, level) >= 0.95), "{found}");
        // 2 x 20 finds 7 % of the pairs at 0.825 and 75 % at 0.965.
        assert!(recall(&weak, 0) < 0.3 && recall(&weak, 3) > 0.4, "{weak}");
        assert_eq!(found[0]["similarity"], "0.80 to 0.85");
    }

    #[test]
    fn copies_are_the_same_in_every_run_and_few() {
        let maker = KeyMaker::new(Shingles::default(), Bands::default(), true);
        let self_test = SelfTest::new(20, 0.8, 1);
        let mut scratch = Scratch::default();
        let text = "some words that are here for the copy to be made of ".repeat(3);
        let mut rows = 0;
        for ordinal in 0..20_000 {
            let row = RowId::root(ordinal).child(3);
            rows += usize::from(!self_test.copies(&row, &text, &maker, &mut scratch).is_empty());
        }
        assert!((20..400).contains(&rows), "{rows}");
        for hostile in ["", "\0", " ", "a", "...", &"x".repeat(TEXT_BYTES_MAX + 1)] {
            self_test.copies(&RowId::root(0), hostile, &maker, &mut scratch);
        }
    }
}
