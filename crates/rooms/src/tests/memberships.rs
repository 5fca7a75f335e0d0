//! Memberships, every way there is.

use myelin_store::{
    Batch,
    codec::AtPosition,
    tables::{
        ACCOUNT_DATA, AccountDataRecord, AccountKind, Membership, PROFILES, ProfileFieldRecord, USER_ROOMS,
    },
};
use ruma::{RoomId, RoomVersionId};
use serde_json::{Map, Value, json};

use super::world::{World, assert_forbidden};
use crate::{CreateRoom, Error, Join, MembershipChange, Preset, Sender};

fn private(world: &World, sender: &Sender) -> ruma::OwnedRoomId {
    world.create(sender, CreateRoom { preset: Some(Preset::PrivateChat), ..CreateRoom::default() })
}

fn membership(world: &World, room: &ruma::RoomId, user: &Sender) -> Option<Membership> {
    world.snapshot(room).membership(user.user)
}

#[test]
fn a_public_room_is_joined_once() {
    let world = World::new(1);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.public_room(&alice);
    let first = world.join(&bob, &room).unwrap();
    assert_eq!(world.join(&bob, &room).unwrap(), first);
    assert_eq!(world.snapshot(&room).joined_count, 2);
    assert!(world.snapshot(&room).local_joined.contains(&bob.user));
    let unknown = "!unknown:localhost".try_into().unwrap();
    assert!(matches!(world.join(&bob, unknown), Err(Error::NotFound(_))));
}

#[test]
fn a_private_room_takes_an_invite() {
    let world = World::new(2);
    let (alice, bob, carol) = (world.user("alice"), world.user("bob"), world.user("carol"));
    let room = private(&world, &alice);
    assert_forbidden(world.join(&bob, &room), "not invited");
    assert_forbidden(world.invite(&bob, &room, &carol), "not in the room");
    let invite = world.invite(&alice, &room, &bob).unwrap();
    assert_eq!(world.invite(&alice, &room, &bob).unwrap(), invite, "invited already");
    world.join(&bob, &room).unwrap();
    assert_forbidden(world.invite(&alice, &room, &bob), "in this room already");
    let elsewhere = "@x:elsewhere".try_into().unwrap();
    let result = world.run(world.rooms.invite(&alice, &room, elsewhere, MembershipChange::default()));
    assert!(matches!(result, Err(Error::Unreachable(_))));
}

#[test]
fn who_blocks_invites_is_not_invited() {
    let world = World::new(3);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let mut batch = Batch::new();
    let key = (bob.user, myelin_core::RoomNid::GLOBAL, "m.invite_permission_config".to_owned());
    let json = json!({ "default_action": "block" }).to_string();
    let value = AtPosition { position: myelin_core::Position(1), value: AccountDataRecord { json } };
    batch.put(&ACCOUNT_DATA, &key, &value);
    world.run(world.view.store.commit(batch)).unwrap();
    let room = private(&world, &alice);
    assert!(matches!(world.invite(&alice, &room, &bob), Err(Error::InviteBlocked(_))));
    let request = CreateRoom { invite: vec![bob.user_id.clone()], ..CreateRoom::default() };
    let room = world.create(&alice, request);
    assert_eq!(membership(&world, &room, &bob), None, "the room comes about without");
}

#[test]
fn leaving_rejecting_and_forgetting() {
    let world = World::new(4);
    let (alice, bob, carol) = (world.user("alice"), world.user("bob"), world.user("carol"));
    let room = private(&world, &alice);
    assert_forbidden(world.leave(&bob, &room), "not in the room");
    world.invite(&alice, &room, &bob).unwrap();
    let forget = |user: &Sender| world.run(world.rooms.forget(user, &room));
    assert!(matches!(forget(&bob), Err(Error::Unknown(_))), "an invite is to be rejected first");
    world.leave(&bob, &room).unwrap();
    world.leave(&bob, &room).unwrap();
    assert_eq!(membership(&world, &room, &bob), Some(Membership::Leave));
    let row = || {
        world
            .run(world.view.store.get(&USER_ROOMS, &(bob.user, world.snapshot(&room).nid())))
            .unwrap()
            .unwrap()
    };
    assert!(!row().value.was_joined);
    forget(&bob).unwrap();
    forget(&bob).unwrap();
    assert!(row().value.forgotten);
    assert!(matches!(forget(&carol), Err(Error::NotFound(_))));
    assert!(matches!(forget(&alice), Err(Error::Unknown(_))));

    world.invite(&alice, &room, &bob).unwrap();
    assert!(!row().value.forgotten, "a new membership brings the room back");
    world.join(&bob, &room).unwrap();
    world.leave(&bob, &room).unwrap();
    assert!(row().value.was_joined);
    world.invite(&alice, &room, &bob).unwrap();
    assert!(row().value.was_joined, "it stays true");
}

#[test]
fn kicking_banning_unbanning() {
    let world = World::new(5);
    let (alice, bob, carol) = (world.user("alice"), world.user("bob"), world.user("carol"));
    let room = world.public_room(&alice);
    assert_forbidden(world.kick(&alice, &room, &bob), "is not in this room");
    world.join(&bob, &room).unwrap();
    assert_forbidden(world.kick(&carol, &room, &bob), "not in the room");
    assert_forbidden(world.kick(&bob, &room, &alice), "need power level 50 to kick people, you have 0");
    assert_forbidden(world.ban(&bob, &room, &carol), "need power level 50 to ban people, you have 0");
    world.kick(&alice, &room, &bob).unwrap();
    world.join(&bob, &room).unwrap();
    assert!(matches!(world.unban(&alice, &room, &bob), Err(Error::BadState(_))));
    world.ban(&alice, &room, &bob).unwrap();
    let events = world.kinds(&room).len();
    world.ban(&alice, &room, &bob).unwrap();
    assert_eq!(world.kinds(&room).len(), events, "banned already");
    assert_forbidden(world.join(&bob, &room), "banned");
    assert_forbidden(world.leave(&bob, &room), "banned");
    assert_forbidden(world.invite(&alice, &room, &bob), "is banned");
    world.join(&carol, &room).unwrap();
    assert_forbidden(world.unban(&carol, &room, &bob), "need power level 50 to unban people, you have 0");
    world.unban(&alice, &room, &bob).unwrap();
    world.join(&bob, &room).unwrap();
    // Somebody who was never there.
    world.ban(&alice, &room, &world.user("dave")).unwrap();
}

#[test]
fn equals_do_not_kick_each_other() {
    let world = World::new(6);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.room_of_version(&alice, RoomVersionId::V11);
    world.join(&bob, &room).unwrap();
    let users = json!({ "@alice:localhost": 100, "@bob:localhost": 100 });
    world.set(&alice, &room, "m.room.power_levels", "", json!({ "users": users })).unwrap();
    assert_forbidden(world.kick(&bob, &room, &alice), "as much power");
}

#[test]
fn knocking() {
    let world = World::new(7);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = private(&world, &alice);
    let knock =
        || world.run(world.rooms.knock(&bob, &room, MembershipChange::because(Some("hi".to_owned()))));
    assert_forbidden(knock(), "not allowed to knock");
    world.set(&alice, &room, "m.room.join_rules", "", json!({ "join_rule": "knock" })).unwrap();
    let event = knock().unwrap();
    assert_eq!(knock().unwrap(), event);
    assert_eq!(world.state(&room, "m.room.member", "@bob:localhost").unwrap()["reason"], "hi");
    assert_forbidden(world.join(&bob, &room), "not invited");
    world.invite(&alice, &room, &bob).unwrap();
    assert_forbidden(knock(), "invited");
    world.join(&bob, &room).unwrap();
    assert_forbidden(knock(), "in this room already");
    world.ban(&alice, &room, &bob).unwrap();
    assert_forbidden(knock(), "banned");
}

#[test]
fn restricted_rooms_let_members_of_other_rooms_in() {
    let world = World::new(8);
    let (alice, bob, carol) = (world.user("alice"), world.user("bob"), world.user("carol"));
    let space = world.public_room(&alice);
    let allow = json!([{ "type": "m.room_membership", "room_id": space }, { "type": "org.example.other" }]);
    for rule in ["restricted", "knock_restricted"] {
        let room = private(&world, &alice);
        let content = json!({ "join_rule": rule, "allow": allow });
        world.set(&alice, &room, "m.room.join_rules", "", content).unwrap();
        assert_forbidden(world.join(&carol, &room), "do not belong to any");
        world.join(&bob, &space).unwrap();
        world.join(&bob, &room).unwrap();
        let member = world.state(&room, "m.room.member", "@bob:localhost").unwrap();
        assert_eq!(member["join_authorised_via_users_server"], "@alice:localhost");
        world.invite(&alice, &room, &carol).unwrap();
        world.join(&carol, &room).unwrap();
        let member = world.state(&room, "m.room.member", "@carol:localhost").unwrap();
        assert_eq!(member, json!({ "membership": "join" }), "the invite is enough");
    }
}

#[test]
fn nobody_to_let_one_into_a_restricted_room() {
    let world = World::new(9);
    let (alice, bob, carol) = (world.user("alice"), world.user("bob"), world.user("carol"));
    let room = world.room_of_version(&alice, RoomVersionId::V11);
    world.join(&bob, &room).unwrap();
    let other = world.public_room(&carol);
    let levels = json!({ "users": { "@alice:localhost": 100 }, "invite": 50 });
    world.set(&alice, &room, "m.room.power_levels", "", levels).unwrap();
    let rules =
        json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": other }] });
    world.set(&alice, &room, "m.room.join_rules", "", rules).unwrap();
    world.leave(&alice, &room).unwrap();
    assert!(matches!(world.join(&carol, &room), Err(Error::UnableToGrantJoin)));
}

#[test]
fn guests_need_guest_access() {
    let world = World::new(10);
    let alice = world.user("alice");
    let guest = Sender { guest: true, ..world.user("guest") };
    let room = world.public_room(&alice);
    assert!(matches!(world.join(&guest, &room), Err(Error::GuestAccess)));
    world.set(&alice, &room, "m.room.guest_access", "", json!({ "guest_access": "can_join" })).unwrap();
    world.join(&guest, &room).unwrap();
}

#[test]
fn guests_leave_when_they_are_no_longer_let_in() {
    let world = World::new(14);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let guest = Sender { guest: true, ..world.user("guest") };
    world.has_account(&guest, AccountKind::Guest);
    world.has_account(&bob, AccountKind::User);
    let access = |room: &RoomId, access: &str| {
        world.set(&alice, room, "m.room.guest_access", "", json!({ "guest_access": access })).unwrap();
    };
    let (open, closing) = (world.public_room(&alice), world.public_room(&alice));
    for room in [&open, &closing] {
        access(room, "can_join");
        world.join(&guest, room).unwrap();
        world.join(&bob, room).unwrap();
    }
    world.sim.env().spawner.spawn("upkeep", Box::pin(crate::run_member_upkeep(world.rooms.clone())));
    access(&closing, "forbidden");
    world.run(world.sim.env().clock.sleep(std::time::Duration::from_secs(1)));
    assert_eq!(membership(&world, &closing, &guest), Some(Membership::Leave));
    assert_eq!(membership(&world, &open, &guest), Some(Membership::Join));
    assert_eq!(membership(&world, &closing, &bob), Some(Membership::Join));
}

fn set_profile(world: &World, user: &Sender, name: &str) {
    let mut batch = Batch::new();
    let json = json!(name).to_string();
    batch.put(&PROFILES, &(user.user, "displayname".to_owned()), &ProfileFieldRecord { json });
    batch.log(&myelin_store::log::LogEntry::Profile { user: user.user });
    world.run(world.view.store.commit(batch)).unwrap();
}

#[test]
fn member_events_show_the_profile() {
    let world = World::new(11);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    set_profile(&world, &bob, "Bob");
    let room = private(&world, &alice);
    world.invite(&alice, &room, &bob).unwrap();
    let member = || world.state(&room, "m.room.member", "@bob:localhost").unwrap();
    assert_eq!(member(), json!({ "membership": "invite", "displayname": "Bob" }));
    world.join(&bob, &room).unwrap();
    assert_eq!(member(), json!({ "membership": "join", "displayname": "Bob" }));
}

#[test]
fn a_changed_profile_reaches_every_room_even_after_a_restart() {
    let mut world = World::new(12);
    let alice = world.user("alice");
    let rooms: Vec<_> = (0..3).map(|_| world.public_room(&alice)).collect();
    let left = world.public_room(&alice);
    world.leave(&alice, &left).unwrap();
    set_profile(&world, &alice, "Alice");
    for name in ["Alice", "Alice the Second"] {
        set_profile(&world, &alice, name);
        world = world.restarted();
        let task = crate::run_member_upkeep(world.rooms.clone());
        world.sim.env().spawner.spawn("profiles", Box::pin(task));
        world.run(world.sim.env().clock.sleep(std::time::Duration::from_secs(1)));
        for room in &rooms {
            let member = world.state(room, "m.room.member", "@alice:localhost").unwrap();
            assert_eq!(member["displayname"], name);
        }
    }
    assert_eq!(world.snapshot(&left).membership(alice.user), Some(Membership::Leave));
    // Create, join, four of the preset, and two changes: what is right already is not written again.
    assert_eq!(world.kinds(&rooms[0]).len(), 8);
}

#[test]
fn a_deactivated_user_leaves_all_rooms() {
    let world = World::new(13);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let (joined, invited) = (world.public_room(&alice), private(&world, &alice));
    let banned = world.public_room(&alice);
    world.join(&bob, &joined).unwrap();
    world.invite(&alice, &invited, &bob).unwrap();
    world.ban(&alice, &banned, &bob).unwrap();
    world.run(world.rooms.leave_all(bob.user)).unwrap();
    world.run(world.rooms.leave_all(bob.user)).unwrap();
    for room in [&joined, &invited] {
        assert_eq!(membership(&world, room, &bob), Some(Membership::Leave));
    }
    assert_eq!(membership(&world, &banned, &bob), Some(Membership::Ban));
}

fn member(membership: &str) -> Value {
    json!({ "membership": membership, "org.example.kept": true })
}

#[test]
fn memberships_through_the_state_endpoint() {
    let world = World::new(14);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = private(&world, &alice);
    let set =
        |who: &Sender, target: &str, value: Value| world.set(who, &room, "m.room.member", target, value);
    let bob_id = "@bob:localhost";
    set(&alice, bob_id, member("invite")).unwrap();
    let joined = set(&bob, bob_id, member("join")).unwrap();
    assert_eq!(set(&bob, bob_id, member("join")).unwrap(), joined, "the same again");
    let renamed = set(&bob, bob_id, json!({ "membership": "join", "displayname": "Bobby" })).unwrap();
    assert_ne!(renamed, joined);
    set(&alice, bob_id, member("leave")).unwrap();
    set(&alice, bob_id, member("ban")).unwrap();
    let unbanned = set(&alice, bob_id, member("leave")).unwrap();
    assert_eq!(world.event(&unbanned).pdu.content_field("org.example.kept"), Some(true));
    assert_forbidden(set(&alice, bob_id, member("join")), "oneself");
    assert!(matches!(set(&alice, bob_id, member("odd")), Err(Error::BadJson(_))));
    assert!(matches!(set(&alice, bob_id, json!({})), Err(Error::BadJson(_))));
    assert!(matches!(set(&alice, "bob", member("invite")), Err(Error::InvalidParam(_))));
    assert_forbidden(set(&bob, bob_id, member("knock")), "not allowed to knock");
    set(&alice, "@alice:localhost", member("leave")).unwrap();
}

#[test]
fn a_client_cannot_grant_itself_a_restricted_join() {
    let world = World::new(15);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = private(&world, &alice);
    world
        .set(&alice, &room, "m.room.join_rules", "", json!({ "join_rule": "restricted", "allow": [] }))
        .unwrap();
    let content =
        Map::from_iter([("join_authorised_via_users_server".to_owned(), json!("@alice:localhost"))]);
    let change = MembershipChange { reason: None, content };
    let result = world.run(world.rooms.join(&bob, &room, Join { change, update: true }));
    assert_forbidden(result, "do not belong to any");
}
