//! The writer path: order, failure, cost.

use std::sync::atomic::Ordering;

use futures::future::join_all;
use myelin_store::memory::Fault;
use ruma::RoomId;
use serde_json::{json, value::to_raw_value};

use super::world::{World, txn};
use crate::{CreateRoom, Error, Join, Sender};

fn message() -> Box<serde_json::value::RawValue> {
    to_raw_value(&json!({ "msgtype": "m.text", "body": "hello" })).unwrap()
}

/// Every event refers to the one before it.
fn assert_linear(world: &World, room: &RoomId) {
    let timeline = world.timeline(room);
    for (before, event) in timeline.iter().zip(&timeline[1..]) {
        assert_eq!(event.pdu.prev_events, std::slice::from_ref(&before.pdu.event_id));
        assert_eq!(event.pdu.depth, before.pdu.depth + 1);
    }
    let last = timeline.last().unwrap();
    assert_eq!(world.snapshot(room).head.extremities, [last.nid]);
}

#[test]
fn many_senders_in_one_room_make_one_line() {
    let world = World::new(1);
    let users: Vec<_> = (0..16).map(|n| world.user(&format!("user{n}"))).collect();
    let room = world.public_room(&users[0]);
    users.iter().for_each(|user| drop(world.join(user, &room).unwrap()));
    let content = message();
    let before = world.counts.commits.load(Ordering::Relaxed);
    let sends =
        users.iter().flat_map(|user| (0..10).map(move |n| (user, n))).map(|(user, n)| {
            let (rooms, room, content) = (&world.rooms, &room, &content);
            async move {
                rooms.send_message(user, room, "m.room.message".into(), content, &txn(&n.to_string())).await
            }
        });
    let sent: Vec<_> = world.run(join_all(sends)).into_iter().map(Result::unwrap).collect();
    let commits = world.counts.commits.load(Ordering::Relaxed) - before;
    assert_eq!(commits, 160, "nobody stood in anybody's way");
    let timeline = world.timeline(&room);
    for id in &sent {
        assert_eq!(timeline.iter().filter(|event| event.pdu.event_id == *id).count(), 1);
    }
    assert_linear(&world, &room);
    assert_eq!(world.rooms.writers.in_use(), 0, "nothing is left behind");
}

#[test]
fn two_processes_write_one_room() {
    let world = World::new(2);
    let alice = world.user("alice");
    let room = world.public_room(&alice);
    let other = World::on(world.disk.clone(), 3);
    for round in 0..5 {
        world.say(&alice, &room, &format!("a{round}")).unwrap();
        other.say(&alice, &room, &format!("b{round}")).unwrap_or_else(|e| panic!("{e}"));
    }
    assert_linear(&world, &room);
}

#[test]
fn concurrent_repeats_of_one_transaction_make_one_event() {
    let world = World::new(3);
    let alice = world.user("alice");
    let room = world.public_room(&alice);
    let content = message();
    let other = World::on(world.disk.clone(), 4);
    let send = |rooms: std::sync::Arc<crate::Rooms>| {
        let (room, content, alice) = (&room, &content, &alice);
        async move {
            rooms.send_message(alice, room, "m.room.message".into(), content, &txn("same")).await.unwrap()
        }
    };
    let sends = [&world, &world, &other, &other].map(|world| send(world.rooms.clone()));
    let sent = world.run(join_all(sends));
    assert!(sent.iter().all(|id| *id == sent[0]));
    let messages = world.kinds(&room).iter().filter(|kind| *kind == "m.room.message").count();
    assert_eq!(messages, 1);
}

#[test]
fn a_lost_commit_leaves_nothing_and_is_not_acknowledged() {
    let world = World::new(5);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.public_room(&alice);
    let position = world.view.store.position();
    world.disk.inject(Some(Fault::LoseCommits));
    assert!(matches!(world.say(&alice, &room, "lost"), Err(Error::Store(_))));
    assert!(world.join(&bob, &room).is_err());
    let created = world.run(world.rooms.create_room(&alice, &CreateRoom::default()));
    assert!(matches!(created, Err(Error::Store(_))));
    world.disk.inject(None);
    assert_eq!(world.view.store.position(), position);
    assert_eq!(world.snapshot(&room).joined_count, 1);
    assert_eq!(world.rooms.writers.in_use(), 0);
    world.say(&alice, &room, "kept").unwrap();
    assert_linear(&world, &room);
}

#[test]
fn a_lost_answer_is_found_again_by_its_transaction() {
    let world = World::new(6);
    let alice = world.user("alice");
    let room = world.public_room(&alice);
    let content = message();
    let send = |world: &World| {
        world.run(world.rooms.send_message(&alice, &room, "m.room.message".into(), &content, &txn("t")))
    };
    world.disk.inject(Some(Fault::LoseAnswers));
    assert!(matches!(send(&world), Err(Error::Store(_))));
    world.disk.inject(None);
    let id = send(&world).unwrap();
    assert_eq!(send(&world.restarted()).unwrap(), id);
    assert_eq!(world.kinds(&room).iter().filter(|kind| *kind == "m.room.message").count(), 1);
    world.say(&alice, &room, "next").unwrap();
    assert_linear(&world, &room);
}

#[test]
fn who_hangs_up_after_the_batch_was_taken_has_sent() {
    let world = World::new(7);
    let alice = world.user("alice");
    let room = world.public_room(&alice);
    let content = message();
    let transaction = txn("t");
    let mut send =
        Box::pin(world.rooms.send_message(&alice, &room, "m.room.message".into(), &content, &transaction));
    let before = world.counts.commits.load(Ordering::Relaxed);
    // Up to where the batch is taken and its answer is not there yet.
    let polled = world.run(async {
        futures::future::poll_fn(|context| std::task::Poll::Ready(send.as_mut().poll(context).is_pending()))
            .await
    });
    assert!(polled);
    assert_eq!(world.counts.commits.load(Ordering::Relaxed), before + 1);
    drop(send);
    world.sim.settle();
    assert_eq!(world.rooms.writers.in_use(), 0);
    let last = world.timeline(&room).last().unwrap().clone();
    assert_eq!(last.pdu.event_type.to_string(), "m.room.message");
    assert!(last.order.is_some_and(|order| order.position().is_some_and(|p| p.placeholder().is_none())));
    world.say(&alice, &room, "next").unwrap();
    assert_linear(&world, &room);
}

#[test]
fn readers_find_the_room_of_the_position_they_read() {
    let world = World::new(8);
    let (alice, bob) = (world.user("alice"), world.user("bob"));
    let room = world.public_room(&alice);
    let joined = world.run(async {
        let join = world.rooms.join(&bob, &room, Join::default());
        let read = async {
            let before = world.view.feed.published();
            while world.view.feed.published() == before {
                world.view.store.wait_past(before).await;
                world.view.feed.caught_up().await;
            }
            world.view.room_by_id(&room).await.unwrap().unwrap().is_joined(bob.user)
        };
        futures::future::join(read, join).await.0
    });
    assert!(joined);
}

/// Rows and bytes that one command writes.
fn cost(world: &World, command: impl FnOnce()) -> (usize, usize) {
    let read = || (world.counts.writes.load(Ordering::Relaxed), world.counts.bytes.load(Ordering::Relaxed));
    let before = read();
    command();
    let after = read();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn ten_thousand_members_cost_no_more_than_ten() {
    let world = World::new(9);
    let alice = world.user("alice");
    let room = world.public_room(&alice);
    let join = |n: usize| -> Sender {
        let user = world.user(&format!("user{n}"));
        world.sim.block_on(world.rooms.join(&user, &room, Join::default())).unwrap();
        user
    };
    let mut early = (0, 0);
    for n in 0..10_000 {
        match n {
            10 => early = cost(&world, || drop(join(n))),
            _ => drop(join(n)),
        }
    }
    let late = cost(&world, || drop(join(10_000)));
    assert!(late.0 <= early.0 + 6, "rows: {early:?} {late:?}");
    assert!(late.1 <= early.1 + 4096, "bytes: {early:?} {late:?}");
    let message = cost(&world, || drop(world.say(&alice, &room, "hello").unwrap()));
    // Two of them say that it notifies: one row for all members, whoever they are.
    assert!(message.0 <= 7 && message.1 < 2_000, "{message:?}");
    assert_eq!(world.snapshot(&room).joined_count, 10_002);
}
