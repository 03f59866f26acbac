//! MinHash signatures cut into bands: similar sets share a band key, unlike ones seldom do.
//!
//! Broder 1997 (On the resemblance and containment of documents) for the signatures, Indyk and Motwani
//! 1998 for the bands. Keys may be stored, so [`VERSION`] names everything that they depend on. This
//! file knows sets of hashes only: no text, no index.

use super::shingles::{GOLDEN, mix};

/// Names the permutations and the band hash below. Keys of different versions never compare.
pub const VERSION: u32 = 1;

/// The most hashes a signature may have. 450 bands x 20 rows (Lee et al. 2021, Deduplicating training
/// data makes language models better, appendix A) is the largest setting in print.
pub const HASHES_MAX: u32 = 10_000;

/// The most hashes that [`Bands::for_target`] picks: about 60 microseconds for 250 shingles.
const TARGET_HASHES_MAX: u32 = 512;

/// What [`Bands::for_target`] takes for reasonable precision: the largest chance to become a candidate
/// for a pair at half of the wished similarity. For 0.8 and a recall of 0.98 that makes 17 x 7, which
/// lets through 12 % of the pairs at similarity 0.5; the next cheaper 13 x 6 would let through 19 %.
const HALFWAY_MAX: f64 = 0.03;

/// How a signature is cut: `bands` keys, each made of `rows` hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bands {
    bands: u32,
    rows: u32,
}

impl Bands {
    /// # Errors
    /// A sentence for the user if a number is 0 or there are more than [`HASHES_MAX`] hashes.
    pub fn new(bands: u32, rows: u32) -> Result<Bands, String> {
        let hashes = u64::from(bands) * u64::from(rows);
        if hashes == 0 || hashes > u64::from(HASHES_MAX) {
            return Err(format!(
                "{bands} bands of {rows} rows make {hashes} hashes; there must be 1 to {HASHES_MAX}"
            ));
        }
        Ok(Bands { bands, rows })
    }

    /// The cheapest cut that finds a pair of this `similarity` with a chance of at least `recall`.
    ///
    /// Cheapest is the fewest hashes (among equals the steepest curve, so the fewest false candidates),
    /// of those with at most 512 hashes and a chance of at most 3 % at half the similarity. Where no cut
    /// has both (below 0.63 or so), the steepest with at most 512 hashes. 0.8 and 0.98 make 17 x 7.
    ///
    /// # Errors
    /// A sentence for the user if a number is out of range or the two cannot be had together.
    pub fn for_target(similarity: f64, recall: f64) -> Result<Bands, String> {
        if !(similarity > 0.0 && similarity <= 1.0) {
            return Err(format!("the similarity is {similarity}; it must be above 0 and at most 1"));
        }
        if !(recall > 0.0 && recall < 1.0) {
            return Err(format!("the recall is {recall}; it must be above 0 and below 1, such as 0.98"));
        }
        let cuts: Vec<Bands> =
            (1..=TARGET_HASHES_MAX).filter_map(|rows| fewest_bands(rows, similarity, recall)).collect();
        cuts.iter()
            .filter(|cut| cut.probability(similarity / 2.0) <= HALFWAY_MAX)
            .min_by_key(|cut| (cut.hashes(), cut.bands))
            .or_else(|| cuts.iter().max_by_key(|cut| cut.rows))
            .copied()
            .ok_or_else(|| {
                format!(
                    "finding {recall} of the pairs at similarity {similarity} takes more than \
                     {TARGET_HASHES_MAX} hashes; raise the similarity or lower the recall"
                )
            })
    }

    pub fn bands(self) -> u32 {
        self.bands
    }

    pub fn rows(self) -> u32 {
        self.rows
    }

    /// Hashes of a signature: bands x rows.
    pub fn hashes(self) -> u32 {
        self.bands * self.rows
    }

    /// The chance that two sets of Jaccard similarity `similarity` share a band key: 1 - (1 - s^r)^b.
    pub fn probability(self, similarity: f64) -> f64 {
        1.0 - power(1.0 - power(similarity, self.rows), self.bands)
    }
}

/// 17 bands of 7 rows: finds 98.2 % of the pairs at similarity 0.8, see [`Bands::for_target`].
impl Default for Bands {
    fn default() -> Bands {
        Bands { bands: 17, rows: 7 }
    }
}

fn fewest_bands(rows: u32, similarity: f64, recall: f64) -> Option<Bands> {
    let cut = |bands| Bands { bands, rows };
    (1..=TARGET_HASHES_MAX / rows).map(cut).find(|cut| cut.probability(similarity) >= recall)
}

/// `base` to the `exponent`, by multiplications only: `powi` may round differently from platform to
/// platform, and the same pipeline must get the same bands everywhere.
fn power(base: f64, exponent: u32) -> f64 {
    (0..exponent).fold(1.0, |product, _| product * base)
}

/// Hashes that are computed side by side: enough to fill the registers of AVX2, where it takes about 0.04 ns per
/// hash and element (8 take 0.11, 16 take 0.12; with SSE2 alone it is 0.4 to 0.5, whatever the number).
const LANES: usize = 32;

/// Permutations of the 32-bit numbers, x -> multiplier * x + offset modulo 2^32, for `LANES` hashes.
///
/// An odd multiplier makes it a bijection, so each hash of random sets agrees with a chance of exactly
/// their Jaccard similarity. The numbers are the SplitMix64 sequence seeded with the first 64 bits of
/// the fraction of pi; hash i takes its i-th value: the upper half with the lowest bit set, the lower.
#[derive(Clone, Debug)]
struct Block {
    multipliers: [u32; LANES],
    offsets: [u32; LANES],
}

const SEED: u64 = 0x243f_6a88_85a3_08d3;

fn draw(index: u64) -> u64 {
    mix(SEED.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN)))
}

/// Makes band keys. Cheap to share: it holds only its permutations, 8 bytes a hash.
#[derive(Clone, Debug)]
pub struct MinHash {
    bands: Bands,
    blocks: Vec<Block>,
}

impl MinHash {
    pub fn new(bands: Bands) -> MinHash {
        let blocks = u64::from(bands.hashes()).div_ceil(LANES as u64);
        let block = |block: u64| {
            let value = |lane: usize| draw(block * LANES as u64 + lane as u64);
            Block {
                multipliers: std::array::from_fn(|lane| (value(lane) >> 32) as u32 | 1),
                offsets: std::array::from_fn(|lane| value(lane) as u32),
            }
        };
        MinHash { bands, blocks: (0..blocks).map(block).collect() }
    }

    pub fn bands(&self) -> Bands {
        self.bands
    }

    /// The band keys of a set, one per band; no keys for an empty set. Order and repeats of the
    /// elements do not matter, but the elements must be well mixed: the permutations mix little.
    /// `signature` is room for the work, its content does not matter.
    pub fn keys(&self, set: &[u32], signature: &mut Vec<i32>) -> Vec<u64> {
        if set.is_empty() {
            return Vec::new();
        }
        signature.clear();
        // With the widest vectors that the processor has; all of them give the same numbers.
        pulp::Arch::new().dispatch(Signing { blocks: &self.blocks, set, signature });
        let bands = signature.chunks_exact(self.bands.rows as usize).take(self.bands.bands as usize);
        bands.zip(0..).map(|(rows, band)| band_key(band, rows)).collect()
    }
}

/// The work that is compiled once for each kind of vectors.
struct Signing<'a> {
    blocks: &'a [Block],
    set: &'a [u32],
    signature: &'a mut Vec<i32>,
}

impl pulp::NullaryFnOnce for Signing<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for block in self.blocks {
            self.signature.extend_from_slice(&block.least(self.set));
        }
    }
}

impl Block {
    /// The least hash of the set in every lane. No branches, no 64-bit products and signed minima, as
    /// SSE2 has no unsigned comparison: in this form the compiler vectorises it on any x86-64. Inlined where
    /// the processor's vectors are chosen.
    #[inline(always)]
    fn least(&self, set: &[u32]) -> [i32; LANES] {
        let mut least = [i32::MAX; LANES];
        for element in set {
            let lanes = least.iter_mut().zip(&self.multipliers).zip(&self.offsets);
            for ((least, multiplier), offset) in lanes {
                let hash = multiplier.wrapping_mul(*element).wrapping_add(*offset).cast_signed();
                *least = hash.min(*least);
            }
        }
        least
    }
}

/// The key of one band. The band's number is in it, so that keys of all bands can live in one column.
fn band_key(band: u64, rows: &[i32]) -> u64 {
    rows.iter().fold(mix(band.wrapping_add(GOLDEN)), |key, row| mix(key ^ u64::from(row.cast_unsigned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_target(similarity: f64, recall: f64, bands: u32, rows: u32) {
        let cut = Bands::for_target(similarity, recall).unwrap();
        assert_eq!((cut.bands(), cut.rows()), (bands, rows), "for {similarity} and {recall}");
        assert!(cut.probability(similarity) >= recall);
    }

    #[test]
    fn targets_get_the_cheapest_bands() {
        check_target(0.8, 0.98, 17, 7);
        assert_eq!(Bands::for_target(0.8, 0.98), Ok(Bands::default()));
        check_target(0.7, 0.98, 46, 7);
        check_target(0.9, 0.98, 7, 7);
        check_target(0.5, 0.98, 61, 4);
        check_target(1.0, 0.98, 1, 6);
    }

    #[test]
    fn impossible_targets_get_a_sentence() {
        let error = |similarity, recall| Bands::for_target(similarity, recall).unwrap_err();
        assert!(error(0.0, 0.9).contains("similarity is 0"));
        assert!(error(f64::NAN, 0.9).contains("NaN"));
        assert!(error(0.8, 1.0).contains("recall is 1"));
        assert!(error(0.001, 0.99).contains("raise the similarity"));
        assert!(Bands::new(0, 3).is_err());
        assert!(Bands::new(u32::MAX, u32::MAX).is_err());
        assert_eq!(Bands::new(450, 20).unwrap().hashes(), 9_000);
    }

    #[test]
    fn the_curve_is_the_published_one() {
        // FineWeb (14 x 8) states 56, 77, 92 and 98.8 % at 0.7, 0.75, 0.8 and 0.85.
        let fineweb = Bands::new(14, 8).unwrap();
        for (similarity, stated) in [(0.7, 0.56), (0.75, 0.77), (0.8, 0.92), (0.85, 0.988)] {
            assert!((fineweb.probability(similarity) - stated).abs() < 0.006, "at {similarity}");
        }
    }

    /// The share of random pairs of sets, `shared` elements in both and `own` in each alone, that share
    /// a band key must be what the curve says, within three standard deviations.
    fn check_curve(bands: Bands, shared: u64, own: u64) {
        let minhash = MinHash::new(bands);
        let trials: u64 = 2_500;
        let mut stream = 0..;
        let mut take = |count: u64| -> Vec<u32> {
            stream.by_ref().take(count as usize).map(|n: u64| mix(n ^ GOLDEN) as u32).collect()
        };
        let mut found = 0;
        for _ in 0..trials {
            let both = take(shared);
            let keys = |own: Vec<u32>| minhash.keys(&[&both[..], &own[..]].concat(), &mut Vec::new());
            let (left, right) = (keys(take(own)), keys(take(own)));
            found += u64::from(left.iter().zip(&right).any(|(a, b)| a == b));
        }
        let expected = bands.probability(shared as f64 / (shared + 2 * own) as f64);
        let sigma = (expected * (1.0 - expected) / trials as f64).sqrt();
        let share = found as f64 / trials as f64;
        assert!((share - expected).abs() <= 3.0 * sigma, "{bands:?}: {share} for {expected} +- {sigma}");
    }

    #[test]
    fn candidates_follow_the_curve() {
        let bands = Bands::new(8, 4).unwrap();
        for (shared, own) in [(10, 10), (20, 10), (24, 6), (32, 4), (36, 2)] {
            check_curve(bands, shared, own);
        }
        check_curve(Bands::default(), 28, 5);
    }

    #[test]
    fn keys_are_those_of_the_set_and_never_change() {
        let minhash = MinHash::new(Bands::new(3, 2).unwrap());
        let keys = |set: &[u32]| minhash.keys(set, &mut vec![1, 2, 3]);
        assert_eq!(keys(&[]), Vec::<u64>::new());
        assert_eq!(keys(&[5, 9, 1]), keys(&[1, 1, 9, 5]));
        // More bands keep the keys of the first ones.
        let wider = MinHash::new(Bands::new(9, 2).unwrap());
        assert_eq!(wider.keys(&[5, 9, 1], &mut Vec::new())[..3], keys(&[5, 9, 1]));
        assert_eq!(
            format!("v{VERSION} {:x?}", keys(&[5, 9, 1])),
            "v1 [ec6c7af8b8646aea, 297a809b234e34ee, 9ac2fb60f21e5783]"
        );
    }
}
