//! Whom a user ignores: the `m.ignored_user_list` of their account data, parsed (Client-Server API, "Ignoring Users").

use std::{collections::HashSet, sync::Arc};

use myelin_core::{RoomNid, UserNid};
use myelin_store::{
    Store,
    log::LogEntry,
    tables::{ACCOUNT_DATA, USER_IDS},
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::OwnedUserId;

use crate::Error;

pub(crate) const IGNORED_USER_LIST: &str = "m.ignored_user_list";
const USERS_MAX: usize = 20_000;

type UserIds = Arc<HashSet<OwnedUserId>>;

pub struct Ignored {
    store: Store,
    cache: Cache<UserNid, UserIds>,
    /// Counts invalidations: a load that one overtook is not kept. Held while the cache is changed.
    generation: Mutex<u64>,
    nobody: UserIds,
}

impl Ignored {
    pub fn new(store: Store) -> Self {
        let (cache, generation) = (Cache::new(USERS_MAX), Mutex::new(0));
        Self { store, cache, generation, nobody: UserIds::default() }
    }

    /// Whom `user` ignores. A list that does not parse ignores nobody.
    pub async fn load(&self, user: UserNid) -> Result<UserIds, Error> {
        if let Some(ignored) = self.cache.get(&user) {
            return Ok(ignored);
        }
        let generation = *self.generation.lock();
        let key = (user, RoomNid::GLOBAL, IGNORED_USER_LIST.to_owned());
        let row = self.store.get(&ACCOUNT_DATA, &key).await?;
        let mut ignored = row.map(|row| parse(&row.value.json)).unwrap_or_default();
        if !ignored.is_empty() {
            // What one says oneself is part of the conversation, whatever the list says.
            let own = self.store.get(&USER_IDS, &user).await?;
            ignored.retain(|user_id| own.as_ref().is_none_or(|own| own.0 != user_id.as_str()));
        }
        let ignored = if ignored.is_empty() { self.nobody.clone() } else { Arc::new(ignored) };
        self.keep(user, &ignored, generation);
        Ok(ignored)
    }

    fn keep(&self, user: UserNid, ignored: &UserIds, generation: u64) {
        let now = self.generation.lock();
        if *now == generation {
            self.cache.insert(user, ignored.clone());
        }
    }

    /// Drops what an entry of the log makes stale.
    pub(crate) fn take_in(&self, entry: &LogEntry) {
        if let LogEntry::AccountData { user, room: RoomNid::GLOBAL, kind } = entry
            && kind == IGNORED_USER_LIST
        {
            let mut generation = self.generation.lock();
            *generation += 1;
            self.cache.remove(user);
        }
    }
}

pub(crate) fn parse(json: &str) -> HashSet<OwnedUserId> {
    let content: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let listed = content.get("ignored_users").and_then(|users| users.as_object());
    listed.into_iter().flatten().filter_map(|(user_id, _)| user_id.as_str().try_into().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let json = r#"{"ignored_users":{"@a:x.org":{},"not a user":{},"@b:x.org":{"any":1}}}"#;
        let mut ignored: Vec<_> = parse(json).into_iter().map(|u| u.to_string()).collect();
        ignored.sort();
        assert_eq!(ignored, ["@a:x.org", "@b:x.org"]);
        for json in ["{}", "[]", "7", "not json", r#"{"ignored_users":["@a:x.org"]}"#] {
            assert!(parse(json).is_empty(), "{json}");
        }
    }
}
