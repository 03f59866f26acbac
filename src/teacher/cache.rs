//! Providers' prompt caches: what of a request many others begin with, and where that ends in its messages.
//!
//! Pure. Marks are transport: they are in no key, and an answer is the same with and without them.

use std::hash::Hasher;

use xxhash_rust::xxh3::Xxh3;

use super::{Request, Role};

/// Less is cached by nobody: 1,024 tokens with OpenAI and with most of Anthropic's models (platform.openai.com and
/// docs.claude.com, "Prompt caching"), at about 4 bytes each. A mark on too little is passed over and costs nothing.
const CACHED_BYTES_MIN: usize = 4096;

/// What of a request's messages many requests begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// So many messages wholly.
    pub messages: usize,
    /// So many bytes of the next one.
    pub bytes: usize,
}

/// Where the shared part of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePoint {
    /// In which message of those that are not the system's; none: all of the system's are shared, and no more.
    pub spoken: Option<usize>,
    /// After how many bytes of it.
    pub bytes: usize,
    /// What stands before it, as a hash: requests with the same one share a place in the cache.
    pub prefix: u64,
}

impl CachePoint {
    /// The point of a request that has enough in common with others.
    pub fn of(request: &Request) -> Option<CachePoint> {
        let Request { messages, images, shared, .. } = request;
        let system = messages.iter().take_while(|message| message.role == Role::System).count();
        // Images go before the words of the user.
        let shared = match images.is_empty() {
            true => *shared,
            false => Shared { messages: shared.messages.min(system), bytes: 0 },
        };
        let whole = messages.get(..shared.messages)?;
        let part = messages.get(shared.messages).and_then(|message| message.content.get(..shared.bytes));
        let part = part.unwrap_or_default();
        let length = whole.iter().map(|message| message.content.len()).sum::<usize>() + part.len();
        // Part of the system's words is not worth a way of its own.
        if length < CACHED_BYTES_MIN || shared.messages < system {
            return None;
        }
        let mut prefix = Xxh3::new();
        whole.iter().for_each(|message| prefix.write(message.content.as_bytes()));
        prefix.write(part.as_bytes());
        let prefix = prefix.finish();
        let (spoken, bytes) = match (shared.messages.checked_sub(system)?, part.len()) {
            (0, 0) => (None, 0),
            (before, 0) => (Some(before - 1), whole.last()?.content.len()),
            (before, bytes) => (Some(before), bytes),
        };
        Some(CachePoint { spoken, bytes, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teacher::Message;

    fn check(
        roles: &[Role],
        lengths: &[usize],
        shared: (usize, usize),
        expected: Option<(Option<usize>, usize)>,
    ) {
        let message = |(role, length): (&Role, &usize)| Message { role: *role, content: "x".repeat(*length) };
        let messages = roles.iter().zip(lengths).map(message).collect();
        let shared = Shared { messages: shared.0, bytes: shared.1 };
        let point = CachePoint::of(&Request { messages, shared, ..Request::default() });
        assert_eq!(point.map(|point| (point.spoken, point.bytes)), expected);
    }

    #[test]
    fn a_long_shared_part_ends_at_a_point() {
        use Role::{Assistant, System, User};
        check(&[System, User], &[5000, 10], (1, 0), Some((None, 0)));
        check(&[System, User], &[5000, 10], (1, 4), Some((Some(0), 4)));
        check(&[System, User], &[4000, 10], (1, 0), None);
        check(&[System, User], &[5000, 10], (0, 4900), None);
        check(&[User], &[9000], (0, 5000), Some((Some(0), 5000)));
        check(&[User], &[9000], (1, 0), Some((Some(0), 9000)));
        check(&[User, Assistant, User], &[3000, 2000, 50], (2, 0), Some((Some(1), 2000)));
        check(&[], &[], (0, 0), None);
    }

    #[test]
    fn the_same_beginning_is_the_same_prefix() {
        let prefix = |text: &str| {
            let message = Message { role: Role::User, content: "x".repeat(5000) + text };
            let shared = Shared { messages: 0, bytes: 5001 };
            CachePoint::of(&Request { messages: vec![message], shared, ..Request::default() }).unwrap().prefix
        };
        assert_eq!(prefix("ab"), prefix("ac"));
        assert_ne!(prefix("ab"), prefix("bb"));
    }
}
