//! A request body must keep coming: slowly is fine, as from a telephone at the edge of its cell, but who hardly sends
//! anything holds memory and a connection on purpose.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::BoxError;
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use hyper::body::{Body, Frame, SizeHint};
use myelin_core::Clock;

/// So much must come ...
const PACE_SIZE: usize = 16 * 1024;
/// ... while it is waited for so long.
const PACE_TIME: Duration = Duration::from_secs(30);

pub struct Paced<B> {
    body: B,
    clock: Arc<dyn Clock>,
    /// Bytes since the time was set.
    brought: usize,
    /// Set when nothing was there: when so much must have come.
    waiting: Option<BoxFuture<'static, ()>>,
}

impl<B> Paced<B> {
    pub fn new(body: B, clock: Arc<dyn Clock>) -> Self {
        Self { body, clock, brought: 0, waiting: None }
    }

    fn count(&mut self, size: usize) {
        self.brought = self.brought.saturating_add(size);
        if self.brought >= PACE_SIZE {
            (self.brought, self.waiting) = (0, None);
        }
    }

    fn is_too_slow(&mut self, context: &mut Context<'_>) -> bool {
        let clock = &self.clock;
        let waiting = self.waiting.get_or_insert_with(|| clock.sleep(PACE_TIME));
        waiting.poll_unpin(context).is_ready()
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.count(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => Poll::Ready(end.map(|end| end.map_err(Into::into))),
            Poll::Pending if self.is_too_slow(context) => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "the body comes too slowly");
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};
    use myelin_testenv::Sim;

    use super::*;

    /// Sends `size` bytes every `interval`, `times` times, then ends; what became of that.
    fn sent(size: usize, interval: Duration, times: usize) -> Result<usize, String> {
        let sim = Sim::new(1);
        let env = sim.env();
        let chunks = stream::iter(0..times).then(move |_| {
            let sleep = env.clock.sleep(interval);
            async move {
                sleep.await;
                Ok::<_, io::Error>(Frame::data(Bytes::from(vec![0; size])))
            }
        });
        let body = Paced::new(StreamBody::new(chunks.boxed()), sim.env().clock);
        let collected = sim.block_on(body.collect());
        collected.map(|collected| collected.to_bytes().len()).map_err(|error| error.to_string())
    }

    #[test]
    fn slow_bodies_arrive_and_those_that_hardly_come_do_not() {
        let second = Duration::from_secs(1);
        assert_eq!(sent(1024, second, 10_000), Ok(10_000 * 1024));
        assert_eq!(sent(16 * 1024, 29 * second, 100), Ok(100 * 16 * 1024));
        assert_eq!(sent(10, second, 20), Ok(200), "a small one needs not be quick");
        let too_slow = Err("the body comes too slowly".to_owned());
        assert_eq!(sent(1, second, 100_000), too_slow);
        assert_eq!(sent(16 * 1024, 31 * second, 2), too_slow);
    }
}
