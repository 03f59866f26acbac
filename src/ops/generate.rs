//! `generate`: ask a teacher to write something for each row.
//!
//! # What it does
//! Renders the prompt with the row's fields, asks the teacher, and puts the answer into a new field. By
//! default the answer is the text as it came; `json:` (or `json_schema:`) asks for an object and checks it,
//! `list: true` takes the items of a list, `code: python` the fenced code block, `tag: answer` what stands
//! between `<answer>` and `</answer>`. `reasoning_into:` keeps what a reasoning model wrote before, where the
//! server shows it. With `samples: n` each row splits into n rows with an answer each; `samples_per_call` has
//! one call bring several of them, so that the prompt is paid once.
//!
//! `images:` go with the prompt, each from a file, a URL or a field: `images: [{ file: "{{ path }}", root: pictures }]`.
//!
//! With `tools:` the model is given tools that it may call; `tool_calls_into:` takes its calls, `into:` the text
//! beside them, which may be empty. Nothing runs a tool. `logprobs_into:` takes the answer's tokens with
//! their log probabilities.
//!
//! `escalate:` names a better teacher, `to`, that is asked the same where the first one's answer is refused, cut,
//! not of its form, or not one for which `unless` holds, an expression in which the answer has its field's name; a
//! list of them is gone through until an answer does. The last one's answer is final.
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
//! Data about calling tools:
//!
//! ```yaml
//! - generate:
//!     teacher: writer
//!     prompt: "{{ question }}"
//!     into: said
//!     tools:
//!       - name: weather
//!         description: Tells the weather of a day in a city.
//!         parameters: { city: string, day: string, unit?: celsius | fahrenheit }
//!     tool_choice: required
//!     tool_calls_into: calls        # [{ name: weather, arguments: { city: Rome, day: today } }]
//! ```
//!
//! # Limits
//! Every row gets an answer of its own, also where two rows render the same prompt (`reuse: request` shares
//! it; so does `temperature: 0`). An answer cut by `max_tokens` is rejected `truncated` unless
//! `continue_attempts` lets it go on; a refusal is rejected `refused`; an answer that does not have the form
//! asked for is shown to the model with what is wrong (`repair_attempts`), then rejected `unparsable`. So is a
//! call of a tool that was not given, or whose arguments do not fit its parameters.
//!
//! All this comes before the next teacher of `escalate:`. A call that brings no answer at all fails the row: a cheap
//! server that is down sends nothing to a dear one. How many rows went on is in the run's accounts (`escalated`),
//! and who wrote a row's answer in its provenance. Of samples that share a call, each that goes on has one of its own.
//!
//! Images are PNG, JPEG, GIF or WebP, within the size that the API takes; one that cannot be read, or that a row
//! looks for outside of `root` or `hosts`, rejects its row `bad_image`. URLs are fetched by the teacher's provider,
//! never by textmill. A budget reckons an image at the most tokens that any model of the API takes it for.
//!
//! `tools_from: FIELD` gives each row tools of its own: a list (or its JSON text) of `{ name, description,
//! parameters }` with a JSON Schema as `parameters`, also in OpenAI's wrapping; a row without sound tools is
//! rejected `bad_tools`.
//!
//! Only `openai` and `gemini` teachers give several answers to a call; of those, each is taken or rejected on its
//! own, and one that did not come is rejected `missing_answer`. Log probabilities come from `openai`,
//! `responses` and `gemini` teachers; the field is null where a server leaves them out.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::call::{Draw, Pause};
use crate::kit::{Check, Kit};
use crate::ops::ask::{
    FormFile, Manner, MessageFile, PromptFile, Question, Share, Told, check_extra, check_manner, draw_at,
};
use crate::ops::escalate::{EscalateFile, Ladder};
use crate::ops::images::{ImageFile, Images, check_images};
use crate::ops::tools::{ToolFile, ToolsFile};
use crate::ops::{Asks, CallRow, MapRow, Operator, Runner};
use crate::row::{Fields, Outcome, Row, Type};
use crate::teacher::Logprob;

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
    /// Images that the (first) user message shows before its text.
    #[serde(default)]
    pub images: Vec<ImageFile>,
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
    /// How many of the samples one call asks for, where the API has it: the prompt is paid once for them.
    #[serde(default = "one")]
    pub samples_per_call: u32,
    /// Tools that the model may call.
    pub tools: Option<Vec<ToolFile>>,
    /// A field that holds each row's own tools: a list of `{ name, description, parameters }`.
    pub tools_from: Option<String>,
    /// Whether tools are called: `auto`, `required`, `none`, or the name of the one to call. The server's default,
    /// mostly `auto`, when absent.
    pub tool_choice: Option<String>,
    /// The field that takes the calls: a list of `{ name, arguments }`.
    pub tool_calls_into: Option<String>,
    /// The field that takes the answer's tokens: a list of `{ token, logprob }`, natural logarithms.
    pub logprobs_into: Option<String>,
    /// Adds to each token the likeliest in its place, so many: a list `top` of `{ token, logprob }`.
    pub top_logprobs: Option<u32>,
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
    /// A better teacher, `{ to: …, unless: … }`, that is asked the same where the first one's answer does not
    /// do; or a list of them.
    #[serde(default)]
    pub escalate: EscalateFile,
}

fn one() -> u32 {
    1
}

/// Most samples of one row: a typing error should not cost a fortune.
const SAMPLES_MAX: u32 = 1000;
/// OpenAI's and Gemini's bound (their API references, `top_logprobs` and `logprobs`).
const TOP_LOGPROBS_MAX: u32 = 20;

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

    fn tools_file(&self) -> ToolsFile<'_> {
        ToolsFile {
            tools: self.tools.as_deref(),
            tools_from: self.tools_from.as_deref(),
            tool_choice: self.tool_choice.as_deref(),
            tool_calls_into: self.tool_calls_into.as_deref(),
        }
    }

    fn share(&self) -> Option<Share> {
        let (samples, per_call) = (self.samples, self.samples_per_call.min(self.samples));
        (per_call > 1).then_some(Share { samples, per_call })
    }

    fn check_samples(&self, check: &mut Check<'_>) {
        if self.samples == 0 || self.samples > SAMPLES_MAX {
            check.problem("samples", format!("`samples` must be between 1 and {SAMPLES_MAX}"));
        }
        if self.samples_per_call == 0 || self.samples_per_call > self.samples.max(1) {
            let message = "`samples_per_call` must be between 1 and `samples`";
            check.problem("samples_per_call", message);
        }
        let wanted = self.samples_per_call;
        check.api_has("samples_per_call", &self.teacher, |format| match format.wire().answers_max() {
            most if wanted <= most => None,
            1 => Some("which gives one answer to a call".to_owned()),
            most => Some(format!("which gives at most {most} answers to a call")),
        });
    }

    fn check_tools(&self, check: &mut Check<'_>) {
        let tools = self.tools_file();
        tools.check(check);
        if !tools.is_given() {
            return;
        }
        if let Some(form) = self.form_file().given().first() {
            let message = format!("`tools` and `{form}` exclude each other: calls come beside a text");
            check.problem(form, message);
        }
        if self.continue_attempts > 0 {
            let message = "`tools` and `continue_attempts` exclude each other: half a call cannot go on";
            check.problem("continue_attempts", message);
        }
        if self.extra.contains_key("tools") {
            check.problem("extra.tools", "`tools` cannot be set here").hint =
                Some("the step has a key `tools`".to_owned());
        }
    }

    fn check_logprobs(&self, check: &mut Check<'_>) {
        let pair = |more: Option<(String, Type)>| {
            let pair = [("token".to_owned(), Type::Text), ("logprob".to_owned(), Type::Number)];
            Type::List(Box::new(Type::Object(pair.into_iter().chain(more).collect())))
        };
        if self.top_logprobs.is_some_and(|top| top == 0 || top > TOP_LOGPROBS_MAX) {
            let message = format!("`top_logprobs` must be between 1 and {TOP_LOGPROBS_MAX}");
            check.problem("top_logprobs", message);
        }
        match &self.logprobs_into {
            Some(field) => {
                let top = self.top_logprobs.map(|_| ("top".to_owned(), pair(None)));
                check.makes("logprobs_into", field, pair(top));
                for asks in self.asks() {
                    check.api_has("logprobs_into", asks.teacher, |format| {
                        let lack = || "which gives no log probabilities".to_owned();
                        (!format.wire().has_logprobs()).then(lack)
                    });
                }
            }
            None if self.top_logprobs.is_some() => {
                check.problem("top_logprobs", "`top_logprobs` needs `logprobs_into`");
            }
            None => {}
        }
    }

    fn question(&self, kit: &Kit, teacher: &str) -> anyhow::Result<Question> {
        Ok(Question {
            caller: kit.caller(teacher)?,
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
                tools: self.tools_file().build()?,
                images: Arc::new(Images::build(&self.images, kit)?),
                logprobs: self.logprobs_into.as_ref().map(|_| self.top_logprobs.unwrap_or(0)),
                // Few samples of a row go on to a better teacher.
                share: self.share().filter(|_| teacher == self.teacher),
            },
            draw: if self.reuse == Reuse::Request { Draw::Request } else { draw_at(self.temperature) },
        })
    }
}

impl Operator for Generate {
    fn check(&self, check: &mut Check<'_>) {
        check.teacher("teacher", &self.teacher);
        self.prompt_file().check(check);
        check_manner(check, self.temperature, self.max_tokens);
        check_extra(check, &self.extra);
        check_images(check, &self.images);
        self.check_samples(check);
        let kind = self.form_file().check(check);
        check.makes("into", &self.into, kind);
        self.check_tools(check);
        self.check_logprobs(check);
        if let Some(field) = &self.reasoning_into {
            check.makes("reasoning_into", field, Type::Text);
        }
        self.escalate.check(check, &self.teacher);
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let ask = Runner::Call(Box::new(Ask {
            ladder: self.escalate.build(kit, &self.teacher, |teacher| self.question(kit, teacher))?,
            into: self.into.clone(),
            reasoning_into: self.reasoning_into.clone(),
            calls_into: self.tool_calls_into.clone(),
            logprobs_into: self.logprobs_into.clone(),
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
        let answers = self.share().map_or(1, |share| share.per_call);
        self.escalate.asks(Asks { answers, ..Asks::once(&self.teacher, self.max_tokens, json) })
    }

    fn copies(&self) -> u32 {
        self.samples.div_ceil(self.share().map_or(1, |share| share.per_call))
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
    ladder: Ladder,
    into: String,
    reasoning_into: Option<String>,
    calls_into: Option<String>,
    logprobs_into: Option<String>,
    samples: u32,
}

/// Tokens as a field has them.
fn tokens(logprobs: Vec<Logprob>) -> Value {
    let one = |token: Logprob| {
        let mut value = json!({"token": token.token, "logprob": token.logprob});
        if !token.top.is_empty() {
            value["top"] = tokens(token.top);
        }
        value
    };
    logprobs.into_iter().map(one).collect()
}

impl CallRow for Ask {
    fn call(&self, mut row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        async move {
            // The copies of a row differ in their last index; it numbers the samples.
            let sample = if self.samples > 1 { row.id.path.last().copied().unwrap_or(0) } else { 0 };
            let put = |fields: &mut Fields, Told { value, reasoning, calls, logprobs }: Told| {
                fields.insert(self.into.clone(), value);
                let beside = [
                    (&self.calls_into, calls),
                    (&self.logprobs_into, logprobs.map_or(Value::Null, tokens)),
                    (&self.reasoning_into, reasoning.into()),
                ];
                for (field, value) in beside {
                    if let Some(field) = field {
                        fields.insert(field.clone(), value);
                    }
                }
            };
            match self.ladder.ask(&mut row, sample, put).await {
                Ok(()) => Ok(Outcome::Keep(row)),
                Err(unanswered) => unanswered.outcome(row),
            }
        }
        .boxed()
    }
}
