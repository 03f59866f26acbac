//! `textmill teacher`: serves the fake teacher on loopback until it is interrupted.

use crate::cli::{Exit, fail, print, runtime, say};
use crate::teacher::fake::{self, FakeConfig};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: FakeConfig,
}

pub fn main(args: Args) -> Exit {
    if let Some(problem) = args.config.problem() {
        return fail(problem);
    }
    let served = runtime().and_then(|runtime| {
        runtime.block_on(async {
            let running = fake::start(args.config).await?;
            print(&format!("{}\n", running.url()));
            say("serving a fake teacher; Ctrl-C stops it");
            tokio::signal::ctrl_c().await
        })
    });
    match served {
        Ok(()) => Exit::Done,
        Err(error) => fail(format_args!("the teacher cannot serve: {error}")),
    }
}
