//! Source code as tokens, whatever the language: what near-duplicate search compares programs by.
//!
//! A lexer that knows no language: comments and white space are dropped, names, numbers and strings are one
//! token each, every other character is one. It may take a piece of an unknown language for what it is not,
//! but always in the same way, so copies of a text have the same tokens. Knows no shingles.

use unicode_normalization::char::is_combining_mark;

/// A token: what it is and how it is written. Strings come without their quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    Name(&'a str),
    Number(&'a str),
    String(&'a str),
    Sign(&'a str),
}

/// Hands over the tokens of a text in their order, in time that grows with its length.
///
/// Comments are `/* … */`; from `#` to the end of the line, where the `#` starts the line or follows white
/// space and a space, `!`, `#` or the end of the line follows (so `#include` and `#[derive]` are code); from
/// ` -- ` and `//` likewise, but `//` divides in texts that have a `#` comment. Strings stand between `"`, `'`
/// or `` ` `` on one line, where a backslash takes the next character along, or between three of them over
/// several lines. Quotes and `/*` that nothing closes are signs.
pub fn tokens<'a>(text: &'a str, mut take: impl FnMut(Token<'a>)) {
    let slashes_divide = has_hash_comment(text);
    let mut lexer = Lexer { text, at: 0, slashes_divide, unclosed: [false; 4], signs_before: [0; 4] };
    while let Some(c) = lexer.peek() {
        if let Some(token) = lexer.next_token(c) {
            take(token);
        }
    }
}

/// What may stay open to the end of the text, so that its end is looked for once and not again and again.
const CLOSERS: [&str; 4] = ["*/", "\"\"\"", "'''", "```"];

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    slashes_divide: bool,
    /// The closers that do not come again.
    unclosed: [bool; 4],
    /// Where a quote is a sign since one of its kind was left open: up to the end of that line. By the numbers
    /// of [`CLOSERS`].
    signs_before: [usize; 4],
}

fn has_hash_comment(text: &str) -> bool {
    text.match_indices('#').any(|(at, _)| is_set_off(text, at, 1, "!#"))
}

/// Whether a mark of this length begins a line or follows white space, and a space, the end of the line or one
/// of the characters in `after` follows.
fn is_set_off(text: &str, at: usize, length: usize, after: &str) -> bool {
    let before = text[..at].chars().next_back();
    let next = text[at + length..].chars().next();
    before.is_none_or(char::is_whitespace) && next.is_none_or(|c| c.is_whitespace() || after.contains(c))
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric() || (!c.is_ascii() && is_combining_mark(c))
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Passes so many bytes and returns them.
    fn pass(&mut self, length: usize) -> &'a str {
        let passed = &self.rest()[..length];
        self.at += length;
        passed
    }

    fn pass_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        self.pass(rest.find(|c| !belongs(c)).unwrap_or(rest.len()))
    }

    /// The token that begins with `c`; none for what does not count.
    fn next_token(&mut self, c: char) -> Option<Token<'a>> {
        if c.is_whitespace() {
            self.pass_while(char::is_whitespace);
            return None;
        }
        if c.is_ascii_digit() {
            return Some(Token::Number(self.number()));
        }
        if is_name(c) {
            return Some(Token::Name(self.pass_while(is_name)));
        }
        if self.is_line_comment(c) {
            self.pass_while(|c| c != '\n');
            return None;
        }
        if self.rest().starts_with("/*")
            && let Some(length) = self.closed_by(0, 2)
        {
            self.pass(length);
            return None;
        }
        if let Some(token) = self.string(c) {
            return Some(token);
        }
        Some(Token::Sign(self.pass(c.len_utf8())))
    }

    fn is_line_comment(&self, c: char) -> bool {
        match c {
            '#' => is_set_off(self.text, self.at, 1, "!#"),
            '/' => !self.slashes_divide && self.rest().starts_with("//"),
            '-' => self.rest().starts_with("--") && is_set_off(self.text, self.at, 2, "-"),
            _ => false,
        }
    }

    /// Digits, letters and underscores, and points between them: `0xff`, `1_000.5`, `1e9`.
    fn number(&mut self) -> &'a str {
        let bytes = self.rest().as_bytes();
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let goes_on = |at: usize| {
            is_part(bytes[at]) || (bytes[at] == b'.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit))
        };
        let length = (0..bytes.len()).find(|at| !goes_on(*at)).unwrap_or(bytes.len());
        self.pass(length)
    }

    /// Bytes up to and with the closer, which is looked for behind the first `opener` bytes.
    fn closed_by(&mut self, closer: usize, opener: usize) -> Option<usize> {
        if self.unclosed[closer] {
            return None;
        }
        let found = self.rest()[opener..].find(CLOSERS[closer]);
        self.unclosed[closer] = found.is_none();
        Some(opener + found? + CLOSERS[closer].len())
    }

    fn string(&mut self, quote: char) -> Option<Token<'a>> {
        let three = match quote {
            '"' => 1,
            '\'' => 2,
            '`' => 3,
            _ => return None,
        };
        if self.rest().starts_with(CLOSERS[three])
            && let Some(length) = self.closed_by(three, 3)
        {
            let whole = self.pass(length);
            return Some(Token::String(&whole[3..length - 3]));
        }
        if self.at < self.signs_before[three] {
            return None;
        }
        match end_of_string(self.rest(), quote) {
            Ok(length) => Some(Token::String(&self.pass(length)[1..length - 1])),
            Err(length) => {
                self.signs_before[three] = self.at + length;
                None
            }
        }
    }
}

/// The bytes of the string that a text begins with, both quotes with it; or those of the line that it does not
/// end in.
fn end_of_string(text: &str, quote: char) -> Result<usize, usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return Err(at),
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Ok(at + 1),
            _ => {}
        }
    }
    Err(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tokens as words: strings in `<…>`.
    fn check(text: &str, expected: &str) {
        let mut found = Vec::new();
        tokens(text, |token| {
            found.push(match token {
                Token::Name(text) | Token::Number(text) | Token::Sign(text) => text.to_owned(),
                Token::String(text) => format!("<{text}>"),
            });
        });
        assert_eq!(found.join(" "), expected, "{text:?}");
    }

    #[test]
    fn what_counts_in_several_languages() {
        check("def f(x_1):\n    return x_1 // 2  # half\n", "def f ( x_1 ) : return x_1 / / 2");
        check("let y = 1_000.5e3; // big\n/* gone\n */ y.z()", "let y = 1_000.5e3 ; y . z ( )");
        check("SELECT a -- why\nFROM b", "SELECT a FROM b");
        check("i--; j-- ;", "i - - ; j - - ;");
        check("#include <a.h>\n#!x\n# y\n##\n#[test]", "# include < a . h > # [ test ]");
        check("0xFF 3.14 1..2 x.y a.1", "0xFF 3.14 1 . . 2 x . y a . 1");
        check("größe = é̂x", "größe = é̂x");
    }

    #[test]
    fn strings_are_one_token_whatever_their_quotes() {
        check(r#"f("a # b", 'c\'d', `e`)"#, r"f ( <a # b> , <c\'d> , <e> )");
        check("\"\"\"Doc\n// string\"\"\" x", "<Doc\n// string> x");
        check("\"http://x\" // y", "<http://x>");
        check("don't", "don ' t");
        check("\"open\nx\"", "\" open x \"");
        check("\"\"\" /* ' \n", "<> \" / * '");
        check("\"\" ''", "<> <>");
    }

    #[test]
    fn what_never_closes_costs_no_more_than_its_length() {
        for piece in ["\"\"\" ", "/* ", "''' ", "``` ", "'\\", "\"a", "' ", "# ", "\0", "é\u{301}"] {
            let mut count = 0_usize;
            let text = piece.repeat(200_000);
            tokens(&text, |_| count += 1);
            assert!(count <= text.len());
        }
    }

    proptest! {
        /// Tokens are pieces of the text in its order, and none is white space.
        #[test]
        fn any_text_is_lexed(text in "([a-z0-9_ \n\t\"'`#/*.\\\\-]|[é漢\u{301}\0]){0,60}") {
            let mut from = 0;
            tokens(&text, |token| {
                let (Token::Name(piece) | Token::Number(piece) | Token::String(piece) | Token::Sign(piece)) = token;
                let at = piece.as_ptr() as usize - text.as_ptr() as usize;
                assert!(at >= from && at + piece.len() <= text.len());
                from = at + piece.len();
                assert!(matches!(token, Token::String(_)) || !piece.contains(char::is_whitespace) && !piece.is_empty());
            });
        }
    }
}
