//! Images in a request: what they are made of, and how they are shown to people.
//!
//! Bytes and URLs in, parts of request bodies out. Reads no file and fetches nothing: a URL is the provider's
//! to fetch.

use base64::prelude::{BASE64_STANDARD, Engine};
use reqwest::Url;
use serde_json::Value;

/// An image that goes with the first message of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// In the request itself.
    Inline { media_type: &'static str, base64: String },
    /// Where the provider fetches it.
    Url(String),
}

/// What a provider takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Characters of an image's base64.
    pub base64_max: usize,
    /// Tokens that any of its models takes an image for: what a budget reckons with. Not a token a byte, as for
    /// text: providers scale images down to a size of their own.
    pub tokens_max: u64,
}

impl Image {
    /// An image of a file's bytes; only what all providers take.
    ///
    /// # Errors
    /// A sentence: the bytes are no such image, or too many.
    pub fn of_bytes(bytes: &[u8], limits: ImageLimits) -> Result<Image, String> {
        let media_type = media_type(bytes).ok_or("this is no PNG, JPEG, GIF or WebP")?;
        let length = bytes.len().div_ceil(3) * 4;
        if length > limits.base64_max {
            let most = limits.base64_max / 4 * 3;
            return Err(format!("the image has {} bytes; the teacher's API takes {most}", bytes.len()));
        }
        Ok(Image::Inline { media_type, base64: BASE64_STANDARD.encode(bytes) })
    }

    /// An image of a text in a row: base64, a data URL, or bytes that happen to be text.
    ///
    /// # Errors
    /// As [`Image::of_bytes`].
    pub fn of_text(text: &str, limits: ImageLimits) -> Result<Image, String> {
        if media_type(text.as_bytes()).is_some() {
            return Image::of_bytes(text.as_bytes(), limits);
        }
        let base64 = text.split_once(";base64,").filter(|(head, _)| head.starts_with("data:"));
        let base64 = base64.map_or(text, |(_, base64)| base64);
        if base64.len() / 2 > limits.base64_max {
            return Err(format!("the image has {} characters of base64", base64.len()));
        }
        let plain: String = base64.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let bytes = BASE64_STANDARD.decode(plain).map_err(|_| "this is neither base64 nor a data URL")?;
        Image::of_bytes(&bytes, limits)
    }

    /// An image at a URL; `hosts` are those that it may be at, if that is bounded.
    ///
    /// # Errors
    /// A sentence.
    pub fn at_url(text: &str, hosts: Option<&[String]>) -> Result<Image, String> {
        let url = Url::parse(text).map_err(|error| format!("this is no URL: {error}"))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(format!("a URL of `{}` is not fetched; https is", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL holds a credential".to_owned());
        }
        let host = url.host_str().unwrap_or_default();
        if hosts.is_some_and(|hosts| hosts.iter().all(|known| !known.eq_ignore_ascii_case(host))) {
            return Err(format!("the host `{host}` is not one of `hosts`"));
        }
        Ok(Image::Url(url.to_string()))
    }

    /// Bytes that the image takes in a request as base64.
    pub fn inline_bytes(&self) -> u64 {
        match self {
            Image::Inline { base64, .. } => base64.len() as u64,
            Image::Url(_) => 0,
        }
    }

    /// As one URL, with the bytes in it if it has any (RFC 2397).
    pub(super) fn data_url(&self) -> String {
        match self {
            Image::Inline { media_type, base64 } => format!("data:{media_type};base64,{base64}"),
            Image::Url(url) => url.clone(),
        }
    }
}

/// The type of an image by its first bytes: the four that OpenAI, Anthropic and Google all take.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    let is_webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        _ if is_webp => Some("image/webp"),
        _ => None,
    }
}

/// Puts images before the text of the first message of the user. Under `key` a message has its text or its
/// parts; `part` and `text` write a part. Before the text, as Anthropic and Google advise.
pub(super) fn illustrate(
    messages: Option<&mut Value>,
    key: &str,
    images: &[Image],
    part: impl Fn(&Image) -> Value,
    text: impl Fn(Value) -> Value,
) {
    let messages = messages.and_then(Value::as_array_mut).into_iter().flatten();
    let Some(first) = messages.into_iter().find(|message| message["role"] == "user") else { return };
    if images.is_empty() {
        return;
    }
    let spoken = match first[key].take() {
        Value::Array(parts) => parts,
        one => vec![text(one)],
    };
    first[key] = images.iter().map(part).chain(spoken).collect();
}

/// The text of a message's content for people: images are named, not shown.
pub(super) fn content_shown(content: &Value) -> String {
    let Value::Array(parts) = content else { return content.as_str().unwrap_or_default().to_owned() };
    let shown = |part: &Value| match part.get("text").and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => placeholder(part).map(|shown| shown + "\n").unwrap_or_default(),
    };
    parts.iter().map(shown).collect()
}

/// An image in a part of any of the formats.
fn placeholder(part: &Value) -> Option<String> {
    let at = |pointer: &str| part.pointer(pointer).and_then(Value::as_str);
    let urls = ["/image_url/url", "/image_url", "/source/url", "/fileData/fileUri"];
    let url = urls.iter().find_map(|pointer| at(pointer));
    let inline = at("/source/media_type").zip(at("/source/data"));
    let inline = inline.or(at("/inlineData/mimeType").zip(at("/inlineData/data")));
    let inline = inline.or(url.and_then(|url| url.strip_prefix("data:")?.split_once(";base64,")));
    match (inline, url) {
        (Some((media_type, base64)), _) => {
            let bytes = base64.trim_end_matches('=').len() * 3 / 4;
            Some(format!("[{media_type}, {bytes} bytes]"))
        }
        (None, Some(url)) => Some(format!("[image at {url}]")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIMITS: ImageLimits = ImageLimits { base64_max: 100, tokens_max: 1 };

    #[test]
    fn the_first_bytes_say_what_an_image_is() {
        let check = |bytes: &[u8], expected: Option<&str>| assert_eq!(media_type(bytes), expected);
        check(b"\x89PNG\r\n\x1a\nmore", Some("image/png"));
        check(b"\xff\xd8\xff\xe0", Some("image/jpeg"));
        check(b"GIF89a", Some("image/gif"));
        check(b"RIFF\0\0\0\0WEBPVP8 ", Some("image/webp"));
        check(b"RIFF\0\0\0\0WAVE", None);
        check(b"<svg>", None);
        check(b"", None);
    }

    #[test]
    fn texts_and_urls_become_images_or_say_why_not() {
        let gif = Image::Inline { media_type: "image/gif", base64: "R0lGODlh".to_owned() };
        for text in ["R0lGODlh", "R0lG\nODlh", "data:image/png;base64,R0lGODlh", "GIF89a"] {
            assert_eq!(Image::of_text(text, LIMITS), Ok(gif.clone()), "{text}");
        }
        let wrong = |text: &str, why: &str| {
            let error = Image::of_text(text, LIMITS).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        wrong("a picture!", "neither base64");
        wrong("aGk=", "no PNG");
        wrong(&format!("GIF89a{}", "x".repeat(100)), "takes 75");
        wrong(&"A".repeat(300), "300 characters");
        let hosts = ["a.org".to_owned()];
        let at = |text: &str| Image::at_url(text, Some(&hosts));
        assert_eq!(at("https://A.org/x.png"), Ok(Image::Url("https://a.org/x.png".to_owned())));
        for (text, why) in [
            ("https://b.org/x.png", "not one of `hosts`"),
            ("https://a.org.b.org/", "not one of"),
            ("file:///etc/passwd", "`file`"),
            ("https://u:p@a.org/", "credential"),
            ("x.png", "no URL"),
        ] {
            assert!(at(text).unwrap_err().contains(why), "{text}");
        }
        assert!(Image::at_url("https://b.org/x.png", None).is_ok());
    }

    #[test]
    fn images_are_named_for_people() {
        let check = |part: Value, expected: &str| {
            let content = json!([part, { "type": "text", "text": "What is it?" }]);
            assert_eq!(content_shown(&content), format!("{expected}\nWhat is it?"));
        };
        check(json!({ "image_url": { "url": "data:image/gif;base64,R0lGODlh" } }), "[image/gif, 6 bytes]");
        check(json!({ "image_url": "https://a.org/x" }), "[image at https://a.org/x]");
        check(json!({ "source": { "media_type": "image/png", "data": "AAAA" } }), "[image/png, 3 bytes]");
        check(json!({ "inlineData": { "mimeType": "image/png", "data": "AAAA" } }), "[image/png, 3 bytes]");
        assert_eq!(content_shown(&json!("plain")), "plain");
    }
}
