//! Ids of many rows in few bytes, for folds that must name an earlier row.
//!
//! Not an operator. Knows nothing of why an id is remembered.

use crate::row::RowId;

/// Marks a name that is a place in the table rather than an ordinal.
const IN_TABLE: u64 = 1 << 63;

/// A table that turns row ids into names of 64 bits and back.
///
/// The id of a source row is its own name and takes no room here. That of a row that was split off
/// takes 12 bytes, and 4 more for each split (16 after one), in a list that at worst is half empty.
#[derive(Debug, Default)]
pub struct RowIds {
    /// Low and high half of the ordinal, the path's length, the path; one id after the other.
    table: Vec<u32>,
}

impl RowIds {
    pub fn put(&mut self, id: &RowId) -> u64 {
        if id.path.is_empty() && id.ordinal < IN_TABLE {
            return id.ordinal;
        }
        let place = self.table.len() as u64;
        self.table.extend([id.ordinal as u32, (id.ordinal >> 32) as u32, id.path.len() as u32]);
        self.table.extend_from_slice(&id.path);
        IN_TABLE | place
    }

    /// The id that [`RowIds::put`] gave this name to.
    pub fn get(&self, name: u64) -> RowId {
        if name & IN_TABLE == 0 {
            return RowId::root(name);
        }
        let mut rest = self.table.iter().skip((name & !IN_TABLE) as usize).copied();
        let mut next = || rest.next().unwrap_or(0);
        let ordinal = u64::from(next()) | (u64::from(next()) << 32);
        let length = next() as usize;
        RowId { ordinal, path: rest.take(length).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_ids() {
        let mut ids = RowIds::default();
        let mut check = |id: &str, words: usize| {
            let id: RowId = id.parse().unwrap();
            let before = ids.table.len();
            let name = ids.put(&id);
            assert_eq!(ids.get(name), id);
            assert_eq!(ids.table.len() - before, words, "{id}");
        };
        check("17", 0);
        check("17.3", 4);
        check("18446744073709551615", 3);
        check("4294967296.0.7", 5);
        check("17.3", 4);
    }
}
