//! Records of third-party identifiers.

use serde::{Deserialize, Serialize};

use crate::codec::Record;

/// An address that a user has shown to be theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreepidRecord {
    pub validated_ms: u64,
    pub added_ms: u64,
}
impl Record for ThreepidRecord {}

/// What somebody who proves to own an address wants to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValidationPurpose {
    Register,
    Add,
    ResetPassword,
}

/// The proof that somebody reads the mail of an address, under way or given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidationSessionRecord {
    pub purpose: ValidationPurpose,
    pub medium: String,
    /// In its canonical form.
    pub address: String,
    pub client_secret: String,
    pub send_attempt: u64,
    /// SHA-256 of the token in the newest mail.
    pub token: [u8; 32],
    pub wrong_tokens: u8,
    pub next_link: Option<String>,
    pub validated_ms: Option<u64>,
    pub expires_ms: u64,
}
impl Record for ValidationSessionRecord {}

/// The newest session of one client for one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRef {
    pub sid: String,
}
impl Record for SessionRef {}
