//! Stories of several servers, as people tell them.

use std::time::Duration;

use http::Method;
use myelin_testkit::{
    client::percent,
    faults::Faults,
    user::{Room, User},
    world::World,
};
use serde_json::json;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_server_that_crashes_keeps_what_it_said_it_had() {
    let world = World::new(1).servers(["a.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:a.test"));
    let room = alice.creates_public_room();
    bob.joins(&room);
    alice.sends(&room, "hello");
    bob.sees(&room, "hello");
    bob.types(&room);
    alice.sees_typing(&room, &bob);
    world.crash("a.test");
    world.pass(MINUTE);
    world.start("a.test");
    let answer = bob.sends(&room, "are you still there?");
    alice.sees_event(&room, &answer);
    alice.sees_nobody_typing(&room);
    alice.reads(&room, &answer);
    bob.sees_read(&room, &alice, &answer);
}

#[test]
fn people_on_two_servers_talk() {
    let world = World::new(2).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = alice.creates_room(json!({ "preset": "private_chat", "name": "just us" }));
    alice.invites(&room, &bob);
    bob.sees_invite(&room);
    bob.joins(&room);
    alice.sees_member(&room, &bob, "join");
    let question = alice.sends(&room, "how are you?");
    bob.sees(&room, "how are you?");
    bob.reads(&room, &question);
    alice.sees_read(&room, &bob, &question);
    let slip = bob.sends(&room, "go away");
    alice.sees(&room, "go away");
    bob.redacts(&room, &slip);
    alice.sees_in(&room, "the redaction", |view| {
        view.timeline.iter().any(|id| view.events[id]["type"] == "m.room.redaction")
    });
    bob.leaves(&room);
    alice.sees_member(&room, &bob, "leave");
    world.agree(&room);
}

/// The resident server of the join has not heard that the last user left before.
#[test]
fn who_left_stays_away_when_another_one_joins_through_a_server_that_does_not_know_it_yet() {
    let world = World::new(2_004).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let carol = world.user("@carol:b.test");
    let room = two_in_a_room(&world, [&alice, &bob]);
    bob.sees_room(&room);
    world.cut(&["a.test"], &["b.test"]);
    bob.leaves(&room);
    world.pass(Duration::from_secs(5));
    world.heal();
    carol.joins(&room);
    alice.sees_member(&room, &carol, "join");
    bob.sees_room_left(&room);
    alice.sees_member(&room, &bob, "leave");
    carol.sees_member(&room, &bob, "leave");
    carol.sends(&room, "where is he?");
    alice.sees(&room, "where is he?");
    world.agree(&room);
}

/// Seed 001: who types is seen the moment the other does something, because the receipt takes it along.
#[test]
fn typing_hitches_a_ride() {
    let world = World::new(3).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = two_in_a_room(&world, [&alice, &bob]);
    let asked = bob.sends(&room, "are you writing?");
    alice.sees_event(&room, &asked);
    world.pass(MINUTE);
    bob.syncs_now();
    alice.types(&room);
    alice.reads(&room, &asked);
    let took_ms = bob.sees_typing(&room, &alice);
    assert!(took_ms <= 1_500, "the receipt took {took_ms} ms and left typing behind");
    bob.sees_read(&room, &alice, &asked);
}

#[test]
fn typing_alone_takes_the_next_bus_and_always_ends() {
    let world = World::new(4).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = two_in_a_room(&world, [&alice, &bob]);
    for _ in 0..3 {
        alice.sets_typing(&room, json!({ "typing": true, "timeout": 10_000 }));
        let took_ms = bob.sees_typing(&room, &alice);
        assert!(took_ms < 5_000, "typing took {took_ms} ms");
        let took_ms = bob.sees_nobody_typing(&room);
        assert!(took_ms < 20_000, "the end of typing took {took_ms} ms");
    }
    alice.types(&room);
    bob.sees_typing(&room, &alice);
    alice.stops_typing(&room);
    let took_ms = bob.sees_nobody_typing(&room);
    assert!(took_ms < 5_000, "the end of typing took {took_ms} ms");
}

/// The leaders of both sides of a netsplit, of equal power, each ban somebody of the other side. Both bans stand.
#[test]
fn concurrent_bans_in_a_netsplit() {
    for version in VERSIONS {
        let split = Split::new(version);
        let Split { room, bob, ben, cleo, cid, .. } = &split;
        bob.bans(room, cid);
        cleo.bans(room, ben);
        split.goes_on_and_ends();
        split.agrees_on([(bob, "join"), (ben, "ban"), (cleo, "join"), (cid, "ban")]);
    }
}

/// One side of a netsplit bans the leader of the other. When they meet again, all agree that he was gone.
#[test]
fn a_ban_from_beyond_a_netsplit() {
    for version in VERSIONS {
        let world = World::new(5).servers(["a.test", "b.test", "c.test"]);
        let alice = world.user("@alice:a.test");
        let (bob, cleo) = (world.user("@bob:b.test"), world.user("@cleo:c.test"));
        let room = alice.creates_room(json!({ "preset": "public_chat", "room_version": version }));
        for user in [&bob, &cleo] {
            user.joins(&room);
            alice.sees_member(&room, user, "join");
            alice.gives_power(&room, user, 50);
        }
        world.agree(&room);
        world.cut(&["b.test"], &["a.test", "c.test"]);
        bob.sets(&room, "m.room.topic", "", json!({ "topic": "bob was here" }));
        alice.gives_power(&room, &bob, 0);
        cleo.sees_event(&room, &alice.bans(&room, &bob));
        for number in 0..5 {
            bob.sends(&room, &format!("alone {number}"));
            cleo.sends(&room, &format!("without bob {number}"));
        }
        world.pass(10 * MINUTE);
        world.heal();
        alice.sends(&room, "are we one again?");
        for user in [&alice, &cleo] {
            user.sees_member(&room, &bob, "ban");
        }
        bob.sees_room_left(&room);
        world.wait_until("a and c agree", async || {
            world.state_of("a.test", &room).await == world.state_of("c.test", &room).await
        });
    }
}

const VERSIONS: [&str; 7] = ["1", "2", "5", "6", "10", "11", "12"];

/// Alice's room, with a leader and somebody else on each of two other servers. One of those is on its own.
struct Split {
    world: World,
    room: Room,
    alice: User,
    bob: User,
    ben: User,
    cleo: User,
    cid: User,
}

impl Split {
    fn new(version: &str) -> Self {
        let world = World::new(5).servers(["a.test", "b.test", "c.test"]);
        let alice = world.user("@alice:a.test");
        let [bob, ben, cleo, cid] =
            ["@bob:b.test", "@ben:b.test", "@cleo:c.test", "@cid:c.test"].map(|id| world.user(id));
        let room = alice.creates_room(json!({ "preset": "public_chat", "room_version": version }));
        for user in [&bob, &ben, &cleo, &cid] {
            user.joins(&room);
            alice.sees_member(&room, user, "join");
        }
        alice.gives_power(&room, &bob, 50);
        alice.gives_power(&room, &cleo, 50);
        world.agree(&room);
        world.cut(&["b.test"], &["a.test", "c.test"]);
        Self { world, room, alice, bob, ben, cleo, cid }
    }

    fn goes_on_and_ends(&self) {
        for number in 0..5 {
            self.bob.sends(&self.room, &format!("on our side {number}"));
            self.cleo.sends(&self.room, &format!("on yours {number}"));
        }
        self.world.pass(10 * MINUTE);
        self.world.heal();
        self.alice.sends(&self.room, "are we one again?");
    }

    /// All three servers hold one state, and it is this one.
    fn agrees_on(&self, expected: [(&User, &str); 4]) {
        let (world, room) = (&self.world, &self.room);
        world.wait_until("all three hold one state", async || {
            let here = world.state_of("a.test", room).await;
            here == world.state_of("b.test", room).await && here == world.state_of("c.test", room).await
        });
        for (user, membership) in expected {
            let held = self.alice.state(room, "m.room.member", &user.id);
            assert_eq!(held["membership"], membership, "{} in {}", user.id, room.id);
        }
    }
}

#[test]
fn both_sides_of_a_netsplit_go_on_and_meet_again() {
    for version in ["1", "2", "5", "6", "10", "11", "12"] {
        let world = World::new(6).servers(["a.test", "b.test", "c.test"]);
        let users = ["@alice:a.test", "@bob:b.test", "@cleo:c.test"].map(|id| world.user(id));
        let room = users[0].creates_room(json!({ "preset": "public_chat", "room_version": version }));
        all_come_into(&world, &room, &users);
        world.cut(&["a.test"], &["b.test", "c.test"]);
        for (number, user) in users.iter().enumerate() {
            user.sends(&room, &format!("word {number}"));
        }
        users[0].sets(&room, "m.room.topic", "", json!({ "topic": "of a" }));
        users[1].sees(&room, "word 2");
        world.pass(5 * MINUTE);
        world.heal();
        world.agree(&room);
        for user in &users {
            for number in 0..3 {
                user.sees(&room, &format!("word {number}"));
            }
        }
    }
}

/// One server is away for a week; then it is current within seconds, and its people can page back.
#[test]
fn the_week_long_outage() {
    let world = World::new(7).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = two_in_a_room(&world, [&alice, &bob]);
    world.crash("b.test");
    for day in 0..7 {
        for number in 0..20 {
            alice.sends(&room, &format!("day {day}, {number}"));
        }
        world.pass(24 * 60 * MINUTE);
    }
    world.start("b.test");
    // The first sign of life.
    bob.sends(&room, "I am back");
    alice.sees(&room, "I am back");
    let took_ms = bob.sees(&room, "day 6, 19");
    assert!(took_ms < 60_000, "the newest message came after {took_ms} ms");
    world.agree(&room);
}

/// More is said while a server is away than it fetches when it comes back: what lacks in the middle comes when somebody
/// reads back into it.
#[test]
fn a_long_absence_is_read_back() {
    let world = World::new(16).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = two_in_a_room(&world, [&alice, &bob]);
    bob.sends(&room, "before");
    alice.sees(&room, "before");
    world.cut(&["a.test"], &["b.test"]);
    for number in 0..560 {
        alice.sends(&room, &number.to_string());
    }
    alice.sets(&room, "m.room.topic", "", json!({ "topic": "missed" }));
    world.pass(120 * MINUTE);
    world.heal();
    bob.sends(&room, "I am back");
    alice.sees(&room, "I am back");
    alice.sends(&room, "after");
    bob.sees(&room, "after");
    let said = reads_back(&alice, &room, &alice);
    assert!(said.len() > 560);
    assert_eq!(reads_back(&bob, &room, &alice), said);
    bob.sends(&room, "I have read it all");
    alice.sees(&room, "I have read it all");
    world.agree(&room);
    assert_eq!(reads_back(&bob, &room, &alice), said, "and it stays");
}

/// The same for who leaves with the whole server and comes back.
#[test]
fn what_was_said_between_leaving_and_coming_back_is_read_back() {
    let world = World::new(17).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = two_in_a_room(&world, [&alice, &bob]);
    bob.leaves(&room);
    alice.sees_member(&room, &bob, "leave");
    for number in 0..130 {
        alice.sends(&room, &number.to_string());
    }
    bob.joins(&room);
    alice.sees_member(&room, &bob, "join");
    bob.sends(&room, "what have I missed?");
    alice.sees(&room, "what have I missed?");
    let said = reads_back(&alice, &room, &alice);
    assert!(said.len() > 130);
    assert_eq!(reads_back(&bob, &room, &alice), said);
}

/// Everything that a user is shown of what somebody sent to a room, newest first.
fn reads_back(user: &User, room: &Room, sender: &User) -> Vec<String> {
    let (mut ids, mut from) = (Vec::new(), String::new());
    loop {
        let page = user.gets(&format!("rooms/{}/messages?dir=b&limit=50{from}", percent(&room.id)));
        let events = page["chunk"].as_array().unwrap();
        let theirs = events.iter().filter(|event| event["sender"] == sender.id.as_str());
        ids.extend(theirs.map(|event| event["event_id"].as_str().unwrap().to_owned()));
        let Some(end) = page["end"].as_str() else { return ids };
        from = format!("&from={end}");
    }
}

/// The only user of a server that is away is kicked, and hears of it although the server is not in the room any more.
#[test]
fn the_last_user_of_a_server_that_is_away_is_kicked() {
    let world = World::new(8).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = two_in_a_room(&world, [&alice, &bob]);
    bob.sees_room(&room);
    world.crash("b.test");
    alice.kicks(&room, &bob);
    world.pass(10 * MINUTE);
    world.start("b.test");
    world.pass(60 * MINUTE);
    bob.sees_room_left(&room);
}

/// Two servers cannot reach each other; what the one says reaches the other through what the third says afterwards.
#[test]
fn a_third_server_relays() {
    let world = World::new(9).servers(["a.test", "b.test", "c.test"]);
    let users = ["@alice:a.test", "@bob:b.test", "@cleo:c.test"].map(|id| world.user(id));
    let room = all_in_a_room(&world, &users);
    world.cut(&["a.test"], &["c.test"]);
    users[0].sends(&room, "can you hear me?");
    users[1].sees(&room, "can you hear me?");
    users[1].sends(&room, "I can");
    users[2].sees(&room, "I can");
    users[2].sees(&room, "can you hear me?");
    users[2].sends(&room, "me too");
    users[1].sees(&room, "me too");
    users[1].sends(&room, "all can");
    users[0].sees(&room, "me too");
    world.heal();
    world.agree(&room);
}

#[test]
fn a_room_is_upgraded_across_servers() {
    let world = World::new(10).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    for (old, new) in [("1", "6"), ("5", "10"), ("6", "11"), ("11", "12")] {
        let room = alice.creates_room(json!({ "preset": "public_chat", "room_version": old }));
        bob.joins(&room);
        let upgraded = alice.acts(&room, "upgrade", json!({ "new_version": new }));
        let successor =
            Room { id: upgraded["replacement_room"].as_str().unwrap().to_owned(), ..room.clone() };
        bob.sees_in(&room, "the tombstone", |view| {
            view.state_event("m.room.tombstone", "")
                .is_some_and(|event| event["content"]["replacement_room"] == successor.id.as_str())
        });
        bob.joins(&successor);
        alice.sends(&successor, "the new place");
        bob.sees(&successor, "the new place");
        world.agree(&room);
        world.agree(&successor);
    }
}

/// The joining server loses power at some moment of the join; afterwards the user is in or out, and can join.
#[test]
fn a_server_restarts_in_the_middle_of_a_join() {
    joins_while_a_server_restarts(11, "b.test");
}

/// The resident server loses power at some moment of the join.
#[test]
fn the_resident_server_restarts_in_the_middle_of_a_join() {
    joins_while_a_server_restarts(12, "a.test");
}

/// Bob of `b.test` joins a room of `a.test`.
fn joins_while_a_server_restarts(seed: u64, restarting: &str) {
    for moment_ms in [5, 25, 45, 60, 75, 90, 105, 120] {
        let world = World::new(seed).servers(["a.test", "b.test"]);
        let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
        let room = alice.creates_public_room();
        let path = format!("join/{}?via=a.test&server_name=a.test", percent(&room.id));
        let join = bob.request(Method::POST, &path, Some(json!({})));
        let crash = async {
            world.env().clock.sleep(Duration::from_millis(moment_ms)).await;
            world.restart(restarting);
        };
        world.run(futures::future::join(join, crash));
        bob.joins(&room);
        alice.sends(&room, "welcome");
        bob.sees(&room, "welcome");
        world.agree(&room);
    }
}

#[test]
fn an_alias_is_claimed_by_one_only() {
    let world = World::new(13).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let rooms = [alice.creates_public_room(), alice.creates_public_room()];
    let claim = |room: &Room| {
        let body = json!({ "room_id": room.id });
        alice.request(Method::PUT, "directory/room/%23home%3Aa.test", Some(body))
    };
    let (one, other) = world.run(futures::future::join(claim(&rooms[0]), claim(&rooms[1])));
    let won: Vec<_> = [one, other].into_iter().map(|answer| answer.unwrap().is_ok()).collect();
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    let winner = &rooms[usize::from(!won[0])];
    let found = bob.gets("directory/room/%23home%3Aa.test");
    assert_eq!(found["room_id"], winner.id.as_str());
    let joined = bob.tries(Method::POST, "join/%23home%3Aa.test", json!({})).ok();
    assert_eq!(joined["room_id"], winner.id.as_str());
    world.agree(winner);
}

#[test]
fn rooms_of_every_version_span_servers() {
    let world = World::new(14).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    for version in 1..=12 {
        let version = version.to_string();
        let room = alice.creates_room(json!({ "preset": "public_chat", "room_version": version }));
        bob.joins(&room);
        bob.sends(&room, &format!("version {version}"));
        let seen = alice.sees(&room, &format!("version {version}"));
        assert!(seen < 10_000, "version {version} took {seen} ms");
        alice.gives_power(&room, &bob, 50);
        bob.sees_in(&room, "the power", |view| {
            view.state_event("m.room.power_levels", "")
                .is_some_and(|event| event["content"]["users"]["@bob:b.test"] == 50)
        });
        bob.sets(&room, "m.room.topic", "", json!({ "topic": version }));
        alice.sees_state(&room, "m.room.topic", "", &json!({ "topic": version }));
        world.agree(&room);
    }
}

/// Whole days of a bad network lose nothing that matters: the messages of each are shown to the other, in order and once.
#[test]
fn a_conversation_in_a_storm() {
    let world = World::new(15).servers(["a.test", "b.test"]);
    let (alice, bob) = (world.user("@alice:a.test"), world.user("@bob:b.test"));
    let room = two_in_a_room(&world, [&alice, &bob]);
    world.network().set_faults(Faults::stormy());
    for number in 0..30 {
        let (speaker, name) = if number % 2 == 0 { (&alice, "alice") } else { (&bob, "bob") };
        speaker.sends(&room, &format!("{name} {number}"));
        world.pass(Duration::from_secs(7 * (number % 5)));
    }
    world.heal();
    alice.sends(&room, "the end");
    bob.sees(&room, "the end");
    world.agree(&room);
    for number in (0..30).step_by(2) {
        bob.sees(&room, &format!("alice {number}"));
        alice.sees(&room, &format!("bob {}", number + 1));
    }
}

fn two_in_a_room(world: &World, users: [&User; 2]) -> Room {
    let room = users[0].creates_public_room();
    users[1].joins(&room);
    users[0].sees_member(&room, users[1], "join");
    world.agree(&room);
    room
}

fn all_in_a_room(world: &World, users: &[User]) -> Room {
    let room = users[0].creates_public_room();
    all_come_into(world, &room, users);
    room
}

/// The first one is in it already.
fn all_come_into(world: &World, room: &Room, users: &[User]) {
    for user in &users[1..] {
        user.joins(room);
        users[0].sees_member(room, user, "join");
    }
    world.agree(room);
}
