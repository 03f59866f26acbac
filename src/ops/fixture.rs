//! What the unit tests of operators share: one step checked, or built and run, on its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::call::{Budget, Caps, Control, Desk};
use crate::kit::{Check, Columns, Kit};
use crate::ops::{Op, Runner, StepFile};
use crate::problem::{KeyPath, Place};
use crate::row::{Outcome, Row, RowId, Type};
use crate::shape;
use crate::store::{Access, Amount, Store};
use crate::template::Templates;

/// A kit without teachers, in a folder of its own.
pub struct Fixture {
    pub kit: Kit,
    pub folder: tempfile::TempDir,
}

pub fn open() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Write).unwrap();
    let budget = Budget::new(Caps::default(), Amount::default());
    let desk = Desk::new(store, budget, Control::default(), "exercises", "0");
    let kit = Kit {
        templates: Templates::new(&folder.path().join("templates")),
        base: folder.path().to_owned(),
        seed: 7,
        epoch: "0".into(),
        step: "step".into(),
        step_index: 0,
        teachers: Arc::default(),
        desk: Arc::new(desk),
        environment: Arc::default(),
    };
    Fixture { kit, folder }
}

/// The operator of a step as the file has it.
pub fn op(step: Value) -> Op {
    let step: StepFile = serde_json::from_value(step).unwrap();
    let mut ops = step.operators();
    assert_eq!(ops.len(), 1);
    ops.remove(0)
}

/// The columns behind a step, `name: type, …`, or all that is wrong with it, `place: message; …`. The
/// columns before it are an object in the short-hand of `json:`.
pub fn checked(step: Value, columns: &Value) -> Result<String, String> {
    let Type::Object(columns) = shape::type_of(&shape::from_short_hand(columns).unwrap()) else {
        panic!("{columns} is no object");
    };
    checked_in(Path::new("nowhere"), step, columns.into_iter().collect())
}

/// The same for a step with files below `base`.
pub fn checked_in(base: &Path, step: Value, columns: Columns) -> Result<String, String> {
    let op = op(step);
    let templates = Templates::new(&base.join("templates"));
    let mut check = Check {
        templates: &templates,
        base,
        teachers: &[],
        teachers_used: BTreeSet::new(),
        columns,
        problems: Vec::new(),
        missing: Vec::new(),
        files: std::collections::BTreeSet::new(),
        at: KeyPath::parse(op.name()),
        step: "step".to_owned(),
    };
    op.operator().check(&mut check);
    let missing =
        check.missing.iter().map(|missing| (&missing.place, format!("no field `{}`", missing.field)));
    let problems = check.problems.iter().map(|problem| (&problem.place, problem.message.clone()));
    let all: Vec<String> =
        missing.chain(problems).map(|(place, message)| format!("{}: {message}", shown(place))).collect();
    if !all.is_empty() {
        return Err(all.join("; "));
    }
    let columns = check.columns.iter().map(|(name, kind)| format!("{name}: {kind}"));
    Ok(columns.collect::<Vec<_>>().join(", "))
}

fn shown(place: &Place) -> String {
    match place {
        Place::Value(path) | Place::Key(path) | Place::Inside(path, _) => path.to_string(),
        other => format!("{other:?}"),
    }
}

/// What a step made of maps does with the row `17`: the fields it keeps, the list of the children's
/// fields, or the reason as `code evidence`.
pub fn map(kit: &Kit, step: Value, fields: Value) -> Result<Value, String> {
    let Value::Object(fields) = fields else { panic!("{fields} is no row") };
    map_row(kit, step, Row::new(RowId::root(17), fields))
}

pub fn map_row(kit: &Kit, step: Value, mut row: Row) -> Result<Value, String> {
    for runner in op(step).operator().build(kit).unwrap() {
        let Runner::Map(runner) = runner else { panic!("not a map") };
        match runner.map(row) {
            Outcome::Keep(kept) => row = kept,
            Outcome::Split(_, children) => {
                return Ok(children.into_iter().map(Value::Object).collect());
            }
            Outcome::Reject(_, reason) => return Err(format!("{} {}", reason.code, reason.evidence)),
            Outcome::Fail(_, failure) => return Err(format!("failed: {}", failure.message)),
        }
    }
    Ok(Value::Object(row.fields))
}
