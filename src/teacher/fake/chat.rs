//! The chat request as a fake teacher reads it, and the text that it thinks up for it: a pure function
//! of the request and the seed. Knows nothing of faults, limits or HTTP.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::dice::Dice;
use super::{schema, words};

/// Characters that are counted as one token.
const CHARS_PER_TOKEN: u64 = 4;
/// Choices that one request may ask for (OpenAI's bound, API reference of chat completions, `n`).
const CHOICES_MAX: u64 = 128;

/// A chat request, read.
#[derive(Debug)]
pub struct Ask<'a> {
    pub model: Cow<'a, str>,
    /// Tokens of all messages.
    pub input_tokens: u64,
    pub max_tokens: Option<u64>,
    last_user: Cow<'a, str>,
    choices: u64,
    stop: Vec<String>,
    format: Format,
    tools: Vec<Tool>,
    call: Call,
    /// The likeliest tokens to give beside each, if log probabilities are wanted.
    pub logprobs: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Tool {
    name: String,
    #[serde(default)]
    parameters: Value,
}

/// Which tools are called.
#[derive(Debug)]
enum Call {
    AsItComes,
    AtLeastOne,
    Nothing,
    Named(String),
}

#[derive(Debug)]
enum Format {
    Text,
    Object,
    Schema(Value),
}

/// One thought-up choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub text: String,
    /// `max_tokens` cut the text.
    pub cut: bool,
    /// Names and arguments of the tools that are called.
    pub calls: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    model: Option<String>,
    #[serde(borrow)]
    messages: Option<Vec<WireMessage<'a>>>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<u64>,
    stop: Option<OneOrMany>,
    stream: Option<bool>,
    response_format: Option<Value>,
    tools: Option<Vec<WireTool>>,
    tool_choice: Option<Value>,
    logprobs: Option<bool>,
    top_logprobs: Option<u64>,
}

#[derive(Deserialize)]
struct WireTool {
    function: Tool,
}

#[derive(Deserialize)]
struct WireMessage<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Quoted<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

/// Tokens in a text, as this teacher counts them: a token for every 4 characters begun.
pub fn tokens(chars: u64) -> u64 {
    chars.div_ceil(CHARS_PER_TOKEN)
}

fn chars(text: &str) -> u64 {
    text.chars().count() as u64
}

impl<'a> Ask<'a> {
    /// Reads a request body; the error is the sentence of a 400.
    pub fn read(body: &'a [u8]) -> Result<Ask<'a>, String> {
        let wire: Wire<'a> = serde_json::from_slice(body)
            .map_err(|error| format!("the request body is not a chat request: {error}"))?;
        if wire.stream == Some(true) {
            return Err("this teacher does not stream; send `\"stream\": false`".to_owned());
        }
        let messages = wire.messages.filter(|messages| !messages.is_empty());
        let messages = messages.ok_or("the request has no `messages`; send at least one")?;
        let choices = wire.n.unwrap_or(1);
        if !(1..=CHOICES_MAX).contains(&choices) {
            return Err(format!("`n` is {choices}; it must be from 1 to {CHOICES_MAX}"));
        }
        let max_tokens = wire.max_completion_tokens.or(wire.max_tokens);
        if max_tokens == Some(0) {
            return Err("`max_tokens` is 0; it must be at least 1".to_owned());
        }
        let (mut input_chars, mut last_user) = (0, Cow::Borrowed(""));
        for message in messages {
            let text = content(message.content)?;
            input_chars += chars(&text);
            if message.role == "user" {
                last_user = text;
            }
        }
        Ok(Ask {
            model: wire.model.map(Cow::Owned).ok_or("the request has no `model`")?,
            input_tokens: tokens(input_chars),
            max_tokens,
            last_user,
            choices,
            stop: match wire.stop {
                None => Vec::new(),
                Some(OneOrMany::One(stop)) => vec![stop],
                Some(OneOrMany::Many(stops)) => stops,
            },
            format: format(wire.response_format)?,
            tools: wire.tools.into_iter().flatten().map(|tool| tool.function).collect(),
            call: call(wire.tool_choice.as_ref())?,
            logprobs: (wire.logprobs == Some(true)).then(|| wire.top_logprobs.unwrap_or(0)),
        })
    }

    /// What a server reserves for this request: its messages and the most that may come back.
    pub fn worst_tokens(&self, reply_bytes: u64) -> u64 {
        let output = self.max_tokens.unwrap_or_else(|| tokens(reply_bytes));
        self.input_tokens.saturating_add(output.saturating_mul(self.choices))
    }

    /// The texts of the reply, `n` of them, each of about `reply_bytes` bytes and cut at `max_tokens`.
    /// Prose gives away `key`, if there is one.
    pub fn think(&self, seed: u64, body_hash: u128, reply_bytes: u64, key: Option<&str>) -> Vec<Choice> {
        let choice = |index| {
            let dice = &mut Dice::new(seed, body_hash, index);
            let calls = self.calls(reply_bytes, dice);
            match calls.is_empty() {
                true => self.cut(self.text(reply_bytes, key, dice)),
                false => Choice { text: String::new(), cut: false, calls },
            }
        };
        (0..self.choices).map(choice).collect()
    }

    /// The tools that are called, with arguments that fit their parameters.
    fn calls(&self, reply_bytes: u64, dice: &mut Dice) -> Vec<(String, String)> {
        if self.tools.is_empty() || steered(&self.last_user).is_some() {
            return Vec::new();
        }
        let bytes = usize::try_from(reply_bytes / 4).unwrap_or(usize::MAX);
        let called: Vec<&Tool> = match &self.call {
            Call::Nothing => Vec::new(),
            Call::Named(name) => self.tools.iter().filter(|tool| tool.name == *name).collect(),
            Call::AsItComes => (0..dice.below(3)).map(|_| dice.pick(&self.tools)).collect(),
            Call::AtLeastOne => (0..=dice.below(2)).map(|_| dice.pick(&self.tools)).collect(),
        };
        let arguments =
            |tool: &Tool, dice: &mut Dice| schema::fitting(&tool.parameters, bytes, dice).to_string();
        called.into_iter().map(|tool| (tool.name.clone(), arguments(tool, dice))).collect()
    }

    fn text(&self, reply_bytes: u64, key: Option<&str>, dice: &mut Dice) -> String {
        if let Some(steered) = steered(&self.last_user) {
            return steered.to_owned();
        }
        let bytes = (reply_bytes as f64 * (0.75 + 0.5 * dice.unit())) as usize;
        match &self.format {
            Format::Schema(schema) => schema::fitting(schema, bytes, dice).to_string(),
            Format::Object => schema::any_object(bytes, dice).to_string(),
            Format::Text if self.last_user.contains("```python") => words::python(dice),
            Format::Text => match key {
                Some(key) => format!("Your key is {key}. {}", words::prose(bytes, dice)),
                None => words::prose(bytes, dice),
            },
        }
    }

    fn cut(&self, mut text: String) -> Choice {
        for stop in self.stop.iter().filter(|stop| !stop.is_empty()) {
            if let Some(place) = text.find(stop.as_str()) {
                text.truncate(place);
            }
        }
        let most = self.max_tokens.map_or(u64::MAX, |most| most.saturating_mul(CHARS_PER_TOKEN));
        let end = usize::try_from(most).ok().and_then(|most| text.char_indices().nth(most));
        if let Some((end, _)) = end {
            text.truncate(end);
        }
        Choice { text, cut: end.is_some(), calls: Vec::new() }
    }
}

impl Choice {
    pub fn tokens(&self) -> u64 {
        let calls = self.calls.iter().map(|(name, arguments)| chars(name) + chars(arguments));
        tokens(chars(&self.text) + calls.sum::<u64>())
    }

    /// The tokens of the text.
    pub fn pieces(&self) -> Vec<String> {
        let chars: Vec<char> = self.text.chars().collect();
        chars.chunks(CHARS_PER_TOKEN as usize).map(|piece| piece.iter().collect()).collect()
    }
}

/// The text between `<<reply>>` and `<</reply>>`, by which a test says what is to be replied.
fn steered(prompt: &str) -> Option<&str> {
    let (_, after) = prompt.split_once("<<reply>>")?;
    Some(after.split_once("<</reply>>")?.0)
}

/// A message's content: a text, or a list of parts of which those with a text count.
fn content(raw: Option<&RawValue>) -> Result<Cow<'_, str>, String> {
    let Some(raw) = raw else { return Ok(Cow::Borrowed("")) };
    let wrong = |error| format!("a message's `content` is neither a text nor a list of parts: {error}");
    if raw.get().starts_with('"') {
        return serde_json::from_str::<Quoted<'_>>(raw.get()).map(|quoted| quoted.0).map_err(wrong);
    }
    let parts: Option<Vec<Part>> = serde_json::from_str(raw.get()).map_err(wrong)?;
    Ok(Cow::Owned(parts.unwrap_or_default().into_iter().filter_map(|part| part.text).collect()))
}

fn call(choice: Option<&Value>) -> Result<Call, String> {
    match choice {
        None => Ok(Call::AsItComes),
        Some(choice) if choice == "auto" => Ok(Call::AsItComes),
        Some(choice) if choice == "required" => Ok(Call::AtLeastOne),
        Some(choice) if choice == "none" => Ok(Call::Nothing),
        Some(choice) => match choice.pointer("/function/name").and_then(Value::as_str) {
            Some(name) => Ok(Call::Named(name.to_owned())),
            None => {
                Err(format!("`tool_choice` is {choice}; known here: `auto`, `required`, `none`, a function"))
            }
        },
    }
}

fn format(wanted: Option<Value>) -> Result<Format, String> {
    let Some(mut wanted) = wanted else { return Ok(Format::Text) };
    match wanted.get("type").and_then(Value::as_str) {
        None | Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::Object),
        Some("json_schema") => match wanted.pointer_mut("/json_schema/schema") {
            Some(schema) => Ok(Format::Schema(schema.take())),
            None => Err("`response_format` has no `json_schema.schema`".to_owned()),
        },
        Some(other) => Err(format!(
            "`response_format.type` is `{other}`; known here: `text`, `json_object`, `json_schema`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn think(body: &Value, hash: u128) -> Result<Vec<Choice>, String> {
        let body = body.to_string();
        Ask::read(body.as_bytes()).map(|ask| ask.think(1, hash, 400, None))
    }

    fn asking(prompt: &str, more: &Value) -> Value {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": prompt }] });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    }

    #[track_caller]
    fn check(prompt: &str, more: &Value, expected: Result<(&str, bool), &str>) {
        let found = think(&asking(prompt, more), 5).map(|mut choices| choices.remove(0));
        let expected = expected.map(|(text, cut)| Choice { text: text.to_owned(), cut, calls: Vec::new() });
        match (found, expected) {
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => assert_eq!(found, expected.map_err(str::to_owned)),
        }
    }

    #[test]
    fn a_prompt_can_say_what_is_replied() {
        check("x <<reply>>as é\nsaid<</reply>> y", &json!({}), Ok(("as é\nsaid", false)));
        check("<<reply>>äbcdefgh<</reply>>", &json!({ "max_tokens": 1 }), Ok(("äbcd", true)));
        check("<<reply>>abcd<</reply>>", &json!({ "max_completion_tokens": 1 }), Ok(("abcd", false)));
        check("<<reply>>one STOP two<</reply>>", &json!({ "stop": [" STOP"] }), Ok(("one", false)));
        check("<<reply>>one STOP two<</reply>>", &json!({ "stop": " two" }), Ok(("one STOP", false)));
    }

    #[test]
    fn unusable_requests_get_a_sentence() {
        check("", &json!({ "stream": true }), Err("does not stream"));
        check("", &json!({ "messages": [] }), Err("no `messages`"));
        check("", &json!({ "model": null }), Err("no `model`"));
        check("", &json!({ "n": 0 }), Err("`n` is 0"));
        check("", &json!({ "max_tokens": 0 }), Err("`max_tokens` is 0"));
        check("", &json!({ "messages": [{ "role": "user", "content": 3 }] }), Err("neither a text nor"));
        check("", &json!({ "response_format": { "type": "xml" } }), Err("`xml`"));
        check("", &json!({ "response_format": { "type": "json_schema" } }), Err("json_schema.schema"));
        assert!(Ask::read(b"\xff").is_err_and(|error| error.contains("not a chat request")));
    }

    #[test]
    fn the_reply_is_a_function_of_the_request() {
        let plain = asking("write", &json!({ "n": 3 }));
        let texts = think(&plain, 5).expect("choices");
        assert_eq!(texts, think(&plain, 5).expect("choices"));
        assert_eq!(texts.len(), 3);
        assert!(texts[0] != texts[1] && texts[1] != texts[2]);
        assert_ne!(texts, think(&plain, 6).expect("choices"));
        let python = think(&asking("in a ```python block", &json!({})), 5).expect("choices");
        assert!(python[0].text.starts_with("```python\n"));
    }

    #[test]
    fn json_is_written_when_asked_for() {
        let object = think(&asking("x", &json!({ "response_format": { "type": "json_object" } })), 5);
        let object: Value = serde_json::from_str(&object.expect("choices")[0].text).expect("JSON");
        assert!(object.is_object());
        let schema = json!({ "type": "array", "items": { "type": "boolean" }, "minItems": 1 });
        let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
        let array = think(&asking("x", &json!({ "response_format": format })), 5).expect("choices");
        let array: Value = serde_json::from_str(&array[0].text).expect("JSON");
        assert!(array[0].is_boolean(), "{array}");
    }

    #[test]
    fn tools_are_called_with_arguments_that_fit() {
        let parameters =
            json!({ "type": "object", "properties": { "a": { "const": 1 } }, "required": ["a"] });
        let tool = json!({ "type": "function", "function": { "name": "f", "parameters": parameters } });
        let calls = |choice: Value| {
            let body = asking("x", &json!({ "n": 20, "tools": [tool], "tool_choice": choice }));
            let choices = think(&body, 5).expect("choices");
            choices.into_iter().map(|choice| choice.calls).collect::<Vec<_>>()
        };
        let call = ("f".to_owned(), r#"{"a":1}"#.to_owned());
        assert!(calls(json!("none")).iter().all(Vec::is_empty));
        assert!(calls(json!("required")).iter().all(|calls| calls.first() == Some(&call)));
        let named = json!({ "type": "function", "function": { "name": "f" } });
        assert!(calls(named).iter().all(|calls| *calls == std::slice::from_ref(&call)));
        let free = calls(json!("auto"));
        assert!(free.iter().any(Vec::is_empty) && free.iter().any(|calls| calls.len() == 2));
        check("x", &json!({ "tools": [tool], "tool_choice": 1 }), Err("`tool_choice` is 1"));
    }

    #[test]
    fn tokens_are_four_characters() {
        let parts = json!([{ "type": "text", "text": "ééé" }, { "type": "image_url" }]);
        let body = json!({ "model": "m", "n": 2, "max_tokens": 10, "messages": [
            { "role": "system", "content": "ab" }, { "role": "user", "content": parts },
            { "role": "assistant", "content": null }] });
        let body = body.to_string();
        let ask = Ask::read(body.as_bytes()).expect("a request");
        assert_eq!((ask.input_tokens, ask.worst_tokens(400)), (2, 22));
    }
}
