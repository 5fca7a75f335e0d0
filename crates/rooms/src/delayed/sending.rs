//! Sends delayed events when they are due, and forgets those that were decided long ago.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use myelin_core::UserNid;
use myelin_store::{
    Batch, Direction,
    tables::{
        DELAYED_EVENTS, DUE_DELAYED_EVENTS, DelayedEventRecord, DelayedEventRef, DelayedOutcomeRecord,
        SentBy, USER_DELAYED_EVENTS,
    },
};
use myelin_view::DELAYED_BY;
use ruma::{OwnedEventId, RoomId};
use serde_json::value::RawValue;

use super::{FINALISED_PER_USER_MAX, FINALISED_RETENTION_MS, move_due};
use crate::{Error, Rooms, Sender, Transaction};

/// Events sent at once.
const AT_ONCE: usize = 16;
/// Due ones read at a time.
const PAGE: usize = 256;
/// What another process scheduled is seen after this time at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// After a failure that has nothing to do with the event.
const RETRY_MS: u64 = 5_000;

/// Sends what is due, for ever. What was due while the server was down is sent at its start.
pub async fn run_delayed_events(rooms: Arc<Rooms>) {
    let clock = rooms.view.env.clock.clone();
    loop {
        let pause = match rooms.send_due().await {
            Ok(next_ms) => {
                let until = next_ms.map_or(LOOK_AGAIN, |next_ms| {
                    Duration::from_millis(next_ms.saturating_sub(rooms.view.env.now_ms()).max(1))
                });
                until.min(LOOK_AGAIN)
            }
            Err(error) => {
                tracing::error!(%error, "delayed events cannot be sent; trying again");
                Duration::from_millis(RETRY_MS)
            }
        };
        futures::future::select(clock.sleep(pause), std::pin::pin!(rooms.delayed.changed.notified())).await;
    }
}

impl Rooms {
    /// Answers when the next one is due.
    async fn send_due(&self) -> Result<Option<u64>, Error> {
        loop {
            let now_ms = self.view.env.now_ms();
            let (from, end) = ((0, String::new()), (u64::MAX, String::new()));
            let rows =
                self.view.store.range(&DUE_DELAYED_EVENTS, &from, &end, Direction::Forward, PAGE).await?;
            let next_ms = rows.iter().map(|((due_ms, _), ())| *due_ms).find(|due_ms| *due_ms > now_ms);
            let due: Vec<_> = rows.into_iter().map(|(key, ())| key).filter(|(ms, _)| *ms <= now_ms).collect();
            let all = due.len() < PAGE;
            let handled = stream::iter(due).map(|(due_ms, id)| self.handle_due(due_ms, id));
            let mut handled = handled.buffer_unordered(AT_ONCE);
            while let Some(outcome) = handled.next().await {
                outcome?;
            }
            if all {
                return Ok(next_ms);
            }
        }
    }

    async fn handle_due(&self, due_ms: u64, delay_id: String) -> Result<(), Error> {
        let _turn = self.delayed.turn(delay_id.as_str()).await;
        let record = self.view.store.get(&DELAYED_EVENTS, &delay_id).await?;
        let Some(record) = record.filter(|record| record.due_ms == due_ms) else {
            // It was moved since the row was read, or another process has dealt with it.
            return Ok(());
        };
        if record.outcome.is_some() {
            let mut batch = Batch::new();
            forget(&mut batch, &delay_id, &record);
            return unless_busy(self.commit_delayed(batch).await);
        }
        let outcome = match self.send_delayed(&delay_id, &record).await {
            Ok(event_id) => Ok(event_id),
            Err(Error::Busy | Error::Store(_) | Error::View(_) | Error::Unreachable(_)) => {
                return unless_busy(self.try_later(&delay_id, &record).await);
            }
            Err(error) => Err(Some(error)),
        };
        unless_busy(self.finalise(&delay_id, &record, false, outcome).await)
    }

    async fn try_later(&self, delay_id: &String, held: &DelayedEventRecord) -> Result<(), Error> {
        let due_ms = self.view.env.now_ms() + RETRY_MS;
        let mut batch = Batch::new();
        batch.require_equal(&DELAYED_EVENTS, delay_id, held);
        move_due(&mut batch, delay_id, held.due_ms, due_ms);
        batch.put(&DELAYED_EVENTS, delay_id, &DelayedEventRecord { due_ms, ..held.clone() });
        self.commit_delayed(batch).await
    }

    pub(super) async fn send_delayed(
        &self,
        delay_id: &str,
        record: &DelayedEventRecord,
    ) -> Result<OwnedEventId, Error> {
        let sender = self.sender_of(record.user, record.guest).await?;
        let damaged = |_| Error::damaged(format!("the delayed event {delay_id}"));
        let room_id = <&RoomId>::try_from(record.room_id.as_str())
            .map_err(|_| Error::damaged(format!("the room of the delayed event {delay_id}")))?;
        let content: &RawValue = serde_json::from_str(&record.content).map_err(damaged)?;
        let event_type = record.event_type.as_str().into();
        // No device has this name, so no client's transactions are in its way.
        let transaction =
            Transaction { device_id: DELAYED_BY.to_owned(), transaction_id: delay_id.to_owned() };
        match &record.state_key {
            Some(state_key) => {
                let sent_by: SentBy = transaction.sent_by(&sender);
                self.send_state_by(&sender, room_id, event_type, state_key, content, Some(sent_by)).await
            }
            None => {
                let duration_ms = record.sticky_duration_ms;
                self.send_sticky(&sender, room_id, event_type, content, duration_ms, &transaction).await
            }
        }
    }

    async fn sender_of(&self, user: UserNid, guest: bool) -> Result<Sender, Error> {
        let user_id = self.view.interner.user_id(user).await?;
        Ok(Sender { user, user_id: (*user_id).to_owned(), guest, suspended: false, admin: false })
    }

    /// `outcome`: `Err` if it was cancelled, with what the room said.
    pub(super) async fn finalise(
        &self,
        delay_id: &String,
        held: &DelayedEventRecord,
        by_action: bool,
        outcome: Result<OwnedEventId, Option<Error>>,
    ) -> Result<(), Error> {
        let at_ms = self.view.env.now_ms();
        let error = outcome.as_ref().err().and_then(|error| error.as_ref());
        let outcome = DelayedOutcomeRecord {
            at_ms,
            by_action,
            error: error.map(|error| (error.errcode().to_owned(), error.to_string())),
            event_id: outcome.ok().map(|id| id.to_string()),
        };
        let due_ms = at_ms + FINALISED_RETENTION_MS;
        let record = DelayedEventRecord { due_ms, outcome: Some(outcome), ..held.clone() };
        let mut batch = Batch::new();
        batch.require_equal(&DELAYED_EVENTS, delay_id, held);
        move_due(&mut batch, delay_id, held.due_ms, due_ms);
        batch.put(&DELAYED_EVENTS, delay_id, &record);
        let decided = DelayedEventRef { finalised_ms: Some(at_ms) };
        batch.put(&USER_DELAYED_EVENTS, &(held.user, delay_id.clone()), &decided);
        self.forget_oldest(&mut batch, held.user, delay_id).await?;
        self.commit_delayed(batch).await
    }

    async fn forget_oldest(&self, batch: &mut Batch, user: UserNid, newest: &str) -> Result<(), Error> {
        let rows = self.delayed_of(user).await?.into_iter();
        let mut decided: Vec<_> = rows
            .filter(|(id, _)| id != newest)
            .filter_map(|(id, row)| Some((row.finalised_ms?, id)))
            .collect();
        decided.sort_unstable();
        let too_many = (decided.len() + 1).saturating_sub(FINALISED_PER_USER_MAX);
        for (_, id) in decided.into_iter().take(too_many) {
            if let Some(record) = self.view.store.get(&DELAYED_EVENTS, &id).await? {
                forget(batch, &id, &record);
            }
        }
        Ok(())
    }
}

fn forget(batch: &mut Batch, delay_id: &String, record: &DelayedEventRecord) {
    batch.delete(&DELAYED_EVENTS, delay_id);
    batch.delete(&USER_DELAYED_EVENTS, &(record.user, delay_id.clone()));
    batch.delete(&DUE_DELAYED_EVENTS, &(record.due_ms, delay_id.clone()));
}

/// Somebody else was first: the row is looked at again in the next round.
fn unless_busy(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Busy) => Ok(()),
        other => other,
    }
}
