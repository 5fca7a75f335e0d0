//! Receipts, typing and presence as they are set.

use myelin_sync::{Error, receipts::NewReceipt};
use ruma::{EventId, OwnedEventId, OwnedRoomId, presence::PresenceState};
use serde_json::{Value, json};

use super::{
    client::Client,
    world::{User, World},
};

struct Scene {
    world: World,
    ann: User,
    bob: User,
    room: OwnedRoomId,
}

impl Scene {
    fn new() -> Self {
        let world = World::new(1);
        let (ann, bob) = (world.user("ann"), world.user("bob"));
        let room = world.public_room(&ann);
        world.join(&bob, &room).unwrap();
        Self { world, ann, bob, room }
    }

    fn set(&self, user: &User, event: &EventId, kind: &str, thread: &str) -> Result<(), Error> {
        let receipt = NewReceipt { receipt_type: kind.to_owned(), thread_id: thread.to_owned() };
        self.world.run(self.world.sync.set_receipt(&user.requester, &self.room, event, &receipt))
    }

    fn say(&self, body: &str) -> OwnedEventId {
        self.world.say(&self.ann, &self.room, body).unwrap()
    }

    /// The content of the one receipt event of a sync, `Null` if there is none.
    fn receipts(&self, client: &mut Client) -> Value {
        let answer = client.sync(&self.world);
        let ephemeral = &answer["rooms"]["join"][self.room.as_str()]["ephemeral"]["events"];
        let events = ephemeral.as_array().cloned().unwrap_or_default();
        assert!(events.len() <= 1 && events.iter().all(|event| event["type"] == "m.receipt"));
        events.into_iter().next().map_or(Value::Null, |mut event| event["content"].take())
    }
}

#[test]
fn receipts_only_move_forward() {
    let scene = Scene::new();
    let (old, new) = (scene.say("old"), scene.say("new"));
    let mut client = Client::new(&scene.ann);
    client.sync(&scene.world);
    scene.set(&scene.bob, &new, "m.read", "").unwrap();
    assert!(scene.receipts(&mut client)[new.as_str()]["m.read"]["@bob:localhost"].is_object());
    scene.set(&scene.bob, &old, "m.read", "").unwrap();
    assert_eq!(scene.receipts(&mut client), Value::Null);
    let initial = scene.receipts(&mut Client::new(&scene.ann));
    assert_eq!(initial.as_object().unwrap().keys().collect::<Vec<_>>(), [new.as_str()]);
    let newest = scene.say("newest");
    scene.set(&scene.bob, &newest, "m.read", "").unwrap();
    let initial = scene.receipts(&mut Client::new(&scene.ann));
    assert_eq!(initial.as_object().unwrap().keys().collect::<Vec<_>>(), [newest.as_str()]);
}

#[test]
fn private_receipts_are_their_owners() {
    let scene = Scene::new();
    let event = scene.say("x");
    scene.set(&scene.bob, &event, "m.read.private", "").unwrap();
    assert_eq!(scene.receipts(&mut Client::new(&scene.ann)), Value::Null);
    let own = scene.receipts(&mut Client::new(&scene.bob));
    assert!(own[event.as_str()]["m.read.private"]["@bob:localhost"]["ts"].is_u64());
}

#[test]
fn threads_have_receipts_of_their_own() {
    let scene = Scene::new();
    let root = scene.say("root");
    let reply = scene.world.relate(&scene.ann, &scene.room, "m.thread", &root, "reply");
    let reaction = scene.world.relate(&scene.bob, &scene.room, "m.annotation", &reply, "+");
    scene.set(&scene.bob, &reply, "m.read", root.as_str()).unwrap();
    scene.set(&scene.bob, &root, "m.read", "main").unwrap();
    scene.set(&scene.bob, &reaction, "m.read", root.as_str()).unwrap();
    let content = scene.receipts(&mut Client::new(&scene.ann));
    assert_eq!(content[root.as_str()]["m.read"]["@bob:localhost"]["thread_id"], "main");
    assert_eq!(content[reaction.as_str()]["m.read"]["@bob:localhost"]["thread_id"], root.as_str());
    for (event, thread) in [(&reply, "main"), (&root, reply.as_str()), (&reaction, "main")] {
        let refused = scene.set(&scene.bob, event, "m.read", thread);
        assert!(matches!(refused, Err(Error::InvalidParam(_))), "{event} in {thread}");
    }
}

#[test]
fn of_two_receipts_at_one_event_the_unthreaded_one_is_shown() {
    let scene = Scene::new();
    let event = scene.say("x");
    for threads in [["", "main"], ["main", ""]] {
        let reader = scene.world.user(&format!("reader{}", threads[0]));
        scene.world.join(&reader, &scene.room).unwrap();
        for thread in threads {
            scene.set(&reader, &event, "m.read", thread).unwrap();
        }
        let shown = scene.receipts(&mut Client::new(&scene.ann));
        let receipt = &shown[event.as_str()]["m.read"][reader.sender.user_id.as_str()];
        assert!(receipt["ts"].is_u64() && receipt.get("thread_id").is_none(), "{receipt}");
    }
}

#[test]
fn receipts_are_for_members_and_their_rooms_events() {
    let scene = Scene::new();
    let eve = scene.world.user("eve");
    let other = scene.world.public_room(&eve);
    let foreign = scene.world.say(&eve, &other, "x").unwrap();
    assert!(matches!(scene.set(&eve, &scene.say("x"), "m.read", ""), Err(Error::Forbidden(_))));
    assert!(matches!(scene.set(&scene.bob, &foreign, "m.read", ""), Err(Error::NotFound(_))));
}

#[test]
fn only_members_type() {
    let scene = Scene::new();
    let eve = scene.world.user("eve");
    let typing =
        |user: &User| scene.world.run(scene.world.sync.set_typing(&user.requester, &scene.room, true, None));
    assert!(matches!(typing(&eve), Err(Error::Forbidden(_))));
    typing(&scene.bob).unwrap();
    let mut client = Client::new(&scene.ann);
    let answer = client.sync(&scene.world);
    let ephemeral = &answer["rooms"]["join"][scene.room.as_str()]["ephemeral"]["events"];
    assert_eq!(*ephemeral, json!([{ "type": "m.typing", "content": { "user_ids": ["@bob:localhost"] } }]));
    assert!(client.sync(&scene.world)["rooms"].is_null(), "said once");
}

#[test]
fn presence_is_for_those_who_share_a_room() {
    let scene = Scene::new();
    let (world, eve) = (&scene.world, scene.world.user("eve"));
    let presence = |viewer: &User, of: &User| {
        world.run(world.sync.presence(&viewer.requester, &of.sender.user_id)).map(|p| p.state)
    };
    assert!(matches!(presence(&scene.bob, &scene.ann), Err(Error::NotFound(_))), "nothing known yet");
    world.run(world.sync.set_presence(&scene.ann.requester, PresenceState::Unavailable, None)).unwrap();
    assert_eq!(presence(&scene.bob, &scene.ann).unwrap(), PresenceState::Unavailable);
    assert!(matches!(presence(&eve, &scene.ann), Err(Error::Forbidden(_))));
    let long = Some("x".repeat(2_000));
    let refused = world.run(world.sync.set_presence(&scene.ann.requester, PresenceState::Online, long));
    assert!(matches!(refused, Err(Error::InvalidParam(_))));
    let mut request = Client::new(&scene.bob).request(0);
    request.set_presence = PresenceState::Online;
    world.run(world.sync.sync(request)).unwrap();
    assert_eq!(presence(&scene.ann, &scene.bob).unwrap(), PresenceState::Online, "who syncs is online");
    let env = world.sim.env();
    env.spawner.spawn("expiry", Box::pin(world.sync.clone().run_expiry()));
    world.sim.block_on(env.clock.sleep(std::time::Duration::from_secs(400)));
    assert_eq!(presence(&scene.ann, &scene.bob).unwrap(), PresenceState::Offline);
    world.sync.drain();
}
