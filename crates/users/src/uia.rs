//! User-interactive authentication (Client-Server API, "User-Interactive Authentication API"): sessions and stages.
//!
//! A flow of a single stage that is offered without a session completes at once, as clients do it. Sessions are bound
//! to an operation and to the user who performs it, and are used up by completing it. Which flows an operation offers
//! is the caller's to say.

use std::collections::VecDeque;

use myelin_core::UserNid;
use myelin_store::{
    Batch, CommitError, Direction,
    tables::{UIA_SESSIONS, UiaSessionRecord, ValidationPurpose},
};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::{Error, RegistrationMode, Users, login::Identifier};

const SESSION_LIFETIME_MS: u64 = 15 * 60 * 1000;
/// Open sessions of this process; the oldest gives way.
const OPEN_SESSIONS_MAX: usize = 10_000;
/// Expired rows deleted per session opened.
const SWEPT_MAX: usize = 16;

/// The purpose of a registration: what an e-mail address is validated for depends on it.
pub const REGISTER: &str = "POST /register";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Dummy,
    Password,
    RegistrationToken,
    Terms,
    EmailIdentity,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dummy => "m.login.dummy",
            Self::Password => "m.login.password",
            Self::RegistrationToken => "m.login.registration_token",
            Self::Terms => "m.login.terms",
            Self::EmailIdentity => "m.login.email.identity",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Dummy, Self::Password, Self::RegistrationToken, Self::Terms, Self::EmailIdentity]
            .into_iter()
            .find(|stage| stage.as_str() == text)
    }
}

/// Stages that together authenticate.
pub type Flow = Vec<Stage>;

/// What is to be authenticated.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// Method and path: a session for one completes no other.
    pub purpose: &'a str,
    /// Who performs it; `None` for registrations.
    pub user: Option<UserNid>,
    /// Hash of the request without `auth`. With a user it must not change between stages; clients that register begin
    /// with an empty request to learn the flows, so there it may.
    pub request: [u8; 32],
    pub flows: &'a [Flow],
}

/// The `auth` member of a request.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct AuthData {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub session: Option<String>,
    pub identifier: Option<Identifier>,
    /// Old form of `identifier`.
    pub user: Option<String>,
    pub password: Option<String>,
    pub token: Option<String>,
    pub threepid_creds: Option<ThreepidCredentials>,
}

/// A validation session of this server; those of identity servers prove nothing here.
#[derive(Clone, Debug, Deserialize)]
pub struct ThreepidCredentials {
    pub sid: String,
    pub client_secret: String,
}

#[derive(Clone, Debug)]
pub enum Progress {
    Complete(Proof),
    Incomplete(Challenge),
}

/// What authentication leaves to the operation. A registration uses it up in its own commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    pub session: Option<String>,
    pub registration_token: Option<String>,
    /// A validation session whose address is the client's.
    pub email_session: Option<String>,
}

/// What the client has to do next; the body of the 401 answer.
#[derive(Clone, Debug)]
pub struct Challenge {
    pub session: String,
    pub completed: Vec<Stage>,
    /// The stage that was tried failed.
    pub failure: Option<StageFailure>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageFailure {
    #[error("the password is wrong")]
    Password,
    #[error("the registration token is not valid (any more)")]
    RegistrationToken,
    #[error("the e-mail address has not been validated yet")]
    Email,
    #[error("the stage '{0}' is not part of any flow offered")]
    NotOffered(String),
    #[error("'{0}' is missing in 'auth'")]
    Missing(&'static str),
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum UiaError {
    #[error("the session was opened for another operation")]
    OtherOperation,
    #[error("the session was used up by another request")]
    UsedUp,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<myelin_store::Error> for UiaError {
    fn from(error: myelin_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// When the sessions opened by this process expire, oldest first.
#[derive(Default)]
pub(crate) struct OpenSessions(Mutex<VecDeque<u64>>);

/// A session that may not be stored yet.
struct Attempt {
    id: Option<String>,
    stored: Option<UiaSessionRecord>,
    record: UiaSessionRecord,
}

impl Users {
    /// The flows of `POST /register`; `None` if registration is closed.
    pub fn registration_flows(&self) -> Option<Vec<Flow>> {
        // No flow is the beginning of another, so that clients can say which one they mean.
        let (first, email) = match (self.config.registration, &self.config.mail) {
            (RegistrationMode::Closed, _) => return None,
            (RegistrationMode::Token, None) => return Some(vec![vec![Stage::RegistrationToken]]),
            (RegistrationMode::Open, None) => return Some(vec![vec![Stage::Dummy]]),
            (RegistrationMode::Token, Some(mail)) => (vec![Stage::RegistrationToken], mail),
            (RegistrationMode::Open, Some(mail)) => (vec![], mail),
        };
        let then = |stage| [first.clone(), vec![stage]].concat();
        Some(match email.required {
            true => vec![then(Stage::EmailIdentity)],
            false => vec![then(Stage::Dummy), then(Stage::EmailIdentity)],
        })
    }

    /// The flows by which a password is set without an access token; `None` if there are none.
    pub fn password_reset_flows(&self) -> Option<Vec<Flow>> {
        self.config.mail.as_ref().map(|_| vec![vec![Stage::EmailIdentity]])
    }

    /// One step: takes what `auth` offers and answers whether a flow is complete.
    pub async fn authenticate(
        &self,
        operation: Operation<'_>,
        auth: Option<&AuthData>,
    ) -> Result<Progress, UiaError> {
        let mut attempt = self.open_attempt(operation, auth).await?;
        let failure = match auth.and_then(|a| a.kind.as_deref().map(|kind| (a, kind))) {
            Some((auth, kind)) => self.try_stage(operation, auth, kind, &mut attempt).await?,
            None => None,
        };
        let completed = attempt.completed();
        let complete = |flow: &Flow| flow.iter().all(|stage| completed.contains(stage));
        if failure.is_none() && operation.flows.iter().any(complete) {
            return Ok(Progress::Complete(self.close(operation, attempt).await?));
        }
        let session = self.save(attempt).await?;
        Ok(Progress::Incomplete(Challenge { session, completed, failure }))
    }

    /// The session that the client names, or a new one: an expired session starts over instead of ending in an error.
    async fn open_attempt(
        &self,
        operation: Operation<'_>,
        auth: Option<&AuthData>,
    ) -> Result<Attempt, UiaError> {
        let purpose = operation.bound_purpose();
        if let Some(id) = auth.and_then(|a| a.session.as_ref())
            && let Some(record) = self.load_uia_session(id).await?
        {
            if record.purpose != purpose || (operation.user.is_some() && record.request != operation.request)
            {
                return Err(UiaError::OtherOperation);
            }
            return Ok(Attempt { id: Some(id.clone()), stored: Some(record.clone()), record });
        }
        let expires_ms = self.now_ms() + SESSION_LIFETIME_MS;
        let request = operation.request;
        let record = UiaSessionRecord {
            purpose,
            request,
            completed: vec![],
            registration_token: None,
            email_session: None,
            expires_ms,
        };
        Ok(Attempt { id: None, stored: None, record })
    }

    async fn load_uia_session(&self, id: &String) -> Result<Option<UiaSessionRecord>, Error> {
        let record = self.view.store.get(&UIA_SESSIONS, id).await?;
        Ok(record.filter(|r| r.expires_ms > self.now_ms()))
    }

    async fn try_stage(
        &self,
        operation: Operation<'_>,
        auth: &AuthData,
        kind: &str,
        attempt: &mut Attempt,
    ) -> Result<Option<StageFailure>, Error> {
        let offered = |stage: &Stage| operation.flows.iter().any(|flow| flow.contains(stage));
        let Some(stage) = Stage::parse(kind).filter(offered) else {
            return Ok(Some(StageFailure::NotOffered(kind.chars().take(64).collect())));
        };
        let failure = match stage {
            Stage::Dummy | Stage::Terms => None,
            Stage::Password => self.try_password(operation, auth).await?,
            Stage::RegistrationToken => self.try_registration_token(auth, attempt).await?,
            Stage::EmailIdentity => self.try_email(operation, auth, attempt).await?,
        };
        if failure.is_none() && !attempt.completed().contains(&stage) {
            attempt.record.completed.push(stage.as_str().to_owned());
        }
        Ok(failure)
    }

    async fn try_password(
        &self,
        operation: Operation<'_>,
        auth: &AuthData,
    ) -> Result<Option<StageFailure>, Error> {
        let Some(password) = &auth.password else { return Ok(Some(StageFailure::Missing("password"))) };
        let identified = match &auth.identifier {
            Some(identifier) => self.identified(identifier).await?,
            None => None,
        };
        let named = identified.as_deref().or(auth.user.as_deref());
        let user = match (operation.user, named) {
            (user, None) => user,
            (user, Some(name)) => {
                let account = self.named_account(name).await?.map(|a| a.user);
                account.filter(|account| user.is_none_or(|user| user == *account))
            }
        };
        let verified = match user {
            Some(user) => self.verify_password(user, password).await?,
            None => self.passwords.verify(None, password).await?,
        };
        Ok((!verified).then_some(StageFailure::Password))
    }

    async fn try_email(
        &self,
        operation: Operation<'_>,
        auth: &AuthData,
        attempt: &mut Attempt,
    ) -> Result<Option<StageFailure>, Error> {
        let Some(credentials) = &auth.threepid_creds else {
            return Ok(Some(StageFailure::Missing("threepid_creds")));
        };
        let purpose = match operation.purpose {
            REGISTER => ValidationPurpose::Register,
            _ => ValidationPurpose::ResetPassword,
        };
        let ThreepidCredentials { sid, client_secret } = credentials;
        if self.validated(purpose, sid, client_secret).await?.is_none() {
            return Ok(Some(StageFailure::Email));
        }
        attempt.record.email_session = Some(sid.clone());
        Ok(None)
    }

    async fn try_registration_token(
        &self,
        auth: &AuthData,
        attempt: &mut Attempt,
    ) -> Result<Option<StageFailure>, Error> {
        let Some(token) = &auth.token else { return Ok(Some(StageFailure::Missing("token"))) };
        if !self.has_use_left(token, attempt.id.as_deref()).await? {
            return Ok(Some(StageFailure::RegistrationToken));
        }
        attempt.record.registration_token = Some(token.clone());
        Ok(None)
    }

    /// A registration deletes its session in its own commit, so that it can be tried again under another name; any other
    /// operation uses it up now.
    async fn close(&self, operation: Operation<'_>, attempt: Attempt) -> Result<Proof, UiaError> {
        let UiaSessionRecord { registration_token, email_session, .. } = attempt.record.clone();
        let proof = Proof { session: None, registration_token, email_session };
        let (Some(id), Some(stored)) = (&attempt.id, &attempt.stored) else {
            return Ok(proof);
        };
        if operation.user.is_none() {
            return Ok(Proof { session: Some(self.save(attempt).await?), ..proof });
        }
        let mut batch = Batch::new();
        batch.require_equal(&UIA_SESSIONS, id, stored);
        batch.delete(&UIA_SESSIONS, id);
        match self.view.store.commit(batch).await {
            Ok(_) => Ok(proof),
            Err(CommitError::Conflict { .. }) => Err(UiaError::UsedUp),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// Writes what changed; answers the id of the session.
    async fn save(&self, attempt: Attempt) -> Result<String, Error> {
        let mut batch = Batch::new();
        let id = match attempt.id {
            Some(id) if attempt.stored.as_ref() == Some(&attempt.record) => return Ok(id),
            Some(id) => id,
            None => {
                self.make_room(&mut batch, attempt.record.expires_ms).await?;
                format!("{:012x}{}", attempt.record.expires_ms, self.view.env.random_string(22))
            }
        };
        // No precondition: a client that runs two stages of one session at once may have to repeat one.
        batch.put(&UIA_SESSIONS, &id, &attempt.record);
        self.view.store.commit(batch).await.map_err(Error::from)?;
        Ok(id)
    }

    /// Adds the deletion of some expired sessions, and of the oldest one if there are too many.
    async fn make_room(&self, batch: &mut Batch, expires_ms: u64) -> Result<(), Error> {
        let now_ms = self.now_ms();
        let full = self.open_uia_sessions.count_one(now_ms, expires_ms);
        let until = if full { u64::MAX } else { now_ms.saturating_add(1) };
        let until = format!("{until:012x}");

        let (from, forward) = (String::new(), Direction::Forward);
        let rows = self.view.store.range(&UIA_SESSIONS, &from, &until, forward, SWEPT_MAX).await?;
        let expired = rows.iter().filter(|(_, record)| record.expires_ms <= now_ms).count();
        for (id, _) in rows.iter().take(expired.max(usize::from(full))) {
            batch.delete(&UIA_SESSIONS, id);
        }
        Ok(())
    }
}

impl Operation<'_> {
    fn bound_purpose(&self) -> String {
        match self.user {
            Some(user) => format!("{} {}", self.purpose, user.0),
            None => self.purpose.to_owned(),
        }
    }
}

impl Attempt {
    fn completed(&self) -> Vec<Stage> {
        self.record.completed.iter().filter_map(|stage| Stage::parse(stage)).collect()
    }
}

impl OpenSessions {
    /// Counts a session that is being opened; whether there are too many.
    fn count_one(&self, now_ms: u64, expires_ms: u64) -> bool {
        let mut open = self.0.lock();
        while open.front().is_some_and(|expires_ms| *expires_ms <= now_ms) {
            open.pop_front();
        }
        let full = open.len() >= OPEN_SESSIONS_MAX;
        if full {
            open.pop_front();
        }
        open.push_back(expires_ms);
        full
    }
}

#[cfg(test)]
mod tests;
