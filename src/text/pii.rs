//! Finds what names or reaches a person in a text: e-mail addresses, phone numbers, bank accounts, cards, IP
//! addresses; and secrets (`secrets.rs`). Says where; changes nothing.
//!
//! Each kind is looked for on its own, in one pass from left to right whose look ahead and back is
//! bounded, so that time grows with the length of a text alone. What has a check digit is checked.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use schemars::JsonSchema;
use serde::Deserialize;

use super::secrets;

mod phone;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Keys, tokens and passwords.
    Secret,
    /// E-mail addresses.
    Email,
    /// International bank account numbers whose check digits are right.
    Iban,
    /// Numbers of payment cards whose check digit is right.
    Card,
    /// IPv4 and IPv6 addresses.
    Ip,
    /// Phone numbers.
    Phone,
}

impl Kind {
    /// All kinds; where two overlap, the one that comes first here stays.
    pub const ALL: [Kind; 6] = [Kind::Secret, Kind::Email, Kind::Iban, Kind::Card, Kind::Ip, Kind::Phone];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Secret => "secret",
            Kind::Email => "email",
            Kind::Iban => "iban",
            Kind::Card => "card",
            Kind::Ip => "ip",
            Kind::Phone => "phone",
        }
    }
}

/// Something found, with its place in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub kind: Kind,
    pub range: Range<usize>,
}

/// What is found in a text, in order, without overlaps. With `reserved` also what standards set apart for
/// examples and private networks.
pub fn find(text: &str, kinds: &[Kind], reserved: bool) -> Vec<Found> {
    let mut found = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| kinds.contains(kind)) {
        let mut add = |range: Range<usize>| found.push(Found { kind, range });
        match kind {
            Kind::Secret => secrets::find(text, &mut add),
            Kind::Email => emails(text, reserved, &mut add),
            Kind::Iban => ibans(text, &mut add),
            Kind::Card => cards(text, &mut add),
            Kind::Ip => addresses(text, reserved, &mut add),
            Kind::Phone => phone::find(text, reserved, &mut add),
        }
    }
    without_overlaps(found)
}

/// Of things that overlap the earlier kind stays; of one kind the one that begins first.
fn without_overlaps(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by_key(|one| (one.range.start, one.kind));
    let mut kept: Vec<Found> = Vec::with_capacity(found.len());
    for one in found {
        let loses = |last: &Found| last.range.end > one.range.start && last.kind <= one.kind;
        if kept.last().is_some_and(loses) {
            continue;
        }
        while kept.pop_if(|last| last.range.end > one.range.start).is_some() {}
        kept.push(one);
    }
    kept
}

/// The same value in one spelling: what makes two findings the same.
pub fn canonical(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Email => value.to_ascii_lowercase(),
        Kind::Phone | Kind::Card | Kind::Iban => {
            value.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect()
        }
        Kind::Ip => value.parse::<Ipv6Addr>().map_or_else(|_| value.to_owned(), |ip| ip.to_string()),
        Kind::Secret => value.to_owned(),
    }
}

/// The character before a place, and the one behind it.
fn before(text: &str, at: usize) -> Option<char> {
    text[..at].chars().next_back()
}

fn behind(text: &str, at: usize) -> Option<char> {
    text[at..].chars().next()
}

/// Longest local part and longest domain (RFC 5321, section 4.5.3.1).
const LOCAL_MAX: usize = 64;
const DOMAIN_MAX: usize = 255;

/// Domains that no one has (RFC 2606, RFC 6761).
const RESERVED_DOMAINS: [&str; 7] =
    ["example.com", "example.org", "example.net", "example", "test", "invalid", "localhost"];

/// Endings of file names such as `logo@2x.png`, which are no domains.
const FILE_ENDINGS: [&str; 12] =
    ["png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "html", "php", "json", "xml"];

fn emails(text: &str, reserved: bool, add: &mut impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut free = 0;
    for (at, _) in text.match_indices('@') {
        let is_local = |byte: &u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(byte);
        let local =
            bytes[free..at].iter().rev().take(LOCAL_MAX + 1).take_while(|byte| is_local(byte)).count();
        let mut start = at - local;
        while bytes[start..at].first().is_some_and(|byte| !byte.is_ascii_alphanumeric()) {
            start += 1;
        }
        let whole =
            local <= LOCAL_MAX && !before(text, start).is_some_and(|c| c.is_alphanumeric() || c == '@');
        let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
        let host = bytes[at + 1..].iter().take(DOMAIN_MAX + 1).take_while(|byte| is_host(byte)).count();
        let host = text[at + 1..at + 1 + host].trim_end_matches(['.', '-']);
        let end = at + 1 + host.len();
        let sound = start < at && whole && bytes[at - 1] != b'.' && !text[start..at].contains("..");
        if sound && is_domain(host) && !behind(text, end).is_some_and(|c| c.is_alphanumeric() || c == '@') {
            if reserved || !is_reserved_domain(host) {
                add(start..end);
            }
            free = end;
        }
    }
}

fn is_domain(host: &str) -> bool {
    let labels: Vec<&str> = host.split('.').collect();
    let is_label =
        |label: &&str| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
    let Some(last) = labels.last() else { return false };
    let top = last.to_ascii_lowercase();
    labels.len() >= 2
        && host.len() <= DOMAIN_MAX
        && labels.iter().all(is_label)
        && (2..=24).contains(&top.len())
        && (top.bytes().all(|byte| byte.is_ascii_lowercase()) || top.starts_with("xn--"))
        && !FILE_ENDINGS.contains(&&*top)
}

fn is_reserved_domain(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let within =
        |domain: &&str| host.strip_suffix(*domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    RESERVED_DOMAINS.iter().any(within)
}

/// How many characters the IBAN of a country has (SWIFT's IBAN registry, release 98).
const IBAN_LENGTHS: [(&str, usize); 85] = [
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BI", 27),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DJ", 27),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FK", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("SO", 23),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
];

fn ibans(text: &str, add: &mut impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 15 <= bytes.len() {
        let start = at;
        at += 1;
        let head = &bytes[start..start + 4];
        let shaped = head[0].is_ascii_uppercase()
            && head[1].is_ascii_uppercase()
            && head[2].is_ascii_digit()
            && head[3].is_ascii_digit();
        if !shaped || before(text, start).is_some_and(char::is_alphanumeric) {
            continue;
        }
        let country = IBAN_LENGTHS.iter().find(|(country, _)| country.as_bytes() == &head[..2]);
        let Some((_, length)) = country else { continue };
        let Some((end, spelled)) = spelled_iban(bytes, start, *length) else { continue };
        if remainder_97(&spelled) == 1 && !behind(text, end).is_some_and(char::is_alphanumeric) {
            add(start..end);
            at = end;
        }
    }
}

/// The end of so many letters and digits that may stand in groups, and they without what is between.
fn spelled_iban(bytes: &[u8], start: usize, length: usize) -> Option<(usize, Vec<u8>)> {
    let mut spelled = Vec::with_capacity(length);
    let mut at = start;
    while spelled.len() < length {
        let byte = *bytes.get(at)?;
        at += 1;
        if byte.is_ascii_digit() || byte.is_ascii_uppercase() {
            spelled.push(byte);
        } else {
            // One blank or hyphen between groups of four.
            let parts = byte == b' ' || byte == b'-';
            if !parts || spelled.len() % 4 != 0 || !bytes.get(at)?.is_ascii_alphanumeric() {
                return None;
            }
        }
    }
    Some((at, spelled))
}

/// ISO 7064, MOD 97-10, with the first four characters last and letters as 10 to 35.
fn remainder_97(iban: &[u8]) -> u32 {
    let (head, rest) = iban.split_at(4);
    rest.iter().chain(head).fold(0, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        _ => (remainder * 100 + u32::from(byte - b'A') + 10) % 97,
    })
}

/// Where each run of a number's digits stands.
type Groups = Vec<Range<usize>>;

/// A number has at most so many groups; what is longer is a table.
const GROUPS_MAX: usize = 8;

/// Runs of digits with one of `joints` between two of them, as a person writes a number. Rows with more
/// groups than numbers have are left out.
fn numbers(text: &str, joints: &'static [u8]) -> impl Iterator<Item = Groups> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at += bytes[at..].iter().position(u8::is_ascii_digit)?;
            let mut groups = Vec::new();
            loop {
                let start = at;
                at += bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                if groups.len() <= GROUPS_MAX {
                    groups.push(start..at);
                }
                let joined = bytes.get(at).is_some_and(|byte| joints.contains(byte))
                    && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
                if !joined {
                    break;
                }
                at += 1;
            }
            if groups.len() <= GROUPS_MAX {
                return Some(groups);
            }
        }
    })
}

fn digits(text: &str, range: Range<usize>) -> Vec<u8> {
    text.as_bytes()[range].iter().filter(|byte| byte.is_ascii_digit()).map(|byte| byte - b'0').collect()
}

fn cards(text: &str, add: &mut impl FnMut(Range<usize>)) {
    for groups in numbers(text, b" -") {
        let mut first = 0;
        while let Some(start) = groups.get(first) {
            let lengths: Vec<usize> = groups[first..].iter().map(Range::len).collect();
            let taken = match lengths[..] {
                [13..=19, ..] => 1,
                [4, 6, 5, ..] => 3,
                [4, 4, 4, 4, ..] => 4,
                _ => 0,
            };
            let range = start.start..groups[first + taken.max(1) - 1].end;
            let alone = !before(text, range.start).is_some_and(|c| c.is_alphanumeric() || ".,_#".contains(c))
                && !behind(text, range.end).is_some_and(|c| c.is_alphanumeric() || c == '_');
            if taken > 0 && alone && is_card(&digits(text, range.clone())) {
                add(range);
                first += taken;
            } else {
                first += 1;
            }
        }
    }
}

/// Whether an issuer has numbers that begin so and are so long (ISO/IEC 7812; the issuers' ranges), and the
/// check digit is right.
fn is_card(digits: &[u8]) -> bool {
    if digits.len() < 13 {
        return false;
    }
    let first = |count: usize| digits[..count].iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(*digit));
    let length = digits.len();
    let issued = match (first(1), first(2), first(3), first(4)) {
        (4, ..) => matches!(length, 13 | 16 | 19),
        (_, 51..=55, ..) | (.., 2221..=2720) => length == 16,
        (_, 34 | 37, ..) => length == 15,
        (_, 36 | 38 | 39, ..) | (_, _, 300..=305, _) => length == 14,
        (.., 6011) | (_, _, 644..=649, _) | (_, 62 | 65, ..) => (16..=19).contains(&length),
        (.., 3528..=3589) => (16..=19).contains(&length),
        _ => false,
    };
    issued && luhn(digits) && digits.iter().any(|digit| *digit != digits[0])
}

/// ISO/IEC 7812-1, annex B.
fn luhn(digits: &[u8]) -> bool {
    let weigh = |(place, digit): (usize, &u8)| {
        let weighed = if place % 2 == 1 { digit * 2 } else { *digit };
        u32::from(weighed / 10 + weighed % 10)
    };
    digits.iter().rev().enumerate().map(weigh).sum::<u32>() % 10 == 0
}

fn addresses(text: &str, reserved: bool, add: &mut impl FnMut(Range<usize>)) {
    for groups in numbers(text, b".") {
        let [first, .., last] = &groups[..] else { continue };
        let range = first.start..last.end;
        let named = text[..range.start].ends_with('/') && !text[..range.start].ends_with("//");
        let alone = !named
            && !before(text, range.start).is_some_and(|c| c.is_alphanumeric() || ".-_".contains(c))
            && !behind(text, range.end).is_some_and(|c| c.is_alphanumeric() || c == '_');
        let Ok(address) = text[range.clone()].parse::<Ipv4Addr>() else { continue };
        let is_public = is_public_v4(address);
        // Numbers of versions, sections and objects begin with small ones.
        let numbering = is_public && address.octets().iter().take(2).all(|part| *part < SMALL)
            || has_word_ahead(text, range.start, NUMBERING_BYTES, &NUMBERING);
        if alone && !numbering && (reserved || is_public) {
            add(range);
        }
    }
    long_addresses(text, reserved, add);
}

/// Less than one address in a hundred begins with two numbers below this; nearly all versions do.
const SMALL: u8 = 20;

/// What stands before four numbers that are no address: versions, sections, enzymes.
const NUMBERING: [&str; 6] = ["version", "revision", "release", "section", "ec ", "rev "];
const NUMBERING_BYTES: usize = 10;

/// Outside of the blocks that IANA keeps for special purposes (RFC 6890 and its registry).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || a >= 224
        || (a, b & 0xc0) == (100, 64)
        || (a, b & 0xfe) == (198, 18)
        || (a, b, c) == (192, 0, 0);
    !special
}

/// Longest text of an IPv6 address: six groups and an IPv4 address.
const ADDRESS_MAX: usize = 45;

fn long_addresses(text: &str, reserved: bool, add: &mut impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let mut free = 0;
    for (colon, _) in text.match_indices(':') {
        if colon < free {
            continue;
        }
        let start = colon - bytes[free..colon].iter().rev().take(5).take_while(|byte| is_part(byte)).count();
        let length = bytes[start..].iter().take(ADDRESS_MAX + 2).take_while(|byte| is_part(byte)).count();
        let part = text[start..start + length].trim_end_matches('.');
        let part = part.strip_suffix(':').filter(|rest| !rest.ends_with(':')).unwrap_or(part);
        free = start + length;
        let colons = part.bytes().filter(|byte| *byte == b':').count();
        if colons < 2 {
            continue;
        }
        let alone = !before(text, start).is_some_and(char::is_alphanumeric)
            && !behind(text, start + part.len()).is_some_and(char::is_alphanumeric);
        let Ok(address) = part.parse::<Ipv6Addr>() else { continue };
        let groups = part.split(':').filter(|group| !group.is_empty()).count();
        // `a::b` is a path in code as well.
        let written_out = groups >= 3 && part.bytes().any(|byte| byte.is_ascii_digit());
        if alone && written_out && (reserved || is_public_v6(address)) {
            add(start..start + part.len());
        }
    }
}

/// Global unicast (2000::/3) without documentation (RFC 3849, RFC 9637) and benchmarks (RFC 5180).
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    a & 0xe000 == 0x2000 && (a, b) != (0x2001, 0xdb8) && (a, b) != (0x2001, 2) && a & 0xfff0 != 0x3ff0
}

/// Whether one of some small words stands in the bytes before a place.
fn has_word_ahead(text: &str, start: usize, bytes: usize, words: &[&str]) -> bool {
    let mut from = start.saturating_sub(bytes);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let ahead = text[from..start].to_lowercase();
    words.iter().any(|word| ahead.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is found in a text, in order.
    fn check(kind: Kind, text: &str, expected: &[&str]) {
        let found = find(text, &[kind], false);
        let found: Vec<&str> = found.iter().map(|one| &text[one.range.clone()]).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn email_addresses() {
        let check = |text: &str, expected: &[&str]| check(Kind::Email, text, expected);
        check("Write to <Jane.Doe+x@mail.acme.co.uk>.", &["Jane.Doe+x@mail.acme.co.uk"]);
        check("a@b.io,c@d.io;mailto:e@f.io?x", &["a@b.io", "c@d.io", "e@f.io"]);
        check("“j@acme.io”、k@acme.io。", &["j@acme.io", "k@acme.io"]);
        check("me@example.com you@sub.example.org x@y.test", &[]);
        check("logo@2x.png @handle a@b a..b@c.io .@c.io a@-b.io a@b.c a@b.123 user@localhost", &[]);
        check("jürgen@acme.io a@b.io@c.io a@@b.io", &[]);
        let long = format!("{}@acme.io", "a".repeat(65));
        check(&long, &[]);
        check(&long[1..], &[&long[1..]]);
        assert_eq!(find("me@example.com", &[Kind::Email], true).len(), 1);
    }

    #[test]
    fn bank_accounts() {
        let check = |text: &str, expected: &[&str]| check(Kind::Iban, text, expected);
        check("IBAN: DE89 3704 0044 0532 0130 00 BIC COBADEFF", &["DE89 3704 0044 0532 0130 00"]);
        check("GB29NWBK60161331926819, NO9386011117947.", &["GB29NWBK60161331926819", "NO9386011117947"]);
        check("FR14-2004-1010-0505-0001-3M02-606", &["FR14-2004-1010-0505-0001-3M02-606"]);
        check("DE88 3704 0044 0532 0130 00", &[]);
        check("XDE89370400440532013000 DE893704004405320130001 DE89 3704", &[]);
        check("de89370400440532013000 XX893704004405320130", &[]);
    }

    #[test]
    fn cards() {
        let check = |text: &str, expected: &[&str]| check(Kind::Card, text, expected);
        check("Visa 4111 1111 1111 1111, exp 12/27", &["4111 1111 1111 1111"]);
        check("5555-5555-5555-4444 378282246310005", &["5555-5555-5555-4444", "378282246310005"]);
        check("3782 822463 10005 and 6011111111111117", &["3782 822463 10005", "6011111111111117"]);
        check("4111 1111 1111 1112", &[]);
        check("0.4111111111111111 x4111111111111111 41111111111111111111 9111111111111111", &[]);
        check("12 27 4111 1111 1111 1111 123", &["4111 1111 1111 1111"]);
        check("1 2 3 4 5 6 7 8 4111 1111 1111 1111", &[]);
    }

    #[test]
    fn addresses_of_machines() {
        let check = |text: &str, expected: &[&str]| check(Kind::Ip, text, expected);
        check("from 93.184.216.34, http://81.2.69.142:80/", &["93.184.216.34", "81.2.69.142"]);
        check("10.0.0.1 192.168.1.1 127.0.0.1 203.0.113.7 100.64.3.4 255.255.255.255", &[]);
        check("3.1.2.4 2.5.29.35 version 21.0.33.1 Chrome/91.0.44.124 256.1.1.1 91.2.3.4.5 91.2.3", &[]);
        check("[2606:2800:220:1:248:1893:25c8:1946]:80", &["2606:2800:220:1:248:1893:25c8:1946"]);
        check("2a01:4f8::1, 2a01:4f8::2: ok", &["2a01:4f8::1", "2a01:4f8::2"]);
        check("fe80::1 2001:db8::1 ::1 std::io a::b 12:30:45 dead:beef::cafe 00:1b:63:84:45:e6", &[]);
        assert_eq!(find("10.0.0.1 fd00::1:2 203.0.113.7", &[Kind::Ip], true).len(), 3);
    }

    #[test]
    fn of_overlaps_the_surer_stays() {
        let kinds = |text: &str| -> Vec<(Kind, String)> {
            let found = find(text, &Kind::ALL, false);
            found.into_iter().map(|one| (one.kind, text[one.range].to_owned())).collect()
        };
        let url = ["ftp://joe:s3cr", "et@acme.io/"].concat();
        assert_eq!(kinds(&url), [(Kind::Secret, "joe:s3cret".to_owned())]);
        assert_eq!(kinds("call 4111-1111-1111-1111"), [(Kind::Card, "4111-1111-1111-1111".to_owned())]);
    }

    #[test]
    fn the_same_value_is_spelled_in_many_ways() {
        assert_eq!(canonical(Kind::Phone, "+1 (415) 867-5309"), canonical(Kind::Phone, "1.415.867.5309"));
        assert_eq!(canonical(Kind::Email, "A@B.io"), "a@b.io");
        assert_eq!(canonical(Kind::Ip, "2A01:4F8:0::1"), "2a01:4f8::1");
    }

    #[test]
    fn long_and_hostile_texts_take_one_pass() {
        for part in [
            "1 ",
            "1",
            "a@",
            "a@a.",
            "@",
            "1.",
            "0-",
            "+1(",
            "::",
            "1:",
            "DE89 ",
            "4111 ",
            "://a:",
            "sk-",
            "eyJ",
            "eyJa.eyJ",
            "-----BEGIN PRIVATE KEY-----",
            "api_key=\"",
            "TOKEN=",
            "hooks.slack.com/services/T",
            "\u{202e}",
            "\0",
        ] {
            find(&part.repeat(1_000_000 / part.len()), &Kind::ALL, true);
        }
    }

    proptest! {
        #[test]
        fn findings_are_in_order_and_apart(text in "([0-9+() .:/@a-fA-F-]|4111|DE89|\\PC){0,80}") {
            let mut end = 0;
            for one in find(&text, &Kind::ALL, true) {
                prop_assert!(end <= one.range.start && one.range.start < one.range.end);
                prop_assert!(text.get(one.range.clone()).is_some());
                end = one.range.end;
            }
        }
    }
}
