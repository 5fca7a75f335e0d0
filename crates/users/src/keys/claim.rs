//! `POST /keys/claim`: each one-time key is given out once, to one of those who ask at the same time, and never again,
//! not even after a crash: the claim is durable before the key leaves.

use futures::{StreamExt, TryStreamExt, stream};
use myelin_core::UserNid;
use myelin_store::{
    Batch, Direction,
    log::LogEntry,
    tables::{KEY_STOCKS, KeyStockRecord, ONE_TIME_KEYS},
};
use ruma::OwnedUserId;

use crate::{Error, Users, transaction::transact};

/// Devices whose keys are claimed at once by one request.
const CLAIMS_AT_ONCE: usize = 64;

/// One key of this algorithm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyClaim {
    pub user_id: OwnedUserId,
    pub device_id: String,
    pub algorithm: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedKey {
    pub user_id: OwnedUserId,
    pub device_id: String,
    /// `<algorithm>:<key id>`.
    pub name: String,
    pub json: String,
}

impl Users {
    /// Keys of local devices. Who has none of that algorithm is left out.
    pub async fn claim_keys(&self, claims: Vec<KeyClaim>) -> Result<Vec<ClaimedKey>, Error> {
        let claims = claims.into_iter().filter(|claim| self.view.is_local(&claim.user_id));
        let claimed = stream::iter(claims).map(|claim| self.claim_key(claim)).buffered(CLAIMS_AT_ONCE);
        claimed.try_filter_map(|claimed| std::future::ready(Ok(claimed))).try_collect().await
    }

    async fn claim_key(&self, claim: KeyClaim) -> Result<Option<ClaimedKey>, Error> {
        let KeyClaim { user_id, device_id, algorithm } = claim;
        let Some(user) = self.view.interner.lookup_user(&user_id).await? else { return Ok(None) };
        let found = {
            let _turn = self.turns.take(user, &device_id).await;
            let key = (user, device_id);
            let found = transact(&self.view.store, || self.take_key(&key, &algorithm)).await?;
            found.map(|(name, json)| (key.1, name, json))
        };
        Ok(found.map(|(device_id, name, json)| ClaimedKey { user_id, device_id, name, json }))
    }

    /// A one-time key, or else the fallback key: its name and itself.
    async fn take_key(
        &self,
        device: &(UserNid, String),
        algorithm: &str,
    ) -> Result<(Batch, Option<(String, String)>), Error> {
        let mut batch = Batch::new();
        let store = &self.view.store;
        let Some(held) = store.get(&KEY_STOCKS, device).await? else { return Ok((batch, None)) };
        let mut stock = KeyStockRecord { version: held.version + 1, ..held.clone() };
        let prefix = (device.0, device.1.clone(), algorithm.to_owned());
        let oldest = store.scan(&ONE_TIME_KEYS, &prefix, Direction::Forward, 1).await?.pop();
        let found = match oldest {
            Some((row, record)) => {
                batch.delete(&ONE_TIME_KEYS, &row);
                stock.take_one(algorithm);
                Some((row.4, record.json))
            }
            None => stock.fallback_keys.iter_mut().find(|key| key.algorithm == algorithm).map(|key| {
                key.used = true;
                (key.name.clone(), key.json.clone())
            }),
        };
        let changed = KeyStockRecord { version: held.version, ..stock.clone() } != held;
        if changed {
            batch.require_equal(&KEY_STOCKS, device, &held);
            batch.put(&KEY_STOCKS, device, &stock);
            batch.log(&LogEntry::KeyStock { user: device.0 });
        }
        Ok((batch, found))
    }
}

trait TakeOne {
    fn take_one(&mut self, algorithm: &str);
}

impl TakeOne for KeyStockRecord {
    fn take_one(&mut self, algorithm: &str) {
        if let Some((_, count)) = self.one_time_keys.iter_mut().find(|(name, _)| name == algorithm) {
            *count = count.saturating_sub(1);
        }
    }
}
