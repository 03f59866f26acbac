//! Items found word by word: anchors from an index of n-grams, then an alignment that allows for edits.
//!
//! A text is its words: runs of letters, digits and `_`, lower case; punctuation and layout do not count. A *target*
//! is one part of an item (its question, its answer). Where `n` words in a row of a text are also in a target,
//! the two are laid beside each other and the words of the target that the text has in the same order are
//! weighed by how rare they are among the targets. The share of the weight that is found is the score.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

/// How items are found.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Words of an anchor.
    pub n: usize,
    /// The least score of a target of [`LENIENT_WORDS`] words and more.
    pub threshold: f64,
    /// Targets with fewer words are passed over.
    pub words_min: usize,
    /// The most targets that share an anchor; n-grams of more are common and start no comparison.
    pub targets_max: usize,
}

/// From this length on a target needs no more than the threshold. Shorter ones need more, all of it at the least
/// length, but for one edit.
const LENIENT_WORDS: usize = 50;

/// Shorter targets are let off no edit.
const EDITED_WORDS_MIN: usize = 15;

/// Anchors that a target keeps however common they are: its rarest.
const ANCHORS_MIN: usize = 4;

/// Most words of a target that are compared; of a longer one, its beginning.
const TARGET_WORDS_MAX: usize = 2_000;

/// Most matches of one text that are told.
const MATCHES_MAX: usize = 8;

const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;

/// A word: what it is, and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    pub hash: u64,
    pub start: usize,
    pub end: usize,
}

/// The words of a text, in order.
pub fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::with_capacity(text.len() / 6);
    let mut lower = Vec::with_capacity(32);
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        lower.clear();
        while at < bytes.len() {
            let byte = bytes[at];
            if byte.is_ascii_alphanumeric() || byte == b'_' {
                lower.push(byte.to_ascii_lowercase());
                at += 1;
            } else if byte < 0x80 {
                break;
            } else {
                // The index is at the start of a character: only whole ones were passed.
                let Some(letter) = text[at..].chars().next() else { break };
                if is_invisible(letter) {
                    at += letter.len_utf8();
                    continue;
                }
                if !letter.is_alphanumeric() {
                    break;
                }
                let mut buffer = [0; 4];
                letter.to_lowercase().for_each(|c| lower.extend(c.encode_utf8(&mut buffer).bytes()));
                at += letter.len_utf8();
            }
        }
        if !lower.is_empty() {
            words.push(Word { hash: xxh3_64(&lower), start, end: at });
        }
        if at == start {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    words
}

/// Characters that nobody sees, which would hide a word: zero-width ones, soft hyphens, marks of direction.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A part of an item: its words and what each weighs.
struct Target {
    item: u32,
    part: u32,
    words: Vec<u64>,
    weights: Vec<f32>,
    needed: f64,
    /// Where the words stand in the part, for evidence.
    spans: Vec<(u32, u32)>,
}

/// A place where an item was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    pub item: usize,
    /// The index of the part among the parts that were given.
    pub part: usize,
    /// The share of the part's weight that the text has, 0 to 1.
    pub score: f64,
    /// The score that the part takes.
    pub needed: f64,
    /// Bytes of the text.
    pub text: Range<usize>,
    /// Bytes of the part.
    pub reference: Range<usize>,
}

/// The n-grams of all targets.
pub struct Index {
    settings: Settings,
    targets: Vec<Target>,
    /// Where the anchors of an n-gram stand in `anchors`.
    grams: HashMap<u64, (u32, u32)>,
    /// Target and position.
    anchors: Vec<(u32, u32)>,
    /// A bit for each hash that may be in `grams`, so that most of a text costs no look-up.
    sieve: Vec<u64>,
}

impl Index {
    /// `parts` are item, index of the part, text. The same part is kept once; n-grams of `background`
    /// texts are common.
    pub fn new<'a>(
        settings: Settings,
        parts: impl IntoIterator<Item = (usize, usize, &'a str)>,
        background: &[&str],
    ) -> Index {
        let mut targets: Vec<Target> = Vec::new();
        let mut seen = HashSet::new();
        for (item, part, text) in parts {
            let mut found = words(text);
            found.truncate(TARGET_WORDS_MAX);
            if found.len() < settings.words_min.max(settings.n) {
                continue;
            }
            let hashes: Vec<u64> = found.iter().map(|word| word.hash).collect();
            if seen.insert(text) {
                let spans = found.iter().map(|word| (word.start as u32, word.end as u32)).collect();
                let (item, part) = (item as u32, part as u32);
                targets.push(Target { item, part, words: hashes, weights: Vec::new(), needed: 0.0, spans });
            }
        }
        drop(seen);
        weigh(&mut targets, &settings);
        let mut index =
            Index { settings, targets, grams: HashMap::new(), anchors: Vec::new(), sieve: Vec::new() };
        index.anchor(background);
        index
    }

    pub fn targets(&self) -> usize {
        self.targets.len()
    }

    /// About how many bytes the index takes.
    pub fn bytes(&self) -> usize {
        let target = |target: &Target| size_of::<Target>() + target.words.len() * (8 + 4 + 8);
        self.targets.iter().map(target).sum::<usize>()
            + self.grams.capacity() * (size_of::<(u64, (u32, u32))>() + 1)
            + self.anchors.len() * 8
            + self.sieve.len() * 8
    }

    fn anchor(&mut self, background: &[&str]) {
        let n = self.settings.n;
        let mut common: HashMap<u64, usize> = HashMap::new();
        for text in background {
            let hashes: Vec<u64> = words(text).iter().map(|word| word.hash).collect();
            grams(&hashes, n).for_each(|(_, gram)| *common.entry(gram).or_default() = usize::MAX / 2);
        }
        for target in &self.targets {
            let mut own: Vec<u64> = grams(&target.words, n).map(|(_, gram)| gram).collect();
            own.sort_unstable();
            own.dedup();
            own.iter().for_each(|gram| *common.entry(*gram).or_default() += 1);
        }
        let mut found: Vec<(u64, u32, u32)> = Vec::new();
        for (number, target) in self.targets.iter().enumerate() {
            let mut own: Vec<(usize, u32, u64)> = grams(&target.words, n)
                .map(|(at, gram)| (common.get(&gram).copied().unwrap_or(0), at as u32, gram))
                .collect();
            own.sort_unstable();
            for (rank, (shared, at, gram)) in own.into_iter().enumerate() {
                if shared <= self.settings.targets_max || rank < ANCHORS_MIN {
                    found.push((gram, number as u32, at));
                }
            }
        }
        found.sort_unstable();
        // Of an n-gram that many targets keep, the first few: a bound on what one word of a text costs.
        let most = self.settings.targets_max * 4;
        for run in found.chunk_by(|a, b| a.0 == b.0) {
            let start = self.anchors.len() as u32;
            self.anchors.extend(run.iter().take(most).map(|(_, target, at)| (*target, *at)));
            self.grams.insert(run[0].0, (start, self.anchors.len() as u32));
        }
        self.sieve = vec![0; (self.grams.len() * 16).next_power_of_two().max(1024) / 64];
        for gram in self.grams.keys() {
            let bit = self.bit(*gram);
            self.sieve[bit / 64] |= 1 << (bit % 64);
        }
    }

    fn bit(&self, gram: u64) -> usize {
        (gram >> 7) as usize & (self.sieve.len() * 64 - 1)
    }

    /// The items that a text contains, best first, each item once.
    pub fn find(&self, text: &str) -> Vec<Match> {
        let words = words(text);
        let hashes: Vec<u64> = words.iter().map(|word| word.hash).collect();
        let mut best: HashMap<u32, Match> = HashMap::new();
        // Up to where a target was already compared.
        let mut done: HashMap<u32, usize> = HashMap::new();
        for (at, gram) in grams(&hashes, self.settings.n) {
            let bit = self.bit(gram);
            if self.sieve[bit / 64] & (1 << (bit % 64)) == 0 {
                continue;
            }
            let Some((start, end)) = self.grams.get(&gram) else { continue };
            for (number, inside) in &self.anchors[*start as usize..*end as usize] {
                if done.get(number).is_some_and(|until| at < *until) {
                    continue;
                }
                let target = &self.targets[*number as usize];
                // The next try is far enough on that no word is compared more than some six times.
                done.insert(*number, at + 1 + target.words.len() / 4);
                let Some(found) = align(target, &hashes, at, *inside as usize) else { continue };
                done.insert(*number, found.text.end.max(at + 1));
                let (first, last) =
                    (target.spans[found.reference.start], target.spans[found.reference.end - 1]);
                let found = Match {
                    text: words[found.text.start].start..words[found.text.end - 1].end,
                    reference: first.0 as usize..last.1 as usize,
                    ..found
                };
                match best.entry(target.item) {
                    Entry::Vacant(vacant) => drop(vacant.insert(found)),
                    Entry::Occupied(mut held) if held.get().score < found.score => drop(held.insert(found)),
                    Entry::Occupied(_) => {}
                }
            }
        }
        let mut matches: Vec<Match> = best.into_values().collect();
        matches.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
        matches.truncate(MATCHES_MAX);
        matches
    }
}

/// The hash of each run of `n` words, with where it starts.
fn grams(words: &[u64], n: usize) -> impl Iterator<Item = (usize, u64)> {
    let first = (1..n).fold(1_u64, |power, _| power.wrapping_mul(PRIME));
    let mut rolling = 0_u64;
    words.iter().enumerate().filter_map(move |(at, word)| {
        if at >= n {
            rolling = rolling.wrapping_sub(words[at - n].wrapping_mul(first));
        }
        rolling = rolling.wrapping_mul(PRIME).wrapping_add(*word);
        (at + 1 >= n).then(|| (at + 1 - n, rolling))
    })
}

/// Gives each word the logarithm of how few targets have it, and each target what it needs.
fn weigh(targets: &mut [Target], settings: &Settings) {
    let mut counts: HashMap<u64, u32> = HashMap::new();
    for target in targets.iter() {
        let mut own = target.words.clone();
        own.sort_unstable();
        own.dedup();
        own.into_iter().for_each(|word| *counts.entry(word).or_default() += 1);
    }
    let all = targets.len() as f64;
    for target in targets.iter_mut() {
        let weight = |word: &u64| (1.0 + all / f64::from(counts[word])).ln() as f32;
        target.weights = target.words.iter().map(weight).collect();
        let total: f32 = target.weights.iter().sum();
        // What stands between two spaces may be two words: `mg/kg`, `Rose's`.
        let heaviest = target.weights.windows(2).map(|pair| pair[0] + pair[1]).fold(0.0_f32, f32::max);
        let length = target.words.len();
        let span = LENIENT_WORDS.saturating_sub(settings.words_min).max(1);
        let short = LENIENT_WORDS.saturating_sub(length).min(span) as f64 / span as f64;
        let strict = settings.threshold + (1.0 - settings.threshold) * short;
        // One edit is let off: it must not hide an item. Of a very short part nothing is: with a word less it
        // is what anybody may write.
        let edited = if length < EDITED_WORDS_MIN { 1.0 } else { 1.0 - f64::from(heaviest / total) };
        target.needed = strict.min(edited).max(0.0) - 1e-6;
    }
}

/// Lays a target beside a text where the text's word `at` is the target's word `inside`. The ranges count
/// words. The text may have some words more or fewer, everywhere together at most the band.
fn align(target: &Target, text: &[u64], at: usize, inside: usize) -> Option<Match> {
    let length = target.words.len();
    let band = 8 + length / 16;
    let width = 2 * band + 1;
    // Row by row of the target: the best weight with the text's words up to the diagonal's neighbour, and the
    // text's first and last word that count, and the target's.
    let mut before = vec![Cell::default(); width];
    let mut after = vec![Cell::default(); width];
    let diagonal = at as i64 - inside as i64;
    for row in 0..length {
        for column in 0..width {
            let position = diagonal + row as i64 + column as i64 - band as i64;
            let word = usize::try_from(position).ok().and_then(|position| text.get(position));
            // A word of the target that the text lacks; a word of the text that the target lacks.
            let mut best = before.get(column + 1).copied().unwrap_or_default();
            if column > 0 && after[column - 1].weight > best.weight {
                best = after[column - 1];
            }
            if word == Some(&target.words[row]) {
                let weight = before[column].weight + target.weights[row];
                if weight > best.weight {
                    best = before[column].with(weight, position as usize, row);
                }
            }
            after[column] = best;
        }
        std::mem::swap(&mut before, &mut after);
    }
    let best = before.into_iter().max_by(|a, b| a.weight.total_cmp(&b.weight))?;
    let total: f32 = target.weights.iter().sum();
    let score = f64::from(best.weight / total);
    (score >= target.needed && best.weight > 0.0).then(|| Match {
        item: target.item as usize,
        part: target.part as usize,
        score: (score.min(1.0) * 1e4).round() / 1e4,
        needed: target.needed,
        text: best.text.0 as usize..best.text.1 as usize + 1,
        reference: best.target.0 as usize..best.target.1 as usize + 1,
    })
}

#[derive(Clone, Copy, Default)]
struct Cell {
    weight: f32,
    /// The first and the last word that count.
    text: (u32, u32),
    target: (u32, u32),
}

impl Cell {
    fn with(self, weight: f32, text: usize, target: usize) -> Cell {
        let (text, target) = (text as u32, target as u32);
        if self.weight == 0.0 {
            return Cell { weight, text: (text, text), target: (target, target) };
        }
        Cell { weight, text: (self.text.0, text), target: (self.target.0, target) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings { n: 5, threshold: 0.8, words_min: 10, targets_max: 8 };

    const ITEMS: [&str; 3] = [
        "Check if in given list of numbers, are any two numbers closer to each other than given threshold.",
        "Write a function that counts the vowels of a word; the letter y counts at the end only.",
        "too short to count",
    ];

    fn found(text: &str) -> Vec<(usize, f64)> {
        let parts = ITEMS.iter().enumerate().map(|(item, text)| (item, 0, *text));
        let index = Index::new(SETTINGS, parts, &[]);
        index.find(text).iter().map(|found| (found.item, found.score)).collect()
    }

    #[test]
    fn items_are_found_verbatim_and_with_one_edit_of_each_word() {
        let check = |item: usize, text: &str| {
            let found = found(&format!("Something before. {text} And after it."));
            assert_eq!(found.iter().map(|(item, _)| *item).collect::<Vec<_>>(), [item], "{text}");
        };
        for (item, text) in ITEMS[..2].iter().enumerate() {
            check(item, text);
            check(item, &text.to_uppercase());
            check(item, &text.replace(' ', "\n  * "));
            let words: Vec<&str> = text.split(' ').collect();
            for at in 0..words.len() {
                let with = |word: &str| {
                    let mut edited = words.clone();
                    edited[at] = word;
                    edited.join(" ")
                };
                check(item, &with(""));
                check(item, &with("something"));
                check(item, &with(&format!("{} inserted", words[at])));
                check(item, &with(&format!("({})!", words[at])));
            }
        }
    }

    #[test]
    fn what_nobody_sees_hides_nothing() {
        let hidden: String = ITEMS[0].chars().flat_map(|c| [c, '\u{200b}']).collect();
        assert_eq!(found(&hidden), [(0, 1.0)]);
        assert_eq!(words("\u{200b}\u{feff} \u{200b}").len(), 0);
        let found: Vec<(usize, usize)> =
            words("\u{200b}a\u{ad}b É_1").iter().map(|word| (word.start, word.end)).collect();
        assert_eq!(found, [(0, 7), (8, 12)]);
    }

    #[test]
    fn a_match_says_where_it_is() {
        let index = Index::new(SETTINGS, [(7, 3, ITEMS[0])], &[]);
        let text = format!("é {} z", ITEMS[0].replace("any two", "some two"));
        let found = &index.find(&text)[0];
        assert_eq!((found.item, found.part), (7, 3));
        assert_eq!(&text[found.text.clone()], text[3..].trim_end_matches(". z"));
        assert_eq!(&ITEMS[0][found.reference.clone()], ITEMS[0].trim_end_matches('.'));
    }

    #[test]
    fn what_only_begins_alike_is_not_found() {
        assert_eq!(
            found("Check if in given list of numbers, are all of them even or is one of them odd?"),
            []
        );
        assert_eq!(found(ITEMS[2]), []);
        assert_eq!(found(""), []);
    }

    #[test]
    fn common_runs_of_words_start_nothing_but_do_not_hide_an_item() {
        let text = |number: usize| format!("write a python function to find the {number} th value of it");
        let items: Vec<String> = (0..100).map(text).collect();
        let parts = items.iter().enumerate().map(|(item, text)| (item, 0, text.as_str()));
        let index = Index::new(SETTINGS, parts, &["in the same way as before"]);
        let found = index.find(&text(17));
        assert_eq!((found[0].item, found[0].score), (17, 1.0));
        assert_eq!(index.find("write a python function to find the smallest"), []);
    }

    #[test]
    fn hostile_texts_take_linear_time() {
        let word = "word ".repeat(40);
        let index = Index::new(SETTINGS, [(0, 0, word.as_str()), (1, 0, ITEMS[0])], &[]);
        assert_eq!(index.find(&"word ".repeat(500_000)).len(), 1);
        let almost = format!("{} x ", "word ".repeat(9)).repeat(20_000);
        assert!(index.find(&almost).len() < 2);
        assert_eq!(index.find(&"\0".repeat(1_000_000)), []);
        assert_eq!(index.find(&ITEMS[0].repeat(1_000))[0].item, 1);
        assert_eq!(index.find(&"漢字".repeat(100_000)), []);
    }
}
