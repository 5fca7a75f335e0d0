//! Completing a partially joined room: its members have come, and what happened meanwhile is looked at again.
//!
//! A state that was held meanwhile differs from the partial state by what happened since; the same difference laid over
//! the complete state is what it should have been. Events that this state does not allow are rejected and taken out of
//! the timeline.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_core::{EventNid, Position, RoomNid, TimelineOrder};
use myelin_dag::{StateTree, Verdict, auth::authorize_by_state, auth_types, state_tree::NodeHash};
use myelin_store::{
    Direction,
    log::LogEntry,
    tables::{
        CURRENT_STATES, CurrentStateRecord, EVENTS, Membership, PARTIAL_ROOMS, PartialRoomRecord, Placement,
        TIMELINE, VerdictRecord,
    },
};
use myelin_view::Event;
use ruma::OwnedEventId;

use super::adopt::HeldState;
use crate::{
    Error, Rooms,
    writer::{Change, Command, Draft, member_id},
};

const ATTEMPTS_MAX: usize = 20;
/// Partially joined rooms, and events since one was joined.
const ROOMS_MAX: usize = 10_000;
const EVENTS_MAX: usize = 1_000_000;

struct Complete {
    state: HeldState,
}

/// Lays what happened since over the complete state.
struct Overlay<'a> {
    partial: &'a StateTree,
    complete: &'a StateTree,
    rejected: HashSet<EventNid>,
    done: HashMap<NodeHash, StateTree>,
}

impl Rooms {
    pub async fn partial_rooms(&self) -> Result<Vec<(RoomNid, PartialRoomRecord)>, Error> {
        Ok(self.view.store.read().all(&PARTIAL_ROOMS, ROOMS_MAX).await?)
    }

    /// `state`: all of the state before the join by which this server came in, held as outliers.
    pub async fn complete_room(&self, room: RoomNid, state: &[OwnedEventId]) -> Result<(), Error> {
        for _ in 0..ATTEMPTS_MAX {
            let state = self.held_state(state).await?;
            match self.run(room, &Complete { state }).await {
                Err(Error::Busy) => {}
                Err(error) => return Err(error),
                Ok(rewritten) => {
                    rewritten.iter().for_each(|event| self.view.events.forget(*event));
                    self.view.rooms.forget(room);
                    return Ok(());
                }
            }
        }
        Err(Error::Busy)
    }

    /// Nobody of this server is left in it: the rest is not wanted any more.
    pub async fn abandon_partial_room(&self, room: RoomNid) -> Result<(), Error> {
        let mut batch = myelin_store::Batch::new();
        batch.delete(&PARTIAL_ROOMS, &room);
        batch.log(&LogEntry::Completed { room });
        match self.view.store.commit(batch).await {
            Ok(_) => Ok(()),
            Err(myelin_store::CommitError::Conflict { .. }) => Err(Error::Busy),
            Err(myelin_store::CommitError::Store(error)) => Err(error.into()),
        }
    }
}

impl Command for Complete {
    /// Events whose rows were written again.
    type Output = Vec<EventNid>;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<Vec<EventNid>, Error> {
        draft.all_durable().await?;
        let (room, store) = (draft.room.nid(), draft.rooms().view().store.clone());
        let Some(record) = store.get(&PARTIAL_ROOMS, &room).await? else { return Ok(Vec::new()) };
        if self.state.create.as_ref().map(|create| create.nid) != Some(draft.room.info.create_event) {
            return Err(Error::BadState("The state is not one of this room.".to_owned()));
        }
        let join = draft.event(record.join).await?;
        let partial = join.state_before.ok_or_else(|| Error::damaged("a join without a state"))?;
        let partial = draft.rooms().view().states.load(partial).await?;
        let complete = &self.state.tree;
        draft.keep_nodes(complete, &partial);
        let mut overlay =
            Overlay { partial: &partial, complete, rejected: HashSet::new(), done: HashMap::new() };
        let order = join.order.ok_or_else(|| Error::damaged("a join outside the timeline"))?;
        let rewritten = draft.rewrite_events(order, &mut overlay).await?;
        let unheard = draft.unheard_leaves(&self.state.members).await?;
        draft.rewrite_states(order, &mut overlay).await?;
        let position = draft.rewrite_members(&self.state, &record, &mut overlay).await?;
        draft.go_on_from(&unheard, position).await?;
        draft.batch.delete(&PARTIAL_ROOMS, &room);
        Ok(rewritten)
    }
}

impl Overlay<'_> {
    fn over(&mut self, state: &StateTree) -> StateTree {
        if let Some(done) = self.done.get(&state.root()) {
            return done.clone();
        }
        let mut whole = self.complete.clone();
        for (key, _, now) in self.partial.diff(state) {
            whole = match now.filter(|event| !self.rejected.contains(event)) {
                Some(event) => whole.insert(key, event),
                None if now.is_some() => whole,
                None => whole.remove(key),
            };
        }
        self.done.insert(state.root(), whole.clone());
        whole
    }

    fn reject(&mut self, event: EventNid) {
        self.rejected.insert(event);
        self.done.clear();
    }
}

impl Draft<'_> {
    async fn rewrite_events(
        &mut self,
        since: TimelineOrder,
        overlay: &mut Overlay<'_>,
    ) -> Result<Vec<EventNid>, Error> {
        let (room, view) = (self.room.nid(), self.rooms().view().clone());
        let range = ((room, since), (room, TimelineOrder::MAX));
        let rows = view.store.range(&TIMELINE, &range.0, &range.1, Direction::Forward, EVENTS_MAX).await?;
        let mut rewritten = Vec::with_capacity(rows.len());
        for (key, nid) in rows {
            let event = self.event(nid).await?;
            let Some(root) = event.state_before else { continue };
            let state = overlay.over(&view.states.load(root).await?);
            let verdict = self.judge_again(&event, &state).await?;
            let Some(mut row) = self.stored(nid).await? else { continue };
            row.value.state_before = Some(state.root().0);
            if let Verdict::Rejected { reason } = verdict {
                tracing::info!(event = %event.pdu.event_id, reason, "the complete room does not allow an event");
                row.value.verdict = VerdictRecord::Rejected { reason };
                row.value.placement = Placement::Outside;
                self.batch.delete(&TIMELINE, &key);
                overlay.reject(nid);
            }
            self.batch.put(&EVENTS, &nid, &row);
            self.keep_nodes(&state, overlay.complete);
            rewritten.push(nid);
        }
        Ok(rewritten)
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

    /// The states that clients had since just before the join, and the current one.
    async fn rewrite_states(&mut self, join: TimelineOrder, overlay: &mut Overlay<'_>) -> Result<(), Error> {
        let (room, view) = (self.room.nid(), self.rooms().view().clone());
        let before = TimelineOrder(join.0.saturating_sub(1));
        let range = ((room, before), (room, TimelineOrder::MAX));
        let rows =
            view.store.range(&CURRENT_STATES, &range.0, &range.1, Direction::Forward, EVENTS_MAX).await?;
        for (key, row) in rows {
            let state = overlay.over(&view.states.load(NodeHash(row.root)).await?);
            self.keep_nodes(&state, overlay.complete);
            self.batch.put(&CURRENT_STATES, &key, &CurrentStateRecord { root: state.root().0 });
        }
        let current = overlay.over(&self.room.current_state.clone());
        self.keep_nodes(&current, overlay.complete);
        self.room.current_state = current;
        self.room.head.extremities.retain(|event| !overlay.rejected.contains(event));
        if self.room.head.extremities.is_empty() {
            return Err(Error::damaged("nothing of a room is left"));
        }
        Ok(())
    }

    async fn rewrite_members(
        &mut self,
        state: &HeldState,
        record: &PartialRoomRecord,
        overlay: &mut Overlay<'_>,
    ) -> Result<Position, Error> {
        let position = self.batch.log(&LogEntry::Completed { room: self.room.nid() });
        let mut members: HashMap<_, _> =
            state.members.iter().map(|(change, event)| (change.user, (change.clone(), *event))).collect();
        for (_, before, now) in overlay.complete.diff(&self.room.current_state.clone()) {
            if let Some(event) = before {
                let gone = self.event(event).await?;
                if let Some(user) = member_id(&gone.pdu) {
                    members.remove(&self.rooms().view().interner.user(&user).await?);
                }
            }
            if let Some(nid) = now
                && let Some((user, change)) = self.change_by(&self.event(nid).await?).await?
            {
                members.insert(user, (change, nid));
            }
        }
        self.room.no_longer_expect(record.servers());
        let members: Vec<_> = members.into_values().collect();
        self.move_members(&members, position).await?;
        self.note_absent(record, position);
        Ok(position)
    }

    async fn change_by(&self, event: &Arc<Event>) -> Result<Option<(myelin_core::UserNid, Change)>, Error> {
        let (Some(user_id), Some(membership)) = (member_id(&event.pdu), event.pdu.membership()) else {
            return Ok(None);
        };
        let user = self.rooms().view().interner.user(&user_id).await?;
        let local = self.is_local(&user_id);
        Ok(Some((user, Change { user, user_id, local, membership: Membership::from(&membership) })))
    }

    /// Servers that were named, but have nobody in the room.
    fn note_absent(&mut self, record: &PartialRoomRecord, position: Position) {
        let absent: Vec<_> = record.servers().filter(|server| !self.room.has_server(server)).collect();
        absent.into_iter().for_each(|server| self.note_joined(server, false, position));
    }
}
