//! A connection whose other end must say what it wants, and take what it asked for: silence at its beginning ends it, and
//! so does writing that makes no progress for a while.

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

/// By these bytes HTTP/2 is told from HTTP/1. Until that is clear nobody else looks at the time.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy)]
pub struct Times {
    /// Until it is clear what is spoken.
    pub greeting: Duration,
    /// Until something of what is written has been taken.
    pub write: Duration,
}

pub struct Patient<S> {
    stream: S,
    clock: Arc<dyn Clock>,
    times: Times,
    /// `None` once it is clear what is spoken.
    greeting: Option<Greeting>,
    /// Set while the other end takes nothing.
    waiting: Option<BoxFuture<'static, ()>>,
}

#[derive(Default)]
struct Greeting {
    /// Bytes of the preface that have come.
    come: usize,
    waiting: Option<BoxFuture<'static, ()>>,
}

impl Greeting {
    /// Whether these bytes, which come next, make clear what is spoken.
    fn is_complete(&mut self, bytes: &[u8]) -> bool {
        let rest = &PREFACE[self.come..];
        let same = rest.iter().zip(bytes).take_while(|(expected, byte)| expected == byte).count();
        self.come += same;
        same < bytes.len() || self.come == PREFACE.len()
    }
}

impl<S> Patient<S> {
    pub fn new(stream: S, clock: Arc<dyn Clock>, times: Times) -> Self {
        Self { stream, clock, times, greeting: Some(Greeting::default()), waiting: None }
    }

    /// Passes on what became of a write, unless nothing has become of it for too long.
    fn judge<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let (clock, timeout) = (&self.clock, self.times.write);
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
        let this = &mut *self;
        let filled = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some(greeting) = &mut this.greeting else { return outcome };
        if outcome.is_ready() {
            if greeting.is_complete(&buffer.filled()[filled..]) {
                this.greeting = None;
            }
            return outcome;
        }
        let (clock, timeout) = (&this.clock, this.times.greeting);
        let waiting = greeting.waiting.get_or_insert_with(|| clock.sleep(timeout));
        waiting.poll_unpin(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
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

    fn hurried<S>(stream: S) -> Patient<S> {
        let second = Duration::from_secs(1);
        Patient::new(stream, Arc::new(Hurried), Times { greeting: second, write: second })
    }

    /// What becomes of reading on, once `said` has been read.
    async fn reads_on(said: &[u8]) -> bool {
        let (here, mut there) = tokio::io::duplex(1024);
        let mut patient = hurried(here);
        there.write_all(said).await.expect("there is room");
        let mut read = vec![0; said.len()];
        patient.read_exact(&mut read).await.expect("what was said");
        let waits = futures::poll!(Box::pin(patient.read_u8()));
        waits.is_pending()
    }

    #[tokio::test]
    async fn who_does_not_say_what_is_spoken_is_given_up() {
        for silent in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
            assert!(!reads_on(silent).await, "{silent:?}");
        }
        for said in [&b"G"[..], b"PUT", b"PRI * HTTP/1", PREFACE, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0"] {
            assert!(reads_on(said).await, "{said:?}");
        }
    }

    #[tokio::test]
    async fn who_takes_nothing_is_given_up_and_who_takes_something_is_not() {
        let (here, mut there) = tokio::io::duplex(4);
        let mut patient = hurried(here);
        patient.write_all(b"four").await.expect("there is room");
        let refused = patient.write_all(b"more").await.expect_err("nobody takes it");
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        let mut taken = [0; 4];
        there.read_exact(&mut taken).await.expect("what was written");
        assert_eq!(&taken, b"four");
    }
}
