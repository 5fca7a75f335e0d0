//! Sticky events (MSC4354) in sliding sync (MSC4480): of all rooms that a list or subscription stands for, in sight or not,
//! oldest first, with a token of their own. Who has just joined a room gets all that hold there.

use std::{collections::BTreeMap, sync::Arc};

use myelin_core::{EventNid, Position, RoomNid};
use myelin_store::tables::Membership;
use myelin_view::{Event, RoomSnapshot};

use super::{Answering, extensions::ToldRoom, push_by_room, request::Stream, window::Window};
use crate::{Error, Sync, json::Object, sticky::EVENTS_MAX};

/// The key of the extension.
const NAME: &str = "org.matrix.msc4354.sticky_events";
/// In one answer, those of rooms that were just joined aside.
const LIMIT_MAX: usize = 1_000;

/// What an answer tells of, and up to where.
struct Found {
    rooms: BTreeMap<RoomNid, Vec<EventNid>>,
    until: Position,
}

impl Sync {
    /// Whether there is anything.
    pub(super) async fn push_sticky(
        &self,
        answering: &Answering<'_>,
        wanted: &Stream,
        window: &Window,
        told: &[ToldRoom],
        out: &mut Object<'_>,
    ) -> Result<bool, Error> {
        let since = wanted.position(NAME)?.filter(|since| *since <= answering.context.now);
        let limit = wanted.limit.clamp(1, LIMIT_MAX);
        let found = self.sticky_since(answering, window, since.unwrap_or(Position::ZERO), limit).await?;
        let mut by_room = Vec::with_capacity(found.rooms.len());
        let snapshots = self.snapshots(found.rooms.keys()).await?;
        for (room, nids) in snapshots.iter().zip(found.rooms.values()) {
            let Some(room) = room else { continue };
            let events = self.sticky_beside(answering, room, nids, told).await?;
            if !events.is_empty() {
                let mut json = String::new();
                let mut of_room = Object::open(&mut json);
                of_room.array("events", &events);
                of_room.close();
                by_room.push((room.info.room_id.as_str(), json));
            }
        }
        let news = !by_room.is_empty();
        if news || found.until < answering.context.now {
            let mut extension = out.object(NAME);
            extension.string("next_batch", &found.until.0.to_string());
            push_by_room(&mut extension, &by_room);
            extension.close();
        }
        Ok(news)
    }

    async fn snapshots(
        &self,
        rooms: impl Iterator<Item = &RoomNid>,
    ) -> Result<Vec<Option<Arc<RoomSnapshot>>>, Error> {
        let mut snapshots = Vec::new();
        for room in rooms {
            snapshots.push(self.view.rooms.load(*room).await?);
        }
        Ok(snapshots)
    }

    /// Those that are not in a timeline of the answer already.
    async fn sticky_beside(
        &self,
        answering: &Answering<'_>,
        room: &RoomSnapshot,
        nids: &[EventNid],
        told: &[ToldRoom],
    ) -> Result<Vec<String>, Error> {
        let events = self.view.events.load_many(nids).await?.into_iter().flatten();
        let shown = |event: &Event| told.iter().any(|told| told.shows(&event.pdu.event_id));
        let nids: Vec<_> = events.filter(|event| !shown(event)).map(|event| event.nid).collect();
        let mut viewer = self.viewer(&answering.context, room).await?;
        self.write_sticky(&answering.context.writer, &mut viewer, &nids).await
    }

    async fn sticky_since(
        &self,
        answering: &Answering<'_>,
        window: &Window,
        since: Position,
        limit: usize,
    ) -> Result<Found, Error> {
        let now = answering.context.now;
        let (mut all, mut rooms) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
        for room in &window.sticky {
            let held = answering.changes.rooms.get(room);
            if held.is_none_or(|held| held.membership != Membership::Join) {
                continue;
            }
            if self.newly_joined(&answering.context, &answering.changes, *room).await? {
                let mut nids = self.view.sticky.of_room(*room, Position::ZERO, now).await?;
                nids.drain(..nids.len().saturating_sub(EVENTS_MAX));
                rooms.insert(*room, nids);
                continue;
            }
            let placed = self.view.sticky.placed_in(*room, since, now).await?;
            all.extend(placed.into_iter().map(|(position, nid)| (position, *room, nid)));
        }
        all.sort_unstable();
        let until = if all.len() > limit { all[limit - 1].0 } else { now };
        for (_, room, nid) in all.into_iter().take(limit) {
            rooms.entry(room).or_default().push(nid);
        }
        Ok(Found { rooms, until })
    }
}
