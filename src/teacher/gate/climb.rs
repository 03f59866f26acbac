//! How many calls a server really works on at once: one that queues the others instead of refusing them
//! (vLLM, llama.cpp) is held where its throughput stops growing.
//!
//! A trial with fewer calls at once tells: where latency falls in proportion, throughput (calls in flight
//! over latency, by Little's law) stays, and the calls left out had only waited. Means of many calls are
//! compared, so noise, however wide, is no queue, and neither are calls that end in step.

use std::time::Duration;

/// Answers of one measurement. With lognormal latencies (sigma 0.6) it is right to 6 %.
const WINDOW: u32 = 128;

/// The first trial does with this share of the calls at once, further ones with [`CUT_AGAIN`].
const CUT: f64 = 0.7;
const CUT_AGAIN: f64 = 0.5;

/// A cut that keeps this share of the throughput stays.
const KEPT: f64 = 0.93;

/// What a trial with more calls at once offers, and what it must bring.
const RAISE: f64 = 1.4;
const GAINED: f64 = 1.1;

/// Rest after a trial that changed nothing: at first, and at most; and never less than this many times the
/// trial, so that trials cost next to nothing.
const REST_FIRST: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(300);
const REST_TRIALS: u32 = 20;

/// The most calls in flight that add to a server's throughput.
#[derive(Debug)]
pub struct Climb {
    max: usize,
    /// Found so far.
    held: usize,
    trial: Option<Trial>,
    /// Answers per second with `held`.
    base: f64,
    /// Whether the next trial is with more calls.
    upwards: bool,
    rest: Duration,
    rest_until: Duration,
    window: Window,
}

#[derive(Debug)]
struct Trial {
    limit: usize,
    began: Duration,
}

/// A measurement: it begins after `skip` answers.
#[derive(Debug)]
struct Window {
    skip: u32,
    answers: u32,
    latency: Duration,
}

impl Window {
    fn after(skip: usize) -> Window {
        Window { skip: u32::try_from(skip).unwrap_or(u32::MAX), answers: 0, latency: Duration::ZERO }
    }

    /// The mean latency, when there were enough answers.
    fn answer(&mut self, latency: Duration) -> Option<Duration> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.answers += 1;
        self.latency += latency;
        (self.answers >= WINDOW).then(|| self.latency / self.answers)
    }
}

impl Climb {
    pub fn new(max: usize) -> Climb {
        let max = max.max(1);
        Climb {
            max,
            held: max,
            trial: None,
            base: 0.0,
            upwards: false,
            rest: REST_FIRST,
            rest_until: Duration::ZERO,
            window: Window::after(max),
        }
    }

    /// The calls that may be in flight now.
    pub fn limit(&self) -> usize {
        self.trial.as_ref().map_or(self.held, |trial| trial.limit)
    }

    /// An answer came, so long after its request. `bound` if places in flight are what others wait for; else nothing can be told.
    pub fn answer(&mut self, now: Duration, latency: Duration, bound: bool) {
        if !bound {
            return self.give_up();
        }
        let Some(mean) = self.window.answer(latency) else { return };
        let rate = self.limit() as f64 / mean.as_secs_f64().max(1e-6);
        match self.trial.take() {
            Some(trial) => self.judge(now, &trial, rate),
            None => {
                self.base = rate;
                self.window = Window::after(0);
                if now >= self.rest_until {
                    let factor = if self.upwards { RAISE } else { CUT };
                    self.attempt(now, factor);
                }
            }
        }
    }

    /// The most is another now; what was found keeps its proportion.
    pub fn resize(&mut self, max: usize) {
        self.held = (self.held * max).div_ceil(self.max).clamp(1, max);
        self.max = max;
        self.give_up();
    }

    /// Ends a trial that can tell nothing.
    pub fn give_up(&mut self) {
        self.trial = None;
        self.window = Window::after(self.held);
    }

    fn attempt(&mut self, now: Duration, factor: f64) {
        let wanted = self.held as f64 * factor;
        let limit = if factor > 1.0 { wanted.ceil() } else { wanted.floor() } as usize;
        let limit = limit.clamp(1, self.max);
        if limit == self.held {
            return self.settle_down(now, now);
        }
        // Calls of before must be gone, or a crowd of new ones has begun at once.
        self.window = Window::after(self.held.max(limit));
        self.trial = Some(Trial { limit, began: now });
    }

    fn judge(&mut self, now: Duration, trial: &Trial, rate: f64) {
        let raised = trial.limit > self.held;
        if rate < self.base * if raised { GAINED } else { KEPT } {
            return self.settle_down(now, trial.began);
        }
        self.held = trial.limit;
        self.rest = REST_FIRST;
        if raised {
            self.base = rate;
        }
        self.attempt(now, if raised { RAISE } else { CUT_AGAIN });
    }

    /// What is held is right for now; the other direction comes next.
    fn settle_down(&mut self, now: Duration, trial_began: Duration) {
        self.upwards = !self.upwards && self.held < self.max;
        let trial = now.saturating_sub(trial_began);
        self.rest_until = now.saturating_add(self.rest.max(trial.saturating_mul(REST_TRIALS)));
        self.rest = self.rest.saturating_mul(2).min(REST_MAX);
        self.window = Window::after(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teacher::retry::Jitter;

    /// A lognormal draw with median 1.
    fn lognormal(random: &mut Jitter, sigma: f64) -> f64 {
        let normal: f64 = (0..12).map(|_| random.draw()).sum::<f64>() - 6.0;
        (sigma * normal).exp()
    }

    /// Calls of 200 ms against a server with so many places: the calls at once allowed in the end, the mean
    /// in flight and the throughput, both from second 5 on.
    fn simulate(places: usize, max: usize, sigma: f64, seconds: f64) -> (usize, f64, f64) {
        let mut climb = Climb::new(max);
        let mut random = Jitter::new(places as u64);
        // When each place is free, and when each call that flies ends.
        let mut free = std::collections::BinaryHeap::from(vec![std::cmp::Reverse(0_u64); places]);
        let mut flying = std::collections::BinaryHeap::new();
        let (mut now, mut answers, mut in_flight) = (0_u64, 0, 0.0);
        while now < (seconds * 1e9) as u64 {
            while flying.len() < climb.limit() {
                let began = free.pop().unwrap().0.max(now);
                let ends = began + (0.2e9 * lognormal(&mut random, sigma)) as u64;
                free.push(std::cmp::Reverse(ends));
                flying.push(std::cmp::Reverse((ends, now)));
            }
            let (ends, sent) = flying.pop().unwrap().0;
            if now > 5_000_000_000 {
                in_flight += (flying.len() + 1) as f64 * (ends - now) as f64;
                answers += 1;
            }
            now = ends;
            climb.answer(Duration::from_nanos(now), Duration::from_nanos(now - sent), true);
        }
        (climb.held, in_flight / 1e9 / (seconds - 5.0), f64::from(answers) / (seconds - 5.0))
    }

    #[track_caller]
    fn check_queue(places: usize, sigma: f64, seconds: f64, held: std::ops::RangeInclusive<usize>) {
        let (found, _, rate) = simulate(places, 256, sigma, seconds);
        assert!(held.contains(&found), "{found} held with {places} places");
        let (_, _, whole) = simulate(places, places, sigma, seconds);
        assert!(rate >= 0.95 * whole, "{rate} answers a second of {whole} with {places} places");
    }

    #[test]
    fn a_queue_is_held_where_throughput_stops_growing() {
        check_queue(8, 0.0, 120.0, 7..=12);
        check_queue(8, 0.6, 120.0, 7..=16);
        check_queue(50, 0.3, 120.0, 45..=80);
        check_queue(1, 0.3, 900.0, 1..=2);
    }

    #[test]
    fn noise_is_no_queue() {
        for sigma in [0.0, 0.3, 0.6, 0.8] {
            let (held, in_flight, _) = simulate(10_000, 256, sigma, 120.0);
            assert_eq!(held, 256, "sigma {sigma}");
            assert!(in_flight >= 0.97 * 256.0, "{in_flight} of 256 in flight, sigma {sigma}");
        }
    }

    #[test]
    fn a_wait_for_something_else_ends_a_trial() {
        let mut climb = Climb::new(64);
        for ms in 0..10_000 {
            climb.answer(Duration::from_millis(ms), Duration::from_millis(64), ms < 200 || ms % 100 > 50);
        }
        assert_eq!(climb.held, 64);
        climb.answer(Duration::from_secs(11), Duration::from_secs(1), false);
        assert_eq!(climb.limit(), 64);
    }
}
