//! What tests of several crates share: a whole server in one thread over the memory store.
//!
//! Must not be a dependency of anything but tests.

pub use myelin_testenv as env;
