//! `quality`: reject texts that known heuristics call junk.
//!
//! # What it does
//! Takes some sixty numbers of a text (its words, lines, stop words, repetitions, phrases...) and compares them
//! with thresholds. The first rule that the text breaks rejects its row; the reason is the rule's code, the
//! evidence the number measured and the threshold, and for rules that look for something what was found and how
//! many characters stand before it: `{"measured": 1, "threshold": 0, "found": "As an AI,", "at": 12}`. With
//! `score_into` the rows that pass get all numbers as an object, by rule.
//!
//! `rules` names the sets that are judged by: `[gopher_quality, gopher_repetition]` by default. `also` adds
//! single rules, `except` takes some away, `thresholds` changes them.
//!
//! For prose, with the thresholds of the papers; what the papers leave open is counted as datatrove 0.10 counts it:
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
//! - `c4` (Raffel et al. 2020, section 2.2): `c4_sentences` ≥ 5 in the lines that C4 keeps (they end in `.`,
//!   `?`, `!` or a quote, have 3 words, none of more than 1,000 characters, and mention neither JavaScript nor
//!   cookies nor terms of use), `c4_lorem_ipsum` ≤ 0. Only when asked for in `also`: `c4_curly_bracket` ≤ 0
//!   in such lines, and mC4's `c4_paragraphs` ≥ 3 lines of 200 characters. `drop_lines: true` also rewrites the
//!   field of rows that pass, as C4 does: only the lines it keeps, without marks of citations; a text of which
//!   no line is left is rejected `empty`.
//! - `fineweb` (Penedo et al. 2024, arXiv 2406.17557, section 3.6): `fineweb_line_punctuation` ≥ 0.12 of
//!   the lines, `fineweb_short_lines` ≤ 0.67, `fineweb_dup_line_chars` ≤ 0.01, `fineweb_newlines` ≤ 0.3 a
//!   word.
//!
//! For source code:
//!
//! - `code`: `code_line_max` ≤ 1000 and `code_line_mean` ≤ 100 characters, `code_alphanumeric` ≥ 0.25 of the
//!   characters (The Stack's basic filter, arXiv 2211.15533, after Codex), `code_xml` ≤ 0 headers in the first
//!   100 characters (StarCoder, 2305.06161), `code_lines` ≤ 100000, `code_alphabetic` ≥ 0.25, `code_encoded`
//!   ≤ 0.5 of the characters in Base64, hexadecimal bytes or Unicode escapes and `code_encoded_run` ≤ 1024
//!   characters in one run, `code_generated` ≤ 0 notes in the first five lines that a program wrote it (StarCoder 2,
//!   2402.19173), `code_token_chars` ≥ 1.5 characters per name, number or mark (CodeParrot's bound, which counts
//!   a tokenizer's tokens). Only when asked for in `also`: `code_comments_few` ≥ 0.01 and `code_comments_many`
//!   ≤ 0.8 of the characters in lines that are comments (SantaCoder, 2301.03988).
//!
//! For what teachers write, our own. Beside each rule is the share of 20,000 texts by people that break it (8,000
//! from the web and Wikipedia, 12,000 from the manuals of Python, Git, SQLite and PostgreSQL; `scripts/parity.sh --big`):
//!
//! - `teacher`: phrases of refusal `teacher_refusal` ≤ 0 (0.00 %), of a model about itself `teacher_as_ai` ≤ 0
//!   (0.00 %), about the prompt or the user `teacher_prompt_talk` ≤ 0 (0.00 %), marks of chat templates
//!   `teacher_template` ≤ 0 (0.00 %), talk to the user as the first words `teacher_opening` ≤ 0 (0.07 %: "Here is
//!   a…") or in the last 400 characters `teacher_closing` ≤ 0 (0.01 %), `teacher_placeholder` ≤ 0 ("[Your name]";
//!   0.05 %), code that was left out `teacher_stub` ≤ 0 (`todo!()`, "rest of the code", functions whose body is only
//!   `pass`, `...` or `NotImplementedError`; 0.47 %, abstract methods most of them), `teacher_echo` ≤ 25 words in
//!   a row that stand in the row's prompt (needs `prompt_field`), `teacher_open_fence` ≤ 0 code fences that are
//!   never closed (0.00 %), `teacher_no_end` ≤ 0: the last line is prose and stops in mid-sentence (12.23 %: web
//!   texts that were cut off, and pages that end in navigation), `teacher_scripts` ≤ 0.05 of the letters in words of
//!   another script than most of the text (0.09 %: names given in Russian), `teacher_mixed_words` ≤ 0 words that
//!   mix Latin with Greek or Cyrillic letters (0.01 %).
//!
//! `phrases` changes the lists of phrases, by rule: `more` adds, `except` takes some away, `only` replaces. Case does
//! not count, `'` also stands for `’`, and a phrase is never part of a longer word.
//!
//! # When to use it
//! On web pages and other found text before anything is paid for them, and on what models wrote to catch
//! loops and stubs. With `rules: []` and `score_into` nothing is rejected: look at the numbers first. Filters of
//! a published dataset in its order are several steps: FineWeb judges what C4's `drop_lines` left.
//!
//! # Example
//! ```yaml
//! - quality:
//!     field: text
//!     rules: [gopher_quality, gopher_repetition, teacher]
//!     except: [gopher_bullets]
//!     thresholds: { gopher_short: 30 }
//!     phrases: { teacher_opening: { more: ["chapter one:"] } }
//!     score_into: numbers
//! ```
//!
//! # Limits
//! The prose rules were made for English prose from the web: code, verse, dialogue and manuals break many of them,
//! and other languages need `stop_words` of their own. Words are those of spaCy's English tokenizer, which datatrove
//! counts with: marks are words, and `don't` is two. C4's list of bad words is not included. Lines that end in
//! CR and LF do not end like a sentence for FineWeb: normalise them first. A rule whose number does not exist (a
//! mean over no words, an echo without a prompt) holds; datatrove ends with an error there, or rejects what is blank.
//!
//! Phrases are English, and story characters may speak them: read what is rejected before trusting a list. A cut
//! word shows only as a missing end; a change between languages of one script shows nowhere here. `teacher_echo`
//! rejects rewritings, which share words with what they rewrite: leave it out there, or raise it. Comments are told
//! by how lines begin, in no language in particular. Own lists have at most 1,000 phrases of 200 bytes. Time is linear
//! in a text's length, whatever is in it; memory while a text is measured is up to 35 bytes for each of its bytes. What
//! is no text is rejected `type_mismatch`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::kit::{Check, Kit};
use crate::ops::text_field::TextField;
use crate::ops::{MapRow, Operator, Runner};
use crate::problem::Severity;
use crate::row::{FieldPath, Fields, Outcome, Reason, Row, Type};
use crate::text::quality::{
    Broken, Judge, PHRASE_BYTES_MAX, PHRASES_MAX, PhraseLists, Rule, RuleSet, RuleSets, Settings, Stats,
    Thresholds, c4_lines,
};

/// Reject texts that known heuristics call junk.
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
    /// Changes to the phrases that the teacher rules look for, by rule: `more`, `except`, or `only`.
    #[serde(default)]
    pub phrases: PhraseLists,
    /// The field that holds what the text was asked for with; `teacher_echo` compares the two.
    pub prompt_field: Option<String>,
    /// Rewrite the field of rows that pass: only lines that C4 keeps.
    #[serde(default)]
    pub drop_lines: bool,
    /// A field that takes all numbers of the text as an object, by rule; those of sets that are off, too.
    pub score_into: Option<String>,
}

/// Those that suit written prose of any origin.
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
                code: has(RuleSet::Code),
                teacher: has(RuleSet::Teacher),
            },
            also: self.also.clone(),
            except: self.except.clone(),
            thresholds: self.thresholds.clone(),
            stop_words: self.stop_words.clone(),
            phrases: self.phrases.clone(),
        }
    }

    fn check_rules(&self, check: &mut Check<'_>) {
        let settings = self.settings();
        let is_off = Rule::ALL.iter().all(|rule| !settings.is_on(*rule));
        if is_off && self.score_into.is_none() && !self.drop_lines {
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
                warn_off(check, &key, rule, "its threshold does nothing");
            }
        }
        if self.stop_words.as_ref().is_some_and(Vec::is_empty) && settings.is_on(Rule::GopherStopWords) {
            check.problem("stop_words", "without stop words no text passes `gopher_stop_words`").hint =
                Some("add the rule to `except` to be rid of it".to_owned());
        }
        if self.prompt_field.is_some() && !settings.is_on(Rule::TeacherEcho) && self.score_into.is_none() {
            warn_off(check, "prompt_field", Rule::TeacherEcho, "nothing reads the prompt");
        }
    }

    fn check_phrases(&self, check: &mut Check<'_>) {
        let settings = self.settings();
        for (list, changes) in &self.phrases {
            let key = format!("phrases.{}", list.rule().code());
            if !settings.is_on(list.rule()) {
                warn_off(check, &key, list.rule(), "its phrases do nothing");
            }
            if changes.only.is_some() && !changes.except.is_empty() {
                check.problem(&key, "`only` and `except` exclude each other").hint =
                    Some("`only` stands for the built-in phrases: leave out what you do not want".to_owned());
            }
            let is_built_in =
                |phrase: &String| list.phrases().any(|known| known.eq_ignore_ascii_case(phrase));
            for phrase in changes.except.iter().filter(|phrase| !is_built_in(phrase)) {
                check.problem(&format!("{key}.except"), format!("`{phrase}` is no built-in phrase"));
            }
            let own = || changes.only.iter().flatten().chain(&changes.more);
            if own().count() > PHRASES_MAX {
                check.problem(&key, format!("a list has at most {PHRASES_MAX} phrases"));
            }
            if let Some(phrase) =
                own().find(|phrase| phrase.trim().is_empty() || phrase.len() > PHRASE_BYTES_MAX)
            {
                let start: String = phrase.chars().take(20).collect();
                let message =
                    format!("a phrase has 1 to {PHRASE_BYTES_MAX} bytes; `{start}` has {}", phrase.len());
                check.problem(&key, message);
            }
        }
    }
}

fn warn_off(check: &mut Check<'_>, key: &str, rule: Rule, what: &str) {
    let problem = check.problem(key, format!("`{}` is off: {what}", rule.code()));
    problem.severity = Severity::Warning;
    problem.hint = Some("add it to `also`".to_owned());
}

impl Operator for Quality {
    fn check(&self, check: &mut Check<'_>) {
        TextField::check(check, "field", &self.field);
        if let Some(field) = &self.prompt_field {
            TextField::check(check, "prompt_field", field);
        }
        self.check_rules(check);
        self.check_phrases(check);
        if let Some(field) = &self.score_into {
            let numbers = Rule::ALL.iter().map(|rule| (rule.code().to_owned(), Type::Number));
            check.makes("score_into", field, Type::Object(numbers.collect()));
        }
    }

    fn build(&self, _: &Kit) -> anyhow::Result<Vec<Runner>> {
        let judging = Judging {
            field: TextField::new(&self.field),
            prompt: self.prompt_field.as_deref().map(FieldPath::parse),
            judge: Judge::new(self.settings()),
            drop_lines: self.drop_lines,
            score_into: self.score_into.clone(),
        };
        Ok(vec![Runner::Map(Box::new(judging))])
    }
}

struct Judging {
    field: TextField,
    prompt: Option<FieldPath>,
    judge: Judge,
    drop_lines: bool,
    score_into: Option<String>,
}

impl Judging {
    /// The numbers of a text that breaks no rule, if they are asked for, and its lines that stay.
    fn judge(&self, fields: &Fields) -> Result<(Option<Stats>, Option<String>), Reason> {
        let text = self.field.of(fields)?;
        let prompt = self.prompt.as_ref().and_then(|prompt| prompt.text(fields));
        let stats = match self.score_into {
            None => self.judge.judge(text, prompt).map(|_| None),
            Some(_) => self.judge.judge_and_measure(text, prompt).map(Some),
        };
        let stats = stats.map_err(|broken| Reason::new(broken.code(), evidence(&broken)))?;
        if !self.drop_lines {
            return Ok((stats, None));
        }
        let lines = c4_lines(text);
        if lines.is_empty() {
            return Err(Reason::new("empty", Value::Null));
        }
        Ok((stats, Some(lines)))
    }
}

fn evidence(broken: &Broken) -> Value {
    let mut evidence = json!({"measured": broken.measured, "threshold": broken.threshold});
    if let Some(found) = &broken.found {
        evidence["found"] = json!(found.text);
        evidence["at"] = json!(found.at);
    }
    evidence
}

impl MapRow for Judging {
    fn map(&self, mut row: Row) -> Outcome {
        match self.judge(&row.fields) {
            Ok((numbers, lines)) => {
                if let (Some(lines), Some(text)) = (lines, self.field.path().value_mut(&mut row.fields)) {
                    *text = Value::String(lines);
                }
                let number = |(rule, value): (Rule, f64)| (rule.code().to_owned(), json!(value));
                let numbers = numbers.map(|stats| stats.iter().map(number).collect::<Fields>().into());
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
    fn what_was_found_is_shown_with_its_place() {
        let config =
            json!({"rules": ["teacher"], "phrases": {"teacher_opening": {"more": ["chapter one:"]}}});
        let evidence = json!({"measured": 1.0, "threshold": 0.0, "found": "Chapter One:", "at": 2});
        let rejected = json!({"rejected": "teacher_opening", "evidence": evidence});
        assert_eq!(judged(config.clone(), &json!("# Chapter One: a fox is here.")), rejected);
        check(config, "A fox is here.", None);
    }

    #[test]
    fn an_echo_needs_a_prompt() {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({"field": "text", "rules": [], "also": ["teacher_echo"], "prompt_field": "prompt",
            "thresholds": {"teacher_echo": 7}});
        let Runner::Map(judging) = fixture::built::<Quality>(config, &fixture::kit(folder.path())) else {
            panic!("it is a map");
        };
        let text = "Of this: write a story of a fox and a crow";
        let ended = |prompt: Value| {
            let row = fixture::row("0", &json!({"text": text, "prompt": prompt}));
            fixture::shown(judging.map(row))["rejected"].clone()
        };
        assert_eq!(ended(json!("Write a story of a fox and a crow.")), "teacher_echo");
        assert_eq!(ended(json!("Write a story of a fox.")), Value::Null);
        assert_eq!(ended(Value::Null), Value::Null);
    }

    #[test]
    fn lines_that_c4_drops_go() {
        let config = json!({"rules": [], "drop_lines": true});
        let text = "A fox is here.[1]\nMenu | Login\nIt is red.";
        check_lines(config.clone(), text, json!({"text": "A fox is here.\nIt is red."}));
        check_lines(config.clone(), "Menu", json!({"rejected": "empty", "evidence": null}));
        let also = fixture::with(config, json!({"also": ["c4_sentences"]}));
        let evidence = json!({"measured": 2.0, "threshold": 5.0});
        check_lines(also, text, json!({"rejected": "c4_sentences", "evidence": evidence}));
    }

    fn check_lines(config: Value, text: &str, expected: Value) {
        assert_eq!(judged(config, &json!(text)), expected, "{text}");
    }

    #[test]
    fn numbers_are_those_of_all_sets_and_of_the_steps_own_words() {
        let config = json!({"rules": [], "score_into": "numbers", "stop_words": ["der"]});
        let numbers = judged(config, &json!("der the and {."))["numbers"].clone();
        assert_eq!((&numbers["c4_curly_bracket"], &numbers["gopher_short"]), (&json!(1.0), &json!(3.0)));
        assert_eq!(numbers["gopher_stop_words"], json!(1.0));
        let config = json!({"rules": ["teacher"], "score_into": "numbers"});
        let numbers = judged(config, &json!("der the and {."))["numbers"].clone();
        assert_eq!((&numbers["gopher_stop_words"], &numbers["teacher_echo"]), (&json!(2.0), &Value::Null));
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
        check_config(
            json!({"field": "text", "also": ["teacher_refusal"], "prompt_field": "n",
                "phrases": {"teacher_refusal": {"only": ["no"], "except": ["i must decline", "yes"]},
                    "teacher_as_ai": {"more": [""]}}}),
            &[
                "prompt_field: `n` is integer, not text",
                "prompt_field: `teacher_echo` is off: nothing reads the prompt",
                "phrases.teacher_refusal: `only` and `except` exclude each other",
                "phrases.teacher_refusal.except: `yes` is no built-in phrase",
                "phrases.teacher_as_ai: `teacher_as_ai` is off: its phrases do nothing",
                "phrases.teacher_as_ai: a phrase has 1 to 200 bytes; `` has 0",
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
