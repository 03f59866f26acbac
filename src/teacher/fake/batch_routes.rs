//! The routes of a fake teacher's batches: which request means what. What batches are is in `batches.rs`.

use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use super::answer::Reply;
use super::batches::{Batches, Item, Shape, items_in, worked};
use super::server::Server;
use crate::clock;

/// What a request about batches asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    PutFile,
    Content(&'a str),
    Make(Shape),
    List(Shape),
    Show(&'a str),
}

impl<'a> Route<'a> {
    pub fn of(method: &Method, path: &'a str) -> Option<Route<'a>> {
        let path = path.strip_prefix("/v1").unwrap_or(path);
        match (method == Method::POST, path) {
            (true, "/files") => return Some(Route::PutFile),
            (true, "/batches") => return Some(Route::Make(Shape::OpenAi)),
            (true, "/messages/batches") => return Some(Route::Make(Shape::Anthropic)),
            (false, "/batches") => return Some(Route::List(Shape::OpenAi)),
            (false, "/messages/batches") => return Some(Route::List(Shape::Anthropic)),
            (true, _) => return None,
            _ => {}
        }
        if let Some(file) = path.strip_prefix("/files/") {
            return file.strip_suffix("/content").map(Route::Content);
        }
        let id = path.strip_prefix("/messages/batches/").or_else(|| path.strip_prefix("/batches/"))?;
        Some(id.strip_suffix("/results").map_or(Route::Show(id), Route::Content))
    }
}

/// The reply to a request about batches.
pub async fn reply(server: &Server, route: Route<'_>, query: &str, body: Bytes) -> io::Result<Reply> {
    let now = clock::now();
    let batches = || server.batches.lock().unwrap_or_else(PoisonError::into_inner);
    let found = match route {
        Route::PutFile => batches().put_file(&body),
        Route::Show(id) => batches().batch(id, now),
        Route::List(shape) => {
            let after = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("after_id=").or(pair.strip_prefix("after=")));
            Some(batches().list(shape, after, now))
        }
        Route::Content(name) => {
            let content = batches().content(name, now);
            return Ok(content.map_or_else(|| unknown(404, "no such results"), Reply::lines));
        }
        Route::Make(shape) => return make(server, shape, &body).await,
    };
    Ok(found.map_or_else(|| unknown(404, "no such file or batch"), |found| Reply::json(&found)))
}

async fn make(server: &Server, shape: Shape, body: &Bytes) -> io::Result<Reply> {
    let batches = || server.batches.lock().unwrap_or_else(PoisonError::into_inner);
    let read = || -> Result<(Vec<Item>, Value), String> {
        match shape {
            Shape::OpenAi => {
                let wanted: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
                let items = batches().items_of(wanted["input_file_id"].as_str().unwrap_or_default())?;
                Ok((items, wanted["metadata"].clone()))
            }
            Shape::Anthropic => Ok((items_in(body)?, json!(null))),
        }
    };
    let (items, metadata) = match read() {
        Ok(read) => read,
        Err(message) => return Ok(unknown(400, &message)),
    };
    let (config, seen) = (server.config().clone(), batches().see(&items));
    let (count, takes) = (items.len() as u64, Duration::from_millis(config.batch_ms));
    let slow = Duration::from_millis(config.batch_create_ms);
    let results = tokio::task::spawn_blocking(move || worked(&config, shape, &items, &seen)).await;
    let results = results.map_err(io::Error::other)?;
    let when = (clock::now(), clock::unix_ms(), takes);
    let made = batches().make(shape, metadata, count, results, when);
    // The batch is there, and its maker does not know yet.
    tokio::time::sleep(slow).await;
    Ok(Reply::json(&made))
}

fn unknown(status: u16, message: &str) -> Reply {
    Reply::error(status, message, "invalid_request_error", None, None)
}

/// Keeps a fake teacher's batches.
pub type SharedBatches = std::sync::Mutex<Batches>;
