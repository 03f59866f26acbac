//! The texts that thresholds are measured on: written for textmill, none of them from a benchmark.

const PAIRS: &str = include_str!("pairs.txt");
const NEGATIVES: &str = include_str!("negatives.txt");

/// Pairs of a text and the same in other words.
pub fn pairs() -> Vec<(&'static str, &'static str)> {
    PAIRS.split("\n--- pair\n").filter_map(|pair| pair.split_once("\n=== other words\n")).collect()
}

/// Texts that no benchmark has: the functions of libraries, and prose.
pub fn negatives() -> Vec<&'static str> {
    NEGATIVES.split("\n--- text\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_the_documentation_says() {
        assert_eq!((pairs().len(), negatives().len()), (22, 56));
        assert!(pairs().iter().all(|(text, other)| text.len() > 40 && other.len() > 40));
    }
}
