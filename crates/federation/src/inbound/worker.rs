//! PDUs that were acknowledged and wait for their ancestors or keys: durable, bounded, one queue ([`super::queue`]) and one
//! worker per room.
//!
//! A room that is hard to follow holds up itself only. What can be had from nobody is tried again later, and given up
//! after a day; an event that refers to it brings it back into play.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{FutureExt, future::select};
use myelin_core::RoomNid;
use myelin_dag::checks::RawPdu;
use myelin_rooms::{Incoming, Received};
use myelin_store::{
    Batch, CommitError,
    tables::{INBOUND_PDUS, InboundPduRecord},
};
use myelin_view::RoomSnapshot;
use ruma::{EventId, OwnedEventId, ServerName};
use serde_json::value::RawValue;

use self::Outlook::{Done, Gone, Keyless, Later};
use super::{
    Inbound,
    gap::Filled,
    policy::{PATIENT_ATTEMPTS, waits_for_policy},
    queue::{ALL_MAX, Entry, Next, Place},
    transaction::Answers,
    verification::{keyless, wanted},
};
use crate::keys::Wanted;

/// A PDU to be queued.
pub struct Waiting<'a> {
    pub id: OwnedEventId,
    pub raw: &'a RawValue,
}

/// What one PDU may take at a time.
const PDU_BUDGET: Duration = Duration::from_secs(120);
/// Pause before an event is tried again: this, doubled each time.
const RETRY_FIRST_MS: u64 = 30_000;
const RETRY_MS_MAX: u64 = 3_600_000;
/// When an event that could not be had is given up.
const AGE_MS_MAX: u64 = 24 * 3_600_000;

enum Outlook {
    /// Judged, or never to be had.
    Done,
    /// Somebody else has taken it off the queue: another process over the same store.
    Gone,
    /// These keys are not here, and were not looked for.
    Keyless { wanted: Vec<Wanted> },
    /// Who has what it lacks does not answer now.
    Later { lacks: Vec<OwnedEventId> },
}

impl Inbound {
    /// What waits for events that came by another way goes on.
    pub(super) fn have_come<'a>(&self, room: RoomNid, answers: &[Received], pdus: &'a [Incoming]) {
        let come = |(answer, pdu): (&Received, &'a Incoming)| match answer {
            Received::Stored(_) | Received::Known(_) => Some(&*pdu.pdu.pdu().event_id),
            _ => None,
        };
        let ids = answers.iter().zip(pdus).filter_map(come).collect();
        self.queue.have_come(room, &ids);
    }

    /// How many PDUs were acknowledged and are not judged yet.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Puts PDUs that were brought by `origin` into the durable queue of their room, as far as there is room.
    pub(super) async fn enqueue(
        self: &Arc<Self>,
        origin: &ServerName,
        room: &RoomSnapshot,
        pdus: Vec<Waiting<'_>>,
        answers: &mut Answers,
    ) -> Result<(), myelin_store::Error> {
        let (room, received_ms) = (room.nid(), self.view.env.now_ms());
        let mut batch = Batch::new();
        let mut reserved = Vec::new();
        for (index, Waiting { id, raw }) in (0_u32..).zip(pdus) {
            match self.queue.reserve(room, &id, origin) {
                Place::Taken => drop(answers.insert(id, None)),
                Place::Full => {
                    let full = "Too much waits for this room. Send it again later.";
                    answers.insert(id, Some(full.to_owned()));
                }
                Place::Reserved => {
                    let json = raw.get().to_owned();
                    let record = InboundPduRecord { received_ms, index, json };
                    batch.put(&INBOUND_PDUS, &key(room, &id, origin), &record);
                    reserved.push((index, id));
                }
            }
        }
        if reserved.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.view.store.commit(batch).await {
            reserved.iter().for_each(|_| self.queue.release(room, origin));
            return Err(store_error(error));
        }
        // Only now: whose row the worker does not find counts as taken off.
        for (index, id) in reserved {
            answers.insert(id.clone(), None);
            self.queue.admit(room, id, Entry::new(origin.to_owned(), received_ms, index));
        }
        self.work_on(room);
        Ok(())
    }

    /// Takes up what a former process left.
    pub(super) async fn resume(self: &Arc<Self>) -> Result<(), myelin_store::Error> {
        let rows = self.view.store.read().all(&INBOUND_PDUS, ALL_MAX).await?;
        let mut rooms = BTreeSet::new();
        for ((room, id, origin), record) in rows {
            let (Ok(id), Ok(origin)) = (id.try_into(), origin.try_into()) else { continue };
            self.queue.restore(room, id, Entry::new(origin, record.received_ms, record.index));
            rooms.insert(room);
        }
        rooms.into_iter().for_each(|room| self.work_on(room));
        self.resume_arriving().await
    }

    fn work_on(self: &Arc<Self>, room: RoomNid) {
        if self.queue.claim(room) {
            let this = self.clone();
            let task = async move { this.work(room).await };
            self.view.env.spawner.spawn("inbound room", task.boxed());
        }
    }

    async fn work(self: Arc<Self>, room: RoomNid) {
        loop {
            let spared = self.queue.spared();
            let now_ms = self.view.env.now_ms();
            match self.queue.next(room, now_ms) {
                Next::Nothing => return,
                Next::Turn(id, entry) => {
                    let took_ms = self.take_turn(room, &id, &entry).await;
                    self.queue.worked(room, &entry.origin, took_ms);
                }
                Next::Wait { until_ms } => {
                    let Some(news) = self.queue.news(room) else { return };
                    let pause_ms = until_ms.map_or(RETRY_MS_MAX, |until_ms| until_ms.saturating_sub(now_ms));
                    let (news, spared) = (std::pin::pin!(news.notified()), std::pin::pin!(spared));
                    self.view.env.timeout(Duration::from_millis(pause_ms), select(news, spared)).await;
                }
            }
        }
    }

    /// How long it took, milliseconds.
    async fn take_turn(self: &Arc<Self>, room: RoomNid, id: &OwnedEventId, entry: &Entry) -> u64 {
        let _permit = self.queue.permit().await;
        let (this, queued, with) = (self.clone(), id.clone(), entry.clone());
        let attempt = async move { this.take_queued(room, &queued, &with).await };
        let attempt = self.view.env.timeout(PDU_BUDGET, self.apart("inbound event", attempt.boxed()));
        let began_ms = self.view.env.now_ms();
        let outlook = match attempt.await {
            Some(Some(outlook)) => outlook,
            Some(None) => {
                tracing::error!(%id, "a queued event makes this server panic, and is dropped");
                Done
            }
            None => Later { lacks: entry.lacks.clone() },
        };
        let now_ms = self.view.env.now_ms();
        let given_up = now_ms.saturating_sub(entry.received_ms) > AGE_MS_MAX;
        match outlook {
            Keyless { wanted } => {
                self.queue.set_aside(room, id, entry, now_ms + RETRY_MS_MAX);
                self.look_for_keys(room, id, entry, wanted);
                return now_ms.saturating_sub(began_ms);
            }
            Later { lacks } if !given_up => {
                let pause_ms = (RETRY_FIRST_MS << entry.attempts.min(16)).min(RETRY_MS_MAX);
                self.queue.postpone(room, id, entry, now_ms + pause_ms, lacks);
            }
            Done | Later { .. } => self.forget_queued(room, id, entry).await,
            Gone => self.queue.remove(room, id, entry),
        }
        self.slow.judged(room, began_ms, now_ms);
        now_ms.saturating_sub(began_ms)
    }

    /// The row goes after the event came: a crash in between only costs a second look. A row that is not the one of this
    /// entry stays: its server has brought the event anew, which is acknowledged.
    async fn forget_queued(&self, room: RoomNid, id: &OwnedEventId, entry: &Entry) {
        if let Err(error) = self.delete_row(&key(room, id, &entry.origin), entry).await {
            tracing::error!(%id, %error, "a queued event cannot be taken off the queue");
        }
        self.queue.remove(room, id, entry);
    }

    async fn delete_row(&self, key: &Key, entry: &Entry) -> Result<(), myelin_store::Error> {
        let Some(row) = self.view.store.get(&INBOUND_PDUS, key).await? else { return Ok(()) };
        if (row.received_ms, row.index) != (entry.received_ms, entry.index) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.require_equal(&INBOUND_PDUS, key, &row);
        batch.delete(&INBOUND_PDUS, key);
        match self.view.store.commit(batch).await {
            Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    async fn take_queued(&self, room: RoomNid, id: &OwnedEventId, entry: &Entry) -> Outlook {
        match self.try_queued(room, id, entry).await {
            Ok(outlook) => outlook,
            Err(error) => {
                tracing::error!(%id, %error, "a queued event cannot be judged");
                match error {
                    myelin_rooms::Error::Store(_) | myelin_rooms::Error::Busy => Later { lacks: Vec::new() },
                    _ => Done,
                }
            }
        }
    }

    async fn try_queued(
        &self,
        room: RoomNid,
        id: &OwnedEventId,
        entry: &Entry,
    ) -> Result<Outlook, myelin_rooms::Error> {
        let Some(snapshot) = self.view.rooms.load(room).await? else { return Ok(Done) };
        let row = self.view.store.get(&INBOUND_PDUS, &key(room, id, &entry.origin)).await?;
        let Some(row) = row else { return Ok(Gone) };
        let Ok(raw) = RawValue::from_string(row.json) else { return Ok(Done) };
        let Ok(formed) = RawPdu(&raw).check_format(&snapshot.info.rules) else { return Ok(Done) };
        let wanted = wanted(&formed, &snapshot.info.rules);
        // What other servers made comes from this one only where it let them in.
        let relayed = formed.claims().membership().is_some();
        let pdu = match self.verify_at_hand(vec![formed], &snapshot.info.rules).await.pop() {
            Some(Ok(pdu)) => pdu,
            Some(Err(error)) => {
                tracing::debug!(%id, %error, "a queued event cannot be verified");
                return Ok(match keyless(&error) {
                    Some(_) if !entry.looked => Keyless { wanted },
                    Some(server) if relayed || *server == entry.origin => Later { lacks: Vec::new() },
                    _ => Done,
                });
            }
            None => return Ok(Done),
        };
        if entry.attempts < PATIENT_ATTEMPTS {
            let spared = self.rooms.spared_policy(&snapshot).await?;
            if waits_for_policy(spared.as_ref(), &pdu, &snapshot.info.rules) {
                return Ok(Later { lacks: Vec::new() });
            }
        }
        Ok(match self.fill_and_receive(&snapshot, pdu, &entry.origin, entry.attempts).await? {
            Filled::Received => Done,
            Filled::Unavailable { for_good, lacks } => {
                tracing::info!(%id, origin = %entry.origin, for_good, "the ancestors of an event cannot be had");
                if for_good { Done } else { Later { lacks } }
            }
        })
    }
}

type Key = (RoomNid, String, String);

fn key(room: RoomNid, id: &EventId, origin: &ServerName) -> Key {
    (room, id.to_string(), origin.to_string())
}

fn store_error(error: CommitError) -> myelin_store::Error {
    match error {
        CommitError::Store(error) => error,
        conflict => myelin_store::Error::Backend(conflict.to_string()),
    }
}
