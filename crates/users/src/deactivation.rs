//! Deactivating an account (`POST /account/deactivate`). What concerns rooms follows in the background: see
//! [`crate::departure`].

use myelin_core::{RoomNid, UserNid};
use myelin_store::{
    Batch, Direction,
    log::LogEntry,
    tables::{
        ACCOUNT_DATA, ACCOUNTS, AccountRecord, DEPARTURES, ERASED_USERS, FILTERS, PROFILES, USER_STREAM,
    },
};

use crate::{Error, Users, transaction::transact};

/// Rows of account data, and of filters, deleted at most: more than limits let an account have.
const ROWS_MAX: usize = 100_000;

impl Users {
    /// Ends the account for ever: no password, no sessions; with `erase` no profile, account data and filters either.
    /// `false` if there is no such account. Idempotent.
    pub async fn deactivate(&self, user: UserNid, erase: bool) -> Result<bool, Error> {
        let found = transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let Some(account) = self.account_of(user).await? else { return Ok((batch, false)) };
            if account.deactivated && (account.erased || !erase) {
                return Ok((batch, true));
            }
            batch.require_equal(&ACCOUNTS, &user, &account);
            batch.put(&ACCOUNTS, &user, &deactivated(account, erase));
            self.delete_all_devices(&mut batch, user, None).await?;
            self.disown_threepids(&mut batch, user).await?;
            if erase {
                self.erase(&mut batch, user).await?;
            }
            batch.put(&DEPARTURES, &user, &());
            batch.log(&LogEntry::Account { user });
            Ok::<_, Error>((batch, true))
        })
        .await?;
        if found {
            self.delete_late_devices(user).await?;
        }
        self.sessions.forget(user);
        self.departures.notify();
        Ok(found)
    }

    /// A login may have been committed after the devices were read; none can be from here on.
    async fn delete_late_devices(&self, user: UserNid) -> Result<(), Error> {
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            self.delete_all_devices(&mut batch, user, None).await?;
            if !batch.is_empty() {
                batch.log(&LogEntry::Account { user });
            }
            Ok::<_, Error>((batch, ()))
        })
        .await
    }

    /// Adds the deletion of all that belongs to the user alone.
    async fn erase(&self, batch: &mut Batch, user: UserNid) -> Result<(), Error> {
        let (store, forward) = (&self.view.store, Direction::Forward);
        batch.put(&ERASED_USERS, &user, &());
        for (key, _) in store.scan(&PROFILES, &user, forward, ROWS_MAX).await? {
            batch.delete(&PROFILES, &key);
        }
        for (key, data) in store.scan(&ACCOUNT_DATA, &user, forward, ROWS_MAX).await? {
            batch.delete(&USER_STREAM, &(user, data.position));
            batch.delete(&ACCOUNT_DATA, &key);
            if key.1 == RoomNid::GLOBAL {
                batch.log(&LogEntry::AccountData { user, room: key.1, kind: key.2 });
            }
        }
        for (key, _) in store.scan(&FILTERS, &user, forward, ROWS_MAX).await? {
            batch.delete(&FILTERS, &key);
        }
        Ok(())
    }
}

fn deactivated(account: AccountRecord, erase: bool) -> AccountRecord {
    AccountRecord {
        password_hash: None,
        admin: false,
        locked: false,
        suspended: false,
        deactivated: true,
        erased: account.erased || erase,
        ..account
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SessionError, login::LoginError, registration::RegisterError, testing::World};

    #[test]
    fn a_deactivated_account_is_gone_for_ever() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let user = world.users.session(&grant.access_token).await.unwrap().user;
            let token = world.users.create_login_token(user).await.unwrap().token;
            assert!(world.users.deactivate(user, false).await.unwrap());
            assert!(world.users.deactivate(user, false).await.unwrap(), "idempotent");

            let session = world.users.session(&grant.access_token).await;
            assert!(matches!(session, Err(SessionError::Unknown)));
            let login = world.login("alice", "alice's password").await;
            assert!(matches!(login, Err(LoginError::Deactivated)));
            let by_token = world.users.login_with_token(&token, &crate::DeviceRequest::default()).await;
            assert!(matches!(by_token, Err(LoginError::Deactivated)));
            assert!(matches!(world.users.check_available("alice").await, Err(RegisterError::InUse)));
            assert!(world.users.devices(user).await.unwrap().is_empty());
            assert!(!world.users.deactivate(UserNid(999), false).await.unwrap());
        });
    }

    #[test]
    fn erasing_leaves_nothing_of_the_user_alone() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let user = world.users.session(&grant.access_token).await.unwrap().user;
            let content = serde_json::value::to_raw_value(&serde_json::json!({ "a": 1 })).unwrap();
            world.users.set_account_data(user, RoomNid::GLOBAL, "org.example", &content).await.unwrap();
            world.users.define_filter(user, &content).await.unwrap();
            world.users.deactivate(user, false).await.unwrap();
            assert!(world.users.profile(&grant.user_id).await.unwrap().is_some());
            assert!(!world.view.erased.contains(user).await.unwrap());

            world.users.deactivate(user, true).await.unwrap();
            world.view.feed.caught_up().await;
            assert!(world.view.erased.contains(user).await.unwrap());
            assert_eq!(world.users.profile(&grant.user_id).await.unwrap(), None);
            let data = world.users.account_data(user, RoomNid::GLOBAL, "org.example").await.unwrap();
            assert_eq!(data, None);
            let read = world.view.store.read();
            assert_eq!(read.all(&USER_STREAM, 9).await.unwrap().len(), 0);
            assert_eq!(read.all(&FILTERS, 9).await.unwrap().len(), 0);
        });
    }
}
