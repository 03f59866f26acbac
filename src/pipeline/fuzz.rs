//! No file makes the loader panic: random bytes, and a right file with random edits.

use super::tests::{check, shown};
use crate::problem::{KeyPath, Place, Problem};
use proptest::prelude::*;

#[test]
fn right_files_have_no_problems() {
    check(VALID.as_bytes(), &["steps.0.generate.stop=[a, b]"], "");
}

const VALID: &str = "
# A file with a bit of everything.
name: \"it's \\u00e9\"
rows: 2_000
teachers:
  w: { model: gpt-4.1, max_tokens: 2k, temperature: 1, stream: true, timeout: 1h 30m }
steps:
  - generate:
      teacher: w
      prompt: |
        Write about {{ topic }}.

        Be brief.
      scale: [1, 5]
  - keep_if: >-
      grade
      >= 4
  - split: { on: words, max: 1e2 }
  - shuffle
save: { parquet: out, columns: [a, 012, ~, true, -1.5] }
";

/// Edits that people and accidents make: each takes out some of the text and puts a piece in.
fn edits() -> impl Strategy<Value = Vec<(usize, usize, &'static str)>> {
    let pieces = [
        "", "\n", " ", "\t", ":", ": ", "- ", "&a ", "*a", "!t ", "{", "}", "[", "]", ",", "|", ">", "'",
        "\"", "\\", "#", "---\n", "\r\n", "\0", "\u{feff}", "é", "?", "%", "<<: ", "~", "1_0", "9e999",
        "\u{85}", "\r",
    ];
    proptest::collection::vec((0..VALID.len(), 0..4_usize, proptest::sample::select(pieces.to_vec())), 1..6)
}

/// Problems that point everywhere in a file, as later checks might.
fn pointers(start: usize) -> Vec<Problem> {
    let path = |text: &str| KeyPath::parse(text);
    let places = [
        Place::Bytes(start..start + 7),
        Place::Inside(path("name"), start % 11..start % 17),
        Place::Inside(path("steps.0.generate.prompt"), start % 40..start % 50),
        Place::Inside(path("steps.1.keep_if"), start % 13..start % 19),
        Place::Key(path("steps.0.generate")),
    ];
    places.into_iter().map(|place| Problem::error(place, "here")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, text in "[a-c:{}\\[\\], \n\t'\"|>&*!#-]{0,60}") {
        shown(&bytes, &[&text], &pointers(bytes.len()));
        shown(text.as_bytes(), &["name=x", &format!("name={text}")], &pointers(3));
    }

    #[test]
    fn edited_files_are_read_without_a_panic(edits in edits(), start in 0..VALID.len()) {
        let mut text: Vec<char> = VALID.chars().collect();
        for (at, gone, piece) in edits {
            let at = at.min(text.len());
            let end = (at + gone).min(text.len());
            text.splice(at..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        let shown = shown(text.as_bytes(), &[], &pointers(start));
        prop_assert!(shown.contains("problem"));
    }
}
