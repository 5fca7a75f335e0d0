//! An event that counted is rejected after all, and what was resolved with it is no longer so.

use futures::future::join;
use myelin_dag::{NewEvent, Pdu, Verdict};
use myelin_store::memory::Fault;
use ruma::{OwnedEventId, RoomVersionId};
use serde_json::json;

use super::{
    receiving::{Fork, judged, remote},
    world::World,
};
use crate::{Error, Incoming, Received};

/// Dave has been invited by Bob and has joined, on a side of the room of which another server tells. That Bob was banned
/// when he did it shows when the invite gets its place.
struct Scene {
    fork: Fork,
    invite: Pdu,
    /// Comes after both sides.
    merge: Pdu,
}

fn membership(by: &str, of: &str, membership: &str) -> NewEvent {
    let key = remote(of).to_string();
    NewEvent::state(remote(by), "m.room.member", &key, &json!({ "membership": membership })).unwrap()
}

impl Scene {
    fn new() -> Self {
        let mut fork = Fork::new(RoomVersionId::V11);
        fork.join("bob");
        fork.join("carol");
        let rule = json!({ "join_rule": "invite" });
        let rule = fork.world.set(&fork.alice, &fork.room, "m.room.join_rules", "", rule).unwrap();
        let key = remote("dave").to_string();
        let invite = json!({ "membership": "invite" });
        let allowed = fork.make("bob", "m.room.member", Some(&key), invite, &[rule]);
        let ban = json!({ "membership": "ban" });
        let bob = remote("bob").to_string();
        let ban = fork.world.set(&fork.alice, &fork.room, "m.room.member", &bob, ban).unwrap();
        let ban = (*fork.world.event(&ban).pdu).clone();
        let invite = fork.make_by(membership("bob", "dave", "invite"), allowed.auth_events.clone(), &ban);
        let by_bob = |id: &OwnedEventId| fork.world.event(id).pdu.sender == remote("bob");
        let auth = allowed.auth_events.iter().filter(|id| !by_bob(id)).cloned();
        let auth = auth.chain([invite.event_id.clone()]).collect();
        let join = fork.make_by(membership("dave", "dave", "join"), auth, &invite);
        fork.take_outlier(&invite);
        fork.take_outlier(&join);
        fork.place(&join, &[&invite]);
        let there = fork.make("carol", "m.room.message", None, json!({}), &[join.event_id]);
        assert_eq!(fork.receive(&there), Received::Stored(Verdict::Accepted));
        let merge = fork.make("carol", "m.room.message", None, json!({}), &[ban.event_id, there.event_id]);
        Self { fork, invite, merge }
    }

    /// The room in a process that remembers nothing.
    fn fresh(&self) -> World {
        World::on(self.fork.world.disk.copy(), 7)
    }

    fn incoming(&self, pdus: &[&Pdu]) -> Vec<Incoming> {
        pdus.iter().map(|pdu| self.fork.verified(pdu).into()).collect()
    }

    fn takes(&self, world: &World, pdus: &[&Pdu]) -> Vec<Received> {
        let (room, incoming) = (world.snapshot(&self.fork.room).nid(), self.incoming(pdus));
        world.run(world.rooms.receive_all(room, &incoming)).unwrap()
    }

    /// The merge is taken while the verdict on the invite is on its way.
    fn takes_both_at_once(&self, world: &World) -> [Result<Vec<Received>, Error>; 2] {
        let room = world.snapshot(&self.fork.room).nid();
        let [invite, merge] = [&self.invite, &self.merge].map(|pdu| self.incoming(&[pdu]));
        let (first, second) = (world.rooms.receive_all(room, &invite), world.rooms.receive_all(room, &merge));
        world.run(join(first, second)).into()
    }

    /// In the state before the merge.
    fn dave_has_joined(&self, world: &World) -> bool {
        let (state, rejected) = judged(world, &self.merge.event_id);
        assert!(!rejected);
        state.contains_key(&format!("m.room.member {}", remote("dave")))
    }
}

#[test]
fn what_was_resolved_with_a_rejected_event_is_resolved_again() {
    for in_one_draft in [true, false] {
        let scene = Scene::new();
        let world = &scene.fork.world;
        let dave = || world.state(&scene.fork.room, "m.room.member", remote("dave").as_str());
        assert_eq!(dave(), Some(json!({ "membership": "join" })), "the invite counted");
        let [first, second] = match in_one_draft {
            true => scene.takes(world, &[&scene.invite, &scene.merge]).try_into().unwrap(),
            false => scene.takes_both_at_once(world).map(|answers| answers.unwrap().remove(0)),
        };
        assert!(matches!(first, Received::Stored(Verdict::Rejected { .. })), "{first:?}");
        assert_eq!(second, Received::Stored(Verdict::Accepted));
        assert!(!scene.dave_has_joined(world), "in one draft: {in_one_draft}");
        assert_eq!(dave(), None);
    }
}

#[test]
fn a_process_that_remembers_nothing_resolves_the_same() {
    let scene = Scene::new();
    let [neither, at_once, before] = [scene.fresh(), scene.fresh(), scene.fresh()];
    scene.takes(&neither, &[&scene.merge]);
    assert!(scene.dave_has_joined(&neither), "the invite counts until it gets its place");
    scene.takes(&at_once, &[&scene.invite, &scene.merge]);
    assert!(!scene.dave_has_joined(&at_once));
    scene.takes(&before, &[&scene.invite]);
    let after = World::on(before.disk.copy(), 8);
    scene.takes(&after, &[&scene.merge]);
    assert!(!scene.dave_has_joined(&after));
}

#[test]
fn a_rejection_that_was_not_stored_leaves_nothing_behind() {
    let scene = Scene::new();
    let world = scene.fresh();
    world.disk.inject(Some(Fault::LoseCommits));
    assert!(scene.takes_both_at_once(&world).iter().all(Result::is_err));
    world.disk.inject(None);
    scene.takes(&world, &[&scene.merge]);
    assert!(scene.dave_has_joined(&world));
}
