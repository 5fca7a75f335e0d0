//! What has to arrive at another server besides events: to-device messages and device lists.
//!
//! The rows are truly targeted, so there is one per server and EDU. Their order is that of the log; the federation
//! sender takes them from there, before everything else, and deletes them when the server has answered.

use myelin_core::Position;

use crate::{
    Batch,
    log::LogEntry,
    tables::{OUTBOX, OutboxRecord},
};

/// Lays an EDU for `server` into `batch`, with the log entry that wakes the sender. `json` is its content; EDUs to one
/// server arrive in the order in which they are put.
pub fn put(batch: &mut Batch, server: &str, edu_type: &str, json: String) -> Position {
    let position = batch.log(&LogEntry::Outbox { server: server.to_owned() });
    let record = OutboxRecord { edu_type: edu_type.to_owned(), json };
    batch.put(&OUTBOX, &(server.to_owned(), position), &record);
    position
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::executor::block_on;

    use super::*;
    use crate::{Direction, Store, memory::Memory};

    #[test]
    fn edus_keep_their_order_and_their_server() {
        let store = Store::new(Arc::new(Memory::open(Default::default())));
        let mut batch = Batch::new();
        put(&mut batch, "b.test", "m.direct_to_device", r#"{"n":1}"#.to_owned());
        put(&mut batch, "c.test", "m.direct_to_device", r#"{"n":2}"#.to_owned());
        put(&mut batch, "b.test", "m.device_list_update", r#"{"n":3}"#.to_owned());
        block_on(store.commit(batch)).expect("committed");
        let server = "b.test".to_owned();
        let rows = store.scan(&OUTBOX, &server, Direction::Forward, 10);
        let rows = block_on(rows).expect("readable");
        let contents: Vec<_> = rows.iter().map(|(_, record)| record.json.as_str()).collect();
        assert_eq!(contents, [r#"{"n":1}"#, r#"{"n":3}"#]);
    }
}
