//! To-device messages: each once and in order, whatever crashes.

use futures::future::{Either, join_all, select};
use myelin_testkit::{below, env::Sim, server::Server};
use serde_json::{Value, json};
use std::time::Duration;

use super::phone::Phone;

/// What a client has taken in, as far as it has written it down.
#[derive(Clone, Default)]
struct Notes {
    since: Option<String>,
    received: Vec<u64>,
}

impl Notes {
    fn take(&mut self, answer: &Value) -> usize {
        let events = answer["to_device"]["events"].as_array().cloned().unwrap_or_default();
        for event in &events {
            assert_eq!((&event["type"], event["sender"].is_string()), (&json!("m.test"), true));
            self.received.push(event["content"]["n"].as_u64().unwrap());
        }
        assert!(events.len() <= 100);
        self.since = answer["next_batch"].as_str().map(str::to_owned);
        events.len()
    }
}

fn lifetime(seed: u64) {
    let sim = Sim::new(seed);
    let env = sim.env();
    let mut server = Server::start(&sim, Default::default());
    let (ann, bob) = server
        .sim
        .clone()
        .block_on(async { (Phone::new(&server, "ann").await, Phone::new(&server, "bob").await) });
    let (mut sent, mut notes) = (0, Notes::default());
    for step in 0..40 {
        match below(&env, 10) {
            0..=4 => server.sim.clone().block_on(async {
                let count = if below(&env, 8) == 0 { 130 } else { 1 + below(&env, 5) as u64 };
                for _ in 0..count {
                    sent += 1;
                    let to = (bob.user_id(), bob.device_id.as_str());
                    ann.send(&server, &sent.to_string(), to, json!({ "n": sent })).await.ok();
                }
                // The answer was lost, and the client sends it again.
                let to = (bob.user_id(), "*");
                ann.send(&server, &sent.to_string(), to, json!({ "n": 0 })).await.ok();
            }),
            5..=7 => {
                let before = notes.clone();
                let answer = server.sim.clone().block_on(bob.sync(&server, notes.since.as_deref()));
                notes.take(&answer);
                if below(&env, 3) == 0 {
                    // The client crashes before it has written down what it got.
                    notes = before;
                }
            }
            8 => server = Server::start(&sim, server.crash()),
            _ => sim.clock().advance(Duration::from_secs(step)),
        }
    }
    while notes.take(&server.sim.clone().block_on(bob.sync(&server, notes.since.as_deref()))) > 0 {}
    let expected: Vec<u64> = (1..=sent).collect();
    assert_eq!(notes.received, expected, "seed {seed}");
    // Acknowledged, and so deleted as soon as the disk has taken it.
    server.sim.clone().block_on(async {
        bob.sync(&server, notes.since.as_deref()).await;
        env.clock.sleep(Duration::from_secs(1)).await;
    });
    let again = server.sim.clone().block_on(bob.sync(&server, None));
    assert!(again["to_device"].is_null(), "seed {seed}");
}

#[test]
fn messages_come_once_and_in_order_whatever_crashes() {
    for seed in 0..10 {
        lifetime(seed);
    }
}

#[test]
fn a_message_wakes_the_device_that_it_is_for() {
    let sim = Sim::new(1);
    let server = Server::start(&sim, Default::default());
    server.sim.clone().block_on(async {
        let (ann, bob) = (Phone::new(&server, "ann").await, Phone::new(&server, "bob").await);
        let first = bob.sync(&server, None).await;
        let since = first["next_batch"].as_str().unwrap();
        let path = format!("/_matrix/client/v3/sync?set_presence=offline&timeout=30000&since={since}");
        let started = server.view.env.now_ms();
        let send = async {
            server.view.env.clock.sleep(Duration::from_secs(1)).await;
            ann.send(&server, "1", (bob.user_id(), &bob.device_id), json!({ "n": 1 })).await.ok();
        };
        let (answer, ()) = futures::join!(bob.client.get(&server, &path), send);
        assert_eq!(answer.ok()["to_device"]["events"][0]["content"], json!({ "n": 1 }));
        assert!(server.view.env.now_ms() - started < 2_000);
    });
}

#[test]
fn acknowledged_messages_are_known_after_a_crash_in_the_middle_of_sending() {
    for seed in 0..10 {
        let sim = Sim::new(seed);
        let server = Server::start(&sim, Default::default());
        let (ann, bob) = server
            .sim
            .clone()
            .block_on(async { (Phone::new(&server, "ann").await, Phone::new(&server, "bob").await) });
        let acknowledged = parking_lot::Mutex::new(Vec::new());
        server.sim.clone().block_on(async {
            let sends = (1..=20_u64).map(|n| {
                let (server, ann, bob, acknowledged) = (&server, &ann, &bob, &acknowledged);
                async move {
                    server.view.env.clock.sleep(Duration::from_millis(n)).await;
                    let to = (bob.user_id(), bob.device_id.as_str());
                    if ann.send(server, &n.to_string(), to, json!({ "n": n })).await.is_ok() {
                        acknowledged.lock().push(n);
                    }
                }
            });
            let power = server.view.env.clock.sleep(Duration::from_millis(12));
            match select(Box::pin(join_all(sends)), power).await {
                Either::Left(_) | Either::Right(_) => {}
            }
        });
        let server = Server::start(&sim, server.crash());
        let mut notes = Notes::default();
        notes.take(&server.sim.clone().block_on(bob.sync(&server, None)));
        let lost: Vec<_> =
            acknowledged.lock().iter().filter(|n| !notes.received.contains(n)).copied().collect();
        assert!(lost.is_empty(), "seed {seed}: {lost:?} were acknowledged and are gone");
    }
}
