//! No file makes the loader panic: random bytes, a right file with random edits, and real files with random
//! edits through the whole check.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::check;
use super::decode::{Decoded, decode};
use super::doubt::Doubts;
use super::file::PipelineFile;
use super::render::{SourceMap, render};
use super::tests::{check, shown};
use super::yaml;
use crate::problem::{KeyPath, Place, Problem, Severity};
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

/// Where a piece is put in, how many characters it replaces, and the piece.
type Edit = (usize, usize, &'static str);

/// Edits that people and accidents make: each takes out some of the text and puts a piece in.
fn edits(length: usize) -> impl Strategy<Value = Vec<Edit>> {
    let pieces = [
        "", "\n", " ", "\t", ":", ": ", "- ", "&a ", "*a", "!t ", "{", "}", "[", "]", ",", "|", ">", "'",
        "\"", "\\", "#", "---\n", "\r\n", "\0", "\u{feff}", "é", "?", "%", "<<: ", "~", "1_0", "9e999",
        "\u{85}", "\r",
    ];
    proptest::collection::vec((0..length, 0..4_usize, proptest::sample::select(pieces.to_vec())), 1..6)
}

fn edited(text: &str, edits: Vec<Edit>) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for (at, gone, piece) in edits {
        let at = at.min(text.len());
        let end = (at + gone).min(text.len());
        text.splice(at..end, piece.chars());
    }
    text.into_iter().collect()
}

/// The pipelines of this repository, the broken ones too, each with the folder that its paths are relative to.
static REAL: LazyLock<Vec<(PathBuf, String)>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["pipelines/*.yaml", "tests/problems/*.yaml"].into_iter().flat_map(|pattern| {
        glob::glob(&format!("{}/{pattern}", glob::Pattern::escape(&root.to_string_lossy()))).unwrap()
    });
    let read = |path: PathBuf| {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        (path.parent().unwrap().to_owned(), text)
    };
    files.map(|path| read(path.unwrap())).collect()
});

/// Checks a text as `textmill check` does; what it says hangs together.
fn check_whole(text: &str, base: &Path) {
    let loaded = yaml::load(text.as_bytes());
    let Some(root) = &loaded.root else {
        assert!(!loaded.problems.is_empty());
        return;
    };
    let mut problems = loaded.problems.clone();
    let Decoded { value, problems: found, doubts } = decode::<PipelineFile>(root, &KeyPath::root());
    assert_eq!(doubts.is_empty(), found.is_empty());
    problems.extend(found);
    if let Some(file) = value {
        let (pipeline, found) = check::check(file, &Doubts::new(root, doubts), base);
        problems.extend(found);
        let is_sound = problems.iter().all(|problem| problem.severity != Severity::Error);
        assert!(pipeline.is_some() || !is_sound, "it is not sound and nothing is said");
    }
    let sources = SourceMap { name: "x.yaml", text: &loaded.text, overrides: &[], line_of: &|_, _| None };
    render(&problems, Some(root), &sources, false);
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
    fn edited_files_are_read_without_a_panic(edits in edits(VALID.len()), start in 0..VALID.len()) {
        let shown = shown(edited(VALID, edits).as_bytes(), &[], &pointers(start));
        prop_assert!(shown.contains("problem"));
    }

    #[test]
    fn edited_real_files_are_checked_without_a_panic(
        file in any::<proptest::sample::Index>(),
        edits in edits(2000),
    ) {
        let (base, text) = file.get(&REAL);
        let length = text.chars().count().max(1);
        let edits = edits.into_iter().map(|(at, gone, piece)| (at % length, gone, piece)).collect();
        check_whole(&edited(text, edits), base);
    }
}
