//! Reads the parts of a file that fastText saved, little-endian, version 12.

use super::{Matrix, NO_ROW};

/// First bytes of every file, little-endian, and the one version that is read.
pub const MAGIC: i32 = 793_712_314;
pub const VERSION: i32 = 12;

/// Labels begin with this in the file.
const LABEL_PREFIX: &str = "__label__";

/// Bounds that no model reaches which fits into memory, so that a broken file ends in a sentence.
const WORD_BYTES_MAX: usize = 1 << 16;
const NUMBERS_MAX: u64 = 1 << 31;
const BUCKETS_MAX: u32 = 1 << 26;
const GRAM_CHARS_MAX: usize = 64;

pub const SUPERVISED: i32 = 3;

/// What is in a file.
pub struct Saved {
    pub args: Args,
    pub dictionary: Dictionary,
    pub input: Matrix,
    pub output: Matrix,
}

impl Saved {
    /// The error is one sentence.
    pub fn read(bytes: &[u8]) -> Result<Saved, String> {
        let mut from = Reader { bytes };
        if from.i32()? != MAGIC {
            return Err("this is no fastText model".to_owned());
        }
        let version = from.i32()?;
        if version != VERSION {
            return Err(format!("the fastText model has version {version}; {VERSION} can be read"));
        }
        let args = Args::read(&mut from)?;
        let dictionary = Dictionary::read(&mut from, &args)?;
        let quantised = from.bool()?;
        let input = from.matrix(quantised, args.width)?;
        let packed = from.bool()?;
        let output = from.matrix(quantised && packed, args.width)?;
        Ok(Saved { args, dictionary, input, output })
    }
}

/// What the file says of how the model was trained, as far as it matters here.
pub struct Args {
    pub width: usize,
    pub loss: i32,
    pub buckets: u32,
    pub shortest: usize,
    pub longest: usize,
}

impl Args {
    fn read(from: &mut Reader<'_>) -> Result<Args, String> {
        let mut args = [0; 12];
        for arg in &mut args {
            *arg = from.i32()?;
        }
        from.take(8)?; // the sampling threshold, a double
        let [width, _, _, _, _, word_grams, loss, model, buckets, shortest, longest, _] = args;
        if model != SUPERVISED {
            return Err("the fastText model gives vectors, not labels".to_owned());
        }
        if word_grams > 1 {
            return Err("the fastText model looks at runs of words, which is not supported".to_owned());
        }
        let number = |value: i32| {
            usize::try_from(value).map_err(|_| "the fastText model is damaged: a negative size".to_owned())
        };
        let (width, buckets) = (number(width)?, number(buckets)? as u32);
        let (shortest, longest) = (number(shortest)?, number(longest)?);
        if width == 0 || buckets > BUCKETS_MAX || longest > GRAM_CHARS_MAX {
            return Err("the fastText model is damaged: impossible sizes".to_owned());
        }
        Ok(Args { width, loss, buckets, shortest, longest })
    }
}

/// Words and labels, both in the order of their rows.
pub struct Dictionary {
    pub words: Vec<Box<[u8]>>,
    pub labels: Vec<String>,
    pub label_counts: Vec<i64>,
    pub kept: Option<Vec<u32>>,
}

impl Dictionary {
    fn read(from: &mut Reader<'_>, args: &Args) -> Result<Dictionary, String> {
        let (entries, words, _) = (from.i32()?, from.i32()?, from.i32()?);
        from.take(8)?; // tokens of the training text
        let pruned = from.i64()?;
        let mut found = Dictionary { words: vec![], labels: vec![], label_counts: vec![], kept: None };
        for _ in 0..entries {
            let word = from.word()?;
            let count = from.i64()?;
            if from.take(1)? == [0] {
                found.words.push(word.into());
            } else {
                let label = String::from_utf8_lossy(word).into_owned();
                found.labels.push(label.strip_prefix(LABEL_PREFIX).unwrap_or(&label).to_owned());
                found.label_counts.push(count);
            }
        }
        if usize::try_from(words) != Ok(found.words.len()) {
            return Err("the fastText model is damaged: it has not the words that it counts".to_owned());
        }
        // -1: nothing was pruned. 0: everything was.
        if pruned >= 0 {
            let mut kept = vec![NO_ROW; args.buckets as usize];
            for _ in 0..pruned {
                let (bucket, row) = (from.i32()?, from.i32()?);
                if let Some(place) = usize::try_from(bucket).ok().and_then(|bucket| kept.get_mut(bucket)) {
                    *place = words.wrapping_add(row).cast_unsigned();
                }
            }
            found.kept = Some(kept);
        }
        Ok(found)
    }
}

/// Takes numbers off the front of a file.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let ended = || "the fastText model ends too early; was it copied whole?".to_owned();
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(ended)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn bool(&mut self) -> Result<bool, String> {
        Ok(self.take(1)? != [0])
    }

    fn i32(&mut self) -> Result<i32, String> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, String> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// The bytes before the next NUL.
    fn word(&mut self) -> Result<&'a [u8], String> {
        let end = self.bytes.iter().take(WORD_BYTES_MAX).position(|byte| *byte == 0);
        let end = end.ok_or("the fastText model is damaged: a word without an end")?;
        let word = self.take(end)?;
        self.take(1)?;
        Ok(word)
    }

    fn floats(&mut self, count: usize) -> Result<Vec<f32>, String> {
        let bytes = self.take(count.saturating_mul(4))?;
        let float = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        Ok(bytes.chunks_exact(4).map(float).collect())
    }

    fn matrix(&mut self, quantised: bool, width: usize) -> Result<Matrix, String> {
        let matrix = if quantised { self.quantised()? } else { self.dense()? };
        if matrix.width == width {
            Ok(matrix)
        } else {
            Err("the fastText model is damaged: vectors of two lengths".to_owned())
        }
    }

    /// Rows and columns, of a matrix that can be held.
    fn shape(&mut self) -> Result<(usize, usize), String> {
        let (rows, width) = (self.i64()?, self.i64()?);
        let wrong = || "the fastText model is damaged: a table of impossible size".to_owned();
        let (rows, width) =
            (u64::try_from(rows).map_err(|_| wrong())?, u64::try_from(width).map_err(|_| wrong())?);
        if width == 0 || rows.checked_mul(width).is_none_or(|numbers| numbers > NUMBERS_MAX) {
            return Err(wrong());
        }
        Ok((rows as usize, width as usize))
    }

    fn dense(&mut self) -> Result<Matrix, String> {
        let (rows, width) = self.shape()?;
        Ok(Matrix { width, numbers: self.floats(rows * width)? })
    }

    /// A matrix whose rows are lists of codes, a code for a few columns; and their lengths, if kept apart.
    fn quantised(&mut self) -> Result<Matrix, String> {
        let apart = self.bool()?;
        let (rows, width) = self.shape()?;
        let size = usize::try_from(self.i32()?).unwrap_or_default();
        let codes = self.take(size)?;
        let book = Book::read(self, width)?;
        let lengths = if apart { Some((self.take(rows)?, Book::read(self, 1)?)) } else { None };
        if codes.len() != rows * book.parts {
            return Err("the fastText model is damaged: a row without codes".to_owned());
        }
        let mut numbers = Vec::with_capacity(rows * width);
        for (row, codes) in codes.chunks_exact(book.parts).enumerate() {
            let length = match &lengths {
                Some((of_row, lengths)) => lengths.part(0, of_row[row]).first().copied().unwrap_or(1.0),
                None => 1.0,
            };
            for (part, code) in codes.iter().enumerate() {
                numbers.extend(book.part(part, *code).iter().map(|number| number * length));
            }
        }
        Ok(Matrix { width, numbers })
    }
}

/// What codes stand for: of each part of a row, 256 runs of numbers.
struct Book {
    parts: usize,
    /// Columns of a part, and of the last one.
    columns: usize,
    columns_last: usize,
    numbers: Vec<f32>,
}

pub const CODES: usize = 256;

impl Book {
    fn read(from: &mut Reader<'_>, width: usize) -> Result<Book, String> {
        let mut sizes = [0; 4];
        for size in &mut sizes {
            *size = usize::try_from(from.i32()?).unwrap_or_default();
        }
        let [whole, parts, columns, columns_last] = sizes;
        let split =
            parts.checked_sub(1).and_then(|full| full.checked_mul(columns)?.checked_add(columns_last));
        if whole != width || split != Some(width) {
            return Err("the fastText model is damaged: codes for other columns".to_owned());
        }
        Ok(Book { parts, columns, columns_last, numbers: from.floats(width * CODES)? })
    }

    fn part(&self, part: usize, code: u8) -> &[f32] {
        let columns = if part + 1 == self.parts { self.columns_last } else { self.columns };
        let start = part * CODES * self.columns + usize::from(code) * columns;
        self.numbers.get(start..start + columns).unwrap_or_default()
    }
}
