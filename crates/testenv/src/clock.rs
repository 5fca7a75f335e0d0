//! Virtual time: stands still until somebody moves it.

use std::{collections::BTreeMap, time::Duration};

use futures::{FutureExt, channel::oneshot, future::BoxFuture};
use myelin_core::Clock;
use parking_lot::Mutex;

/// Starts at 2026-01-01T00:00:00Z.
const START_MS: u64 = 1_767_225_600_000;

pub struct SimClock(Mutex<Timers>);

struct Timers {
    now_ms: u64,
    /// Timers set so far; keeps timers of one moment in the order in which they were set.
    set: u64,
    waiting: BTreeMap<(u64, u64), oneshot::Sender<()>>,
}

impl Default for SimClock {
    fn default() -> Self {
        Self(Mutex::new(Timers { now_ms: START_MS, set: 0, waiting: BTreeMap::new() }))
    }
}

impl SimClock {
    /// Moves time on and fires what is due by then. Tasks run at the next `block_on` or `settle`.
    pub fn advance(&self, duration: Duration) {
        let mut timers = self.0.lock();
        timers.now_ms += millis(duration);
        timers.fire();
    }

    /// Moves time to the earliest timer that somebody still waits for; `false` if there is none.
    pub fn jump_to_next_timer(&self) -> bool {
        let mut timers = self.0.lock();
        timers.waiting.retain(|_, sender| !sender.is_canceled());
        let Some((due_ms, _)) = timers.waiting.keys().next().copied() else { return false };
        timers.now_ms = timers.now_ms.max(due_ms);
        timers.fire();
        true
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        self.0.lock().now_ms
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (sender, receiver) = oneshot::channel();
        let mut timers = self.0.lock();
        let key = (timers.now_ms + millis(duration), timers.set);
        timers.set += 1;
        timers.waiting.insert(key, sender);
        receiver.map(|_| ()).boxed()
    }
}

impl Timers {
    fn fire(&mut self) {
        let later = self.waiting.split_off(&(self.now_ms + 1, 0));
        for (_, sender) in std::mem::replace(&mut self.waiting, later) {
            sender.send(()).ok();
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}
