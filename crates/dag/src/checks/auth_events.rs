//! Check 4: authorised by its own auth events.

use std::{collections::HashMap, sync::Arc};

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
    let state: HashMap<_, _> = ids.filter_map(|id| fetch_event(&id)).filter_map(keyed).collect();
    authorize_by_state(rules, pdu, |event_type, state_key| {
        state.get(&(event_type.clone(), state_key.to_owned())).cloned()
    })
}

fn keyed(pdu: Arc<Pdu>) -> Option<((StateEventType, String), Arc<Pdu>)> {
    let state_key = pdu.state_key.clone()?;
    Some(((pdu.event_type.to_string().into(), state_key), pdu))
}
