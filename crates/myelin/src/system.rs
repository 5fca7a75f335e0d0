//! Time, chance and tasks from the operating system and tokio: the production side of the ports in
//! `myelin_core::env`.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{FutureExt, future::BoxFuture};
use myelin_core::{Clock, Env, Rng, Spawner};
use rand::TryRngCore;
use tokio::sync::Semaphore;

/// The production [`Env`]; call it inside a tokio runtime.
pub fn env() -> Env {
    Env { clock: Arc::new(SystemClock), rng: Arc::new(SystemRng), spawner: Arc::new(TokioSpawner::new()) }
}

struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        #[expect(clippy::disallowed_methods, reason = "this is the clock")]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        #[expect(clippy::disallowed_methods, reason = "this is the clock")]
        let sleep = tokio::time::sleep(duration);
        Box::pin(sleep)
    }
}

struct SystemRng;

impl Rng for SystemRng {
    /// # Panics
    /// If the operating system has no randomness: no secret made then would be one.
    fn fill(&self, bytes: &mut [u8]) {
        rand::rngs::OsRng.try_fill_bytes(bytes).expect("the operating system provides randomness");
    }
}

struct TokioSpawner {
    blocking: Arc<Semaphore>,
}

impl TokioSpawner {
    /// As many at once as there are processors, four at most: a password hash takes 19 MiB.
    const BLOCKING_MAX: usize = 4;

    fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { blocking: Arc::new(Semaphore::new(processors.min(Self::BLOCKING_MAX))) }
    }
}

impl Spawner for TokioSpawner {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        let guarded = async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a background task panicked and has ended");
            }
        };
        #[expect(clippy::disallowed_methods, reason = "this is the spawner")]
        tokio::spawn(guarded);
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let blocking = self.blocking.clone();
        Box::pin(async move {
            let permit = blocking.acquire_owned().await;
            let done = tokio::task::spawn_blocking(move || {
                work();
                drop(permit);
            });
            if done.await.is_err() {
                tracing::error!("work on the blocking pool panicked");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn blocking_work_is_bounded_and_complete() {
        let env = env();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = (0..32).map(|n| {
            let (running, most) = (running.clone(), most.clone());
            env.blocking(move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                n
            })
        });
        let results: Vec<_> = futures::future::join_all(work).await.into_iter().flatten().collect();
        assert_eq!(results, (0..32).collect::<Vec<_>>());
        assert!(most.load(Ordering::SeqCst) <= TokioSpawner::BLOCKING_MAX);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_in_blocking_work_is_an_answer_not_a_hang() {
        let env = env();
        assert_eq!(env.blocking(|| -> u32 { panic!("on purpose") }).await, None);
        assert_eq!(env.blocking(|| 1).await, Some(1));
    }

    #[test]
    fn the_clock_is_past_2026_and_chance_differs() {
        assert!(SystemClock.now_ms() > 1_767_000_000_000);
        let draw = || {
            let mut bytes = [0; 16];
            SystemRng.fill(&mut bytes);
            bytes
        };
        assert_ne!(draw(), draw());
    }
}
