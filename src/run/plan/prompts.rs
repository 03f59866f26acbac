//! How long prompts are that cannot be rendered yet, since they need answers that are not there.
//!
//! They are rendered with the first source rows and with stand-ins for whatever steps make: empty texts,
//! zeros, lists of one item. What the answers add to that is the estimate's to say.

use std::collections::{BTreeMap, BTreeSet};

use crate::call::{DryRun, Line};
use crate::ops::Runner;
use crate::pipeline::check::Pipeline;
use crate::row::{Fields, Row, Type, Value};
use crate::run::plan::{DrySteps, dry_steps};
use crate::run::{Options, RunError, source};
use crate::shape;
use crate::store::Store;

/// Source rows that prompts are rendered for.
const ROWS_MAX: usize = 20;

/// Bytes of one request without the answers in it, on average, by step and teacher; nothing of those whose
/// prompts cannot be rendered so.
pub async fn bytes(
    pipeline: &Pipeline,
    store: &Store,
    options: &Options,
) -> Result<BTreeMap<Line, f64>, RunError> {
    let rows = source::open(pipeline, options).map_err(RunError::Problems)?.take(ROWS_MAX);
    let rows: Vec<Row> = rows.collect::<Result<_, _>>().map_err(RunError::Io)?;
    let DrySteps { desk, steps, .. } = dry_steps(pipeline, store, options, answered(pipeline))?;
    for (step, built) in pipeline.steps.iter().zip(&steps) {
        for runner in built.runners.iter().filter(|_| !step.op.operator().asks().is_empty()) {
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
    }
    let lines = desk.monitor.lines().into_iter().filter(|(_, seen)| seen.misses > 0);
    Ok(lines.map(|(line, seen)| (line, seen.miss_bytes as f64 / seen.misses as f64)).collect())
}

/// A dry run in which steps whose later requests hold their earlier answers get as little as an answer can
/// be, so that these are rendered, too.
fn answered(pipeline: &Pipeline) -> DryRun {
    let chained =
        pipeline.steps.iter().filter(|step| step.op.operator().asks().iter().any(|asks| asks.chained));
    let chained: BTreeSet<String> = chained.map(|step| step.name.clone()).collect();
    DryRun::with(move |step, request| {
        chained.contains(step).then(|| match &request.schema {
            Some(schema) => stand_in_for(schema).to_string(),
            None => "-".to_owned(),
        })
    })
}

/// The shortest value that most likely fits a schema.
fn stand_in_for(schema: &Value) -> Value {
    let first = schema.get("enum").and_then(Value::as_array).and_then(|values| values.first());
    if let Some(value) = first.or(schema.get("const")).or(schema.get("minimum")) {
        return value.clone();
    }
    match (schema.get("properties").and_then(Value::as_object), schema.get("items")) {
        (Some(keys), _) => keys.iter().map(|(key, inner)| (key.clone(), stand_in_for(inner))).collect(),
        (None, Some(item)) => Value::from(vec![stand_in_for(item)]),
        (None, None) => stand_in(&shape::type_of(schema)),
    }
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
