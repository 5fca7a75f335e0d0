//! The writer thread: natural group commit, without a timer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use futures::{FutureExt, channel::oneshot};
use myelin_core::Position;
use myelin_store::{
    CommitError, Error,
    backend::{CommitFuture, Committed, RawBatch},
    group::{GROUP_BATCHES_MAX, GROUP_BYTES_MAX, Group, QUEUE_BYTES_MAX},
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{closed, engine::Engine};

type Answer = Result<Committed, CommitError>;

struct Job {
    batch: RawBatch,
    bytes: usize,
    answer: oneshot::Sender<Answer>,
}

/// Handle of the writer thread.
pub(crate) struct Writer {
    /// The lock makes the order of `submit` calls the order of commits.
    queue: Mutex<mpsc::Sender<Job>>,
    thread: thread::JoinHandle<()>,
    meters: Arc<Meters>,
}

#[derive(Default)]
struct Meters {
    waiting_bytes: AtomicUsize,
    groups: AtomicU64,
}

impl Writer {
    /// Every durable position goes to `announce`.
    pub(crate) fn start(engine: Arc<Engine>, announce: watch::Sender<Position>) -> Result<Self, Error> {
        let (queue, jobs) = mpsc::channel();
        let meters = Arc::<Meters>::default();
        let state = Thread { engine, announce, jobs, meters: meters.clone() };
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(move || state.run());
        let thread = thread.map_err(|error| Error::Backend(format!("cannot start the writer: {error}")))?;
        Ok(Self { queue: Mutex::new(queue), thread, meters })
    }

    pub(crate) fn submit(&self, batch: RawBatch) -> CommitFuture {
        let (answer, answered) = oneshot::channel();
        let bytes = batch.bytes();
        if self.meters.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) > QUEUE_BYTES_MAX {
            self.meters.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            answer.send(Err(overloaded().into())).ok();
        } else if let Err(mpsc::SendError(job)) = self.queue.lock().send(Job { batch, bytes, answer }) {
            job.answer.send(Err(closed().into())).ok();
        }
        answered.map(|answer| answer.unwrap_or_else(|_| Err(closed().into()))).boxed()
    }

    pub(crate) fn groups_committed(&self) -> u64 {
        self.meters.groups.load(Ordering::Relaxed)
    }

    /// Waits until everything submitted is answered.
    pub(crate) fn finish(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!("the store's writer thread had panicked");
        }
    }
}

fn overloaded() -> Error {
    Error::Backend("too many writes wait for the disk; try again later".to_owned())
}

struct Thread {
    engine: Arc<Engine>,
    announce: watch::Sender<Position>,
    jobs: mpsc::Receiver<Job>,
    meters: Arc<Meters>,
}

impl Thread {
    fn run(self) {
        while let Ok(first) = self.jobs.recv() {
            self.commit(self.gather(first));
        }
    }

    /// Everything that waits already, within the limits of a group.
    fn gather(&self, first: Job) -> Vec<Job> {
        let mut bytes = first.bytes;
        let mut jobs = vec![first];
        while jobs.len() < GROUP_BATCHES_MAX && bytes < GROUP_BYTES_MAX {
            let Ok(job) = self.jobs.try_recv() else { break };
            bytes += job.bytes;
            jobs.push(job);
        }
        self.meters.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        jobs
    }

    fn commit(&self, jobs: Vec<Job>) {
        let mut group = Group::new(*self.announce.borrow(), |key: &[u8]| self.engine.load_stored(key));
        let answers: Vec<(oneshot::Sender<Answer>, Answer)> =
            jobs.into_iter().map(|job| (job.answer, group.add(job.batch))).collect();
        let Group { position, rows, .. } = group;
        let written = if rows.is_empty() { Ok(()) } else { self.engine.write(rows) };
        self.meters.groups.fetch_add(1, Ordering::Relaxed);
        match &written {
            Ok(()) => self.announce(position),
            Err(error) => tracing::error!(%error, "a group of {} batches was not written", answers.len()),
        }
        for (waiting, answer) in answers {
            let answer = written.clone().map_err(CommitError::from).and(answer);
            waiting.send(answer).ok();
        }
    }

    fn announce(&self, position: Position) {
        self.announce.send_if_modified(|last| std::mem::replace(last, position) != position);
    }
}
