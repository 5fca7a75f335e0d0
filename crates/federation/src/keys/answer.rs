//! What `/_matrix/key/v2/server` answers: signed by the server itself, or nothing.
//!
//! Must not know: how it came here.

use std::{collections::BTreeMap, time::Duration};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName, SigningKeyAlgorithm,
    serde::{Base64, base64::Standard},
    signatures::{PublicKeySet, to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};
use serde::Deserialize;

/// No answer is trusted longer, whatever it says.
const TRUSTED_MS: u64 = Duration::from_secs(7 * 24 * 3600).as_millis() as u64;
/// Keys in one answer, old ones included.
const KEYS_MAX: usize = 256;
const KEY_SIZE: usize = 32;
const ED25519: &str = "ed25519:";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AnswerError {
    #[error("it is not JSON as signed JSON has to be: {0}")]
    Json(String),
    #[error("it is about '{0}'")]
    OtherServer(OwnedServerName),
    #[error("it has more than {KEYS_MAX} keys")]
    TooManyKeys,
    #[error("it is not signed by one of its own keys")]
    NotSigned,
    #[error("its signature by '{0}' is wrong")]
    WrongSignature(String),
}

/// A checked answer.
#[derive(Debug, Clone)]
pub struct KeyAnswer {
    pub server: OwnedServerName,
    /// Canonical, with all its signatures.
    pub json: String,
    pub fetched_ms: u64,
    /// As the server says; see [`KeyAnswer::trusted_until_ms`].
    pub valid_until_ms: u64,
    keys: BTreeMap<String, Key>,
}

#[derive(Debug, Clone)]
struct Key {
    public: Base64,
    /// Signs nothing after this.
    until_ms: u64,
    /// One of `old_verify_keys`.
    retired: bool,
}

#[derive(Deserialize)]
struct Body {
    server_name: OwnedServerName,
    valid_until_ts: u64,
    verify_keys: BTreeMap<String, VerifyKey>,
    #[serde(default)]
    old_verify_keys: BTreeMap<String, OldVerifyKey>,
}

#[derive(Deserialize)]
struct VerifyKey {
    key: String,
}

#[derive(Deserialize)]
struct OldVerifyKey {
    key: String,
    expired_ts: u64,
}

impl KeyAnswer {
    /// `server` is who was asked about.
    pub fn check(server: &ServerName, json: &str, fetched_ms: u64) -> Result<Self, AnswerError> {
        let answer = Self::read(json, fetched_ms)?;
        if answer.server != server {
            return Err(AnswerError::OtherServer(answer.server));
        }
        Ok(answer)
    }

    /// Checks an answer about whoever it is about.
    pub fn read(json: &str, fetched_ms: u64) -> Result<Self, AnswerError> {
        let malformed = |error: &dyn std::fmt::Display| AnswerError::Json(error.to_string());
        let json = myelin_dag::canonical::canonicalize(json.as_bytes()).map_err(|error| malformed(&error))?;
        let body: Body = serde_json::from_str(&json).map_err(|error| malformed(&error))?;
        if body.verify_keys.len() + body.old_verify_keys.len() > KEYS_MAX {
            return Err(AnswerError::TooManyKeys);
        }
        let signing: PublicKeySet = body
            .verify_keys
            .iter()
            .filter_map(|(id, key)| Some((id.clone(), ed25519_key(id, &key.key)?)))
            .collect();
        check_signed(&json, body.server_name.as_str(), &signing)?;
        let until_ms = body.valid_until_ts.min(fetched_ms.saturating_add(TRUSTED_MS));
        let old = body.old_verify_keys.iter().filter_map(|(id, key)| {
            Some((
                id.clone(),
                Key { public: ed25519_key(id, &key.key)?, until_ms: key.expired_ts, retired: true },
            ))
        });
        let mut keys: BTreeMap<_, _> = old.collect();
        keys.extend(signing.into_iter().map(|(id, public)| (id, Key { public, until_ms, retired: false })));
        let (server, valid_until_ms) = (body.server_name, body.valid_until_ts);
        Ok(Self { server, json, fetched_ms, valid_until_ms, keys })
    }

    pub fn trusted_until_ms(&self) -> u64 {
        self.valid_until_ms.min(self.fetched_ms.saturating_add(TRUSTED_MS))
    }

    /// Whether half of its time is over: a new one is due (as the specification asks of notaries).
    pub fn is_stale(&self, now_ms: u64) -> bool {
        let lifetime = self.trusted_until_ms().saturating_sub(self.fetched_ms);
        now_ms >= self.fetched_ms + lifetime / 2
    }

    pub fn has_key(&self, key_id: &str) -> bool {
        self.keys.contains_key(key_id)
    }

    /// Whether the server says that it signs with this key no more.
    pub fn retires(&self, key_id: &str) -> bool {
        self.keys.get(key_id).is_some_and(|key| key.retired)
    }

    /// Key ids, keys, and until when each may have signed.
    pub fn keys(&self) -> impl Iterator<Item = (&String, &Base64, u64)> {
        self.keys.iter().map(|(id, key)| (id, &key.public, key.until_ms))
    }

    /// Whether `entity` has signed it with one of `keys`.
    pub fn check_signed_by(&self, entity: &ServerName, keys: &PublicKeySet) -> Result<(), AnswerError> {
        check_signed(&self.json, entity.as_str(), keys)
    }
}

fn ed25519_key(id: &str, text: &str) -> Option<Base64> {
    let key = Base64::<Standard>::parse(text).ok()?;
    (id.starts_with(ED25519) && key.as_bytes().len() == KEY_SIZE).then_some(key)
}

/// At least one signature by a key of `keys`, and none by such a key that is wrong. `json` is canonical.
pub fn check_signed(json: &str, entity: &str, keys: &PublicKeySet) -> Result<(), AnswerError> {
    let malformed = |error: &dyn std::fmt::Display| AnswerError::Json(error.to_string());
    let object: CanonicalJsonObject = serde_json::from_str(json).map_err(|error| malformed(&error))?;
    let message = to_canonical_json_string_for_signing(&object).map_err(|error| malformed(&error))?;
    let signatures = object.get("signatures").and_then(CanonicalJsonValue::as_object);
    let own = signatures.and_then(|by_entity| by_entity.get(entity)?.as_object());
    let mut signed = false;
    for (id, signature) in own.into_iter().flatten() {
        let Some(key) = keys.get(id) else { continue };
        let signature = signature.as_str().and_then(|text| Base64::<Standard>::parse(text).ok());
        let valid = signature.is_some_and(|signature| {
            let (ed25519, message) = (SigningKeyAlgorithm::Ed25519, message.as_bytes());
            verify_canonical_json_bytes(&ed25519, key.as_bytes(), signature.as_bytes(), message).is_ok()
        });
        if !valid {
            return Err(AnswerError::WrongSignature(id.clone()));
        }
        signed = true;
    }
    if signed { Ok(()) } else { Err(AnswerError::NotSigned) }
}

#[cfg(test)]
mod tests;
