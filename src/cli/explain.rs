//! `textmill explain`: an operator's doc, or the list of all operators.

use crate::cli::{Exit, fail, print};
use crate::ops::{self, OPERATORS};
use crate::problem::name_hint;

#[derive(clap::Args)]
pub struct Args {
    /// The operator's key in a pipeline file; without it all are listed.
    operator: Option<String>,
}

pub fn main(args: &Args) -> Exit {
    let Some(name) = &args.operator else {
        print(&list());
        return Exit::Done;
    };
    match ops::doc(name) {
        Some(doc) => {
            print(&format!("{doc}\n"));
            Exit::Done
        }
        None => {
            let hint = name_hint(name, OPERATORS.iter().map(|(name, _)| *name)).unwrap_or_default();
            fail(format_args!("there is no operator `{name}`\nhint: {hint}"))
        }
    }
}

/// Each operator with the first line of its doc, which begins with its name.
fn list() -> String {
    let width = OPERATORS.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |name: &str| {
        let doc = ops::doc(name).unwrap_or_default();
        let title = doc.lines().next().unwrap_or_default().to_owned();
        let about = title.strip_prefix(&format!("`{name}`: ")).unwrap_or(&title);
        format!("{name:<width$}  {about}\n")
    };
    OPERATORS.iter().map(|(name, _)| line(name)).collect()
}
