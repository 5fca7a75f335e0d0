//! Bearer tokens: made from the rng port, stored only as hashes.

use myelin_core::Env;
use sha2::{Digest, Sha256};

pub(crate) type TokenHash = [u8; 32];

/// 43 characters of 62: 256 bits.
const RANDOM_LENGTH: usize = 43;

/// The prefix tells people and secret scanners what leaked.
pub(crate) const ACCESS: &str = "myla";
pub(crate) const REFRESH: &str = "mylr";
pub(crate) const LOGIN: &str = "myll";
pub(crate) const OPENID: &str = "mylo";

pub(crate) fn make(env: &Env, prefix: &str) -> String {
    format!("{prefix}_{}", env.random_string(RANDOM_LENGTH))
}

pub(crate) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// A token that carries its expiry, so that its row can be keyed by it and swept in order.
pub(crate) fn make_expiring(env: &Env, prefix: &str, expires_ms: u64) -> String {
    format!("{prefix}_{expires_ms:x}_{}", env.random_string(RANDOM_LENGTH))
}

/// The row key of a token from [`make_expiring`]; `None` if it is none.
pub(crate) fn expiring_key(token: &str) -> Option<TokenHash> {
    let expires_ms = u64::from_str_radix(token.split('_').nth(1)?, 16).ok()?;
    let mut key = hash(token);
    key.copy_within(0..24, 8);
    key[..8].copy_from_slice(&expires_ms.to_be_bytes());
    Some(key)
}

/// Rows with keys below this have expired at `now_ms`.
pub(crate) fn expired_before(now_ms: u64) -> TokenHash {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&now_ms.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::env;

    #[test]
    fn expiring_keys_are_in_order_of_expiry() {
        let env = env();
        let early = expiring_key(&make_expiring(&env, LOGIN, 0x1ff)).unwrap();
        let late = expiring_key(&make_expiring(&env, LOGIN, 0x200)).unwrap();
        assert!(early < late);
        assert!(early < expired_before(0x200) && expired_before(0x200) <= late);
    }

    #[test]
    fn foreign_text_has_no_key() {
        for text in ["", "myll", "myll_", "myll_xyz_abc", "myll_fffffffffffffffff_a"] {
            assert_eq!(expiring_key(text), None, "{text}");
        }
    }
}
