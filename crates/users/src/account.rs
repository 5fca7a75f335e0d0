//! Accounts and their flags.

use myelin_core::UserNid;
use myelin_store::{
    Batch, Direction,
    log::LogEntry,
    tables::{ACCOUNTS, AccountRecord},
};
use ruma::{OwnedUserId, UserId};

use crate::{Error, PasswordError, Session, Users, password, transaction::transact};

/// An account and its record.
#[derive(Clone, Debug)]
pub struct Account {
    pub user: UserNid,
    pub user_id: OwnedUserId,
    pub record: AccountRecord,
}

/// One line of a list of accounts.
#[derive(Clone, Debug)]
pub struct AccountSummary {
    pub user: UserNid,
    pub user_id: OwnedUserId,
    pub record: AccountRecord,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum SetPasswordError {
    #[error("there is no such account, or it is deactivated")]
    NoAccount,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Why an administrator may not lock or suspend somebody.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ModerationError {
    #[error("only server administrators may do this")]
    NotAdmin,
    #[error("you cannot do this to your own account")]
    Oneself,
    #[error("you cannot do this to another administrator")]
    OtherAdmin,
    #[error("there is no such account")]
    NoAccount,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Users {
    /// The account of a local user, deactivated ones included.
    pub async fn account(&self, user_id: &UserId) -> Result<Option<Account>, Error> {
        if !self.view.is_local(user_id) {
            return Ok(None);
        }
        let Some(user) = self.view.interner.lookup_user(user_id).await? else { return Ok(None) };
        let record = self.view.store.get(&ACCOUNTS, &user).await?;
        Ok(record.map(|record| Account { user, user_id: user_id.to_owned(), record }))
    }

    pub async fn account_of(&self, user: UserNid) -> Result<Option<AccountRecord>, Error> {
        Ok(self.view.store.get(&ACCOUNTS, &user).await?)
    }

    /// At most `limit` accounts in order of creation, after `after`.
    pub async fn accounts(&self, after: Option<UserNid>, limit: usize) -> Result<Vec<AccountSummary>, Error> {
        let from = UserNid(after.map_or(0, |user| user.0.saturating_add(1)));
        let end = UserNid(u64::MAX);
        let rows = self.view.store.range(&ACCOUNTS, &from, &end, Direction::Forward, limit).await?;
        let mut accounts = Vec::with_capacity(rows.len());
        for (user, record) in rows {
            accounts.push(AccountSummary { user, user_id: self.view.interner.user_id(user).await?, record });
        }
        Ok(accounts)
    }

    /// `false` if there is no such account. Sessions stay: a locked account gets them back when it is unlocked.
    pub async fn set_locked(&self, user: UserNid, locked: bool) -> Result<bool, Error> {
        self.update_account(user, |account| account.locked = locked).await
    }

    pub async fn set_suspended(&self, user: UserNid, suspended: bool) -> Result<bool, Error> {
        self.update_account(user, |account| account.suspended = suspended).await
    }

    pub async fn set_admin(&self, user: UserNid, admin: bool) -> Result<bool, Error> {
        self.update_account(user, |account| account.admin = admin).await
    }

    /// Whom `actor` may lock or suspend: everybody but administrators (Server Administration).
    pub async fn may_moderate(&self, actor: &Session, target: &UserId) -> Result<Account, ModerationError> {
        if !actor.admin {
            return Err(ModerationError::NotAdmin);
        }
        if actor.user_id == *target {
            return Err(ModerationError::Oneself);
        }
        let account = self.account(target).await?.filter(|a| !a.record.deactivated);
        let account = account.ok_or(ModerationError::NoAccount)?;
        if account.record.admin { Err(ModerationError::OtherAdmin) } else { Ok(account) }
    }

    /// Whether this is the password of the account; `false` for accounts without one.
    pub async fn verify_password(&self, user: UserNid, password: &str) -> Result<bool, Error> {
        let account = self.account_of(user).await?.filter(|a| !a.deactivated);
        self.passwords.verify(account.and_then(|a| a.password_hash), password).await
    }

    /// Sets a password. With `logout_devices` every device but `keep_device` is logged out in the same commit.
    /// Whether this may be a password.
    pub fn check_password(&self, new_password: &str) -> Result<(), SetPasswordError> {
        Ok(password::check_new(new_password, self.config.password_size_min)?)
    }

    pub async fn set_password(
        &self,
        user: UserNid,
        new_password: &str,
        logout_devices: bool,
        keep_device: Option<&str>,
    ) -> Result<(), SetPasswordError> {
        password::check_new(new_password, self.config.password_size_min)?;
        let hash = self.passwords.hash(new_password).await?;
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let account = self.account_of(user).await?.filter(|a| !a.deactivated);
            let account = account.ok_or(SetPasswordError::NoAccount)?;
            batch.require_equal(&ACCOUNTS, &user, &account);
            batch.put(&ACCOUNTS, &user, &AccountRecord { password_hash: Some(hash.clone()), ..account });
            if logout_devices {
                self.delete_all_devices(&mut batch, user, keep_device).await?;
            }
            batch.log(&LogEntry::Account { user });
            Ok::<_, SetPasswordError>((batch, ()))
        })
        .await?;
        self.sessions.forget(user);
        Ok(())
    }

    async fn update_account(
        &self,
        user: UserNid,
        change: impl Fn(&mut AccountRecord),
    ) -> Result<bool, Error> {
        let found = transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let Some(account) = self.account_of(user).await? else { return Ok((batch, false)) };
            let mut changed = account.clone();
            change(&mut changed);
            if changed != account {
                batch.require_equal(&ACCOUNTS, &user, &account);
                batch.put(&ACCOUNTS, &user, &changed);
                batch.log(&LogEntry::Account { user });
            }
            Ok::<_, Error>((batch, true))
        })
        .await?;
        self.sessions.forget(user);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SessionError, testing::World};

    #[test]
    fn who_may_moderate_whom() {
        let world = World::new();
        world.run(async {
            let (alice, bob) = (world.register("alice").await, world.register("bob").await);
            let session = world.users.session(&alice.access_token).await.unwrap();
            let refused = world.users.may_moderate(&session, &bob.user_id).await;
            assert!(matches!(refused, Err(ModerationError::NotAdmin)));

            world.users.set_admin(session.user, true).await.unwrap();
            let session = world.users.session(&alice.access_token).await.unwrap();
            let target = world.users.may_moderate(&session, &bob.user_id).await.unwrap();
            assert_eq!(target.user_id, bob.user_id);
            let refused = world.users.may_moderate(&session, &alice.user_id).await;
            assert!(matches!(refused, Err(ModerationError::Oneself)));
            let nobody = ruma::user_id!("@nobody:example.org");
            let refused = world.users.may_moderate(&session, nobody).await;
            assert!(matches!(refused, Err(ModerationError::NoAccount)));
            world.users.set_admin(target.user, true).await.unwrap();
            let refused = world.users.may_moderate(&session, &bob.user_id).await;
            assert!(matches!(refused, Err(ModerationError::OtherAdmin)));
        });
    }

    #[test]
    fn a_new_password_logs_the_other_devices_out() {
        let world = World::new();
        world.run(async {
            let first = world.register("alice").await;
            let session = world.users.session(&first.access_token).await.unwrap();
            let second = world.login("alice", "alice's password").await.unwrap();
            let keep = Some(session.device_id.as_str());
            world.users.set_password(session.user, "new", true, keep).await.unwrap();
            assert!(world.users.session(&first.access_token).await.is_ok());
            let gone = world.users.session(&second.access_token).await;
            assert!(matches!(gone, Err(SessionError::Unknown)));
            assert!(world.login("alice", "alice's password").await.is_err());
            let third = world.login("alice", "new").await.unwrap();
            world.users.set_password(session.user, "newer", false, None).await.unwrap();
            assert!(world.users.session(&third.access_token).await.is_ok());
        });
    }

    #[test]
    fn accounts_are_listed_in_pages() {
        let world = World::new();
        world.run(async {
            for name in ["a", "b", "c"] {
                world.register(name).await;
            }
            let first = world.users.accounts(None, 2).await.unwrap();
            let second = world.users.accounts(first.last().map(|a| a.user), 2).await.unwrap();
            let ids: Vec<_> = first.iter().chain(&second).map(|a| a.user_id.to_string()).collect();
            assert_eq!(ids, ["@a:example.org", "@b:example.org", "@c:example.org"]);
        });
    }
}
