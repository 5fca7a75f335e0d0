//! What `/sync` has replaced: `/initialSync`, `/events` without a room, and `/events/{eventId}` (Client-Server API,
//! "Syncing", deprecated).

use std::{collections::BTreeSet, time::Duration};

use futures::{FutureExt, select_biased};
use myelin_core::{Position, RoomNid, SyncToken, limits};
use myelin_store::{
    Direction,
    tables::{ACCOUNT_DATA, Membership},
};
use ruma::EventId;

use crate::{
    Error, Requester, Sync,
    client_event::{membership_name, small_event},
    context::write_chunk,
    filter::EventFilter,
    json::Object,
    timeline::{Stretch, Wanted, walk},
    visibility::Viewer,
};

const MESSAGES_DEFAULT: usize = 20;
const MESSAGES_MAX: usize = 100;
const ACCOUNT_DATA_TYPES_MAX: usize = 10_000;
/// Events of one answer; the next request gets the following ones.
const EVENTS_MAX: usize = 500;

/// The end of an answer if it was cut, and the events with their rooms' ids.
struct Chunk {
    end: Position,
    events: Vec<String>,
}

impl Sync {
    /// `GET /initialSync`
    pub async fn initial_sync(
        &self,
        requester: &Requester,
        limit: Option<usize>,
        archived: bool,
    ) -> Result<String, Error> {
        let now = self.view.feed.caught_up().await;
        let limit = limit.unwrap_or(MESSAGES_DEFAULT).min(MESSAGES_MAX);
        let mut rooms = Vec::new();
        for (nid, held) in &*self.view.user_rooms.load(requester.user).await? {
            let Some(info) = self.view.interner.room_info(*nid).await? else { continue };
            rooms.extend(match held.membership {
                Membership::Join => Some(self.initial_room(requester, &info.room_id, limit).await?),
                Membership::Leave | Membership::Ban if archived && held.was_joined && !held.forgotten => {
                    Some(self.initial_room(requester, &info.room_id, limit).await?)
                }
                Membership::Invite => self.invited_room(requester, info.room_id.as_str(), held.event).await?,
                _ => None,
            });
        }
        let mut text = String::with_capacity(4096);
        let mut body = Object::open(&mut text);
        let token = SyncToken { position: now, ephemeral: self.view.ephemeral.sequence(), to_device: None };
        body.string("end", &token.to_string());
        body.array("presence", [""; 0]);
        body.array("rooms", rooms);
        body.array("account_data", self.global_account_data(requester).await?);
        body.close();
        Ok(text)
    }

    async fn invited_room(
        &self,
        requester: &Requester,
        room_id: &str,
        invite: myelin_core::EventNid,
    ) -> Result<Option<String>, Error> {
        let Some(event) = self.view.events.load(invite).await? else { return Ok(None) };
        if self.suppresses_invite(requester.user, &event).await? {
            return Ok(None);
        }
        let mut text = String::new();
        let mut room = Object::open(&mut text);
        room.string("room_id", room_id);
        room.string("membership", membership_name(Membership::Invite));
        let seen = crate::visibility::Seen { membership: Membership::Invite };
        room.raw("invite", &self.room_writer(requester).write(&event, seen, None).await?);
        room.close();
        Ok(Some(text))
    }

    async fn global_account_data(&self, requester: &Requester) -> Result<Vec<String>, Error> {
        let prefix = (requester.user, RoomNid::GLOBAL);
        let rows =
            self.view.store.scan(&ACCOUNT_DATA, &prefix, Direction::Forward, ACCOUNT_DATA_TYPES_MAX).await?;
        Ok(rows.into_iter().map(|((_, _, kind), row)| small_event(&kind, &row.value.json)).collect())
    }

    /// `GET /events`: what happened in the rooms of the requester since `from`; waits for it.
    pub async fn event_stream(
        &self,
        requester: &Requester,
        from: Option<SyncToken>,
        timeout_ms: u64,
    ) -> Result<String, Error> {
        // Registered before the first look: what is committed in between wakes it.
        let waiter = self.view.feed.register(requester.user);
        let now = self.view.feed.caught_up().await;
        let since = from.map_or(now, |token| token.position.min(now));
        let timeout = Duration::from_millis(timeout_ms.min(limits::SYNC_TIMEOUT_MS_MAX));
        let mut timeout = self.view.env.clock.sleep(timeout).fuse();
        loop {
            let chunk = self.stream_chunk(requester, since).await?;
            if !chunk.events.is_empty() {
                return Ok(write_chunk(since, chunk.end, &chunk.events));
            }
            select_biased! {
                () = waiter.wait().fuse() => {}
                () = timeout => return Ok(write_chunk(since, chunk.end, &[])),
            }
        }
    }

    async fn stream_chunk(&self, requester: &Requester, since: Position) -> Result<Chunk, Error> {
        let now = self.view.feed.caught_up().await;
        let mut found = Vec::new();
        for nid in self.changed_rooms(requester, since, now).await? {
            let Some(room) = self.view.rooms.load(nid).await?.filter(|room| room.is_joined(requester.user))
            else {
                continue;
            };
            let ignored = self.view.ignored.load(requester.user).await?;
            let wanted = Wanted { filter: &EventFilter::default(), ignored: &ignored };
            let mut viewer = Viewer::new(&self.view, &room, requester.user, &requester.user_id).await?;
            let stretch = Stretch { after: since.into(), until: now.into() };
            let forward = Direction::Forward;
            found.extend(
                walk(&self.view, &mut viewer, nid, stretch, forward, EVENTS_MAX, &wanted).await?.events,
            );
        }
        found.sort_by_key(|placed| placed.order);
        // A room may hold more than was read of it.
        let cut = found.len() >= EVENTS_MAX;
        found.truncate(EVENTS_MAX);
        let last = found.last().and_then(|placed| placed.order.position());
        let end = last.filter(|_| cut).unwrap_or(now);
        Ok(Chunk { end, events: self.write_all(requester, &found).await? })
    }

    async fn changed_rooms(
        &self,
        requester: &Requester,
        since: Position,
        now: Position,
    ) -> Result<BTreeSet<RoomNid>, Error> {
        let rooms = self.view.user_rooms.load(requester.user).await?;
        let joined =
            rooms.iter().filter(|(_, held)| held.membership == Membership::Join).map(|(nid, _)| *nid);
        Ok(match self.view.feed.recent(since, now) {
            Some(recent) => {
                let joined: BTreeSet<_> = joined.collect();
                let changed = recent.into_iter().filter(|entry| entry.event.is_some());
                changed.map(|entry| entry.room).filter(|room| joined.contains(room)).collect()
            }
            None => joined.collect(),
        })
    }

    /// `GET /events/{eventId}`
    pub async fn event_anywhere(&self, requester: &Requester, event_id: &EventId) -> Result<String, Error> {
        const NO_EVENT: &str = "There is no such event, or you may not see it.";
        let event = self.view.events.load_by_id(event_id).await?.ok_or(Error::NotFound(NO_EVENT))?;
        let room = self.view.interner.room_info(event.room).await?.ok_or(Error::NotFound(NO_EVENT))?;
        self.event(requester, &room.room_id, event_id).await
    }
}
