//! The rules of a room as pure functions: PDUs, their making and checking, authorisation, redaction, visibility,
//! and the state tree.
//!
//! Must not know: stores, networks, clocks, async runtimes. What is missing comes back as a value (`Need`), and the
//! driver fetches it and asks again.

pub mod acl;
pub mod auth;
pub mod auth_chain;
pub mod build;
pub mod canonical;
pub mod checks;
pub mod client_form;
pub mod extremities;
pub mod hashes;
pub mod pdu;
pub mod redaction;
pub mod resets;
pub mod resolve;
pub mod room_version;
pub mod signing;
pub mod state_tree;
pub mod visibility;

#[cfg(test)]
mod samples;

pub use auth::{Rejection, Verdict, auth_types, authorize};
pub use auth_chain::AuthChain;
pub use build::{BuildError, Names, NewEvent, Parents, build, needs_names};
pub use canonical::{JsonError, check_json};
pub use extremities::{Extremity, ForwardExtremities};
pub use pdu::{Pdu, ReceiveError, Relation};
pub use resets::{Reset, ResetKind, resets};
pub use resolve::resolve;
pub use room_version::rules;
pub use signing::SigningKey;
pub use state_tree::{NodeHash, StateTree};
