//! What operators are given: a [`Check`] before anything runs, a [`Kit`] when they are built.
//!
//! `Check` follows the columns from step to step and collects problems; it is pure but for reading
//! templates and asking whether files exist. `Kit` hands out teachers, templates and draws.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::call::{Caller, Desk};
use crate::problem::{KeyPath, Place, Problem, name_hint, shown_path};
use crate::row::{FieldPath, Type};
use crate::teacher::format::ApiFormat;
use crate::teacher::wire::Teacher;
use crate::template::{Expression, Template, TemplateError, Templates, TextPlace};

/// The fields that rows have at some place of the pipeline, with their types.
pub type Columns = IndexMap<String, Type>;

pub use crate::data::RESERVED_PREFIX;

/// A field that a step needs and nothing before it makes.
#[derive(Clone, Debug)]
pub struct Missing {
    pub place: Place,
    pub field: String,
    pub known: Vec<String>,
    /// The step that needs it.
    pub step: String,
}

/// Where a field path leads, as far as the columns' types tell.
enum Reach<'a> {
    Value(&'a Type),
    NoField,
    /// The object at `whole` has other keys.
    NoKey {
        whole: String,
        wanted: &'a str,
        keys: &'a [(String, Type)],
    },
    /// Something without known keys is in the way.
    NoObject {
        kind: &'a Type,
        wanted: &'a str,
    },
}

/// What the check of one step sees and adds to.
pub struct Check<'a> {
    pub templates: &'a Templates,
    /// Folder that paths are relative to.
    pub base: &'a Path,
    /// Names of the teachers declared, if they are known, and which were asked for so far.
    pub teachers: Option<&'a [String]>,
    pub teachers_used: BTreeSet<String>,
    /// The APIs of the teachers, as far as they are known.
    pub apis: BTreeMap<String, ApiFormat>,
    /// The fields that rows have here; an operator adds what it makes.
    pub columns: Columns,
    pub problems: Vec<Problem>,
    pub missing: Vec<Missing>,
    /// The files that steps read: templates, data.
    pub files: BTreeSet<PathBuf>,
    /// Path of the operator's config in the file.
    pub at: KeyPath,
    /// The step's name.
    pub step: String,
    /// The dataset that the pipeline saves.
    pub target: PathBuf,
}

impl Check<'_> {
    /// The place of a key of the operator's config; `""` is the config itself.
    pub fn place(&self, key: &str) -> Place {
        Place::Value(self.path(key))
    }

    fn path(&self, key: &str) -> KeyPath {
        self.at.extend(&KeyPath::parse(key))
    }

    pub fn problem(&mut self, key: &str, message: impl Into<String>) -> &mut Problem {
        let problem = Problem::error(self.place(key), message);
        self.problems.push(problem);
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    /// Checks a part of the config as if it were the whole.
    pub fn part<T>(&mut self, key: &str, check: impl FnOnce(&mut Self) -> T) -> T {
        let at = self.path(key);
        let whole = std::mem::replace(&mut self.at, at);
        let found = check(self);
        self.at = whole;
        found
    }

    /// Checks templates and expressions that know more names than the rows have fields; `key` is what
    /// gives these names a meaning.
    pub fn with_names<T, const N: usize>(
        &mut self,
        key: &str,
        names: [(&str, Type); N],
        check: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let before = self.columns.clone();
        for (name, kind) in names {
            if self.columns.insert(name.to_owned(), kind).is_some() {
                let message =
                    format!("the rows have a field `{name}`, and here the name has a meaning of its own");
                self.problem(key, message).hint = Some(format!(
                    "rename the field before this step: `fields: {{ rename: {{ {name}: … }} }}`"
                ));
            }
        }
        let found = check(self);
        self.columns = before;
        found
    }

    /// Compiles a template and checks that the fields it needs exist here.
    pub fn template(&mut self, key: &str, text: &str) -> Option<Template> {
        match self.templates.template(text) {
            Ok(template) => {
                self.files.extend(template.files().map(Path::to_owned));
                self.needs(key, template.needs(), template.paths(), |path| template.place_of(path));
                Some(template)
            }
            Err(error) => {
                self.template_problem(key, error);
                None
            }
        }
    }

    /// Compiles an expression and checks that the fields it needs exist here.
    pub fn expression(&mut self, key: &str, text: &str) -> Option<Expression> {
        match self.templates.expression(text) {
            Ok(expression) => {
                if !expression.guards_absence() {
                    self.needs(key, expression.needs(), expression.paths(), |path| expression.place_of(path));
                }
                Some(expression)
            }
            Err(error) => {
                self.template_problem(key, error);
                None
            }
        }
    }

    fn template_problem(&mut self, key: &str, error: TemplateError) {
        let place = self.text_place(key, error.place);
        self.problems.push(Problem { hint: error.hint, ..Problem::error(place, error.message) });
    }

    /// The place of something in the template or expression that is the value of a key.
    fn text_place(&self, key: &str, place: Option<TextPlace>) -> Place {
        match place {
            Some(TextPlace { file: Some(path), line, column, .. }) => {
                Place::File { path, line: Some(line), column: Some(column) }
            }
            Some(TextPlace { range, .. }) => Place::Inside(self.path(key), range),
            None => self.place(key),
        }
    }

    /// Checks that fields exist, and of those whose keys are known, that the keys do.
    fn needs(
        &mut self,
        key: &str,
        fields: &BTreeSet<String>,
        paths: &BTreeSet<String>,
        place_of: impl Fn(&str) -> Option<TextPlace>,
    ) {
        for field in fields.iter().filter(|field| !self.columns.contains_key(*field)) {
            let place = self.text_place(key, place_of(field));
            let known = self.columns.keys().cloned().collect();
            self.missing.push(Missing { place, field: field.clone(), known, step: self.step.clone() });
        }
        for path in paths {
            let Some((message, hint)) = self.unknown_key(&FieldPath::parse(path)) else { continue };
            let place = self.text_place(key, place_of(path));
            self.problems.push(Problem { hint, ..Problem::error(place, message) });
        }
    }

    /// What is wrong with a path into objects whose keys are known. What is in a text, a list or any
    /// JSON is a template's own business.
    fn unknown_key(&self, path: &FieldPath) -> Option<(String, Option<String>)> {
        let Reach::NoKey { whole, wanted, keys } = self.reach(path) else { return None };
        let hint = name_hint(wanted, keys.iter().map(|(name, _)| name.as_str()));
        Some((format!("`{whole}` has no key `{wanted}`"), hint))
    }

    /// Follows a path as far as the types are known.
    fn reach<'a>(&'a self, path: &'a FieldPath) -> Reach<'a> {
        let Some(mut found) = self.columns.get(path.field()) else { return Reach::NoField };
        let mut whole = path.field().to_owned();
        for wanted in path.keys() {
            let keys = match found {
                Type::Object(keys) => keys,
                kind => return Reach::NoObject { kind, wanted },
            };
            let Some((_, item)) = keys.iter().find(|(name, _)| name == wanted) else {
                return Reach::NoKey { whole, wanted, keys };
            };
            found = item;
            whole = format!("{whole}.{wanted}");
        }
        Reach::Value(found)
    }

    /// Checks that a field path exists here; returns its type if that is known.
    pub fn reads(&mut self, key: &str, path: &str) -> Option<Type> {
        let path = FieldPath::parse(path);
        let (message, hint) = match self.reach(&path) {
            Reach::Value(kind) => return Some(kind.clone()),
            Reach::NoObject { kind: Type::Json, .. } => return Some(Type::Json),
            Reach::NoField => {
                let known = self.columns.keys().cloned().collect();
                let (place, step) = (self.place(key), self.step.clone());
                self.missing.push(Missing { place, field: path.field().to_owned(), known, step });
                return None;
            }
            Reach::NoKey { wanted, keys, .. } => {
                let hint = name_hint(wanted, keys.iter().map(|(name, _)| name.as_str()));
                (format!("`{}` has no key `{wanted}`", path.field()), hint)
            }
            Reach::NoObject { kind, wanted } => {
                (format!("`{}` is {kind}; it has no key `{wanted}`", path.field()), None)
            }
        };
        self.problem(key, message).hint = hint;
        None
    }

    /// The type of the value at a field path, if it is known; reports nothing.
    pub fn type_at(&self, path: &str) -> Option<Type> {
        match self.reach(&FieldPath::parse(path)) {
            Reach::Value(kind) => Some(kind.clone()),
            Reach::NoField | Reach::NoKey { .. } | Reach::NoObject { .. } => None,
        }
    }

    /// Declares a new column; a name that is taken or reserved is a problem.
    pub fn makes(&mut self, key: &str, field: &str, kind: Type) {
        let wrong = if field.is_empty() {
            Some("a field needs a name".to_owned())
        } else if field.contains('.') {
            Some(format!("`{field}` cannot name a field: a dot reaches into objects"))
        } else if field.starts_with(RESERVED_PREFIX) {
            Some(format!("`{field}` is reserved: names in `{RESERVED_PREFIX}…` are textmill's own columns"))
        } else if self.columns.contains_key(field) {
            Some(format!("the field `{field}` exists already"))
        } else {
            None
        };
        if let Some(message) = wrong {
            self.problem(key, message).hint = Some("choose another name".to_owned());
        }
        self.columns.insert(field.to_owned(), kind);
    }

    /// Checks that a teacher of this name is declared, and one that writes.
    pub fn teacher(&mut self, key: &str, name: &str) {
        self.declared(key, name);
        let lack = || "which writes nothing".to_owned();
        self.api_has(key, name, |format| (!format.wire().writes()).then(lack));
    }

    /// Checks that a teacher of this name is declared, and one that gives vectors.
    pub fn embedder(&mut self, key: &str, name: &str) {
        self.declared(key, name);
        let lack = || "which gives no vectors; a teacher with `embeddings:` does".to_owned();
        self.api_has(key, name, |format| format.wire().writes().then(lack));
    }

    fn declared(&mut self, key: &str, name: &str) {
        self.teachers_used.insert(name.to_owned());
        let Some(teachers) = self.teachers else { return };
        if !teachers.iter().any(|known| known == name) {
            let hint = name_hint(name, teachers.iter().map(String::as_str))
                .unwrap_or_else(|| "declare it under `teachers:`".to_owned());
            self.problem(key, format!("there is no teacher `{name}`")).hint = Some(hint);
        }
    }

    /// Reports what a key asks for and the teacher's API does not have. `lack` says what is missing, if anything.
    pub fn api_has(&mut self, key: &str, teacher: &str, lack: impl Fn(ApiFormat) -> Option<String>) {
        let Some(format) = self.apis.get(teacher) else { return };
        if let Some(lack) = lack(*format) {
            let message = format!("teacher `{teacher}` speaks `{}`, {lack}", format.wire().name());
            self.problem(key, message);
        }
    }

    /// Checks that a file exists; returns its full path.
    pub fn file(&mut self, key: &str, path: &str) -> PathBuf {
        let full = self.base.join(path);
        if !full.is_file() {
            self.problem(key, format!("there is no file `{path}`")).hint =
                Some(format!("looked for {}; paths are relative to the pipeline file", shown_path(&full)));
        }
        self.files.insert(full.clone());
        full
    }
}

/// What an operator is built from.
pub struct Kit {
    pub templates: Templates,
    pub base: PathBuf,
    pub seed: u64,
    pub epoch: Arc<str>,
    /// The step that is being built: its name and its position.
    pub step: Arc<str>,
    pub step_index: usize,
    pub teachers: Arc<IndexMap<String, Arc<Teacher>>>,
    pub desk: Arc<Desk>,
    pub commands: Arc<Commands>,
    /// The dataset that the run publishes.
    pub target: PathBuf,
    /// Where saved indexes of published data are; nothing where rows are compared with no data but their own,
    /// as in a pipeline's tests.
    pub indexes: Option<PathBuf>,
}

/// How the commands of steps are started.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    /// Their environment variables: those of [`crate::teacher::process::MINIMAL_ENV`] that are set.
    pub environment: Vec<(String, String)>,
    /// What starts the watch that ends them when we are killed; empty for none.
    pub watch: Vec<OsString>,
}

impl Kit {
    /// A line to a teacher for this step's calls.
    pub fn caller(&self, teacher: &str) -> anyhow::Result<Caller> {
        let Some(teacher) = self.teachers.get(teacher) else {
            anyhow::bail!("there is no teacher `{teacher}`");
        };
        Ok(Caller::new(&self.desk, teacher, &self.step, self.step_index))
    }

    pub fn template(&self, text: &str) -> anyhow::Result<Template> {
        self.templates.template(text).map_err(|error| anyhow::anyhow!(error.message))
    }

    pub fn expression(&self, text: &str) -> anyhow::Result<Expression> {
        self.templates.expression(text).map_err(|error| anyhow::anyhow!(error.message))
    }
}
