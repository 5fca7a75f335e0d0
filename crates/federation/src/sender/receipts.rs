//! Public receipts on their way: the newest of each user, room and thread.

use std::{collections::BTreeMap, sync::Arc};

use myelin_core::{Position, RoomNid, UserNid};
use serde_json::{Map, Value, json};

use super::transaction;

/// The type that other servers hear of.
pub const PUBLIC: &str = "m.read";

#[derive(Debug)]
pub struct Receipt {
    pub position: Position,
    pub room: RoomNid,
    pub user: UserNid,
    /// "" for none.
    pub thread_id: String,
    pub room_id: String,
    pub user_id: String,
    pub event_id: String,
    pub ts_ms: u64,
}

impl Receipt {
    pub fn key(&self) -> (RoomNid, UserNid, String) {
        (self.room, self.user, self.thread_id.clone())
    }

    fn content(&self) -> Value {
        let mut data = json!({ "ts": self.ts_ms });
        if !self.thread_id.is_empty() {
            data["thread_id"] = self.thread_id.clone().into();
        }
        json!({ "event_ids": [self.event_id], "data": data })
    }
}

/// Few EDUs for many receipts. An EDU has room for one receipt of a user in a room, so those of several threads go in
/// EDUs of their own.
pub fn edus(receipts: &[Arc<Receipt>]) -> Vec<String> {
    let mut layers: Vec<BTreeMap<&str, Map<String, Value>>> = Vec::new();
    for receipt in receipts {
        let taken = |layer: &BTreeMap<&str, Map<String, Value>>| {
            layer.get(&*receipt.room_id).is_some_and(|users| users.contains_key(&receipt.user_id))
        };
        let free = layers.iter().position(|layer| !taken(layer)).unwrap_or_else(|| {
            layers.push(BTreeMap::new());
            layers.len() - 1
        });
        let users = layers[free].entry(&*receipt.room_id).or_default();
        users.insert(receipt.user_id.clone(), receipt.content());
    }
    layers.into_iter().filter_map(edu).collect()
}

fn edu(layer: BTreeMap<&str, Map<String, Value>>) -> Option<String> {
    let rooms: Map<String, Value> =
        layer.into_iter().map(|(room, users)| (room.to_owned(), json!({ PUBLIC: users }))).collect();
    transaction::edu("m.receipt", &Value::from(rooms).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(user: &str, thread: &str, event: &str) -> Arc<Receipt> {
        Arc::new(Receipt {
            position: Position(1),
            room: RoomNid(1),
            user: UserNid(1),
            thread_id: thread.to_owned(),
            room_id: "!r:a.test".to_owned(),
            user_id: user.to_owned(),
            event_id: event.to_owned(),
            ts_ms: 5,
        })
    }

    #[test]
    fn receipts_share_edus_but_threads_of_a_user_are_kept_apart() {
        let edus = edus(&[
            receipt("@a:a.test", "", "$1"),
            receipt("@b:a.test", "", "$2"),
            receipt("@a:a.test", "$t", "$3"),
        ]);
        assert_eq!(
            edus,
            [
                r#"{"content":{"!r:a.test":{"m.read":{"@a:a.test":{"data":{"ts":5},"event_ids":["$1"]},"@b:a.test":{"data":{"ts":5},"event_ids":["$2"]}}}},"edu_type":"m.receipt"}"#,
                r#"{"content":{"!r:a.test":{"m.read":{"@a:a.test":{"data":{"thread_id":"$t","ts":5},"event_ids":["$3"]}}}},"edu_type":"m.receipt"}"#,
            ]
        );
    }
}
