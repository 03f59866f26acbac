//! The list of quality rules: code, set, which way it is bounded, published threshold, what it is
//! for. Never measures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleSet {
    /// Gopher's quality rules: length, word length, symbols, bullets, stop words.
    GopherQuality,
    /// C4's rules for documents; its curly-bracket rule, which rejects all code, must be asked for by name.
    C4,
    /// The rules that FineWeb added: line ends, short lines, repeated lines, lists.
    Fineweb,
    /// Gopher's repetition rules: repeated lines, paragraphs and n-grams.
    GopherRepetition,
}

impl RuleSet {
    /// In the order of judging: the dearest last.
    pub const ALL: [RuleSet; 4] =
        [RuleSet::GopherQuality, RuleSet::C4, RuleSet::Fineweb, RuleSet::GopherRepetition];
}

/// Which side of its threshold a good text is on; the threshold itself is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    AtLeast,
    AtMost,
}

/// Makes the enum of rules and the struct of thresholds from one list, so that a rule is written
/// down once.
macro_rules! rules {
    ($($name:ident $code:ident $set:ident $bound:ident $threshold:literal $doc:literal)*) => {
        /// One rule; serialised as its code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Rule {
            $(#[doc = $doc] $name,)*
        }

        /// Thresholds by rule; what is not given is the published one.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct Thresholds {
            $(#[doc = $doc] #[serde(skip_serializing_if = "Option::is_none")] pub $code: Option<f64>,)*
        }

        impl Thresholds {
            pub fn get(&self, rule: Rule) -> Option<f64> {
                match rule { $(Rule::$name => self.$code,)* }
            }
        }

        impl Rule {
            /// All rules, in the order of judging.
            pub const ALL: [Rule; Rule::COUNT] = [$(Rule::$name,)*];
            pub const COUNT: usize = [$(stringify!($code),)*].len();

            /// The reason code.
            pub fn code(self) -> &'static str {
                match self { $(Rule::$name => stringify!($code),)* }
            }

            /// What is measured and how it is bounded: one sentence.
            pub fn doc(self) -> &'static str {
                match self { $(Rule::$name => $doc.trim_ascii(),)* }
            }

            pub fn set(self) -> RuleSet {
                match self { $(Rule::$name => RuleSet::$set,)* }
            }

            pub fn bound(self) -> Bound {
                match self { $(Rule::$name => Bound::$bound,)* }
            }

            /// The published threshold.
            pub fn threshold(self) -> f64 {
                match self { $(Rule::$name => $threshold,)* }
            }
        }
    };
}

// Thresholds of `GopherQuality`: Gopher, section A1.1, "Quality filtering". Of `C4`: C4, section 2.2.
// Of `Fineweb`: FineWeb, section 3.6, and for `fineweb_newlines` datatrove 0.10. Of `GopherRepetition`: Gopher, table A1.
rules! {
    GopherShort gopher_short GopherQuality AtLeast 50.0
        "Words, not counting punctuation."
    GopherLong gopher_long GopherQuality AtMost 100000.0
        "Words, not counting punctuation."
    GopherWordsTooShort gopher_words_too_short GopherQuality AtLeast 3.0
        "Mean characters per word, not counting punctuation."
    GopherWordsTooLong gopher_words_too_long GopherQuality AtMost 10.0
        "Mean characters per word, not counting punctuation."
    GopherHashes gopher_hashes GopherQuality AtMost 0.1
        "Hash signs per word."
    GopherEllipses gopher_ellipses GopherQuality AtMost 0.1
        "Ellipses (`...` or `…`) per word."
    GopherBullets gopher_bullets GopherQuality AtMost 0.9
        "Share of lines that start with `-` or `•`."
    GopherEllipsisLines gopher_ellipsis_lines GopherQuality AtMost 0.3
        "Share of lines that end in an ellipsis."
    GopherAlphabetic gopher_alphabetic GopherQuality AtLeast 0.8
        "Share of words, punctuation included, with a letter in them."
    GopherStopWords gopher_stop_words GopherQuality AtLeast 2.0
        "How many of the stop words the, be, to, of, and, that, have, with occur at least once."

    C4Sentences c4_sentences C4 AtLeast 5.0
        "Sentences in lines that C4 keeps: at least 3 words, none longer than 1,000 characters, a full stop, question mark, exclamation mark or quote at the end, and no mention of JavaScript, cookies or terms of use."
    C4LoremIpsum c4_lorem_ipsum C4 AtMost 0.0
        "Occurrences of `lorem ipsum`."
    C4CurlyBracket c4_curly_bracket C4 AtMost 0.0
        "Occurrences of `{`. Rejects all code; off unless asked for."

    FinewebLinePunctuation fineweb_line_punctuation Fineweb AtLeast 0.12
        "Share of non-blank lines that end like a sentence."
    FinewebShortLines fineweb_short_lines Fineweb AtMost 0.67
        "Share of non-blank lines of at most 30 characters."
    FinewebDupLineChars fineweb_dup_line_chars Fineweb AtMost 0.01
        "Share of characters that are in repeated lines."
    FinewebNewlines fineweb_newlines Fineweb AtMost 0.3
        "Line ends per word."

    GopherDupLines gopher_dup_lines GopherRepetition AtMost 0.3
        "Share of lines that came before."
    GopherDupParagraphs gopher_dup_paragraphs GopherRepetition AtMost 0.3
        "Share of paragraphs that came before."
    GopherDupLineChars gopher_dup_line_chars GopherRepetition AtMost 0.2
        "Share of characters that are in lines that came before."
    GopherDupParagraphChars gopher_dup_paragraph_chars GopherRepetition AtMost 0.2
        "Share of characters that are in paragraphs that came before."
    GopherTop2Grams gopher_top2_grams GopherRepetition AtMost 0.2
        "Share of characters that are in the most frequent pair of words."
    GopherTop3Grams gopher_top3_grams GopherRepetition AtMost 0.18
        "Share of characters that are in the most frequent run of 3 words."
    GopherTop4Grams gopher_top4_grams GopherRepetition AtMost 0.16
        "Share of characters that are in the most frequent run of 4 words."
    GopherDup5Grams gopher_dup5_grams GopherRepetition AtMost 0.15
        "Share of characters that are in runs of 5 words that came before."
    GopherDup6Grams gopher_dup6_grams GopherRepetition AtMost 0.14
        "Share of characters that are in runs of 6 words that came before."
    GopherDup7Grams gopher_dup7_grams GopherRepetition AtMost 0.13
        "Share of characters that are in runs of 7 words that came before."
    GopherDup8Grams gopher_dup8_grams GopherRepetition AtMost 0.12
        "Share of characters that are in runs of 8 words that came before."
    GopherDup9Grams gopher_dup9_grams GopherRepetition AtMost 0.11
        "Share of characters that are in runs of 9 words that came before."
    GopherDup10Grams gopher_dup10_grams GopherRepetition AtMost 0.1
        "Share of characters that are in runs of 10 words that came before."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_serialised_names_and_judged_set_by_set() {
        for rule in Rule::ALL {
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.code());
            assert!(rule.doc().ends_with('.'));
        }
        let sets = Rule::ALL.map(Rule::set);
        let order: Vec<_> =
            sets.iter().map(|set| RuleSet::ALL.iter().position(|other| other == set)).collect();
        assert!(order.is_sorted());
    }
}
