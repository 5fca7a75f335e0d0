//! Devices across servers, with a puppet as the other one.

use std::time::Duration;

use http::{Method, StatusCode};
use myelin_dag::{NewEvent, SigningKey};
use myelin_store::{Direction, tables::OUTBOX};
use myelin_testkit::{env::Sim, network::Network, puppet::Puppet, server::Server};
use ruma::{OwnedServerName, RoomId};
use serde_json::{Value, json, value::to_raw_value};

use super::phone::{Phone, signed_device_keys, users};

const QUERY: &str = "/_matrix/federation/v1/user/keys/query";
const CLAIM: &str = "/_matrix/federation/v1/user/keys/claim";
const DEVICES: &str = "/_matrix/federation/v1/user/devices/";
const BOB: &str = "@bob:remote.test";

/// Home of Alice, and a puppet whose Bob is in her room.
struct Stage {
    home: Server,
    network: Network,
    name: OwnedServerName,
    alice: Phone,
    room: String,
    puppet: Puppet,
    key: SigningKey,
}

impl Stage {
    async fn new(sim: &Sim) -> Self {
        let network = Network::default();
        let name: OwnedServerName = "home.test".try_into().unwrap();
        let home = Server::start_in(&network, &name, sim, Default::default());
        let alice = Phone::new(&home, "alice").await;
        let room = alice.public_room(&home).await;
        let puppet = Puppet::connect(&network, "remote.test");
        let key = SigningKey::from_seed("BOBS", [9; 32]).unwrap();
        let stage = Self { home, network, name, alice, room, puppet, key };
        stage.member("join").await;
        stage
    }

    async fn member(&self, membership: &str) {
        let event = NewEvent {
            sender: BOB.try_into().unwrap(),
            event_type: "m.room.member".into(),
            state_key: Some(BOB.to_owned()),
            content: to_raw_value(&json!({ "membership": membership })).unwrap(),
            redacts: None,
            sticky_duration_ms: None,
        };
        let room = <&RoomId>::try_from(self.room.as_str()).unwrap();
        let pdu = self.puppet.makes_next(&self.home.view, room, event).await;
        let reply = self.puppet.sends(&self.name, &[&pdu]).await;
        assert_eq!(reply.json["pdus"][pdu.event_id.as_str()], json!({}), "{}", reply.json);
    }

    fn keys(&self, version: u64) -> Value {
        signed_device_keys(BOB, "BOBS", version, &self.key)
    }

    /// What Bob's server says of his devices from now on.
    fn devices(&self, stream_id: u64, version: u64) {
        let keys = self.keys(version);
        let device = json!({ "device_id": "BOBS", "keys": keys, "device_display_name": "Bob's" });
        let devices = json!({ "user_id": BOB, "stream_id": stream_id, "devices": [device] });
        self.puppet.says(DEVICES, StatusCode::OK, devices);
        self.puppet.says(QUERY, StatusCode::OK, json!({ "device_keys": { BOB: { "BOBS": keys } } }));
    }

    async fn edu(&self, edu_type: &str, content: Value) {
        let edus = json!([{ "edu_type": edu_type, "content": content }]);
        let reply = self.puppet.sends_transaction(&self.name, json!([]), edus).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.json);
    }

    async fn update(&self, stream_id: u64, prev_id: &[u64], version: u64) {
        let content = json!({
            "user_id": BOB, "device_id": "BOBS", "stream_id": stream_id, "prev_id": prev_id,
            "keys": self.keys(version),
        });
        self.edu("m.device_list_update", content).await;
    }

    fn asked(&self, path: &str) -> usize {
        self.puppet.asked().iter().filter(|asked| asked.contains(path)).count()
    }

    async fn version(&self) -> Option<u64> {
        self.alice.version_of(&self.home, BOB).await
    }

    async fn wait_s(&self, seconds: u64) {
        self.home.view.env.clock.sleep(Duration::from_secs(seconds)).await;
    }

    /// What waits for the puppet: type and content.
    async fn outbox(&self) -> Vec<(String, Value)> {
        let server = self.puppet.name().to_string();
        let rows = self.home.view.store.scan(&OUTBOX, &server, Direction::Forward, 1000).await.unwrap();
        rows.into_iter().map(|(_, row)| (row.edu_type, serde_json::from_str(&row.json).unwrap())).collect()
    }

    /// The same and what it has got already.
    async fn sent(&self, edu_type: &str) -> Vec<Value> {
        let mut sent = Vec::new();
        for transaction in self.puppet.received() {
            for edu in transaction["edus"].as_array().into_iter().flatten() {
                sent.push((edu["edu_type"].as_str().unwrap().to_owned(), edu["content"].clone()));
            }
        }
        for waiting in self.outbox().await {
            if !sent.contains(&waiting) {
                sent.push(waiting);
            }
        }
        sent.into_iter().filter(|(kind, _)| kind == edu_type).map(|(_, content)| content).collect()
    }
}

fn run<F: Future>(scene: impl FnOnce(Sim) -> F) {
    let sim = Sim::new(1);
    sim.block_on(scene(sim.clone()));
}

#[test]
fn a_device_list_is_asked_for_once_and_then_kept_up_to_date() {
    run(|sim| async move {
        let stage = Stage::new(&sim).await;
        stage.devices(5, 1);
        assert_eq!(stage.version().await, Some(1));
        stage.wait_s(1).await;
        assert_eq!((stage.asked(QUERY), stage.asked(DEVICES)), (1, 1));
        let answer = stage.alice.query(&stage.home, BOB).await;
        assert_eq!(answer["device_keys"][BOB]["BOBS"]["unsigned"]["device_display_name"], "Bob's");
        assert_eq!((stage.asked(QUERY), stage.asked(DEVICES)), (1, 1), "it is held");
        let since = stage.alice.sync(&stage.home, None).await["next_batch"].as_str().unwrap().to_owned();

        stage.update(6, &[5], 2).await;
        let answer = stage.alice.sync(&stage.home, Some(&since)).await;
        assert_eq!(users(&answer["device_lists"]["changed"]), [BOB]);
        assert_eq!(stage.version().await, Some(2));
        stage.update(6, &[5], 2).await;
        stage.update(5, &[], 2).await;
        assert_eq!((stage.asked(QUERY), stage.asked(DEVICES)), (1, 1), "it came again");
        let gone = json!({
            "user_id": BOB, "device_id": "BOBS", "stream_id": 7, "prev_id": [6], "deleted": true,
        });
        stage.edu("m.device_list_update", gone).await;
        assert_eq!(stage.version().await, None);
        assert_eq!((stage.asked(QUERY), stage.asked(DEVICES)), (1, 1));
    });
}

#[test]
fn a_lost_update_is_noticed_and_the_list_fetched() {
    run(|sim| async move {
        let stage = Stage::new(&sim).await;
        stage.devices(5, 1);
        stage.version().await;
        stage.wait_s(1).await;
        let since = stage.alice.sync(&stage.home, None).await["next_batch"].as_str().unwrap().to_owned();
        stage.devices(8, 4);
        // 6 and 7 were lost.
        stage.update(8, &[7], 4).await;
        stage.wait_s(1).await;
        assert_eq!(stage.asked(DEVICES), 2);
        let answer = stage.alice.sync(&stage.home, Some(&since)).await;
        assert_eq!(users(&answer["device_lists"]["changed"]), [BOB]);
        assert_eq!((stage.version().await, stage.asked(QUERY)), (Some(4), 1), "from what is held");
        stage.update(9, &[8], 5).await;
        assert_eq!((stage.version().await, stage.asked(DEVICES)), (Some(5), 2), "it goes on from there");
    });
}

#[test]
fn a_server_that_does_not_answer_is_a_failure_and_asked_again_also_after_a_restart() {
    run(|sim| async move {
        let stage = Stage::new(&sim).await;
        stage.devices(5, 1);
        stage.version().await;
        stage.wait_s(1).await;
        stage.devices(9, 3);
        stage.update(9, &[8], 3).await;
        for path in [DEVICES, QUERY] {
            stage.puppet.says(path, StatusCode::BAD_GATEWAY, json!({}));
        }
        stage.update(10, &[9], 3).await;
        stage.wait_s(1).await;
        stage.update(12, &[11], 3).await;
        let answer = stage.alice.query(&stage.home, BOB).await;
        assert_eq!(answer["failures"]["remote.test"]["status"], 503, "{answer}");
        assert!(answer["device_keys"][BOB]["BOBS"].is_object(), "what is held is better than nothing");
        let Stage { home, network, name, .. } = stage;
        let home = Server::start_in(&network, &name, &sim.rebooted(), home.crash());
        let stage = Stage { home, network, name, ..stage };
        stage.devices(12, 7);
        let home_sim = stage.home.sim.clone();
        home_sim.block_on(async {
            stage.wait_s(7200).await;
            let asked = stage.asked(QUERY);
            assert_eq!(stage.version().await, Some(7));
            assert_eq!(stage.asked(QUERY), asked, "it was fetched meanwhile");
        });
    });
}

#[test]
fn who_shares_no_room_any_more_is_forgotten() {
    run(|sim| async move {
        let stage = Stage::new(&sim).await;
        stage.devices(5, 1);
        stage.version().await;
        stage.wait_s(1).await;
        let since = stage.alice.sync(&stage.home, None).await["next_batch"].as_str().unwrap().to_owned();
        stage.member("leave").await;
        let answer = stage.alice.sync(&stage.home, Some(&since)).await;
        assert_eq!(users(&answer["device_lists"]["left"]), [BOB]);
        stage.wait_s(1).await;
        let asked = stage.asked(QUERY);
        for _ in 0..2 {
            assert_eq!(stage.version().await, Some(1));
        }
        assert_eq!(
            (stage.asked(QUERY), stage.asked(DEVICES)),
            (asked + 2, 1),
            "asked for each time, and not kept"
        );
        stage.update(6, &[5], 2).await;
        stage.wait_s(1).await;
        assert_eq!(stage.asked(DEVICES), 1, "not of interest");
        stage.member("join").await;
        stage.devices(7, 3);
        assert_eq!(stage.version().await, Some(3));
        stage.wait_s(1).await;
        assert_eq!(stage.asked(DEVICES), 2);
    });
}

#[test]
fn others_are_told_of_every_change_in_order() {
    run(|sim| async move {
        let stage = Stage::new(&sim).await;
        for version in 1..=3 {
            stage.alice.upload_device_keys(&stage.home, version).await;
        }
        let sent = stage.sent("m.device_list_update").await;
        let numbers: Vec<_> =
            sent.iter().map(|edu| (edu["stream_id"].clone(), edu["prev_id"].clone())).collect();
        assert_eq!(numbers, [(json!(1), json!([])), (json!(2), json!([1])), (json!(3), json!([2]))]);
        assert_eq!(sent[2]["keys"]["version"], 3);
        let uri = format!("{DEVICES}{}", stage.alice.user_id());
        let list = stage.puppet.requests(&stage.name, Method::GET, &uri, None).await.json;
        assert_eq!(list["stream_id"], 3);
        assert_eq!(list["devices"][0]["keys"]["version"], 3);
        assert!(list["devices"][0].get("device_display_name").is_none());
        let nobody = format!("{DEVICES}@nobody:home.test");
        assert_eq!(stage.puppet.requests(&stage.name, Method::GET, &nobody, None).await.status, 404);
        let foreign = format!("{DEVICES}@bob:remote.test");
        assert_eq!(stage.puppet.requests(&stage.name, Method::GET, &foreign, None).await.status, 404);
        let asked = json!({ "device_keys": { stage.alice.user_id(): [], BOB: [] } });
        let answer = stage.puppet.requests(&stage.name, Method::POST, QUERY, Some(&asked)).await.json;
        assert_eq!(answer["device_keys"].as_object().unwrap().len(), 1);
        assert_eq!(answer["device_keys"][stage.alice.user_id()][&stage.alice.device_id]["version"], 3);
        stage.alice.client.post(&stage.home, "/_matrix/client/v3/logout", &json!({})).await.ok();
        let last = stage.sent("m.device_list_update").await.pop().unwrap();
        assert_eq!((&last["deleted"], &last["stream_id"]), (&json!(true), &json!(4)));
    });
}

#[test]
fn who_comes_into_a_room_is_introduced_to_its_servers() {
    run(|sim| async move {
        let stage = Stage::new(&sim).await;
        let carol = Phone::new(&stage.home, "carol").await;
        carol.upload_device_keys(&stage.home, 1).await;
        assert_eq!(stage.sent("m.device_list_update").await, [] as [Value; 0]);
        carol.join(&stage.home, &stage.room).await.ok();
        stage.wait_s(1).await;
        let sent = stage.sent("m.device_list_update").await;
        assert_eq!(sent.len(), 1);
        assert_eq!((&sent[0]["user_id"], &sent[0]["prev_id"]), (&json!(carol.user_id()), &json!([])));
    });
}

#[test]
fn one_time_keys_are_claimed_across_servers() {
    run(|sim| async move {
        let stage = Stage::new(&sim).await;
        let key = |name: &str| json!({ format!("signed_curve25519:{name}"): { "key": name } });
        stage.alice.upload(&stage.home, &json!({ "one_time_keys": key("A") })).await.ok();
        let asked = json!({ "one_time_keys": {
            stage.alice.user_id(): { stage.alice.device_id.as_str(): "signed_curve25519" }, BOB: { "BOBS": "signed_curve25519" },
        } });
        let claim = async || stage.puppet.requests(&stage.name, Method::POST, CLAIM, Some(&asked)).await.json;
        let first = claim().await;
        assert_eq!(first["one_time_keys"][stage.alice.user_id()][&stage.alice.device_id], key("A"));
        assert_eq!(claim().await, json!({ "one_time_keys": {} }));

        let given = json!({ "one_time_keys": { BOB: { "BOBS": key("B"), "OTHER": key("C") } } });
        stage.puppet.says(CLAIM, StatusCode::OK, given);
        let asked = json!({ "one_time_keys": {
            BOB: { "BOBS": "signed_curve25519" }, "@x:nowhere.test": { "D": "signed_curve25519" },
        } });
        let answer = stage.alice.client.post(&stage.home, "/_matrix/client/v3/keys/claim", &asked).await.ok();
        assert_eq!(answer["one_time_keys"], json!({ BOB: { "BOBS": key("B") } }));
        assert!(answer["failures"]["nowhere.test"].is_object());
    });
}

#[test]
fn messages_go_between_servers_once() {
    run(|sim| async move {
        let stage = Stage::new(&sim).await;
        stage.alice.send(&stage.home, "1", (BOB, "BOBS"), json!({ "n": 1 })).await.ok();
        stage.alice.send(&stage.home, "1", (BOB, "BOBS"), json!({ "n": 1 })).await.ok();
        let sent = stage.sent("m.direct_to_device").await;
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0]["messages"], json!({ BOB: { "BOBS": { "n": 1 } } }));

        let content = json!({
            "sender": BOB, "type": "m.test", "message_id": "m1",
            "messages": { stage.alice.user_id(): { stage.alice.device_id.as_str(): { "n": 2 } } },
        });
        for _ in 0..3 {
            stage.edu("m.direct_to_device", content.clone()).await;
        }
        let mut forged = content;
        forged["sender"] = json!(stage.alice.user_id());
        forged["message_id"] = json!("m2");
        stage.edu("m.direct_to_device", forged).await;
        let answer = stage.alice.sync(&stage.home, None).await;
        let expected = json!([{ "type": "m.test", "sender": BOB, "content": { "n": 2 } }]);
        assert_eq!(answer["to_device"]["events"], expected);
    });
}

#[test]
fn cross_signing_keys_of_others_are_taken_if_they_are_theirs() {
    run(|sim| async move {
        let stage = Stage::new(&sim).await;
        stage.devices(5, 1);
        stage.version().await;
        stage.wait_s(1).await;
        let public = stage.key.public_key_base64();
        let master = |user: &str| json!({ "user_id": user, "usage": ["master"], "keys": { format!("ed25519:{public}"): public } });
        stage
            .edu("m.signing_key_update", json!({ "user_id": BOB, "master_key": master("@eve:remote.test") }))
            .await;
        let answer = stage.alice.query(&stage.home, BOB).await;
        assert!(answer["master_keys"].is_null(), "{answer}");
        let mut unsigned = master(BOB);
        unsigned["usage"] = json!(["self_signing"]);
        let content = json!({ "user_id": BOB, "master_key": master(BOB), "self_signing_key": unsigned });
        stage.edu("m.signing_key_update", content).await;
        let answer = stage.alice.query(&stage.home, BOB).await;
        assert_eq!(answer["master_keys"][BOB], master(BOB));
        assert!(answer["self_signing_keys"].is_null(), "{answer}");
    });
}
