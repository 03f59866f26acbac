//! What of a text is laid beside an item: its functions, and passages short enough to be about one thing.

use std::ops::Range;

/// A text up to this length is one passage; a longer one is cut, mostly between paragraphs.
const PASSAGE_BYTES: usize = 2_000;

/// Longest Python function that is looked at: no benchmark's solution comes near.
pub const FUNCTION_BYTES_MAX: usize = 16 << 10;

/// The outermost functions that look like Python's, wherever they stand: in a module, in a class, between the
/// fences of Markdown. A function ends before the first line that is indented no deeper than its `def`.
pub fn functions(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut open: Option<Open> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        let (blank, indent) =
            (line.trim().is_empty(), line.len() - line.trim_start_matches([' ', '\t']).len());
        if let Some(function) = &mut open {
            if function.in_head || blank || indent > function.indent {
                function.take(line, end, blank);
            } else {
                found.extend(open.take().map(|function| function.range));
            }
        }
        let head = line.trim_start();
        if open.is_none() && (head.starts_with("def ") || head.starts_with("async def ")) {
            let mut function = Open { range: at..end, indent, in_head: true, brackets: 0 };
            function.take(line, end, false);
            open = Some(function);
        }
        at = end;
    }
    found.extend(open.map(|function| function.range));
    found.retain(|range| range.len() < FUNCTION_BYTES_MAX);
    found
}

struct Open {
    range: Range<usize>,
    indent: usize,
    /// Up to the line whose colon opens the body: it may be indented as it likes.
    in_head: bool,
    brackets: i32,
}

impl Open {
    fn take(&mut self, line: &str, end: usize, blank: bool) {
        if self.in_head {
            for byte in line.bytes() {
                match byte {
                    b'(' | b'[' | b'{' => self.brackets += 1,
                    b')' | b']' | b'}' => self.brackets -= 1,
                    _ => {}
                }
            }
            self.in_head = self.brackets > 0 && end - self.range.start < FUNCTION_BYTES_MAX;
        }
        if !blank {
            self.range.end = end;
        }
    }
}

/// The passages of a text: each of its functions, and the text itself, cut where it is long. At most `most`,
/// spread evenly over a longer text.
pub fn passages(text: &str, most: usize) -> Vec<Range<usize>> {
    let mut found = pieces(text);
    let whole = found.len() == 1;
    for function in functions(text) {
        // A text that is little more than one function is compared once.
        if !whole || function.len() * 10 < text.trim().len() * 8 {
            found.push(function);
        }
    }
    found.retain(|range| !text[range.clone()].trim().is_empty());
    found.sort_by_key(|range| (range.start, range.end));
    found.dedup();
    if found.len() > most {
        let last = found.len() - 1;
        let step = most.saturating_sub(1).max(1);
        found = (0..most).map(|index| found[index * last / step].clone()).collect();
    }
    found
}

fn pieces(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    while start < text.len() {
        if text.len() - start <= PASSAGE_BYTES {
            found.push(start..text.len());
            break;
        }
        let end = text.floor_char_boundary(start + PASSAGE_BYTES);
        let window = &text[start..end];
        let half = window.floor_char_boundary(window.len() / 2);
        let cut = ["\n\n", "\n", ". ", " "].iter().find_map(|mark| {
            let at = window[half..].rfind(mark)?;
            Some(half + at + mark.len())
        });
        let end = start + cut.unwrap_or(window.len());
        found.push(start..end);
        start = end;
    }
    found
}

/// What a passage says in words: its docstrings and what stands around its code; the passage itself where that
/// is next to nothing.
pub fn said(passage: &str) -> String {
    let mut said = String::new();
    let mut rest = 0;
    for function in functions(passage) {
        plain_lines(&passage[rest..function.start], &mut said);
        docstrings(&passage[function.clone()], &mut said);
        rest = function.end;
    }
    if rest == 0 {
        return passage.trim().to_owned();
    }
    plain_lines(&passage[rest..], &mut said);
    match said.split_whitespace().take(3).count() {
        3 => said.trim().to_owned(),
        _ => passage.trim().to_owned(),
    }
}

fn plain_lines(text: &str, said: &mut String) {
    let is_code = |line: &str| {
        let line = line.trim_start();
        ["import ", "from ", "```", "@", "class "].iter().any(|start| line.starts_with(start))
    };
    for line in text.lines().filter(|line| !line.trim().is_empty() && !is_code(line)) {
        said.push_str(line.trim());
        said.push('\n');
    }
}

fn docstrings(function: &str, said: &mut String) {
    let mut rest = function;
    while let Some(start) = rest.find("\"\"\"").into_iter().chain(rest.find("'''")).min() {
        let mark = &rest[start..start + 3];
        let Some(end) = rest[start + 3..].find(mark) else { return };
        for line in rest[start + 3..start + 3 + end].lines() {
            said.push_str(line.trim());
            said.push('\n');
        }
        rest = &rest[start + 6 + end..];
    }
}

/// A passage without the imports before it, which say nothing about it.
pub fn without_imports(passage: &str) -> String {
    let is_import = |line: &&str| {
        let line = line.trim_end();
        (line.starts_with("import ") || (line.starts_with("from ") && line.contains(" import ")))
            && !line.ends_with('.')
    };
    let kept: Vec<&str> = passage.lines().filter(|line| !is_import(line)).collect();
    match kept.iter().all(|line| line.trim().is_empty()) {
        true => passage.trim().to_owned(),
        false => kept.join("\n").trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_functions(text: &str, expected: &[&str]) {
        let found: Vec<&str> = functions(text).into_iter().map(|range| &text[range]).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn functions_end_where_their_indentation_does() {
        check_functions("", &[]);
        check_functions("the default is\n", &[]);
        check_functions("def f(x):\n    return x\n\nprint(f(1))\n", &["def f(x):\n    return x\n"]);
        check_functions("def f(x): return x", &["def f(x): return x"]);
        check_functions(
            "Text\n```python\nasync def f(\n    x,\n) -> int:\n\n    y = x\n    def g(): pass\n\n    return y\n```\n",
            &["async def f(\n    x,\n) -> int:\n\n    y = x\n    def g(): pass\n\n    return y\n"],
        );
        check_functions(
            "class A:\n    def f(self):\n        pass\n\n    def g(self):\n        pass\n",
            &["    def f(self):\n        pass\n", "    def g(self):\n        pass\n"],
        );
        check_functions(&format!("def f():\n{}", "    x\n".repeat(10_000)), &[]);
        check_functions(&format!("def f({}", "(\n".repeat(100_000)), &[]);
    }

    #[test]
    fn passages_cover_a_text() {
        let count = |text: &str| passages(text, 16).len();
        assert_eq!([count(""), count(" \n"), count("a text"), count(&"word ".repeat(1_000))], [0, 0, 1, 3]);
        assert_eq!(count(&"x".repeat(1_000_000)), 16);
        assert_eq!(count("def f(x):\n    return x\n"), 1);
        assert_eq!(count("def f(x):\n    return x\n\ndef g(x):\n    return x + 1\n"), 3);
        let text = "é".repeat(3_000) + "\n\n" + &"b c\n".repeat(2_000);
        let pieces = pieces(&text);
        assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!((pieces[0].start, pieces.last().unwrap().end), (0, text.len()));
    }

    #[test]
    fn docstrings_and_prose_are_said() {
        let check = |text: &str, expected: &str| assert_eq!(said(text), expected);
        check(" A plain text. ", "A plain text.");
        check("def f(x):\n    '''Gives back x\n    as it is.'''\n    return x\n", "Gives back x\nas it is.");
        check("Write a function.\n```python\ndef f(x):\n    return x\n```\n", "Write a function.");
        check("import os\ndef f(x):\n    return x", "import os\ndef f(x):\n    return x");
        check("def f():\n    \"\"\"one two three", "def f():\n    \"\"\"one two three");
        assert_eq!(without_imports("import os\nfrom a import b\n\ndef f(): ...\n"), "def f(): ...");
        assert_eq!(without_imports("from here on\nimport os"), "from here on");
        assert_eq!(without_imports("import os"), "import os");
    }
}
