//! How long prompts are that cannot be rendered yet, since they need answers that are not there.
//!
//! They are rendered with the first source rows and with stand-ins for whatever steps make: empty texts,
//! zeros, lists of one item. What the answers add to that is the estimate's to say.

use std::sync::atomic::Ordering;

use crate::ops::Runner;
use crate::pipeline::check::Pipeline;
use crate::row::{Fields, Row, Type, Value};
use crate::run::plan::{DrySteps, dry_steps};
use crate::run::{Options, RunError, source};
use crate::store::Store;

/// Source rows that prompts are rendered for.
const ROWS_MAX: usize = 20;

/// Bytes of one request of every step without its answers, on average; `None` for a step that asks nobody
/// or whose prompt cannot be rendered so.
pub async fn bytes(
    pipeline: &Pipeline,
    store: &Store,
    options: &Options,
) -> Result<Vec<Option<f64>>, RunError> {
    let rows = source::open(pipeline, options).map_err(RunError::Problems)?.take(ROWS_MAX);
    let rows: Vec<Row> = rows.collect::<Result<_, _>>().map_err(RunError::Io)?;
    let DrySteps { desk, steps, .. } = dry_steps(pipeline, store, options)?;
    let mut bytes = Vec::new();
    for (index, (step, built)) in pipeline.steps.iter().zip(&steps).enumerate() {
        for runner in built.runners.iter().filter(|_| step.op.operator().teacher().is_some()) {
            let Runner::Call(call) = runner else { continue };
            for row in &rows {
                let fields = step.columns.iter().map(|(name, kind)| {
                    let given = row.fields.get(name).filter(|value| kind.fits(value)).cloned();
                    (name.clone(), given.unwrap_or_else(|| stand_in(kind)))
                });
                // How the row ends says nothing: the desk counts the request.
                let _ = call.call(Row::new(row.id.clone(), fields.collect::<Fields>())).await;
            }
        }
        let counts = desk.monitor.counts(index);
        let misses = counts.misses.load(Ordering::Relaxed);
        let sum = counts.miss_bytes.load(Ordering::Relaxed);
        bytes.push((misses > 0).then(|| sum as f64 / misses as f64));
    }
    Ok(bytes)
}

fn stand_in(kind: &Type) -> Value {
    match kind {
        Type::Text => Value::from(""),
        Type::Integer | Type::Number => Value::from(0),
        Type::Boolean => Value::from(false),
        Type::List(item) => Value::from(vec![stand_in(item)]),
        Type::Object(fields) => fields.iter().map(|(name, kind)| (name.clone(), stand_in(kind))).collect(),
        Type::Json => Value::Object(Fields::new()),
    }
}
