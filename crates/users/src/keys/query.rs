//! What is known of the keys of a user, as somebody may see it (`POST /keys/query`): of local users, and of remote ones
//! as far as they are held here.

use std::collections::BTreeMap;

use myelin_core::{UserNid, limits};
use myelin_store::{
    Direction,
    tables::{CROSS_SIGNING_KEYS, CrossSigningUsage, DEVICE_KEYS, DEVICES, DeviceKeysRecord, KEY_SIGNATURES},
};
use ruma::UserId;
use serde_json::json;

use super::{
    Json,
    signed::{add_signature, ed25519_keys},
};
use crate::{Error, Users};

const SIGNATURES_MAX: usize = 1_000;

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker<'a> {
    Local {
        user: UserNid,
        user_id: &'a UserId,
    },
    /// Another server. What people call their devices is not its business.
    Server,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserKeys {
    /// By device id.
    pub devices: BTreeMap<String, Json>,
    pub master: Option<Json>,
    pub self_signing: Option<Json>,
    /// For its owner only.
    pub user_signing: Option<Json>,
}

impl Users {
    /// `devices`: whose keys are wanted; none means all.
    pub async fn keys_of(
        &self,
        user: UserNid,
        user_id: &UserId,
        devices: &[String],
        asker: Asker<'_>,
    ) -> Result<UserKeys, Error> {
        let mut keys = UserKeys::default();
        let names = match asker {
            Asker::Local { .. } => self.device_names(user, user_id).await?,
            Asker::Server => BTreeMap::new(),
        };
        for (device_id, record) in self.device_keys(user, devices).await? {
            let name = names.get(&device_id).or(record.display_name.as_ref());
            keys.devices.insert(device_id, with_name(parse(&record.json)?, name));
        }
        keys.master = self.cross_signing_key(user, CrossSigningUsage::Master).await?;
        keys.self_signing = self.cross_signing_key(user, CrossSigningUsage::SelfSigning).await?;
        if let Asker::Local { user: asker, user_id: asker_id } = asker {
            if asker == user {
                keys.user_signing = self.cross_signing_key(user, CrossSigningUsage::UserSigning).await?;
            } else if let Some(master) = &mut keys.master {
                self.add_own_signatures(master, user, asker, asker_id).await?;
            }
        }
        Ok(keys)
    }

    pub(crate) async fn device_keys(
        &self,
        user: UserNid,
        devices: &[String],
    ) -> Result<Vec<(String, DeviceKeysRecord)>, Error> {
        let store = &self.view.store;
        if devices.is_empty() {
            let limit = limits::DEVICES_PER_USER_MAX;
            let rows = store.scan(&DEVICE_KEYS, &user, Direction::Forward, limit).await?;
            return Ok(rows.into_iter().map(|((_, device_id), row)| (device_id, row)).collect());
        }
        let wanted = devices.iter().take(limits::DEVICES_PER_USER_MAX);
        let keys: Vec<_> = wanted.map(|device| (user, device.clone())).collect();
        let rows = store.multi_get(&DEVICE_KEYS, &keys).await?;
        Ok(keys.into_iter().zip(rows).filter_map(|((_, device), row)| Some((device, row?))).collect())
    }

    pub(crate) async fn cross_signing_key(
        &self,
        user: UserNid,
        usage: CrossSigningUsage,
    ) -> Result<Option<Json>, Error> {
        let row = self.view.store.get(&CROSS_SIGNING_KEYS, &(user, usage as u8)).await?;
        row.map(|row| parse(&row.json)).transpose()
    }

    async fn device_names(&self, user: UserNid, user_id: &UserId) -> Result<BTreeMap<String, String>, Error> {
        if !self.view.is_local(user_id) {
            return Ok(BTreeMap::new());
        }
        let limit = limits::DEVICES_PER_USER_MAX;
        let rows = self.view.store.scan(&DEVICES, &user, Direction::Forward, limit).await?;
        Ok(rows.into_iter().filter_map(|((_, device), row)| Some((device, row.display_name?))).collect())
    }

    /// What the asker signed nobody else sees.
    async fn add_own_signatures(
        &self,
        master: &mut Json,
        owner: UserNid,
        asker: UserNid,
        asker_id: &UserId,
    ) -> Result<(), Error> {
        let Some(public_key) = ed25519_keys(master).next().map(|(_, key)| key.to_owned()) else {
            return Ok(());
        };
        let prefix = (asker, owner, public_key);
        let rows = self.view.store.scan(&KEY_SIGNATURES, &prefix, Direction::Forward, SIGNATURES_MAX).await?;
        for ((_, _, _, name), row) in rows {
            add_signature(master, asker_id, &name, &row.signature);
        }
        Ok(())
    }
}

pub(crate) fn parse(json: &str) -> Result<Json, Error> {
    serde_json::from_str(json).map_err(|e| Error::Damaged(format!("keys: {e}")))
}

fn with_name(mut keys: Json, name: Option<&String>) -> Json {
    let unsigned = name.map_or_else(|| json!({}), |name| json!({ "device_display_name": name }));
    keys.insert("unsigned".to_owned(), unsigned);
    keys
}
