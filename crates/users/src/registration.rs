//! Making accounts (`POST /register`), in one commit: the account, its profile, its first session, the use of its
//! registration token.

use myelin_core::UserNid;
use myelin_store::{
    Batch,
    log::LogEntry,
    tables::{
        ACCOUNTS, AccountKind, AccountRecord, PROFILES, ProfileFieldRecord, UIA_SESSIONS, ValidationPurpose,
    },
};
use ruma::{OwnedUserId, UserId};

use crate::{
    DeviceRequest, DeviceRequestError, Error, Grant, PasswordError, UsernameError, Users, password,
    profile::DISPLAYNAME, transaction::transact, uia::Proof, username, validation::ValidationError,
};

/// What is to be registered.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// `None`: a name is made up.
    pub username: Option<String>,
    /// `None`: the account cannot log in with a password.
    pub password: Option<String>,
    /// `None`: the localpart.
    pub display_name: Option<String>,
    pub admin: bool,
    /// `None` (`inhibit_login`): no session.
    pub login: Option<DeviceRequest>,
    /// The guest who becomes this user; the username has to be the guest's then.
    pub guest: Option<UserNid>,
    /// What user-interactive authentication ended with.
    pub proof: Proof,
}

#[derive(Clone, Debug)]
pub struct Registered {
    pub user_id: OwnedUserId,
    pub grant: Option<Grant>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum RegisterError {
    #[error(transparent)]
    InvalidUsername(#[from] UsernameError),
    #[error("this username is taken")]
    InUse,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("the registration token is not valid (any more)")]
    RegistrationToken,
    #[error("this e-mail address belongs to an account already")]
    EmailInUse,
    #[error("the e-mail address has not been validated, or was used by another request")]
    EmailNotValidated,
    #[error("guests are not allowed on this server")]
    GuestsDisabled,
    #[error("this is not the access token and the username of a guest")]
    NotThatGuest,
    #[error(transparent)]
    Device(DeviceRequestError),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<myelin_store::Error> for RegisterError {
    fn from(error: myelin_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ValidationError> for RegisterError {
    fn from(error: ValidationError) -> Self {
        match error {
            ValidationError::Failed(error) => Self::Failed(error),
            ValidationError::InUse => Self::EmailInUse,
            _ => Self::EmailNotValidated,
        }
    }
}

impl From<DeviceRequestError> for RegisterError {
    fn from(error: DeviceRequestError) -> Self {
        match error {
            DeviceRequestError::Failed(error) => Self::Failed(error),
            refused => Self::Device(refused),
        }
    }
}

impl Users {
    /// Whether a username is valid and free (`GET /register/available`).
    pub async fn check_available(&self, username: &str) -> Result<OwnedUserId, RegisterError> {
        let user_id = username::parse_username(username, &self.view.server_name)?;
        match self.account(&user_id).await? {
            Some(_) => Err(RegisterError::InUse),
            None => Ok(user_id),
        }
    }

    /// Everything that can be said of a registration before authentication.
    pub async fn check_registration(&self, registration: &Registration) -> Result<(), RegisterError> {
        match (registration.guest, &registration.username) {
            (Some(guest), username) => drop(self.guest_user_id(guest, username.as_deref()).await?),
            (None, Some(username)) => drop(self.check_available(username).await?),
            (None, None) => {}
        }
        if let Some(password) = &registration.password {
            password::check_new(password, self.config.password_size_min)?;
        }
        Ok(())
    }

    pub async fn register(&self, registration: &Registration) -> Result<Registered, RegisterError> {
        self.check_registration(registration).await?;
        let user_id = match (registration.guest, &registration.username) {
            (Some(guest), username) => self.guest_user_id(guest, username.as_deref()).await?,
            (None, Some(username)) => username::parse_username(username, &self.view.server_name)?,
            (None, None) => self.made_up_user_id()?,
        };
        let password_hash = match &registration.password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let account = AccountRecord { password_hash, admin: registration.admin, ..self.new_account() };
        self.create(user_id, account, registration).await
    }

    /// A guest (`POST /register?kind=guest`): a made-up name, no password. The server picks the device id.
    pub async fn register_guest(&self, device: DeviceRequest) -> Result<Registered, RegisterError> {
        if !self.config.guests {
            return Err(RegisterError::GuestsDisabled);
        }
        let user_id = self.made_up_guest_id()?;
        let account = AccountRecord { kind: AccountKind::Guest, ..self.new_account() };
        let login = Some(DeviceRequest { device_id: None, ..device });
        self.create(user_id, account, &Registration { login, ..Registration::default() }).await
    }

    async fn create(
        &self,
        user_id: OwnedUserId,
        account: AccountRecord,
        registration: &Registration,
    ) -> Result<Registered, RegisterError> {
        let user = self.view.interner.user(&user_id).await.map_err(Error::from)?;
        let registered = transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let old = self.account_of(user).await?;
            let account = match (&old, registration.guest) {
                (None, None) => account.clone(),
                (Some(old), Some(_)) if old.kind == AccountKind::Guest => upgraded(old, &account),
                _ => return Err(RegisterError::InUse),
            };
            batch.require_unchanged(&ACCOUNTS, &user, old.as_ref());
            batch.put(&ACCOUNTS, &user, &account);
            batch.log(&LogEntry::Profile { user });
            batch.log(&LogEntry::Account { user });
            if account.kind == AccountKind::User && old.is_none() {
                put_display_name(&mut batch, user, &user_id, registration.display_name.as_deref());
            }
            self.consume(&mut batch, user, &registration.proof).await?;
            let grant = match &registration.login {
                Some(device) => Some(self.grant(&mut batch, user, user_id.clone(), device).await?),
                None => None,
            };
            Ok((batch, Registered { user_id: user_id.clone(), grant }))
        })
        .await?;
        self.sessions.forget(user);
        Ok(registered)
    }

    async fn guest_user_id(
        &self,
        guest: UserNid,
        username: Option<&str>,
    ) -> Result<OwnedUserId, RegisterError> {
        let user_id = self.view.interner.user_id(guest).await.map_err(Error::from)?;
        let account = self.account_of(guest).await?;
        let is_guest = account.is_some_and(|a| a.kind == AccountKind::Guest && !a.deactivated);
        if is_guest && username == Some(user_id.localpart()) {
            Ok(user_id)
        } else {
            Err(RegisterError::NotThatGuest)
        }
    }

    /// Adds the use of what the registration was authenticated with.
    async fn consume(&self, batch: &mut Batch, user: UserNid, proof: &Proof) -> Result<(), RegisterError> {
        if let Some(sid) = &proof.email_session {
            self.own_validated(batch, user, ValidationPurpose::Register, sid).await?;
        }
        if let Some(session) = &proof.session {
            batch.delete(&UIA_SESSIONS, session);
        }
        match &proof.registration_token {
            Some(token) => self.use_registration_token(batch, token).await,
            None => Ok(()),
        }
    }

    fn new_account(&self) -> AccountRecord {
        AccountRecord {
            password_hash: None,
            created_ms: self.now_ms(),
            kind: AccountKind::User,
            admin: false,
            locked: false,
            suspended: false,
            deactivated: false,
            erased: false,
        }
    }

    /// Digits only, which no user can choose.
    fn made_up_guest_id(&self) -> Result<OwnedUserId, RegisterError> {
        let mut bytes = [0; 8];
        self.view.env.rng.fill(&mut bytes);
        let localpart = format!("{:016}", u64::from_be_bytes(bytes) % 10_u64.pow(16));
        Ok(username::user_id(&localpart, &self.view.server_name)?)
    }

    /// Letters first, and 60 bits do not collide.
    fn made_up_user_id(&self) -> Result<OwnedUserId, RegisterError> {
        let localpart = format!("u{}", self.view.env.random_string(12).to_ascii_lowercase());
        Ok(username::user_id(&localpart, &self.view.server_name)?)
    }
}

/// A guest's account as that of a user.
fn upgraded(guest: &AccountRecord, user: &AccountRecord) -> AccountRecord {
    AccountRecord { password_hash: user.password_hash.clone(), kind: AccountKind::User, ..guest.clone() }
}

fn put_display_name(batch: &mut Batch, user: UserNid, user_id: &UserId, name: Option<&str>) {
    let json = serde_json::Value::from(name.unwrap_or(user_id.localpart())).to_string();
    batch.put(&PROFILES, &(user, DISPLAYNAME.to_owned()), &ProfileFieldRecord { json });
}

#[cfg(test)]
mod tests {
    use myelin_store::memory::Fault;

    use super::*;
    use crate::testing::World;

    fn named(username: &str) -> Registration {
        Registration { username: Some(username.to_owned()), ..Registration::default() }
    }

    #[test]
    fn a_registration_makes_an_account_with_a_profile_and_a_session() {
        let world = World::new();
        world.run(async {
            let grant = world.register("Alice").await;
            assert_eq!(grant.user_id.as_str(), "@alice:example.org");
            let profile = world.users.profile(&grant.user_id).await.unwrap().unwrap();
            assert_eq!(serde_json::Value::Object(profile), serde_json::json!({ "displayname": "alice" }));
            assert_eq!((grant.refresh_token, grant.expires_in_ms), (None, None));
            let account = world.users.account(&grant.user_id).await.unwrap().unwrap().record;
            assert_eq!((account.admin, account.kind), (false, AccountKind::User));
        });
    }

    #[test]
    fn a_name_is_given_once() {
        let world = World::new();
        world.run(async {
            world.users.register(&named("alice")).await.unwrap();
            for taken in ["alice", "ALICE"] {
                let refused = world.users.register(&named(taken)).await;
                assert!(matches!(refused, Err(RegisterError::InUse)));
            }
            assert!(matches!(world.users.check_available("alice").await, Err(RegisterError::InUse)));
            assert!(world.users.check_available("bob").await.is_ok());
        });
    }

    #[test]
    fn of_two_that_register_one_name_at_once_one_wins() {
        let world = World::interleaved();
        let other = world.another_node();
        world.run(async {
            let user_id = ruma::user_id!("@alice:example.org").to_owned();
            let registration = Registration { login: Some(DeviceRequest::default()), ..named("alice") };
            let one = world.users.create(user_id.clone(), world.users.new_account(), &registration);
            let two = other.users.create(user_id.clone(), other.users.new_account(), &registration);
            let (one, two) = futures::join!(one, two);
            assert_eq!(u8::from(one.is_ok()) + u8::from(two.is_ok()), 1, "{one:?} {two:?}");
            let loser = one.err().or(two.err());
            assert!(matches!(loser, Some(RegisterError::InUse)), "{loser:?}");
            let account = world.users.account(&user_id).await.unwrap().unwrap();
            assert_eq!(world.users.devices(account.user).await.unwrap().len(), 1);
        });
    }

    #[test]
    fn what_was_not_written_is_not_acknowledged() {
        let world = World::new();
        world.run(async {
            world.view.interner.user(ruma::user_id!("@alice:example.org")).await.unwrap();
            world.disk.inject(Some(Fault::LoseCommits));
            let lost = world.users.register(&named("alice")).await;
            assert!(matches!(lost, Err(RegisterError::Failed(_))), "{lost:?}");
            world.disk.inject(None);
            assert!(world.users.check_available("alice").await.is_ok());

            world.disk.inject(Some(Fault::LoseAnswers));
            let unanswered = world.users.register(&named("alice")).await;
            assert!(matches!(unanswered, Err(RegisterError::Failed(_))), "{unanswered:?}");
            world.disk.inject(None);
            assert!(matches!(world.users.check_available("alice").await, Err(RegisterError::InUse)));
        });
    }

    #[test]
    fn names_are_made_up_and_login_can_be_inhibited() {
        let world = World::new();
        world.run(async {
            let registered = world.users.register(&Registration::default()).await.unwrap();
            assert!(registered.user_id.localpart().starts_with('u'));
            assert_eq!(registered.grant, None);
        });
    }

    #[test]
    fn guests_only_where_they_are_allowed() {
        let world = World::new();
        let refused = world.run(world.users.register_guest(DeviceRequest::default()));
        assert!(matches!(refused, Err(RegisterError::GuestsDisabled)));

        let world = World::with(|config| config.guests = true);
        world.run(async {
            let asked = DeviceRequest { device_id: Some("MINE".to_owned()), ..DeviceRequest::default() };
            let grant = world.users.register_guest(asked).await.unwrap().grant.unwrap();
            assert_ne!(grant.device_id, "MINE");
            assert!(world.users.session(&grant.access_token).await.unwrap().guest);
        });
    }

    #[test]
    fn a_guest_becomes_a_user() {
        let world = World::with(|config| config.guests = true);
        world.run(async {
            let guest = world.users.register_guest(DeviceRequest::default()).await.unwrap();
            let token = guest.grant.unwrap().access_token;
            let session = world.users.session(&token).await.unwrap();
            let password = Some("pw".to_owned());
            let wrong =
                Registration { guest: Some(session.user), password: password.clone(), ..named("alice") };
            let refused = world.users.register(&wrong).await;
            assert!(matches!(refused, Err(RegisterError::NotThatGuest)));
            let localpart = guest.user_id.localpart();
            let right = Registration { guest: Some(session.user), password, ..named(localpart) };
            let registered = world.users.register(&right).await.unwrap();
            assert_eq!(registered.user_id, guest.user_id);
            assert!(!world.users.session(&token).await.unwrap().guest);
            assert!(world.login(localpart, "pw").await.is_ok());
            let again = world.users.register(&right).await;
            assert!(matches!(again, Err(RegisterError::NotThatGuest)));
        });
    }

    #[test]
    fn refused_passwords() {
        let world = World::new();
        for password in [String::new(), "x".repeat(513)] {
            let registration = Registration { password: Some(password), ..named("alice") };
            let refused = world.run(world.users.register(&registration));
            assert!(matches!(refused, Err(RegisterError::Password(_))));
        }
    }
}
