//! The federation sender: one queue per destination, derived from the log and a cursor (DESIGN 1 and 2).

use std::sync::Arc;

use myelin_view::View;

use crate::{Client, Peers};

/// Brings events and EDUs to other servers.
#[expect(dead_code, reason = "the fields are for what is being built")]
pub struct Sender {
    view: View,
    client: Arc<Client>,
    peers: Arc<Peers>,
}

impl Sender {
    pub fn new(view: View, client: Arc<Client>, peers: Arc<Peers>) -> Self {
        Self { view, client, peers }
    }

    /// Follows the log for ever.
    pub async fn run(self: Arc<Self>) {}
}
