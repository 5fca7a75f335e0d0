//! Two servers with a bad network between them: messages arrive once and in order, and device lists converge.

use std::{rc::Rc, time::Duration};

use myelin_testkit::{client::percent, faults::Faults, server::Server, world::World};
use serde_json::{Value, json};

use super::phone::{Phone, users};

const A: &str = "a.test";
const B: &str = "b.test";

/// Alice at one server and Bob at the other share a room.
struct Stage {
    world: World,
    alice: Phone,
    bob: Phone,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let world = World::new(seed).servers([A, B]);
        let (a, b) = (world.server(A).unwrap(), world.server(B).unwrap());
        let (alice, bob) = world.run(async { (Phone::new(&a, "alice").await, Phone::new(&b, "bob").await) });
        world.run(async {
            let room = alice.public_room(&a).await;
            let path = format!("/_matrix/client/v3/join/{}?via={A}&server_name={A}", percent(&room));
            bob.client.post(&b, &path, &json!({})).await.ok();
        });
        Self { world, alice, bob }
    }

    fn server(&self, name: &str) -> Rc<Server> {
        self.world.server(name).unwrap()
    }

    fn alice_sends(&self, numbers: std::ops::Range<u64>) {
        let to = (self.bob.user_id(), self.bob.device_id.as_str());
        for n in numbers {
            let send =
                async { self.alice.send(&self.server(A), &n.to_string(), to, json!({ "n": n })).await.ok() };
            self.world.run(send);
        }
    }

    /// What Bob's next syncs bring until there are so many messages.
    fn bob_receives(&self, count: usize) -> Vec<u64> {
        let (mut received, mut since) = (Vec::new(), None::<String>);
        self.world.wait_until("bob has his messages", async || {
            let Some(server) = self.world.server(B) else { return false };
            let answer = self.bob.sync(&server, since.as_deref()).await;
            let events = answer["to_device"]["events"].as_array().cloned().unwrap_or_default();
            received.extend(events.iter().map(|event| event["content"]["n"].as_u64().unwrap()));
            since = answer["next_batch"].as_str().map(str::to_owned);
            received.len() >= count
        });
        self.world.pass(Duration::from_secs(600));
        let rest = self.world.run(self.bob.sync(&self.server(B), since.as_deref()));
        assert!(rest["to_device"].is_null(), "more than was sent: {rest}");
        received
    }

    fn alice_uploads(&self, version: u64) {
        self.world.run(self.alice.upload_device_keys(&self.server(A), version));
    }

    fn version(&self) -> Option<u64> {
        self.world.run(self.bob.version_of(&self.server(B), self.alice.user_id()))
    }

    fn since(&self) -> String {
        let answer = self.world.run(self.bob.sync(&self.server(B), None));
        answer["next_batch"].as_str().unwrap().to_owned()
    }

    /// Waits until Bob is told that Alice's devices changed, and asks for them then, until they are those.
    fn bob_converges_to(&self, since: &str, version: u64) {
        let mut since = since.to_owned();
        self.world.wait_until("bob has alice's newest keys, having been told", async || {
            let server = self.server(B);
            let answer: Value = self.bob.sync(&server, Some(&since)).await;
            since = answer["next_batch"].as_str().unwrap().to_owned();
            let told =
                users(&answer["device_lists"]["changed"]).iter().any(|user| user == self.alice.user_id());
            told && self.bob.version_of(&server, self.alice.user_id()).await == Some(version)
        });
    }
}

#[test]
fn messages_wait_for_the_end_of_a_netsplit() {
    let stage = Stage::new(1);
    stage.alice_sends(1..5);
    stage.world.cut(&[A], &[B]);
    stage.alice_sends(5..40);
    stage.world.pass(Duration::from_secs(120));
    stage.world.heal();
    assert_eq!(stage.bob_receives(39), (1..40).collect::<Vec<_>>());
}

#[test]
fn messages_come_once_and_in_order_through_a_storm_and_a_crash() {
    for seed in 0..4 {
        let stage = Stage::new(seed);
        stage.world.network().set_faults(Faults::stormy());
        stage.alice_sends(1..20);
        stage.world.pass(Duration::from_secs(30));
        for name in [A, B] {
            stage.world.crash(name);
            stage.world.pass(Duration::from_secs(20));
            stage.world.start(name);
        }
        stage.alice_sends(20..30);
        stage.world.heal();
        assert_eq!(stage.bob_receives(29), (1..30).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn device_lists_converge_after_a_netsplit() {
    let stage = Stage::new(1);
    stage.alice_uploads(1);
    assert_eq!(stage.version(), Some(1));
    let since = stage.since();
    stage.world.cut(&[A], &[B]);
    for version in 2..5 {
        stage.alice_uploads(version);
    }
    stage.world.pass(Duration::from_secs(120));
    assert_eq!(stage.version(), Some(1), "what is held");
    stage.world.heal();
    stage.bob_converges_to(&since, 4);
}

#[test]
fn device_lists_converge_through_a_storm_and_a_crash() {
    for seed in 0..4 {
        let stage = Stage::new(seed);
        stage.alice_uploads(1);
        assert_eq!(stage.version(), Some(1));
        let since = stage.since();
        stage.world.network().set_faults(Faults::stormy());
        for version in 2..8 {
            stage.alice_uploads(version);
            stage.world.pass(Duration::from_secs(version));
        }
        stage.world.crash(B);
        stage.alice_uploads(8);
        stage.world.start(B);
        stage.world.heal();
        stage.bob_converges_to(&since, 8);
    }
}
