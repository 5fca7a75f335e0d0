//! Older history that is brought when somebody reads past what is held (Server-Server API, "Backfilling").
//!
//! What is older than the timeline goes before all of it, at negative orders; what this server missed in between goes
//! right before the first event after the gap (`gaps`). Extremities and current state stay as they are, and clients hear
//! nothing of it.

use std::{collections::HashMap, sync::Arc};

use myelin_core::{EventNid, Position, RoomNid, TimelineOrder};
use myelin_dag::{checks::VerifiedPdu, state_tree::NodeHash};
use myelin_store::{
    Direction, NidKind,
    codec::AtPosition,
    log::LogEntry,
    tables::{
        CURRENT_STATES, CurrentStateRecord, EVENT_NIDS, EVENTS, Placement, RELATIONS, RelationRecord,
        THREAD_ROOTS, TIMELINE, ThreadRootRecord,
    },
};
use myelin_view::{Event, Landing};

use super::{
    AFTER_ANOTHER_ROOM, Incoming, NAME_IS_TAKEN, Received, in_place, is_provisional, is_unseen, links,
    out_of_place_before, place::is_as_it_was, record_of, redactions::redacts, verdict_of,
};
use crate::{
    Error, Rooms,
    writer::{Command, Draft},
};

struct ReceiveHistory<'a> {
    gap: Option<TimelineOrder>,
    pdus: &'a [VerifiedPdu],
}

impl Rooms {
    /// Takes events from before what is held, or from before the event at `gap`, which is in the table of gaps; parents
    /// before children. One answer each, in order.
    pub async fn receive_history(
        &self,
        room: RoomNid,
        gap: Option<TimelineOrder>,
        pdus: &[VerifiedPdu],
    ) -> Result<Vec<Received>, Error> {
        for pdu in pdus {
            self.intern(pdu.pdu()).await?;
        }
        self.run(room, &ReceiveHistory { gap, pdus }).await
    }
}

impl Command for ReceiveHistory<'_> {
    type Output = Vec<Received>;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<Vec<Received>, Error> {
        let mut answers = Vec::with_capacity(self.pdus.len());
        let mut shown: Vec<Arc<Event>> = Vec::new();
        for pdu in self.pdus {
            let (answer, event) = draft.judge_history(pdu).await?;
            answers.push(answer);
            shown.extend(event);
        }
        draft.redact_among(&mut shown).await?;
        draft.enter_before(&shown, self.gap).await?;
        if !draft.corrected.is_empty() {
            draft.follow_the_truth().await?;
        }
        Ok(answers)
    }
}

impl Draft<'_> {
    /// The event if it is to be shown.
    async fn judge_history(&mut self, pdu: &VerifiedPdu) -> Result<(Received, Option<Arc<Event>>), Error> {
        let held = self.find(&pdu.pdu().event_id).await?;
        if held.as_ref().is_some_and(|held| held.room != self.room.nid()) {
            return Ok((Received::Dropped(NAME_IS_TAKEN.to_owned()), None));
        }
        if let Some(held) = &held
            && in_place(held)
            && !(is_provisional(held) && self.ancestors(pdu.pdu()).await?.is_ok())
        {
            let known = Received::Known(verdict_of(held));
            let left_out = is_unseen(held) && self.pending_by_id(&held.pdu.event_id).is_none();
            return Ok((known, left_out.then(|| held.clone())));
        }
        if let Some(reason) = out_of_place_before(pdu.pdu(), &self.room.info) {
            return Ok((Received::Dropped(reason.to_owned()), None));
        }
        let (prev, auth) = match self.ancestors(pdu.pdu()).await? {
            Ok(ancestors) => ancestors,
            Err(missing) => return Ok((Received::Need(missing), None)),
        };
        if prev.iter().any(|prev| prev.room != self.room.nid()) {
            return Ok((Received::Dropped(AFTER_ANOTHER_ROOM.to_owned()), None));
        }
        let state_before = self.state_after_all(&prev).await?;
        let incoming = Incoming::from(pdu.clone());
        let partial = prev.iter().any(|prev| prev.state_is_partial);
        let (pdu, verdict) = self.judge_as_of(&incoming, &auth, &state_before, partial).await?;
        let was_rejected = held.as_ref().map(|held| held.is_rejected());
        self.rejects_held |= was_rejected.is_some_and(|was_rejected| was_rejected != verdict.is_rejected());
        let view = self.rooms().view.clone();
        let nid = match &held {
            Some(held) => held.nid,
            None => EventNid(view.nids.allocate(NidKind::Event).await?),
        };
        let sender = view.interner.user(&pdu.sender).await?;
        let state_key = self.state_key_of(&pdu).await?;
        let (room, root) = (self.room.nid(), Some(state_before.root()));
        let event = Event::new(nid, room, sender, state_key, root, record_of(&verdict), None, Arc::new(pdu));
        let event = Arc::new(self.marked(event, verdict.is_rejected()).await?);
        match &held {
            Some(held) if is_as_it_was(held, &event) => return Ok((Received::Known(verdict), None)),
            Some(held) => self.note_corrected(held, &event),
            None => self.batch.require_absent(&EVENT_NIDS, &event.pdu.event_id.to_string()),
        }
        self.keep_state_before(&event.pdu, &state_before).await?;
        if state_key.is_some() {
            self.keep_chain(nid, &links(&auth, room)).await?;
        }
        self.put_outside(&event);
        let shown = verdict.is_accepted().then_some(event);
        Ok((Received::Stored(verdict), shown))
    }

    /// Redactions and what they redact often come together.
    async fn redact_among(&mut self, shown: &mut [Arc<Event>]) -> Result<(), Error> {
        let places: HashMap<_, _> =
            shown.iter().enumerate().map(|(index, event)| (event.pdu.event_id.clone(), index)).collect();
        let mut of_others = Vec::new();
        for by in 0..shown.len() {
            let by = shown[by].clone();
            let Some(target) = redacts(&by.pdu) else { continue };
            match places.get(target).copied() {
                Some(target) => shown[target] = self.redacted(shown[target].clone(), &by).await?,
                None => of_others.push(by),
            }
        }
        let awaited = |pending: &Event| redacts(&pending.pdu).is_some_and(|id| places.contains_key(id));
        if !of_others.is_empty() || self.any_pending(awaited) {
            // Of what is redacted, and of other redactions, the tables tell.
            self.all_durable().await?;
        }
        self.redact_by_history(of_others).await?;
        for event in shown {
            *event = self.redacted_early(event.clone()).await?;
        }
        Ok(())
    }

    /// `shown`: parents before children. The last one comes right before what there is already.
    async fn enter_before(&mut self, shown: &[Arc<Event>], gap: Option<TimelineOrder>) -> Result<(), Error> {
        let (last, room_for) = match gap {
            None => (-i64::try_from(self.room.head.backfilled).unwrap_or(i64::MAX) - 1, usize::MAX),
            Some(gap) => self.last_place_in(gap).await?,
        };
        let shown = &shown[shown.len().saturating_sub(room_for)..];
        if shown.is_empty() {
            return Ok(());
        }
        let mut last_root: Option<NodeHash> = None;
        for (event, distance) in shown.iter().zip((0..shown.len()).rev()) {
            let order = last - i64::try_from(distance).unwrap_or(i64::MAX);
            let placed = Arc::new(event.placed(TimelineOrder(order)));
            let place = (placed.room, TimelineOrder(order));
            self.batch.put(&EVENTS, &placed.nid, &placed.row(Placement::Backfilled(order), Position::ZERO));
            self.batch.put(&TIMELINE, &place, &placed.nid);
            self.relate_before(&placed, TimelineOrder(order)).await?;
            let after = self.state_after(&placed).await?;
            if last_root != Some(after.root()) {
                self.keep_nodes(&after, &[&self.room.current_state.clone()]);
                self.batch.put(&CURRENT_STATES, &place, &CurrentStateRecord { root: after.root().0 });
                last_root = Some(after.root());
            }
            self.add_outside(Landing { event: placed, redacted: None, snapshot: None });
        }
        let from = TimelineOrder(last - i64::try_from(shown.len() - 1).unwrap_or(i64::MAX));
        self.batch.log(&LogEntry::History { room: self.room.nid(), from, to: TimelineOrder(last) });
        match gap {
            None => self.room.head.backfilled += shown.len() as u64,
            Some(_) => self.drop_superseded(shown).await?,
        }
        Ok(())
    }

    /// What is filled in may come after a forward extremity, which then is none any more. Where the current state would
    /// change by that, the extremity stays until an event merges it.
    async fn drop_superseded(&mut self, shown: &[Arc<Event>]) -> Result<(), Error> {
        let (mut kept, mut states) = (Vec::new(), Vec::new());
        for nid in self.room.head.extremities.clone() {
            let event = self.event(nid).await?;
            if !shown.iter().any(|child| child.pdu.prev_events.contains(&event.pdu.event_id)) {
                kept.push(nid);
                states.push(self.state_after(&event).await?);
            }
        }
        let some = !kept.is_empty() && kept.len() < self.room.head.extremities.len();
        if some && self.resolve(&states).await?.root() == self.room.current_state.root() {
            self.room.head.extremities = kept;
        }
        Ok(())
    }

    /// The last free place before the event at `gap`, and how many there are. The place right before it is kept for the
    /// state that clients had there: what is filled in has states of its own.
    async fn last_place_in(&mut self, gap: TimelineOrder) -> Result<(i64, usize), Error> {
        let (room, store) = (self.room.nid(), self.rooms().view().store.clone());
        let floor = gap.live_before();
        let (from, until) = ((room, TimelineOrder(floor.0 + 1)), (room, gap));
        let filled = store.range(&TIMELINE, &from, &until, Direction::Forward, 1).await?;
        let last = match filled.first() {
            Some(((_, lowest), _)) => lowest.0 - 1,
            None => {
                let rows = ((room, TimelineOrder::MIN), until);
                let held = store.range(&CURRENT_STATES, &rows.0, &rows.1, Direction::Reverse, 1).await?;
                if let Some((_, state)) = held.first() {
                    self.batch.put(&CURRENT_STATES, &(room, TimelineOrder(gap.0 - 1)), state);
                }
                gap.0 - 2
            }
        };
        Ok((last, usize::try_from(last - floor.0).unwrap_or(0)))
    }

    async fn relate_before(&mut self, event: &Event, order: TimelineOrder) -> Result<(), Error> {
        let Some(relation) = event.pdu.relates_to() else { return Ok(()) };
        let target = (event.room, relation.event_id.to_string());
        if relation.rel_type == "m.thread"
            && self.rooms().view.store.get(&THREAD_ROOTS, &target).await?.is_none()
        {
            let value = ThreadRootRecord { latest: event.nid };
            self.batch.put(&THREAD_ROOTS, &target, &AtPosition { position: Position::ZERO, value });
        }
        let record = RelationRecord {
            rel_type: relation.rel_type,
            event: event.nid,
            event_type: event.pdu.event_type.to_string(),
            sender: event.sender,
            key: relation.key,
        };
        self.batch.put(&RELATIONS, &(target.0, target.1, order), &record);
        Ok(())
    }
}
