//! A whole server in one thread: the real router and domain crates over a simulated disk, with simulated time and a
//! seeded source of chance; no sockets.
//!
//! - [`disk`]: a disk that takes its time, and loses what it had not finished when the power goes.
//! - [`server`]: a server on such a disk, on a machine of its own; it can be crashed and started again.
//! - [`settings`]: what a server is told besides.
//! - [`network`]: what servers reach each other by; [`faults`]: what goes wrong on the way.
//! - [`puppet`]: a remote server in the hands of a test.
//! - [`client`]: a client that keeps what it was shown, as a real one does; `gaps`: whether what it was not shown at once is
//!   really apart.
//! - [`sliding`]: the same for sliding sync.
//! - [`world`]: several servers and their users, as stories are told; [`user`]: what users do and see in them.
//! - [`workload`]: many clients doing random things, with crashes, and the checks of what must hold.
//! - [`storm`]: random users on several servers in bad weather, and the checks of what must hold; `lawful` is the one that
//!   replays the rules of rooms, `agreement` the one that compares servers.
//!
//! For tests only.

pub use myelin_testenv as env;

mod agreement;
pub mod client;
pub mod disk;
pub mod faults;
mod gaps;
mod lawful;
mod machine;
pub mod network;
pub mod puppet;
pub mod server;
pub mod settings;
pub mod sliding;
pub mod storm;
pub mod user;
pub mod workload;
pub mod world;

/// Whole numbers from the seeded source.
pub fn below(env: &myelin_core::Env, bound: usize) -> usize {
    let mut bytes = [0; 8];
    env.rng.fill(&mut bytes);
    (u64::from_le_bytes(bytes) % bound.max(1) as u64) as usize
}
