//! Check 1: is a valid event, within the size limits, in the format of its room version.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{
    CanonicalJsonObject, EventId, OwnedEventId, OwnedServerName, room_version_rules::RoomVersionRules,
    signatures,
};
use serde_json::value::RawValue;

use super::Dropped;
use crate::pdu::received_object;

/// Bytes that somebody calls a PDU.
#[derive(Debug, Clone, Copy)]
pub struct RawPdu<'a>(pub &'a RawValue);

/// An event by its form; nobody vouches for it yet.
#[derive(Debug, Clone)]
pub struct FormedPdu {
    pub(super) object: CanonicalJsonObject,
    pub(super) json: Arc<str>,
    pub(super) event_id: OwnedEventId,
}

impl RawPdu<'_> {
    pub fn check_format(self, rules: &RoomVersionRules) -> Result<FormedPdu, Dropped> {
        let (object, json, event_id) = received_object(self.0, rules)?;
        Ok(FormedPdu { object, json, event_id })
    }
}

impl FormedPdu {
    pub fn event_id(&self) -> &EventId {
        &self.event_id
    }

    /// The servers whose keys are needed to verify it.
    pub fn signing_servers(&self, rules: &RoomVersionRules) -> Result<BTreeSet<OwnedServerName>, Dropped> {
        Ok(signatures::required_server_signatures_to_verify_event(&self.object, &rules.signatures)?)
    }
}
