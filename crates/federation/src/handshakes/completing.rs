//! What is still to come of partially joined rooms, in the background (Server-Server API, "Joining Rooms", `omit_members`).
//!
//! Begun again after a restart, and through another server when one does not help.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream};
use myelin_core::RoomNid;
use myelin_rooms::{Completion, Error, Given, LeftOut};
use myelin_store::tables::PartialRoomRecord;
use myelin_view::RoomInfo;
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};
use serde_json::value::RawValue;

use super::{
    HandshakeError, Handshakes,
    given_state::{self, GivenState, Lacking},
};
use crate::{Budget, inbound::fetch};

/// Rooms at a time; one may take some hundred megabytes.
const AT_ONCE: usize = 2;
/// Servers asked before a room is put off.
const SERVERS_PER_ROUND: usize = 5;
const RETRY_PAUSE: Duration = Duration::from_secs(30);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(600);
/// How long the keys are waited for by which something of the state was signed; after that the room does without it.
const KEYS_AWAITED_MS: u64 = 24 * 3_600_000;

/// Why a room is partial still. In memory: after a restart the counting begins again.
#[derive(Clone, Debug, Default)]
pub struct Tries {
    pub failed: u32,
    /// The last of them; `None` also where nothing went wrong, but nothing came either.
    pub last_error: Option<HandshakeError>,
}

impl Handshakes {
    /// What has been tried in vain to complete a partially joined room since the server started.
    pub fn tries_to_complete(&self, room: RoomNid) -> Tries {
        self.incomplete.lock().get(&room).cloned().unwrap_or_default()
    }

    /// Completes partially joined rooms, for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            let rooms = self.rooms.partial_rooms().await.unwrap_or_else(|error| {
                tracing::error!(%error, "the partially joined rooms cannot be read");
                Vec::new()
            });
            self.incomplete.lock().retain(|room, _| rooms.iter().any(|(other, _)| other == room));
            let attempts: Vec<_> =
                rooms.into_iter().map(|(room, record)| self.attempt(room, record).boxed()).collect();
            stream::iter(attempts).buffer_unordered(AT_ONCE).collect::<()>().await;
            let worst = self.incomplete.lock().values().map(|tries| tries.failed).max();
            match worst {
                None => self.partial.notified().await,
                Some(tries) => {
                    let pause = RETRY_PAUSE.saturating_mul(1 << tries.min(5)).min(RETRY_PAUSE_MAX);
                    self.view.env.timeout(pause, self.partial.notified()).await;
                }
            }
        }
    }

    async fn attempt(&self, room: RoomNid, record: PartialRoomRecord) {
        let tries = self.tries_to_complete(room).failed;
        let last_error = match self.complete(room, &record, tries).await {
            Ok(true) => {
                self.incomplete.lock().remove(&room);
                return;
            }
            Ok(false) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = &last_error {
            tracing::warn!(?room, tries, %error, "a partially joined room could not be completed; trying again later");
        }
        self.incomplete.lock().insert(room, Tries { failed: tries.saturating_add(1), last_error });
    }

    /// Whether nothing is left to come.
    async fn complete(
        &self,
        room: RoomNid,
        record: &PartialRoomRecord,
        tries: u32,
    ) -> Result<bool, HandshakeError> {
        let snapshot = self.view.rooms.load(room).await.map_err(Error::from)?;
        let Some(snapshot) = snapshot.filter(|snapshot| !snapshot.local_joined.is_empty()) else {
            self.rooms.abandon_partial_room(room, record).await?;
            return Ok(true);
        };
        let info = &snapshot.info;
        if record.members_omitted {
            let servers = self.servers_of(record, tries);
            let complete = |server| self.complete_through(server, info, record);
            return self.ask_until(&info.room_id, &servers, complete, fails_here).await;
        }
        if self.have_keys_come(record).await {
            return self.take_up_left_out(info, record).await;
        }
        match self.awaits_keys(record) {
            true => Ok(false),
            false => self.finish(info, record, Given::Lacking, Vec::new(), Lacking::default()).await,
        }
    }

    async fn have_keys_come(&self, record: &PartialRoomRecord) -> bool {
        let wanted: Vec<_> = record.keyless.iter().filter_map(given_state::wanted).collect();
        self.inbound.keys.bring(&wanted).await;
        for wanted in &wanted {
            if self.inbound.keys.is_here(wanted).await {
                return true;
            }
        }
        false
    }

    fn awaits_keys(&self, record: &PartialRoomRecord) -> bool {
        self.view.env.now_ms() < record.since_ms.saturating_add(KEYS_AWAITED_MS)
    }

    /// The resident server first, then the others in turn.
    fn servers_of(&self, record: &PartialRoomRecord, tries: u32) -> Vec<OwnedServerName> {
        let resident = <&ServerName>::try_from(record.resident.as_str()).ok();
        let mut servers: Vec<OwnedServerName> = Vec::new();
        for server in resident.into_iter().chain(record.servers()) {
            let useful = *server != *self.view.server_name && self.client.permits(server);
            if useful && !servers.iter().any(|known| known == server) {
                servers.push(server.to_owned());
            }
        }
        let start = usize::try_from(tries).unwrap_or_default() * SERVERS_PER_ROUND;
        let count = servers.len().max(1);
        servers.rotate_left(start % count);
        servers.truncate(SERVERS_PER_ROUND);
        servers
    }

    async fn complete_through(
        &self,
        server: &ServerName,
        info: &RoomInfo,
        record: &PartialRoomRecord,
    ) -> Result<bool, HandshakeError> {
        let join = self.join_of(record).await?;
        let GivenState { ids, lacking, .. } = self.whole_state(server, info, &join).await?;
        let given = Given::Whole(server.to_owned());
        let finished = self.finish(info, record, given, ids, lacking).await;
        finished.map_err(|error| not_so(server, error))
    }

    /// A state that is held but for what could not be checked: that was kept as it came.
    async fn take_up_left_out(
        &self,
        info: &RoomInfo,
        record: &PartialRoomRecord,
    ) -> Result<bool, HandshakeError> {
        let (mut state, mut auth_chain) = (Vec::new(), Vec::new());
        for LeftOut { json, of_state, .. } in self.rooms.left_out(info.nid, record).await? {
            let Ok(raw) = RawValue::from_string(json.to_string()) else { continue };
            if of_state { state.push(raw) } else { auth_chain.push(raw) }
        }
        let GivenState { ids, lacking, .. } = self.take_state(info, &state, &auth_chain).await?;
        self.finish(info, record, Given::Lacking, ids, lacking).await
    }

    async fn whole_state(
        &self,
        server: &ServerName,
        info: &RoomInfo,
        join: &EventId,
    ) -> Result<GivenState, HandshakeError> {
        let state = fetch::state(&self.client, server, &info.room_id, join, Budget::LARGE).await;
        let state = state.map_err(|error| HandshakeError::of_request(server, error))?;
        Ok(self.take_state(info, &state.pdus, &state.auth_chain).await?)
    }

    async fn finish(
        &self,
        info: &RoomInfo,
        record: &PartialRoomRecord,
        given: Given,
        state: Vec<OwnedEventId>,
        lacking: Lacking,
    ) -> Result<bool, HandshakeError> {
        let lacking = if self.awaits_keys(record) { lacking } else { Lacking::default() };
        let Lacking { keyless, left_out } = lacking;
        let (events, keys) = (state.len(), keyless.len());
        let completion = Completion { join: record.join, given, state, keyless, left_out };
        let done = self.rooms.complete_room(info.nid, &completion).await?;
        if done {
            tracing::info!(room_id = %info.room_id, events, keys, "more of a partially joined room is here");
        }
        Ok(done && keys == 0)
    }

    async fn join_of(&self, record: &PartialRoomRecord) -> Result<OwnedEventId, Error> {
        let join = self.view.events.load(record.join).await?;
        let join = join.ok_or_else(|| Error::BadState("The join is gone.".to_owned()))?;
        Ok(join.pdu.event_id.clone())
    }
}

/// What one server refuses another may give, however long that takes.
fn fails_here(error: &HandshakeError) -> bool {
    matches!(error, HandshakeError::Rooms(Error::Store(_)))
}

/// A state that does not fit is the fault of who gave it.
fn not_so(server: &ServerName, error: HandshakeError) -> HandshakeError {
    match error {
        HandshakeError::Rooms(Error::BadState(reason)) => HandshakeError::failed(server, reason),
        other => other,
    }
}
