//! Rooms in which judging takes long just now (a policy server that does not answer, a disk, a state that is hard to
//! resolve): what comes for them is queued at once, and holds up no answer.

use std::collections::HashMap;

use myelin_core::RoomNid;
use parking_lot::Mutex;

/// A room that holds up an answer for longer is slow.
const LONG_MS: u64 = 2_000;
/// So long, unless something that came for it was quick meanwhile.
const FOR_MS: u64 = 30_000;

/// Until when each is.
#[derive(Default)]
pub struct Slow(Mutex<HashMap<RoomNid, u64>>);

impl Slow {
    pub fn contains(&self, room: RoomNid, now_ms: u64) -> bool {
        self.0.lock().get(&room).is_some_and(|until_ms| now_ms < *until_ms)
    }

    /// The room has held up an answer.
    pub fn held_up(&self, room: RoomNid, since_ms: u64, now_ms: u64) {
        let mut slow = self.0.lock();
        slow.retain(|_, until_ms| now_ms < *until_ms);
        if now_ms.saturating_sub(since_ms) > LONG_MS {
            slow.insert(room, now_ms + FOR_MS);
        }
    }

    /// Something that was queued has been judged. Where that took long it may be for ancestors that lack, which holds up
    /// nothing else.
    pub fn judged(&self, room: RoomNid, since_ms: u64, now_ms: u64) {
        if now_ms.saturating_sub(since_ms) <= LONG_MS {
            self.0.lock().remove(&room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_slow_for_a_while_or_until_it_was_quick() {
        let (slow, room, other) = (Slow::default(), RoomNid(1), RoomNid(2));
        slow.held_up(room, 0, LONG_MS);
        assert!(!slow.contains(room, LONG_MS));
        slow.held_up(room, 0, 10_000);
        assert!(slow.contains(room, 10_000) && !slow.contains(other, 10_000));
        slow.judged(room, 0, 10_000);
        assert!(slow.contains(room, 10_000 + FOR_MS - 1) && !slow.contains(room, 10_000 + FOR_MS));
        slow.judged(room, 10_000, 10_000 + LONG_MS);
        assert!(!slow.contains(room, 12_000));
    }
}
