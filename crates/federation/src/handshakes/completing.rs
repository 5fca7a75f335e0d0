//! What is still to come of partially joined rooms, in the background (Server-Server API, "Joining Rooms", `omit_members`).
//!
//! Begun again after a restart, and through another server when one does not help.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream};
use myelin_core::RoomNid;
use myelin_rooms::Error;
use myelin_store::tables::PartialRoomRecord;
use ruma::{OwnedServerName, ServerName};

use super::{HandshakeError, Handshakes};
use crate::{
    inbound::{fetch, verification::Verified},
    keys::Wanted,
};

/// Rooms at a time; one may take some hundred megabytes.
const AT_ONCE: usize = 2;
/// Servers asked before a room is put off.
const SERVERS_PER_ROUND: usize = 5;
const RETRY_PAUSE: Duration = Duration::from_secs(30);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(600);
/// How long the keys are waited for by which something of the state was signed; after that the room does without it.
const KEYS_AWAITED_MS: u64 = 24 * 3_600_000;

impl Handshakes {
    /// Completes partially joined rooms, for ever.
    pub async fn run(self: Arc<Self>) {
        let mut failures: HashMap<RoomNid, u32> = HashMap::new();
        loop {
            let rooms = self.rooms.partial_rooms().await.unwrap_or_else(|error| {
                tracing::error!(%error, "the partially joined rooms cannot be read");
                Vec::new()
            });
            failures.retain(|room, _| rooms.iter().any(|(other, _)| other == room));
            let attempts = rooms.into_iter().map(|(room, record)| {
                let tries = failures.get(&room).copied().unwrap_or_default();
                self.attempt(room, record, tries).map(move |done| (room, done)).boxed()
            });
            let attempts: Vec<_> = attempts.collect();
            let outcomes: Vec<_> = stream::iter(attempts).buffer_unordered(AT_ONCE).collect().await;
            for (room, done) in outcomes {
                if !done {
                    *failures.entry(room).or_default() += 1;
                }
            }
            let worst = failures.values().copied().max();
            match worst {
                None => self.partial.notified().await,
                Some(tries) => {
                    let pause = RETRY_PAUSE.saturating_mul(1 << tries.min(5)).min(RETRY_PAUSE_MAX);
                    self.view.env.timeout(pause, self.partial.notified()).await;
                }
            }
        }
    }

    async fn attempt(&self, room: RoomNid, record: PartialRoomRecord, tries: u32) -> bool {
        let outcome = self.complete(room, &record, tries).await;
        if let Err(error) = &outcome {
            tracing::warn!(?room, tries, %error, "a partially joined room could not be completed; trying again later");
        }
        outcome.is_ok_and(|whole| whole)
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
            self.rooms.abandon_partial_room(room).await?;
            return Ok(true);
        };
        let room_id = &snapshot.info.room_id;
        self.find_keys(record).await?;
        let servers = self.servers_of(record, tries);
        self.ask_each(room_id, &servers, |server| self.complete_through(server, &snapshot, record)).await
    }

    /// Where only keys lack, nobody is asked for a whole state before they are there.
    async fn find_keys(&self, record: &PartialRoomRecord) -> Result<(), HandshakeError> {
        if record.members_omitted || !self.awaits_keys(record) {
            return Ok(());
        }
        let wanted =
            |server: &ServerName| Wanted { server: server.to_owned(), key_ids: Vec::new(), at_ms: 0 };
        let wanted: Vec<_> = record.keyless().map(wanted).collect();
        let keys = self.inbound.keys.keys_for(&wanted).await;
        match wanted.iter().find(|wanted| keys.get(wanted.server.as_str()).is_none_or(BTreeMap::is_empty)) {
            Some(wanted) => Err(HandshakeError::failed(&wanted.server, "its keys are not to be had yet")),
            None => Ok(()),
        }
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
        room: &myelin_view::RoomSnapshot,
        record: &PartialRoomRecord,
    ) -> Result<bool, HandshakeError> {
        let info = &room.info;
        let join = self.view.events.load(record.join).await.map_err(Error::from)?;
        let join = join.ok_or_else(|| HandshakeError::failed(server, "the join is gone"))?;
        let begun = self.view.env.now_ms();
        let state = fetch::state(&self.client, server, &info.room_id, &join.pdu.event_id).await;
        let state = state.map_err(|error| HandshakeError::of_request(server, error))?;
        let Verified { events: pdus, mut keyless } =
            self.inbound.verified_or_keyless(&state.pdus, &info.rules).await;
        let ids: Vec<_> = pdus
            .iter()
            .filter(|pdu| pdu.pdu().is_state() && pdu.pdu().room_id == info.room_id)
            .map(|pdu| pdu.pdu().event_id.clone())
            .collect();
        let mut events = pdus;
        let chain = self.inbound.verified_or_keyless(&state.auth_chain, &info.rules).await;
        events.extend(chain.events);
        keyless.extend(chain.keyless);
        let keyless: Vec<_> = keyless.into_iter().filter(|_| self.awaits_keys(record)).collect();
        if !keyless.is_empty() && !record.members_omitted {
            return Ok(false);
        }
        let outliers = self.rooms.take_outliers(info, events).await?;
        let left_out: std::collections::HashSet<_> = outliers.left_out.iter().collect();
        let ids: Vec<_> = ids.into_iter().filter(|id| !left_out.contains(id)).collect();
        self.rooms.complete_room(info.nid, &ids, &keyless).await.map_err(|error| match error {
            Error::BadState(reason) => HandshakeError::failed(server, reason),
            other => other.into(),
        })?;
        let took_ms = self.view.env.now_ms().saturating_sub(begun);
        tracing::info!(room_id = %info.room_id, %server, events = ids.len(), took_ms, "a partially joined room is complete");
        Ok(keyless.is_empty())
    }
}
