//! Secret values: read by the name of an environment variable, held hidden, scrubbed from text.
//!
//! Never reads the environment itself (the look-up is passed in) and never shows a value.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use regex::Regex;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// Shorter values are not scrubbed: replacing `x` or `none` would ruin texts and hides nothing.
/// The shortest keys of hosted providers have more than 20 bytes.
const SCRUBBED_BYTES_MIN: usize = 6;
/// From this length on a value's encoded forms are scrubbed too; shorter ones match by accident.
const ENCODED_BYTES_MIN: usize = 8;
/// What the documentation of local servers (Ollama, LM Studio, llama.cpp, vLLM) says to use as a
/// key when none is needed. They are words that models write, not secrets.
const PLACEHOLDERS: [&str; 7] =
    ["ollama", "lm-studio", "not-needed", "no-key-required", "sk-no-key-required", "placeholder", "unused"];

const BASE64_STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Whether a text can be the name of an environment variable and does not look like a key itself.
pub fn is_variable_name(text: &str) -> bool {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(starts)
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !looks_like_credential(text)
}

/// Whether a text looks like a key rather than like a name or a setting.
pub fn looks_like_credential(text: &str) -> bool {
    const STARTS: [&str; 12] =
        ["bearer ", "basic ", "sk-", "sk_", "gsk_", "hf_", "xai-", "AIza", "nvapi-", "pplx-", "ghp_", "eyJ"];
    STARTS.iter().any(|start| {
        text.get(..start.len())
            .is_some_and(|head| head == *start || start.ends_with(' ') && head.eq_ignore_ascii_case(start))
            && text.len() >= start.len() + 8
    })
}

/// The secret values that a run knows, by the name of their environment variable.
#[derive(Default)]
pub struct Secrets {
    values: BTreeMap<String, SecretString>,
    /// Finds any form of any secret, the longest first; `None` when there is nothing to find.
    finder: Option<Regex>,
    /// The name that each form belongs to.
    names: HashMap<String, String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Secrets {
    /// Reads the named variables through `env`. White space round a value is dropped, since files
    /// that keys come from end in a newline; unset and empty variables are left out, see [`Secrets::get`].
    pub fn load<N: AsRef<str>>(
        names: impl IntoIterator<Item = N>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Secrets {
        let mut values = BTreeMap::new();
        for name in names {
            let name = name.as_ref();
            if let Some(value) =
                env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
            {
                values.insert(name.to_owned(), SecretString::from(value));
            }
        }
        let mut forms_by_name = HashMap::new();
        for (name, value) in &values {
            for form in forms(value.expose_secret()) {
                forms_by_name.entry(form).or_insert_with(|| name.clone());
            }
        }
        Secrets { values, finder: finder(forms_by_name.keys()), names: forms_by_name }
    }

    /// The value of a variable; `None` when it is not set or empty.
    pub fn get(&self, name: &str) -> Option<&SecretString> {
        self.values.get(name)
    }

    /// Replaces every known secret by `[secret NAME]`: as it is, and (from 8 bytes on) as it looks
    /// inside JSON, a URL or base64. One pass of a vectorised search when nothing is found.
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(finder) = &self.finder else { return Cow::Borrowed(text) };
        finder.replace_all(text, |found: &regex::Captures<'_>| {
            let name = self.names.get(&found[0]).map_or("", String::as_str);
            format!("[secret {name}]")
        })
    }

    /// [`Secrets::scrub`] for a text that is owned: it is handed back untouched when nothing is found.
    pub fn scrub_owned(&self, text: String) -> String {
        if let Cow::Owned(scrubbed) = self.scrub(&text) {
            return scrubbed;
        }
        text
    }
}

impl Secrets {
    /// Whether there is nothing to scrub.
    pub fn finds_nothing(&self) -> bool {
        self.finder.is_none()
    }

    /// [`Secrets::scrub`] for all texts in a value.
    pub fn scrub_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.scrub_owned(std::mem::take(text)),
            Value::Array(items) => items.iter_mut().for_each(|item| self.scrub_value(item)),
            Value::Object(entries) => entries.values_mut().for_each(|item| self.scrub_value(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// A search for any of the forms; `None` for none. Leftmost-first matching prefers what stands
/// first, so the longest stand first.
fn finder<'a>(forms: impl Iterator<Item = &'a String>) -> Option<Regex> {
    let mut forms: Vec<&str> = forms.map(String::as_str).collect();
    if forms.is_empty() {
        return None;
    }
    forms.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
    let pattern = forms.iter().map(|form| regex::escape(form)).collect::<Vec<_>>().join("|");
    // An alternation of escaped literals always parses; the size limit is out of reach of headers.
    regex::RegexBuilder::new(&pattern).size_limit(64 << 20).build().ok()
}

/// The texts under which a value may appear.
fn forms(value: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::new();
    if value.len() < SCRUBBED_BYTES_MIN || PLACEHOLDERS.contains(&value) {
        return forms;
    }
    forms.insert(value.to_owned());
    if value.len() < ENCODED_BYTES_MIN {
        return forms;
    }
    let quoted = serde_json::Value::from(value).to_string();
    forms.insert(quoted[1..quoted.len() - 1].to_owned());
    for upper in [true, false] {
        forms.insert(url_encoded(value, upper));
    }
    for alphabet in [BASE64_STANDARD, BASE64_URL] {
        forms.extend((0..3).map(|shift| base64_inside(value.as_bytes(), shift, alphabet)));
    }
    forms
}

/// Percent-encoding of everything but RFC 3986's unreserved characters.
fn url_encoded(value: &str, upper: bool) -> String {
    let mut encoded = String::with_capacity(value.len() * 2);
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ if upper => encoded.push_str(&format!("%{byte:02X}")),
            _ => encoded.push_str(&format!("%{byte:02x}")),
        }
    }
    encoded
}

/// The base64 characters (RFC 4648) that `value` alone decides when `shift` other bytes stand
/// before it in its group of three, as in `base64("user:" + key)`; characters that also hang on a
/// neighbour are left off.
fn base64_inside(value: &[u8], shift: usize, alphabet: &[u8; 64]) -> String {
    let bit_start = shift * 8;
    let bit_end = bit_start + value.len() * 8;
    let byte_at =
        |index: usize| index.checked_sub(shift).and_then(|index| value.get(index)).copied().unwrap_or(0);
    (bit_start.div_ceil(6)..bit_end / 6)
        .map(|position| {
            let bit = position * 6;
            let pair = u16::from_be_bytes([byte_at(bit / 8), byte_at(bit / 8 + 1)]);
            char::from(alphabet[usize::from(pair >> (10 - bit % 8) & 0x3f)])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-\"p/a+s?s";

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let secrets = Secrets::load(["KEY", "LONG", "SHORT", "WORD", "UNSET"], |name| {
            let value = match name {
                "KEY" => KEY,
                "LONG" => "topsecret-and-more\n",
                "SHORT" => "EMPTY",
                "WORD" => "ollama",
                _ => return None,
            };
            Some(value.to_owned())
        });
        assert_eq!(secrets.scrub(text), expected);
        assert_eq!(secrets.scrub_owned(text.to_owned()), expected);
        assert!(!format!("{secrets:?}").contains("topsecret"));
    }

    #[test]
    fn every_form_is_replaced() {
        check("a sk-\"p/a+s?s b", "a [secret KEY] b");
        check(r#"{"k":"sk-\"p/a+s?s"}"#, r#"{"k":"[secret KEY]"}"#);
        check("k=sk-%22p%2Fa%2Bs%3Fs&", "k=[secret KEY]&");
        check("k=sk-%22p%2fa%2bs%3fs&", "k=[secret KEY]&");
        check("topsecret-and-moretopsecret-and-more", "[secret LONG][secret LONG]");
        // printf '%s' 'topsecret-and-more' | base64, and with one and two bytes before it; what a
        // neighbour has a share in stays, and tells at most 4 bits.
        check("dG9wc2VjcmV0LWFuZC1tb3Jl", "[secret LONG]");
        check("YTp0b3BzZWNyZXQtYW5kLW1vcmU=", "YTp[secret LONG]U=");
        check("OnRvcHNlY3JldC1hbmQtbW9yZQ==", "On[secret LONG]Q==");
    }

    #[test]
    fn values_are_scrubbed_at_any_depth() {
        let secrets = Secrets::load(["KEY"], |_| Some("topsecret-and-more".to_owned()));
        let mut value = serde_json::json!({"a": ["x topsecret-and-more", 1], "b": {"c": "d"}});
        secrets.scrub_value(&mut value);
        assert_eq!(value, serde_json::json!({"a": ["x [secret KEY]", 1], "b": {"c": "d"}}));
        assert!(Secrets::default().finds_nothing() && !secrets.finds_nothing());
    }

    #[test]
    fn nothing_else_is_touched() {
        check("topsecret and EMPTY ollama", "topsecret and EMPTY ollama");
        check("", "");
    }

    #[test]
    fn keys_are_told_from_names() {
        assert!(is_variable_name("OPENAI_API_KEY"));
        assert!(
            !is_variable_name("sk-abcdefghijk")
                && !is_variable_name("hf_abcdefghijk")
                && !is_variable_name("")
        );
        assert!(looks_like_credential("bearer abcdefghijk") && !looks_like_credential("Bearer of news"));
    }
}
