//! `PUT /_matrix/federation/v1/send/{txnId}` (Server-Server API, "Transactions"): limits, repeats, EDUs. What becomes of
//! its PDUs: [`super::pdus`].

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt,
    channel::oneshot,
    future::{Shared, join},
};
use myelin_core::limits::JSON_DEPTH_MAX;
use myelin_dag::canonical;
use myelin_store::{
    Batch,
    tables::{INBOUND_TRANSACTIONS, InboundTransactionRecord},
};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Inbound;

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

/// Each PDU and EDU as it came: what is wrong with one of them is no reason to refuse the others, which would come again,
/// and the same with them.
#[derive(Deserialize)]
pub struct Transaction {
    #[serde(default)]
    pub pdus: Vec<Box<RawValue>>,
    #[serde(default)]
    pub edus: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Edu {
    edu_type: String,
    content: Box<RawValue>,
}

impl Edu {
    /// Whether its server has to be in a room for it, which the same transaction may bring it into.
    fn is_in_room(&self) -> bool {
        matches!(self.edu_type.as_str(), "m.typing" | "m.receipt")
    }
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
type Ending = Shared<oneshot::Receiver<Outcome>>;

/// The newest transactions of one origin by their ids, oldest first.
#[derive(Default)]
struct Remembered(VecDeque<(String, Ending)>);

enum Begun {
    Repeated(Ending),
    New(oneshot::Sender<Outcome>, Ending),
}

/// The newest transactions of each origin, under way or answered.
pub struct Transactions {
    of_origins: Cache<OwnedServerName, Arc<Mutex<Remembered>>>,
    /// The newest answer of each origin, until it is in the store.
    unwritten: Mutex<BTreeMap<OwnedServerName, InboundTransactionRecord>>,
}

impl Transactions {
    pub(super) fn new() -> Self {
        Self { of_origins: Cache::new(ORIGINS_MAX), unwritten: Mutex::default() }
    }

    fn of(&self, origin: &ServerName) -> Arc<Mutex<Remembered>> {
        let new = || Ok::<_, std::convert::Infallible>(Arc::default());
        self.of_origins.get_or_insert_with(origin, new).unwrap_or_default()
    }
}

impl Remembered {
    fn begin(&mut self, transaction_id: &str) -> Result<Begun, TransactionError> {
        // To try again what failed, or broke off, is not to repeat it.
        self.0.retain(|(_, ending)| !matches!(outcome(ending), Some(Err(_))));
        if let Some((_, ending)) = self.0.iter().find(|(id, _)| id == transaction_id) {
            return Ok(Begun::Repeated(ending.clone()));
        }
        if self.0.iter().filter(|(_, ending)| outcome(ending).is_none()).count() >= CONCURRENT_MAX {
            return Err(TransactionError::Busy);
        }
        let (sender, receiver) = oneshot::channel();
        let ending = receiver.shared();
        self.0.push_back((transaction_id.to_owned(), ending.clone()));
        if self.0.len() > REMEMBERED_MAX {
            let done = self.0.iter().position(|(_, ending)| outcome(ending).is_some());
            done.and_then(|index| self.0.remove(index));
        }
        Ok(Begun::New(sender, ending))
    }
}

/// `None` while it is under way. Whose task has ended without an outcome has failed.
fn outcome(ending: &Ending) -> Option<Outcome> {
    Some(ending.clone().now_or_never()?.unwrap_or(Err(TransactionError::Storage)))
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
        let begun = self.transactions.of(origin).lock().begin(transaction_id)?;
        let (sender, ending) = match begun {
            Begun::Repeated(ending) => return Ok(ending),
            Begun::New(sender, ending) => (sender, ending),
        };
        let (this, origin, id) = (self.clone(), origin.to_owned(), transaction_id.to_owned());
        let task = async move { drop(sender.send(this.process(&origin, &id, transaction).await)) };
        self.view.env.spawner.spawn("inbound transaction", task.boxed());
        Ok(ending)
    }

    async fn answered_before_restart(&self, origin: &ServerName, transaction_id: &str) -> Option<Answers> {
        if !self.transactions.of(origin).lock().0.is_empty() {
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
        let edus = transaction.edus.iter().filter_map(|raw| edu(origin, raw));
        let (in_rooms, others): (Vec<Edu>, Vec<Edu>) = edus.partition(Edu::is_in_room);
        // Side by side: messages to devices do not wait for rooms.
        let pdus = self.receive_pdus(origin, &transaction.pdus);
        let (answers, edus) = join(pdus, self.receive_edus(origin, others)).await;
        let answers = answers?;
        edus?;
        self.receive_edus(origin, in_rooms).await?;
        self.remember(origin, transaction_id, &answers);
        self.count(transaction.pdus.len(), transaction.edus.len());
        Ok(Arc::new(answers))
    }

    async fn receive_edus(
        self: &Arc<Self>,
        origin: &ServerName,
        edus: Vec<Edu>,
    ) -> Result<(), TransactionError> {
        for Edu { edu_type, content } in edus {
            let (this, by, kind) = (self.edus.clone(), origin.to_owned(), edu_type.clone());
            let taking = async move { this.receive(&by, &kind, &content).await };
            match self.apart("inbound EDU", taking.boxed()).await {
                Some(taken) => taken.map_err(|error| {
                    tracing::error!(%origin, edu_type, %error, "an EDU could not be kept");
                    TransactionError::Storage
                })?,
                // It would come again for ever.
                None => tracing::error!(%origin, edu_type, "an EDU makes this server panic, and is dropped"),
            }
        }
        Ok(())
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
}

fn edu(origin: &ServerName, raw: &RawValue) -> Option<Edu> {
    // The list, and the transaction that it is in, count as levels where clients get to see it.
    let shallow = canonical::depth(raw.get()) <= JSON_DEPTH_MAX;
    let edu = shallow.then(|| serde_json::from_str(raw.get()).ok()).flatten();
    if edu.is_none() {
        tracing::debug!(%origin, "an EDU is none");
    }
    edu
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(remembered: &mut Remembered, id: &str) -> oneshot::Sender<Outcome> {
        match remembered.begin(id) {
            Ok(Begun::New(sender, _)) => sender,
            Ok(Begun::Repeated(_)) => panic!("{id} is no repeat"),
            Err(error) => panic!("{id}: {error}"),
        }
    }

    fn answer(remembered: &mut Remembered, id: &str) -> Option<Outcome> {
        match remembered.begin(id) {
            Ok(Begun::Repeated(ending)) => outcome(&ending),
            _ => panic!("{id} is a repeat"),
        }
    }

    #[test]
    fn what_was_answered_is_repeated_and_what_failed_is_done_again() {
        let mut remembered = Remembered::default();
        let sender = new(&mut remembered, "a");
        assert_eq!(answer(&mut remembered, "a"), None, "under way");
        sender.send(Ok(Arc::default())).expect("somebody waits");
        assert_eq!(answer(&mut remembered, "a"), Some(Ok(Arc::default())));
        new(&mut remembered, "b").send(Err(TransactionError::Storage)).expect("somebody waits");
        drop(new(&mut remembered, "b"));
        // Its task has panicked.
        drop(new(&mut remembered, "b"));
        assert_eq!(remembered.0.len(), 2);
        assert_eq!(answer(&mut remembered, "a"), Some(Ok(Arc::default())));
    }

    #[test]
    fn few_are_processed_at_the_same_time() {
        let mut remembered = Remembered::default();
        let mut under_way: Vec<_> =
            (0..CONCURRENT_MAX).map(|number| new(&mut remembered, &number.to_string())).collect();
        assert!(matches!(remembered.begin("more"), Err(TransactionError::Busy)));
        assert_eq!(answer(&mut remembered, "0"), None, "a repeat is no more work");
        under_way.pop();
        let more = new(&mut remembered, "more");
        assert!(matches!(remembered.begin("still more"), Err(TransactionError::Busy)));
        more.send(Ok(Arc::default())).expect("somebody waits");
        new(&mut remembered, "still more");
    }

    #[test]
    fn the_oldest_answers_are_forgotten() {
        let mut remembered = Remembered::default();
        let waits = new(&mut remembered, "waits");
        for number in 0..REMEMBERED_MAX {
            new(&mut remembered, &number.to_string()).send(Ok(Arc::default())).expect("somebody waits");
        }
        assert_eq!(remembered.0.len(), REMEMBERED_MAX);
        assert_eq!(answer(&mut remembered, "waits"), None);
        assert_eq!(answer(&mut remembered, "1"), Some(Ok(Arc::default())));
        new(&mut remembered, "0");
        drop(waits);
    }
}
