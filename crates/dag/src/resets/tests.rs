use std::collections::BTreeSet;

use ruma::RoomVersionId;
use serde_json::{Value, json};

use super::*;
use crate::{
    Pdu,
    resolve::{resolve, tests::World},
    samples::{SampleRoom, user},
};

const MEMBER: StateKeyNid = StateKeyNid(1);
const LEVELS: StateKeyNid = StateKeyNid(2);
const TOPIC: StateKeyNid = StateKeyNid(3);

fn tree(entries: &[(StateKeyNid, u64)]) -> StateTree {
    entries.iter().map(|(key, event)| (*key, EventNid(*event))).collect()
}

/// Events 11, 12, 13 replaced each other in this order; 21 is of another branch. Accepted were 30 and 31.
fn watch(before: &[(StateKeyNid, u64)], after: &[(StateKeyNid, u64)]) -> Vec<Reset> {
    let replaced = |event: EventNid| matches!(event.0, 12 | 13).then(|| EventNid(event.0 - 1));
    let accepted = |event: EventNid| matches!(event.0, 30 | 31);
    resets(&tree(before), &tree(after), |key| key != TOPIC, accepted, replaced)
}

#[test]
fn a_reset_is_what_no_accepted_event_asked_for() {
    let none: Vec<Reset> = Vec::new();
    let one = |before: Option<u64>, after: Option<u64>, kind| {
        vec![Reset { key: MEMBER, before: before.map(EventNid), after: after.map(EventNid), kind }]
    };
    type Entries = &'static [(StateKeyNid, u64)];
    let table: [(Entries, Entries, Vec<Reset>, &str); 10] = [
        (&[(MEMBER, 11)], &[(MEMBER, 11)], none.clone(), "nothing changed"),
        (&[(MEMBER, 11)], &[(MEMBER, 30)], none.clone(), "the accepted event itself"),
        (&[(MEMBER, 11), (LEVELS, 5)], &[(MEMBER, 31), (LEVELS, 30)], none.clone(), "two accepted events"),
        (&[], &[(MEMBER, 30)], none.clone(), "something new"),
        (&[(TOPIC, 12)], &[(TOPIC, 11)], none, "nobody watches topics"),
        (&[(MEMBER, 12)], &[(MEMBER, 11)], one(Some(12), Some(11), ResetKind::Reverted), "one step back"),
        (&[(MEMBER, 13)], &[(MEMBER, 11)], one(Some(13), Some(11), ResetKind::Reverted), "two steps back"),
        (&[(MEMBER, 13)], &[(LEVELS, 30)], one(Some(13), None, ResetKind::Dropped), "gone"),
        (&[(MEMBER, 13)], &[(MEMBER, 21)], one(Some(13), Some(21), ResetKind::Overturned), "another branch"),
        (&[], &[(MEMBER, 21)], one(None, Some(21), ResetKind::Overturned), "from nowhere"),
    ];
    for (before, after, expected, why) in table {
        assert_eq!(watch(before, after), expected, "{why}");
    }
}

#[test]
fn replacements_in_a_circle_end() {
    let circle = |event: EventNid| Some(EventNid(3 - event.0));
    let found = resets(&tree(&[(MEMBER, 1)]), &tree(&[(MEMBER, 9)]), |_| true, |_| false, circle);
    assert_eq!(found[0].kind, ResetKind::Overturned);
}

#[test]
fn memberships_and_rights_are_watched() {
    let watched = ["m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.server_acl"];
    assert!(watched.iter().all(|event_type| is_watched(&StateEventType::from(*event_type))));
    assert!(!is_watched(&StateEventType::RoomTopic) && !is_watched(&"org.example.x".into()));
}

/// Sends as `sender` after `prev` and gives the event.
fn after(room: &SampleRoom, world: &mut World, prev: &Pdu, step: (&str, &str, Option<&str>, Value)) -> Pdu {
    let state = world.pdus(&world.states_after[&prev.event_id]);
    let (sender, event_type, state_key, content) = step;
    let event = room.new_event(sender, event_type, state_key, content);
    let pdu = room.make(event, &[prev], &state, 9_000 + prev.depth);
    world.add(pdu.clone().into());
    pdu
}

/// Dave joins while the room is public, and then it is made invite-only. An event of a server that knows of neither
/// brings the dispute about: by the join rule that wins, his join is not allowed, and he is out.
#[test]
fn the_member_who_joined_before_the_doors_were_closed() {
    for version in [RoomVersionId::V1, RoomVersionId::V2, RoomVersionId::V6, RoomVersionId::V11] {
        let mut room = SampleRoom::new(&version);
        let dave = user("dave").to_string();
        let member =
            |membership: &str| ("dave", "m.room.member", Some(&*dave), json!({ "membership": membership }));
        let (sender, event_type, key, content) = member("join");
        room.send(sender, event_type, key, content);
        let (sender, event_type, key, content) = member("leave");
        let left = room.send(sender, event_type, key, content);
        let mut world = World::new(&room.rules);
        room.events.iter().for_each(|pdu| world.add(pdu.clone()));

        let join = after(&room, &mut world, &left, member("join"));
        let rule = ("alice", "m.room.join_rules", Some(""), json!({ "join_rule": "invite" }));
        let closed = after(&room, &mut world, &join, rule);
        let current = world.states_after[&closed.event_id].clone();
        let late = ("alice", "m.room.topic", Some(""), json!({ "topic": "late" }));
        let late = after(&room, &mut world, &left, late);
        let both = [current.clone(), world.states_after[&late.event_id].clone()];
        let resolved = resolve(&room.rules, &both, &world).unwrap();

        let accepted = BTreeSet::from([world.nid(&late.event_id)]);
        let by_type = |key| is_watched(&world.key(key).0);
        let replaced = |event| world.replaced(event);
        let found = resets(&current, &resolved, by_type, |event| accepted.contains(&event), replaced);
        let expected = [(dave.as_str(), Some(world.nid(&join.event_id)), Some(world.nid(&left.event_id)))];
        let shown: Vec<_> =
            found.iter().map(|reset| (world.key(reset.key).1, reset.before, reset.after)).collect();
        let shown: Vec<_> =
            shown.iter().map(|(key, before, after)| (key.as_str(), *before, *after)).collect();
        assert_eq!(shown, expected, "{version}");
        assert_eq!(found[0].kind, ResetKind::Reverted);
    }
}
