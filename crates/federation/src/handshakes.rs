//! Joins, knocks, leaves and invites between servers (Server-Server API, "Joining Rooms" and following).
//!
//! As the resident server: [`resident`] (templates, and the events made from them), [`invited`] (invites to local users).
//! As the asking server: [`join`], [`knock`], [`leave`], [`invite`]; [`route`] says whom to ask, and goes from one to the
//! next. Each is a task of its own ([`under_way`]).
//!
//! Must not know: the HTTP framework, or how rooms are stored.

mod completing;
mod early;
mod error;
mod given_state;
mod invite;
mod invited;
mod join;
mod key_validity;
mod knock;
mod leave;
mod resident;
mod route;
mod stripped;
mod third_party;
mod under_way;
mod verify;

use std::{collections::HashMap, sync::Arc};

use myelin_core::RoomNid;
use myelin_rooms::Rooms;
use myelin_view::View;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};

pub use self::{
    completing::Tries,
    error::HandshakeError,
    invited::InviteRequest,
    join::JoinRequest,
    resident::SendJoin,
    third_party::{BoundInvite, PartialInvite},
};
use crate::{Client, Inbound};

/// Both sides of each handshake.
pub struct Handshakes {
    view: View,
    rooms: Arc<Rooms>,
    client: Arc<Client>,
    inbound: Arc<Inbound>,
    joins: under_way::Joins,
    /// Rooms that are being joined: a second local user waits, and then finds the room here.
    joining: Mutex<HashMap<OwnedRoomId, Arc<tokio::sync::Mutex<()>>>>,
    /// A room was joined partially.
    partial: tokio::sync::Notify,
    /// Rooms that could not be completed yet.
    incomplete: Mutex<HashMap<RoomNid, Tries>>,
    /// A state of so many events at most is given whole to servers that join.
    whole_state_max: usize,
}

/// Completing a state that is no larger later would cost more.
pub const WHOLE_STATE_MAX: usize = 100;

impl Handshakes {
    pub fn new(
        view: View,
        rooms: Arc<Rooms>,
        client: Arc<Client>,
        inbound: Arc<Inbound>,
        whole_state_max: usize,
    ) -> Self {
        let (joins, joining, partial, incomplete) = Default::default();
        Self { view, rooms, client, inbound, joins, joining, partial, incomplete, whole_state_max }
    }

    async fn turn_at(&self, room_id: &RoomId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut joining = self.joining.lock();
            joining.retain(|_, turn| Arc::strong_count(turn) > 1);
            joining.entry(room_id.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}
