//! Records of accounts, sessions and what users keep. JSON is kept as text.

use myelin_core::{EventNid, RoomNid, UserNid};
use serde::{Deserialize, Serialize};

use crate::codec::Record;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// Argon2id in PHC string form; `None`: no password login.
    pub password_hash: Option<String>,
    pub created_ms: u64,
    pub kind: AccountKind,
    pub admin: bool,
    pub locked: bool,
    pub suspended: bool,
    pub deactivated: bool,
    /// Deactivated with `erase: true`.
    pub erased: bool,
}
impl Record for AccountRecord {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountKind {
    User,
    Guest,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    pub display_name: Option<String>,
    pub created_ms: u64,
    pub last_seen_ms: u64,
    pub last_seen_ip: Option<String>,
    pub user_agent: Option<String>,
}
impl Record for DeviceRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessTokenRecord {
    pub user: UserNid,
    pub device_id: String,
    /// `None`: does not expire.
    pub expires_ms: Option<u64>,
    /// The refresh token that renews it.
    pub refresh_token: Option<[u8; 32]>,
}
impl Record for AccessTokenRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshTokenRecord {
    pub user: UserNid,
    pub device_id: String,
    pub expires_ms: Option<u64>,
    /// The access token that it came with.
    pub access_token: [u8; 32],
    /// Used once already; the successor becomes exclusive when one of its tokens is first used.
    pub successor: Option<[u8; 32]>,
    /// The token that was exchanged for this one, until one of this pair is first used: then it is revoked.
    pub predecessor: Option<[u8; 32]>,
}
impl Record for RefreshTokenRecord {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceTokenKind {
    Access,
    Refresh,
}
impl Record for DeviceTokenKind {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginTokenRecord {
    pub user: UserNid,
    pub expires_ms: u64,
}
impl Record for LoginTokenRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenIdTokenRecord {
    pub user: UserNid,
    pub expires_ms: u64,
}
impl Record for OpenIdTokenRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationTokenRecord {
    /// `None`: unlimited.
    pub uses_allowed: Option<u64>,
    pub completed: u64,
    pub expires_ms: Option<u64>,
    pub created_ms: u64,
}
impl Record for RegistrationTokenRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UiaSessionRecord {
    /// What the session was opened for (endpoint and user); it completes nothing else.
    pub purpose: String,
    /// SHA-256 of the request body without `auth`: the operation must not change between stages.
    pub request: [u8; 32],
    pub completed: Vec<String>,
    /// A registration token that passed its stage.
    pub registration_token: Option<String>,
    /// The validation session of an e-mail address that passed its stage.
    pub email_session: Option<String>,
    pub expires_ms: u64,
}
impl Record for UiaSessionRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileFieldRecord {
    pub json: String,
}
impl Record for ProfileFieldRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDataRecord {
    pub json: String,
}
impl Record for AccountDataRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterRecord {
    pub json: String,
}
impl Record for FilterRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRecord {
    pub reporter: UserNid,
    pub room: Option<RoomNid>,
    pub event: Option<EventNid>,
    pub reported_user: Option<String>,
    pub reason: Option<String>,
    pub score: Option<i64>,
    pub at_ms: u64,
}
impl Record for ReportRecord {}
