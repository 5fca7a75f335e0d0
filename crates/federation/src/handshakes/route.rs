//! Whom to ask: the server of who invites, the servers that a client names, those that are known to be in the room, and the one in the room id. They
//! are asked one after the other.

use std::{future::Future, time::Duration};

use ruma::{OwnedServerName, RoomId, ServerName, UserId};

use super::{HandshakeError, Handshakes};
use crate::Budget;

/// Servers asked for one wish.
const SERVERS_MAX: usize = 12;
/// After that nobody else is asked. Whoever waits is told earlier that it goes on (`join`).
const ROUND_MS: u64 = 240_000;
/// For a template, and for small events.
pub(super) const QUICK: Budget = Budget { timeout: Duration::from_secs(20), body_size_max: 1024 * 1024 };

impl Handshakes {
    /// Distinct, best first, without this server and those that the configuration refuses.
    pub(super) async fn servers_for(
        &self,
        room_id: &RoomId,
        via: &[OwnedServerName],
        user_id: &UserId,
    ) -> Result<Vec<OwnedServerName>, HandshakeError> {
        let mut servers = Vec::new();
        let outside = self.rooms.outside(user_id, room_id).await?;
        // Who sent an invite knows of it: others may not have heard of it yet, and refuse.
        servers.extend(outside.iter().map(|held| held.event.pdu.sender.server_name().to_owned()));
        servers.extend_from_slice(via);
        servers.extend(outside.into_iter().flat_map(|held| held.servers));
        if let Some(room) = self.view.room_by_id(room_id).await.map_err(myelin_rooms::Error::from)? {
            servers.extend(room.servers.keys().cloned());
        }
        servers.extend(room_id.server_name().map(ToOwned::to_owned));
        let mut distinct: Vec<OwnedServerName> = Vec::new();
        for server in servers {
            let useful = server != self.view.server_name && self.client.permits(&server);
            if useful && !distinct.contains(&server) {
                distinct.push(server);
            }
        }
        let mut servers = self.client.by_health(distinct);
        servers.truncate(SERVERS_MAX);
        Ok(servers)
    }

    /// The first success. Ends with a refusal that no other server will reverse, and asks nobody any more when it has taken
    /// [`ROUND_MS`].
    pub(super) async fn ask_each<'a, T, F, R>(
        &'a self,
        room_id: &RoomId,
        servers: &'a [OwnedServerName],
        ask: F,
    ) -> Result<T, HandshakeError>
    where
        F: Fn(&'a ServerName) -> R,
        R: Future<Output = Result<T, HandshakeError>>,
    {
        let until_ms = self.view.env.now_ms() + ROUND_MS;
        let ends = |error: &HandshakeError| error.is_final() || self.view.env.now_ms() >= until_ms;
        self.ask_until(room_id, servers, ask, ends).await
    }

    /// The first success, or what the most telling of all failures was, or the one that ends it.
    pub(super) async fn ask_until<'a, T, F, R>(
        &'a self,
        room_id: &RoomId,
        servers: &'a [OwnedServerName],
        ask: F,
        ends: impl Fn(&HandshakeError) -> bool,
    ) -> Result<T, HandshakeError>
    where
        F: Fn(&'a ServerName) -> R,
        R: Future<Output = Result<T, HandshakeError>>,
    {
        let mut told: Option<HandshakeError> = None;
        for server in servers {
            let error = match ask(server).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tracing::info!(%room_id, %server, %error, "a server does not help");
            let (is_final, ends) = (error.is_final(), ends(&error));
            if is_final || told.as_ref().is_none_or(|told| told.telling() < error.telling()) {
                told = Some(error);
            }
            if ends {
                break;
            }
        }
        Err(told.unwrap_or_else(|| HandshakeError::Nowhere(room_id.to_string())))
    }
}
