//! Check 4: authorised by its own auth events.

use std::sync::Arc;

use ruma::{EventId, OwnedEventId, events::StateEventType, room_version_rules::RoomVersionRules};

use super::{AuthorizedPdu, VerifiedPdu};
use crate::{
    Pdu, Rejection,
    auth::{authorize_by_auth_events, authorize_by_state, implied_create_event},
};

/// A rejected event is kept: others may refer to it, and are then rejected in turn.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{rejection}")]
pub struct Unauthorized {
    pub pdu: Box<Pdu>,
    pub rejection: Rejection,
}

/// The events that must be known before [`VerifiedPdu::authorize`]: the auth events, and the create event that the
/// room id names in version 12 and up.
pub fn missing_auth_events(
    pdu: &Pdu,
    rules: &RoomVersionRules,
    is_known: impl Fn(&EventId) -> bool,
) -> Vec<OwnedEventId> {
    let wanted = pdu.auth_events.iter().cloned().chain(implied_create_event(pdu, rules));
    wanted.filter(|id| !is_known(id)).collect()
}

impl VerifiedPdu {
    pub fn authorize(
        self,
        rules: &RoomVersionRules,
        fetch_event: impl Fn(&EventId) -> Option<Arc<Pdu>>,
    ) -> Result<AuthorizedPdu, Unauthorized> {
        match check(&self.pdu, rules, fetch_event) {
            Ok(()) => Ok(AuthorizedPdu { pdu: self.pdu }),
            Err(rejection) => Err(Unauthorized { pdu: Box::new(self.pdu.into_rejected()), rejection }),
        }
    }
}

fn check(
    pdu: &Pdu,
    rules: &RoomVersionRules,
    fetch_event: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<(), Rejection> {
    authorize_by_auth_events(rules, pdu, &fetch_event)?;
    let ids = pdu.auth_events.iter().cloned().chain(implied_create_event(pdu, rules));
    // The last one of a kind counts, though there is one of each by the rules above.
    let state: Vec<_> = ids.filter_map(|id| fetch_event(&id)).filter_map(typed).collect();
    authorize_by_state(rules, pdu, |event_type, state_key| {
        let is_such = |held: &&(StateEventType, Arc<Pdu>)| {
            held.0 == *event_type && held.1.state_key.as_deref() == Some(state_key)
        };
        state.iter().rfind(is_such).map(|(_, pdu)| &**pdu)
    })
}

fn typed(pdu: Arc<Pdu>) -> Option<(StateEventType, Arc<Pdu>)> {
    pdu.is_state().then(|| (pdu.event_type.to_string().into(), pdu))
}
