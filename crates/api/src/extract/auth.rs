//! Client authentication (Client-Server API, "Using access tokens", "Soft logout", "Account locking", "Account
//! suspension", "Guest access").

use std::{marker::PhantomData, ops::Deref, sync::Arc};

use axum::extract::FromRequestParts;
use http::{Method, header, request::Parts};
use myelin_sync::Requester;
use myelin_users::{LoginOrigin, SessionError};

use crate::{ApiError, AppState, Session, extract::ClientAddress, rate_limit::Class};

/// Longer ones are cut.
const USER_AGENT_CHARS_MAX: usize = 256;

/// An authenticated request. `A` says who may make it; a handler reads the session through `Deref`. A `GET` counts
/// against [`Class::Read`] here, so that no handler forgets it; what changes something names its own class.
pub struct Auth<A = Registered> {
    session: Arc<Session>,
    access: PhantomData<A>,
}

/// Which sessions an endpoint is open to.
pub trait Access: Send + Sync + 'static {
    const GUESTS: bool = false;
    const SUSPENDED: bool = true;
    const LOCKED: bool = false;
    const ADMINS_ONLY: bool = false;
}

/// Everybody but guests and locked accounts. Suspended accounts may still read and leave.
pub struct Registered;
/// The same and guests: only what the specification lists under "Guest access".
pub struct WithGuests;
/// No suspended accounts, no guests: whatever puts something before others (profile, rooms, invites, ...).
pub struct NotSuspended;
/// `NotSuspended` and guests: sending, joining.
pub struct GuestsNotSuspended;
/// Locked accounts too: logging out.
pub struct Locked;
/// Server administrators.
pub struct Admin;

impl Access for Registered {}
impl Access for WithGuests {
    const GUESTS: bool = true;
}
impl Access for NotSuspended {
    const SUSPENDED: bool = false;
}
impl Access for GuestsNotSuspended {
    const GUESTS: bool = true;
    const SUSPENDED: bool = false;
}
impl Access for Locked {
    const GUESTS: bool = true;
    const LOCKED: bool = true;
}
impl Access for Admin {
    const ADMINS_ONLY: bool = true;
}

/// Authentication where it is optional: a bad token is an error, no token is `None`.
pub struct MaybeAuth(pub Option<Auth<WithGuests>>);

impl Auth<WithGuests> {
    /// The same session where guests have no business.
    pub fn narrow(self) -> Result<Auth, ApiError> {
        check_access::<Registered>(&self.session)?;
        Ok(Auth { session: self.session, access: PhantomData })
    }
}

impl<A> Deref for Auth<A> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl<A> Auth<A> {
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Who asks, for the read side.
    pub fn requester(&self) -> Requester {
        Requester {
            user: self.session.user,
            user_id: self.session.user_id.clone(),
            device_id: self.session.device_id.to_string(),
        }
    }
}

impl<A: Access> FromRequestParts<AppState> for Auth<A> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let token = access_token(parts, state)?.ok_or_else(|| {
            ApiError::missing_token("This needs an access token in the Authorization header.")
        })?;
        let session = state.users().session(token).await?;
        check_access::<A>(&session)?;
        if parts.method == Method::GET {
            state.limiter().check(Class::Read, &session)?;
        }
        state.users().saw(&session, || origin(parts, state));
        Ok(Self { session, access: PhantomData })
    }
}

impl FromRequestParts<AppState> for MaybeAuth {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        match access_token(parts, state)? {
            Some(_) => Auth::from_request_parts(parts, state).await.map(|auth| Self(Some(auth))),
            None => Ok(Self(None)),
        }
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Unknown => {
                Self::unknown_token("The access token is not known.").with("soft_logout", false)
            }
            SessionError::Expired => {
                Self::unknown_token("The access token has expired.").with("soft_logout", true)
            }
            SessionError::Failed(error) => error.into(),
        }
    }
}

/// Where the request comes from, as device lists show it.
pub(crate) fn origin(parts: &Parts, state: &AppState) -> LoginOrigin {
    let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let user_agent = user_agent.map(|text| text.chars().take(USER_AGENT_CHARS_MAX).collect());
    LoginOrigin {
        ip: Some(ClientAddress::of(parts, &state.config().trusted_proxies).0.to_string()),
        user_agent,
    }
}

fn check_access<A: Access>(session: &Session) -> Result<(), ApiError> {
    if session.locked && !A::LOCKED {
        return Err(ApiError::user_locked("This account has been locked.").with("soft_logout", true));
    }
    if session.guest && !A::GUESTS {
        return Err(ApiError::guest_access_forbidden("Guests cannot do this."));
    }
    if session.suspended && !A::SUSPENDED {
        return Err(ApiError::user_suspended("You cannot perform this action while suspended."));
    }
    if A::ADMINS_ONLY && !session.admin {
        return Err(ApiError::forbidden("Only server administrators can do this."));
    }
    Ok(())
}

/// The header wins over the query string.
fn access_token<'a>(parts: &'a Parts, state: &AppState) -> Result<Option<&'a str>, ApiError> {
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let text = value.to_str().ok().and_then(|text| text.split_once(' '));
        return match text {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
            _ => Err(ApiError::missing_token("The Authorization header is not 'Bearer <access token>'.")),
        };
    }
    if !state.config().query_access_tokens {
        return Ok(None);
    }
    let pairs = parts.uri.query().unwrap_or_default().split('&');
    Ok(pairs.filter_map(|pair| pair.strip_prefix("access_token=")).find(|token| !token.is_empty()))
}
