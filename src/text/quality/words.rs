//! Splits a text into words and punctuation marks the way spaCy's English tokenizer does, which datatrove
//! counts words with, so that the figures of published filters mean the same here.
//!
//! White space parts a text into strings. From both ends of a string marks are taken off, one at a time,
//! until an exception is left (`Mr.`, `don't`) or nothing more comes off; what is left is a URL, or is cut
//! at marks inside it. Linear in the length of the text but for a string's own marks; see [`AFFIXES_MAX`].
//! Knows no counts and no rules.

mod classes;
mod exceptions;

use classes::{
    is_before_stop, is_currency, is_icon, is_letter, is_lower, is_prefix, is_punctuation, is_quote,
    is_suffix, is_upper,
};
pub(super) use classes::{is_space, is_symbol, is_terminal};
pub(super) use exceptions::Mixed;
use exceptions::{BYTES_MAX, Ends, Exceptions};

/// Marks taken off one string before it is left as it is. Longer rows of marks are no words of anything.
const AFFIXES_MAX: usize = 1000;

/// Units of measure that come off a number at the end of a string.
const UNITS: &str = "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h \
    kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм \
    кг г мг м/с км/ч кПа Па мбар Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ م م² م³ سم سم² سم³ مم مم² مم³ كم كم² كم³ غرام \
    جرام جم كغ ملغ كوب اكواب";

/// Calls `take` with each word, and with each stretch of white space that is more than one space.
pub(super) fn split<'a>(text: &'a str, take: &mut impl FnMut(Piece<'a>)) {
    let exceptions = Exceptions::get();
    let bytes = text.as_bytes();
    let mut scratch = Scratch::default();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        while let Some(length) = space_at(text, at) {
            at += length;
        }
        if at - start > 1 || (at > start && bytes[start] != b' ') {
            take(Piece::Gap);
        }
        let start = at;
        let mut letters = true;
        while at < bytes.len() {
            match bytes[at] {
                b'a'..=b'z' | b'A'..=b'Z' => at += 1,
                byte if byte.is_ascii() => {
                    if byte <= b' ' && space_at(text, at).is_some() {
                        break;
                    }
                    letters = false;
                    at += 1;
                }
                _ => {
                    if space_at(text, at).is_some() {
                        break;
                    }
                    letters = false;
                    at += text[at..].chars().next().map_or(1, char::len_utf8);
                }
            }
        }
        let string = &text[start..at];
        if let Some(ends) = exceptions.find(string) {
            parts(string, ends, &mut |part| take(Piece::Word(part)));
        } else if letters {
            if !string.is_empty() {
                take(Piece::Word(string));
            }
        } else {
            scratch.split(string, exceptions, take);
        }
    }
}

/// What a text is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Piece<'a> {
    Word(&'a str),
    /// White space other than one space, which starts a sentence when one has ended.
    Gap,
}

/// Bytes of the white space that starts at a place.
fn space_at(text: &str, at: usize) -> Option<usize> {
    match text.as_bytes().get(at)? {
        b'\t'..=b'\r' | b' ' | 0x1c..=0x1f => Some(1),
        // No white space beyond U+3000.
        0xc2 | 0xe1..=0xe3 => {
            let char = text[at..].chars().next()?;
            is_space(char).then(|| char.len_utf8())
        }
        _ => None,
    }
}

fn parts<'a>(string: &'a str, ends: Ends, take: &mut impl FnMut(&'a str)) {
    let mut start = 0;
    for end in ends.into_iter().map(usize::from).take_while(|end| *end > 0) {
        take(&string[start..end]);
        start = end;
    }
}

/// Lists that are used again for the next string.
#[derive(Default)]
struct Scratch<'a> {
    words: Vec<&'a str>,
    suffixes: Vec<&'a str>,
    joints: Vec<Joint<'a>>,
}

impl<'a> Scratch<'a> {
    fn split(&mut self, string: &'a str, exceptions: &Exceptions, take: &mut impl FnMut(Piece<'a>)) {
        self.words.clear();
        self.suffixes.clear();
        let rest = self.strip(string, exceptions);
        if !rest.is_empty() {
            if let Some(ends) = exceptions.find(rest) {
                parts(rest, ends, &mut |part| self.words.push(part));
            } else {
                self.cut(rest);
            }
        }
        self.words.extend(self.suffixes.iter().rev());
        self.join(string, exceptions, take);
    }

    /// Takes the marks off both ends; the first go to the words.
    fn strip(&mut self, string: &'a str, exceptions: &Exceptions) -> &'a str {
        let mut rest = string;
        for _ in 0..AFFIXES_MAX {
            if rest.is_empty() || (rest.len() < string.len() && exceptions.find(rest).is_some()) {
                break;
            }
            let (prefix, after) = rest.split_at(prefix(rest));
            if !prefix.is_empty() && exceptions.find(after).is_some() {
                self.words.push(prefix);
                return after;
            }
            let suffix_at = after.len() - suffix(after);
            let (both, suffix) = after.split_at(suffix_at);
            if !suffix.is_empty() {
                let before = &rest[..rest.len() - suffix.len()];
                if exceptions.find(before).is_some() {
                    self.suffixes.push(suffix);
                    return before;
                }
                self.suffixes.push(suffix);
            }
            if !prefix.is_empty() {
                self.words.push(prefix);
            } else if suffix.is_empty() {
                break;
            }
            rest = both;
        }
        rest
    }

    /// Cuts a string at the marks inside it, unless it is a URL.
    fn cut(&mut self, string: &'a str) {
        let (mut start, mut at, mut before) = (0, 0, None);
        let mut is_url = None;
        while let Some(char) = string[at..].chars().next() {
            let mark = infix(before, char, &string[at..]);
            if mark == 0 || at == 0 {
                // A mark at the very start is none, and is passed over as a whole.
                let step = mark.max(char.len_utf8());
                before = string[at..at + step].chars().next_back();
                at += step;
                continue;
            }
            if *is_url.get_or_insert_with(|| is_url_like(string)) {
                break;
            }
            if at > start {
                self.words.push(&string[start..at]);
            }
            self.words.push(&string[at..at + mark]);
            before = string[at..at + mark].chars().next_back();
            at += mark;
            start = at;
        }
        if start < string.len() {
            self.words.push(&string[start..]);
        }
    }

    /// Puts neighbours together again that are an exception as one: `Mr` and `.`, `:` and `)`. The longest
    /// goes first, then the leftmost; where exceptions overlap, one that lost to another still bars a third.
    fn join(&mut self, string: &'a str, exceptions: &Exceptions, take: &mut impl FnMut(Piece<'a>)) {
        self.find_joints(string, exceptions);
        if self.joints.is_empty() {
            self.words.iter().for_each(|word| take(Piece::Word(word)));
            return;
        }
        self.joints.sort_by_key(|joint| (std::cmp::Reverse(joint.last - joint.first), joint.first));
        let mut seen = vec![false; self.words.len()];
        self.joints.retain(|joint| {
            let free = !seen[joint.first] && !seen[joint.last];
            seen[joint.first..=joint.last].fill(true);
            free
        });
        self.joints.sort_by_key(|joint| joint.first);
        let mut at = 0;
        for joint in &self.joints {
            self.words[at..joint.first].iter().for_each(|word| take(Piece::Word(word)));
            parts(joint.whole, joint.ends, &mut |part| take(Piece::Word(part)));
            at = joint.last + 1;
        }
        self.words[at..].iter().for_each(|word| take(Piece::Word(word)));
    }

    fn find_joints(&mut self, string: &'a str, exceptions: &Exceptions) {
        self.joints.clear();
        let mut start = 0;
        for (first, word) in self.words.iter().enumerate() {
            let mut end = start + word.len();
            for (last, word) in self.words.iter().enumerate().skip(first + 1) {
                end += word.len();
                if end - start > BYTES_MAX {
                    break;
                }
                let whole = &string[start..end];
                if let Some(ends) = exceptions.find(whole).filter(|_| prefix(whole) + suffix(whole) > 0) {
                    self.joints.push(Joint { first, last, whole, ends });
                }
            }
            start += word.len();
        }
    }
}

/// Neighbours that are an exception as one.
struct Joint<'a> {
    first: usize,
    last: usize,
    whole: &'a str,
    ends: Ends,
}

/// Bytes of the mark that a string starts with.
fn prefix(string: &str) -> usize {
    let mut chars = string.chars();
    let Some(first) = chars.next() else { return 0 };
    match first {
        'a'..='z' | '0'..='9' | '-' | '/' => 0,
        '+' => usize::from(!chars.next().is_some_and(|next| next.is_ascii_digit())),
        '.' => match string.bytes().take_while(|byte| *byte == b'.').count() {
            1 => 0,
            dots => dots,
        },
        'A' | 'C' | 'U' => {
            ["A$", "C$", "US$"].iter().find(|sign| string.starts_with(**sign)).map_or(0, |sign| sign.len())
        }
        first if is_prefix(first) => first.len_utf8(),
        _ => 0,
    }
}

/// Bytes of the longest mark that a string ends with.
fn suffix(string: &str) -> usize {
    let mut chars = string.chars();
    let Some(last) = chars.next_back() else { return 0 };
    let before = chars.next_back();
    let is_digit = |char: Option<char>| char.is_some_and(|char| char.is_ascii_digit());
    match last {
        'a'..='z' | 'A'..='Z' | '%' | '²' | '³' => {
            let possessive = matches!(last, 's' | 'S') && matches!(before, Some('\'' | '’'));
            if possessive { 1 + before.map_or(0, char::len_utf8) } else { unit(string) }
        }
        '0'..='9' | '-' | '/' => 0,
        '.' => match string.bytes().rev().take_while(|byte| *byte == b'.').count() {
            1 => usize::from(before.is_some_and(|char| ends_before_stop(char, chars.next_back()))),
            dots => dots,
        },
        '+' => usize::from(is_digit(before)),
        '…' if before == Some('…') => 2 * last.len_utf8(),
        last if is_suffix(last) => last.len_utf8(),
        last if is_currency(last) => currency(string),
        last if last.is_ascii() => 0,
        _ => unit(string),
    }
}

/// Whether a full stop after these two characters, the nearer first, is a word of its own.
fn ends_before_stop(near: char, far: Option<char>) -> bool {
    near.is_ascii_digit()
        || is_lower(near)
        || is_before_stop(near)
        || (is_upper(near) && far.is_some_and(is_upper))
        || (matches!(near, 'F' | 'C' | 'K') && far == Some('°'))
}

fn follows_digit(string: &str, mark: &str) -> bool {
    string.strip_suffix(mark).is_some_and(|number| number.ends_with(|char: char| char.is_ascii_digit()))
}

fn currency(string: &str) -> usize {
    let sign = ["US$", "A$", "C$"].into_iter().find(|sign| follows_digit(string, sign));
    let length = string.chars().next_back().map_or(0, char::len_utf8);
    let digit = string[..string.len() - length].ends_with(|char: char| char.is_ascii_digit());
    sign.map_or(if digit { length } else { 0 }, str::len)
}

fn unit(string: &str) -> usize {
    // The longest unit has few characters, and a digit stands before it.
    if !string.chars().rev().take(8).any(|char| char.is_ascii_digit()) {
        return 0;
    }
    UNITS.split(' ').filter(|unit| follows_digit(string, unit)).map(str::len).max().unwrap_or(0)
}

/// Bytes of the mark inside a string that is at the start of `rest`, behind `before`.
fn infix(before: Option<char>, first: char, rest: &str) -> usize {
    if matches!(first, 'a'..='z' | 'A'..='Z' | '0'..='9' | '_') {
        return 0;
    }
    let after = |mark: usize| rest[mark..].chars().next();
    let between = |left: fn(char) -> bool, mark: usize, right: fn(char) -> bool| {
        if before.is_some_and(left) && after(mark).is_some_and(right) { mark } else { 0 }
    };
    let digit = |char: char| char.is_ascii_digit();
    let word = |char: char| char.is_ascii_digit() || is_letter(char);
    match first {
        '.' => match rest.bytes().take_while(|byte| *byte == b'.').count() {
            1 => between(|char| is_lower(char) || is_quote(char), 1, |char| is_upper(char) || is_quote(char)),
            dots => dots,
        },
        '…' => first.len_utf8(),
        ',' => between(is_letter, 1, is_letter),
        '+' | '*' | '^' => between(digit, 1, |char| char.is_ascii_digit() || char == '-'),
        '-' => {
            let sum = between(digit, 1, |char| char.is_ascii_digit() || char == '-');
            let dashes = rest.bytes().take(4).take_while(|byte| *byte == b'-').count();
            if sum > 0 || dashes > 3 { sum } else { between(word, dashes, is_letter) }
        }
        '—' => match between(word, first.len_utf8(), is_letter) {
            0 if rest.starts_with("———") => 0,
            0 if rest.starts_with("——") => between(word, 2 * first.len_utf8(), is_letter),
            dash => dash,
        },
        '–' | '~' => between(word, first.len_utf8(), is_letter),
        ':' | '<' | '>' | '=' | '/' => between(word, 1, is_letter),
        first if is_icon(first) => first.len_utf8(),
        _ => 0,
    }
}

/// Whether a string reads like a URL, an e-mail address, or a host: `example.org/page`.
fn is_url_like(string: &str) -> bool {
    if !string.contains('.') {
        return false;
    }
    let is_scheme = |scheme: &str| {
        scheme.chars().count() >= 2
            && scheme.chars().all(|char| char.is_alphanumeric() || "_+-.".contains(char))
    };
    let after_scheme = string.split_once("://").filter(|(scheme, _)| is_scheme(scheme)).map(|(_, rest)| rest);
    // Whatever stands before an @ is a user.
    let users = string.match_indices('@').filter(|(at, _)| *at > 0).take(8);
    let hosts = users.map(|(at, _)| &string[at + 1..]);
    [Some(string), after_scheme].into_iter().flatten().chain(hosts).any(starts_with_host)
}

fn starts_with_host(string: &str) -> bool {
    let in_host = |char: char| is_host_letter(char) || matches!(char, '_' | '-' | '.');
    let (host, rest) = string.split_at(string.find(|char| !in_host(char)).unwrap_or(string.len()));
    let path = match rest.strip_prefix(':') {
        None => rest,
        Some(port) => {
            let digits = port.bytes().take_while(u8::is_ascii_digit).count();
            if !(2..=5).contains(&digits) {
                return false;
            }
            &port[digits..]
        }
    };
    (path.is_empty() || path.starts_with(['/', '?', '#'])) && (is_host_name(host) || is_public_address(host))
}

fn is_host_letter(char: char) -> bool {
    char.is_ascii_alphanumeric() || ('\u{a1}'..='\u{ffff}').contains(&char)
}

fn is_host_name(host: &str) -> bool {
    let Some((names, top)) = host.rsplit_once('.') else { return false };
    let is_name = |name: &str| {
        name.starts_with(is_host_letter) && name.ends_with(is_host_letter) && name.chars().count() <= 64
    };
    top.chars().all(is_lower) && (2..=63).contains(&top.chars().count()) && names.split('.').all(is_name)
}

/// An IPv4 address that is not of a private network.
fn is_public_address(host: &str) -> bool {
    let mut parts = host.split('.').map(|part| part.parse::<u8>().ok());
    let (Some(Some(a)), Some(Some(b)), Some(Some(_)), Some(Some(d)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let private = matches!((a, b), (10 | 127, _) | (169, 254) | (192, 168) | (172, 16..=31));
    (1..=223).contains(&a) && (1..=254).contains(&d) && !private
}

/// Counts sentences: one ends with a mark that ends sentences, and the next begins with the first word
/// after it that is no punctuation.
#[derive(Default)]
pub(super) struct Sentences {
    pub(super) count: usize,
    ended: bool,
    begun: bool,
}

impl Sentences {
    pub(super) fn take(&mut self, piece: Piece<'_>) {
        if !self.begun {
            (self.begun, self.count) = (true, 1);
        }
        let (is_end, is_punct) = match piece {
            Piece::Gap => (false, false),
            Piece::Word(word) => {
                let mut chars = word.chars();
                let one = chars.next().filter(|_| chars.as_str().is_empty());
                (one.is_some_and(is_terminal), word.chars().all(is_punctuation))
            }
        };
        if self.ended && !is_punct && !is_end {
            self.count += 1;
            self.ended = false;
        } else if is_end {
            self.ended = true;
        }
    }
}
