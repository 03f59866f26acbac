//! Axes: what the `sample:` source and the `draw` operator draw rows from.
//!
//! `file` is what a user writes, `kind` what one axis means, `check` what is wrong with them together,
//! `build` reads the files through a loader; here is what can then be drawn. Every choice is a function
//! of (seed, epoch, step, row, axis), see `random`: rows are independent of each other and of order, and
//! an axis more, less or elsewhere in the file changes no other's values. Nothing here opens files.
//!
//! Without replacement (`replace: false`) a row's place in the source picks its value from an order that
//! hangs on (seed, epoch, step, axis): each value once in an epoch. Another epoch has another order, so
//! across epochs the same value may come again.

mod build;
mod check;
mod file;
mod kind;
mod pool;
pub mod random;
mod range;
mod types;

use std::borrow::Cow;

use indexmap::IndexMap;

pub use crate::axes::build::Load;
pub use crate::axes::check::{check_draw, check_sample};
pub use crate::axes::file::{
    AxisFile, AxisMap, CountFile, DrawFile, NamesFile, NumberFile, SampleFile, TreeFile, UntilFile,
};
use crate::axes::kind::Made;
use crate::axes::pool::{Pool, text_of};
use crate::axes::random::{Draws, Permutation};
use crate::axes::range::Range;
use crate::row::{Fields, Value};

/// Axes that can be drawn from.
#[derive(Clone, Debug)]
pub struct Axes {
    /// In the order of drawing: that of the file, but each after those it depends on.
    axes: Vec<Axis>,
    /// The fields made, in the order of the file.
    fields: Vec<String>,
}

#[derive(Clone, Debug)]
struct Axis {
    name: String,
    made: Made,
    spec: Spec,
}

#[derive(Clone, Debug)]
enum Spec {
    /// One value, or with `count` a list of different ones; none that a field in `not` has.
    Pool {
        pool: Pool,
        count: Option<CountFile>,
        not: Vec<String>,
    },
    /// Each value once in an epoch.
    Once(Pool),
    Between(Range),
    /// A list of those values that chance takes.
    Some {
        values: Vec<Value>,
        chance: f64,
    },
    Chance(f64),
    /// By the values of other fields.
    Given {
        fields: Vec<String>,
        cases: IndexMap<Vec<String>, Spec>,
        other: Option<Box<Spec>>,
    },
}

/// Which row is drawn.
#[derive(Clone, Copy, Debug)]
pub struct DrawAt<'a> {
    pub seed: u64,
    pub epoch: &'a str,
    /// The step's name; the source's is the empty text, which no step can have.
    pub step: &'a str,
    /// The row's place in the source, from 0; only draws without replacement look at it.
    pub ordinal: u64,
    /// The row's draw key.
    pub row: &'a str,
}

/// Why a row could not be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    #[error(
        "the axis `{axis}` is used up: it has {values} values, each drawn once; add values or draw with replacement"
    )]
    Exhausted { axis: String, values: u64 },
    #[error("the grid has no combination {ordinal}, counted from 0")]
    PastGrid { ordinal: u64 },
    #[error("the axis `{axis}` has nothing to draw when {when}; add it, or give `else`")]
    NoCase { axis: String, when: String },
    #[error("the axis `{axis}` depends on the field `{field}`, which the row does not have")]
    MissingField { axis: String, field: String },
    #[error("the axis `{axis}` should draw {wanted} different values, but `not` leaves {left}")]
    TooFew { axis: String, wanted: u64, left: u64 },
}

impl DrawError {
    /// An identifier that is counted.
    pub fn code(&self) -> &'static str {
        match self {
            DrawError::Exhausted { .. } | DrawError::PastGrid { .. } => "exhausted",
            DrawError::NoCase { .. } => "no_case",
            DrawError::MissingField { .. } => "missing_field",
            DrawError::TooFew { .. } => "too_few_values",
        }
    }
}

impl Axes {
    /// The fields of one row, in the order of the file. Axes may depend on `existing` fields; these are
    /// not in the result.
    pub fn draw(&self, at: &DrawAt<'_>, existing: &Fields) -> Result<Fields, DrawError> {
        let mut drawn = Fields::new();
        for axis in &self.axes {
            let what = format!("axis {}", axis.name);
            let draws = Draws::new(at.seed, at.epoch, at.step, at.row, &what);
            let mut drawing = Drawing { axis, at, what: &what, draws, drawn: &drawn, existing };
            let value = drawing.value(&axis.spec)?;
            axis.put(value, &mut drawn);
        }
        Ok(self.in_order(drawn))
    }

    /// The fields of one combination of the grid, the last axis changing fastest.
    pub fn cell(&self, ordinal: u64) -> Result<Fields, DrawError> {
        let mut rest = ordinal;
        let mut drawn = Fields::new();
        for axis in self.axes.iter().rev() {
            let size = axis.spec.size().filter(|size| *size > 0).ok_or(DrawError::PastGrid { ordinal })?;
            axis.put(axis.spec.nth(rest % size), &mut drawn);
            rest /= size;
        }
        if rest > 0 { Err(DrawError::PastGrid { ordinal }) } else { Ok(self.in_order(drawn)) }
    }

    /// How many combinations a grid of these axes has; `None` if one of them cannot be enumerated or
    /// there are more than 2^128.
    pub fn cells(&self) -> Option<u128> {
        self.axes.iter().try_fold(1_u128, |cells, axis| cells.checked_mul(axis.spec.size()?.into()))
    }

    /// Each axis and how many values it has, where they can be enumerated, in the order of drawing.
    pub fn sizes(&self) -> Vec<(String, Option<u64>)> {
        self.axes.iter().map(|axis| (axis.name.clone(), axis.spec.size())).collect()
    }

    /// After how many rows the first axis without replacement is used up.
    pub fn rows_max(&self) -> Option<u64> {
        self.axes.iter().filter_map(|axis| axis.spec.once()).min()
    }

    /// Each axis in a few words, in the order of drawing.
    pub fn describe(&self) -> Vec<(String, String)> {
        self.axes.iter().map(|axis| (axis.name.clone(), axis.spec.words())).collect()
    }

    fn in_order(&self, mut drawn: Fields) -> Fields {
        self.fields.iter().filter_map(|name| drawn.remove(name).map(|value| (name.clone(), value))).collect()
    }
}

impl Axis {
    fn put(&self, value: Value, drawn: &mut Fields) {
        let values = match value {
            Value::Array(values) if self.made.spread => values,
            value => vec![value],
        };
        drawn.extend(self.made.fields.iter().cloned().zip(values));
    }
}

impl Spec {
    /// How many values a grid goes through.
    fn size(&self) -> Option<u64> {
        match self {
            Spec::Pool { pool, count: None, not } if not.is_empty() && pool.is_even() => {
                Some(pool.values().len() as u64)
            }
            Spec::Between(Range::Integers { count, .. } | Range::Steps { count, .. }) => Some(*count),
            _ => None,
        }
    }

    fn nth(&self, place: u64) -> Value {
        match self {
            Spec::Pool { pool, .. } | Spec::Once(pool) => pool.value(place),
            Spec::Between(range) => range.nth(place),
            Spec::Some { .. } | Spec::Chance(_) | Spec::Given { .. } => Value::Null,
        }
    }

    /// Whether it may have nothing to draw, as other fields are.
    fn may_miss(&self) -> bool {
        match self {
            Spec::Given { cases, other, .. } => {
                other.as_ref().is_none_or(|other| other.may_miss()) || cases.values().any(Spec::may_miss)
            }
            Spec::Pool { not, .. } => !not.is_empty(),
            Spec::Once(_) | Spec::Between(_) | Spec::Some { .. } | Spec::Chance(_) => false,
        }
    }

    /// How many values there are to draw without replacement.
    fn once(&self) -> Option<u64> {
        match self {
            Spec::Once(pool) => Some(pool.values().len() as u64),
            _ => None,
        }
    }

    fn words(&self) -> String {
        match self {
            Spec::Pool { pool, count, not } => {
                let weighted = if pool.is_even() { "" } else { "weighted " };
                let of = match count {
                    Some(CountFile { min, max }) if min == max => format!("{min} of "),
                    Some(CountFile { min, max }) => format!("{min} to {max} of "),
                    None => String::new(),
                };
                let not =
                    if not.is_empty() { String::new() } else { format!(", not `{}`", not.join("`, `")) };
                format!("{of}{} {weighted}values{not}", pool.values().len())
            }
            Spec::Once(pool) => format!("{} values, each once", pool.values().len()),
            Spec::Between(Range::Numbers { min, max }) => format!("{min} to below {max}"),
            Spec::Between(Range::Integers { count, .. } | Range::Steps { count, .. }) => {
                format!("{count} numbers, {} to {}", self.nth(0), self.nth(count.saturating_sub(1)))
            }
            Spec::Some { values, chance } => format!("each of {} values with chance {chance}", values.len()),
            Spec::Chance(chance) => format!("true with chance {chance}"),
            Spec::Given { fields, cases, .. } => {
                format!("{} cases, by `{}`", cases.len(), fields.join("`, `"))
            }
        }
    }
}

/// The drawing of one axis for one row.
struct Drawing<'a> {
    axis: &'a Axis,
    at: &'a DrawAt<'a>,
    what: &'a str,
    draws: Draws,
    drawn: &'a Fields,
    existing: &'a Fields,
}

impl<'a> Drawing<'a> {
    fn value(&mut self, spec: &'a Spec) -> Result<Value, DrawError> {
        Ok(match spec {
            Spec::Pool { pool, count, not } => self.picked(pool, *count, not)?,
            Spec::Once(pool) => {
                let DrawAt { seed, epoch, step, ordinal, .. } = *self.at;
                let values = pool.values().len() as u64;
                let place = Permutation::new(values, seed, epoch, step, self.what).at(ordinal);
                pool.value(
                    place.ok_or_else(|| DrawError::Exhausted { axis: self.axis.name.clone(), values })?,
                )
            }
            Spec::Between(Range::Numbers { min, max }) => {
                // Rounding may give `max` itself, which is not in the range.
                let number = min + self.draws.unit() * (max - min);
                Value::from(if number < *max { number } else { *min })
            }
            Spec::Between(range @ (Range::Integers { count, .. } | Range::Steps { count, .. })) => {
                range.nth(self.draws.below(*count))
            }
            Spec::Some { values, chance } => {
                values.iter().filter(|_| self.draws.chance(*chance)).cloned().collect()
            }
            Spec::Chance(chance) => Value::Bool(self.draws.chance(*chance)),
            Spec::Given { fields, cases, other } => {
                let key: Vec<String> = fields
                    .iter()
                    .map(|field| Ok(text_of(self.field(field)?).into_owned()))
                    .collect::<Result<_, _>>()?;
                match cases.get(&key).or(other.as_deref()) {
                    Some(spec) => self.value(spec)?,
                    None => return Err(no_case(&self.axis.name, fields, &key)),
                }
            }
        })
    }

    fn picked(
        &mut self,
        pool: &Pool,
        count: Option<CountFile>,
        not: &'a [String],
    ) -> Result<Value, DrawError> {
        let mut without: Vec<Cow<'a, str>> = Vec::new();
        for field in not {
            match self.field(field)? {
                Value::Array(items) => without.extend(items.iter().map(text_of)),
                value => without.push(text_of(value)),
            }
        }
        let Some(CountFile { min, max }) = count else {
            let value = pool.draw(&mut self.draws, 1, &without).pop();
            return value.ok_or_else(|| self.too_few(1, 0));
        };
        let wanted = min + self.draws.below((max - min).saturating_add(1));
        let values = pool.draw(&mut self.draws, wanted, &without);
        // Where `not` leaves fewer than were wanted, as many as there are will do if `count` allows it.
        if (values.len() as u64) < min {
            return Err(self.too_few(min, pool.left(&without)));
        }
        Ok(Value::Array(values))
    }

    fn field(&self, name: &str) -> Result<&'a Value, DrawError> {
        let value = self.drawn.get(name).or_else(|| self.existing.get(name));
        let missing = || DrawError::MissingField { axis: self.axis.name.clone(), field: name.to_owned() };
        value.ok_or_else(missing)
    }

    fn too_few(&self, wanted: u64, left: u64) -> DrawError {
        DrawError::TooFew { axis: self.axis.name.clone(), wanted, left }
    }
}

/// The error of an axis that has nothing to draw for these values of the fields it depends on.
fn no_case(axis: &str, fields: &[String], key: &[String]) -> DrawError {
    const SHOWN_CHARS_MAX: usize = 80;
    let one = |(field, value): (&String, &String)| {
        let shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
        format!("`{field}` is `{shown}`")
    };
    let when: Vec<String> = fields.iter().zip(key).map(one).collect();
    DrawError::NoCase { axis: axis.to_owned(), when: when.join(" and ") }
}

#[cfg(test)]
mod tests;
