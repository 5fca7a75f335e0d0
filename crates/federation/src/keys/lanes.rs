//! How many requests for keys may be on their way at once, and on whose behalf. What strangers cause has lanes of its
//! own: there it does not queue, but is refused when there are too many, and keeps nobody else waiting.

use std::{net::IpAddr, sync::Arc};

use myelin_core::{Counted, Tally, address};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests for keys that this server needs.
const OWN: usize = 64;
/// Requests that strangers cause.
const STRANGERS: usize = 32;
/// Of these, those of one address.
const PER_ADDRESS: u64 = 8;

/// On whose behalf keys are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// This server, which has something that is signed with them.
    Here,
    /// Somebody at this address of whom nothing is proven.
    Stranger(IpAddr),
}

/// Strangers ask for so much at once that this is not looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many keys of servers are being looked for")]
pub struct Busy;

pub(super) struct Lanes {
    own: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    by_address: Tally<IpAddr>,
}

/// Held while somebody is asked.
pub(super) enum Lane {
    /// Still to be waited for.
    Own(Arc<Semaphore>),
    Stranger {
        _lane: OwnedSemaphorePermit,
        /// `None` of an address that many may stand behind.
        _of_address: Option<Counted<IpAddr>>,
    },
}

impl Lanes {
    pub(super) fn enter(&self, asker: Asker) -> Result<Lane, Busy> {
        let Asker::Stranger(address) = asker else { return Ok(Lane::Own(self.own.clone())) };
        let of_address = match address::is_private(address) {
            true => None,
            false => {
                let network = address::network_of(address);
                Some(self.by_address.count(&network, 1, PER_ADDRESS).ok_or(Busy)?)
            }
        };
        let lane = self.strangers.clone().try_acquire_owned().map_err(|_| Busy)?;
        Ok(Lane::Stranger { _lane: lane, _of_address: of_address })
    }
}

impl Lane {
    /// Waits until it is free; what is answered is held meanwhile.
    pub(super) async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Own(lanes) => lanes.clone().acquire_owned().await.ok(),
            Self::Stranger { .. } => None,
        }
    }
}

impl Default for Lanes {
    fn default() -> Self {
        let lanes = |many| Arc::new(Semaphore::new(many));
        Self { own: lanes(OWN), strangers: lanes(STRANGERS), by_address: Tally::default() }
    }
}
