//! The house: the direction of dependencies, and what only one place may do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Each layer may use those after it, never those before it.
const LAYERS: [&str; 20] = [
    "main", "cli", "run", "engine", "pipeline", "ops", "kit", "axes", "shape", "call", "teacher", "store",
    "data", "model", "template", "text", "problem", "row", "clock", "lib",
];

/// Words that only one layer may name.
const ONLY: [(&str, &[&str]); 8] = [
    ("reqwest", &["teacher"]),
    ("arrow_", &["data"]),
    ("parquet::", &["data"]),
    ("rusqlite", &["store"]),
    ("rten::", &["model"]),
    ("ruff_python", &["text"]),
    ("Instant::now", &["clock"]),
    ("SystemTime::now", &["clock"]),
];

/// Files that read tokio's clock, which tests can pause.
const TOKIO_CLOCK: [&str; 5] = [
    "src/teacher/gate.rs",
    "src/teacher/prefix.rs",
    "src/engine/tests.rs",
    "src/engine/tests/groups.rs",
    "src/call/hours.rs",
];

/// Files of more than 700 lines, each with its reason.
const LONG_FILES: [(&str, &str); 0] = [];

fn sources() -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for folder in ["src", "tests", "benches"] {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    files
}

fn walk(folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_owned();
            files.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// The layer of a file in `src/`.
fn layer(path: &Path) -> Option<String> {
    let inside = path.strip_prefix("src").ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    Some(first.trim_end_matches(".rs").to_owned())
}

/// The text of a file without its tests, which may look where they like.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[test]
fn layers_use_only_those_after_them() {
    let rank = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(own) = layer(&path) else { continue };
        let own_rank = rank(&own).unwrap_or_else(|| panic!("{} is in no layer", path.display()));
        for line in without_tests(&text).lines().filter(|line| !is_comment(line)) {
            for used in line.split("crate::").skip(1) {
                let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if rank(&name).is_some_and(|rank| rank < own_rank) {
                    wrong.push(format!("{} uses `{name}`: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_one_place_names_what_is_its_own() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(own) = layer(&path) else { continue };
        for line in without_tests(&text).lines().filter(|line| !is_comment(line)) {
            for (word, owners) in ONLY {
                let excused =
                    word == "Instant::now" && TOKIO_CLOCK.iter().any(|name| path == Path::new(name));
                if line.contains(word) && !owners.contains(&own.as_str()) && !excused {
                    wrong.push(format!("{} names `{word}`: {}", path.display(), line.trim()));
                }
            }
            if own != "cli" && (line.contains("println!") || line.contains("eprint")) {
                wrong.push(format!("{} prints: {}", path.display(), line.trim()));
            }
            if own != "cli" && line.contains("env::var") {
                wrong.push(format!("{} reads the environment: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_lives_there_and_none_is_too_long() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not start with `//!`", path.display()));
        }
        let lines = text.lines().count();
        let excused = LONG_FILES.iter().any(|(name, _)| Path::new(name) == path);
        if lines > 700 && !excused {
            wrong.push(format!("{} has {lines} lines", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
