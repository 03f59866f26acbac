//! Tools in a request: their definitions in, the model's calls of them out.
//!
//! Not an operator. Whether a call can be used is decided here, once: a tool that was given, arguments that
//! fit its parameters. Nothing calls a tool; the calls are data.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::kit::Check;
use crate::row::{FieldPath, Fields, Reason, Type, Value};
use crate::shape::{self, Shape};
use crate::teacher::format::ANSWER_TOOL;
use crate::teacher::{Answer, Tool, ToolCall, ToolChoice};
use crate::text::json_repair;

/// Longest name of a tool: OpenAI's and Gemini's bound; Anthropic's is 128.
const NAME_CHARS_MAX: usize = 64;

/// A tool that the model may call.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "tool", deny_unknown_fields)]
pub struct ToolFile {
    /// Letters, digits, `_` and `-`.
    pub name: String,
    /// What it does and when to call it, in words for the model.
    pub description: Option<String>,
    /// Its arguments in short-hand: `{ city: string, unit?: celsius | fahrenheit }`; none when absent.
    pub parameters: Option<Value>,
    /// Its arguments as a JSON Schema.
    pub parameters_schema: Option<Value>,
}

impl ToolFile {
    /// The tool, or where in the definition something is wrong, and what.
    fn tool(&self) -> Result<Tool, (String, String)> {
        let parameters = match (&self.parameters, &self.parameters_schema) {
            (Some(_), Some(_)) => {
                let message = "`parameters` and `parameters_schema` exclude each other";
                return Err(("parameters_schema".to_owned(), message.to_owned()));
            }
            (Some(short), None) => shape::from_short_hand(short).map_err(|(path, message)| {
                (std::iter::once("parameters".to_owned()).chain(path).collect::<Vec<_>>().join("."), message)
            })?,
            (None, Some(schema)) => schema.clone(),
            (None, None) => json!({"type": "object", "properties": {}, "additionalProperties": false}),
        };
        let (name, description) = (self.name.clone(), self.description.clone());
        Ok(Tool { name, description, parameters })
    }

    fn parameters_key(&self) -> &'static str {
        if self.parameters_schema.is_some() { "parameters_schema" } else { "parameters" }
    }
}

/// The keys of a config that have to do with tools.
pub struct ToolsFile<'a> {
    pub tools: Option<&'a [ToolFile]>,
    pub tools_from: Option<&'a str>,
    pub tool_choice: Option<&'a str>,
    pub tool_calls_into: Option<&'a str>,
}

impl ToolsFile<'_> {
    pub fn is_given(&self) -> bool {
        self.tools.is_some() || self.tools_from.is_some()
    }

    pub fn check(&self, check: &mut Check<'_>) {
        match (self.tools, self.tools_from) {
            (Some(_), Some(_)) => {
                check.problem("tools_from", "`tools` and `tools_from` exclude each other");
            }
            (Some(tools), None) => self.check_tools(check, tools),
            (None, Some(path)) => match check.reads("tools_from", path) {
                None | Some(Type::Text | Type::Json | Type::List(_)) => {}
                Some(other) => {
                    let message = format!("`{path}` is {other}, not a list of tools");
                    check.problem("tools_from", message);
                }
            },
            (None, None) => {
                for (key, given) in
                    [("tool_choice", self.tool_choice), ("tool_calls_into", self.tool_calls_into)]
                {
                    if given.is_some() {
                        let hint = "give `tools:`, or `tools_from:` for tools that differ from row to row";
                        check.problem(key, format!("`{key}` needs tools")).hint = Some(hint.to_owned());
                    }
                }
            }
        }
        match self.tool_calls_into {
            Some(field) => check.makes("tool_calls_into", field, calls_type()),
            None if self.is_given() => {
                let hint = "name the field that takes them: `tool_calls_into: calls`";
                check.problem("", "the calls of tools go nowhere").hint = Some(hint.to_owned());
            }
            None => {}
        }
    }

    fn check_tools(&self, check: &mut Check<'_>, tools: &[ToolFile]) {
        if tools.is_empty() {
            check.problem("tools", "the list of tools is empty");
        }
        for (index, file) in tools.iter().enumerate() {
            let at = |key: &str| format!("tools.{index}.{key}");
            if let Some(wrong) = wrong_name(&file.name) {
                check.problem(&at("name"), wrong);
            } else if tools[..index].iter().any(|earlier| earlier.name == file.name) {
                check.problem(&at("name"), format!("two tools are called `{}`", file.name));
            }
            match file.tool().map(|tool| wrong_parameters(&tool.parameters)) {
                Err((key, message)) => drop(check.problem(&at(&key), message)),
                Ok(Some(message)) => drop(check.problem(&at(file.parameters_key()), message)),
                Ok(None) => {}
            }
        }
        let Some(ToolChoice::Named(name)) = self.choice() else { return };
        if tools.iter().all(|tool| tool.name != name) {
            let message = format!("there is no tool `{name}`");
            check.problem("tool_choice", message).hint =
                Some("`auto`, `required`, `none`, or the name of a tool".to_owned());
        }
    }

    fn choice(&self) -> Option<ToolChoice> {
        Some(match self.tool_choice? {
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            "none" => ToolChoice::None,
            name => ToolChoice::Named(name.to_owned()),
        })
    }

    pub fn build(&self) -> anyhow::Result<Option<Tools>> {
        let choice = self.choice();
        if let Some(path) = self.tools_from {
            return Ok(Some(Tools::OfRow(FieldPath::parse(path), choice)));
        }
        let Some(files) = self.tools else { return Ok(None) };
        let tools = files.iter().map(ToolFile::tool).collect::<Result<_, _>>();
        let toolbox = tools.map_err(|(_, message)| message).and_then(|tools| Toolbox::new(tools, choice));
        Ok(Some(Tools::Fixed(Arc::new(toolbox.map_err(|message| anyhow::anyhow!(message))?))))
    }
}

/// The column type of calls: `[{ name, arguments }]`. Tools differ in their arguments, which are JSON therefore.
fn calls_type() -> Type {
    let call = vec![("name".to_owned(), Type::Text), ("arguments".to_owned(), Type::Json)];
    Type::List(Box::new(Type::Object(call)))
}

fn wrong_name(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(plain) {
        return Some(format!(
            "`{name}` cannot name a tool: names are up to {NAME_CHARS_MAX} letters, digits, `_` and `-`"
        ));
    }
    // JSON answers come as its arguments where an API has no other means.
    (name == ANSWER_TOOL).then(|| format!("`{name}` is a tool of textmill's own; give it another name"))
}

fn wrong_parameters(parameters: &Value) -> Option<String> {
    if parameters.get("type") != Some(&json!("object")) {
        return Some("the arguments of a tool are an object".to_owned());
    }
    Shape::new(parameters).err().map(|error| format!("this is no JSON Schema: {error}"))
}

/// The tools of a step.
#[derive(Clone)]
pub enum Tools {
    Fixed(Arc<Toolbox>),
    /// Each row has its own.
    OfRow(FieldPath, Option<ToolChoice>),
}

impl Tools {
    /// The tools for a row; one whose definitions are none is rejected `bad_tools`.
    pub fn of(&self, fields: &Fields) -> Result<Arc<Toolbox>, Reason> {
        match self {
            Tools::Fixed(toolbox) => Ok(Arc::clone(toolbox)),
            Tools::OfRow(path, choice) => {
                let value = path.value(fields).unwrap_or(&Value::Null);
                let toolbox = defined(value).and_then(|tools| Toolbox::new(tools, choice.clone()));
                toolbox.map(Arc::new).map_err(|error| {
                    Reason::new("bad_tools", json!({"field": path.to_string(), "error": error}))
                })
            }
        }
    }
}

/// The tools that a row defines: a list, or its JSON text, of `{ name, description, parameters }`, each also
/// in OpenAI's wrapping, `{ type: function, function: … }`.
fn defined(value: &Value) -> Result<Vec<Tool>, String> {
    let parsed;
    let value = match value {
        Value::String(text) => {
            parsed = serde_json::from_str(text).map_err(|error| format!("this is no JSON: {error}"))?;
            &parsed
        }
        other => other,
    };
    let Value::Array(items) = value else { return Err("this is no list of tools".to_owned()) };
    items.iter().map(one_defined).collect()
}

fn one_defined(item: &Value) -> Result<Tool, String> {
    let item = item.get("function").filter(|function| function.is_object()).unwrap_or(item);
    let name = item.get("name").and_then(Value::as_str).ok_or("a tool has no `name`")?;
    let parameters = match item.get("parameters") {
        None | Some(Value::Null) => json!({"type": "object", "properties": {}}),
        // A JSON column's values may come as their text.
        Some(Value::String(text)) => serde_json::from_str(text)
            .map_err(|error| format!("the `parameters` of `{name}` are no JSON: {error}"))?,
        Some(parameters) => parameters.clone(),
    };
    let description = item.get("description").and_then(Value::as_str).map(str::to_owned);
    Ok(Tool { name: name.to_owned(), description, parameters })
}

/// Tools with the shapes of their arguments.
pub struct Toolbox {
    tools: Vec<Tool>,
    shapes: Vec<Shape>,
    choice: Option<ToolChoice>,
}

impl Toolbox {
    fn new(tools: Vec<Tool>, choice: Option<ToolChoice>) -> Result<Toolbox, String> {
        if tools.is_empty() {
            return Err("there is no tool in it".to_owned());
        }
        for (index, tool) in tools.iter().enumerate() {
            if let Some(wrong) = wrong_name(&tool.name) {
                return Err(wrong);
            }
            if tools[..index].iter().any(|earlier| earlier.name == tool.name) {
                return Err(format!("two tools are called `{}`", tool.name));
            }
            if let Some(wrong) = wrong_parameters(&tool.parameters) {
                return Err(format!("tool `{}`: {wrong}", tool.name));
            }
        }
        if let Some(ToolChoice::Named(name)) = &choice
            && tools.iter().all(|tool| tool.name != *name)
        {
            return Err(format!("there is no tool `{name}` in it"));
        }
        let shapes = tools.iter().map(|tool| Shape::new(&tool.parameters)).collect::<Result<_, _>>()?;
        Ok(Toolbox { tools, shapes, choice })
    }

    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    pub fn choice(&self) -> Option<&ToolChoice> {
        self.choice.as_ref()
    }

    /// The calls of an answer as a list of `{ name, arguments }`, or what is wrong with them in words that a
    /// model can act on.
    pub fn read(&self, answer: &Answer) -> Result<Value, String> {
        match &self.choice {
            Some(ToolChoice::None) if !answer.calls.is_empty() => return Err("call no tool".to_owned()),
            Some(ToolChoice::Required) if answer.calls.is_empty() => {
                return Err("no tool was called".to_owned());
            }
            Some(ToolChoice::Named(name)) if answer.calls.iter().all(|call| call.name != *name) => {
                return Err(format!("the tool `{name}` was not called"));
            }
            _ if answer.calls.is_empty() && answer.text.trim().is_empty() => {
                return Err("the answer is empty".to_owned());
            }
            _ => {}
        }
        answer.calls.iter().map(|call| self.read_call(call)).collect()
    }

    fn read_call(&self, call: &ToolCall) -> Result<Value, String> {
        let name = &call.name;
        let Some(place) = self.tools.iter().position(|tool| tool.name == *name) else {
            let known: Vec<String> = self.tools.iter().map(|tool| format!("`{}`", tool.name)).collect();
            return Err(format!("there is no tool `{name}`; the tools are {}", known.join(", ")));
        };
        // Servers write nothing for a tool without arguments.
        let text = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
        let (arguments, _repairs) = json_repair::parse_json(text)
            .map_err(|error| format!("the arguments of `{name}` are no JSON: {error}"))?;
        match self.shapes[place].misfit(&arguments) {
            Some(complaint) => Err(format!("the arguments of `{name}` do not fit: {complaint}")),
            None => Ok(json!({"name": name, "arguments": arguments})),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::checked;
    use crate::teacher::Finish;

    fn definitions() -> Value {
        let schema =
            json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
        json!([
            {"name": "weather", "description": "Tells it.", "parameters": schema},
            {"type": "function", "function": {"name": "now"}},
        ])
    }

    /// Calls of the tools above as `name arguments`, read as the calls kept or the complaint.
    #[track_caller]
    fn check(choice: Option<ToolChoice>, calls: &[(&str, &str)], expected: Result<Value, &str>) {
        let fields = json!({"tools": definitions()});
        let tools = Tools::OfRow(FieldPath::parse("tools"), choice);
        let toolbox = tools.of(fields.as_object().unwrap()).unwrap();
        let call = |(name, arguments): &(&str, &str)| ToolCall {
            name: (*name).to_owned(),
            arguments: (*arguments).to_owned(),
        };
        let calls = calls.iter().map(call).collect();
        let answer = Answer { calls, ..Answer::new(String::new(), Finish::Stop, "m") };
        let found = toolbox.read(&answer);
        match (found, expected) {
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => assert_eq!(found, expected.map_err(str::to_owned)),
        }
    }

    #[test]
    fn calls_must_be_of_a_tool_and_fit_its_parameters() {
        let call = json!([{"name": "weather", "arguments": {"city": "Rome"}}]);
        check(None, &[("weather", r#"{"city": "Rome"}"#)], Ok(call.clone()));
        // Repaired as any JSON answer is.
        check(None, &[("weather", r#"{'city': "Rome",}"#)], Ok(call));
        check(None, &[("now", "")], Ok(json!([{"name": "now", "arguments": {}}])));
        check(None, &[("weather", r#"{"town": 1}"#)], Err("do not fit: "));
        check(None, &[("weather", "Rome")], Err("are no JSON"));
        check(None, &[("wether", "{}")], Err("there is no tool `wether`; the tools are `weather`, `now`"));
        check(None, &[], Err("the answer is empty"));
        check(Some(ToolChoice::Required), &[], Err("no tool was called"));
        check(Some(ToolChoice::Named("now".to_owned())), &[("weather", "{}")], Err("`now` was not called"));
        check(Some(ToolChoice::None), &[("now", "{}")], Err("call no tool"));
    }

    #[test]
    fn what_a_row_defines_may_be_no_tools() {
        let of = |value: Value, choice: Option<ToolChoice>| {
            let fields = json!({"t": value});
            let tools = Tools::OfRow(FieldPath::parse("t"), choice).of(fields.as_object().unwrap());
            tools.map(|tools| tools.tools().len()).map_err(|reason| {
                assert_eq!(reason.code, "bad_tools");
                reason.evidence["error"].as_str().unwrap().to_owned()
            })
        };
        assert_eq!(of(definitions(), None), Ok(2));
        assert_eq!(of(json!(definitions().to_string()), None), Ok(2));
        let is = |value: Value, wrong: &str| {
            let error = of(value, None).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        };
        is(json!("nothing"), "no JSON");
        is(json!({"name": "f"}), "no list");
        is(json!([]), "no tool");
        is(json!([{"description": "f"}]), "`name`");
        is(json!([{"name": "f f"}]), "cannot name a tool");
        is(json!([{"name": "answer"}]), "textmill's own");
        is(json!([{"name": "f"}, {"name": "f"}]), "two tools");
        is(json!([{"name": "f", "parameters": {"x": {"type": "int"}}}]), "are an object");
        is(json!([{"name": "f", "parameters": {"type": "object", "properties": 3}}]), "no JSON Schema");
        assert!(of(definitions(), Some(ToolChoice::Named("f".to_owned()))).is_err());
    }

    #[test]
    fn a_step_says_what_its_tools_are_and_where_calls_go() {
        let check = |more: Value, expected: Result<&str, &str>| {
            let config = json!({"teacher": "t", "prompt": "p", "into": "text"});
            let step = json!({"generate": crate::ops::fixture::with(config, more)});
            let no_teacher = "generate.teacher: there is no teacher `t`; ";
            let found = checked(step, &json!({"tools": "string", "n": "integer"}));
            match (found, expected) {
                // No teacher is declared in these checks.
                (Err(found), Ok("")) => assert_eq!(found, no_teacher.trim_end_matches("; ")),
                (Err(found), Err(expected)) => {
                    assert_eq!(found.strip_prefix(no_teacher), Some(expected), "{found}");
                }
                (found, _) => panic!("{found:?}"),
            }
        };
        let tool = json!({"name": "f", "parameters": {"a": "string"}});
        check(json!({"tools": [tool], "tool_calls_into": "calls", "tool_choice": "f"}), Ok(""));
        check(json!({"tools_from": "tools", "tool_calls_into": "calls"}), Ok(""));
        check(json!({"tools": [tool]}), Err("generate: the calls of tools go nowhere"));
        check(json!({"tool_choice": "auto"}), Err("generate.tool_choice: `tool_choice` needs tools"));
        let wrong = [
            (
                json!({"name": "f", "parameters": {"a": "strnig"}}),
                "generate.tools[0].parameters.a: `strnig` is no shape; shapes are `string`, `integer`, `number`, `boolean`, `a | b` for a choice, `[shape]` for a list, and maps",
            ),
            (
                json!({"name": "f", "parameters": "string"}),
                "generate.tools[0].parameters: the arguments of a tool are an object",
            ),
            (
                json!({"name": ""}),
                "generate.tools[0].name: `` cannot name a tool: names are up to 64 letters, digits, `_` and `-`",
            ),
        ];
        for (tool, expected) in wrong {
            check(json!({"tools": [tool], "tool_calls_into": "calls"}), Err(expected));
        }
        let other = json!({"tools": [tool], "tool_calls_into": "calls", "tool_choice": "g"});
        check(other, Err("generate.tool_choice: there is no tool `g`"));
        let both = json!({"tools": [tool], "tool_calls_into": "calls", "json": {"a": "string"}});
        check(both, Err("generate.json: `tools` and `json` exclude each other: calls come beside a text"));
        let number = json!({"tools_from": "n", "tool_calls_into": "calls"});
        check(number, Err("generate.tools_from: `n` is integer, not a list of tools"));
    }
}
