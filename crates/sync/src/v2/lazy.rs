//! Lazy-loading of members: which member events a device has been sent (Client-Server API, "Lazy-loading room
//! members").

use std::{collections::HashMap, sync::Arc};

use myelin_core::{EventNid, Position, RoomNid, StateKeyNid, UserNid};
use parking_lot::Mutex;
use quick_cache::sync::Cache;

/// Rooms times devices remembered. What is forgotten is sent once more, which the specification allows.
const ENTRIES_MAX: usize = 20_000;

type Key = (UserNid, Arc<str>, RoomNid);

/// Member events by state key, with the position of the answer that carried them.
pub type Sent = HashMap<StateKeyNid, (EventNid, Position)>;

pub struct Memory {
    sent: Cache<Key, Arc<Mutex<Sent>>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { sent: Cache::new(ENTRIES_MAX) }
    }
}

impl Memory {
    /// What a device was sent of a room.
    pub fn of(&self, user: UserNid, device_id: &str, room: RoomNid) -> Arc<Mutex<Sent>> {
        let key = (user, Arc::from(device_id), room);
        if let Some(sent) = self.sent.get(&key) {
            return sent;
        }
        let sent = Arc::<Mutex<Sent>>::default();
        self.sent.insert(key, sent.clone());
        sent
    }
}

/// Whether the client has the event: it was in an answer whose token the client has come back with. An answer that
/// never arrived does not count.
pub fn has(sent: &Sent, key: StateKeyNid, event: EventNid, since: Option<Position>) -> bool {
    let sent = sent.get(&key);
    since.is_some_and(|since| sent.is_some_and(|(sent, at)| *sent == event && *at <= since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_its_token_comes_back() {
        let key = StateKeyNid(1);
        let sent = HashMap::from([(key, (EventNid(5), Position(10)))]);
        assert!(has(&sent, key, EventNid(5), Some(Position(10))));
        assert!(!has(&sent, key, EventNid(5), Some(Position(9))), "that answer was lost");
        assert!(!has(&sent, key, EventNid(6), Some(Position(10))), "the member event changed");
        assert!(!has(&sent, key, EventNid(5), None), "an initial sync starts from nothing");
    }
}
