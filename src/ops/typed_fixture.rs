//! What tests of operators share: checking a step's config, rows, a kit with a store of its own.

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::call::{Budget, Caps, Control, Desk};
use crate::kit::{Check, Columns, Kit};
use crate::ops::{Decision, FoldRow, Operator, Runner};
use crate::problem::{KeyPath, Place};
use crate::row::{Outcome, Row, Type};
use crate::store::{Access, Amount, Store};
use crate::template::Templates;

/// Reads a step's config and checks it: its problems as `key: message`, and the columns after it.
pub fn checked<T: DeserializeOwned + Operator>(
    config: Value,
    columns: &[(&str, Type)],
) -> (Vec<String>, Columns) {
    let op: T = serde_json::from_value(config).unwrap();
    let templates = Templates::new(Path::new("nowhere"));
    let mut check = Check {
        templates: &templates,
        base: Path::new("nowhere"),
        teachers: &[],
        teachers_used: Default::default(),
        columns: columns.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect(),
        problems: Vec::new(),
        missing: Vec::new(),
        files: std::collections::BTreeSet::new(),
        at: KeyPath::root(),
        step: "step".to_owned(),
    };
    op.check(&mut check);
    let at = |place: &Place| match place {
        Place::Value(path) => path.to_string(),
        other => panic!("{other:?}"),
    };
    let problems = check.problems.iter().map(|found| format!("{}: {}", at(&found.place), found.message));
    let missing =
        check.missing.iter().map(|found| format!("{}: no field `{}`", at(&found.place), found.field));
    let problems = problems.chain(missing).collect();
    (problems, check.columns)
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
    let decide = |row: &Row| {
        let decision = match fold.key(row) {
            Ok(key) => state.decide(&row.id, key),
            Err(reason) => Decision::Reject(reason),
        };
        match decision {
            Decision::Keep => None,
            Decision::Reject(reason) => Some(json!({"code": reason.code, "evidence": reason.evidence})),
            Decision::KeepAsLast => panic!("row {} ended the fold", row.id),
        }
    };
    rows.iter().map(decide).collect()
}

/// A kit for a pipeline file in `folder`, whose store is there, too.
pub fn kit(folder: &Path) -> Kit {
    let store = Store::open(folder, Access::Write).unwrap();
    let budget = Budget::new(Caps::default(), Amount::default());
    Kit {
        templates: Templates::new(folder),
        base: folder.to_owned(),
        seed: 0,
        epoch: "0".into(),
        step: "step".into(),
        step_index: 0,
        teachers: Arc::default(),
        desk: Arc::new(Desk::new(store, budget, Control::default(), "tests", "0")),
        environment: [("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())].into(),
    }
}
