//! Who an access token belongs to. Every request asks this, so the answer is kept in memory.
//!
//! Invalidation: each user has a slot with a generation (users share slots; a collision only costs a reload). A cached
//! session is valid while its slot still has the generation that was read *before* its rows were. Whoever changes an
//! account commits first and moves the generation then, so nothing read before the change survives it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use myelin_core::UserNid;
use myelin_store::{
    Batch,
    log::LogEntry,
    tables::{
        ACCESS_TOKENS, ACCOUNTS, AccessTokenRecord, AccountKind, AccountRecord, DEVICE_TOKENS, DEVICES,
        DeviceRecord, REFRESH_TOKENS,
    },
};
use quick_cache::sync::Cache;
use ruma::OwnedUserId;

use crate::{
    Error, LoginOrigin, Users,
    token::{self, TokenHash},
};

/// How stale `last_seen` of a device may be: bounds the writes that it costs.
const SEEN_INTERVAL_MS: u64 = 5 * 60 * 1000;
const SLOTS: usize = 16_384;

/// A live access token and whose it is.
#[derive(Debug)]
pub struct Session {
    pub user: UserNid,
    pub user_id: OwnedUserId,
    pub device_id: String,
    pub guest: bool,
    pub admin: bool,
    pub locked: bool,
    pub suspended: bool,
    /// `None`: the token does not expire.
    pub expires_ms: Option<u64>,
    last_seen_ms: AtomicU64,
    generation: u64,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    #[error("the access token is not known: it was never given out, or its session was logged out")]
    Unknown,
    /// Soft logout: the device is still there and a refresh or login brings it back.
    #[error("the access token has expired")]
    Expired,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<myelin_store::Error> for SessionError {
    fn from(error: myelin_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

pub(crate) struct SessionCache {
    sessions: Cache<TokenHash, Arc<Session>>,
    generations: Vec<AtomicU64>,
}

impl SessionCache {
    pub fn new(entries_max: usize) -> Self {
        Self {
            sessions: Cache::new(entries_max),
            generations: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Nothing that is cached of this user is served any more. Call it after the commit.
    pub fn forget(&self, user: UserNid) {
        self.slot(user).fetch_add(1, Ordering::SeqCst);
    }

    fn get(&self, hash: &TokenHash) -> Option<Arc<Session>> {
        let session = self.sessions.get(hash)?;
        (session.generation == self.generation(session.user)).then_some(session)
    }

    fn generation(&self, user: UserNid) -> u64 {
        self.slot(user).load(Ordering::SeqCst)
    }

    fn slot(&self, user: UserNid) -> &AtomicU64 {
        &self.generations[(user.0 % SLOTS as u64) as usize]
    }
}

impl Users {
    /// The session of an access token. Locked and suspended accounts have one too: the caller decides what they may do.
    pub async fn session(&self, access_token: &str) -> Result<Arc<Session>, SessionError> {
        let hash = token::hash(access_token);
        let session = match self.sessions.get(&hash) {
            Some(session) => session,
            None => self.load_session(hash).await?,
        };
        match session.expires_ms {
            Some(expires_ms) if expires_ms <= self.now_ms() => Err(SessionError::Expired),
            _ => Ok(session),
        }
    }

    /// Notes that a device is in use. Writes at most once per device and interval, in the background.
    pub fn saw(&self, session: &Session, origin: impl FnOnce() -> LoginOrigin) {
        let (now_ms, seen_ms) = (self.now_ms(), session.last_seen_ms.load(Ordering::Relaxed));
        if now_ms < seen_ms.saturating_add(SEEN_INTERVAL_MS) {
            return;
        }
        let order = Ordering::Relaxed;
        if session.last_seen_ms.compare_exchange(seen_ms, now_ms, order, order).is_ok() {
            let store = self.view.store.clone();
            let key = (session.user, session.device_id.clone());
            let task = write_last_seen(store, key, now_ms, origin());
            self.view.env.spawner.spawn("last_seen", Box::pin(task));
        }
    }

    async fn load_session(&self, hash: TokenHash) -> Result<Arc<Session>, SessionError> {
        let user = self.load_access_token(&hash).await?.user;
        let generation = self.sessions.generation(user);
        // Read again: only what is read after the generation may be kept under it.
        let token = self.load_access_token(&hash).await?;
        self.confirm_refresh(&token).await?;
        let (account, device) = self.load_owner(&token).await?;
        let session = Arc::new(Session {
            user,
            user_id: self.view.interner.user_id(user).await.map_err(Error::from)?,
            device_id: token.device_id,
            guest: account.kind == AccountKind::Guest,
            admin: account.admin,
            locked: account.locked,
            suspended: account.suspended,
            expires_ms: token.expires_ms,
            last_seen_ms: AtomicU64::new(device.last_seen_ms),
            generation,
        });
        self.sessions.sessions.insert(hash, session.clone());
        Ok(session)
    }

    async fn load_access_token(&self, hash: &TokenHash) -> Result<AccessTokenRecord, SessionError> {
        self.view.store.get(&ACCESS_TOKENS, hash).await?.ok_or(SessionError::Unknown)
    }

    /// Invariant: a token is live only together with its account and its device; a token that raced with the deletion
    /// of its device is none.
    async fn load_owner(
        &self,
        token: &AccessTokenRecord,
    ) -> Result<(AccountRecord, DeviceRecord), SessionError> {
        let store = &self.view.store;
        let account = store.get(&ACCOUNTS, &token.user).await?.filter(|a| !a.deactivated);
        let device = store.get(&DEVICES, &(token.user, token.device_id.clone())).await?;
        account.zip(device).ok_or(SessionError::Unknown)
    }

    /// The first use of a refreshed token revokes the pair that it replaced (`POST /refresh`).
    async fn confirm_refresh(&self, token: &AccessTokenRecord) -> Result<(), Error> {
        let Some(hash) = token.refresh_token else { return Ok(()) };
        let Some(current) = self.view.store.get(&REFRESH_TOKENS, &hash).await? else { return Ok(()) };
        let Some(old_hash) = current.predecessor else { return Ok(()) };
        let mut batch = Batch::new();
        batch.require_equal(&REFRESH_TOKENS, &hash, &current);
        self.revoke_pair(&mut batch, old_hash).await?;
        let mut confirmed = current.clone();
        confirmed.predecessor = None;
        batch.put(&REFRESH_TOKENS, &hash, &confirmed);
        batch.log(&LogEntry::Account { user: token.user });
        match self.view.store.commit(batch).await {
            // A conflict: another request with this token did it.
            Ok(_) | Err(myelin_store::CommitError::Conflict { .. }) => {}
            Err(myelin_store::CommitError::Store(error)) => return Err(error.into()),
        }
        self.sessions.forget(token.user);
        Ok(())
    }

    /// Adds the deletion of a refresh token and its access token.
    pub(crate) async fn revoke_pair(&self, batch: &mut Batch, refresh: TokenHash) -> Result<(), Error> {
        let Some(record) = self.view.store.get(&REFRESH_TOKENS, &refresh).await? else { return Ok(()) };
        batch.delete(&REFRESH_TOKENS, &refresh);
        batch.delete(&ACCESS_TOKENS, &record.access_token);
        batch.delete(&DEVICE_TOKENS, &(record.user, record.device_id.clone(), refresh));
        batch.delete(&DEVICE_TOKENS, &(record.user, record.device_id, record.access_token));
        Ok(())
    }
}

async fn write_last_seen(
    store: myelin_store::Store,
    key: (UserNid, String),
    now_ms: u64,
    origin: LoginOrigin,
) {
    let Ok(Some(device)) = store.get(&DEVICES, &key).await else { return };
    let mut seen = device.clone();
    seen.last_seen_ms = now_ms;
    seen.last_seen_ip = origin.ip.or(seen.last_seen_ip);
    seen.user_agent = origin.user_agent.or(seen.user_agent);
    let mut batch = Batch::new();
    batch.require_equal(&DEVICES, &key, &device);
    batch.put(&DEVICES, &key, &seen);
    if let Err(myelin_store::CommitError::Store(error)) = store.commit(batch).await {
        tracing::warn!(%error, "last_seen of a device was not written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn a_token_has_a_session_until_logout() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let session = world.users.session(&grant.access_token).await.unwrap();
            assert_eq!(session.user_id.as_str(), "@alice:example.org");
            assert_eq!(session.device_id, grant.device_id);
            assert!(!session.guest && !session.admin && !session.locked && !session.suspended);

            world.users.logout(&session).await.unwrap();
            let after = world.users.session(&grant.access_token).await;
            assert!(matches!(after, Err(SessionError::Unknown)), "{after:?}");
        });
    }

    #[test]
    fn foreign_tokens_are_unknown() {
        let world = World::new();
        for token in ["", "x", "myla_0000000000000000000000000000000000000000000"] {
            let found = world.run(world.users.session(token));
            assert!(matches!(found, Err(SessionError::Unknown)), "{token}");
        }
    }

    #[test]
    fn flags_set_here_or_on_another_node_reach_the_cache() {
        let world = World::new();
        let other = world.another_node();
        world.run(async {
            let grant = world.register("alice").await;
            let session = world.users.session(&grant.access_token).await.unwrap();
            other.users.session(&grant.access_token).await.unwrap();
            world.users.set_locked(session.user, true).await.unwrap();
            assert!(world.users.session(&grant.access_token).await.unwrap().locked);
            other.view.feed.caught_up().await;
            assert!(other.users.session(&grant.access_token).await.unwrap().locked);
        });
    }

    #[test]
    fn a_logout_on_another_node_and_a_restart_are_both_seen() {
        let world = World::new();
        let other = world.another_node();
        world.run(async {
            let grant = world.register("alice").await;
            let session = other.users.session(&grant.access_token).await.unwrap();
            world.users.logout(&session).await.unwrap();
            other.view.feed.caught_up().await;
            let there = other.users.session(&grant.access_token).await;
            assert!(matches!(there, Err(SessionError::Unknown)), "{there:?}");

            let kept = world.login("alice", "alice's password").await.unwrap();
            let restarted = world.another_node();
            assert!(restarted.users.session(&kept.access_token).await.is_ok());
        });
    }

    #[test]
    fn last_seen_is_written_once_per_interval() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let session = world.users.session(&grant.access_token).await.unwrap();
            let origin = |ip: &str| LoginOrigin { ip: Some(ip.to_owned()), user_agent: None };
            world.users.saw(&session, || unreachable!("seen at registration"));
            world.advance_ms(SEEN_INTERVAL_MS);
            let now_ms = world.users.now_ms();
            world.users.saw(&session, || origin("192.0.2.1"));
            world.users.saw(&session, || unreachable!("the interval has not passed"));
            world.sim.env().clock.sleep(std::time::Duration::from_millis(1)).await;
            let device = world.users.device(session.user, &session.device_id).await.unwrap().unwrap();
            assert_eq!((device.last_seen_ms, device.last_seen_ip.as_deref()), (now_ms, Some("192.0.2.1")));
        });
    }
}
