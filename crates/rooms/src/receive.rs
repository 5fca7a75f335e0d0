//! PDUs that were made elsewhere, from the checks to the store (Server-Server API, "Checks performed on receipt of a
//! PDU"). Ancestors must be held already; what lacks is named, and the caller brings it.
//!
//! Must not know: networks, or where keys come from.

mod extremities;
mod history;
mod judge;
pub mod late;
mod place;
mod redactions;
mod take;
mod truth;
mod watch;

use std::sync::Arc;

use myelin_core::{EventNid, RoomNid};
use myelin_dag::{
    Pdu, Verdict,
    checks::{RawPdu, VerifiedPdu, missing_auth_events},
};
use myelin_store::tables::VerdictRecord;
use myelin_view::{Event, RoomInfo};
use ruma::{OwnedEventId, RoomId, events::TimelineEventType, signatures::PublicKeyMap};
use serde_json::value::RawValue;

pub use self::{extremities::EXTREMITIES_MAX, place::Placing};
use crate::{
    Error, Rooms,
    writer::{Command, Draft, member_id},
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

/// A PDU whose signatures are checked.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub pdu: VerifiedPdu,
    /// Why the room's policy server did not sign it (the last check).
    pub refusal: Option<String>,
}

impl From<VerifiedPdu> for Incoming {
    fn from(pdu: VerifiedPdu) -> Self {
        Self { pdu, refusal: None }
    }
}

struct Receive<'a> {
    pdus: &'a [Incoming],
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
        if let Some(held) = self.view.events.load_by_id(formed.event_id()).await?
            && held.room == info.nid
            && in_place(&held)
            && !is_provisional(&held)
        {
            return Ok(Received::Known(verdict_of(&held)));
        }
        let pdu = match formed.verify(keys, &info.rules) {
            Ok(pdu) => pdu,
            Err(dropped) => return Ok(Received::Dropped(dropped.to_string())),
        };
        let answer = self.receive_all(info.nid, &[pdu.into()]).await?.pop();
        answer.ok_or_else(|| Error::damaged("a PDU got no answer"))
    }

    /// Takes PDUs of one room, parents before children, as few changes of the room. One answer each, in order.
    pub async fn receive_all(&self, room: RoomNid, pdus: &[Incoming]) -> Result<Vec<Received>, Error> {
        // Numbers are given out before the room is locked, as a new one costs a commit.
        for incoming in pdus {
            self.intern(incoming.pdu.pdu()).await?;
        }
        let mut answers = Vec::with_capacity(pdus.len());
        while answers.len() < pdus.len() {
            answers.extend(self.run(room, &Receive { pdus: &pdus[answers.len()..] }).await?);
        }
        Ok(answers)
    }
}

impl Rooms {
    async fn intern(&self, pdu: &Pdu) -> Result<(), Error> {
        self.view.interner.user(&pdu.sender).await?;
        if let Some(target) = member_id(pdu) {
            self.view.interner.user(&target).await?;
        }
        if let Some(state_key) = &pdu.state_key {
            self.view.interner.state_key(&pdu.event_type.to_string(), state_key).await?;
        }
        Ok(())
    }
}

impl Command for Receive<'_> {
    /// At least one, unless the first one waits for what is not durable yet; then that is what this waits for.
    type Output = Vec<Received>;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<Vec<Received>, Error> {
        // Of the state of a partially joined room members lack; where they do, the auth events tell.
        let partial = draft.room.partial;
        let mut answers = Vec::with_capacity(self.pdus.len());
        for incoming in self.pdus {
            if draft.waits_for_redaction(incoming.pdu.pdu()) {
                break;
            }
            let Some(answer) = draft.receive(incoming, partial).await? else { break };
            answers.push(answer);
            if !draft.corrected.is_empty() {
                draft.follow_the_truth().await?;
                break;
            }
        }
        Ok(answers)
    }
}

impl Draft<'_> {
    /// `None`: it is judged again, which takes a draft of its own.
    async fn receive(&mut self, incoming: &Incoming, partial: bool) -> Result<Option<Received>, Error> {
        let held = self.find(&incoming.pdu.pdu().event_id).await?;
        if held.as_deref().is_some_and(is_provisional) && !self.is_empty() {
            return Ok(None);
        }
        self.receive_anew(incoming, held, partial).await.map(Some)
    }

    async fn receive_anew(
        &mut self,
        incoming: &Incoming,
        held: Option<Arc<Event>>,
        partial: bool,
    ) -> Result<Received, Error> {
        let pdu = incoming.pdu.pdu();
        if held.as_ref().is_some_and(|held| held.room != self.room.nid()) {
            return Ok(Received::Dropped(NAME_IS_TAKEN.to_owned()));
        }
        if let Some(held) = held.as_ref().filter(|held| in_place(held) && !is_provisional(held)) {
            return self.known(held).await;
        }
        if let Some(reason) = out_of_place(pdu, &self.room.info) {
            return Ok(Received::Dropped(reason.to_owned()));
        }
        let (prev, auth) = match self.ancestors(pdu).await? {
            Ok(ancestors) => ancestors,
            Err(missing) => {
                return match &held {
                    Some(held) if is_provisional(held) => self.known(held).await,
                    _ => Ok(Received::Need(missing)),
                };
            }
        };
        if prev.iter().any(|prev| prev.room != self.room.nid()) {
            return Ok(Received::Dropped(AFTER_ANOTHER_ROOM.to_owned()));
        }
        let state_before = self.state_after_all(&prev).await?;
        let told = held.as_ref().filter(|held| is_provisional(held));
        if let Some(held) = told
            && held.accepted()
            && held.state_before == Some(state_before.root())
        {
            return self.known(held).await;
        }
        let (pdu, verdict) = self.judge(incoming, &auth, &state_before, partial).await?;
        let auth = links(&auth, self.room.nid());
        match told {
            Some(told) => self.take_again(told, pdu, &verdict, state_before, &auth).await?,
            None => drop(self.take_as(held.as_deref(), pdu, &verdict, state_before, &auth, None).await?),
        }
        Ok(Received::Stored(verdict))
    }

    /// The prev events with their states and the auth events, or the ids of those that lack.
    async fn ancestors(&self, pdu: &Pdu) -> Result<Result<Ancestors, Vec<OwnedEventId>>, Error> {
        let (mut prev, mut auth, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for id in &pdu.prev_events {
            match self.find(id).await? {
                Some(event) if event.carries(self.room.partial) => prev.push(event),
                _ => missing.push(id.clone()),
            }
        }
        for id in missing_auth_events(pdu, &self.room.info.rules, |_| false) {
            match self.find(&id).await? {
                Some(event) if !pdu.is_state() || !self.is_bare(&event).await? => auth.push(event),
                _ => missing.push(id),
            }
        }
        missing.sort_unstable();
        missing.dedup();
        Ok(if missing.is_empty() { Ok((prev, auth)) } else { Err(missing) })
    }

    /// Whether a state event of this room is held for itself alone (an invite from outside), without an auth chain.
    async fn is_bare(&self, event: &Event) -> Result<bool, Error> {
        if event.state_before.is_some() || !event.pdu.is_state() || event.room != self.room.nid() {
            return Ok(false);
        }
        let chain = self.rooms().chains.lookup_many(&[event.nid]).await?;
        Ok(chain.iter().all(Option::is_none))
    }
}

/// The numbers of those that a state event's auth chain goes on by. What is rejected may name messages, or events of
/// another room, as its auth events.
fn links(auth: &[Arc<Event>], room: RoomNid) -> Vec<EventNid> {
    let links = auth.iter().filter(|event| event.room == room && event.pdu.is_state());
    links.map(|event| event.nid).collect()
}

/// The state after an event of another room is none of this room's.
const AFTER_ANOTHER_ROOM: &str = "the event comes after one of another room";
/// In versions 1 and 2 servers choose the names of their events.
const NAME_IS_TAKEN: &str = "an event of another room has this event id";

type Ancestors = (Vec<Arc<Event>>, Vec<Arc<Event>>);

/// Whether nothing is to be done when the event comes (again). An accepted event that is held without the state
/// before it is an outlier, and can still get its place.
fn in_place(event: &Event) -> bool {
    event.state_before.is_some() || !event.accepted()
}

/// Whether it is to be judged again, as a state that another server told was all that there was.
fn is_provisional(event: &Event) -> bool {
    event.told && event.redacted_by.is_none()
}

/// Whether it is the far end of a gap: it counts, but clients have not been shown it.
fn is_unseen(event: &Event) -> bool {
    let outside = event.state_before.is_some() && event.order.is_none();
    event.accepted() && outside && !crate::retention::is_purged(event)
}

/// Why a PDU has no place in a room that is there already.
fn out_of_place(pdu: &Pdu, info: &RoomInfo) -> Option<&'static str> {
    if pdu.room_id == info.room_id && pdu.event_type == TimelineEventType::RoomCreate {
        return Some("the room has been created already");
    }
    out_of_place_before(pdu, info)
}

/// Why a PDU has no place in the history of a room: its create event may be in it.
fn out_of_place_before(pdu: &Pdu, info: &RoomInfo) -> Option<&'static str> {
    if pdu.room_id != info.room_id {
        return Some("the event belongs to another room");
    }
    if pdu.event_type == TimelineEventType::RoomCreate {
        return None;
    }
    pdu.prev_events.is_empty().then_some("only the create event comes after none")
}

pub(crate) fn verdict_of(event: &Event) -> Verdict {
    match &event.verdict {
        VerdictRecord::Accepted => Verdict::Accepted,
        VerdictRecord::SoftFailed { reason } => Verdict::SoftFailed { reason: reason.clone() },
        VerdictRecord::Rejected { reason } => Verdict::Rejected { reason: reason.clone() },
    }
}

pub(crate) fn record_of(verdict: &Verdict) -> VerdictRecord {
    match verdict {
        Verdict::Accepted => VerdictRecord::Accepted,
        Verdict::SoftFailed { reason } => VerdictRecord::SoftFailed { reason: reason.clone() },
        Verdict::Rejected { reason } => VerdictRecord::Rejected { reason: reason.clone() },
    }
}
