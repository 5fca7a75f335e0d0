//! What other servers may read here: events, states, history (Server-Server API, "Retrieving events", "Room State
//! Resolution", "Backfilling and retrieving missing events").
//!
//! - [`history`]: walks back through the DAG. [`sight`]: what of an event a server gets to see.
//!
//! Whoever is not in a room learns nothing of it, not even that it exists here. Counts are bounded. Must not know: HTTP.

pub mod history;
pub mod sight;

use std::sync::Arc;

use myelin_core::EventNid;
use myelin_dag::{AuthChain, Pdu, StateTree};
use myelin_rooms::{Beside, Rooms};
use myelin_store::tables::SERVER_ROOMS;
use myelin_view::{Event, RoomSnapshot, View};
use ruma::{EventId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, ServerName};
use serde_json::json;

use self::sight::Sight;

/// Servers named with an alias.
const SERVERS_NAMED: usize = 50;
/// Events loaded at once for one answer.
const LOADED_AT_ONCE: usize = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("your server is not in this room")]
    NotInRoom,
    #[error("your server is banned from this room")]
    Banned,
    /// Of the state of a partially joined room not everything is here yet.
    #[error("this server has not finished joining the room")]
    Partial,
    #[error("this event is not here")]
    UnknownEvent,
    #[error("there is no event in that direction")]
    NothingThere,
    #[error(transparent)]
    View(#[from] myelin_view::Error),
    #[error(transparent)]
    Rooms(#[from] myelin_rooms::Error),
    #[error(transparent)]
    Sync(#[from] myelin_sync::Error),
    #[error(transparent)]
    Store(#[from] myelin_store::Error),
}

/// Reads for other servers, each checked for what the asking server may see. Answers are JSON texts.
pub struct Serve {
    view: View,
    rooms: Arc<Rooms>,
}

impl Serve {
    pub fn new(view: View, rooms: Arc<Rooms>) -> Self {
        Self { view, rooms }
    }

    /// `GET /event/{eventId}`
    pub async fn event(&self, origin: &ServerName, event_id: &EventId) -> Result<String, Error> {
        let Some(event) = self.view.events.load_by_id(event_id).await? else {
            return self.left_out_event(origin, event_id).await;
        };
        let room = self.view.rooms.load(event.room).await?.ok_or(Error::UnknownEvent)?;
        self.check_access(origin, &room).await?;
        self.check_past(origin, &room, &event).await?;
        if event.is_rejected() {
            return Err(Error::UnknownEvent);
        }
        let pdu = Sight::new(&self.view, &room, origin).await?.pdu(&event).await?;
        Ok(self.transaction(&[pdu.ok_or(Error::Partial)?]))
    }

    /// `GET /state/{roomId}`: the state before the event, and what authorises it.
    pub async fn state(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<String, Error> {
        let (state, chain, beside) = self.state_before(origin, room_id, event_id).await?;
        let json = |pdu: Pdu| pdu.json;
        let mut pdus = self.pdus(state.iter().map(|(_, event)| event)).await?;
        pdus.extend(beside.state.into_iter().map(json));
        let mut chain = self.pdus(chain.iter()).await?;
        chain.extend(beside.auth_chain.into_iter().map(json));
        Ok(format!(r#"{{"auth_chain":[{}],"pdus":[{}]}}"#, chain.join(","), pdus.join(",")))
    }

    /// `GET /state_ids/{roomId}`
    pub async fn state_ids(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<String, Error> {
        let (state, chain, beside) = self.state_before(origin, room_id, event_id).await?;
        let id = |pdu: Pdu| pdu.event_id.to_string();
        let mut pdu_ids = self.event_ids(state.iter().map(|(_, event)| event)).await?;
        pdu_ids.extend(beside.state.into_iter().map(id));
        let mut auth_chain_ids = self.event_ids(chain.iter()).await?;
        auth_chain_ids.extend(beside.auth_chain.into_iter().map(id));
        Ok(json!({ "auth_chain_ids": auth_chain_ids, "pdu_ids": pdu_ids }).to_string())
    }

    /// `GET /event_auth/{roomId}/{eventId}`
    pub async fn event_auth(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<String, Error> {
        let room = self.room(origin, room_id).await?;
        let event = self.event_of(&room, event_id).await?;
        self.check_past(origin, &room, &event).await?;
        let chain = self.pdus(self.auth_chain(&room, &event).await?.iter()).await?;
        Ok(format!(r#"{{"auth_chain":[{}]}}"#, chain.join(",")))
    }

    /// `GET /query/directory`: the room of an alias of this server, and who is in it.
    pub async fn alias(
        &self,
        alias: &RoomAliasId,
    ) -> Result<Option<(OwnedRoomId, Vec<OwnedServerName>)>, Error> {
        if alias.server_name() != self.view.server_name {
            return Ok(None);
        }
        let Some(room_id) = self.rooms.resolve_alias(alias).await? else { return Ok(None) };
        let room = self.view.room_by_id(&room_id).await?;
        let servers = room.map(|room| servers_of(&room, &self.view.server_name)).unwrap_or_default();
        Ok(Some((room_id, servers)))
    }

    async fn state_before(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<(StateTree, AuthChain, Beside), Error> {
        let room = self.room(origin, room_id).await?;
        let event = self.event_of(&room, event_id).await?;
        self.check_past(origin, &room, &event).await?;
        let root = event.state_before.ok_or(Error::UnknownEvent)?;
        if room.members_omitted || (event.state_is_partial && !room.partial) {
            return Err(Error::Partial);
        }
        let state = self.view.states.load(root).await?;
        let nids: Vec<EventNid> = state.iter().map(|(_, event)| event).collect();
        let beside = self.rooms.beside(&room.info, &state).await?;
        let chains = self.rooms.auth_chains(&nids).await?;
        let chain = AuthChain::union(chains.iter().map(|chain| &**chain).chain([&beside.held]));
        Ok((state, chain, beside))
    }

    /// What this server could not check others may be able to.
    async fn left_out_event(&self, origin: &ServerName, event_id: &EventId) -> Result<String, Error> {
        let mut refused = Error::UnknownEvent;
        for (room, json) in self.rooms.left_out_event(event_id).await? {
            let Some(room) = self.view.rooms.load(room).await? else { continue };
            match self.check_access(origin, &room).await {
                Ok(()) => return Ok(self.transaction(&[json])),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    async fn auth_chain(&self, room: &RoomSnapshot, event: &Event) -> Result<AuthChain, Error> {
        let ids = event.pdu.auth_events.to_vec();
        let mut nids: Vec<EventNid> = self.view.interner.lookup_events(&ids).await?.into_values().collect();
        if event.nid != room.info.create_event {
            nids.push(room.info.create_event);
        }
        let chains = self.rooms.auth_chains(&nids).await?;
        Ok(AuthChain::of(nids.into_iter().zip(chains.iter().map(|chain| &**chain))))
    }

    /// The room, if that server takes part in it or did.
    async fn room(&self, origin: &ServerName, room_id: &RoomId) -> Result<Arc<RoomSnapshot>, Error> {
        let room = self.view.room_by_id(room_id).await?.ok_or(Error::NotInRoom)?;
        self.check_access(origin, &room).await?;
        Ok(room)
    }

    async fn check_access(&self, origin: &ServerName, room: &RoomSnapshot) -> Result<(), Error> {
        // Who has been there may still ask, and has to when the last events, the one that took it out among them, reach
        // it with gaps. What it gets to see of each event is decided event by event.
        if !room.has_server(origin) && !self.has_been_in(origin, room).await? {
            return Err(Error::NotInRoom);
        }
        if !self.view.permits(room, origin).await? {
            return Err(Error::Banned);
        }
        Ok(())
    }

    async fn has_been_in(&self, origin: &ServerName, room: &RoomSnapshot) -> Result<bool, Error> {
        let row = self.view.store.get(&SERVER_ROOMS, &(origin.to_string(), room.nid())).await?;
        Ok(row.is_some())
    }

    /// Who takes part no more may ask only about what was before that.
    async fn check_past(&self, origin: &ServerName, room: &RoomSnapshot, event: &Event) -> Result<(), Error> {
        match Sight::new(&self.view, room, origin).await?.is_beyond(event) {
            true => Err(Error::NotInRoom),
            false => Ok(()),
        }
    }

    /// An event of that room, and of no other.
    async fn event_of(&self, room: &RoomSnapshot, event_id: &EventId) -> Result<Arc<Event>, Error> {
        let event = self.view.events.load_by_id(event_id).await?;
        event.filter(|event| event.room == room.nid()).ok_or(Error::UnknownEvent)
    }

    /// Events that are part of a state or an auth chain, whole: who takes part in a room has a right to them.
    async fn pdus(&self, nids: impl Iterator<Item = EventNid>) -> Result<Vec<Arc<str>>, Error> {
        self.load(nids, |event| event.pdu.json.clone()).await
    }

    async fn event_ids(&self, nids: impl Iterator<Item = EventNid>) -> Result<Vec<String>, Error> {
        self.load(nids, |event| event.pdu.event_id.to_string()).await
    }

    async fn load<T>(
        &self,
        nids: impl Iterator<Item = EventNid>,
        take: impl Fn(&Event) -> T,
    ) -> Result<Vec<T>, Error> {
        let nids: Vec<EventNid> = nids.collect();
        let mut taken = Vec::with_capacity(nids.len());
        for nids in nids.chunks(LOADED_AT_ONCE) {
            let events = self.view.events.load_many(nids).await?;
            taken.extend(events.iter().flatten().map(|event| take(event)));
        }
        Ok(taken)
    }

    /// PDUs as a transaction has them.
    fn transaction(&self, pdus: &[Arc<str>]) -> String {
        let origin = json!(self.view.server_name);
        let (ts, pdus) = (self.view.env.now_ms(), pdus.join(","));
        format!(r#"{{"origin":{origin},"origin_server_ts":{ts},"pdus":[{pdus}]}}"#)
    }
}

/// Who takes part in a room: this server first, then those with most users.
pub fn servers_of(room: &RoomSnapshot, this: &ServerName) -> Vec<OwnedServerName> {
    let mut servers: Vec<_> = room.servers.iter().collect();
    servers.sort_by_key(|(server, users)| (*server != this, std::cmp::Reverse(**users)));
    servers.into_iter().take(SERVERS_NAMED).map(|(server, _)| server.clone()).collect()
}
