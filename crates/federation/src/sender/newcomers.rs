//! What a server that comes into a room is sent beside what is said from then on.
//!
//! - The ends of the room that were made here and that its join does not come after: whoever made them did not know of
//!   the join. Mostly the next event brings them along as ancestors; but there is none if nobody here may speak any more
//!   (the room was closed, or upgraded), and then nobody else can bring them either.
//! - What was made here and is sticky (MSC4354).

use myelin_core::{EventNid, Position, RoomNid};
use myelin_store::{log::LogEntry, tables::SERVER_ROOMS};
use myelin_view::{Error, RoomSnapshot, View};
use ruma::{OwnedServerName, ServerName};

use super::{
    routing::{Item, Routing, own_sticky},
    transaction::PendingPdu,
};
use crate::serve::sight::Sight;

impl Routing {
    /// For an entry by which servers come into a room, be it that state resolution brings them back.
    pub async fn newcomers(&self, position: Position, entry: &LogEntry) -> Result<Vec<Item>, Error> {
        let (room, user) = match entry {
            LogEntry::Event { room, member: Some(user), .. } => (*room, Some(*user)),
            LogEntry::Resolved { room, user: None } => (*room, None),
            _ => return Ok(Vec::new()),
        };
        if let Some(user) = user
            && self.view.interner.is_local(user).await?
        {
            return Ok(Vec::new());
        }
        let sticky = self.view.sticky.of_room(room, Position::ZERO, position).await?;
        let Some(room) = self.view.rooms.load(room).await? else { return Ok(Vec::new()) };
        if sticky.is_empty() && room.head.extremities.len() < 2 {
            return Ok(Vec::new());
        }
        let servers = match user {
            Some(user) => vec![self.view.interner.user_id(user).await?.server_name().to_owned()],
            None => room.servers.keys().cloned().collect(),
        };
        let sticky = own_sticky(&self.view, &sticky).await?;
        let mut items = Vec::new();
        for server in self.joined_at(position, room.nid(), servers).await? {
            let ends = unheard_ends(&self.view, &room, position, &server).await?;
            let pdus = ends.into_iter().chain(sticky.iter().copied());
            let pdus: Vec<_> = pdus.map(|event| PendingPdu { position, event, targeted: true }).collect();
            if !pdus.is_empty() {
                items.push(Item::Newcomer { server, pdus });
            }
        }
        Ok(items)
    }

    /// Those of some servers that are in the room since then.
    async fn joined_at(
        &self,
        position: Position,
        room: RoomNid,
        mut servers: Vec<OwnedServerName>,
    ) -> Result<Vec<OwnedServerName>, Error> {
        servers.retain(|server| *server != self.view.server_name);
        let keys: Vec<_> = servers.iter().map(|server| (server.to_string(), room)).collect();
        let rows = self.view.store.multi_get(&SERVER_ROOMS, &keys).await?;
        let came = servers.into_iter().zip(rows).filter_map(|(server, row)| {
            row.filter(|row| row.value.joined && row.position == position).map(|_| server)
        });
        Ok(came.collect())
    }
}

/// Forward extremities of before, as far as users of that server may see them.
async fn unheard_ends(
    view: &View,
    room: &RoomSnapshot,
    position: Position,
    server: &ServerName,
) -> Result<Vec<EventNid>, Error> {
    if room.head.extremities.len() < 2 {
        return Ok(Vec::new());
    }
    let mut sight = Sight::new(view, room, server).await?;
    let mut ends = Vec::new();
    for event in view.events.load_many(&room.head.extremities).await?.into_iter().flatten() {
        let before = event.order.and_then(|order| order.position()).is_some_and(|at| at < position);
        let own = event.accepted() && view.interner.is_local(event.sender).await?;
        if before && own && sight.sees(&event).await? {
            ends.push(event.nid);
        }
    }
    Ok(ends)
}
