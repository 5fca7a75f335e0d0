//! Pagination, context, relations, threads, aggregations, timestamps.

use myelin_core::TimelineToken;
use myelin_store::Direction;
use myelin_sync::{
    Error,
    filter::EventFilter,
    messages::MessagesRequest,
    relations::{Include, RelationsRequest},
};
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use serde_json::{Value, json};

use super::{
    client::{Client, ids, kinds},
    world::{User, World},
};

fn scene() -> (World, User, User, OwnedRoomId) {
    let world = World::new(1);
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    let room = world.public_room(&ann);
    world.join(&bob, &room).unwrap();
    (world, ann, bob, room)
}

fn json_of(answer: Result<String, Error>) -> Value {
    serde_json::from_str(&answer.unwrap()).expect("an answer is JSON")
}

fn messages(direction: Direction, from: Option<&str>, limit: u64) -> MessagesRequest {
    let from = from.map(|token| token.parse().unwrap());
    MessagesRequest { from, to: None, direction, limit: Some(limit), filter: EventFilter::default() }
}

fn page(world: &World, user: &User, room: &RoomId, request: &MessagesRequest) -> Value {
    json_of(world.run(world.sync.messages(&user.requester, room, request)))
}

/// All pages in one direction.
fn all(world: &World, user: &User, room: &RoomId, direction: Direction, limit: u64) -> Vec<String> {
    let mut found = Vec::new();
    let mut from = None::<String>;
    loop {
        let answer = page(world, user, room, &messages(direction, from.as_deref(), limit));
        found.extend(ids(&answer["chunk"]));
        match answer["end"].as_str() {
            Some(end) => from = Some(end.to_owned()),
            None => return found,
        }
    }
}

#[test]
fn pages_hold_everything_once_in_both_directions() {
    let (world, ann, _, room) = scene();
    (0..10).for_each(|n| drop(world.say(&ann, &room, &n.to_string()).unwrap()));
    let truth: Vec<_> = world.timeline(&room).iter().map(|event| event.pdu.event_id.to_string()).collect();
    for limit in [1, 3, 5, 17, 1_000] {
        assert_eq!(all(&world, &ann, &room, Direction::Forward, limit), truth);
        let mut backwards = all(&world, &ann, &room, Direction::Reverse, limit);
        backwards.reverse();
        assert_eq!(backwards, truth);
    }
}

#[test]
fn a_token_means_the_same_in_both_directions_and_for_ever() {
    let (world, ann, _, room) = scene();
    (0..6).for_each(|n| drop(world.say(&ann, &room, &n.to_string()).unwrap()));
    let first = page(&world, &ann, &room, &messages(Direction::Reverse, None, 3));
    let token = first["end"].as_str().unwrap();
    let older = ids(&page(&world, &ann, &room, &messages(Direction::Reverse, Some(token), 2))["chunk"]);
    let mut newer = ids(&page(&world, &ann, &room, &messages(Direction::Forward, Some(token), 3))["chunk"]);
    newer.reverse();
    assert_eq!(newer, ids(&first["chunk"]));
    world.say(&ann, &room, "meanwhile").unwrap();
    let world = World::on(world.disk.clone(), 2);
    assert_eq!(
        ids(&page(&world, &ann, &room, &messages(Direction::Reverse, Some(token), 2))["chunk"]),
        older
    );
    let start = first["start"].as_str().unwrap();
    let again = page(&world, &ann, &room, &messages(Direction::Reverse, Some(start), 3));
    assert_eq!(ids(&again["chunk"]), ids(&first["chunk"]));
}

#[test]
fn pages_are_bounded_and_filtered() {
    let (world, ann, bob, room) = scene();
    for n in 0..40 {
        world.say(if n % 10 == 0 { &bob } else { &ann }, &room, &n.to_string()).unwrap();
    }
    assert_eq!(
        page(&world, &ann, &room, &messages(Direction::Reverse, None, 0))["chunk"].as_array().unwrap().len(),
        1
    );
    let mut request = messages(Direction::Reverse, None, 100);
    request.limit = None;
    assert_eq!(page(&world, &ann, &room, &request)["chunk"].as_array().unwrap().len(), 10);
    request.limit = Some(3);
    request.filter = serde_json::from_str(
        r#"{"senders":["@bob:localhost"],"types":["m.room.message"],"lazy_load_members":true}"#,
    )
    .unwrap();
    let answer = page(&world, &ann, &room, &request);
    assert_eq!(answer["chunk"].as_array().unwrap().len(), 3);
    assert_eq!(kinds(&answer["state"]), ["m.room.member/@bob:localhost"]);
    request.from = Some(answer["end"].as_str().unwrap().parse().unwrap());
    let answer = page(&world, &ann, &room, &request);
    assert_eq!(answer["chunk"].as_array().unwrap().len(), 1);
    assert!(answer["end"].is_null(), "the end of the history");
    request.filter = serde_json::from_value(json!({ "not_rooms": [room] })).unwrap();
    assert_eq!(page(&world, &ann, &room, &request)["chunk"], json!([]));
}

#[test]
fn strangers_do_not_read_history() {
    let (world, ann, bob, room) = scene();
    let eve = world.user("eve");
    let nowhere = <&RoomId>::try_from("!nowhere:localhost").unwrap();
    for room in [&*room, nowhere] {
        let refused =
            world.run(world.sync.messages(&eve.requester, room, &messages(Direction::Reverse, None, 1)));
        assert!(matches!(refused, Err(Error::Forbidden(_))));
    }
    world.invite(&ann, &room, &eve).unwrap();
    let refused =
        world.run(world.sync.messages(&eve.requester, &room, &messages(Direction::Reverse, None, 1)));
    assert!(matches!(refused, Err(Error::Forbidden(_))), "an invite is not enough");
    world.leave(&bob, &room).unwrap();
    world.say(&ann, &room, "after").unwrap();
    let answer = page(&world, &bob, &room, &messages(Direction::Reverse, None, 1));
    assert_eq!(kinds(&answer["chunk"]), ["m.room.member/@bob:localhost"], "up to the moment of leaving");
    let forward = messages(Direction::Forward, answer["start"].as_str(), 5);
    assert_eq!(page(&world, &bob, &room, &forward)["chunk"], json!([]));
    world.forget(&bob, &room).unwrap();
    let refused =
        world.run(world.sync.messages(&bob.requester, &room, &messages(Direction::Reverse, None, 1)));
    assert!(matches!(refused, Err(Error::Forbidden(_))));
}

#[test]
fn context_surrounds_an_event() {
    let (world, ann, bob, room) = scene();
    let said: Vec<_> = (0..9).map(|n| world.say(&ann, &room, &n.to_string()).unwrap().to_string()).collect();
    let middle = OwnedEventId::try_from(said[4].as_str()).unwrap();
    let context = |user: &User, limit: u64, filter: &str| {
        let filter = serde_json::from_str(filter).unwrap();
        world.run(world.sync.context(&user.requester, &room, &middle, Some(limit), &filter))
    };
    let answer = json_of(context(&ann, 4, "{}"));
    assert_eq!(answer["event"]["event_id"], said[4].as_str());
    assert_eq!(ids(&answer["events_before"]), [said[3].clone(), said[2].clone()]);
    assert_eq!(ids(&answer["events_after"]), [said[5].clone(), said[6].clone()]);
    assert_eq!(answer["state"].as_array().unwrap().len(), 7);
    let back = messages(Direction::Reverse, answer["start"].as_str(), 1);
    assert_eq!(ids(&page(&world, &ann, &room, &back)["chunk"]), [said[1].clone()]);
    let on = messages(Direction::Forward, answer["end"].as_str(), 1);
    assert_eq!(ids(&page(&world, &ann, &room, &on)["chunk"]), [said[7].clone()]);
    let answer = json_of(context(&ann, 0, r#"{"lazy_load_members":true}"#));
    assert_eq!((&answer["events_before"], &answer["events_after"]), (&json!([]), &json!([])));
    let state = kinds(&answer["state"]);
    assert!(state.iter().all(|kind| kind != "m.room.member/@bob:localhost"), "{state:?}");
    let eve = world.user("eve");
    assert!(matches!(context(&eve, 4, "{}"), Err(Error::Forbidden(_))));
    let other = world.public_room(&bob);
    let wrong = world.run(world.sync.context(&bob.requester, &other, &middle, None, &EventFilter::default()));
    assert!(matches!(wrong, Err(Error::NotFound(_))));
}

fn relations() -> RelationsRequest {
    RelationsRequest {
        rel_type: None,
        event_type: None,
        from: None,
        to: None,
        direction: Direction::Reverse,
        limit: None,
        recurse: false,
    }
}

#[test]
fn relations_by_type_recursively_and_in_pages() {
    let (world, ann, bob, room) = scene();
    let parent = world.say(&ann, &room, "parent").unwrap();
    let reaction = world.relate(&bob, &room, "m.annotation", &parent, "+").to_string();
    let reply = world.relate(&bob, &room, "m.thread", &parent, "reply");
    let deep = world.relate(&ann, &room, "m.annotation", &reply, "!").to_string();
    let gone = world.relate(&ann, &room, "m.annotation", &parent, "gone");
    world.redact(&ann, &room, &gone).unwrap();
    let ask = |request: &RelationsRequest| {
        json_of(world.run(world.sync.relations(&ann.requester, &room, &parent, request)))
    };
    assert_eq!(ids(&ask(&relations())["chunk"]), [reply.to_string(), reaction.clone()]);
    let typed = RelationsRequest { rel_type: Some("m.annotation".into()), ..relations() };
    assert_eq!(ids(&ask(&typed)["chunk"]), std::slice::from_ref(&reaction));
    let of_type = RelationsRequest { event_type: Some("m.room.message".into()), ..typed.clone() };
    assert_eq!(ask(&of_type)["chunk"], json!([]));
    let recurse = RelationsRequest { recurse: true, ..typed };
    let answer = ask(&recurse);
    assert_eq!(ids(&answer["chunk"]), [deep.clone(), reaction.clone()]);
    assert!(answer["recursion_depth"].as_u64().unwrap() >= 3);
    for (direction, expected) in [
        (Direction::Reverse, [reply.to_string(), reaction.clone()]),
        (Direction::Forward, [reaction.clone(), reply.to_string()]),
    ] {
        let mut request = RelationsRequest { direction, limit: Some(1), ..relations() };
        let first = ask(&request);
        assert_eq!(ids(&first["chunk"]), [expected[0].clone()]);
        request.from = Some(first["next_batch"].as_str().unwrap().parse().unwrap());
        let second = ask(&request);
        assert_eq!(ids(&second["chunk"]), [expected[1].clone()]);
        assert!(second["next_batch"].is_null());
        assert_eq!(second["prev_batch"], first["next_batch"]);
    }
    let eve = world.user("eve");
    let refused = world.run(world.sync.relations(&eve.requester, &room, &parent, &relations()));
    assert!(matches!(refused, Err(Error::NotFound(_))));
}

#[test]
fn threads_by_their_newest_reply() {
    let (world, ann, bob, room) = scene();
    let (one, two) = (world.say(&ann, &room, "1").unwrap(), world.say(&ann, &room, "2").unwrap());
    world.relate(&ann, &room, "m.thread", &two, "a");
    world.relate(&bob, &room, "m.thread", &one, "b");
    let threads = |user: &User, include, limit, from: Option<TimelineToken>| {
        world.run(world.sync.threads(&user.requester, &room, include, limit, from))
    };
    assert_eq!(
        ids(&json_of(threads(&ann, Include::All, None, None))["chunk"]),
        [one.to_string(), two.to_string()]
    );
    assert_eq!(ids(&json_of(threads(&bob, Include::Participated, None, None))["chunk"]), [one.to_string()]);
    let first = json_of(threads(&ann, Include::All, Some(1), None));
    assert_eq!(ids(&first["chunk"]), [one.to_string()]);
    let next = first["next_batch"].as_str().unwrap().parse().unwrap();
    let second = json_of(threads(&ann, Include::All, Some(1), Some(next)));
    assert_eq!(ids(&second["chunk"]), [two.to_string()]);
    assert!(second["next_batch"].is_null());
    assert!(matches!(threads(&world.user("eve"), Include::All, None, None), Err(Error::Forbidden(_))));
}

#[test]
fn aggregations_are_bundled() {
    let (world, ann, bob, room) = scene();
    let root = world.say(&ann, &room, "root").unwrap();
    let bundle = |user: &User| {
        let event = json_of(world.run(world.sync.event(&user.requester, &room, &root)));
        assert_eq!(event["content"]["body"], "root", "the content stays the original one");
        event["unsigned"]["m.relations"].clone()
    };
    assert!(bundle(&ann).is_null());
    world.relate(&bob, &room, "m.replace", &root, "not the sender's");
    assert!(bundle(&ann).is_null());
    world.relate(&ann, &room, "m.replace", &root, "first edit");
    let edit = world.relate(&ann, &room, "m.replace", &root, "second edit");
    assert_eq!(bundle(&bob)["m.replace"]["event_id"], edit.as_str());
    assert_eq!(bundle(&bob)["m.replace"]["content"]["m.new_content"]["body"], "second edit");
    world.redact(&ann, &room, &edit).unwrap();
    assert_eq!(bundle(&bob)["m.replace"]["content"]["m.new_content"]["body"], "first edit");
    let reference = world.relate(&bob, &room, "m.reference", &root, "see");
    assert_eq!(bundle(&ann)["m.reference"]["chunk"], json!([{ "event_id": reference }]));
    world.relate(&bob, &room, "m.thread", &root, "1");
    let reply = world.relate(&bob, &room, "m.thread", &root, "2");
    let thread = bundle(&bob)["m.thread"].clone();
    assert_eq!((&thread["count"], &thread["current_user_participated"]), (&json!(2), &json!(true)));
    assert_eq!(thread["latest_event"]["event_id"], reply.as_str());
    let cid = world.user("cid");
    world.join(&cid, &room).unwrap();
    assert_eq!(bundle(&cid)["m.thread"]["current_user_participated"], false);
    world.ignore(&cid, &bob);
    assert!(bundle(&cid)["m.thread"].is_null(), "all replies are of somebody ignored");
    let timeline = Client::with_filter(&bob, r#"{"room":{"timeline":{"limit":20}}}"#).sync(&world);
    let events = timeline["rooms"]["join"][room.as_str()]["timeline"]["events"].clone();
    let events = events.as_array().unwrap();
    let shown = events.iter().find(|event| event["event_id"] == root.as_str()).unwrap();
    assert_eq!(shown["unsigned"]["m.relations"]["m.thread"]["count"], 2, "in sync, too");
    world.redact(&ann, &room, &root).unwrap();
    let redacted = json_of(world.run(world.sync.event(&bob.requester, &room, &root)));
    assert!(redacted["unsigned"]["m.relations"].is_null());
}

#[test]
fn timestamps_lead_to_events() {
    let (world, ann, _, room) = scene();
    let mut said = Vec::new();
    for n in 0..5 {
        world.sim.clock().advance(std::time::Duration::from_secs(60));
        said.push((world.sim.env().now_ms(), world.say(&ann, &room, &n.to_string()).unwrap()));
    }
    let at = |ts, direction| world.run(world.sync.event_at(&ann.requester, &room, ts, direction));
    for (ts, event) in &said {
        assert_eq!(at(*ts, Direction::Forward).unwrap(), (event.clone(), *ts));
        assert_eq!(at(*ts, Direction::Reverse).unwrap(), (event.clone(), *ts));
    }
    let between = said[1].0 + 1_000;
    assert_eq!(at(between, Direction::Forward).unwrap().0, said[2].1);
    assert_eq!(at(between, Direction::Reverse).unwrap(), (said[1].1.clone(), said[1].0));
    assert!(matches!(at(said[4].0 + 1, Direction::Forward), Err(Error::NotFound(_))));
    assert!(matches!(at(0, Direction::Reverse), Err(Error::NotFound(_))));
    let eve = world.user("eve");
    let refused = world.run(world.sync.event_at(&eve.requester, &room, 0, Direction::Forward));
    assert!(matches!(refused, Err(Error::Forbidden(_))));
}
