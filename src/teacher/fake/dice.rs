//! Dice that fall the same way for the same seed. What is drawn with them is decided elsewhere.

/// A stream of pseudo-random numbers (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom
/// number generators", 2014). Quick and even; worth nothing against an adversary.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice for one use (`salt`) of one request (`hash` of its body) under one seed.
    pub fn new(seed: u64, hash: u128, salt: u64) -> Dice {
        let mut dice = Dice(seed);
        for part in [hash as u64, (hash >> 64) as u64, salt] {
            dice.0 = dice.roll() ^ part;
        }
        dice
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, not including, `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(end)) >> 64) as u64
    }

    /// A number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number of the normal distribution with mean 0 and deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// One of `items`, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and deviation of 4,000 draws.
    fn check(draw: impl Fn(&mut Dice) -> f64, mean: f64, deviation: f64) {
        let mut dice = Dice::new(1, 2, 3);
        let draws: Vec<f64> = (0..4000).map(|_| draw(&mut dice)).collect();
        let found = draws.iter().sum::<f64>() / 4000.0;
        let spread = (draws.iter().map(|x| (x - found).powi(2)).sum::<f64>() / 4000.0).sqrt();
        assert!((found - mean).abs() < deviation * 0.08, "mean {found}, not {mean}");
        assert!((spread / deviation - 1.0).abs() < 0.08, "deviation {spread}, not {deviation}");
    }

    #[test]
    fn draws_are_spread_as_their_names_say() {
        check(Dice::unit, 0.5, (1.0_f64 / 12.0).sqrt());
        check(Dice::normal, 0.0, 1.0);
        check(|dice| dice.below(10) as f64, 4.5, (99.0_f64 / 12.0).sqrt());
    }

    #[test]
    fn every_part_of_the_seed_counts() {
        let first = |seed, hash, salt| Dice::new(seed, hash, salt).roll();
        let all = [first(1, 2, 3), first(2, 2, 3), first(1, 3, 3), first(1, 2 | 1 << 64, 3), first(1, 2, 4)];
        for (position, one) in all.iter().enumerate() {
            assert!(!all[..position].contains(one), "{all:?}");
        }
        assert_eq!(first(1, 2, 3), first(1, 2, 3));
    }
}
