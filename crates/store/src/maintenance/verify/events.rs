//! Events, timelines and the heads of rooms refer to each other.

use std::collections::HashMap;

use myelin_core::{EventNid, RoomNid, TimelineOrder};

use super::Verifier;
use crate::{
    Error,
    codec::AtPosition,
    maintenance::pages::TypedPages,
    tables::{
        EVENTS, EventRecord, Placement, RELATIONS, ROOM_HEADS, ROOMS, RoomRecord, STATE_KEYS, TIMELINE,
        USER_IDS, VerdictRecord,
    },
};

type EventRow = (EventNid, AtPosition<EventRecord>);

/// Where the timeline of its room has this event.
fn timeline_order(event: &AtPosition<EventRecord>) -> Option<TimelineOrder> {
    match event.value.placement {
        Placement::Live => Some(event.position.into()),
        Placement::Backfilled(order) => Some(TimelineOrder(order)),
        Placement::Outside | Placement::Told => None,
    }
}

impl Verifier<'_> {
    pub(super) async fn check_events(&mut self) -> Result<(), Error> {
        self.begin("events");
        let mut pages = TypedPages::of(&EVENTS);
        let mut rooms = HashMap::new();
        while let Some(rows) = pages.next(self.read()).await? {
            self.load_rooms(&rows, &mut rooms).await?;
            self.check_event_contents(&rows, &rooms);
            self.check_event_references(&rows).await?;
            self.check_placements(&rows).await?;
            self.advance(rows.len());
        }
        self.check_timelines().await?;
        self.check_relations().await?;
        self.check_heads().await
    }

    async fn load_rooms(
        &self,
        rows: &[EventRow],
        rooms: &mut HashMap<RoomNid, Option<RoomRecord>>,
    ) -> Result<(), Error> {
        let mut wanted: Vec<_> = rows.iter().map(|(_, event)| event.value.room).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|room| !rooms.contains_key(room));
        let found = self.load_all(&ROOMS, wanted.iter().copied()).await?;
        rooms.extend(wanted.into_iter().zip(found).map(|(nid, room)| (nid, room.row().cloned())));
        Ok(())
    }

    fn check_event_contents(&mut self, rows: &[EventRow], rooms: &HashMap<RoomNid, Option<RoomRecord>>) {
        for (nid, event) in rows {
            let AtPosition { position, value: record } = event;
            if *position > self.report.position {
                self.found(&EVENTS, nid, format!("is at {position:?}, past the last position"));
            }
            match rooms.get(&record.room) {
                Some(Some(room)) => {
                    if let Err(problem) = self.knowledge.check_event(room, record) {
                        self.found(&EVENTS, nid, problem);
                    }
                }
                _ => self.found(&EVENTS, nid, format!("belongs to {:?}, which is not there", record.room)),
            }
        }
    }

    async fn check_event_references(&mut self, rows: &[EventRow]) -> Result<(), Error> {
        let senders = self.are_there(&USER_IDS, rows.iter().map(|(_, event)| event.value.sender)).await?;
        for ((nid, event), there) in rows.iter().zip(senders) {
            if !there {
                self.found(&EVENTS, nid, format!("was sent by {:?}, who is not there", event.value.sender));
            }
        }
        let keyed: Vec<_> =
            rows.iter().filter_map(|(nid, event)| Some((*nid, event.value.state_key?))).collect();
        let keys = self.are_there(&STATE_KEYS, keys_of(&keyed)).await?;
        for ((nid, key), there) in keyed.iter().zip(keys) {
            if !there {
                self.found(&EVENTS, nid, format!("sets {key:?}, which is not there"));
            }
        }
        Ok(())
    }

    async fn check_placements(&mut self, rows: &[EventRow]) -> Result<(), Error> {
        let placed: Vec<_> = rows
            .iter()
            .filter_map(|(nid, event)| Some((*nid, (event.value.room, timeline_order(event)?))))
            .collect();
        let timeline = self.load_all(&TIMELINE, keys_of(&placed)).await?;
        for ((nid, (room, order)), found) in placed.iter().zip(timeline) {
            if found.row().is_some_and(|other| other == nid) {
                continue;
            }
            let problem = format!("should be at {} in the timeline of {room:?}; it is not", order.0);
            self.found(&EVENTS, nid, problem);
        }
        Ok(())
    }

    async fn check_timelines(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&TIMELINE);
        while let Some(rows) = pages.next(self.read()).await? {
            let events = self.load_all(&EVENTS, rows.iter().map(|(_, nid)| *nid)).await?;
            for ((key, nid), event) in rows.iter().zip(events) {
                let problem = match event.row() {
                    None if event.is_missing() => format!("refers to {nid:?}, which is not there"),
                    Some(event) if event.value.room != key.0 => {
                        format!("refers to {nid:?}, which belongs to {:?}", event.value.room)
                    }
                    Some(event) if timeline_order(event) != Some(key.1) => {
                        format!("refers to {nid:?}, which does not stand here: {:?}", event.value.placement)
                    }
                    Some(event) if event.value.verdict != VerdictRecord::Accepted => {
                        format!("shows {nid:?}, which was not accepted")
                    }
                    _ => continue,
                };
                self.found(&TIMELINE, key, problem);
            }
            self.advance(rows.len());
        }
        Ok(())
    }

    async fn check_relations(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&RELATIONS);
        while let Some(rows) = pages.next(self.read()).await? {
            let events = self.are_there(&EVENTS, rows.iter().map(|(_, relation)| relation.event)).await?;
            for ((key, relation), there) in rows.iter().zip(events) {
                if !there {
                    self.found(
                        &RELATIONS,
                        key,
                        format!("refers to {:?}, which is not there", relation.event),
                    );
                }
            }
            self.advance(rows.len());
        }
        Ok(())
    }

    async fn check_heads(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&ROOMS);
        while let Some(rows) = pages.next(self.read()).await? {
            let heads = self.load_all(&ROOM_HEADS, rows.iter().map(|(nid, _)| *nid)).await?;
            for ((room, record), head) in rows.iter().zip(heads) {
                // Heard of, by an invite for instance; nothing of it is held.
                if record.create_event == EventNid::NONE && head.is_missing() {
                    continue;
                }
                if head.is_missing() {
                    self.found(&ROOMS, room, "has no head".to_owned());
                }
                let extremities = head.row().map(|head| head.extremities.clone()).unwrap_or_default();
                if head.row().is_some() && extremities.is_empty() {
                    self.found(&ROOM_HEADS, room, "has no forward extremities".to_owned());
                }
                self.check_events_of_room(*room, "create event", &[record.create_event]).await?;
                self.check_events_of_room(*room, "extremity", &extremities).await?;
            }
            self.advance(rows.len());
        }
        Ok(())
    }

    async fn check_events_of_room(
        &mut self,
        room: RoomNid,
        what: &str,
        events: &[EventNid],
    ) -> Result<(), Error> {
        let found = self.load_all(&EVENTS, events.iter().copied()).await?;
        for (nid, event) in events.iter().zip(found) {
            let elsewhere = event.row().is_some_and(|event| event.value.room != room);
            if event.is_missing() || elsewhere {
                let problem = format!("its {what} {nid:?} is not there, or in another room");
                self.found(&ROOM_HEADS, &room, problem);
            }
        }
        Ok(())
    }
}

fn keys_of<K: Copy>(rows: &[(EventNid, K)]) -> impl Iterator<Item = K> + '_ {
    rows.iter().map(|(_, key)| *key)
}
