//! What lies between events that were missed: far ends of gaps, and what is brought later.

use std::sync::atomic::Ordering;

use futures::future::join;
use myelin_dag::{NewEvent, Pdu, Verdict};
use myelin_store::{Direction, tables::GAPS};
use ruma::{OwnedEventId, RoomVersionId};
use serde_json::json;

use super::{
    receiving::{Fork, remote},
    world::content,
};
use crate::{Incoming, Received};

/// Bob's message after one that is held, or is not.
fn message(fork: &mut Fork, auth: &[OwnedEventId], prev: &Pdu) -> Pdu {
    let event = NewEvent::message(remote("bob"), "m.room.message", &json!({ "body": "secret" })).unwrap();
    fork.make_by(event, auth.to_vec(), prev)
}

/// The events that do not join on to what stands before them.
fn after_gaps(fork: &Fork) -> Vec<OwnedEventId> {
    let (world, nid) = (&fork.world, fork.world.snapshot(&fork.room).nid());
    let rows = world.run(world.view.store.scan(&GAPS, &nid, Direction::Forward, 100)).unwrap();
    let event = |nid| world.run(world.view.events.load(nid)).unwrap().unwrap();
    rows.into_iter().map(|(_, nid)| event(nid).pdu.event_id.clone()).collect()
}

#[test]
fn what_comes_with_the_far_end_of_a_gap_joins_on_to_it() {
    for at_once in [true, false] {
        let mut fork = Fork::new(RoomVersionId::V11);
        let joined = fork.join("bob");
        let first = fork.make("bob", "m.room.message", None, json!({}), &[joined.event_id]);
        let auth = first.auth_events.clone();
        let far_end = message(&mut fork, &auth, &first);
        let child = message(&mut fork, &auth, &far_end);
        fork.take_outlier(&far_end);
        fork.place(&far_end, &[]);
        let incoming: Vec<Incoming> = [&far_end, &child].map(|pdu| fork.verified(pdu).into()).into();
        let room = fork.world.snapshot(&fork.room).nid();
        let (known, stored) = (Received::Known(Verdict::Accepted), Received::Stored(Verdict::Accepted));
        let mut answers = Vec::new();
        for pdus in incoming.chunks(if at_once { 2 } else { 1 }) {
            answers.extend(fork.world.run(fork.world.rooms.receive_all(room, pdus)).unwrap());
        }
        assert_eq!(answers, [known, stored]);
        assert_eq!(after_gaps(&fork), [far_end.event_id], "at once: {at_once}");
    }
}

#[test]
fn a_redaction_that_is_not_durable_yet_redacts_what_history_brings() {
    let mut fork = Fork::new(RoomVersionId::V11);
    let joined = fork.join("bob");
    let prev = [joined.event_id.clone()];
    let message = fork.make("bob", "m.room.message", None, json!({ "body": "secret" }), &prev);
    let target = json!({ "target": message.event_id });
    let redaction = fork.make("bob", "m.room.redaction", None, target, &prev);
    let (world, room) = (&fork.world, fork.world.snapshot(&fork.room).nid());
    let (redactions, history) = ([fork.verified(&redaction).into()], [fork.verified(&message)]);
    world.counts.lags.store(true, Ordering::Relaxed);
    let redacted = world.rooms.receive_all(room, &redactions);
    let (redacted, brought) = world.run(join(redacted, world.rooms.receive_history(room, None, &history)));
    assert_eq!(redacted.unwrap(), [Received::Stored(Verdict::Accepted)]);
    assert_eq!(brought.unwrap(), [Received::Stored(Verdict::Accepted)]);
    for world in [world, &world.restarted()] {
        let event = world.event(&message.event_id);
        assert_eq!(content(&event), json!({}));
        assert_eq!(event.redacted_by, Some(world.event(&redaction.event_id).nid));
    }
}
