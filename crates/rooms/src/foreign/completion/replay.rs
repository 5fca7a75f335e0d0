//! The states since a join, worked out again from the state before it.
//!
//! A state before an event follows from the states after its prev events, as when it came; only where these are not all
//! held (the far end of a gap) it is what another server said, and stays. Forks are resolved as they were then.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_core::{EventNid, TimelineOrder};
use myelin_dag::{StateTree, Verdict, auth::authorize_by_state, auth_types};
use myelin_store::{
    Direction,
    tables::{CURRENT_STATES, CurrentStateRecord, EVENTS, Placement, TIMELINE, VerdictRecord},
};
use myelin_view::Event;

use crate::{Error, writer::Draft};

/// Events since the join.
const EVENTS_MAX: usize = 1_000_000;
/// Events of all rooms that are looked through for those of this one outside its timeline.
const LOOKED_THROUGH_MAX: usize = 50_000;

struct Replay<'a> {
    join: EventNid,
    complete: &'a StateTree,
    /// Clients did not wait for what lacked: the states that they were shown stay, and it comes as a change.
    shown: bool,
    /// Everything that is worked out again.
    since: HashMap<EventNid, Arc<Event>>,
    before: HashMap<EventNid, StateTree>,
    rejected: HashSet<EventNid>,
    /// What comes after events of an earlier stay in the room that ended before it was complete: something goes on lacking.
    doubtful: HashSet<EventNid>,
}

impl Draft<'_> {
    /// Answers the events whose rows are written again.
    pub(super) async fn replay_since(
        &mut self,
        join: &Arc<Event>,
        complete: &StateTree,
        shown: bool,
        whole: bool,
    ) -> Result<Vec<EventNid>, Error> {
        let partial = join.state_before.ok_or_else(|| Error::damaged("a join without a state"))?;
        let partial = self.rooms().view().states.load(partial).await?;
        let order = join.order.ok_or_else(|| Error::damaged("a join outside the timeline"))?;
        self.keep_nodes(complete, &[&partial]);
        let timeline = self.timeline_since(order).await?;
        let mut replay = Replay {
            join: join.nid,
            complete,
            shown,
            since: timeline.iter().map(|event| (event.nid, event.clone())).collect(),
            before: HashMap::new(),
            rejected: HashSet::new(),
            doubtful: HashSet::new(),
        };
        let outside = self.outside_since(join.nid).await?;
        replay.since.extend(outside.iter().map(|event| (event.nid, event.clone())));
        for event in &timeline {
            let state = self.state_again(event, &mut replay).await?;
            let whole = whole && !replay.doubtful.contains(&event.nid);
            if let Verdict::Rejected { reason } = self.judge_again(event, &state).await? {
                tracing::info!(event = %event.pdu.event_id, reason, "the complete room does not allow an event");
                replay.rejected.insert(event.nid);
                self.rewrite(event, &state, whole, Some(reason)).await?;
            } else {
                self.rewrite(event, &state, whole, None).await?;
            }
        }
        for event in &outside {
            let state = self.state_again(event, &mut replay).await?;
            let whole = whole && !replay.doubtful.contains(&event.nid);
            self.rewrite(event, &state, whole, None).await?;
        }
        self.replay_current_states(&timeline, order, &mut replay).await?;
        Ok(replay.since.into_keys().collect())
    }

    async fn timeline_since(&self, order: TimelineOrder) -> Result<Vec<Arc<Event>>, Error> {
        let (room, store) = (self.room.nid(), &self.rooms().view().store);
        let range = ((room, order), (room, TimelineOrder::MAX));
        let rows = store.range(&TIMELINE, &range.0, &range.1, Direction::Forward, EVENTS_MAX).await?;
        let mut events = Vec::with_capacity(rows.len());
        for (_, nid) in rows {
            let event = self.event(nid).await?;
            if event.state_before.is_some() {
                events.push(event);
            }
        }
        Ok(events)
    }

    /// What was soft-failed or rejected meanwhile: others may come after it.
    async fn outside_since(&self, join: EventNid) -> Result<Vec<Arc<Event>>, Error> {
        let view = self.rooms().view().clone();
        let range = (join, EventNid(u64::MAX));
        let rows =
            view.store.range(&EVENTS, &range.0, &range.1, Direction::Forward, LOOKED_THROUGH_MAX).await?;
        let mut events = Vec::new();
        for (nid, row) in rows {
            let of_room = row.value.room == self.room.nid() && row.value.state_before.is_some();
            if of_room && row.value.verdict != VerdictRecord::Accepted {
                events.push(self.event(nid).await?);
            }
        }
        Ok(events)
    }

    /// The state before an event of the replay. What it comes after is looked at first.
    async fn state_again(&self, event: &Arc<Event>, replay: &mut Replay<'_>) -> Result<StateTree, Error> {
        let mut pending = vec![event.clone()];
        while let Some(next) = pending.last().cloned() {
            if replay.before.contains_key(&next.nid) {
                pending.pop();
                continue;
            }
            let (prevs, whole) = self.prevs_of(&next, replay).await?;
            let first: Vec<_> =
                prevs.iter().filter_map(|prev| replay.since.get(&prev.nid)).cloned().collect();
            let first = first.into_iter().filter(|prev| !replay.before.contains_key(&prev.nid));
            let first: Vec<_> = first.collect();
            if next.nid != replay.join && whole && !first.is_empty() {
                pending.extend(first);
                continue;
            }
            let state = self.state_from(&next, &prevs, whole, replay).await?;
            let follows = whole && prevs.iter().any(|prev| replay.doubtful.contains(&prev.nid));
            if next.nid != replay.join && (follows || (!whole && next.state_is_partial)) {
                replay.doubtful.insert(next.nid);
            }
            replay.before.insert(next.nid, state);
            pending.pop();
        }
        replay.before.get(&event.nid).cloned().ok_or_else(|| Error::damaged("an event without a state"))
    }

    async fn state_from(
        &self,
        event: &Arc<Event>,
        prevs: &[Arc<Event>],
        whole: bool,
        replay: &Replay<'_>,
    ) -> Result<StateTree, Error> {
        if event.nid == replay.join {
            return Ok(replay.complete.clone());
        }
        if !whole {
            let root = event.state_before.ok_or_else(|| Error::damaged("an event without a state"))?;
            return Ok(self.rooms().view().states.load(root).await?);
        }
        let mut states = Vec::with_capacity(prevs.len());
        for prev in prevs {
            states.push(self.state_after_again(prev, replay).await?);
        }
        self.resolve(&states).await
    }

    async fn state_after_again(&self, event: &Arc<Event>, replay: &Replay<'_>) -> Result<StateTree, Error> {
        let Some(before) = replay.before.get(&event.nid) else { return self.state_after(event).await };
        let counts = !event.is_rejected() && !replay.rejected.contains(&event.nid);
        Ok(match event.state_key.filter(|_| counts) {
            Some(key) => before.insert(key, event.nid),
            None => before.clone(),
        })
    }

    /// Those that are held with their states, and whether these are all.
    async fn prevs_of(&self, event: &Event, replay: &Replay<'_>) -> Result<(Vec<Arc<Event>>, bool), Error> {
        let mut prevs = Vec::with_capacity(event.pdu.prev_events.len());
        for id in &event.pdu.prev_events {
            let of_replay = |prev: &Arc<Event>| prev.carries(replay.since.contains_key(&prev.nid));
            prevs.extend(self.find(id).await?.filter(of_replay));
        }
        let whole = prevs.len() == event.pdu.prev_events.len();
        Ok((prevs, whole))
    }

    async fn judge_again(&self, event: &Event, state: &StateTree) -> Result<Verdict, Error> {
        let (pdu, rules) = (&event.pdu, &self.room.info.rules);
        let types = auth_types(rules, &pdu.event_type, &pdu.sender, pdu.state_key.as_deref(), &pdu.content)
            .unwrap_or_default();
        let auth = self.auth_set(types, state).await?;
        Ok(match authorize_by_state(rules, pdu, |event_type, key| auth.state(event_type, key)) {
            Ok(()) => Verdict::Accepted,
            Err(rejection) => Verdict::Rejected { reason: rejection.reason },
        })
    }

    async fn rewrite(
        &mut self,
        event: &Event,
        state: &StateTree,
        whole: bool,
        rejected: Option<String>,
    ) -> Result<(), Error> {
        let Some(mut row) = self.stored(event.nid).await? else { return Ok(()) };
        row.value.state_before = Some(state.root().0);
        row.value.state_is_partial &= !whole;
        if let Some(reason) = rejected {
            self.rejects_held = true;
            self.rejected.insert(event.nid);
            row.value.verdict = VerdictRecord::Rejected { reason };
            row.value.placement = Placement::Outside;
            if let Some(order) = event.order {
                self.batch.delete(&TIMELINE, &(event.room, order));
            }
        }
        self.batch.put(&EVENTS, &event.nid, &row);
        self.keep_nodes(state, &[&self.room.current_state.clone()]);
        Ok(())
    }

    /// The current state, with the extremities that it is of, and unless they stay the states since just before the join.
    async fn replay_current_states(
        &mut self,
        timeline: &[Arc<Event>],
        join: TimelineOrder,
        replay: &mut Replay<'_>,
    ) -> Result<(), Error> {
        let old = self.room.head.extremities.iter().filter(|nid| !replay.since.contains_key(nid));
        let mut tips: Vec<EventNid> = old.copied().collect();
        let mut referred = HashSet::new();
        if !replay.shown {
            self.begin_with_complete(join, replay).await?;
        }
        let mut last = None;
        for event in timeline.iter().filter(|event| !replay.rejected.contains(&event.nid)) {
            let is_late = referred.contains(&event.pdu.event_id);
            referred.extend(event.pdu.prev_events.iter());
            if !is_late {
                tips = self.tips_with(event, &tips).await?;
            }
            if let Some(order) = event.order.filter(|_| !replay.shown) {
                let state = self.state_of_tips(&tips, replay).await?;
                if last.replace(state.root()) != Some(state.root()) {
                    self.keep_nodes(&state, &[replay.complete]);
                    let record = CurrentStateRecord { root: state.root().0 };
                    self.batch.put(&CURRENT_STATES, &(event.room, order), &record);
                }
            }
        }
        let current = self.state_of_tips(&tips, replay).await?;
        self.keep_nodes(&current, &[replay.complete]);
        self.room.current_state = current;
        self.room.head.extremities = tips;
        match self.room.head.extremities.is_empty() {
            true => Err(Error::damaged("nothing of a room is left")),
            false => Ok(()),
        }
    }

    /// The state just before the join was the partial one. What followed is written anew.
    async fn begin_with_complete(&mut self, join: TimelineOrder, replay: &Replay<'_>) -> Result<(), Error> {
        let (room, store) = (self.room.nid(), self.rooms().view().store.clone());
        let (first, end) = ((room, TimelineOrder::MIN), (room, TimelineOrder::MAX));
        let here = (room, join);
        let before = store.range(&CURRENT_STATES, &first, &here, Direction::Reverse, 1).await?;
        for (key, _) in before {
            let root = replay.complete.root().0;
            self.batch.put(&CURRENT_STATES, &key, &CurrentStateRecord { root });
        }
        let since = store.range(&CURRENT_STATES, &here, &end, Direction::Forward, EVENTS_MAX).await?;
        for (key, _) in since {
            self.batch.delete(&CURRENT_STATES, &key);
        }
        Ok(())
    }

    async fn state_of_tips(&self, tips: &[EventNid], replay: &Replay<'_>) -> Result<StateTree, Error> {
        let mut states = Vec::with_capacity(tips.len());
        for tip in tips {
            states.push(self.state_after_again(&self.event(*tip).await?, replay).await?);
        }
        self.resolve(&states).await
    }
}
