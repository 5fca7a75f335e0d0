//! What waits in a storm is bounded, whatever happens: rows and memory of the queues of each server.

use std::collections::BTreeMap;

use myelin_federation::{
    inbound::{WAITING_MAX, WAITING_OF_ORIGIN_MAX, WAITING_OF_ROOM_MAX},
    sender::{QUEUED_PDUS_MAX, QUEUED_RECEIPTS_MAX, QUEUED_RECEIPTS_SLACK},
};
use myelin_store::tables::INBOUND_PDUS;

use super::Storm;
use crate::{network::TRANSACTION_PDUS_MAX, server::Server};

impl Storm {
    pub(super) fn check_bounds(&self) {
        for (name, server) in self.world.running() {
            let over = self.world.run(over_bounds(&server));
            assert!(over.is_empty(), "seed {}: {name}: {}", self.world.seed(), over.join("\n"));
        }
    }
}

/// What waits for more than it may, to be read by people.
async fn over_bounds(server: &Server) -> Vec<String> {
    let (mut of_rooms, mut of_origins) = (BTreeMap::new(), BTreeMap::new());
    let rows = server.view.store.read().all(&INBOUND_PDUS, 2 * WAITING_MAX).await.expect("readable");
    for ((room, _, origin), _) in &rows {
        *of_rooms.entry(*room).or_insert(0) += 1;
        *of_origins.entry(origin).or_insert(0) += 1;
    }
    let rooms = of_rooms.iter().map(|(room, count)| (format!("{room:?}"), *count, WAITING_OF_ROOM_MAX));
    let origins = of_origins.iter().map(|(origin, n)| (origin.to_string(), *n, WAITING_OF_ORIGIN_MAX));
    let all = [
        ("rows of PDUs that lack something".to_owned(), rows.len(), WAITING_MAX),
        ("PDUs in memory that lack something".to_owned(), server.federation.inbound.waiting(), WAITING_MAX),
    ];
    let destinations = server.federation.sender.destinations().into_iter().flat_map(|report| {
        // What was under way goes back to the others when it is refused.
        let pdus_max = QUEUED_PDUS_MAX + 2 * TRANSACTION_PDUS_MAX;
        let receipts_max = QUEUED_RECEIPTS_MAX + QUEUED_RECEIPTS_SLACK;
        [
            (format!("events for {}", report.server), report.waiting.events, pdus_max),
            (format!("receipts for {}", report.server), report.waiting.receipts, receipts_max),
        ]
    });
    let counts = rooms.chain(origins).chain(all).chain(destinations);
    let over = counts.filter(|(_, count, max)| count > max);
    over.map(|(what, count, max)| format!("{what}: {count} of at most {max}")).collect()
}
