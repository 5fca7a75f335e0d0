//! Rooms in many branches at once.

use std::time::Duration;

use myelin_core::StateKeyNid;
use myelin_dag::{Pdu, Verdict};
use myelin_store::tables::Membership;
use ruma::RoomVersionId;
use serde_json::{Value, json};

use super::receiving::{Fork, remote};
use crate::{Received, Sender};

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

impl Fork {
    fn taken(&mut self, sender: &str, kind: &str, key: Option<&str>, content: Value, prev: &Pdu) -> Pdu {
        let pdu = self.make(sender, kind, key, content, std::slice::from_ref(&prev.event_id));
        assert_eq!(self.receive(&pdu), Received::Stored(Verdict::Accepted));
        pdu
    }

    fn says(&mut self, count: usize, prev: &Pdu) {
        for number in 0..count {
            self.taken("bob", "m.room.message", None, json!({ "body": number }), prev);
        }
    }

    fn come(&self, name: &str) -> Sender {
        let user = self.world.user(name);
        self.world.join(&user, &self.room).unwrap();
        user
    }

    fn merges(&self) -> bool {
        self.world.run(self.world.rooms.merge_extremities(self.world.snapshot(&self.room).nid())).unwrap()
    }
}

#[test]
fn branches_from_before_somebody_came_do_not_shut_them_out() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let joined = fork.join("bob");
    let carol = fork.come("carol");
    fork.says(50, &joined);
    let said = fork.world.say(&carol, &fork.room, "I am here").unwrap();
    assert_eq!(fork.world.event(&said).pdu.prev_events.len(), 20);
    assert_eq!(fork.world.snapshot(&fork.room).head.extremities.len(), 32);
    // Where two events are of one time, resolution may put the join behind the leave.
    fork.world.sim.clock().advance(Duration::from_secs(1));
    fork.world.leave(&carol, &fork.room).unwrap();
    assert_eq!(fork.world.snapshot(&fork.room).membership(carol.user), Some(Membership::Leave));
}

#[test]
fn who_came_after_the_branches_began_merges_them() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let joined = fork.join("bob");
    let carol = fork.come("carol");
    fork.world.leave(&fork.alice, &fork.room).unwrap();
    fork.says(50, &joined);
    assert!(!fork.merges(), "not all of them at once");
    assert!(!fork.merges());
    assert!(fork.merges());
    assert_eq!(fork.world.snapshot(&fork.room).membership(carol.user), Some(Membership::Join));
}

/// Dave bans Alice while Bob bans Dave: she is in the room, but not as most of the branches that can be named have it.
#[test]
fn where_one_may_not_merge_another_does() {
    let mut fork = Fork::new(RoomVersionId::V11);
    fork.join("bob");
    fork.join("dave");
    fork.come("carol");
    let users = json!({ remote("bob").as_str(): 100, remote("dave").as_str(): 50 });
    let levels =
        fork.world.set(&fork.alice, &fork.room, "m.room.power_levels", "", json!({ "users": users }));
    let base = fork.world.event(&levels.unwrap()).pdu.clone();
    let member = "m.room.member";
    let (ban, alice) = (json!({ "membership": "ban" }), fork.alice.user_id.to_string());
    let alice_banned = fork.taken("dave", member, Some(&alice), ban.clone(), &base);
    fork.taken("bob", member, Some(remote("dave").as_str()), ban, &base);
    assert_eq!(fork.world.snapshot(&fork.room).membership(fork.alice.user), Some(Membership::Join));
    fork.says(25, &alice_banned);
    fork.says(1, &base);
    assert_eq!(fork.world.snapshot(&fork.room).head.extremities.len(), 27);
    assert!(fork.merges());
    fork.world.say(&fork.alice, &fork.room, "I am here").unwrap();
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
