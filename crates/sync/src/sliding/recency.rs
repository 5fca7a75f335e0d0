//! When something last happened in a room, and when something last happened that a person cares for (`bump_stamp`).
//!
//! In memory and never wrong: numbers of one room only rise, so whichever of the log and the table is read later, the higher
//! one holds.

use std::collections::HashMap;

use futures::future::try_join_all;
use myelin_core::{Position, RoomNid, TimelineOrder};
use myelin_store::{Direction, log::LogEntry, tables::TIMELINE};
use parking_lot::RwLock;
use quick_cache::sync::Cache;

use crate::{
    Error, Sync,
    timeline::{Placed, Stretch, rows},
};

/// Rooms that are looked up at once.
const READS_MAX: usize = 64;
/// Rooms whose bump stamps are remembered.
const BUMPS_MAX: usize = 100_000;
/// Timeline rows looked through for the last event that bumps its room.
const BUMP_ROWS_MAX: usize = 512;
const BUMP_PAGE: usize = 32;
/// "Proper" activity (MSC4186, `bump_stamp`).
const BUMPING: [&str; 8] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "org.matrix.msc3381.poll.start",
    "m.beacon_info",
];

pub struct Recency {
    /// As many as rooms were asked for or written since the process started: 16 bytes each.
    last_events: RwLock<HashMap<RoomNid, Position>>,
    bumps: Cache<RoomNid, Bump>,
}

/// The newest bump among everything up to `looked`.
#[derive(Clone, Copy)]
struct Bump {
    looked: TimelineOrder,
    stamp: u64,
}

impl Default for Recency {
    fn default() -> Self {
        Self { last_events: RwLock::default(), bumps: Cache::new(BUMPS_MAX) }
    }
}

impl Recency {
    pub fn take_in(&self, position: Position, entry: &LogEntry) {
        if let LogEntry::Event { room, .. } = entry {
            self.raise(*room, position);
        }
    }

    fn raise(&self, room: RoomNid, position: Position) {
        let mut last_events = self.last_events.write();
        let held = last_events.entry(room).or_insert(position);
        *held = position.max(*held);
    }
}

impl Sync {
    /// When the last event of each room came.
    pub(super) async fn last_events(&self, rooms: &[RoomNid]) -> Result<Vec<Position>, Error> {
        let known = |rooms: &[RoomNid]| {
            let last_events = self.recency.last_events.read();
            rooms.iter().map(|room| last_events.get(room).copied()).collect::<Vec<_>>()
        };
        let found = known(rooms);
        let unknown: Vec<_> =
            rooms.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(room, _)| *room).collect();
        if unknown.is_empty() {
            return Ok(found.into_iter().flatten().collect());
        }
        for some in unknown.chunks(READS_MAX) {
            let mut reads = Vec::with_capacity(some.len());
            for room in some {
                reads.push(self.read_last_event(*room));
            }
            try_join_all(reads).await?;
        }
        Ok(known(rooms).into_iter().map(Option::unwrap_or_default).collect())
    }

    async fn read_last_event(&self, room: RoomNid) -> Result<(), Error> {
        let (from, to) = ((room, TimelineOrder::MIN), (room, TimelineOrder::MAX));
        let rows = self.view.store.range(&TIMELINE, &from, &to, Direction::Reverse, 1).await?;
        let last = rows.first().and_then(|((_, order), _)| order.position());
        self.recency.raise(room, last.unwrap_or(Position::ZERO));
        Ok(())
    }

    /// `timeline`: the newest events up to `until`, oldest first.
    pub(super) async fn bump_stamp(
        &self,
        room: RoomNid,
        until: TimelineOrder,
        timeline: &[Placed],
    ) -> Result<u64, Error> {
        if let Some(stamp) = bump_in(timeline) {
            return Ok(stamp);
        }
        let held = self.recency.bumps.get(&room).filter(|bump| bump.looked <= until);
        let after = held.map_or(TimelineOrder::MIN, |bump| bump.looked);
        let found = self.find_bump(room, Stretch { after, until }).await?;
        let stamp = found.or(held.map(|bump| bump.stamp)).unwrap_or_default();
        self.recency.bumps.insert(room, Bump { looked: until, stamp });
        Ok(stamp)
    }

    /// If there is none, the room counts as bumped where the search ended.
    async fn find_bump(&self, room: RoomNid, stretch: Stretch) -> Result<Option<u64>, Error> {
        let (mut left, mut looked_at) = (stretch, 0);
        let mut oldest = None;
        while looked_at < BUMP_ROWS_MAX && left.after < left.until {
            let page = rows(&self.view, room, left, Direction::Reverse, BUMP_PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(None) };
            let nids: Vec<_> = page.iter().map(|(_, nid)| *nid).collect();
            let events = self.view.events.load_many(&nids).await?;
            let bumps = page.iter().zip(events).find(|(_, event)| {
                event.as_ref().is_some_and(|event| is_bumping(&event.pdu.event_type.to_string()))
            });
            if let Some(((order, _), _)) = bumps {
                return Ok(Some(stamp_of(*order)));
            }
            looked_at += page.len();
            oldest = Some(stamp_of(*last));
            left.until = TimelineOrder(last.0.saturating_sub(1));
        }
        Ok(oldest)
    }
}

/// The stamp of the last one that bumps its room.
pub(super) fn bump_in(timeline: &[Placed]) -> Option<u64> {
    let bumps = |placed: &&Placed| is_bumping(&placed.event.pdu.event_type.to_string());
    timeline.iter().rev().find(bumps).map(|placed| stamp_of(placed.order))
}

fn is_bumping(event_type: &str) -> bool {
    BUMPING.contains(&event_type)
}

fn stamp_of(order: TimelineOrder) -> u64 {
    order.position().map_or(0, |position| position.0)
}
