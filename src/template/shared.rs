//! What renderings of one template have in common: the text before its first tag, or up to where the template says.
//!
//! Pure; it knows nothing of providers, whose prompt caches it is for.

/// A rendered template.
pub struct Rendered {
    pub text: String,
    /// How many of its first bytes many rows have in common: those up to the last [`CACHE_HERE`], else those that
    /// stand before the template's first tag.
    pub shared: usize,
    /// Whether the template says so.
    pub is_marked: bool,
}

/// What is the same in every rendering of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Nothing in it changes.
    All,
    /// So many bytes before its first tag.
    Bytes(usize),
}

/// The function that marks the end of what many rows have in common: `{{ document }}{{ cache_here() }}`.
pub(super) const CACHE_HERE: &str = "cache_here";
/// What it stands as in a text until that is rendered: the last character of Unicode's private use.
const MARK: char = '\u{10fffd}';

pub(super) fn mark() -> String {
    MARK.to_string()
}

impl Head {
    /// Blank space in front of a tag may be taken away by it.
    pub(super) fn of(text: &str) -> Head {
        let tag = text
            .match_indices('{')
            .find(|(at, _)| matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')));
        tag.map_or(Head::All, |(at, _)| Head::Bytes(text[..at].trim_end().len()))
    }
}

/// Takes the marks out of a rendered text, where the template makes any.
pub(super) fn rendered(text: String, head: Head, marks: bool) -> Rendered {
    if let Some(at) = text.rfind(MARK).filter(|_| marks) {
        let (before, rest) = (text[..at].replace(MARK, ""), &text[at + MARK.len_utf8()..]);
        let shared = before.len();
        return Rendered { text: before + rest, shared, is_marked: true };
    }
    let shared = match head {
        Head::All => text.len(),
        Head::Bytes(bytes) => bytes.min(text.len()),
    };
    Rendered { text, shared, is_marked: false }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use crate::template::Templates;

    #[test]
    fn what_rows_have_in_common_is_known() {
        let check = |text: &str, expected: (&str, usize)| {
            let template = Templates::new(Path::new("none")).template(text).unwrap();
            let fields = json!({"a": "xyz", "b": "é"}).as_object().unwrap().clone();
            let rendered = template.render_shared(&fields).unwrap();
            assert_eq!((rendered.text.as_str(), rendered.shared), expected, "{text}");
            assert_eq!(template.render(&fields).unwrap(), rendered.text);
        };
        check("Write.", ("Write.", 6));
        check("Write of {{ a }}", ("Write of xyz", 8));
        check("{{ a }} is it", ("xyz is it", 0));
        check("Read: {{ a }}{{ cache_here() }}. Now {{ b }}", ("Read: xyz. Now é", 9));
        check("{{ b }}{{ cache_here() }}{{ a }}{{ cache_here() }}!", ("éxyz!", 5));
        check("One.\n  {% if a %}Two.{% endif %}", ("One.\nTwo.", 4));
        check("A { brace }", ("A { brace }", 11));
    }
}
