//! Joins, knocks, leaves and invites between servers (Server-Server API, "Joining Rooms" and following).

use std::sync::Arc;

use myelin_rooms::Rooms;
use myelin_view::View;

use crate::{Client, Inbound, Keyring};

/// Both sides of each handshake.
#[expect(dead_code, reason = "the fields are for what is being built")]
pub struct Handshakes {
    view: View,
    rooms: Arc<Rooms>,
    client: Arc<Client>,
    keys: Arc<Keyring>,
    inbound: Arc<Inbound>,
}

impl Handshakes {
    pub fn new(
        view: View,
        rooms: Arc<Rooms>,
        client: Arc<Client>,
        keys: Arc<Keyring>,
        inbound: Arc<Inbound>,
    ) -> Self {
        Self { view, rooms, client, keys, inbound }
    }

    /// Completes partially joined rooms.
    pub async fn run(self: Arc<Self>) {}
}
