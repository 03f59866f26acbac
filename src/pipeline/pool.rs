//! The endpoints that a teacher is asked at: those of its `pool:`, each with what it does not say taken from the
//! teacher's API, or that API alone.
//!
//! Structs and their checks. Opens no connection.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::pipeline::file::{LimitsFile, TeacherFile};
use crate::problem::{KeyPath, Place, Problem};
use crate::teacher::api::Api;
use crate::teacher::format::ApiFormat;
use crate::teacher::setting::Setting;

/// One endpoint of a pool. What it does not say is as the teacher's API has it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "endpoint", deny_unknown_fields)]
pub struct EndpointFile {
    /// What reports call it: its host by default.
    pub name: Option<String>,
    /// The address of the server up to and with its version.
    pub url: Option<String>,
    /// The model's name, as this endpoint knows it. It only changes what is sent: answers are found under the
    /// teacher's `model` and `identity`, whichever endpoint gave them.
    pub model: Option<String>,
    /// The name of the environment variable that holds the key for this endpoint.
    pub key_env: Option<String>,
    /// More headers for this endpoint. They are not part of call keys.
    #[serde(default)]
    pub headers: BTreeMap<String, Setting>,
    /// The URL of an HTTP proxy.
    pub proxy: Option<String>,
    /// A PEM file of certificate authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// What this endpoint allows. What it does not say is as in the teacher's `limits`.
    #[serde(default)]
    pub limits: LimitsFile,
    /// Its share of the calls while more than one endpoint has room: 1 by default. A run with more to ask than
    /// there is room for fills all of them.
    #[serde(default = "weight")]
    pub weight: f64,
}

fn weight() -> f64 {
    1.0
}

/// An endpoint, with all that it says and all that it takes over.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What reports call it.
    pub name: String,
    pub format: ApiFormat,
    pub api: Api,
    pub limits: LimitsFile,
    pub weight: f64,
    /// Its entry in the pool, and the keys of the API that it says itself.
    entry: Option<(usize, Vec<KeyPath>)>,
}

impl TeacherFile {
    /// The endpoints that are asked; none for recorded traffic.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let Some((format, api)) = self.api() else { return Vec::new() };
        let Some(pool) = &self.pool else {
            let (api, limits) = (api.clone(), self.limits);
            return vec![Endpoint {
                name: api.host_and_port(),
                format,
                api,
                limits,
                weight: 1.0,
                entry: None,
            }];
        };
        let entries = pool.iter().enumerate();
        let mut endpoints: Vec<Endpoint> =
            entries.map(|(index, entry)| entry.endpoint(index, format, api, self.limits)).collect();
        let names: Vec<String> = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
        for (index, endpoint) in endpoints.iter_mut().enumerate() {
            let alike = names.iter().filter(|name| **name == endpoint.name).count();
            if alike > 1 && pool[index].name.is_none() {
                endpoint.name = format!("{} #{}", endpoint.name, index + 1);
            }
        }
        endpoints
    }
}

impl EndpointFile {
    fn endpoint(&self, index: usize, format: ApiFormat, base: &Api, limits: LimitsFile) -> Endpoint {
        let mut api = base.clone();
        let mut said = Vec::new();
        let mut say = |key: &str| said.push(KeyPath::root().join(key));
        if let Some(url) = &self.url {
            api.url.clone_from(url);
            say("url");
        }
        if let Some(model) = &self.model {
            api.model.clone_from(model);
            say("model");
        }
        for (key, own, taken_over) in
            [("key_env", &self.key_env, &mut api.key_env), ("proxy", &self.proxy, &mut api.proxy)]
        {
            if own.is_some() {
                taken_over.clone_from(own);
                say(key);
            }
        }
        if self.ca_file.is_some() {
            api.ca_file.clone_from(&self.ca_file);
            say("ca_file");
        }
        for (name, setting) in &self.headers {
            api.headers.retain(|other, _| !other.eq_ignore_ascii_case(name));
            api.headers.insert(name.clone(), setting.clone());
            said.push(KeyPath::root().join("headers").join(name.as_str()));
        }
        let name = self.name.clone().unwrap_or_else(|| api.host_and_port());
        let limits = self.limits.or(limits);
        Endpoint { name, format, api, limits, weight: self.weight, entry: Some((index, said)) }
    }
}

impl Endpoint {
    /// A problem of its API, placed where that is written.
    pub fn placed(&self, problem: Problem) -> Problem {
        let under = match (&self.entry, &problem.place) {
            (Some((index, said)), Place::Value(path) | Place::Key(path))
                if said.iter().any(|key| path.0.starts_with(&key.0)) =>
            {
                at_entry(*index)
            }
            _ => KeyPath::parse(self.format.wire().name()),
        };
        problem.below(&under)
    }
}

fn at_entry(index: usize) -> KeyPath {
    KeyPath::parse("pool").join(index)
}

/// Everything wrong with the endpoints of a teacher, at paths below it.
pub fn problems(teacher: &TeacherFile) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(pool) = &teacher.pool {
        problems.extend(whole(teacher, pool));
        for (index, entry) in pool.iter().enumerate() {
            problems.extend(of_entry(teacher, entry).into_iter().map(|found| found.below(&at_entry(index))));
        }
    }
    let has_url = |endpoint: &Endpoint| endpoint.entry.is_none() || !endpoint.api.url.is_empty();
    for endpoint in teacher.endpoints().into_iter().filter(has_url) {
        for problem in endpoint.api.problems(endpoint.format) {
            let problem = endpoint.placed(problem);
            // What several endpoints take over is wrong once.
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    problems
}

/// What is wrong with a pool as a whole.
fn whole(teacher: &TeacherFile, pool: &[EndpointFile]) -> Vec<Problem> {
    let at = |path: &str| Place::Key(KeyPath::parse(path));
    let mut problems = Vec::new();
    if pool.is_empty() {
        problems.push(
            Problem::error(at("pool"), "the pool has no endpoints").hint("list some, or leave `pool` out"),
        );
    }
    if teacher.start.is_some() {
        let hint = "give each server a teacher of its own, or start the servers of a pool yourself";
        problems.push(Problem::error(at("pool"), "`pool` and `start` exclude each other").hint(hint));
    }
    if teacher.recorded.is_some() {
        problems.push(Problem::error(at("pool"), "`pool` and `recorded` exclude each other"));
    }
    if teacher.identity.is_none() {
        let message = "a teacher with a `pool` needs an `identity`: whichever endpoint gave an answer, it should \
                       be found";
        let known = teacher.api().filter(|(_, api)| !api.url.is_empty());
        let hint = match known {
            Some((format, api)) => {
                format!(
                    "`identity: \"{}\"` finds the answers that it has without the pool",
                    api.identity(format)
                )
            }
            None => "any name does; the answers are found as long as it stays".to_owned(),
        };
        problems.push(Problem::error(at("pool"), message).hint(hint));
    }
    let mut names = BTreeSet::new();
    for (index, entry) in pool.iter().enumerate() {
        if let Some(name) = entry.name.as_ref().filter(|name| !names.insert(name.as_str())) {
            let place = Place::Value(at_entry(index).join("name"));
            problems.push(Problem::error(place, format!("two endpoints are called `{name}`")));
        }
    }
    problems
}

/// What is wrong with one endpoint, at paths below it.
fn of_entry(teacher: &TeacherFile, entry: &EndpointFile) -> Vec<Problem> {
    let at = |key: &str| Place::Value(KeyPath::parse(key));
    let mut problems = Vec::new();
    let base = teacher.api();
    if let (None, Some((format, _))) = (&entry.url, base.filter(|(_, api)| api.url.is_empty())) {
        let message = format!("the endpoint has no `url`, nor has `{}`", format.wire().name());
        problems.push(Problem::error(at(""), message));
    }
    if !(entry.weight > 0.0 && entry.weight.is_finite()) {
        problems.push(
            Problem::error(at("weight"), "a weight must be a number above 0")
                .hint("leave an endpoint out that is not to be asked"),
        );
    }
    let (Some(_), Some((format, base))) = (&entry.url, base) else { return problems };
    let api = entry.endpoint(0, format, base, LimitsFile::default()).api;
    if base.url.is_empty() || base.host_and_port() == api.host_and_port() {
        return problems;
    }
    // A secret belongs to the URL that it stands beside.
    let own = entry.key_env.iter().map(String::as_str);
    let own: Vec<&str> = own.chain(entry.headers.values().filter_map(Setting::env_name)).collect();
    for variable in api.env_names().into_iter().filter(|variable| !own.contains(variable)) {
        let message = format!("`{variable}` is named for `{}`, and this endpoint is elsewhere", base.host());
        let hint =
            "name this endpoint's own variable here; where it is meant to have the same, name that again";
        problems.push(Problem::error(at("url"), message).hint(hint));
    }
    problems
}
