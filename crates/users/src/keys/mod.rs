//! Keys of devices (Client-Server API, "End-to-End Encryption", "Key Distribution").
//!
//! - [`upload`]: identity keys, one-time keys, fallback keys.
//! - [`claim`]: one-time keys, each given out once.
//! - [`query`]: identity and cross-signing keys, as somebody may see them.
//! - [`invalidate`]: what a store that was set back may not give out any more.
//!
//! Must not know: what the keys encrypt.

pub mod claim;
pub mod invalidate;
pub mod query;
pub(crate) mod signed;
#[cfg(test)]
pub(crate) mod tests;
pub mod upload;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use myelin_core::UserNid;
use tokio::sync::{Mutex, MutexGuard};

pub type Json = serde_json::Map<String, serde_json::Value>;

/// Bytes of one one-time or fallback key.
pub const KEY_SIZE_MAX: usize = 4 * 1024;
/// Bytes of the identity keys of a device, or of a cross-signing key, with their signatures.
pub const SIGNED_KEYS_SIZE_MAX: usize = 64 * 1024;
/// Unclaimed one-time keys of one device.
pub const ONE_TIME_KEYS_PER_DEVICE_MAX: usize = 1_000;
/// Bytes of the name of an algorithm, or of a key.
pub const KEY_NAME_SIZE_MAX: usize = 255;

const TURNS: usize = 256;

/// Who changes the stock of a device waits for those who do already: they would only fail. Devices share turns.
pub(crate) struct Turns(Vec<Mutex<()>>);

impl Default for Turns {
    fn default() -> Self {
        Self((0..TURNS).map(|_| Mutex::default()).collect())
    }
}

impl Turns {
    pub async fn take(&self, user: UserNid, device_id: &str) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((user, device_id));
        self.0[(hash % TURNS as u64) as usize].lock().await
    }
}
