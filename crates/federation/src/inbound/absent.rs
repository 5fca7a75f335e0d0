//! Events that nobody gives: not asked for again for a while.

use quick_cache::sync::Cache;
use ruma::{EventId, OwnedEventId};

const EVENTS_MAX: usize = 10_000;
const FOR_MS: u64 = 10 * 60_000;

pub struct Absent(Cache<OwnedEventId, u64>);

impl Default for Absent {
    fn default() -> Self {
        Self(Cache::new(EVENTS_MAX))
    }
}

impl Absent {
    pub fn note(&self, id: &EventId, now_ms: u64) {
        self.0.insert(id.to_owned(), now_ms + FOR_MS);
    }

    pub fn is_known(&self, id: &EventId, now_ms: u64) -> bool {
        self.0.get(id).is_some_and(|until_ms| now_ms < until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_had_is_asked_for_again_after_a_while() {
        let (absent, id) = (Absent::default(), ruma::event_id!("$e"));
        absent.note(id, 1_000);
        assert!(absent.is_known(id, 1_000 + FOR_MS - 1));
        assert!(!absent.is_known(id, 1_000 + FOR_MS));
        assert!(!absent.is_known(ruma::event_id!("$f"), 1_000));
    }
}
