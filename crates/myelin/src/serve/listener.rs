//! Sockets: one listener per entry of `server.listen`, HTTP/1.1 and HTTP/2 on each, TLS where configured, and a
//! shutdown that lets running requests finish.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use myelin_core::Env;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;

use super::patience::Patient;
use crate::config::types::Listener;

const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Somebody who takes nothing of an answer for so long is gone, or holds memory and a file open on purpose.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// After a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const HTTP2_STREAMS_MAX: u32 = 256;
/// One connection's read buffer; a request head must fit.
const HEAD_SIZE_MAX: usize = 64 * 1024;

/// A bound socket and what it answers with.
pub struct Bound {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    pub address: SocketAddr,
}

impl Bound {
    pub async fn bind(listener: &Listener, router: Router) -> anyhow::Result<Self> {
        let tls = listener.tls.as_ref().map(super::tls::acceptor).transpose()?;
        let socket = TcpListener::bind(listener.address).await.with_context(|| {
            format!("cannot listen on {}; is another server running there? (server.listen)", listener.address)
        })?;
        let address = socket.local_addr()?;
        Ok(Self { socket, tls, router, address })
    }

    /// Accepts until `stop` says so, then lets the open connections finish what they are doing.
    pub async fn run(self, env: Env, connections: Arc<Semaphore>, mut stop: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        let shared = Arc::new(Shared { router: self.router, tls: self.tls, env: env.clone() });
        while !*stop.borrow() {
            // Invariant: at the limit nobody is accepted; the kernel's backlog holds whoever comes.
            let accepted = async {
                let permit = connections.clone().acquire_owned().await;
                (self.socket.accept().await, permit)
            };
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                (stream, permit) = accepted => match (stream, permit) {
                    (Ok((stream, peer)), Ok(permit)) => shared.clone().serve(stream, peer, permit, graceful.watcher()),
                    (Err(error), _) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        env.clock.sleep(ACCEPT_PAUSE).await;
                    }
                    (_, Err(_)) => break,
                },
            }
        }
        drop(self.socket);
        graceful.shutdown().await;
    }
}

struct Shared {
    router: Router,
    tls: Option<TlsAcceptor>,
    env: Env,
}

impl Shared {
    fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        watcher: Watcher,
    ) {
        let spawner = self.env.spawner.clone();
        let connection = async move {
            let _permit = permit;
            // Small answers must not wait for company.
            stream.set_nodelay(true).ok();
            match &self.tls {
                None => self.http(stream, peer, watcher).await,
                Some(acceptor) => {
                    match self.env.timeout(TLS_HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                        Some(Ok(stream)) => self.http(stream, peer, watcher).await,
                        Some(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                        None => tracing::debug!(%peer, "TLS handshake took too long"),
                    }
                }
            }
        };
        spawner.spawn("connection", Box::pin(connection));
    }

    async fn http<S>(&self, stream: S, peer: SocketAddr, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            tower::ServiceExt::oneshot(router.clone(), request.map(Body::new))
        });
        let stream = Patient::new(stream, self.env.clock.clone(), WRITE_TIMEOUT);
        let connection = builder().serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD_TIMEOUT)
        .max_buf_size(HEAD_SIZE_MAX)
        .pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .max_header_list_size(HEAD_SIZE_MAX as u32);
    builder
}
