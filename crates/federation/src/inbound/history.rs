//! Backfill: older history of a room is fetched when somebody reads past what is held (Server-Server API,
//! "Backfilling").
//!
//! Where history is held to is seen from the first events of the timeline: what they refer to and is not in it lies
//! beyond.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use myelin_core::{RoomNid, TimelineOrder};
use myelin_dag::checks::VerifiedPdu;
use myelin_rooms::{Error, Received};
use myelin_store::{Direction, tables::TIMELINE};
use myelin_view::RoomSnapshot;
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, RoomId};

use super::{Inbound, fetch, gap::Gap};

/// Events asked for at a time.
const AT_ONCE: usize = 100;
/// Times that servers are asked for one reader.
const ROUNDS_MAX: usize = 5;
/// The first events of the timeline that are looked at for what lies beyond them.
const FIRST_EVENTS: usize = 100;
const EXTREMITIES_MAX: usize = 20;
const SERVERS_MAX: usize = 4;
/// Events of one answer whose state is fetched because what they refer to is not held.
const STATES_MAX: usize = 5;
/// What a reader waits for history.
const BUDGET: Duration = Duration::from_secs(20);
/// How long nobody is asked again after history could not be had.
const PAUSE_MS: u64 = 60_000;

#[derive(Default)]
pub struct Backfills {
    /// One reader at a time fetches; the others wait for what it brings.
    under_way: Mutex<HashMap<RoomNid, Arc<tokio::sync::Mutex<()>>>>,
    /// When rooms may be asked for again that had no answer.
    paused: Mutex<HashMap<RoomNid, u64>>,
}

/// How far history is wanted.
#[derive(Clone, Copy)]
pub enum Reach {
    /// More than `count` events before a place.
    Count { before: TimelineOrder, count: usize },
    /// An event of that time or an older one.
    Time { ts_ms: u64 },
}

/// How far history is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// As far as it was wanted.
    Enough,
    /// There is older history that could not be had.
    Less,
    /// There is nothing older.
    Everything,
}

impl Inbound {
    /// Sees to it that history is held as far as it is wanted, as far as it can be had in time.
    pub async fn backfill(&self, room_id: &RoomId, reach: Reach) -> Reached {
        let Ok(Some(room)) = self.view.room_by_id(room_id).await else { return Reached::Everything };
        match self.is_short(room.nid(), reach).await {
            Ok(true) => {}
            Ok(false) => return Reached::Enough,
            Err(error) => {
                tracing::error!(%room_id, %error, "the timeline cannot be read");
                return Reached::Everything;
            }
        }
        let done = self.view.env.timeout(BUDGET, self.backfill_room(&room, reach)).await;
        self.forget_under_way(room.nid());
        match done {
            Some(Ok(reached)) => reached,
            Some(Err(error)) => {
                tracing::error!(%room_id, %error, "history cannot be stored");
                Reached::Everything
            }
            None => Reached::Less,
        }
    }

    async fn is_short(&self, room: RoomNid, reach: Reach) -> Result<bool, myelin_view::Error> {
        match reach {
            Reach::Count { before, count } => {
                let until = (room, TimelineOrder(before.0.saturating_add(1)));
                let (from, limit) = ((room, TimelineOrder::MIN), count + 1);
                let held = self.view.store.range(&TIMELINE, &from, &until, Direction::Reverse, limit).await?;
                Ok(held.len() <= count)
            }
            Reach::Time { ts_ms } => {
                let rows = self.view.store.scan(&TIMELINE, &room, Direction::Forward, 1).await?;
                let nids: Vec<_> = rows.into_iter().map(|(_, nid)| nid).collect();
                let first = self.view.events.load_many(&nids).await?.into_iter().flatten().next();
                Ok(first.is_some_and(|event| u64::from(event.pdu.origin_server_ts.get()) > ts_ms))
            }
        }
    }

    async fn backfill_room(&self, room: &RoomSnapshot, reach: Reach) -> Result<Reached, Error> {
        let lock = self.backfills.under_way.lock().entry(room.nid()).or_default().clone();
        let _turn = lock.lock().await;
        for _ in 0..ROUNDS_MAX {
            let extremities = self.backward_extremities(room.nid()).await?;
            if extremities.is_empty() {
                return Ok(Reached::Everything);
            }
            if !self.is_short(room.nid(), reach).await? {
                return Ok(Reached::Enough);
            }
            if self.is_paused(room.nid()) {
                return Ok(Reached::Less);
            }
            if !self.fetch_history(room, &extremities).await? {
                self.pause(room.nid());
                return Ok(Reached::Less);
            }
        }
        Ok(if self.is_short(room.nid(), reach).await? { Reached::Less } else { Reached::Enough })
    }

    fn is_paused(&self, room: RoomNid) -> bool {
        self.backfills.paused.lock().get(&room).is_some_and(|until_ms| self.view.env.now_ms() < *until_ms)
    }

    fn pause(&self, room: RoomNid) {
        let now_ms = self.view.env.now_ms();
        let mut paused = self.backfills.paused.lock();
        paused.retain(|_, until_ms| *until_ms > now_ms);
        paused.insert(room, now_ms + PAUSE_MS);
    }

    fn forget_under_way(&self, room: RoomNid) {
        let mut under_way = self.backfills.under_way.lock();
        if under_way.get(&room).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            under_way.remove(&room);
        }
    }

    /// What the first events of the timeline refer to and is not in it.
    async fn backward_extremities(&self, room: RoomNid) -> Result<Vec<OwnedEventId>, Error> {
        let rows = self.view.store.scan(&TIMELINE, &room, Direction::Forward, FIRST_EVENTS).await?;
        let nids: Vec<_> = rows.into_iter().map(|(_, nid)| nid).collect();
        let mut extremities = BTreeSet::new();
        for event in self.view.events.load_many(&nids).await?.into_iter().flatten() {
            for prev in &event.pdu.prev_events {
                let held = self.view.events.load_by_id(prev).await?;
                if held.is_none_or(|held| held.accepted() && held.order.is_none()) {
                    extremities.insert(prev.clone());
                }
            }
        }
        Ok(extremities.into_iter().take(EXTREMITIES_MAX).collect())
    }

    /// Whether anything new came.
    async fn fetch_history(&self, room: &RoomSnapshot, extremities: &[OwnedEventId]) -> Result<bool, Error> {
        let info = &room.info;
        for server in self.likely_servers(room, &[], SERVERS_MAX).await? {
            let answer = fetch::backfill(&self.client, &server, &info.room_id, extremities, AT_ONCE).await;
            let mut raws = match answer {
                Ok(raws) => raws,
                Err(error) => {
                    tracing::debug!(%server, room_id = %info.room_id, %error, "no history");
                    continue;
                }
            };
            raws.truncate(AT_ONCE * 2);
            let events = self.verified(&raws, &info.rules).await.into_iter();
            let events: Vec<_> = events.filter(|event| event.pdu().room_id == info.room_id).collect();
            let servers = self.likely_servers(room, &[&server], SERVERS_MAX).await?;
            if self.receive_history(Gap::new(self, room, servers), events).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn receive_history(&self, mut gap: Gap<'_>, events: Vec<VerifiedPdu>) -> Result<bool, Error> {
        let ordered = in_order(events);
        let mut states = 0;
        let mut shown = false;
        let mut ready: Vec<VerifiedPdu> = Vec::with_capacity(ordered.len());
        let mut coming: BTreeSet<OwnedEventId> = BTreeSet::new();
        for event in ordered {
            let id = event.pdu().event_id.clone();
            if !self.is_carried(&gap, &event, &coming).await? {
                if states == STATES_MAX || !gap.bring_state_before(&id).await? {
                    continue;
                }
                states += 1;
            }
            coming.insert(id);
            ready.push(event);
        }
        let answers = gap.inbound.rooms.receive_history(gap.room.nid(), &ready).await?;
        for (answer, event) in answers.iter().zip(&ready) {
            match answer {
                Received::Stored(_) | Received::Known(_) => shown = true,
                left_out => tracing::debug!(id = %event.pdu().event_id, ?left_out, "no part of the history"),
            }
        }
        Ok(shown)
    }

    /// Whether the state before an event follows from what is held or comes with it, and its auth events are held.
    async fn is_carried(
        &self,
        gap: &Gap<'_>,
        event: &VerifiedPdu,
        coming: &BTreeSet<OwnedEventId>,
    ) -> Result<bool, Error> {
        let pdu = event.pdu();
        for prev in &pdu.prev_events {
            if !coming.contains(prev) && !gap.is_in_place(prev).await? {
                return Ok(false);
            }
        }
        for auth in &pdu.auth_events {
            if !coming.contains(auth) && self.view.interner.lookup_event(auth).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Parents before children.
fn in_order(events: Vec<VerifiedPdu>) -> Vec<VerifiedPdu> {
    let mut events: BTreeMap<OwnedEventId, VerifiedPdu> =
        events.into_iter().map(|event| (event.pdu().event_id.clone(), event)).collect();
    let parents = |event: &VerifiedPdu, among: &BTreeMap<OwnedEventId, VerifiedPdu>| {
        let here = event.pdu().prev_events.iter().filter(|id| among.contains_key(*id));
        here.cloned().collect::<BTreeSet<_>>()
    };
    let mut waiting: BTreeMap<OwnedEventId, BTreeSet<OwnedEventId>> =
        events.iter().map(|(id, event)| (id.clone(), parents(event, &events))).collect();
    let mut ordered = Vec::with_capacity(events.len());
    loop {
        let next = waiting.iter().filter(|(_, parents)| parents.is_empty());
        let next = next.min_by_key(|(id, _)| events.get(*id).map(|event| event.pdu().depth));
        let Some(id) = next.map(|(id, _)| id.clone()) else { return ordered };
        waiting.remove(&id);
        for parents in waiting.values_mut() {
            parents.remove::<EventId>(&id);
        }
        ordered.extend(events.remove(&id));
    }
}
