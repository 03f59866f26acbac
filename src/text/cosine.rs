//! Search for vectors that point the same way, where the first wins: does an *earlier* one?
//!
//! Random hyperplanes cut space into cells (Charikar 2002, Similarity estimation techniques from rounding
//! algorithms): two vectors at an angle of θ lie on the same side of one with a chance of 1 - θ/π. A band is the
//! cell of some planes together; vectors that share a band are compared for real. The heavy part, [`Cells::keys`],
//! is a pure function of one vector; [`CosineIndex::insert`] looks keys up, in the order of the vectors. Knows no
//! rows and no models.

use std::collections::HashMap;

use super::shingles::{GOLDEN, mix};

/// Vectors that one is compared with, at most, earliest first: keeps a crowd of vectors in one cell from costing
/// the square of their number.
pub const CANDIDATES_MAX: usize = 10_000;

/// Planes of a band, at most: a key has one bit for each.
const PLANES_MAX: u32 = 24;
const BANDS_MAX: u32 = 512;

/// Sentence models put texts about different things at a cosine of about this or less, and datasets have about so
/// many rows: what the cost of a cut is reckoned with.
const UNLIKE: f64 = 0.3;
const ROWS: f64 = 100_000.0;

/// How often vectors share the side of a plane.
fn same_side(cosine: f64) -> f64 {
    1.0 - cosine.clamp(-1.0, 1.0).acos() / std::f64::consts::PI
}

/// How many bands of how many planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub bands: u32,
    pub planes: u32,
}

impl Cut {
    /// The cheapest cut that finds a pair at this cosine with a chance of at least `recall`. Its cost are the
    /// products with its planes and those with what shares a band by chance.
    ///
    /// # Errors
    /// A sentence for the user if a number is out of range or the two cannot be had together.
    pub fn for_target(cosine: f64, recall: f64) -> Result<Cut, String> {
        if !(cosine > 0.0 && cosine <= 1.0) {
            return Err(format!("the similarity is {cosine}; it must be above 0 and at most 1"));
        }
        if !(recall > 0.0 && recall < 1.0) {
            return Err(format!("the recall is {recall}; it must be above 0 and below 1, such as 0.98"));
        }
        let cut = |planes: u32| {
            let found = same_side(cosine).powi(planes as i32);
            let bands = ((1.0 - recall).ln() / (1.0 - found).ln()).ceil().max(1.0);
            (bands <= f64::from(BANDS_MAX)).then_some(Cut { bands: bands as u32, planes })
        };
        let cost = |cut: &Cut| {
            let by_chance = ROWS * same_side(UNLIKE).powi(cut.planes as i32);
            f64::from(cut.bands) * (f64::from(cut.planes) + by_chance)
        };
        let cuts = (4..=PLANES_MAX).filter_map(cut);
        cuts.min_by(|a, b| cost(a).total_cmp(&cost(b))).ok_or_else(|| {
            format!(
                "no cut finds {recall} of the pairs at a cosine of {cosine}: they lie too far from each other"
            )
        })
    }
}

/// The planes for vectors of one length.
pub struct Cells {
    cut: Cut,
    /// One normal after the other.
    normals: Vec<f32>,
    length: usize,
}

impl Cells {
    pub fn new(cut: Cut, length: usize) -> Cells {
        let planes = (cut.bands * cut.planes) as usize;
        let normals = (0..planes).flat_map(|plane| (0..length).map(move |axis| gaussian(plane, axis)));
        Cells { cut, normals: normals.collect(), length }
    }

    /// One key a band of a vector of that length.
    pub fn keys(&self, vector: &[f32]) -> Vec<u32> {
        let planes = self.cut.planes as usize;
        let sides = self.normals.chunks_exact(self.length.max(1)).map(|normal| dot(normal, vector) >= 0.0);
        let sides: Vec<bool> = sides.collect();
        let key = |band: &[bool]| band.iter().fold(0, |key, side| (key << 1) | u32::from(*side));
        sides.chunks_exact(planes).map(key).collect()
    }
}

/// A normally distributed number that only hangs on its place (Box and Muller 1958).
fn gaussian(plane: usize, axis: usize) -> f32 {
    let place = (plane as u64) << 32 | axis as u64;
    let unit = |hash: u64| ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    let (radius, angle) = (unit(mix(place ^ GOLDEN)), unit(mix(mix(place).wrapping_add(GOLDEN))));
    ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
}

/// Eight sums side by side, so that the compiler can use wide registers.
fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (left, right) = (left.chunks_exact(8), right.chunks_exact(8));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(l, r)| l * r).sum();
    for (left, right) in left.zip(right) {
        for lane in 0..8 {
            sums[lane] += left[lane] * right[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// The vector at length 1; `None` when it has no direction.
pub fn direction(vector: &[f64]) -> Option<Vec<f32>> {
    let length = vector.iter().map(|number| number * number).sum::<f64>().sqrt();
    (length.is_finite() && length > 0.0)
        .then(|| vector.iter().map(|number| (number / length) as f32).collect())
}

/// The earlier vector that makes a vector a duplicate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alike {
    /// The id that [`CosineIndex::insert`] was given for it.
    pub earlier: u64,
    pub cosine: f64,
}

/// Every vector so far.
pub struct CosineIndex {
    least: f64,
    bands: Vec<Band>,
    vectors: Vec<f32>,
    ids: Vec<u64>,
    /// For each vector the last search that has seen it.
    seen: Vec<u32>,
    searches: u32,
}

#[derive(Default)]
struct Band {
    /// The last vector of each cell.
    last: HashMap<u32, u32>,
    /// The one before each vector in its cell, 1 more than its number; 0 ends the chain.
    before: Vec<u32>,
}

impl CosineIndex {
    pub fn new(cut: Cut, least: f64) -> CosineIndex {
        let bands = (0..cut.bands).map(|_| Band::default()).collect();
        CosineIndex { least, bands, vectors: Vec::new(), ids: Vec::new(), seen: Vec::new(), searches: 0 }
    }

    /// Says which earlier vector this one is like, and remembers it for later ones whatever the answer. All
    /// vectors must be of one length, and each of length 1.
    pub fn insert(&mut self, keys: &[u32], vector: &[f32], id: u64) -> Option<Alike> {
        let found = self.earliest_alike(keys, vector);
        let number = self.ids.len() as u32;
        for (band, key) in self.bands.iter_mut().zip(keys) {
            let before = band.last.insert(*key, number + 1).unwrap_or(0);
            band.before.push(before);
        }
        self.vectors.extend_from_slice(vector);
        self.ids.push(id);
        self.seen.push(0);
        found
    }

    fn earliest_alike(&mut self, keys: &[u32], vector: &[f32]) -> Option<Alike> {
        self.searches += 1;
        let mut candidates = Vec::new();
        for (band, key) in self.bands.iter().zip(keys) {
            let mut next = band.last.get(key).copied().unwrap_or(0);
            while next != 0 {
                let number = next as usize - 1;
                if self.seen[number] != self.searches {
                    self.seen[number] = self.searches;
                    candidates.push(number);
                }
                next = band.before[number];
            }
        }
        candidates.sort_unstable();
        candidates.truncate(CANDIDATES_MAX);
        let alike = |number: &usize| {
            let other = &self.vectors[number * vector.len()..][..vector.len()];
            let cosine = f64::from(dot(vector, other));
            (cosine >= self.least).then(|| Alike { earlier: self.ids[*number], cosine })
        };
        candidates.iter().find_map(alike)
    }

    /// Bytes that the index holds, room to grow included.
    pub fn bytes(&self) -> usize {
        let band = |band: &Band| band.last.capacity() * 9 + band.before.capacity() * 4;
        self.bands.iter().map(band).sum::<usize>()
            + self.vectors.capacity() * 4
            + self.ids.capacity() * 8
            + self.seen.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dice(u64);

    impl Dice {
        fn vector(&mut self, length: usize) -> Vec<f32> {
            self.0 += 1;
            let numbers: Vec<f64> =
                (0..length).map(|axis| f64::from(gaussian(self.0 as usize + 1_000_000, axis))).collect();
            direction(&numbers).unwrap()
        }

        /// A vector at this cosine to another.
        fn at(&mut self, other: &[f32], cosine: f64) -> Vec<f32> {
            let random = self.vector(other.len());
            let along = f64::from(dot(&random, other));
            let across: Vec<f64> =
                random.iter().zip(other).map(|(r, o)| f64::from(*r) - along * f64::from(*o)).collect();
            let across = direction(&across).unwrap();
            let sine = (1.0 - cosine * cosine).sqrt();
            let mixed = other.iter().zip(&across).map(|(o, a)| f64::from(*o) * cosine + f64::from(*a) * sine);
            direction(&mixed.collect::<Vec<_>>()).unwrap()
        }
    }

    /// The share of planted pairs that is found, and how many others are.
    fn recall(cosine: f64, planted_at: f64) -> (f64, usize) {
        let cut = Cut::for_target(cosine, 0.98).unwrap();
        let cells = Cells::new(cut, 64);
        let mut index = CosineIndex::new(cut, cosine);
        let mut dice = Dice(7);
        let (mut found, mut wrong) = (0, 0);
        for id in 0..400 {
            let first = dice.vector(64);
            let second = dice.at(&first, planted_at);
            wrong += usize::from(index.insert(&cells.keys(&first), &first, id * 2).is_some());
            let alike = index.insert(&cells.keys(&second), &second, id * 2 + 1);
            found += usize::from(alike.is_some_and(|alike| alike.earlier == id * 2));
        }
        (found as f64 / 400.0, wrong)
    }

    #[test]
    fn planted_pairs_are_found_as_often_as_promised() {
        for cosine in [0.75, 0.85, 0.9, 0.97] {
            let (found, wrong) = recall(cosine, cosine + 0.001);
            // Three standard deviations below 0.98 of 400.
            assert!(found >= 0.959 && wrong == 0, "{cosine}: {found}, {wrong} wrong");
            assert_eq!(recall(cosine, cosine - 0.01).0, 0.0, "{cosine}");
        }
    }

    #[test]
    fn the_earliest_of_several_is_named() {
        let cut = Cut::for_target(0.9, 0.98).unwrap();
        let cells = Cells::new(cut, 3);
        let mut index = CosineIndex::new(cut, 0.9);
        let mut put = |vector: [f64; 3], id| {
            let vector = direction(&vector).unwrap();
            index.insert(&cells.keys(&vector), &vector, id).map(|alike| alike.earlier)
        };
        assert_eq!(put([1.0, 0.0, 0.0], 3), None);
        assert_eq!(put([0.0, 1.0, 0.0], 4), None);
        assert_eq!(put([2.0, 0.0, 0.0], 5), Some(3));
        assert_eq!(put([9.0, 0.0, 0.0], 6), Some(3));
        assert_eq!(put([-1.0, 0.0, 0.0], 7), None);
        assert_eq!(direction(&[0.0, 0.0]), None);
        assert_eq!(direction(&[f64::INFINITY]), None);
    }

    #[test]
    fn cuts_are_the_cheapest_and_have_bounds() {
        let check = |cosine, recall| Cut::for_target(cosine, recall).map(|cut| (cut.bands, cut.planes));
        assert_eq!(check(1.0, 0.98), Ok((1, 21)));
        assert!(check(0.95, 0.98).unwrap().0 < check(0.8, 0.98).unwrap().0);
        assert!(check(0.01, 1.0 - 1e-15).unwrap_err().starts_with("no cut finds"));
        assert!(check(1.5, 0.98).is_err() && check(0.9, 1.0).is_err() && check(f64::NAN, 0.5).is_err());
    }

    /// A crowd in one cell costs no square of its number.
    #[test]
    fn a_crowd_of_equals_is_bounded() {
        let cut = Cut { bands: 1, planes: 4 };
        let cells = Cells::new(cut, 2);
        let mut index = CosineIndex::new(cut, 0.999_999);
        let vector = direction(&[1.0, 0.5]).unwrap();
        let keys = cells.keys(&vector);
        for id in 0..3_000 {
            assert_eq!(index.insert(&keys, &vector, id).map(|alike| alike.earlier), (id > 0).then_some(0));
        }
    }
}
