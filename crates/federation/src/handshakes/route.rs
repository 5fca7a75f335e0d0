//! Whom to ask: the servers that a client names, those that are known to be in the room, and the one in the room id. They
//! are asked one after the other.

use std::{future::Future, time::Duration};

use ruma::{OwnedServerName, RoomId, ServerName, UserId};

use super::{HandshakeError, Handshakes};
use crate::Budget;

/// Servers asked for one wish.
const SERVERS_MAX: usize = 12;
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
        let mut servers = via.to_vec();
        if let Some(outside) = self.rooms.outside(user_id, room_id).await? {
            servers.push(outside.event.pdu.sender.server_name().to_owned());
            servers.extend(outside.servers);
        }
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

    /// The first success. A refusal by the room itself is told in preference to whatever the others failed with.
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
        let mut refusal = None;
        let mut failure = None;
        for server in servers {
            match ask(server).await {
                Ok(answer) => return Ok(answer),
                Err(error @ HandshakeError::Rooms(myelin_rooms::Error::Store(_))) => return Err(error),
                Err(error) => {
                    tracing::info!(%room_id, %server, %error, "a server does not help");
                    let kept = if error.is_final() { &mut refusal } else { &mut failure };
                    kept.get_or_insert(error);
                }
            }
        }
        Err(refusal.or(failure).unwrap_or_else(|| HandshakeError::Nowhere(room_id.to_string())))
    }
}
