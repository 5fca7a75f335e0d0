//! Rooms in many branches at once.

use myelin_core::StateKeyNid;
use myelin_dag::{Pdu, Verdict};
use ruma::RoomVersionId;
use serde_json::json;

use super::receiving::Fork;
use crate::Received;

impl Fork {
    /// The number in the key of a state event that is free to all.
    fn number_of(&self, key: StateKeyNid) -> Option<usize> {
        let name = self.world.run(self.world.view.interner.state_key_names(&[key])).unwrap().remove(0);
        (name.event_type == "org.example.free").then(|| name.state_key.parse().unwrap())
    }
}

/// Nobody merges them while they come.
fn branches(fork: &mut Fork, count: usize, kind: &str) -> Vec<Pdu> {
    let joined = fork.join("bob");
    let branch = |number: usize| {
        let key = number.to_string();
        let key = (kind != "m.room.message").then_some(key.as_str());
        let prev = std::slice::from_ref(&joined.event_id);
        let pdu = fork.make("bob", kind, key, json!({ "number": number }), prev);
        assert_eq!(fork.receive(&pdu), Received::Stored(Verdict::Accepted));
        pdu
    };
    (0..count).map(branch).collect()
}

#[test]
fn what_is_made_here_stands_on_the_extremities_that_it_names() {
    let mut fork = Fork::new(RoomVersionId::V11);
    branches(&mut fork, 25, "org.example.free");
    let tree = |root| fork.world.run(fork.world.view.states.load(root)).unwrap();
    let said = fork.world.say(&fork.alice, &fork.room, "hello").unwrap();
    let said = fork.world.event(&said);
    assert_eq!(said.pdu.prev_events.len(), 20);
    let nids: Vec<_> = said.pdu.prev_events.iter().map(|id| fork.world.event(id).nid).collect();
    let before = tree(said.state_before.unwrap());
    let of_branches: Vec<_> =
        before.iter().filter(|(key, _)| fork.number_of(*key).is_some()).map(|(_, nid)| nid).collect();
    assert_eq!(of_branches.len(), 20, "not what the other five say");
    assert!(nids.iter().all(|nid| of_branches.contains(nid)));
    let number = |n: usize| fork.world.state(&fork.room, "org.example.free", &n.to_string());
    assert!((0..25).all(|n| number(n).is_some()), "that is in the room all the same");
    assert_eq!(fork.world.snapshot(&fork.room).head.extremities.len(), 6);
    let set =
        fork.world.set(&fork.alice, &fork.room, "org.example.free", "0", json!({ "by": "alice" })).unwrap();
    assert_eq!(fork.world.event(&set).pdu.prev_events.len(), 6);
    assert_eq!(number(0), Some(json!({ "by": "alice" })));
}

#[test]
fn a_state_event_among_too_many_branches_counts() {
    let mut fork = Fork::new(RoomVersionId::V11);
    branches(&mut fork, 25, "org.example.free");
    fork.world.set(&fork.alice, &fork.room, "m.room.topic", "", json!({ "topic": "t" })).unwrap();
    assert_eq!(fork.world.state(&fork.room, "m.room.topic", ""), Some(json!({ "topic": "t" })));
    assert!(fork.world.state(&fork.room, "org.example.free", "0").is_some());
    assert_eq!(fork.world.snapshot(&fork.room).head.extremities.len(), 6);
}

#[test]
fn branches_without_end_that_nobody_merges_are_let_go() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let branches = branches(&mut fork, 130, "m.room.message");
    let extremities = fork.world.snapshot(&fork.room).head.extremities.clone();
    assert_eq!(extremities.len(), 100);
    assert!(extremities.contains(&fork.world.event(&branches[129].event_id).nid), "the newest stay");
    let mut fork = Fork::new(RoomVersionId::V11);
    let branches = self::branches(&mut fork, 110, "org.example.free");
    assert_eq!(fork.world.snapshot(&fork.room).head.extremities.len(), branches.len(), "each adds something");
}
