//! Identity servers (Identity Service API): whose an address is, invites kept for addresses that are nobody's yet, and the binding
//! of addresses to users, as far as a homeserver does that for its users.
//!
//! Only servers that the configuration names are talked to: they are told addresses, and what they sign lets people into
//! rooms.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use myelin_dag::SigningKey;
use myelin_rooms::{MembershipChange, Rooms, Sender};
use myelin_users::threepids::canonical;
use myelin_view::View;
use ruma::{
    OwnedServerName, OwnedUserId, RoomId, ServerName, UserId, canonical_json::to_canonical_value,
    events::TimelineEventType,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json, value::to_raw_value};
use sha2::{Digest, Sha256};

use crate::{Budget, HandshakeError, Handshakes, TransportError, x_matrix::SignedParts};

const BUDGET: Budget = Budget { timeout: Duration::from_secs(15), body_size_max: 256 * 1024 };
const UNBIND: &str = "/_matrix/identity/v2/3pid/unbind";
const KEYS_MAX: usize = 8;

/// The port to identity servers: HTTPS at the server's own name, without the discovery of homeservers.
pub trait IdentityTransport: Send + Sync + 'static {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: Request<Bytes>,
        budget: Budget,
    ) -> BoxFuture<'a, Result<Response<Bytes>, TransportError>>;
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// `M_SERVER_NOT_TRUSTED`.
    #[error("this server does not trust the identity server '{0}'")]
    NotTrusted(String),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("the identity server {server}: {reason}")]
    Failed { server: OwnedServerName, reason: String },
    /// What the identity server answered, to be passed on.
    #[error("{message}")]
    Refused { status: StatusCode, errcode: String, message: String },
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// Somebody who is invited by address.
#[derive(Clone, Debug, Deserialize)]
pub struct AddressInvite {
    pub id_server: String,
    #[serde(default)]
    pub id_access_token: String,
    pub medium: String,
    pub address: String,
}

/// What an identity server has bound.
#[derive(Clone, Debug, Deserialize)]
pub struct Bound {
    pub medium: String,
    pub address: String,
}

#[derive(Deserialize)]
struct HashDetails {
    lookup_pepper: String,
    algorithms: Vec<String>,
}

#[derive(Deserialize)]
struct Mappings {
    mappings: std::collections::HashMap<String, OwnedUserId>,
}

#[derive(Deserialize)]
struct StoredInvite {
    token: String,
    public_keys: Vec<PublicKey>,
    display_name: String,
}

#[derive(Deserialize, serde::Serialize)]
struct PublicKey {
    public_key: String,
    key_validity_url: String,
}

pub struct IdentitySetup {
    pub view: View,
    pub rooms: Arc<Rooms>,
    pub handshakes: Arc<Handshakes>,
    pub key: Arc<SigningKey>,
    pub transport: Arc<dyn IdentityTransport>,
    /// Host names, with a port where it is not 443.
    pub trusted: Vec<OwnedServerName>,
}

pub struct Identity(IdentitySetup);

impl Identity {
    pub fn new(setup: IdentitySetup) -> Self {
        Self(setup)
    }

    /// Invites whoever has an address: the user if the identity server knows one, else whoever shows one day that it is
    /// theirs.
    pub async fn invite(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        invite: &AddressInvite,
        change: MembershipChange,
    ) -> Result<(), IdentityError> {
        let server = self.trusted(&invite.id_server)?;
        let address = canonical(&invite.medium, &invite.address)
            .ok_or(IdentityError::Invalid("This is no address of that medium."))?;
        let room = self.0.view.room_by_id(room_id).await.map_err(failed_here)?;
        let joined = room.is_some_and(|room| room.is_joined(sender.user));
        if !joined {
            // Before anybody outside is told of the room.
            let message = format!("You are not in the room {room_id}.");
            return Err(HandshakeError::Forbidden(message).into());
        }
        let token = &*invite.id_access_token;
        match self.lookup(&server, token, &invite.medium, &address).await? {
            Some(user_id) => Ok(self.0.handshakes.invite(sender, room_id, &user_id, change).await?),
            None => self.store_invite(&server, token, sender, room_id, &invite.medium, &address).await,
        }
    }

    /// Whose an address is (`POST /lookup`), asked for by its hash wherever the server knows hashes.
    async fn lookup(
        &self,
        server: &ServerName,
        token: &str,
        medium: &str,
        address: &str,
    ) -> Result<Option<OwnedUserId>, IdentityError> {
        let path = "/_matrix/identity/v2/hash_details";
        let details: HashDetails = self.ask(server, Method::GET, path, Some(token), None).await?;
        let knows = |name: &str| details.algorithms.iter().any(|algorithm| algorithm == name);
        let pepper = &details.lookup_pepper;
        let (algorithm, asked) = if knows("sha256") {
            let hash = Sha256::digest(format!("{address} {medium} {pepper}"));
            ("sha256", URL_SAFE_NO_PAD.encode(hash))
        } else if knows("none") {
            ("none", format!("{address} {medium}"))
        } else {
            return Err(failed(server, "it knows no way to look up addresses that this server knows"));
        };
        let body = json!({ "algorithm": algorithm, "pepper": pepper, "addresses": [asked] });
        let path = "/_matrix/identity/v2/lookup";
        let mut found: Mappings = self.ask(server, Method::POST, path, Some(token), Some(&body)).await?;
        Ok(found.mappings.remove(&asked))
    }

    async fn store_invite(
        &self,
        server: &ServerName,
        token: &str,
        sender: &Sender,
        room_id: &RoomId,
        medium: &str,
        address: &str,
    ) -> Result<(), IdentityError> {
        let mut body = json!({
            "medium": medium, "address": address, "room_id": room_id, "sender": sender.user_id,
        });
        for (name, event_type, state_key, field) in [
            ("room_name", "m.room.name", "", "name"),
            ("room_alias", "m.room.canonical_alias", "", "alias"),
            ("room_avatar_url", "m.room.avatar", "", "url"),
            ("room_join_rules", "m.room.join_rules", "", "join_rule"),
            ("room_type", "m.room.create", "", "type"),
            ("sender_display_name", "m.room.member", sender.user_id.as_str(), "displayname"),
            ("sender_avatar_url", "m.room.member", sender.user_id.as_str(), "avatar_url"),
        ] {
            if let Some(text) = self.said(room_id, event_type, state_key, field).await? {
                body[name] = text.into();
            }
        }
        let path = "/_matrix/identity/v2/store-invite";
        let stored: StoredInvite = self.ask(server, Method::POST, path, Some(token), Some(&body)).await?;
        let StoredInvite { token, public_keys, display_name } = stored;
        let Some(first) = public_keys.first().filter(|_| public_keys.len() <= KEYS_MAX) else {
            return Err(failed(server, "it gave no key, or far too many"));
        };
        let content = json!({
            "display_name": display_name,
            "public_key": first.public_key,
            "key_validity_url": first.key_validity_url,
            "public_keys": public_keys,
        });
        let content = to_raw_value(&content).map_err(|error| failed(server, error))?;
        let event_type = TimelineEventType::RoomThirdPartyInvite;
        let sent = self.0.rooms.send_state(sender, room_id, event_type, &token, &content).await;
        Ok(sent.map(drop).map_err(HandshakeError::from)?)
    }

    async fn said(
        &self,
        room_id: &RoomId,
        event_type: &str,
        state_key: &str,
        field: &str,
    ) -> Result<Option<String>, IdentityError> {
        let view = &self.0.view;
        let Some(room) = view.room_by_id(room_id).await.map_err(failed_here)? else { return Ok(None) };
        let event = view.current_state_event(&room, event_type, state_key).await.map_err(failed_here)?;
        Ok(event.and_then(|event| event.pdu.content_field::<String>(field)))
    }

    /// `POST /3pid/bind`: what the user validated there is bound to the user.
    pub async fn bind(
        &self,
        user_id: &UserId,
        id_server: &str,
        id_access_token: &str,
        sid: &str,
        client_secret: &str,
    ) -> Result<Bound, IdentityError> {
        let server = self.trusted(id_server)?;
        let body = json!({ "sid": sid, "client_secret": client_secret, "mxid": user_id });
        let path = "/_matrix/identity/v2/3pid/bind";
        self.ask(&server, Method::POST, path, Some(id_access_token), Some(&body)).await
    }

    /// `POST /3pid/unbind`, signed by this server. `false`: the identity server does not do that.
    pub async fn unbind(
        &self,
        user_id: &UserId,
        id_server: &str,
        medium: &str,
        address: &str,
    ) -> Result<bool, IdentityError> {
        let server = self.trusted(id_server)?;
        let body = json!({ "mxid": user_id, "threepid": { "medium": medium, "address": address } });
        let content = to_canonical_value(&body).map_err(|error| failed(&server, error))?.to_string();
        let origin = &*self.0.view.server_name;
        let signed = SignedParts {
            method: "POST",
            uri: UNBIND,
            origin,
            destination: &server,
            content: Some(&content),
        };
        let authorization = signed.sign(&self.0.key).to_string();
        let response = self.send(&server, Method::POST, UNBIND, Some(&authorization), content.into()).await?;
        match refusal(&response) {
            None => Ok(true),
            Some(_) if matches!(response.status().as_u16(), 404 | 405 | 501) => Ok(false),
            Some(IdentityError::Refused { errcode, .. }) if errcode.is_empty() => Ok(false),
            Some(refused) => Err(refused),
        }
    }

    fn trusted(&self, id_server: &str) -> Result<OwnedServerName, IdentityError> {
        let trusted = self.0.trusted.iter().find(|server| server.as_str() == id_server);
        let named: String = id_server.chars().take(255).collect();
        trusted.cloned().ok_or(IdentityError::NotTrusted(named))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        server: &ServerName,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<T, IdentityError> {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let body = body.map(ToString::to_string).unwrap_or_default();
        let response = self.send(server, method, path, authorization.as_deref(), body.into()).await?;
        match refusal(&response) {
            Some(refused) => Err(refused),
            None => serde_json::from_slice(response.body())
                .map_err(|error| failed(server, format!("its answer cannot be read: {error}"))),
        }
    }

    async fn send(
        &self,
        server: &ServerName,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Bytes>, IdentityError> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(authorization) = authorization {
            let value = HeaderValue::from_str(authorization);
            let value = value.map_err(|_| IdentityError::Invalid("The access token cannot be sent."))?;
            request = request.header(header::AUTHORIZATION, value);
        }
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(body).map_err(|error| failed(server, error))?;
        let answered = self.0.transport.send(server, request, BUDGET).await;
        answered.map_err(|error| failed(server, error))
    }
}

fn refusal(response: &Response<Bytes>) -> Option<IdentityError> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Body {
        errcode: String,
        error: String,
    }
    if response.status().is_success() {
        return None;
    }
    let body: Body = serde_json::from_slice(response.body()).unwrap_or_default();
    let message = match body.error.is_empty() {
        true => "The identity server refused.".to_owned(),
        false => body.error.chars().take(500).collect(),
    };
    Some(IdentityError::Refused { status: response.status(), errcode: body.errcode, message })
}

fn failed(server: &ServerName, reason: impl ToString) -> IdentityError {
    IdentityError::Failed { server: server.to_owned(), reason: reason.to_string() }
}

fn failed_here(error: myelin_view::Error) -> IdentityError {
    HandshakeError::Rooms(error.into()).into()
}

/// Nobody is trusted, so nobody is asked.
pub struct NoIdentityServers;

impl IdentityTransport for NoIdentityServers {
    fn send<'a>(
        &'a self,
        _: &'a ServerName,
        _: Request<Bytes>,
        _: Budget,
    ) -> BoxFuture<'a, Result<Response<Bytes>, TransportError>> {
        Box::pin(std::future::ready(Err(TransportError::Refused("there is no network".to_owned()))))
    }
}
