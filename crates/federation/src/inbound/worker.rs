//! PDUs that were acknowledged and wait for their ancestors: durable, bounded, one queue ([`super::queue`]) and one
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
    Batch,
    tables::{INBOUND_PDUS, InboundPduRecord},
};
use myelin_view::RoomSnapshot;
use ruma::{OwnedEventId, ServerName};
use serde_json::value::RawValue;

use self::Outlook::{Done, Gone, Later};
use super::{
    Inbound,
    gap::Filled,
    queue::{ALL_MAX, Entry, Next, Place},
    transaction::Answers,
    verification::keyless,
};

/// A PDU to be queued.
pub struct Waiting<'a> {
    pub id: OwnedEventId,
    pub raw: &'a RawValue,
    /// It is of a user of the server that brought it.
    pub own: bool,
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
        for (index, Waiting { id, raw, own }) in (0_u32..).zip(pdus) {
            match self.queue.reserve(room, &id, origin, own) {
                Place::Taken => drop(answers.insert(id, None)),
                Place::Full => {
                    let full = "Too much waits for this room. Send it again later.";
                    answers.insert(id, Some(full.to_owned()));
                }
                Place::Reserved => {
                    let json = raw.get().to_owned();
                    let record = InboundPduRecord { origin: origin.to_string(), received_ms, index, json };
                    batch.put(&INBOUND_PDUS, &(room, id.to_string()), &record);
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
            let (origin, lacks) = (origin.to_owned(), Vec::new());
            self.queue.admit(room, id, Entry { due_ms: 0, received_ms, index, attempts: 0, origin, lacks });
        }
        self.work_on(room);
        Ok(())
    }

    /// Takes up what a former process left.
    pub(super) async fn resume(self: &Arc<Self>) -> Result<(), myelin_store::Error> {
        let rows = self.view.store.read().all(&INBOUND_PDUS, ALL_MAX).await?;
        let mut rooms = BTreeSet::new();
        for ((room, id), record) in rows {
            let (Ok(id), Ok(origin)) = (id.try_into(), record.origin.try_into()) else { continue };
            let (received_ms, index) = (record.received_ms, record.index);
            let entry = Entry { due_ms: 0, received_ms, index, attempts: 0, origin, lacks: Vec::new() };
            self.queue.restore(room, id, entry);
            rooms.insert(room);
        }
        rooms.into_iter().for_each(|room| self.work_on(room));
        Ok(())
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
                    self.take_turn(room, &id, &entry).await;
                    self.queue.worked(&entry.origin);
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

    async fn take_turn(self: &Arc<Self>, room: RoomNid, id: &OwnedEventId, entry: &Entry) {
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
            Later { lacks } if !given_up => {
                let pause_ms = (RETRY_FIRST_MS << entry.attempts.min(16)).min(RETRY_MS_MAX);
                self.queue.postpone(room, id, now_ms + pause_ms, lacks);
            }
            // What came anew meanwhile is not what was judged.
            Done | Later { .. } if !self.queue.holds(room, id, &entry.origin) => {}
            Done | Later { .. } => self.forget_queued(room, id).await,
            Gone => self.queue.remove(room, id),
        }
        self.slow.judged(room, began_ms, now_ms);
    }

    /// The row goes after the event came: a crash in between only costs a second look.
    async fn forget_queued(&self, room: RoomNid, id: &OwnedEventId) {
        let mut batch = Batch::new();
        batch.delete(&INBOUND_PDUS, &(room, id.to_string()));
        if let Err(error) = self.view.store.commit(batch).await {
            tracing::error!(%id, %error, "a queued event cannot be taken off the queue");
        }
        self.queue.remove(room, id);
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
        let row = self.view.store.get(&INBOUND_PDUS, &(room, id.to_string())).await?;
        let Some(row) = row else { return Ok(Gone) };
        let Ok(raw) = RawValue::from_string(row.json) else { return Ok(Done) };
        let Ok(formed) = RawPdu(&raw).check_format(&snapshot.info.rules) else { return Ok(Done) };
        let verified = self.verify(vec![formed], &snapshot.info.rules).await.pop();
        let pdu = match verified {
            Some(Ok(pdu)) => pdu,
            Some(Err(error)) => {
                tracing::debug!(%id, %error, "a queued event cannot be verified");
                return Ok(match keyless(&error) {
                    Some(_) => Later { lacks: Vec::new() },
                    None => Done,
                });
            }
            None => return Ok(Done),
        };
        Ok(match self.fill_and_receive(&snapshot, pdu, &entry.origin, entry.attempts).await? {
            Filled::Received => Done,
            Filled::Unavailable { for_good, lacks } => {
                tracing::info!(%id, origin = %entry.origin, for_good, "the ancestors of an event cannot be had");
                if for_good { Done } else { Later { lacks } }
            }
        })
    }
}

fn store_error(error: myelin_store::CommitError) -> myelin_store::Error {
    match error {
        myelin_store::CommitError::Store(error) => error,
        conflict => myelin_store::Error::Backend(conflict.to_string()),
    }
}
