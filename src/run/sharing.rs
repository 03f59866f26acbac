//! One allowance for all processes of a workspace: each keeps to its share of a teacher's limits, and tells the
//! others what it wants.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store::{Store, StoreError};
use crate::teacher::gate::Gate;
use crate::teacher::gate::share::{Claim, share};

/// How often shares are set anew: whoever comes new, or is left alone, waits for about two of these.
const SHARE_EVERY: Duration = Duration::from_millis(500);

/// The gates of a run's teachers that other processes may have, too.
pub struct Sharing {
    store: Store,
    shared: Vec<Shared>,
}

struct Shared {
    /// The same for all who use the same limits.
    key: String,
    /// Several where a file has several teachers of one server: it says itself what each of them may.
    gates: Vec<Gate>,
    share: f64,
}

/// What a process says of each teacher that it uses.
type Claims = BTreeMap<String, Claim>;

impl Sharing {
    /// Takes the first shares; until then nobody is let in.
    pub fn begin(store: &Store, gates: Vec<(String, Gate)>) -> Result<Sharing, StoreError> {
        let mut by_key: BTreeMap<String, Vec<Gate>> = BTreeMap::new();
        for (key, gate) in gates {
            gate.set_share(0.0);
            by_key.entry(key).or_default().push(gate);
        }
        let shared = by_key.into_iter().map(|(key, gates)| Shared { key, gates, share: 0.0 }).collect();
        let mut sharing = Sharing { store: store.clone(), shared };
        sharing.exchange()?;
        Ok(sharing)
    }

    /// Shares for as long as it is polled.
    pub async fn go_on(&mut self) {
        loop {
            tokio::time::sleep(SHARE_EVERY).await;
            // Who cannot tell keeps what it has; a folder that is gone stops the run by its store.
            let _ = self.exchange();
        }
    }

    fn exchange(&mut self) -> Result<(), StoreError> {
        if self.shared.is_empty() {
            return Ok(());
        }
        let Sharing { store, shared } = self;
        store.exchange_claims(|others: Vec<Claims>| {
            shared
                .iter_mut()
                .map(|shared| {
                    let others: Vec<Claim> =
                        others.iter().filter_map(|claims| claims.get(&shared.key).copied()).collect();
                    (shared.key.clone(), shared.claim(&others))
                })
                .collect::<Claims>()
        })?;
        Ok(())
    }
}

impl Shared {
    /// Sets the share anew. What is claimed is more as long as calls in flight take more.
    fn claim(&mut self, others: &[Claim]) -> Claim {
        let (mut demand, mut taken) = (0, 0.0_f64);
        for seen in self.gates.iter().map(Gate::snapshot) {
            demand += (seen.in_flight + seen.waiting) as u64;
            taken = taken.max((seen.in_flight as f64 / seen.places.max(1) as f64).min(1.0));
        }
        self.share = share(Claim { demand, share: self.share }, others);
        self.gates.iter().for_each(|gate| gate.set_share(self.share));
        Claim { demand, share: self.share.max(taken) }
    }
}
