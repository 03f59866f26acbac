//! The tolerant parser: one object or array from a given offset, written out again as strict JSON,
//! which `serde_json` then reads. So numbers and escapes mean exactly what they mean there.

use std::collections::HashSet;

use serde_json::Value;

use super::{DEPTH_MAX, Kind, Repair};

/// A value, where it ended, and what was repaired inside it.
pub(super) struct Parsed {
    pub value: Value,
    pub end: usize,
    pub repairs: Vec<Repair>,
}

/// Why parsing stopped.
pub(super) struct Stop {
    pub kind: Kind,
    pub byte: usize,
    pub message: String,
    /// Whether a key or value had been read by then, so that this is meant to be JSON, and broken;
    /// if not, the bracket may be part of a sentence.
    pub committed: bool,
}

/// What a string is, which decides what may follow its closing quote.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Key,
    InObject,
    InArray,
}

/// Reads the object or array that starts at the bracket at `start`.
pub(super) fn parse(text: &str, start: usize) -> Result<Parsed, Stop> {
    let mut parser =
        Parser { text, at: start, depth: 0, committed: false, strict: String::new(), repairs: Vec::new() };
    parser.value(Role::InArray)?;
    match serde_json::from_str(&parser.strict) {
        Ok(value) => Ok(Parsed { value, end: parser.at, repairs: parser.repairs }),
        Err(error) => Err(parser.stop(Kind::Broken, start, format!("the value is not valid JSON: {error}"))),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Always at a character boundary.
    at: usize,
    depth: usize,
    committed: bool,
    /// What was read so far, as strict JSON.
    strict: String,
    repairs: Vec<Repair>,
}

impl<'a> Parser<'a> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn repaired(&mut self, repair: Repair) {
        if !self.repairs.contains(&repair) {
            self.repairs.push(repair);
        }
    }

    fn stop(&self, kind: Kind, byte: usize, message: impl Into<String>) -> Stop {
        let committed = self.committed || matches!(kind, Kind::TooLarge);
        Stop { kind, byte, message: message.into(), committed }
    }

    /// Stops for want of `wanted`: the text ended, or something else stands here.
    fn wanted(&self, wanted: &str) -> Stop {
        match self.rest().chars().next() {
            None => self.stop(Kind::CutOff, self.at, format!("the reply ends where {wanted} should follow")),
            Some(other) => {
                let message = format!("{wanted} should stand here, not `{}`", other.escape_debug());
                self.stop(Kind::Broken, self.at, message)
            }
        }
    }

    /// Skips white space and comments.
    fn skip(&mut self) -> Result<(), Stop> {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
            let rest = self.rest();
            let length = if rest.starts_with("//") || rest.starts_with('#') {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                let unclosed = || self.stop(Kind::CutOff, self.at, "this comment is never closed");
                rest.find("*/").ok_or_else(unclosed)? + 2
            } else {
                return Ok(());
            };
            self.at += length;
            self.repaired(Repair::Comments);
        }
    }

    fn value(&mut self, role: Role) -> Result<(), Stop> {
        match self.byte() {
            Some(b'{') => self.nested(Parser::object),
            Some(b'[') => self.nested(Parser::array),
            Some(b'"' | b'\'') => self.string(role),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.literal(),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<(), Stop>) -> Result<(), Stop> {
        if self.depth == DEPTH_MAX {
            let message = format!("the value is nested more than {DEPTH_MAX} deep");
            return Err(self.stop(Kind::TooLarge, self.at, message));
        }
        self.depth += 1;
        self.at += 1;
        read(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn object(&mut self) -> Result<(), Stop> {
        self.strict.push('{');
        let mut keys = HashSet::new();
        let mut more = true;
        self.skip()?;
        while self.byte() != Some(b'}') {
            if !more {
                return Err(self.wanted("`,` or `}`"));
            }
            if !keys.is_empty() {
                self.strict.push(',');
            }
            let (key_at, written) = (self.at, self.strict.len());
            self.key()?;
            let key: String = serde_json::from_str(&self.strict[written..]).unwrap_or_default();
            self.committed = true;
            self.skip()?;
            if self.byte() != Some(b':') {
                return Err(self.wanted("`:`"));
            }
            self.at += 1;
            self.strict.push(':');
            self.skip()?;
            self.value(Role::InObject)?;
            if let Some(twice) = keys.replace(key) {
                let message = format!("the key `{}` comes twice in one object", twice.escape_debug());
                return Err(self.stop(Kind::Ambiguous, key_at, message));
            }
            more = self.separator(b'}')?;
        }
        self.at += 1;
        self.strict.push('}');
        Ok(())
    }

    fn array(&mut self) -> Result<(), Stop> {
        self.strict.push('[');
        let mut first = true;
        let mut more = true;
        self.skip()?;
        while self.byte() != Some(b']') {
            if !more {
                return Err(self.wanted("`,` or `]`"));
            }
            if !first {
                self.strict.push(',');
            }
            first = false;
            self.value(Role::InArray)?;
            self.committed = true;
            more = self.separator(b']')?;
        }
        self.at += 1;
        self.strict.push(']');
        Ok(())
    }

    /// Skips to the next member or to `close`; says whether another member may follow.
    fn separator(&mut self, close: u8) -> Result<bool, Stop> {
        let value_end = self.at;
        self.skip()?;
        if self.byte() == Some(b',') {
            self.at += 1;
            self.skip()?;
            if self.byte() == Some(close) {
                self.repaired(Repair::TrailingComma);
            }
            return Ok(true);
        }
        // Two values side by side on one line could be one broken value: only where a bracket or a
        // line end separates them is it clear that a comma is missing.
        let nested = matches!(self.text.as_bytes()[value_end - 1], b'}' | b']');
        let apart = nested || self.text[value_end..self.at].contains('\n');
        let opens = match self.byte() {
            Some(b'"' | b'\'') => true,
            Some(b'{' | b'[' | b'-' | b'0'..=b'9') => close == b']',
            _ => false,
        };
        if apart && opens {
            self.repaired(Repair::MissingComma);
        }
        Ok(apart && opens)
    }

    fn key(&mut self) -> Result<(), Stop> {
        if matches!(self.byte(), Some(b'"' | b'\'')) {
            return self.string(Role::Key);
        }
        let name = identifier(self.rest());
        let after = self.rest()[name.len()..].trim_start();
        if name.is_empty() || !after.starts_with(':') {
            return Err(self.wanted("a quoted key"));
        }
        self.at += name.len();
        self.strict.push_str(&format!("\"{name}\""));
        self.repaired(Repair::UnquotedKey);
        Ok(())
    }

    fn number(&mut self) -> Result<(), Stop> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_alphanumeric() && !"+-._".contains(c)).unwrap_or(rest.len());
        let number = &rest[..end];
        if serde_json::from_str::<serde_json::Number>(number).is_err() {
            let message = format!("`{number}` is no number that JSON can hold");
            return Err(self.stop(Kind::Broken, self.at, message));
        }
        self.at += end;
        self.strict.push_str(number);
        Ok(())
    }

    fn literal(&mut self) -> Result<(), Stop> {
        let word = identifier(self.rest());
        let (strict, python) = match word {
            "true" | "false" | "null" => (word, false),
            "True" => ("true", true),
            "False" => ("false", true),
            "None" => ("null", true),
            "NaN" | "Infinity" => {
                let message = format!("`{word}` is no number that JSON can hold");
                return Err(self.stop(Kind::Broken, self.at, message));
            }
            _ => return Err(self.wanted("a value")),
        };
        self.at += word.len();
        self.strict.push_str(strict);
        if python {
            self.repaired(Repair::PythonLiterals);
        }
        Ok(())
    }

    fn string(&mut self, role: Role) -> Result<(), Stop> {
        let start = self.at;
        let quote = self.text.as_bytes()[start];
        if quote == b'\'' {
            self.repaired(Repair::SingleQuotes);
        }
        self.at += 1;
        self.strict.push('"');
        let mut inner_quotes = 0;
        loop {
            let Some(next) = self.rest().chars().next() else {
                // Inside quotes it is meant to be JSON, whatever came before.
                let stop = self.stop(Kind::CutOff, self.at, "the reply ends inside a string");
                return Err(Stop { committed: true, ..stop });
            };
            let width = next.len_utf8();
            match next {
                '"' | '\'' if next as u8 == quote => {
                    if self.closes(self.at + 1, role) {
                        break;
                    }
                    if !(quote == b'\'' && self.in_word(self.at)) {
                        inner_quotes += 1;
                    }
                    self.strict.push_str(if quote == b'"' { "\\\"" } else { "'" });
                    self.repaired(Repair::UnescapedInnerQuotes);
                    self.at += 1;
                }
                '"' => {
                    self.strict.push_str("\\\"");
                    self.at += 1;
                }
                '\\' => self.escape(quote),
                control if control < ' ' => {
                    self.strict.push_str(&format!("\\u{:04x}", control as u32));
                    self.repaired(Repair::RawControlInString);
                    self.at += 1;
                }
                other => {
                    self.strict.push(other);
                    self.at += width;
                }
            }
        }
        if inner_quotes % 2 == 1 {
            let message = "quotes inside this string are not escaped, so its end is not clear";
            let stop = self.stop(Kind::Ambiguous, start, message);
            return Err(Stop { committed: true, ..stop });
        }
        self.at += 1;
        self.strict.push('"');
        Ok(())
    }

    /// Whether the apostrophe at `at` stands between two letters or digits, as in `it's`.
    fn in_word(&self, at: usize) -> bool {
        let before = self.text[..at].chars().next_back();
        let after = self.text[at + 1..].chars().next();
        before.is_some_and(char::is_alphanumeric) && after.is_some_and(char::is_alphanumeric)
    }

    /// Reads the escape at the backslash here. One that JSON does not know keeps its backslash.
    fn escape(&mut self, quote: u8) {
        let rest = self.rest();
        let length = match rest.as_bytes().get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => unicode_escape_length(rest),
            Some(b'\'') if quote == b'\'' => {
                self.strict.push('\'');
                self.at += 2;
                return;
            }
            _ => 0,
        };
        if length == 0 {
            self.strict.push_str("\\\\");
            self.repaired(Repair::BadEscape);
            self.at += 1;
        } else {
            self.strict.push_str(&rest[..length]);
            self.at += length;
        }
    }

    /// Whether a quote whose next byte is at `after` ends its string, judged by what follows.
    ///
    /// Holds for every closing quote of strict JSON. Looks no further than the next key.
    fn closes(&self, after: usize, role: Role) -> bool {
        let rest = &self.text[after..];
        let body = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let new_line = rest[..rest.len() - body.len()].contains('\n');
        let Some(next) = body.bytes().next() else { return true };
        let behind_comma = || body[1..].trim_start_matches([' ', '\t', '\n', '\r']);
        match (role, next) {
            (_, b'/' | b'#') => comment_ahead(body),
            (Role::Key, _) => next == b':',
            (Role::InObject, b'}') | (Role::InArray, b']') => true,
            (Role::InObject, b',') => key_ahead(behind_comma()),
            (Role::InObject, b'"' | b'\'') => new_line && key_ahead(body),
            (Role::InArray, b',') => value_ahead(behind_comma()),
            (Role::InArray, b'"' | b'\'' | b'{' | b'[') => new_line,
            _ => false,
        }
    }
}

/// The name at the start of a text, as JavaScript and Python write names; may be empty.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { &text[..end] }
}

/// The length of a `\uXXXX` escape, or of a surrogate pair of them; 0 if it is no character.
fn unicode_escape_length(text: &str) -> usize {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hex { u32::from_str_radix(digits, 16).ok() } else { None }
    };
    match (unit(0), unit(6)) {
        (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
        (Some(0xD800..=0xDFFF) | None, _) => 0,
        (Some(_), _) => 6,
    }
}

fn comment_ahead(text: &str) -> bool {
    text.starts_with("//") || text.starts_with("/*") || text.starts_with('#')
}

/// Whether what follows a comma in an object is a key, the object's end or a comment.
fn key_ahead(text: &str) -> bool {
    let bytes = text.as_bytes();
    let key_length = match bytes.first() {
        None | Some(b'}') => return true,
        Some(quote @ (b'"' | b'\'')) => {
            let mut at = 1;
            while at < bytes.len() && bytes[at] != *quote {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            at + 1
        }
        Some(b'/' | b'#') => return comment_ahead(text),
        Some(_) => identifier(text).len(),
    };
    let Some(behind) = bytes.get(key_length..) else { return true };
    let behind = behind.trim_ascii_start();
    key_length > 0 && (behind.is_empty() || behind[0] == b':' || behind[0] == b'/' || behind[0] == b'#')
}

/// Whether what follows a comma in an array is a value, the array's end or a comment.
fn value_ahead(text: &str) -> bool {
    match text.bytes().next() {
        None | Some(b']' | b'"' | b'\'' | b'{' | b'[' | b'-' | b'0'..=b'9') => true,
        Some(b'/' | b'#') => comment_ahead(text),
        Some(_) => matches!(identifier(text), "true" | "false" | "null" | "True" | "False" | "None"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Repair::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, value: Value, repairs: &[Repair]) {
        match parse(text, 0) {
            Ok(parsed) => {
                assert_eq!((parsed.value, parsed.repairs), (value, repairs.to_vec()), "{text:?}");
                assert_eq!(parsed.end, text.len(), "{text:?}");
            }
            Err(stop) => panic!("{text:?}: {} at {}", stop.message, stop.byte),
        }
    }

    #[track_caller]
    fn check_not(text: &str, kind: Kind, byte: usize) {
        let stop = parse(text, 0).err().expect(text);
        assert_eq!((stop.kind, stop.byte), (kind, byte), "{text:?}: {}", stop.message);
    }

    #[test]
    fn commas_and_comments() {
        check("[1, 2,]", json!([1, 2]), &[TrailingComma]);
        check("{\"a\": [1,], }", json!({"a": [1]}), &[TrailingComma]);
        check("{\"a\": \"x\"\n \"b\": 1}", json!({"a": "x", "b": 1}), &[MissingComma]);
        check("[\"a\"\n\"b\"]", json!(["a", "b"]), &[MissingComma]);
        check("{\"a\": {} \"b\": 1}", json!({"a": {}, "b": 1}), &[MissingComma]);
        check("[1, // one\n 2 /* two */] ".trim(), json!([1, 2]), &[Comments]);
        check("{\"a\": \"x\", # why\n \"b\": 1}", json!({"a": "x", "b": 1}), &[Comments]);
        check_not("[1 2]", Kind::Broken, 3);
        check_not("[,]", Kind::Broken, 1);
        check_not("[1,,2]", Kind::Broken, 3);
        check_not("[1, ...]", Kind::Broken, 4);
        check_not("[1 /* ]", Kind::CutOff, 3);
    }

    #[test]
    fn scalars() {
        check("[True, False, None]", json!([true, false, null]), &[PythonLiterals]);
        check("{name: 1}", json!({"name": 1}), &[UnquotedKey]);
        let exact = "[18446744073709551615, -9223372036854775808, 0.1, 1E5, -0]";
        check(exact, serde_json::from_str(exact).unwrap(), &[]);
        for number in ["NaN", "Infinity", "-Infinity", "01", "1.", "1e999", "1_000", "12px"] {
            check_not(&format!("[{number}]"), Kind::Broken, 1);
        }
    }

    #[test]
    fn strings() {
        check("[\"a\nb\t\"]", json!(["a\nb\t"]), &[RawControlInString]);
        check(r#"["\d+\.\w"]"#, json!([r"\d+\.\w"]), &[BadEscape]);
        check(r#"["\u12G4 \ud83d\ude00"]"#, json!(["\\u12G4 😀"]), &[BadEscape]);
        check(r#"["\ud83d"]"#, json!([r"\ud83d"]), &[BadEscape]);
        check(r#"["it\'s"]"#, json!([r"it\'s"]), &[BadEscape]);
        check(r#"["\\", "\""]"#, json!(["\\", "\""]), &[]);
        let python = [SingleQuotes];
        check(r#"{'a': 'say "x"', 'b': 'it\'s'}"#, json!({"a": "say \"x\"", "b": "it's"}), &python);
        check("['it's']", json!(["it's"]), &[SingleQuotes, UnescapedInnerQuotes]);
    }

    #[test]
    fn inner_quotes() {
        let only = [UnescapedInnerQuotes];
        check(r#"{"a": "He said "yes" twice"}"#, json!({"a": "He said \"yes\" twice"}), &only);
        check(
            r#"{"a": ""yes", "no" and "x"", "b": 1}"#,
            json!({"a": "\"yes\", \"no\" and \"x\"", "b": 1}),
            &only,
        );
        check(r#"["He said "yes" twice", "b"]"#, json!(["He said \"yes\" twice", "b"]), &only);
        check_not(r#"["He said "yes", "no" and left"]"#, Kind::Ambiguous, 1);
        check_not(r#"{"a": "x "y", "b": 1}"#, Kind::Ambiguous, 6);
        check_not(r#"{"a": "x" "b": 1}"#, Kind::CutOff, 17);
    }
}
