//! Whose turn it is at a room, and what is known there before it is durable.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_core::{EventNid, RoomNid, UserNid};
use myelin_view::{Event, RoomSnapshot};
use parking_lot::Mutex;
use ruma::EventId;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::policy::UNDER_WAY_MAX;

/// The rooms that are being written. An entry lives as long as somebody uses it.
#[derive(Default)]
pub struct Writers {
    slots: Mutex<HashMap<RoomNid, Arc<Slot>>>,
}

pub struct Slot {
    room: RoomNid,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Places for events that are shown to the policy server.
    under_way: Arc<Semaphore>,
    pending: Mutex<Pending>,
}

/// Commits that were enqueued and are not known to be durable.
#[derive(Default)]
struct Pending {
    /// Counts failures: what was built before one is void, and its outcome no longer matters here.
    epoch: u64,
    /// The head to build on.
    head: Option<Arc<RoomSnapshot>>,
    in_flight: usize,
    /// Events that the store does not have yet.
    events: HashMap<EventNid, Arc<Event>>,
    /// Users whose join the store may not have yet.
    joined: HashSet<UserNid>,
    /// How many of them change what was judged before.
    rejudging: usize,
}

/// A slot in use.
pub struct SlotRef {
    writers: Arc<Writers>,
    slot: Arc<Slot>,
}

/// The right to build on a room's head. Dropped once the batch is enqueued.
pub struct Turn {
    slot: SlotRef,
    _guard: OwnedMutexGuard<()>,
}

/// What a commit adds to the pending state of its room.
pub struct Advance {
    pub head: Arc<RoomSnapshot>,
    pub events: Vec<Arc<Event>>,
    pub joined: Vec<UserNid>,
    pub rejects_held: bool,
}

impl Writers {
    pub async fn turn(self: &Arc<Self>, room: RoomNid) -> Turn {
        let slot = self.slot(room);
        let guard = slot.slot.turn.clone().lock_owned().await;
        Turn { slot, _guard: guard }
    }

    fn slot(self: &Arc<Self>, room: RoomNid) -> SlotRef {
        let under_way = || Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let (turn, pending) = Default::default();
        let new = || Arc::new(Slot { room, turn, under_way: under_way(), pending });
        let slot = self.slots.lock().entry(room).or_insert_with(new).clone();
        SlotRef { writers: self.clone(), slot }
    }

    #[cfg(test)]
    pub fn in_use(&self) -> usize {
        self.slots.lock().len()
    }
}

impl Drop for SlotRef {
    fn drop(&mut self) {
        let mut slots = self.writers.slots.lock();
        // The map's reference and this one. Others are only made under the lock.
        if Arc::strong_count(&self.slot) == 2 {
            slots.remove(&self.slot.room);
        }
    }
}

impl Clone for SlotRef {
    fn clone(&self) -> Self {
        let _slots = self.writers.slots.lock();
        Self { writers: self.writers.clone(), slot: self.slot.clone() }
    }
}

impl std::ops::Deref for SlotRef {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.slot
    }
}

impl Turn {
    pub fn slot(&self) -> &SlotRef {
        &self.slot
    }

    /// The next one may write; the room stays in use.
    pub fn pass_on(self) -> SlotRef {
        self.slot
    }

    /// Makes `advance` what the next writer builds on. Gives the epoch for [`Slot::landed`] and [`Slot::failed`].
    pub fn advance(&self, advance: Advance) -> u64 {
        let mut pending = self.slot.pending.lock();
        pending.head = Some(advance.head);
        pending.in_flight += 1;
        pending.events.extend(advance.events.into_iter().map(|event| (event.nid, event)));
        pending.joined.extend(advance.joined);
        pending.rejudging += usize::from(advance.rejects_held);
        pending.epoch
    }
}

impl Slot {
    pub fn head(&self) -> Option<Arc<RoomSnapshot>> {
        self.pending.lock().head.clone()
    }

    pub fn event(&self, nid: EventNid) -> Option<Arc<Event>> {
        self.pending.lock().events.get(&nid).cloned()
    }

    pub fn event_by_id(&self, id: &EventId) -> Option<Arc<Event>> {
        self.pending.lock().events.values().find(|event| event.pdu.event_id == id).cloned()
    }

    pub fn any_pending(&self, is_such: impl Fn(&Event) -> bool) -> bool {
        self.pending.lock().events.values().any(|event| is_such(event))
    }

    /// `None` is never: nobody closes the semaphore.
    pub async fn place_under_way(&self) -> Option<OwnedSemaphorePermit> {
        self.under_way.clone().acquire_owned().await.ok()
    }

    pub fn is_in_flight(&self) -> bool {
        self.pending.lock().in_flight > 0
    }

    pub fn is_joining(&self, user: UserNid) -> bool {
        self.pending.lock().joined.contains(&user)
    }

    /// Whether an event that counted is about to be rejected, or the other way round.
    pub fn is_rejudging(&self) -> bool {
        self.pending.lock().rejudging > 0
    }

    pub fn landed(&self, epoch: u64, events: &[EventNid], rejects_held: bool) {
        let mut pending = self.pending.lock();
        if pending.epoch != epoch {
            return;
        }
        pending.in_flight -= 1;
        pending.rejudging -= usize::from(rejects_held);
        if pending.in_flight == 0 {
            pending.joined.clear();
        }
        events.iter().for_each(|nid| drop(pending.events.remove(nid)));
    }

    /// What was built on the failed commit fails too: the next writer starts from the store.
    pub fn failed(&self, epoch: u64) {
        let mut pending = self.pending.lock();
        if pending.epoch == epoch {
            *pending = Pending { epoch: epoch + 1, ..Pending::default() };
        }
    }
}
