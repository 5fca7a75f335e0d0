//! Devices: listing, naming, deleting. A device and its tokens go together.

use myelin_core::{UserNid, limits};
use myelin_store::{
    Batch, Direction,
    log::LogEntry,
    tables::{
        DEHYDRATED_DEVICES, DEVICE_KEYS, DEVICE_TOKENS, DEVICES, DeviceRecord, KEY_STOCKS, ONE_TIME_KEYS,
        SLIDING_CONNECTIONS,
    },
};

use crate::{
    DeviceRequestError, Error, Session, Users,
    device_lists::{Change, Told},
    grant::{check_display_name, delete_token},
    keys::ONE_TIME_KEYS_PER_DEVICE_MAX,
    transaction::transact,
};

/// Token rows of one account: two pairs for each of its devices.
const TOKENS_PER_USER_MAX: usize = 4 * limits::DEVICES_PER_USER_MAX + 64;
/// Rows of the sliding sync connections of one device, and some more.
const SLIDING_CONNECTIONS_MAX: usize =
    2 * limits::SLIDING_CONNECTIONS_PER_DEVICE_MAX * limits::SLIDING_STATES_PER_CONNECTION_MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub device_id: String,
    pub display_name: Option<String>,
    pub last_seen_ms: u64,
    pub last_seen_ip: Option<String>,
    pub user_agent: Option<String>,
}

impl Users {
    pub async fn devices(&self, user: UserNid) -> Result<Vec<Device>, Error> {
        let limit = limits::DEVICES_PER_USER_MAX;
        let rows = self.view.store.scan(&DEVICES, &user, Direction::Forward, limit).await?;
        Ok(rows.into_iter().map(|((_, device_id), record)| Device::new(device_id, record)).collect())
    }

    pub async fn device(&self, user: UserNid, device_id: &str) -> Result<Option<Device>, Error> {
        let record = self.view.store.get(&DEVICES, &(user, device_id.to_owned())).await?;
        Ok(record.map(|record| Device::new(device_id.to_owned(), record)))
    }

    /// `false` if there is no such device.
    pub async fn rename_device(
        &self,
        user: UserNid,
        device_id: &str,
        display_name: Option<String>,
    ) -> Result<bool, DeviceRequestError> {
        check_display_name(display_name.as_deref())?;
        let key = (user, device_id.to_owned());
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let Some(device) = self.view.store.get(&DEVICES, &key).await? else { return Ok((batch, false)) };
            if let Some(name) = &display_name {
                batch.require_equal(&DEVICES, &key, &device);
                batch.put(&DEVICES, &key, &DeviceRecord { display_name: Some(name.clone()), ..device });
                if self.view.store.get(&DEVICE_KEYS, &key).await?.is_some() {
                    self.note_device_list(&mut batch, user, &[], Told::OwnServer).await?;
                }
            }
            Ok((batch, true))
        })
        .await
    }

    /// Logs these devices out; ids that are not there are passed over.
    pub async fn delete_devices(&self, user: UserNid, device_ids: &[String]) -> Result<(), Error> {
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let mut gone = Vec::new();
            for device_id in device_ids {
                gone.extend(self.delete_device(&mut batch, user, device_id).await?);
            }
            if !batch.is_empty() {
                batch.log(&LogEntry::Account { user });
            }
            if !gone.is_empty() {
                self.note_device_list(&mut batch, user, &gone, Told::Everybody).await?;
            }
            Ok::<_, Error>((batch, ()))
        })
        .await?;
        self.sessions.forget(user);
        Ok(())
    }

    /// `POST /logout`: the session and its device.
    pub async fn logout(&self, session: &Session) -> Result<(), Error> {
        self.delete_devices(session.user, std::slice::from_ref(&session.device_id)).await
    }

    /// `POST /logout/all`. A dehydrated device stays: it is nobody's session, and waits for the next log-in.
    pub async fn logout_all(&self, user: UserNid) -> Result<(), Error> {
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let dehydrated = self.view.store.get(&DEHYDRATED_DEVICES, &user).await?;
            let keep = dehydrated.as_ref().map(|device| device.device_id.as_str());
            self.delete_all_devices(&mut batch, user, keep).await?;
            batch.log(&LogEntry::Account { user });
            Ok::<_, Error>((batch, ()))
        })
        .await?;
        self.sessions.forget(user);
        Ok(())
    }

    /// Adds the deletion of every device but `keep`, and of all their tokens.
    pub(crate) async fn delete_all_devices(
        &self,
        batch: &mut Batch,
        user: UserNid,
        keep: Option<&str>,
    ) -> Result<(), Error> {
        let (store, forward) = (&self.view.store, Direction::Forward);
        let tokens = store.scan(&DEVICE_TOKENS, &user, forward, TOKENS_PER_USER_MAX).await?;
        for (key, kind) in tokens.iter().filter(|((_, device, _), _)| Some(device.as_str()) != keep) {
            delete_token(batch, key, *kind);
        }
        let devices = store.scan(&DEVICES, &user, forward, limits::DEVICES_PER_USER_MAX).await?;
        let mut gone = Vec::new();
        for (key, _) in devices.iter().filter(|((_, device), _)| Some(device.as_str()) != keep) {
            batch.delete(&DEVICES, key);
            gone.extend(self.delete_keys_and_inbox(batch, user, &key.1).await?);
        }
        if !gone.is_empty() {
            self.note_device_list(batch, user, &gone, Told::Everybody).await?;
        }
        Ok(())
    }

    async fn delete_device(
        &self,
        batch: &mut Batch,
        user: UserNid,
        device_id: &str,
    ) -> Result<Option<Change>, Error> {
        let key = (user, device_id.to_owned());
        let Some(device) = self.view.store.get(&DEVICES, &key).await? else { return Ok(None) };
        batch.require_equal(&DEVICES, &key, &device);
        batch.delete(&DEVICES, &key);
        self.revoke_device_tokens(batch, user, device_id).await?;
        self.delete_keys_and_inbox(batch, user, device_id).await
    }

    /// The change of the device list if the device had keys.
    async fn delete_keys_and_inbox(
        &self,
        batch: &mut Batch,
        user: UserNid,
        device_id: &str,
    ) -> Result<Option<Change>, Error> {
        self.forget_dehydrated(batch, user, device_id).await?;
        self.delete_keys_and_messages(batch, user, device_id).await
    }

    pub(crate) async fn delete_keys_and_messages(
        &self,
        batch: &mut Batch,
        user: UserNid,
        device_id: &str,
    ) -> Result<Option<Change>, Error> {
        let (store, key) = (&self.view.store, (user, device_id.to_owned()));
        self.delete_inbox(batch, user, device_id).await?;
        let connections =
            store.scan(&SLIDING_CONNECTIONS, &key, Direction::Forward, SLIDING_CONNECTIONS_MAX).await?;
        connections.iter().for_each(|(row, _)| batch.delete(&SLIDING_CONNECTIONS, row));
        self.delete_pushers_of(batch, user, device_id).await?;
        let stock = store.get(&KEY_STOCKS, &key).await?;
        let keys = store.get(&DEVICE_KEYS, &key).await?;
        // What is uploaded meanwhile does not stay behind.
        batch.require_unchanged(&KEY_STOCKS, &key, stock.as_ref());
        batch.require_unchanged(&DEVICE_KEYS, &key, keys.as_ref());
        if stock.is_some() {
            batch.delete(&KEY_STOCKS, &key);
            let limit = ONE_TIME_KEYS_PER_DEVICE_MAX + 1;
            for (row, _) in store.scan(&ONE_TIME_KEYS, &key, Direction::Forward, limit).await? {
                batch.delete(&ONE_TIME_KEYS, &row);
            }
        }
        if keys.is_none() {
            return Ok(None);
        }
        batch.delete(&DEVICE_KEYS, &key);
        Ok(Some(Change::Device { device_id: key.1, keys: None }))
    }
}

impl Device {
    fn new(device_id: String, record: DeviceRecord) -> Self {
        Self {
            device_id,
            display_name: record.display_name,
            last_seen_ms: record.last_seen_ms,
            last_seen_ip: record.last_seen_ip,
            user_agent: record.user_agent,
        }
    }
}

#[cfg(test)]
mod tests {
    use myelin_store::tables::{ACCESS_TOKENS, REFRESH_TOKENS};

    use super::*;
    use crate::{DeviceRequest, testing::World};

    #[test]
    fn naming_a_device() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let session = world.users.session(&grant.access_token).await.unwrap();
            let rename = |name: Option<&str>| {
                world.users.rename_device(session.user, &session.device_id, name.map(str::to_owned))
            };
            assert!(rename(Some("laptop")).await.unwrap());
            assert!(rename(None).await.unwrap(), "unchanged");
            let device = world.users.device(session.user, &session.device_id).await.unwrap().unwrap();
            assert_eq!(device.display_name.as_deref(), Some("laptop"));
            assert!(matches!(rename(Some(&"x".repeat(256))).await, Err(DeviceRequestError::DisplayName)));
            assert!(!world.users.rename_device(session.user, "NONE", None).await.unwrap());
        });
    }

    #[test]
    fn deleting_devices_leaves_no_row_of_theirs() {
        let world = World::new();
        world.run(async {
            let first = world.register("alice").await;
            let session = world.users.session(&first.access_token).await.unwrap();
            let device = DeviceRequest { refresh: true, ..DeviceRequest::default() };
            let login = world.users.login_with_password("alice", "alice's password", &device);
            let second = login.await.unwrap();
            let ids = [second.device_id.clone(), "NONE".to_owned()];
            world.users.delete_devices(session.user, &ids).await.unwrap();
            assert!(world.users.session(&second.access_token).await.is_err());
            assert!(world.users.session(&first.access_token).await.is_ok());

            world.users.logout_all(session.user).await.unwrap();
            assert!(world.users.session(&first.access_token).await.is_err());
            let read = world.view.store.read();
            assert_eq!(read.all(&DEVICES, 9).await.unwrap().len(), 0);
            assert_eq!(read.all(&DEVICE_TOKENS, 9).await.unwrap().len(), 0);
            assert_eq!(read.all(&ACCESS_TOKENS, 9).await.unwrap().len(), 0);
            assert_eq!(read.all(&REFRESH_TOKENS, 9).await.unwrap().len(), 0);
        });
    }
}
