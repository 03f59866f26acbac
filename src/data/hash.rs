//! SHA-256 of files, streamed: for manifests, and to notice a source that changed between two runs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::data::read::ReadError;

/// What a file's bytes are, compressed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHash {
    pub bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

/// Hashes one file in constant memory.
pub fn file_hash(path: &Path) -> Result<FileHash, ReadError> {
    let mut file = File::open(path).map_err(|error| ReadError::io(path, &error))?;
    let mut sink = HashingWriter::new(io::sink());
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ReadError::io(path, &error)),
        };
        sink.write_all(&buffer[..read]).map_err(|error| ReadError::io(path, &error))?;
    }
    Ok(sink.finish().1)
}

/// One hash for a list of files: the SHA-256 of their SHA-256s, in order.
///
/// Names do not count, so that a moved folder is the same source; contents, order and the borders
/// between files do.
pub fn content_hash(paths: &[PathBuf]) -> Result<String, ReadError> {
    let mut all = Sha256::new();
    for path in paths {
        all.update(file_hash(path)?.sha256.as_bytes());
    }
    Ok(hex(&all.finalize()))
}

/// The SHA-256 of a text, in lower-case hex.
pub fn text_hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// Hashes and counts what passes through to another writer.
pub(crate) struct HashingWriter<W> {
    inner: W,
    sha: Sha256,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    pub(crate) fn new(inner: W) -> HashingWriter<W> {
        HashingWriter { inner, sha: Sha256::new(), bytes: 0 }
    }

    pub(crate) fn finish(self) -> (W, FileHash) {
        (self.inner, FileHash { bytes: self.bytes, sha256: hex(&self.sha.finalize()) })
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.sha.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(contents: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = contents
            .iter()
            .enumerate()
            .map(|(index, content)| {
                let path = folder.path().join(format!("{index}.txt"));
                std::fs::write(&path, content).unwrap();
                path
            })
            .collect();
        content_hash(&paths).unwrap()
    }

    #[test]
    fn contents_order_and_borders_count() {
        // FIPS 180-4's example message.
        assert_eq!(text_hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash_of(&["abc"]), text_hash(&text_hash("abc")));
        assert_ne!(hash_of(&["ab", "c"]), hash_of(&["a", "bc"]));
        assert_ne!(hash_of(&["a", "b"]), hash_of(&["b", "a"]));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = content_hash(&["/nowhere/x.jsonl".into()]).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/x.jsonl: "), "{error}");
    }
}
