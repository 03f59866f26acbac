//! Rewrites a text into a plain form without changing what it says: encoding, invisible characters, white
//! space, code fences, quotation marks.
//!
//! Unlike `normalize.rs`, which says what does not count when texts are compared, what comes out of here is
//! kept and read: line breaks, indentation and letters stay. Every change takes one pass.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

use super::extract::speaks;
use super::lines::{self, Fence};

/// How characters are encoded (UAX #15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unicode {
    /// One code point for `é`, not two. What is seen does not change.
    #[default]
    Nfc,
    /// `ﬁ` is `fi`, `²` is `2`, full-width letters are plain ones. Changes formulas and tables.
    Nfkc,
    /// As it is.
    None,
}

/// What happens to Markdown's code fences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fences {
    /// They stay.
    #[default]
    Keep,
    /// A fence around the whole text goes, if it says `markdown`, `md`, `text`, `txt` or `plaintext`.
    Unwrap,
    /// A fence that nothing closes is closed at the end.
    Balance,
    /// All go; what they hold stays.
    Strip,
}

/// What happens to curly quotation marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quotes {
    #[default]
    Keep,
    /// `“a” „b“ ‘c’` become `"a" "b" 'c'`. Guillemets stay.
    Straight,
}

/// What happens to characters that cannot be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// They go: control codes but tab and line feed, zero-width spaces, soft hyphens, signs that turn the
    /// direction of writing, language tags. Joiners between letters that are not ASCII stay.
    #[default]
    Drop,
    Keep,
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tidy {
    pub unicode: Unicode,
    pub whitespace: bool,
    pub fences: Fences,
    pub quotes: Quotes,
    pub control: Control,
}

/// One change of a text; `None` when nothing changes.
type Step = fn(&str) -> Option<String>;

impl Tidy {
    /// Whether nothing would ever be changed.
    pub fn is_idle(&self) -> bool {
        let idle = Tidy {
            unicode: Unicode::None,
            whitespace: false,
            fences: Fences::Keep,
            quotes: Quotes::Keep,
            control: Control::Keep,
        };
        *self == idle
    }

    /// The text with all changes; borrowed when there is none. Quotation marks come first, then line ends,
    /// what cannot be seen, encoding, white space, fences: each leaves nothing to do for those before it.
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let unicode: Option<Step> = match self.unicode {
            Unicode::Nfc => Some(nfc),
            Unicode::Nfkc => Some(nfkc),
            Unicode::None => None,
        };
        let fences: Option<Step> = match self.fences {
            Fences::Keep => None,
            Fences::Unwrap => Some(unwrapped),
            Fences::Balance => Some(balanced),
            Fences::Strip => Some(stripped),
        };
        let space: Option<Step> = self.whitespace.then_some(spaced as Step);
        let steps: [Option<Step>; 7] = [
            (self.quotes == Quotes::Straight).then_some(straight as Step),
            self.whitespace.then_some(line_feeds as Step),
            (self.control == Control::Drop).then_some(visible as Step),
            unicode,
            space,
            fences,
            // What a fence stood around may begin or end with blank lines.
            space.filter(|_| fences.is_some()),
        ];
        let mut text = Cow::Borrowed(text);
        for step in steps.into_iter().flatten() {
            if let Some(changed) = step(&text) {
                text = Cow::Owned(changed);
            }
        }
        text
    }
}

fn nfc(text: &str) -> Option<String> {
    (!text.is_ascii() && !unicode_normalization::is_nfc(text)).then(|| text.nfc().collect())
}

fn nfkc(text: &str) -> Option<String> {
    (!text.is_ascii() && !unicode_normalization::is_nfkc(text)).then(|| text.nfkc().collect())
}

/// All line ends of Unicode (UAX #14, class BK, CR and NL) as a line feed.
fn line_feeds(text: &str) -> Option<String> {
    let others = ['\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];
    text.contains(others).then(|| text.replace("\r\n", "\n").replace(others, "\n"))
}

/// Drops what cannot be seen.
fn visible(text: &str) -> Option<String> {
    if !text.chars().any(|c| is_invisible(c) || is_joiner(c)) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().filter(|c| !is_invisible(*c)).peekable();
    while let Some(c) = chars.next() {
        if is_joiner(c) {
            // Between two letters of Persian or Hindi, or two emoji, it changes what is seen.
            let joins = |side: Option<char>| side.is_some_and(|c| !c.is_ascii() && !c.is_whitespace());
            let ahead = joins(chars.peek().copied()) && !chars.peek().copied().is_some_and(is_joiner);
            if !joins(out.chars().next_back()) || !ahead {
                continue;
            }
        }
        out.push(c);
    }
    (out != text).then_some(out)
}

/// Zero-width non-joiner and joiner.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

fn is_invisible(c: char) -> bool {
    match c {
        // A carriage return that is still here was not asked to go.
        '\t' | '\n' | '\r' => false,
        // Flags of England, Scotland and Wales need tags; nothing else does, and they hide text well.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' => true,
        '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => true,
        '\u{e0000}'..='\u{e0fff}' => true,
        _ => c.is_control(),
    }
}

/// So many blank lines may follow one another: Python's style parts functions by two.
const BLANK_LINES_MAX: usize = 2;

/// Blanks of all widths are spaces, none ends a line; no blank line begins or ends the text, and not more
/// than two follow one another. Tabs and indentation stay.
fn spaced(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut blank_lines = 0;
    for line in text.split('\n') {
        let line = line.trim_end();
        if line.is_empty() {
            blank_lines += 1;
            continue;
        }
        if !out.is_empty() {
            let feeds = 1 + blank_lines.min(BLANK_LINES_MAX);
            out.extend(std::iter::repeat_n('\n', feeds));
        }
        blank_lines = 0;
        let space = |c: char| if is_wide_space(c) { ' ' } else { c };
        out.extend(line.chars().map(space));
    }
    (out != text).then_some(out)
}

/// White space that is neither a plain blank nor a tab; also what ends lines elsewhere.
fn is_wide_space(c: char) -> bool {
    c.is_whitespace() && !matches!(c, ' ' | '\t' | '\n')
}

const WRAPPERS: [&str; 4] = ["markdown", "text", "txt", "plaintext"];

/// What is in a fence that stands around all of the text.
fn unwrapped(text: &str) -> Option<String> {
    let body = &text[lines::trim(text, 0..text.len())];
    let opening = lines::lines(body).next()?;
    let (fence, info) = Fence::open(opening.text)?;
    let wraps = WRAPPERS.iter().any(|label| speaks(info, label));
    let inner = body.get(opening.end..)?;
    let last = inner.trim_end().rfind('\n').map_or(0, |feed| feed + 1);
    if !wraps || !fence.closed_by(&inner[last..]) || inner[last..].trim().is_empty() {
        return None;
    }
    let inner = &inner[..last];
    // What closes the last fence may belong to a fence inside; then the outer one was never closed.
    open_fence(inner).is_none().then(|| inner.trim_end_matches('\n').to_owned())
}

/// The marks of a fence that is still open at the end.
fn open_fence(text: &str) -> Option<&str> {
    let mut lines = lines::lines(text);
    while let Some(line) = lines.next() {
        let Some((fence, info)) = Fence::open(line.text) else { continue };
        if !lines.by_ref().any(|line| fence.closed_by(line.text)) {
            let marks = line.text.trim_end();
            return Some(marks.strip_suffix(info).unwrap_or(marks).trim_end());
        }
    }
    None
}

/// The text with a last line for a fence that is open, as far in as the fence itself.
fn balanced(text: &str) -> Option<String> {
    let marks = open_fence(text)?;
    Some(format!("{}\n{marks}", text.trim_end_matches('\n')))
}

fn stripped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut open: Option<Fence> = None;
    for line in lines::lines(text) {
        let opens = Fence::open(line.text).filter(|_| open.is_none());
        let closes = open.is_some_and(|fence| fence.closed_by(line.text));
        match (opens, closes) {
            (Some((fence, _)), _) => open = Some(fence),
            (None, true) => open = None,
            (None, false) => out.push_str(&text[line.start..line.end]),
        }
    }
    (out.len() != text.len()).then_some(out)
}

fn straight(text: &str) -> Option<String> {
    let plain = |c: char| match c {
        '\u{201c}'..='\u{201f}' => '"',
        '\u{2018}'..='\u{201b}' => '\'',
        other => other,
    };
    text.chars().any(|c| plain(c) != c).then(|| text.chars().map(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEFAULT: Tidy = Tidy {
        unicode: Unicode::Nfc,
        whitespace: true,
        fences: Fences::Keep,
        quotes: Quotes::Keep,
        control: Control::Drop,
    };

    fn check(tidy: Tidy, text: &str, expected: &str) {
        let applied = tidy.apply(text);
        assert_eq!(applied, expected, "{tidy:?} on {text:?}");
        assert_eq!(matches!(applied, Cow::Borrowed(_)), text == expected, "{text:?}: borrowed");
    }

    #[test]
    fn white_space_is_plain_and_layout_stays() {
        check(DEFAULT, "", "");
        check(DEFAULT, "def f():\n\treturn 1\n\n\ndef g(): ...", "def f():\n\treturn 1\n\n\ndef g(): ...");
        check(DEFAULT, "\n \n  a \t\r\nb\rc\u{2028}d\n\n\n\n\ne\n\n", "  a\nb\nc\nd\n\n\ne");
        check(DEFAULT, "5\u{a0}km\u{3000}x\u{2009}y", "5 km x y");
        let kept = Tidy { whitespace: false, ..DEFAULT };
        check(kept, "a \r\n\u{a0}b\n", "a \r\n\u{a0}b\n");
        check(DEFAULT, " \n\t\r\n", "");
    }

    #[test]
    fn what_cannot_be_seen_goes() {
        check(DEFAULT, "\u{feff}a\0b\u{200b}c\u{202e}d\u{2066}e\u{ad}f\u{1b}[1m", "abcdef[1m");
        check(DEFAULT, "\u{5d0}\u{200f}\u{5d1}", "\u{5d0}\u{5d1}");
        check(DEFAULT, "hidden\u{e0068}\u{e0069}", "hidden");
        check(DEFAULT, "pass\u{200d}word \u{200c}x", "password x");
        // Persian, Hindi and a family of emoji need their joiners.
        let joined = "می\u{200c}خواهم क\u{94d}\u{200d}ष 👩\u{200d}👧";
        check(DEFAULT, joined, joined);
        check(Tidy { control: Control::Keep, ..DEFAULT }, "a\0\u{200b}b", "a\0\u{200b}b");
    }

    #[test]
    fn letters_are_encoded_in_one_way() {
        check(DEFAULT, "e\u{301} ﬁ ²", "é ﬁ ²");
        check(DEFAULT, "e\u{200b}\u{301}", "é");
        check(Tidy { unicode: Unicode::Nfkc, ..DEFAULT }, "e\u{301} ﬁ ² ｗ", "é fi 2 w");
        check(Tidy { unicode: Unicode::None, ..DEFAULT }, "e\u{301}", "e\u{301}");
    }

    #[test]
    fn quotation_marks_are_straight() {
        let straight = Tidy { quotes: Quotes::Straight, ..DEFAULT };
        check(straight, "„a“ ‚b‘ it’s «c» 5″", "\"a\" 'b' it's «c» 5″");
        check(DEFAULT, "“a”", "“a”");
    }

    fn check_fences(fences: Fences, text: &str, expected: &str) {
        check(Tidy { fences, ..DEFAULT }, text, expected);
    }

    #[test]
    fn a_fence_around_the_whole_text_goes() {
        let check = |text: &str, expected: &str| check_fences(Fences::Unwrap, text, expected);
        check("```markdown\n# A\n\nb\n```", "# A\n\nb");
        check("\n~~~ text\nb\n\n~~~\n", "b");
        check("```MD\nSee:\n```py\nx\n```\nb\n```", "See:\n```py\nx\n```\nb");
        check("````md\n```py\nx\n```\n````", "```py\nx\n```");
        // What is code stays code, and a fence that was never closed is not taken apart.
        for same in [
            "```py\nx\n```",
            "```\nx\n```",
            "```md\nSee:\n```py\nx\n```",
            "```md",
            "```md\nx",
            "a\n```md\nx\n```",
        ] {
            check(same, same);
        }
        check("```md\n```", "");
    }

    #[test]
    fn fences_are_closed_or_stripped() {
        check_fences(Fences::Balance, "a\n  ````py title=x\nb\n```", "a\n  ````py title=x\nb\n```\n  ````");
        check_fences(Fences::Balance, "```py\nb\n```", "```py\nb\n```");
        check_fences(Fences::Balance, "```", "```\n```");
        check_fences(Fences::Strip, "a\n````md\n```\nb\n```\n````\nc", "a\n```\nb\n```\nc");
        check_fences(Fences::Strip, "use ```x``` here", "use ```x``` here");
    }

    #[test]
    fn long_and_hostile_texts_take_one_pass() {
        let tidy =
            Tidy { fences: Fences::Unwrap, quotes: Quotes::Straight, unicode: Unicode::Nfkc, ..DEFAULT };
        let balance = Tidy { fences: Fences::Balance, ..DEFAULT };
        for part in ["```md\n", "\u{200d}", "é\u{200d}", "\u{301}", "\r", "\u{202e}a", "~~~\n", " \n", "“"]
        {
            let text = part.repeat(1_000_000 / part.len());
            assert!(tidy.apply(&text).len() <= text.len());
            assert!(balance.apply(&text).len() <= text.len() + 4);
        }
    }

    proptest! {
        #[test]
        fn a_second_time_changes_nothing(text in "[ -~\\n\\r\\t\u{a0}\u{200b}-\u{200f}é\u{301}“’ｗ`~क\u{94d}\0]{0,60}|\\PC{0,40}") {
            for fences in [Fences::Keep, Fences::Balance] {
                let tidy = Tidy { fences, quotes: Quotes::Straight, ..DEFAULT };
                let once = tidy.apply(&text).into_owned();
                prop_assert_eq!(tidy.apply(&once), once.as_str());
                let gone = ['\0', '\r', '\u{200b}', '\u{a0}'];
                prop_assert!(!once.contains(gone));
                prop_assert!(!once.lines().any(|line| line.ends_with(' ')));
            }
        }
    }
}
