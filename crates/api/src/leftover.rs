//! What is left of a request's body when the answer is ready. A connection that is closed on a client which still sends
//! is reset, and the client may never see why; so the rest is read and thrown away first, within limits.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    BoxError,
    body::{Body, BodyDataStream, HttpBody},
    extract::Request,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header;
use myelin_core::Env;
use parking_lot::Mutex;

/// Bodies up to here arrive with the head or right after it: nothing is left of them worth reading.
const SMALL_BODY_MAX: u64 = 64 * 1024;
/// Who sends more than this loses the connection.
const DRAINED_MAX: usize = 128 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The other end of a body that a handler reads.
pub struct Leftover {
    body: Arc<Mutex<Shared>>,
    /// The client waits for leave to send (`Expect: 100-continue`): unasked, it sends nothing.
    polite: bool,
}

struct Shared {
    stream: BodyDataStream,
    touched: bool,
    ended: bool,
}

impl Leftover {
    /// `None` for small bodies, which are most.
    pub fn of(request: &mut Request) -> Option<Self> {
        if request.body().size_hint().upper().is_some_and(|size| size <= SMALL_BODY_MAX) {
            return None;
        }
        let stream = std::mem::take(request.body_mut()).into_data_stream();
        let body = Arc::new(Mutex::new(Shared { stream, touched: false, ended: false }));
        let shared = body.clone();
        *request.body_mut() =
            Body::from_stream(stream::poll_fn(move |context| shared.lock().poll_next(context)));
        Some(Self { body, polite: request.headers().contains_key(header::EXPECT) })
    }

    pub async fn drain(self, env: &Env) {
        let rest = {
            let body = self.body.lock();
            !body.ended && (body.touched || !self.polite)
        };
        if rest {
            env.timeout(DRAIN_TIMEOUT, self.discard()).await;
        }
    }

    async fn discard(&self) {
        let mut rest = stream::poll_fn(|context| self.body.lock().poll_next(context));
        let mut drained = 0;
        while let Some(Ok(chunk)) = rest.next().await {
            drained += chunk.len();
            if drained > DRAINED_MAX {
                return;
            }
        }
    }
}

impl Shared {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        self.touched = true;
        if self.ended {
            return Poll::Ready(None);
        }
        let next = self.stream.poll_next_unpin(context);
        self.ended = matches!(next, Poll::Ready(None | Some(Err(_))));
        next.map_err(Into::into)
    }
}
