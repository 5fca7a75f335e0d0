//! The body of an answer, as it comes: bounded in bytes, in the pause between two pieces and in time altogether.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use http::Response;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use myelin_core::Env;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    error::{Error, Step},
    fetch::Budget,
    pool::{
        Lane, Pool,
        conversation::{self, Sender},
    },
};

/// Longest pause between two pieces. Counted while somebody waits for the next one: who reads slowly is not at fault.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Dropped before its end, it takes its connection (or its stream of HTTP/2) along.
pub struct Body {
    env: Env,
    incoming: Incoming,
    size_max: usize,
    read: usize,
    deadline: Deadline,
    held: Option<Held>,
}

/// When an exchange has to be over.
#[derive(Clone, Copy)]
pub struct Deadline {
    at_ms: u64,
    after: Duration,
}

/// What is held while the body is read: the turn at the peer, and the way into the connection, which is kept for the
/// next request once the body has been read to its end.
pub struct Held {
    pub sender: Sender,
    pub lane: Arc<Lane>,
    pub pool: Weak<Pool>,
    pub turn: OwnedSemaphorePermit,
}

impl Body {
    pub(crate) fn new(
        env: Env,
        incoming: Incoming,
        size_max: usize,
        deadline: Deadline,
        held: Held,
    ) -> Result<Self, Error> {
        let announced = usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > size_max {
            return Err(Error::TooLarge(size_max));
        }
        let mut body = Self { env, incoming, size_max, read: 0, deadline, held: Some(held) };
        if body.incoming.is_end_stream() {
            body.end();
        }
        Ok(body)
    }

    /// As the peer announced it.
    pub fn announced_size(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// The next bytes; `None` at the end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let patience = STALL_TIMEOUT.min(self.deadline.left(&self.env));
            let Some(frame) = self.env.timeout(patience, self.incoming.frame()).await else {
                return Err(self.deadline.passed(&self.env).unwrap_or_else(stalled));
            };
            let Some(frame) = frame else {
                self.end();
                return Ok(None);
            };
            let cut_off = |error| Error::unreachable(Step::Body, conversation::explain(&error));
            // Trailers say nothing here.
            let Ok(piece) = frame.map_err(cut_off)?.into_data() else { continue };
            self.read = self.read.saturating_add(piece.len());
            match self.read > self.size_max {
                true => return Err(Error::TooLarge(self.size_max)),
                false => return Ok(Some(piece)),
            }
        }
    }

    /// All of it.
    pub async fn collect(mut self) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// Ends after its first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
        stream::unfold(Some(self), |body| async move {
            let mut body = body?;
            match body.piece().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(body))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    fn end(&mut self) {
        let Some(Held { sender, lane, pool, turn }) = self.held.take() else { return };
        if let Some(pool) = pool.upgrade() {
            pool.take_back(&lane, sender);
        }
        drop(turn);
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes read)", self.read)
    }
}

impl Deadline {
    pub fn of(budget: Budget, env: &Env) -> Self {
        let timeout_ms = u64::try_from(budget.timeout.as_millis()).unwrap_or(u64::MAX);
        Self { at_ms: env.now_ms().saturating_add(timeout_ms), after: budget.timeout }
    }

    fn left(self, env: &Env) -> Duration {
        Duration::from_millis(self.at_ms.saturating_sub(env.now_ms()))
    }

    fn passed(self, env: &Env) -> Option<Error> {
        self.left(env).is_zero().then_some(Error::TimedOut { step: Step::Answer, after: self.after })
    }
}

fn stalled() -> Error {
    Error::TimedOut { step: Step::Body, after: STALL_TIMEOUT }
}

/// The whole answer.
pub async fn collected(response: Response<Body>) -> Result<Response<Bytes>, Error> {
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, body.collect().await?))
}
