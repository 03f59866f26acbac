//! Texts cut into the tokens of a model, by a thread of their own: the tokenizer is bound to one thread, and it
//! takes a hundredth of the time that the model takes.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use anyhow::Context;
use rten_text::tokenizer::{EncodeOptions, Encoded};
use rten_text::{TokenId, Tokenizer};

/// A handle to the thread; it ends when the handle is dropped.
pub struct Tokens {
    asked: Sender<Job>,
}

struct Job {
    text: String,
    answer: SyncSender<anyhow::Result<Vec<Vec<TokenId>>>>,
}

impl Tokens {
    /// Reads a `tokenizer.json`. A window has at most `window` tokens, those that mark its ends included.
    pub fn start(json: String, window: usize) -> anyhow::Result<Tokens> {
        let (asked, jobs) = channel();
        let (opened, opens) = sync_channel(1);
        thread::Builder::new().name("tokenizer".to_owned()).spawn(move || {
            let read = Tokenizer::from_json(&json).map_err(|error| anyhow::anyhow!("{error}"));
            drop(json);
            let (tokenizer, answer) = match read {
                Ok(tokenizer) => (Some(tokenizer), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // Nobody waits any more: then nobody asks either.
            let _ = opened.send(answer);
            if let Some(tokenizer) = tokenizer {
                work(&tokenizer, window, &jobs);
            }
        })?;
        opens.recv().context("the tokenizer's thread has ended")??;
        Ok(Tokens { asked })
    }

    /// The tokens of each window of a text; at least one window, which may hold nothing but its ends.
    pub fn windows(&self, text: &str) -> anyhow::Result<Vec<Vec<TokenId>>> {
        let (answer, answers) = sync_channel(1);
        self.asked.send(Job { text: text.to_owned(), answer }).context("the tokenizer's thread has ended")?;
        answers.recv().context("the tokenizer's thread has ended")?
    }
}

fn work(tokenizer: &Tokenizer, window: usize, jobs: &Receiver<Job>) {
    while let Ok(Job { text, answer }) = jobs.recv() {
        let _ = answer.send(windows(tokenizer, window, &text));
    }
}

fn windows(tokenizer: &Tokenizer, window: usize, text: &str) -> anyhow::Result<Vec<Vec<TokenId>>> {
    let options = EncodeOptions { max_chunk_len: Some(window), ..EncodeOptions::default() };
    let windows = tokenizer
        .encode_chunks(text.into(), options)
        .map_err(|error| anyhow::anyhow!("cannot cut a text into tokens: {error}"))?;
    let mut windows: Vec<Vec<TokenId>> = windows.into_iter().map(Encoded::into_token_ids).collect();
    if windows.is_empty() {
        let nothing = tokenizer.encode("", None);
        let nothing =
            nothing.map_err(|error| anyhow::anyhow!("the tokenizer fails on an empty text: {error}"))?;
        windows.push(nothing.into_token_ids());
    }
    Ok(windows)
}
