//! Lines and paragraphs of a text, and the text without some of them.
//!
//! Decides about no piece: what repeats itself is somebody else's business.

use std::ops::Range;

use crate::text::lines::lines;

/// What a text is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Runs of lines that are not blank.
    Paragraphs,
    /// Every line, blank ones too.
    Lines,
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Without the line end.
    pub text: &'a str,
    /// Where it stands, with its line end and the blank lines after it.
    range: Range<usize>,
}

/// The pieces of a text, in order.
pub fn pieces(text: &str, unit: Unit) -> Vec<Piece<'_>> {
    let mut found: Vec<Piece<'_>> = Vec::new();
    let mut open = false;
    for line in lines(text) {
        let body_end = line.start + line.text.len();
        let blank = line.is_blank();
        match found.last_mut() {
            Some(piece) if unit == Unit::Paragraphs && (open || blank) => {
                piece.range.end = line.end;
                if !blank {
                    piece.text = &text[piece.range.start..body_end];
                }
            }
            // Blank lines before the first paragraph belong to none.
            None if unit == Unit::Paragraphs && blank => {}
            _ => found.push(Piece { text: line.text, range: line.start..line.end }),
        }
        open = !blank;
    }
    found
}

/// The text without the pieces of these numbers, which ascend. What then stands at the end ends as the whole did:
/// with a line end or without.
pub fn without(text: &str, unit: Unit, cut: &[usize]) -> String {
    let pieces = pieces(text, unit);
    let mut cut = cut.iter().copied().peekable();
    let mut left = String::with_capacity(text.len());
    left.push_str(&text[..pieces.first().map_or(text.len(), |piece| piece.range.start)]);
    let mut last_is_cut = false;
    for (number, piece) in pieces.iter().enumerate() {
        last_is_cut = cut.next_if_eq(&number).is_some();
        if !last_is_cut {
            left.push_str(&text[piece.range.clone()]);
        }
    }
    if last_is_cut {
        left.truncate(left.trim_end().len());
        if text.ends_with('\n') && !left.is_empty() {
            left.push('\n');
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(unit: Unit, text: &str, expected: &[&str], cut: &[usize], left: &str) {
        let found: Vec<&str> = pieces(text, unit).into_iter().map(|piece| piece.text).collect();
        assert_eq!(found, expected, "{text:?}");
        assert_eq!(without(text, unit, cut), left, "{text:?} without {cut:?}");
    }

    #[test]
    fn pieces_are_lines_or_paragraphs() {
        use Unit::{Lines, Paragraphs};
        check(Lines, "a\r\n\nb", &["a", "", "b"], &[0], "\nb");
        check(Lines, "a\nb\nc", &["a", "b", "c"], &[2], "a\nb");
        check(Lines, "a\nb\n", &["a", "b"], &[1], "a\n");
        check(Lines, "a", &["a"], &[0], "");
        check(Lines, "", &[], &[], "");
        check(Paragraphs, "\n a\nb\n\n\nc\n \nd", &[" a\nb", "c", "d"], &[1], "\n a\nb\n\n\nd");
        check(Paragraphs, "a\n\nb\n\n", &["a", "b"], &[1], "a\n");
        check(Paragraphs, "a\n\nb", &["a", "b"], &[0, 1], "");
        check(Paragraphs, " \n\n", &[], &[], " \n\n");
    }

    proptest! {
        /// Nothing is lost but what is cut, and nothing changes where nothing is.
        #[test]
        fn what_is_not_cut_stays(text in "([a-c \r\0]|\n){0,40}", which in any::<u64>()) {
            for unit in [Unit::Lines, Unit::Paragraphs] {
                let all = pieces(&text, unit);
                prop_assert_eq!(without(&text, unit, &[]), &text[..]);
                let cut: Vec<usize> = (0..all.len()).filter(|number| which >> (number % 64) & 1 == 1).collect();
                let left = without(&text, unit, &cut);
                let stays = all.iter().enumerate().filter(|(number, _)| !cut.contains(number));
                let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
                let expected: Vec<String> = stays.flat_map(|(_, piece)| words(piece.text)).collect();
                prop_assert_eq!(words(&left), expected);
            }
        }
    }
}
