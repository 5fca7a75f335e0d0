//! Strict JSON: the guard in front of every parser, and the canonical form (specification appendices,
//! "Canonical JSON").
//!
//! One machine does both, in one pass over the text, without recursion and with memory in proportion to the text. It
//! bounds nesting and refuses what parsers disagree about: duplicate keys, bad UTF-8, lone surrogates, raw control
//! characters. Must not know what the JSON means.

mod members;
mod number;
mod rewrite;
mod text;

use myelin_core::limits::{EVENT_FIELD_SIZE_MAX, JSON_DEPTH_MAX, PDU_SIZE_MAX};
use ruma::room_version_rules::AuthorizationRules;

pub use self::{
    members::{Members, Outline, depth, string_value},
    text::push_json_string,
};
use self::{
    number::{INTEGER_LENGTH_MAX, Numbers},
    rewrite::{Policy, Rewriter},
};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("the text is not UTF-8 at byte {at}")]
    NotUtf8 { at: usize },
    #[error("the text is not JSON at byte {at}: {expected}")]
    Syntax { at: usize, expected: &'static str },
    #[error("arrays and objects are nested more than {limit} deep")]
    TooDeep { limit: usize },
    #[error("the key '{0}' occurs twice in one object")]
    DuplicateKey(String),
    #[error("a key contains the NUL character")]
    NulInKey,
    #[error("numbers must be integers here, without fraction, exponent or negative zero (byte {at})")]
    NotAnInteger { at: usize },
    #[error("integers must be between -(2^53)+1 and (2^53)-1 (byte {at})")]
    IntegerOutOfRange { at: usize },
    #[error("the number is too large even for the lenient JSON of old room versions (byte {at})")]
    NumberTooLarge { at: usize },
}

impl JsonError {
    /// Whether the text is no JSON at all (`M_NOT_JSON`), rather than JSON that is not allowed here (`M_BAD_JSON`).
    pub fn is_not_json(&self) -> bool {
        matches!(self, Self::NotUtf8 { .. } | Self::Syntax { .. })
    }
}

/// Guards a body from a client: well-formed JSON, nesting bound, no duplicate keys, no NUL in keys. Numbers may be
/// of any kind (account data is not canonical JSON).
pub fn check_json(json: &[u8]) -> Result<(), JsonError> {
    let policy = Policy { numbers: Numbers::Any, nul_in_keys: false, depth_max: JSON_DEPTH_MAX };
    Rewriter::run(json, policy).map(drop)
}

/// The guard for what becomes the content of an event made here: as [`check_json`], and canonical numbers only.
pub fn check_event_json(json: &[u8]) -> Result<(), JsonError> {
    let policy = Policy { numbers: Numbers::Canonical, nul_in_keys: false, depth_max: JSON_DEPTH_MAX };
    Rewriter::run(json, policy).map(drop)
}

/// The canonical form of any JSON text that has one.
pub fn canonicalize(json: &[u8]) -> Result<String, JsonError> {
    let policy = Policy { numbers: Numbers::Canonical, nul_in_keys: true, depth_max: JSON_DEPTH_MAX };
    Rewriter::run(json, policy)
}

/// The form that is hashed and signed in rooms of this version: up to version 5, numbers of all kinds are part of it
/// (room versions 1 to 5, "Canonical JSON"), written as every server of that time wrote them.
pub fn canonicalize_for(rules: &AuthorizationRules, json: &[u8]) -> Result<String, JsonError> {
    let numbers = match rules.strict_canonical_json {
        true => Numbers::Canonical,
        false => Numbers::Lenient { length_max: INTEGER_LENGTH_MAX },
    };
    Rewriter::run(json, Policy { numbers, nul_in_keys: true, depth_max: JSON_DEPTH_MAX })
}

/// The form that a request of another server is signed in. What is in it is judged piece by piece: so numbers may be as long,
/// and arrays and objects as deep, as anything that fits into a PDU.
pub fn canonicalize_request(json: &[u8]) -> Result<String, JsonError> {
    let numbers = Numbers::Lenient { length_max: PDU_SIZE_MAX };
    Rewriter::run(json, Policy { numbers, nul_in_keys: true, depth_max: PDU_SIZE_MAX })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("longer than {EVENT_FIELD_SIZE_MAX} bytes")]
    TooLong,
    #[error("contains the NUL character")]
    Nul,
}

/// Guards an event type, state key or other name that a client chose.
pub fn check_name(name: &str) -> Result<(), NameError> {
    match name {
        _ if name.len() > EVENT_FIELD_SIZE_MAX => Err(NameError::TooLong),
        _ if name.contains('\0') => Err(NameError::Nul),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
