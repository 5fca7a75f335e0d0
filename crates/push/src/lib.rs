//! Push rules (Client-Server API, "Push notifications") as pure functions: which events notify whom.
//!
//! - [`edit`]: the rules of one user as their account data holds them, and changes to them.
//! - [`Ruleset`]: the same rules made ready for evaluation; [`shared`] are those of everybody who changed none.
//! - [`Subject`]: an event as rules look at it.
//! - [`Index`]: whose rules may see an event otherwise than the shared rules do.
//!
//! Must not know: stores, rooms' history, clocks, I/O.

mod compile;
mod condition;
pub mod edit;
mod glob;
mod index;
mod path;
mod subject;
mod trigger;

#[cfg(test)]
mod tests;

pub use compile::{Outcome, Rule, Ruleset, shared};
pub use condition::{Circumstances, Permissions};
pub use index::Index;
pub use subject::Subject;
pub use trigger::Trigger;
