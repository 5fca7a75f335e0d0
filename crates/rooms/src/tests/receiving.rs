//! Events of another server: forks, verdicts, and that the order of arrival does not matter.

use std::{collections::BTreeMap, sync::Arc};

use myelin_dag::{
    Names, NewEvent, Parents, Pdu, SigningKey, StateTree, Verdict, build,
    checks::{RawPdu, VerifiedPdu},
    needs_names,
};
use myelin_store::tables::{Membership, VerdictRecord};
use proptest::prelude::*;
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId,
    signatures::{PublicKeyMap, hash_and_sign_event},
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::world::{World, content};
use crate::{
    Error, Placing, Received, Sender,
    writer::{Command, Draft},
};

/// A room of Alice with users of another server in it.
pub struct Fork {
    pub world: World,
    pub alice: Sender,
    pub room: OwnedRoomId,
    remote: SigningKey,
    now_ms: u64,
}

/// Finds the auth events of an event after some others.
struct Probe<'a> {
    event: &'a NewEvent,
    prev_events: &'a [OwnedEventId],
}

impl Command for Probe<'_> {
    type Output = (Vec<OwnedEventId>, u64);

    async fn act(&self, draft: &mut Draft<'_>) -> Result<Self::Output, Error> {
        let (state, depth) = draft.state_and_depth(self.prev_events).await?;
        let auth = draft.auth_of(self.event, &state).await?;
        Ok((auth.auth_events(), depth + 1))
    }
}

pub fn remote(name: &str) -> OwnedUserId {
    format!("@{name}:remote").try_into().unwrap()
}

pub fn raw(pdu: &Pdu) -> Box<RawValue> {
    RawValue::from_string(pdu.json.to_string()).unwrap()
}

impl Fork {
    pub fn new(version: RoomVersionId) -> Self {
        let world = World::new(1);
        let alice = world.user("alice");
        let room = world.room_of_version(&alice, version);
        let levels = json!({ "users_default": 0, "state_default": 50, "events": { "org.example.free": 0 } });
        let mut levels = levels.as_object().unwrap().clone();
        if !matches!(world.snapshot(&room).info.version, RoomVersionId::V12) {
            levels.insert("users".to_owned(), json!({ "@alice:localhost": 100 }));
        }
        world.set(&alice, &room, "m.room.power_levels", "", levels.into()).unwrap();
        Self { world, alice, room, remote: SigningKey::from_seed("r", [9; 32]).unwrap(), now_ms: 1_000 }
    }

    pub fn keys(&self) -> PublicKeyMap {
        BTreeMap::from([("remote".to_owned(), self.remote.public_key_set())])
    }

    pub fn tip(&self) -> OwnedEventId {
        self.world.timeline(&self.room).last().unwrap().pdu.event_id.clone()
    }

    /// An event as the other server would make it after `prev_events`.
    pub fn make(
        &mut self,
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        prev_events: &[OwnedEventId],
    ) -> Pdu {
        let event = NewEvent {
            sender: remote(sender),
            event_type: kind.into(),
            state_key: state_key.map(ToOwned::to_owned),
            content: to_raw_value(&content).unwrap(),
            redacts: content.get("target").and_then(Value::as_str).map(|id| id.try_into().unwrap()),
            sticky_duration_ms: None,
        };
        self.world.run(self.world.view.interner.state_key("m.room.member", remote(sender).as_str())).unwrap();
        let snapshot = self.world.snapshot(&self.room);
        let probe = Probe { event: &event, prev_events };
        let (auth_events, depth) = self.world.run(self.world.rooms.run(snapshot.nid(), &probe)).unwrap();
        let parents = Parents {
            room_id: Some(self.room.clone()),
            prev_events: prev_events.to_vec(),
            auth_events: auth_events.clone(),
            depth,
            names: self.names(prev_events.iter().chain(&auth_events)),
        };
        self.now_ms += 1;
        build(&snapshot.info.rules, event, parents, self.now_ms, &self.remote).unwrap()
    }

    /// Another text, hashed and signed by both servers with the key of the remote one.
    fn sign_again(&self, json: &str) -> Box<RawValue> {
        let rules = self.world.snapshot(&self.room).info.rules.clone();
        let mut object: CanonicalJsonObject = serde_json::from_str(json).unwrap();
        object.remove("signatures");
        object.remove("hashes");
        for server in ["remote", "localhost"] {
            hash_and_sign_event(server, self.remote.pair(), &mut object, &rules.redaction).unwrap();
        }
        to_raw_value(&object).unwrap()
    }

    /// What versions 1 and 2 want. Nobody checks the hashes.
    fn names<'a>(&self, referred: impl Iterator<Item = &'a OwnedEventId>) -> Option<Names> {
        let hash = |id: &OwnedEventId| (id.clone(), "hash".to_owned());
        needs_names(&self.world.snapshot(&self.room).info.rules).then(|| Names {
            event_id: format!("$event{}:remote", self.now_ms).try_into().unwrap(),
            reference_hashes: referred.map(hash).collect(),
        })
    }

    pub fn receive(&self, pdu: &Pdu) -> Received {
        self.receive_raw(&raw(pdu))
    }

    fn receive_raw(&self, raw: &RawValue) -> Received {
        self.world.run(self.world.rooms.receive(&self.room, raw, &self.keys())).unwrap()
    }

    pub fn verified(&self, pdu: &Pdu) -> VerifiedPdu {
        let rules = &self.world.snapshot(&self.room).info.rules;
        RawPdu(&raw(pdu)).check_format(rules).unwrap().verify(&self.keys(), rules).unwrap()
    }

    pub fn take_outlier(&self, pdu: &Pdu) {
        let info = self.world.snapshot(&self.room).info.clone();
        self.world.run(self.world.rooms.take_outliers(&info, vec![self.verified(pdu)])).unwrap();
    }

    /// As if another server had told that the state before an outlier is the current one with some other outliers in it.
    pub fn place(&self, pdu: &Pdu, others: &[&Pdu]) {
        let (world, snapshot) = (&self.world, self.world.snapshot(&self.room));
        let event = |nid| world.run(world.view.events.load(nid)).unwrap().unwrap();
        let state = snapshot.current_state.iter().map(|(_, nid)| event(nid).pdu.event_id.clone());
        let state: Vec<_> = state.chain(others.iter().map(|other| other.event_id.clone())).collect();
        let placing = world.run(world.rooms.place_outlier(snapshot.nid(), &pdu.event_id, &state));
        assert_eq!(placing.unwrap(), Placing::Placed);
    }

    pub fn join(&mut self, name: &str) -> Pdu {
        let tip = self.tip();
        let key = remote(name).to_string();
        let pdu = self.make(name, "m.room.member", Some(&key), json!({ "membership": "join" }), &[tip]);
        assert_eq!(self.receive(&pdu), Received::Stored(Verdict::Accepted));
        pdu
    }
}

impl Draft<'_> {
    async fn state_and_depth(&self, ids: &[OwnedEventId]) -> Result<(StateTree, u64), Error> {
        let mut prev = Vec::new();
        for id in ids {
            prev.extend(self.find(id).await?);
        }
        let depth = prev.iter().map(|event| event.pdu.depth).max().unwrap_or(0);
        Ok((self.state_after_all(&prev).await?, depth))
    }
}

#[test]
fn a_remote_user_joins_and_speaks() {
    for version in
        [RoomVersionId::V1, RoomVersionId::V3, RoomVersionId::V6, RoomVersionId::V11, RoomVersionId::V12]
    {
        let mut fork = Fork::new(version);
        let joined = fork.join("bob");
        let hello = fork.make(
            "bob",
            "m.room.message",
            None,
            json!({ "body": "hi" }),
            std::slice::from_ref(&joined.event_id),
        );
        assert_eq!(fork.receive(&hello), Received::Stored(Verdict::Accepted));
        assert_eq!(fork.receive(&hello), Received::Known(Verdict::Accepted));
        let snapshot = fork.world.snapshot(&fork.room);
        assert_eq!(snapshot.joined_count, 2);
        assert_eq!(snapshot.local_joined.len(), 1);
        let answer = fork.world.say(&fork.alice, &fork.room, "welcome").unwrap();
        assert_eq!(fork.world.event(&answer).pdu.prev_events, [hello.event_id]);
    }
}

/// Otherwise the state of a room in which somebody is an admin would be brought into one in which they are not.
#[test]
fn no_event_comes_after_one_of_another_room() {
    for version in [RoomVersionId::V1, RoomVersionId::V6, RoomVersionId::V12] {
        let mut fork = Fork::new(version.clone());
        let joined = fork.join("bob");
        let prev = [joined.event_id.clone()];
        let elsewhere = fork.world.room_of_version(&fork.alice, version.clone());
        let theirs = fork.world.say(&fork.alice, &elsewhere, "elsewhere").unwrap();
        let before = fork.world.snapshot(&fork.room);
        let message = fork.make("bob", "m.room.message", None, json!({}), &prev);
        let ours = message.prev_events[0].to_string();
        let moved = message.json.replacen(
            &format!("\"prev_events\":[\"{ours}"),
            &format!("\"prev_events\":[\"{theirs}"),
            1,
        );
        let moved = moved.replacen(
            &format!("\"prev_events\":[[\"{ours}"),
            &format!("\"prev_events\":[[\"{theirs}"),
            1,
        );
        assert_ne!(moved, *message.json);
        let signed = fork.sign_again(&moved);
        let answer = fork.receive_raw(&signed);
        assert_eq!(
            answer,
            Received::Dropped("the event comes after one of another room".to_owned()),
            "{version}"
        );
        assert_eq!(fork.world.snapshot(&fork.room).head, before.head);
    }
}

/// In versions 1 and 2 a name may be given twice.
#[test]
fn an_event_id_of_another_room_is_taken() {
    for version in [RoomVersionId::V1, RoomVersionId::V2] {
        let mut fork = Fork::new(version.clone());
        let joined = fork.join("bob");
        let prev = [joined.event_id.clone()];
        let elsewhere = fork.world.room_of_version(&fork.alice, version);
        let theirs = fork.world.say(&fork.alice, &elsewhere, "elsewhere").unwrap();
        let message = fork.make("bob", "m.room.message", None, json!({}), &prev);
        let renamed = message.json.replace(message.event_id.as_str(), theirs.as_str());
        let signed = fork.sign_again(&renamed);
        let mut keys = fork.keys();
        keys.insert("localhost".to_owned(), fork.remote.public_key_set());
        let answer = fork.world.run(fork.world.rooms.receive(&fork.room, &signed, &keys)).unwrap();
        assert!(matches!(&answer, Received::Dropped(why) if why.contains("has this event id")), "{answer:?}");
    }
}

#[test]
fn a_fork_is_resolved_once_however_much_is_said_in_it() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let joined = fork.join("bob");
    let prev = [joined.event_id];
    let topic = fork.make("bob", "org.example.free", Some(""), json!({ "by": "bob" }), &prev);
    fork.world.set(&fork.alice, &fork.room, "org.example.free", "", json!({ "by": "alice" })).unwrap();
    let mut tip = topic.event_id.clone();
    assert_eq!(fork.receive(&topic), Received::Stored(Verdict::Accepted));
    let made = fork.world.rooms.resolutions.len();
    assert!(made > 0);
    for n in 0..3 {
        let said = fork.make("bob", "m.room.message", None, json!({ "n": n }), &[tip]);
        assert_eq!(fork.receive(&said), Received::Stored(Verdict::Accepted));
        tip = said.event_id;
    }
    assert_eq!(fork.world.rooms.resolutions.len(), made);
}

#[test]
fn what_lacks_is_named() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let joined = fork.join("bob");
    let other = Fork::new(RoomVersionId::V11);
    let first = fork.make("bob", "m.room.message", None, json!({}), std::slice::from_ref(&joined.event_id));
    fork.receive(&first);
    let second = fork.make("bob", "m.room.message", None, json!({}), std::slice::from_ref(&first.event_id));
    // A server that has seen the join only.
    let late = World::on(fork.world.disk.copy(), 5);
    assert_eq!(fork.receive(&second), Received::Stored(Verdict::Accepted));
    let third = fork.make("bob", "m.room.message", None, json!({}), std::slice::from_ref(&second.event_id));
    let answer = late.run(late.rooms.receive(&fork.room, &raw(&third), &fork.keys())).unwrap();
    assert_eq!(answer, Received::Need(vec![second.event_id]));
    let unknown = other.world.run(other.world.rooms.receive(
        "!unknown:localhost".try_into().unwrap(),
        &raw(&third),
        &fork.keys(),
    ));
    assert!(matches!(unknown, Err(Error::NotFound(_))));
}

#[test]
fn what_nobody_vouches_for_is_dropped() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let joined = fork.join("bob");
    let prev = [joined.event_id.clone()];
    let good = fork.make("bob", "m.room.message", None, json!({ "body": "x" }), &prev);
    let mut forged: Value = serde_json::from_str(&good.json).unwrap();
    forged["depth"] = json!(99);
    assert!(matches!(fork.receive_raw(&to_raw_value(&forged).unwrap()), Received::Dropped(_)));
    assert!(matches!(fork.receive_raw(&to_raw_value(&json!({ "a": 1 })).unwrap()), Received::Dropped(_)));
    let mut orphan = fork.make("bob", "m.room.message", None, json!({}), &prev);
    let rules = fork.world.snapshot(&fork.room).info.rules.clone();
    let event = |kind: &str, state_key| NewEvent {
        sender: remote("bob"),
        event_type: kind.into(),
        state_key,
        content: to_raw_value(&json!({ "room_version": "11" })).unwrap(),
        redacts: None,
        sticky_duration_ms: None,
    };
    let parents = || Parents { room_id: Some(fork.room.clone()), depth: 1, ..Parents::default() };
    orphan = build(&rules, event("m.room.message", None), parents(), 1, &fork.remote).unwrap_or(orphan);
    assert_eq!(fork.receive(&orphan), Received::Dropped("only the create event comes after none".to_owned()));
    let create = event("m.room.create", Some(String::new()));
    let create = build(&rules, create, parents(), 1, &fork.remote).unwrap();
    assert_eq!(fork.receive(&create), Received::Dropped("the room has been created already".to_owned()));
    let elsewhere = fork.world.room_of_version(&fork.alice, RoomVersionId::V11);
    let answer = fork.world.run(fork.world.rooms.receive(&elsewhere, &raw(&good), &fork.keys())).unwrap();
    assert_eq!(answer, Received::Dropped("the event belongs to another room".to_owned()));
}

#[test]
fn unauthorised_events_are_rejected_and_their_children_live() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let joined = fork.join("bob");
    let before = fork.world.timeline(&fork.room).len();
    let named = fork.make(
        "bob",
        "m.room.name",
        Some(""),
        json!({ "name": "mine" }),
        std::slice::from_ref(&joined.event_id),
    );
    assert!(matches!(fork.receive(&named), Received::Stored(Verdict::Rejected { .. })));
    assert_eq!(fork.world.timeline(&fork.room).len(), before, "not shown");
    assert!(matches!(fork.world.event(&named.event_id).verdict, VerdictRecord::Rejected { .. }));
    assert!(matches!(fork.receive(&named), Received::Known(Verdict::Rejected { .. })));
    assert_eq!(fork.world.state(&fork.room, "m.room.name", ""), None);
    // Not built upon here, but others may have.
    let child = fork.make("bob", "m.room.message", None, json!({}), std::slice::from_ref(&named.event_id));
    assert_eq!(fork.receive(&child), Received::Stored(Verdict::Accepted));
    // By its auth events: a stranger who refers to no join.
    let stranger = fork.make("eve", "m.room.message", None, json!({}), &[joined.event_id]);
    assert!(matches!(fork.receive(&stranger), Received::Stored(Verdict::Rejected { .. })));
    let restarted = World::on(fork.world.disk.copy(), 3);
    assert!(matches!(restarted.event(&stranger.event_id).verdict, VerdictRecord::Rejected { .. }));
}

impl Fork {
    /// As [`Fork::make`], with these auth events.
    fn make_with_auth(&mut self, sender: &str, auth_events: Vec<OwnedEventId>, prev: &Pdu) -> Pdu {
        self.make_by(
            NewEvent::message(remote(sender), "m.room.message", &json!({})).unwrap(),
            auth_events,
            prev,
        )
    }

    pub fn make_by(&mut self, event: NewEvent, auth_events: Vec<OwnedEventId>, prev: &Pdu) -> Pdu {
        let (prev_events, depth) = (vec![prev.event_id.clone()], prev.depth + 1);
        let room_id = Some(self.room.clone());
        let parents = Parents { room_id, prev_events, auth_events, depth, names: None };
        self.now_ms += 1;
        build(&self.world.snapshot(&self.room).info.rules, event, parents, self.now_ms, &self.remote).unwrap()
    }

    pub fn rejection(&self, pdu: &Pdu) -> String {
        match self.receive(pdu) {
            Received::Stored(Verdict::Rejected { reason }) => reason,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_refers_to_rejected_or_foreign_auth_events_is_rejected() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let joined = fork.join("bob");
    let prev = std::slice::from_ref(&joined.event_id).to_vec();
    let levels = json!({ "users": { "@bob:remote": 100 } });
    let levels = fork.make("bob", "m.room.power_levels", Some(""), levels, &prev);
    fork.rejection(&levels);
    let good = fork.make("bob", "m.room.message", None, json!({}), &prev);
    let held = |id: &OwnedEventId| fork.world.event(id).pdu.event_type.to_string();
    let (of_levels, rest): (Vec<_>, Vec<_>) =
        good.auth_events.iter().cloned().partition(|id| held(id) == "m.room.power_levels");
    assert_eq!(of_levels.len(), 1);
    let auth = rest.iter().cloned().chain([levels.event_id.clone()]).collect();
    let child = fork.make_with_auth("bob", auth, &joined);
    assert!(fork.rejection(&child).contains("rejected"));
    // Its own children are judged by what they refer to, not by it.
    let grandchild = fork.make_with_auth("bob", good.auth_events.clone(), &child);
    assert_eq!(fork.receive(&grandchild), Received::Stored(Verdict::Accepted));
    let elsewhere = fork.world.room_of_version(&fork.alice, RoomVersionId::V11);
    let foreign = fork.world.snapshot(&elsewhere).info.create_event;
    let foreign = fork.world.run(fork.world.view.events.load(foreign)).unwrap().unwrap();
    let auth = good.auth_events[1..].iter().cloned().chain([foreign.pdu.event_id.clone()]).collect();
    let astray = fork.make_with_auth("bob", auth, &joined);
    fork.rejection(&astray);
    let missing: OwnedEventId = "$nobody-has-this".try_into().unwrap();
    let lacking = fork.make_with_auth("bob", vec![missing.clone()], &joined);
    assert_eq!(fork.receive(&lacking), Received::Need(vec![missing]));
}

#[test]
fn an_outlier_gets_its_place_when_it_comes_there() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let joined = fork.join("bob");
    let prev = std::slice::from_ref(&joined.event_id).to_vec();
    let topic = fork.make("bob", "org.example.free", Some("a"), json!({ "n": 1 }), &prev);
    fork.take_outlier(&topic);
    let outlier = fork.world.event(&topic.event_id);
    assert_eq!((outlier.state_before, outlier.order), (None, None));
    let child = fork.make_with_auth("bob", topic.auth_events.clone(), &topic);
    assert_eq!(fork.receive(&child), Received::Need(vec![topic.event_id.clone()]));
    assert_eq!(fork.receive(&topic), Received::Stored(Verdict::Accepted));
    assert_eq!(fork.receive(&child), Received::Stored(Verdict::Accepted));
    assert_eq!(fork.world.event(&topic.event_id).nid, outlier.nid);
    assert_eq!(fork.world.state(&fork.room, "org.example.free", "a"), Some(json!({ "n": 1 })));
}

#[test]
fn who_was_banned_meanwhile_soft_fails() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let joined = fork.join("bob");
    let content = to_raw_value(&json!({ "membership": "ban" })).unwrap();
    let ban =
        fork.world.rooms.send_state(&fork.alice, &fork.room, "m.room.member".into(), "@bob:remote", &content);
    fork.world.run(ban).unwrap();
    let snapshot = fork.world.snapshot(&fork.room);
    let evasion = fork.make(
        "bob",
        "m.room.message",
        None,
        json!({ "body": "evil" }),
        std::slice::from_ref(&joined.event_id),
    );
    assert!(matches!(fork.receive(&evasion), Received::Stored(Verdict::SoftFailed { .. })));
    assert_eq!(fork.world.snapshot(&fork.room).head.extremities, snapshot.head.extremities);
    assert!(fork.world.kinds(&fork.room).iter().all(|kind| kind != "m.room.message"));
    let next = fork.world.say(&fork.alice, &fork.room, "good riddance").unwrap();
    assert!(!fork.world.event(&next).pdu.prev_events.contains(&evasion.event_id));
}

/// Other servers accepted the soft-failed event, so there its parent is no longer at the end of the room.
#[test]
fn what_comes_after_a_soft_failed_event_comes_after_its_parents_too() {
    let mut fork = Fork::new(RoomVersionId::V11);
    fork.join("bob");
    let joined = fork.join("carol");
    let content = to_raw_value(&json!({ "membership": "ban" })).unwrap();
    let ban =
        fork.world.rooms.send_state(&fork.alice, &fork.room, "m.room.member".into(), "@bob:remote", &content);
    fork.world.run(ban).unwrap();
    let mut say = |sender: &str, prev: &Pdu| {
        let pdu = fork.make(
            sender,
            "m.room.message",
            None,
            json!({ "body": sender }),
            std::slice::from_ref(&prev.event_id),
        );
        (fork.receive(&pdu), pdu)
    };
    let (_, before) = say("carol", &joined);
    let (verdict, between) = say("bob", &before);
    assert!(matches!(verdict, Received::Stored(Verdict::SoftFailed { .. })));
    let (verdict, last) = say("carol", &between);
    assert_eq!(verdict, Received::Stored(Verdict::Accepted));
    let tips = fork.world.snapshot(&fork.room).head.extremities.clone();
    assert_eq!(tips.len(), 2, "the last message and the ban");
    assert!(tips.contains(&fork.world.event(&last.event_id).nid));
    assert!(!tips.contains(&fork.world.event(&before.event_id).nid));
}

#[test]
fn a_fork_is_resolved_and_merged() {
    for version in [RoomVersionId::V11, RoomVersionId::V12] {
        let mut fork = Fork::new(version);
        let joined = fork.join("bob");
        let prev = [joined.event_id.clone()];
        let topic = |n: u8| json!({ "n": n });
        let left = fork.make("bob", "org.example.free", Some("a"), topic(1), &prev);
        let right = fork.make("bob", "org.example.free", Some("a"), topic(2), &prev);
        assert_eq!(fork.receive(&left), Received::Stored(Verdict::Accepted));
        let answer = fork.receive(&right);
        assert_eq!(answer, Received::Stored(Verdict::Accepted));
        let snapshot = fork.world.snapshot(&fork.room);
        assert_eq!(snapshot.head.extremities.len(), 2);
        assert_eq!(fork.world.state(&fork.room, "org.example.free", "a"), Some(topic(2)), "the later one");
        let leave = json!({ "membership": "leave" });
        let left_room = fork.make(
            "bob",
            "m.room.member",
            Some("@bob:remote"),
            leave,
            std::slice::from_ref(&left.event_id),
        );
        assert_eq!(fork.receive(&left_room), Received::Stored(Verdict::Accepted));
        let bob = fork.world.run(fork.world.view.interner.lookup_user(&remote("bob"))).unwrap().unwrap();
        assert_eq!(fork.world.snapshot(&fork.room).membership(bob), Some(Membership::Leave));
        let merge = fork.world.say(&fork.alice, &fork.room, "merge").unwrap();
        assert_eq!(fork.world.event(&merge).pdu.prev_events.len(), 2);
        assert_eq!(fork.world.snapshot(&fork.room).head.extremities.len(), 1);
        // The tables say the same as memory.
        let restarted = World::on(fork.world.disk.copy(), 3);
        let (here, there) = (fork.world.snapshot(&fork.room), restarted.snapshot(&fork.room));
        assert_eq!((here.head.clone(), here.members.clone()), (there.head.clone(), there.members.clone()));
        assert_eq!(restarted.say(&fork.alice, &fork.room, "on").map(drop).map_err(|e| e.to_string()), Ok(()));
    }
}

#[test]
fn a_remote_redaction_is_applied_if_the_room_allows_it() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let of_alice = fork.world.say(&fork.alice, &fork.room, "stays").unwrap();
    let joined = fork.join("bob");
    let secret = fork.make(
        "bob",
        "m.room.message",
        None,
        json!({ "body": "secret" }),
        std::slice::from_ref(&joined.event_id),
    );
    fork.receive(&secret);
    for target in [&secret.event_id, &of_alice] {
        let tip = fork.tip();
        let redaction = fork.make("bob", "m.room.redaction", None, json!({ "target": target }), &[tip]);
        assert_eq!(fork.receive(&redaction), Received::Stored(Verdict::Accepted));
    }
    assert_eq!(content(&fork.world.event(&secret.event_id)), json!({}));
    assert_eq!(content(&fork.world.event(&of_alice))["body"], "stays");
}

/// One event of a random history: who says what, after which of the events so far.
#[derive(Debug, Clone)]
struct Step {
    sender: usize,
    what: u8,
    prevs: Vec<prop::sample::Index>,
}

fn step() -> impl Strategy<Value = Step> {
    let prevs = prop::collection::vec(any::<prop::sample::Index>(), 1..3);
    (0_usize..3, 0_u8..6, prevs).prop_map(|(sender, what, prevs)| Step { sender, what, prevs })
}

const NAMES: [&str; 3] = ["bob", "carol", "dave"];

/// The room with everybody joined, and the events that `steps` add to it, in the order of their making.
fn history(steps: &[Step], version: RoomVersionId) -> (Fork, World, Vec<Pdu>) {
    let mut fork = Fork::new(version);
    NAMES.iter().for_each(|name| drop(fork.join(name)));
    // The rest happens on a copy, so that others can start from here.
    let start = World::on(fork.world.disk.copy(), 2);
    let mut known = vec![fork.tip()];
    let mut pdus = Vec::new();
    for step in steps {
        let mut prevs: Vec<_> =
            step.prevs.iter().map(|index| known[index.index(known.len())].clone()).collect();
        prevs.sort_unstable();
        prevs.dedup();
        let name = NAMES[step.sender];
        let id = remote(name).to_string();
        let (kind, key, content) = match step.what {
            0 => ("m.room.message", None, json!({ "body": "hello" })),
            1 => ("m.room.member", Some(id.as_str()), json!({ "membership": "leave" })),
            2 => ("m.room.member", Some(id.as_str()), json!({ "membership": "join" })),
            3 => ("m.room.name", Some(""), json!({ "name": "not allowed" })),
            _ => ("org.example.free", Some("a"), json!({ "by": name, "at": pdus.len() })),
        };
        let pdu = fork.make(name, kind, key, content, &prevs);
        assert!(matches!(fork.receive(&pdu), Received::Stored(_)));
        known.push(pdu.event_id.clone());
        pdus.push(pdu);
    }
    (fork, start, pdus)
}

/// The state before an event, and whether it is rejected: what every server must agree on.
pub fn judged(world: &World, id: &OwnedEventId) -> (BTreeMap<String, String>, bool) {
    let event = world.event(id);
    let state = world.run(world.view.states.load(event.state_before.unwrap())).unwrap();
    let entries = state.iter().map(|(_, nid)| {
        let event: Arc<_> = world.run(world.view.events.load(nid)).unwrap().unwrap();
        let key = format!("{} {}", event.pdu.event_type, event.pdu.state_key.clone().unwrap());
        (key, event.pdu.event_id.to_string())
    });
    (entries.collect(), matches!(event.verdict, VerdictRecord::Rejected { .. }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_arrival_does_not_matter(
        steps in prop::collection::vec(step(), 1..14),
        order in prop::collection::vec(any::<prop::sample::Index>(), 14),
        newest in any::<bool>(),
    ) {
        let version = if newest { RoomVersionId::V12 } else { RoomVersionId::V11 };
        let (fork, other, mut waiting) = history(&steps, version);
        let all: Vec<_> = waiting.iter().map(|pdu| pdu.event_id.clone()).collect();
        // Any order in which parents come first: what lacks one is tried again.
        let mut turn = 0;
        while !waiting.is_empty() {
            let index = order[turn % order.len()].index(waiting.len());
            turn += 1;
            let received = other.run(other.rooms.receive(&fork.room, &raw(&waiting[index]), &fork.keys())).unwrap();
            if matches!(received, Received::Need(_)) {
                let first = waiting.remove(0);
                let received = other.run(other.rooms.receive(&fork.room, &raw(&first), &fork.keys())).unwrap();
                prop_assert!(matches!(received, Received::Stored(_)), "{received:?}");
            } else {
                waiting.remove(index);
            }
        }
        for id in &all {
            prop_assert_eq!(judged(&fork.world, id), judged(&other, id));
        }
        let soft_failed = |world: &World| {
            all.iter().any(|id| matches!(world.event(id).verdict, VerdictRecord::SoftFailed { .. }))
        };
        if !soft_failed(&fork.world) && !soft_failed(&other) {
            let tree = |world: &World| world.snapshot(&fork.room);
            let (here, there) = (tree(&fork.world), tree(&other));
            prop_assert_eq!(here.head.extremities.len(), there.head.extremities.len());
            prop_assert_eq!(here.joined_count, there.joined_count);
            let free = |world: &World| world.state(&fork.room, "org.example.free", "a");
            prop_assert_eq!(free(&fork.world), free(&other));
        }
    }
}
