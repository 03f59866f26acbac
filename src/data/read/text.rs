//! Plain text as rows of one field: the whole file, its paragraphs, or its lines.

use std::path::{Path, PathBuf};

use crate::data::read::bytes::{Lines, read_whole, without_end};
use crate::data::read::{ReadError, ReadOptions, RowReader, TextUnit};
use crate::row::Fields;

pub struct TextRows {
    field: String,
    source: Source,
}

enum Source {
    /// `None` once the file has been given.
    File(Option<(PathBuf, ReadOptions)>),
    Paragraphs(Lines, usize),
    Lines(Lines),
}

impl TextRows {
    pub fn open(path: &Path, options: &ReadOptions) -> Result<TextRows, ReadError> {
        let source = match options.text_unit {
            TextUnit::File => Source::File(Some((path.to_owned(), options.clone()))),
            TextUnit::Paragraphs => Source::Paragraphs(Lines::open(path, options)?, options.record_bytes_max),
            TextUnit::Lines => Source::Lines(Lines::open(path, options)?),
        };
        Ok(TextRows { field: options.text_field.clone(), source })
    }

    fn text(&mut self) -> Result<Option<String>, ReadError> {
        match &mut self.source {
            Source::File(file) => match file.take() {
                None => Ok(None),
                Some((path, options)) => {
                    let text = read_whole(&path, &options)?;
                    Ok(Some(text).filter(|text| !text.trim().is_empty()))
                }
            },
            Source::Paragraphs(lines, bytes_max) => paragraph(lines, *bytes_max),
            Source::Lines(lines) => loop {
                let Some(line) = lines.next()? else { return Ok(None) };
                if !line.trim().is_empty() {
                    return Ok(Some(without_end(line).to_owned()));
                }
            },
        }
    }
}

fn paragraph(lines: &mut Lines, bytes_max: usize) -> Result<Option<String>, ReadError> {
    let mut text = String::new();
    while let Some(line) = lines.next()? {
        match (line.trim().is_empty(), text.is_empty()) {
            (true, true) => continue,
            (true, false) => break,
            (false, true) => {}
            (false, false) => text.push('\n'),
        }
        text.push_str(without_end(line));
        if text.len() > bytes_max {
            return Err(lines.too_long());
        }
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

impl RowReader for TextRows {}

impl Iterator for TextRows {
    type Item = Result<Fields, ReadError>;

    fn next(&mut self) -> Option<Result<Fields, ReadError>> {
        let text = self.text().transpose()?;
        Some(text.map(|text| Fields::from_iter([(self.field.clone(), text.into())])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text_unit: TextUnit, content: &str, expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.txt");
        std::fs::write(&path, content).unwrap();
        let options = ReadOptions { text_unit, text_field: "body".into(), ..ReadOptions::default() };
        let rows: Result<Vec<Fields>, ReadError> = TextRows::open(&path, &options).unwrap().collect();
        let texts: Vec<String> =
            rows.unwrap().iter().map(|row| row["body"].as_str().unwrap().to_owned()).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn files_paragraphs_and_lines() {
        let content = "\n a\r\nb \n\n \n\nc";
        check(TextUnit::File, content, &[content]);
        check(TextUnit::Paragraphs, content, &[" a\nb ", "c"]);
        check(TextUnit::Lines, content, &[" a", "b ", "c"]);
        for unit in [TextUnit::File, TextUnit::Paragraphs, TextUnit::Lines] {
            check(unit, " \n\n", &[]);
        }
    }
}
