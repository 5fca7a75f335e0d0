//! The nouns that every layer shares: numeric ids, positions, tokens, limits, and the ports for time,
//! chance and tasks.
//!
//! Must not know: stores, HTTP, async runtimes, or what a room does.

pub mod address;
pub mod env;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod patterns;
pub mod tally;
pub mod token;

pub use env::{Clock, Env, Rng, Spawner};
pub use ids::{EventNid, Position, RoomNid, StateKeyNid, TimelineOrder, UserNid};
pub use metrics::Metrics;
pub use tally::{Counted, Tally};
pub use token::{SlidingToken, SyncToken, TimelineToken, TokenError};
