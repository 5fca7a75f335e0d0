//! Records of end-to-end encryption: keys, device lists, to-device messages. JSON is kept as text.

use myelin_core::UserNid;
use serde::{Deserialize, Serialize};

use crate::codec::Record;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceKeysRecord {
    /// The device keys as uploaded, with the signatures that came later.
    pub json: String,
    /// Of devices of remote users; local ones are named in `devices`.
    pub display_name: Option<String>,
}
impl Record for DeviceKeysRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneTimeKeyRecord {
    pub json: String,
}
impl Record for OneTimeKeyRecord {}

/// What a device has in stock. Every upload and every claim requires the one that it has read, so that no key is given
/// out twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyStockRecord {
    /// Makes every state of the stock unique.
    pub version: u64,
    /// Unclaimed one-time keys by algorithm.
    pub one_time_keys: Vec<(String, u64)>,
    /// At most one per algorithm.
    pub fallback_keys: Vec<FallbackKey>,
}
impl Record for KeyStockRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackKey {
    pub algorithm: String,
    /// `<algorithm>:<key id>`.
    pub name: String,
    pub json: String,
    pub used: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrossSigningKeyRecord {
    /// With the signatures of its owner.
    pub json: String,
}
impl Record for CrossSigningKeyRecord {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum CrossSigningUsage {
    Master = 0,
    SelfSigning = 1,
    UserSigning = 2,
}

impl CrossSigningUsage {
    pub const ALL: [Self; 3] = [Self::Master, Self::SelfSigning, Self::UserSigning];

    /// As in `usage` of a key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySignatureRecord {
    pub signature: String,
}
impl Record for KeySignatureRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToDeviceRecord {
    pub sender: String,
    pub event_type: String,
    pub content: String,
}
impl Record for ToDeviceRecord {}

/// The device list of a user: of a local one as other servers are told about it, of a remote one as it is held here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceListRecord {
    /// The `stream_id` of the last change.
    pub stream_id: u64,
}
impl Record for DeviceListRecord {}

/// A device list of a remote user that is to be fetched anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleDeviceListRecord {
    /// Made unique by every mark, so that a mark that was set during a fetch survives it.
    pub mark: u64,
    pub failures: u32,
    /// When the next fetch is due.
    pub retry_ms: u64,
}
impl Record for StaleDeviceListRecord {}

/// Whose device list changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedDeviceList {
    pub user: UserNid,
}
impl Record for ChangedDeviceList {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyBackupRecord {
    pub algorithm: String,
    /// JSON.
    pub auth_data: String,
    /// Counts changes of the keys.
    pub etag: u64,
    pub count: u64,
    /// Its number is not given out again.
    pub deleted: bool,
}
impl Record for KeyBackupRecord {}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUpKeyRecord {
    pub first_message_index: u64,
    pub forwarded_count: u64,
    pub is_verified: bool,
    /// JSON.
    pub session_data: String,
}
impl Record for BackedUpKeyRecord {}
