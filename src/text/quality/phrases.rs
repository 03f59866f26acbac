//! Phrases that models write and people seldom do, list by list, and where a text has one of them.
//!
//! The lists are short on purpose: each phrase was looked for in 20,000 texts that people wrote, and one that
//! stood in more than ten of them went out. Never judges.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::Rule;

/// Most phrases of a list, and most bytes of a phrase.
pub const PHRASES_MAX: usize = 1000;
pub const PHRASE_BYTES_MAX: usize = 200;

/// Characters from the end of a text in which a closing is looked for.
const CLOSING_CHARS: usize = 400;

// The built-in phrases, parted by semicolons.
const REFUSAL: &str = "i can't assist with; i cannot assist with; i can't help with that; i cannot help with that; \
    i can't fulfill; i cannot fulfill; i can't comply; i cannot comply with; i'm sorry, but i can't; \
    i'm sorry, but i cannot; i am sorry, but i cannot; i'm sorry, i can't; i apologize, but i can't; \
    i apologize, but i cannot; i apologize, but i'm unable; i'm unable to assist; i am unable to assist; \
    i'm unable to provide; i am unable to provide; i'm not able to help with; i'm not able to assist; \
    i won't be able to help with; i can't provide that; i can't create content; i cannot create content; \
    i must decline; i cannot in good conscience; against my programming; against my guidelines; \
    violates my guidelines; i'm not comfortable writing; unable to fulfill your request; \
    can't fulfill this request; cannot fulfill this request; can't fulfill your request";
const AS_AI: &str = "as an ai language model; as an ai assistant; as an ai model; as an ai,; as an ai i; \
    as a large language model; as a language model,; i am an ai; i'm an ai; i'm just an ai; \
    i'm a large language model; i am a large language model; i'm a language model; i am a language model; \
    i'm only an ai; as an artificial intelligence,; my knowledge cutoff; my training data; \
    my last knowledge update; my last training update; i was trained by openai; trained by openai; \
    i'm claude; i am chatgpt; i'm chatgpt; i don't have personal opinions; i do not have personal opinions; \
    i don't have personal experiences; i don't have access to real-time; i do not have access to real-time";
const PROMPT_TALK: &str = "the user wants me to; the user is asking; the user asked me; the user has asked; the user's request; \
    as per your instructions; as per your request; per your instructions; based on your instructions; \
    following your instructions; you asked me to write; my system prompt; the system prompt says; \
    i was instructed to; i've been instructed to; i have been instructed to; the prompt asks; \
    the prompt says; as requested in the prompt; the word limit; within the word count; word count:; \
    i've tried to incorporate; i have tried to incorporate; meets your requirements; \
    meets your needs. let me know";
const TEMPLATE: &str = "<|im_start|>; <|im_end|>; <|endoftext|>; <|eot_id|>; <|start_header_id|>; <|assistant|>; <|user|>; \
    <|system|>; <|end|>; [/INST]; [INST]; <<SYS>>; <</SYS>>; <start_of_turn>; <end_of_turn>; \
    ### Instruction:; ### Response:; ### Input:; ### Assistant:; ### Human:; \n\nHuman:; \n\nAssistant:; \
    </think>; <think>; <|begin_of_text|>; [end of text]";
const OPENING: &str = "sure,; sure!; sure thing; sure.; sure -; sure, here; certainly!; certainly,; certainly.; of course!; \
    of course,; of course.; absolutely!; absolutely,; great question; here is the; here's the; here is a; \
    here's a; here is an; here's an; here are the; here are a few; here are some; here is your; \
    here's your; here are your; here is my; here's my; below is the; below is a; below is an; below are; \
    i'd be happy to; i would be happy to; i'll be happy to; i'd be glad to; happy to help; okay, here; \
    ok, here; okay, let's; alright, here; alright, let's; as requested,; thank you for your; let me write; \
    i'll write; i will write; i've written; this is a great question; that's a great question; no problem!; \
    got it!; understood.; understood!";
const CLOSING: &str = "i hope this helps; i hope that helps; hope this helps; hope that helps; let me know if you; \
    let me know if there; let me know if this; let me know how; feel free to ask; feel free to reach out; \
    feel free to let me know; feel free to modify; feel free to adjust; would you like me to; \
    do you want me to; if you have any other questions; if you have any more questions; \
    if you need any more; if you need any further; if you need further assistance; is there anything else; \
    i hope you enjoy; i hope you find this; i hope this meets; i hope this story; i hope this explanation; \
    happy to help; please let me know if; want me to continue; to be continued; end of chapter; [end of; \
    (continued in; note: this is a; note: the above";
const PLACEHOLDER: &str = "lorem ipsum; [insert ; <insert ; (insert your; [your name; [your company; [your city; [your address; \
    [your email; [your title; [your phone; <your name; [name]; [topic]; [company; [author name; \
    [placeholder; <placeholder>; [link]; [city]; [country]; [location]; [add a ; [add your; [describe ; \
    [fill in; [to be ; [tbd]; [todo:; insert text here; your text here; content goes here; \
    example text here; [image of; [recipient; [date]";
const STUB: &str = "todo!(); todo!(\"; unimplemented!(); unimplemented!(\"; # your code here; // your code here; \
    # write your code here; // write your code here; # implementation here; // implementation here; \
    # todo: implement; // todo: implement; # implement this; # implement me; // implement me; \
    # add your code; // add your code; # code goes here; // code goes here; # rest of the code; \
    // rest of the code; # ... rest of the; // ... rest of the; # ... existing code; // ... existing code; \
    # (rest of; # remaining code; // remaining code; # implementation omitted; // implementation omitted; \
    # ... (same as; # same as before; // same as before; throw new notimplementedexception(); \
    throw new error(\"not implemented; throw new error('not implemented; panic(\"not implemented";

/// How a step changes a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PhraseChanges {
    /// Phrases instead of the built-in ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<String>>,
    /// More phrases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<String>,
    /// Built-in phrases that do not count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// Changes by the rule whose list it is.
pub type PhraseLists = BTreeMap<PhraseRule, PhraseChanges>;

/// A rule that looks for phrases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PhraseRule {
    TeacherRefusal,
    TeacherAsAi,
    TeacherPromptTalk,
    TeacherTemplate,
    TeacherOpening,
    TeacherClosing,
    TeacherPlaceholder,
    TeacherStub,
}

impl PhraseRule {
    pub const ALL: [PhraseRule; 8] = [
        PhraseRule::TeacherRefusal,
        PhraseRule::TeacherAsAi,
        PhraseRule::TeacherPromptTalk,
        PhraseRule::TeacherTemplate,
        PhraseRule::TeacherOpening,
        PhraseRule::TeacherClosing,
        PhraseRule::TeacherPlaceholder,
        PhraseRule::TeacherStub,
    ];

    pub fn rule(self) -> Rule {
        match self {
            PhraseRule::TeacherRefusal => Rule::TeacherRefusal,
            PhraseRule::TeacherAsAi => Rule::TeacherAsAi,
            PhraseRule::TeacherPromptTalk => Rule::TeacherPromptTalk,
            PhraseRule::TeacherTemplate => Rule::TeacherTemplate,
            PhraseRule::TeacherOpening => Rule::TeacherOpening,
            PhraseRule::TeacherClosing => Rule::TeacherClosing,
            PhraseRule::TeacherPlaceholder => Rule::TeacherPlaceholder,
            PhraseRule::TeacherStub => Rule::TeacherStub,
        }
    }

    /// The built-in phrases. `'` also stands for `’`; case does not count.
    pub fn phrases(self) -> impl Iterator<Item = &'static str> {
        let list = match self {
            PhraseRule::TeacherRefusal => REFUSAL,
            PhraseRule::TeacherAsAi => AS_AI,
            PhraseRule::TeacherPromptTalk => PROMPT_TALK,
            PhraseRule::TeacherTemplate => TEMPLATE,
            PhraseRule::TeacherOpening => OPENING,
            PhraseRule::TeacherClosing => CLOSING,
            PhraseRule::TeacherPlaceholder => PLACEHOLDER,
            PhraseRule::TeacherStub => STUB,
        };
        list.split("; ")
    }
}

/// Where a phrase is, in bytes, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Hit {
    pub(super) rule: PhraseRule,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The lists, ready to be looked for all at once.
pub(super) struct Phrases {
    all: Option<AhoCorasick>,
    /// Of each phrase, whose it is.
    rules: Vec<PhraseRule>,
}

impl Phrases {
    pub(super) fn new(changes: &PhraseLists) -> Phrases {
        let (mut all, mut rules) = (Vec::new(), Vec::new());
        for rule in PhraseRule::ALL {
            for phrase in list(rule, changes.get(&rule)) {
                if phrase.contains('\'') {
                    all.push(phrase.replace('\'', "’"));
                    rules.push(rule);
                }
                all.push(phrase);
                rules.push(rule);
            }
        }
        let mut builder = AhoCorasick::builder();
        builder.ascii_case_insensitive(true).match_kind(MatchKind::Standard).kind(Some(AhoCorasickKind::DFA));
        let all = builder.build(all).ok();
        Phrases { all, rules }
    }

    /// Calls `take` with each phrase that stands where its list says it counts, overlapping ones of several lists, too.
    pub(super) fn find(&self, text: &str, mut take: impl FnMut(Hit)) {
        let opening = opening(text);
        let closing = closing(text);
        for found in self.all.iter().flat_map(|all| all.find_overlapping_iter(text)) {
            let Some(rule) = self.rules.get(found.pattern().as_usize()).copied() else { continue };
            let (start, end) = (found.start(), found.end());
            let counts = match rule {
                PhraseRule::TeacherOpening => start == opening,
                PhraseRule::TeacherClosing => start >= closing,
                _ => true,
            };
            if counts && stands_alone(text, start, end) {
                take(Hit { rule, start, end });
            }
        }
    }
}

fn list(rule: PhraseRule, changes: Option<&PhraseChanges>) -> Vec<String> {
    let built_in = rule.phrases().map(str::to_owned);
    let Some(changes) = changes else { return built_in.collect() };
    let base: Vec<String> = changes.only.clone().unwrap_or_else(|| built_in.collect());
    let stays = |phrase: &String| !changes.except.iter().any(|except| except.eq_ignore_ascii_case(phrase));
    base.into_iter()
        .filter(stays)
        .chain(changes.more.iter().cloned())
        .filter(|phrase| !phrase.is_empty())
        .collect()
}

/// Where a text begins, behind white space and the marks of headings, emphasis and quotes.
fn opening(text: &str) -> usize {
    let marks = |char: char| char.is_whitespace() || matches!(char, '#' | '*' | '_' | '>' | '"' | '“' | '`');
    text.len() - text.trim_start_matches(marks).len()
}

fn closing(text: &str) -> usize {
    text.char_indices().rev().nth(CLOSING_CHARS - 1).map_or(0, |(at, _)| at)
}

/// Whether a phrase is no part of a longer word.
fn stands_alone(text: &str, start: usize, end: usize) -> bool {
    let phrase = &text[start..end];
    let joins = |outer: Option<char>, inner: Option<char>| {
        outer.zip(inner).is_some_and(|(outer, inner)| outer.is_alphanumeric() && inner.is_alphanumeric())
    };
    let (before, after) = (text[..start].chars().next_back(), text[end..].chars().next());
    // A bracket behind a name or another bracket is an index, or a mark of its own.
    if phrase.starts_with('[')
        && before.is_some_and(|char| !char.is_whitespace() && !"(\"'“*_>:".contains(char))
    {
        return false;
    }
    !joins(before, phrase.chars().next()) && !joins(after, phrase.chars().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, changes: serde_json::Value, expected: &[(PhraseRule, &str)]) {
        let phrases = Phrases::new(&serde_json::from_value(changes).unwrap());
        let mut found = Vec::new();
        phrases.find(text, |hit| found.push((hit.rule, &text[hit.start..hit.end])));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn phrases_count_where_their_list_says() {
        let none = serde_json::json!({});
        check(
            "Well. As an AI language model…",
            none.clone(),
            &[(PhraseRule::TeacherAsAi, "As an AI language model")],
        );
        check("I CAN’T assist with it", none.clone(), &[(PhraseRule::TeacherRefusal, "I CAN’T assist with")]);
        check("**Sure thing**", none.clone(), &[(PhraseRule::TeacherOpening, "Sure thing")]);
        check("He was sure thing were bad. Sure thing.", none.clone(), &[]);
        check(&format!("Hope this helps {}", "x ".repeat(300)), none.clone(), &[]);
        check(
            "It is so. I do hope this helps!",
            none.clone(),
            &[(PhraseRule::TeacherClosing, "hope this helps")],
        );
        check("unsure, insure", none, &[]);
    }

    #[test]
    fn lists_can_be_changed() {
        let changes = serde_json::json!({"teacher_refusal": {"only": ["no way"], "more": ["never ever"]},
            "teacher_as_ai": {"except": ["As an AI,"]}});
        check(
            "no way, never ever",
            changes.clone(),
            &[(PhraseRule::TeacherRefusal, "no way"), (PhraseRule::TeacherRefusal, "never ever")],
        );
        check("As an AI, I cannot comply with it", changes, &[]);
    }

    #[test]
    fn lists_keep_within_their_bounds() {
        for rule in PhraseRule::ALL {
            assert!(rule.phrases().count() <= PHRASES_MAX);
            assert!(rule.phrases().all(|phrase| !phrase.is_empty() && phrase.len() <= PHRASE_BYTES_MAX));
        }
    }
}
