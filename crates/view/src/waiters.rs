//! Who waits for news: long polls, by user.

use std::{collections::HashMap, sync::Arc};

use imbl::OrdSet;
use myelin_core::UserNid;
use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Waiters {
    by_user: Mutex<HashMap<UserNid, Vec<Arc<Notify>>>>,
}

/// A registration. Register *before* reading, then wait: a wake-up in between is kept.
pub struct Waiter {
    user: UserNid,
    notify: Arc<Notify>,
    waiters: Arc<Waiters>,
}

impl Waiter {
    /// Completes when something may have changed for the user since registration or the last wait.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut by_user = self.waiters.by_user.lock();
        if let Some(waiting) = by_user.get_mut(&self.user) {
            waiting.retain(|n| !Arc::ptr_eq(n, &self.notify));
            if waiting.is_empty() {
                by_user.remove(&self.user);
            }
        }
    }
}

impl Waiters {
    pub fn register(self: &Arc<Self>, user: UserNid) -> Waiter {
        let notify = Arc::new(Notify::new());
        self.by_user.lock().entry(user).or_default().push(notify.clone());
        Waiter { user, notify, waiters: self.clone() }
    }

    pub fn wake(&self, user: UserNid) {
        if let Some(waiting) = self.by_user.lock().get(&user) {
            wake_all(waiting);
        }
    }

    /// Wakes those of `users` who wait: O(the smaller of both sets).
    pub fn wake_members(&self, users: &OrdSet<UserNid>) {
        let by_user = self.by_user.lock();
        if by_user.len() < users.len() {
            by_user
                .iter()
                .filter(|(user, _)| users.contains(*user))
                .for_each(|(_, waiting)| wake_all(waiting));
        } else {
            users.iter().filter_map(|user| by_user.get(user)).for_each(|waiting| wake_all(waiting));
        }
    }

    pub fn wake_everybody(&self) {
        self.by_user.lock().values().for_each(|waiting| wake_all(waiting));
    }

    /// How many long polls wait.
    pub fn count(&self) -> usize {
        self.by_user.lock().values().map(Vec::len).sum()
    }
}

fn wake_all(waiting: &[Arc<Notify>]) {
    waiting.iter().for_each(|n| n.notify_one());
}
