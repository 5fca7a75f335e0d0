//! The push rules of local users, ready to be asked by whoever writes rooms.
//!
//! Held in full are those users who have rules of their own or ignore somebody (`push_rule_owners`); for everybody else the
//! shared rules stand. A change is taken in with the next event, by reading that user again.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use imbl::HashMap;
use myelin_core::{RoomNid, UserNid};
use myelin_push::{Index, Ruleset, edit, shared};
use myelin_store::{
    Store,
    log::LogEntry,
    tables::{ACCOUNT_DATA, PUSH_RULE_OWNERS},
};
use parking_lot::Mutex;

use crate::{
    Error, Interner,
    ignored::{IGNORED_USER_LIST, parse},
};

const PUSH_RULES: &str = "m.push_rules";
const OWNERS_MAX: usize = 10_000_000;
/// Users read at a time.
const PAGE: usize = 1_000;

pub struct PushRules {
    store: Store,
    interner: Arc<Interner>,
    book: ArcSwap<Rulebook>,
    /// Users to be read again; `None` if all are still to be read.
    stale: Mutex<Option<HashSet<UserNid>>>,
    up_to_date: AtomicBool,
    /// One reads, the others wait for it.
    loading: tokio::sync::Mutex<()>,
}

/// Everybody's rules at one moment. Cheap to clone.
#[derive(Clone, Default)]
pub struct Rulebook {
    /// Who is to be asked about an event.
    pub index: Index,
    own: HashMap<UserNid, Arc<Ruleset>>,
}

impl Rulebook {
    /// The rules of a user; `None`: the shared ones.
    pub fn own(&self, user: UserNid) -> Option<&Arc<Ruleset>> {
        self.own.get(&user)
    }

    pub fn of(&self, user: UserNid) -> &Ruleset {
        self.own.get(&user).map_or(shared(), |rules| rules)
    }

    fn set(&mut self, user: UserNid, rules: Option<Ruleset>) {
        if let Some(before) = self.own.remove(&user) {
            self.index.remove(user, &before.triggers);
        }
        if let Some(rules) = rules {
            self.index.add(user, &rules.triggers);
            self.own.insert(user, Arc::new(rules));
        }
    }
}

impl PushRules {
    pub(crate) fn new(store: Store, interner: Arc<Interner>) -> Self {
        Self {
            store,
            interner,
            book: ArcSwap::default(),
            stale: Mutex::new(None),
            up_to_date: AtomicBool::new(false),
            loading: tokio::sync::Mutex::new(()),
        }
    }

    /// The rules as of the last entry of the log that was taken in.
    pub async fn current(&self) -> Result<Arc<Rulebook>, Error> {
        if !self.up_to_date.load(Ordering::Acquire) {
            let _alone = self.loading.lock().await;
            self.load_stale().await?;
        }
        Ok(self.book.load_full())
    }

    /// Notes what an entry of the log makes stale.
    pub(crate) fn take_in(&self, entry: &LogEntry) {
        if let LogEntry::AccountData { user, room: RoomNid::GLOBAL, kind } = entry
            && (kind == PUSH_RULES || kind == IGNORED_USER_LIST)
        {
            let mut stale = self.stale.lock();
            if let Some(stale) = &mut *stale {
                stale.insert(*user);
            }
            self.up_to_date.store(false, Ordering::Release);
        }
    }

    async fn load_stale(&self) -> Result<(), Error> {
        let users = self.stale.lock().replace(HashSet::new());
        let loaded = self.load(users.as_ref()).await;
        let mut stale = self.stale.lock();
        if loaded.is_err() {
            *stale = users.and_then(|mut users| {
                users.extend(stale.take()?);
                Some(users)
            });
        }
        let up_to_date = stale.as_ref().is_some_and(HashSet::is_empty);
        self.up_to_date.store(up_to_date, Ordering::Release);
        loaded
    }

    /// `None`: everybody.
    async fn load(&self, users: Option<&HashSet<UserNid>>) -> Result<(), Error> {
        let users: Vec<UserNid> = match users {
            Some(users) => users.iter().copied().collect(),
            None => {
                let owners = self.store.read().all(&PUSH_RULE_OWNERS, OWNERS_MAX).await?;
                owners.into_iter().map(|(user, ())| user).collect()
            }
        };
        let mut book = Rulebook::clone(&self.book.load());
        for page in users.chunks(PAGE) {
            let key = |user: &UserNid, kind: &str| (*user, RoomNid::GLOBAL, kind.to_owned());
            let keys = page.iter().flat_map(|user| [key(user, PUSH_RULES), key(user, IGNORED_USER_LIST)]);
            let rows = self.store.multi_get(&ACCOUNT_DATA, &keys.collect::<Vec<_>>()).await?;
            for (user, rows) in page.iter().zip(rows.chunks(2)) {
                let json = |row: usize| Some(rows.get(row)?.as_ref()?.value.json.as_str());
                book.set(*user, self.compile(*user, json(0), json(1)).await?);
            }
        }
        self.book.store(Arc::new(book));
        Ok(())
    }

    /// `None` if these rules are the shared ones.
    async fn compile(
        &self,
        user: UserNid,
        rules: Option<&str>,
        ignored: Option<&str>,
    ) -> Result<Option<Ruleset>, Error> {
        let user_id = self.interner.user_id(user).await?;
        let ignored = ignored.map(parse).unwrap_or_default();
        if rules.is_none() && ignored.is_empty() {
            return Ok(None);
        }
        Ok(Some(Ruleset::compile(&edit::load(&user_id, rules), ignored)))
    }
}
