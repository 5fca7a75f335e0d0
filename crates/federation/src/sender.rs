//! The federation sender: one queue per destination, derived from the log and a cursor (DESIGN 1 and 2, seeds 000 and
//! 001).
//!
//! - [`routing`]: what a log entry means for which servers. `dispatch` follows the log and hands entries to queues.
//! - [`queue`]: what waits for one server, in memory and bounded. `departure`: the one task that is about a server,
//!   from the first thing that waits to the last answer. [`transaction`]: what travels, as text. `newcomers`: what a
//!   server that comes into a room is sent of before.
//! - `bus`: typing and presence are never queued; a departing transaction takes what holds now, and every three seconds
//!   one departs where that has changed.
//! - [`backoff`], and `retries`: servers that do not answer are asked again at random times, few at a time, or at once
//!   when they give a sign of life. `catch_up`: who was away for long gets the newest events of each room.
//! - `ledger`: the cursor, and a row for each server that is behind.
//! - [`report`]: what operators see.
//!
//! There is no row per destination and event. A crash repeats what was sent since the cursor was last written; receivers
//! know events by their ids, and to-device messages by theirs. A transaction keeps its id and body until it is
//! answered; after a restart what it held goes under a new id, since it may hold something else then.

mod backoff;
mod bus;
mod catch_up;
mod counters;
mod departure;
mod dispatch;
mod ledger;
mod loading;
mod newcomers;
mod queue;
mod receipts;
pub mod report;
mod retries;
mod routing;
mod transaction;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, atomic::AtomicU64},
};

use bytes::Bytes;
use futures::FutureExt;
use myelin_core::{Position, RoomNid, UserNid};
use myelin_view::View;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::{Notify, Semaphore};

pub use self::queue::{
    PDUS_MAX as QUEUED_PDUS_MAX, RECEIPTS_MAX as QUEUED_RECEIPTS_MAX, RECEIPTS_SLACK as QUEUED_RECEIPTS_SLACK,
};
use self::{counters::Counters, queue::Destination, routing::Routing};
use crate::{Client, Peers, PresencePolicy};

/// Transactions under way to servers that are believed to answer. One that takes long stops counting.
const UNDER_WAY_MAX: usize = 256;
/// Attempts under way toward servers that did not answer last time.
const DEAD_ATTEMPTS_MAX: usize = 16;
/// Characters of the part of transaction ids that tells processes apart.
const ID_PREFIX_LENGTH: usize = 10;

/// Brings events and EDUs to other servers.
pub struct Sender {
    view: View,
    client: Arc<Client>,
    presence: PresencePolicy,
    routing: Routing,
    state: Mutex<State>,
    /// When the next attempt is due has changed.
    retries_changed: Notify,
    /// There may be something for the ledger to write.
    ledger_changed: Notify,
    /// Who waits for an attempt toward a dead server looks whether it is alive.
    life: Notify,
    healthy: Arc<Semaphore>,
    dead: Arc<Semaphore>,
    counters: Counters,
    id_prefix: String,
    ids: AtomicU64,
    /// The newest bodies, by their events: many servers get the same one.
    bodies: Mutex<VecDeque<SharedBody>>,
}

struct SharedBody {
    texts: Vec<Arc<str>>,
    made_ms: u64,
    body: Bytes,
}

impl SharedBody {
    /// An event that is in memory has one text; one that was read again only costs a body of its own.
    fn is_of(&self, texts: &[Arc<str>]) -> bool {
        self.texts.len() == texts.len()
            && self.texts.iter().zip(texts).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

#[derive(Default)]
struct State {
    destinations: HashMap<OwnedServerName, Destination>,
    /// Everything up to here has been handed to the queues.
    dispatched: Position,
    /// The cursor as it stands in the table.
    written: Position,
    /// Servers whose task is about to begin.
    ready: Vec<OwnedServerName>,
    /// Which users of this server were typing at the last tick of the bus.
    board: HashMap<RoomNid, BTreeSet<UserNid>>,
    /// Ephemeral changes up to this number are on the board.
    board_sequence: u64,
    /// When the presence of a user was last handed to the queues, milliseconds.
    presence_told: HashMap<UserNid, u64>,
}

impl Sender {
    pub fn new(view: View, client: Arc<Client>, peers: &Peers, presence: PresencePolicy) -> Arc<Self> {
        let id_prefix = view.env.random_string(ID_PREFIX_LENGTH);
        let sender = Arc::new(Self {
            client,
            presence,
            routing: Routing::new(view.clone()),
            state: Mutex::default(),
            retries_changed: Notify::new(),
            ledger_changed: Notify::new(),
            life: Notify::new(),
            healthy: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            dead: Arc::new(Semaphore::new(DEAD_ATTEMPTS_MAX)),
            counters: Counters::new(&view.metrics),
            id_prefix,
            ids: AtomicU64::new(0),
            bodies: Mutex::default(),
            view,
        });
        let alive = Arc::downgrade(&sender);
        peers.on_sign_of_life(move |server| {
            if let Some(sender) = alive.upgrade() {
                sender.sign_of_life(server);
            }
        });
        counters::watch(&sender);
        sender
    }

    /// Runs for ever.
    pub async fn run(self: Arc<Self>) {
        self.restore().await;
        let dispatch = self.clone().follow().boxed();
        let bus = self.clone().run_bus().boxed();
        let retries = self.clone().run_retries().boxed();
        let ledger = self.clone().run_ledger().boxed();
        futures::future::join_all([dispatch, bus, retries, ledger]).await;
    }

    /// Does something with the queue of a server that may be sent to; makes the queue if there is none.
    fn with_destination(
        &self,
        state: &mut State,
        server: &ServerName,
        change: impl FnOnce(&mut Destination),
    ) {
        if let Some(destination) = state.destinations.get_mut(server) {
            change(destination);
        } else if self.client.permits(server) {
            change(state.destinations.entry(server.to_owned()).or_default());
        }
    }

    /// Begins the tasks of servers that are ready. Called without the lock.
    fn start_ready(self: &Arc<Self>) {
        let ready = std::mem::take(&mut self.state.lock().ready);
        for server in ready {
            self.view.env.spawner.spawn("transactions", self.clone().depart(server).boxed());
        }
    }
}

impl State {
    /// Makes the server ready for its task if one is due.
    fn make_ready(&mut self, server: &ServerName, now_ms: u64) {
        let Some((name, destination)) = self.destinations.get_key_value(server) else { return };
        if destination.is_due(now_ms) {
            self.ready.push(name.clone());
            if let Some(destination) = self.destinations.get_mut(server) {
                destination.in_flight = true;
            }
        }
    }
}
