//! Published heuristics that tell prose from junk: Gopher, C4 and FineWeb's own, each rule with a
//! reason code and a threshold. This file judges; [`rules`] lists the rules, [`measure`] takes the
//! numbers. Never changes a text, and knows no model.
//!
//! Sources: Gopher (Rae et al. 2021, arXiv 2112.11446, section A1.1 and table A1); C4 (Raffel et al.
//! 2020, JMLR 21-140, section 2.2); FineWeb (Penedo et al. 2024, arXiv 2406.17557, section 3.6).
//! Where the papers leave room, what is counted follows datatrove 0.10, which made FineWeb, except
//! that words are Unicode words (UAX 29) instead of a language's own tokenizer. Figures near a
//! threshold therefore differ a little from datatrove's. The rules were made for English web text;
//! code and dialogue break many of them.

mod measure;
mod rules;

use measure::Sample;
pub use measure::{Stats, measure};
pub use rules::{Bound, Rule, RuleSet, Thresholds};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which sets of rules are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuleSets {
    /// Gopher's quality rules: length, word length, symbols, bullets, stop words.
    pub gopher_quality: bool,
    /// Gopher's repetition rules: repeated lines, paragraphs and n-grams.
    pub gopher_repetition: bool,
    /// C4's rules for documents. Its curly-bracket rule stays off: it rejects all code. Name it in
    /// `also` to have it.
    pub c4: bool,
    /// The rules that FineWeb added: line ends, short lines, repeated lines, lists.
    pub fineweb: bool,
}

impl Default for RuleSets {
    /// Gopher's two sets, which suit written prose of any origin; the other two are for web pages.
    fn default() -> RuleSets {
        RuleSets { gopher_quality: true, gopher_repetition: true, c4: false, fineweb: false }
    }
}

/// What to judge by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub sets: RuleSets,
    /// Single rules that are on although their set is off.
    pub also: Vec<Rule>,
    /// Single rules that are off although their set is on. Wins over `also`.
    pub except: Vec<Rule>,
    /// Thresholds other than the published ones, by rule.
    pub thresholds: Thresholds,
    /// The words that `gopher_stop_words` looks for, as they are written; by default Gopher's eight
    /// English ones.
    pub stop_words: Option<Vec<String>>,
}

impl Settings {
    /// Whether a rule is judged by.
    pub fn is_on(&self, rule: Rule) -> bool {
        let set = match rule.set() {
            RuleSet::GopherQuality => self.sets.gopher_quality,
            RuleSet::GopherRepetition => self.sets.gopher_repetition,
            RuleSet::C4 => self.sets.c4 && rule != Rule::C4CurlyBracket,
            RuleSet::Fineweb => self.sets.fineweb,
        };
        (set || self.also.contains(&rule)) && !self.except.contains(&rule)
    }

    /// The threshold that a rule is judged by.
    pub fn threshold(&self, rule: Rule) -> f64 {
        self.thresholds.get(rule).unwrap_or(rule.threshold())
    }
}

/// The first rule that a text breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Broken {
    pub rule: Rule,
    pub measured: f64,
    pub threshold: f64,
}

impl Broken {
    /// The reason code.
    pub fn code(&self) -> &'static str {
        self.rule.code()
    }
}

/// Judges a text by the rules that are on, in the order of [`Rule::ALL`]; the first that it breaks
/// decides. Otherwise gives the numbers of the sets that were needed.
///
/// A rule whose number does not exist (a mean over no words) holds.
pub fn judge(text: &str, settings: &Settings) -> Result<Stats, Broken> {
    let sample = Sample::new(text);
    let mut stats = Stats::new(&sample);
    let words = settings.stop_words.as_deref();
    for set in RuleSet::ALL {
        let rules = || Rule::ALL.into_iter().filter(|rule| rule.set() == set && settings.is_on(*rule));
        if rules().next().is_none() {
            continue;
        }
        stats.add(&sample, set, words);
        for rule in rules() {
            let threshold = settings.threshold(rule);
            let Some(measured) = stats.value(rule) else { continue };
            let holds = match rule.bound() {
                Bound::AtLeast => measured >= threshold,
                Bound::AtMost => measured <= threshold,
            };
            if !holds {
                return Err(Broken { rule, measured, threshold });
            }
        }
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Eighty-odd words of plain prose that every set lets pass.
    const PROSE: &str = "The river runs to the sea, and the people of the valley have always known it.\n\
        In spring they follow the water with boats made of willow. A fisherman once told me that every \
        bend has a name.\nHis father taught him these names when he was a small boy! Would anyone still \
        write them down today? I asked, because maps of that country show nothing but a thin blue line.\n\
        He laughed, and said that paper forgets faster than old men do. We stood there until dark, \
        listening.";

    fn settings(value: serde_json::Value) -> Settings {
        serde_json::from_value(value).unwrap()
    }

    #[track_caller]
    fn check(text: &str, value: serde_json::Value, expected: Option<&str>) {
        let broken = judge(text, &settings(value)).err();
        assert_eq!(broken.map(|broken| broken.code()), expected, "{broken:?}");
    }

    fn all_sets() -> serde_json::Value {
        json!({"sets": {"gopher_quality": true, "gopher_repetition": true, "c4": true, "fineweb": true}})
    }

    fn only(rule: &str) -> serde_json::Value {
        json!({"sets": {"gopher_quality": false, "gopher_repetition": false}, "also": [rule]})
    }

    #[test]
    fn prose_passes_every_set() {
        check(PROSE, all_sets(), None);
        let stats = judge(PROSE, &settings(all_sets())).unwrap();
        assert_eq!(stats, measure(PROSE));
    }

    #[test]
    fn switches_and_thresholds_are_obeyed() {
        check("Too short.", json!({}), Some("gopher_short"));
        check("Too short.", json!({"except": ["gopher_short"]}), Some("gopher_alphabetic"));
        let lower = json!({"except": ["gopher_alphabetic"], "thresholds": {"gopher_short": 2, "gopher_stop_words": 0}});
        check("Too short.", lower, Some("gopher_top2_grams"));
        check("Too short.", json!({"sets": {"gopher_quality": false, "gopher_repetition": false}}), None);
        check(PROSE, json!({"stop_words": ["der", "die"]}), Some("gopher_stop_words"));
        assert!(serde_json::from_value::<Settings>(json!({"thresholds": {"gopher_sort": 2}})).is_err());
    }

    #[test]
    fn each_rule_of_gopher_quality_fires() {
        let words = |word: &str| vec![word; 60].join(" ");
        check(&words("of"), only("gopher_words_too_short"), Some("gopher_words_too_short"));
        check(&words("incomprehensible"), only("gopher_words_too_long"), Some("gopher_words_too_long"));
        check("# a # b # c", only("gopher_hashes"), Some("gopher_hashes"));
        check("a… b… c...", only("gopher_ellipses"), Some("gopher_ellipses"));
        check("- a\n • b\n- c", only("gopher_bullets"), Some("gopher_bullets"));
        check("a\nb …\nc...  ", only("gopher_ellipsis_lines"), Some("gopher_ellipsis_lines"));
        check("1 2 3 4 five", only("gopher_alphabetic"), Some("gopher_alphabetic"));
        check("The only stop word of it", only("gopher_stop_words"), Some("gopher_stop_words"));
        let long = json!({"also": ["gopher_long"], "thresholds": {"gopher_long": 10}});
        check(PROSE, long, Some("gopher_long"));
    }

    #[test]
    fn each_rule_of_gopher_repetition_fires() {
        let repeated = "the same line comes again and again\n".repeat(3);
        for rule in ["gopher_dup_lines", "gopher_dup_line_chars"] {
            check(&repeated, only(rule), Some(rule));
        }
        let paragraphs = repeated.replace('\n', "\n\n");
        for rule in ["gopher_dup_paragraphs", "gopher_dup_paragraph_chars"] {
            check(&paragraphs, only(rule), Some(rule));
            check(&repeated, only(rule), None);
        }
        let looped = "one two three four five six seven eight nine ten ".repeat(4);
        for n in 5..=10 {
            let rule = format!("gopher_dup{n}_grams");
            check(&looped, only(&rule), Some(&rule));
        }
        for n in 2..=4 {
            let rule = format!("gopher_top{n}_grams");
            check(&"very much so indeed ".repeat(9), only(&rule), Some(&rule));
        }
    }

    #[test]
    fn each_rule_of_c4_and_fineweb_fires() {
        check("Lorem ipsum dolor.", only("c4_lorem_ipsum"), Some("c4_lorem_ipsum"));
        check("if x { y }", only("c4_curly_bracket"), Some("c4_curly_bracket"));
        check("One is here. Two is there.", only("c4_sentences"), Some("c4_sentences"));
        let braces = format!("{PROSE}\nThe set {{1, 2}} has two of them.");
        check(&braces, all_sets(), None);
        check("no end\nof line", only("fineweb_line_punctuation"), Some("fineweb_line_punctuation"));
        check("Short.\nLines.\nHere.", only("fineweb_short_lines"), Some("fineweb_short_lines"));
        check("again\nagain", only("fineweb_dup_line_chars"), Some("fineweb_dup_line_chars"));
        check("a\nb\nc\nd", only("fineweb_newlines"), Some("fineweb_newlines"));
    }

    #[test]
    fn empty_texts_are_judged_too() {
        check("", json!({}), Some("gopher_short"));
        check("", json!({"except": ["gopher_short", "gopher_stop_words"]}), None);
        check(" \n\n ", only("c4_sentences"), Some("c4_sentences"));
        check("", only("fineweb_line_punctuation"), None);
    }
}
