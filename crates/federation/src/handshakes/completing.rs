//! What is still to come of partially joined rooms, in the background (Server-Server API, "Joining Rooms", `omit_members`).
//!
//! Begun again after a restart, and through another server when one does not help.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream};
use myelin_core::RoomNid;
use myelin_rooms::{Completion, Error, Given};
use myelin_store::tables::{KeylessRecord, PartialRoomRecord};
use myelin_view::RoomInfo;
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};

use super::{
    HandshakeError, Handshakes,
    given_state::{self, GivenState},
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
        let servers = self.servers_of(record, tries);
        let (info, room_id) = (&snapshot.info, &snapshot.info.room_id);
        if record.members_omitted {
            return self
                .ask_until(
                    room_id,
                    &servers,
                    |server| self.complete_through(server, info, record),
                    fails_here,
                )
                .await;
        }
        let came = match self.have_keys_come(record).await {
            true => {
                let add = |server| self.add_through(server, info, record);
                self.ask_until(room_id, &servers, add, fails_here).await
            }
            false => Ok(false),
        };
        if self.awaits_keys(record) || matches!(came, Ok(true)) {
            return came;
        }
        let (state, keyless) = (Vec::new(), Vec::new());
        self.finish(info, Completion { join: record.join, given: Given::Lacking, state, keyless }).await
    }

    /// Where only keys lack, nobody is asked for a state before one of them is there.
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
        let GivenState { ids: state, keyless, .. } = self.whole_state(server, info, &join).await?;
        let given = Given::Whole(server.to_owned());
        let keyless = self.awaited(record, keyless);
        let finished = self.finish(info, Completion { join: record.join, given, state, keyless }).await;
        finished.map_err(|error| not_so(server, error))
    }

    /// Of a state that is held but for what could not be checked only that is asked for.
    async fn add_through(
        &self,
        server: &ServerName,
        info: &RoomInfo,
        record: &PartialRoomRecord,
    ) -> Result<bool, HandshakeError> {
        let join = self.join_of(record).await?;
        let of_request = |error| HandshakeError::of_request(server, error);
        let ids = fetch::state_ids(&self.client, server, &info.room_id, &join, Budget::ORDINARY)
            .await
            .map_err(of_request)?;
        let lacking = self.not_held(ids.pdu_ids.iter().chain(&ids.auth_chain_ids)).await?;
        let GivenState { keyless, .. } = if lacking.len() > fetch::ONE_BY_ONE_MAX {
            self.whole_state(server, info, &join).await?
        } else {
            let events = fetch::events(&self.client, server, &lacking).await.into_iter();
            let given: Result<Vec<_>, _> = events.filter_map(Result::transpose).collect();
            self.take_state(info, &given.map_err(of_request)?, &[]).await?
        };
        let lacking: HashSet<_> = self.not_held(&ids.pdu_ids).await?.into_iter().collect();
        let state = ids.pdu_ids.into_iter().filter(|id| !lacking.contains(id)).collect();
        let keyless = self.awaited(record, keyless);
        let finished =
            self.finish(info, Completion { join: record.join, given: Given::Lacking, state, keyless }).await;
        finished.map_err(|error| not_so(server, error))
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

    async fn finish(&self, info: &RoomInfo, completion: Completion) -> Result<bool, HandshakeError> {
        let (events, keys) = (completion.state.len(), completion.keyless.len());
        let done = self.rooms.complete_room(info.nid, &completion).await?;
        if done {
            tracing::info!(room_id = %info.room_id, events, keys, "more of a partially joined room is here");
        }
        Ok(done && keys == 0)
    }

    fn awaited(&self, record: &PartialRoomRecord, keyless: Vec<KeylessRecord>) -> Vec<KeylessRecord> {
        if self.awaits_keys(record) { keyless } else { Vec::new() }
    }

    async fn join_of(&self, record: &PartialRoomRecord) -> Result<OwnedEventId, Error> {
        let join = self.view.events.load(record.join).await?;
        let join = join.ok_or_else(|| Error::BadState("The join is gone.".to_owned()))?;
        Ok(join.pdu.event_id.clone())
    }

    async fn not_held<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a OwnedEventId>,
    ) -> Result<Vec<OwnedEventId>, Error> {
        let ids: BTreeSet<_> = ids.into_iter().cloned().collect();
        let ids: Vec<_> = ids.into_iter().collect();
        let held = self.view.interner.lookup_events(&ids).await?;
        Ok(ids.into_iter().filter(|id| !held.contains_key(id)).collect())
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
