//! What other servers are asked for: single events, stretches of history, states, auth chains (Server-Server API,
//! "Backfilling and retrieving missing events", "Retrieving events").
//!
//! Nothing that comes back is vouched for by anybody.

use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Inbound;
use crate::{Budget, Client, RequestError, uri::segment};

/// For what one event waits for.
const SMALL: Budget = Budget { timeout: Duration::from_secs(10), body_size_max: 16 * 1024 * 1024 };

/// For what somebody reads, who does not wait for long: there is to be time to ask another server.
const HISTORY: Budget = Budget { timeout: Duration::from_secs(8), ..SMALL };

/// Events of a state that are fetched one by one; if more lack, the whole state is.
pub const ONE_BY_ONE_MAX: usize = 60;
/// Single events asked for at once.
const AT_ONCE: usize = 8;

type Pdus = Vec<Box<RawValue>>;

#[derive(Serialize)]
pub struct MissingEvents<'a> {
    /// Held already.
    pub earliest_events: &'a [OwnedEventId],
    /// Whose ancestors are wanted.
    pub latest_events: &'a [OwnedEventId],
    pub limit: usize,
    pub min_depth: u64,
}

/// A state before an event by its ids.
#[derive(Deserialize, Debug)]
pub struct StateIds {
    pub pdu_ids: Vec<OwnedEventId>,
    #[serde(default)]
    pub auth_chain_ids: Vec<OwnedEventId>,
}

/// The same in full.
#[derive(Deserialize)]
pub struct State {
    pub pdus: Pdus,
    #[serde(default)]
    pub auth_chain: Pdus,
}

#[derive(Deserialize)]
struct Events {
    events: Pdus,
}

#[derive(Deserialize)]
struct PdusOnly {
    pdus: Pdus,
}

#[derive(Deserialize)]
struct AuthChain {
    auth_chain: Pdus,
}

pub async fn missing_events(
    client: &Client,
    server: &ServerName,
    room_id: &RoomId,
    request: &MissingEvents<'_>,
) -> Result<Pdus, RequestError> {
    let uri = format!("/_matrix/federation/v1/get_missing_events/{}", segment(room_id.as_str()));
    let answer: Events = client.post(server, &uri, request, SMALL).await?;
    Ok(answer.events)
}

pub async fn event(
    client: &Client,
    server: &ServerName,
    event_id: &EventId,
) -> Result<Option<Box<RawValue>>, RequestError> {
    let uri = format!("/_matrix/federation/v1/event/{}", segment(event_id.as_str()));
    let mut answer: PdusOnly = client.get(server, &uri, SMALL).await?;
    Ok(answer.pdus.pop())
}

/// One outcome for each, in order.
pub async fn events(
    client: &Client,
    server: &ServerName,
    ids: &[OwnedEventId],
) -> Vec<Result<Option<Box<RawValue>>, RequestError>> {
    let requests: Vec<_> = ids.iter().map(|id| event(client, server, id).boxed()).collect();
    stream::iter(requests).buffered(AT_ONCE).collect().await
}

pub async fn event_auth(
    client: &Client,
    server: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
    budget: Budget,
) -> Result<Pdus, RequestError> {
    let (room_id, event_id) = (segment(room_id.as_str()), segment(event_id.as_str()));
    let uri = format!("/_matrix/federation/v1/event_auth/{room_id}/{event_id}");
    let answer: AuthChain = client.get(server, &uri, budget).await?;
    Ok(answer.auth_chain)
}

pub async fn state_ids(
    client: &Client,
    server: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
    budget: Budget,
) -> Result<StateIds, RequestError> {
    let (room_id, event_id) = (segment(room_id.as_str()), segment(event_id.as_str()));
    let uri = format!("/_matrix/federation/v1/state_ids/{room_id}?event_id={event_id}");
    client.get(server, &uri, budget).await
}

pub async fn state(
    client: &Client,
    server: &ServerName,
    room_id: &RoomId,
    event_id: &EventId,
    budget: Budget,
) -> Result<State, RequestError> {
    let (room_id, event_id) = (segment(room_id.as_str()), segment(event_id.as_str()));
    let uri = format!("/_matrix/federation/v1/state/{room_id}?event_id={event_id}");
    client.get(server, &uri, budget).await
}

pub async fn backfill(
    client: &Client,
    server: &ServerName,
    room_id: &RoomId,
    from: &[OwnedEventId],
    limit: usize,
) -> Result<Pdus, RequestError> {
    let mut uri = format!("/_matrix/federation/v1/backfill/{}?limit={limit}", segment(room_id.as_str()));
    for id in from {
        uri.push_str("&v=");
        uri.push_str(&segment(id.as_str()));
    }
    let answer: PdusOnly = client.get(server, &uri, HISTORY).await?;
    Ok(answer.pdus)
}

impl Inbound {
    /// The servers that are likely to know about a room, likeliest first: those named, then those in the room whose
    /// users have power there, then those with the most users. Who has just failed comes last.
    pub(crate) async fn likely_servers(
        &self,
        room: &myelin_view::RoomSnapshot,
        first: &[&ServerName],
        max: usize,
    ) -> Result<Vec<OwnedServerName>, myelin_view::Error> {
        let mut servers: Vec<OwnedServerName> = first.iter().map(|server| (*server).to_owned()).collect();
        servers.extend(self.powerful_servers(room).await?);
        let mut by_users: Vec<_> = room.servers.iter().map(|(server, users)| (*users, server)).collect();
        by_users.sort_unstable_by(|a, b| b.cmp(a));
        servers.extend(by_users.into_iter().take(max * 2).map(|(_, server)| server.clone()));
        let mut seen = std::collections::BTreeSet::new();
        let own = self.client.server_name().to_owned();
        servers.retain(|server| *server != own && self.client.permits(server) && seen.insert(server.clone()));
        // Stable: apart from health the order stays.
        servers.sort_by_key(|server| self.peers.failing(server).is_some());
        servers.truncate(max);
        Ok(servers)
    }

    async fn powerful_servers(
        &self,
        room: &myelin_view::RoomSnapshot,
    ) -> Result<Vec<OwnedServerName>, myelin_view::Error> {
        let levels = self.view.current_state_event(room, "m.room.power_levels", "").await?;
        let users = levels.and_then(|levels| {
            levels
                .pdu
                .content_field::<std::collections::BTreeMap<ruma::OwnedUserId, serde_json::Value>>("users")
        });
        let mut users: Vec<_> = users.unwrap_or_default().into_iter().collect();
        users.sort_by_key(|(_, level)| std::cmp::Reverse(level.as_i64()));
        let servers = users.into_iter().map(|(user, _)| user.server_name().to_owned());
        Ok(servers.filter(|server| room.has_server(server)).collect())
    }
}
