//! Dehydrated devices: what is sent to them stays until they are replaced.

use http::Method;
use myelin_dag::SigningKey;
use myelin_testkit::{
    client::percent,
    env::Sim,
    server::{Answer, Server},
};
use serde_json::{Value, json};

use super::phone::{Phone, signed_device_keys};

const DEVICE: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

fn dehydrated(user_id: &str, device_id: &str) -> Value {
    let key = SigningKey::from_seed("asleep", [9; 32]).unwrap();
    json!({
        "device_id": device_id,
        "device_data": { "algorithm": "m.dehydration.v1.olm", "device_pickle": "…" },
        "initial_device_display_name": "asleep",
        "device_keys": signed_device_keys(user_id, device_id, 1, &key),
        "one_time_keys": { "signed_curve25519:A": { "key": "a" } },
        "fallback_keys": { "signed_curve25519:F": { "key": "f", "fallback": true } },
    })
}

async fn put(server: &Server, phone: &Phone, device_id: &str) -> Answer {
    phone.client.put(server, DEVICE, &dehydrated(phone.user_id(), device_id)).await
}

async fn events(server: &Server, phone: &Phone, device_id: &str, from: Option<&str>) -> Answer {
    let path = format!("{DEVICE}/{}/events", percent(device_id));
    let body = from.map_or(json!({}), |from| json!({ "next_batch": from }));
    phone.client.post(server, &path, &body).await
}

async fn claim(server: &Server, phone: &Phone, user_id: &str, device_id: &str) -> Value {
    let body = json!({ "one_time_keys": { user_id: { device_id: "signed_curve25519" } } });
    let answer = phone.client.post(server, "/_matrix/client/v3/keys/claim", &body).await.ok();
    answer["one_time_keys"][user_id][device_id].clone()
}

async fn delete(server: &Server, phone: &Phone) -> Answer {
    server.request(Method::DELETE, DEVICE, Some(&phone.client.token), None).await
}

#[test]
fn messages_wait_for_the_device_and_stay_when_they_are_read() {
    let sim = Sim::new(1);
    let server = Server::start(&sim, Default::default());
    let (ann, bob) = server
        .sim
        .clone()
        .block_on(async { (Phone::new(&server, "ann").await, Phone::new(&server, "bob").await) });
    server.sim.clone().block_on(async {
        assert_eq!(bob.client.get(&server, DEVICE).await.json["errcode"], "M_NOT_FOUND");
        put(&server, &bob, "SLEEP/+1").await.ok();
        for n in 0..130 {
            ann.send(&server, &n.to_string(), (bob.user_id(), "*"), json!({ "n": n })).await.ok();
        }
        let keys = ann.query(&server, bob.user_id()).await;
        let device = &keys["device_keys"][bob.user_id()]["SLEEP/+1"];
        assert_eq!(device["unsigned"]["device_display_name"], "asleep");
        assert_eq!(claim(&server, &ann, bob.user_id(), "SLEEP/+1").await["signed_curve25519:A"]["key"], "a");
        assert_eq!(claim(&server, &ann, bob.user_id(), "SLEEP/+1").await["signed_curve25519:F"]["key"], "f");
    });
    let server = Server::start(&sim, server.crash());
    server.sim.clone().block_on(async {
        let device = bob.client.get(&server, DEVICE).await.ok();
        assert_eq!(
            (&device["device_id"], &device["device_data"]["device_pickle"]),
            (&json!("SLEEP/+1"), &json!("…"))
        );
        for _ in 0..2 {
            let (mut received, mut from) = (Vec::new(), None);
            loop {
                let answer = events(&server, &bob, "SLEEP/+1", from.as_deref()).await.ok();
                let page = answer["events"].as_array().unwrap().clone();
                assert!(page.len() <= 100);
                from = answer["next_batch"].as_str().map(str::to_owned);
                if page.is_empty() {
                    break;
                }
                assert_eq!((&page[0]["type"], &page[0]["sender"]), (&json!("m.test"), &json!(ann.user_id())));
                received.extend(page.iter().map(|event| event["content"]["n"].as_u64().unwrap()));
            }
            assert_eq!(received, (0..130).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_new_one_takes_the_place_of_the_old_one() {
    let sim = Sim::new(2);
    let server = Server::start(&sim, Default::default());
    server.sim.clone().block_on(async {
        let (ann, bob) = (Phone::new(&server, "ann").await, Phone::new(&server, "bob").await);
        for (n, device_id) in ["FIRST", "SECOND", "SECOND"].into_iter().enumerate() {
            put(&server, &bob, device_id).await.ok();
            assert!(events(&server, &bob, device_id, None).await.ok()["events"][0].is_null());
            assert_eq!(
                claim(&server, &ann, bob.user_id(), device_id).await["signed_curve25519:A"]["key"],
                "a"
            );
            ann.send(&server, &n.to_string(), (bob.user_id(), "*"), json!({})).await.ok();
        }
        assert_eq!(events(&server, &bob, "FIRST", None).await.json["errcode"], "M_FORBIDDEN");
        assert_eq!(events(&server, &bob, "SECOND", Some("x")).await.json["errcode"], "M_INVALID_PARAM");
        let devices = bob.client.get(&server, "/_matrix/client/v3/devices").await.ok();
        assert_eq!(devices["devices"].as_array().unwrap().len(), 2);
        assert!(claim(&server, &ann, bob.user_id(), "FIRST").await.is_null());
        let keys = ann.query(&server, bob.user_id()).await;
        assert_eq!(keys["device_keys"][bob.user_id()].as_object().unwrap().len(), 1);

        bob.client.post(&server, "/_matrix/client/v3/logout/all", &json!({})).await.ok();
        let login = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": "bob" },
            "password": "secret of the simulation",
        });
        let login = server.request(Method::POST, "/_matrix/client/v3/login", None, Some(&login)).await.ok();
        let mut again = bob.client.clone();
        again.token = login["access_token"].as_str().unwrap().to_owned();
        assert_eq!(again.get(&server, DEVICE).await.ok()["device_id"], "SECOND");
        let gone = server.request(Method::DELETE, DEVICE, Some(&again.token), None).await.ok();
        assert_eq!(gone["device_id"], "SECOND");
        assert_eq!(again.get(&server, DEVICE).await.json["errcode"], "M_NOT_FOUND");
        let devices = again.get(&server, "/_matrix/client/v3/devices").await.ok();
        assert_eq!(devices["devices"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn what_is_no_dehydrated_device_is_refused() {
    let sim = Sim::new(3);
    let server = Server::start(&sim, Default::default());
    server.sim.clone().block_on(async {
        let (ann, bob) = (Phone::new(&server, "ann").await, Phone::new(&server, "bob").await);
        assert_eq!(delete(&server, &bob).await.json["errcode"], "M_NOT_FOUND");
        // Keys of somebody else, of another device, without a signature; a device that is logged in.
        let stolen = dehydrated(ann.user_id(), "D");
        assert_eq!(bob.client.put(&server, DEVICE, &stolen).await.json["errcode"], "M_INVALID_PARAM");
        let mut other = dehydrated(bob.user_id(), "D");
        other["device_id"] = json!("E");
        assert_eq!(bob.client.put(&server, DEVICE, &other).await.json["errcode"], "M_INVALID_PARAM");
        let mut unsigned = dehydrated(bob.user_id(), "D");
        unsigned["device_keys"]["signatures"] = json!({});
        assert_eq!(bob.client.put(&server, DEVICE, &unsigned).await.json["errcode"], "M_INVALID_SIGNATURE");
        let own = dehydrated(bob.user_id(), &bob.device_id);
        assert_eq!(bob.client.put(&server, DEVICE, &own).await.json["errcode"], "M_INVALID_PARAM");
        for data in [json!("text"), json!({ "x": "x".repeat(300_000) })] {
            let mut body = dehydrated(bob.user_id(), "D");
            body["device_data"] = data;
            assert_eq!(bob.client.put(&server, DEVICE, &body).await.json["errcode"], "M_INVALID_PARAM");
        }
        let mut keyless = dehydrated(bob.user_id(), "D");
        keyless.as_object_mut().unwrap().remove("device_keys");
        assert_eq!(bob.client.put(&server, DEVICE, &keyless).await.json["errcode"], "M_BAD_JSON");
        put(&server, &bob, "D").await.ok();
        assert_eq!(events(&server, &ann, "D", None).await.json["errcode"], "M_FORBIDDEN");
    });
}
