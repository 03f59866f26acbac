//! Cuts a long text into passages that fit a token limit: by tokens alone, or along its Markdown
//! structure. Passages are byte ranges of the source, never changed text.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use super::lines::{self, Fence};
use super::tokens::{self, Encoding};

/// Longest text cut up; its token table takes about twice as much memory.
pub const TEXT_BYTES_MAX: usize = 64 << 20;

/// Smallest passage size: any character fits, as no character is more than 4 tokens.
pub const TOKENS_MIN: usize = 8;

/// How far a piece's count on its own is trusted to differ from its share of the whole text's.
const COUNT_SLACK: usize = 4;

/// Where to cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CutBy {
    /// At headings, else between paragraphs, else between sentences, else between tokens.
    #[default]
    Structure,
    /// Every so many tokens, wherever that is.
    Tokens,
}

/// How to cut a text up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub by: CutBy,
    pub encoding: Encoding,
    /// Most tokens of a passage, counted on the passage alone; at least [`TOKENS_MIN`].
    pub tokens_max: usize,
    /// Tokens at the end of a passage that the next one repeats; at most half of `tokens_max`. By
    /// structure it is an upper bound: whole sentences are repeated, none if that does not fit.
    pub tokens_overlap: usize,
}

impl Settings {
    /// What is wrong with the numbers, as a sentence without a full stop.
    pub fn check(&self) -> Result<(), String> {
        if self.tokens_max < TOKENS_MIN {
            return Err(format!(
                "passages of {} tokens are too short; the least is {TOKENS_MIN}",
                self.tokens_max
            ));
        }
        if self.tokens_overlap > self.tokens_max / 2 {
            let half = self.tokens_max / 2;
            return Err(format!(
                "an overlap of {} tokens is more than half a passage, {half}",
                self.tokens_overlap
            ));
        }
        Ok(())
    }
}

/// A part of the source: `text[start..end]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage<'a> {
    pub start: usize,
    pub end: usize,
    pub text: &'a str,
    pub tokens: usize,
}

/// Cuts a text into passages, in order. What lies between two passages is white space only; a blank
/// text has none. No passage is longer than `tokens_max`, empty, or inside the one before.
///
/// By structure, a fenced code block is cut (between lines) only if it alone is too long, and no
/// passage ends in a heading, save the last and those that hold nothing but headings.
///
/// Fails if the settings do not pass [`Settings::check`] or the text is longer than
/// [`TEXT_BYTES_MAX`].
pub fn chunk<'a>(text: &'a str, settings: &Settings) -> Result<Vec<Passage<'a>>, String> {
    settings.check()?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!(
            "the text has {} bytes; the most that is cut up is {TEXT_BYTES_MAX}",
            text.len()
        ));
    }
    let ends = tokens::token_ends(settings.encoding, text);
    let mut cutter = Cutter { text, settings, ends, lines: Vec::new(), passages: Vec::new(), covered: 0 };
    match settings.by {
        CutBy::Tokens => cutter.by_tokens(),
        CutBy::Structure => cutter.by_structure(),
    }
    Ok(cutter.passages)
}

/// What a line is to the structure of its text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blank,
    Heading(usize),
    FenceStart,
    FenceInside,
    Text,
}

struct Cutter<'a, 's> {
    text: &'a str,
    settings: &'s Settings,
    /// Where each token of the whole text ends.
    ends: Vec<usize>,
    /// Where each line starts, and what it is; only by structure.
    lines: Vec<(usize, Kind)>,
    passages: Vec<Passage<'a>>,
    /// Everything before this offset is in a passage or white space.
    covered: usize,
}

/// How finely [`Cutter::split`] cuts: levels 1 to 6 are headings.
const BLOCKS: usize = 7;
const SENTENCES: usize = 8;
const LINES: usize = 9;

impl<'a> Cutter<'a, '_> {
    /// Tokens of a trimmed range, counted on their own.
    fn count(&self, range: &Range<usize>) -> usize {
        tokens::count(self.settings.encoding, &self.text[range.clone()])
    }

    fn trim(&self, range: Range<usize>) -> Range<usize> {
        lines::trim(self.text, range)
    }

    /// How many tokens of the whole text end inside a range: nearly its count, and cheap.
    fn share(&self, range: &Range<usize>) -> usize {
        let upto = |offset: usize| self.ends.partition_point(|end| *end <= offset);
        upto(range.end) - upto(range.start)
    }

    fn fits(&self, range: Range<usize>) -> bool {
        let seen = self.trim(range);
        let tokens_max = self.settings.tokens_max;
        self.share(&seen) <= tokens_max + COUNT_SLACK && self.count(&seen) <= tokens_max
    }

    /// Adds a passage, unless it has nothing that is new.
    fn push(&mut self, range: Range<usize>) {
        let seen = self.trim(range.clone());
        if seen.end > self.covered && !seen.is_empty() {
            let tokens = self.count(&seen);
            let text = &self.text[seen.clone()];
            self.passages.push(Passage { start: seen.start, end: seen.end, text, tokens });
        }
        self.covered = self.covered.max(range.end);
    }

    fn by_tokens(&mut self) {
        let mut start = 0;
        while start < self.text.len() {
            let end = self.window_end(start, self.text.len());
            if end <= self.covered {
                // The overlap left no room for anything new.
                start = self.covered;
                continue;
            }
            self.push(start..end);
            // Where the last passage begins, past its white space: the next one begins behind that.
            let begun = self.passages.last().map_or(start, |passage| passage.start.max(start));
            start = if end == self.text.len() { end } else { self.overlap_start(end).max(begun + 1) };
            start = self.text.ceil_char_boundary(start);
        }
    }

    /// The offset from which `tokens_overlap` tokens lead up to `end`.
    fn overlap_start(&self, end: usize) -> usize {
        if self.settings.tokens_overlap == 0 {
            return end;
        }
        let upto = self.ends.partition_point(|token_end| *token_end <= end);
        let before = upto.checked_sub(self.settings.tokens_overlap + 1);
        before.map_or(0, |token| self.ends[token].min(end))
    }

    /// The furthest end, up to `limit`, of a passage of whole tokens that fits. Past `start`.
    fn window_end(&self, start: usize, limit: usize) -> usize {
        let first = self.ends.partition_point(|end| *end <= start);
        let mut tokens = self.settings.tokens_max;
        while tokens > 0 {
            let end = self.ends.get(first + tokens - 1).map_or(limit, |end| (*end).min(limit));
            let end = self.text.floor_char_boundary(end);
            let excess =
                self.count(&self.trim(start..end.max(start))).saturating_sub(self.settings.tokens_max);
            if excess == 0 && end > start {
                return end;
            }
            tokens = tokens.saturating_sub(excess.max(1));
        }
        self.text.ceil_char_boundary(start + 1)
    }

    fn by_structure(&mut self) {
        self.lines = line_kinds(self.text);
        let mut atoms = Vec::new();
        self.split(0..self.text.len(), 1, &mut atoms);
        let mut next = 0;
        while next < atoms.len() {
            let start = self.repeat_start(&atoms[next]);
            let (mut start, mut end) = (start, self.pack(&atoms, next, start));
            if end == next {
                start = atoms[next].start;
                end = self.pack(&atoms, next, start).max(next + 1);
            }
            if end < atoms.len() {
                // A heading goes with what follows it, unless all of these are headings.
                let bodies = (next..end).rev().find(|index| !self.ends_in_heading(&atoms[*index]));
                end = bodies.map_or(end, |index| index + 1);
            }
            self.push(start..atoms[end - 1].end);
            next = end;
        }
    }

    /// How far the atoms from `next` on go into one passage that starts at `start`.
    fn pack(&self, atoms: &[Range<usize>], next: usize, start: usize) -> usize {
        let mut end = next;
        while end < atoms.len() && self.share(&(start..atoms[end].end)) <= self.settings.tokens_max {
            end += 1;
        }
        while end > next && !self.fits(start..atoms[end - 1].end) {
            end -= 1;
        }
        end
    }

    /// Where the passage that begins with `atom` starts when it repeats the last one's end.
    fn repeat_start(&self, atom: &Range<usize>) -> usize {
        let overlap = self.settings.tokens_overlap;
        let Some(last) = self.passages.last().filter(|_| overlap > 0) else { return atom.start };
        let from = self.overlap_start(last.end).max(last.start + 1);
        let from = self.text.ceil_char_boundary(from);
        // Only the end of the last passage is looked at, but from a line's start, where sentences
        // can be told.
        let line = self.lines[self.line_at(from)].0.max(last.start);
        let starts = sentence_starts(&self.text[line..last.end]).map(|start| line + start);
        let outside = |start: &usize| *start >= from && !self.in_fence(*start);
        starts.filter(outside).find(|start| *start < last.end).unwrap_or(atom.start)
    }

    fn line_at(&self, offset: usize) -> usize {
        self.lines.partition_point(|(start, _)| *start <= offset).saturating_sub(1)
    }

    /// Whether cutting at an offset would cut a fenced block.
    fn in_fence(&self, offset: usize) -> bool {
        let (start, kind) = self.lines[self.line_at(offset)];
        kind == Kind::FenceInside || (kind == Kind::FenceStart && offset > start)
    }

    fn ends_in_heading(&self, range: &Range<usize>) -> bool {
        let seen = self.trim(range.clone());
        !seen.is_empty() && matches!(self.lines[self.line_at(seen.end - 1)].1, Kind::Heading(_))
    }

    /// Splits a range, no finer than it must be, into atoms that each fit.
    fn split(&self, range: Range<usize>, level: usize, atoms: &mut Vec<Range<usize>>) {
        if self.fits(range.clone()) {
            atoms.push(range);
            return;
        }
        let cuts = match level {
            ..BLOCKS => self.heading_cuts(&range, level),
            BLOCKS => self.block_cuts(&range),
            SENTENCES if self.lines[self.line_at(range.start)].1 != Kind::FenceStart => {
                sentence_starts(&self.text[range.clone()]).map(|start| range.start + start).collect()
            }
            SENTENCES | LINES => self.line_cuts(&range),
            _ => {
                let mut start = range.start;
                while start < range.end {
                    let end = self.window_end(start, range.end);
                    atoms.push(start..end);
                    start = end;
                }
                return;
            }
        };
        let mut start = range.start;
        for cut in cuts.into_iter().filter(|cut| range.start < *cut).chain([range.end]) {
            self.split(start..cut, level + 1, atoms);
            start = cut;
        }
    }

    /// The lines that start inside a range, with the kind of the line before each.
    fn lines_in(&self, range: &Range<usize>) -> impl Iterator<Item = (usize, Kind, Kind)> + '_ {
        let from = self.lines.partition_point(|(start, _)| *start <= range.start);
        let to = self.lines.partition_point(|(start, _)| *start < range.end);
        (from..to).map(|index| (self.lines[index].0, self.lines[index].1, self.lines[index - 1].1))
    }

    fn heading_cuts(&self, range: &Range<usize>, level: usize) -> Vec<usize> {
        let cut = |kind| matches!(kind, Kind::Heading(found) if found <= level);
        self.lines_in(range).filter(|(_, kind, _)| cut(*kind)).map(|(start, ..)| start).collect()
    }

    fn block_cuts(&self, range: &Range<usize>) -> Vec<usize> {
        let inside = |kind, before| {
            matches!((before, kind), (_, Kind::Blank | Kind::FenceInside) | (Kind::Text, Kind::Text))
        };
        self.lines_in(range)
            .filter(|(_, kind, before)| !inside(*kind, *before))
            .map(|(start, ..)| start)
            .collect()
    }

    fn line_cuts(&self, range: &Range<usize>) -> Vec<usize> {
        self.lines_in(range).map(|(start, ..)| start).collect()
    }
}

/// Where each line starts, and what it is.
fn line_kinds(text: &str) -> Vec<(usize, Kind)> {
    let mut open: Option<Fence> = None;
    let kind = |line: lines::Line<'_>| {
        if let Some(fence) = open {
            if fence.closed_by(line.text) {
                open = None;
            }
            return (line.start, Kind::FenceInside);
        }
        open = Fence::open(line.text).map(|(fence, _)| fence);
        let kind = match lines::heading_level(line.text) {
            _ if open.is_some() => Kind::FenceStart,
            Some(level) => Kind::Heading(level),
            None if line.is_blank() => Kind::Blank,
            None => Kind::Text,
        };
        (line.start, kind)
    };
    lines::lines(text).map(kind).collect()
}

/// Where sentences start (UAX 29), except that a line end only ends a sentence when the line before
/// ends like one, or the next is blank, a list item, a table row or a quotation: prose is often
/// wrapped.
fn sentence_starts(text: &str) -> impl Iterator<Item = usize> + '_ {
    text.split_sentence_bound_indices().map(|(start, _)| start).filter(|start| {
        let Some(before) = text[..*start].strip_suffix('\n') else { return true };
        let next = text[*start..].lines().next().unwrap_or_default();
        let marked = lines::list_marker(next).is_some() || next.trim_start().starts_with(['|', '>', '#']);
        let ended = before.trim_end_matches([' ', '\t', '\r', '"', '\'', ')', '”', '*']);
        marked
            || next.trim().is_empty()
            || ended.ends_with(['.', '!', '?', ':', ';', '…', '。', '！', '？', '\n'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(by: CutBy, tokens_max: usize, tokens_overlap: usize) -> Settings {
        Settings { by, encoding: Encoding::Cl100kBase, tokens_max, tokens_overlap }
    }

    #[track_caller]
    fn check(text: &str, settings: &Settings, expected: &[&str]) {
        let passages = chunk(text, settings).unwrap();
        let texts: Vec<_> = passages.iter().map(|passage| passage.text).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn by_tokens() {
        let text = "one two three four five six seven eight nine ten";
        check(
            text,
            &settings(CutBy::Tokens, 8, 2),
            &["one two three four five six seven eight", "seven eight nine ten"],
        );
        check("", &settings(CutBy::Tokens, 8, 2), &[]);
        check(" \n ", &settings(CutBy::Tokens, 8, 2), &[]);
        check("  x", &settings(CutBy::Tokens, 8, 4), &["  x"]);
    }

    #[test]
    fn structure_prefers_headings_then_paragraphs_then_sentences() {
        let by = |tokens_max| settings(CutBy::Structure, tokens_max, 0);
        let text = "# A\n\nOne is here.\n\n## B\n\nTwo is there. Three is\nwrapped over.\n\n# C\n\nFour.\n";
        check(text, &by(100), &[text.trim_end()]);
        check(
            text,
            &by(24),
            &["# A\n\nOne is here.\n\n## B\n\nTwo is there. Three is\nwrapped over.", "# C\n\nFour."],
        );
        check(
            text,
            &by(9),
            &["# A\n\nOne is here.", "## B\n\nTwo is there.", "Three is\nwrapped over.", "# C\n\nFour."],
        );
    }

    #[test]
    fn fenced_code_stays_whole_unless_too_long() {
        let code = "```py\n# not a heading\n\nx = 1\n```";
        let text = format!("Some words come first here.\n{code}\nAnd then some more words follow.");
        let whole = ["Some words come first here.", code, "And then some more words follow."];
        check(&text, &settings(CutBy::Structure, 16, 0), &whole);
        let cut = chunk(code, &settings(CutBy::Structure, 8, 0)).unwrap();
        let texts: Vec<_> = cut.iter().map(|passage| passage.text).collect();
        assert_eq!(texts, ["```py\n# not a heading", "x = 1\n```"]);
    }

    #[test]
    fn structure_repeats_whole_sentences() {
        let text = "Alpha is first. Beta is second. Gamma is third. Delta is fourth.";
        let expected = [
            "Alpha is first. Beta is second. ",
            "Beta is second. Gamma is third. ",
            "Gamma is third. Delta is fourth.",
        ];
        check(text, &settings(CutBy::Structure, 11, 5), &expected.map(str::trim_end));
        check(
            text,
            &settings(CutBy::Structure, 11, 2),
            &["Alpha is first. Beta is second.", "Gamma is third. Delta is fourth."],
        );
    }

    #[test]
    fn settings_are_checked() {
        assert!(chunk("x", &settings(CutBy::Tokens, 7, 0)).unwrap_err().contains("least is 8"));
        assert!(chunk("x", &settings(CutBy::Tokens, 8, 5)).unwrap_err().contains("half"));
    }
}

#[cfg(test)]
mod properties {
    use super::*;
    use proptest::prelude::*;

    fn texts() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a-zé ]{1,30}[.!?]? ?",
            Just("\n".to_owned()),
            Just("\n\n".to_owned()),
            Just("# Title\n".to_owned()),
            Just("```\n".to_owned()),
            Just("- item\n".to_owned()),
            Just("   ".to_owned()),
            Just("👩‍👩‍👧字漢".to_owned()),
            any::<String>(),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn passages_cover_the_text_and_fit(
            text in texts(),
            structure in any::<bool>(),
            tokens_max in TOKENS_MIN..40,
            overlap in 0..20_usize,
        ) {
            let by = if structure { CutBy::Structure } else { CutBy::Tokens };
            let tokens_overlap = overlap.min(tokens_max / 2);
            let settings = Settings { by, encoding: Encoding::Cl100kBase, tokens_max, tokens_overlap };
            let passages = chunk(&text, &settings).unwrap();
            let (mut start, mut end) = (0, 0);
            for (index, passage) in passages.iter().enumerate() {
                prop_assert_eq!(&text[passage.start..passage.end], passage.text);
                prop_assert_eq!(passage.tokens, tokens::count(settings.encoding, passage.text));
                prop_assert!(passage.tokens <= tokens_max);
                prop_assert!(!passage.text.trim().is_empty());
                prop_assert!(passage.end > end && (index == 0 || passage.start > start));
                if passage.start > end {
                    prop_assert!(text[end..passage.start].trim().is_empty());
                }
                if tokens_overlap == 0 {
                    prop_assert!(passage.start >= end);
                }
                (start, end) = (passage.start, passage.end);
            }
            prop_assert!(text[end..].trim().is_empty());
        }
    }
}
