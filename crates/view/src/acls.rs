//! Server ACLs of hot rooms, read once per `m.room.server_acl` event.

use std::sync::Arc;

use myelin_core::EventNid;
use myelin_dag::acl::ServerAcl;
use quick_cache::sync::Cache;
use ruma::ServerName;

use crate::{Error, RoomSnapshot, View};

const ACLS_MAX: usize = 2_000;

/// By event: what an event says never changes, except by a redaction, which an ACL survives.
pub struct Acls(Cache<EventNid, Arc<ServerAcl>>);

impl Acls {
    pub(crate) fn new() -> Self {
        Self(Cache::new(ACLS_MAX))
    }
}

impl View {
    /// Whether the room's server ACL lets `server` take part.
    pub async fn permits(&self, room: &RoomSnapshot, server: &ServerName) -> Result<bool, Error> {
        let Some(key) = self.interner.lookup_state_key("m.room.server_acl", "").await? else {
            return Ok(true);
        };
        let Some(nid) = room.current_state.get(key) else { return Ok(true) };
        if let Some(acl) = self.acls.0.get(&nid) {
            return Ok(acl.permits(server));
        }
        let Some(event) = self.events.load(nid).await? else { return Ok(true) };
        let acl = Arc::new(ServerAcl::of(&event.pdu.content));
        self.acls.0.insert(nid, acl.clone());
        Ok(acl.permits(server))
    }
}
