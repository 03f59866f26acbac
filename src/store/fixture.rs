//! A store in a temporary folder and sample replies, for this module's tests only.

use std::sync::Arc;

use super::{
    Access, Amount, Caps, Charge, IfPresent, Key, NewReply, Origin, Reservation, ReservationId, Store,
};

pub struct Fixture {
    pub folder: tempfile::TempDir,
    pub store: Store,
}

pub fn open() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Access::Write).unwrap();
    Fixture { folder, store }
}

impl Fixture {
    /// Closes the store and opens it again, as the next process would.
    pub fn reopen(self) -> Fixture {
        let Fixture { folder, store } = self;
        drop(store);
        let store = Store::open(folder.path(), Access::Write).unwrap();
        Fixture { folder, store }
    }
}

/// The key made of one number.
pub fn key(number: u64) -> Key {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Key(bytes)
}

pub fn origin(step: &str) -> Arc<Origin> {
    Arc::new(Origin {
        epoch: "0".into(),
        pipeline: Some("exercises".into()),
        step: step.into(),
        teacher: "https://api.example.com/v1".into(),
        endpoint: "https://eu.api.example.com/v1".into(),
        wire: "openai".into(),
        model: "writer-1".into(),
    })
}

/// A reply with `text` as its body.
pub fn reply(number: u64, text: &str) -> NewReply<'_> {
    NewReply {
        key: key(number),
        origin: origin("draft"),
        request: b"{\"ask\":1}",
        reply: text.as_bytes(),
        status: 200,
        tokens_in: Some(10),
        tokens_out: Some(20),
        usd_nano: Some(36_000),
        attempts: 1,
        latency_ms: 812,
        created_unix_ms: 1_000,
    }
}

pub async fn save(store: &Store, number: u64, text: &str) {
    store.save_reply(&reply(number, text), None, IfPresent::KeepFirst).await.unwrap();
}

/// A reservation that no cap holds.
pub async fn reserved(store: &Store, charge: &Arc<Charge>, worst: Amount) -> ReservationId {
    match store.reserve(charge, worst, Caps::default()).await.unwrap() {
        Reservation::Open(id) => id,
        Reservation::Full(spent) => panic!("{spent:?}"),
    }
}

/// The body of a stored reply.
pub fn body(store: &Store, number: u64) -> Option<String> {
    let stored = store.reply(key(number)).unwrap()?;
    Some(String::from_utf8(stored.reply().unwrap()).unwrap())
}

/// Bytes that do not compress, the same ones each time.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        // Knuth's MMIX generator; its upper bits are good enough here.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}
