//! What local users look up on other servers: aliases, room directories, profiles, spaces, events by time.
//!
//! Every look-up is bounded in time and size. What other servers say is passed on in the fields that are known, never as it
//! came.

mod answers;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use http::StatusCode;
use myelin_sync::spaces::{Elsewhere, ForeignSpace};
use myelin_view::View;
use quick_cache::sync::Cache;
use ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId, RoomId, ServerName, UserId,
};
use serde_json::{Map, Value};

use self::answers::{Alias, EventAt, PublicRoomsBody};
pub use self::answers::{PublicRoomsFilter, PublicRoomsPage, PublicRoomsRequest};
use crate::{Budget, Client, RequestError, Serve, serve, uri::segment};

const LOOK_UP: Budget = Budget { timeout: Duration::from_secs(10), body_size_max: 256 * 1024 };
const LIST: Budget = Budget { timeout: Duration::from_secs(20), body_size_max: 4 * 1024 * 1024 };
/// Servers asked for the same thing, one after the other.
const SERVERS_ASKED_MAX: usize = 3;
/// Servers taken from the answer about an alias.
const SERVERS_TAKEN_MAX: usize = 50;
/// Spaces are looked up again after this.
const SPACE_FRESH_MS: u64 = 5 * 60_000;
/// A client that shows a room asks for the same profile several times; who changes theirs wants it to be seen.
const PROFILE_FRESH_MS: u64 = 10_000;
const PROFILES_MAX: usize = 5_000;
const SPACES_MAX: usize = 500;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server that should know says that there is no such thing.
    #[error("there is no such thing on '{0}'")]
    NotFound(OwnedServerName),
    #[error("'{server}' could not be asked: {error}")]
    Failed { server: OwnedServerName, error: RequestError },
    #[error(transparent)]
    Here(#[from] serve::Error),
}

/// A room and the servers by which it can be joined.
pub type ResolvedAlias = (OwnedRoomId, Vec<OwnedServerName>);
type Profile = Arc<Map<String, Value>>;

/// Look-ups elsewhere.
pub struct Remote {
    view: View,
    client: Arc<Client>,
    serve: Arc<Serve>,
    profiles: Cache<OwnedUserId, (u64, Profile)>,
    /// By who said it, too: nobody answers for what a client asks another server about.
    spaces: Cache<(OwnedRoomId, OwnedServerName, bool), (u64, Arc<ForeignSpace>)>,
}

impl Remote {
    pub fn new(view: View, client: Arc<Client>, serve: Arc<Serve>) -> Self {
        let (profiles, spaces) = (Cache::new(PROFILES_MAX), Cache::new(SPACES_MAX));
        Self { view, client, serve, profiles, spaces }
    }

    /// The room of an alias, of this server or of another.
    pub async fn alias(&self, alias: &RoomAliasId) -> Result<ResolvedAlias, Error> {
        let server = alias.server_name();
        if server == self.view.server_name {
            return self.serve.alias(alias).await?.ok_or_else(|| Error::NotFound(server.to_owned()));
        }
        let uri = format!("/_matrix/federation/v1/query/directory?room_alias={}", segment(alias.as_str()));
        let found: Alias = self.client.get(server, &uri, LOOK_UP).await.map_err(failed(server))?;
        let mut servers = found.servers;
        servers.truncate(SERVERS_TAKEN_MAX);
        if !servers.iter().any(|named| named == server) {
            servers.push(server.to_owned());
        }
        Ok((found.room_id, servers))
    }

    /// The profile of a user of another server, or one field of it.
    pub async fn profile(&self, user_id: &UserId) -> Result<Profile, Error> {
        let server = user_id.server_name();
        let now_ms = self.view.env.now_ms();
        if let Some((until_ms, profile)) = self.profiles.get(user_id)
            && now_ms < until_ms
        {
            return Ok(profile);
        }
        let uri = format!("/_matrix/federation/v1/query/profile?user_id={}", segment(user_id.as_str()));
        let profile: Map<String, Value> =
            self.client.get(server, &uri, LOOK_UP).await.map_err(failed(server))?;
        let profile = Arc::new(answers::without_nulls(profile));
        self.profiles.insert(user_id.to_owned(), (now_ms + PROFILE_FRESH_MS, profile.clone()));
        Ok(profile)
    }

    /// The published rooms of another server.
    pub async fn public_rooms(
        &self,
        server: &ServerName,
        request: &PublicRoomsRequest,
    ) -> Result<PublicRoomsPage, Error> {
        let body = PublicRoomsBody::from(request);
        let uri = "/_matrix/federation/v1/publicRooms";
        self.client.post(server, uri, &body, LIST).await.map_err(failed(server))
    }

    /// The event of a room that is closest to a time, from servers that take part in it.
    pub async fn event_at(&self, room_id: &RoomId, ts_ms: u64, forward: bool) -> Option<(OwnedEventId, u64)> {
        let room = self.view.room_by_id(room_id).await.ok()??;
        let servers = serve::servers_of(&room, &self.view.server_name);
        let others = servers.iter().filter(|server| **server != self.view.server_name);
        let (room, dir) = (segment(room_id.as_str()), if forward { "f" } else { "b" });
        let uri = format!("/_matrix/federation/v1/timestamp_to_event/{room}?ts={ts_ms}&dir={dir}");
        for server in others.take(SERVERS_ASKED_MAX) {
            if let Ok(found) = self.client.get::<EventAt>(server, &uri, LOOK_UP).await {
                return Some((found.event_id, found.origin_server_ts));
            }
        }
        None
    }

    async fn ask_for_space(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        suggested_only: bool,
    ) -> Option<Arc<ForeignSpace>> {
        let now_ms = self.view.env.now_ms();
        let room = segment(room_id.as_str());
        let uri = format!("/_matrix/federation/v1/hierarchy/{room}?suggested_only={suggested_only}");
        let others = via.iter().filter(|server| **server != self.view.server_name);
        for server in others.take(SERVERS_ASKED_MAX) {
            let key = (room_id.to_owned(), server.clone(), suggested_only);
            if let Some((until_ms, space)) = self.spaces.get(&key)
                && now_ms < until_ms
            {
                return Some(space);
            }
            match self.client.get::<ForeignSpace>(server, &uri, LIST).await {
                Ok(space) if space.room.room_id == room_id => {
                    let space = Arc::new(space);
                    self.spaces.insert(key, (now_ms + SPACE_FRESH_MS, space.clone()));
                    return Some(space);
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, %server, %room_id, "a space could not be asked for"),
            }
        }
        None
    }
}

impl Elsewhere for Remote {
    fn space<'a>(
        &'a self,
        room_id: &'a RoomId,
        via: &'a [OwnedServerName],
        suggested_only: bool,
    ) -> BoxFuture<'a, Option<Arc<ForeignSpace>>> {
        self.ask_for_space(room_id, via, suggested_only).boxed()
    }
}

fn failed(server: &ServerName) -> impl Fn(RequestError) -> Error {
    move |error| match error {
        RequestError::Status { status: StatusCode::NOT_FOUND, .. } => Error::NotFound(server.to_owned()),
        error => Error::Failed { server: server.to_owned(), error },
    }
}
