use futures::future::join_all;
use myelin_store::tables::{DEVICE_KEYS, KEY_STOCKS, ONE_TIME_KEYS, TO_DEVICE};
use ruma::OwnedUserId;
use serde_json::{Value, json};

use super::{
    claim::KeyClaim,
    invalidate::{Followed, drop_one_time_keys},
    query::Asker,
    signed::tests::Key,
    upload::{KeyUpload, KeyUploadError},
    *,
};
use crate::{Session, testing::World};

pub(crate) fn object(value: Value) -> Json {
    value.as_object().unwrap().clone()
}

pub(crate) fn unsigned_device_keys(session: &Session, key: &Key) -> Json {
    let device = &session.device_id;
    object(json!({
        "user_id": session.user_id,
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { format!("curve25519:{device}"): "x", format!("ed25519:{device}"): key.public() },
    }))
}

pub(crate) fn device_keys(session: &Session, key: &Key) -> Json {
    let mut keys = unsigned_device_keys(session, key);
    key.sign(&mut keys, &session.user_id, &session.device_id);
    keys
}

fn one_time(names: impl IntoIterator<Item = usize>) -> Json {
    let key = |n| (format!("signed_curve25519:K{n:03}"), json!({ "key": format!("key {n}") }));
    names.into_iter().map(key).collect()
}

fn fallback(name: &str) -> Json {
    object(json!({ format!("signed_curve25519:{name}"): { "key": name, "fallback": true } }))
}

pub(crate) async fn session(world: &World, name: &str) -> std::sync::Arc<Session> {
    let grant = world.register(name).await;
    world.users.session(&grant.access_token).await.unwrap()
}

fn claim_of(session: &Session) -> KeyClaim {
    KeyClaim {
        user_id: session.user_id.clone(),
        device_id: session.device_id.clone(),
        algorithm: "signed_curve25519".to_owned(),
    }
}

async fn claim(world: &World, session: &Session) -> Option<String> {
    let mut claimed = world.users.claim_keys(vec![claim_of(session)]).await.unwrap();
    claimed.pop().map(|key| key.name)
}

#[test]
fn device_keys_are_the_devices_own_and_signed() {
    let world = World::new();
    world.run(async {
        let session = session(&world, "alice").await;
        let upload = async |keys: Json| {
            let upload = KeyUpload { device_keys: Some(keys), ..KeyUpload::default() };
            world.users.upload_keys(&session, &upload).await
        };
        let key = Key::new();
        for (field, value) in [
            ("user_id", json!("@bob:example.org")),
            ("device_id", json!("OTHER")),
            ("algorithms", json!("m.olm")),
            ("algorithms", json!([1])),
            ("keys", json!([])),
            ("keys", json!({ format!("ed25519:{}", session.device_id): 1 })),
            ("keys", json!({ format!("ed25519:{}", session.device_id): "short" })),
            ("keys", json!({ "ed25519:OTHER": key.public() })),
            ("extra", json!("x".repeat(SIGNED_KEYS_SIZE_MAX))),
        ] {
            let mut keys = unsigned_device_keys(&session, &key);
            keys.insert(field.to_owned(), value);
            key.sign(&mut keys, &session.user_id, &session.device_id);
            assert!(matches!(upload(keys).await, Err(KeyUploadError::DeviceKeys(_))), "{field}");
        }
        let unsigned = unsigned_device_keys(&session, &key);
        assert!(matches!(upload(unsigned.clone()).await, Err(KeyUploadError::Signature)));
        let mut forged = unsigned;
        Key::new().sign(&mut forged, &session.user_id, &session.device_id);
        assert!(matches!(upload(forged).await, Err(KeyUploadError::Signature)));

        let keys = device_keys(&session, &key);
        upload(keys.clone()).await.unwrap();
        let position = world.view.store.position();
        upload(keys.clone()).await.unwrap();
        assert_eq!(world.view.store.position(), position, "nothing new");
        world.users.rename_device(session.user, &session.device_id, Some("laptop".to_owned())).await.unwrap();
        let asker = Asker::Local { user: session.user, user_id: &session.user_id };
        let seen = world.users.keys_of(session.user, &session.user_id, &[], asker).await.unwrap();
        let mut expected = keys.clone();
        expected.insert("unsigned".to_owned(), json!({ "device_display_name": "laptop" }));
        assert_eq!(seen.devices[&session.device_id], expected);
        let none = ["OTHER".to_owned()];
        let seen = world.users.keys_of(session.user, &session.user_id, &none, asker).await.unwrap();
        assert!(seen.devices.is_empty());
        let list = world.users.device_list(&session.user_id).await.unwrap().unwrap();
        assert_eq!(list.keys.devices[&session.device_id]["unsigned"], json!({}), "names stay here");
        assert_eq!(list.stream_id, 1);
    });
}

#[test]
fn one_time_keys_keep_their_content_and_have_a_limit() {
    let world = World::new();
    world.run(async {
        let session = session(&world, "alice").await;
        let upload = async |one_time_keys: Json, fallback_keys: Json| {
            let upload = KeyUpload { device_keys: None, one_time_keys, fallback_keys };
            world.users.upload_keys(&session, &upload).await
        };
        let none = Json::new;
        assert!(upload(none(), none()).await.unwrap().is_empty());
        assert_eq!(upload(one_time(0..5), none()).await.unwrap()["signed_curve25519"], 5);
        assert_eq!(upload(one_time(3..8), none()).await.unwrap()["signed_curve25519"], 8);
        let other = object(json!({ "signed_curve25519:K001": { "key": "another" } }));
        let refused = upload(other, none()).await;
        assert!(matches!(refused, Err(KeyUploadError::InUse(name)) if name == "signed_curve25519:K001"));
        for bad in [
            json!({ "no-colon": "x" }),
            json!({ ":x": "x" }),
            json!({ "x:": "x" }),
            json!({ "a:b": 1 }),
            json!({ "a:b": { "not": "a key" } }),
            json!({ format!("a:{}", "x".repeat(KEY_NAME_SIZE_MAX)): "x" }),
            json!({ "a:b": "x".repeat(KEY_SIZE_MAX) }),
        ] {
            let refused = upload(object(bad.clone()), none()).await;
            assert!(matches!(refused, Err(KeyUploadError::Key(_))), "{bad}");
            let refused = upload(none(), object(bad.clone())).await;
            assert!(matches!(refused, Err(KeyUploadError::Key(_))), "{bad}");
        }
        let many = one_time(0..ONE_TIME_KEYS_PER_DEVICE_MAX + 1);
        assert!(matches!(upload(many, none()).await, Err(KeyUploadError::TooMany)));
        let more = one_time(8..ONE_TIME_KEYS_PER_DEVICE_MAX + 1);
        assert!(matches!(upload(more, none()).await, Err(KeyUploadError::TooMany)));
        let two: Json = fallback("A").into_iter().chain(fallback("B")).collect();
        assert!(matches!(upload(none(), two).await, Err(KeyUploadError::TooMany)));
        world.users.delete_devices(session.user, std::slice::from_ref(&session.device_id)).await.unwrap();
        assert!(matches!(upload(one_time(0..1), none()).await, Err(KeyUploadError::NoDevice)));
    });
}

#[test]
fn keys_are_claimed_in_order_and_then_the_fallback_key_again_and_again() {
    let world = World::new();
    world.run(async {
        let session = session(&world, "alice").await;
        let upload = async |one_time_keys: Json, fallback_keys: Json| {
            let upload = KeyUpload { device_keys: None, one_time_keys, fallback_keys };
            world.users.upload_keys(&session, &upload).await.unwrap();
        };
        assert_eq!(claim(&world, &session).await, None);
        upload(one_time(5..7), fallback("F1")).await;
        upload(one_time(0..1), Json::new()).await;
        let stock = async || {
            world.view.feed.caught_up().await;
            let stocks = world.view.key_stocks.load(session.user).await.unwrap();
            let stock = &stocks[&session.device_id];
            (stock.one_time_key_counts.clone(), stock.unused_fallback_key_types.clone())
        };
        let unused = r#"["signed_curve25519"]"#.to_owned();
        assert_eq!(stock().await, (r#"{"signed_curve25519":3}"#.to_owned(), unused.clone()));
        for name in ["K005", "K006", "K000"] {
            assert_eq!(claim(&world, &session).await.unwrap(), format!("signed_curve25519:{name}"));
        }
        assert_eq!(stock().await, (r#"{"signed_curve25519":0}"#.to_owned(), unused.clone()));
        for _ in 0..2 {
            assert_eq!(claim(&world, &session).await.unwrap(), "signed_curve25519:F1");
        }
        assert_eq!(stock().await.1, "[]");
        upload(Json::new(), fallback("F1")).await;
        assert_eq!(stock().await.1, "[]", "the same one is not unused again");
        upload(Json::new(), fallback("F2")).await;
        assert_eq!(stock().await.1, unused);
        assert_eq!(claim(&world, &session).await.unwrap(), "signed_curve25519:F2");
        let other = KeyClaim { algorithm: "other".to_owned(), ..claim_of(&session) };
        let nobody: OwnedUserId = "@nobody:example.org".try_into().unwrap();
        let remote: OwnedUserId = "@alice:elsewhere.org".try_into().unwrap();
        let claims = [nobody, remote].map(|user_id| KeyClaim { user_id, ..claim_of(&session) });
        let claims = claims.into_iter().chain([other]).collect();
        assert_eq!(world.users.claim_keys(claims).await.unwrap(), []);
    });
}

#[test]
fn a_key_is_claimed_once_however_many_ask_and_wherever() {
    let world = World::interleaved();
    let node = world.another_node();
    world.run(async {
        let session = session(&world, "alice").await;
        let upload = KeyUpload { one_time_keys: one_time(0..40), ..KeyUpload::default() };
        world.users.upload_keys(&session, &upload).await.unwrap();
        let claims = (0..60).map(|n| claim(if n % 8 == 0 { &node } else { &world }, &session));
        let mut names: Vec<_> = join_all(claims).await.into_iter().flatten().collect();
        assert_eq!(names.len(), 40);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 40, "no key twice");
        assert_eq!(world.view.store.read().all(&ONE_TIME_KEYS, 9).await.unwrap().len(), 0);
        let stock = world.view.store.read().all(&KEY_STOCKS, 9).await.unwrap();
        assert_eq!(stock[0].1.one_time_keys, [("signed_curve25519".to_owned(), 0)]);
    });
}

#[test]
fn what_was_claimed_stays_claimed_after_a_restart() {
    let world = World::new();
    world.run(async {
        let session = session(&world, "alice").await;
        let upload = KeyUpload { one_time_keys: one_time(0..2), ..KeyUpload::default() };
        world.users.upload_keys(&session, &upload).await.unwrap();
        let first = claim(&world, &session).await;
        let restarted = world.another_node();
        let second = claim(&restarted, &session).await;
        assert_ne!(first, second);
        assert_eq!(claim(&world, &session).await, None);
    });
}

#[test]
fn a_store_that_was_set_back_gives_out_no_one_time_key() {
    let world = World::new();
    world.run(async {
        let session = session(&world, "alice").await;
        let (one_time_keys, fallback_keys) = (one_time(0..7), fallback("F"));
        let upload = KeyUpload { device_keys: None, one_time_keys, fallback_keys };
        world.users.upload_keys(&session, &upload).await.unwrap();
        assert_eq!(drop_one_time_keys(&world.view.store, Followed::Yes).await.unwrap(), 7);
        assert_eq!(drop_one_time_keys(&world.view.store, Followed::Yes).await.unwrap(), 0);
        world.view.feed.caught_up().await;
        let stocks = world.view.key_stocks.load(session.user).await.unwrap();
        assert_eq!(stocks[&session.device_id].one_time_key_counts, r#"{"signed_curve25519":0}"#);
        assert_eq!(stocks[&session.device_id].unused_fallback_key_types, "[]");
        assert_eq!(claim(&world, &session).await.unwrap(), "signed_curve25519:F");
    });
}

#[test]
fn a_device_goes_with_its_keys_and_its_inbox() {
    let world = World::new();
    world.run(async {
        let session = session(&world, "alice").await;
        let device_keys = Some(device_keys(&session, &Key::new()));
        let (one_time_keys, fallback_keys) = (one_time(0..3), fallback("F"));
        let upload = KeyUpload { device_keys, one_time_keys, fallback_keys };
        world.users.upload_keys(&session, &upload).await.unwrap();
        let messages = json!({ session.user_id.as_str(): { "*": {} } }).to_string();
        let messages = serde_json::from_str(&messages).unwrap();
        world.users.send_to_device(&session, "m.x", "1", &messages).await.unwrap();
        let read = world.view.store.read();
        assert_eq!(read.all(&TO_DEVICE, 9).await.unwrap().len(), 1);
        world.users.logout_all(session.user).await.unwrap();
        assert_eq!(read.all(&DEVICE_KEYS, 9).await.unwrap().len(), 0);
        assert_eq!(read.all(&ONE_TIME_KEYS, 9).await.unwrap().len(), 0);
        assert_eq!(read.all(&KEY_STOCKS, 9).await.unwrap().len(), 0);
        assert_eq!(read.all(&TO_DEVICE, 9).await.unwrap().len(), 0);
        let list = world.users.device_list(&session.user_id).await.unwrap().unwrap();
        assert_eq!((list.stream_id, list.keys.devices.len()), (2, 0));
    });
}
