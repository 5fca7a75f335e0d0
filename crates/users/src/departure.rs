//! Leaving the rooms of deactivated accounts: background work that survives a restart. Whose rooms are still to be left
//! stands in the `departures` table from the commit of the deactivation until all of them are left.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use myelin_core::UserNid;
use myelin_store::{Batch, tables::DEPARTURES};
use tokio::sync::Notify;

use crate::Users;

const PAGE: usize = 64;
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// What this crate needs of rooms.
pub trait Rooms: Send + Sync + 'static {
    /// Leaves every room that the user is in, invited to or knocking on. Idempotent: it is called again after a failure
    /// or a restart.
    fn leave_all(&self, user: UserNid) -> BoxFuture<'_, Result<(), String>>;
}

#[derive(Default)]
pub(crate) struct Signal(Notify);

impl Signal {
    pub fn notify(&self) {
        self.0.notify_one();
    }
}

impl Users {
    /// Leaves rooms for ever. Spawn it once per process.
    pub async fn run_departures(self: Arc<Self>, rooms: Arc<dyn Rooms>) {
        let mut pause = PAUSE_MIN;
        loop {
            match self.depart_page(&*rooms).await {
                Ok(Page::Done) => {
                    pause = PAUSE_MIN;
                    self.departures.0.notified().await;
                }
                Ok(Page::More) => pause = PAUSE_MIN,
                Err(failed) => {
                    tracing::warn!(failed, "rooms of deactivated accounts are left later");
                    self.view.env.clock.sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// One user's failure does not hold up the others of the page.
    async fn depart_page(&self, rooms: &dyn Rooms) -> Result<Page, String> {
        let rows = self.view.store.read().all(&DEPARTURES, PAGE).await.map_err(|e| e.to_string())?;
        let mut failed = Ok(());
        for (user, ()) in &rows {
            if let Err(error) = self.depart(rooms, *user).await {
                failed = Err(format!("{user:?}: {error}"));
            }
        }
        failed?;
        Ok(if rows.is_empty() { Page::Done } else { Page::More })
    }

    async fn depart(&self, rooms: &dyn Rooms, user: UserNid) -> Result<(), String> {
        rooms.leave_all(user).await?;
        let mut batch = Batch::new();
        batch.delete(&DEPARTURES, &user);
        self.view.store.commit(batch).await.map(drop).map_err(|e| e.to_string())
    }
}

enum Page {
    Done,
    More,
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::testing::World;

    #[derive(Default)]
    struct Fake {
        left: Mutex<Vec<UserNid>>,
        failures: Mutex<usize>,
    }

    impl Rooms for Fake {
        fn leave_all(&self, user: UserNid) -> BoxFuture<'_, Result<(), String>> {
            let mut failures = self.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Box::pin(std::future::ready(Err("not now".to_owned())));
            }
            self.left.lock().push(user);
            Box::pin(std::future::ready(Ok(())))
        }
    }

    fn run(world: &World, rooms: &Arc<Fake>) {
        let task = world.users.clone().run_departures(rooms.clone());
        world.sim.env().spawner.spawn("departures", Box::pin(task));
    }

    #[test]
    fn rooms_are_left_after_a_restart_and_despite_failures() {
        let world = World::new();
        let user = world.run(async {
            let grant = world.register("alice").await;
            let user = world.users.session(&grant.access_token).await.unwrap().user;
            world.users.deactivate(user, false).await.unwrap();
            user
        });
        let restarted = world.another_node();
        let rooms = Arc::new(Fake { failures: Mutex::new(2), ..Fake::default() });
        run(&restarted, &rooms);
        restarted.run(restarted.sim.env().clock.sleep(Duration::from_secs(60)));
        assert_eq!(*rooms.left.lock(), [user]);
        let rows = restarted.run(restarted.view.store.read().all(&DEPARTURES, 9)).unwrap();
        assert_eq!(rows.len(), 0);
    }

    #[test]
    fn a_deactivation_wakes_the_worker() {
        let world = World::new();
        let rooms = Arc::new(Fake::default());
        run(&world, &rooms);
        world.sim.settle();
        let user = world.run(async {
            let grant = world.register("alice").await;
            let user = world.users.session(&grant.access_token).await.unwrap().user;
            world.users.deactivate(user, true).await.unwrap();
            user
        });
        world.sim.settle();
        assert_eq!(*rooms.left.lock(), [user]);
    }
}
