//! What handlers can ask for with `State<T>`: each takes the parts that it uses, nobody takes all.

use std::sync::Arc;

use axum::extract::FromRef;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use myelin_core::Env;
use myelin_federation::{
    Client, Devices, Federation, Handshakes, Identity, Inbound, Keyring, Peers, Remote, Sender, Serve,
};
use myelin_media::{Media, preview::Previews};
use myelin_rooms::Rooms;
use myelin_search::Search;
use myelin_store::Store;
use myelin_sync::Sync;
use myelin_users::Users;
use myelin_view::View;

use crate::{
    config::ServerConfig, extract::Unverified, per_origin::Origins, rate_limit::RateLimiter,
    rendezvous::Rendezvous,
};

/// Everything that the composition root hands in.
pub struct Parts {
    pub view: View,
    pub config: ServerConfig,
    pub users: Arc<Users>,
    pub rooms: Arc<Rooms>,
    pub sync: Arc<Sync>,
    pub federation: Federation,
    pub media: Arc<Media>,
    pub previews: Arc<Previews>,
    pub search: Arc<Search>,
    pub identity: Arc<Identity>,
    pub shutdown: Shutdown,
}

/// The router's state. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Shares>);

struct Shares {
    view: View,
    config: Arc<ServerConfig>,
    users: Arc<Users>,
    rooms: Arc<Rooms>,
    sync: Arc<Sync>,
    federation: Federation,
    media: Arc<Media>,
    previews: Arc<Previews>,
    search: Arc<Search>,
    identity: Arc<Identity>,
    shutdown: Shutdown,
    limiter: Arc<RateLimiter>,
    origins: Arc<Origins>,
    unverified: Unverified,
    rendezvous: Arc<Rendezvous>,
}

impl AppState {
    pub fn new(parts: Parts) -> Self {
        let limiter = RateLimiter::new(parts.view.env.clock.clone(), parts.config.rate_limits.clone());
        let rendezvous = Rendezvous::new(parts.view.env.clone());
        let origins = Arc::new(Origins::new(parts.view.env.clone()));
        Self(Arc::new(Shares {
            view: parts.view,
            config: Arc::new(parts.config),
            users: parts.users,
            rooms: parts.rooms,
            sync: parts.sync,
            federation: parts.federation,
            media: parts.media,
            previews: parts.previews,
            search: parts.search,
            identity: parts.identity,
            shutdown: parts.shutdown,
            limiter: Arc::new(limiter),
            origins,
            unverified: Unverified::default(),
            rendezvous,
        }))
    }

    pub(crate) fn config(&self) -> &ServerConfig {
        &self.0.config
    }

    pub(crate) fn users(&self) -> &Users {
        &self.0.users
    }

    pub(crate) fn limiter(&self) -> &RateLimiter {
        &self.0.limiter
    }
}

macro_rules! parts {
    ($($field:ident: $type:ty),* $(,)?) => {$(
        impl FromRef<AppState> for $type {
            fn from_ref(state: &AppState) -> Self {
                state.0.$field.clone()
            }
        }
    )*};
}
parts!(
    view: View,
    config: Arc<ServerConfig>,
    users: Arc<Users>,
    rooms: Arc<Rooms>,
    sync: Arc<Sync>,
    media: Arc<Media>,
    previews: Arc<Previews>,
    search: Arc<Search>,
    identity: Arc<Identity>,
    shutdown: Shutdown,
    limiter: Arc<RateLimiter>,
    origins: Arc<Origins>,
    unverified: Unverified,
    rendezvous: Arc<Rendezvous>,
);

macro_rules! federation_parts {
    ($($field:ident: $type:ty),* $(,)?) => {$(
        impl FromRef<AppState> for Arc<$type> {
            fn from_ref(state: &AppState) -> Self {
                state.0.federation.$field.clone()
            }
        }
    )*};
}
federation_parts!(
    peers: Peers,
    client: Client,
    devices: Devices,
    keys: Keyring,
    inbound: Inbound,
    handshakes: Handshakes,
    sender: Sender,
    serve: Serve,
    remote: Remote,
);

impl FromRef<AppState> for Env {
    fn from_ref(state: &AppState) -> Self {
        state.0.view.env.clone()
    }
}

impl FromRef<AppState> for Store {
    fn from_ref(state: &AppState) -> Self {
        state.0.view.store.clone()
    }
}

/// Tells long polls that the server is going down: they answer at once with what they have.
#[derive(Clone)]
pub struct Shutdown(Shared<BoxFuture<'static, ()>>);

impl Shutdown {
    /// The server goes down when `signal` completes.
    pub fn when(signal: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(signal.boxed().shared())
    }

    pub fn never() -> Self {
        Self::when(std::future::pending())
    }

    /// Completes once the server is going down.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + Unpin + 'static {
        self.0.clone()
    }

    pub fn is_requested(&self) -> bool {
        self.0.clone().now_or_never().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_is_seen_by_everybody() {
        let (trigger, signal) = futures::channel::oneshot::channel::<()>();
        let shutdown = Shutdown::when(signal.map(|_| ()));
        let waiting = shutdown.clone().requested();
        assert!(!shutdown.is_requested());
        trigger.send(()).unwrap();
        assert!(shutdown.is_requested());
        assert!(waiting.now_or_never().is_some());
        assert!(!Shutdown::never().is_requested());
    }
}
