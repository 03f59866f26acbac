//! The operators: one file each, and the closed list that names them all.
//!
//! This file has what they share: the four runner shapes and the list. Adding an operator is a new
//! file, plus its lines here; the tests below then ask for its doc and its example. Operators never
//! open connections or spawn tasks while being checked or built.

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::call::Pause;
use crate::call::caps::CapsFile;
use crate::kit::{Check, Kit};
use crate::row::{Fields, Outcome, Reason, Row, RowId, Value};

mod against;
pub mod ask;
mod balance;
mod best_of;
mod chunk;
mod command;
mod converse;
mod decontaminate;
mod dedup_exact;
mod dedup_near;
mod dedup_semantic;
mod draw;
mod embed;
mod escalate;
mod explode;
mod fields;
#[cfg(test)]
mod fixture;
mod generate;
mod images;
mod judge;
mod keep;
mod keep_if;
mod language;
mod limit;
mod normalize;
mod number;
mod openings;
mod parse;
mod pii;
mod quality;
mod refine;
mod row_ids;
mod sample;
mod set;
mod split;
mod text_field;
mod tools;
mod values;

pub use balance::Balance;
pub use best_of::BestOf;
pub use chunk::Chunk;
pub use command::{Command, serve_watch};
pub use converse::Converse;
pub use decontaminate::Decontaminate;
pub use dedup_exact::DedupExact;
pub use dedup_near::DedupNear;
pub use dedup_semantic::DedupSemantic;
pub use draw::{Draw, load_axes};
pub use embed::Embed;
pub use explode::Explode;
pub use fields::ChooseFields;
pub use generate::Generate;
pub use judge::{Judge, REASON_SUFFIX};
pub use keep_if::KeepIf;
pub use language::Language;
pub use limit::Limit;
pub use normalize::Normalize;
pub use openings::Openings;
pub use parse::Parse;
pub use pii::Pii;
pub use quality::Quality;
pub use refine::Refine;
pub use sample::Sample;
pub use set::Set;
pub use split::Split;

/// What every operator's config struct implements.
pub trait Operator {
    /// Follows the columns through the step and reports what is wrong. Pure but for reading templates.
    fn check(&self, check: &mut Check<'_>);

    /// Builds what the engine runs, in order. May read files; opens and spawns nothing.
    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>>;

    /// The step's name when the file gives none.
    fn default_name(&self) -> Option<&str> {
        None
    }

    /// How the operator asks its teachers, one by one in the order in which they are asked first.
    fn asks(&self) -> Vec<Asks<'_>> {
        Vec::new()
    }

    /// The teachers that the operator asks, each once.
    fn teachers(&self) -> Vec<&str> {
        let mut teachers = Vec::new();
        for asks in self.asks() {
            if !teachers.contains(&asks.teacher) {
                teachers.push(asks.teacher);
            }
        }
        teachers
    }

    /// Copies that each row is made into before anybody is asked; those that share a call count as one.
    fn copies(&self) -> u32 {
        1
    }

    /// Whether nothing comes past the step before the source is at its end.
    fn needs_all_rows(&self) -> bool {
        false
    }

    /// Most rows that one row becomes; `None` where nothing bounds it.
    fn rows_per_row(&self) -> Option<u32> {
        Some(1)
    }
}

/// How an operator asks one of its teachers; for checks and plans.
#[derive(Clone, Copy, Debug)]
pub struct Asks<'a> {
    pub teacher: &'a str,
    /// The part of the operator's config that says how; empty when it is the config itself.
    pub part: &'static str,
    /// The least and the most calls for a row (for each of its copies) when no answer has to be asked for again.
    pub calls: [u32; 2],
    /// Most answers that one call asks for.
    pub answers: u32,
    /// Most tokens of one answer, where the config bounds them.
    pub max_tokens: Option<u32>,
    /// Whether the teacher is held to a schema.
    pub json: bool,
    /// Whether its requests hold what was answered earlier in the same step.
    pub chained: bool,
}

impl<'a> Asks<'a> {
    /// One call for each row, as the operator's config itself says.
    pub fn once(teacher: &'a str, max_tokens: Option<u32>, json: bool) -> Asks<'a> {
        Asks { teacher, part: "", calls: [1, 1], answers: 1, max_tokens, json, chained: false }
    }

    /// Most tokens that one call writes.
    pub fn tokens_out_max(&self) -> Option<u32> {
        self.max_tokens.map(|most| most.saturating_mul(self.answers))
    }
}

/// What the engine can run. Prefer `Map`.
pub enum Runner {
    /// A pure function of one row; runs on all cores.
    Map(Box<dyn MapRow>),
    /// A call for one row; waits for a teacher or a process.
    Call(Box<dyn CallRow>),
    /// A decision in row order over keys that are computed in parallel.
    Fold(Box<dyn FoldRow>),
    /// A decision about rows that belong together, taken when all of them have come.
    Group(Box<dyn GroupRow>),
}

pub trait MapRow: Send + Sync {
    fn map(&self, row: Row) -> Outcome;
}

pub trait CallRow: Send + Sync {
    /// An error leaves the row open: the run ends before the call was answered, or the answer takes so long
    /// that nobody holds the row for it. Then the row comes again with its fields as they were, and what was
    /// answered is found in the store.
    fn call(&self, row: Row) -> BoxFuture<'_, Result<Outcome, Pause>>;
}

/// What a fold's serial part decides on; pure data, so that it can be spilled or computed elsewhere.
pub type FoldKey = Vec<u64>;

pub trait FoldRow: Send + Sync {
    /// The heavy part, a pure function of the row; runs on all cores.
    fn key(&self, row: &Row) -> Result<FoldKey, Reason>;

    /// A fresh state for one run.
    fn start(&self) -> Box<dyn FoldState>;
}

/// The serial part of a fold: sees rows in row order, failed ones left out.
pub trait FoldState: Send {
    fn decide(&mut self, row: &RowId, key: FoldKey) -> Decision;

    /// How many more rows it takes before it ends; `None` when it does not end by itself. The source is read
    /// no further than the yield up to the fold says is needed for them.
    fn takes(&self) -> Option<u64> {
        None
    }

    /// What there is to tell of the step when all rows have passed, for the dataset's manifest and card: an
    /// object of numbers, texts and lists of such objects, the same for the same rows.
    fn report(&self) -> Option<Value> {
        None
    }
}

/// A decision that needs all rows of a group: which of them is the best, how many there are.
pub trait GroupRow: Send + Sync {
    /// Which rows have to be there before anything is decided.
    fn belong(&self) -> Belong;

    /// The heavy part, a pure function of the row; runs on all cores. Keys wait in memory: keep them small.
    fn key(&self, row: &Row) -> Result<FoldKey, Reason>;

    /// Decides about each of the rows, which come in row order, failed ones left out.
    fn decide(&self, rows: &[(RowId, FoldKey)]) -> Vec<Decision>;
}

/// Which rows a group waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belong {
    /// What one row was split into; each such group goes on as soon as it is complete. A row that was not
    /// split off is alone.
    Siblings,
    /// All rows of the run: a barrier, past which nothing comes before the source is at its end.
    All,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Keep,
    /// Keep this row with these fields, old or new.
    KeepWith(Fields),
    /// Keep this row and end the fold: no later row is needed.
    KeepAsLast,
    Reject(Reason),
}

/// The closed list of operators.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there are as many as a pipeline has steps")]
pub enum Op {
    Generate(Generate),
    Judge(Judge),
    Converse(Converse),
    Refine(Refine),
    Embed(Embed),
    KeepIf(KeepIf),
    Set(Set),
    Fields(ChooseFields),
    Parse(Parse),
    Explode(Explode),
    Limit(Limit),
    Sample(Sample),
    Balance(Balance),
    BestOf(BestOf),
    Split(Split),
    Draw(Draw),
    Chunk(Chunk),
    Normalize(Normalize),
    Language(Language),
    Pii(Pii),
    Quality(Quality),
    Openings(Openings),
    DedupExact(DedupExact),
    DedupNear(DedupNear),
    DedupSemantic(DedupSemantic),
    Decontaminate(Decontaminate),
    Command(Command),
}

impl Op {
    pub fn operator(&self) -> &dyn Operator {
        match self {
            Op::Generate(op) => op,
            Op::Judge(op) => op,
            Op::Converse(op) => op,
            Op::Refine(op) => op,
            Op::Embed(op) => op,
            Op::KeepIf(op) => op,
            Op::Set(op) => op,
            Op::Fields(op) => op,
            Op::Parse(op) => op,
            Op::Explode(op) => op,
            Op::Limit(op) => op,
            Op::Sample(op) => op,
            Op::Balance(op) => op,
            Op::BestOf(op) => op,
            Op::Split(op) => op,
            Op::Draw(op) => op,
            Op::Chunk(op) => op,
            Op::Normalize(op) => op,
            Op::Language(op) => op,
            Op::Pii(op) => op,
            Op::Quality(op) => op,
            Op::Openings(op) => op,
            Op::DedupExact(op) => op,
            Op::DedupNear(op) => op,
            Op::DedupSemantic(op) => op,
            Op::Decontaminate(op) => op,
            Op::Command(op) => op,
        }
    }

    /// The operator's key in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Generate(_) => "generate",
            Op::Judge(_) => "judge",
            Op::Converse(_) => "converse",
            Op::Refine(_) => "refine",
            Op::Embed(_) => "embed",
            Op::KeepIf(_) => "keep_if",
            Op::Set(_) => "set",
            Op::Fields(_) => "fields",
            Op::Parse(_) => "parse",
            Op::Explode(_) => "explode",
            Op::Limit(_) => "limit",
            Op::Sample(_) => "sample",
            Op::Balance(_) => "balance",
            Op::BestOf(_) => "best_of",
            Op::Split(_) => "split",
            Op::Draw(_) => "draw",
            Op::Chunk(_) => "chunk",
            Op::Normalize(_) => "normalize",
            Op::Language(_) => "language",
            Op::Pii(_) => "pii",
            Op::Quality(_) => "quality",
            Op::Openings(_) => "openings",
            Op::DedupExact(_) => "dedup_exact",
            Op::DedupNear(_) => "dedup_near",
            Op::DedupSemantic(_) => "dedup_semantic",
            Op::Decontaminate(_) => "decontaminate",
            Op::Command(_) => "command",
        }
    }
}

/// Each operator's key in the file and the source of its file, whose head is its doc.
pub const OPERATORS: &[(&str, &str)] = &[
    ("generate", include_str!("generate.rs")),
    ("judge", include_str!("judge.rs")),
    ("converse", include_str!("converse.rs")),
    ("refine", include_str!("refine.rs")),
    ("embed", include_str!("embed.rs")),
    ("keep_if", include_str!("keep_if.rs")),
    ("set", include_str!("set.rs")),
    ("fields", include_str!("fields.rs")),
    ("parse", include_str!("parse.rs")),
    ("explode", include_str!("explode.rs")),
    ("limit", include_str!("limit.rs")),
    ("sample", include_str!("sample.rs")),
    ("balance", include_str!("balance.rs")),
    ("best_of", include_str!("best_of.rs")),
    ("split", include_str!("split.rs")),
    ("draw", include_str!("draw.rs")),
    ("chunk", include_str!("chunk.rs")),
    ("normalize", include_str!("normalize.rs")),
    ("language", include_str!("language.rs")),
    ("pii", include_str!("pii.rs")),
    ("quality", include_str!("quality.rs")),
    ("openings", include_str!("openings.rs")),
    ("dedup_exact", include_str!("dedup_exact.rs")),
    ("dedup_near", include_str!("dedup_near.rs")),
    ("dedup_semantic", include_str!("dedup_semantic.rs")),
    ("decontaminate", include_str!("decontaminate.rs")),
    ("command", include_str!("command.rs")),
];

/// One step as the file has it: exactly one operator beside `name`, `when` and `budget`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "step", deny_unknown_fields)]
pub struct StepFile {
    /// The step's name; by default its `into`, else the operator's name.
    pub name: Option<String>,
    /// An expression; rows for which it does not hold pass by untouched.
    pub when: Option<String>,
    /// What the step's calls may cost over all runs of one epoch.
    pub budget: Option<CapsFile>,
    /// Ask a teacher for something new.
    pub generate: Option<Generate>,
    /// Have a teacher grade each row.
    pub judge: Option<Judge>,
    /// Have two teachers talk to each other.
    pub converse: Option<Converse>,
    /// Have a text criticised and rewritten until it is good enough.
    pub refine: Option<Refine>,
    /// Have a teacher turn a text into a vector.
    pub embed: Option<Embed>,
    /// Keep rows for which an expression holds.
    pub keep_if: Option<KeepIf>,
    /// Give fields a value: a constant, a computed value, a text put together.
    pub set: Option<Set>,
    /// Keep, drop and rename fields.
    pub fields: Option<ChooseFields>,
    /// Read code, JSON, a tagged part or a list out of a text.
    pub parse: Option<Parse>,
    /// Make a row of each item of a list.
    pub explode: Option<Explode>,
    /// Keep the first rows that come so far.
    pub limit: Option<Limit>,
    /// Keep a random part of the rows.
    pub sample: Option<Sample>,
    /// Keep at most so many rows of each kind.
    pub balance: Option<Balance>,
    /// Keep the best rows of each group.
    pub best_of: Option<BestOf>,
    /// Say which part of the dataset a row belongs to.
    pub split: Option<Split>,
    /// Give each row values drawn at random from axes.
    pub draw: Option<Draw>,
    /// Cut a long text into passages, one row each.
    pub chunk: Option<Chunk>,
    /// Rewrite a text into a plain form without changing what it says.
    pub normalize: Option<Normalize>,
    /// Tell the language of a text, and keep some languages only.
    pub language: Option<Language>,
    /// Find personal data and secrets in a text: redact, tag or reject.
    pub pii: Option<Pii>,
    /// Reject texts that known heuristics call junk.
    pub quality: Option<Quality>,
    /// Reject texts that begin like too many before them.
    pub openings: Option<Openings>,
    /// Keep the first of rows that say the same.
    pub dedup_exact: Option<DedupExact>,
    /// Keep the first of texts that are nearly the same.
    pub dedup_near: Option<DedupNear>,
    /// Keep the first of rows that mean nearly the same.
    pub dedup_semantic: Option<DedupSemantic>,
    /// Reject rows that contain a benchmark's items.
    pub decontaminate: Option<Decontaminate>,
    /// Have a program of your own decide about rows and add fields.
    pub command: Option<Command>,
}

impl StepFile {
    /// The operators that the step names; a sound step names exactly one.
    pub fn operators(&self) -> Vec<Op> {
        let step = self.clone();
        let ops = [
            step.generate.map(Op::Generate),
            step.judge.map(Op::Judge),
            step.converse.map(Op::Converse),
            step.refine.map(Op::Refine),
            step.embed.map(Op::Embed),
            step.keep_if.map(Op::KeepIf),
            step.set.map(Op::Set),
            step.fields.map(Op::Fields),
            step.parse.map(Op::Parse),
            step.explode.map(Op::Explode),
            step.limit.map(Op::Limit),
            step.sample.map(Op::Sample),
            step.balance.map(Op::Balance),
            step.best_of.map(Op::BestOf),
            step.split.map(Op::Split),
            step.draw.map(Op::Draw),
            step.chunk.map(Op::Chunk),
            step.normalize.map(Op::Normalize),
            step.language.map(Op::Language),
            step.pii.map(Op::Pii),
            step.quality.map(Op::Quality),
            step.openings.map(Op::Openings),
            step.dedup_exact.map(Op::DedupExact),
            step.dedup_near.map(Op::DedupNear),
            step.dedup_semantic.map(Op::DedupSemantic),
            step.decontaminate.map(Op::Decontaminate),
            step.command.map(Op::Command),
        ];
        ops.into_iter().flatten().collect()
    }
}

/// The doc of an operator: the head comment of its file.
pub fn doc(name: &str) -> Option<String> {
    let (_, source) = OPERATORS.iter().find(|(known, _)| *known == name)?;
    let lines = source.lines().take_while(|line| line.starts_with("//!"));
    let text: Vec<&str> =
        lines.map(|line| line.strip_prefix("//! ").or(line.strip_prefix("//!")).unwrap_or(line)).collect();
    Some(text.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_has_a_doc_with_the_four_headings() {
        for (name, _) in OPERATORS {
            let doc = doc(name).unwrap();
            for heading in ["# What it does", "# When to use it", "# Example", "# Limits"] {
                assert!(doc.contains(heading), "`{name}` has no `{heading}`");
            }
            assert!(doc.contains(&format!("- {name}:")), "`{name}` has no example step");
        }
    }
}
