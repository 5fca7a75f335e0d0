//! How many requests for keys may be on their way at once, and on whose behalf. What is needed here waits for a lane; what
//! somebody causes of whom nothing is proven has lanes of its own, where it does not queue, but is refused when there are too
//! many, and keeps nobody else waiting.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Weak},
};

use myelin_core::{Counted, Tally, address};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests for keys that this server needs.
const OWN: usize = 64;
/// Requests for those of what other servers send.
const BROUGHT: usize = 64;
/// Of these, those for what one of them sends: it may invent as many names as it likes.
const PER_ORIGIN: usize = 8;
/// Requests that servers cause which share a room with this one, or whoever says that they are.
const NEIGHBOURS: usize = 32;
/// Requests that strangers cause.
const STRANGERS: usize = 32;
/// Of each of the two, those of one address.
const PER_ADDRESS: u64 = 8;

/// On whose behalf keys are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker<'a> {
    /// This server, which has something that is signed with them.
    Here,
    /// The same, and this server has sent it.
    Origin(&'a ServerName),
    /// Somebody at this address who says that it is the server whose keys these are, which is in a room of this one.
    Neighbour(IpAddr),
    /// Somebody at this address of whom nothing is proven.
    Stranger(IpAddr),
}

/// Strangers ask for so much at once that this is not looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many keys of servers are being looked for")]
pub struct Busy;

pub(super) struct Lanes {
    own: Arc<Semaphore>,
    brought: Arc<Semaphore>,
    by_origin: Mutex<HashMap<OwnedServerName, Weak<Semaphore>>>,
    neighbours: Guests,
    strangers: Guests,
}

/// Lanes of those of whom nothing is proven.
struct Guests {
    lanes: Arc<Semaphore>,
    by_address: Tally<IpAddr>,
}

/// Held while somebody is asked.
pub(super) enum Lane {
    /// Still to be waited for.
    Own(Arc<Semaphore>),
    Guest {
        _lane: OwnedSemaphorePermit,
        /// `None` of an address that many may stand behind.
        _of_address: Option<Counted<IpAddr>>,
    },
}

impl Lanes {
    /// Waits until no more is looked for on behalf of one origin than its share.
    pub(super) async fn turn(&self, asker: Asker<'_>) -> Option<OwnedSemaphorePermit> {
        let Asker::Origin(origin) = asker else { return None };
        self.share_of(origin).acquire_owned().await.ok()
    }

    fn share_of(&self, origin: &ServerName) -> Arc<Semaphore> {
        let mut shares = self.by_origin.lock();
        if let Some(share) = shares.get(origin).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(PER_ORIGIN));
        shares.insert(origin.to_owned(), Arc::downgrade(&share));
        share
    }

    pub(super) fn enter(&self, asker: Asker<'_>) -> Result<Lane, Busy> {
        match asker {
            Asker::Here => Ok(Lane::Own(self.own.clone())),
            Asker::Origin(_) => Ok(Lane::Own(self.brought.clone())),
            Asker::Neighbour(address) => self.neighbours.enter(address),
            Asker::Stranger(address) => self.strangers.enter(address),
        }
    }
}

impl Guests {
    fn new(many: usize) -> Self {
        Self { lanes: Arc::new(Semaphore::new(many)), by_address: Tally::default() }
    }

    fn enter(&self, address: IpAddr) -> Result<Lane, Busy> {
        let of_address = match address::is_private(address) {
            true => None,
            false => {
                let network = address::network_of(address);
                Some(self.by_address.count(&network, 1, PER_ADDRESS).ok_or(Busy)?)
            }
        };
        let lane = self.lanes.clone().try_acquire_owned().map_err(|_| Busy)?;
        Ok(Lane::Guest { _lane: lane, _of_address: of_address })
    }
}

impl Lane {
    /// Waits until it is free; what is answered is held meanwhile.
    pub(super) async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Own(lanes) => lanes.clone().acquire_owned().await.ok(),
            Self::Guest { .. } => None,
        }
    }
}

impl Default for Lanes {
    fn default() -> Self {
        let lanes = |many| Arc::new(Semaphore::new(many));
        Self {
            own: lanes(OWN),
            brought: lanes(BROUGHT),
            by_origin: Mutex::default(),
            neighbours: Guests::new(NEIGHBOURS),
            strangers: Guests::new(STRANGERS),
        }
    }
}
