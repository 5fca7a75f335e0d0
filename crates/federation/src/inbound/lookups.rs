//! The keys that queued events lack are looked for outside the turns of their rooms: who claims to be of a server that
//! does not answer holds up nobody else.

use std::sync::Arc;

use futures::FutureExt;
use myelin_core::RoomNid;
use quick_cache::sync::Cache;
use ruma::{EventId, OwnedServerName, ServerName};
use tokio::sync::Semaphore;

use super::{Inbound, queue::Entry};
use crate::keys::Wanted;

/// Events that one server brought whose keys are looked for at the same time: no more than the keyring looks for at once on
/// behalf of one, or they would have been waited for in vain.
const OF_ORIGIN_AT_ONCE: usize = 8;
const ORIGINS_MAX: usize = 10_000;

pub struct Lookups(Cache<OwnedServerName, Arc<Semaphore>>);

impl Default for Lookups {
    fn default() -> Self {
        Self(Cache::new(ORIGINS_MAX))
    }
}

impl Lookups {
    fn of(&self, origin: &ServerName) -> Arc<Semaphore> {
        let lanes = || Arc::new(Semaphore::new(OF_ORIGIN_AT_ONCE));
        let new = || Ok::<_, std::convert::Infallible>(lanes());
        self.0.get_or_insert_with(origin, new).unwrap_or_else(|_| lanes())
    }
}

impl Inbound {
    /// In the background: then the event has its turn.
    pub(super) fn look_for_keys(
        self: &Arc<Self>,
        room: RoomNid,
        id: &EventId,
        entry: &Entry,
        wanted: Vec<Wanted>,
    ) {
        let (this, id, entry) = (self.clone(), id.to_owned(), entry.clone());
        let task = async move {
            let lanes = this.lookups.of(&entry.origin);
            let lane = lanes.acquire().await;
            this.keys.bring_brought_by(&entry.origin, &wanted).await;
            drop(lane);
            this.queue.looked(room, &id, &entry);
        };
        self.view.env.spawner.spawn("keys of a queued event", task.boxed());
    }
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn each_origin_has_lanes_of_its_own() {
        let lookups = Lookups::default();
        let taken: Vec<_> = (0..OF_ORIGIN_AT_ONCE)
            .map(|_| lookups.of(server_name!("a.test")).try_acquire_owned().expect("a lane"))
            .collect();
        assert!(lookups.of(server_name!("a.test")).try_acquire_owned().is_err());
        assert!(lookups.of(server_name!("b.test")).try_acquire_owned().is_ok());
        drop(taken);
        assert!(lookups.of(server_name!("a.test")).try_acquire_owned().is_ok());
    }
}
