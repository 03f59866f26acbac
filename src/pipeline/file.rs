//! The pipeline file as it is written: plain structs, read with positions, the source of the JSON Schema.
//!
//! Nothing is checked here beyond types; nothing is opened. Doc comments are what editors show.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::axes::SampleFile;
use crate::call::caps::BudgetFile;
use crate::data::read::{Format, TextUnit};
use crate::ops::StepFile;
use crate::pipeline::pool::EndpointFile;
use crate::teacher::api::Api;
use crate::teacher::batch::{BatchFile, BatchSettings, Mode};
use crate::teacher::format::ApiFormat;
use crate::teacher::process::StartFile;
use crate::teacher::setting::duration;
use crate::teacher::wire::Price;

/// The format version that this textmill reads.
pub const FORMAT_VERSION: u32 = 1;

/// A textmill pipeline: teachers, a source of rows, steps, and where to save.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "pipeline", deny_unknown_fields)]
pub struct PipelineFile {
    /// The format version: 1.
    pub textmill: u32,
    /// The pipeline's name: letters, digits, `-`, `_`. Budgets and the store's records go by it.
    pub name: String,
    /// What the dataset is, in a sentence or a paragraph; goes on the dataset card.
    pub about: Option<String>,
    /// The seed of every random choice.
    #[serde(default)]
    pub seed: u64,
    /// The teachers, by name.
    #[serde(default)]
    pub teachers: IndexMap<String, TeacherFile>,
    /// What runs may cost.
    pub budget: Option<BudgetFile>,
    /// Where rows come from.
    pub source: SourceFile,
    /// Types of fields that nothing else declares, in the short-hand of `json:`.
    #[serde(default)]
    pub types: Map<String, Value>,
    /// What is done to the rows, in order.
    pub steps: Vec<StepFile>,
    /// Where the dataset goes.
    pub save: SaveFile,
    /// Tests of this pipeline against scripted replies: `textmill test`.
    #[serde(default)]
    pub tests: Vec<TestFile>,
}

/// A named model endpoint, or a pool of them, with its limits and prices.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "teacher", deny_unknown_fields)]
pub struct TeacherFile {
    /// A server with OpenAI's chat completions, which most servers have.
    pub openai: Option<Api>,
    /// A server with OpenAI's responses.
    pub responses: Option<Api>,
    /// A server with Anthropic's messages.
    pub anthropic: Option<Api>,
    /// A server with Google's generateContent.
    pub gemini: Option<Api>,
    /// A server with OpenAI's embeddings, which most servers of embeddings have: for `embed`.
    pub embeddings: Option<Api>,
    /// Answers from a file of recorded traffic.
    pub recorded: Option<RecordedFile>,
    /// The endpoints that share the calls, where there are several servers or keys. Each takes over from the API
    /// what it does not say itself; a call that one of them fails goes to another. Such a teacher needs an
    /// `identity`.
    pub pool: Option<Vec<EndpointFile>>,
    /// What the server allows; with a `pool`, what each of its endpoints allows that does not say so itself.
    #[serde(default)]
    pub limits: LimitsFile,
    /// What its tokens cost.
    pub price: Option<PriceFile>,
    /// Times that a call is sent before its row fails: 5 by default.
    #[serde(default = "attempts")]
    pub attempts: u32,
    /// How long the teacher may answer nothing but "busy" before the run stops: 30 minutes by default. An endpoint of a
    /// pool is left out after that, and the run stops when it was the last.
    #[serde(default = "patience", deserialize_with = "duration")]
    #[schemars(with = "String")]
    pub patience: Duration,
    /// Whether calls go one by one or in batches, for which OpenAI and Anthropic take half the price and up to a day.
    #[serde(default)]
    pub mode: Mode,
    /// How calls are put into batches.
    pub batch: Option<BatchFile>,
    /// A command that serves this teacher, started with the run and stopped at its end.
    pub start: Option<StartFile>,
    /// The teacher's name in call keys: the URL by default; needed with `start`, whose port may change, and
    /// with `pool`, which has many.
    pub identity: Option<String>,
    /// A cassette file to record every exchange to.
    pub record: Option<String>,
}

impl TeacherFile {
    /// The APIs that are given, with the keys they stand under: one, in a sound file.
    pub fn apis(&self) -> impl Iterator<Item = (ApiFormat, &Api)> {
        let given = [
            (ApiFormat::Openai, &self.openai),
            (ApiFormat::Responses, &self.responses),
            (ApiFormat::Anthropic, &self.anthropic),
            (ApiFormat::Gemini, &self.gemini),
            (ApiFormat::Embeddings, &self.embeddings),
        ];
        given.into_iter().filter_map(|(format, api)| Some((format, api.as_ref()?)))
    }

    /// How its calls go in batches; nothing where they do not.
    pub fn batches(&self) -> Option<BatchSettings> {
        let (format, _) = self.api()?;
        self.batch.clone().unwrap_or_default().settings(self.mode, format)
    }

    /// The API that answers; nothing for recorded traffic.
    pub fn api(&self) -> Option<(ApiFormat, &Api)> {
        self.apis().next()
    }

    /// The API that its requests are written for.
    pub fn format(&self) -> Option<ApiFormat> {
        self.api().map(|(format, _)| format).or(self.recorded.as_ref().map(|recorded| recorded.api))
    }
}

fn attempts() -> u32 {
    5
}

fn patience() -> Duration {
    Duration::from_secs(30 * 60)
}

/// Recorded traffic.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "recorded", deny_unknown_fields)]
pub struct RecordedFile {
    /// The cassette file, made by `record:`.
    pub cassette: String,
    /// The model whose traffic it is.
    pub model: String,
    /// The API whose traffic it is: `openai` by default.
    #[serde(default)]
    pub api: ApiFormat,
}

/// What a server allows; absent is unlimited, but for calls in flight.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "limits", deny_unknown_fields)]
pub struct LimitsFile {
    #[serde(default, deserialize_with = "at_least_1")]
    #[schemars(with = "Option<NonZeroU64>")]
    pub requests_per_minute: Option<u64>,
    /// Input and output tokens together.
    #[serde(default, deserialize_with = "at_least_1")]
    #[schemars(with = "Option<NonZeroU64>")]
    pub tokens_per_minute: Option<u64>,
    /// Calls under way at once: 64 by default.
    #[serde(default, deserialize_with = "at_least_1")]
    #[schemars(with = "Option<NonZeroU32>")]
    pub in_flight: Option<u32>,
}

impl LimitsFile {
    /// These limits, and what they leave open as in others.
    #[must_use]
    pub fn or(self, others: LimitsFile) -> LimitsFile {
        LimitsFile {
            requests_per_minute: self.requests_per_minute.or(others.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(others.tokens_per_minute),
            in_flight: self.in_flight.or(others.in_flight),
        }
    }
}

/// A limit of 0 would let nothing through.
fn at_least_1<'de, D: Deserializer<'de>, N: TryFrom<i64>>(deserializer: D) -> Result<Option<N>, D::Error> {
    let Some(number) = Option::<i64>::deserialize(deserializer)? else { return Ok(None) };
    let wrong = |wanted: &str| D::Error::invalid_value(Unexpected::Signed(number), &wanted);
    if number < 1 {
        return Err(wrong("at least 1"));
    }
    N::try_from(number).map(Some).map_err(|_| wrong("a smaller number"))
}

/// Prices in US dollars per million tokens.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename = "price", deny_unknown_fields)]
pub struct PriceFile {
    pub input: f64,
    pub output: f64,
    /// Input that comes from the provider's cache: the price of `input` by default, which is never less.
    pub cached_input: Option<f64>,
    /// Input that is written to the provider's cache: the price of `input` by default. Anthropic takes 1.25 times
    /// that.
    pub cache_write: Option<f64>,
    /// Output that is reasoning: the price of `output` by default.
    pub reasoning: Option<f64>,
    /// What share of these prices a call in a batch costs: all of it by default. OpenAI and Anthropic take 0.5.
    pub batch: Option<f64>,
}

impl From<PriceFile> for Price {
    fn from(file: PriceFile) -> Price {
        Price {
            cached_input: file.cached_input.unwrap_or(file.input),
            cache_write: file.cache_write.unwrap_or(file.input),
            reasoning: file.reasoning.unwrap_or(file.output),
            batch: file.batch.unwrap_or(1.0),
            ..Price::of(file.input, file.output)
        }
    }
}

/// Where rows come from: one of `rows`, `files`, `sample`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "source", deny_unknown_fields)]
pub struct SourceFile {
    /// The rows themselves.
    pub rows: Option<Vec<Map<String, Value>>>,
    /// Rows of files: JSONL, CSV, Parquet or plain text, also `.gz` and `.zst`.
    pub files: Option<FilesFile>,
    /// Rows drawn from axes.
    pub sample: Option<SampleFile>,
}

/// Rows of files. In Parquet a NaN is null, and bytes that are not UTF-8 become a data URL with their base64, which
/// `images:` take; what JSON has no word for otherwise (an infinite number, in JSONL a whole number of more than
/// 64 bits) is an error.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "files", deny_unknown_fields)]
pub struct FilesFile {
    /// A path or a glob such as `data/*.jsonl.zst`; matches are read in the order of their names.
    pub path: String,
    /// The format, where the file's name does not tell.
    pub format: Option<Format>,
    /// The columns to read: all by default. Of the others nothing is read, so that what is in them cannot
    /// stop a run.
    pub columns: Option<Vec<String>>,
    /// A column whose values name the rows: then a line inserted in a file shifts nothing.
    pub id: Option<String>,
    /// The character between the columns of a CSV file: `,` by default.
    pub delimiter: Option<char>,
    /// How plain text becomes rows: whole files by default.
    pub text: Option<TextUnit>,
    /// The field that plain text goes into: `text` by default.
    pub into: Option<String>,
}

/// Where the dataset goes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "save", deny_unknown_fields)]
pub struct SaveFile {
    /// The dataset's folder.
    pub parquet: String,
    /// The fields to save, in this order: all by default.
    pub columns: Option<Vec<String>>,
    /// Adds columns that say where each row comes from: `textmill_row`, `textmill_parent` and
    /// `textmill_calls` (step, teacher, model, key); `show --row` has the attempts.
    #[serde(default)]
    pub provenance: bool,
    /// Rows of one part file: 100,000 by default.
    pub part_rows: Option<u64>,
}

/// A test of the pipeline against scripted replies.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "test", deny_unknown_fields)]
pub struct TestFile {
    pub name: String,
    /// The rows to run instead of the source's.
    pub rows: Vec<Map<String, Value>>,
    /// By step name: one reply for every call, or a list of replies in call order, whichever of a step's
    /// teachers is asked (`converse`: user, assistant, user…; `refine`: critique, rewrite, critique…). A text is the answer
    /// itself, an object is answered as JSON; `{ $cut: text }` is an answer cut at its length,
    /// `{ $refuse: text }` a refusal, `{ $fail: text }` a server error, `{ $tools: [{ name, arguments }] }`
    /// calls of tools, with a `$text` beside them if there is one; `{ $answers: [...] }` are the answers of one
    /// call under `samples_per_call`.
    #[serde(default)]
    pub replies: IndexMap<String, Value>,
    /// The rows that must be kept, in order; only the fields given are compared.
    pub kept: Option<Vec<Map<String, Value>>>,
    /// The rows that must be rejected, in order.
    pub rejected: Option<Vec<ExpectedReject>>,
    /// How many rows must fail: none by default.
    #[serde(default)]
    pub failed: u64,
}

/// A row that a test expects to be rejected.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "rejected", deny_unknown_fields)]
pub struct ExpectedReject {
    /// The reason's code.
    pub reason: String,
    /// The step that decides.
    pub step: Option<String>,
}
