//! Completing a partially joined room: its members have come, and what happened meanwhile is looked at again.
//!
//! The states since the join are worked out anew from the complete one (`replay`). Events that they do not allow are
//! rejected and taken out of the timeline.

mod replay;

use std::collections::HashMap;

use myelin_core::{EventNid, Position, RoomNid, TimelineOrder};
use myelin_store::{
    log::LogEntry,
    tables::{CURRENT_STATES, CurrentStateRecord, Membership, PARTIAL_ROOMS, PartialRoomRecord},
};
use myelin_view::Event;
use ruma::{OwnedEventId, OwnedServerName};
use std::sync::Arc;

use super::adopt::HeldState;
use crate::{
    Error, Rooms,
    writer::{Change, Command, Draft, member_id},
};

const ATTEMPTS_MAX: usize = 20;
/// Partially joined rooms.
const ROOMS_MAX: usize = 10_000;

struct Complete<'a> {
    state: HeldState,
    keyless: &'a [OwnedServerName],
}

impl Rooms {
    pub async fn partial_rooms(&self) -> Result<Vec<(RoomNid, PartialRoomRecord)>, Error> {
        Ok(self.view.store.read().all(&PARTIAL_ROOMS, ROOMS_MAX).await?)
    }

    /// `state`: all of the state before the join by which this server came in, held as outliers, but for what was signed
    /// by `keyless` servers: as long as there are such, more is to come.
    pub async fn complete_room(
        &self,
        room: RoomNid,
        state: &[OwnedEventId],
        keyless: &[OwnedServerName],
    ) -> Result<(), Error> {
        for _ in 0..ATTEMPTS_MAX {
            let state = self.held_state(state).await?;
            match self.run(room, &Complete { state, keyless }).await {
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

impl Command for Complete<'_> {
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
        let rewritten = draft.replay_since(&join, &self.state.tree, !record.members_omitted).await?;
        let position = draft.rewrite_members(&self.state, &record).await?;
        let root = draft.room.current_state.root().0;
        let from = (room, TimelineOrder::from(position));
        draft.batch.put(&CURRENT_STATES, &from, &CurrentStateRecord { root });
        let mut unheard = draft.unheard_leaves(&self.state.members).await?;
        unheard.retain(|leave| !draft.room.head.extremities.contains(&leave.nid));
        draft.go_on_from(&unheard, position).await?;
        if self.keyless.is_empty() {
            draft.batch.delete(&PARTIAL_ROOMS, &room);
        } else {
            draft.go_on_waiting(&record, self.keyless, position);
        }
        Ok(rewritten)
    }
}

impl Draft<'_> {
    /// The members are here, but not those whose servers' keys are not.
    fn go_on_waiting(&mut self, record: &PartialRoomRecord, keyless: &[OwnedServerName], position: Position) {
        let servers: Vec<String> = keyless.iter().map(ToString::to_string).collect();
        let record = PartialRoomRecord {
            servers: servers.clone(),
            keyless: servers,
            members_omitted: false,
            ..record.clone()
        };
        self.batch.put(&PARTIAL_ROOMS, &self.room.nid(), &record);
        self.expect_servers(&record, position);
    }

    async fn rewrite_members(
        &mut self,
        state: &HeldState,
        record: &PartialRoomRecord,
    ) -> Result<Position, Error> {
        let position = self.batch.log(&LogEntry::Completed { room: self.room.nid() });
        let mut members: HashMap<_, _> =
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
