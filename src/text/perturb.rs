//! Copies of a text with a few words changed, for measuring what a search for near duplicates finds.
//!
//! The same seed gives the same copy. Measures nothing itself.

use super::shingles::{GOLDEN, mix};

/// White space is this rare only in scripts without it: then characters are changed, not words.
const BYTES_OF_A_WORD_MAX: usize = 40;

/// The words of a text, or its characters where it has no words, each with the white space after it.
fn parts(text: &str) -> Vec<&str> {
    let words: Vec<&str> = text.split_inclusive(char::is_whitespace).collect();
    if words.len() * BYTES_OF_A_WORD_MAX >= text.len() {
        return words;
    }
    let ends = text.char_indices().map(|(at, c)| at..at + c.len_utf8());
    ends.map(|range| &text[range]).collect()
}

/// A copy in which about this share of the words is dropped, doubled with a letter more, or changes places with the
/// next one, as often one as the other.
pub fn perturbed(text: &str, share: f64, seed: u64) -> String {
    let mut parts = parts(text);
    let mut copy = String::with_capacity(text.len() + text.len() / 8);
    for at in 0..parts.len() {
        let draw = mix(seed.wrapping_add((at as u64 + 1).wrapping_mul(GOLDEN)));
        let part = parts[at];
        if (draw >> 11) as f64 / (1_u64 << 53) as f64 >= share {
            copy.push_str(part);
            continue;
        }
        match mix(draw) % 3 {
            0 => {}
            1 => {
                copy.push_str(part);
                copy.push('x');
                copy.push_str(part);
            }
            _ => match parts.get(at + 1) {
                Some(next) => {
                    copy.push_str(next);
                    parts[at + 1] = part;
                }
                None => copy.push_str(part),
            },
        }
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_the_wished_share_changes() {
        let text: String = (0..1_000).map(|number| format!("w{number} ")).collect();
        let words: Vec<&str> = text.split(' ').collect();
        assert_eq!(perturbed(&text, 0.0, 3), text);
        let copy = perturbed(&text, 0.1, 3);
        let lost = words.iter().filter(|word| !copy.split(' ').any(|other| other == **word)).count();
        assert!((20..=50).contains(&lost), "a third of a tenth is dropped: {lost}");
        assert_ne!(perturbed(&text, 0.1, 4), copy);
        assert_eq!(perturbed(&text, 0.1, 3), copy);
    }

    #[test]
    fn any_text_has_copies() {
        for text in
            ["", "a", " \n", "\0\0", "漢字だけの文章には空白がありませんのでこの文もそうです", "a\u{301}"]
        {
            for seed in 0..20 {
                perturbed(text, 0.5, seed);
            }
        }
        let text = "漢字だけの文章には空白がありませんのでこの文もそうです。長い文は長い。";
        assert!(perturbed(text, 0.2, 1) != text && perturbed(text, 0.2, 1).contains('漢'));
    }
}
