//! `refine`: have a text criticised and rewritten until it is good enough.
//!
//! # What it does
//! Takes the text of a field as the first draft and asks for a critique of it; unless `until:` holds, asks for a
//! rewrite, which is the next draft; and so on, for `rounds` rewrites at the most. The last draft goes into a new
//! field. `critique:` and `rewrite:` are each a teacher and a prompt with an answer in any form that `generate`
//! knows. In their templates and in `until`, beside the row's fields, `draft` is the latest draft, and in
//! `rewrite` and `until` `critique` is what was said of it.
//!
//! # When to use it
//! Where one answer is seldom good enough and a model can say what is wrong with it: stories, explanations,
//! proofs, translations. A `judge` and a `keep_if` throw bad texts away; this mends them, for more calls.
//!
//! # Example
//! ```yaml
//! - refine:
//!     field: story
//!     into: story_final
//!     critique:
//!       teacher: critic
//!       prompt: "What would make this story better? Grade it, 5 is best.\n\n{{ draft }}"
//!       json: { advice: string, score: integer }
//!     rewrite:
//!       teacher: writer
//!       prompt: "Rewrite this story. {{ critique.advice }}\n\n{{ draft }}"
//!     until: critique.score >= 4
//!     rounds: 3
//! ```
//!
//! # Limits
//! A draft that does not satisfy `until` after all rounds is kept, since it was paid for and is most likely the
//! best so far; `held_into:` names a field that says whether it does, and `otherwise: reject` rejects the row
//! `rounds_used_up`. Only for these two is the last rewrite criticised as well: `rounds` + 1 critiques at the most,
//! else `rounds`. Without `until` all rounds are taken. A critique or rewrite that is refused, cut or not of its
//! form rejects the row as in `generate`, with the draft so far as evidence. In a pipeline's tests a step's replies
//! come in call order: critique, rewrite, critique…

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::call::Pause;
use crate::kit::{Check, Kit};
use crate::ops::ask::{
    FormFile, Manner, MessageFile, PromptFile, Question, Unanswered, check_extra, check_manner, draw_at,
    holds,
};
use crate::ops::{Asks, CallRow, Operator, Runner};
use crate::row::{FieldPath, Fields, Outcome, Reason, Row, Type};
use crate::template::Expression;

/// Most rewrites of one text: a typing error should not cost a fortune.
const ROUNDS_MAX: u32 = 100;

/// What templates and `until` know beside the row's fields.
const DRAFT: &str = "draft";
const CRITIQUE: &str = "critique";

/// Have a text criticised and rewritten until it is good enough.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "refine", deny_unknown_fields)]
pub struct Refine {
    /// The field with the first draft; it stays as it is.
    pub field: String,
    /// The field that takes the last draft.
    pub into: String,
    /// How a draft is criticised: `draft` is known in its templates.
    pub critique: AskFile,
    /// How a draft is rewritten: `draft` and `critique` are known in its templates.
    pub rewrite: AskFile,
    /// An expression over the row's fields, `draft` and `critique`: a draft for which it holds is the last.
    pub until: Option<String>,
    /// Rewrites at the most.
    pub rounds: u32,
    /// What becomes of a row whose last draft does not satisfy `until`.
    #[serde(default)]
    pub otherwise: Otherwise,
    /// The field that says whether the last draft satisfies `until`: true or false.
    pub held_into: Option<String>,
    /// The field that takes the drafts that were criticised, each with its critique: a list of
    /// `{ draft, critique }`.
    pub critiques_into: Option<String>,
}

/// What becomes of a row whose last draft does not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "otherwise", rename_all = "snake_case")]
pub enum Otherwise {
    /// It is kept with that draft.
    #[default]
    Keep,
    /// It is rejected `rounds_used_up`.
    Reject,
}

/// One thing that is asked: a teacher, a prompt, the form of the answer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "ask", deny_unknown_fields)]
pub struct AskFile {
    /// The teacher to ask.
    pub teacher: String,
    /// The user message: a template, or the name of a `.j2` file in `templates/`.
    pub prompt: Option<String>,
    /// The system message, likewise.
    pub system: Option<String>,
    /// A whole conversation instead of `prompt`: a list of `system:`, `user:` and `assistant:` templates.
    pub messages: Option<Vec<MessageFile>>,
    /// The answer is JSON of this shape, in short-hand: `{ score: integer, advice: string }`.
    pub json: Option<Value>,
    /// The answer is JSON that fits this JSON Schema.
    pub json_schema: Option<Value>,
    /// The answer is a list.
    #[serde(default)]
    pub list: bool,
    /// The answer holds a fenced code block in this language, and the code is what is taken.
    pub code: Option<String>,
    /// The answer holds this tag, and what stands between `<tag>` and `</tag>` is taken.
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

impl AskFile {
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

    /// Reports what is wrong; returns the type of the answers.
    fn check(&self, check: &mut Check<'_>) -> Type {
        check.teacher("teacher", &self.teacher);
        self.prompt_file().check(check);
        check_manner(check, self.temperature, self.max_tokens);
        check_extra(check, &self.extra);
        self.form_file().check(check)
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Question> {
        Ok(Question {
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
                ..Manner::default()
            },
            draw: draw_at(self.temperature),
        })
    }

    fn asks(&self, part: &'static str, calls: [u32; 2]) -> Asks<'_> {
        let json = self.json.is_some() || self.json_schema.is_some();
        Asks { part, calls, chained: true, ..Asks::once(&self.teacher, self.max_tokens, json) }
    }
}

impl Refine {
    /// Whether it matters for the last rewrite if `until` holds.
    fn judges_last(&self) -> bool {
        self.otherwise == Otherwise::Reject || self.held_into.is_some()
    }

    /// What `until` is needed for and is not there.
    fn check_until(&self, check: &mut Check<'_>) {
        if self.until.is_some() {
            return;
        }
        let held_into = self.held_into.as_ref().map(|_| "held_into");
        let otherwise = (self.otherwise == Otherwise::Reject).then_some("otherwise");
        for key in held_into.into_iter().chain(otherwise) {
            check.problem(key, format!("`{key}` needs `until`")).hint =
                Some("without `until` every draft will do, and all rounds are taken".to_owned());
        }
    }
}

impl Operator for Refine {
    fn check(&self, check: &mut Check<'_>) {
        let kind = check.reads("field", &self.field).unwrap_or(Type::Json);
        let (critique, rewrite) = check.with_names("critique", [(DRAFT, kind.clone())], |check| {
            let critique = check.part("critique", |check| self.critique.check(check));
            let rewrite = check.with_names("rewrite", [(CRITIQUE, critique.clone())], |check| {
                if let Some(until) = &self.until {
                    check.expression("until", until);
                }
                check.part("rewrite", |check| self.rewrite.check(check))
            });
            (critique, rewrite)
        });
        if kind != Type::Json && rewrite != kind {
            let message = format!("a rewrite is {rewrite}, and the draft in `{}` is {kind}", self.field);
            check.problem("rewrite", message).hint =
                Some("a rewrite is the next draft: give it the form of the first one".to_owned());
        }
        if self.rounds == 0 || self.rounds > ROUNDS_MAX {
            check.problem("rounds", format!("`rounds` must be between 1 and {ROUNDS_MAX}"));
        }
        self.check_until(check);
        check.makes("into", &self.into, kind.clone());
        if let Some(field) = &self.held_into {
            check.makes("held_into", field, Type::Boolean);
        }
        if let Some(field) = &self.critiques_into {
            let round = vec![(DRAFT.to_owned(), kind), (CRITIQUE.to_owned(), critique)];
            check.makes("critiques_into", field, Type::List(Box::new(Type::Object(round))));
        }
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        Ok(vec![Runner::Call(Box::new(Rounds {
            critique: self.critique.build(kit)?,
            rewrite: self.rewrite.build(kit)?,
            until: self.until.as_deref().map(|text| kit.expression(text)).transpose()?,
            field: FieldPath::parse(&self.field),
            judges_last: self.judges_last(),
            file: self.clone(),
        }))])
    }

    fn default_name(&self) -> Option<&str> {
        Some(&self.into)
    }

    fn asks(&self) -> Vec<Asks<'_>> {
        let critiques = self.rounds.saturating_add(u32::from(self.judges_last()));
        let least = |most: u32, least: u32| if self.until.is_some() { [least, most] } else { [most, most] };
        vec![
            self.critique.asks("critique", least(critiques, 1)),
            self.rewrite.asks("rewrite", least(self.rounds, 0)),
        ]
    }
}

struct Rounds {
    file: Refine,
    field: FieldPath,
    critique: Question,
    rewrite: Question,
    until: Option<Expression>,
    judges_last: bool,
}

/// What the rounds came to.
struct Refined {
    draft: Value,
    /// Whether `until` held, as far as that was asked.
    held: bool,
    critiques: Vec<Value>,
}

impl CallRow for Rounds {
    fn call(&self, mut row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        async move {
            match self.refine(&mut row).await {
                Ok(refined) => Ok(self.outcome(row, refined)),
                Err(unanswered) => unanswered.outcome(row),
            }
        }
        .boxed()
    }
}

impl Rounds {
    async fn refine(&self, row: &mut Row) -> Result<Refined, Unanswered> {
        let Some(first) = self.field.value(&row.fields).filter(|draft| !draft.is_null()) else {
            let evidence = json!({"field": self.file.field});
            return Err(Unanswered::Rejected(Reason::new("no_draft", evidence)));
        };
        let mut fields: Fields = row.fields.clone();
        fields.insert(DRAFT.to_owned(), first.clone());
        let mut refined = Refined { draft: Value::Null, held: false, critiques: Vec::new() };
        for round in 0..=self.file.rounds {
            let is_last = round == self.file.rounds;
            if is_last && !self.judges_last {
                break;
            }
            let critique = self.ask(&self.critique, row, &fields, round).await?;
            refined.critiques.push(json!({DRAFT: fields[DRAFT], CRITIQUE: critique}));
            fields.insert(CRITIQUE.to_owned(), critique);
            let held = self.until.as_ref().map(|until| holds(until, &fields)).transpose();
            refined.held = held.map_err(Unanswered::Rejected)?.unwrap_or(false);
            if refined.held || is_last {
                break;
            }
            let draft = self.ask(&self.rewrite, row, &fields, round).await?;
            fields.insert(DRAFT.to_owned(), draft);
        }
        refined.draft = fields.remove(DRAFT).unwrap_or_default();
        Ok(refined)
    }

    /// An answer in this round; where there is none, the evidence says what it was about.
    async fn ask(
        &self,
        question: &Question,
        row: &mut Row,
        fields: &Fields,
        round: u32,
    ) -> Result<Value, Unanswered> {
        match question.ask_about(fields, row, round).await {
            Ok(told) => Ok(told.value),
            Err(Unanswered::Rejected(mut reason)) => {
                if let Some(evidence) = reason.evidence.as_object_mut() {
                    evidence.insert("round".to_owned(), (round + 1).into());
                    evidence.insert(DRAFT.to_owned(), fields[DRAFT].clone());
                }
                Err(Unanswered::Rejected(reason))
            }
            Err(unanswered) => Err(unanswered),
        }
    }

    fn outcome(&self, mut row: Row, refined: Refined) -> Outcome {
        let Refined { draft, held, critiques } = refined;
        if self.file.otherwise == Otherwise::Reject && !held {
            let critique = critiques.last().map(|last| last[CRITIQUE].clone());
            let evidence = json!({"rounds": self.file.rounds, DRAFT: draft, CRITIQUE: critique});
            return Outcome::Reject(row, Reason::new("rounds_used_up", evidence));
        }
        row.fields.insert(self.file.into.clone(), draft);
        if let Some(field) = &self.file.held_into {
            row.fields.insert(field.clone(), held.into());
        }
        if let Some(field) = &self.file.critiques_into {
            row.fields.insert(field.clone(), critiques.into());
        }
        Outcome::Keep(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::{asked, with};

    /// A step with more keys, against replies in call order; the fields that it adds or how the row ends, and
    /// what was asked.
    async fn check(more: Value, replies: Value, expected: Value, requests: &[&str]) {
        let config = json!({
            "field": "story",
            "into": "final",
            "critique": {"teacher": "critic", "prompt": "Grade {{ draft }}", "json": {"score": "integer"}},
            "rewrite": {"teacher": "writer", "prompt": "{{ critique.score }} is low: {{ draft }}"},
            "until": "critique.score >= 4",
            "rounds": 2,
        });
        let row = json!({"story": "a"});
        let (mut ended, asked) = asked(json!({"refine": with(config, more)}), replies, &row).await;
        if let Some(fields) = ended.as_object_mut() {
            fields.remove("story");
        }
        assert_eq!(ended, expected);
        assert_eq!(asked, requests);
    }

    fn scores(score: u32) -> Value {
        json!({ "score": score })
    }

    #[tokio::test]
    async fn drafts_are_rewritten_until_one_will_do() {
        check(json!({}), json!([scores(4)]), json!({"final": "a"}), &["critic < user: Grade a"]).await;
        check(
            json!({"held_into": "held", "critiques_into": "rounds"}),
            json!([scores(1), "b", scores(5)]),
            json!({
                "final": "b",
                "held": true,
                "rounds": [{"draft": "a", "critique": {"score": 1}}, {"draft": "b", "critique": {"score": 5}}],
            }),
            &["critic < user: Grade a", "writer < user: 1 is low: a", "critic < user: Grade b"],
        )
        .await;
    }

    const ALL: [&str; 4] = [
        "critic < user: Grade a",
        "writer < user: 1 is low: a",
        "critic < user: Grade b",
        "writer < user: 2 is low: b",
    ];

    #[tokio::test]
    async fn the_last_rewrite_is_only_criticised_where_that_matters() {
        let all = json!([scores(1), "b", scores(2), "c", scores(3)]);
        check(json!({}), all.clone(), json!({"final": "c"}), &ALL).await;
        let five = [ALL.as_slice(), &["critic < user: Grade c"]].concat();
        check(json!({"held_into": "held"}), all.clone(), json!({"final": "c", "held": false}), &five).await;
        let rejected = json!({
            "rejected": "rounds_used_up",
            "evidence": {"rounds": 2, "draft": "c", "critique": {"score": 3}},
        });
        check(json!({"otherwise": "reject"}), all, rejected, &five).await;
        let good = json!([scores(1), "b", scores(2), "c", scores(4)]);
        check(json!({"otherwise": "reject"}), good, json!({"final": "c"}), &five).await;
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_used_ends_it_with_the_draft_so_far() {
        check(
            json!({}),
            json!([scores(1), "b", {"$refuse": "No."}]),
            json!({"rejected": "refused", "evidence": {"text": "No.", "round": 2, "draft": "b"}}),
            &ALL[..3],
        )
        .await;
        let (ended, _) = asked(
            json!({"refine": {
                "field": "story",
                "into": "final",
                "critique": {"teacher": "t", "prompt": "{{ draft }}"},
                "rewrite": {"teacher": "t", "prompt": "{{ draft }}"},
                "rounds": 1,
            }}),
            json!([]),
            &json!({"story": null}),
        )
        .await;
        assert_eq!(ended, json!({"rejected": "no_draft", "evidence": {"field": "story"}}));
    }

    #[tokio::test]
    async fn a_rewrite_that_changes_nothing_is_criticised_anew() {
        let same = json!([scores(1), "a", scores(5)]);
        let requests = ["critic < user: Grade a", "writer < user: 1 is low: a", "critic < user: Grade a"];
        check(json!({}), same, json!({"final": "a"}), &requests).await;
    }
}
