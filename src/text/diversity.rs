//! How different from each other the texts of a dataset are, in numbers, measured as they come.
//!
//! Sees one text after another and keeps no more than a bounded sample of them and the counts of frequent
//! openings. Decides about no text. The same texts in the same order give the same numbers.

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
/// Texts that are measured: as many for every dataset, since the more texts there are, the less of their words
/// are new. Of longer ones the beginning: 32 MiB a field at the very most.
const SAMPLED_MAX: usize = 1024;
const SAMPLED_BYTES_MAX: usize = 32 << 10;
/// Of these, the texts of which the nearest to each is looked for among the others.
const NEAREST_MAX: usize = 256;
/// Level 3 is what the parts are written with, too.
const ZSTD_LEVEL: i32 = 3;

/// What is known of the texts of one field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    pub texts: u64,
    /// How many of them, drawn at random, were measured: 1,024 at most. The numbers from here on to
    /// `compression` are of these.
    pub measured: u64,
    pub words: u64,
    /// Words of a text: of the 5 % shortest the longest, the median, of the 5 % longest the shortest.
    pub words_of_a_text: [u64; 3],
    /// Different n-grams of words by all, n = 1, 2, 3 (distinct-n, Li et al. 2016, arXiv 1510.03055).
    pub distinct: [f64; 3],
    /// Bytes by bytes compressed, all texts after each other, zstd level 3 (compression ratio, Shaib et al.
    /// 2024, arXiv 2403.00553, who take gzip). The higher, the more is repeated.
    pub compression: f64,
    /// The most frequent openings of four words, with the share of all texts that begin so.
    pub openings: Vec<(String, f64)>,
    /// Share of all texts that begin with one of the 50 most frequent openings.
    pub openings_top: f64,
    /// For texts drawn at random, at most 256: how similar the most similar other of them is, on average
    /// (Jaccard, runs of five words); nothing for fewer than two.
    pub nearest: Option<f64>,
    /// How many were drawn.
    pub nearest_of: u64,
}

/// The texts of one field so far.
#[derive(Default)]
pub struct Diversity {
    texts: u64,
    openings: Openings,
    /// The texts whose rows have the lowest hashes.
    sampled: BTreeMap<u64, String>,
}

impl Diversity {
    /// `row` names the row; which texts are sampled hangs on it.
    pub fn add(&mut self, row: u64, text: &str) {
        self.texts += 1;
        self.openings.add(opening(text));
        let place = mix(row ^ GOLDEN);
        let full = self.sampled.len() == SAMPLED_MAX;
        if full && self.sampled.last_key_value().is_some_and(|(last, _)| *last < place) {
            return;
        }
        self.sampled.insert(place, text[..text.floor_char_boundary(SAMPLED_BYTES_MAX)].to_owned());
        if self.sampled.len() > SAMPLED_MAX {
            self.sampled.pop_last();
        }
    }

    /// # Errors
    /// When the compressor cannot be had: there is no memory.
    pub fn numbers(self) -> std::io::Result<Numbers> {
        let mut compressor = zstd::stream::write::Encoder::new(Count::default(), ZSTD_LEVEL)?;
        let mut shingler = Shingler::default();
        let (mut hashes, mut words, mut bytes) = (Vec::new(), 0, 0);
        let mut lengths: BTreeMap<u64, u64> = BTreeMap::new();
        let mut ngrams: [Vec<u64>; 3] = Default::default();
        for text in self.sampled.values() {
            shingler.fill(Shingles::words(1), text, &mut hashes);
            words += hashes.len() as u64;
            *lengths.entry(hashes.len() as u64).or_default() += 1;
            for (n, all) in (1..).zip(&mut ngrams) {
                let hash = |window: &[u64]| {
                    mix(window.iter().fold(0, |sum: u64, word| sum.wrapping_mul(GOLDEN) ^ word))
                };
                all.extend(hashes.windows(n).map(hash));
            }
            bytes += text.len() + 1;
            compressor.write_all(text.as_bytes())?;
            compressor.write_all(b"\n")?;
        }
        let compressed = compressor.finish()?.0;
        let (openings, openings_top) = self.openings.most_frequent(self.texts);
        let measured = self.sampled.len() as u64;
        Ok(Numbers {
            texts: self.texts,
            measured,
            words,
            words_of_a_text: [0.05, 0.5, 0.95].map(|part| quantile(&lengths, measured, part)),
            distinct: ngrams.map(different),
            compression: share(bytes as f64, compressed),
            openings,
            openings_top,
            nearest: nearest(self.sampled.values().take(NEAREST_MAX), &mut shingler),
            nearest_of: measured.min(NEAREST_MAX as u64),
        })
    }
}

/// The share of different ones.
fn different(mut hashes: Vec<u64>) -> f64 {
    let all = hashes.len() as u64;
    hashes.sort_unstable();
    hashes.dedup();
    share(hashes.len() as f64, all)
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

fn nearest<'a>(texts: impl Iterator<Item = &'a String>, shingler: &mut Shingler) -> Option<f64> {
    let mut hashes = Vec::new();
    let set = |text: &String| {
        shingler.fill(Shingles::default(), text, &mut hashes);
        let mut set: Vec<u32> = hashes.iter().map(|hash| (hash >> 32) as u32).collect();
        set.sort_unstable();
        set.dedup();
        set
    };
    let sets: Vec<Vec<u32>> = texts.map(set).filter(|set| !set.is_empty()).collect();
    if sets.len() < 2 {
        return None;
    }
    let mut most = vec![0.0_f64; sets.len()];
    for (left, set) in sets.iter().enumerate() {
        for (right, other) in sets.iter().enumerate().skip(left + 1) {
            let least = most[left].min(most[right]);
            let Some(similarity) = jaccard_from(set, other, least) else { continue };
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
        let mut diversity = Diversity::default();
        for (row, text) in texts.into_iter().enumerate() {
            diversity.add(row as u64, &text);
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
        assert_eq!((same.openings_top, same.nearest, same.nearest_of), (1.0, Some(1.0), 256));
        assert!(same.distinct[0] < 0.001 && same.compression > 50.0, "{same:?}");
        assert!(unlike.distinct[1] > 0.95 && unlike.compression < 4.0, "{unlike:?}");
        assert!(unlike.openings.is_empty() && unlike.openings_top < 0.06);
        assert_eq!(unlike.nearest, Some(0.0));
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
        assert_eq!((found.texts, found.measured), (6, 6));
        assert!(found.openings_top <= 1.0);
        let long = numbers(["word ".repeat(1_000_000)]);
        assert_eq!((long.texts, long.words), (1, 6_554));
    }
}
