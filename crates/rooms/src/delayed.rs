//! Delayed events (MSC4140): an event that the server sends for its user when the time has come, unless the user says
//! otherwise before. What has become of it can be asked for a while.
//!
//! Whoever changes one takes its turn first, so that in one process an event is not sent while it is being cancelled. The
//! transaction id of the message is the delay id: a crash after sending and before it is noted sends nothing twice.

mod listing;
mod sending;

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use myelin_core::{UserNid, limits};
use myelin_store::{
    Batch, CommitError, Direction,
    tables::{
        DELAYED_EVENTS, DUE_DELAYED_EVENTS, DelayedEventRecord, DelayedEventRef, TRANSACTIONS,
        TransactionRecord, USER_DELAYED_EVENTS,
    },
};
use ruma::{OwnedRoomId, events::TimelineEventType};
use serde_json::value::RawValue;
use tokio::sync::{Mutex, MutexGuard, Notify};

pub use self::{
    listing::{Ask, Order, Outcome, Page as DelayedPage, Status},
    sending::run_delayed_events,
};
use crate::{Error, Rooms, Sender, Transaction, commands::check_names};

/// Decided ones of a user that can still be asked for; the oldest ones go first.
pub const FINALISED_PER_USER_MAX: usize = 100;
/// And for how long.
pub const FINALISED_RETENTION_MS: u64 = 7 * 24 * 3600 * 1000;
/// 62 different characters: 190 bits, as whoever knows the id may send and cancel.
const ID_LENGTH: usize = 32;
const TURNS: usize = 64;

/// Client-Server API limits; the operator's to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayLimits {
    pub delay_ms_max: u64,
    pub scheduled_per_user_max: usize,
}

impl Default for DelayLimits {
    fn default() -> Self {
        Self { delay_ms_max: 24 * 3600 * 1000, scheduled_per_user_max: 100 }
    }
}

/// What is to be sent.
pub struct NewDelayedEvent<'a> {
    pub room_id: OwnedRoomId,
    pub event_type: TimelineEventType,
    /// Set for state events.
    pub state_key: Option<String>,
    pub content: &'a RawValue,
    pub delay_ms: u64,
    pub sticky_duration_ms: Option<u64>,
    /// A repeat gets the answer of the first.
    pub transaction: Option<Transaction>,
}

#[derive(Debug, thiserror::Error)]
pub enum DelayError {
    #[error("A delay is at least one millisecond.")]
    NoDelay,
    /// `M_MAX_DELAY_EXCEEDED`.
    #[error("The requested delay exceeds the allowed maximum of {0} ms.")]
    TooLong(u64),
    /// `M_LIMIT_EXCEEDED`; milliseconds until the first of them is sent.
    #[error("The maximum number of delayed events has been reached.")]
    TooMany(u64),
    #[error("There is no such delayed event.")]
    NotFound,
    /// `409 M_UNKNOWN`.
    #[error("The delayed event has been {0} already.")]
    Decided(&'static str),
    #[error(transparent)]
    Room(#[from] Error),
}

impl From<myelin_store::Error> for DelayError {
    fn from(error: myelin_store::Error) -> Self {
        Self::Room(error.into())
    }
}

/// What somebody who knows the id may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelayAction {
    Send,
    Cancel,
    Restart,
}

/// The delayed events of one process.
pub(crate) struct Delayed {
    /// Something may be due earlier than what is waited for.
    changed: Notify,
    turns: Vec<Mutex<()>>,
}

impl Default for Delayed {
    fn default() -> Self {
        Self { changed: Notify::new(), turns: (0..TURNS).map(|_| Mutex::default()).collect() }
    }
}

impl Delayed {
    async fn turn(&self, of: impl std::hash::Hash) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(of);
        self.turns[(hash % TURNS as u64) as usize].lock().await
    }
}

impl Rooms {
    /// Answers the delay id.
    pub async fn schedule_event(
        &self,
        sender: &Sender,
        new: &NewDelayedEvent<'_>,
        limits: &DelayLimits,
    ) -> Result<String, DelayError> {
        self.check_new(new, limits)?;
        if !self.room(&new.room_id).await?.is_joined(sender.user) {
            return Err(Error::not_in_room(&new.room_id).into());
        }
        let _turn = self.delayed.turn(sender.user).await;
        let transaction = new.transaction.as_ref().map(|transaction| scope(sender, new, transaction));
        if let Some(key) = &transaction
            && let Some(record) = self.view.store.get(&TRANSACTIONS, key).await?
        {
            return Ok(record.event_id);
        }
        self.check_count(sender.user, limits).await?;
        let (delay_id, now_ms) = (self.view.env.random_string(ID_LENGTH), self.view.env.now_ms());
        let mut batch = Batch::new();
        if let Some(key) = &transaction {
            batch.require_absent(&TRANSACTIONS, key);
            batch.put(&TRANSACTIONS, key, &TransactionRecord { event_id: delay_id.clone(), at_ms: now_ms });
        }
        let record = record(sender, new, now_ms);
        batch.require_absent(&DELAYED_EVENTS, &delay_id);
        batch.put(
            &USER_DELAYED_EVENTS,
            &(sender.user, delay_id.clone()),
            &DelayedEventRef { finalised_ms: None },
        );
        batch.put(&DUE_DELAYED_EVENTS, &(record.due_ms, delay_id.clone()), &());
        batch.put(&DELAYED_EVENTS, &delay_id, &record);
        self.commit_delayed(batch).await?;
        self.delayed.changed.notify_one();
        Ok(delay_id)
    }

    fn check_new(&self, new: &NewDelayedEvent<'_>, limits: &DelayLimits) -> Result<(), DelayError> {
        check_names(&new.event_type, new.state_key.as_deref().unwrap_or_default())?;
        if new.delay_ms == 0 {
            return Err(DelayError::NoDelay);
        }
        if new.delay_ms > limits.delay_ms_max {
            return Err(DelayError::TooLong(limits.delay_ms_max));
        }
        let content = new.content.get();
        if content.len() > limits::PDU_SIZE_MAX {
            return Err(Error::TooLarge("The content is larger than an event can be.".to_owned()).into());
        }
        if !content.starts_with('{') {
            return Err(Error::BadJson("The content of an event is an object.".to_owned()).into());
        }
        let transaction = new.transaction.as_ref();
        if transaction.is_some_and(|transaction| transaction.transaction_id.len() > limits::TXN_ID_SIZE_MAX) {
            return Err(Error::InvalidParam("The transaction id is too long.".to_owned()).into());
        }
        Ok(())
    }

    async fn check_count(&self, user: UserNid, limits: &DelayLimits) -> Result<(), DelayError> {
        let rows = self.delayed_of(user).await?;
        let scheduled: Vec<_> = rows.into_iter().filter(|(_, row)| row.finalised_ms.is_none()).collect();
        if scheduled.len() < limits.scheduled_per_user_max {
            return Ok(());
        }
        let ids: Vec<_> = scheduled.into_iter().map(|(id, _)| id).collect();
        let records = self.view.store.multi_get(&DELAYED_EVENTS, &ids).await?;
        let first_ms = records.into_iter().flatten().map(|record| record.due_ms).min();
        let now_ms = self.view.env.now_ms();
        Err(DelayError::TooMany(first_ms.unwrap_or(now_ms).saturating_sub(now_ms).max(1)))
    }

    /// Ids of a user's delayed events.
    async fn delayed_of(&self, user: UserNid) -> Result<Vec<(String, DelayedEventRef)>, Error> {
        const ROWS_MAX: usize = 100_000;
        let rows = self.view.store.scan(&USER_DELAYED_EVENTS, &user, Direction::Forward, ROWS_MAX).await?;
        Ok(rows.into_iter().map(|((_, id), row)| (id, row)).collect())
    }

    /// Whose it is, to count against their limits.
    pub async fn owner_of_delayed_event(&self, delay_id: &str) -> Result<Option<UserNid>, Error> {
        let record = self.view.store.get(&DELAYED_EVENTS, &delay_id.to_owned()).await?;
        Ok(record.map(|record| record.user))
    }

    pub async fn manage_delayed_event(&self, delay_id: &str, action: DelayAction) -> Result<(), DelayError> {
        let key = delay_id.to_owned();
        let _turn = self.delayed.turn(delay_id).await;
        let record = self.view.store.get(&DELAYED_EVENTS, &key).await?.ok_or(DelayError::NotFound)?;
        if let Some(outcome) = &record.outcome {
            return match (action, &outcome.event_id) {
                (DelayAction::Send, Some(_)) | (DelayAction::Cancel, None) => Ok(()),
                (_, Some(_)) => Err(DelayError::Decided("sent")),
                (_, None) => Err(DelayError::Decided("cancelled")),
            };
        }
        match action {
            DelayAction::Send => {
                let event_id = self.send_delayed(&key, &record).await?;
                Ok(self.finalise(&key, &record, true, Ok(event_id)).await?)
            }
            DelayAction::Cancel => Ok(self.finalise(&key, &record, true, Err(None)).await?),
            DelayAction::Restart => Ok(self.restart_delayed(&key, &record).await?),
        }
    }

    async fn restart_delayed(&self, delay_id: &String, held: &DelayedEventRecord) -> Result<(), Error> {
        let running_since_ms = self.view.env.now_ms();
        let due_ms = running_since_ms.saturating_add(held.delay_ms);
        let record = DelayedEventRecord { running_since_ms, due_ms, ..held.clone() };
        let mut batch = Batch::new();
        batch.require_equal(&DELAYED_EVENTS, delay_id, held);
        move_due(&mut batch, delay_id, held.due_ms, due_ms);
        batch.put(&DELAYED_EVENTS, delay_id, &record);
        // The task that sends wakes at the old time, finds nothing due and goes on.
        self.commit_delayed(batch).await
    }

    async fn commit_delayed(&self, batch: Batch) -> Result<(), Error> {
        match self.view.store.commit(batch).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { .. }) => Err(Error::Busy),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}

fn record(sender: &Sender, new: &NewDelayedEvent<'_>, now_ms: u64) -> DelayedEventRecord {
    DelayedEventRecord {
        user: sender.user,
        guest: sender.guest,
        room_id: new.room_id.to_string(),
        event_type: new.event_type.to_string(),
        state_key: new.state_key.clone(),
        content: new.content.get().to_owned(),
        sticky_duration_ms: new.sticky_duration_ms,
        delay_ms: new.delay_ms,
        running_since_ms: now_ms,
        due_ms: now_ms.saturating_add(new.delay_ms),
        outcome: None,
    }
}

fn scope(
    sender: &Sender,
    new: &NewDelayedEvent<'_>,
    transaction: &Transaction,
) -> (UserNid, String, String, String) {
    let scope = format!("delayed_event/{}/{}", new.room_id, new.event_type);
    (sender.user, transaction.device_id.clone(), scope, transaction.transaction_id.clone())
}

/// In a batch a key is put or deleted, never both.
fn move_due(batch: &mut Batch, delay_id: &str, from_ms: u64, to_ms: u64) {
    if from_ms != to_ms {
        batch.delete(&DUE_DELAYED_EVENTS, &(from_ms, delay_id.to_owned()));
        batch.put(&DUE_DELAYED_EVENTS, &(to_ms, delay_id.to_owned()), &());
    }
}
