//! Events that are held without a place in the timeline.

use std::{collections::BTreeMap, sync::Arc};

use myelin_dag::{
    Pdu, SigningKey,
    checks::{RawPdu, VerifiedPdu},
};
use myelin_store::tables::{ROOM_HEADS, VerdictRecord};
use myelin_view::RoomInfo;
use ruma::{OwnedRoomId, RoomVersionId};
use serde_json::{json, value::RawValue};

use super::world::World;
use crate::{Error, Outliers};

/// A room in one world, as another world that only knows its name is offered it.
struct Elsewhere {
    home: World,
    room: OwnedRoomId,
    world: World,
    info: Arc<RoomInfo>,
}

impl Elsewhere {
    fn new(version: RoomVersionId) -> Self {
        let home = World::new(1);
        let alice = home.user("alice");
        let room = home.room_of_version(&alice, version.clone());
        let bob = home.user("bob");
        home.join(&bob, &room).unwrap();
        home.set(&alice, &room, "m.room.name", "", json!({ "name": "Room" })).unwrap();
        home.leave(&bob, &room).unwrap();
        let world = World::new(2);
        let info = world.run(world.rooms.know_room(&room, &version)).unwrap();
        Self { home, room, world, info }
    }

    fn all(&self) -> Vec<VerifiedPdu> {
        let events = self.home.timeline(&self.room);
        events.iter().map(|event| verified(&event.pdu, &self.info)).collect()
    }

    fn take(&self, events: Vec<VerifiedPdu>) -> Outliers {
        self.world.run(self.world.rooms.take_outliers(&self.info, events)).unwrap()
    }
}

fn verified(pdu: &Pdu, info: &RoomInfo) -> VerifiedPdu {
    let raw = RawValue::from_string(pdu.json.to_string()).unwrap();
    let key = SigningKey::from_seed("1", [7; 32]).unwrap();
    let keys = BTreeMap::from([("localhost".to_owned(), key.public_key_set())]);
    RawPdu(&raw).check_format(&info.rules).unwrap().verify(&keys, &info.rules).unwrap()
}

#[test]
fn a_whole_room_is_taken_in_any_order_and_only_once() {
    for version in [RoomVersionId::V6, RoomVersionId::V11, RoomVersionId::V12] {
        let there = Elsewhere::new(version);
        let mut events = there.all();
        events.reverse();
        assert_eq!(there.take(events), Outliers::default());
        for event in there.home.timeline(&there.room) {
            let held = there.world.event(&event.pdu.event_id);
            assert_eq!(
                (held.order, held.state_before, &held.verdict),
                (None, None, &VerdictRecord::Accepted)
            );
            assert_eq!(held.pdu.json, event.pdu.json);
        }
        let commits = there.world.counts.commits.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(there.take(there.all()), Outliers::default());
        let again = there.world.counts.commits.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(commits, again, "nothing was written");
    }
}

#[test]
fn chains_are_closed() {
    let there = Elsewhere::new(RoomVersionId::V11);
    there.take(there.all());
    let world = &there.world;
    for event in there.home.timeline(&there.room).iter().filter(|event| event.pdu.is_state()) {
        let held = world.event(&event.pdu.event_id);
        let chain = world.run(world.rooms.chains.load_many(&[held.nid])).unwrap().remove(0);
        let auth: Vec<_> = event.pdu.auth_events.iter().map(|id| world.event(id).nid).collect();
        assert!(auth.iter().all(|nid| chain.contains(*nid)));
    }
}

#[test]
fn what_lacks_an_auth_event_waits_for_it() {
    let there = Elsewhere::new(RoomVersionId::V11);
    let (create, rest): (Vec<_>, Vec<_>) =
        there.all().into_iter().partition(|event| event.pdu().is_state_of("m.room.create", ""));
    let count = rest.len();
    let outcome = there.take(rest);
    assert_eq!(outcome.missing, [create[0].pdu().event_id.clone()]);
    assert_eq!(outcome.left_out.len(), count);
    assert_eq!(there.take(create), Outliers::default());
    assert_eq!(there.take(there.all()), Outliers::default());
}

#[test]
fn events_of_another_room_are_left_out() {
    let there = Elsewhere::new(RoomVersionId::V11);
    let alice = there.home.user("alice");
    let other = there.home.room_of_version(&alice, RoomVersionId::V11);
    let create = verified(&there.home.timeline(&other)[0].pdu, &there.info);
    let id = create.pdu().event_id.clone();
    assert_eq!(there.take(vec![create]).left_out, [id]);
}

#[test]
fn what_its_auth_events_forbid_is_held_as_rejected_with_all_that_stands_on_it() {
    let there = Elsewhere::new(RoomVersionId::V11);
    let events = there.home.timeline(&there.room);
    let id_of = |kind: &str| events.iter().find(|event| event.pdu.event_type.to_string() == kind).unwrap();
    let create = id_of("m.room.create");
    // A join without the rules that allow it.
    let mallory = ruma::owned_user_id!("@mallory:localhost");
    let content = json!({ "membership": "join" });
    let event = myelin_dag::NewEvent::state(mallory.clone(), "m.room.member", mallory.as_str(), &content);
    let key = SigningKey::from_seed("1", [7; 32]).unwrap();
    let make = |event: myelin_dag::NewEvent, auth: Vec<_>| {
        let parents = myelin_dag::Parents {
            room_id: Some(there.room.clone()),
            prev_events: vec![create.pdu.event_id.clone()],
            auth_events: auth,
            depth: 9,
            names: None,
        };
        myelin_dag::build(&there.info.rules, event, parents, 5, &key).unwrap()
    };
    let join = make(event.unwrap(), vec![create.pdu.event_id.clone()]);
    let name = json!({ "name": "Mine" });
    let name = myelin_dag::NewEvent::state(mallory, "m.room.name", "", &name).unwrap();
    let name = make(name, vec![create.pdu.event_id.clone(), join.event_id.clone()]);
    let mut all = there.all();
    all.extend([verified(&join, &there.info), verified(&name, &there.info)]);
    let rejected: Vec<_> = there.take(all).rejected.into_iter().map(|(id, _)| id).collect();
    assert_eq!(rejected.len(), 2);
    assert!(rejected.contains(&join.event_id) && rejected.contains(&name.event_id));
    assert!(there.world.event(&name.event_id).pdu.rejected);
}

#[test]
fn a_room_that_is_known_by_name_is_not_held() {
    let there = Elsewhere::new(RoomVersionId::V11);
    there.take(there.all());
    let world = &there.world;
    assert!(world.run(world.view.room_by_id(&there.room)).unwrap().is_none());
    assert!(world.run(world.view.store.get(&ROOM_HEADS, &there.info.nid)).unwrap().is_none());
    let carol = world.user("carol");
    assert!(matches!(world.join(&carol, &there.room), Err(Error::NotFound(_))));
    assert!(matches!(world.say(&carol, &there.room, "?"), Err(Error::Forbidden(_))));
    let other = world.run(world.rooms.know_room(&there.room, &RoomVersionId::V10)).unwrap();
    assert_eq!((other.nid, &other.version), (there.info.nid, &RoomVersionId::V10));
    let old = world.run(world.rooms.know_room(&there.room, &RoomVersionId::V1));
    assert!(matches!(old, Err(Error::InvalidParam(_))), "what is held of it could not be read any more");
    let home = there.home.run(there.home.rooms.know_room(&there.room, &RoomVersionId::V10));
    assert!(matches!(home, Err(Error::InvalidParam(_))), "a room that is held has its version");
}
