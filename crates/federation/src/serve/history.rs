//! Walks back through the DAG of a room for another server (Server-Server API, "Backfilling and retrieving missing
//! events").

use std::{
    collections::{BinaryHeap, HashSet, VecDeque},
    sync::Arc,
};

use myelin_core::{EventNid, RoomNid, TimelineOrder};
use myelin_store::{Direction, tables::TIMELINE};
use myelin_sync::context::order_at;
use myelin_view::{Event, RoomSnapshot};
use ruma::{OwnedEventId, RoomId, ServerName};
use serde_json::json;

use super::{Error, Serve, sight::Sight};

const BACKFILL_MAX: usize = 100;
const MISSING_MAX: usize = 50;
const MISSING_DEFAULT: usize = 10;
/// Events looked at for one answer: what is rejected, or comes after the asking server's part in the room, is passed by.
const LOOKED_AT_MAX: usize = 500;
/// Events that a request may start from.
const STARTS_MAX: usize = 100;
/// Events looked at on each side of where a timestamp is found: clocks of senders disagree.
const TIMESTAMP_NEIGHBOURS: usize = 100;

/// What `POST /get_missing_events/{roomId}` asks for: what lies between.
#[derive(Debug, Default, Clone, serde::Deserialize)]
pub struct MissingEvents {
    #[serde(default)]
    pub limit: Option<u64>,
    #[serde(default)]
    pub min_depth: Option<u64>,
    /// Held by who asks.
    pub earliest_events: Vec<OwnedEventId>,
    /// What is missing before these.
    pub latest_events: Vec<OwnedEventId>,
}

/// Deepest first; of events of the same depth the one known later.
type Frontier = BinaryHeap<(u64, EventNid)>;

impl Serve {
    /// `GET /backfill/{roomId}`: events before and including `from`, newest first.
    pub async fn backfill(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        from: &[OwnedEventId],
        limit: u64,
    ) -> Result<String, Error> {
        let room = self.room(origin, room_id).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut sight = Sight::new(&self.view, &room, origin).await?;
        let mut seen = HashSet::new();
        let mut frontier = Frontier::new();
        let starts = &from[..from.len().min(STARTS_MAX)];
        let starts = self.events(&room, starts).await?;
        extend(&mut frontier, &mut seen, &starts);
        let mut pdus = Vec::new();
        for _ in 0..LOOKED_AT_MAX {
            let Some((_, nid)) = frontier.pop().filter(|_| pdus.len() < limit.min(BACKFILL_MAX)) else {
                break;
            };
            let Some(event) = self.view.events.load(nid).await? else { continue };
            // An outlier has a place in no walk: what comes before it is not known.
            if event.state_before.is_none() {
                continue;
            }
            if !event.is_rejected() && !sight.is_beyond(&event) {
                pdus.extend(sight.pdu(&event).await?);
            }
            extend(&mut frontier, &mut seen, &self.parents(&room, &event).await?);
        }
        Ok(self.transaction(&pdus))
    }

    /// `POST /get_missing_events/{roomId}`: oldest first, without the latest events themselves.
    pub async fn missing_events(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        asked: &MissingEvents,
    ) -> Result<String, Error> {
        let room = self.room(origin, room_id).await?;
        let limit = asked.limit.map_or(MISSING_DEFAULT, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let starts = &asked.latest_events[..asked.latest_events.len().min(STARTS_MAX)];
        let held: HashSet<&OwnedEventId> = asked.earliest_events.iter().collect();
        let mut found = self.walk(&room, starts, &held, asked.min_depth, limit.min(MISSING_MAX)).await?;
        found.reverse();
        let mut sight = Sight::new(&self.view, &room, origin).await?;
        found.retain(|event| !sight.is_beyond(event));
        let mut pdus = Vec::with_capacity(found.len());
        for event in &found {
            pdus.extend(sight.pdu(event).await?);
        }
        Ok(format!(r#"{{"events":[{}]}}"#, pdus.join(",")))
    }

    /// Breadth first: what is nearest to the latest events comes first.
    async fn walk(
        &self,
        room: &RoomSnapshot,
        latest: &[OwnedEventId],
        held: &HashSet<&OwnedEventId>,
        min_depth: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let mut queue: VecDeque<_> = self.events(room, latest).await?.into();
        let mut seen: HashSet<EventNid> = queue.iter().map(|event| event.nid).collect();
        let mut found = Vec::new();
        while let Some(event) = queue.pop_front() {
            for parent in self.parents(room, &event).await? {
                let wanted = !held.contains(&parent.pdu.event_id) && parent.state_before.is_some();
                if !wanted || depth(&parent) < min_depth.unwrap_or(0) || !seen.insert(parent.nid) {
                    continue;
                }
                if !parent.is_rejected() {
                    found.push(parent.clone());
                }
                queue.push_back(parent);
            }
            if found.len() >= limit || seen.len() >= LOOKED_AT_MAX {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// `GET /timestamp_to_event/{roomId}`: the event closest to `ts_ms` in that direction.
    pub async fn event_at(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        ts_ms: u64,
        direction: Direction,
    ) -> Result<String, Error> {
        let room = self.room(origin, room_id).await?;
        let until = TimelineOrder::from(self.view.feed.caught_up().await);
        let near = order_at(&self.view, room.nid(), until, ts_ms).await?;
        let ts = |event: &Event| u64::from(event.pdu.origin_server_ts.get());
        let mut candidates = self.neighbours(room.nid(), near).await?;
        candidates.retain(|event| match direction {
            Direction::Forward => ts(event) >= ts_ms,
            Direction::Reverse => ts(event) <= ts_ms,
        });
        candidates.sort_by_key(|event| ts(event).abs_diff(ts_ms));
        let mut sight = Sight::new(&self.view, &room, origin).await?;
        for event in candidates {
            if event.accepted() && sight.sees(&event).await? {
                let answer = json!({ "event_id": event.pdu.event_id, "origin_server_ts": ts(&event) });
                return Ok(answer.to_string());
            }
        }
        Err(Error::NothingThere)
    }

    async fn neighbours(&self, room: RoomNid, near: TimelineOrder) -> Result<Vec<Arc<Event>>, Error> {
        let (store, count) = (&self.view.store, TIMESTAMP_NEIGHBOURS);
        let (first, last) = ((room, TimelineOrder::MIN), (room, TimelineOrder::MAX));
        let here = (room, near);
        let mut rows = store.range(&TIMELINE, &first, &here, Direction::Reverse, count).await?;
        rows.extend(store.range(&TIMELINE, &here, &last, Direction::Forward, count).await?);
        let nids: Vec<EventNid> = rows.into_iter().map(|(_, nid)| nid).collect();
        Ok(self.view.events.load_many(&nids).await?.into_iter().flatten().collect())
    }

    async fn parents(&self, room: &RoomSnapshot, event: &Event) -> Result<Vec<Arc<Event>>, Error> {
        self.events(room, &event.pdu.prev_events).await
    }

    /// Those that are held, of that room only.
    async fn events(&self, room: &RoomSnapshot, ids: &[OwnedEventId]) -> Result<Vec<Arc<Event>>, Error> {
        let mut found = self.view.interner.lookup_events(ids).await?;
        let nids: Vec<EventNid> = ids.iter().filter_map(|id| found.remove(id)).collect();
        let events = self.view.events.load_many(&nids).await?;
        Ok(events.into_iter().flatten().filter(|event| event.room == room.nid()).collect())
    }
}

fn extend(frontier: &mut Frontier, seen: &mut HashSet<EventNid>, events: &[Arc<Event>]) {
    let new = events.iter().filter(|event| seen.insert(event.nid));
    frontier.extend(new.map(|event| (depth(event), event.nid)));
}

fn depth(event: &Event) -> u64 {
    event.pdu.depth
}
