//! A call's key: the SHA-256 of the canonical logical request.
//!
//! Whatever can change an answer is in it; keys, transport and the endpoint that served are not.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::store::Key;

/// Everything that a call's key is made of.
pub struct Parts<'a> {
    /// The wire format's name.
    pub wire: &'a str,
    pub identity: &'a str,
    pub body: &'a Value,
    /// Headers that the user added, without those whose values are secrets.
    pub headers: &'a [(String, String)],
    pub epoch: &'a str,
    /// Which of several samples of one row this is.
    pub sample: u32,
    /// The row for calls that are drawn anew for every row; empty for those that are not.
    pub draw: &'a str,
}

/// The key of a call. Stable for ever: stored replies are found by it.
pub fn key(parts: &Parts<'_>) -> Key {
    let mut text = Vec::with_capacity(2048);
    // Each part is JSON of its own with its length before it, so that no two calls read alike.
    let mut part = |bytes: &[u8]| {
        text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        text.extend_from_slice(bytes);
    };
    part(b"textmill call 1");
    part(parts.wire.as_bytes());
    part(parts.identity.as_bytes());
    part(parts.epoch.as_bytes());
    part(&parts.sample.to_le_bytes());
    part(parts.draw.as_bytes());
    for (name, value) in parts.headers {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    let mut body = Vec::with_capacity(2048);
    canonical(parts.body, &mut body);
    part(&body);
    Key(Sha256::digest(&text).into())
}

/// JSON with its keys sorted and no white space.
pub fn canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (index, (name, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                plain(name, out);
                out.push(b':');
                canonical(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                canonical(item, out);
            }
            out.push(b']');
        }
        scalar => plain(scalar, out),
    }
}

fn plain(value: &impl Serialize, out: &mut Vec<u8>) {
    // Writing JSON to memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::HashSet;

    #[test]
    fn each_part_changes_the_key_and_key_order_does_not() {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 0.5});
        let other = json!({"model": "m", "messages": [{"role": "user", "content": "y"}], "temperature": 0.5});
        let turned =
            json!({"temperature": 0.5, "messages": [{"content": "x", "role": "user"}], "model": "m"});
        let header = [("a".to_owned(), "b".to_owned())];
        let base = || Parts {
            wire: "openai",
            identity: "http://h/v1",
            body: &body,
            headers: &[],
            epoch: "0",
            sample: 0,
            draw: "17",
        };
        assert_eq!(key(&base()), key(&Parts { body: &turned, ..base() }));
        let keys = [
            key(&base()),
            key(&Parts { wire: "other", ..base() }),
            key(&Parts { identity: "http://h/v2", ..base() }),
            key(&Parts { body: &other, ..base() }),
            key(&Parts { headers: &header, ..base() }),
            key(&Parts { epoch: "1", ..base() }),
            key(&Parts { sample: 1, ..base() }),
            key(&Parts { draw: "", ..base() }),
        ];
        let distinct: HashSet<[u8; 32]> = keys.iter().map(|key| key.0).collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn the_key_never_changes() {
        let body = json!({"model": "m", "n": [1, 2.5, null, true, "é\n"]});
        let parts = Parts {
            wire: "openai",
            identity: "i",
            body: &body,
            headers: &[],
            epoch: "0",
            sample: 0,
            draw: "",
        };
        let mut text = Vec::new();
        canonical(&body, &mut text);
        assert_eq!(String::from_utf8(text).unwrap(), r#"{"model":"m","n":[1,2.5,null,true,"é\n"]}"#);
        assert_eq!(
            key(&parts).to_string(),
            "5dcb65451e9329452e89219785808a38cf8cde7061c99f3daceed540524f5054"
        );
    }
}
