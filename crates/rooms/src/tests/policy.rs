//! Events that wait for the word of their room's policy server: nobody else waits for it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::{FutureExt, future::BoxFuture};
use myelin_dag::{Pdu, SigningKey, Verdict};
use myelin_store::tables::Membership;
use parking_lot::Mutex;
use ruma::{CanonicalJsonObject, OwnedEventId, RoomVersionId, ServerName, signatures::hash_and_sign_event};
use serde_json::{json, value::to_raw_value};
use tokio::sync::oneshot;

use super::{
    receiving::Fork,
    world::{assert_forbidden, content},
};
use crate::{Error, PolicyServers, PolicySignatures, Received, Sender, Upgrade, policy::UNDER_WAY_MAX};

const KEY_ID: &str = "ed25519:policy_server";

/// The policy server of `remote`: signs everything, some things when it is told to, spam never.
#[derive(Default)]
pub struct PolicyDesk {
    held: Mutex<Vec<oneshot::Sender<()>>>,
    asked: AtomicUsize,
    /// Everything is signed only when it is told to.
    hesitates: AtomicBool,
}

impl PolicyServers for PolicyDesk {
    fn sign<'a>(
        &'a self,
        _: &'a ServerName,
        pdu: &'a Pdu,
    ) -> BoxFuture<'a, Result<PolicySignatures, String>> {
        async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if pdu.json.contains("spam") {
                return Err("No spam.".to_owned());
            }
            if pdu.json.contains("slowly") || self.hesitates.load(Ordering::Relaxed) {
                let (release, held) = oneshot::channel();
                self.held.lock().push(release);
                held.await.unwrap();
            }
            Ok(vec![(KEY_ID.to_owned(), signature(pdu))])
        }
        .boxed()
    }
}

impl PolicyDesk {
    fn held(&self) -> usize {
        self.held.lock().len()
    }

    fn release(&self) {
        self.held.lock().drain(..).for_each(|held| held.send(()).unwrap());
    }
}

fn policy_key() -> SigningKey {
    SigningKey::from_seed("policy_server", [5; 32]).unwrap()
}

fn signature(pdu: &Pdu) -> String {
    let rules = myelin_dag::rules(&RoomVersionId::V11).unwrap();
    let mut object: CanonicalJsonObject = serde_json::from_str(&pdu.json).unwrap();
    hash_and_sign_event("remote", policy_key().pair(), &mut object, &rules.redaction).unwrap();
    let object = serde_json::to_value(object).unwrap();
    object["signatures"]["remote"][KEY_ID].as_str().unwrap().to_owned()
}

/// A room with a policy server, in which Carol is a guest of Alice's server.
fn watched() -> (Fork, Sender) {
    let mut fork = Fork::new(RoomVersionId::V11);
    fork.join("bob");
    let carol = fork.world.user("carol");
    fork.world.join(&carol, &fork.room).unwrap();
    let policy = json!({ "via": "remote", "public_keys": { "ed25519": policy_key().public_key_base64() } });
    fork.world.set(&fork.alice, &fork.room, "m.room.policy", "", policy).unwrap();
    (fork, carol)
}

type Answer = oneshot::Receiver<Result<OwnedEventId, Error>>;

impl Fork {
    /// Sends in the background.
    fn begins(&self, sender: &Sender, body: &str) -> Answer {
        let (rooms, room, sender) = (self.world.rooms.clone(), self.room.clone(), sender.clone());
        let (content, transaction) =
            (to_raw_value(&json!({ "body": body })).unwrap(), self.world.transaction());
        let (done, answer) = oneshot::channel();
        let task = async move {
            let sent = rooms.send_message(&sender, &room, "m.room.message".into(), &content, &transaction);
            drop(done.send(sent.await));
        };
        self.world.sim.env().spawner.spawn("a slow message", Box::pin(task));
        self.world.sim.settle();
        answer
    }

    fn released(&self, answer: Answer) -> Result<OwnedEventId, Error> {
        self.world.policy.release();
        self.world.run(answer).unwrap()
    }
}

#[test]
fn the_room_goes_on_while_its_policy_server_thinks() {
    let (mut fork, carol) = watched();
    let slow = fork.begins(&carol, "slowly");
    let tip = fork.tip();
    let hello = fork.make("bob", "org.example.free", Some("a"), json!({}), std::slice::from_ref(&tip));
    assert_eq!(fork.receive(&hello), Received::Stored(Verdict::Accepted), "what comes in does not wait");
    let quick = fork.world.say(&fork.alice, &fork.room, "quick").unwrap();
    let slow = fork.released(slow).unwrap();
    let event = fork.world.event(&slow);
    assert!(event.pdu.json.contains(KEY_ID) && event.accepted());
    assert_eq!(event.pdu.prev_events, [tip], "it stands where it was made");
    assert!(event.transaction.is_some(), "its device is told the transaction id");
    assert_eq!(fork.world.snapshot(&fork.room).head.extremities.len(), 2);
    let merged = fork.world.say(&fork.alice, &fork.room, "both").unwrap();
    let mut prev_events = fork.world.event(&merged).pdu.prev_events.clone();
    prev_events.sort();
    let mut ends = [quick, slow];
    ends.sort();
    assert_eq!(prev_events, ends);
    assert_eq!(fork.world.snapshot(&fork.room).head.extremities.len(), 1);
}

#[test]
fn what_is_signed_while_nothing_happens_is_no_branch() {
    let (fork, carol) = watched();
    let first = fork.begins(&carol, "slowly");
    let first = fork.released(first).unwrap();
    assert_eq!(fork.tip(), first);
    assert_eq!(fork.world.snapshot(&fork.room).head.extremities.len(), 1);
    assert_eq!(fork.world.policy.asked.load(Ordering::Relaxed), 1, "asked once");
}

#[test]
fn who_was_banned_meanwhile_is_not_heard() {
    let (fork, carol) = watched();
    let slow = fork.begins(&carol, "slowly");
    fork.world.ban(&fork.alice, &fork.room, &carol).unwrap();
    assert_forbidden(fork.released(slow), "not in the room");
    assert!(fork.world.timeline(&fork.room).iter().all(|event| content(event).get("body").is_none()));
}

#[test]
fn what_the_room_allows_only_differently_is_made_and_shown_again() {
    let (fork, carol) = watched();
    let slow = fork.begins(&carol, "slowly");
    let other = SigningKey::from_seed("policy_server", [6; 32]).unwrap();
    let policy = json!({ "via": "remote", "public_keys": { "ed25519": other.public_key_base64() } });
    fork.world.set(&fork.alice, &fork.room, "m.room.policy", "", policy).unwrap();
    fork.world.policy.release();
    fork.world.sim.settle();
    assert_eq!(fork.world.policy.held(), 1, "the old signature counts no more");
    assert_forbidden(fork.released(slow), "did not sign");
}

#[test]
fn few_are_under_way_at_a_time() {
    let (fork, carol) = watched();
    let answers: Vec<_> =
        (0..UNDER_WAY_MAX + 2).map(|n| fork.begins(&carol, &format!("slowly {n}"))).collect();
    assert_eq!(fork.world.policy.held(), UNDER_WAY_MAX);
    fork.world.policy.release();
    fork.world.sim.settle();
    assert_eq!(fork.world.policy.held(), 2);
    assert!(fork.world.snapshot(&fork.room).head.extremities.len() <= UNDER_WAY_MAX);
    fork.world.policy.release();
    for answer in answers {
        fork.world.run(answer).unwrap().unwrap();
    }
    assert_eq!(fork.world.rooms.writers.in_use(), 0);
}

#[test]
fn a_redaction_that_comes_late_redacts_once() {
    let (fork, carol) = watched();
    let said = fork.world.say(&fork.alice, &fork.room, "something").unwrap();
    let (rooms, room, alice) = (fork.world.rooms.clone(), fork.room.clone(), fork.alice.clone());
    let (target, transaction) = (said.clone(), fork.world.transaction());
    let (done, answer) = oneshot::channel();
    let task = async move {
        let reason = serde_json::Map::from_iter([("reason".to_owned(), json!("slowly"))]);
        drop(done.send(rooms.redact(&alice, &room, &target, reason, &transaction).await));
    };
    fork.world.sim.env().spawner.spawn("a slow redaction", Box::pin(task));
    fork.world.sim.settle();
    fork.world.say(&carol, &fork.room, "meanwhile").unwrap();
    let redaction = fork.released(answer).unwrap();
    let held = fork.world.event(&said);
    assert_eq!(held.redacted_by, Some(fork.world.event(&redaction).nid));
    assert_eq!(content(&held), json!({}));
}

fn upgrade(version: RoomVersionId) -> Upgrade {
    Upgrade { new_version: version, additional_creators: Vec::new() }
}

#[test]
fn a_room_is_upgraded_with_the_leave_of_its_policy_server() {
    let (fork, _) = watched();
    let upgrade = upgrade(RoomVersionId::V12);
    let upgraded = fork.world.run(fork.world.rooms.upgrade(&fork.alice, &fork.room, &upgrade)).unwrap();
    let tombstone = fork.world.state(&fork.room, "m.room.tombstone", "").unwrap();
    assert_eq!(tombstone["replacement_room"], upgraded.as_str());
    assert_forbidden(fork.world.say(&fork.alice, &fork.room, "spam"), "No spam.");
}

#[test]
fn a_room_goes_on_while_its_policy_server_thinks_about_an_upgrade() {
    for version in [RoomVersionId::V11, RoomVersionId::V12] {
        let (mut fork, carol) = watched();
        fork.world.policy.hesitates.store(true, Ordering::Relaxed);
        let (rooms, room, alice) = (fork.world.rooms.clone(), fork.room.clone(), fork.alice.clone());
        let (done, answer) = oneshot::channel();
        let task = async move { drop(done.send(rooms.upgrade(&alice, &room, &upgrade(version)).await)) };
        fork.world.sim.env().spawner.spawn("an upgrade", Box::pin(task));
        fork.world.sim.settle();
        assert_eq!(fork.world.policy.held(), 1);
        fork.world.policy.hesitates.store(false, Ordering::Relaxed);
        let prev = [fork.tip()];
        let hello = fork.make("bob", "org.example.free", Some("a"), json!({}), &prev);
        assert_eq!(fork.receive(&hello), Received::Stored(Verdict::Accepted));
        fork.world.ban(&fork.alice, &fork.room, &carol).unwrap();
        fork.world.policy.release();
        let upgraded = fork.world.run(answer).unwrap().unwrap();
        let tombstone = fork.world.state(&fork.room, "m.room.tombstone", "").unwrap();
        assert_eq!(tombstone["replacement_room"], upgraded.as_str());
        let banned = fork.world.snapshot(&upgraded).membership(carol.user);
        assert_eq!(banned, Some(Membership::Ban), "what happened meanwhile goes along");
        let levels = fork.world.state(&fork.room, "m.room.power_levels", "").unwrap();
        assert_eq!(levels["events_default"], 50);
        assert_eq!(fork.world.rooms.writers.in_use(), 0);
    }
}

/// What may fail in an upgrade may be refused, too.
#[test]
fn a_room_is_upgraded_though_its_policy_server_does_not_let_it_be_silenced() {
    let (fork, _) = watched();
    let policy = fork.world.state(&fork.room, "m.room.policy", "").unwrap();
    fork.world.set(&fork.alice, &fork.room, "m.room.policy", "", json!({})).unwrap();
    let users = json!({ fork.alice.user_id.as_str(): 100, "@spam:localhost": 1 });
    fork.world.set(&fork.alice, &fork.room, "m.room.power_levels", "", json!({ "users": users })).unwrap();
    fork.world.set(&fork.alice, &fork.room, "m.room.policy", "", policy).unwrap();
    let upgrade = upgrade(RoomVersionId::V11);
    let upgraded = fork.world.run(fork.world.rooms.upgrade(&fork.alice, &fork.room, &upgrade)).unwrap();
    let tombstone = fork.world.state(&fork.room, "m.room.tombstone", "").unwrap();
    assert_eq!(tombstone["replacement_room"], upgraded.as_str());
    let levels = fork.world.state(&fork.room, "m.room.power_levels", "").unwrap();
    assert_eq!(levels.get("events_default"), None);
}
