//! The rows that a run starts from, read on a thread of their own.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::axes::DrawAt;
use crate::engine::SourceItem;
use crate::ops::load_axes;
use crate::pipeline::check::Pipeline;
use crate::pipeline::file::FilesFile;
use crate::pipeline::source::open_files;
use crate::problem::{KeyPath, Place, Problem};
use crate::row::{Fields, Row, RowId, Value};
use crate::run::Options;

/// Rows read ahead of the engine.
const READ_AHEAD: usize = 256;

/// Source rows in ascending ordinals.
pub type Rows = Box<dyn Iterator<Item = SourceItem> + Send>;

/// Opens a pipeline's source.
pub fn open(pipeline: &Pipeline, options: &Options) -> Result<Rows, Vec<Problem>> {
    let source = &pipeline.file.source;
    if let Some(rows) = &source.rows {
        return Ok(numbered(rows.clone()));
    }
    if let Some(files) = &source.files {
        return files_rows(files, &pipeline.base);
    }
    let Some(sample) = &source.sample else { return Ok(numbered(Vec::new())) };
    let axes = load_axes(&sample.draw, &pipeline.base).map_err(|found| below("source.sample.draw", found))?;
    let found = axes.check_rows(sample);
    if !found.is_empty() {
        return Err(below("source.sample", found));
    }
    let rows = axes.rows_to_try(sample).unwrap_or(0);
    let (seed, epoch, grid) = (pipeline.file.seed, options.epoch.clone(), sample.grid);
    let draw = move |ordinal: u64| {
        let id = RowId::root(ordinal);
        let row = id.to_string();
        let at = DrawAt { seed, epoch: &epoch, step: "", ordinal, row: &row };
        let drawn = if grid { axes.cell(ordinal) } else { axes.draw(&at, &Fields::new()) };
        let fields = drawn.map_err(|error| format!("row {ordinal} cannot be drawn: {error}"))?;
        Ok(Row::new(id, fields))
    };
    Ok(Box::new((0..rows).map(draw)))
}

/// How many rows the source has, for the progress display: nothing where it cannot be known. May read all
/// files.
pub fn expected(pipeline: &Pipeline, options: &Options) -> Option<u64> {
    let source = &pipeline.file.source;
    let all = match (&source.rows, &source.files, &source.sample) {
        (Some(rows), _, _) => rows.len() as u64,
        (_, Some(files), _) => open_files(files, &pipeline.base).and_then(|files| files.count()).ok()?,
        (_, _, Some(sample)) => {
            load_axes(&sample.draw, &pipeline.base).ok().and_then(|axes| axes.rows_to_try(sample))?
        }
        (None, None, None) => return None,
    };
    Some(options.rows.map_or(all, |rows| rows.min(all)))
}

fn below(path: &str, problems: Vec<Problem>) -> Vec<Problem> {
    let under = KeyPath::parse(path);
    problems.into_iter().map(|problem| problem.below(&under)).collect()
}

/// Rows that are at hand.
pub fn numbered(rows: Vec<Fields>) -> Rows {
    let row = |(ordinal, fields): (u64, Fields)| Ok(Row::new(RowId::root(ordinal), fields));
    Box::new((0..).zip(rows).map(row))
}

fn files_rows(files: &FilesFile, base: &Path) -> Result<Rows, Vec<Problem>> {
    let place = Place::Value(KeyPath::parse("source.files.path"));
    let source = open_files(files, base).map_err(|error| vec![Problem::error(place, error.to_string())])?;
    let id_column = files.id.clone();
    let mut seen = HashSet::new();
    let rows = (0..).zip(source.rows()).map(move |(ordinal, fields)| {
        let fields = fields.map_err(|error| error.sentence())?;
        let origin = match &id_column {
            Some(column) => Some(origin_of(column, &fields, ordinal, &mut seen)?),
            None => None,
        };
        Ok(Row { origin, ..Row::new(RowId::root(ordinal), fields) })
    });
    Ok(Box::new(rows))
}

/// The name that the `id:` column gives a row; every row has one of its own.
fn origin_of(
    column: &str,
    fields: &Fields,
    ordinal: u64,
    seen: &mut HashSet<Arc<str>>,
) -> Result<Arc<str>, String> {
    let name: Arc<str> = match fields.get(column) {
        Some(Value::String(text)) if !text.is_empty() => text.as_str().into(),
        Some(Value::Number(number)) => number.to_string().into(),
        _ => return Err(format!("row {ordinal} has no text or number in its id column `{column}`")),
    };
    if !seen.insert(Arc::clone(&name)) {
        return Err(format!(
            "row {ordinal} has the id `{name}` in column `{column}`, as an earlier row does; ids must be unique"
        ));
    }
    Ok(name)
}

/// Reads rows on a thread, a little ahead of the engine; at most `rows` of them.
pub fn feed(rows: Rows, rows_max: Option<u64>) -> mpsc::Receiver<SourceItem> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let rows_max = usize::try_from(rows_max.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    tokio::task::spawn_blocking(move || {
        for row in rows.take(rows_max) {
            let failed = row.is_err();
            // The engine hangs up when it needs no more rows.
            if sender.blocking_send(row).is_err() || failed {
                return;
            }
        }
    });
    receiver
}
