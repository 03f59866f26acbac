//! Pseudo-English: prose and small Python functions, as long as asked. Knows nothing of requests.

use super::dice::Dice;

const DETERMINERS: &[&str] = &["the", "a", "every", "this", "that", "one", "each", "another"];
const ADJECTIVES: &[&str] = &[
    "small", "careful", "empty", "broad", "silent", "simple", "uneven", "heavy", "ordinary", "distant",
    "sudden", "honest", "narrow", "bright", "gradual", "familiar", "rough", "patient", "hidden", "steady",
    "clever", "stubborn", "hollow", "gentle", "local", "formal", "plain", "sharp", "common", "rare", "early",
    "final", "linear", "nested", "sorted", "random", "stable", "finite", "modern", "ancient", "costly",
    "quiet", "wooden", "digital", "public", "mutual", "tidy", "foreign",
];
const NOUNS: &[&str] = &[
    "teacher",
    "river",
    "list",
    "engine",
    "market",
    "student",
    "function",
    "garden",
    "letter",
    "machine",
    "number",
    "window",
    "village",
    "signal",
    "budget",
    "planet",
    "recipe",
    "harbour",
    "theorem",
    "bridge",
    "question",
    "answer",
    "pattern",
    "error",
    "sample",
    "queue",
    "forest",
    "customer",
    "sentence",
    "ladder",
    "method",
    "winter",
    "balance",
    "lesson",
    "table",
    "measure",
    "journey",
    "record",
    "doctor",
    "archive",
    "circle",
    "promise",
    "factor",
    "weight",
    "colour",
    "rumour",
    "model",
    "proof",
    "ticket",
    "island",
    "carpet",
    "habit",
    "voice",
    "metal",
    "neighbour",
    "clock",
    "paper",
    "limit",
    "reason",
    "kitchen",
    "tower",
    "string",
    "variable",
    "museum",
];
const VERBS: &[&str] = &[
    "follows",
    "explains",
    "holds",
    "changes",
    "measures",
    "visits",
    "counts",
    "repeats",
    "carries",
    "needs",
    "improves",
    "replaces",
    "describes",
    "crosses",
    "builds",
    "breaks",
    "remembers",
    "ignores",
    "returns",
    "collects",
    "divides",
    "joins",
    "moves",
    "orders",
    "paints",
    "reaches",
    "repairs",
    "resembles",
    "sells",
    "shapes",
    "shows",
    "starts",
    "stops",
    "supports",
    "teaches",
    "tests",
    "touches",
    "traces",
    "turns",
    "watches",
    "weighs",
    "welcomes",
    "widens",
    "wraps",
    "writes",
    "yields",
    "finds",
    "keeps",
];
const JOINTS: &[&str] = &[
    "because",
    "although",
    "while",
    "so that",
    "until",
    "whenever",
    "and",
    "but",
    "since",
    "unless",
    "where",
    "before",
    "after",
    "as if",
    "and yet",
    "even though",
];
const OPENERS: &[&str] =
    &["In practice", "At first", "For example", "By contrast", "Later", "In other words", "Even so", "Here"];

/// Paragraphs of about `bytes` bytes (at least one sentence, at most one sentence too long).
pub fn prose(bytes: usize, dice: &mut Dice) -> String {
    let mut text = String::with_capacity(bytes + 160);
    let mut left_in_paragraph = 3 + dice.below(4);
    loop {
        sentence(&mut text, dice);
        if text.len() >= bytes {
            return text;
        }
        left_in_paragraph -= 1;
        if left_in_paragraph == 0 {
            text.push_str("\n\n");
            left_in_paragraph = 3 + dice.below(4);
        } else {
            text.push(' ');
        }
    }
}

/// A few words without a full stop, about `bytes` bytes.
pub fn phrase(bytes: usize, dice: &mut Dice) -> String {
    let mut text = String::from(word(ADJECTIVES, dice));
    while text.len() + 6 < bytes {
        text.push(' ');
        text.push_str(word(ADJECTIVES, dice));
    }
    text.push(' ');
    text.push_str(word(NOUNS, dice));
    text
}

/// A Python function that parses and runs, in a fenced block.
pub fn python(dice: &mut Dice) -> String {
    let (adjective, noun, start) = (word(ADJECTIVES, dice), word(NOUNS, dice), dice.below(100));
    let (factor, bound) = (2 + dice.below(8), 10 + dice.below(90));
    let mut about = String::new();
    sentence(&mut about, dice);
    format!(
        "```python\ndef {adjective}_{noun}(values):\n    \"\"\"{about}\"\"\"\n    total = {start}\n    \
         for value in values:\n        if value < {bound}:\n            total += value * {factor}\n    \
         return total\n```"
    )
}

fn word(list: &'static [&'static str], dice: &mut Dice) -> &'static str {
    dice.pick::<&str>(list)
}

fn sentence(text: &mut String, dice: &mut Dice) {
    let start = text.len();
    if dice.below(4) == 0 {
        text.push_str(word(OPENERS, dice));
        text.push_str(", ");
    }
    clause(text, dice);
    if dice.below(3) != 0 {
        text.push_str(if dice.below(2) == 0 { ", " } else { " " });
        text.push_str(word(JOINTS, dice));
        text.push(' ');
        clause(text, dice);
    }
    text.push('.');
    text[start..=start].make_ascii_uppercase();
}

fn clause(text: &mut String, dice: &mut Dice) {
    noun_phrase(text, dice);
    text.push(' ');
    text.push_str(word(VERBS, dice));
    text.push(' ');
    noun_phrase(text, dice);
}

fn noun_phrase(text: &mut String, dice: &mut Dice) {
    let determiner = word(DETERMINERS, dice);
    let adjective = if dice.below(2) == 0 { word(ADJECTIVES, dice) } else { "" };
    let noun = word(NOUNS, dice);
    let next = if adjective.is_empty() { noun } else { adjective };
    text.push_str(determiner);
    if determiner == "a" && next.starts_with(['a', 'e', 'i', 'o']) {
        text.push('n');
    }
    text.push(' ');
    if !adjective.is_empty() {
        text.push_str(adjective);
        text.push(' ');
    }
    text.push_str(noun);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: usize) {
        let text = prose(bytes, &mut Dice::new(1, bytes as u128, 0));
        assert!(text.len() >= bytes && text.len() < bytes + 160, "{} bytes for {bytes}", text.len());
        assert!(text.is_ascii() && text.ends_with('.') && !text.contains("  "), "{text}");
        assert!(text.starts_with(|first: char| first.is_ascii_uppercase()), "{text}");
        assert_eq!(text, prose(bytes, &mut Dice::new(1, bytes as u128, 0)));
        assert_ne!(text, prose(bytes, &mut Dice::new(2, bytes as u128, 0)));
    }

    #[test]
    fn prose_is_about_as_long_as_asked() {
        [0, 1, 80, 1200, 20_000].into_iter().for_each(check);
    }

    #[test]
    fn a_function_is_fenced() {
        let text = python(&mut Dice::new(1, 1, 1));
        assert!(text.starts_with("```python\ndef ") && text.ends_with("return total\n```"), "{text}");
    }
}
