//! `POST /login`: passwords and login tokens.

use myelin_core::UserNid;
use myelin_store::{
    Batch,
    tables::{ACCOUNTS, LOGIN_TOKENS, LoginTokenRecord},
};
use ruma::{OwnedUserId, UserId};
use serde::Deserialize;

use crate::{
    Account, DeviceRequest, DeviceRequestError, Error, Grant, Users,
    token::{self, TokenHash},
    transaction::{expired_rows, transact},
};

/// A user identifier (Client-Server API, "Identifier types").
#[derive(Clone, Debug, Deserialize)]
pub struct Identifier {
    #[serde(rename = "type")]
    pub kind: String,
    pub user: Option<String>,
    /// Of an `m.id.thirdparty`.
    pub medium: Option<String>,
    pub address: Option<String>,
}

/// A name that nobody has: guessing at it takes as long as at any other.
const NOBODY: &str = "@";

/// A single-use token that logs a second device in.
#[derive(Clone, Debug)]
pub struct LoginToken {
    pub token: String,
    pub expires_in_ms: u64,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum LoginError {
    /// No such user, wrong password, and unknown token are one: nobody learns who has an account here.
    #[error("the username or the password is wrong")]
    WrongCredentials,
    #[error("the login token is not valid (any more)")]
    LoginToken,
    #[error("the account is deactivated")]
    Deactivated,
    #[error("the account is locked")]
    Locked,
    #[error(transparent)]
    Device(DeviceRequestError),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<myelin_store::Error> for LoginError {
    fn from(error: myelin_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<DeviceRequestError> for LoginError {
    fn from(error: DeviceRequestError) -> Self {
        match error {
            DeviceRequestError::Failed(error) => Self::Failed(error),
            refused => Self::Device(refused),
        }
    }
}

/// What a login stands on, looked at again in its commit.
enum Guard {
    /// The hash that was verified; the password may have been changed meanwhile.
    Password(Option<String>),
    LoginToken(TokenHash),
}

impl Users {
    /// `name` is a user id or a localpart. It takes as long for a user who does not exist.
    pub async fn login_with_password(
        &self,
        name: &str,
        password: &str,
        device: &DeviceRequest,
    ) -> Result<Grant, LoginError> {
        let account = self.named_account(name).await?;
        let hash = account.as_ref().and_then(|a| a.record.password_hash.clone());
        let verified = self.passwords.verify(hash.clone(), password).await?;
        let account = account.ok_or(LoginError::WrongCredentials)?;
        match (verified, account.record.deactivated) {
            (true, _) => {}
            // No password is right any more; that the name is spoken for is no secret.
            (false, true) => return Err(LoginError::Deactivated),
            (false, false) => return Err(LoginError::WrongCredentials),
        }
        self.log_in(account.user, account.user_id, device, Guard::Password(hash)).await
    }

    /// Of concurrent logins with one token one succeeds.
    pub async fn login_with_token(
        &self,
        login_token: &str,
        device: &DeviceRequest,
    ) -> Result<Grant, LoginError> {
        let key = token::expiring_key(login_token).ok_or(LoginError::LoginToken)?;
        let record = self.load_login_token(&key).await?;
        let user_id = self.view.interner.user_id(record.user).await.map_err(Error::from)?;
        self.log_in(record.user, user_id, device, Guard::LoginToken(key)).await
    }

    /// A token with which another device can log in (`POST /login/get_token`).
    pub async fn create_login_token(&self, user: UserNid) -> Result<LoginToken, Error> {
        let (now_ms, expires_in_ms) = (self.now_ms(), self.config.login_token_lifetime_ms);
        let expires_ms = now_ms + expires_in_ms;
        let token = token::make_expiring(&self.view.env, token::LOGIN, expires_ms);
        let key = token::expiring_key(&token).unwrap_or_else(|| token::hash(&token));
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            for expired in expired_rows(&self.view.store, &LOGIN_TOKENS, now_ms).await? {
                batch.delete(&LOGIN_TOKENS, &expired);
            }
            batch.put(&LOGIN_TOKENS, &key, &LoginTokenRecord { user, expires_ms });
            Ok::<_, Error>((batch, ()))
        })
        .await?;
        Ok(LoginToken { token, expires_in_ms })
    }

    /// The name of the account that an identifier stands for; `None` if it names nothing.
    pub async fn identified(&self, identifier: &Identifier) -> Result<Option<String>, Error> {
        match (identifier.kind.as_str(), &identifier.medium, &identifier.address) {
            ("m.id.user", ..) => Ok(identifier.user.clone()),
            ("m.id.thirdparty", Some(medium), Some(address)) => {
                Ok(Some(match self.threepid_owner(medium, address).await? {
                    Some(owner) => self.view.interner.user_id(owner).await.map_err(Error::from)?.to_string(),
                    None => NOBODY.to_owned(),
                }))
            }
            ("m.id.phone", ..) => Ok(Some(NOBODY.to_owned())),
            _ => Ok(None),
        }
    }

    /// The account that somebody means who types `name`; a localpart is tried as it is and in small letters.
    pub async fn named_account(&self, name: &str) -> Result<Option<Account>, Error> {
        let Some(user_id) = self.named_user_id(name) else { return Ok(None) };
        if let Some(account) = self.account(&user_id).await? {
            return Ok(Some(account));
        }
        match UserId::parse(user_id.as_str().to_ascii_lowercase()) {
            Ok(lowercase) if lowercase != user_id => self.account(&lowercase).await,
            _ => Ok(None),
        }
    }

    fn named_user_id(&self, name: &str) -> Option<OwnedUserId> {
        match name.starts_with('@') {
            true => UserId::parse(name).ok(),
            false => UserId::parse(format!("@{name}:{}", self.view.server_name)).ok(),
        }
    }

    /// Commits a login if what `guard` says still holds.
    async fn log_in(
        &self,
        user: UserNid,
        user_id: OwnedUserId,
        device: &DeviceRequest,
        guard: Guard,
    ) -> Result<Grant, LoginError> {
        let grant = transact(&self.view.store, || async {
            let account = self.account_of(user).await?.ok_or(LoginError::WrongCredentials)?;
            if account.deactivated {
                return Err(LoginError::Deactivated);
            }
            if account.locked {
                return Err(LoginError::Locked);
            }
            let mut batch = Batch::new();
            batch.require_equal(&ACCOUNTS, &user, &account);
            match &guard {
                Guard::Password(hash) if *hash != account.password_hash => {
                    return Err(LoginError::WrongCredentials);
                }
                Guard::Password(_) => {}
                Guard::LoginToken(key) => self.use_login_token(&mut batch, key).await?,
            }
            let grant = self.grant(&mut batch, user, user_id.clone(), device).await?;
            Ok((batch, grant))
        })
        .await?;
        self.sessions.forget(user);
        Ok(grant)
    }

    async fn use_login_token(&self, batch: &mut Batch, key: &TokenHash) -> Result<(), LoginError> {
        let current = self.load_login_token(key).await?;
        batch.require_equal(&LOGIN_TOKENS, key, &current);
        batch.delete(&LOGIN_TOKENS, key);
        Ok(())
    }

    async fn load_login_token(&self, key: &TokenHash) -> Result<LoginTokenRecord, LoginError> {
        let record = self.view.store.get(&LOGIN_TOKENS, key).await?;
        record.filter(|r| r.expires_ms > self.now_ms()).ok_or(LoginError::LoginToken)
    }
}

#[cfg(test)]
impl crate::testing::World {
    pub async fn login(&self, name: &str, password: &str) -> Result<Grant, LoginError> {
        self.users.login_with_password(name, password, &DeviceRequest::default()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SessionError, testing::World};

    fn on_device(device_id: &str) -> DeviceRequest {
        DeviceRequest { device_id: Some(device_id.to_owned()), ..DeviceRequest::default() }
    }

    #[test]
    fn names_that_log_in() {
        let world = World::new();
        world.run(async {
            world.register("alice").await;
            for name in ["alice", "Alice", "@alice:example.org", "@ALICE:example.org"] {
                let grant = world.login(name, "alice's password").await.unwrap();
                assert_eq!(grant.user_id.as_str(), "@alice:example.org");
            }
        });
    }

    #[test]
    fn an_unknown_user_and_a_wrong_password_are_the_same() {
        let world = World::new();
        world.run(async {
            world.register("alice").await;
            for (name, password) in [
                ("alice", "wrong"),
                ("nobody", "alice's password"),
                ("@alice:elsewhere.org", "alice's password"),
                ("", ""),
                ("@", "x"),
                ("a\0b", "x"),
            ] {
                let refused = world.login(name, password).await;
                assert!(matches!(refused, Err(LoginError::WrongCredentials)), "{name}");
            }
        });
    }

    #[test]
    fn a_device_that_logs_in_again_loses_its_old_token() {
        let world = World::new();
        world.run(async {
            world.register("alice").await;
            let login = async |device: DeviceRequest| {
                world.users.login_with_password("alice", "alice's password", &device).await.unwrap()
            };
            let named =
                DeviceRequest { initial_display_name: Some("phone".to_owned()), ..on_device("PHONE") };
            let first = login(named).await;
            world.users.session(&first.access_token).await.unwrap();
            let renamed =
                DeviceRequest { initial_display_name: Some("other".to_owned()), ..on_device("PHONE") };
            let second = login(renamed).await;
            assert!(matches!(world.users.session(&first.access_token).await, Err(SessionError::Unknown)));
            let session = world.users.session(&second.access_token).await.unwrap();
            assert_eq!(world.users.devices(session.user).await.unwrap().len(), 2);
            let device = world.users.device(session.user, "PHONE").await.unwrap().unwrap();
            assert_eq!(device.display_name.as_deref(), Some("phone"));
        });
    }

    #[test]
    fn refused_devices() {
        let world = World::new();
        world.run(async {
            world.register("alice").await;
            let long = "x".repeat(256);
            let named =
                DeviceRequest { initial_display_name: Some(long.clone()), ..DeviceRequest::default() };
            for device in [on_device(""), on_device(&long), named] {
                let refused = world.users.login_with_password("alice", "alice's password", &device).await;
                assert!(matches!(refused, Err(LoginError::Device(_))), "{refused:?}");
            }
        });
    }

    #[test]
    fn locked_accounts_do_not_log_in() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let user = world.users.session(&grant.access_token).await.unwrap().user;
            world.users.set_locked(user, true).await.unwrap();
            let refused = world.login("alice", "alice's password").await;
            assert!(matches!(refused, Err(LoginError::Locked)));
            world.users.set_locked(user, false).await.unwrap();
            assert!(world.login("alice", "alice's password").await.is_ok());
        });
    }

    #[test]
    fn of_two_logins_with_one_token_one_succeeds() {
        let world = World::interleaved();
        world.run(async {
            let grant = world.register("alice").await;
            let user = world.users.session(&grant.access_token).await.unwrap().user;
            let made = world.users.create_login_token(user).await.unwrap();
            let device = DeviceRequest::default();
            let login = || world.users.login_with_token(&made.token, &device);
            let (one, two) = futures::join!(login(), login());
            assert_eq!(u8::from(one.is_ok()) + u8::from(two.is_ok()), 1, "{one:?} {two:?}");
            assert_eq!(world.users.devices(user).await.unwrap().len(), 2);
        });
    }

    #[test]
    fn two_logins_of_one_device_leave_one_live_token() {
        let world = World::interleaved();
        world.run(async {
            world.register("alice").await;
            world.advance_ms(1);
            let device = on_device("PHONE");
            let login = || world.users.login_with_password("alice", "alice's password", &device);
            let (one, two) = futures::join!(login(), login());
            let mut live = 0;
            for grant in [one.unwrap(), two.unwrap()] {
                live += u8::from(world.users.session(&grant.access_token).await.is_ok());
            }
            assert_eq!(live, 1);
        });
    }

    #[test]
    fn a_login_does_not_outlive_a_deactivation_that_it_raced_with() {
        let world = World::interleaved();
        world.run(async {
            let grant = world.register("alice").await;
            let user = world.users.session(&grant.access_token).await.unwrap().user;
            let device = DeviceRequest::default();
            let login = world.users.login_with_password("alice", "alice's password", &device);
            let (login, _) = futures::join!(login, world.users.deactivate(user, false));
            if let Ok(grant) = login {
                assert!(world.users.session(&grant.access_token).await.is_err());
            }
            assert!(world.users.devices(user).await.unwrap().is_empty());
        });
    }

    #[test]
    fn a_login_token_is_good_once_and_not_for_long() {
        let world = World::new();
        world.run(async {
            let grant = world.register("alice").await;
            let user = world.users.session(&grant.access_token).await.unwrap().user;
            let device = DeviceRequest::default();
            let made = world.users.create_login_token(user).await.unwrap();
            let second = world.users.login_with_token(&made.token, &device).await.unwrap();
            assert_eq!(second.user_id, grant.user_id);
            let again = world.users.login_with_token(&made.token, &device).await;
            assert!(matches!(again, Err(LoginError::LoginToken)));

            let late = world.users.create_login_token(user).await.unwrap();
            world.advance_ms(late.expires_in_ms);
            let refused = world.users.login_with_token(&late.token, &device).await;
            assert!(matches!(refused, Err(LoginError::LoginToken)));
            let foreign = world.users.login_with_token("myll_x", &device).await;
            assert!(matches!(foreign, Err(LoginError::LoginToken)));
            world.users.create_login_token(user).await.unwrap();
            let rows = world.view.store.read().all(&LOGIN_TOKENS, 10).await.unwrap();
            assert_eq!(rows.len(), 1, "expired rows are swept");
        });
    }
}
