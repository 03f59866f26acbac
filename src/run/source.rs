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
use crate::teacher::secret::Secrets;

/// Rows read ahead of the engine.
const READ_AHEAD: usize = 256;

/// Sampled rows that are drawn before the first call to see that they can be: a second or so.
const LOOKED_AT_MAX: u64 = 200_000;

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
    let may_miss = axes.may_miss();
    let (seed, epoch, grid) = (pipeline.file.seed, options.epoch.clone(), sample.grid);
    let draw = move |ordinal: u64| -> SourceItem {
        let id = RowId::root(ordinal);
        let row = id.to_string();
        let at = DrawAt { seed, epoch: &epoch, step: "", ordinal, row: &row };
        let drawn = if grid { axes.cell(ordinal) } else { axes.draw(&at, &Fields::new()) };
        let fields = drawn.map_err(|error| format!("row {ordinal} cannot be drawn: {error}"))?;
        Ok(Row::new(id, fields))
    };
    // Nothing is paid for rows before one that cannot be drawn.
    let looked_at = rows.min(options.rows.unwrap_or(u64::MAX)).min(LOOKED_AT_MAX);
    if may_miss && let Some(message) = (0..looked_at).find_map(|ordinal| draw(ordinal).err()) {
        return Err(vec![Problem::error(Place::Value(KeyPath::parse("source.sample.draw")), message)]);
    }
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
    let mut rows = source.rows();
    let mut ordinals = 0..;
    let next = move || {
        let fields = rows.next()?;
        let ordinal = ordinals.next()?;
        let named = |fields: Fields| {
            let Some(column) = &id_column else { return Ok(Row::new(RowId::root(ordinal), fields)) };
            let origin = origin_of(column, &fields, &mut seen).map_err(|message| rows.error(message))?;
            Ok(Row { origin: Some(origin), ..Row::new(RowId::root(ordinal), fields) })
        };
        Some(fields.and_then(named).map_err(|error| error.sentence()))
    };
    Ok(Box::new(std::iter::from_fn(next)))
}

/// The name that the `id:` column gives a row; every row has one of its own.
fn origin_of(column: &str, fields: &Fields, seen: &mut HashSet<Arc<str>>) -> Result<Arc<str>, String> {
    let name: Arc<str> = match fields.get(column) {
        Some(Value::String(text)) if !text.is_empty() => text.as_str().into(),
        Some(Value::Number(number)) => number.to_string().into(),
        _ => return Err(format!("the row has no text or number in its id column `{column}`")),
    };
    if !seen.insert(Arc::clone(&name)) {
        return Err(format!(
            "the id `{name}` in column `{column}` is that of an earlier row; ids must be unique"
        ));
    }
    Ok(name)
}

/// The rows without the secrets that a run knows: what is not in a row gets into no request, no store and
/// no dataset.
pub fn scrubbed(rows: Rows, secrets: Arc<Secrets>) -> Rows {
    if secrets.finds_nothing() {
        return rows;
    }
    Box::new(rows.map(move |row| {
        let mut row = row?;
        row.fields.values_mut().for_each(|value| secrets.scrub_value(value));
        row.origin = row.origin.map(|origin| secrets.scrub(&origin).into());
        Ok(row)
    }))
}

/// Reads rows on a thread, a little ahead of the engine; at most `rows` of them.
pub fn feed(rows: Rows, rows_max: Option<u64>) -> mpsc::Receiver<SourceItem> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let rows_max = usize::try_from(rows_max.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut rows = rows.take(rows_max);
        // Many places at a time: to be woken for each one costs more than to read its row. The engine hangs up
        // when it needs no more rows.
        while let Ok(places) = runtime.block_on(sender.reserve_many(READ_AHEAD / 2)) {
            for place in places {
                let Some(row) = rows.next() else { return };
                let failed = row.is_err();
                place.send(row);
                if failed {
                    return;
                }
            }
        }
    });
    receiver
}
