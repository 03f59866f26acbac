//! `converse`: have two teachers talk to each other, or one with itself.
//!
//! # What it does
//! Plays a conversation between two roles, `user` and `assistant`, each a teacher with instructions of its own,
//! and puts it into a new field as a list of `{ role, content }` objects, the form that chat models are trained
//! on. The user's model is told by `system:` who it is and by `prompt:` to begin; or `opening:` is the first
//! message, without a call. It sees the conversation with the roles swapped: what the assistant said was said to
//! it. After `turns` exchanges, or when `until:` holds after one, the conversation ends, always with the
//! assistant's words. In `until`, beside the row's fields, `turn` is the number of exchanges so far,
//! `last.user` and `last.assistant` are the latest words, `messages` is all of it.
//!
//! # When to use it
//! For dialogues of several turns: tutoring, support, interviews, negotiations. Draw personas and topics with the
//! source's axes, so that the conversations differ.
//!
//! # Example
//! ```yaml
//! - converse:
//!     into: messages
//!     user:
//!       teacher: persona
//!       system: "You are {{ persona }} and learn about {{ topic }}. When you have understood, say DONE."
//!       prompt: "Ask your first question, in one or two sentences."
//!     assistant:
//!       teacher: tutor
//!       system: "You are a patient tutor."
//!     turns: 4
//!     until: "'DONE' in last.user"
//! ```
//!
//! # Limits
//! Each message is a call of its own, 2 x `turns` at the most, and its request holds all that was said before:
//! tokens in grow with the square of `turns`. A message that is refused, cut (unless `continue_attempts` lets it
//! go on) or empty rejects the row `refused`, `truncated` or `unparsable`, with the conversation up to there as
//! evidence. The assistant's system message stands first in the field unless `keep_system: false`; the user's
//! instructions never do. In a pipeline's tests a step's replies come in call order: the user's message, the
//! assistant's, the user's…

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::call::Pause;
use crate::kit::{Check, Kit};
use crate::ops::ask::{
    Form, Manner, PromptFile, Question, Unanswered, check_extra, check_manner, draw_at, holds, render,
};
use crate::ops::{Asks, CallRow, Operator, Runner};
use crate::row::{Fields, Outcome, Reason, Row, Type};
use crate::teacher::{Message, Role};
use crate::template::{Expression, Template};

/// Most exchanges: each request holds all that was said before.
const TURNS_MAX: u32 = 100;

/// What `until` knows beside the row's fields.
const MESSAGES: &str = "messages";
const TURN: &str = "turn";
const LAST: &str = "last";

/// Have two teachers talk to each other.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "converse", deny_unknown_fields)]
pub struct Converse {
    /// The field that takes the conversation.
    pub into: String,
    /// Who asks: it speaks first, unless there is an `opening`.
    pub user: RoleFile,
    /// Who answers.
    pub assistant: RoleFile,
    /// The first user message, a template, instead of a call.
    pub opening: Option<String>,
    /// Exchanges, each a message of the user and one of the assistant: so many, or fewer where `until` holds.
    pub turns: u32,
    /// An expression that ends the conversation when it holds after an exchange; `turn`, `last.user`,
    /// `last.assistant` and `messages` are known in it beside the row's fields.
    pub until: Option<String>,
    /// Whether the assistant's `system` is the first message of the field.
    #[serde(default = "yes")]
    pub keep_system: bool,
}

/// One side of a conversation.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "role", deny_unknown_fields)]
pub struct RoleFile {
    /// The teacher to ask.
    pub teacher: String,
    /// The system message: a template, or the name of a `.j2` file in `templates/`.
    pub system: Option<String>,
    /// What the user's model is told before the conversation, as a user message: a template, likewise. The
    /// assistant has none: it is told what the user says.
    pub prompt: Option<String>,
    /// Sampling temperature, 0 to 2; the server's default when absent.
    pub temperature: Option<f64>,
    /// Most tokens of a message; needed under a budget.
    pub max_tokens: Option<u32>,
    /// Texts at which the model stops.
    #[serde(default)]
    pub stop: Vec<String>,
    /// The server's sampling seed, for servers that have one.
    pub seed: Option<i64>,
    /// Times that a message cut by `max_tokens` is asked to go on.
    #[serde(default)]
    pub continue_attempts: u32,
    /// Any other key of the request body, as the server knows it.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

fn yes() -> bool {
    true
}

impl RoleFile {
    fn check(&self, check: &mut Check<'_>) {
        check.teacher("teacher", &self.teacher);
        for (key, text) in [("system", &self.system), ("prompt", &self.prompt)] {
            if let Some(text) = text {
                check.template(key, text);
            }
        }
        check_manner(check, self.temperature, self.max_tokens);
        check_extra(check, &self.extra);
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Question> {
        let prompt =
            PromptFile { prompt: self.prompt.as_deref(), system: self.system.as_deref(), messages: None };
        Ok(Question {
            caller: kit.caller(&self.teacher)?,
            prompt: prompt.build(kit)?,
            form: Form::Text,
            manner: Manner {
                temperature: self.temperature,
                max_tokens: self.max_tokens,
                stop: self.stop.clone(),
                seed: self.seed,
                extra: self.extra.clone(),
                continue_attempts: self.continue_attempts,
                ..Manner::default()
            },
            draw: draw_at(self.temperature),
        })
    }

    fn asks(&self, part: &'static str, calls: [u32; 2]) -> Asks<'_> {
        Asks { part, calls, chained: true, ..Asks::once(&self.teacher, self.max_tokens, false) }
    }
}

fn conversation() -> Type {
    let message = vec![("role".to_owned(), Type::Text), ("content".to_owned(), Type::Text)];
    Type::List(Box::new(Type::Object(message)))
}

impl Operator for Converse {
    fn check(&self, check: &mut Check<'_>) {
        check.part("user", |check| self.user.check(check));
        check.part("assistant", |check| self.assistant.check(check));
        if self.user.prompt.is_none() {
            check.problem("user", "`prompt` is missing: a request to the user's model begins with it").hint =
                Some(
                    "such as `prompt: \"Ask your first question.\"`; who it is goes into `system:`"
                        .to_owned(),
                );
        }
        if self.assistant.prompt.is_some() {
            check.problem("assistant.prompt", "the assistant is prompted by what the user says").hint =
                Some("put its instructions into `system:`".to_owned());
        }
        if let Some(opening) = &self.opening {
            check.template("opening", opening);
        }
        if self.turns == 0 || self.turns > TURNS_MAX {
            check.problem("turns", format!("`turns` must be between 1 and {TURNS_MAX}"));
        }
        if let Some(until) = &self.until {
            let last = vec![("user".to_owned(), Type::Text), ("assistant".to_owned(), Type::Text)];
            let names = [(MESSAGES, conversation()), (TURN, Type::Integer), (LAST, Type::Object(last))];
            check.with_names("until", names, |check| {
                check.expression("until", until);
            });
        }
        check.makes("into", &self.into, conversation());
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        Ok(vec![Runner::Call(Box::new(Talk {
            user: self.user.build(kit)?,
            assistant: self.assistant.build(kit)?,
            opening: self.opening.as_deref().map(|text| kit.template(text)).transpose()?,
            turns: self.turns,
            until: self.until.as_deref().map(|text| kit.expression(text)).transpose()?,
            keep_system: self.keep_system,
            into: self.into.clone(),
        }))])
    }

    fn default_name(&self) -> Option<&str> {
        Some(&self.into)
    }

    fn asks(&self) -> Vec<Asks<'_>> {
        let turns = [if self.until.is_some() { 1 } else { self.turns }, self.turns];
        let opened = u32::from(self.opening.is_some());
        let asked = turns.map(|turns| turns.saturating_sub(opened));
        vec![self.user.asks("user", asked), self.assistant.asks("assistant", turns)]
    }
}

struct Talk {
    user: Question,
    assistant: Question,
    opening: Option<Template>,
    turns: u32,
    until: Option<Expression>,
    keep_system: bool,
    into: String,
}

impl CallRow for Talk {
    fn call(&self, mut row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        async move {
            match self.talk(&mut row).await {
                Ok(messages) => {
                    row.fields.insert(self.into.clone(), messages);
                    Ok(Outcome::Keep(row))
                }
                Err(unanswered) => unanswered.outcome(row),
            }
        }
        .boxed()
    }
}

impl Talk {
    async fn talk(&self, row: &mut Row) -> Result<Value, Unanswered> {
        let told = |side: &Question| side.prompt.render(&row.fields).map_err(Unanswered::Rejected);
        let (to_user, to_assistant) = (told(&self.user)?, told(&self.assistant)?);
        let mut talk = Said::default();
        for turn in 1..=self.turns {
            let words = match &self.opening {
                Some(opening) if turn == 1 => render(opening, &row.fields).map_err(Unanswered::Rejected)?,
                _ => talk.next(row, &self.user, &to_user).await?,
            };
            talk.0.push(words);
            let words = talk.next(row, &self.assistant, &to_assistant).await?;
            talk.0.push(words);
            if self.is_over(row, turn, &talk).map_err(Unanswered::Rejected)? {
                break;
            }
        }
        let system = to_assistant.into_iter().filter(|_| self.keep_system);
        let system = system.map(|Message { content, .. }| message(Role::System, &content));
        Ok(system.chain(talk.messages()).collect())
    }

    fn is_over(&self, row: &Row, turn: u32, talk: &Said) -> Result<bool, Reason> {
        let Some(until) = &self.until else { return Ok(false) };
        let mut fields: Fields = row.fields.clone();
        fields.insert(MESSAGES.to_owned(), talk.messages().collect());
        fields.insert(TURN.to_owned(), turn.into());
        if let [.., user, assistant] = talk.0.as_slice() {
            fields.insert(LAST.to_owned(), json!({"user": user, "assistant": assistant}));
        }
        holds(until, &fields)
    }
}

/// What was said: by the user and the assistant in turn.
#[derive(Default)]
struct Said(Vec<String>);

impl Said {
    /// Asks the side whose turn it is. A request is what its model was told and all that was said, its own
    /// words as those of an assistant.
    async fn next(&self, row: &mut Row, side: &Question, told: &[Message]) -> Result<String, Unanswered> {
        let own = self.0.len() % 2;
        let said = self.0.iter().enumerate().map(|(at, words)| Message {
            role: if at % 2 == own { Role::Assistant } else { Role::User },
            content: words.clone(),
        });
        let request: Vec<Message> = told.iter().cloned().chain(said).collect();
        let at = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        match side.say(row, at, request).await {
            Ok(answer) => match side.form.read(&answer.text) {
                Ok(_) => Ok(answer.text),
                Err(error) => {
                    let evidence = json!({"error": error, "text": answer.text});
                    Err(self.broken_off(Reason::new("unparsable", evidence)))
                }
            },
            Err(Unanswered::Rejected(reason)) => Err(self.broken_off(reason)),
            Err(unanswered) => Err(unanswered),
        }
    }

    /// Where and after which words the conversation came to its end.
    fn broken_off(&self, mut reason: Reason) -> Unanswered {
        if let Some(evidence) = reason.evidence.as_object_mut() {
            evidence.insert("turn".to_owned(), (self.0.len() / 2 + 1).into());
            evidence.insert("role".to_owned(), json!(role_at(self.0.len())));
            evidence.insert(MESSAGES.to_owned(), self.messages().collect());
        }
        Unanswered::Rejected(reason)
    }

    fn messages(&self) -> impl Iterator<Item = Value> {
        self.0.iter().enumerate().map(|(at, words)| message(role_at(at), words))
    }
}

fn role_at(position: usize) -> Role {
    if position.is_multiple_of(2) { Role::User } else { Role::Assistant }
}

fn message(role: Role, content: &str) -> Value {
    json!({"role": role, "content": content})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::{asked, with};

    /// A step with more keys, against replies in call order; how the row ends, and what was asked.
    async fn check(more: Value, replies: Value, expected: Value, requests: &[&str]) {
        let config = json!({
            "into": "messages",
            "user": {"teacher": "learner", "system": "You learn {{ topic }}.", "prompt": "Begin."},
            "assistant": {"teacher": "tutor", "system": "You teach."},
            "turns": 2,
        });
        let step = json!({"converse": with(config, more)});
        let (ended, asked) = asked(step, replies, &json!({"topic": "tides"})).await;
        let ended = ended.get("messages").unwrap_or(&ended).clone();
        assert_eq!(ended, expected);
        assert_eq!(asked, requests);
    }

    #[tokio::test]
    async fn each_side_hears_the_other_as_its_user() {
        check(
            json!({}),
            json!(["Why?", "The moon.", "Only it?", "The sun, too."]),
            json!([
                {"role": "system", "content": "You teach."},
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "The moon."},
                {"role": "user", "content": "Only it?"},
                {"role": "assistant", "content": "The sun, too."},
            ]),
            &[
                "learner < system: You learn tides. < user: Begin.",
                "tutor < system: You teach. < user: Why?",
                "learner < system: You learn tides. < user: Begin. < assistant: Why? < user: The moon.",
                "tutor < system: You teach. < user: Why? < assistant: The moon. < user: Only it?",
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn it_ends_when_until_holds_and_may_begin_with_an_opening() {
        let spoken = json!([{"role": "user", "content": "What are tides?"}, {"role": "assistant", "content": "Waves."}]);
        let opened = json!({"opening": "What are {{ topic }}?", "keep_system": false, "until": "turn == 1"});
        let request = ["tutor < system: You teach. < user: What are tides?"];
        check(opened.clone(), json!(["Waves."]), spoken.clone(), &request).await;
        for until in [
            "last.assistant == 'Waves.' and topic == 'tides'",
            "last.user == 'What are tides?'",
            "messages | length == 2 and messages[1].role == 'assistant'",
        ] {
            check(with(opened.clone(), json!({"until": until})), json!(["Waves."]), spoken.clone(), &request)
                .await;
        }
    }

    #[tokio::test]
    async fn where_it_breaks_off_is_evidence() {
        let said = json!([{"role": "user", "content": "Why?"}]);
        let tutor =
            ["learner < system: You learn tides. < user: Begin.", "tutor < system: You teach. < user: Why?"];
        let ended = |code: &str, evidence: Value| {
            let place = json!({"turn": 1, "role": "assistant", "messages": said});
            json!({"rejected": code, "evidence": with(evidence, place)})
        };
        check(
            json!({}),
            json!(["Why?", {"$refuse": "No."}]),
            ended("refused", json!({"text": "No."})),
            &tutor,
        )
        .await;
        check(
            json!({}),
            json!(["Why?", {"$cut": "Bec"}]),
            ended("truncated", json!({"text": "Bec"})),
            &tutor,
        )
        .await;
        let empty = json!({"error": "the answer is empty", "text": " "});
        check(json!({}), json!(["Why?", " "]), ended("unparsable", empty), &tutor).await;
        let no_boolean = json!({"expression": "turn", "error": "`turn` is a number, not true or false"});
        check(
            json!({"until": "turn"}),
            json!(["Why?", "So."]),
            json!({"rejected": "bad_expression", "evidence": no_boolean}),
            &tutor,
        )
        .await;
    }

    #[tokio::test]
    async fn one_teacher_may_talk_to_itself_in_the_same_words() {
        let (ended, asked) = asked(
            json!({"converse": {
                "into": "said",
                "user": {"teacher": "one", "prompt": "Hi"},
                "assistant": {"teacher": "one"},
                "turns": 2,
            }}),
            json!(["Hi", "Hi", "Hi", "Hi"]),
            &json!({}),
        )
        .await;
        assert_eq!(ended["said"].as_array().unwrap().len(), 4);
        // The same request at another place of the conversation is a call of its own.
        assert_eq!(asked[..2], ["one < user: Hi", "one < user: Hi"]);
    }
}
