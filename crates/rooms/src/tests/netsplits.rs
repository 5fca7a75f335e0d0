//! Both sides of a room have gone on apart from each other, and the events of the other one come in.

use std::sync::atomic::Ordering;

use myelin_dag::{Pdu, Verdict};
use ruma::RoomVersionId;
use serde_json::json;

use super::{
    receiving::{Fork, raw},
    world::World,
};
use crate::Received;

const KIND: &str = "org.example.free";

/// Alice has said something under so many keys on both sides of the fork. Gives what bob's side begins with.
fn split(keys: usize) -> (Fork, Pdu) {
    let mut fork = Fork::new(RoomVersionId::V11);
    let set = |fork: &Fork, what: &str| {
        for n in 0..keys {
            let content = json!({ "by": what });
            fork.world.set(&fork.alice, &fork.room, KIND, &n.to_string(), content).unwrap();
        }
    };
    set(&fork, "before");
    let joined = fork.join("bob");
    set(&fork, "here");
    (fork, joined)
}

/// Bob says something else under the first keys, one event after the other.
fn go_on(fork: &mut Fork, joined: &Pdu, events: usize, mut each: impl FnMut(&Fork, &Pdu)) {
    let mut tip = joined.event_id.clone();
    for n in 0..events {
        let prev = [tip.clone()];
        let pdu = fork.make("bob", KIND, Some(&n.to_string()), json!({ "by": "there" }), &prev);
        each(fork, &pdu);
        tip = pdu.event_id;
    }
}

/// The rows that an event of the other side writes after a few others.
fn writes_of_an_event(keys: usize) -> usize {
    let (mut fork, joined) = split(keys);
    let mut last = 0;
    go_on(&mut fork, &joined, 4, |fork, pdu| {
        let before = fork.world.counts.writes.load(Ordering::Relaxed);
        assert_eq!(fork.receive(pdu), Received::Stored(Verdict::Accepted));
        last = fork.world.counts.writes.load(Ordering::Relaxed) - before;
    });
    last
}

#[test]
fn an_event_of_the_other_side_writes_as_much_however_far_the_sides_are_apart() {
    let (near, far) = (writes_of_an_event(20), writes_of_an_event(200));
    // Two states, a level deeper.
    assert!(far <= near + 4, "{far} rows, not {near}");
}

/// How often a resolution was worked on apart, for each of a few events.
fn worked_on_apart(keys: usize) -> Vec<usize> {
    let (mut fork, joined) = split(keys);
    let mut counts = Vec::new();
    go_on(&mut fork, &joined, 4, |fork, pdu| {
        let before = fork.world.counts.blocking.load(Ordering::Relaxed);
        assert_eq!(fork.receive(pdu), Received::Stored(Verdict::Accepted));
        counts.push(fork.world.counts.blocking.load(Ordering::Relaxed) - before);
    });
    counts
}

#[test]
fn only_a_large_conflict_is_resolved_apart_and_once() {
    assert_eq!(worked_on_apart(10), [0; 4]);
    let far = worked_on_apart(200);
    assert!(far[0] > 0, "{far:?}");
    assert_eq!(far[1..], [0; 3], "what came after is gone on with");
}

#[test]
fn a_server_that_is_started_again_amid_the_other_side_comes_to_the_same() {
    let (mut fork, joined) = split(8);
    let mut fresh: Option<World> = None;
    go_on(&mut fork, &joined, 8, |fork, pdu| {
        if let Some(fresh) = &fresh {
            let answer = fresh.run(fresh.rooms.receive(&fork.room, &raw(pdu), &fork.keys())).unwrap();
            assert_eq!(answer, Received::Stored(Verdict::Accepted));
        }
        assert_eq!(fork.receive(pdu), Received::Stored(Verdict::Accepted));
        let other = World::on(fork.world.disk.copy(), 7);
        let room = &fork.room;
        for n in 0..8 {
            let key = n.to_string();
            let held = fork.world.state(room, KIND, &key);
            assert_eq!(other.state(room, KIND, &key), held);
            assert!(fresh.as_ref().is_none_or(|fresh| fresh.state(room, KIND, &key) == held));
        }
        // A new process each time: it has not seen what came before.
        fresh = Some(other);
    });
}

/// What is said here refers to both sides, so that both states of the fork are others at once.
#[test]
fn both_sides_go_on_in_turns() {
    let (mut fork, joined) = split(8);
    go_on(&mut fork, &joined, 8, |fork, pdu| {
        assert_eq!(fork.receive(pdu), Received::Stored(Verdict::Accepted));
        fork.world.say(&fork.alice, &fork.room, "I see").unwrap();
        let fresh = World::on(fork.world.disk.copy(), 7);
        let key = pdu.state_key.as_deref().unwrap();
        assert_eq!(fork.world.state(&fork.room, KIND, key), fresh.state(&fork.room, KIND, key));
        assert_eq!(fresh.snapshot(&fork.room).head.extremities.len(), 1);
    });
}
