//! The server's ed25519 signing key (specification appendices, "Signing JSON").
//!
//! Must not know: where the key is kept, or where its seed came from.

use base64::{Engine, engine::general_purpose};
use ruma::{
    serde::Base64,
    signatures::{Ed25519KeyPair, KeyPair},
};

/// DER prefix of a PKCS#8 v1 document that holds a bare ed25519 seed (RFC 8410).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Unpadded base64 that also reads padded text, as Synapse writes and reads it.
pub(crate) const BASE64: general_purpose::GeneralPurpose = general_purpose::GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    general_purpose::GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// An ed25519 key pair and its version, e.g. `ed25519:a_Xyz1`.
pub struct SigningKey {
    seed: [u8; 32],
    version: String,
    key_id: String,
    pair: Ed25519KeyPair,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SigningKeyError {
    #[error("a signing key is one line: 'ed25519 <version> <base64 seed>'")]
    Shape,
    #[error("the version of a signing key consists of 1 to 255 characters of [a-zA-Z0-9_]")]
    Version,
    #[error("the seed of a signing key is 32 bytes in base64")]
    Seed,
}

impl SigningKey {
    /// `seed` must come from a cryptographically strong source.
    pub fn from_seed(version: &str, seed: [u8; 32]) -> Result<Self, SigningKeyError> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        if version.is_empty() || version.len() > 255 || !version.bytes().all(legal) {
            return Err(SigningKeyError::Version);
        }
        let mut document = [0; 48];
        document[..16].copy_from_slice(&PKCS8_PREFIX);
        document[16..].copy_from_slice(&seed);
        let pair =
            Ed25519KeyPair::from_der(&document, version.to_owned()).map_err(|_| SigningKeyError::Seed)?;
        Ok(Self { seed, version: version.to_owned(), key_id: format!("ed25519:{version}"), pair })
    }

    /// Reads the first line of Synapse's key file: `ed25519 <version> <base64 seed>`.
    pub fn from_text(text: &str) -> Result<Self, SigningKeyError> {
        let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let (Some("ed25519"), Some(version), Some(seed), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(SigningKeyError::Shape);
        };
        let seed = BASE64.decode(seed).map_err(|_| SigningKeyError::Seed)?;
        Self::from_seed(version, seed.try_into().map_err(|_| SigningKeyError::Seed)?)
    }

    /// The secret key as Synapse writes it.
    pub fn to_text(&self) -> String {
        format!("ed25519 {} {}\n", self.version, BASE64.encode(self.seed))
    }

    /// `ed25519:<version>`.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn public_key(&self) -> [u8; 32] {
        self.pair.public_key()
    }

    /// The public key as `/_matrix/key/v2/server` shows it.
    pub fn public_key_base64(&self) -> String {
        BASE64.encode(self.public_key())
    }

    /// For `ruma::signatures::verify_event` and relatives.
    pub fn public_key_set(&self) -> ruma::signatures::PublicKeySet {
        [(self.key_id.clone(), Base64::new(self.public_key().to_vec()))].into()
    }

    /// The signature of `message`, in unpadded base64.
    pub fn sign(&self, message: &[u8]) -> String {
        self.pair.sign(message).base64()
    }

    /// For `ruma::signatures::sign_json` and relatives.
    pub fn pair(&self) -> &Ed25519KeyPair {
        &self.pair
    }
}

/// Never shows the seed.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.key_id).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED_LINE: &str = "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n";

    #[test]
    fn text_form_survives_the_round_trip() {
        let key = SigningKey::from_text(SEED_LINE).unwrap();
        assert_eq!(key.key_id(), "ed25519:1");
        assert_eq!(SigningKey::from_text(&key.to_text()).unwrap().public_key(), key.public_key());
        assert!(!format!("{key:?}").contains("YJDB"));
    }

    /// The vectors of the appendices ("Cryptographic Test Vectors", signing JSON `{}`).
    #[test]
    fn signs_as_the_appendices_say() {
        let key = SigningKey::from_text(SEED_LINE).unwrap();
        let expected =
            "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ";
        assert_eq!(key.sign(b"{}"), expected);
    }

    #[test]
    fn malformed_keys_are_refused() {
        let cases = [
            ("", SigningKeyError::Shape),
            ("ed25519 1", SigningKeyError::Shape),
            ("rsa 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", SigningKeyError::Shape),
            ("ed25519 1 YJDB", SigningKeyError::Seed),
            ("ed25519 1 !!!!", SigningKeyError::Seed),
            ("ed25519 a:b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", SigningKeyError::Version),
        ];
        for (text, expected) in cases {
            assert_eq!(SigningKey::from_text(text).unwrap_err(), expected, "{text}");
        }
    }
}
