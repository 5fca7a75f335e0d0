//! Records of the signing keys of servers.

use serde::{Deserialize, Serialize};

use crate::codec::Record;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerKeysRecord {
    /// What the server itself said last goes first; an older one is kept as long as it alone has some key.
    pub answers: Vec<KeyAnswerRecord>,
}
impl Record for ServerKeysRecord {}

/// What `/_matrix/key/v2/server` answered, itself or through a notary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAnswerRecord {
    /// Canonical JSON with the signatures that it came with.
    pub json: String,
    pub fetched_ms: u64,
}
impl Record for KeyAnswerRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldSigningKeyRecord {
    pub public_key: [u8; 32],
    /// When this server stopped to sign with it.
    pub expired_ms: u64,
}
impl Record for OldSigningKeyRecord {}
