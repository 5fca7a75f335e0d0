//! Messages whose time is over: hidden at once, purged soon, and not brought back by anything.

use std::time::Duration;

use myelin_store::{
    maintenance::{NoKnowledge, verify},
    tables::{EVENTS, TIMELINE, TRANSACTIONS},
};
use myelin_testkit::{
    client::percent,
    user::{Room, User},
    world::World,
};
use serde_json::json;

const MINUTE: Duration = Duration::from_secs(60);

fn bodies(user: &User, room: &Room) -> Vec<String> {
    let path = format!("rooms/{}/messages?dir=b&limit=100", percent(&room.id));
    let mut bodies: Vec<_> = user.gets(&path)["chunk"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| Some(event["content"]["body"].as_str()?.to_owned()))
        .collect();
    bodies.reverse();
    bodies
}

fn limits(user: &User, room: &Room, lifetime: Duration) {
    let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap();
    user.sets(room, "m.room.retention", "", json!({ "max_lifetime": lifetime_ms }));
}

/// How many messages the timeline table has, and whether any text is left in the event.
fn held(world: &World, name: &str, event_id: &str) -> (usize, bool) {
    let server = world.server(name).unwrap();
    world.run(async {
        let store = &server.view.store;
        let rows = store.read().all(&TIMELINE, 10_000).await.unwrap();
        let nids: Vec<_> = rows.into_iter().map(|(_, nid)| nid).collect();
        let events = store.multi_get(&EVENTS, &nids).await.unwrap();
        let messages = events.iter().flatten().filter(|event| event.value.state_key.is_none()).count();
        let all = store.read().all(&EVENTS, 10_000).await.unwrap();
        let text = all
            .iter()
            .any(|(_, event)| event.value.event_id == event_id && event.value.json.contains("secret"));
        (messages, text)
    })
}

#[test]
fn expired_messages_are_hidden_then_purged_and_stay_gone() {
    let world = World::new(1).servers(["a.test", "b.test"]);
    let (ann, bob) = (world.user("@ann:a.test"), world.user("@bob:b.test"));
    let room = ann.creates_public_room();
    limits(&ann, &room, 5 * MINUTE);
    bob.joins(&room);
    let old = ann.sends(&room, "secret one");
    ann.sends(&room, "secret two");
    bob.sees(&room, "secret two");
    world.pass(3 * MINUTE);
    ann.sends(&room, "young");
    bob.sees(&room, "young");
    world.pass(3 * MINUTE);
    for user in [&ann, &bob] {
        assert_eq!(bodies(user, &room), ["young"]);
        let gone = user.tries(
            http::Method::GET,
            &format!("rooms/{}/event/{}", percent(&room.id), percent(&old)),
            json!({}),
        );
        assert_eq!(gone.json["errcode"], "M_NOT_FOUND");
    }
    // The next rounds delete them, on both servers.
    world.pass(12 * MINUTE);
    for name in ["a.test", "b.test"] {
        assert_eq!(held(&world, name, &old), (0, false), "{name}");
    }
    world.restart("a.test");
    ann.sends(&room, "newest");
    bob.sees(&room, "newest");
    assert_eq!(bodies(&ann, &room), ["newest"]);
    world.agree(&room);
    // Whoever comes later gets no text either.
    let carol = world.user("@carol:b.test");
    carol.joins(&room);
    assert_eq!(bodies(&carol, &room), ["newest"]);
    assert!(!held(&world, "a.test", &old).1);
}

#[test]
fn state_stays_and_rooms_without_a_limit_keep_everything() {
    let world = World::new(2).servers(["a.test"]);
    let ann = world.user("@ann:a.test");
    let (short, long) = (ann.creates_public_room(), ann.creates_public_room());
    limits(&ann, &short, MINUTE);
    for room in [&short, &long] {
        ann.sets(room, "m.room.topic", "", json!({ "topic": "stays" }));
        for n in 0..130 {
            ann.sends(room, &format!("secret {n}"));
        }
    }
    world.pass(25 * MINUTE);
    assert!(bodies(&ann, &short).is_empty());
    assert_eq!(bodies(&ann, &long).len(), 100);
    assert_eq!(ann.state(&short, "m.room.topic", "")["topic"], "stays");
    let (messages, _) = held(&world, "a.test", "");
    assert_eq!(messages, 130, "those of the other room");
    ann.syncs_now();
    ann.sends(&short, "goes on");
    ann.sees(&short, "goes on");
}

#[test]
fn a_purged_store_verifies() {
    let world = World::new(3).servers(["a.test"]);
    let ann = world.user("@ann:a.test");
    let room = ann.creates_public_room();
    limits(&ann, &room, MINUTE);
    ann.sends(&room, "secret");
    world.pass(25 * MINUTE);
    ann.sends(&room, "new");
    let server = world.server("a.test").unwrap();
    let report = world.run(verify(&server.view.store, &NoKnowledge, &mut |_| {})).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn transaction_ids_are_forgotten_after_days() {
    let world = World::new(4).servers(["a.test"]);
    let ann = world.user("@ann:a.test");
    let room = ann.creates_public_room();
    let path = format!("rooms/{}/send/m.room.message/1", percent(&room.id));
    let send = || ann.tries(http::Method::PUT, &path, json!({ "body": "x" })).ok()["event_id"].clone();
    let first = send();
    world.pass(24 * 60 * MINUTE);
    assert_eq!(send(), first);
    world.pass(3 * 24 * 60 * MINUTE);
    let server = world.server("a.test").unwrap();
    let rows = world.run(server.view.store.read().all(&TRANSACTIONS, 10)).unwrap();
    assert!(rows.is_empty(), "{rows:?}");
}
