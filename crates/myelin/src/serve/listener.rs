//! Sockets: one listener per entry of `server.listen`, HTTP/1.1 and HTTP/2 on each, TLS where configured, and a
//! shutdown that lets running requests finish.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::body::{Body as _, Incoming};
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
    sync::watch,
};

use super::{
    connections::{Connections, Place},
    pace::Paced,
    patience::{Patient, Times},
    tls::Certified,
};
use crate::config::types::Listener;

const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Somebody who takes nothing of an answer for so long is gone, or holds memory and a file open on purpose.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// After a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the files of the certificate are looked at: they are renewed while the server runs.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(60);
const HTTP2_STREAMS_MAX: u32 = 256;
/// One connection's read buffer; a request head must fit.
const HEAD_SIZE_MAX: usize = 64 * 1024;

/// A bound socket and what it answers with.
pub struct Bound {
    socket: TcpListener,
    tls: Option<Certified>,
    router: Router,
    pub address: SocketAddr,
}

impl Bound {
    pub async fn bind(listener: &Listener, router: Router) -> anyhow::Result<Self> {
        let tls = listener.tls.as_ref().map(Certified::load).transpose()?;
        let socket = TcpListener::bind(listener.address).await.with_context(|| {
            format!("cannot listen on {}; is another server running there? (server.listen)", listener.address)
        })?;
        let address = socket.local_addr()?;
        Ok(Self { socket, tls, router, address })
    }

    /// Accepts until `stop` says so, then lets the open connections finish what they are doing.
    pub async fn run(self, env: Env, connections: Arc<Connections>, mut stop: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        let shared = Arc::new(Shared { router: self.router, tls: self.tls, env: env.clone() });
        let mut look = env.clock.sleep(CERTIFICATE_INTERVAL);
        while !*stop.borrow() {
            // Invariant: at the limit nobody is accepted; the kernel's backlog holds whoever comes.
            let accepted = async {
                let vacancy = connections.vacancy().await;
                (self.socket.accept().await, vacancy)
            };
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                () = &mut look => {
                    shared.renew_certificate();
                    look = env.clock.sleep(CERTIFICATE_INTERVAL);
                },
                (stream, vacancy) = accepted => match (stream, vacancy) {
                    (Ok((stream, peer)), Ok(vacancy)) => match connections.admit(peer.ip(), vacancy) {
                        Some(place) => shared.clone().serve(stream, peer, place, graceful.watcher()),
                        None => tracing::debug!(%peer, "too many connections from one address"),
                    },
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
    tls: Option<Certified>,
    env: Env,
}

impl Shared {
    fn renew_certificate(&self) {
        if let Some(Err(error)) = self.tls.as_ref().map(Certified::renew) {
            tracing::error!(%error, "the new certificate cannot be used; the old one stays");
        }
    }

    fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Place, watcher: Watcher) {
        let spawner = self.env.spawner.clone();
        let connection = async move {
            let _place = place;
            // Small answers must not wait for company.
            stream.set_nodelay(true).ok();
            match &self.tls {
                None => self.http(stream, peer, watcher).await,
                Some(certified) => {
                    let handshake = certified.acceptor.accept(stream);
                    match self.env.timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await {
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
        let clock = self.env.clock.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let request = request.map(|body| match body.is_end_stream() {
                true => Body::empty(),
                false => Body::new(Paced::new(body, clock.clone())),
            });
            tower::ServiceExt::oneshot(router.clone(), request)
        });
        let times = Times { greeting: REQUEST_HEAD_TIMEOUT, write: WRITE_TIMEOUT };
        let stream = Patient::new(stream, self.env.clock.clone(), times);
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
        // Not `pipeline_flush`: with it hyper takes in all of a body that is ready, however little of it has been sent,
        // and keeps back what it answers to a head that is too large.
        .max_buf_size(HEAD_SIZE_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .max_header_list_size(HEAD_SIZE_MAX as u32);
    builder
}
