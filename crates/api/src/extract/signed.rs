//! Requests of other servers (Server-Server API, "Request Authentication").
//!
//! The order is that of cost: the header, the names in it, the key, and only then the body.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRef, FromRequest, Request},
};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use myelin_core::{
    Env,
    limits::{JSON_DEPTH_MAX, PDU_SIZE_MAX, REQUEST_BODY_SIZE_MAX},
};
use myelin_dag::canonical::{canonicalize_request, depth};
use myelin_federation::{
    Busy, Client, Keyring, Peers,
    x_matrix::{HeaderError, SignedParts, XMatrix, is_x_matrix},
};
use ruma::{OwnedServerName, ServerName, serde::Base64};
use serde::de::DeserializeOwned;

use super::{ClientAddress, Unverified, body::read_parts, unverified::Room};
use crate::{
    ApiError, AppState,
    per_origin::Ticket,
    rate_limit::{Class, RateLimiter},
};

/// Body of a transaction: as much as Synapse takes, and so sends.
pub const FEDERATION_BODY_SIZE_MAX: usize = 200 * PDU_SIZE_MAX;
/// `Authorization` headers of one request; a server signs with one key, or two while it changes them.
const HEADERS_MAX: usize = 4;
/// A body is held in memory before it is clear whose it is.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// What somebody is told to wait whose keys are not looked for because too many others are.
const BUSY_PAUSE_MS: u64 = 5_000;

/// A request that `origin` has signed for this server. Without a body `T` is `()`; `GET` has none, whatever is sent. A body has
/// at most `MAX` bytes and `DEPTH` levels.
pub struct SignedRequest<
    T = (),
    const MAX: usize = REQUEST_BODY_SIZE_MAX,
    const DEPTH: usize = JSON_DEPTH_MAX,
> {
    pub origin: OwnedServerName,
    pub content: T,
}

impl<T: DeserializeOwned, const MAX: usize, const DEPTH: usize> FromRequest<AppState>
    for SignedRequest<T, MAX, DEPTH>
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let claim = Claim::of(&parts, state).await?;
        let (content, room) = claim.prove::<MAX, DEPTH>(&parts, body, state).await?;
        let origin = claim.origin;
        Arc::<Peers>::from_ref(state).heard_from(&origin);
        if let Some(ticket) = parts.extensions.get::<Ticket>() {
            ticket.redeem(&origin, state).await?;
        }
        drop(room);
        Ok(Self { content: parse(content.as_deref())?, origin })
    }
}

/// Who a request says that it is from, and what that can be checked by.
struct Claim {
    origin: OwnedServerName,
    address: ClientAddress,
    keys: Vec<(XMatrix, Base64)>,
}

impl Claim {
    async fn of(parts: &Parts, state: &AppState) -> Result<Self, ApiError> {
        let (client, keys) = (Arc::<Client>::from_ref(state), Arc::<Keyring>::from_ref(state));
        let headers = signatures(&parts.headers, client.server_name())?;
        let origin = check_origin(&headers, &client)?;
        let address = ClientAddress::of(parts, &state.config().trusted_proxies);
        let source = KeySource { keys: &keys, limiter: state.limiter(), address };
        let keys = source.current(headers).await?;
        Ok(Self { origin, address, keys })
    }

    /// The content as canonical JSON, once it is clear who has signed it, and the room that it takes.
    async fn prove<const MAX: usize, const DEPTH: usize>(
        &self,
        parts: &Parts,
        body: Body,
        state: &AppState,
    ) -> Result<(Option<String>, Option<Room>), ApiError> {
        let client = Arc::<Client>::from_ref(state);
        let (room, body) = match parts.method {
            Method::GET => (None, Bytes::new()),
            _ => {
                let mut room = Unverified::from_ref(state).room(self.address);
                let body = read_in_time::<MAX>(&parts.headers, body, &mut room, state).await?;
                (Some(room), body)
            }
        };
        let content = canonical(&body, DEPTH)?;
        let signed = SignedParts {
            method: parts.method.as_str(),
            uri: parts.uri.path_and_query().map_or("/", |uri| uri.as_str()),
            origin: &self.origin,
            destination: client.server_name(),
            content: content.as_deref(),
        };
        let proven = self.keys.iter().any(|(header, key)| signed.is_signed(&header.sig, key));
        match proven {
            true => Ok((content, room)),
            false => {
                let message = format!("The signature of this request by '{}' is not valid.", self.origin);
                Err(ApiError::unauthorized(message))
            }
        }
    }
}

async fn read_in_time<const MAX: usize>(
    headers: &HeaderMap,
    body: Body,
    room: &mut Room,
    state: &AppState,
) -> Result<Bytes, ApiError> {
    let reading = read_parts(headers, body, MAX, |size| room.grow(size as u64));
    let body = Env::from_ref(state).timeout(BODY_TIMEOUT, reading).await;
    body.unwrap_or_else(|| {
        let error = ApiError::unknown("The request body did not arrive in time.");
        Err(error.with_status(StatusCode::REQUEST_TIMEOUT))
    })
}

/// The headers of the scheme, all meant for this server.
fn signatures(headers: &HeaderMap, this: &ServerName) -> Result<Vec<XMatrix>, ApiError> {
    let headers = headers.get_all(header::AUTHORIZATION).iter();
    let headers = headers.filter_map(|value| value.to_str().ok()).filter(|text| is_x_matrix(text));
    let headers: Result<Vec<XMatrix>, HeaderError> = headers.take(HEADERS_MAX).map(str::parse).collect();
    let headers = headers.map_err(|error| {
        ApiError::unauthorized(format!("The Authorization header cannot be read: {error}."))
    })?;
    if headers.is_empty() {
        return Err(ApiError::unauthorized("This needs an X-Matrix signature in the Authorization header."));
    }
    for destination in headers.iter().filter_map(|header| header.destination.as_ref()) {
        if destination != this {
            let message = format!("This request is signed for '{destination}', but this server is '{this}'.");
            return Err(ApiError::unauthorized(message));
        }
    }
    Ok(headers)
}

/// Who all the headers say that it is, if it may talk to this server.
fn check_origin(headers: &[XMatrix], client: &Client) -> Result<OwnedServerName, ApiError> {
    let origin = headers[0].origin.clone();
    if headers.iter().any(|header| header.origin != origin) {
        return Err(ApiError::unauthorized("The Authorization headers name different origins."));
    }
    if origin == client.server_name() {
        return Err(ApiError::unauthorized("This server does not ask itself."));
    }
    if !client.permits(&origin) {
        return Err(ApiError::forbidden(format!("This server does not federate with '{origin}'.")));
    }
    Ok(origin)
}

/// Where the keys come from by which headers are checked. Nobody's signature vouches for who asks: what has to be fetched
/// is limited by address.
struct KeySource<'a> {
    keys: &'a Keyring,
    limiter: &'a RateLimiter,
    address: ClientAddress,
}

impl KeySource<'_> {
    /// The headers whose keys are known and valid now.
    async fn current(&self, headers: Vec<XMatrix>) -> Result<Vec<(XMatrix, Base64)>, ApiError> {
        let (origin, key) = (&headers[0].origin, headers[0].key.escape_debug());
        let lacking = format!("The key '{key}' of '{origin}' could not be had, or is not valid now.");
        let (mut valid, mut refusal) = (Vec::new(), ApiError::unauthorized(lacking));
        for header in headers {
            match self.current_key(&header).await {
                Ok(key) => valid.extend(key.map(|key| (header, key))),
                // Another header may do.
                Err(busy) => refusal = busy,
            }
        }
        if valid.is_empty() { Err(refusal) } else { Ok(valid) }
    }

    async fn current_key(&self, header: &XMatrix) -> Result<Option<Base64>, ApiError> {
        if self.keys.lacks(&self.keys.now(&header.origin, &header.key)).await {
            self.limiter.check_address(Class::KeyFetch, self.address)?;
        }
        let key = self.keys.current_key(&header.origin, &header.key, self.address.0).await;
        key.map_err(|Busy| ApiError::limit_exceeded(BUSY_PAUSE_MS))
    }
}

/// As the other server signed it.
fn canonical(body: &[u8], depth_max: usize) -> Result<Option<String>, ApiError> {
    if body.is_empty() {
        return Ok(None);
    }
    let content = canonicalize_request(body).map_err(|error| match error.is_not_json() {
        true => ApiError::not_json(format!("The body is not JSON: {error}.")),
        false => ApiError::bad_json(format!("The JSON is not as it should be: {error}.")),
    })?;
    if depth(&content) > depth_max {
        return Err(ApiError::bad_json(format!("The JSON is nested more than {depth_max} deep.")));
    }
    Ok(Some(content))
}

/// Every body is an object; serde would take a list for a struct.
fn parse<T: DeserializeOwned>(content: Option<&str>) -> Result<T, ApiError> {
    if content.is_some_and(|content| !content.starts_with('{')) {
        return Err(ApiError::bad_json("The body has to be a JSON object."));
    }
    serde_json::from_str(content.unwrap_or("null")).map_err(|error| match content {
        Some(_) => ApiError::bad_json(format!("The JSON is not as it should be: {error}.")),
        None => ApiError::not_json("This needs a JSON body."),
    })
}
