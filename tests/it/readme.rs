//! Whatever the README shows is run: its pipeline, its commands, its table of operators.

use std::fs;
use std::path::Path;

use crate::workspace::{FakeTeacher, Workspace};

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The fenced blocks of a language, in order.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn its_pipeline_and_its_commands_do_what_they_say() {
    let text = readme();
    let workspace = Workspace::new();
    let pipeline = &blocks(&text, "yaml")[0];
    let teacher = FakeTeacher::start(&[]);
    assert!(pipeline.contains("http://127.0.0.1:8130/v1"));
    workspace.write("lessons.yaml", &pipeline.replace("http://127.0.0.1:8130/v1", &teacher.url));
    let commands: Vec<String> = blocks(&text, "sh")
        .concat()
        .lines()
        .filter(|line| line.starts_with("textmill "))
        .map(str::to_owned)
        .collect();
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        let words: Vec<&str> = command.split('#').next().unwrap().split_whitespace().skip(1).collect();
        let said = workspace.run(&words);
        assert_eq!(said.code, Some(0), "{command}\n{}\n{}", said.stdout, said.stderr);
    }
}

#[test]
fn its_pool_is_sound_and_goes_on_without_an_endpoint() {
    let blocks = blocks(&readme(), "yaml");
    let workspace = Workspace::new();
    let teacher = FakeTeacher::start(&[]);
    let (head, rest) = blocks[0].split_once("teachers:").unwrap();
    let (_, rest) = rest.split_once("\nbudget:").unwrap();
    let pipeline = format!("{head}{}\nbudget:{rest}", blocks[1]);
    // The other endpoint is not there.
    let pipeline = pipeline.replace("http://127.0.0.1:8130/v1", &teacher.url).replace(":8131/", ":1/");
    workspace.write("lessons.yaml", &pipeline);
    workspace.run(&["check", "lessons.yaml"]).ended(0).says(&["`spare` on 127.0.0.1"]);
    workspace.run(&["run", "lessons.yaml"]).ended(0).says(&["teacher `writer` at `spare`: 0 calls"]);
}

#[test]
fn its_table_lists_every_operator() {
    let text = readme();
    for (name, source) in textmill::ops::OPERATORS {
        let title = source.lines().next().unwrap().trim_start_matches("//! ");
        let (_, about) = title.split_once(": ").unwrap();
        let line = format!("| `{name}` | {about} |");
        assert!(text.contains(&line), "README.md lacks the line\n{line}");
    }
}

#[test]
fn its_links_lead_somewhere() {
    let text = readme();
    for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(link);
        assert!(link.starts_with("http") || path.exists(), "README.md links to {link}");
    }
}
