//! Devices and their keys across servers (Client-Server API, "Key management API"; Server-Server API, "Device Management",
//! "End-to-End Encryption").
//!
//! - this file: queries and claims of local users, each part answered by the server that knows.
//! - [`refresh`]: fetches the device lists that were missed.
//! - [`follow`]: follows the log for who begins and who ceases to share a room.
//!
//! What is held, and whether it is fresh, is `myelin_users::remote_devices`'s.

mod follow;
mod refresh;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::future::{join, join_all};
use myelin_core::UserNid;
use myelin_users::{
    Error, Users,
    keys::{
        Json,
        claim::{ClaimedKey, KeyClaim},
        query::{Asker, UserKeys},
    },
    remote_devices::{RemoteDevice, RemoteDeviceList},
};
use myelin_view::View;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Budget, Client, RequestError};

/// Bytes of another server's answer about keys.
const ANSWER_SIZE_MAX: usize = 32 * 1024 * 1024;

pub struct Devices {
    view: View,
    users: Arc<Users>,
    client: Arc<Client>,
}

/// Servers that did not answer, and why.
pub type Failures = BTreeMap<OwnedServerName, String>;

/// Device ids by user; none means all.
pub type Wanted = BTreeMap<OwnedUserId, Vec<String>>;

#[derive(Debug, Default)]
pub struct QueriedKeys {
    pub users: BTreeMap<OwnedUserId, UserKeys>,
    pub failures: Failures,
}

#[derive(Debug, Default)]
pub struct ClaimedKeys {
    pub keys: Vec<ClaimedKey>,
    pub failures: Failures,
}

/// The answer to `POST /user/keys/query`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct QueryAnswer {
    device_keys: HashMap<OwnedUserId, BTreeMap<String, Json>>,
    master_keys: HashMap<OwnedUserId, Json>,
    self_signing_keys: HashMap<OwnedUserId, Json>,
}

/// The answer to `POST /user/keys/claim`: user, device, name of the key.
#[derive(Debug, Deserialize)]
struct ClaimAnswer {
    one_time_keys: HashMap<OwnedUserId, HashMap<String, HashMap<String, Value>>>,
}

impl Devices {
    pub fn new(view: View, users: Arc<Users>, client: Arc<Client>) -> Self {
        Self { view, users, client }
    }

    /// Runs for ever. Spawn it once per process.
    pub async fn run(self: Arc<Self>) {
        join(self.run_refresh(), self.run_follow()).await;
    }

    /// `POST /keys/query` of a local user.
    pub async fn query(
        &self,
        asker: (UserNid, &UserId),
        wanted: Wanted,
        timeout: Duration,
    ) -> Result<QueriedKeys, Error> {
        let mut found = QueriedKeys::default();
        let mut elsewhere: BTreeMap<OwnedServerName, Wanted> = BTreeMap::new();
        for (user_id, devices) in wanted {
            if self.view.is_local(&user_id) {
                if let Some(account) = self.users.account(&user_id).await? {
                    let keys = self.held(account.user, &user_id, &devices, asker).await?;
                    found.users.insert(user_id, keys);
                }
            } else if let Some(user) = self.fresh(&user_id).await? {
                let keys = self.held(user, &user_id, &devices, asker).await?;
                found.users.insert(user_id, keys);
            } else {
                elsewhere.entry(user_id.server_name().to_owned()).or_default().insert(user_id, devices);
            }
        }
        let asked = elsewhere.iter().map(|(server, wanted)| self.query_server(server, wanted, timeout));
        for ((server, wanted), answer) in elsewhere.iter().zip(join_all(asked).await) {
            match answer {
                Ok(answer) => self.take_answer(&mut found, wanted, answer, asker).await?,
                Err(error) => {
                    found.failures.insert(server.clone(), error.to_string());
                    self.take_what_is_held(&mut found, wanted, asker).await?;
                }
            }
        }
        Ok(found)
    }

    async fn held(
        &self,
        user: UserNid,
        user_id: &UserId,
        devices: &[String],
        (asker, asker_id): (UserNid, &UserId),
    ) -> Result<UserKeys, Error> {
        let asker = Asker::Local { user: asker, user_id: asker_id };
        self.users.keys_of(user, user_id, devices, asker).await
    }

    /// A remote user whose device list is held and fresh.
    async fn fresh(&self, user_id: &UserId) -> Result<Option<UserNid>, Error> {
        let Some(user) = self.view.interner.lookup_user(user_id).await? else { return Ok(None) };
        Ok(self.users.has_fresh_device_list(user).await?.then_some(user))
    }

    async fn query_server(
        &self,
        server: &ServerName,
        wanted: &Wanted,
        timeout: Duration,
    ) -> Result<QueryAnswer, RequestError> {
        let uri = "/_matrix/federation/v1/user/keys/query";
        let body = json!({ "device_keys": wanted });
        self.client.post(server, uri, &body, Budget { timeout, body_size_max: ANSWER_SIZE_MAX }).await
    }

    async fn take_answer(
        &self,
        found: &mut QueriedKeys,
        wanted: &Wanted,
        mut answer: QueryAnswer,
        asker: (UserNid, &UserId),
    ) -> Result<(), Error> {
        for (user_id, devices) in wanted {
            let list = RemoteDeviceList {
                stream_id: 0,
                devices: devices_of(user_id, answer.device_keys.remove(user_id).unwrap_or_default()),
                master_key: answer.master_keys.remove(user_id),
                self_signing_key: answer.self_signing_keys.remove(user_id),
            };
            let keys = match self.tracked(user_id).await?.filter(|_| devices.is_empty()) {
                Some(user) => {
                    self.users.keep_queried_keys(user, user_id, &list).await?;
                    self.held(user, user_id, devices, asker).await?
                }
                None => passed_on(list),
            };
            found.users.insert(user_id.clone(), keys);
        }
        Ok(())
    }

    /// A remote user whose devices concern this server.
    async fn tracked(&self, user_id: &UserId) -> Result<Option<UserNid>, Error> {
        let Some(user) = self.view.interner.lookup_user(user_id).await? else { return Ok(None) };
        let shares = !self.view.rooms_of_remote_user(user).await?.is_empty();
        Ok(shares.then_some(user))
    }

    /// Better than nothing while the server does not answer; its failure is told, too.
    async fn take_what_is_held(
        &self,
        found: &mut QueriedKeys,
        wanted: &Wanted,
        asker: (UserNid, &UserId),
    ) -> Result<(), Error> {
        for (user_id, devices) in wanted {
            let Some(user) = self.view.interner.lookup_user(user_id).await? else { continue };
            if self.users.holds_device_list(user).await? {
                let keys = self.held(user, user_id, devices, asker).await?;
                found.users.insert(user_id.clone(), keys);
            }
        }
        Ok(())
    }

    /// `POST /keys/claim` of a local user.
    pub async fn claim(&self, claims: Vec<KeyClaim>, timeout: Duration) -> Result<ClaimedKeys, Error> {
        let (local, remote): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|claim| self.view.is_local(&claim.user_id));
        let mut elsewhere: BTreeMap<OwnedServerName, Vec<KeyClaim>> = BTreeMap::new();
        for claim in remote {
            elsewhere.entry(claim.user_id.server_name().to_owned()).or_default().push(claim);
        }
        let asked = elsewhere.iter().map(|(server, claims)| self.claim_at(server, claims, timeout));
        let (local, answers) = join(self.users.claim_keys(local), join_all(asked)).await;
        let mut claimed = ClaimedKeys { keys: local?, failures: Failures::new() };
        for ((server, claims), answer) in elsewhere.iter().zip(answers) {
            match answer {
                Ok(answer) => claimed.keys.extend(given(claims, answer)),
                Err(error) => drop(claimed.failures.insert(server.clone(), error.to_string())),
            }
        }
        Ok(claimed)
    }

    async fn claim_at(
        &self,
        server: &ServerName,
        claims: &[KeyClaim],
        timeout: Duration,
    ) -> Result<ClaimAnswer, RequestError> {
        let uri = "/_matrix/federation/v1/user/keys/claim";
        let mut wanted: BTreeMap<&UserId, BTreeMap<&str, &str>> = BTreeMap::new();
        for claim in claims {
            wanted.entry(&claim.user_id).or_default().insert(&claim.device_id, &claim.algorithm);
        }
        let body = json!({ "one_time_keys": wanted });
        self.client.post(server, uri, &body, Budget { timeout, body_size_max: ANSWER_SIZE_MAX }).await
    }
}

/// Devices whose keys say that they are theirs.
fn devices_of(user_id: &UserId, devices: BTreeMap<String, Json>) -> Vec<RemoteDevice> {
    let own = |device_id: &str, keys: &Json| {
        let text = |field: &str| keys.get(field).and_then(Value::as_str);
        text("user_id") == Some(user_id.as_str()) && text("device_id") == Some(device_id)
    };
    let devices = devices.into_iter().filter(|(device_id, keys)| own(device_id, keys));
    let devices = devices.map(|(device_id, keys)| {
        let name = keys.get("unsigned").and_then(|unsigned| unsigned.get("device_display_name"));
        let device_display_name = name.and_then(Value::as_str).map(str::to_owned);
        RemoteDevice { device_id, keys: Some(keys), device_display_name }
    });
    devices.collect()
}

fn passed_on(list: RemoteDeviceList) -> UserKeys {
    UserKeys {
        devices: list
            .devices
            .into_iter()
            .filter_map(|device| Some((device.device_id, device.keys?)))
            .collect(),
        master: list.master_key,
        self_signing: list.self_signing_key,
        user_signing: None,
    }
}

/// What was asked for, of what was answered.
fn given(claims: &[KeyClaim], mut answer: ClaimAnswer) -> Vec<ClaimedKey> {
    let mut given = Vec::new();
    for claim in claims {
        let of_user = answer.one_time_keys.get_mut(&claim.user_id);
        let keys = of_user.and_then(|devices| devices.remove(&claim.device_id)).unwrap_or_default();
        let of_algorithm = |name: &str| name.split_once(':').is_some_and(|(name, _)| name == claim.algorithm);
        if let Some((name, key)) = keys.into_iter().find(|(name, _)| of_algorithm(name)) {
            let (user_id, device_id) = (claim.user_id.clone(), claim.device_id.clone());
            given.push(ClaimedKey { user_id, device_id, name, json: key.to_string() });
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use ruma::{owned_user_id, user_id};

    use super::*;

    #[test]
    fn keys_that_were_not_asked_for_are_not_taken() {
        let claim = KeyClaim {
            user_id: owned_user_id!("@a:x.org"),
            device_id: "D".to_owned(),
            algorithm: "signed_curve25519".to_owned(),
        };
        let answer =
            |keys: Value| serde_json::from_value(json!({ "one_time_keys": keys })).expect("an answer");
        let wanted = json!({ "@a:x.org": { "D": { "signed_curve25519:1": { "key": "x" } } } });
        let taken = given(std::slice::from_ref(&claim), answer(wanted));
        assert_eq!((taken.len(), taken[0].name.as_str()), (1, "signed_curve25519:1"));
        for other in [
            json!({}),
            json!({ "@b:x.org": { "D": { "signed_curve25519:1": {} } } }),
            json!({ "@a:x.org": { "E": { "signed_curve25519:1": {} } } }),
            json!({ "@a:x.org": { "D": { "curve25519:1": "x" } } }),
        ] {
            assert!(given(std::slice::from_ref(&claim), answer(other)).is_empty());
        }
    }

    #[test]
    fn devices_of_somebody_else_are_not_taken() {
        let keys = |user: &str, device: &str| json!({ "user_id": user, "device_id": device });
        let devices = json!({
            "A": keys("@a:x.org", "A"), "B": keys("@a:x.org", "A"), "C": keys("@b:x.org", "C"), "D": {},
        });
        let devices = serde_json::from_value(devices).expect("an answer");
        let taken = devices_of(user_id!("@a:x.org"), devices);
        assert_eq!(taken.iter().map(|device| device.device_id.as_str()).collect::<Vec<_>>(), ["A"]);
    }
}
