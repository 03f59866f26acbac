//! What operators that ask teachers share: the request from templates, and the answer in its form.
//!
//! Not an operator. What a reply means is decided here, once: cut, refused, unreadable, fit.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, json};

use crate::call::{Asked, Caller, Draw, NoAnswer, Pause};
use crate::kit::{Check, Kit};
use crate::ops::images::Images;
use crate::ops::tools::{Toolbox, Tools};
use crate::row::{Failure, Fields, Outcome, Reason, Row, Type, Value};
use crate::shape::{self, Shape};
use crate::teacher::cache::Shared;
use crate::teacher::{Answer, Finish, Logprob, Message, Request, Role, ToolCall};
use crate::template::{Expression, Template};
use crate::text::{extract, json_repair};

/// One chat message of a prompt: `user: <template>`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "message", rename_all = "snake_case")]
pub enum MessageFile {
    System(String),
    User(String),
    Assistant(String),
}

impl MessageFile {
    fn parts(&self) -> (Role, &'static str, &str) {
        match self {
            MessageFile::System(text) => (Role::System, "system", text),
            MessageFile::User(text) => (Role::User, "user", text),
            MessageFile::Assistant(text) => (Role::Assistant, "assistant", text),
        }
    }
}

/// The prompt as a step's config has it: `prompt` with an optional `system`, or `messages`.
pub struct PromptFile<'a> {
    pub prompt: Option<&'a str>,
    pub system: Option<&'a str>,
    pub messages: Option<&'a [MessageFile]>,
}

impl PromptFile<'_> {
    /// Each message with the key of the config that it is under.
    fn parts(&self) -> Vec<(Role, String, &str)> {
        let system = self.system.map(|text| (Role::System, "system".to_owned(), text));
        let prompt = self.prompt.map(|text| (Role::User, "prompt".to_owned(), text));
        let messages = self.messages.unwrap_or_default().iter().enumerate().map(|(index, message)| {
            let (role, key, text) = message.parts();
            (role, format!("messages.{index}.{key}"), text)
        });
        system.into_iter().chain(prompt).chain(messages).collect()
    }

    pub fn check(&self, check: &mut Check<'_>) {
        match (self.prompt, self.messages) {
            (None, None) => {
                check.problem("", "a prompt is missing").hint =
                    Some("give `prompt:` (a template or the name of one) or `messages:`".to_owned());
            }
            (Some(_), Some(_)) => {
                check.problem("messages", "`prompt` and `messages` exclude each other");
            }
            (None, Some([])) => {
                check.problem("messages", "the list of messages is empty");
            }
            _ => {}
        }
        if self.system.is_some() && self.messages.is_some() {
            check.problem("system", "with `messages`, the system message is one of them").hint =
                Some("start `messages` with `- system: …`".to_owned());
        }
        for (_, key, text) in self.parts() {
            check.template(&key, text);
        }
    }

    pub fn build(&self, kit: &Kit) -> anyhow::Result<Prompt> {
        let parts = self.parts();
        let compile = |(role, _, text): (Role, String, &str)| Ok((role, kit.template(text)?));
        Ok(Prompt(parts.into_iter().map(compile).collect::<anyhow::Result<_>>()?))
    }
}

/// A compiled prompt.
pub struct Prompt(Vec<(Role, Template)>);

impl Prompt {
    pub fn render(&self, fields: &Fields) -> Result<Vec<Message>, Reason> {
        Ok(self.render_shared(fields)?.0)
    }

    /// The messages, and what of them many rows have in common.
    pub fn render_shared(&self, fields: &Fields) -> Result<(Vec<Message>, Shared), Reason> {
        let mut messages: Vec<Message> = Vec::with_capacity(self.0.len());
        let mut shared = Shared::default();
        for (role, template) in &self.0 {
            let rendered = template
                .render_shared(fields)
                .map_err(|error| Reason::new("bad_template", json!({"error": error.message})))?;
            // A mark speaks for all that stands before it, too.
            if rendered.is_marked || messages.len() == shared.messages {
                shared = match rendered.shared == rendered.text.len() {
                    true => Shared { messages: messages.len() + 1, bytes: 0 },
                    false => Shared { messages: messages.len(), bytes: rendered.shared },
                };
            }
            messages.push(Message { role: *role, content: rendered.text });
        }
        Ok((messages, shared))
    }
}

/// The text of a template, or why the row is rejected.
pub fn render(template: &Template, fields: &Fields) -> Result<String, Reason> {
    template.render(fields).map_err(|error| Reason::new("bad_template", json!({"error": error.message})))
}

/// Whether an expression holds, or why the row is rejected.
pub fn holds(expression: &Expression, fields: &Fields) -> Result<bool, Reason> {
    expression.holds(fields).map_err(|error| {
        let evidence = json!({"expression": expression.source(), "error": error.message});
        Reason::new("bad_expression", evidence)
    })
}

/// The form an answer must have.
pub enum Form {
    Text,
    Json(Box<Shape>),
    List,
    Code(String),
    /// What stands between `<tag>` and `</tag>`.
    Tag(String),
}

/// The keys of a config that say which form an answer has; at most one of them.
pub struct FormFile<'a> {
    pub json: Option<&'a Value>,
    pub json_schema: Option<&'a Value>,
    pub list: bool,
    pub code: Option<&'a str>,
    pub tag: Option<&'a str>,
}

impl FormFile<'_> {
    /// Whether no key says a form: the answer is the text as it is.
    pub fn is_text(&self) -> bool {
        self.given().is_empty()
    }

    /// The keys that say a form.
    pub fn given(&self) -> Vec<&'static str> {
        let keys = [
            ("json", self.json.is_some()),
            ("json_schema", self.json_schema.is_some()),
            ("list", self.list),
            ("code", self.code.is_some()),
            ("tag", self.tag.is_some()),
        ];
        keys.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect()
    }

    /// Reports what is wrong; returns the column type of the answers.
    pub fn check(&self, check: &mut Check<'_>) -> Type {
        if let [first, second, ..] = self.given().as_slice() {
            check.problem(
                second,
                format!("`{first}` and `{second}` exclude each other: an answer has one form"),
            );
        }
        if let Some(tag) = self.tag.filter(|tag| !names_a_tag(tag)) {
            check.problem("tag", format!("`{tag}` cannot name a tag")).hint =
                Some("write the name alone, such as `tag: answer` for `<answer>`".to_owned());
        }
        if let Some(short) = self.json {
            match shape::from_short_hand(short) {
                Ok(schema) => return self.check_schema(check, "json", &schema),
                Err((path, message)) => {
                    check.problem(&format!("json.{}", path.join(".")), message);
                    return Type::Json;
                }
            }
        }
        if let Some(schema) = self.json_schema {
            return self.check_schema(check, "json_schema", schema);
        }
        if self.list { Type::List(Box::new(Type::Text)) } else { Type::Text }
    }

    fn check_schema(&self, check: &mut Check<'_>, key: &str, schema: &Value) -> Type {
        if let Err(error) = Shape::new(schema) {
            check.problem(key, format!("this is no JSON Schema: {error}"));
            return Type::Json;
        }
        if schema.get("type") != Some(&json!("object")) && schema.get("type") != Some(&json!("array")) {
            check.problem(key, "an answer's shape is an object or a list").hint =
                Some("for one value, write `{ answer: string }`".to_owned());
        }
        shape::type_of(schema)
    }

    pub fn build(&self) -> anyhow::Result<Form> {
        let schema = match (self.json, self.json_schema) {
            (Some(short), _) => {
                Some(shape::from_short_hand(short).map_err(|(_, message)| anyhow::anyhow!(message))?)
            }
            (None, schema) => schema.cloned(),
        };
        if let Some(schema) = schema {
            let shape = Shape::new(&schema).map_err(|message| anyhow::anyhow!(message))?;
            return Ok(Form::Json(Box::new(shape)));
        }
        if let Some(language) = self.code {
            return Ok(Form::Code(language.to_owned()));
        }
        if let Some(tag) = self.tag {
            return Ok(Form::Tag(tag.to_owned()));
        }
        Ok(if self.list { Form::List } else { Form::Text })
    }
}

fn names_a_tag(tag: &str) -> bool {
    !tag.is_empty() && !tag.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '/'))
}

impl Form {
    /// The schema to hold the model to, if the form has one.
    pub fn schema(&self) -> Option<&Value> {
        match self {
            Form::Json(shape) => Some(shape.schema()),
            Form::Text | Form::List | Form::Code(_) | Form::Tag(_) => None,
        }
    }

    /// The value of an answer, or what is wrong with it in words that a model can act on.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        match self {
            Form::Text => match text.trim() {
                "" => Err("the answer is empty".to_owned()),
                _ => Ok(Value::from(text)),
            },
            Form::List => match extract::list_items(text) {
                items if items.is_empty() => Err("the answer holds no list".to_owned()),
                items => Ok(Value::from(items)),
            },
            Form::Code(language) => extract::code_block(text, Some(language))
                .map(|block| block.code.into_owned())
                .or_else(|| extract::bare_code(text).map(str::to_owned))
                .filter(|code| !code.trim().is_empty())
                .map(Value::from)
                .ok_or_else(|| format!("the answer holds no complete ```{language} block")),
            Form::Tag(tag) => match extract::tagged(text, tag) {
                None => Err(format!("the answer holds no complete `<{tag}>` … `</{tag}>`")),
                Some("") => Err(format!("nothing stands in `<{tag}>`")),
                Some(inner) => Ok(Value::from(inner)),
            },
            Form::Json(shape) => {
                let (value, _repairs) = json_repair::parse_json(text).map_err(|error| error.to_string())?;
                match shape.misfit(&value) {
                    Some(complaint) => Err(format!("the JSON does not fit: {complaint}")),
                    None => Ok(value),
                }
            }
        }
    }
}

/// How a model is asked, beside its prompt.
#[derive(Clone, Default)]
pub struct Manner {
    pub temperature: Option<f64>,
    pub max_tokens: Option<u32>,
    pub stop: Vec<String>,
    pub seed: Option<i64>,
    pub extra: Map<String, Value>,
    /// Times that a model is shown what was wrong with its answer and asked again.
    pub repair_attempts: u32,
    /// Times that a cut answer is asked to go on.
    pub continue_attempts: u32,
    pub tools: Option<Tools>,
    pub images: Arc<Images>,
    /// Wants the tokens' log probabilities, and those of this many of the likeliest in the place of each.
    pub logprobs: Option<u32>,
    /// How the samples of a row share calls.
    pub share: Option<Share>,
}

/// How the samples of a row share calls: each call asks for several.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    pub samples: u32,
    pub per_call: u32,
}

impl Share {
    /// The number of a sample's call among those of its row, how many answers that asks for, and which of them
    /// is the sample's.
    fn of(self, sample: u32) -> (u32, u32, u32) {
        let call = sample / self.per_call;
        (call, self.per_call.min(self.samples - call * self.per_call), sample % self.per_call)
    }
}

/// A step's way of asking one teacher.
pub struct Question {
    pub caller: Caller,
    pub prompt: Prompt,
    pub form: Form,
    pub manner: Manner,
    pub draw: Draw,
}

/// An answer that could not be had: where the row ends.
pub enum Unanswered {
    Rejected(Reason),
    Failed(Failure),
    Stopped,
    Parked,
}

impl From<NoAnswer> for Unanswered {
    fn from(none: NoAnswer) -> Unanswered {
        match none {
            NoAnswer::Rejected(reason) => Unanswered::Rejected(reason),
            NoAnswer::Failed(failure) => Unanswered::Failed(failure),
            NoAnswer::Stopped => Unanswered::Stopped,
            NoAnswer::Parked => Unanswered::Parked,
        }
    }
}

impl Unanswered {
    /// The row's outcome; `Err` leaves it open.
    pub fn outcome(self, row: Row) -> Result<Outcome, Pause> {
        match self {
            Unanswered::Rejected(reason) => Ok(Outcome::Reject(row, reason)),
            Unanswered::Failed(failure) => Ok(Outcome::Fail(row, failure)),
            Unanswered::Stopped => Err(Pause::Stopped),
            Unanswered::Parked => Err(Pause::Parked(Box::new(row))),
        }
    }
}

/// The draw of a step in which every row gets answers of its own: where nothing is drawn, the same request
/// gets the same answer.
pub fn draw_at(temperature: Option<f64>) -> Draw {
    if temperature == Some(0.0) { Draw::Request } else { Draw::Row }
}

/// What a row got.
pub struct Told {
    /// The answer in its form.
    pub value: Value,
    /// What the model wrote before it, where the server shows that.
    pub reasoning: Option<String>,
    /// The tools that it called, as a list of `{ name, arguments }`; null where it was given none.
    pub calls: Value,
    /// Its tokens, where they were asked for and the server gives them.
    pub logprobs: Option<Vec<Logprob>>,
}

/// What is asked about a row.
struct Ready {
    tools: Option<Arc<Toolbox>>,
    request: Request,
}

impl Question {
    /// Asks for a row. The row remembers each call.
    pub async fn ask(&self, row: &mut Row, sample: u32) -> Result<Told, Unanswered> {
        let ready = self.ready(&row.fields).await?;
        self.told(row, sample, ready).await
    }

    /// Asks for a row about other fields than its own.
    pub async fn ask_about(&self, fields: &Fields, row: &mut Row, sample: u32) -> Result<Told, Unanswered> {
        let ready = self.ready(fields).await?;
        self.told(row, sample, ready).await
    }

    async fn ready(&self, fields: &Fields) -> Result<Ready, Unanswered> {
        let (messages, shared) = self.prompt.render_shared(fields).map_err(Unanswered::Rejected)?;
        let tools = self.manner.tools.as_ref().map(|tools| tools.of(fields)).transpose();
        let tools = tools.map_err(Unanswered::Rejected)?;
        let images = self.manner.images.of(fields, self.caller.teacher().image_limits()).await;
        let images = images.map_err(Unanswered::Rejected)?;
        // A row's own tools stand before its messages in what a provider caches.
        let shared = if self.has_own_tools() { Shared::default() } else { shared };
        let request = Request { images, shared, ..self.request(messages, tools.as_deref()) };
        Ok(Ready { tools, request })
    }

    /// Says something in a conversation, of which `told` is what was said before.
    pub async fn say(&self, row: &mut Row, sample: u32, told: &[Message]) -> Result<Answer, Unanswered> {
        self.answer(row, sample, &mut self.request(told.to_vec(), None), true).await
    }

    async fn told(&self, row: &mut Row, sample: u32, ready: Ready) -> Result<Told, Unanswered> {
        let Ready { tools, mut request } = ready;
        let mut repairs = 0;
        loop {
            let answer = self.answer(row, sample, &mut request, repairs == 0).await?;
            let complaint = match self.read(&answer, tools.as_deref()) {
                Ok((value, calls)) => {
                    let Answer { reasoning, logprobs, .. } = answer;
                    return Ok(Told { value, reasoning, calls, logprobs });
                }
                Err(complaint) => complaint,
            };
            if repairs == self.manner.repair_attempts {
                let mut evidence = json!({"error": complaint, "text": answer.text, "asked": repairs + 1});
                if !answer.calls.is_empty() {
                    evidence["calls"] = as_json(&answer.calls);
                }
                return Err(Unanswered::Rejected(Reason::new("unparsable", evidence)));
            }
            repairs += 1;
            request.messages.extend(shown_again(&answer, &complaint));
        }
    }

    fn has_own_tools(&self) -> bool {
        matches!(self.manner.tools, Some(Tools::OfRow(..)))
    }

    /// The value and the calls of an answer, or what is wrong with it in words that a model can act on.
    fn read(&self, answer: &Answer, tools: Option<&Toolbox>) -> Result<(Value, Value), String> {
        match tools {
            Some(tools) => Ok((Value::from(answer.text.as_str()), tools.read(answer)?)),
            None => Ok((self.form.read(&answer.text)?, Value::Null)),
        }
    }

    /// A whole answer: cut ones are continued if the step says so. Beside an answer the request is as it came.
    async fn answer(
        &self,
        row: &mut Row,
        sample: u32,
        request: &mut Request,
        is_first: bool,
    ) -> Result<Answer, Unanswered> {
        let told = request.messages.len();
        let mut whole: Option<Answer> = None;
        let mut continued = 0;
        loop {
            let share = self.manner.share.filter(|_| is_first && continued == 0);
            let piece = self.call(row, sample, share, request).await?;
            let finish = piece.finish;
            let goes_on = finish == Finish::Length && continued < self.manner.continue_attempts;
            if goes_on {
                request.messages.push(Message { role: Role::Assistant, content: piece.text.clone() });
                let content = "Go on exactly where you stopped; repeat nothing.".to_owned();
                request.messages.push(Message { role: Role::User, content });
            }
            let so_far = match whole.take() {
                Some(before) => joined(before, piece),
                None => piece,
            };
            match finish {
                Finish::Stop => {
                    request.messages.truncate(told);
                    return Ok(so_far);
                }
                Finish::Refusal => {
                    return Err(Unanswered::Rejected(Reason::new("refused", json!({"text": so_far.text}))));
                }
                Finish::Length if !goes_on => {
                    return Err(Unanswered::Rejected(Reason::new("truncated", json!({"text": so_far.text}))));
                }
                Finish::Length => whole = Some(so_far),
            }
            continued += 1;
        }
    }

    /// One call, or the row's part of a call that it shares with its siblings.
    async fn call(
        &self,
        row: &mut Row,
        sample: u32,
        share: Option<Share>,
        request: &mut Request,
    ) -> Result<Answer, Unanswered> {
        let Some(share) = share else {
            request.answers = None;
            let Asked { answer, mark } = self.caller.ask(row, self.draw, sample, request).await?;
            row.calls.push(mark);
            return Ok(answer);
        };
        let (call, answers, place) = share.of(sample);
        request.answers = Some(answers).filter(|answers| *answers > 1);
        let draw = if self.draw == Draw::Row { Draw::Siblings } else { self.draw };
        let Asked { answer, mark } = self.caller.ask(row, draw, call, request).await?;
        row.calls.push(mark);
        let mine = answer.all().nth(place as usize);
        mine.cloned().ok_or_else(|| {
            let evidence = json!({"asked": answers, "came": answer.all().count()});
            Unanswered::Rejected(Reason::new("missing_answer", evidence))
        })
    }

    fn request(&self, messages: Vec<Message>, tools: Option<&Toolbox>) -> Request {
        let manner = &self.manner;
        Request {
            messages,
            shared: Shared::default(),
            images: Vec::new(),
            temperature: manner.temperature,
            max_tokens: manner.max_tokens,
            stop: manner.stop.clone(),
            seed: manner.seed,
            schema: self.form.schema().cloned(),
            tools: tools.map(|tools| tools.tools().to_vec()).unwrap_or_default(),
            tool_choice: tools.and_then(|tools| tools.choice().cloned()),
            answers: None,
            logprobs: manner.logprobs,
            dimensions: None,
            extra: manner.extra.clone(),
        }
    }
}

/// A cut answer and how it went on.
fn joined(before: Answer, after: Answer) -> Answer {
    let both = |a: Option<String>, b: Option<String>| match (a, b) {
        (Some(a), Some(b)) => Some(a + &b),
        (a, b) => a.or(b),
    };
    let logprobs = match (before.logprobs, after.logprobs) {
        (Some(a), Some(b)) => Some(a.into_iter().chain(b).collect()),
        _ => None,
    };
    let (text, reasoning) = (before.text + &after.text, both(before.reasoning, after.reasoning));
    Answer { text, reasoning, logprobs, ..after }
}

/// What a model is shown of an answer that cannot be used. Its calls are told in words: a conversation with
/// calls in it would have to have their results, too.
fn shown_again(answer: &Answer, complaint: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut content =
        format!("This cannot be used: {complaint}. Answer again, in full and in the form asked for.");
    if !answer.calls.is_empty() {
        content = format!("You called {}. {content}", as_json(&answer.calls));
    }
    // Some APIs refuse a message without text.
    if !answer.text.is_empty() || answer.calls.is_empty() {
        messages.push(Message { role: Role::Assistant, content: answer.text.clone() });
    }
    messages.push(Message { role: Role::User, content });
    messages
}

fn as_json(calls: &[ToolCall]) -> Value {
    calls.iter().map(|call| json!({"name": call.name, "arguments": call.arguments})).collect()
}

/// Checks the sampling keys that all asking operators have.
pub fn check_manner(check: &mut Check<'_>, temperature: Option<f64>, max_tokens: Option<u32>) {
    if temperature.is_some_and(|degrees| !(0.0..=2.0).contains(&degrees)) {
        check.problem("temperature", "`temperature` must be between 0 and 2");
    }
    if max_tokens == Some(0) {
        check.problem("max_tokens", "`max_tokens` must be at least 1");
    }
}

/// Checks an `extra:` map: keys that the step writes itself are not for it.
pub fn check_extra(check: &mut Check<'_>, extra: &Map<String, Value>) {
    for problem in crate::teacher::format::extra_problems(extra) {
        let message = problem.message.clone();
        let key = match &problem.place {
            crate::problem::Place::Value(path) | crate::problem::Place::Key(path) => path.to_string(),
            _ => String::new(),
        };
        check.problem(&format!("extra.{key}"), message).hint = problem.hint;
    }
}
