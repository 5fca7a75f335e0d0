//! What the edge needs to be told. Plain structs; the binary fills them.

use std::net::IpAddr;

use myelin_rooms::{delayed::DelayLimits, server_notices::NoticeRoom};
use ruma::{OwnedServerName, ServerName};
use serde::Serialize;

use crate::rate_limit::RateLimits;

#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub server_name: OwnedServerName,
    pub well_known: WellKnown,
    /// Documents that a new user agrees to (`m.login.terms`).
    pub terms: Vec<Terms>,
    pub rate_limits: RateLimits,
    /// Accept `?access_token=` besides the `Authorization` header (clients of specification versions up to 1.10).
    pub query_access_tokens: bool,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    pub delayed_events: DelayLimits,
    /// The localpart of the user by whom the server speaks.
    pub notices_localpart: String,
    pub notice_room: NoticeRoom,
    /// `None`: there is no TURN server.
    pub turn: Option<Turn>,
    /// URLs of the services that admit users to LiveKit media servers (MSC4195).
    pub livekit_services: Vec<String>,
    pub unauthenticated_media: UnauthenticatedMedia,
}

/// What the deprecated media endpoints, which take no access token, serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnauthenticatedMedia {
    Nothing,
    /// What was stored before this time, in milliseconds.
    StoredBefore(u64),
    Everything,
}

impl ServerConfig {
    /// Defaults for `server_name`: rate limits on, nothing announced.
    pub fn new(server_name: &ServerName) -> Self {
        Self {
            server_name: server_name.to_owned(),
            well_known: WellKnown::default(),
            terms: Vec::new(),
            rate_limits: RateLimits::default(),
            query_access_tokens: true,
            trusted_proxies: Vec::new(),
            delayed_events: DelayLimits::default(),
            notices_localpart: "server".to_owned(),
            notice_room: NoticeRoom { name: "Server notices".to_owned(), topic: String::new() },
            turn: None,
            livekit_services: Vec::new(),
            unauthenticated_media: UnauthenticatedMedia::Nothing,
        }
    }
}

/// What `/.well-known/matrix/*` answers; a document that would be empty is a 404.
#[derive(Clone, Debug, Default)]
pub struct WellKnown {
    /// `m.homeserver` `base_url`.
    pub client_base_url: Option<String>,
    /// `m.server`: host and port for other servers.
    pub server: Option<String>,
    pub support_page: Option<String>,
    pub support_contacts: Vec<SupportContact>,
    /// The ed25519 key of a policy server of this name, in unpadded base64.
    pub policy_server_key: Option<String>,
}

/// Where clients that cannot reach each other meet.
#[derive(Clone, Debug)]
pub struct Turn {
    pub uris: Vec<String>,
    pub credentials: TurnCredentials,
    pub lifetime_s: u64,
}

#[derive(Clone, Debug)]
pub enum TurnCredentials {
    /// Shared with the TURN server: every user gets credentials of their own, for a while.
    Secret(String),
    Account {
        username: String,
        password: String,
    },
}

#[derive(Clone, Debug, Serialize)]
pub struct SupportContact {
    pub role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_address: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Terms {
    /// Like `privacy_policy`.
    pub id: String,
    pub version: String,
    pub language: String,
    pub name: String,
    pub url: String,
}
