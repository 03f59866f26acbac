//! Random choices as functions of what they are for: no state, no order, no clock.
//!
//! Every choice hangs on (seed, epoch, step name, row key, what it is for, how many were made for that
//! before), so rows can be drawn in any order, and a step or an axis more changes no other's choices.
//! **The constructions here are for ever**: changing one changes every dataset made since.

use std::collections::HashMap;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

/// What all choices of one use hang on: XXH3-128 of the seed (8 bytes, little-endian) and the texts,
/// each after its length in bytes (8 bytes, little-endian). The key is the hash's (low, high) half.
fn key(seed: u64, texts: &[&str]) -> (u64, u64) {
    let mut bytes = Vec::with_capacity(8 + texts.iter().map(|text| 8 + text.len()).sum::<usize>());
    bytes.extend_from_slice(&seed.to_le_bytes());
    for text in texts {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    let hash = xxh3_128(&bytes);
    (hash as u64, (hash >> 64) as u64)
}

/// XXH3-64, seeded with the key's low half, of its high half and `input` (8 bytes each, little-endian).
fn hash(key: (u64, u64), input: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key.1.to_le_bytes());
    bytes[8..].copy_from_slice(&input.to_le_bytes());
    xxh3_64_with_seed(&bytes, key.0)
}

/// The random choices of one use at one row.
#[derive(Clone, Debug)]
pub struct Draws {
    key: (u64, u64),
    /// Choices made so far.
    count: u64,
}

impl Draws {
    /// `row_key` is the row's draw key; `what` says what the choices are for, unique within the step.
    pub fn new(seed: u64, epoch: &str, step: &str, row_key: &str, what: &str) -> Draws {
        Draws { key: key(seed, &[epoch, step, row_key, what]), count: 0 }
    }

    pub fn u64(&mut self) -> u64 {
        let word = hash(self.key, self.count);
        self.count += 1;
        word
    }

    /// A number in `0..n`, each as likely as any other; 0 when `n` is 0.
    ///
    /// Multiply and shift with rejection: Lemire, "Fast Random Integer Generation in an Interval", 2019,
    /// algorithm 5. A round is rejected with probability below 1/2, and below n / 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        let mut product = u128::from(self.u64()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.u64()) * u128::from(n);
            }
        }
        (product >> 64) as u64
    }

    /// A number in `[0, 1)`, a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        const SCALE: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.u64() >> 11) as f64 * SCALE
    }

    /// True with probability `p`; never at 0, always at 1.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Puts the items in a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// `count` different numbers of `0..n` in random order; all of them when there are fewer.
    ///
    /// The head of a Fisher-Yates shuffle that only remembers what was moved: memory of `count`, not `n`.
    pub fn distinct(&mut self, n: u64, count: u64) -> Vec<u64> {
        let mut moved: HashMap<u64, u64> = HashMap::new();
        let mut chosen = Vec::new();
        for first in 0..count.min(n) {
            let other = first + self.below(n - first);
            chosen.push(moved.get(&other).copied().unwrap_or(other));
            let displaced = moved.get(&first).copied().unwrap_or(first);
            moved.insert(other, displaced);
        }
        chosen
    }
}

/// The numbers `0..n` in a random order that needs no memory.
///
/// A balanced Feistel network over the smallest even number of bits that holds `n` (at least 8, so that
/// few values get a fair order too), walked until it falls below `n` (cycle walking: Black and Rogaway,
/// "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). Four rounds make a strong pseudo-random
/// permutation (Luby and Rackoff, 1988); eight because the halves are narrow.
#[derive(Clone, Debug)]
pub struct Permutation {
    key: (u64, u64),
    n: u64,
    half_bits: u32,
}

const ROUNDS: u64 = 8;
const HALF_BITS_MIN: u32 = 4;

impl Permutation {
    pub fn new(n: u64, seed: u64, epoch: &str, step: &str, what: &str) -> Permutation {
        let bits = 64 - n.saturating_sub(1).leading_zeros();
        Permutation {
            key: key(seed, &[epoch, step, what]),
            n,
            half_bits: bits.div_ceil(2).max(HALF_BITS_MIN),
        }
    }

    /// The number at a position: each of `0..n` at exactly one; `None` past the end.
    pub fn at(&self, position: u64) -> Option<u64> {
        if position >= self.n {
            return None;
        }
        // Ends: the network is a bijection, so the walk comes back to `position` < n at the latest.
        let mut number = self.network(position);
        while number >= self.n {
            number = self.network(number);
        }
        Some(number)
    }

    fn network(&self, number: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for round in 0..ROUNDS {
            // A half has 32 bits at most, so round and half share a word.
            let mixed = left ^ (hash(self.key, round << 32 | right) & mask);
            (left, right) = (right, mixed);
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draws(row: &str) -> Draws {
        Draws::new(7, "0", "draw", row, "topic")
    }

    /// Pinned for ever: these numbers are what datasets are made of. They were computed a second time from
    /// the doc comments above, in Python with its `xxhash` package.
    #[test]
    fn choices_never_change() {
        let mut draws = draws("17.3");
        assert_eq!([draws.u64(), draws.u64()], [890_316_362_669_413_309, 12_487_369_146_165_922_154]);
        assert_eq!([draws.below(10), draws.below(1000)], [9, 494]);
        assert_eq!(draws.unit(), 0.466_425_043_993_374_37);
        assert_eq!(draws.distinct(20, 5), [19, 10, 2, 13, 4]);
        let mut items = [0, 1, 2, 3, 4, 5];
        draws.shuffle(&mut items);
        assert_eq!(items, [3, 4, 2, 0, 5, 1]);
        let order = Permutation::new(10, 7, "0", "draw", "name");
        let order: Vec<u64> = (0..10).filter_map(|position| order.at(position)).collect();
        assert_eq!(order, [6, 8, 1, 0, 5, 4, 7, 9, 3, 2]);
        let wide = Permutation::new(1 << 40, 7, "0", "draw", "name");
        assert_eq!([wide.at(0), wide.at(1)], [Some(254_335_565_891), Some(261_690_531_899)]);
    }

    #[test]
    fn everything_that_a_choice_hangs_on_changes_it() {
        let base = Draws::new(1, "0", "step", "5", "a").u64();
        let others = [
            Draws::new(2, "0", "step", "5", "a"),
            Draws::new(1, "1", "step", "5", "a"),
            Draws::new(1, "0", "steps", "5", "a"),
            Draws::new(1, "0", "step", "6", "a"),
            Draws::new(1, "0", "step", "5", "b"),
            Draws::new(1, "0s", "tep", "5", "a"),
        ];
        for mut other in others {
            assert_ne!(other.u64(), base, "{other:?}");
        }
    }

    /// Checks that counts are near the mean: within 5 standard deviations of a fair draw.
    #[track_caller]
    fn check_even(counts: &[u64]) {
        let total: u64 = counts.iter().sum();
        let mean = total as f64 / counts.len() as f64;
        for count in counts {
            assert!((*count as f64 - mean).abs() < 5.0 * mean.sqrt(), "{counts:?}");
        }
    }

    #[test]
    fn choices_are_even() {
        let mut below = [0; 7];
        let mut units = [0; 10];
        let mut heads = [0; 5];
        for row in 0..5000 {
            let mut draws = draws(&row.to_string());
            below[draws.below(7) as usize] += 1;
            units[(draws.unit() * 10.0) as usize] += 1;
            heads[draws.distinct(5, 2)[1] as usize] += 1;
        }
        check_even(&below);
        check_even(&units);
        check_even(&heads);
    }

    #[test]
    fn orders_of_few_values_are_even() {
        let mut counts: HashMap<Vec<Option<u64>>, u64> = HashMap::new();
        for seed in 0..1200 {
            let order = Permutation::new(3, seed, "0", "draw", "name");
            *counts.entry((0..3).map(|position| order.at(position)).collect()).or_default() += 1;
        }
        assert_eq!(counts.len(), 6);
        check_even(&counts.into_values().collect::<Vec<u64>>());
    }

    #[test]
    fn edges() {
        let mut draws = draws("1");
        assert_eq!(draws.below(0), 0);
        assert_eq!(draws.below(1), 0);
        assert!(!draws.chance(0.0) && draws.chance(1.0));
        let mut all = draws.distinct(4, 9);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
        assert_eq!(Permutation::new(0, 1, "", "", "").at(0), None);
        assert_eq!(Permutation::new(1, 1, "", "", "").at(0), Some(0));
        assert!(Permutation::new(u64::MAX, 1, "", "", "").at(u64::MAX - 1).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_permutation_has_each_number_once(n in 1_u64..700, seed: u64) {
            let order = Permutation::new(n, seed, "0", "draw", "name");
            let mut all: Vec<u64> = (0..n).filter_map(|position| order.at(position)).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..n).collect::<Vec<u64>>());
            prop_assert_eq!(order.at(n), None);
        }

        #[test]
        fn distinct_numbers_differ(n in 1_u64..300, count in 0_u64..40, seed: u64) {
            let mut chosen = Draws::new(seed, "0", "s", "1", "a").distinct(n, count);
            prop_assert!(chosen.iter().all(|number| *number < n));
            chosen.sort_unstable();
            chosen.dedup();
            prop_assert_eq!(chosen.len() as u64, count.min(n));
        }
    }
}
