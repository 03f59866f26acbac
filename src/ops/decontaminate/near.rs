//! Rows compared with the items by meaning: with a model that runs here, or one that a teacher runs.

use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use crate::call::{Asked, Caller, Draw, Pause};
use crate::kit::Kit;
use crate::model::Embedder;
use crate::ops::CallRow;
use crate::ops::ask::Unanswered;
use crate::ops::decontaminate::cascade::{Found, Source, whole};
use crate::ops::decontaminate::{EmbeddingsFile, shipped};
use crate::row::{Failure, Outcome, Row};
use crate::teacher::{Message, Request, Role};
use crate::text::decontaminate::meaning::{Calibration, Items, View, calibrate};
use crate::text::decontaminate::passages::{passages, said, without_imports};

/// The share of false positives where nothing else is said.
const FALSE_POSITIVES: f64 = 0.005;

/// Texts that a teacher is asked for at once.
const ASKED_AT_ONCE: usize = 32;

/// The items as vectors, and the score that is near enough.
pub struct Near {
    items: Items,
    threshold: f64,
    /// What the threshold was measured to do; `None` when it was given.
    calibration: Option<Calibration>,
}

/// The texts that an index is made of: the negatives, the items, each pair's two.
fn needed(source: &Source) -> Vec<String> {
    let mut texts: Vec<String> = shipped::negatives().into_iter().map(str::to_owned).collect();
    texts.extend(source.items.iter().map(whole));
    for (text, other) in shipped::pairs() {
        texts.extend([text.to_owned(), other.to_owned()]);
    }
    texts
}

impl Near {
    /// `views` are those of [`needed`], in its order.
    fn new(config: &EmbeddingsFile, items: usize, mut views: Vec<View>) -> anyhow::Result<Near> {
        let mut pairs = Vec::new();
        let mut rest = views.split_off(shipped::negatives().len() + items).into_iter();
        while let (Some(text), Some(other)) = (rest.next(), rest.next()) {
            pairs.push((text, other));
        }
        let items = Items::new(views.split_off(shipped::negatives().len()), &views);
        let (threshold, calibration) = match config.threshold {
            Some(threshold) => (threshold, None),
            None => {
                let wanted = config.false_positives.unwrap_or(FALSE_POSITIVES);
                let measured = calibrate(&items, &pairs, &views, wanted)
                    .context("there is nothing to measure a threshold on")?;
                (measured.threshold, Some(measured))
            }
        };
        Ok(Near { items, threshold, calibration })
    }

    /// The passage that is nearest to an item, if it is near enough.
    fn find(&self, source: &Source, ranges: Vec<Range<usize>>, views: &[View]) -> Option<Found> {
        let mut best: Option<Found> = None;
        for (range, view) in ranges.into_iter().zip(views) {
            let Some((item, score)) = self.items.nearest(view) else { continue };
            if score >= self.threshold && best.as_ref().is_none_or(|found| found.score < score) {
                best = Some(Found {
                    item,
                    stage: "embeddings",
                    score,
                    needed: self.threshold,
                    text: range,
                    reference: whole(&source.items[item]),
                    calibration: self.calibration,
                });
            }
        }
        best
    }
}

/// What a model is shown of each text: the whole, and what it says in words.
fn parts(texts: &[String]) -> Vec<String> {
    texts.iter().flat_map(|text| [without_imports(text), said(text)]).collect()
}

fn views(vectors: Vec<Vec<f32>>) -> Vec<View> {
    let mut vectors = vectors.into_iter();
    let mut views = Vec::with_capacity(vectors.len() / 2);
    while let (Some(whole), Some(said)) = (vectors.next(), vectors.next()) {
        views.push(View { whole, said });
    }
    views
}

fn cut(text: &str, ranges: &[Range<usize>]) -> Vec<String> {
    ranges.iter().map(|range| text[range.clone()].to_owned()).collect()
}

/// Vectors from a model that runs here.
pub struct ByModel {
    embedder: Embedder,
    near: Near,
    passages_max: usize,
}

impl ByModel {
    pub fn build(
        config: &EmbeddingsFile,
        model: &str,
        source: &Source,
        base: &Path,
    ) -> anyhow::Result<ByModel> {
        let tokenizer = config.tokenizer.as_ref().map(|path| base.join(path));
        let embedder = Embedder::open(&base.join(model), tokenizer.as_deref())?;
        let views = local(&embedder, &needed(source))?;
        let near = Near::new(config, source.items.len(), views)?;
        Ok(ByModel { embedder, near, passages_max: config.passages_max })
    }

    pub fn find(&self, source: &Source, text: &str) -> anyhow::Result<Option<Found>> {
        let ranges = passages(text, self.passages_max);
        let views = local(&self.embedder, &cut(text, &ranges))?;
        Ok(self.near.find(source, ranges, &views))
    }
}

fn local(embedder: &Embedder, texts: &[String]) -> anyhow::Result<Vec<View>> {
    let parts = parts(texts);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(views(embedder.embed(&parts)?))
}

/// Vectors from a teacher with an `embeddings:` API. The first row that comes so far has the items embedded.
pub struct ByTeacher {
    caller: Caller,
    config: EmbeddingsFile,
    source: Source,
    near: OnceCell<Near>,
}

impl ByTeacher {
    pub fn build(
        config: &EmbeddingsFile,
        teacher: &str,
        source: Source,
        kit: &Kit,
    ) -> anyhow::Result<ByTeacher> {
        let caller = kit.caller(teacher)?;
        Ok(ByTeacher { caller, config: config.clone(), source, near: OnceCell::new() })
    }

    /// The vector of each text, one long, with what was asked for it.
    async fn vectors(&self, row: &Row, parts: Vec<String>) -> Result<Vec<(Vec<f32>, Asked)>, Unanswered> {
        let asking = parts.into_iter().map(|text| async move {
            let request = Request {
                messages: vec![Message { role: Role::User, content: text }],
                max_tokens: Some(0),
                ..Request::default()
            };
            let asked = self.caller.ask(row, Draw::Request, 0, &request).await?;
            let mut vector: Vec<f32> = serde_json::from_str(&asked.answer.text).unwrap_or_default();
            let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
            if !(length.is_finite() && length > 0.0) {
                let failure = Failure::new("no_vector", "the teacher gave no vector of a direction");
                return Err(Unanswered::Failed(failure));
            }
            vector.iter_mut().for_each(|number| *number /= length);
            Ok((vector, asked))
        });
        futures_util::stream::iter(asking).buffered(ASKED_AT_ONCE).try_collect().await
    }

    async fn near(&self, row: &Row) -> Result<&Near, Unanswered> {
        self.near
            .get_or_try_init(|| async {
                let found = self.vectors(row, parts(&needed(&self.source))).await?;
                let views = views(found.into_iter().map(|(vector, _)| vector).collect());
                Near::new(&self.config, self.source.items.len(), views)
                    .map_err(|error| Unanswered::Failed(Failure::new("no_threshold", format!("{error:#}"))))
            })
            .await
    }

    async fn find(&self, row: &mut Row) -> Result<Option<(String, Found)>, Unanswered> {
        let text = self.source.text(&row.fields).map_err(Unanswered::Rejected)?;
        let ranges = passages(&text, self.config.passages_max);
        if ranges.is_empty() {
            return Ok(None);
        }
        let near = self.near(row).await?;
        let found = self.vectors(row, parts(&cut(&text, &ranges))).await?;
        let mut vectors = Vec::with_capacity(found.len());
        for (vector, asked) in found {
            row.calls.push(asked.mark);
            vectors.push(vector);
        }
        Ok(near.find(&self.source, ranges, &views(vectors)).map(|found| (text, found)))
    }
}

impl CallRow for ByTeacher {
    fn call(&self, mut row: Row) -> BoxFuture<'_, Result<Outcome, Pause>> {
        async move {
            match self.find(&mut row).await {
                Ok(None) => Ok(Outcome::Keep(row)),
                Ok(Some((text, found))) => match self.source.reason(&text, &[found]) {
                    Some(reason) => Ok(Outcome::Reject(row, reason)),
                    None => Ok(Outcome::Keep(row)),
                },
                Err(unanswered) => unanswered.outcome(row),
            }
        }
        .boxed()
    }
}
