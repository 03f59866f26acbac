//! Ranges of numbers: `between` and its `step`.
//!
//! Pure; knows nothing of axes.

use crate::axes::file::NumberFile;
use crate::row::Value;

/// Numbers to draw from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Range {
    /// `min`, `min + step`... `count` of them.
    Integers { min: i64, step: i64, count: u64 },
    /// `[min, max)`.
    Numbers { min: f64, max: f64 },
    /// `min`, `min + step`... `count` of them, to 9 decimals.
    Steps { min: f64, step: f64, count: u64 },
}

impl Range {
    /// The number at a place of a range; one without steps has only its first.
    pub(super) fn nth(&self, place: u64) -> Value {
        match self {
            Range::Integers { min, step, .. } => {
                let number = i128::from(*min) + i128::from(*step) * i128::from(place);
                i64::try_from(number).map_or(Value::Null, Value::from)
            }
            Range::Steps { min, step, .. } => {
                let number = min + step * place as f64;
                // Through its decimals: 3 steps of 0.1 are 0.3, not 0.30000000000000004.
                Value::from(format!("{number:.9}").parse().unwrap_or(number))
            }
            Range::Numbers { min, .. } => Value::from(*min),
        }
    }
}

/// Distances below this are lost when steps are kept to 9 decimals.
const STEP_MIN: f64 = 1e-9;

pub(super) type RangeProblem = (&'static str, String, &'static str);

/// The range that `between` and `step` mean, or the key that is wrong, why, and what to do.
pub(super) fn range(
    first: &NumberFile,
    last: &NumberFile,
    step: Option<&NumberFile>,
) -> Result<Range, RangeProblem> {
    let reversed =
        || ("between", format!("{} is more than {}", first.0, last.0), "write the smaller number first");
    let no_step =
        |step: &NumberFile| ("step", format!("{} is no step", step.0), "a step is a number above 0");
    let whole = |number: &NumberFile| number.0.as_i64();
    if let (Some(min), Some(max), Some(step_size)) = (whole(first), whole(last), step.map_or(Some(1), whole))
    {
        if let (Some(step), true) = (step, step_size <= 0) {
            return Err(no_step(step));
        }
        if min > max {
            return Err(reversed());
        }
        let count = (i128::from(max) - i128::from(min)) / i128::from(step_size) + 1;
        let too_wide = |_| ("between", "the range is too wide".to_owned(), "it can hold 2^64 - 1 numbers");
        return Ok(Range::Integers { min, step: step_size, count: u64::try_from(count).map_err(too_wide)? });
    }
    let float = |number: &NumberFile| number.0.as_f64().unwrap_or(f64::NAN);
    let (min, max) = (float(first), float(last));
    if min > max {
        return Err(reversed());
    }
    let Some(step) = step else {
        if min == max || !(max - min).is_finite() {
            let message = format!("there is no number to draw from {min} to below {max}");
            return Err(("between", message, "write two different numbers"));
        }
        return Ok(Range::Numbers { min, max });
    };
    let step_size = float(step);
    if step_size.is_nan() || step_size < STEP_MIN {
        return Err(no_step(step));
    }
    // A hair more, so that 0 to 1 in steps of 0.1 ends at 1.
    let steps = ((max - min) / step_size + 1e-6).floor();
    if steps > (1_u64 << 53) as f64 {
        return Err((
            "step",
            format!("{} is too small a step for this range", step.0),
            "it can make 2^53 numbers",
        ));
    }
    Ok(Range::Steps { min, step: step_size, count: steps as u64 + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[test]
    fn steps_are_counted() {
        let number = |value: Value| NumberFile::deserialize(&value).unwrap();
        let ten = range(&number(json!(0)), &number(json!(1)), Some(&number(json!(0.1))));
        assert_eq!(ten, Ok(Range::Steps { min: 0.0, step: 0.1, count: 11 }));
        let whole = range(&number(json!(1)), &number(json!(10)), Some(&number(json!(4))));
        assert_eq!(whole, Ok(Range::Integers { min: 1, step: 4, count: 3 }));
    }
}
