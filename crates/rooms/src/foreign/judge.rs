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
    /// `partial`: the state lacks members, and where it does, the auth events tell.
    pub(super) async fn judge_after(
        &self,
        event: &VerifiedPdu,
        state: &StateTree,
        partial: bool,
    ) -> Result<Judged, Error> {
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
            let held = before.state(event_type, key);
            let absent = partial && held.is_none() && *event_type == StateEventType::RoomMember;
            held.or_else(|| {
                auth.iter().map(|event| &*event.pdu).find(|pdu| absent && is(pdu, event_type, key))
            })
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
}

fn is(pdu: &Pdu, event_type: &StateEventType, key: &str) -> bool {
    pdu.state_key.as_deref() == Some(key) && pdu.event_type.to_string() == event_type.to_string()
}
