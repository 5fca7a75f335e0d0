//! The verdict on one member event that stands right after a state which is at hand.

use std::{collections::HashMap, sync::Arc};

use myelin_core::EventNid;
use myelin_dag::{
    Pdu, StateTree, Verdict, auth_types,
    checks::{VerifiedPdu, missing_auth_events},
};
use myelin_view::Event;
use ruma::events::StateEventType;

use crate::{Error, writer::Draft};

/// A judged event, and by which events it is authorised.
pub struct Judged {
    pub pdu: Pdu,
    pub verdict: Verdict,
    pub auth: Vec<EventNid>,
}

impl Draft<'_> {
    pub(super) async fn judge_after(&self, event: &VerifiedPdu, state: &StateTree) -> Result<Judged, Error> {
        let (info, pdu) = (&self.room.info, event.pdu());
        let auth = self.auth_events_of(pdu).await?;
        let nids = auth.iter().map(|event| event.nid).collect();
        let by_id: HashMap<_, _> = auth.iter().map(|event| (&*event.pdu.event_id, &event.pdu)).collect();
        let authorized = event.clone().authorize(&info.rules, |id| by_id.get(id).map(|pdu| (*pdu).clone()));
        let authorized = match authorized {
            Ok(authorized) => authorized,
            Err(unauthorized) => {
                let verdict = Verdict::Rejected { reason: unauthorized.rejection.reason };
                return Ok(Judged { pdu: *unauthorized.pdu, verdict, auth: nids });
            }
        };
        let (kind, key) = (&pdu.event_type, pdu.state_key.as_deref());
        let types = auth_types(&info.rules, kind, &pdu.sender, key, &pdu.content).unwrap_or_default();
        let before = self.auth_set(types, state).await?;
        let fetch = |event_type: &StateEventType, key: &str| {
            before.state(event_type, key).or_else(|| self.expected_member(&auth, event_type, key))
        };
        let (pdu, verdict) = authorized.judge(&info.rules, fetch, fetch);
        Ok(Judged { pdu, verdict, auth: nids })
    }

    async fn auth_events_of(&self, pdu: &Pdu) -> Result<Vec<Arc<Event>>, Error> {
        let ids = missing_auth_events(pdu, &self.room.info.rules, |_| false);
        let mut events = Vec::with_capacity(ids.len());
        for id in ids {
            let held = match self.pending_by_id(&id) {
                Some(event) => Some(event),
                None => self.rooms().view.events.load_by_id(&id).await?,
            };
            events.push(held.ok_or_else(|| Error::BadState(format!("The auth event {id} is not held.")))?);
        }
        Ok(events)
    }

    /// A member whom a partially joined room does not know yet is what the auth events say; that is looked at again when
    /// the members have come.
    fn expected_member<'a>(
        &self,
        auth: &'a [Arc<Event>],
        event_type: &StateEventType,
        user: &str,
    ) -> Option<&'a Pdu> {
        let absent = self.room.partial && *event_type == StateEventType::RoomMember;
        let mut members = auth.iter().map(|event| &*event.pdu).filter(|_| absent);
        members.find(|pdu| pdu.is_state_of("m.room.member", user))
    }
}
