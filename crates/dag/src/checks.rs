//! The checks on receipt of a PDU as a path of types: [`RawPdu`] -> [`FormedPdu`] -> [`VerifiedPdu`] ->
//! [`AuthorizedPdu`] -> [`Verdict`](crate::Verdict) (Server-Server API, "Checks performed on receipt of a PDU").
//!
//! No step can be skipped or repeated. Must not know: how keys, auth events and states were obtained.
//!
//! | check of the specification | where | if it fails |
//! |---|---|---|
//! | 1 is a valid event | [`format`] | dropped |
//! | 2 signatures | [`signatures`] | dropped |
//! | 3 hash | [`signatures`] | redacted, then goes on |
//! | 4 authorised by its auth events | [`auth_events`] | rejected |
//! | 5 by the state before it | [`room_state`] | rejected |
//! | 6 by the current state | [`room_state`] | soft-failed |
//! | 7 validated by the policy server | [`policy_server`] | soft-failed |

pub mod auth_events;
mod countersign;
pub mod format;
pub mod policy_server;
pub mod room_state;
pub mod signatures;

pub use self::{
    auth_events::{Unauthorized, missing_auth_events},
    format::{FormedPdu, RawPdu},
    policy_server::{check_policy_server, policy_of, with_signature},
    room_state::AuthorizedPdu,
    signatures::{SignatureError, VerifiedPdu, VerifyingKeys, servers_to_sign},
};
use crate::ReceiveError;

/// Why nothing of a PDU is kept.
#[derive(Debug, thiserror::Error)]
pub enum Dropped {
    #[error(transparent)]
    Format(#[from] ReceiveError),
    #[error("a signature is missing or wrong: {0}")]
    Signature(#[from] SignatureError),
}

#[cfg(test)]
mod tests;
