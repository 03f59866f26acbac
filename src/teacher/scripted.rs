//! The scripted teacher: the replies that a pipeline's `tests:` give, by step name.
//!
//! Speaks the same wire format as a server, so that everything behind it is tested as it runs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::teacher::format::ApiFormat;
use crate::teacher::http::RawReply;
use crate::teacher::wire::AskedBy;
use crate::teacher::{Answer, Fault, Finish, ToolCall};

/// Replies by step name.
#[derive(Default)]
pub struct Script {
    replies: HashMap<String, Replies>,
    /// Replies already given, by step.
    given: Mutex<HashMap<String, usize>>,
}

enum Replies {
    /// One reply for every call.
    Always(Value),
    /// One reply each, in call order.
    InOrder(Vec<Value>),
}

impl Script {
    /// A value per step: one reply for every call, or a list of replies in call order.
    pub fn new<'a>(replies: impl IntoIterator<Item = (&'a String, &'a Value)>) -> Script {
        let replies = replies.into_iter().map(|(step, value)| {
            let replies = match value {
                Value::Array(list) => Replies::InOrder(list.clone()),
                one => Replies::Always(one.clone()),
            };
            (step.clone(), replies)
        });
        Script { replies: replies.collect(), given: Mutex::default() }
    }

    pub fn reply_to(&self, asked_by: &AskedBy, format: ApiFormat, model: &str) -> Result<RawReply, Fault> {
        let step = asked_by.step.to_string();
        let missing = |what: String| Fault::Fatal { message: what };
        let reply = match self.replies.get(&step) {
            None => {
                return Err(missing(format!(
                    "the test has no reply for step `{step}` (row {})",
                    asked_by.row
                )));
            }
            Some(Replies::Always(reply)) => reply,
            Some(Replies::InOrder(list)) => {
                let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
                let turn = given.entry(step.clone()).or_default();
                *turn += 1;
                list.get(*turn - 1).ok_or_else(|| {
                    missing(format!(
                        "the test has {} replies for step `{step}`, and a call more came",
                        list.len()
                    ))
                })?
            }
        };
        spoken(reply, format, model)
    }
}

/// A reply as a server would send it.
pub fn spoken(reply: &Value, format: ApiFormat, model: &str) -> Result<RawReply, Fault> {
    let body = format.wire().reply(&answer(reply, model)?);
    Ok(RawReply { status: 200, headers: HeaderMap::new(), body: body.to_string() })
}

/// What a reply of a test says: `{ $cut: text }` and its kin, or the answer itself.
fn answer(reply: &Value, model: &str) -> Result<Answer, Fault> {
    let said = |text, finish| Answer::new(text, finish, model);
    let special = reply.as_object().filter(|map| map.keys().all(|key| key.starts_with('$')));
    let of = |key: &str| special.and_then(|map| map.get(key));
    if let Some(text) = of("$cut") {
        return Ok(said(as_text(text), Finish::Length));
    }
    if let Some(text) = of("$refuse") {
        return Ok(said(as_text(text), Finish::Refusal));
    }
    if let Some(text) = of("$fail") {
        return Err(Fault::Transient { code: "server_error", message: as_text(text), billed: false });
    }
    if let Some(Value::Array(answers)) = of("$answers") {
        let mut answers = answers.iter().map(|reply| answer(reply, model));
        let first = answers.next().unwrap_or_else(|| Ok(said(String::new(), Finish::Stop)))?;
        return Ok(Answer { others: answers.collect::<Result<_, _>>()?, ..first });
    }
    if let Some(Value::Array(calls)) = of("$tools") {
        let call = |call: &Value| ToolCall {
            name: as_text(&call["name"]),
            arguments: call.get("arguments").map(as_text).unwrap_or_default(),
        };
        let text = of("$text").map(as_text).unwrap_or_default();
        return Ok(Answer { calls: calls.iter().map(call).collect(), ..said(text, Finish::Stop) });
    }
    Ok(said(as_text(reply), Finish::Stop))
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::row::RowId;

    #[test]
    fn replies_come_in_call_order_and_run_out() {
        let replies = json!({"a": ["x", {"k": 1}], "b": "same"});
        let script = Script::new(replies.as_object().unwrap());
        let ask = |step: &str| {
            script.reply_to(&AskedBy { step: step.into(), row: RowId::root(0) }, ApiFormat::Openai, "m").map(
                |raw| {
                    let body: Value = serde_json::from_str(&raw.body).unwrap();
                    body["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
                },
            )
        };
        assert_eq!(ask("a").unwrap(), "x");
        assert_eq!(ask("a").unwrap(), r#"{"k":1}"#);
        assert!(matches!(ask("a"), Err(Fault::Fatal { .. })));
        assert_eq!([ask("b").unwrap(), ask("b").unwrap()], ["same", "same"]);
        assert!(matches!(ask("c"), Err(Fault::Fatal { .. })));
    }
}
