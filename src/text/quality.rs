//! Heuristics that tell what is worth training on from junk: Gopher's, C4's and FineWeb's for prose, The
//! Stack's and StarCoder's for code, our own for what teachers write; each rule with a reason code and a
//! threshold. This file judges; [`rules`] lists the rules, [`measure`] takes the numbers. Knows no model.
//!
//! Sources: Gopher (Rae et al. 2021, arXiv 2112.11446, section A1.1 and table A1); C4 (Raffel et al.
//! 2020, JMLR 21-140, section 2.2); FineWeb (Penedo et al. 2024, arXiv 2406.17557, section 3.6); The Stack
//! (2211.15533) and its code in `bigcode-dataset`, StarCoder (2305.06161), StarCoder 2 (2402.19173).
//! Where the papers leave room, what is counted follows datatrove 0.10, which made FineWeb, down to what a
//! word is ([`words`]); `scripts/parity.sh` compares the verdicts. On its 20,000 documents one verdict of
//! 620,000 differs: datatrove joins the words of a run without spaces, so that it takes `ab c` for `a bc`. The rules were made for English web
//! text; code and dialogue break many of them.

mod c4;
mod code;
mod lines;
mod measure;
mod phrases;
mod rules;
mod runs;
mod teacher;
mod words;

pub use c4::c4_lines;
pub use measure::Stats;
use measure::{Lists, Sample};
use phrases::Phrases;
pub use phrases::{PHRASE_BYTES_MAX, PHRASES_MAX, PhraseChanges, PhraseLists, PhraseRule};
pub use rules::{Bound, Rule, RuleSet, Thresholds};

use std::sync::OnceLock;

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
    /// Rules for source code.
    pub code: bool,
    /// Rules for what a teacher wrote.
    pub teacher: bool,
}

impl Default for RuleSets {
    /// Gopher's two sets, which suit written prose of any origin.
    fn default() -> RuleSets {
        RuleSets {
            gopher_quality: true,
            gopher_repetition: true,
            c4: false,
            fineweb: false,
            code: false,
            teacher: false,
        }
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
    /// Changes to the lists of phrases that the teacher rules look for.
    pub phrases: PhraseLists,
}

impl Settings {
    /// Whether a rule is judged by.
    pub fn is_on(&self, rule: Rule) -> bool {
        let set = match rule.set() {
            RuleSet::GopherQuality => self.sets.gopher_quality,
            RuleSet::GopherRepetition => self.sets.gopher_repetition,
            RuleSet::C4 => self.sets.c4,
            RuleSet::Fineweb => self.sets.fineweb,
            RuleSet::Code => self.sets.code,
            RuleSet::Teacher => self.sets.teacher,
        };
        ((set && !rule.is_extra()) || self.also.contains(&rule)) && !self.except.contains(&rule)
    }

    /// The threshold that a rule is judged by.
    pub fn threshold(&self, rule: Rule) -> f64 {
        self.thresholds.get(rule).unwrap_or(rule.threshold())
    }
}

/// The first rule that a text breaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    pub rule: Rule,
    pub measured: f64,
    pub threshold: f64,
    /// What the number comes from, where a rule looks for something.
    pub found: Option<Found>,
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The part, or its first characters.
    pub text: String,
    /// Characters before it.
    pub at: usize,
}

/// Most characters of a part that are shown.
const FOUND_CHARS_MAX: usize = 200;

impl Broken {
    /// The reason code.
    pub fn code(&self) -> &'static str {
        self.rule.code()
    }
}

/// Judges texts by settings.
pub struct Judge {
    settings: Settings,
    /// Made when the first text is looked through for phrases: it takes milliseconds.
    phrases: OnceLock<Phrases>,
}

impl Default for Judge {
    fn default() -> Judge {
        Judge::new(Settings::default())
    }
}

impl Judge {
    pub fn new(settings: Settings) -> Judge {
        Judge { settings, phrases: OnceLock::new() }
    }

    /// Judges a text by the rules that are on, in the order of [`Rule::ALL`]; the first that it breaks
    /// decides. Otherwise gives the numbers of the sets that were needed.
    ///
    /// A rule whose number does not exist (a mean over no words, an echo without a prompt) holds.
    pub fn judge(&self, text: &str, prompt: Option<&str>) -> Result<Stats, Broken> {
        let sample = Sample::new(text, prompt);
        let mut stats = Stats::new();
        self.judge_sample(text, &sample, &mut stats)?;
        Ok(stats)
    }

    /// The same, but gives the numbers of all sets.
    pub fn judge_and_measure(&self, text: &str, prompt: Option<&str>) -> Result<Stats, Broken> {
        let sample = Sample::new(text, prompt);
        let mut stats = Stats::new();
        self.judge_sample(text, &sample, &mut stats)?;
        RuleSet::ALL.into_iter().for_each(|set| stats.add(&sample, set, &self.lists()));
        Ok(stats)
    }

    /// All numbers of a text.
    pub fn measure(&self, text: &str, prompt: Option<&str>) -> Stats {
        let (sample, mut stats) = (Sample::new(text, prompt), Stats::new());
        RuleSet::ALL.into_iter().for_each(|set| stats.add(&sample, set, &self.lists()));
        stats
    }

    fn lists(&self) -> Lists<'_> {
        Lists { stop_words: self.settings.stop_words.as_deref(), phrases: self }
    }

    fn phrases(&self) -> &Phrases {
        self.phrases.get_or_init(|| Phrases::new(&self.settings.phrases))
    }

    fn judge_sample(&self, text: &str, sample: &Sample<'_>, stats: &mut Stats) -> Result<(), Broken> {
        for rule in Rule::ALL.into_iter().filter(|rule| self.settings.is_on(*rule)) {
            stats.add(sample, rule.set(), &self.lists());
            let threshold = self.settings.threshold(rule);
            let Some(measured) = stats.value(rule) else { continue };
            let holds = match rule.bound() {
                Bound::AtLeast => measured >= threshold,
                Bound::AtMost => measured <= threshold,
            };
            if !holds {
                let found = stats.place(rule).and_then(|(start, end)| {
                    let part = text.get(start..end)?.chars().take(FOUND_CHARS_MAX).collect();
                    Some(Found { text: part, at: text.get(..start)?.chars().count() })
                });
                return Err(Broken { rule, measured, threshold, found });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

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
        let broken = Judge::new(settings(value)).judge(text, None).err();
        assert_eq!(broken.as_ref().map(Broken::code), expected, "{broken:?}");
    }

    fn all_sets() -> serde_json::Value {
        json!({"sets": {"gopher_quality": true, "gopher_repetition": true, "c4": true, "fineweb": true,
            "teacher": true}})
    }

    fn only(rule: &str) -> serde_json::Value {
        json!({"sets": {"gopher_quality": false, "gopher_repetition": false}, "also": [rule]})
    }

    #[test]
    fn prose_passes_every_set() {
        check(PROSE, all_sets(), None);
        let judge = Judge::new(settings(all_sets()));
        assert_eq!(
            judge.judge_and_measure(PROSE, None).unwrap().iter().count(),
            judge.measure(PROSE, None).iter().count()
        );
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
        check("Then if x { y } is so.", only("c4_curly_bracket"), Some("c4_curly_bracket"));
        check("if x { y }", only("c4_curly_bracket"), None);
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

    #[test]
    fn each_rule_of_code_fires() {
        check(&"x".repeat(1001), only("code_line_max"), Some("code_line_max"));
        check(
            &format!("{}\n{}", "x".repeat(150), "x".repeat(60)),
            only("code_line_mean"),
            Some("code_line_mean"),
        );
        let lines = json!({"also": ["code_lines"], "sets": {"gopher_quality": false, "gopher_repetition": false},
            "thresholds": {"code_lines": 2}});
        check("a\nb\nc", lines, Some("code_lines"));
        check("a = [1, 2, 3, 4]", only("code_alphabetic"), Some("code_alphabetic"));
        check("a = [(-), (+)]", only("code_alphanumeric"), Some("code_alphanumeric"));
        check("{([<-+*/>])}", only("code_token_chars"), Some("code_token_chars"));
        check(&format!("x = '{}'", "QUJD".repeat(20)), only("code_encoded"), Some("code_encoded"));
        check(&"QUJD".repeat(300), only("code_encoded_run"), Some("code_encoded_run"));
        check("// Code generated by protoc. DO NOT EDIT.", only("code_generated"), Some("code_generated"));
        check("<?xml version=\"1.0\"?>", only("code_xml"), Some("code_xml"));
        check("let x = 1;", only("code_comments_few"), Some("code_comments_few"));
        check("# only\n# comments", only("code_comments_many"), Some("code_comments_many"));
        check(
            "fn main() {\n    // Says hello.\n    println!(\"hello\");\n}\n",
            json!({"sets": {"code": true,
            "gopher_quality": false, "gopher_repetition": false}}),
            None,
        );
    }

    #[test]
    fn each_rule_of_teacher_fires_with_its_phrase_and_place() {
        let found = |text: &str, rule: &str| {
            let broken = Judge::new(settings(only(rule))).judge(text, Some(PROMPT)).unwrap_err();
            assert_eq!(broken.code(), rule);
            broken.found.map(|found| (found.text, found.at)).unwrap()
        };
        let check = |rule: &str, text: &str, part: &str, at: usize| {
            assert_eq!(found(text, rule), (part.to_owned(), at), "{text}");
        };
        check("teacher_refusal", "é. I’m sorry, but I can’t do it.", "I’m sorry, but I can’t", 3);
        check("teacher_as_ai", "Well, as an AI, I see.", "as an AI,", 6);
        check("teacher_prompt_talk", "So the user wants me to sing.", "the user wants me to", 3);
        check("teacher_template", "A fox.<|im_end|>", "<|im_end|>", 6);
        check("teacher_opening", "**Here is the** chapter.", "Here is the", 2);
        check("teacher_closing", "A fox. I hope this helps!", "I hope this helps", 7);
        check("teacher_placeholder", "Dear [Your Name], hello.", "[Your Name", 5);
        check("teacher_stub", "fn f() { todo!() }", "todo!()", 9);
        check("teacher_stub", "def f():\n    pass\n", "def f():\n    pass", 0);
        check("teacher_echo", &format!("So: {PROMPT}"), PROMPT.trim_end_matches('.'), 4);
        check("teacher_open_fence", "So:\n```python\nx = 1", "```python", 4);
        check("teacher_no_end", "It is so. And then he went to", "It is so. And then he went to", 0);
        check("teacher_scripts", "the fox 然后狐狸去了 there", "然后狐狸去了", 8);
        check("teacher_mixed_words", "a pаypаl page", "pаypаl", 2);
        let all = json!({"sets": {"gopher_quality": false, "gopher_repetition": false, "teacher": true}});
        assert!(Judge::new(settings(all)).judge(PROSE, Some(PROMPT)).is_ok());
    }

    const PROMPT: &str = "Write a short story about a fox who learns to read from an old and tired badger that lives \
        in the wood behind the mill, and keep it simple.";

    /// Texts that are easy to choke on, of about `bytes` bytes each.
    fn hostile(bytes: usize) -> Vec<String> {
        let units = [
            "word ",
            "a",
            "\0",
            "\u{202e}",
            "\u{200b}",
            "'",
            "''",
            "-",
            ".",
            "...",
            "…",
            "(",
            "((a))",
            ":)",
            "a.",
            "Mr.(",
            "#",
            "\n",
            "\n\n",
            "\r",
            "a\n",
            "[1]",
            "{",
            "```\n",
            "@a.",
            "http://a.b/",
            "a-b",
            "1km",
            "5$",
            "0x1f,",
            "\\u00e9",
            "lorem ipsum ",
            "as an ai ",
            "[",
            "def f():\n",
            "\"\"\"\n",
            "然",
            "я",
            "é",
            "\u{301}",
            "🦊",
            "US$",
            "a,",
            "1+",
            "_",
            "\u{1c}",
            "\u{3000}",
            "n't",
            "<",
            "sure,",
        ];
        units.iter().map(|unit| unit.repeat(bytes / unit.len())).collect()
    }

    #[test]
    fn hostile_texts_are_judged_in_linear_time() {
        let judge = Judge::new(settings(all_sets()));
        // A million times what takes quadratic time would not end.
        for text in hostile(60_000) {
            let stats = judge.measure(&text, Some(&text));
            assert!(
                stats.iter().all(|(_, value)| value.is_finite() && value >= 0.0),
                "{:?}",
                text.chars().next()
            );
            let _ = c4_lines(&text);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_measured(parts in proptest::collection::vec((0..50usize, 1..4usize, ".{0,6}"), 0..30)) {
            let units = hostile(12);
            let text: String = parts.iter().map(|(unit, times, more)| units[*unit].repeat(*times) + more).collect();
            static JUDGE: LazyLock<Judge> = LazyLock::new(|| Judge::new(settings(all_sets())));
            let judge = &JUDGE;
            let stats = judge.measure(&text, Some(&text));
            assert!(stats.iter().all(|(_, value)| value.is_finite() && value >= 0.0));
            if let Err(broken) = judge.judge(&text, Some(&text)) {
                assert_eq!(stats.value(broken.rule), Some(broken.measured));
            }
        }
    }
}
