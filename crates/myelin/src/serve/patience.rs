//! A connection whose other end must take what it asked for: writing that makes no progress for a while ends it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use myelin_core::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub struct Patient<S> {
    stream: S,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    /// Set while the other end takes nothing.
    waiting: Option<BoxFuture<'static, ()>>,
}

impl<S> Patient<S> {
    pub fn new(stream: S, clock: Arc<dyn Clock>, timeout: Duration) -> Self {
        Self { stream, clock, timeout, waiting: None }
    }

    /// Passes on what became of a write, unless nothing has become of it for too long.
    fn judge<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let (clock, timeout) = (&self.clock, self.timeout);
        let waiting = self.waiting.get_or_insert_with(|| clock.sleep(timeout));
        if waiting.poll_unpin(context).is_pending() {
            return Poll::Pending;
        }
        self.waiting = None;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.judge(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Sleeps no longer than it takes to be asked.
    struct Hurried;

    impl Clock for Hurried {
        fn now_ms(&self) -> u64 {
            0
        }

        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            std::future::ready(()).boxed()
        }
    }

    #[tokio::test]
    async fn who_takes_nothing_is_given_up_and_who_takes_something_is_not() {
        let (here, mut there) = tokio::io::duplex(4);
        let mut patient = Patient::new(here, Arc::new(Hurried), Duration::from_secs(1));
        patient.write_all(b"four").await.expect("there is room");
        let refused = patient.write_all(b"more").await.expect_err("nobody takes it");
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        let mut taken = [0; 4];
        there.read_exact(&mut taken).await.expect("what was written");
        assert_eq!(&taken, b"four");
    }
}
