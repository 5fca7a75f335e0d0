//! EDUs from other servers (Server-Server API, "EDUs").

use std::sync::Arc;

use myelin_sync::Sync;
use myelin_users::Users;
use myelin_view::View;
use ruma::ServerName;
use serde_json::value::RawValue;

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

    /// Takes in one EDU that `origin` sent. What is not understood, or not the origin's to say, is passed over.
    pub async fn receive(&self, origin: &ServerName, edu_type: &str, _content: &RawValue) {
        tracing::trace!(%origin, edu_type, "an EDU");
    }
}
