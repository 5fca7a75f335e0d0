//! Strings to numeric ids and back, cached in both directions.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use myelin_core::{EventNid, RoomNid, StateKeyNid, UserNid};
use myelin_store::{
    Batch, CommitError, NidAllocator, NidKind, Store,
    tables::{
        EVENT_NIDS, Name, ROOM_NIDS, ROOMS, STATE_KEY_NIDS, STATE_KEYS, StateKeyRecord, USER_IDS, USER_NIDS,
    },
};
use quick_cache::sync::Cache;
use ruma::{EventId, OwnedEventId, OwnedServerName, OwnedUserId, RoomId, UserId};

use crate::{Error, RoomInfo};

/// Entries per cache; a user or a state key takes some 100 bytes.
const USERS_MAX: usize = 50_000;
const STATE_KEYS_MAX: usize = 50_000;
const ROOMS_MAX: usize = 20_000;
/// New users or state keys in one commit.
const INTERNED_AT_ONCE: usize = 2_000;
const EVENTS_MAX: usize = 30_000;

/// An interned `(type, state_key)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StateKey {
    pub event_type: String,
    pub state_key: String,
}

pub struct Interner {
    store: Store,
    nids: Arc<NidAllocator>,
    server_name: OwnedServerName,
    users: Cache<Arc<str>, UserNid>,
    user_ids: Cache<UserNid, OwnedUserId>,
    state_keys: Cache<StateKey, StateKeyNid>,
    state_key_names: Cache<StateKeyNid, Arc<StateKey>>,
    rooms: Cache<Arc<str>, RoomNid>,
    room_infos: Cache<RoomNid, Arc<RoomInfo>>,
    /// Durable ones only.
    events: Cache<OwnedEventId, EventNid>,
}

impl Interner {
    pub fn new(store: Store, nids: Arc<NidAllocator>, server_name: OwnedServerName) -> Self {
        Self {
            store,
            nids,
            server_name,
            users: Cache::new(USERS_MAX),
            user_ids: Cache::new(USERS_MAX),
            state_keys: Cache::new(STATE_KEYS_MAX),
            state_key_names: Cache::new(STATE_KEYS_MAX),
            rooms: Cache::new(ROOMS_MAX),
            room_infos: Cache::new(ROOMS_MAX),
            events: Cache::new(EVENTS_MAX),
        }
    }

    /// The nid of a user, given out now if the user is new. It says nothing about an account.
    pub async fn user(&self, user_id: &UserId) -> Result<UserNid, Error> {
        loop {
            if let Some(nid) = self.lookup_user(user_id).await? {
                return Ok(nid);
            }
            let nid = UserNid(self.nids.allocate(NidKind::User).await?);
            let key = user_id.as_str().to_owned();
            let mut batch = Batch::new();
            batch.require_absent(&USER_NIDS, &key);
            batch.put(&USER_NIDS, &key, &nid);
            batch.put(&USER_IDS, &nid, &Name(key));
            unless_conflict(self.store.commit(batch).await)?;
        }
    }

    /// One nid per user, in order; the new ones are given out in few commits.
    pub async fn users(&self, ids: &[OwnedUserId]) -> Result<Vec<UserNid>, Error> {
        loop {
            let mut nids: Vec<_> = ids.iter().map(|id| self.users.get(id.as_str())).collect();
            let lacking = lacking(&nids);
            let keys: Vec<_> = lacking.iter().map(|at| ids[*at].as_str().to_owned()).collect();
            for (at, nid) in lacking.iter().zip(self.store.multi_get(&USER_NIDS, &keys).await?) {
                nids[*at] = nid.inspect(|nid| self.users.insert(ids[*at].as_str().into(), *nid));
            }
            let new = unknown(&lacking, &nids, keys);
            if new.is_empty() {
                return Ok(nids.into_iter().flatten().collect());
            }
            for keys in new.chunks(INTERNED_AT_ONCE) {
                self.intern_users(keys).await?;
            }
        }
    }

    async fn intern_users(&self, ids: &[String]) -> Result<(), Error> {
        let mut batch = Batch::new();
        for key in ids {
            let nid = UserNid(self.nids.allocate(NidKind::User).await?);
            batch.require_absent(&USER_NIDS, key);
            batch.put(&USER_NIDS, key, &nid);
            batch.put(&USER_IDS, &nid, &Name(key.clone()));
        }
        unless_conflict(self.store.commit(batch).await)
    }

    pub async fn lookup_user(&self, user_id: &UserId) -> Result<Option<UserNid>, Error> {
        if let Some(nid) = self.users.get(user_id.as_str()) {
            return Ok(Some(nid));
        }
        let found = self.store.get(&USER_NIDS, &user_id.as_str().to_owned()).await?;
        if let Some(nid) = found {
            self.users.insert(user_id.as_str().into(), nid);
        }
        Ok(found)
    }

    pub async fn user_id(&self, nid: UserNid) -> Result<OwnedUserId, Error> {
        if let Some(user_id) = self.user_ids.get(&nid) {
            return Ok(user_id);
        }
        let name = self.store.get(&USER_IDS, &nid).await?;
        let Name(name) = name.ok_or_else(|| Error::Damaged(format!("{nid:?} has no user id")))?;
        let user_id = OwnedUserId::try_from(name.as_str())
            .map_err(|e| Error::Damaged(format!("user id '{name}': {e}")))?;
        self.user_ids.insert(nid, user_id.clone());
        Ok(user_id)
    }

    pub fn server_name(&self) -> &ruma::ServerName {
        &self.server_name
    }

    /// Whether the user belongs to this server.
    pub async fn is_local(&self, nid: UserNid) -> Result<bool, Error> {
        Ok(self.user_id(nid).await?.server_name() == self.server_name)
    }

    /// The nid of a state key, given out now if it is new.
    pub async fn state_key(&self, event_type: &str, state_key: &str) -> Result<StateKeyNid, Error> {
        loop {
            if let Some(nid) = self.lookup_state_key(event_type, state_key).await? {
                return Ok(nid);
            }
            let nid = StateKeyNid(self.nids.allocate(NidKind::StateKey).await?);
            let key = (event_type.to_owned(), state_key.to_owned());
            let mut batch = Batch::new();
            batch.require_absent(&STATE_KEY_NIDS, &key);
            batch.put(&STATE_KEY_NIDS, &key, &nid);
            let (event_type, state_key) = key;
            batch.put(&STATE_KEYS, &nid, &StateKeyRecord { event_type, state_key });
            unless_conflict(self.store.commit(batch).await)?;
        }
    }

    /// One nid per key, in order; the new ones are given out in few commits.
    pub async fn state_keys(&self, names: &[StateKey]) -> Result<Vec<StateKeyNid>, Error> {
        loop {
            let mut nids: Vec<_> = names.iter().map(|name| self.state_keys.get(name)).collect();
            let lacking = lacking(&nids);
            let key = |at: &usize| (names[*at].event_type.clone(), names[*at].state_key.clone());
            let keys: Vec<_> = lacking.iter().map(key).collect();
            for (at, nid) in lacking.iter().zip(self.store.multi_get(&STATE_KEY_NIDS, &keys).await?) {
                nids[*at] = nid.inspect(|nid| self.state_keys.insert(names[*at].clone(), *nid));
            }
            let new = unknown(&lacking, &nids, keys);
            if new.is_empty() {
                return Ok(nids.into_iter().flatten().collect());
            }
            for keys in new.chunks(INTERNED_AT_ONCE) {
                self.intern_state_keys(keys).await?;
            }
        }
    }

    async fn intern_state_keys(&self, keys: &[(String, String)]) -> Result<(), Error> {
        let mut batch = Batch::new();
        for key in keys {
            let nid = StateKeyNid(self.nids.allocate(NidKind::StateKey).await?);
            batch.require_absent(&STATE_KEY_NIDS, key);
            batch.put(&STATE_KEY_NIDS, key, &nid);
            let (event_type, state_key) = key.clone();
            batch.put(&STATE_KEYS, &nid, &StateKeyRecord { event_type, state_key });
        }
        unless_conflict(self.store.commit(batch).await)
    }

    pub async fn lookup_state_key(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<StateKeyNid>, Error> {
        let key = StateKey { event_type: event_type.to_owned(), state_key: state_key.to_owned() };
        if let Some(nid) = self.state_keys.get(&key) {
            return Ok(Some(nid));
        }
        let found = self.store.get(&STATE_KEY_NIDS, &(key.event_type.clone(), key.state_key.clone())).await?;
        if let Some(nid) = found {
            self.state_keys.insert(key, nid);
        }
        Ok(found)
    }

    pub async fn state_key_name(&self, nid: StateKeyNid) -> Result<Arc<StateKey>, Error> {
        let mut names = self.state_key_names(&[nid]).await?;
        names.pop().ok_or_else(|| Error::Damaged(format!("{nid:?} has no name")))
    }

    /// One name per nid, in order.
    pub async fn state_key_names(&self, nids: &[StateKeyNid]) -> Result<Vec<Arc<StateKey>>, Error> {
        let mut names: Vec<_> = nids.iter().map(|nid| self.state_key_names.get(nid)).collect();
        let missing: Vec<_> =
            nids.iter().zip(&names).filter(|(_, n)| n.is_none()).map(|(nid, _)| *nid).collect();
        if !missing.is_empty() {
            let rows = self.store.multi_get(&STATE_KEYS, &missing).await?;
            let mut found = missing.iter().zip(rows);
            for name in names.iter_mut().filter(|n| n.is_none()) {
                let Some((nid, row)) = found.next() else { break };
                let row = row.ok_or_else(|| Error::Damaged(format!("{nid:?} has no name")))?;
                let key = Arc::new(StateKey { event_type: row.event_type, state_key: row.state_key });
                self.state_key_names.insert(*nid, key.clone());
                *name = Some(key);
            }
        }
        Ok(names.into_iter().flatten().collect())
    }

    /// The room if this server holds it. Room nids are given out with the room's first commit, by `myelin-rooms`.
    pub async fn lookup_room(&self, room_id: &RoomId) -> Result<Option<RoomNid>, Error> {
        if let Some(nid) = self.rooms.get(room_id.as_str()) {
            return Ok(Some(nid));
        }
        let found = self.store.get(&ROOM_NIDS, &room_id.as_str().to_owned()).await?;
        if let Some(nid) = found {
            self.rooms.insert(room_id.as_str().into(), nid);
        }
        Ok(found)
    }

    /// What never changes about a room; `None` if there is no such room.
    pub async fn room_info(&self, nid: RoomNid) -> Result<Option<Arc<RoomInfo>>, Error> {
        if let Some(info) = self.room_infos.get(&nid) {
            return Ok(Some(info));
        }
        let Some(record) = self.store.get(&ROOMS, &nid).await? else { return Ok(None) };
        let info = Arc::new(RoomInfo::from_record(nid, record)?);
        // A room that is only heard of is learned more of when it is joined.
        if info.create_event != EventNid::NONE {
            self.room_infos.insert(nid, info.clone());
        }
        Ok(Some(info))
    }

    /// Makes a room known that is about to be committed, so that its events can be parsed.
    pub fn remember_room(&self, info: Arc<RoomInfo>) {
        self.room_infos.insert(info.nid, info);
    }

    pub async fn lookup_event(&self, event_id: &EventId) -> Result<Option<EventNid>, Error> {
        if let Some(nid) = self.events.get(event_id) {
            return Ok(Some(nid));
        }
        let found = self.store.get(&EVENT_NIDS, &event_id.as_str().to_owned()).await?;
        if let Some(nid) = found {
            self.events.insert(event_id.to_owned(), nid);
        }
        Ok(found)
    }

    /// Those that are held.
    pub async fn lookup_events(
        &self,
        ids: &[OwnedEventId],
    ) -> Result<HashMap<OwnedEventId, EventNid>, Error> {
        let keys: Vec<_> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        let rows = self.store.multi_get(&EVENT_NIDS, &keys).await?;
        Ok(ids.iter().cloned().zip(rows).filter_map(|(id, nid)| Some((id, nid?))).collect())
    }
}

fn lacking<N>(nids: &[Option<N>]) -> Vec<usize> {
    nids.iter().enumerate().filter(|(_, nid)| nid.is_none()).map(|(at, _)| at).collect()
}

/// The distinct keys among those looked for that have no nid yet.
fn unknown<N, K: Ord>(lacking: &[usize], nids: &[Option<N>], keys: Vec<K>) -> Vec<K> {
    let new = lacking.iter().zip(keys).filter(|(at, _)| nids[**at].is_none()).map(|(_, key)| key);
    new.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Losing the race means that somebody else interned it: the caller looks again.
fn unless_conflict<T>(result: Result<T, CommitError>) -> Result<(), Error> {
    match result {
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
