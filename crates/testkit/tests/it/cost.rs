//! What a sync reads from the store.

use std::sync::Arc;

use futures::future::{join, join_all};
use myelin_sync::parse_filter;
use ruma::OwnedRoomId;

use super::{
    client::Client,
    world::{User, World},
};

const ROOMS: usize = 200;

fn scene() -> (World, User, User, Vec<OwnedRoomId>) {
    let world = World::new(1);
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    let rooms: Vec<_> = (0..ROOMS).map(|_| world.public_room(&ann)).collect();
    rooms.iter().for_each(|room| drop(world.join(&bob, room).unwrap()));
    (world, ann, bob, rooms)
}

#[test]
fn nothing_is_read_while_nothing_happens() {
    let (world, ann, bob, rooms) = scene();
    let mut client = Client::new(&bob);
    client.sync(&world);
    let (answer, reads) = world.reads_of(|| client.sync(&world));
    assert!(answer["rooms"].is_null());
    assert_eq!(reads, 0, "idle");
    // Elsewhere something happens.
    let other = world.public_room(&ann);
    world.say(&ann, &other, "hello").unwrap();
    let (answer, reads) = world.reads_of(|| client.sync(&world));
    assert!(answer["rooms"].is_null());
    assert_eq!(reads, 0, "others' rooms");
    let (_, waiting) = world.reads_of(|| world.run(world.sync.sync(client.request(30_000))).unwrap());
    assert_eq!(waiting, 0, "waiting, and giving up");
    drop(rooms);
}

#[test]
fn an_initial_sync_reads_a_few_rows_per_room() {
    let (world, _, bob, _) = scene();
    let lazy = r#"{"room":{"state":{"lazy_load_members":true}}}"#;
    let (_, reads) = world.reads_of(|| Client::with_filter(&bob, lazy).sync(&world));
    // Timeline, state, receipts, account data, and two names that no room has.
    assert!(reads <= 6 * ROOMS + 10, "{reads}");
}

#[test]
fn lazy_clients_do_not_cost_a_read_per_member() {
    let world = World::new(1);
    let ann = world.user("ann");
    let room = world.public_room(&ann);
    for n in 0..300 {
        world.join(&world.user(&format!("user{n}")), &room).unwrap();
    }
    for n in 0..10 {
        world.say(&ann, &room, &n.to_string()).unwrap();
    }
    let lazy = r#"{"room":{"state":{"lazy_load_members":true}}}"#;
    let answer = Client::with_filter(&ann, lazy).sync(&world);
    let state = answer["rooms"]["join"][room.as_str()]["state"]["events"].as_array().unwrap();
    assert_eq!(state.len(), 5 + 1 + 5, "the room's state, the own member, the heroes");
}

#[test]
fn a_message_in_one_of_many_rooms_reads_next_to_nothing() {
    let (world, ann, bob, rooms) = scene();
    for filter in ["{}", r#"{"room":{"state":{"lazy_load_members":true}}}"#] {
        let mut client = Client::with_filter(&bob, filter);
        client.sync(&world);
        world.say(&ann, &rooms[ROOMS / 2], "hello").unwrap();
        let (answer, reads) = world.reads_of(|| client.sync(&world));
        assert_eq!(answer["rooms"]["join"].as_object().unwrap().len(), 1);
        assert_eq!(reads, 0, "the event, its room and its place in the timeline are in memory ({filter})");
    }
}

#[test]
fn a_hundred_waiting_syncs_read_no_more_than_one() {
    let world = World::new(1);
    let ann = world.user("ann");
    let room = world.public_room(&ann);
    let lazy = Arc::new(parse_filter(r#"{"room":{"state":{"lazy_load_members":true}}}"#).unwrap());
    let mut clients = Vec::new();
    for n in 0..100 {
        let user = world.user(&format!("user{n}"));
        world.join(&user, &room).unwrap();
        let mut client = Client::new(&user);
        client.filter = lazy.clone();
        clients.push(client);
    }
    clients.iter_mut().for_each(|client| drop(client.sync(&world)));
    let ((), sending) = world.reads_of(|| drop(world.say(&ann, &room, "to nobody").unwrap()));
    clients.iter_mut().for_each(|client| drop(client.sync(&world)));
    let waiting = join_all(clients.iter().map(|client| world.sync.sync(client.request(30_000))));
    let send = async { world.say(&ann, &room, "to all").unwrap() };
    let ((answers, said), reads) = world.reads_of(|| world.run(join(waiting, send)));
    for answer in answers {
        assert!(answer.unwrap().contains(said.as_str()));
    }
    assert_eq!(reads, sending, "only the writer and the one reader of the log read");
}

#[test]
fn a_long_absence_costs_what_happened_in_the_own_rooms() {
    let world = World::new(1);
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    let (here, elsewhere) = (world.public_room(&ann), world.public_room(&ann));
    world.join(&bob, &here).unwrap();
    let mut client = Client::new(&bob);
    client.sync(&world);
    for n in 0..1_000 {
        world.say(&ann, &elsewhere, &n.to_string()).unwrap();
    }
    world.say(&ann, &here, "at last").unwrap();
    let (answer, reads) = world.reads_of(|| client.sync(&world));
    assert_eq!(answer["rooms"]["join"].as_object().unwrap().len(), 1);
    assert!(reads <= 10, "{reads}");
}
