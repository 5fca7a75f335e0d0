//! Whom a user ignores (`m.ignored_user_list`; Client-Server API, "Ignoring Users").

use std::{collections::HashSet, sync::Arc};

use myelin_core::{RoomNid, UserNid};
use myelin_store::{Store, log::LogEntry, tables::ACCOUNT_DATA};
use myelin_view::View;
use quick_cache::sync::Cache;
use ruma::OwnedUserId;

use crate::Error;

pub const IGNORED_USER_LIST: &str = "m.ignored_user_list";
const USERS_MAX: usize = 20_000;

type Users = Arc<HashSet<OwnedUserId>>;

/// Cached per user, dropped when the log says that the list changed.
pub struct Ignored {
    store: Store,
    cache: Arc<Cache<UserNid, Users>>,
}

impl Ignored {
    pub fn new(view: &View) -> Self {
        let cache: Arc<Cache<UserNid, Users>> = Arc::new(Cache::new(USERS_MAX));
        let stale = cache.clone();
        view.feed.listen(move |_, entry| {
            if let LogEntry::AccountData { user, kind, .. } = entry
                && kind == IGNORED_USER_LIST
            {
                stale.remove(user);
            }
        });
        Self { store: view.store.clone(), cache }
    }

    pub async fn of(&self, user: UserNid) -> Result<Users, Error> {
        if let Some(users) = self.cache.get(&user) {
            return Ok(users);
        }
        let row =
            self.store.get(&ACCOUNT_DATA, &(user, RoomNid::GLOBAL, IGNORED_USER_LIST.to_owned())).await?;
        let users: Users = Arc::new(row.map(|row| parse(&row.value.json)).unwrap_or_default());
        self.cache.insert(user, users.clone());
        Ok(users)
    }
}

/// What does not parse ignores nobody.
fn parse(json: &str) -> HashSet<OwnedUserId> {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let users = value.get("ignored_users").and_then(|u| u.as_object());
    users.into_iter().flat_map(|u| u.keys()).filter_map(|id| id.as_str().try_into().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parsed_leniently() {
        assert_eq!(parse(r#"{"ignored_users":{"@a:b":{},"nonsense":{}}}"#).len(), 1);
        for odd in ["", "[]", r#"{"ignored_users":[]}"#, "{}"] {
            assert!(parse(odd).is_empty(), "{odd}");
        }
    }
}
