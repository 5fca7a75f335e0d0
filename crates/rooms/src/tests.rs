//! The engine over the memory backend in a simulated world.

mod authority;
mod commits;
mod create;
mod directory;
mod extremities;
mod gaps;
mod memberships;
mod messages;
mod netsplits;
mod outliers;
mod policy;
mod receiving;
mod redactions;
mod resets;
mod upgrades;
mod verdicts;
pub mod world;
