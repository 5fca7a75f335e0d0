//! How much of something is under way, by whom: for limits on what one party does at once.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

/// Counts by key. Cheap to clone; clones count together. Whoever does nothing takes no memory.
pub struct Tally<K>(Arc<Mutex<HashMap<K, u64>>>);

/// Counted until it is dropped.
pub struct Counted<K: Eq + Hash> {
    tally: Tally<K>,
    key: K,
    weight: u64,
}

impl<K: Clone + Eq + Hash> Tally<K> {
    /// Counts `weight` more for `key`, unless that would be more than `max`.
    pub fn count(&self, key: &K, weight: u64, max: u64) -> Option<Counted<K>> {
        let mut counts = self.0.lock();
        let count = counts.get(key).copied().unwrap_or(0).saturating_add(weight);
        if count > max {
            return None;
        }
        counts.insert(key.clone(), count);
        Some(Counted { tally: self.clone(), key: key.clone(), weight })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.tally.0.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count = count.saturating_sub(self.weight);
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

impl<K> Clone for Tally<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_count_and_what_has_ended_does_not_count() {
        let tally = Tally::default();
        let first = tally.count(&"a", 2, 3);
        assert!(first.is_some());
        assert!(tally.count(&"a", 2, 3).is_none());
        assert!(tally.count(&"b", 3, 3).is_some());
        let second = tally.count(&"a", 1, 3);
        assert!(second.is_some());
        drop(first);
        assert!(tally.count(&"a", 3, 3).is_none());
        drop(second);
        assert!(tally.count(&"a", 3, 3).is_some());
        assert!(tally.0.lock().is_empty(), "who does nothing takes no memory");
    }
}
