//! EDUs from other servers (Server-Server API, "EDUs").

use std::sync::Arc;

use myelin_sync::Sync;
use myelin_users::Users;
use myelin_view::View;

use crate::Client;

/// Takes in what is ephemeral, and what is durable but not in a room.
#[expect(dead_code, reason = "the fields are for what is being built")]
pub struct Edus {
    view: View,
    users: Arc<Users>,
    sync: Arc<Sync>,
    client: Arc<Client>,
}

impl Edus {
    pub fn new(view: View, users: Arc<Users>, sync: Arc<Sync>, client: Arc<Client>) -> Self {
        Self { view, users, sync, client }
    }
}
