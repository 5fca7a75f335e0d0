//! Completing a partially joined room: its members have come, and what happened meanwhile is looked at again.
//!
//! The states since the join are worked out anew from the complete one (`replay`), once it
//! is seen to be the one that lacked (`likeness`). Events that they do not allow are
//! rejected and taken out of the timeline.

mod likeness;
mod replay;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use myelin_core::{EventNid, Position, RoomNid, TimelineOrder};
use myelin_dag::StateTree;
use myelin_store::{
    log::LogEntry,
    tables::{
        CURRENT_STATES, CurrentStateRecord, KeylessRecord, LEFT_OUT, Membership, PARTIAL_ROOMS,
        PartialRoomRecord, USER_STREAM, UserChange,
    },
};
use myelin_view::Event;
use ruma::{OwnedEventId, OwnedServerName};

use super::{adopt::HeldState, left_out::LeftOut};
use crate::{
    Error, Rooms,
    writer::{Change, Command, Draft, member_id},
};

const ATTEMPTS_MAX: usize = 20;
/// Partially joined rooms.
const ROOMS_MAX: usize = 10_000;

/// What has come of the state before the join by which this server came into a room.
#[derive(Debug, Clone)]
pub struct Completion {
    pub join: EventNid,
    pub given: Given,
    /// Held as outliers.
    pub state: Vec<OwnedEventId>,
    /// What was signed with these keys is still to come.
    pub keyless: Vec<KeylessRecord>,
    /// This, for want of them.
    pub left_out: Vec<LeftOut>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// The whole state, by this server.
    Whole(OwnedServerName),
    /// Beside what is held: some of what was left out.
    Lacking,
}

struct Complete<'a> {
    state: HeldState,
    completion: &'a Completion,
}

impl Rooms {
    pub async fn partial_rooms(&self) -> Result<Vec<(RoomNid, PartialRoomRecord)>, Error> {
        Ok(self.view.store.read().all(&PARTIAL_ROOMS, ROOMS_MAX).await?)
    }

    /// `false`: this server has left the room meanwhile, and perhaps come back by another join.
    pub async fn complete_room(&self, room: RoomNid, completion: &Completion) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let Some(record) = self.awaiting(room, completion).await? else { return Ok(false) };
            let state = self.complete_state(&record, completion).await?;
            match self.run(room, &Complete { state, completion }).await {
                Err(Error::Busy) => {}
                Err(error) => return Err(error),
                Ok(None) => return Ok(false),
                Ok(Some(rewritten)) => {
                    rewritten.iter().for_each(|event| self.view.events.forget(*event));
                    self.view.rooms.forget(room);
                    return Ok(true);
                }
            }
        }
        Err(Error::Busy)
    }

    async fn awaiting(
        &self,
        room: RoomNid,
        completion: &Completion,
    ) -> Result<Option<PartialRoomRecord>, Error> {
        let record = self.view.store.get(&PARTIAL_ROOMS, &room).await?;
        Ok(record.filter(|record| record.join == completion.join))
    }

    async fn complete_state(
        &self,
        record: &PartialRoomRecord,
        completion: &Completion,
    ) -> Result<HeldState, Error> {
        let given = self.held_state(&completion.state).await?;
        if completion.given != Given::Lacking {
            return Ok(given);
        }
        let held = self.state_before_join(record.join).await?;
        let nids: Vec<EventNid> = held.iter().map(|(_, event)| event).collect();
        let mut state = self.state_out_of(&nids).await?;
        let mut new = HashSet::new();
        for (key, event) in given.tree.iter().filter(|(key, _)| held.get(*key).is_none()) {
            state.tree = state.tree.insert(key, event);
            new.insert(event);
        }
        state.members.extend(given.members.into_iter().filter(|(_, event)| new.contains(event)));
        Ok(state)
    }

    async fn state_before_join(&self, join: EventNid) -> Result<StateTree, Error> {
        let join = self.view.events.load(join).await?;
        let root = join.and_then(|join| join.state_before);
        Ok(self.view.states.load(root.ok_or_else(|| Error::damaged("a join without a state"))?).await?)
    }

    /// Nobody of this server is left in it: the rest is not wanted any more.
    pub async fn abandon_partial_room(&self, room: RoomNid, record: &PartialRoomRecord) -> Result<(), Error> {
        let mut batch = myelin_store::Batch::new();
        // Who has come back meanwhile wants it.
        batch.require_equal(&PARTIAL_ROOMS, &room, record);
        batch.delete(&PARTIAL_ROOMS, &room);
        record.left_out.iter().for_each(|id| batch.delete(&LEFT_OUT, &(id.clone(), room)));
        batch.log(&LogEntry::Completed { room });
        match self.view.store.commit(batch).await {
            Ok(_) => Ok(()),
            Err(myelin_store::CommitError::Conflict { .. }) => Err(Error::Busy),
            Err(myelin_store::CommitError::Store(error)) => Err(error.into()),
        }
    }
}

impl Command for Complete<'_> {
    /// Events whose rows were written again; `None`: the state is not the one that is awaited.
    type Output = Option<Vec<EventNid>>;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<Option<Vec<EventNid>>, Error> {
        draft.all_durable().await?;
        let (room, completion) = (draft.room.nid(), self.completion);
        let Some(record) = draft.rooms().awaiting(room, completion).await? else { return Ok(None) };
        if self.state.create.as_ref().map(|create| create.nid) != Some(draft.room.info.create_event) {
            return Err(Error::BadState("The state is not one of this room.".to_owned()));
        }
        self.require_likeness(draft, &record).await?;
        let join = draft.event(record.join).await?;
        let (shown, whole) = (!record.members_omitted, self.completion.keyless.is_empty());
        let rewritten = draft.replay_since(&join, &self.state.tree, shown, whole).await?;
        let position = draft.rewrite_members(&self.state, &record).await?;
        let root = draft.room.current_state.root().0;
        let from = (room, TimelineOrder::from(position));
        draft.batch.put(&CURRENT_STATES, &from, &CurrentStateRecord { root });
        let mut unheard = draft.unheard_leaves(&self.state.members).await?;
        unheard.retain(|leave| !draft.room.head.extremities.contains(&leave.nid));
        draft.go_on_from(&unheard, position).await?;
        if completion.keyless.is_empty() {
            draft.batch.delete(&PARTIAL_ROOMS, &room);
            draft.leave_out(&record.left_out, &[]);
        } else {
            draft.go_on_waiting(&record, completion, position);
        }
        if record.members_omitted {
            draft.tell_of_completion();
        }
        Ok(Some(rewritten))
    }
}

impl Draft<'_> {
    /// The members are here, but not those whose servers' keys are not.
    fn go_on_waiting(&mut self, record: &PartialRoomRecord, completion: &Completion, position: Position) {
        let Completion { keyless, left_out, .. } = completion;
        let servers: BTreeSet<String> = keyless.iter().map(|key| key.server.clone()).collect();
        self.leave_out(&record.left_out, left_out);
        let record = PartialRoomRecord {
            servers: servers.into_iter().collect(),
            keyless: keyless.clone(),
            members_omitted: false,
            left_out: LeftOut::ids(left_out),
            ..record.clone()
        };
        self.batch.put(&PARTIAL_ROOMS, &self.room.nid(), &record);
        self.expect_servers(&record, position);
    }

    /// Clients that need all members have not been shown the room before.
    fn tell_of_completion(&mut self) {
        let room = self.room.nid();
        for user in self.room.local_joined.clone() {
            let position = self.tell(user);
            self.batch.put(&USER_STREAM, &(user, position), &UserChange::Completed { room });
        }
    }

    async fn rewrite_members(
        &mut self,
        state: &HeldState,
        record: &PartialRoomRecord,
    ) -> Result<Position, Error> {
        let position = self.batch.log(&LogEntry::Completed { room: self.room.nid() });
        let mut members: BTreeMap<_, _> =
            state.members.iter().map(|(change, event)| (change.user, (change.clone(), *event))).collect();
        for (_, before, now) in state.tree.diff(&self.room.current_state.clone()) {
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
