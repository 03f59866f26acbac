//! The arithmetic of a plan: from what a walk over stored replies saw to calls, tokens and money.
//!
//! Pure numbers in, intervals out. What nothing bounds has no upper end, and is never guessed.

use serde::Serialize;

use crate::store::Spread;
use crate::teacher::wire::Price;

/// Bytes of a request per token, most and fewest: prose and code come to 3 to 5 with the vocabularies of
/// today (OpenAI's rule of thumb is 4, platform.openai.com/tokenizer).
const BYTES_PER_TOKEN_MAX: f64 = 5.0;
const BYTES_PER_TOKEN_MIN: f64 = 3.0;

/// Replies from which on their spread says something. Of fewer, the next ones may differ by as much as the mean.
const REPLIES_MIN: u64 = 5;

/// Standard deviations to either side of a mean: about 95 of 100 sums lie within two.
pub const DEVIATIONS: f64 = 2.0;

/// From at least to at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interval {
    pub low: u64,
    /// `None` when nothing bounds it.
    pub high: Option<u64>,
}

impl Interval {
    pub fn exact(count: u64) -> Interval {
        Interval { low: count, high: Some(count) }
    }

    #[must_use]
    pub fn plus(self, other: Interval) -> Interval {
        let high = self.high.zip(other.high).map(|(a, b)| a.saturating_add(b));
        Interval { low: self.low.saturating_add(other.low), high }
    }
}

/// An interval in the middle of a calculation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub low: f64,
    pub high: Option<f64>,
}

impl Range {
    pub fn exact(number: f64) -> Range {
        Range { low: number, high: Some(number) }
    }

    fn plus(self, other: Range) -> Range {
        Range { low: self.low + other.low, high: self.high.zip(other.high).map(|(a, b)| a + b) }
    }

    fn at_most(self, most: f64) -> Range {
        Range { low: self.low.min(most), high: Some(self.high.map_or(most, |high| high.min(most))) }
    }

    fn times(self, other: Range) -> Range {
        // Nothing of what is not bounded is nothing.
        let high = match (self.high, other.high) {
            (Some(0.0), _) | (_, Some(0.0)) => Some(0.0),
            (Some(a), Some(b)) => Some(a * b),
            _ => None,
        };
        Range { low: self.low * other.low, high }
    }

    fn rounded(self) -> Interval {
        if let Some(high) = self.high.filter(|high| high - self.low < 1e-6) {
            return Interval::exact(high.round().max(0.0) as u64);
        }
        // What is whole but for the error of floats stays what it is.
        let low = (self.low + 1e-6).floor().max(0.0) as u64;
        Interval { low, high: self.high.map(|high| ((high - 1e-6).ceil().max(0.0) as u64).max(low)) }
    }
}

/// What the walk saw of a step's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub rows_in: u64,
    /// Children opened minus parents ended.
    pub split_off: u64,
    pub rows_out: u64,
    /// Rows that ended here because an answer was not in the store.
    pub unknown: u64,
}

/// What it saw of a step's calls to one teacher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenCalls {
    /// Calls answered from the store.
    pub hits: u64,
    /// Calls that are not in the store, and the bytes of their requests.
    pub misses: u64,
    pub miss_bytes: u64,
}

/// What is known of a step without walking.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    /// Most rows that one row becomes; `None` where nothing bounds it.
    pub rows_per_row: Option<u32>,
    /// Most rows that come past the step, where it ends the run with them.
    pub rows_max: Option<u64>,
    /// Copies of a row that ask, each on its own.
    pub copies: u32,
    /// Most tokens of all earlier answers of a row, where each is bounded: those of earlier steps, and
    /// those of this one.
    pub answers_max: Option<u64>,
    pub own_answers_max: Option<u64>,
}

/// What is known of a step's way of asking one teacher without walking.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Asking {
    /// The least and the most calls of a row.
    pub calls: [u32; 2],
    pub max_tokens: Option<u32>,
    /// Whether its requests hold what was answered earlier in the same step.
    pub chained: bool,
    pub price: Option<Price>,
    /// Bytes of a request with nothing in the place of earlier answers, where that could be told.
    pub prompt_bytes: Option<f64>,
    /// The replies so far.
    pub tokens_in: Spread,
    pub tokens_out: Spread,
}

/// All that a step is estimated from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Basis {
    pub seen: Seen,
    pub facts: Facts,
    /// One for each teacher that it asks.
    pub lines: Vec<(SeenCalls, Asking)>,
}

/// What a step will take of one teacher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// Calls that the store answers.
    pub from_store: Interval,
    /// Calls to be made.
    pub calls: Interval,
    pub tokens_in: Interval,
    pub tokens_out: Interval,
    /// `None` for a teacher without prices.
    pub usd_nano: Option<Interval>,
}

/// Estimates every step, in order, and of each what it takes of each teacher. `scale` is source rows of the
/// run per row walked.
///
/// A row whose answer is not in the store ends the walk for it. How many such rows reach a later step:
/// at the low end what the rows decided so far let through (one row more kept than seen, so that
/// nothing seen means that all pass), at the high end all of them.
pub fn estimate(steps: &[Basis], scale: Range) -> Vec<Vec<Estimate>> {
    let counted = |count: u64| Range::exact(count as f64).times(scale);
    // Rows of the run whose way is not known.
    let mut unknown = Range::exact(0.0);
    let mut estimates = Vec::new();
    for Basis { seen, facts, lines } in steps {
        let missing: u64 = lines.iter().map(|(calls, _)| calls.misses).sum();
        let of_line = |(calls, asking): &(SeenCalls, Asking)| {
            let to_make = calls_here(calls, asking, missing).times(scale);
            let to_make = to_make.plus(unknown.times(calls_per_row(seen, facts, lines.len(), calls, asking)));
            of_line(facts, calls, asking, to_make, counted(calls.hits))
        };
        estimates.push(lines.iter().map(of_line).collect());

        let rows_in = seen.rows_in as f64;
        let children = match seen.rows_in {
            0 => {
                let low = facts.rows_per_row.map_or(1.0, f64::from);
                Range { low, high: facts.rows_per_row.map(f64::from) }
            }
            _ => Range::exact((rows_in + seen.split_off as f64) / rows_in),
        };
        let decided = (seen.rows_in + seen.split_off).saturating_sub(seen.unknown) as f64;
        let pass = ((seen.rows_out as f64 + 1.0) / (decided + 1.0)).min(1.0);
        unknown = unknown.times(children).plus(counted(seen.unknown));
        unknown.low *= pass;
        if let Some(rows_max) = facts.rows_max {
            unknown = unknown.at_most(rows_max.saturating_sub(seen.rows_out) as f64);
        }
    }
    estimates
}

/// Calls that the walked rows still take: each of the step's `missing` answers is one row's next, and the
/// calls that follow it are not known.
fn calls_here(calls: &SeenCalls, asking: &Asking, missing: u64) -> Range {
    let [least, most] = asking.calls.map(|calls| missing * u64::from(calls));
    let low = calls.misses.max(least.saturating_sub(calls.hits));
    Range { low: low as f64, high: Some(calls.misses.max(most) as f64) }
}

/// Calls that a row takes which is to come: as many as those before it, where that is always the same.
fn calls_per_row(seen: &Seen, facts: &Facts, lines: usize, calls: &SeenCalls, asking: &Asking) -> Range {
    let [least, most] = asking.calls.map(|calls| f64::from(calls) * f64::from(facts.copies));
    let before = (seen.rows_in > 0).then(|| (calls.hits + calls.misses) as f64 / seen.rows_in as f64);
    match before {
        Some(before) if lines == 1 && least == most => Range::exact(before),
        Some(before) => Range { low: least.min(before), high: Some(most) },
        None => Range { low: least, high: Some(most) },
    }
}

/// From what a run takes at the least to what it takes at the most.
pub fn between(least: &[Vec<Estimate>], most: &[Vec<Estimate>]) -> Vec<Vec<Estimate>> {
    let span = |a: Interval, b: Interval| Interval { low: a.low.min(b.low), high: b.high };
    let pair = |(a, b): (&Estimate, &Estimate)| Estimate {
        from_store: span(a.from_store, b.from_store),
        calls: span(a.calls, b.calls),
        tokens_in: span(a.tokens_in, b.tokens_in),
        tokens_out: span(a.tokens_out, b.tokens_out),
        usd_nano: a.usd_nano.zip(b.usd_nano).map(|(a, b)| span(a, b)),
    };
    least.iter().zip(most).map(|(least, most)| least.iter().zip(most).map(pair).collect()).collect()
}

fn of_line(facts: &Facts, seen: &SeenCalls, asking: &Asking, calls: Range, hits: Range) -> Estimate {
    let tokens_in = tokens_in(facts, seen, asking, calls);
    let tokens_out = tokens_out(asking, calls);
    let usd_nano = asking.price.map(|price| {
        let nano = |tokens_in: f64, tokens_out: f64| {
            // A price per million tokens in dollars is 1,000 times that in nano-dollars per token.
            (tokens_in * price.input + tokens_out * price.output) * 1000.0
        };
        let high = tokens_in.high.zip(tokens_out.high).map(|(read, written)| nano(read, written));
        Range { low: nano(tokens_in.low, tokens_out.low), high }.rounded()
    });
    Estimate {
        from_store: hits.rounded(),
        calls: calls.rounded(),
        tokens_in: tokens_in.rounded(),
        tokens_out: tokens_out.rounded(),
        usd_nano,
    }
}

/// From the prompts that could be rendered, else from replies so far and what a prompt can come to.
fn tokens_in(facts: &Facts, seen: &SeenCalls, asking: &Asking, calls: Range) -> Range {
    let tokens =
        |bytes: f64| Range { low: bytes / BYTES_PER_TOKEN_MAX, high: Some(bytes / BYTES_PER_TOKEN_MIN) };
    let rendered = (seen.misses > 0).then(|| seen.miss_bytes as f64 / seen.misses as f64);
    let earlier = if rendered.is_some() { Some(0) } else { facts.answers_max };
    let own = if asking.chained { facts.own_answers_max } else { Some(0) };
    let bound = match rendered.or(asking.prompt_bytes) {
        Some(bytes) if rendered.is_some() && !asking.chained => return calls.times(tokens(bytes)),
        Some(bytes) => {
            let prompt = tokens(bytes);
            // As if each earlier answer were in the prompt once and as long as it may be.
            let answers = earlier.zip(own).map(|(earlier, own)| (earlier + own) as f64 * BYTES_PER_TOKEN_MAX);
            let high = answers.and_then(|bytes| tokens(bytes).plus(prompt).high);
            Range { low: prompt.low, high }
        }
        None => Range { low: 0.0, high: None },
    };
    within(sum_of(&asking.tokens_in, calls), calls.times(bound))
}

/// From replies so far, else up to `max_tokens` each.
fn tokens_out(asking: &Asking, calls: Range) -> Range {
    let most = calls.times(Range { low: 0.0, high: asking.max_tokens.map(f64::from) });
    within(sum_of(&asking.tokens_out, calls), most)
}

/// What replies say, where there are any, and never more than what is bounded otherwise.
fn within(seen: Option<Range>, bound: Range) -> Range {
    let Some(seen) = seen else { return bound };
    match bound.high {
        Some(high) => seen.at_most(high),
        None => seen,
    }
}

/// The sum over calls of a number whose spread is known from earlier ones. Its variance is that of the
/// calls themselves plus that of the mean, which is itself an estimate.
fn sum_of(spread: &Spread, calls: Range) -> Option<Range> {
    if spread.count == 0 {
        return None;
    }
    let least = if spread.count < REPLIES_MIN { spread.mean } else { 0.0 };
    let variance = spread.deviation.max(least).powi(2);
    let margin = |calls: f64| DEVIATIONS * (variance * calls * (1.0 + calls / spread.count as f64)).sqrt();
    let low = (calls.low * spread.mean - margin(calls.low)).max(0.0);
    Some(Range { low, high: calls.high.map(|calls| calls * spread.mean + margin(calls)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONCE: Range = Range { low: 1.0, high: Some(1.0) };

    fn asks(max_tokens: Option<u32>) -> Asking {
        Asking { calls: [1, 1], max_tokens, price: Some(Price::of(1.0, 2.0)), ..Asking::default() }
    }

    /// A step with one teacher, or none.
    fn step(seen: Seen, copies: u32, lines: &[(SeenCalls, Asking)]) -> Basis {
        let facts = Facts { rows_per_row: Some(copies), copies, answers_max: Some(0), ..Facts::default() };
        Basis { seen, facts, lines: lines.to_vec() }
    }

    fn missed(misses: u64, miss_bytes: u64) -> SeenCalls {
        SeenCalls { misses, miss_bytes, ..SeenCalls::default() }
    }

    fn word(interval: Interval) -> String {
        match interval.high {
            Some(high) if high == interval.low => high.to_string(),
            Some(high) => format!("{}-{high}", interval.low),
            None => format!("{}-", interval.low),
        }
    }

    /// Each line as `from_store calls tokens_in tokens_out usd_nano`.
    #[track_caller]
    fn check(steps: &[Basis], scale: Range, expected: &[&str]) {
        let estimates = estimate(steps, scale).into_iter().flatten().map(|line| {
            let usd = line.usd_nano.map_or("unknown".to_owned(), word);
            let counts = [line.from_store, line.calls, line.tokens_in, line.tokens_out].map(word).join(" ");
            format!("{counts} {usd}")
        });
        assert_eq!(estimates.collect::<Vec<_>>(), expected);
    }

    fn check_calls(steps: &[Basis], scale: Range) -> Vec<String> {
        estimate(steps, scale).into_iter().flatten().map(|line| word(line.calls)).collect()
    }

    #[test]
    fn a_fresh_pipeline_asks_for_every_row() {
        // Ten rows, two samples each, requests of 300 bytes; then a step that nobody has reached.
        let rows = Seen { rows_in: 10, split_off: 10, unknown: 20, rows_out: 0 };
        let first = step(rows, 2, &[(missed(20, 6000), asks(Some(100)))]);
        let unseen = step(Seen::default(), 1, &[(SeenCalls::default(), asks(None))]);
        let steps = [first.clone(), unseen.clone()];
        check(&steps, ONCE, &["0 20 1200-2000 0-2000 1200000-6000000", "0 20 0- 0- 0-"]);
        // With a limit between them, or a list that is not there yet.
        let mut limit = step(Seen::default(), 1, &[]);
        limit.facts.rows_max = Some(5);
        assert_eq!(check_calls(&[first.clone(), limit, unseen.clone()], ONCE), ["20", "5"]);
        let mut list = step(Seen::default(), 1, &[]);
        list.facts.rows_per_row = None;
        assert_eq!(check_calls(&[first.clone(), list, unseen], ONCE), ["20", "20-"]);
        let tenfold = Range { low: 10.0, high: None };
        check(&[first], tenfold, &["0 200- 12000- 0- 12000000-"]);
        let unpriced = Asking { price: None, ..asks(Some(100)) };
        check(&[step(rows, 2, &[(missed(20, 6000), unpriced)])], ONCE, &["0 20 1200-2000 0-2000 unknown"]);
    }

    #[test]
    fn what_the_store_has_costs_nothing_and_tells_how_many_pass() {
        // 8 of 10 rows answered; of the 8, 4 passed the filter; so 2 more to ask, and 1 to 2 to grade.
        let draft = Seen { rows_in: 10, rows_out: 8, unknown: 2, ..Seen::default() };
        let drafted = SeenCalls { hits: 8, misses: 2, miss_bytes: 600 };
        let filter = Seen { rows_in: 8, rows_out: 4, ..Seen::default() };
        let grade = Seen { rows_in: 4, rows_out: 4, ..Seen::default() };
        let even = |mean: f64| Spread { count: 8, mean, deviation: 0.0, max: 90 };
        let graded = Asking { tokens_in: even(50.0), tokens_out: even(20.0), ..asks(Some(100)) };
        let steps = [
            step(draft, 1, &[(drafted, asks(Some(10)))]),
            step(filter, 1, &[]),
            step(grade, 1, &[(SeenCalls { hits: 4, ..SeenCalls::default() }, graded)]),
        ];
        check(&steps, ONCE, &["8 2 120-200 0-20 120000-240000", "4 1-2 55-100 22-40 100000-180000"]);
    }

    #[test]
    fn sums_spread_and_stay_under_max_tokens() {
        let spread = Spread { count: 100, mean: 50.0, deviation: 10.0, max: 90 };
        let asking = Asking { tokens_out: spread, ..asks(Some(60)) };
        let rows = Seen { rows_in: 100, unknown: 100, ..Seen::default() };
        let of = |asking: Asking| [step(rows, 1, &[(missed(100, 100 * 15), asking)])];
        // 100 x 50, give or take twice the root of 100 x 100 x (1 + 100/100).
        check(&of(asking), ONCE, &["0 100 300-500 4717-5283 9734314-11065686"]);
        let capped = Asking { max_tokens: Some(40), ..asking };
        check(&of(capped), ONCE, &["0 100 300-500 4000 8300000-8500000"]);
        let few = Asking { tokens_out: Spread { count: 4, ..spread }, ..asking };
        check(&of(few), ONCE, &["0 100 300-500 0-6000 300000-12500000"]);
    }

    #[test]
    fn a_prompt_that_waits_for_answers_is_bounded_by_them_and_by_few_replies() {
        // 300 bytes of prompt and answers of 30 tokens, which are 150 bytes at the most.
        let waits = Asking { prompt_bytes: Some(300.0), ..asks(Some(10)) };
        let rows = Seen { rows_in: 2, unknown: 2, ..Seen::default() };
        let first = step(rows, 1, &[(missed(2, 30), asks(Some(30)))]);
        let second = |asking: Asking, answers_max: Option<u64>| {
            let mut step = step(Seen::default(), 1, &[(SeenCalls::default(), asking)]);
            step.facts.answers_max = answers_max;
            [first.clone(), step]
        };
        check(
            &second(waits, Some(30)),
            ONCE,
            &["0 2 6-10 0-60 6000-130000", "0 2 120-300 0-20 120000-340000"],
        );
        let one = Spread { count: 1, mean: 40.0, deviation: 0.0, max: 40 };
        let seen = &estimate(&second(Asking { tokens_in: one, ..waits }, Some(30)), ONCE)[1][0];
        assert_eq!(word(seen.tokens_in), "0-276");
        let open = &estimate(&second(waits, None), ONCE)[1][0];
        assert_eq!(word(open.tokens_in), "120-");
    }

    #[test]
    fn calls_that_follow_from_answers_are_between_none_and_all() {
        let rows = Seen { rows_in: 10, unknown: 10, ..Seen::default() };
        // A teacher that is asked where the first one's answer does not do, with the same prompt.
        let dear = Asking { calls: [0, 1], prompt_bytes: Some(300.0), ..asks(Some(10)) };
        let escalating = step(rows, 1, &[(missed(10, 3000), asks(Some(10))), (SeenCalls::default(), dear)]);
        check(&[escalating], ONCE, &["0 10 600-1000 0-100 600000-1200000", "0 0-10 0-1000 0-100 0-1200000"]);
        // A conversation of three turns: all that was said so far is in each request.
        let asker = Asking { calls: [1, 3], chained: true, ..asks(Some(30)) };
        let teller = Asking { prompt_bytes: Some(150.0), ..asker };
        let mut talk = step(rows, 1, &[(missed(10, 1500), asker), (SeenCalls::default(), teller)]);
        talk.facts.own_answers_max = Some(180);
        check(
            &[talk.clone()],
            ONCE,
            &["0 10-30 300-10500 0-900 300000-12300000", "0 10-30 300-10500 0-900 300000-12300000"],
        );
        // Some of them have begun.
        talk.lines[0].0 = SeenCalls { hits: 4, misses: 6, miss_bytes: 900 };
        talk.lines[1].0 = SeenCalls { hits: 0, misses: 4, miss_bytes: 600 };
        assert_eq!(check_calls(&[talk], ONCE), ["6-30", "10-30"]);
    }
}
