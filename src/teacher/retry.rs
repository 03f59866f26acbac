//! Whether and when a call that brought no reply is sent again.
//!
//! Pure: the random number is a parameter, and nothing here sleeps, counts or sends.

use std::time::Duration;

use super::Fault;

/// The first wait is drawn from zero to this.
const BASE: Duration = Duration::from_millis(500);

/// No wait is longer than this, whatever the attempt.
const CAP: Duration = Duration::from_secs(30);

/// What to do after a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Send the same call again after this time, through the gate.
    Again { after: Duration },
    /// The fault stands.
    GiveUp,
}

/// Decides what follows a fault.
///
/// `attempt` counts from 1 and is the one that just failed; sends that met [`Fault::Busy`] are not
/// counted by the caller, because a busy teacher uses up no attempts: the gate makes the call wait and
/// gives up on the teacher as a whole. `random` is from 0 to 1.
///
/// The wait after a transient fault is "full jitter": uniform between zero and
/// `min(30 s, 500 ms * 2^(attempt - 1))`. Of the variants in "Exponential Backoff And Jitter" (AWS
/// Architecture Blog, 2015) it makes clients that failed together come back spread out, with the
/// fewest calls in total.
pub fn decide(attempt: u32, attempts_max: u32, fault: &Fault, random: f64) -> Decision {
    match fault {
        Fault::Busy { .. } => Decision::Again { after: Duration::ZERO },
        Fault::Transient { .. } if attempt < attempts_max => {
            Decision::Again { after: ceiling(attempt).mul_f64(random.clamp(0.0, 1.0)) }
        }
        Fault::Transient { .. } | Fault::Fatal { .. } | Fault::TooLong { .. } | Fault::BadRequest { .. } => {
            Decision::GiveUp
        }
    }
}

/// How far a call has come.
///
/// A fault at one endpoint says little as long as another is well: the call goes there at once, and only when
/// all that are well have failed it is one of its attempts used up. So it ends, whatever it does to servers.
#[derive(Debug, Default)]
pub struct Tries {
    /// Times that it was sent and not told to wait.
    pub sent: u32,
    /// Attempts that are used up.
    attempts: u32,
    /// Endpoints that failed it since an attempt was last used up.
    pub met: Vec<usize>,
}

impl Tries {
    /// Decides what follows a fault at an endpoint; `elsewhere` is whether another one is well beside these.
    pub fn after(
        &mut self,
        fault: &Fault,
        endpoint: usize,
        elsewhere: impl FnOnce(&[usize]) -> bool,
        attempts_max: u32,
        random: f64,
    ) -> Decision {
        if matches!(fault, Fault::Transient { .. }) {
            self.met.push(endpoint);
            if elsewhere(&self.met) {
                return Decision::Again { after: Duration::ZERO };
            }
            self.met.clear();
            self.attempts += 1;
        }
        decide(self.attempts, attempts_max, fault, random)
    }
}

/// The longest wait after this attempt.
fn ceiling(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    BASE.saturating_mul(1 << doublings).min(CAP)
}

/// Random numbers for waits: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", OOPSLA 2014). Never for anything that ends up in data.
#[derive(Clone, Debug)]
pub struct Jitter {
    state: u64,
}

impl Jitter {
    pub fn new(seed: u64) -> Jitter {
        Jitter { state: seed }
    }

    /// The next number, from 0 up to but not including 1.
    pub fn draw(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // The upper 53 bits are what a float can hold.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transient() -> Fault {
        Fault::Transient { code: "server_error", message: "500".into(), billed: false }
    }

    /// The wait in milliseconds, `None` for giving up.
    fn check(attempt: u32, fault: &Fault, random: f64, expected: Option<u64>) {
        let wait = match decide(attempt, 5, fault, random) {
            Decision::Again { after } => Some(after),
            Decision::GiveUp => None,
        };
        assert_eq!(wait, expected.map(Duration::from_millis), "attempt {attempt}, {fault:?}");
    }

    #[test]
    fn transient_faults_back_off_until_the_attempts_are_used() {
        check(1, &transient(), 1.0, Some(500));
        check(1, &transient(), 0.0, Some(0));
        check(2, &transient(), 0.5, Some(500));
        check(4, &transient(), 1.0, Some(4_000));
        check(5, &transient(), 0.5, None);
        check(6, &transient(), 0.5, None);
        check(1, &transient(), f64::INFINITY, Some(500));
        assert_eq!(ceiling(7), CAP);
        assert_eq!(ceiling(u32::MAX), CAP);
    }

    #[test]
    fn only_busy_and_transient_come_again() {
        let busy = Fault::Busy { retry_after: None, message: "429".into(), notes: Box::default() };
        check(1, &busy, 0.5, Some(0));
        check(1_000, &busy, 0.5, Some(0));
        check(1, &Fault::Fatal { message: "401".into() }, 0.5, None);
        check(1, &Fault::TooLong { message: "413".into() }, 0.5, None);
        check(1, &Fault::BadRequest { message: "400".into() }, 0.5, None);
    }

    #[test]
    fn an_attempt_is_used_up_when_every_endpoint_has_failed_the_call() {
        let mut tries = Tries::default();
        let mut waits = Vec::new();
        for send in 0..9 {
            let others = |met: &[usize]| met.len() < 3;
            let after = match tries.after(&transient(), send % 3, others, 3, 1.0) {
                Decision::Again { after } => Some(after.as_millis()),
                Decision::GiveUp => None,
            };
            waits.push(after);
        }
        let [none, half, whole] = [Some(0), Some(500), Some(1_000)];
        assert_eq!(waits, [none, none, half, none, none, whole, none, none, None]);
    }

    #[test]
    fn jitter_is_spread_between_zero_and_one() {
        let mut jitter = Jitter::new(7);
        let draws: Vec<f64> = (0..10_000).map(|_| jitter.draw()).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / 10_000.0;
        assert!((0.48..0.52).contains(&mean), "{mean}");
    }
}
