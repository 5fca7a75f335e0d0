//! Signing keys of servers (Server-Server API, "Retrieving server keys").

use std::sync::Arc;

use myelin_dag::SigningKey;
use myelin_view::View;

use crate::Client;

/// The keys of other servers, and this server's own as others see them.
#[expect(dead_code, reason = "the fields are for what is being built")]
pub struct Keyring {
    view: View,
    client: Arc<Client>,
    key: Arc<SigningKey>,
}

impl Keyring {
    pub fn new(view: View, client: Arc<Client>, key: Arc<SigningKey>) -> Self {
        Self { view, client, key }
    }
}
