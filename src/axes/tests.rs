//! Tests of drawing from axes, through the file's own form.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::*;

fn axes(draw: &Value) -> Axes {
    let file = DrawFile::deserialize(draw).expect("it reads");
    let mut load = |path: &Path, columns: &[String]| {
        let pairs =
            [["recursion", "base case"], ["recursion", "depth"], ["sorting", "merge"], ["sorting", "quick"]];
        let cell = |pair: &[&str; 2], column: &String| Value::from(pair[usize::from(column != "topic")]);
        match path.to_str() {
            Some("pairs.csv") => Ok(pairs
                .iter()
                .map(|pair| columns.iter().map(|column| cell(pair, column)).collect())
                .collect()),
            Some("names.txt") => Ok((0..300).map(|n| vec![Value::from(format!("name_{n}"))]).collect()),
            _ => Err("no such file".to_owned()),
        }
    };
    Axes::build(&file, &mut load).expect("it builds")
}

fn at(ordinal: u64, row: &str) -> DrawAt<'_> {
    DrawAt { seed: 7, epoch: "0", step: "", ordinal, row }
}

fn rows(axes: &Axes, count: u64) -> Vec<Fields> {
    (0..count).map(|n| axes.draw(&at(n, &n.to_string()), &Fields::new()).expect("it draws")).collect()
}

/// Checks what every one of 300 rows must be like.
#[track_caller]
fn check_rows(draw: &Value, is_right: impl Fn(&Fields) -> bool) {
    for row in rows(&axes(draw), 300) {
        assert!(is_right(&row), "{}", Value::Object(row));
    }
}

fn everything() -> Value {
    json!({
        "topic": ["recursion", "sorting"],
        "audience": {"weights": {"student": 3, "analyst": 1}},
        "name": {"from": "names.txt", "replace": false},
        "length": {"between": [100, 500]},
        "share": {"between": [0, 1.0]},
        "grade": {"between": [0, 1], "step": 0.1},
        "subject": {"tree": {"Physics": ["Optics", "Waves"], "Maths": ["Groups"]}, "levels": ["area", "field"]},
        "subtopic": {"from": "pairs.csv", "column": "subtopic", "where": {"topic": "topic"}},
        "features": {"some": ["dialogue", "twist", "moral"], "chance": 0.5},
        "coin": {"chance": 0.5},
        "words": {"from": "names.txt", "count": 2},
        "other": {"values": ["recursion", "sorting"], "not": "topic"},
    })
}

/// Pinned for ever: what a file draws must not change from one version to the next.
#[test]
fn rows_never_change() {
    let expected = [
        json!({
            "topic": "sorting", "audience": "student", "name": "name_58", "length": 353,
            "share": 0.07813828293505654, "grade": 0.1, "area": "Physics", "field": "Waves",
            "subtopic": "quick", "features": ["twist", "moral"], "coin": false,
            "words": ["name_159", "name_129"], "other": "recursion",
        }),
        json!({
            "topic": "recursion", "audience": "student", "name": "name_108", "length": 457,
            "share": 0.5248858560657834, "grade": 0.5, "area": "Physics", "field": "Waves",
            "subtopic": "base case", "features": ["dialogue"], "coin": true,
            "words": ["name_255", "name_226"], "other": "sorting",
        }),
    ];
    let rows: Vec<Value> = rows(&axes(&everything()), 2).into_iter().map(Value::Object).collect();
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row.to_string(), expected.to_string(), "the order of the fields counts, too");
    }
}

#[test]
fn axes_do_not_hang_on_each_others_places() {
    let all = rows(&axes(&everything()), 5);
    let Value::Object(draw) = everything() else { panic!("it is a map") };
    let reversed: Fields = draw.into_iter().rev().chain([("new".to_owned(), json!([1, 2]))]).collect();
    for (mut row, other) in rows(&axes(&Value::Object(reversed)), 5).into_iter().zip(all) {
        assert_eq!(row.keys().next_back().map(String::as_str), Some("new"));
        row.remove("new");
        assert_eq!(row, other);
    }
}

#[test]
fn rows_hang_on_seed_epoch_step_and_key() {
    let axes =
        axes(&json!({"n": {"between": [0, 1_000_000_000]}, "name": {"from": "names.txt", "replace": false}}));
    let base = at(3, "3");
    let draw = |at: DrawAt<'_>| axes.draw(&at, &Fields::new()).expect("it draws");
    assert_eq!(draw(base), draw(at(3, "3")));
    for other in [DrawAt { seed: 8, ..base }, DrawAt { epoch: "1", ..base }, DrawAt { step: "x", ..base }] {
        assert_ne!(draw(other)["n"], draw(base)["n"]);
        assert_ne!(draw(other)["name"], draw(base)["name"], "this may be chance, once in 300");
    }
    assert_ne!(draw(at(3, "4"))["n"], draw(base)["n"]);
    assert_eq!(draw(at(3, "4"))["name"], draw(base)["name"]);
}

#[test]
fn without_replacement_each_value_comes_once() {
    let axes = axes(&json!({"name": {"from": "names.txt", "replace": false}}));
    let names: std::collections::HashSet<String> =
        rows(&axes, 300).iter().map(|row| row["name"].to_string()).collect();
    assert_eq!(names.len(), 300);
    let past = axes.draw(&at(300, "300"), &Fields::new());
    assert_eq!(past, Err(DrawError::Exhausted { axis: "name".to_owned(), values: 300 }));
}

#[test]
fn every_kind_draws_what_it_says() {
    check_rows(&json!({"a": {"between": [3, 9], "step": 3}}), |row| {
        [3, 6, 9].contains(&row["a"].as_i64().unwrap())
    });
    check_rows(&json!({"a": {"between": [-1.5, 0]}}), |row| {
        (-1.5..0.0).contains(&row["a"].as_f64().unwrap())
    });
    check_rows(&json!({"a": {"between": [0, 1], "step": 0.1}}), |row| row["a"].to_string().len() == 3);
    check_rows(&json!({"a": {"tree": {"x": {"y": [1, 2]}}}}), |row| {
        row["a"] == json!(["x", "y", 1]) || row["a"] == json!(["x", "y", 2])
    });
    check_rows(&json!({"a": {"values": [1, 2, 3, 4], "count": [1, 3]}}), |row| {
        (1..=3).contains(&row["a"].as_array().unwrap().len())
    });
    check_rows(&json!({"a": {"from": "pairs.csv", "columns": ["topic", "sub"]}}), |row| {
        (row["topic"] == "sorting") == (row["sub"] == "merge" || row["sub"] == "quick")
    });
}

#[test]
fn axes_follow_the_fields_they_depend_on() {
    let from_file = json!({"from": "pairs.csv", "column": "subtopic", "where": {"topic": "topic"}});
    check_rows(&json!({"sub": from_file, "topic": ["recursion", "sorting"]}), |row| {
        assert_eq!(row.keys().collect::<Vec<_>>(), ["sub", "topic"]);
        (row["topic"] == "sorting") == (row["sub"] == "merge" || row["sub"] == "quick")
    });
    let given = json!({"given": "coin", "of": {"true": ["heads"]}, "else": {"between": [1, 2]}});
    check_rows(&json!({"coin": {"chance": 0.5}, "a": given}), |row| {
        if row["coin"] == true { row["a"] == "heads" } else { row["a"].is_i64() }
    });
    let three = json!({"values": [1, 2, 3], "not": ["a", "b"]});
    check_rows(&json!({"c": three, "b": {"values": [1, 2, 3], "not": "a"}, "a": [1, 2, 3]}), |row| {
        row["a"] != row["b"] && row["b"] != row["c"] && row["a"] != row["c"]
    });
}

/// Checks the error of drawing with a field `t` of the value `x`.
#[track_caller]
fn check_error(draw: &Value, expected: &str) {
    let existing = json!({"t": "x"});
    let error =
        axes(draw).draw(&at(0, "0"), existing.as_object().expect("a map")).expect_err("it cannot draw");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn draws_that_cannot_be() {
    check_error(
        &json!({"a": {"given": "t", "of": {"y": [1]}}}),
        "the axis `a` has nothing to draw when `t` is `x`; add it, or give `else`",
    );
    check_error(
        &json!({"a": {"values": ["x"], "not": "t"}}),
        "the axis `a` should draw 1 different values, but `not` leaves 0",
    );
    check_error(
        &json!({"a": {"values": ["x", "y"], "not": "t", "count": 2}}),
        "the axis `a` should draw 2 different values, but `not` leaves 1",
    );
    check_error(
        &json!({"a": {"values": ["x"], "not": "u"}}),
        "the axis `a` depends on the field `u`, which the row does not have",
    );
}

#[test]
fn a_grid_has_every_combination_once() {
    let draw = json!({
        "level": ["easy", "hard"],
        "subject": {"tree": {"p": ["q"], "r": ["s", "t"]}, "levels": ["area", "field"]},
        "n": {"between": [1, 2]},
    });
    let axes = axes(&draw);
    assert_eq!(axes.cells(), Some(12));
    let cells: Vec<String> =
        (0..12).map(|ordinal| Value::Object(axes.cell(ordinal).expect("a cell")).to_string()).collect();
    assert_eq!(cells[0], r#"{"level":"easy","area":"p","field":"q","n":1}"#);
    assert_eq!(cells[1], r#"{"level":"easy","area":"p","field":"q","n":2}"#);
    assert_eq!(cells[11], r#"{"level":"hard","area":"r","field":"t","n":2}"#);
    assert_eq!(cells.iter().collect::<std::collections::HashSet<_>>().len(), 12);
    assert_eq!(axes.cell(12), Err(DrawError::PastGrid { ordinal: 12 }));
}

#[test]
fn shares_are_as_asked_for() {
    let mut counts: HashMap<String, f64> = HashMap::new();
    let axes = axes(&everything());
    for n in 0..2000 {
        // The ordinal only matters without replacement, where there are 300 values.
        let row = axes.draw(&at(n % 300, &n.to_string()), &Fields::new()).expect("it draws");
        for (name, value) in
            row.iter().filter(|(name, _)| ["audience", "coin", "field"].contains(&name.as_str()))
        {
            *counts.entry(format!("{name} {value}")).or_default() += 1.0 / 2000.0;
        }
    }
    let third = 1.0 / 3.0;
    let expected = [
        (r#"audience "student""#, 0.75),
        (r#"audience "analyst""#, 0.25),
        ("coin true", 0.5),
        (r#"field "Optics""#, third),
        (r#"field "Groups""#, third),
    ];
    for (what, share) in expected {
        assert!((counts[what] - share).abs() < 0.05, "{what}: {counts:?}");
    }
}
