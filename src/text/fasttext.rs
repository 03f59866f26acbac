//! Reads classifiers that fastText saved (`.bin` and the quantised `.ftz`), and labels texts with them.
//!
//! Only what a supervised model needs to predict: the dictionary, the vectors of words and of their
//! n-grams, and the output layer of `softmax` or of `hs`. The format is that of version 12, which fastText
//! writes since 0.1.0 (its `fasttext.cc`, `dictionary.cc`, `quantmatrix.cc`). A quantised matrix is unpacked
//! when it is read: 50,000 vectors of 16 numbers take 3 MB.

use std::collections::HashMap;

mod file;

use file::Saved;

/// Numbers in `args.h` for what a model was trained as.
const HIERARCHICAL: i32 = 1;
const SOFTMAX: i32 = 3;

/// What stands for the end of a line, and around a word whose n-grams are taken.
const END_OF_LINE: &[u8] = b"</s>";
const WORD_BEGIN: u8 = b'<';
const WORD_END: u8 = b'>';

/// A label and its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess<'a> {
    pub label: &'a str,
    pub probability: f32,
}

/// A classifier of texts.
pub struct Model {
    labels: Vec<String>,
    words: HashMap<Box<[u8]>, u32>,
    /// For each word, the rows of the input that stand for it: its own and those of its n-grams.
    word_rows: Vec<Vec<u32>>,
    grams: Grams,
    input: Matrix,
    output: Matrix,
    layer: Layer,
}

/// How n-grams of characters become rows of the input.
struct Grams {
    shortest: usize,
    longest: usize,
    buckets: u32,
    /// Number of words: the rows before those of n-grams.
    words: u32,
    /// For each bucket its row, for models that kept only some; `NO_ROW` for the others.
    kept: Option<Vec<u32>>,
}

const NO_ROW: u32 = u32::MAX;

struct Matrix {
    width: usize,
    numbers: Vec<f32>,
}

impl Matrix {
    fn row(&self, index: usize) -> &[f32] {
        self.numbers.get(index * self.width..(index + 1) * self.width).unwrap_or_default()
    }

    fn rows(&self) -> usize {
        self.numbers.len() / self.width
    }

    fn dot(&self, index: usize, vector: &[f32]) -> f32 {
        self.row(index).iter().zip(vector).map(|(a, b)| a * b).sum()
    }
}

/// What the output layer makes of the mean vector.
enum Layer {
    Softmax,
    /// A binary tree over the labels: inner node `i` has the two children `children[i]`; numbers below
    /// that of the labels are labels, the others inner nodes. The root is the last one.
    Tree(Vec<[u32; 2]>),
}

impl Model {
    /// Reads a saved model. The error is one sentence.
    pub fn read(bytes: &[u8]) -> Result<Model, String> {
        let Saved { args, dictionary, input, output } = Saved::read(bytes)?;
        let grams = Grams {
            shortest: args.shortest,
            longest: args.longest,
            buckets: args.buckets,
            words: dictionary.words.len() as u32,
            kept: dictionary.kept,
        };
        let layer = match args.loss {
            SOFTMAX => Layer::Softmax,
            HIERARCHICAL => Layer::Tree(tree(&dictionary.label_counts)),
            _ => return Err("the fastText model has another loss than `softmax` and `hs`".to_owned()),
        };
        let rows = input.rows();
        let model = Model {
            word_rows: word_rows(&dictionary.words, &grams, rows)?,
            words: dictionary.words.into_iter().zip(0..).collect(),
            labels: dictionary.labels,
            grams,
            input,
            output,
            layer,
        };
        model.fits()?;
        Ok(model)
    }

    /// Whether the matrices have the rows that labels and n-grams point at.
    fn fits(&self) -> Result<(), String> {
        let needed = match &self.layer {
            Layer::Softmax => self.labels.len(),
            Layer::Tree(children) => children.len(),
        };
        let grams = match &self.grams.kept {
            Some(kept) => kept.iter().filter(|row| **row != NO_ROW).max().map_or(0, |row| *row as usize + 1),
            None if self.grams.longest == 0 => 0,
            None => (u64::from(self.grams.words) + u64::from(self.grams.buckets)) as usize,
        };
        if self.labels.is_empty() || self.output.rows() < needed || self.input.rows() < grams {
            return Err("the fastText model is damaged: its tables do not fit together".to_owned());
        }
        Ok(())
    }

    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The most probable label of a text; `None` for a text of which the model knows nothing.
    ///
    /// Line ends are blanks, as `predict` of the Python package wants them. Time grows with the text's
    /// length alone; about 2 * (longest n-gram) look-ups a character.
    pub fn guess(&self, text: &str) -> Option<Guess<'_>> {
        let mut mean = Mean { sum: vec![0.0; self.input.width], rows: 0 };
        let mut buffer = Vec::new();
        for word in words(text.as_bytes()) {
            self.add(word, &mut buffer, &mut mean);
        }
        // Nothing but the end of the line was added: whatever came out would be about no text.
        if mean.rows == 0 {
            return None;
        }
        self.add(END_OF_LINE, &mut buffer, &mut mean);
        let vector = mean.vector();
        let (label, probability) = match &self.layer {
            Layer::Softmax => self.best_of_all(&vector),
            Layer::Tree(children) => self.best_leaf(children, &vector),
        };
        Some(Guess { label: self.labels.get(label)?, probability })
    }

    fn add(&self, word: &[u8], buffer: &mut Vec<u8>, mean: &mut Mean) {
        if let Some(known) = self.words.get(word) {
            for row in self.word_rows.get(*known as usize).into_iter().flatten() {
                mean.add(self.input.row(*row as usize));
            }
        } else {
            self.grams.each(word, buffer, |row| mean.add(self.input.row(row as usize)));
        }
    }

    fn best_of_all(&self, vector: &[f32]) -> (usize, f32) {
        let scores: Vec<f32> = (0..self.labels.len()).map(|label| self.output.dot(label, vector)).collect();
        let mut best = 0;
        for (label, score) in scores.iter().enumerate() {
            if *score > scores[best] {
                best = label;
            }
        }
        (best, 1.0 / scores.iter().map(|score| (score - scores[best]).exp()).sum::<f32>())
    }

    /// The leaf with the largest product of the probabilities on its way; branches that are below the best
    /// leaf already are not followed.
    fn best_leaf(&self, children: &[[u32; 2]], vector: &[f32]) -> (usize, f32) {
        let labels = self.labels.len();
        let mut best = (0, 0.0);
        let mut open = vec![(labels + children.len() - 1, 1.0_f32)];
        while let Some((node, probability)) = open.pop() {
            if probability <= best.1 {
                continue;
            }
            let Some(inner) = node.checked_sub(labels) else {
                best = (node, probability);
                continue;
            };
            let right = 1.0 / (1.0 + (-self.output.dot(inner, vector)).exp());
            let [left_child, right_child] = children[inner];
            let mut ways = [(left_child, 1.0 - right), (right_child, right)];
            // The likelier one is looked at first: it is put on the stack last.
            ways.sort_by(|a, b| a.1.total_cmp(&b.1));
            open.extend(ways.map(|(child, share)| (child as usize, probability * share)));
        }
        best
    }
}

/// Runs of bytes without white space or NUL, as fastText splits a line.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t' | 0x0b | 0x0c | 0);
    text.split(blank).filter(|word| !word.is_empty())
}

/// A mean of rows.
struct Mean {
    sum: Vec<f32>,
    rows: u32,
}

impl Mean {
    fn add(&mut self, row: &[f32]) {
        for (sum, number) in self.sum.iter_mut().zip(row) {
            *sum += number;
        }
        self.rows += 1;
    }

    fn vector(mut self) -> Vec<f32> {
        self.sum.iter_mut().for_each(|sum| *sum /= self.rows as f32);
        self.sum
    }
}

impl Grams {
    /// The rows of the n-grams of `<word>`, without a `<` or `>` that stands alone.
    fn each(&self, word: &[u8], buffer: &mut Vec<u8>, mut found: impl FnMut(u32)) {
        if self.longest == 0 {
            return;
        }
        buffer.clear();
        buffer.push(WORD_BEGIN);
        buffer.extend_from_slice(word);
        buffer.push(WORD_END);
        for start in (0..buffer.len()).filter(|at| starts_char(buffer[*at])) {
            let mut hash = FNV_START;
            let mut end = start;
            for length in 1..=self.longest {
                if end == buffer.len() {
                    break;
                }
                loop {
                    hash = fnv(hash, buffer[end]);
                    end += 1;
                    if buffer.get(end).is_none_or(|byte| starts_char(*byte)) {
                        break;
                    }
                }
                let is_edge = length == 1 && (start == 0 || end == buffer.len());
                if length >= self.shortest && !is_edge {
                    self.row(hash).into_iter().for_each(&mut found);
                }
            }
        }
    }

    fn row(&self, hash: u32) -> Option<u32> {
        let bucket = hash.checked_rem(self.buckets)?;
        match &self.kept {
            Some(kept) => kept.get(bucket as usize).copied().filter(|row| *row != NO_ROW),
            None => Some(self.words + bucket),
        }
    }
}

fn starts_char(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// 32-bit FNV-1a, with fastText's slip: bytes are signed.
const FNV_START: u32 = 2_166_136_261;

fn fnv(hash: u32, byte: u8) -> u32 {
    (hash ^ byte.cast_signed() as u32).wrapping_mul(16_777_619)
}

/// The rows of each word; `</s>` has no n-grams.
fn word_rows(words: &[Box<[u8]>], grams: &Grams, rows: usize) -> Result<Vec<Vec<u32>>, String> {
    let mut buffer = Vec::new();
    let rows_of = |(row, word): (u32, &[u8])| {
        let mut rows = vec![row];
        if word != END_OF_LINE {
            grams.each(word, &mut buffer, |row| rows.push(row));
        }
        rows
    };
    if rows < words.len() {
        return Err("the fastText model is damaged: words without vectors".to_owned());
    }
    Ok((0..).zip(words.iter().map(|word| &**word)).map(rows_of).collect())
}

/// The Huffman tree over labels that come most frequent first, as `loss.cc` builds it.
fn tree(counts: &[i64]) -> Vec<[u32; 2]> {
    let mut leaves = (0..counts.len()).rev().peekable();
    let mut inner_counts: Vec<i64> = Vec::new();
    let mut unused = 0;
    let mut children = Vec::new();
    for _ in 1..counts.len() {
        let mut total = 0_i64;
        let mut pair = [0; 2];
        for child in &mut pair {
            let inner = inner_counts.get(unused).copied();
            let leaf = leaves.next_if(|leaf| inner.is_none_or(|count| counts[*leaf] < count));
            let count = match leaf {
                Some(leaf) => {
                    *child = leaf as u32;
                    counts[leaf]
                }
                None => {
                    *child = (counts.len() + unused) as u32;
                    unused += 1;
                    inner.unwrap_or_default()
                }
            };
            total = total.saturating_add(count);
        }
        inner_counts.push(total);
        children.push(pair);
    }
    children
}

/// A model of two languages for tests: it knows the words `der` and `the`, and no n-grams.
#[cfg(test)]
pub fn sample_model() -> Vec<u8> {
    tests::Sample::default().bytes()
}

#[cfg(test)]
mod tests {
    use super::file::{CODES, MAGIC, SUPERVISED, VERSION};
    use super::*;
    use proptest::prelude::*;

    /// What a test model is written from. Words are `</s>`, `der`, `the`; labels `de`, `en`.
    pub struct Sample {
        loss: i32,
        model: i32,
        word_grams: i32,
        buckets: i32,
        grams: [i32; 2],
        pruned: Option<Vec<[i32; 2]>>,
        /// Vectors of the words, then those of buckets.
        input: Vec<[f32; 2]>,
        output: Vec<[f32; 2]>,
        quantised: bool,
    }

    impl Default for Sample {
        fn default() -> Sample {
            Sample {
                loss: HIERARCHICAL,
                model: SUPERVISED,
                word_grams: 1,
                buckets: 0,
                grams: [0, 0],
                pruned: None,
                input: vec![[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]],
                output: vec![[6.0, -6.0], [0.0, 0.0]],
                quantised: false,
            }
        }
    }

    impl Sample {
        pub fn bytes(&self) -> Vec<u8> {
            let mut out = Vec::new();
            let ints = |numbers: &[i32], out: &mut Vec<u8>| {
                numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
            };
            ints(&[MAGIC, VERSION], &mut out);
            let [shortest, longest] = self.grams;
            let args =
                [2, 5, 5, 1, 5, self.word_grams, self.loss, self.model, self.buckets, shortest, longest, 100];
            ints(&args, &mut out);
            out.extend(0.0_f64.to_le_bytes());
            ints(&[5, 3, 2], &mut out);
            out.extend(100_i64.to_le_bytes());
            out.extend(self.pruned.as_ref().map_or(-1, |pruned| pruned.len() as i64).to_le_bytes());
            let entries = [
                ("</s>", 50, 0),
                ("der", 9, 0),
                ("the", 8, 0),
                ("__label__de", 40, 1),
                ("__label__en", 10, 1),
            ];
            for (word, count, kind) in entries {
                out.extend(word.bytes().chain([0]));
                out.extend(i64::from(count).to_le_bytes());
                out.push(kind);
            }
            for pair in self.pruned.iter().flatten() {
                ints(pair, &mut out);
            }
            out.push(u8::from(self.quantised));
            if self.quantised {
                packed(&self.input, &mut out);
            } else {
                dense(&self.input, &mut out);
            }
            out.push(0);
            dense(&self.output, &mut out);
            out
        }

        fn read(&self) -> Model {
            Model::read(&self.bytes()).unwrap()
        }
    }

    fn dense(rows: &[[f32; 2]], out: &mut Vec<u8>) {
        out.extend((rows.len() as i64).to_le_bytes().into_iter().chain(2_i64.to_le_bytes()));
        rows.iter().flatten().for_each(|number| out.extend(number.to_le_bytes()));
    }

    /// A row's code is its index; its length is kept apart, as 2 for all.
    fn packed(rows: &[[f32; 2]], out: &mut Vec<u8>) {
        let count = rows.len();
        let book = |columns: i32, numbers: &mut dyn Iterator<Item = f32>, out: &mut Vec<u8>| {
            for size in [columns, 1, columns, columns] {
                out.extend(size.to_le_bytes());
            }
            numbers.for_each(|number| out.extend(number.to_le_bytes()));
        };
        out.push(1);
        out.extend((count as i64).to_le_bytes().into_iter().chain(2_i64.to_le_bytes()));
        out.extend((count as i32).to_le_bytes());
        out.extend(0..count as u8);
        let halves = rows.iter().flatten().map(|number| number / 2.0);
        book(2, &mut halves.chain(std::iter::repeat(0.0)).take(2 * CODES), out);
        out.extend(std::iter::repeat_n(0, count));
        book(1, &mut std::iter::repeat_n(2.0, CODES), out);
    }

    fn check(model: &Model, text: &str, expected: Option<(&str, f32)>) {
        let guess = model.guess(text).map(|guess| (guess.label, (guess.probability * 1e4).round() / 1e4));
        assert_eq!(guess, expected, "{text:?}");
    }

    #[test]
    fn words_choose_the_label() {
        // The mean of a word and of the line's end, times 6: a logistic of 3.
        for (sample, sure) in [
            (Sample::default(), 0.9526),
            (Sample { quantised: true, ..Sample::default() }, 0.9526),
            (Sample { loss: SOFTMAX, output: vec![[6.0, 0.0], [0.0, 6.0]], ..Sample::default() }, 0.9526),
        ] {
            let model = sample.read();
            assert_eq!(model.labels(), ["de", "en"]);
            check(&model, "der", Some(("de", sure)));
            check(&model, " the\n", Some(("en", sure)));
            check(&model, "der the the", Some(("en", 0.8176)));
            check(&model, "der\0die", Some(("de", sure)));
            check(&model, "das", None);
            check(&model, "", None);
        }
    }

    /// Of the n-grams of `<ab>` with 2 characters, `<a`, `ab` and `b>`, those in the same bucket as `ab`
    /// have a vector that says English.
    #[test]
    fn unknown_words_are_known_by_their_ngrams() {
        let bucket = b"ab".iter().fold(FNV_START, |hash, byte| fnv(hash, *byte)) % 1000;
        let mut input = vec![[0.0; 2]; 1003];
        input[3 + bucket as usize] = [0.0, 4.0];
        let all = Sample { buckets: 1000, grams: [2, 2], input, ..Sample::default() };
        check(&all.read(), "ab", Some(("en", 0.9975)));
        check(&all.read(), "\u{e9}", Some(("de", 0.5)));
        let pruned = Sample {
            pruned: Some(vec![[bucket.cast_signed(), 0]]),
            input: vec![[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]],
            ..all
        };
        check(&pruned.read(), "ab", Some(("en", 0.9526)));
        check(&pruned.read(), "xyz", None);
    }

    #[test]
    fn bytes_are_hashed_as_signed() {
        // 0xffffffc3 and 0xffffffa9 go into the hash, as in fastText's `Dictionary::hash`.
        let plain = |hash: u32, byte: u32| (hash ^ byte).wrapping_mul(16_777_619);
        let expected = plain(plain(FNV_START, 0xffff_ffc3), 0xffff_ffa9);
        assert_eq!("é".bytes().fold(FNV_START, fnv), expected);
    }

    #[test]
    fn the_tree_joins_the_rarest_first() {
        assert_eq!(tree(&[50, 20, 10, 5]), [[3, 2], [4, 1], [5, 0]]);
        assert_eq!(tree(&[7]), [[0; 2]; 0]);
    }

    fn check_broken(sample: &Sample, expected: &str) {
        assert_eq!(Model::read(&sample.bytes()).err().as_deref(), Some(expected));
    }

    #[test]
    fn other_models_are_refused() {
        assert_eq!(Model::read(b"PAR1PAR1").err().as_deref(), Some("this is no fastText model"));
        check_broken(
            &Sample { model: 1, ..Sample::default() },
            "the fastText model gives vectors, not labels",
        );
        let runs = "the fastText model looks at runs of words, which is not supported";
        check_broken(&Sample { word_grams: 2, ..Sample::default() }, runs);
        let loss = "the fastText model has another loss than `softmax` and `hs`";
        check_broken(&Sample { loss: 2, ..Sample::default() }, loss);
        let short = Sample { input: vec![[0.0; 2]; 2], ..Sample::default() };
        check_broken(&short, "the fastText model is damaged: words without vectors");
        let lost = Sample { output: vec![], ..Sample::default() };
        check_broken(&lost, "the fastText model is damaged: its tables do not fit together");
    }

    proptest! {
        #[test]
        fn broken_files_end_in_a_sentence(cut in 0_usize..900, at in 0_usize..900, byte: u8) {
            let mut bytes = Sample { quantised: true, ..Sample::default() }.bytes();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let read = Model::read(&bytes);
            if let Ok(model) = &read {
                model.guess("der ab");
            }
            bytes.truncate(cut);
            prop_assert!(Model::read(&bytes).is_err());
        }
    }
}
