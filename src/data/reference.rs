//! Benchmarks as lists of items: each a question and what answers it, read from any file of rows.
//!
//! Which columns are which is told by the layouts that benchmarks are published in: HumanEval, MBPP, GSM8K, MMLU,
//! and the normal form of decon (`question`, `answer`, `eval_key`, `split`). Other layouts name their fields.

use std::collections::HashMap;
use std::path::Path;

use crate::data::read::{FileSource, ReadError, ReadOptions};
use crate::problem::shown_path;
use crate::row::{Fields, Value};

/// Most bytes of items that are held: far above all benchmarks together.
const BYTES_MAX: usize = 1 << 30;

/// An item of a benchmark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub benchmark: String,
    /// What the file calls it, else its number in it, from 0.
    pub name: String,
    /// What is asked, then what answers it. Equal questions of one benchmark are one item, whose answers follow
    /// each other.
    pub question: String,
    pub answer: String,
}

/// What makes a layout: the columns it must have, those of the question, of the answer and of the name.
struct Layout {
    has: &'static [&'static str],
    question: &'static [&'static str],
    answer: &'static [&'static str],
    name: &'static str,
}

/// The first whose columns are there is taken.
const LAYOUTS: &[Layout] = &[
    // HumanEval, HumanEval+.
    Layout {
        has: &["prompt", "canonical_solution"],
        question: &["prompt"],
        answer: &["canonical_solution"],
        name: "task_id",
    },
    // MBPP, as its authors publish it; its sanitized part calls the text a prompt.
    Layout { has: &["text", "code", "test_list"], question: &["text"], answer: &["code"], name: "task_id" },
    Layout {
        has: &["prompt", "code", "test_list"],
        question: &["prompt"],
        answer: &["code"],
        name: "task_id",
    },
    // MMLU: the choices are part of what is asked.
    Layout {
        has: &["question", "choices", "answer"],
        question: &["question", "choices"],
        answer: &[],
        name: "id",
    },
    // decon's normal form: other items of the same file may belong to other benchmarks.
    Layout {
        has: &["question", "answer", "eval_key"],
        question: &["question"],
        answer: &["answer"],
        name: "eval_instance_index",
    },
    // GSM8K.
    Layout { has: &["question", "answer"], question: &["question"], answer: &["answer"], name: "id" },
];

/// Reads the items of files. `fields` names the columns of the text instead of a layout: the first is the question,
/// the others answer it. `benchmark` is what the items belong to where no `eval_key` says it.
pub fn read_items(
    paths: &[impl AsRef<Path>],
    fields: Option<&[String]>,
    benchmark: Option<&str>,
) -> Result<Vec<Item>, ReadError> {
    let mut items: Vec<Item> = Vec::new();
    let mut known: HashMap<(String, String), usize> = HashMap::new();
    let mut bytes = 0;
    for path in paths {
        let path = path.as_ref();
        let stem = file_stem(path);
        let source = FileSource::open(&[path.to_owned()], None, ReadOptions::default())?;
        for (number, row) in source.rows().enumerate() {
            let row = row?;
            let item = item(path, &row, number, fields, benchmark.unwrap_or(&stem))?;
            if item.question.trim().is_empty() && item.answer.trim().is_empty() {
                continue;
            }
            bytes += item.question.len() + item.answer.len();
            if bytes > BYTES_MAX {
                return Err(ReadError::new(path, "the items are more than 1 GiB of text"));
            }
            let key = (item.benchmark.clone(), item.question.clone());
            match known.get(&key) {
                Some(same) => {
                    let answer = &mut items[*same].answer;
                    if !answer.contains(&item.answer) {
                        answer.push('\n');
                        answer.push_str(&item.answer);
                    }
                }
                None => {
                    known.insert(key, items.len());
                    items.push(item);
                }
            }
        }
    }
    Ok(items)
}

/// `HumanEval` of `data/HumanEval.jsonl.gz`.
fn file_stem(path: &Path) -> String {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    name.split('.').next().unwrap_or_default().to_owned()
}

fn item(
    path: &Path,
    row: &Fields,
    number: usize,
    fields: Option<&[String]>,
    benchmark: &str,
) -> Result<Item, ReadError> {
    let text = |columns: &[&str]| {
        let texts: Vec<String> = columns.iter().map(|column| words(row.get(*column))).collect();
        texts.join("\n")
    };
    let number = number.to_string();
    if let Some(fields) = fields {
        if let Some(missing) = fields.iter().find(|field| !row.contains_key(*field)) {
            return Err(ReadError::new(path, format!("row {number} has no field `{missing}`")));
        }
        let columns: Vec<&str> = fields.iter().map(String::as_str).collect();
        let (question, answer) = columns.split_at(columns.len().min(1));
        let (question, answer) = (text(question), text(answer));
        return Ok(Item { benchmark: benchmark.to_owned(), name: number, question, answer });
    }
    let Some(layout) =
        LAYOUTS.iter().find(|layout| layout.has.iter().all(|column| row.contains_key(*column)))
    else {
        let columns: Vec<&str> = row.keys().map(String::as_str).collect();
        let message = format!(
            "{} has the columns {}, which no benchmark's layout has; name those of the text: `{{ files: …, fields: [question, answer] }}`",
            shown_path(path),
            columns.join(", ")
        );
        return Err(ReadError::new(path, message));
    };
    let name = match words(row.get(layout.name)) {
        name if name.is_empty() => number,
        name => name,
    };
    let benchmark = match row.get("eval_key").and_then(Value::as_str) {
        Some(key) if layout.has.contains(&"eval_key") => key.to_owned(),
        _ => benchmark.to_owned(),
    };
    Ok(Item { benchmark, name, question: text(layout.question), answer: text(layout.answer) })
}

/// A value as the text that it is or holds.
fn words(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) => {
            values.iter().map(|value| words(Some(value))).collect::<Vec<_>>().join("\n")
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, fields: Option<&[&str]>, expected: &[[&str; 4]]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bench.v1.jsonl");
        std::fs::write(&path, text).unwrap();
        let fields: Option<Vec<String>> = fields.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
        let items = read_items(&[&path], fields.as_deref(), None).unwrap();
        let found: Vec<[&str; 4]> =
            items.iter().map(|i| [&*i.benchmark, &*i.name, &*i.question, &*i.answer]).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn layouts_are_recognised_by_their_columns() {
        check(
            r#"{"task_id": "HumanEval/0", "prompt": "p", "canonical_solution": "s", "test": "t"}"#,
            None,
            &[["bench", "HumanEval/0", "p", "s"]],
        );
        check(
            r#"{"text": "t", "code": "c", "task_id": 7, "test_list": ["x"]}"#,
            None,
            &[["bench", "7", "t", "c"]],
        );
        check(r#"{"question": "q", "answer": "a"}"#, None, &[["bench", "0", "q", "a"]]);
        check(
            r#"{"question": "q", "choices": ["x", "y"], "answer": 1, "subject": "s"}"#,
            None,
            &[["bench", "0", "q\nx\ny", ""]],
        );
    }

    #[test]
    fn the_same_question_is_one_item() {
        let line = |answer: &str| {
            format!(
                r#"{{"eval_key": "mmlu", "eval_instance_index": 3, "split": "test", "question": "q", "answer": "{answer}"}}"#
            ) + "\n"
        };
        check(&(line("0") + &line("4") + &line("0")), None, &[["mmlu", "3", "q", "0\n4"]]);
    }

    #[test]
    fn other_layouts_name_their_fields() {
        let text =
            "{\"a\": \"x\", \"b\": [1, \"z\"], \"c\": null}\n{\"a\": \" \", \"b\": \"\", \"c\": null}\n";
        check(text, Some(&["a", "b", "c"]), &[["bench", "0", "x", "1\nz\n"]]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.jsonl");
        std::fs::write(&path, text).unwrap();
        let error = |fields: Option<&[String]>| read_items(&[&path], fields, None).unwrap_err().message;
        assert!(error(None).contains("has the columns a, b, c, which no benchmark's layout has"));
        assert_eq!(error(Some(&["d".to_owned()])), "row 0 has no field `d`");
    }
}
