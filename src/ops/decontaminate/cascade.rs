//! The stages of `decontaminate` in turn, and the evidence of what they find.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::data::read::{FileSource, ReadOptions, find_files};
use crate::data::reference::Item;
use crate::ops::MapRow;
use crate::ops::decontaminate::near::ByModel;
use crate::ops::decontaminate::{Decontaminate, Stage};
use crate::ops::text_field::TextField;
use crate::row::{Failure, Fields, Outcome, Reason, Row};
use crate::text::decontaminate::meaning::Calibration;
use crate::text::decontaminate::ngrams::{Index, Match, Settings};
use crate::text::decontaminate::passages::functions;
use crate::text::decontaminate::python::{Shapes, shapes};

/// Most characters of a passage in the evidence.
const SHOWN_CHARS_MAX: usize = 600;

/// Most Python functions of one row that are looked at.
const FUNCTIONS_MAX: usize = 1_000;

/// The benchmarks' items, and where the rows have their texts.
#[derive(Clone)]
pub struct Source {
    pub fields: Arc<[TextField]>,
    pub items: Arc<[Item]>,
}

pub struct Cascade {
    source: Source,
    ngrams: Option<Index>,
    python: Option<Python>,
    model: Option<ByModel>,
}

struct Python {
    shapes: Shapes,
    rate: f64,
    nodes_min: usize,
}

/// What a stage found.
pub struct Found {
    pub item: usize,
    pub stage: &'static str,
    pub score: f64,
    pub needed: f64,
    pub text: Range<usize>,
    pub reference: String,
    /// What the threshold was measured to do, if it was measured.
    pub calibration: Option<Calibration>,
}

impl Source {
    pub fn new(fields: &[String], items: Vec<Item>) -> Source {
        let fields = fields.iter().map(|field| TextField::new(field)).collect();
        Source { fields, items: items.into() }
    }

    /// The row's texts as one.
    pub fn text(&self, fields: &Fields) -> Result<String, Reason> {
        let texts: Vec<&str> = self.fields.iter().map(|field| field.of(fields)).collect::<Result<_, _>>()?;
        Ok(texts.join("\n\n"))
    }

    /// Why a row is rejected that has these texts in which these items were found; `None` without any.
    pub fn reason(&self, text: &str, found: &[Found]) -> Option<Reason> {
        let (first, others) = found.split_first()?;
        let mut evidence = self.evidence(text, first);
        if let Some(calibration) = first.calibration {
            evidence["calibration"] = json!({
                "pairs": calibration.pairs,
                "recall": rounded(calibration.recall),
                "negatives": calibration.negatives,
                "false_positives": rounded(calibration.false_positives),
            });
        }
        if !others.is_empty() {
            evidence["also"] = others.iter().map(|other| self.evidence(text, other)).collect();
        }
        Some(Reason::new("contaminated", evidence))
    }

    fn evidence(&self, text: &str, found: &Found) -> Value {
        let item = &self.items[found.item];
        json!({
            "benchmark": item.benchmark,
            "item": item.name,
            "stage": found.stage,
            "score": rounded(found.score),
            "needed": rounded(found.needed),
            "text": shown(&text[found.text.clone()]),
            "reference": shown(&found.reference),
        })
    }
}

impl Cascade {
    pub fn build(config: &Decontaminate, source: Source, base: &Path) -> anyhow::Result<Cascade> {
        let ngrams = match config.does(Stage::Ngrams) {
            true => Some(index(config, &source.items, base)?),
            false => None,
        };
        let model = match config.embeddings.as_ref().and_then(|file| Some((file, file.model.as_ref()?))) {
            Some((file, model)) if config.does(Stage::Embeddings) => {
                Some(ByModel::build(file, model, &source, base)?)
            }
            _ => None,
        };
        let python = config.does(Stage::Python).then(|| Python::build(config, &source.items));
        Ok(Cascade { source, ngrams, python, model })
    }

    /// What the first stage that finds something finds, the best first.
    fn find(&self, text: &str) -> anyhow::Result<Vec<Found>> {
        if let Some(index) = &self.ngrams {
            let found: Vec<Found> = index.find(text).into_iter().map(|found| self.by_words(found)).collect();
            if !found.is_empty() {
                return Ok(found);
            }
        }
        if let Some(python) = &self.python {
            let found = python.find(text, &self.source.items);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        match &self.model {
            Some(model) => Ok(model.find(&self.source, text)?.into_iter().collect()),
            None => Ok(Vec::new()),
        }
    }

    fn by_words(&self, found: Match) -> Found {
        let item = &self.source.items[found.item];
        let part = [&item.question, &item.answer][found.part.min(1)];
        let reference = part[found.reference].to_owned();
        let (score, needed) = (found.score, found.needed);
        Found {
            item: found.item,
            stage: "ngrams",
            score,
            needed,
            text: found.text,
            reference,
            calibration: None,
        }
    }
}

fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

/// A passage, cut where it is long.
fn shown(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl MapRow for Cascade {
    fn map(&self, row: Row) -> Outcome {
        let text = match self.source.text(&row.fields) {
            Ok(text) => text,
            Err(reason) => return Outcome::Reject(row, reason),
        };
        match self.find(&text) {
            Ok(found) => match self.source.reason(&text, &found) {
                Some(reason) => Outcome::Reject(row, reason),
                None => Outcome::Keep(row),
            },
            Err(error) => Outcome::Fail(row, Failure::new("model_failed", format!("{error:#}"))),
        }
    }
}

fn index(config: &Decontaminate, items: &[Item], base: &Path) -> anyhow::Result<Index> {
    let mut background = Vec::new();
    for pattern in &config.ngrams.background {
        let files = find_files(base, pattern)?;
        for row in FileSource::open(&files, None, ReadOptions::default())?.rows() {
            background.extend(row?.into_iter().filter_map(|(_, value)| value.as_str().map(str::to_owned)));
        }
    }
    let settings = Settings {
        n: config.ngrams.size,
        threshold: config.ngrams.coverage,
        words_min: config.ngrams.min_words,
        targets_max: config.ngrams.shared_by,
    };
    let parts = items.iter().enumerate();
    let parts = parts.flat_map(|(number, item)| [(number, 0, &*item.question), (number, 1, &*item.answer)]);
    let background: Vec<&str> = background.iter().map(String::as_str).collect();
    Ok(Index::new(settings, parts, &background))
}

/// An item as one text: a prompt that ends in the middle of a function goes on in its solution.
pub fn whole(item: &Item) -> String {
    let between = if item.question.is_empty() || item.question.ends_with('\n') { "" } else { "\n" };
    format!("{}{between}{}", item.question, item.answer)
}

impl Python {
    fn build(config: &Decontaminate, items: &[Item]) -> Python {
        let nodes_min = config.python.min_nodes.max(1);
        let mut known = Shapes::default();
        let texts: Vec<String> = items.iter().map(whole).collect();
        let mut numbers = Vec::new();
        let mut sources = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            for range in functions(text) {
                numbers.push(number);
                sources.push(&text[range]);
            }
        }
        for (number, shape) in numbers.into_iter().zip(shapes(&sources)) {
            if let Some(shape) = shape.filter(|shape| shape.len() >= nodes_min) {
                known.add(number, shape);
            }
        }
        Python { shapes: known, rate: config.python.rate, nodes_min }
    }

    fn find(&self, text: &str, items: &[Item]) -> Vec<Found> {
        if self.shapes.is_empty() {
            return Vec::new();
        }
        let mut ranges = functions(text);
        ranges.truncate(FUNCTIONS_MAX);
        let sources: Vec<&str> = ranges.iter().map(|range| &text[range.clone()]).collect();
        let mut found: Vec<Found> = Vec::new();
        for (range, shape) in ranges.iter().zip(shapes(&sources)) {
            let Some(shape) = shape.filter(|shape| shape.len() >= self.nodes_min) else { continue };
            let Some((item, score)) = self.shapes.best(&shape, self.rate) else { continue };
            if found.iter().all(|other| other.item != item) {
                let reference = whole(&items[item]);
                let (text, needed) = (range.clone(), self.rate);
                found.push(Found {
                    item,
                    stage: "python",
                    score,
                    needed,
                    text,
                    reference,
                    calibration: None,
                });
            }
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(8);
        found
    }
}
