//! What is not in memory any more comes from the log, or, when a server was away for long, from its rooms: the newest
//! events of each, from which it finds the rest by itself (backfill).

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use myelin_core::{Position, RoomNid, TimelineOrder};
use myelin_store::{
    Direction,
    log::LogEntry,
    tables::{LOG, ReceiptRef, SERVER_ROOMS, TIMELINE},
};
use myelin_view::{Error, RoomSnapshot};
use ruma::{OwnedRoomId, ServerName};

use super::{
    Sender,
    queue::{Destination, RECEIPTS_MAX},
    receipts::Receipt,
    routing::{own_sticky, receipt},
    transaction::{PDUS_MAX, PendingPdu},
};

/// Log entries that are gone through one by one for a server; beyond, it catches up.
const REPLAYED_MAX: u64 = 5_000;
/// A server that took nothing for so long catches up.
const REPLAY_TIME_MS: u64 = 60 * 60 * 1000;
const PAGE: usize = 512;
const ROOMS_PAGE: usize = 1_000;
/// Newest receipts of a room that a server gets which catches up.
const ROOM_RECEIPTS_MAX: usize = 100;
/// Newest events of a room among which one made here is looked for.
const LOOKED_AT_MAX: usize = 100;

/// A stretch of the log that a server has not got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    from: Position,
    until: Position,
    catch_up: bool,
}

#[derive(Default)]
struct Found {
    pdus: Vec<PendingPdu>,
    receipts: Vec<Arc<Receipt>>,
}

/// The newest receipts of all rooms, before what they say is read.
#[derive(Default)]
struct Newest(BTreeMap<(Position, RoomNid), (OwnedRoomId, ReceiptRef)>);

impl Newest {
    fn add(&mut self, room: &RoomSnapshot, receipts: Vec<(Position, ReceiptRef)>) {
        let (nid, room_id) = (room.nid(), &room.info.room_id);
        let receipts = receipts.into_iter();
        self.0.extend(receipts.map(|(position, held)| ((position, nid), (room_id.clone(), held))));
        while self.0.len() > RECEIPTS_MAX {
            self.0.pop_first();
        }
    }
}

impl Sender {
    /// Fills the queue of a server from what is not in memory.
    pub(super) async fn refill(&self, server: &ServerName) -> Result<(), Error> {
        let Some(gap) = self.take_gap(server) else { return Ok(()) };
        let found =
            if gap.catch_up { self.newest(server, gap).await } else { self.replay(server, gap).await };
        let state = &mut *self.state.lock();
        let Some(queue) = state.destinations.get_mut(server) else { return Ok(()) };
        queue.building_from = None;
        match found {
            Ok(found) => {
                if gap.catch_up {
                    self.counters.catch_ups.add(1);
                    tracing::info!(%server, events = found.pdus.len(), "the server was away for long and catches up");
                }
                insert(queue, found);
                Ok(())
            }
            Err(error) => {
                queue.missed_from = Some(queue.missed_from.map_or(gap.from, |from| from.min(gap.from)));
                Err(error)
            }
        }
    }

    fn take_gap(&self, server: &ServerName) -> Option<Gap> {
        let now_ms = self.view.env.now_ms();
        let state = &mut *self.state.lock();
        let until = state.dispatched;
        let queue = state.destinations.get_mut(server)?;
        let long_away = queue.lacking_since_ms.is_some_and(|since_ms| now_ms >= since_ms + REPLAY_TIME_MS);
        let from = match queue.missed_from.take() {
            Some(from) => from,
            None if long_away && queue.pdus.len() > PDUS_MAX => queue.pdus.front()?.position,
            None => return None,
        };
        let catch_up = long_away || until.0.saturating_sub(from.0) > REPLAYED_MAX;
        if catch_up {
            queue.lacking_since_ms = None;
            queue.pdus.retain(|pdu| pdu.targeted);
        }
        queue.building_from = Some(from);
        Some(Gap { from, until, catch_up })
    }

    async fn replay(&self, server: &ServerName, gap: Gap) -> Result<Found, Error> {
        let mut found = Found::default();
        let mut from = gap.from;
        while from <= gap.until {
            let end = gap.until.next();
            let rows = self.view.store.range(&LOG, &from, &end, Direction::Forward, PAGE).await?;
            let Some((last, _)) = rows.last() else { break };
            from = last.next();
            for (position, entry) in &rows {
                if !matches!(entry, LogEntry::Event { relay: true, .. } | LogEntry::Receipt { .. }) {
                    continue;
                }
                let Some(item) = self.item(*position, entry).await? else { continue };
                found.pdus.extend(item.pdu_for(server));
                found.receipts.extend(item.receipt_for(server).cloned());
            }
        }
        Ok(found)
    }

    /// The newest events of each room in which something was made here that the server has not got, and how far people
    /// here have read.
    async fn newest(&self, server: &ServerName, gap: Gap) -> Result<Found, Error> {
        let (mut found, mut receipts) = (Found::default(), Newest::default());
        let mut after = RoomNid(0);
        loop {
            let (first, end) =
                ((server.to_string(), RoomNid(after.0 + 1)), (server.to_string(), RoomNid(u64::MAX)));
            let rows =
                self.view.store.range(&SERVER_ROOMS, &first, &end, Direction::Forward, ROOMS_PAGE).await?;
            let Some(((_, last), _)) = rows.last() else { break };
            after = *last;
            for ((_, room), _) in rows.iter().filter(|(_, row)| row.value.joined) {
                let room = self.view.rooms.load(*room).await?;
                let Some(room) = room.filter(|room| room.has_server(server)) else { continue };
                receipts.add(&room, self.routing.newest_receipts(&room, gap.from, ROOM_RECEIPTS_MAX).await?);
                if self.has_news(&room, gap.from).await? {
                    found.pdus.extend(self.extremities(&room, gap.from).await?);
                    found.pdus.extend(self.sticky(&room, gap).await?);
                }
            }
        }
        for ((position, room), (room_id, held)) in receipts.0 {
            found.receipts.extend(receipt(&self.view, position, (room, &room_id), held).await?);
        }
        found.pdus.sort_by_key(|pdu| pdu.position);
        found.pdus.dedup_by_key(|pdu| pdu.event);
        Ok(found)
    }

    /// Whether somebody here made an event in this room since `from`.
    async fn has_news(&self, room: &RoomSnapshot, from: Position) -> Result<bool, Error> {
        let (first, end) = ((room.nid(), TimelineOrder::from(from)), (room.nid(), TimelineOrder::MAX));
        let store = &self.view.store;
        let rows = store.range(&TIMELINE, &first, &end, Direction::Reverse, LOOKED_AT_MAX).await?;
        let nids: Vec<_> = rows.iter().map(|(_, nid)| *nid).collect();
        for event in self.view.events.load_many(&nids).await?.into_iter().flatten() {
            if self.view.interner.is_local(event.sender).await? {
                return Ok(true);
            }
        }
        Ok(nids.len() == LOOKED_AT_MAX)
    }

    /// What is sticky goes in any case (MSC4354).
    async fn sticky(&self, room: &RoomSnapshot, gap: Gap) -> Result<Vec<PendingPdu>, Error> {
        let since = Position(gap.from.0.saturating_sub(1));
        let events = self.view.sticky.of_room(room.nid(), since, gap.until).await?;
        let mut pdus = Vec::new();
        for event in self.view.events.load_many(&own_sticky(&self.view, &events).await?).await? {
            let Some(event) = event else { continue };
            let position = event.order.and_then(|order| order.position());
            let pdu = |position| PendingPdu { position, event: event.nid, targeted: false };
            pdus.extend(position.map(pdu));
        }
        Ok(pdus)
    }

    async fn extremities(&self, room: &RoomSnapshot, from: Position) -> Result<Vec<PendingPdu>, Error> {
        let events = self.view.events.load_many(&room.head.extremities).await?;
        let live = events.into_iter().flatten().filter(|event| event.accepted());
        let placed = live.filter_map(|event| Some((event.order?.position()?, event.nid)));
        let newer = placed.filter(|(position, _)| *position >= from);
        Ok(newer.map(|(position, event)| PendingPdu { position, event, targeted: false }).collect())
    }
}

/// Each event once, in the order of the log.
fn insert(queue: &mut Destination, found: Found) {
    let held: HashSet<_> = queue.pdus.iter().map(|pdu| pdu.event).collect();
    queue.pdus.extend(found.pdus.into_iter().filter(|pdu| !held.contains(&pdu.event)));
    queue.pdus.make_contiguous().sort_by_key(|pdu| pdu.position);
    queue.push_receipts(found.receipts);
}
