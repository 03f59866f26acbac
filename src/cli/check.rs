//! `textmill check`: every problem of a pipeline file at once.

use crate::cli::load::{Loaded, destinations, load};
use crate::cli::{Exit, PipelineArgs, say};
use crate::problem::counted;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Print the problems as JSON to stdout.
    #[arg(long)]
    json: bool,
}

pub fn main(args: &Args) -> Exit {
    let Some(Loaded { pipeline, .. }) = load(&args.pipeline, args.json) else { return Exit::Failed };
    if !args.json {
        let steps = counted(pipeline.steps.len() as u64, "step");
        let columns: Vec<&str> = pipeline.columns.keys().map(String::as_str).collect();
        say(format_args!("{} is sound: {steps}; columns: {}", pipeline.file.name, columns.join(", ")));
        for line in destinations(&pipeline) {
            say(line);
        }
    }
    Exit::Done
}
