//! The ports for time, chance and tasks. Domain crates get an [`Env`] and nothing ambient (clippy.toml bans the
//! rest), so a simulation with a seed replays a whole server.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;

/// Wall-clock and timers.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
    /// Completes once `duration` has passed on this clock.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// A cryptographically strong source in production, a seeded one in simulation.
pub trait Rng: Send + Sync + 'static {
    fn fill(&self, bytes: &mut [u8]);
}

/// Where tasks run.
pub trait Spawner: Send + Sync + 'static {
    /// Runs a task to its end, or until the process shuts down.
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>);
    /// Runs CPU-heavy work (password hashing) on a bounded pool; the simulator runs it in place.
    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;
}

/// What a domain crate may use of the world.
#[derive(Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
    pub spawner: Arc<dyn Spawner>,
}

impl Env {
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// `length` characters of `[A-Za-z0-9]`, about 5.95 bits each, unbiased.
    pub fn random_string(&self, length: usize) -> String {
        const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut out = String::with_capacity(length);
        let mut bytes = [0_u8; 64];
        while out.len() < length {
            self.rng.fill(&mut bytes);
            let fair = bytes.iter().map(|b| b & 63).filter(|b| *b < 62);
            out.extend(fair.take(length - out.len()).map(|b| char::from(ALPHABET[usize::from(b)])));
        }
        out
    }

    /// Completes with `None` if `duration` passes first.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Option<F::Output> {
        let sleep = self.clock.sleep(duration);
        futures::pin_mut!(future);
        match futures::future::select(future, sleep).await {
            futures::future::Either::Left((output, _)) => Some(output),
            futures::future::Either::Right(_) => None,
        }
    }

    /// Runs `work` through [`Spawner::run_blocking`] and hands back what it returns.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (sender, receiver) = futures::channel::oneshot::channel();
        self.spawner.run_blocking(Box::new(move || drop(sender.send(work())))).await;
        receiver.await.ok()
    }
}
