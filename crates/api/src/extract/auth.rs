//! Client authentication (Client-Server API, "Using access tokens", "Soft logout", "Account locking", "Account
//! suspension", "Guest access").

use std::{marker::PhantomData, ops::Deref, sync::Arc};

use axum::extract::FromRequestParts;
use http::{header, request::Parts};

use crate::{ApiError, AppState, Session, extract::ClientAddress, session::SessionLookup};

/// An authenticated request. `A` says who may make it; a handler reads the session through `Deref`.
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
}

impl<A: Access> FromRequestParts<AppState> for Auth<A> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let token = access_token(parts, state)?.ok_or_else(|| {
            ApiError::missing_token("This needs an access token in the Authorization header.")
        })?;
        let session = match state.sessions().lookup(token).await? {
            SessionLookup::Active(session) => session,
            SessionLookup::Expired => {
                return Err(
                    ApiError::unknown_token("The access token has expired.").with("soft_logout", true)
                );
            }
            SessionLookup::Unknown => {
                return Err(
                    ApiError::unknown_token("The access token is not known.").with("soft_logout", false)
                );
            }
        };
        check_access::<A>(&session)?;
        let address = ClientAddress::of(parts, &state.config().trusted_proxies);
        let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        state.sessions().seen(&session, address.0, user_agent);
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

#[cfg(test)]
mod tests {
    use myelin_core::UserNid;
    use ruma::{device_id, user_id};

    use super::*;

    fn session(change: impl FnOnce(&mut Session)) -> Session {
        let mut session = Session {
            user: UserNid(1),
            user_id: user_id!("@a:localhost").to_owned(),
            device_id: device_id!("D").to_owned(),
            guest: false,
            admin: false,
            locked: false,
            suspended: false,
        };
        change(&mut session);
        session
    }

    fn errcode<A: Access>(change: impl FnOnce(&mut Session)) -> Option<&'static str> {
        check_access::<A>(&session(change)).err().map(|error| error.errcode())
    }

    #[test]
    fn access_is_as_declared() {
        assert_eq!(errcode::<Registered>(|_| ()), None);
        assert_eq!(errcode::<Registered>(|s| s.guest = true), Some("M_GUEST_ACCESS_FORBIDDEN"));
        assert_eq!(errcode::<WithGuests>(|s| s.guest = true), None);
        assert_eq!(errcode::<Registered>(|s| s.locked = true), Some("M_USER_LOCKED"));
        assert_eq!(errcode::<Locked>(|s| s.locked = true), None);
        assert_eq!(errcode::<Registered>(|s| s.suspended = true), None);
        assert_eq!(errcode::<NotSuspended>(|s| s.suspended = true), Some("M_USER_SUSPENDED"));
        assert_eq!(errcode::<GuestsNotSuspended>(|s| s.suspended = true), Some("M_USER_SUSPENDED"));
        assert_eq!(errcode::<Admin>(|_| ()), Some("M_FORBIDDEN"));
        assert_eq!(errcode::<Admin>(|s| s.admin = true), None);
    }
}
