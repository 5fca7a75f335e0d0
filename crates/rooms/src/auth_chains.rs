//! Auth chains of state events, loaded and kept.

use std::sync::Arc;

use myelin_core::EventNid;
use myelin_dag::AuthChain;
use myelin_store::{Store, tables::AUTH_CHAINS};
use quick_cache::{Weighter, sync::Cache};

use crate::Error;

/// Sum of the lengths of the chains kept, plus a constant each.
const CACHE_WEIGHT: u64 = 2_000_000;
const EXPECTED_CHAINS: usize = 20_000;
const WEIGHT_OF_A_CHAIN: u64 = 16;

#[derive(Clone)]
struct ByLength;

impl Weighter<EventNid, Arc<AuthChain>> for ByLength {
    fn weight(&self, _: &EventNid, chain: &Arc<AuthChain>) -> u64 {
        chain.len() + WEIGHT_OF_A_CHAIN
    }
}

pub struct AuthChains {
    store: Store,
    cache: Cache<EventNid, Arc<AuthChain>, ByLength>,
}

impl AuthChains {
    pub fn new(store: Store) -> Self {
        Self { store, cache: Cache::with_weighter(EXPECTED_CHAINS, CACHE_WEIGHT, ByLength) }
    }

    /// One chain per event, in order.
    pub async fn load_many(&self, events: &[EventNid]) -> Result<Vec<Arc<AuthChain>>, Error> {
        let chains = self.lookup_many(events).await?;
        let chains = events.iter().zip(chains).map(|(event, chain)| {
            chain.ok_or_else(|| Error::damaged(format!("{event:?} has no auth chain")))
        });
        chains.collect()
    }

    /// One answer per event, in order. Events that are held without those that authorise them (an invite to a room
    /// elsewhere) have none.
    pub async fn lookup_many(&self, events: &[EventNid]) -> Result<Vec<Option<Arc<AuthChain>>>, Error> {
        let mut chains: Vec<_> = events.iter().map(|event| self.cache.get(event)).collect();
        let missing: Vec<_> = (0..events.len()).filter(|i| chains[*i].is_none()).collect();
        if !missing.is_empty() {
            let keys: Vec<_> = missing.iter().map(|i| events[*i]).collect();
            let rows = self.store.multi_get(&AUTH_CHAINS, &keys).await?;
            for (index, bytes) in missing.into_iter().zip(rows) {
                let event = events[index];
                let Some(bytes) = bytes else { continue };
                let chain = AuthChain::from_bytes(&bytes);
                let chain = Arc::new(chain.map_err(|e| Error::damaged(format!("{event:?}: {e}")))?);
                self.cache.insert(event, chain.clone());
                chains[index] = Some(chain);
            }
        }
        Ok(chains)
    }

    /// Keeps a chain that was made here. Numbers are never reused, so one of a failed commit does no harm.
    pub fn insert(&self, event: EventNid, chain: Arc<AuthChain>) {
        self.cache.insert(event, chain);
    }
}
