//! Teachers brought to life for a run: secrets looked up, servers started, clients connected.

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::ExposeSecret;

use crate::data::hash::text_hash;
use crate::pipeline::check::Pipeline;
use crate::pipeline::file::{LimitsFile, TeacherFile};
use crate::problem::{KeyPath, Place, Problem};
use crate::row::Value;
use crate::run::Machine;
use crate::teacher::api::Api;
use crate::teacher::cassette::{Carrier, Cassette, Recorder};
use crate::teacher::format::ApiFormat;
use crate::teacher::gate::{Gate, Limits};
use crate::teacher::process::{Launch, Process, Serving};
use crate::teacher::scripted::Script;
use crate::teacher::secret::Secrets;
use crate::teacher::wire::{Price, Teacher, TeacherParts, Wire};

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
        let built = connect(name, teacher, pipeline, &secrets, serving);
        let built = built.map_err(|found| below(&under, found))?;
        limits_of.extend(word_for_limits(teacher, &built, &secrets).map(|word| (word, built.gate.clone())));
        teachers.insert(name.clone(), Arc::new(built));
    }
    let (by_name, processes) = (Arc::new(teachers), tokio::sync::Mutex::new(processes));
    Ok(Started { secrets, by_name, processes, limits_of })
}

fn word_for_limits(file: &TeacherFile, teacher: &Teacher, secrets: &Secrets) -> Option<String> {
    let (_, api) = file.api()?;
    let key = api.key_env.as_ref().and_then(|name| secrets.get(name));
    let key = key.map_or("", |key| key.expose_secret());
    let parts = [teacher.identity.as_str(), teacher.endpoint(), teacher.model(), key];
    Some(text_hash(&parts.join("\n")))
}

/// Calls that a teacher may have in flight where its file does not say.
const IN_FLIGHT_DEFAULT: u32 = 64;
/// Files that a run has open beside its connections: the store, parts, logs, pipes to servers.
const FILES_BESIDE: u64 = 64;

fn places(teacher: &TeacherFile) -> u32 {
    teacher.limits.in_flight.unwrap_or(IN_FLIGHT_DEFAULT)
}

/// A call in flight may need a connection of its own, and a connection is an open file. The soft limit
/// of this process (1,024 on most systems) is raised as far as the system lets us.
fn enough_open_files(asked: &[(&String, &TeacherFile)]) -> Result<(), Vec<Problem>> {
    let connecting = || asked.iter().filter(|(_, teacher)| teacher.api().is_some());
    let calls: u64 = connecting().map(|(_, teacher)| u64::from(places(teacher))).sum();
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
    let most = connecting().max_by_key(|(_, teacher)| places(teacher)).map_or("", |(name, _)| name.as_str());
    let place = KeyPath::parse("teachers").join(most).join("limits").join("in_flight");
    let message =
        format!("{calls} calls in flight need about {needed} open files, and this process may open {files}");
    let hint = format!("raise the limit (`ulimit -n {}`), or lower `in_flight`", needed.next_power_of_two());
    Err(vec![Problem::error(Place::Value(place), message).hint(hint)])
}

fn secrets(pipeline: &Pipeline, machine: &Machine) -> Secrets {
    let names = pipeline.file.teachers.values().flat_map(|teacher| {
        let apis = teacher.apis().flat_map(|(_, api)| api.env_names());
        apis.chain(teacher.start.iter().flat_map(|start| start.env_names()))
    });
    Secrets::load(names, machine.env)
}

fn connect(
    name: &str,
    teacher: &TeacherFile,
    pipeline: &Pipeline,
    secrets: &Arc<Secrets>,
    serving: Option<Serving>,
) -> Result<Teacher, Vec<Problem>> {
    let base = &pipeline.base;
    let (format, api, carrier) = match (teacher.api(), &teacher.recorded) {
        (Some((format, api)), _) => {
            let places = places(teacher) as usize;
            let under = KeyPath::parse(format.wire().name());
            let client = api.connect(format, base, Arc::clone(secrets), places);
            let client = client.map_err(|found| below(&under, found))?;
            let carrier = match &teacher.record {
                Some(path) => {
                    let recorder = Recorder::open(&base.join(path), Arc::clone(secrets))?;
                    Carrier::Recorded(client, Arc::new(recorder))
                }
                None => Carrier::Http(client),
            };
            (format, api.clone(), carrier)
        }
        (None, Some(recorded)) => {
            let at_key = |problem: Problem| match problem.place {
                Place::Nowhere => {
                    Problem { place: Place::Value(KeyPath::parse("recorded.cassette")), ..problem }
                }
                _ => problem,
            };
            let cassette = Cassette::load(&base.join(&recorded.cassette));
            let cassette = cassette.map_err(|found| found.into_iter().map(at_key).collect::<Vec<_>>())?;
            (recorded.api, Api::named(&recorded.model), Carrier::Cassette(cassette))
        }
        (None, None) => return Err(vec![Problem::error(Place::Nowhere, "the teacher has no wire format")]),
    };
    Ok(assemble(name, teacher, (format, api), Wire::Carried(carrier), serving))
}

/// Teachers that answer from a script (by step name), for tests and plans: no connection is opened, no
/// server started, no limit kept, and what fails once has failed.
pub fn offline(pipeline: &Pipeline, replies: &IndexMap<String, Value>) -> Started {
    let teachers = pipeline.file.teachers.iter().map(|(name, teacher)| {
        let spoken = match (teacher.api(), &teacher.recorded) {
            (Some((format, api)), _) => (format, api.clone()),
            (None, Some(recorded)) => (recorded.api, Api::named(&recorded.model)),
            (None, None) => (ApiFormat::default(), Api::named("")),
        };
        let limits = LimitsFile { in_flight: Some(1), ..LimitsFile::default() };
        let teacher = TeacherFile { attempts: 1, limits, ..teacher.clone() };
        let wire = Wire::Scripted(Script::new(replies));
        (name.clone(), Arc::new(assemble(name, &teacher, spoken, wire, None)))
    });
    Started::of(teachers.collect())
}

/// A teacher from its file and the way to reach it.
pub fn assemble(
    name: &str,
    teacher: &TeacherFile,
    (format, api): (ApiFormat, Api),
    wire: Wire,
    serving: Option<Serving>,
) -> Teacher {
    let limits = Limits {
        requests_per_minute: teacher.limits.requests_per_minute,
        tokens_per_minute: teacher.limits.tokens_per_minute,
        in_flight: teacher.limits.in_flight.map(|places| places as usize),
    };
    Teacher::new(TeacherParts {
        name: name.to_owned(),
        identity: teacher.identity.clone().unwrap_or_else(|| api.identity(format)),
        gate: Gate::new(limits, teacher.patience),
        price: teacher.price.map(Price::from),
        attempts_max: teacher.attempts,
        patience: teacher.patience,
        format,
        api,
        wire,
        serving,
    })
}

fn below(under: &KeyPath, problems: Vec<Problem>) -> Vec<Problem> {
    problems.into_iter().map(|problem| problem.below(under)).collect()
}
