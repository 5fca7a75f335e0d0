//! Loaded events, parsed once, in a cache bounded by bytes.

use std::sync::Arc;

use myelin_core::EventNid;
use myelin_store::{Store, tables::EVENTS};
use quick_cache::{Weighter, sync::Cache};
use ruma::EventId;

use crate::{Error, Event, Interner};

const CACHE_BYTES: u64 = 24 * 1024 * 1024;
const EXPECTED_EVENTS: usize = 10_000;

#[derive(Clone)]
struct ByBytes;

impl Weighter<EventNid, Arc<Event>> for ByBytes {
    fn weight(&self, _: &EventNid, event: &Arc<Event>) -> u64 {
        event.weight() as u64
    }
}

pub struct Events {
    store: Store,
    interner: Arc<Interner>,
    cache: Cache<EventNid, Arc<Event>, ByBytes>,
}

impl Events {
    pub fn new(store: Store, interner: Arc<Interner>) -> Self {
        Self { store, interner, cache: Cache::with_weighter(EXPECTED_EVENTS, CACHE_BYTES, ByBytes) }
    }

    pub async fn load(&self, nid: EventNid) -> Result<Option<Arc<Event>>, Error> {
        if let Some(event) = self.cache.get(&nid) {
            return Ok(Some(event));
        }
        Ok(self.load_many(&[nid]).await?.pop().flatten())
    }

    /// One answer per nid, in order.
    pub async fn load_many(&self, nids: &[EventNid]) -> Result<Vec<Option<Arc<Event>>>, Error> {
        let mut events: Vec<_> = nids.iter().map(|nid| self.cache.get(nid)).collect();
        let missing: Vec<_> = (0..nids.len()).filter(|i| events[*i].is_none()).collect();
        if missing.is_empty() {
            return Ok(events);
        }
        let keys: Vec<_> = missing.iter().map(|i| nids[*i]).collect();
        let rows = self.store.multi_get(&EVENTS, &keys).await?;
        for (index, row) in missing.into_iter().zip(rows) {
            let Some(row) = row else { continue };
            let room = self.interner.room_info(row.value.room).await?;
            let room = room.ok_or_else(|| Error::Damaged(format!("{:?} has no room", nids[index])))?;
            let event = Arc::new(Event::from_row(nids[index], row, &room)?);
            self.cache.insert(nids[index], event.clone());
            events[index] = Some(event);
        }
        Ok(events)
    }

    pub async fn load_by_id(&self, event_id: &EventId) -> Result<Option<Arc<Event>>, Error> {
        match self.interner.lookup_event(event_id).await? {
            Some(nid) => self.load(nid).await,
            None => Ok(None),
        }
    }

    /// Puts an event into the cache: before its commit (nobody can ask for it yet), and again when it is placed or
    /// redacted.
    pub fn insert(&self, event: Arc<Event>) {
        self.cache.insert(event.nid, event);
    }

    /// Takes an event out whose commit failed, or that another process rewrote.
    pub fn forget(&self, nid: EventNid) {
        self.cache.remove(&nid);
    }

    /// Whether this process has the event in memory; it has if it made it a moment ago.
    pub fn holds(&self, nid: EventNid) -> bool {
        self.cache.peek(&nid).is_some()
    }
}
