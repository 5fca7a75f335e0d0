//! What one other server may have done here: how often (with [`crate::rate_limit`]), and how much at once.
//!
//! A request whose signature is right takes a *place* of its origin, or waits for one, or is refused. It keeps the place
//! until its answer has left: who reads large answers slowly holds up nobody but itself.

mod holding;

use std::{collections::HashMap, sync::Arc, time::Duration};

use myelin_core::Env;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::holding::{Ticket, limited};
use crate::{ApiError, rate_limit::Class};

/// Who has not come to its turn by then is told to come again.
const PATIENCE: Duration = Duration::from_secs(20);
/// What such a server is told to wait, in milliseconds.
const PAUSE_MS: u64 = 5_000;

/// What a request makes this server do. Transactions have limits of their own ([`myelin_federation::Inbound`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// A look-up, or a few events.
    Ordinary,
    /// All events of a room's state: tens of megabytes of a large room.
    State,
    Join,
    Invite,
    Media,
}

/// Requests of one origin.
struct Places {
    at_once: usize,
    /// Further ones, which wait for their turn.
    waiting: usize,
}

impl Work {
    pub fn class(self) -> Class {
        match self {
            Self::Ordinary | Self::State | Self::Media => Class::ServerRequest,
            Self::Join => Class::ServerJoin,
            Self::Invite => Class::ServerInvite,
        }
    }

    fn places(self) -> Places {
        let places = |at_once, waiting| Places { at_once, waiting };
        match self {
            Self::Ordinary => places(32, 400),
            // After an outage a server asks so in each of the rooms that it shares, and who is refused waits for minutes.
            Self::State => places(4, 200),
            Self::Join => places(4, 80),
            Self::Invite => places(4, 80),
            Self::Media => places(32, 400),
        }
    }
}

/// The places of all origins. Whoever asks for nothing takes no memory.
pub struct Origins {
    env: Env,
    queues: Queues,
}

type Key = (Work, OwnedServerName);
type Queues = Arc<Mutex<HashMap<Key, Queue>>>;

struct Queue {
    turns: Arc<Semaphore>,
    /// Who waits or is being served.
    present: usize,
}

/// Freed when it is dropped.
pub struct Place {
    _turn: OwnedSemaphorePermit,
    _present: Present,
}

struct Present {
    queues: Queues,
    key: Key,
}

impl Origins {
    pub fn new(env: Env) -> Self {
        Self { env, queues: Queues::default() }
    }

    pub async fn enter(&self, work: Work, origin: &ServerName) -> Result<Place, ApiError> {
        let refused = || ApiError::limit_exceeded(PAUSE_MS);
        let (present, turns) = self.queue(work, origin).ok_or_else(refused)?;
        let turn = self.env.timeout(PATIENCE, turns.acquire_owned()).await;
        let turn = turn.and_then(Result::ok).ok_or_else(refused)?;
        Ok(Place { _turn: turn, _present: present })
    }

    fn queue(&self, work: Work, origin: &ServerName) -> Option<(Present, Arc<Semaphore>)> {
        let Places { at_once, waiting } = work.places();
        let key = (work, origin.to_owned());
        let mut queues = self.queues.lock();
        let new = || Queue { turns: Arc::new(Semaphore::new(at_once)), present: 0 };
        let queue = queues.entry(key.clone()).or_insert_with(new);
        if queue.present >= at_once + waiting {
            return None;
        }
        queue.present += 1;
        Some((Present { queues: self.queues.clone(), key }, queue.turns.clone()))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get_mut(&self.key) {
            queue.present -= 1;
            if queue.present == 0 {
                queues.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use myelin_testenv::Sim;
    use ruma::server_name;

    use super::*;

    #[test]
    fn each_server_has_places_of_its_own_for_each_kind_of_work() {
        let sim = Sim::new(1);
        let origins = Origins::new(sim.env());
        let (a, b) = (server_name!("a.test"), server_name!("b.test"));
        let enter = |work, origin| origins.enter(work, origin).now_or_never();
        let taken: Vec<_> = (0..4).map(|_| enter(Work::State, a)).collect();
        assert!(taken.iter().all(|taken| matches!(taken, Some(Ok(_)))));
        assert!(enter(Work::State, a).is_none(), "it waits");
        assert!(matches!(enter(Work::State, b), Some(Ok(_))));
        assert!(matches!(enter(Work::Ordinary, a), Some(Ok(_))));
        drop(taken);
        assert!(matches!(enter(Work::State, a), Some(Ok(_))));
        assert!(origins.queues.lock().is_empty(), "who asks for nothing takes no memory");
    }

    #[test]
    fn who_waits_comes_to_its_turn_or_is_told_to_come_again() {
        let sim = Sim::new(1);
        let origins = Origins::new(sim.env());
        let a = server_name!("a.test");
        sim.block_on(async {
            let first = origins.enter(Work::State, a).await.ok();
            let _others = [0; 3].map(|_| origins.enter(Work::State, a).now_or_never());
            let waiting = futures::future::join_all((0..201).map(|_| origins.enter(Work::State, a)));
            let leaving = async {
                sim.env().clock.sleep(Duration::from_secs(1)).await;
                drop(first);
            };
            let (entered, ()) = futures::join!(waiting, leaving);
            let served = entered.iter().filter(|entered| entered.is_ok()).count();
            assert_eq!(served, 1, "the places are kept");
            let refused = entered.iter().filter_map(|entered| entered.as_ref().err());
            assert!(refused.clone().all(|error| error.errcode() == "M_LIMIT_EXCEEDED"));
            assert_eq!(refused.count(), 200);
        });
        assert!(origins.queues.lock().is_empty());
    }
}
