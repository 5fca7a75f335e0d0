//! Requests of other servers (Server-Server API, "Request Authentication").
//!
//! The order is that of cost: the header, the names in it, the key, and only then the body.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequest, Request};
use http::{HeaderMap, Method, header};
use myelin_core::limits::PDU_SIZE_MAX;
use myelin_dag::{canonical::canonicalize_for, room_version};
use myelin_federation::{
    Busy, Client, Keyring, Peers,
    x_matrix::{HeaderError, SignedParts, XMatrix, is_x_matrix},
};
use ruma::{OwnedServerName, RoomVersionId, ServerName, serde::Base64};
use serde::de::DeserializeOwned;

use super::{ClientAddress, body::read};
use crate::{
    ApiError, AppState,
    rate_limit::{Class, RateLimiter},
};

/// Body of a request of another server: a transaction of 50 PDUs and 100 EDUs, none larger than a PDU.
pub const FEDERATION_BODY_SIZE_MAX: usize = (50 + 100) * PDU_SIZE_MAX;
/// `Authorization` headers of one request; a server signs with one key, or two while it changes them.
const HEADERS_MAX: usize = 4;
/// What somebody is told to wait whose keys are not looked for because too many others are.
const BUSY_PAUSE_MS: u64 = 5_000;

/// A request that `origin` has signed for this server. Without a body `T` is `()`; `GET` has none, whatever is sent.
pub struct SignedRequest<T = (), const MAX: usize = FEDERATION_BODY_SIZE_MAX> {
    pub origin: OwnedServerName,
    pub content: T,
}

impl<T: DeserializeOwned, const MAX: usize> FromRequest<AppState> for SignedRequest<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let (client, keys) = (Arc::<Client>::from_ref(state), Arc::<Keyring>::from_ref(state));
        let headers = signatures(request.headers(), client.server_name())?;
        let origin = check_origin(&headers, &client)?;
        let (parts, body) = request.into_parts();
        let address = ClientAddress::of(&parts, &state.config().trusted_proxies);
        let keys = KeySource { keys: &keys, limiter: state.limiter(), address }.current(&headers).await?;
        let request = Request::from_parts(parts, body);
        let method = request.method().clone();
        let uri = request.uri().path_and_query().map_or("/", |uri| uri.as_str()).to_owned();
        let body = if method == Method::GET { bytes::Bytes::new() } else { read(request, MAX).await? };
        let content = canonical(&body)?;
        let parts = SignedParts {
            method: method.as_str(),
            uri: &uri,
            origin: &origin,
            destination: client.server_name(),
            content: content.as_deref(),
        };
        if !keys.iter().any(|(header, key)| parts.is_signed(&header.sig, key)) {
            let message = format!("The signature of this request by '{origin}' is not valid.");
            return Err(ApiError::unauthorized(message));
        }
        Arc::<Peers>::from_ref(state).heard_from(&origin);
        Ok(Self { content: parse(content.as_deref())?, origin })
    }
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
    async fn current<'h>(&self, headers: &'h [XMatrix]) -> Result<Vec<(&'h XMatrix, Base64)>, ApiError> {
        let mut valid = Vec::new();
        for header in headers {
            valid.extend(self.current_key(header).await?.map(|key| (header, key)));
        }
        if valid.is_empty() {
            let (origin, key) = (&headers[0].origin, headers[0].key.escape_debug());
            let message = format!("The key '{key}' of '{origin}' could not be had, or is not valid now.");
            return Err(ApiError::unauthorized(message));
        }
        Ok(valid)
    }

    async fn current_key(&self, header: &XMatrix) -> Result<Option<Base64>, ApiError> {
        if self.keys.lacks(&self.keys.now(&header.origin, &header.key)).await {
            self.limiter.check_address(Class::KeyFetch, self.address)?;
        }
        let key = self.keys.current_key(&header.origin, &header.key, self.address.0).await;
        key.map_err(|Busy| ApiError::limit_exceeded(BUSY_PAUSE_MS))
    }
}

/// As the other server signed it; events of old rooms may have numbers that canonical JSON has not.
fn canonical(body: &[u8]) -> Result<Option<String>, ApiError> {
    if body.is_empty() {
        return Ok(None);
    }
    let rules = room_version::rules(&RoomVersionId::V1).map(|rules| rules.authorization);
    let rules = rules.ok_or_else(|| ApiError::internal("room version 1 has no rules"))?;
    canonicalize_for(&rules, body).map(Some).map_err(|error| match error.is_not_json() {
        true => ApiError::not_json(format!("The body is not JSON: {error}.")),
        false => ApiError::bad_json(format!("The JSON is not as it should be: {error}.")),
    })
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
