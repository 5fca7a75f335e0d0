//! Rooms that are being joined: what the others in them send may come before the answer to the join does. It is held in
//! memory until then, as far as it fits, and received as if it came after.

use std::{collections::HashMap, sync::Arc};

use futures::FutureExt;
use myelin_core::limits::PDU_SIZE_MAX;
use parking_lot::Mutex;
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde_json::value::RawValue;

use super::Inbound;

/// PDUs that are held altogether, for one room, and of what one server sends to it.
const ALL_MAX: usize = 1_000;
const OF_ROOM_MAX: usize = 200;
const OF_ORIGIN_MAX: usize = 50;

#[derive(Default)]
pub struct Arriving(Mutex<HashMap<OwnedRoomId, Vec<Held>>>);

struct Held {
    origin: OwnedServerName,
    pdu: Box<RawValue>,
}

/// As long as this is there, the room is being joined. One at a time for each room.
pub struct Arrival {
    inbound: Arc<Inbound>,
    room_id: OwnedRoomId,
}

impl Arriving {
    /// Whether it is: `false` also for what does not fit.
    pub fn hold(&self, room_id: &RoomId, origin: &ServerName, pdu: &RawValue) -> bool {
        let mut rooms = self.0.lock();
        let all: usize = rooms.values().map(Vec::len).sum();
        let Some(held) = rooms.get_mut(room_id) else { return false };
        let of_origin = held.iter().filter(|held| held.origin == origin).count();
        let fits = all < ALL_MAX && held.len() < OF_ROOM_MAX && of_origin < OF_ORIGIN_MAX;
        if fits && pdu.get().len() <= PDU_SIZE_MAX {
            held.push(Held { origin: origin.to_owned(), pdu: pdu.to_owned() });
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

    async fn receive_held(self: Arc<Self>, held: Vec<Held>) {
        let mut of_origins: Vec<(OwnedServerName, Vec<Box<RawValue>>)> = Vec::new();
        for Held { origin, pdu } in held {
            match of_origins.iter_mut().find(|(known, _)| *known == origin) {
                Some((_, pdus)) => pdus.push(pdu),
                None => of_origins.push((origin, vec![pdu])),
            }
        }
        for (origin, pdus) in of_origins {
            if let Err(error) = self.receive_pdus(&origin, &pdus).await {
                tracing::warn!(%origin, %error, "what came during a join is lost");
            }
        }
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
    use ruma::{room_id, server_name};

    use super::*;

    #[test]
    fn what_is_held_has_limits() {
        let (arriving, room) = (Arriving::default(), room_id!("!r:a.test"));
        let pdu = RawValue::from_string("{}".to_owned()).expect("JSON");
        let hold = |server: &str| {
            let server = <&ServerName>::try_from(server).expect("a server name");
            arriving.hold(room, server, &pdu)
        };
        assert!(!hold("a.test"), "nobody joins it");
        arriving.0.lock().insert(room.to_owned(), Vec::new());
        assert!((0..OF_ORIGIN_MAX).all(|_| hold("a.test")) && !hold("a.test"));
        let others = (OF_ORIGIN_MAX..OF_ROOM_MAX).all(|number| hold(&format!("{number}.test")));
        assert!(others && !hold("b.test"));
        let large = RawValue::from_string(format!("\"{}\"", "x".repeat(PDU_SIZE_MAX))).expect("JSON");
        let other = room_id!("!other:a.test");
        arriving.0.lock().insert(other.to_owned(), Vec::new());
        assert!(!arriving.hold(other, server_name!("a.test"), &large));
        assert!(arriving.hold(other, server_name!("a.test"), &pdu));
    }
}
