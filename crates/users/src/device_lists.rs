//! Changes of local device lists: who shares a room with the user hears of them, here by the log, on other servers by
//! EDUs (Server-Server API, "Device Management").
//!
//! EDUs of a user carry dense numbers, each naming the one before it, so that a server that missed one notices.

use std::collections::BTreeSet;

use myelin_core::UserNid;
use myelin_store::{
    Batch,
    codec::AtPosition,
    log::LogEntry,
    tables::{
        ChangedDeviceList, CrossSigningUsage, DEVICE_LISTS, DEVICE_LISTS_BY_POSITION, DeviceListRecord,
    },
};
use ruma::{OwnedServerName, UserId};
use serde_json::{Value, json};

use crate::{
    Error, Users,
    keys::{
        Json,
        query::{Asker, UserKeys},
    },
    outgoing::put_edu,
    transaction::transact,
};

/// Devices that are told one by one. More at once are told as a gap, and the other servers fetch the list.
const TOLD_ONE_BY_ONE_MAX: usize = 10;

/// What happened to a device list.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// `keys`: as JSON; `None` if the device is gone.
    Device {
        device_id: String,
        keys: Option<String>,
    },
    CrossSigning {
        master: Option<Json>,
        self_signing: Option<Json>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Everybody,
    /// Nothing changed that other servers are told.
    OwnServer,
}

/// The answer to `GET /user/devices/{userId}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceList {
    pub stream_id: u64,
    pub keys: UserKeys,
}

impl Users {
    /// The device list of a local user for other servers; `None` if there is no such account.
    pub async fn device_list(&self, user_id: &UserId) -> Result<Option<DeviceList>, Error> {
        let Some(account) = self.account(user_id).await? else { return Ok(None) };
        // Read before the devices: too old a number only makes the other server ask again.
        let list = self.view.store.get(&DEVICE_LISTS, &account.user).await?;
        let keys = self.keys_of(account.user, user_id, &[], Asker::Server).await?;
        Ok(Some(DeviceList { stream_id: list.map_or(0, |list| list.value.stream_id), keys }))
    }

    /// Adds what a change of a local user's devices entails.
    pub(crate) async fn note_device_list(
        &self,
        batch: &mut Batch,
        user: UserNid,
        changes: &[Change],
        told: Told,
    ) -> Result<(), Error> {
        let held = self.view.store.get(&DEVICE_LISTS, &user).await?;
        let mut stream_id = held.as_ref().map_or(0, |held| held.value.stream_id);
        if told == Told::Everybody {
            let user_id = self.view.interner.user_id(user).await?;
            let edus = edus(&user_id, changes, &mut stream_id);
            for server in self.servers_sharing_rooms(user).await? {
                edus.iter().for_each(|(kind, content)| put_edu(batch, &server, kind, content));
            }
        }
        put_device_list(batch, user, held.as_ref(), stream_id);
        Ok(())
    }

    /// Tells servers that begin to share a room with a local user to fetch their devices.
    pub async fn announce_device_list(
        &self,
        user: UserNid,
        servers: &BTreeSet<OwnedServerName>,
    ) -> Result<(), Error> {
        let user_id = self.view.interner.user_id(user).await?;
        let Some(list) = self.device_list(&user_id).await? else { return Ok(()) };
        let Some((device_id, keys)) = list.keys.devices.into_iter().next() else { return Ok(()) };
        let content = update(&user_id, &device_id, Some(&Value::Object(keys)), list.stream_id, None);
        transact(&self.view.store, || {
            let mut batch = Batch::new();
            servers.iter().for_each(|server| put_edu(&mut batch, server, DEVICE_LIST_UPDATE, &content));
            std::future::ready(Ok::<_, Error>((batch, ())))
        })
        .await
    }

    /// Other servers with somebody in a room of the user.
    pub(crate) async fn servers_sharing_rooms(
        &self,
        user: UserNid,
    ) -> Result<BTreeSet<OwnedServerName>, Error> {
        let mut servers = BTreeSet::new();
        for room in self.joined_rooms(user).await? {
            let Some(room) = self.view.rooms.load(room).await? else { continue };
            servers.extend(room.servers.keys().cloned());
        }
        servers.remove(&self.view.server_name);
        Ok(servers)
    }
}

pub(crate) const DEVICE_LIST_UPDATE: &str = "m.device_list_update";
pub(crate) const SIGNING_KEY_UPDATE: &str = "m.signing_key_update";

/// Adds the rows of a changed list, and the entry that says so.
pub(crate) fn put_device_list(
    batch: &mut Batch,
    user: UserNid,
    held: Option<&AtPosition<DeviceListRecord>>,
    stream_id: u64,
) {
    batch.require_unchanged(&DEVICE_LISTS, &user, held);
    if let Some(held) = held {
        batch.delete(&DEVICE_LISTS_BY_POSITION, &held.position);
    }
    let position = batch.log(&LogEntry::DeviceList { user });
    batch.put(&DEVICE_LISTS, &user, &AtPosition { position, value: DeviceListRecord { stream_id } });
    batch.put(&DEVICE_LISTS_BY_POSITION, &position, &ChangedDeviceList { user });
}

/// Type and content of each; `stream_id` moves on.
fn edus(user_id: &UserId, changes: &[Change], stream_id: &mut u64) -> Vec<(&'static str, Value)> {
    let one_by_one = changes.len() <= TOLD_ONE_BY_ONE_MAX;
    let skipped = if one_by_one { 0 } else { changes.len() - 1 };
    *stream_id += skipped as u64;
    let mut edus = Vec::new();
    for change in changes.iter().skip(skipped) {
        *stream_id += 1;
        let previous = Some(*stream_id - 1).filter(|previous| *previous > 0);
        edus.push(match change {
            Change::Device { device_id, keys } => {
                let keys = keys.as_deref().and_then(|keys| serde_json::from_str(keys).ok());
                (DEVICE_LIST_UPDATE, update(user_id, device_id, keys.as_ref(), *stream_id, previous))
            }
            Change::CrossSigning { master, self_signing } => {
                *stream_id -= 1;
                (SIGNING_KEY_UPDATE, signing_key_update(user_id, master.as_ref(), self_signing.as_ref()))
            }
        });
    }
    edus
}

fn update(
    user_id: &UserId,
    device_id: &str,
    keys: Option<&Value>,
    stream_id: u64,
    previous: Option<u64>,
) -> Value {
    let mut content = json!({
        "user_id": user_id,
        "device_id": device_id,
        "stream_id": stream_id,
        "prev_id": previous.into_iter().collect::<Vec<_>>(),
    });
    match keys {
        Some(keys) => content["keys"] = keys.clone(),
        None => content["deleted"] = true.into(),
    }
    content
}

fn signing_key_update(user_id: &UserId, master: Option<&Json>, self_signing: Option<&Json>) -> Value {
    let mut content = json!({ "user_id": user_id });
    let keys = [(CrossSigningUsage::Master, master), (CrossSigningUsage::SelfSigning, self_signing)];
    for (usage, key) in keys {
        if let Some(key) = key {
            content[format!("{}_key", usage.as_str())] = Value::Object(key.clone());
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    fn gone(n: usize) -> Change {
        Change::Device { device_id: format!("D{n}"), keys: None }
    }

    #[test]
    fn numbers_are_dense_and_name_the_one_before() {
        let (user_id, mut stream_id) = (user_id!("@a:x.org"), 0);
        let keys = Change::Device { device_id: "D".to_owned(), keys: Some(r#"{"a":1}"#.to_owned()) };
        let edus = edus(user_id, &[keys, gone(1)], &mut stream_id);
        assert_eq!(stream_id, 2);
        let first = json!({
            "user_id": user_id, "device_id": "D", "stream_id": 1, "prev_id": [], "keys": { "a": 1 }
        });
        let second = json!({
            "user_id": user_id, "device_id": "D1", "stream_id": 2, "prev_id": [1], "deleted": true
        });
        assert_eq!(edus, [(DEVICE_LIST_UPDATE, first), (DEVICE_LIST_UPDATE, second)]);
    }

    #[test]
    fn many_at_once_are_a_gap() {
        let changes: Vec<_> = (0..TOLD_ONE_BY_ONE_MAX + 1).map(gone).collect();
        let mut stream_id = 5;
        let edus = edus(user_id!("@a:x.org"), &changes, &mut stream_id);
        assert_eq!(edus.len(), 1);
        assert_eq!((&edus[0].1["prev_id"], &edus[0].1["stream_id"]), (&json!([15]), &json!(16)));
    }

    #[test]
    fn signing_keys_have_no_number() {
        let mut stream_id = 5;
        let master = json!({ "usage": ["master"] }).as_object().cloned();
        let change = Change::CrossSigning { master: master.clone(), self_signing: None };
        let edus = edus(user_id!("@a:x.org"), &[change], &mut stream_id);
        assert_eq!((edus[0].0, stream_id), (SIGNING_KEY_UPDATE, 5));
        assert_eq!(edus[0].1, json!({ "user_id": "@a:x.org", "master_key": master }));
    }
}
