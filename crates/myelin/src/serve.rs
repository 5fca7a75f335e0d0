//! Running the server: bind, announce, answer, drain, close.

mod connections;
pub mod control;
mod listener;
mod pace;
mod patience;
mod summary;
#[cfg(test)]
mod tests;
pub mod tls;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use futures::{FutureExt, future::join_all};
use myelin_api::Shutdown;
use myelin_core::Env;
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use self::{connections::Connections, listener::Bound};
use crate::{
    compose::{Server, serves},
    config::{Config, Loaded},
};

/// How long running requests may take to finish once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// File descriptors kept for the store and everything else that is not a connection.
const DESCRIPTORS_RESERVED: u64 = 256;
const CONNECTIONS_MAX: usize = 16_384;

/// Runs until SIGTERM or SIGINT.
pub async fn run(loaded: &Loaded, dev: bool) -> anyhow::Result<()> {
    let config = &loaded.config;
    if dev {
        ensure_loopback(config)?;
    }
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let (per_address, proxies) =
        (config.server.connections_per_address, config.server.trusted_proxies.clone());
    let connections = Arc::new(Connections::new(connections_max(), per_address, proxies));
    let mut signals = Signals::install()?;
    let server = Server::open(config, crate::system::env()).await?;
    let (stop, stopping) = watch::channel(false);
    let bound = bind(&server, config, stopping.clone()).await?;
    server.start_readers();
    let control = control::start(&server, server.notices(config), config, stopping.clone())?;
    let addresses: Vec<_> = bound.iter().map(|bound| bound.address).collect();
    let running =
        bound.into_iter().map(|bound| bound.run(server.env.clone(), connections.clone(), stopping.clone()));
    let mut listeners = Running::spawn(&server.env, join_all(running).map(drop));

    summary::announce(&server, loaded, &addresses, dev).await?;
    sd_notify::notify(false, &[NotifyState::Ready]).ok();
    signals.wait().await;

    tracing::info!("stopping: running requests may finish");
    sd_notify::notify(false, &[NotifyState::Stopping]).ok();
    stop.send_replace(true);
    server.sync.drain();
    tokio::select! {
        drained = server.env.timeout(DRAIN_TIMEOUT, listeners.wait()) => if drained.is_none() {
            tracing::warn!("some requests did not finish in time and are cut off");
        },
        () = signals.wait() => tracing::warn!("told to stop again: not waiting for running requests"),
    }
    drop(control);
    if let Err(error) = server.federation.sender.write_ledger().await {
        tracing::warn!(%error, "the next start repeats what was sent to other servers last");
    }
    server.store.close().await.context("the store could not be closed cleanly")?;
    tracing::info!("stopped");
    Ok(())
}

fn ensure_loopback(config: &Config) -> anyhow::Result<()> {
    let outside = config.server.listen.iter().find(|listener| !listener.address.ip().is_loopback());
    ensure!(
        outside.is_none(),
        "--dev opens registration to everybody and therefore listens on loopback addresses only, not on {}: \
         leave out --dev, or change server.listen",
        outside.map(|listener| listener.address.to_string()).unwrap_or_default()
    );
    Ok(())
}

async fn bind(
    server: &Server,
    config: &Config,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<Vec<Bound>> {
    let shutdown = Shutdown::when(async move {
        // A dropped sender means that the process ends: that is a shutdown too.
        stopping.wait_for(|stopping| *stopping).await.map(drop).ok();
    });
    let state = server.state(config, shutdown);
    let mut bound = Vec::new();
    for listener in &config.server.listen {
        bound.push(Bound::bind(listener, myelin_api::router(state.clone(), serves(&listener.serves))).await?);
    }
    Ok(bound)
}

/// Raises the limit of open files as far as it goes, and leaves room for what is not a connection.
fn connections_max() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        tracing::debug!("the open-file limit stays at {current:?}");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let outbound = u64::try_from(crate::outbound::connections_max()).unwrap_or(u64::MAX);
    let connections = descriptors.saturating_sub(DESCRIPTORS_RESERVED + outbound).max(64);
    usize::try_from(connections).map_or(CONNECTIONS_MAX, |connections| connections.min(CONNECTIONS_MAX))
}

/// A task whose end can be awaited.
struct Running(tokio::sync::oneshot::Receiver<()>);

impl Running {
    fn spawn(env: &Env, task: impl Future<Output = ()> + Send + 'static) -> Self {
        let (done, ended) = tokio::sync::oneshot::channel();
        let task = async move {
            task.await;
            done.send(()).ok();
        };
        env.spawner.spawn("listeners", Box::pin(task));
        Self(ended)
    }

    async fn wait(&mut self) {
        (&mut self.0).await.ok();
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> anyhow::Result<Self> {
        let install = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {},
            _ = self.interrupt.recv() => {},
        }
    }
}
