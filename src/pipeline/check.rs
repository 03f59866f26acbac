//! The check of a pipeline file: pure, every problem at once, before anything is opened or paid.
//!
//! Follows the fields from the source through the steps to the dataset. Reads templates and the heads of
//! source files; opens no connection, starts nothing, writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::call::caps::CapsFile;
use crate::data::publish::check_target;
use crate::kit::{Check, Columns, Missing};
use crate::ops::{Asks, OPERATORS, Op};
use crate::pipeline::budget;
use crate::pipeline::doubt::Doubts;
use crate::pipeline::file::{FORMAT_VERSION, PipelineFile, TeacherFile};
use crate::pipeline::node::{Node, NodeValue};
use crate::pipeline::pool;
use crate::pipeline::source::check_source;
use crate::problem::{KeyPath, Place, Problem, Severity, did_you_mean, name_hint};
use crate::row::Type;
use crate::shape;
use crate::teacher::batch::{BatchApi, Mode};
use crate::teacher::format::ApiFormat;
use crate::template::Templates;

/// A pipeline that was checked: what is built from.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub file: PipelineFile,
    pub steps: Vec<Step>,
    /// The columns of the source's rows.
    pub source_columns: Columns,
    /// The dataset's columns, in order.
    pub columns: Columns,
    /// The files that steps read: templates, data.
    pub files: BTreeSet<PathBuf>,
    /// The folder that paths are relative to.
    pub base: PathBuf,
}

/// One step, ready to be built.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where the file has it.
    pub at: KeyPath,
    pub name: String,
    pub when: Option<String>,
    pub budget: Option<CapsFile>,
    pub op: Op,
    /// The columns of the rows that come to the step.
    pub columns: Columns,
}

impl Step {
    pub fn asks(&self, teacher: &str) -> bool {
        self.op.operator().teachers().contains(&teacher)
    }
}

impl Pipeline {
    pub fn templates(&self) -> Templates {
        Templates::new(&templates_folder(&self.base))
    }

    /// Which environment variable goes where, in the order of the file.
    pub fn secrets(&self) -> Vec<SecretUse> {
        let mut uses = Vec::new();
        for (name, teacher) in &self.file.teachers {
            let mut add = |variable: &str, goes_to: String| {
                let secret = SecretUse { teacher: name.clone(), variable: variable.to_owned(), goes_to };
                // Several endpoints may be one host.
                if !uses.contains(&secret) {
                    uses.push(secret);
                }
            };
            for pool::Endpoint { api, .. } in teacher.endpoints() {
                api.env_names().into_iter().for_each(|variable| add(variable, api.host()));
            }
            if let Some(start) = &teacher.start {
                let program = start.command.first().map_or("", String::as_str);
                let goes_to = || format!("the command `{program}`");
                start.env_names().into_iter().for_each(|variable| add(variable, goes_to()));
            }
        }
        uses
    }

    /// Whether a step asks the teacher.
    pub fn is_asked(&self, teacher: &str) -> bool {
        self.steps.iter().any(|step| step.asks(teacher))
    }
}

/// A secret, by the name of its environment variable, and where it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    pub teacher: String,
    pub variable: String,
    pub goes_to: String,
}

pub fn templates_folder(base: &Path) -> PathBuf {
    base.join("templates")
}

/// What is wrong with the format version. Checked before anything else is read: another version's keys
/// are not this one's.
pub fn version(root: &Node) -> Option<Problem> {
    let (_, version) = root.entry("textmill")?;
    match version.value {
        NodeValue::Integer(number) if number != i128::from(FORMAT_VERSION) => {
            let message = format!("format version {number} is not known");
            let hint = format!("this textmill reads version {FORMAT_VERSION}");
            Some(Problem::error(at("textmill"), message).hint(hint))
        }
        _ => None,
    }
}

/// Checks as much of a file as could be read; what may follow from the rest is not reported.
pub fn check(file: PipelineFile, doubts: &Doubts<'_>, base: &Path) -> (Option<Pipeline>, Vec<Problem>) {
    let mut problems = Vec::new();
    head(&file, &mut problems);
    let found = check_source(&file.source, doubts, base, &mut problems);
    let Steps { mut steps, unclear } = steps(&file, doubts, &mut problems);
    budget::check(&file, &steps, &mut problems);
    barriers(&file, &steps, &mut problems);
    let hidden = Hidden::new(doubts, found.is_none(), &unclear);
    let source_columns = with_types(&file, found.unwrap_or_default(), &hidden, &mut problems);
    let Followed { columns, teachers_used, files, history } =
        follow(&file, &mut steps, source_columns.clone(), &hidden, base, &mut problems);
    // What an unclear step is called and asks is written in it.
    let guessed = |name: &str| hidden.steps.iter().any(|step| doubts.mention(step, name));
    if teachers_used.iter().all(|name| file.teachers.contains_key(name)) {
        let is_used = |name: &str| teachers_used.contains(name) || guessed(name);
        problems.extend(unused_teachers(&file, is_used));
    }
    teachers(&file, &steps, doubts, &mut problems);
    problems.extend(batch_twins(&file));
    let columns = save(&file, columns, &hidden, &history, &mut problems);
    if !doubts.touch(&KeyPath::parse("name")) {
        target(&file, base, &mut problems);
    }
    let is_operator = |name: &str| OPERATORS.iter().any(|(known, _)| *known == name);
    let may_be_step = |name: &str| guessed(name) || (!hidden.steps.is_empty() && is_operator(name));
    tests(&file, &steps, may_be_step, &mut problems);
    problems.retain(|problem| !doubts.excuse(&problem.place));
    let sound = doubts.is_empty() && problems.iter().all(|problem| problem.severity != Severity::Error);
    let pipeline = Pipeline { file, steps, source_columns, columns, files, base: base.to_owned() };
    (sound.then_some(pipeline), problems)
}

/// The fields that rows may have although nothing that could be read makes them: a step that is not clear
/// makes what is named in it.
struct Hidden<'a> {
    doubts: &'a Doubts<'a>,
    /// Whether the source hides all of its fields.
    all: bool,
    /// The source, if it is in doubt.
    source: Option<KeyPath>,
    /// The steps that are not clear; all of them as one where the list is none.
    steps: BTreeSet<KeyPath>,
}

impl<'a> Hidden<'a> {
    fn new(doubts: &'a Doubts<'a>, all: bool, unclear: &BTreeSet<KeyPath>) -> Hidden<'a> {
        let source = Some(KeyPath::parse("source")).filter(|source| doubts.touch(source));
        let list = Some(KeyPath::parse("steps")).filter(|list| doubts.cover(list));
        Hidden { doubts, all, source, steps: unclear.iter().cloned().chain(list).collect() }
    }

    /// Whether the field may be there behind the source and the steps before `step`.
    fn has(&self, field: &str, step: &KeyPath) -> bool {
        let mut parts = self.source.iter().chain(self.steps.range(..step));
        self.all || parts.any(|part| self.doubts.mention(part, field))
    }

    /// Whether the field may be there behind all steps.
    fn has_at_end(&self, field: &str) -> bool {
        let mut parts = self.source.iter().chain(&self.steps);
        self.all || parts.any(|part| self.doubts.mention(part, field))
    }
}

fn at(path: &str) -> Place {
    Place::Value(KeyPath::parse(path))
}

fn head(file: &PipelineFile, problems: &mut Vec<Problem>) {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if file.name.is_empty() || file.name.len() > 100 || !file.name.chars().all(plain) {
        let message = format!("`{}` cannot name a pipeline", file.name);
        problems.push(Problem::error(at("name"), message).hint("use letters, digits, `-` and `_`"));
    }
}

/// `types:` overrides what was found in the source.
fn with_types(
    file: &PipelineFile,
    mut columns: Columns,
    hidden: &Hidden<'_>,
    problems: &mut Vec<Problem>,
) -> Columns {
    for (name, short) in &file.types {
        let path = KeyPath::parse("types").join(name.as_str());
        match shape::from_short_hand(short) {
            Ok(schema) if columns.contains_key(name) => {
                columns.insert(name.clone(), shape::type_of(&schema));
            }
            Ok(_) if hidden.has(name, &KeyPath::parse("steps")) => {}
            Ok(_) => {
                let mut problem =
                    Problem::error(Place::Key(path), format!("the source has no field `{name}`"));
                problem.hint = name_hint(name, columns.keys().map(String::as_str));
                problems.push(problem);
            }
            Err((_, message)) => problems.push(Problem::error(Place::Value(path), message)),
        }
    }
    columns
}

/// The steps, and the places of those of which it is not known for certain what they do.
struct Steps {
    steps: Vec<Step>,
    unclear: BTreeSet<KeyPath>,
}

/// The steps with their names; each has exactly one operator and a name of its own.
fn steps(file: &PipelineFile, doubts: &Doubts<'_>, problems: &mut Vec<Problem>) -> Steps {
    let mut steps = Vec::new();
    let mut unclear = BTreeSet::new();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (index, step) in file.steps.iter().enumerate() {
        let at = KeyPath::parse("steps").join(index);
        let place = || Place::Value(at.clone());
        let in_doubt = doubts.touch(&at);
        let mut ops = step.operators();
        if ops.len() != 1 || in_doubt {
            unclear.insert(at.clone());
        }
        if ops.len() != 1 {
            let message = match ops.as_slice() {
                [] => "the step names no operator".to_owned(),
                more => {
                    let names: Vec<&str> = more.iter().map(Op::name).collect();
                    format!("a step has one operator; this one has `{}`", names.join("` and `"))
                }
            };
            let known: Vec<&str> = OPERATORS.iter().map(|(name, _)| *name).collect();
            problems
                .push(Problem::error(place(), message).hint(format!("operators: `{}`", known.join("`, `"))));
        }
        let Some(op) = ops.pop() else { continue };
        let default = op.operator().default_name().unwrap_or(op.name()).to_owned();
        let name = step.name.clone().unwrap_or(default);
        // A name that was not read may be another.
        let first = if in_doubt { None } else { names.insert(name.clone(), index) };
        if let Some(first) = first {
            let message = format!("two steps are called `{name}`: this one and step {}", first + 1);
            let hint = "give one of them a `name:`; draws, reasons and test replies hang on it";
            problems.push(Problem::error(place(), message).hint(hint));
        }
        let (when, budget) = (step.when.clone(), step.budget);
        steps.push(Step { at, name, when, budget, op, columns: Columns::new() });
    }
    if file.steps.is_empty() {
        problems.push(Problem::warning(at("steps"), "there are no steps: the source is saved as it is"));
    }
    Steps { steps, unclear }
}

/// A step that waits for the end of the source waits for ever where the source goes on until enough is kept.
fn barriers(file: &PipelineFile, steps: &[Step], problems: &mut Vec<Problem>) {
    let until = file.source.sample.as_ref().and_then(|sample| sample.until.as_ref());
    let Some(kept) = until.and_then(|until| until.kept) else { return };
    for step in steps.iter().filter(|step| step.op.operator().needs_all_rows()) {
        let name = step.op.name();
        let message = format!(
            "`{name}` waits for the end of the source, and the source goes on `until` {kept} rows are kept"
        );
        let hint = "give the source a number of `rows` instead of `until`";
        problems.push(Problem::error(Place::Value(step.at.join(name)), message).hint(hint));
    }
}

/// What following the steps brought to light.
struct Followed {
    /// The columns behind the last step.
    columns: Columns,
    teachers_used: BTreeSet<String>,
    files: BTreeSet<PathBuf>,
    history: History,
}

/// Which steps make fields, and which take them away, in their order.
#[derive(Default)]
struct History {
    made: Vec<(String, String)>,
    /// A field, and the step that takes it away as messages name it.
    taken: Vec<(String, String)>,
}

impl History {
    fn add(&mut self, step: &Step, before: &Columns, after: &Columns) {
        let only_in = |one: &Columns, other: &Columns| -> Vec<String> {
            one.keys().filter(|field| !other.contains_key(*field)).cloned().collect()
        };
        let (name, operator) = (&step.name, step.op.name());
        let shown = if name == operator { format!("`{name}`") } else { format!("`{name}` (`{operator}`)") };
        self.made.extend(only_in(after, before).into_iter().map(|field| (field, name.clone())));
        self.taken.extend(only_in(before, after).into_iter().map(|field| (field, shown.clone())));
    }

    /// The hint for a field that is missing behind all of these steps, if one of them takes it away.
    fn taken(&self, field: &str) -> Option<String> {
        let (_, step) = self.taken.iter().rfind(|(taken, _)| taken == field)?;
        Some(format!("step {step} takes it away"))
    }
}

/// Follows the columns through all steps.
fn follow(
    file: &PipelineFile,
    steps: &mut [Step],
    columns: Columns,
    hidden: &Hidden<'_>,
    base: &Path,
    problems: &mut Vec<Problem>,
) -> Followed {
    let templates = Templates::new(&templates_folder(base));
    let teachers: Vec<String> = file.teachers.keys().cloned().collect();
    let teachers_known = !hidden.doubts.cover(&KeyPath::parse("teachers"));
    let mut check = Check {
        templates: &templates,
        base,
        teachers: teachers_known.then_some(&teachers),
        teachers_used: BTreeSet::new(),
        apis: apis(file, hidden.doubts),
        columns,
        problems: Vec::new(),
        missing: Vec::new(),
        files: BTreeSet::new(),
        at: KeyPath::root(),
        step: String::new(),
        target: base.join(&file.save.parquet),
    };
    let mut history = History::default();
    let mut missing = Vec::new();
    for step in steps {
        let before = check.columns.clone();
        step.columns.clone_from(&before);
        one_step(step, &mut check);
        let found = check.missing.drain(..).filter(|missing| !hidden.has(&missing.field, &step.at));
        missing.extend(found.map(|missing| (history.taken(&missing.field), missing)));
        history.add(step, &before, &check.columns);
        if hidden.steps.contains(&step.at) {
            let made = check.columns.iter_mut().filter(|(name, kind)| before.get(*name) != Some(&**kind));
            made.for_each(|(_, kind)| *kind = Type::Json);
        }
    }
    problems.append(&mut check.problems);
    problems
        .extend(missing.into_iter().map(|(taken, missing)| missing_problem(missing, taken, &history.made)));
    let Check { columns, teachers_used, files, .. } = check;
    Followed { columns, teachers_used, files, history }
}

/// The APIs of the teachers that are clear.
fn apis(file: &PipelineFile, doubts: &Doubts<'_>) -> BTreeMap<String, ApiFormat> {
    let clear = |name: &str| !doubts.touch(&KeyPath::parse("teachers").join(name));
    let teachers = file.teachers.iter().filter(|(name, _)| clear(name));
    teachers.filter_map(|(name, teacher)| Some((name.clone(), teacher.format()?))).collect()
}

fn one_step(step: &Step, check: &mut Check<'_>) {
    check.step.clone_from(&step.name);
    if let Some(when) = &step.when {
        check.at = step.at.clone();
        check.expression("when", when);
    }
    check.at = step.at.join(step.op.name());
    step.op.operator().check(check);
}

fn missing_problem(missing: Missing, taken: Option<String>, made: &[(String, String)]) -> Problem {
    let Missing { place, field, known, step } = missing;
    let problem = Problem::error(place, format!("there is no field `{field}` here"));
    if let Some(hint) = taken {
        return problem.hint(hint);
    }
    let names = || known.iter().map(String::as_str);
    match made.iter().find(|(made, _)| *made == field) {
        Some((_, maker)) if *maker == step => {
            problem.hint("this step makes it itself; only later steps can use it")
        }
        Some((_, maker)) => problem.hint(format!("step `{maker}` makes it, but runs later; move it up")),
        None => match did_you_mean(&field, names()) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None if known.is_empty() => problem.hint("the rows have no fields here"),
            None => {
                let listed: Vec<String> = names().map(|name| format!("`{name}`")).collect();
                problem.hint(format!("fields here: {}", listed.join(", ")))
            }
        },
    }
}

fn unused_teachers(file: &PipelineFile, used: impl Fn(&str) -> bool) -> Vec<Problem> {
    let unused = file.teachers.keys().filter(|name| !used(name)).map(|name| {
        let place = Place::Key(KeyPath::parse("teachers").join(name.as_str()));
        let problem = Problem::warning(place, format!("no step asks teacher `{name}`"));
        problem.hint("remove it, or name it in a step")
    });
    unused.collect()
}

fn teachers(file: &PipelineFile, steps: &[Step], doubts: &Doubts<'_>, problems: &mut Vec<Problem>) {
    let place = |name: &str| KeyPath::parse("teachers").join(name);
    for (name, teacher) in &file.teachers {
        let under = place(name);
        let mut found = one_teacher(teacher);
        found.extend(budget::prices(file, name, teacher, steps));
        problems.extend(found.into_iter().map(|problem| problem.below(&under)));
    }
    // What a teacher in doubt allows and costs is not known.
    for step in steps {
        for asks in step.op.operator().asks().iter().filter(|asks| !doubts.touch(&place(asks.teacher))) {
            limits_of_step(file, steps, step, asks, problems);
        }
    }
}

fn one_teacher(teacher: &TeacherFile) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut error = |path: &str, message: &str| problems.push(Problem::error(at(path), message));
    let recorded = teacher.recorded.iter().map(|_| "recorded");
    let kinds: Vec<&str> = teacher.apis().map(|(format, _)| format.wire().name()).chain(recorded).collect();
    match kinds.as_slice() {
        [] => error(
            "",
            "a teacher needs an API (`openai:`, `responses:`, `anthropic:`, `gemini:`, `embeddings:`) or `recorded:`",
        ),
        [_] => {}
        [first, .., last] => error(last, &format!("`{first}` and `{last}` exclude each other")),
    }
    if teacher.attempts == 0 {
        error("attempts", "`attempts` must be at least 1");
    }
    if let Some(price) = &teacher.price {
        let prices = [
            ("price.input", Some(price.input)),
            ("price.output", Some(price.output)),
            ("price.cached_input", price.cached_input),
            ("price.cache_write", price.cache_write),
            ("price.reasoning", price.reasoning),
        ];
        if price.batch.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            error("price.batch", "`batch` is a share of the other prices, from 0 to 1");
        }
        let sound = |price: f64| price.is_finite() && (0.0..1e6).contains(&price);
        for (path, _) in prices.iter().filter(|(_, price)| price.is_some_and(|price| !sound(price))) {
            error(path, "a price cannot be negative");
        }
    }
    if teacher.start.is_some() && teacher.identity.is_none() {
        error(
            "start",
            "a teacher with `start` needs an `identity`: its address may change, its answers should be found",
        );
    }
    problems.extend(pool::problems(teacher));
    problems.extend(batches(teacher));
    if let Some(start) = &teacher.start {
        let under = KeyPath::parse("start");
        problems.extend(start.problems().into_iter().map(|problem| problem.below(&under)));
    }
    problems
}

/// The least tokens per minute that a teacher's endpoints allow, and whose limit that is.
fn narrowest(teacher: &TeacherFile) -> Option<(u64, String)> {
    if teacher.pool.is_none() {
        return Some((teacher.limits.tokens_per_minute?, "the teacher's".to_owned()));
    }
    let endpoints = teacher.endpoints().into_iter();
    let limited = endpoints.filter_map(|endpoint| Some((endpoint.limits.tokens_per_minute?, endpoint.name)));
    let (limit, name) = limited.min_by_key(|(limit, _)| *limit)?;
    Some((limit, format!("endpoint `{name}`'s")))
}

/// Whether the teacher's calls can go in batches as it says.
fn batches(teacher: &TeacherFile) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut error = |path: &str, message: &str, hint: &str| {
        problems.push(Problem::error(at(path), message).hint(hint));
    };
    if teacher.mode == Mode::Live {
        if teacher.batch.is_some() {
            error("batch", "`batch` is of no use to a teacher that answers one by one", "say `mode: batch`");
        }
        return problems;
    }
    let format = teacher.api().map(|(format, _)| format);
    let has_batches = format.filter(|format| BatchApi::of(*format).is_some());
    let hint = "say `mode: live`, or leave `mode` out";
    match has_batches {
        None => error("mode", "only `openai` and `anthropic` have batches", hint),
        Some(_) if teacher.start.is_some() => {
            error("mode", "a server that a run starts has no batches", hint);
        }
        Some(_) if teacher.pool.is_some() => error("mode", "a pool of endpoints has no batches", hint),
        Some(_) if teacher.record.is_some() => error("mode", "batches cannot be recorded", hint),
        Some(format) => {
            let settings = teacher.batch.clone().unwrap_or_default();
            let under = KeyPath::parse("batch");
            let found = settings.problems(teacher.mode, format);
            problems.extend(found.into_iter().map(|problem| problem.below(&under)));
        }
    }
    problems
}

/// Teachers whose batches nobody could tell apart: what one of them sent, the other would take for its own.
fn batch_twins(file: &PipelineFile) -> Vec<Problem> {
    let mut seen: BTreeMap<(String, &str, &str), &str> = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, teacher) in &file.teachers {
        let Some((format, api)) = teacher.api().filter(|_| teacher.batches().is_some()) else { continue };
        let identity = teacher.identity.clone().unwrap_or_else(|| api.identity(format));
        let Some(first) = seen.insert((identity, format.wire().name(), &api.model), name) else { continue };
        let message = format!("`{name}` and `{first}` send batches to one model of one server");
        let place = Place::Value(KeyPath::parse("teachers").join(name.as_str()).join("mode"));
        problems.push(
            Problem::error(place, message)
                .hint("have the steps ask one of them, or give one an `identity` of its own"),
        );
    }
    problems
}

/// What a step asks of a teacher against the limits of that teacher.
fn limits_of_step(
    file: &PipelineFile,
    steps: &[Step],
    step: &Step,
    asks: &Asks<'_>,
    problems: &mut Vec<Problem>,
) {
    let Some(teacher) = file.teachers.get(asks.teacher) else { return };
    let under = step.at.join(step.op.name()).extend(&KeyPath::parse(asks.part));
    problems.extend(budget::step(file, steps, step, asks, teacher, &under));
    let Some(max_tokens) = asks.tokens_out_max().map(u64::from) else { return };
    if let Some((limit, whose)) = narrowest(teacher).filter(|(limit, _)| max_tokens > *limit) {
        let message =
            format!("`max_tokens` is over {whose} {limit} tokens per minute: no call could ever be sent");
        let problem = Problem::error(Place::Value(under.join("max_tokens")), message);
        problems.push(problem.hint("lower `max_tokens`, or correct the teacher's `limits`"));
    }
}

/// The dataset's columns.
fn save(
    file: &PipelineFile,
    columns: Columns,
    hidden: &Hidden<'_>,
    history: &History,
    problems: &mut Vec<Problem>,
) -> Columns {
    if file.save.parquet.trim().is_empty() {
        problems.push(Problem::error(at("save.parquet"), "the dataset needs a folder"));
    }
    if file.save.part_rows == Some(0) {
        problems.push(Problem::error(at("save.part_rows"), "a part needs at least one row"));
    }
    let Some(wanted) = &file.save.columns else { return columns };
    let mut chosen = Columns::new();
    for (index, name) in wanted.iter().enumerate() {
        let place = Place::Value(KeyPath::parse("save.columns").join(index));
        match columns.get(name) {
            Some(kind) => {
                if chosen.insert(name.clone(), kind.clone()).is_some() {
                    problems.push(Problem::error(place, format!("`{name}` is listed twice")));
                }
            }
            None if hidden.has_at_end(name) => {}
            None => {
                let mut problem = Problem::error(place, format!("there is no field `{name}` at the end"));
                let near = || name_hint(name, columns.keys().map(String::as_str));
                problem.hint = history.taken(name).or_else(near);
                problems.push(problem);
            }
        }
    }
    chosen
}

/// What is in the dataset's folder now must be this pipeline's own.
fn target(file: &PipelineFile, base: &Path, problems: &mut Vec<Problem>) {
    if file.save.parquet.trim().is_empty() {
        return;
    }
    match check_target(&base.join(&file.save.parquet)) {
        Ok(Some(manifest)) if manifest.pipeline.name != file.name => {
            let other = &manifest.pipeline.name;
            let message = format!("`{}` holds the dataset of another pipeline, `{other}`", file.save.parquet);
            let hint = "save to a folder of your own; if the pipeline was renamed, move the old dataset away";
            problems.push(Problem::error(at("save.parquet"), message).hint(hint));
        }
        Ok(_) => {}
        Err(error) => {
            let problem = Problem::error(at("save.parquet"), error.to_string());
            problems.push(Problem { hint: error.hint, ..problem });
        }
    }
}

/// Tests speak of steps; `may_be_step` says of a name whether a step that is not clear may have it.
fn tests(
    file: &PipelineFile,
    steps: &[Step],
    may_be_step: impl Fn(&str) -> bool,
    problems: &mut Vec<Problem>,
) {
    let is_step = |name: &str| steps.iter().any(|step| step.name == name) || may_be_step(name);
    let mut names = BTreeSet::new();
    for (index, test) in file.tests.iter().enumerate() {
        let under = KeyPath::parse("tests").join(index);
        if !names.insert(&test.name) {
            let place = Place::Value(under.join("name"));
            problems.push(Problem::error(place, format!("two tests are called `{}`", test.name)));
        }
        for step in test.replies.keys() {
            if !is_step(step) {
                let place = Place::Key(under.join("replies").join(step.as_str()));
                let mut problem = Problem::error(place, format!("there is no step `{step}`"));
                problem.hint = name_hint(step, steps.iter().map(|step| step.name.as_str()));
                problems.push(problem);
            }
        }
        for (row, expected) in test.rejected.iter().flatten().enumerate() {
            if let Some(step) = expected.step.as_ref().filter(|step| !is_step(step)) {
                let place = Place::Value(under.join("rejected").join(row).join("step"));
                let mut problem = Problem::error(place, format!("there is no step `{step}`"));
                problem.hint = name_hint(step, steps.iter().map(|step| step.name.as_str()));
                problems.push(problem);
            }
        }
    }
}
