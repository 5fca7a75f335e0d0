//! Rooms that are being joined: what the others in them send may come before the answer to the join does. It is held
//! until then, as far as it fits, and received as if it came after.
//!
//! Its rows in [`ARRIVING_PDUS`] are written before it is acknowledged, and deleted when it has been received.

use std::{collections::HashMap, sync::Arc};

use futures::FutureExt;
use myelin_core::limits::PDU_SIZE_MAX;
use myelin_store::{
    Batch, CommitError, NidKind,
    tables::{ARRIVING_PDUS, ArrivingPduRecord},
};
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde_json::value::RawValue;

use super::Inbound;

/// PDUs that are held altogether, for one room, and of what one server sends to it.
const ALL_MAX: usize = 1_000;
const OF_ROOM_MAX: usize = 200;
const OF_ORIGIN_MAX: usize = 50;
/// Rows that a former process may have left.
const LEFT_MAX: usize = 10_000;

#[derive(Default)]
pub struct Arriving(Mutex<HashMap<OwnedRoomId, Vec<Held>>>);

type Key = (String, u64);

struct Held {
    key: Key,
    origin: OwnedServerName,
    pdu: Box<RawValue>,
}

/// As long as this is there, the room is being joined. One at a time for each room.
pub struct Arrival {
    inbound: Arc<Inbound>,
    room_id: OwnedRoomId,
}

impl Arriving {
    fn are_to(&self, room_id: &RoomId) -> bool {
        self.0.lock().contains_key(room_id)
    }

    /// Whether it is: `false` also for what does not fit.
    fn hold(&self, room_id: &RoomId, held: Held) -> bool {
        let mut rooms = self.0.lock();
        let all: usize = rooms.values().map(Vec::len).sum();
        let Some(of_room) = rooms.get_mut(room_id) else { return false };
        let of_origin = of_room.iter().filter(|other| other.origin == held.origin).count();
        let fits = all < ALL_MAX && of_room.len() < OF_ROOM_MAX && of_origin < OF_ORIGIN_MAX;
        if fits && held.pdu.get().len() <= PDU_SIZE_MAX {
            of_room.push(held);
            return true;
        }
        false
    }
}

impl Inbound {
    pub(crate) fn expect(self: &Arc<Self>, room_id: &RoomId) -> Arrival {
        self.arriving.0.lock().entry(room_id.to_owned()).or_default();
        Arrival { inbound: self.clone(), room_id: room_id.to_owned() }
    }

    /// Whether the PDU waits for its room to be joined. It may be acknowledged when `batch` is committed.
    pub(super) async fn hold_arriving(
        &self,
        room_id: &RoomId,
        origin: &ServerName,
        pdu: &RawValue,
        batch: &mut Batch,
    ) -> Result<bool, myelin_store::Error> {
        if !self.arriving.are_to(room_id) {
            return Ok(false);
        }
        let key = (room_id.to_string(), self.view.nids.allocate(NidKind::Misc).await?);
        let held = Held { key: key.clone(), origin: origin.to_owned(), pdu: pdu.to_owned() };
        if !self.arriving.hold(room_id, held) {
            return Ok(false);
        }
        let record = ArrivingPduRecord { origin: origin.to_string(), json: pdu.get().to_owned() };
        batch.put(&ARRIVING_PDUS, &key, &record);
        Ok(true)
    }

    /// What a former process held: it may have come into the rooms.
    pub(super) async fn resume_arriving(self: &Arc<Self>) -> Result<(), myelin_store::Error> {
        let rows = self.view.store.read().all(&ARRIVING_PDUS, LEFT_MAX).await?;
        let held = rows.into_iter().filter_map(|(key, ArrivingPduRecord { origin, json })| {
            let pdu = RawValue::from_string(json).ok()?;
            Some(Held { key, origin: origin.try_into().ok()?, pdu })
        });
        let held: Vec<_> = held.collect();
        if !held.is_empty() {
            self.clone().receive_held(held).await;
        }
        Ok(())
    }

    async fn receive_held(self: Arc<Self>, held: Vec<Held>) {
        let mut of_origins: Vec<(OwnedServerName, Vec<Key>, Vec<Box<RawValue>>)> = Vec::new();
        for Held { key, origin, pdu } in held {
            match of_origins.iter_mut().find(|(known, ..)| *known == origin) {
                Some((_, keys, pdus)) => {
                    keys.push(key);
                    pdus.push(pdu);
                }
                None => of_origins.push((origin, vec![key], vec![pdu])),
            }
        }
        for (origin, keys, pdus) in of_origins {
            let received = match self.receive_pdus(&origin, &pdus).await {
                Ok(_) => self.forget_arriving(&keys).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = received {
                tracing::warn!(%origin, error, "what came during a join waits for the next start");
            }
        }
    }

    async fn forget_arriving(&self, keys: &[Key]) -> Result<(), CommitError> {
        let mut batch = Batch::new();
        keys.iter().for_each(|key| batch.delete(&ARRIVING_PDUS, key));
        self.view.store.commit(batch).await.map(drop)
    }
}

impl Drop for Arrival {
    /// Whether the join succeeded is seen by whether the room is there.
    fn drop(&mut self) {
        let held = self.inbound.arriving.0.lock().remove(&self.room_id).unwrap_or_default();
        if !held.is_empty() {
            let task = self.inbound.clone().receive_held(held);
            self.inbound.view.env.spawner.spawn("events of a joined room", task.boxed());
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[test]
    fn what_is_held_has_limits() {
        let (arriving, room) = (Arriving::default(), room_id!("!r:a.test"));
        let pdu = RawValue::from_string("{}".to_owned()).expect("JSON");
        let held = |server: &str, pdu: &RawValue| Held {
            key: (room.to_string(), 0),
            origin: server.try_into().expect("a server name"),
            pdu: pdu.to_owned(),
        };
        let hold = |server: &str| arriving.hold(room, held(server, &pdu));
        assert!(!hold("a.test"), "nobody joins it");
        arriving.0.lock().insert(room.to_owned(), Vec::new());
        assert!((0..OF_ORIGIN_MAX).all(|_| hold("a.test")) && !hold("a.test"));
        let others = (OF_ORIGIN_MAX..OF_ROOM_MAX).all(|number| hold(&format!("{number}.test")));
        assert!(others && !hold("b.test"));
        let large = RawValue::from_string(format!("\"{}\"", "x".repeat(PDU_SIZE_MAX))).expect("JSON");
        let other = room_id!("!other:a.test");
        arriving.0.lock().insert(other.to_owned(), Vec::new());
        assert!(!arriving.hold(other, held("a.test", &large)) && arriving.hold(other, held("a.test", &pdu)));
    }
}
