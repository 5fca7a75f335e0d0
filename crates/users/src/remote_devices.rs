//! Device lists of remote users, as far as they are held here (Server-Server API, "Device Management").
//!
//! A list is held once its server was asked for it, and while its user shares a room with somebody here. It is *fresh* if
//! no mark in `stale_device_lists` says that something was missed; marks are durable, and lifted by a fetch that began
//! after the last of them was set. Must not know: how lists are fetched (`myelin_federation::devices`).

use myelin_core::{Position, UserNid, limits};
use myelin_store::{
    Batch, Direction,
    codec::AtPosition,
    tables::{
        CROSS_SIGNING_KEYS, CrossSigningKeyRecord, CrossSigningUsage, DEVICE_KEYS, DEVICE_LISTS,
        DEVICE_LISTS_BY_POSITION, DeviceKeysRecord, DeviceListRecord, STALE_DEVICE_LISTS,
        StaleDeviceListRecord,
    },
};
use ruma::{OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    Error, Users,
    cross_signing::{is_cross_signing_key, public_key},
    device_lists::put_device_list,
    keys::{Json, SIGNED_KEYS_SIZE_MAX, signed::is_signed},
    transaction::transact,
};

/// Marks looked at in one go.
const MARKS_MAX: usize = 100_000;

/// What another server says of a user's devices: `GET /user/devices/{userId}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct RemoteDeviceList {
    #[serde(default)]
    pub stream_id: u64,
    #[serde(default)]
    pub devices: Vec<RemoteDevice>,
    pub master_key: Option<Json>,
    pub self_signing_key: Option<Json>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RemoteDevice {
    pub device_id: String,
    pub keys: Option<Json>,
    pub device_display_name: Option<String>,
}

/// A list that is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleDeviceList {
    pub user: UserNid,
    pub user_id: OwnedUserId,
    pub mark: StaleDeviceListRecord,
}

#[derive(Deserialize)]
struct DeviceListUpdate {
    user_id: OwnedUserId,
    device_id: String,
    device_display_name: Option<String>,
    stream_id: u64,
    #[serde(default)]
    prev_id: Vec<u64>,
    #[serde(default)]
    deleted: bool,
    keys: Option<Json>,
}

#[derive(Deserialize)]
struct SigningKeyUpdate {
    user_id: OwnedUserId,
    master_key: Option<Json>,
    self_signing_key: Option<Json>,
}

impl Users {
    /// Whether what is held of a remote user is what their server last said.
    pub async fn has_fresh_device_list(&self, user: UserNid) -> Result<bool, Error> {
        let store = &self.view.store;
        let held = store.get(&DEVICE_LISTS, &user).await?.is_some();
        Ok(held && store.get(&STALE_DEVICE_LISTS, &user).await?.is_none())
    }

    /// `m.device_list_update` of another server. What is malformed is dropped.
    pub async fn receive_device_list_update(
        &self,
        origin: &ServerName,
        content: &RawValue,
    ) -> Result<(), Error> {
        let Ok(update) = serde_json::from_str::<DeviceListUpdate>(content.get()) else { return Ok(()) };
        let Some(user) = self.remote_user(origin, &update.user_id).await? else { return Ok(()) };
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            self.apply_update(&mut batch, user, &update).await?;
            Ok::<_, Error>((batch, ()))
        })
        .await?;
        self.stale_lists.notify_one();
        Ok(())
    }

    async fn apply_update(
        &self,
        batch: &mut Batch,
        user: UserNid,
        update: &DeviceListUpdate,
    ) -> Result<(), Error> {
        let held = self.view.store.get(&DEVICE_LISTS, &user).await?;
        let stale = self.view.store.get(&STALE_DEVICE_LISTS, &user).await?;
        let Some(list) = held.as_ref().filter(|_| stale.is_none()) else {
            if held.is_some() || !self.view.rooms_of_remote_user(user).await?.is_empty() {
                self.mark_stale(batch, user).await?;
            }
            return Ok(());
        };
        let last = list.value.stream_id;
        let device = RemoteDevice {
            device_id: update.device_id.clone(),
            keys: update.keys.clone().filter(|_| !update.deleted),
            device_display_name: update.device_display_name.clone(),
        };
        // What is held has everything up to its number, so nothing is missing if the ones before are among that.
        let fits = !update.prev_id.is_empty() && update.prev_id.iter().all(|previous| *previous <= last);
        if update.stream_id <= last || !fits {
            let row = self.view.store.get(&DEVICE_KEYS, &(user, device.device_id.clone())).await?;
            // It came again. Or else the other server counts anew, or something is missing.
            let known = update.stream_id <= last && row == record_of(&update.user_id, &device);
            return if known { Ok(()) } else { self.mark_stale(batch, user).await };
        }
        batch.require_absent(&STALE_DEVICE_LISTS, &user);
        put_device(batch, user, &update.user_id, &device);
        put_device_list(batch, user, held.as_ref(), update.stream_id);
        Ok(())
    }

    /// `m.signing_key_update` of another server.
    pub async fn receive_signing_key_update(
        &self,
        origin: &ServerName,
        content: &RawValue,
    ) -> Result<(), Error> {
        let Ok(update) = serde_json::from_str::<SigningKeyUpdate>(content.get()) else { return Ok(()) };
        let Some(user) = self.remote_user(origin, &update.user_id).await? else { return Ok(()) };
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let held = self.view.store.get(&DEVICE_LISTS, &user).await?;
            if let Some(list) = &held {
                let held_master = self.cross_signing_key(user, CrossSigningUsage::Master).await?;
                let master = update.master_key.as_ref().or(held_master.as_ref());
                put_cross_signing(
                    &mut batch,
                    user,
                    &update.user_id,
                    master,
                    update.self_signing_key.as_ref(),
                );
                put_device_list(&mut batch, user, held.as_ref(), list.value.stream_id);
            } else if !self.view.rooms_of_remote_user(user).await?.is_empty() {
                self.mark_stale(&mut batch, user).await?;
            }
            Ok::<_, Error>((batch, ()))
        })
        .await?;
        self.stale_lists.notify_one();
        Ok(())
    }

    /// A user of `origin` that this server has heard of.
    async fn remote_user(&self, origin: &ServerName, user_id: &UserId) -> Result<Option<UserNid>, Error> {
        if user_id.server_name() != origin || self.view.is_local(user_id) {
            return Ok(None);
        }
        Ok(self.view.interner.lookup_user(user_id).await?)
    }

    /// Something was missed: clients hear that there is news, and whoever asks first fetches it.
    async fn mark_stale(&self, batch: &mut Batch, user: UserNid) -> Result<(), Error> {
        let held = self.view.store.get(&STALE_DEVICE_LISTS, &user).await?;
        let mark = held.as_ref().map_or(0, |held| held.mark + 1);
        // The server has just spoken, so it is worth asking now.
        let failures = held.as_ref().map_or(0, |held| held.failures);
        let new = StaleDeviceListRecord { mark, failures, retry_ms: 0 };
        batch.require_unchanged(&STALE_DEVICE_LISTS, &user, held.as_ref());
        batch.put(&STALE_DEVICE_LISTS, &user, &new);
        let list = self.view.store.get(&DEVICE_LISTS, &user).await?;
        put_device_list(batch, user, list.as_ref(), list.as_ref().map_or(0, |list| list.value.stream_id));
        Ok(())
    }

    /// The marks; those that are due come with the others.
    pub async fn stale_device_lists(&self) -> Result<Vec<StaleDeviceList>, Error> {
        let rows = self.view.store.read().all(&STALE_DEVICE_LISTS, MARKS_MAX).await?;
        let mut stale = Vec::with_capacity(rows.len());
        for (user, mark) in rows {
            let user_id = self.view.interner.user_id(user).await?;
            stale.push(StaleDeviceList { user, user_id, mark });
        }
        Ok(stale)
    }

    /// Completes when a list was marked since the last call.
    pub async fn device_list_marked(&self) {
        self.stale_lists.notified().await;
    }

    /// The list was not to be had; `next` says when it is tried again.
    pub async fn put_off_device_list(&self, user: UserNid, next: StaleDeviceListRecord) -> Result<(), Error> {
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            if let Some(held) = self.view.store.get(&STALE_DEVICE_LISTS, &user).await? {
                batch.require_equal(&STALE_DEVICE_LISTS, &user, &held);
                let (failures, retry_ms) = (next.failures, next.retry_ms);
                batch.put(&STALE_DEVICE_LISTS, &user, &StaleDeviceListRecord { failures, retry_ms, ..held });
            }
            Ok::<_, Error>((batch, ()))
        })
        .await
    }

    /// Takes a list that was fetched after `mark` had been read (`None`: there was none).
    pub async fn store_device_list(
        &self,
        user: UserNid,
        user_id: &UserId,
        list: &RemoteDeviceList,
        mark: Option<&StaleDeviceListRecord>,
    ) -> Result<(), Error> {
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let stale = self.view.store.get(&STALE_DEVICE_LISTS, &user).await?;
            batch.require_unchanged(&STALE_DEVICE_LISTS, &user, stale.as_ref());
            if stale.as_ref().map(|stale| stale.mark) == mark.map(|mark| mark.mark) {
                batch.delete(&STALE_DEVICE_LISTS, &user);
            }
            let held = self.view.store.get(&DEVICE_LISTS, &user).await?;
            if self.put_remote_keys(&mut batch, user, user_id, list).await? {
                put_device_list(&mut batch, user, held.as_ref(), list.stream_id);
            } else {
                // What clients were told is still so: no news.
                batch.require_unchanged(&DEVICE_LISTS, &user, held.as_ref());
                let position = held.map_or(Position::ZERO, |held| held.position);
                let value = DeviceListRecord { stream_id: list.stream_id };
                batch.put(&DEVICE_LISTS, &user, &AtPosition { position, value });
            }
            Ok::<_, Error>((batch, ()))
        })
        .await
    }

    /// Keeps what `/user/keys/query` answered until the list itself has come: it has no number, so it counts as stale.
    pub async fn keep_queried_keys(
        &self,
        user: UserNid,
        user_id: &UserId,
        list: &RemoteDeviceList,
    ) -> Result<(), Error> {
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            if self.has_fresh_device_list(user).await? {
                return Ok((batch, ()));
            }
            let stale = self.view.store.get(&STALE_DEVICE_LISTS, &user).await?;
            batch.require_unchanged(&STALE_DEVICE_LISTS, &user, stale.as_ref());
            let mark = stale.unwrap_or_default();
            batch.put(&STALE_DEVICE_LISTS, &user, &mark);
            self.put_remote_keys(&mut batch, user, user_id, list).await?;
            Ok::<_, Error>((batch, ()))
        })
        .await?;
        self.stale_lists.notify_one();
        Ok(())
    }

    /// Whether anything is different from what is held.
    async fn put_remote_keys(
        &self,
        batch: &mut Batch,
        user: UserNid,
        user_id: &UserId,
        list: &RemoteDeviceList,
    ) -> Result<bool, Error> {
        let mut wanted = Batch::new();
        let held = self.device_keys(user, &[]).await?;
        let devices: Vec<_> = list.devices.iter().take(limits::DEVICES_PER_USER_MAX).collect();
        let mut changed = false;
        for (device_id, _) in &held {
            if !devices.iter().any(|device| device.device_id == *device_id && device.keys.is_some()) {
                wanted.delete(&DEVICE_KEYS, &(user, device_id.clone()));
                changed = true;
            }
        }
        for device in devices {
            let record = record_of(user_id, device);
            let same = held.iter().any(|(id, held)| *id == device.device_id && Some(held) == record.as_ref());
            if !same && record.is_some() {
                put_device(&mut wanted, user, user_id, device);
                changed = true;
            }
        }
        let (master, self_signing) = (list.master_key.as_ref(), list.self_signing_key.as_ref());
        for (usage, key) in
            [(CrossSigningUsage::Master, master), (CrossSigningUsage::SelfSigning, self_signing)]
        {
            changed |= self.cross_signing_key(user, usage).await?.as_ref() != key;
            if key.is_none() {
                wanted.delete(&CROSS_SIGNING_KEYS, &(user, usage as u8));
            }
        }
        put_cross_signing(&mut wanted, user, user_id, master, self_signing);
        if changed {
            batch.extend(wanted);
        }
        Ok(changed)
    }

    /// Forgets a remote user who shares no room with anybody here any more.
    pub async fn drop_device_list(&self, user: UserNid) -> Result<(), Error> {
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let held = self.view.store.get(&DEVICE_LISTS, &user).await?;
            let stale = self.view.store.get(&STALE_DEVICE_LISTS, &user).await?;
            if held.is_none() && stale.is_none() {
                return Ok((batch, ()));
            }
            batch.require_unchanged(&DEVICE_LISTS, &user, held.as_ref());
            if let Some(held) = held {
                batch.delete(&DEVICE_LISTS, &user);
                batch.delete(&DEVICE_LISTS_BY_POSITION, &held.position);
            }
            batch.delete(&STALE_DEVICE_LISTS, &user);
            for ((_, device_id), _) in self
                .view
                .store
                .scan(&DEVICE_KEYS, &user, Direction::Forward, limits::DEVICES_PER_USER_MAX)
                .await?
            {
                batch.delete(&DEVICE_KEYS, &(user, device_id));
            }
            for usage in CrossSigningUsage::ALL {
                batch.delete(&CROSS_SIGNING_KEYS, &(user, usage as u8));
            }
            Ok::<_, Error>((batch, ()))
        })
        .await
    }

    /// Whether anything is held of a remote user, fresh or not.
    pub async fn holds_device_list(&self, user: UserNid) -> Result<bool, Error> {
        let store = &self.view.store;
        let listed = store.get(&DEVICE_LISTS, &user).await?.is_some();
        Ok(listed || store.get(&STALE_DEVICE_LISTS, &user).await?.is_some())
    }
}

/// What may be kept of a device: its keys, if they are its own.
fn record_of(user_id: &UserId, device: &RemoteDevice) -> Option<DeviceKeysRecord> {
    let keys = device.keys.as_ref()?;
    let text = |field: &str| keys.get(field).and_then(Value::as_str);
    let own = text("user_id") == Some(user_id.as_str()) && text("device_id") == Some(&device.device_id);
    let mut keys = keys.clone();
    let named = keys.remove("unsigned");
    let named =
        named.as_ref().and_then(|unsigned| unsigned.get("device_display_name")).and_then(Value::as_str);
    let name = device.device_display_name.as_deref().or(named);
    let json = Value::Object(keys).to_string();
    let fits = json.len() <= SIGNED_KEYS_SIZE_MAX && device.device_id.len() <= limits::DEVICE_ID_SIZE_MAX;
    let display_name = name.map(|name| name.chars().take(limits::DEVICE_DISPLAY_NAME_SIZE_MAX).collect());
    (own && fits).then_some(DeviceKeysRecord { json, display_name })
}

fn put_device(batch: &mut Batch, user: UserNid, user_id: &UserId, device: &RemoteDevice) {
    if device.device_id.len() > limits::DEVICE_ID_SIZE_MAX {
        return;
    }
    let key = (user, device.device_id.clone());
    match record_of(user_id, device) {
        Some(record) => batch.put(&DEVICE_KEYS, &key, &record),
        None => batch.delete(&DEVICE_KEYS, &key),
    }
}

/// Adds those of the keys that are the user's own and signed as they should be.
fn put_cross_signing(
    batch: &mut Batch,
    user: UserNid,
    user_id: &UserId,
    master: Option<&Json>,
    self_signing: Option<&Json>,
) {
    let Some(master) = master.filter(|key| is_cross_signing_key(user_id, CrossSigningUsage::Master, key))
    else {
        return;
    };
    let signer = public_key(master).unwrap_or_default();
    let self_signing = self_signing.filter(|key| {
        is_cross_signing_key(user_id, CrossSigningUsage::SelfSigning, key)
            && is_signed(key, user_id, signer, signer)
    });
    let keys = [(CrossSigningUsage::Master, Some(master)), (CrossSigningUsage::SelfSigning, self_signing)];
    for (usage, key) in keys {
        if let Some(key) = key {
            let json = Value::Object(key.clone()).to_string();
            batch.put(&CROSS_SIGNING_KEYS, &(user, usage as u8), &CrossSigningKeyRecord { json });
        }
    }
}
