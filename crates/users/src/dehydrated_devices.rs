//! Devices that receive room keys while nobody is logged in (MSC3814). A user has at most one; it has keys and an inbox like
//! any device, and no token. Its inbox is read by the user's other devices, and nothing is deleted by that.
//!
//! Must not know: what is in the device data.

use myelin_core::{Position, UserNid, limits};
use myelin_store::{
    Batch, Direction,
    log::LogEntry,
    tables::{
        DEHYDRATED_DEVICES, DEVICE_KEYS, DEVICES, DehydratedDeviceRecord, DeviceKeysRecord, DeviceRecord,
        KEY_STOCKS, KeyStockRecord, ONE_TIME_KEYS, TO_DEVICE, ToDeviceRecord,
    },
};
use serde_json::Value;

use crate::{
    DeviceRequestError, Error, Session, Users,
    device_lists::{Change, Told},
    grant::check_display_name,
    keys::{
        Json, ONE_TIME_KEYS_PER_DEVICE_MAX,
        upload::{
            KeyUploadError, NamedKey, Stock, check_device_keys, named_keys, put_one_time_key,
            replace_fallback_keys,
        },
    },
    transaction::transact,
};

/// Bytes of the encrypted device: about a hundred one-time keys are 10 KiB.
pub const DEVICE_DATA_SIZE_MAX: usize = 256 * 1024;
/// To-device messages of one answer, and their bytes unless the first one alone is larger.
const MESSAGES_MAX: usize = 100;
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// Body of `PUT /dehydrated_device`.
pub struct NewDehydratedDevice {
    pub device_id: String,
    /// JSON, an object.
    pub device_data: String,
    pub display_name: Option<String>,
    pub device_keys: Json,
    pub one_time_keys: Json,
    pub fallback_keys: Json,
}

/// To-device messages in order of arrival; `next` is the token of those that follow.
pub struct DehydratedInbox {
    pub messages: Vec<ToDeviceRecord>,
    pub next: Position,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum DehydratedDeviceError {
    #[error("there is no dehydrated device")]
    None,
    #[error("this is not the dehydrated device")]
    Another,
    #[error("device_data is an object of at most {DEVICE_DATA_SIZE_MAX} bytes")]
    DeviceData,
    #[error("a device with this id is logged in: a dehydrated device is a new one")]
    LoggedIn,
    #[error(transparent)]
    Device(#[from] DeviceRequestError),
    #[error(transparent)]
    Keys(#[from] KeyUploadError),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<myelin_store::Error> for DehydratedDeviceError {
    fn from(error: myelin_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// The same with its keys looked through.
struct Checked<'a> {
    new: &'a NewDehydratedDevice,
    keys: String,
    one_time: Vec<NamedKey>,
    fallback: Vec<NamedKey>,
}

impl Users {
    pub async fn dehydrated_device(&self, user: UserNid) -> Result<Option<DehydratedDeviceRecord>, Error> {
        Ok(self.view.store.get(&DEHYDRATED_DEVICES, &user).await?)
    }

    /// Takes the place of the one that was there, whose keys and messages go.
    pub async fn put_dehydrated_device(
        &self,
        session: &Session,
        new: &NewDehydratedDevice,
    ) -> Result<(), DehydratedDeviceError> {
        let checked = check(session, new)?;
        let _turn = self.turns.take(session.user, &new.device_id).await;
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let mut changes = self.clear_place(&mut batch, session.user, &new.device_id).await?;
            self.put_new(&mut batch, session.user, &checked).await?;
            let keys = Some(checked.keys.clone());
            changes.push(Change::Device { device_id: new.device_id.clone(), keys });
            self.note_device_list(&mut batch, session.user, &changes, Told::Everybody).await?;
            Ok((batch, ()))
        })
        .await
    }

    /// Answers its id.
    pub async fn delete_dehydrated_device(&self, user: UserNid) -> Result<String, DehydratedDeviceError> {
        let device = self.dehydrated_device(user).await?.ok_or(DehydratedDeviceError::None)?;
        self.delete_devices(user, std::slice::from_ref(&device.device_id)).await?;
        Ok(device.device_id)
    }

    /// What came after `since`. Nothing is deleted: another device may have to begin again.
    pub async fn dehydrated_inbox(
        &self,
        user: UserNid,
        device_id: &str,
        since: Position,
    ) -> Result<DehydratedInbox, DehydratedDeviceError> {
        let device = self.dehydrated_device(user).await?;
        if device.is_none_or(|device| device.device_id != device_id) {
            return Err(DehydratedDeviceError::Another);
        }
        let from = (user, device_id.to_owned(), Position(since.0.saturating_add(1)));
        let to = (user, device_id.to_owned(), Position(u64::MAX));
        let rows = self.view.store.range(&TO_DEVICE, &from, &to, Direction::Forward, MESSAGES_MAX).await?;
        let mut inbox = DehydratedInbox { messages: Vec::new(), next: since };
        let mut size = 0;
        for ((_, _, position), message) in rows {
            size += message.content.len();
            if size > BYTES_MAX && !inbox.messages.is_empty() {
                break;
            }
            inbox.next = position;
            inbox.messages.push(message);
        }
        Ok(inbox)
    }

    /// Adds that this device, which goes, is not the dehydrated one any more.
    pub(crate) async fn forget_dehydrated(
        &self,
        batch: &mut Batch,
        user: UserNid,
        device_id: &str,
    ) -> Result<(), Error> {
        let held = self.dehydrated_device(user).await?;
        if let Some(held) = held.filter(|held| held.device_id == device_id) {
            batch.require_equal(&DEHYDRATED_DEVICES, &user, &held);
            batch.delete(&DEHYDRATED_DEVICES, &user);
        }
        Ok(())
    }

    /// Adds the removal of the old device; of one with the same id only what is not written over.
    async fn clear_place(
        &self,
        batch: &mut Batch,
        user: UserNid,
        device_id: &str,
    ) -> Result<Vec<Change>, DehydratedDeviceError> {
        let store = &self.view.store;
        let held = self.dehydrated_device(user).await?;
        batch.require_unchanged(&DEHYDRATED_DEVICES, &user, held.as_ref());
        let key = (user, device_id.to_owned());
        let Some(held) = held.filter(|held| held.device_id == device_id) else {
            batch.require_absent(&DEVICES, &key);
            if store.get(&DEVICES, &key).await?.is_some() {
                return Err(DehydratedDeviceError::LoggedIn);
            }
            return self.remove_old(batch, user).await;
        };
        self.delete_inbox(batch, user, &held.device_id).await?;
        let limit = ONE_TIME_KEYS_PER_DEVICE_MAX + 1;
        for (row, _) in store.scan(&ONE_TIME_KEYS, &key, Direction::Forward, limit).await? {
            batch.delete(&ONE_TIME_KEYS, &row);
        }
        Ok(Vec::new())
    }

    /// Its row in `dehydrated_devices` is not deleted but written over.
    async fn remove_old(
        &self,
        batch: &mut Batch,
        user: UserNid,
    ) -> Result<Vec<Change>, DehydratedDeviceError> {
        let Some(old) = self.dehydrated_device(user).await? else {
            self.check_device_count(user).await?;
            return Ok(Vec::new());
        };
        batch.delete(&DEVICES, &(user, old.device_id.clone()));
        Ok(self.delete_keys_and_messages(batch, user, &old.device_id).await?.into_iter().collect())
    }

    async fn put_new(
        &self,
        batch: &mut Batch,
        user: UserNid,
        checked: &Checked<'_>,
    ) -> Result<(), DehydratedDeviceError> {
        let (store, new) = (&self.view.store, checked.new);
        let key = (user, new.device_id.clone());
        batch.put(&DEVICES, &key, &sleeping(new.display_name.clone(), self.now_ms()));
        let held = store.get(&DEVICE_KEYS, &key).await?;
        batch.require_unchanged(&DEVICE_KEYS, &key, held.as_ref());
        let record = DeviceKeysRecord { json: checked.keys.clone(), display_name: None };
        batch.put(&DEVICE_KEYS, &key, &record);
        let held = store.get(&KEY_STOCKS, &key).await?;
        batch.require_unchanged(&KEY_STOCKS, &key, held.as_ref());
        batch.put(&KEY_STOCKS, &key, &stock(held.map_or(0, |held| held.version), checked)?);
        let position = batch.log(&LogEntry::KeyStock { user });
        checked.one_time.iter().for_each(|one| put_one_time_key(batch, &key, position, one));
        let record =
            DehydratedDeviceRecord { device_id: new.device_id.clone(), device_data: new.device_data.clone() };
        batch.put(&DEHYDRATED_DEVICES, &user, &record);
        Ok(())
    }
}

fn check<'a>(session: &Session, new: &'a NewDehydratedDevice) -> Result<Checked<'a>, DehydratedDeviceError> {
    if new.device_id.is_empty() || new.device_id.len() > limits::DEVICE_ID_SIZE_MAX {
        return Err(DeviceRequestError::DeviceId.into());
    }
    check_display_name(new.display_name.as_deref())?;
    if new.device_data.len() > DEVICE_DATA_SIZE_MAX || !new.device_data.starts_with('{') {
        return Err(DehydratedDeviceError::DeviceData);
    }
    check_device_keys(&session.user_id, &new.device_id, &new.device_keys)?;
    Ok(Checked {
        new,
        keys: Value::Object(new.device_keys.clone()).to_string(),
        one_time: named_keys(&new.one_time_keys)?,
        fallback: named_keys(&new.fallback_keys)?,
    })
}

fn stock(version: u64, checked: &Checked<'_>) -> Result<KeyStockRecord, KeyUploadError> {
    let mut stock = KeyStockRecord { version: version + 1, ..KeyStockRecord::default() };
    checked.one_time.iter().for_each(|one| stock.add(&one.algorithm, 1));
    replace_fallback_keys(&mut stock, &checked.fallback)?;
    Ok(stock)
}

fn sleeping(display_name: Option<String>, now_ms: u64) -> DeviceRecord {
    DeviceRecord {
        display_name,
        created_ms: now_ms,
        last_seen_ms: now_ms,
        last_seen_ip: None,
        user_agent: None,
    }
}
