//! Aliases and published rooms.

use ruma::{OwnedRoomAliasId, OwnedRoomId};
use serde_json::json;

use super::world::{World, assert_forbidden};
use crate::{CreateRoom, Error, PublicRoomsQuery, Sender, Visibility};

fn alias(name: &str) -> OwnedRoomAliasId {
    format!("#{name}:localhost").try_into().unwrap()
}

#[test]
fn aliases_and_who_may_change_them() {
    let world = World::new(1);
    let (alice, bob, carol) = (world.user("alice"), world.user("bob"), world.user("carol"));
    let room = world.public_room(&alice);
    world.join(&bob, &room).unwrap();
    let set = |who: &Sender, alias: &OwnedRoomAliasId| world.run(world.rooms.set_alias(who, alias, &room));
    let delete = |who: &Sender, name: &str| world.run(world.rooms.delete_alias(who, &alias(name)));
    set(&bob, &alias("one")).unwrap();
    assert!(matches!(set(&bob, &alias("one")), Err(Error::AliasTaken(_))));
    assert_forbidden(set(&carol, &alias("two")), "not in the room");
    let foreign = "#two:elsewhere".try_into().unwrap();
    assert!(matches!(set(&bob, &foreign), Err(Error::InvalidParam(_))));
    let unknown = "!unknown:localhost".try_into().unwrap();
    let result = world.run(world.rooms.set_alias(&bob, &alias("two"), unknown));
    assert!(matches!(result, Err(Error::NotFound(_))));

    assert_eq!(world.run(world.rooms.aliases(&bob, &room)).unwrap(), [alias("one")]);
    assert_forbidden(world.run(world.rooms.aliases(&carol, &room)), "not in the room");
    world
        .set(
            &alice,
            &room,
            "m.room.history_visibility",
            "",
            json!({ "history_visibility": "world_readable" }),
        )
        .unwrap();
    assert_eq!(world.run(world.rooms.aliases(&carol, &room)).unwrap(), [alias("one")]);

    assert_forbidden(delete(&carol, "one"), "may not delete");
    delete(&alice, "one").unwrap();
    assert!(matches!(delete(&alice, "one"), Err(Error::NotFound(_))));
    set(&alice, &alias("three")).unwrap();
    assert_forbidden(delete(&bob, "three"), "may not delete");
    delete(&Sender { admin: true, ..carol }, "three").unwrap();
    assert_eq!(world.run(world.rooms.resolve_alias(&alias("three"))).unwrap(), None);
}

#[test]
fn listing_a_room_takes_the_power_to_name_it() {
    let world = World::new(2);
    let (alice, bob, carol) = (world.user("alice"), world.user("bob"), world.user("carol"));
    let room = world.public_room(&alice);
    world.join(&bob, &room).unwrap();
    let set = |who: &Sender, visibility| world.run(world.rooms.set_visibility(who, &room, visibility));
    assert_forbidden(set(&bob, Visibility::Public), "power");
    assert_forbidden(set(&carol, Visibility::Public), "be in the room");
    assert_eq!(world.run(world.rooms.visibility(&room)).unwrap(), Visibility::Private);
    set(&alice, Visibility::Public).unwrap();
    assert_eq!(world.run(world.rooms.visibility(&room)).unwrap(), Visibility::Public);
    set(&Sender { admin: true, ..carol }, Visibility::Private).unwrap();
    assert_eq!(world.run(world.rooms.visibility(&room)).unwrap(), Visibility::Private);
    let unknown = "!unknown:localhost".try_into().unwrap();
    assert!(matches!(world.run(world.rooms.visibility(unknown)), Err(Error::NotFound(_))));
}

#[test]
fn searching_and_paging() {
    let world = World::new(3);
    let alice = world.user("alice");
    let members: Vec<_> = (0..5).map(|n| world.user(&format!("m{n}"))).collect();
    let create = |name: &str, topic: &str, kind: Option<&str>, size: usize| -> OwnedRoomId {
        let mut request = CreateRoom { visibility: Visibility::Public, ..CreateRoom::default() };
        request.name = Some(name.to_owned());
        request.topic = Some(topic.to_owned());
        if let Some(kind) = kind {
            request.creation_content.insert("type".to_owned(), kind.into());
        }
        let room = world.create(&alice, request);
        members[..size].iter().for_each(|member| drop(world.join(member, &room).unwrap()));
        room
    };
    let small = create("Small", "about Cats", None, 0);
    let middle = create("Middle", "", Some("m.space"), 2);
    let large = create("Large", "about dogs", None, 5);
    let search = |query: PublicRoomsQuery| world.run(world.rooms.public_rooms(&query)).unwrap();
    let ids = |page: &crate::Page| page.chunk.iter().map(|room| room.room_id.clone()).collect::<Vec<_>>();

    let all = search(PublicRoomsQuery::default());
    assert_eq!(ids(&all), [large.clone(), middle.clone(), small.clone()]);
    assert_eq!((&all.next_batch, &all.prev_batch, all.total_room_count_estimate), (&None, &None, 3));
    assert_eq!(all.chunk[0].num_joined_members, 6);
    assert_eq!(all.chunk[0].join_rule.as_str(), "public");
    assert!(!all.chunk[0].guest_can_join && !all.chunk[0].world_readable);
    assert_eq!(all.chunk[1].topic, None, "an empty topic is none");

    let first = search(PublicRoomsQuery { limit: Some(2), ..Default::default() });
    assert_eq!(ids(&first), [large.clone(), middle.clone()]);
    let second = search(PublicRoomsQuery { limit: Some(2), since: first.next_batch, ..Default::default() });
    assert_eq!((ids(&second), &second.next_batch), (vec![small.clone()], &None));
    let back = search(PublicRoomsQuery { limit: Some(2), since: second.prev_batch, ..Default::default() });
    assert_eq!((ids(&back), &back.prev_batch), (vec![large.clone(), middle.clone()], &None));

    let term = |term: &str| PublicRoomsQuery { search_term: Some(term.to_owned()), ..Default::default() };
    assert_eq!(ids(&search(term("CATS"))), std::slice::from_ref(&small));
    assert_eq!(ids(&search(term("about"))), [large.clone(), small.clone()]);
    assert!(search(term("fish")).chunk.is_empty());
    let types = |types: Vec<Option<&str>>| PublicRoomsQuery {
        room_types: Some(types.into_iter().map(|t| t.map(ToOwned::to_owned)).collect()),
        ..Default::default()
    };
    assert_eq!(ids(&search(types(vec![Some("m.space")]))), std::slice::from_ref(&middle));
    assert_eq!(ids(&search(types(vec![None]))), [large, small]);
    assert!(search(types(vec![])).chunk.is_empty());
    let bad = PublicRoomsQuery { since: Some("x".to_owned()), ..Default::default() };
    assert!(matches!(world.run(world.rooms.public_rooms(&bad)), Err(Error::InvalidParam(_))));
}
