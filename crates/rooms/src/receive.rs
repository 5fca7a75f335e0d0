//! PDUs that were made elsewhere, from the checks to the store (Server-Server API, "Checks performed on receipt of a
//! PDU"). Ancestors must be held already; what lacks is named, and the caller brings it.
//!
//! Must not know: networks, or where keys come from.

use std::{collections::HashMap, sync::Arc};

use myelin_core::{EventNid, Position, TimelineOrder};
use myelin_dag::{
    Pdu, StateTree, Verdict, auth_types,
    checks::{RawPdu, VerifiedPdu, missing_auth_events},
};
use myelin_store::{
    NidKind,
    tables::{CURRENT_STATES, CurrentStateRecord, EVENT_NIDS, EVENTS, Placement, VerdictRecord},
};
use myelin_view::{Event, Landing, RoomInfo};
use ruma::{
    OwnedEventId, OwnedUserId, RoomId, UserId, events::TimelineEventType, signatures::PublicKeyMap,
    state_res::events::RoomPowerLevelsIntField,
};
use serde_json::value::RawValue;

use crate::{
    Error, Rooms,
    writer::{Command, Draft},
};

/// What became of a received PDU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Stored now, with this verdict.
    Stored(Verdict),
    /// It was there before.
    Known(Verdict),
    /// Nothing of it is kept.
    Dropped(String),
    /// These events must be received first.
    Need(Vec<OwnedEventId>),
}

struct Receive<'a> {
    rooms: &'a Rooms,
    pdu: VerifiedPdu,
}

impl Rooms {
    /// `keys` are those of the servers that must have signed.
    pub async fn receive(
        &self,
        room_id: &RoomId,
        raw: &RawValue,
        keys: &PublicKeyMap,
    ) -> Result<Received, Error> {
        let room = self.room(room_id).await?;
        let info = &room.info;
        let formed = match RawPdu(raw).check_format(&info.rules) {
            Ok(formed) => formed,
            Err(dropped) => return Ok(Received::Dropped(dropped.to_string())),
        };
        if let Some(held) = self.view.events.load_by_id(formed.event_id()).await? {
            return Ok(Received::Known(verdict_of(&held)));
        }
        let pdu = match formed.verify(keys, &info.rules) {
            Ok(pdu) => pdu,
            Err(dropped) => return Ok(Received::Dropped(dropped.to_string())),
        };
        if let Some(reason) = out_of_place(pdu.pdu(), info) {
            return Ok(Received::Dropped(reason.to_owned()));
        }
        let missing = self.missing_ancestors(pdu.pdu(), info).await?;
        if !missing.is_empty() {
            return Ok(Received::Need(missing));
        }
        if let Some(target) = crate::writer::member_id(pdu.pdu()) {
            self.target(&target).await?;
        }
        self.view.interner.user(&pdu.pdu().sender).await?;
        self.run(info.nid, &Receive { rooms: self, pdu }).await
    }

    async fn missing_ancestors(&self, pdu: &Pdu, info: &RoomInfo) -> Result<Vec<OwnedEventId>, Error> {
        let mut missing = missing_auth_events(pdu, &info.rules, |_| false);
        missing.extend(pdu.prev_events.iter().cloned());
        missing.sort_unstable();
        missing.dedup();
        let mut lacking = Vec::new();
        for id in missing {
            let held = self.view.events.load_by_id(&id).await?;
            // An event that is held without its state cannot carry others.
            let is_prev = pdu.prev_events.contains(&id);
            if held.is_none_or(|held| is_prev && held.state_before.is_none()) {
                lacking.push(id);
            }
        }
        Ok(lacking)
    }
}

impl Command for Receive<'_> {
    type Output = Received;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<Received, Error> {
        let pdu = self.pdu.pdu();
        if let Some(held) = self.rooms.view.events.load_by_id(&pdu.event_id).await? {
            return Ok(Received::Known(verdict_of(&held)));
        }
        let auth = draft.events_by_id(&missing_auth_events(pdu, &draft.room.info.rules, |_| false)).await?;
        let state_before = draft.state_before(pdu).await?;
        let (pdu, verdict) = self.judge(draft, &auth, &state_before).await?;
        let auth: Vec<EventNid> = auth.iter().map(|event| event.nid).collect();
        draft.take(pdu, &verdict, state_before, &auth).await?;
        Ok(Received::Stored(verdict))
    }
}

impl Receive<'_> {
    async fn judge(
        &self,
        draft: &Draft<'_>,
        auth: &[Arc<Event>],
        state_before: &StateTree,
    ) -> Result<(Pdu, Verdict), Error> {
        let rules = &draft.room.info.rules;
        let by_id: HashMap<_, _> = auth.iter().map(|event| (&*event.pdu.event_id, &event.pdu)).collect();
        let authorized = self.pdu.clone().authorize(rules, |id| by_id.get(id).map(|pdu| (*pdu).clone()));
        let authorized = match authorized {
            Ok(authorized) => authorized,
            Err(unauthorized) => {
                let verdict = Verdict::Rejected { reason: unauthorized.rejection.reason };
                return Ok((*unauthorized.pdu, verdict));
            }
        };
        let pdu = authorized.pdu();
        let (kind, key) = (&pdu.event_type, pdu.state_key.as_deref());
        // What has passed so far is well-formed, and so has types.
        let types = auth_types(rules, kind, &pdu.sender, key, &pdu.content).unwrap_or_default();
        let before = draft.auth_set(types.clone(), state_before).await?;
        let current = draft.auth_set(types, &draft.room.current_state).await?;
        Ok(authorized.judge(
            rules,
            |event_type, key| before.state(event_type, key),
            |event_type, key| current.state(event_type, key),
        ))
    }
}

impl Draft<'_> {
    /// Events that are held, durable or not.
    async fn events_by_id(&self, ids: &[OwnedEventId]) -> Result<Vec<Arc<Event>>, Error> {
        let mut events = Vec::with_capacity(ids.len());
        for id in ids {
            let event = self.rooms().view.events.load_by_id(id).await?;
            events.push(event.ok_or_else(|| Error::damaged(format!("event {id} is missing")))?);
        }
        Ok(events)
    }

    /// The state before an event, from the states after its prev events.
    pub(crate) async fn state_before(&self, pdu: &Pdu) -> Result<StateTree, Error> {
        let mut states = Vec::with_capacity(pdu.prev_events.len());
        for prev in self.events_by_id(&pdu.prev_events).await? {
            states.push(self.state_after(&prev).await?);
        }
        self.resolve(&states).await
    }

    async fn state_after(&self, event: &Event) -> Result<StateTree, Error> {
        let root =
            event.state_before.ok_or_else(|| Error::damaged(format!("{:?} has no state", event.nid)))?;
        let before = self.rooms().view.states.load(root).await?;
        let rejected = matches!(event.verdict, VerdictRecord::Rejected { .. });
        Ok(match event.state_key {
            Some(key) if !rejected => before.insert(key, event.nid),
            _ => before,
        })
    }

    /// Stores a judged event where its verdict wants it.
    pub(crate) async fn take(
        &mut self,
        pdu: Pdu,
        verdict: &Verdict,
        state_before: StateTree,
        auth: &[EventNid],
    ) -> Result<(), Error> {
        let view = self.rooms().view.clone();
        let nid = EventNid(view.nids.allocate(NidKind::Event).await?);
        let sender = view.interner.user(&pdu.sender).await?;
        let state_key = self.state_key_of(&pdu).await?;
        let room = self.room.nid();
        let root = Some(state_before.root());
        let event = Event::new(nid, room, sender, state_key, root, record_of(verdict), None, Arc::new(pdu));
        let event = Arc::new(event);
        self.batch.require_absent(&EVENT_NIDS, &event.pdu.event_id.to_string());
        self.keep_nodes(&state_before, &self.room.current_state.clone());
        if state_key.is_some() {
            self.keep_chain(nid, auth).await?;
        }
        if !verdict.is_accepted() {
            self.put_outside(&event);
            return Ok(());
        }
        let position = self.enter_timeline(&event).await?;
        self.extend_by(&event).await?;
        self.move_current_state(&event, position).await?;
        self.redact_by(&event).await
    }

    fn put_outside(&mut self, event: &Arc<Event>) {
        let row = event.row(Placement::Outside, Position::ZERO);
        self.batch.put(&EVENTS, &event.nid, &row);
        self.batch.put(&EVENT_NIDS, &event.pdu.event_id.to_string(), &event.nid);
        self.add_outside(Landing { event: event.clone(), redacted: None, snapshot: None });
    }

    /// The event is a forward extremity now, in the place of those it refers to.
    async fn extend_by(&mut self, event: &Event) -> Result<(), Error> {
        let mut extremities = vec![event.nid];
        for nid in self.room.head.extremities.clone() {
            if !event.pdu.prev_events.contains(&self.event(nid).await?.pdu.event_id) {
                extremities.push(nid);
            }
        }
        self.room.head.extremities = extremities;
        self.room.head.depth = self.room.head.depth.max(event.pdu.depth);
        Ok(())
    }

    /// The current state is the resolution of the states after all extremities.
    async fn move_current_state(&mut self, event: &Event, position: Position) -> Result<(), Error> {
        let mut states = Vec::new();
        for nid in &self.room.head.extremities {
            states.push(self.state_after(&*self.event(*nid).await?).await?);
        }
        let before = self.room.current_state.clone();
        let after = self.resolve(&states).await?;
        let changes = before.diff(&after);
        if changes.is_empty() {
            return Ok(());
        }
        self.set_state(after);
        let from = (event.room, TimelineOrder::from(position));
        let root = self.room.current_state.root().0;
        self.batch.put(&CURRENT_STATES, &from, &CurrentStateRecord { root });
        let keys: Vec<_> = changes.iter().map(|(key, ..)| *key).collect();
        let names = self.rooms().view.interner.state_key_names(&keys).await?;
        for ((_, _, now), name) in changes.iter().zip(names) {
            if name.event_type != "m.room.member" {
                continue;
            }
            match now {
                Some(nid) => self.set_member_by(&*self.event(*nid).await?, position).await?,
                None => self.forget_member(&name.state_key, position).await?,
            }
        }
        Ok(())
    }

    async fn forget_member(&mut self, user_id: &str, position: Position) -> Result<(), Error> {
        let Ok(user_id) = <&UserId>::try_from(user_id) else { return Ok(()) };
        if let Some(user) = self.rooms().view.interner.lookup_user(user_id).await? {
            self.drop_member(user, user_id.server_name(), position);
        }
        Ok(())
    }

    /// Applies a redaction that its room allows (room versions, "Handling redactions").
    async fn redact_by(&mut self, event: &Event) -> Result<(), Error> {
        if event.pdu.event_type != TimelineEventType::RoomRedaction {
            return Ok(());
        }
        let Some(target) = &event.pdu.redacts else { return Ok(()) };
        let target = self.rooms().view.events.load_by_id(target).await?;
        let Some(target) = target.filter(|target| target.room == event.room && target.accepted()) else {
            return Ok(());
        };
        let sender: &OwnedUserId = &event.pdu.sender;
        let own = sender.server_name() == target.pdu.sender.server_name();
        let may = self.power_levels(|levels| levels.may(sender, RoomPowerLevelsIntField::Redact)).await?;
        if own || may {
            self.apply_redaction(target.nid, event.nid).await?;
        }
        Ok(())
    }
}

/// Why a PDU has no place in a room that is there already.
fn out_of_place(pdu: &Pdu, info: &RoomInfo) -> Option<&'static str> {
    if pdu.room_id != info.room_id {
        return Some("the event belongs to another room");
    }
    if pdu.event_type == TimelineEventType::RoomCreate {
        return Some("the room has been created already");
    }
    pdu.prev_events.is_empty().then_some("only the create event comes after none")
}

fn verdict_of(event: &Event) -> Verdict {
    match &event.verdict {
        VerdictRecord::Accepted => Verdict::Accepted,
        VerdictRecord::SoftFailed { reason } => Verdict::SoftFailed { reason: reason.clone() },
        VerdictRecord::Rejected { reason } => Verdict::Rejected { reason: reason.clone() },
    }
}

fn record_of(verdict: &Verdict) -> VerdictRecord {
    match verdict {
        Verdict::Accepted => VerdictRecord::Accepted,
        Verdict::SoftFailed { reason } => VerdictRecord::SoftFailed { reason: reason.clone() },
        Verdict::Rejected { reason } => VerdictRecord::Rejected { reason: reason.clone() },
    }
}
