//! `textmill new`: starter pipelines that are built into the binary. Never overwrites a file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cli::{Exit, fail, print, say};
use crate::problem::name_hint;

/// A starter: the files of a pipeline, by their paths in its folder.
pub struct Recipe {
    pub name: &'static str,
    pub about: &'static str,
    /// The pipeline file first.
    pub files: &'static [(&'static str, &'static str)],
}

/// The closed list of starters. Their files are those of `pipelines/`, which pass their own tests.
pub const RECIPES: &[Recipe] = &[
    Recipe {
        name: "hello",
        about: "three rows and one question each, against a teacher on this machine",
        files: &[
            ("hello.yaml", include_str!("../../pipelines/hello.yaml")),
            ("templates/greeting.md.j2", include_str!("../../pipelines/templates/greeting.md.j2")),
        ],
    },
    Recipe {
        name: "quickstart",
        about: "short stories by a small real model on this machine; see teachers/ for its set-up",
        files: &[
            ("quickstart.yaml", include_str!("../../pipelines/quickstart.yaml")),
            ("data/verbs.txt", include_str!("../../pipelines/data/verbs.txt")),
            ("data/nouns.txt", include_str!("../../pipelines/data/nouns.txt")),
            ("data/adjectives.txt", include_str!("../../pipelines/data/adjectives.txt")),
            ("templates/short-story.md.j2", include_str!("../../pipelines/templates/short-story.md.j2")),
            ("teachers/smollm2.py", include_str!("../../pipelines/teachers/smollm2.py")),
            ("teachers/requirements.txt", include_str!("../../pipelines/teachers/requirements.txt")),
        ],
    },
    Recipe {
        name: "code-textbook",
        about: "phi-1's synthetic textbook sections: outline, sections, quality, dedup, judge",
        files: &[
            ("code-textbook.yaml", include_str!("../../pipelines/code-textbook.yaml")),
            ("data/python-topics.csv", include_str!("../../pipelines/data/python-topics.csv")),
            ("data/example-settings.txt", include_str!("../../pipelines/data/example-settings.txt")),
            (
                "templates/textbook-audience.md.j2",
                include_str!("../../pipelines/templates/textbook-audience.md.j2"),
            ),
            (
                "templates/textbook-outline.md.j2",
                include_str!("../../pipelines/templates/textbook-outline.md.j2"),
            ),
            (
                "templates/textbook-section.md.j2",
                include_str!("../../pipelines/templates/textbook-section.md.j2"),
            ),
            ("templates/grade-section.md.j2", include_str!("../../pipelines/templates/grade-section.md.j2")),
        ],
    },
    Recipe {
        name: "code-exercises",
        about: "phi-1's function-completion exercises: names without replacement, checks, dedup, judge",
        files: &[
            ("code-exercises.yaml", include_str!("../../pipelines/code-exercises.yaml")),
            ("data/function-names.txt", include_str!("../../pipelines/data/function-names.txt")),
            ("data/python-topics.csv", include_str!("../../pipelines/data/python-topics.csv")),
            (
                "templates/exercise-audience.md.j2",
                include_str!("../../pipelines/templates/exercise-audience.md.j2"),
            ),
            ("templates/code-exercise.md.j2", include_str!("../../pipelines/templates/code-exercise.md.j2")),
            (
                "templates/grade-exercise.md.j2",
                include_str!("../../pipelines/templates/grade-exercise.md.j2"),
            ),
        ],
    },
];

#[derive(clap::Args)]
pub struct Args {
    /// The starter; without it all are listed.
    recipe: Option<String>,
    /// The folder to write to: one of the starter's name by default.
    folder: Option<PathBuf>,
}

pub fn main(args: &Args) -> Exit {
    let Some(name) = &args.recipe else {
        for Recipe { name, about, .. } in RECIPES {
            print(&format!("{name:<16}  {about}\n"));
        }
        return Exit::Done;
    };
    let Some(recipe) = RECIPES.iter().find(|recipe| recipe.name == name) else {
        let hint = name_hint(name, RECIPES.iter().map(|recipe| recipe.name)).unwrap_or_default();
        return fail(format_args!("there is no starter `{name}`\nhint: {hint}"));
    };
    let folder = args.folder.clone().unwrap_or_else(|| PathBuf::from(recipe.name));
    match write(recipe, &folder) {
        Ok(written) => {
            for path in &written {
                print(&format!("{}\n", path.display()));
            }
            if let Some(pipeline) = written.first() {
                say(format_args!("next: textmill test {}", pipeline.display()));
            }
            Exit::Done
        }
        Err(message) => fail(message),
    }
}

/// Writes all files of a starter, or none when one of them is there already.
fn write(recipe: &Recipe, folder: &Path) -> Result<Vec<PathBuf>, String> {
    let paths: Vec<PathBuf> = recipe.files.iter().map(|(path, _)| folder.join(path)).collect();
    let there: Vec<String> = paths
        .iter()
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| format!("`{}`", path.display()))
        .collect();
    if !there.is_empty() {
        let hint = "name another folder; nothing was written";
        return Err(format!("already there: {}\nhint: {hint}", there.join(", ")));
    }
    for (path, (_, contents)) in paths.iter().zip(recipe.files) {
        write_new(path, contents).map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    }
    Ok(paths)
}

fn write_new(path: &Path, contents: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(contents.as_bytes())
}
