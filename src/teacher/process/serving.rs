//! Whether a server of ours serves, for the calls that need it.

use std::time::Duration;

use tokio::sync::watch;

use super::guard::GRACE;

/// How long a call that was not answered waits for the news that the server ended: its guard tells only
/// when nothing of the server's group is left.
const NEWS: Duration = GRACE.saturating_add(Duration::from_secs(1));

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Ready, after so many restarts.
    Up(u32),
    /// Ended, and being started again.
    Down,
    /// Ended, and not started again; why, as a sentence.
    Gone(String),
}

/// A caller's view of a server of ours; cheap to clone.
#[derive(Clone, Debug)]
pub struct Serving(pub(super) watch::Receiver<Health>);

impl Serving {
    /// Waits until the server is ready, and tells which of its lives this is.
    ///
    /// # Errors
    /// The server ended for good; the sentence says how.
    pub async fn up(&self) -> Result<u32, String> {
        let mut health = self.0.clone();
        match health.wait_for(|health| *health != Health::Down).await.as_deref() {
            Ok(Health::Up(life)) => Ok(*life),
            Ok(Health::Gone(why)) => Err(why.clone()),
            Ok(Health::Down) | Err(_) => Err("the server was stopped".to_owned()),
        }
    }

    /// Resolves when the server does not serve.
    pub async fn down(&self) {
        let mut health = self.0.clone();
        let down = health.wait_for(|health| !matches!(health, Health::Up(_))).await.is_ok();
        if !down {
            std::future::pending::<()>().await;
        }
    }

    /// Whether this life of the server is over; news of that may take a moment.
    pub async fn ended(&self, life: u32) -> bool {
        let mut health = self.0.clone();
        let news = health.wait_for(|health| *health != Health::Up(life));
        matches!(tokio::time::timeout(NEWS, news).await, Ok(Ok(_)))
    }
}
