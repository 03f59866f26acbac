//! Whether a text contains an item of a benchmark: word by word, by the shape of its code, or in other words.
//!
//! - [`ngrams`]: verbatim, or with words inserted, left out and replaced.
//! - [`python`]: the same function under other names.
//! - [`passages`]: what of a text is compared by meaning.
//! - [`meaning`]: scores of vectors, and the threshold that is measured on pairs.

pub mod meaning;
pub mod ngrams;
pub mod passages;
pub mod python;
