//! Events from other servers: transactions, and everything that is fetched because of them.
//!
//! - [`transaction`]: `PUT /send`: limits, repeats, each EDU to [`Edus`]. [`pdus`]: each PDU to its room.
//! - [`verification`]: signatures, with the keys brought for many PDUs at once.
//! - [`queue`] and [`worker`]: PDUs that wait for their ancestors: durable, bounded, one queue per room. [`lookups`]:
//!   those that wait for keys.
//! - [`slow`]: rooms in which judging takes long. [`arriving`]: rooms that are being joined.
//! - [`policy`]: the signatures of policy servers.
//! - [`history`]: older history, for those who read past what is held.
//! - [`gap`] and [`state_at`]: how these are brought. [`fetch`]: what other servers are asked for.
//!
//! A PDU whose ancestors are held is judged and stored before the transaction is answered. One that lacks some is
//! queued durably, and the answer does not wait for it: so a room that is hard to follow delays no other.

mod absent;
mod arriving;
pub mod fetch;
mod gap;
mod history;
mod keyless;
mod lookups;
mod outside;
mod pdus;
mod policy;
mod queue;
mod slow;
mod state_at;
pub mod transaction;
pub mod verification;
mod worker;

use std::sync::Arc;

use futures::{
    FutureExt,
    channel::oneshot,
    future::{BoxFuture, Either, select},
};
use myelin_rooms::Rooms;
use myelin_view::View;

pub use self::history::{Extent, Reach, Reached};
pub use self::queue::{
    ALL_MAX as WAITING_MAX, OF_ORIGIN_MAX as WAITING_OF_ORIGIN_MAX, OF_ROOM_MAX as WAITING_OF_ROOM_MAX,
};
pub use self::transaction::{Answers, Transaction, TransactionError};
use self::{
    absent::Absent, arriving::Arriving, history::Backfills, keyless::Keyless, lookups::Lookups, queue::Queue,
    slow::Slow, transaction::Transactions,
};
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
    slow: Slow,
    arriving: Arriving,
    absent: Absent,
    keyless: Keyless,
    lookups: Lookups,
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
            slow: Slow::default(),
            arriving: Arriving::default(),
            absent,
            keyless: Keyless::default(),
            lookups: Lookups::default(),
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

    /// Does work on a task of its own, so that the time it computes holds nobody else up. `None`: it panicked. Who stops
    /// waiting stops it.
    async fn apart<T: Send + 'static>(&self, name: &'static str, work: BoxFuture<'static, T>) -> Option<T> {
        let (mut sender, receiver) = oneshot::channel();
        let task = async move {
            let ended = match select(work, sender.cancellation()).await {
                Either::Left((output, _)) => Some(output),
                Either::Right(_) => None,
            };
            ended.map(|output| sender.send(output).ok());
        };
        self.view.env.spawner.spawn(name, task.boxed());
        receiver.await.ok()
    }
}
