//! What a user may store: in all, on one day, and without content.

use std::sync::Arc;

use myelin_core::UserNid;
use myelin_store::{
    Batch, Direction, Store,
    tables::{MEDIA_USAGE, MediaUsageRecord, PENDING_MEDIA},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{Config, Error, Mxc, access::day};

const LOCKS: usize = 64;

/// Uploads of one user are finished one after the other, so that they do not stand in each other's way at the row of
/// the user's usage. Other processes are kept apart by that row.
pub(crate) struct UserLocks([Arc<Mutex<()>>; LOCKS]);

impl Default for UserLocks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Arc::default()))
    }
}

impl UserLocks {
    pub async fn lock(&self, user: UserNid) -> OwnedMutexGuard<()> {
        self.0[user.0 as usize % LOCKS].clone().lock_owned().await
    }
}

/// What is still free for `user`, bytes.
pub(crate) async fn free(store: &Store, config: &Config, user: UserNid, now_ms: u64) -> Result<u64, Error> {
    if config.user_bytes_max.is_none() && config.user_bytes_per_day_max.is_none() {
        return Ok(u64::MAX);
    }
    let usage = store.get(&MEDIA_USAGE, &user).await?.unwrap_or_default();
    Ok(left(config, &usage, now_ms))
}

/// Counts `size` more bytes of `user`, if that is allowed.
pub(crate) async fn count(
    store: &Store,
    config: &Config,
    batch: &mut Batch,
    user: UserNid,
    size: u64,
    now_ms: u64,
) -> Result<(), Error> {
    let old = store.get(&MEDIA_USAGE, &user).await?;
    let mut usage = old.clone().unwrap_or_default();
    if size > left(config, &usage, now_ms) {
        return Err(Error::QuotaExceeded);
    }
    if usage.day != day(now_ms) {
        (usage.day, usage.day_bytes) = (day(now_ms), 0);
    }
    usage.bytes = usage.bytes.saturating_add(size);
    usage.day_bytes = usage.day_bytes.saturating_add(size);
    usage.files = usage.files.saturating_add(1);
    batch.require_unchanged(&MEDIA_USAGE, &user, old.as_ref());
    batch.put(&MEDIA_USAGE, &user, &usage);
    Ok(())
}

fn left(config: &Config, usage: &MediaUsageRecord, now_ms: u64) -> u64 {
    let today = if usage.day == day(now_ms) { usage.day_bytes } else { 0 };
    let of_all = config.user_bytes_max.map_or(u64::MAX, |max| max.saturating_sub(usage.bytes));
    let of_today = config.user_bytes_per_day_max.map_or(u64::MAX, |max| max.saturating_sub(today));
    of_all.min(of_today)
}

/// One more URI without content, if the user has not too many of them.
pub(crate) async fn count_pending(
    store: &Store,
    config: &Config,
    batch: &mut Batch,
    user: UserNid,
    now_ms: u64,
) -> Result<(), Error> {
    let max = config.pending_per_user_max;
    let pending = store
        .range(&PENDING_MEDIA, &(user, now_ms + 1), &(user, u64::MAX), Direction::Forward, max + 1)
        .await?;
    if pending.len() >= max {
        let soonest = pending.first().map_or(now_ms, |((_, expires_ms, _), ())| *expires_ms);
        return Err(Error::TooManyPending { retry_after_ms: soonest.saturating_sub(now_ms) });
    }
    let old = store.get(&MEDIA_USAGE, &user).await?;
    let mut usage = old.clone().unwrap_or_default();
    usage.created = usage.created.wrapping_add(1);
    batch.require_unchanged(&MEDIA_USAGE, &user, old.as_ref());
    batch.put(&MEDIA_USAGE, &user, &usage);
    Ok(())
}

pub(crate) fn delete_pending(batch: &mut Batch, user: UserNid, expires_ms: u64, mxc: &Mxc) {
    batch.delete(&PENDING_MEDIA, &(user, expires_ms, mxc.id().to_owned()));
}
