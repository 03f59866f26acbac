//! Finds keys, tokens and passwords in a text, by the shapes that their issuers give them.
//!
//! One pass with all shapes at once says which of them occur at all; most texts are done with that.

use std::ops::Range;
use std::sync::LazyLock;

use regex::{Regex, RegexSet};

/// The shapes, as the issuers document them. A group `s` is the secret in what is matched; without one all
/// of it is. `(?-u)`: only ASCII, which is what keys are made of.
const SHAPES: [&str; 17] = [
    // AWS: access key ids of users and of sessions.
    r"(?-u)\b(?:AKIA|ASIA)[A-Z2-7]{16}\b",
    // GitHub: classic and fine-grained tokens.
    r"(?-u)\bgh[pousr]_[A-Za-z0-9]{36,255}\b",
    r"(?-u)\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b",
    r"(?-u)\bglpat-[A-Za-z0-9_-]{20,64}",
    // OpenAI, Anthropic and others that took over their form.
    r"(?-u)\bsk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]{2,8}-|or-v1-)[A-Za-z0-9_-]{20,256}",
    r"(?-u)\bsk-[A-Za-z0-9]{32,64}\b",
    // Slack: tokens and web hooks.
    r"(?-u)\bxox[abeoprs]-[A-Za-z0-9-]{10,250}",
    r"(?-u)hooks\.slack\.com/services/(?P<s>T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/[A-Za-z0-9]{20,32})",
    // Google: API keys and OAuth tokens.
    r"(?-u)\bAIza[A-Za-z0-9_-]{35}",
    r"(?-u)\bya29\.[A-Za-z0-9_-]{20,256}",
    // Stripe.
    r"(?-u)\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,128}\b",
    // Hugging Face, npm, PyPI, SendGrid.
    r"(?-u)\b(?:hf_[A-Za-z]{34}|npm_[A-Za-z0-9]{36}|pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,256}|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})",
    // JSON Web Tokens (RFC 7519): header and payload are JSON objects.
    r"(?-u)\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    // A user's password in a URL (RFC 3986, section 3.2.1).
    r"(?-u)[a-z0-9]://(?P<s>[!$%&(-.0-9;=A-~]{0,64}:[!$%&(-.0-;=A-~]{1,128})@[A-Za-z0-9\[]",
    // Something that calls itself a secret is given a value; see `looks_random`.
    r#"(?-u)(?i:api_?-?key|access_?-?key|secret|token|passwo?r?d|passphrase|auth_?token)(?:_?(?:key|token|value|hash|id))?[\x22'`]?[ \t]{0,4}(?::=|=>|=|:)[ \t]{0,4}[\x22'`](?P<s>[!#-&(-_a-~]{8,256})[\x22'`]"#,
    r"(?-u)(?:KEY|SECRET|TOKEN|PASSWORD|PASSWD)=(?P<s>[A-Za-z0-9_+/=.~-]{8,256})",
    r"(?-u)\b(?i:bearer) (?P<s>[A-Za-z0-9_~+/.-]{20,512})",
];

/// The first of the shapes whose value must look random.
const ASSIGNMENTS_FROM: usize = 14;

/// Key blocks of PEM (RFC 7468), of OpenSSH and PGP.
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Fewer characters of a key than this are a block's first line, quoted.
const KEY_CHARS_MIN: usize = 40;

static SET: LazyLock<Option<RegexSet>> = LazyLock::new(|| RegexSet::new(SHAPES).ok());
static EACH: LazyLock<Vec<Option<Regex>>> =
    LazyLock::new(|| SHAPES.iter().map(|shape| Regex::new(shape).ok()).collect());

/// Calls `add` for each secret, shape by shape.
pub fn find(text: &str, add: &mut impl FnMut(Range<usize>)) {
    key_blocks(text, add);
    let Some(set) = &*SET else { return };
    for shape in &set.matches(text) {
        let Some(regex) = EACH.get(shape).and_then(Option::as_ref) else { continue };
        for found in regex.captures_iter(text) {
            let Some(secret) = found.name("s").or_else(|| found.get(0)) else { continue };
            if shape < ASSIGNMENTS_FROM || looks_random(secret.as_str()) {
                add(secret.range());
            }
        }
    }
}

fn key_blocks(text: &str, add: &mut impl FnMut(Range<usize>)) {
    let mut at = 0;
    while let Some(found) = text[at..].find(BEGIN) {
        let start = at + found;
        at = start + BEGIN.len();
        let Some(body) = label_end(text, at) else { continue };
        // Without an end the key goes on while there are letters of base64.
        let mut end = body + text[body..].find(DASHES).unwrap_or(text.len() - body);
        at = end;
        if let Some(close) = text[end..].starts_with(END).then(|| label_end(text, end + END.len())).flatten()
        {
            at = close;
            end = close;
        } else {
            let in_key = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/= \r\n\t\\".contains(byte);
            end = body + text[body..end].bytes().take_while(in_key).count();
        }
        let chars = text[body..end].bytes().filter(u8::is_ascii_alphanumeric);
        if chars.take(KEY_CHARS_MIN).count() == KEY_CHARS_MIN {
            add(start..start + text[start..end].trim_end().len());
        }
    }
}

/// Where the label `RSA PRIVATE KEY-----` that starts at a place ends, if it is one of a private key.
fn label_end(text: &str, start: usize) -> Option<usize> {
    const LABEL_MAX: usize = 48;
    let label = text[start..].bytes().take(LABEL_MAX);
    let end = start + label.take_while(|byte| byte.is_ascii_uppercase() || *byte == b' ').count();
    let named = text[start..end].contains("PRIVATE KEY") && text[end..].starts_with(DASHES);
    named.then_some(end + DASHES.len())
}

/// Bits of information in a character, at least so many; words and placeholders have fewer.
const ENTROPY_MIN: f64 = 3.0;

/// Words of values that stand for a secret and are none.
const PLACEHOLDERS: [&str; 17] = [
    "example",
    "your",
    "xxxx",
    "changeme",
    "placeholder",
    "<",
    "${",
    "{{",
    "process.env",
    "os.environ",
    "getenv",
    "****",
    "....",
    "secret",
    "token",
    "password",
    "username",
];

/// Whether a value looks like a generated one: letters and digits, no placeholder, hard to foresee.
fn looks_random(value: &str) -> bool {
    let bytes = value.as_bytes();
    let has = |test: fn(&u8) -> bool| bytes.iter().any(test);
    let small = value.to_ascii_lowercase();
    has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
        && !PLACEHOLDERS.iter().any(|word| small.contains(word))
        && entropy(bytes) >= ENTROPY_MIN.min((bytes.len() as f64).log2() - 0.5)
}

/// Shannon's entropy of the bytes' distribution, in bits a byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let total = bytes.len() as f64;
    let share = |count: &u32| f64::from(*count) / total;
    counts.iter().filter(|count| **count > 0).map(share).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts are put together from two halves, so that this file holds no secret. Expected: what is found.
    fn check(halves: [&str; 2], expected: &[&str]) {
        let text = halves.concat();
        let mut found = Vec::new();
        find(&text, &mut |range| found.push(text[range].to_owned()));
        assert_eq!(found, expected, "{text}");
    }

    /// A text that is a secret as a whole, in the middle of a sentence.
    fn check_whole(halves: [&str; 2]) {
        let secret = halves.concat();
        check(["Use ", &format!("{secret}, then go.")], &[&secret]);
    }

    #[test]
    fn all_shapes_compile() {
        assert!(SET.is_some());
        assert!(EACH.iter().all(Option::is_some));
        assert!(SHAPES[ASSIGNMENTS_FROM..].iter().all(|shape| shape.contains("(?P<s>")));
    }

    #[test]
    fn keys_are_known_by_their_shapes() {
        let long = "Ab3Cd5Ef7Gh9Ij1Kl3Mn5Op7Qr9St1Uv3Wx5Yz7";
        check_whole(["AK", "IAIOSFODNN7EXAMPLE"]);
        check_whole(["gh", &format!("p_{}", &long[..36])]);
        check_whole(["github_", &format!("pat_{}_{}", &long[..22], &format!("{long}{long}")[..59])]);
        check_whole(["glp", &format!("at-{}", &long[..20])]);
        check_whole(["sk-", &format!("proj-{long}_{long}")]);
        check_whole(["sk-", &format!("ant-api03-{long}-{long}")]);
        check_whole(["sk-", &format!("{}{}", &long[..24], &long[..24])]);
        check_whole(["xo", &format!("xb-123456789012-{long}")]);
        check_whole(["AI", &format!("za{}", &long[..35])]);
        check_whole(["sk_", &format!("live_{}", &long[..24])]);
        check_whole(["h", "f_AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh"]);
        check_whole(["ey", "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"]);
        let hook = ["hooks.slack.com/ser", "vices/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"];
        check(hook, &["T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"]);
        for none in ["sk-learn is not scikit-learn", "AKIA", "eyJ.eyJ.x", "sk_live_", "the ghp_ prefix"] {
            check([none, ""], &[]);
        }
    }

    #[test]
    fn private_keys_are_found_to_their_end() {
        let body = "MIIBPAIBAAJBANPQbQ92nlbeg1Q5JNHSO1Yey46nZ7GJltLWw1ccSvp7pnvmfUm+\nM521CpFp=";
        let key = format!("-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----");
        check(["a\n", &format!("{key}\nb")], &[&key]);
        let cut = format!("-----BEGIN PRIVATE KEY-----\n{body}");
        check([&cut, "\n"], &[&cut]);
        check([&format!("{cut}\n"), &key], &[&cut, &key]);
        check(["-----BEGIN PRIVATE KEY----- is the first line; ", "-----END PRIVATE KEY----- the last"], &[]);
        let public = key.replace("RSA PRIVATE", "PUBLIC");
        check([&public, ""], &[]);
    }

    #[test]
    fn passwords_in_urls_and_assignments() {
        check(["git clone https://bob:hun", "ter2@git.acme.io/x"], &["bob:hunter2"]);
        check(["redis://:p4ss", "@10.0.0.1:6379"], &[":p4ss"]);
        check(["https://acme.io:8080/a@b", " mailto:a@b.io ssh://git@acme.io"], &[]);
        check(["api_key = \"q7Xk29", "LmP0zR4vTw\""], &["q7Xk29LmP0zR4vTw"]);
        check(["{\"client_secret\": \"q7Xk29", "LmP0zR4vTw\"}"], &["q7Xk29LmP0zR4vTw"]);
        check(["password: 'corr3ct-", "h0rse-battery'"], &["corr3ct-h0rse-battery"]);
        check(["export ACME_TOKEN=q7Xk29", "LmP0zR4vTw"], &["q7Xk29LmP0zR4vTw"]);
        check(["Authorization: Bearer q7Xk29", "LmP0zR4vTwQ8s1"], &["q7Xk29LmP0zR4vTwQ8s1"]);
        for none in [
            "api_key = \"YOUR_API_KEY_123\"",
            "password = \"<your password 1>\"",
            "token: 'identifier'",
            "secret = \"aaaaaaaa1111\"",
            "API_KEY=${ACME_KEY_1}",
            "the token = value",
        ] {
            check([none, ""], &[]);
        }
    }
}
