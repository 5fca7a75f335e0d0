//! `POST /refresh`: a refresh token for a new pair. The old pair stays valid until one of the new tokens is used (see
//! `Users::confirm_refresh`), so a client that never got the answer can ask again.

use myelin_core::UserNid;
use myelin_store::{
    Batch,
    log::LogEntry,
    tables::{ACCOUNTS, DEVICES, REFRESH_TOKENS, RefreshTokenRecord},
};

use crate::{
    Error, Grant, Users,
    token::{self, TokenHash},
    transaction::transact,
};

#[derive(Debug, Clone, thiserror::Error)]
pub enum RefreshError {
    #[error("the refresh token is not known, or its successor was used")]
    Unknown,
    /// Soft logout.
    #[error("the refresh token has expired")]
    Expired,
    #[error("the account is locked")]
    Locked,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<myelin_store::Error> for RefreshError {
    fn from(error: myelin_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Users {
    pub async fn refresh(&self, refresh_token: &str) -> Result<Grant, RefreshError> {
        let hash = token::hash(refresh_token);
        let (user, grant) = transact(&self.view.store, || async {
            let current = self.load_refresh_token(&hash).await?;
            let mut batch = Batch::new();
            self.require_live(&mut batch, &current).await?;
            let grant = self.exchange(&mut batch, hash, &current).await?;
            Ok::<_, RefreshError>((batch, (current.user, grant)))
        })
        .await?;
        self.sessions.forget(user);
        Ok(grant)
    }

    async fn load_refresh_token(&self, hash: &TokenHash) -> Result<RefreshTokenRecord, RefreshError> {
        let record = self.view.store.get(&REFRESH_TOKENS, hash).await?.ok_or(RefreshError::Unknown)?;
        match record.expires_ms {
            Some(expires_ms) if expires_ms <= self.now_ms() => Err(RefreshError::Expired),
            _ => Ok(record),
        }
    }

    /// The device and the account are there, and stay until the commit.
    async fn require_live(
        &self,
        batch: &mut Batch,
        token: &RefreshTokenRecord,
    ) -> Result<UserNid, RefreshError> {
        let account = self.account_of(token.user).await?.filter(|a| !a.deactivated);
        let account = account.ok_or(RefreshError::Unknown)?;
        if account.locked {
            return Err(RefreshError::Locked);
        }
        let device_key = (token.user, token.device_id.clone());
        let device = self.view.store.get(&DEVICES, &device_key).await?.ok_or(RefreshError::Unknown)?;
        batch.require_equal(&ACCOUNTS, &token.user, &account);
        batch.require_equal(&DEVICES, &device_key, &device);
        Ok(token.user)
    }

    async fn exchange(
        &self,
        batch: &mut Batch,
        hash: TokenHash,
        current: &RefreshTokenRecord,
    ) -> Result<Grant, Error> {
        batch.require_equal(&REFRESH_TOKENS, &hash, current);
        // A successor that exists was never used (else this token would be gone): its answer got lost. The predecessor
        // is revoked by this use.
        for revoked in [current.successor, current.predecessor].into_iter().flatten() {
            self.revoke_pair(batch, revoked).await?;
            batch.log(&LogEntry::Account { user: current.user });
        }
        let tokens = self.put_tokens(batch, current.user, &current.device_id, true, Some(hash));
        let successor = tokens.refresh_token.as_ref().map(|(_, hash)| *hash);
        let exchanged = RefreshTokenRecord { successor, predecessor: None, ..current.clone() };
        batch.put(&REFRESH_TOKENS, &hash, &exchanged);
        Ok(Grant {
            user_id: self.view.interner.user_id(current.user).await?,
            device_id: current.device_id.clone(),
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token.map(|(token, _)| token),
            expires_in_ms: tokens.expires_in_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceRequest, SessionError, testing::World};

    async fn refreshable(world: &World) -> Grant {
        world.register("alice").await;
        let device = DeviceRequest { refresh: true, ..DeviceRequest::default() };
        world.users.login_with_password("alice", "alice's password", &device).await.unwrap()
    }

    async fn is_live(world: &World, access_token: &str) -> bool {
        world.users.session(access_token).await.is_ok()
    }

    fn refresh_token(grant: &Grant) -> &str {
        grant.refresh_token.as_deref().unwrap()
    }

    #[test]
    fn an_expired_access_token_is_a_soft_logout_and_is_refreshed() {
        let world = World::new();
        world.run(async {
            let first = refreshable(&world).await;
            assert_eq!(first.expires_in_ms, Some(300_000));
            assert!(is_live(&world, &first.access_token).await);
            world.advance_ms(300_000);
            let expired = world.users.session(&first.access_token).await;
            assert!(matches!(expired, Err(SessionError::Expired)));
            let second = world.users.refresh(refresh_token(&first)).await.unwrap();
            assert_eq!(second.device_id, first.device_id);
            assert!(is_live(&world, &second.access_token).await);
        });
    }

    #[test]
    fn the_old_pair_is_valid_until_the_new_one_is_used() {
        let world = World::new();
        world.run(async {
            let first = refreshable(&world).await;
            let lost = world.users.refresh(refresh_token(&first)).await.unwrap();
            assert!(is_live(&world, &first.access_token).await);
            let second = world.users.refresh(refresh_token(&first)).await.unwrap();
            assert!(!is_live(&world, &lost.access_token).await, "its answer was lost");

            assert!(is_live(&world, &second.access_token).await);
            assert!(!is_live(&world, &first.access_token).await);
            let refused = world.users.refresh(refresh_token(&first)).await;
            assert!(matches!(refused, Err(RefreshError::Unknown)));
        });
    }

    #[test]
    fn of_two_refreshes_at_once_the_later_pair_is_live() {
        let world = World::interleaved();
        world.run(async {
            let first = refreshable(&world).await;
            let refresh = || world.users.refresh(refresh_token(&first));
            let (one, two) = futures::join!(refresh(), refresh());
            let mut live = 0;
            for grant in [one.unwrap(), two.unwrap()] {
                live += u8::from(is_live(&world, &grant.access_token).await);
            }
            assert_eq!(live, 1);
        });
    }

    #[test]
    fn using_the_new_refresh_token_revokes_the_old_one_too() {
        let world = World::new();
        world.run(async {
            let first = refreshable(&world).await;
            let second = world.users.refresh(refresh_token(&first)).await.unwrap();
            let third = world.users.refresh(refresh_token(&second)).await.unwrap();
            assert!(world.users.refresh(refresh_token(&first)).await.is_err());
            assert!(is_live(&world, &third.access_token).await);
        });
    }

    #[test]
    fn refused_refreshes() {
        let world = World::with(|config| config.refresh_token_lifetime_ms = Some(1_000_000));
        world.run(async {
            let first = refreshable(&world).await;
            let session = world.users.session(&first.access_token).await.unwrap();
            let unknown = world.users.refresh("mylr_x").await;
            assert!(matches!(unknown, Err(RefreshError::Unknown)));
            world.users.set_locked(session.user, true).await.unwrap();
            let locked = world.users.refresh(refresh_token(&first)).await;
            assert!(matches!(locked, Err(RefreshError::Locked)));
            world.users.set_locked(session.user, false).await.unwrap();
            world.advance_ms(1_000_000);
            let expired = world.users.refresh(refresh_token(&first)).await;
            assert!(matches!(expired, Err(RefreshError::Expired)));
            world.users.logout(&session).await.unwrap();
            let gone = world.users.refresh(refresh_token(&first)).await;
            assert!(matches!(gone, Err(RefreshError::Unknown)));
        });
    }
}
