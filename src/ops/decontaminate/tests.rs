//! Rows with items of a small benchmark: as they are, edited, under other names, in other words.

use std::path::Path;

use serde_json::{Value, json};

use crate::ops::fixture;
use crate::row::Type;

const PROMPT: &str = "def seats_left(rows, taken):\n    \"\"\"Each row of a theatre has a number of seats. Given the \
    sizes of the rows and the list of (row, seat) tickets sold, return how many seats are still free in each \
    row.\"\"\"\n";

const SOLUTION: &str = "    free = list(rows)\n    for row, _ in taken:\n        if free[row] > 0:\n            \
    free[row] -= 1\n    return free\n";

/// What becomes of a row with a text.
fn outcome(more: Value, text: &str) -> Result<(), Value> {
    let folder = tempfile::tempdir().unwrap();
    let item = json!({"task_id": "T/1", "prompt": PROMPT, "canonical_solution": SOLUTION, "test": "assert"});
    std::fs::write(folder.path().join("bench.jsonl"), format!("{item}\n")).unwrap();
    let config = fixture::with(json!({"fields": ["a.text"], "against": ["bench.jsonl"]}), more);
    let kit = fixture::kit(folder.path());
    match fixture::map(&kit, json!({"decontaminate": config}), json!({"a": {"text": text}})) {
        Ok(_) => Ok(()),
        Err(reason) => {
            let (code, evidence) = reason.split_once(' ').unwrap();
            let mut evidence: Value = serde_json::from_str(evidence).unwrap();
            evidence["code"] = json!(code);
            Err(evidence)
        }
    }
}

#[track_caller]
fn check(more: Value, text: &str, stage: Option<&str>) {
    let found = outcome(more, text);
    let found = found.as_ref().err();
    assert_eq!(found.and_then(|evidence| evidence["stage"].as_str()), stage, "{text}: {found:?}");
    if let Some(evidence) = found {
        assert_eq!(evidence["code"], "contaminated");
        assert_eq!((&evidence["benchmark"], &evidence["item"]), (&json!("bench"), &json!("T/1")));
    }
}

/// The solution under other names, without its docstring.
const RENAMED: &str = "# A helper\n```python\ndef f(a, b):\n    c = list(a)\n    for d, e in b:\n        if c[d] > 7:\n            \
    c[d] -= 2\n    return c\n```\n";

#[test]
fn items_are_found_by_words_and_by_shape() {
    check(json!({}), &format!("x\n{PROMPT}{SOLUTION}"), Some("ngrams"));
    check(json!({}), &PROMPT.replace("theatre", "cinema"), Some("ngrams"));
    check(json!({"python": {"min_nodes": 20}}), RENAMED, Some("python"));
    check(json!({"python": {"min_nodes": 20}, "stages": ["ngrams"]}), RENAMED, None);
    check(json!({"python": {"min_nodes": 20}, "stages": ["python"]}), PROMPT, None);
    check(json!({"python": {"min_nodes": 60}}), RENAMED, None);
    check(
        json!({}),
        "Each row of a theatre has a number of seats. Which row is the best one, and why?",
        None,
    );
    check(json!({}), "", None);
}

#[test]
fn the_evidence_has_both_passages() {
    let text = PROMPT.replace("theatre", "cinema").replace('\n', " ");
    let evidence = outcome(json!({}), &format!("Before. {text} After.")).unwrap_err();
    assert!(evidence["text"].as_str().unwrap().contains("row of a cinema"), "{evidence}");
    assert!(evidence["reference"].as_str().unwrap().contains("row of a theatre"), "{evidence}");
    let (score, needed) = (evidence["score"].as_f64().unwrap(), evidence["needed"].as_f64().unwrap());
    assert!(score < 1.0 && score >= needed, "{evidence}");
    let long = outcome(json!({}), &format!("{} {PROMPT}", "word ".repeat(5_000))).unwrap_err();
    assert!(long.to_string().len() < 3_000);
}

#[test]
fn hostile_rows_are_taken() {
    let deep = format!("def f(x):\n    return {}x{}\n", "(".repeat(7_000), ")".repeat(7_000));
    for text in [&deep, &"word ".repeat(300_000), &"\0".repeat(100_000), &"def f():\n".repeat(50_000)] {
        check(json!({}), text, None);
    }
}

#[test]
#[ignore = "needs scripts/minilm.sh"]
fn minilm_finds_items_in_other_words() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/target/models/minilm");
    let embeddings = json!({"embeddings": {"model": format!("{folder}/model.onnx")}});
    let other = "def remaining_places(capacities, tickets):\n    \"\"\"Computes the places that nobody has booked \
        yet, row by row of the hall, from the capacity of every row and all bookings, which are pairs of row and \
        place.\"\"\"\n    counts = {}\n    for ticket in tickets:\n        counts[ticket[0]] = \
        counts.get(ticket[0], 0) + 1\n    return [c - counts.get(i, 0) for i, c in enumerate(capacities)]\n";
    check(json!({}), other, None);
    check(embeddings.clone(), other, Some("embeddings"));
    let evidence = outcome(embeddings.clone(), other).unwrap_err();
    assert_eq!(
        (&evidence["calibration"]["pairs"], &evidence["calibration"]["negatives"]),
        (&json!(22), &json!(56))
    );
    let unrelated = "def to_roman_page(number):\n    \"\"\"Return a page number in Roman numerals.\"\"\"\n    return ''\n";
    check(embeddings.clone(), unrelated, None);
    check(
        fixture::with(embeddings, json!({"stages": ["ngrams", "python"], "embeddings": null})),
        other,
        None,
    );
}

#[track_caller]
fn check_config(config: Value, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("b.jsonl"), "").unwrap();
    let base: &Path = folder.path();
    let columns = [("text".to_owned(), Type::Text), ("n".to_owned(), Type::Integer)].into_iter().collect();
    let found = fixture::checked_in(base, json!({"decontaminate": config}), columns);
    assert_eq!(found.err().unwrap_or_default(), expected);
}

#[test]
fn configs_are_checked() {
    let with = |more: Value| fixture::with(json!({"fields": ["text"], "against": ["b.jsonl"]}), more);
    check_config(with(json!({})), "");
    check_config(with(json!({"fields": []})), "decontaminate.fields: the list of fields is empty");
    check_config(with(json!({"fields": ["n"]})), "decontaminate.fields[0]: `n` is integer, not text");
    check_config(
        with(json!({"against": []})),
        "decontaminate.against: nothing says which benchmarks to look for",
    );
    check_config(with(json!({"against": [{"files": "c.jsonl"}]})), "decontaminate.against[0]: no such file");
    check_config(with(json!({"stages": ["embeddings"]})), "decontaminate.stages: `embeddings` needs a model");
    check_config(
        with(json!({"embeddings": {"model": "m.onnx"}})),
        "decontaminate.embeddings.model: there is no file `m.onnx`",
    );
    check_config(
        with(
            json!({"stages": ["ngrams"], "embeddings": {"model": "b.jsonl", "threshold": 0.5, "false_positives": 0.1}}),
        ),
        "decontaminate.embeddings: `stages` leaves `embeddings` out; decontaminate.embeddings.threshold: `threshold` and \
         `false_positives` exclude each other",
    );
    check_config(
        with(json!({"ngrams": {"size": 1, "coverage": 0, "min_words": 0}, "python": {"rate": 0.4}})),
        "decontaminate.ngrams.size: `size` must be 2 to 50; decontaminate.ngrams.min_words: `min_words` must be at least \
         `size`; decontaminate.ngrams.coverage: `coverage` must be above 0 and at most 1; decontaminate.python.rate: \
         `rate` must be at least 0.5 and at most 1",
    );
}
