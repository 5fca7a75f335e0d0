//! Loaded events, parsed once, in a cache bounded by bytes.

use std::{convert::Infallible, sync::Arc};

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
            let event = Event::from_row(nids[index], row, &room)?;
            events[index] = Some(self.keep(Arc::new(event)));
        }
        Ok(events)
    }

    /// Puts an event from the store into the cache, unless it is there by now: that one may have been redacted since
    /// the row was read.
    fn keep(&self, event: Arc<Event>) -> Arc<Event> {
        let kept = self.cache.get_or_insert_with(&event.nid, || Ok::<_, Infallible>(event.clone()));
        kept.unwrap_or(event)
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
}

#[cfg(test)]
mod tests {
    use myelin_core::{RoomNid, UserNid};
    use myelin_dag::{pdu::Pdu, room_version};
    use myelin_store::{NidAllocator, memory::Memory, tables::VerdictRecord};
    use ruma::RoomVersionId;

    use super::*;

    const MESSAGE: &str = r#"{"auth_events":[],"content":{"body":"hi"},"depth":1,"hashes":{"sha256":"x"},"origin_server_ts":1,"prev_events":[],"room_id":"!r:example.org","sender":"@a:example.org","signatures":{},"type":"m.room.message"}"#;

    #[test]
    fn what_was_read_before_a_redaction_does_not_replace_it() {
        let store = Store::new(Arc::new(Memory::open(Default::default())));
        let nids = Arc::new(NidAllocator::new(store.clone()));
        let interner = Interner::new(store.clone(), nids, ruma::owned_server_name!("example.org"));
        let events = Events::new(store, Arc::new(interner));
        let rules = room_version::rules(&RoomVersionId::V11).expect("version 11");
        let pdu = Pdu::parse(MESSAGE.into(), ruma::owned_event_id!("$e"), &rules).expect("a PDU");
        let (nid, pdu) = (EventNid(5), Arc::new(pdu));
        let accepted = VerdictRecord::Accepted;
        let read = Event::new(nid, RoomNid(1), UserNid(1), None, None, accepted, None, pdu.clone());

        events.insert(Arc::new(read.redacted(pdu, EventNid(6))));
        let kept = events.keep(Arc::new(read));
        assert_eq!(kept.redacted_by, Some(EventNid(6)));
        let held = events.cache.get(&nid).expect("held");
        assert_eq!(held.redacted_by, Some(EventNid(6)));
    }
}
