//! What waits for its ancestors, by room: who comes next, who has to wait, and how much may wait at all.
//!
//! What is in here is in the table [`myelin_store::tables::INBOUND_PDUS`], too: a place is reserved first, the row
//! written, and only then does the event count ([`Queue::admit`]). Must not know: the store, or what is done with events.
//!
//! None of it has been checked. So what two servers brought are two things, even under one event id: one of them may
//! have spoilt what the other brings whole.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use myelin_core::RoomNid;
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, OwnedServerName, ServerName};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, futures::Notified};

/// PDUs that wait for one room, those of them that one server brought, those that it brought for all rooms, and altogether.
pub const OF_ROOM_MAX: usize = 1_000;
const OF_SHARE_MAX: usize = 250;
pub const OF_ORIGIN_MAX: usize = 2_000;
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
    events: BTreeMap<(OwnedEventId, OwnedServerName), Entry>,
    /// What the turns of each server have taken, milliseconds: who has taken least comes next.
    spent_ms: HashMap<OwnedServerName, u64>,
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
    /// The keys that it needs were looked for since it was tried last.
    pub looked: bool,
    pub origin: OwnedServerName,
    /// What it lacked when it was tried last.
    pub lacks: Vec<OwnedEventId>,
}

impl Entry {
    /// What has just come.
    pub fn new(origin: OwnedServerName, received_ms: u64, index: u32) -> Self {
        Self { due_ms: 0, received_ms, index, attempts: 0, looked: false, origin, lacks: Vec::new() }
    }
}

/// What waits, and what is about to.
#[derive(Default)]
struct Counts {
    of_rooms: HashMap<RoomNid, usize>,
    of_shares: HashMap<(RoomNid, OwnedServerName), usize>,
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
    /// For what `origin` brings.
    pub fn reserve(&self, room: RoomNid, id: &EventId, origin: &ServerName) -> Place {
        let mut waiting = self.waiting.lock();
        let brought = (id.to_owned(), origin.to_owned());
        if waiting.of_rooms.get(&room).is_some_and(|of_room| of_room.events.contains_key(&brought)) {
            return Place::Taken;
        }
        if waiting.counts.are_full(room, origin) {
            return Place::Full;
        }
        waiting.counts.add(room, origin);
        Place::Reserved
    }

    pub fn release(&self, room: RoomNid, origin: &ServerName) {
        self.waiting.lock().counts.subtract(room, origin);
    }

    /// Its row is written. Where another transaction of its server has brought it meanwhile, this is the newer row.
    pub fn admit(&self, room: RoomNid, id: OwnedEventId, entry: Entry) {
        let mut waiting = self.waiting.lock();
        let origin = entry.origin.clone();
        let replaced = waiting.of_rooms.entry(room).or_default().events.insert((id, origin.clone()), entry);
        if replaced.is_some() {
            waiting.counts.subtract(room, &origin);
        }
    }

    /// A row was found: it counts, whatever the limits are now.
    pub fn restore(&self, room: RoomNid, id: OwnedEventId, entry: Entry) {
        let mut waiting = self.waiting.lock();
        let brought = (id, entry.origin.clone());
        if !waiting.of_rooms.get(&room).is_some_and(|of_room| of_room.events.contains_key(&brought)) {
            waiting.counts.add(room, &entry.origin);
            waiting.of_rooms.entry(room).or_default().events.insert(brought, entry);
        }
    }

    /// Unless it came anew meanwhile: that is not what was judged.
    pub fn remove(&self, room: RoomNid, id: &EventId, entry: &Entry) {
        let mut waiting = self.waiting.lock();
        if waiting.find(room, id, entry).is_none() {
            return;
        }
        if let Some(of_room) = waiting.of_rooms.get_mut(&room) {
            of_room.events.remove(&(id.to_owned(), entry.origin.clone()));
        }
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
        let spent_ms = |entry: &Entry| of_room.spent_ms.get(&entry.origin).copied().unwrap_or(0);
        let spared = || of_room.events.iter().filter(|(_, entry)| spare(entry));
        let due = spared().filter(|(_, entry)| entry.due_ms <= now_ms);
        match due.min_by_key(|(_, entry)| (spent_ms(entry), *entry)) {
            Some(((id, _), entry)) => {
                *at_work.entry(entry.origin.clone()).or_default() += 1;
                Next::Turn(id.clone(), entry.clone())
            }
            None => Next::Wait { until_ms: spared().map(|(_, entry)| entry.due_ms).min() },
        }
    }

    /// A turn is over.
    pub fn worked(&self, room: RoomNid, origin: &ServerName, took_ms: u64) {
        let mut waiting = self.waiting.lock();
        if let Some(of_room) = waiting.of_rooms.get_mut(&room)
            && took_ms > 0
        {
            *of_room.spent_ms.entry(origin.to_owned()).or_default() += took_ms;
        }
        let Some(count) = waiting.at_work.get_mut(origin) else { return };
        let was_at_limit = *count >= ROOMS_OF_ORIGIN_AT_ONCE;
        decrement(&mut waiting.at_work, origin);
        drop(waiting);
        if was_at_limit {
            self.spared.notify_waiters();
        }
    }

    pub fn postpone(
        &self,
        room: RoomNid,
        id: &EventId,
        entry: &Entry,
        due_ms: u64,
        lacks: Vec<OwnedEventId>,
    ) {
        if let Some(held) = self.waiting.lock().find(room, id, entry) {
            held.attempts += 1;
            held.looked = false;
            held.due_ms = due_ms;
            held.lacks = lacks;
        }
    }

    /// The keys that it needs are being looked for, until then at the latest: it has no turn meanwhile.
    pub fn set_aside(&self, room: RoomNid, id: &EventId, entry: &Entry, due_ms: u64) {
        if let Some(held) = self.waiting.lock().find(room, id, entry) {
            held.due_ms = due_ms;
        }
    }

    /// The keys that it needs were looked for.
    pub fn looked(&self, room: RoomNid, id: &EventId, entry: &Entry) {
        let mut waiting = self.waiting.lock();
        let Some(held) = waiting.find(room, id, entry) else { return };
        held.looked = true;
        held.due_ms = 0;
        if let Some(of_room) = waiting.of_rooms.get(&room) {
            of_room.news.notify_one();
        }
    }

    /// These events are here now: who lacked one of them is tried again at once.
    pub fn have_come(&self, room: RoomNid, ids: &HashSet<&EventId>) {
        let mut waiting = self.waiting.lock();
        let Some(of_room) = waiting.of_rooms.get_mut(&room) else { return };
        let mut woken = false;
        for ((id, _), entry) in &mut of_room.events {
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

impl Waiting {
    /// `None`: it is gone, or its server has brought it anew.
    fn find(&mut self, room: RoomNid, id: &EventId, entry: &Entry) -> Option<&mut Entry> {
        let brought = (id.to_owned(), entry.origin.clone());
        let held = self.of_rooms.get_mut(&room)?.events.get_mut(&brought)?;
        ((held.received_ms, held.index) == (entry.received_ms, entry.index)).then_some(held)
    }
}

impl Counts {
    fn are_full(&self, room: RoomNid, origin: &ServerName) -> bool {
        let share = (room, origin.to_owned());
        self.of_rooms.get(&room).is_some_and(|n| *n >= OF_ROOM_MAX)
            || self.of_shares.get(&share).is_some_and(|n| *n >= OF_SHARE_MAX)
            || self.of_origins.get(origin).is_some_and(|n| *n >= OF_ORIGIN_MAX)
            || self.all >= ALL_MAX
    }

    fn add(&mut self, room: RoomNid, origin: &ServerName) {
        *self.of_rooms.entry(room).or_default() += 1;
        *self.of_shares.entry((room, origin.to_owned())).or_default() += 1;
        *self.of_origins.entry(origin.to_owned()).or_default() += 1;
        self.all += 1;
    }

    fn subtract(&mut self, room: RoomNid, origin: &ServerName) {
        decrement(&mut self.of_rooms, &room);
        decrement(&mut self.of_shares, &(room, origin.to_owned()));
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
        Entry::new(origin.try_into().expect("a server name"), received_ms, 0)
    }

    fn server(name: &str) -> &ServerName {
        name.try_into().expect("a server name")
    }

    /// Whether there was a place.
    fn add(queue: &Queue, room: RoomNid, number: usize, entry: Entry) -> bool {
        match queue.reserve(room, &id(number), &entry.origin) {
            Place::Reserved => queue.admit(room, id(number), entry),
            Place::Taken => {}
            Place::Full => return false,
        }
        true
    }

    /// What comes next, with nobody at work on it.
    fn next_at(queue: &Queue, now_ms: u64) -> Option<(OwnedEventId, Entry)> {
        let Next::Turn(id, entry) = queue.next(ROOM, now_ms) else { return None };
        queue.worked(ROOM, &entry.origin, 0);
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
        queue.postpone(ROOM, &id(1), &entry("a.test", 10), 1_000, vec![id(9)]);
        assert_eq!(next(&queue), Some(id(2)));
        queue.remove(ROOM, &id(2), &entry("a.test", 20));
        assert_eq!(queue.next(ROOM, 999), Next::Wait { until_ms: Some(1_000) });
        assert_eq!(next_at(&queue, 1_000).map(|(_, entry)| entry.attempts), Some(1));
        queue.have_come(ROOM, &HashSet::from([&*id(8)]));
        assert_eq!(queue.next(ROOM, 0), Next::Wait { until_ms: Some(1_000) }, "it lacked something else");
        queue.have_come(ROOM, &HashSet::from([&*id(9)]));
        assert_eq!(next_at(&queue, 0).map(|(_, entry)| (entry.due_ms, entry.attempts)), Some((0, 1)));
        queue.remove(ROOM, &id(1), &entry("a.test", 10));
        assert_eq!((queue.next(ROOM, 0), queue.len()), (Next::Nothing, 0));
        is_empty(&queue);
    }

    fn is_empty(queue: &Queue) {
        let waiting = queue.waiting.lock();
        assert!(waiting.of_rooms.is_empty() && waiting.at_work.is_empty());
        assert!(waiting.counts.of_rooms.is_empty() && waiting.counts.of_origins.is_empty());
        assert!(waiting.counts.of_shares.is_empty());
        assert_eq!(waiting.counts.all, 0);
    }

    #[test]
    fn a_room_and_an_origin_have_their_limits() {
        let queue = Queue::default();
        let room = |number: usize| RoomNid(number as u64);
        let of = |number: usize| entry(&format!("{}.test", number / OF_SHARE_MAX), 0);
        for number in 0..OF_ROOM_MAX {
            assert!(add(&queue, ROOM, number, of(number)));
            if number == OF_SHARE_MAX {
                assert!(!add(&queue, ROOM, OF_ROOM_MAX, of(0)), "it has its share of the room");
            }
        }
        assert!(!add(&queue, ROOM, OF_ROOM_MAX, entry("b.test", 0)), "the room is full");
        assert!(add(&queue, ROOM, 7, of(0)), "waits already");
        for number in 0..OF_ORIGIN_MAX {
            assert!(add(&queue, room(2 + number), number, entry("b.test", 0)));
        }
        assert!(!add(&queue, room(5_000), 1, entry("b.test", 0)), "the origin has too many");
        assert!(add(&queue, room(5_000), 1, entry("c.test", 0)), "others have not");
        assert_eq!(queue.len(), OF_ROOM_MAX + OF_ORIGIN_MAX + 1);
    }

    #[test]
    fn a_place_counts_before_its_event_does() {
        let (queue, origin) = (Queue::default(), server("a.test"));
        let reserve = |number| queue.reserve(ROOM, &id(number), origin);
        assert!((0..OF_SHARE_MAX).all(|number| reserve(number) == Place::Reserved));
        assert_eq!(reserve(OF_SHARE_MAX), Place::Full);
        assert_eq!(queue.next(ROOM, 0), Next::Nothing, "nothing is written yet");
        queue.release(ROOM, origin);
        assert_eq!(reserve(0), Place::Reserved);
        (0..OF_SHARE_MAX).for_each(|_| queue.release(ROOM, origin));
        is_empty(&queue);
    }

    #[test]
    fn what_one_server_brings_twice_waits_once_and_what_two_bring_is_two_things() {
        let (queue, one, other) = (Queue::default(), server("a.test"), server("b.test"));
        let reserve = |origin| queue.reserve(ROOM, &id(1), origin);
        assert_eq!((reserve(one), reserve(one)), (Place::Reserved, Place::Reserved), "neither is written");
        let (older, newer) = (entry("a.test", 0), entry("a.test", 1));
        queue.admit(ROOM, id(1), older.clone());
        queue.admit(ROOM, id(1), newer.clone());
        queue.restore(ROOM, id(1), entry("a.test", 2));
        assert_eq!((queue.len(), next(&queue)), (1, Some(id(1))));
        assert_eq!((reserve(one), reserve(other)), (Place::Taken, Place::Reserved));
        queue.admit(ROOM, id(1), entry("b.test", 3));
        assert_eq!(queue.len(), 2);
        queue.postpone(ROOM, &id(1), &older, 1_000, Vec::new());
        queue.remove(ROOM, &id(1), &older);
        assert_eq!(
            (queue.len(), next_at(&queue, 0)),
            (2, Some((id(1), newer.clone()))),
            "not what was judged"
        );
        queue.remove(ROOM, &id(1), &newer);
        assert_eq!(next_at(&queue, 0), Some((id(1), entry("b.test", 3))));
        queue.remove(ROOM, &id(1), &entry("b.test", 3));
        assert_eq!(queue.next(ROOM, 0), Next::Nothing);
        is_empty(&queue);
    }

    #[test]
    fn who_has_taken_least_time_comes_next() {
        let queue = Queue::default();
        for number in 0..4 {
            assert!(add(&queue, ROOM, number, entry("slow.test", number as u64)));
            assert!(add(&queue, ROOM, 10 + number, entry("quick.test", 100 + number as u64)));
        }
        let mut order = Vec::new();
        while let Next::Turn(turn, entry) = queue.next(ROOM, 0) {
            queue.remove(ROOM, &turn, &entry);
            queue.worked(ROOM, &entry.origin, if entry.origin == "slow.test" { 100 } else { 1 });
            order.push(turn);
        }
        let expected = [0, 10, 11, 12, 13, 1, 2, 3].map(id);
        assert_eq!(order, expected);
        is_empty(&queue);
    }

    #[test]
    fn what_needs_keys_has_no_turn_until_they_were_looked_for() {
        let queue = Queue::default();
        let (first, second) = (entry("a.test", 1), entry("a.test", 2));
        assert!(add(&queue, ROOM, 1, first.clone()) && add(&queue, ROOM, 2, second.clone()));
        queue.set_aside(ROOM, &id(1), &first, 1_000);
        assert_eq!(next(&queue), Some(id(2)));
        queue.looked(ROOM, &id(1), &first);
        let looked = Entry { looked: true, ..first.clone() };
        assert_eq!(next_at(&queue, 0), Some((id(1), looked)));
        queue.postpone(ROOM, &id(1), &first, 1_000, Vec::new());
        queue.remove(ROOM, &id(2), &second);
        assert!(next_at(&queue, 1_000).is_some_and(|(_, entry)| !entry.looked), "they are looked for again");
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
        queue.remove(last, &id(100), &entry("quick.test", 5));
        let spared = queue.spared();
        queue.worked(last, server("slow.test"), 0);
        assert!(futures::FutureExt::now_or_never(spared).is_some(), "who waits for a turn is told");
        assert!(matches!(queue.next(last, 0), Next::Turn(..)));
    }

    #[test]
    fn a_room_has_one_task() {
        let queue = Queue::default();
        assert!(!queue.claim(ROOM), "nothing waits");
        add(&queue, ROOM, 1, entry("a.test", 0));
        assert!(queue.claim(ROOM) && !queue.claim(ROOM));
        queue.remove(ROOM, &id(1), &entry("a.test", 0));
        assert_eq!(next(&queue), None);
        add(&queue, ROOM, 2, entry("a.test", 0));
        assert!(queue.claim(ROOM), "the former task has ended");
    }
}
