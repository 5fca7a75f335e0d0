//! Transactions from other servers (Server-Server API, "Transactions").

use std::sync::Arc;

use myelin_rooms::Rooms;
use myelin_view::View;

use crate::{Client, Edus, Keyring};

/// Takes transactions in: each PDU goes to the bounded queue of its room.
#[expect(dead_code, reason = "the fields are for what is being built")]
pub struct Inbound {
    view: View,
    rooms: Arc<Rooms>,
    client: Arc<Client>,
    keys: Arc<Keyring>,
    edus: Arc<Edus>,
}

impl Inbound {
    pub fn new(
        view: View,
        rooms: Arc<Rooms>,
        client: Arc<Client>,
        keys: Arc<Keyring>,
        edus: Arc<Edus>,
    ) -> Self {
        Self { view, rooms, client, keys, edus }
    }

    /// Goes on with what was queued when the process ended.
    pub async fn run(self: Arc<Self>) {}
}
