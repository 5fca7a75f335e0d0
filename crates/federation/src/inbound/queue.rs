//! What waits for its ancestors, by room: who comes next, who has to wait, and how much may wait at all.
//!
//! What is in here is in the table [`myelin_store::tables::INBOUND_PDUS`], too: a place is reserved first, the row
//! written, and only then does the event count ([`Queue::admit`]). Must not know: the store, or what is done with events.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use myelin_core::RoomNid;
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, futures::Notified};

/// PDUs that wait for one room, that one server brought, and altogether.
const OF_ROOM_MAX: usize = 1_000;
const OF_ORIGIN_MAX: usize = 2_000;
pub const ALL_MAX: usize = 20_000;
/// Rooms that are worked on at the same time, altogether and for what one server brought: a server that answers slowly
/// leaves room for the others.
const ROOMS_AT_ONCE: usize = 24;
const ROOMS_OF_ORIGIN_AT_ONCE: usize = 8;

pub struct Queue {
    waiting: Mutex<Waiting>,
    rooms: Semaphore,
    /// An origin has a turn to spare again.
    spared: Notify,
}

#[derive(Default)]
struct Waiting {
    of_rooms: HashMap<RoomNid, OfRoom>,
    counts: Counts,
    /// Rooms that are worked on for what an origin brought.
    at_work: HashMap<OwnedServerName, usize>,
}

#[derive(Default)]
struct OfRoom {
    events: BTreeMap<OwnedEventId, Entry>,
    /// A task is at it.
    worked_on: bool,
    /// Wakes the task when something new came.
    news: Arc<Notify>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Least first: what is new comes before what has failed already, then in the order of arrival.
    pub due_ms: u64,
    pub received_ms: u64,
    pub index: u32,
    pub attempts: u32,
    pub origin: OwnedServerName,
    /// What it lacked when it was tried last.
    pub lacks: Vec<OwnedEventId>,
}

/// What waits, and what is about to.
#[derive(Default)]
struct Counts {
    of_rooms: HashMap<RoomNid, usize>,
    of_origins: HashMap<OwnedServerName, usize>,
    all: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// It has one, and its row is written.
    Taken,
    /// To be filled by [`Queue::admit`], or given back by [`Queue::release`].
    Reserved,
    Full,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// To be given back by [`Queue::worked`].
    Turn(OwnedEventId, Entry),
    /// Nothing is due before that, or until an origin has a turn to spare.
    Wait { until_ms: Option<u64> },
    /// The room's task can end.
    Nothing,
}

impl Default for Queue {
    fn default() -> Self {
        Self { waiting: Mutex::default(), rooms: Semaphore::new(ROOMS_AT_ONCE), spared: Notify::new() }
    }
}

impl Queue {
    /// `own`: the event is one of a user of `origin`. What waits may not have been checked, and somebody else may have spoilt
    /// its signatures: then its own server has the last word.
    pub fn reserve(&self, room: RoomNid, id: &EventId, origin: &ServerName, own: bool) -> Place {
        let mut waiting = self.waiting.lock();
        let held = waiting.of_rooms.get(&room).and_then(|of_room| of_room.events.get(id));
        let full = waiting.counts.are_full(room, origin);
        if held.is_some_and(|held| full || !own || held.origin == origin) {
            return Place::Taken;
        }
        if full {
            return Place::Full;
        }
        waiting.counts.add(room, origin);
        Place::Reserved
    }

    pub fn release(&self, room: RoomNid, origin: &ServerName) {
        self.waiting.lock().counts.subtract(room, origin);
    }

    /// Its row is written. Where another transaction has brought the event meanwhile, this is the newer row.
    pub fn admit(&self, room: RoomNid, id: OwnedEventId, entry: Entry) {
        let mut waiting = self.waiting.lock();
        let replaced = waiting.of_rooms.entry(room).or_default().events.insert(id, entry);
        if let Some(replaced) = replaced {
            waiting.counts.subtract(room, &replaced.origin);
        }
    }

    /// A row was found: it counts, whatever the limits are now.
    pub fn restore(&self, room: RoomNid, id: OwnedEventId, entry: Entry) {
        let mut waiting = self.waiting.lock();
        if !waiting.of_rooms.get(&room).is_some_and(|of_room| of_room.events.contains_key(&id)) {
            waiting.counts.add(room, &entry.origin);
            waiting.of_rooms.entry(room).or_default().events.insert(id, entry);
        }
    }

    /// Whether what waits is still what this origin brought.
    pub fn holds(&self, room: RoomNid, id: &EventId, origin: &ServerName) -> bool {
        let waiting = self.waiting.lock();
        let held = waiting.of_rooms.get(&room).and_then(|of_room| of_room.events.get(id));
        held.is_some_and(|held| held.origin == origin)
    }

    pub fn remove(&self, room: RoomNid, id: &EventId) {
        let mut waiting = self.waiting.lock();
        let of_room = waiting.of_rooms.get_mut(&room);
        let Some(entry) = of_room.and_then(|of_room| of_room.events.remove(id)) else { return };
        waiting.counts.subtract(room, &entry.origin);
    }

    /// What the room's task does next.
    pub fn next(&self, room: RoomNid, now_ms: u64) -> Next {
        let mut waiting = self.waiting.lock();
        let Waiting { of_rooms, at_work, .. } = &mut *waiting;
        let Some(of_room) = of_rooms.get(&room) else { return Next::Nothing };
        if of_room.events.is_empty() {
            of_rooms.remove(&room);
            return Next::Nothing;
        }
        let spare = |entry: &Entry| at_work.get(&entry.origin).is_none_or(|n| *n < ROOMS_OF_ORIGIN_AT_ONCE);
        let next = of_room.events.iter().filter(|(_, entry)| spare(entry)).min_by_key(|(_, entry)| *entry);
        match next {
            Some((id, entry)) if entry.due_ms <= now_ms => {
                *at_work.entry(entry.origin.clone()).or_default() += 1;
                Next::Turn(id.clone(), entry.clone())
            }
            next => Next::Wait { until_ms: next.map(|(_, entry)| entry.due_ms) },
        }
    }

    /// A turn is over.
    pub fn worked(&self, origin: &ServerName) {
        let mut waiting = self.waiting.lock();
        let Some(count) = waiting.at_work.get_mut(origin) else { return };
        let was_at_limit = *count >= ROOMS_OF_ORIGIN_AT_ONCE;
        decrement(&mut waiting.at_work, origin);
        drop(waiting);
        if was_at_limit {
            self.spared.notify_waiters();
        }
    }

    pub fn postpone(&self, room: RoomNid, id: &EventId, due_ms: u64, lacks: Vec<OwnedEventId>) {
        let mut waiting = self.waiting.lock();
        if let Some(entry) = waiting.of_rooms.get_mut(&room).and_then(|of_room| of_room.events.get_mut(id)) {
            entry.attempts += 1;
            entry.due_ms = due_ms;
            entry.lacks = lacks;
        }
    }

    /// These events are here now: who lacked one of them is tried again at once.
    pub fn have_come(&self, room: RoomNid, ids: &HashSet<&EventId>) {
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
    pub fn claim(&self, room: RoomNid) -> bool {
        let mut waiting = self.waiting.lock();
        let Some(of_room) = waiting.of_rooms.get_mut(&room) else { return false };
        of_room.news.notify_one();
        !std::mem::replace(&mut of_room.worked_on, true)
    }

    pub fn news(&self, room: RoomNid) -> Option<Arc<Notify>> {
        Some(self.waiting.lock().of_rooms.get(&room)?.news.clone())
    }

    /// To be had before [`Queue::next`] is asked: what happens from then on wakes it.
    pub fn spared(&self) -> Notified<'_> {
        self.spared.notified()
    }

    /// `None` never: it is not closed.
    pub async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        self.rooms.acquire().await.ok()
    }

    pub fn len(&self) -> usize {
        self.waiting.lock().counts.all
    }
}

impl Counts {
    fn are_full(&self, room: RoomNid, origin: &ServerName) -> bool {
        self.of_rooms.get(&room).is_some_and(|n| *n >= OF_ROOM_MAX)
            || self.of_origins.get(origin).is_some_and(|n| *n >= OF_ORIGIN_MAX)
            || self.all >= ALL_MAX
    }

    fn add(&mut self, room: RoomNid, origin: &ServerName) {
        *self.of_rooms.entry(room).or_default() += 1;
        *self.of_origins.entry(origin.to_owned()).or_default() += 1;
        self.all += 1;
    }

    fn subtract(&mut self, room: RoomNid, origin: &ServerName) {
        decrement(&mut self.of_rooms, &room);
        decrement(&mut self.of_origins, origin);
        self.all -= 1;
    }
}

/// What comes to nothing has no entry.
fn decrement<K, Q>(counts: &mut HashMap<K, usize>, key: &Q)
where
    K: std::hash::Hash + Eq + std::borrow::Borrow<Q>,
    Q: std::hash::Hash + Eq + ?Sized,
{
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
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

    fn server(name: &str) -> &ServerName {
        name.try_into().expect("a server name")
    }

    /// Whether there was a place.
    fn add(queue: &Queue, room: RoomNid, number: usize, entry: Entry) -> bool {
        match queue.reserve(room, &id(number), &entry.origin, true) {
            Place::Reserved => queue.admit(room, id(number), entry),
            Place::Taken => {}
            Place::Full => return false,
        }
        true
    }

    /// What comes next, with nobody at work on it.
    fn next_at(queue: &Queue, now_ms: u64) -> Option<(OwnedEventId, Entry)> {
        let Next::Turn(id, entry) = queue.next(ROOM, now_ms) else { return None };
        queue.worked(&entry.origin);
        Some((id, entry))
    }

    fn next(queue: &Queue) -> Option<OwnedEventId> {
        next_at(queue, 0).map(|(id, _)| id)
    }

    #[test]
    fn what_is_new_comes_before_what_has_failed() {
        let queue = Queue::default();
        assert!(add(&queue, ROOM, 1, entry("a.test", 10)) && add(&queue, ROOM, 2, entry("a.test", 20)));
        assert_eq!(next(&queue), Some(id(1)));
        queue.postpone(ROOM, &id(1), 1_000, vec![id(9)]);
        assert_eq!(next(&queue), Some(id(2)));
        queue.remove(ROOM, &id(2));
        assert_eq!(queue.next(ROOM, 999), Next::Wait { until_ms: Some(1_000) });
        assert_eq!(next_at(&queue, 1_000).map(|(_, entry)| entry.attempts), Some(1));
        queue.have_come(ROOM, &HashSet::from([&*id(8)]));
        assert_eq!(queue.next(ROOM, 0), Next::Wait { until_ms: Some(1_000) }, "it lacked something else");
        queue.have_come(ROOM, &HashSet::from([&*id(9)]));
        assert_eq!(next_at(&queue, 0).map(|(_, entry)| (entry.due_ms, entry.attempts)), Some((0, 1)));
        queue.remove(ROOM, &id(1));
        assert_eq!((queue.next(ROOM, 0), queue.len()), (Next::Nothing, 0));
        is_empty(&queue);
    }

    fn is_empty(queue: &Queue) {
        let waiting = queue.waiting.lock();
        assert!(waiting.of_rooms.is_empty() && waiting.at_work.is_empty());
        assert!(waiting.counts.of_rooms.is_empty() && waiting.counts.of_origins.is_empty());
        assert_eq!(waiting.counts.all, 0);
    }

    #[test]
    fn one_room_and_one_origin_have_their_limits() {
        let queue = Queue::default();
        for number in 0..OF_ROOM_MAX {
            assert!(add(&queue, ROOM, number, entry("a.test", 0)));
        }
        assert!(!add(&queue, ROOM, OF_ROOM_MAX, entry("b.test", 0)), "the room is full");
        assert!(add(&queue, ROOM, 7, entry("b.test", 0)), "waits already");
        for number in 0..OF_ORIGIN_MAX - OF_ROOM_MAX {
            assert!(add(&queue, RoomNid(2 + number as u64), number, entry("a.test", 0)));
        }
        assert!(!add(&queue, RoomNid(5_000), 1, entry("a.test", 0)), "the origin has too many");
        assert!(add(&queue, RoomNid(5_000), 1, entry("b.test", 0)), "others have not");
        assert_eq!(queue.len(), OF_ORIGIN_MAX + 1);
    }

    #[test]
    fn a_place_counts_before_its_event_does() {
        let (queue, origin) = (Queue::default(), server("a.test"));
        let reserve = |number| queue.reserve(ROOM, &id(number), origin, true);
        assert!((0..OF_ROOM_MAX).all(|number| reserve(number) == Place::Reserved));
        assert_eq!(reserve(OF_ROOM_MAX), Place::Full);
        assert_eq!(queue.next(ROOM, 0), Next::Nothing, "nothing is written yet");
        queue.release(ROOM, origin);
        assert_eq!(reserve(0), Place::Reserved);
        (0..OF_ROOM_MAX).for_each(|_| queue.release(ROOM, origin));
        is_empty(&queue);
    }

    #[test]
    fn what_is_brought_twice_waits_once_and_its_own_server_has_the_last_word() {
        let (queue, own, other) = (Queue::default(), server("a.test"), server("b.test"));
        let reserve = |origin, is_own| queue.reserve(ROOM, &id(1), origin, is_own);
        assert_eq!((reserve(other, false), reserve(other, false)), (Place::Reserved, Place::Reserved));
        queue.admit(ROOM, id(1), entry("b.test", 0));
        queue.admit(ROOM, id(1), entry("b.test", 1));
        queue.restore(ROOM, id(1), entry("b.test", 2));
        assert_eq!((queue.len(), next(&queue)), (1, Some(id(1))));
        assert_eq!((reserve(other, false), reserve(own, true)), (Place::Taken, Place::Reserved));
        assert!(queue.holds(ROOM, &id(1), other));
        queue.admit(ROOM, id(1), entry("a.test", 3));
        assert!(queue.holds(ROOM, &id(1), own) && !queue.holds(ROOM, &id(1), other));
        assert_eq!((reserve(own, true), reserve(other, false)), (Place::Taken, Place::Taken));
        queue.remove(ROOM, &id(1));
        assert_eq!(queue.next(ROOM, 0), Next::Nothing);
        is_empty(&queue);
    }

    #[test]
    fn one_origin_leaves_room_for_others() {
        let queue = Queue::default();
        let room = |number: usize| RoomNid(number as u64);
        for number in 0..=ROOMS_OF_ORIGIN_AT_ONCE {
            assert!(add(&queue, room(number), number, entry("slow.test", 0)));
        }
        for number in 0..ROOMS_OF_ORIGIN_AT_ONCE {
            assert!(matches!(queue.next(room(number), 0), Next::Turn(..)));
        }
        let last = room(ROOMS_OF_ORIGIN_AT_ONCE);
        assert_eq!(queue.next(last, 0), Next::Wait { until_ms: None });
        assert!(add(&queue, last, 100, entry("quick.test", 5)), "that comes later");
        assert!(matches!(queue.next(last, 0), Next::Turn(turn, _) if turn == id(100)), "and goes first");
        queue.remove(last, &id(100));
        let spared = queue.spared();
        queue.worked(server("slow.test"));
        assert!(futures::FutureExt::now_or_never(spared).is_some(), "who waits for a turn is told");
        assert!(matches!(queue.next(last, 0), Next::Turn(..)));
    }

    #[test]
    fn a_room_has_one_task() {
        let queue = Queue::default();
        assert!(!queue.claim(ROOM), "nothing waits");
        add(&queue, ROOM, 1, entry("a.test", 0));
        assert!(queue.claim(ROOM) && !queue.claim(ROOM));
        queue.remove(ROOM, &id(1));
        assert_eq!(next(&queue), None);
        add(&queue, ROOM, 2, entry("a.test", 0));
        assert!(queue.claim(ROOM), "the former task has ended");
    }
}
