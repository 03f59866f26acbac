//! `judge`: have a teacher grade each row by a rubric.
//!
//! # What it does
//! Renders the rubric with the row's fields, asks the teacher for a number on the scale and a reason, and
//! puts them into two new fields: `into: grade` makes `grade` (a number) and `grade_reason` (a text). With
//! `images:` (as in `generate`) the teacher sees what it grades. `escalate:` names a better teacher for
//! grades that do not do, as in `generate`: `{ to: strong, unless: grade < 2 }`.
//!
//! # When to use it
//! To score what rules cannot: correctness, clarity, usefulness. Follow it with `keep_if: grade >= 4`, or
//! save the grade as a column and choose later.
//!
//! # Example
//! ```yaml
//! - judge:
//!     teacher: critic
//!     prompt: "Grade this exercise for a beginner's course, 5 is best:\n\n{{ exercise.statement }}"
//!     into: grade
//!     scale: [1, 5]
//! ```
//!
//! # Limits
//! The same request gets the same grade: rows that render the same rubric share one call. Grades may be
//! fractions unless `whole: true`. A number off the scale or an answer such as "4/5" is shown to the model with
//! what is wrong (`repair_attempts`), then rejected `unparsable`. Temperature is 0 unless set.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::call::{Draw, Pause};
use crate::kit::{Check, Kit};
use crate::ops::ask::{Form, Manner, MessageFile, PromptFile, Question, Told, check_extra, check_manner};
use crate::ops::escalate::{EscalateFile, Ladder};
use crate::ops::images::{ImageFile, Images, check_images};
use crate::ops::{Asks, CallRow, Operator, Runner};
use crate::row::{Fields, Outcome, Row, Type};
use crate::shape::Shape;

/// What the name of a grade's field ends in to name that of its reason.
pub const REASON_SUFFIX: &str = "_reason";

/// Have a teacher grade each row by a rubric.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "judge", deny_unknown_fields)]
pub struct Judge {
    /// The teacher to ask.
    pub teacher: String,
    /// The rubric as a user message: a template, or the name of a `.j2` file in `templates/`.
    pub prompt: Option<String>,
    /// The system message, likewise.
    pub system: Option<String>,
    /// A whole conversation instead of `prompt`.
    pub messages: Option<Vec<MessageFile>>,
    /// Images that the (first) user message shows before its text.
    #[serde(default)]
    pub images: Vec<ImageFile>,
    /// The field that takes the grade; its reason goes into the field of that name with `_reason`.
    pub into: String,
    /// The lowest and the highest grade: 1 to 5 by default.
    #[serde(default = "scale")]
    pub scale: [f64; 2],
    /// Grades are whole numbers.
    #[serde(default)]
    pub whole: bool,
    /// Sampling temperature: 0 by default.
    pub temperature: Option<f64>,
    /// Most tokens of an answer; needed under a budget.
    pub max_tokens: Option<u32>,
    /// Times that the model is shown what was wrong with its answer and asked again.
    #[serde(default = "one")]
    pub repair_attempts: u32,
    /// Any other key of the request body, as the server knows it.
    #[serde(default)]
    pub extra: Map<String, Value>,
    /// A better teacher, `{ to: …, unless: … }`, that is asked the same where the first one's grade does not
    /// do; or a list of them.
    #[serde(default)]
    pub escalate: EscalateFile,
}

fn scale() -> [f64; 2] {
    [1.0, 5.0]
}

fn one() -> u32 {
    1
}

impl Judge {
    fn prompt_file(&self) -> PromptFile<'_> {
        PromptFile {
            prompt: self.prompt.as_deref(),
            system: self.system.as_deref(),
            messages: self.messages.as_deref(),
        }
    }

    /// The shape of an answer. The reason comes first: a grade is better thought through than defended.
    fn schema(&self) -> Value {
        let kind = if self.whole { "integer" } else { "number" };
        let [lowest, highest] = self.scale.map(plain);
        json!({
            "type": "object",
            "properties": {
                "reason": {"type": "string"},
                "grade": {"type": kind, "minimum": lowest, "maximum": highest},
            },
            "required": ["reason", "grade"],
            "additionalProperties": false,
        })
    }

    fn reason_field(&self) -> String {
        format!("{}{REASON_SUFFIX}", self.into)
    }

    fn question(&self, kit: &Kit, teacher: &str) -> anyhow::Result<Question> {
        let shape = Shape::new(&self.schema()).map_err(|message| anyhow::anyhow!(message))?;
        Ok(Question {
            caller: kit.caller(teacher)?,
            prompt: self.prompt_file().build(kit)?,
            form: Form::Json(Box::new(shape)),
            manner: Manner {
                temperature: Some(self.temperature.unwrap_or(0.0)),
                max_tokens: self.max_tokens,
                extra: self.extra.clone(),
                repair_attempts: self.repair_attempts,
                images: Arc::new(Images::build(&self.images, kit)?),
                ..Manner::default()
            },
            draw: Draw::Request,
        })
    }
}

/// A whole number as an integer: `5`, not `5.0`.
fn plain(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

impl Operator for Judge {
    fn check(&self, check: &mut Check<'_>) {
        check.teacher("teacher", &self.teacher);
        self.prompt_file().check(check);
        check_manner(check, self.temperature, self.max_tokens);
        check_extra(check, &self.extra);
        check_images(check, &self.images);
        let [lowest, highest] = self.scale;
        if lowest.partial_cmp(&highest) != Some(std::cmp::Ordering::Less) {
            check.problem("scale", "the scale goes from the lowest to the highest grade").hint =
                Some("such as `[1, 5]`".to_owned());
        }
        if self.whole && (lowest.fract() != 0.0 || highest.fract() != 0.0) {
            check.problem("scale", "a scale of whole grades has whole ends");
        }
        check.makes("into", &self.into, if self.whole { Type::Integer } else { Type::Number });
        check.makes("into", &self.reason_field(), Type::Text);
        self.escalate.check(check, &self.teacher);
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let ladder = self.escalate.build(kit, &self.teacher, |teacher| self.question(kit, teacher))?;
        let grade = Grade { ladder, into: self.into.clone(), reason: self.reason_field() };
        Ok(vec![Runner::Call(Box::new(grade))])
    }

    fn default_name(&self) -> Option<&str> {
        Some(&self.into)
    }

    fn asks(&self) -> Vec<Asks<'_>> {
        self.escalate.asks(Asks::once(&self.teacher, self.max_tokens, true))
    }
}

struct Grade {
    ladder: Ladder,
    into: String,
    reason: String,
}

impl CallRow for Grade {
    fn call(&self, mut row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        async move {
            let put = |fields: &mut Fields, Told { value: mut answer, .. }| {
                fields.insert(self.into.clone(), answer["grade"].take());
                fields.insert(self.reason.clone(), answer["reason"].take());
            };
            match self.ladder.ask(&mut row, 0, put).await {
                Ok(()) => Ok(Outcome::Keep(row)),
                Err(unanswered) => unanswered.outcome(row),
            }
        }
        .boxed()
    }
}
