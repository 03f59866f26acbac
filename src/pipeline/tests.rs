//! What a user sees of each kind of problem, from the bytes of a file to the text in the terminal.

#![expect(dead_code, reason = "the structs are only there to be read into")]

use super::render::{SourceMap, render};
use super::{
    decode::{Decoded, decode},
    set::apply_set,
    yaml,
};
use crate::problem::{KeyPath, Place, Problem};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    rows: u32,
    #[serde(default)]
    teachers: BTreeMap<String, Teacher>,
    #[serde(default)]
    steps: Vec<Step>,
    save: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Teacher {
    model: String,
    max_tokens: u64,
    temperature: Option<f64>,
    #[serde(default)]
    stream: bool,
    timeout: Option<Timeout>,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Timeout(std::time::Duration);

impl TryFrom<String> for Timeout {
    type Error = String;
    fn try_from(text: String) -> Result<Timeout, String> {
        humantime::parse_duration(&text)
            .map(Timeout)
            .map_err(|_| format!("`{text}` is no duration\nhint: write `90s` or `5m`"))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Generate(Generate),
    KeepIf(String),
    Split { on: Separator, max: i8 },
    Shuffle,
}

#[derive(Debug, Deserialize)]
struct Generate {
    teacher: String,
    prompt: String,
    scale: Option<(u8, u8)>,
    stop: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Separator {
    Lines,
    Words,
}

/// What a user sees of a file: its own problems, and `more` that a later check might find.
pub(super) fn shown(bytes: &[u8], sets: &[&str], more: &[Problem]) -> String {
    let loaded = yaml::load(bytes);
    let mut root = loaded.root;
    let mut problems = loaded.problems;
    if let Some(root) = &mut root {
        let set = |(index, argument): (usize, &&str)| apply_set(root, argument, index).err();
        problems.extend(sets.iter().enumerate().filter_map(set).map(|problem| *problem));
        let Decoded { value, problems: found, doubts } = decode::<File>(root, &KeyPath::root());
        assert_eq!(doubts.is_empty(), found.is_empty(), "there are doubts where there are problems");
        assert!(value.is_some() || !found.is_empty(), "there is a value or there are problems");
        problems.extend(found);
    }
    problems.extend_from_slice(more);
    let overrides: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let line_of = |_: &std::path::Path, line| (line == 2).then(|| "Write {{ topc }}".to_owned());
    let sources = SourceMap { name: "x.yaml", text: &loaded.text, overrides: &overrides, line_of: &line_of };
    render(&problems, root.as_ref(), &sources, false)
}

/// The text is one of a file: bytes, so that it need not be UTF-8.
#[track_caller]
pub(super) fn check(bytes: &[u8], sets: &[&str], expected: &str) {
    let shown = shown(bytes, sets, &[]);
    assert_eq!(shown, expected.strip_prefix('\n').unwrap_or(expected), "\n{shown}");
}

#[test]
fn duplicate_keys() {
    check(
        b"name: a\nrows: 1\nname: b\n",
        &[],
        r#"
error: duplicate key `name`
 --> x.yaml:3:1
  |
3 | name: b
  | ^^^^
  |
  = cause: it is given on line 1 already

1 problem in x.yaml
"#,
    );
}

#[test]
fn anchors_aliases_tags_and_merge_keys_are_refused() {
    check(
        b"a: &a [x]\nb: *a\n",
        &[],
        r#"
error: `&a` is an anchor, and these are not read
 --> x.yaml:1:4
  |
1 | a: &a [x]
  |    ^^
  |
  = hint: write the value out where it is used

error: `*a` is an alias, and these are not read
 --> x.yaml:2:4
  |
2 | b: *a
  |    ^^
  |
  = hint: write the value out where it is used

2 problems in x.yaml
"#,
    );
    check(
        b"name: !x a\nrows: 1\n<<: { rows: 2 }\n",
        &[],
        r#"
error: `!x` is a tag, and these are not read
 --> x.yaml:1:7
  |
1 | name: !x a
  |       ^^
  |
  = hint: remove it; put text that begins with `!` in quotes

error: `<<` would merge another map, and merge keys are not read
 --> x.yaml:3:1
  |
3 | <<: { rows: 2 }
  | ^^
  |
  = hint: write the keys out

2 problems in x.yaml
"#,
    );
}

#[test]
fn keys_are_text() {
    check(
        b"name: a\nrows: 1\n1: 2\n[a]: 2\n",
        &[],
        r#"
error: the key `1` is not text
 --> x.yaml:3:1
  |
3 | 1: 2
  | ^
  |
  = hint: put it in quotes: `"1":`

error: a list or a map cannot be a key
 --> x.yaml:4:1
  |
4 | [a]: 2
  | ^^^
  |
  = hint: put text that begins with `[` or `{` in quotes: `"{{ field }}"`

2 problems in x.yaml
"#,
    );
}

#[test]
fn encodings() {
    check(
        b"\xEF\xBB\xBFnam: a\nrows: 1\n",
        &[],
        r#"
error: `nam` is not a key of the file
 --> x.yaml:1:1
  |
1 | nam: a
  | ^^^
  |
  = hint: did you mean `name`?

1 problem in x.yaml
"#,
    );
    check(
        b"\xFF\xFEn\0",
        &[],
        r#"
error: the file is UTF-16, not UTF-8
--> x.yaml:1:1
 = hint: save it as UTF-8

1 problem in x.yaml
"#,
    );
    check(
        b"name: \xE9\n",
        &[],
        r#"
error: byte 0xE9 is not UTF-8
 --> x.yaml:1:7
  |
1 | name: �
  |       ^
  |
  = hint: save the file as UTF-8

1 problem in x.yaml
"#,
    );
}

#[test]
fn control_characters_are_refused_and_never_shown() {
    check(
        b"name: a\0\nrows: \x1B[31m\n",
        &[],
        r#"
error: the control character U+0000 cannot be in the file
 --> x.yaml:1:8
  |
1 | name: a␀
  |        ^
  |
  = hint: if it is meant, write `\u0000` in a text in double quotes

error: the control character U+001B cannot be in the file
 --> x.yaml:2:7
  |
2 | rows: ␛[31m
  |       ^
  |
  = hint: if it is meant, write `\u001b` in a text in double quotes

2 problems in x.yaml
"#,
    );
    check(
        b"name: \xC2\x9B31m\n",
        &[],
        r#"
error: the control character U+009B cannot be in the file
 --> x.yaml:1:7
  |
1 | name: �31m
  |       ^
  |
  = hint: if it is meant, write `\u009b` in a text in double quotes

1 problem in x.yaml
"#,
    );
}

#[test]
fn empty_files_and_second_documents() {
    check(
        b"",
        &[],
        r#"
error: the file is empty
--> x.yaml:1:1

1 problem in x.yaml
"#,
    );
    check(
        b"---\nname: a\nrows: 1\n---\nb: 1\n",
        &[],
        r#"
error: a second document begins here
 --> x.yaml:4:1
  |
4 | ---
  | ^^^
  |
  = hint: a pipeline file is one document: remove this `---`

1 problem in x.yaml
"#,
    );
}

#[test]
fn tabs_do_not_indent() {
    check(
        b"name: a\nsave:\n\ta: 1\n",
        &[],
        r#"
error: a tab cannot indent a line of YAML
 --> x.yaml:3:1
  |
3 |     a: 1
  | ^^^^
  |
  = hint: indent with spaces

1 problem in x.yaml
"#,
    );
}

#[test]
fn broken_yaml() {
    check(
        b"save: [1, 2\n",
        &[],
        r#"
error: the list in brackets is not closed, or a comma is missing before this
 --> x.yaml:1:12
  |
1 | save: [1, 2
  |            ^
  |
  = hint: check the brackets, braces and commas on this line and above it

1 problem in x.yaml
"#,
    );
    check(
        b"name: a: b\n",
        &[],
        r#"
error: a `:` cannot be here: a value has begun already
 --> x.yaml:1:8
  |
1 | name: a: b
  |        ^
  |
  = hint: put text that holds `: ` in quotes; begin the keys of one map in the same column

1 problem in x.yaml
"#,
    );
    check(
        b"name: 'foo\nrows: 1\n",
        &[],
        r#"
error: this quoted text is not closed, or goes on without indentation
 --> x.yaml:1:7
  |
1 | name: 'foo
  |       ^
  |
  = hint: close it with the quote it began with

1 problem in x.yaml
"#,
    );
}

#[test]
fn broken_lines() {
    check(
        b"name: a\nrows 1\n",
        &[],
        r#"
error: this is not a `key: value` pair
 --> x.yaml:2:7
  |
2 | rows 1
  |       ^
  |
  = hint: a key is followed by `:` and a space; keys of one map begin in the same column

1 problem in x.yaml
"#,
    );
    check(
        b"  name: a\nrows: 1\n",
        &[],
        r#"
error: this line does not belong to what is above it
 --> x.yaml:2:1
  |
2 | rows: 1
  | ^
  |
  = hint: a key is followed by `:` and a space; keys of one map begin in the same column

1 problem in x.yaml
"#,
    );
}

#[test]
fn many_problems_at_once() {
    check(b"name: 4.1\nrows: -5\nteachers:\n  w:\n    modl: \xC3\xA9\n    max_tokens: lots\n    stream: yes\n    timeout: 5x\n    temperature: '5'\n  v: { max_tokens: 2M }\n", &[], r#"
error: `name` must be text, not the number `4.1`
 --> x.yaml:1:7
  |
1 | name: 4.1
  |       ^^^
  |
  = hint: put it in quotes

error: `rows` must be at least 0, not the number `-5`
 --> x.yaml:2:7
  |
2 | rows: -5
  |       ^^

error: `modl` is not a key of `w`
 --> x.yaml:5:5
  |
5 |     modl: é
  |     ^^^^
  |
  = hint: did you mean `model`?

error: `max_tokens` must be a whole number, not the text `lots`
 --> x.yaml:6:17
  |
6 |     max_tokens: lots
  |                 ^^^^

error: `stream` must be `true` or `false`, not the text `yes`
 --> x.yaml:7:13
  |
7 |     stream: yes
  |             ^^^
  |
  = hint: write `true`

error: `timeout`: `5x` is no duration
 --> x.yaml:8:14
  |
8 |     timeout: 5x
  |              ^^
  |
  = hint: write `90s` or `5m`

error: `temperature` must be a number, not the text `5`
 --> x.yaml:9:18
  |
9 |     temperature: '5'
  |                  ^^^
  |
  = hint: remove the quotes

error: missing key `model`
  --> x.yaml:10:3
   |
10 |   v: { max_tokens: 2M }
   |   ^
   |
   = hint: `v` takes `model`, `max_tokens`, `temperature`, `stream` and `timeout`

8 problems in x.yaml
"#);
}

#[test]
fn problems_of_steps() {
    check(
        b"rows: 5000000000\nsteps:\n  - generate: {}\n  - shufle\n  - split: { on: line, max: 1_000 }\n",
        &[],
        r#"
error: missing key `name`
 --> x.yaml:1:1
  |
1 | rows: 5000000000
  | ^
  |
  = hint: the file takes `name`, `rows`, `teachers`, `steps` and `save`

error: `rows` must be at most 4294967295, not the number `5000000000`
 --> x.yaml:1:7
  |
1 | rows: 5000000000
  |       ^^^^^^^^^^

error: missing key `teacher`
 --> x.yaml:3:5
  |
3 |   - generate: {}
  |     ^^^^^^^^
  |
  = hint: `generate` takes `teacher`, `prompt`, `scale` and `stop`

error: missing key `prompt`
 --> x.yaml:3:5
  |
3 |   - generate: {}
  |     ^^^^^^^^
  |
  = hint: `generate` takes `teacher`, `prompt`, `scale` and `stop`

error: `shufle` is not a choice for `steps[1]`
 --> x.yaml:4:5
  |
4 |   - shufle
  |     ^^^^^^
  |
  = hint: did you mean `shuffle`?

error: `line` is not a choice for `on`
 --> x.yaml:5:18
  |
5 |   - split: { on: line, max: 1_000 }
  |                  ^^^^
  |
  = hint: did you mean `lines`?

error: `max` must be at most 127, not the number `1_000`
 --> x.yaml:5:29
  |
5 |   - split: { on: line, max: 1_000 }
  |                             ^^^^^

7 problems in x.yaml
"#,
    );
}

#[test]
fn problems_of_lists_and_choices() {
    check(
        b"
name: a
rows: 1
steps:
  - { a: 1, b: 2 }
  - generate: { teacher: a, prompt: b, scale: [1, 2, 3], stop: x }
  - keep_if
  -
",
        &[],
        r#"
error: `steps[0]` must be a map with one key, not with 2
 --> x.yaml:5:5
  |
5 |   - { a: 1, b: 2 }
  |     ^^^^^^^^^^^^^^
  |
  = hint: the key is one of `generate`, `keep_if`, `split` and `shuffle`

error: `scale` must be a list of 2 values, not of 3
 --> x.yaml:6:47
  |
6 |   - generate: { teacher: a, prompt: b, scale: [1, 2, 3], stop: x }
  |                                               ^^^^^^^^^

error: `stop` must be a list, not the text `x`
 --> x.yaml:6:64
  |
6 |   - generate: { teacher: a, prompt: b, scale: [1, 2, 3], stop: x }
  |                                                                ^
  |
  = hint: put it in brackets: `[…]`

error: `steps[2]`: `keep_if` needs a value
 --> x.yaml:7:5
  |
7 |   - keep_if
  |     ^^^^^^^
  |
  = hint: write `keep_if: …`

error: `steps[3]` must be `generate`, `keep_if`, `split` or `shuffle`, not empty
 --> x.yaml:8:4
  |
8 |   -
  |    ^

5 problems in x.yaml
"#,
    );
}

#[test]
fn the_root_is_a_map() {
    check(
        b"- a\n",
        &[],
        r#"
error: the file must be a map, not a list
 --> x.yaml:1:1
  |
1 | - a
  | ^^^
  |
  = hint: its keys are `name`, `rows`, `teachers`, `steps` and `save`

1 problem in x.yaml
"#,
    );
}

#[test]
fn overrides() {
    check(
        b"name: a\nrows: 1\n",
        &["rows=lots", "nme.x=2", "rows", "name=[1"],
        r#"
error: `rows` must be a whole number, not the text `lots`
--> --set rows=lots

error: the list in brackets is not closed, or a comma is missing before this
--> --set name=[1
 = hint: check the brackets, braces and commas on this line and above it

error: the file has no key `nme`
--> --set nme.x=2
 = hint: did you mean `name`?

error: `rows` has no `=`
--> --set rows
 = hint: write `--set path.to.key=value`

4 problems in x.yaml
"#,
    );
}

#[test]
fn problems_of_later_checks() {
    let inside = Place::Inside(KeyPath::parse("save.text"), 9..13);
    let file = |line, column| Place::File { path: "a.j2".into(), line, column };
    let more = [
        Problem::error(file(Some(2), Some(10)), "`topc` is not a field").hint("did you mean `topic`?"),
        Problem::error(inside, "`gone` is not a field").cause("one").cause("two"),
        Problem::error(file(Some(3), Some(10)), "this line cannot be shown"),
        Problem::error(file(None, None), "nor this one"),
        Problem::warning(Place::Nowhere, "no sandbox"),
        Problem::error(Place::Value(KeyPath::parse("save.x.y")), "this is not there"),
    ];
    let file = b"name: a\nrows: 1\nsave:\n  text: |\n    Topic\n    {{ gone }}\n";
    let shown = shown(file, &[], &more);
    let expected = r#"error: this is not there
 --> x.yaml:3:1
  |
3 | save:
  | ^^^^

error: `gone` is not a field
 --> x.yaml:6:8
  |
6 |     {{ gone }}
  |        ^^^^
  |
  = cause: one
  = cause: two

error: nor this one
--> a.j2

error: `topc` is not a field
 --> a.j2:2:10
  |
2 | Write {{ topc }}
  |          ^
  |
  = hint: did you mean `topic`?

error: this line cannot be shown
--> a.j2:3:10

warning: no sandbox

6 problems in x.yaml
"#;
    assert_eq!(shown, expected, "\n{shown}");
}
