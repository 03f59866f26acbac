//! The dataset card, `README.md`: how a dataset was made, for people and for Hugging Face's loaders.
//!
//! It has no time, no run id and no money, so that the same data always has the same card.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::data::manifest::{
    Balance, DiversityRecord, DuplicatesRecord, FieldDiversity, Manifest, PartRecord,
};
use crate::problem::counted;
use crate::row::{Fields, Value};

/// The card's name in a dataset folder.
pub const CARD_FILE: &str = "README.md";

/// Writes the card. `pipeline_file` is the pipeline file's text, shown as it is.
pub fn card(manifest: &Manifest, pipeline_file: &str) -> String {
    let rows: u64 = manifest.parts.iter().map(|part| part.rows).sum();
    let mut text = header(&manifest.pipeline.name, rows);
    // Writing to a string cannot fail.
    let _ = body(&mut text, manifest, rows);
    let _ = diversity(&mut text, &manifest.diversity);
    let _ = pipeline(&mut text, pipeline_file);
    text
}

/// The YAML that `datasets.load_dataset` and the hub read.
fn header(name: &str, rows: u64) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    // A JSON string is also a YAML one.
    let name = serde_json::Value::String(name);
    let size = size_category(rows);
    format!(
        "---\n\
         pretty_name: {name}\n\
         tags:\n- synthetic\n- textmill\n\
         size_categories:\n- {size}\n\
         configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/*/part-*.parquet\n\
         ---\n\n"
    )
}

/// The hub's classes of dataset sizes (huggingface.co/docs/hub/datasets-cards).
fn size_category(rows: u64) -> &'static str {
    const CLASSES: [(u64, &str); 10] = [
        (1_000, "n<1K"),
        (10_000, "1K<n<10K"),
        (100_000, "10K<n<100K"),
        (1_000_000, "100K<n<1M"),
        (10_000_000, "1M<n<10M"),
        (100_000_000, "10M<n<100M"),
        (1_000_000_000, "100M<n<1B"),
        (10_000_000_000, "1B<n<10B"),
        (100_000_000_000, "10B<n<100B"),
        (1_000_000_000_000, "100B<n<1T"),
    ];
    CLASSES.iter().find(|(below, _)| rows < *below).map_or("n>1T", |(_, class)| class)
}

fn body(out: &mut String, manifest: &Manifest, rows: u64) -> std::fmt::Result {
    writeln!(out, "# {}\n", inline(&manifest.pipeline.name))?;
    if let Some(about) = &manifest.pipeline.about {
        writeln!(out, "{}\n", inline(about))?;
    }
    scope(out, manifest, rows)?;
    writeln!(out, "## Columns\n\n| column | type |\n|---|---|")?;
    for (name, kind) in &manifest.columns {
        writeln!(out, "| {} | {} |", inline(name), inline(&kind.to_string()))?;
    }
    match epochs(manifest, |_| true).len() {
        0 | 1 => writeln!(out, "\n## How it was made\n")?,
        _ => writeln!(out, "\n## How epoch {} was made\n", inline(&manifest.epoch))?,
    }
    if !manifest.teachers.is_empty() {
        writeln!(out, "| teacher | models |\n|---|---|")?;
        for teacher in &manifest.teachers {
            writeln!(out, "| {} | {} |", inline(&teacher.name), inline(&teacher.models.join(", ")))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "| step | operator | in | out | rejected | failed |\n|---|---|---:|---:|---|---|")?;
    for step in &manifest.steps {
        let (name, operator) = (inline(&step.name), inline(&step.operator));
        let (rejected, failed) = (ends(&step.rejected), ends(&step.failed));
        writeln!(
            out,
            "| {name} | {operator} | {} | {} | {rejected} | {failed} |",
            step.rows_in, step.rows_out
        )?;
    }
    let Balance { rows_in, split_off, kept, rejected, failed, open } = manifest.balance;
    writeln!(
        out,
        "\n{rows_in} rows in + {split_off} split off = {kept} kept + {rejected} rejected + {failed} failed + {open} open\n"
    )?;
    for step in &manifest.steps {
        let Some(Value::Object(report)) = &step.report else { continue };
        writeln!(out, "### {}\n", inline(&step.name))?;
        report.iter().try_for_each(|(name, value)| told(out, name, value))?;
    }
    Ok(())
}

/// What a step has to tell: a list of objects as a table, anything else as a line.
fn told(out: &mut String, name: &str, value: &Value) -> std::fmt::Result {
    let words = |value: &Value| match value {
        Value::String(text) => inline(text),
        other => inline(&other.to_string()),
    };
    let name = inline(&name.replace('_', " "));
    let rows: Vec<&Fields> = value.as_array().into_iter().flatten().filter_map(Value::as_object).collect();
    let Some(first) = rows.first() else { return writeln!(out, "{name}: {}\n", words(value)) };
    let columns: Vec<String> = first.keys().map(|key| inline(&key.replace('_', " "))).collect();
    writeln!(out, "{name}:\n\n| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()))?;
    for row in &rows {
        let cells: Vec<String> = first.keys().map(|key| row.get(key).map_or(String::new(), words)).collect();
        writeln!(out, "| {} |", cells.join(" | "))?;
    }
    writeln!(out)
}

/// Which rows these are: all that follows but the columns is of the epoch published last alone.
fn scope(out: &mut String, manifest: &Manifest, rows: u64) -> std::fmt::Result {
    let rows = counted(rows, "row");
    let (seed, epoch) = (manifest.seed, inline(&manifest.epoch));
    let epochs_all = epochs(manifest, |_| true).len();
    if epochs_all < 2 {
        if manifest.partial {
            writeln!(
                out,
                "**Partial**: the run stopped early; these are its first rows, up to the first open one.\n"
            )?;
        }
        return writeln!(
            out,
            "{rows} of synthetic data, made by textmill with seed {seed}, epoch {epoch}.\n"
        );
    }
    let partial: Vec<String> = epochs(manifest, |part| part.partial).into_iter().map(inline).collect();
    if !partial.is_empty() {
        writeln!(
            out,
            "**Partial**: runs stopped early; of epoch {} these are only the first rows, up to the first open \
             one.\n",
            partial.join(", ")
        )?;
    }
    let last: u64 =
        manifest.parts.iter().filter(|part| part.epoch == manifest.epoch).map(|part| part.rows).sum();
    writeln!(
        out,
        "{rows} of synthetic data of {epochs_all} epochs, made by textmill with seed {seed}. {last} of them \
         are of epoch {epoch}, published last; how it was made and its counts are below.\n"
    )
}

/// The epochs of the parts that are so.
fn epochs(manifest: &Manifest, wanted: impl Fn(&PartRecord) -> bool) -> BTreeSet<&str> {
    manifest.parts.iter().filter(|part| wanted(part)).map(|part| part.epoch.as_str()).collect()
}

/// `3 refused, 1 too\_long`.
fn ends(counts: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = counts.iter().map(|(code, count)| format!("{count} {}", inline(code))).collect();
    parts.join(", ")
}

/// How varied the kept rows are; the numbers' meanings are those of `text::diversity`.
fn diversity(out: &mut String, found: &DiversityRecord) -> std::fmt::Result {
    let DiversityRecord { fields, axes, combinations, combinations_of, duplicates } = found;
    if fields.is_empty() && axes.is_empty() && duplicates.is_empty() {
        return Ok(());
    }
    writeln!(out, "## How varied it is\n")?;
    if !fields.is_empty() {
        varied_texts(out, fields)?;
    }
    if !axes.is_empty() {
        let of = |of: Option<String>| of.unwrap_or_else(|| "any number".to_owned());
        writeln!(out, "| drawn | values in kept rows | of |\n|---|---:|---:|")?;
        for axis in axes {
            let possible = of(axis.of.map(|of| of.to_string()));
            writeln!(out, "| {} | {} | {possible} |", inline(&axis.field), axis.seen)?;
        }
        let possible = of(combinations_of.map(|of| of.to_string()));
        writeln!(out, "| combinations | {combinations} | {possible} |\n")?;
    }
    if !duplicates.is_empty() {
        writeln!(out, "| from source row | rows | duplicates |\n|---:|---:|---:|")?;
        for DuplicatesRecord { from_row, rows, duplicates } in duplicates {
            let share = percent(*duplicates as f64 / (*rows).max(1) as f64);
            writeln!(out, "| {from_row} | {rows} | {duplicates} ({share}) |")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn varied_texts(out: &mut String, fields: &[FieldDiversity]) -> std::fmt::Result {
    writeln!(
        out,
        "| text | texts | words of a text (5 %, median, 95 %) | distinct-1, -2, -3 | compression | 50 commonest \
         openings | nearest other |\n|---|---:|---:|---:|---:|---:|---:|"
    )?;
    for FieldDiversity { field, numbers } in fields {
        let ([low, median, high], [one, two, three]) = (numbers.words_of_a_text, numbers.distinct);
        let nearest = match numbers.nearest {
            Some(similarity) => format!("{similarity:.2} of {}", numbers.nearest_of),
            None => String::new(),
        };
        writeln!(
            out,
            "| {} | {} | {low}, {median}, {high} | {one:.3}, {two:.3}, {three:.3} | {:.1} | {} | {nearest} |",
            inline(field),
            numbers.texts,
            numbers.compression,
            percent(numbers.openings_top)
        )?;
    }
    writeln!(out)?;
    for FieldDiversity { field, numbers } in fields.iter().filter(|field| !field.numbers.openings.is_empty())
    {
        let opening = |(words, share): &(String, f64)| format!("\"{}\" {}", inline(words), percent(*share));
        let openings: Vec<String> = numbers.openings.iter().map(opening).collect();
        writeln!(out, "Commonest openings of {}: {}.\n", inline(field), openings.join(", "))?;
    }
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn pipeline(out: &mut String, pipeline_file: &str) -> std::fmt::Result {
    let fence = "`".repeat(longest_run(pipeline_file, '`').max(2) + 1);
    let end = if pipeline_file.ends_with('\n') { "" } else { "\n" };
    writeln!(out, "## Pipeline file\n\n{fence}yaml\n{pipeline_file}{end}{fence}")
}

fn longest_run(text: &str, of: char) -> usize {
    let mut longest = 0;
    let mut run = 0;
    for c in text.chars() {
        run = if c == of { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// Text as one line of Markdown that says nothing but itself, also inside a table.
fn inline(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !escaped.is_empty() {
            escaped.push(' ');
        }
        for c in word.chars().filter(|c| !c.is_control()) {
            match c {
                '<' => escaped.push_str("&lt;"),
                '>' => escaped.push_str("&gt;"),
                '&' => escaped.push_str("&amp;"),
                '\\' | '`' | '*' | '_' | '[' | ']' | '{' | '}' | '|' | '#' | '!' | '~' | '$' => {
                    escaped.push('\\');
                    escaped.push(c);
                }
                _ => escaped.push(c),
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::manifest::AxisRecord;
    use crate::data::manifest::RunRecord;
    use crate::data::manifest::tests::sample;
    use crate::row::Type;
    use crate::text::diversity::Numbers;

    #[test]
    fn a_card_says_how_the_data_was_made() {
        let mut manifest = sample();
        manifest.pipeline.about = Some("Exercises\n| with \"tests\".".into());
        manifest.partial = true;
        manifest.columns = vec![("a|b".into(), Type::List(Box::new(Type::Text)))];
        let part = |rows| PartRecord {
            epoch: "0".into(),
            partial: false,
            path: "data/0/part-00000.parquet".into(),
            rows,
            bytes: 9,
            sha256: "ef".into(),
        };
        manifest.parts = vec![part(7), part(1_000)];
        let expected = r#"---
pretty_name: "exercises"
tags:
- synthetic
- textmill
size_categories:
- 1K<n<10K
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*/part-*.parquet
---

# exercises

Exercises \| with "tests".

**Partial**: the run stopped early; these are its first rows, up to the first open one.

1007 rows of synthetic data, made by textmill with seed 7, epoch 0.

## Columns

| column | type |
|---|---|
| a\|b | list of text |

## How it was made

| teacher | models |
|---|---|
| writer | m-1 |

| step | operator | in | out | rejected | failed |
|---|---|---:|---:|---|---|
| grade | judge | 10 | 7 | 2 refused | 1 server\_error |

10 rows in + 0 split off = 7 kept + 2 rejected + 1 failed + 0 open

## Pipeline file

````yaml
name: x # ```
````
"#;
        assert_eq!(card(&manifest, "name: x # ```"), expected);
        manifest.run = RunRecord { id: "another".into(), ..RunRecord::default() };
        assert_eq!(card(&manifest, "name: x # ```\n"), expected, "the run leaves no trace");
    }

    #[test]
    fn what_steps_have_to_tell_is_in_the_card() {
        let mut manifest = sample();
        let found = serde_json::json!([{"similarity": "0.8 to 0.9", "found": 0.98}, {"similarity": "<b>"}]);
        manifest.steps[0].report = Some(serde_json::json!({"self_test": found, "rows_compared": 7}));
        let expected = "### grade\n\nself test:\n\n| similarity | found |\n|---|---|\n| 0.8 to 0.9 | 0.98 |\n\
                        | &lt;b&gt; |  |\n\nrows compared: 7\n\n";
        let text = card(&manifest, "");
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_card_of_several_epochs_says_which_its_counts_are_of() {
        let mut manifest = sample();
        let part = |epoch: &str, rows, partial| PartRecord {
            epoch: epoch.into(),
            partial,
            path: format!("data/{epoch}/part-00000.parquet"),
            rows,
            bytes: 9,
            sha256: "ef".into(),
        };
        manifest.epoch = "1".into();
        manifest.parts = vec![part("0", 14, true), part("1", 19, false)];
        manifest.partial = true;
        let text = card(&manifest, "");
        for said in [
            "of epoch 0 these are only the first rows",
            "33 rows of synthetic data of 2 epochs, made by textmill with seed 7. 19 of them are of epoch 1,",
            "\n## How epoch 1 was made\n",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }

    #[test]
    fn a_card_says_how_varied_the_rows_are() {
        let numbers = Numbers {
            texts: 7,
            measured: 7,
            words: 700,
            words_of_a_text: [80, 100, 120],
            distinct: [0.1, 0.51, 0.9],
            compression: 3.44,
            openings: vec![("once upon a time".into(), 0.59), ("<b> is a |".into(), 0.2)],
            openings_top: 0.9,
            nearest: Some(0.125),
            nearest_of: 7,
        };
        let found = DiversityRecord {
            fields: vec![FieldDiversity { field: "story".into(), numbers }],
            axes: vec![AxisRecord { field: "topic".into(), seen: 3, of: Some(4) }],
            combinations: 3,
            combinations_of: None,
            duplicates: vec![DuplicatesRecord { from_row: 0, rows: 8, duplicates: 1 }],
        };
        let expected = r#"## How varied it is

| text | texts | words of a text (5 %, median, 95 %) | distinct-1, -2, -3 | compression | 50 commonest openings | nearest other |
|---|---:|---:|---:|---:|---:|---:|
| story | 7 | 80, 100, 120 | 0.100, 0.510, 0.900 | 3.4 | 90.0 % | 0.12 of 7 |

Commonest openings of story: "once upon a time" 59.0 %, "&lt;b&gt; is a \|" 20.0 %.

| drawn | values in kept rows | of |
|---|---:|---:|
| topic | 3 | 4 |
| combinations | 3 | any number |

| from source row | rows | duplicates |
|---:|---:|---:|
| 0 | 8 | 1 (12.5 %) |

"#;
        let mut text = String::new();
        diversity(&mut text, &found).unwrap();
        assert_eq!(text, expected);
        text.clear();
        diversity(&mut text, &DiversityRecord::default()).unwrap();
        assert_eq!(text, "");
    }

    #[test]
    fn names_cannot_break_out() {
        let check = |text: &str, expected: &str| assert_eq!(inline(text), expected);
        check("<script>\u{1b}[31m & `x`\r\n# y", r"&lt;script&gt;\[31m &amp; \`x\` \# y");
        check("**_[a](b)_**", r"\*\*\_\[a\](b)\_\*\*");
        assert!(header("a\"\n---\u{85}: b", 0).contains("pretty_name: \"a\\\"---: b\"\n"));
    }

    #[test]
    fn sizes_are_classed() {
        let check = |rows, expected: &str| assert_eq!(size_category(rows), expected);
        check(0, "n<1K");
        check(999, "n<1K");
        check(1_000, "1K<n<10K");
        check(123_456, "100K<n<1M");
        check(u64::MAX, "n>1T");
    }
}
