//! Events at the far end of a gap: outliers that get the state before them from another server, so that others can be
//! judged after them. They stay outside the timeline; backfill may bring them in. Likewise events of whose state something
//! lacks, as the room was left before it was complete.
//!
//! A state that is told may be a lie: what was judged by it is judged again when what it comes after is held.

use std::{collections::HashSet, sync::Arc};

use myelin_core::{EventNid, RoomNid};
use myelin_dag::{Pdu, StateTree, Verdict, auth::authorize_by_state, auth_types};
use myelin_store::tables::{EVENTS, VerdictRecord};
use myelin_view::{Event, Landing, placement_of};
use ruma::{EventId, OwnedEventId};

use super::{Received, is_unseen, record_of, verdict_of};
use crate::{
    Error, Rooms,
    writer::{Command, Draft},
};

/// What came of a state that was told of an outlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placing {
    /// There is no such outlier.
    NotHeld,
    /// The event has a state before it.
    Placed,
    /// That state does not allow it, or has nothing where the event names an authority of its own: the outlier stays
    /// one.
    Forbidden,
}

struct PlaceOutlier<'a> {
    event_id: &'a EventId,
    state: StateTree,
    /// Also where that is to be rejected.
    anyway: bool,
}

/// Events that a forward extremity comes after that are looked through for one.
const PASSED_MAX: usize = 1_000;

impl Rooms {
    /// `state` names the events of the state before an outlier; those that are not held or were rejected do not count.
    pub async fn place_outlier(
        &self,
        room: RoomNid,
        event_id: &EventId,
        state: &[OwnedEventId],
    ) -> Result<Placing, Error> {
        let state = self.state_of(room, state).await?;
        self.run(room, &PlaceOutlier { event_id, state, anyway: false }).await
    }

    /// The same where nobody tells a state that allows the event: it is rejected, until what it comes after is held.
    pub async fn place_forbidden_outlier(
        &self,
        room: RoomNid,
        event_id: &EventId,
        state: &[OwnedEventId],
    ) -> Result<Placing, Error> {
        let state = self.state_of(room, state).await?;
        self.run(room, &PlaceOutlier { event_id, state, anyway: true }).await
    }

    /// A state out of the events that make it up.
    pub(crate) async fn state_of(&self, room: RoomNid, ids: &[OwnedEventId]) -> Result<StateTree, Error> {
        let held = self.view.interner.lookup_events(ids).await?;
        let nids: Vec<_> = ids.iter().filter_map(|id| held.get(id).copied()).collect();
        let events = self.view.events.load_many(&nids).await?;
        let mut state = StateTree::new();
        for event in events.into_iter().flatten() {
            let rejected = event.is_rejected();
            if let Some(key) = event.state_key.filter(|_| event.room == room && !rejected) {
                state = state.insert(key, event.nid);
            }
        }
        Ok(state)
    }
}

impl Command for PlaceOutlier<'_> {
    type Output = Placing;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<Placing, Error> {
        let outlier = draft.find(self.event_id).await?.filter(|outlier| outlier.room == draft.room.nid());
        let Some(outlier) = outlier else { return Ok(Placing::NotHeld) };
        if outlier.carries(draft.room.partial) {
            return Ok(Placing::Placed);
        }
        let forbidden = draft.forbidden_by(&outlier, &self.state).await?;
        if !self.anyway && (forbidden.is_some() || !draft.has_authorities(&outlier, &self.state).await?) {
            return Ok(Placing::Forbidden);
        }
        match outlier.order {
            Some(_) => draft.complete_state(&outlier, &self.state),
            None => draft.place_outlier(&outlier, &self.state, forbidden),
        }
        Ok(Placing::Placed)
    }
}

impl Draft<'_> {
    /// An event of a stay in the room that ended before the room was complete. What was made of it then stays.
    fn complete_state(&mut self, event: &Event, state: &StateTree) {
        self.keep_nodes(state, &[&self.room.current_state.clone()]);
        let event = Arc::new(event.with_state(state.root()));
        let (placement, position) = placement_of(event.order);
        self.batch.put(&EVENTS, &event.nid, &event.row(placement, position));
        self.add_outside(Landing { event, redacted: None, snapshot: None });
    }

    fn place_outlier(&mut self, outlier: &Event, state: &StateTree, forbidden: Option<String>) {
        let (verdict, pdu) = match forbidden {
            Some(reason) if outlier.accepted() => {
                self.rejects_held = true;
                let pdu = (*outlier.pdu).clone().into_rejected();
                (VerdictRecord::Rejected { reason }, Arc::new(pdu))
            }
            _ => (outlier.verdict.clone(), outlier.pdu.clone()),
        };
        self.keep_nodes(state, &[&self.room.current_state.clone()]);
        self.put_outside(&Arc::new(
            outlier.judged(state.root(), verdict, pdu).by_told_state().of_told_state(true),
        ));
    }

    /// Why this state does not allow an event.
    pub(super) async fn forbidden_by(
        &self,
        event: &Event,
        state: &StateTree,
    ) -> Result<Option<String>, Error> {
        let (pdu, rules) = (&event.pdu, &self.room.info.rules);
        let types = auth_types(rules, &pdu.event_type, &pdu.sender, pdu.state_key.as_deref(), &pdu.content);
        let set = self.auth_set(types.unwrap_or_default(), state).await?;
        let allowed = authorize_by_state(rules, pdu, |event_type, key| set.state(event_type, key));
        Ok(allowed.err().map(|rejection| rejection.reason))
    }

    /// Whether the state has something wherever one of the auth events stands: those are of the state before an event.
    async fn has_authorities(&self, event: &Event, state: &StateTree) -> Result<bool, Error> {
        for id in &event.pdu.auth_events {
            let key = self.find(id).await?.and_then(|auth| auth.state_key);
            if key.is_some_and(|key| state.get(key).is_none()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The event with what is to be known later of the state before it: whether it follows from a told one or from half a
    /// one. If the event `fell`, that may be why.
    pub(super) async fn marked(&self, event: Event, fell: bool) -> Result<Event, Error> {
        let (mut is_told, mut is_partial) = (false, event.state_is_partial);
        for id in &event.pdu.prev_events {
            let Some(prev) = self.find(id).await? else { continue };
            is_told |= prev.is_doubtful();
            is_partial |= prev.state_is_partial;
        }
        let event = event.of_told_state(is_told).of_partial_state(is_partial);
        Ok(if fell && (is_told || is_partial) { event.by_told_state() } else { event })
    }

    /// What was judged by a told state comes again. Shown, if clients may see it now and have not.
    pub(super) async fn known(&mut self, held: &Arc<Event>) -> Result<Received, Error> {
        let settled = self.pending_by_id(&held.pdu.event_id).is_none();
        if is_unseen(held) && settled && self.is_allowed_now(held).await? {
            self.show_late(held).await?;
        }
        Ok(Received::Known(verdict_of(held)))
    }

    /// Check 6 for what was held already. Of a partially joined room members lack.
    async fn is_allowed_now(&self, event: &Event) -> Result<bool, Error> {
        Ok(self.room.partial || self.forbidden_by(event, &self.room.current_state).await?.is_none())
    }

    /// Takes the verdict by the state that follows from its parents on an event that was judged by a told one. Others
    /// may have been accepted after it meanwhile: they stay.
    pub(super) async fn take_again(
        &mut self,
        held: &Event,
        pdu: Pdu,
        verdict: &Verdict,
        state_before: StateTree,
        auth: &[EventNid],
    ) -> Result<(), Error> {
        self.rejects_held |= verdict.is_rejected() != held.is_rejected();
        if verdict.is_accepted() && !self.is_passed(held).await? {
            return self.take_as(Some(held), pdu, verdict, state_before, auth, None).await.map(drop);
        }
        // What counted goes on counting; those who read back see it.
        let record = match verdict {
            Verdict::SoftFailed { .. } if held.accepted() => VerdictRecord::Accepted,
            verdict => record_of(verdict),
        };
        let event = held.judged(state_before.root(), record, Arc::new(pdu));
        let event = Arc::new(self.marked(event, !verdict.is_accepted()).await?);
        if is_as_it_was(held, &event) {
            return Ok(());
        }
        self.keep_state_before(&event.pdu, &state_before).await?;
        self.note_corrected(held, &event);
        match verdict.is_accepted() {
            true => self.show_late(&event).await,
            false => {
                self.put_outside(&event);
                Ok(())
            }
        }
    }

    /// Notes what those that come after it are to be judged by. Nothing comes after an outlier.
    pub(super) fn note_corrected(&mut self, held: &Event, now: &Arc<Event>) {
        let other = held.state_before != now.state_before || held.is_rejected() != now.is_rejected();
        if held.state_before.is_some() && other {
            self.corrected.push(now.clone());
        }
    }

    /// Whether a forward extremity comes after it, as far as that is looked for.
    async fn is_passed(&self, event: &Event) -> Result<bool, Error> {
        let mut seen = HashSet::new();
        let mut pending = self.room.head.extremities.clone();
        while let Some(nid) = pending.pop() {
            for id in &self.event(nid).await?.pdu.prev_events {
                if *id == event.pdu.event_id || seen.len() == PASSED_MAX {
                    return Ok(true);
                }
                let prev = self.find(id).await?.filter(|prev| prev.pdu.depth > event.pdu.depth);
                pending.extend(prev.map(|prev| prev.nid).filter(|prev| seen.insert(*prev)));
            }
        }
        Ok(false)
    }
}

/// Whether an event fell again, for the same reason and with the same doubt.
pub(super) fn is_as_it_was(held: &Event, now: &Event) -> bool {
    let fell = held.is_rejected() && now.is_rejected();
    fell && held.state_before == now.state_before && held.told == now.told
}
