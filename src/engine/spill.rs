//! Things that wait for row order: in memory up to a bound, on disk past it.
//!
//! On disk they are in segments, temporary files that are only appended to; one whose last thing was taken
//! is gone, so the disk holds about what waits and not what ever waited.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes after which a segment is closed.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Something that waits, wherever it is kept.
pub enum Held<T> {
    Memory { item: Box<T>, bytes: usize },
    Disk { segment: u64, offset: u64, length: usize },
}

/// A thing that knows about how much memory it takes.
pub trait Weight {
    fn bytes(&self) -> usize;
}

pub struct Spill {
    memory_bytes: usize,
    memory_bytes_max: usize,
    folder: Option<PathBuf>,
    segments: BTreeMap<u64, Segment>,
    /// The segment that is appended to.
    current: u64,
}

struct Segment {
    file: File,
    bytes: u64,
    items: usize,
}

impl Spill {
    pub fn new(memory_bytes_max: usize, folder: Option<PathBuf>) -> Spill {
        Spill { memory_bytes: 0, memory_bytes_max, folder, segments: BTreeMap::new(), current: 0 }
    }

    /// Keeps an item in memory whatever the bound says: it goes on at once.
    pub fn keep<T: Weight>(&mut self, item: T) -> Held<T> {
        let bytes = item.bytes();
        self.memory_bytes += bytes;
        Held::Memory { item: Box::new(item), bytes }
    }

    /// Keeps an item in memory while there is room, on disk otherwise.
    pub fn hold<T: Weight + Serialize>(&mut self, item: T) -> io::Result<Held<T>> {
        if self.memory_bytes + item.bytes() <= self.memory_bytes_max {
            return Ok(self.keep(item));
        }
        let text = serde_json::to_vec(&item)?;
        if self.segments.get(&self.current).is_some_and(|segment| segment.bytes >= SEGMENT_BYTES) {
            self.current += 1;
        }
        let segment = match self.segments.entry(self.current) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let file = match &self.folder {
                    Some(folder) => tempfile::tempfile_in(folder)?,
                    None => tempfile::tempfile()?,
                };
                entry.insert(Segment { file, bytes: 0, items: 0 })
            }
        };
        segment.file.seek(SeekFrom::Start(segment.bytes))?;
        segment.file.write_all(&text)?;
        let offset = segment.bytes;
        segment.bytes += text.len() as u64;
        segment.items += 1;
        Ok(Held::Disk { segment: self.current, offset, length: text.len() })
    }

    pub fn take<T: DeserializeOwned>(&mut self, held: Held<T>) -> io::Result<T> {
        let (segment, offset, length) = match held {
            Held::Memory { item, bytes } => {
                self.memory_bytes -= bytes;
                return Ok(*item);
            }
            Held::Disk { segment, offset, length } => (segment, offset, length),
        };
        let Some(found) = self.segments.get_mut(&segment) else {
            return Err(io::Error::other("a segment of waiting rows is gone; this is a bug in textmill"));
        };
        let mut text = vec![0; length];
        found.file.seek(SeekFrom::Start(offset))?;
        found.file.read_exact(&mut text)?;
        self.left(segment);
        Ok(serde_json::from_slice(&text)?)
    }

    pub fn forget<T>(&mut self, held: &Held<T>) {
        match held {
            Held::Memory { bytes, .. } => self.memory_bytes -= bytes,
            Held::Disk { segment, .. } => self.left(*segment),
        }
    }

    /// One item less in a segment; the last one takes the file with it.
    fn left(&mut self, segment: u64) {
        let Some(found) = self.segments.get_mut(&segment) else { return };
        found.items -= 1;
        if found.items == 0 {
            self.segments.remove(&segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weight for String {
        fn bytes(&self) -> usize {
            self.len()
        }
    }

    #[test]
    fn items_come_back_from_memory_and_disk() {
        let mut spill = Spill::new(10, None);
        let held: Vec<Held<String>> = (0..5).map(|n| spill.hold(format!("item {n}")).unwrap()).collect();
        let on_disk = held.iter().filter(|held| matches!(held, Held::Disk { .. })).count();
        assert_eq!(on_disk, 4);
        let back: Vec<String> = held.into_iter().rev().map(|held| spill.take(held).unwrap()).collect();
        assert_eq!(back, ["item 4", "item 3", "item 2", "item 1", "item 0"]);
        assert_eq!((spill.memory_bytes, spill.segments.len()), (0, 0));
    }
}
