//! Repeated runs of words: how many characters are in the most frequent one, and in those that came before.
//!
//! A run of n + 1 words comes again only where its first n do: each length looks only at the places that the
//! one before left over, so that a text without repetition is done after its pairs. Linear in the number of
//! words for every text. Runs are told apart by 64-bit hashes: among 100,000 runs, two are taken for one
//! with a chance of about 3 in 10^10. Never looks at text.

/// Most words in a run.
const WORDS_MAX: usize = 10;
/// From this length on, characters in repeated runs are counted.
const REPEATED_FROM: usize = 5;

/// What runs of one length come to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Run {
    /// Characters of the most frequent run, spaces between its words included, times how often it comes; of
    /// equally frequent ones the first counts. 0 when there is no run of the length.
    pub(super) top_chars: usize,
    /// Characters in runs that came before; counted runs do not overlap. For 5 words and more.
    pub(super) repeated_chars: usize,
}

/// Looks at runs of words, given the words' hashes and how many characters stand before each word and at the end,
/// spaces not counted.
pub(super) struct Runs<'a> {
    words: &'a [u64],
    chars_before: &'a [u32],
}

impl Runs<'_> {
    pub(super) fn new<'a>(words: &'a [u64], chars_before: &'a [u32]) -> Runs<'a> {
        Runs { words, chars_before }
    }

    /// What each length comes to; those of 0 and 1 word are not measured.
    pub(super) fn measure(&self) -> [Run; WORDS_MAX + 1] {
        let mut runs = [Run::default(); WORDS_MAX + 1];
        let mut counts = Counts::default();
        // The places whose run may come again, with the runs' hashes.
        let mut places: Vec<(u32, u64)> = (0..).zip(self.words.iter().copied()).collect();
        for (length, run) in runs.iter_mut().enumerate().skip(2) {
            places.retain_mut(|(place, key)| {
                let last = self.words.get(*place as usize + length - 1);
                last.inspect(|word| *key = mix(*key, **word)).is_some()
            });
            counts.reset(places.len());
            let most = places.iter().map(|(_, key)| counts.add(*key)).max().unwrap_or(0);
            if most > 1 {
                places.retain(|(_, key)| counts.get(*key) > 1);
            } else {
                places.clear();
            }
            run.top_chars = self.top_chars(length, most, &places, &counts);
            if length >= REPEATED_FROM {
                run.repeated_chars = self.repeated_chars(length, &places, &mut counts);
            }
        }
        runs
    }

    fn chars(&self, place: u32, length: usize) -> usize {
        let before = |place: usize| self.chars_before.get(place).map_or(0, |chars| *chars as usize);
        before(place as usize + length) - before(place as usize)
    }

    /// Characters of the first run that comes `most` times.
    fn top_chars(&self, length: usize, most: u32, places: &[(u32, u64)], counts: &Counts) -> usize {
        if self.words.len() < length {
            return 0;
        }
        // Where none comes twice the very first run is the first; else those that do are left.
        let top = places.iter().find(|(_, key)| counts.get(*key) == most).map_or(0, |(place, _)| *place);
        most.max(1) as usize * (self.chars(top, length) + length - 1)
    }

    fn repeated_chars(&self, length: usize, places: &[(u32, u64)], counts: &mut Counts) -> usize {
        let (mut chars, mut next) = (0, 0);
        for (place, key) in places {
            if *place >= next && counts.see(*key) {
                chars += self.chars(*place, length);
                next = place + length as u32;
            }
        }
        chars
    }
}

fn mix(run: u64, word: u64) -> u64 {
    let mixed = u128::from(run.rotate_left(32) ^ word ^ 0x9E37_79B9_7F4A_7C15) * 0xD6E8_FEB8_6659_FD93;
    (mixed as u64) ^ ((mixed >> 64) as u64)
}

/// How often each key came: a table with open addresses.
#[derive(Default)]
struct Counts {
    /// A key, how often it came, and whether it was seen.
    slots: Vec<(u64, u32, bool)>,
    taken: usize,
}

/// Places of a table to begin with: it grows with the different keys, not with all.
const SLOTS: usize = 4096;

impl Counts {
    fn reset(&mut self, keys: usize) {
        self.slots.clear();
        self.slots.resize((2 * keys).next_power_of_two().clamp(2, SLOTS), (0, 0, false));
        self.taken = 0;
    }

    fn slot(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = key as usize & mask;
        while self.slots[at].1 > 0 && self.slots[at].0 != key {
            at = (at + 1) & mask;
        }
        at
    }

    /// How often the key came, this time included.
    fn add(&mut self, key: u64) -> u32 {
        let at = self.slot(key);
        self.slots[at].0 = key;
        self.slots[at].1 += 1;
        let count = self.slots[at].1;
        if count == 1 {
            self.taken += 1;
            if 2 * self.taken > self.slots.len() {
                self.grow();
            }
        }
        count
    }

    fn grow(&mut self) {
        let larger = vec![(0, 0, false); 4 * self.slots.len()];
        let smaller = std::mem::replace(&mut self.slots, larger);
        for slot in smaller.into_iter().filter(|slot| slot.1 > 0) {
            let at = self.slot(slot.0);
            self.slots[at] = slot;
        }
    }

    fn get(&self, key: u64) -> u32 {
        self.slots[self.slot(key)].1
    }

    /// Whether the key was seen before; from now on it was.
    fn see(&mut self, key: u64) -> bool {
        let at = self.slot(key);
        std::mem::replace(&mut self.slots[at].2, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words are single letters, each told by its character.
    fn measure(words: &str) -> [Run; WORDS_MAX + 1] {
        let hashes: Vec<u64> =
            words.split(' ').map(|word| word.bytes().fold(0, |hash, byte| mix(hash, byte.into()))).collect();
        let mut before = vec![0];
        for word in words.split(' ') {
            before.push(before[before.len() - 1] + word.len() as u32);
        }
        Runs::new(&hashes, &before).measure()
    }

    fn check(words: &str, length: usize, top_chars: usize, repeated_chars: usize) {
        assert_eq!(measure(words)[length], Run { top_chars, repeated_chars }, "{words}");
    }

    #[test]
    fn the_first_of_the_most_frequent_runs_counts() {
        check("aa b aa b c d c d", 2, 2 * 4, 0);
        check("aa b c", 2, 4, 0);
        check("aa b c", 4, 0, 0);
        check("a b c a b c a b c", 3, 3 * 5, 0);
    }

    #[test]
    fn repeated_runs_do_not_overlap() {
        check("a b c d e a b c d e", 5, 2 * 9, 5);
        check("a a a a a a a a a a a", 5, 7 * 9, 10);
        check("a a a a a a a a a a a", 10, 2 * 19, 10);
        check("a b c d e a b c d f", 5, 9, 0);
    }

    #[test]
    fn a_million_times_one_word_is_soon_measured() {
        let words = vec![7; 1_000_000];
        let before: Vec<u32> = (0..=1_000_000).collect();
        let runs = Runs::new(&words, &before).measure();
        assert_eq!(runs[10].repeated_chars, 999_990);
    }
}
