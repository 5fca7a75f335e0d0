//! Proving that an e-mail address is one's own (`requestToken` in its three places): a session that a link in a mail validates.
//!
//! A session is good for one purpose and is used up by it. A mail is sent again only for a higher `send_attempt`
//! (Identity Service API, "Email associations"), and to one address not more often than [`MAILS_PER_HOUR`].

use std::collections::HashMap;

use myelin_core::UserNid;
use myelin_store::{
    Batch, CommitError, Direction,
    tables::{
        SessionRef, VALIDATION_CLIENTS, VALIDATION_SESSIONS, ValidationPurpose, ValidationSessionRecord,
    },
};
use parking_lot::Mutex;

use crate::{
    Error, Users,
    mail::{Mail, MailSetup},
    threepids::{self, EMAIL},
    token,
};

/// A session lives this long, validated or not.
const SESSION_LIFETIME_MS: u64 = 24 * 60 * 60 * 1000;
/// Tokens are not guessed; a session that somebody tries it on ends.
const WRONG_TOKENS_MAX: u8 = 10;
const SECRET_LENGTH_MAX: usize = 255;
const NEXT_LINK_SIZE_MAX: usize = 2_048;
/// To one address.
const MAILS_PER_HOUR: usize = 5;
const HOUR_MS: u64 = 60 * 60 * 1000;
/// Addresses whose mails are counted; beyond that nobody is sent any until the hour is over.
const COUNTED_MAX: usize = 10_000;
/// Expired sessions deleted per session opened.
const SWEPT_MAX: usize = 16;

/// The path of the links in mails.
pub const LINK_PATH: &str = "/_myelin/client/v1/email/validate";

/// `requestToken`.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    pub purpose: ValidationPurpose,
    pub email: String,
    pub client_secret: String,
    pub send_attempt: u64,
    pub next_link: Option<String>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum ValidationError {
    #[error("this server sends no mail")]
    NoMail,
    #[error("'{0}' is not an e-mail address")]
    NoAddress(String),
    #[error("{0}")]
    InvalidParam(&'static str),
    #[error("this address belongs to an account already")]
    InUse,
    #[error("this address belongs to no account")]
    NotFound,
    #[error("too many mails were sent to this address")]
    TooManyMails { retry_after_ms: u64 },
    #[error("the mail could not be sent")]
    NotSent,
    #[error("the link is not valid (any more)")]
    WrongToken,
    #[error("the address has not been validated")]
    NotValidated,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<myelin_store::Error> for ValidationError {
    fn from(error: myelin_store::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// When mails were sent, by address.
#[derive(Default)]
pub(crate) struct SentMails(Mutex<HashMap<String, Vec<u64>>>);

impl Users {
    pub fn mail(&self) -> Option<&MailSetup> {
        self.config.mail.as_ref()
    }

    /// Sends a mail with a link unless it was sent for this attempt; the id of the session.
    pub async fn request_validation(&self, request: &TokenRequest) -> Result<String, ValidationError> {
        let mail = self.config.mail.as_ref().ok_or(ValidationError::NoMail)?;
        if !is_opaque(&request.client_secret) {
            return Err(ValidationError::InvalidParam(
                "client_secret has 1 to 255 characters of 0-9, a-z, A-Z, '.', '=', '_' and '-'.",
            ));
        }
        let address = threepids::canonical_email(&request.email)
            .ok_or_else(|| ValidationError::NoAddress(request.email.chars().take(64).collect()))?;
        let owner = self.threepid_owner(EMAIL, &address).await?;
        match (request.purpose, owner) {
            (ValidationPurpose::Register | ValidationPurpose::Add, Some(_)) => {
                return Err(ValidationError::InUse);
            }
            (ValidationPurpose::ResetPassword, None) => return Err(ValidationError::NotFound),
            _ => {}
        }
        let client = (EMAIL.to_owned(), address.clone(), request.client_secret.clone());
        let known = self.session_of(&client, request.purpose).await?;
        if let Some((sid, session)) = &known
            && (session.validated_ms.is_some() || session.send_attempt >= request.send_attempt)
        {
            return Ok(sid.clone());
        }
        self.sent_mails.count(&address, self.now_ms())?;
        let token = self.view.env.random_string(32);
        let session = self.session_record(request, address, &token, known.as_ref(), mail);
        let sid = known.map_or_else(|| self.new_sid(&session), |(sid, _)| sid);
        self.save_session(&client, &sid, &session, request.send_attempt.saturating_sub(1)).await?;
        let sent = mail.mailer.send(self.link_mail(mail, &sid, &token, &session)).await;
        if let Err(error) = sent {
            tracing::warn!(%error, "a mail could not be sent");
            return Err(ValidationError::NotSent);
        }
        // Only now the attempt counts: one that failed can be repeated.
        self.save_session(&client, &sid, &session, request.send_attempt).await?;
        Ok(sid)
    }

    fn new_sid(&self, session: &ValidationSessionRecord) -> String {
        format!("{:012x}{}", session.expires_ms, self.view.env.random_string(22))
    }

    fn session_record(
        &self,
        request: &TokenRequest,
        address: String,
        token: &str,
        known: Option<&(String, ValidationSessionRecord)>,
        mail: &MailSetup,
    ) -> ValidationSessionRecord {
        let expires_ms = self.now_ms() + SESSION_LIFETIME_MS;
        ValidationSessionRecord {
            purpose: request.purpose,
            medium: EMAIL.to_owned(),
            address,
            client_secret: request.client_secret.clone(),
            send_attempt: request.send_attempt,
            token: token::hash(token),
            wrong_tokens: 0,
            next_link: request.next_link.clone().filter(|link| may_follow(link, &mail.next_link_hosts)),
            validated_ms: None,
            expires_ms: known.map_or(expires_ms, |(_, session)| session.expires_ms),
        }
    }

    async fn session_of(
        &self,
        client: &(String, String, String),
        purpose: ValidationPurpose,
    ) -> Result<Option<(String, ValidationSessionRecord)>, Error> {
        let Some(SessionRef { sid }) = self.view.store.get(&VALIDATION_CLIENTS, client).await? else {
            return Ok(None);
        };
        let session = self.load_validation(&sid).await?;
        Ok(session.filter(|session| session.purpose == purpose).map(|session| (sid, session)))
    }

    async fn load_validation(&self, sid: &str) -> Result<Option<ValidationSessionRecord>, Error> {
        let session = self.view.store.get(&VALIDATION_SESSIONS, &sid.to_owned()).await?;
        Ok(session.filter(|session| session.expires_ms > self.now_ms()))
    }

    async fn save_session(
        &self,
        client: &(String, String, String),
        sid: &str,
        session: &ValidationSessionRecord,
        send_attempt: u64,
    ) -> Result<(), Error> {
        let mut batch = Batch::new();
        let now = format!("{:012x}", self.now_ms());
        let (from, forward) = (String::new(), Direction::Forward);
        for (sid, old) in self.view.store.range(&VALIDATION_SESSIONS, &from, &now, forward, SWEPT_MAX).await?
        {
            batch.delete(&VALIDATION_SESSIONS, &sid);
            batch.delete(&VALIDATION_CLIENTS, &(old.medium, old.address, old.client_secret));
        }
        // The link may have been followed before the mail server's answer came.
        let stored = self.load_validation(sid).await?;
        let validated_ms = stored.filter(|s| s.token == session.token).and_then(|s| s.validated_ms);
        let session = ValidationSessionRecord { send_attempt, validated_ms, ..session.clone() };
        batch.put(&VALIDATION_SESSIONS, &sid.to_owned(), &session);
        batch.put(&VALIDATION_CLIENTS, client, &SessionRef { sid: sid.to_owned() });
        self.view.store.commit(batch).await.map_err(Error::from)?;
        Ok(())
    }

    fn link_mail(
        &self,
        setup: &MailSetup,
        sid: &str,
        token: &str,
        session: &ValidationSessionRecord,
    ) -> Mail {
        let server = &self.view.server_name;
        let (subject, wish) = match session.purpose {
            ValidationPurpose::Register => {
                ("Confirm your e-mail address", "create an account with this address")
            }
            ValidationPurpose::Add => ("Confirm your e-mail address", "add this address to an account"),
            ValidationPurpose::ResetPassword => {
                ("Reset your password", "set a new password for your account")
            }
        };
        let (base, secret) = (&setup.base_url, &session.client_secret);
        let link = format!("{base}{LINK_PATH}?sid={sid}&client_secret={secret}&token={token}");
        Mail {
            to: session.address.clone(),
            subject: format!("{subject} for {server}"),
            text: format!(
                "Somebody, probably you, wants to {wish} on {server}.\n\n\
                 If it was you, open this link and confirm:\n\n{link}\n\n\
                 The link is good for 24 hours. If it was not you, nothing happens as long as you do not open it.\n"
            ),
        }
    }

    /// Whether a link is still worth a click.
    pub async fn is_awaiting(&self, sid: &str, client_secret: &str) -> Result<bool, Error> {
        let session = self.load_validation(sid).await?;
        Ok(session.is_some_and(|session| session.client_secret == client_secret))
    }

    /// What a click on the link does; where the client wants its user to be sent next. Idempotent.
    pub async fn validate(
        &self,
        sid: &str,
        client_secret: &str,
        token: &str,
    ) -> Result<Option<String>, ValidationError> {
        let session = self.load_validation(sid).await?.ok_or(ValidationError::WrongToken)?;
        if session.client_secret != client_secret || session.wrong_tokens >= WRONG_TOKENS_MAX {
            return Err(ValidationError::WrongToken);
        }
        let right = session.token == token::hash(token);
        if right && session.validated_ms.is_some() {
            return Ok(session.next_link);
        }
        let changed = match right {
            true => ValidationSessionRecord { validated_ms: Some(self.now_ms()), ..session.clone() },
            false => ValidationSessionRecord { wrong_tokens: session.wrong_tokens + 1, ..session.clone() },
        };
        let mut batch = Batch::new();
        batch.require_equal(&VALIDATION_SESSIONS, &sid.to_owned(), &session);
        batch.put(&VALIDATION_SESSIONS, &sid.to_owned(), &changed);
        match self.view.store.commit(batch).await {
            Ok(_) if right => Ok(session.next_link),
            Ok(_) => Err(ValidationError::WrongToken),
            // Another mail, or another click, was first.
            Err(CommitError::Conflict { .. }) => Err(ValidationError::WrongToken),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// The session if its address was validated for this purpose.
    pub(crate) async fn validated(
        &self,
        purpose: ValidationPurpose,
        sid: &str,
        client_secret: &str,
    ) -> Result<Option<ValidationSessionRecord>, Error> {
        let session = self.load_validation(sid).await?;
        Ok(session.filter(|session| {
            session.purpose == purpose
                && session.client_secret == client_secret
                && session.validated_ms.is_some()
        }))
    }

    /// Adds that a validated session is used up, by whoever commits first.
    pub(crate) async fn use_validation(
        &self,
        batch: &mut Batch,
        purpose: ValidationPurpose,
        sid: &str,
    ) -> Result<ValidationSessionRecord, ValidationError> {
        let session = self.load_validation(sid).await?;
        let session = session.filter(|s| s.purpose == purpose && s.validated_ms.is_some());
        let session = session.ok_or(ValidationError::NotValidated)?;
        let client = (session.medium.clone(), session.address.clone(), session.client_secret.clone());
        batch.require_equal(&VALIDATION_SESSIONS, &sid.to_owned(), &session);
        batch.delete(&VALIDATION_SESSIONS, &sid.to_owned());
        batch.delete(&VALIDATION_CLIENTS, &client);
        Ok(session)
    }

    /// Whose password the proof of an address may change; the session is used up.
    pub async fn redeem_password_reset(&self, sid: &str) -> Result<UserNid, ValidationError> {
        let mut batch = Batch::new();
        let session = self.use_validation(&mut batch, ValidationPurpose::ResetPassword, sid).await?;
        let owner = self.threepid_owner(&session.medium, &session.address).await?;
        let owner = owner.ok_or(ValidationError::NotFound)?;
        match self.view.store.commit(batch).await {
            Ok(_) => Ok(owner),
            Err(CommitError::Conflict { .. }) => Err(ValidationError::NotValidated),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}

impl SentMails {
    fn count(&self, address: &str, now_ms: u64) -> Result<(), ValidationError> {
        let mut sent = self.0.lock();
        if sent.len() >= COUNTED_MAX {
            sent.retain(|_, times| times.iter().any(|at| at + HOUR_MS > now_ms));
        }
        if sent.len() >= COUNTED_MAX && !sent.contains_key(address) {
            return Err(ValidationError::TooManyMails { retry_after_ms: HOUR_MS });
        }
        let times = sent.entry(address.to_owned()).or_default();
        times.retain(|at| at + HOUR_MS > now_ms);
        if times.len() >= MAILS_PER_HOUR {
            let retry_after_ms = times.first().map_or(HOUR_MS, |at| (at + HOUR_MS).saturating_sub(now_ms));
            return Err(ValidationError::TooManyMails { retry_after_ms });
        }
        times.push(now_ms);
        Ok(())
    }
}

/// Session ids and client secrets: 1 to 255 of `[0-9a-zA-Z.=_-]`.
pub fn is_opaque(text: &str) -> bool {
    (1..=SECRET_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".=_-".contains(&b))
}

/// A mail of this server must not send people just anywhere.
fn may_follow(link: &str, hosts: &[String]) -> bool {
    if link.len() > NEXT_LINK_SIZE_MAX || link.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return false;
    }
    let rest = link.strip_prefix("https://").or_else(|| link.strip_prefix("http://"));
    let Some(rest) = rest else { return false };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
    !authority.contains('@') && hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&host))
}

#[cfg(test)]
mod tests;
