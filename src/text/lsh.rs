//! Near-duplicate search where the first wins: is a document similar to an *earlier* one?
//!
//! The heavy part, [`KeyMaker::keys`], is a pure function of one text and runs on all cores. The serial
//! part, [`NearIndex::insert`], only looks keys up, in the order of the documents. Knows no rows and no
//! files; results depend on the keys and their order alone.
//!
//! Memory of the index for one document (measured, `a_row_takes_what_the_documentation_says`), with the
//! default 17 bands and 246 shingles (a text of 1.5 KB): 260 to 330 bytes without verification, that is
//! 8 for the id and for each band 12 / load, at a load of 0.64 to 0.8; with verification 4 more for each
//! band and each shingle, so 1.3 to 1.4 KB. Documents that bring no new key take nothing.

use super::minhash::{Bands, MinHash};
use super::shingles::{Shingler, Shingles};

/// Candidates that a document is compared with, at most, earliest first. Past them only candidates that
/// share at least half of the band keys are, so near copies are found however crowded the
/// neighbourhood. Of each band, too, the earliest so many are looked at: keys that all texts of one template share
/// bring no more, and near copies share others. Keeps a set of a million texts from one template, or of texts that
/// somebody made to collide, from costing 10^12 comparisons.
pub const CANDIDATES_MAX: usize = 1_000;

/// What the index has to know of a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocKeys {
    /// One key per band, see [`MinHash::keys`]; empty if the text has no shingles.
    pub bands: Vec<u64>,
    /// The set of shingle hashes, ascending; empty if matches are not to be verified.
    pub shingles: Box<[u32]>,
}

/// Turns texts into keys; shared by all threads.
#[derive(Clone, Debug)]
pub struct KeyMaker {
    shingles: Shingles,
    minhash: MinHash,
    verify: bool,
}

/// Buffers of one thread that makes keys.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    shingler: Shingler,
    hashes: Vec<u64>,
    set: Vec<u32>,
    signature: Vec<i32>,
}

impl KeyMaker {
    /// `verify` must be what the index is told: whether it gets a threshold.
    pub fn new(shingles: Shingles, bands: Bands, verify: bool) -> KeyMaker {
        KeyMaker { shingles, minhash: MinHash::new(bands), verify }
    }

    pub fn bands(&self) -> Bands {
        self.minhash.bands()
    }

    /// The set of a text's shingle hashes, ascending; as [`DocKeys::shingles`] has it, verified or not.
    pub fn set(&self, text: &str, scratch: &mut Scratch) -> Box<[u32]> {
        let Scratch { shingler, hashes, set, .. } = scratch;
        shingler.fill(self.shingles, text, hashes);
        set.clear();
        set.extend(hashes.iter().map(|hash| (hash >> 32) as u32));
        set.sort_unstable();
        set.dedup();
        set.as_slice().into()
    }

    pub fn keys(&self, text: &str, scratch: &mut Scratch) -> DocKeys {
        let Scratch { shingler, hashes, set, signature } = scratch;
        shingler.fill(self.shingles, text, hashes);
        set.clear();
        // 32 bits are enough: in a set of 1,000 shingles one of them is mistaken for another with a
        // chance of 10^-4, and that moves the similarity by 0.001.
        set.extend(hashes.iter().map(|hash| (hash >> 32) as u32));
        if self.verify {
            set.sort_unstable();
            set.dedup();
        }
        let shingles = if self.verify { set.as_slice().into() } else { Box::default() };
        DocKeys { bands: self.minhash.keys(set, signature), shingles }
    }
}

/// The earlier document that makes a document a duplicate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match {
    /// The id that [`NearIndex::insert`] was given for it.
    pub earlier: u64,
    /// The Jaccard similarity of the two shingle sets; `None` if it was not verified.
    pub similarity: Option<f64>,
}

/// Every document so far, kept or not, as far as it can matter to a later one.
#[derive(Clone, Debug)]
pub struct NearIndex {
    threshold: Option<f64>,
    bands: Vec<Band>,
    /// The id of each stored document; its place here is its number.
    ids: Vec<u64>,
    /// The shingle set of each stored document, if matches are verified.
    sets: Vec<Box<[u32]>>,
    cut_short: u64,
}

impl NearIndex {
    /// With a `threshold` matches are verified: a document is a duplicate of the earliest candidate
    /// whose Jaccard similarity is at least that. Without, of the earliest candidate. Candidates are
    /// the earlier documents that share a band key.
    pub fn new(bands: Bands, threshold: Option<f64>) -> NearIndex {
        let bands = vec![Band::default(); bands.bands() as usize];
        NearIndex { threshold, bands, ids: Vec::new(), sets: Vec::new(), cut_short: 0 }
    }

    /// Says what the document duplicates, and remembers it for later ones whatever the answer.
    ///
    /// A document without keys (its text has no shingles) matches nothing. After 2^32 - 2 stored
    /// documents later ones are still looked up but not remembered.
    pub fn insert(&mut self, keys: DocKeys, id: u64) -> Option<Match> {
        if keys.bands.is_empty() {
            return None;
        }
        match self.threshold {
            Some(threshold) => self.insert_verified(keys, id, threshold),
            None => self.insert_unverified(&keys, id),
        }
    }

    /// What a document would duplicate, if it came now; it is not remembered.
    pub fn find(&self, keys: &DocKeys) -> Option<Match> {
        let found = match self.threshold {
            Some(threshold) => {
                let (number, similarity) = self.earliest_similar(keys, threshold).0?;
                (number, Some(similarity))
            }
            None => {
                let held = self.bands.iter().zip(&keys.bands).map(|(band, key)| band.get(*key));
                (held.flatten().min()?, None)
            }
        };
        Some(Match { earlier: self.ids[found.0 as usize], similarity: found.1 })
    }

    /// Documents that were compared with only part of their candidates, see [`CANDIDATES_MAX`].
    pub fn cut_short(&self) -> u64 {
        self.cut_short
    }

    /// Bytes that the index holds, room to grow included.
    pub fn bytes(&self) -> usize {
        let bands: usize = self.bands.iter().map(Band::bytes).sum();
        let sets: usize = self.sets.iter().map(|set| size_of_val::<[u32]>(set)).sum();
        bands + sets + self.ids.capacity() * size_of::<u64>() + self.sets.capacity() * size_of::<Box<[u32]>>()
    }

    fn insert_unverified(&mut self, keys: &DocKeys, id: u64) -> Option<Match> {
        let held = self.bands.iter().zip(&keys.bands).map(|(band, key)| band.get(*key));
        let earliest = held.flatten().min();
        // Only the first document of a key can ever be the answer, so only that one is held.
        if let Some(number) = self.next_number() {
            let mut new = false;
            for (band, key) in self.bands.iter_mut().zip(&keys.bands) {
                if band.get(*key).is_none() {
                    band.put(*key, number);
                    new = true;
                }
            }
            if new {
                push_tightly(&mut self.ids, id);
            }
        }
        earliest.map(|number| Match { earlier: self.ids[number as usize], similarity: None })
    }

    fn insert_verified(&mut self, keys: DocKeys, id: u64, threshold: f64) -> Option<Match> {
        let (found, skipped) = self.earliest_similar(&keys, threshold);
        self.cut_short += u64::from(skipped && found.is_none());
        let is_copy = found.is_some_and(|(_, similarity)| similarity >= 1.0);
        // A later document is as similar to the earlier of two equal sets as to the other, and meets
        // it in the same bands: the copy can never be the answer.
        if !is_copy && let Some(number) = self.next_number() {
            for (band, key) in self.bands.iter_mut().zip(&keys.bands) {
                band.append(*key, number);
            }
            push_tightly(&mut self.ids, id);
            push_tightly(&mut self.sets, keys.shingles);
        }
        found.map(|(number, similarity)| Match {
            earlier: self.ids[number as usize],
            similarity: Some(similarity),
        })
    }

    /// The number that the next stored document gets.
    fn next_number(&self) -> Option<u32> {
        u32::try_from(self.ids.len()).ok().filter(|number| *number < u32::MAX - 1)
    }

    /// Walks the candidates of all bands together, in ascending order; and whether some were left out.
    fn earliest_similar(&self, keys: &DocKeys, threshold: f64) -> (Option<(u32, f64)>, bool) {
        let mut walks: Vec<Walk> =
            self.bands.iter().zip(&keys.bands).filter_map(|(band, key)| band.walk(*key)).collect();
        let mut candidates = 0;
        let mut skipped = false;
        while let Some(number) = walks.iter().map(|walk| walk.at).min() {
            let mut shared = 0;
            walks.retain_mut(|walk| {
                if walk.at != number {
                    return true;
                }
                shared += 1;
                skipped |= walk.is_cut_short();
                walk.advance()
            });
            candidates += 1;
            if candidates > CANDIDATES_MAX && 2 * shared < keys.bands.len() {
                skipped = true;
                continue;
            }
            let found = jaccard_from(&keys.shingles, &self.sets[number as usize], threshold);
            if let Some(similarity) = found {
                return (Some((number, similarity)), skipped);
            }
        }
        (None, skipped)
    }
}

/// The Jaccard similarity of two ascending sets if it is at least `threshold`; stops as soon as it
/// cannot be.
pub fn jaccard_from(left: &[u32], right: &[u32], threshold: f64) -> Option<f64> {
    let total = left.len() + right.len();
    // i / (total - i) >= t means i >= t * total / (1 + t). One less, for what rounding may do; the exact
    // comparison comes last.
    let needed = ((threshold * total as f64 / (1.0 + threshold)) as usize).saturating_sub(1);
    let (mut l, mut r, mut both) = (0, 0, 0);
    while l < left.len() && r < right.len() && both + (left.len() - l).min(right.len() - r) >= needed {
        // Without branches: which side is ahead is a coin toss that no processor predicts.
        let (a, b) = (left[l], right[r]);
        both += usize::from(a == b);
        l += usize::from(a <= b);
        r += usize::from(b <= a);
    }
    let similarity = both as f64 / (total - both).max(1) as f64;
    (similarity >= threshold).then_some(similarity)
}

/// Which documents have which key in one band.
///
/// An open-addressing table with linear probing. A key's place is its upper bits scaled to the table's
/// size, which may then be any number: it grows by a quarter at a time instead of doubling.
#[derive(Clone, Debug, Default)]
struct Band {
    /// `[number + 1, upper half of the key, lower half]`; the number is 0 where the slot is empty.
    /// Three halves rather than a tuple, which would be padded from 12 to 16 bytes.
    slots: Vec<[u32; 3]>,
    used: usize,
    /// Where keys hold all their documents: the number after each document's among those that share
    /// its key, and after the last the first. A slot names the last, so both ends are at hand.
    next: Vec<u32>,
}

impl Band {
    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<[u32; 3]>() + self.next.capacity() * size_of::<u32>()
    }

    /// The number that a key was put with.
    fn get(&self, key: u64) -> Option<u32> {
        let place = find(&self.slots, key)?;
        self.slots[place][0].checked_sub(1)
    }

    fn put(&mut self, key: u64, number: u32) {
        if 5 * (self.used + 1) > 4 * self.slots.len() {
            self.grow();
        }
        if let Some(place) = find(&self.slots, key) {
            self.used += usize::from(self.slots[place][0] == 0);
            self.slots[place] = [number + 1, (key >> 32) as u32, key as u32];
        }
    }

    /// Adds the document of that number, the highest so far, to those that have the key.
    fn append(&mut self, key: u64, number: u32) {
        let first = match self.get(key) {
            Some(last) => std::mem::replace(&mut self.next[last as usize], number),
            None => number,
        };
        push_tightly(&mut self.next, first);
        self.put(key, number);
    }

    fn walk(&self, key: u64) -> Option<Walk<'_>> {
        let last = self.get(key)?;
        Some(Walk { next: &self.next, at: self.next[last as usize], last, left: CANDIDATES_MAX })
    }

    fn grow(&mut self) {
        let size = (self.slots.len() + self.slots.len() / 4).max(16);
        let mut slots = vec![[0; 3]; size];
        for slot in self.slots.iter().filter(|slot| slot[0] != 0) {
            if let Some(place) = find(&slots, key_of(*slot)) {
                slots[place] = *slot;
            }
        }
        self.slots = slots;
    }
}

fn key_of(slot: [u32; 3]) -> u64 {
    (u64::from(slot[1]) << 32) | u64::from(slot[2])
}

/// The slot of a key, or the empty one where it belongs; `None` only in a table without slots, as a
/// fifth of the others' are empty.
fn find(slots: &[[u32; 3]], key: u64) -> Option<usize> {
    let home = ((u128::from(key) * slots.len() as u128) >> 64) as usize;
    (home..slots.len()).chain(0..home).find(|place| slots[*place][0] == 0 || key_of(slots[*place]) == key)
}

/// A way through the documents that share a key, in ascending order.
struct Walk<'a> {
    next: &'a [u32],
    at: u32,
    last: u32,
    /// Documents that it may still stand at, this one with them.
    left: usize,
}

impl Walk<'_> {
    /// Goes to the next document; `false` if there is none.
    fn advance(&mut self) -> bool {
        let more = self.at != self.last && self.left > 1;
        self.at = self.next[self.at as usize];
        self.left -= 1;
        more
    }

    /// Whether it ends here though there are more.
    fn is_cut_short(&self) -> bool {
        self.at != self.last && self.left == 1
    }
}

/// Pushes, but grows by a quarter at a time: the index is the largest thing in memory.
fn push_tightly<T>(vec: &mut Vec<T>, value: T) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact(vec.len() / 4 + 16);
    }
    vec.push(value);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::shingles::mix;
    use super::*;

    /// Numbers that look random and are the same in every run.
    struct Stream(u64);

    impl Stream {
        fn below(&mut self, limit: usize) -> usize {
            self.0 += 1;
            (mix(self.0) % limit as u64) as usize
        }

        fn words(&mut self, count: usize) -> Vec<String> {
            (0..count).map(|_| format!("w{}", self.below(50_000))).collect()
        }
    }

    fn jaccard(left: &[u32], right: &[u32]) -> f64 {
        let both = left.iter().filter(|hash| right.contains(hash)).count();
        both as f64 / (left.len() + right.len() - both) as f64
    }

    fn check_insert(index: &mut NearIndex, maker: &KeyMaker, id: u64, text: &str, expected: Option<u64>) {
        let found = index.insert(maker.keys(text, &mut Scratch::default()), id);
        assert_eq!(found.map(|found| found.earlier), expected, "{text}");
    }

    #[test]
    fn the_first_wins_whether_kept_or_not() {
        for threshold in [None, Some(0.5)] {
            let maker = KeyMaker::new(Shingles::words(1), Bands::new(64, 1).unwrap(), threshold.is_some());
            let mut index = NearIndex::new(Bands::new(64, 1).unwrap(), threshold);
            let mut check = |id, text: &str, expected| check_insert(&mut index, &maker, id, text, expected);
            check(10, "a b c d e f", None);
            check(11, "g h i j k l", None);
            check(12, "A, b, c, d, e, x!", Some(10));
            check(13, "a b c d e f", Some(10));
            // Similar to 12, which was a duplicate itself; to 10 only below the threshold.
            check(14, "a b c y z x", if threshold.is_some() { Some(12) } else { Some(10) });
            check(15, "...", None);
            check(16, "...", None);
            check(17, "g h i j k l m", Some(11));
        }
    }

    /// Documents drawn round a few templates, so that buckets are crowded and copies are common.
    fn crowded(count: usize) -> Vec<Vec<u32>> {
        let mut stream = Stream(1);
        let document = |_| {
            let template = stream.below(3) as u32 * 100;
            let mut set: Vec<u32> = (0..8)
                .map(|place| template + place * 4 + stream.below(10).saturating_sub(6) as u32)
                .map(|element| mix(u64::from(element)) as u32)
                .collect();
            set.sort_unstable();
            set.dedup();
            set
        };
        (0..count).map(document).collect()
    }

    #[test]
    fn results_are_those_of_the_definition() {
        let bands = Bands::new(4, 2).unwrap();
        let minhash = MinHash::new(bands);
        let sets = crowded(600);
        let keys: Vec<Vec<u64>> = sets.iter().map(|set| minhash.keys(set, &mut Vec::new())).collect();
        for threshold in [None, Some(0.5), Some(0.8), Some(1.0)] {
            let mut index = NearIndex::new(bands, threshold);
            let mut matches = 0;
            for (now, set) in sets.iter().enumerate() {
                let meets = |then: &usize| keys[*then].iter().zip(&keys[now]).any(|(a, b)| a == b);
                let like = |then: &usize| threshold.is_none_or(|least| jaccard(&sets[*then], set) >= least);
                let expected = (0..now).find(|then| meets(then) && like(then));
                let shingles = set.as_slice().into();
                let found = index.insert(DocKeys { bands: keys[now].clone(), shingles }, 1_000 + now as u64);
                let wanted = expected.map(|then| Match {
                    earlier: 1_000 + then as u64,
                    similarity: threshold.map(|_| jaccard(&sets[then], set)),
                });
                assert_eq!(found, wanted, "document {now} at {threshold:?}");
                matches += usize::from(found.is_some());
            }
            assert!(matches > 100 && matches < 600, "{matches} matches test too little");
            assert_eq!(index.cut_short(), 0);
        }
    }

    #[test]
    fn planted_pairs_are_found_and_nothing_else() {
        let bands = Bands::for_target(0.8, 0.98).unwrap();
        let maker = KeyMaker::new(Shingles::default(), bands, true);
        let mut index = NearIndex::new(bands, Some(0.8));
        let mut scratch = Scratch::default();
        let mut stream = Stream(2);
        let originals: Vec<Vec<String>> = (0..300).map(|_| stream.words(100)).collect();
        let mut keys = Vec::new();
        for (id, words) in originals.iter().enumerate() {
            keys.push(maker.keys(&words.join(" "), &mut scratch));
            assert_eq!(index.insert(keys[id].clone(), id as u64), None);
        }
        let (mut near, mut near_found, mut far) = (0, 0, 0);
        for (id, mut words) in originals.into_iter().enumerate() {
            for _ in 0..1 + id % 4 {
                let place = stream.below(words.len());
                words[place] = "edited".to_owned();
            }
            let variant = maker.keys(&words.join("  "), &mut scratch);
            let similarity = jaccard(&keys[id].shingles, &variant.shingles);
            let found = index.insert(variant, 1_000 + id as u64);
            if similarity >= 0.8 {
                near += 1;
                near_found += usize::from(found.is_some());
                assert!(found.is_none_or(|found| found.similarity == Some(similarity)));
            } else {
                far += 1;
                assert_eq!(found, None, "{similarity} is below the threshold");
            }
        }
        assert!(near >= 100 && far >= 50, "{near} near and {far} far pairs test too little");
        assert!(near_found * 100 >= near * 98, "{near_found} of {near} found");
    }

    #[test]
    fn crowds_cost_a_bounded_number_of_comparisons() {
        // All share the key of band 0, each has an element of its own: similarity 1/3 to each other.
        let mut index = NearIndex::new(Bands::new(4, 1).unwrap(), Some(0.9));
        let keys = |own: u64| DocKeys {
            bands: vec![7, mix(4 * own), mix(4 * own + 1), mix(4 * own + 2)],
            shingles: [1, 2 + own as u32].into(),
        };
        let crowd = CANDIDATES_MAX as u64 + 50;
        for own in 0..crowd {
            assert_eq!(index.insert(keys(own), own), None);
        }
        assert_eq!(index.cut_short(), 49);
        let copy = index.insert(keys(crowd - 1), crowd);
        assert_eq!(copy, Some(Match { earlier: crowd - 1, similarity: Some(1.0) }));
    }

    #[test]
    fn documents_that_were_made_to_collide_cost_a_bounded_time_each() {
        // All keys of all documents are the same, and no two are similar.
        let mut index = NearIndex::new(Bands::new(17, 7).unwrap(), Some(0.8));
        let keys = |own: u32| DocKeys { bands: (0..17).collect(), shingles: [own, own + 1_000_000].into() };
        for own in 0..2_000 {
            assert_eq!(index.insert(keys(own), u64::from(own)), None);
        }
        assert_eq!(index.cut_short(), 999);
    }

    #[test]
    fn tables_hold_what_was_put_in() {
        let mut band = Band::default();
        let mut expected = HashMap::new();
        let mut stream = Stream(3);
        assert_eq!(band.get(0), None);
        for number in 0..5_000 {
            // Keys at both ends of the range, so that probing runs over the end of the table.
            let key = match stream.below(4) {
                0 => u64::MAX - stream.below(300) as u64,
                1 => stream.below(300) as u64,
                _ => mix(stream.below(2_000) as u64),
            };
            band.put(key, number);
            expected.insert(key, number);
        }
        assert_eq!(band.used, expected.len());
        assert!(expected.iter().all(|(key, number)| band.get(*key) == Some(*number)));
        assert_eq!(band.get(1_000), None);
    }

    fn check_bytes(threshold: Option<f64>, least: usize, most: usize) {
        let mut index = NearIndex::new(Bands::default(), threshold);
        let mut stream = 0_u64..;
        for id in 1..=6_000 {
            let bands = stream.by_ref().take(17).map(mix).collect();
            let shingles = if threshold.is_some() { vec![0; 246] } else { Vec::new() };
            index.insert(DocKeys { bands, shingles: shingles.into() }, id);
            let row = index.bytes() / id as usize;
            assert!(id < 3_000 || (least..=most).contains(&row), "{row} bytes a row after {id}");
        }
    }

    #[test]
    fn a_row_takes_what_the_documentation_says() {
        check_bytes(None, 260, 340);
        check_bytes(Some(0.8), 1_300, 1_450);
    }
}
