//! Token counts and token boundaries, with OpenAI's published vocabularies. Loaded once per process
//! (tens of MB, some tenths of a second); nothing is downloaded. Never counts for money: a
//! teacher's own usage numbers do that.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tiktoken_rs::CoreBPE;

/// Which vocabulary to count with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// GPT-4o and later.
    #[default]
    O200kBase,
    /// GPT-3.5, GPT-4.
    Cl100kBase,
}

/// Longest text given to the encoder at once. Its regular expressions backtrack, and give up (by a
/// panic) after about a million steps inside one word or one run of spaces.
const SEGMENT_BYTES_MAX: usize = 32 << 10;

/// How many tokens a text is. Special tokens such as `<|endoftext|>` count as plain text.
///
/// Exact, except for texts with 32 KiB without any space or line end between letters: each such
/// stretch may count a token too many.
pub fn count(encoding: Encoding, text: &str) -> usize {
    let encoder = encoder(encoding);
    segments(text).map(|segment| encoder.count_ordinary(segment)).sum()
}

/// The byte offset at which each token of a text ends, ascending; the last is the text's length.
/// An offset may lie inside a character, since tokens are bytes.
pub fn token_ends(encoding: Encoding, text: &str) -> Vec<usize> {
    let encoder = encoder(encoding);
    let mut ends = Vec::with_capacity(text.len() / 4);
    let mut end = 0;
    for segment in segments(text) {
        for token in encoder.encode_ordinary(segment) {
            // Every token that the encoder gives out is in its own table.
            end += encoder.decode_bytes(&[token]).map_or(0, |bytes| bytes.len());
            ends.push(end);
        }
    }
    ends
}

fn encoder(encoding: Encoding) -> &'static CoreBPE {
    match encoding {
        Encoding::O200kBase => tiktoken_rs::o200k_base_singleton(),
        Encoding::Cl100kBase => tiktoken_rs::cl100k_base_singleton(),
    }
}

/// Cuts a text into pieces of at most [`SEGMENT_BYTES_MAX`], where it can at places that no token
/// crosses in either vocabulary.
fn segments(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let (segment, rest) = text.split_at(segment_end(text));
        text = rest;
        Some(segment)
    })
}

fn segment_end(text: &str) -> usize {
    if text.len() <= SEGMENT_BYTES_MAX {
        return text.len();
    }
    let bytes = text.as_bytes();
    // A word ends before a single space and a letter; a line end never joins the letter behind it.
    let clean = |at: &usize| match (bytes[at - 1], bytes[*at]) {
        (before, b' ') => before.is_ascii_alphabetic() && bytes[at + 1].is_ascii_alphabetic(),
        (b'\n', after) => after.is_ascii_alphabetic(),
        _ => false,
    };
    (1..SEGMENT_BYTES_MAX).rev().find(clean).unwrap_or_else(|| text.floor_char_boundary(SEGMENT_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Encoding; 2] = [Encoding::O200kBase, Encoding::Cl100kBase];

    #[test]
    fn counts_match_the_published_vocabularies() {
        assert_eq!(count(Encoding::Cl100kBase, "tiktoken is great!"), 6);
        assert_eq!(count(Encoding::O200kBase, ""), 0);
        assert_eq!(token_ends(Encoding::Cl100kBase, "tiktoken is great!"), [1, 3, 8, 11, 17, 18]);
        assert_eq!(serde_json::to_string(&Encoding::O200kBase).unwrap(), "\"o200k_base\"");
        assert_eq!(serde_json::to_string(&Encoding::Cl100kBase).unwrap(), "\"cl100k_base\"");
    }

    #[test]
    fn long_texts_count_the_same_in_segments() {
        let text = "The sum of two numbers,\n  written as 1 + 2.\n".repeat(1200);
        for encoding in BOTH {
            assert!(segments(&text).count() > 1);
            assert_eq!(count(encoding, &text), encoder(encoding).count_ordinary(&text));
            assert_eq!(token_ends(encoding, &text).last(), Some(&text.len()));
        }
    }

    #[test]
    fn runs_without_boundaries_do_not_panic() {
        for piece in [" ", "A", "字", "\n ", "a1", "!"] {
            let text = piece.repeat((70 << 10) / piece.len());
            for encoding in BOTH {
                assert_eq!(token_ends(encoding, &text).len(), count(encoding, &text), "{piece:?}");
            }
        }
    }
}
