//! Checks 5 and 6: authorised by the state before the event, and by the current state of the room.

use ruma::{events::StateEventType, room_version_rules::RoomVersionRules};

use crate::{
    Pdu, Verdict,
    auth::{Held, authorize_by_state},
};

/// An event that its own auth events allow.
#[derive(Debug, Clone)]
pub struct AuthorizedPdu {
    pub(super) pdu: Pdu,
}

impl AuthorizedPdu {
    pub fn pdu(&self) -> &Pdu {
        &self.pdu
    }

    /// For events that are held without a place in the graph: nothing else is checked of them.
    pub fn into_pdu(self) -> Pdu {
        self.pdu
    }

    /// As [`AuthorizedPdu::judge`], where the state before the event is the current state.
    pub fn judge_at_head<S: Held>(
        self,
        rules: &RoomVersionRules,
        state: impl Fn(&StateEventType, &str) -> Option<S>,
    ) -> (Pdu, Verdict) {
        match authorize_by_state(rules, &self.pdu, state) {
            Ok(()) => (self.pdu, Verdict::Accepted),
            Err(rejection) => (self.pdu.into_rejected(), Verdict::Rejected { reason: rejection.reason }),
        }
    }

    /// As [`AuthorizedPdu::judge_at_head`], where the auth events of the event are all that authorises it in that state:
    /// check 4 has asked the same.
    pub fn judge_by_same(self) -> (Pdu, Verdict) {
        (self.pdu, Verdict::Accepted)
    }

    /// The end of the path: what becomes of the event. `current_state` is asked only if `state_before` allows it.
    pub fn judge<B: Held, C: Held>(
        self,
        rules: &RoomVersionRules,
        state_before: impl Fn(&StateEventType, &str) -> Option<B>,
        current_state: impl Fn(&StateEventType, &str) -> Option<C>,
    ) -> (Pdu, Verdict) {
        if let Err(rejection) = authorize_by_state(rules, &self.pdu, state_before) {
            return (self.pdu.into_rejected(), Verdict::Rejected { reason: rejection.reason });
        }
        match authorize_by_state(rules, &self.pdu, current_state) {
            Ok(()) => (self.pdu, Verdict::Accepted),
            Err(rejection) => (self.pdu, Verdict::SoftFailed { reason: rejection.reason }),
        }
    }
}
