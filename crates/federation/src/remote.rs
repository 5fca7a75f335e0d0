//! What local users look up on other servers: aliases, room directories, profiles, spaces.

use std::sync::Arc;

use crate::Client;

/// Look-ups elsewhere.
#[expect(dead_code, reason = "the fields are for what is being built")]
pub struct Remote {
    client: Arc<Client>,
}

impl Remote {
    pub fn new(client: Arc<Client>) -> Self {
        Self { client }
    }
}
