//! A room as a writer is about to change it: the newest head, and the batch that will replace it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use myelin_core::{EventNid, UserNid};
use myelin_dag::{Names, NewEvent, Parents, Pdu, StateTree, auth_types, authorize, build, needs_names};
use myelin_store::{
    Batch, CommitError,
    codec::AtPosition,
    tables::{EVENTS, EventRecord, Membership, ROOM_HEADS, RoomHead, SentBy},
};
use myelin_view::{Event, Landing, RoomSnapshot};
use ruma::{EventId, ServerName, UserId, events::StateEventType};

use super::{
    commit::Sealed,
    slots::{SlotRef, Turn},
};
use crate::{
    Error, Rooms, Sender,
    authorise::{AuthSet, explain},
    policy::Answered,
    power_levels::PowerLevels,
};

pub struct Draft<'r> {
    pub(super) rooms: &'r Rooms,
    /// `None` for a room that is being created.
    pub(super) slot: Option<SlotRef>,
    pub(super) base: Option<Arc<RoomSnapshot>>,
    /// The room with everything that was appended so far.
    pub room: RoomSnapshot,
    /// 0 at first, counting the times that another writer was faster.
    pub attempt: u32,
    pub batch: Batch,
    /// Whether what is appended is for this server to bring to the others; `None`: if it was made here.
    pub relay: Option<bool>,
    /// With the index of their log entry.
    pub(super) landings: Vec<(u32, Landing)>,
    pub(super) outside: Vec<Landing>,
    pub(super) users: Vec<UserNid>,
    pub(super) joined: Vec<UserNid>,
    /// What its policy server has said of what was wished for the room.
    pub(crate) policy_answers: Vec<Answered>,
    /// Whether an event that counted is rejected now, or the other way round.
    pub(crate) rejects_held: bool,
    /// Those that are rejected by their row alone.
    pub(crate) rejected: HashSet<EventNid>,
    /// Events that were judged by a told state, as they are now that the truth is known.
    pub(crate) corrected: Vec<Arc<Event>>,
}

impl<'r> Draft<'r> {
    pub(super) async fn of(
        rooms: &'r Rooms,
        turn: &Turn,
        room: myelin_core::RoomNid,
        attempt: u32,
        new: Option<&RoomSnapshot>,
    ) -> Result<Self, Error> {
        let base = match turn.slot().head() {
            Some(head) => Some(head),
            None => rooms.view.rooms.load(room).await?,
        };
        let start = base.as_deref().or(new);
        let start = start.ok_or_else(|| Error::damaged(format!("{room:?} has no head")))?;
        let mut draft = Self::new(rooms, start.clone());
        draft.slot = Some(turn.slot().clone());
        draft.base = base;
        draft.attempt = attempt;
        Ok(draft)
    }

    /// A room of which nothing is stored.
    pub fn new(rooms: &'r Rooms, room: RoomSnapshot) -> Self {
        Self {
            rooms,
            slot: None,
            base: None,
            room,
            attempt: 0,
            batch: Batch::new(),
            relay: None,
            landings: Vec::new(),
            outside: Vec::new(),
            users: Vec::new(),
            joined: Vec::new(),
            policy_answers: Vec::new(),
            rejects_held: false,
            rejected: HashSet::new(),
            corrected: Vec::new(),
        }
    }

    /// Starts with what another, new room's draft has become: both commit together.
    pub fn carry(&mut self, sealed: Sealed) {
        debug_assert!(self.is_empty(), "the entries of the carried batch come first");
        self.batch = sealed.batch;
        self.landings = sealed.landings;
        self.users = sealed.users;
    }

    /// Completes when all that the head was built on is durable; nobody else writes the room meanwhile.
    pub(crate) async fn all_durable(&self) -> Result<(), Error> {
        if !self.slot.as_ref().is_some_and(|slot| slot.is_in_flight()) {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.require_unchanged(&ROOM_HEADS, &self.room.nid(), self.base_head());
        match self.rooms.view.store.commit(batch).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { .. }) => Err(Error::Busy),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.landings.is_empty() && self.outside.is_empty() && self.batch.is_empty()
    }

    /// The version of the head that this draft becomes.
    pub(super) fn next_version(&self) -> u64 {
        self.base_head().map_or(1, |head| head.version + 1)
    }

    pub(crate) fn base_head(&self) -> Option<&RoomHead> {
        self.base.as_ref().map(|base| &base.head)
    }

    /// An event of this room, durable or not.
    pub async fn event(&self, nid: EventNid) -> Result<Arc<Event>, Error> {
        if let Some(event) = self.pending(nid) {
            return Ok(event);
        }
        let event = self.rooms.view.events.load(nid).await?;
        event.ok_or_else(|| Error::damaged(format!("{nid:?} is missing")))
    }

    /// An event that the store does not have yet, or not like this.
    pub fn pending(&self, nid: EventNid) -> Option<Arc<Event>> {
        // The last one is the parent of the next, the first ones authorise it: long drafts are not searched through.
        let drafted = self.landings.last().into_iter().chain(&self.landings).map(|(_, landing)| landing);
        let mut drafted = drafted.chain(&self.outside).map(|landing| &landing.event);
        let drafted = drafted.find(|event| event.nid == nid).cloned();
        drafted.or_else(|| self.slot.as_ref()?.event(nid))
    }

    /// Whether an event that counted is rejected here or in what this goes on from, or the other way round, and the
    /// store does not know yet.
    pub(crate) fn is_rejudging(&self) -> bool {
        self.rejects_held || self.slot.as_ref().is_some_and(|slot| slot.is_rejudging())
    }

    /// The row of an event that is durable.
    pub async fn stored(&self, nid: EventNid) -> Result<Option<AtPosition<EventRecord>>, Error> {
        Ok(self.rooms.view.store.get(&EVENTS, &nid).await?)
    }

    /// An event that the store does not have yet.
    pub fn pending_by_id(&self, id: &EventId) -> Option<Arc<Event>> {
        // What others refer to mostly came last.
        let drafted = self.landings.iter().rev().map(|(_, landing)| landing).chain(&self.outside);
        let drafted = drafted.map(|landing| &landing.event).find(|event| event.pdu.event_id == id);
        drafted.cloned().or_else(|| self.slot.as_ref()?.event_by_id(id))
    }

    /// Whether there is such an event among those that the store does not have yet.
    pub fn any_pending(&self, is_such: impl Fn(&Event) -> bool) -> bool {
        let mut drafted = self.landings.iter().map(|(_, landing)| landing).chain(&self.outside);
        drafted.any(|landing| is_such(&landing.event))
            || self.slot.as_ref().is_some_and(|slot| slot.any_pending(is_such))
    }

    /// An event that is held, durable or not.
    pub async fn find(&self, id: &EventId) -> Result<Option<Arc<Event>>, Error> {
        match self.pending_by_id(id) {
            Some(event) => Ok(Some(event)),
            None => Ok(self.rooms.view.events.load_by_id(id).await?),
        }
    }

    pub async fn state_event(&self, event_type: &str, state_key: &str) -> Result<Option<Arc<Event>>, Error> {
        self.state_event_in(&self.room.current_state, event_type, state_key).await
    }

    pub async fn state_event_in(
        &self,
        state: &StateTree,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, Error> {
        let key = self.rooms.view.interner.lookup_state_key(event_type, state_key).await?;
        match key.and_then(|key| state.get(key)) {
            Some(nid) => self.event(nid).await.map(Some),
            None => Ok(None),
        }
    }

    pub async fn create_event(&self) -> Result<Arc<Event>, Error> {
        self.event(self.room.info.create_event).await
    }

    pub fn membership(&self, user: UserNid) -> Option<Membership> {
        self.room.membership(user)
    }

    /// The member event of a user.
    pub async fn member_event(&self, user: UserNid) -> Result<Option<Arc<Event>>, Error> {
        match self.room.members.get(&user) {
            Some((_, nid)) => self.event(*nid).await.map(Some),
            None => Ok(None),
        }
    }

    /// Looks at the room's power levels.
    pub async fn power_levels<T>(&self, look: impl FnOnce(&PowerLevels<'_>) -> T) -> Result<T, Error> {
        let create = self.create_event().await?;
        let levels = self.state_event("m.room.power_levels", "").await?;
        let levels = levels.as_ref().map(|event| &*event.pdu);
        Ok(look(&PowerLevels::new(&self.room.info.rules.authorization, &create.pdu, levels)))
    }

    /// Makes an event here, at the end of the room, if the rules allow it.
    pub async fn append(&mut self, sender: &Sender, event: NewEvent) -> Result<Arc<Event>, Error> {
        self.append_sent(sender, event, None).await
    }

    /// As [`Draft::append`], remembering the transaction by which it was sent.
    pub async fn append_sent(
        &mut self,
        sender: &Sender,
        event: NewEvent,
        sent_by: Option<SentBy>,
    ) -> Result<Arc<Event>, Error> {
        self.append_by(sender.user, event, sent_by).await
    }

    /// An event that would go to the end of the room, allowed there; it is not appended.
    pub(crate) async fn make(&self, event: NewEvent) -> Result<(Pdu, AuthSet), Error> {
        let info = &self.room.info;
        let named = self.named_extremities(&event).await?;
        let auth = self.auth_of(&event, &self.state_after_named(&named).await?).await?;
        let parents = Parents {
            room_id: Some(info.room_id.clone()),
            prev_events: named.iter().map(|prev| prev.pdu.event_id.clone()).collect(),
            auth_events: auth.auth_events(),
            depth: self.next_depth(),
            names: self.names(&auth, &named, event.sender.server_name())?,
        };
        let pdu = build(&info.rules, event, parents, self.rooms.view.env.now_ms(), &self.rooms.key)?;
        let allowed =
            authorize(&info.rules, &pdu, |id| auth.event(id), |kind, key: &str| auth.state(kind, key));
        match allowed {
            Ok(()) => Ok((pdu, auth)),
            Err(rejection) => Err(explain(info, &auth, &pdu, &rejection)),
        }
    }

    /// What versions 1 and 2 want in an event: a name of its own, and the hashes of those that it refers to.
    fn names(
        &self,
        auth: &AuthSet,
        prev: &[Arc<Event>],
        server: &ServerName,
    ) -> Result<Option<Names>, Error> {
        let rules = &self.room.info.rules;
        if !needs_names(rules) {
            return Ok(None);
        }
        let referred = auth.events().chain(prev);
        let reference_hashes: BTreeMap<_, _> = referred.map(|event| event.pdu.reference(rules)).collect();
        Ok(Some(Names { event_id: self.rooms.random_event_id(server)?, reference_hashes }))
    }

    pub(crate) async fn auth_of(&self, event: &NewEvent, state: &StateTree) -> Result<AuthSet, Error> {
        let (kind, key) = (&event.event_type, event.state_key.as_deref());
        let types = auth_types(&self.room.info.rules, kind, &event.sender, key, &event.content);
        self.auth_set(types.map_err(|rejection| Error::BadJson(rejection.reason))?, state).await
    }

    /// The entries of a state for these types, and the create event.
    pub(crate) async fn auth_set(
        &self,
        mut types: Vec<(StateEventType, String)>,
        state: &StateTree,
    ) -> Result<AuthSet, Error> {
        let info = &self.room.info;
        if info.rules.authorization.room_create_event_id_as_room_id {
            types.push((StateEventType::RoomCreate, String::new()));
        }
        let mut entries = Vec::with_capacity(types.len());
        for (event_type, state_key) in types {
            let found = self.state_event_in(state, &event_type.to_string(), &state_key).await?;
            entries.extend(found.map(|event| (event_type, state_key, event)));
        }
        Ok(AuthSet::new(info, entries))
    }

    fn next_depth(&self) -> u64 {
        let limit = myelin_core::limits::JSON_INTEGER_MAX.unsigned_abs();
        self.room.head.depth.saturating_add(1).min(limit)
    }

    /// Notes that the event appended last redacted another one; or that one of older history did, if none was appended.
    pub fn land_redacted(&mut self, redacted: Event) {
        let redacted = Arc::new(redacted);
        match self.landings.last_mut() {
            Some((_, landing)) => landing.redacted = Some(redacted),
            None => self.outside.push(Landing { event: redacted, redacted: None, snapshot: None }),
        }
    }

    /// Whether the event appended last has done that already.
    pub fn has_just_redacted(&self, target: EventNid) -> bool {
        let redacted = self.landings.last().and_then(|(_, landing)| landing.redacted.as_ref());
        redacted.is_some_and(|redacted| redacted.nid == target)
    }

    /// The batch that replaces the head which the draft began with.
    pub fn seal(mut self) -> Sealed {
        self.room.head.version = self.next_version();
        self.room.head.current_state = self.room.current_state.root().0;
        let nid = self.room.nid();
        self.batch.require_unchanged(&ROOM_HEADS, &nid, self.base.as_ref().map(|base| &base.head));
        self.batch.put(&ROOM_HEADS, &nid, &self.room.head);
        let head = Arc::new(self.room);
        let last = self.landings.last_mut().map(|(_, landing)| landing).or(self.outside.last_mut());
        if let Some(last) = last {
            last.snapshot = Some(head.clone());
        }
        Sealed {
            batch: self.batch,
            landings: self.landings,
            outside: self.outside,
            users: self.users,
            head,
            joined: self.joined,
            rejects_held: self.rejects_held,
        }
    }

    /// An event that is stored, but not shown.
    pub fn add_outside(&mut self, landing: Landing) {
        self.outside.push(landing);
    }

    pub fn rooms(&self) -> &'r Rooms {
        self.rooms
    }

    pub fn is_local(&self, user: &UserId) -> bool {
        self.rooms.view.is_local(user)
    }
}
