//! Asking again: when a wait is over, when a server gives a sign of life, and in any case once a minute, so that nothing
//! ever waits for an unrelated message to kick it (seed 000).

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::select};
use ruma::{OwnedServerName, ServerName};

use super::Sender;

const EXAMINED_EVERY: Duration = Duration::from_secs(60);
/// However many servers become due at different moments, they are looked through at most this often.
const PAUSE: Duration = Duration::from_millis(500);

impl Sender {
    /// Runs for ever.
    pub(super) async fn run_retries(self: Arc<Self>) {
        let clock = self.view.env.clock.clone();
        loop {
            let next = self.start_due();
            let sleep = clock.sleep(next.min(EXAMINED_EVERY));
            select(Box::pin(self.retries_changed.notified()), sleep).await;
            clock.sleep(PAUSE).await;
        }
    }

    /// Begins whatever is due; returns how long until the next wait is over.
    fn start_due(self: &Arc<Self>) -> Duration {
        let now_ms = self.view.env.now_ms();
        let mut next = EXAMINED_EVERY;
        {
            let state = &mut *self.state.lock();
            let mut due = Vec::new();
            for (server, queue) in &state.destinations {
                if queue.is_due(now_ms) {
                    due.push(server.clone());
                } else if !queue.in_flight && queue.health.failures > 0 && queue.has_work() {
                    next = next.min(Duration::from_millis(queue.health.retry_at_ms.saturating_sub(now_ms)));
                }
            }
            due.sort_unstable();
            due.iter().for_each(|server| state.make_ready(server, now_ms));
        }
        self.start_ready();
        next
    }

    /// The server answered a request, or made one: what waits for it goes now.
    pub(super) fn sign_of_life(self: &Arc<Self>, server: &ServerName) {
        let now_ms = self.view.env.now_ms();
        let state = &mut *self.state.lock();
        let Some(queue) = state.destinations.get_mut(server) else { return };
        let retry_at_ms = queue.health.retry_at_ms;
        if !queue.wakes(now_ms) {
            if queue.health.retry_at_ms < retry_at_ms {
                self.retries_changed.notify_one();
            }
            return;
        }
        self.counters.woken.add(1);
        if queue.in_flight {
            queue.woken = true;
            self.life.notify_waiters();
        } else {
            queue.in_flight = true;
            queue.woken = true;
            let task = self.clone().depart(server.to_owned());
            self.view.env.spawner.spawn("transactions", task.boxed());
        }
    }

    /// For operators: asks a server (or every one) again now. Returns how many are asked.
    pub fn retry(self: &Arc<Self>, server: Option<&ServerName>) -> usize {
        self.ask_again(server, |_| {})
    }

    /// For operators: the same, as if nothing had failed before.
    pub fn reset(self: &Arc<Self>, server: Option<&ServerName>) -> usize {
        self.ask_again(server, |health| {
            health.failures = health.failures.min(1);
            health.last_error = None;
        })
    }

    fn ask_again(
        self: &Arc<Self>,
        server: Option<&ServerName>,
        change: impl Fn(&mut super::queue::Health),
    ) -> usize {
        let now_ms = self.view.env.now_ms();
        let asked = {
            let state = &mut *self.state.lock();
            let chosen = |name: &OwnedServerName| server.is_none_or(|server| *name == *server);
            let mut asked = Vec::new();
            for (name, queue) in state.destinations.iter_mut().filter(|(name, _)| chosen(name)) {
                change(&mut queue.health);
                if queue.health.failures > 0 && queue.has_work() {
                    queue.health.retry_at_ms = now_ms;
                    queue.woken = server.is_some();
                    asked.push(name.clone());
                }
            }
            asked.iter().for_each(|server| state.make_ready(server, now_ms));
            asked.len()
        };
        self.life.notify_waiters();
        self.ledger_changed.notify_one();
        self.start_ready();
        asked
    }
}
