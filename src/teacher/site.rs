//! The way to one endpoint of a teacher: its limits, its connections, the names that it goes by.
//!
//! Sends a request once and reads what came. Whether it is asked at all is decided in `pool.rs`; no retries, no
//! money, no store.

use std::sync::Arc;
#[cfg(test)]
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::api::Api;
use super::cache::CachePoint;
use super::cassette::Carrier;
use super::format::{self, ApiFormat};
use super::gate::Gate;
use super::http::RawReply;
use super::process::Serving;
use super::scripted::Script;
use super::wire::AskedBy;
use super::{Fault, Reply};
use crate::clock;

/// How an endpoint is reached.
pub enum Wire {
    /// Over HTTP, or from a cassette.
    Carried(Carrier),
    /// From the replies of a pipeline's test.
    Scripted(Arc<Script>),
    /// From a test's own hands: what comes, and after how long.
    #[cfg(test)]
    Weather(Weather),
}

#[cfg(test)]
pub type Weather = Box<dyn Fn() -> (Duration, Result<RawReply, Fault>) + Send + Sync>;

/// One endpoint, ready to be asked.
pub struct Site {
    /// What reports call it.
    pub name: String,
    /// The URL that serves its calls.
    pub url: String,
    pub gate: Gate,
    /// Its share of the calls while more than one endpoint has room.
    pub weight: f64,
    /// The limits of the file, as [`Site::limits_in_effect`] says them.
    limits: String,
    format: ApiFormat,
    /// As it is read by: its model is the one that call keys know.
    api: Api,
    /// The name that this endpoint knows the model by.
    model: String,
    wire: Wire,
    serving: Option<Serving>,
}

/// What the way to an endpoint is made of.
pub struct SiteParts {
    pub name: String,
    pub gate: Gate,
    pub weight: f64,
    /// As this endpoint has it.
    pub api: Api,
    pub wire: Wire,
    /// The server that a run started for it.
    pub serving: Option<Serving>,
}

impl Site {
    /// An endpoint of a teacher whose model is called `model` in call keys.
    pub fn new(parts: SiteParts, format: ApiFormat, model: &str) -> Site {
        let SiteParts { name, gate, weight, api, wire, serving } = parts;
        let (url, limits) = (api.endpoint_url(format), gate.snapshot().words());
        let (asked_for, api) = (api.model.clone(), Api { model: model.to_owned(), ..api });
        Site { name, url, gate, weight, limits, format, api, model: asked_for, wire, serving }
    }

    /// Whether a server answers, and not a file.
    pub fn is_live(&self) -> bool {
        matches!(self.wire, Wire::Carried(Carrier::Http(_) | Carrier::Recorded(..)))
    }

    /// The limits by now, where they are others than at the start.
    pub fn limits_learned(&self) -> Option<String> {
        Some(self.gate.snapshot().words()).filter(|words| *words != self.limits)
    }

    /// Sends a request once; `body` is the canonical one, and others begin alike up to `cache`.
    pub async fn send(
        &self,
        asked_by: &AskedBy,
        body: &Bytes,
        cache: Option<CachePoint>,
    ) -> Result<Reply, Fault> {
        let raw = match &self.wire {
            Wire::Carried(carrier) => self.carry(carrier, self.dressed(body, cache)).await?,
            Wire::Scripted(script) => script.reply_to(asked_by, self.format, &self.api.model)?,
            #[cfg(test)]
            Wire::Weather(weather) => {
                let (after, reply) = weather();
                tokio::time::sleep(after).await;
                reply?
            }
        };
        let status = raw.status;
        format::reply(self.format, &self.api, raw, clock::unix_ms()).map_err(|fault| match fault {
            Fault::Fatal { message } if self.is_live() => {
                Fault::Fatal { message: message + &self.key_named(status) }
            }
            other => other,
        })
    }

    /// The body as it is sent to this endpoint.
    fn dressed(&self, body: &Bytes, cache: Option<CachePoint>) -> Bytes {
        let wire = self.format.wire();
        let renamed = self.model != self.api.model;
        let mark = cache.filter(|_| wire.marks_cache());
        if !renamed && mark.is_none() && !wire.dresses(&self.api) {
            return body.clone();
        }
        let Ok(Value::Object(mut sent)) = serde_json::from_slice(body) else { return body.clone() };
        if let Some(model) = sent.get_mut("model").filter(|_| renamed) {
            *model = Value::from(self.model.as_str());
        }
        wire.dress(&self.api, &mut sent);
        if let Some(point) = mark {
            wire.mark_cache(&mut sent, point);
        }
        Bytes::from(Value::Object(sent).to_string())
    }

    /// Where to look when a server wants another key, or nothing more of this one.
    fn key_named(&self, status: u16) -> String {
        match (&self.api.key_env, status) {
            (Some(name), _) => format!("; the key is in `{name}`"),
            (None, 401) if self.api.env_names().is_empty() => {
                "; no key was sent: the teacher has no `key_env`".to_owned()
            }
            (None, _) => String::new(),
        }
    }

    /// Resolves when a server of ours does not serve: what is in flight waits for its next life.
    pub async fn down(&self) {
        match &self.serving {
            Some(serving) => serving.down().await,
            None => std::future::pending().await,
        }
    }

    /// Posts a request. One that the end of a server of ours left without a reply goes to its next life: that
    /// is no attempt of the call, and nobody bills it.
    async fn carry(&self, carrier: &Carrier, body: Bytes) -> Result<RawReply, Fault> {
        let Some(serving) = &self.serving else { return carrier.post(body).await };
        loop {
            let life = serving.up().await.map_err(|message| Fault::Fatal { message })?;
            match carrier.post(body.clone()).await {
                Err(Fault::Transient { code: "connection" | "cut_reply", .. })
                    if serving.ended(life).await => {}
                sent => return sent,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teacher::gate::{Limits, PATIENCE_DEFAULT};
    use serde_json::json;

    /// What is sent of a canonical body to an endpoint that knows model `m` by this name.
    #[track_caller]
    fn check(format: ApiFormat, name: &str, stream: bool, expected: &Value) {
        let wire = Wire::Scripted(Arc::new(Script::new([])));
        let gate = Gate::new(Limits::default(), PATIENCE_DEFAULT);
        let api = Api { url: "http://h/v1".to_owned(), stream, ..Api::named(name) };
        let parts = SiteParts { name: "a".to_owned(), gate, weight: 1.0, api, wire, serving: None };
        let site = Site::new(parts, format, "m");
        let body = Bytes::from(json!({"model": "m", "t": 0.1}).to_string());
        assert_eq!(serde_json::from_slice::<Value>(&site.dressed(&body, None)).unwrap(), *expected);
        assert!(format != ApiFormat::Gemini || site.url.contains(name), "{}", site.url);
    }

    #[test]
    fn an_endpoint_is_asked_for_the_model_by_its_own_name() {
        check(ApiFormat::Openai, "m", false, &json!({"model": "m", "t": 0.1}));
        check(ApiFormat::Openai, "acme/m", false, &json!({"model": "acme/m", "t": 0.1}));
        check(ApiFormat::Anthropic, "acme/m", true, &json!({"model": "acme/m", "t": 0.1, "stream": true}));
        check(ApiFormat::Gemini, "m-latest", false, &json!({"t": 0.1}));
    }
}
