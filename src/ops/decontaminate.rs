//! `decontaminate`: reject rows that contain a benchmark's items.
//!
//! # What it does
//! Rejects a row `contaminated` if its texts contain an item of a benchmark, as it is, edited, or in other words. The
//! evidence says of which benchmark, which item, which stage found it, at what score and what score it takes, and
//! has both passages: `{"benchmark": "HumanEval", "item": "HumanEval/7", "stage": "ngrams", "score": 0.97, "needed":
//! 0.8, "text": "…", "reference": "…"}`; what else was found is in `also`. `textmill contamination` prints them
//! side by side, by benchmark. The stages, the cheapest first; the first that finds something decides:
//!
//! - `ngrams`: 5 words in a row that are also in a question or an answer start a comparison word by word, which lets
//!   words be inserted, left out and replaced. The words found must weigh 80 % of the part's (rare words weigh more;
//!   parts of less than 50 words need more, all but one or two words in a row, and below 15 words every one). Case,
//!   punctuation and layout do not count. Runs that more than 8 parts share, or that are in `background` files,
//!   start nothing.
//! - `python`: the row's Python functions, also between the fences of Markdown, without names, literals, docstrings
//!   and types, against those of the items: syntax trees that match at a rate of 0.9 or more (phi-1, arXiv
//!   2306.11644, section 5.2, prunes at 0.8 to 0.95; at 0.9 none of 400 functions of CPython's library matched a
//!   task of HumanEval). Functions of fewer than 30 nodes are alike by chance and left out.
//! - `embeddings`: the row's functions and passages against the items by vectors: of a sentence `model` (ONNX, its
//!   `tokenizer.json` beside it, run here), or of a `teacher` with an `embeddings:` API. No threshold is copied from anywhere: it is measured with this model
//!   and these items when the step is built, on texts that textmill ships: 56 that have to do with no benchmark say
//!   what score a share of `false_positives` is expected to reach, 22 pairs of a text and the same in other words say
//!   what share of rephrased items is found. Both measurements stand in the evidence of every match.
//!
//! # When to use it
//! Always, before anything is trained on that will be measured with a benchmark. Name every benchmark that you will
//! measure with. Files are JSONL, CSV or Parquet, also compressed, in the layouts of HumanEval, MBPP, GSM8K, MMLU or
//! decon's `question`, `answer`, `eval_key`; of any other, name the `fields` of the text, the question's first.
//!
//! # Example
//! ```yaml
//! - decontaminate:
//!     fields: [exercise.statement, exercise.solution]
//!     against:
//!       - data/HumanEval.jsonl.gz
//!       - { files: bench/own.csv, fields: [task, code], name: own }
//!     embeddings: { model: models/minilm/model.onnx }
//! ```
//!
//! # Limits
//! Measured with HumanEval and all-MiniLM-L6-v2 (`tests/parity/decontaminate/run.sh`): `ngrams` finds every task as it
//! is and with any one edit (5,248 rows); of 147 tasks in other words `ngrams` finds none, `python` 13 %, all three
//! together every one, at 0.3 % of 2,330 functions of CPython's library rejected, among them `statistics.median`, which
//! is a task of HumanEval. How the score is made was chosen with these tasks and functions in sight, so expect less of
//! others: of the shipped pairs, which are harder and had no part in it, 45 % lie above the threshold, and that is the
//! recall that the evidence tells. What is found is what is near: a row about
//! the same small problem as an item is rejected whether it was copied or not. Tests of other models, languages and
//! kinds of items give other figures: look at the evidence. The shipped texts are English and Python; for others set a
//! `threshold` that was measured on pairs of your own.
//!
//! Parts of fewer than 10 words are not looked for by words, functions of fewer than 30 nodes not by shape.
//! `embeddings` runs the model twice, 10 to 30 ms a time on one core, for each function and each 2,000 bytes of a row,
//! of which at most 16, spread evenly, are looked at; the vectors of the items are made anew by every run, two for each
//! item. `ngrams` reads more than 100 MB a second on one core, `python` 5 to 15. Memory: about 2.5 KB an item, 3 KB more
//! with `embeddings` (384 numbers, twice). A `teacher` is asked for the items' vectors when the first row comes so far:
//! two for each item and 200 for the shipped texts, which no plan counts; they are in the store from then on. What is no text is rejected `type_mismatch`.

mod cascade;
mod near;
mod shipped;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::data::read::find_files;
use crate::data::reference::{Item, read_items};
use crate::kit::{Check, Kit};
use crate::ops::text_field::TextField;
use crate::ops::{Asks, Operator, Runner};
use cascade::{Cascade, Source};
use near::ByTeacher;

/// Reject rows that contain a benchmark's items.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "decontaminate", deny_unknown_fields)]
pub struct Decontaminate {
    /// The fields that hold the row's texts, or keys inside some: `[exercise.statement, exercise.solution]`. They are
    /// compared as one text.
    pub fields: Vec<String>,
    /// The benchmarks: files or patterns, or maps that also name them or their fields.
    pub against: Vec<ReferenceFile>,
    /// Which comparisons are made: `[ngrams, python]` by default, and `embeddings` where a model is named.
    pub stages: Option<Vec<Stage>>,
    /// How words are compared.
    #[serde(default)]
    pub ngrams: NgramsFile,
    /// How Python functions are compared.
    #[serde(default)]
    pub python: PythonFile,
    /// The model that compares meanings.
    pub embeddings: Option<EmbeddingsFile>,
}

/// One way of comparing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Word by word.
    Ngrams,
    /// By the shape of Python functions.
    Python,
    /// By meaning.
    Embeddings,
}

/// A benchmark: its files, and what to make of them.
#[derive(Clone, Debug)]
pub struct ReferenceFile(ReferenceMap);

/// A benchmark whose layout or name is given.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "benchmark", deny_unknown_fields)]
struct ReferenceMap {
    /// A file or a pattern.
    files: String,
    /// The fields of the text, that of the question first; told by the columns by default.
    fields: Option<Vec<String>>,
    /// What the benchmark is called in evidence and reports; the file's name by default.
    name: Option<String>,
}

/// How words are compared.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "decontaminate_ngrams", default, deny_unknown_fields)]
pub struct NgramsFile {
    /// Words in a row that start a comparison: 5 by default.
    pub size: usize,
    /// The share of a part's weight that a text must have, above 0 and at most 1: 0.8 by default.
    pub coverage: f64,
    /// Parts (questions, answers) of fewer words are passed over: 10 by default.
    pub min_words: usize,
    /// Runs of words that more parts share start nothing: 8 by default.
    pub shared_by: usize,
    /// Texts whose runs of words start nothing: files or patterns of plain text or of rows, all of whose texts count.
    pub background: Vec<String>,
}

impl Default for NgramsFile {
    fn default() -> NgramsFile {
        NgramsFile { size: 5, coverage: 0.8, min_words: 10, shared_by: 8, background: Vec::new() }
    }
}

/// How Python functions are compared.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "decontaminate_python", default, deny_unknown_fields)]
pub struct PythonFile {
    /// The rate at which two functions must match, at least 0.5 and at most 1: 0.9 by default.
    pub rate: f64,
    /// Functions of fewer nodes are passed over: 30 by default.
    pub min_nodes: usize,
}

impl Default for PythonFile {
    fn default() -> PythonFile {
        PythonFile { rate: 0.9, min_nodes: 30 }
    }
}

/// The model that compares meanings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "decontaminate_embeddings", deny_unknown_fields)]
pub struct EmbeddingsFile {
    /// A sentence model in an ONNX file.
    pub model: Option<String>,
    /// A teacher with an `embeddings:` API, instead of a `model`.
    pub teacher: Option<String>,
    /// Its `tokenizer.json`; the one beside it by default.
    pub tokenizer: Option<String>,
    /// The share of rows without any item that may be rejected, above 0 and at most 0.5: 0.005 by default.
    pub false_positives: Option<f64>,
    /// A score instead of the measured one: the mean cosine less that of unrelated texts.
    pub threshold: Option<f64>,
    /// Most passages of a row that are compared: 16 by default.
    #[serde(default = "passages_max")]
    pub passages_max: usize,
}

fn passages_max() -> usize {
    16
}

impl EmbeddingsFile {
    fn check_source(&self, check: &mut Check<'_>) {
        let wrong = match (&self.model, &self.teacher) {
            (Some(model), None) => {
                check.file("model", model);
                None
            }
            (None, Some(teacher)) => {
                check.embedder("teacher", teacher);
                None
            }
            (Some(_), Some(_)) => Some(("teacher", "`model` and `teacher` exclude each other")),
            (None, None) => Some(("", "nothing says what makes the vectors: name a `model` or a `teacher`")),
        };
        if let Some((key, message)) = wrong {
            check.problem(key, message);
        }
        match &self.tokenizer {
            Some(_) if self.model.is_none() => {
                check.problem("tokenizer", "`tokenizer` goes with a `model`");
            }
            Some(tokenizer) => drop(check.file("tokenizer", tokenizer)),
            None => {}
        }
    }
}

impl Decontaminate {
    /// The teacher that is asked, if one is.
    fn teacher(&self) -> Option<(&EmbeddingsFile, &str)> {
        let embeddings = self.embeddings.as_ref().filter(|_| self.does(Stage::Embeddings))?;
        Some((embeddings, embeddings.teacher.as_deref()?))
    }

    fn does(&self, stage: Stage) -> bool {
        match &self.stages {
            Some(stages) => stages.contains(&stage),
            None => stage != Stage::Embeddings || self.embeddings.is_some(),
        }
    }

    fn check_numbers(&self, check: &mut Check<'_>) {
        let share = |value: f64, least: f64, most: f64| value > least && value <= most;
        if !(2..=50).contains(&self.ngrams.size) {
            check.problem("ngrams.size", "`size` must be 2 to 50");
        }
        if self.ngrams.min_words < self.ngrams.size {
            check.problem("ngrams.min_words", "`min_words` must be at least `size`");
        }
        if !share(self.ngrams.coverage, 0.0, 1.0) {
            check.problem("ngrams.coverage", "`coverage` must be above 0 and at most 1");
        }
        if !(0.5..=1.0).contains(&self.python.rate) {
            check.problem("python.rate", "`rate` must be at least 0.5 and at most 1");
        }
        let Some(embeddings) = &self.embeddings else { return };
        if embeddings.threshold.is_some() && embeddings.false_positives.is_some() {
            let message = "`threshold` and `false_positives` exclude each other";
            check.problem("embeddings.threshold", message);
        }
        if embeddings.false_positives.is_some_and(|wanted| !share(wanted, 0.0, 0.5)) {
            let message = "`false_positives` must be above 0 and at most 0.5";
            check.problem("embeddings.false_positives", message);
        }
        if embeddings.passages_max == 0 {
            check.problem("embeddings.passages_max", "`passages_max` must be at least 1");
        }
    }

    fn check_stages(&self, check: &mut Check<'_>) {
        if self.stages.as_ref().is_some_and(Vec::is_empty) {
            check.problem("stages", "the list of stages is empty: the step does nothing");
        }
        match &self.embeddings {
            None if self.does(Stage::Embeddings) => {
                check.problem("stages", "`embeddings` needs a model").hint =
                    Some("name it: `embeddings: { model: path/to/model.onnx }`".to_owned());
            }
            Some(_) if !self.does(Stage::Embeddings) => {
                check.problem("embeddings", "`stages` leaves `embeddings` out");
            }
            Some(embeddings) => check.part("embeddings", |check| embeddings.check_source(check)),
            None => {}
        }
    }

    fn items(&self, kit: &Kit) -> anyhow::Result<Vec<Item>> {
        let mut items = Vec::new();
        for ReferenceFile(reference) in &self.against {
            let files = find_files(&kit.base, &reference.files)?;
            items.extend(read_items(&files, reference.fields.as_deref(), reference.name.as_deref())?);
        }
        anyhow::ensure!(!items.is_empty(), "the benchmarks in `against` have no items");
        Ok(items)
    }
}

impl Operator for Decontaminate {
    fn check(&self, check: &mut Check<'_>) {
        if self.fields.is_empty() {
            check.problem("fields", "the list of fields is empty");
        }
        for (index, field) in self.fields.iter().enumerate() {
            TextField::check(check, &format!("fields[{index}]"), field);
        }
        if self.against.is_empty() {
            check.problem("against", "nothing says which benchmarks to look for");
        }
        let references = self.against.iter().map(|ReferenceFile(reference)| &reference.files).enumerate();
        let backgrounds = self.ngrams.background.iter().enumerate();
        for (key, pattern) in references
            .map(|(index, files)| (format!("against[{index}]"), files))
            .chain(backgrounds.map(|(index, files)| (format!("ngrams.background[{index}]"), files)))
        {
            match find_files(check.base, pattern) {
                Ok(files) => check.files.extend(files),
                Err(error) => check.problem(&key, error.message).hint = error.hint,
            }
        }
        self.check_stages(check);
        self.check_numbers(check);
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let source = Source::new(&self.fields, self.items(kit)?);
        let cascade = Cascade::build(self, source.clone(), &kit.base)?;
        let mut runners = vec![Runner::Map(Box::new(cascade))];
        if let Some((config, teacher)) = self.teacher() {
            runners.push(Runner::Call(Box::new(ByTeacher::build(config, teacher, source, kit)?)));
        }
        Ok(runners)
    }

    fn asks(&self) -> Vec<Asks<'_>> {
        let Some((embeddings, teacher)) = self.teacher() else { return Vec::new() };
        // Two vectors for each passage; rows that an earlier stage rejects ask for none.
        let most = u32::try_from(embeddings.passages_max.saturating_mul(2)).unwrap_or(u32::MAX);
        vec![Asks { part: "embeddings", calls: [0, most], ..Asks::once(teacher, Some(0), false) }]
    }
}

impl<'de> Deserialize<'de> for ReferenceFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ReferenceFile, D::Error> {
        deserializer.deserialize_any(FilesOrMap)
    }
}

struct FilesOrMap;

const REFERENCE: &str = "a file or pattern, or `{ files: …, fields: […], name: … }`";

impl<'de> Visitor<'de> for FilesOrMap {
    type Value = ReferenceFile;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REFERENCE)
    }

    fn visit_str<E: Error>(self, files: &str) -> Result<ReferenceFile, E> {
        Ok(ReferenceFile(ReferenceMap { files: files.to_owned(), fields: None, name: None }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ReferenceFile, A::Error> {
        ReferenceMap::deserialize(MapAccessDeserializer::new(map)).map(ReferenceFile)
    }
}

impl JsonSchema for ReferenceFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "benchmark_or_files".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let forms = [generator.subschema_for::<String>(), generator.subschema_for::<ReferenceMap>()];
        schemars::json_schema!({ "description": REFERENCE, "anyOf": forms })
    }
}

#[cfg(test)]
mod tests;
