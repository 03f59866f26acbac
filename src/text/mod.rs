//! Pure algorithms on texts and slices: no operators, no files, no rows, no time.

pub mod chunk;
pub mod decontaminate;
pub mod extract;
pub mod json_repair;
pub mod lines;
pub mod lsh;
pub mod minhash;
pub mod normalize;
pub mod quality;
pub mod shingles;
pub mod tokens;
