//! A waiting sync answers at once when there is something for its user, and only then.

use futures::future::join;
use myelin_sync::{Error, receipts::NewReceipt};
use ruma::{EventId, RoomId, presence::PresenceState};
use serde_json::{Value, json};

use super::{
    client::{Client, ids, kinds},
    world::{User, World},
};

const TIMEOUT_MS: u64 = 30_000;

struct Scene {
    world: World,
    ann: User,
    bob: User,
    room: ruma::OwnedRoomId,
    client: Client,
}

impl Scene {
    fn new() -> Self {
        let world = World::new(1);
        let (ann, bob) = (world.user("ann"), world.user("bob"));
        let room = world.public_room(&ann);
        world.join(&bob, &room).unwrap();
        let mut client = Client::new(&bob);
        client.sync(&world);
        Self { world, ann, bob, room, client }
    }

    /// The answer to a sync that waits while `act` happens, and how long it took.
    fn wait(&mut self, act: impl FnOnce(&World, &User, &RoomId)) -> (Value, u64) {
        let world = &self.world;
        let started = world.sim.env().now_ms();
        let (ann, room) = (&self.ann, &self.room);
        let waiting = world.sync.sync(self.client.request(TIMEOUT_MS));
        let (answer, ()) = world.run(join(waiting, async { act(world, ann, room) }));
        let waited = world.sim.env().now_ms() - started;
        (self.client.take(&answer.unwrap()), waited)
    }

    #[track_caller]
    fn wakes(&mut self, act: impl FnOnce(&World, &User, &RoomId)) -> Value {
        let (answer, waited) = self.wait(act);
        assert_eq!(waited, 0, "{answer}");
        answer
    }

    #[track_caller]
    fn sleeps(&mut self, act: impl FnOnce(&World, &User, &RoomId)) {
        let (answer, waited) = self.wait(act);
        assert_eq!(waited, TIMEOUT_MS);
        let keys: Vec<_> = answer.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            ["device_one_time_keys_count", "device_unused_fallback_key_types", "next_batch"],
            "{answer}"
        );
    }
}

fn set_receipt(world: &World, user: &User, room: &RoomId, event: &EventId, kind: &str) -> Result<(), Error> {
    let receipt = NewReceipt { receipt_type: kind.to_owned(), thread_id: String::new() };
    world.run(world.sync.set_receipt(&user.requester, room, event, &receipt))
}

#[test]
fn messages_wake() {
    let mut scene = Scene::new();
    let answer = scene.wakes(|world, ann, room| drop(world.say(ann, room, "hello").unwrap()));
    let room = &answer["rooms"]["join"][scene.room.as_str()];
    assert_eq!(kinds(&room["timeline"]["events"]), ["m.room.message"]);
    assert_eq!(room["timeline"]["limited"], false);
    scene.sleeps(|_, _, _| ());
}

#[test]
fn memberships_wake_the_user_concerned() {
    let mut scene = Scene::new();
    let bob = scene.bob.clone();
    let answer = scene.wakes(|world, ann, _| {
        let other = world.public_room(ann);
        world.invite(ann, &other, &bob).unwrap();
    });
    assert_eq!(answer["rooms"]["invite"].as_object().unwrap().len(), 1);
    let answer = scene.wakes(|world, ann, room| world.kick(ann, room, &bob).unwrap());
    let left = &answer["rooms"]["leave"][scene.room.as_str()];
    assert_eq!(kinds(&left["timeline"]["events"]), ["m.room.member/@bob:localhost"]);
    scene.sleeps(|world, ann, room| drop(world.say(ann, room, "without bob").unwrap()));
}

#[test]
fn account_data_wakes_its_owner() {
    let mut scene = Scene::new();
    let bob = scene.bob.clone();
    let answer = scene.wakes(|world, _, _| world.put_account_data(&bob, None, "org.x", json!({ "a": 1 })));
    assert_eq!(answer["account_data"]["events"], json!([{ "type": "org.x", "content": { "a": 1 } }]));
    let answer = scene
        .wakes(|world, _, room| world.put_account_data(&bob, Some(room), "m.tag", json!({ "tags": {} })));
    let room = &answer["rooms"]["join"][scene.room.as_str()];
    assert_eq!(room["account_data"]["events"], json!([{ "type": "m.tag", "content": { "tags": {} } }]));
    scene.sleeps(|world, ann, _| world.put_account_data(ann, None, "org.x", json!({})));
}

#[test]
fn typing_wakes_and_so_does_its_end() {
    let mut scene = Scene::new();
    let typing = |users: Value| json!([{ "type": "m.typing", "content": { "user_ids": users } }]);
    let answer = scene.wakes(|world, ann, room| {
        world.run(world.sync.set_typing(&ann.requester, room, true, Some(5_000))).unwrap();
    });
    let room = scene.room.to_string();
    assert_eq!(answer["rooms"]["join"][&room]["ephemeral"]["events"], typing(json!(["@ann:localhost"])));
    let env = scene.world.sim.env();
    env.spawner.spawn("expiry", Box::pin(scene.world.sync.clone().run_expiry()));
    let (answer, waited) = scene.wait(|_, _, _| ());
    assert!((5_000..=6_000).contains(&waited), "{waited}");
    assert_eq!(answer["rooms"]["join"][&room]["ephemeral"]["events"], typing(json!([])));
    scene.world.sync.drain();
}

#[test]
fn receipts_wake_unless_they_are_private() {
    let mut scene = Scene::new();
    let event = scene.world.say(&scene.ann, &scene.room, "read me").unwrap();
    scene.client.sync(&scene.world);
    scene.sleeps(|world, ann, room| set_receipt(world, ann, room, &event, "m.read.private").unwrap());
    let answer = scene.wakes(|world, ann, room| set_receipt(world, ann, room, &event, "m.read").unwrap());
    let ephemeral = &answer["rooms"]["join"][scene.room.as_str()]["ephemeral"]["events"];
    assert_eq!(ephemeral[0]["type"], "m.receipt");
    let receipts = &ephemeral[0]["content"][event.as_str()];
    assert!(receipts["m.read"]["@ann:localhost"]["ts"].is_u64());
    assert!(receipts["m.read.private"].is_null());
    let bob = scene.bob.clone();
    let answer =
        scene.wakes(|world, _, room| set_receipt(world, &bob, room, &event, "m.read.private").unwrap());
    let ephemeral = &answer["rooms"]["join"][scene.room.as_str()]["ephemeral"]["events"];
    assert!(ephemeral[0]["content"][event.as_str()]["m.read.private"]["@bob:localhost"].is_object());
}

#[test]
fn presence_wakes_those_who_share_a_room() {
    let mut scene = Scene::new();
    let answer = scene.wakes(|world, ann, _| {
        let status = Some("at sea".to_owned());
        world.run(world.sync.set_presence(&ann.requester, PresenceState::Online, status)).unwrap();
    });
    let event = &answer["presence"]["events"][0];
    assert_eq!((&event["type"], &event["sender"]), (&json!("m.presence"), &json!("@ann:localhost")));
    assert_eq!(event["content"]["presence"], "online");
    assert_eq!(event["content"]["status_msg"], "at sea");
    assert_eq!(event["content"]["currently_active"], true);
    let eve = scene.world.user("eve");
    scene.sleeps(|world, _, _| {
        world.run(world.sync.set_presence(&eve.requester, PresenceState::Online, None)).unwrap();
    });
}

#[test]
fn events_that_the_filter_leaves_out_do_not_wake() {
    let mut scene = Scene::new();
    let filter = r#"{"room":{"timeline":{"not_types":["m.room.message"]}}}"#;
    scene.client.filter = std::sync::Arc::new(myelin_sync::parse_filter(filter).unwrap());
    // Nor does it notify: what notifies changes the counts, which no filter leaves out.
    let notice = json!({ "msgtype": "m.notice", "body": "unheard" });
    scene.sleeps(|world, ann, room| drop(world.send(ann, room, "m.room.message", notice).unwrap()));
    scene.wakes(|world, ann, room| drop(world.send(ann, room, "org.x", json!({})).unwrap()));
}

#[test]
fn ignored_users_do_not_wake() {
    let mut scene = Scene::new();
    scene.world.ignore(&scene.bob, &scene.ann);
    scene.client.sync(&scene.world);
    let notice = json!({ "msgtype": "m.notice", "body": "unheard" });
    scene.sleeps(|world, ann, room| drop(world.send(ann, room, "m.room.message", notice).unwrap()));
    // Others in the room are notified of this.
    scene.sleeps(|world, ann, room| drop(world.say(ann, room, "unheard").unwrap()));
    let topic = json!({ "topic": "state counts all the same" });
    scene.wakes(|world, ann, room| drop(world.set(ann, room, "m.room.topic", "", topic).unwrap()));
}

#[test]
fn a_shutdown_ends_the_wait() {
    let mut scene = Scene::new();
    let (_, waited) = scene.wait(|world, _, _| world.sync.drain());
    assert_eq!(waited, 0);
}

#[test]
fn peeking_waits_for_events_of_the_room() {
    let world = World::new(1);
    let (ann, eve) = (world.user("ann"), world.user("eve"));
    let visible = [("m.room.history_visibility", json!({ "history_visibility": "world_readable" }))];
    let (room, other) = (world.room_with(&ann, &visible), world.public_room(&ann));
    let started = world.sim.env().now_ms();
    let peek = world.sync.peek(&eve.requester, &room, None, TIMEOUT_MS);
    let act = async {
        world.say(&ann, &other, "elsewhere").unwrap();
        world.say(&ann, &room, "here").unwrap()
    };
    let (answer, said) = world.run(join(peek, act));
    assert_eq!(world.sim.env().now_ms(), started);
    let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
    assert_eq!(ids(&answer["chunk"]), [said.to_string()]);
    let from = answer["end"].as_str().unwrap().parse().unwrap();
    let answer = world.run(world.sync.peek(&eve.requester, &room, Some(from), 1_000)).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["chunk"], json!([]));
    assert_eq!(world.sim.env().now_ms(), started + 1_000);
    let refused = world.run(world.sync.peek(&eve.requester, &other, None, 0));
    assert!(matches!(refused, Err(Error::Forbidden(_))));
}

#[test]
fn who_joins_hears_who_is_there() {
    let world = World::new(1);
    let (ann, bob) = (world.user("ann"), world.user("bob"));
    let room = world.public_room(&ann);
    world.run(world.sync.set_presence(&ann.requester, PresenceState::Online, None)).unwrap();
    let mut client = Client::new(&bob);
    let before = client.sync(&world);
    assert!(before["presence"].is_null(), "they share no room yet: {before}");
    world.join(&bob, &room).unwrap();
    let answer = client.sync(&world);
    assert_eq!(answer["presence"]["events"][0]["sender"], "@ann:localhost");
}
