//! Teachers brought to life for a run: secrets looked up, servers started, clients connected.

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::ExposeSecret;

use crate::data::hash::text_hash;
use crate::pipeline::check::Pipeline;
use crate::pipeline::file::{LimitsFile, TeacherFile};
use crate::pipeline::pool::Endpoint;
use crate::problem::{KeyPath, Place, Problem};
use crate::row::Value;
use crate::run::Machine;
use crate::teacher::api::Api;
use crate::teacher::batch::{BatchApi, Mode};
use crate::teacher::cassette::{Carrier, Cassette, Recorder};
use crate::teacher::format::ApiFormat;
use crate::teacher::gate::{Gate, IN_FLIGHT_DEFAULT, Limits};
use crate::teacher::process::{Launch, Process, Serving};
use crate::teacher::scripted::Script;
use crate::teacher::secret::Secrets;
use crate::teacher::site::{Site, SiteParts, Wire};
use crate::teacher::wire::{Price, Teacher, TeacherParts};

/// The teachers of a run and the servers that were started for them.
pub struct Started {
    /// What none of them, and no row, may show.
    pub secrets: Arc<Secrets>,
    pub by_name: Arc<IndexMap<String, Arc<Teacher>>>,
    processes: tokio::sync::Mutex<Vec<Process>>,
    /// Whose limits each teacher uses, as one word for the server, the model and the key.
    limits_of: Vec<(String, Gate)>,
}

impl Started {
    /// Teachers that need no server of ours.
    pub fn of(teachers: IndexMap<String, Arc<Teacher>>) -> Started {
        Started {
            secrets: Arc::default(),
            by_name: Arc::new(teachers),
            processes: tokio::sync::Mutex::default(),
            limits_of: Vec::new(),
        }
    }

    /// The gates that keep limits of servers, with a word that is the same in every process that has the same
    /// teacher: its identity, URL, model and key, none of which it shows.
    pub fn shared(&self) -> Vec<(String, Gate)> {
        self.limits_of.clone()
    }

    /// Stops the servers that were started, in reverse order.
    pub async fn stop(&self) {
        let mut processes = self.processes.lock().await;
        while let Some(process) = processes.pop() {
            process.stop().await;
        }
    }
}

/// Starts and connects the teachers that steps ask. After a crash a server of the last run may still be ending.
pub async fn start(
    pipeline: &Pipeline,
    folder: &Path,
    machine: &Machine,
    after_crash: bool,
) -> Result<Started, Vec<Problem>> {
    let secrets = Arc::new(secrets(pipeline, machine));
    let asked: Vec<(&String, &TeacherFile)> =
        pipeline.file.teachers.iter().filter(|(name, _)| pipeline.is_asked(name)).collect();
    enough_open_files(&asked)?;
    let mut teachers = IndexMap::new();
    let mut processes = Vec::new();
    let mut limits_of = Vec::new();
    for (name, teacher) in asked {
        let under = KeyPath::parse("teachers").join(name.as_str());
        let mut serving = None;
        if let Some(start) = &teacher.start {
            let launch = Launch {
                folder: pipeline.base.clone(),
                log: folder.join(format!("{name}.log")),
                guard: machine.guard.clone(),
                environment: machine.minimal_environment(),
                secrets: Arc::clone(&secrets),
                after_crash,
            };
            let process = Process::start(start, launch).await;
            let process = process.map_err(|found| below(&under.join("start"), found))?;
            serving = process.serving();
            processes.push(process);
        }
        let built = connect(name, teacher, pipeline, &secrets, serving.as_ref());
        let built = built.map_err(|found| below(&under, found))?;
        let sites = teacher.endpoints().into_iter().zip(built.pool.sites());
        limits_of.extend(sites.map(|(endpoint, site)| {
            (word_for_limits(&built.identity, &endpoint.api, site, &secrets), site.gate.clone())
        }));
        teachers.insert(name.clone(), Arc::new(built));
    }
    let (by_name, processes) = (Arc::new(teachers), tokio::sync::Mutex::new(processes));
    Ok(Started { secrets, by_name, processes, limits_of })
}

fn word_for_limits(identity: &str, api: &Api, site: &Site, secrets: &Secrets) -> String {
    let key = api.key_env.as_ref().and_then(|name| secrets.get(name));
    let key = key.map_or("", |key| key.expose_secret());
    text_hash(&[identity, &site.url, &api.model, key].join("\n"))
}

/// Files that a run has open beside its connections: the store, parts, logs, pipes to servers.
const FILES_BESIDE: u64 = 64;

/// Calls that an endpoint may have in flight.
fn places(limits: LimitsFile) -> usize {
    limits.in_flight.map_or(IN_FLIGHT_DEFAULT, |places| places as usize)
}

/// Connections that a teacher may have open at once.
fn connections(teacher: &TeacherFile) -> usize {
    teacher.endpoints().iter().map(|endpoint| places(endpoint.limits)).sum()
}

/// A call in flight may need a connection of its own, and a connection is an open file. The soft limit
/// of this process (1,024 on most systems) is raised as far as the system lets us.
fn enough_open_files(asked: &[(&String, &TeacherFile)]) -> Result<(), Vec<Problem>> {
    let calls: u64 = asked.iter().map(|(_, teacher)| connections(teacher) as u64).sum();
    let needed = calls + FILES_BESIDE;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if calls == 0 || current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(needed), maximum };
    if maximum.is_none_or(|maximum| maximum >= needed) && setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    let files = maximum.or(current).unwrap_or_default();
    let most = asked.iter().max_by_key(|(_, teacher)| connections(teacher));
    let most = most.map_or("", |(name, _)| name.as_str());
    let place = KeyPath::parse("teachers").join(most).join("limits").join("in_flight");
    let message =
        format!("{calls} calls in flight need about {needed} open files, and this process may open {files}");
    let hint = format!("raise the limit (`ulimit -n {}`), or lower `in_flight`", needed.next_power_of_two());
    Err(vec![Problem::error(Place::Value(place), message).hint(hint)])
}

fn secrets(pipeline: &Pipeline, machine: &Machine) -> Secrets {
    let names = pipeline.file.teachers.values().flat_map(|teacher| {
        let endpoints = teacher.endpoints();
        let keys = endpoints.iter().flat_map(|endpoint| endpoint.api.env_names()).map(str::to_owned);
        let keys: Vec<String> = keys.collect();
        keys.into_iter().chain(teacher.start.iter().flat_map(|start| start.env_names()).map(str::to_owned))
    });
    Secrets::load(names, machine.env)
}

fn connect(
    name: &str,
    teacher: &TeacherFile,
    pipeline: &Pipeline,
    secrets: &Arc<Secrets>,
    serving: Option<&Serving>,
) -> Result<Teacher, Vec<Problem>> {
    let base = &pipeline.base;
    if let Some((format, api)) = teacher.api() {
        let recorder =
            teacher.record.as_ref().map(|path| Recorder::open(&base.join(path), Arc::clone(secrets)));
        let recorder = recorder.transpose()?.map(Arc::new);
        let mut sites = Vec::new();
        for endpoint in teacher.endpoints() {
            let client = endpoint.api.connect(format, base, Arc::clone(secrets), places(endpoint.limits));
            let client = client.map_err(|found| -> Vec<Problem> {
                found.into_iter().map(|found| endpoint.placed(found)).collect()
            })?;
            let carrier = match &recorder {
                Some(recorder) => Carrier::Recorded(client, Arc::clone(recorder)),
                None => Carrier::Http(client),
            };
            sites.push(site(teacher, endpoint, Wire::Carried(carrier), serving.cloned()));
        }
        let mut built = assemble(name, teacher, (format, api.clone()), sites);
        if let Some((kind, settings)) = BatchApi::of(format).zip(teacher.batches()) {
            let under = KeyPath::parse(format.wire().name());
            let client = api.connect_batches((format, kind), settings, base, Arc::clone(secrets));
            built.batches = Some(client.map_err(|found| below(&under, found))?);
        }
        return Ok(built);
    }
    let Some(recorded) = &teacher.recorded else {
        return Err(vec![Problem::error(Place::Nowhere, "the teacher has no wire format")]);
    };
    let at_key = |problem: Problem| match problem.place {
        Place::Nowhere => Problem { place: Place::Value(KeyPath::parse("recorded.cassette")), ..problem },
        _ => problem,
    };
    let cassette = Cassette::load(&base.join(&recorded.cassette));
    let cassette = cassette.map_err(|found| found.into_iter().map(at_key).collect::<Vec<_>>())?;
    let wire = Wire::Carried(Carrier::Cassette(cassette));
    Ok(with_one_site(name, teacher, (recorded.api, Api::named(&recorded.model)), wire))
}

/// Teachers that answer from a script (by step name), for tests and plans: no connection is opened, no
/// server started, no limit kept, and what fails once has failed.
pub fn offline(pipeline: &Pipeline, replies: &IndexMap<String, Value>) -> Started {
    // One script for all: a step's replies come in call order, whichever teacher is asked.
    let script = Arc::new(Script::new(replies));
    let teachers = pipeline.file.teachers.iter().map(|(name, teacher)| {
        let spoken = match (teacher.api(), &teacher.recorded) {
            (Some((format, api)), _) => (format, api.clone()),
            (None, Some(recorded)) => (recorded.api, Api::named(&recorded.model)),
            (None, None) => (ApiFormat::default(), Api::named("")),
        };
        let limits = LimitsFile { in_flight: Some(1), ..LimitsFile::default() };
        let teacher = TeacherFile { attempts: 1, limits, ..teacher.clone() };
        let wire = Wire::Scripted(Arc::clone(&script));
        let mut built = with_one_site(name, &teacher, spoken, wire);
        if teacher.mode == Mode::Batch {
            built.price = built.price.map(|price| price.in_batches());
        }
        (name.clone(), Arc::new(built))
    });
    Started::of(teachers.collect())
}

/// A teacher that no server stands behind.
fn with_one_site(name: &str, teacher: &TeacherFile, (format, api): (ApiFormat, Api), wire: Wire) -> Teacher {
    let gate = gate(teacher, teacher.limits);
    let api_here = api.clone();
    let site = SiteParts { name: name.to_owned(), gate, weight: 1.0, api: api_here, wire, serving: None };
    assemble(name, teacher, (format, api), vec![site])
}

/// The way to an endpoint.
fn site(teacher: &TeacherFile, endpoint: Endpoint, wire: Wire, serving: Option<Serving>) -> SiteParts {
    let Endpoint { name, api, limits, weight, .. } = endpoint;
    SiteParts { name, gate: gate(teacher, limits), weight, api, wire, serving }
}

fn gate(teacher: &TeacherFile, limits: LimitsFile) -> Gate {
    let limits = Limits {
        requests_per_minute: limits.requests_per_minute,
        tokens_per_minute: limits.tokens_per_minute,
        in_flight: Some(places(limits)),
    };
    Gate::new(limits, teacher.patience)
}

/// A teacher from its file and the ways to its endpoints.
fn assemble(
    name: &str,
    teacher: &TeacherFile,
    (format, api): (ApiFormat, Api),
    sites: Vec<SiteParts>,
) -> Teacher {
    Teacher::new(TeacherParts {
        name: name.to_owned(),
        identity: teacher.identity.clone().unwrap_or_else(|| api.identity(format)),
        price: teacher.price.map(Price::from),
        attempts_max: teacher.attempts,
        patience: teacher.patience,
        format,
        api,
        sites,
    })
}

fn below(under: &KeyPath, problems: Vec<Problem>) -> Vec<Problem> {
    problems.into_iter().map(|problem| problem.below(under)).collect()
}
