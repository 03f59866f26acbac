//! How processes share the limits of one teacher: each by what it wants, and never more than all.
//!
//! Plain numbers. That everybody sees everybody's claim, and one after the other, is the store's part.

/// What one process wants of a teacher, and what it holds of its limits.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Claim {
    /// Calls in flight and waiting.
    pub demand: u64,
    /// From 0 to 1, of each limit. All claims of a teacher come to 1 at most.
    pub share: f64,
}

/// What everybody gets who wants nothing yet: enough to begin at once.
const SHARE_LEAST: f64 = 0.02;

/// Changes below this are not worth what they disturb.
const CHANGE_LEAST: f64 = 0.01;

/// The share that a process should hold now: by its part of what all want, but no more than the others leave.
/// Who comes new gets what those before it have given up, and nothing before that.
pub fn share(ours: Claim, others: &[Claim]) -> f64 {
    let processes = others.len() as f64 + 1.0;
    let least = SHARE_LEAST.min(1.0 / processes);
    let wanted = others.iter().map(|claim| claim.demand).sum::<u64>() + ours.demand;
    let part = if wanted == 0 { 1.0 / processes } else { ours.demand as f64 / wanted as f64 };
    let fair = least + (1.0 - least * processes) * part;
    let left = (1.0 - others.iter().map(|claim| claim.share).sum::<f64>()).max(0.0);
    let share = fair.min(left);
    // A last bit is taken up whole, so that one that is alone again has all.
    let is_worth_it = (share - ours.share).abs() >= CHANGE_LEAST || others.is_empty();
    if is_worth_it || ours.share > left { share } else { ours.share }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(demand: u64, share: f64) -> Claim {
        Claim { demand, share }
    }

    #[test]
    fn shares_go_by_demand_and_what_others_leave() {
        let check = |ours: Claim, others: &[Claim], expected: f64| {
            let found = share(ours, others);
            assert!(
                (found - expected).abs() < 1e-9,
                "{found}, not {expected}, of {ours:?} beside {others:?}"
            );
        };
        check(claim(0, 0.0), &[], 1.0);
        check(claim(0, 0.0), &[claim(300, 1.0)], 0.0);
        check(claim(300, 1.0), &[claim(0, 0.0)], 0.98);
        check(claim(0, 0.0), &[claim(300, 0.98)], 0.02);
        check(claim(300, 0.02), &[claim(300, 0.98)], 0.02);
        check(claim(300, 0.98), &[claim(300, 0.02)], 0.5);
        check(claim(100, 0.0), &[claim(100, 0.3), claim(200, 0.3)], 0.255);
        // Next to nothing changes nothing; but all of it is taken by one that is alone.
        check(claim(100, 0.5), &[claim(101, 0.5)], 0.5);
        check(claim(100, 0.995), &[], 1.0);
        // Hundreds of processes.
        check(claim(0, 0.0), &vec![claim(0, 0.0); 99], 0.01);
    }

    #[test]
    fn together_they_never_hold_more_than_all_and_soon_all_of_it() {
        let mut random = crate::teacher::retry::Jitter::new(5);
        let mut claims: Vec<Claim> = Vec::new();
        for step in 0..2_000_u32 {
            match random.draw() {
                draw if draw < 0.02 && claims.len() < 8 => claims.push(claim(0, 0.0)),
                draw if draw < 0.03 && claims.len() > 1 => drop(claims.pop()),
                _ => {}
            }
            for index in 0..claims.len() {
                let others: Vec<Claim> = claims
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| *at != index)
                    .map(|(_, claim)| *claim)
                    .collect();
                if step % 100 < 50 {
                    claims[index].demand = (random.draw() * 500.0) as u64;
                }
                claims[index].share = share(claims[index], &others);
                let sum: f64 = claims.iter().map(|claim| claim.share).sum();
                assert!(sum <= 1.0 + 1e-9, "{sum} in step {step}");
            }
        }
        for _ in 0..3 {
            for index in 0..claims.len() {
                let mut others = claims.clone();
                let ours = others.remove(index);
                claims[index].share = share(ours, &others);
            }
        }
        let sum: f64 = claims.iter().map(|claim| claim.share).sum();
        assert!(sum > 0.95, "{sum}");
    }
}
