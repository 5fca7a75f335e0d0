//! Connections that are used again, bounded per peer and in total, and one request on one of them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use myelin_core::Env;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::conversation::Sender;
use crate::{
    body::{Body, Deadline, Held},
    dial::{Dialer, Endpoint},
    error::{Error, Step},
};

pub mod conversation;

/// Requests at once to one peer; with HTTP/1.1 that many connections.
const REQUESTS_PER_PEER_MAX: usize = 16;
/// Less than what servers and proxies wait before they close, mostly a minute.
const IDLE_MS_MAX: u64 = 45_000;
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);
/// How long a request waits for a connection when all that may be open are in use.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Whom a connection leads to. Two names behind one address are two peers: they have different certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    endpoint: Endpoint,
    /// `None`: without TLS.
    certificate_name: Option<ServerName<'static>>,
}

impl Peer {
    pub fn secure(endpoint: Endpoint, certificate_name: ServerName<'static>) -> Self {
        Self { endpoint, certificate_name: Some(certificate_name) }
    }

    pub fn plain(endpoint: Endpoint) -> Self {
        Self { endpoint, certificate_name: None }
    }
}

pub struct Pool {
    env: Env,
    pub dialer: Dialer,
    /// Connections that may still be opened.
    vacancies: Arc<Semaphore>,
    /// Requests that wait for one of them.
    waiting: AtomicUsize,
    lanes: Mutex<Lanes>,
    this: Weak<Self>,
}

#[derive(Default)]
struct Lanes {
    by_peer: HashMap<Peer, Arc<Lane>>,
    /// Whether the sweeper runs; it ends when there is nothing left to sweep.
    swept: bool,
}

/// What goes to one peer.
pub struct Lane {
    turns: Arc<Semaphore>,
    kept: Mutex<Vec<Kept>>,
}

/// A connection that waits for its next request.
struct Kept {
    sender: Sender,
    since_ms: u64,
}

impl Pool {
    pub fn new(env: Env, dialer: Dialer, connections_max: usize) -> Arc<Self> {
        let vacancies = Arc::new(Semaphore::new(connections_max));
        Arc::new_cyclic(|this| Self {
            env,
            dialer,
            vacancies,
            waiting: AtomicUsize::new(0),
            lanes: Mutex::default(),
            this: this.clone(),
        })
    }

    /// The head of the answer, and its body as it comes. The URI of `request` is absolute.
    pub async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Bytes>,
        body_size_max: usize,
        deadline: Deadline,
    ) -> Result<Response<Body>, Error> {
        let lane = self.lane(peer);
        let closed = |_| Error::unreachable(Step::Queue, "nothing is sent any more");
        let turn = lane.turns.clone().acquire_owned().await.map_err(closed)?;
        let (sender, response) = self.answered(&lane, peer, &request).await?;
        let (head, incoming) = response.into_parts();
        let held = Held { sender, lane, pool: self.this.clone(), turn };
        let body = Body::new(self.env.clone(), incoming, body_size_max, deadline, held)?;
        Ok(Response::from_parts(head, body))
    }

    async fn answered(
        &self,
        lane: &Lane,
        peer: &Peer,
        request: &Request<Bytes>,
    ) -> Result<(Sender, Response<Incoming>), Error> {
        while let Some(mut sender) = lane.take(self.env.now_ms()) {
            match sender.send(request).await {
                Err(failure) if failure.is_worth_another_connection(request.method()) => lane.forget(),
                outcome => return Ok((sender, outcome?)),
            }
        }
        let mut sender = self.open(lane, peer).await?;
        let response = sender.send(request).await?;
        Ok((sender, response))
    }

    /// A connection whose answer has been read to its end.
    pub fn take_back(&self, lane: &Lane, sender: Sender) {
        // Somebody who waits for a vacancy needs it more.
        if !sender.is_shared() && self.waiting.load(Ordering::Relaxed) == 0 {
            lane.keep(sender, self.env.now_ms());
        }
    }

    async fn open(&self, lane: &Lane, peer: &Peer) -> Result<Sender, Error> {
        let permit = self.vacancy().await?;
        let stream = self.dialer.connect(&peer.endpoint).await?;
        let broken = |error: hyper::Error| {
            Error::unreachable(Step::Connect(peer.endpoint.to_string()), conversation::explain(&error))
        };
        let Some(name) = &peer.certificate_name else {
            let (sender, connection) = conversation::http1(TokioIo::new(stream)).await.map_err(broken)?;
            self.drive(connection, permit);
            return Ok(Sender::Http1(sender));
        };
        let stream = self.dialer.secure(stream, name).await?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let (sender, connection) = conversation::http2(TokioIo::new(stream)).await.map_err(broken)?;
            self.drive(connection, permit);
            lane.keep(Sender::Http2(sender.clone()), self.env.now_ms());
            return Ok(Sender::Http2(sender));
        }
        let (sender, connection) = conversation::http1(TokioIo::new(stream)).await.map_err(broken)?;
        self.drive(connection, permit);
        Ok(Sender::Http1(sender))
    }

    fn drive(
        &self,
        connection: impl Future<Output = hyper::Result<()>> + Send + 'static,
        permit: OwnedSemaphorePermit,
    ) {
        let driven = connection.map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to another server ended");
            }
            drop(permit);
        });
        self.env.spawner.spawn("outbound connection", driven.boxed());
    }

    async fn vacancy(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = self.vacancies.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::new(&self.waiting);
        // Somebody's idle connection makes room.
        self.lanes.lock().by_peer.values().find_map(|lane| lane.kept.lock().pop());
        let permit = self.env.timeout(QUEUE_TIMEOUT, self.vacancies.clone().acquire_owned()).await;
        let timed_out = || Error::TimedOut { step: Step::Queue, after: QUEUE_TIMEOUT };
        permit.and_then(Result::ok).ok_or_else(timed_out)
    }

    fn lane(&self, peer: &Peer) -> Arc<Lane> {
        let mut lanes = self.lanes.lock();
        if !std::mem::replace(&mut lanes.swept, true) {
            let sweeping = sweep(self.this.clone(), self.env.clone());
            self.env.spawner.spawn("outbound sweep", sweeping.boxed());
        }
        lanes.by_peer.entry(peer.clone()).or_default().clone()
    }

    /// Drops what has been idle for long; whether there is nothing left.
    fn drop_idle(&self) -> bool {
        let now = self.env.now_ms();
        let mut lanes = self.lanes.lock();
        lanes.by_peer.retain(|_, lane| {
            lane.kept.lock().retain(|kept| kept.is_fresh(now));
            Arc::strong_count(lane) > 1 || !lane.kept.lock().is_empty()
        });
        lanes.swept = !lanes.by_peer.is_empty();
        lanes.by_peer.is_empty()
    }
}

/// Counts itself for as long as it lives, however the waiting ends.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn sweep(pool: Weak<Pool>, env: Env) {
    loop {
        env.clock.sleep(SWEEP_INTERVAL).await;
        if pool.upgrade().is_none_or(|pool| pool.drop_idle()) {
            return;
        }
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(REQUESTS_PER_PEER_MAX)), kept: Mutex::default() }
    }
}

impl Lane {
    /// A connection that is still open. One of HTTP/2 stays for others.
    fn take(&self, now_ms: u64) -> Option<Sender> {
        let mut kept = self.kept.lock();
        kept.retain(|kept| kept.is_fresh(now_ms));
        if let Some(shared) = kept.iter_mut().find(|kept| kept.sender.is_shared()) {
            shared.since_ms = now_ms;
            return shared.sender.share();
        }
        kept.pop().map(|kept| kept.sender)
    }

    fn keep(&self, sender: Sender, now_ms: u64) {
        self.kept.lock().push(Kept { sender, since_ms: now_ms });
    }

    /// The peer went away; what else is kept has ended with it, or would fail the same way.
    fn forget(&self) {
        self.kept.lock().clear();
    }
}

impl Kept {
    fn is_fresh(&self, now_ms: u64) -> bool {
        !self.sender.is_closed() && now_ms.saturating_sub(self.since_ms) < IDLE_MS_MAX
    }
}
