//! The HTTP edge: the Client-Server API, its errors, limits and authentication (specification: Client-Server API,
//! "API Standards").
//!
//! A handler parses, authenticates, makes one domain call and maps its result; the pattern is described at
//! [`client`]. Rules and transactions live in the domain crates.
//!
//! Must not know: storage engines, sockets, TLS, configuration files.

mod admin;
pub mod client;
pub mod config;
mod error;
pub mod extract;
mod federation;
mod front;
mod health;
mod leftover;
mod media;
mod metrics;
mod per_origin;
pub mod rate_limit;
mod rendezvous;
pub mod respond;
mod router;
mod state;
pub mod uia;

pub use admin::Notices;
pub use config::ServerConfig;
pub use error::ApiError;
pub use myelin_users::Session;
pub use router::{Serves, router};
pub use state::{AppState, Parts, Shutdown};
