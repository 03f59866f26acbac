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
    /// The Stack's and StarCoder's rules for source code: long lines, few letters, encoded data, generated files.
    Code,
    /// What teachers write and nobody wants: refusals, talk about the task, stubs, unfinished ends.
    Teacher,
    /// Gopher's repetition rules: repeated lines, paragraphs and n-grams.
    GopherRepetition,
}

impl RuleSet {
    /// In the order of judging: the dearest last.
    pub const ALL: [RuleSet; 6] = [
        RuleSet::GopherQuality,
        RuleSet::C4,
        RuleSet::Fineweb,
        RuleSet::Code,
        RuleSet::Teacher,
        RuleSet::GopherRepetition,
    ];
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

            /// Whether the rule is off unless it is asked for by name: it is right for few datasets only.
            pub fn is_extra(self) -> bool {
                matches!(
                    self,
                    Rule::C4CurlyBracket | Rule::C4Paragraphs | Rule::CodeCommentsFew | Rule::CodeCommentsMany
                )
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
        "Occurrences of `lorem ipsum` in lines that C4 keeps."
    C4CurlyBracket c4_curly_bracket C4 AtMost 0.0
        "Occurrences of `{` in lines that C4 keeps. Rejects all code; off unless asked for."
    C4Paragraphs c4_paragraphs C4 AtLeast 3.0
        "Lines of at least 200 characters: mC4's rule. Off unless asked for."

    FinewebLinePunctuation fineweb_line_punctuation Fineweb AtLeast 0.12
        "Share of non-blank lines that end like a sentence."
    FinewebShortLines fineweb_short_lines Fineweb AtMost 0.67
        "Share of non-blank lines of at most 30 characters."
    FinewebDupLineChars fineweb_dup_line_chars Fineweb AtMost 0.01
        "Share of characters that are in repeated lines."
    FinewebNewlines fineweb_newlines Fineweb AtMost 0.3
        "Line ends per word."

    CodeLineMax code_line_max Code AtMost 1000.0
        "Characters of the longest line."
    CodeLineMean code_line_mean Code AtMost 100.0
        "Mean characters of a line."
    CodeLines code_lines Code AtMost 100000.0
        "Lines."
    CodeAlphabetic code_alphabetic Code AtLeast 0.25
        "Share of characters that are letters."
    CodeAlphanumeric code_alphanumeric Code AtLeast 0.25
        "Share of characters that are letters or digits."
    CodeTokenChars code_token_chars Code AtLeast 1.5
        "Characters, white space left out, per name, number or mark."
    CodeEncoded code_encoded Code AtMost 0.5
        "Share of characters in runs of Base64, of hexadecimal bytes or of Unicode escapes."
    CodeEncodedRun code_encoded_run Code AtMost 1024.0
        "Characters of the longest such run."
    CodeGenerated code_generated Code AtMost 0.0
        "Whether one of the first five lines says that a program wrote the file."
    CodeXml code_xml Code AtMost 0.0
        "Whether the first 100 characters have an XML header."
    CodeCommentsFew code_comments_few Code AtLeast 0.01
        "Share of characters in lines that are comments. Off unless asked for."
    CodeCommentsMany code_comments_many Code AtMost 0.8
        "Share of characters in lines that are comments. Off unless asked for."

    TeacherRefusal teacher_refusal Teacher AtMost 0.0
        "Phrases that refuse the task."
    TeacherAsAi teacher_as_ai Teacher AtMost 0.0
        "Phrases in which a model speaks of itself."
    TeacherPromptTalk teacher_prompt_talk Teacher AtMost 0.0
        "Phrases about the prompt, the user or the task."
    TeacherTemplate teacher_template Teacher AtMost 0.0
        "Marks of chat templates."
    TeacherOpening teacher_opening Teacher AtMost 0.0
        "Whether the text begins with talk to the user."
    TeacherClosing teacher_closing Teacher AtMost 0.0
        "Phrases of talk to the user in the last 400 characters."
    TeacherPlaceholder teacher_placeholder Teacher AtMost 0.0
        "Phrases that stand for what is to be filled in."
    TeacherStub teacher_stub Teacher AtMost 0.0
        "Phrases and function bodies that stand for code that was left out."
    TeacherEcho teacher_echo Teacher AtMost 25.0
        "Words of the longest row that the text shares with the row's prompt."
    TeacherOpenFence teacher_open_fence Teacher AtMost 0.0
        "Whether a fence of code is opened and not closed."
    TeacherNoEnd teacher_no_end Teacher AtMost 0.0
        "Whether the text stops in mid-sentence."
    TeacherScripts teacher_scripts Teacher AtMost 0.05
        "Share of letters in words of another script than most of the text."
    TeacherMixedWords teacher_mixed_words Teacher AtMost 0.0
        "Words that mix Latin with Greek or Cyrillic letters."

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
