//! Anthropic's messages as a fake teacher takes and gives them: the same thoughts as for a chat request, in
//! another shape. Knows nothing of faults, limits or HTTP.

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::Reply;

/// The chat request that a messages request says the same as.
pub fn to_chat(body: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = |error| format!("the request body is not a messages request: {error}");
    let mut request: Value = serde_json::from_slice(body).map_err(wrong)?;
    if request["max_tokens"].as_u64().is_none() {
        return Err("max_tokens: Field required".to_owned());
    }
    let mut messages: Vec<Value> = Vec::new();
    if let Some(system) = request.get("system") {
        messages.push(json!({ "role": "system", "content": system }));
    }
    messages.extend(request["messages"].as_array_mut().map(std::mem::take).into_iter().flatten());
    let mut chat = json!({
        "model": request["model"], "messages": messages, "max_tokens": request["max_tokens"],
        "stop": request.get("stop_sequences").cloned().unwrap_or_else(|| json!([])),
        "stream": request.get("stream").cloned().unwrap_or_else(|| json!(false)),
    });
    if let Some(schema) = request.pointer("/tools/0/input_schema") {
        let shape = json!({ "name": "tool", "schema": schema });
        chat["response_format"] = json!({ "type": "json_schema", "json_schema": shape });
    }
    Ok(chat.to_string().into_bytes())
}

/// A chat reply as a message, or its error as an error; what is broken stays as it is.
pub fn to_message(reply: Reply, request: &[u8]) -> Reply {
    let Ok(chat) = serde_json::from_slice::<Value>(&reply.first) else { return reply };
    if !reply.rest.is_empty() {
        return reply;
    }
    let first = match chat.get("error") {
        Some(error) => {
            let kind = if error["type"].is_null() { json!("api_error") } else { error["type"].clone() };
            json!({ "type": "error", "error": { "type": kind, "message": error["message"] } })
        }
        None => message(&chat, request),
    };
    let first = Bytes::from(first.to_string());
    Reply { length: first.len() as u64, first, ..reply }
}

fn message(chat: &Value, request: &[u8]) -> Value {
    let choice = &chat["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap_or_default();
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let tool = request.pointer("/tools/0/name").zip(serde_json::from_str::<Value>(text).ok());
    let content = match tool {
        Some((name, input)) => json!([{ "type": "tool_use", "id": "toolu_1", "name": name, "input": input }]),
        None => json!([{ "type": "text", "text": text }]),
    };
    let refused = !choice["message"]["refusal"].is_null();
    let reason = match choice["finish_reason"].as_str() {
        _ if refused => "refusal",
        Some("length") => "max_tokens",
        _ if content[0]["type"] == "tool_use" => "tool_use",
        _ => "end_turn",
    };
    json!({
        "id": chat["id"], "type": "message", "role": "assistant", "model": chat["model"], "content": content,
        "stop_reason": reason, "stop_sequence": null,
        "usage": {
            "input_tokens": chat["usage"]["prompt_tokens"], "output_tokens": chat["usage"]["completion_tokens"],
        },
    })
}
