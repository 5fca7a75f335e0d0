//! What `store verify` has to know of the room rules: hashes of events, and what is in a node of a state tree.

use myelin_dag::{
    check_json,
    hashes::{content_matches, event_id_of},
    room_version,
    state_tree::{NodeHash, StateTree},
};
use myelin_store::{
    maintenance::{Knowledge, StateNode},
    tables::{EventRecord, RoomRecord},
};
use ruma::RoomVersionId;

pub struct RoomRules;

impl Knowledge for RoomRules {
    fn check_event(&self, room: &RoomRecord, event: &EventRecord) -> Result<(), String> {
        let version =
            RoomVersionId::try_from(room.room_version.as_str()).map_err(|error| error.to_string())?;
        let rules =
            room_version::rules(&version).ok_or_else(|| format!("room version {version} is not known"))?;
        check_json(event.json.as_bytes()).map_err(|error| format!("it is not JSON: {error}"))?;
        let named =
            event_id_of(&event.json, &rules).map_err(|error| format!("it has no event id: {error}"))?;
        if event.event_id != named.as_str() {
            return Err(format!("its contents belong to the event {named}"));
        }
        // The content of a redacted event is gone, and the hash of it stays.
        if event.redacted_by.is_none() && !content_matches(&event.json) {
            return Err("its content is not what its hash says".to_owned());
        }
        Ok(())
    }

    fn read_node(&self, key: &[u8; 16], bytes: &[u8]) -> Result<StateNode, String> {
        let hash = NodeHash(*key);
        if NodeHash::of(bytes) != hash {
            return Err("its bytes have another hash".to_owned());
        }
        let children = NodeHash::children_of(bytes).ok_or("it is not a node of a state tree")?;
        // A leaf is a tree by itself; of a branch the children say what is in it.
        let entries = match children.is_empty() {
            false => Vec::new(),
            true => {
                let leaf = StateTree::load(hash, |_| Some(bytes)).map_err(|need| need.to_string())?;
                leaf.iter().collect()
            }
        };
        Ok(StateNode { children: children.into_iter().map(|child| child.0).collect(), entries })
    }

    fn empty_state(&self) -> [u8; 16] {
        StateTree::new().root().0
    }
}

#[cfg(test)]
mod tests {
    use myelin_core::{EventNid, RoomNid, StateKeyNid, UserNid};
    use myelin_store::tables::{Placement, VerdictRecord};
    use ruma::{
        CanonicalJsonObject,
        signatures::{add_content_hash_to_event, reference_hash},
    };
    use serde_json::json;

    use super::*;

    fn room() -> RoomRecord {
        RoomRecord {
            room_id: "!r:example.org".to_owned(),
            room_version: "11".to_owned(),
            room_type: None,
            create_event: EventNid(1),
        }
    }

    fn event() -> EventRecord {
        let rules = room_version::rules(&RoomVersionId::V11).expect("version 11");
        let json = json!({
            "type": "m.room.message", "sender": "@a:example.org", "room_id": "!r:example.org", "depth": 1,
            "origin_server_ts": 1, "prev_events": [], "auth_events": [], "content": { "body": "hello" },
        });
        let mut object: CanonicalJsonObject = serde_json::from_value(json).expect("canonical");
        add_content_hash_to_event(&mut object).expect("hashed");
        EventRecord {
            room: RoomNid(1),
            event_id: format!("${}", reference_hash(&object, &rules).expect("hashed")),
            sender: UserNid(1),
            state_key: None,
            state_before: None,
            state_is_partial: false,
            state_is_told: false,
            placement: Placement::Outside,
            verdict: VerdictRecord::Accepted,
            transaction: None,
            redacted_by: None,
            json: serde_json::to_string(&object).expect("JSON"),
        }
    }

    #[test]
    fn damaged_events_are_noticed() {
        assert_eq!(RoomRules.check_event(&room(), &event()), Ok(()));
        let body = EventRecord { json: event().json.replace("hello", "hullo"), ..event() };
        assert_eq!(
            RoomRules.check_event(&room(), &body),
            Err("its content is not what its hash says".to_owned())
        );
        let redacted = EventRecord { redacted_by: Some(EventNid(2)), ..body };
        assert_eq!(
            RoomRules.check_event(&room(), &redacted),
            Ok(()),
            "the reference hash leaves the content out"
        );
        for (damaged, words) in [
            (EventRecord { json: event().json.replace("@a:", "@b:"), ..event() }, "belong to the event $"),
            (EventRecord { json: "{".to_owned(), ..event() }, "not JSON"),
        ] {
            let problem = RoomRules.check_event(&room(), &damaged).expect_err("damaged");
            assert!(problem.contains(words), "{problem}");
        }
        let unknown = RoomRecord { room_version: "99".to_owned(), ..room() };
        assert!(RoomRules.check_event(&unknown, &event()).is_err());
    }

    #[test]
    fn nodes_tell_what_they_refer_to() {
        let entries: Vec<_> = (1..=200).map(|n| (StateKeyNid(n), EventNid(1000 + n))).collect();
        let tree: StateTree = entries.iter().copied().collect();
        let nodes = tree.new_nodes_since(&StateTree::new());
        let read: Vec<_> =
            nodes.iter().map(|(hash, bytes)| RoomRules.read_node(&hash.0, bytes).expect("a node")).collect();
        let mut found: Vec<_> = read.iter().flat_map(|node| node.entries.clone()).collect();
        found.sort();
        assert_eq!(found, entries);
        let children: usize = read.iter().map(|node| node.children.len()).sum();
        assert_eq!(children, nodes.len() - 1, "every node but the root is somebody's child");

        let (hash, bytes) = &nodes[0];
        let mut damaged = bytes.clone();
        damaged[0] ^= 1;
        assert!(RoomRules.read_node(&hash.0, &damaged).is_err());
        assert_eq!(RoomRules.empty_state(), [0; 16]);
    }
}
