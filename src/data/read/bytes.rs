//! From a file to lines of UTF-8: decompression, byte order marks, bounds. Knows no format.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::{Path, PathBuf};

use crate::data::read::{ReadError, ReadOptions};

const BUFFER_BYTES: usize = 1 << 16;

/// A text file's lines, one at a time, with their numbers.
pub struct Lines {
    path: PathBuf,
    input: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    /// The number of the line read last, from 1.
    number: usize,
    record_bytes_max: usize,
}

impl Lines {
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Lines, ReadError> {
        Ok(Lines {
            path: path.to_owned(),
            input: open_text(path, options.expanded_bytes_max)?,
            buffer: Vec::new(),
            number: 0,
            record_bytes_max: options.record_bytes_max,
        })
    }

    /// The next line with the line end it has, `None` at the end of the file.
    pub fn next(&mut self) -> Result<Option<&str>, ReadError> {
        self.buffer.clear();
        let limit = self.record_bytes_max as u64 + 1;
        let read = self.input.by_ref().take(limit).read_until(b'\n', &mut self.buffer);
        self.number += 1;
        match read {
            Err(error) => Err(stream_error(&self.path, &error).at(self.number)),
            Ok(0) => Ok(None),
            Ok(read) if read > self.record_bytes_max => Err(self.too_long()),
            Ok(_) => check_utf8(&self.path, &self.buffer, self.number).map(Some),
        }
    }

    pub fn number(&self) -> usize {
        self.number
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error at the line read last, if one was.
    pub fn error(&self, message: impl Into<String>) -> ReadError {
        let error = ReadError::new(&self.path, message);
        ReadError { line: Some(self.number).filter(|number| *number > 0), ..error }
    }

    pub fn too_long(&self) -> ReadError {
        too_long(&self.path, self.record_bytes_max).at(self.number)
    }
}

/// A line without its line end.
pub fn without_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// A whole file as one text.
pub fn read_whole(path: &Path, options: &ReadOptions) -> Result<String, ReadError> {
    let input = open_text(path, options.expanded_bytes_max)?;
    let mut bytes = Vec::new();
    let limit = options.record_bytes_max as u64 + 1;
    input.take(limit).read_to_end(&mut bytes).map_err(|error| stream_error(path, &error))?;
    if bytes.len() > options.record_bytes_max {
        return Err(too_long(path, options.record_bytes_max));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line_start = valid.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        not_utf8(path, &error.as_bytes()[line_start..], valid.len() - line_start, line)
    })
}

/// Opens a file as text: decompressed, without its byte order mark.
fn open_text(path: &Path, expanded_bytes_max: u64) -> Result<Box<dyn BufRead + Send>, ReadError> {
    let wrong = |error: io::Error| stream_error(path, &error);
    let file = File::open(path).map_err(wrong)?;
    let (head, raw) = peek(BufReader::with_capacity(BUFFER_BYTES, file)).map_err(wrong)?;
    let bounded = |inner: Box<dyn Read + Send>| -> Box<dyn BufRead + Send> {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, Bounded { inner, bytes_left: expanded_bytes_max }))
    };
    // Neither magic number can begin a UTF-8 text, so a look at the bytes is never wrong.
    let text: Box<dyn BufRead + Send> = match head[..] {
        [0x1f, 0x8b, ..] => bounded(Box::new(flate2::bufread::MultiGzDecoder::new(raw))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            bounded(Box::new(zstd::stream::read::Decoder::with_buffer(raw).map_err(wrong)?))
        }
        _ => Box::new(raw),
    };
    let (head, mut text) = peek(text).map_err(wrong)?;
    match head[..] {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(utf16(path)),
        [first, 0, second, 0] | [0, first, 0, second] if first != 0 && second != 0 => Err(utf16(path)),
        [0xef, 0xbb, 0xbf, ..] => {
            text.consume(3);
            Ok(Box::new(text))
        }
        _ => Ok(Box::new(text)),
    }
}

/// A reader with what was read of it put back in front.
type Unread<R> = Chain<Cursor<Vec<u8>>, R>;

/// The first four bytes (fewer at the end of the file), and the reader as if they had not been read.
fn peek<R: BufRead>(mut reader: R) -> io::Result<(Vec<u8>, Unread<R>)> {
    let mut head = Vec::with_capacity(4);
    reader.by_ref().take(4).read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(reader)))
}

/// A stream that ends with an error when it gives more bytes than it may.
struct Bounded {
    inner: Box<dyn Read + Send>,
    bytes_left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.bytes_left.checked_sub(read as u64) {
            Some(left) => self.bytes_left = left,
            None => return Err(io::Error::from(io::ErrorKind::FileTooLarge)),
        }
        Ok(read)
    }
}

fn stream_error(path: &Path, error: &io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => {
            ReadError::new(path, "the file unpacks to more bytes than are allowed")
                .hint("unpack and split it")
        }
        io::ErrorKind::UnexpectedEof => {
            ReadError::new(path, "the compressed file is cut off").hint("fetch or write the file again")
        }
        _ => ReadError::io(path, error),
    }
}

fn too_long(path: &Path, bytes_max: usize) -> ReadError {
    let message = match bytes_max >> 20 {
        0 => format!("a record of over {bytes_max} bytes"),
        mebibytes => format!("a record of over {mebibytes} MiB"),
    };
    ReadError::new(path, message).hint("split it; is a line end or a closing quote missing?")
}

fn utf16(path: &Path) -> ReadError {
    let error = ReadError::new(path, "the file is UTF-16 or UTF-32, only UTF-8 can be read");
    error.hint("convert it: `iconv -f UTF-16 -t UTF-8`")
}

fn check_utf8<'a>(path: &Path, line: &'a [u8], number: usize) -> Result<&'a str, ReadError> {
    std::str::from_utf8(line).map_err(|error| not_utf8(path, line, error.valid_up_to(), number))
}

/// `line[valid]` is the first byte that is not UTF-8.
fn not_utf8(path: &Path, line: &[u8], valid: usize, number: usize) -> ReadError {
    let column = 1 + String::from_utf8_lossy(&line[..valid]).chars().count();
    let message = format!("byte {} of the line (0x{:02X}) is not valid UTF-8", valid + 1, line[valid]);
    let error = ReadError::new(path, message).at(number).column(column);
    error.hint("convert the file to UTF-8; `iconv -f WINDOWS-1252 -t UTF-8` for most Western texts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zst(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    /// The lines joined with `|`, or the error without its path.
    fn check(bytes: &[u8], options: &ReadOptions, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, bytes).unwrap();
        let read = || -> Result<String, ReadError> {
            let mut lines = Lines::open(&path, options)?;
            let mut all = Vec::new();
            while let Some(line) = lines.next()? {
                all.push(without_end(line).to_owned());
            }
            let whole = read_whole(&path, options)?;
            assert_eq!(whole.lines().collect::<Vec<_>>(), all);
            Ok(all.join("|"))
        };
        let shown = read().unwrap_or_else(|error| error.to_string().replace(path.to_str().unwrap(), "f"));
        assert_eq!(shown, expected);
    }

    #[test]
    fn every_compression_and_mark_gives_the_same_lines() {
        let options = ReadOptions::default();
        for wrap in [<[u8]>::to_vec, gzip, zst] {
            check(&wrap("a\r\né\n\nb".as_bytes()), &options, "a|é||b");
            check(&wrap("\u{feff}a\n".as_bytes()), &options, "a");
            check(&wrap(b""), &options, "");
        }
        let members = [gzip(b"a\n"), gzip(b"b\n")].concat();
        check(&members, &options, "a|b");
    }

    #[test]
    fn what_is_not_utf8_is_refused_with_its_place() {
        let options = ReadOptions::default();
        let utf16 = "f: the file is UTF-16 or UTF-32, only UTF-8 can be read";
        check(&[0xff, 0xfe, b'a', 0], &options, utf16);
        check(&gzip(&[0xfe, 0xff, 0, b'a']), &options, utf16);
        check(&[b'{', 0, b'"', 0], &options, utf16);
        check(b"ok\nd\xc3\xa9j\xe0\n", &options, "f:2:4: byte 5 of the line (0xE0) is not valid UTF-8");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"ok\nd\xc3\xa9j\xe0\n").unwrap();
        assert_eq!(read_whole(&path, &options).unwrap_err().line, Some(2));
    }

    #[test]
    fn sizes_are_bounded() {
        let mut options = ReadOptions { record_bytes_max: 4, ..ReadOptions::default() };
        check(b"abc\nabcde\n", &options, "f:2: a record of over 4 bytes");
        options = ReadOptions { expanded_bytes_max: 1000, ..ReadOptions::default() };
        let bomb = gzip(&[b'\n'; 100_000]);
        check(&bomb, &options, "f: the file unpacks to more bytes than are allowed");
    }

    #[test]
    fn a_cut_off_archive_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for mut archive in [gzip(b"some lines"), zst(b"some lines")] {
            archive.truncate(archive.len() - 6);
            std::fs::write(&path, archive).unwrap();
            let error = read_whole(&path, &ReadOptions::default()).unwrap_err();
            assert_eq!(error.message, "the compressed file is cut off");
        }
    }
}
