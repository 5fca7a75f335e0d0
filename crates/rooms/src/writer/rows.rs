//! The rows of one event: what it adds to every table, and to the draft's room.

use std::sync::Arc;

use myelin_core::{EventNid, Position, StateKeyNid, TimelineOrder, UserNid};
use myelin_dag::{AuthChain, Pdu, StateTree};
use myelin_store::{
    Batch,
    codec::AtPosition,
    log::LogEntry,
    tables::{
        AUTH_CHAINS, CURRENT_STATES, CurrentStateRecord, EVENT_NIDS, EVENTS, MEMBERS, MemberRecord,
        Membership, Placement, RELATIONS, RelationRecord, SERVER_ROOMS, STATE_NODES, STICKY_EVENTS, SentBy,
        ServerRoomRecord, StickyEventRecord, THREAD_ROOTS, TIMELINE, ThreadRootRecord, USER_ROOMS,
        USER_STREAM, UserChange, UserRoomRecord, VerdictRecord,
    },
};
use myelin_view::{Event, Landing, STICKY_MS_MAX};
use ruma::{OwnedUserId, ServerName, UserId, events::TimelineEventType};

use super::Draft;
use crate::Error;

/// Whose membership an event changes, and to what.
#[derive(Clone, Debug)]
pub struct Change {
    pub user: UserNid,
    pub user_id: OwnedUserId,
    pub local: bool,
    pub membership: Membership,
}

impl Draft<'_> {
    /// Puts an accepted event made here at the end of the timeline, in the place of the extremities, all of which it
    /// refers to.
    pub(crate) async fn place(
        &mut self,
        nid: EventNid,
        sender: UserNid,
        pdu: Pdu,
        auth: &[EventNid],
        sent_by: Option<SentBy>,
    ) -> Result<Arc<Event>, Error> {
        let mut is_told = false;
        for prev in &self.room.head.extremities {
            is_told |= self.event(*prev).await?.is_doubtful();
        }
        let state_before = self.room.current_state.root();
        let state_key = self.state_key_of(&pdu).await?;
        let pdu = Arc::new(pdu);
        let room = self.room.nid();
        let verdict = VerdictRecord::Accepted;
        let event = Event::new(nid, room, sender, state_key, Some(state_before), verdict, sent_by, pdu);
        let event = Arc::new(event.of_partial_state(self.room.partial).of_told_state(is_told));
        self.room.head.extremities = vec![nid];
        self.room.head.depth = self.room.head.depth.max(event.pdu.depth);
        let position = self.enter_timeline(&event).await?;
        if let Some(key) = state_key {
            self.keep_chain(nid, auth).await?;
            self.set_state(self.room.current_state.insert(key, nid));
            let from = (self.room.nid(), TimelineOrder::from(position));
            let root = self.room.current_state.root().0;
            self.batch.put(&CURRENT_STATES, &from, &CurrentStateRecord { root });
            self.set_member_by(&event, position).await?;
        }
        Ok(event)
    }

    pub(crate) async fn state_key_of(&self, pdu: &Pdu) -> Result<Option<StateKeyNid>, Error> {
        let Some(state_key) = &pdu.state_key else { return Ok(None) };
        let interner = &self.rooms.view.interner;
        Ok(Some(interner.state_key(&pdu.event_type.to_string(), state_key).await?))
    }

    /// Log entry, event, timeline, relations.
    pub(crate) async fn enter_timeline(&mut self, event: &Arc<Event>) -> Result<Position, Error> {
        let member = self.member_of(event).await?.map(|change| change.user);
        let (room, sender, state_key) = (event.room, event.sender, event.state_key);
        let relay = self.relay.unwrap_or_else(|| self.is_local(&event.pdu.sender));
        let head = self.next_version();
        // Invariant: the entry of what makes it sticky comes right before that of the event.
        let sticky_until_ms = self.sticky_until(event);
        if let Some(until_ms) = sticky_until_ms {
            self.batch.log(&LogEntry::Sticky { room, event: event.nid, until_ms });
        }
        // The place that the entry will have.
        let position = self.batch.next_entry();
        let targeted = self.notify(event, position).await?;
        let entry =
            LogEntry::Event { room, event: event.nid, sender, state_key, member, head, relay, targeted };
        let position = self.batch.log(&entry);
        if let Some(until_ms) = sticky_until_ms {
            let row = AtPosition { position, value: StickyEventRecord { room } };
            self.batch.put(&STICKY_EVENTS, &(until_ms, event.nid), &row);
        }
        self.batch.put(&EVENTS, &event.nid, &event.row(Placement::Live, position));
        self.batch.put(&EVENT_NIDS, &event.pdu.event_id.to_string(), &event.nid);
        self.batch.put(&TIMELINE, &(room, TimelineOrder::from(position)), &event.nid);
        relate(&mut self.batch, event, position);
        let index = position.placeholder().unwrap_or_default();
        self.landings.push((index, Landing { event: event.clone(), redacted: None, snapshot: None }));
        Ok(position)
    }

    /// When an event that comes now ends to be sticky (MSC4354).
    fn sticky_until(&self, event: &Event) -> Option<u64> {
        let duration_ms = event.pdu.sticky_duration_ms()?.min(STICKY_MS_MAX);
        let now_ms = self.rooms.view.env.now_ms();
        let until_ms = now_ms.min(event.pdu.origin_server_ts.get().into()) + duration_ms;
        Some(until_ms).filter(|until_ms| *until_ms > now_ms && event.redacted_by.is_none())
    }

    /// Keeps the auth chain of a state event.
    pub(crate) async fn keep_chain(&mut self, nid: EventNid, auth: &[EventNid]) -> Result<(), Error> {
        let chains = self.rooms.chains.load_many(auth).await?;
        let chain = AuthChain::of(auth.iter().copied().zip(chains.iter().map(|chain| &**chain)));
        self.batch.put(&AUTH_CHAINS, &nid, &chain.to_bytes());
        self.rooms.chains.insert(nid, Arc::new(chain));
        Ok(())
    }

    /// Replaces the current state and stores the nodes that are new in it.
    pub(crate) fn set_state(&mut self, state: StateTree) {
        self.keep_nodes(&state, &[&self.room.current_state.clone()]);
        self.room.current_state = state;
    }

    /// `bases` are in the store already, or on their way there.
    pub(crate) fn keep_nodes(&mut self, state: &StateTree, bases: &[&StateTree]) {
        for (hash, bytes) in state.new_nodes_beside(bases) {
            self.batch.put(&STATE_NODES, &hash.0, &bytes);
        }
        self.rooms.view.states.insert(state.clone());
    }

    /// Takes over the membership that a member event of the current state gives.
    pub(crate) async fn set_member_by(&mut self, event: &Event, position: Position) -> Result<(), Error> {
        match self.member_of(event).await? {
            Some(change) => self.set_member(change, event.nid, position).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn set_member(
        &mut self,
        change: Change,
        event: EventNid,
        position: Position,
    ) -> Result<(), Error> {
        let Change { user, local, membership, .. } = change;
        let room = self.room.nid();
        if local {
            let was_joined = membership == Membership::Join || self.was_joined(user).await?;
            let record = UserRoomRecord { membership, event, forgotten: false, was_joined };
            self.batch.put(&USER_ROOMS, &(user, room), &AtPosition { position, value: record });
            let change = UserChange::Membership { room, membership, event };
            self.batch.put(&USER_STREAM, &(user, position), &change);
            self.users.push(user);
        }
        if local && membership == Membership::Join {
            self.joined.push(user);
            if !self.room.is_joined(user) {
                self.mark_read(user, String::new(), position);
            }
        }
        self.put_member(&change, event, position);
        Ok(())
    }

    /// The room's side of a membership.
    pub(crate) fn put_member(&mut self, change: &Change, event: EventNid, position: Position) {
        let Change { user, user_id, local, membership } = change;
        let record = MemberRecord { membership: *membership, event };
        self.batch.put(&MEMBERS, &(self.room.nid(), *user), &AtPosition { position, value: record });
        let server = user_id.server_name();
        let there_before = self.room.has_server(server);
        self.room.set_member(*user, server, *local, *membership, event);
        self.note_server(server, there_before, position);
    }

    /// Keeps the table of rooms by server in step.
    fn note_server(&mut self, server: &ServerName, there_before: bool, position: Position) {
        let joined = self.room.has_server(server);
        if joined != there_before {
            self.note_joined(server, joined, position);
        }
    }

    pub(crate) fn note_joined(&mut self, server: &ServerName, joined: bool, position: Position) {
        if *server != *self.rooms.view.server_name {
            let row = AtPosition { position, value: ServerRoomRecord { joined } };
            self.batch.put(&SERVER_ROOMS, &(server.to_string(), self.room.nid()), &row);
        }
    }

    /// The user's member event is gone from the current state. A local user who was there hears that they are not any
    /// more; who had left before goes on having left.
    pub(crate) async fn drop_member(
        &mut self,
        user: UserNid,
        server: &ServerName,
        position: Position,
    ) -> Result<(), Error> {
        let room = self.room.nid();
        let held = self.room.members.get(&user).copied().filter(|_| *server == *self.rooms.view.server_name);
        if let Some((membership, event)) = held
            && !matches!(membership, Membership::Leave | Membership::Ban)
        {
            let (membership, was_joined) = (Membership::Leave, self.was_joined(user).await?);
            let record = UserRoomRecord { membership, event, forgotten: false, was_joined };
            self.batch.put(&USER_ROOMS, &(user, room), &AtPosition { position, value: record });
            let change = UserChange::Membership { room, membership, event };
            self.batch.put(&USER_STREAM, &(user, position), &change);
        }
        self.users.push(user);
        self.take_out(user, server, position);
        Ok(())
    }

    /// The room's side of that.
    pub(crate) fn take_out(&mut self, user: UserNid, server: &ServerName, position: Position) {
        let there_before = self.room.has_server(server);
        self.batch.delete(&MEMBERS, &(self.room.nid(), user));
        self.room.remove_member(user, server);
        self.note_server(server, there_before, position);
    }

    async fn member_of(&self, event: &Event) -> Result<Option<Change>, Error> {
        let Some(user_id) = member_id(&event.pdu) else { return Ok(None) };
        let Some(membership) = event.pdu.membership() else { return Ok(None) };
        let user = self.rooms.view.interner.user(&user_id).await?;
        let local = self.is_local(&user_id);
        Ok(Some(Change { user, user_id, local, membership: (&membership).into() }))
    }

    /// Whether the user has been joined before, counting joins that are not durable yet.
    async fn was_joined(&self, user: UserNid) -> Result<bool, Error> {
        if self.room.is_joined(user) || self.slot.as_ref().is_some_and(|slot| slot.is_joining(user)) {
            return Ok(true);
        }
        // Also of somebody whom state resolution took out without an event.
        let row = self.rooms.view.store.get(&USER_ROOMS, &(user, self.room.nid())).await?;
        Ok(row.is_some_and(|row| row.value.was_joined))
    }
}

/// The user whose membership this state event is about.
pub fn member_id(pdu: &Pdu) -> Option<OwnedUserId> {
    if pdu.event_type != TimelineEventType::RoomMember {
        return None;
    }
    <&UserId>::try_from(pdu.state_key.as_deref()?).ok().map(ToOwned::to_owned)
}

fn relate(batch: &mut Batch, event: &Event, position: Position) {
    let Some(relation) = event.pdu.relates_to() else { return };
    let (room, target) = (event.room, relation.event_id.to_string());
    if relation.rel_type == "m.thread" {
        let value = ThreadRootRecord { latest: event.nid };
        batch.put(&THREAD_ROOTS, &(room, target.clone()), &AtPosition { position, value });
    }
    let record = RelationRecord {
        rel_type: relation.rel_type,
        event: event.nid,
        event_type: event.pdu.event_type.to_string(),
        sender: event.sender,
        key: relation.key,
    };
    batch.put(&RELATIONS, &(room, target, TimelineOrder::from(position)), &record);
}
