//! Events from other servers: transactions, and everything that is fetched because of them.
//!
//! - [`transaction`]: `PUT /send`: limits, repeats, each PDU to its room, each EDU to [`Edus`].
//! - [`verification`]: signatures, with the keys brought for many PDUs at once.
//! - [`queue`]: PDUs that wait for their ancestors: durable, bounded, one queue per room.
//! - [`policy`]: the signatures of policy servers.
//! - [`history`]: older history, for those who read past what is held.
//! - [`gap`] and [`state_at`]: how these are brought. [`fetch`]: what other servers are asked for.
//!
//! A PDU whose ancestors are held is judged and stored before the transaction is answered. One that lacks some is
//! queued durably, and the answer does not wait for it: so a room that is hard to follow delays no other.

mod absent;
pub mod fetch;
mod gap;
mod history;
mod keyless;
mod outside;
mod policy;
mod queue;
mod state_at;
pub mod transaction;
pub mod verification;

use std::sync::Arc;

use myelin_rooms::Rooms;
use myelin_view::View;

pub use self::history::{Extent, Reach, Reached};
pub use self::transaction::{Answers, Transaction, TransactionError};
use self::{absent::Absent, history::Backfills, keyless::Keyless, queue::Queue, transaction::Transactions};
use crate::{Client, Edus, Keyring, Peers};

/// Takes in what other servers send.
pub struct Inbound {
    pub(crate) view: View,
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) client: Arc<Client>,
    pub(crate) keys: Arc<Keyring>,
    peers: Arc<Peers>,
    edus: Arc<Edus>,
    transactions: Transactions,
    queue: Queue,
    absent: Absent,
    keyless: Keyless,
    backfills: Backfills,
}

impl Inbound {
    pub fn new(
        view: View,
        rooms: Arc<Rooms>,
        client: Arc<Client>,
        keys: Arc<Keyring>,
        peers: Arc<Peers>,
        edus: Arc<Edus>,
    ) -> Self {
        let (transactions, queue, absent) = (Transactions::new(), Queue::default(), Absent::default());
        Self {
            view,
            rooms,
            client,
            keys,
            peers,
            edus,
            transactions,
            queue,
            absent,
            keyless: Keyless::default(),
            backfills: Backfills::default(),
        }
    }

    /// Goes on with what was queued when the process ended.
    pub async fn run(self: Arc<Self>) {
        const PAUSE: std::time::Duration = std::time::Duration::from_secs(5);
        while let Err(error) = self.resume().await {
            tracing::error!(%error, "the inbound queue cannot be read; trying again");
            self.view.env.clock.sleep(PAUSE).await;
        }
    }
}
