//! One-time keys: each is given out once, whatever crashes.

use std::{collections::BTreeSet, time::Duration};

use futures::future::{join_all, select};
use myelin_testkit::{env::Sim, server::Server};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::phone::Phone;

fn keys(count: usize) -> Value {
    let key = |n| (format!("signed_curve25519:K{n:03}"), json!({ "key": format!("{n}") }));
    Value::Object((0..count).map(key).collect::<Map<_, _>>())
}

async fn claim(server: &Server, asker: &Phone, of: &Phone) -> Option<String> {
    let body = json!({ "one_time_keys": { of.user_id(): { of.device_id.as_str(): "signed_curve25519" } } });
    let answer = asker.client.post(server, "/_matrix/client/v3/keys/claim", &body).await;
    if !answer.is_ok() {
        return None;
    }
    let keys = answer.json["one_time_keys"][of.user_id()][&of.device_id].clone();
    keys.as_object()?.keys().next().cloned()
}

#[test]
fn no_key_is_given_out_twice_whatever_crashes() {
    for seed in 0..8 {
        let sim = Sim::new(seed);
        let server = Server::start(&sim, Default::default());
        let (ann, bob) = server.sim.clone().block_on(async {
            let (ann, bob) = (Phone::new(&server, "ann").await, Phone::new(&server, "bob").await);
            bob.upload(&server, &json!({ "one_time_keys": keys(40) })).await.ok();
            (ann, bob)
        });
        let given = Mutex::new(Vec::new());
        server.sim.clone().block_on(async {
            let claims = (0..20_u64).map(|n| {
                let (server, ann, bob, given) = (&server, &ann, &bob, &given);
                async move {
                    server.view.env.clock.sleep(Duration::from_millis(n % 7)).await;
                    let key = claim(server, ann, bob).await;
                    given.lock().extend(key);
                }
            });
            let power = server.view.env.clock.sleep(Duration::from_millis(15));
            select(Box::pin(join_all(claims)), power).await;
        });
        let server = Server::start(&sim, server.crash());
        let rest = server.sim.clone().block_on(async {
            let mut rest = Vec::new();
            while let Some(key) = claim(&server, &ann, &bob).await {
                rest.push(key);
            }
            rest
        });
        let all: Vec<_> = given.lock().iter().cloned().chain(rest).collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "seed {seed}: a key was given out twice");
        assert!(all.len() >= 20, "seed {seed}: a crash costs at most the claims under way");
    }
}

#[test]
fn a_sync_says_what_is_in_stock() {
    let sim = Sim::new(1);
    let server = Server::start(&sim, Default::default());
    server.sim.clone().block_on(async {
        let (ann, bob) = (Phone::new(&server, "ann").await, Phone::new(&server, "bob").await);
        let stock = async || {
            let answer = bob.sync(&server, None).await;
            let (counts, unused) = (
                answer["device_one_time_keys_count"].clone(),
                answer["device_unused_fallback_key_types"].clone(),
            );
            (counts, unused)
        };
        assert_eq!(stock().await, (json!({}), json!([])));
        let fallback = json!({ "signed_curve25519:F": { "key": "F", "fallback": true } });
        let upload = json!({ "one_time_keys": keys(2), "fallback_keys": fallback });
        let answer = bob.upload(&server, &upload).await.ok();
        assert_eq!(answer, json!({ "one_time_key_counts": { "signed_curve25519": 2 } }));
        let unused = json!(["signed_curve25519"]);
        for left in [1, 0] {
            claim(&server, &ann, &bob).await.unwrap();
            assert_eq!(stock().await, (json!({ "signed_curve25519": left }), unused.clone()));
        }
        assert_eq!(claim(&server, &ann, &bob).await.unwrap(), "signed_curve25519:F");
        assert_eq!(stock().await.1, json!([]));
    });
}
