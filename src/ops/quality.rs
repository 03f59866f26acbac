//! `quality`: reject texts that published heuristics call junk.
//!
//! # What it does
//! Takes some thirty numbers of a text (its words, lines, stop words, repetitions...) and compares them
//! with the thresholds of Gopher, C4 and FineWeb. The first rule that the text breaks rejects its row; the
//! reason is the rule's code, the evidence the number measured and the threshold. With `score_into` the
//! rows that pass get all numbers as an object, by rule.
//!
//! `rules` names the sets that are judged by: `[gopher_quality, gopher_repetition]` by default. `also` adds
//! single rules, `except` takes some away, `thresholds` changes them.
//!
//! - `gopher_quality` (Rae et al. 2021, arXiv 2112.11446, section A1.1): `gopher_short` ≥ 50 words,
//!   `gopher_long` ≤ 100000 words, `gopher_words_too_short` ≥ 3 and `gopher_words_too_long` ≤ 10 characters
//!   a word, `gopher_hashes` ≤ 0.1 and `gopher_ellipses` ≤ 0.1 a word, `gopher_bullets` ≤ 0.9 and
//!   `gopher_ellipsis_lines` ≤ 0.3 of the lines, `gopher_alphabetic` ≥ 0.8 of the words have a letter,
//!   `gopher_stop_words` ≥ 2 of the eight English ones (or of `stop_words`).
//! - `gopher_repetition` (table A1): `gopher_dup_lines` ≤ 0.3 and `gopher_dup_paragraphs` ≤ 0.3 came
//!   before; of the characters `gopher_dup_line_chars` ≤ 0.2, `gopher_dup_paragraph_chars` ≤ 0.2; in the
//!   most frequent run of words `gopher_top2_grams` ≤ 0.2, `gopher_top3_grams` ≤ 0.18, `gopher_top4_grams`
//!   ≤ 0.16; in runs that came before `gopher_dup5_grams` ≤ 0.15, `gopher_dup6_grams` ≤ 0.14,
//!   `gopher_dup7_grams` ≤ 0.13, `gopher_dup8_grams` ≤ 0.12, `gopher_dup9_grams` ≤ 0.11,
//!   `gopher_dup10_grams` ≤ 0.1.
//! - `c4` (Raffel et al. 2020, section 2.2): `c4_sentences` ≥ 5, `c4_lorem_ipsum` ≤ 0. Only when asked for
//!   in `also`: `c4_curly_bracket` ≤ 0, which rejects all code.
//! - `fineweb` (Penedo et al. 2024, arXiv 2406.17557, section 3.6): `fineweb_line_punctuation` ≥ 0.12 of
//!   the lines, `fineweb_short_lines` ≤ 0.67, `fineweb_dup_line_chars` ≤ 0.01, `fineweb_newlines` ≤ 0.3 a
//!   word.
//!
//! # When to use it
//! On web pages and other found text before anything is paid for them, and on what models wrote to catch
//! loops and stubs. With `rules: []` and `score_into` nothing is rejected: look at the numbers first.
//!
//! # Example
//! ```yaml
//! - quality:
//!     field: text
//!     rules: [gopher_quality, gopher_repetition, c4]
//!     except: [gopher_bullets]
//!     thresholds: { gopher_short: 30 }
//!     score_into: numbers
//! ```
//!
//! # Limits
//! The rules were made for English prose from the web: code, verse and dialogue break many of them, and
//! other languages need `stop_words` of their own. A rule whose number does not exist (a mean over no
//! words) holds. What is no text is rejected `type_mismatch`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kit::{Check, Kit};
use crate::ops::text_field::TextField;
use crate::ops::{MapRow, Operator, Runner};
use crate::problem::Severity;
use crate::row::{Fields, Outcome, Reason, Row, Type};
use crate::text::quality::{Rule, RuleSet, RuleSets, Settings, Thresholds, judge, measure};

/// Reject texts that published heuristics call junk.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename = "quality", deny_unknown_fields)]
pub struct Quality {
    /// The field that holds the text, or a key inside one: `page.text`.
    pub field: String,
    /// The sets of rules to judge by: `[gopher_quality, gopher_repetition]` by default.
    #[serde(default = "rules")]
    pub rules: Vec<RuleSet>,
    /// Single rules that are on although their set is off.
    #[serde(default)]
    pub also: Vec<Rule>,
    /// Single rules that are off although their set is on.
    #[serde(default)]
    pub except: Vec<Rule>,
    /// Thresholds other than the published ones, by rule.
    #[serde(default)]
    pub thresholds: Thresholds,
    /// The words that `gopher_stop_words` looks for, as they are written; by default the, be, to, of, and,
    /// that, have, with.
    pub stop_words: Option<Vec<String>>,
    /// A field that takes all numbers of the text as an object, by rule; those of sets that are off, too.
    pub score_into: Option<String>,
}

/// Those that suit written prose of any origin; the other two are for web pages.
fn rules() -> Vec<RuleSet> {
    vec![RuleSet::GopherQuality, RuleSet::GopherRepetition]
}

impl Quality {
    fn settings(&self) -> Settings {
        let has = |set| self.rules.contains(&set);
        Settings {
            sets: RuleSets {
                gopher_quality: has(RuleSet::GopherQuality),
                gopher_repetition: has(RuleSet::GopherRepetition),
                c4: has(RuleSet::C4),
                fineweb: has(RuleSet::Fineweb),
            },
            also: self.also.clone(),
            except: self.except.clone(),
            thresholds: self.thresholds.clone(),
            stop_words: self.stop_words.clone(),
        }
    }

    fn check_rules(&self, check: &mut Check<'_>) {
        let settings = self.settings();
        let is_off = Rule::ALL.iter().all(|rule| !settings.is_on(*rule));
        if is_off && self.score_into.is_none() {
            check.problem("rules", "no rule is on and no number is asked for: the step does nothing").hint =
                Some("name sets in `rules`, or take the numbers with `score_into`".to_owned());
        }
        for rule in self.also.iter().filter(|rule| self.except.contains(rule)) {
            check.problem("except", format!("`{}` stands in `also` and in `except`", rule.code()));
        }
        for rule in Rule::ALL {
            let Some(threshold) = self.thresholds.get(rule) else { continue };
            let key = format!("thresholds.{}", rule.code());
            if !threshold.is_finite() || threshold < 0.0 {
                check.problem(&key, "a threshold is a number of at least 0");
            } else if !settings.is_on(rule) {
                let problem =
                    check.problem(&key, format!("`{}` is off: its threshold does nothing", rule.code()));
                problem.severity = Severity::Warning;
                problem.hint = Some("add it to `also`".to_owned());
            }
        }
        if self.stop_words.as_ref().is_some_and(Vec::is_empty) && settings.is_on(Rule::GopherStopWords) {
            check.problem("stop_words", "without stop words no text passes `gopher_stop_words`").hint =
                Some("add the rule to `except` to be rid of it".to_owned());
        }
    }
}

impl Operator for Quality {
    fn check(&self, check: &mut Check<'_>) {
        TextField::check(check, "field", &self.field);
        self.check_rules(check);
        if let Some(field) = &self.score_into {
            let numbers = Rule::ALL.iter().map(|rule| (rule.code().to_owned(), Type::Number));
            check.makes("score_into", field, Type::Object(numbers.collect()));
        }
    }

    fn build(&self, _: &Kit) -> anyhow::Result<Vec<Runner>> {
        let judging = Judging {
            field: TextField::new(&self.field),
            settings: self.settings(),
            score_into: self.score_into.clone(),
        };
        Ok(vec![Runner::Map(Box::new(judging))])
    }
}

struct Judging {
    field: TextField,
    settings: Settings,
    score_into: Option<String>,
}

impl Judging {
    /// The numbers of a text that breaks no rule, if they are asked for.
    fn judge(&self, fields: &Fields) -> Result<Option<Value>, Reason> {
        let text = self.field.of(fields)?;
        let judged = judge(text, &self.settings).map_err(|broken| {
            let evidence = json!({"measured": broken.measured, "threshold": broken.threshold});
            Reason::new(broken.code(), evidence)
        })?;
        if self.score_into.is_none() {
            return Ok(None);
        }
        // What was judged goes last: it knows the stop words of this step.
        let (measured, number) =
            (measure(text), |(rule, value): (Rule, f64)| (rule.code().to_owned(), json!(value)));
        Ok(Some(measured.iter().chain(judged.iter()).map(number).collect::<Fields>().into()))
    }
}

impl MapRow for Judging {
    fn map(&self, mut row: Row) -> Outcome {
        match self.judge(&row.fields) {
            Ok(numbers) => {
                row.fields.extend(self.score_into.clone().zip(numbers));
                Outcome::Keep(row)
            }
            Err(reason) => Outcome::Reject(row, reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{doc, fixture};
    use crate::text::quality::Bound;

    fn judged(more: Value, text: &Value) -> Value {
        let config = fixture::with(json!({"field": "text"}), more);
        let folder = tempfile::tempdir().unwrap();
        let Runner::Map(judging) = fixture::built::<Quality>(config, &fixture::kit(folder.path())) else {
            panic!("it is a map");
        };
        fixture::shown(judging.map(fixture::row("0", &json!({"text": text}))))
    }

    /// The rule that rejects, with what was measured and the threshold; nothing if the row is kept.
    fn check(more: Value, text: &str, expected: Option<(&str, f64, f64)>) {
        let ended = match expected {
            Some((code, measured, threshold)) => {
                json!({"rejected": code, "evidence": {"measured": measured, "threshold": threshold}})
            }
            None => json!({"text": text}),
        };
        assert_eq!(judged(more, &text.into()), ended, "{text}");
    }

    #[test]
    fn the_first_broken_rule_rejects() {
        let text = "Too short.";
        check(json!({}), text, Some(("gopher_short", 2.0, 50.0)));
        check(json!({"thresholds": {"gopher_short": 3}}), text, Some(("gopher_short", 2.0, 3.0)));
        let also = json!({"rules": ["fineweb"], "also": ["gopher_short"]});
        check(also, text, Some(("gopher_short", 2.0, 50.0)));
        check(json!({"rules": []}), text, None);
        check(json!({"rules": ["c4"], "except": ["c4_sentences"]}), text, None);
        check(json!({"rules": ["c4"]}), "One of three.", Some(("c4_sentences", 1.0, 5.0)));
        assert_eq!(judged(json!({}), &json!(3))["rejected"], "type_mismatch");
    }

    #[test]
    fn numbers_are_those_of_all_sets_and_of_the_steps_own_words() {
        let config = json!({"rules": [], "score_into": "numbers", "stop_words": ["der"]});
        let numbers = judged(config, &json!("der the and {"))["numbers"].clone();
        assert_eq!((&numbers["c4_curly_bracket"], &numbers["gopher_short"]), (&json!(1.0), &json!(3.0)));
        assert_eq!(numbers["gopher_stop_words"], json!(2.0));
        let config = json!({"rules": [], "also": ["gopher_stop_words"], "thresholds": {"gopher_stop_words": 1},
            "score_into": "numbers", "stop_words": ["der"]});
        let numbers = judged(config, &json!("der the and {"))["numbers"].clone();
        assert_eq!(numbers["gopher_stop_words"], json!(1.0));
        let (_, columns) = fixture::checked_config::<Quality>(json!({"field": "t", "score_into": "n"}), &[]);
        assert!(columns["n"].fits(&numbers));
    }

    fn check_config(config: Value, problems: &[&str]) {
        let (found, _) =
            fixture::checked_config::<Quality>(config, &[("text", Type::Text), ("n", Type::Integer)]);
        assert_eq!(found, problems);
    }

    #[test]
    fn configs_are_checked() {
        check_config(json!({"field": "text"}), &[]);
        check_config(
            json!({"field": "n", "rules": []}),
            &[
                "field: `n` is integer, not text",
                "rules: no rule is on and no number is asked for: the step does nothing",
            ],
        );
        check_config(
            json!({"field": "text", "also": ["c4_sentences"], "except": ["c4_sentences"], "stop_words": [],
                "thresholds": {"gopher_short": -1, "c4_sentences": 2}, "score_into": "n"}),
            &[
                "except: `c4_sentences` stands in `also` and in `except`",
                "thresholds.gopher_short: a threshold is a number of at least 0",
                "thresholds.c4_sentences: `c4_sentences` is off: its threshold does nothing",
                "stop_words: without stop words no text passes `gopher_stop_words`",
                "score_into: the field `n` exists already",
            ],
        );
    }

    #[test]
    fn the_doc_names_every_rule_with_its_threshold() {
        let doc = doc("quality").unwrap();
        let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
        for rule in Rule::ALL {
            let sign = if rule.bound() == Bound::AtLeast { '≥' } else { '≤' };
            let words = format!("`{}` {sign} {}", rule.code(), rule.threshold());
            assert!(doc.contains(&words), "the doc does not say {words}");
        }
    }
}
