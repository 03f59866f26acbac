//! CSV as RFC 4180 has it: a header line, quoted values that may span lines, every value a text.
//!
//! Our own reader and not the `csv` crate, because that one is lenient where rows would vanish: an
//! unclosed quote swallows the rest of the file, text after a closing quote is glued on. Here both
//! are errors with a line. Blank lines are passed over.

use std::collections::HashSet;
use std::path::Path;

use crate::data::read::bytes::{Lines, without_end};
use crate::data::read::{ReadError, ReadOptions, RowReader};
use crate::row::{Fields, Value};

pub struct CsvRows {
    lines: Lines,
    delimiter: char,
    header: Vec<String>,
    record_bytes_max: usize,
    /// The line that the last row begins on.
    row_line: usize,
}

impl CsvRows {
    pub fn open(path: &Path, options: &ReadOptions) -> Result<CsvRows, ReadError> {
        let tabs = super::extension(path).is_some_and(|extension| extension == "tsv");
        let delimiter = options.delimiter.unwrap_or(if tabs { '\t' } else { ',' });
        if matches!(delimiter, '"' | '\n' | '\r') {
            return Err(ReadError::new(path, "a quote or a line end cannot separate values"));
        }
        let lines = Lines::open(path, options)?;
        let record_bytes_max = options.record_bytes_max;
        let mut rows = CsvRows { lines, delimiter, header: Vec::new(), record_bytes_max, row_line: 0 };
        rows.header = match &options.header {
            Some(names) => names.clone(),
            None => rows
                .record()?
                .map(|(names, _)| names)
                .ok_or_else(|| ReadError::new(path, "the file is empty, not even a header line is there"))?,
        };
        rows.check_header()?;
        Ok(rows)
    }

    pub fn header(&self) -> &[String] {
        &self.header
    }

    fn check_header(&self) -> Result<(), ReadError> {
        let mut seen = HashSet::new();
        for (index, name) in self.header.iter().enumerate() {
            let place = format!("the name of column {}", index + 1);
            if name.trim().is_empty() {
                return Err(self.lines.error(format!("{place} is empty")).hint("every column needs a name"));
            }
            if name.contains('\r') {
                return Err(self
                    .lines
                    .error("the lines end with a lone carriage return")
                    .hint("end them with `\\n`"));
            }
            if !seen.insert(name) {
                let message = format!("{place}, `{name}`, is there twice");
                return Err(self.lines.error(message).hint("rename one of the columns"));
            }
        }
        Ok(())
    }

    /// The values of the next record and the line that it begins on.
    fn record(&mut self) -> Result<Option<(Vec<String>, usize)>, ReadError> {
        let mut record = Record { values: Vec::with_capacity(self.header.len()), quoted: None };
        let mut first_line = 0;
        let mut bytes = 0;
        loop {
            let Some(line) = self.lines.next()? else {
                if record.quoted.is_none() {
                    return Ok(None);
                }
                let error =
                    ReadError::new(self.lines.path(), "a quote is opened in this record and never closed");
                return Err(error
                    .at(first_line)
                    .hint("a quote inside a quoted value is written twice: `\"\"`"));
            };
            if first_line == 0 && without_end(line).is_empty() {
                continue;
            }
            bytes += line.len();
            let done = record.take_line(line, self.delimiter);
            if first_line == 0 {
                first_line = self.lines.number();
            }
            if bytes > self.record_bytes_max {
                return Err(ReadError { line: Some(first_line), ..self.lines.too_long() });
            }
            if done.map_err(|message| self.lines.error(message))? {
                return Ok(Some((record.values, first_line)));
            }
        }
    }

    fn row(&mut self) -> Result<Option<Fields>, ReadError> {
        let Some((values, line)) = self.record()? else { return Ok(None) };
        self.row_line = line;
        if values.len() != self.header.len() {
            let message = format!("{} values, but the header has {}", values.len(), self.header.len());
            let error = ReadError::new(self.lines.path(), message).at(line);
            return Err(error.hint("put values that contain the separator in double quotes"));
        }
        Ok(Some(self.header.iter().cloned().zip(values.into_iter().map(Value::String)).collect()))
    }
}

impl RowReader for CsvRows {
    fn line(&self) -> Option<usize> {
        Some(self.row_line)
    }
}

impl Iterator for CsvRows {
    type Item = Result<Fields, ReadError>;

    fn next(&mut self) -> Option<Result<Fields, ReadError>> {
        self.row().transpose()
    }
}

/// A record that is being read.
struct Record {
    values: Vec<String>,
    /// The value whose quote is open.
    quoted: Option<String>,
}

impl Record {
    /// Takes one line with its line end; `true` when the record ends with it.
    fn take_line(&mut self, line: &str, delimiter: char) -> Result<bool, String> {
        let mut rest = line;
        loop {
            if let Some(text) = &mut self.quoted {
                let Some(at) = rest.find('"') else {
                    text.push_str(rest);
                    return Ok(false);
                };
                text.push_str(&rest[..at]);
                rest = &rest[at + 1..];
                if let Some(after) = rest.strip_prefix('"') {
                    text.push('"');
                    rest = after;
                    continue;
                }
                self.values.extend(self.quoted.take());
                match rest.strip_prefix(delimiter) {
                    Some(after) => rest = after,
                    None if without_end(rest).is_empty() => return Ok(true),
                    None => return Err("text after the closing quote of a value".to_owned()),
                }
            } else if let Some(after) = rest.strip_prefix('"') {
                self.quoted = Some(String::new());
                rest = after;
            } else {
                let body = without_end(rest);
                let Some(at) = body.find(delimiter) else {
                    self.values.push(body.to_owned());
                    return Ok(true);
                };
                self.values.push(body[..at].to_owned());
                rest = &rest[at + delimiter.len_utf8()..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(content: &str, name: &str, options: &ReadOptions) -> Result<Vec<String>, ReadError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let short = |error: ReadError| ReadError { path: "f".into(), ..error };
        let rows = CsvRows::open(&path, options).map_err(short)?;
        rows.map(|row| row.map(|fields| Value::Object(fields).to_string()).map_err(short)).collect()
    }

    fn check_with(content: &str, name: &str, options: &ReadOptions, expected: &str) {
        let shown =
            read(content, name, options).map_or_else(|error| error.to_string(), |rows| rows.join("|"));
        assert_eq!(shown, expected);
    }

    fn check(content: &str, expected: &str) {
        check_with(content, "f.csv", &ReadOptions::default(), expected);
    }

    #[test]
    fn values_are_texts_under_the_header() {
        check("a,b\n1,é\r\n\n\"x, \"\"y\"\"\",\n", r#"{"a":"1","b":"é"}|{"a":"x, \"y\"","b":""}"#);
        check("a,b\n\"two\r\nlines\",\"\"", r#"{"a":"two\r\nlines","b":""}"#);
        check("\u{feff}a\n5\" disk", r#"{"a":"5\" disk"}"#);
        check("a,b\n", "");
        check_with("a\tb\n1,2\t3\n", "f.tsv.gz", &ReadOptions::default(), r#"{"a":"1,2","b":"3"}"#);
        let semicolons = ReadOptions { delimiter: Some(';'), ..ReadOptions::default() };
        check_with("a;b\n1,5;2", "f.csv", &semicolons, r#"{"a":"1,5","b":"2"}"#);
        let headless = ReadOptions { header: Some(vec!["x".into(), "y".into()]), ..ReadOptions::default() };
        check_with("1,2\n", "f.csv", &headless, r#"{"x":"1","y":"2"}"#);
    }

    #[test]
    fn what_would_lose_data_is_an_error_with_its_line() {
        check("", "f: the file is empty, not even a header line is there");
        check("a,b\n1,2\n\n\"3\n4\",5\n6\n", "f:6: 1 values, but the header has 2");
        check("a,b\n\"1\n\",2,3\n", "f:2: 3 values, but the header has 2");
        check("a,b,a\n", "f:1: the name of column 3, `a`, is there twice");
        check("a, \n", "f:1: the name of column 2 is empty");
        check("a\rb\rc", "f:1: the lines end with a lone carriage return");
        check("a,b\n1,\"foo\n2,bar\n", "f:2: a quote is opened in this record and never closed");
        check("a,b\n1,2\n\"1\"x,2\n", "f:3: text after the closing quote of a value");
        let small = ReadOptions { record_bytes_max: 8, ..ReadOptions::default() };
        check_with("a,b\n\"12345\n123\",1\n", "f.csv", &small, "f:2: a record of over 8 bytes");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// What the `csv` crate writes, we read.
        #[test]
        fn agrees_with_another_writer(rows in prop::collection::vec(["[a,\"\r\né ]{0,6}", "[a,\"\n]{0,6}"], 0..6)) {
            let mut writer = ::csv::Writer::from_writer(Vec::new());
            writer.write_record(["x", "y"]).unwrap();
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let content = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let expected: Vec<String> = rows
                .iter()
                .map(|[x, y]| serde_json::json!({"x": x, "y": y}).to_string())
                .collect();
            prop_assert_eq!(read(&content, "f.csv", &ReadOptions::default()).unwrap(), expected);
        }
    }
}
