//! Problems with what a user wrote: what is wrong, where, and what to do about it.
//!
//! Everything that checks user input returns `Vec<Problem>`, so that all problems of a file are
//! reported at once. Pure: places are resolved to lines by whoever holds the file's positions.

use std::fmt;
use std::path::{Display, Path, PathBuf};

/// One step of a path into a pipeline file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Name(String),
    Index(usize),
}

impl From<&str> for Key {
    fn from(name: &str) -> Key {
        Key::Name(name.to_owned())
    }
}

impl From<usize> for Key {
    fn from(index: usize) -> Key {
        Key::Index(index)
    }
}

/// The way from a file's root to one of its values: `steps[2].generate.prompt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPath(pub Vec<Key>);

impl KeyPath {
    pub fn root() -> KeyPath {
        KeyPath::default()
    }

    /// Parses `steps.2.generate`; a part made of digits is an index.
    pub fn parse(text: &str) -> KeyPath {
        let part = |part: &str| part.parse().map_or_else(|_| Key::Name(part.to_owned()), Key::Index);
        KeyPath(text.split('.').filter(|part| !part.is_empty()).map(part).collect())
    }

    pub fn join(&self, key: impl Into<Key>) -> KeyPath {
        let mut keys = self.0.clone();
        keys.push(key.into());
        KeyPath(keys)
    }

    pub fn extend(&self, tail: &KeyPath) -> KeyPath {
        KeyPath(self.0.iter().chain(&tail.0).cloned().collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, key) in self.0.iter().enumerate() {
            match key {
                Key::Name(name) if position == 0 => f.write_str(name)?,
                Key::Name(name) => write!(f, ".{name}")?,
                Key::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Where a problem is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere in particular: the command line, the machine.
    Nowhere,
    /// The value at a path of the pipeline file.
    Value(KeyPath),
    /// The key itself at a path of the pipeline file (an unknown key, a key that clashes).
    Key(KeyPath),
    /// A byte range inside the text value at a path of the pipeline file: a template, an expression.
    Inside(KeyPath, std::ops::Range<usize>),
    /// A byte range of the pipeline file itself (syntax errors).
    Bytes(std::ops::Range<usize>),
    /// Some other file: a template, a data file. Lines and columns count from 1.
    File { path: PathBuf, line: Option<usize>, column: Option<usize> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// Something wrong with what the user wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub place: Place,
    /// What is wrong: one sentence without a full stop, backticks round names.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    pub fn error(place: Place, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Error, place, message: message.into(), causes: Vec::new(), hint: None }
    }

    pub fn warning(place: Place, message: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(place, message) }
    }

    /// The same problem with its path seen from further up the file.
    #[must_use]
    pub fn below(mut self, under: &KeyPath) -> Problem {
        self.place = match self.place {
            Place::Value(path) => Place::Value(under.extend(&path)),
            Place::Key(path) => Place::Key(under.extend(&path)),
            Place::Inside(path, range) => Place::Inside(under.extend(&path), range),
            other => other,
        };
        self
    }

    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Problem {
        self.causes.push(cause.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }
}

/// A number of things as people write it: `1 reply`, `3 replies`. `noun` is the word for one.
pub fn counted(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        _ if noun.ends_with("ch") => format!("{number} {noun}es"),
        (_, None) => format!("{number} {noun}s"),
    }
}

/// A path as people write it, without a `./` in front; the folder `.` itself stays.
pub fn shown_path(path: &Path) -> Display<'_> {
    let plain = path.strip_prefix(".").ok().filter(|plain| !plain.as_os_str().is_empty());
    plain.unwrap_or(path).display()
}

/// The candidate that `word` was most likely meant to be, if one is near enough.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A hint for a name that is not among `candidates`: the nearest one, or all of them.
pub fn name_hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(near) = did_you_mean(word, candidates.clone()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let known: Vec<String> = candidates.into_iter().map(|name| format!("`{name}`")).collect();
    if known.is_empty() { None } else { Some(format!("known here: {}", known.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_counted_in_words() {
        let check = |number, noun, expected: &str| assert_eq!(counted(number, noun), expected);
        check(1, "reply", "1 reply");
        check(0, "reply", "0 replies");
        check(2, "call", "2 calls");
    }

    #[test]
    fn paths_are_shown_as_people_write_them() {
        let shown = |path: &str| shown_path(Path::new(path)).to_string();
        assert_eq!(["./a/b", "a", ".", "./"].map(shown), ["a/b", "a", ".", "./"]);
    }
}
