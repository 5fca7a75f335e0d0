//! This server's signing keys as others see them, and its signature under what a notary hands on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use myelin_dag::SigningKey;
use myelin_store::{Store, tables::OLD_SIGNING_KEYS};
use myelin_view::View;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    canonical_json::to_canonical_value,
    serde::{Base64, base64::Standard},
    signatures::{PublicKeySet, sign_json},
};
use serde_json::{Map, json};

use super::answer::KeyAnswer;

/// How long others may go by one answer.
const VALID_MS: u64 = Duration::from_secs(24 * 3600).as_millis() as u64;
/// Old keys that are told of.
const OLD_KEYS_MAX: usize = 200;

pub struct OwnKeys {
    view: View,
    key: Arc<SigningKey>,
}

#[derive(Debug, thiserror::Error)]
pub enum OwnKeysError {
    #[error(transparent)]
    Store(#[from] myelin_store::Error),
    #[error("the keys cannot be signed: {0}")]
    Sign(String),
}

/// A key that is no longer used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldKey {
    pub key_id: String,
    pub public_key: [u8; 32],
    pub expired_ms: u64,
}

impl OldKey {
    pub fn public_key_base64(&self) -> String {
        Base64::<Standard, _>::new(self.public_key).to_string()
    }
}

/// The keys that the server of this store signed with before.
pub async fn old_keys(store: &Store) -> Result<Vec<OldKey>, myelin_store::Error> {
    let rows = store.read().all(&OLD_SIGNING_KEYS, OLD_KEYS_MAX).await?;
    let old = rows.into_iter().map(|(key_id, row)| OldKey {
        key_id,
        public_key: row.public_key,
        expired_ms: row.expired_ms,
    });
    Ok(old.collect())
}

impl OwnKeys {
    pub(super) fn new(view: View, key: Arc<SigningKey>) -> Self {
        Self { view, key }
    }

    /// The answer to `GET /_matrix/key/v2/server`.
    pub async fn signed(&self) -> Result<CanonicalJsonObject, OwnKeysError> {
        let old = old_keys(&self.view.store).await?;
        let old = old.into_iter().filter(|old| old.key_id != self.key.key_id()).map(|old| {
            let told = json!({ "key": old.public_key_base64(), "expired_ts": old.expired_ms });
            (old.key_id, told)
        });
        let mut current = Map::new();
        current.insert(self.key.key_id().to_owned(), json!({ "key": self.key.public_key_base64() }));
        let keys = json!({
            "server_name": self.view.server_name,
            "verify_keys": current,
            "old_verify_keys": old.collect::<Map<_, _>>(),
            "valid_until_ts": self.view.env.now_ms() + VALID_MS,
        });
        let failed = |error: &dyn std::fmt::Display| OwnKeysError::Sign(error.to_string());
        match to_canonical_value(&keys).map_err(|error| failed(&error))? {
            CanonicalJsonValue::Object(object) => self.sign(object),
            _ => Err(failed(&"not an object")),
        }
    }

    /// What another server said, with this server's signature beside its own.
    pub fn countersigned(&self, answer: &KeyAnswer) -> Result<CanonicalJsonObject, OwnKeysError> {
        let object = serde_json::from_str(&answer.json);
        self.sign(object.map_err(|error| OwnKeysError::Sign(error.to_string()))?)
    }

    /// Public keys that may have signed at `at_ms`.
    pub(super) async fn public_keys(&self, at_ms: u64) -> PublicKeySet {
        let old = old_keys(&self.view.store).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the old signing keys of this server cannot be read");
            Vec::new()
        });
        let old = old.into_iter().filter(|old| at_ms <= old.expired_ms);
        let mut keys: BTreeMap<_, _> =
            old.map(|old| (old.key_id, Base64::new(old.public_key.to_vec()))).collect();
        keys.extend(self.key.public_key_set());
        keys
    }

    fn sign(&self, mut object: CanonicalJsonObject) -> Result<CanonicalJsonObject, OwnKeysError> {
        let (name, pair) = (self.view.server_name.as_str(), self.key.pair());
        sign_json(name, pair, &mut object).map_err(|error| OwnKeysError::Sign(error.to_string()))?;
        Ok(object)
    }
}
