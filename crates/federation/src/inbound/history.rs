//! Backfill: older history of a room is fetched when somebody reads past what is held (Server-Server API,
//! "Backfilling").
//!
//! Where history is held to is seen from the first events of the timeline: what they refer to and is not in it lies
//! beyond. The same goes for what this server missed while it was away, with the first event after that (`gaps`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use myelin_core::{RoomNid, TimelineOrder};
use myelin_dag::checks::VerifiedPdu;
use myelin_rooms::{Error, Received};
use myelin_store::{
    Direction,
    tables::{GAPS, TIMELINE},
};
use myelin_view::{Event, RoomSnapshot};
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId, RoomId};

use super::{Inbound, fetch, gap::Gap, verification::Verified};

/// Events asked for at a time.
const AT_ONCE: usize = 100;
/// Times that servers are asked for one reader.
const ROUNDS_MAX: usize = 5;
/// Gaps that one reader is taken across.
const STRETCHES_MAX: usize = 4;
/// The first events of a stretch that are looked at for what lies beyond them.
const FIRST_EVENTS: usize = 100;
const EXTREMITIES_MAX: usize = 20;
const SERVERS_MAX: usize = 4;
/// Events of one answer whose state is fetched because what they refer to is not held.
const STATES_MAX: usize = 5;
/// What a reader waits for history.
const BUDGET: Duration = Duration::from_secs(20);
/// How long nobody is asked again after history could not be had.
const PAUSE_MS: u64 = 60_000;
/// The same where it came, and lacks keys that may be there soon.
const KEYS_PAUSE_MS: u64 = 10_000;

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
    /// More than `count` events before a place, without gaps.
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

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub reached: Reached,
    /// What lacks before an event is being brought in from this place on.
    pub gap: Option<TimelineOrder>,
}

/// A part of the timeline with something missing before it.
#[derive(Clone, Copy)]
struct Stretch {
    /// What stands at or before this place is none of it.
    floor: TimelineOrder,
    /// The event that it ends with; `None`: it is the beginning of the timeline.
    gap: Option<TimelineOrder>,
}

/// How it stands with a stretch of which a reader wants more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// As much is held as is wanted.
    Enough,
    /// Nothing is missing.
    Whole,
    /// Nobody gives what is missing.
    Unavailable,
    /// There was no time for all of it.
    Unfinished,
}

/// What came of asking for history.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fetched {
    News,
    /// Some came that cannot be checked yet.
    AwaitsKeys,
    Nothing,
}

impl Reach {
    /// Where a reader begins.
    fn place(self) -> TimelineOrder {
        match self {
            Self::Count { before, .. } => before,
            Self::Time { .. } => TimelineOrder::MIN,
        }
    }
}

impl Reached {
    fn without_gap(self) -> Extent {
        Extent { reached: self, gap: None }
    }
}

impl Stretch {
    fn extent(self, reached: Reached) -> Extent {
        Extent { reached, gap: self.gap.map(|_| self.floor) }
    }
}

impl Inbound {
    /// Sees to it that history is held as far as it is wanted, as far as it can be had in time.
    pub async fn backfill(&self, room_id: &RoomId, reach: Reach) -> Extent {
        let nothing = Reached::Everything.without_gap();
        let Ok(Some(room)) = self.view.room_by_id(room_id).await else { return nothing };
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%room_id, %error, "history cannot be read or stored");
            nothing
        };
        let stretch = match self.held_for(room.nid(), reach).await {
            Ok((stretch, true)) => return stretch.extent(Reached::Enough),
            Ok((stretch, false)) => stretch,
            Err(error) => return failed(&error),
        };
        let done = self.view.env.timeout(BUDGET, self.backfill_room(&room, reach)).await;
        self.forget_under_way(room.nid());
        match done {
            Some(Ok(extent)) => extent,
            Some(Err(error)) => failed(&error),
            None => stretch.extent(Reached::Less),
        }
    }

    /// What a reader can be told of without asking anybody, and whether that is enough.
    async fn held_for(&self, room: RoomNid, reach: Reach) -> Result<(Stretch, bool), myelin_view::Error> {
        let stretch = self.stretch_of(room, reach.place()).await?;
        Ok((stretch, !self.is_short(room, stretch, reach).await?))
    }

    /// The stretch that the place belongs to.
    async fn stretch_of(&self, room: RoomNid, place: TimelineOrder) -> Result<Stretch, myelin_store::Error> {
        let until = (room, TimelineOrder(place.live_from().0.saturating_add(1)));
        let from = (room, TimelineOrder::MIN);
        let gaps = self.view.store.range(&GAPS, &from, &until, Direction::Reverse, 1).await?;
        let gap = gaps.first().map(|((_, gap), _)| *gap);
        Ok(Stretch { floor: gap.map_or(TimelineOrder::MIN, TimelineOrder::live_before), gap })
    }

    /// Whether a reader would come to the end of the stretch.
    async fn is_short(
        &self,
        room: RoomNid,
        stretch: Stretch,
        reach: Reach,
    ) -> Result<bool, myelin_view::Error> {
        match reach {
            Reach::Count { before, count } => {
                let until = (room, TimelineOrder(before.0.saturating_add(1)));
                let from = (room, TimelineOrder(stretch.floor.0.saturating_add(1)));
                let rows = self.view.store.range(&TIMELINE, &from, &until, Direction::Reverse, count + 1);
                Ok(rows.await?.len() <= count)
            }
            Reach::Time { ts_ms } => {
                let rows = self.view.store.scan(&TIMELINE, &room, Direction::Forward, 1).await?;
                let nids: Vec<_> = rows.into_iter().map(|(_, nid)| nid).collect();
                let first = self.view.events.load_many(&nids).await?.into_iter().flatten().next();
                Ok(first.is_some_and(|event| u64::from(event.pdu.origin_server_ts.get()) > ts_ms))
            }
        }
    }

    async fn backfill_room(&self, room: &RoomSnapshot, reach: Reach) -> Result<Extent, Error> {
        let lock = self.backfills.under_way.lock().entry(room.nid()).or_default().clone();
        let _turn = lock.lock().await;
        let mut place = reach.place();
        for _ in 0..STRETCHES_MAX {
            let stretch = self.stretch_of(room.nid(), place).await?;
            let progress = self.complete(room, stretch, reach).await?;
            match (progress, stretch.gap) {
                (Progress::Enough, _) => return Ok(stretch.extent(Reached::Enough)),
                (Progress::Unfinished, _) => return Ok(stretch.extent(Reached::Less)),
                (Progress::Whole, None) => return Ok(Reached::Everything.without_gap()),
                (Progress::Unavailable, None) => return Ok(Reached::Less.without_gap()),
                (Progress::Whole | Progress::Unavailable, Some(_)) => place = stretch.floor,
            }
        }
        Ok(Reached::Less.without_gap())
    }

    async fn complete(&self, room: &RoomSnapshot, stretch: Stretch, reach: Reach) -> Result<Progress, Error> {
        for round in 1..=ROUNDS_MAX {
            let extremities = self.backward_extremities(room.nid(), stretch).await?;
            if extremities.is_empty() {
                return Ok(Progress::Whole);
            }
            if !self.is_short(room.nid(), stretch, reach).await? {
                return Ok(Progress::Enough);
            }
            if self.is_paused(room.nid()) {
                return Ok(Progress::Unavailable);
            }
            let pause_ms = match self.fetch_history(room, stretch, &extremities, round < ROUNDS_MAX).await? {
                Fetched::News => continue,
                Fetched::AwaitsKeys => KEYS_PAUSE_MS,
                Fetched::Nothing => PAUSE_MS,
            };
            self.pause(room.nid(), pause_ms);
            return Ok(Progress::Unavailable);
        }
        let short = self.is_short(room.nid(), stretch, reach).await?;
        Ok(if short { Progress::Unfinished } else { Progress::Enough })
    }

    fn is_paused(&self, room: RoomNid) -> bool {
        self.backfills.paused.lock().get(&room).is_some_and(|until_ms| self.view.env.now_ms() < *until_ms)
    }

    fn pause(&self, room: RoomNid, pause_ms: u64) {
        let now_ms = self.view.env.now_ms();
        let mut paused = self.backfills.paused.lock();
        paused.retain(|_, until_ms| *until_ms > now_ms);
        paused.insert(room, now_ms + pause_ms);
    }

    fn forget_under_way(&self, room: RoomNid) {
        let mut under_way = self.backfills.under_way.lock();
        if under_way.get(&room).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            under_way.remove(&room);
        }
    }

    /// What the first events of a stretch refer to and is not in the timeline.
    async fn backward_extremities(
        &self,
        room: RoomNid,
        stretch: Stretch,
    ) -> Result<Vec<OwnedEventId>, Error> {
        let from = (room, TimelineOrder(stretch.floor.0.saturating_add(1)));
        let until = (room, stretch.gap.map_or(TimelineOrder::MAX, |gap| TimelineOrder(gap.0 + 1)));
        let store = &self.view.store;
        let rows = store.range(&TIMELINE, &from, &until, Direction::Forward, FIRST_EVENTS).await?;
        let nids: Vec<_> = rows.into_iter().map(|(_, nid)| nid).collect();
        let mut extremities = BTreeSet::new();
        for event in self.view.events.load_many(&nids).await?.into_iter().flatten() {
            for prev in &event.pdu.prev_events {
                let held = self.view.events.load_by_id(prev).await?;
                let purged = |held: &Event| held.redacted_by == Some(held.nid);
                let unseen =
                    |held: &Event| (held.accepted() || held.told) && held.order.is_none() && !purged(held);
                if held.is_none_or(|held| unseen(&held)) {
                    extremities.insert(prev.clone());
                }
            }
        }
        Ok(extremities.into_iter().take(EXTREMITIES_MAX).collect())
    }

    /// `goes_on`: it is asked for more after that.
    async fn fetch_history(
        &self,
        room: &RoomSnapshot,
        stretch: Stretch,
        extremities: &[OwnedEventId],
        goes_on: bool,
    ) -> Result<Fetched, Error> {
        let info = &room.info;
        let mut fetched = Fetched::Nothing;
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
            let Verified { events, keyless } = self.verified_or_keyless(&raws, &info.rules).await;
            let events: Vec<_> =
                events.into_iter().filter(|event| event.pdu().room_id == info.room_id).collect();
            let events = self.without_older(events).await?;
            let servers = self.likely_servers(room, &[&server], SERVERS_MAX).await?;
            let mut gap = Gap::new(self, room, servers);
            gap.note_keyless(&keyless);
            if gap.awaits_keys {
                fetched = Fetched::AwaitsKeys;
            }
            if self.receive_history(gap, stretch.gap, events, goes_on).await? {
                return Ok(Fetched::News);
            }
        }
        Ok(fetched)
    }

    /// Servers give so many events, and so may go back past what was missing: what comes before an event that is in the
    /// timeline has its place already, or belongs somewhere else.
    async fn without_older(&self, events: Vec<VerifiedPdu>) -> Result<Vec<VerifiedPdu>, Error> {
        let mut held = Vec::new();
        for event in &events {
            let event = self.view.events.load_by_id(&event.pdu().event_id).await?;
            held.extend(event.filter(|event| event.order.is_some()).map(|event| event.pdu.event_id.clone()));
        }
        let older = with_ancestors(held, &events);
        Ok(events.into_iter().filter(|event| !older.contains(&event.pdu().event_id)).collect())
    }

    /// Whether anything new came.
    async fn receive_history(
        &self,
        mut gap: Gap<'_>,
        place: Option<TimelineOrder>,
        events: Vec<VerifiedPdu>,
        goes_on: bool,
    ) -> Result<bool, Error> {
        let ordered = in_order(events);
        let mut states = 0;
        let mut ready: Vec<VerifiedPdu> = Vec::with_capacity(ordered.len());
        let mut coming: BTreeSet<OwnedEventId> = BTreeSet::new();
        let mut put_off: Vec<OwnedEventId> = Vec::new();
        for event in &ordered {
            let id = event.pdu().event_id.clone();
            if !self.is_carried(&gap, event, &coming).await? && !gap.is_in_place(&id).await? {
                if states == STATES_MAX {
                    put_off.push(id);
                    continue;
                }
                if !gap.bring_state_before(&id).await? {
                    continue;
                }
                states += 1;
            }
            coming.insert(id);
            ready.push(event.clone());
        }
        let mut shown = goes_on && !put_off.is_empty();
        if shown {
            // What comes later has its place before what is there by then: what it comes after waits for it.
            let waiting = with_ancestors(put_off, &ordered);
            ready.retain(|event| !waiting.contains(&event.pdu().event_id));
        }
        let answers = gap.inbound.rooms.receive_history(gap.room.nid(), place, &ready).await?;
        for (answer, event) in answers.iter().zip(&ready) {
            match answer {
                Received::Stored(_) => shown = true,
                Received::Known(verdict) => shown |= !verdict.is_rejected(),
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
        let mut auth: Vec<OwnedEventId> = pdu.auth_events.to_vec();
        auth.retain(|id| !coming.contains(id));
        Ok(self.rooms.without_authority(&auth).await?.is_empty())
    }
}

/// These, and what they come after as far as it is among `events`.
fn with_ancestors(mut ids: Vec<OwnedEventId>, events: &[VerifiedPdu]) -> BTreeSet<OwnedEventId> {
    let by_id: HashMap<_, _> = events.iter().map(|event| (&*event.pdu().event_id, event.pdu())).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = ids.pop() {
        let prev_events = by_id.get(&*id).map(|pdu| pdu.prev_events.clone()).unwrap_or_default();
        if found.insert(id) {
            ids.extend(prev_events);
        }
    }
    found
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
