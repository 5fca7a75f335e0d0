//! JSON that is signed by keys of devices and users (specification appendices, "Signing JSON").

use ruma::{
    SigningKeyAlgorithm, UserId,
    canonical_json::try_from_json_map,
    serde::Base64,
    signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};
use serde_json::Value;

use super::Json;

pub(crate) const ED25519: &str = "ed25519:";
const SIGNATURES: &str = "signatures";
const PUBLIC_KEY_SIZE: usize = 32;

/// The ed25519 public keys of a `keys` member: what follows `ed25519:` in their names, and the keys.
pub(crate) fn ed25519_keys(object: &Json) -> impl Iterator<Item = (&str, &str)> {
    let keys = object.get("keys").and_then(Value::as_object).into_iter().flatten();
    keys.filter_map(|(name, key)| Some((name.strip_prefix(ED25519)?, key.as_str()?)))
}

pub(crate) fn is_public_key(text: &str) -> bool {
    Base64::<ruma::serde::base64::Standard>::parse(text)
        .is_ok_and(|key| key.as_bytes().len() == PUBLIC_KEY_SIZE)
}

/// Whether `object` carries a good signature of `signer` by the key `ed25519:<key_id>`, which is `public_key`.
pub(crate) fn is_signed(object: &Json, signer: &UserId, key_id: &str, public_key: &str) -> bool {
    signature(object, signer, &format!("{ED25519}{key_id}"))
        .is_some_and(|signature| verify(object, public_key, signature).is_some())
}

pub(crate) fn signature<'a>(object: &'a Json, signer: &UserId, key_name: &str) -> Option<&'a str> {
    object.get(SIGNATURES)?.get(signer.as_str())?.get(key_name)?.as_str()
}

/// Every signature of `signer`: the name of the key, and the signature.
pub(crate) fn signatures_of<'a>(
    object: &'a Json,
    signer: &UserId,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let of_signer = object.get(SIGNATURES).and_then(|all| all.get(signer.as_str()));
    let of_signer = of_signer.and_then(Value::as_object).into_iter().flatten();
    of_signer.filter_map(|(name, signature)| Some((name.as_str(), signature.as_str()?)))
}

fn verify(object: &Json, public_key: &str, signature: &str) -> Option<()> {
    type Bytes = Base64<ruma::serde::base64::Standard>;
    let canonical = try_from_json_map(object.clone()).ok()?;
    let text = to_canonical_json_string_for_signing(&canonical).ok()?;
    let (key, signature) = (Bytes::parse(public_key).ok()?, Bytes::parse(signature).ok()?);
    let algorithm = SigningKeyAlgorithm::Ed25519;
    verify_canonical_json_bytes(&algorithm, key.as_bytes(), signature.as_bytes(), text.as_bytes()).ok()
}

pub(crate) fn add_signature(object: &mut Json, signer: &UserId, key_name: &str, signature: &str) {
    let all = object.entry(SIGNATURES).or_insert_with(|| Json::new().into());
    let Some(all) = all.as_object_mut() else { return };
    let of_signer = all.entry(signer.as_str()).or_insert_with(|| Json::new().into());
    if let Some(of_signer) = of_signer.as_object_mut() {
        of_signer.insert(key_name.to_owned(), signature.into());
    }
}

/// Whether both say the same, whoever signed it.
pub(crate) fn is_same(a: &Json, b: &Json) -> bool {
    let unsigned = |object: &Json| {
        let mut object = object.clone();
        object.remove(SIGNATURES);
        object.remove("unsigned");
        object
    };
    unsigned(a) == unsigned(b)
}

#[cfg(test)]
pub(crate) mod tests {
    use ruma::{
        signatures::{Ed25519KeyPair, KeyPair},
        user_id,
    };
    use serde_json::json;

    use super::*;

    /// A key pair for tests.
    pub(crate) struct Key(Ed25519KeyPair);

    impl Key {
        pub fn new() -> Self {
            let document = Ed25519KeyPair::generate();
            Self(Ed25519KeyPair::from_der(&document, "1".to_owned()).unwrap())
        }

        pub fn public(&self) -> String {
            Base64::<ruma::serde::base64::Standard, _>::new(self.0.public_key().to_vec()).to_string()
        }

        pub fn sign(&self, object: &mut Json, signer: &UserId, key_id: &str) {
            let canonical = try_from_json_map(object.clone()).unwrap();
            let text = to_canonical_json_string_for_signing(&canonical).unwrap();
            let signature = self.0.sign(text.as_bytes()).base64();
            add_signature(object, signer, &format!("{ED25519}{key_id}"), &signature);
        }
    }

    #[test]
    fn signatures_cover_everything_but_themselves() {
        let (key, signer) = (Key::new(), user_id!("@a:x.org"));
        let mut object = json!({ "b": 1, "a": "x" }).as_object().unwrap().clone();
        key.sign(&mut object, signer, "DEV");
        assert!(is_signed(&object, signer, "DEV", &key.public()));
        object.insert("unsigned".to_owned(), json!({ "device_display_name": "x" }));
        add_signature(&mut object, signer, "ed25519:OTHER", "nonsense");
        assert!(is_signed(&object, signer, "DEV", &key.public()));
        assert!(!is_signed(&object, signer, "OTHER", &key.public()));
        assert!(!is_signed(&object, signer, "NONE", &key.public()));
        assert!(!is_signed(&object, user_id!("@b:x.org"), "DEV", &key.public()));
        assert!(!is_signed(&object, signer, "DEV", &Key::new().public()));
        assert!(!is_signed(&object, signer, "DEV", "nonsense"));
        object.insert("b".to_owned(), json!(2));
        assert!(!is_signed(&object, signer, "DEV", &key.public()));
        object.insert("b".to_owned(), json!(1.5));
        assert!(!is_signed(&object, signer, "DEV", &key.public()), "not canonical");
    }

    #[test]
    fn public_keys_are_32_bytes() {
        assert!(is_public_key(&Key::new().public()));
        for text in ["", "AAAA", "not base64!", &"A".repeat(60)] {
            assert!(!is_public_key(text), "{text}");
        }
    }
}
