//! `unit: lines` and `unit: paragraphs`: pieces of texts that were there before are cut out.
//!
//! A fold decides which pieces of a row go, in row order, and leaves that in a field of textmill's own; a map then
//! cuts them out, on all cores.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{DedupExact, Seen, is_same};
use crate::kit::Kit;
use crate::ops::against::{Against, Saved};
use crate::ops::text_field::TextField;
use crate::ops::{Decision, FoldKey, FoldRow, FoldState, MapRow, Runner};
use crate::row::{FieldPath, Fields, Outcome, Reason, Row, RowId};
use crate::store::Entry;
use crate::text::normalize::Normalization;
use crate::text::pieces::{Unit, pieces, without};

/// What the fold leaves in a row for the map: which pieces go and who had the first of them.
const MARK: &str = "textmill_cut";

/// The runners of a `dedup_exact` of pieces.
pub fn build(op: &DedupExact, kit: &Kit, unit: Unit, path: &str) -> anyhow::Result<Vec<Runner>> {
    let [words_min, characters_min] = op.least();
    let counting = Counting { unit, normalize: op.normalize, words_min, characters_min };
    let entry = |one: &Against, fields: &Fields| {
        let there = FieldPath::parse(one.field.as_deref().unwrap_or(path));
        Some(counting.entry(there.text(fields)?))
    };
    let saved = Saved::open(&op.against, kit, "pieces", &op.settings(), &[path], &entry)?;
    let fold = Marking { field: TextField::new(path), counting, saved: saved.clone() };
    let map = Cutting { field: TextField::new(path), counting, saved, op: op.clone() };
    Ok(vec![Runner::Fold(Box::new(fold)), Runner::Map(Box::new(map))])
}

/// Which pieces of a text count, and what they are told apart by.
#[derive(Clone, Copy)]
struct Counting {
    unit: Unit,
    normalize: Normalization,
    words_min: usize,
    characters_min: usize,
}

impl Counting {
    /// The numbers and digests of the pieces that count.
    fn digests(&self, text: &str) -> Vec<(usize, [u64; 2])> {
        let digest = |(number, piece): (usize, crate::text::pieces::Piece<'_>)| {
            let body = piece.text.trim();
            let long = body.split_whitespace().count() >= self.words_min
                && body.chars().count() >= self.characters_min;
            let digest = self.normalize.digest(body);
            (long && !body.is_empty()).then_some((number, [(digest >> 64) as u64, digest as u64]))
        };
        pieces(text, self.unit).into_iter().enumerate().filter_map(digest).collect()
    }

    /// All pieces of a text: their digests' upper halves are the keys, the lower ones the content, as many.
    fn entry(&self, text: &str) -> Entry {
        let digests = self.digests(text);
        let keys = digests.iter().map(|(_, [key, _])| *key).collect();
        let content = digests.iter().flat_map(|(_, digest)| digest.map(u64::to_le_bytes)).flatten().collect();
        Entry { keys, content }
    }
}

/// The place of data that is there already which has a piece.
fn found(saved: &Saved, digest: [u64; 2]) -> Option<Value> {
    let [key, other] = digest;
    let has = |content: &[u8]| {
        let mut pairs = content.chunks_exact(16);
        pairs.any(|pair| pair[..8] == key.to_le_bytes() && is_same(&pair[8..], other).is_some()).then_some(())
    };
    saved.find(&[key], has).map(|(evidence, ())| evidence)
}

struct Marking {
    field: TextField,
    counting: Counting,
    saved: Option<Arc<Saved>>,
}

impl FoldRow for Marking {
    /// Of each piece that counts its number and digest; the highest bit of the number says that data which is there
    /// already has it.
    fn key(&self, row: &Row) -> Result<FoldKey, Reason> {
        let text = self.field.of(&row.fields)?;
        let mut key = Vec::new();
        for (number, digest) in self.counting.digests(text) {
            let is_there = self.saved.as_ref().is_some_and(|saved| found(saved, digest).is_some());
            key.push(number as u64 | if is_there { IS_THERE } else { 0 });
            key.extend(digest);
        }
        Ok(key)
    }

    fn start(&self) -> Box<dyn FoldState> {
        Box::new(SeenPieces(Seen { saved: self.saved.clone(), ..Seen::default() }))
    }
}

const IS_THERE: u64 = 1 << 63;

/// The first row of every piece.
struct SeenPieces(Seen);

impl FoldState for SeenPieces {
    fn decide(&mut self, row: &RowId, key: FoldKey) -> Decision {
        let mut cut: Vec<u64> = Vec::new();
        let mut first = Value::Null;
        for piece in key.chunks_exact(3) {
            let earlier = if piece[0] & IS_THERE == 0 {
                self.0.earlier([piece[1], piece[2]], row)
            } else {
                Some(String::new())
            };
            if let Some(earlier) = earlier {
                if cut.is_empty() && !earlier.is_empty() {
                    first = Value::from(earlier);
                }
                cut.push(piece[0] & !IS_THERE);
            }
        }
        if cut.is_empty() {
            return Decision::Keep;
        }
        let mark = json!({"cut": cut, "first": first});
        Decision::KeepWith([(MARK.to_owned(), mark)].into_iter().collect())
    }

    fn report(&self) -> Option<Value> {
        self.0.report()
    }
}

struct Cutting {
    field: TextField,
    counting: Counting,
    saved: Option<Arc<Saved>>,
    op: DedupExact,
}

impl Cutting {
    /// Why a row goes of which nothing is left.
    fn reason(&self, text: &str, cut: &[usize], first: Value) -> Reason {
        let mut evidence = json!({"unit": self.op.unit.name(), "cut": cut.len()});
        if first.is_null() {
            let digests = self.counting.digests(text);
            let digest = digests.iter().find(|(number, _)| cut.first() == Some(number));
            let there =
                self.saved.as_ref().zip(digest).and_then(|(saved, (_, digest))| found(saved, *digest));
            if let (Value::Object(evidence), Some(Value::Object(mut there))) = (&mut evidence, there) {
                evidence.append(&mut there);
            }
        } else {
            evidence["duplicate_of"] = first;
        }
        Reason::new("duplicate", evidence)
    }
}

impl MapRow for Cutting {
    fn map(&self, mut row: Row) -> Outcome {
        let mark = row.fields.shift_remove(MARK).unwrap_or_default();
        let numbers = mark["cut"].as_array().into_iter().flatten();
        let cut: Vec<usize> = numbers.filter_map(|number| usize::try_from(number.as_u64()?).ok()).collect();
        if !cut.is_empty() {
            let text = match self.field.of(&row.fields) {
                Ok(text) => text.to_owned(),
                Err(reason) => return Outcome::Reject(row, reason),
            };
            let left = without(&text, self.counting.unit, &cut);
            if left.trim().is_empty() {
                let reason = self.reason(&text, &cut, mark["first"].clone());
                return Outcome::Reject(row, reason);
            }
            if let Some(value) = self.field.path().value_mut(&mut row.fields) {
                *value = Value::from(left);
            }
        }
        if let Some(into) = &self.op.into {
            row.fields.insert(into.clone(), Value::from(cut.len()));
        }
        Outcome::Keep(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture;

    /// What becomes of rows with these texts: what is left of them and how many pieces went, or why they go.
    fn check(more: Value, texts: &[&str], expected: Value) {
        let folder = tempfile::tempdir().unwrap();
        let config = fixture::with(json!({"field": "page.text", "into": "cut"}), more);
        let op: DedupExact = serde_json::from_value(config).unwrap();
        let runners = crate::ops::Operator::build(&op, &fixture::kit(folder.path())).unwrap();
        let [Runner::Fold(fold), Runner::Map(map)] = &runners[..] else { panic!("a fold and a map") };
        let mut state = fold.start();
        let end = |(number, text): (usize, &&str)| {
            let mut row = fixture::row(&number.to_string(), &json!({"page": {"text": text}}));
            let key = fold.key(&row).unwrap();
            if let Decision::KeepWith(mut fields) = state.decide(&row.id, key) {
                row.fields.append(&mut fields);
            }
            match map.map(row) {
                Outcome::Keep(row) => json!([row.fields["page"]["text"], row.fields["cut"]]),
                Outcome::Reject(_, reason) => json!({"code": reason.code, "evidence": reason.evidence}),
                other => panic!("{other:?}"),
            }
        };
        let ends: Value = texts.iter().enumerate().map(end).collect();
        assert_eq!(ends, expected);
    }

    #[test]
    fn lines_that_were_there_are_cut_out() {
        let menu = "Home About Contact Blog Sign in";
        check(
            json!({"unit": "lines"}),
            &[
                &format!("{menu}\nOne story that nobody knows yet.\nThe end\n"),
                &format!("{menu}\nAnother story that nobody knows yet.\nThe end\n  {menu}  \n"),
                &format!("{menu}\n\n{menu}"),
                "",
                "The end\nThe end",
            ],
            json!([
                [format!("{menu}\nOne story that nobody knows yet.\nThe end\n"), 0],
                ["Another story that nobody knows yet.\nThe end\n", 2],
                {"code": "duplicate", "evidence": {"unit": "lines", "cut": 2, "duplicate_of": "0"}},
                ["", 0],
                ["The end\nThe end", 0],
            ]),
        );
    }

    #[test]
    fn short_pieces_stay_and_paragraphs_go_as_a_whole() {
        check(
            json!({"unit": "paragraphs", "min_words": 1, "min_characters": 3}),
            &["a b\nc d\n\nno\n\nx y z", "c d\n\na b\n c d\n\nno\n\nend", "a  b c d"],
            json!([
                ["a b\nc d\n\nno\n\nx y z", 0],
                ["c d\n\nno\n\nend", 1],
                {"code": "duplicate", "evidence": {"unit": "paragraphs", "cut": 1, "duplicate_of": "0"}},
            ]),
        );
    }

    #[test]
    fn hostile_texts_take_their_time_and_no_more() {
        let lines = "the same five words again\n".repeat(200_000);
        let words = "word ".repeat(1_000_000);
        let expected =
            json!([["the same five words again\n", 199_999], [words, 0], ["\u{0}\u{0} \n\u{0}", 0]]);
        check(json!({"unit": "lines"}), &[&lines, &words, "\0\0 \n\0"], expected);
    }
}
