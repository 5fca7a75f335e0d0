//! `POST /keys/upload`.

use std::collections::{BTreeMap, HashMap};

use myelin_core::Position;
use myelin_store::{
    Batch, Direction,
    log::LogEntry,
    tables::{
        DEVICE_KEYS, DEVICES, DeviceKeysRecord, FallbackKey, KEY_STOCKS, KeyStockRecord, ONE_TIME_KEYS,
        OneTimeKeyRecord,
    },
};
use ruma::UserId;
use serde_json::Value;

use super::{
    Json, KEY_NAME_SIZE_MAX, KEY_SIZE_MAX, ONE_TIME_KEYS_PER_DEVICE_MAX, SIGNED_KEYS_SIZE_MAX,
    signed::{self, ed25519_keys, is_public_key, is_same, is_signed},
};
use crate::{
    Error, Session, Users,
    device_lists::{Change, Told},
    transaction::transact,
};

/// Fallback keys of one device: one per algorithm.
const FALLBACK_KEYS_PER_DEVICE_MAX: usize = 16;

#[derive(Clone, Debug, Default)]
pub struct KeyUpload {
    pub device_keys: Option<Json>,
    /// `<algorithm>:<key id>` to key.
    pub one_time_keys: Json,
    pub fallback_keys: Json,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyUploadError {
    #[error("device_keys are not those of this device: {0}")]
    DeviceKeys(&'static str),
    #[error("device_keys are not signed by the device's own ed25519 key")]
    Signature,
    #[error(
        "'{0}' is not a key: it needs a name of the form <algorithm>:<key id> and at most {KEY_SIZE_MAX} bytes"
    )]
    Key(String),
    // Clients look for these words.
    #[error("One time key {0} already exists: the server holds another one of this name")]
    InUse(String),
    #[error(
        "a device has at most {ONE_TIME_KEYS_PER_DEVICE_MAX} one-time keys and one fallback key per algorithm"
    )]
    TooMany,
    #[error("the device is gone")]
    NoDevice,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<myelin_store::Error> for KeyUploadError {
    fn from(error: myelin_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// A key whose name and size are as they should be.
pub(crate) struct NamedKey {
    pub algorithm: String,
    pub name: String,
    pub json: String,
}

impl Users {
    /// Unclaimed one-time keys of the device by algorithm, after the upload.
    pub async fn upload_keys(
        &self,
        session: &Session,
        upload: &KeyUpload,
    ) -> Result<BTreeMap<String, u64>, KeyUploadError> {
        if let Some(keys) = &upload.device_keys {
            check_device_keys(&session.user_id, &session.device_id, keys)?;
        }
        let one_time = named_keys(&upload.one_time_keys)?;
        let fallback = named_keys(&upload.fallback_keys)?;
        let _turn = self.turns.take(session.user, &session.device_id).await;
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            if let Some(keys) = &upload.device_keys {
                self.put_device_keys(&mut batch, session, keys).await?;
            }
            let counts = self.put_stock(&mut batch, session, &one_time, &fallback).await?;
            if !batch.is_empty() {
                let key = (session.user, session.device_id.clone());
                let device = self.view.store.get(&DEVICES, &key).await?.ok_or(KeyUploadError::NoDevice)?;
                batch.require_equal(&DEVICES, &key, &device);
            }
            Ok((batch, counts))
        })
        .await
    }

    async fn put_device_keys(
        &self,
        batch: &mut Batch,
        session: &Session,
        keys: &Json,
    ) -> Result<(), KeyUploadError> {
        let key = (session.user, session.device_id.clone());
        let held = self.view.store.get(&DEVICE_KEYS, &key).await?;
        let keys = match held.as_ref().and_then(|held| serde_json::from_str::<Json>(&held.json).ok()) {
            // A client does not know who else signed its keys.
            Some(mut held) if is_same(&held, keys) => {
                let (user_id, before) = (&session.user_id, held.clone());
                for (name, signature) in signed::signatures_of(keys, user_id) {
                    signed::add_signature(&mut held, user_id, name, signature);
                }
                if held == before {
                    return Ok(());
                }
                held
            }
            _ => keys.clone(),
        };
        batch.require_unchanged(&DEVICE_KEYS, &key, held.as_ref());
        let json = Value::Object(keys).to_string();
        batch.put(&DEVICE_KEYS, &key, &DeviceKeysRecord { json: json.clone(), display_name: None });
        let change = Change::Device { device_id: key.1, keys: Some(json) };
        Ok(self.note_device_list(batch, session.user, &[change], Told::Everybody).await?)
    }

    async fn put_stock(
        &self,
        batch: &mut Batch,
        session: &Session,
        one_time: &[NamedKey],
        fallback: &[NamedKey],
    ) -> Result<BTreeMap<String, u64>, KeyUploadError> {
        let key = (session.user, session.device_id.clone());
        let held = self.view.store.get(&KEY_STOCKS, &key).await?;
        let mut stock = held.clone().unwrap_or_default();
        let new = self.new_one_time_keys(&key, one_time).await?;
        let fallback_changed = replace_fallback_keys(&mut stock, fallback)?;
        if !new.is_empty() || fallback_changed {
            let position = batch.log(&LogEntry::KeyStock { user: session.user });
            for one in new {
                put_one_time_key(batch, &key, position, one);
                stock.add(&one.algorithm, 1);
            }
            stock.version += 1;
            batch.require_unchanged(&KEY_STOCKS, &key, held.as_ref());
            batch.put(&KEY_STOCKS, &key, &stock);
        }
        Ok(stock.one_time_keys.into_iter().collect())
    }

    /// Those that the server does not hold yet.
    async fn new_one_time_keys<'a>(
        &self,
        device: &(myelin_core::UserNid, String),
        uploaded: &'a [NamedKey],
    ) -> Result<Vec<&'a NamedKey>, KeyUploadError> {
        if uploaded.is_empty() {
            return Ok(Vec::new());
        }
        let limit = ONE_TIME_KEYS_PER_DEVICE_MAX + 1;
        let rows = self.view.store.scan(&ONE_TIME_KEYS, device, Direction::Forward, limit).await?;
        let held: HashMap<_, _> =
            rows.into_iter().map(|((_, _, _, _, name), row)| (name, row.json)).collect();
        let mut new = Vec::new();
        for one in uploaded {
            match held.get(&one.name) {
                Some(json) if is_same_json(json, &one.json) => {}
                Some(_) => return Err(KeyUploadError::InUse(one.name.clone())),
                None => new.push(one),
            }
        }
        if held.len() + new.len() > ONE_TIME_KEYS_PER_DEVICE_MAX {
            return Err(KeyUploadError::TooMany);
        }
        Ok(new)
    }
}

pub(crate) trait Stock {
    fn add(&mut self, algorithm: &str, count: u64);
}

impl Stock for KeyStockRecord {
    fn add(&mut self, algorithm: &str, count: u64) {
        match self.one_time_keys.iter_mut().find(|(name, _)| name == algorithm) {
            Some((_, held)) => *held += count,
            None => self.one_time_keys.push((algorithm.to_owned(), count)),
        }
    }
}

pub(crate) fn put_one_time_key(
    batch: &mut Batch,
    (user, device_id): &(myelin_core::UserNid, String),
    position: Position,
    key: &NamedKey,
) {
    let row = (*user, device_id.clone(), key.algorithm.clone(), position, key.name.clone());
    batch.put(&ONE_TIME_KEYS, &row, &OneTimeKeyRecord { json: key.json.clone() });
}

/// Whether anything changed. A key that is there already stays used if it was.
pub(crate) fn replace_fallback_keys(
    stock: &mut KeyStockRecord,
    uploaded: &[NamedKey],
) -> Result<bool, KeyUploadError> {
    let before = stock.fallback_keys.clone();
    for key in uploaded {
        let algorithm = &key.algorithm;
        if uploaded.iter().filter(|other| other.algorithm == *algorithm).count() > 1 {
            return Err(KeyUploadError::TooMany);
        }
        let new = FallbackKey {
            algorithm: algorithm.clone(),
            name: key.name.clone(),
            json: key.json.clone(),
            used: false,
        };
        match stock.fallback_keys.iter_mut().find(|held| held.algorithm == *algorithm) {
            Some(held) if held.name == new.name && is_same_json(&held.json, &new.json) => {}
            Some(held) => *held = new,
            None => stock.fallback_keys.push(new),
        }
    }
    if stock.fallback_keys.len() > FALLBACK_KEYS_PER_DEVICE_MAX {
        return Err(KeyUploadError::TooMany);
    }
    Ok(stock.fallback_keys != before)
}

fn is_same_json(a: &str, b: &str) -> bool {
    let parse = |text| serde_json::from_str::<Value>(text).ok();
    a == b || parse(a) == parse(b)
}

pub(crate) fn check_device_keys(
    user_id: &UserId,
    device_id: &str,
    keys: &Json,
) -> Result<(), KeyUploadError> {
    use KeyUploadError::DeviceKeys;
    let text = |field: &str| keys.get(field).and_then(Value::as_str);
    if text("user_id") != Some(user_id.as_str()) {
        return Err(DeviceKeys("user_id is not the user's"));
    }
    if text("device_id") != Some(device_id) {
        return Err(DeviceKeys("device_id is not the device's"));
    }
    let strings = |items: &Vec<Value>| items.iter().all(Value::is_string);
    if !keys.get("algorithms").and_then(Value::as_array).is_some_and(strings) {
        return Err(DeviceKeys("algorithms is not a list of names"));
    }
    let of_strings = |keys: &Json| keys.values().all(Value::is_string);
    if !keys.get("keys").and_then(Value::as_object).is_some_and(of_strings) {
        return Err(DeviceKeys("keys is not an object of strings"));
    }
    if Value::Object(keys.clone()).to_string().len() > SIGNED_KEYS_SIZE_MAX {
        return Err(DeviceKeys("they are too large"));
    }
    let own = ed25519_keys(keys).find(|(id, key)| *id == device_id && is_public_key(key));
    let (_, public_key) = own.ok_or(DeviceKeys("they have no ed25519 key of the device"))?;
    match is_signed(keys, user_id, device_id, public_key) {
        true => Ok(()),
        false => Err(KeyUploadError::Signature),
    }
}

pub(crate) fn named_keys(keys: &Json) -> Result<Vec<NamedKey>, KeyUploadError> {
    if keys.len() > ONE_TIME_KEYS_PER_DEVICE_MAX {
        return Err(KeyUploadError::TooMany);
    }
    keys.iter().map(|(name, key)| named_key(name, key)).collect()
}

fn named_key(name: &str, key: &Value) -> Result<NamedKey, KeyUploadError> {
    let bad = || KeyUploadError::Key(name.chars().take(64).collect());
    let (algorithm, id) = name.split_once(':').ok_or_else(bad)?;
    let json = key.to_string();
    let of_key = match key {
        Value::String(_) => true,
        Value::Object(object) => object.get("key").is_some_and(Value::is_string),
        _ => false,
    };
    let fits = name.len() <= KEY_NAME_SIZE_MAX && json.len() <= KEY_SIZE_MAX;
    if algorithm.is_empty() || id.is_empty() || !fits || !of_key {
        return Err(bad());
    }
    Ok(NamedKey { algorithm: algorithm.to_owned(), name: name.to_owned(), json })
}
