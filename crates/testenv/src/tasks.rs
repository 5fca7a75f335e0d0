//! Tasks in one thread, polled in the order in which they were woken. Each machine has its own; all machines of a
//! world are polled in turn, in the order in which they were switched on.

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

/// The tasks of one machine.
#[derive(Default)]
pub struct SimTasks {
    /// Spawned, not yet polled. Apart from `running`, which is locked while a task may spawn another.
    spawned: Mutex<Vec<BoxFuture<'static, ()>>>,
    running: Mutex<FuturesUnordered<BoxFuture<'static, ()>>>,
    off: AtomicBool,
}

/// The machines of one world that are on.
#[derive(Default)]
pub struct Machines(Mutex<Vec<Arc<SimTasks>>>);

impl Machines {
    pub fn switch_on(&self) -> Arc<SimTasks> {
        let machine = Arc::new(SimTasks::default());
        self.0.lock().push(machine.clone());
        machine
    }

    /// Drops every task of the machine where it stands. What it still spawns while dropping is dropped, too.
    pub fn switch_off(&self, machine: &Arc<SimTasks>) {
        machine.off.store(true, Ordering::Relaxed);
        self.0.lock().retain(|other| !Arc::ptr_eq(other, machine));
        drop(std::mem::take(&mut *machine.spawned.lock()));
        drop(std::mem::take(&mut *machine.running.lock()));
    }

    /// Polls `main` and all tasks until `main` is done (`Some`) or nobody can go on (`None`).
    pub fn run_until_stalled<F: Future>(&self, mut main: Pin<&mut F>) -> Option<F::Output> {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = waker(woken.clone());
        let mut context = Context::from_waker(&waker);
        while woken.0.swap(false, Ordering::Relaxed) || self.have_spawned() {
            if let Poll::Ready(output) = main.as_mut().poll(&mut context) {
                return Some(output);
            }
            let machines = self.0.lock().clone();
            machines.iter().for_each(|machine| machine.poll(&mut context));
        }
        None
    }

    fn have_spawned(&self) -> bool {
        self.0.lock().iter().any(|machine| !machine.spawned.lock().is_empty())
    }
}

impl SimTasks {
    pub fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    fn poll(&self, context: &mut Context<'_>) {
        let mut running = self.running.lock();
        running.extend(self.spawned.lock().drain(..));
        while let Poll::Ready(Some(())) = running.poll_next_unpin(context) {}
    }
}

impl Spawner for SimTasks {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) {
        if !self.is_off() {
            self.spawned.lock().push(task);
        }
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
