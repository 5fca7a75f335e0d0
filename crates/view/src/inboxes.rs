//! Which devices are known to have no to-device messages, so that a sync need not look. Most have none most of the time.

use std::collections::{BTreeSet, HashMap};

use myelin_core::UserNid;
use myelin_store::log::LogEntry;
use parking_lot::Mutex;

/// Beyond this everything is forgotten: a look costs one read per device.
const USERS_MAX: usize = 100_000;

#[derive(Default)]
pub struct Inboxes(Mutex<Known>);

#[derive(Default)]
struct Known {
    empty: HashMap<UserNid, BTreeSet<String>>,
    /// Counts messages: what was looked up before one came is not kept.
    generation: u64,
}

/// The moment before a look into an inbox.
#[derive(Clone, Copy, Debug)]
pub struct BeforeLook(u64);

impl Inboxes {
    pub fn is_empty(&self, user: UserNid, device_id: &str) -> bool {
        self.0.lock().empty.get(&user).is_some_and(|devices| devices.contains(device_id))
    }

    pub fn before_look(&self) -> BeforeLook {
        BeforeLook(self.0.lock().generation)
    }

    /// Nothing was found, neither new nor acknowledged.
    pub fn found_empty(&self, user: UserNid, device_id: &str, looked: BeforeLook) {
        let mut known = self.0.lock();
        if known.generation != looked.0 {
            return;
        }
        if known.empty.len() >= USERS_MAX {
            known.empty.clear();
        }
        known.empty.entry(user).or_default().insert(device_id.to_owned());
    }

    pub(crate) fn take_in(&self, entry: &LogEntry) {
        if let LogEntry::ToDevice { user } | LogEntry::Account { user } = entry {
            let mut known = self.0.lock();
            known.generation += 1;
            known.empty.remove(user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: UserNid = UserNid(1);

    #[test]
    fn a_message_overtakes_a_look() {
        let inboxes = Inboxes::default();
        let looked = inboxes.before_look();
        assert!(!inboxes.is_empty(USER, "A"));
        inboxes.take_in(&LogEntry::ToDevice { user: USER });
        inboxes.found_empty(USER, "A", looked);
        assert!(!inboxes.is_empty(USER, "A"));
        inboxes.found_empty(USER, "A", inboxes.before_look());
        assert!(inboxes.is_empty(USER, "A") && !inboxes.is_empty(USER, "B"));
        inboxes.take_in(&LogEntry::ToDevice { user: USER });
        assert!(!inboxes.is_empty(USER, "A"));
    }
}
