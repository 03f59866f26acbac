//! Rows as people read them: field by field, and why one ended before it was kept.
//!
//! Nothing in them can command a terminal: what models wrote is escaped line by line.

use std::path::Path;

use crate::call::budget::usd;
use crate::data::read::read_dataset;
use crate::row::{Fields, Value};
use crate::run::output::CALLS;
use crate::run::trace::{self, EndedRow};
use crate::store::Store;

/// Characters of one field that are shown.
const FIELD_CHARS_MAX: usize = 2000;

/// The first rows of a dataset or of a folder of parts, under a heading.
pub fn first(folder: &Path, heading: &str, rows_max: usize, store: Option<&Store>) -> String {
    let Ok(rows) = read_dataset(folder) else { return String::new() };
    let mut text = String::new();
    for row in rows.take(rows_max) {
        match row {
            Ok(fields) => text.push_str(&one(&fields, heading, store)),
            Err(error) => text.push_str(&format!("error: {error}\n")),
        }
    }
    text
}

/// One row. Its calls are shown with `--row`.
pub fn one(fields: &Fields, heading: &str, store: Option<&Store>) -> String {
    let text = trace::ended(fields, store).map_or_else(|| laid_out(fields), |row| ended(&row));
    format!("── {heading} ──\n{text}\n")
}

/// A rejected or failed row: which it is, why it ended, what it had, what was answered last.
fn ended(row: &EndedRow) -> String {
    let mut text = laid_out(&row.end);
    text.push_str(&match &row.evidence {
        Value::Object(evidence) => below("evidence", &laid_out(evidence)),
        other => line("evidence", other),
    });
    text.push_str(&row.usd_nano.map(|nano| format!("usd: {}\n", usd(nano))).unwrap_or_default());
    text.push_str(&below("fields", &laid_out(&row.fields)));
    text.push_str(&below("reply", &shown(row.reply.as_deref().unwrap_or_default())));
    text
}

/// A line for each short value, a block for each long one.
fn laid_out(fields: &Fields) -> String {
    let shown = fields.iter().filter(|(name, _)| *name != CALLS);
    shown.map(|(name, value)| line(name, value)).collect()
}

fn line(name: &str, value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => shown(text),
        other => shown(&other.to_string()),
    };
    if text.contains('\n') { below(name, &text) } else { format!("{}: {text}\n", escaped(name)) }
}

/// Lines that a terminal would not obey, under a name; nothing when there are none.
fn below(name: &str, lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    if lines.is_empty() { lines } else { format!("{}:\n{lines}", escaped(name)) }
}

/// A whole text under a name.
pub fn block(name: &str, text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("  {}\n", escaped(line))).collect();
    format!("{name}:\n{lines}")
}

/// As much of a text as is shown of one field.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(FIELD_CHARS_MAX).collect();
    let more = if cut.len() < text.len() { " […]" } else { "" };
    let lines: Vec<String> = cut.lines().map(escaped).collect();
    format!("{}{more}", lines.join("\n"))
}

/// A line that cannot move the cursor, colour the screen or turn the direction of writing.
pub fn escaped(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for c in line.chars() {
        let reorders = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() && c != '\t') || reorders {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_models_wrote_cannot_command_a_terminal() {
        let check = |text: &str, expected: &str| assert_eq!(escaped(text), expected);
        check("a\u{1b}[31mb", "a\\u{1b}[31mb");
        check("a\u{9b}b\u{202e}c", "a\\u{9b}b\\u{202e}c");
        check("a\tb é", "a\tb é");
    }

    #[track_caller]
    fn check(row: &Value, expected: &str) {
        let shown = one(row.as_object().unwrap(), "row", None);
        assert_eq!(shown.strip_prefix("── row ──\n").unwrap(), format!("{expected}\n"));
    }

    #[test]
    fn rows_are_laid_out_field_by_field() {
        let kept = json!({"a": "x", "none": null, "n": 5, "long": "1\n\u{1b}2", CALLS: [{"key": "k"}]});
        check(&kept, "a: x\nn: 5\nlong:\n  1\n  \\u{1b}2\n");
    }

    #[test]
    fn ended_rows_say_why_and_what_they_had() {
        let evidence = json!({"error": "no \u{1b}json", "text": "a\nb", "at": null}).to_string();
        let fields = json!({"place": "the harbour", "text": "1\n2"}).to_string();
        let row = json!({
            "textmill_row": "3", "textmill_parent": null, "step": "s", "reason": "unparsable", "message": "",
            "evidence": evidence, "usd": 0.000_708_801_999_999_999_9, "reply": "raw\u{1b}", "fields": fields,
            CALLS: [],
        });
        check(
            &row,
            "textmill_row: 3\nstep: s\nreason: unparsable\nevidence:\n  error: no \\u{1b}json\n  text:\n    a\n    b\n\
             usd: 0.000708802\nfields:\n  place: the harbour\n  text:\n    1\n    2\nreply:\n  raw\\u{1b}\n",
        );
        let bare =
            json!({"textmill_row": "3", "step": "s", "reason": "empty", "evidence": "null", "fields": "{}"});
        check(&bare, "textmill_row: 3\nstep: s\nreason: empty\n");
    }
}
