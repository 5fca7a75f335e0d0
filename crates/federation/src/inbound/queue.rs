//! PDUs that were acknowledged and wait for their ancestors: durable, bounded, one queue and one worker per room.
//!
//! A room that is hard to follow holds up itself only. What can be had from nobody is tried again later, and given up
//! after a day; an event that refers to it brings it back into play.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use myelin_core::RoomNid;
use myelin_dag::checks::RawPdu;
use myelin_rooms::{Incoming, Received};
use myelin_store::{
    Batch,
    tables::{INBOUND_PDUS, InboundPduRecord},
};
use myelin_view::RoomSnapshot;
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use super::{Inbound, gap::Filled, transaction::Answers, verification::keyless};
use crate::inbound::queue::Outlook::{Done, Later};

/// PDUs that wait for one room, that one server brought, and altogether.
const OF_ROOM_MAX: usize = 1_000;
const OF_ORIGIN_MAX: usize = 2_000;
const ALL_MAX: usize = 20_000;
/// Rooms that are worked on at the same time.
const ROOMS_AT_ONCE: usize = 16;
/// What one PDU may take at a time.
const PDU_BUDGET: Duration = Duration::from_secs(120);
/// Pause before an event is tried again: this, doubled each time.
const RETRY_FIRST_MS: u64 = 30_000;
const RETRY_MS_MAX: u64 = 3_600_000;
/// When an event that could not be had is given up.
const AGE_MS_MAX: u64 = 24 * 3_600_000;

pub struct Queue {
    waiting: Mutex<Waiting>,
    rooms: Semaphore,
}

#[derive(Default)]
struct Waiting {
    of_rooms: HashMap<RoomNid, OfRoom>,
    of_origins: HashMap<OwnedServerName, usize>,
    all: usize,
}

#[derive(Default)]
struct OfRoom {
    events: BTreeMap<OwnedEventId, Entry>,
    /// A task is at it.
    worked_on: bool,
    /// Wakes the task when something new came.
    news: Arc<tokio::sync::Notify>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// Least first: what is new comes before what has failed already, then in the order of arrival.
    due_ms: u64,
    received_ms: u64,
    index: u32,
    attempts: u32,
    origin: OwnedServerName,
    /// What it lacked when it was tried last.
    lacks: Vec<OwnedEventId>,
}

enum Outlook {
    /// Judged, or never to be had.
    Done,
    /// Who has what it lacks does not answer now.
    Later { lacks: Vec<OwnedEventId> },
}

impl Default for Queue {
    fn default() -> Self {
        Self { waiting: Mutex::default(), rooms: Semaphore::new(ROOMS_AT_ONCE) }
    }
}

impl Queue {
    fn admit(&self, room: RoomNid, id: &OwnedEventId, entry: Entry) -> bool {
        let mut waiting = self.waiting.lock();
        let of_origin = waiting.of_origins.get(&entry.origin).copied().unwrap_or(0);
        let of_room = waiting.of_rooms.get(&room).map_or(0, |of_room| of_room.events.len());
        if waiting.of_rooms.get(&room).is_some_and(|of_room| of_room.events.contains_key(id)) {
            return true;
        }
        if of_origin >= OF_ORIGIN_MAX || of_room >= OF_ROOM_MAX || waiting.all >= ALL_MAX {
            return false;
        }
        *waiting.of_origins.entry(entry.origin.clone()).or_default() += 1;
        waiting.all += 1;
        waiting.of_rooms.entry(room).or_default().events.insert(id.clone(), entry);
        true
    }

    fn remove(&self, room: RoomNid, id: &OwnedEventId) {
        let mut waiting = self.waiting.lock();
        let Some(entry) = waiting.of_rooms.get_mut(&room).and_then(|of_room| of_room.events.remove(id))
        else {
            return;
        };
        waiting.all -= 1;
        if let Some(count) = waiting.of_origins.get_mut(&entry.origin) {
            *count -= 1;
            if *count == 0 {
                waiting.of_origins.remove(&entry.origin);
            }
        }
    }

    /// The event that comes next, or `None` if the room's task can end.
    fn next(&self, room: RoomNid) -> Option<(OwnedEventId, Entry)> {
        let mut waiting = self.waiting.lock();
        let of_room = waiting.of_rooms.get(&room)?;
        let next = of_room.events.iter().min_by_key(|(_, entry)| *entry);
        let next = next.map(|(id, entry)| (id.clone(), entry.clone()));
        if next.is_none() {
            waiting.of_rooms.remove(&room);
        }
        next
    }

    fn postpone(&self, room: RoomNid, id: &OwnedEventId, due_ms: u64, lacks: Vec<OwnedEventId>) {
        let mut waiting = self.waiting.lock();
        if let Some(entry) = waiting.of_rooms.get_mut(&room).and_then(|of_room| of_room.events.get_mut(id)) {
            entry.attempts += 1;
            entry.due_ms = due_ms;
            entry.lacks = lacks;
        }
    }

    /// These events are here now: who lacked one of them is tried again at once.
    fn have_come(&self, room: RoomNid, ids: &HashSet<&EventId>) {
        let mut waiting = self.waiting.lock();
        let Some(of_room) = waiting.of_rooms.get_mut(&room) else { return };
        let mut woken = false;
        for (id, entry) in &mut of_room.events {
            let lacked = entry.lacks.iter().any(|lacked| ids.contains(&**lacked));
            if lacked || (ids.contains(&**id) && !entry.lacks.is_empty()) {
                entry.lacks.clear();
                entry.due_ms = 0;
                woken = true;
            }
        }
        if woken {
            of_room.news.notify_one();
        }
    }

    /// `true` if the caller is to start a task for the room.
    fn claim(&self, room: RoomNid) -> bool {
        let mut waiting = self.waiting.lock();
        let Some(of_room) = waiting.of_rooms.get_mut(&room) else { return false };
        of_room.news.notify_one();
        !std::mem::replace(&mut of_room.worked_on, true)
    }

    fn news(&self, room: RoomNid) -> Option<Arc<tokio::sync::Notify>> {
        Some(self.waiting.lock().of_rooms.get(&room)?.news.clone())
    }

    pub fn len(&self) -> usize {
        self.waiting.lock().all
    }
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
        pdus: Vec<(OwnedEventId, &RawValue)>,
        answers: &mut Answers,
    ) -> Result<(), myelin_store::Error> {
        if pdus.is_empty() {
            return Ok(());
        }
        let (room, received_ms) = (room.nid(), self.view.env.now_ms());
        let mut batch = Batch::new();
        let mut taken = Vec::new();
        for (index, (id, raw)) in (0_u32..).zip(pdus) {
            let (by, lacks) = (origin.to_owned(), Vec::new());
            let entry = Entry { due_ms: 0, received_ms, index, attempts: 0, origin: by, lacks };
            if !self.queue.admit(room, &id, entry) {
                answers.insert(id, Some("Too much waits for this room. Send it again later.".to_owned()));
                continue;
            }
            let json = raw.get().to_owned();
            let record = InboundPduRecord { origin: origin.to_string(), received_ms, index, json };
            batch.put(&INBOUND_PDUS, &(room, id.to_string()), &record);
            taken.push(id);
        }
        if let Err(error) = self.view.store.commit(batch).await {
            taken.iter().for_each(|id| self.queue.remove(room, id));
            return Err(store_error(error));
        }
        answers.extend(taken.into_iter().map(|id| (id, None)));
        self.work_on(room);
        Ok(())
    }

    /// Takes up what a former process left.
    pub(super) async fn resume(self: &Arc<Self>) -> Result<(), myelin_store::Error> {
        let rows = self.view.store.read().all(&INBOUND_PDUS, ALL_MAX).await?;
        let mut rooms = std::collections::BTreeSet::new();
        for ((room, id), record) in rows {
            let (Ok(id), Ok(origin)) = (id.try_into(), record.origin.try_into()) else { continue };
            let (received_ms, index) = (record.received_ms, record.index);
            let entry = Entry { due_ms: 0, received_ms, index, attempts: 0, origin, lacks: Vec::new() };
            self.queue.admit(room, &id, entry);
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
        while let Some((id, entry)) = self.queue.next(room) {
            let now_ms = self.view.env.now_ms();
            if entry.due_ms > now_ms {
                let pause = Duration::from_millis(entry.due_ms - now_ms);
                let Some(news) = self.queue.news(room) else { return };
                let pause = self.view.env.timeout(pause, news.notified());
                pause.await;
                continue;
            }
            // Closed never.
            let Ok(_permit) = self.queue.rooms.acquire().await else { return };
            let budget = self.view.env.timeout(PDU_BUDGET, self.take_queued(room, &id, &entry));
            let outlook = budget.await.unwrap_or(Later { lacks: Vec::new() });
            let given_up = now_ms.saturating_sub(entry.received_ms) > AGE_MS_MAX;
            match outlook {
                Later { lacks } if !given_up => {
                    let pause_ms = (RETRY_FIRST_MS << entry.attempts.min(16)).min(RETRY_MS_MAX);
                    self.queue.postpone(room, &id, self.view.env.now_ms() + pause_ms, lacks);
                }
                Done | Later { .. } => self.forget_queued(room, &id).await,
            }
        }
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
        let Some(raw) = row.and_then(|row| RawValue::from_string(row.json).ok()) else { return Ok(Done) };
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

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomNid = RoomNid(1);

    fn id(number: usize) -> OwnedEventId {
        format!("$e{number}").try_into().expect("an event id")
    }

    fn entry(origin: &str, received_ms: u64) -> Entry {
        let origin = origin.try_into().expect("a server name");
        Entry { due_ms: 0, received_ms, index: 0, attempts: 0, origin, lacks: Vec::new() }
    }

    fn next(queue: &Queue) -> Option<OwnedEventId> {
        queue.next(ROOM).map(|(id, _)| id)
    }

    #[test]
    fn what_is_new_comes_before_what_has_failed() {
        let queue = Queue::default();
        assert!(
            queue.admit(ROOM, &id(1), entry("a.test", 10)) && queue.admit(ROOM, &id(2), entry("a.test", 20))
        );
        assert_eq!(next(&queue), Some(id(1)));
        queue.postpone(ROOM, &id(1), 1_000, vec![id(9)]);
        assert_eq!(next(&queue), Some(id(2)));
        queue.remove(ROOM, &id(2));
        assert_eq!(queue.next(ROOM).map(|(_, entry)| (entry.due_ms, entry.attempts)), Some((1_000, 1)));
        queue.have_come(ROOM, &HashSet::from([&*id(8)]));
        assert_eq!(queue.next(ROOM).map(|(_, entry)| entry.due_ms), Some(1_000), "it lacked something else");
        queue.have_come(ROOM, &HashSet::from([&*id(9)]));
        assert_eq!(queue.next(ROOM).map(|(_, entry)| (entry.due_ms, entry.attempts)), Some((0, 1)));
        queue.remove(ROOM, &id(1));
        assert_eq!((next(&queue), queue.len()), (None, 0));
        assert!(queue.waiting.lock().of_rooms.is_empty() && queue.waiting.lock().of_origins.is_empty());
    }

    #[test]
    fn one_room_and_one_origin_have_their_limits() {
        let queue = Queue::default();
        for number in 0..OF_ROOM_MAX {
            assert!(queue.admit(ROOM, &id(number), entry("a.test", 0)));
        }
        assert!(!queue.admit(ROOM, &id(OF_ROOM_MAX), entry("b.test", 0)), "the room is full");
        assert!(queue.admit(ROOM, &id(7), entry("b.test", 0)), "waits already");
        for number in 0..OF_ORIGIN_MAX - OF_ROOM_MAX {
            assert!(queue.admit(RoomNid(2 + number as u64), &id(number), entry("a.test", 0)));
        }
        assert!(!queue.admit(RoomNid(5_000), &id(1), entry("a.test", 0)), "the origin has too many");
        assert!(queue.admit(RoomNid(5_000), &id(1), entry("b.test", 0)), "others have not");
        assert_eq!(queue.len(), OF_ORIGIN_MAX + 1);
    }

    #[test]
    fn a_room_has_one_task() {
        let queue = Queue::default();
        assert!(!queue.claim(ROOM), "nothing waits");
        queue.admit(ROOM, &id(1), entry("a.test", 0));
        assert!(queue.claim(ROOM) && !queue.claim(ROOM));
        queue.remove(ROOM, &id(1));
        assert_eq!(next(&queue), None);
        queue.admit(ROOM, &id(2), entry("a.test", 0));
        assert!(queue.claim(ROOM), "the former task has ended");
    }
}
