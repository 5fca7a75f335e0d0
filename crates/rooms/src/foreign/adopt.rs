//! Taking over a room that another server let this one into (Server-Server API, "Joining Rooms").
//!
//! The state and what authorises it are held as outliers already. One commit makes the room: its head, its members, and
//! the join as the first event that clients see. A room that this server has been in before gets a new head; what
//! happened in between is a gap in its timeline.

use std::sync::Arc;

use myelin_core::{EventNid, Position, StateKeyNid, TimelineOrder};
use myelin_dag::{StateTree, Verdict, checks::VerifiedPdu};
use myelin_store::{
    Direction, NidKind,
    log::LogEntry,
    tables::{
        CURRENT_STATES, CurrentStateRecord, EVENT_NIDS, KeylessRecord, Membership, PARTIAL_ROOMS,
        PartialRoomRecord, ROOMS, STRIPPED_STATES, USER_ROOMS, VerdictRecord,
    },
};
use myelin_view::{Event, RoomInfo, RoomSnapshot};
use ruma::{OwnedEventId, OwnedServerName, events::TimelineEventType};

use super::{judge::Judged, left_out::LeftOut};
use crate::{
    Error, Rooms,
    writer::{Change, Command, Draft, member_id},
};

/// Events looked at in one go.
const PAGE: usize = 1_000;
/// Users with an invite to or a knock on one room.
const WAITING_MAX: usize = 100_000;

/// A room as its resident server showed it.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// The state before the join, held as outliers.
    pub state: Vec<OwnedEventId>,
    pub join: VerifiedPdu,
    /// `None` if the state is complete.
    pub partial: Option<Partial>,
}

/// What is known of a room of whose state something is still to come.
#[derive(Debug, Clone)]
pub struct Partial {
    pub resident: OwnedServerName,
    pub servers: Vec<OwnedServerName>,
    /// Keys that were not to be had: what they signed is left out.
    pub keyless: Vec<KeylessRecord>,
    pub members_omitted: bool,
    pub left_out: Vec<LeftOut>,
}

impl Partial {
    pub(super) fn record(&self, join: EventNid, since_ms: u64) -> PartialRoomRecord {
        let servers = self.servers.iter().map(ToString::to_string).collect();
        PartialRoomRecord {
            join,
            resident: self.resident.to_string(),
            servers,
            since_ms,
            keyless: self.keyless.clone(),
            members_omitted: self.members_omitted,
            left_out: LeftOut::ids(&self.left_out),
        }
    }
}

/// A state out of outliers.
pub(super) struct HeldState {
    pub tree: StateTree,
    pub members: Vec<(Change, EventNid)>,
    pub create: Option<Arc<Event>>,
}

struct Adopt<'a> {
    info: Arc<RoomInfo>,
    state: HeldState,
    adoption: &'a Adoption,
}

impl Rooms {
    /// The verdict on the join; the room is taken over only if that is [`Verdict::Accepted`].
    pub async fn adopt(&self, info: &RoomInfo, adoption: &Adoption) -> Result<Verdict, Error> {
        let state = self.held_state(&adoption.state).await?;
        let create = state.create.as_ref();
        let create = create.ok_or_else(|| Error::BadState("The state has no create event.".to_owned()))?;
        let version = create.pdu.content_field::<String>("room_version");
        if version.as_deref().unwrap_or("1") != info.version.as_str() {
            return Err(Error::BadState("The create event is of another room version.".to_owned()));
        }
        if let Some(user) = member_id(adoption.join.pdu()) {
            self.target(&user).await?;
        }
        let info = Arc::new(RoomInfo {
            nid: info.nid,
            room_id: info.room_id.clone(),
            version: info.version.clone(),
            rules: info.rules.clone(),
            room_type: create.pdu.content_field("type"),
            create_event: create.nid,
        });
        let new = RoomSnapshot::new(info.clone());
        let nid = info.nid;
        self.run_on(nid, Some(&new), &Adopt { info, state, adoption }).await
    }

    /// Rejected events are no part of a state. Two events for one key are refused.
    pub(super) async fn held_state(&self, ids: &[OwnedEventId]) -> Result<HeldState, Error> {
        let mut nids = Vec::with_capacity(ids.len());
        for page in ids.chunks(PAGE) {
            let held = self.view.interner.lookup_events(page).await?;
            nids.extend(page.iter().filter_map(|id| held.get(id).copied()));
        }
        if nids.len() != ids.len() {
            return Err(Error::BadState("The state is not held as a whole.".to_owned()));
        }
        self.state_out_of(&nids).await
    }

    pub(super) async fn state_out_of(&self, nids: &[EventNid]) -> Result<HeldState, Error> {
        let mut entries: Vec<(StateKeyNid, EventNid)> = Vec::with_capacity(nids.len());
        let mut state = HeldState { tree: StateTree::new(), members: Vec::new(), create: None };
        for page in nids.chunks(PAGE) {
            let events = self.view.events.load_many(page).await?.into_iter().flatten();
            let taken = |event: &Arc<Event>| !event.is_rejected();
            let events: Vec<_> = events.filter(taken).collect();
            for event in &events {
                entries.extend(event.state_key.map(|key| (key, event.nid)));
                if event.pdu.event_type == TimelineEventType::RoomCreate {
                    state.create = Some(event.clone());
                }
            }
            state.members.extend(self.members_of(&events).await?);
        }
        let count = entries.len();
        state.tree = entries.into_iter().collect();
        if state.tree.len() != count {
            return Err(Error::BadState("The state has two events for one key.".to_owned()));
        }
        Ok(state)
    }

    async fn members_of(&self, events: &[Arc<Event>]) -> Result<Vec<(Change, EventNid)>, Error> {
        let members = events
            .iter()
            .filter_map(|event| Some((member_id(&event.pdu)?, event.pdu.membership()?, event.nid)));
        let members: Vec<_> = members.collect();
        let ids: Vec<_> = members.iter().map(|(id, ..)| id.clone()).collect();
        let users = self.view.interner.users(&ids).await?;
        let changes = members.into_iter().zip(users).map(|((user_id, membership, event), user)| {
            let local = self.view.is_local(&user_id);
            (Change { user, user_id, local, membership: Membership::from(&membership) }, event)
        });
        Ok(changes.collect())
    }
}

impl Command for Adopt<'_> {
    type Output = Verdict;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<Verdict, Error> {
        let own = draft.rooms().view().server_name.clone();
        if draft.room.has_server(&own) {
            return Err(Error::BadState("This server is in the room already.".to_owned()));
        }
        draft.room.info = self.info.clone();
        draft.room.partial = self.adoption.partial.is_some();
        draft.room.members_omitted =
            self.adoption.partial.as_ref().is_some_and(|partial| partial.members_omitted);
        let judged = draft.judge_after(&self.adoption.join, &self.state.tree).await?;
        if !judged.verdict.is_accepted() {
            return Ok(judged.verdict);
        }
        let room = draft.room.nid();
        draft.batch.put(&ROOMS, &room, &self.info.record());
        draft.rooms().view().interner.remember_room(self.info.clone());
        let unheard = draft.unheard_leaves(&self.state.members).await?;
        draft.replace_state(&self.state).await?;
        draft.drop_stripped_states().await?;
        let (join, joined_at) = draft.enter_by(judged).await?;
        draft.go_on_from(&unheard, joined_at).await?;
        // The last word is not that of the event: what was just written is read again.
        let position = draft.batch.log(&LogEntry::Completed { room });
        // Of a join before this one, which was left before the room was complete.
        if let Some(before) = draft.rooms().view().store.get(&PARTIAL_ROOMS, &room).await? {
            draft.batch.delete(&PARTIAL_ROOMS, &room);
            draft.leave_out(&before.left_out, &[]);
        }
        if let Some(partial) = &self.adoption.partial {
            let record = partial.record(join, draft.rooms().view().env.now_ms());
            draft.batch.put(&PARTIAL_ROOMS, &room, &record);
            draft.leave_out(&[], &partial.left_out);
            draft.expect_servers(&record, position);
        }
        Ok(Verdict::Accepted)
    }
}

impl Draft<'_> {
    /// Everything that the room was is replaced by this state.
    async fn replace_state(&mut self, state: &HeldState) -> Result<(), Error> {
        let room = self.room.nid();
        // An entry of its own, so that there is a position which has this state before the join.
        let position = self.batch.log(&LogEntry::Completed { room });
        self.set_state(state.tree.clone());
        let root = state.tree.root().0;
        self.batch.put(&CURRENT_STATES, &(room, TimelineOrder::from(position)), &CurrentStateRecord { root });
        self.move_members(&state.members, position).await
    }

    /// The members become these; what stays as it was is not written.
    pub(super) async fn move_members(
        &mut self,
        members: &[(Change, EventNid)],
        position: Position,
    ) -> Result<(), Error> {
        let there: std::collections::HashSet<_> = members.iter().map(|(change, _)| change.user).collect();
        let gone: Vec<_> = self.room.members.keys().filter(|user| !there.contains(user)).copied().collect();
        for user in gone {
            let user_id = self.rooms().view().interner.user_id(user).await?;
            let server = user_id.server_name();
            if self.room.members_omitted {
                // What has become of them is still to come: till then local users keep the invite that they hold.
                self.take_out(user, server, position);
                continue;
            }
            let at = if self.is_local(&user_id) { self.tell(user) } else { position };
            self.drop_member(user, server, at).await?;
        }
        for (change, event) in members {
            if self.room.members.get(&change.user) != Some(&(change.membership, *event)) {
                self.take_member(change.clone(), *event, position).await?;
            }
        }
        Ok(())
    }

    /// A local user hears of it only if it is news.
    async fn take_member(
        &mut self,
        change: Change,
        event: EventNid,
        position: Position,
    ) -> Result<(), Error> {
        if change.local {
            let key = (change.user, self.room.nid());
            let held = self.rooms().view().store.get(&USER_ROOMS, &key).await?;
            if held.is_some_and(|held| held.value.event == event) {
                self.put_member(&change, event, position);
                return Ok(());
            }
        }
        let at = if change.local { self.tell(change.user) } else { position };
        self.set_member(change, event, at).await
    }

    /// A log entry for a local user whose membership came with the state, and its position.
    pub(super) fn tell(&mut self, user: myelin_core::UserNid) -> Position {
        let room = self.room.nid();
        self.batch.log(&LogEntry::Resolved { room, user: Some(user) })
    }

    /// The servers that the resident server named hear what is said here before their users are known.
    pub(super) fn expect_servers(&mut self, record: &PartialRoomRecord, position: Position) {
        for server in record.servers() {
            if !self.room.has_server(server) {
                self.note_joined(server, true, position);
            }
        }
        self.room.expect_servers(record.servers());
        self.room.members_omitted = record.members_omitted;
    }

    /// Invites and knocks that were held from outside are part of the room now.
    async fn drop_stripped_states(&mut self) -> Result<(), Error> {
        let room = self.room.nid();
        let store = self.rooms().view().store.clone();
        for (key, _) in store.scan(&STRIPPED_STATES, &room, Direction::Forward, WAITING_MAX).await? {
            self.batch.delete(&STRIPPED_STATES, &key);
        }
        Ok(())
    }

    /// The join is the only forward extremity; the resident server tells the others of it.
    async fn enter_by(&mut self, judged: Judged) -> Result<(EventNid, Position), Error> {
        let view = self.rooms().view().clone();
        let Judged { pdu, auth, .. } = judged;
        let nid = EventNid(view.nids.allocate(NidKind::Event).await?);
        let sender = view.interner.user(&pdu.sender).await?;
        let state_key = self.state_key_of(&pdu).await?;
        let root = Some(self.room.current_state.root());
        let (room, pdu) = (self.room.nid(), Arc::new(pdu));
        let event = Event::new(nid, room, sender, state_key, root, VerdictRecord::Accepted, None, pdu);
        let event = Arc::new(event.of_partial_state(self.room.partial));
        self.batch.require_absent(&EVENT_NIDS, &event.pdu.event_id.to_string());
        self.room.head.extremities = vec![nid];
        self.room.head.depth = event.pdu.depth;
        self.relay = Some(false);
        let position = self.enter_timeline(&event).await?;
        if self.base_head().is_some() {
            self.note_gap_before(nid, position);
        }
        self.keep_chain(nid, &auth).await?;
        if let Some(key) = state_key {
            self.set_state(self.room.current_state.insert(key, nid));
        }
        let root = self.room.current_state.root().0;
        self.batch.put(&CURRENT_STATES, &(room, TimelineOrder::from(position)), &CurrentStateRecord { root });
        self.set_member_by(&event, position).await?;
        Ok((nid, position))
    }
}
