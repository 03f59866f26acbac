//! How varied what a run keeps is: which texts are measured, which combinations of axes came through, and
//! how the share of duplicates went. The measures themselves are in `text::diversity`.

use std::collections::HashSet;

use xxhash_rust::xxh3::xxh3_64;

use crate::call::key::canonical;
use crate::data::manifest::{AxisRecord, DiversityRecord, DuplicatesRecord, FieldDiversity};
use crate::engine::End;
use crate::ops::load_axes;
use crate::pipeline::check::Pipeline;
use crate::row::{FieldPath, Fields, Row, RowId, Type, Value};
use crate::text::diversity::Diversity;

/// Fields whose texts have fewer words on average are names and labels: nothing is said of them.
const WORDS_MIN: f64 = 5.0;
/// Values of an axis, and combinations, that are counted; one of them takes some 20 bytes.
const SEEN_MAX: usize = 100_000;
/// Into how many stretches the rows are cut, at most.
const STRETCHES_MAX: usize = 20;

/// The reasons that say that a row repeats another.
const DUPLICATES: [&str; 3] = ["duplicate", "near_duplicate", "semantic_duplicate"];

/// What is known so far.
pub struct Varied {
    fields: Vec<(FieldPath, Diversity)>,
    axes: Vec<Axis>,
    cells: HashSet<u64>,
    cells_of: Option<f64>,
    stretches: Stretches,
}

struct Axis {
    field: String,
    seen: HashSet<u64>,
    of: Option<u64>,
}

impl Varied {
    pub fn new(pipeline: &Pipeline) -> Varied {
        let mut fields = Vec::new();
        for (name, kind) in &pipeline.columns {
            texts_of(name, kind, &mut fields);
        }
        let measured = fields.iter().map(|path| (FieldPath::parse(path), Diversity::default()));
        let sample = pipeline.file.source.sample.as_ref();
        // The check read the same files: there is nothing to report here.
        let loaded = sample.and_then(|sample| load_axes(&sample.draw, &pipeline.base).ok());
        let axis = |(field, of): (String, Option<u64>)| Axis { field, seen: HashSet::new(), of };
        Varied {
            fields: measured.collect(),
            axes: loaded.iter().flat_map(crate::axes::Axes::sizes).map(axis).collect(),
            cells: HashSet::new(),
            cells_of: loaded.and_then(|axes| axes.cells()).map(|cells| cells as f64),
            stretches: Stretches::default(),
        }
    }

    /// A row that came to an end; rows come in row order.
    pub fn see(&mut self, row: &Row, end: &End) {
        match end {
            End::Kept => {
                self.stretches.count(&row.id, false);
                self.keep(row);
            }
            End::Rejected { reason, .. } => {
                self.stretches.count(&row.id, DUPLICATES.contains(&&*reason.code));
            }
            End::Failed { .. } | End::Split { .. } => {}
        }
    }

    fn keep(&mut self, row: &Row) {
        let name = xxh3_64(row.draw_key().as_bytes());
        for (path, diversity) in &mut self.fields {
            if let Some(text) = path.text(&row.fields) {
                diversity.add(name, text);
            }
        }
        let mut cell = Vec::new();
        for axis in &mut self.axes {
            let value = digest(&row.fields, &axis.field);
            cell.extend(value.to_le_bytes());
            put(&mut axis.seen, value);
        }
        put(&mut self.cells, xxh3_64(&cell));
    }

    pub fn finish(self) -> std::io::Result<DiversityRecord> {
        let mut fields = Vec::new();
        for (path, diversity) in self.fields {
            let numbers = diversity.numbers()?;
            if numbers.texts > 0 && numbers.words as f64 >= WORDS_MIN * numbers.measured as f64 {
                fields.push(FieldDiversity { field: path.to_string(), numbers });
            }
        }
        let is_drawn = !self.axes.is_empty();
        let axis = |Axis { field, seen, of }| AxisRecord { field, seen: seen.len() as u64, of };
        Ok(DiversityRecord {
            fields,
            axes: self.axes.into_iter().map(axis).collect(),
            combinations: if is_drawn { self.cells.len() as u64 } else { 0 },
            combinations_of: self.cells_of,
            duplicates: self.stretches.finish(),
        })
    }
}

fn put(seen: &mut HashSet<u64>, value: u64) {
    if seen.len() < SEEN_MAX {
        seen.insert(value);
    }
}

fn digest(fields: &Fields, field: &str) -> u64 {
    let mut bytes = Vec::new();
    canonical(fields.get(field).unwrap_or(&Value::Null), &mut bytes);
    xxh3_64(&bytes)
}

/// The paths of the texts that a column holds; lists are left out, whose items are no texts of their own.
fn texts_of(path: &str, kind: &Type, found: &mut Vec<String>) {
    match kind {
        Type::Text => found.push(path.to_owned()),
        Type::Object(keys) => {
            keys.iter().for_each(|(key, kind)| texts_of(&format!("{path}.{key}"), kind, found));
        }
        Type::Integer | Type::Number | Type::Boolean | Type::List(_) | Type::Json => {}
    }
}

/// Duplicates among the rows, stretch by stretch of the source. All stretches are of one width, which
/// doubles when there would be too many.
#[derive(Default)]
struct Stretches {
    width: u64,
    /// Rows that were decided, and duplicates among them.
    counts: Vec<[u64; 2]>,
}

impl Stretches {
    fn count(&mut self, id: &RowId, duplicate: bool) {
        self.width = self.width.max(1);
        while id.ordinal / self.width >= STRETCHES_MAX as u64 {
            self.width *= 2;
            let pair = |pair: &[[u64; 2]]| {
                pair.iter().fold([0, 0], |sum, counts| [sum[0] + counts[0], sum[1] + counts[1]])
            };
            self.counts = self.counts.chunks(2).map(pair).collect();
        }
        let stretch = (id.ordinal / self.width) as usize;
        if self.counts.len() <= stretch {
            self.counts.resize(stretch + 1, [0, 0]);
        }
        self.counts[stretch][0] += 1;
        self.counts[stretch][1] += u64::from(duplicate);
    }

    /// Nothing where there was no duplicate.
    fn finish(self) -> Vec<DuplicatesRecord> {
        if self.counts.iter().all(|[_, duplicates]| *duplicates == 0) {
            return Vec::new();
        }
        let starts = (0_u64..).map(|stretch| stretch * self.width);
        let record =
            |([rows, duplicates], from_row): ([u64; 2], u64)| DuplicatesRecord { from_row, rows, duplicates };
        self.counts.into_iter().zip(starts).map(record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_widen_and_lose_nothing() {
        let mut stretches = Stretches::default();
        for ordinal in 0..1000 {
            stretches.count(&RowId::root(ordinal), ordinal >= 500);
        }
        let found = stretches.finish();
        assert_eq!(found.len(), 16);
        assert_eq!(found[0], DuplicatesRecord { from_row: 0, rows: 64, duplicates: 0 });
        assert_eq!(found[7], DuplicatesRecord { from_row: 448, rows: 64, duplicates: 12 });
        assert_eq!(found.iter().map(|stretch| stretch.duplicates).sum::<u64>(), 500);
        assert_eq!(found.iter().map(|stretch| stretch.rows).sum::<u64>(), 1000);
        assert_eq!(Stretches::default().finish(), []);
    }

    #[test]
    fn texts_are_found_inside_objects() {
        let mut found = Vec::new();
        let list = Type::List(Box::new(Type::Text));
        let inner = Type::Object(vec![("b".into(), Type::Text), ("c".into(), list)]);
        texts_of("a", &Type::Object(vec![("x".into(), inner), ("n".into(), Type::Number)]), &mut found);
        assert_eq!(found, ["a.x.b"]);
    }
}
