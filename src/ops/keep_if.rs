//! `keep_if`: keep rows for which an expression holds.
//!
//! # What it does
//! Evaluates an expression over the row's fields. Rows for which it is true go on; the others are
//! rejected `keep_if`, with the fields it looked at as evidence.
//!
//! # When to use it
//! To act on a judge's grade, a flag, a length: whatever a comparison of fields can say.
//!
//! # Example
//! ```yaml
//! - keep_if: grade >= 4 and "TODO" not in solution
//! ```
//!
//! # Limits
//! The expression must be true or false: anything else, a missing field, or a comparison that makes no
//! sense rejects the row `bad_expression`. The language is that of templates (Jinja expressions).

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kit::{Check, Kit};
use crate::ops::ask::holds;
use crate::ops::{MapRow, Operator, Runner};
use crate::row::{Fields, Outcome, Reason, Row, Value};
use crate::template::Expression;

/// An expression over the row's fields, such as `grade >= 4`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct KeepIf(pub String);

impl Operator for KeepIf {
    fn check(&self, check: &mut Check<'_>) {
        check.expression("", &self.0);
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        Ok(vec![Runner::Map(Box::new(Keep(kit.expression(&self.0)?)))])
    }
}

struct Keep(Expression);

impl MapRow for Keep {
    fn map(&self, row: Row) -> Outcome {
        match holds(&self.0, &row.fields) {
            Ok(true) => Outcome::Keep(row),
            Ok(false) => {
                let evidence = seen(&self.0, &row.fields);
                Outcome::Reject(row, Reason::new("keep_if", evidence))
            }
            Err(reason) => Outcome::Reject(row, reason),
        }
    }
}

/// The fields that the expression looked at.
fn seen(expression: &Expression, fields: &Fields) -> Value {
    let pairs = expression.needs().iter().filter_map(|name| Some((name.clone(), fields.get(name)?.clone())));
    Value::Object(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use crate::row::RowId;
    use crate::template::Templates;

    fn check(expression: &str, fields: Value, expected: Result<(), Value>) {
        let templates = Templates::new(std::path::Path::new("nowhere"));
        let keep = Keep(templates.expression(expression).unwrap());
        let fields = fields.as_object().unwrap().clone();
        let ended = match keep.map(Row::new(RowId::root(0), fields)) {
            Outcome::Keep(_) => Ok(()),
            Outcome::Reject(_, reason) => Err(json!({"code": reason.code, "evidence": reason.evidence})),
            other => panic!("{other:?}"),
        };
        assert_eq!(ended, expected, "{expression}");
    }

    #[test]
    fn keeps_and_rejects() {
        check("grade >= 4", json!({"grade": 4}), Ok(()));
        let evidence = json!({"code": "keep_if", "evidence": {"grade": 3}});
        check("grade >= 4", json!({"grade": 3, "other": 1}), Err(evidence));
        let error = "`grade` is a number, not true or false";
        let evidence = json!({"code": "bad_expression", "evidence": {"expression": "grade", "error": error}});
        check("grade", json!({"grade": 3}), Err(evidence));
    }
}
