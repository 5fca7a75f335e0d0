//! What an event of another server names as its auth events, and what cannot be one.

use myelin_core::{EventNid, Position};
use myelin_dag::{NewEvent, Pdu, Verdict};
use myelin_store::{
    Batch, NidKind,
    tables::{EVENT_NIDS, EVENTS, Placement, VerdictRecord},
};
use myelin_view::Event;
use ruma::{OwnedEventId, RoomVersionId};
use serde_json::json;

use super::receiving::{Fork, remote};
use crate::{Incoming, Received};

fn topic(sender: &str, key: &str) -> NewEvent {
    NewEvent::state(remote(sender), "org.example.free", key, &json!({ "by": sender })).unwrap()
}

impl Fork {
    /// What Bob's state events name, after `prev`.
    fn auth_of_bob(&mut self, prev: &Pdu) -> Vec<OwnedEventId> {
        let prev = std::slice::from_ref(&prev.event_id);
        self.make("bob", "org.example.free", Some("x"), json!({}), prev).auth_events.to_vec()
    }

    fn receive_together(&self, pdus: &[&Pdu]) -> Vec<Received> {
        let incoming: Vec<Incoming> = pdus.iter().map(|pdu| self.verified(pdu).into()).collect();
        let room = self.world.snapshot(&self.room).nid();
        self.world.run(self.world.rooms.receive_all(room, &incoming)).unwrap()
    }

    /// As an invite to a room elsewhere is held: by itself, without an auth chain.
    fn holds_bare(&self, pdu: &Pdu) {
        let view = &self.world.view;
        let room = self.world.snapshot(&self.room).nid();
        let key = pdu.state_key.clone().unwrap();
        let (nid, sender, key) = self.world.run(async {
            let nid = EventNid(view.nids.allocate(NidKind::Event).await.unwrap());
            let sender = view.interner.user(&pdu.sender).await.unwrap();
            (nid, sender, view.interner.state_key("m.room.member", &key).await.unwrap())
        });
        let pdu = std::sync::Arc::new(pdu.clone());
        let id = pdu.event_id.to_string();
        let event = Event::new(nid, room, sender, Some(key), None, VerdictRecord::Accepted, None, pdu);
        let mut batch = Batch::new();
        batch.put(&EVENTS, &nid, &event.row(Placement::Outside, Position::ZERO));
        batch.put(&EVENT_NIDS, &id, &nid);
        self.world.run(view.store.commit(batch)).unwrap();
    }
}

#[test]
fn a_message_authorises_nothing_and_stops_nothing() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let joined = fork.join("bob");
    let prev = std::slice::from_ref(&joined.event_id);
    let message = fork.make("bob", "m.room.message", None, json!({}), prev);
    assert_eq!(fork.receive(&message), Received::Stored(Verdict::Accepted));
    let auth = fork.auth_of_bob(&message);
    let with_message = auth.iter().cloned().chain([message.event_id.clone()]).collect();
    let alone = fork.make_by(topic("bob", "a"), with_message, &message);
    fork.rejection(&alone);
    // What names that one is rejected in turn, and what comes along with it is not.
    let with_rejected = auth.iter().cloned().chain([alone.event_id.clone()]).collect();
    let beside = fork.make_by(topic("bob", "b"), with_rejected, &message);
    let good = fork.make_by(topic("bob", "c"), auth, &message);
    let answers = fork.receive_together(&[&beside, &good]);
    assert!(matches!(answers[0], Received::Stored(Verdict::Rejected { .. })), "{answers:?}");
    assert_eq!(answers[1], Received::Stored(Verdict::Accepted));
    assert_eq!(fork.world.state(&fork.room, "org.example.free", "b"), None);
    assert!(fork.world.state(&fork.room, "org.example.free", "c").is_some());
    // As an outlier it is what it was.
    fork.take_outlier(&alone);
    assert!(fork.world.event(&alone.event_id).state_before.is_some());
}

#[test]
fn what_is_held_for_itself_alone_is_brought_with_what_authorises_it() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let levels = json!({ "users": { "@alice:localhost": 100, "@bob:remote": 60 } });
    fork.world.set(&fork.alice, &fork.room, "m.room.power_levels", "", levels).unwrap();
    let joined = fork.join("bob");
    let auth = fork.auth_of_bob(&joined);
    let carol = remote("carol");
    let member = |membership: &str| {
        let content = json!({ "membership": membership });
        NewEvent::state(remote("bob"), "m.room.member", carol.as_str(), &content).unwrap()
    };
    let prev = std::slice::from_ref(&joined.event_id);
    let invite =
        fork.make("bob", "m.room.member", Some(carol.as_str()), json!({ "membership": "invite" }), prev);
    fork.holds_bare(&invite);
    let auth = auth.into_iter().chain([invite.event_id.clone()]).collect();
    let kick = fork.make_by(member("leave"), auth, &joined);
    assert_eq!(fork.receive(&kick), Received::Need(vec![invite.event_id.clone()]));
    let lacking = |fork: &Fork| {
        let ids = [joined.event_id.clone(), invite.event_id.clone()];
        fork.world.run(fork.world.rooms.without_authority(&ids)).unwrap()
    };
    assert_eq!(lacking(&fork), std::slice::from_ref(&invite.event_id));
    fork.take_outlier(&invite);
    assert!(lacking(&fork).is_empty());
    assert_eq!(fork.receive(&kick), Received::Stored(Verdict::Accepted));
    assert_eq!(
        fork.world.state(&fork.room, "m.room.member", carol.as_str()),
        Some(json!({ "membership": "leave" }))
    );
}
