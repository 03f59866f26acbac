//! Streamed replies: server-sent events, put together to the reply that would have come whole.
//!
//! The decoder of the event stream (WHATWG HTML, "Server-sent events") and what assemblers promise; each wire
//! format's is in its own file. Pure: bytes go in, a body comes out. Our own decoder, because the crates for it
//! bound neither an event nor a stream, and pass over a last event that was cut.

use serde_json::Value;

/// Puts the events of one reply together.
pub trait Assemble: Send {
    /// Takes the data of an event.
    fn event(&mut self, data: Value);

    /// The body of the reply as it comes without streaming, or nothing when the end mark is missing: then the
    /// reply was cut off, however much of it came.
    fn body(&mut self) -> Option<Value>;
}

/// Cuts a stream of bytes into the data of its events.
#[derive(Default)]
pub struct Events {
    /// Bytes of a line whose end has not come.
    line: Vec<u8>,
    /// The data lines of the event whose end has not come.
    data: Vec<u8>,
}

impl Events {
    /// The data of the events that these bytes end. Whatever is not data is passed over.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() {
                if !self.data.is_empty() {
                    events.push(std::mem::take(&mut self.data));
                }
            } else if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
        }
        self.line.extend_from_slice(rest);
        events
    }

    /// The event that the end of the stream ends: some servers leave out the last empty line.
    pub fn end(mut self) -> Option<Vec<u8>> {
        self.feed(b"\n\n").pop()
    }
}

/// The mark that ends streams in OpenAI's manner; no JSON.
pub const DONE: &[u8] = b"[DONE]";

/// Adds a piece of text to a text in a JSON object.
pub(super) fn append(object: &mut Value, key: &str, piece: &Value) {
    let Some(piece) = piece.as_str() else { return };
    match &mut object[key] {
        Value::String(text) => text.push_str(piece),
        slot => *slot = Value::from(piece),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::api::Api;
    use super::super::format::ApiFormat;
    use super::super::{Answer, Fault, Finish, Usage};
    use super::*;

    fn check(stream: &str, expected: &[&str]) {
        // However the bytes are cut.
        for size in [1, 2, 7, 1000] {
            let mut events = Events::default();
            let mut found: Vec<Vec<u8>> = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                found.extend(events.feed(piece));
            }
            found.extend(events.end());
            let found: Vec<String> = found.into_iter().map(|data| String::from_utf8(data).unwrap()).collect();
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn events_are_what_stands_between_empty_lines() {
        check("data: a\n\ndata:b\r\n\r\n", &["a", "b"]);
        check(": hello\nevent: x\nid: 1\ndata: {\"é\": 1}\n\n", &["{\"é\": 1}"]);
        check("data: a\ndata: b\n\n\n\n", &["a\nb"]);
        check("data: a\n\ndata: [DONE]", &["a", "[DONE]"]);
        check("event: x\n\n", &[]);
        check("", &[]);
    }

    /// What a format makes of events, as an answer's text and finish; nothing for a stream that was cut.
    fn read(format: ApiFormat, events: &[Value]) -> Option<Result<Answer, Fault>> {
        let mut assembler = format.wire().assembler();
        events.iter().for_each(|event| assembler.event(event.clone()));
        Some(format.wire().read(&Api::named("m"), &assembler.body()?.to_string()))
    }

    /// The events read as the answer, and without the last one as a cut reply.
    #[track_caller]
    fn check_answer(format: ApiFormat, events: &Value, usage: Usage) {
        let events = events.as_array().unwrap();
        let answer = read(format, events).unwrap().unwrap();
        assert_eq!((answer.text.as_str(), answer.model.as_str()), ("ab", "m-2"));
        assert_eq!((answer.finish, answer.usage), (Finish::Length, Some(usage)));
        assert!(read(format, &events[..events.len() - 1]).is_none());
    }

    #[test]
    fn streams_read_as_whole_replies_do() {
        let usage = Usage { input: 3, output: 4, ..Usage::default() };
        let chunk = |delta: Value, finish: Value| json!({ "model": "m-2", "usage": null, "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] });
        let counts =
            json!({ "model": "m-2", "choices": [], "usage": { "prompt_tokens": 3, "completion_tokens": 4 } });
        let openai = json!([
            chunk(json!({ "role": "assistant", "content": "" }), Value::Null),
            chunk(json!({ "content": "a" }), Value::Null),
            chunk(json!({ "content": "b" }), Value::Null),
            chunk(json!({}), json!("length")),
            counts,
            null,
        ]);
        check_answer(ApiFormat::Openai, &openai, usage);
        let part = json!({ "type": "output_text", "text": "ab" });
        let response = json!({
            "model": "m-2", "status": "incomplete", "incomplete_details": { "reason": "max_output_tokens" },
            "output": [{ "type": "message", "content": [part] }], "usage": { "input_tokens": 3, "output_tokens": 4 },
        });
        let responses = json!([
            { "type": "response.output_text.delta", "delta": "a" },
            { "type": "response.incomplete", "response": response },
        ]);
        check_answer(ApiFormat::Responses, &responses, usage);
        let anthropic = json!([
            { "type": "message_start", "message": { "model": "m-2", "content": [], "usage": { "input_tokens": 3, "output_tokens": 1 } } },
            { "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } },
            { "type": "ping" },
            { "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "a" } },
            { "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "b" } },
            { "type": "content_block_stop", "index": 0 },
            { "type": "message_delta", "delta": { "stop_reason": "max_tokens" }, "usage": { "output_tokens": 4 } },
            { "type": "message_stop" },
        ]);
        check_answer(ApiFormat::Anthropic, &anthropic, usage);
        let piece = |text: &str| json!({ "modelVersion": "m-2", "candidates": [{ "content": { "parts": [{ "text": text }] } }] });
        let mut last = piece("b");
        last["candidates"][0]["finishReason"] = json!("MAX_TOKENS");
        last["usageMetadata"] = json!({ "promptTokenCount": 3, "candidatesTokenCount": 4 });
        check_answer(ApiFormat::Gemini, &json!([piece("a"), last]), usage);
    }

    #[test]
    fn errors_and_tools_come_in_streams_too() {
        let busy = json!({ "error": { "code": 429, "message": "m" } });
        for format in [ApiFormat::Openai, ApiFormat::Gemini] {
            assert!(matches!(read(format, std::slice::from_ref(&busy)), Some(Err(Fault::Busy { .. }))));
        }
        let overloaded = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "m" } });
        assert!(matches!(read(ApiFormat::Anthropic, &[overloaded]), Some(Err(Fault::Busy { .. }))));
        let error = json!({ "type": "error", "code": "rate_limit_exceeded", "message": "m" });
        assert!(matches!(read(ApiFormat::Responses, &[error]), Some(Err(Fault::Busy { .. }))));
        let delta = |json: &str| json!({ "type": "content_block_delta", "delta": { "partial_json": json } });
        let tool = [
            json!({ "type": "message_start", "message": {} }),
            json!({ "type": "content_block_start", "content_block": { "type": "tool_use", "name": "answer", "input": {} } }),
            delta("{\"n\""),
            delta(": 1}"),
            json!({ "type": "message_stop" }),
        ];
        assert_eq!(read(ApiFormat::Anthropic, &tool).unwrap().unwrap().text, "{\"n\":1}");
    }

    /// The calls that events come to: two, the second of them in pieces where the format has them.
    #[track_caller]
    fn check_calls(format: ApiFormat, events: &Value) {
        let answer = read(format, events.as_array().unwrap()).unwrap().unwrap();
        let calls: Vec<(&str, &str)> =
            answer.calls.iter().map(|call| (&*call.name, &*call.arguments)).collect();
        assert_eq!((calls, &*answer.text), (vec![("f", "{}"), ("g", "{\"n\":1}")], ""));
    }

    #[test]
    fn calls_come_in_pieces() {
        let call = |index: u64, id: Value, name: Value, arguments: &str| {
            let function = json!({ "name": name, "arguments": arguments });
            let delta = json!({ "tool_calls": [{ "index": index, "id": id, "function": function }] });
            json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] })
        };
        let openai = json!([
            call(0, json!("a"), json!("f"), "{}"),
            call(1, json!("b"), json!("g"), ""),
            call(1, Value::Null, Value::Null, "{\"n\""),
            call(1, Value::Null, Value::Null, ":1}"),
            { "choices": [{ "index": 0, "delta": {}, "finish_reason": "tool_calls" }] },
            null,
        ]);
        check_calls(ApiFormat::Openai, &openai);
        // Some servers count no calls.
        let mut uncounted = openai;
        for event in uncounted.as_array_mut().unwrap() {
            if let Some(Value::Object(call)) = event.pointer_mut("/choices/0/delta/tool_calls/0") {
                call.remove("index");
            }
        }
        check_calls(ApiFormat::Openai, &uncounted);
        let start = |name: &str| json!({ "type": "content_block_start", "content_block": { "type": "tool_use", "name": name, "input": {} } });
        let delta = |json: &str| json!({ "type": "content_block_delta", "delta": { "type": "input_json_delta", "partial_json": json } });
        let anthropic = json!([
            { "type": "message_start", "message": {} }, start("f"), { "type": "content_block_stop" },
            start("g"), delta(""), delta("{\"n\""), delta(":1}"), { "type": "content_block_stop" },
            { "type": "message_delta", "delta": { "stop_reason": "tool_use" } }, { "type": "message_stop" },
        ]);
        check_calls(ApiFormat::Anthropic, &anthropic);
        let part = |name: &str, args: Value| json!({ "functionCall": { "name": name, "args": args } });
        let piece = |part: Value, finish: Value| json!({ "candidates": [{ "content": { "parts": [part] }, "finishReason": finish }] });
        let gemini = json!([
            piece(part("f", json!({})), Value::Null),
            piece(part("g", json!({ "n": 1 })), json!("STOP"))
        ]);
        check_calls(ApiFormat::Gemini, &gemini);
        let item = |name: &str, arguments: &str| json!({ "type": "function_call", "name": name, "arguments": arguments });
        let response = json!({ "status": "completed", "output": [item("f", "{}"), item("g", "{\"n\":1}")] });
        check_calls(ApiFormat::Responses, &json!([{ "type": "response.completed", "response": response }]));
    }

    #[test]
    fn answers_and_log_probabilities_come_in_pieces() {
        let chunk = |index: u64, text: &str| {
            let token = json!({ "token": text, "logprob": -1.0 });
            json!({ "choices": [{ "index": index, "delta": { "content": text }, "logprobs": { "content": [token] } }] })
        };
        let end = |index: u64, finish: &str| json!({ "choices": [{ "index": index, "delta": {}, "finish_reason": finish }] });
        let openai =
            [chunk(1, "c"), chunk(0, "a"), chunk(0, "b"), end(0, "stop"), end(1, "length"), Value::Null];
        let piece = |index: u64, text: &str, finish: Value| {
            let token = json!({ "token": text, "logProbability": -1.0 });
            let content = json!({ "parts": [{ "text": text }] });
            json!({ "candidates": [{ "index": index, "content": content, "finishReason": finish, "logprobsResult": { "chosenCandidates": [token] } }] })
        };
        let gemini =
            [piece(1, "c", json!("MAX_TOKENS")), piece(0, "a", Value::Null), piece(0, "b", json!("STOP"))];
        for (format, events) in [(ApiFormat::Openai, &openai[..]), (ApiFormat::Gemini, &gemini[..])] {
            let answer = read(format, events).unwrap().unwrap();
            let shown: Vec<_> = answer
                .all()
                .map(|answer| (&*answer.text, answer.finish, answer.logprobs.as_ref().map(Vec::len)))
                .collect();
            assert_eq!(shown, [("ab", Finish::Stop, Some(2)), ("c", Finish::Length, Some(1))]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut events = Events::default();
            events.feed(&bytes);
            events.end();
        }
    }
}
