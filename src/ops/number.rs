//! The number that an expression gives for a row: what rows are ranked and weighted by.
//!
//! Not an operator. What happens to rows that have no number is decided here, once.

use serde_json::json;

use crate::row::{Fields, Reason};
use crate::template::Expression;

/// The number that the expression gives; anything else rejects the row `bad_expression`.
pub fn number(expression: &Expression, fields: &Fields) -> Result<f64, Reason> {
    let wrong = |error: String| {
        Reason::new("bad_expression", json!({"expression": expression.source(), "error": error}))
    };
    let value = expression.value(fields).map_err(|error| wrong(error.message))?;
    let number = value.as_f64().filter(|number| number.is_finite());
    number.ok_or_else(|| wrong(format!("`{}` is {value}, not a number", expression.source())))
}

/// Bits that compare as the numbers do.
pub fn ordered(number: f64) -> u64 {
    // Adding zero makes -0.0 the same as 0.0.
    let bits = (number + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | (1 << 63) }
}

/// The opposite of [`ordered`].
pub fn disordered(bits: u64) -> f64 {
    f64::from_bits(if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Templates;

    #[test]
    fn bits_compare_as_numbers_do() {
        let numbers = [f64::MIN, -1.5, -1e-300, 0.0, 1e-300, 0.1, 2.0, f64::MAX];
        let bits: Vec<u64> = numbers.iter().map(|number| ordered(*number)).collect();
        assert!(bits.is_sorted_by(|a, b| a < b));
        assert_eq!(bits.iter().map(|bits| disordered(*bits)).collect::<Vec<_>>(), numbers);
        assert_eq!(ordered(-0.0), ordered(0.0));
    }

    #[test]
    fn only_numbers_are_numbers() {
        let fields = json!({"n": 3, "text": "x"});
        let check = |source: &str| {
            let templates = Templates::new(std::path::Path::new("nowhere"));
            number(&templates.expression(source).unwrap(), fields.as_object().unwrap())
                .map_err(|reason| reason.evidence["error"].as_str().unwrap().to_owned())
        };
        assert_eq!(check("n * 2"), Ok(6.0));
        assert_eq!(check("text"), Err("`text` is \"x\", not a number".to_owned()));
        assert!(check("missing").is_err());
    }
}
