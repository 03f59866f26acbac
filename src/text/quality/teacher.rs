//! What only texts that a model was asked for have, beyond phrases: the prompt echoed, an end that never
//! came, bodies that were left out, letters of another script in mid-text. Never judges.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

use xxhash_rust::xxh3::xxh3_64;

use super::lines::split_feeds;
use super::words::Mixed;

/// Words of a row that is looked for in the prompt; shorter rows are common property.
const ECHO_WORDS: usize = 6;
/// Letters in a row in another script that are more than a symbol or a name's initial.
const FOREIGN_LETTERS_MIN: usize = 3;
/// Words of a last line that can be a sentence; shorter ones are headings, names, answers.
const SENTENCE_WORDS_MIN: usize = 5;

/// A place in a text, in bytes.
pub(super) type Span = (usize, usize);

/// The longest row of words that the text shares with its prompt: how many words, and where in the text. Each
/// six of them in a row stand in the prompt, whatever the case and the marks between them.
pub(super) fn echo(text: &str, prompt: &str) -> (usize, Option<Span>) {
    let of_prompt: Vec<(u64, Span)> = names(prompt).collect();
    let key = |words: &[(u64, Span)]| {
        words.iter().fold(0, |key: u64, (word, _)| key.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ word)
    };
    let known: HashSet<u64, BuildHasherDefault<Mixed>> = of_prompt.windows(ECHO_WORDS).map(key).collect();
    if known.is_empty() {
        return (0, None);
    }
    let words: Vec<(u64, Span)> = names(text).collect();
    let (mut row, mut longest) = (0, (0, None));
    for (at, window) in words.windows(ECHO_WORDS).enumerate() {
        row = if known.contains(&key(window)) { row + 1 } else { 0 };
        let shared = row + ECHO_WORDS - 1;
        if row > 0 && shared > longest.0 {
            let (start, end) = (words[at + 1 - row].1.0, words[at + ECHO_WORDS - 1].1.1);
            longest = (shared, Some((start, end)));
        }
    }
    longest
}

/// Runs of letters and digits, hashed in small letters.
fn names(text: &str) -> impl Iterator<Item = (u64, Span)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(char::is_alphanumeric)?;
        let length = text[start..].find(|char: char| !char.is_alphanumeric()).unwrap_or(text.len() - start);
        at = start + length;
        Some((xxh3_64(text[start..at].to_lowercase().as_bytes()), (start, at)))
    })
}

/// A fence of code that is opened and never closed: where it is. Fences of `~~~` are not looked for, since
/// headings are underlined so.
pub(super) fn open_fence(text: &str) -> Option<Span> {
    let mut open: Option<Span> = None;
    split_feeds(text).for_each(|(start, line)| {
        let inner = line.trim();
        if !inner.starts_with("```") || inner.trim_start_matches('`').contains('`') {
            return;
        }
        // A fence with a name only opens; one without closes.
        match open {
            None => open = Some((start, start + line.len())),
            Some(_) if inner.bytes().all(|byte| byte == b'`') => open = None,
            Some(_) => {}
        }
    });
    open
}

/// A last line of prose that stops in mid-sentence: where its end is.
pub(super) fn no_end(text: &str) -> Option<Span> {
    let text = text.trim_end();
    let start = text.rfind('\n').map_or(0, |at| at + 1);
    let line = &text[start..];
    let last = line.chars().next_back()?;
    let hangs = matches!(last, ',' | '-' | '–' | '—' | '(' | ':');
    if !hangs && !last.is_alphanumeric() {
        return None;
    }
    let inner = line.trim_start();
    let code = line.starts_with("    ") || line.starts_with('\t') || inner.contains(CODE_SIGNS);
    let other = inner.starts_with(['#', '|', '>', '<', '@', '.', '$', '\\', ':']);
    if code || other || inner.split_whitespace().count() < SENTENCE_WORDS_MIN {
        return None;
    }
    // Items of lists, and captions, end without a mark as often as with one, unless something hangs.
    let item = inner.starts_with(['-', '*', '•', '+', '–', '·'])
        || inner
            .split_once(['.', ')'])
            .is_some_and(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()));
    if item && !hangs {
        return None;
    }
    let tail = text.char_indices().rev().nth(59).map_or(0, |(at, _)| at).max(start);
    Some((tail, text.len()))
}

const CODE_SIGNS: [char; 9] = ['=', '{', '}', ';', '`', '\\', '|', '<', '>'];

/// Functions whose body is only `pass`, `...` or an exception that says it is missing: how many, and the first.
pub(super) fn stub_bodies(text: &str) -> (usize, Option<Span>) {
    let (mut count, mut first) = (0, None);
    // The function that is open: where it starts, how deep, and whether its docstring goes on.
    let mut open: Option<(usize, usize)> = None;
    let mut doc: Option<&str> = None;
    let mut body: Option<Span> = None;
    split_feeds(text).for_each(|(start, line)| {
        let inner = line.trim();
        let depth = line.len() - line.trim_start().len();
        if let Some(end) = doc {
            if inner.contains(end) {
                doc = None;
            }
            return;
        }
        if inner.is_empty() || inner.starts_with('#') {
            return;
        }
        if let (Some((_, function)), Some(span)) = (open, body) {
            // Something more in the body: it is none of these.
            if depth <= function {
                count += 1;
                first = first.or(Some(span));
            }
            (open, body) = (None, None);
        }
        if let Some((at, function)) = open {
            if depth > function && body.is_none() {
                if let Some(mark) = ["\"\"\"", "'''"]
                    .into_iter()
                    .find(|mark| inner.trim_start_matches(['r', 'R']).starts_with(mark))
                {
                    doc = (inner.matches(mark).count() == 1).then_some(mark);
                    return;
                }
                match is_stub(inner) {
                    true => body = Some((at, start + line.len())),
                    false => open = None,
                }
                return;
            }
            open = None;
        }
        let function = inner.strip_prefix("async ").unwrap_or(inner).starts_with("def ");
        if function && inner.ends_with(':') {
            open = Some((start, depth));
        }
    });
    if let (Some(_), Some(span)) = (open, body) {
        count += 1;
        first = first.or(Some(span));
    }
    (count, first)
}

fn is_stub(line: &str) -> bool {
    let line = line.split_once('#').map_or(line, |(code, _)| code).trim();
    matches!(line, "pass" | "...") || line.starts_with("raise NotImplementedError")
}

/// What of a text is in another script than most of it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scripts {
    pub(super) letters: usize,
    /// Letters in words of another script; Latin ones are at home everywhere.
    pub(super) foreign: usize,
    pub(super) foreign_at: Option<Span>,
    /// Words that mix Latin with Cyrillic or Greek letters, and the first.
    pub(super) mixed: usize,
    pub(super) mixed_at: Option<Span>,
}

/// Scripts that are told apart; others are one. Chinese characters and Japanese syllables are one, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Script {
    Latin,
    Greek,
    Cyrillic,
    Hebrew,
    Arabic,
    Devanagari,
    Thai,
    Hangul,
    Han,
    Other,
}

fn script(char: char) -> Option<Script> {
    let code = char as u32;
    if char.is_ascii() {
        return char.is_ascii_alphabetic().then_some(Script::Latin);
    }
    if !char.is_alphabetic() {
        return None;
    }
    Some(match code {
        // The signs for micro and the ordinals, and letters that only phonetics and mathematics use.
        0xAA | 0xB5 | 0xBA | 0x250..=0x2FF | 0x2100..=0x214F | 0x1_D400..=0x1_D7FF => return None,
        0xC0..=0x24F
        | 0x1D00..=0x1EFF
        | 0x2C60..=0x2C7F
        | 0xA720..=0xA7FF
        | 0xAB30..=0xAB6F
        | 0xFB00..=0xFB06
        | 0xFF21..=0xFF5A => Script::Latin,
        0x370..=0x3FF | 0x1F00..=0x1FFF => Script::Greek,
        0x400..=0x52F | 0x1C80..=0x1C8F | 0x2DE0..=0x2DFF | 0xA640..=0xA69F => Script::Cyrillic,
        0x590..=0x5FF | 0xFB1D..=0xFB4F => Script::Hebrew,
        0x600..=0x6FF | 0x750..=0x77F | 0x8A0..=0x8FF | 0xFB50..=0xFDFF | 0xFE70..=0xFEFF => Script::Arabic,
        0x900..=0x97F => Script::Devanagari,
        0xE00..=0xE7F => Script::Thai,
        0x1100..=0x11FF | 0x3130..=0x318F | 0xAC00..=0xD7AF => Script::Hangul,
        0x2E80..=0x312F | 0x31A0..=0x9FFF | 0xF900..=0xFAFF | 0xFF66..=0xFF9D | 0x2_0000..=0x3_FFFF => {
            Script::Han
        }
        _ => Script::Other,
    })
}

impl Scripts {
    pub(super) fn measure(text: &str) -> Scripts {
        let mut counts: HashMap<Script, usize> = HashMap::new();
        if text.is_ascii() {
            let letters = text.bytes().filter(u8::is_ascii_alphabetic).count();
            return Scripts { letters, ..Scripts::default() };
        }
        let mut latin = 0;
        for char in text.chars() {
            match script(char) {
                Some(Script::Latin) => latin += 1,
                Some(script) => *counts.entry(script).or_default() += 1,
                None => {}
            }
        }
        let letters = latin + counts.values().sum::<usize>();
        let mut scripts = Scripts { letters, ..Scripts::default() };
        if counts.is_empty() {
            return scripts;
        }
        // Of scripts with as many letters, the one that comes first in the list.
        let most = counts.iter().max_by_key(|(script, count)| (**count, std::cmp::Reverse(**script as u8)));
        let main = most.filter(|(_, count)| **count > latin).map_or(Script::Latin, |(script, _)| *script);
        let mut at = 0;
        while let Some(found) = text[at..].find(|char| script(char).is_some()) {
            let start = at + found;
            let length = text[start..].find(|char| script(char).is_none()).unwrap_or(text.len() - start);
            at = start + length;
            scripts.take_word(main, &text[start..at], start);
        }
        scripts
    }

    fn take_word(&mut self, main: Script, word: &str, start: usize) {
        if word.is_ascii() {
            return;
        }
        let count = |wanted: fn(Script) -> bool| {
            word.chars().filter_map(script).filter(|script| wanted(*script)).count()
        };
        let span = (start, start + word.len());
        let latin = count(|script| script == Script::Latin);
        // One letter of another script is a symbol: μm, Δx.
        if latin > 0 && count(|script| matches!(script, Script::Greek | Script::Cyrillic)) > 1 {
            self.mixed += 1;
            self.mixed_at = self.mixed_at.or(Some(span));
        }
        let foreign = word
            .chars()
            .filter_map(script)
            .filter(|script| *script != main && *script != Script::Latin)
            .count();
        if foreign >= FOREIGN_LETTERS_MIN {
            self.foreign += foreign;
            self.foreign_at = self.foreign_at.or(Some(span));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Option<Span>) -> Option<&str> {
        span.map(|(start, end)| &text[start..end])
    }

    #[test]
    fn the_longest_echo_is_found() {
        let prompt = "Write a short story about a fox who learns to read. Use simple words.";
        let text = "Once, a short story about a fox who learns, to READ. Then words.";
        let (words, at) = echo(text, prompt);
        assert_eq!((words, shown(text, at)), (10, Some("a short story about a fox who learns, to READ")));
        assert_eq!(echo(text, "a fox who"), (0, None));
        assert_eq!(echo("", prompt), (0, None));
    }

    #[test]
    fn open_fences_are_found() {
        let check = |text: &str, expected| assert_eq!(shown(text, open_fence(text)), expected, "{text}");
        check("a\n```python\nx\n", Some("```python"));
        check("a\n```python\nx\n```\n", None);
        check("```\nx\n```\n  ```rust\n", Some("  ```rust"));
        check("a ``` b\n```x``` y\n", None);
    }

    #[test]
    fn unfinished_ends_are_found() {
        let check = |text: &str, expected| assert_eq!(shown(text, no_end(text)), expected, "{text}");
        check("All is well.\nThe fox went to the", Some("The fox went to the"));
        check(
            "All is well. The steps are the following:\n",
            Some("All is well. The steps are the following:"),
        );
        check("The fox went to the river.", None);
        check("The fox said “go to the river!”", None);
        check("1. one item of a list without", None);
        check("- one item of a list without,", Some("- one item of a list without,"));
        check("    return one of the two", None);
        check("x = one of the two", None);
        check("The End", None);
        check("", None);
    }

    #[test]
    fn stub_bodies_are_found() {
        let check = |text: &str, expected: usize, first| {
            let (count, at) = stub_bodies(text);
            assert_eq!((count, shown(text, at)), (expected, first), "{text}");
        };
        check("def f(x):\n    pass\n", 1, Some("def f(x):\n    pass"));
        check(
            "def f(x):\n    '''Doc\n    more'''\n    ...\n\nx = 1\n",
            1,
            Some("def f(x):\n    '''Doc\n    more'''\n    ..."),
        );
        check(
            "  async def f(x):\n    raise NotImplementedError('x')\n  def g():\n    return 1\n",
            1,
            Some("  async def f(x):\n    raise NotImplementedError('x')"),
        );
        check("def f(x):\n    pass\n    return 1\n", 0, None);
        check("class A(B):\n    pass\ntry:\n    f()\nexcept E:\n    pass\n", 0, None);
    }

    #[test]
    fn other_scripts_are_found() {
        let check = |text: &str, foreign, mixed| {
            let scripts = Scripts::measure(text);
            assert_eq!((scripts.foreign, scripts.mixed), (foreign, mixed), "{text}");
        };
        check("The fox 然后狐狸去了 the river.", 6, 0);
        check("Лиса read a book и пошла домой к реке", 0, 0);
        check("5 μm, Δx, ∑ and α, naïve", 0, 0);
        check("Дом и 狐狸去 дом", 3, 0);
        check("a pаypаl page", 0, 1);
    }
}
