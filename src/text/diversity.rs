//! How different from each other the texts of a dataset are, in numbers, measured as they come.
//!
//! Sees one text after another and keeps no more than a bounded summary: about 250 KiB a field, beside some
//! hundred sampled texts. Decides about no text. The same texts in the same order give the same numbers.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use serde::{Deserialize, Serialize};

use super::lsh::jaccard_from;
use super::shingles::{GOLDEN, Shingler, Shingles, mix};

/// Words of an opening, as in the findings on TinyStories: 59 % of it has "Once upon a time" (SimpleStories,
/// Finke et al. 2025, arXiv 2504.09184).
const OPENING_WORDS: usize = 4;
/// Characters of an opening, for texts without spaces.
const OPENING_CHARACTERS_MAX: usize = 60;
/// Openings that are counted at once. One that is more frequent than 1 in so many is never missed, and no
/// count is too low by more than that.
const OPENINGS_MAX: usize = 4096;
/// Openings whose share is summed up.
const OPENINGS_TOP: usize = 50;
/// Openings that are named.
const OPENINGS_NAMED: usize = 5;
/// Texts of which the nearest to each is looked for among the others.
const SAMPLED_MAX: usize = 512;
/// Level 3 is what the parts are written with, too.
const ZSTD_LEVEL: i32 = 3;

/// What is known of the texts of one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    pub texts: u64,
    pub words: u64,
    /// Words of a text: of the 5 % shortest the longest, the median, of the 5 % longest the shortest.
    pub words_of_a_text: [u64; 3],
    /// Different n-grams of words by all, n = 1, 2, 3 (distinct-n, Li et al. 2016, arXiv 1510.03055); estimated
    /// with a standard error of 1.6 %.
    pub distinct: [f64; 3],
    /// Bytes by bytes compressed, all texts after each other, zstd level 3 (compression ratio, Shaib et al.
    /// 2024, arXiv 2403.00553, who take gzip). The higher, the more is repeated.
    pub compression: f64,
    /// The most frequent openings of four words, with the share of the texts that begin so.
    pub openings: Vec<(String, f64)>,
    /// Share of the texts that begin with one of the 50 most frequent openings.
    pub openings_top: f64,
    /// For texts drawn at random, at most 512: how similar the most similar other of them is, on average
    /// (Jaccard, runs of five words); nothing for fewer than two.
    pub nearest: Option<f64>,
    /// How many were drawn.
    pub nearest_of: u64,
}

/// The texts of one field so far.
pub struct Diversity {
    texts: u64,
    words: u64,
    lengths: BTreeMap<u64, u64>,
    distinct: [Sketch; 3],
    compressor: zstd::stream::write::Encoder<'static, Count>,
    bytes: u64,
    openings: Openings,
    /// The texts whose rows have the lowest hashes, as sets of shingles.
    sampled: BTreeMap<u64, Vec<u32>>,
    shingler: Shingler,
    hashes: Vec<u64>,
}

impl Diversity {
    /// # Errors
    /// When the compressor cannot be had: there is no memory.
    pub fn new() -> std::io::Result<Diversity> {
        Ok(Diversity {
            texts: 0,
            words: 0,
            lengths: BTreeMap::new(),
            distinct: Default::default(),
            compressor: zstd::stream::write::Encoder::new(Count::default(), ZSTD_LEVEL)?,
            bytes: 0,
            openings: Openings::default(),
            sampled: BTreeMap::new(),
            shingler: Shingler::default(),
            hashes: Vec::new(),
        })
    }

    /// `row` names the row; which texts are sampled hangs on it.
    pub fn add(&mut self, row: u64, text: &str) -> std::io::Result<()> {
        self.shingler.fill(Shingles::words(1), text, &mut self.hashes);
        let words = self.hashes.len() as u64;
        self.texts += 1;
        self.words += words;
        *self.lengths.entry(words).or_default() += 1;
        for (n, sketch) in (1..).zip(&mut self.distinct) {
            for window in self.hashes.windows(n) {
                sketch.add(mix(window.iter().fold(0, |sum: u64, word| sum.wrapping_mul(GOLDEN) ^ word)));
            }
        }
        self.bytes += text.len() as u64 + 1;
        self.compressor.write_all(text.as_bytes())?;
        self.compressor.write_all(b"\n")?;
        self.openings.add(opening(text));
        self.sample(mix(row ^ GOLDEN), text);
        Ok(())
    }

    fn sample(&mut self, place: u64, text: &str) {
        let full = self.sampled.len() == SAMPLED_MAX;
        if full && self.sampled.last_key_value().is_some_and(|(last, _)| *last < place) {
            return;
        }
        self.shingler.fill(Shingles::default(), text, &mut self.hashes);
        let mut set: Vec<u32> = self.hashes.iter().map(|hash| (hash >> 32) as u32).collect();
        set.sort_unstable();
        set.dedup();
        self.sampled.insert(place, set);
        if self.sampled.len() > SAMPLED_MAX {
            self.sampled.pop_last();
        }
    }

    pub fn numbers(self) -> std::io::Result<Numbers> {
        let ngrams = |n: u64| -> u64 {
            self.lengths.iter().map(|(words, texts)| (words + 1).saturating_sub(n) * texts).sum()
        };
        let all = [ngrams(1), ngrams(2), ngrams(3)];
        let distinct = [0, 1, 2].map(|n| share(self.distinct[n].estimate().min(all[n] as f64), all[n]));
        let compressed = self.compressor.finish()?.0;
        let (openings, openings_top) = self.openings.most_frequent(self.texts);
        Ok(Numbers {
            texts: self.texts,
            words: self.words,
            words_of_a_text: [0.05, 0.5, 0.95].map(|part| quantile(&self.lengths, self.texts, part)),
            distinct,
            compression: share(self.bytes as f64, compressed),
            openings,
            openings_top,
            nearest: nearest(&self.sampled),
            nearest_of: self.sampled.len() as u64,
        })
    }
}

/// Rounded, so that a manifest shows no noise.
fn share(part: f64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { rounded(part / of as f64) }
}

fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

/// The length that the given part of the texts does not exceed.
fn quantile(lengths: &BTreeMap<u64, u64>, texts: u64, part: f64) -> u64 {
    let mut left = (texts as f64 * part).ceil().max(1.0) as u64;
    for (length, count) in lengths {
        if *count >= left {
            return *length;
        }
        left -= count;
    }
    0
}

fn nearest(sampled: &BTreeMap<u64, Vec<u32>>) -> Option<f64> {
    let sets: Vec<&Vec<u32>> = sampled.values().filter(|set| !set.is_empty()).collect();
    if sets.len() < 2 {
        return None;
    }
    let mut most = vec![0.0_f64; sets.len()];
    for (left, set) in sets.iter().enumerate() {
        for (right, other) in sets.iter().enumerate().skip(left + 1) {
            let similarity = jaccard_from(set, other, 0.0).unwrap_or(0.0);
            most[left] = most[left].max(similarity);
            most[right] = most[right].max(similarity);
        }
    }
    Some(rounded(most.iter().sum::<f64>() / most.len() as f64))
}

/// The first words of a text, lower-cased.
pub fn opening(text: &str) -> String {
    let mut opening = String::new();
    for word in text.split_whitespace().take(OPENING_WORDS) {
        if !opening.is_empty() {
            opening.push(' ');
        }
        opening.extend(word.chars().take(OPENING_CHARACTERS_MAX).flat_map(char::to_lowercase));
    }
    match opening.char_indices().nth(OPENING_CHARACTERS_MAX) {
        Some((end, _)) => opening[..end].to_owned(),
        None => opening,
    }
}

/// Counts of the frequent openings (Misra and Gries 1982, Finding repeated elements).
#[derive(Default)]
struct Openings {
    counts: HashMap<String, u64>,
}

impl Openings {
    fn add(&mut self, opening: String) {
        if opening.is_empty() {
            return;
        }
        if let Some(count) = self.counts.get_mut(&opening) {
            *count += 1;
        } else if self.counts.len() < OPENINGS_MAX {
            self.counts.insert(opening, 1);
        } else {
            self.counts.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }

    /// The most frequent ones by their shares of the texts, and the share of all of the top.
    fn most_frequent(self, texts: u64) -> (Vec<(String, f64)>, f64) {
        let mut counts: Vec<(String, u64)> = self.counts.into_iter().collect();
        counts.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
        let top: u64 = counts.iter().take(OPENINGS_TOP).map(|(_, count)| count).sum();
        let named = counts.into_iter().take_while(|(_, count)| *count > 1).take(OPENINGS_NAMED);
        (named.map(|(words, count)| (words, share(count as f64, texts))).collect(), share(top as f64, texts))
    }
}

/// How many different hashes there were: HyperLogLog (Flajolet et al. 2007), 4,096 registers of one byte, so
/// that the standard error is 1.04 / 64 = 1.6 %.
struct Sketch {
    registers: Vec<u8>,
}

/// log2 of the registers.
const REGISTER_BITS: u32 = 12;

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch { registers: vec![0; 1 << REGISTER_BITS] }
    }
}

impl Sketch {
    fn add(&mut self, hash: u64) {
        let register = (hash >> (64 - REGISTER_BITS)) as usize;
        // The bit behind the hash bounds the count.
        let rank = ((hash << REGISTER_BITS) | (1 << (REGISTER_BITS - 1))).leading_zeros() as u8 + 1;
        self.registers[register] = self.registers[register].max(rank);
    }

    fn estimate(&self) -> f64 {
        let m = self.registers.len() as f64;
        let sum: f64 = self.registers.iter().map(|rank| (-f64::from(*rank)).exp2()).sum();
        // The constant for at least 128 registers, and linear counting where many are empty: section 4.
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let empty = self.registers.iter().filter(|rank| **rank == 0).count();
        if raw <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw }
    }
}

/// A writer that only counts.
#[derive(Default)]
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(texts: impl IntoIterator<Item = String>) -> Numbers {
        let mut diversity = Diversity::new().unwrap();
        for (row, text) in texts.into_iter().enumerate() {
            diversity.add(row as u64, &text).unwrap();
        }
        diversity.numbers().unwrap()
    }

    /// Words that look random, of a vocabulary of this size.
    fn text(seed: u64, words: u64, vocabulary: u64) -> String {
        let word = |place: u64| format!("w{}", mix(seed * 1000 + place) % vocabulary);
        (0..words).map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_same_over_and_over_shows_in_every_number() {
        let same =
            numbers((0..1000).map(|_| "Once upon a time there was a king who had a daughter.".to_owned()));
        let unlike = numbers((0..1000).map(|seed| text(seed, 12, 100_000)));
        assert_eq!((same.texts, same.words, same.words_of_a_text), (1000, 12_000, [12, 12, 12]));
        assert_eq!(same.openings, [("once upon a time".to_owned(), 1.0)]);
        assert_eq!((same.openings_top, same.nearest, same.nearest_of), (1.0, Some(1.0), 512));
        assert!(same.distinct[0] < 0.001 && same.compression > 50.0, "{same:?}");
        assert!(unlike.distinct[1] > 0.95 && unlike.compression < 4.0, "{unlike:?}");
        assert!(unlike.openings.is_empty() && unlike.openings_top < 0.06);
        assert_eq!(unlike.nearest, Some(0.0));
    }

    #[test]
    fn distinct_is_estimated_within_four_errors() {
        for different in [1_u64, 100, 4_000, 20_000, 300_000] {
            let words: Vec<String> = (0..different).map(|word| format!("w{word}")).collect();
            let found = numbers([words.join(" "), words.join(" ")]);
            let expected = 0.5;
            assert!((found.distinct[0] - expected).abs() < 0.064 * expected, "{different}: {found:?}");
        }
    }

    #[test]
    fn lengths_are_exact() {
        let found = numbers((1..=100).map(|words| text(7, words, 50)));
        assert_eq!(found.words_of_a_text, [5, 50, 95]);
    }

    #[test]
    fn a_frequent_opening_is_found_among_many_rare_ones() {
        let all = (0..50_000_u64).map(|row| match row % 20 {
            0 => "The sun hung low over the hills.".to_owned(),
            _ => text(row, 6, 1_000_000),
        });
        let (words, found) = numbers(all).openings.remove(0);
        // 5 %, and no count is too low by more than one in 4,097.
        assert_eq!(words, "the sun hung low");
        assert!((0.0497..=0.05).contains(&found), "{found}");
    }

    #[test]
    fn any_text_is_measured() {
        assert_eq!(numbers([]).nearest, None);
        let odd = ["", "\0", "\u{200b}\u{202e}", &"字".repeat(1000), &"a ".repeat(100_000), "\u{1f600}"];
        let found = numbers(odd.map(str::to_owned));
        assert_eq!(found.texts, 6);
        assert!(found.openings_top <= 1.0);
    }
}
