//! Escalation: a cheap teacher first, a better one where its answer does not do.
//!
//! Not an operator: what `generate` and `judge` share for their `escalate:`. Only answers lead on; a call
//! that brings none fails its row, since a server that is down should not send every row to a dear teacher.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::kit::{Check, Kit};
use crate::ops::Asks;
use crate::ops::ask::{Question, Told, Unanswered, holds};
use crate::row::{Fields, Reason, Row};
use crate::template::Expression;

/// A better teacher, and when it is not needed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "next teacher", deny_unknown_fields)]
pub struct NextFile {
    /// The teacher that is asked the same where the answer so far does not do: it is refused, cut, not of
    /// the form asked for, or `unless` does not hold.
    pub to: String,
    /// An expression over the row's fields, the answer among them: where it holds, the answer is taken.
    pub unless: Option<String>,
}

/// The next teacher, or several to ask in turn until an answer does.
#[derive(Clone, Debug, Default)]
pub struct EscalateFile {
    next: Vec<NextFile>,
    is_list: bool,
}

impl<'de> Deserialize<'de> for EscalateFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EscalateFile, D::Error> {
        deserializer.deserialize_any(OneOrMore)
    }
}

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = EscalateFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the next teacher (`{ to: …, unless: … }`), or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EscalateFile, A::Error> {
        let next = NextFile::deserialize(MapAccessDeserializer::new(map))?;
        Ok(EscalateFile { next: vec![next], is_list: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<EscalateFile, A::Error> {
        let next = Vec::deserialize(SeqAccessDeserializer::new(items))?;
        Ok(EscalateFile { next, is_list: true })
    }
}

impl JsonSchema for EscalateFile {
    fn schema_name() -> Cow<'static, str> {
        "escalate".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let forms = [generator.subschema_for::<NextFile>(), generator.subschema_for::<Vec<NextFile>>()];
        json_schema!({
            "description": "The next teacher, or a list of them to ask in turn until an answer does.",
            "anyOf": forms,
        })
    }
}

impl EscalateFile {
    /// Checks the teachers and the expressions; `columns` has the answer's field already.
    pub fn check(&self, check: &mut Check<'_>, first: &str) {
        if self.is_list && self.next.is_empty() {
            check.problem("escalate", "the list of teachers is empty");
        }
        let mut asked = vec![first];
        for (index, next) in self.next.iter().enumerate() {
            let under = if self.is_list { format!("escalate.{index}") } else { "escalate".to_owned() };
            check.teacher(&format!("{under}.to"), &next.to);
            if asked.contains(&next.to.as_str()) {
                let message = format!("`{}` was asked already, and would answer the same", next.to);
                check.problem(&format!("{under}.to"), message);
            }
            asked.push(&next.to);
            if let Some(unless) = &next.unless {
                check.expression(&format!("{under}.unless"), unless);
            }
        }
    }

    /// How all teachers are asked, when the first one is asked so.
    pub fn asks<'a>(&'a self, first: Asks<'a>) -> Vec<Asks<'a>> {
        // An answer that shared a call goes on alone.
        let most = first.calls[1] * first.answers;
        let of = |next: &'a NextFile| Asks { teacher: &next.to, calls: [0, most], answers: 1, ..first };
        let next = self.next.iter().map(of);
        std::iter::once(first).chain(next).collect()
    }

    /// The teachers in turn, `first` before all; `ask` makes the question to one.
    pub fn build(
        &self,
        kit: &Kit,
        first: &str,
        ask: impl Fn(&str) -> anyhow::Result<Question>,
    ) -> anyhow::Result<Ladder> {
        let mut ladder = Ladder { before: Vec::new(), last: ask(first)? };
        for next in &self.next {
            let unless = next.unless.as_deref().map(|unless| kit.expression(unless)).transpose()?;
            let question = std::mem::replace(&mut ladder.last, ask(&next.to)?);
            ladder.before.push(Rung { question, unless });
        }
        Ok(ladder)
    }
}

/// Teachers that are asked in turn until an answer does. The answer of the last one is final.
pub struct Ladder {
    before: Vec<Rung>,
    last: Question,
}

struct Rung {
    question: Question,
    /// Holds for answers that are taken.
    unless: Option<Expression>,
}

impl Ladder {
    /// Asks for a row; `put` gives it the answer.
    pub async fn ask(
        &self,
        row: &mut Row,
        sample: u32,
        put: impl Fn(&mut Fields, Told),
    ) -> Result<(), Unanswered> {
        let mut climbed = 0;
        let asked = self.climb(row, sample, put, &mut climbed).await;
        // A row that is parked comes this way once more.
        if !matches!(asked, Err(Unanswered::Parked)) {
            self.before[..climbed].iter().for_each(|rung| rung.question.caller.escalated());
        }
        asked
    }

    async fn climb(
        &self,
        row: &mut Row,
        sample: u32,
        put: impl Fn(&mut Fields, Told),
        climbed: &mut usize,
    ) -> Result<(), Unanswered> {
        for rung in &self.before {
            match rung.question.ask(row, sample).await {
                Ok(told) => {
                    let mut fields = row.fields.clone();
                    put(&mut fields, told);
                    if rung.takes(&fields).map_err(Unanswered::Rejected)? {
                        row.fields = fields;
                        return Ok(());
                    }
                }
                Err(Unanswered::Rejected(reason)) if LEAD_ON.contains(&&*reason.code) => {}
                Err(unanswered) => return Err(unanswered),
            }
            *climbed += 1;
        }
        let told = self.last.ask(row, sample).await?;
        put(&mut row.fields, told);
        Ok(())
    }
}

/// The reasons that lie in what one teacher said or can read: another may do better.
const LEAD_ON: [&str; 5] = ["refused", "truncated", "unparsable", "too_long", "missing_answer"];

impl Rung {
    fn takes(&self, fields: &Fields) -> Result<bool, Reason> {
        self.unless.as_ref().map_or(Ok(true), |unless| holds(unless, fields))
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::fixture::{asked, with};
    use serde_json::{Value, json};

    /// A `generate` step with this `escalate:`, against replies in call order; how the row ends, and the
    /// teachers that were asked.
    async fn check(escalate: Value, replies: Value, expected: Value, teachers: &[&str]) {
        let config = json!({
            "teacher": "cheap", "prompt": "Say {{ n }}", "into": "said", "json": {"n": "integer"}, "repair_attempts": 0,
        });
        let step = json!({"generate": with(config, json!({ "escalate": escalate }))});
        let (mut ended, asked) = asked(step, replies, &json!({"n": 3})).await;
        if let Some(fields) = ended.as_object_mut() {
            fields.remove("n");
        }
        assert_eq!(ended, expected);
        let asked: Vec<&str> =
            asked.iter().map(|asked| asked.strip_suffix(" < user: Say 3").unwrap()).collect();
        assert_eq!(asked, teachers);
    }

    fn says(n: u32) -> Value {
        json!({ "n": n })
    }

    #[tokio::test]
    async fn an_answer_that_does_is_taken() {
        let plain = json!({"to": "dear"});
        check(plain.clone(), json!([says(1)]), json!({"said": {"n": 1}}), &["cheap"]).await;
        let unless = json!({"to": "dear", "unless": "said.n == n"});
        check(unless.clone(), json!([says(3)]), json!({"said": {"n": 3}}), &["cheap"]).await;
        check(unless.clone(), json!([says(2), says(4)]), json!({"said": {"n": 4}}), &["cheap", "dear"]).await;
        for bad in [json!({"$refuse": "No."}), json!({"$cut": "{"}), json!("what?")] {
            check(plain.clone(), json!([bad, says(4)]), json!({"said": {"n": 4}}), &["cheap", "dear"]).await;
        }
        let two = json!([{"to": "middle", "unless": "said.n == n"}, {"to": "dear", "unless": "said.n >= n"}]);
        check(two.clone(), json!([says(2), says(4)]), json!({"said": {"n": 4}}), &["cheap", "middle"]).await;
        let all = ["cheap", "middle", "dear"];
        check(two, json!([says(2), "what?", says(0)]), json!({"said": {"n": 0}}), &all).await;
    }

    #[tokio::test]
    async fn the_last_answer_is_final_and_a_call_without_an_answer_leads_nowhere() {
        let unless = json!({"to": "dear", "unless": "said.n == n"});
        let refused = json!({"rejected": "refused", "evidence": {"text": "No."}});
        check(unless.clone(), json!([says(2), {"$refuse": "No."}]), refused, &["cheap", "dear"]).await;
        let down = json!({
            "failed": "server_error",
            "message": "no answer after 1 attempt: down",
            "evidence": {"server": "down", "attempts": 1},
        });
        check(unless.clone(), json!([{"$fail": "down"}, says(3)]), down, &[]).await;
        let no_boolean = json!({"expression": "said.n", "error": "`said.n` is a number, not true or false"});
        check(
            json!({"to": "dear", "unless": "said.n"}),
            json!([says(2), says(3)]),
            json!({"rejected": "bad_expression", "evidence": no_boolean}),
            &["cheap"],
        )
        .await;
    }

    #[tokio::test]
    async fn a_grade_is_escalated_as_well() {
        let step = json!({"judge": {
            "teacher": "cheap", "prompt": "Grade", "into": "grade", "escalate": {"to": "dear", "unless": "grade < 4"},
        }});
        let (ended, asked) =
            asked(step, json!([{"reason": "r", "grade": 5}, {"reason": "s", "grade": 2}]), &json!({})).await;
        assert_eq!(ended, json!({"grade": 2, "grade_reason": "s"}));
        assert_eq!(asked, ["cheap < user: Grade", "dear < user: Grade"]);
    }
}
