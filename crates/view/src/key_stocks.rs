//! How many one-time keys the devices of a local user have in stock, and which of their fallback keys are unused
//! (Client-Server API, "Extensions to /sync"): every answer to a sync says it.

use std::{collections::BTreeMap, sync::Arc};

use myelin_core::{UserNid, limits};
use myelin_store::{
    Direction, Store,
    log::LogEntry,
    tables::{KEY_STOCKS, KeyStockRecord},
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::Error;

const USERS_MAX: usize = 20_000;

/// The stock of one device, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStock {
    /// `{"signed_curve25519": 50}`
    pub one_time_key_counts: String,
    /// `["signed_curve25519"]`
    pub unused_fallback_key_types: String,
}

type ByDevice = Arc<BTreeMap<String, KeyStock>>;

pub struct KeyStocks {
    store: Store,
    cache: Cache<UserNid, ByDevice>,
    /// Counts invalidations: a load that one overtook is not kept. Held while the cache is changed.
    generation: Mutex<u64>,
}

impl KeyStocks {
    pub fn new(store: Store) -> Self {
        Self { store, cache: Cache::new(USERS_MAX), generation: Mutex::new(0) }
    }

    /// Devices that never uploaded a key are not in it.
    pub async fn load(&self, user: UserNid) -> Result<ByDevice, Error> {
        if let Some(stocks) = self.cache.get(&user) {
            return Ok(stocks);
        }
        let generation = *self.generation.lock();
        let limit = limits::DEVICES_PER_USER_MAX;
        let rows = self.store.scan(&KEY_STOCKS, &user, Direction::Forward, limit).await?;
        let stocks = rows.into_iter().map(|((_, device_id), row)| (device_id, KeyStock::of(&row)));
        let stocks: ByDevice = Arc::new(stocks.collect());
        let now = self.generation.lock();
        if *now == generation {
            self.cache.insert(user, stocks.clone());
        }
        Ok(stocks)
    }

    /// Drops what an entry of the log makes stale.
    pub(crate) fn take_in(&self, entry: &LogEntry) {
        if let LogEntry::KeyStock { user } | LogEntry::Account { user } = entry {
            let mut generation = self.generation.lock();
            *generation += 1;
            self.cache.remove(user);
        }
    }
}

impl KeyStock {
    fn of(record: &KeyStockRecord) -> Self {
        let counts: BTreeMap<_, _> =
            record.one_time_keys.iter().map(|(algorithm, count)| (algorithm.as_str(), *count)).collect();
        let unused = record.fallback_keys.iter().filter(|key| !key.used);
        let unused: Vec<_> = unused.map(|key| key.algorithm.as_str()).collect();
        Self {
            one_time_key_counts: serde_json::json!(counts).to_string(),
            unused_fallback_key_types: serde_json::json!(unused).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use myelin_store::tables::FallbackKey;

    use super::*;

    #[test]
    fn stocks_as_clients_see_them() {
        let fallback = |algorithm: &str, used| FallbackKey {
            algorithm: algorithm.to_owned(),
            name: format!("{algorithm}:A"),
            json: "{}".to_owned(),
            used,
        };
        let record = KeyStockRecord {
            version: 1,
            one_time_keys: vec![("signed_curve25519".to_owned(), 3)],
            fallback_keys: vec![fallback("a", true), fallback("b", false)],
        };
        let stock = KeyStock::of(&record);
        assert_eq!(stock.one_time_key_counts, r#"{"signed_curve25519":3}"#);
        assert_eq!(stock.unused_fallback_key_types, r#"["b"]"#);
    }
}
