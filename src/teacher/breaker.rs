//! The circuit breaker of an endpoint: what it is good for, by how its last calls ended.
//!
//! A pure state machine; time is a parameter. It only steers the choice between endpoints (`pool.rs`): where
//! nothing better is left, a sick endpoint is asked all the same.

use std::time::Duration;

/// Faults in a row that open a breaker. A server that fails one call in ten comes to that once in 100,000.
pub const FAULTS_MAX: u32 = 5;

/// How long an endpoint is first left alone; twice as long each time that its probe fails.
pub const BACK_OFF_FIRST: Duration = Duration::from_millis(500);

/// No endpoint is left alone for longer than this: a probe costs one call that goes again elsewhere.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// What an endpoint is good for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Health {
    Well,
    /// Left alone until then; afterwards one call may go there to see, if none does yet.
    Sick {
        until: Duration,
        probed: bool,
    },
    /// Not asked any more.
    Out,
}

/// Counts faults in a row, and times how long to leave an endpoint alone.
#[derive(Debug)]
pub struct Breaker {
    health: Health,
    faults_in_a_row: u32,
    /// When it last opened. What was sent before says nothing new.
    opened_at: Duration,
    /// Openings since the endpoint was last well.
    openings: u32,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker { health: Health::Well, faults_in_a_row: 0, opened_at: Duration::ZERO, openings: 0 }
    }
}

impl Breaker {
    pub fn health(&self) -> Health {
        self.health
    }

    /// Openings since the endpoint was last well.
    pub fn openings(&self) -> u32 {
        self.openings
    }

    /// A call is on its way to see whether the endpoint is well again, or is not any more.
    pub fn probe(&mut self, on_its_way: bool) {
        if let Health::Sick { probed, .. } = &mut self.health {
            *probed = on_its_way;
        }
    }

    /// The endpoint answered, whatever it said. Returns whether that makes it well again.
    pub fn answered(&mut self, sent_at: Duration) -> bool {
        match self.health {
            Health::Well => {
                self.faults_in_a_row = 0;
                false
            }
            Health::Sick { .. } if sent_at >= self.opened_at => {
                *self = Breaker::default();
                true
            }
            Health::Sick { .. } | Health::Out => false,
        }
    }

    /// A call came to nothing for a fault that speaks of the endpoint. Returns whether the breaker opened.
    pub fn failed(&mut self, now: Duration, sent_at: Duration) -> bool {
        let opens = match self.health {
            Health::Well => {
                self.faults_in_a_row += 1;
                self.faults_in_a_row >= FAULTS_MAX
            }
            Health::Sick { until, .. } => sent_at >= self.opened_at && now >= until,
            Health::Out => false,
        };
        if opens {
            let back_off = BACK_OFF_FIRST.saturating_mul(1 << self.openings.min(16)).min(BACK_OFF_MAX);
            self.health = Health::Sick { until: now.saturating_add(back_off), probed: false };
            self.opened_at = now;
            self.openings = self.openings.saturating_add(1);
        }
        opens
    }

    /// The endpoint is not asked any more.
    pub fn leave_out(&mut self) {
        self.health = Health::Out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Plays events, each `+` (answered), `-` (failed) or `?` (a probe leaves) with the times of sending and of
    /// ending in milliseconds; then the state: `well`, or until when the endpoint is left alone, and `?`.
    #[track_caller]
    fn check(events: &[(char, u64, u64)], expected: &str) {
        let mut breaker = Breaker::default();
        for (event, sent_at, now) in events {
            match event {
                '+' => drop(breaker.answered(ms(*sent_at))),
                '-' => drop(breaker.failed(ms(*now), ms(*sent_at))),
                _ => breaker.probe(true),
            }
        }
        let shown = match breaker.health() {
            Health::Well => "well".to_owned(),
            Health::Sick { until, probed } => {
                format!("{}{}", until.as_millis(), if probed { "?" } else { "" })
            }
            Health::Out => "out".to_owned(),
        };
        assert_eq!(shown, expected, "{events:?}");
    }

    const FIVE: [(char, u64, u64); 5] =
        [('-', 0, 10), ('-', 0, 11), ('-', 0, 12), ('-', 0, 13), ('-', 0, 14)];

    /// Five faults up to millisecond 14, and what follows.
    #[track_caller]
    fn check_after_five(more: &[(char, u64, u64)], expected: &str) {
        check(&[&FIVE, more].concat(), expected);
    }

    #[test]
    fn faults_in_a_row_open_it() {
        check(&[], "well");
        check(&FIVE[..4], "well");
        check(&FIVE, "514");
        let with_an_answer = [&FIVE[..4], &[('+', 0, 14)], &FIVE[..4]].concat();
        check(&with_an_answer, "well");
    }

    #[test]
    fn what_was_sent_before_says_nothing_new() {
        check_after_five(&[('-', 0, 20), ('-', 3, 700)], "514");
        check_after_five(&[('+', 3, 20)], "514");
    }

    #[test]
    fn a_probe_that_fails_doubles_the_wait_and_one_that_is_answered_ends_it() {
        check_after_five(&[('?', 0, 0)], "514?");
        check_after_five(&[('?', 0, 0), ('-', 514, 600)], "1600");
        check_after_five(&[('-', 514, 600), ('-', 1600, 2000)], "4000");
        check_after_five(&[('?', 0, 0), ('+', 514, 600)], "well");
        check_after_five(&[('-', 514, 600), ('+', 1600, 1700), ('-', 1800, 1800)], "well");
        let again = [('+', 514, 600)].into_iter().chain(FIVE.map(|(event, _, now)| (event, 700, now + 700)));
        check_after_five(&again.collect::<Vec<_>>(), "1214");
    }

    #[test]
    fn the_wait_is_bounded() {
        let mut breaker = Breaker::default();
        let mut now = Duration::ZERO;
        for _ in 0..100 {
            breaker.failed(now, now);
            if let Health::Sick { until, .. } = breaker.health() {
                assert!(until - now <= BACK_OFF_MAX);
                now = until;
            }
        }
        assert_eq!(breaker.health(), Health::Sick { until: now, probed: false });
        assert!(now > BACK_OFF_MAX * 80);
    }

    #[test]
    fn who_is_left_out_stays_out() {
        let mut breaker = Breaker::default();
        breaker.leave_out();
        assert!(!breaker.answered(ms(1)) && !breaker.failed(ms(2), ms(1)));
        assert_eq!(breaker.health(), Health::Out);
    }
}
