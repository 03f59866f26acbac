//! Finds phone numbers: with a country code, as North America and France write them, and in other national
//! forms behind a word that says so.

use std::ops::{Range, RangeInclusive};

use super::{before, behind, digits, has_word_ahead};

/// Digits of a phone number with its country code (ITU-T E.164: at most 15).
const INTERNATIONAL_DIGITS: RangeInclusive<usize> = 8..=15;
const SOLID_DIGITS_MIN: usize = 10;
const NATIONAL_DIGITS: RangeInclusive<usize> = 9..=11;

/// Words in front of a number that say what it is; so many bytes before it are looked at.
const CONTEXT_BYTES: usize = 24;
const CONTEXT: [&str; 16] = [
    "phone",
    "tel",
    "call",
    "fax",
    "mobile",
    "cell",
    "whatsapp",
    "sms",
    "ring",
    "rufnummer",
    "handy",
    "mobil",
    "téléphone",
    "portable",
    "cellulare",
    "móvil",
];

/// Calls `add` for each phone number.
pub fn find(text: &str, reserved: bool, add: &mut impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(u8::is_ascii_digit) {
        let start = at + found;
        let first = start - opening(text, at, start);
        let ends = phone_ends(bytes, start);
        at = digits_end(bytes, start);
        if before(text, first).is_some_and(|c| c.is_alphanumeric() || ".,-_/#=$€£+:(".contains(c)) {
            continue;
        }
        if first == start && !may_begin_phone(bytes, start, at) {
            continue;
        }
        let number = ends.iter().rev().map(|end| first..*end).find(|range| {
            !behind(text, range.end).is_some_and(|c| c.is_alphanumeric() || "_%°€$£".contains(c))
                && is_phone(text, range)
        });
        if let Some(range) = number {
            at = range.end;
            if reserved || !is_fictional(&digits(text, range.clone())) {
                add(range);
            }
        }
    }
}

/// A cheap look at the first group of a number without a sign: tables of numbers have many.
fn may_begin_phone(bytes: &[u8], start: usize, end: usize) -> bool {
    match (bytes[start], end - start) {
        (b'0', length) => length >= 2,
        // North America's own country code, and the area code behind it.
        (b'1', 1) => {
            let code = end + bytes[end..].iter().take(2).take_while(|byte| b" -./()".contains(byte)).count();
            digits_end(bytes, code) == code + 3
        }
        (_, length) => length == 3,
    }
}

/// Bytes of `+`, `(` or `(+` in front of a number.
fn opening(text: &str, from: usize, start: usize) -> usize {
    let ahead = &text[from..start];
    ["(+", "+", "("].iter().find(|sign| ahead.ends_with(**sign)).map_or(0, |sign| sign.len())
}

/// Where a number that starts at a digit may end: before a blank, or before what parts no digits. Groups of
/// digits have one or two of ` -./()` between them.
fn phone_ends(bytes: &[u8], start: usize) -> Vec<usize> {
    const SPAN_MAX: usize = 32;
    let mut ends = Vec::new();
    let mut end = digits_end(bytes, start);
    while end < start + SPAN_MAX {
        let joints = bytes[end..].iter().take(3).take_while(|byte| b" -./()".contains(byte)).count();
        let next = end + joints;
        if joints == 0 || joints > 2 || !bytes.get(next).is_some_and(u8::is_ascii_digit) {
            break;
        }
        if bytes[end..next].contains(&b' ') {
            ends.push(end);
        }
        end = digits_end(bytes, next);
    }
    ends.push(end);
    ends
}

fn digits_end(bytes: &[u8], start: usize) -> usize {
    start + bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn is_phone(text: &str, range: &Range<usize>) -> bool {
    let shown = &text[range.clone()];
    let digits = digits(text, range.clone());
    let groups: Vec<&str> =
        shown.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty()).collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let opened = shown.matches('(').count();
    if opened > 1 || opened != shown.matches(')').count() || digits.iter().all(|digit| *digit == digits[0]) {
        return false;
    }
    // One slash parts an area code from a number; several part a date.
    if shown.matches('/').count() > 1 {
        return false;
    }
    if shown.starts_with('+') || shown.starts_with("(+") {
        // `+12345-06-07` is a date, `+123456789` a number.
        let parted = match lengths[..] {
            [only] => only >= SOLID_DIGITS_MIN,
            [_, _] if shown.contains('.') => false,
            [1..=3, ..] => true,
            [first, ..] => first <= 5 && !shown.contains(['-', '.']),
            [] => false,
        };
        return parted && INTERNATIONAL_DIGITS.contains(&digits.len()) && digits[0] != 0;
    }
    let american = |lengths: &[usize]| matches!(lengths, [3, 3, 4]);
    let (lead, rest) = if groups.first() == Some(&"1") { (1, &lengths[1..]) } else { (0, &lengths[..]) };
    if american(rest) && digits[lead] >= 2 && digits[lead + 3] >= 2 {
        // Ten digits in groups parted by blanks alone can be anything.
        let joint = text.as_bytes().get(range.end - 5).copied();
        let same = |joint: u8| shown.bytes().filter(|byte| *byte == joint).count() >= 2;
        let written = shown.contains('(') || matches!(joint, Some(joint @ (b'-' | b'.')) if same(joint));
        return written || has_context(text, range.start);
    }
    let trunk = digits.first() == Some(&0) && digits.get(1).is_some_and(|digit| *digit != 0);
    let french = lengths == [2, 2, 2, 2, 2] && !shown.contains(['/', '(']);
    let national = NATIONAL_DIGITS.contains(&digits.len()) && groups.len() >= 2;
    let abroad =
        digits.starts_with(&[0, 0]) && INTERNATIONAL_DIGITS.contains(&(digits.len().saturating_sub(2)));
    (trunk && french) || ((trunk && national || abroad) && has_context(text, range.start))
}

fn has_context(text: &str, start: usize) -> bool {
    has_word_ahead(text, start, CONTEXT_BYTES, &CONTEXT)
}

/// 555-0100 to 555-0199 are kept for stories in North America; 555-1212 is directory assistance.
fn is_fictional(digits: &[u8]) -> bool {
    let local = digits.len().checked_sub(7).map(|from| &digits[from..]);
    matches!(digits.len(), 10 | 11)
        && local.is_some_and(|local| local.starts_with(&[5, 5, 5, 0, 1]) || local == [5, 5, 5, 1, 2, 1, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_with(reserved: bool, text: &str, expected: &[&str]) {
        let mut found = Vec::new();
        find(text, reserved, &mut |range| found.push(&text[range]));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn phone_numbers() {
        let check = |text: &str, expected: &[&str]| check_with(false, text, expected);
        check("+49 30 901820, +14155550134 +1 (415) 867-5309", &["+49 30 901820", "+1 (415) 867-5309"]);
        check("(+44) 20 7946 0958 or +353871234567.", &["(+44) 20 7946 0958", "+353871234567"]);
        check(
            "(212) 867-5309 212-867-5309 1-212.867.5309 212.867.5309",
            &["(212) 867-5309", "212-867-5309", "1-212.867.5309", "212.867.5309"],
        );
        check("212 867 5309", &[]);
        check("call 212 867 5309", &["212 867 5309"]);
        check("01 42 68 53 00", &["01 42 68 53 00"]);
        check("Tel. 030 1234567 / Fax: 0171/2345678", &["030 1234567", "0171/2345678"]);
        check("030 1234567 and 0171/2345678", &[]);
        check("2024-01-31 12:30 1999-2000 +12345-06-07 +1.12345679 C++ 17 ISBN 978-3-16-148410-0", &[]);
        check("+1000 8/11/02 a+1234567890 $4,155,550,134 555-55-5555 3.14159265358", &[]);
        check("+1 415-555-0134 (555) 555-1212", &[]);
        check_with(true, "+1 415-555-0134", &["+1 415-555-0134"]);
    }
}
