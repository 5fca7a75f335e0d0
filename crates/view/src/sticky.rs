//! Which events are sticky now (MSC4354). They are few and end within an hour, so all of them are in memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, Ordering},
};

use myelin_core::{Env, EventNid, Position, RoomNid};
use myelin_store::{Store, log::LogEntry, tables::STICKY_EVENTS};
use parking_lot::RwLock;
use tokio::sync::OnceCell;

use crate::Error;

/// No event is sticky for longer.
pub const STICKY_MS_MAX: u64 = 3_600_000;
/// Of one room; the oldest ones go first.
const EVENTS_PER_ROOM_MAX: usize = 10_000;
const LOADED_MAX: usize = 1_000_000;
/// Between two looks for what has ended.
const SWEEP_MS: u64 = 60_000;

pub struct StickyEvents {
    store: Store,
    env: Env,
    live: RwLock<Live>,
    loaded: OnceCell<()>,
    /// Spares the lock where there never was one.
    any: AtomicBool,
}

#[derive(Default)]
struct Live {
    rooms: HashMap<RoomNid, BTreeMap<Position, EventNid>>,
    until_ms: HashMap<EventNid, u64>,
    sweep_ms: u64,
}

impl StickyEvents {
    pub fn new(store: Store, env: Env) -> Self {
        Self { store, env, live: RwLock::default(), loaded: OnceCell::new(), any: AtomicBool::new(false) }
    }

    /// The rooms that have any.
    pub async fn rooms(&self) -> Result<Vec<RoomNid>, Error> {
        self.load().await?;
        Ok(self.live.read().rooms.keys().copied().collect())
    }

    /// Those of a room that came in `(since, until]` and have not ended, oldest first.
    pub async fn of_room(
        &self,
        room: RoomNid,
        since: Position,
        until: Position,
    ) -> Result<Vec<EventNid>, Error> {
        let events = self.placed_in(room, since, until).await?;
        Ok(events.into_iter().map(|(_, event)| event).collect())
    }

    /// The same, with their positions.
    pub async fn placed_in(
        &self,
        room: RoomNid,
        since: Position,
        until: Position,
    ) -> Result<Vec<(Position, EventNid)>, Error> {
        self.load().await?;
        let now_ms = self.env.now_ms();
        let live = self.live.read();
        if since >= until {
            return Ok(Vec::new());
        }
        let Some(events) = live.rooms.get(&room) else { return Ok(Vec::new()) };
        let events = events.range(since.next()..=until).map(|(position, event)| (*position, *event));
        let holds = |event: &EventNid| live.until_ms.get(event).is_some_and(|until| *until > now_ms);
        Ok(events.filter(|(_, event)| holds(event)).collect())
    }

    /// When a sticky event ends (milliseconds since 1970).
    pub fn until_ms(&self, event: EventNid) -> Option<u64> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let live = self.live.read();
        live.until_ms.get(&event).copied().filter(|until_ms| *until_ms > self.env.now_ms())
    }

    pub(crate) fn take_in(&self, position: Position, entry: &LogEntry) {
        let LogEntry::Sticky { room, event, until_ms } = entry else { return };
        let now_ms = self.env.now_ms();
        let mut live = self.live.write();
        live.sweep(now_ms);
        self.any.store(true, Ordering::Relaxed);
        // The entry of the event itself comes next.
        live.insert(*room, position.next(), *event, *until_ms);
    }

    /// What was sticky when the process started. The feed may add to it meanwhile.
    pub async fn load(&self) -> Result<(), Error> {
        let load = || async {
            let from = (self.env.now_ms(), EventNid::NONE);
            let to = (u64::MAX, EventNid::NONE);
            let forward = myelin_store::Direction::Forward;
            let rows = self.store.range(&STICKY_EVENTS, &from, &to, forward, LOADED_MAX).await?;
            let mut live = self.live.write();
            self.any.fetch_or(!rows.is_empty(), Ordering::Relaxed);
            for ((until_ms, event), row) in rows {
                live.insert(row.value.room, row.position, event, until_ms);
            }
            Ok(())
        };
        self.loaded.get_or_try_init(load).await.map(drop)
    }
}

impl Live {
    fn insert(&mut self, room: RoomNid, position: Position, event: EventNid, until_ms: u64) {
        let events = self.rooms.entry(room).or_default();
        events.insert(position, event);
        self.until_ms.insert(event, until_ms);
        if events.len() > EVENTS_PER_ROOM_MAX
            && let Some((_, oldest)) = events.pop_first()
        {
            self.until_ms.remove(&oldest);
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        if now_ms < self.sweep_ms {
            return;
        }
        self.sweep_ms = now_ms + SWEEP_MS;
        self.until_ms.retain(|_, until_ms| *until_ms > now_ms);
        for events in self.rooms.values_mut() {
            events.retain(|_, event| self.until_ms.contains_key(event));
        }
        self.rooms.retain(|_, events| !events.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomNid = RoomNid(1);

    #[test]
    fn what_has_ended_goes_and_a_flood_pushes_out_the_oldest() {
        let mut live = Live::default();
        for n in 1..=EVENTS_PER_ROOM_MAX as u64 + 1 {
            live.insert(ROOM, Position(n), EventNid(n), 100 + n);
        }
        assert_eq!(live.rooms[&ROOM].len(), EVENTS_PER_ROOM_MAX);
        assert!(!live.until_ms.contains_key(&EventNid(1)));
        live.sweep(105);
        assert_eq!(live.rooms[&ROOM].first_key_value(), Some((&Position(6), &EventNid(6))));
        live.sweep(SWEEP_MS);
        assert_eq!(live.until_ms.len(), EVENTS_PER_ROOM_MAX - 4, "not yet time to sweep again");
        live.sweep(105 + SWEEP_MS);
        assert!(live.rooms.is_empty() && live.until_ms.is_empty());
    }
}
