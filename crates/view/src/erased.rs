//! Users who were deactivated with `erase` (Client-Server API, "Account deactivation"): who was not there when they spoke
//! reads redacted copies of what they said.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use myelin_core::UserNid;
use myelin_store::{Store, log::LogEntry, tables::ERASED_USERS};

use crate::Error;

const USERS_MAX: usize = 10_000_000;

pub struct Erased {
    store: Store,
    /// `None`: to be loaded.
    users: ArcSwapOption<HashSet<UserNid>>,
    /// Counts invalidations: a load that one overtook is not kept.
    generation: AtomicU64,
}

impl Erased {
    pub fn new(store: Store) -> Self {
        Self { store, users: ArcSwapOption::empty(), generation: AtomicU64::new(0) }
    }

    pub async fn contains(&self, user: UserNid) -> Result<bool, Error> {
        if let Some(users) = &*self.users.load() {
            return Ok(users.contains(&user));
        }
        Ok(self.reload().await?.contains(&user))
    }

    /// Drops what an entry of the log makes stale.
    pub(crate) fn take_in(&self, entry: &LogEntry) {
        if matches!(entry, LogEntry::Account { .. }) {
            self.generation.fetch_add(1, Ordering::SeqCst);
            self.users.store(None);
        }
    }

    async fn reload(&self) -> Result<Arc<HashSet<UserNid>>, Error> {
        let generation = self.generation.load(Ordering::SeqCst);
        let rows = self.store.read().all(&ERASED_USERS, USERS_MAX).await?;
        let users: Arc<HashSet<_>> = Arc::new(rows.into_iter().map(|(user, ())| user).collect());
        self.users.store(Some(users.clone()));
        if self.generation.load(Ordering::SeqCst) != generation {
            self.users.store(None);
        }
        Ok(users)
    }
}
