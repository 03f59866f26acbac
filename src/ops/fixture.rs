//! What the unit tests of operators share: one step checked, or built and run, on its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::call::{Budget, Control, Desk};
use crate::kit::{Check, Columns, Commands, Kit, Missing};
use crate::ops::{Decision, FoldKey, FoldRow, GroupRow, Op, Operator, Runner, StepFile};
use crate::problem::{KeyPath, Place, Problem};
use crate::row::{CallMark, Outcome, Reason, Row, RowId, Type};
use crate::shape;
use crate::store::{Access, Store};
use crate::teacher::api::Api;
use crate::teacher::format::ApiFormat;
use crate::teacher::gate::{Gate, Limits};
use crate::teacher::scripted::Script;
use crate::teacher::site::{SiteParts, Wire};
use crate::teacher::wire::{Teacher, TeacherParts};
use crate::template::Templates;

/// A kit without teachers, in a folder of its own.
pub struct Fixture {
    pub kit: Kit,
    pub folder: tempfile::TempDir,
}

pub fn open() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    Fixture { kit: kit(folder.path()), folder }
}

/// A kit for a pipeline file in `folder`, whose store is there, too.
pub fn kit(folder: &Path) -> Kit {
    let store = Store::open(folder, Access::Write).unwrap();
    let budget = Budget::default();
    let environment = vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())];
    Kit {
        templates: Templates::new(&folder.join("templates")),
        base: folder.to_owned(),
        seed: 7,
        epoch: "0".into(),
        step: "step".into(),
        step_index: 0,
        teachers: Arc::default(),
        desk: Arc::new(Desk::new(store, budget, Control::default(), "exercises", "0")),
        commands: Arc::new(Commands { environment, watch: Vec::new() }),
        target: folder.join("out"),
        indexes: Some(folder.join(".textmill/indexes")),
    }
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
    let found = check(base, op.operator(), columns, KeyPath::parse(op.name()));
    if !found.problems.is_empty() {
        return Err(found.problems.join("; "));
    }
    let columns = found.columns.iter().map(|(name, kind)| format!("{name}: {kind}"));
    Ok(columns.collect::<Vec<_>>().join(", "))
}

/// The same for an operator's config on its own: its problems as `key: message`, and the columns after it.
pub fn checked_config<T: DeserializeOwned + Operator>(
    config: Value,
    columns: &[(&str, Type)],
) -> (Vec<String>, Columns) {
    let op: T = serde_json::from_value(config).unwrap();
    let columns = columns.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect();
    let Found { problems, columns } = check(Path::new("nowhere"), &op, columns, KeyPath::root());
    (problems, columns)
}

struct Found {
    problems: Vec<String>,
    columns: Columns,
}

fn check(base: &Path, op: &dyn Operator, columns: Columns, at: KeyPath) -> Found {
    let templates = Templates::new(&base.join("templates"));
    let mut check = Check {
        templates: &templates,
        base,
        teachers: Some(&[]),
        teachers_used: Default::default(),
        apis: Default::default(),
        columns,
        problems: Vec::new(),
        missing: Vec::new(),
        files: Default::default(),
        at,
        step: "step".to_owned(),
        target: base.join("out"),
    };
    op.check(&mut check);
    let missing = |found: &Missing| format!("{}: no field `{}`", words(&found.place), found.field);
    let problem = |found: &Problem| format!("{}: {}", words(&found.place), found.message);
    let problems = check.problems.iter().map(problem).chain(check.missing.iter().map(missing)).collect();
    Found { problems, columns: check.columns }
}

fn words(place: &Place) -> String {
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

/// How a step that asks ends the row `17`, and what it asked whom: `teacher < role: text < role: text`. Its
/// teachers answer with `replies`, in call order.
pub async fn asked(step: Value, replies: Value, fields: &Value) -> (Value, Vec<String>) {
    let Fixture { mut kit, folder: _folder } = open();
    let op = op(step);
    let script = Arc::new(Script::new([(&"step".to_owned(), &replies)]));
    let teachers = op.operator().teachers().into_iter();
    kit.teachers =
        Arc::new(teachers.map(|name| (name.to_owned(), Arc::new(scripted(name, &script)))).collect());
    let runner = op.operator().build(&kit).unwrap().pop();
    let Some(Runner::Call(call)) = runner else { panic!("the step asks nobody") };
    let outcome = call.call(row("17", fields)).await.unwrap();
    let (Outcome::Keep(row) | Outcome::Reject(row, _) | Outcome::Fail(row, _) | Outcome::Split(row, _)) =
        &outcome;
    let asked = row.calls.iter().map(|mark| request(&kit, mark)).collect();
    (shown(outcome), asked)
}

fn scripted(name: &str, script: &Arc<Script>) -> Teacher {
    let patience = Duration::from_secs(1);
    Teacher::new(TeacherParts {
        name: name.to_owned(),
        identity: name.to_owned(),
        price: None,
        attempts_max: 1,
        patience,
        format: ApiFormat::default(),
        api: Api::named("m"),
        sites: vec![SiteParts {
            name: name.to_owned(),
            gate: Gate::new(Limits::default(), patience),
            weight: 1.0,
            api: Api::named("m"),
            wire: Wire::Scripted(Arc::clone(script)),
            serving: None,
        }],
    })
}

fn request(kit: &Kit, mark: &CallMark) -> String {
    let reply = kit.desk.store.reply(mark.key.parse().unwrap()).unwrap().unwrap();
    let body: Value = serde_json::from_slice(&reply.request().unwrap()).unwrap();
    let message = |message: &Value| {
        format!(" < {}: {}", message["role"].as_str().unwrap(), message["content"].as_str().unwrap())
    };
    let messages: String = body["messages"].as_array().unwrap().iter().map(message).collect();
    format!("{}{messages}", mark.teacher)
}

/// A config with more keys.
pub fn with(mut config: Value, more: Value) -> Value {
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    config
}

pub fn row(id: &str, fields: &Value) -> Row {
    Row::new(id.parse().unwrap(), fields.as_object().unwrap().clone())
}

/// What became of a row: its fields, a list of its children's, or why it ended.
pub fn shown(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Keep(row) => Value::Object(row.fields),
        Outcome::Split(_, children) => children.into_iter().map(Value::Object).collect(),
        Outcome::Reject(_, reason) => json!({"rejected": reason.code, "evidence": reason.evidence}),
        Outcome::Fail(_, failure) => {
            json!({"failed": failure.code, "message": failure.message, "evidence": failure.evidence})
        }
    }
}

/// Builds the one runner of a step that needs no teacher.
pub fn built<T: DeserializeOwned + Operator>(config: Value, kit: &Kit) -> Runner {
    let op: T = serde_json::from_value(config).unwrap();
    let mut runners = op.build(kit).unwrap();
    assert_eq!(runners.len(), 1);
    runners.remove(0)
}

/// Passes rows through a fold in order: nothing for those that are kept, else why not.
pub fn folded(fold: &dyn FoldRow, rows: &[Row]) -> Vec<Option<Value>> {
    let mut state = fold.start();
    let decide = |row: &Row| match fold.key(row) {
        Ok(key) => reject(state.decide(&row.id, key)),
        Err(reason) => reject(Decision::Reject(reason)),
    };
    rows.iter().map(decide).collect()
}

/// Has a group decide about rows, all of which belong together: nothing for those that are kept, else why not.
pub fn grouped(group: &dyn GroupRow, rows: &[(&str, Value)]) -> Vec<Option<Value>> {
    let rows: Vec<Row> = rows.iter().map(|(id, fields)| row(id, fields)).collect();
    let keys: Vec<Result<FoldKey, Reason>> = rows.iter().map(|row| group.key(row)).collect();
    let sound = rows.iter().zip(&keys).filter_map(|(row, key)| Some((row.id.clone(), key.clone().ok()?)));
    let mut decisions = group.decide(&sound.collect::<Vec<_>>()).into_iter();
    let ends = keys.into_iter().map(|key| match key {
        Ok(_) => reject(decisions.next().unwrap()),
        Err(reason) => reject(Decision::Reject(reason)),
    });
    ends.collect()
}

fn reject(decision: Decision) -> Option<Value> {
    match decision {
        Decision::Keep | Decision::KeepWith(_) => None,
        Decision::Reject(reason) => Some(json!({"code": reason.code, "evidence": reason.evidence})),
        Decision::KeepAsLast => panic!("the fold ended"),
    }
}
