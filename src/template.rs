//! Templates and expressions: Jinja (minijinja), strict about undefined names.
//!
//! The one small language of pipeline files. Row values are data here and never compiled. Included
//! files stay under the templates folder. Nothing here knows about operators or teachers.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};

use crate::problem::{name_hint, shown_path};
use crate::row::{Fields, Value};

mod lint;
mod shared;

use lint::Side;

pub use shared::Rendered;
use shared::{CACHE_HERE, Head};

/// Instructions one rendering may take: a loop over 10,000 items with a few filters each passes,
/// an endless one stops within about a tenth of a second.
const FUEL: u64 = 1_000_000;
/// Bytes one rendering may produce; more than any context window takes.
const RENDERED_BYTES_MAX: usize = 16 << 20;
/// Bytes of one template file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// With more templates than this a hint does not look for the nearest name.
const HINT_FILES_MAX: usize = 200;

/// Something wrong with a template or an expression, or with rendering it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// One sentence; holds no values of the row.
    pub message: String,
    /// Where it is, if that is known.
    pub place: Option<TextPlace>,
    pub hint: Option<String>,
}

/// A place in the text of a template or an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPlace {
    /// The file it is in, for templates from files; inline text otherwise.
    pub file: Option<PathBuf>,
    pub range: Range<usize>,
    /// Of the range's start, from 1; the column in characters.
    pub line: usize,
    pub column: usize,
}

impl TextPlace {
    fn new(file: Option<&Path>, text: &str, range: Range<usize>) -> TextPlace {
        let before = &text[..text.floor_char_boundary(range.start)];
        let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
        TextPlace { file: file.map(Path::to_owned), range, line: 1 + before.matches('\n').count(), column }
    }
}

impl TemplateError {
    fn plain(message: String) -> TemplateError {
        TemplateError { message, place: None, hint: None }
    }
}

/// The folder that templates and what they include come from.
#[derive(Clone)]
pub struct Templates {
    folder: PathBuf,
}

/// A compiled template that knows which fields it needs.
#[derive(Clone)]
pub struct Template {
    env: Arc<Environment<'static>>,
    name: Arc<str>,
    /// Row fields that the template or anything it includes asks for.
    needs: Arc<BTreeSet<String>>,
    /// The same with the keys that are reached into: `exercise.solution`.
    paths: Arc<BTreeSet<String>>,
    /// The template and what it includes.
    texts: Arc<Vec<TemplateText>>,
    /// What every rendering begins with.
    head: Head,
    /// Whether it says [`CACHE_HERE`].
    marks: bool,
}

struct TemplateText {
    /// `None` for inline text.
    file: Option<PathBuf>,
    text: String,
}

/// A compiled expression that knows which fields it needs.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    compiled: Arc<minijinja::Expression<'static, 'static>>,
    needs: Arc<BTreeSet<String>>,
    paths: Arc<BTreeSet<String>>,
    comparisons: Arc<Vec<(Side, Side)>>,
    guards_absence: bool,
}

/// Whether a text names a template file rather than being a template: one word ending in `.j2`.
pub fn names_a_file(text: &str) -> bool {
    text.ends_with(".j2") && !text.contains(char::is_whitespace) && !text.contains("{{")
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(FUEL));
    // A line that holds only a block tag leaves no blank line in the prompt. The default delimiters
    // always build.
    if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
        env.set_syntax(syntax);
    }
    env
}

impl Templates {
    /// Templates of `folder`, which need not exist when only inline templates are used.
    pub fn new(folder: &Path) -> Templates {
        Templates { folder: folder.to_owned() }
    }

    /// Compiles a template: the file of that name when [`names_a_file`], else the text itself.
    pub fn template(&self, text: &str) -> Result<Template, TemplateError> {
        if names_a_file(text) { self.file_template(text) } else { self.inline(text) }
    }

    fn inline(&self, text: &str) -> Result<Template, TemplateError> {
        self.compiled("inline", text.to_owned(), None)
    }

    fn file_template(&self, name: &str) -> Result<Template, TemplateError> {
        let path = self.path_of(name)?;
        let text = self.read(name, &path)?;
        self.compiled(name, text, Some(&path))
    }

    fn compiled(&self, name: &str, text: String, file: Option<&Path>) -> Result<Template, TemplateError> {
        let mut env = environment();
        env.add_function(CACHE_HERE, shared::mark);
        let head = Head::of(&text);
        let mut loading = Loading { templates: self, env, names: Names::default(), texts: Vec::new() };
        loading.add(name, text, file)?;
        let Loading { env, names: Names { needs, paths }, texts, .. } = loading;
        let marks = texts.iter().any(|text| text.text.contains(CACHE_HERE));
        Ok(Template {
            head,
            marks,
            env: Arc::new(env),
            name: name.into(),
            needs: Arc::new(needs),
            paths: Arc::new(paths),
            texts: Arc::new(texts),
        })
    }

    /// The file of a template name; stays under the folder.
    fn path_of(&self, name: &str) -> Result<PathBuf, TemplateError> {
        let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if plain {
            Ok(self.folder.join(name))
        } else {
            let error = TemplateError::plain(format!("template `{name}` would leave the templates folder"));
            let hint = format!("put it into `{}` and name it without `..`", shown_path(&self.folder));
            Err(TemplateError { hint: Some(hint), ..error })
        }
    }

    fn read(&self, name: &str, path: &Path) -> Result<String, TemplateError> {
        let problem = |what: String| TemplateError::plain(format!("template `{}` {what}", shown_path(path)));
        let size = match std::fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(self.missing(name)),
            Err(error) => return Err(problem(format!("cannot be read: {error}"))),
        };
        if size > FILE_BYTES_MAX {
            return Err(problem(format!("has {size} bytes, more than {FILE_BYTES_MAX}")));
        }
        std::fs::read_to_string(path).map_err(|error| problem(format!("cannot be read: {error}")))
    }

    fn missing(&self, name: &str) -> TemplateError {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).take(HINT_FILES_MAX).collect();
        names.sort();
        let hint = match name_hint(name, names.iter().map(String::as_str)) {
            Some(hint) if names.len() < HINT_FILES_MAX => hint,
            _ => "templates lie in the folder `templates` beside the pipeline file".to_owned(),
        };
        let message = format!("there is no template `{name}` in `{}`", shown_path(&self.folder));
        TemplateError { hint: Some(hint), ..TemplateError::plain(message) }
    }

    /// Compiles an expression, such as `grade >= 4 and language == "en"`.
    pub fn expression(&self, source: &str) -> Result<Expression, TemplateError> {
        // The environment is only read here; it lives as long as the expression does.
        let env: &'static Environment<'static> = shared_expression_environment();
        let compiled = env.compile_expression_owned(source.to_owned()).map_err(|error| {
            let error = located(&error, Some((source, None)));
            let in_braces = source.contains("{{") || source.contains("{%");
            let hint = in_braces.then(|| "an expression is written without braces".to_owned());
            TemplateError { hint: hint.or(error.hint), ..error }
        })?;
        known_words(env, source, None, true)?;
        let mut names = Names::default();
        names.add(env, compiled.undeclared_variables(false), compiled.undeclared_variables(true));
        names.add(env, sliced(source), HashSet::new());
        let guards_absence = source.contains("defined") || source.contains("default(");
        Ok(Expression {
            source: source.into(),
            compiled: Arc::new(compiled),
            needs: Arc::new(names.needs),
            paths: Arc::new(names.paths),
            comparisons: Arc::new(lint::comparisons(source)),
            guards_absence,
        })
    }
}

/// A template that is being compiled with all that it includes.
struct Loading<'a> {
    templates: &'a Templates,
    env: Environment<'static>,
    names: Names,
    texts: Vec<TemplateText>,
}

/// The fields that are asked for, and the keys of them.
#[derive(Default)]
struct Names {
    needs: BTreeSet<String>,
    paths: BTreeSet<String>,
}

impl Names {
    fn add(&mut self, env: &Environment<'_>, needs: HashSet<String>, paths: HashSet<String>) {
        let is_field = |name: &String| {
            let first = name.split('.').next().unwrap_or_default();
            !env.globals().any(|(global, _)| global == first)
        };
        self.needs.extend(needs.into_iter().filter(is_field));
        self.paths.extend(paths.into_iter().filter(is_field));
    }
}

impl Loading<'_> {
    fn add(&mut self, name: &str, text: String, file: Option<&Path>) -> Result<(), TemplateError> {
        let located = |error: minijinja::Error| located(&error, Some((&text, file)));
        self.env.add_template_owned(name.to_owned(), text.clone()).map_err(located)?;
        known_words(&self.env, &text, file, false)?;
        let template = self.env.get_template(name).map_err(located)?;
        let (needs, paths) = (template.undeclared_variables(false), template.undeclared_variables(true));
        self.names.add(&self.env, needs, paths);
        self.names.add(&self.env, sliced(&text), HashSet::new());
        for (included, place) in includes(&text) {
            if self.env.templates().any(|(known, _)| known == included) {
                continue;
            }
            let here = |error: TemplateError| TemplateError {
                place: Some(TextPlace::new(file, &text, place.clone())),
                ..error
            };
            let path = self.templates.path_of(&included).map_err(here)?;
            let inner = self.templates.read(&included, &path).map_err(here)?;
            self.add(&included, inner, Some(&path))?;
        }
        self.texts.push(TemplateText { file: file.map(Path::to_owned), text });
        Ok(())
    }
}

/// Filters and tests are looked up when a template is rendered; rows should not have to die of that.
fn known_words(
    env: &Environment<'_>,
    text: &str,
    file: Option<&Path>,
    is_expression: bool,
) -> Result<(), TemplateError> {
    match lint::unknown_word(env, text, is_expression) {
        None => Ok(()),
        Some((range, message, hint)) => {
            Err(TemplateError { message, place: Some(TextPlace::new(file, text, range)), hint })
        }
    }
}

/// Expressions borrow their environment for good, so there is one for the whole process.
fn shared_expression_environment() -> &'static Environment<'static> {
    static ENVIRONMENT: std::sync::OnceLock<Environment<'static>> = std::sync::OnceLock::new();
    ENVIRONMENT.get_or_init(environment)
}

impl Template {
    pub fn needs(&self) -> &BTreeSet<String> {
        &self.needs
    }

    /// The fields and keys of fields that are asked for: `topic`, `exercise.solution`.
    pub fn paths(&self) -> &BTreeSet<String> {
        &self.paths
    }

    /// The files that the template is made of; none for inline text that includes none.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.texts.iter().filter_map(|text| text.file.as_deref())
    }

    /// Where the template, or what it includes, names one of its [`Template::paths`].
    pub fn place_of(&self, path: &str) -> Option<TextPlace> {
        // The template itself is the last one, after what it includes.
        self.texts.iter().rev().find_map(|TemplateText { file, text }| {
            let range = lint::place_of(text, path, false)?;
            Some(TextPlace::new(file.as_deref(), text, range))
        })
    }

    pub fn render(&self, fields: &Fields) -> Result<String, TemplateError> {
        Ok(self.render_shared(fields)?.text)
    }

    /// The text, and what of it many rows have in common.
    pub fn render_shared(&self, fields: &Fields) -> Result<Rendered, TemplateError> {
        Ok(shared::rendered(self.rendered(fields)?, self.head, self.marks))
    }

    fn rendered(&self, fields: &Fields) -> Result<String, TemplateError> {
        let located = |error: minijinja::Error| located(&error, None);
        let template = self.env.get_template(&self.name).map_err(located)?;
        let text = template.render(context(&self.needs, fields)).map_err(|error| {
            let error = located(error);
            let is_absent = |name: &&String| {
                !fields.contains_key(*name) && error.message == format!("`{name}` is not defined")
            };
            match self.needs.iter().find(is_absent) {
                Some(absent) => TemplateError::plain(absent_field(absent)),
                None => error,
            }
        })?;
        if text.len() > RENDERED_BYTES_MAX {
            return Err(TemplateError::plain(format!(
                "the rendered text has {} bytes, more than {RENDERED_BYTES_MAX}",
                text.len()
            )));
        }
        Ok(text)
    }
}

/// The check knows every field that a step makes, so what is missing was not made for this row.
fn absent_field(name: &str) -> String {
    format!("the row has no field `{name}`; if a step makes it, its `when` did not hold")
}

impl Expression {
    pub fn needs(&self) -> &BTreeSet<String> {
        &self.needs
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// The fields and keys of fields that are asked for: `topic`, `exercise.solution`.
    pub fn paths(&self) -> &BTreeSet<String> {
        &self.paths
    }

    /// Where the expression names one of its [`Expression::paths`].
    pub fn place_of(&self, path: &str) -> Option<TextPlace> {
        let range = lint::place_of(&self.source, path, true)?;
        Some(TextPlace::new(None, &self.source, range))
    }

    /// Whether the expression itself asks if a field is there (`is defined`, `default(...)`).
    pub fn guards_absence(&self) -> bool {
        self.guards_absence
    }

    pub fn value(&self, fields: &Fields) -> Result<Value, TemplateError> {
        if !self.guards_absence
            && let Some(absent) = self.needs.iter().find(|need| !fields.contains_key(*need))
        {
            return Err(TemplateError::plain(absent_field(absent)));
        }
        self.comparable(fields)?;
        let value =
            self.compiled.eval(context(&self.needs, fields)).map_err(|error| located(&error, None))?;
        // Else a key that is not there would silently become null.
        if value.is_undefined() {
            return Err(TemplateError::plain(format!("`{}` is not defined", self.source)));
        }
        serde_json::to_value(&value)
            .map_err(|error| TemplateError::plain(format!("the value is no JSON: {error}")))
    }

    /// Jinja orders values of all kinds; what a user compares by size must be of one kind.
    fn comparable(&self, fields: &Fields) -> Result<(), TemplateError> {
        let kind = |side: &Side| match side {
            Side::Number => Some("a number"),
            Side::Text => Some("a text"),
            Side::Field(path) => path.value(fields).map(kind_of),
        };
        for (left, right) in self.comparisons.iter() {
            let (Some(left_kind), Some(right_kind)) = (kind(left), kind(right)) else { continue };
            let plain = ["a number", "a text"].contains(&left_kind);
            if left_kind != right_kind || !plain {
                let shown = |side: &Side, kind: &str| match side {
                    Side::Field(path) => format!("`{path}` ({kind})"),
                    Side::Number | Side::Text => kind.to_owned(),
                };
                let (left, right) = (shown(left, left_kind), shown(right, right_kind));
                return Err(TemplateError::plain(format!("{left} cannot be compared with {right}")));
            }
        }
        Ok(())
    }

    /// The expression's truth; anything but a boolean is an error, never "truthy".
    pub fn holds(&self, fields: &Fields) -> Result<bool, TemplateError> {
        match self.value(fields)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(TemplateError::plain(format!(
                "`{}` is {}, not true or false",
                self.source,
                kind_of(&other)
            ))),
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn context(needs: &BTreeSet<String>, fields: &Fields) -> minijinja::Value {
    let pair = |name: &String| Some((name.clone(), minijinja::Value::from(Serde(fields.get(name)?))));
    minijinja::Value::from_pairs(needs.iter().filter_map(pair))
}

/// Names in `{% include "name" %}`, `import`, `extends` and `from`, and where they stand.
fn includes(text: &str) -> Vec<(String, Range<usize>)> {
    static PATTERN: std::sync::LazyLock<Option<regex::Regex>> = std::sync::LazyLock::new(|| {
        regex::Regex::new(r#"\{%[-+]?\s*(?:include|import|extends|from)\s+["']([^"']+)["']"#).ok()
    });
    let found =
        PATTERN.iter().flat_map(|pattern| pattern.captures_iter(text)).filter_map(|found| found.get(1));
    found.map(|name| (name.as_str().to_owned(), name.range())).collect()
}

/// Names that are cut by a slice, `text[:500]` or `(text | lower)[:60]`, and not bound in the template
/// itself: `undeclared_variables` of minijinja 3.1 does not look inside a slice.
fn sliced(text: &str) -> HashSet<String> {
    const CUT: &str = r"(?:^|[^\w.])([^\W\d]\w*)(?:\.\w+)*(?:\s*\|[^()\[\]]*\))?\s*\[[^\[\]]*:";
    const BOUND: &str = r"(?:\bfor\s+(\w+)(?:\s*,\s*(\w+))?\s+in\b|\bset\s+(\w+)\b)";
    static PATTERNS: std::sync::LazyLock<Option<(regex::Regex, regex::Regex)>> =
        std::sync::LazyLock::new(|| Some((regex::Regex::new(CUT).ok()?, regex::Regex::new(BOUND).ok()?)));
    let Some((cut, bound)) = &*PATTERNS else { return HashSet::new() };
    let bound: BTreeSet<&str> = bound
        .captures_iter(text)
        .flat_map(|found| found.iter().skip(1).flatten().map(|name| name.as_str()).collect::<Vec<_>>())
        .collect();
    let names = cut.captures_iter(text).filter_map(|found| found.get(1)).map(|name| name.as_str());
    names.filter(|name| !bound.contains(name)).map(str::to_owned).collect()
}

/// Our error from minijinja's, without its debug view, which would show values of the row. `source` is the
/// text and file that a place may be in.
fn located(error: &minijinja::Error, source: Option<(&str, Option<&Path>)>) -> TemplateError {
    let mut innermost = error;
    while let Some(source) =
        std::error::Error::source(innermost).and_then(|source| source.downcast_ref::<minijinja::Error>())
    {
        innermost = source;
    }
    let mut message = match innermost.detail() {
        Some(detail) => format!("{}: {detail}", innermost.kind()),
        None => innermost.kind().to_string(),
    };
    if innermost.kind() == minijinja::ErrorKind::OutOfFuel {
        message = "the template runs too long".to_owned();
    }
    let range = innermost.range();
    if innermost.kind() == minijinja::ErrorKind::UndefinedError
        && let (Some(source), Some(range)) = (innermost.template_source(), &range)
        && let Some(name) = source.get(range.clone())
    {
        message = format!("`{}` is not defined", name.trim());
    }
    let range = range.filter(|_| std::ptr::eq(innermost, error));
    let hint = source
        .zip(range.clone())
        .and_then(|((text, _), range)| syntax_hint(&message, text.get(range.start..)?));
    let place = source.zip(range).map(|((text, file), range)| TextPlace::new(file, text, range));
    TemplateError { message, place, hint }
}

/// What is most likely meant where the text from `rest` on does not fit.
fn syntax_hint(message: &str, rest: &str) -> Option<String> {
    let hint = match rest.chars().next() {
        _ if message.contains("expected end of block") => "is an `{% endif %}` or `{% endfor %}` missing?",
        _ if message.contains("unexpected end of input") => "something is missing at the end",
        Some('=') if !rest.starts_with("==") => "write `==` to compare",
        Some('&') => "write `and`",
        Some('|') if rest.starts_with("||") => "write `or`",
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        value.as_object().unwrap().clone()
    }

    fn check(template: &str, row: Value, expected: Result<&str, &str>) {
        let templates = Templates::new(Path::new("nowhere"));
        let rendered = templates.template(template).and_then(|template| template.render(&fields(row)));
        let rendered = rendered.map_err(|error| error.message);
        assert_eq!(rendered.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn renders_and_reports() {
        check("Hi {{ name }}", json!({"name": "<b>"}), Ok("Hi <b>"));
        check(
            "Hi {{ name }}",
            json!({}),
            Err("the row has no field `name`; if a step makes it, its `when` did not hold"),
        );
        check("Hi {{ x.y }}", json!({"x": {}}), Err("`x.y` is not defined"));
        check("{{ x | tojson }}", json!({"x": {"b": 1, "a": 2}}), Ok(r#"{"b": 1, "a": 2}"#));
        check(
            "{% for i in range(99999) %}{{ range(99) }}{% endfor %}",
            json!({}),
            Err("the template runs too long"),
        );
    }

    #[test]
    fn names_need_not_be_ascii() {
        check("{{ 日本 }}, {{ größe[:1] }}", json!({"日本": "a", "größe": "bc"}), Ok("a, b"));
        let expression = Templates::new(Path::new("nowhere")).expression("größe > 1").unwrap();
        let place = expression.place_of("größe").unwrap();
        assert_eq!((place.range, place.column), (0..7, 1));
    }

    /// Checks the hint for an expression that does not compile.
    fn check_hint(source: &str, expected: Option<&str>) {
        let error = Templates::new(Path::new("nowhere")).expression(source).err().unwrap();
        assert_eq!(error.hint.as_deref(), expected, "{source}: {}", error.message);
    }

    #[test]
    fn hints_say_what_was_meant() {
        check_hint("{{ id > 1 }}", Some("an expression is written without braces"));
        check_hint("{% if id %}", Some("an expression is written without braces"));
        check_hint("a = 1", Some("write `==` to compare"));
        check_hint("a.b ==", Some("something is missing at the end"));
        check_hint("a == == b", None);
        check_hint("a && b", Some("write `and`"));
    }

    #[test]
    fn slices_need_what_they_cut() {
        check("{{ x[:2] }}", json!({"x": "abc"}), Ok("ab"));
        check("{{ (x | upper)[:2] }}", json!({"x": "abc"}), Ok("AB"));
        let templates = Templates::new(Path::new("nowhere"));
        let needs =
            |text: &str| templates.template(text).unwrap().needs().iter().cloned().collect::<Vec<_>>();
        assert_eq!(needs("{{ text[:9] }}{{ a.b[1:] }}"), ["a", "text"]);
        assert_eq!(needs("{% for x in xs %}{{ x[:9] }}{% endfor %}"), ["xs"]);
    }

    #[test]
    fn values_are_not_templates() {
        check("{{ x }}", json!({"x": "{{ 1 + 1 }}"}), Ok("{{ 1 + 1 }}"));
    }

    fn check_expression(source: &str, row: Value, expected: Result<bool, &str>) {
        let templates = Templates::new(Path::new("nowhere"));
        let held = templates.expression(source).and_then(|expression| expression.holds(&fields(row)));
        assert_eq!(held.as_ref().copied().map_err(|error| error.message.as_str()), expected);
    }

    #[test]
    fn expressions_are_booleans_or_errors() {
        check_expression("grade >= 4", json!({"grade": 5}), Ok(true));
        let absent = "the row has no field `grade`; if a step makes it, its `when` did not hold";
        check_expression("grade >= 4", json!({}), Err(absent));
        check_expression(
            "grade >= 4",
            json!({"grade": "5"}),
            Err("`grade` (a text) cannot be compared with a number"),
        );
        check_expression(
            "4 < g.x",
            json!({"g": {"x": null}}),
            Err("a number cannot be compared with `g.x` (null)"),
        );
        check_expression("grade > best", json!({"grade": "b", "best": "a"}), Ok(true));
        check_expression("grade is defined and grade >= 4", json!({}), Ok(false));
        check_expression("grade", json!({"grade": 5}), Err("`grade` is a number, not true or false"));
        check_expression("x.y", json!({"x": {}}), Err("`x.y` is not defined"));
        check_expression("'a' in words", json!({"words": ["a"]}), Ok(true));
    }

    /// Pieces that templates and expressions are made of, in any order.
    fn pieces() -> impl Strategy<Value = String> {
        let pieces = [
            "{{", "}}", "{%", "%}", "{#", "#}", " ", "x", "größe", ".", "[", "]", "[:2]", "(", ")", "|",
            "upper", "tojson", " is ", "defined", "if", "endif", "for", "in", "endfor", "set", "=", "==",
            "<", "and", "1", "9e9", "'a'", "\"", "'", "-", "~", "{", "}", ":", ",", "\n", "\\", "\0",
            "macro", "range(9)", "*",
        ];
        proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..20)
            .prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_makes_it_panic(text in pieces(), inner in ".{0,20}") {
            let templates = Templates::new(Path::new("nowhere"));
            let row = fields(json!({"x": "abc", "größe": [1, {"a": null}]}));
            for text in [text.clone(), format!("{{{{ {text} }}}}"), format!("{text}{inner}")] {
                if let Ok(template) = templates.template(&text) {
                    template.paths().iter().for_each(|path| drop(template.place_of(path)));
                    let _ = template.render(&row);
                }
                if let Ok(expression) = templates.expression(&text) {
                    expression.paths().iter().for_each(|path| drop(expression.place_of(path)));
                    let _ = expression.holds(&row);
                }
            }
        }
    }

    #[test]
    fn includes_stay_under_the_folder_and_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.j2"), "{% include 'b.j2' %} {{ x }}").unwrap();
        std::fs::write(folder.path().join("b.j2"), "{{ y }}").unwrap();
        let templates = Templates::new(folder.path());
        let template = templates.template("a.j2").unwrap();
        assert_eq!(template.needs().iter().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(template.render(&fields(json!({"x": 1, "y": 2}))).unwrap(), "2 1");
        std::fs::write(folder.path().join("c.j2"), "{% include '../secret' %}").unwrap();
        let error = templates.template("c.j2").err().unwrap();
        assert_eq!(error.message, "template `../secret` would leave the templates folder");
    }
}
