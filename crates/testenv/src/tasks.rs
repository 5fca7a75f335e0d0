//! Tasks in one thread, polled in the order in which they were woken.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::FuturesUnordered,
    task::{ArcWake, waker},
};
use myelin_core::Spawner;
use parking_lot::Mutex;

#[derive(Default)]
pub struct SimTasks {
    /// Spawned, not yet polled. Apart from `running`, which is locked while a task may spawn another.
    spawned: Mutex<Vec<BoxFuture<'static, ()>>>,
    running: Mutex<FuturesUnordered<BoxFuture<'static, ()>>>,
}

impl SimTasks {
    /// Polls `main` and all tasks until `main` is done (`Some`) or nobody can go on (`None`).
    pub fn run_until_stalled<F: Future>(&self, mut main: Pin<&mut F>) -> Option<F::Output> {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = waker(woken.clone());
        let mut context = Context::from_waker(&waker);
        while woken.0.swap(false, Ordering::Relaxed) || !self.spawned.lock().is_empty() {
            if let Poll::Ready(output) = main.as_mut().poll(&mut context) {
                return Some(output);
            }
            self.poll_tasks(&mut context);
        }
        None
    }

    fn poll_tasks(&self, context: &mut Context<'_>) {
        let mut running = self.running.lock();
        running.extend(self.spawned.lock().drain(..));
        while let Poll::Ready(Some(())) = running.poll_next_unpin(context) {}
    }
}

impl Spawner for SimTasks {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        self.spawned.lock().push(task);
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        work();
        std::future::ready(()).boxed()
    }
}

/// Set when anybody was woken since it was last cleared.
struct Woken(AtomicBool);

impl ArcWake for Woken {
    fn wake_by_ref(this: &Arc<Self>) {
        this.0.store(true, Ordering::Relaxed);
    }
}
