//! `generate`: ask a teacher to write something for each row.
//!
//! # What it does
//! Renders the prompt with the row's fields, asks the teacher, and puts the answer into a new field. By
//! default the answer is the text as it came; `json:` (or `json_schema:`) asks for an object and checks it,
//! `list: true` takes the items of a list, `code: python` the fenced code block, `tag: answer` what stands
//! between `<answer>` and `</answer>`. `reasoning_into:` keeps what a reasoning model wrote before, where the
//! server shows it. With `samples: n` each row splits into n rows with an answer each.
//!
//! # When to use it
//! For everything a model writes: sections, exercises, questions, answers, translations, rewrites.
//!
//! # Example
//! ```yaml
//! - generate:
//!     teacher: writer
//!     prompt: "Write an exercise about {{ topic }} for {{ audience }}."
//!     into: exercise
//!     json: { statement: string, solution: string, hints?: [string], level: easy | hard }
//!     temperature: 0.8
//!     max_tokens: 1200
//! ```
//!
//! # Limits
//! Every row gets an answer of its own, also where two rows render the same prompt (`reuse: request` shares
//! it; so does `temperature: 0`). An answer cut by `max_tokens` is rejected `truncated` unless
//! `continue_attempts` lets it go on; a refusal is rejected `refused`; an answer that does not have the form
//! asked for is shown to the model with what is wrong (`repair_attempts`), then rejected `unparsable`.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::call::{Draw, Stopped};
use crate::kit::{Check, Kit};
use crate::ops::ask::{FormFile, Manner, MessageFile, PromptFile, Question, Told, check_extra, check_manner};
use crate::ops::{Asks, CallRow, MapRow, Operator, Runner};
use crate::row::{Outcome, Row, Type};

/// Ask a teacher to write something for each row.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "generate", deny_unknown_fields)]
pub struct Generate {
    /// The teacher to ask.
    pub teacher: String,
    /// The user message: a template, or the name of a `.j2` file in `templates/`.
    pub prompt: Option<String>,
    /// The system message, likewise.
    pub system: Option<String>,
    /// A whole conversation instead of `prompt`: a list of `system:`, `user:` and `assistant:` templates.
    pub messages: Option<Vec<MessageFile>>,
    /// The field that takes the answer.
    pub into: String,
    /// The field that takes what the model wrote before its answer (its reasoning), where the server shows it.
    pub reasoning_into: Option<String>,
    /// The answer is JSON of this shape, in short-hand: `{ title: string, tags: [string], note?: string }`.
    pub json: Option<Value>,
    /// The answer is JSON that fits this JSON Schema.
    pub json_schema: Option<Value>,
    /// The answer is a list; the field holds its items.
    #[serde(default)]
    pub list: bool,
    /// The answer holds a fenced code block in this language; the field holds the code.
    pub code: Option<String>,
    /// The answer holds this tag; the field holds what stands between `<tag>` and `</tag>`.
    pub tag: Option<String>,
    /// Sampling temperature, 0 to 2; the server's default when absent.
    pub temperature: Option<f64>,
    /// Most tokens of an answer; needed under a budget.
    pub max_tokens: Option<u32>,
    /// Texts at which the model stops.
    #[serde(default)]
    pub stop: Vec<String>,
    /// The server's sampling seed, for servers that have one.
    pub seed: Option<i64>,
    /// Answers per row; more than one splits the row.
    #[serde(default = "one")]
    pub samples: u32,
    /// Which calls share an answer.
    #[serde(default)]
    pub reuse: Reuse,
    /// Times that the model is shown what was wrong with its answer and asked again.
    #[serde(default = "one")]
    pub repair_attempts: u32,
    /// Times that an answer cut by `max_tokens` is asked to go on.
    #[serde(default)]
    pub continue_attempts: u32,
    /// Any other key of the request body, as the server knows it.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

fn one() -> u32 {
    1
}

/// Most samples of one row: a typing error should not cost a fortune.
const SAMPLES_MAX: u32 = 1000;

/// Which calls share an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "reuse", rename_all = "snake_case")]
pub enum Reuse {
    /// None: every row gets an answer of its own.
    #[default]
    Row,
    /// Calls whose requests are the same.
    Request,
}

impl Generate {
    fn prompt_file(&self) -> PromptFile<'_> {
        PromptFile {
            prompt: self.prompt.as_deref(),
            system: self.system.as_deref(),
            messages: self.messages.as_deref(),
        }
    }

    fn form_file(&self) -> FormFile<'_> {
        FormFile {
            json: self.json.as_ref(),
            json_schema: self.json_schema.as_ref(),
            list: self.list,
            code: self.code.as_deref(),
            tag: self.tag.as_deref(),
        }
    }
}

impl Operator for Generate {
    fn check(&self, check: &mut Check<'_>) {
        check.teacher("teacher", &self.teacher);
        self.prompt_file().check(check);
        check_manner(check, self.temperature, self.max_tokens);
        check_extra(check, &self.extra);
        if self.samples == 0 || self.samples > SAMPLES_MAX {
            check.problem("samples", format!("`samples` must be between 1 and {SAMPLES_MAX}"));
        }
        let kind = self.form_file().check(check);
        check.makes("into", &self.into, kind);
        if let Some(field) = &self.reasoning_into {
            check.makes("reasoning_into", field, Type::Text);
        }
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let question = Question {
            caller: kit.caller(&self.teacher)?,
            prompt: self.prompt_file().build(kit)?,
            form: self.form_file().build()?,
            manner: Manner {
                temperature: self.temperature,
                max_tokens: self.max_tokens,
                stop: self.stop.clone(),
                seed: self.seed,
                extra: self.extra.clone(),
                repair_attempts: self.repair_attempts,
                continue_attempts: self.continue_attempts,
            },
            draw: if self.reuse == Reuse::Request || self.temperature == Some(0.0) {
                Draw::Request
            } else {
                Draw::Row
            },
        };
        let ask = Runner::Call(Box::new(Ask {
            question,
            into: self.into.clone(),
            reasoning_into: self.reasoning_into.clone(),
            samples: self.samples,
        }));
        if self.samples == 1 {
            return Ok(vec![ask]);
        }
        Ok(vec![Runner::Map(Box::new(Copies(self.samples))), ask])
    }

    fn default_name(&self) -> Option<&str> {
        Some(&self.into)
    }

    fn asks(&self) -> Vec<Asks<'_>> {
        let json = self.json.is_some() || self.json_schema.is_some();
        vec![Asks::once(&self.teacher, self.max_tokens, json)]
    }

    fn copies(&self) -> u32 {
        self.samples
    }

    fn rows_per_row(&self) -> Option<u32> {
        Some(self.samples)
    }
}

/// Splits a row into copies of itself, one per sample.
struct Copies(u32);

impl MapRow for Copies {
    fn map(&self, row: Row) -> Outcome {
        let children = vec![row.fields.clone(); self.0 as usize];
        Outcome::split(row, children)
    }
}

struct Ask {
    question: Question,
    into: String,
    reasoning_into: Option<String>,
    samples: u32,
}

impl CallRow for Ask {
    fn call(&self, mut row: Row) -> BoxFuture<'_, Result<Outcome, Stopped>> {
        async move {
            // The copies of a row differ in their last index; it numbers the samples.
            let sample = if self.samples > 1 { row.id.path.last().copied().unwrap_or(0) } else { 0 };
            match self.question.ask(&mut row, sample).await {
                Ok(Told { value, reasoning }) => {
                    row.fields.insert(self.into.clone(), value);
                    if let Some(field) = &self.reasoning_into {
                        row.fields.insert(field.clone(), reasoning.into());
                    }
                    Ok(Outcome::Keep(row))
                }
                Err(unanswered) => unanswered.outcome(row),
            }
        }
        .boxed()
    }
}
