//! Stores a judged event where its verdict wants it, and moves extremities and current state.

use std::{collections::HashSet, sync::Arc};

use myelin_core::{EventNid, Position, TimelineOrder};
use myelin_dag::{Pdu, StateTree, Verdict};
use myelin_store::{
    NidKind,
    log::LogEntry,
    tables::{CURRENT_STATES, CurrentStateRecord, EVENT_NIDS, EVENTS, GAPS, Placement, SentBy},
};
use myelin_view::{Event, Landing};
use ruma::{OwnedEventId, UserId};

use super::{is_provisional, is_unseen, record_of};
use crate::{Error, writer::Draft};

/// Events that are not accepted, and what they come after, that are walked through for one event.
const PASSED_MAX: usize = 1_000;

impl Draft<'_> {
    pub(crate) async fn take(
        &mut self,
        pdu: Pdu,
        verdict: &Verdict,
        state_before: StateTree,
        auth: &[EventNid],
        sent_by: Option<SentBy>,
    ) -> Result<Arc<Event>, Error> {
        let held = self.find(&pdu.event_id).await?;
        self.take_as(held.as_deref(), pdu, verdict, state_before, auth, sent_by).await
    }

    /// An event that is `held` as an outlier keeps its number.
    pub(super) async fn take_as(
        &mut self,
        held: Option<&Event>,
        pdu: Pdu,
        verdict: &Verdict,
        state_before: StateTree,
        auth: &[EventNid],
        sent_by: Option<SentBy>,
    ) -> Result<Arc<Event>, Error> {
        self.rejects_held |= verdict.is_rejected() && held.is_some_and(Event::accepted);
        let outlier = held.map(|held| held.nid);
        let view = self.rooms().view.clone();
        let nid = match outlier {
            Some(nid) => nid,
            None => EventNid(view.nids.allocate(NidKind::Event).await?),
        };
        let sender = view.interner.user(&pdu.sender).await?;
        let state_key = self.state_key_of(&pdu).await?;
        let room = self.room.nid();
        let root = Some(state_before.root());
        let event =
            Event::new(nid, room, sender, state_key, root, record_of(verdict), sent_by, Arc::new(pdu));
        let event = event.of_partial_state(self.room.partial);
        let event = Arc::new(self.marked(event, verdict.is_rejected()).await?);
        if outlier.is_none() {
            self.batch.require_absent(&EVENT_NIDS, &event.pdu.event_id.to_string());
        }
        self.keep_state_before(&event.pdu, &state_before).await?;
        if state_key.is_some() {
            self.keep_chain(nid, auth).await?;
        }
        if !verdict.is_accepted() {
            self.put_outside(&event);
            return Ok(event);
        }
        let event = self.redacted_early(event).await?;
        let position = self.enter_timeline(&event).await?;
        if self.follows_a_gap(&event).await? {
            self.note_gap_before(nid, position);
        }
        self.extend_by(&event).await?;
        self.move_current_state(&event, position).await?;
        self.redact_by(&event).await?;
        Ok(event)
    }

    /// In a fork the states before the prev events are nearer to it than the current one.
    pub(super) async fn keep_state_before(&mut self, pdu: &Pdu, state: &StateTree) -> Result<(), Error> {
        let mut stored = vec![self.room.current_state.clone()];
        if stored[0].root() != state.root() {
            for id in &pdu.prev_events {
                let Some(prev) = self.find(id).await? else { continue };
                if let Some(root) = prev.state_before {
                    stored.push(self.state_of(root).await?);
                }
            }
        }
        self.keep_nodes(state, &stored.iter().collect::<Vec<_>>());
        Ok(())
    }

    /// The far end of a gap has come after all. What it changed is in the states of those that refer to it.
    pub(super) async fn show_late(&mut self, held: &Arc<Event>) -> Result<(), Error> {
        let event = self.redacted_early(Arc::new(held.shown())).await?;
        let position = self.enter_timeline(&event).await?;
        self.note_gap_before(event.nid, position);
        self.redact_by(&event).await
    }

    /// Whether it comes after the far end of what was missed: after an event that clients have not been shown, or that may
    /// yet be accepted.
    async fn follows_a_gap(&self, event: &Event) -> Result<bool, Error> {
        for id in &event.pdu.prev_events {
            // What is on its way into the timeline has no place there yet.
            let (prev, settled) = match self.pending_by_id(id) {
                Some(prev) => (Some(prev), false),
                None => (self.rooms().view.events.load_by_id(id).await?, true),
            };
            if prev.is_some_and(|prev| is_provisional(&prev) || (settled && is_unseen(&prev))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The event at `position` does not join on to what stands before it in the timeline.
    pub(crate) fn note_gap_before(&mut self, event: EventNid, position: Position) {
        self.batch.put(&GAPS, &(self.room.nid(), TimelineOrder::from(position)), &event);
        self.room.gap = Some(event);
    }

    pub(super) fn put_outside(&mut self, event: &Arc<Event>) {
        let placement = if event.told { Placement::Told } else { Placement::Outside };
        let row = event.row(placement, Position::ZERO);
        self.batch.put(&EVENTS, &event.nid, &row);
        self.batch.put(&EVENT_NIDS, &event.pdu.event_id.to_string(), &event.nid);
        self.add_outside(Landing { event: event.clone(), redacted: None, snapshot: None });
    }

    /// The event is a forward extremity now, in the place of those it refers to.
    async fn extend_by(&mut self, event: &Event) -> Result<(), Error> {
        self.room.head.extremities = self.tips_with(event, &self.room.head.extremities).await?;
        self.room.head.depth = self.room.head.depth.max(event.pdu.depth);
        Ok(())
    }

    /// The event, and those of some others that it does not come after.
    pub(crate) async fn tips_with(&self, event: &Event, tips: &[EventNid]) -> Result<Vec<EventNid>, Error> {
        let mut left = vec![event.nid];
        for tip in tips {
            if !event.pdu.prev_events.contains(&self.event(*tip).await?.pdu.event_id) {
                left.push(*tip);
            }
        }
        if left.len() > 1 {
            let passed = self.passed_by(event).await?;
            left.retain(|tip| !passed.contains(tip));
        }
        Ok(left)
    }

    /// What an event comes after by way of events that are not accepted here: other servers, which accept them, have it no
    /// longer at the end of the room (as Synapse does).
    async fn passed_by(&self, event: &Event) -> Result<HashSet<EventNid>, Error> {
        let mut passed = HashSet::new();
        let mut pending: Vec<OwnedEventId> = event.pdu.prev_events.to_vec();
        while let Some(id) = pending.pop() {
            let Some(prev) = self.find(&id).await? else { continue };
            if passed.len() < PASSED_MAX && passed.insert(prev.nid) && !prev.accepted() {
                pending.extend(prev.pdu.prev_events.iter().cloned());
            }
        }
        Ok(passed)
    }

    /// The current state is the resolution of the states after all extremities.
    async fn move_current_state(&mut self, event: &Event, position: Position) -> Result<(), Error> {
        let mut states = Vec::new();
        for nid in &self.room.head.extremities {
            states.push(self.state_after(&*self.event(*nid).await?).await?);
        }
        self.let_go_of_equals(&mut states);
        let before = self.room.current_state.clone();
        let after = self.resolve(&states).await?;
        if before.root() == after.root() {
            return Ok(());
        }
        self.turn_to(after, Some(event.nid), position).await?;
        self.watch_resets(event, &before).await
    }

    /// From `position` on the current state is this one, with the members that it has. What changed beside what the
    /// event at `position` says has log entries of its own.
    pub(crate) async fn turn_to(
        &mut self,
        after: StateTree,
        by: Option<EventNid>,
        position: Position,
    ) -> Result<(), Error> {
        let changes = self.room.current_state.diff(&after);
        self.set_state(after);
        let from = (self.room.nid(), TimelineOrder::from(position));
        let root = self.room.current_state.root().0;
        self.batch.put(&CURRENT_STATES, &from, &CurrentStateRecord { root });
        let keys: Vec<_> = changes.iter().map(|(key, ..)| *key).collect();
        let names = self.rooms().view.interner.state_key_names(&keys).await?;
        let beside = changes.iter().any(|(.., now)| now.is_none() || *now != by);
        let resolved = LogEntry::Resolved { room: self.room.nid(), user: None };
        let resolved_at = if beside { self.batch.log(&resolved) } else { position };
        for ((_, _, now), name) in changes.iter().zip(names) {
            if name.event_type != "m.room.member" {
                continue;
            }
            match now {
                Some(nid) if by == Some(*nid) => {
                    self.set_member_by(&*self.event(*nid).await?, position).await?;
                }
                Some(nid) => {
                    let at = self.tell_of_member(&name.state_key, resolved_at).await?;
                    self.set_member_by(&*self.event(*nid).await?, at).await?;
                }
                None => {
                    let at = self.tell_of_member(&name.state_key, resolved_at).await?;
                    self.forget_member(&name.state_key, at).await?;
                }
            }
        }
        Ok(())
    }

    /// Where a local user is told of a membership that no event at the end of the timeline gives.
    async fn tell_of_member(&mut self, user_id: &str, otherwise: Position) -> Result<Position, Error> {
        let Ok(user_id) = <&UserId>::try_from(user_id) else { return Ok(otherwise) };
        if !self.is_local(user_id) {
            return Ok(otherwise);
        }
        let user = self.rooms().view.interner.user(user_id).await?;
        Ok(self.batch.log(&LogEntry::Resolved { room: self.room.nid(), user: Some(user) }))
    }

    async fn forget_member(&mut self, user_id: &str, position: Position) -> Result<(), Error> {
        let Ok(user_id) = <&UserId>::try_from(user_id) else { return Ok(()) };
        if let Some(user) = self.rooms().view.interner.lookup_user(user_id).await? {
            self.drop_member(user, user_id.server_name(), position).await?;
        }
        Ok(())
    }
}
