//! Previews that were made: kept for some days, each with the time at which the page was like that.

use std::time::Duration;

use myelin_store::{
    Batch, CommitError, Direction, Store,
    tables::{URL_PREVIEWS, URL_PREVIEWS_BY_AGE, UrlPreviewRecord},
};
use sha2::{Digest, Sha256};
use url::Url;

use super::{Config, Json};
use crate::Error;

/// Then a version is deleted.
pub const KEPT_MS: u64 = 7 * 24 * 60 * 60_000;
/// Versions of one URL that are looked at.
const VERSIONS_MAX: usize = 50;

pub struct Versions {
    store: Store,
    fresh_ms: u64,
}

impl Versions {
    pub fn new(store: Store, config: &Config) -> Self {
        let fresh_ms = config.fresh_for.min(Duration::from_millis(KEPT_MS)).as_millis();
        Self { store, fresh_ms: u64::try_from(fresh_ms).unwrap_or(KEPT_MS) }
    }

    /// The version that held at `ts_ms`, else one that holds now.
    pub async fn find(&self, url: &Url, ts_ms: Option<u64>, now_ms: u64) -> Result<Option<Json>, Error> {
        let versions = self.store.scan(&URL_PREVIEWS, &name(url), Direction::Reverse, VERSIONS_MAX).await?;
        let held_at = |ts_ms: u64| {
            // Newest first.
            versions
                .iter()
                .find(|((_, made_ms), _)| (*made_ms..made_ms.saturating_add(self.fresh_ms)).contains(&ts_ms))
        };
        let found = ts_ms.and_then(held_at).or_else(|| held_at(now_ms));
        Ok(found.map(|(_, record)| record.json.as_str().into()))
    }

    /// Durable when this returns.
    pub async fn add(&self, url: &Url, json: &str, now_ms: u64) -> Result<(), Error> {
        let key = (name(url), now_ms);
        let record = UrlPreviewRecord { url: url.to_string(), json: json.to_owned() };
        let mut batch = Batch::new();
        batch.put(&URL_PREVIEWS, &key, &record);
        batch.put(&URL_PREVIEWS_BY_AGE, &(key.1, key.0), &());
        self.store.commit(batch).await.map(drop).map_err(|error| match error {
            CommitError::Conflict { .. } => Error::Contended,
            CommitError::Store(error) => error.into(),
        })
    }
}

/// URLs are long; their hashes are not.
fn name(url: &Url) -> [u8; 32] {
    Sha256::digest(url.as_str().as_bytes()).into()
}
