use myelin_dag::SigningKey;
use ruma::{server_name, signatures::sign_json};
use serde_json::{Value, json};

use super::*;

const DAY_MS: u64 = 24 * 3600 * 1000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&format!("k{seed}"), [seed; 32]).unwrap()
}

fn body() -> Value {
    json!({
        "server_name": "a.test",
        "verify_keys": { "ed25519:k1": { "key": key(1).public_key_base64() }, "rsa:1": { "key": "x" } },
        "old_verify_keys": { "ed25519:k2": { "key": key(2).public_key_base64(), "expired_ts": 50 } },
        "valid_until_ts": 100,
    })
}

fn signed(body: &Value, name: &str, key: &SigningKey) -> String {
    let mut object: CanonicalJsonObject = serde_json::from_value(body.clone()).unwrap();
    sign_json(name, key.pair(), &mut object).unwrap();
    serde_json::to_string(&object).unwrap()
}

fn until(answer: &KeyAnswer) -> Vec<(&str, u64)> {
    answer.keys().map(|(id, _, until)| (id.as_str(), until)).collect()
}

#[test]
fn keys_are_good_until_they_expire_and_never_longer_than_a_week() {
    let answer = KeyAnswer::check(server_name!("a.test"), &signed(&body(), "a.test", &key(1)), 7).unwrap();
    assert_eq!(until(&answer), [("ed25519:k1", 100), ("ed25519:k2", 50)]);
    let mut long = body();
    long["valid_until_ts"] = json!(365 * DAY_MS);
    let answer = KeyAnswer::read(&signed(&long, "a.test", &key(1)), 7).unwrap();
    assert_eq!(until(&answer)[0], ("ed25519:k1", 7 * DAY_MS + 7));
    assert!(!answer.is_stale(3 * DAY_MS) && answer.is_stale(4 * DAY_MS));
}

#[test]
fn what_a_server_did_not_sign_itself_is_refused() {
    let refused = |json: &str| KeyAnswer::check(server_name!("a.test"), json, 0).unwrap_err();
    assert_eq!(refused(&body().to_string()), AnswerError::NotSigned);
    assert_eq!(refused(&signed(&body(), "b.test", &key(1))), AnswerError::NotSigned);
    // An old key does not speak for the server any more.
    assert_eq!(refused(&signed(&body(), "a.test", &key(2))), AnswerError::NotSigned);
    let forged = SigningKey::from_seed("k1", [9; 32]).unwrap();
    let wrong = AnswerError::WrongSignature("ed25519:k1".to_owned());
    assert_eq!(refused(&signed(&body(), "a.test", &forged)), wrong);
    let mut changed: Value = serde_json::from_str(&signed(&body(), "a.test", &key(1))).unwrap();
    changed["valid_until_ts"] = json!(101);
    assert_eq!(refused(&changed.to_string()), wrong);
}

#[test]
fn what_is_not_about_the_server_or_not_in_shape_is_refused() {
    let signed = |body: &Value| signed(body, "a.test", &key(1));
    let other = KeyAnswer::check(server_name!("b.test"), &signed(&body()), 0).unwrap_err();
    assert_eq!(other, AnswerError::OtherServer(server_name!("a.test").to_owned()));
    let keys = (0..KEYS_MAX).map(|n| (format!("ed25519:{n}"), json!({ "key": "x" })));
    let mut many = body();
    many["verify_keys"].as_object_mut().unwrap().extend(keys);
    assert_eq!(KeyAnswer::read(&signed(&many), 0).unwrap_err(), AnswerError::TooManyKeys);
    for malformed in ["", "[]", "{}", r#"{"server_name":"a.test","valid_until_ts":-1,"verify_keys":{}}"#] {
        assert!(matches!(KeyAnswer::read(malformed, 0), Err(AnswerError::Json(_))), "{malformed}");
    }
}

#[test]
fn a_notary_has_to_sign_too() {
    let (name, notary) = (server_name!("n.test"), key(3));
    let once: Value = serde_json::from_str(&signed(&body(), "a.test", &key(1))).unwrap();
    let twice = KeyAnswer::read(&signed(&once, "n.test", &notary), 0).unwrap();
    assert_eq!(twice.check_signed_by(name, &notary.public_key_set()), Ok(()));
    assert_eq!(twice.check_signed_by(name, &key(4).public_key_set()), Err(AnswerError::NotSigned));
    let alone = KeyAnswer::read(&once.to_string(), 0).unwrap();
    assert_eq!(alone.check_signed_by(name, &notary.public_key_set()), Err(AnswerError::NotSigned));
}
