//! Pure algorithms on texts and slices: no operators, no files, no rows, no time.

pub mod chunk;
pub mod code;
pub mod cosine;
pub mod decontaminate;
pub mod diversity;
pub mod extract;
pub mod fasttext;
pub mod json_repair;
pub mod language;
mod language_words;
pub mod lines;
pub mod lsh;
pub mod minhash;
pub mod normalize;
pub mod perturb;
pub mod pieces;
pub mod pii;
pub mod quality;
mod secrets;
pub mod shingles;
pub mod tidy;
pub mod tokens;
