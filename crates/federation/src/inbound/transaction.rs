//! `PUT /_matrix/federation/v1/send/{txnId}` (Server-Server API, "Transactions").

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt,
    future::{Shared, join_all},
};
use myelin_dag::checks::{FormedPdu, RawPdu};
use myelin_rooms::{EXTREMITIES_MAX, Incoming, Received};
use myelin_store::{
    Batch,
    tables::{INBOUND_TRANSACTIONS, InboundTransactionRecord},
};
use myelin_view::RoomSnapshot;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Inbound, verification::keyless};

/// PDUs and EDUs of one transaction (Server-Server API, "Transactions").
pub const PDUS_MAX: usize = 50;
pub const EDUS_MAX: usize = 100;
/// Transactions of one origin that are processed at the same time. The specification has it send one after the other.
const CONCURRENT_MAX: usize = 4;
/// Answers remembered per origin, and origins remembered.
const REMEMBERED_MAX: usize = 8;
const ORIGINS_MAX: usize = 10_000;
/// How long answers are in memory only.
const UNWRITTEN_FOR: Duration = Duration::from_secs(2);
/// How long the PDUs of one room may hold up the answer; after that they are queued.
const ROOM_BUDGET: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
pub struct Transaction {
    #[serde(default)]
    pub pdus: Vec<Box<RawValue>>,
    #[serde(default)]
    pub edus: Vec<Edu>,
}

#[derive(Deserialize)]
pub struct Edu {
    pub edu_type: String,
    pub content: Box<RawValue>,
}

/// What became of each PDU; `Some`: what was wrong with it.
pub type Answers = BTreeMap<OwnedEventId, Option<String>>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    #[error("A transaction has at most {PDUS_MAX} PDUs and {EDUS_MAX} EDUs.")]
    TooLarge,
    #[error("Too many transactions at the same time.")]
    Busy,
    /// Nothing of it may be taken for acknowledged.
    #[error("The transaction could not be stored.")]
    Storage,
}

type Outcome = Result<Arc<Answers>, TransactionError>;
type Ending = Shared<futures::channel::oneshot::Receiver<Outcome>>;

/// By transaction id, oldest first.
type Remembered = Mutex<VecDeque<(String, Ending)>>;

/// The newest transactions of each origin, under way or answered.
pub struct Transactions {
    of_origins: Cache<OwnedServerName, Arc<Remembered>>,
    /// The newest answer of each origin, until it is in the store.
    unwritten: Mutex<BTreeMap<OwnedServerName, InboundTransactionRecord>>,
}

impl Transactions {
    pub(super) fn new() -> Self {
        Self { of_origins: Cache::new(ORIGINS_MAX), unwritten: Mutex::default() }
    }

    fn of(&self, origin: &ServerName) -> Arc<Remembered> {
        let new = || Ok::<_, std::convert::Infallible>(Arc::default());
        self.of_origins.get_or_insert_with(origin, new).unwrap_or_default()
    }
}

impl Inbound {
    /// The same transaction again gets the answer of the first time, also while that is under way.
    pub async fn receive_transaction(
        self: &Arc<Self>,
        origin: &ServerName,
        transaction_id: &str,
        transaction: Transaction,
    ) -> Outcome {
        if transaction.pdus.len() > PDUS_MAX || transaction.edus.len() > EDUS_MAX {
            return Err(TransactionError::TooLarge);
        }
        if let Some(answers) = self.answered_before_restart(origin, transaction_id).await {
            return Ok(Arc::new(answers));
        }
        let ending = self.begin(origin, transaction_id, transaction)?;
        ending.await.unwrap_or(Err(TransactionError::Storage))
    }

    /// Who hangs up stops nothing: the transaction is a task of its own.
    fn begin(
        self: &Arc<Self>,
        origin: &ServerName,
        transaction_id: &str,
        transaction: Transaction,
    ) -> Result<Ending, TransactionError> {
        let of_origin = self.transactions.of(origin);
        let mut remembered = of_origin.lock();
        if let Some((_, ending)) = remembered.iter().find(|(id, _)| id == transaction_id) {
            return Ok(ending.clone());
        }
        if remembered.iter().filter(|(_, ending)| ending.peek().is_none()).count() >= CONCURRENT_MAX {
            return Err(TransactionError::Busy);
        }
        let (sender, receiver) = futures::channel::oneshot::channel();
        let ending = receiver.shared();
        remembered.push_back((transaction_id.to_owned(), ending.clone()));
        if remembered.len() > REMEMBERED_MAX {
            let done = remembered.iter().position(|(_, ending)| ending.peek().is_some());
            done.and_then(|index| remembered.remove(index));
        }
        drop(remembered);
        let (this, origin, id) = (self.clone(), origin.to_owned(), transaction_id.to_owned());
        let watched = ending.clone();
        let task = async move {
            let outcome = this.process(&origin, &id, transaction).await;
            if outcome.is_err() {
                // Trying again is not repeating.
                this.transactions.of(&origin).lock().retain(|(other, _)| *other != id);
            }
            drop(sender.send(outcome));
            // Marks it as done also where nobody waits any more.
            drop(watched.await);
        };
        self.view.env.spawner.spawn("inbound transaction", task.boxed());
        Ok(ending)
    }

    async fn answered_before_restart(&self, origin: &ServerName, transaction_id: &str) -> Option<Answers> {
        if !self.transactions.of(origin).lock().is_empty() {
            // The newest one is in memory.
            return None;
        }
        let record = self.view.store.get(&INBOUND_TRANSACTIONS, &origin.to_string()).await.ok()??;
        if record.transaction_id != transaction_id {
            return None;
        }
        let answers = record.answers.into_iter();
        let parsed =
            answers.map(|(id, error)| Some((id.try_into().ok()?, Some(error).filter(|e| !e.is_empty()))));
        parsed.collect()
    }

    async fn process(
        self: &Arc<Self>,
        origin: &ServerName,
        transaction_id: &str,
        transaction: Transaction,
    ) -> Outcome {
        let mut answers = Answers::new();
        let rooms = self.by_room(origin, &transaction.pdus, &mut answers).await?;
        let received: Vec<_> =
            rooms.into_values().map(|room| self.receive_in_room(origin, room).boxed()).collect();
        for of_room in join_all(received).await {
            answers.extend(of_room?);
        }
        for edu in &transaction.edus {
            let taken = self.edus.receive(origin, &edu.edu_type, &edu.content).await;
            taken.map_err(|error| {
                tracing::error!(%origin, edu_type = edu.edu_type, %error, "an EDU could not be kept");
                TransactionError::Storage
            })?;
        }
        self.remember(origin, transaction_id, &answers);
        self.count(transaction.pdus.len(), transaction.edus.len());
        Ok(Arc::new(answers))
    }

    fn count(&self, pdus: usize, edus: usize) {
        for (name, help, count) in [
            ("myelin_federation_received_transactions_total", "Transactions from other servers.", 1),
            ("myelin_federation_received_pdus_total", "Events in transactions from other servers.", pdus),
            ("myelin_federation_received_edus_total", "EDUs in transactions from other servers.", edus),
        ] {
            self.view.metrics.counter(name, help, &[]).add(count as u64);
        }
    }

    /// Written a little later: a repeat after a crash does no harm, it only costs, and a commit for each would cost more.
    fn remember(self: &Arc<Self>, origin: &ServerName, transaction_id: &str, answers: &Answers) {
        let answers = answers.iter().map(|(id, error)| (id.to_string(), error.clone().unwrap_or_default()));
        let record = InboundTransactionRecord {
            transaction_id: transaction_id.to_owned(),
            answers: answers.collect(),
        };
        let mut unwritten = self.transactions.unwritten.lock();
        let is_first = unwritten.is_empty();
        unwritten.insert(origin.to_owned(), record);
        drop(unwritten);
        if is_first {
            let this = self.clone();
            let task = async move { this.write_remembered().await };
            self.view.env.spawner.spawn("remember transactions", task.boxed());
        }
    }

    async fn write_remembered(&self) {
        self.view.env.clock.sleep(UNWRITTEN_FOR).await;
        let unwritten = std::mem::take(&mut *self.transactions.unwritten.lock());
        let mut batch = Batch::new();
        for (origin, record) in unwritten {
            batch.put(&INBOUND_TRANSACTIONS, &origin.to_string(), &record);
        }
        if let Err(error) = self.view.store.commit(batch).await {
            tracing::warn!(%error, "answers to transactions are not remembered");
        }
    }

    async fn by_room(
        &self,
        origin: &ServerName,
        pdus: &[Box<RawValue>],
        answers: &mut Answers,
    ) -> Result<HashMap<String, InRoom>, TransactionError> {
        let mut rooms: HashMap<String, InRoom> = HashMap::new();
        for raw in pdus {
            let Some(room_id) = room_id(raw) else { continue };
            let Ok(room_id) = <&RoomId>::try_from(room_id.as_str()) else { continue };
            if let Some(id) = self.ended_outside(room_id, raw).await.map_err(storage)? {
                answers.insert(id, None);
                continue;
            }
            if !rooms.contains_key(room_id.as_str()) {
                let Some(room) = self.view.room_by_id(room_id).await.map_err(storage)? else {
                    tracing::debug!(%origin, %room_id, "a PDU of a room that is not held");
                    continue;
                };
                rooms.insert(room_id.to_string(), InRoom { room, pdus: Vec::new() });
            }
            let Some(in_room) = rooms.get_mut(room_id.as_str()) else { continue };
            match RawPdu(raw).check_format(&in_room.room.info.rules) {
                Ok(formed) => in_room.pdus.push((formed, raw.clone())),
                Err(error) => tracing::debug!(%origin, %room_id, %error, "a PDU is not an event"),
            }
        }
        for in_room in rooms.values_mut() {
            if let Some(refused) = self.refusal(origin, &in_room.room).await? {
                for (formed, _) in in_room.pdus.drain(..) {
                    answers.insert(formed.event_id().to_owned(), Some(refused.clone()));
                }
            }
        }
        Ok(rooms)
    }

    /// Why nothing of this origin is taken in this room.
    async fn refusal(
        &self,
        origin: &ServerName,
        room: &RoomSnapshot,
    ) -> Result<Option<String>, TransactionError> {
        if room.local_joined.is_empty() {
            return Ok(Some("Nobody of this server is in the room.".to_owned()));
        }
        let permitted = self.view.permits(room, origin).await.map_err(storage)?;
        Ok((!permitted).then(|| format!("The room does not let {origin} take part.")))
    }

    async fn receive_in_room(
        self: &Arc<Self>,
        origin: &ServerName,
        in_room: InRoom,
    ) -> Result<Answers, TransactionError> {
        let InRoom { room, pdus } = in_room;
        let (formed, raws): (Vec<FormedPdu>, Vec<_>) = pdus.into_iter().unzip();
        let ids: Vec<OwnedEventId> = formed.iter().map(|formed| formed.event_id().to_owned()).collect();
        let budget = self.view.env.timeout(ROOM_BUDGET, self.judge(origin, &room, formed));
        let mut answers = Answers::new();
        let mut waiting = Vec::new();
        match budget.await {
            Some(outcome) => {
                for ((id, raw), received) in ids.into_iter().zip(&raws).zip(outcome?) {
                    match received {
                        Received::Need(_) => waiting.push((id, &**raw)),
                        Received::Dropped(reason) => drop(answers.insert(id, Some(reason))),
                        Received::Stored(verdict) | Received::Known(verdict) => {
                            tracing::trace!(%id, ?verdict, "received");
                            answers.insert(id, None);
                        }
                    }
                }
            }
            None => waiting.extend(ids.into_iter().zip(raws.iter().map(|raw| &**raw))),
        }
        self.enqueue(origin, &room, waiting, &mut answers).await.map_err(storage)?;
        Ok(answers)
    }

    async fn judge(
        &self,
        origin: &ServerName,
        room: &RoomSnapshot,
        formed: Vec<FormedPdu>,
    ) -> Result<Vec<Received>, TransactionError> {
        // What other servers made comes from this one only where it let them in.
        let relayed: Vec<bool> = formed.iter().map(|formed| formed.claims().membership().is_some()).collect();
        let verified = self.verify(formed, &room.info.rules).await;
        let mut answers: Vec<Option<Received>> = Vec::with_capacity(verified.len());
        let mut good: Vec<Incoming> = Vec::with_capacity(verified.len());
        for outcome in verified {
            match outcome {
                Ok(pdu) => {
                    good.push(pdu.into());
                    answers.push(None);
                }
                Err(error)
                    if keyless(&error).is_some_and(|server| relayed[answers.len()] && *server != *origin) =>
                {
                    // It waits in the queue until the keys are there.
                    answers.push(Some(Received::Need(Vec::new())));
                }
                Err(error) => answers.push(Some(Received::Dropped(error.to_string()))),
            }
        }
        self.ask_policy_server(room, &mut good).await.map_err(storage)?;
        let received = self.receive_all(room.nid(), &good).await.map_err(storage)?;
        let mut received = received.into_iter();
        let dropped = || Received::Dropped("It got no answer.".to_owned());
        Ok(answers
            .into_iter()
            .map(|answer| answer.or_else(|| received.next()).unwrap_or_else(dropped))
            .collect())
    }

    /// As one change; if that fails, one by one, so that one event that cannot be judged takes no other along.
    pub(crate) async fn receive_all(
        &self,
        room: myelin_core::RoomNid,
        pdus: &[Incoming],
    ) -> Result<Vec<Received>, myelin_rooms::Error> {
        if pdus.is_empty() {
            return Ok(Vec::new());
        }
        let outcome = self.rooms.receive_all(room, pdus).await;
        if let Ok(answers) = &outcome {
            self.have_come(room, answers, pdus);
        }
        self.merge_if_many(room);
        match outcome {
            Err(error) if pdus.len() > 1 && !matches!(error, myelin_rooms::Error::Store(_)) => {}
            outcome => return outcome,
        }
        let mut answers = Vec::with_capacity(pdus.len());
        for pdu in pdus {
            match self.rooms.receive_all(room, std::slice::from_ref(pdu)).await {
                Ok(of_one) => answers.extend(of_one),
                Err(myelin_rooms::Error::Store(error)) => return Err(error.into()),
                Err(error) => {
                    tracing::error!(event = %pdu.pdu.pdu().event_id, %error, "an event cannot be judged");
                    answers.push(Received::Dropped("This server could not judge it.".to_owned()));
                }
            }
        }
        Ok(answers)
    }
}

impl Inbound {
    /// In the background: nobody waits for it.
    fn merge_if_many(&self, room: myelin_core::RoomNid) {
        let many = |snapshot: Arc<RoomSnapshot>| snapshot.head.extremities.len() > EXTREMITIES_MAX;
        if !self.view.rooms.cached(room).is_some_and(many) {
            return;
        }
        let rooms = self.rooms.clone();
        let task = async move {
            match rooms.merge_extremities(room).await {
                Ok(merged) => tracing::debug!(?room, merged, "forward extremities piled up"),
                Err(error) => tracing::warn!(?room, %error, "forward extremities pile up"),
            }
        };
        self.view.env.spawner.spawn("merge extremities", task.boxed());
    }
}

/// The PDUs of one room, in the order of the transaction.
struct InRoom {
    room: Arc<RoomSnapshot>,
    pdus: Vec<(FormedPdu, Box<RawValue>)>,
}

#[derive(Deserialize)]
struct InWhichRoom {
    room_id: String,
}

fn room_id(raw: &RawValue) -> Option<String> {
    serde_json::from_str::<InWhichRoom>(raw.get()).ok().map(|pdu| pdu.room_id)
}

fn storage(error: impl std::fmt::Display) -> TransactionError {
    tracing::error!(%error, "a transaction could not be stored");
    TransactionError::Storage
}
