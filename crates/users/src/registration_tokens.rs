//! Registration tokens: handed out by administrators, each good for a number of accounts or until a moment.

use myelin_store::{
    Batch,
    tables::{REGISTRATION_TOKENS, RegistrationTokenRecord, UIA_SESSIONS},
};

use crate::{Error, Users, registration::RegisterError, transaction::transact};

const TOKEN_SIZE_MAX: usize = 64;
const GENERATED_LENGTH: usize = 16;
/// Open sessions looked at to count the pending uses of a token.
const PENDING_SCAN_MAX: usize = 10_000;

/// What a new token is to allow.
#[derive(Clone, Debug, Default)]
pub struct NewRegistrationToken {
    /// `None`: one is made up.
    pub token: Option<String>,
    /// `None`: unlimited.
    pub uses_allowed: Option<u64>,
    /// `None`: does not expire.
    pub expires_ms: Option<u64>,
}

/// A token and how much of it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationToken {
    pub token: String,
    pub uses_allowed: Option<u64>,
    /// Registrations that passed the token's stage and are not finished.
    pub pending: u64,
    pub completed: u64,
    pub expires_ms: Option<u64>,
    pub created_ms: u64,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistrationTokenError {
    #[error("a registration token has 1 to {TOKEN_SIZE_MAX} characters of A-Z, a-z, 0-9 and ._~-")]
    Grammar,
    #[error("this registration token exists already")]
    Exists,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Users {
    pub async fn create_registration_token(
        &self,
        new: NewRegistrationToken,
    ) -> Result<RegistrationToken, RegistrationTokenError> {
        let token = new.token.unwrap_or_else(|| self.view.env.random_string(GENERATED_LENGTH));
        if !is_opaque_identifier(&token) {
            return Err(RegistrationTokenError::Grammar);
        }
        let record = RegistrationTokenRecord {
            uses_allowed: new.uses_allowed,
            completed: 0,
            expires_ms: new.expires_ms,
            created_ms: self.now_ms(),
        };
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            if self.load_registration_token(&token).await?.is_some() {
                return Err(RegistrationTokenError::Exists);
            }
            batch.require_absent(&REGISTRATION_TOKENS, &token);
            batch.put(&REGISTRATION_TOKENS, &token, &record);
            Ok((batch, ()))
        })
        .await?;
        Ok(describe(token, &record, 0))
    }

    pub async fn registration_tokens(&self, limit: usize) -> Result<Vec<RegistrationToken>, Error> {
        let rows = self.view.store.read().all(&REGISTRATION_TOKENS, limit).await?;
        let mut tokens = Vec::with_capacity(rows.len());
        for (token, record) in rows {
            let pending = self.pending_uses(&token, None).await?;
            tokens.push(describe(token, &record, pending));
        }
        Ok(tokens)
    }

    /// `false` if there was no such token.
    pub async fn delete_registration_token(&self, token: &str) -> Result<bool, Error> {
        let key = token.to_owned();
        transact(&self.view.store, || async {
            let mut batch = Batch::new();
            let Some(record) = self.load_registration_token(token).await? else { return Ok((batch, false)) };
            batch.require_equal(&REGISTRATION_TOKENS, &key, &record);
            batch.delete(&REGISTRATION_TOKENS, &key);
            Ok::<_, Error>((batch, true))
        })
        .await
    }

    /// Whether somebody could register with this token now (`GET /register/m.login.registration_token/validity`).
    pub async fn is_valid_registration_token(&self, token: &str) -> Result<bool, Error> {
        self.has_use_left(token, None).await
    }

    /// Like [`Users::is_valid_registration_token`], not counting what `session` itself holds.
    pub(crate) async fn has_use_left(&self, token: &str, session: Option<&str>) -> Result<bool, Error> {
        let Some(record) = self.load_registration_token(token).await? else { return Ok(false) };
        let Some(allowed) = record.uses_allowed else { return Ok(self.is_usable(&record)) };
        Ok(self.is_usable(&record) && record.completed + self.pending_uses(token, session).await? < allowed)
    }

    /// Adds one use to `batch`; of concurrent last uses one commits.
    pub(crate) async fn use_registration_token(
        &self,
        batch: &mut Batch,
        token: &str,
    ) -> Result<(), RegisterError> {
        let record = self.load_registration_token(token).await?.filter(|r| self.is_usable(r));
        let record = record.ok_or(RegisterError::RegistrationToken)?;
        let key = token.to_owned();
        batch.require_equal(&REGISTRATION_TOKENS, &key, &record);
        let used = RegistrationTokenRecord { completed: record.completed + 1, ..record };
        batch.put(&REGISTRATION_TOKENS, &key, &used);
        Ok(())
    }

    async fn load_registration_token(&self, token: &str) -> Result<Option<RegistrationTokenRecord>, Error> {
        Ok(self.view.store.get(&REGISTRATION_TOKENS, &token.to_owned()).await?)
    }

    fn is_usable(&self, record: &RegistrationTokenRecord) -> bool {
        record.expires_ms.is_none_or(|expires_ms| expires_ms > self.now_ms())
            && record.uses_allowed.is_none_or(|allowed| record.completed < allowed)
    }

    /// Derived from the open sessions, so that an abandoned registration gives its use back when its session expires.
    async fn pending_uses(&self, token: &str, except: Option<&str>) -> Result<u64, Error> {
        let (store, now_ms) = (&self.view.store, self.now_ms());
        let sessions = store.read().all(&UIA_SESSIONS, PENDING_SCAN_MAX).await?;
        let holds = sessions.iter().filter(|(id, session)| {
            session.registration_token.as_deref() == Some(token)
                && session.expires_ms > now_ms
                && Some(id.as_str()) != except
        });
        Ok(holds.count() as u64)
    }
}

fn describe(token: String, record: &RegistrationTokenRecord, pending: u64) -> RegistrationToken {
    RegistrationToken {
        token,
        uses_allowed: record.uses_allowed,
        pending,
        completed: record.completed,
        expires_ms: record.expires_ms,
        created_ms: record.created_ms,
    }
}

fn is_opaque_identifier(text: &str) -> bool {
    (1..=TOKEN_SIZE_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{registration::Registration, testing::World, uia::Proof};

    fn with_token(username: &str, token: &str) -> Registration {
        let proof = Proof { session: None, registration_token: Some(token.to_owned()), email_session: None };
        Registration { username: Some(username.to_owned()), proof, ..Registration::default() }
    }

    async fn create(world: &World, uses_allowed: Option<u64>, expires_ms: Option<u64>) -> String {
        let new = NewRegistrationToken { token: None, uses_allowed, expires_ms };
        world.users.create_registration_token(new).await.unwrap().token
    }

    #[test]
    fn a_token_is_used_as_often_as_allowed() {
        let world = World::new();
        world.run(async {
            let token = create(&world, Some(2), None).await;
            for name in ["a", "b"] {
                assert!(world.users.is_valid_registration_token(&token).await.unwrap());
                world.users.register(&with_token(name, &token)).await.unwrap();
            }
            assert!(!world.users.is_valid_registration_token(&token).await.unwrap());
            let refused = world.users.register(&with_token("c", &token)).await;
            assert!(matches!(refused, Err(RegisterError::RegistrationToken)));
            let listed = world.users.registration_tokens(10).await.unwrap();
            assert_eq!((listed[0].completed, listed[0].pending), (2, 0));
        });
    }

    #[test]
    fn the_last_use_is_given_once() {
        let world = World::interleaved();
        world.run(async {
            let token = create(&world, Some(1), None).await;
            let (one, two) = (with_token("a", &token), with_token("b", &token));
            let (one, two) = futures::join!(world.users.register(&one), world.users.register(&two));
            assert_eq!(u8::from(one.is_ok()) + u8::from(two.is_ok()), 1, "{one:?} {two:?}");
            assert!(matches!(one.err().or(two.err()), Some(RegisterError::RegistrationToken)));
            assert_eq!(world.users.accounts(None, 9).await.unwrap().len(), 1);
        });
    }

    #[test]
    fn a_failed_registration_uses_nothing() {
        let world = World::new();
        world.run(async {
            let token = create(&world, Some(1), None).await;
            world.register("taken").await;
            assert!(world.users.register(&with_token("taken", &token)).await.is_err());
            assert!(world.users.is_valid_registration_token(&token).await.unwrap());
        });
    }

    #[test]
    fn tokens_expire_and_can_be_deleted() {
        let world = World::new();
        world.run(async {
            let token = create(&world, None, Some(world.users.now_ms() + 1000)).await;
            assert!(world.users.is_valid_registration_token(&token).await.unwrap());
            world.advance_ms(1000);
            assert!(!world.users.is_valid_registration_token(&token).await.unwrap());
            let refused = world.users.register(&with_token("a", &token)).await;
            assert!(matches!(refused, Err(RegisterError::RegistrationToken)));
            assert!(world.users.delete_registration_token(&token).await.unwrap());
            assert!(!world.users.delete_registration_token(&token).await.unwrap());
        });
    }

    #[test]
    fn refused_tokens() {
        let world = World::new();
        world.run(async {
            let new = |token: &str| NewRegistrationToken {
                token: Some(token.to_owned()),
                ..NewRegistrationToken::default()
            };
            for token in ["", "a b", "ä", &"x".repeat(65)] {
                let refused = world.users.create_registration_token(new(token)).await;
                assert!(matches!(refused, Err(RegistrationTokenError::Grammar)), "{token}");
            }
            world.users.create_registration_token(new("twice")).await.unwrap();
            let refused = world.users.create_registration_token(new("twice")).await;
            assert!(matches!(refused, Err(RegistrationTokenError::Exists)));
        });
    }
}
