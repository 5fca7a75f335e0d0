//! The room engine: the only writer of rooms (DESIGN 3).
//!
//! Everything that changes a room goes one way: a *command* ([`commands`]) acts on a draft of the room's newest head,
//! the draft becomes one batch, and the batch commits if the head is still the same. What is acknowledged is durable.
//!
//! Must not know: HTTP, sessions, how the rooms are read.

mod auth_chains;
mod authorise;
mod commands;
pub mod delayed;
mod directory;
mod error;
mod foreign;
mod outliers;
mod policy;
mod power_levels;
mod profile;
mod receive;
mod relations;
mod resolution;
pub mod retention;
mod runs;
mod sender;
pub mod server_notices;
pub mod trimming;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use myelin_core::EventNid;
use myelin_dag::{AuthChain, SigningKey};
use myelin_view::{RoomSnapshot, View};
use ruma::RoomId;

use self::{
    auth_chains::AuthChains,
    resolution::Resolutions,
    writer::{Transactions, Writers},
};
pub use self::{
    commands::{
        create::{CreateRoom, InitialState, Preset},
        join::Join,
        membership::MembershipChange,
        upgrade::Upgrade,
    },
    directory::{
        Visibility,
        listing::{Page, PublicRoom, PublicRoomsQuery},
    },
    error::Error,
    foreign::{
        Adoption, Beside, Completion, Given, Invitation, JoinAnswer, LeftOut, Outside, Partial, ProtoEvent,
        Taken, Template, ThirdPartyInvite,
    },
    outliers::Outliers,
    policy::{NoPolicyServers, PolicyServers, PolicySignatures},
    receive::{EXTREMITIES_MAX, Incoming, Placing, Received},
    runs::run_member_upkeep,
    sender::{Sender, Transaction},
};

/// The engine of one process. Any number of processes may write the same rooms.
pub struct Rooms {
    view: View,
    key: Arc<SigningKey>,
    writers: Arc<Writers>,
    transactions: Transactions,
    chains: AuthChains,
    resolutions: Arc<Resolutions>,
    policy_servers: Arc<dyn PolicyServers>,
    delayed: delayed::Delayed,
}

impl Rooms {
    /// `key` signs every event made here.
    pub fn new(view: View, key: Arc<SigningKey>, policy_servers: Arc<dyn PolicyServers>) -> Self {
        let chains = AuthChains::new(view.store.clone());
        let (writers, transactions, resolutions, delayed) = Default::default();
        Self { view, key, writers, transactions, chains, resolutions, policy_servers, delayed }
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// The auth chain of each of these events; empty where it is not known.
    pub async fn auth_chains(&self, events: &[EventNid]) -> Result<Vec<Arc<AuthChain>>, Error> {
        let chains = self.chains.lookup_many(events).await?;
        Ok(chains.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// The newest durable snapshot of a room that this server holds.
    async fn room(&self, room_id: &RoomId) -> Result<Arc<RoomSnapshot>, Error> {
        self.view.room_by_id(room_id).await?.ok_or_else(|| Error::unknown_room(room_id))
    }
}
